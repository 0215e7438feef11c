"""The commands `csmae archive` and `csmae search`."""

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

    from csmae_hf.archive.archive import Archive
    from csmae_hf.archive.hits import Hits

logger = logging.getLogger(__name__)

_FILTER_HELP = "such as \"country = 'Austria' and season in ('Summer', 'Fall')\"; see docs/archive.md"


def add_archive_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `archive` to the sub-commands of a parser.

    Args:
        subparsers: What `add_subparsers` returned.

    Returns:
        The command's parser; its own sub-commands set `run`.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "archive",
        help="build, index, describe and share a searchable archive",
        description="Searchable archives of tiles.",
    )
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    build = verbs.add_parser(
        "build",
        help="embed tiles and keep them searchable",
        description="Embed tiles with a model, and write embeds, metadata and what they were made with to a folder.",
    )
    build.add_argument("model", help="folder or Hub name of the model")
    build.add_argument("data", help="BigEarthNet v1 or v2 as an LMDB, or a folder of GeoTIFFs")
    build.add_argument("out", type=Path, metavar="OUT", help="folder of the archive")
    build.add_argument("--overwrite", action="store_true", help="replace an archive that OUT holds already")
    build.add_argument(
        "--sensors", type=_names, metavar="S1,S2", help="sensors to embed (default: all that model and data have)"
    )
    build.add_argument("--alignment", type=Path, metavar="FILE", help="alignment of the sensors, as of Alignment.save")
    _add_tile_options(build)
    _add_index_options(build)
    build.set_defaults(run=run_build)
    add = verbs.add_parser(
        "add", help="add tiles to an archive", description="Embed more tiles with the archive's model and add them."
    )
    add.add_argument("archive", type=Path, metavar="ARCHIVE", help="folder of the archive")
    add.add_argument("data", help="BigEarthNet v1 or v2 as an LMDB, or a folder of GeoTIFFs")
    add.add_argument("--model", help="folder or Hub name of the model, where it is not where the archive says")
    _add_tile_options(add)
    add.set_defaults(run=run_add)
    index = verbs.add_parser(
        "index", help="give an archive another index", description="Build an index and measure its recall."
    )
    index.add_argument("archive", type=Path, metavar="ARCHIVE", help="folder of the archive")
    _add_index_options(index)
    index.set_defaults(run=run_index)
    info = verbs.add_parser(
        "info", help="say what an archive holds", description="Say what an archive holds, after checking it."
    )
    info.add_argument("archive", type=Path, metavar="ARCHIVE", help="folder of the archive")
    info.set_defaults(run=run_info)
    push = verbs.add_parser(
        "push", help="publish an archive on the Hub", description="Publish an archive as a dataset repository."
    )
    push.add_argument("archive", type=Path, metavar="ARCHIVE", help="folder of the archive")
    push.add_argument("repo", metavar="REPO", help="name of the dataset repository, such as someone/archive")
    push.add_argument("--public", action="store_true", help="make a new repository public; it is private otherwise")
    push.add_argument("--license", help="licence of the data, for the card")
    push.set_defaults(run=run_push)
    return parser


