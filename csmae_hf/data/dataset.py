"""BigEarthNet v1 or v2 as one `datasets.Dataset`: a row a tile, whose pixels are read from the store when they are looked at."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, List, Value

from csmae_hf.bigearthnet import LABELS, PARTNER_SENSOR, SENSORS, SPLITS, TILE_SENSOR
from csmae_hf.data.cache import cache_folder, store_identity
from csmae_hf.data.codecs import CorruptTileError, TileFormat
from csmae_hf.data.labels import classes_of, numbers_of
from csmae_hf.data.metadata import (
    LATITUDE_COLUMNS,
    TileRow,
    acquisition_time,
    name_column,
    names_a_tile,
    own_columns,
    read_date,
    read_v1_store_rows,
    read_v2_rows,
    season_of,
    v2_tables,
)
from csmae_hf.data.pixel_column import Tile, TileBands, in_units, open_store, refer
from csmae_hf.data.store import DATA_FILE, TileStore, is_lmdb_file
from csmae_hf.data.subsets import select_subset
from csmae_hf.data.time_column import Time, is_time
from csmae_hf.data.unit_rules import check_unit, read_unit, units_column
from csmae_hf.data.v1_labels import read_v1_labels
from csmae_hf.files import write_atomically
from csmae_hf.images.names import Sensors, bands_by_sensor

logger = logging.getLogger(__name__)

_STORE_SUFFIXES = ("", ".mdb", ".lmdb", ".db")  # of LMDBs written as one file, which are looked for in a folder

_MOST_BROKEN_AT_FIRST = 8
"""Broken tiles at the beginning after which a store is taken for broken as a whole."""

MAX_MISSING_SHARE = 0.01
"""Share of the rows asked for that may be missing from the store before `load_bigearthnet(missing="error")` refuses."""

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

__all__ = ["Tile", "TileBands", "load_bigearthnet", "open_store"]


def load_bigearthnet(
    path: str | os.PathLike[str],
    split: str | None = None,
    *,
    subset: str | None = None,
    metadata: Paths | None = None,
    splits: str | os.PathLike[str] | None = None,
    sensors: Sensors | None = None,
    missing: Literal["error", "drop"] = "error",
    max_missing: float | None = None,
    missing_list: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load BigEarthNet, v1 (an LMDB of pickles, which are never unpickled) or v2 (an LMDB of safetensors), told apart by content.

    Args:
        path: The LMDB (a folder, or one file), or a folder that holds exactly one, with its metadata beside it.
        split: "train", "validation" (or "val"), "test"; None for all tiles.
        subset: "BEN-14K" (summer in Serbia) or "BEN-270K" (June to November), see [`SUBSETS`]; None for all tiles.
        metadata: Tables to use instead of those found beside the LMDB or inside its folder. v2: parquet; found are `metadata.parquet`
            and `metadata_for_patches_with_snow_cloud_or_shadow.parquet`. v1: CSV (may be .bz2) with the column s2_name, one or
            both of s1_name and country, and any others; found is one of `manifest.csv`, `metadata.csv` and
            `s1_s2_name_country_season.csv[.bz2]`.
        splits: v1 only: folder of train.csv, val.csv or validation.csv, and test.csv (may be .bz2; the S2 name, and perhaps the S1
            name; with a line of column names or without), instead of those beside the LMDB or in a folder `official_splits` or
            `splits` beside it.
        sensors: Pixel columns to make, and the bands of each (None: all), or their names alone; default all bands of each sensor that
            the store has. Other sensors than BigEarthNet's are those that a v2 store's metadata has a column of names for, such as
            `thermal_name`.
        missing: What to do about tiles that are listed but are not in the store. Either way they are left out, counted in one warning,
            and listed in a file; "error" refuses when they are more than `max_missing` of those listed, as of a store half
            copied; "drop" does not, as for a small store with the table of all BigEarthNet.
        max_missing: Share of the tiles listed that may be missing; default 0.01.
        missing_list: File to list the missing tiles in, a name a line; default one in `missing` of the cache folder
            (`CSMAE_CACHE`, else `csmae` in the home of Hugging Face), which the warning names.

    Returns:
        A row a tile, sorted by `id`. Columns: `id` (S2 name), `s1_id` (S1 name), `labels` (the 19 classes in alphabetical order, each
        once), `country`, `split`, `date_s1`, `date_s2` (UTC, from the names), `season` (of the S2 date), `snow`, `cloud_or_shadow`;
        each None where it is not known. `s1` and `s2`: the sensor's bands by name ([`TileBands`]), read when they are looked at,
        (H, W) at native resolution, S1 float32 in dB and S2 uint16 digital numbers. A v1 store of one sensor alone has that one's
        column; of S1 alone `id` is the S1 name where no table gives the S2 name. Any other sensor likewise has `NAME_id`,
        `date_NAME` and `NAME`. Other columns of the tables (of v1: of those given) follow, with their types; `date_s1`, `date_s2`
        and `season` of v2 are believed before the names; `units_s1` and `units_s2` say by tile which unit pixels are in ("linear",
        "dn+1000", ...; none where nobody knows). Labels that are not BigEarthNet's are classes of their own, in
        alphabetical order, -1 none.

    Raises:
        FileNotFoundError: If there is no LMDB at `path`, no table or list where one was named, or no metadata for v2.
        ValueError: If the split, the subset, a sensor, a band or a label is unknown, a tile is listed twice, none is left, too many
            are missing, or the subset needs what is not known (the country of a v1 store, say).
        CorruptTileError: If a v1 value, read for its labels, is broken, or the first nine tiles of v2 are.
    """
    if missing not in ("error", "drop"):
        raise ValueError(f"missing={missing!r}: expected 'error' or 'drop'.")
    wanted = "validation" if split == "val" else split
    if wanted is not None and wanted not in SPLITS:
        raise ValueError(f"Unknown split {split!r}: expected one of {', '.join(SPLITS)}, or None for all tiles.")
    if sensors is not None and not sensors:
        raise ValueError(f"No sensors were asked for; expected some of {', '.join(SENSORS)}, or None for all.")
    sensors = None if sensors is None else bands_by_sensor(sensors)
    store = open_store(str(find_store(Path(path)).resolve()))
    rows = _read_rows(store, _paths(metadata), splits)
    named = dict.fromkeys([*SENSORS, *(sensor for row in rows for sensor in row.names)])
    _check_sensors(sensors or {}, named)
    keys = set(store.keys())
    classes = LABELS if store.format == "v1" else classes_of((row.id, row.labels) for row in rows)  # of all splits
    # a column NAME_name is of images only if the store has some of them
    imaged = [sensor for sensor in named if any(_key(row, sensor, store.format, keys) in keys for row in rows)]
    rows = _in_split(rows, wanted, store)
    if subset is not None:
        asked, rows = len(rows), select_subset(rows, subset)
        if not rows:
            raise ValueError(f"None of the {asked} tiles of {store.path} that were asked for is in {subset}.")
    here = list(sensors or imaged)
    present = [row for row in rows if all(_key(row, sensor, store.format, keys) in keys for sensor in here)]
    if not here or not present:
        raise ValueError(f"None of the {len(rows)} tiles listed is in {store.path}: its metadata is of another store.")
    if len(present) < len(rows):
        most = None if missing == "drop" else MAX_MISSING_SHARE if max_missing is None else max_missing
        _report_missing(rows, present, store, most, None if missing_list is None else Path(missing_list))
    rows = sorted(present, key=lambda row: row.id)
    keys_of = {sensor: [str(_key(row, sensor, store.format, keys)) for row in rows] for sensor in here}
    if store.format == "v1":
        numbers = read_v1_labels(store, keys_of[here[0]])
        names = [None if of_tile is None else [LABELS[number] for number in of_tile] for of_tile in numbers]
        rows = [row._replace(labels=of_tile) for row, of_tile in zip(rows, names, strict=True)]
    # a v1 store may be of S2 or of S1 alone: its values say so
    optional = store.format == "v1" and sensors is None
    columns = {
        sensor: _stored_bands(rows, keys_of[sensor], sensor, (sensors or {}).get(sensor), store, optional)
        for sensor in here
    }
    pixels = {
        sensor: (Tile(sensor, bands), refer(str(store.path), keys_of[sensor]))
        for sensor, bands in columns.items()
        if bands
    }
    if not pixels:
        raise ValueError(f"{store.path} holds no band of {' or '.join(SENSORS)}.")
    return to_dataset(rows, pixels, classes, without=[name_column(sensor) for sensor in imaged])


