"""What is known of BigEarthNet's tiles besides their pixels: the tables and split lists of v1 and v2, as one kind of row."""

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import METADATA_NAME, PARTNER_SENSOR, REFERENCE_MAP_SUFFIX, SENSORS, TILE_SENSOR
from csmae_hf.data.labels import parse_labels
from csmae_hf.data.store import TileStore
from csmae_hf.data.text_tables import read_csv, read_lines
from csmae_hf.images.products import latitude_sign, parse_product, parse_time, season

logger = logging.getLogger(__name__)

_STAND_IN = re.compile(r"[A-Za-z0-9]+-of-")

LATITUDE_COLUMNS = ("latitude", "lat", "centre_lat", "center_lat")
"""Columns of a table that say on which hemisphere a tile lies."""


def stand_in_key(sensor: str, tile: str) -> str:
    """Name an image whose own name is not known, such as `S1-of-` and the tile's name with `-` for `_`.

    No acquisition time is read out of it, which would be the S2 image's.
    """
    return f"{sensor.upper()}-of-{tile.replace('_', '-')}"


def acquisition_time(name: str | None) -> datetime | None:
    """Read when an image was taken (UTC) out of its name, as of [`parse_product`]; None where there is no name or no time in it."""
    return None if name is None or _STAND_IN.match(name) else parse_product(name).date


def read_date(given: Any, tile: str) -> datetime:
    """Read the time of acquisition (UTC, without a zone) that a table says, as a date, a time or their text."""
    time: datetime | None
    if isinstance(given, datetime):
        time = given
    elif isinstance(given, date):
        time = datetime.combine(given, datetime.min.time())
    else:
        try:
            time = datetime.fromisoformat(str(given).strip())
        except ValueError:
            time = parse_time(str(given))
    if time is None:
        raise ValueError(
            f"Tile {tile} has the date {str(given)[:100]!r}; expected one such as 2017-06-13 or 2017-06-13T10:10:31."
        )
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def season_of(time: datetime | None, names: Iterable[str | None], latitude: float | None = None) -> str | None:
    """Name the season of a date on the hemisphere of a latitude or, where that is not known, of the MGRS tile in one of several names.

    Where none tells the hemisphere, it is the north, as of BigEarthNet; None for no date.
    """
    if time is None:
        return None
    if latitude is None:
        tile = names_a_tile(names)
        latitude = None if tile is None else latitude_sign(tile)
    return season(time, latitude)


def names_a_tile(names: Iterable[str | None]) -> str | None:
    """Give the MGRS tile that the first of several names says; None where none does."""
    return next((tile for name in names if name and (tile := parse_product(name).tile)), None)


class TileRow(NamedTuple):
    """What is known of a tile besides its pixels.

    Attributes:
        id: Its name.
        names: By sensor, the name of its image of that sensor, where it is known and not the tile's own.
        labels: Names of its classes.
        country: Where it lies.
        split: "train", "validation" or "test".
        snow: Whether there is seasonal snow.
        cloud_or_shadow: Whether there is cloud or its shadow.
        own: Where other columns of the table that lists it lie: a table of these alone, and the row.
    """

    id: str
    names: Mapping[str, str] = {}
    labels: Sequence[str] | None = None
    country: str | None = None
    split: str | None = None
    snow: bool | None = None
    cloud_or_shadow: bool | None = None
    own: tuple[pa.Table, int] | None = None

    def image_name(self, sensor: str) -> str | None:
        """Name the image of a sensor, as far as that is known; a tile may have the name of an image of another than `TILE_SENSOR`."""
        if sensor != TILE_SENSOR:
            return self.names.get(sensor)
        return None if self.id in self.names.values() else self.id


