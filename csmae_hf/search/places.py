"""Where tiles lie: by their files, by BigEarthNet's names, or by columns of metadata; and the columns in which an archive keeps it."""

import logging
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from csmae_hf.data.pixel_column import Tile, TileBands, lies_in_lmdb, sources_of
from csmae_hf.data.store_writer import read_records
from csmae_hf.images.geotiff import Footprint
from csmae_hf.images.raster import import_rasterio

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

logger = logging.getLogger(__name__)

COLUMNS = ("crs", "left", "bottom", "right", "top")
"""Columns of metadata that say where a tile lies: the coordinate reference system, and bounds in it."""

BBOX_TYPE = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])
"""Bounds in degrees; xmin > xmax where they cross the antimeridian (RFC 7946, 5.2)."""

PLACE_COLUMNS: dict[str, pa.DataType] = {
    "longitude": pa.float64(),
    "latitude": pa.float64(),
    "bbox": BBOX_TYPE,
    "grid_cell": pa.string(),
}
"""What an archive keeps of a tile's place: its middle and its bounds in degrees (WGS 84), and its cell of BigEarthNet's grid, such as
`33UUP_75_43`: the square of the Military Grid Reference System, and the tile's column and row in it."""

DEGREES = "EPSG:4326"

Array = NDArray[Any]

_ROWS_AT_ONCE = 256  # whose pixels, where rows hold them, are in memory together
_POINT_COLUMNS = (("longitude", "latitude"), ("lon", "lat"))
_NAMES = ("grid_cell", "id", "s1_id")  # columns that may hold a name of BigEarthNet
_TILE_METRES = 1200.0
_SQUARE_METRES = 100_000.0
_GRID_NAME = r"(?:^|_T?)(?P<square>\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])_(?P<column>\d{1,2})_(?P<row>\d{1,2})$"
_EASTING_LETTERS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_NORTHING_LETTERS = "ABCDEFGHJKLMNPQRSTUV"
_BAND_LETTERS = "CDEFGHJKLMNPQRSTUVWX"
_NAME_METRES = 60.0  # by which the grid of Sentinel-2 is off that of the names, at most

_STEP_METRES = 2500.0  # an edge this long, straight in metres, is straight in degrees to about 0.1 m
_MOST_STEPS = 64
_DEGREE_METRES = 111_320.0
_AT_POLE = 90 - 1e-7  # degrees, within 1 cm
_UTM = ("EPSG:326", "EPSG:327")  # which ends before it comes near a pole
_POLAR = 85.0  # degrees from where edges are followed in as many steps as there may be


class Extents(NamedTuple):
    """Where N tiles lie, each in a coordinate system of its own.

    Attributes:
        crs: (N,) their coordinate systems; None where a place is not known.
        bounds: (N, 4) left, bottom, right, top; in degrees right may be beyond 180. Of a point left is right.
    """

    crs: Array
    bounds: Array

    @property
    def known(self) -> Array:
        """(N,) whether a tile's place is known."""
        return ~np.isnan(self.bounds[:, 0])


def footprint_columns(dataset: "Dataset") -> dict[str, pa.Array]:
    """The columns `COLUMNS` of a dataset, by each tile's first sensor; none where no image says it or they are there."""
    found: list[Footprint | None] = [None] * len(dataset)
    stores: dict[str, Mapping[str, Any]] = {}
    for name, feature in dataset.features.items():
        if not isinstance(feature, Tile):
            continue
        row = 0
        for table in dataset.with_format("arrow").select_columns([name]).iter(_ROWS_AT_ONCE):
            column = table.column(name)
            for place, source in enumerate(sources_of(column)):
                if found[row] is None and source is not None:
                    if not lies_in_lmdb(source):
                        found[row] = TileBands(column[place].as_py(), feature.bands).footprint
                    else:
                        key, store = source[:2]
                        if store not in stores:
                            stores[store] = read_records(Path(store).parent) or {}
                        record = stores[store].get(key)
                        if record is not None and record.crs is not None:
                            found[row] = Footprint(record.crs, record.left, record.bottom, record.right, record.top)
                row += 1
    if not any(found) or set(COLUMNS) & set(dataset.column_names):
        return {}
    return {
        name: pa.array(
            [None if place is None else place[number] for place in found], pa.float64() if number else pa.string()
        )
        for number, name in enumerate(COLUMNS)
    }