def _read_rows(store: TileStore, metadata: list[Path], splits: str | os.PathLike[str] | None) -> list[TileRow]:
    """All that is known of the tiles of a store but labels of v1."""
    if store.format == "v1":
        return read_v1_store_rows(store, metadata, None if splits is None else Path(splits))
    if splits is not None:
        raise ValueError(f"{store.path} is BigEarthNet v2, whose metadata holds the splits: splits={splits} is for v1.")
    tables = metadata or v2_tables((store.path, store.path.parent))
    if not tables:
        raise FileNotFoundError(
            f"No metadata.parquet in {store.path} or beside it. BigEarthNet v2 needs it to say which S1 image belongs to which S2 "
            "image: put it there, or give it as metadata=."
        )
    return read_v2_rows(tables)


def _check_sensors(sensors: Mapping[str, Sequence[str] | None], named: Collection[str]) -> None:
    """Refuse sensors that are neither BigEarthNet's nor named in the metadata, and bands that BigEarthNet's have not."""
    for sensor, bands in sensors.items():
        if sensor not in named:
            raise ValueError(f"Unknown sensor {sensor!r}: BigEarthNet has {', '.join(named)}.")
        known = SENSORS[sensor].bands if sensor in SENSORS else tuple(bands or ())
        unknown = [band for band in bands or () if band not in known]
        if unknown or (bands is not None and not bands) or isinstance(bands, str):
            raise ValueError(
                f"Bands {bands!r} of {sensor}: expected a list of some of {', '.join(known)}"
                + (f"; there is no {', '.join(unknown)}." if unknown else ".")
            )


