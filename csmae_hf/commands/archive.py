"""Build, index, describe and share a searchable archive.

Searchable archives of tiles.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import (
    IntermixedParser,
    add_encoder,
    add_image_options,
    add_model,
    add_overwrite,
    add_suspect,
    add_trust,
    image_options,
    model_options,
    named_encoder,
    say,
    split_names,
)

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

    from csmae_hf.archive.archive import Archive

_EXPORT = "Write an archive as GeoParquet, a file for each sensor, and as a STAC catalogue. `csmae archive import` reads it back."
_IMPORT = (
    "Make an archive of Parquet files of embeds: of an export, or as Clay, Major TOM and Earth Index publish them. One of a foreign "
    "encoder is searched by ids and vectors."
)
_DATA_HELP = "BigEarthNet v1 or v2 as an LMDB, or a folder of GeoTIFFs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=IntermixedParser)
    description = "Embed tiles with a model, and write embeds, metadata and what they were made with to a folder."
    build = verbs.add_parser("build", help="embed tiles and keep them searchable", description=description)
    build.add_argument("model", nargs="?", help="folder or Hub name of the model; left out with --encoder")
    build.add_argument("data", help=_DATA_HELP)
    build.add_argument("out", type=Path, metavar="OUT", help="folder of the archive")
    build.add_argument("--overwrite", action="store_true", help="replace an archive that OUT holds already")
    build.add_argument("--alignment", type=Path, metavar="FILE", help="alignment of the sensors, as of Alignment.save")
    shared = "keep embeds there as they are made: a build that was ended goes on, and processes of `accelerate launch` share the work"
    build.add_argument("--cache", type=Path, metavar="DIR", help=shared)
    add_encoder(build)
    add_trust(build)
    _add_tile_options(build)
    _add_index_options(build)
    build.set_defaults(act=run_build)

    def add_verb(name: str, act: Callable[[argparse.Namespace], None], summary: str, description: str) -> Any:
        verb = verbs.add_parser(name, help=summary, description=description)
        verb.add_argument("archive", type=Path, metavar="ARCHIVE", help="folder of the archive")
        verb.set_defaults(act=act)
        return verb

    embed = "Embed more tiles with the archive's model and add them."
    add = add_verb("add", run_add, "add tiles to an archive", embed)
    add.add_argument("data", help=_DATA_HELP)
    add_model(add)
    _add_tile_options(add)
    index = add_verb("index", run_index, "give an archive another index", "Build an index and measure its recall.")
    _add_index_options(index)
    codes = (
        "Measure what codes of a half, a quarter and a thirty-second of the embeds' size cost and keep in every direction between "
        "sensors, and search by the smallest that lose at most 0.5 % of the F1 in each."
    )
    compress = add_verb("compress", run_compress, "search an archive by compact codes", codes)
    compress.add_argument("--measure", action="store_true", help="measure only, and leave the index as it is")
    add_verb(
        "compact", run_compact, "tidy an archive up", "Write all tiles as one segment, without those that were removed."
    )
    add_verb("info", run_info, "say what an archive holds", "Say what an archive holds, after checking it.")
    _add_export(add_verb("export", run_export, "write an archive in the field's formats", _EXPORT))
    _add_import(verbs.add_parser("import", help="make an archive of files of embeds", description=_IMPORT))
    publish = "Publish an archive as a dataset repository."
    push = add_verb("push", run_push, "publish an archive on the Hub", publish)
    push.add_argument("repo", metavar="REPO", help="name of the dataset repository, such as someone/archive")
    push.add_argument("--public", action="store_true", help="make a new repository public; it is private otherwise")
    push.add_argument("--license", help="licence of the data, for the card")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument(
        "--geoparquet", action="store_true", help="write GeoParquet, which is what it does by itself too"
    )
    parser.add_argument("--stac", action="store_true", help="write a STAC catalogue beside it")
    parser.add_argument("--sensor", type=split_names, metavar="S1,S2", help="whose embeds to write (default: all)")
    parser.add_argument(
        "--geometry",
        choices=("polygon", "point"),
        default="polygon",
        help="outlines of the tiles, or their middles, which all loaders of TorchGeo take (default: %(default)s)",
    )
    parser.add_argument("--source-data", metavar="URL", help="where the images are described, for the catalogue")
    parser.add_argument("--license", help="licence of the embeds, for the catalogue, as SPDX has it")
    add_overwrite(parser, "an export that OUT holds already")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="Parquet files, or folders of them; of a foreign encoder of one sensor"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the archive")
    parser.add_argument("--sensor", help="whose embeds they are, where the files do not say it")
    parser.add_argument("--name", help="what the foreign encoder is called (default: as the first file)")
    parser.add_argument("--id-column", metavar="NAME", help="column of ids, where it has no usual name")
    parser.add_argument("--vector-column", metavar="NAME", help="column of vectors, where it has no usual name")
    parser.add_argument("--overwrite", action="store_true", help="replace an archive that OUT holds already")
    parser.set_defaults(act=run_import)


def run(arguments: argparse.Namespace) -> None:
    """Do what was asked of an archive."""
    arguments.act(arguments)


def _add_tile_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="all", help="train, validation, test or all (default: %(default)s)")
    parser.add_argument("--metadata", help="metadata of the tiles, where it is not beside them")
    parser.add_argument("--splits", help="split lists, where they are not beside the tiles (BigEarthNet v1)")
    parser.add_argument(
        "--missing", choices=("error", "drop"), default="error", help="if over 1%% of listed tiles are missing"
    )
    add_image_options(parser)
    add_suspect(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="the most tiles to embed, evenly spread over the split")
    parser.add_argument("--batch-size", type=int, default=64, help="tiles of a forward pass (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=0, help="processes that read tiles (default: %(default)s)")
    parser.add_argument("--device", help="where to embed (default: a GPU if there is one)")


def _add_index_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--index",
        choices=("exact", "codes", "faiss", "milvus"),
        default="exact",
        help="how to search (default: %(default)s)",
    )
    parser.add_argument(
        "--kind",
        choices=("float16", "int8", "bits", "ivf", "hnsw"),
        help="kind of codes (default: int8) or of a faiss index (default: ivf)",
    )
    parser.add_argument("--uri", help="of Milvus: http://host:19530, or a path ending in .db for its embedded form")


def run_build(arguments: argparse.Namespace) -> None:
    """Build an archive."""
    from csmae_hf.archive.archive import Archive
    from csmae_hf.archive.folder import refuse_loss
    from csmae_hf.embedding.alignment import Alignment
    from csmae_hf.embedding.encoder import load_encoder

    if bool(arguments.model) == bool(arguments.encoder):
        raise ValueError(
            "csmae archive build takes MODEL DATA OUT, or DATA OUT --encoder MODULE:FACTORY: one of MODEL and --encoder."
        )
    first = int(os.environ.get("RANK", "0")) == 0  # of the processes that accelerate launches, one writes
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and arguments.cache is None:
        raise ValueError(
            "Several processes share the work by a folder that all of them see: name one with --cache DIR."
        )
    if first:
        refuse_loss(arguments.out, arguments.overwrite)
    if arguments.encoder:
        model, processor = named_encoder(arguments.encoder)
    else:
        model, processor = load_encoder(arguments.model, trust_remote_code=arguments.trust_remote_code)
    dataset, read, embedding = _tiles(arguments)
    archive = Archive.build(
        model,
        processor,
        dataset,
        sensor=list(read["sensors"]) if "sensors" in read else None,
        alignment=Alignment.load(arguments.alignment) if arguments.alignment else None,
        source=_source(arguments, read),
        cache=arguments.cache,
        **embedding,
    )
    if not first:
        return
    _use_index(archive, arguments)
    archive.save(arguments.out, overwrite=arguments.overwrite)
    say(f"{describe(archive)}\nArchive: {arguments.out}")


def run_add(arguments: argparse.Namespace) -> None:
    """Add tiles to an archive."""
    from csmae_hf.archive.archive import Archive

    archive = Archive.load(arguments.archive, **model_options(arguments))
    dataset, read, embedding = _tiles(arguments)
    archive.add(dataset, source=_source(arguments, read), **embedding)
    archive.save(arguments.archive)
    say(describe(archive))


def _tiles(arguments: argparse.Namespace) -> tuple["Dataset", dict[str, Any], dict[str, Any]]:
    """The tiles that a command names, how they were read, and how to embed them."""
    import torch

    from csmae_hf.cpu import keep_freed_memory
    from csmae_hf.data.load import load_data

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        keep_freed_memory()
    read = {name: getattr(arguments, name) for name in ("metadata", "splits", "missing")} | image_options(arguments)
    embedding = {
        "batch_size": arguments.batch_size,
        "num_workers": arguments.num_workers,
        "device": device,
        "suspect": arguments.suspect,
    }
    return load_data(arguments.data, arguments.split, limit=arguments.limit, **read), read, embedding


def _source(arguments: argparse.Namespace, read: dict[str, Any]) -> dict[str, Any]:
    """What an archive keeps of where its tiles came from: all that it takes to load just these again."""
    which = {"data": arguments.data, "split": arguments.split, "limit": arguments.limit}
    return {name: value for name, value in (which | read).items() if value is not None}


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
    say(describe(archive))


def run_compress(arguments: argparse.Namespace) -> None:
    """Search an archive by codes, or measure how well it would go."""
    from csmae_hf.archive.archive import Archive

    archive = Archive.load(arguments.archive, index=False)
    archive.compress(measure=arguments.measure)
    archive.save(arguments.archive)
    say(describe(archive))


def run_compact(arguments: argparse.Namespace) -> None:
    """Write an archive as one segment."""
    from csmae_hf.archive.archive import Archive

    archive = Archive.load(arguments.archive)
    archive.compact()
    archive.save(arguments.archive)
    say(describe(archive))


def run_info(arguments: argparse.Namespace) -> None:
    """Describe an archive."""
    from csmae_hf.archive.archive import Archive

    say(describe(Archive.load(arguments.archive)))


def run_export(arguments: argparse.Namespace) -> None:
    """Write an archive in the field's formats."""
    from csmae_hf.archive.archive import Archive
    from csmae_hf.archive.geoparquet import OWN_FILES, export_geoparquet
    from csmae_hf.files import refuse_existing

    refuse_existing(arguments.out, overwrite=arguments.overwrite, own=OWN_FILES)
    options = {name: getattr(arguments, name) for name in ("geometry", "stac", "source_data", "license", "overwrite")}
    archive = Archive.load(arguments.archive, index=False)
    say(f"Exported: {export_geoparquet(archive, arguments.out, sensors=arguments.sensor, **options)}")


