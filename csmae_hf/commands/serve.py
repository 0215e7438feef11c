"""The command `csmae serve`."""

import argparse
from typing import Any


def add_serve_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `serve` to the sub-commands of a parser.

    Args:
        subparsers: What `add_subparsers` returned.

    Returns:
        The command's parser; it sets `run`.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="open a page on which an archive is searched and looked at",
        description="Serve a page on which an archive is searched by images of any of its model's sensors. It is reachable from this "
        "machine alone unless --host says otherwise, and sends nothing anywhere.",
    )
    parser.add_argument(
        "archive",
        nargs="?",
        metavar="ARCHIVE",
        help="folder of the archive, or hub:NAME of a dataset repository (default: a generated sample and a small model of it)",
    )
    parser.add_argument("--model", help="folder or Hub name of the model, where it is not where the archive says")
    parser.add_argument("--data", help="the tiles, for pictures, where they are not where the archive says")
    parser.add_argument(
        "--results", help="folder of an evaluation by run_retrieval.py (default: beside the archive or its model)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for everybody (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("--exact", action="store_true", help="search exactly, whatever the archive's index")
    parser.set_defaults(run=run_serve)
    return parser


def run_serve(arguments: argparse.Namespace) -> None:
    """Serve a page."""
    try:
        from csmae_hf.app.serve import start
    except ImportError as error:
        raise ImportError(f'The explorer needs gradio: pip install "csmae-hf[app]" ({error})') from error

    if arguments.archive is None:
        from csmae_hf.app.opening import sample_explorer

        explorer = sample_explorer()
    else:
        from csmae_hf.app.opening import open_explorer

        explorer = open_explorer(
            arguments.archive,
            model=arguments.model,
            data=arguments.data,
            results=arguments.results,
            index=not arguments.exact,
        )
    try:
        start(explorer, host=arguments.host, port=arguments.port)
    except OSError as error:
        raise ValueError(f"The page cannot be served at {arguments.host}: {error}") from error
