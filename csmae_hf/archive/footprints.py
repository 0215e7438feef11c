"""Footprints of an archive's tiles as GeoParquet has them: well-known binary, bounds, and their order along a Hilbert curve."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from csmae_hf.search.places import BBOX_TYPE, extents_of, place_columns, rings

FloatArray = NDArray[np.float64]

Geometry = Literal["polygon", "point"]
"""What the geometry of a tile is: its outline, or its middle."""

BOUNDS: Sequence[str] = BBOX_TYPE.names
"""Fields of a bounding box, in the order of GeoParquet."""

LEVEL = 16
"""Bits of a coordinate on the Hilbert curve, as GeoPandas has them."""

_POINT = np.dtype([("order", "u1"), ("kind", "<u4"), ("point", "<f8", 2)])


class Footprints(NamedTuple):
    """Where n tiles lie, in degrees.

    Attributes:
        wkb: Their geometries; null where no place is known.
        kinds: The types of these, such as "Polygon".
        bounds: (n, 4) west, south, east and north of the geometries; of one across the antimeridian all longitudes. NaN if not known.
        middles: (n, 2) longitude and latitude; NaN if not known.
    """

    wkb: pa.Array
    kinds: set[str]
    bounds: FloatArray
    middles: FloatArray


def footprints_of(tiles: pa.Table, geometry: Geometry) -> Footprints:
    """Find where tiles lie by their metadata, as of `extents_of`.

    Across the antimeridian an outline is two boxes, one at either side of it, as RFC 7946 has it.

    Raises:
        ImportError: If rasterio, which knows coordinate systems, is missing and needed.
    """
    middles = _middles(tiles)
    if geometry == "point":
        known = np.flatnonzero(~np.isnan(middles[:, 0]))
        groups = [(known, middles[known, None])]
    else:
        groups = [(rows[good], points[good]) for rows, points in rings(extents_of(tiles)) for good in [_finite(points)]]
    found = np.full(tiles.num_rows, None, dtype=object)
    bounds = np.full((tiles.num_rows, 4), np.nan)
    kinds: set[str] = set()
    for rows, points in groups:
        least, most = points.min(axis=1), points.max(axis=1)
        across = most[:, 0] > 180
        least[across, 0], east = -180, most[:, 0].copy()
        most[across, 0] = 180
        bounds[rows] = np.concatenate([least, most], axis=1)
        if points.shape[1] == 1:
            parts = [("Point", np.ones(len(rows), bool), _points(points[:, 0]))]
        else:
            boxes = [points[across].min(axis=1), np.stack([east[across], most[across, 1]], axis=1)]
            parts = [("Polygon", ~across, _polygons(points[~across])), ("MultiPolygon", across, _split_boxes(*boxes))]
        for kind, chosen, records in parts:
            raw, size = records.tobytes(), records.dtype.itemsize
            found[rows[chosen]] = [raw[start : start + size] for start in range(0, len(raw), size)]
            kinds |= {kind} if len(records) else set()
    return Footprints(pa.array(found, pa.binary()), kinds, bounds, middles)


def _finite(points: FloatArray) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(points).all(axis=(1, 2)))


def _middles(tiles: pa.Table) -> FloatArray:
    """(n, 2) longitude and latitude, from the columns of the archive or else from what else it knows."""
    pair = ("longitude", "latitude")
    held = tiles
    if any(name not in tiles.column_names or tiles.column(name).type != pa.float64() for name in pair) or any(
        tiles.column(name).null_count for name in pair
    ):
        held = pa.table(place_columns(tiles))
    middles = np.stack([held.column(name).to_numpy() for name in pair], axis=1)
    middles[np.isnan(middles).any(axis=1)] = np.nan
    return middles


def _points(points: FloatArray) -> NDArray[Any]:
    records = np.zeros(len(points), _POINT)
    records["order"], records["kind"], records["point"] = 1, 1, points
    return records


def _polygon_type(points: int) -> np.dtype[Any]:
    return np.dtype(
        [("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", (points, 2))]
    )


def _polygons(points: FloatArray) -> NDArray[Any]:
    """Polygons of rings (n, K, 2) that are not closed."""
    records = np.zeros(len(points), _polygon_type(points.shape[1] + 1))
    records["order"], records["kind"], records["rings"], records["points"] = 1, 3, 1, points.shape[1] + 1
    records["ring"] = np.concatenate([points, points[:, :1]], axis=1)
    return records


def _split_boxes(least: FloatArray, most: FloatArray) -> NDArray[Any]:
    """Boxes from `least` to `most`, (n, 2), whose east is beyond 180, as two polygons each."""
    (west, south), (east, north) = least.T, most.T
    edge = np.full_like(west, 180)
    parts = [(west, edge), (-edge, east - 360)]
    records = np.zeros(
        len(west), [("order", "u1"), ("kind", "<u4"), ("parts", "<u4"), ("polygons", _polygon_type(5), 2)]
    )
    records["order"], records["kind"], records["parts"] = 1, 6, 2
    for number, (left, right) in enumerate(parts):
        corners = np.stack([left, south, right, south, right, north, left, north], axis=-1).reshape(-1, 4, 2)
        records["polygons"][:, number] = _polygons(corners)
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
