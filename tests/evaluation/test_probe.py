"""Classification on frozen embeds, against scikit-learn's."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from csmae_hf.evaluation.evaluate import Embedded
from csmae_hf.evaluation.probe import (
    LinearProbe,
    average_precisions,
    classification_scores,
    format_probes,
    knn_scores,
    probe_all,
)


def draw(rows, seed, classes=4, width=8):
    rng = np.random.default_rng(seed)
    labels = rng.random((rows, classes)) < 0.35
    labels[np.arange(rows), rng.integers(0, classes, rows)] = True
    content = np.random.default_rng(99).normal(size=(classes, width))
    return (labels @ content + rng.normal(size=(rows, width))).astype(np.float32), labels


@pytest.fixture(scope="module")
def train():
    return draw(300, 0)


@pytest.fixture(scope="module")
def test():
    return draw(120, 1)


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_the_linear_probe_is_scikit_learns_logistic_regression(train, test, penalty):
    scaler = StandardScaler().fit(train[0].astype(np.float64))
    theirs = OneVsRestClassifier(LogisticRegression(C=penalty, tol=1e-10, max_iter=5000))
    theirs.fit(scaler.transform(train[0].astype(np.float64)), train[1])
    expected = theirs.predict_proba(scaler.transform(test[0].astype(np.float64)))
    ours = LinearProbe.fit(*train, penalty).scores(test[0])
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_nearest_neighbours_are_scikit_learns(train, test):
    theirs = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(train[0].astype(np.float64), train[1])
    expected = np.stack([p[:, 1] for p in theirs.predict_proba(test[0].astype(np.float64))], axis=1)
    np.testing.assert_allclose(knn_scores(*train, test[0], 7), expected, atol=1e-12)


def test_the_four_numbers_are_scikit_learns(train, test):
    for scores in (LinearProbe.fit(*train, 0.1).scores(test[0]), knn_scores(*train, test[0], 5)):  # k-NN has many ties
        ours = classification_scores(scores, test[1])
        for average in ("macro", "micro"):
            assert ours[f"{average}_map"] == pytest.approx(average_precision_score(test[1], scores, average=average))
            assert ours[f"{average}_f1"] == pytest.approx(f1_score(test[1], scores >= 0.5, average=average))


def test_a_class_that_no_tested_tile_has_does_not_count():
    labels = np.array([[1, 0], [0, 0], [1, 0]], dtype=bool)
    scores = np.array([[0.9, 0.8], [0.1, 0.2], [0.6, 0.9]])
    assert classification_scores(scores, labels)["macro_map"] == 1
    assert average_precisions(scores, labels)[1] == 0
    with pytest.raises(ValueError, match="No tile has a label"):
        classification_scores(scores, np.zeros_like(labels))


def embedded(embeds, labels, offset=0):
    return Embedded(embeds, [f"tile_{offset + n}" for n in range(len(embeds))], labels)


def test_every_pair_of_sensors_is_tested_and_tiles_without_labels_are_left_out(train, test):
    unlabelled = test[1].copy()
    unlabelled[:10] = False
    sensors = {
        "fit": {s: embedded(*train) for s in ("s1", "s2")},
        "validation": {s: embedded(*draw(60, 2), offset=1000) for s in ("s1", "s2")},
        "test": {"s1": embedded(test[0], unlabelled), "s2": embedded(-test[0], unlabelled)},
    }
    results = probe_all(*sensors.values(), k=5, penalties=(1e-2, 1.0))
    pairs = [(r.fit_sensor, r.test_sensor, r.classifier) for r in results]
    assert pairs == [(a, b, c) for a in ("s1", "s2") for b in ("s1", "s2") for c in ("linear", "knn")]
    assert {r.n_test for r in results} == {110}
    by_pair = dict(zip(pairs, results, strict=True))
    assert by_pair["s1", "s1", "linear"].macro_map > by_pair["s1", "s2", "linear"].macro_map + 0.2
    assert "s1 -> s2" in format_probes(results)
    nothing = {"s1": embedded(test[0], np.zeros_like(test[1]))}
    with pytest.raises(ValueError, match="No s1 tile of the test tiles has labels"):
        probe_all(sensors["fit"], sensors["validation"], nothing)


def test_embeds_that_do_not_vary_do_no_harm(train):
    constant = np.concatenate([train[0], np.ones((300, 1), np.float32)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(LinearProbe.fit(constant, train[1], 1.0).scores(constant)).all()
