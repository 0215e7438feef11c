"""Products of queries with vectors: on a CPU by the faster of torch's two libraries."""

import torch

from csmae_hf.cpu import linear_by_onednn, suits_onednn

_LEAST_PRODUCTS = 2**18
"""Multiplications below which another library costs more than it saves."""


def products(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Multiply every query (Q, D) with every vector (N, D) of the same type and device: (Q, N). The libraries differ by rounding."""
    # few rows against many: oneDNN wins on every CPU, Intel's too, where it does not win at a model's layers
    if queries.shape[0] * vectors.numel() >= _LEAST_PRODUCTS and suits_onednn(queries, vectors):
        return linear_by_onednn(queries, vectors)
    return queries @ vectors.T
