"""Retrieval metrics for multi-label tiles, and what a random order would score: pure functions on arrays.

Relevance is graded by shared labels. For the label set q of a query and r of a retrieved tile (`method.md`, "Evaluation"):

* precision of the pair = |q & r| / |r|, recall of the pair = |q & r| / |q|, F1 of the pair = 2 |q & r| / (|q| + |r|);
* precision@k and recall@k are the means over the k results of a query, then over queries;
* `f1_of_means` is 2PR / (P + R) of those two means: what the original CSMAE code reports as F1;
* `mean_pair_f1` is the mean of the F1 of every pair: the other common definition. The two differ, so they are named apart.

A tile without labels shares none with any other: every score of a pair with an empty label set is 0, also of two empty sets.
(`csmae_hf.retrieval.evaluate` leaves such tiles out and counts them.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_CHUNK_PAIRS = 1 << 18
"""Pairs of tiles that are compared at a time: bounds the memory of every function here."""


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


@dataclass(frozen=True)
class RandomBaseline:
    """What a random order of the archive scores on the same labels.

    Attributes:
        mean: Mean of each metric over the draws.
        std: Sample standard deviation of each metric over the draws (divisor draws - 1).
        expected: The limit of infinitely many draws, in closed form; see `expected_baseline`.
        draws: Number of random rankings of every query that were scored.
    """

    mean: RetrievalScores
    std: RetrievalScores
    expected: RetrievalScores
    draws: int


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
    query, archive = _checked_labels(query_labels, archive_labels)
    indices = _checked_ranking(ranking, len(query), len(archive))
    packed_archive = _PackedLabels.of(archive)
    packed_query = _PackedLabels.of(query)
    totals = np.zeros(3)
    for rows in _row_chunks(*indices.shape):
        totals += [scores.sum() for scores in _pair_scores(packed_query.take(rows), packed_archive.take(indices[rows]))]
    return _scores_of_means(*(totals / indices.size))


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
    query, archive = _checked_labels(query_labels, archive_labels)
    indices = _checked_ranking(ranking, len(query), len(archive))
    packed_archive = _PackedLabels.of(archive)
    packed_query = _PackedLabels.of(query)
    result = PairScores(*(np.empty(indices.shape) for _ in range(3)))
    for rows in _row_chunks(*indices.shape):
        chunk = _pair_scores(packed_query.take(rows), packed_archive.take(indices[rows]))
        for whole, part in zip(result, chunk, strict=True):
            whole[rows] = part
    return result


def random_baseline(
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    k: int,
    *,
    draws: int = 5,
    seed: int | np.random.Generator = 0,
    exclude: NDArray[Any] | None = None,
) -> RandomBaseline:
    """Score random rankings of the archive on the same labels: the number a model has to beat.

    Each draw ranks k different archive tiles for every query, uniformly, and is scored like a model's ranking. The means
    of the draws scatter around `expected_baseline`; their standard deviation says how much a random order moves by luck.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        k: Results per query.
        draws: Random rankings per query, at least 2.
        seed: Seed or generator; the same seed gives the same numbers.
        exclude: (Q,) archive index that each query must not retrieve (its own tile), -1 for none; or None.

    Returns:
        Mean and standard deviation over the draws, and the closed form.

    Raises:
        ValueError: Labels, `k`, `draws` or `exclude` are not usable.
    """
    query, archive = _checked_labels(query_labels, archive_labels)
    left_out = checked_exclude(exclude, len(query), len(archive))
    check_k(k, len(archive), left_out)
    if draws < 2:
        raise ValueError(f"draws={draws}: a spread needs at least 2 draws.")
    rng = np.random.default_rng(seed)
    packed_query, packed_archive = _PackedLabels.of(query), _PackedLabels.of(archive)
    drawn = np.zeros((draws, 3))
    for draw in range(draws):
        for rows in _row_chunks(len(query), k):
            ranking = _random_ranking(rng, len(archive), k, left_out[rows])
            scores = _pair_scores(packed_query.take(rows), packed_archive.take(ranking))
            drawn[draw] += [values.sum() for values in scores]
    per_draw = [_scores_of_means(*(sums / (len(query) * k))) for sums in drawn]
    table = np.array([[getattr(scores, name) for name in METRICS] for scores in per_draw])
    return RandomBaseline(
        mean=RetrievalScores(*map(float, table.mean(axis=0))),
        std=RetrievalScores(*map(float, table.std(axis=0, ddof=1))),
        expected=_expected(query, archive, left_out),
        draws=draws,
    )


def expected_baseline(
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    *,
    exclude: NDArray[Any] | None = None,
) -> RetrievalScores:
    """Expected scores of a random order, in closed form and for every k at once.

    Every archive tile is equally likely at every place of a random ranking, so the expected mean over k results is the
    mean over the whole archive, whatever k. That mean needs only the label counts of the archive tiles with s labels,
    for each s: O((Q + N) C^2) instead of Q x N pairs. Precision, recall and mean pair F1 are exact; `f1_of_means` is the
    harmonic mean of the two expectations, which a finite draw's F1 approaches but does not average to exactly.

    Args:
        query_labels: (Q, C) multi-hot labels of the queries, bool or 0/1 integers.
        archive_labels: (N, C) multi-hot labels of the archive.
        exclude: (Q,) archive index that each query must not retrieve (its own tile), -1 for none; or None.

    Returns:
        The expected scores.

    Raises:
        ValueError: Labels or `exclude` are not usable.
    """
    query, archive = _checked_labels(query_labels, archive_labels)
    left_out = checked_exclude(exclude, len(query), len(archive))
    check_k(1, len(archive), left_out)
    return _expected(query, archive, left_out)


def checked_exclude(exclude: NDArray[Any] | None, n_queries: int, n_archive: int) -> IntArray:
    """Validate the archive index that each query leaves out.

    Args:
        exclude: (Q,) integers from -1 (nothing left out) to N - 1, or None.
        n_queries: Q.
        n_archive: N.

    Returns:
        (Q,) int64; all -1 for None.

    Raises:
        ValueError: Another shape, not integers, or an index that names no archive tile.
    """
    if exclude is None:
        return np.full(n_queries, -1, dtype=np.int64)
    exclude = np.asarray(exclude)
    if exclude.shape != (n_queries,) or not np.issubdtype(exclude.dtype, np.integer):
        raise ValueError(
            f"exclude has shape {exclude.shape} and type {exclude.dtype}; expected one integer for each of the "
            f"{n_queries} queries (-1 where nothing is left out)."
        )
    if exclude.size and (exclude.min() < -1 or exclude.max() >= n_archive):
        raise ValueError(
            f"exclude runs from {exclude.min()} to {exclude.max()}; an archive of {n_archive} tiles has the indices 0 to "
            f"{n_archive - 1}, and -1 leaves nothing out."
        )
    return exclude.astype(np.int64)


def check_k(k: int, n_archive: int, exclude: IntArray) -> None:
    """Refuse a k that the archive cannot answer.

    Args:
        k: Results asked for per query.
        n_archive: Tiles in the archive.
        exclude: (Q,) index left out per query, -1 for none.

    Raises:
        ValueError: k is below 1 or above the tiles available to a query.
    """
    available = n_archive - int((exclude >= 0).any())
    if k < 1:
        raise ValueError(f"k={k}: ask for at least 1 result.")
    if k > available:
        own = " after leaving out a query's own tile" if available < n_archive else ""
        raise ValueError(
            f"k={k}, but the archive has {available} tiles{own}. Ask for at most {available} or enlarge the archive."
        )


class _PackedLabels(NamedTuple):
    """Multi-hot labels as bits, so that an intersection is one AND and a population count."""

    words: NDArray[np.uint64]  # (..., W)
    sizes: IntArray  # (...), labels per tile

    @classmethod
    def of(cls, labels: BoolArray) -> "_PackedLabels":
        padding = -labels.shape[1] % 64
        padded = np.pad(labels, ((0, 0), (0, padding)))  # (n, 64 W)
        words = np.packbits(padded, axis=1).view(np.uint64)  # (n, W)
        return cls(words, labels.sum(axis=1, dtype=np.int64))

    def take(self, indices: slice | IntArray) -> "_PackedLabels":
        return _PackedLabels(self.words[indices], self.sizes[indices])


def _pair_scores(query: _PackedLabels, results: _PackedLabels) -> PairScores:
    """Scores of (Q,) queries with their (Q, k) results."""
    shared = np.bitwise_count(query.words[:, None, :] & results.words).sum(axis=-1, dtype=np.int64)  # (Q, k)
    query_sizes = query.sizes[:, None]
    # An empty label set shares nothing, so the divisor 1 makes its score 0.
    return PairScores(
        precision=shared / np.maximum(results.sizes, 1),
        recall=shared / np.maximum(query_sizes, 1),
        f1=2 * shared / np.maximum(query_sizes + results.sizes, 1),
    )


def _scores_of_means(precision: float, recall: float, pair_f1: float) -> RetrievalScores:
    total = precision + recall
    harmonic = 2 * precision * recall / total if total > 0 else 0.0
    return RetrievalScores(float(precision), float(recall), float(harmonic), float(pair_f1))


def _expected(query: BoolArray, archive: BoolArray, exclude: IntArray) -> RetrievalScores:
    sizes = archive.sum(axis=1, dtype=np.int64)
    n_classes = archive.shape[1]
    label_counts = np.zeros((n_classes + 1, n_classes))  # labels of all archive tiles that have s labels, by s
    np.add.at(label_counts, sizes, archive.astype(np.float64))
    size = np.arange(n_classes + 1)
    packed_query, packed_archive = _PackedLabels.of(query), _PackedLabels.of(archive)
    totals = np.zeros(3)
    for rows in _row_chunks(len(query), n_classes + 1):
        shared = (
            query[rows].astype(np.float64) @ label_counts.T
        )  # (q, C + 1): summed |q & r| over archive tiles of size s
        query_size = query[rows].sum(axis=1, dtype=np.int64)[:, None]
        sums = np.stack(
            [
                (shared / np.maximum(size, 1)).sum(axis=1),
                (shared / np.maximum(query_size, 1)).sum(axis=1),
                (2 * shared / np.maximum(query_size + size, 1)).sum(axis=1),
            ]
        )  # (3, q)
        has_own = exclude[rows] >= 0
        own = packed_archive.take(np.where(has_own, exclude[rows], 0)[:, None])
        own_scores = np.stack(_pair_scores(packed_query.take(rows), own))[:, :, 0]  # (3, q)
        totals += ((sums - own_scores * has_own) / (len(archive) - has_own)).sum(axis=1)
    return _scores_of_means(*(totals / len(query)))


def _random_ranking(rng: np.random.Generator, n_archive: int, k: int, exclude: IntArray) -> IntArray:
    """(Q, k) uniformly random archive indices, each row without repeats and without its excluded index.

    Floyd's sampling without replacement, vectorised over queries, then shuffled: k steps whatever the archive's size.
    """
    n_queries = len(exclude)
    available = n_archive - (exclude >= 0)  # (Q,)
    ranking = np.empty((n_queries, k), dtype=np.int64)
    for place in range(k):
        last = available - k + place
        candidate = rng.integers(0, last + 1)
        taken = (ranking[:, :place] == candidate[:, None]).any(axis=1)
        ranking[:, place] = np.where(taken, last, candidate)
    ranking += (exclude[:, None] >= 0) & (
        ranking >= exclude[:, None]
    )  # indices were drawn as if the own tile were gone
    return rng.permuted(ranking, axis=1)


def _row_chunks(n_rows: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK_PAIRS // max(1, width))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def _checked_labels(query_labels: NDArray[Any], archive_labels: NDArray[Any]) -> tuple[BoolArray, BoolArray]:
    query = _multi_hot(query_labels, "query_labels")
    archive = _multi_hot(archive_labels, "archive_labels")
    if query.shape[1] != archive.shape[1]:
        raise ValueError(
            f"query_labels have {query.shape[1]} classes, archive_labels {archive.shape[1]}; both must use one list of classes."
        )
    return query, archive


def _multi_hot(labels: NDArray[Any], name: str) -> BoolArray:
    labels = np.asarray(labels)
    if labels.ndim != 2 or 0 in labels.shape:
        raise ValueError(f"{name} has shape {labels.shape}; expected (tiles, classes) with at least one of each.")
    if labels.dtype == np.bool_:
        return labels
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} has type {labels.dtype}; expected multi-hot labels as bool or as integers 0 and 1.")
    if labels.min() < 0 or labels.max() > 1:
        raise ValueError(
            f"{name} has values from {labels.min()} to {labels.max()}; expected 0 and 1. Class numbers become multi-hot rows "
            "with csmae_hf.retrieval.evaluate.multi_hot."
        )
    return labels.astype(np.bool_)


def _checked_ranking(ranking: NDArray[Any], n_queries: int, n_archive: int) -> IntArray:
    ranking = np.asarray(ranking)
    if ranking.ndim != 2 or ranking.shape[0] != n_queries or not np.issubdtype(ranking.dtype, np.integer):
        raise ValueError(
            f"ranking has shape {ranking.shape} and type {ranking.dtype}; expected integers of shape (queries, k) = ({n_queries}, k)."
        )
    check_k(ranking.shape[1], n_archive, np.full(n_queries, -1, dtype=np.int64))
    if ranking.min() < 0 or ranking.max() >= n_archive:
        raise ValueError(
            f"ranking has indices from {ranking.min()} to {ranking.max()}; an archive of {n_archive} tiles has 0 to {n_archive - 1}. "
            "(-1 is how an approximate index says that it found fewer than k: search exactly or with a smaller k.)"
        )
    indices = ranking.astype(np.int64)
    in_order = np.sort(indices, axis=1)
    repeats = int((in_order[:, 1:] == in_order[:, :-1]).any(axis=1).sum())
    if repeats:
        raise ValueError(
            f"ranking names an archive tile twice for {repeats} of {n_queries} queries; every result must be another tile."
        )
    return indices
