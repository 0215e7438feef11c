"""Stops a run whose loss is NaN or infinite, and keeps the batch that made it so."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from csmae_hf.training.errors import NonFiniteLossError

FOLDER = "non_finite"


def refuse_non_finite(
    loss: torch.Tensor,
    losses: Mapping[str, torch.Tensor],
    batch: Mapping[str, Any],
    ids: Sequence[str] | None,
    run: Path,
    step: int,
    process: int,
) -> None:
    """Stop the run if a loss is not finite.

    Args:
        loss: Of the batch.
        losses: Its terms by name.
        batch: What the model was given: images by sensor as they went in, `noise` and perhaps `present`.
        ids: Of the batch's tiles.
        run: Folder of the run, in which the batch is saved.
        step: That the batch belongs to, counted from 1.
        process: This process's number.

    Raises:
        NonFiniteLossError: With the step, the tiles and the file of the batch.
    """
    if torch.isfinite(loss):
        return
    terms = {name: value.item() for name, value in losses.items()}
    path = run / FOLDER / f"step-{step}-process-{process}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(_flat(batch), path)
    facts = {"step": step, "process": process, "ids": list(ids or []), "losses": {k: str(v) for k, v in terms.items()}}
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1))
    shown = ", ".join(list(ids or [])[:8]) or "of unknown names"
    more = f" and {len(ids) - 8} more" if ids and len(ids) > 8 else ""
    raise NonFiniteLossError(
        f"The loss of step {step} is {loss.item()} (process {process}; {', '.join(f'{k} {v:.4g}' for k, v in terms.items())}). "
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
