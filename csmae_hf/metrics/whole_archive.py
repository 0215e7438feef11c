"""What a ranking says of the whole archive, and the archive of a ranking: relevant tiles, R-precision, the own place, hubs."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csmae_hf.metrics.labels import FloatArray, IntArray, PackedLabels, checked_exclude, checked_labels, row_chunks

DEFINITIONS: dict[str, str] = {
    "r_precision": "mean over queries of the share of relevant tiles among the first R of the whole ranking",
    "colocated_recall": "share of the queries whose own place, seen by the archive's sensor, would be among the first k",
    "hubness": "skewness over the archive of the number of queries that a tile is a result of",
}
"""Each number in words; R are the relevant tiles of the archive."""


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


def relevance_counts(
    query_labels: NDArray[Any], archive_labels: NDArray[Any], *, exclude: NDArray[Any] | None = None
) -> IntArray:
    """(Q, C + 1) numbers of archive tiles that share so many labels with each query: what the best ranking could have been made of.

    Tiles with equal label sets are counted once and multiplied, which is what makes 65,000 queries a matter of a moment.
    `exclude` is (Q,), the archive index that each query cannot retrieve, -1 for none.
    """
    query, archive = checked_labels(query_labels, archive_labels)
    left_out = checked_exclude(exclude, len(query), len(archive))
    packed_query, packed_archive = PackedLabels.of(query), PackedLabels.of(archive)
    _, first, which = np.unique(packed_query.words, axis=0, return_index=True, return_inverse=True)
    _, first_tiles, copies = np.unique(packed_archive.words, axis=0, return_index=True, return_counts=True)
    queries, tiles = packed_query.take(first), packed_archive.take(first_tiles)
    levels = query.shape[1] + 1
    counts = np.empty((len(queries.sizes), levels), dtype=np.int64)
    everything = PackedLabels(tiles.words[None], tiles.sizes[None])
    for rows in row_chunks(len(queries.sizes), len(tiles.sizes)):
        shared = queries.take(rows).shared(everything)  # (q, distinct tiles)
        cells = (np.arange(len(shared))[:, None] * levels + shared).ravel()
        weights = np.broadcast_to(copies, shared.shape).ravel()
        counts[rows] = np.bincount(cells, weights, minlength=len(shared) * levels).reshape(-1, levels)
    result = counts[which.reshape(-1)]
    own = np.flatnonzero(left_out >= 0)
    result[own, (query[own] & archive[left_out[own]]).sum(axis=1)] -= 1
    return result


def r_precision(
    similarities: NDArray[Any],
    query_labels: NDArray[Any],
    archive_labels: NDArray[Any],
    *,
    exclude: NDArray[Any] | None = None,
) -> FloatArray:
    """(Q,) shares of relevant tiles among the first R of the whole ranking, R the relevant tiles of the archive; 0 where R is.

    `similarities` are (Q, N), of every query to every archive tile; ties go to the lower index. Labels are multi-hot. `exclude`
    is (Q,), the archive index that each query cannot retrieve, -1 for none.
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
    """(Q,) ranks at which queries' own places would have been found, had they not been left out; k + 1 for not within the first k.

    Args:
        own_similarities: (Q,) of each query to the archive tile of the same place.
        own: (Q,) archive index of that tile.
        similarities: (Q, k) of the results without it, best first.
        ranking: (Q, k) their archive indices.
    """
    mine = np.asarray(own_similarities)[:, None]
    ahead = (similarities > mine) | ((similarities == mine) & (ranking < np.asarray(own)[:, None]))
    return ahead.sum(axis=1, dtype=np.int64) + 1


def hubness(ranking: NDArray[Any], n_archive: int) -> Hubness:
    """How unevenly the results (Q, k) are spread over an archive of so many tiles."""
    occurrences = np.bincount(np.asarray(ranking).ravel(), minlength=n_archive).astype(np.float64)
    centered = occurrences - occurrences.mean()
    deviation = float(np.sqrt((centered**2).mean()))
    skewness = float((centered**3).mean() / deviation**3) if deviation > 0 else 0.0
    return Hubness(skewness, int(occurrences.max()), float((occurrences == 0).mean()))
