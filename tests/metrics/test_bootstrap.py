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
