"""An archive to and from its folder."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csmae_hf.archive.folder import (
    FORMAT,
    VERSION,
    ArchiveCorruptError,
    check_files,
    locked,
    publish,
    read_table,
    read_vectors,
    refuse_loss,
    write_table,
    write_vectors,
)
from csmae_hf.embedding.identity import METRIC, ArchiveMismatchError, Identity
from csmae_hf.files import Entry, write_file
from csmae_hf.search.build_index import open_index
from csmae_hf.search.faiss_index import FaissIndex
from csmae_hf.search.recall import Recall, with_buckets
from csmae_hf.search.vectors import Vectors

if TYPE_CHECKING:
    from csmae_hf.archive.archive import Archive
    from csmae_hf.embedding.alignment import Alignment

Written = dict[str, tuple[Any, Entry]]
"""By part: what was written, and to which file."""


def save_archive(
    archive: "Archive", path: str | os.PathLike[str], written: Written, *, own: str | None, overwrite: bool
) -> str:
    """Write an archive to a folder: at every moment it holds the archive before or after, whole.

    Args:
        archive: The archive.
        path: The folder.
        written: What the archive knows to lie in files already; brought up to date.
        own: Checksum of the manifest that the archive was opened from or saved as in this folder.
        overwrite: Whether another archive in the folder may be replaced.

    Returns:
        Checksum of the manifest.

    Raises:
        FileExistsError: If the folder holds something else.
    """
    folder = Path(path)
    refuse_loss(folder, overwrite, own)  # before `locked` makes the folder
    with locked(folder):
        refuse_loss(folder, overwrite, own)  # another process may have saved while this one waited
        return publish(folder, _write_parts(archive, folder, written))


def _write_parts(archive: "Archive", folder: Path, written: Written) -> dict[str, Any]:
    """Write what is not there yet, and describe the archive."""

    def part(key: str, content: Any, write: Callable[[], Entry]) -> Entry:
        known, entry = written.get(key, (None, Entry("", "", -1)))
        path = folder / entry.name
        if known is not content or not path.is_file() or path.stat().st_size != entry.size:
            entry = write()
            written[key] = content, entry
        return entry

    tiles = part("tiles", archive.tiles, lambda: write_table(folder, archive.tiles))
    files = [tiles]
    sensors: dict[str, Any] = {}
    for sensor, vectors in archive.vectors.items():
        entry = part(f"embeds-{sensor}", vectors, lambda name=sensor, rows=vectors: write_vectors(folder, name, rows))  # type: ignore[misc]
        index = archive.indexes[sensor]
        described: dict[str, Any] = {"backend": index.backend, "parameters": index.parameters}
        files.append(entry)
        if isinstance(index, FaissIndex):
            files.append(index.write(folder, sensor))
            described["file"] = files[-1].name
        sensors[sensor] = {"file": entry.name, "index": described}
    alignment = None
    if archive.alignment is not None:
        content = archive.alignment.to_bytes()
        alignment = write_file(folder, "alignment", ".safetensors", content)
        files.append(alignment)
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_with": archive.identity.to_dict(),
        "tiles": {"count": len(archive), "file": tiles.name},
        "width": next(iter(archive.vectors.values())).width,
        "sensors": sensors,
        "alignment": None if alignment is None else alignment.name,
        "recall": [recall.to_dict() for recall in archive.recall],
        "unreadable": archive.unreadable,
        "source": archive.source,
        "files": {entry.name: {"sha256": entry.sha256, "size": entry.size} for entry in files},
    }


def open_archive(
    kind: type["Archive"], folder: Path, manifest: Mapping[str, Any], *, verify: bool, index: bool, token: str, uri: str
) -> "Archive":
    """Make an archive of a folder.

    Args:
        kind: The class.
        folder: The folder.
        manifest: Its JSON.
        verify: Whether to check the hashes of all files.
        index: Whether to open its indexes.
        token: Of a Milvus server.
        uri: Of the Milvus to use, where it is not in the archive's folder.

    Returns:
        The archive.

    Raises:
        FileNotFoundError: A file is missing.
        ArchiveCorruptError: A file is damaged or cut short.
        ArchiveMismatchError: The archive compares tiles by another metric.
    """
    identity = Identity(**manifest["made_with"])
    if identity.metric != METRIC:
        raise ArchiveMismatchError(
            f"{folder} compares tiles by the metric {identity.metric!r}; this release by {METRIC!r} only. Build the archive again."
        )
    named = [manifest["tiles"], *manifest["sensors"].values()]
    named += [item["index"] for item in manifest["sensors"].values() if "file" in item["index"]]
    files = {item["file"] for item in named} | ({manifest["alignment"]} if manifest["alignment"] else set())
    if not files <= set(manifest["files"]):
        raise ArchiveCorruptError(f"{folder} does not describe its file {min(files - set(manifest['files']))!r}.")
    check_files(folder, manifest["files"], verify=verify)
    tiles = read_table(folder / manifest["tiles"]["file"])
    vectors = {
        sensor: Vectors([read_vectors(folder / described["file"])], manifest["width"])
        for sensor, described in manifest["sensors"].items()
    }
    if any(part.shape != (tiles.num_rows, manifest["width"]) for part in vectors.values()):
        raise ArchiveCorruptError(f"{folder}: there are not as many embeds as tiles. Copy or build the archive again.")
    archive = kind(
        tiles,
        vectors,
        identity,
        alignment=_read_alignment(folder, manifest["alignment"]),
        unreadable=manifest["unreadable"],
        source=manifest["source"],
    )
    archive.recall = [Recall(**recall) for recall in manifest["recall"]]
    if index and len(archive):
        buckets = with_buckets(tiles, archive.ids)
        for sensor, described in manifest["sensors"].items():
            archive.indexes[sensor] = open_index(described["index"], folder, vectors[sensor], buckets, token, uri)
    return archive


def written_parts(archive: "Archive", manifest: Mapping[str, Any]) -> Written:
    """Say which of an archive's parts lie in which files, just after it was opened."""
    files = {"tiles": (archive.tiles, manifest["tiles"]["file"])}
    files |= {
        f"embeds-{sensor}": (archive.vectors[sensor], item["file"]) for sensor, item in manifest["sensors"].items()
    }
    return {key: (content, Entry(name, **manifest["files"][name])) for key, (content, name) in files.items()}


def _read_alignment(folder: Path, name: str | None) -> "Alignment | None":
    if name is None:
        return None
    from csmae_hf.embedding.alignment import Alignment

    return Alignment.load(folder / name)
