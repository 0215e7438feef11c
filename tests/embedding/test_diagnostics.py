"""Embedding diagnostics against cases worked by hand and against independent computations."""

import math

import numpy as np
import pytest

from csmae_hf.embedding.diagnostics import (
    alignment,
    collapse_warnings,
    diagnose,
    effective_rank,
    sensor_gap,
    spread,
    uniformity,
)


def draw(count: int = 40, width: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def unit(embeds: np.ndarray) -> np.ndarray:
    return embeds / np.linalg.norm(embeds, axis=1, keepdims=True)


def test_effective_rank_counts_equally_used_directions():
    """Plus and minus the first d axes: mean zero, d equal singular values, so exactly d."""
    for directions in (1, 3, 5):
        axes = np.eye(5, dtype=np.float32)[:directions]
        assert effective_rank(np.concatenate([axes, -axes])) == pytest.approx(directions, rel=1e-6)


def test_effective_rank_is_the_entropy_of_the_covariances_spectrum():
    embeds = draw()
    eigenvalues = np.linalg.eigvalsh(np.cov(unit(embeds).T.astype(np.float64)))
    shares = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
    assert effective_rank(embeds) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-5)


def test_effective_rank_does_not_see_a_common_offset():
    """A large mean, as masked autoencoders have it, must not hide the other directions."""
    axes = 0.01 * np.eye(6, dtype=np.float32)[:4]
    offset = np.eye(6, dtype=np.float32)[5]
    assert effective_rank(np.concatenate([offset + axes, offset - axes])) == pytest.approx(4, rel=1e-3)


def test_alignment_of_right_angles_is_two_and_of_opposites_four():
    axes = np.eye(4, dtype=np.float32)
    assert alignment(axes, np.roll(axes, 1, axis=0)) == pytest.approx(2)
    assert alignment(axes, -axes) == pytest.approx(4)
    assert alignment(axes, 7 * axes) == 0, "length does not count"


def test_uniformity_is_the_log_of_the_mean_potential():
    embeds = draw()
    distances = [((a - b) ** 2).sum() for i, a in enumerate(unit(embeds)) for j, b in enumerate(unit(embeds)) if j > i]
    assert uniformity(embeds) == pytest.approx(math.log(np.mean([math.exp(-2 * d) for d in distances])), rel=1e-5)
    assert uniformity(np.stack([np.ones(3), np.array([1.0, 1.0, -2.0])])) == pytest.approx(-4)


def test_spread_is_one_less_the_mean_cosine():
    embeds = draw()
    assert spread(embeds) == pytest.approx(1 - (unit(embeds) @ unit(embeds).T).mean(), rel=1e-5)


def test_gap_is_the_distance_of_the_means():
    """Two points each, mirrored: means (0.6, 0) and (-0.6, 0) of unit vectors."""
    right = np.array([[0.6, 0.8], [0.6, -0.8]])
    assert sensor_gap(right, -right) == pytest.approx(1.2)
    assert sensor_gap(right, right) == 0


def test_diagnose_names_each_sensor_and_pair():
    values = diagnose({"s1": draw(seed=1), "s2": draw(seed=2), "thermal": draw(seed=3)})
    assert {name for name in values if name.startswith("effective_rank")} == {
        f"effective_rank_{sensor}" for sensor in ("s1", "s2", "thermal")
    }
    assert {name for name in values if name.startswith(("gap", "alignment"))} == {
        f"{kind}_{pair}" for kind in ("gap", "alignment") for pair in ("s1_s2", "s1_thermal", "s2_thermal")
    }
    assert collapse_warnings(values) == []


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_complete_collapse_is_reported_for_the_sensor_it_befell(noise):
    constant = np.ones((40, 6), dtype=np.float32) + noise * draw(seed=4)
    warnings = collapse_warnings(diagnose({"s1": constant, "s2": draw()}))
    assert len(warnings) == 1
    assert "s1" in warnings[0]
    assert "cosine similarity" in warnings[0]


def test_collapse_to_a_line_is_reported():
    line = np.linspace(-1, 1, 40)[:, None] * np.eye(6)[0] + np.eye(6)[1]
    (warning,) = collapse_warnings(diagnose({"s2": line}))
    assert "s2" in warning
    assert "effective rank" in warning


def test_embeds_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        effective_rank(np.ones((1, 3)))
    with pytest.raises(ValueError, match="same places"):
        alignment(draw(8), draw(9))
    with pytest.raises(ValueError, match="zero"):
        uniformity(np.zeros((3, 3)))
