"""What a run says of itself before its first step."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from csmae_hf.training.arguments import CSMAETrainingArguments
from csmae_hf.training.flops import training_flops
from csmae_hf.training.loss_terms import count_rows
from csmae_hf.training.throughput import Throughput, peak_flops, synchronize
from csmae_hf.training.trainer import CSMAETrainer

logger = logging.getLogger(__name__)

_LONG_ENOUGH = 5.0  # seconds after which a first trial step needs no second


class RunSummary(TrainerCallback):
    """Logs the size of a run, perhaps resumed from a checkpoint and with a best one, before its first step, and starts the clock."""

    def __init__(self, trainer: CSMAETrainer, checkpoint: Path | None = None, best: Path | None = None):
        self.trainer, self.checkpoint, self.best = trainer, checkpoint, best

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure and log."""
        trainer = self.trainer
        trainer.begin_from(self.checkpoint, self.best)
        own_args: CSMAETrainingArguments = trainer.args  # type: ignore[assignment]
        peak, source = peak_flops(args.device, own_args.precision, own_args.peak_tflops)
        lines = size_lines(trainer, state, f"{peak / 1e12:.4g} TFLOP/s ({source})")
        trainer.throughput = Throughput(peak)
        if state.is_world_process_zero:
            logger.info("\n%s", "\n".join(lines))  # a line of its own, after the progress bar's


def size_lines(trainer: CSMAETrainer, state: TrainerState, peak: str) -> list[str]:
    """Say in words how large a run is whose model and data are ready, and what its device could do at best."""
    args: CSMAETrainingArguments = trainer.args  # type: ignore[assignment]
    tiles, accumulation, processes = trainer.train_batch_size, args.gradient_accumulation_steps, args.world_size
    batches = len(trainer.callback_handler.train_dataloader)  # type: ignore[arg-type]
    steps_per_epoch, left = math.ceil(batches / accumulation), state.max_steps - state.global_step
    batch = trial_batch(trainer)
    counts = {sensors: float(count) for sensors, count in count_rows(batch, trainer.model_config).items()}
    flops = training_flops(trainer.model_config, counts, processes if trainer.model_config.mim_gather else 1)
    parameters = list(trainer.model_wrapped.named_parameters())
    counted = {
        "all": [each for _, each in parameters],
        "trained": [each for _, each in parameters if each.requires_grad],
        "decoders": [each for name, each in parameters if "decoders." in name],
    }
    millions = {what: sum(each.numel() for each in chosen) / 1e6 for what, chosen in counted.items()}
    seconds = time_step(trainer, batch)
    time_left = "not measured for this set-up"
    if seconds is not None:
        time_left = (
            f"about {duration(left * seconds)} for {left:,} steps, at {seconds:.3g} s a step measured on random images; "
            "reading tiles, the optimiser, evaluations and checkpoints come on top"
        )
    return [
        f"precision            {args.precision} on {device_name(args.device)}",
        f"effective batch size {tiles * accumulation * processes:,} = {tiles} tiles x {accumulation} accumulation x "
        f"{processes} processes",
        f"steps an epoch       {steps_per_epoch:,} ({len(trainer.train_dataset):,} tiles)",  # type: ignore[arg-type]
        f"steps                {state.max_steps:,} ({state.max_steps / steps_per_epoch:.4g} epochs), of which warm-up "
        f"{args.get_warmup_steps(state.max_steps):,}" + (f", done {state.global_step:,}" if state.global_step else ""),
        f"parameters           {millions['all']:,.2f} M, of which trained {millions['trained']:,.2f} M; in the decoders, which are "
        f"not used afterwards, {millions['decoders']:,.2f} M",
        f"FLOPs a step         {flops * accumulation * processes:.4g} (forward and backward pass, all processes)",
        f"peak of a device     {peak}",
        f"time                 {time_left}",
    ]


def trial_batch(trainer: CSMAETrainer) -> dict[str, Any]:
    """A full batch of random images and masks for one process; torch's generators are left as they are."""
    config, device = trainer.model_config, trainer.args.device
    generator = torch.Generator().manual_seed(0)
    rows, size = trainer.train_batch_size, config.image_size
    images = {
        sensor: torch.randn(rows, len(bands), size, size, generator=generator).to(device)
        for sensor, bands in config.sensors.items()
    }
    noise = {sensor: torch.rand(rows, config.num_patches, generator=generator).to(device) for sensor in images}
    return {**images, "noise": noise}


def time_step(trainer: CSMAETrainer, batch: dict[str, Any]) -> float | None:
    """Seconds of a step's forward and backward passes, without learning from it.

    None under DeepSpeed, which does not let a gradient be thrown away.
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
    if device.type != "cpu":
        return str(device)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    name = capabilities.get("cpu_name")
    return f"{f'{name} CPU' if name else 'CPU'}, {torch.get_num_threads()} threads"


def duration(seconds: float) -> str:
    """Write a time as a person would."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 60:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
