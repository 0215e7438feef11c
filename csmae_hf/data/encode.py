"""From GeoTIFFs to an archive in the layout of BigEarthNet v2, as rico-hdl encodes it: an LMDB of safetensors."""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csmae_hf.bigearthnet import LABELS
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.metadata import METADATA_SCHEMA, TileRow
from csmae_hf.data.sources import Sources, TileSource, find_tiles
from csmae_hf.data.store_writer import (
    ArchiveWriter,
    Failure,
    Made,
    WriteReport,
    make_record,
    metadata_table,
)
from csmae_hf.images.geotiff import TiffFolder, TiffImage

_V1_NAME = re.compile(r"S2[A-Z]_MSIL2A_\d{8}T\d{5,6}_\d+_\d+")


class Job(NamedTuple):
    """An image to encode.

    Args:
        key: Under which to store it.
        image: Where it lies.
        bands: That it must have, in any order; None if its file has to be opened to know.
    """

    key: str
    image: TiffImage
    bands: tuple[str, ...] | None


def encode(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    bands: Mapping[str, Sequence[str]] | None = None,
    metadata: str | os.PathLike[str] | None = None,
    splits: str | os.PathLike[str] | None = None,
    workers: int | None = None,
) -> WriteReport:
    """Encode GeoTIFF tiles as an archive that [`load_bigearthnet`] opens.

    The LMDB is that of rico-hdl, byte for byte: a safetensors value for each S1 image, under its name, for each S2 image, under its
    own, and for each reference map. Beside it lie `metadata.parquet`, which names the tiles all of whose images are stored, and
    `values.parquet`, with a digest of each value. Ended in whatever way, the same call goes on where it stopped; called again when
    all is done, it adds what could not be read before.

    Args:
        source: As of [`load_tiles`]: a folder, or a table of paths.
        out: Folder of the archive; new, empty, or begun by the same call.
        bands: As of [`load_tiles`].
        metadata: As of [`load_tiles`].
        splits: As of [`load_tiles`].
        workers: Processes that read and encode; None for one a processor, 0 for this one.

    Returns:
        What was done, with every image that could not be encoded and why.

    Raises:
        FileNotFoundError: If something named is not there.
        FileExistsError: If `out` holds something else; nothing is ever overwritten.
        ValueError: If there is no tile, a name comes twice, or `out` holds images that the source lacks.
        StoreError: If the disk is full or fails, or a process dies. What is stored stays.
    """
    found = find_tiles(source, bands=bands, metadata=metadata, splits=splits)
    jobs = _jobs(found)
    with ArchiveWriter(Path(out)) as writer:
        foreign = writer.records.keys() - jobs.keys()
        if foreign:
            raise ValueError(
                f"{out} holds {len(foreign)} images that {source} lacks, such as {min(foreign)}: it is the archive of something else. "
                "Give another folder."
            )
        failures = [Failure(key, *found.broken[job.image]) for key, job in jobs.items() if job.image in found.broken]
        broken = {failure.key for failure in failures}
        todo = [jobs[key] for key in sorted(jobs.keys() - writer.records.keys() - broken)]
        present = len(jobs.keys() & writer.records.keys())
        if todo:
            writer.begin()
        make = functools.partial(_encode_image, str(found.root))
        results = writer.fill(make, todo, workers, present, "image")
        failures += [made for _, made in results if isinstance(made, Failure)]
        writer.finish(_metadata(found, jobs.keys() - {failure.key for failure in failures}), failures)
        written = len(writer.records) - present
    return WriteReport(Path(out), written, present, failures)


def stand_in_s1_key(name: str) -> str:
    """Name an S1 image whose own name is not known.

    Args:
        name: Of the tile, the S2 name.

    Returns:
        `S1-of-` and the name with `-` for `_`; so no acquisition time is read out of it, which would be the S2 image's.
    """
    return "S1-of-" + name.replace("_", "-")


