"""The code blocks of the documentation, and how one page of them is run.

As a program: docs_pages.py PAGE runs the page's blocks in order in the current folder: ```python blocks in one namespace, each line of
a ```console block as a process: `csmae` and the scripts forked from the page's, for which a warm process imports torch and
Transformers once for all pages. Blocks of the languages in SHOWN are not run, nor what follows a line `<!-- not run: reason -->`.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

RUN = ("python", "console")
SHOWN = ("text", "bibtex", "yaml", "bash", "")
SKIP = re.compile(r"<!-- not run: \S.*-->")
SHRINK = "DOCS_SHRINK"
"""Environment variable with arguments that make the pre-trainings of a page small."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line's number, and whether the page says not to run it."""

    language: str
    text: str
    line: int
    skipped: bool


def read_blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, those in lists too."""
    blocks = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = re.fullmatch(r"(\s*)```(\w*)", lines[number])
        if opening:
            first = number + 1
            number = first
            while number < len(lines) and lines[number].strip() != "```":
                number += 1
            if number == len(lines):
                raise ValueError(f"{page.name}: the block of line {first} is not closed.")
            text = "\n".join(line.removeprefix(opening[1]) for line in lines[first:number])
            before = next((line for line in reversed(lines[: first - 1]) if line.strip()), "")
            blocks.append(Block(opening[2], text, first + 1, bool(SKIP.fullmatch(before.strip()))))
        number += 1
    return blocks


def commands(text: str) -> Iterator[str]:
    """Commands of a console block: continued lines joined, comments, blank lines and `$ ` left out."""
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        command = line.strip().removeprefix("$ ")
        if command and not command.startswith("#"):
            yield command


def is_runnable(block: Block) -> bool:
    """Whether the block is to be run."""
    return block.language in RUN and not block.skipped


def run_page(page: Path) -> None:
    """Run a page's blocks; ends the process with the place and the error of the first that fails."""
    space: dict[str, object] = {"__name__": "__main__"}
    for block in filter(is_runnable, read_blocks(page)):
        place = f"{page.name}, line {block.line}"
        if block.language == "python":
            code = "\n" * (block.line - 1) + block.text  # so that a traceback has the page's lines
            exec(compile(code, page.name, "exec"), space)
            continue
        for command in commands(block.text):
            if command.startswith("make "):
                continue  # the README's two commands: what CI runs anyway
            small = f" {os.environ[SHRINK]}" if SHRINK in os.environ and "run_pretraining.py" in command else ""
            status, said = run_command(command + small)
            if status:
                sys.exit(f"{place}: `{command}` ended with {status}:\n{said[-4000:]}")


def run_command(command: str) -> tuple[int, str]:
    """Run a command as a process of its own: its status, and what it said."""
    words = shlex.split(command)
    program = words[1] if words[0] == "python" and len(words) > 1 else words[0]
    if not re.search(r"[|<>&;$*`]", command) and (program == "csmae" or program.startswith("run_")):
        return in_child(lambda: run_program(program, words[words.index(program) :]))
    shell = subprocess.run(command, shell=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return shell.returncode, shell.stdout + shell.stderr


def run_program(program: str, argv: list[str]) -> None:
    """Become `csmae` or one of the scripts."""
    sys.argv = argv
    if program == "csmae":
        from csmae_doctor import main

        sys.exit(main())
    runpy.run_path(program, run_name="__main__")


def in_child(action: Callable[[], None]) -> tuple[int, str]:
    """Do something in a forked process, which has imported already what this one has: its status, and what it said."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(status_of(action))
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode(errors="replace")


def status_of(action: Callable[[], None]) -> int:
    """The exit status of an action, its error printed as Python would."""
    status = 0
    try:
        action()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    run_page(Path(sys.argv[1]))