def _add_tile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="all", help="train, validation, test or all (default: %(default)s)")
    parser.add_argument("--metadata", help="metadata of the tiles, where it is not beside them")
    parser.add_argument("--splits", help="split lists, where they are not beside the tiles (BigEarthNet v1)")
    parser.add_argument(
        "--missing", choices=("error", "drop"), default="error", help="if over 1%% of listed tiles are missing"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the most tiles to embed")
    parser.add_argument("--batch-size", type=int, default=64, help="tiles of a forward pass (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=0, help="processes that read tiles (default: %(default)s)")
    parser.add_argument("--device", help="where to embed (default: a GPU if there is one)")


def _add_index_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--index", choices=("exact", "faiss", "milvus"), default="exact", help="how to search (default: %(default)s)"
    )
    parser.add_argument("--kind", choices=("ivf", "hnsw"), help="kind of a faiss index (default: ivf)")
    parser.add_argument("--uri", help="of Milvus: http://host:19530, or a path ending in .db for its embedded form")


def add_search_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `search` to the sub-commands of a parser.

    Args:
        subparsers: What `add_subparsers` returned.

    Returns:
        The command's parser; it sets `run`.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "search",
        help="find tiles of an archive by an image",
        description="Find the tiles of an archive that are most similar to images of any of its model's sensors.",
    )
    parser.add_argument("archive", metavar="ARCHIVE", help="folder of the archive, or hub:NAME of a dataset repository")
    parser.add_argument(
        "--query",
        nargs="+",
        default=[],
        metavar="QUERY",
        help="tile ids, GeoTIFFs, folders with a GeoTIFF a band, .npy or .npz",
    )
    parser.add_argument("--sensor", help="sensor of the queries (default: the archive's, where it has one)")
    parser.add_argument(
        "--in", dest="archive_sensor", metavar="SENSOR", help="sensor to search (default: that of the queries)"
    )
    parser.add_argument("--k", type=int, default=10, help="results of each query (default: %(default)s)")
    parser.add_argument(
        "--where", metavar="FILTER", help=f"which tiles may be found, {_FILTER_HELP}".replace("%", "%%")
    )
    parser.add_argument("--like", type=_names, default=[], metavar="ID,ID", help="tiles to move the queries towards")
    parser.add_argument(
        "--unlike", type=_names, default=[], metavar="ID,ID", help="tiles to move the queries away from"
    )
    parser.add_argument("--include-self", action="store_true", help="let a tile of the archive find itself")
    parser.add_argument("--exact", action="store_true", help="search exactly, whatever the archive's index")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="what to write to the terminal")
    parser.add_argument(
        "--out",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="also write .png (pictures), .json, .geojson, .csv, .parquet, or a folder (a datasets.Dataset); may be repeated",
    )
    parser.add_argument("--model", help="folder or Hub name of the model, where it is not where the archive says")
    parser.add_argument("--data", help="the tiles, for pictures, where they are not where the archive says")
    parser.set_defaults(run=run_search)
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; expected names with commas between them")
    return names


def run_build(arguments: argparse.Namespace) -> None:
    """Build an archive."""
    from csmae_hf.archive.archive import Archive
    from csmae_hf.archive.folder import refuse_loss
    from csmae_hf.embedding.alignment import Alignment
    from csmae_hf.evaluation.run import load_model

    refuse_loss(arguments.out, arguments.overwrite)
    model, processor = load_model(arguments.model)
    dataset, read, embedding = _tiles(arguments)
    archive = Archive.build(
        model,
        processor,
        dataset,
        sensor=arguments.sensors,
        alignment=Alignment.load(arguments.alignment) if arguments.alignment else None,
        source={"data": arguments.data, **{name: value for name, value in read.items() if value is not None}},
        **embedding,
    )
    _use_index(archive, arguments)
    archive.save(arguments.out, overwrite=arguments.overwrite)
    sys.stdout.write(describe(archive))
    logger.info("Archive: %s", arguments.out)


def run_add(arguments: argparse.Namespace) -> None:
    """Add tiles to an archive."""
    from csmae_hf.archive.archive import Archive

    archive = Archive.load(arguments.archive, **_model_options(arguments))
    dataset, _, embedding = _tiles(arguments)
    archive.add(dataset, **embedding)
    archive.save(arguments.archive)
    sys.stdout.write(describe(archive))


def _model_options(arguments: argparse.Namespace) -> dict[str, Any]:
    from csmae_hf.evaluation.run import load_model

    return dict(zip(("model", "processor"), load_model(arguments.model), strict=True)) if arguments.model else {}


def _tiles(arguments: argparse.Namespace) -> tuple["Dataset", dict[str, Any], dict[str, Any]]:
    """The tiles that a command names, how they were read, and how to embed them."""
    import torch

    from csmae_hf.cpu import keep_freed_memory
    from csmae_hf.data.load import load_data

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        keep_freed_memory()
    read = {name: getattr(arguments, name) for name in ("metadata", "splits", "missing")}
    dataset = load_data(arguments.data, arguments.split, limit=arguments.limit, **read)
    return (
        dataset,
        read,
        {**{name: getattr(arguments, name) for name in ("batch_size", "num_workers")}, "device": device},
    )


def _use_index(archive: "Archive", arguments: argparse.Namespace) -> None:
    options = {name: value for name in ("kind", "uri") if (value := getattr(arguments, name)) is not None}
    if arguments.index == "milvus" and "uri" not in options:
        raise ValueError("--index milvus needs --uri: http://host:19530 of a server, or a path ending in .db.")
    archive.use_index(arguments.index, **options)


