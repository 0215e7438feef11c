"""Warm processes are processes as `python` starts them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from warm import Warm

SHOW = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ.get("TOLD"), sys.path[0], __name__, sys.stdin.read())
print("json" in sys.modules, file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def light(forks: None) -> Iterator[Warm]:
    """A server that imports next to nothing."""
    with Warm(os.environ, ["colorsys"]) as server:
        yield server


@pytest.mark.parametrize("form", ["code", "script", "module"])
def test_arguments_folder_environment_output_and_status_are_those_of_a_cold_process(
    light: Warm, tmp_path: Path, form: str
) -> None:
    (tmp_path / "shown.py").write_text(SHOW)
    command = {"code": ["-c", SHOW], "script": [str(tmp_path / "shown.py")], "module": ["-m", "shown"]}[form]
    warm = light.run([*command, "3", "b c"], cwd=tmp_path, TOLD="so")
    cold = subprocess.run(
        [sys.executable, *command, "3", "b c"],
        cwd=tmp_path,
        env={**os.environ, "TOLD": "so"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (warm.returncode, warm.stdout) == (cold.returncode, cold.stdout)
    assert (warm.stderr, cold.stderr) == ("True\n", "False\n")


def test_errors_ends_and_signals_are_those_of_a_cold_process(light: Warm) -> None:
    failed = light.run(["-c", "import atexit; atexit.register(print, 'bye'); 1 / 0"])
    assert (failed.returncode, failed.stdout) == (1, "bye\n")
    assert failed.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert light.run(["-c", "import sys; sys.exit('no')"]).stderr == "no\n"
    sleeping = light.start(["-c", "import time; time.sleep(100)"])
    assert sleeping.poll() is None
    with pytest.raises(RuntimeError, match="was not waited for"):
        light.start(["-c", ""])
    sleeping.send_signal(signal.SIGTERM)
    assert sleeping.wait().returncode == -signal.SIGTERM
    assert sleeping.poll() == -signal.SIGTERM


def test_what_takes_too_long_is_killed_and_the_next_one_runs(light: Warm) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        light.run(["-c", "import time; time.sleep(100)"], timeout=0.2)
    assert light.run(["-c", "print(1)"]).stdout == "1\n"


def test_what_is_read_on_import_cannot_be_changed(light: Warm) -> None:
    with pytest.raises(ValueError, match="HF_HOME: read on import"):
        light.run(["-c", ""], HF_HOME="elsewhere")
