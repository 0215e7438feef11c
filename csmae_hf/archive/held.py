"""What an archive holds: tiles, their vectors, what those were made with, and the indexes over them; all that its folder stores."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from csmae_hf.archive.segments import Segment
from csmae_hf.embedding.foreign import PREFIX
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.provenance import Provenance, TileSets, tile_sets
from csmae_hf.embedding.without_paths import public_name
from csmae_hf.files import Entry
from csmae_hf.search.compression import Compression
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.ids import ID, IdIndex, TileRows
from csmae_hf.search.index import ArchiveIndex
from csmae_hf.search.nearest import unit_vectors
from csmae_hf.search.recall import Recall
from csmae_hf.search.vectors import IntArray, Vectors

if TYPE_CHECKING:
    from csmae_hf.embedding.alignment import Alignment


@dataclass(frozen=True)
class Stored:
    """Where an archive lies, as far as it was opened from or saved to a folder.

    Attributes:
        folder: The folder.
        signature: Checksum of the manifest there.
        parts: What was written, by its `id()`, and to which file.
        indexes: By sensor, what the manifest says of an index that was not opened: its package or server is missing, or nobody asked.
        begun: What is true instead if the manifest is that of the last `save`, which was interrupted.
    """

    folder: Path | None = None
    signature: str | None = None
    parts: dict[int, tuple[Any, Entry]] = field(default_factory=dict)
    indexes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    begun: "Stored | None" = None


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of an archive, which no change touches: a change makes others.

    Attributes:
        segments: What holds them, one at least, in the order of their rows.
        known_sets: Which they are, as of `tile_sets`, where somebody knows it.
    """

    segments: Sequence[Segment]
    known_sets: TileSets | None = None

    @cached_property
    def sets(self) -> TileSets:
        """Which they are, as of `tile_sets`: hashed once, and followed by every change."""
        return sets_of(self.table) if self.known_sets is None else self.known_sets

    @cached_property
    def starts(self) -> IntArray:
        """Row of the first tile of each segment, and the row after the last."""
        return np.cumsum([0, *map(len, self.segments)])

    @cached_property
    def tables(self) -> list[pa.Table]:
        """Metadata of each segment, in the columns of all; what it lacks is None."""
        tables = [segment.kept_tiles for segment in self.segments]
        schema = pa.unify_schemas([table.schema for table in tables])
        whole = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")
        return [whole.slice(start, stop - start) for start, stop in itertools.pairwise(self.starts.tolist())]

    @cached_property
    def table(self) -> pa.Table:
        """Metadata of all."""
        return pa.concat_tables(self.tables)

    @cached_property
    def vectors(self) -> dict[str, Vectors]:
        """(N, D) unit vectors by sensor."""
        first, *others = self.segments
        vectors = dict(first.kept_vectors)
        for segment in others:
            vectors = {sensor: part.extend(segment.kept_vectors[sensor]) for sensor, part in vectors.items()}
        return vectors

    def find(self, names: Sequence[object]) -> IntArray:
        """Rows of ids, (n,); -1 of what is none."""
        rows = np.full(len(names), -1)
        for start, segment in zip(self.starts, self.segments, strict=False):
            own = segment.find(names)
            rows = np.where(own >= 0, own + start, rows)
        return rows

    def take(self, rows: IntArray) -> pa.Table:
        """Metadata of rows, in ascending order."""
        edges = np.searchsorted(rows, self.starts)
        parts = [
            table.take(pa.array(rows[first:last] - start))
            for table, start, first, last in zip(self.tables, self.starts, edges, edges[1:], strict=False)
            if first < last
        ]
        return pa.concat_tables(parts or [self.table.slice(0, 0)])


