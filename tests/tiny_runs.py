"""Pre-training runs of seconds, in this process or in processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.pretrain import pretrain

ROOT = Path(__file__).resolve().parents[1]
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "multi_sensor_encoder_depth": 1,
    "cross_sensor_encoder_depth": 1,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}
SPEED = ("samples_per_second", "mfu", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
"""What no two runs have alike."""


def options(data: Path, output_dir: Path, *more: str, **overrides: Any) -> list[str]:
    """A command line for 10 steps of 4 tiles, 6 steps an epoch, with a checkpoint every 3 steps."""
    settings = {
        "data": data,
        "output_dir": output_dir,
        "model_overrides": json.dumps({**TINY, **overrides}),
        "max_train_tiles": 24,
        "max_eval_tiles": 8,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-3,
        "max_steps": 10,
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 3,
        "precision": "fp32",
    }
    return [*(word for name, value in settings.items() for word in (f"--{name}", str(value))), *more]


def run_here(data: Path, output_dir: Path, *more: str, **overrides: Any) -> list[dict[str, Any]]:
    """Train in this process; return the log."""
    pretrain(*parse_arguments(options(data, output_dir, *more, **overrides)))
    return log_of(output_dir)


class Run:
    """`run_pretraining.py` as one process, or as several that train together.

    Args:
        arguments: Its command line.
        processes: How many.
        script: What to run in its place.
    """

    def __init__(self, arguments: Sequence[str], processes: int = 1, script: Path | None = None):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "ACCELERATE_USE_CPU": "true",
        }
        if processes > 1:
            environment |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(script or ROOT / "run_pretraining.py"), *arguments],
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
            )
            for rank in range(processes)
        ]
        self.output = ""

    def wait_for_losses(self, count: int) -> None:
        """Return when the first process has logged so many losses, or ended."""
        assert self.processes[0].stdout is not None
        for line in self.processes[0].stdout:
            self.output += line
            if self.output.count("'loss'") >= count:
                return

    def stop(self, number: signal.Signals) -> list[int]:
        """Send a signal to every process and wait for their ends; return their exit codes."""
        for process in self.processes:
            process.send_signal(number)
        return self.wait()

    def wait(self) -> list[int]:
        """Wait for the end of every process; return their exit codes."""
        for process in self.processes:
            self.output += process.communicate(timeout=200)[0]
        return [process.returncode for process in self.processes]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def log_of(run: Path) -> list[dict[str, Any]]:
    """What a run has logged of its steps and evaluations, without its speed."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    kept = [entry for entry in history if "loss" in entry or "eval_loss" in entry]
    return [{name: value for name, value in entry.items() if name not in SPEED} for entry in kept]


def furthest(log: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> float:
    """The greatest difference between two logs, which must have the same entries."""
    assert [entry.keys() for entry in log] == [entry.keys() for entry in other]
    pairs = zip(log, other, strict=True)
    return max(abs(entry[name] - again[name]) for entry, again in pairs for name in entry)
