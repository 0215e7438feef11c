"""Eyes during training: what they measure is true, chooses the best model, and changes nothing of the training."""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import TINY, Run
from transformers import TrainerState
from watched_runs import history, run_tiny

from csmae_hf.data.load import load_data
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training import monitoring
from csmae_hf.training.arguments import is_lower_better
from csmae_hf.training.monitoring import MonitoringCallback, choose_tiles, metric_names
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEModel

MEANS = """
import torch


class Means:
    sensors = {"s2": ["B02", "B03", "B04"]}
    width = 3
    provenance_fields = {"version": 1}

    def __init__(self):
        torch.manual_seed(123)  # as factories do
        torch.rand(5)

    def embed(self, pixels, sensor):
        return pixels.mean(dim=(2, 3))
"""

ROOT = Path(__file__).resolve().parents[2]
PICTURE = "reconstructions_{:07d}.png"


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return generate_sample(tmp_path_factory.mktemp("data") / "sample", tiles=120, seed=3)


@pytest.fixture(scope="module")
def watched(sample, tmp_path_factory):
    """A run watched at every second step, whose best model is chosen by retrieval."""
    return run_tiny(
        sample,
        tmp_path_factory.mktemp("watched"),
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=4,
        eyes_k=5,
        eyes_pictures=2,
        metric_for_best_model="f1_of_means_s1_s2",
        load_best_model_at_end=True,
    )


def looks(folder: Path) -> list[dict]:
    return [entry for entry in history(folder) if "eval_loss" in entry]


def test_every_look_has_all_metrics_beside_the_losses(watched):
    assert [entry["step"] for entry in looks(watched)] == [2, 4, 6]
    for entry in looks(watched):
        assert {f"eval_{name}" for name in metric_names(["s1", "s2"])} <= set(entry)
        assert "eval_umr_s1" in entry
    assert sorted(path.name for path in (watched / "eyes").iterdir()) == [PICTURE.format(step) for step in (2, 4, 6)]


def test_retrieval_is_what_a_plain_full_sort_finds(sample, watched):
    """By numpy, on the saved model's embeds of whole images: the own tile left out, 5 results, F1 of the mean P and mean R."""
    tiles = choose_tiles(load_data(str(sample), "validation"), 1000)
    processor = CSMAEImageProcessor.from_pretrained(watched)
    model = CSMAEModel.from_pretrained(watched).eval()
    embeds = {}
    for sensor in ("s1", "s2"):
        with torch.no_grad():
            images = processor(**{sensor: [row[sensor] for row in tiles]})
            each = model(**images).embeds[sensor].double().numpy()
        embeds[sensor] = each / np.linalg.norm(each, axis=1, keepdims=True)
    labels = [set(row) for row in tiles["labels"]]
    scores = embeds["s1"] @ embeds["s2"].T
    np.fill_diagonal(scores, -np.inf)
    found = np.argsort(-scores, axis=1)[:, :5]
    shared = [(len(labels[q] & labels[r]), len(labels[r]), len(labels[q])) for q, row in enumerate(found) for r in row]
    precision = np.mean([both / result for both, result, _ in shared])
    recall = np.mean([both / query for both, _, query in shared])
    best = max(looks(watched), key=lambda entry: entry["eval_f1_of_means_s1_s2"])
    assert best["eval_precision_s1_s2"] == pytest.approx(precision, abs=2e-6)
    assert best["eval_f1_of_means_s1_s2"] == pytest.approx(2 * precision * recall / (precision + recall), abs=2e-6)
    gap = np.linalg.norm(embeds["s1"].mean(axis=0) - embeds["s2"].mean(axis=0))
    assert best["eval_gap_s1_s2"] == pytest.approx(gap, abs=1e-4)


def test_the_best_model_by_retrieval_is_kept(watched):
    best = max(looks(watched), key=lambda entry: entry["eval_f1_of_means_s1_s2"])
    final, chosen = (
        load_file(folder / "model.safetensors") for folder in (watched, watched / f"checkpoint-{best['step']}")
    )
    assert all(torch.equal(final[name], chosen[name]) for name in final)