def _jobs(found: Sources) -> dict[str, Job]:
    """The images to encode, by key."""
    keyed = [(_key(tile, sensor), image) for tile in found.tiles for sensor, image in tile.images.items()]
    keyed += [(image.name, image) for image in found.reference_maps]
    twice = [key for key, count in Counter(key for key, _ in keyed).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} images of {found.root} would have a key in common, {twice[0]!r} for one. Name each differently."
        )
    usual = {sensor: _usual_bands(image for _, image in keyed if image.sensor == sensor) for sensor in ("s1", "s2")}
    return {key: Job(key, image, usual.get(image.sensor)) for key, image in keyed}


def _key(tile: TileSource, sensor: str) -> str:
    """Under which key an image is stored."""
    if sensor == "s2":
        return tile.row.id
    return tile.row.s1_id or (stand_in_s1_key(tile.row.id))


def _usual_bands(images: Iterable[TiffImage]) -> tuple[str, ...] | None:
    """The bands that most images have by the names of their files."""
    counts = Counter(image.bands for image in images if image.bands)
    return counts.most_common(1)[0][0] if counts else None


def _encode_image(root: str, job: Job) -> Made | Failure:
    """Read and encode one image; whatever is wrong with it is returned."""
    folder = TiffFolder(root)
    try:
        arrays = folder.read(job.image.key)
        if job.bands is not None and set(arrays) != set(job.bands):
            raise ValueError(f"it has the bands {', '.join(arrays)}; most images here have {', '.join(job.bands)}")
        value = encode_safetensors(arrays)
        return Made([(make_record(job.key, value, folder.footprint(job.image.key)), value)])
    except (ValueError, OSError, MemoryError) as error:
        return Failure(job.key, str(folder.path / job.image.files[0].path), str(error))


def _metadata(found: Sources, stored: Iterable[str]) -> pa.Table:
    """The rows of the tiles all of whose images are stored: as the source's own tables have them, or else as far as is known."""
    keys = set(stored)
    whole = [tile for tile in found.tiles if all(_key(tile, sensor) in keys for sensor in tile.images)]
    if any("s2" in tile.images for tile in whole):  # else it is an archive of S1 alone, by S1 name
        whole = [tile for tile in whole if "s2" in tile.images]
    tables = [_whole_rows(path, {tile.row.id for tile in whole}) for path in found.tables]
    listed = {name for table in tables for name in table.column("patch_id").to_pylist()}
    rest = metadata_table([_metadata_row(tile) for tile in whole if tile.row.id not in listed])
    return pa.concat_tables([*tables, rest]).sort_by("patch_id")


def _whole_rows(path: Path, names: set[str]) -> pa.Table:
    table = pq.read_table(path)
    table = table.filter(pc.is_in(table.column("patch_id"), pa.array(sorted(names), pa.string())))
    columns = {
        field.name: table.column(field.name) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in METADATA_SCHEMA
    }
    return pa.table(columns).cast(METADATA_SCHEMA)


def _metadata_row(tile: TileSource) -> dict[str, Any]:
    return metadata_row(tile.row, _key(tile, "s1") if "s1" in tile.images else None)


def metadata_row(row: TileRow, s1_key: str | None) -> dict[str, Any]:
    """Give a tile's row the columns of the metadata of BigEarthNet v2.

    Args:
        row: What is known of the tile.
        s1_key: Under which its S1 image is stored; None if there is none.

    Returns:
        Values by column.
    """
    return {
        "patch_id": row.id,
        "labels": None if row.labels is None else [LABELS[number] for number in row.labels],
        "split": row.split,
        "country": row.country,
        "s1_name": s1_key,
        "s2v1_name": row.id if _V1_NAME.fullmatch(row.id) else None,
        "contains_seasonal_snow": row.snow,
        "contains_cloud_or_shadow": row.cloud_or_shadow,
    }
