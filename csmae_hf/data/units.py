"""The unit of each tile of a dataset: said of its pixel column, of single tiles, or in a column `units_SENSOR` beside it.

Who reads pixels of rows takes them by [`tile_image`], and keeps [`image_columns`]: so such a column counts in any dataset.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from csmae_hf.data.metadata import read_date
from csmae_hf.data.unit_rules import (
    DatedTile,
    Units,
    call_words,
    one_unit,
    read_rules,
    read_unit,
    units_by_rules,
    units_column,
)
from csmae_hf.images.image import BandImage, Facts
from csmae_hf.visualize import shown_band
from image_checks_csmae import BAND_UNIT

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas


def image_columns(dataset: "Dataset", sensors: Iterable[str]) -> list[str]:
    """Name the columns of a dataset that are needed to read images of sensors: ids, pixels, and units by tile, as far as there are."""
    names = ["id"]
    for sensor in sensors:
        names += [sensor, units_column(sensor)]
    return [name for name in names if name in dataset.column_names]


def tile_image(row: Mapping[str, Any], sensor: str, bands: Sequence[str] = ()) -> Any:
    """Take the image of a sensor from a row, unread, with the unit that the row's column `units_SENSOR` says.

    None where there is no image. An image that is an array (C, H, W) has these bands. A ValueError if the image says another unit.
    """
    image, unit = row[sensor], read_unit(row.get(units_column(sensor)))
    if image is None or unit is None:
        return image
    from csmae_hf.data.pixel_column import TileBands  # it imports datasets

    own = image.said_unit if isinstance(image, TileBands) else getattr(image, "unit", None)
    name = str(row.get("id", "of the batch"))
    one_unit(name, own, f"its {sensor} image", unit, f"its column {units_column(sensor)}")
    if own is not None:
        return image
    if isinstance(image, TileBands):
        return image.in_unit(unit)
    if not hasattr(image, "keys"):
        if len(image) != len(bands):
            return image  # the processor says what is wrong
        image = dict(zip(bands, image, strict=True))
    return BandImage(dict(image.items()), Facts(unit=unit, unit_by=f"the column {units_column(sensor)}"))


def shown_image(image: Any, unit: str | None = None) -> BandImage:
    """Bring an image of named bands, (H, W) each, to dB and digital numbers, to be looked at, and say so of it.

    `unit` is that of an image that does not say its own; bands of which nobody says it stay as they are.
    """
    own = getattr(image, "unit", None) or unit
    bands = BandImage(dict(image.items()), Facts(unit=own))
    if own is None:
        return bands
    kind = next((BAND_UNIT[band] for band in bands if band in BAND_UNIT), None)
    return BandImage(
        {band: np.asarray(shown_band(bands, band)) for band in bands}, Facts(unit=kind, unit_by="conversion")
    )


def said_units(dataset: "Dataset", sensor: str) -> list[str | None]:
    """List the units that are said of a dataset's tiles, without looking into files; None where nobody says it.

    Raises:
        ValueError: If a tile's column says another unit than its pixel column; the message names both.
    """
    from csmae_hf.data.pixel_column import Tile, TileBands

    feature, column = dataset.features[sensor], units_column(sensor)
    units: list[str | None] = [None] * len(dataset)
    if isinstance(feature, Tile):
        units = [
            None if stored is None else TileBands(stored, feature.bands).said_unit
            for stored in _column(dataset, sensor)
        ]
    return [
        one_unit(str(name), own, f"its {sensor} image", read_unit(told), f"its column {column}")
        for name, own, told in zip(_column(dataset, "id"), units, _column(dataset, column), strict=True)
    ]


def with_units(dataset: "Dataset", units: Units) -> "Dataset":
    """Say which units the tiles of any dataset are in.

    Args:
        dataset: With pixel columns named by sensor, and `id`, `SENSOR_id` and `date_SENSOR` as far as rules ask for them.
        units: By sensor a unit, a rule such as `"dn+1000 from 2022-01-25"`, or several; see [`parse_rule`].

    Returns:
        The dataset, whose images say their unit; pixels that lie in the dataset itself get a column `units_SENSOR` beside them.

    Raises:
        ValueError: If there is no such sensor, a unit is unknown, a rule is none, or a tile is said to be in another; named.
    """
    for sensor, said in units.items():
        if sensor not in dataset.column_names:
            raise ValueError(
                f"units of {sensor!r}: the data have no such sensor, but {', '.join(dataset.column_names)}."
            )
        feature = dataset.features[sensor]
        bands = list(feature) if isinstance(feature, Mapping) else getattr(feature, "bands", [])
        rules = read_rules(sensor, bands, said)
        tiles = _dated_tiles(dataset, sensor)
        found = units_by_rules(sensor, rules, tiles)
        by = f"the column {column}" if (column := units_column(sensor)) in dataset.column_names else "an earlier call"
        for tile, own, unit in zip(tiles, said_units(dataset, sensor), found, strict=True):
            one_unit(tile.id, own, by, unit, call_words(sensor, said))
        dataset = set_units(dataset, sensor, found)
    return dataset


def _column(dataset: "Dataset", name: str) -> list[Any]:
    """The values of a column as they are stored; None where there is no such column."""
    if name not in dataset.column_names:
        return [None] * len(dataset)
    return dataset.with_format("arrow").select_columns([name])[:].column(name).to_pylist()


def _dated_tiles(dataset: "Dataset", sensor: str) -> list[DatedTile]:
    """What rules ask of the tiles of a dataset."""
    from csmae_hf.data.pixel_column import Tile, files_of_source, sources_of

    feature = dataset.features[sensor]
    ids, names, dates = (_column(dataset, name) for name in ("id", f"{sensor}_id", f"date_{sensor}"))
    files: list[list[str]] = [[]] * len(dataset)
    if isinstance(feature, Tile):
        column = dataset.with_format("arrow").select_columns([sensor])[:].column(sensor)
        files = [[] if source is None else files_of_source(source) for source in sources_of(column)]
    return [
        DatedTile(
            str(number if name is None else name),
            [*([] if image is None else [str(image)]), *paths],
            None if date is None else read_date(date, str(name)),
        )
        for number, (name, image, paths, date) in enumerate(zip(ids, names, files, dates, strict=True))
    ]


def set_units(dataset: "Dataset", sensor: str, units: Sequence[str | None]) -> "Dataset":
    """Give a dataset the units of its tiles, None where there is nothing to say; nothing is checked."""
    from datasets import Value

    from csmae_hf.data.pixel_column import Tile, in_units, lies_in_store, with_pixels

    if not any(units):
        return dataset
    order = dataset.column_names
    if isinstance(dataset.features[sensor], Tile):
        dataset = with_pixels(dataset, sensor, lambda column: in_units(column, units))
        there = lies_in_store(dataset, sensor)
        units = [None if stored else unit for stored, unit in zip(there, units, strict=True)]
        if not any(units):
            return dataset
    column = units_column(sensor)
    both = [unit or own for unit, own in zip(units, _column(dataset, column), strict=True)]
    rest = dataset.remove_columns(column) if column in order else dataset
    return rest.add_column(column, both, feature=Value("string"))
