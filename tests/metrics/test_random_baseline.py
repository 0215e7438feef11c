"""Metrics against a direct double loop and hand-computed cases; the random baseline against its closed form."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csmae_hf.metrics import labels
from csmae_hf.metrics import random_baseline as baseline
from csmae_hf.metrics.random_baseline import expected_baseline, random_baseline
from csmae_hf.metrics.ranking import mean_scores, query_scores, scores_over_k

FOUR = ("precision", "recall", "f1_of_means", "mean_pair_f1")


def double_loop(query_labels, archive_labels, ranking):
    """The definitions, one pair at a time, on sets."""
    precision, recall, f1 = [], [], []
    for query, row in zip(query_labels, ranking, strict=True):
        q = set(np.flatnonzero(query))
        for index in row:
            r = set(np.flatnonzero(archive_labels[index]))
            p_pair = len(q & r) / len(r) if r else 0.0
            r_pair = len(q & r) / len(q) if q else 0.0
            precision.append(p_pair)
            recall.append(r_pair)
            f1.append(2 * p_pair * r_pair / (p_pair + r_pair) if p_pair + r_pair else 0.0)
    p, r = np.mean(precision), np.mean(recall)
    return p, r, (2 * p * r / (p + r) if p + r else 0.0), np.mean(f1)


def as_tuple(scores):
    return tuple(scores[name] for name in FOUR)


def four(query, archive, ranking):
    """The four numbers in two ways that must agree: mean over queries, and last cut."""
    means = mean_scores(query_scores(query, archive, ranking))
    cuts = scores_over_k(query, archive, ranking)
    assert [cuts[name][-1] for name in FOUR] == pytest.approx([means[name] for name in FOUR], abs=1e-12)
    return as_tuple(means)


def random_labels(rng, rows, classes, share=0.25):
    labels = rng.random((rows, classes)) < share
    labels[np.arange(rows), rng.integers(0, classes, rows)] = True
    return labels


@st.composite
def retrieval_cases(draw):
    n_queries, n_archive = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    n_classes, k = draw(st.integers(1, 70)), draw(st.integers(1, n_archive))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))  # empty label sets occur
    ranking = np.stack([rng.permutation(n_archive)[:k] for _ in range(n_queries)])
    return rng.random((n_queries, n_classes)) < share, rng.random((n_archive, n_classes)) < share, ranking


@settings(max_examples=150, deadline=None)
@given(retrieval_cases())
def test_scores_equal_a_direct_double_loop(case):
    assert four(*case) == pytest.approx(double_loop(*case), abs=1e-12)


def test_hand_computed_case():
    query = np.array([[1, 1, 0, 0]])
    archive = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1]])
    ranking = np.array([[0, 1, 2, 3]])
    # pair precision 1, 1, 0, 1/3; recall 1, 1/2, 0, 1/2; F1 1, 2/3, 0, 2/5
    harmonic = 2 * (7 / 12) * (1 / 2) / (7 / 12 + 1 / 2)
    assert four(query, archive, ranking) == pytest.approx((7 / 12, 1 / 2, harmonic, (1 + 2 / 3 + 2 / 5) / 4))


def test_the_two_f1_definitions_differ():
    query = np.array([[1, 1, 1, 1], [1, 0, 0, 0]])
    archive = np.array([[1, 0, 0, 0], [1, 1, 1, 1]])
    assert four(query, archive, np.array([[0], [1]]))[2:] == pytest.approx((0.625, 0.4))


def test_tiles_without_labels_score_zero():
    query = np.array([[0, 0], [1, 0], [0, 0]])
    archive = np.array([[1, 0], [0, 0]])
    assert four(query, archive, np.array([[0], [1], [1]])) == (0, 0, 0, 0)


def test_chunks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(0)
    query, archive = random_labels(rng, 50, 19), random_labels(rng, 30, 19)
    ranking = np.stack([rng.permutation(30)[:7] for _ in range(50)])
    whole, expected = four(query, archive, ranking), expected_baseline(query, archive)
    monkeypatch.setattr(labels, "CHUNK_PAIRS", 20)
    assert four(query, archive, ranking) == pytest.approx(whole, abs=1e-12)
    assert as_tuple(expected_baseline(query, archive)) == pytest.approx(as_tuple(expected), abs=1e-12)


LABELS = np.array([[1, 0], [0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("query", "archive", "ranking", "message"),
    [
        (LABELS[0], LABELS, [[0]], r"query_labels has shape \(2,\)"),
        (LABELS, LABELS[:0], [[0]] * 3, r"archive_labels has shape \(0, 2\)"),
        (LABELS, LABELS[:, :1], [[0]] * 3, "2 classes, archive_labels 1"),
        (LABELS * 3, LABELS, [[0]] * 3, "values from 0 to 3"),
        (LABELS * 0.5, LABELS, [[0]] * 3, "type float64"),
        (LABELS, LABELS, [[0]] * 2, r"shape \(2, 1\)"),
        (LABELS, LABELS, [[0.0]] * 3, "type float64"),
        (LABELS, LABELS, np.zeros((3, 0), int), "at least 1"),
        (LABELS, LABELS, [[0], [1], [-1]], "-1 is how an approximate index"),
        (LABELS, LABELS, [[0], [1], [3]], "indices from 0 to 3"),
        (LABELS, LABELS, [[0, 1, 2, 0]] * 3, "k=4, but the archive has 3 tiles"),
        (LABELS, LABELS, [[0, 1], [2, 2], [1, 0]], "twice for 1 of 3"),
    ],
)
def test_unusable_input_is_refused_with_what_was_given(query, archive, ranking, message):
    for function in (query_scores, scores_over_k):
        with pytest.raises(ValueError, match=message):
            function(query, archive, np.asarray(ranking))


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


def test_65000_queries_are_scored_in_under_a_second():
    rng = np.random.default_rng(9)
    labels = random_labels(rng, 65_000, 19, share=0.12)
    ranking = (rng.integers(0, 65_000, (65_000, 1)) + np.arange(10)) % 65_000
    start = time.process_time()
    scores_over_k(labels, labels, ranking)
    assert time.process_time() - start < 1.0
