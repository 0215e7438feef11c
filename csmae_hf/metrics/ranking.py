"""Metrics of the whole ranking with graded relevance, query by query; `csmae_hf.metrics.scores` has their definitions."""

from typing import Any, NamedTuple

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
from csmae_hf.metrics.scores import harmonic_mean, pair_scores_of

SCORES: tuple[str, ...] = ("precision", "recall", "f1_of_means", "mean_pair_f1", "map", "ndcg", "acg")
"""What is reported of a ranking, in the order of every table; all but `acg` are between 0 and 1."""


class QueryScores(NamedTuple):
    """Scores of each query, (Q,) each: the means over queries are the reported numbers.

    `f1_of_means` is not among them: it is made of the means of precision and recall.
    """

    precision: FloatArray
    recall: FloatArray
    mean_pair_f1: FloatArray
    map: FloatArray
    ndcg: FloatArray
    acg: FloatArray


class Hubness(NamedTuple):
    """How unevenly the results are spread over the archive.

    N_k(x) is the number of queries that have tile x among their k results; its mean is Q k / N whatever the model.
    """

    skewness: float
    """Skewness of N_k over the archive (Radovanović et al. 2010): 0 where all tiles are found equally often, high where hubs are."""
    largest: int
    """Queries that have the most frequent tile among their results."""
    never: float
    """Share of the archive that is in no result."""


def query_scores(
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    ranking: NDArray[Any],
    *,
    exclude: NDArray[Any] | None = None,
) -> QueryScores:
    """Score each query by every metric of `SCORES` that is a mean over queries.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first; every row without repeats.
        exclude: (Q,) archive index that each query could not retrieve (its own tile), -1 for none; or None.

    Returns:
        Six arrays (Q,).

    Raises:
        ValueError: The shapes disagree, labels are not 0/1, or an index does not name an archive tile.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    indices = checked_ranking(ranking, len(query), len(archive))
    left_out = checked_exclude(exclude, len(query), len(archive))
    return scores_by_query(
        PackedLabels.of(query), PackedLabels.of(archive), indices, relevance_counts(query, archive, exclude=left_out)
    )


def scores_by_query(query: PackedLabels, archive: PackedLabels, ranking: IntArray, counts: IntArray) -> QueryScores:
    """`query_scores` of packed labels, with the `relevance_counts` at hand. Nothing is checked."""
    result = QueryScores(*(np.empty(len(ranking)) for _ in QueryScores._fields))
    for rows in row_chunks(*ranking.shape):
        asked, found = query.take(rows), archive.take(ranking[rows])
        pairs = pair_scores_of(asked, found)
        shared = asked.shared(found)
        chunk = QueryScores(
            precision=pairs.precision.mean(axis=1),
            recall=pairs.recall.mean(axis=1),
            mean_pair_f1=pairs.f1.mean(axis=1),
            map=average_precision(shared, counts[rows, 1:].sum(axis=1)),
            ndcg=ndcg(shared, counts[rows]),
            acg=shared.mean(axis=1),
        )
        for whole, part in zip(result, chunk, strict=True):
            whole[rows] = part
    return result


def mean_scores(scores: QueryScores) -> dict[str, float]:
    """Reduce scores of queries to the reported numbers.

    Args:
        scores: Of the queries.

    Returns:
        A number for each of `SCORES`.
    """
    return reported({name: float(values.mean()) for name, values in scores._asdict().items()})


def reported(means: dict[str, Any]) -> dict[str, Any]:
    """The numbers of `SCORES`, of the means of `QueryScores`; numbers or arrays."""
    harmonic = harmonic_mean(means["precision"], means["recall"])
    complete = {**means, "f1_of_means": harmonic if np.ndim(harmonic) else float(harmonic)}
    return {name: complete[name] for name in SCORES}


def scores_over_k(
    query_labels: NDArray[Any], archive_labels: NDArray[Any], ranking: NDArray[Any]
) -> dict[str, FloatArray]:
    """Precision, recall and both F1 at every cut of a ranking.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries.
        archive_labels: (N, C) multi-hot labels of the archive.
        ranking: (Q, k) archive indices, best first.

    Returns:
        (k,) for each of `precision`, `recall`, `f1_of_means`, `mean_pair_f1`: entry i is the metric at i + 1 results.

    Raises:
        ValueError: As of `query_scores`.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    indices = checked_ranking(ranking, len(query), len(archive))
    packed_query, packed_archive = PackedLabels.of(query), PackedLabels.of(archive)
    sums = np.zeros((3, indices.shape[1]))
    for rows in row_chunks(*indices.shape):
        sums += [v.sum(axis=0) for v in pair_scores_of(packed_query.take(rows), packed_archive.take(indices[rows]))]
    precision, recall, f1 = sums.cumsum(axis=1) / (np.arange(1, indices.shape[1] + 1) * len(query))
    return {
        "precision": precision,
        "recall": recall,
        "f1_of_means": harmonic_mean(precision, recall),
        "mean_pair_f1": f1,
    }


