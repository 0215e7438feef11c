"""The sub-commands of `csmae` that make and examine archives. What they need is imported when they run."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csmae_hf.data.store_writer import WriteReport

logger = logging.getLogger(__name__)

_LISTED = 20
_STORE_HELP = "the LMDB folder, or a folder that holds one"


def add_encode_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `encode` to the sub-commands of a parser.

    Args:
        commands: What `add_subparsers` returned.

    Returns:
        The command's parser; it sets `run`.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "encode",
        help="make an archive (LMDB of safetensors) of GeoTIFF tiles",
        description="Encode GeoTIFF tiles (BigEarthNet v1 or v2 as distributed, other folders, or a CSV or parquet table of paths) as "
        "an LMDB of safetensors in the layout of rico-hdl, with its metadata beside it. Bands must have the sizes and the types of "
        "BigEarthNet's. If it is ended, run it again: it goes on. Files that cannot be read are listed at the end, and the exit "
        "status is then 1.",
    )
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="folder of GeoTIFFs, or .csv or .parquet table of paths"
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder of the archive: new, or begun by the same command"
    )
    parser.add_argument(
        "--bands",
        action="append",
        default=[],
        metavar="SENSOR=B1,B2",
        help="bands of files that hold several and do not name them, in the order of the file, such as s1=VV,VH; repeatable",
    )
    parser.add_argument(
        "--metadata", type=Path, help="metadata.parquet of v2, or CSV of s2_name, s1_name, country of v1"
    )
    parser.add_argument("--splits", type=Path, help="folder of train.csv, val.csv, test.csv: one S2 name a line")
    _add_workers(parser)
    parser.set_defaults(run=_run_encode)
    return parser


def add_transcode_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `transcode` to the sub-commands of a parser.

    Args:
        commands: What `add_subparsers` returned.

    Returns:
        The command's parser; it sets `run`.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "transcode",
        help="make a v2 archive (safetensors) of a v1 LMDB (pickles)",
        description="Write the tiles of a BigEarthNet-MM v1 LMDB as an LMDB of safetensors in the layout of v2, with its metadata "
        "beside it. Pixels stay the same to the bit, and nothing is unpickled. S1 names come from a table; where none gives one, the "
        "key of the S1 image is `S1-of-` and the S2 name with `-` for `_`. If it is ended, run it again: it goes on.",
    )
    parser.add_argument("source", type=Path, metavar="V1.lmdb", help="the v1 LMDB folder, or a folder that holds one")
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder of the archive: new, or begun by the same command"
    )
    parser.add_argument(
        "--metadata",
        type=Path,
        action="append",
        default=[],
        help="CSV of s2_name, s1_name, country (default: one found beside the LMDB); repeatable",
    )
    parser.add_argument(
        "--splits", type=Path, help="folder of train.csv, val.csv, test.csv (default: found beside the LMDB)"
    )
    _add_workers(parser)
    parser.set_defaults(run=_run_transcode)
    return parser


def add_verify_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `verify` to the sub-commands of a parser.

    Args:
        commands: What `add_subparsers` returned.

    Returns:
        The command's parser; it sets `run`.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="read every value of an LMDB and report what is broken",
        description="Read every value of an LMDB of tiles, v1 or v2, and check that it is a whole tile. Where `encode` or `transcode` "
        "wrote the archive, each value is compared with its SHA-256 of then. The exit status is 1 if anything is broken.",
    )
    parser.add_argument("path", type=Path, metavar="LMDB", help=_STORE_HELP)
    _add_workers(parser)
    parser.set_defaults(run=_run_verify)
    return parser


def add_info_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `info` to the sub-commands of a parser.

    Args:
        commands: What `add_subparsers` returned.

    Returns:
        The command's parser; it sets `run`.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="say what an LMDB of tiles holds, and draw 16 of them",
        description="Say what an LMDB of tiles holds (format, counts, bands, labels, splits), and draw 16 tiles spread over it.",
    )
    parser.add_argument("path", type=Path, metavar="LMDB", help=_STORE_HELP)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="PNG to write (default: NAME_tiles.png, here)")
    parser.add_argument("--no-picture", action="store_true", help="draw none")
    parser.set_defaults(run=_run_info)
    return parser


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes; 0 for none besides this one (default: one a processor)"
    )


def _run_encode(arguments: argparse.Namespace) -> int:
    from csmae_hf.data.encode import encode

    report = encode(
        arguments.source,
        arguments.out,
        bands=_parse_bands(arguments.bands),
        metadata=arguments.metadata,
        splits=arguments.splits,
        workers=arguments.workers,
    )
    return _say_what_was_written(report, "encoded")


def _run_transcode(arguments: argparse.Namespace) -> int:
    from csmae_hf.data.transcode import transcode

    report = transcode(
        arguments.source,
        arguments.out,
        metadata=arguments.metadata,
        splits=arguments.splits,
        workers=arguments.workers,
    )
    return _say_what_was_written(report, "transcoded")


def _run_verify(arguments: argparse.Namespace) -> int:
    from csmae_hf.data.verify import verify

    report = verify(arguments.path, workers=arguments.workers)
    for key, reason in report.broken.items():
        logger.error("%s: %s", key, reason)
    how = f"{report.digests} of them compared with their SHA-256" if report.digests else "no digests to compare with"
    logger.info("%s: %d values read, %s; %d broken.", report.store, report.values, how, len(report.broken))
    return 1 if report.broken else 0


def _run_info(arguments: argparse.Namespace) -> None:
    from csmae_hf.data.info import describe, draw_tiles

    for line in describe(arguments.path):
        logger.info("%s", line)
    if not arguments.no_picture:
        picture = arguments.picture or Path(f"{arguments.path.resolve().name}_tiles.png")
        logger.info("picture   %s", draw_tiles(arguments.path, picture))


def _parse_bands(texts: Sequence[str]) -> dict[str, list[str]]:
    pairs = [text.partition("=") for text in texts]
    for text, (sensor, _, names) in zip(texts, pairs, strict=True):
        if sensor not in ("s1", "s2") or not names:
            raise ValueError(f"--bands {text}: expected such as s1=VV,VH or s2=B02,B03,B04.")
    return {sensor: names.split(",") for sensor, _, names in pairs}


def _say_what_was_written(report: "WriteReport", done: str) -> int:
    """Say what a command has done, and give its exit status: 1 if something could not be stored."""
    from csmae_hf.data.store_writer import FAILURES_NAME

    for failure in report.failures[:_LISTED]:
        logger.error("%s: %s", failure.key, failure.reason)
    if len(report.failures) > _LISTED:
        logger.error("... and %d more.", len(report.failures) - _LISTED)
    logger.info("%s: %d images %s, %d were there already.", report.folder, report.written, done, report.present)
    if report.failures:
        logger.error(
            "%d could not be %s: see %s. Put them right and run the same command again.",
            len(report.failures),
            done,
            report.folder / FAILURES_NAME,
        )
    return 1 if report.failures else 0
