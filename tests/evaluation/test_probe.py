"""Classification on frozen embeds: the optimum of its objective, scikit-learn's numbers, and choices by training tiles alone."""

import builtins
import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from csmae_hf.evaluation.evaluate import Embedded
from csmae_hf.evaluation.probe import (
    CHOICE_FOLDS,
    CHOICE_NOTE,
    LinearProbe,
    choose_thresholds,
    classification_scores,
    cross_fit,
    knn_scores,
    probe_all,
    probes_table,
)


def draw(rows, seed, classes=4, width=8, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.random((rows, classes)) < 0.35
    labels[np.arange(rows), rng.integers(0, classes, rows)] = True
    content = np.random.default_rng(99).normal(size=(classes, width))
    return (labels @ content + noise * rng.normal(size=(rows, width))).astype(np.float32), labels


@pytest.fixture(scope="module")
def train():
    return draw(300, 0)


@pytest.fixture(scope="module")
def test():
    return draw(120, 1)


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_the_linear_probe_is_at_the_optimum_of_its_objective(train, penalty):
    """C * summed log loss + |w|^2 / 2 has the derivative 0, by w and by the intercept, computed here from the probabilities alone."""
    embeds, labels = train
    probe = LinearProbe.fit(embeds, labels, penalty)
    features = (embeds - embeds.mean(axis=0, dtype=np.float64)) / embeds.std(axis=0, dtype=np.float64)
    error = probe.scores(embeds) - labels
    weights = np.stack([one.coef_[0] for one in probe.classifiers], axis=1)
    np.testing.assert_allclose(penalty * features.T @ error + weights, 0, atol=1e-3 * penalty * len(embeds))
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=1e-4)


def test_nearest_neighbours_are_scikit_learns(train, test):
    theirs = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(train[0].astype(np.float64), train[1])
    expected = np.stack([p[:, 1] for p in theirs.predict_proba(test[0].astype(np.float64))], axis=1)
    np.testing.assert_allclose(knn_scores(*train, test[0], 7), expected, atol=1e-12)


def test_the_four_numbers_are_scikit_learns(train, test):
    thresholds = np.array([0.2, 0.5, 0.4, 0.6])
    for scores in (LinearProbe.fit(*train, 0.1).scores(test[0]), knn_scores(*train, test[0], 5)):  # k-NN has many ties
        ours = classification_scores(scores, test[1], thresholds)
        for average in ("macro", "micro"):
            assert ours[f"{average}_map"] == pytest.approx(average_precision_score(test[1], scores, average=average))
            assert ours[f"{average}_f1"] == pytest.approx(f1_score(test[1], scores >= thresholds, average=average))


def test_beside_the_classifiers_stands_what_saying_every_class_gives(train, test):
    *_, always = probe_all({"s1": embedded(*train)}, {"s1": embedded(*test)}, k=5, penalties=(1.0,))
    labels = test[1][test[1].any(axis=1)]
    assert (always.classifier, always.test_sensor, always.n_test) == ("always", "s1", len(labels))
    shares = labels[:, labels.any(axis=0)].mean(axis=0)
    assert always.macro_map == pytest.approx(shares.mean())
    assert always.macro_f1 == pytest.approx((2 * shares / (1 + shares)).mean())
    assert always.micro_map == pytest.approx(labels.mean())
    assert probes_table([always]).rows[0][:3] == ["-> s1", "always", ""]


def test_a_class_that_no_tested_tile_has_does_not_count():
    labels = np.array([[1, 0], [0, 0], [1, 0]], dtype=bool)
    scores = np.array([[0.9, 0.8], [0.1, 0.2], [0.6, 0.9]])
    assert classification_scores(scores, labels)["macro_map"] == 1
    with pytest.raises(ValueError, match="No tile has a label"):
        classification_scores(scores, np.zeros_like(labels))


def test_thresholds_are_where_f1_is_highest_of_all_places_where_one_could_be():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 20, (40, 3)) / 20  # ties
    labels = scores + 0.4 * rng.normal(size=scores.shape) > [0.4, 0.6, 0.8]
    labels[:, 2] = False
    thresholds = choose_thresholds(scores, labels)
    assert not (scores[:, 2] >= thresholds[2]).any()  # a class that none of them has is never said
    for column in (0, 1):
        best = max(f1_score(labels[:, column], scores[:, column] >= value) for value in np.arange(0, 1.05, 0.025))
        assert f1_score(labels[:, column], scores[:, column] >= thresholds[column]) == pytest.approx(best)
        assert thresholds[column] not in scores[:, column]  # between two scores, so that rounding decides nothing


def embedded(embeds, labels, offset=0):
    return Embedded(embeds, [f"tile_{offset + n}" for n in range(len(embeds))], labels)


