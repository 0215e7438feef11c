"""One raster file, opened by one rule and read with what it declares: no-data, scale and offset, ground size, orientation, place.

A file is opened by the driver that its first bytes name and by no other, so that a file cannot name other files, or places
on the network, in the disguise of an image. rasterio is imported when the first file is opened.
"""

import functools
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csmae_hf.optional import needs_package

SUFFIXES = (".tif", ".tiff", ".jp2")
"""Endings of image files."""

ARRAYS = ".npz"
"""Ending of archives of arrays, a band each by its name, which are read like images without a place."""

_FIRST_BYTES = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "GTiff"),
    **dict.fromkeys((b"\0\0\0\x0c", b"\xff\x4f\xff\x51"), "JP2OpenJPEG"),
}
"""Driver by the first four bytes; what a file ends with does not count, for real TIFFs are named .jp2."""

LARGEST_TILE = 4096
"""Edge in pixels above which an image is called a scene and not read as a tile: reading one to refuse it took 30 s and 5 GB."""

METRES_PER_DEGREE_EQUATOR, METRES_PER_DEGREE_MERIDIAN = 111_320.0, 110_574.0
_EARTH_RADIUS = 6_378_137.0

Pixels = np.ndarray[Any, Any]


class RasterError(ValueError):
    """A file is not the image it should be; the message names it and what is wrong."""


class Grid(NamedTuple):
    """Where the pixels of a raster lie.

    Attributes:
        crs: Such as "EPSG:32633", or WKT; None where the file does not say.
        bounds: Least x, least y, greatest x, greatest y in `crs`; None without a place.
        shape: Rows and columns, north up.
        metres: Ground size of a pixel, x and y, at the middle of the image; None where it is not known.
        flip_rows: Whether the first row in the file is the southern one.
        flip_columns: Whether the first column in the file is the eastern one.
        transposed: Whether the rows in the file run north to south, or south to north; the flips are those after exchanging both.
    """

    crs: str | None
    bounds: tuple[float, float, float, float] | None
    shape: tuple[int, int]
    metres: tuple[float, float] | None
    flip_rows: bool = False
    flip_columns: bool = False
    transposed: bool = False


class Declared(NamedTuple):
    """What a raster declares of one of its layers.

    Attributes:
        description: Its name in the file; None for none.
        dtype: Type of its numbers.
        nodata: Value of pixels without a measurement; None for none.
        scale: Factor to the physical value.
        offset: Added after the factor.
        alpha: Whether the layer is an alpha channel, and so a mask.
        masked: Whether the file may say of some pixels that they are no measurement.
    """

    description: str | None
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    alpha: bool
    masked: bool = False


class Raster(NamedTuple):
    """What a file declares, without its pixels.

    Attributes:
        path: The file.
        grid: Where its pixels lie.
        layers: What it declares of each of its layers, in order.
        tags: Its metadata as text by name.
    """

    path: Path
    grid: Grid
    layers: tuple[Declared, ...]
    tags: dict[str, str]


def import_rasterio() -> Any:
    """Import rasterio, or say how to install it."""
    try:
        import rasterio
    except ImportError as error:
        raise needs_package("Reading image files", "rasterio", error) from error
    return rasterio


def is_image(path: Path) -> bool:
    """Say whether a file is an image that is read here, by its ending and its first bytes."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    with path.open("rb") as stream:
        return stream.read(4) in _FIRST_BYTES


@contextmanager
def open_raster(path: str | Path) -> Iterator[Any]:
    """Open an image file for reading; whatever goes wrong in it is said with its path.

    Args:
        path: A GeoTIFF (.tif, .tiff) or JPEG 2000 (.jp2).

    Yields:
        The dataset of rasterio.

    Raises:
        RasterError: If it is not there, is of another kind, or cannot be read.
        ImportError: If rasterio is missing.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise RasterError(f"{path} is no image that is read here: expected a file ending with {', '.join(SUFFIXES)}.")
    try:
        with path.open("rb") as stream:
            driver = _FIRST_BYTES.get(stream.read(4))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise RasterError(
            f"{path} is not there. Restore it, or list the folder anew."
            if missing
            else f"{path} cannot be read: {error}."
        ) from error
    if driver is None:
        raise RasterError(
            f"{path} cannot be read: by its first bytes it is neither a TIFF nor a JPEG 2000, but cut off, a text that points to "
            "other files, or a picture of another kind. Give the image itself."
        )
    rasterio = import_rasterio()
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path, driver=driver) as source:
                yield source
        except (RasterioError, OSError) as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RasterError:
    cause = error.__cause__ or error  # rasterio's own message may be no more than "see previous exception"
    return RasterError(f"{path} cannot be read: {cause}. Copy it again from its source.")


