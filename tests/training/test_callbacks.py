"""What callbacks tell a tracker, and how a run stops when it is asked to."""

import os
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from tiny_runs import run_here
from transformers import TrainerControl, TrainerState
from transformers.integrations import integration_utils

from csmae_hf.sample.generate import generate_sample
from csmae_hf.training import callbacks
from csmae_hf.training.callbacks import StopOnSignal


class Trackio(ModuleType):
    """What Transformers' callback calls of the tracker, which counts its calls where it is given no step."""

    __version__ = "0.43"

    def __init__(self) -> None:
        super().__init__("trackio")
        self.context_vars = mock.MagicMock()
        self.config: dict[str, Any] = {}
        self.started: dict[str, Any] = {}
        self.points: list[tuple[int, dict[str, Any]]] = []

    def init(self, **how: Any) -> None:
        self.started = how

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.points.append((len(self.points) if step is None else step, metrics))

    def finish(self) -> None:
        pass


@pytest.mark.slow
def test_trackio_has_curves_over_steps_and_the_folders_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = Trackio()
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(integration_utils, "is_trackio_available", lambda: True)
    data = Path(generate_sample(tmp_path / "sample", tiles=60, seed=3))
    shown = ("--report_to", "trackio", "--trackio_static_space_id", "false", "--save_strategy", "no")
    steps = ("--max_steps", "6", "--logging_steps", "2", "--eval_strategy", "steps", "--eval_steps", "3")
    run_here(data, tmp_path / "first_try", *shown, *steps)
    assert trackio.started["name"] == "first_try"
    losses = [step for step, metrics in trackio.points if "train/loss" in metrics]
    evaluations = [step for step, metrics in trackio.points if "eval/loss" in metrics]
    assert (losses, evaluations) == ([2, 4, 6], [3, 6])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_once_and_ends_after_the_step(number: int) -> None:
    stop, control = StopOnSignal(), TrainerControl(should_save=True, should_evaluate=True)
    args, before = SimpleNamespace(world_size=1), signal.getsignal(number)
    with stop:
        control.should_save = False
        stop.on_step_end(args, TrainerState(global_step=1, max_steps=9), control)  # type: ignore[arg-type]
        assert [control.should_save, control.should_training_stop, stop.stopped] == [False] * 3
        os.kill(os.getpid(), number)
        assert stop.asked == number
        stop.on_step_end(args, TrainerState(global_step=2, max_steps=9), control)  # type: ignore[arg-type]
        assert [control.should_save, control.should_training_stop, stop.stopped] == [True] * 3
        stop.on_save(args, TrainerState(global_step=2, max_steps=9), control)  # type: ignore[arg-type]
        stop.on_epoch_end(args, TrainerState(global_step=2, max_steps=9), control)  # type: ignore[arg-type]
        assert [control.should_save, control.should_evaluate] == [False] * 2
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("last", [{"epoch": 2.0, "max_steps": 9}, {"epoch": 1.5, "max_steps": 4}])
def test_what_an_epoch_ends_with_comes_before_the_checkpoint_of_its_last_step(last: dict[str, Any]) -> None:
    """For a resumed run begins with the next epoch."""
    stop, control, state = StopOnSignal(), TrainerControl(should_save=True), TrainerState(global_step=4, **last)
    args = SimpleNamespace(world_size=1)
    stop.asked = signal.SIGTERM
    stop.on_step_end(args, state, control)  # type: ignore[arg-type]
    assert [control.should_save, control.should_training_stop, stop.stopped] == [False, True, True]
    control.should_evaluate = True
    stop.on_epoch_end(args, state, control)  # type: ignore[arg-type]
    assert [control.should_save, control.should_evaluate] == [True] * 2


def test_a_second_ctrl_c_ends_at_once() -> None:
    with StopOnSignal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_several_processes_stop_at_one_step_that_all_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other was asked and this one was not."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda number, _: number.fill_(signal.SIGINT))
    stop, control = StopOnSignal(), TrainerControl()
    args = SimpleNamespace(world_size=2, device="cpu")
    every = callbacks.AGREE_EVERY
    for step in range(1, every):
        stop.on_step_end(args, TrainerState(global_step=step), control)  # type: ignore[arg-type]
        assert not control.should_training_stop
    stop.on_step_end(args, TrainerState(global_step=every), control)  # type: ignore[arg-type]
    assert control.should_training_stop
    assert stop.asked == signal.SIGINT