def test_every_pair_of_sensors_is_tested_and_tiles_without_labels_are_left_out(train, test):
    unlabelled = test[1].copy()
    unlabelled[:10] = False
    sensors = {
        "fit": {s: embedded(*train) for s in ("s1", "s2")},
        "test": {"s1": embedded(test[0], unlabelled), "s2": embedded(-test[0], unlabelled)},
    }
    results = probe_all(*sensors.values(), k=5, penalties=(1e-2, 1.0))
    pairs = [(r.fit_sensor, r.test_sensor, r.classifier) for r in results]
    expected = [(a, b, c) for a in ("s1", "s2") for b in ("s1", "s2") for c in ("linear", "knn")]
    assert pairs == [*expected, ("", "s1", "always"), ("", "s2", "always")]
    assert {r.n_test for r in results} == {110}
    by_pair = dict(zip(pairs, results, strict=True))
    assert by_pair["s1", "s1", "linear"].macro_map > by_pair["s1", "s2", "linear"].macro_map + 0.2
    assert "s1 -> s2" in probes_table(results).text()
    assert CHOICE_NOTE in probes_table(results).text()
    assert probe_all(*sensors.values(), k=5, penalties=(1e-2, 1.0)) == results
    nothing = {"s1": embedded(test[0], np.zeros_like(test[1]))}
    with pytest.raises(ValueError, match="No s1 tile of the test tiles has labels"):
        probe_all(sensors["fit"], nothing)


@pytest.mark.parametrize(
    ("fit", "better"),
    [(draw(300, 0, width=8, noise=2.0), 1.0), (draw(60, 5, width=60, noise=4.0), 1e-3)],
    ids=["many tiles, weak penalty", "few tiles, strong penalty"],
)
def test_the_penalty_is_the_best_on_folds_of_the_training_tiles_not_on_those_tested(fit, better):
    penalties = (1e-3, 1.0) if better == 1.0 else (1e-3, 1e4)
    width = fit[0].shape[1]
    fresh = draw(400, 2, width=width, noise=2.0 if width == 8 else 4.0)
    quality = {
        penalty: average_precision_score(fresh[1], LinearProbe.fit(*fit, penalty).scores(fresh[0]))
        for penalty in penalties
    }
    assert max(quality, key=quality.get) == better
    assert max(quality.values()) > min(quality.values()) + 1e-3
    tested = {"s1": embedded(-fresh[0], fresh[1])}  # the worse, the better it is here
    linear, *_ = probe_all({"s1": embedded(*fit)}, tested, k=5, penalties=penalties)
    assert linear.penalty == better


def test_a_fold_is_judged_by_what_was_fitted_on_the_others(train):
    source = embedded(*train)
    found = cross_fit(source, [0.1], k=7)
    dealt = np.random.default_rng(0).permutation(300) % CHOICE_FOLDS
    held, others = dealt == 3, dealt != 3
    fitted = LinearProbe.fit(train[0][others], train[1][others], 0.1)
    np.testing.assert_allclose(found.linear[held], fitted.scores(train[0][held]))
    theirs = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(train[0][others], train[1][others])
    expected = np.stack([p[:, 1] for p in theirs.predict_proba(train[0][held])], axis=1)
    np.testing.assert_allclose(found.knn[held], expected, atol=1e-6)


def test_few_tiles_and_a_strong_penalty_still_decide_something():
    """The probe on 39 tiles printed a macro F1 of 0.0000: at 0.5 no class was ever said to be there."""
    fit, test = draw(23, 13, classes=8), draw(8, 9, classes=8)
    assert (LinearProbe.fit(*fit, 1e-4).scores(test[0]) >= 0.5).sum() == 0
    parts = [{"s1": embedded(*part)} for part in (fit, test)]
    for result in probe_all(*parts, k=5, penalties=(1e-4,)):
        assert result.macro_f1 > 0.3
        assert result.micro_f1 > 0.3


def test_classes_that_all_or_no_training_tiles_have_do_no_harm(train):
    labels = train[1].copy()
    labels[:, 0], labels[:, 1] = True, False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = LinearProbe.fit(train[0], labels, 1.0).scores(train[0])
    assert (scores[:, 0] == 1).all()
    assert (scores[:, 1] == 0).all()


def test_embeds_that_do_not_vary_do_no_harm(train):
    constant = np.concatenate([train[0], np.ones((300, 1), np.float32)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(LinearProbe.fit(constant, train[1], 1.0).scores(constant)).all()


def test_without_scikit_learn_it_says_how_to_install_it(train, monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="pip install 'scikit-learn>="):
        probe_all({}, {})
