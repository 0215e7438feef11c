"""The folder of an archive: segments in files named by their content, and one JSON that names them.

Nothing that the JSON names is ever written to. A change writes new files beside the old, replaces the JSON in one step, and only then
removes what it no longer names: a crash at any moment leaves the archive before or after the change, never one between.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from csmae_hf.archive.held import Held, Stored, sets_of
from csmae_hf.archive.manifest import FORMAT, MANIFEST, OWN_FILE, VERSION, ArchiveCorruptError, read_manifest, sign
from csmae_hf.archive.segments import Segment, in_plain_types
from csmae_hf.embedding.identity import METRIC, ArchiveMismatchError, Identity
from csmae_hf.embedding.provenance import TileSets, alignment_hash, same_tiles
from csmae_hf.files import LOCK_NAME, TEMPORARY, Entry, write_atomically, write_file
from csmae_hf.search.build_index import open_index
from csmae_hf.search.compression import Compression
from csmae_hf.search.ids import ID, IdIndex
from csmae_hf.search.recall import Recall, with_buckets
from csmae_hf.search.vectors import IntArray, Vectors

__all__ = ["MANIFEST", "ArchiveCorruptError", "read_manifest"]

TENSOR = "embeds"
ROWS = "rows"

KEPT_ORDER = 16_384
"""Tiles from which on the order of a segment's ids is stored; of fewer it is found in milliseconds."""

OWN_FILES = (
    "embeds*-*.safetensors",
    "tiles*-*.parquet",
    "index*-*.*",
    "alignment*-*.*",
    "order-*.safetensors",
    "removed-*.safetensors",
)
"""Patterns of the files of an archive besides its JSON; their names hold a hash of what is in them."""

_LEFT = re.compile(rf"{OWN_FILE.pattern}|{re.escape(TEMPORARY)}\w+")
"""Names of files of an archive, or of what a crash of `save` may have left."""

HeldT = TypeVar("HeldT", bound=Held)

Parts = dict[int, tuple[Any, Entry]]


