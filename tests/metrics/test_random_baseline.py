"""The random baseline against its closed form, and that against a double loop over all pairs."""

import numpy as np
import pytest
from double_loop import FOUR, as_tuple, double_loop, random_labels

from csmae_hf.metrics import labels
from csmae_hf.metrics import random_baseline as baseline
from csmae_hf.metrics.random_baseline import expected_baseline, random_baseline

LABELS = np.array([[1, 0], [0, 1], [1, 1]])


def mean_over_all_pairs(query, archive, exclude):
    """The expectation of a random order by the double loop: every archive tile but the own one, equally."""
    per_query = []
    for row, own in enumerate(exclude):
        others = np.array([[index for index in range(len(archive)) if index != own]])
        p, r, _, pair_f1 = double_loop(query[row : row + 1], archive, others)
        per_query.append((p, r, pair_f1))
    p, r, pair_f1 = np.mean(per_query, axis=0)
    return p, r, 2 * p * r / (p + r), pair_f1


@pytest.mark.parametrize("leave_out", [False, True])
def test_closed_form_equals_the_mean_over_the_whole_archive(leave_out):
    rng = np.random.default_rng(1)
    query, archive = random_labels(rng, 9, 19), random_labels(rng, 14, 19)
    archive[3] = False
    exclude = np.array([4, -1, 0, 13, 3, -1, 2, 2, 7]) if leave_out else np.full(9, -1)
    given = exclude if leave_out else None
    assert as_tuple(expected_baseline(query, archive, exclude=given)) == pytest.approx(
        mean_over_all_pairs(query, archive, exclude), abs=1e-12
    )


def test_random_draws_scatter_around_the_closed_form():
    rng = np.random.default_rng(2)
    labels = random_labels(rng, 60, 19)
    own = np.arange(60)
    baseline = random_baseline(labels, labels, 5, draws=200, seed=3, exclude=own)
    assert baseline.expected == expected_baseline(labels, labels, exclude=own)
    for name in FOUR:
        spread = baseline.std[name]
        error = abs(baseline.mean[name] - baseline.expected[name])
        assert 0 < spread < 0.05
        # F1 of means is biased by the spread's square, far below the standard error here
        assert error < 4 * spread / np.sqrt(200)


def test_baseline_of_the_whole_archive_has_no_spread():
    labels = random_labels(np.random.default_rng(4), 8, 5)
    baseline = random_baseline(labels, labels, 8, draws=3)
    assert as_tuple(baseline.mean) == pytest.approx(as_tuple(baseline.expected), abs=1e-12)
    assert as_tuple(baseline.std) == pytest.approx((0, 0, 0, 0), abs=1e-12)


def test_same_seed_same_baseline_and_another_seed_another():
    labels = random_labels(np.random.default_rng(5), 40, 19)
    first = random_baseline(labels, labels, 3, seed=7)
    assert first == random_baseline(labels, labels, 3, seed=7)
    assert first.mean != random_baseline(labels, labels, 3, seed=8).mean


@pytest.mark.parametrize("k", [1, 3, 5])
def test_random_rankings_are_uniform_without_repeats_and_without_the_own_tile(k):
    exclude = np.repeat(np.array([-1, 0, 2, 5]), 6000)
    ranking = baseline._random_ranking(np.random.default_rng(6), 6, k, exclude)
    assert all(len(set(row)) == k for row in ranking.tolist())
    assert not (ranking == exclude[:, None]).any()
    for own in (-1, 0, 2, 5):
        allowed = [index for index in range(6) if index != own]
        for place in range(k):
            counts = np.bincount(ranking[exclude == own, place], minlength=6)[allowed]
            expected = 6000 / len(allowed)
            assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 4}, "k=4, but the archive has 3 tiles. "),
        ({"k": 3, "exclude": np.arange(3)}, "2 tiles after leaving out a query's own tile"),
        ({"k": 1, "exclude": np.array([0, 1, 3])}, "exclude runs from 0 to 3"),
        ({"k": 1, "exclude": np.array([0, -2, 1])}, "exclude runs from -2 to 1"),
        ({"k": 1, "exclude": np.arange(2)}, r"exclude has shape \(2,\)"),
        ({"k": 1, "draws": 1}, "at least 2 draws"),
    ],
)
def test_baseline_that_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        random_baseline(LABELS, LABELS, **arguments)


def test_closed_form_needs_something_left_after_the_own_tile():
    with pytest.raises(ValueError, match="0 tiles after leaving out"):
        expected_baseline(LABELS[:1], LABELS[:1], exclude=np.array([0]))


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    query, archive = random_labels(rng, 50, 19), random_labels(rng, 30, 19)
    expected = expected_baseline(query, archive)
    monkeypatch.setattr(labels, "CHUNK_PAIRS", 20)
    assert as_tuple(expected_baseline(query, archive)) == pytest.approx(as_tuple(expected), abs=1e-12)
