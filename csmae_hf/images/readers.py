"""One image from a path: a file, a folder of one image's files, or an archive of arrays."""

import os
from collections.abc import Sequence
from pathlib import Path

from csmae_hf.images.band_names import canonical_band, unknown_word
from csmae_hf.images.discovery import find_images
from csmae_hf.images.geotiff import TiffFolder
from csmae_hf.images.image import BandImage, Said, read_image
from csmae_hf.images.names import SensorNames
from csmae_hf.images.raster import ARRAYS, SUFFIXES, RasterError


def read_path(
    path: str | os.PathLike[str], wanted: Sequence[str], *, sensor: str, said: Said | None = None
) -> BandImage:
    """Read one image of a sensor.

    Args:
        path: A GeoTIFF or JPEG 2000 whose layers are named; a folder with a file for each band, or one file; a `.npz` of bands.
        wanted: Bands to return, by canonical name, in this order.
        sensor: Whose image it is.
        said: What the caller says of it; a contradiction to what the files say is an error.

    Returns:
        The bands, (H, W) each, north up, with what is said of them.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        RasterError: If it is no image, holds several, lacks a band, or as of [`read_image`].
        ImportError: If rasterio is missing.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, wanted, sensor, said or Said())
    if not path.is_file():
        raise FileNotFoundError(
            f"No file {path}: expected a GeoTIFF, a JPEG 2000, a folder of one image's files, or a .npz."
        )
    if path.suffix.lower() not in (*SUFFIXES, ARRAYS):
        raise RasterError(
            f"{path} is no image: expected a file ending with {', '.join((*SUFFIXES, ARRAYS))}, or a folder."
        )
    return read_image([path], wanted, sensor=sensor, said=said)


def _read_folder(folder: Path, wanted: Sequence[str], sensor: str, said: Said) -> BandImage:
    """The one image of a sensor that a folder holds."""
    found = find_images(folder, SensorNames({sensor: wanted}))
    images = [image for image in found.images if image.sensor == sensor]
    if not images and len(found.ignored) == 1:  # one file, not named after a sensor
        return read_image([folder / found.ignored[0]], wanted, sensor=sensor, said=said)
    if len(images) != 1:
        holds = ", ".join(image.name for image in images[:4]) or "none"
        others = next((f" {path} is of {platform} by its name." for path, platform in found.others.items()), "")
        others += next((f" Of {path}, {unknown_word(word)}." for path, word in found.unknown.items()), "")
        if found.sides:
            others += f" Files of {', '.join(sorted(set(found.sides.values())))} are no bands."
        raise RasterError(
            f"{folder} holds {len(images)} images of {sensor}: {holds}{', ...' if len(images) > 4 else ''}; expected the files of "
            f"one.{others} Give a folder of its own, or the one file."
        )
    if said.bands is not None:
        order = tuple(canonical_band(band) or band for band in said.bands)
        files = tuple(files if files.bands else files._replace(bands=order) for files in images[0].files)
        images[0] = images[0]._replace(files=files)
    return TiffFolder(folder).read(images[0]._replace(unit=said.unit, level=said.level).key, wanted)
