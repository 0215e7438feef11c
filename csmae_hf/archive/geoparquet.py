"""An archive as GeoParquet, by the conventions of geoembeddings.org: a file for each sensor, and what it says of itself.

The files of all sensors have the same rows in the same order, along a Hilbert curve, so they are joined by `id`, by `row` or by place.
`csmae_hf.archive.imported` reads them back.
"""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from csmae_hf.archive.footprints import BOUNDS, Footprints, Geometry, footprints_of, hilbert_order, joined_bounds
from csmae_hf.archive.held import Held
from csmae_hf.archive.stac import Exported, as_text, embedding_metadata, make_catalogue
from csmae_hf.archive.tiles import table_without_paths
from csmae_hf.files import staged_folder, write_atomically
from csmae_hf.search.ids import ID
from csmae_hf.search.vectors import IntArray

logger = logging.getLogger(__name__)

EMBEDDING, GEOMETRY, BBOX, SENSOR, ROW, TIME = "embedding", "geometry", "bbox", "sensor", "row", "timestamp"
MIDDLE = ("centre_lon", "centre_lat")
COLUMNS = (SENSOR, ROW, TIME, *MIDDLE, BBOX, GEOMETRY, EMBEDDING)
"""Columns that an export adds to the metadata; a column of metadata with one of these names is written as `tile_...`."""

KEY = "csmae"
"""Key of the footer under which an export keeps what an import needs."""

FORMAT, VERSION = "csmae-geoparquet", 1
ALIGNMENT_FILE = "alignment.safetensors"
OWN_FILES = ("*.parquet", "*.json", ALIGNMENT_FILE)
"""Patterns of the files of an export."""

GROUP_BYTES = 128 << 20
"""Embeds of a row group."""

PAGE_BYTES = 64 << 10
"""Of a page. A page an embedding, which geoembeddings.org recommends for vector search, took three times as long to write and read."""

_CHUNK_ROWS = 65_536  # of metadata that is looked at together
_TIME_TYPE = pa.timestamp("ms")


def export_geoparquet(
    archive: Held,
    path: str | os.PathLike[str],
    *,
    sensors: Sequence[str] | None = None,
    geometry: Geometry = "polygon",
    stac: bool = False,
    source_data: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an archive to a folder in the field's formats, a row group at a time.

    Args:
        archive: The archive.
        path: The folder, which appears whole or not at all: `SENSOR.parquet` for each sensor, `alignment.safetensors` where the
            embeds are aligned, and with `stac` the catalogue, `catalog.json`.
        sensors: Whose embeds; default all.
        geometry: "polygon", the outlines of the tiles, or "point", their middles.
        stac: Whether to write a static STAC catalogue.
        source_data: URL of the images that the embeds are of, for the catalogue.
        license: Licence of the embeds, for the catalogue, as SPDX has it.
        overwrite: Whether an earlier export is replaced.

    Returns:
        The folder.

    Raises:
        ValueError: If the archive is empty or lacks a sensor, ids of tiles are paths of this machine, or a place cannot be understood.
        FileExistsError: If the folder exists, and may not be replaced.
        ImportError: If rasterio is missing and places can be known by it alone.
    """
    chosen = list(dict.fromkeys(archive.sensors if sensors is None else sensors))
    unknown = [sensor for sensor in chosen if sensor not in archive.sensors]
    if unknown or not chosen:
        raise ValueError(
            f"The archive has no embeds of {', '.join(unknown) or 'nothing'}; it has {', '.join(archive.sensors)}."
        )
    if geometry not in get_args(Geometry):
        raise ValueError(f"geometry={geometry!r}: expected one of {', '.join(get_args(Geometry))}.")
    if not len(archive):
        raise ValueError("The archive has no tiles to export.")
    with staged_folder(Path(path), overwrite=overwrite, own=OWN_FILES) as folder:
        survey = _Survey(archive.tiles, geometry)
        if survey.unplaced:
            logger.warning(
                f"Of {survey.unplaced} of {len(archive)} tiles the place is not known: their geometry is null, and they come last. "
                "Known are places of GeoTIFFs, of columns longitude and latitude, and of names of BigEarthNet v2."
            )
        told = Exported(
            archive.provenance,
            archive.width,
            {sensor: f"{sensor}.parquet" for sensor in chosen},
            len(archive),
            None if survey.bounds is None else list(survey.bounds.values()),
            {sensor: _interval(archive.tiles, sensor) for sensor in chosen},
            source_data,
            license,
        )
        for sensor, name in told.files.items():
            _write_sensor(archive, sensor, folder / name, survey, _footers(archive, sensor, survey, told))
        if archive.alignment is not None:
            archive.alignment.save(folder / ALIGNMENT_FILE)
        for name, content in make_catalogue(told).items() if stac else ():
            write_atomically(folder / name, as_text(content))
    return Path(path)


class _Survey:
    """Where the tiles lie, found before anything is written: their order, their bounds, and the types of their geometries."""

    def __init__(self, tiles: pa.Table, geometry: Geometry):
        self.geometry = geometry
        self.kinds: set[str] = set()
        middles, boxes = [], []
        for start in range(0, tiles.num_rows, _CHUNK_ROWS):
            found = self.footprints(tiles.slice(start, _CHUNK_ROWS))
            middles.append(found.middles)
            boxes.append(found.bounds)
            self.kinds |= found.kinds
        middle = np.concatenate(middles)
        self.order = hilbert_order(middle)
        self.bounds = joined_bounds(boxes)
        self.unplaced = int(np.isnan(np.concatenate(boxes)[:, 0]).sum())

    def footprints(self, tiles: pa.Table) -> Footprints:
        """Where some of the tiles lie."""
        return footprints_of(tiles, self.geometry)


def _write_sensor(archive: Held, sensor: str, path: Path, survey: _Survey, footers: Mapping[bytes, bytes]) -> None:
    """Write the embeds of a sensor, a row group at a time."""
    size = max(1, GROUP_BYTES // (4 * archive.width))
    tables = (
        _group(archive, sensor, survey, survey.order[start : start + size]) for start in range(0, len(archive), size)
    )
    first = next(tables)
    schema = first.schema.with_metadata(footers)
    leaves = pq.ParquetFile(pa.BufferReader(_empty_file(schema))).schema
    plain = [leaves.column(number).path for number in range(len(leaves))]
    plain = [leaf for leaf in plain if not leaf.startswith(f"{EMBEDDING}.")]
    with (
        path.open("xb") as stream,
        pq.ParquetWriter(
            stream,
            schema,
            compression="zstd",
            use_dictionary=plain,
            write_statistics=plain,
            data_page_size=PAGE_BYTES,
            write_page_index=True,
            write_page_checksum=True,
        ) as writer,
    ):
        for table in itertools.chain([first], tables):
            writer.write_table(table.cast(schema), row_group_size=size)


def _empty_file(schema: pa.Schema) -> pa.Buffer:
    """A file without a row, which says the names of a schema's leaves."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return sink.getvalue()


def _group(archive: Held, sensor: str, survey: _Survey, rows: IntArray) -> pa.Table:
    """The rows of a row group."""
    tiles = archive.tiles.take(pa.array(rows, pa.int64()))
    places = survey.footprints(tiles)
    plain = table_without_paths(tiles)
    written = written_names(plain.column_names)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        ID: plain.column(ID),
        SENSOR: pa.array([sensor], pa.string()).take(pa.array(np.zeros(len(rows), np.int64))),
        ROW: pa.array(rows, pa.int64()),
    }
    times = _times(archive.tiles.schema, tiles, sensor)
    if times is not None:
        columns[TIME] = times
    for name, values in zip(MIDDLE, places.middles.T, strict=True):
        columns[name] = pa.array(values, pa.float64(), mask=np.isnan(values))
    columns |= {written[name]: plain.column(name) for name in plain.column_names if name != ID}
    columns[BBOX] = pa.StructArray.from_arrays(
        [pa.array(side, pa.float64()) for side in places.bounds.T], names=list(BOUNDS), mask=places.wkb.is_null()
    )
    columns[GEOMETRY] = places.wkb
    vectors = archive.vectors[sensor][torch.from_numpy(np.ascontiguousarray(rows))].numpy()
    columns[EMBEDDING] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), archive.width)
    return pa.table(columns)


