"""What a search gives: for each query the nearest tiles with their metadata, and whether the answer is complete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from csmae_hf.embedding.provenance import Provenance
from csmae_hf.plain import to_csv, to_json
from csmae_hf.search.ids import ID
from csmae_hf.search.index import Found, Selection
from csmae_hf.search.vectors import IntArray

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

_CELL_WIDTH = 60
ORIGIN = b"csmae_hf.provenance"
"""Key of the note in the schema of a table of hits that says where they come from, as JSON."""

_OWN = ("query", "rank", "score")  # columns of a hit that are not of the tile's metadata


@dataclass(frozen=True, eq=False)
class Hits:
    """The nearest tiles of each query.

    Attributes:
        queries: Name of each query.
        scores: (Q, k) cosine similarities, highest first; -inf where there are fewer than k tiles.
        rows: (Q, k) rows of the archive; -1 where there are fewer.
        tiles: Metadata of all tiles found, each once.
        query_sensor: Sensor of the queries.
        archive_sensor: Sensor of the archive's embeds that were searched.
        kept: Tiles that the filter keeps, all without one.
        exact: Whether nothing nearer can have been missed.
        backend: Index that found them.
        parameters: Its settings.
        notes: What a reader should know of the answer, such as that it is short.
        images: Of queries that were images, bands by name, by the query's name.
        provenance: Where the embeds come from that were searched: model, alignment, data, without its tiles; None where nobody said.
    """

    queries: Sequence[str]
    scores: NDArray[np.float32]
    rows: IntArray
    tiles: pa.Table
    query_sensor: str
    archive_sensor: str
    kept: int
    exact: bool
    backend: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    images: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, query: int) -> list[dict[str, Any]]:
        """The hits of a query, best first: `rank` (from 1), `score`, `id` and the other metadata, by the names of `names`."""
        rows = self.tiles.rename_columns(list(self.names.values())).take(pa.array(self._places[query])).to_pylist()
        scores = self.scores[query].tolist()
        return [{"rank": rank + 1, "score": scores[rank], **row} for rank, row in enumerate(rows)]

    @cached_property
    def names(self) -> dict[str, str]:
        """Under which names hits have the columns of metadata: their own, with `tile_` before those that a hit itself has."""
        names = {}
        taken = {*_OWN, *self.tiles.column_names}
        for name in self.tiles.column_names:
            names[name] = name
            while name in _OWN and names[name] in taken:
                names[name] = f"tile_{names[name]}"
            taken.add(names[name])
        return names

    @cached_property
    def _places(self) -> list[IntArray]:
        """Where in `tiles` the hits of each query are."""
        tiles = np.unique(self.rows[self.rows >= 0])
        return [np.searchsorted(tiles, rows[rows >= 0]).astype(np.int64) for rows in self.rows]

    @property
    def ids(self) -> list[list[str]]:
        """Ids of the tiles of each query, best first."""
        names = self.tiles.column(ID).to_pylist()
        return [[names[place] for place in places] for places in self._places]

    def to_table(self) -> pa.Table:
        """Lay the hits out as a table: a row a hit, with `query`, `rank`, `score`, then the metadata of the tile."""
        found = [
            (name, rank + 1)
            for name, places in zip(self.queries, self._places, strict=True)
            for rank in range(len(places))
        ]
        own = {
            "query": pa.array([name for name, _ in found], pa.string()),
            "rank": pa.array([rank for _, rank in found], pa.int64()),
            "score": pa.array(self.scores[self.rows >= 0], pa.float32()),
        }
        tiles = self.tiles.take(pa.array([place for places in self._places for place in places], pa.int64()))
        table = pa.table({**own, **{called: tiles.column(name) for name, called in self.names.items()}})
        if self.provenance is None:
            return table
        return table.replace_schema_metadata({ORIGIN: to_json(self.provenance.as_dict())})

    def to_dataset(self) -> "Dataset":
        """Give the hits as a `datasets.Dataset`, in the columns of `to_table`; `save_to_disk` and `to_parquet` keep it.

        Its description says where they come from.
        """
        from datasets import Dataset, DatasetInfo

        told = "" if self.provenance is None else self.provenance.sentence()
        return Dataset(self.to_table().replace_schema_metadata(None), info=DatasetInfo(description=told))

    def to_csv(self) -> str:
        """Give the columns of `to_table` as CSV that a spreadsheet may open; lists are joined by "; "."""
        return table_to_csv(self.to_table())

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON takes it: how it was searched, where that comes from, and each query with its hits."""
        plain = ("query_sensor", "archive_sensor", "backend", "parameters", "exact", "kept", "notes")
        told = {} if self.provenance is None else {"provenance": self.provenance.as_dict()}
        queries = [{"query": name, "hits": self[place]} for place, name in enumerate(self.queries)]
        return {**{name: getattr(self, name) for name in plain}, **told, "queries": queries}

    def to_json(self) -> str:
        """Give `to_dict` as text; times as ISO 8601, durations in seconds, decimals as text, NaN as null."""
        return to_json(self.to_dict(), indent=2)

    def to_text(self, columns: Sequence[str] | None = None) -> str:
        """Draw a table for each query, for the terminal.

        Args:
            columns: Metadata to show; default labels, country and season, where the archive has them.
        """
        if columns is None:
            columns = [name for name in ("labels", "country", "season") if name in self.tiles.column_names]
        blocks = []
        for place, name in enumerate(self.queries):
            head = f"{name} ({self.query_sensor}) in {self.archive_sensor}, {'exact' if self.exact else 'approximate'}"
            table = [["rank", "score", ID, *columns]]
            for hit in self[place]:
                table.append(
                    [
                        str(hit["rank"]),
                        f"{hit['score']:.4f}",
                        hit[ID],
                        *(_cell(hit[self.names[name]]) for name in columns),
                    ]
                )
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
            blocks.append("\n".join([head, *(lines if len(table) > 1 else ["no tiles"])]))
        told = "" if self.provenance is None else f"\n\nOf: {self.provenance.sentence()}."
        return "\n\n".join(blocks) + told + "".join(f"\nNote: {note}" for note in self.notes)


