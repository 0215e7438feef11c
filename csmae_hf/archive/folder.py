"""The folder of an archive: files named by their content, and one JSON that names them.

Nothing that the JSON names is ever written to. A change writes new files beside the old, replaces the JSON in one step, and only then
removes what it no longer names: a crash at any moment leaves the archive before or after the change, never one between.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from csmae_hf.archive.held import Held, Stored
from csmae_hf.embedding.identity import METRIC, ArchiveMismatchError, Identity
from csmae_hf.embedding.provenance import alignment_hash
from csmae_hf.files import LOCK_NAME, Entry, write_atomically, write_file
from csmae_hf.search.build_index import open_index
from csmae_hf.search.recall import Recall, with_buckets
from csmae_hf.search.vectors import Vectors

MANIFEST = "archive.json"
FORMAT = "csmae-archive"
VERSION = 2
"""Written by this release; version 1 lacks the configuration of the model, and is read as well."""
TENSOR = "embeds"

_OWN_FILE = re.compile(r"(?:embeds|tiles|index|alignment)[\w-]*-[0-9a-f]{12}\.[a-z]+|\.writing-\w+")
"""Names of files that an archive holds, or that a crash of `save` may have left."""

OWN_FILES = ("embeds*-*.safetensors", "tiles*-*.parquet", "index*-*.*", "alignment*-*.*")
"""Patterns of the files of an archive besides its JSON; their names hold a hash of what is in them."""


HeldT = TypeVar("HeldT", bound=Held)


class ArchiveCorruptError(ValueError):
    """A file of an archive that is not what was written."""


def save_archive(held: Held, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write an archive to a folder. See [`Archive.save`]."""
    folder = Path(path)
    own = held.stored.signature if held.stored.folder == folder.resolve() else None
    refuse_loss(folder, overwrite, own)  # before the folder is made
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_NAME):
        refuse_loss(folder, overwrite, own)  # another process may have saved while this one waited
        held.stored.signature = publish(folder, _write_parts(held, folder))
    held.stored.folder = folder.resolve()
    return folder


def _write_parts(held: Held, folder: Path) -> dict[str, Any]:
    """Write what is not there yet, and describe the archive."""

    def part(key: str, content: Any, write: Callable[[], Entry]) -> Entry:
        known, entry = held.stored.parts.get(key, (None, Entry("", "", -1)))
        path = folder / entry.name
        if known is not content or not path.is_file() or path.stat().st_size != entry.size:
            entry = write()
            held.stored.parts[key] = content, entry
        return entry

    tiles = part("tiles", held.tiles, partial(_write_table, folder, held.tiles))
    files = [tiles]
    sensors: dict[str, Any] = {}
    for sensor, vectors in held.vectors.items():
        entry = part(f"embeds-{sensor}", vectors, partial(write_vectors, folder, sensor, vectors))
        described, index_files = _write_index(held, sensor, folder)
        files += [entry, *index_files]
        sensors[sensor] = {"file": entry.name, "index": described}
    if held.alignment is not None:
        files.append(write_file(folder, "alignment", ".safetensors", held.alignment.to_bytes()))
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_with": asdict(held.identity),
        "provenance": {name: value for name, value in held.provenance.as_dict().items() if name != "made_with"},
        "tiles": {"count": len(held), "file": tiles.name},
        "width": held.width,
        "sensors": sensors,
        "alignment": None if held.alignment is None else files[-1].name,
        "recall": [recall.to_dict() for recall in held.recall],
        "unreadable": held.unreadable,
        "source": held.source,
        "files": {entry.name: {"sha256": entry.sha256, "size": entry.size} for entry in files},
    }


