"""Products of queries with vectors: on a CPU by the faster of torch's two libraries.

In float32 `torch.matmul` goes to MKL, which leaves half and more of a CPU that is not Intel's idle; oneDNN does not. Results differ by
rounding. `CSMAELinear` does the same in the models, with gradients; it has its own copy of the check, as the models' file stands
alone on the Hub, and a search need not import it.
"""

from functools import cache

import torch

_LEAST_PRODUCTS = 2**18
"""Multiplications below which another library costs more than it saves."""


def products(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Multiply every query with every vector.

    Args:
        queries: (Q, D).
        vectors: (N, D), of the same type and on the same device.

    Returns:
        (Q, N), of their type and there.
    """
    return _by_onednn(queries, vectors) if _suits_onednn(queries, vectors) else queries @ vectors.T


def _suits_onednn(queries: torch.Tensor, vectors: torch.Tensor) -> bool:
    return (
        queries.device.type == "cpu"
        and queries.dtype == vectors.dtype == torch.float32
        and queries.shape[0] * vectors.numel() >= _LEAST_PRODUCTS
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and bool(torch.backends.mkldnn.enabled)
        and _onednn_agrees()
    )


def _by_onednn(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(queries, vectors, None, "none", [], "")


@cache
def _onednn_agrees() -> bool:
    """Whether this torch has the operator, which is not a public one, and it gives the same."""
    try:
        generator = torch.Generator().manual_seed(0)
        queries, vectors = (torch.randn(rows, 8, generator=generator) for rows in (3, 5))
        return torch.allclose(_by_onednn(queries, vectors), queries @ vectors.T, atol=1e-4)
    except Exception:  # whatever another version of torch says to it, the public function is there
        return False