def stores_in(folder: Path) -> list[Path]:
    """List the LMDBs that are meant by a folder: itself, or those in it, folders and single files."""
    if (folder / DATA_FILE).is_file():
        return [folder]
    files = (path for path in folder.iterdir() if path.suffix.lower() in _STORE_SUFFIXES and is_lmdb_file(path))
    return sorted([*(data.parent for data in folder.glob(f"*/{DATA_FILE}")), *files])


def find_store(path: Path) -> Path:
    """The LMDB that is meant by a path: itself, or the only one in it."""
    if is_lmdb_file(path):
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"No LMDB {path}: expected an LMDB folder (holds {DATA_FILE}), an LMDB written as one file, or a folder with one in it."
        )
    found = stores_in(path)
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


def _in_split(rows: list[TileRow], split: str | None, store: TileStore) -> list[TileRow]:
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


def _key(row: TileRow, sensor: str, layout: TileFormat, keys: Collection[str]) -> str | None:
    """Under which key a sensor's pixels lie: in v1 all under the S2 name, in a v1 store of S1 alone under the S1 name."""
    if layout == "v1":
        return row.id if row.id in keys else row.names.get(PARTNER_SENSOR)
    return row.image_name(sensor)


def _report_missing(
    rows: list[TileRow], present: list[TileRow], store: TileStore, most: float | None, listing: Path | None
) -> None:
    """List the rows that are not in the store in a file, and say so; refuse if they are more than the share `most`."""
    kept = {row.id for row in present}
    absent = sorted(row.id for row in rows if row.id not in kept)
    listing = listing or cache_folder() / "missing" / f"{store_identity(store.path)}.txt"
    try:
        write_atomically(listing, "".join(f"{name}\n" for name in absent))
        where = f"all in {listing}"
    except OSError as error:
        where = f"they could not be listed in {listing}: {error}"
    message = f"{len(absent)} of the {len(rows)} tiles listed are not in {store.path} (such as {', '.join(absent[:3])}; {where})"
    if most is not None and len(absent) > most * len(rows):
        raise ValueError(
            f"{message}: more than {100 * most:g}%. Complete the store, or pass missing='drop' to do without them."
        )
    logger.warning("%s; they are left out.", message)


def _stored_bands(
    rows: Sequence[TileRow],
    keys: Sequence[str],
    sensor: str,
    bands: Sequence[str] | None,
    store: TileStore,
    optional: bool,
) -> list[str]:
    """The bands of a pixel column: those asked for, which the first tile that can be read must have, or all that it has.

    None of an optional sensor that it has no band of.
    """
    most = min(_MOST_BROKEN_AT_FIRST + 1, len(rows))
    for number, key in enumerate(keys[:most]):
        try:  # who reads the others will be told of those that are broken
            tile = store.read(key)
            break
        except CorruptTileError as error:
            if number + 1 == most:
                raise
            logger.warning("%s (The bands are taken from the next tile.)", error)
    stored = [band for band in (SENSORS[sensor].bands if sensor in SENSORS else tile) if band in tile]
    absent = [band for band in bands or () if band not in stored]
    if absent or not (stored or optional):
        raise ValueError(
            f"{store.path} has no {', '.join(absent) or sensor} of tile {rows[number].id}; of {sensor} it has "
            f"{', '.join(stored) or 'nothing'}."
        )
    return stored if bands is None else list(bands)


