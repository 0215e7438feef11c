"""Alignment of sensors: against scikit-learn and SciPy, and against gaps that are put in and must go."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.covariance import OAS

from csmae_hf.embedding.alignment import (
    METHODS,
    Alignment,
    oas_covariance,
    procrustes_rotation,
    whitening_matrix,
)

FITTED = METHODS[1:]


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def pairs():
    """Two sensors that see the same content, one turned and shifted."""
    rng = np.random.default_rng(0)
    content = rng.normal(size=(300, 12)) * np.linspace(2, 0.2, 12)
    turn, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    return {"s1": content + 0.05 * rng.normal(size=content.shape), "s2": content @ turn + 3.0}


def test_shrunk_covariance_equals_scikit_learns():
    rng = np.random.default_rng(1)
    for samples in (8, 200):
        values = rng.normal(size=(samples, 20)) * np.arange(1, 21)
        centered = values - values.mean(axis=0)
        np.testing.assert_allclose(oas_covariance(centered), OAS().fit(values).covariance_, rtol=1e-10)


def test_whitened_samples_have_unit_covariance():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(50_000, 6)) @ rng.normal(size=(6, 6))
    values -= values.mean(axis=0)
    np.testing.assert_allclose(np.cov((values @ whitening_matrix(values)).T), np.eye(6), atol=2e-3)


def test_whitening_leaves_out_directions_without_variance():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(size=(100_000, 3)), np.zeros((100_000, 1))], axis=1)
    assert np.abs(whitening_matrix(values - values.mean(axis=0))).max() < 500


def test_rotation_equals_scipys(pairs):
    ours = procrustes_rotation(pairs["s1"], pairs["s2"])
    theirs, _ = orthogonal_procrustes(pairs["s1"], pairs["s2"])
    np.testing.assert_allclose(ours, theirs, atol=1e-10)
    np.testing.assert_allclose(ours @ ours.T, np.eye(12), atol=1e-12)


@pytest.mark.parametrize("method", FITTED)
def test_every_method_closes_the_gap_of_the_means(pairs, method):
    alignment = Alignment.fit(pairs, method)
    gap = {
        name: np.linalg.norm(np.diff([unit(v).mean(axis=0) for v in values], axis=0))
        for name, values in {"before": pairs.values(), "after": [alignment.apply(pairs[s], s) for s in pairs]}.items()
    }
    assert gap["before"] > 0.5
    assert gap["after"] < 0.2 * gap["before"]


def test_procrustes_finds_the_pair_that_a_turned_sensor_hides(pairs):
    def found(alignment):
        similarity = alignment.apply(pairs["s1"], "s1") @ alignment.apply(pairs["s2"], "s2").T
        return (similarity.argmax(axis=1) == np.arange(300)).mean()

    assert found(Alignment.fit(pairs, "center")) < 0.1
    assert found(Alignment.fit(pairs, "procrustes")) > 0.8


def test_rotation_does_not_change_a_sensors_own_similarities(pairs):
    centered, turned = Alignment.fit(pairs, "center"), Alignment.fit(pairs, "procrustes")
    for sensor in pairs:
        first, second = centered.apply(pairs[sensor], sensor), turned.apply(pairs[sensor], sensor)
        np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-5)


def test_three_sensors_are_brought_to_the_first(pairs):
    three = {**pairs, "thermal": -pairs["s1"]}
    alignment = Alignment.fit(three, "procrustes")
    np.testing.assert_allclose(
        alignment.apply(three["thermal"], "thermal"), alignment.apply(three["s1"], "s1"), atol=1e-5
    )


def test_none_changes_nothing(pairs):
    alignment = Alignment.fit(pairs, "none")
    np.testing.assert_array_equal(alignment.apply(pairs["s1"], "s1"), pairs["s1"].astype(np.float32))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_loads_equal_to_the_bit(pairs, method, tmp_path):
    alignment = Alignment.fit(pairs, method)
    loaded = Alignment.load(alignment.save(tmp_path / "folder" / "alignment.safetensors"))
    assert (loaded.method, loaded.n_pairs) == (method, alignment.n_pairs)
    assert list(loaded.means) == list(alignment.means)
    assert loaded.to_bytes() == alignment.to_bytes()
    np.testing.assert_array_equal(loaded.apply(pairs["s2"], "s2"), alignment.apply(pairs["s2"], "s2"))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["alignment.safetensors"]


def test_a_damaged_file_is_refused(pairs, tmp_path):
    path = Alignment.fit(pairs, "center").save(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="damaged"):
        Alignment.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Alignment.load(tmp_path / "nowhere")


def test_what_cannot_be_fitted_or_mapped_is_refused_by_name(pairs):
    with pytest.raises(ValueError, match="Unknown alignment 'centre'"):
        Alignment.fit(pairs, "centre")
    with pytest.raises(ValueError, match=r"s1: \(300, 12\)"):
        Alignment.fit({"s1": pairs["s1"]}, "center")
    with pytest.raises(ValueError, match="s2"):
        Alignment.fit({"s1": pairs["s1"], "s2": pairs["s2"][:-1]}, "center")
    alignment = Alignment.fit(pairs, "center")
    with pytest.raises(ValueError, match="not for 's3'"):
        alignment.apply(pairs["s1"], "s3")
    with pytest.raises(ValueError, match="width 5"):
        alignment.apply(pairs["s1"][:, :5], "s1")
    with pytest.raises(ValueError, match="not finite"):
        Alignment.fit({**pairs, "s2": np.full((300, 12), np.nan)}, "center")
