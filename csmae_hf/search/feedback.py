"""Refinement of a query by what a person likes and does not like of its results (Rocchio 1971)."""

import torch

KEEP, LIKE, UNLIKE = 1.0, 0.75, 0.15
"""Weights of the query, of the mean of what is liked and of the mean of what is not: those of Manning et al. 2008, section 9.1.1."""


def refine(query: torch.Tensor | None, liked: torch.Tensor, unliked: torch.Tensor) -> torch.Tensor:
    """Move queries, (Q, D), towards what is liked, (L, D), and away from what is not, (U, D); all are unit vectors.

    Without a query the result is one, of what is liked alone. Where nothing is left to search by it is a ValueError.
    """
    if query is None and not len(liked):
        raise ValueError("There is nothing to search by: give a query, or tiles that are liked.")
    moved = torch.zeros(1, liked.shape[1], dtype=torch.float64) if query is None else KEEP * query.double()
    for weight, vectors in ((LIKE, liked), (-UNLIKE, unliked)):
        if len(vectors):
            moved = moved + weight * vectors.double().mean(dim=0)
    lengths = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
    if not (lengths > 1e-6).all():
        raise ValueError("What is liked and what is not cancel out; nothing is left to search by.")
    return (moved / lengths).float()
