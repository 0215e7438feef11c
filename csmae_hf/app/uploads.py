"""Images that a person brings: read as GeoTIFFs or JPEG 2000 and nothing else, and never larger than such a tile can be."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from csmae_hf.images.image import BandImage, read_image
from csmae_hf.images.raster import SUFFIXES, describe, is_image

MOST_BYTES = 64 * 2**20
"""A tile of 120 x 120 pixels has under 1 MB; larger files are refused before they are read."""

MOST_VALUES = 16 * 2**20
"""Most pixels times bands: a compressed file of few bytes can hold far more."""


def read_upload(paths: Sequence[str], bands: Sequence[str], sensor: str = "") -> BandImage:
    """Read an uploaded image of one sensor as (H, W) by band: of one file, or of one for each band, named `..._B02.tif`.

    `bands` are the sensor's, in the model's order. Whether the pixels are what the model takes, the processor says.

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
        return read_image(files, bands, sensor=sensor)
    except ValueError as error:  # whose message has no business with where the page keeps uploads
        message = str(error)
        for file in files:
            message = message.replace(str(file), file.name).replace(
                f"{file.parent} ({len(files)} files)", f"The set of {len(files)} files"
            )
        raise ValueError(message) from error


def _refuse_others(file: Path) -> None:
    """Refuse what is no image file, or is larger than a tile can be, before a pixel is read."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(
            f"{file.name} has {size / 2**20:,.0f} MB: the most are {MOST_BYTES // 2**20}. A tile of 120 x 120 pixels has under 1 MB; "
            "cut it out of the scene first."
        )
    if not is_image(file):
        raise ValueError(
            f"{file.name} is no GeoTIFF: expected a file that ends with {', '.join(SUFFIXES)}, with the sensor's bands as measured; a "
            "picture such as a JPEG or PNG no longer holds them."
        )
    raster = describe(file)
    rows, columns = raster.grid.shape
    if len(raster.layers) * rows * columns > MOST_VALUES:
        raise ValueError(
            f"{file.name} has {len(raster.layers)} bands of {rows} x {columns} pixels: that is a scene, not a tile. Cut out 120 x "
            "120 pixels of 10 m."
        )