def written_names(names: Sequence[str]) -> dict[str, str]:
    """Under which names an export writes columns of metadata: their own, with `tile_` before those that an export has itself."""
    found, taken = {}, {*COLUMNS, *names}
    for name in names:
        found[name] = name
        while found[name] in COLUMNS or (found[name] != name and found[name] in taken):
            found[name] = f"tile_{found[name]}"
        taken.add(found[name])
    return found


def _times(schema: pa.Schema, tiles: pa.Table, sensor: str) -> pa.Array | None:
    """When the images of a sensor were taken, in UTC; None where no column says it."""
    name = next((name for name in (f"date_{sensor}", TIME, "datetime", "date") if _is_time(schema, name)), None)
    return None if name is None else pc.cast(tiles.column(name), _TIME_TYPE, safe=False)


def _is_time(schema: pa.Schema, name: str) -> bool:
    place = schema.get_field_index(name)
    return place >= 0 and (pa.types.is_timestamp(schema.types[place]) or pa.types.is_date(schema.types[place]))


def _interval(tiles: pa.Table, sensor: str) -> tuple[datetime, datetime] | None:
    times = _times(tiles.schema, tiles, sensor)
    ends = pc.min_max(times) if times is not None and times.null_count < len(times) else None
    return None if ends is None else tuple(end.as_py().replace(tzinfo=UTC) for end in ends.values())


def _footers(archive: Held, sensor: str, survey: _Survey, told: Exported) -> dict[bytes, bytes]:
    """What a file says of itself: `geo` (GeoParquet 1.1), `emb` (STAC), and what an import needs."""
    geo: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(survey.kinds),
        "covering": {"bbox": {side: [BBOX, side] for side in BOUNDS}},
    }
    if survey.geometry == "polygon":
        geo["orientation"] = "counterclockwise"
    if survey.bounds is not None:
        geo["bbox"] = list(survey.bounds.values())
    # as a reader finds it: Parquet has one name for the values of all lists
    schema = pq.read_schema(pa.BufferReader(_empty_file(table_without_paths(archive.tiles.slice(0, 0)).schema)))
    written = written_names(schema.names)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "sensor": sensor,
        "provenance": told.provenance.as_dict(),
        "columns": [[written[field.name], field.name, str(field.type)] for field in schema],
    }
    contents = {
        "geo": {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: geo}},
        "emb": embedding_metadata(told, sensor),
        KEY: {**record, "sha256": sign(record)},
    }
    return {
        key.encode(): json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
        for key, content in contents.items()
    }


def sign(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record, by which a change of it is noticed."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
