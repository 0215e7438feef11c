"""One pre-training run, from arguments to a folder that `AutoModel.from_pretrained` loads."""

import logging
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedConfig, TrainerCallback, set_seed

from configuration_csmae import CSMAEConfig
from csmae_hf.cpu import keep_freed_memory, speed_up
from csmae_hf.data.collate import TileCollator, find_suspects, group_reasons
from csmae_hf.data.evenly import evenly
from csmae_hf.data.image_options import read_image_options
from csmae_hf.data.load import Missing
from csmae_hf.data.suspects import MAX_UNREADABLE_SHARE, SUSPECT_REMEDY
from csmae_hf.data.units import image_columns
from csmae_hf.evaluation.trainings import ARGUMENTS_NAME, Changes, read_changes
from csmae_hf.sample.default import load_data_or_sample
from csmae_hf.sample.generate import is_generated
from csmae_hf.sample.shipped import model_place
from csmae_hf.training.arguments import (
    CSMAETrainingArguments,
    DataArguments,
    ModelArguments,
    resolved_arguments,
    save_arguments,
)
from csmae_hf.training.callbacks import Run, StopOnSignal
from csmae_hf.training.checkpoints import FINISHED_NAME, find_best, is_finished, resolve_resume, step_of
from csmae_hf.training.errors import InterruptedRunError
from csmae_hf.training.final_save import save_trained
from csmae_hf.training.fingerprints import fingerprint_tiles
from csmae_hf.training.models import build_model, build_processor
from csmae_hf.training.monitoring import build_monitoring
from csmae_hf.training.push_at_end import publish_run, take_hub_request
from csmae_hf.training.resume import find_record, refuse_changed_arguments, total_steps
from csmae_hf.training.run_lock import only_run
from csmae_hf.training.summary import RunSummary
from csmae_hf.training.trainer import CSMAETrainer
from image_processing_csmae import CSMAEImageProcessor

logger = logging.getLogger(__name__)

TILES_LOOKED_AT = 1000
"""So many tiles of a split, evenly spread, are looked at before the first step."""


def pretrain(model_args: ModelArguments, data_args: DataArguments, training_args: CSMAETrainingArguments) -> Path:
    """Pre-train a model and save it with its processor and code, in the folder returned.

    Args:
        model_args: What is trained.
        data_args: What it is trained on.
        training_args: How.

    Raises:
        FileExistsError: If the output folder has checkpoints of another run, and nothing says to go on with it; or a trained
            model, and nothing says to replace it; or another run trains there.
        ValueError: If the arguments contradict each other or the data, or the checkpoint that the run goes on from.
        TrainingError: If a run that had begun cannot go on; the last complete checkpoint is left as it was.
    """
    if training_args.device.type == "cpu":
        keep_freed_memory()
    request = take_hub_request(training_args)
    output_dir = Path(str(training_args.output_dir))
    begins = not training_args.resume_from_checkpoint and not any(output_dir.glob("checkpoint-*"))
    if begins and not training_args.overwrite:
        refuse_trained(output_dir)  # before anything is written there, the lock included
    with only_run(output_dir, training_args):
        folder = _pretrain(model_args, data_args, training_args, output_dir)
    publish_run(request, training_args, folder)
    return folder


