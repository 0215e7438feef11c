"""Where tiles lie, as far as that is known: from their GeoTIFFs, from columns of metadata, or from names of BigEarthNet v2."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from csmae_hf.data.pixel_column import Tile, TileBands, lies_in_lmdb, sources_of
from csmae_hf.images.geotiff import Footprint

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

COLUMNS = ("crs", "left", "bottom", "right", "top")
"""Columns of metadata that say where a tile lies: the coordinate reference system, and bounds in it."""

_ROWS_AT_ONCE = 256  # whose pixels, where rows hold them, are in memory together
_POINT_COLUMNS = (("longitude", "latitude"), ("lon", "lat"))
_TILE_METRES = 1200.0
_SQUARE_METRES = 100_000.0
_GRID_NAME = re.compile(r"_T?(\d{2})([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])_(\d{1,2})_(\d{1,2})$")
_EASTING_LETTERS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_NORTHING_LETTERS = "ABCDEFGHJKLMNPQRSTUV"
_BAND_LETTERS = "CDEFGHJKLMNPQRSTUVWX"


def footprint_columns(dataset: "Dataset") -> dict[str, pa.Array]:
    """The columns `COLUMNS` of a dataset, by each tile's first sensor; none where no image says it or they are there."""
    found: list[Footprint | None] = [None] * len(dataset)
    for name, feature in dataset.features.items():
        if not isinstance(feature, Tile):
            continue
        row = 0
        for table in dataset.with_format("arrow").select_columns([name]).iter(_ROWS_AT_ONCE):
            column = table.column(name)
            for place, source in enumerate(sources_of(column)):
                if found[row] is None and source is not None and not lies_in_lmdb(source):
                    found[row] = TileBands(column[place].as_py(), feature.bands).footprint
                row += 1
    if not any(found) or set(COLUMNS) & set(dataset.column_names):
        return {}
    return {
        name: pa.array(
            [None if place is None else place[number] for place in found], pa.float64() if number else pa.string()
        )
        for number, name in enumerate(COLUMNS)
    }


def geometry_of(tile: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where a tile lies by its metadata, as a GeoJSON polygon or point in degrees; None where nothing is known.

    Of use are the columns `COLUMNS`; `longitude` and `latitude`, or `lon` and `lat`; and `id` or `s1_id`, where it is a name of
    BigEarthNet v2, which holds the tile of the Sentinel-2 grid and the place in it, good to 60 m. Without rasterio, which knows
    coordinate systems, it is an ImportError.
    """
    bounds = [tile.get(name) for name in COLUMNS]
    if None not in bounds:
        return Footprint(*bounds).to_polygon()  # type: ignore[arg-type]
    for longitude, latitude in _POINT_COLUMNS:
        if tile.get(longitude) is not None and tile.get(latitude) is not None:
            return {"type": "Point", "coordinates": [tile[longitude], tile[latitude]]}
    for name in ("id", "s1_id"):
        footprint = grid_footprint(str(tile.get(name) or ""))
        if footprint is not None:
            return footprint.to_polygon()
    return None


def grid_footprint(name: str) -> Footprint | None:
    """Bounds of a tile in UTM by its name; None where that says nothing.

    A name of BigEarthNet v2, such as `S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43`, holds the 100 km square of the Military
    Grid Reference System, and the tile's column from its left and row from its upper edge. Sentinel-2's own grid is up to 60 m off.
    """
    match = _GRID_NAME.search(name)
    if match is None:
        return None
    zone, band = int(match[1]), match[2]
    columns = _EASTING_LETTERS[(zone - 1) % 3]
    if not 1 <= zone <= 60 or match[3] not in columns:
        return None
    easting = (columns.index(match[3]) + 1) * _SQUARE_METRES
    south = (_BAND_LETTERS.index(band) * 8 - 80) * 110_574.0  # metres north of the equator, at least
    north = band >= "N"
    least = south if north else south * 1.011 + 10_000_000
    cycle = len(_NORTHING_LETTERS) * _SQUARE_METRES
    start = (_NORTHING_LETTERS.index(match[4]) - (5 if zone % 2 == 0 else 0)) % 20 * _SQUARE_METRES
    northing = start + cycle * max(math.ceil((least - _SQUARE_METRES - start) / cycle), 0)
    left = easting + int(match[5]) * _TILE_METRES
    top = northing + _SQUARE_METRES - int(match[6]) * _TILE_METRES
    code = (32600 if north else 32700) + zone
    return Footprint(f"EPSG:{code}", left, top - _TILE_METRES, left + _TILE_METRES, top)
