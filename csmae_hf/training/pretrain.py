"""One pre-training run, from arguments to a folder that `AutoModel.from_pretrained` loads."""

import logging
from pathlib import Path
from typing import cast

from datasets import Dataset
from transformers import set_seed

from configuration_csmae import CSMAEConfig
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.load import Missing, load_archive
from csmae_hf.training.arguments import CSMAETrainingArguments, DataArguments, ModelArguments
from csmae_hf.training.callbacks import Run, build_callbacks
from csmae_hf.training.models import build_model, build_processor
from csmae_hf.training.plots import plot_finished_run
from csmae_hf.training.trainer import CSMAETrainer

logger = logging.getLogger(__name__)


def pretrain(model_args: ModelArguments, data_args: DataArguments, training_args: CSMAETrainingArguments) -> Path:
    """Pre-train a model and save it with its processor and code.

    Args:
        model_args: What is trained.
        data_args: What it is trained on.
        training_args: How.

    Returns:
        The folder of the trained model.
    """
    set_seed(training_args.seed)
    model = build_model(model_args, Path(str(training_args.output_dir)) if training_args.process_index == 0 else None)
    processor = build_processor(model_args, cast(CSMAEConfig, model.config))
    with training_args.main_process_first(desc="reading the archive"):
        train = load_tiles(data_args, data_args.train_split, data_args.max_train_tiles)
        evaluation = None
        if training_args.do_eval or training_args.eval_strategy != "no":
            evaluation = load_tiles(data_args, data_args.eval_split, data_args.max_eval_tiles)
    columns = ["id", *processor.sensors]  # labels stay behind: pre-training must not see them
    run = Run(model_args, data_args, training_args, processor, train.select_columns(columns), evaluation)
    trainer = CSMAETrainer(
        model=model,
        args=training_args,
        train_dataset=run.train,
        eval_dataset=evaluation.select_columns(columns) if evaluation is not None else None,
        data_collator=TileCollator(processor),
        processing_class=processor,
        flips=data_args.flips,
        callbacks=build_callbacks(run),
    )
    result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    metrics = {**result.metrics, "train_tiles": len(train)}
    trainer.save_model()
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    if trainer.is_world_process_zero():
        plot_finished_run(str(training_args.output_dir))
    return Path(str(training_args.output_dir))


def load_tiles(data_args: DataArguments, split: str, limit: int | None) -> Dataset:
    """Load a split of the archive that the arguments name."""
    return load_archive(
        data_args.data,
        split,
        metadata=data_args.metadata,
        splits=data_args.splits,
        missing=cast(Missing, data_args.missing),
        limit=limit,
    )
