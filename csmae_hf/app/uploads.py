"""Images that a person brings: read as GeoTIFFs or JPEG 2000 and nothing else, and never much larger than a tile."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from csmae_hf.images.image import BandImage, Said, kind_of, read_image
from csmae_hf.images.products import parse_product
from csmae_hf.images.raster import SUFFIXES, describe, is_image

MOST_BYTES = 64 * 2**20
"""A tile of 120 x 120 pixels has under 1 MB; larger files are refused before they are read."""

MOST_VALUES = 16 * 2**20
"""Most pixels times bands: a compressed file of few bytes can hold far more."""


def read_upload(paths: Sequence[str], bands: Sequence[str], sensor: str = "", said: Said | None = None) -> BandImage:
    """Read an uploaded image of one sensor as (H, W) by band: of one file, or of one for each band, named `..._B02.tif`.

    `bands` are the sensor's, in the model's order; `said` is what the person says of the image.
    Whether the pixels are what the model takes, the processor says.

    Raises:
        ValueError: If a file is no GeoTIFF or JPEG 2000, is too large or broken, bands are missing, or files are of several images.
        ImportError: If rasterio is missing.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise ValueError("No file was given: expected a GeoTIFF.")
    twice = next((name for name, count in Counter(file.name for file in files).items() if count > 1), None)
    if twice:
        raise ValueError(f"Two of the {len(files)} files are named {twice}: expected a GeoTIFF for each band.")
    try:
        for file in files:
            _refuse_others(file)
            product = parse_product(file.name)
            if kind_of(sensor, bands) and product.sensor not in (None, "s1", "s2"):  # before what it lacks is told
                raise ValueError(
                    f"{file.name} is of {product.platform} by its name: its bands are not those of Sentinel-2."
                )
        return read_image(files, bands, sensor=sensor, said=said)
    except ValueError as error:  # whose message has no business with where the page keeps uploads
        message = str(error)
        for file in files:
            message = message.replace(str(file), file.name).replace(
                f"{file.parent} ({len(files)} files)", f"The set of {len(files)} files"
            )
        raise ValueError(message) from error


def _refuse_others(file: Path) -> None:
    """Refuse what is no image file, or is far larger than a tile can be, before a pixel is read."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(
            f"{file.name} has {size / 2**20:,.0f} MB: the most are {MOST_BYTES // 2**20}. A tile of 120 x 120 pixels has under 1 MB; "
            "cut it out of the scene first."
        )
    if not size:
        raise ValueError(f"{file.name} is empty, 0 bytes: copy it again from its source.")
    if file.suffix.lower() == ".zip":
        raise ValueError(f"{file.name} is an archive: unpack it, and bring the GeoTIFFs that are in it.")
    if not is_image(file):
        raise ValueError(
            f"{file.name} is no GeoTIFF: expected a file that ends with {', '.join(SUFFIXES)}, with the sensor's bands as measured; a "
            "picture such as a JPEG or PNG no longer holds them."
        )
    raster = describe(file)
    rows, columns = raster.grid.shape
    if len(raster.layers) * rows * columns > MOST_VALUES:
        raise ValueError(
            f"{file.name} has {len(raster.layers)} bands of {rows:,} x {columns:,} pixels: that is a scene, not a tile. Cut a tile of "
            "120 x 120 pixels of 10 m out of it first."
        )


def cut_middle(image: BandImage, size: int) -> BandImage | None:
    """Cut the tile in the middle out of a larger image, at the pixels as they are.

    Args:
        image: (H, W) by band; each band at 10 m or, smaller by a whole number, at its own ground size.
        size: Pixels of 10 m along the edge of a tile.

    Returns:
        All bands of the same ground; None where the image is a tile already, or covers less ground than one.
    """
    tallest = max(len(pixels) for pixels in image.values())
    metres = {band: image.facts.metres.get(band, 10 * tallest / len(pixels)) for band, pixels in image.items()}
    factors = {band: max(round(each / 10), 1) for band, each in metres.items()}
    rows, columns = (min(pixels.shape[axis] * factors[band] for band, pixels in image.items()) for axis in (0, 1))
    if min(rows, columns) < size or rows == columns == size:
        return None
    step = math.lcm(*factors.values())  # so that no pixel of a coarse band is cut in two
    top, left = ((edge - size) // 2 // step * step for edge in (rows, columns))
    cut = {}
    for band, pixels in image.items():
        edge, first, second = (place // factors[band] for place in (size, top, left))
        cut[band] = np.ascontiguousarray(pixels[first : first + edge, second : second + edge])
    facts = image.facts
    bounds = facts.bounds
    if bounds is not None:
        band, pixels = next(iter(image.items()))
        across, down = ((bounds[2 + axis] - bounds[axis]) / pixels.shape[1 - axis] / factors[band] for axis in (0, 1))
        west, north = bounds[0] + left * across, bounds[3] - top * down
        bounds = (west, north - size * down, west + size * across, north)
    holes = {band: int(np.isnan(pixels).sum()) for band, pixels in cut.items() if pixels.dtype.kind == "f"}
    note = f"It is the middle, {size} x {size} pixels of 10 m, of {rows} x {columns}."
    facts = replace(
        facts, bounds=bounds, no_data={band: n for band, n in holes.items() if n}, notes=(*facts.notes, note)
    )
    return BandImage(cut, facts)
