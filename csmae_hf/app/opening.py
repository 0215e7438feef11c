"""Opens an archive with its tiles, its model and its evaluation, as far as they are there."""

import logging
from pathlib import Path
from typing import Any

from csmae_hf.app.explorer import Explorer
from csmae_hf.app.glance import read_evaluation
from csmae_hf.archive.archive import Archive
from csmae_hf.data.load import ALL_TILES, load_data
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.hub.archives import pull_archive

logger = logging.getLogger(__name__)


def open_explorer(
    archive: str,
    *,
    model: str | None = None,
    data: str | None = None,
    results: str | None = None,
    index: bool = True,
    notice: str = "",
) -> Explorer:
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
    options: dict[str, Any] = {"index": index, "verify": False}
    if model:
        options["model"], options["processor"] = load_encoder(model)
    remote = archive.removeprefix("hub:")
    opened = pull_archive(remote, **options) if remote != archive else Archive.load(remote, **options)
    place = data or opened.source.get("data")
    dataset = None
    if place and Path(place).exists():
        read = {} if data else {name: value for name, value in opened.source.items() if name != "data"}
        dataset = load_data(place, ALL_TILES, **read)
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
    try:
        return read_evaluation(folder)
    except ValueError:
        return None  # a file of that name that is something else: nobody said it was an evaluation
