"""Transformers' own Trainer on a few rows, for the tests of the models."""

from pathlib import Path
from typing import Any

import torch
from tiny_models import draw_images
from transformers import Trainer, TrainingArguments

from configuration_csmae import CSMAEConfig


def rows(config: CSMAEConfig, labels: torch.Tensor | None = None) -> list[dict[str, torch.Tensor]]:
    """Four rows of processed images, perhaps with labels."""
    images = draw_images(config)
    columns = images if labels is None else {**images, "labels": labels}
    return [{name: values[i] for name, values in columns.items()} for i in range(4)]


def plain_trainer(
    model: Any, data: Any, folder: Path, compute_metrics: Any = None, data_collator: Any = None, **overrides: Any
) -> Trainer:
    """A Trainer of two steps of four rows, on the CPU, that saves and reports nothing."""
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 3,
        "max_steps": 2,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    args = TrainingArguments(**{**settings, **overrides})
    return Trainer(
        model,
        args,
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=compute_metrics,
        data_collator=data_collator,
    )
