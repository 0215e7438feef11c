"""Multi-label tiles as bits, and the checks of what metrics are given: the ground floor of every metric."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

CHUNK_PAIRS = 1 << 18
"""Pairs of tiles that are compared at a time: bounds the memory of every metric."""


class PackedLabels(NamedTuple):
    """Multi-hot labels as bits, so that an intersection is one AND and a population count."""

    words: NDArray[np.uint64]  # (..., W), W = ceil(C / 64)
    sizes: IntArray  # (...), labels per tile

    @classmethod
    def of(cls, labels: BoolArray) -> "PackedLabels":
        """Pack (N, C) multi-hot rows."""
        padding = -labels.shape[1] % 64
        padded = np.pad(labels, ((0, 0), (0, padding)))  # (n, 64 W)
        words = np.packbits(padded, axis=1).view(np.uint64)  # (n, W)
        return cls(words, labels.sum(axis=1, dtype=np.int64))

    def take(self, indices: slice | IntArray) -> "PackedLabels":
        """The labels of some tiles, in the shape of the indices."""
        return PackedLabels(self.words[indices], self.sizes[indices])

    def shared(self, others: "PackedLabels") -> IntArray:
        """(Q, k) numbers of labels that (Q,) tiles share with (Q, k) others, or with (1, k) others each."""
        return np.bitwise_count(self.words[:, None, :] & others.words).sum(axis=-1, dtype=np.int64)


def multi_hot(labels: Sequence[Sequence[int] | None], num_classes: int) -> BoolArray:
    """Turn lists of class numbers into multi-hot rows.

    Args:
        labels: For each tile its class numbers, or None where they are not known.
        num_classes: Number of classes C.

    Returns:
        (N, C) bool; an empty row where labels are None or an empty list.

    Raises:
        ValueError: A class number outside 0 to C - 1, with its row.
    """
    sizes = [0 if row is None else len(row) for row in labels]
    rows = np.repeat(np.arange(len(labels)), sizes)
    classes = np.fromiter(
        (number for row in labels if row is not None for number in row), dtype=np.int64, count=sum(sizes)
    )
    wrong = np.flatnonzero((classes < 0) | (classes >= num_classes))
    if wrong.size:
        raise ValueError(
            f"Row {rows[wrong[0]]} has class number {classes[wrong[0]]}; expected 0 to {num_classes - 1} "
            f"({wrong.size} such numbers in all)."
        )
    result = np.zeros((len(labels), num_classes), dtype=np.bool_)
    result[rows, classes] = True
    return result


def checked_exclude(exclude: NDArray[Any] | None, n_queries: int, n_archive: int) -> IntArray:
    """(Q,) archive indices that queries leave out, validated: -1 for none, all -1 for None."""
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
    """Refuse a k that an archive cannot answer, given the (Q,) indices that queries leave out."""
    available = n_archive - int((exclude >= 0).any())
    if k < 1:
        raise ValueError(f"k={k}: ask for at least 1 result.")
    if k > available:
        own = " after leaving out a query's own tile" if available < n_archive else ""
        raise ValueError(
            f"k={k}, but the archive has {available} tiles{own}. Ask for at most {available} or enlarge the archive."
        )


def row_chunks(n_rows: int, width: int) -> Iterator[slice]:
    """Slices that cover `n_rows` rows in order, each of about `CHUNK_PAIRS` pairs where a row has `width`."""
    step = max(1, CHUNK_PAIRS // max(1, width))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def checked_labels(query_labels: NDArray[Any], archive_labels: NDArray[Any]) -> tuple[BoolArray, BoolArray]:
    """Labels of queries (Q, C) and archive (N, C) as bool, validated: multi-hot, of one list of classes."""
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
            "with csmae_hf.metrics.labels.multi_hot."
        )
    return labels.astype(np.bool_)


def checked_ranking(ranking: NDArray[Any], n_queries: int, n_archive: int) -> IntArray:
    """(Q, k) archive indices as int64, validated: each names an archive tile, and no row names one twice."""
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