def table_to_csv(table: pa.Table) -> str:
    """Give a table as CSV that a spreadsheet may open; lists are joined by "; "."""
    short = {  # as few digits as tell them apart
        name: table.column(name).cast(pa.float32()).to_numpy(zero_copy_only=False).astype(str).tolist()
        for name, kind in zip(table.column_names, table.schema.types, strict=True)
        if kind in (pa.float16(), pa.float32()) and not table.column(name).null_count
    }
    columns = [short.get(name) or table.column(name).to_pylist() for name in table.column_names]
    return to_csv(table.column_names, zip(*columns, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _CELL_WIDTH else text[: _CELL_WIDTH - 1] + "…"


def leave_out(found: Found, out: IntArray, k: int) -> Found:
    """Take rows `out`, (Q, M), -1 for none, that a query must not find out of its results, (Q, k + M); (Q, k) are left."""
    drop = (found.rows[:, :, None] == out[:, None, :]).any(axis=2)
    scores = np.where(drop, -np.inf, found.scores).astype(np.float32)
    rows = np.where(drop, -1, found.rows)
    order = np.argsort(rows < 0, axis=1, kind="stable")[:, :k]
    return Found(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1), found.exact)


def notes_on(
    found: Found, out: IntArray, kept: int, total: int, k: int, selection: Selection | None, backend: str
) -> list[str]:
    """Say what must be said of an answer, (Q, k): nothing where it is exact and full.

    The queries must not find `out`, (Q, M), -1 for none; the filter keeps `kept` of the archive's `total` tiles.
    """
    notes = []
    counts = (found.rows >= 0).sum(axis=1)
    left = [np.unique(row[row >= 0]) for row in out]
    if selection is not None and len(selection.rows):  # whose rows ascend
        places = [np.searchsorted(selection.rows, rows).clip(max=len(selection.rows) - 1) for rows in left]
        left = [rows[selection.rows[place] == rows] for rows, place in zip(left, places, strict=True)]
    possible = np.array([max(kept - len(rows), 0) for rows in left])
    if not total:
        notes.append("The archive is empty.")
    elif not kept:
        notes.append(f"The filter keeps none of the {total} tiles.")
    elif (possible < k).any():
        what = f"the archive has {total}" if selection is None else f"the filter keeps {kept} of {total}"
        notes.append(f"Fewer than k = {k} tiles can be found: {what}.")
    if (counts < np.minimum(possible, k)).any():
        notes.append(
            f"The {backend} index found {counts.min()} tiles for a query where {possible.min()} or more could be found: raise its "
            "effort, or search exactly."
        )
    if not found.exact:
        notes.append(f"Approximate: the {backend} index may have missed nearer tiles.")
    return notes
