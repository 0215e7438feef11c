"""The numbers that a ranking gets: `METRICS`, one entry each, for tables, report, results.json and the `evaluate` module alike.

For the label set q of a query and r of a retrieved tile (`method.md`, "Evaluation") relevance is graded by the number of shared
labels, |q & r|; a tile is relevant where that is 1 or more. The definition of each metric stands in its entry; some have a second
definition in use:

* `f1_of_means` is what the original CSMAE code reports as F1, `mean_pair_f1` the other common definition. They differ.
* `ndcg` is that of Järvelin & Kekäläinen 2002, gain and discount as Burges et al. 2005, shared labels as grade as Zhao et al. 2015.
* `map` divides by min(R, k), R the relevant tiles of the archive (Manning et al. 2008, cut at k). Some papers divide by the relevant
  tiles among the k results instead, which does not count what was missed.

A tile without labels shares none with any other: every score of a pair with an empty label set is 0, also of two empty sets.
A query to which nothing in the archive is relevant scores 0. (`csmae_hf.evaluation.evaluate` leaves tiles without labels out, and
counts them and such queries.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from csmae_hf.metrics.labels import (
    FloatArray,
    IntArray,
    PackedLabels,
    checked_exclude,
    checked_labels,
    checked_ranking,
    row_chunks,
)
from csmae_hf.metrics.whole_archive import relevance_counts

Scores = dict[str, FloatArray]
"""(Q,) of each metric that queries have, by its name. Their means over queries are reported."""


@dataclass(frozen=True)
class Judged:
    """The results of some queries beside what their labels ask for: all that a metric needs."""

    shared: IntArray  # (Q, k) labels that each result shares with its query, best result first
    query_sizes: IntArray  # (Q, 1) labels of each query
    result_sizes: IntArray  # (Q, k) labels of each result
    counts: IntArray  # (Q, C + 1) archive tiles by the number of labels that they share with the query


@dataclass(frozen=True)
class Metric:
    """A number of a ranking.

    Attributes:
        column: Its heading in tables, with `{k}` for the number of results.
        definition: What it is, in words; q are a query's labels, r a result's, R the relevant tiles of the archive.
        of: What it is computed of: `pairs` of query and result (averaged over results, so that it is known at every cut), `queries`
            with all their results, or `means` over queries of other metrics.
        function: `Judged` to (Q, k) of pairs and to (Q,) of queries; of means their values, numbers or arrays, to such a one.
        needs: Of means only: the names of those metrics.
        headline: Whether it is watched during training, and has a column in the table over several trainings.
    """

    column: str
    definition: str
    of: Literal["pairs", "queries", "means"]
    function: Callable[..., Any]
    needs: tuple[str, ...] = ()
    headline: bool = False


def harmonic_mean(precision: Any, recall: Any) -> FloatArray:
    """2PR / (P + R), 0 where both are 0; numbers or arrays."""
    total = np.add(precision, recall)
    return np.where(total > 0, 2 * np.multiply(precision, recall) / np.where(total > 0, total, 1), 0.0)


def average_precision(judged: Judged) -> FloatArray:
    """(Q,): the sum over relevant results of precision@rank, over min(R, k); 0 where nothing is relevant."""
    hits = judged.shared > 0
    k = hits.shape[1]
    precision = hits.cumsum(axis=1) / np.arange(1, k + 1)
    return (precision * hits).sum(axis=1) / np.clip(judged.counts[:, 1:].sum(axis=1), 1, k)


def ndcg(judged: Judged) -> FloatArray:
    """(Q,): the discounted gain over that of the best k tiles; 0 where nothing is relevant. The gain of a result is 2^shared - 1."""
    shared, counts = judged.shared, judged.counts
    k = shared.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gained = ((2.0**shared - 1) * discounts).sum(axis=1)
    upto = np.concatenate([[0.0], discounts.cumsum()])  # summed discounts of the first so many places
    # (Q, C + 1): places of the best ranking that are taken by tiles of this relevance or more
    places = np.minimum(counts[:, ::-1].cumsum(axis=1), k)
    level_discounts = np.diff(upto[places], axis=1, prepend=0.0)
    best = (level_discounts * (2.0 ** np.arange(counts.shape[1])[::-1] - 1)).sum(axis=1)
    return np.where(best > 0, gained / np.where(best > 0, best, 1), 0.0)


# An empty label set shares nothing: the divisor 1 makes its score 0.
METRICS: dict[str, Metric] = {
    "precision": Metric(
        "P@{k}",
        "mean over the k results, then over queries, of |q & r| / |r|",
        of="pairs",
        function=lambda judged: judged.shared / np.maximum(judged.result_sizes, 1),
        headline=True,
    ),
    "recall": Metric(
        "R@{k}",
        "mean over the k results, then over queries, of |q & r| / |q|",
        of="pairs",
        function=lambda judged: judged.shared / np.maximum(judged.query_sizes, 1),
        headline=True,
    ),
    "f1_of_means": Metric(
        "F1@{k} of means",
        "2PR / (P + R) of those two means (the original CSMAE's F1)",
        of="means",
        function=harmonic_mean,
        needs=("precision", "recall"),
        headline=True,
    ),
    "mean_pair_f1": Metric(
        "mean pair F1@{k}",
        "mean over the k results, then over queries, of 2|q & r| / (|q| + |r|)",
        of="pairs",
        function=lambda judged: 2 * judged.shared / np.maximum(judged.query_sizes + judged.result_sizes, 1),
        headline=True,
    ),
    "map": Metric(
        "mAP@{k}",
        "mean over queries of the average precision cut at k, divisor min(R, k); relevant: shares a label",
        of="queries",
        function=average_precision,
    ),
    "ndcg": Metric(
        "NDCG@{k}",
        "mean over queries of the discounted gain sum of (2^|q & r| - 1) / log2(1 + rank), over that of the best k tiles",
        of="queries",
        function=ndcg,
    ),
    "acg": Metric(
        "ACG@{k}",
        "mean over the k results, then over queries, of |q & r| (not bounded by 1)",
        of="pairs",
        function=lambda judged: judged.shared.astype(np.float64),
    ),
}
"""What is reported of a ranking, in the order of every table. A metric more is an entry more, and nothing else."""


def headlines() -> list[str]:
    """Names of the metrics to watch first."""
    return [name for name, metric in METRICS.items() if metric.headline]


def query_scores(
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    ranking: NDArray[Any],
    *,
    exclude: NDArray[Any] | None = None,
) -> Scores:
    """Score each query by every metric of `METRICS` that a query has.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first; every row without repeats.
        exclude: (Q,) archive index that each query could not retrieve (its own tile), -1 for none; or None.

    Returns:
        (Q,) by name.

    Raises:
        ValueError: The shapes disagree, labels are not 0/1, or an index does not name an archive tile.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    indices = checked_ranking(ranking, len(query), len(archive))
    left_out = checked_exclude(exclude, len(query), len(archive))
    return scores_by_query(
        PackedLabels.of(query), PackedLabels.of(archive), indices, relevance_counts(query, archive, exclude=left_out)
    )


