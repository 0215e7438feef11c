"""Make a v2 archive (safetensors) of a v1 LMDB (pickles).

Write the tiles of a BigEarthNet-MM v1 LMDB as an LMDB of safetensors in the layout of v2, with its metadata beside it. Pixels
stay the same to the bit, and nothing is unpickled. S1 names come from a table; where none gives one, the key of the S1 image is
`S1-of-` and the S2 name with `-` for `_`. If it is ended, run it again: it goes on.
"""

import argparse
from pathlib import Path

from .options import OUT_HELP, STORE_HELP, add_workers, say_what_was_written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument("source", type=Path, metavar="V1.lmdb", help=f"of v1: {STORE_HELP}")
    parser.add_argument("out", type=Path, metavar="OUT", help=OUT_HELP)
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
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Transcode an LMDB."""
    from csmae_hf.data.transcode import transcode

    options = {name: getattr(arguments, name) for name in ("metadata", "splits", "workers")}
    return say_what_was_written(transcode(arguments.source, arguments.out, **options), "transcoded")
