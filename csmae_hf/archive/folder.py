"""The folder of an archive: files named by their content, and one JSON that names them.

Nothing that the JSON names is ever written to. A change writes new files beside the old, replaces the JSON in one step, and only then
removes what it no longer names: a crash at any moment leaves the archive before or after the change, never one between.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from csmae_hf.files import LOCK_NAME, Entry, write_atomically, write_file
from csmae_hf.search.vectors import Vectors

MANIFEST = "archive.json"
FORMAT = "csmae-archive"
VERSION = 2
"""Written by this release; version 1 lacks the configuration of the model, and is read as well."""
TENSOR = "embeds"

_OWN_FILE = re.compile(r"(?:embeds|tiles|index|alignment)[\w-]*-[0-9a-f]{12}\.[a-z]+|\.writing-\w+")


OWN_FILES = ("embeds*-*.safetensors", "tiles*-*.parquet", "index*-*.*", "alignment*-*.*")
"""Patterns of the files of an archive besides its JSON; their names hold a hash of what is in them."""


class ArchiveCorruptError(ValueError):
    """A file of an archive that is not what was written."""


def write_vectors(folder: Path, sensor: str, vectors: Vectors) -> Entry:
    """Write the unit vectors of a sensor as safetensors, a chunk at a time.

    Args:
        folder: Where.
        sensor: Their sensor.
        vectors: (N, D).

    Returns:
        What was written.
    """
    size = 4 * len(vectors) * vectors.width
    described = {"dtype": "F32", "shape": list(vectors.shape), "data_offsets": [0, size]}
    header = json.dumps({TENSOR: described}).encode()
    header += b" " * (-len(header) % 8)  # the format aligns data to 8 bytes

    def write(stream: Any) -> None:
        stream.write(len(header).to_bytes(8, "little") + header)
        for chunk in vectors.chunks():
            stream.write(chunk.contiguous().numpy().astype("<f4", copy=False).data)

    return write_file(folder, f"embeds-{sensor}", ".safetensors", write)


def write_table(folder: Path, table: pa.Table) -> Entry:
    """Write the metadata of the tiles as Parquet."""
    return write_file(folder, "tiles", ".parquet", lambda stream: pq.write_table(table, stream))


def read_vectors(path: Path) -> torch.Tensor:
    """Map a file of unit vectors into memory.

    Args:
        path: As of `write_vectors`.

    Returns:
        (N, D) float32; pages are read when they are looked at.

    Raises:
        FileNotFoundError: If it is not there.
        ArchiveCorruptError: If it is no such file.
    """
    try:
        with safe_open(str(path), framework="pt") as stream:
            tensor: torch.Tensor = stream.get_tensor(TENSOR)
    except (SafetensorError, OSError, RuntimeError) as error:  # torch maps the file, and raises RuntimeError
        # a process that saves may have taken it away, and perhaps put it back since
        if not path.exists() or os.strerror(errno.ENOENT) in str(error):
            raise FileNotFoundError(f"No file {path}.") from error
        raise ArchiveCorruptError(f"{path} cannot be read: {error}. Copy or build the archive again.") from error
    if tensor.ndim != 2 or tensor.dtype != torch.float32:
        raise ArchiveCorruptError(
            f"{path} holds {tensor.dtype} of shape {tuple(tensor.shape)}; expected float32 (tiles, width)."
        )
    return tensor


def read_table(path: Path) -> pa.Table:
    """Read the metadata of the tiles.

    Raises:
        FileNotFoundError: If it is not there.
        ArchiveCorruptError: If it is no such file.
    """
    try:
        return pq.read_table(path, partitioning=None)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise ArchiveCorruptError(f"{path} cannot be read: {error}. Copy or build the archive again.") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the JSON of an archive.

    Args:
        folder: The archive.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: If the folder is no archive.
        ArchiveCorruptError: If the JSON is broken or of a later version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"No archive at {folder}: expected a folder with {MANIFEST}. Build one with `csmae archive build`."
        )
    try:
        manifest = json.loads(path.read_bytes())
        signature = manifest.pop("sha256")
        described = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveCorruptError(f"{path} is broken: {error!r}. Copy or build the archive again.") from error
    if described[0] != FORMAT or described[1] not in (1, VERSION):
        raise ArchiveCorruptError(
            f"{path} is {described[0]} version {described[1]}; this release reads {FORMAT} version {VERSION} and older. "
            "Update csmae-hf."
        )
    if signature != sign(manifest):
        raise ArchiveCorruptError(
            f"{path} was changed after it was written: its checksum does not fit. Copy or build it again."
        )
    return manifest


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], *, verify: bool) -> None:
    """Refuse files that are missing, cut short or changed.

    Args:
        folder: The archive.
        files: Size and SHA-256 by name.
        verify: Whether to read all of them for their hashes; sizes are always checked.

    Raises:
        FileNotFoundError: A file is missing.
        ArchiveCorruptError: A file is not what was written; named.
    """
    for name, wanted in files.items():
        if Path(name).name != name:
            raise ArchiveCorruptError(f"{folder} names the file {name!r}: an archive has files in its own folder only.")
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"The archive {folder} lacks its file {name}: copy all of the folder.")
        size = path.stat().st_size
        if size != wanted["size"]:
            raise ArchiveCorruptError(
                f"{path} has {size} bytes, not {wanted['size']}: it was cut short or changed. Copy or build the archive again."
            )
        if verify and file_hash(path) != wanted["sha256"]:
            raise ArchiveCorruptError(
                f"{path} is damaged: its SHA-256 is not the one written. Copy or build the archive again."
            )


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who changes an archive, among processes that ask; others wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_NAME):
        yield


def publish(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Make a manifest the archive's, in one step, and remove what it does not name. To be called while `locked`.

    Args:
        folder: The archive, which holds all files that the manifest names.
        manifest: With `files`.

    Returns:
        The manifest's checksum.
    """
    signature = sign(manifest)
    text = json.dumps({**manifest, "sha256": signature}, indent=2, ensure_ascii=False)
    write_atomically(folder / MANIFEST, text)
    for path in folder.iterdir():
        if is_stray(path.name) and path.name not in manifest["files"]:
            path.unlink(missing_ok=True)
    return signature


