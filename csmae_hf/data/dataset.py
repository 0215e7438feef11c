"""BigEarthNet v1 or v2 as one `datasets.Dataset`: a row a tile, whose pixels are read from the store when they are looked at."""

import bz2
import csv
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets.features.features import register_feature
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import LABELS, S1_BANDS, S2_BANDS, SPLITS
from csmae_hf.data.codecs import REFERENCE_MAP_SUFFIX
from csmae_hf.data.store import DATA_FILE, TileStore

logger = logging.getLogger(__name__)

SENSOR_BANDS: dict[str, tuple[str, ...]] = {"s1": S1_BANDS, "s2": S2_BANDS}
"""The bands of BigEarthNet by sensor."""

MAX_MISSING_SHARE = 0.01
"""Share of the rows asked for that may be missing from the store before `load_bigearthnet(missing="error")` refuses."""

SEASONS = ("Winter", "Spring", "Summer", "Fall")
"""Meteorological seasons of the north, from December on: the names and the rule of bigearthnet-common."""

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class TileBands:
    """The bands of one tile by name, each (H, W) at native resolution; read from the store, all at once, when the first is looked at.

    That is what makes `filter`, which hands whole rows to its function, cost no pixels where the function looks at none. Pickled, say
    by the worker of a DataLoader, it becomes a plain dict of arrays: the process that loads a tile is the one that reads it.

    It behaves as a read-only mapping but is no `collections.abc.Mapping`, for `datasets` would store what those hold when `map` writes
    a row that was looked at; this it asks for an array, and stores the key it gets.

    Args:
        store: Folder of the LMDB.
        key: The tile's key.
        bands: Names of the bands, in order.

    Raises:
        TileNotFoundError: On looking, if the store has no such key.
        CorruptTileError: On looking, if the value is broken or lacks a band.
    """

    def __init__(self, store: str, key: str, bands: Sequence[str]):
        self.store = store
        self.key = key
        self._bands = tuple(bands)
        self._pixels: dict[str, np.ndarray[Any, Any]] | None = None

    def __getitem__(self, band: str) -> np.ndarray[Any, Any]:
        if band not in self._bands:
            raise KeyError(band)
        if self._pixels is None:
            self._pixels = open_store(self.store).read(self.key, self._bands)
        return self._pixels[band]

    def __contains__(self, band: object) -> bool:
        return band in self._bands

    def __iter__(self) -> Iterator[str]:
        return iter(self._bands)

    def __len__(self) -> int:
        return len(self._bands)

    def __repr__(self) -> str:
        return f"TileBands({self.key!r}: {', '.join(self._bands)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.items(),)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        return np.array(self.key)

    def keys(self) -> tuple[str, ...]:
        """Name the bands.

        Returns:
            Their names, in order.
        """
        return self._bands

    def values(self) -> list[np.ndarray[Any, Any]]:
        """Read the bands.

        Returns:
            (H, W) for each, in order.
        """
        return [self[band] for band in self._bands]

    def items(self) -> list[tuple[str, np.ndarray[Any, Any]]]:
        """Read the bands.

        Returns:
            Name and (H, W) of each, in order.
        """
        return [(band, self[band]) for band in self._bands]

    def get(self, band: str, default: Any = None) -> Any:
        """Read a band that may not be there.

        Args:
            band: Its name.
            default: What to give in its place.

        Returns:
            (H, W), or the default.
        """
        return self[band] if band in self._bands else default