def save_archive(held: Held, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write an archive to a folder. See [`Archive.save`]."""
    folder = Path(path)
    _settle(held)
    own = held.stored.signature if held.stored.folder == folder.resolve() else None
    refuse_loss(folder, overwrite, own)  # before the folder is made
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK_NAME):
        refuse_loss(folder, overwrite, own)  # another process may have saved while this one waited
        parts: Parts = {}
        try:
            manifest = _write_parts(held, folder, parts)
            # Ctrl-C may come at any line: what is true is what the folder says, and this is how it is told
            begun = replace(held.stored, folder=folder.resolve(), signature=sign(manifest), parts=parts, begun=None)
            held.stored = replace(held.stored, begun=begun)
            publish(folder, manifest)
        except BaseException:
            there = _published(folder)
            _remove_unnamed(folder, {} if there is None else there["files"])
            raise
        _settle(held)
    return folder


def _settle(held: Held) -> None:
    """Take the last `save` for done if the folder holds what it was to publish."""
    begun = held.stored.begun
    if begun is None or begun.folder is None:
        return
    there = _published(begun.folder)
    done = there is not None and there["sha256"] == begun.signature
    held.stored = replace(begun, indexes=held.stored.indexes) if done else replace(held.stored, begun=None)


def _write_parts(held: Held, folder: Path, parts: Parts) -> dict[str, Any]:
    """Write what is not there yet, noting it in `parts`, and describe the archive."""
    files: dict[str, Entry] = {}

    def part(content: Any, write: Callable[[], Entry]) -> str:
        known, entry = held.stored.parts.get(id(content), (None, Entry("", "", -1)))
        path = folder / entry.name
        if known is not content or not path.is_file() or path.stat().st_size != entry.size:
            entry = write()
        parts[id(content)] = content, entry
        files[entry.name] = entry
        return entry.name

    segments = [
        {
            "count": segment.tiles.num_rows,
            "tiles": part(segment.tiles, partial(_write_table, folder, segment.tiles)),
            "embeds": {
                sensor: part(vectors, partial(write_vectors, folder, sensor, vectors))
                for sensor, vectors in segment.vectors.items()
            },
            "order": part(segment.ids, partial(_write_rows, folder, "order", segment.ids.order))
            if segment.tiles.num_rows >= KEPT_ORDER
            else None,
            "removed": part(segment.removed, partial(_write_rows, folder, "removed", segment.removed))
            if len(segment.removed)
            else None,
        }
        for segment in held.segments
    ]
    sensors: dict[str, Any] = {}
    for sensor in held.sensors:
        described, write = _index_of(held, sensor, folder)
        if write is not None:
            described["file"] = part(described["file"] if "file" in described else held.indexes[sensor], write)
        sensors[sensor] = {"index": described}
    alignment = held.alignment
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_with": asdict(held.identity),
        "provenance": {name: value for name, value in held.provenance.as_dict().items() if name != "made_with"},
        "tiles": {"count": len(held)},
        "width": held.width,
        "sensors": sensors,
        "segments": segments,
        "alignment": None
        if alignment is None
        else part(alignment, lambda: write_file(folder, "alignment", ".safetensors", alignment.to_bytes())),
        "recall": [recall.to_dict() for recall in held.recall],
        **({"compression": [measured.to_dict() for measured in held.compression]} if held.compression else {}),
        "unreadable": held.unreadable,
        "source": held.source,
        "files": {entry.name: {"sha256": entry.sha256, "size": entry.size} for entry in files.values()},
    }


def _index_of(held: Held, sensor: str, folder: Path) -> tuple[dict[str, Any], Callable[[], Any] | None]:
    """Describe the index of a sensor, and how its file is written, where it has one; one that was not opened stays as it is."""
    if sensor not in held.stored.indexes:
        index = held.indexes[sensor]
        described: dict[str, Any] = {"backend": index.backend, "parameters": index.parameters}
        return described, partial(index.write, folder, sensor) if index.has_file else None
    described = dict(held.stored.indexes[sensor])
    home, name = held.stored.folder, described.get("file")
    if name is None or home is None:
        return described, None
    return described, lambda: write_file(folder, f"index-{sensor}", Path(name).suffix, (home / name).read_bytes())


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
                _open_indexes(held, folder, manifest, token, uri)
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
    _check_files(folder, manifest["files"], verify)
    parts: Parts = {}
    segments = [
        _read_segment(folder, described, manifest["width"], manifest["files"], parts)
        for described in manifest["segments"]
    ]
    alignment = None
    if manifest["alignment"] is not None:
        from csmae_hf.embedding.alignment import Alignment

        alignment = Alignment.load(folder / manifest["alignment"])
        parts[id(alignment)] = alignment, Entry(manifest["alignment"], **manifest["files"][manifest["alignment"]])
    record = manifest.get("provenance") or {}  # earlier releases recorded less
    if record and record["alignment_hash"] != alignment_hash(alignment):
        raise ArchiveMismatchError(
            f"{folder} was made with the alignment {record['alignment']} ({str(record['alignment_hash'])[:12]}) and holds "
            f"{'none' if alignment is None else alignment.method} ({str(alignment_hash(alignment))[:12]}). Copy or build it again."
        )
    told = {name: manifest[name] for name in ("unreadable", "source")}
    told |= {"generated": record.get("generated"), "data_name": record.get("data")}
    sets: TileSets | None = record.get("tiles")
    if not sets or any("sum" not in item for item in sets.values()):
        sets = None  # of an earlier release: found when it is needed
    held = kind.of_segments(segments, sets, identity, alignment=alignment, **told)
    if len(held) != manifest["tiles"]["count"]:
        raise ArchiveCorruptError(
            f"{folder} holds {len(held)} tiles, not {manifest['tiles']['count']} as it says. Copy or build the archive again."
        )
    try:
        table = held.tiles
    except pa.ArrowException as error:
        raise ArchiveCorruptError(f"{folder}: its segments have different columns: {error}.") from error
    if verify:
        _verify_ids(folder, table, segments, sets)
    for item in sensors.values():
        if name := item["index"].get("file"):
            parts[id(name)] = name, Entry(name, **manifest["files"][name])
    held.recall = [Recall(**recall) for recall in manifest["recall"]]
    held.compression = [Compression(**measured) for measured in manifest.get("compression", ())]
    held.stored = Stored(
        folder.resolve(),
        manifest["sha256"],
        parts,
        {sensor: item["index"] for sensor, item in sensors.items() if item["index"]["backend"] != "exact"},
    )
    return held


def _read_segment(
    folder: Path, described: Mapping[str, Any], width: int, files: Mapping[str, Any], parts: Parts
) -> Segment:
    """Open a segment: metadata are read, vectors are mapped into memory. What was read from which file is noted in `parts`."""
    count = described["count"]
    tiles = _read_table(folder / described["tiles"], count)
    vectors = {}
    for sensor, name in described["embeds"].items():
        tensor = read_vectors(folder / name)
        if tensor.shape != (count, width):
            raise ArchiveCorruptError(
                f"{folder / name} holds {tuple(tensor.shape)} numbers: there are not as many embeds as tiles, or of another width. "
                "Copy or build the archive again."
            )
        vectors[sensor] = Vectors([tensor], width)
    order, removed = (
        None if described[name] is None else _read_rows(folder / described[name], count)
        for name in ("order", "removed")
    )
    if order is not None and len(order) != count:
        raise ArchiveCorruptError(f"{folder / described['order']} has {len(order)} rows, not {count}.")
    if removed is not None and not (np.diff(removed) > 0).all():
        raise ArchiveCorruptError(f"{folder / described['removed']} names a row twice, or in another order.")
    more = {} if removed is None else {"removed": removed}
    segment = Segment(tiles, vectors, IdIndex(tiles.column(ID), order), **more)
    read = [(segment.tiles, described["tiles"]), (segment.ids, described["order"])]
    read += [(segment.removed, described["removed"])]
    read += [(vectors[sensor], name) for sensor, name in described["embeds"].items()]
    parts.update({id(content): (content, Entry(name, **files[name])) for content, name in read if name is not None})
    return segment


def _verify_ids(folder: Path, tiles: pa.Table, segments: Iterable[Segment], sets: TileSets | None) -> None:
    """Refuse ids that do not name one tile each, kept orders that are none, and a record of other tiles."""
    for segment in segments:
        ordered = segment.ids.ids.take(pa.array(segment.ids.order))
        if not pc.all(pc.less(ordered.slice(0, max(len(ordered) - 1, 0)), ordered.slice(1)), min_count=0).as_py():
            raise ArchiveCorruptError(
                f"{folder}: ids of tiles occur twice, or their order is none. Build the archive again."
            )
    if pc.count_distinct(tiles.column(ID)).as_py() != tiles.num_rows:
        raise ArchiveCorruptError(f"{folder}: the id of a tile occurs more than once. Build the archive again.")
    real = sets_of(tiles)
    if sets is not None and not (sets.keys() == real.keys() and all(same_tiles(sets[one], real[one]) for one in real)):
        raise ArchiveCorruptError(f"{folder} holds other tiles than it says. Copy or build the archive again.")


def _open_indexes(held: Held, folder: Path, manifest: Mapping[str, Any], token: str, uri: str) -> None:
    files, sensors = manifest["files"], manifest["sensors"]
    approximate = any(item["index"]["backend"] != "exact" for item in sensors.values())
    buckets = with_buckets(held.tiles, held.ids) if approximate else held.tiles
    for sensor, item in sensors.items():
        try:
            held.indexes[sensor] = open_index(item["index"], folder, held.vectors[sensor], buckets, token, uri)
        except (TypeError, KeyError, ValueError) as error:
            raise ArchiveCorruptError(
                f"{folder}: its {item['index']['backend']} index of {sensor} cannot be opened: {error}. Open it without, index=False, "
                "and build the index again."
            ) from error
        if held.indexes[sensor].backend == item["index"]["backend"]:
            unopened = {name: told for name, told in held.stored.indexes.items() if name != sensor}
            held.stored = replace(held.stored, indexes=unopened)
            if name := item["index"].get("file"):
                held.stored.parts[id(held.indexes[sensor])] = held.indexes[sensor], Entry(name, **files[name])


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
        _refuse_missing(path, error)
        raise ArchiveCorruptError(f"{path} cannot be read: {error}. Copy or build the archive again.") from error
    if tensor.ndim != 2 or tensor.dtype != torch.float32:
        raise ArchiveCorruptError(
            f"{path} holds {tensor.dtype} of shape {tuple(tensor.shape)}; expected float32 (tiles, width)."
        )
    return tensor


def _write_rows(folder: Path, stem: str, rows: IntArray) -> Entry:
    """Write numbers of rows, (n,), as safetensors."""
    narrow = rows.astype(np.int32 if not len(rows) or rows.max() < 2**31 else np.int64)
    return write_file(folder, stem, ".safetensors", save({ROWS: narrow}))


def _read_rows(path: Path, count: int) -> IntArray:
    """Read numbers of rows, each of `count`."""
    try:
        with safe_open(str(path), framework="numpy") as stream:
            rows = np.asarray(stream.get_tensor(ROWS))
    except (SafetensorError, OSError) as error:
        _refuse_missing(path, error)
        raise ArchiveCorruptError(f"{path} cannot be read: {error}. Copy or build the archive again.") from error
    if (
        rows.ndim != 1
        or rows.dtype not in (np.int32, np.int64)
        or (len(rows) and not 0 <= rows.min() <= rows.max() < count)
    ):
        raise ArchiveCorruptError(f"{path} holds no rows of {count} tiles. Copy or build the archive again.")
    return rows.astype(np.int64)


def _refuse_missing(path: Path, error: Exception) -> None:
    """Say of a file that is not there that it is missing: a process that saves may have taken it away, and put it back since."""
    if not path.exists() or os.strerror(errno.ENOENT) in str(error):
        raise FileNotFoundError(f"No file {path}.") from error


def _write_table(folder: Path, table: pa.Table) -> Entry:
    return write_file(folder, "tiles", ".parquet", lambda stream: pq.write_table(table, stream))


def _read_table(path: Path, count: int) -> pa.Table:
    try:
        with pq.ParquetFile(path) as stream:
            if stream.metadata.num_rows != count:
                raise ArchiveCorruptError(
                    f"{path} has {stream.metadata.num_rows} rows, not {count}: there are not as many embeds as tiles."
                )
            tiles = in_plain_types(stream.read()).combine_chunks()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise ArchiveCorruptError(f"{path} cannot be read: {error}. Copy or build the archive again.") from error
    if tiles.column_names.count(ID) != 1 or tiles.column(ID).null_count:
        raise ArchiveCorruptError(f"{path} does not name its tiles. Copy or build the archive again.")
    return tiles


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], verify: bool) -> None:
    """Refuse files that are missing, cut short or, where all are read to verify their hashes, changed."""
    for name, wanted in files.items():
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
    signature = sign(manifest)
    text = json.dumps({**manifest, "sha256": signature}, indent=2, ensure_ascii=False)
    write_atomically(folder / MANIFEST, text)
    _remove_unnamed(folder, manifest["files"])
    return signature


def _published(folder: Path) -> dict[str, Any] | None:
    """The manifest in a folder, unchecked; None where there is none."""
    path = folder / MANIFEST
    found: dict[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
    return found


def _remove_unnamed(folder: Path, named: Container[str]) -> None:
    """Remove files of an archive, or of a half of one, that its manifest does not name."""
    for path in folder.iterdir():
        if _LEFT.fullmatch(path.name) and path.name not in named:
            with suppress(PermissionError):  # Windows keeps what a reader has mapped: a later save removes it
                path.unlink(missing_ok=True)


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
        others = [item.name for item in folder.glob("*") if not _LEFT.fullmatch(item.name) and item.name != LOCK_NAME]
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
