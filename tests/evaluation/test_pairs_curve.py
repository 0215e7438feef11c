"""Scores against the number of pairs that an alignment is fitted on."""

from functools import partial

import numpy as np
import pytest

from csmae_hf.embedding.alignment import Alignment
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.pairs_curve import pairs_curve, parse_counts

WIDTH, CLASSES = 8, 4
MEASURE = partial(evaluate_retrieval, k=3, query_split=None, archive_split=None, draws=2, progress=False)


def embedded(count: int, seed: int) -> dict[str, Embedded]:
    """Tiles of classes that both sensors know well, the second turned and moved."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(9)
    centres = shapes.normal(size=(CLASSES, WIDTH))
    turned, _ = np.linalg.qr(shapes.normal(size=(WIDTH, WIDTH)))
    classes = rng.integers(CLASSES, size=count)
    tiles = centres[classes] + 0.2 * rng.normal(size=(count, WIDTH))
    labels = np.eye(CLASSES, dtype=bool)[classes]
    ids = [f"{seed}-{number}" for number in range(count)]
    sides = {"s1": tiles, "s2": (tiles + 0.05 * rng.normal(size=tiles.shape)) @ turned + 2 * shapes.normal(size=WIDTH)}
    return {sensor: Embedded(values.astype(np.float32), ids, labels) for sensor, values in sides.items()}


def test_more_pairs_bring_the_sensors_together_by_what_the_same_fit_gives() -> None:
    embeds, train = embedded(60, 0), embedded(200, 1)
    table = pairs_curve({"mine": (embeds, train)}, ["none", "procrustes"], [4, 150], MEASURE)
    none, few, many, chance = table.records
    assert [(one["alignment"], one["pairs"]) for one in table.records[:3]] == [
        ("none", 0),
        ("procrustes", 4),
        ("procrustes", 150),
    ]
    assert none["gap_after"] == none["gap_before"] == many["gap_before"]
    assert many["gap_after"] < 0.3 < none["gap_before"]
    assert many["s1 -> s2"] >= few["s1 -> s2"] > none["s1 -> s2"] + 0.3
    rows = np.arange(150) * 200 // 150  # evenly spread
    alignment = Alignment.fit({sensor: one.embeds[rows] for sensor, one in train.items()}, "procrustes")
    moved = {
        sensor: Embedded(alignment.apply(one.embeds, sensor), one.ids, one.labels) for sensor, one in embeds.items()
    }
    (expected,) = MEASURE(moved, directions=[("s2", "s1")])
    assert many["s2 -> s1"] == expected.scores["f1_of_means"]
    assert chance == {
        "model": "random order",
        **{
            one.name: one.random.mean["f1_of_means"] for one in MEASURE(embeds, directions=[("s1", "s2"), ("s2", "s1")])
        },
    }
    assert "gap before" in table.text()


def test_what_cannot_be_fitted_is_said() -> None:
    embeds, train = embedded(20, 0), embedded(10, 1)
    with pytest.raises(ValueError, match="asks for 16 pairs, and there are 10"):
        pairs_curve({"mine": (embeds, train)}, ["center"], [16], MEASURE)
    with pytest.raises(ValueError, match=r"there are 0 training pairs \(all are queries\)"):
        pairs_curve({"mine": (embeds, {})}, ["center"], [16], MEASURE, "all are queries.")
    with pytest.raises(ValueError, match="name others"):
        pairs_curve({"mine": (embeds, train)}, ["none"], [4], MEASURE)
    with pytest.raises(ValueError, match="mine was measured on s1"):
        pairs_curve({"mine": ({"s1": embeds["s1"]}, train)}, ["center"], [4], MEASURE)


def test_numbers_of_pairs_are_read_in_order_each_once() -> None:
    assert parse_counts("64, 16,16") == [16, 64]
    for text in ("", "a", "1,2", "16;32", "-4"):
        with pytest.raises(ValueError, match="--pairs_curve 16,64,256"):
            parse_counts(text)