def with_places(tiles: pa.Table) -> pa.Table:
    """Give metadata the columns `PLACE_COLUMNS`, by what their other columns and their ids say.

    A column that has one of these names already and says the same is taken for what it says; one that says something else, by its
    type, its values or where the files of tiles lie, is kept under another name (`tile_bbox`), which is said in a warning.
    """
    try:
        misfits = _misfits(tiles)
    except ImportError:  # then those by their types and values alone
        misfits = _misfits(
            tiles.select([name for name in tiles.column_names if name in (*PLACE_COLUMNS, "lon", "lat")])
        )
    names = list(tiles.column_names)
    for name, why in misfits.items():
        own = f"tile_{name}"
        while own in names:
            own = f"tile_{own}"
        names[names.index(name)] = own
        logger.warning("Column %s is kept as %s: %s.", name, own, why)
    tiles = tiles.rename_columns(names)
    try:
        found = place_columns(tiles)
    except ImportError as error:
        logger.warning("The archive keeps no places of tiles but their cells of the grid: %s", error)
        nothing = {name: pa.nulls(tiles.num_rows, kind) for name, kind in PLACE_COLUMNS.items()}
        found = nothing | {"grid_cell": _cells(tiles, extents_of(tiles))}
        found |= {name: tiles.column(name) for name in PLACE_COLUMNS if name in names}
    return pa.table({name: tiles.column(name) for name in names if name not in found} | found)


def _misfits(tiles: pa.Table) -> dict[str, str]:
    """By column with a name of ours: why it does not say what an archive keeps under that name."""
    held, found = set(tiles.column_names), {}
    pair = {"longitude": 180, "latitude": 90}
    for name, most in pair.items():
        if name not in held:
            continue
        kind = tiles.schema.field(name).type
        if not _is_number(kind):
            found[name] = f"its type is {kind}, and an archive keeps degrees under this name"
        elif pair.keys() - held:
            found[name] = f"there is no {(pair.keys() - held).pop()} beside it"
        elif (beyond := (values := _numbers(tiles.column(name)))[np.abs(values) > most]).size:
            found[name] = f"{beyond[0]:g} is not from -{most} to {most} degrees"
    if "grid_cell" in held and not _is_text(tiles.schema.field("grid_cell").type):
        found["grid_cell"] = f"its type is {tiles.schema.field('grid_cell').type}, and an archive keeps text under it"
    if "bbox" in held and not is_bbox(kind := tiles.schema.field("bbox").type):
        found["bbox"] = f"its type is {kind}, and an archive keeps bounds in degrees under this name, {BBOX_TYPE}"
    elif "bbox" in held:
        west, south, east, north = sides = bbox_array(tiles.column("bbox")).T
        wrong = (np.abs(sides) > np.array([[180], [90], [180], [90]])).any(axis=0) | (south > north)
        if wrong.any():
            found["bbox"] = f"{sides[:, wrong][:, 0].tolist()} are no bounds in degrees"
        elif (
            row := _first_elsewhere(
                tiles.drop_columns(["bbox"]), 0.5 * (west + east + 360 * (west > east)), 0.5 * (south + north)
            )
        ) is not None:
            found["bbox"] = f"the file or the name of tile {row} says that it lies elsewhere"
    if pair.keys() <= held and not pair.keys() & found.keys():
        own = [_numbers(tiles.column(name)) for name in pair]
        row = _first_elsewhere(tiles.drop_columns([*pair, *(["bbox"] if "bbox" in found else [])]), *own)
        if row is not None:
            found |= dict.fromkeys(pair, f"the file or the name of tile {row} says that it lies elsewhere")
    return found


def _first_elsewhere(tiles: pa.Table, longitude: Array, latitude: Array) -> str | None:
    """The first tile that does not lie at a point by its other columns, or within its own size of it; by its id, or else its row."""
    west, south, east, north = bounds_of(extents_of(tiles)).T
    wide, high = (np.maximum(size, 1e-3) for size in (east - west, north - south))
    longitude = longitude - 360 * np.round((longitude - 0.5 * (west + east)) / 360)
    away = (np.abs(longitude - 0.5 * (west + east)) > 1.5 * wide) | (
        np.abs(latitude - 0.5 * (south + north)) > 1.5 * high
    )
    if not away.any():
        return None
    row = int(np.argmax(away))
    return str(tiles.column("id")[row]) if "id" in tiles.column_names else str(row)


