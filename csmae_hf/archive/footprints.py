"""Footprints of an archive's tiles as arrays: their corners, their order along a Hilbert curve, and their WKB."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from csmae_hf.images.raster import import_rasterio
from csmae_hf.search.ids import ID
from csmae_hf.search.places import COLUMNS, grid_footprint

FloatArray = NDArray[np.float64]

BOUNDS = ("xmin", "ymin", "xmax", "ymax")
"""Fields of a bounding box, in the order of GeoParquet."""

POINT_COLUMNS = (("longitude", "latitude"), ("lon", "lat"))

LEVEL = 16
"""Bits of a coordinate on the Hilbert curve, as GeoPandas has them."""

_POINT = np.dtype([("order", "u1"), ("kind", "<u4"), ("point", "<f8", 2)])
_POLYGON = np.dtype([("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", (5, 2))])
_TWO_POLYGONS = np.dtype([("order", "u1"), ("kind", "<u4"), ("parts", "<u4"), ("polygons", _POLYGON, 2)])


def corners_of(tiles: pa.Table) -> FloatArray:
    """Find the corners of tiles on the globe.

    Of use are, the first that says something: the columns `COLUMNS`; names of BigEarthNet v2; the column `bbox`, a struct of `BOUNDS`
    whose xmin is greater than its xmax at the antimeridian; `longitude` and `latitude`, or `lon` and `lat`.

    Args:
        tiles: Metadata of n tiles.

    Returns:
        (n, 4, 2) longitudes and latitudes in degrees: lower left, lower right, upper right, upper left in the tile's own grid. Of a
        tile that lies across the antimeridian longitudes go on beyond 180. Where only a point is known all four are that point; where
        nothing is known they are NaN.

    Raises:
        ValueError: If a tile's coordinate reference system is not known.
        ImportError: If rasterio, which knows coordinate systems, is missing and needed.
    """
    held = set(tiles.column_names)
    corners = np.full((tiles.num_rows, 4, 2), np.nan)
    if set(COLUMNS) <= held:
        bounds = np.stack([_numbers(tiles.column(name)) for name in COLUMNS[1:]], axis=1)
        _place(corners, tiles.column(COLUMNS[0]).to_pylist(), bounds)
    for name in (ID, "s1_id"):
        if name in held and (rows := np.flatnonzero(np.isnan(corners[:, 0, 0]))).size:
            texts = tiles.column(name).take(pa.array(rows)).to_pylist()
            named = [grid_footprint(str(text)) for text in texts]
            systems = [None if place is None else place.crs for place in named]
            bounds = np.array([(np.nan,) * 4 if place is None else place[1:] for place in named])
            found = np.full((len(rows), 4, 2), np.nan)
            _place(found, systems, bounds)
            corners[rows] = found
    told = [_boxes(tiles)] if "bbox" in held else []
    told += [_points(tiles, pair)[:, None] for pair in POINT_COLUMNS if set(pair) <= held]
    for values in told:
        corners = np.where(np.isnan(corners[:, :1]), values, corners)
    return corners


def _points(tiles: pa.Table, pair: Sequence[str]) -> FloatArray:
    return np.stack([_numbers(tiles.column(name)) for name in pair], axis=1)


def _numbers(column: pa.ChunkedArray) -> FloatArray:
    """A column as float64, NaN for what is not known, or no number."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type)):
        return np.full(len(column), np.nan)
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy())


def _boxes(tiles: pa.Table) -> FloatArray:
    """Corners by the column `bbox`, where it is a struct of `BOUNDS`."""
    column = tiles.column("bbox")
    if not (pa.types.is_struct(column.type) and {field.name for field in column.type} >= {*BOUNDS}):
        return np.full((tiles.num_rows, 4, 2), np.nan)
    west, south, east, north = (_numbers(pc.struct_field(column, name)) for name in BOUNDS)
    return _box(west, south, np.where(west > east, east + 360, east), north)


