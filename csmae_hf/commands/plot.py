"""Draw the curves of a pre-training run.

Draw losses, learning rate, retrieval and diagnostics over the steps of a run, from its trainer_state.json; of a run that still
trains, from its newest checkpoint's.
"""

import argparse
from pathlib import Path

from .options import add_overwrite, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    folder = "the run's output_dir, one of its checkpoints, or a trainer_state.json"
    parser.add_argument("folder", type=Path, metavar="RUN", help=folder)
    parser.add_argument("--output", type=Path, help="folder of the pictures (default: RUN/plots)")
    add_overwrite(parser, "pictures that csmae has not drawn")
    parser.add_argument(
        "--format", choices=("png", "svg", "pdf"), default="png", help="of the pictures (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Draw the curves."""
    from csmae_hf.training.plots import plot_run

    for path in plot_run(
        arguments.folder, arguments.output, file_format=arguments.format, overwrite=arguments.overwrite
    ):
        say(path)
