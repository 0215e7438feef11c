"""The Transformers Trainer with what CSMAE needs on top: flips on the device, loss terms in the log, decay on everything."""

from collections import defaultdict
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from csmae_hf.training.callbacks import EvaluationCallback
from csmae_hf.training.rng import preserved_rng


def flip_together(images: dict[str, torch.Tensor], generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
    """Flip each place at random, horizontally and vertically with p = 0.5 each, in all its sensors alike.

    Args:
        images: (B, C, H, W) by sensor, the same B places.
        generator: Of the random choice; default torch's own on the CPU, which checkpoints keep.

    Returns:
        The flipped images.
    """
    batch = next(iter(images.values())).shape[0]
    choices = torch.rand(2, batch, 1, 1, 1, generator=generator) < 0.5
    flipped = {}
    for sensor, image in images.items():
        for choice, dim in zip(choices.to(image.device), (-1, -2), strict=True):
            image = torch.where(choice, image.flip(dim), image)
        flipped[sensor] = image
    return flipped


class CSMAETrainer(Trainer):
    """Trains [`CSMAEForPreTraining`].

    Args:
        *args: As of `Trainer`.
        flips: Whether to flip training tiles at random.
        **kwargs: As of `Trainer`.
    """

    def __init__(self, *args: Any, flips: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.flips = flips
        self._terms: dict[str, dict[str, list[torch.Tensor]]] = {"": defaultdict(list), "eval_": defaultdict(list)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss of a batch and remember its terms for the log."""
        if model.training and self.flips:
            sensors = self.accelerator.unwrap_model(model).config.sensors
            inputs = {**inputs, **flip_together({name: inputs[name] for name in sensors if name in inputs})}
        outputs = model(**inputs, output_predictions=not self.args.prediction_loss_only)
        terms = self._terms["" if model.training else "eval_"]
        for name, value in outputs["losses"].items():
            terms[name].append(value.detach())
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each loss term since the last line, over all processes, to the log."""
        prefix = "eval_" if "eval_loss" in logs else "" if "loss" in logs else None
        if prefix is not None:
            terms = self._terms[prefix]
            for name, values in terms.items():
                mean = self.accelerator.gather(torch.stack(values).mean().unsqueeze(0)).mean()
                logs[f"{prefix}{name}"] = round(mean.item(), 6)
            terms.clear()
        super().log(logs, *args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate, and let each [`EvaluationCallback`] add what it measures."""
        with preserved_rng():
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            measured = {f"{metric_key_prefix}_{name}": value for name, value in self._callback_metrics().items()}
        return output._replace(metrics={**(output.metrics or {}), **measured})

    def _callback_metrics(self) -> dict[str, float]:
        """What the callbacks measure, by the main process, the same on all: they must agree on which model is best."""
        sources = [callback for callback in self.callback_handler.callbacks if isinstance(callback, EvaluationCallback)]
        metrics: dict[str, float] = {}
        if sources and (self.args.process_index == 0 or self.is_fsdp_enabled or self.is_deepspeed_enabled):
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            for source in sources:
                metrics.update(source.evaluation_metrics(model, self.state))
        if sources and self.args.world_size > 1:
            (metrics,) = broadcast_object_list([metrics])
        return metrics

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Decay every parameter, as the original does; Transformers would leave out biases and norms."""
        return [name for name, _ in model.named_parameters()]
