"""Whether two images show the same ground."""

import math
from collections.abc import Sequence

from csmae_hf.images.raster import import_rasterio

LEAST_OVERLAP = 0.9
"""Share of the ground of each of two images that both must show to be a pair."""

Bounds = Sequence[float]


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
    if other_crs != crs:
        rasterio = import_rasterio()
        from rasterio.warp import transform_bounds

        try:
            other_bounds = transform_bounds(other_crs, crs, *other_bounds)
        except rasterio.errors.RasterioError:
            return 0.0
        if not all(map(math.isfinite, other_bounds)):
            return 0.0
    width = min(bounds[2], other_bounds[2]) - max(bounds[0], other_bounds[0])
    height = min(bounds[3], other_bounds[3]) - max(bounds[1], other_bounds[1])
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (bounds, other_bounds)]
    return max(width, 0.0) * max(height, 0.0) / max(areas)
