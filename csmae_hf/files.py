"""The one way to write files and folders: they appear whole or not at all, and survive a power cut once they are there.

What is being written lies beside its place under a name that begins with `TEMPORARY`. A killed process leaves that behind, and
whoever writes to the same folder a day later removes it.
"""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, NamedTuple

TEMPORARY = ".writing-"
"""Beginning of the names of what is not whole yet."""

LOCK_NAME = ".lock"
"""File by which the processes that write to a folder keep out of each other's way; it is no part of what the folder holds."""

_ABANDONED_SECONDS = 24 * 3600  # far more than a living process needs between two writes, asleep over night included

_MOST_YAML = 1 << 20

Content = str | bytes | Callable[[IO[bytes]], object]
"""Text (written as UTF-8), bytes, or a function that writes to the binary stream it is given."""


class Entry(NamedTuple):
    """A file written under a name that holds its hash.

    Attributes:
        name: Its name in the folder.
        sha256: Of its content.
        size: Bytes.
    """

    name: str
    sha256: str
    size: int


def write_atomically(path: Path, content: Content) -> None:
    """Write a file whole or not at all: a crash leaves what was there before. Of several writers the last stays.

    Args:
        path: The file; its folder is made.
        content: What is written.

    Raises:
        OSError: If the disk is full, or the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _written(path.parent, content, lambda stream: stream) as (temporary, _):
        os.replace(temporary, path)


def read_yaml(path: Path) -> dict[Any, Any]:
    """Read a YAML file, a mapping of plain values; an empty one is an empty mapping.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no YAML of plain values, the message says in which line, or no mapping.
    """
    import yaml  # here, so that files alone cost no import of it

    if path.stat().st_size > _MOST_YAML:
        raise ValueError(f"{path} is larger than {_MOST_YAML >> 20} MiB: no YAML file that a person would write.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no YAML file: it is not text in UTF-8 (byte {error.start}).") from error
    except RecursionError as error:
        raise ValueError(f"{path} is no YAML file that can be read: it is nested too deeply.") from error
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2020-13-45 is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{path} is no YAML file of plain values: {what}{where}. Mend it there.") from error
    if not isinstance(content, dict | None):
        raise ValueError(f"{path} holds a {type(content).__name__}: expected a mapping, `name: value` line by line.")
    return content or {}


def write_file(folder: Path, stem: str, suffix: str, content: Content) -> Entry:
    """Write a file under a name that holds its hash, whole or not at all.

    Args:
        folder: Where; it exists.
        stem: First part of its name.
        suffix: Last part of its name.
        content: What is written.

    Returns:
        What was written.
    """
    with _written(folder, content, _Hashed) as (temporary, hashed):
        digest = hashed.hash.hexdigest()
        entry = Entry(f"{stem}-{digest[:12]}{suffix}", digest, temporary.stat().st_size)
        os.replace(temporary, folder / entry.name)
    return entry


@contextmanager
def staged_folder(path: Path, *, overwrite: bool = False, own: Sequence[str] = ()) -> Iterator[Path]:
    """Give a folder to fill, which becomes `path` if all goes well and is removed if not.

    Args:
        path: The folder to make.
        overwrite: Whether it may take the place of a folder made before, which is moved aside, and removed when the new one is there.
        own: As of [`refuse_existing`].

    Raises:
        FileExistsError: As of [`refuse_existing`], before or after.
    """
    refuse_existing(path, overwrite=overwrite, own=own)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = _temporary_in(path.parent)
    staged.mkdir()
    try:
        yield staged
        for item in (*staged.rglob("*"), staged):
            sync(item)
        refuse_existing(path, overwrite=overwrite, own=own)
        aside = _temporary_in(path.parent)
        if path.is_dir():
            path.rename(aside)
        try:
            staged.rename(path)
        except BaseException:
            if aside.is_dir():
                aside.rename(path)
            raise
        sync(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def refuse_existing(path: Path, *, overwrite: bool = False, own: Sequence[str] = ()) -> None:
    """Refuse a place where something lies: the one rule of every command that writes to a place it is given.

    Args:
        path: The place.
        overwrite: Whether a file may be replaced there, or a folder in which nothing but files of ours lies.
        own: Patterns of the names of all files that a folder of ours holds; empty where a file is to be written.

    Raises:
        FileExistsError: If something lies there that may not be replaced; the message says what would let it.
    """
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise FileExistsError(
            f"{path} exists already and is not overwritten: choose another place, or replace it by --overwrite (in Python "
            "overwrite=True)."
        )
    if path.is_dir() != bool(own) or path.is_symlink():
        what = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a file"
        raise FileExistsError(f"{path} is {what}, which this does not replace: choose another place.")
    foreign = [item.name for item in path.glob("*") if not any(fnmatchcase(item.name, pattern) for pattern in own)]
    if foreign:
        raise FileExistsError(f"{path} holds {foreign[0]}, which was not made by this command: choose another place.")


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut."""
    if os.name == "posix":  # Windows cannot open a folder, nor flush a file that is open to be read
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Hashed:
    """A binary file that is hashed while it is written."""

    closed = False

    def __init__(self, stream: IO[bytes]):
        self.hash = hashlib.sha256()
        self.stream = stream
        self.flush, self.tell = stream.flush, stream.tell

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self.stream.write(data)


@contextmanager
def _written(folder: Path, content: Content, wrap: Callable[[IO[bytes]], Any]) -> Iterator[tuple[Path, Any]]:
    """Write to a new file in a folder, give it and its wrapped stream to be put in place, and bring the name to disk."""
    temporary = _temporary_in(folder)
    try:
        with temporary.open("xb") as stream:  # of the mode that the umask asks for, as `mkstemp` would not make it
            wrapped = wrap(stream)
            if callable(content):
                content(wrapped)
            else:
                wrapped.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary, wrapped
        sync(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_in(folder: Path) -> Path:
    """A new name in a folder, after what killed processes have left there is removed."""
    for left in folder.glob(f"{TEMPORARY}*"):
        try:
            changed = max(item.stat().st_mtime for item in (left, *left.rglob("*")))
        except OSError:  # somebody else has just put it in place, or removed it
            continue
        if changed < time.time() - _ABANDONED_SECONDS:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return folder / f"{TEMPORARY}{secrets.token_hex(8)}"
