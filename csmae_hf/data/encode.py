"""From GeoTIFFs to a store in the layout of BigEarthNet v2, as rico-hdl encodes it: an LMDB of safetensors."""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from csmae_hf.bigearthnet import SENSORS, TILE_SENSOR
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.collate import group_reasons
from csmae_hf.data.evenly import evenly
from csmae_hf.data.find_tiles import FoundTile, FoundTiles, find_tiles
from csmae_hf.data.inspect import look_at_pixels
from csmae_hf.data.metadata import (
    METADATA_SCHEMA,
    V1_NAME_COLUMN,
    TileRow,
    metadata_schema,
    name_column,
    own_columns,
    stand_in_key,
)
from csmae_hf.data.store_writer import Failure, Made, StoreWriter, WriteReport, make_record, metadata_table
from csmae_hf.data.suspects import MAX_UNREADABLE_SHARE, SUSPECT_REMEDY, Suspect, check_suspect
from csmae_hf.data.tiles import check_asked
from csmae_hf.data.unit_rules import Units, units_column
from csmae_hf.images.discovery import REFERENCE_MAP
from csmae_hf.images.geotiff import TiffFolder, TiffImage
from csmae_hf.images.image import BandImage
from csmae_hf.images.names import Sensors
from image_checks_csmae import BAND_UNIT, OFFSET

_WRAPPED = (64_535, 65_535)
"""Between these lie 16-bit numbers below 0 of which the offset was taken; 65,535 itself means saturated."""

_V1_NAME = re.compile(r"S2[A-Z]_MSIL2A_\d{8}T\d{5,6}_\d+_\d+")


class Job(NamedTuple):
    """An image to encode.

    Attributes:
        key: Under which to store it.
        image: Where it lies.
        bands: That it must have, in any order; None if its file has to be opened to know.
        declared: Bands to read that are not BigEarthNet's; None to read all that there are.
        suspect: As of [`encode`]; an image that looks wrong is a failure unless it is accepted.
    """

    key: str
    image: TiffImage
    bands: tuple[str, ...] | None
    declared: tuple[str, ...] | None = None
    suspect: Suspect = "leave-out"


_MOST_LOOKED_AT = 1000
"""So many images are looked at, where too many look wrong by a guess, to name those that do."""


class SuspectFailure(Failure):
    """An image that looks wrong by a guess."""


def encode(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    sensors: Sensors | None = None,
    bands: Mapping[str, Sequence[str]] | None = None,
    metadata: str | os.PathLike[str] | None = None,
    splits: str | os.PathLike[str] | None = None,
    pair: str | None = None,
    units: Units | None = None,
    level: str | None = None,
    workers: int | None = None,
    suspect: Suspect = "leave-out",
) -> WriteReport:
    """Encode GeoTIFF tiles as a store that [`load_bigearthnet`] opens.

    A store keeps no word of units and no-data, so images whose files or caller say their unit are stored in BigEarthNet's, dB and
    digital numbers without offset; one that has pixels without a measurement, or contradicts what is said, is not stored but named.

    The LMDB is that of rico-hdl, byte for byte: a safetensors value for each S1 image, under its name, for each S2 image, under its
    own, and for each reference map; and one for each image of any other sensor. Beside it lie `metadata.parquet`, which names the
    tiles all of whose images are stored, and `values.parquet`, with a digest of each value. Ended in whatever way, the same call goes
    on where it stopped; called again when all is done, it adds what could not be read before.

    Args:
        source: As of [`load_tiles`]: a folder, or a table of paths.
        out: Folder to write to; new, empty, or begun by the same call.
        sensors: Sensors whose images to encode; default those of all found. Others than BigEarthNet's with their bands, as of
            [`load_tiles`].
        bands: As of [`load_tiles`].
        metadata: As of [`load_tiles`].
        splits: As of [`load_tiles`].
        pair: As of [`load_tiles`].
        units: As of [`load_tiles`].
        level: As of [`load_tiles`].
        workers: Processes that read and encode; None for one a processor, 0 for this one.
        suspect: Whether images that look wrong by a guess are refused, left out and named among the failures, up to 1 % of all, or
            stored as they are.

    Returns:
        What was done, with every image that could not be encoded and why.

    Raises:
        FileNotFoundError: If something named is not there.
        FileExistsError: If `out` holds something else; nothing is ever overwritten.
        ValueError: If there is no tile, a name comes twice, `out` holds images that the source lacks, or too many images look wrong by
            a guess: what is stored by then stays, and the same call goes on with another `suspect`.
        StoreError: If the disk is full or fails, or a process dies. What is stored stays.
    """
    check_suspect(suspect)
    found = find_tiles(
        source, sensors=sensors, bands=bands, metadata=metadata, splits=splits, pair=pair, units=units, level=level
    )
    check_asked(found, sensors)
    if sensors is not None:
        kept = [
            tile._replace(images={sensor: image for sensor, image in tile.images.items() if sensor in sensors})
            for tile in found.tiles
        ]
        found = found._replace(tiles=[tile for tile in kept if tile.images])
    jobs = {key: job._replace(suspect=suspect) for key, job in _jobs(found).items()}
    with StoreWriter(Path(out)) as writer:
        foreign = writer.records.keys() - jobs.keys()
        if foreign:
            raise ValueError(
                f"{out} holds {len(foreign)} images that {source} lacks, such as {min(foreign)}: it is the store of something else. "
                "Give another folder."
            )
        failures = [Failure(key, *found.broken[job.image]) for key, job in jobs.items() if job.image in found.broken]
        broken = {failure.key for failure in failures}
        todo = [jobs[key] for key in sorted(jobs.keys() - writer.records.keys() - broken)]
        present = len(jobs.keys() & writer.records.keys())
        if todo:
            writer.begin()
        make = functools.partial(_encode_image, str(found.root))
        most = 0 if suspect == "refuse" else MAX_UNREADABLE_SHARE * len(jobs)
        suspects: list[Failure] = []
        for done, (_, made) in enumerate(writer.fill(make, todo, workers, present, "image"), start=1):
            if isinstance(made, Failure):
                failures.append(made)
            if isinstance(made, SuspectFailure):
                suspects.append(made)
                if len(suspects) > most:
                    rest = todo[done:]  # looked at too, so that who mends them knows which they are
                    looked = [make(rest[place]) for place in evenly(len(rest), _MOST_LOOKED_AT)]
                    suspects += [other for other in looked if isinstance(other, SuspectFailure)]
                    more = "" if len(looked) == len(rest) else " or more"
                    raise ValueError(_refusal(suspects, f"{len(suspects)}{more} of {len(jobs)} images"))
        writer.finish(_metadata(found, jobs.keys() - {failure.key for failure in failures}), failures)
        written = len(writer.records) - present
    return WriteReport(Path(out), written, present, failures)