def own_columns(rows: Sequence[TileRow], without: Iterable[str] = ()) -> dict[str, pa.Array]:
    """Gather the other columns of the tables that list tiles, in the order of the rows and the types of the tables."""
    tables = {id(row.own[0]): row.own[0] for row in rows if row.own is not None}
    if not tables:
        return {}
    try:
        together = pa.concat_tables(tables.values(), promote_options="permissive")
    except pa.ArrowException as error:
        raise ValueError(f"A column of the tables is of one type in one and of another in another: {error}") from error
    starts, start = {}, 0
    for number, table in tables.items():
        starts[number] = start
        start += table.num_rows
    places = [None if row.own is None else starts[id(row.own[0])] + row.own[1] for row in rows]
    kept = [name for name in together.column_names if name not in set(without)]
    return {
        name: column.combine_chunks()
        for name, column in zip(kept, together.select(kept).take(pa.array(places, pa.int64())), strict=True)
    }


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the same values that Arrow can select rows of, and a dataset can hold."""
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_decimal(kind) and kind.bit_width < 128:
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.list_(_plain_type(kind.value_type))
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)


def plain_columns(table: pa.Table, names: Iterable[str], path: Path) -> pa.Table:
    """Take columns of a table in types that a dataset can hold; a warning names those of other types, which are left out."""
    from datasets import Features

    columns = {}
    for name in names:
        column = table.column(name)
        if (plain := _plain_type(column.type)) != column.type:
            column = column.cast(plain)
        try:
            Features.from_arrow_schema(pa.schema([(name, column.type)]))
        except ValueError:
            logger.warning(
                "Column %s of %s is of type %s, which a dataset cannot hold; it is left out.", name, path, column.type
            )
            continue
        columns[name] = column
    return pa.table(columns)


METADATA_SCHEMA = pa.schema(
    [
        ("patch_id", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("split", pa.string()),
        ("country", pa.string()),
        ("s1_name", pa.string()),
        ("s2v1_name", pa.string()),
        ("contains_seasonal_snow", pa.bool_()),
        ("contains_cloud_or_shadow", pa.bool_()),
    ]
)
"""Columns of the metadata of BigEarthNet v2. A store with images of other sensors has a column of names for each of them besides."""

V1_NAME_COLUMN = "s2v1_name"
"""The name of the tile in BigEarthNet v1: no name of an image of a sensor."""


def metadata_schema(others: Iterable[str] = ()) -> pa.Schema:
    """Give the columns of a store's metadata that has images of other sensors than BigEarthNet's besides."""
    return pa.schema([*METADATA_SCHEMA, *((name_column(sensor), pa.string()) for sensor in others)])


_V2_TABLES = (METADATA_NAME, "metadata_for_patches_with_snow_cloud_or_shadow.parquet")
_V2_COLUMNS = ("patch_id", "labels", "country", "split", "contains_seasonal_snow", "contains_cloud_or_shadow")
_NAME_ENDING = "_name"


def name_column(sensor: str) -> str:
    """Name the column of the names of a sensor's images, such as `s1_name`."""
    return sensor + _NAME_ENDING


def v2_tables(folders: Iterable[Path]) -> list[Path]:
    """Find the metadata tables of BigEarthNet v2 in the first of several folders that has any: that of the tiles, and that of those
    with snow, cloud or shadow if it is there."""
    for folder in folders:
        if (folder / METADATA_NAME).is_file():
            return [folder / name for name in _V2_TABLES if (folder / name).is_file()]
    return []


def read_v2_rows(tables: Iterable[Path]) -> list[TileRow]:
    """Read the metadata of BigEarthNet v2, parquet files: a row a tile, complete. A ValueError names a file that is no such table."""
    rows: list[TileRow] = []
    for path in tables:
        try:
            columns = pq.read_schema(path).names
            sensors = [name.removesuffix(_NAME_ENDING) for name in columns if name.endswith(_NAME_ENDING)]
            sensors = [sensor for sensor in sensors if name_column(sensor) != V1_NAME_COLUMN]
            expected = (*_V2_COLUMNS, *(name_column(sensor) for sensor in SENSORS if sensor != TILE_SENSOR))
            lacking = [name for name in expected if name not in columns]
            if lacking:
                raise ValueError(f"{path} lacks the columns {', '.join(lacking)} of the metadata of BigEarthNet v2.")
            # `NAME_name` may be of images of a sensor of the store, or a column like any other: who knows the store decides
            others = [name for name in columns if name not in (*expected, V1_NAME_COLUMN)]
            table = pq.read_table(path, columns=[*_V2_COLUMNS, *map(name_column, sensors)])
            own = plain_columns(pq.read_table(path, columns=others), others, path) if others else None
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no metadata table of BigEarthNet v2: {error}.") from error
        entries = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
        for number, (name, labels, country, split, snow, cloud, *images) in enumerate(
            tqdm(entries, total=len(table), desc="Reading metadata", unit="tile", delay=2)
        ):
            names = dict(zip(sensors, images, strict=True))  # half a million times, so not filtered unless it must be
            if None in images:
                names = {sensor: image for sensor, image in names.items() if image is not None}
            place = None if own is None else (own, number)
            rows.append(TileRow(name, names, labels or None, country, split, snow, cloud, place))
    return rows