def _box(west: FloatArray, south: FloatArray, east: FloatArray, north: FloatArray) -> FloatArray:
    return np.stack([west, south, east, south, east, north, west, north], axis=-1).reshape(-1, 4, 2)


def _place(corners: FloatArray, crs: Sequence[str | None], bounds: FloatArray) -> None:
    """Fill in corners, (n, 4, 2), of bounds (n, 4), left, bottom, right and top, in a coordinate system each."""
    by_system: dict[str, list[int]] = {}
    for row in np.flatnonzero(np.isfinite(bounds).all(axis=1)).tolist():
        if crs[row] is not None:
            by_system.setdefault(str(crs[row]), []).append(row)
    if not by_system:
        return
    import_rasterio()
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    for system, rows in by_system.items():
        points = _box(*bounds[rows].T)
        try:
            longitudes, latitudes = transform(system, "EPSG:4326", points[..., 0].ravel(), points[..., 1].ravel())
        except CRSError as error:
            raise ValueError(
                f"{len(rows)} tiles lie in a coordinate reference system that is not known, {system[:80]!r}: {error}"
            ) from error
        found = np.stack([longitudes, latitudes], axis=-1).reshape(-1, 4, 2)
        found[~np.isfinite(found).all(axis=(1, 2))] = np.nan
        corners[rows] = _unwrapped(found)


def _unwrapped(corners: FloatArray) -> FloatArray:
    """Corners whose ring is in one piece: across the antimeridian beyond 180 degrees, around a pole all longitudes up to it."""
    longitudes, latitudes = corners[..., 0], corners[..., 1]
    across = np.ptp(longitudes, axis=1) > 180
    longitudes = np.where(across[:, None] & (longitudes < 0), longitudes + 360, longitudes)
    polar = across & (np.ptp(longitudes, axis=1) >= 180)
    north = latitudes.mean(axis=1) > 0
    least, most = np.where(north, latitudes.min(axis=1), -90), np.where(north, 90, latitudes.max(axis=1))
    full = np.full_like(least, 180)
    round_pole = _box(-full, least, full, most)
    return np.where(polar[:, None, None], round_pole, np.stack([longitudes, latitudes], axis=-1))


def wrapped(points: FloatArray) -> FloatArray:
    """Points (..., 2) with longitudes in [-180, 180)."""
    return np.stack([(points[..., 0] + 180) % 360 - 180, points[..., 1]], axis=-1)


def centres_of(tiles: pa.Table, corners: FloatArray) -> FloatArray:
    """(n, 2) longitude and latitude of the middle of tiles, by their own columns where they say it; NaN where nothing is known."""
    middle = wrapped(corners.mean(axis=1))
    if not set(POINT_COLUMNS[0]) <= set(tiles.column_names):
        return middle
    own = _points(tiles, POINT_COLUMNS[0])
    return np.where(np.isnan(own), middle, own)


def are_points(corners: FloatArray) -> NDArray[np.bool_]:
    """(n,) whether of a tile no more than a point is known."""
    return (corners == corners[:, :1]).all(axis=(1, 2))


def bounds_of(corners: FloatArray) -> FloatArray:
    """(n, 4) west, south, east and north of what [`to_wkb`] writes: all longitudes of a tile across the antimeridian."""
    (west, south), (east, north) = corners.min(axis=1).T, corners.max(axis=1).T
    across = east > 180
    return np.stack([np.where(across, -180, west), south, np.where(across, 180, east), north], axis=1)


