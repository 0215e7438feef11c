"""Files that appear whole or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: a crash leaves what was there before.

    Args:
        path: The file, in a folder that exists.
        content: Text (written as UTF-8) or bytes.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it the owner's alone
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


class _Hashed:
    """A binary file that is hashed while it is written."""

    def __init__(self, stream: IO[bytes]):
        self.stream = stream
        self.hash = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self.stream.write(data)

    def flush(self) -> None:
        self.stream.flush()

    def tell(self) -> int:
        return self.stream.tell()


def write_file(folder: Path, stem: str, suffix: str, write: Callable[[Any], None]) -> Entry:
    """Write a file under a name that holds its hash, whole or not at all.

    Args:
        folder: Where.
        stem: First part of its name.
        suffix: Last part of its name.
        write: Writes the content to a stream.

    Returns:
        What was written.
    """
    handle, temporary = tempfile.mkstemp(prefix=".writing-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            hashed = _Hashed(stream)
            write(hashed)
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
        os.chmod(temporary, 0o644)  # mkstemp makes it the owner's alone
        digest = hashed.hash.hexdigest()
        name = f"{stem}-{digest[:12]}{suffix}"
        os.replace(temporary, folder / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return Entry(name, digest, size)
