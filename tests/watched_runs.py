"""Pre-training runs of seconds in this process, by options as on the command line, for what is seen of a run."""

import json
from pathlib import Path
from typing import Any

from tiny_runs import TINY

from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.pretrain import pretrain


def run_tiny(data: Path, output_dir: Path, overrides: dict[str, Any] | None = None, **options: Any) -> Path:
    """Train a tiny model for a few steps and return its folder; options as on the command line."""
    settings = {
        "data": data,
        "output_dir": output_dir,
        "model_overrides": json.dumps({**TINY, **(overrides or {})}),
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "max_train_tiles": 24,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "eval_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "peak_tflops": 1,  # measuring it takes longer than the run
        **options,
    }
    return pretrain(*parse_arguments([word for name, value in settings.items() for word in (f"--{name}", str(value))]))


def history(folder: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]
