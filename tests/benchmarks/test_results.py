"""The comparison of docs/results.md: nothing is trained on what is reported, and the page is a function of its JSON."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import real_archive, results
from benchmarks.results_page import CHOSEN, MODELS, NONE, PAGE, RESULTS, ROOT, format_page
from csmae_hf.data.dataset import load_bigearthnet, open_store
from csmae_hf.data.metadata import acquisition_time
from csmae_hf.evaluation.folds import SAME_PASS
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.models import build_model

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    return real_archive.build_real_archive(tmp_path_factory.mktemp("results") / "real", shared / "data")


def test_the_real_archive_has_every_tile_once(real, shared_data):
    tiles = load_bigearthnet(real)
    assert len(set(tiles["id"])) == 124
    assert set(tiles["split"]) == {None}
    assert len({label for labels in tiles["labels"] for label in labels}) == 17
    for row in (tiles[0], tiles[123]):
        assert row["s1"]["VV"].shape == (120, 120)
        assert row["s2"]["B05"].shape == (60, 60)
    before = (real / "metadata.parquet").stat().st_mtime_ns
    real_archive.build_real_archive(real, shared_data)
    assert (real / "metadata.parquet").stat().st_mtime_ns == before


def test_no_pass_of_a_satellite_is_in_two_scenes(real):
    rows = pq.read_table(real / "metadata.parquet").to_pylist()
    images = sorted(
        (name[:3], acquisition_time(name), row["scene"]) for row in rows for name in (row["patch_id"], row["s1_name"])
    )
    for satellite, time, scene in images:
        near = {
            other
            for name, at, other in images
            if name == satellite and abs((at - time).total_seconds()) < SAME_PASS.total_seconds()
        }
        assert near == {scene}
    assert len({scene for *_, scene in images}) == 36


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_scene_is_in_both_training_and_reported_tiles(real, seed):
    """Both scripts are given the same table; one trains on "train", the other reports "test"."""
    reported = []
    for half in real_archive.HALVES:
        table = real_archive.write_half(real, seed, half)
        _, data, _ = parse_arguments(results.training_words(results.REAL, "sesd", seed, half, str(real.parent))[1:])
        options = results.retrieval_options(results.REAL, seed, half, CHOSEN, str(real.parent))
        assert data.metadata == options["metadata"] == str(table)
        assert (data.train_split, options["query_split"], options["archive_split"]) == ("train", "test", "test")
        parts = {name: load_bigearthnet(real, name, metadata=table) for name in ("train", "test")}
        assert not set(parts["train"]["scene"]) & set(parts["test"]["scene"])
        assert len(parts["train"]) + len(parts["test"]) == 124
        reported += parts["test"]["id"]
    assert len(set(reported)) == len(reported) == 124


def test_a_tile_of_the_originals_reader_is_turned_back_into_the_stored_one(shared_data):
    """This tile lies in two folders: as stored, and as the original's reader returned it."""
    name = "S2A_MSIL2A_20170613T101031_0_45"
    stored = open_store(str(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")).read(name)
    for band, layer in real_archive.read_golden(shared_data / "csmae_reader_golden_tiffs" / f"{name}.tif").items():
        assert layer.dtype == stored[band].dtype
        np.testing.assert_array_equal(layer, stored[band])


def test_a_band_enlarged_otherwise_is_refused():
    with pytest.raises(ValueError, match="not an enlargement"):
        real_archive.to_native(np.random.default_rng(0).integers(0, 9, (120, 120)).astype(np.float32), "B05")


def test_the_five_files_differ_in_the_model_only():
    parsed = {model: parse_arguments([str(BENCHMARKS / "results" / f"{model}.yaml")]) for model in MODELS}
    models = {name: build_model(model_args) for name, (model_args, _, _) in parsed.items()}
    assert {name: model.config.variant for name, model in models.items()} == {
        **{name: name for name in ("cecd", "cesd", "secd", "sesd")},
        "mae": "custom",
    }
    assert {model.config.num_hidden_layers for model in models.values()} == {3}
    recipes = [
        (training.learning_rate, training.max_grad_norm, training.warmup_steps) for _, _, training in parsed.values()
    ]
    assert set(recipes) == {(1e-3, 0, 0.05)}


def measured(names, value, alignment="none"):
    rng = np.random.default_rng(len(names))
    directions = ("s1 -> s1", "s1 -> s2", "s2 -> s1", "s2 -> s2")
    entries = [name for model in MODELS for name in (model, f"{model}, untrained")]
    scores = {
        entry: {
            name: {m: (value * rng.random(len(names))).tolist() for m in ("precision", "recall")} for name in directions
        }
        for entry in [*entries, "band statistics", "labels known"]
    }
    random = {name: {"precision": 0.1, "recall": 0.2} for name in directions}
    return {
        "queries": list(names),
        "scores": scores,
        "random": random,
        "smallest_archive": 2,
        "alignments": dict.fromkeys(MODELS, alignment),
    }


def test_halves_are_pooled_over_queries_and_differences_paired_over_scenes():
    parts = [[measured("dcba", 0.9), measured("ef", 0.5)], [measured("fb", 0.5), measured("aecd", 0.7)]]
    pooled = {alignment: results.pool(parts) for alignment in (CHOSEN, NONE)}
    assert pooled[NONE].queries == list("abcdef")
    scenes = dict(zip("abcdef", "xxyyzz", strict=True))
    archive = replace(results.REAL, seeds=(0, 1))
    found = results.summarise(archive, pooled, scenes, 0.0)

    def f1(seed, entry, drawn):  # of S1 to S2, by plain loops
        by_name = {
            name: [half["scores"][entry]["s1 -> s2"][m][place] for m in ("precision", "recall")]
            for half in parts[seed]
            for place, name in enumerate(half["queries"])
        }
        p, r = np.mean([by_name[name] for scene in drawn for name in "abcdef" if scenes[name] == scene], axis=0)
        return 2 * p * r / (p + r)

    score = found["scores"][CHOSEN]["sesd"]["s1 -> s2"]
    assert score["by_seed"] == pytest.approx([f1(seed, "sesd", "xyz") for seed in (0, 1)], abs=1e-4)
    draws = np.random.default_rng(0).integers(0, 3, (results.RESAMPLES, 3))
    resampled = {
        drawn: np.mean([f1(seed, "sesd", drawn) - f1(seed, "cecd", drawn) for seed in (0, 1)])
        for drawn in {"".join("xyz"[n] for n in row) for row in draws}
    }
    values = [resampled["".join("xyz"[n] for n in row)] for row in draws]
    numbers = results.Numbers(pooled, [scenes[name] for name in "abcdef"])
    difference = numbers.difference("sesd", "cecd", "s1 -> s2", CHOSEN, CHOSEN)
    assert difference["interval"] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=1e-4)
    assert found["scores"][NONE]["random order"]["across"]["f1"] == pytest.approx(2 * 0.1 * 0.2 / 0.3, abs=1e-4)
    assert found["alignments"]["mae"] == {"none": 4}


def test_seeds_of_other_queries_are_refused():
    with pytest.raises(ValueError, match="same queries"):
        results.pool([[measured("ab", 0.9)], [measured("ac", 0.9)]])
    with pytest.raises(ValueError, match="same queries"):
        results.pool([[measured("ab", 0.9), measured("ab", 0.9)]])


def test_the_page_is_its_json_and_shows_the_commands_that_are_run():
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = format_page(content)
    assert PAGE.read_text(encoding="utf-8") == page
    assert "real" in content["archives"]
    for name, held in content["archives"].items():
        assert held["commands"] == results.commands(results.ARCHIVES[name], "runs/results")
        for command in held["commands"]:
            assert f"\n{command}\n" in page
    assert ("**Generated data**" in page) == ("sample" in content["archives"])


def test_what_the_page_says_in_words_follows_from_its_numbers():
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    for one in content["archives"]["real"]["differences"]:
        one["f1"], one["interval"] = 0.1, [0.05, 0.2]
        if one["model"] == "mae":
            one["f1"], one["interval"] = -0.1, [-0.2, -0.05]
        if one["model"] == "cesd":
            one["interval"] = [-0.05, 0.2]
    page = format_page(content)
    assert (
        "* Across sensors, better than band statistics: CSMAE-CECD, CSMAE-SECD, CSMAE-SESD; worse than band statistics: MAE pair; "
        "not told apart: CSMAE-CESD."
    ) in " ".join(page.split())
    assert re.search(r"\| MAE pair \| \*\*-0\.100\*\* \[-0\.200, -0\.050\]", page)


def test_what_has_finished_is_not_run_again_and_what_has_not_is(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(results, "pretrain", lambda model, data, training: trained.append(training.output_dir))
    monkeypatch.setattr(results, "write_atomically", lambda path, text: (path.parent.mkdir(), path.write_text(text)))
    folder = tmp_path / "sample-sesd-0"
    folder.mkdir()
    (folder / "half").touch()
    minutes = results.train(results.SAMPLE, "sesd", 0, "", tmp_path)
    assert results.train(results.SAMPLE, "sesd", 0, "", tmp_path) == minutes >= 0
    assert trained == [str(folder)]
    assert not (folder / "half").exists()
