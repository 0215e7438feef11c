"""Embedding a dataset, and the four directions of retrieval measured on it, against plain loops."""

import csv
import json
import os
import pickle
import re
import subprocess
import sys
from types import SimpleNamespace

import datasets
import evaluate
import numpy as np
import pytest
import torch

from csmae_hf import CSMAEConfig, CSMAEImageProcessor, CSMAEModel
from csmae_hf.bigearthnet import BAND_SIZE
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.evaluation import EVALUATE_MODULE
from csmae_hf.evaluation.alignment_choice import AlignmentChoice
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.html_report import Evaluation, write_report
from csmae_hf.evaluation.results import results_as_dict, write_results
from csmae_hf.evaluation.tables import format_table, scores_table
from csmae_hf.metrics.labels import multi_hot
from csmae_hf.metrics.random_baseline import expected_baseline
from csmae_hf.metrics.ranking import METRICS, Metric

BANDS = {"s1": ["VH", "VV"], "s2": ["B02", "B03"]}
FOUR = ("precision", "recall", "f1_of_means", "mean_pair_f1")
CLASSES = [f"class {number}" for number in range(6)]


class StubModel(torch.nn.Module):
    """Embeds are band means times a weight; remembers how it was called."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(sensors=BANDS)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.frozen = torch.nn.Dropout(0.5)
        self.calls = []

    def forward(self, **inputs):
        (sensor, pixels), *_ = inputs.items()
        self.calls.append((sensor, len(pixels), self.training, torch.is_inference_mode_enabled()))
        return SimpleNamespace(embeds={sensor: self.frozen(pixels.mean(dim=(2, 3)) * self.weight)})


class StubProcessor:
    """Stacks the bands; refuses negative values as the real one refuses wrong units."""

    def __call__(self, return_tensors, **sensors):
        (sensor, tiles), *_ = sensors.items()
        stacked = np.stack([[np.asarray(tile[band]) for band in BANDS[sensor]] for tile in tiles])
        if (stacked < 0).any():
            raise ValueError("negative values")
        return {sensor: torch.from_numpy(stacked).float()}


def pixels(rng):
    return {sensor: {band: rng.random((4, 4)).astype(np.float32) for band in bands} for sensor, bands in BANDS.items()}


def make_dataset(tiles, *, splits=None, labels=None, seed=0):
    rng = np.random.default_rng(seed)
    rows = [pixels(rng) for _ in range(tiles)]
    if labels is None:
        labels = [
            sorted(rng.choice(len(CLASSES), size=rng.integers(1, 4), replace=False).tolist()) for _ in range(tiles)
        ]
    band = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
    features = {
        "id": datasets.Value("string"),
        "labels": datasets.Sequence(datasets.ClassLabel(names=CLASSES)),
        "split": datasets.Value("string"),
        **{sensor: dict.fromkeys(bands, band) for sensor, bands in BANDS.items()},
    }
    columns = {
        "id": [f"tile_{number}" for number in range(tiles)],
        "labels": labels,
        "split": splits or [None] * tiles,
        **{sensor: [row[sensor] for row in rows] for sensor in BANDS},
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def band_means(dataset, sensor):
    return np.array([[np.mean(row[sensor][band]) for band in BANDS[sensor]] for row in dataset])


# Embedding


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_embeds_come_in_the_order_of_the_dataset(batch_size, num_workers):
    dataset = make_dataset(9)
    embeds = embed_dataset(
        StubModel(), StubProcessor(), dataset, "s2", batch_size=batch_size, num_workers=num_workers, progress=False
    )
    assert embeds.dtype == np.float32
    np.testing.assert_allclose(embeds, band_means(dataset, "s2"), rtol=1e-5)


def test_the_model_is_evaluated_without_gradients_and_left_as_it_was():
    model = StubModel().train()
    model.frozen.eval()
    embed_dataset(model, StubProcessor(), make_dataset(5), "s1", batch_size=2, progress=False)
    assert model.calls == [("s1", 2, False, True), ("s1", 2, False, True), ("s1", 1, False, True)]
    assert model.training
    assert not model.frozen.training


def test_the_model_is_left_as_it_was_after_an_error():
    model = StubModel().train()
    model.forward = lambda **inputs: (_ for _ in ()).throw(RuntimeError("no memory"))
    with pytest.raises(RuntimeError, match="no memory"):
        embed_dataset(model, StubProcessor(), make_dataset(2), "s1", progress=False)
    assert model.training


def test_only_the_pixels_of_the_sensor_are_read():
    class Watched(datasets.Dataset):
        def select_columns(self, columns, *arguments, **options):
            selected.append(sorted(columns))
            return super().select_columns(columns, *arguments, **options)

    selected = []
    dataset = make_dataset(3)
    dataset.__class__ = Watched
    embed_dataset(StubModel(), StubProcessor(), dataset, "s1", progress=False)
    assert selected == [["id", "s1"]]


def test_a_model_without_the_sensor_is_refused_by_name():
    with pytest.raises(ValueError, match="no sensor 's3'; it has 's1', 's2'"):
        embed_dataset(StubModel(), StubProcessor(), make_dataset(2), "s3")


def test_a_dataset_without_the_pixel_column_is_refused_by_name():
    with pytest.raises(ValueError, match="no pixel column 's1'; its columns are id, labels, split, s2"):
        embed_dataset(StubModel(), StubProcessor(), make_dataset(2).remove_columns("s1"), "s1")


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="no tiles"):
        embed_dataset(StubModel(), StubProcessor(), make_dataset(2).select([]), "s1")


def test_a_tile_that_the_processor_refuses_is_named():
    dataset = make_dataset(6)
    dataset = dataset.map(
        lambda row, place: {"s1": {**row["s1"], "VV": [[-1.0] * 4] * 4}} if place == 3 else row, with_indices=True
    )
    with pytest.raises(ValueError, match="tile tile_3: negative values"):
        embed_dataset(StubModel(), StubProcessor(), dataset, "s1", batch_size=4, progress=False)


def test_an_error_of_a_class_of_its_own_keeps_its_class():
    class CorruptError(ValueError):
        pass

    def processor(**_):
        raise CorruptError("tile_0: broken value")

    with pytest.raises(CorruptError, match=r"^tile_0: broken value$"):
        TileCollator(processor, ["s1"])([{"id": "tile_0", "s1": {}}])


def test_a_tile_without_an_image_of_the_sensor_is_named():
    rows = [{"id": "here", "s1": pixels(np.random.default_rng(0))["s1"]}, {"id": "not_here", "s1": None}]
    with pytest.raises(ValueError, match=r"1 of the 2 tiles of a batch have no s1 image, tile not_here for one"):
        TileCollator(StubProcessor(), ["s1"])(rows)


def test_the_collator_travels_to_worker_processes():
    collator = pickle.loads(pickle.dumps(TileCollator(CSMAEImageProcessor(), ["s1"])))
    assert collator.sensors == ["s1"]


def test_a_short_job_shows_no_bar(capsys):
    embed_dataset(StubModel(), StubProcessor(), make_dataset(3), "s1")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def tiny_csmae():
    torch.manual_seed(0)
    return CSMAEModel(
        CSMAEConfig(
            hidden_size=32,
            num_attention_heads=4,
            multi_sensor_encoder_depth=1,
            cross_sensor_encoder_depth=1,
            decoder_hidden_size=32,
            decoder_num_attention_heads=4,
            decoder_num_hidden_layers=1,
        )
    )


def test_a_tiny_csmae_embeds_each_tile_as_if_it_were_alone():
    model, processor = tiny_csmae().train(), CSMAEImageProcessor()
    rng = np.random.default_rng(0)
    tiles = [
        {band: (rng.random((BAND_SIZE[band],) * 2) * 3000).astype(np.uint16) for band in model.config.sensors["s2"]}
        for _ in range(3)
    ]
    dataset = datasets.Dataset.from_dict({"s2": [0, 1, 2]}).with_transform(
        lambda batch: {"s2": [tiles[number] for number in batch["s2"]]}
    )
    embeds = embed_dataset(model, processor, dataset, "s2", batch_size=2, progress=False)
    assert model.training
    model.eval()
    for tile, embed in zip(tiles, embeds, strict=True):
        with torch.no_grad():
            alone = model(s2=processor(s2=[tile], return_tensors="pt")["s2"]).embeds["s2"]
        np.testing.assert_allclose(embed, alone[0].numpy(), atol=1e-5)
    assert np.abs(embeds[0] - embeds[1]).max() > 1e-3


# Labels


def test_multi_hot_sets_exactly_the_given_classes():
    expected = [[True, False, True], [False] * 3, [False] * 3, [False, True, False]]
    assert multi_hot([[2, 0], None, [], [1]], 3).tolist() == expected


@pytest.mark.parametrize("number", [-1, 3])
def test_a_class_number_outside_the_classes_is_refused_with_its_row(number):
    with pytest.raises(ValueError, match=rf"Row 1 has class number {number}; expected 0 to 2"):
        multi_hot([[0], [1, number]], 3)


def test_embedded_takes_ids_labels_and_splits_from_the_dataset():
    dataset = make_dataset(3, splits=["train", None, "test"], labels=[[1, 3], None, [0]])
    embedded = Embedded.from_dataset(np.ones((3, 2), np.float32), dataset)
    assert list(embedded.ids) == ["tile_0", "tile_1", "tile_2"]
    assert [np.flatnonzero(row).tolist() for row in embedded.labels] == [[1, 3], [], [0]]
    assert list(embedded.splits) == ["train", None, "test"]
    assert Embedded.from_dataset(embedded.embeds, dataset.remove_columns("split")).splits is None


def test_a_dataset_without_labels_is_refused_by_name():
    with pytest.raises(ValueError, match="no column labels"):
        Embedded.from_dataset(np.ones((3, 2), np.float32), make_dataset(3).remove_columns("labels"))
    numbers = make_dataset(3).cast_column("labels", datasets.Sequence(datasets.Value("int64")))
    with pytest.raises(ValueError, match="expected a sequence of ClassLabel"):
        Embedded.from_dataset(np.ones((3, 2), np.float32), numbers)


def test_duplicate_ids_and_uneven_columns_are_refused():
    labels = np.eye(3, dtype=bool)
    with pytest.raises(ValueError, match=r"1 tile ids occur more than once \(first: a\)"):
        Embedded(np.ones((3, 2), np.float32), ["a", "b", "a"], labels)
    with pytest.raises(ValueError, match="3 embeds, 2 ids, 3 labels"):
        Embedded(np.ones((3, 2), np.float32), ["a", "b"], labels)


# The evaluation


def embedded_sensors(tiles=40, classes=6, *, splits=True, unlabelled=(), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random((tiles, classes)) < 0.3
    labels[np.arange(tiles), rng.integers(0, classes, tiles)] = True
    labels[list(unlabelled)] = False
    ids = [f"tile_{number}" for number in range(tiles)]
    names = [("train", "validation", "test")[number % 3] for number in range(tiles)] if splits else None
    return {
        sensor: Embedded(rng.normal(size=(tiles, 8)).astype(np.float32), ids, labels, names) for sensor in ("s1", "s2")
    }


def measured_by_loops(query, archive, query_rows, archive_rows, k):
    """The protocol one query at a time: rank, leave out the own tile, count."""
    archive_unit = archive.embeds / np.linalg.norm(archive.embeds, axis=1, keepdims=True)
    p, r, f1, ranked = [], [], [], []
    for row in query_rows:
        others = [other for other in archive_rows if archive.ids[other] != query.ids[row]]
        order = sorted(others, key=lambda other: -float(query.embeds[row] @ archive_unit[other]))[:k]
        ranked.append(order)
        for other in order:
            shared = (query.labels[row] & archive.labels[other]).sum()
            p.append(shared / archive.labels[other].sum())
            r.append(shared / query.labels[row].sum())
            f1.append(2 * shared / (archive.labels[other].sum() + query.labels[row].sum()))
    p, r = np.mean(p), np.mean(r)
    return (p, r, 2 * p * r / (p + r), np.mean(f1)), ranked


@pytest.mark.parametrize("splits", [("validation", "test"), (None, None), (None, "test")])
def test_every_direction_equals_the_protocol_by_loops(splits):
    embeds = embedded_sensors(unlabelled=(1, 2))
    results = evaluate_retrieval(embeds, k=4, query_split=splits[0], archive_split=splits[1], progress=False)
    assert [(result.query_sensor, result.archive_sensor) for result in results] == [
        ("s1", "s1"),
        ("s1", "s2"),
        ("s2", "s1"),
        ("s2", "s2"),
    ]
    rows = [
        [row for row in range(40) if row not in (1, 2) and split in (None, embeds["s1"].splits[row])]
        for split in splits
    ]
    for result in results:
        query, archive = embeds[result.query_sensor], embeds[result.archive_sensor]
        expected, ranked = measured_by_loops(query, archive, *rows, k=4)
        assert [result.scores[name] for name in FOUR] == pytest.approx(expected)
        assert result.query_rows.tolist() == rows[0]
        assert result.ranking.tolist() == ranked
        assert (result.n_queries, result.n_archive) == (len(rows[0]), len(rows[1]))


def test_split_protocol_excludes_nothing_and_counts_the_unlabelled():
    results = evaluate_retrieval(embedded_sensors(unlabelled=(1, 2, 4, 6)), k=4, progress=False)
    for result in results:
        assert not result.exclude_self
        assert (result.unlabelled_queries, result.unlabelled_archive) == (2, 1)
        assert (result.n_queries, result.n_archive) == (11, 12)


def test_a_query_never_finds_its_own_tile_of_any_sensor():
    embeds = embedded_sensors(splits=False)
    embeds["s2"] = Embedded(
        embeds["s1"].embeds, embeds["s1"].ids, embeds["s1"].labels
    )  # the own tile would always be first
    for result in evaluate_retrieval(embeds, k=39, query_split=None, archive_split=None, progress=False):
        assert result.exclude_self
        assert result.self_excluded == 40
        assert not (result.ranking == result.query_rows[:, None]).any()


def test_sensors_with_different_tiles_are_joined_by_id():
    embeds = embedded_sensors(splits=False)
    keep = np.array([30, 3, 11, 25, 7])
    other = embeds["s2"]
    embeds["s2"] = Embedded(other.embeds[keep], [other.ids[row] for row in keep], other.labels[keep])
    results = {
        (r.query_sensor, r.archive_sensor): r
        for r in evaluate_retrieval(embeds, k=2, query_split=None, archive_split=None)
    }
    assert results["s1", "s2"].self_excluded == 5
    assert (results["s1", "s2"].n_queries, results["s1", "s2"].n_archive) == (40, 5)
    expected, _ = measured_by_loops(embeds["s1"], embeds["s2"], range(40), range(5), k=2)
    assert [results["s1", "s2"].scores[name] for name in FOUR] == pytest.approx(expected)
    for row, found in zip(results["s2", "s1"].query_rows, results["s2", "s1"].ranking, strict=True):
        assert keep[row] not in found


def test_the_baseline_is_that_of_the_same_labels_and_same_exclusion():
    embeds = embedded_sensors(splits=False)
    results = evaluate_retrieval(embeds, k=4, query_split=None, archive_split=None, draws=50, progress=False)
    labels = embeds["s1"].labels
    for result in results:
        assert result.random.expected == expected_baseline(labels, labels, exclude=np.arange(40))
        assert result.random == results[0].random
        random = result.random
        assert random.mean["precision"] == pytest.approx(random.expected["precision"], abs=random.std["precision"])


def test_random_embeds_score_like_a_random_order_and_good_ones_do_not():
    embeds = embedded_sensors(300, splits=False)
    random = evaluate_retrieval(embeds, query_split=None, archive_split=None, progress=False)
    knowing = {sensor: Embedded(one.labels.astype(np.float32), one.ids, one.labels) for sensor, one in embeds.items()}
    good = evaluate_retrieval(knowing, query_split=None, archive_split=None, progress=False)

    def above_chance(result):
        name = "f1_of_means"
        return (result.scores[name] - result.random.mean[name]) / result.random.std[name]

    assert max(abs(above_chance(result)) for result in random) < 6
    assert min(above_chance(result) for result in good) > 30


def test_same_seed_same_results():
    first, second = (evaluate_retrieval(embedded_sensors(), k=3, seed=5, progress=False) for _ in range(2))
    assert results_as_dict(first) == results_as_dict(second)


@pytest.mark.parametrize(
    ("embeds", "arguments", "message"),
    [
        ({}, {}, "embeds is empty"),
        (
            embedded_sensors(),
            {"query_split": "val"},
            "No s1 tile is of split 'val'; the 40 tiles have train: 14, validation: 13, test: 13",
        ),
        (embedded_sensors(splits=False), {}, "the 40 tiles have no splits"),
        (embedded_sensors(unlabelled=range(40)), {}, "None of the 13 s1 tiles of split 'validation' has labels"),
        (embedded_sensors(), {"k": 14}, "k=14, but the archive has 13 tiles"),
        (
            embedded_sensors(splits=False),
            {"k": 40, "query_split": None, "archive_split": None},
            "39 tiles after leaving out",
        ),
    ],
)
def test_evaluations_that_cannot_be_are_refused(embeds, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(embeds, **arguments)


@pytest.mark.parametrize(
    ("folder", "counts"), [("bigearthnet_v2_reben_lmdb", (11, 11)), ("bigearthnet_mm_v1_lmdb", (21, 18))]
)
def test_real_tiles_are_embedded_and_measured_in_four_directions(shared_data, folder, counts):
    dataset = load_bigearthnet(shared_data / folder)
    model, processor = tiny_csmae(), CSMAEImageProcessor()
    embeds = {
        sensor: Embedded.from_dataset(
            embed_dataset(model, processor, dataset, sensor, batch_size=16, num_workers=workers, progress=False),
            dataset,
        )
        for sensor, workers in (("s1", 0), ("s2", 1))  # the worker is forked from a process that has the store open
    }
    results = evaluate_retrieval(embeds, k=5, progress=False)
    assert [(result.n_queries, result.n_archive, result.exclude_self) for result in results] == [(*counts, False)] * 4
    for result in evaluate_retrieval(embeds, k=5, query_split=None, archive_split=None, progress=False):
        query, archive = embeds[result.query_sensor], embeds[result.archive_sensor]
        expected, _ = measured_by_loops(query, archive, result.query_rows, result.query_rows, k=5)
        assert [result.scores[name] for name in FOUR] == pytest.approx(expected, abs=0.005)  # near ties may swap
        assert result.n_queries == result.self_excluded == len(dataset) - result.unlabelled_queries


# Showing and writing


def test_the_table_has_every_direction_and_the_random_order():
    results = evaluate_retrieval(embedded_sensors(unlabelled=(1,)), k=4, progress=False)
    lines = format_table(results).splitlines()
    assert lines[0].split("  ")[0] == "query -> archive"
    assert [name in lines[0] for name in ("P@4", "R@4", "F1@4 of means", "mean pair F1@4")] == [True] * 4
    for line, result in zip(lines[2:6], results, strict=True):
        assert line.startswith(f"{result.query_sensor} -> {result.archive_sensor}")
        assert line.split()[3:] == ["12", "13", *(f"{result.scores[name]:.4f}" for name in METRICS)]
    assert lines[6].startswith("random order")
    random = results[0].random
    assert [f"{random.mean[name]:.4f} ±{random.std[name]:.4f}" in lines[6] for name in METRICS] == [True] * len(METRICS)
    assert len({len(line) for line in lines[:7]}) == 1
    assert "split validation" in lines[8]
    assert "1 queries, 0 archive tiles" in lines[-1]


def test_the_table_says_when_own_tiles_are_left_out():
    results = evaluate_retrieval(embedded_sensors(), k=4, query_split=None, archive_split=None, progress=False)
    assert "own tile is left out of its ranking, across sensors too (40 queries" in format_table(results)


def test_the_table_has_a_random_row_for_each_set_of_labels():
    embeds = embedded_sensors()
    one = embeds["s2"]
    embeds["s2"] = Embedded(one.embeds[:30], one.ids[:30], one.labels[:30], one.splits[:30])
    results = evaluate_retrieval(embeds, k=4, progress=False)
    names = [line.split("  ")[0] for line in format_table(results).splitlines()[2:10]]
    assert names == [
        "s1 -> s1",
        "random order",
        "s1 -> s2",
        "random order",
        "s2 -> s1",
        "random order",
        "s2 -> s2",
        "random order",
    ]


def test_written_results_hold_every_number(tmp_path):
    results = evaluate_retrieval(embedded_sensors(), k=4, progress=False)
    json_path, csv_path = write_results(results, tmp_path / "new" / "folder", {"model": "tiny", "Größe": 3})
    document = json.loads(json_path.read_text(encoding="utf-8"))
    assert document["metadata"] == {"model": "tiny", "Größe": 3}
    assert document["protocol"]["k"] == 4
    assert set(document["metrics"]) >= set(METRICS)
    with csv_path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(document["directions"]) == 4
    for row, entry, result in zip(rows, document["directions"], results, strict=True):
        assert (entry["query_sensor"], entry["archive_sensor"]) == (row["query_sensor"], row["archive_sensor"])
        for name in METRICS:
            assert float(row[name]) == entry[name] == result.scores[name]
        for name in METRICS:
            assert float(row[f"random_mean_{name}"]) == entry["random"]["mean"][name] == result.random.mean[name]
            assert float(row[f"random_std_{name}"]) == entry["random"]["std"][name]
        assert row["exclude_self"] == str(entry["exclude_self"]) == "False"


def test_a_metric_more_is_one_entry_more(tmp_path, monkeypatch):
    """It is measured, drawn at random, resampled, and shown under its heading: in results, table, report, summary and `evaluate`."""
    hit = Metric(
        "Hit@{k}", "share of queries with a relevant result", "queries", lambda judged: judged.shared.any(axis=1)
    )
    monkeypatch.setitem(METRICS, "hit", hit)
    embeds = embedded_sensors()
    results = evaluate_retrieval(embeds, k=4, resamples=50, progress=False)
    labels = [embeds["s1"].labels[[name == split for name in embeds["s1"].splits]] for split in ("validation", "test")]
    rows = np.flatnonzero([name == "test" for name in embeds["s1"].splits])
    found = labels[1][np.searchsorted(rows, results[1].ranking)]  # (queries, k, classes)
    share = (labels[0][:, None] & found).any(axis=(1, 2)).mean()
    assert results[1].scores["hit"] == pytest.approx(share)
    document = json.loads(write_results(results, tmp_path)[0].read_text())
    assert document["metrics"]["hit"] == hit.definition
    entry = document["directions"][1]
    assert entry["hit"] == pytest.approx(share)
    assert 0 < entry["random"]["mean"]["hit"] <= 1
    assert entry["intervals"]["hit"][0] <= share <= entry["intervals"]["hit"][1]
    assert "hit" in entry["groups"]["class"]["0"]["scores"]
    header, _, _, line, *_ = format_table(results).splitlines()
    assert header.split()[-1] == "Hit@4"
    assert line.split()[-1] == f"{share:.4f}"
    dataset = make_dataset(40)
    content = Evaluation(AlignmentChoice("none", "asked", {}), {"none": results})
    named = {"model": "tiny", "data": "tiles", "gains": {}}
    page = write_report(content, dataset, tmp_path / "report.html", queries=0, **named).read_text()
    assert re.search(r"<th>Hit@4</th>", page)
    assert f"<td>{share:.4f}<small>" in page
    assert hit.definition in page
    by_name = {result.name: result for result in results}
    records = scores_table({"tiny": [by_name]}, {}, {}).records
    assert records[2]["direction"] == "s1 -> s2"
    assert records[2]["hit"] == pytest.approx(share)
    metric = evaluate.load(EVALUATE_MODULE, cache_dir=str(tmp_path / "evaluate"))
    given = {"references": [[0], [1]], "archive_labels": [[0], [1]]}
    assert metric.compute(predictions=[[0], [0]], **given)["hit"] == 0.5


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    results = evaluate_retrieval(embedded_sensors(), k=4, progress=False)
    write_results(results, tmp_path)
    before = (tmp_path / "results.json").read_bytes()

    def full_disk(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_results(results, tmp_path, {"other": True})
    assert (tmp_path / "results.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["results.csv", "results.json"]


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    results = evaluate_retrieval(embedded_sensors(), k=4, progress=False)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(results, tmp_path, {"loss": float("nan")})
    assert not os.listdir(tmp_path)


def test_no_results_and_mixed_results_are_refused():
    with pytest.raises(ValueError, match="no results"):
        format_table([])
    mixed = [evaluate_retrieval(embedded_sensors(), k=k, progress=False)[0] for k in (2, 3)]
    with pytest.raises(ValueError, match="2 evaluations"):
        format_table(mixed)


def test_retrieval_imports_nothing_optional():
    code = (
        "import sys, csmae_hf.embedding.embed, csmae_hf.evaluation.evaluate;"
        "print([name for name in ('matplotlib', 'pandas', 'faiss', 'rasterio', 'sklearn') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout.strip() == "[]"
