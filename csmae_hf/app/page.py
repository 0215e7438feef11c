"""The page: which widget calls what. What is shown is made in `cards`, `why` and `glance`; what is asked is kept in `state`."""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

from csmae_hf.app import cards
from csmae_hf.app.downloads import write_downloads
from csmae_hf.app.explorer import Explorer
from csmae_hf.app.glance import evaluation_table
from csmae_hf.app.pickers import compose_filter
from csmae_hf.app.remedies import Reading, in_words
from csmae_hf.app.state import MOST_RESULTS, Search, Session
from csmae_hf.app.uploads import cut_middle, read_upload
from csmae_hf.app.why import why_panel
from csmae_hf.images.image import BandImage, Said, kind_of
from csmae_hf.optional import needs_package
from image_checks_csmae import UNIT_NAMES, UNITS_OF

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

try:
    import gradio as gr
except ImportError as error:
    raise needs_package("The explorer", "gradio", error) from error

ASSETS = Path(__file__).with_name("assets")
EXAMPLES = 12

Changes = dict[Any, Any]
_MISTAKES = (ValueError, FileNotFoundError, ImportError)


class Page:
    """The widgets of the explorer, and what they do.

    Args:
        explorer: The archive.
    """

    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self.begin = explorer.begin()
        # What visitors brought and took away is deleted: looked for every hour, after a day, and at the end.
        self._scratch = tempfile.TemporaryDirectory(prefix="csmae-explorer-")
        with gr.Blocks(title="CSMAE explorer", analytics_enabled=False, delete_cache=(3600, 86_400)) as self.blocks:
            # Of each visitor; nothing else changes.
            self.session = gr.State(Session(self.begin, self.begin))
            self.uploads = gr.State({})
            self.turn = gr.State(0)
            self.url = gr.Textbox(visible=False)
            self.back = gr.Button("Back", elem_id="back")  # not seen: the browser's own button presses it
            self._html(cards.header(explorer))
            with gr.Tabs():
                with gr.Tab("Search"), gr.Row(elem_id="search"):
                    with gr.Column(scale=1, min_width=240, elem_id="controls"):
                        self._lay_out_controls()
                    with gr.Column(scale=4, min_width=240, elem_id="found"):
                        self._lay_out_results()
                with gr.Tab("At a glance") as glance:
                    self._lay_out_glance(glance)
            self._connect()
        self.blocks.queue(default_concurrency_limit=4)

    def _html(self, value: str = "", *, active: bool = False, **options: Any) -> gr.HTML:
        """HTML of ours; where it is active its buttons with `data-action` ask the server."""
        script = (ASSETS / "actions.js").read_text(encoding="utf-8") if active else None
        return gr.HTML(value, elem_classes=["explorer"], apply_default_css=False, js_on_load=script, **options)

    def _lay_out_controls(self) -> None:
        named = [(sensor.upper(), sensor) for sensor in self.explorer.bands]
        held = [(sensor.upper(), sensor) for sensor in self.explorer.archive.sensors]
        self.sensor = gr.Radio(named, value=self.begin.sensor, label="Query seen by", elem_id="sensor")
        self.archive_sensor = gr.Radio(
            held, value=self.begin.archive_sensor, label="Search the archive as seen by", elem_id="archive-sensor"
        )
        self.tile = gr.Textbox(label="Id of the query's tile", elem_id="tile", max_lines=1)
        self.k = gr.Slider(1, MOST_RESULTS, value=self.begin.k, step=1, label="Results", elem_id="k")
        self.include_self = gr.Checkbox(label="A tile may find itself", elem_id="include-self")
        with gr.Accordion("Filter", open=False):
            self.picked: dict[str, list[Any]] = {}
            for picker in self.explorer.pickers:
                widgets: list[Any]
                if picker.kind == "values":
                    widgets = [gr.Dropdown(list(picker.values), multiselect=True, label=picker.label)]
                elif picker.kind == "truth":
                    widgets = [gr.Radio(["any", "yes", "no"], value="any", label=picker.label)]
                else:
                    ends = zip(("from", "to"), picker.span or ("", ""), strict=True)
                    with gr.Row():
                        widgets = [
                            gr.Textbox(label=f"{picker.label} {end}", placeholder=day, max_lines=1, min_width=110)
                            for end, day in ends
                        ]
                self.picked[picker.column] = widgets
            self.where = gr.Textbox(
                label="And, typed",
                placeholder="country = 'Austria' and date_s2 <= '2017-08-31' and near(13.4, 48.2, 50)",
                elem_id="where",
                lines=2,
            )
        self.go = gr.Button("Search", variant="primary", elem_id="go")
        with gr.Accordion("Bring an image", open=False):
            self.files: dict[str, Any] = {}
            self.said: dict[str, list[Any]] = {}  # by sensor, what a person says of files that do not say it
            for sensor, bands in self.explorer.bands.items():
                kind = kind_of(sensor, bands)
                units = UNITS_OF["db"] if kind == "s1" else UNITS_OF["dn"] if kind == "s2" else ()
                self.said[sensor] = [
                    gr.Dropdown(
                        [("as the file says", ""), *((UNIT_NAMES[unit], unit) for unit in units)],
                        value=said if (said := self.explorer.said.get("units", {}).get(sensor, "")) in units else "",
                        label=f"{sensor.upper()} pixels are in",
                        elem_id=f"unit-{sensor}",
                    ),
                    gr.Textbox(
                        ",".join(self.explorer.said.get("bands", {}).get(sensor, ())),
                        label=f"{sensor.upper()} bands, in the order of a file that does not name them",
                        placeholder=",".join(bands),
                        max_lines=1,
                        elem_id=f"bands-{sensor}",
                    ),
                ]
                self.files[sensor] = gr.File(
                    label=f"{sensor.upper()} GeoTIFF, or one for each of its bands",
                    file_count="multiple",
                    height=120,
                    elem_id=f"upload-{sensor}",
                )
        with gr.Accordion("Share, repeat, export", open=False):
            self._html(
                '<p class="quiet">The address of this page holds the whole search: send it, or keep it. An uploaded image is not in '
                "it; a saved search has it.</p>"
            )
            self.export = gr.Button("Make files to take away", elem_id="export")
            self.exported = gr.File(label="Files", file_count="multiple", interactive=False, elem_id="exported")
            self.saved = gr.File(label="Open a saved search (search.json)", height=120, elem_id="saved")

    def _lay_out_results(self) -> None:
        self.status = self._html(cards.message(""), active=True, elem_id="status")
        with gr.Row(elem_id="examples-row"):
            self.examples = self._html(self._examples(0, self.begin.sensor), active=True, elem_id="examples")
            self.more = gr.Button("Other examples", size="sm", elem_id="more", scale=0, min_width=140)
        with gr.Row(elem_id="asked"):
            with gr.Column(min_width=240):
                self.query = self._html(cards.query_panel(self.explorer, self.begin, {}), elem_id="query")
                self.marks = self._html(active=True, elem_id="marks")
                with gr.Row():
                    self.again = gr.Button("Search again", elem_id="again", size="sm", min_width=100)
                    self.undo = gr.Button("Undo", elem_id="undo", size="sm", min_width=100)
            with gr.Column(min_width=240):
                self.map = self._html(elem_id="map")
        self.why = self._html(active=True, elem_id="why-panel")
        self.gallery = self._html(active=True, elem_id="gallery")

    def _lay_out_glance(self, tab: gr.Tab) -> None:
        by = gr.Dropdown(self.explorer.colorings(), value="sensor", label="Coloured by", elem_id="by")
        projection = self._html(elem_id="projection")
        measured = evaluation_table(self.explorer.evaluation, self.explorer.archive.provenance)
        self._html("<h2>How well it retrieves</h2>" + measured, elem_id="evaluation")

        def draw(by: str) -> str:
            try:
                return self.explorer.draw_projection(by)
            except ValueError as error:
                return cards.message(str(error), "error")

        for event in (tab.select, by.input):
            event(draw, [by], [projection], show_progress="hidden")

    def _examples(self, turn: int, sensor: str) -> str:
        return cards.example_strip(self.explorer, self.explorer.examples(EXAMPLES, turn), sensor)

    def _connect(self) -> None:
        widgets = [widget for group in self.picked.values() for widget in group]
        choices = [self.sensor, self.archive_sensor, self.tile, self.k, self.include_self, self.where, *widgets]
        kept, drawn = [self.session, self.uploads], [self.query, self.why, self.marks, self.gallery, self.map]
        units = [unit for unit, _ in self.said.values()]
        asked, shown = [*kept, *choices], [*kept, self.url, self.status, *drawn, *choices, *units]
        after = "(url) => window.explorer.shown(url)"  # keeps the address, and brings what was asked for into view

        def on(
            event: Callable[..., Any],
            handler: Callable[..., Changes],
            inputs: list[Any],
            after: str = after,
            **options: Any,
        ) -> Any:
            done = event(self._guarded(handler), inputs, shown, show_progress="minimal", queue=False, **options)
            return done.then(None, [self.url], None, js=after)

        on(self.go.click, self._search, asked)
        on(self.tile.submit, self._search, asked)
        on(self.where.submit, self._search, asked)
        # one event for both, and one answer at a time, so that the last choice has the last word
        switched = partial(gr.on, [self.sensor.input, self.archive_sensor.input])
        on(switched, self._switch, asked, trigger_mode="always_last")
        for part in (self.gallery, self.marks, self.examples, self.why):
            on(part.click, self._act, asked)
        on(self.again.click, lambda session, uploads: self._show(session.searched(session.current), uploads), kept)
        on(self.undo.click, self._undo, kept)
        brought = [*kept, self.archive_sensor, self.k, *(part for name in self.files for part in self._of_upload(name))]
        for sensor, file in self.files.items():
            unit, order = self.said[sensor]
            # files that are there already are read again as the choice says
            read = partial(gr.on, [file.upload, unit.input, order.submit])
            on(read, partial(self._uploaded, sensor), brought, trigger_mode="always_last")
        on(self.status.click, self._read_again, brought)
        on(self.saved.upload, self._opened, [self.session, self.saved])
        asked_for = "(session, uploads, url) => [session, uploads, location.search.slice(1)]"
        on(self.blocks.load, self._opened_link, [self.session, self.uploads, self.url], js=asked_for)
        # whoever goes back several steps at once gets the last, and the address is there already
        again = {"js": asked_for, "after": "() => window.explorer.returned()", "trigger_mode": "always_last"}
        on(self.back.click, self._opened_link, [self.session, self.uploads, self.url], **again)
        self.sensor.change(self._examples, [self.turn, self.sensor], [self.examples], show_progress="hidden")
        self.more.click(
            lambda turn, sensor: (turn + 1, self._examples(turn + 1, sensor)),
            [self.turn, self.sensor],
            [self.turn, self.examples],
            show_progress="hidden",
        )
        self.export.click(self._export, [self.session], [self.exported, self.status])

    def _guarded(self, handler: Callable[..., Changes]) -> Callable[..., Changes]:
        """A handler whose mistakes are told on the page, where everything else stays as it is."""

        @wraps(handler)
        def guarded(*values: Any, **options: Any) -> Changes:
            try:
                return handler(*values, **options)
            except _MISTAKES as error:
                return {self.status: cards.message(in_words(str(error)), "error")}

        return guarded

    def _show(self, session: Session, uploads: Mapping[str, Any], *, filters: bool = False) -> Changes:
        """Everything that a session shows; ValueError if its search cannot be answered."""
        search = session.shown
        changes: Changes = {
            self.session: session,
            self.uploads: dict(uploads),
            self.url: search.to_url() if session.current.has_query else "",
            self.status: cards.message(""),
            self.query: cards.query_panel(self.explorer, search, uploads),
            **dict.fromkeys((self.why, self.marks, self.gallery, self.map), ""),
            self.tile: search.tile or "",
            self.sensor: search.sensor,
            self.archive_sensor: search.archive_sensor,
            self.k: search.k,
            self.include_self: search.include_self,
        }
        if search.has_query:
            answer = self.explorer.search(search)
            results = cards.make_cards(answer)
            changes[self.status] = cards.message(cards.status_of(answer, results))
            changes[self.map] = cards.results_map(self.explorer, answer, results)
            changes |= self._marked(session, results)
        if filters:
            changes[self.where] = search.where
            for picker in self.explorer.pickers:
                empty: Any = {"values": [], "truth": "any", "time": ""}[picker.kind]
                changes |= dict.fromkeys(self.picked[picker.column], empty)
        return changes

    def _marked(self, session: Session, results: list[cards.Card]) -> Changes:
        """What marks change of the page."""
        return {
            self.session: session,
            self.marks: cards.marks(self.explorer, session),
            self.gallery: cards.gallery(self.explorer, session, results),
        }

    def _answer(self, session: Session, uploads: Mapping[str, Any]) -> Changes:
        """Everything that a session shows but the choices it was asked with: somebody may have made the next one meanwhile."""
        choices = (self.sensor, self.archive_sensor, self.k, self.include_self)
        return {part: value for part, value in self._show(session, uploads).items() if part not in choices}

    def _asked(self, search: Search, values: tuple[Any, ...]) -> Search:
        """A search as the widgets say."""
        sensor, archive_sensor, _, k, include_self, where, *picked = values
        values_left = iter(picked)
        groups = {column: [next(values_left) for _ in widgets] for column, widgets in self.picked.items()}
        held = {column: group if len(group) > 1 else group[0] for column, group in groups.items()}
        return replace(
            search,
            sensor=sensor,
            archive_sensor=archive_sensor,
            k=int(k),
            include_self=bool(include_self),
            where=compose_filter(held, self.explorer.pickers, where or ""),
        )

    def _by_sensor(self, search: Search, uploads: Mapping[str, Any]) -> Search:
        """A search by an upload, by the image of the sensor that it names."""
        if search.upload is None or not uploads:
            return search
        if search.sensor not in uploads:
            raise ValueError(
                f"You have not brought an {search.sensor.upper()} image: bring one, or query by {', '.join(uploads).upper()}."
            )
        # which was taken when it came
        embed = self.explorer.embed_upload(uploads[search.sensor], search.sensor, search.upload, accept=True)
        return replace(search, embed=embed)

    def _search(self, session: Session, uploads: dict[str, Any], *values: Any) -> Changes:
        tile = (values[2] or "").strip()
        search = session.current
        if tile and tile != search.tile:
            search = search.by_tile(tile)
        asked = self._by_sensor(self._asked(search, values), uploads)
        if not asked.has_query:
            raise ValueError("There is nothing to search by yet: choose a tile, type an id, or bring an image.")
        return self._answer(session.searched(asked), uploads)

    def _switch(self, session: Session, uploads: dict[str, Any], *values: Any) -> Changes:
        """Another sensor was chosen: search again where there is a query."""
        if not session.current.has_query:
            begin = replace(session.current, sensor=values[0], archive_sensor=values[1])
            return {self.session: Session(begin, begin)}
        return self._answer(session.searched(self._by_sensor(self._asked(session.current, values), uploads)), uploads)

    def _act(self, event: gr.EventData, session: Session, uploads: dict[str, Any], *values: Any) -> Changes:
        """A button of a card, of the marks or of the examples."""
        action, tile = str(event.action), str(event.tile)
        if action == "close":
            return {self.why: ""}
        self.explorer.metadata(tile)
        if action == "why":
            return {self.why: why_panel(self.explorer, session.shown, tile, uploads)}
        if action == "query":
            return self._show(session.searched(self._asked(session.current.by_tile(tile), values)), {})
        if action not in ("like", "unlike"):
            raise ValueError(f"Unknown action {action!r}.")
        results = cards.make_cards(self.explorer.search(session.shown))
        return self._marked(session.marked(tile, action), results)  # type: ignore[arg-type]

    def _undo(self, session: Session, uploads: dict[str, Any]) -> Changes:
        if not session.past:
            raise ValueError("There is nothing to undo.")
        return self._show(session.undone(), uploads, filters=True)

    def _of_upload(self, sensor: str) -> list[Any]:
        """The widgets of what is brought of a sensor: files, unit, order of bands."""
        return [self.files[sensor], *self.said[sensor]]

    def _uploaded(self, sensor: str, *values: Any) -> Changes:
        """Files came, or something was said of those that are there."""
        files, unit, _ = self._brought(values)[sensor]
        return self._read(Reading(sensor, unit or ""), *values) if files else {self.status: cards.message("")}

    def _read_again(self, event: gr.EventData, *values: Any) -> Changes:
        """A button of a message: read the files as it says."""
        return self._read(Reading.from_json(str(event.reading)), *values)

    def _brought(self, values: tuple[Any, ...]) -> dict[str, tuple[list[str] | None, str, str]]:
        """Files, unit and order of bands by sensor, of the values of the widgets that uploads ask."""
        parts = iter(values[4:])
        return {sensor: (next(parts), next(parts), next(parts)) for sensor in self.files}

    def _read(
        self, reading: Reading, session: Session, uploads: dict[str, Any], archive_sensor: str, k: float, *parts: Any
    ) -> Changes:
        """Search by the files that were brought of a sensor, or say why not, and as what else they may be taken."""
        sensor = reading.sensor
        held, _, order = self._brought((session, uploads, archive_sensor, k, *parts))[sensor]
        files = held or []
        names = tuple(name.strip() for name in order.split(",") if name.strip())
        said = Said(reading.unit or None, reading.level or self.explorer.said.get("level"), names or None)
        shown: Changes = {self.said[sensor][0]: reading.unit}
        middle: BandImage | None = None
        try:
            bands = read_upload(files, self.explorer.bands[sensor], sensor, said)
            middle = cut_middle(bands, self.explorer.tile_size) if self.explorer.tile_size else None
            if reading.cut and middle is not None:
                bands, middle = middle, None
            name = Path(files[0]).name
            embed = self.explorer.embed_upload(bands, sensor, name, accept=reading.accept)
        except _MISTAKES as error:
            offers = reading.offers(str(error))
            if middle is not None:
                offers.insert(0, ("Take the tile in its middle", replace(reading, cut=True)))
            buttons = "".join(other.button(words) for words, other in offers)
            return {**shown, self.status: cards.message(in_words(str(error)), "error", buttons)}
        # Two images are a pair where the second comes to an upload; else a new query begins.
        pair = {**(uploads if session.current.upload is not None else {}), sensor: bands}
        search = replace(session.current.by_upload(name, embed, sensor), archive_sensor=archive_sensor, k=int(k))
        changes = {**shown, **self._show(session.searched(search), pair)}
        if bands.facts.notes:
            changes[self.status] += cards.message(f"{name}: {' '.join(bands.facts.notes)}")
        return changes

    def _opened(self, session: Session, file: str) -> Changes:
        path = Path(file)
        if path.stat().st_size > 16 * 2**20:
            raise ValueError(f"{path.name} is too large for a saved search.")
        text, made_with = path.read_text(encoding="utf-8", errors="replace"), self.explorer.archive.identity.fingerprint
        search = self.explorer.completed(Search.from_json(text, made_with))
        return self._show(session.searched(search), {}, filters=True)

    def _opened_link(self, session: Session, uploads: dict[str, Any], url: str) -> Changes:
        """Show the search of the page's address: a link that was opened, or where the browser went back to."""
        earlier = [shown for _, shown in session.past if shown.embed is not None and shown.to_url() == url]
        if earlier:  # by an image that was brought, which is in no address
            return self._show(session.searched(earlier[-1]), uploads, filters=True)
        search = self.explorer.completed(Search.from_url(url or ""))
        if not search.has_query and not session.shown.has_query:
            return {self.url: url or ""}
        return self._show(session.searched(search), {}, filters=True)

    def _export(self, session: Session) -> tuple[list[str] | None, str]:
        try:
            hits = self.explorer.search(session.shown).hits if session.shown.has_query else None
            folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
            files = write_downloads(self.explorer.archive, session.current, hits, folder)
        except _MISTAKES as error:
            return None, cards.message(str(error), "error")
        return [str(file) for file in files], cards.message(f"{len(files)} files are ready, below the button.")


def theme() -> gr.Theme:
    """The page's look: fonts that every system has, so that none is fetched."""
    fonts = ["system-ui", "Segoe UI", "DejaVu Sans", "Arial", "sans-serif"]
    return gr.themes.Default(font=fonts, font_mono=["ui-monospace", "DejaVu Sans Mono", "Consolas", "monospace"])
