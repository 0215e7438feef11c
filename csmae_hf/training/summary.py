"""What a run says of itself before its first step."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from csmae_hf.training.arguments import CSMAETrainingArguments
from csmae_hf.training.flops import training_flops
from csmae_hf.training.terms import count_rows
from csmae_hf.training.throughput import Throughput, peak_flops, synchronize
from csmae_hf.training.trainer import CSMAETrainer

logger = logging.getLogger(__name__)

_LONG_ENOUGH = 5.0  # seconds after which a first trial step needs no second


@dataclass
class RunFacts:
    """The size of a run.

    Attributes:
        batch: Tiles a step, over all processes and accumulation steps.
        parts: The three factors of it: tiles a process, accumulation steps, processes.
        tiles: In the training split.
        steps_per_epoch: Optimiser steps.
        steps: In all.
        done: Of them, where the run is resumed.
        warmup: Of them, with a rising learning rate.
        parameters: In all, and those that are trained.
        flops: Of a step, over all processes.
        precision: `bf16`, `fp16` or `fp32`.
        device: Name of the device of one process.
        peak: Operations a second that it could do, and where that number is from.
        step_seconds: Measured time of a step; None where it could not be measured.
    """

    batch: int
    parts: tuple[int, int, int]
    tiles: int
    steps_per_epoch: int
    steps: int
    done: int
    warmup: int
    parameters: tuple[int, int]
    flops: float
    precision: str
    device: str
    peak: tuple[float, str]
    step_seconds: float | None

    def lines(self) -> list[str]:
        """Say it in words."""
        tiles, accumulation, processes = self.parts
        epochs = self.steps / self.steps_per_epoch
        seconds = self.step_seconds
        left = "not measured for this set-up"
        if seconds is not None:
            left = (
                f"about {duration((self.steps - self.done) * seconds)} for {self.steps - self.done:,} steps, at {seconds:.3g} s a "
                "step measured on random images; reading tiles, the optimiser, evaluations and checkpoints come on top"
            )
        return [
            f"precision            {self.precision} on {self.device}",
            f"effective batch size {self.batch:,} = {tiles} tiles x {accumulation} accumulation x {processes} processes",
            f"steps an epoch       {self.steps_per_epoch:,} ({self.tiles:,} tiles)",
            f"steps                {self.steps:,} ({epochs:.4g} epochs), of which warm-up {self.warmup:,}"
            + (f", done {self.done:,}" if self.done else ""),
            f"parameters           {self.parameters[0] / 1e6:,.2f} M, of which trained {self.parameters[1] / 1e6:,.2f} M",
            f"FLOPs a step         {self.flops:.4g} (forward and backward pass, all processes)",
            f"peak of a device     {self.peak[0] / 1e12:.4g} TFLOP/s ({self.peak[1]})",
            f"time                 {left}",
        ]


class RunSummary(TrainerCallback):
    """Logs the size of a run before its first step, and starts the clock.

    Args:
        trainer: Of the run.
        checkpoint: That it is resumed from, where it is.
    """

    def __init__(self, trainer: CSMAETrainer, checkpoint: Path | None = None):
        self.trainer = trainer
        self.checkpoint = checkpoint

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure and log."""
        trainer = self.trainer
        if self.checkpoint is not None:
            trainer.restore_window(self.checkpoint)
        facts = gather_facts(trainer, state)
        trainer.throughput = Throughput(facts.peak[0])
        if state.is_world_process_zero:
            logger.info("\n%s", "\n".join(facts.lines()))  # a line of its own, after the progress bar's


def gather_facts(trainer: CSMAETrainer, state: TrainerState) -> RunFacts:
    """Find out the size of a run whose model and data are ready.

    Args:
        trainer: Of the run.
        state: Of it.

    Returns:
        The facts.
    """
    args: CSMAETrainingArguments = trainer.args  # type: ignore[assignment]
    batches = len(trainer.callback_handler.train_dataloader)  # type: ignore[arg-type]
    parts = (trainer._train_batch_size, args.gradient_accumulation_steps, args.world_size)
    full_batch = trial_batch(trainer)
    flops = training_flops(
        trainer.model_config,
        {sensors: float(count) for sensors, count in count_rows(full_batch, trainer.model_config).items()},
        args.world_size if trainer.model_config.mim_gather else 1,
    )
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in trainer.model_wrapped.parameters()]
    return RunFacts(
        batch=math.prod(parts),
        parts=parts,
        tiles=len(trainer.train_dataset),  # type: ignore[arg-type]
        steps_per_epoch=math.ceil(batches / args.gradient_accumulation_steps),
        steps=state.max_steps,
        done=state.global_step,
        warmup=args.get_warmup_steps(state.max_steps),
        parameters=(sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)),
        flops=flops * args.gradient_accumulation_steps * args.world_size,
        precision=args.precision,
        device=device_name(args.device),
        peak=peak_flops(args.device, args.precision, args.peak_tflops),
        step_seconds=time_step(trainer, full_batch),
    )


def trial_batch(trainer: CSMAETrainer) -> dict[str, Any]:
    """A full batch of random images and masks for one process; torch's generators are left as they are."""
    config, device = trainer.model_config, trainer.args.device
    generator = torch.Generator().manual_seed(0)
    rows, size = trainer._train_batch_size, config.image_size
    images = {
        sensor: torch.randn(rows, len(bands), size, size, generator=generator).to(device)
        for sensor, bands in config.sensors.items()
    }
    noise = {sensor: torch.rand(rows, config.num_patches, generator=generator).to(device) for sensor in images}
    return {**images, "noise": noise}


def time_step(trainer: CSMAETrainer, batch: dict[str, Any]) -> float | None:
    """Time the forward and backward passes of a step, without learning from it.

    Args:
        trainer: Whose model is ready to train.
        batch: As of [`trial_batch`].

    Returns:
        Seconds; None under DeepSpeed, which does not let a gradient be thrown away.
    """
    if trainer.is_deepspeed_enabled:
        return None
    model, device = trainer.model_wrapped, trainer.args.device
    model.train()
    seconds = 0.0
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        for _ in range(2):  # the first also compiles and allocates
            synchronize(device)
            began = time.perf_counter()
            with trainer.compute_loss_context_manager():
                loss = model(**batch, output_predictions=False)["loss"]
            loss.backward()
            synchronize(device)
            seconds = time.perf_counter() - began
            model.zero_grad()
            if seconds > _LONG_ENOUGH and trainer.args.world_size == 1:
                break
    return seconds * trainer.args.gradient_accumulation_steps


def device_name(device: torch.device) -> str:
    """Name a device as its maker does, where that is known."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        name = capabilities.get("cpu_name")
        return f"{name} CPU, {torch.get_num_threads()} threads" if name else f"CPU, {torch.get_num_threads()} threads"
    return str(device)


def duration(seconds: float) -> str:
    """Write a time as a person would."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 60:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
