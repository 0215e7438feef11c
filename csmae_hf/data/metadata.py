"""What is known of BigEarthNet's tiles besides their pixels: the tables and split lists of v1 and v2, as one kind of row."""

import bz2
import csv
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import LABELS
from csmae_hf.data.codecs import REFERENCE_MAP_SUFFIX
from csmae_hf.data.store import TileStore

logger = logging.getLogger(__name__)

SEASONS = ("Winter", "Spring", "Summer", "Fall")
"""Meteorological seasons of the north, from December on: the names and the rule of bigearthnet-common."""


_TIME = re.compile(r"_(\d{8})T(\d{5,6})(?=_|$)")


def acquisition_time(name: str | None) -> datetime | None:
    """Read when an image was taken out of its Sentinel-1 or Sentinel-2 name.

    The hour may have lost its leading zero (T93020), and 13,599 names of BigEarthNet v1 have seconds of 60 and more (T94161), which
    run on into the next minute.

    Args:
        name: As of BigEarthNet v1 or v2.

    Returns:
        The time (UTC); None where there is no name or it does not hold one.
    """
    match = _TIME.search(name or "")
    if match is None:
        return None
    hours, minutes, seconds = (int(match[2].zfill(6)[start : start + 2]) for start in (0, 2, 4))
    try:
        return datetime.strptime(match[1], "%Y%m%d") + timedelta(hours=hours, minutes=minutes, seconds=seconds)
    except ValueError:
        return None


