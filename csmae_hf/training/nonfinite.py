"""Stops a run whose loss is NaN or infinite, and keeps the batch that made it so."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from csmae_hf.files import write_atomically
from csmae_hf.training.errors import NonFiniteLossError

FOLDER = "non_finite"


@dataclass
class UnreadLoss:
    """The loss of a batch, before the host has looked at it: on a GPU it is still being computed.

    Ask after the backward pass was begun and before the optimiser's step. Then the GPU has work while the host waits for the
    loss, and nothing is learned from one that is not finite.
    """

    loss: torch.Tensor
    losses: Mapping[str, torch.Tensor]  # its terms by name
    batch: Mapping[
        str, Any
    ]  # what the model was given: images by sensor as they went in, `noise` and perhaps `present`
    ids: Sequence[str] | None  # of the tiles
    run: Path  # folder in which the batch is saved
    step: int  # counted from 1
    process: int

    def __post_init__(self) -> None:
        self.loss = self.loss.detach()
        self.losses = {name: value.detach() for name, value in self.losses.items()}
        self._finite, self._arrived = torch.isfinite(self.loss).all(), None
        if self.loss.device.type == "cuda":
            self._finite = self._finite.to("cpu", non_blocking=True)  # into page-locked memory, which torch sees to
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(self.loss.device))

    def refuse_non_finite(self) -> None:
        """Stop the run if the loss is not finite; waits for the loss, not for what the device was given later.

        Raises:
            NonFiniteLossError: With the step, the tiles and the file of the batch.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        if self._finite:
            return
        terms = {name: value.item() for name, value in self.losses.items()}
        ids = list(self.ids or [])
        path = self.run / FOLDER / f"step-{self.step}-process-{self.process}.safetensors"
        write_atomically(path, save(_flat(self.batch)))
        losses = {name: str(value) for name, value in terms.items()}
        facts = {"step": self.step, "process": self.process, "ids": ids, "losses": losses}
        write_atomically(path.with_suffix(".json"), json.dumps(facts, indent=1))
        shown = ", ".join(ids[:8]) or "of unknown names"
        more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
        raise NonFiniteLossError(
            f"The loss of step {self.step} is {self.loss.mean().item()} (process {self.process}; "
            f"{', '.join(f'{name} {value:.4g}' for name, value in terms.items())}). "
            f"Tiles of the batch: {shown}{more}. The batch as the model saw it is in {path}, all names beside it. Nothing was "
            "learned from it and checkpoints are as they were: look at the tiles, or go on from the last checkpoint with "
            "--max_grad_norm 1 or --precision fp32. Another learning rate needs a new run from its weights: --model_name_or_path "
            "CHECKPOINT and another --output_dir."
        )


def _flat(batch: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a nested mapping by dotted name."""
    tensors = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            tensors[f"{prefix}{name}"] = value.detach().cpu().contiguous().clone()
        elif isinstance(value, Mapping):
            tensors.update(_flat(value, f"{prefix}{name}."))
    return tensors
