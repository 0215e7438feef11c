"""The comparison of docs/results.md: its real archive is the real tiles, its tables are the runs' numbers, and it resumes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from csmae_hf.data.dataset import load_bigearthnet, open_store
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.models import build_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import results

    return results


@pytest.fixture
def real_archive(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import real_archive

    return real_archive


def test_the_real_archive_has_every_tile_once_in_the_stated_split(real_archive, shared_data, tmp_path):
    real_archive.build_real_archive(tmp_path, shared_data)
    tiles = load_bigearthnet(tmp_path)
    assert Counter(tiles["split"]) == {"train": 64, "validation": 30, "test": 30}
    assert len({label for labels in tiles["labels"] for label in labels}) == 17
    for row in (tiles[0], tiles[123]):
        assert row["s1"]["VV"].shape == (120, 120)
        assert row["s2"]["B05"].shape == (60, 60)
    before = (tmp_path / "metadata.parquet").stat().st_mtime_ns
    real_archive.build_real_archive(tmp_path, shared_data)
    assert (tmp_path / "metadata.parquet").stat().st_mtime_ns == before


def test_a_tile_of_the_originals_reader_is_turned_back_into_the_stored_one(real_archive, shared_data):
    """This tile lies in two folders: as stored, and as the original's reader returned it."""
    name = "S2A_MSIL2A_20170613T101031_0_45"
    stored = open_store(str(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")).read(name)
    for band, layer in real_archive.read_golden(shared_data / "csmae_reader_golden_tiffs" / f"{name}.tif").items():
        assert layer.dtype == stored[band].dtype
        np.testing.assert_array_equal(layer, stored[band])


def test_a_band_enlarged_otherwise_is_refused(real_archive):
    with pytest.raises(ValueError, match="not an enlargement"):
        real_archive.to_native(np.random.default_rng(0).integers(0, 9, (120, 120)).astype(np.float32), "B05")


def test_the_five_files_differ_in_the_model_only(results):
    parsed = {model: parse_arguments([str(BENCHMARKS / "results" / f"{model}.yaml")]) for model in results.MODELS}
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


def test_tables_have_mean_and_spread_of_the_runs(results, tmp_path):
    directions = ["s1 -> s1", "s1 -> s2", "s2 -> s1", "s2 -> s2"]
    runs = [
        {"trained": [value] * 4, "untrained": [0.2] * 4, "random": [0.1] * 4, "directions": directions}
        for value in (0.3, 0.4, 0.5)
    ]
    tables = results.format_page({archive.name: {"sesd": runs} for archive in results.ARCHIVES}, Path("runs"))
    assert "| CSMAE-SESD | 0.400 ± 0.100 | 0.400 ± 0.100 |" in tables
    assert "| random order | 0.100 ± 0.000 |" in tables
    assert "Own runs on 124 real tiles" in tables
    page = tmp_path / "page.md"
    page.write_text(f"before\n{results.START}\nold\n{results.END}\nafter\n")
    results.write_page(page, tables)
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    assert "old" not in page.read_text()
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the lines"):
        results.write_page(page, tables)


def test_what_has_finished_is_not_run_again_and_what_has_not_is(results, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(results, "pretrain", lambda model, data, training: trained.append(training.output_dir))
    monkeypatch.setattr(
        results, "training_options", lambda archive, model, seed, root: ["--output_dir", f"{root}/{model}"]
    )
    archive = results.ARCHIVES[0]
    interrupted = tmp_path / f"{archive.name}-sesd-0"
    interrupted.mkdir()
    (interrupted / "half").touch()
    monkeypatch.setattr(results, "write_atomically", lambda path, text: (path.parent.mkdir(), path.write_text(text)))
    folder = results.train(archive, "sesd", 0, tmp_path)
    assert results.train(archive, "sesd", 0, tmp_path) == folder
    assert len(trained) == 1
    assert not (folder / "half").exists()
    assert json.loads((folder / results.DONE).read_text()) >= 0