def scores_by_query(query: PackedLabels, archive: PackedLabels, ranking: IntArray, counts: IntArray) -> Scores:
    """`query_scores` of packed labels, with the `relevance_counts` at hand. Nothing is checked."""
    metrics = {name: metric for name, metric in METRICS.items() if metric.of != "means"}
    result = {name: np.empty(len(ranking)) for name in metrics}
    for rows in row_chunks(*ranking.shape):
        judged = _judge(query.take(rows), archive.take(ranking[rows]), counts[rows])
        for name, metric in metrics.items():
            values = metric.function(judged)
            result[name][rows] = values.mean(axis=1) if metric.of == "pairs" else values
    return result


def _judge(query: PackedLabels, results: PackedLabels, counts: IntArray) -> Judged:
    return Judged(query.shared(results), query.sizes[:, None], results.sizes, counts)


def mean_scores(scores: Mapping[str, FloatArray]) -> dict[str, float]:
    """Reduce scores of queries to the reported numbers.

    Args:
        scores: As of [`query_scores`].

    Returns:
        A number for each of `METRICS`.
    """
    return {name: float(value) for name, value in reported({n: v.mean() for n, v in scores.items()}).items()}


def reported(means: Mapping[str, Any]) -> dict[str, Any]:
    """Means over queries, and the metrics that are made of them, in the order of `METRICS`; numbers or arrays."""
    complete = dict(means)
    for name, metric in METRICS.items():
        if metric.of == "means" and all(needed in complete for needed in metric.needs):
            complete[name] = metric.function(*(complete[needed] for needed in metric.needs))
    return {name: complete[name] for name in METRICS if name in complete}


def scores_over_k(query_labels: NDArray[Any], archive_labels: NDArray[Any], ranking: NDArray[Any]) -> Scores:
    """(k,) of the metrics of pairs and those made of them, by name: entry i is the metric at i + 1 results of a (Q, k) ranking.

    Memory does not grow with Q, k or N beyond what is given. Arguments and errors are as of `query_scores`.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    indices = checked_ranking(ranking, len(query), len(archive))
    packed_query, packed_archive = PackedLabels.of(query), PackedLabels.of(archive)
    k = indices.shape[1]
    metrics = {name: metric for name, metric in METRICS.items() if metric.of == "pairs"}
    sums = {name: np.zeros(k) for name in metrics}
    for rows in row_chunks(*indices.shape):
        judged = _judge(packed_query.take(rows), packed_archive.take(indices[rows]), np.empty((0, 0), np.int64))
        for name, metric in metrics.items():
            sums[name] += metric.function(judged).sum(axis=0)
    return reported({name: total.cumsum() / (np.arange(1, k + 1) * len(query)) for name, total in sums.items()})