def _pretrain(
    model_args: ModelArguments, data_args: DataArguments, training_args: CSMAETrainingArguments, output_dir: Path
) -> Path:
    """What [`pretrain`] does while no other run may train in the folder."""
    checkpoint = resolve_resume(output_dir, training_args.resume_from_checkpoint, training_args.auto_resume)
    if checkpoint is None and not training_args.overwrite:
        refuse_trained(output_dir)
    set_seed(training_args.seed)
    start = model_args.model_name_or_path and model_place(model_args.model_name_or_path)
    built_args = replace(model_args, model_name_or_path=start)
    model = build_model(built_args, output_dir if training_args.process_index == 0 else None)
    if training_args.device.type == "cpu":
        speed_up(model, torch.bfloat16 if training_args.bf16 else torch.float32)
    processor = build_processor(built_args, cast(CSMAEConfig, model.config))
    mark_generated(model.config, data_args.data, start)
    with training_args.main_process_first(desc="reading the archive"):
        train = load_split(data_args, data_args.train_split, data_args.max_train_tiles)
        if not len(train):
            raise ValueError(
                f"Nothing to train on: train_split = {data_args.train_split!r} with max_train_tiles = {data_args.max_train_tiles} has "
                "no tile. Give --train_split all, or another split, and --max_train_tiles above 0."
            )
        train = look_at_tiles(train, processor, data_args.suspect, "training")
        evaluation = None
        if training_args.do_eval or training_args.eval_strategy != "no":
            evaluation = load_split(data_args, data_args.eval_split, data_args.max_eval_tiles)
            evaluation = look_at_tiles(evaluation, processor, data_args.suspect, "evaluation")
    columns = image_columns(train, processor.sensors)  # labels stay behind: pre-training must not see them
    whole = None if evaluation is None else tiles_with_all(evaluation, processor.sensors)  # others cannot be retrieved
    run = Run(model_args, data_args, training_args, processor, train.select_columns(columns), whole)
    on_device = training_args.on_device_preprocessing
    on_device = training_args.device.type != "cpu" if on_device is None else on_device
    lacks_images = any(
        len(tiles_with_all(tiles, processor.sensors)) < len(tiles) for tiles in (train, evaluation) if tiles is not None
    )
    trainer = CSMAETrainer(
        model=model,
        args=training_args,
        train_dataset=run.train,
        eval_dataset=None
        if evaluation is None
        else evaluation.select_columns(image_columns(evaluation, processor.sensors)),
        data_collator=TileCollator(  # what is only a guess was decided before: a run must not end at a tile by chance
            processor, native=on_device, with_ids=True, suspect="accept", fill_missing=lacks_images
        ),
        processing_class=processor,
        flips=data_args.flips,
        callbacks=build_callbacks(run),
    )
    if training_args.dataloader_drop_last and not len(trainer.get_train_dataloader()):
        raise ValueError(
            f"Nothing to train on: {len(train)} training tiles make no full batch of per_device_train_batch_size = "
            f"{training_args.per_device_train_batch_size} for each of {training_args.world_size} processes, and "
            f"dataloader_drop_last leaves out the others. Give --per_device_train_batch_size "
            f"{max(len(train) // training_args.world_size, 1)} at most, more tiles, or --dataloader_drop_last false."
        )
    trainer.tiles = {
        name: fingerprint_tiles(tiles.select_columns(image_columns(tiles, processor.sensors)), processor)
        for name, tiles in (("train", train), ("evaluation", evaluation))
        if tiles is not None
    }
    resolved = resolved_arguments(model_args, data_args, training_args)
    changes: Changes = []
    if checkpoint is not None:
        step, before = step_of(checkpoint), refuse_changed_arguments(checkpoint, trainer, resolved)
        changes = [*read_changes(find_record(checkpoint)), *([(step, before)] if before else [])]
        if is_finished(output_dir, checkpoint, total_steps(trainer)):
            logger.info(
                "Step %d was the last already: nothing is left to train, and %s stays as it is.", step, output_dir
            )
            return output_dir
        if before:
            told = "; ".join(f"{name}: {value} -> {resolved.get(name)}" for name, value in before.items())
            logger.warning("Other arguments than the run began with, which count from here on: %s", told)
    best = (
        find_best(checkpoint, output_dir) if checkpoint is not None and training_args.load_best_model_at_end else None
    )
    trainer.accelerator.wait_for_everyone()  # before the main process writes what the others may still read
    if training_args.should_save:
        (output_dir / FINISHED_NAME).unlink(missing_ok=True)
        save_arguments(output_dir / ARGUMENTS_NAME, resolved, changes)
    return train_and_save(trainer, checkpoint, best)


def refuse_trained(output_dir: Path) -> None:
    """Refuse, with a FileExistsError, to train where the files of a model lie, which the new one would replace at its end."""
    there = sorted(
        path.name for path in output_dir.glob("*") if path.match("config.json") or path.match("model*.safetensors")
    )
    if there:
        raise FileExistsError(
            f"{output_dir} holds a model already ({', '.join(there)}), which would be replaced: choose another --output_dir, go on "
            "from a checkpoint (--resume_from_checkpoint), or replace it by --overwrite."
        )


