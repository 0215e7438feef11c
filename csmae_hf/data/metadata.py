"""What is known of BigEarthNet's tiles besides their pixels: the tables and split lists of v1 and v2, as one kind of row."""

import bz2
import csv as plain_csv
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import LABELS, METADATA_NAME, PARTNER_SENSOR, REFERENCE_MAP_SUFFIX, SENSORS, TILE_SENSOR
from csmae_hf.data.store import TileStore

logger = logging.getLogger(__name__)

SEASONS = ("Winter", "Spring", "Summer", "Fall")
"""Meteorological seasons of the north, from December on: the names and the rule of bigearthnet-common."""

_TIME = re.compile(r"_(\d{8})T(\d{5,6})(?=_|$)")


def acquisition_time(name: str | None) -> datetime | None:
    """Read when an image was taken (UTC) out of its Sentinel-1 or Sentinel-2 name; None where there is no name or no time in it.

    The hour may have lost its leading zero (T93020), and 13,599 names of BigEarthNet v1 have seconds of 60 and more (T94161), which
    run on into the next minute.
    """
    match = _TIME.search(name or "")
    if match is None:
        return None
    date, clock = match[1], match[2].zfill(6)
    try:  # not strptime, which takes ten times as long, and there are a million names
        day = datetime(int(date[:4]), int(date[4:6]), int(date[6:]))
    except ValueError:
        return None
    return day + timedelta(hours=int(clock[:2]), minutes=int(clock[2:4]), seconds=int(clock[4:]))


def season_of(time: datetime | None) -> str | None:
    """Name the season of a (European) date by its month: December to February is Winter, and so on; None for no date."""
    return None if time is None else SEASONS[time.month % 12 // 3]


class TileRow(NamedTuple):
    """What is known of a tile besides its pixels.

    Attributes:
        id: Its name.
        names: By sensor, the name of its image of that sensor, where it is known and not the tile's own.
        labels: Numbers of its classes.
        country: Where it lies.
        split: "train", "validation" or "test".
        snow: Whether there is seasonal snow.
        cloud_or_shadow: Whether there is cloud or its shadow.
    """

    id: str
    names: Mapping[str, str] = {}
    labels: list[int] | None = None
    country: str | None = None
    split: str | None = None
    snow: bool | None = None
    cloud_or_shadow: bool | None = None

    def image_name(self, sensor: str) -> str | None:
        """Name the image of a sensor, as far as that is known; a tile may have the name of an image of another than `TILE_SENSOR`."""
        if sensor != TILE_SENSOR:
            return self.names.get(sensor)
        return None if self.id in self.names.values() else self.id


_LABEL_INDEX = {name: index for index, name in enumerate(LABELS)}


def label_indices(names: Iterable[str] | None, tile: str) -> list[int] | None:
    """Give classes of the 19 their numbers, ascending, each once; None for None. A ValueError names the tile of any other class."""
    try:
        return None if names is None else sorted({_LABEL_INDEX[name] for name in names})
    except KeyError as error:
        raise ValueError(
            f"Tile {tile!r} has the label {error}, which is none of the 19 classes of BigEarthNet."
        ) from error


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
            table = pq.read_table(path, columns=[*_V2_COLUMNS, *map(name_column, sensors)])
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no metadata table of BigEarthNet v2: {error}.") from error
        entries = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
        for name, labels, country, split, snow, cloud, *others in tqdm(
            entries, total=len(table), desc="Reading metadata", unit="tile", delay=2
        ):
            names = dict(zip(sensors, others, strict=True))  # half a million times, so not filtered unless it must be
            if None in others:
                names = {sensor: other for sensor, other in names.items() if other is not None}
            rows.append(TileRow(name, names, label_indices(labels, name), country, split, snow, cloud))
    return rows


_V1_TABLES = ("manifest.csv", "metadata.csv", "s1_s2_name_country_season.csv", "s1_s2_name_country_season.csv.bz2")
_V1_COLUMNS = ("s1_name", "country")
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
    if any(stored[0].startswith(sensor.prefix) for name, sensor in SENSORS.items() if name != TILE_SENSOR):
        raise ValueError(
            f"{store.path} holds Sentinel-1 alone, by S1 name; expected a store of S2, or of both, by S2 name."
        )
    rows = read_v1_rows(list(tables) or v1_tables(beside), find_v1_splits(beside, splits), stored)
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
    tables: Iterable[Path], splits: Mapping[str, Path], stored: Iterable[str] | None = None
) -> list[TileRow]:
    """Read what tables and split lists say of BigEarthNet v1, a row a tile, without labels; no store is needed.

    Args:
        tables: CSV files (may be .bz2) of s2_name and one or both of s1_name and country.
        splits: The list of each split.
        stored: S2 names to read of; default all of the tables. Those of the split lists are read in any case.
    """
    split_of: dict[str, str] = {}
    s1_of: dict[str, str] = {}
    for split, path in splits.items():
        opener: Any = bz2.open if path.suffix == ".bz2" else open
        with opener(path, "rt", encoding="utf-8", newline="") as lines:  # so `csv` sees line ends as they are
            for row in filter(None, plain_csv.reader(lines)):
                if row[0] in split_of:
                    raise ValueError(f"Tile {row[0]} is listed more than once: in {split_of[row[0]]} and in {path}.")
                split_of[row[0]] = split
                if len(row) > 1 and row[1]:  # the lists of BigEarthNet-MM have a column of S1 names
                    s1_of[row[0]] = row[1]
    names = dict.fromkeys([*(stored or ()), *split_of])
    country_of: dict[str, str | None] = {}
    for s2_name, s1_name, country in _read_v1_tables(tables):
        if stored is None:
            names[s2_name] = None
        elif s2_name not in names:
            continue
        if s2_name in country_of:
            raise ValueError(
                f"Tile {s2_name} is listed more than once in {', '.join(map(str, tables))}. Keep one row of it."
            )
        country_of[s2_name] = country
        if s1_name:
            s1_of[s2_name] = s1_name
    return [
        TileRow(
            name, {PARTNER_SENSOR: s1_of[name]} if name in s1_of else {}, None, country_of.get(name), split_of.get(name)
        )
        for name in names
    ]


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


def _read_v1_tables(tables: Iterable[Path]) -> Iterator[tuple[str, str | None, str | None]]:
    """S2 name, S1 name and country of the tiles that v1 tables list."""
    text = csv.ConvertOptions(column_types=dict.fromkeys(("s2_name", *_V1_COLUMNS), pa.string()))
    for path in tables:
        try:
            table = csv.read_csv(path, convert_options=text)
        except pa.ArrowException as error:
            raise ValueError(f"{path} is no CSV with a header: {error}.") from error
        names = table.column_names
        if "s2_name" not in names or not set(_V1_COLUMNS) & set(names):
            raise ValueError(
                f"{path} has the columns {', '.join(names)}; expected a CSV with s2_name and one or both of {', '.join(_V1_COLUMNS)}."
            )
        none = [None] * len(table)
        columns = [table[name].to_pylist() if name in names else none for name in ("s2_name", *_V1_COLUMNS)]
        yield from ((name, s1_name or None, country or None) for name, s1_name, country in zip(*columns, strict=True))