def place_columns(tiles: pa.Table) -> dict[str, pa.Array]:
    """The columns `PLACE_COLUMNS` of metadata; middles and cells that they have already stay as they are."""
    extents = extents_of(tiles)
    middle = 0.5 * (extents.bounds[:, :2] + extents.bounds[:, 2:])
    x, y = _transformed(extents.crs, DEGREES, middle[:, :1], middle[:, 1:])
    points = np.concatenate([(x + 180) % 360 - 180, y], axis=1)
    if set(_POINT_COLUMNS[0]) <= set(tiles.column_names):
        own = np.stack([_numbers(tiles.column(name)) for name in _POINT_COLUMNS[0]], axis=1)
        points = np.where(np.isnan(own).any(axis=1, keepdims=True), points, own)
    sides = bounds_of(extents)
    sides[:, 2] -= 360 * (sides[:, 2] > 180)
    cells = tiles.column("grid_cell").cast(pa.string()) if "grid_cell" in tiles.column_names else _cells(tiles, extents)
    return {
        "longitude": pa.array(points[:, 0], pa.float64(), from_pandas=True),
        "latitude": pa.array(points[:, 1], pa.float64(), from_pandas=True),
        "bbox": pa.StructArray.from_arrays(
            [pa.array(side, pa.float64(), from_pandas=True) for side in sides.T],
            fields=list(BBOX_TYPE),
            mask=pa.array(np.isnan(sides[:, 0])),
        ),
        "grid_cell": cells,
    }


def extents_of(tiles: pa.Table, rows: Array | None = None) -> Extents:
    """Where tiles, all or those of some rows, lie by their metadata, as far as it is known.

    Of use are, in this order: the columns `COLUMNS`; `grid_cell`, `id` or `s1_id`, where it is a name of BigEarthNet that holds a
    place; `bbox`; `longitude` and `latitude`, or `lon` and `lat`.
    """
    held = set(tiles.column_names)
    if rows is not None:
        used = {*COLUMNS, *_NAMES, "bbox", *(name for pair in _POINT_COLUMNS for name in pair)}
        tiles = tiles.select([name for name in tiles.column_names if name in used]).take(pa.array(rows))
    crs = np.full(tiles.num_rows, None, dtype=object)
    bounds = np.full((tiles.num_rows, 4), np.nan)
    if set(COLUMNS) <= held and _is_text(tiles.schema.field("crs").type):
        crs[:] = tiles.column("crs").to_pylist()
        bounds = np.stack([_numbers(tiles.column(name)) for name in COLUMNS[1:]], axis=1)
        bounds[~np.isfinite(bounds).all(axis=1) | (crs == None)] = np.nan  # noqa: E711 (of each)
    for name in _NAMES:
        open_rows = np.flatnonzero(np.isnan(bounds[:, 0]))
        if name in held and len(open_rows) and _is_text(tiles.schema.field(name).type):
            crs[open_rows], bounds[open_rows], _ = _by_names(tiles.column(name).take(pa.array(open_rows)))
    degrees = []
    if "bbox" in held and is_bbox(tiles.schema.field("bbox").type):
        sides = bbox_array(tiles.column("bbox"))
        sides[:, 2] += 360 * (sides[:, 0] > sides[:, 2])
        degrees.append(sides)
    for pair in _POINT_COLUMNS:
        if set(pair) <= held and all(_is_number(tiles.schema.field(name).type) for name in pair):
            points = np.stack([_numbers(tiles.column(name)) for name in pair], axis=1)
            points[(np.abs(points) > [180, 90]).any(axis=1)] = np.nan
            degrees.append(points[:, [0, 1, 0, 1]])
    for values in degrees:
        rows = np.flatnonzero(np.isnan(bounds[:, 0]) & np.isfinite(values).all(axis=1))
        crs[rows], bounds[rows] = DEGREES, values[rows]
    crs[np.isnan(bounds[:, 0])] = None
    return Extents(crs, bounds)


