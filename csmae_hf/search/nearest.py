"""Exact nearest tiles by cosine similarity: chunked, so that the score matrix never exists as a whole, and deterministic.

`top_k` takes embeds as they come; `nearest` takes unit vectors, which may be memory-mapped and larger than memory.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from csmae_hf.metrics.labels import IntArray, check_k, checked_exclude
from csmae_hf.search.products import products
from csmae_hf.search.vectors import Piece, Vectors, numpy_array

Embeds = NDArray[Any] | torch.Tensor

SCORE_ERROR: dict[torch.dtype, float] = {torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}
"""By how much a product of two unit vectors may be off when both, and the product, are rounded to a type: four roundings' worth."""

_RERANK_MARGIN = 8
"""Candidates beyond k that are ranked again in float64: room for the own tile, and for ties that the chunked product rounds apart."""

_LOW_PRECISION_MARGIN = 118
"""The same where candidates are found in low precision: enough that float32 has seldom to be asked again."""

_QUERY_CHUNK = 512
_ARCHIVE_CHUNK = 16_384
_RERANK_ROWS = 128
_RERANK_NUMBERS = 2**24  # copied at a time, whatever k and the candidates
_TIED_ROWS = 64


class Rows(Protocol):
    """Rows of a matrix (N, D) that are gone through in order, such as `Vectors`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> torch.Tensor:
        """Rows, (n, D)."""

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Rows in order, for products with them."""


