"""A whole training run on a GPU, input pipeline included: how long the GPU waits, in the profiler's trace.

    python -m benchmarks.gpu --data ARCHIVE --batch 1024 --workers 14

Nothing is measured without a GPU: then there are no rows.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from benchmarks.timing import Row

WARMUP, PROFILED = 10, 20
"""Steps before the trace (compiling, filling the pipeline), and in it."""


def idle_share(intervals: Iterable[tuple[float, float]]) -> float:
    """Share of the time from the first kernel's start to the last one's end in which no kernel ran.

    Args:
        intervals: Start and end of each kernel, copy or memset, in any order; they may overlap.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: If there is none.
    """
    ordered = sorted(intervals)
    if not ordered:
        raise ValueError("The trace holds no kernel of a GPU.")
    busy, (start, end) = 0.0, ordered[0]
    for begins, ends in ordered[1:]:
        if begins > end:
            busy, start, end = busy + end - start, begins, ends
        else:
            end = max(end, ends)
    busy += end - start
    return 1 - busy / (end - ordered[0][0])


class TraceSteps(TrainerCallback):
    """Profiles some steps in the middle of a run of the Trainer, and keeps when the GPU worked."""

    def __init__(self) -> None:
        self.profiler: Any = None
        self.intervals: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start after the warm-up, stop when enough was seen."""
        if state.global_step == WARMUP:
            torch.cuda.synchronize()
            self.profiler = profile(activities=[ProfilerActivity.CUDA])
            self.profiler.start()
        elif state.global_step == WARMUP + PROFILED:
            torch.cuda.synchronize()
            self.profiler.stop()
            events = self.profiler.profiler.kineto_results.events()
            self.intervals = [
                (event.start_ns(), event.start_ns() + event.duration_ns())
                for event in events
                if event.device_type() == torch.autograd.DeviceType.CUDA
            ]


def measure_idle(data: Path, batch: int, workers: int) -> list[Row]:
    """Train CSMAE-SESD, ViT-B, in bfloat16, compiled, from an archive; the share of the time that the GPU waits."""
    from csmae_hf.data.collate import TileCollator
    from csmae_hf.training.arguments import CSMAETrainingArguments, DataArguments, ModelArguments
    from csmae_hf.training.pretrain import build_model, load_split
    from csmae_hf.training.trainer import CSMAETrainer
    from image_processing_csmae import CSMAEImageProcessor

    with tempfile.TemporaryDirectory() as scratch:
        arguments = CSMAETrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=batch,
            max_steps=WARMUP + PROFILED,
            bf16=True,
            torch_compile=True,
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            dataloader_num_workers=workers,
            dataloader_prefetch_factor=4 if workers else None,
            dataloader_drop_last=True,
        )
        model = build_model(ModelArguments(variant="sesd", size="base"))
        processor = CSMAEImageProcessor(sensors=model.config.sensors, size=model.config.image_size)
        tiles = load_split(DataArguments(data=str(data)), "all", None).select_columns(list(processor.sensors))
        trace = TraceSteps()
        trainer = CSMAETrainer(
            model=model,
            args=arguments,
            train_dataset=tiles,
            data_collator=TileCollator(processor, native=True),  # resampled on the device
            processing_class=processor,
            callbacks=[trace],
        )
        seconds = trainer.train().metrics["train_runtime"]
    case = f"SESD, ViT-B, batch {batch}, bfloat16, compiled, from the archive"
    return [
        {"case": f"{case}: GPU idle (wanted below 0.05)", "ours": idle_share(trace.intervals), "unit": "of the time"},
        {"case": f"{case}: whole run", "ours": batch * (WARMUP + PROFILED) / seconds, "unit": "pairs/s"},
    ]


def measure(full: bool = False) -> list[Row]:
    """With `full` and a GPU: idle time at batch 1,024 on a sample archive of generated tiles."""
    if not (full and torch.cuda.is_available()):
        return []
    from csmae_hf.sample.generate import generate_sample

    with tempfile.TemporaryDirectory() as scratch:
        return measure_idle(generate_sample(Path(scratch) / "sample", tiles=4096, seed=0), 1024, 14)


def main() -> int:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="archive, as of run_pretraining.py")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=14)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here")
    sys.stdout.write(json.dumps(measure_idle(arguments.data, arguments.batch, arguments.workers), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
