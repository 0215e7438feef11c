"""Tiles that lie in GeoTIFFs, found in a folder or a table of paths: which image goes with which, and what is known of them."""

import csv
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import LABELS, LABELS_43_TO_19
from csmae_hf.data.metadata import (
    V1_TABLES,
    V2_TABLES,
    TileRow,
    find_v1_splits,
    label_indices,
    read_v1_rows,
    read_v2_rows,
)
from csmae_hf.images.geotiff import REFERENCE_MAP, BandFiles, TiffImage, canonical_band, find_images, in_order

logger = logging.getLogger(__name__)

JSON_ENDING = "_labels_metadata.json"
"""Ends the name of the file in which BigEarthNet v1 says what an image shows."""

TABLE_SUFFIXES = (".csv", ".parquet")
"""Endings of tables of paths."""

_ID_COLUMNS = ("id", "patch_id", "s2_name")
_S1_COLUMNS = ("s1_id", "s1_name")
_SNOW_COLUMNS = ("snow", "contains_seasonal_snow")
_CLOUD_COLUMNS = ("cloud_or_shadow", "contains_cloud_or_shadow")


class TileSource(NamedTuple):
    """A tile that lies in files.

    Args:
        row: What is known of it.
        images: Its image by sensor.
    """

    row: TileRow
    images: Mapping[str, TiffImage]


class Sources(NamedTuple):
    """All tiles of a folder or a table.

    Args:
        root: The folder that paths are relative to.
        tiles: Sorted by id.
        reference_maps: Land-cover maps of BigEarthNet v2.
        tables: Metadata tables of BigEarthNet v2 that were used; none where there are none.
        broken: Images whose JSON cannot be read or says what cannot be: path and what is wrong.
    """

    root: Path
    tiles: list[TileSource]
    reference_maps: list[TiffImage]
    tables: list[Path]
    broken: dict[TiffImage, tuple[str, str]]


class _Said(NamedTuple):
    """What the JSON of an image says: its labels, and of an S1 image the S2 image it goes with."""

    labels: list[int] | None = None
    partner: str | None = None


def find_tiles(
    source: str | os.PathLike[str],
    *,
    bands: Mapping[str, Sequence[str]] | None = None,
    metadata: str | os.PathLike[str] | None = None,
    splits: str | os.PathLike[str] | None = None,
) -> Sources:
    """Find tiles, pair their images, and gather what is known of them. No pixel is read.

    The S1 image of an S2 image is the one that a table names, or that says so in its JSON (BigEarthNet v1), or that has the same name.
    An image without a partner makes a tile of its own.

    Args:
        source: A folder of GeoTIFFs, or a CSV or parquet table of their paths.
        bands: By sensor, the bands of files that hold several and do not name them, in the order of the file.
        metadata: Table to use instead of one found in the folder: parquet as of BigEarthNet v2, or CSV as of v1.
        splits: Folder of split lists as of BigEarthNet v1: train.csv, val.csv, test.csv, one id a line.

    Returns:
        The tiles.

    Raises:
        FileNotFoundError: If something named is not there.
        ValueError: If there is no tile, one is there twice, or a table or a JSON says what cannot be.
    """
    given = {sensor: _check_bands(sensor, names) for sensor, names in (bands or {}).items()}
    path = Path(source)
    if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"No table {path}: check the path.")
        if metadata is not None or splits is not None:
            raise ValueError(
                f"{path} is a table of paths: give labels, countries and splits as columns of it, not besides."
            )
        tiles = [_named(tile, given) for tile in _read_table(path)]
        found = Sources(path.resolve().parent, tiles, [], [], {})
    else:
        found = _in_folder(path, given, metadata, splits)
    if not found.tiles:
        raise ValueError(
            f"No tiles in {path}: expected files such as NAME_B02.tif and NAME_VV.tif, or one GeoTIFF a sensor with s1 or s2 in its "
            "name or its folder's."
        )
    _check_once(found.tiles, path)
    return found._replace(tiles=sorted(found.tiles, key=lambda tile: tile.row.id))


def _check_bands(sensor: str, names: Sequence[str]) -> tuple[str, ...]:
    canonical = [canonical_band(name) for name in names]
    if isinstance(names, str) or None in canonical or len(set(canonical)) < len(canonical) or not canonical:
        raise ValueError(
            f"Bands of {sensor}: expected distinct names such as 'B02' or 'VV' in the order of the file, got {names!r}."
        )
    return tuple(map(str, canonical))


def _check_once(tiles: Iterable[TileSource], path: Path) -> None:
    twice = [name for name, count in Counter(tile.row.id for tile in tiles).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} tiles of {path} are there more than once, {twice[0]} for one. Keep one of each."
        )


def _named(tile: TileSource, bands: Mapping[str, tuple[str, ...]]) -> TileSource:
    """The tile with the names given for the bands of its files that have several."""
    return tile._replace(images={sensor: _with_bands(image, bands) for sensor, image in tile.images.items()})


