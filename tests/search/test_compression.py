"""What is measured of codes, against a plain computation; and what is chosen by it."""

import numpy as np
import pyarrow as pa
import pytest
from search.clouds import make_tiles, make_vectors

from csmae_hf.search import compression
from csmae_hf.search.compression import chosen_options, describe_codes, measure_codes
from csmae_hf.search.vectors import Vectors

ROWS = 300


@pytest.fixture(scope="module")
def parts():
    return {sensor: Vectors([make_vectors(ROWS, sensor)]) for sensor in ("s1", "s2")}, make_tiles(ROWS)


@pytest.fixture(scope="module")
def measured(parts):
    return measure_codes(*parts)


def plain_f1(vectors, tiles, query, archive):
    """F1 of means at 10 of the second half of the labelled tiles, shuffled, by sets and sorting alone."""
    labels = [set(names or ()) for names in tiles["labels"].to_pylist()]
    asked = np.random.default_rng(0).permutation([row for row, names in enumerate(labels) if names])
    half = len(asked) // 2
    precision, recall = [], []
    for row in asked[half : 2 * half]:
        scores = vectors[archive][:].double().numpy() @ vectors[query][:].double().numpy()[row]
        scores[row] = -np.inf
        for other in np.argsort(-scores)[:10]:
            shared = len(labels[row] & labels[other])
            precision.append(shared / max(len(labels[other]), 1))
            recall.append(shared / len(labels[row]))
    return half, 2 * np.mean(precision) * np.mean(recall) / (np.mean(precision) + np.mean(recall))


def test_every_kind_is_measured_in_all_four_directions_by_tiles_it_was_not_chosen_by(parts, measured):
    assert [row.kind for row in measured] == [kind for kind in ("float32", "float16", "int8", "bits") for _ in range(4)]
    assert {(row.query_sensor, row.archive_sensor) for row in measured} == {(a, b) for a in parts[0] for b in parts[0]}
    assert [row.bytes for row in measured[::4]] == [256, 132, 68, 12]
    for row in measured[:4]:
        half, f1 = plain_f1(*parts, row.query_sensor, row.archive_sensor)
        assert (row.queries, row.recall, row.proven) == (half, 1, 1)
        assert row.f1 == pytest.approx(f1, abs=1e-6)
    for row in measured[4:]:
        whole = next(
            one for one in measured if (one.query_sensor, one.archive_sensor) == (row.query_sensor, row.archive_sensor)
        )
        assert row.recall >= 0.95
        assert row.f1 == pytest.approx(whole.f1, abs=0.02 * (1 - row.recall) + 0.02)
        assert row.seconds > 0
    assert {row.proven for row in measured if row.kind == "bits"} == {0}
    assert {row.proven for row in measured if row.kind == "float16"} == {1}


def test_the_smallest_that_loses_little_is_chosen(parts, measured, monkeypatch):
    chosen = {row.kind for row in measured if row.chosen}
    assert len(chosen) == 1
    assert chosen_options(measured)["kind"] in chosen
    assert chosen_options(measured)["candidates"] >= max(row.candidates for row in measured if row.chosen)
    text = "\n".join(describe_codes(measured))
    assert f"best kind  {chosen.pop()}, recall" in text
    assert "% of F1 lost" in text
    monkeypatch.setattr(compression, "MOST_LOST", -1)
    nothing = measure_codes(*parts)
    assert chosen_options(nothing) is None
    assert "best kind  none: search exactly" in describe_codes(nothing)[-1]


def test_tiles_without_labels_are_judged_by_recall_alone_and_too_few_by_nothing(parts):
    vectors, tiles = parts
    for plain in (tiles.drop_columns("labels"), tiles.set_column(6, "labels", pa.array([3] * ROWS))):
        measured = measure_codes(vectors, plain)
        assert {row.f1 for row in measured} == {None}
        assert chosen_options(measured)["kind"] == "bits"
        assert "the tiles have no labels, so by recall alone" in describe_codes(measured)[-1]
    few = {sensor: Vectors([side[:3]]) for sensor, side in vectors.items()}
    with pytest.raises(ValueError, match="by queries of 4 tiles or more, and 3 can be asked by"):
        measure_codes(few, tiles.slice(0, 3).drop_columns("labels"))
