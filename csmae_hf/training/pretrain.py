"""One pre-training run, from arguments to a folder that `AutoModel.from_pretrained` loads."""

import logging
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import set_seed

from configuration_csmae import CSMAEConfig
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.load import Missing, load_archive
from csmae_hf.training.arguments import CSMAETrainingArguments, DataArguments, ModelArguments
from csmae_hf.training.publish import publishing
from csmae_hf.training.trainer import CSMAETrainer
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

logger = logging.getLogger(__name__)


@publishing
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
    model = build_model(model_args)
    processor = CSMAEImageProcessor(sensors=model.config.sensors, size=model.config.image_size)
    with training_args.main_process_first(desc="reading the archive"):
        train = load_tiles(data_args, data_args.train_split, list(processor.sensors), data_args.max_train_tiles)
        evaluation = None
        if training_args.do_eval or training_args.eval_strategy != "no":
            evaluation = load_tiles(data_args, data_args.eval_split, list(processor.sensors), data_args.max_eval_tiles)
    trainer = CSMAETrainer(
        model=model,
        args=training_args,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=TileCollator(processor),
        processing_class=processor,
        flips=data_args.flips,
    )
    result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    metrics = {**result.metrics, "train_tiles": len(train)}
    trainer.save_model()
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    return Path(str(training_args.output_dir))


def build_model(model_args: ModelArguments) -> CSMAEForPreTraining:
    """Build a model from a variant and a size, or load one to go on from.

    Raises:
        ValueError: If the overrides name no field of `CSMAEConfig`, or contradict each other.
    """
    overrides: dict[str, Any] = dict(model_args.model_overrides or {})  # type: ignore[arg-type]
    unknown = [name for name in overrides if not hasattr(CSMAEConfig, name) and name != "sensors"]
    if unknown:
        raise ValueError(f"model_overrides names {unknown}, which CSMAEConfig does not have.")
    try:
        if model_args.model_name_or_path:
            return CSMAEForPreTraining.from_pretrained(model_args.model_name_or_path, **overrides)
        return CSMAEForPreTraining(CSMAEConfig.for_variant(model_args.variant, model_args.size, **overrides))
    except StrictDataclassError as error:  # a field of another type, which is no ValueError to huggingface_hub
        raise ValueError(f"model_overrides = {overrides}: {error}") from error


def load_tiles(data_args: DataArguments, split: str, sensors: list[str], limit: int | None) -> Dataset:
    """Load a split's names and pixels; its labels stay behind, pre-training must not see them."""
    dataset = load_archive(
        data_args.data,
        split,
        metadata=data_args.metadata,
        splits=data_args.splits,
        missing=cast(Missing, data_args.missing),
        limit=limit,
    )
    return dataset.select_columns(["id", *sensors])