def _refusal(suspects: Sequence[Failure], count: str) -> str:
    """What is said where more images look wrong by a guess than may be left out."""
    reasons = [f"{failure.key}: {failure.reason}" for failure in suspects]
    return (
        f"{count} look wrong by a guess:\n{group_reasons(reasons)}\n{SUSPECT_REMEDY}. "
        "What is stored stays: run it again."
    )


def _key(tile: FoundTile, sensor: str) -> str:
    return tile.row.image_name(sensor) or stand_in_key(sensor, tile.row.id)


def _jobs(found: FoundTiles) -> dict[str, Job]:
    """The images to encode, by key."""
    keyed = [(_key(tile, sensor), image) for tile in found.tiles for sensor, image in tile.images.items()]
    keyed += [(image.name, image) for image in found.reference_maps]
    twice = [key for key, count in Counter(key for key, _ in keyed).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} images of {found.root} would have a key in common, {twice[0]!r} for one. Name each differently."
        )
    usual: dict[str, tuple[str, ...]] = {}
    for sensor in found.sensors:  # the bands that most images have by the names of their files
        counts = Counter(image.bands for _, image in keyed if image.sensor == sensor and image.bands)
        if counts:
            usual[sensor] = counts.most_common(1)[0][0]
    declared = {sensor: bands for sensor, bands in found.names.bands.items() if sensor not in SENSORS and bands}
    usual |= declared
    return {key: Job(key, image, usual.get(image.sensor), declared.get(image.sensor)) for key, image in keyed}


def _encode_image(root: str, job: Job) -> Made | Failure:
    """Read and encode one image; whatever is wrong with it is returned."""
    folder = TiffFolder(root)
    try:
        image = folder.read(job.image.key, job.declared)
        if job.suspect != "accept" and (suspicions := look_at_pixels(job.image.sensor, image)[1]):
            return SuspectFailure(job.key, str(folder.path / job.image.files[0].path), suspicions[0])
        arrays = in_store_units(image)
        if job.bands is not None and set(arrays) != set(job.bands):
            raise ValueError(f"it has the bands {', '.join(arrays)}; most images here have {', '.join(job.bands)}")
        known = job.image.sensor in SENSORS or job.image.sensor == REFERENCE_MAP
        value = encode_safetensors(arrays, None if known else job.image.sensor)
        return Made([(make_record(job.key, value, folder.footprint(job.image.key)), value)])
    except (ValueError, OSError, MemoryError) as error:
        return Failure(job.key, str(folder.path / job.image.files[0].path), str(error))


