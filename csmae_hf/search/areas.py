"""Areas on Earth, and which tiles lie in them: a box, areas of GeoJSON, a distance from a point.

A tile lies in an area where its footprint, the outline of its image, meets it; that it touches it is enough. Areas are what RFC 7946
says: their edges are straight on the plane of longitudes and latitudes (WGS 84). Distances are geodesics on the ellipsoid.
"""

import json
import logging
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from csmae_hf.optional import needs_package
from csmae_hf.search.places import (
    bbox_array,
    bounds_of,
    extents_of,
    is_bbox,
    outlines,
    rings,
)

logger = logging.getLogger(__name__)

MOST_KILOMETRES = 20_004.0
"""From a pole to the other; nothing is further away."""

Mask = NDArray[np.bool_]

_CELLS = 128  # across an area, by which most tiles are seen to lie in it or not
_FEW = 5000  # tiles that are looked at one by one
_LEAST_RADIUS, _GREATEST_RADIUS = 6335.0, 6400.0  # of curvature of the ellipsoid, in any direction, kilometres
_LONGITUDE_FORMS = ("urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326", "OGC:CRS84")


class Area(Protocol):
    """Where tiles may lie."""

    def mask(self, tiles: pa.Table) -> Mask:
        """Which tiles lie in it, by their metadata: (N,); False where a tile's place is not known."""


Areas = Mapping[str, Any] | Callable[[str], Any]
"""Areas by the names that a filter calls them: GeoJSON (a mapping or text) or the path of a file of it; or what gives them."""


def import_shapely() -> Any:
    """Import shapely, or say how to install it."""
    try:
        import shapely
    except ImportError as error:
        raise needs_package("A filter by place", "shapely", error) from error
    return shapely


def known_places(tiles: pa.Table) -> Mask:
    """(N,) of which tiles the place is known."""
    return ~np.isnan(_bounds(tiles)[:, 0])


def _bounds(tiles: pa.Table) -> NDArray[np.float64]:
    """Bounds of tiles in degrees: (N, 4) west, south, east, north; NaN where not known, east beyond 180 across the antimeridian."""
    bounds = np.full((tiles.num_rows, 4), np.nan)
    if "bbox" in tiles.column_names and is_bbox(tiles.schema.field("bbox").type):
        bounds = bbox_array(tiles.column("bbox"))
        bounds[:, 2] += 360 * (bounds[:, 0] > bounds[:, 2])
    rows = np.flatnonzero(np.isnan(bounds[:, 0]))
    if len(rows):  # an archive from before, or a table of anybody's
        bounds[rows] = _found_bounds(tiles, rows)
    return bounds


