"""Tiles that lie in GeoTIFFs, found in a folder or a table of paths: which image goes with which, and what is known of them."""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import SENSORS, TILE_SENSOR
from csmae_hf.data.labels import check_bigearthnet, classes_of, known_numbers, numbers_of, parse_labels
from csmae_hf.data.metadata import (
    TileRow,
    acquisition_time,
    find_v1_splits,
    name_column,
    plain_columns,
    read_date,
    read_v1_rows,
    read_v2_rows,
    v1_tables,
    v2_tables,
)
from csmae_hf.data.text_tables import read_csv
from csmae_hf.data.unit_rules import (
    DatedTile,
    UnitRule,
    Units,
    call_words,
    check_unit,
    one_unit,
    read_rules,
    read_unit,
    units_by_rules,
    units_column,
)
from csmae_hf.images.band_names import parse_band, unknown_word
from csmae_hf.images.discovery import REFERENCE_MAP, Discovery, Wrong, find_images
from csmae_hf.images.geotiff import BandFiles, TiffFolder, TiffImage
from csmae_hf.images.image import kind_of
from csmae_hf.images.names import SensorNames, Sensors, in_order
from csmae_hf.images.overlap import LEAST_OVERLAP, overlap
from csmae_hf.images.pairing import image_path, pair_keys
from csmae_hf.images.products import of_path
from csmae_hf.images.raster import RasterError, describe

logger = logging.getLogger(__name__)

JSON_ENDING = "_labels_metadata.json"
"""Ends the name of the file in which BigEarthNet v1 says what an image shows."""

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Endings of tables of paths."""

_ID_COLUMNS = ("id", "patch_id", "s2_name")
_LABEL_COLUMNS = ("labels", "label")
_SNOW_COLUMNS = ("snow", "contains_seasonal_snow")
_CLOUD_COLUMNS = ("cloud_or_shadow", "contains_cloud_or_shadow")


class FoundTile(NamedTuple):
    """A tile that lies in files: what is known of it, and its image by sensor."""

    row: TileRow
    images: Mapping[str, TiffImage]


class FoundTiles(NamedTuple):
    """All tiles of a folder or a table.

    Attributes:
        root: The folder that paths are relative to.
        tiles: Sorted by id.
        names: The sensors that were looked for.
        reference_maps: Land-cover maps of BigEarthNet v2.
        tables: Metadata tables of BigEarthNet v2 that were used; none where there are none.
        broken: Images whose JSON cannot be read or says what cannot be: path and what is wrong.
        note: What was left out of the folder, for messages; nothing if nothing was.
    """

    root: Path
    tiles: list[FoundTile]
    names: SensorNames
    reference_maps: list[TiffImage]
    tables: list[Path]
    broken: dict[TiffImage, tuple[str, str]]
    note: str = ""

    @property
    def sensors(self) -> list[str]:
        """The sensors that tiles have images of, in the order of BigEarthNet's, then the declared."""
        return [sensor for sensor in self.names.bands if any(sensor in tile.images for tile in self.tiles)]


class _Said(NamedTuple):
    """What the JSON of an image says: its labels, and of an S1 image the S2 image it goes with."""

    labels: list[str] | None = None
    partner: str | None = None


