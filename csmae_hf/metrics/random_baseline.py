"""What a random order of the archive scores on the same labels: the number that a model has to beat."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.metrics.labels import (
    FloatArray,
    IntArray,
    PackedLabels,
    check_k,
    checked_exclude,
    checked_labels,
    row_chunks,
)
from csmae_hf.metrics.ranking import METRICS, Judged, mean_scores, scores_by_query
from csmae_hf.metrics.whole_archive import relevance_counts

LINEAR = ("precision", "recall", "mean_pair_f1")
"""Metrics of pairs that are linear in the number of shared labels: these have a closed form."""


@dataclass(frozen=True)
class RandomBaseline:
    """What a random order of the archive scores on the same labels."""

    mean: dict[str, float]  # of each of `METRICS`, over the draws
    std: dict[str, float]  # sample standard deviation over the draws (divisor draws - 1)
    expected: dict[str, float]  # the limit of infinitely many draws, of the metrics that have a closed form
    draws: int  # random rankings of every query that were scored
    # (Q,) expected precision, recall and mean pair F1 of each query, for the mean over some of them
    by_query: dict[str, FloatArray] = field(default_factory=dict, compare=False, repr=False)


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
    query, archive = checked_labels(query_labels, archive_labels)
    left_out = checked_exclude(exclude, len(query), len(archive))
    check_k(k, len(archive), left_out)
    if draws < 2:
        raise ValueError(f"draws={draws}: a spread needs at least 2 draws.")
    rng = np.random.default_rng(seed)
    packed_query, packed_archive = PackedLabels.of(query), PackedLabels.of(archive)
    counts = relevance_counts(query, archive, exclude=left_out)
    drawn: list[dict[str, float]] = []
    for _ in range(draws):
        ranking = np.empty((len(query), k), dtype=np.int64)
        for rows in row_chunks(len(query), k):
            ranking[rows] = _random_ranking(rng, len(archive), k, left_out[rows])
        drawn.append(mean_scores(scores_by_query(packed_query, packed_archive, ranking, counts)))
    columns = {name: np.array([scores[name] for scores in drawn]) for name in drawn[0]}
    return RandomBaseline(
        mean={name: float(values.mean()) for name, values in columns.items()},
        std={name: float(values.std(ddof=1)) for name, values in columns.items()},
        expected=mean_scores(by_query := expected_by_query(query, archive, exclude=left_out)),
        draws=draws,
        by_query=by_query,
    )


def expected_baseline(
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    *,
    exclude: NDArray[Any] | None = None,
) -> dict[str, float]:
    """Expected precision, recall and both F1 of a random order, in closed form and for every k at once.

    Every archive tile is equally likely at every place of a random ranking, so the expected mean over k results is the mean over the
    whole archive, whatever k. That mean needs only the label counts of the archive tiles with s labels, for each s: O((Q + N) C^2)
    instead of Q x N pairs. Precision, recall and mean pair F1 are exact; `f1_of_means` is the harmonic mean of the two expectations,
    which a finite draw's F1 approaches but does not average to exactly. Arguments are as of `random_baseline`.
    """
    return mean_scores(expected_by_query(query_labels, archive_labels, exclude=exclude))


def expected_by_query(
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    *,
    exclude: NDArray[Any] | None = None,
) -> dict[str, FloatArray]:
    """(Q,) expected precision, recall and mean pair F1 of a random order, of each query, as of `expected_baseline`."""
    query, archive = checked_labels(query_labels, archive_labels)
    left_out = checked_exclude(exclude, len(query), len(archive))
    check_k(1, len(archive), left_out)
    sizes = archive.sum(axis=1, dtype=np.int64)
    n_classes = archive.shape[1]
    label_counts = np.zeros((n_classes + 1, n_classes))  # labels of all archive tiles that have s labels, by s
    np.add.at(label_counts, sizes, archive.astype(np.float64))
    size = np.arange(n_classes + 1)
    expected = np.empty((3, len(query)))
    for rows in row_chunks(len(query), n_classes + 1):
        # (q, C + 1): summed |q & r| over archive tiles of size s
        shared = query[rows].astype(np.float64) @ label_counts.T
        query_size = query[rows].sum(axis=1, dtype=np.int64)[:, None]
        sums = _linear_scores(shared, query_size, size).sum(axis=2)  # (3, q)
        has_own = left_out[rows] >= 0
        own = archive[np.where(has_own, left_out[rows], 0)]
        own_shared = (query[rows] & own).sum(axis=1)[:, None]
        own_scores = _linear_scores(own_shared, query_size, own.sum(axis=1)[:, None])[:, :, 0]
        expected[:, rows] = (sums - own_scores * has_own) / (len(archive) - has_own)
    return dict(zip(LINEAR, expected, strict=True))


def _linear_scores(shared: NDArray[Any], query_sizes: IntArray, result_sizes: IntArray) -> FloatArray:
    """(3, q, n) scores of pairs, or sums of them where `shared` are sums over tiles of one size."""
    judged = Judged(shared, query_sizes, result_sizes, counts=np.empty((0, 0), dtype=np.int64))
    return np.stack([METRICS[name].function(judged) for name in LINEAR])


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
    # Indices were drawn as if the own tile were gone.
    ranking += (exclude[:, None] >= 0) & (ranking >= exclude[:, None])
    return rng.permuted(ranking, axis=1)
