"""The `csmae` command as a whole: quick to help, and results apart from what is said on the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csmae_hf.commands.main import VERBS, build_parser, main

HELP_OF_ALL = """
import contextlib, io, sys
import csmae_doctor
texts = []
for words in ([], *([name.replace("_", "-")] for name in VERBS), ["archive", "build"]):
    sys.argv = ["csmae", *words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            csmae_doctor.main()
        except SystemExit as end:
            assert end.code == 0, (words, end.code)
    texts.append(said.getvalue())
assert all(len(text) > 150 for text in texts)
print([name for name in ("torch", "transformers", "numpy", "datasets", "csmae_hf") if name in sys.modules])
"""


def run(code: str, *arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env={**os.environ, **options}, capture_output=True, text=True, check=False)


def test_help_of_every_verb_imports_neither_torch_nor_transformers() -> None:
    helped = run(f"VERBS = {VERBS}\n{HELP_OF_ALL}")
    assert helped.stdout == "[]\n", helped.stderr


def test_a_mistake_on_the_command_line_imports_nothing_either() -> None:
    code = (
        "import sys, atexit, csmae_doctor; atexit.register(lambda: print('torch' in sys.modules)); csmae_doctor.main()"
    )
    mistaken = run(code, "sample")
    assert mistaken.returncode == 2
    assert "required: folder" in mistaken.stderr
    assert mistaken.stdout == "False\n"


def test_every_verb_has_a_file_and_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(sys.modules[main.__module__].__file__ or "").parent
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", "ending", "main", "options", *VERBS}
    said = build_parser().format_help()
    assert all(f"    {name.replace('_', '-')}" in said for name in VERBS)


def test_warnings_of_torchao_that_no_command_can_heed_are_not_shown(tmp_path: Path) -> None:
    """Transformers imports torchao where it is installed; here a command that warns as torchao does."""
    code = (
        "import logging, sys\nfrom csmae_hf.commands import info, main\n"
        "def run(_):\n"
        "    for name in ('torchao', 'torchao.kernel.intmm', 'torch.utils._pytree', 'csmae_hf'):\n"
        "        logging.getLogger(name).warning('from %s', name)\n"
        "info.run = run\nsys.exit(main.main(['info', sys.argv[1]]))"
    )
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["from csmae_hf"]


def test_the_installed_command_runs_a_verb_and_keeps_results_apart(tmp_path: Path) -> None:
    code = "import sys, csmae_doctor; sys.exit(csmae_doctor.main())"
    made = run(code, "sample", str(tmp_path / "sample"), "--tiles", "5")
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"Sample archive of 5 synthetic tiles: {tmp_path / 'sample'}\n"
    read = run(code, "verify", str(tmp_path / "sample"), "--workers", "0")
    assert read.returncode == 0, read.stderr
    assert "10 values read" in read.stdout
    assert "10 values read" not in read.stderr
    missing = run(code, "info", str(tmp_path / "nowhere"))
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "csmae: " in missing.stderr
