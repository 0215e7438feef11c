"""Say what an LMDB of tiles holds, and draw 16 of them.

Say what an LMDB of tiles holds (format, counts, bands, labels, splits), and draw 16 tiles spread over it.
"""

import argparse
from pathlib import Path

from .options import STORE_HELP, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument("path", type=Path, metavar="LMDB", help=STORE_HELP)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="PNG to write (default: NAME_tiles.png, here)")
    parser.add_argument("--no-picture", action="store_true", help="draw none")


def run(arguments: argparse.Namespace) -> None:
    """Describe an LMDB."""
    from csmae_hf.data.info import describe, draw_tiles

    for line in describe(arguments.path):
        say(line)
    if not arguments.no_picture:
        picture = arguments.picture or Path(f"{arguments.path.resolve().name}_tiles.png")
        say(f"picture   {draw_tiles(arguments.path, picture)}")
