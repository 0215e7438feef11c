"""Make an archive (LMDB of safetensors) of GeoTIFF tiles.

Encode GeoTIFF tiles (BigEarthNet v1 or v2 as distributed, other folders, or a CSV or parquet table of paths) as an LMDB of
safetensors in the layout of rico-hdl, with its metadata beside it. Bands must have the sizes and the types of BigEarthNet's. If
it is ended, run it again: it goes on. Files that cannot be read are listed at the end, and the exit status is then 1.
"""

import argparse
from pathlib import Path

from .options import OUT_HELP, add_image_options, add_suspect, add_workers, image_options, say_what_was_written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="folder of GeoTIFFs, or .csv or .parquet table of paths"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help=OUT_HELP)
    add_image_options(parser)
    add_suspect(parser)
    parser.add_argument(
        "--metadata", type=Path, help="metadata.parquet of v2, or CSV of s2_name, s1_name, country of v1"
    )
    parser.add_argument("--splits", type=Path, help="folder of train.csv, val.csv, test.csv: one S2 name a line")
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Encode tiles."""
    from csmae_hf.data.encode import encode

    options = {name: getattr(arguments, name) for name in ("metadata", "splits", "workers", "suspect")}
    written = encode(arguments.source, arguments.out, **image_options(arguments), **options)
    return say_what_was_written(written, "encoded")
