"""Exact search against a plain full sort in float64."""

import math

import numpy as np
import pytest
import torch

from csmae_hf.search import nearest as search
from csmae_hf.search.nearest import rerank, top_k, unit_vectors


def full_sort(query, archive, k, exclude=None):
    """Cosines of all pairs in float64 by numpy, rounded, sorted by (score, index)."""
    query = np.asarray(query, dtype=np.float64)
    archive = np.asarray(archive, dtype=np.float64)
    query = query / np.linalg.norm(query, axis=1, keepdims=True)
    archive = archive / np.linalg.norm(archive, axis=1, keepdims=True)
    scores = query @ archive.T
    if exclude is not None:
        for row, own in enumerate(exclude):
            if own >= 0:
                scores[row, own] = -np.inf
    order = np.argsort(-scores.round(6), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(search, "_QUERY_CHUNK", 7)
    monkeypatch.setattr(search, "_ARCHIVE_CHUNK", 11)
    monkeypatch.setattr(search, "_RERANK_ROWS", 3)
    monkeypatch.setattr(search, "_TIED_ROWS", 2)


def embeds(rows, width=16, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 52, 53])
def test_equals_a_full_sort_in_chunks(k, small_chunks):
    query, archive = embeds(20), embeds(53, seed=1)
    scores, indices = top_k(query, archive, k)
    expected_scores, expected_indices = full_sort(query, archive, k)
    assert scores.shape == indices.shape == (20, k)
    assert scores.dtype == np.float32
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_chunk_sizes_change_nothing_at_all(monkeypatch):
    query, archive = embeds(30), embeds(200, seed=1)
    archive[150:] = archive[:50]
    whole = top_k(query, archive, 9)
    for query_chunk, archive_chunk in [(1, 200), (30, 13), (8, 64), (30, 1)]:
        monkeypatch.setattr(search, "_QUERY_CHUNK", query_chunk)
        monkeypatch.setattr(search, "_ARCHIVE_CHUNK", archive_chunk)
        for ours, theirs in zip(top_k(query, archive, 9), whole, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_length_of_embeds_does_not_matter():
    query, archive = embeds(6), embeds(40, seed=1)
    scaled = archive * np.geomspace(1e-6, 1e30, 40, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(top_k(query * 1e-20, scaled, 5)[1], top_k(query, archive, 5)[1])


def test_equal_scores_go_to_the_lower_index(small_chunks):
    base = embeds(5)
    archive = base[np.array([4, 0, 1, 0, 2, 0, 3, 0, 1, 0, 4, 0, 0, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]
    scores, indices = top_k(base[:1], archive, 6)
    np.testing.assert_array_equal(indices, [[1, 3, 5, 7, 9, 11]])
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_a_collapsed_archive_is_ranked_by_index():
    archive = np.tile(embeds(1, width=64), (3000, 1))
    scores, indices = top_k(embeds(5, width=64, seed=1), archive, 10, exclude=np.array([-1, 0, 3, 2999, 9]))
    assert [row.tolist() for row in indices] == [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        [0, 1, 2, 4, 5, 6, 7, 8, 9, 10],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 10],
    ]
    assert (scores == scores[:, :1]).all()


@pytest.mark.parametrize("k", [3, 29])
def test_the_excluded_tile_is_left_out_per_query(k, small_chunks):
    archive = embeds(30)
    exclude = np.arange(30)
    exclude[::4] = -1
    if k == 29:
        exclude = np.arange(30)
    scores, indices = top_k(archive, archive, k, exclude=exclude)
    expected_scores, expected_indices = full_sort(archive, archive, k, exclude)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert not (indices == exclude[:, None]).any()
    assert np.isfinite(scores).all()


def test_tensors_of_low_precision_and_read_only_arrays_are_searched():
    query, archive = embeds(4), embeds(20, seed=1)
    archive.setflags(write=False)
    expected = top_k(query, archive, 3)[1]
    np.testing.assert_array_equal(top_k(torch.tensor(query), torch.tensor(archive), 3)[1], expected)
    half = torch.tensor(archive).to(torch.bfloat16)
    np.testing.assert_array_equal(top_k(query, half, 3)[1], full_sort(query, half.float().numpy(), 3)[1])


def test_zero_and_non_finite_embeds_are_counted():
    query, archive = embeds(4), embeds(20, seed=1)
    archive[[3, 8]] = 0
    archive[5, 2] = np.nan
    archive[6, 0] = np.inf
    with pytest.raises(
        ValueError, match=r"Of 20 archive embeds 2 are not finite and 2 are zero \(first rows: \[3, 5, 6, 8\]\)"
    ):
        top_k(query, archive, 3)
    with pytest.raises(ValueError, match="Of 20 query embeds"):
        top_k(archive, query, 3)


@pytest.mark.parametrize(
    ("query", "archive", "arguments", "message"),
    [
        (embeds(3), embeds(5), {"k": 6}, "k=6, but the archive has 5 tiles"),
        (embeds(3), embeds(5), {"k": 5, "exclude": np.array([0, 1, 2])}, "4 tiles after leaving out"),
        (embeds(3), embeds(5), {"k": 0}, "at least 1"),
        (embeds(3), embeds(5), {"k": 1, "exclude": np.array([0, 1, 5])}, "exclude runs from 0 to 5"),
        (embeds(3), embeds(5, width=8), {"k": 1}, "width 16, archive embeds 8"),
        (embeds(3)[0], embeds(5), {"k": 1}, r"query embeds have shape \(16,\)"),
        (embeds(3), embeds(5)[:0], {"k": 1}, r"archive embeds have shape \(0, 16\)"),
        (embeds(3), embeds(5).astype(int), {"k": 1}, "type torch.int64"),
    ],
)
def test_impossible_searches_are_refused(query, archive, arguments, message):
    with pytest.raises(ValueError, match=message):
        top_k(query, archive, **arguments)


def test_the_last_ranking_is_exact_where_float32_ties_or_errs():
    """Rows so close together that their float32 products tie or swap; expected are exact sums of exact products, rounded once."""
    center, spread = embeds(1, width=64), embeds(300, width=64, seed=1)
    query, archive = unit_vectors(center, "query"), unit_vectors(center + 2e-4 * spread, "archive")
    exact = np.array([np.float32(math.fsum(row)) for row in (archive.double() * query.double()).numpy()])
    expected = np.argsort(-exact, kind="stable")
    by_float32 = [(archive * query).sum(dim=1), (query @ archive.T)[0]]
    for product in by_float32:
        order = np.argsort(-product.numpy(), kind="stable")
        assert (order != expected).mean() > 0.5  # else this shows nothing
        assert len(np.unique(product.numpy())) < len(np.unique(exact)) or not np.array_equal(product.numpy(), exact)
    scores, indices = rerank(query, archive, torch.randperm(300)[None], 300)
    np.testing.assert_array_equal(indices[0], expected)
    np.testing.assert_array_equal(scores[0], exact[expected])
    np.testing.assert_array_equal(top_k(center, center + 2e-4 * spread, 292)[1][0], expected[:292])
