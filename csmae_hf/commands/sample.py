"""Generate a sample archive of synthetic tiles.

Generate an archive of synthetic Sentinel-1 / Sentinel-2 tiles in the layout of BigEarthNet v2. It is for trying the software out:
nothing measured on it says anything about real land.
"""

import argparse
from pathlib import Path

from .options import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument("folder", type=Path, help="where to put it; reused when it holds the same sample already")
    parser.add_argument("--tiles", type=int, default=1000, help="number of tiles (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same archive (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Generate a sample archive."""
    from csmae_hf.sample.generate import generate_sample

    folder = generate_sample(arguments.folder, tiles=arguments.tiles, seed=arguments.seed)
    say(f"Sample archive of {arguments.tiles} synthetic tiles: {folder}")
