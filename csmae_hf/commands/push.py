"""Publish a trained model on the Hugging Face Hub.

Publish a model folder: safetensors, processor, code, a card written from the run, picture and results, in one commit. A new
repository is private unless --public is given. The token is the one of `hf auth login` or HF_TOKEN. A push that was interrupted
is repeated by the same command.
"""

import argparse
from pathlib import Path

from .options import add_card_options, card_options, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument("folder", type=Path, help="folder of the model: of run_pretraining.py or csmae convert")
    parser.add_argument("repository", help="owner/name on the Hub")
    parser.add_argument("--encoder-only", action="store_true", help="without the decoders: what retrieval needs")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")
    parser.add_argument("--subfolder", help="folder of the repository for this model, where it holds several")
    add_card_options(parser)
    parser.add_argument(
        "--benchmark",
        metavar="ID",
        help="benchmark that the results are an entry of, by Hub name, for .eval_results (docs/benchmark.md)",
    )
    parser.add_argument(
        "--picture", metavar="PNG", help="example picture of the card (default: one beside the results, else drawn)"
    )
    parser.add_argument("--onnx", action="store_true", help="add ONNX files of the encoders, measured beside the model")
    parser.add_argument("--int8", action="store_true", help="the same, and each also in 8 bits")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="tiles to draw the picture of and to measure ONNX files on (default: generated scenes)",
    )
    parser.add_argument("--message", help="headline of the commit")
    parser.add_argument("--dry-run", metavar="OUT", type=Path, help="only lay out the files in this folder; no network")


def run(arguments: argparse.Namespace) -> None:
    """Publish a model, or lay out what would be published."""
    from csmae_hf.hub.publish_model import PublishOptions, push_folder, stage_model

    names = ("encoder_only", "subfolder", "picture", "data", "benchmark", "onnx", "int8")
    options = PublishOptions(**card_options(arguments), **{name: getattr(arguments, name) for name in names})
    if arguments.dry_run:
        root = stage_model(arguments.folder, arguments.dry_run, arguments.repository, options)
        say(f"What would be pushed to {arguments.repository}: {root}")
        return
    pushed = push_folder(
        arguments.folder,
        arguments.repository,
        options,
        private=False if arguments.public else None,
        revision=arguments.revision,
        commit_message=arguments.message,
    )
    say(f"Published: {pushed.url}, to pin as revision {pushed.commit}")