@dataclass
class Tile:
    """A `datasets` feature: the column stores a tile's key, and gives its bands.

    Selecting, filtering, sorting and shuffling a dataset move keys and read no pixel. Cast the column to a `Tile` with `decode=False`
    for the keys themselves; formats ("torch", "numpy"), which cannot hold bands of several sizes, give them too.

    Args:
        store: Folder of the LMDB.
        sensor: Whose bands these are.
        bands: Bands to give, in this order.
        decode: Whether to give bands; else the column gives keys.
        id: Unused; every feature of `datasets` has it.
    """

    store: str
    sensor: str
    bands: list[str]
    decode: bool = True
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "dict"
    pa_type: ClassVar[Any] = pa.string()
    _type: str = field(default="CSMAETile", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        """Say how Arrow stores the column.

        Returns:
            The type of a key.
        """
        return self.pa_type

    def encode_example(self, value: Any) -> str:
        """Take what a row holds for this column.

        Args:
            value: The tile's key, or its bands as this column gave them.

        Returns:
            The key.

        Raises:
            ValueError: If it is anything else: pixels are not written through the dataset.
        """
        key = value.key if isinstance(value, TileBands) else value
        if not isinstance(key, str):
            raise self._no_pixels(type(value).__name__)
        return str(key)

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Take what a column holds, as `map` writes it.

        Args:
            storage: Keys.

        Returns:
            The keys.

        Raises:
            ValueError: If they are anything else, such as changed pixels. Without this, `datasets` would silently store those.
        """
        if not any(is_key(storage.type) for is_key in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)):
            raise self._no_pixels(str(storage.type)[:100])
        return storage.cast(self.pa_type)

    def _no_pixels(self, given: str) -> ValueError:
        return ValueError(
            f"The pixel column of {self.sensor} stores keys of {self.store}, not a {given}. Put changed pixels in a column of another "
            "name, or write them to a store of their own with csmae_hf.data.store.write_store."
        )

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Any:
        """Give the bands of a tile.

        Args:
            value: Its key. Anything else is taken for bands already given, and given back.
            token_per_repo_id: Unused; the stores are local.

        Returns:
            A [`TileBands`]: (H, W) by band at native resolution, S1 float32 in dB, S2 uint16 digital numbers.
        """
        return TileBands(self.store, value, self.bands) if isinstance(value, str) else value


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*register_feature.*experimental")  # nothing a user could do about it
    register_feature(Tile, Tile._type)


@lru_cache(maxsize=64)
def open_store(path: str) -> TileStore:
    """Make the store of a folder, one for all who ask; it opens on first use, once per process.

    Args:
        path: Folder of the LMDB.

    Returns:
        The store.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    return TileStore(path)


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


class _Row(NamedTuple):
    """What is known of a tile besides its pixels."""

    id: str
    s1_id: str | None = None
    labels: list[int] | None = None
    country: str | None = None
    split: str | None = None
    snow: bool | None = None
    cloud_or_shadow: bool | None = None


def load_bigearthnet(
    path: str | os.PathLike[str],
    split: str | None = None,
    *,
    metadata: Paths | None = None,
    splits: str | os.PathLike[str] | None = None,
    sensors: Mapping[str, Sequence[str] | None] | None = None,
    missing: Literal["error", "drop"] = "error",
) -> Dataset:
    """Load BigEarthNet, v1 (an LMDB of pickles, which are never unpickled) or v2 (an LMDB of safetensors), told apart by content.

    Args:
        path: The LMDB folder, or a folder that holds exactly one, with its metadata beside it.
        split: "train", "validation" (or "val"), "test"; None for all tiles.
        metadata: Tables to use instead of those found beside the LMDB or inside its folder. v2: parquet; found are `metadata.parquet`
            and `metadata_for_patches_with_snow_cloud_or_shadow.parquet`. v1: CSV (may be .bz2) with the columns s2_name, s1_name and
            country; found is one of `manifest.csv`, `metadata.csv` and `s1_s2_name_country_season.csv[.bz2]`.
        splits: v1 only: folder of train.csv, val.csv or validation.csv, and test.csv (may be .bz2; no header; the S2 name, and perhaps
            the S1 name), instead of those beside the LMDB or in a folder `official_splits` or `splits` beside it.
        sensors: Pixel columns to make, and the bands of each (None: all); default all bands of each sensor that the store has.
        missing: What to do about tiles that are listed for the split but are not in the store. Either way they are left out and
            counted in one warning; "error" refuses when they are more than 1 % of those listed, as of a store half copied; "drop" does
            not, as for a small store with the table of all BigEarthNet.

    Returns:
        A row a tile, sorted by `id`. Columns: `id` (S2 name), `s1_id` (S1 name), `labels` (the 19 classes in alphabetical order, each
        once), `country`, `split`, `date_s1`, `date_s2` (UTC, from the names), `season` (of the S2 date), `snow`, `cloud_or_shadow`;
        each None where it is not known. `s1` and `s2`: the sensor's bands by name ([`TileBands`]), read when they are looked at,
        (H, W) at native resolution, S1 float32 in dB and S2 uint16 digital numbers.

    Raises:
        FileNotFoundError: If there is no LMDB at `path`, no table or list where one was named, or no metadata for v2.
        ValueError: If the split, a sensor, a band or a label is unknown, a tile is listed twice, none is left or too many are missing.
        CorruptTileError: If a v1 value, read for its labels, is broken.
    """
    if missing not in ("error", "drop"):
        raise ValueError(f"missing={missing!r}: expected 'error' or 'drop'.")
    wanted = _split_name(split)
    bands = _check_sensors(sensors)
    store = open_store(str(_find_store(Path(path)).resolve()))
    if store.format == "v2":
        if splits is not None:
            raise ValueError(
                f"{store.path} is BigEarthNet v2, whose metadata holds the splits: splits={splits} is for v1."
            )
        rows = _v2_rows(_paths(metadata) or _find_v2_metadata(store.path))
    else:
        rows = _v1_rows(store, _paths(metadata), None if splits is None else Path(splits))
    rows = _in_split(rows, wanted, store)
    keys = set(store.keys())
    present_sensors = [sensor for sensor in bands if any(_key(row, sensor, store) in keys for row in rows)]
    rows = _drop_missing(rows, list(sensors or present_sensors), keys, store, missing)
    if store.format == "v1":
        rows = _with_v1_labels(rows, store)
    rows.sort(key=lambda row: row.id)
    columns = {sensor: _check_stored(rows[0], sensor, bands[sensor], store) for sensor in sensors or present_sensors}
    return _to_dataset(rows, columns, store)


def _split_name(split: str | None) -> str | None:
    name = "validation" if split == "val" else split
    if name is not None and name not in SPLITS:
        raise ValueError(f"Unknown split {split!r}: expected one of {', '.join(SPLITS)}, or None for all tiles.")
    return name


def _check_sensors(sensors: Mapping[str, Sequence[str] | None] | None) -> dict[str, list[str] | None]:
    """The bands asked for by sensor; None for all of a sensor."""
    if sensors is None:
        return dict.fromkeys(SENSOR_BANDS)
    if not sensors:
        raise ValueError(f"No sensors were asked for; expected some of {', '.join(SENSOR_BANDS)}, or None for all.")
    for sensor, bands in sensors.items():
        if sensor not in SENSOR_BANDS:
            raise ValueError(f"Unknown sensor {sensor!r}: BigEarthNet has {', '.join(SENSOR_BANDS)}.")
        unknown = [band for band in bands or () if band not in SENSOR_BANDS[sensor]]
        if unknown or (bands is not None and not bands) or isinstance(bands, str):
            raise ValueError(
                f"Bands {bands!r} of {sensor}: expected a list of some of {', '.join(SENSOR_BANDS[sensor])}"
                + (f"; there is no {', '.join(unknown)}." if unknown else ".")
            )
    return {sensor: None if bands is None else list(bands) for sensor, bands in sensors.items()}


def _find_store(path: Path) -> Path:
    """The LMDB folder that is meant by a path: itself, or the only one in it."""
    if not path.is_dir():
        raise FileNotFoundError(
            f"No folder {path}: expected an LMDB folder (holds {DATA_FILE}), or a folder with one in it."
        )
    if (path / DATA_FILE).is_file():
        return path
    found = sorted(data.parent for data in path.glob(f"*/{DATA_FILE}"))
    if not found:
        raise FileNotFoundError(f"No LMDB in {path}: neither it nor a folder in it holds {DATA_FILE}.")
    if len(found) > 1:
        raise ValueError(
            f"{path} holds {len(found)} LMDBs: {', '.join(folder.name for folder in found)}. Give the one you mean."
        )
    return found[0]


def _paths(given: Paths | None) -> list[Path]:
    """One path or several, as a list of files that exist."""
    several = [given] if isinstance(given, (str, os.PathLike)) else list(given or ())
    for path in several:
        if not Path(path).is_file():
            raise FileNotFoundError(f"No metadata file {path}: check the path.")
    return [Path(path) for path in several]


def _in_split(rows: list[_Row], split: str | None, store: TileStore) -> list[_Row]:
    """The rows of a split, each tile once."""
    counts = Counter(row.id for row in rows)
    if len(counts) < len(rows):
        twice = sorted(name for name, count in counts.items() if count > 1)
        raise ValueError(
            f"{len(twice)} tiles of {store.path} are listed more than once in its metadata, {twice[0]} for one. Keep one row of each."
        )
    chosen = rows if split is None else [row for row in rows if row.split == split]
    if not chosen:
        found = Counter(row.split for row in rows)
        listing = ", ".join(f"{name or 'in no split'}: {count}" for name, count in sorted(found.items(), key=str))
        raise ValueError(
            f"No tile of {store.path} is in split {split!r}; there are {listing or 'no rows at all'}. For v1, give the folder of "
            "train.csv, val.csv and test.csv as splits=."
        )
    return chosen


def _key(row: _Row, sensor: str, store: TileStore) -> str | None:
    """Under which key a sensor's pixels lie: in v1 both under the S2 name."""
    return row.s1_id if sensor == "s1" and store.format == "v2" else row.id


def _drop_missing(
    rows: list[_Row], sensors: Sequence[str], keys: Collection[str], store: TileStore, missing: str
) -> list[_Row]:
    """Leave out rows whose pixels are not in the store, as `missing` says."""
    present = [row for row in rows if all(_key(row, sensor, store) in keys for sensor in sensors)]
    absent = len(rows) - len(present)
    if not sensors or not present:
        raise ValueError(
            f"None of the {len(rows)} tiles listed is in {store.path}: its metadata is of another archive."
        )
    if not absent:
        return rows
    kept = {row.id for row in present}
    examples = ", ".join([row.id for row in rows if row.id not in kept][:3])
    message = f"{absent} of the {len(rows)} tiles listed are not in {store.path} (such as {examples})"
    if missing == "error" and absent > MAX_MISSING_SHARE * len(rows):
        raise ValueError(
            f"{message}: more than {MAX_MISSING_SHARE:.0%}. Complete the store, or pass missing='drop' to do without them."
        )
    logger.warning("%s; they are left out.", message)
    return present


def _check_stored(row: _Row, sensor: str, bands: list[str] | None, store: TileStore) -> list[str]:
    """The bands of a pixel column: those asked for, which the first tile must have, or all that it has."""
    tile = store.read(str(_key(row, sensor, store)))
    stored = [band for band in SENSOR_BANDS[sensor] if band in tile]
    absent = [band for band in bands or () if band not in stored]
    if absent or not stored:
        raise ValueError(
            f"{store.path} has no {', '.join(absent) or sensor} of tile {row.id}; of {sensor} it has {', '.join(stored) or 'nothing'}."
        )
    return stored if bands is None else bands


def _to_dataset(rows: list[_Row], bands: Mapping[str, list[str]], store: TileStore) -> Dataset:
    """Lay rows out as columns."""
    dates = {
        "date_s1": [acquisition_time(row.s1_id) for row in rows],
        "date_s2": [acquisition_time(row.id) for row in rows],
    }
    values: dict[str, tuple[Any, Iterable[Any]]] = {
        "id": (Value("string"), (row.id for row in rows)),
        "s1_id": (Value("string"), (row.s1_id for row in rows)),
        **{
            sensor: (Tile(str(store.path), sensor, names), [_key(row, sensor, store) for row in rows])
            for sensor, names in bands.items()
        },
        "labels": (List(ClassLabel(names=list(LABELS))), (row.labels for row in rows)),
        "country": (Value("string"), (row.country for row in rows)),
        "split": (Value("string"), (row.split for row in rows)),
        **{name: (Value("timestamp[s]"), column) for name, column in dates.items()},
        "season": (Value("string"), map(season_of, dates["date_s2"])),
        "snow": (Value("bool"), (row.snow for row in rows)),
        "cloud_or_shadow": (Value("bool"), (row.cloud_or_shadow for row in rows)),
    }
    features = Features({name: feature for name, (feature, _) in values.items()})
    schema = features.arrow_schema
    table = pa.table(
        {name: pa.array(list(column), schema.field(name).type) for name, (_, column) in values.items()}, schema=schema
    )
    return Dataset(table)


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


def _find_v2_metadata(store: Path) -> list[Path]:
    """The metadata tables inside or beside an LMDB folder."""
    for folder in (store, store.parent):
        if (folder / _V2_TABLES[0]).is_file():
            return [folder / name for name in _V2_TABLES if (folder / name).is_file()]
    raise FileNotFoundError(
        f"No {_V2_TABLES[0]} in {store} or beside it. BigEarthNet v2 needs it to say which S1 image belongs to which S2 image: put it "
        "there, or give it as metadata=."
    )


def _v2_rows(tables: Iterable[Path]) -> list[_Row]:
    """All rows of v2 metadata tables."""
    rows: list[_Row] = []
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
            rows.append(_Row(name, s1_name, _label_indices(labels, name), country, split, snow, cloud))
    return rows


_V1_TABLES = ("manifest.csv", "metadata.csv", "s1_s2_name_country_season.csv", "s1_s2_name_country_season.csv.bz2")
_V1_COLUMNS = ("s2_name", "s1_name", "country")
_V1_SPLIT_FILES = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
_V1_SPLIT_FOLDERS = ("", "official_splits", "splits")


def _v1_rows(store: TileStore, tables: list[Path], splits: Path | None) -> list[_Row]:
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
    return [_Row(name, s1_of.get(name), None, country_of.get(name), split_of.get(name)) for name in names]


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


def _with_v1_labels(rows: list[_Row], store: TileStore) -> list[_Row]:
    """Rows with the labels that lie inside their v1 values."""
    labelled = []
    for row in tqdm(rows, desc=f"Reading labels of {store.path.name}", unit="tile", delay=2):
        labelled.append(row._replace(labels=_label_indices(store.read_labels(row.id), row.id)))
    return labelled