def relevance_counts(
    query_labels: NDArray[Any], archive_labels: NDArray[Any], *, exclude: NDArray[Any] | None = None
) -> IntArray:
    """Count for each query the archive tiles of each relevance: what the best ranking could have been made of.

    Tiles with equal label sets are counted once and multiplied, which is what makes 65,000 queries a matter of a moment.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries.
        archive_labels: (N, C) multi-hot labels of the archive.
        exclude: (Q,) archive index that each query cannot retrieve, -1 for none; or None.

    Returns:
        (Q, C + 1): entry s is the number of archive tiles that share s labels with the query.

    Raises:
        ValueError: Labels or `exclude` are not usable.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    left_out = checked_exclude(exclude, len(query), len(archive))
    queries, which, _ = _distinct(PackedLabels.of(query))
    tiles, _, copies = _distinct(PackedLabels.of(archive))
    levels = query.shape[1] + 1
    counts = np.empty((len(queries.sizes), levels), dtype=np.int64)
    everything = PackedLabels(tiles.words[None], tiles.sizes[None])
    for rows in row_chunks(len(queries.sizes), len(tiles.sizes)):
        shared = queries.take(rows).shared(everything)  # (q, distinct tiles)
        cells = (np.arange(len(shared))[:, None] * levels + shared).ravel()
        weights = np.broadcast_to(copies, shared.shape).ravel()
        counts[rows] = np.bincount(cells, weights, minlength=len(shared) * levels).reshape(-1, levels)
    result = counts[which]
    own = np.flatnonzero(left_out >= 0)
    result[own, (query[own] & archive[left_out[own]]).sum(axis=1)] -= 1
    return result


def _distinct(labels: PackedLabels) -> tuple[PackedLabels, IntArray, IntArray]:
    """The distinct label sets, which of them each tile has, and how many tiles have each."""
    _, first, which, copies = np.unique(
        labels.words, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    return labels.take(first), which.reshape(-1), copies


def average_precision(shared: IntArray, relevant: IntArray) -> FloatArray:
    """Average precision of each query, cut at k.

    Args:
        shared: (Q, k) labels that each result shares with its query.
        relevant: (Q,) archive tiles that share a label with the query.

    Returns:
        (Q,): the sum of precision@rank over relevant results, divided by min(relevant, k); 0 where nothing is relevant.
    """
    hits = shared > 0
    precision = hits.cumsum(axis=1) / np.arange(1, shared.shape[1] + 1)
    return (precision * hits).sum(axis=1) / np.clip(relevant, 1, shared.shape[1])


def ndcg(shared: IntArray, counts: IntArray) -> FloatArray:
    """Normalised discounted cumulated gain of each query, cut at k; the gain of a result is 2^shared - 1.

    Args:
        shared: (Q, k) labels that each result shares with its query.
        counts: (Q, C + 1) archive tiles by number of shared labels, as of `relevance_counts`.

    Returns:
        (Q,): the discounted gain over that of the best k tiles; 0 where nothing is relevant.
    """
    k = shared.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gained = ((2.0**shared - 1) * discounts).sum(axis=1)
    upto = np.concatenate([[0.0], discounts.cumsum()])  # summed discounts of the first so many places
    places = np.minimum(
        counts[:, ::-1].cumsum(axis=1), k
    )  # (Q, C + 1): places taken by tiles of this relevance or more
    level_discounts = np.diff(upto[places], axis=1, prepend=0.0)
    best = (level_discounts * (2.0 ** np.arange(counts.shape[1])[::-1] - 1)).sum(axis=1)
    return np.where(best > 0, gained / np.where(best > 0, best, 1), 0.0)


def r_precision(
    similarities: NDArray[Any],
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    *,
    exclude: NDArray[Any] | None = None,
) -> FloatArray:
    """Share of relevant tiles among the first R of the whole ranking, R the relevant tiles of the archive.

    Args:
        similarities: (Q, N) of every query to every archive tile; ties go to the lower index.
        query_labels: (Q, C) multi-hot labels of the queries.
        archive_labels: (N, C) multi-hot labels of the archive.
        exclude: (Q,) archive index that each query cannot retrieve, -1 for none; or None.

    Returns:
        (Q,), 0 where nothing is relevant.

    Raises:
        ValueError: The shapes disagree.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    scores = np.array(similarities)
    if scores.shape != (len(query), len(archive)):
        raise ValueError(f"similarities has shape {scores.shape}; expected {(len(query), len(archive))}.")
    left_out = checked_exclude(exclude, len(query), len(archive))
    own = np.flatnonzero(left_out >= 0)
    scores[own, left_out[own]] = -np.inf
    packed = PackedLabels.of(archive)
    relevant = PackedLabels.of(query).shared(PackedLabels(packed.words[None], packed.sizes[None])) > 0  # (Q, N)
    relevant[own, left_out[own]] = False
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1).cumsum(axis=1)
    totals = hits[:, -1]
    return hits[np.arange(len(hits)), np.maximum(totals, 1) - 1] / np.maximum(totals, 1)


def colocated_ranks(
    own_similarities: NDArray[Any], own: IntArray, similarities: NDArray[Any], ranking: IntArray
) -> IntArray:
    """Say at which rank each query's own place would have been found, had it not been left out.

    Args:
        own_similarities: (Q,) of each query to the archive tile of the same place.
        own: (Q,) archive index of that tile.
        similarities: (Q, k) of the results without it, best first.
        ranking: (Q, k) their archive indices.

    Returns:
        (Q,) rank from 1 to k + 1; k + 1 means that it is not within the first k.
    """
    mine = np.asarray(own_similarities)[:, None]
    ahead = (similarities > mine) | ((similarities == mine) & (ranking < np.asarray(own)[:, None]))
    return ahead.sum(axis=1, dtype=np.int64) + 1


def hubness(ranking: NDArray[Any], n_archive: int) -> Hubness:
    """Measure how unevenly results are spread over the archive.

    Args:
        ranking: (Q, k) archive indices.
        n_archive: Tiles in the archive.

    Returns:
        Skewness, largest count, and the share never found.
    """
    occurrences = np.bincount(np.asarray(ranking).ravel(), minlength=n_archive).astype(np.float64)
    centered = occurrences - occurrences.mean()
    deviation = float(np.sqrt((centered**2).mean()))
    skewness = float((centered**3).mean() / deviation**3) if deviation > 0 else 0.0
    return Hubness(skewness, int(occurrences.max()), float((occurrences == 0).mean()))