def to_wkb(corners: FloatArray) -> tuple[pa.Array, set[str]]:
    """Write footprints in well-known binary.

    Args:
        corners: (n, 4, 2), as of [`corners_of`].

    Returns:
        The geometries, null where nothing is known, and their types. A tile across the antimeridian is two boxes, one at either side,
        as RFC 7946 has it.
    """
    known = ~np.isnan(corners[:, 0, 0])
    point = known & are_points(corners)
    across = known & (corners[..., 0].max(axis=1) > 180)
    found = np.full(len(corners), None, dtype=object)
    kinds = {
        "Point": (point, lambda rows: _point_records(wrapped(corners[rows, 0]))),
        "MultiPolygon": (across & ~point, lambda rows: _two_records(corners[rows])),
        "Polygon": (known & ~point & ~across, lambda rows: _polygon_records(corners[rows])),
    }
    for chosen, records in kinds.values():
        rows = np.flatnonzero(chosen)
        if len(rows):
            made = records(rows)
            raw, size = made.tobytes(), made.dtype.itemsize
            found[rows] = [raw[start : start + size] for start in range(0, len(raw), size)]
    return pa.array(found, pa.binary()), {name for name, (chosen, _) in kinds.items() if chosen.any()}


def _point_records(points: FloatArray) -> NDArray[Any]:
    records = np.zeros(len(points), _POINT)
    records["order"], records["kind"], records["point"] = 1, 1, points
    return records


def _polygon_records(corners: FloatArray) -> NDArray[Any]:
    records = np.zeros(len(corners), _POLYGON)
    records["order"], records["kind"], records["rings"], records["points"] = 1, 3, 1, 5
    records["ring"] = np.concatenate([corners, corners[:, :1]], axis=1)
    return records


def _two_records(corners: FloatArray) -> NDArray[Any]:
    (west, south), (east, north) = corners.min(axis=1).T, corners.max(axis=1).T
    edge = np.full_like(west, 180)
    records = np.zeros(len(corners), _TWO_POLYGONS)
    records["order"], records["kind"], records["parts"] = 1, 6, 2
    records["polygons"][:, 0] = _polygon_records(_box(west, south, edge, north))
    records["polygons"][:, 1] = _polygon_records(_box(-edge, south, east - 360, north))
    return records


def hilbert_order(points: FloatArray) -> NDArray[np.int64]:
    """Order points (n, 2) along a Hilbert curve over their bounds; those that are NaN come last, others at one place by their row."""
    known = ~np.isnan(points).any(axis=1)
    distance = np.full(len(points), np.iinfo(np.uint64).max, np.uint64)
    if known.any():
        inside = points[known]
        least, extent = inside.min(axis=0), np.ptp(inside, axis=0)
        scale = np.where(extent > 0, (2**LEVEL - 1) / np.where(extent > 0, extent, 1), 0)
        cells = ((inside - least) * scale).astype(np.int64)
        distance[known] = hilbert_distance(cells[:, 0], cells[:, 1])
    return np.argsort(distance, kind="stable")


def hilbert_distance(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Give the way along the Hilbert curve to cells of a grid of 2^`LEVEL` by 2^`LEVEL`.

    The classic bit by bit form (Hilbert 1891; `xy2d` of Warren, Hacker's Delight), for arrays.
    """
    x, y = x.copy(), y.copy()
    distance = np.zeros(len(x), np.uint64)
    for bit in range(LEVEL - 1, -1, -1):
        right, upper = (x >> bit) & 1, (y >> bit) & 1
        distance += ((3 * right) ^ upper).astype(np.uint64) << np.uint64(2 * bit)
        turned = (right == 1) & (upper == 0)
        x, y = np.where(turned, 2**LEVEL - 1 - x, x), np.where(turned, 2**LEVEL - 1 - y, y)
        x, y = np.where(upper == 0, y, x), np.where(upper == 0, x, y)
    return distance


def joined_bounds(boxes: Sequence[FloatArray]) -> Mapping[str, float] | None:
    """The bounds of all boxes, (n, 4) each; None where there is none."""
    every = np.concatenate(boxes) if boxes else np.empty((0, 4))
    every = every[~np.isnan(every).any(axis=1)]
    if not len(every):
        return None
    return dict(zip(BOUNDS, map(float, (*every[:, :2].min(axis=0), *every[:, 2:].max(axis=0))), strict=True))
