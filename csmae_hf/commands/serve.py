"""Open a page on which an archive is searched and looked at.

Serve a page on which an archive is searched by images of any of its model's sensors. It is reachable from this machine alone
unless --host says otherwise, and sends nothing anywhere.
"""

import argparse
from typing import Any

from .options import add_archive, add_image_options, add_suspect, image_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    add_archive(parser, nargs="?", help=" (default: a generated sample)")
    parser.add_argument(
        "--results", help="folder of an evaluation by run_retrieval.py (default: beside the archive or its model)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for everybody (default: %(default)s)"
    )
    add_image_options(parser)
    add_suspect(parser)
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")


def run(arguments: argparse.Namespace) -> None:
    """Serve a page."""
    try:
        from csmae_hf.app.serve import start
    except ImportError as error:
        raise ImportError(str(error)) from error  # from here, so that it counts as an answer and not as a broken csmae

    if arguments.archive is None:
        from csmae_hf.app.opening import sample_explorer

        explorer = sample_explorer()
    else:
        from csmae_hf.app.opening import open_explorer

        options: dict[str, Any] = {
            name: getattr(arguments, name) for name in ("model", "encoder", "data", "results", "trust_remote_code")
        }
        options |= {"said": image_options(arguments), "suspect": arguments.suspect}
        explorer = open_explorer(arguments.archive, index=not arguments.exact, **options)
    try:
        start(explorer, host=arguments.host, port=arguments.port)
    except OSError as error:
        raise ValueError(
            f"The page cannot be served at {arguments.host}: no port from 7860 is free, or the address is none of this machine. "
            "Choose others by --port and --host."
        ) from error
