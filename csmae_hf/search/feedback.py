"""Refinement of a query by what a person likes and does not like of its results (Rocchio 1971)."""

import torch

KEEP, LIKE, UNLIKE = 1.0, 0.75, 0.15
"""Weights of the query, of the mean of what is liked and of the mean of what is not: those of Manning et al. 2008, section 9.1.1."""


def refine(
    query: torch.Tensor | None,
    liked: torch.Tensor,
    unliked: torch.Tensor,
    weights: tuple[float, float, float] = (KEEP, LIKE, UNLIKE),
) -> torch.Tensor:
    """Move queries towards what is liked and away from what is not.

    Args:
        query: (Q, D) unit vectors; None searches by what is liked alone.
        liked: (L, D) unit vectors, may be empty where there is a query.
        unliked: (U, D) unit vectors, may be empty.
        weights: Of query, liked and unliked.

    Returns:
        (Q, D) unit vectors, one where there is no query.

    Raises:
        ValueError: If there is neither a query nor anything liked, or they cancel out.
    """
    if query is None and not len(liked):
        raise ValueError("There is nothing to search by: give a query, or tiles that are liked.")
    moved = torch.zeros(1, liked.shape[1], dtype=torch.float64) if query is None else weights[0] * query.double()
    for sign, weight, vectors in ((1, weights[1], liked), (-1, weights[2], unliked)):
        if len(vectors):
            moved = moved + sign * weight * vectors.double().mean(dim=0)
    lengths = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
    if not (lengths > 1e-6).all():
        raise ValueError("What is liked and what is not cancel out; nothing is left to search by.")
    return (moved / lengths).float()
