"""Runs that are killed, and go on as if nothing had been: real processes, real signals."""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import Run, furthest, log_of, options, run_here

from csmae_hf.training.checkpoints import checkpoint_problem, last_checkpoint
from csmae_hf.training.trainer import CSMAETrainer
from modeling_csmae import CSMAEForPreTraining

pytestmark = pytest.mark.slow

LOGGED = ("--logging_steps", "2", "--eval_strategy", "steps", "--eval_steps", "4")
"""A line of the log every 2 steps and a checkpoint every 3: some fall into the middle of a line."""

HALVES = ("--per_device_train_batch_size", "2")


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one process."""
    return finish(data, tmp_path_factory.mktemp("one") / "run")


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on two processes, each with half of every batch."""
    return finish(data, tmp_path_factory.mktemp("two") / "run", *HALVES, processes=2)


def finish(data: Path, folder: Path, *more: str, processes: int = 1) -> Path:
    run = Run(options(data, folder, *LOGGED, *more), folder.with_suffix(".log"), processes)
    codes = run.wait()
    assert codes == [0] * processes, run.output
    return folder


def kill_at_random(data: Path, folder: Path, *more: str, processes: int = 1) -> None:
    """Kill a run with SIGKILL at a random moment after its first complete checkpoint."""
    lines = random.Random(str(folder)).randint(2, 4)
    run = Run(options(data, folder, *LOGGED, *more), folder.with_suffix(".log"), processes)
    run.wait_for_losses(lines)
    assert run.stop(signal.SIGKILL) == [-signal.SIGKILL] * processes, run.output
    assert last_checkpoint(folder) is not None


def die_while_saving() -> None:
    CSMAETrainer._save_rng_state = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment]


def same_weights(run: Path, other: Path) -> bool:
    weights, others = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_killed_twice_and_asked_to_stop_it_gives_bit_for_bit_the_same_losses(
    data: Path, one: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kill_at_random(data, folder)

    before = last_checkpoint(folder)
    resumed = options(data, folder, *LOGGED, "--resume_from_checkpoint", "last")
    saving = Run(resumed, tmp_path / "saving.log", prepare=die_while_saving)
    assert saving.wait() == [-signal.SIGKILL], saving.output
    assert last_checkpoint(folder) == before, "the half-written checkpoint is not used"
    half = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert half != before
    assert checkpoint_problem(half) is not None

    stopped = Run(options(data, folder, *LOGGED, "--auto_resume"), tmp_path / "stopped.log")
    stopped.wait_for_losses(1)
    (code,) = stopped.stop(signal.SIGTERM)
    assert code in (0, 128 + signal.SIGTERM), stopped.output  # 0 where it was done before it could be stopped
    finish(data, folder, "--auto_resume")
    assert log_of(folder) == log_of(one)
    assert same_weights(folder, one)


def test_two_processes_equal_one_with_twice_the_batch(one: Path, two: Path) -> None:
    assert furthest(log_of(two), log_of(one)) < 1e-5


def test_two_processes_that_were_killed_give_bit_for_bit_the_same_losses(data: Path, two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_at_random(data, folder, *HALVES, processes=2)
    finish(data, folder, *HALVES, "--resume_from_checkpoint", "last", processes=2)
    assert log_of(folder) == log_of(two)
    assert same_weights(folder, two)


def test_a_sharded_run_that_was_killed_equals_one_process(data: Path, one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_at_random(data, folder, *HALVES, "--fsdp", processes=2)
    finish(data, folder, *HALVES, "--fsdp", "--auto_resume", processes=2)
    assert furthest(log_of(folder), log_of(one)) < 1e-5
    assert (folder / "modeling_csmae.py").is_file(), "the saved folder brings the model's own code"
    saved, expected = (CSMAEForPreTraining.from_pretrained(run) for run in (folder, one))
    images = {name: torch.randn(2, len(bands), 120, 120) for name, bands in expected.config.sensors.items()}
    torch.testing.assert_close(saved(**images).losses, expected(**images).losses, atol=1e-4, rtol=1e-4)


def test_one_process_goes_on_with_what_two_have_saved(data: Path, one: Path, two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
    shutil.rmtree(folder / "checkpoint-10")
    log = run_here(data, folder, *LOGGED, "--auto_resume")
    assert furthest(log, log_of(one)) < 1e-5
