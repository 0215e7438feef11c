"""Find tiles of an archive by an image.

Find the tiles of an archive that are most similar to images of any of its model's sensors.
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import (
    add_archive,
    add_image_options,
    add_overwrite,
    add_suspect,
    image_options,
    model_options,
    say,
    split_names,
    take_negative_lists,
)

if TYPE_CHECKING:
    from csmae_hf.archive.archive import Archive
    from csmae_hf.archive.hits import Hits

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    take_negative_lists(parser)
    add_archive(parser)
    parser.add_argument(
        "--query",
        nargs="+",
        default=[],
        metavar="QUERY",
        help="tile ids, GeoTIFFs, folders with a GeoTIFF a band, .npy or .npz",
    )
    parser.add_argument("--sensor", help="sensor of the queries (default: the archive's, where it has one)")
    parser.add_argument(
        "--in", dest="archive_sensor", metavar="SENSOR", help="sensor to search (default: that of the queries)"
    )
    parser.add_argument("--k", type=int, default=10, help="results of each query (default: %(default)s)")
    parser.add_argument(
        "--where",
        metavar="FILTER",
        help="which tiles may be found, such as \"country = 'Austria' and season in ('Summer', 'Fall')\"; see docs/filters.md",
    )
    parser.add_argument(
        "--bbox", metavar="W,S,E,N", help="only tiles that meet this box of degrees; W > E crosses the antimeridian"
    )
    parser.add_argument("--within", metavar="FILE", help="only tiles that meet the areas of a file of GeoJSON")
    parser.add_argument("--near", metavar="LON,LAT,KM", help="only tiles no further than KM kilometres from a point")
    for name, way in (("--like", "towards"), ("--unlike", "away from")):
        parser.add_argument(
            name, type=split_names, default=[], metavar="ID,ID", help=f"tiles to move the queries {way}"
        )
    add_image_options(parser)
    add_suspect(parser)
    add_overwrite(parser, "what lies at --out")
    parser.add_argument("--include-self", action="store_true", help="let a tile of the archive find itself")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to write to the terminal")
    parser.add_argument(
        "--out",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="also write .png (pictures), .json, .geojson, .csv, .parquet, or a folder (a datasets.Dataset); may be repeated",
    )


def run(arguments: argparse.Namespace) -> None:
    """Search an archive."""
    from csmae_hf.archive.archive import Archive
    from csmae_hf.archive.export import DATASET_FILES, PICTURES, write_hits
    from csmae_hf.files import refuse_existing
    from csmae_hf.hub.archives import pull_archive

    for path in arguments.out:  # before the search, not after it
        refuse_existing(path, overwrite=arguments.overwrite, own=() if path.suffix else DATASET_FILES)
    options = {"index": not arguments.exact, **model_options(arguments)}
    remote = arguments.archive.removeprefix("hub:")
    archive = pull_archive(remote, **options) if remote != arguments.archive else Archive.load(remote, **options)
    if not arguments.query and not arguments.like:
        raise ValueError("There is nothing to search by: give --query, or --like with tiles of the archive.")
    chosen = {
        name: getattr(arguments, name) for name in ("sensor", "archive_sensor", "k", "like", "unlike", "include_self")
    }
    said = image_options(arguments)
    of_query = {name: said[name] for name in ("bands", "units", "level") if name in said}
    hits = archive.search(
        arguments.query or None, filter=_filter(arguments), areas=Path, suspect=arguments.suspect, **chosen, **of_query
    )
    say(hits.to_json() if arguments.format == "json" else hits.to_text())
    for path in arguments.out:
        is_picture = path.suffix.lower() in PICTURES
        logger.info(
            "Written: %s",
            draw(archive, hits, path, arguments.data, said)
            if is_picture
            else write_hits(hits, path, overwrite=arguments.overwrite),
        )


def _filter(arguments: argparse.Namespace) -> str | None:
    """What `--where` and the options of places ask for together, as one filter, in which `within` names a file."""
    parts = [f"({arguments.where})"] if arguments.where and arguments.where.strip() else []
    for option, form, count in (("bbox", "W,S,E,N", 4), ("near", "LON,LAT,KM", 3)):
        given = getattr(arguments, option)
        if given is None:
            continue
        try:
            numbers = [float(number) for number in given.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            raise ValueError(f"--{option} {given}: expected {count} numbers, {form}, in degrees.")
        parts.append(f"{option}({', '.join(map(repr, numbers))})")
    if arguments.within is not None:
        parts.append("within('" + arguments.within.replace("'", "''") + "')")
    return " and ".join(parts) or None


def draw(archive: "Archive", hits: "Hits", path: Path, given: str | None, said: dict[str, Any]) -> Path:
    """Draw queries and hits, of the tiles that `--data` (`given`) or the archive names; `said`: of their files."""
    from csmae_hf.archive.export import draw_hits, load_shown
    from csmae_hf.data.load import holds_store

    if given:
        options = {name: said[name] for name in ("units",) if name in said} if holds_store(Path(given)) else said
        return draw_hits(hits, load_shown(archive, hits, [{"data": given, **options}]), path)
    return draw_hits(hits, load_shown(archive, hits), path)
