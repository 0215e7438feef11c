"""Metrics with graded relevance against scikit-learn, SciPy and plain loops."""

import time

import numpy as np
import pytest
from double_loop import FOUR, as_tuple, double_loop, random_labels
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import skew
from sklearn.metrics import average_precision_score, ndcg_score

from csmae_hf.metrics import labels
from csmae_hf.metrics.ranking import mean_scores, query_scores, scores_over_k
from csmae_hf.metrics.whole_archive import colocated_ranks, hubness, r_precision, relevance_counts


def draw_labels(rng, rows, classes, share=0.3):
    return rng.random((rows, classes)) < share


def plain(query_labels, archive_labels, ranking, exclude):
    """Every definition by loops over sets."""
    k = ranking.shape[1]
    result = []
    for q, row, own in zip(query_labels, ranking, exclude, strict=True):
        grade = [int((q & r).sum()) for r in archive_labels]
        possible = [g for i, g in enumerate(grade) if i != own]
        found = [grade[i] for i in row]
        dcg = sum((2**g - 1) / np.log2(rank + 2) for rank, g in enumerate(found))
        best = sum((2**g - 1) / np.log2(rank + 2) for rank, g in enumerate(sorted(possible, reverse=True)[:k]))
        relevant = sum(g > 0 for g in possible)
        ap = sum(np.mean([g > 0 for g in found[: i + 1]]) for i in range(k) if found[i] > 0)
        result.append((ap / min(relevant, k) if relevant else 0, dcg / best if best else 0, np.mean(found)))
    return np.array(result)


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_queries, n_archive, n_classes = draw(st.integers(1, 6)), draw(st.integers(2, 9)), draw(st.integers(1, 70))
    share = draw(st.sampled_from([0.0, 0.05, 0.3]))
    exclude = rng.integers(-1, n_archive, n_queries)
    k = draw(st.integers(1, n_archive - 1))
    allowed = [[i for i in range(n_archive) if i != own] for own in exclude]
    ranking = np.stack([rng.permutation(row)[:k] for row in allowed])
    return (
        draw_labels(rng, n_queries, n_classes, share),
        draw_labels(rng, n_archive, n_classes, share),
        ranking,
        exclude,
    )


@settings(max_examples=150, deadline=None)
@given(cases())
def test_graded_scores_equal_plain_loops(case):
    query, archive, ranking, exclude = case
    scores = query_scores(query, archive, ranking, exclude=exclude)
    np.testing.assert_allclose(
        np.stack([scores[name] for name in ("map", "ndcg", "acg")], axis=1), plain(*case), atol=1e-12
    )


def test_whole_rankings_equal_scikit_learns():
    rng = np.random.default_rng(0)
    query, archive = draw_labels(rng, 40, 8), draw_labels(rng, 60, 8)
    similarities = rng.random((40, 60))
    ranking = np.argsort(-similarities, axis=1)
    grades = (query[:, None] & archive).sum(axis=-1)
    ours = query_scores(query, archive, ranking)
    has_relevant = (grades > 0).any(axis=1)
    assert has_relevant.sum() > 0
    theirs = [
        average_precision_score(g > 0, s) for g, s in zip(grades[has_relevant], similarities[has_relevant], strict=True)
    ]
    np.testing.assert_allclose(ours["map"][has_relevant], theirs, atol=1e-12)
    for k in (1, 10, 60):
        cut = query_scores(query, archive, ranking[:, :k])["ndcg"].mean()
        assert cut == pytest.approx(ndcg_score(2.0**grades - 1, similarities, k=k), abs=1e-12)


def test_hand_computed_case():
    query = np.array([[1, 1, 0]])
    archive = np.array([[0, 0, 1], [1, 0, 0], [1, 1, 1], [0, 1, 0]])
    scores = query_scores(query, archive, np.array([[1, 0, 2]]))
    assert scores["acg"][0] == pytest.approx((1 + 0 + 2) / 3)
    assert scores["map"][0] == pytest.approx((1 / 1 + 2 / 3) / 3)  # three relevant tiles, k = 3
    assert scores["ndcg"][0] == pytest.approx((1 + 3 / 2) / (3 + 1 / np.log2(3) + 1 / 2))


def test_counts_know_equal_label_sets_and_leave_the_own_tile_out():
    query = np.array([[1, 1], [1, 1], [0, 1]])
    archive = np.array([[1, 1], [1, 1], [1, 0], [0, 0]])
    counts = relevance_counts(query, archive, exclude=np.array([0, -1, 3]))
    np.testing.assert_array_equal(counts, [[1, 1, 1], [1, 1, 2], [1, 2, 0]])


def test_a_query_to_which_nothing_is_relevant_scores_zero():
    query, archive = np.array([[1, 0]]), np.array([[0, 1], [0, 0]])
    scores = query_scores(query, archive, np.array([[0, 1]]))
    assert [values[0] for values in scores.values()] == [0] * 6


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    query, archive = draw_labels(rng, 50, 19), draw_labels(rng, 30, 19)
    ranking = np.stack([rng.permutation(30)[:7] for _ in range(50)])
    whole = query_scores(query, archive, ranking)
    monkeypatch.setattr(labels, "CHUNK_PAIRS", 20)
    for name, values in query_scores(query, archive, ranking).items():
        np.testing.assert_array_equal(values, whole[name])