def outlines(extents: Extents, to: str = DEGREES) -> list[tuple[Array, Array]]:
    """Corners of tiles, and points between them where an edge is not straight in the other system, in a coordinate system.

    Returns:
        For groups of tiles: (M,) their rows, ascending; and (M, K, 2) x and y, counterclockwise and not closed; K is 1 of points. Not
        finite where a tile cannot be brought there. Tiles without a place are in no group.
    """
    left, bottom, right, top = extents.bounds.T
    flat = extents.crs == DEGREES
    metres = np.maximum(right - left, top - bottom) * np.where(flat, _DEGREE_METRES, 1.0)
    steps = 1 + np.minimum(np.nan_to_num(metres) // _STEP_METRES, np.where(flat, 720, _MOST_STEPS) - 1).astype(np.int64)
    if to == DEGREES:
        steps[flat] = 1
        other = np.flatnonzero(
            np.array([not str(crs).startswith(_UTM) for crs in extents.crs], dtype=bool) & ~flat & extents.known
        )
        bounds = extents.bounds[other]
        _, latitude = _transformed(extents.crs[other], to, bounds[:, [0, 2, 2, 0]], bounds[:, [1, 1, 3, 3]])
        steps[other[(np.abs(latitude) > _POLAR).any(axis=1)]] = _MOST_STEPS
    steps[(left == right) & (bottom == top)] = 0
    steps[~extents.known] = -1
    groups = []
    for count in np.unique(steps[steps >= 0]):
        rows = np.flatnonzero(steps == count)
        along = np.arange(count) / max(count, 1)
        low, high = np.zeros(count), np.ones(count)
        across = np.concatenate([along, high, 1 - along, low]) if count else np.zeros(1)
        upward = np.concatenate([low, along, high, 1 - along]) if count else np.zeros(1)
        x = left[rows, None] + (right - left)[rows, None] * across
        y = bottom[rows, None] + (top - bottom)[rows, None] * upward
        groups.append((rows, np.stack(_transformed(extents.crs[rows], to, x, y), axis=2)))
    return groups


def rings(extents: Extents) -> list[tuple[Array, Array]]:
    """Outlines of tiles on the plane of longitudes and latitudes, as of [`outlines`], without a leap at the antimeridian.

    They begin within -180 to 180 and may go on beyond 180. One with a pole in it goes once round, and back along the pole.
    """
    found = []
    for rows, points in outlines(extents):
        leaps = np.diff(points[..., 0], axis=1, append=points[:, :1, 0])
        ways = (leaps + 180) % 360 - 180
        ways = np.where((extents.crs[rows] == DEGREES)[:, None], leaps, ways)
        round_pole = (np.abs(ways.sum(axis=1)) > 180) | (np.abs(points[..., 1]) > _AT_POLE).any(axis=1)
        round_pole &= extents.crs[rows] != DEGREES
        points[:, 1:, 0] = points[:, :1, 0] + np.cumsum(ways, axis=1)[:, :-1]
        found.append((rows[~round_pole], points[~round_pole]))
        found += [(rows[[place]], _with_pole(points[place])[None]) for place in np.flatnonzero(round_pole)]
    for _, points in found:
        points[..., 0] -= 360 * np.floor((points[..., 0].min(axis=1, keepdims=True) + 180) / 360)
    return [group for group in found if len(group[0])]


def _with_pole(ring: Array) -> Array:
    """Complete the ring, (K, 2), of a tile that has a pole in it or on its edge."""
    pole = math.copysign(90.0, ring[np.argmax(np.abs(ring[:, 1])), 1])
    at = np.abs(ring[:, 1]) > _AT_POLE
    others = np.flatnonzero(~at)
    points = []
    for place, point in enumerate(ring):
        if at[place]:  # a pole has the longitude from where the ring comes, and then that to where it goes
            before, after = others[others < place], others[others > place]
            points.append((ring[before[-1] if len(before) else others[-1], 0], pole))
            points.append((ring[after[0] if len(after) else others[0], 0], pole))
        else:
            points.append((point[0], point[1]))
    x, y = np.array(points).T
    ways = (np.diff(x, append=x[0]) + 180) % 360 - 180
    through = np.flatnonzero(
        np.abs(ways) > 180 - 1e-6
    )  # an edge through the pole: which way it turns there, the others say
    if len(through):
        ways[through[0]] = ways[through[0]] - ways.sum()
    x = x[0] + np.concatenate([[0.0], np.cumsum(ways)])
    if abs(ways.sum()) < 180:
        return np.stack([x[:-1], y], axis=1)
    return np.stack([[*x, x[-1], x[0]], [*y, y[0], pole, pole]], axis=1)


def bounds_of(extents: Extents) -> Array:
    """Bounds of tiles in degrees: (N, 4) west, south, east, north; west is from -180 to 180, east may be beyond; NaN if not known."""
    bounds = np.full((len(extents.crs), 4), np.nan)
    for rows, points in rings(extents):
        bounds[rows] = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    bounds[~np.isfinite(bounds).all(axis=1)] = np.nan
    west, _, east, _ = bounds.T
    bounds[east - west >= 360 - 1e-9, 0::2] = (-180.0, 180.0)
    return bounds


def _transformed(crs: Array, to: str, x: Array, y: Array) -> tuple[Array, Array]:
    """Coordinates, (M, K) of M tiles, in another system; not finite where that cannot be."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    for system in set(crs) - {to, None}:
        rows = np.flatnonzero(crs == system)
        x[rows], y[rows] = _warped(system, to, x[rows], y[rows])
    return x, y


def _warped(system: str, to: str, x: Array, y: Array) -> tuple[Array, Array]:
    import_rasterio()
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    try:
        warped = np.array(transform(system, to, x.ravel().tolist(), y.ravel().tolist())[:2])
    except CRSError as error:
        logger.warning("The place of tiles is not known: %s", error)
        warped = np.full((2, x.size), np.nan)
    except Exception as error:  # of a class that rasterio keeps to itself, where a point is beyond a system's reach
        if not type(error).__module__.startswith("rasterio"):
            raise
        if len(x) > 1:  # of one tile, which is not to take the others with it
            halves = [
                _warped(system, to, *part) for part in zip(np.array_split(x, 2), np.array_split(y, 2), strict=True)
            ]
            return np.concatenate([half[0] for half in halves]), np.concatenate([half[1] for half in halves])
        warped = np.full((2, x.size), np.nan)
    warped[:, ~np.isfinite(warped).all(axis=0)] = np.nan
    return warped[0].reshape(x.shape), warped[1].reshape(x.shape)


def _cells(tiles: pa.Table, extents: Extents) -> pa.Array:
    """Cells of BigEarthNet's grid by the names of tiles; none where their files say that they lie elsewhere."""
    cells = np.full(tiles.num_rows, None, dtype=object)
    for name in ("id", "s1_id"):
        if name in tiles.column_names and _is_text(tiles.schema.field(name).type):
            crs, bounds, found = _by_names(tiles.column(name))
            with np.errstate(invalid="ignore"):
                there = (np.abs(bounds - extents.bounds) <= _NAME_METRES).all(axis=1) & (crs == extents.crs)
            cells = np.where(there & (cells == None), found, cells)  # noqa: E711 (of each)
    return pa.array(cells, pa.string())


def _by_names(names: pa.ChunkedArray) -> tuple[Array, Array, Array]:
    """Places of tiles by their names: coordinate systems, bounds, and cells, as of [`grid_footprint`]."""
    crs, cells = (np.full(len(names), None, dtype=object) for _ in range(2))
    bounds = np.full((len(names), 4), np.nan)
    found = pc.extract_regex(names.cast(pa.string()), _GRID_NAME).combine_chunks()
    found = pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
    rows = np.flatnonzero(np.asarray(found.is_valid()))
    if not len(rows):
        return crs, bounds, cells
    squares, columns, lines = (found.field(name).take(pa.array(rows)) for name in ("square", "column", "row"))
    distinct = squares.dictionary_encode()
    corners = [_square_corner(square) for square in distinct.dictionary.to_pylist()]
    real = np.array([corner is not None for corner in corners])[distinct.indices.to_numpy()]
    rows, codes = rows[real], distinct.indices.to_numpy()[real]
    systems = np.array([corner and corner[0] for corner in corners], dtype=object)
    places = np.array([corner[1:] if corner else (np.nan, np.nan) for corner in corners])
    column, line = (values.cast(pa.int64()).to_numpy()[real] for values in (columns, lines))
    left = places[codes, 0] + column * _TILE_METRES
    top = places[codes, 1] - line * _TILE_METRES
    crs[rows] = systems[codes]
    bounds[rows] = np.stack([left, top - _TILE_METRES, left + _TILE_METRES, top], axis=1)
    names_of = distinct.dictionary.to_pylist()
    cells[rows] = [f"{names_of[code]}_{a:02d}_{b:02d}" for code, a, b in zip(codes, column, line, strict=True)]
    return crs, bounds, cells


def grid_footprint(name: str) -> Footprint | None:
    """Bounds of a tile in UTM by its name; None where that says nothing.

    A name of BigEarthNet v2, such as `S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43`, holds the 100 km square of the Military
    Grid Reference System, and the tile's column from its left and row from its upper edge; of v1, the names of S1 images do.
    Sentinel-2's own grid is up to 60 m off.
    """
    crs, bounds, _ = _by_names(pa.chunked_array([[name]], pa.string()))
    return None if crs[0] is None else Footprint(crs[0], *bounds[0].tolist())


@cache
def _square_corner(square: str) -> tuple[str, float, float] | None:
    """UTM system, left and top of a 100 km square of the Military Grid Reference System; None where there is no such square."""
    zone, band = int(square[:2]), square[2]
    columns = _EASTING_LETTERS[(zone - 1) % 3]
    if not 1 <= zone <= 60 or square[3] not in columns:
        return None
    easting = (columns.index(square[3]) + 1) * _SQUARE_METRES
    south = (_BAND_LETTERS.index(band) * 8 - 80) * 110_574.0  # metres north of the equator, at least
    north = band >= "N"
    least = south if north else south * 1.011 + 10_000_000
    cycle = len(_NORTHING_LETTERS) * _SQUARE_METRES
    start = (_NORTHING_LETTERS.index(square[4]) - (5 if zone % 2 == 0 else 0)) % 20 * _SQUARE_METRES
    northing = start + cycle * max(math.ceil((least - _SQUARE_METRES - start) / cycle), 0)
    return f"EPSG:{(32600 if north else 32700) + zone}", easting, northing + _SQUARE_METRES


def geometry_of(tile: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where a tile lies by its metadata, as of [`extents_of`]: a GeoJSON polygon or point in degrees; None where nothing is known.

    Without rasterio, which knows coordinate systems, it may be an ImportError.
    """
    bounds = [tile.get(name) for name in COLUMNS]
    if None not in bounds:
        return Footprint(*bounds).to_polygon()  # type: ignore[arg-type]
    for name in _NAMES:
        footprint = grid_footprint(str(tile.get(name) or ""))
        if footprint is not None:
            return footprint.to_polygon()
    box = tile.get("bbox")
    if isinstance(box, Mapping) and None not in (sides := [box.get(side) for side in BBOX_TYPE.names]):
        west, south, east, north = map(float, sides)  # type: ignore[arg-type]
        if (west, south) != (east, north):
            halves = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
            boxes = [[[[w, south], [e, south], [e, north], [w, north], [w, south]]] for w, e in halves]
            crossing = len(boxes) > 1
            return {"type": "MultiPolygon" if crossing else "Polygon", "coordinates": boxes if crossing else boxes[0]}
    for longitude, latitude in _POINT_COLUMNS:
        if tile.get(longitude) is not None and tile.get(latitude) is not None:
            return {"type": "Point", "coordinates": [tile[longitude], tile[latitude]]}
    return None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_bbox(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bounds, as of `BBOX_TYPE`."""
    return bool(pa.types.is_struct(kind)) and {field.name for field in kind if _is_number(field.type)} == set(
        BBOX_TYPE.names
    )


def _numbers(column: pa.ChunkedArray) -> Array:
    """A column of numbers as float64, NaN where they are not known."""
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    return np.array(pc.fill_null(column.cast(pa.float64(), safe=False), math.nan), dtype=np.float64)


def bbox_array(column: pa.ChunkedArray) -> Array:
    """The sides of a column of bounds, in the order of `BBOX_TYPE`: (N, 4), NaN where they are not known."""
    return np.stack([_numbers(pc.struct_field(column, side)) for side in BBOX_TYPE.names], axis=1)