def find_tiles(
    source: str | os.PathLike[str],
    *,
    sensors: Sensors | None = None,
    bands: Mapping[str, Sequence[str]] | None = None,
    metadata: str | os.PathLike[str] | None = None,
    splits: str | os.PathLike[str] | None = None,
    pair: str | None = None,
    units: Units | None = None,
    level: str | None = None,
    wrong: Wrong | None = None,
) -> FoundTiles:
    """Find tiles, pair their images, and gather what is known of them. No pixel is read.

    The image of another sensor that goes with an S2 image is the one that a table names, or that says so in its JSON (BigEarthNet v1),
    or of which `pair` takes the same, or that has the same name; files that say where they lie must overlap. An image without a
    partner makes a tile of its own. Arguments and errors are those of `load_tiles`; `sensors` but declares those that are not
    BigEarthNet's, and tiles have the images of all. With `wrong`, mistakes in files are put there, all of them, and what is not
    touched by them is returned.
    """
    names = SensorNames(sensors)
    rules = _rules(units or {}, level, names)
    given = {sensor: _checked_bands(sensor, order, names) for sensor, order in (bands or {}).items()}
    path = Path(source)
    if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"No table {path}: check the path.")
        if pair is not None:
            raise ValueError(f"{path} is a table of paths, which says itself what is a pair: leave pair={pair!r} out.")
        if metadata is not None or splits is not None:
            raise ValueError(
                f"{path} is a table of paths: give labels, countries and splits as columns of it, not besides."
            )
        tiles = [
            tile._replace(images={sensor: _with_bands(image, given) for sensor, image in tile.images.items()})
            for tile in _read_table(path, names, wrong)
        ]
        found = FoundTiles(path.resolve().parent, tiles, names, [], [], {})
    else:
        found = _in_folder(
            path,
            names,
            given,
            pair,
            None if metadata is None else Path(metadata),
            None if splits is None else Path(splits),
            wrong,
        )
    if not found.tiles and wrong is None:
        raise ValueError(
            f"No tiles in {path}: expected files such as NAME_B02.tif and NAME_VV.tif, or one GeoTIFF a sensor with "
            f"{' or '.join(names.bands)} in its name or its folder's.{found.note}"
        )
    twice = [name for name, count in Counter(tile.row.id for tile in found.tiles).items() if count > 1]
    if twice:
        _refuse(
            f"{len(twice)} tiles of {path} are there more than once, {twice[0]} for one. Keep one of each.", [], wrong
        )
    tiles = _with_units(sorted(found.tiles, key=lambda tile: tile.row.id), rules)
    tiles = [
        tile._replace(images={sensor: _with_level(image, level) for sensor, image in tile.images.items()})
        for tile in tiles
    ]
    _check_overlap(found.root, tiles, wrong)
    classes = classes_of((tile.row.id, tile.row.labels) for tile in tiles)
    numbers = numbers_of((tile.row.labels for tile in tiles), classes)
    named = [None if of_tile is None else [classes[number] for number in of_tile] for of_tile in numbers]
    return found._replace(
        tiles=[tile._replace(row=tile.row._replace(labels=of_tile)) for tile, of_tile in zip(tiles, named, strict=True)]
    )


def _refuse(message: str, files: list[str], wrong: Wrong | None) -> None:
    """Raise a mistake in files, or put it with the others."""
    if wrong is None:
        raise ValueError(message)
    wrong[message] = files


def _rules(units: Units, level: str | None, names: SensorNames) -> dict[str, list[UnitRule]]:
    """Read what is said of units; units and levels that cannot be meant are refused."""
    for sensor in units:
        if sensor not in names.bands:
            raise ValueError(f"units of {sensor!r}: unknown sensor; expected one of {', '.join(names.bands)}.")
    if level not in (None, "L1C", "L2A"):
        raise ValueError(f"level={level!r}: expected 'L2A' or 'L1C'.")
    return {sensor: read_rules(sensor, names.bands[sensor], said) for sensor, said in units.items()}


def _with_units(tiles: list[FoundTile], rules: Mapping[str, Sequence[UnitRule]]) -> list[FoundTile]:
    """The tiles with the units of their images: those of a table's column, which the caller's must not contradict, or the caller's."""
    for sensor in dict.fromkeys(sensor for tile in tiles for sensor in tile.images):
        imaged = [tile for tile in tiles if sensor in tile.images]
        said: list[str | None] = [None] * len(imaged)
        if sensor in rules:
            said = units_by_rules(sensor, rules[sensor], [_dated(tile, sensor) for tile in imaged])
        words = call_words(sensor, [rule.text for rule in rules.get(sensor, ())])
        told = {
            tile.row.id: one_unit(
                tile.row.id,
                tile.images[sensor].unit or _own_unit(tile, sensor),
                f"the column {units_column(sensor)}",
                unit,
                words,
            )
            for tile, unit in zip(imaged, said, strict=True)
        }
        tiles = [
            tile._replace(images={**tile.images, sensor: tile.images[sensor]._replace(unit=told[tile.row.id])})
            if sensor in tile.images
            else tile
            for tile in tiles
        ]
    return tiles