_V1_TABLES = ("manifest.csv", "metadata.csv", "s1_s2_name_country_season.csv", "s1_s2_name_country_season.csv.bz2")
_V1_COLUMNS = ("s1_name", "country")
_V1_IGNORED = ("season",)  # it follows the date of the S1 image in BigEarthNet's own table
_S2_HEADERS = (
    "s2_name",
    "s2_id",
    "s2",
    "patch_id",
    "patch_name",
    "patch",
    "tile_id",
    "tile_name",
    "tile",
    "id",
    "name",
    "filename",
)
_S1_HEADERS = ("s1_name", "s1_id", "s1")
_V1_SPLIT_FILES = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
_V1_SPLIT_FOLDERS = ("", "official_splits", "splits")


def v1_tables(folders: Iterable[Path]) -> list[Path]:
    """Find the first table of names and countries of BigEarthNet v1 in several folders, in a list of one or none."""
    return [folder / name for folder in folders for name in _V1_TABLES if (folder / name).is_file()][:1]


def read_v1_store_rows(store: TileStore, tables: Sequence[Path], splits: Path | None) -> list[TileRow]:
    """Read what tables and split lists say of the tiles of a v1 store, and of those the lists name besides: rows without labels.

    Tables and lists that are not given are looked for inside and beside the store. What is not known is None, and said in a warning.
    """
    beside = (store.path, store.path.parent)
    stored = [key for key in store if not key.endswith(REFERENCE_MAP_SUFFIX)]
    found = list(tables) or v1_tables(beside)
    lists = find_v1_splits(beside, splits)
    if stored[0].startswith(SENSORS[PARTNER_SENSOR].prefix):  # a store of S1 alone, by S1 name
        known = {row.names.get(PARTNER_SENSOR, row.id): row for row in read_v1_rows(found, lists, own=bool(tables))}
        rows = [known.pop(name, TileRow(name))._replace(names={PARTNER_SENSOR: name}) for name in stored] + [
            row for row in known.values() if row.split
        ]
    else:
        rows = read_v1_rows(found, lists, stored, own=bool(tables))
    unknown = {
        "S1 names": sum(not row.names for row in rows),
        "countries": sum(row.country is None for row in rows),
        # a tile in no split is nothing to warn of: those with snow, clouds or no label are in none
        "splits": 0 if any(row.split for row in rows) else len(rows),
    }
    missing = [what if count == len(rows) else f"{what} of {count}" for what, count in unknown.items() if count]
    if missing:
        logger.warning(
            "%s: of its %d tiles, no %s are known, and are None. Give metadata= (a CSV of s2_name, s1_name, country) or splits=.",
            store.path,
            len(rows),
            ", ".join(missing),
        )
    return rows


