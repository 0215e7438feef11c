"""What a run leaves at its end: the trained model with its numbers, each file whole or not there, and a seal when all of them are."""

import json
import logging
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import TrainingArguments

from csmae_hf.files import TEMPORARY, sync
from csmae_hf.hub.facts import HARDWARE_FILE
from csmae_hf.training.checkpoints import last_checkpoint, seal_finished
from csmae_hf.training.errors import CheckpointError
from csmae_hf.training.plots import STATE_NAME, plot_finished_run
from csmae_hf.training.trainer import CSMAETrainer

logger = logging.getLogger(__name__)


def save_trained(trainer: CSMAETrainer, metrics: Mapping[str, Any]) -> Path:
    """Save a trained model, its processor, code, log and numbers in the output folder, which is returned; every process calls it.

    They are written beside it and then put in place: a kill leaves no half of a file.

    Raises:
        CheckpointError: If they could not be saved.
    """
    output_dir = Path(str(trainer.args.output_dir))
    staged = output_dir / f"{TEMPORARY}final"
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")  # an ordinary model folder
    try:
        if trainer.args.should_save:
            shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed here
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(staged))
        trainer.accelerator.wait_for_everyone()
        if trainer.args.should_save:
            _write_numbers(trainer, metrics, staged)
            names = sorted(path.name for path in staged.iterdir())
            for name in names:
                sync(staged / name)
            for name in names:
                os.replace(staged / name, output_dir / name)
            sync(output_dir)
            staged.rmdir()
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staged, ignore_errors=True)  # it would keep the disk full
        raise CheckpointError(
            f"Saving the trained model in {output_dir} failed: {error}. Its last checkpoint is {last_checkpoint(output_dir)}: "
            "make room and go on with --auto_resume."
        ) from error
    if trainer.args.should_save:
        plot_finished_run(output_dir)
        seal_finished(output_dir, names, trainer.state.global_step)
    return output_dir


def _write_numbers(trainer: CSMAETrainer, metrics: Mapping[str, Any], folder: Path) -> None:
    """Write the log, the numbers of the run under both names that the Trainer gives them, and what it ran on."""
    text = json.dumps({**metrics, "epoch": trainer.state.epoch}, indent=4, sort_keys=True)
    for name in ("train_results.json", "all_results.json"):
        (folder / name).write_text(text)
    trainer.state.save_to_json(str(folder / STATE_NAME))
    (folder / HARDWARE_FILE).write_text(json.dumps(_describe_hardware(trainer.args), indent=2) + "\n")


def _describe_hardware(args: TrainingArguments) -> dict[str, str | int]:
    device = args.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() or device.type
    hardware: dict[str, str | int] = {"device": f"{device.type} ({name})", "processes": args.world_size}
    if device.type == "cpu":
        hardware |= {"processor cores": os.cpu_count() or 1, "threads": torch.get_num_threads()}
    return hardware | {"torch": torch.__version__}