def test_the_least_gap_is_the_best(sample, tmp_path):
    run_tiny(
        sample,
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        max_steps=3,
        save_strategy="best",
        metric_for_best_model="gap_s1_s2",
        eyes_tiles=12,
        eyes_pictures=0,
    )
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["best_metric"] == min(entry["eval_gap_s1_s2"] for entry in looks(tmp_path))
    assert not (tmp_path / "eyes").exists()


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("eval_loss", True),
        ("cmr_s1_s2", True),
        ("eval_mim", True),
        ("alignment_s1_s2", True),
        ("uniformity_s1", True),
        ("eval_gap_s1_s2", True),
        ("effective_rank_s1", False),
        ("spread_s2", False),
        ("eval_f1_of_means", False),
        ("precision_s1_s2", False),
    ],
)
def test_which_end_of_a_metric_is_best(metric, lower):
    assert is_lower_better(metric) == lower


def test_a_watched_run_is_bit_for_bit_the_unwatched(sample, watched, tmp_path):
    run_tiny(sample, tmp_path, max_steps=6)
    watched_losses, losses = (
        [{name: entry[name] for name in ("loss", "grad_norm", "umr_s1", "mim")} for entry in log if "loss" in entry]
        for log in (history(watched), history(tmp_path))
    )
    assert len(losses) == 6
    assert watched_losses == losses
    last = load_file(watched / "checkpoint-6" / "model.safetensors")
    unwatched = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(last[name], unwatched[name]) for name in last)


