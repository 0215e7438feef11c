"""The two scripts as people run them: real processes on real tiles, and on generated ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from warm import Warm

from csmae_hf.sample.generate import generate_sample

ROOT = Path(__file__).resolve().parents[1]
TINY = json.dumps(
    {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "multi_sensor_encoder_depth": 1,
        "cross_sensor_encoder_depth": 1,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
    }
)
ACCELERATE = [
    str(Path(sys.executable).parent / "accelerate"),
    "launch",
    "--cpu",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
]
ONE_PROCESS = [*ACCELERATE, "--dynamo_backend", "no", "--num_processes", "1"]
# With --cpu instead of --multi_gpu, accelerate launch starts one process, whatever --num_processes says.
TWO_PROCESSES = ["--multi_gpu" if word == "--cpu" else word for word in ONE_PROCESS[:-1]] + ["2"]


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(cwd / "hf")}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=280
    )


def training(*arguments: str) -> list[str]:
    small = [
        "--max_steps",
        "4",
        "--per_device_train_batch_size",
        "4",
        "--max_train_tiles",
        "16",
        "--max_eval_tiles",
        "8",
    ]
    quiet = ["--logging_steps", "1", "--save_strategy", "no", "--peak_tflops", "1"]
    return [str(ROOT / "run_pretraining.py"), "--model_overrides", TINY, *small, *quiet, *arguments]


def retrieval(*arguments: str) -> list[str]:
    return [str(ROOT / "run_retrieval.py"), *arguments]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return generate_sample(tmp_path_factory.mktemp("data") / "sample", tiles=60, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("archive", ["bigearthnet_mm_v1_lmdb", "bigearthnet_v2_reben_lmdb"])
def test_both_scripts_run_on_real_tiles(shared_data, tmp_path, archive, warm):
    data = str(shared_data / archive)
    trained = warm.run(training("--data", data, "--output_dir", "model", "--variant", "cesd"), cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    small = ["--query_split", "val", "--k", "5", "--pictures", "2"]
    found = warm.run(retrieval("model", "--data", data, "--output_dir", "results", *small), cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    directions = {(entry["query_sensor"], entry["archive_sensor"]) for entry in results["directions"]}
    assert directions == {("s1", "s1"), ("s1", "s2"), ("s2", "s1"), ("s2", "s2")}
    assert all(0 < entry["f1_of_means"] <= 1 for entry in results["directions"])
    assert (tmp_path / "results" / "retrieval_s1_to_s2.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory, warm):
    """Two trainings that differ in their seed only, with an evaluation at their end."""
    folder = tmp_path_factory.mktemp("trained")
    for seed in ("7", "8"):
        own = ["--seed", seed, "--output_dir", f"seed{seed}", "--eval_strategy", "steps", "--eval_steps", "4"]
        done = warm.run(training("--data", str(sample), *own), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def same(folder: Path, other: Path) -> bool:
    first, second = load_file(folder / "model.safetensors"), load_file(other / "model.safetensors")
    return all(torch.equal(first[name], second[name]) for name in first)


def history(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def terms(entry: dict, prefix: str = "") -> float:
    return sum(entry[f"{prefix}{name}"] for name in ("umr_s1", "umr_s2", "cmr_s1_s2", "cmr_s2_s1", "mim"))


@pytest.mark.slow
def test_a_seed_decides_everything_also_under_accelerate(sample, trained, tmp_path):
    own = ["--data", str(sample), "--seed", "7", "--output_dir", "again"]
    again = run([*ONE_PROCESS, *training(*own)], tmp_path)
    assert again.returncode == 0, again.stderr
    assert same(trained / "seed7", tmp_path / "again")
    assert not same(trained / "seed7", trained / "seed8")


@pytest.mark.slow
def test_accelerate_launch_with_two_processes_trains(sample, tmp_path):
    two = run([*TWO_PROCESSES, *training("--data", str(sample), "--output_dir", "two")], tmp_path)
    assert two.returncode == 0, two.stderr
    assert "x 2 processes" in two.stderr + two.stdout
    logged = [entry for entry in history(tmp_path / "two") if "loss" in entry]
    assert len(logged) == 4
    assert [entry["loss"] for entry in logged] == pytest.approx([terms(entry) for entry in logged], rel=1e-3)


@pytest.mark.slow
def test_loss_and_its_terms_are_logged_in_training_and_evaluation(trained):
    logged = history(trained / "seed7")
    losses = [entry for entry in logged if "loss" in entry]
    assert [entry["loss"] for entry in losses] == pytest.approx([terms(entry) for entry in losses], rel=1e-3)
    evaluation = next(entry for entry in logged if "eval_loss" in entry)
    assert evaluation["eval_loss"] == pytest.approx(terms(evaluation, "eval_"), rel=1e-3)


@pytest.mark.slow
def test_several_trainings_are_summarised(sample, trained, tmp_path, warm):
    models = [str(trained / name) for name in ("seed7", "seed8")]
    small = ["--k", "3", "--pictures", "0", "--untrained"]
    found = warm.run(retrieval(*models, "--data", str(sample), "--output_dir", "out", *small), cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "standard deviation over its 2 trainings" in found.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    [model] = summary["models"].values()  # by their own records they differ in the seed alone
    assert model["trainings"] == models
    runs = [json.loads((tmp_path / "out" / name / "results.json").read_text()) for name in ("seed7", "seed8")]
    values = [run["directions"][1]["f1_of_means"] for run in runs]
    assert model["directions"]["s1 -> s2"]["f1_of_means"]["mean"] == pytest.approx(sum(values) / 2)
    assert len(summary["baselines"]["untrained"]) == 4
    assert runs[0]["metadata"]["alignment"]["method"] == runs[1]["metadata"]["alignment"]["method"]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["run_pretraining.py", "run_retrieval.py"])
def test_help_explains(script, tmp_path):
    shown = run([sys.executable, str(ROOT / script), "--help"], tmp_path)
    assert shown.returncode == 0
    assert "--data" in shown.stdout
    assert "sample" in shown.stdout


@pytest.mark.slow
def test_mistakes_end_in_one_line_not_a_traceback(tmp_path, warm: Warm):
    missing = warm.run(training("--data", "nowhere", "--output_dir", "m"), cwd=tmp_path)
    assert missing.returncode == 2
    assert "nowhere" in missing.stderr
    assert "Traceback" not in missing.stderr
    (tmp_path / "sample_archive").mkdir()
    (tmp_path / "sample_archive" / "mine.txt").touch()
    occupied = warm.run(training("--output_dir", "m"), cwd=tmp_path)
    assert occupied.returncode == 2
    assert "sample_archive" in occupied.stderr
    assert "Traceback" not in occupied.stderr
    no_model = warm.run(retrieval("no_model", "--data", "nowhere"), cwd=tmp_path)
    assert no_model.returncode == 2
    assert "Traceback" not in no_model.stderr
