"""The code blocks of the documentation, and how one page of them is run.

As a program: docs_pages.py PAGE runs the page's blocks in order in the current folder: ```python blocks in one namespace, each line of
a ```console block in a shell. ```text and ```bibtex blocks are not run, nor what follows a line `<!-- not run: reason -->`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUN = ("python", "console")
SHOWN = ("text", "bibtex", "")
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
            shell = subprocess.run(
                command + small, shell=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            if shell.returncode:
                sys.exit(
                    f"{place}: `{command}` ended with {shell.returncode}:\n{shell.stdout[-1500:]}\n{shell.stderr[-3000:]}"
                )


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