def _with_bands(image: TiffImage, bands: Mapping[str, tuple[str, ...]]) -> TiffImage:
    names = bands.get(image.sensor, ())
    return image._replace(files=tuple(files if files.bands else files._replace(bands=names) for files in image.files))


def _in_folder(
    folder: Path,
    bands: Mapping[str, tuple[str, ...]],
    metadata: str | os.PathLike[str] | None,
    splits: str | os.PathLike[str] | None,
) -> Sources:
    discovery = find_images(folder)
    if discovery.ignored:
        logger.warning(
            "%d TIFFs of %s are of no sensor and are left alone, %s for one.",
            len(discovery.ignored),
            folder,
            discovery.ignored[0],
        )
    by_sensor: dict[str, dict[str, TiffImage]] = {}
    for image in discovery.images:
        named = by_sensor.setdefault(image.sensor, {})
        if image.name in named:
            raise ValueError(
                f"Two {image.sensor} images of {folder} have the name {image.name}: {named[image.name].files[0].path} and "
                f"{image.files[0].path}. Give the folder of one kind, or pair them in a table of paths."
            )
        named[image.name] = _with_bands(image, bands)
    rows, tables = _known_rows(folder, list(by_sensor.get("s2", {})), metadata, splits)
    said, broken = _read_jsons(folder, [*by_sensor.get("s1", {}).values(), *by_sensor.get("s2", {}).values()])
    tiles = _paired(by_sensor.get("s1", {}), by_sensor.get("s2", {}), rows, said)
    if len(by_sensor.keys() & {"s1", "s2"}) == 2:
        _warn_of_unpaired(folder, tiles)
    return Sources(folder.resolve(), tiles, list(by_sensor.get(REFERENCE_MAP, {}).values()), tables, broken)


def _paired(
    s1: Mapping[str, TiffImage],
    s2: Mapping[str, TiffImage],
    rows: Mapping[str, TileRow],
    said: Mapping[TiffImage, _Said],
) -> list[TileSource]:
    """Tiles of S2 images and their S1 partners, and of the images that have none."""
    s1_of = {partner: name for name, image in s1.items() if (partner := said[image].partner)}
    tiles, taken = [], set()
    for name, image in s2.items():
        row = rows.get(name, TileRow(name))
        partner = row.s1_id or s1_of.get(name) or (name if name in s1 else None)
        labels = said[image].labels if row.labels is None else row.labels
        images = {"s1": s1[partner], "s2": image} if partner and partner in s1 else {"s2": image}
        tiles.append(TileSource(row._replace(s1_id=partner if partner != name else None, labels=labels), images))
        taken.add(partner)
    alone = [name for name in s1 if name not in taken]
    return tiles + [TileSource(TileRow(name, name, said[s1[name]].labels), {"s1": s1[name]}) for name in alone]


def _warn_of_unpaired(folder: Path, tiles: Sequence[TileSource]) -> None:
    counts = Counter(next(iter(tile.images)) for tile in tiles if len(tile.images) == 1)
    if counts:
        logger.warning(
            "%s: %d S2 images have no S1 image, and %d S1 images no S2 image. A metadata table or equal names pair them.",
            folder,
            counts["s2"],
            counts["s1"],
        )


def _read_jsons(
    folder: Path, images: Sequence[TiffImage]
) -> tuple[dict[TiffImage, _Said], dict[TiffImage, tuple[str, str]]]:
    """What the JSONs of BigEarthNet v1 say, by image, and which of them are broken."""
    said: dict[TiffImage, _Said] = {}
    broken: dict[TiffImage, tuple[str, str]] = {}
    for image in tqdm(images, desc="Reading JSONs", unit="image", delay=2):
        path = folder / os.path.dirname(image.files[0].path) / f"{image.name}{JSON_ENDING}"
        try:
            said[image] = _read_json(path, image.name)
        except (OSError, ValueError) as error:
            said[image] = _Said()
            broken[image] = str(path), str(error)
    return said, broken


