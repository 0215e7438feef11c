"""Write a model folder as a checkpoint of the original CSMAE code.

Write the weights of a model folder under the names of the original CSMAE code, frozen positions included, as a torch file
{'state_dict': ...}. The way back of `convert`, exact to the bit.
"""

import argparse
from pathlib import Path

from .options import add_overwrite, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument("folder", type=Path, help="from_pretrained folder of a model with the sensors s1 and s2")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, such as model.ckpt")
    add_overwrite(parser, "a file that is there")


def run(arguments: argparse.Namespace) -> None:
    """Export a model."""
    from csmae_hf.hub.convert import export_original
    from csmae_hf.sample.shipped import model_place

    place = model_place(str(arguments.folder))
    say(f"Exported {arguments.folder}: {export_original(place, arguments.out, overwrite=arguments.overwrite)}")