def read_v1_rows(
    tables: Iterable[Path], splits: Mapping[str, Path], stored: Collection[str] | None = None, own: bool = False
) -> list[TileRow]:
    """Read what tables and split lists say of BigEarthNet v1, a row a tile, without labels; no store is needed.

    Args:
        tables: CSV files (may be .bz2) of s2_name and one or both of s1_name and country.
        splits: The list of each split.
        stored: S2 names to read of; default all of the tables. Those of the split lists are read in any case.
        own: Whether to keep the other columns of the tables, and their `labels` and `split`.
    """
    split_of: dict[str, str] = {}
    s1_of: dict[str, str] = {}
    for split, path in splits.items():
        for name, s1_name in _read_list(path, stored):
            if name in split_of:
                raise ValueError(f"Tile {name} is listed more than once: in {split_of[name]} and in {path}.")
            split_of[name] = split
            if s1_name:  # the lists of BigEarthNet-MM have a column of S1 names
                s1_of[name] = s1_name
    rows = {name: TileRow(name, split=split_of.get(name)) for name in [*(stored or ()), *split_of]}
    listed: set[str] = set()
    for row in _read_v1_tables(tables, own):
        if stored is not None and row.id not in rows:
            continue
        if row.id in listed:
            raise ValueError(
                f"Tile {row.id} is listed more than once in {', '.join(map(str, tables))}. Keep one row of it."
            )
        listed.add(row.id)
        rows[row.id] = row._replace(split=split_of.get(row.id, row.split))
    return [
        row._replace(names={PARTNER_SENSOR: s1_of[name]}) if name in s1_of and not row.names else row
        for name, row in rows.items()
    ]


def _read_list(path: Path, stored: Collection[str] | None) -> Iterator[tuple[str, str | None]]:
    """Names of the S2 and, where there are any, of the S1 images that a split list has, with a line of column names or without."""
    lines = read_lines(path)
    header = [cell.lower() for cell in lines[0]] if lines else []
    places = [
        next((header.index(name) for name in names if name in header), None) for names in (_S2_HEADERS, _S1_HEADERS)
    ]
    s2, s1 = places if places != [None, None] and lines[0][0] not in (stored or ()) else (0, 1)
    for cells in lines if (s2, s1) == (0, 1) and places == [None, None] else lines[1:]:
        name = cells[s2] if s2 is not None and s2 < len(cells) else ""
        other = cells[s1] if s1 is not None and s1 < len(cells) else None
        if name or other:
            yield name or str(other), other or None


def find_v1_splits(folders: Iterable[Path], given: Path | None = None) -> dict[str, Path]:
    """Find the split lists of BigEarthNet v1, by split: in a folder given, or else in the first that has any of several and of their
    folders `official_splits` and `splits`."""
    candidates = [given] if given else [folder / name for folder in folders for name in _V1_SPLIT_FOLDERS]
    for folder in candidates:
        files = {
            split: folder / f"{stem}{suffix}"
            for split, stems in _V1_SPLIT_FILES.items()
            for stem in stems
            for suffix in (".csv", ".csv.bz2")
            if (folder / f"{stem}{suffix}").is_file()
        }
        if files:
            return files
    if given:
        raise FileNotFoundError(f"No split files in {given}: expected train.csv, val.csv or test.csv (or .csv.bz2).")
    return {}


def _read_v1_tables(tables: Iterable[Path], own: bool) -> Iterator[TileRow]:
    """What v1 tables say of the tiles they list; of other columns only if those are wanted."""
    texts = ("s2_name", *_V1_COLUMNS, "labels", "split")
    for path in tables:
        table = read_csv(path, texts.__contains__)
        names = table.column_names
        if "s2_name" not in names or not set(_V1_COLUMNS) & set(names):
            raise ValueError(
                f"{path} has the columns {', '.join(names)}; expected a CSV with s2_name and one or both of {', '.join(_V1_COLUMNS)}."
            )
        others = [name for name in names if name not in (*texts, *_V1_IGNORED)] if own else []
        rest = plain_columns(table, others, path) if others else None
        columns = [table[name].to_pylist() if name in names else [None] * len(table) for name in texts]
        for number, (name, s1_name, country, labels, split) in enumerate(zip(*columns, strict=True)):
            if name is None:
                raise ValueError(f"Row {number + 1} of {path} has no s2_name; every tile needs a name.")
            yield TileRow(
                name,
                {PARTNER_SENSOR: s1_name} if s1_name else {},
                parse_labels(labels, name) if own else None,
                country,
                ("validation" if split == "val" else split) if own else None,
                own=None if rest is None else (rest, number),
            )