def refuse_loss(folder: Path, overwrite: bool, own: str | None = None) -> None:
    """Refuse a folder where writing an archive would lose something.

    Args:
        folder: Where the archive is to be written.
        overwrite: Whether an archive there may be replaced; other files never are.
        own: Checksum of the manifest that may be replaced, because the archive was opened from it.

    Raises:
        FileExistsError: If the folder holds another archive, or files of no archive; with what to do.
    """
    path = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; an archive is a folder.")
    if not path.exists():
        others = [item.name for item in folder.glob("*") if not is_stray(item.name) and item.name != LOCK_NAME]
        if others:
            raise FileExistsError(f"{folder} holds {others[0]}, which is of no archive; choose another folder.")
        return
    try:
        held = json.loads(path.read_bytes())
        count = held["tiles"]["count"] if held["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError, OSError):
        count = None
    if count is None:
        raise FileExistsError(f"{folder} holds {MANIFEST}, which is of no archive; choose another folder.")
    if not overwrite and (own is None or held.get("sha256") != own):
        changed = "" if own is None else " It was changed since this archive was opened: open it again."
        raise FileExistsError(
            f"{folder} holds an archive of {count} tiles already, which would be lost.{changed} To add tiles to it: "
            f"`csmae archive add {folder} DATA`; to replace it: --overwrite (in Python overwrite=True); else choose another folder."
        )


def is_stray(name: str) -> bool:
    """Whether a file's name is one that a crash of `save` may have left."""
    return _OWN_FILE.fullmatch(name) is not None


def sign(manifest: Mapping[str, Any]) -> str:
    """Checksum of a manifest."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