def test_scores_over_k_are_those_of_shorter_rankings():
    rng = np.random.default_rng(2)
    query, archive = draw_labels(rng, 20, 6), draw_labels(rng, 15, 6)
    ranking = np.stack([rng.permutation(15)[:9] for _ in range(20)])
    curve = scores_over_k(query, archive, ranking)
    for k in (1, 4, 9):
        shorter = mean_scores(query_scores(query, archive, ranking[:, :k]))
        assert {name: values[k - 1] for name, values in curve.items()} == pytest.approx(
            {name: shorter[name] for name in ("precision", "recall", "f1_of_means", "mean_pair_f1", "acg")}
        )


def test_r_precision_equals_a_loop():
    rng = np.random.default_rng(3)
    query, archive = draw_labels(rng, 30, 5), draw_labels(rng, 40, 5)
    similarities = rng.integers(0, 5, (30, 40)).astype(np.float32)  # ties occur
    exclude = rng.integers(-1, 40, 30)
    ours = r_precision(similarities, query, archive, exclude=exclude)
    for place in range(30):
        order = [i for i in sorted(range(40), key=lambda i: (-similarities[place, i], i)) if i != exclude[place]]
        relevant = [bool((query[place] & archive[i]).any()) for i in order]
        total = sum(relevant)
        assert ours[place] == pytest.approx(sum(relevant[:total]) / total if total else 0)


def test_colocated_ranks_are_those_of_a_search_that_finds_the_own_tile():
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 6, (200, 12)).astype(np.float32)  # ties occur
    own = rng.integers(0, 12, 200)
    orders = [sorted(range(12), key=lambda i, row=row: (-row[i], i)) for row in scores]
    true = np.array([order.index(mine) + 1 for order, mine in zip(orders, own, strict=True)])
    without = np.array([[i for i in order if i != mine][:5] for order, mine in zip(orders, own, strict=True)])
    ranks = colocated_ranks(scores[np.arange(200), own], own, np.take_along_axis(scores, without, axis=1), without)
    np.testing.assert_array_equal(ranks, np.minimum(true, 6))


def test_hubness_equals_scipys_skewness():
    rng = np.random.default_rng(5)
    ranking = np.minimum(rng.geometric(0.1, (500, 3)), 40) - 1
    measured = hubness(ranking, 50)
    counts = np.bincount(ranking.ravel(), minlength=50)
    assert measured.skewness == pytest.approx(skew(counts))
    assert (measured.largest, measured.never) == (counts.max(), (counts == 0).mean())
    assert hubness(np.array([[0], [1]]), 2).skewness == 0


def test_a_perfect_ranking_scores_one():
    scores = query_scores(np.eye(3, dtype=int), np.eye(3, dtype=int), np.arange(3)[:, None])
    assert all((values == 1).all() for values in scores.values())


def test_all_metrics_of_65000_queries_cost_a_fraction_of_the_double_loop():
    """The loop is timed on some queries in the same run: a ratio, so that a busy machine slows both."""
    rng = np.random.default_rng(6)
    query, archive = draw_labels(rng, 65_000, 19, 0.15), draw_labels(rng, 20_000, 19, 0.15)
    ranking = rng.integers(0, 20_000 - 10, (65_000, 1)) + np.arange(10)
    start = time.process_time()
    for labels_of_query, row in zip(query[:1000], ranking[:1000], strict=True):
        for index in row:
            np.logical_and(labels_of_query, archive[index]).sum() / max(archive[index].sum(), 1)
    loop = (time.process_time() - start) * 65
    start = time.process_time()
    query_scores(query, archive, ranking)
    assert time.process_time() - start < loop / 3


# Precision, recall and both F1


def four(query, archive, ranking):
    """The four numbers in two ways that must agree: mean over queries, and last cut."""
    means = mean_scores(query_scores(query, archive, ranking))
    cuts = scores_over_k(query, archive, ranking)
    assert [cuts[name][-1] for name in FOUR] == pytest.approx([means[name] for name in FOUR], abs=1e-12)
    return as_tuple(means)


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


def test_hand_computed_case_of_the_four():
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
    whole = four(query, archive, ranking)
    monkeypatch.setattr(labels, "CHUNK_PAIRS", 20)
    assert four(query, archive, ranking) == pytest.approx(whole, abs=1e-12)


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


def test_65000_queries_are_scored_in_under_a_second():
    rng = np.random.default_rng(9)
    labels = random_labels(rng, 65_000, 19, share=0.12)
    ranking = (rng.integers(0, 65_000, (65_000, 1)) + np.arange(10)) % 65_000
    start = time.process_time()
    scores_over_k(labels, labels, ranking)
    assert time.process_time() - start < 1.0
