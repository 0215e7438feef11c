"""Say what a folder holds: what each image file is taken for, or what is in an LMDB.

Of a folder or a table of image files, or of one file: what each file is taken for (sensor, bands, unit and who says so, level, size,
date, no-data) and all that is wrong, at once; the exit status is then 1. Of an LMDB of tiles: format, counts, bands, labels, splits,
and a picture of 16 tiles spread over it.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from .options import add_image_options, add_overwrite, add_suspect, image_options, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="folder or table (.csv, .parquet) of image files, an image file, or an LMDB",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="of image files (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=int, default=1000, metavar="N", help="the most images to read (default: %(default)s)"
    )
    add_image_options(parser)
    add_suspect(parser)
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="of an LMDB, PNG to write (default: NAME_tiles.png, here)"
    )
    add_overwrite(parser, "a picture that csmae has not drawn")
    parser.add_argument("--no-picture", action="store_true", help="draw none")


def run(arguments: argparse.Namespace) -> int:
    """Describe image files or an LMDB."""
    from csmae_hf.data.load import holds_store
    from csmae_hf.files import refuse_existing
    from csmae_hf.visualize import is_own_picture

    path, said = arguments.path, image_options(arguments)
    if path.exists() and holds_store(path):
        wrong = [f"--{name}" for name in said if name not in ("units", "sensors")]
        if wrong or arguments.format != "text":
            raise ValueError(f"{path} is an LMDB: {', '.join(wrong) or '--format json'} is for image files.")
        picture = None if arguments.no_picture else arguments.picture or Path(f"{path.resolve().name}_tiles.png")
        if picture is not None and not is_own_picture(picture):
            refuse_existing(picture, overwrite=arguments.overwrite)
        _describe_store(path, picture, said)
        return 0
    from csmae_hf.data.inspect import format_inspection, inspect_images

    logging.getLogger("rasterio").setLevel(logging.ERROR)  # what GDAL says of tags is no verdict
    found = inspect_images(path, limit=arguments.limit, suspect=arguments.suspect, **said)
    if arguments.format == "json":
        say(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        for line in format_inspection(found):
            say(line)
    return 0 if found.is_good else 1


def _describe_store(path: Path, picture: Path | None, said: dict[str, Any]) -> None:
    from csmae_hf.data.info import describe, draw_tiles

    for line in describe(path, **said):
        say(line)
    if picture is not None:
        say(f"picture   {draw_tiles(path, picture, **said)}")
