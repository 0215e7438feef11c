"""Opens the explorer: on an archive with its tiles, model and evaluation, or, where nothing is named, on a sample that it makes."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from csmae_hf.app.explorer import Explorer
from csmae_hf.app.glance import read_evaluation
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.export import load_source
from csmae_hf.data.load import ALL_TILES, holds_store, load_data
from csmae_hf.data.suspects import Suspect
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.embedding.foreign import encoder_pair, load_factory
from csmae_hf.hub.archives import pull_archive
from csmae_hf.sample.generate import is_generated
from csmae_hf.sample.shipped import TINY_NAME

logger = logging.getLogger(__name__)

SAMPLE_FOLDER = Path("sample_explorer")
"""Where the sample, its model, its evaluation and its archive are kept, in the working folder; made once."""

SAMPLE_TILES = 300
TRAINED_ON_GENERATED_NOTICE = "The model was trained on generated scenes: it is of no use on real land."
GENERATED_NOTICE = "These tiles are generated: this shows how the page works, not how well CSMAE retrieves."


def open_explorer(
    archive: str,
    *,
    model: str | None = None,
    encoder: str | None = None,
    data: str | None = None,
    results: str | None = None,
    index: bool = True,
    notice: str = "",
    said: Mapping[str, Any] | None = None,
    suspect: Suspect = "refuse",
    trust_remote_code: bool = False,
) -> Explorer:
    """Open an archive with all that the page shows of it; without tiles there are no pictures, which it says.

    Args:
        archive: Folder, or `hub:NAME` of a dataset repository.
        model: Folder or Hub name of its model; default where the archive says.
        encoder: `package.module:factory` of its encoder, where it was made with one that is no model of this package.
        data: Its tiles; default where the archive says.
        results: Folder of an evaluation; default the archive's, its parent's `results` or the model's folder in that, or the model's,
            where one is there.
        index: Whether to use the archive's index; else search is exact.
        notice: A sentence that stands above everything; default that the tiles are generated, or the model was trained on such,
            where that is so.
        said: What is said of image files, uploads and those at `data`: `bands`, `units`, `level`, `sensors`, `pair` of [`load_data`].
        suspect: What is done with uploads that show a sign which is a guess; one alone is not left out, but refused.
        trust_remote_code: Whether to run the code that a model of another kind brings along.

    Raises:
        FileNotFoundError: If there is no archive, or not what was named.
        ValueError: As of `Archive.load`, or if the results are none.
    """
    options: dict[str, Any] = {"index": index, "verify": False, "trust_remote_code": trust_remote_code}
    if model and encoder:
        raise ValueError("--model and --encoder were given: expected one of them.")
    if encoder:
        options["model"], options["processor"] = encoder_pair(load_factory(encoder), encoder)
    if model:
        options["model"], options["processor"] = load_encoder(model, trust_remote_code=trust_remote_code)
    remote = archive.removeprefix("hub:")
    opened = pull_archive(remote, **options) if remote != archive else Archive.load(remote, **options)
    sources: list[dict[str, Any]] = opened.sources
    if data:
        known = ("units",) if holds_store(Path(data)) else ("bands", "units", "level", "sensors", "pair")
        sources = [{"data": data, **{name: value for name, value in (said or {}).items() if name in known}}]
    there = [source for source in sources if Path(source["data"]).exists()]
    if data and not there:
        raise FileNotFoundError(f"No tiles at {data}: expected an LMDB or GeoTIFFs.")
    for source in sources or [{"data": "any place the archive knows"}]:
        if source not in there:
            logger.warning("The tiles are not at %s, so there are no pictures: pass --data.", source["data"])
    datasets = [load_source(source) for source in there]
    if results is not None:
        evaluation = read_evaluation(results)
        if evaluation is None:
            raise FileNotFoundError(f"No results.json in {results}: expected the output folder of run_retrieval.py.")
    else:
        evaluation = None
        beside = Path(archive).parent / "results"
        folders = [] if remote != archive else [Path(archive), beside]
        names = [name for name in (model, opened.identity.model) if name]
        # several models that were evaluated together have a folder each
        folders += [beside / Path(name).name for name in names if folders]
        folders += [Path(name) for name in names if Path(name).is_dir()]
        for folder in folders:
            # a file of that name that is something else: nobody said it was an evaluation
            with suppress(ValueError):
                evaluation = evaluation or read_evaluation(folder)
    generated = opened.generated or any(is_generated(source["data"]) for source in there)
    if not notice and generated:
        notice = GENERATED_NOTICE
    elif not notice and opened.identity.trained_on_generated:
        notice = TRAINED_ON_GENERATED_NOTICE
    return Explorer(opened, datasets or None, evaluation, notice, said, suspect)


def sample_explorer(folder: Path = SAMPLE_FOLDER, tiles: int = SAMPLE_TILES) -> Explorer:
    """Make a sample of so many tiles, embedded by the model that comes with the package, with everything that the page shows.

    Where it was made before, it is opened.
    """
    archive, data, results = (str(folder / name) for name in ("archive", "tiles", "results"))
    if not Path(archive, "archive.json").is_file():
        _make_sample(archive, data, results, tiles)
    return open_explorer(archive, data=data, results=results)


def _make_sample(archive: str, data: str, results: str, tiles: int) -> None:
    from csmae_hf.evaluation.retrieval_options import RetrievalOptions
    from csmae_hf.evaluation.run import retrieve
    from csmae_hf.sample.generate import generate_sample

    logger.warning(
        "No archive was named: generating %d tiles in %s and searching them with %s; this is done once.",
        tiles,
        Path(archive).parent,
        TINY_NAME,
    )
    generate_sample(data, tiles=tiles, seed=0)
    encoder = load_encoder(TINY_NAME)
    built = Archive.build(*encoder, load_data(data, ALL_TILES), model_name=TINY_NAME, source={"data": data})
    retrieve([TINY_NAME], RetrievalOptions(data=data, output_dir=results, pictures=0, resamples=0))
    built.save(archive)  # last: where it is, all is
