"""Processes that have imported already what they need: forked from one that imports once, which takes longer than most of them run.

    with Warm(os.environ) as warm:
        done = warm.run(["-m", "csmae_hf.commands.main", "info", "model"], cwd=tmp_path)     # as after `python`
        process = warm.start(["-c", code])
        process.kill()

Each is a process of its own, with its arguments, folder, environment, signals and exit status, and ends as any interpreter does.
What libraries read of the environment when they are imported is that of the server: HF_HOME, HF_ENDPOINT and their like are given
to it, and no process can have others.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    "csmae_hf.commands.main",
    "csmae_hf.training.pretrain",
    "csmae_hf.evaluation.run",
    "csmae_hf.archive.archive",
    "csmae_hf.data.encode",
    "csmae_hf.hub.publish_model",
)
SECONDS = 280
"""How long a process may take where nothing else is said."""


class Warm:
    """The server.

    Args:
        environment: Its environment, with one thread.
        modules: What it imports.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = MODULES):
        self._files = tempfile.TemporaryDirectory(prefix="warm-")
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__)), *modules],
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._running: Process | None = None
        self._number = 0

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._running is not None:
            self._running.kill()
        self._server.communicate()
        self._files.cleanup()

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        stdout: str | os.PathLike[str] | None = None,
        stderr: str | os.PathLike[str] | None = None,
        **environment: str,
    ) -> "Process":
        """Start a process; one at a time.

        Args:
            command: What one types after `python`: `-c CODE`, `-m MODULE` or a script, and its arguments.
            cwd: Its folder; by default this process's.
            stdout: A file, pipe or device for what it prints, which is returned otherwise.
            stderr: The same for what it says.
            environment: Changes of its environment, for what is read later than on import.
        """
        if self._running is not None:
            raise RuntimeError(f"Process {self._running.pid} was not waited for.")
        fixed = [name for name in environment if name.startswith(("HF_", "TRANSFORMERS_")) and name != "HF_TOKEN"]
        if fixed:
            raise ValueError(f"{', '.join(fixed)}: read on import; give it to Warm().")
        self._number += 1
        files = [
            Path(given or Path(self._files.name) / f"{self._number}.{name}")
            for name, given in (("out", stdout), ("err", stderr))
        ]
        order = {
            "command": list(command),
            "cwd": str(cwd or Path.cwd()),
            "files": list(map(str, files)),
            "environment": environment,
        }
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._running = Process(self, list(command), self._answer(SECONDS)["pid"], files)
        return self._running

    def run(self, command: Sequence[str], *, timeout: float = SECONDS, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a process to its end; its status, and what it printed and said."""
        return self.start(command, **how).wait(timeout)

    def _answer(self, timeout: float) -> dict[str, int]:
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], timeout)[0]:
            raise TimeoutError
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"The server of warm processes ended with {self._server.wait()}.")
        return json.loads(line)


class Process:
    """A process that was started."""

    def __init__(self, warm: Warm, command: list[str], pid: int, files: list[Path]):
        self._warm, self._command, self._files = warm, command, files
        self._status: int | None = None
        self.pid = pid

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing where it has ended."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        with contextlib.suppress(TimeoutError):
            self._wait(0)
        return self._status

    def wait(self, timeout: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """Wait for its end: its status as of `subprocess`, and what it printed and said where no other files were given."""
        try:
            status = self._wait(timeout)
        except TimeoutError:
            self.kill()
            raise subprocess.TimeoutExpired(self._command, timeout, *map(_read, self._files)) from None
        return subprocess.CompletedProcess(self._command, status, *map(_read, self._files))

    def _wait(self, timeout: float) -> int:
        if self._status is None:
            self._status = self._warm._answer(timeout)["status"]
            self._warm._running = None
        return self._status


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


# The server's side


def serve() -> dict[str, Any] | None:
    """Fork a process for each line of input; returns its order in each, and None in the server when the input ends."""
    answers = os.dup(1)
    for line in iter(sys.stdin.buffer.raw.readline, b""):  # type: ignore[attr-defined]
        pid = os.fork()
        if not pid:
            os.close(answers)
            return json.loads(line)
        os.write(answers, json.dumps({"pid": pid}).encode() + b"\n")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(answers, json.dumps({"status": status}).encode() + b"\n")
    return None


def become(order: dict[str, Any]) -> None:
    """Be the process that is ordered."""
    os.chdir(order["cwd"])
    os.environ.update(order["environment"])
    for path, number in zip([os.devnull, *order["files"]], range(3), strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    first, *words = order["command"]
    if first == "-c":
        code, *words = words
        sys.argv = ["-c", *words]
        sys.path.insert(0, "")
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif first == "-m":
        sys.argv = words
        sys.path.insert(0, order["cwd"])
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *words]
        sys.path.insert(0, str(Path(first).resolve().parent))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    del sys.path[0]  # the tests' own folder
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()
    if (ordered := serve()) is not None:
        become(ordered)