def to_dataset(
    rows: Sequence[TileRow],
    pixels: Mapping[str, tuple[Tile, pa.Array]],
    classes: Sequence[str] | None = None,
    without: Iterable[str] = (),
    latitude_of: Callable[[int], float | None] | None = None,
) -> Dataset:
    """Lay rows out as the columns of [`load_bigearthnet`], and after them the other columns of the tables that list the tiles.

    Args:
        rows: The tiles.
        pixels: By sensor, the feature and the column, as of [`refer`].
        classes: Names of the classes; default those of the rows, as of [`classes_of`].
        without: Other columns to leave out.
        latitude_of: Gives where a tile lies, by its row: asked where only that tells the season. None where nothing does.
    """
    sensors = list(dict.fromkeys([*(SENSORS if SENSORS.keys() & pixels.keys() else ()), *pixels]))
    images = [sensor for sensor in sensors if sensor != TILE_SENSOR]
    own = own_columns(rows, without)
    unknown = [None] * len(rows)
    told = {
        name: own.pop(name).to_pylist() if name in own else unknown
        for name in (*(f"date_{sensor}" for sensor in sensors), "season")
    }
    latitudes = next((own[name].to_pylist() for name in LATITUDE_COLUMNS if name in own), unknown)
    dates: dict[str, list[datetime | None]] = {sensor: [] for sensor in sensors}
    seasons = []
    for number, row in enumerate(rows):  # tile by tile, for what a name says is remembered for a while only
        for sensor in sensors:
            said = told[f"date_{sensor}"][number]
            dates[sensor].append(acquisition_time(row.image_name(sensor)) if said is None else read_date(said, row.id))
        time = dates[TILE_SENSOR if TILE_SENSOR in dates else sensors[0]][number]
        names, latitude = (row.id, *row.names.values()), latitudes[number]
        season = told["season"][number]
        if season is None and time and latitude is None and latitude_of and not names_a_tile(names):
            latitude = latitude_of(number)
        seasons.append(season or season_of(time, names, latitude))
    classes = classes_of((row.id, row.labels) for row in rows) if classes is None else classes
    pixels = {
        sensor: (feature, _in_units(rows, sensor, feature, keys, own[units_column(sensor)].to_pylist()))
        if units_column(sensor) in own
        else (feature, keys)
        for sensor, (feature, keys) in pixels.items()
    }
    values: dict[str, tuple[Any, Iterable[Any]]] = {
        "id": (Value("string"), (row.id for row in rows)),
        **{f"{sensor}_id": (Value("string"), [row.names.get(sensor) for row in rows]) for sensor in images},
        **pixels,
        "labels": (List(ClassLabel(names=list(classes))), numbers_of((row.labels for row in rows), classes)),
        "country": (Value("string"), (row.country for row in rows)),
        "split": (Value("string"), (row.split for row in rows)),
        **{f"date_{sensor}": (Time(), column) for sensor, column in dates.items()},
        "season": (Value("string"), seasons),
        "snow": (Value("bool"), (row.snow for row in rows)),
        "cloud_or_shadow": (Value("bool"), (row.cloud_or_shadow for row in rows)),
    }
    taken = sorted(own.keys() & values.keys())
    if taken:
        raise ValueError(
            f"The tables of the tiles have columns of a name that is taken: {', '.join(taken)}. Rename them."
        )
    features = Features({name: feature for name, (feature, _) in values.items()})
    schema = features.arrow_schema
    arrays = {
        name: column if isinstance(column, pa.Array) else pa.array(list(column), schema.field(name).type)
        for name, (_, column) in values.items()
    }
    others = Features.from_arrow_schema(pa.schema([(name, column.type) for name, column in own.items()]))
    features |= {name: Time(feature.dtype) if is_time(feature) else feature for name, feature in others.items()}
    return Dataset(pa.table(arrays | own, schema=features.arrow_schema))


def _in_units(rows: Sequence[TileRow], sensor: str, feature: Tile, column: pa.Array, units: Sequence[Any]) -> pa.Array:
    """A pixel column with the units that the column of a table says of its tiles."""
    said = [read_unit(value) for value in units]
    for row, unit, there in zip(rows, said, column.is_valid().to_pylist(), strict=True):
        if there and unit is not None:
            try:
                check_unit(sensor, feature.bands, unit)
            except ValueError as error:
                raise ValueError(f"Tile {row.id}, column {units_column(sensor)}: {error}") from error
    return in_units(column, said)
