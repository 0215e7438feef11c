"""Choosing an alignment: the one that retrieves best on validation tiles, and by how much."""

import numpy as np
import pytest

from csmae_hf.embedding.alignment import METHODS, Alignment
from csmae_hf.evaluation.alignment_choice import (
    alignment_as_dict,
    apply_alignment,
    choose_alignment,
    difference,
    format_alignments,
    parse_methods,
    relative_gap,
)
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval


def embed(tiles, seed, turn, shift):
    """Two sensors of the same tiles, one turned and shifted away from the other."""
    rng = np.random.default_rng(seed)
    labels = rng.random((tiles, 6)) < 0.3
    labels[np.arange(tiles), rng.integers(0, 6, tiles)] = True
    content = labels @ np.random.default_rng(42).normal(size=(6, 10)) + 0.2 * rng.normal(size=(tiles, 10))
    splits = ["validation" if n % 2 else "test" for n in range(tiles)]
    ids = [f"tile_{seed}_{n}" for n in range(tiles)]
    return {
        "s1": Embedded(content.astype(np.float32), ids, labels, splits),
        "s2": Embedded((content @ turn + shift).astype(np.float32), ids, labels, splits),
    }


TURN, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(10, 10)))


def choose(turn, shift, methods=METHODS):
    train = {sensor: one.embeds for sensor, one in embed(200, 0, turn, shift).items()}
    tiles = embed(120, 1, turn, shift)
    validation = {sensor: one.take(range(1, 120, 2)) for sensor, one in tiles.items()}
    return choose_alignment(train, validation, methods, k=5), tiles


def evaluate_all(choice, tiles):
    return {m: evaluate_retrieval(apply_alignment(a, tiles), k=5, progress=False) for m, a in choice.alignments.items()}


def test_a_turned_sensor_is_turned_back():
    choice, tiles = choose(TURN, 0.0)
    assert choice.method == "procrustes"
    assert choice.validation["procrustes"] > choice.validation["none"] + 0.05
    by_method = evaluate_all(choice, tiles)
    before, after = by_method["none"][1], by_method["procrustes"][1]
    gain = difference(before, after, resamples=200, seed=0)["f1_of_means"]
    assert 0 < gain.lower < after.scores["f1_of_means"] - before.scores["f1_of_means"] < gain.upper
    recorded = alignment_as_dict(choice, by_method, resamples=200, seed=0)
    assert recorded["gain_over_none"]["s1 -> s2"]["interval"] == gain
    table = format_alignments(choice, by_method)
    assert "procrustes *" in table
    assert f"{choice.validation['procrustes'] - choice.validation['none']:+.4f} over none" in table


def test_of_equals_the_simplest_wins():
    tiles = embed(80, 3, np.eye(10), 0.0)
    mirrored = np.concatenate([tiles["s1"].embeds, -tiles["s1"].embeds])  # their mean is 0: centring changes nothing
    choice = choose_alignment({"s1": mirrored, "s2": mirrored}, tiles, ("none", "center"), k=5)
    assert choice.validation["none"] == pytest.approx(choice.validation["center"])
    assert choice.method == "none"


def test_a_shifted_sensor_has_a_gap_that_centring_closes():
    choice, _ = choose(np.eye(10), 5.0)
    assert choice.gaps["center"] < 0.2 * choice.gaps["none"]


def test_the_relative_gap_is_in_units_of_the_scatter():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(500, 4)) + 3, rng.normal(size=(500, 4)) - 3
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (first, second)]
    scatter = np.sqrt(np.mean([((v - v.mean(axis=0)) ** 2).sum(axis=1).mean() for v in unit]))
    gap = np.linalg.norm(unit[0].mean(axis=0) - unit[1].mean(axis=0))
    assert relative_gap(first, second) == pytest.approx(gap / scatter, rel=1e-5)


def test_methods_are_read_from_a_list():
    assert parse_methods("auto") == METHODS
    assert parse_methods("center, none,center") == ("center", "none")
    with pytest.raises(ValueError, match="'pca'"):
        parse_methods("none,pca")


def test_none_leaves_every_embed():
    tiles = embed(10, 1, TURN, 1.0)
    np.testing.assert_array_equal(apply_alignment(Alignment.none(), tiles)["s2"].embeds, tiles["s2"].embeds)


def test_the_choice_is_by_directions_across_sensors_alone():
    """Whitening helps within the sensors more than it harms across them: by the mean of all directions it would win."""
    rng = np.random.default_rng(1)
    labels = rng.random((160, 6)) < 0.3
    labels[np.arange(160), rng.integers(0, 6, 160)] = True
    content = labels @ np.random.default_rng(42).normal(size=(6, 6))
    # Beside the content of each sensor lies loud noise of its own, which whitening turns down.
    embeds = {
        sensor: np.concatenate(
            [0.8 * content + 0.1 * rng.normal(size=content.shape), 6 * rng.normal(size=(160, 4))], axis=1
        )
        for sensor in ("s1", "s2")
    }
    embeds["s2"][:, :6] = embeds["s2"][:, :6] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    ids = [f"tile_{n}" for n in range(160)]
    tiles = {sensor: Embedded(values.astype(np.float32), ids, labels) for sensor, values in embeds.items()}
    train = {sensor: one.embeds[:80] for sensor, one in tiles.items()}
    validation = {sensor: one.take(range(80, 160)) for sensor, one in tiles.items()}
    choice = choose_alignment(train, validation, METHODS, k=5)
    across, everywhere = {}, {}
    for method, alignment in choice.alignments.items():
        results = evaluate_retrieval(
            apply_alignment(alignment, validation), k=5, query_split=None, archive_split=None, progress=False
        )
        scores = {result.name: result.scores["f1_of_means"] for result in results}
        across[method] = (scores["s1 -> s2"] + scores["s2 -> s1"]) / 2
        everywhere[method] = sum(scores.values()) / 4
    assert choice.validation == pytest.approx(across)
    assert max(everywhere, key=everywhere.get) != max(across, key=across.get)  # else this shows nothing
    assert choice.method == max(across, key=across.get)
