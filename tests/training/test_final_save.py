"""The end of a run: whole wherever it was killed, and left alone once it is there."""

import functools
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import Run, log_of, options, run_here

from csmae_hf.training import final_save
from csmae_hf.training.checkpoints import FINISHED_NAME
from csmae_hf.training.errors import CheckpointError

BEST = ("--load_best_model_at_end", "true", "--eval_strategy", "steps", "--eval_steps", "2", "--save_steps", "2")
BEST = (
    *BEST,
    "--max_steps",
    "4",
    "--eyes_tiles",
    "0",
    "--metric_for_best_model",
    "loss",
    "--greater_is_better",
    "true",
)
"""A run whose last model is not the "best", by a metric that is turned round."""


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_here(data, folder, *BEST)
    assert json.loads((folder / "trainer_state.json").read_text())["best_global_step"] == 2
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_finished_run_stays_as_it_is_also_when_it_was_moved(
    data: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert contents(whole)["model.safetensors"] == contents(whole)["checkpoint-2/model.safetensors"], "the best"
    shutil.copytree(whole, tmp_path / "away" / "moved")
    with caplog.at_level(logging.INFO):
        for folder in (whole, tmp_path / "away" / "moved"):
            before = contents(folder)
            run_here(data, folder, *BEST, "--auto_resume")
            assert contents(folder) == before
    assert caplog.text.count("nothing is left to train") == 2
    with pytest.raises(ValueError, match=r"learning_rate: 0.001 -> 0.1"):
        run_here(data, whole, *BEST, "--auto_resume", "--learning_rate", "0.1")
    changed = tmp_path / "away" / "moved" / "config.json"
    changed.write_text(changed.read_text() + " ")
    run_here(data, changed.parent, *BEST, "--auto_resume")
    assert "config.json has" in caplog.text
    assert "finished.json" in caplog.text
    assert changed.read_text().endswith(" "), "somebody changed it, and it is theirs"


def test_a_moved_run_that_is_gone_on_with_ends_with_its_best_model(data: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(whole, folder)
    for name in (FINISHED_NAME, "model.safetensors"):
        (folder / name).unlink()
    run_here(data, folder, *BEST, "--auto_resume")
    assert contents(folder)["model.safetensors"] == contents(whole)["model.safetensors"]
    (folder / FINISHED_NAME).unlink()
    weights = folder / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"checkpoint-2 by checkpoint-4, and model.safetensors is damaged"):
        run_here(data, folder, *BEST, "--auto_resume")
    run_here(data, folder, *BEST, "--auto_resume", "--load_best_model_at_end", "false")
    assert contents(folder)["model.safetensors"] == contents(folder)["checkpoint-4/model.safetensors"]


def die_at(name: str, call: int) -> None:
    """Let the process die at the n-th call of something that the final save does."""
    module: Any = os if name == "replace" else final_save
    real: Callable[..., Any] = getattr(module, name)
    left = [call]

    def dying(*given: Any, **more: Any) -> Any:
        caller = sys._getframe(1).f_code.co_name
        left[0] -= caller in ("save_trained", "_save_trained")
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **more)

    setattr(module, name, dying)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "call"),
    [("_write_numbers", 1), ("replace", 1), ("replace", 5), ("plot_finished_run", 1), ("seal_finished", 1)],
)
def test_a_final_save_that_was_killed_is_made_again(
    data: Path, whole: Path, tmp_path: Path, name: str, call: int
) -> None:
    folder = tmp_path / "run"
    killed = Run(options(data, folder, *BEST), tmp_path / "log", prepare=functools.partial(die_at, name, call))
    assert killed.wait() == [-signal.SIGKILL], killed.output
    assert not (folder / FINISHED_NAME).exists()
    run_here(data, folder, *BEST, "--auto_resume")
    found, expected = contents(folder), contents(whole)
    assert found.keys() == expected.keys()
    assert log_of(folder) == log_of(whole)
    same = ("model.safetensors", "config.json", "preprocessor_config.json", "arguments.yaml")
    assert [
        item for item in same if found[item].replace(str(folder).encode(), str(whole).encode()) != expected[item]
    ] == []
    loss, straight = (json.loads(each["train_results.json"])["train_loss"] for each in (found, expected))
    assert loss == pytest.approx(straight, rel=1e-6), "of all steps, though none was left to train"


def test_the_numbers_of_a_resumed_run_are_of_all_of_it(data: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint-4")
    run_here(data, folder, *BEST, "--auto_resume")
    resumed, straight = (json.loads((run / "train_results.json").read_text()) for run in (folder, whole))
    assert resumed["train_loss"] == pytest.approx(straight["train_loss"], rel=1e-6)
    assert resumed.keys() == straight.keys()


@pytest.mark.slow
def test_what_an_epoch_ends_with_is_not_lost_between_its_last_step_and_its_end(data: Path, tmp_path: Path) -> None:
    """Saved by steps and evaluated by epochs: the checkpoint of the last step comes before the evaluation."""
    by_epoch = (
        "--eval_strategy",
        "epoch",
        "--max_steps",
        "12",
        "--save_steps",
        "6",
        "--eyes_k",
        "2",
        "--eyes_pictures",
        "1",
    )
    run_here(data, tmp_path / "whole", *by_epoch)
    for last in (6, 12):
        folder = tmp_path / f"until{last}"
        shutil.copytree(tmp_path / "whole", folder)
        for path in (*folder.glob("eyes/*"), folder / FINISHED_NAME):
            path.unlink()
        if last == 6:
            shutil.rmtree(folder / "checkpoint-12")
        run_here(data, folder, *by_epoch, "--auto_resume")
        drawn = {path.name for path in (folder / "eyes").iterdir()}
        assert f"reconstructions_{last:07d}.png" in drawn
        assert log_of(folder) == log_of(tmp_path / "whole")
