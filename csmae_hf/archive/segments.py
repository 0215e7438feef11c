"""Segments: what an archive is made of. Each holds some tiles and is never changed; what is taken out of it is a list of rows.

Adding tiles adds a segment. So that there are never many, neighbours are merged as in a log-structured tree: see [`settled`].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from csmae_hf.search.ids import ID, IdIndex
from csmae_hf.search.vectors import IntArray, Vectors

LARGE = 65_536
"""Tiles of a segment that is merged with others on request only."""

FAN = 4
"""Segments of a size, up to so many times as large as each other, that become one."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Some tiles of an archive.

    Attributes:
        tiles: Metadata, a row a tile, with the column `id`.
        vectors: (n, D) unit vectors by sensor, row i of tile i.
        ids: Finds its rows by id.
        removed: Rows that are no tiles of the archive any more, ascending.
    """

    tiles: pa.Table
    vectors: Mapping[str, Vectors]
    ids: IdIndex
    removed: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, tiles: pa.Table, vectors: Mapping[str, Vectors]) -> "Segment":
        """A segment of metadata and vectors."""
        tiles = in_plain_types(tiles).combine_chunks()
        return cls(tiles, dict(vectors), IdIndex(tiles.column(ID)))

    def __len__(self) -> int:
        return self.tiles.num_rows - len(self.removed)

    @cached_property
    def kept(self) -> IntArray:
        """Rows that are tiles of the archive, ascending."""
        left = np.ones(self.tiles.num_rows, dtype=bool)
        left[self.removed] = False
        return np.flatnonzero(left)

    @cached_property
    def kept_tiles(self) -> pa.Table:
        """Metadata of these."""
        return self.tiles.take(pa.array(self.kept)) if len(self.removed) else self.tiles

    @cached_property
    def kept_vectors(self) -> Mapping[str, Vectors]:
        """Vectors of these."""
        if not len(self.removed):
            return self.vectors
        return {sensor: part.select(self.kept) for sensor, part in self.vectors.items()}

    def find(self, names: Sequence[object]) -> IntArray:
        """Places among what is kept of tiles of these ids; -1 of what is none."""
        rows = self.ids.find(names)
        if not len(self.removed):
            return rows
        before = np.searchsorted(self.removed, rows)
        gone = self.removed[np.minimum(before, len(self.removed) - 1)] == rows
        return np.where((rows < 0) | gone, -1, rows - before)

    def without(self, places: IntArray) -> "Segment":
        """The segment without what lies at some of the places among what is kept."""
        if not len(places):
            return self
        return replace(self, removed=np.union1d(self.removed, self.kept[places]))


def in_plain_types(tiles: pa.Table) -> pa.Table:
    """Metadata with ids as strings, and no views, of which pyarrow takes no rows."""
    fields = [field.with_type(pa.string() if field.name == ID else _plain(field.type)) for field in tiles.schema]
    schema = pa.schema(fields, tiles.schema.metadata)
    return tiles if schema.equals(tiles.schema) else tiles.cast(schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    return kind


def merged(segments: Sequence[Segment]) -> Segment:
    """One segment of what is kept of several, in their order; vectors are looked at, not copied."""
    tiles = pa.concat_tables([segment.kept_tiles for segment in segments], promote_options="default")
    vectors = dict(segments[0].kept_vectors)
    for segment in segments[1:]:
        vectors = {sensor: part.extend(segment.kept_vectors[sensor]) for sensor, part in vectors.items()}
    return Segment.of(tiles, vectors)


def settled(segments: Sequence[Segment]) -> list[Segment]:
    """Leave out empty segments, and merge neighbours where there are many small ones, or most of one was removed.

    Sizes are in classes, each `FAN` times the one before. Where the last `FAN` or more segments are of a class or a lower one, they
    become one; so do small ones before a large one. A segment of `LARGE` tiles stays as it is. So a tile is written again
    once for each class, at most log(LARGE) / log(FAN) = 8 times, and small segments are at most 24.
    """
    whole = [merged([item]) if 2 * len(item.removed) > item.tiles.num_rows else item for item in segments if len(item)]
    if not whole:
        return [merged(segments)]
    done: list[Segment] = []
    for segment in whole:
        if len(segment) >= LARGE:
            first = _first_of_run(done)
            done[first:] = [_in_memory(done[first:])] if len(done) - first > 1 else done[first:]
            done.append(segment)
            continue
        done.append(segment)
        while len(done[-1]) < LARGE:
            first = _first_of_run(done, _size_class(done[-1]))
            if len(done) - first < FAN:
                break
            done[first:] = [_in_memory(done[first:])]
    return done


def _first_of_run(segments: Sequence[Segment], most: int = LARGE) -> int:
    """Where the last neighbours that are small, and of no higher class, begin."""
    first = len(segments)
    while first and len(segments[first - 1]) < LARGE and _size_class(segments[first - 1]) <= most:
        first -= 1
    return first


def _size_class(segment: Segment) -> int:
    return int(np.log(len(segment)) / np.log(FAN) + 1e-9)


def _in_memory(segments: Sequence[Segment]) -> Segment:
    """One segment of several small ones, whose vectors are copied, so that a search meets one part."""
    one = merged(segments)
    return replace(one, vectors={sensor: Vectors([part[:]], part.width) for sensor, part in one.vectors.items()})