def _own_value(tile: FoundTile, column: str) -> Any:
    """What another column of the table that lists a tile says of it; None where there is no such column."""
    if tile.row.own is None or column not in tile.row.own[0].column_names:
        return None
    table, number = tile.row.own
    return table.column(column)[number].as_py()


def _own_unit(tile: FoundTile, sensor: str) -> str | None:
    unit = read_unit(_own_value(tile, units_column(sensor)))
    if unit is not None:
        try:
            check_unit(sensor, tile.images[sensor].bands, unit)
        except ValueError as error:
            raise ValueError(f"Tile {tile.row.id}, column {units_column(sensor)}: {error}") from error
    return unit


def _dated(tile: FoundTile, sensor: str) -> DatedTile:
    """What rules ask of a tile: its date is the table's, the image's by its name, or by the names of its first file and folders."""
    image, name = tile.images[sensor], tile.row.image_name(sensor)
    said = _own_value(tile, f"date_{sensor}")
    date = acquisition_time(name) if said is None else read_date(said, tile.row.id)
    paths = [files.path for files in image.files]
    return DatedTile(
        tile.row.id, [*([name] if name else []), image.name, *paths], date or of_path(Path(paths[0]).parts).date
    )


def _with_level(image: TiffImage, level: str | None) -> TiffImage:
    """The image with the level that the caller says, which is of optical sensors."""
    return image._replace(level=level) if kind_of(image.sensor, image.bands) in ("s2", None) else image


def _check_overlap(root: Path, tiles: Sequence[FoundTile], wrong: Wrong | None) -> None:
    """Refuse pairs that show different ground, as far as the files say where they lie.

    Names of BigEarthNet say which cell of which tile of the grid an image is; where they are equal, no file is opened.
    """
    folder = TiffFolder(root)
    apart: list[str] = []
    pairs = [
        tile
        for tile in tiles
        if len({image.files for image in tile.images.values()}) > 1 and not _same_cell(tile)  # else one file has both
    ]
    for tile in tqdm(pairs, desc="Comparing places", unit="tile", delay=2):
        (first, image), *others = tile.images.items()
        try:
            place = folder.footprint(image.key)
            for sensor, other in others:
                at = folder.footprint(other.key)
                share = overlap(place.crs, place[1:], at.crs, at[1:])
                if share is not None and share < LEAST_OVERLAP:
                    apart.append(
                        f"{image_path(image)} ({first}) and {image_path(other)} ({sensor}), which overlap by {share:.0%}"
                    )
        except RasterError:
            continue  # said when its pixels are looked at
    if apart:
        message = (
            f"{len(apart)} pairs of {root} show different ground: {'; '.join(apart[:3])}{'; ...' if len(apart) > 3 else ''}. Images "
            f"are a pair if {LEAST_OVERLAP:.0%} of their ground is the same. Rename one of each, or say what is a pair by "
            "pair=PATTERN (--pair) or a table of paths."
        )
        _refuse(message, [], wrong)


def _same_cell(tile: FoundTile) -> bool:
    """Whether an S2 image and its partners are all named after one cell, as BigEarthNet names them."""
    cell = re.fullmatch(r"S2[A-D]_MSIL2A_.*?(?:_T(\d{2}[A-Z]{3}))?_(\d{1,2}_\d{1,2})", tile.row.id)
    if cell is None:
        return False
    return all(
        re.fullmatch(rf"S1[A-D]_.*_{cell[1] or '[0-9]{2}[A-Z]{3}'}_{cell[2]}", tile.row.names.get(sensor, ""))
        for sensor in tile.images
        if sensor != TILE_SENSOR
    )


