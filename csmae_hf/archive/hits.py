"""What a search gives: for each query the nearest tiles with their metadata, and whether the answer is complete."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from csmae_hf.search.ids import ID
from csmae_hf.search.vectors import IntArray

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

_CELL_WIDTH = 60


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

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, query: int) -> list[dict[str, Any]]:
        """The hits of a query, best first: `rank` (from 1), `score`, `id` and the other metadata."""
        places = self._places(query)
        rows = self.tiles.take(pa.array(places)).to_pylist()
        return [
            {"rank": rank, "score": float(self.scores[query, rank - 1]), **row}
            for rank, row in enumerate(rows, start=1)
        ]

    def _places(self, query: int) -> IntArray:
        """Where in `tiles` the hits of a query are."""
        found = np.unique(self.rows[self.rows >= 0])
        return np.searchsorted(found, self.rows[query][self.rows[query] >= 0]).astype(np.int64)

    @property
    def ids(self) -> list[list[str]]:
        """Ids of the tiles of each query, best first."""
        names = self.tiles.column(ID).to_pylist()
        return [[names[place] for place in self._places(query)] for query in range(len(self))]

    def to_table(self) -> pa.Table:
        """Lay the hits out as a table.

        Returns:
            A row a hit: `query`, `rank`, `score`, then the metadata of the tile.
        """
        found = self.rows >= 0
        counts = found.sum(axis=1)
        places = np.concatenate([self._places(query) for query in range(len(self))] or [np.empty(0, np.int64)])
        own = {
            "query": pa.array(np.repeat(np.array(self.queries, dtype=object), counts), pa.string()),
            "rank": pa.array([rank for count in counts for rank in range(1, count + 1)], pa.int64()),
            "score": pa.array(self.scores[found], pa.float32()),
        }
        tiles = self.tiles.take(pa.array(places))
        taken = {f"tile_{name}" if name in own else name: tiles.column(name) for name in tiles.column_names}
        return pa.table({**own, **taken})

    def to_dataset(self) -> "Dataset":
        """Give the hits as a `datasets.Dataset`, in the columns of `to_table`; `save_to_disk` and `to_parquet` keep it."""
        from datasets import Dataset

        return Dataset(self.to_table())

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON takes it: how it was searched, and each query with its hits."""
        return {
            "query_sensor": self.query_sensor,
            "archive_sensor": self.archive_sensor,
            "backend": self.backend,
            "parameters": dict(self.parameters),
            "exact": self.exact,
            "kept": self.kept,
            "notes": list(self.notes),
            "queries": [{"query": name, "hits": self[place]} for place, name in enumerate(self.queries)],
        }

    def to_json(self) -> str:
        """Give `to_dict` as text; times as ISO 8601."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, default=lambda value: value.isoformat())

    def to_text(self, columns: Sequence[str] | None = None) -> str:
        """Draw a table for the terminal.

        Args:
            columns: Metadata to show; default labels, country and season, where the archive has them.

        Returns:
            Lines, a block for each query.
        """
        if columns is None:
            columns = [name for name in ("labels", "country", "season") if name in self.tiles.column_names]
        blocks = []
        for place, name in enumerate(self.queries):
            head = f"{name} ({self.query_sensor}) in {self.archive_sensor}, {'exact' if self.exact else 'approximate'}"
            cells = [
                [str(hit["rank"]), f"{hit['score']:.4f}", hit[ID], *(_cell(hit[column]) for column in columns)]
                for hit in self[place]
            ]
            table = [["rank", "score", ID, *columns], *cells]
            widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
            blocks.append(
                [head, *("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)]
                if cells
                else [head, "no tiles"]
            )
        return "\n\n".join("\n".join(block) for block in blocks) + "".join(f"\nNote: {note}" for note in self.notes)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _CELL_WIDTH else text[: _CELL_WIDTH - 1] + "…"
