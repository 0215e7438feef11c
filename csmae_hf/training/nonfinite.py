"""Stops a run whose loss is NaN or infinite, and keeps the batch that made it so."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from csmae_hf.files import write_atomically
from csmae_hf.training.errors import NonFiniteLossError
from csmae_hf.training.waiting import Readback

FOLDER = "non_finite"


class UnreadLoss:
    """The loss of a batch, before the host has looked at it: on a GPU it is still being computed.

    Ask after the backward pass was begun and before the optimiser's step. Then the GPU has work while the host waits for the
    loss, and nothing is learned from one that is not finite.

    Args:
        loss: Of the batch.
        losses: Its terms by name.
        batch: What the model was given: images by sensor as they went in, `noise` and perhaps `present`.
        ids: Of the batch's tiles.
        run: Folder of the run, in which the batch is saved.
        step: That the batch belongs to, counted from 1.
        process: This process's number.
    """

    def __init__(
        self,
        loss: torch.Tensor,
        losses: Mapping[str, torch.Tensor],
        batch: Mapping[str, Any],
        ids: Sequence[str] | None,
        run: Path,
        step: int,
        process: int,
    ):
        self._finite = Readback(torch.isfinite(loss.detach()).all())
        self._loss = loss.detach()
        self._losses = {name: value.detach() for name, value in losses.items()}
        self._batch, self._ids = batch, list(ids or [])
        self._run, self._step, self._process = run, step, process

    def refuse_non_finite(self) -> None:
        """Stop the run if the loss is not finite.

        Raises:
            NonFiniteLossError: With the step, the tiles and the file of the batch.
        """
        if self._finite.wait():
            return
        terms = {name: value.item() for name, value in self._losses.items()}
        path = self._run / FOLDER / f"step-{self._step}-process-{self._process}.safetensors"
        write_atomically(path, save(_flat(self._batch)))
        losses = {name: str(value) for name, value in terms.items()}
        facts = {"step": self._step, "process": self._process, "ids": self._ids, "losses": losses}
        write_atomically(path.with_suffix(".json"), json.dumps(facts, indent=1))
        shown = ", ".join(self._ids[:8]) or "of unknown names"
        more = f" and {len(self._ids) - 8} more" if len(self._ids) > 8 else ""
        raise NonFiniteLossError(
            f"The loss of step {self._step} is {self._loss.mean().item()} (process {self._process}; "
            f"{', '.join(f'{name} {value:.4g}' for name, value in terms.items())}). "
            f"Tiles of the batch: {shown}{more}. The batch as the model saw it is in {path}, all names beside it. Nothing was "
            "learned from it and checkpoints are as they were: look at the tiles, or go on from the last checkpoint with a lower "
            "learning rate, --max_grad_norm 1 or --precision fp32."
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
