"""An archive of files of embeds: those that an archive was exported to, and what Clay, Major TOM, Earth Index and others publish.

Of the encoder of a foreign file nothing is known but its vectors, so an archive of it is searched by ids and by vectors. No name that
stands in a file is ever opened.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

import csmae_hf
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.embed_files import (
    ArchiveImportError,
    EmbedFile,
    open_embeds,
    read_columns,
    read_footer,
    read_footers,
    read_vectors,
    reading,
)
from csmae_hf.archive.footprints import BOUNDS
from csmae_hf.archive.geoparquet import ALIGNMENT_FILE, EMBEDDING, FORMAT, KEY, ROW, VERSION, sign
from csmae_hf.archive.tiles import kept_type
from csmae_hf.embedding.alignment import METHODS, Alignment
from csmae_hf.embedding.file_encoder import ID_NAMES, VECTOR_NAMES
from csmae_hf.embedding.foreign import PREFIX
from csmae_hf.embedding.identity import METRIC, ArchiveMismatchError, Identity
from csmae_hf.embedding.provenance import Provenance
from csmae_hf.embedding.without_paths import last_part
from csmae_hf.optional import needs_package
from csmae_hf.search.ids import ID
from csmae_hf.search.vectors import IntArray, Vectors

logger = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".geoparquet", ".gpq")

_MOST_WKB = 16 << 10
"""Bytes of a geometry: the outline of a tile has under 200, and what is far larger is shown to no library."""

_MIDDLES = (("centre_lon", "centre_lat"), ("longitude", "latitude"), ("lon", "lat"))
_DEGREES = ("OGC:CRS84", "EPSG:4326")


class Record(NamedTuple):
    """What a file of an export says of itself.

    Attributes:
        path: The file.
        sensor: Whose embeds it holds.
        columns: Names of its columns of metadata, with the name that each has in the archive, and its type there.
        told: Where the embeds come from.
    """

    path: Path
    sensor: str
    columns: dict[str, tuple[str, str]]
    told: Provenance


def import_archive(
    paths: Sequence[str | os.PathLike[str]],
    *,
    sensor: str | None = None,
    name: str | None = None,
    id_column: str | None = None,
    vector_column: str | None = None,
    scratch: str | os.PathLike[str] | None = None,
) -> Archive:
    """Make an archive of files of embeds.

    Args:
        paths: Parquet files, or folders of them. Several files of one sensor are joined in the order given.
        sensor: Whose embeds the files hold, where they do not say it; not to be given where they do.
        name: What the encoder of foreign files is called; default the name of the first file.
        id_column: Column of ids; default one of `ID_NAMES`, else rows are named by their file and number.
        vector_column: Column of vectors; default one of `VECTOR_NAMES`.
        scratch: Folder for a nameless file that holds the vectors meanwhile; default the system's.

    Returns:
        The archive, with exact search. That of an export has its rows, metadata, alignment and provenance again. It embeds images only
        where the caller names the model, and takes none but the one that made the embeds.

    Raises:
        FileNotFoundError: If a file is missing.
        ArchiveImportError: If a file is damaged, declares more than it can hold, or has no such columns; if vectors are not finite,
            zero, null or of several widths, ids missing or twice, or places are not in degrees.
        ArchiveMismatchError: If files are not of one model, alignment, data or processor, or hold other tiles than they say; by the
            name of what differs.
        ImportError: If shapely is missing and geometries are to be read.
    """
    places = _listed(paths)
    found = [read_record(path) for path in places]
    records = [record for record in found if record is not None]
    if records and None in found:
        raise ArchiveMismatchError(
            f"{records[0].path} was exported of an archive and {places[found.index(None)]} was not, so nothing says that one model "
            "made both: import them apart."
        )
    if records:
        if (sensor, name, id_column, vector_column) != (None,) * 4:
            raise ValueError(
                f"{places[0]} says itself what it holds: leave out sensor, name, id_column and vector_column."
            )
        return _import_own(records, scratch)
    if sensor is None or not sensor.isidentifier():
        raise ValueError(
            f"{places[0]} does not say whose embeds it holds: name the sensor, --sensor s2 (in Python sensor=)."
        )
    files = [open_embeds(path, [vector_column] if vector_column else VECTOR_NAMES) for path in places]
    return _import_foreign(files, sensor, name or last_part(str(places[0])).partition(".")[0], id_column, scratch)


def _listed(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that were named, or lie in a folder that was."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES)
            if not inside:
                raise FileNotFoundError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"No file or folder {path}.")
    if not found:
        raise ValueError("There is nothing to import: name a file or folder.")
    return found


def read_record(path: Path) -> Record | None:
    """Read what an export says of itself; None where a file is of none.

    Raises:
        ArchiveImportError: If it was changed, is of a later version, or makes no sense.
    """
    held = read_footer(path, read_footers(path), KEY)
    if held is None:
        return None
    signature = held.pop("sha256", None)
    if (held.get("format"), held.get("version")) != (FORMAT, VERSION):
        what = f"{held.get('format')} version {held.get('version')}"[:80]
        raise ArchiveImportError(f"{path} is {what}; this release reads {FORMAT} version {VERSION}.")
    if signature != sign(held):
        raise ArchiveImportError(
            f"{path}: its footer {KEY!r} was changed after it was written. Export the archive again."
        )
    try:
        columns = {written: (own, kind) for written, own, kind in held["columns"]}
        sensor, told = held["sensor"], Provenance.from_dict(held["provenance"])
        names = {own for own, _ in columns.values()}
        texts = [sensor, *columns, *names, *vars(told.made_with).values(), told.alignment_hash, told.data]
        if not all(isinstance(text, str | bool | Mapping | None) for text in texts) or len(names) < len(columns):
            raise ValueError("names are no text, or occur twice")
        if ID not in names or not sensor.isidentifier():
            raise ValueError("it does not name its sensor and its ids")
        if told.made_with.metric != METRIC or told.alignment not in METHODS:
            raise ValueError(f"metric {told.made_with.metric!r}, alignment {told.alignment!r}")
        told.differences(told)  # which fail where its parts have other types
        told.sentence()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArchiveImportError(f"{path}: its footer {KEY!r} does not say what the file holds: {error}") from error
    return Record(path, sensor, columns, told)


def _import_own(records: Sequence[Record], scratch: Any) -> Archive:
    """Make the archive again that was exported."""
    first = records[0]
    for record in records[1:]:
        if found := first.told.differences(record.told):
            raise ArchiveMismatchError(
                f"{first.path} and {record.path} are not of one archive: {'; '.join(map(str, found))}."
            )
    alignment = _alignment(first)
    tiles, vectors = None, {}
    for sensor in dict.fromkeys(record.sensor for record in records):
        parts = [record for record in records if record.sensor == sensor]
        files = [open_embeds(record.path, [EMBEDDING]) for record in parts]
        table, ranks = _own_tiles(parts[0], files)
        if tiles is None:
            tiles = table
        elif other := _first_difference(tiles, table):
            raise ArchiveMismatchError(
                f"{first.path} and {parts[0].path} are not of the same tiles: they differ in {other}."
            )
        vectors[sensor] = Vectors([read_vectors(files, sensor, ranks, scratch, unit=True)])
    about = {"alignment": alignment, "generated": first.told.generated, "data_name": first.told.data}
    archive = _make(tiles, vectors, first.told.made_with, [record.path for record in records], **about)
    if found := archive.provenance.differences(first.told):
        raise ArchiveMismatchError(
            f"{first.path} does not hold what it says it does, {found[0].name}: {found[0].ours} where {found[0].theirs} is said. Give "
            "all files of the export."
        )
    return archive


def _make(
    tiles: pa.Table | None, vectors: Mapping[str, Vectors], identity: Identity, paths: Sequence[Path], **about: Any
) -> Archive:
    """An archive that remembers that it was imported."""
    source = {"imported": [last_part(str(path)) for path in paths]}
    try:
        return Archive(tiles, vectors, identity, source=source, **about)
    except ValueError as error:
        raise ArchiveImportError(f"{paths[0]}: {error}") from error


def _alignment(record: Record) -> Alignment | None:
    """The alignment that the embeds hold: it lies beside their file, under a name that no file chooses."""
    wanted = record.told.alignment_hash
    if wanted is None:
        return None
    what = f"{record.path} holds embeds of the alignment {record.told.alignment} ({wanted[:12]})"
    place = record.path.with_name(ALIGNMENT_FILE)
    if not place.is_file():
        raise FileNotFoundError(
            f"{what}, without which no query can be brought to them: put {ALIGNMENT_FILE} of the export beside it."
        )
    with place.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wanted:
        raise ArchiveMismatchError(f"{what}, and {place} is another ({found[:12]}).")
    with reading(place):
        return Alignment.load(place)


def _own_tiles(record: Record, files: Sequence[EmbedFile]) -> tuple[pa.Table, IntArray]:
    """Metadata in the rows of the archive that was exported, and the row that each row of the files has there."""
    written = list(record.columns)
    table = pa.concat_tables([read_columns(file, list(dict.fromkeys([ROW, *written]))) for file in files])
    rows = table.column(ROW)
    if not pa.types.is_integer(rows.type) or rows.null_count:
        raise ArchiveImportError(f"{record.path}: the column {ROW!r} does not number the rows.")
    order = np.argsort(rows.to_numpy(), kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    tiles = table.take(pa.array(order)).select(written).rename_columns([own for own, _ in record.columns.values()])
    for field, (_, kind) in zip(tiles.schema, record.columns.values(), strict=True):
        if str(field.type) != kind or (field.name == ID and field.type != pa.string()):
            raise ArchiveImportError(
                f"{record.path}: the column {field.name!r} has the type {field.type}, and was written as {kind}."
            )
    return tiles.combine_chunks(), ranks


def _first_difference(tiles: pa.Table, others: pa.Table) -> str | None:
    """The column in which two tables differ, or the number of their rows; None where they are equal."""
    if tiles.num_rows != others.num_rows:
        return f"their number, {tiles.num_rows} and {others.num_rows}"
    if tiles.schema.names != others.schema.names:
        return "their columns"
    pairs = zip(tiles.schema.names, tiles.columns, others.columns, strict=True)
    for name, one, two in pairs:
        # NaN differs from itself, but not in words
        if not one.equals(two) and str(one.to_pylist()) != str(two.to_pylist()):
            return f"column {name!r}"
    return None


def _import_foreign(files: Sequence[EmbedFile], sensor: str, name: str, id_column: str | None, scratch: Any) -> Archive:
    """Make an archive of vectors of whose encoder nothing is known but them."""
    tables = [_foreign_tiles(file, id_column) for file in files]
    try:
        tiles = pa.concat_tables(tables, promote_options="default").combine_chunks()
    except pa.ArrowException as error:
        raise ArchiveImportError(
            f"The files have columns of one name and different types: {error}. Import them apart."
        ) from error
    content = hashlib.sha256("\n".join([sensor, *tiles.column(ID).to_pylist()]).encode())
    vectors = read_vectors(files, sensor, None, scratch, unit=False, content=content)
    width = int(vectors.shape[1])
    for file in files:
        said = (read_footer(file.path, file.schema.metadata or {}, "emb") or {}).get("emb:dimensions", width)
        if said != width:
            raise ArchiveImportError(
                f"{file.path}: its footer 'emb' says {str(said)[:20]} dimensions, and its vectors have {width}."
            )
    digest = content.hexdigest()
    identity = Identity(
        PREFIX + name.replace("/", "-").replace("\\", "-"),
        None,
        digest,
        digest,  # it had a processor, and who has other vectors had another
        config={"imported": digest, "width": width},
        code=csmae_hf.__version__,
    )
    return _make(tiles, {sensor: Vectors([vectors])}, identity, [file.path for file in files])


def _foreign_tiles(file: EmbedFile, id_column: str | None) -> pa.Table:
    """The metadata of a foreign file that an archive keeps, with ids and places."""
    schema = file.schema
    if id_column is not None and id_column not in schema.names:
        raise ArchiveImportError(
            f"{file.path} has no column {id_column!r} of ids; it has {', '.join(schema.names)[:500]}."
        )
    named = id_column or next((column for column in ID_NAMES if column in schema.names), None)
    geometry = _geometry_column(file)
    own = (file.vectors, geometry, "bbox")
    kept = {
        field.name: kind for field in schema if field.name not in own and (kind := kept_type(field.type)) is not None
    }
    left_out = [column for column in schema.names if column not in own and column not in kept]
    if left_out:
        logger.warning("%s: the archive keeps no column %s.", file.path.name, " and no column ".join(left_out))
    table = read_columns(
        file, list(dict.fromkeys([*kept, *([named] if named else []), *([geometry] if geometry else [])]))
    )
    if named is None:
        stem = file.path.name.partition(".")[0]
        ids = pa.array([f"{stem}#{row}" for row in range(file.rows)], pa.string())
    else:
        with reading(file.path):
            ids = table.column(named).cast(pa.string())
        if ids.null_count:
            raise ArchiveImportError(
                f"{file.path}: {ids.null_count} of {len(ids)} rows have no {named!r}, which names them."
            )
    with reading(file.path):
        metadata = {column: table.column(column).cast(kind) for column, kind in kept.items() if column != ID}
    return pa.table({ID: ids, **metadata, **_places(file, table, geometry)})


def _geometry_column(file: EmbedFile) -> str | None:
    """The column of a GeoParquet file that says where tiles lie; None of a file that has none."""
    metadata = file.schema.metadata or {}
    geo = read_footer(file.path, metadata, "geo")
    if geo is None:
        return None
    column = geo.get("primary_column")
    columns = geo.get("columns")
    told = columns.get(column) if isinstance(columns, dict) and isinstance(column, str) else None
    if not isinstance(told, dict) or column not in file.schema.names:
        raise ArchiveImportError(
            f"{file.path} is GeoParquet, and lacks its column of geometries, {str(column)[:80]!r}."
        )
    if told.get("encoding") != "WKB":
        raise ArchiveImportError(
            f"{file.path}: geometries are encoded as {str(told.get('encoding'))[:40]!r}; expected WKB. GeoPandas writes it: "
            "to_parquet(..., geometry_encoding='WKB')."
        )
    crs = told.get("crs", {"id": {"authority": "OGC", "code": "CRS84"}})
    named = crs.get("id") if isinstance(crs, dict) else None
    code = f"{named.get('authority')}:{named.get('code')}" if isinstance(named, dict) else None
    if code not in _DEGREES:
        what = code or (str(crs.get("name")) if isinstance(crs, dict) else "none that is known")
        raise ArchiveImportError(
            f"{file.path}: its geometries are in the coordinate reference system {what[:80]}; expected longitude and latitude. Bring "
            "them there first, with GeoPandas to_crs('OGC:CRS84')."
        )
    return str(column)


def _places(file: EmbedFile, table: pa.Table, geometry: str | None) -> dict[str, pa.Array]:
    """The columns `longitude`, `latitude` and `bbox` of a foreign file, from its geometries or the columns of middles."""
    if geometry is not None:
        boxes, middles = _measured(file, table.column(geometry))
    else:
        pair = next((pair for pair in _MIDDLES if set(pair) <= set(table.column_names)), None)
        if pair is None:
            logger.warning("%s says of no tile where it lies: the archive knows no places.", file.path.name)
            return {}
        with reading(file.path):
            middles = np.stack(
                [np.asarray(table.column(name).cast(pa.float64()).fill_null(np.nan)) for name in pair], axis=1
            )
        boxes = None
    unknown = ~np.isfinite(middles).all(axis=1)
    beyond = ~unknown & ((np.abs(middles[:, 0]) > 180) | (np.abs(middles[:, 1]) > 90))
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        raise ArchiveImportError(
            f"{file.path}: row {row} lies at {middles[row, 0]:g}, {middles[row, 1]:g}, which is no longitude and latitude. Is it "
            "another coordinate reference system?"
        )
    if unknown.any():
        logger.warning(
            "%s: of %d of %d tiles the place is not known.", file.path.name, int(unknown.sum()), len(unknown)
        )
    found = {
        name: pa.array(values, pa.float64(), mask=unknown)
        for name, values in zip(("longitude", "latitude"), middles.T, strict=True)
    }
    if boxes is not None:
        sides = [pa.array(side, pa.float64()) for side in boxes.T]
        found["bbox"] = pa.StructArray.from_arrays(sides, names=list(BOUNDS), mask=pa.array(unknown))
    return found


def _measured(file: EmbedFile, column: pa.ChunkedArray) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Bounds (n, 4) and middles (n, 2) of geometries; NaN where one is null or empty."""
    try:
        import shapely
    except ImportError as error:
        raise needs_package("Reading geometries", "shapely", error) from error
    boxes, middles = np.full((len(column), 4), np.nan), np.full((len(column), 2), np.nan)
    start = 0
    for chunk in column.chunks:
        if isinstance(chunk, pa.ExtensionArray):
            chunk = chunk.storage
        if not (pa.types.is_binary(chunk.type) or pa.types.is_large_binary(chunk.type)):
            raise ArchiveImportError(f"{file.path}: geometries have the type {chunk.type}; expected WKB.")
        longest = max((len(value) for value in chunk.to_pylist() if value is not None), default=0)
        if longest > _MOST_WKB:
            raise ArchiveImportError(
                f"{file.path}: a geometry has {longest} bytes, and the outline of a tile no more than {_MOST_WKB}."
            )
        try:
            shapes = shapely.from_wkb(chunk.to_numpy(zero_copy_only=False))
        except shapely.errors.GEOSException as error:
            raise ArchiveImportError(f"{file.path}: a geometry is damaged: {error}") from error
        stop = start + len(chunk)
        boxes[start:stop], middles[start:stop] = _box_and_middle(shapely, shapes)
        start = stop
    middles[np.isnan(boxes).any(axis=1)] = np.nan
    return boxes, middles


def _box_and_middle(shapely: Any, shapes: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Bounds (n, 4), west greater than east across the antimeridian, and middles (n, 2); NaN of what is null or empty."""
    boxes = shapely.bounds(shapes)
    # no tile goes round half the globe: it is cut in two at the antimeridian
    across = boxes[:, 2] - boxes[:, 0] > 180
    shapes = np.where(shapely.is_missing(shapes) | shapely.is_empty(shapes), shapely.Point(0, 0), shapes)
    if across.any():
        shapes[across] = shapely.transform(shapes[across], lambda at: np.where([True, False], at + 360 * (at < 0), at))
    middles = shapely.get_coordinates(shapely.centroid(shapes))
    if across.any():
        boxes[across] = shapely.bounds(shapes[across])
        boxes[:, 2] = np.where(across & (boxes[:, 2] > 180), boxes[:, 2] - 360, boxes[:, 2])
        middles[:, 0] = np.where(across, (middles[:, 0] + 180) % 360 - 180, middles[:, 0])
    return boxes, middles
