"""The search on the page, as HTML: the query, its results as cards and on a map, the marks. From what was asked to what is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from csmae_hf.app.explorer import Answer, Explorer
from csmae_hf.app.geography import Marker, Place, distance, draw_map, place_of
from csmae_hf.app.html import escape, figure
from csmae_hf.app.state import Search, Session
from csmae_hf.visualize import abbreviate

_SIGNS = {"like": "+", "unlike": "−"}  # noqa: RUF001 (a minus as wide as the plus)


@dataclass(frozen=True)
class Card:
    """A result, by rank from 1 and id of its tile; what is not known of it is None."""

    rank: int
    tile: str
    score: float  # cosine similarity to the query
    labels: tuple[tuple[str, bool], ...]  # its classes, those shared with the query first, and whether each is shared
    hit: bool | None  # whether it shares a label with the query
    place: Place | None
    kilometres: float | None  # from the query
    facts: tuple[str, ...]  # when it was seen and further metadata, in words

    @property
    def kind(self) -> str:
        """Its class in the style sheet: "hit", "miss" or "unknown"."""
        return {True: "hit", False: "miss", None: "unknown"}[self.hit]


def make_cards(answer: Answer) -> list[Card]:
    """Describe the results of a search, best first."""
    wanted = {str(label) for label in answer.query.get("labels") or ()}
    query_place = place_of(answer.query) if answer.query else None
    cards = []
    for hit in answer.hits[0]:
        labels = [(str(label), str(label) in wanted) for label in hit.get("labels") or ()]
        place = place_of(hit)
        day = _day_of(hit, answer.hits.archive_sensor)
        cards.append(
            Card(
                rank=int(hit["rank"]),
                tile=str(hit["id"]),
                score=float(hit["score"]),
                labels=tuple(sorted(labels, key=lambda label: not label[1])),
                hit=any(shared for _, shared in labels) if wanted and labels else None,
                place=place,
                kilometres=distance(query_place, place) if query_place is not None and place is not None else None,
                facts=(*([day] if day else []), *_facts_of(hit)),
            )
        )
    return cards


def _day_of(tile: Mapping[str, Any], sensor: str) -> str | None:
    """When a tile was seen by a sensor, as an ISO date; by any, where that of this one is not known."""
    times = {name: value for name, value in tile.items() if isinstance(value, date)}
    value = times.get(f"date_{sensor}", next(iter(times.values()), None))
    return None if value is None else value.isoformat()[:10]


def _facts_of(tile: Mapping[str, Any]) -> list[str]:
    """Country, season and flags of a tile, as far as they are known, in words."""
    words = [str(tile[name]) for name in ("country", "season") if tile.get(name)]
    return words + [name.replace("_", " ") for name, value in tile.items() if value is True]


def header(explorer: Explorer) -> str:
    """What the page is of."""
    archive = explorer.archive
    model = archive.identity.described
    if model.startswith("/"):  # where it lies on the server is nobody's business
        model = model.rpartition("/")[2]
    sensors = " and ".join(sensor.upper() for sensor in archive.sensors)
    notice = f'<p class="notice">{escape(explorer.notice)}</p>' if explorer.notice else ""
    if explorer.dataset is None:
        notice += (
            '<p class="notice">The tiles themselves are not at hand, so there are no pictures: start with '
            "<code>--data</code>.</p>"
        )
    return (
        f"<header><h1>CSMAE explorer</h1><p>{len(archive):,} tiles, embedded by {escape(sensors)}; model "
        f"{escape(model)}.</p>{notice}</header>"
    )


def message(text: str, kind: str = "status", buttons: str = "") -> str:
    """A sentence for the person: "status", or "error", with buttons for what may be done, as HTML."""
    role, sign = ("alert", '<span aria-hidden="true">⚠</span> ') if kind == "error" else ("status", "")
    held = f'<span class="offers">{buttons}</span>' if buttons else ""
    return f'<p class="{kind if text else "empty"}" role="{role}">{sign if text else ""}{escape(text)}{held}</p>'


def example_strip(explorer: Explorer, tiles: Sequence[str], sensor: str) -> str:
    """Tiles to begin with, as buttons."""
    items = "".join(
        f'<li><button type="button" data-action="query" data-tile="{escape(tile)}" '
        f'aria-label="Search by the {sensor.upper()} image of tile {escape(tile)}" title="{escape(tile)}">'
        f"{_small_picture(explorer, tile, sensor, 72, f'<span>{escape(tile[-12:])}</span>')}</button></li>"
        for tile in tiles
    )
    return f'<ul class="strip examples">{items}</ul>' if items else '<p class="quiet">The archive is empty.</p>'


def _small_picture(explorer: Explorer, tile: str, sensor: str, size: int, instead: str) -> str:
    pictures = explorer.pictures.of(tile, sensor)
    return f'<img src="{pictures[0][1]}" alt="" width="{size}" height="{size}">' if pictures else instead


def _figures(pictures: Sequence[tuple[str, str]], name: str) -> str:
    """Pictures, each a title and a URI, of what is called `name`."""
    return "".join(figure(uri, title, name) for title, uri in pictures)


def query_panel(explorer: Explorer, search: Search, uploads: Mapping[str, Mapping[str, Any]]) -> str:
    """The query: its images by every sensor, and what is known of it."""
    if not search.has_query:
        return (
            '<div class="welcome"><h2>Ask the archive</h2><p>Choose one of the example tiles, type the id of a tile, or bring a '
            "GeoTIFF. The query is seen by one sensor, and the archive searched by what another sensor saw.</p></div>"
        )
    name, known, pictures = "What you like", {}, []
    if search.upload is not None:
        name = search.upload
        pictures = [picture for sensor, bands in uploads.items() for picture in explorer.pictures.draw(bands, sensor)]
    elif search.tile is not None:
        name, known = search.tile, explorer.metadata(search.tile)
        sensors = sorted(explorer.bands, key=lambda sensor: sensor != search.sensor)
        pictures = [picture for sensor in sensors for picture in explorer.pictures.of(name, sensor)]
    labels = "".join(f"<li>{escape(label)}</li>" for label in known.get("labels") or ())
    moved = [f"where {search.where}"] if search.where else []
    if search.like or search.unlike:
        moved.insert(0, f"moved by {len(search.like)} liked and {len(search.unlike)} not liked")
    return (
        f'<section class="query" aria-label="Query"><div class="pictures">{_figures(pictures, "Query")}</div><div><h2>Query '
        f'<span class="sensors">{escape(search.sensor.upper())} → {escape(search.archive_sensor.upper())}</span></h2>'
        f'<p class="id">{escape(name)}</p><ul class="labels">{labels}</ul><p>{escape(", ".join(_facts_of(known)))}</p>'
        f'<p class="quiet">{escape("; ".join(moved))}</p></div></section>'
    )


def gallery(explorer: Explorer, session: Session, cards: Sequence[Card]) -> str:
    """The results."""
    if not cards:
        return '<p class="quiet">Nothing was found.</p>'
    return f'<ol class="cards" aria-label="Results">{"".join(_card(explorer, session, card) for card in cards)}</ol>'


def _card(explorer: Explorer, session: Session, card: Card) -> str:
    target, tile, rank = session.shown.archive_sensor, escape(card.tile), card.rank
    others = [picture for name in explorer.bands if name != target for picture in explorer.pictures.of(card.tile, name)]
    own = _figures(explorer.pictures.of(card.tile, target), f"Result {rank}")
    more = _figures(others, f"Result {rank}")
    sign, words = {
        True: ("✓", f"shares {sum(shared for _, shared in card.labels)} of {len(card.labels)}"),
        False: ("✗", "shares none"),
        None: ("?", "labels not known"),
    }[card.hit]
    labels = "".join(
        f'<li class="shared" title="{escape(label)}"><span aria-label="shared with the query:">✓</span> '
        f"{escape(abbreviate(label, 30))}</li>"
        if shared
        else f'<li title="{escape(label)}">{escape(abbreviate(label, 30))}</li>'
        for label, shared in card.labels
    )
    facts = list(card.facts)
    if card.kilometres is not None:
        facts.insert(0, f"{card.kilometres:,.0f} km away" if card.kilometres >= 1 else "the same place")
    both = (
        f'<button type="button" data-both="{rank}" aria-expanded="false" aria-controls="both-{rank}">Both sensors</button>'
        if more
        else ""
    )
    where = (
        f'<button type="button" data-show="{tile}" aria-label="Show result {rank} on the map">Map</button>'
        if card.place
        else ""
    )
    return (
        f'<li class="card {card.kind}" data-tile="{tile}" id="card-{rank}" tabindex="-1"><div class="head">'
        f'<span class="rank">{rank}</span><span class="verdict"><span aria-hidden="true">{sign}</span> {words}</span>'
        f'<span class="score" title="cosine similarity">{card.score:.3f}</span></div><div class="pictures">{own}</div>'
        f'<div class="pictures" id="both-{rank}" hidden>{more}</div><ul class="labels">{labels}</ul>'
        f'<p class="facts">{escape(" · ".join(facts))}</p>'
        f'<p class="id" title="{tile}">{tile}</p><div class="actions">{_mark_button(session, card, "like", "Like")}'
        f"{_mark_button(session, card, 'unlike', 'Unlike')}{both}{where}"
        f'<button type="button" data-action="why" data-tile="{tile}" aria-label="Why result {rank}?">Why?</button>'
        f'<button type="button" data-action="query" data-tile="{tile}" aria-label="Search by result {rank}">'
        "Search by it</button></div></li>"
    )


def _mark_button(session: Session, card: Card, verdict: str, word: str) -> str:
    pressed = str(card.tile in getattr(session.current, verdict)).lower()
    return (
        f'<button type="button" class="{verdict}" data-action="{verdict}" data-tile="{escape(card.tile)}" '
        f'aria-pressed="{pressed}" aria-label="{word} result {card.rank}">'
        f'<span aria-hidden="true">{_SIGNS[verdict]}</span> {word}</button>'
    )


def marks(explorer: Explorer, session: Session) -> str:
    """What is liked, not liked and collected so far."""
    current, shown = session.current, session.shown
    if not (current.like or current.unlike or current.collected):
        return '<p class="quiet">Like or unlike results, then search again: the query moves towards what you like.</p>'
    items = "".join(
        f'<li class="{verdict}"><button type="button" data-action="{verdict}" data-tile="{escape(tile)}" '
        f'aria-label="Take the mark off {escape(tile)}" title="{escape(tile)}">'
        f"{_small_picture(explorer, tile, shown.archive_sensor, 44, escape(tile[-8:]))}"
        f'<span aria-hidden="true">{sign}</span></button></li>'
        for verdict, sign in _SIGNS.items()
        for tile in getattr(current, verdict)
    )
    words = f"{len(current.like)} liked, {len(current.unlike)} not liked, {len(current.collected)} collected."
    if (current.like, current.unlike) != (shown.like, shown.unlike):
        words += " Search again to use these marks."
    return f'<p>{words}</p><ul class="strip small">{items}</ul>'


def results_map(explorer: Explorer, answer: Answer, cards: Sequence[Card]) -> str:
    """Where the query and its results lie."""
    markers = [Marker(card.tile, card.place, str(card.rank), card.kind) for card in cards if card.place is not None]
    unknown = len(cards) - len(markers)
    place = place_of(answer.query) if answer.query else None
    if place is not None:
        markers.insert(0, Marker(str(answer.query["id"]), place, "Q", "query"))
    if not markers:
        return f'<section aria-label="Map">{draw_map([])}</section>'
    words = f'<p class="quiet">Of {unknown} results the place is not known.</p>' if unknown else ""
    return (
        f'<section aria-label="Map">{draw_map(markers, explorer.dots)}<p class="quiet">Q: the query; number: rank, a filled mark '
        f"shares a label. Dots: other tiles of the archive.</p>{words}</section>"
    )


def status_of(answer: Answer, cards: Sequence[Card]) -> str:
    """What an answer is, and what should be known of it."""
    hits = answer.hits
    how = "exact" if hits.exact else "approximate"
    words = f"{len(cards)} results out of {hits.kept:,} tiles, {how} search, {answer.seconds * 1000:.0f} ms."
    judged = [card.hit for card in cards if card.hit is not None]
    if judged:
        words += f" {sum(judged)} of {len(judged)} share a label with the query"
        chance = answer.by_chance
        words += "." if chance is None else f"; in a random order {chance * len(judged):.1f} of {len(judged)} would."
    return " ".join([words, *hits.notes])