def look_at_tiles(tiles: Dataset, processor: CSMAEImageProcessor, suspect: str, name: str) -> Dataset:
    """Make the guesses of a data set before it is used: look at evenly spread tiles, and say what was found.

    Where none of those is suspect, the others are taken as they are; where some are, all are looked at.

    Args:
        tiles: The data set.
        processor: What looks at them.
        suspect: "refuse", "leave-out" or "accept", as of [`Suspect`].
        name: What the data set is for, in messages.

    Returns:
        The tiles, without suspect ones where they are to be left out.

    Raises:
        ValueError: If certain signs speak against a tile, or guesses against more of the tiles than may be.
    """
    sensors = [sensor for sensor in processor.sensors if sensor in tiles.column_names]
    pixels = tiles.select_columns(image_columns(tiles, sensors))
    rows = evenly(len(tiles), TILES_LOOKED_AT).tolist()
    suspects = find_suspects(processor, pixels, sensors, rows)
    if not suspects:
        logger.info("Looked at %d of %d %s tiles: none is suspect.", len(rows), len(tiles), name)
        return tiles
    if suspect == "leave-out" and len(suspects) <= MAX_UNREADABLE_SHARE * len(rows) and len(rows) < len(tiles):
        rows = list(range(len(tiles)))
        suspects = find_suspects(processor, pixels, sensors, rows)
    found = (
        f"{len(suspects)} of {len(rows)} {name} tiles that were looked at, of {len(tiles)} in all, are suspect:\n"
        f"{group_reasons(list(suspects.values()))}"
    )
    if suspect == "accept":
        logger.warning("Taken as they are: %s", found)
        return tiles
    if suspect == "refuse" or len(suspects) > MAX_UNREADABLE_SHARE * len(rows):
        raise ValueError(f"{found}\n{SUSPECT_REMEDY}.")
    logger.warning("Left out: %s", found)
    return tiles.select([row for row in rows if row not in suspects])


def tiles_with_all(tiles: Dataset, sensors: Iterable[str]) -> Dataset:
    """Take the tiles that have an image of each sensor; the same data set where all have."""
    names = list(sensors)
    if not any(tiles.data.column(name).null_count for name in names):
        return tiles
    stored = tiles.select_columns(names).with_format("arrow")[:]  # keys, where the pixels lie in a store
    missing = np.logical_or.reduce([stored.column(name).is_null().to_numpy() for name in names])
    return tiles.select(np.flatnonzero(~missing))


def mark_generated(config: PreTrainedConfig, data: str | None, start: str | None) -> None:
    """Write into a model's configuration whether it was trained on generated scenes, so that this follows the weights everywhere.

    It was where its data are generated, and where the checkpoint was that it started from.
    """
    before = CSMAEConfig.get_config_dict(start)[0] if start else {}
    config.trained_on_generated = bool(is_generated(data) or before.get("trained_on_generated"))


def build_callbacks(run: Run) -> list[TrainerCallback]:
    """Make the callbacks of a run, in the order in which they are to be called."""
    return [*build_monitoring(run.evaluation, run.processor, run.training_args)]


def train_and_save(trainer: CSMAETrainer, checkpoint: Path | None, best: Path | None = None) -> Path:
    """Train and save the model with its processor and code in the folder returned.

    Args:
        trainer: Of the run.
        checkpoint: To go on from; None begins.
        best: The best of the run so far, where the best is to be loaded at the end.

    Raises:
        InterruptedRunError: If the run was asked to stop before its end.
        CheckpointError: If the trained model could not be saved.
    """
    interrupt = StopOnSignal()
    trainer.add_callback(interrupt)
    trainer.add_callback(RunSummary(trainer, checkpoint, best))
    with interrupt:
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
        if interrupt.stopped and interrupt.asked is not None:
            raise InterruptedRunError(
                f"Stopped by {'Ctrl-C' if interrupt.asked == signal.SIGINT else 'SIGTERM'} after step {trainer.state.global_step} of "
                f"{trainer.state.max_steps}, "
                + (
                    "of which --save_only_model has kept the weights alone: this run cannot go on."
                    if trainer.args.save_only_model
                    else "which is saved: go on with --auto_resume."
                ),
                interrupt.asked,
            )
        metrics = {**result.metrics, "train_tiles": len(trainer.train_dataset)}  # type: ignore[arg-type]
        trainer.log_metrics("train", metrics)
        folder = save_trained(trainer, metrics)
    if interrupt.asked is not None and trainer.args.world_size == 1:  # others would wait for it
        raise InterruptedRunError(
            f"Asked to stop while the trained model was saved, which is done: {folder} is whole, and only what comes after was left "
            "out, such as publishing.",
            interrupt.asked,
        )
    return folder


def load_split(data_args: DataArguments, split: str, limit: int | None) -> Dataset:
    """Load a split of the archive that the arguments name."""
    return load_data_or_sample(
        data_args.data,
        split,
        subset=data_args.subset,
        metadata=data_args.metadata,
        splits=data_args.splits,
        missing=cast(Missing, data_args.missing),
        limit=limit,
        **read_image_options(vars(data_args)),
    )
