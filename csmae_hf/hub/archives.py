"""An archive as a dataset repository of the Hugging Face Hub: vectors, table, JSON and a card, in one commit."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from csmae_hf.archive.archive import Archive
from csmae_hf.archive.folder import MANIFEST, OWN_FILES, read_manifest, save_archive
from csmae_hf.archive.geoparquet import export_geoparquet
from csmae_hf.archive.held import Held
from csmae_hf.archive.tiles import table_without_paths
from csmae_hf.embedding.foreign import PREFIX
from csmae_hf.embedding.without_paths import public_name, without_paths
from csmae_hf.hub.card import render_card
from csmae_hf.hub.upload import ensure_repository, upload_folder

logger = logging.getLogger(__name__)

CARD = "README.md"

GEOPARQUET = "geoparquet"
"""Folder of the repository in which the embeds lie once more, as Parquet: for the viewer, `load_dataset` and SQL."""


def push_archive(
    archive: Held,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload archive",
    license: str | None = None,
) -> str:
    """Publish an archive: the files of `Archive.save`, GeoParquet and a card, in one commit, so that no reader sees a half of it.

    An index of Milvus stays where it is; whoever downloads the archive searches exactly, or builds an index of their own.

    Args:
        archive: The archive. Its model should have a name that others can load.
        repo_id: Name of the dataset repository, made where there is none.
        private: Whether a new repository is private; None is private. One that exists stays what it is.
        token: Of the Hub; default the one logged in with.
        commit_message: Of the commit.
        license: Licence of the data, for the card.

    Returns:
        URL of the commit.

    Raises:
        PublishError: If the Hub refuses or does not answer.
    """
    if archive.identity.model.startswith(PREFIX):
        logger.warning(
            "The archive was made with the encoder %r: who downloads it needs the code of it to search by images.",
            archive.identity.model.removeprefix(PREFIX),
        )
    elif Path(archive.identity.model).exists() or not archive.identity.model:
        logger.warning(
            "The archive's model %r is no name on the Hub: who downloads the archive must have that folder, or pass the model. "
            "Publish the model, and build the archive with model_name= its name.",
            archive.identity.model,
        )
    repo = ensure_repository(repo_id, repo_type="dataset", private=private, token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = stage_archive(archive, Path(scratch, "archive"), repo, license)
        pushed = upload_folder(
            folder,
            repo,
            repo_type="dataset",
            private=private,
            token=token,
            commit_message=commit_message,
            managed=[*OWN_FILES, f"{GEOPARQUET}/*"],
        )
    return f"{pushed.url}/commit/{pushed.commit}"


def stage_archive(archive: Held, folder: Path, repo_id: str, license: str | None = None) -> Path:
    """Lay out the files of a repository in a new folder, without any network; give the folder. As of [`push_archive`]."""
    published = for_publication(archive)
    save_archive(published, folder)
    if len(published):
        try:
            export_geoparquet(published, folder / GEOPARQUET)
        except ImportError as error:
            logger.warning("The archive is published without the embeds as GeoParquet: %s", error)
    embeds = [path.stem for path in sorted(folder.glob(f"{GEOPARQUET}/*.parquet"))]
    card = make_card(archive, repo_id, read_manifest(folder), license, embeds)
    (folder / CARD).write_text(card, encoding="utf-8")
    return folder


def for_publication(archive: Held) -> Held:
    """Make a copy to be given away: searched exactly where the index is on a server, with no folder of this machine but its name.

    Raises:
        ValueError: If ids of tiles are paths: they cannot be changed, for a search gives them back.
    """
    copy = Held(
        table_without_paths(archive.tiles),
        archive.vectors,
        replace(archive.identity, model=public_name(archive.identity.model)),
        alignment=archive.alignment,
        unreadable=without_paths(archive.unreadable),
        source=_without_places(archive.source),
        generated=archive.generated,
        data_name=archive.provenance.data,
    )
    served = {sensor for sensor, index in archive.indexes.items() if index.backend == "milvus"} | {
        *archive.stored.indexes
    }
    copy.indexes.update({sensor: index for sensor, index in archive.indexes.items() if sensor not in served})
    copy.recall = [item for item in archive.recall if item.archive_sensor not in served]
    copy.compression = archive.compression
    return copy


def _without_places(source: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a source, without where its files lie; a data set of the Hub keeps its name."""
    held = {
        name: [_without_places(added) for added in value] if name == "added" else without_paths(value)
        for name, value in source.items()
        if name not in ("data", "metadata", "splits") or not isinstance(value, str) or public_name(value) == value
    }
    return {name: value for name, value in held.items() if name == "added" or value == source[name]}


def pull_archive(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    **options: Any,
) -> Archive:
    """Open a published archive.

    Args:
        repo_id: Name of the dataset repository.
        revision: Branch, tag or commit.
        token: Of the Hub, for a private repository; default the one of `hf auth login` or HF_TOKEN, False for none.
        cache_dir: Where downloads are kept; default the Hub's cache (HF_HUB_CACHE, HF_HOME).
        local_files_only: Take what is in the cache, and ask no server.
        force_download: Download anew what is in the cache.
        **options: As of [`Archive.load`].

    Returns:
        The archive.

    Raises:
        FileNotFoundError: If there is no such repository, or it is no archive.
    """
    try:
        folder = Path(
            snapshot_download(
                repo_id,
                repo_type="dataset",
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
                ignore_patterns=f"{GEOPARQUET}/*",
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(f"No dataset repository {repo_id} to download: {str(error).splitlines()[0]}") from error
    if not (folder / MANIFEST).exists():
        raise FileNotFoundError(f"The repository {repo_id} is no archive: it has no {MANIFEST}.")
    return Archive.load(folder, **options)


def make_card(
    archive: Held, repo_id: str, manifest: dict[str, Any], license: str | None = None, embeds: Sequence[str] = ()
) -> str:
    """Write the dataset card of an archive that is published as `repo_id` with this manifest and the `embeds` of these sensors."""
    tiles = {"config_name": "tiles", "data_files": [segment["tiles"] for segment in manifest["segments"]]}
    others = [{"config_name": f"embeds-{name}", "data_files": f"{GEOPARQUET}/{name}.parquet"} for name in embeds]
    metadata = DatasetCardData(
        license=license,
        task_categories=["image-feature-extraction"],
        tags=["csmae", "image-retrieval", "remote-sensing", "embeddings"],
        configs=[tiles | ({"default": True} if others else {}), *others],
    )
    names = {"repo_id": repo_id, "license": license, "manifest_name": MANIFEST, "embeds": embeds}
    published = for_publication(archive)
    return render_card(
        "archive.md", metadata, archive=published, identity=published.identity, provenance=published.provenance, **names
    )