def run_two_processes(sample: Path, folder: Path, **options) -> Path:
    """Train in two processes that exchange gradients, watched at every step."""
    settings = {
        "data": sample,
        "output_dir": folder,
        "model_overrides": json.dumps(TINY),
        "precision": "fp32",
        "use_cpu": True,
        "peak_tflops": 1,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "max_train_tiles": 8,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "best",
        "metric_for_best_model": "f1_of_means",
        "eyes_pictures": 2,
        **options,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    run = Run(words, folder.with_suffix(".log"), processes=2)
    assert run.wait() == [0, 0], run.output
    assert looks(folder)[0]["epoch"] == 1, "8 tiles are one step of two processes"
    return folder


@pytest.mark.slow
def test_two_processes_are_watched_by_one_and_agree_on_the_best(sample, tmp_path):
    """The deadlock to fear: one process looks while the other waits, or the two save different models as the best."""
    folder = run_two_processes(sample, tmp_path / "two")
    found = looks(folder)
    assert [entry["step"] for entry in found] == [1, 2]
    assert all(0 < entry["eval_f1_of_means"] < 1 for entry in found)
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["best_metric"] == max(entry["eval_f1_of_means"] for entry in found)
    assert len(list((folder / "eyes").iterdir())) == 2
    sharded = run_two_processes(sample, tmp_path / "sharded", fsdp=True, fsdp_config='{"version": 2}')
    assert len(list((sharded / "eyes").iterdir())) == 2
    for whole, gathered in zip(found, looks(sharded), strict=True):
        for name in metric_names(["s1", "s2"]):
            assert gathered[f"eval_{name}"] == pytest.approx(whole[f"eval_{name}"], rel=1e-3, abs=1e-3), name


def test_the_tiles_looked_at_are_fixed_labelled_and_spread(sample):
    dataset = load_data(str(sample), "all")
    labels = dataset["labels"]
    unlabelled = dataset.remove_columns("labels").add_column(
        "labels", [None if row % 2 else each for row, each in enumerate(labels)], feature=dataset.features["labels"]
    )
    chosen = choose_tiles(unlabelled, 10)
    assert chosen["id"] == choose_tiles(unlabelled, 10)["id"]
    places = [dataset["id"][:].index(name) for name in chosen["id"]]
    assert all(place % 2 == 0 for place in places)
    assert (places[0], places[-1]) == (0, 118)
    assert max(np.diff(places)) <= 14
    assert len(choose_tiles(dataset, 10**6)) == len(dataset)


def test_too_few_labelled_tiles_are_said_and_the_rest_is_measured(sample, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run_tiny(sample, tmp_path, max_steps=1, eval_strategy="steps", eval_steps=1, eyes_tiles=8, eyes_pictures=0)
    assert "Retrieval is not measured" in caplog.text
    (look,) = looks(tmp_path)
    assert look["eval_effective_rank_s1"] > 0
    assert "eval_f1_of_means" not in look


def test_a_metric_that_will_not_be_measured_is_refused_before_training(sample, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "f1_of_means_s1_s2"}
    with pytest.raises(ValueError, match="will not be measured"):
        run_tiny(sample, tmp_path, eyes_tiles=0, **options)
    with pytest.raises(ValueError, match="set eyes_every to 1"):
        run_tiny(sample, tmp_path, eyes_every=2, **options)
    with pytest.raises(ValueError, match="did you mean 'f1_of_means_s1_s2'"):
        run_tiny(sample, tmp_path, **{**options, "metric_for_best_model": "f1_of_mean_s1_s2"})
    with pytest.raises(ValueError, match="eyes_k = 0"):
        run_tiny(sample, tmp_path, eyes_k=0)


def test_eyes_open_at_every_nth_evaluation_and_at_the_last(sample):
    tiles = choose_tiles(load_data(str(sample), "validation"), 4)
    by_epoch = MonitoringCallback(tiles, CSMAEImageProcessor(), Path(), k=2, every=5)
    steps = MonitoringCallback(tiles, CSMAEImageProcessor(), Path(), k=2, every=3, by_epoch=False)
    epochs = [TrainerState(epoch=float(epoch), global_step=10 * epoch, max_steps=120) for epoch in range(1, 13)]
    assert [state.epoch for state in epochs if by_epoch.is_due(state)] == [5, 10, 12]
    at = [TrainerState(global_step=step, max_steps=100, eval_steps=10) for step in range(10, 101, 10)]
    assert [state.global_step for state in at if steps.is_due(state)] == [30, 60, 90, 100]


def test_an_encoder_of_any_kind_stands_beside_the_run_and_changes_nothing_of_it(sample, tmp_path, monkeypatch):
    (tmp_path / "beside_a_run.py").write_text(MEANS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    common = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "eyes_pictures": 0, "eyes_k": 5}
    alone = run_tiny(sample, tmp_path / "alone", **common)
    beside = run_tiny(sample, tmp_path / "beside", **common, eyes_encoder="beside_a_run:Means")
    for name, value in load_file(alone / "model.safetensors").items():
        assert torch.equal(value, load_file(beside / "model.safetensors")[name]), name
    tiles = choose_tiles(load_data(str(sample), "validation"), 1000)
    means = np.array([[np.asarray(row["s2"][band]).mean() for band in ("B02", "B03", "B04")] for row in tiles])
    similar = (means / np.linalg.norm(means, axis=1, keepdims=True)) @ (
        means / np.linalg.norm(means, axis=1, keepdims=True)
    ).T
    np.fill_diagonal(similar, -np.inf)
    labels = [set(row) for row in tiles["labels"]]
    pairs = [(labels[q], labels[r]) for q, row in enumerate(np.argsort(-similar, axis=1)[:, :5]) for r in row]
    p, r = np.mean([len(q & f) / len(f) for q, f in pairs]), np.mean([len(q & f) / len(q) for q, f in pairs])
    for entry in looks(beside):
        assert entry["eval_encoder_f1_of_means_s2_s2"] == pytest.approx(2 * p * r / (p + r), abs=0.01)
        assert entry["eval_encoder_f1_of_means"] == entry["eval_encoder_f1_of_means_s2_s2"], "it has one sensor"
    assert not any("encoder" in name for entry in looks(alone) for name in entry)
    with pytest.raises(ValueError, match="--eyes_encoder nowhere:make: there is no module nowhere"):
        run_tiny(sample, tmp_path / "none", **common, eyes_encoder="nowhere:make")


def test_a_collapse_is_warned_of_with_its_step(sample, tmp_path, caplog, monkeypatch):
    constant = np.ones((24, 8), dtype=np.float32)
    monkeypatch.setattr(monitoring, "embed_dataset", lambda *args, **kwargs: constant)
    run_tiny(sample, tmp_path, max_steps=1, eval_strategy="steps", eval_steps=1, eyes_pictures=0)
    assert "Step 1: The embeds of s1 have collapsed" in caplog.text


def test_without_matplotlib_the_run_goes_on(sample, tmp_path, caplog, monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("Drawing figures needs matplotlib: pip install 'matplotlib>=3.8'")

    monkeypatch.setattr(monitoring, "draw_reconstructions", missing)
    run_tiny(sample, tmp_path, max_steps=2, eval_strategy="steps", eval_steps=1)
    assert caplog.text.count("pip install") == 1
    assert len(looks(tmp_path)) == 2