def run_import(arguments: argparse.Namespace) -> None:
    """Make an archive of files of embeds."""
    from csmae_hf.archive.folder import refuse_loss
    from csmae_hf.archive.imported import import_archive

    refuse_loss(arguments.out, arguments.overwrite)
    options = {name: getattr(arguments, name) for name in ("sensor", "name", "id_column", "vector_column")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    archive = import_archive(arguments.files, scratch=arguments.out.parent, **options)
    archive.save(arguments.out, overwrite=arguments.overwrite)
    say(f"{describe(archive)}\nArchive: {arguments.out}")


def run_push(arguments: argparse.Namespace) -> None:
    """Publish an archive."""
    from csmae_hf.archive.archive import Archive
    from csmae_hf.hub.archives import push_archive

    archive, private = Archive.load(arguments.archive), False if arguments.public else None
    say(f"Published: {push_archive(archive, arguments.repo, private=private, license=arguments.license)}")


def describe(archive: "Archive") -> str:
    """Say in a few lines what an archive holds: model, tiles, columns for filters, indexes and their measured recall."""
    from csmae_hf.search.compression import describe_codes
    from csmae_hf.search.filter_language import columns_of

    unreadable = f" ({len(archive.unreadable)} unreadable, left out)" if archive.unreadable else ""
    told = archive.provenance
    gone = sum(len(segment.removed) for segment in archive.segments)
    removed = f"; {gone} removed tiles in it, which `csmae archive compact` frees" if gone else ""
    columns = ", ".join(
        f"{name} ({'list of ' if many else ''}{kind})"
        for name, (kind, many) in columns_of(archive.tiles.schema).items()
    )
    lines = [
        f"tiles      {len(archive)}{unreadable}",
        f"sensors    {', '.join(archive.sensors)}; width {archive.width}, {archive.identity.metric}, alignment {told.alignment}",
        f"model      {archive.identity.described} (weights {archive.identity.weights[:12]}"
        f"{', trained on generated scenes' if archive.identity.trained_on_generated else ''})",
        *([f"data       {told.data}{', generated scenes' if told.generated else ''}"] if told.data else []),
        f"segments   {len(archive.segments)}{removed}",
        f"columns    {columns}",
    ]
    for sensor, index in archive.indexes.items():
        lines.append(f"index      {sensor}: {index.backend} {index.parameters or ''}".rstrip())
    for item in archive.recall:
        kept = "no filter" if item.share == 1 else f"filter keeps {item.share:.1%}"
        lines.append(f"recall@{item.k}  {item.query_sensor} -> {item.archive_sensor}, {kept}: {item.recall:.3f}")
    return "\n".join([*lines, *describe_codes(archive.compression)])