def _write_index(held: Held, sensor: str, folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    """Write the index of a sensor where it lies in a file; one that was not opened stays as it is."""
    if sensor not in held.stored.indexes:
        index = held.indexes[sensor]
        described: dict[str, Any] = {"backend": index.backend, "parameters": index.parameters}
        entry = index.write(folder, sensor)
        return (described, []) if entry is None else (described | {"file": entry.name}, [entry])
    described = dict(held.stored.indexes[sensor])
    if "file" not in described or held.stored.folder is None:
        return described, []
    content = (held.stored.folder / described["file"]).read_bytes()
    entry = write_file(folder, f"index-{sensor}", Path(described["file"]).suffix, content)
    return described | {"file": entry.name}, [entry]


def open_archive(
    kind: type[HeldT], path: str | os.PathLike[str], *, verify: bool, index: bool, token: str, uri: str
) -> HeldT:
    """Make an archive, of a class, of a folder. See [`Archive.load`]."""
    folder = Path(path)
    while True:
        manifest = read_manifest(folder)
        try:
            held = _read_parts(kind, folder, manifest, verify)
            if index and len(held):
                _open_indexes(held, folder, manifest["sensors"], token, uri)
            return held
        except FileNotFoundError:
            if read_manifest(folder) == manifest and not all((folder / name).exists() for name in manifest["files"]):
                raise
            # Else another process replaced the archive meanwhile.


def _read_parts(kind: type[HeldT], folder: Path, manifest: Mapping[str, Any], verify: bool) -> HeldT:
    """All but the indexes."""
    identity = Identity(**manifest["made_with"])
    if identity.metric != METRIC:
        raise ArchiveMismatchError(
            f"{folder} compares tiles by the metric {identity.metric!r}; this release by {METRIC!r} only. Build the archive again."
        )
    sensors: Mapping[str, Any] = manifest["sensors"]
    named = [manifest["tiles"], *sensors.values()]
    named += [item["index"] for item in sensors.values() if "file" in item["index"]]
    files = {item["file"] for item in named} | ({manifest["alignment"]} if manifest["alignment"] else set())
    if not files <= set(manifest["files"]):
        raise ArchiveCorruptError(f"{folder} does not describe its file {min(files - set(manifest['files']))!r}.")
    _check_files(folder, manifest["files"], verify)
    tiles = _read_table(folder / manifest["tiles"]["file"])
    vectors = {
        sensor: Vectors([read_vectors(folder / item["file"])], manifest["width"]) for sensor, item in sensors.items()
    }
    if any(part.shape != (tiles.num_rows, manifest["width"]) for part in vectors.values()):
        raise ArchiveCorruptError(f"{folder}: there are not as many embeds as tiles. Copy or build the archive again.")
    alignment = None
    if manifest["alignment"] is not None:
        from csmae_hf.embedding.alignment import Alignment

        alignment = Alignment.load(folder / manifest["alignment"])
    record = manifest.get("provenance") or {}  # earlier releases recorded less
    if record and record["alignment_hash"] != alignment_hash(alignment):
        raise ArchiveMismatchError(
            f"{folder} was made with the alignment {record['alignment']} ({str(record['alignment_hash'])[:12]}) and holds "
            f"{'none' if alignment is None else alignment.method} ({str(alignment_hash(alignment))[:12]}). Copy or build it again."
        )
    told = {name: manifest[name] for name in ("unreadable", "source")}
    told |= {"generated": record.get("generated"), "data_name": record.get("data")}
    held = kind(tiles, vectors, identity, alignment=alignment, **told)
    held.recall = [Recall(**recall) for recall in manifest["recall"]]
    parts = {"tiles": (held.tiles, manifest["tiles"]["file"])}
    parts |= {f"embeds-{sensor}": (held.vectors[sensor], item["file"]) for sensor, item in sensors.items()}
    held.stored = Stored(
        folder.resolve(),
        _sign(manifest),
        {key: (content, Entry(name, **manifest["files"][name])) for key, (content, name) in parts.items()},
        {sensor: item["index"] for sensor, item in sensors.items() if item["index"]["backend"] != "exact"},
    )
    return held


def _open_indexes(held: Held, folder: Path, sensors: Mapping[str, Any], token: str, uri: str) -> None:
    buckets = with_buckets(held.tiles, held.ids)
    for sensor, item in sensors.items():
        held.indexes[sensor] = open_index(item["index"], folder, held.vectors[sensor], buckets, token, uri)
        if held.indexes[sensor].backend == item["index"]["backend"]:
            held.stored.indexes.pop(sensor, None)


def write_vectors(folder: Path, sensor: str, vectors: Vectors) -> Entry:
    """Write the unit vectors of a sensor, (N, D), as safetensors, a chunk at a time."""
    size = 4 * len(vectors) * vectors.width
    described = {"dtype": "F32", "shape": list(vectors.shape), "data_offsets": [0, size]}
    header = json.dumps({TENSOR: described}).encode()
    header += b" " * (-len(header) % 8)  # the format aligns data to 8 bytes

    def write(stream: Any) -> None:
        stream.write(len(header).to_bytes(8, "little") + header)
        for chunk in vectors.chunks():
            stream.write(chunk.contiguous().numpy().astype("<f4", copy=False).data)

    return write_file(folder, f"embeds-{sensor}", ".safetensors", write)


def read_vectors(path: Path) -> torch.Tensor:
    """Map a file of unit vectors, (N, D) float32, into memory; pages are read when they are looked at."""
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


def _write_table(folder: Path, table: pa.Table) -> Entry:
    return write_file(folder, "tiles", ".parquet", lambda stream: pq.write_table(table, stream))


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise ArchiveCorruptError(f"{path} cannot be read: {error}. Copy or build the archive again.") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the JSON of an archive, refusing one that is broken, was changed, or is of a later version."""
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
    if signature != _sign(manifest):
        raise ArchiveCorruptError(
            f"{path} was changed after it was written: its checksum does not fit. Copy or build it again."
        )
    return manifest


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], verify: bool) -> None:
    """Refuse files that are missing, cut short or, where all are read to verify their hashes, changed."""
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
        if not verify:
            continue
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != wanted["sha256"]:
                raise ArchiveCorruptError(
                    f"{path} is damaged: its SHA-256 is not the one written. Copy or build the archive again."
                )


def publish(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Make a manifest the archive's, in one step, and remove what it does not name. To be called while the folder is locked.

    The folder holds all files that the manifest names. Returns the manifest's checksum.
    """
    signature = _sign(manifest)
    text = json.dumps({**manifest, "sha256": signature}, indent=2, ensure_ascii=False)
    write_atomically(folder / MANIFEST, text)
    for path in folder.iterdir():
        if _OWN_FILE.fullmatch(path.name) and path.name not in manifest["files"]:
            path.unlink(missing_ok=True)
    return signature


def refuse_loss(folder: Path, overwrite: bool, own: str | None = None) -> None:
    """Refuse a folder where writing an archive would lose something: with a FileExistsError that says what to do.

    To overwrite an archive there has to be asked for, unless its manifest has the checksum `own`: the archive to be written was opened
    from it. Files of no archive are never replaced.
    """
    path = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; an archive is a folder.")
    if not path.exists():
        # `glob` gives nothing of a folder that is not there
        others = [
            item.name for item in folder.glob("*") if not _OWN_FILE.fullmatch(item.name) and item.name != LOCK_NAME
        ]
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


def _sign(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
