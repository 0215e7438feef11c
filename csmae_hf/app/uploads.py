"""Images that a person brings: read as GeoTIFFs and nothing else, and never larger than such a tile can be."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csmae_hf.archive.queries import RASTERS, read_image_file
from csmae_hf.images.opening import ImageFileError, open_image

MOST_BYTES = 64 * 2**20
"""A tile of 120 x 120 pixels has under 1 MB; larger files are refused before they are read."""

MOST_VALUES = 16 * 2**20
"""Most pixels times bands: a compressed file of few bytes can hold far more."""

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_upload(paths: Sequence[str], bands: Sequence[str]) -> dict[str, Any]:
    """Read an uploaded image of one sensor as (H, W) by band: of a GeoTIFF, or of one for each band, named `..._B02.tif`.

    `bands` are the sensor's, in the model's order. Whether the pixels are what the model takes, the processor says.

    Raises:
        ValueError: If a file is no TIFF, is too large or broken, or bands are missing.
        ImportError: If rasterio is missing.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise ValueError("No file was given: expected a GeoTIFF.")
    for file in files:
        _refuse_others(file)
    if len(files) == 1:
        held = read_image_file(files[0], bands)
        if not hasattr(held, "keys"):
            raise ValueError(f"{files[0].name} holds no bands: expected a GeoTIFF with the bands {', '.join(bands)}.")
        return dict(held)
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            target = Path(folder, file.name)
            if target.exists():
                raise ValueError(
                    f"Two of the {len(files)} files are named {file.name}: expected a GeoTIFF for each band."
                )
            shutil.copyfile(file, target)
        try:
            return dict(read_image_file(folder, bands))
        except ValueError as error:
            raise ValueError(str(error).replace(folder, f"The set of {len(files)} files")) from error


def _refuse_others(file: Path) -> None:
    """Refuse what is no TIFF by its first bytes: GDAL would open a file that names other files, or places on the network."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(
            f"{file.name} has {size / 2**20:,.0f} MB: the most are {MOST_BYTES // 2**20}. A tile of 120 x 120 pixels has under 1 MB; "
            "cut it out of the scene first."
        )
    with file.open("rb") as opened:
        start = opened.read(4)
    if file.suffix.lower() not in RASTERS or start not in _TIFF_STARTS:
        raise ValueError(
            f"{file.name} is no GeoTIFF: expected a file that ends with .tif or .tiff, with the sensor's bands as measured; a picture "
            "such as a JPEG or PNG no longer holds them."
        )
    try:
        with open_image(file, most_values=MOST_VALUES):
            pass
    except ImageFileError as error:
        raise ValueError(str(error).replace(str(file), file.name)) from error
