"""Whether two images show the same ground."""

import math
from collections.abc import Sequence

from csmae_hf.images.raster import import_rasterio

LEAST_OVERLAP = 0.9
"""Share of the ground of each of two images that both must show to be a pair."""

Bounds = Sequence[float]
Corner = tuple[float, float]


def overlap(crs: str | None, bounds: Bounds | None, other_crs: str | None, other_bounds: Bounds | None) -> float | None:
    """Measure how much of their ground two images share.

    Args:
        crs: Coordinate reference system of the first, such as "EPSG:32633"; None if unknown.
        bounds: Its least x, least y, greatest x and greatest y; None if it has no place.
        other_crs: Of the second.
        other_bounds: Of the second.

    Returns:
        The area that both show over the area of the larger, 0 to 1; None where a place is not known. 0 also where the ground of one
        cannot be expressed in the system of the other, as it lies too far away.
    """
    if crs is None or bounds is None or other_crs is None or other_bounds is None:
        return None
    left, bottom, right, top = other_bounds
    ring = [(left, bottom), (right, bottom), (right, top), (left, top)]
    if other_crs != crs:
        rasterio = import_rasterio()
        from rasterio.warp import transform

        try:  # its corners, not the bounds around them: north differs between systems, by 6 degrees between zones of UTM
            ring = list(zip(*transform(other_crs, crs, *zip(*ring, strict=True)), strict=True))
        except rasterio.errors.RasterioError:
            return 0.0
        if not all(map(math.isfinite, (number for corner in ring for number in corner))):
            return 0.0
    largest = max((bounds[2] - bounds[0]) * (bounds[3] - bounds[1]), _area(ring))
    return _area(_clipped(ring, bounds)) / largest


def _clipped(ring: Sequence[Corner], bounds: Bounds) -> list[Corner]:
    """The part of a convex polygon within bounds, by one edge after the other (Sutherland and Hodgman 1974)."""
    kept = list(ring)
    for axis, limit, sign in ((0, bounds[0], 1), (1, bounds[1], 1), (0, bounds[2], -1), (1, bounds[3], -1)):
        corners, kept = kept, []
        for start, end in zip(corners, [*corners[1:], *corners[:1]], strict=True):
            first, second = (sign * (corner[axis] - limit) for corner in (start, end))
            if first >= 0:
                kept.append(start)
            if first * second < 0:
                share = first / (first - second)
                kept.append((start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])))
    return kept


def _area(ring: Sequence[Corner]) -> float:
    """The area of a polygon, by the trapezoids under its edges, measured from its first corner for the sake of precision."""
    if not ring:
        return 0.0
    x, y = ring[0]
    near = [(corner[0] - x, corner[1] - y) for corner in ring]
    pairs = zip(near, [*near[1:], near[0]], strict=True)
    return abs(sum(start[0] * end[1] - end[0] * start[1] for start, end in pairs)) / 2