def _read_json(path: Path, name: str) -> _Said:
    """What a JSON says; nothing where there is none.

    Coordinates are not taken from it: the files have them, and the S1 JSONs of BigEarthNet misspell one (`lly` for `lry`).
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _Said()
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object with labels and names")
    labels, partner = content.get("labels"), content.get("corresponding_s2_patch")
    if not isinstance(labels, list | None) or not isinstance(partner, str | None):
        raise ValueError("its labels are no list, or its corresponding_s2_patch is no name")
    return _Said(_labels(labels, name), partner)


def _labels(names: Sequence[str] | None, tile: str) -> list[int] | None:
    """Class numbers of names of the 19 or of the 43 classes; None for none."""
    if isinstance(names, str):
        names = names.split("; ") if names else None
    if not names:
        return None
    known = {**LABELS_43_TO_19, **dict.fromkeys(LABELS)}
    unknown = [name for name in names if not isinstance(name, str) or name not in known]
    if unknown:
        raise ValueError(
            f"Tile {tile!r} has the label {str(unknown[0])[:100]!r}, which is none of the 19 or the 43 classes of BigEarthNet."
        )
    kept = [name if name in LABELS else LABELS_43_TO_19[name] for name in names]
    return label_indices([name for name in kept if name], tile) or None


def _known_rows(
    folder: Path,
    names: Sequence[str],
    metadata: str | os.PathLike[str] | None,
    splits: str | os.PathLike[str] | None,
) -> tuple[dict[str, TileRow], list[Path]]:
    """What tables say of images, by name, and the v2 tables among them."""
    if metadata is not None and not Path(metadata).is_file():
        raise FileNotFoundError(f"No metadata table {metadata}: check the path.")
    given = None if metadata is None else Path(metadata)
    folders = (folder, folder.parent)
    if given is None:
        v2 = next(
            (
                [at / name for name in V2_TABLES if (at / name).is_file()]
                for at in folders
                if (at / V2_TABLES[0]).is_file()
            ),
            [],
        )
    else:
        v2 = [given] if given.suffix.lower() == ".parquet" else []
    if v2:
        if splits is not None:
            raise ValueError(
                f"{v2[0]} is metadata of BigEarthNet v2, which holds the splits: splits={splits} is for other tiles."
            )
        wanted = set(names)
        return {row.id: row for row in read_v2_rows(v2) if row.id in wanted}, v2
    v1 = [given] if given else [at / name for at in folders for name in V1_TABLES if (at / name).is_file()][:1]
    lists = find_v1_splits(folders, None if splits is None else Path(splits))
    wanted = set(names)
    rows = {row.id: row for row in read_v1_rows(v1, lists, names) if row.id in wanted}
    return rows, []


def _read_table(path: Path) -> list[TileSource]:
    """The tiles of a table of paths."""
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8", newline="") as lines:
            rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    else:
        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no parquet table: {error}.") from error
    columns = list(rows[0]) if rows else []
    if not _first(columns, _ID_COLUMNS) or not any(
        column in ("s1", "s2") or canonical_band(column) for column in columns
    ):
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, columns)) or 'none'}; expected id, and s1 and s2 (a GeoTIFF or a folder "
            "of one file a band) or a column for each band (B02, VV, ...). Paths are relative to the table."
        )
    folder = path.resolve().parent
    return [
        _tile_of_row(row, folder, path, line)
        for line, row in enumerate(tqdm(rows, desc=f"Reading {path.name}", delay=2), 1)
    ]


def _first(columns: Iterable[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _tile_of_row(row: Mapping[str, Any], folder: Path, table: Path, line: int) -> TileSource:
    def value(names: Sequence[str]) -> Any:
        column = _first(row, names)
        return row[column] if column and row[column] not in ("", None) else None

    name = value(_ID_COLUMNS)
    if name is None:
        raise ValueError(f"Row {line} of {table} has no {' or '.join(_ID_COLUMNS)}; every tile needs a name.")
    name, s1_id = str(name), value(_S1_COLUMNS)
    images = {}
    for sensor in ("s1", "s2"):
        image = _image_of_row(row, sensor, folder, (s1_id if sensor == "s1" else None) or name)
        if image:
            images[sensor] = image
    if not images:
        raise ValueError(f"Tile {name} of {table} (row {line}) has no paths.")
    flags = [_flag(value(names), name, table) for names in (_SNOW_COLUMNS, _CLOUD_COLUMNS)]
    split = value(("split",))
    labels = _labels(value(("labels",)), name)
    tile_row = TileRow(name, s1_id, labels, value(("country",)), "validation" if split == "val" else split, *flags)
    return TileSource(tile_row, images)


def _image_of_row(row: Mapping[str, Any], sensor: str, folder: Path, name: str) -> TiffImage | None:
    """The image of a sensor that a row has paths for."""
    by_band = {
        band: str(value)
        for column, value in row.items()
        if (band := canonical_band(column)) and value and (band in ("VH", "VV")) == (sensor == "s1")
    }
    whole = row.get(sensor)
    if whole and by_band:
        raise ValueError(
            f"Tile {name} has paths in the column {sensor} and in those of its bands; leave one of them empty."
        )
    if by_band:
        files = tuple(BandFiles(by_band[band], (band,)) for band in in_order(by_band))
        return TiffImage(name, sensor, files)
    if not whole:
        return None
    if not (folder / str(whole)).is_dir():
        return TiffImage(name, sensor, (BandFiles(str(whole)),))
    inside = [image for image in find_images(folder / str(whole)).images if image.sensor == sensor]
    if len(inside) != 1:
        raise ValueError(
            f"{folder / str(whole)}, the {sensor} of tile {name}, holds {len(inside)} images of {sensor}; expected one."
        )
    files = tuple(found._replace(path=os.path.join(str(whole), found.path)) for found in inside[0].files)
    return TiffImage(name, sensor, files)


def _flag(value: Any, tile: str, table: Path) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    known = {"true": True, "false": False, "1": True, "0": False}
    if str(value).strip().lower() not in known:
        raise ValueError(f"Tile {tile} of {table} has the flag {value!r}; expected true or false.")
    return known[str(value).strip().lower()]