class Held:
    """The data of an archive, and the model that embeds its queries. See [`Archive`] for the arguments.

    Raises:
        ValueError: If ids do not name one tile each, or there are not as many embeds of every sensor as tiles.
    """

    def __init__(
        self,
        tiles: pa.Table,
        vectors: Mapping[str, Vectors],
        identity: Identity,
        *,
        model: torch.nn.Module | None = None,
        processor: Any = None,
        alignment: "Alignment | None" = None,
        unreadable: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        generated: bool | None = None,
        data_name: str | None = None,
    ):
        lengths = {"tiles": tiles.num_rows} | {sensor: len(part) for sensor, part in vectors.items()}
        if not vectors or len(set(lengths.values())) != 1 or len({part.width for part in vectors.values()}) != 1:
            raise ValueError(
                f"An archive has an embed of each sensor for each tile, all of one width; given: {lengths}."
            )
        segment = Segment.of(tiles, vectors)
        _check_index(segment.ids)
        self._tiles = Tiles([segment])
        self.identity = identity
        self.alignment = alignment
        self.unreadable = dict(unreadable or {})
        self.source = dict(source or {})
        self.generated = generated
        self._data_name = data_name  # where the source says no more than that
        self.recall: list[Recall] = []
        self.compression: list[Compression] = []  # what was measured of codes, of these tiles
        self.indexes: dict[str, ArchiveIndex] = {sensor: ExactIndex(part) for sensor, part in self.vectors.items()}
        self.stored = Stored()
        self.trust_remote_code = False  # whether the model may bring code of its own, where it is loaded by its name
        self._model, self._processor = model, processor

    @classmethod
    def of_segments(
        cls, segments: Sequence[Segment], sets: TileSets | None, identity: Identity, **options: Any
    ) -> Self:
        """An archive of segments, as they were stored; options are those of the class."""
        empty = {sensor: Vectors([], part.width) for sensor, part in segments[0].vectors.items()}
        held = cls(segments[0].tiles.slice(0, 0), empty, identity, **options)
        held._tiles = Tiles(segments, sets)
        held.indexes = {sensor: ExactIndex(part) for sensor, part in held.vectors.items()}
        return held

    @property
    def segments(self) -> Sequence[Segment]:
        """What holds the tiles, in the order of their rows."""
        return self._tiles.segments

    @property
    def tiles(self) -> pa.Table:
        """Metadata, a row a tile. Other columns may be set, of the same tiles."""
        return self._tiles.table

    @tiles.setter
    def tiles(self, tiles: pa.Table) -> None:
        if not tiles.column(ID).equals(self.tiles.column(ID)):
            raise ValueError("Metadata can be set of the same tiles, in the same order, only: use add and remove.")
        self._tiles = Tiles([Segment.of(tiles, self.vectors)])

    @property
    def vectors(self) -> Mapping[str, Vectors]:
        """(N, D) unit vectors by sensor, row i of tile i."""
        return self._tiles.vectors

    @property
    def sensors(self) -> list[str]:
        """Sensors whose embeds the archive holds."""
        return list(self.vectors)

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Where the tiles came from: of those it was built of, and of those added each time, as far as it is known."""
        first = {name: value for name, value in self.source.items() if name != "added"}
        return [source for source in (first, *self.source.get("added", ())) if source.get("data")]

    @property
    def provenance(self) -> Provenance:
        """What the embeds come from, without a path of this machine."""
        return replace(self.origin, tiles=self._tiles.sets)

    @property
    def origin(self) -> Provenance:
        """The same without the tiles."""
        names = [public_name(source["data"]) for source in self.sources]
        data = ", ".join(dict.fromkeys(names)) or self._data_name
        return Provenance.about(self.identity, alignment=self.alignment, data=data, generated=self.generated)

    @property
    def width(self) -> int:
        """Width of the embeds."""
        return next(iter(self.vectors.values())).width

    @property
    def ids(self) -> list[str]:
        """Ids of the tiles."""
        return self.tiles.column(ID).to_pylist()

    def __len__(self) -> int:
        return int(self._tiles.starts[-1])

    def __repr__(self) -> str:
        backends = ", ".join(f"{sensor}: {index.backend}" for sensor, index in self.indexes.items())
        return f"{type(self).__name__}({len(self)} tiles by {self.identity.described}; {backends})"

    @property
    def rows_by_id(self) -> Mapping[str, int]:
        """Row of each tile by its id. Many at once are found faster by `find`."""
        return TileRows(lambda: self.ids, self.find)

    def find(self, ids: Sequence[object]) -> IntArray:
        """Rows of tiles by their ids, (n,); -1 of what is no id of a tile."""
        return self._tiles.find(ids)

    def rows_of(self, ids: Sequence[str]) -> IntArray:
        """Find tiles by their ids: (n,) rows. An id that is not in the archive is a ValueError."""
        rows = self.find(ids)
        if (rows < 0).any():
            raise ValueError(
                f"{(rows < 0).sum()} of {len(ids)} ids are not in this archive of {len(self)} tiles, "
                f"{ids[int((rows < 0).argmax())]!r} for one."
            )
        return rows

    def take(self, rows: IntArray) -> pa.Table:
        """Metadata of rows, in ascending order: what of them is asked alone is copied."""
        return self._tiles.take(rows)

    def load_model(self) -> tuple[torch.nn.Module, Any]:
        """Give the model and its processor; where they were not given, load them by the name that the archive holds.

        Raises:
            FileNotFoundError: If there is no model of that name.
            ArchiveMismatchError: If it is not the one that the archive was made with.
        """
        if self._model is None or self._processor is None:
            from csmae_hf.embedding.encoder import (
                load_encoder,  # it takes a while to import, which a search by id need not wait for
            )

            identity = self.identity
            if imported := self.source.get("imported"):
                raise FileNotFoundError(
                    f"This archive was imported from {imported[0]}, and no name in a file makes this package load a model. Search by "
                    f"the id of a tile or by a vector; or name the model yourself, {identity.described} and no other: --model (in "
                    "Python model= and processor= of Archive.load)."
                )
            if identity.model.startswith(PREFIX):
                raise FileNotFoundError(
                    f"This archive was made with the encoder {identity.model.removeprefix(PREFIX)}. No archive makes this package run "
                    "code: name the encoder yourself, --encoder package.module:factory (in Python encoder= of Archive.load)."
                )
            if not identity.model:
                raise FileNotFoundError(
                    "This archive does not know the name of its model: pass model= and processor= to Archive.load."
                )
            try:
                model, processor = load_encoder(
                    identity.model, identity.revision, trust_remote_code=self.trust_remote_code
                )
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"The archive's model {identity.described} is neither a folder nor on the Hub: pass model= and processor= "
                    f"({error.__cause__})."
                ) from error
            self.use_model(model, processor)
        return self._model, self._processor  # type: ignore[return-value]

    def use_model(self, model: torch.nn.Module, processor: Any) -> None:
        """Take a model and processor for queries.

        Raises:
            ArchiveMismatchError: If they are not those that the archive was made with.
        """
        self.identity.refuse_other(Identity.of(model, processor), "This archive")
        self._model, self._processor = model, processor


def check_ids(ids: Sequence[str | None]) -> None:
    """Refuse, with a ValueError, ids that do not name one tile each."""
    _check_index(IdIndex(pa.array(ids, pa.string())))


def _check_index(ids: IdIndex) -> None:
    unknown = ids.ids.is_null()
    if ids.ids.null_count:
        row = pc.index(unknown, True).as_py()
        raise ValueError(
            f"{ids.ids.null_count} of {len(ids)} tiles have no id, row {row} for one: give every tile one."
        )
    twice = ids.repeated
    if twice:
        raise ValueError(f"{len(twice)} tile ids occur more than once (first: {twice[0]}). Keep one row of each.")


def sets_of(tiles: pa.Table) -> TileSets:
    """Which tiles a table is of, by its columns `id` and, where it has one of texts, `split`; as of [`tile_sets`]."""
    told = "split" in tiles.column_names and pa.types.is_string(tiles.schema.field("split").type)
    return tile_sets(tiles.column(ID).to_pylist(), tiles.column("split").to_pylist() if told else None)


def aligned_vectors(embeds: Mapping[str, np.ndarray[Any, Any]], alignment: "Alignment | None") -> dict[str, Vectors]:
    """Make an archive's vectors, (N, D) float32 of unit length, of embeds as a model gives them, (N, D) by sensor."""
    return {
        sensor: Vectors([unit_vectors(values if alignment is None else alignment.apply(values, sensor), sensor)])
        for sensor, values in embeds.items()
    }
