"""Baselines: statistics of bands as NumPy has them, and orders that no encoder is needed for."""

from functools import partial

import numpy as np
import pytest
import torch

from csmae_hf.evaluation.baselines import BandStatistics, measure_band_statistics, measure_labels_known, ridge
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval

MEASURE = partial(evaluate_retrieval, k=3, query_split=None, archive_split=None, progress=False)


def test_statistics_are_mean_and_deviation_of_each_band():
    pixels = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    embeds = BandStatistics({"s1": ["a", "b", "c"]})(s1=pixels).embeds["s1"].numpy()
    values = pixels.numpy()
    np.testing.assert_allclose(embeds[:, :3], values.mean(axis=(2, 3)), atol=1e-6)
    np.testing.assert_allclose(embeds[:, 3:], values.std(axis=(2, 3)), atol=1e-6)


def embedded(seed, tiles=60):
    rng = np.random.default_rng(seed)
    labels = rng.random((tiles, 5)) < 0.4
    labels[np.arange(tiles), rng.integers(0, 5, tiles)] = True
    fixed = np.random.default_rng(42)
    content = labels @ fixed.normal(size=(5, 4)) + 0.1 * rng.normal(size=(tiles, 4))
    other = content @ fixed.normal(size=(4, 10)) + 3
    ids = [f"tile_{seed}_{n}" for n in range(tiles)]
    return {
        "s1": Embedded(content.astype(np.float32), ids, labels),
        "s2": Embedded(other.astype(np.float32), ids, labels),
    }


def test_sensors_of_other_widths_are_compared_by_what_least_squares_predicts():
    train, tiles = embedded(0, 200), embedded(1)
    results = {one.name: one for one in measure_band_statistics(tiles, train, MEASURE)}
    assert set(results) == {"s1 -> s1", "s1 -> s2", "s2 -> s1", "s2 -> s2"}
    assert results["s1 -> s2"].scores["f1_of_means"] > results["s1 -> s2"].random.mean["f1_of_means"] + 0.2
    assert results["s1 -> s2"].colocated_recall_at_1 > 0.8  # the map between the sensors is linear here
    alone = measure_band_statistics(tiles, {}, MEASURE)
    assert [one.name for one in alone] == ["s1 -> s1", "s2 -> s2"]


def test_least_squares_are_numpys():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(500, 4)), rng.normal(size=(500, 3))
    expected, *_ = np.linalg.lstsq(source, target, rcond=None)
    np.testing.assert_allclose(ridge(source, target), expected, atol=1e-3)


def test_known_labels_find_tiles_of_the_same_labels():
    tiles = embedded(2, 300)
    labels = tiles["s1"].labels
    results = measure_labels_known(tiles, MEASURE)
    assert len({one.scores["f1_of_means"] for one in results}) == 1  # labels have no sensor
    for place, row in enumerate(results[1].query_rows):
        same = (labels == labels[row]).all(axis=1).sum() - 1
        found = labels[results[1].ranking[place]]
        assert (found == labels[row]).all(axis=1).sum() == min(same, 3)
    assert results[0].scores["f1_of_means"] == pytest.approx(results[1].scores["f1_of_means"])