def top_k(
    query_embeds: Embeds,
    archive_embeds: Embeds,
    k: int,
    *,
    exclude: NDArray[Any] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[NDArray[np.float32], IntArray]:
    """Find the k archive tiles of highest cosine similarity to each query, exactly.

    Candidates come from a chunked float32 product of unit vectors; the last word has a float64 product of the candidates, rounded
    to float32. So identical embeds get identical scores wherever they lie in the archive, and ties go to the lower index.

    Embeds of queries (Q, D) and archive (N, D) are of any length, scaled to unit length in float32; `exclude` (Q,) is an archive index
    that a query must not find (its own tile), -1 for none; the product runs on `device`. Cosine similarities (Q, k) float32, highest
    first, come with archive indices (Q, k) int64. A bar shows progress where the search takes more than 2 seconds.

    Raises:
        ValueError: Embeds are zero or not finite (counted), the shapes disagree, or k is larger than the archive available to a query.
    """
    query = unit_vectors(query_embeds, "query")
    archive = unit_vectors(archive_embeds, "archive")
    if query.shape[1] != archive.shape[1]:
        raise ValueError(
            f"Query embeds have width {query.shape[1]}, archive embeds {archive.shape[1]}; both must come from one model."
        )
    return nearest(query, archive, k, exclude=exclude, device=device, progress=progress)


def nearest(
    query: torch.Tensor,
    archive: torch.Tensor | Vectors,
    k: int,
    *,
    exclude: NDArray[Any] | None = None,
    device: str | torch.device | None = None,
    precision: torch.dtype = torch.float32,
    progress: bool = False,
) -> tuple[NDArray[np.float32], IntArray]:
    """Find the k rows of an archive of unit vectors nearest to each query, exactly, whatever the precision of the candidates' product.

    Queries (Q, D) and the archive (N, D) are float32 unit vectors, in memory or memory-mapped; the rest is as of `top_k`. In float16
    or bfloat16 the product is cheaper on a GPU and finds more candidates than are needed. Where the k-th of them, ranked in float64,
    is not better than anything left out could be (`SCORE_ERROR`), the query is searched again in float32.
    """
    left_out = checked_exclude(exclude, len(query), len(archive))
    check_k(k, len(archive), left_out)
    scores = torch.empty((len(query), k))
    indices = torch.empty((len(query), k), dtype=torch.int64)
    least = min(k + _RERANK_MARGIN, len(archive))
    count = least if precision == torch.float32 else min(k + _LOW_PRECISION_MARGIN, len(archive))
    with tqdm(total=len(query), desc="searching", unit="query", delay=2, disable=not progress) as bar:
        for start in range(0, len(query), _QUERY_CHUNK):
            rows = slice(start, min(start + _QUERY_CHUNK, len(query)))
            asked, own = query[rows], torch.from_numpy(left_out[rows])
            candidates, worst = best_rows(asked, archive, count, device, precision)
            scores[rows], indices[rows] = rerank(asked, archive, candidates, k, exclude=own)
            if precision != torch.float32 and count < len(archive):
                unsure = (scores[rows, -1] < worst + SCORE_ERROR[precision]).nonzero()[:, 0]
                if len(unsure):
                    again, _ = best_rows(asked[unsure], archive, least, device, torch.float32)
                    found = rerank(asked[unsure], archive, again, k, exclude=own[unsure])
                    scores[start + unsure], indices[start + unsure] = found
            bar.update(rows.stop - rows.start)
    return scores.numpy(), indices.numpy()


def unit_vectors(embeds: Embeds, name: str) -> torch.Tensor:
    """Scale embeds, (N, D) of any float type, to unit length in float32 on the CPU.

    What is no matrix of floats with at least one row, or has rows that are zero or not finite, is a ValueError that counts them.
    """
    if not isinstance(embeds, torch.Tensor):
        # torch warns of read-only (mapped) arrays
        embeds = torch.from_numpy(np.require(numpy_array(embeds), requirements=["C", "W"]))
    tensor = embeds.detach().cpu()
    if tensor.ndim != 2 or 0 in tensor.shape or not tensor.is_floating_point():
        raise ValueError(
            f"The {name} embeds have shape {tuple(tensor.shape)} and type {tensor.dtype}; expected floats of shape (tiles, width) "
            "with at least one tile."
        )
    lengths = torch.linalg.vector_norm(tensor, dim=1, keepdim=True, dtype=torch.float64)  # float32 would overflow
    broken, zero = ~lengths[:, 0].isfinite(), lengths[:, 0] == 0
    if (broken | zero).any():
        first = (broken | zero).nonzero()[:5, 0].tolist()
        raise ValueError(
            f"Of {len(lengths)} {name} embeds {int(broken.sum())} are not finite and {int(zero.sum())} are zero (first rows: "
            f"{first}); neither has a direction to search in. Check the tiles of these rows and the model that embedded them."
        )
    pieces = zip(tensor.split(_ARCHIVE_CHUNK), lengths.split(_ARCHIVE_CHUNK), strict=True)  # bounds the float64 copy
    return torch.cat([(piece / length).float() for piece, length in pieces])


def best_rows(
    query: torch.Tensor,
    archive: torch.Tensor | Rows,
    count: int,
    device: str | torch.device | None = None,
    precision: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the rows of the highest products with queries (q, D), in a precision: (q, count) rows, and (q,) the lowest product."""
    query = query.to(device, precision)
    on_cpu = query.device.type == "cpu"
    # On a CPU scores are written into memory that was used before. Fresh memory, which the system fills with zeros page by page, took
    # longer than all else where a filter keeps some rows.
    room = query.new_empty(len(query), min(_ARCHIVE_CHUNK, len(archive)) if on_cpu else 0)
    rows = Vectors([archive]) if isinstance(archive, torch.Tensor) else archive
    best_scores = torch.empty((len(query), 0), device=query.device, dtype=precision)
    best_indices = torch.empty((len(query), 0), dtype=torch.int64, device=query.device)
    for start in range(0, len(archive), _ARCHIVE_CHUNK):
        stop = min(start + _ARCHIVE_CHUNK, len(archive))
        scores = room[:, : stop - start] if on_cpu else query @ archive[start:stop].to(query).T
        first = 0
        for piece in rows.pieces(start, stop) if on_cpu else ():
            found = products(query, piece.tensor.to(query))
            last = first + (found.shape[1] if piece.places is None else len(piece.places))
            scores[:, first:last] = found if piece.places is None else found.index_select(1, piece.places)
            first = last
        places = _stable_top(scores, min(count, stop - start))
        # Earlier chunks first: a lower place is a lower archive index among equal scores.
        merged_scores = torch.cat([best_scores, scores.gather(1, places)], dim=1)
        merged_indices = torch.cat([best_indices, places + start], dim=1)
        places = _stable_top(merged_scores, min(count, merged_scores.shape[1]))
        best_scores, best_indices = merged_scores.gather(1, places), merged_indices.gather(1, places)
    return best_indices.cpu(), best_scores[:, -1].float().cpu()


def rerank(
    query: torch.Tensor,
    archive: torch.Tensor | Vectors,
    candidates: torch.Tensor,
    k: int,
    *,
    exclude: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rank candidates by a float64 product, rounded to float32; ties go to the lower archive row.

    Queries (Q, D) and the archive (N, D) are float32 unit vectors; candidates (Q, C) are rows of it, C at least k, each once, -1 for
    none; `exclude` (Q,) is a row that a query must not find, -1 for none. Scores (Q, k) float32 and rows (Q, k) int64 come highest
    first; where there are fewer, -inf and -1 at the end.
    """
    # None goes last, and rows ascend, so that place and row agree among ties.
    none = candidates < 0
    candidates = candidates.masked_fill(none, torch.iinfo(torch.int64).max).sort(dim=1).values
    none = none.sort(dim=1, stable=True).values
    scores = torch.empty(candidates.shape)
    step = max(1, min(_RERANK_ROWS, _RERANK_NUMBERS // max(candidates.shape[1] * query.shape[1], 1)))
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        vectors = archive[candidates[rows].masked_fill(none[rows], 0)].double()  # (r, C, D)
        scores[rows] = (vectors * query[rows, None].double()).sum(dim=-1).clamp(-1, 1).float()
    if exclude is not None:
        none |= candidates == exclude[:, None]
    scores[none] = -torch.inf
    candidates[none] = -1
    places = _stable_top(scores, k)
    return scores.gather(1, places), candidates.gather(1, places)


def _stable_top(scores: torch.Tensor, k: int) -> torch.Tensor:
    """(q, k) places of the highest scores of each row, highest first, equal scores by place.

    `torch.topk` alone promises no order among equal scores, neither within the k nor at their edge.
    """
    width = scores.shape[1]
    if k == width:
        return scores.sort(dim=1, descending=True, stable=True).indices
    values, places = scores.topk(k + 1, dim=1)  # one more shows a tie at the edge
    places = places[:, :k]
    tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
    for start in range(0, len(tied), _TIED_ROWS):
        # all scores above the edge, filled up with the first that equal it
        rows = tied[start : start + _TIED_ROWS]
        edge = values[rows, k - 1 : k]
        above, equal = scores[rows] > edge, scores[rows] == edge
        left = k - above.sum(dim=1, keepdim=True)
        kept = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= left))
        places[rows] = kept.nonzero()[:, 1].view(len(rows), k)
    places = places.sort(dim=1).values
    order = scores.gather(1, places).sort(dim=1, descending=True, stable=True).indices
    return places.gather(1, order)
