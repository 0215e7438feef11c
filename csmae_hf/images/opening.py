"""The one place where an image file is opened: which formats, how large, and what is said when it cannot be read.

rasterio is imported when the first file is opened.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DRIVER = "GTiff"
"""What GDAL may take a file for; left to itself it would open files that name other files, or places on the network."""


class ImageFileError(ValueError):
    """A file is not the image it should be; the message names it and what is wrong."""


def import_rasterio() -> Any:
    """Import rasterio, or say how to install it."""
    try:
        import rasterio
    except ImportError as error:
        raise ImportError("Reading a GeoTIFF needs rasterio: pip install 'csmae-hf[geo]' (or rasterio).") from error
    return rasterio


@contextmanager
def open_image(path: Path, most_values: int | None = None) -> Iterator[Any]:
    """Open an image file.

    Args:
        path: The file.
        most_values: Most pixels times bands it may have, for a compressed file of few bytes can hold very many; None for any number.

    Yields:
        A `rasterio.DatasetReader`.

    Raises:
        ImageFileError: On opening or on reading within the context, if the file is not there, cannot be read, or is too large.
        ImportError: If rasterio is missing.
    """
    rasterio = import_rasterio()
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path, driver=DRIVER) as source:
                if most_values is not None and source.count * source.height * source.width > most_values:
                    raise ImageFileError(
                        f"{path} has {source.count} bands of {source.height} x {source.width} pixels: that is a scene, not a "
                        "tile. Cut out 120 x 120 pixels of 10 m."
                    )
                yield source
        except (RasterioError, OSError) as error:
            if not path.is_file():
                raise ImageFileError(f"{path} is not there. Restore it, or list the folder anew.") from error
            cause = error.__cause__ or error  # rasterio's own message may be no more than "see previous exception"
            raise ImageFileError(
                f"{path} cannot be read as a GeoTIFF: {cause}. Copy it again from its source."
            ) from error