def season_of(time: datetime | None) -> str | None:
    """Name the season by month: December to February is Winter, and so on.

    Args:
        time: A date; BigEarthNet is European.

    Returns:
        One of `SEASONS`; None for no date.
    """
    return None if time is None else SEASONS[time.month % 12 // 3]


class TileRow(NamedTuple):
    """What is known of a tile besides its pixels."""

    id: str
    s1_id: str | None = None
    labels: list[int] | None = None
    country: str | None = None
    split: str | None = None
    snow: bool | None = None
    cloud_or_shadow: bool | None = None


_LABEL_INDEX = {name: index for index, name in enumerate(LABELS)}


def _label_indices(names: Iterable[str] | None, tile: str) -> list[int] | None:
    """Class numbers in ascending order, each once; None for no labels."""
    try:
        return None if names is None else sorted({_LABEL_INDEX[name] for name in names})
    except KeyError as error:
        raise ValueError(
            f"Tile {tile!r} has the label {error}, which is none of the 19 classes of BigEarthNet."
        ) from error


_V2_TABLES = ("metadata.parquet", "metadata_for_patches_with_snow_cloud_or_shadow.parquet")
_V2_COLUMNS = (
    "patch_id",
    "s1_name",
    "labels",
    "country",
    "split",
    "contains_seasonal_snow",
    "contains_cloud_or_shadow",
)


def find_v2_metadata(store: Path) -> list[Path]:
    """The metadata tables inside or beside an LMDB folder."""
    for folder in (store, store.parent):
        if (folder / _V2_TABLES[0]).is_file():
            return [folder / name for name in _V2_TABLES if (folder / name).is_file()]
    raise FileNotFoundError(
        f"No {_V2_TABLES[0]} in {store} or beside it. BigEarthNet v2 needs it to say which S1 image belongs to which S2 image: put it "
        "there, or give it as metadata=."
    )


def read_v2_rows(tables: Iterable[Path]) -> list[TileRow]:
    """All rows of v2 metadata tables."""
    rows: list[TileRow] = []
    for path in tables:
        try:
            table = pq.read_table(path, columns=list(_V2_COLUMNS))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no metadata table of BigEarthNet v2: {error}.") from error
        lacking = [name for name in _V2_COLUMNS if name not in table.column_names]
        if lacking:
            raise ValueError(f"{path} lacks the columns {', '.join(lacking)} of the metadata of BigEarthNet v2.")
        entries = zip(*(table.column(name).to_pylist() for name in _V2_COLUMNS), strict=True)
        for name, s1_name, labels, country, split, snow, cloud in tqdm(
            entries, total=len(table), desc="Reading metadata", unit="tile", delay=2
        ):
            rows.append(TileRow(name, s1_name, _label_indices(labels, name), country, split, snow, cloud))
    return rows


_V1_TABLES = ("manifest.csv", "metadata.csv", "s1_s2_name_country_season.csv", "s1_s2_name_country_season.csv.bz2")
_V1_COLUMNS = ("s2_name", "s1_name", "country")
_V1_SPLIT_FILES = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
_V1_SPLIT_FOLDERS = ("", "official_splits", "splits")


def read_v1_rows(store: TileStore, tables: list[Path], splits: Path | None) -> list[TileRow]:
    """The tiles of a v1 store and those that split files list, without labels."""
    beside = (store.path, store.path.parent)
    tables = tables or [folder / name for folder in beside for name in _V1_TABLES if (folder / name).is_file()][:1]
    stored = [key for key in store if not key.endswith(REFERENCE_MAP_SUFFIX)]
    if stored[0].startswith("S1"):
        raise ValueError(
            f"{store.path} holds Sentinel-1 alone, by S1 name; expected an archive of S2, or of both, by S2 name."
        )
    split_of, s1_of = _read_splits(_find_splits(beside, splits))
    country_of: dict[str, str | None] = {}
    for s2_name, s1_name, country in _read_v1_tables(tables, {*stored, *split_of}):
        if s2_name in country_of:
            raise ValueError(
                f"Tile {s2_name} is listed more than once in {', '.join(map(str, tables))}. Keep one row of it."
            )
        s1_of[s2_name], country_of[s2_name] = s1_name, country
    unknown = {"S1 names": s1_of, "countries": country_of, "splits": split_of}
    absent = [what for what, known in unknown.items() if not known]
    if absent:
        logger.warning(
            "%s: no %s are known, so those columns are None. Give metadata= (a CSV of s2_name, s1_name, country) or splits=.",
            store.path,
            ", ".join(absent),
        )
    names = dict.fromkeys([*stored, *split_of])
    return [TileRow(name, s1_of.get(name), None, country_of.get(name), split_of.get(name)) for name in names]


def _find_splits(folders: Iterable[Path], given: Path | None) -> dict[str, Path]:
    """The split file of each split, from the folder given, or the first that has any."""
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


def _read_splits(files: Mapping[str, Path]) -> tuple[dict[str, str], dict[str, str | None]]:
    """The split of each S2 name, and its S1 name where the files have a second column."""
    split_of: dict[str, str] = {}
    s1_of: dict[str, str | None] = {}
    for split, path in files.items():
        with _open_text(path) as lines:
            for row in filter(None, csv.reader(lines)):
                if row[0] in split_of:
                    raise ValueError(f"Tile {row[0]} is listed more than once: in {split_of[row[0]]} and in {path}.")
                split_of[row[0]] = split
                if len(row) > 1:
                    s1_of[row[0]] = row[1]
    return split_of, s1_of


def _read_v1_tables(tables: Iterable[Path], names: Collection[str]) -> Iterator[tuple[str, str | None, str | None]]:
    """S2 name, S1 name and country of those tiles that v1 tables list."""
    for path in tables:
        with _open_text(path) as lines:
            reader = csv.DictReader(lines)
            lacking = [column for column in _V1_COLUMNS if column not in (reader.fieldnames or ())]
            if lacking:
                raise ValueError(
                    f"{path} lacks the columns {', '.join(lacking)}; expected a CSV with {', '.join(_V1_COLUMNS)}."
                )
            for row in tqdm(reader, desc=f"Reading {path.name}", unit="tile", delay=2):
                if row["s2_name"] in names:
                    yield row["s2_name"], row["s1_name"] or None, row["country"] or None


def _open_text(path: Path) -> TextIO:
    """Open a CSV, perhaps compressed, so that `csv` sees its line ends as they are."""
    if path.suffix == ".bz2":
        return bz2.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def with_v1_labels(rows: list[TileRow], store: TileStore) -> list[TileRow]:
    """Rows with the labels that lie inside their v1 values."""
    labelled = []
    for row in tqdm(rows, desc=f"Reading labels of {store.path.name}", unit="tile", delay=2):
        labelled.append(row._replace(labels=_label_indices(store.read_labels(row.id), row.id)))
    return labelled
