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

WANTED_RECALL = 0.98
"""The effort of an index is raised to this on a sample of the archive's tiles, so that other queries have `LEAST_RECALL` at least."""

RECALL_AT = 10
SAMPLE = 200


@dataclass(frozen=True)
class Recall:
    """Recall of an index in one direction under one filter."""

    query_sensor: str
    archive_sensor: str
    share: float  # of the rows that the filter keeps; 1 without a filter
    kept: int  # rows that it keeps
    queries: int
    k: int  # results of each query that count
    recall: float  # share of the exact results found; a result equally near counts

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return asdict(self)


def with_buckets(tiles: pa.Table, ids: Iterable[str]) -> pa.Table:
    """Metadata of tiles of these ids with the column `BUCKET`, as the last."""
    buckets = pa.array([zlib.crc32(name.encode()) % 1000 for name in ids], pa.int16())
    return tiles.append_column(BUCKET, buckets)


def bucket_filter(share: float, tiles: pa.Table) -> Selection | None:
    """A filter that keeps a share of the rows of a table with the column `BUCKET`; None for all of them."""
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
    """Compare an index with exact search of the same vectors, for each sensor of queries and each share of rows that a filter keeps.

    Queries are (Q, D) unit vectors by sensor, and `own` (Q,) the rows of their own tiles, which do not count as found; the metadata
    have the column `BUCKET`. A filter that keeps no row is left out.
    """
    measured = []
    selections = [(share, bucket_filter(share, tiles)) for share in shares]
    for sensor, vectors in queries.items():
        left_out = np.full(len(vectors), -1) if own is None else own
        for share, selection in selections:
            kept = tiles.num_rows if selection is None else len(selection.rows)
            if not kept:
                continue
            wanted = min(k, kept)
            # one more than wanted, as a query's own tile does not count
            ours, truth = (side.search(vectors, wanted + 1, selection) for side in (index, exact))
            found = []
            for place, mine in enumerate(left_out):
                scores, best = (
                    side.scores[place][(side.rows[place] >= 0) & (side.rows[place] != mine)] for side in (ours, truth)
                )
                best = best[:wanted]
                # found is what is as near as the last of the exact results, whichever of equals it is
                found.append(float((scores[: len(best)] >= best[-1]).sum() / len(best)) if len(best) else 1.0)
            measured.append(Recall(sensor, archive_sensor, share, kept, len(vectors), k, float(np.mean(found))))
    return measured
