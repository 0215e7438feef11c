"""One image from a path: a file of bands, or a folder of one image's files."""

import os
from collections.abc import Sequence
from pathlib import Path

from csmae_hf.images.image import BandImage, Said, read_image


def read_path(
    path: str | os.PathLike[str], wanted: Sequence[str], *, sensor: str, said: Said | None = None
) -> BandImage:
    """Read one image of a sensor, as [`read_image`], from a file, or from the files of a folder."""
    place = Path(path)
    files = (
        sorted(one for one in place.iterdir() if one.suffix.lower() in (".tif", ".tiff", ".jp2"))
        if place.is_dir()
        else [place]
    )
    return read_image(files, wanted, sensor=sensor, said=said)
