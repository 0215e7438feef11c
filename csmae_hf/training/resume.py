"""What a resumed run may not change: what its checkpoint has settled, so that another value would be recorded but not used."""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from csmae_hf.evaluation.trainings import ARGUMENTS_NAME
from csmae_hf.files import read_yaml
from csmae_hf.training.arguments import CSMAETrainingArguments, DataArguments, ModelArguments
from csmae_hf.training.trainer import WINDOW_NAME, CSMAETrainer

logger = logging.getLogger(__name__)

_SETTLED = (
    *(entry.name for entry in dataclasses.fields(ModelArguments)),
    # in the optimiser's state, which is loaded over the arguments
    *("learning_rate", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay"),
    *("optim", "optim_args", "optim_target_modules"),
    # another schedule would go on from another rate than the last step's
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
    # what is left of the epoch would be other tiles, some of them for the second time
    *("seed", "data_seed", "dataloader_drop_last", "train_sampling_strategy", "accelerator_config"),
)
_BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
_LENGTH = ("max_steps", "num_train_epochs", "train_split", "subset", "max_train_tiles")


def refuse_changed_arguments(checkpoint: Path, trainer: CSMAETrainer, resolved: Mapping[str, Any]) -> None:
    """Refuse to resume with another optimisation than the checkpoint's.

    Arguments that act on what follows only, such as clipping, precision or when to save, may change. So may the number of
    processes, where the effective batch size stays, and the number of steps, where the schedule does not depend on it.

    Raises:
        ValueError: If an argument differs; the message names each with both values.
    """
    places = (checkpoint / ARGUMENTS_NAME, checkpoint.parent / ARGUMENTS_NAME)
    record = next((path for path in places if path.is_file()), None)
    if record is None:
        logger.warning(
            "%s has no %s: make sure that learning rate, schedule and batch size are those it was trained with, "
            "since the checkpoint's are used whatever the arguments say.",
            checkpoint,
            ARGUMENTS_NAME,
        )
    groups = (TrainingArguments, ModelArguments, DataArguments, CSMAETrainingArguments)
    entries = [entry for group in groups for entry in dataclasses.fields(group)]
    # what a record leaves out, since it has the Trainer's arguments only where they were given
    defaults = {entry.name: entry.default for entry in entries if entry.default is not dataclasses.MISSING}
    now = {**defaults, **resolved}
    before = {**defaults, **read_yaml(record)} if record is not None else now
    refused = [_change(name, before, now) for name in _SETTLED if before.get(name) != now.get(name)]
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    refused += _changed_batch(checkpoint, trainer, state, before, now)
    refused += _changed_length(trainer, state, before, now)
    if refused:
        raise ValueError(
            f"Cannot resume from {checkpoint} with other arguments than it was trained with: {'; '.join(refused)}. Give the "
            f"values before the arrow to go on with that run. Or begin a new run from its weights: --model_name_or_path {checkpoint}, "
            "another --output_dir, and neither --resume_from_checkpoint nor --auto_resume."
        )


def _changed_batch(
    checkpoint: Path, trainer: CSMAETrainer, state: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    """Compare the tiles of a step, and those that NT-Xent compares with each other."""
    args = trainer.args
    processes = len(list(checkpoint.glob(WINDOW_NAME.format(process="*")))) or args.world_size
    rows_before = (state.get("train_batch_size") or before[_BATCH[0]]) * processes
    rows_now = trainer.train_batch_size * args.world_size
    accumulation_before, accumulation_now = before[_BATCH[1]], args.gradient_accumulation_steps
    same = rows_before * accumulation_before == rows_now * accumulation_now
    if same and (accumulation_before == accumulation_now or not trainer.model_config.mim_weight):
        return []
    changes = [_change(name, before, now) for name in _BATCH if before[name] != now[name]]
    changes += [f"processes: {processes} -> {args.world_size}"] if processes != args.world_size else []
    if same:
        return [f"{', '.join(changes)} (another number of negatives for MIM, which accumulation does not add up)"]
    sizes = f"{rows_before * accumulation_before} -> {rows_now * accumulation_now}"
    return [f"{', '.join(changes)} (effective batch size: {sizes})"]


def _changed_length(
    trainer: CSMAETrainer, state: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    """Compare the steps in all, where the learning rate of a step depends on them."""
    args, total_before = trainer.args, state.get("max_steps") or 0
    total = args.max_steps
    if total <= 0:
        steps_an_epoch = max(math.ceil(len(trainer.get_train_dataloader()) / args.gradient_accumulation_steps), 1)
        total = math.ceil(args.num_train_epochs * steps_an_epoch)
    if total == total_before or not total_before:
        return []
    schedule = str(now["lr_scheduler_type"])
    same_warmup = args.get_warmup_steps(total) == args.get_warmup_steps(total_before)
    if schedule in ("constant", "reduce_lr_on_plateau"):
        return []
    if schedule in ("constant_with_warmup", "inverse_sqrt") and same_warmup:
        return []
    changes = [_change(name, before, now) for name in _LENGTH if before.get(name) != now.get(name)]
    named = f" ({', '.join(changes)})" if changes else " (other training tiles)"
    return [f"steps in all, over which the schedule {schedule} runs: {total_before} -> {total}{named}"]


def _change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{name}: {before.get(name)} -> {now.get(name)}"
