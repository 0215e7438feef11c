"""Products that rankings start from: by whatever library, the same but for rounding."""

from typing import Any

import numpy as np
import pytest
import torch

from csmae_hf import cpu
from csmae_hf.search import nearest as search
from csmae_hf.search import vectors as vectors_module
from csmae_hf.search.nearest import nearest
from csmae_hf.search.products import products
from csmae_hf.search.vectors import Vectors


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors)


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_products_are_those_of_torch(rows: int) -> None:
    queries, vectors = unit(rows, 96, 0), unit(5_000, 96, 1)
    torch.testing.assert_close(products(queries, vectors), queries @ vectors.T, atol=1e-6, rtol=0)


def test_products_of_doubles_and_halves_are_torchs_own() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        queries, vectors = unit(3, 96, 0).to(dtype), unit(5_000, 96, 1).to(dtype)
        assert torch.equal(products(queries, vectors), queries @ vectors.T)


def test_a_torch_without_the_operator_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise AttributeError("no such operator")

    cpu.onednn_agrees.cache_clear()
    monkeypatch.setattr(cpu, "linear_by_onednn", fail)
    queries, vectors = unit(3, 96, 0), unit(5_000, 96, 1)
    assert torch.equal(products(queries, vectors), queries @ vectors.T)
    monkeypatch.undo()
    cpu.onednn_agrees.cache_clear()


@pytest.mark.parametrize(("numbers", "share"), [(2**20, 0.6), (16 * 1000, 0.6), (1, 0.6), (2**20, 0.95)])
def test_rows_that_are_copied_a_few_at_a_time_are_ranked_alike(
    monkeypatch: pytest.MonkeyPatch, numbers: int, share: float
) -> None:
    """Blocks inside chunks, of which neither divides the other nor the archive; a block of one row; rows that are not copied."""
    queries, vectors = unit(5, 16, 0), unit(3_001, 16, 1)
    kept = np.flatnonzero(np.random.default_rng(0).random(3_001) < share)
    monkeypatch.setattr(search, "_ARCHIVE_CHUNK", 700)
    monkeypatch.setattr(vectors_module, "_BLOCK_NUMBERS", numbers)
    scores, rows = nearest(queries, Vectors([vectors[:1_234], vectors[1_234:]]).select(kept), 7)
    expected = (queries.double() @ vectors[kept].double().T).topk(7)
    np.testing.assert_array_equal(rows, expected.indices.numpy())
    np.testing.assert_allclose(scores, expected.values.numpy(), atol=1e-6)
