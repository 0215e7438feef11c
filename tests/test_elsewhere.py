"""What Windows and macOS lack is not needed: simulated here, where neither is at hand."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_archives import write_archive

from csmae_doctor import examine_system

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("*.py"), *ROOT.glob("csmae_hf/**/*.py")])
POSIX_MODULES = {"fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios", "tty", "pty"}
POSIX_NAMES = {
    "os": {
        "O_DIRECTORY",
        "chown",
        "fork",
        "forkpty",
        "getegid",
        "geteuid",
        "getgid",
        "getloadavg",
        "getpgid",
        "getuid",
        "killpg",
        "mkfifo",
        "nice",
        "posix_fadvise",
        "sched_getaffinity",
        "sched_setaffinity",
        "setpgid",
        "setsid",
        "statvfs",
        "sync",
        "sysconf",
        "uname",
        "wait",
        "wait3",
        "wait4",
    },
    "signal": {
        "SIGALRM",
        "SIGHUP",
        "SIGKILL",
        "SIGPIPE",
        "SIGQUIT",
        "SIGUSR1",
        "SIGUSR2",
        "alarm",
        "pause",
        "pthread_kill",
        "setitimer",
        "sigwait",
    },
}


def unguarded(source):
    """Names that POSIX alone has, in a file's code, and no `hasattr`, `getattr` or `except ImportError` about them."""
    tree = ast.parse(source)
    asked = {
        (call.args[0].id, call.args[1].value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("hasattr", "getattr")
        and isinstance(call.args[0], ast.Name)
        and isinstance(call.args[1], ast.Constant)
    }
    tried = {
        node
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try)
        and any("ImportError" in ast.unparse(handler.type or attempt) for handler in attempt.handlers)
        for node in ast.walk(attempt)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            if node.attr in POSIX_NAMES.get(node.value.id, ()) and pair not in asked:
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import | ast.ImportFrom) and node not in tried:
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name in POSIX_MODULES)


def test_nothing_that_posix_alone_has_is_used_unasked():
    found = {str(path.relative_to(ROOT)): list(unguarded(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert len(found) > 150
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code", ["import fcntl", "import os\nos.fork()", "import signal\nsignal.SIGKILL", "from pwd import getpwnam"]
)
def test_the_search_for_it_finds_it(code):
    assert list(unguarded(code))


def test_no_two_files_of_the_package_differ_in_case_alone_or_have_a_name_that_windows_refuses():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    names = listed.stdout.splitlines()
    assert len({name.casefold() for name in names}) == len(names)
    reserved = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}
    for name in names:
        for part in name.split("/"):
            assert not set(part) & set('<>:"\\|?*'), name
            assert part.split(".")[0].casefold() not in reserved, name
            assert not part.endswith((" ", ".")), name


ELSEWHERE = """
import multiprocessing, os, signal, sys

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    for module, name in ((os, "sched_getaffinity"), (os, "fork"), (signal, "pthread_kill"), (signal, "SIGPIPE")):
        delattr(module, name)
    from csmae_hf.commands.main import main
    for line in sys.stdin.read().splitlines():
        status = main(line.split("\\t"))
        assert status == 0, (line, status)
"""


@pytest.mark.slow
def test_commands_that_share_work_run_where_processes_are_spawned(tmp_path):
    archive = write_archive(tmp_path / "tiles")
    lines = [
        ["verify", archive / "lmdb", "--workers", "2"],
        ["stats", archive, tmp_path / "processor", "--num_workers", "1"],
    ]
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    result = subprocess.run(
        [sys.executable, str(script)],
        input="\n".join("\t".join(map(str, line)) for line in lines),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize(
    ("system", "said"), [("Windows", "spawned"), ("Darwin", "spawned"), ("Linux", "tested"), ("", "unknown")]
)
def test_the_doctor_says_what_cannot_run_where(system, said):
    assert any(said in finding.text for finding in examine_system(system))
