"""Pre-training runs of seconds, in this process or in processes of their own."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
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
        "peak_tflops": 1,  # measuring it takes longer than the run
    }
    return [*(word for name, value in settings.items() for word in (f"--{name}", str(value))), *more]


def run_here(data: Path, output_dir: Path, *more: str, **overrides: Any) -> list[dict[str, Any]]:
    """Train in this process; return the log."""
    pretrain(*parse_arguments(options(data, output_dir, *more, **overrides)))
    return log_of(output_dir)


_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["csmae_hf.training.pretrain", "csmae_hf.hub.upload"])


class Run:
    """`run_pretraining.py` as a process, or as several that train together.

    They are forked from a server that has imported what they need, which takes longer than the run.

    Args:
        arguments: Its command line.
        output: File for what it says.
        processes: How many.
        prepare: Called first in each process.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        output: Path,
        processes: int = 1,
        prepare: Callable[[], object] | None = None,
    ):
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("")
        self._file = output
        self.processes = []
        for rank in range(processes):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            process = _FORKING.Process(target=_train, args=(list(arguments), str(output), own, prepare))
            process.start()
            self.processes.append(process)

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._file.read_text()

    def wait_for_losses(self, count: int) -> None:
        """Return when it has logged so many losses, or its first process has ended."""
        self.wait_for("'loss'", count)

    def wait_for(self, text: str, count: int = 1) -> None:
        """Return when it has said something so many times, or its first process has ended."""
        while self.output.count(text) < count and self.processes[0].is_alive():
            time.sleep(0.01)

    def stop(self, number: signal.Signals) -> list[int | None]:
        """Send a signal to every process and wait for their ends; return their exit codes."""
        for process in self.processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)
        return self.wait()

    def wait(self) -> list[int | None]:
        """Wait for the end of every process; return their exit codes."""
        for process in self.processes:
            process.join(timeout=200)
        return [process.exitcode for process in self.processes]


def _train(
    arguments: list[str], output: str, environment: dict[str, str], prepare: Callable[[], object] | None
) -> None:
    """Be `run_pretraining.py`, in a process of its own."""
    import torch

    stream = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.environ.update({"ACCELERATE_USE_CPU": "true", **environment})
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as where it is not forked from a server
    sys.path.insert(0, str(ROOT))
    if prepare is not None:
        prepare()
    import run_pretraining

    sys.argv = ["run_pretraining.py", *arguments]
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    sys.exit(run_pretraining.main())


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