def in_store_units(image: BandImage) -> dict[str, np.ndarray[Any, Any]]:
    """Give bands in the units of a store: VV and VH as float32 in dB, S2 as uint16 digital numbers without offset.

    What nobody says the unit of stays as it is, but for types that hold the same numbers. (H, W) each; a ValueError for what a store
    cannot say: pixels without a measurement, or digital numbers that are none.
    """
    if image.facts.no_data:
        band, count = next(iter(image.facts.no_data.items()))
        raise ValueError(
            f"{count} pixels of {band} are no data, as its file declares, and a store cannot say so; leave the tile out, or fill them"
        )
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for band, pixels in image.items():
        if BAND_UNIT.get(band) == "db":
            if image.unit == "linear":
                if not (pixels > 0).all():
                    raise ValueError(f"{band} has values of 0 or below, which linear backscatter has not: no data")
                pixels = 10 * np.log10(pixels.astype(np.float64))
            arrays[band] = pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels
        elif BAND_UNIT.get(band) == "dn":
            arrays[band] = _digital_numbers(band, pixels, image.unit)
        else:
            arrays[band] = pixels
    return arrays


def _digital_numbers(band: str, pixels: np.ndarray[Any, Any], unit: str | None) -> np.ndarray[Any, Any]:
    """Whole digital numbers without offset, in the type of a store where that changes no number."""
    if not np.isfinite(pixels).all():
        raise ValueError(f"{band} has values that are not finite: no data")
    if unit in (None, "dn") and pixels.dtype == np.uint16 and ((pixels > _WRAPPED[0]) & (pixels < _WRAPPED[1])).any():
        raise ValueError(
            f"{band} has values between {_WRAPPED[0]} and {_WRAPPED[1]}: {OFFSET} was subtracted, and what was below 0 wrapped. "
            "Subtract it again from the original, in signed numbers"
        )
    if unit == "dn+1000":  # what lies below 0 is darker than dark by noise: clipped, as harmonised values are
        pixels = np.maximum(pixels.astype(np.float64) - OFFSET, 0)
    elif unit == "reflectance":
        pixels = pixels.astype(np.float64) * 10_000
    whole = np.rint(pixels)
    # float32 and 16 bits of reflectance miss the whole number by less than 0.1
    if np.abs(whole - pixels).max() > (0.1 if unit == "reflectance" else 0):
        if unit is None:
            return pixels
        raise ValueError(
            f"{band} does not come to whole digital numbers, which a store holds: it was resampled or changed; load it as it is "
            "(load_tiles), or encode the original"
        )
    if whole.min() < 0 or whole.max() > np.iinfo(np.uint16).max:
        return pixels
    return whole.astype(np.uint16)


def _metadata(found: FoundTiles, stored: Iterable[str]) -> pa.Table:
    """The rows of the tiles all of whose images are stored: as the source's own tables have them, or else as far as is known."""
    keys = set(stored)
    whole = [tile for tile in found.tiles if all(_key(tile, sensor) in keys for sensor in tile.images)]
    if any(TILE_SENSOR in tile.images for tile in whole):  # else it is a store of other sensors alone, by their names
        whole = [tile for tile in whole if TILE_SENSOR in tile.images]
    others = [sensor for sensor in found.sensors if sensor not in SENSORS]
    rest_of = {tile.row.id: tile for tile in whole}
    tables = []
    for path in found.tables:
        table = pq.read_table(path)
        table = table.filter(pc.is_in(table.column("patch_id"), pa.array(sorted(rest_of), pa.string())))
        columns = {name: table.column(name) for name in METADATA_SCHEMA.names if name in table.column_names}
        listed = [rest_of.pop(name) for name in columns["patch_id"].to_pylist()]
        for sensor in others:
            columns[name_column(sensor)] = [_key(tile, sensor) if sensor in tile.images else None for tile in listed]
        lacking = {name: pa.nulls(len(table)) for name in metadata_schema(others).names if name not in columns}
        tables.append(pa.table(columns | lacking).select(metadata_schema(others).names).cast(metadata_schema(others)))
    rows = [metadata_row(tile.row, {sensor: _key(tile, sensor) for sensor in tile.images}) for tile in rest_of.values()]
    table = pa.concat_tables([*tables, metadata_table(rows, others)]).sort_by("patch_id")
    row_of = {tile.row.id: tile.row for tile in found.tiles}
    # images whose unit is known are stored in dB and digital numbers: what a table says of their files is true no more
    without = [*table.column_names, *map(units_column, found.names.bands)]
    for name, column in own_columns([row_of[tile] for tile in table.column("patch_id").to_pylist()], without).items():
        table = table.append_column(name, column)
    return table


def metadata_row(row: TileRow, keys: Mapping[str, str]) -> dict[str, Any]:
    """Give a tile's row the columns of the metadata of BigEarthNet v2; `keys`: under which its image of each sensor is stored."""
    return {
        "patch_id": row.id,
        "labels": None if row.labels is None else list(row.labels),
        "split": row.split,
        "country": row.country,
        **{name_column(sensor): key for sensor, key in keys.items() if sensor != TILE_SENSOR},
        V1_NAME_COLUMN: row.id if _V1_NAME.fullmatch(row.id) else None,
        "contains_seasonal_snow": row.snow,
        "contains_cloud_or_shadow": row.cloud_or_shadow,
    }