def describe(path: str | Path) -> Raster:
    """Read what a file declares; no pixel is read.

    Args:
        path: As of [`open_raster`].

    Returns:
        What it declares.

    Raises:
        RasterError: As [`open_raster`], or if its pixels are rotated against north.
    """
    if Path(path).suffix.lower() == ARRAYS:
        return describe_arrays(Path(path), read_arrays(path))
    with open_raster(path) as source:
        return described(Path(path), source)


def read_arrays(path: str | Path) -> dict[str, Pixels]:
    """Read the arrays of a `.npz` by name.

    Raises:
        RasterError: If it is no archive of arrays, or not there.
    """
    try:
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except FileNotFoundError as error:
        raise RasterError(f"{path} is not there. Restore it, or list the folder anew.") from error
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise RasterError(f"{path} cannot be read as a .npz of bands: {error}") from error


def array_names(path: str | Path) -> list[str]:
    """List the names in a `.npz`, of which no array is read; none of one that cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as opened:
            return list(opened.files)
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile):
        return []


def bands_of_arrays(where: Path, arrays: Mapping[str, Pixels]) -> dict[str, Pixels]:
    """Those arrays that are (H, W), in the byte order of the machine.

    Raises:
        RasterError: If there is none, or one holds no numbers.
    """
    flat = {name: array for name, array in arrays.items() if array.ndim == 2}
    wrong = next((name for name, array in flat.items() if array.dtype.kind not in "fiu"), None)
    if wrong is not None:
        raise RasterError(f"{where}: {wrong} is {arrays[wrong].dtype}; expected numbers.")
    if not flat:
        shapes = ", ".join(f"{name} {'x'.join(map(str, array.shape))}" for name, array in arrays.items()) or "nothing"
        raise RasterError(f"{where} holds {shapes}; expected an array (H, W) for each band, by its name.")
    # torch and the kernels of numpy take the machine's byte order
    return {name: np.ascontiguousarray(array, array.dtype.newbyteorder("=")) for name, array in flat.items()}


def describe_arrays(where: Path, arrays: Mapping[str, Pixels]) -> Raster:
    """Say of arrays what [`describe`] says of a file: their names are descriptions, and they have no place."""
    flat = bands_of_arrays(where, arrays)
    layers = tuple(Declared(name, str(array.dtype), None, 1.0, 0.0, False) for name, array in flat.items())
    shape = max((array.shape for array in flat.values()), key=lambda shape: shape[0])
    return Raster(where, Grid(None, None, (shape[0], shape[1]), None), layers, {})


def described(path: Path, source: Any) -> Raster:
    """Say what an open file declares. See [`describe`]."""
    # each is a walk over all layers, so it is asked for once
    masked = [any(flag.name != "all_valid" for flag in flags) for flags in source.mask_flag_enums]
    columns = (source.descriptions, source.dtypes, source.nodatavals, source.scales, source.offsets, source.colorinterp)
    layers = tuple(
        Declared(description, dtype, nodata, float(scale), float(offset), color.name == "alpha", mask)
        for description, dtype, nodata, scale, offset, color, mask in zip(*columns, masked, strict=True)
    )
    return Raster(path, _grid(path, source), layers, dict(source.tags()))


def read_layer(source: Any, raster: Raster, place: int) -> tuple[Pixels, np.ndarray[Any, np.dtype[np.bool_]] | None]:
    """Read a layer of an open file with its mask, north up.

    Args:
        source: As of [`open_raster`].
        raster: What it declares.
        place: Of the layer, from 0.

    Returns:
        (H, W) numbers as stored, and (H, W) which of them are no measurement by the file's no-data value, its mask (inside or
        beside it) or its alpha channel; None where all are.

    Raises:
        RasterError: If the image is a scene.
    """
    refuse_scene(raster)
    try:  # here, for where several files are open, who opened them cannot tell which it was
        pixels = source.read(place + 1)
    except (import_rasterio().errors.RasterioError, OSError) as error:
        raise _unreadable(raster.path, error) from error
    mask = None
    if raster.layers[place].masked:
        mask = source.read_masks(place + 1) == 0
        nodata = raster.layers[place].nodata
        if nodata is not None and not math.isnan(nodata):  # a mask beside it hides the value from read_masks
            mask |= pixels == nodata
        if pixels.dtype.kind == "f":
            mask |= np.isnan(pixels)
    for alpha, layer in enumerate(raster.layers):
        if layer.alpha:  # which GDAL takes for the mask of files of two or four layers alone
            hidden = source.read(alpha + 1) == 0
            mask = hidden if mask is None else mask | hidden
    mask = _north_up(mask, raster.grid) if mask is not None and mask.any() else None
    return _north_up(pixels, raster.grid), mask


def refuse_scene(raster: Raster) -> None:
    """Refuse an image too large to be a tile, before its pixels are read.

    Raises:
        RasterError: With its size.
    """
    rows, columns = raster.grid.shape
    if max(rows, columns) > LARGEST_TILE:
        size = ""
        if raster.grid.metres:
            size = f", {columns * raster.grid.metres[0] / 1000:,.0f} x {rows * raster.grid.metres[1] / 1000:,.0f} km"
        raise RasterError(
            f"{raster.path} has {rows:,} x {columns:,} pixels{size}: a scene, not a tile. Cut tiles "
            f"out of it first: gdal_translate -srcwin COLUMN ROW 120 120 {raster.path.name} TILE.tif, or a window of rasterio."
        )


def _north_up(pixels: Pixels, grid: Grid) -> Pixels:
    if grid.transposed:
        pixels = pixels.T
    if grid.flip_rows:
        pixels = pixels[::-1]
    if grid.flip_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


@functools.lru_cache(maxsize=256)
def _system(wkt: str) -> tuple[str, bool, float]:
    """Name of a coordinate reference system, whether it is in degrees, and metres of its unit: looked up once, for that is slow."""
    crs = import_rasterio().crs.CRS.from_wkt(wkt)
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else wkt, crs.is_geographic, 1.0 if crs.is_geographic else crs.linear_units_factor[1]


def _grid(path: Path, source: Any) -> Grid:
    transform, shape = source.transform, (source.height, source.width)
    system = _system(source.crs.to_wkt()) if source.crs else None
    name = system[0] if system else None
    if transform.is_identity:
        return Grid(name, None, shape, None)
    across, down = (transform.a, transform.e), (transform.b, transform.d)
    transposed = max(map(abs, across)) <= 1e-6 * min(map(abs, down))  # turned by 90 degrees exactly
    if transposed:
        across, shape = down, (source.width, source.height)
    elif abs(transform.b) > 1e-6 * abs(transform.a) or abs(transform.d) > 1e-6 * abs(transform.e):
        raise RasterError(
            f"{path} is rotated against north (transform {tuple(transform)[:6]}). Warp it to a grid that is north up, "
            f"as gdalwarp does."
        )
    left, top = transform.c, transform.f
    right, bottom = left + across[0] * shape[1], top + across[1] * shape[0]
    bounds = (min(left, right), min(bottom, top), max(left, right), max(bottom, top))
    x, y = abs(across[0]), abs(across[1])
    metres = None
    if system and system[1]:  # degrees: by the latitude in the middle
        latitude = math.radians((bounds[1] + bounds[3]) / 2)
        metres = x * METRES_PER_DEGREE_EQUATOR * math.cos(latitude), y * METRES_PER_DEGREE_MERIDIAN
    elif system:
        metres = x * system[2], y * system[2]
        if name == "EPSG:3857":  # the metres of web maps are those of the ground at the equator alone
            shrunk = 1 / math.cosh((bounds[1] + bounds[3]) / 2 / _EARTH_RADIUS)
            metres = metres[0] * shrunk, metres[1] * shrunk
    return Grid(name, bounds, shape, metres, across[1] > 0, across[0] < 0, transposed)
