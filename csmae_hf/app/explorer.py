"""An archive with everything that a page asks of it; shared by all visitors, changed by none."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from csmae_hf.app.geography import Place, place_of
from csmae_hf.app.glance import Projection, draw_projection, groups_by, project, sample_rows
from csmae_hf.app.pickers import Picker, pickers_of
from csmae_hf.app.state import Search
from csmae_hf.app.tile_pictures import TilePictures
from csmae_hf.archive.hits import Hits
from csmae_hf.data.suspects import Suspect
from csmae_hf.embedding.embed import embed_images
from csmae_hf.embedding.foreign import EncoderModule
from csmae_hf.search.filter_language import mask_of, parse_filter

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

    from csmae_hf.archive.archive import Archive
    from modeling_csmae import CSMAEForPreTraining

logger = logging.getLogger(__name__)

MOST_DOTS = 500
"""Tiles of the archive that are on the map beside the results, evenly spread."""

MOST_ANSWERS = 128
"""Answers that are kept, so that whoever marks or questions a result does not search again."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a search found, and how long the archive searched."""

    hits: Hits  # of one query
    query: Mapping[str, Any]  # metadata of the tile that is the query; empty where it is none of the archive
    seconds: float
    by_chance: float | None = None  # share of the tiles it might have found that share a label with the query


