"""The `csmae` console command: its parser and its verbs."""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from .ending import DEBUG_HELP, log_to_terminal, run_to_end

VERBS = (
    *("sample", "encode", "transcode", "verify", "info", "stats", "convert", "export_original"),
    *("archive", "search", "serve", "plot", "push", "card", "benchmark", "doctor"),
)
"""The files beside this one, in the order of `csmae --help`: the docstring is the help, `add_arguments` says what a verb takes, and
`run` does it."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs; each sets `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(prog="csmae", description="Cross-sensor masked autoencoders for remote sensing.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="verb")
    for name in VERBS:
        verb = importlib.import_module(f".{name}", __package__)
        summary, _, description = (verb.__doc__ or "").partition("\n\n")
        summary = summary[0].lower() + summary[1:].rstrip(".")
        verb_parser = commands.add_parser(name.replace("_", "-"), help=summary, description=description)
        verb_parser.set_defaults(run=verb.run)
        verb_parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)  # `run_to_end` reads it
        verb.add_arguments(verb_parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. What it finds goes to standard output; progress, warnings and errors go to standard error.

    Args:
        argv: The command line without the program's name; default that of the process.

    Returns:
        The exit status: that of the command (0 if all went well), or as of [`run_to_end`].
    """
    log_to_terminal(logging.INFO)
    return run_to_end("csmae", _run, argv)


def _run(words: list[str]) -> int | None:
    arguments = build_parser().parse_args(words)
    if arguments.verb != "doctor":  # which is there for where this import fails
        importlib.import_module("csmae_hf.hub.upload").quiet_http()
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
