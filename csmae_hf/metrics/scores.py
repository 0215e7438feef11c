"""Retrieval metrics for multi-label tiles: pure functions on arrays, each with its definition.

For the label set q of a query and r of a retrieved tile (`method.md`, "Evaluation"):

* precision of the pair = |q & r| / |r|, recall of the pair = |q & r| / |q|, F1 of the pair = 2 |q & r| / (|q| + |r|);
* precision@k and recall@k are the means over the k results of a query, then over queries;
* `f1_of_means` is 2PR / (P + R) of those two means: what the original CSMAE code reports as F1;
* `mean_pair_f1` is the mean of the F1 of every pair: the other common definition. The two differ, so they are named apart.

Graded relevance is the number of shared labels, |q & r|; a tile is relevant where that is 1 or more. With it:

* `acg`, average cumulated gain (Järvelin & Kekäläinen 2002): the mean of |q & r| over the k results;
* `ndcg` (Järvelin & Kekäläinen 2002; gain and discount as Burges et al. 2005, for shared labels Zhao et al. 2015): the sum of
  (2^|q & r| - 1) / log2(1 + rank) over the k results, divided by the same sum of the best k tiles of the archive;
* `map`: for each query the sum over relevant results of precision@rank (the share of relevant tiles up to there), divided by
  min(R, k), R the relevant tiles of the archive (Manning et al. 2008, cut at k). Some papers divide by the relevant tiles among the k
  results instead, which does not count what was missed;
* R-precision (Manning et al. 2008): the share of relevant tiles among the first R of the whole ranking.

A tile without labels shares none with any other: every score of a pair with an empty label set is 0, also of two empty sets.
A query to which nothing in the archive is relevant scores 0. (`csmae_hf.evaluation.evaluate` leaves tiles without labels out, and
counts them and such queries.) The first four are functions of this file, those of the whole ranking of `csmae_hf.metrics.ranking`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csmae_hf.metrics.labels import BoolArray as BoolArray
from csmae_hf.metrics.labels import (
    FloatArray,
    PackedLabels,
    checked_labels,
    checked_ranking,
    row_chunks,
)
from csmae_hf.metrics.labels import IntArray as IntArray
from csmae_hf.metrics.labels import check_k as check_k
from csmae_hf.metrics.labels import checked_exclude as checked_exclude


@dataclass(frozen=True)
class RetrievalScores:
    """The four numbers of one ranking, each between 0 and 1.

    Attributes:
        precision: Mean over results, then queries, of |q & r| / |r|.
        recall: Mean over results, then queries, of |q & r| / |q|.
        f1_of_means: Harmonic mean of `precision` and `recall` (the original CSMAE's F1).
        mean_pair_f1: Mean over results, then queries, of 2 |q & r| / (|q| + |r|).
    """

    precision: float
    recall: float
    f1_of_means: float
    mean_pair_f1: float


METRICS: tuple[str, ...] = ("precision", "recall", "f1_of_means", "mean_pair_f1")
"""The fields of `RetrievalScores`, in the order of every table."""


class PairScores(NamedTuple):
    """Scores of each query with each of its results, three float64 arrays of shape (Q, k)."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray


def precision_at_k(query_labels: NDArray[Any], archive_labels: NDArray[Any], ranking: NDArray[Any]) -> float:
    """Mean precision |q & r| / |r| over the k results of a query, then over queries.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first; every row without repeats.

    Returns:
        Precision@k, 0 to 1.

    Raises:
        ValueError: The shapes disagree, labels are not 0/1, or an index does not name an archive tile.
    """
    return retrieval_scores(query_labels, archive_labels, ranking).precision


def recall_at_k(query_labels: NDArray[Any], archive_labels: NDArray[Any], ranking: NDArray[Any]) -> float:
    """Mean recall |q & r| / |q| over the k results of a query, then over queries.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first; every row without repeats.

    Returns:
        Recall@k, 0 to 1.

    Raises:
        ValueError: The shapes disagree, labels are not 0/1, or an index does not name an archive tile.
    """
    return retrieval_scores(query_labels, archive_labels, ranking).recall


def f1_of_means(query_labels: NDArray[Any], archive_labels: NDArray[Any], ranking: NDArray[Any]) -> float:
    """F1 as the original CSMAE computes it: 2PR / (P + R) of precision@k and recall@k, 0 where both are 0.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first; every row without repeats.

    Returns:
        The harmonic mean of the two means, 0 to 1.

    Raises:
        ValueError: The shapes disagree, labels are not 0/1, or an index does not name an archive tile.
    """
    return retrieval_scores(query_labels, archive_labels, ranking).f1_of_means


def mean_pair_f1(query_labels: NDArray[Any], archive_labels: NDArray[Any], ranking: NDArray[Any]) -> float:
    """Mean of the F1 of each (query, result) pair, 2 |q & r| / (|q| + |r|), over results, then over queries.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first; every row without repeats.

    Returns:
        The mean of the pairs' F1, 0 to 1.

    Raises:
        ValueError: The shapes disagree, labels are not 0/1, or an index does not name an archive tile.
    """
    return retrieval_scores(query_labels, archive_labels, ranking).mean_pair_f1


def retrieval_scores(
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    ranking: NDArray[Any],
) -> RetrievalScores:
    """All four metrics of a ranking in one pass; memory does not grow with Q, k or N beyond the inputs.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first; every row without repeats.

    Returns:
        Precision, recall and both F1 at k = `ranking.shape[1]`.

    Raises:
        ValueError: The shapes disagree, labels are not 0/1, or an index does not name an archive tile.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    indices = checked_ranking(ranking, len(query), len(archive))
    packed_archive = PackedLabels.of(archive)
    packed_query = PackedLabels.of(query)
    totals = np.zeros(3)
    for rows in row_chunks(*indices.shape):
        totals += [
            scores.sum() for scores in pair_scores_of(packed_query.take(rows), packed_archive.take(indices[rows]))
        ]
    return scores_of_means(*(totals / indices.size))


def pair_scores(query_labels: NDArray[Any], archive_labels: NDArray[Any], ranking: NDArray[Any]) -> PairScores:
    """Precision, recall and F1 of every query with every one of its results, not averaged.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first; every row without repeats.

    Returns:
        Three (Q, k) arrays. A result shares no label with its query where F1 is 0.

    Raises:
        ValueError: The shapes disagree, labels are not 0/1, or an index does not name an archive tile.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    indices = checked_ranking(ranking, len(query), len(archive))
    packed_archive = PackedLabels.of(archive)
    packed_query = PackedLabels.of(query)
    result = PairScores(*(np.empty(indices.shape) for _ in range(3)))
    for rows in row_chunks(*indices.shape):
        chunk = pair_scores_of(packed_query.take(rows), packed_archive.take(indices[rows]))
        for whole, part in zip(result, chunk, strict=True):
            whole[rows] = part
    return result


def pair_scores_of(query: PackedLabels, results: PackedLabels) -> PairScores:
    """Scores of (Q,) queries with their (Q, k) results."""
    shared = query.shared(results)
    query_sizes = query.sizes[:, None]
    # An empty label set shares nothing, so the divisor 1 makes its score 0.
    return PairScores(
        precision=shared / np.maximum(results.sizes, 1),
        recall=shared / np.maximum(query_sizes, 1),
        f1=2 * shared / np.maximum(query_sizes + results.sizes, 1),
    )


def scores_of_means(precision: float, recall: float, pair_f1: float) -> RetrievalScores:
    """The four numbers, of the three means that they come from."""
    harmonic = float(harmonic_mean(precision, recall))
    return RetrievalScores(float(precision), float(recall), harmonic, float(pair_f1))


def harmonic_mean(precision: Any, recall: Any) -> FloatArray:
    """2PR / (P + R), 0 where both are 0; numbers or arrays."""
    total = np.add(precision, recall)
    return np.where(total > 0, 2 * np.multiply(precision, recall) / np.where(total > 0, total, 1), 0.0)
