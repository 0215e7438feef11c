"""The scores of trec_eval, as MTEB reports them: another reading of the same ranking, whose names look like those of `ranking.py`.

| name | definition |
|---|---|
| `ndcg_at_k` | discounted gain 2^shared - 1 over that of the best k tiles: the same as `ndcg` of `ranking.METRICS` |
| `map_at_k` | sum over relevant results of the precision there, over R, the relevant tiles of the archive (`map`: over min(R, k)) |
| `recall_at_k` | relevant results over R |
| `precision_at_k` | share of the k results that are relevant |
| `mrr_at_k` | 1 over the rank of the first relevant result, 0 where there is none |
| `hit_rate_at_k` | whether there is one |

A tile is relevant where it shares a label. A query to which nothing in the archive is relevant scores 0.
Sources: trec_eval 9 (NIST), whose `ndcg_cut` takes a judgement as the gain; so judgements here are gains (`gains`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.metrics.labels import (
    FloatArray,
    IntArray,
    PackedLabels,
    checked_exclude,
    checked_labels,
    checked_ranking,
)
from csmae_hf.metrics.ranking import Judged, ndcg
from csmae_hf.metrics.whole_archive import relevance_counts

CUTS: tuple[int, ...] = (1, 3, 5, 10)
"""Numbers of results at which scores are taken."""

MOST_SHARED = 20
"""Labels that two tiles may share: trec_eval keeps a table of as many numbers as the largest gain."""


def gains(shared: IntArray) -> IntArray:
    """2^shared - 1, of numbers of shared labels; ValueError beyond `MOST_SHARED`."""
    if shared.size and shared.max() > MOST_SHARED:
        raise ValueError(f"Two tiles share {shared.max()} labels; judgements of trec_eval reach {MOST_SHARED}.")
    return (1 << shared) - 1


def trec_scores(
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    ranking: NDArray[Any],
    *,
    exclude: NDArray[Any] | None = None,
    cuts: Sequence[int] = CUTS,
) -> dict[str, FloatArray]:
    """Score each query.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first.
        exclude: (Q,) archive index that each query could not retrieve, -1 for none; or None.
        cuts: Numbers of results, none larger than k.

    Returns:
        (Q,) by name and cut, such as `ndcg_at_10`.

    Raises:
        ValueError: As of `ranking.query_scores`, or where a cut is larger than k.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    indices = checked_ranking(ranking, len(query), len(archive))
    if not cuts or min(cuts) < 1 or max(cuts) > indices.shape[1]:
        raise ValueError(f"cuts={tuple(cuts)}: expected numbers from 1 to {indices.shape[1]}, the results of a query.")
    counts = relevance_counts(query, archive, exclude=checked_exclude(exclude, len(query), len(archive)))
    relevant = counts[:, 1:].sum(axis=1)
    packed_query, packed_archive = PackedLabels.of(query), PackedLabels.of(archive)
    shared = packed_query.shared(packed_archive.take(indices))  # (Q, k)
    sizes = packed_query.sizes[:, None], packed_archive.take(indices).sizes
    hits = shared > 0
    found = hits.cumsum(axis=1)
    ranks = np.arange(1, hits.shape[1] + 1)
    summed = (hits * found / ranks).cumsum(axis=1)  # precision at each relevant result
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.iinfo(np.int64).max)
    scores = {}
    for k in cuts:
        scores[f"ndcg_at_{k}"] = ndcg(Judged(shared[:, :k], sizes[0], sizes[1][:, :k], counts))
        scores[f"map_at_{k}"] = summed[:, k - 1] / np.maximum(relevant, 1)
        scores[f"recall_at_{k}"] = found[:, k - 1] / np.maximum(relevant, 1)
        scores[f"precision_at_{k}"] = found[:, k - 1] / k
        scores[f"mrr_at_{k}"] = np.where(first <= k, 1.0 / first, 0.0)
        scores[f"hit_rate_at_{k}"] = (first <= k).astype(np.float64)
    return scores
