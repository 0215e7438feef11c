"""How much of the exact answer an index finds, without a filter and with filters that keep little."""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.filter_language import Condition
from csmae_hf.search.index import ArchiveIndex, Selection
from csmae_hf.search.vectors import IntArray

BUCKET = "_bucket"
"""Column of 0..999, a hash of the tile's id, that stands for a filter of any share. No filter of a user reaches it."""

SHARES = (1.0, 0.2, 0.02, 0.001)
"""Shares of the rows kept by the filters of a measurement; 1 is no filter."""

LEAST_RECALL = 0.95
RECALL_AT = 10
SAMPLE = 200


@dataclass(frozen=True)
class Recall:
    """Recall of an index in one direction under one filter.

    Attributes:
        query_sensor: Sensor of the queries.
        archive_sensor: Sensor of the archive.
        share: Share of the rows that the filter keeps; 1 without a filter.
        kept: Rows that it keeps.
        queries: Queries asked.
        k: Results of each that count.
        recall: Share of the exact results found; a result equally near counts.
    """

    query_sensor: str
    archive_sensor: str
    share: float
    kept: int
    queries: int
    k: int
    recall: float

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return asdict(self)


def with_buckets(tiles: pa.Table, ids: Iterable[str]) -> pa.Table:
    """Add the column `BUCKET` to metadata.

    Args:
        tiles: Metadata of tiles.
        ids: Their ids.

    Returns:
        The table with the column, as its last.
    """
    buckets = pa.array([zlib.crc32(name.encode()) % 1000 for name in ids], pa.int16())
    return tiles.append_column(BUCKET, buckets)


def bucket_filter(share: float, tiles: pa.Table) -> Selection | None:
    """Make a filter that keeps a share of the rows.

    Args:
        share: One of `SHARES`.
        tiles: With the column `BUCKET`.

    Returns:
        The filter; None for all rows.
    """
    if share == 1:
        return None
    limit = round(1000 * share)
    rows = np.flatnonzero(np.asarray(tiles.column(BUCKET)) < limit)
    return Selection(Condition(BUCKET, "<", (limit,)), rows)


def measure_recall(
    index: ArchiveIndex,
    exact: ExactIndex,
    queries: Mapping[str, torch.Tensor],
    archive_sensor: str,
    tiles: pa.Table,
    own: IntArray | None = None,
    shares: Iterable[float] = SHARES,
    k: int = RECALL_AT,
) -> list[Recall]:
    """Compare an index with exact search.

    Args:
        index: Of the archive's sensor.
        exact: The exact index of the same vectors.
        queries: (Q, D) unit vectors by sensor.
        archive_sensor: The archive's sensor.
        tiles: The archive's metadata, with the column `BUCKET`.
        own: (Q,) row of each query's own tile, which does not count as found; None where there is none.
        shares: Shares of rows that filters keep.
        k: Results that count.

    Returns:
        One for each sensor of queries and each share; those whose filter keeps no row are left out.
    """
    measured = []
    for sensor, vectors in queries.items():
        for share in shares:
            selection = bucket_filter(share, tiles)
            kept = tiles.num_rows if selection is None else len(selection.rows)
            if not kept:
                continue
            wanted = min(k, kept)
            ours, truth = (side.search(vectors, wanted + 1, selection) for side in (index, exact))
            found = [
                _found(ours.scores[place], ours.rows[place], truth.scores[place], truth.rows[place], mine, wanted)
                for place, mine in enumerate(own if own is not None else [-1] * len(vectors))
            ]
            measured.append(Recall(sensor, archive_sensor, share, kept, len(vectors), k, float(np.mean(found))))
    return measured


def _found(ours: Any, our_rows: IntArray, truth: Any, true_rows: IntArray, own: int, k: int) -> float:
    """The share of a query's exact results that were found: those as near as the k-th, whichever of equals they are."""
    exact = truth[(true_rows != own) & (true_rows >= 0)][:k]
    if not len(exact):
        return 1.0
    near = ours[(our_rows != own) & (our_rows >= 0)][: len(exact)] >= exact[-1]
    return float(near.sum() / len(exact))