def _checked_bands(sensor: str, order: Sequence[str], names: SensorNames) -> tuple[str, ...]:
    """The one name of each band that is given for the files of a sensor."""
    if sensor not in names.bands:
        raise ValueError(f"Bands of {sensor}: unknown sensor; expected one of {', '.join(names.bands)}.")
    own = names.bands[sensor] if sensor in SENSORS else None

    def one_name(name: str) -> str:
        said = parse_band(name)
        if said.layer:  # of a layer that is no band (SCL): it has its place in the order
            return name
        band = said.band or name
        return band if own is None or band in own else ""

    canonical = () if isinstance(order, str) else tuple(map(one_name, order))
    if len(set(canonical)) < len(canonical) or not all(canonical) or not canonical:
        raise ValueError(
            f"Bands of {sensor}: expected distinct names such as 'B02' or 'VV' in the order of the file, got {order!r}."
        )
    return canonical


def _with_bands(image: TiffImage, bands: Mapping[str, tuple[str, ...]]) -> TiffImage:
    """The image with the names given for the bands of its files that have several."""
    given = bands.get(image.sensor, ())
    return image._replace(files=tuple(files if files.bands else files._replace(bands=given) for files in image.files))


def _in_folder(
    folder: Path,
    names: SensorNames,
    bands: Mapping[str, tuple[str, ...]],
    pair: str | None,
    metadata: Path | None,
    splits: Path | None,
    wrong: Wrong | None,
) -> FoundTiles:
    discovery = find_images(folder, names, wrong)
    discovery = _with_unnamed(folder, discovery, bands)
    note = _left_out(discovery)
    if note:
        logger.warning("%s:%s", folder, note)
    images = discovery.images
    keys: dict[tuple[str, str], str] = {}  # what the pattern takes, by sensor and name
    if pair is not None:
        fitting = pair_keys(pair, (image for image in images if image.sensor != REFERENCE_MAP), names.bands)
        counts = Counter((image.sensor, image.name) for image in images)
        # `s1/139/p30.tif` are told apart by their folders, as the pattern does it
        twice = {image for image in fitting if counts[image.sensor, image.name] > 1}
        renamed = {image: image._replace(name=image_path(image).replace("/", "_")) for image in twice}
        images = [renamed.get(image, image) for image in images]
        keys = {(image.sensor, renamed.get(image, image).name): key for image, key in fitting.items()}
    by_sensor: dict[str, dict[str, TiffImage]] = {}
    for image in images:
        named = by_sensor.setdefault(image.sensor, {})
        if image.name in named:
            message = (
                f"Two {image.sensor} images of {folder} have the name {image.name}: {named[image.name].files[0].path} and "
                f"{image.files[0].path}. Give the folder of one kind, or pair them in a table of paths."
            )
            _refuse(message, [str(path.relative_to(folder)) for path in image.paths(folder)], wrong)
            continue
        named[image.name] = _with_bands(image, bands)
    maps = list(by_sensor.pop(REFERENCE_MAP, {}).values())
    named_tiles = [by_sensor[TILE_SENSOR]] if TILE_SENSOR in by_sensor else list(by_sensor.values())
    rows, tables = _known_rows(folder, {name for images in named_tiles for name in images}, metadata, splits)
    said: dict[TiffImage, _Said] = {}
    broken: dict[TiffImage, tuple[str, str]] = {}
    everything = [image for images in by_sensor.values() for image in images.values()]
    for image in tqdm(everything, desc="Reading JSONs", unit="image", delay=2):
        path = folder / os.path.dirname(image.files[0].path) / f"{image.name}{JSON_ENDING}"
        try:
            said[image] = _read_json(path, image.name)
        except (OSError, ValueError) as error:
            said[image] = _Said()
            broken[image] = str(path), str(error)
    tiles = _paired(by_sensor, rows, said, None if pair is None else keys)
    lacking = {sensor: sum(sensor not in tile.images for tile in tiles) for sensor in sorted(by_sensor)}
    if any(lacking.values()):
        logger.warning(
            "%s: of its %d tiles, %s. A metadata table, a pattern (pair=, --pair) or equal names pair images.",
            folder,
            len(tiles),
            ", ".join(f"{count} have no {sensor} image" for sensor, count in lacking.items() if count),
        )
    return FoundTiles(folder.resolve(), tiles, names, maps, tables, broken, note)


