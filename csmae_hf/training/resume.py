"""What a resumed run may change: every argument takes effect from there on, or is refused by name; none is recorded but not used."""

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
from csmae_hf.training.trainer import TILES_NAME, WINDOW_NAME, CSMAETrainer

logger = logging.getLogger(__name__)

SETTLED = (
    *(entry.name for entry in dataclasses.fields(ModelArguments)),
    # in the optimiser's state, which is loaded over the arguments
    *("learning_rate", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay"),
    *("optim", "optim_args", "optim_target_modules"),
    # another schedule would go on from another rate than the last step's
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"),
    # what is left of the epoch would be other tiles, some of them for the second time
    *("seed", "data_seed", "full_determinism", "ignore_data_skip", "flips", "dataloader_drop_last"),
    *("train_sampling_strategy", "length_column_name", "accelerator_config"),
    # another loss
    *("label_smoothing_factor", "neftune_noise_alpha"),
    # a checkpoint of another form, which cannot be read
    *("fsdp", "fsdp_config", "deepspeed", "parallelism_config"),
)
"""Arguments that are refused where they differ. One that stands in no table here, of a later release of Transformers, is too."""

BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Arguments that may change where the effective batch size stays."""

LENGTH = ("max_steps", "num_train_epochs")
"""Arguments that may change where the learning rate of a step does not depend on the steps in all."""

TILES = (
    *("data", "metadata", "subset", "splits", "missing", "suspect", "bands", "units", "level", "sensors", "pair"),
    *("train_split", "max_train_tiles"),
)
"""Arguments that may change where the training tiles stay, as data do that were moved."""

JUDGED = ("greater_is_better", "per_device_eval_batch_size", "eval_split", "max_eval_tiles", "eyes_tiles", "eyes_k")
"""Arguments that may change where no checkpoint was judged by an evaluation, whose values could not be compared with later ones."""

BEST = ("metric_for_best_model", "load_best_model_at_end")
"""Arguments by which a checkpoint is the best: others are refused, but for no longer asking for it."""

EFFECTIVE = (
    *("output_dir", "resume_from_checkpoint", "auto_resume", "overwrite", "run_name", "project"),
    *("max_grad_norm", "precision", "bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32", "use_cpu"),
    *("activation_checkpointing", "activation_checkpointing_kwargs"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs"),
    *("torch_compile", "torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps"),
    *("use_liger_kernel", "liger_kernel_config", "use_cache", "auto_find_batch_size", "average_tokens_across_devices"),
    *("logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "logging_nan_inf_filter"),
    *("include_num_input_tokens_seen", "log_level", "log_level_replica", "disable_tqdm", "report_to"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "peak_tflops"),
    *("eval_strategy", "eval_steps", "eval_delay", "prediction_loss_only", "eval_on_start", "eval_do_concat_batches"),
    *("eval_use_gather_object", "eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics"),
    *("eyes_pictures", "eyes_every", "eyes_encoder"),
    *("save_only_model", "save_strategy", "save_steps", "save_on_each_node", "save_total_limit"),
    *("enable_jit_checkpoint", "restore_callback_states_from_checkpoint"),
    *(
        "push_to_hub",
        "hub_token",
        "hub_private_repo",
        "hub_model_id",
        "hub_strategy",
        "hub_always_push",
        "hub_revision",
    ),
    *("on_device_preprocessing", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *("dataloader_prefetch_factor", "dataloader_multiprocessing_context", "dataloader_in_order"),
    *("remove_unused_columns", "label_names"),
    *("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"),
    *("ddp_backend", "ddp_timeout", "local_rank", "debug", "skip_memory_metrics", "do_train", "do_eval", "do_predict"),
)
"""Arguments that act on what follows only."""

_PLACES = (
    "output_dir",
    "run_name",
    "data",
    "metadata",
    "splits",
)  # where a run and its data lie, which is not what they are


def find_record(checkpoint: Path) -> Path | None:
    """Find the arguments that a checkpoint was trained with, as they lie in it or beside it; None where they do not."""
    places = (checkpoint / ARGUMENTS_NAME, checkpoint.parent / ARGUMENTS_NAME)
    return next((path for path in places if path.is_file()), None)


def refuse_changed_arguments(checkpoint: Path, trainer: CSMAETrainer, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse to resume with another optimisation, or other tiles, than the checkpoint's.

    Arguments that act on what follows only, such as clipping, precision or when to save, may change. So may the number of
    processes, where the effective batch size stays, and the number of steps, where the schedule does not depend on it.

    Returns:
        The values until now, by name, of the arguments that are others from here on.

    Raises:
        ValueError: If an argument differs that may not; the message names each with both values.
    """
    record = find_record(checkpoint)
    if record is None:
        logger.warning(
            "%s has no %s: make sure that learning rate, schedule and batch size are those it was trained with, "
            "since the checkpoint's are used whatever the arguments say.",
            checkpoint,
            ARGUMENTS_NAME,
        )
    # what a record leaves out, since it has the Trainer's arguments only where they were given
    now = {**_defaults(), **resolved}
    before = {**_defaults(), **read_yaml(record)} if record is not None else now
    changed = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    free = {*BATCH, *LENGTH, *TILES, *JUDGED, *BEST, *EFFECTIVE}
    refused = [_change(name, before, now) for name in changed if name not in free]
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    refused += _changed_batch(checkpoint, trainer, state, before, now)
    refused += _changed_length(trainer, state, before, now)
    refused += _changed_tiles(checkpoint, trainer, before, now)
    refused += _changed_judgement(checkpoint, trainer, state, before, now)
    if refused:
        raise ValueError(
            f"Cannot resume from {checkpoint} with other arguments than it was trained with: {'; '.join(refused)}. Give the "
            f"values before the arrow to go on with that run. Or begin a new run from its weights: --model_name_or_path {checkpoint}, "
            "another --output_dir, and neither --resume_from_checkpoint nor --auto_resume."
        )
    return {name: before.get(name) for name in changed if name not in _PLACES}


def _defaults() -> dict[str, Any]:
    groups = (TrainingArguments, ModelArguments, DataArguments, CSMAETrainingArguments)
    entries = [entry for group in groups for entry in dataclasses.fields(group) if entry.init]
    return {entry.name: entry.default for entry in entries if entry.default is not dataclasses.MISSING}


def _changed_batch(
    checkpoint: Path, trainer: CSMAETrainer, state: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    """Compare the tiles of a step, and those that NT-Xent compares with each other."""
    args = trainer.args
    processes = len(list(checkpoint.glob(WINDOW_NAME.format(process="*")))) or args.world_size
    rows_before = (state.get("train_batch_size") or before[BATCH[0]]) * processes
    rows_now = trainer.train_batch_size * args.world_size
    accumulation_before, accumulation_now = before[BATCH[1]], args.gradient_accumulation_steps
    same = rows_before * accumulation_before == rows_now * accumulation_now
    if same and (accumulation_before == accumulation_now or not trainer.model_config.mim_weight):
        return []
    changes = [_change(name, before, now) for name in BATCH if before[name] != now[name]]
    changes += [f"processes: {processes} -> {args.world_size}"] if processes != args.world_size else []
    if same:
        return [f"{', '.join(changes)} (another number of negatives for MIM, which accumulation does not add up)"]
    sizes = f"{rows_before * accumulation_before} -> {rows_now * accumulation_now}"
    return [f"{', '.join(changes)} (effective batch size: {sizes})"]


def total_steps(trainer: CSMAETrainer) -> int:
    """The steps of a run in all."""
    args = trainer.args
    if args.max_steps > 0:
        return int(args.max_steps)
    steps_an_epoch = max(math.ceil(len(trainer.get_train_dataloader()) / args.gradient_accumulation_steps), 1)
    return math.ceil(args.num_train_epochs * steps_an_epoch)


def _changed_length(
    trainer: CSMAETrainer, state: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    """Compare the steps in all, where the learning rate of a step depends on them."""
    args, total_before = trainer.args, state.get("max_steps") or 0
    total = total_steps(trainer)
    if total == total_before or not total_before:
        return []
    schedule = str(now["lr_scheduler_type"])
    same_warmup = args.get_warmup_steps(total) == args.get_warmup_steps(total_before)
    if schedule in ("constant", "reduce_lr_on_plateau"):
        return []
    if schedule in ("constant_with_warmup", "inverse_sqrt") and same_warmup:
        return []
    changes = [_change(name, before, now) for name in (*LENGTH, *TILES) if before.get(name) != now.get(name)]
    named = f" ({', '.join(changes)})" if changes else " (other training tiles)"
    return [f"steps in all, over which the schedule {schedule} runs: {total_before} -> {total}{named}"]


def _changed_tiles(
    checkpoint: Path, trainer: CSMAETrainer, before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    """Compare the training tiles by what they are; where the checkpoint does not say it, by what names them."""
    changes = [_change(name, before, now) for name in TILES if before.get(name) != now.get(name)]
    tiles = _read_tiles(checkpoint)
    if tiles is None:
        return changes
    return _other_tiles("training", tiles.get("train"), trainer.tiles.get("train"), changes)


def _changed_judgement(
    checkpoint: Path, trainer: CSMAETrainer, state: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    """Compare by what checkpoints are judged, where the best is looked for."""
    metrics = [one.get(BEST[0]) or ("loss" if one.get(BEST[1]) else None) for one in (before, now)]
    if metrics[1] is None:
        return []
    if metrics[0] != metrics[1]:
        return [f"{BEST[0]}: {metrics[0]} -> {metrics[1]} (no checkpoint before was judged by it)"]
    if state.get("best_metric") is None:
        return []
    tiles = _read_tiles(checkpoint) or {}
    names = ("eval_split", "max_eval_tiles")
    changes = [_change(name, before, now) for name in names if before.get(name) != now.get(name)]
    others = [name for name in JUDGED if name not in names and before.get(name) != now.get(name)]
    refused = [f"{_change(name, before, now)} (the best so far was judged otherwise)" for name in others]
    return refused + _other_tiles("evaluation", tiles.get("evaluation"), trainer.tiles.get("evaluation"), changes)


def _read_tiles(checkpoint: Path) -> dict[str, Any] | None:
    path = checkpoint / TILES_NAME
    return json.loads(path.read_text()) if path.is_file() else None


def _other_tiles(what: str, before: Any, now: Any, changes: list[str]) -> list[str]:
    """Say that tiles are others, and by which arguments, as far as both are known."""
    if not before or not now or before == now:
        return []
    counts = f"{before['count']} -> {now['count']} tiles"
    named = ", ".join(changes) or "data: the same place -> what lies there now"
    kind = "the same names, other pixels" if before["ids"] == now["ids"] else "other names, or another order"
    return [f"{named} (other {what} tiles: {counts}, {kind})"]


def _change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{name}: {before.get(name)} -> {now.get(name)}"
