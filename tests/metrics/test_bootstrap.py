"""Bootstrap intervals against SciPy's, and against what must hold of them."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from csmae_hf.metrics.bootstrap import bootstrap_means, bootstrap_scores, intervals


def draw_scores(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.beta(2, 3, rows) for name in ("precision", "recall", "mean_pair_f1", "map", "ndcg", "acg")}


def test_intervals_agree_with_scipys_percentile_bootstrap():
    scores = draw_scores(400)
    ours = intervals(bootstrap_scores(scores, resamples=4000))

    def harmonic(p, r, axis):
        p, r = p.mean(axis=axis), r.mean(axis=axis)
        return 2 * p * r / (p + r)

    theirs = {
        "ndcg": bootstrap((scores["ndcg"],), np.mean, n_resamples=4000, method="percentile", rng=1),
        "f1_of_means": bootstrap(
            (scores["precision"], scores["recall"]), harmonic, paired=True, n_resamples=4000, method="percentile", rng=1
        ),
    }
    for name, result in theirs.items():
        assert ours[name] == pytest.approx(tuple(result.confidence_interval), abs=2e-3)
        assert ours[name].lower < ours[name].upper


def test_a_seed_gives_the_same_resamples_so_that_differences_are_paired():
    scores = draw_scores(50)
    better = {name: values + 0.01 for name, values in scores.items()}
    first, second = bootstrap_scores(scores, resamples=200), bootstrap_scores(better, resamples=200)
    difference = intervals({name: second[name] - first[name] for name in first})
    assert difference["acg"] == pytest.approx((0.01, 0.01))


def test_one_query_has_its_value_for_an_interval():
    scores = draw_scores(1)
    assert intervals(bootstrap_scores(scores, resamples=10))["map"] == pytest.approx((scores["map"][0],) * 2)


def test_nothing_to_resample_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        bootstrap_means(np.empty((0, 3)))


def test_resamples_of_clusters_are_those_of_a_plain_loop_over_whole_clusters():
    scores = draw_scores(30)
    clusters = [f"scene_{number % 7 if number > 12 else 0}" for number in range(30)]
    ours = bootstrap_scores(scores, resamples=50, seed=3, clusters=clusters)["ndcg"]
    names = list(dict.fromkeys(clusters))
    drawn = np.random.default_rng(3).integers(0, len(names), (50, len(names)))
    theirs = [
        np.mean([value for n in row for value, name in zip(scores["ndcg"], clusters, strict=True) if name == names[n]])
        for row in drawn
    ]
    np.testing.assert_allclose(ours, theirs)


def test_clusters_of_one_row_are_rows():
    scores = draw_scores(40)
    plain = bootstrap_scores(scores, resamples=20)
    clustered = bootstrap_scores(scores, resamples=20, clusters=range(40))
    for name, values in plain.items():
        np.testing.assert_allclose(clustered[name], values)


def test_dependent_queries_make_the_interval_wider():
    rng = np.random.default_rng(0)
    scores = {"ndcg": np.repeat(rng.random(20), 10)}
    rows, scenes = (intervals(bootstrap_scores(scores, clusters=c))["ndcg"] for c in (None, np.arange(200) // 10))
    assert scenes.upper - scenes.lower > 2 * (rows.upper - rows.lower)


def test_clusters_of_other_rows_are_refused():
    with pytest.raises(ValueError, match="40 rows have 3 clusters"):
        bootstrap_scores(draw_scores(40), clusters=["a", "b", "c"])