def _with_unnamed(folder: Path, discovery: Discovery, bands: Mapping[str, tuple[str, ...]]) -> Discovery:
    """Take files of no sensor for the one sensor whose order of bands is given, where they have as many (EuroSAT)."""
    named = any(image.sensor in bands and image.bands for image in discovery.images)
    if len(bands) != 1 or named:
        return discovery
    (sensor, order), ignored = next(iter(bands.items())), []
    images = list(discovery.images)
    for path in discovery.ignored:
        try:
            fits = len(describe(folder / path).layers) == len(order)
        except RasterError:
            fits = False
        if fits:
            images.append(TiffImage(os.path.splitext(os.path.basename(path))[0], sensor, (BandFiles(path),)))
        else:
            ignored.append(path)
    return discovery._replace(images=images, ignored=ignored)


def _left_out(discovery: Discovery) -> str:
    """What files of a folder are no image of a sensor, in sentences."""
    parts = []
    if discovery.ignored:
        parts.append(
            f" {len(discovery.ignored)} TIFFs are of no sensor and are left alone, {discovery.ignored[0]} for one."
        )
    if discovery.sides:
        kinds = ", ".join(sorted(set(discovery.sides.values())))
        parts.append(f" {len(discovery.sides)} files are no bands ({kinds}) and are left out.")
    if discovery.unknown:
        path, word = next(iter(discovery.unknown.items()))
        parts.append(f" {len(discovery.unknown)} files are left out, {path} for one: {unknown_word(word)}.")
    if discovery.others:
        path, platform = next(iter(discovery.others.items()))
        parts.append(
            f" {len(discovery.others)} images are of another platform by their names, {path} of {platform} for one: its bands are "
            "not those of Sentinel-2, and are left out."
        )
    return "".join(parts)


def _paired(
    by_sensor: Mapping[str, Mapping[str, TiffImage]],
    rows: Mapping[str, TileRow],
    said: Mapping[TiffImage, _Said],
    keys: Mapping[tuple[str, str], str] | None = None,
) -> list[FoundTile]:
    """Tiles of images and their partners: named after an S2 image, or where there is none, after one of another sensor.

    `keys`: by sensor and name, what partners have in common; None for their names.
    """

    def partner_by_name(first: str, name: str, sensor: str) -> str | None:
        if keys is None:
            return name if name in by_sensor[sensor] else None
        key = keys.get((first, name))
        return None if key is None else by_key.get((sensor, key))

    by_key = {(sensor, key): name for (sensor, name), key in (keys or {}).items()}
    told = {
        sensor: {partner: name for name, image in images.items() if (partner := said[image].partner)}
        for sensor, images in by_sensor.items()
    }
    order = sorted(by_sensor, key=lambda sensor: sensor != TILE_SENSOR)
    taken: dict[str, set[str]] = {sensor: set() for sensor in order}
    tiles = []
    for place, first in enumerate(order):
        for name, image in by_sensor[first].items():
            if name in taken[first]:
                continue
            row = rows.get(name, TileRow(name))
            names = dict(row.names) if first == TILE_SENSOR else {first: name}
            images = {first: image}
            for sensor in order[place + 1 :]:
                partner = names.get(sensor) or told[sensor].get(name) or partner_by_name(first, name, sensor)
                if partner is None:
                    continue
                if partner != name:
                    names[sensor] = partner
                if partner in by_sensor[sensor]:
                    images[sensor] = by_sensor[sensor][partner]
                    taken[sensor].add(partner)
            labels = said[image].labels or _folders_class(image) if row.labels is None else row.labels
            tiles.append(FoundTile(row._replace(names=names, labels=labels), images))
    return tiles


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
    return _Said(check_bigearthnet(labels or (), name) or None, partner)