def _found_bounds(tiles: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bounds of rows by their other columns; kept as long as the table is there, since finding them takes seconds for a large one."""
    key = id(tiles)
    kept = _kept.get(key)
    if kept is None or kept[0]() is not tiles:
        found = bounds_of(extents_of(tiles, rows))
        _kept[key] = kept = weakref.ref(tiles, lambda _: _kept.pop(key, None)), found
    return kept[1]


_kept: dict[int, tuple[weakref.ref[pa.Table], NDArray[np.float64]]] = {}


class Region:
    """An area of any shape.

    Args:
        parts: Its simple parts, shapely geometries with longitudes within -180 to 180.
    """

    def __init__(self, parts: Sequence[Any]):
        shapely = import_shapely()
        self.parts = np.array(parts, dtype=object)
        shapely.prepare(self.parts)
        self._tree = shapely.STRtree(self.parts)
        self._reach = tuple(shapely.total_bounds(self.parts).tolist())

    def mask(self, tiles: pa.Table) -> Mask:
        """See [`Area.mask`]."""
        shapely = import_shapely()
        bounds = _bounds(tiles)
        found = np.zeros(len(bounds), dtype=bool)
        west, south, east, north = self._reach
        for pole, ends in ((-90, bounds[:, 1]), (90, bounds[:, 3])):  # where all longitudes meet
            if south <= pole <= north:
                found |= np.abs(ends - pole) == 0
        for turn in (0, -360, 360):  # tiles at the antimeridian are looked at from both sides
            at = bounds + np.array([turn, 0, turn, 0])
            rows = np.flatnonzero(
                (at[:, 0] <= east) & (at[:, 2] >= west) & (at[:, 1] <= north) & (at[:, 3] >= south) & ~found
            )
            if len(rows) > _FEW:
                inside, outside = self._certain(shapely, at[rows])
                found[rows[inside]] = True
                rows = rows[~inside & ~outside]
            if not len(rows):
                continue
            boxes = shapely.box(*at[rows].T)
            flat = np.flatnonzero(shapely.area(boxes) == 0)  # such are no valid polygons
            rows = rows[np.union1d(flat, self._pairs(shapely.intersects, boxes))]
            for places, points in rings(extents_of(tiles, rows)):
                points[..., 0] += turn
                found[rows[places[self._pairs(shapely.intersects, _outlined(shapely, points))]]] = True
        return found

    def _pairs(self, predicate: Callable[[Any, Any], Any], shapes: Any) -> NDArray[np.int64]:
        """Of which shapes a predicate of any part of the area and the shape is true: their numbers."""
        numbers, parts = self._tree.query(shapes)
        return np.asarray(numbers[predicate(self.parts[parts], shapes[numbers])])

    def _certain(self, shapely: Any, bounds: NDArray[np.float64]) -> tuple[Mask, Mask]:
        """Which of many tiles lie in the area, and which do not, as far as a grid of cells over it says that of their bounds."""
        west, south, east, north = self._reach
        width, height = ((high - low) / _CELLS or 1.0 for low, high in ((west, east), (south, north)))
        x, y = np.meshgrid(west + width * np.arange(_CELLS), south + height * np.arange(_CELLS), indexing="ij")
        cells = shapely.box(x.ravel(), y.ravel(), x.ravel() + width, y.ravel() + height)
        sums = []
        for predicate in (shapely.intersects, shapely.covers):
            marked = np.zeros(_CELLS**2)
            marked[self._pairs(predicate, cells)] = 1
            sums.append(np.pad(marked.reshape(_CELLS, _CELLS), ((1, 0), (1, 0))).cumsum(0).cumsum(1))
        start, step = np.array([west, south]), np.array([width, height])
        first = np.floor((bounds[:, :2] - start) / step - 1e-6).astype(np.int64)
        last = np.floor((bounds[:, 2:] - start) / step + 1e-6).astype(np.int64) + 1
        whole = ((first >= 0) & (last <= _CELLS)).all(axis=1)
        size = (last - first).prod(axis=1)
        (a, b), (c, d) = first.clip(0, _CELLS).T, last.clip(0, _CELLS).T
        touched, covered = (total[c, d] - total[a, d] - total[c, b] + total[a, b] for total in sums)
        return whole & (covered == size), touched == 0


@dataclass(frozen=True)
class Near:
    """All that is no further from a point than some kilometres.

    Attributes:
        longitude: Of the point, degrees.
        latitude: Of the point, degrees.
        kilometres: The greatest distance from it to the nearest point of a tile's footprint.
    """

    longitude: float
    latitude: float
    kilometres: float

    def __post_init__(self) -> None:
        _check_point(self.longitude, self.latitude)
        if not 0 <= self.kilometres <= MOST_KILOMETRES:
            raise ValueError(f"a distance is from 0 to {MOST_KILOMETRES:g} km, not {self.kilometres:g}")

    def mask(self, tiles: pa.Table) -> Mask:
        """See [`Area.mask`]."""
        shapely = import_shapely()
        bounds = _bounds(tiles)
        found = np.zeros(len(bounds), dtype=bool)
        reach = np.degrees(self.kilometres / _LEAST_RADIUS) + 1e-6  # of latitude
        rows = np.flatnonzero((bounds[:, 1] <= self.latitude + reach) & (bounds[:, 3] >= self.latitude - reach))
        west, south, east, north = np.radians(bounds[rows]).T
        x, y = 0.5 * (west + east), 0.5 * (south + north)
        # Distances on the sphere of radius 1, and the radii of curvature, bound those on the ellipsoid.
        away = _arc(np.radians(self.longitude), np.radians(self.latitude), x, y)
        size = np.maximum(_arc(x, y, east, south), _arc(x, y, east, north)) + 1e-9
        within = _GREATEST_RADIUS * (away + size) <= self.kilometres
        found[rows[within]] = True
        rows = rows[~within & (_LEAST_RADIUS * (away - size) <= self.kilometres)]
        # In this projection lengths from its middle are geodesics.
        around = f"+proj=aeqd +lat_0={self.latitude!r} +lon_0={self.longitude!r} +datum=WGS84 +units=m"
        for places, points in outlines(extents_of(tiles, rows), around):
            finite = np.isfinite(points).all(axis=(1, 2))
            lengths = shapely.distance(shapely.points(0.0, 0.0), _outlined(shapely, points[finite]))
            found[rows[places[finite]]] = lengths <= 1000 * self.kilometres
        return found


def _outlined(shapely: Any, points: NDArray[np.float64]) -> Any:
    """Polygons, or points, of M tiles: of (M, K, 2) corners."""
    if points.shape[1] == 1:
        return shapely.points(points[:, 0])
    flat = np.ptp(points, axis=1).min(axis=1) == 0  # bounds without a width: no polygon, but a line
    shapes = np.empty(len(points), dtype=object)
    shapes[~flat] = shapely.polygons(points[~flat])
    shapes[flat] = shapely.linestrings(points[flat])
    return shapes


def _arc(x: Any, y: Any, other_x: Any, other_y: Any) -> NDArray[np.float64]:
    """The angle between points on a sphere (haversine); all are radians."""
    half = np.sin((other_y - y) / 2) ** 2 + np.cos(y) * np.cos(other_y) * np.sin((other_x - x) / 2) ** 2
    return np.asarray(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1))))


def box(west: float, south: float, east: float, north: float) -> Region:
    """The area between two meridians and two parallels, degrees; where west > east it crosses the antimeridian.

    Raises:
        ValueError: If it is empty, or a side is no longitude or latitude.
    """
    shapely = import_shapely()
    for longitude, latitude in ((west, south), (east, north)):
        _check_point(longitude, latitude)
    if south > north:
        raise ValueError(f"south, {south:g}, is greater than north, {north:g}: the order is west, south, east, north")
    if west == east or south == north or (west, east) == (180, -180):
        raise ValueError("a box has a width and a height; near(LON, LAT, 0) is what lies at a point")
    halves = [(west, east)] if west < east else [(west, 180.0), (-180.0, east)]
    parts = [shapely.box(left, south, right, north) for left, right in halves if left < right]
    return _region(shapely, parts)


def area_of(given: Any, *, mend: bool = True) -> Region:
    """Make an area of GeoJSON (a mapping, or text that begins with `{`), or of a file of it.

    Polygons, lines and points count, in features, collections or by themselves.

    Args:
        given: The GeoJSON, or the path.
        mend: Whether an area that crosses itself is mended, as even and odd crossings say, with a warning; else it is a ValueError,
            since mending what a stranger wrote may take for ever.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no GeoJSON, not in degrees, or has an edge of which it is not clear which way round the Earth it goes.
    """
    shapely = import_shapely()
    name = "the GeoJSON"
    if isinstance(given, os.PathLike) or (isinstance(given, str) and not given.lstrip().startswith("{")):
        name, given = str(given), _read(Path(given))
    try:
        held = json.loads(given) if isinstance(given, str) else given
        found = list(_geometries(held))
        parts = [part for geometry in found for part in _parts(shapely, shapely.geometry.shape(geometry))]
    except (RecursionError, KeyError, TypeError, IndexError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ValueError(f"{name} is no GeoJSON that can be read: {type(error).__name__}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if not parts:
        raise ValueError(f"{name} holds no area: expected polygons, lines or points with coordinates.")
    broken = [number for number, part in enumerate(parts) if not shapely.is_valid(part)]
    if broken and not mend:
        raise ValueError(f"{name}: {len(broken)} of {len(parts)} areas cross themselves; give areas that do not.")
    if broken:
        logger.warning("%s: %d of %d areas cross themselves and are mended.", name, len(broken), len(parts))
        parts = [part for whole in shapely.make_valid(np.array(parts)) for part in shapely.get_parts(whole)]
    return _region(shapely, parts)


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}: expected GeoJSON, such as areas.geojson.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = ""
    if not text.lstrip().startswith("{"):
        raise ValueError(f"{path} is no GeoJSON. Convert it: ogr2ogr -t_srs EPSG:4326 areas.geojson {path.name}")
    return text


def _geometries(held: Any) -> Any:
    """The geometries of any GeoJSON, one by one."""
    if not isinstance(held, Mapping) or "type" not in held:
        raise ValueError("expected a GeoJSON object, with a type")
    crs = held.get("crs")
    system = crs.get("properties", {}).get("name") if isinstance(crs, Mapping) else crs
    if system is not None and system not in _LONGITUDE_FORMS:
        raise ValueError(
            f"its coordinates are in {system}; GeoJSON is in degrees. Convert it: ogr2ogr -t_srs EPSG:4326"
        )
    if held["type"] == "FeatureCollection":
        for feature in held["features"]:
            yield from _geometries(feature)
    elif held["type"] == "Feature":
        if held["geometry"] is not None:
            yield from _geometries(held["geometry"])
    elif held["type"] == "GeometryCollection":
        for geometry in held["geometries"]:
            yield from _geometries(geometry)
    else:
        yield held


def _parts(shapely: Any, geometry: Any) -> list[Any]:
    """The simple parts of a geometry, checked."""
    geometry = shapely.force_2d(geometry)
    points = shapely.get_coordinates(geometry)
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is no finite number")
    beyond = points[(np.abs(points) > [540, 90]).any(axis=1)]
    if len(beyond):
        raise ValueError(
            f"{beyond[0].tolist()} is no longitude and latitude, in this order, in degrees. Are they in another system? "
            "ogr2ogr -t_srs EPSG:4326"
        )
    parts = [part for part in shapely.get_parts(geometry) if not part.is_empty]
    lines = [
        line
        for part in parts
        for line in ((part.exterior, *part.interiors) if part.geom_type == "Polygon" else (part,))
    ]
    for line in lines:
        x = shapely.get_coordinates(line)[:, 0]
        far = np.flatnonzero((np.abs(np.diff(x)) > 180) & (np.abs(np.diff(x)) != 360))
        if len(far):
            raise ValueError(
                f"an edge goes from longitude {x[far[0]]:g} to {x[far[0] + 1]:g}, and which way round is not clear. Across the "
                "antimeridian write longitudes beyond 180, or cut the area there (RFC 7946, 3.1.9); else put a point between"
            )
    return parts


def _region(shapely: Any, parts: list[Any]) -> Region:
    """An area of simple parts, whose longitudes may be beyond 180."""
    within = []
    for part in parts:
        west, _, east, _ = part.bounds
        turns = [0] if west >= -180 and east <= 180 else range(-360, 361, 360)
        for turn in turns:
            moved = shapely.transform(part, lambda points, turn=turn: points + np.array([turn, 0])) if turn else part
            within += list(
                shapely.get_parts(
                    shapely.intersection(moved, shapely.box(-180, -90, 180, 90)) if len(turns) > 1 else moved
                )
            )
    return Region([part for part in within if not part.is_empty])


def _check_point(longitude: float, latitude: float) -> None:
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        raise ValueError("a coordinate is no finite number")
    if not abs(latitude) <= 90:
        raise ValueError(f"{latitude:g} is no latitude, from -90 to 90 degrees: longitude comes first")
    if not abs(longitude) <= 180:
        raise ValueError(f"{longitude:g} is no longitude, from -180 to 180 degrees")
