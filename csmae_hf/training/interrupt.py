"""Saves a checkpoint when the run is asked to stop, as cluster schedulers do before they kill."""

import logging
import signal
import threading
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

AGREE_EVERY = 10
"""Steps between two checks whether any process was asked to stop, where there are several: they must stop at one step."""


class StopOnSigterm(TrainerCallback):
    """On SIGTERM, saves a checkpoint after the step in hand and ends the training."""

    def __init__(self) -> None:
        self.asked = False
        self.stopped = False
        self._handler: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to listen; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        logger.warning("SIGTERM: saving a checkpoint after this step, then stopping.")
        self.asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask the Trainer to save and stop, at the same step in every process."""
        if self._agreed(args, state):
            control.should_save = control.should_training_stop = self.stopped = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Skip what an epoch's end would do: there is little time, and the checkpoint is saved."""
        if self.stopped:
            control.should_save = control.should_evaluate = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop listening."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)

    def _agreed(self, args: TrainingArguments, state: TrainerState) -> bool:
        if args.world_size <= 1:
            return self.asked
        if state.global_step % AGREE_EVERY:
            return False
        asked = torch.tensor(float(self.asked), device=args.device)
        torch.distributed.all_reduce(asked)
        return bool(asked.item())