def _folders_class(image: TiffImage) -> list[str] | None:
    """The class that a folder says, as of EuroSAT: the names of the images in it begin with its own, such as `Forest/Forest_1.tif`."""
    folder = os.path.basename(os.path.dirname(image.files[0].path))
    return [folder] if re.fullmatch(re.escape(folder) + r"_\d+", image.name) else None


def _known_rows(
    folder: Path, names: set[str], metadata: Path | None, splits: Path | None
) -> tuple[dict[str, TileRow], list[Path]]:
    """What tables say of tiles, by name, and the v2 tables among them."""
    if metadata is not None and not metadata.is_file():
        raise FileNotFoundError(f"No metadata table {metadata}: check the path.")
    folders = (folder, folder.parent)
    v2 = v2_tables(folders) if metadata is None else [metadata] if metadata.suffix.lower() == ".parquet" else []
    if v2:
        if splits is not None:
            raise ValueError(
                f"{v2[0]} is metadata of BigEarthNet v2, which holds the splits: splits={splits} is for other tiles."
            )
        return {row.id: row for row in read_v2_rows(v2) if row.id in names}, v2
    rows = read_v1_rows(
        [metadata] if metadata else v1_tables(folders), find_v1_splits(folders, splits), names, own=metadata is not None
    )
    return {row.id: row for row in rows if row.id in names}, []


def _read_table(path: Path, names: SensorNames, wrong: Wrong | None) -> list[FoundTile]:
    """The tiles of a table of paths."""

    def is_known(column: str) -> bool:
        return column in known or column in names.bands or bool(names.band(column))

    known = {*_ID_COLUMNS, *_LABEL_COLUMNS, *_SNOW_COLUMNS, *_CLOUD_COLUMNS, "country", "split"}
    known |= {form for sensor in names.bands if sensor != TILE_SENSOR for form in (f"{sensor}_id", name_column(sensor))}
    known |= {units_column(sensor) for sensor in names.bands}
    if path.suffix.lower() != ".parquet":
        table = read_csv(path, is_known)
    else:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no parquet table: {error}.") from error
    columns = table.column_names if len(table) else []
    if not set(_ID_COLUMNS) & set(columns) or not any(
        column in names.bands or names.band(column) for column in columns
    ):
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, columns)) or 'none'}; expected id, and {' and '.join(names.bands)} (a "
            "GeoTIFF or a folder of one file a band) or a column for each band (B02, VV, ...). Paths are relative to the table."
        )
    for forms in (_ID_COLUMNS, _LABEL_COLUMNS, _SNOW_COLUMNS, _CLOUD_COLUMNS):  # the first of them counts
        known -= set([form for form in forms if form in columns][1:])
    kept = [column for column in columns if not is_known(column) and not column.startswith("__index_level_")]
    own = plain_columns(table, kept, path)
    rows = table.select([column for column in columns if is_known(column)]).to_pylist()
    for column in _LABEL_COLUMNS:
        if column in columns and (classes := _declared_classes(table, column)):
            for row in rows:
                row[column] = [classes[number] for number in known_numbers(row[column])]
    tiles = []
    for line, row in enumerate(tqdm(rows, desc=f"Reading {path.name}", delay=2), 1):
        try:
            tiles.append(_tile_of_row(row, names, path, line, (own, line - 1) if own.num_columns else None))
        except (ValueError, FileNotFoundError) as error:
            if wrong is None:
                raise
            wrong[str(error)] = []
    return tiles


