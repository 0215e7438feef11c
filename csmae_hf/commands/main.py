"""The `csmae` console command."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from csmae_doctor import add_doctor_parser
from csmae_hf.commands.archive import add_archive_parser, add_search_parser
from csmae_hf.commands.serve import add_serve_parser
from csmae_hf.commands.stores import (
    add_encode_parser,
    add_info_parser,
    add_transcode_parser,
    add_verify_parser,
)
from csmae_hf.data.statistics import add_stats_parser
from csmae_hf.hub.convert import add_convert_parser, add_export_parser
from csmae_hf.hub.publish import add_push_parser
from csmae_hf.hub.upload import quiet_http
from csmae_hf.training.plots import add_plot_parser


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all sub-commands; each sets `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(prog="csmae", description="Cross-sensor masked autoencoders for remote sensing.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sample = commands.add_parser(
        "sample",
        help="generate a sample archive of synthetic tiles",
        description="Generate an archive of synthetic Sentinel-1 / Sentinel-2 tiles in the layout of BigEarthNet v2. It is for "
        "trying the software out: nothing measured on it says anything about real land.",
    )
    sample.add_argument("folder", type=Path, help="where to put it; reused when it holds the same sample already")
    sample.add_argument("--tiles", type=int, default=1000, help="number of tiles (default: %(default)s)")
    sample.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same archive (default: %(default)s)"
    )
    sample.set_defaults(run=run_sample)
    add_encode_parser(commands)
    add_transcode_parser(commands)
    add_verify_parser(commands)
    add_info_parser(commands)
    add_stats_parser(commands)
    add_convert_parser(commands)
    add_export_parser(commands)
    add_archive_parser(commands)
    add_search_parser(commands)
    add_serve_parser(commands)
    add_plot_parser(commands)
    add_push_parser(commands)
    add_doctor_parser(commands)
    return parser


def run_sample(arguments: argparse.Namespace) -> None:
    """Generate a sample archive."""
    from csmae_hf.sample.generate import generate_sample

    folder = generate_sample(arguments.folder, tiles=arguments.tiles, seed=arguments.seed)
    logging.info("Sample archive of %d synthetic tiles: %s", arguments.tiles, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The command line without the program's name; default that of the process.

    Returns:
        The exit status: that of the command (0 if all went well), or 2 where the input was at fault.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    quiet_http()
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
        logging.error("csmae: %s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
