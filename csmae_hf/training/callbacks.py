"""What a callback of a pre-training run may know, and how what it measures can choose the best model."""

from dataclasses import dataclass

from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback, TrainerState

from csmae_hf.training.arguments import CSMAETrainingArguments, DataArguments, ModelArguments
from image_processing_csmae import CSMAEImageProcessor


@dataclass
class Run:
    """What a callback may need to know of a run.

    Attributes:
        model_args: What is trained.
        data_args: What it is trained on.
        training_args: How.
        processor: Turns bands into tensors.
        train: Tiles to train on, with the columns `id` and one for each sensor.
        evaluation: Tiles to evaluate on, all columns; None where nothing is evaluated.
    """

    model_args: ModelArguments
    data_args: DataArguments
    training_args: CSMAETrainingArguments
    processor: CSMAEImageProcessor
    train: Dataset
    evaluation: Dataset | None


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