def _declared_classes(table: pa.Table, column: str) -> list[str] | None:
    """The names of the classes that `datasets` wrote into a parquet table for a column of numbers; None where it has none."""
    content = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = content.get("info", {}).get("features", {}).get(column, {})
    return feature.get("names") or feature.get("feature", {}).get("names")


def _tile_of_row(
    row: Mapping[str, Any], names: SensorNames, table: Path, line: int, rest: tuple[pa.Table, int] | None
) -> FoundTile:
    def value(*columns: str) -> Any:
        column = next((column for column in columns if column in row), None)
        return row[column] if column and row[column] not in ("", None) else None

    name = value(*_ID_COLUMNS)
    if name is None:
        raise ValueError(f"Row {line} of {table} has no {' or '.join(_ID_COLUMNS)}; every tile needs a name.")
    name = str(name)
    others = {sensor: value(f"{sensor}_id", name_column(sensor)) for sensor in names.bands if sensor != TILE_SENSOR}
    own = {sensor: str(other) for sensor, other in others.items() if other}
    folder = table.resolve().parent
    images = {
        sensor: image
        for sensor in names.bands
        if (image := _image_of_row(row, sensor, names, folder, own.get(sensor, name)))
    }
    units = {sensor: unit for sensor in images if (unit := read_unit(value(units_column(sensor)))) is not None}
    for sensor, unit in units.items():
        try:
            check_unit(sensor, names.bands[sensor], unit)
        except ValueError as error:
            raise ValueError(f"Tile {name}, column {units_column(sensor)} of {table}: {error}") from error
    images = {sensor: image._replace(unit=units.get(sensor)) for sensor, image in images.items()}
    if not images:
        raise ValueError(f"Tile {name} of {table} (row {line}) has no paths.")
    snow, cloud = (_flag(value(*columns), name, table) for columns in (_SNOW_COLUMNS, _CLOUD_COLUMNS))
    split = value("split")
    labels = parse_labels(value(*_LABEL_COLUMNS), name)
    return FoundTile(
        TileRow(name, own, labels, value("country"), "validation" if split == "val" else split, snow, cloud, rest),
        images,
    )


def _image_of_row(row: Mapping[str, Any], sensor: str, names: SensorNames, folder: Path, name: str) -> TiffImage | None:
    """The image of a sensor that a row has paths for."""
    by_band = {
        band: str(value)
        for column, value in row.items()
        if value and (band := names.band(column)) and names.sensor_of_band(band) == sensor
    }
    whole = row.get(sensor)
    if whole and by_band:
        raise ValueError(
            f"Tile {name} has paths in the column {sensor} and in those of its bands; leave one of them empty."
        )
    if len(set(by_band.values())) < len(by_band):
        raise ValueError(
            f"Tile {name} has one path for several bands of {sensor} ({', '.join(by_band)}). A file of several bands "
            f"goes into the column {sensor}; it names them itself, or bands= does (--bands)."
        )
    if by_band:
        return TiffImage(name, sensor, tuple(BandFiles(by_band[band], (band,)) for band in in_order(by_band)))
    if not whole:
        return None
    if not (folder / str(whole)).is_dir():
        return TiffImage(name, sensor, (BandFiles(str(whole)),))
    inside = [image for image in find_images(folder / str(whole), names).images if image.sensor == sensor]
    if len(inside) != 1:
        raise ValueError(
            f"{folder / str(whole)}, the {sensor} of tile {name}, holds {len(inside)} images of {sensor}; expected one."
        )
    files = tuple(found._replace(path=os.path.join(str(whole), found.path)) for found in inside[0].files)
    return TiffImage(name, sensor, files)


def _flag(value: Any, tile: str, table: Path) -> bool | None:
    known = {"true": True, "false": False, "1": True, "0": False, "none": None}
    if str(value).strip().lower() not in known:
        raise ValueError(f"Tile {tile} of {table} has the flag {value!r}; expected true or false.")
    return known[str(value).strip().lower()]