class Explorer:
    """An archive to be looked at.

    Args:
        archive: The archive.
        dataset: Its tiles, with their pixels, in one dataset or several, a later one before an earlier; None where they are not at
            hand: then there are no pictures.
        evaluation: What `run_retrieval.py` wrote, where it was run.
        notice: A sentence that stands above everything, such as that the tiles are generated.
        said: What is said of uploaded files: `bands` and `units` by sensor, `level`.
        suspect: What is done with uploads that show a sign which is a guess; one alone is not left out, but refused.
    """

    def __init__(
        self,
        archive: "Archive",
        dataset: "Dataset | Sequence[Dataset] | None" = None,
        evaluation: Mapping[str, Any] | None = None,
        notice: str = "",
        said: Mapping[str, Any] | None = None,
        suspect: Suspect = "refuse",
    ):
        self.archive, self.dataset, self.evaluation, self.notice = archive, dataset, evaluation, notice
        self.said, self.suspect = dict(said or {}), suspect
        self._lock = threading.Lock()
        self._reconstructor: CSMAEForPreTraining | ValueError | FileNotFoundError | None = None
        self._answer = lru_cache(MOST_ANSWERS)(self._ask)
        datasets: list[Dataset] = (
            list(dataset) if isinstance(dataset, (list, tuple)) else [] if dataset is None else [dataset]
        )
        features = {name: feature for each in datasets for name, feature in each.features.items()}
        known = {sensor: getattr(features.get(sensor), "bands", ()) for sensor in archive.sensors}
        self.tile_size: int | None = None  # of what the model takes, pixels of 10 m; None where there is no model
        try:
            _, processor = archive.load_model()
            bands: dict[str, Sequence[str]] = {
                sensor: names or known.get(sensor, ()) for sensor, names in processor.sensors.items()
            }
            size = getattr(processor, "size", None)
            self.tile_size = size if isinstance(size, int) else None
            units = dict(getattr(processor, "units", None) or {})
        except FileNotFoundError as error:
            logger.warning("Without uploads, and without reasons: %s", error)
            bands, units = known, {}
        self.bands = bands  # by sensor that a query may be of
        shown = {sensor: names for sensor, names in bands.items() if names}
        self.pictures = TilePictures(datasets, shown, units, archive.tiles)

    @cached_property
    def pickers(self) -> list[Picker]:
        """How the archive's metadata is picked."""
        return pickers_of(self.archive.tiles)

    def begin(self) -> Search:
        """The search that a page begins with: nothing asked yet, across sensors where there are two."""
        first, held = next(iter(self.bands)), self.archive.sensors
        return Search(sensor=first, archive_sensor=next((name for name in reversed(held) if name != first), held[0]))

    def completed(self, search: Search) -> Search:
        """A search with sensors where it names none; ValueError if it names one that there is not."""
        begin = self.begin()
        sensor, target = search.sensor or begin.sensor, search.archive_sensor or begin.archive_sensor
        if sensor not in self.bands:
            raise ValueError(f"The model has no sensor {sensor!r}; it has {', '.join(self.bands)}.")
        if target not in self.archive.sensors:
            raise ValueError(f"The archive has no embeds of {target!r}; it has {', '.join(self.archive.sensors)}.")
        return replace(search, sensor=sensor, archive_sensor=target)

    def metadata(self, tile: str) -> dict[str, Any]:
        """Metadata of a tile; ValueError if it is not in the archive."""
        row = int(self.archive.rows_of([tile])[0])
        held: dict[str, Any] = self.archive.tiles.slice(row, 1).to_pylist()[0]
        return held

    def examples(self, count: int, turn: int = 0) -> list[str]:
        """Ids of some tiles to begin with: others at each turn, the same for everybody."""
        rows = np.random.default_rng(turn).permutation(len(self.archive))[:count]
        return self.archive.tiles.column("id").take(rows).to_pylist()

    def search(self, search: Search) -> Answer:
        """Answer a search, or give the answer that it had before: an archive that is shown does not change.

        Raises:
            ValueError: If a tile, sensor or column is unknown, or there is nothing to search by.
        """
        if not search.has_query:
            raise ValueError("There is nothing to search by yet: choose a tile, type an id, or upload an image.")
        return self._answer(replace(search, collected=()))  # what was collected does not move the query

    def _ask(self, search: Search) -> Answer:
        known = self.metadata(search.tile) if search.tile is not None else {}
        query: Any = search.tile
        if search.embed is not None:
            query = np.array(search.embed, dtype=np.float32)
        elif search.tile is not None and search.sensor not in self.archive.sensors:
            query = self.bands_of(search)[search.sensor]
        started = time.perf_counter()
        hits = self.archive.search(
            query,
            sensor=search.sensor,
            archive_sensor=search.archive_sensor,
            k=search.k,
            filter=search.where or None,
            like=search.like,
            unlike=search.unlike,
            include_self=search.include_self,
        )
        seconds = time.perf_counter() - started
        return Answer(hits, known, seconds, self._share_by_chance(known, search))

    def _share_by_chance(self, query: Mapping[str, Any], search: Search) -> float | None:
        """Share of the labelled tiles which the filter keeps that share a label with a tile; None where no labels are known."""
        wanted, tiles = query.get("labels"), self.archive.tiles
        if not wanted or not pa.types.is_list(tiles.schema.field("labels").type):
            return None
        if search.where.strip():
            tiles = tiles.filter(pa.array(mask_of(parse_filter(search.where, tiles.schema), tiles)))
        if not search.include_self:
            tiles = tiles.filter(pc.not_equal(tiles.column("id"), query["id"]))
        labels = tiles.column("labels").combine_chunks()
        shares = pc.is_in(labels.flatten(), pa.array(wanted, labels.type.value_type))
        sharing = len(pc.unique(pc.list_parent_indices(labels).filter(shares)))
        labelled = pc.sum(pc.greater(pc.list_value_length(labels), 0)).as_py()
        return sharing / labelled if labelled else None

    def embed_upload(
        self, bands: Mapping[str, Any], sensor: str, name: str, *, accept: bool = False
    ) -> tuple[float, ...]:
        """The embed (D,), before any alignment, of an uploaded image, (H, W) by band, which errors call by its name.

        `accept` takes it although it shows a sign which is a guess.

        Raises:
            ValueError: If the processor refuses it.
            FileNotFoundError: If there is no model.
        """
        suspect = "accept" if accept else self.suspect
        embeds = embed_images(*self.archive.load_model(), [bands], sensor, [name], suspect)
        return tuple(float(value) for value in embeds[0])

    def bands_of(
        self, search: Search, uploads: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, Mapping[str, Any]]:
        """Pixels of a query, of every sensor that has them: bands by name, by sensor."""
        if search.upload is not None:
            return dict(uploads or {})
        if search.tile is None:
            return {}
        found = {sensor: self.pictures.bands(search.tile, sensor) for sensor in self.bands}
        return {sensor: bands for sensor, bands in found.items() if bands is not None}

    def warm(self) -> None:
        """Do once what the first visitor would have to wait for."""
        if not len(self.archive):
            return
        sensor = self.archive.sensors[0]
        try:
            self.search(Search(tile=self.archive.ids[0], sensor=sensor, archive_sensor=sensor))
            self.dots  # noqa: B018 (kept once it was asked for)
            self.projection  # noqa: B018
            self.reconstructor()
        except (ValueError, FileNotFoundError) as error:
            logger.info("%s", error)

    def reconstructor(self) -> "CSMAEForPreTraining":
        """The model with its decoders, loaded when it is first asked for; raises as `load_reconstructor`."""
        with self._lock:
            if self._reconstructor is None:
                model, _ = self.archive.load_model()
                name = str(getattr(model, "name_or_path", "") or self.archive.identity.model or "")
                try:
                    if isinstance(model, EncoderModule):
                        raise ValueError(
                            "This encoder predicts no sensor from another, so it cannot show what it expects to see."
                        )
                    self._reconstructor = load_reconstructor(name, self.archive.identity.revision)
                except (ValueError, FileNotFoundError) as error:
                    self._reconstructor = error  # so that it is looked for once
            if isinstance(self._reconstructor, Exception):
                raise self._reconstructor
            return self._reconstructor

    @cached_property
    def dots(self) -> list[Place]:
        """Places of some tiles of the archive."""
        tiles = self.archive.tiles.take(sample_rows(len(self.archive), MOST_DOTS)).to_pylist()
        return [place for tile in tiles if (place := place_of(tile)) is not None]

    @cached_property
    def projection(self) -> Projection:
        """The archive's embeds on a plane."""
        return project(self.archive.vectors)

    def colorings(self) -> list[str]:
        """By what the projection can be coloured."""
        found = ["sensor"]
        for picker in self.pickers:
            if picker.kind == "values":
                many = self.archive.tiles.schema.field(picker.column).type.num_fields > 0
                found += [f"{picker.column}: {value}" for value in picker.values] if many else [picker.column]
        return found

    def draw_projection(self, by: str) -> str:
        """The projection as SVG, coloured by one of `colorings()`."""
        if by not in self.colorings() or by == "sensor":
            return draw_projection(self.projection)
        column, _, value = by.partition(": ")
        values = self.archive.tiles.column(column).take(self.projection.rows).to_pylist()
        if value:
            groups, group_of = [value], np.array([0 if value in (held or ()) else -1 for held in values])
        else:
            groups, group_of = groups_by(values)
        return draw_projection(self.projection, groups, group_of, by.replace("_", " "))


def load_reconstructor(name: str, revision: str | None = None, **options: Any) -> "CSMAEForPreTraining":
    """Load a model with its decoders from a folder or the Hub, in evaluation mode; options are those of `from_pretrained`.

    Raises:
        ValueError: If it was published without decoders, or was not trained to predict one sensor from another.
        FileNotFoundError: If there is no such model.
    """
    from csmae_hf.cpu import speed_up
    from modeling_csmae import CSMAEForPreTraining

    options |= {"revision": revision} if revision else {}
    try:
        model, report = CSMAEForPreTraining.from_pretrained(name, output_loading_info=True, **options)
    except OSError as error:
        raise FileNotFoundError(f"The model {name} is neither a folder nor on the Hub ({error}).") from error
    if any(key.startswith("decoder") for key in report["missing_keys"]):
        raise ValueError("This model was saved without its decoders, so it cannot show what it expects to see.")
    if not model.config.cmr_weight:
        raise ValueError("This model was not trained to predict one sensor from another.")
    return speed_up(model.eval())