def run_index(arguments: argparse.Namespace) -> None:
    """Give an archive another index."""
    from csmae_hf.archive.archive import Archive

    archive = Archive.load(arguments.archive, index=False)
    _use_index(archive, arguments)
    archive.save(arguments.archive)
    sys.stdout.write(describe(archive))


def run_info(arguments: argparse.Namespace) -> None:
    """Describe an archive."""
    from csmae_hf.archive.archive import Archive

    sys.stdout.write(describe(Archive.load(arguments.archive)))


def run_push(arguments: argparse.Namespace) -> None:
    """Publish an archive."""
    from csmae_hf.archive.archive import Archive
    from csmae_hf.hub.archives import push_archive

    archive = Archive.load(arguments.archive)
    url = push_archive(archive, arguments.repo, private=False if arguments.public else None, license=arguments.license)
    logger.info("Published: %s", url)


def describe(archive: "Archive") -> str:
    """Say in a few lines what an archive holds.

    Args:
        archive: The archive.

    Returns:
        Lines: model, tiles, columns for filters, indexes and their measured recall.
    """
    from csmae_hf.search.filter_language import columns_of

    alignment = archive.alignment.method if archive.alignment is not None else "none"
    columns = ", ".join(
        f"{name} ({'list of ' if many else ''}{kind})"
        for name, (kind, many) in columns_of(archive.tiles.schema).items()
    )
    lines = [
        f"tiles      {len(archive)}"
        + (f" ({len(archive.unreadable)} unreadable, left out)" if archive.unreadable else ""),
        f"sensors    {', '.join(archive.sensors)}; width {archive.width}, {archive.identity.metric}, alignment {alignment}",
        f"model      {archive.identity.described} (weights {archive.identity.weights[:12]})",
        f"columns    {columns}",
        *(
            f"index      {sensor}: {index.backend} {index.parameters or ''}".rstrip()
            for sensor, index in archive.indexes.items()
        ),
        *(
            f"recall@{item.k}  {item.query_sensor} -> {item.archive_sensor}, "
            f"{'no filter' if item.share == 1 else f'filter keeps {item.share:.1%}'}: {item.recall:.3f}"
            for item in archive.recall
        ),
    ]
    return "\n".join(lines) + "\n"


def run_search(arguments: argparse.Namespace) -> None:
    """Search an archive."""
    from csmae_hf.archive.archive import Archive
    from csmae_hf.archive.export import write_hits
    from csmae_hf.hub.archives import pull_archive

    options: dict[str, Any] = {"index": not arguments.exact, **_model_options(arguments)}
    remote = arguments.archive.removeprefix("hub:")
    archive = pull_archive(remote, **options) if remote != arguments.archive else Archive.load(remote, **options)
    if not arguments.query and not arguments.like:
        raise ValueError("There is nothing to search by: give --query, or --like with tiles of the archive.")
    hits = archive.search(
        arguments.query or None,
        sensor=arguments.sensor,
        archive_sensor=arguments.archive_sensor,
        k=arguments.k,
        filter=arguments.where,
        like=arguments.like,
        unlike=arguments.unlike,
        include_self=arguments.include_self,
    )
    sys.stdout.write((hits.to_json() if arguments.format == "json" else hits.to_text()) + "\n")
    for path in arguments.out:
        logger.info(
            "Written: %s", _draw(archive, hits, path, arguments) if _is_picture(path) else write_hits(hits, path)
        )


def _is_picture(path: Path) -> bool:
    from csmae_hf.archive.export import PICTURES

    return path.suffix.lower() in PICTURES


def _draw(archive: "Archive", hits: "Hits", path: Path, arguments: argparse.Namespace) -> Path:
    from csmae_hf.archive.export import draw_hits
    from csmae_hf.archive.queries import bands_of_file
    from csmae_hf.data.load import ALL_TILES, load_data

    data = arguments.data or archive.source.get("data")
    if not data or not Path(data).exists():
        raise FileNotFoundError(
            f"Pictures need the tiles themselves, and they are not at {data or 'any place the archive knows'}: pass --data."
        )
    options = {} if arguments.data else {name: value for name, value in archive.source.items() if name != "data"}
    known = set(archive.ids)
    images: dict[str, Any] = {}
    for query in arguments.query:
        if query not in known:
            images.update(bands_of_file(archive, query, hits.query_sensor))
    return draw_hits(hits, load_data(data, ALL_TILES, **options), path, images)
