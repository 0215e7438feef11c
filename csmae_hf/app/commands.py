"""The command `csmae serve`."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csmae_hf.app.explorer import Explorer

logger = logging.getLogger(__name__)


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
        from csmae_hf.app.sample import sample_explorer

        explorer = sample_explorer()
    else:
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


def open_explorer(
    archive: str,
    *,
    model: str | None = None,
    data: str | None = None,
    results: str | None = None,
    index: bool = True,
    notice: str = "",
) -> "Explorer":
    """Open an archive with all that the page shows of it.

    Args:
        archive: Folder, or `hub:NAME` of a dataset repository.
        model: Folder or Hub name of its model; default where the archive says.
        data: Its tiles; default where the archive says.
        results: Folder of an evaluation; default the archive's, its parent's `results`, or the model's, where one is there.
        index: Whether to use the archive's index; else search is exact.
        notice: A sentence that stands above everything.

    Returns:
        The explorer. Without tiles it has no pictures, which it says.

    Raises:
        FileNotFoundError: If there is no archive, or not what was named.
        ValueError: As of `Archive.load`, or if the results are none.
    """
    from csmae_hf.app.explorer import Explorer
    from csmae_hf.app.glance import read_evaluation
    from csmae_hf.data.load import ALL_TILES, load_archive
    from csmae_hf.retrieval.archive import Archive

    options: dict[str, Any] = {"index": index, "verify": False}
    if model:
        from csmae_hf.retrieval.run_tiles import load_model

        options["model"], options["processor"] = load_model(model)
    remote = archive.removeprefix("hub:")
    opened = Archive.from_hub(remote, **options) if remote != archive else Archive.load(remote, **options)
    place = data or opened.source.get("data")
    dataset = None
    if place and Path(place).exists():
        read = {} if data else {name: value for name, value in opened.source.items() if name != "data"}
        dataset = load_archive(place, ALL_TILES, **read)
    elif data:
        raise FileNotFoundError(f"No tiles at {data}: expected an LMDB or GeoTIFFs.")
    else:
        logger.warning(
            "The tiles are not at %s, so there are no pictures: pass --data.", place or "any place the archive knows"
        )
    if results is not None:
        evaluation = read_evaluation(results)
        if evaluation is None:
            raise FileNotFoundError(f"No results.json in {results}: expected the output folder of run_retrieval.py.")
    else:
        folders = [] if remote != archive else [Path(archive), Path(archive).parent / "results"]
        folders += [Path(name) for name in (model, opened.identity.model) if name and Path(name).is_dir()]
        evaluation = next((found for folder in folders if (found := _evaluation_in(folder)) is not None), None)
    return Explorer(opened, dataset, evaluation, notice)


def _evaluation_in(folder: Path) -> dict[str, Any] | None:
    from csmae_hf.app.glance import read_evaluation

    try:
        return read_evaluation(folder)
    except ValueError:
        return None  # a file of that name that is something else: nobody said it was an evaluation
