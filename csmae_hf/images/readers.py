"""One image from a path: a file, a folder of one image's files, or an archive of arrays."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csmae_hf.images.band_names import canonical_band
from csmae_hf.images.discovery import find_images
from csmae_hf.images.geotiff import TiffFolder
from csmae_hf.images.image import BandImage, Layer, Said, make_image, read_image
from csmae_hf.images.names import SensorNames
from csmae_hf.images.raster import SUFFIXES, Declared, Grid, Raster, RasterError


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
    if path.suffix.lower() == ".npz":
        return read_arrays(path, wanted, sensor=sensor, said=said)
    if path.suffix.lower() not in SUFFIXES:
        raise RasterError(
            f"{path} is no image: expected a file ending with {', '.join((*SUFFIXES, '.npz'))}, or a folder."
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
        raise RasterError(
            f"{folder} holds {len(images)} images of {sensor}: {holds}{', ...' if len(images) > 4 else ''}; expected the files of "
            f"one.{others} Give a folder of its own, or the one file."
        )
    if said.bands is not None:
        order = tuple(canonical_band(band) or band for band in said.bands)
        files = tuple(files if files.bands else files._replace(bands=order) for files in images[0].files)
        images[0] = images[0]._replace(files=files)
    return TiffFolder(folder).read(images[0]._replace(unit=said.unit, level=said.level).key, wanted)


def read_arrays(
    source: str | os.PathLike[str] | Mapping[str, Any],
    wanted: Sequence[str],
    *,
    sensor: str,
    said: Said | None = None,
    path: str | os.PathLike[str] = "",
) -> BandImage:
    """Read bands of a `.npz`, or of arrays by name, in whichever spelling and byte order.

    Args:
        source: The file, or the arrays.
        wanted: As of [`read_path`].
        sensor: As of [`read_path`].
        said: As of [`read_path`].
        path: Where arrays are from, for messages.

    Returns:
        As [`read_path`].

    Raises:
        RasterError: As [`read_path`], or if the file is no archive of arrays.
    """
    if isinstance(source, Mapping):
        held, where = {name: np.asarray(array) for name, array in source.items()}, Path(path or "the arrays")
    else:
        where = Path(source)
        try:
            with np.load(where, allow_pickle=False) as opened:
                held = {name: opened[name] for name in opened.files}
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise RasterError(f"{where} cannot be read as a .npz of bands: {error}") from error
    wrong = next((name for name, array in held.items() if array.ndim == 2 and array.dtype.kind not in "fiu"), None)
    if wrong is not None:
        raise RasterError(f"{where}: {wrong} is {held[wrong].dtype}; expected numbers.")
    flat = {name: array for name, array in held.items() if array.ndim == 2}
    if not flat:
        shapes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in held.items()) or "nothing"
        raise RasterError(f"{where} holds {shapes}; expected an array (H, W) for each band, by its name.")
    rasters = [
        Raster(
            where, Grid(None, None, array.shape, None), (Declared(name, str(array.dtype), None, 1.0, 0.0, False),), {}
        )
        for name, array in flat.items()
    ]
    layers = tuple(raster.layers[0] for raster in rasters)
    whole = Raster(where, rasters[0].grid, layers, {})
    pixels = list(flat.values())

    def read(layer: Layer) -> tuple[np.ndarray[Any, Any], Any]:
        array = pixels[layer.place]
        # torch and the kernels of numpy take the machine's byte order
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        mask = np.isnan(array) if array.dtype.kind == "f" else None
        return array, mask if mask is not None and mask.any() else None

    return make_image([whole], read, wanted, sensor=sensor, said=said or Said())
