"""The `csmae` console command: its parser, and what becomes of its errors."""

import argparse
import importlib
import logging
import sys
import traceback
from collections.abc import Sequence

VERBS = (
    *("sample", "encode", "transcode", "verify", "info", "stats", "convert", "export_original"),
    *("archive", "search", "serve", "plot", "push", "card", "doctor"),
)
"""The files beside this one, in the order of `csmae --help`: the docstring is the help, `add_arguments` says what a verb takes, and
`run` does it."""

# Transformers imports torchao where it is installed, which warns of each GPU library that a CPU has not, at every command
_TALKATIVE = ("torchao", "torch.utils._pytree")


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
        verb.add_arguments(verb_parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. What it finds goes to standard output; progress, warnings and errors go to standard error.

    Args:
        argv: The command line without the program's name; default that of the process.

    Returns:
        The exit status: that of the command (0 if all went well), or 2 where the input was at fault.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.verb != "doctor":  # which is there for where this import fails
            importlib.import_module("csmae_hf.hub.upload").quiet_http()
        return arguments.run(arguments) or 0
    except Exception as error:
        if any(
            frame.f_code.co_name == "<module>" for frame, _ in traceback.walk_tb(error.__traceback__)
        ):  # in an import
            what = f"{type(error).__name__}: {error}"
            logging.error("csmae cannot start: %s\n`csmae doctor` says what is broken.", what)
        elif isinstance(error, ValueError | FileNotFoundError | FileExistsError | ImportError):
            logging.error("csmae: %s", error)
        else:
            raise
        return 2


if __name__ == "__main__":
    sys.exit(main())
