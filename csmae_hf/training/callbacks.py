"""Callbacks of a run: what they may know, how what one measures can choose the best model, and the stop on Ctrl-C or SIGTERM."""

import logging
import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from csmae_hf.training.arguments import CSMAETrainingArguments, DataArguments, ModelArguments
from image_processing_csmae import CSMAEImageProcessor

logger = logging.getLogger(__name__)

AGREE_EVERY = 10
"""Steps between two checks whether any process was asked to stop, where there are several: they must stop at one step."""


@dataclass
class Run:
    """What a callback may need to know of a run."""

    model_args: ModelArguments
    data_args: DataArguments
    training_args: CSMAETrainingArguments
    processor: CSMAEImageProcessor
    train: Dataset  # with the columns `id` and one for each sensor
    evaluation: Dataset | None  # all columns; None where nothing is evaluated


class EvaluationCallback(TrainerCallback):
    """A callback that measures the model at each evaluation.

    What it returns joins the metrics of `Trainer.evaluate` before they are logged, so that `metric_for_best_model` can name
    any of it.
    """

    def evaluation_metrics(self, model: PreTrainedModel, state: TrainerState) -> dict[str, float]:
        """Measure.

        Args:
            model: The unwrapped model, in evaluation mode. Called on the main process alone, except where its parameters
                are sharded (FSDP, DeepSpeed): then on every process, and the main process's values count.
            state: Of the Trainer, such as `state.global_step`.

        Returns:
            Values by name, without the prefix `eval_`.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what it measures.")


class TrackioByStep:
    """The module `trackio` as Transformers' callback knows it, told the step too: else its x axis counts the lines of the log."""

    def __init__(self, trackio: Any):
        self.trackio = trackio

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trackio, name)

    def log(self, metrics: dict[str, Any]) -> None:
        """Log metrics at their `train/global_step`."""
        self.trackio.log(metrics, step=metrics.get("train/global_step"))


class StopOnSignal(TrainerCallback):
    """On Ctrl-C, or SIGTERM as cluster schedulers send before they kill, saves a checkpoint after the step in hand and stops.

    As a context it listens, in the main thread, which is the only one that can. A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.asked: int | None = None  # the number of the signal
        self.stopped = False
        self._saved_step = -1
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        owner = os.getpid()

        def ask(number: int, frame: Any) -> None:
            if os.getpid() != owner:  # a process that reads tiles, which ends with this one
                if number == signal.SIGTERM:
                    signal.signal(number, signal.SIG_DFL)
                    os.kill(os.getpid(), number)
                return
            if self.asked == number == signal.SIGINT:
                raise KeyboardInterrupt
            self.asked = self.asked or number
            name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
            logger.warning("%s: saving a checkpoint after this step, then stopping.", name)

        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask the Trainer to save and stop, at the same step in every process; at the last of an epoch, when that has ended."""
        number = self.asked or 0
        if args.world_size > 1:
            number = 0
            if state.global_step % AGREE_EVERY == 0:
                largest = torch.tensor(float(self.asked or 0), device=args.device)
                torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
                number = int(largest.item())
        if number:
            self.asked = number
            control.should_training_stop = self.stopped = True
            control.should_save = not ends_epoch(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Within an epoch, skip what its end would do: there is little time, and the checkpoint is saved."""
        if self.stopped:
            control.should_evaluate = control.should_evaluate and ends_epoch(state)
            control.should_save = control.should_evaluate or self._saved_step != state.global_step

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remember which step is saved."""
        self._saved_step = state.global_step


def ends_epoch(state: TrainerState) -> bool:
    """Whether a step is the last of its epoch, or of the run."""
    return state.global_step >= state.max_steps or abs((state.epoch or 0.5) - round(state.epoch or 0.5)) < 1e-6
