"""Making an archive's indexes, measuring them, and opening those that were stored."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.faiss_index import FaissIndex
from csmae_hf.search.index import BACKENDS, ArchiveIndex
from csmae_hf.search.milvus_index import MilvusIndex
from csmae_hf.search.recall import LEAST_RECALL, SAMPLE, Recall, measure_recall
from csmae_hf.search.vectors import Vectors

logger = logging.getLogger(__name__)

WANTED_RECALL = 0.98
"""The effort of an index is raised to this on a sample of the archive's tiles, so that other queries have `LEAST_RECALL` at least."""

MILVUS_URI = "CSMAE_MILVUS_URI"
"""The variable of the environment that names the Milvus of archives whose own is not in their folder."""

_FIRST_EFFORT = {"ivf": 8, "hnsw": 32}


def build_index(
    backend: str, sensor: str, vectors: Mapping[str, Vectors], tiles: pa.Table, **options: Any
) -> tuple[ArchiveIndex, list[Recall]]:
    """Build an index of one sensor of an archive, and measure it with queries of every sensor.

    Args:
        backend: One of `BACKENDS`.
        sensor: Whose vectors are indexed.
        vectors: (N, D) unit vectors by sensor; a sample of them are the queries.
        tiles: Metadata, with the buckets of `with_buckets`.
        **options: Of the backend.

    Returns:
        The index and its recall in every direction to this sensor; none for exact search.

    Raises:
        ValueError: If the backend or an option is unknown, or no effort of a faiss index reaches a recall of 0.95.
        ImportError: If the backend's package is missing.
    """
    if backend not in BACKENDS:
        raise ValueError(f"Unknown index {backend!r}: expected one of {', '.join(BACKENDS)}.")
    exact = ExactIndex(vectors[sensor])
    try:
        if backend == "exact":
            return ExactIndex(vectors[sensor], **options), []
        rows = np.sort(np.random.default_rng(0).permutation(tiles.num_rows)[:SAMPLE]).astype(np.int64)
        queries = {name: part[torch.from_numpy(rows)] for name, part in vectors.items()}
        if backend == "milvus":
            index: ArchiveIndex = MilvusIndex(vectors[sensor], tiles, **options)
        else:
            index = FaissIndex(vectors[sensor], **options)
            if "effort" not in options:
                _find_effort(index, exact, queries, sensor, tiles, rows)
    except TypeError as error:
        raise ValueError(f"The {backend} index does not take these options: {error}.") from error
    return index, measure_recall(index, exact, queries, sensor, tiles, rows)


def _find_effort(
    index: FaissIndex,
    exact: ExactIndex,
    queries: Mapping[str, torch.Tensor],
    sensor: str,
    tiles: pa.Table,
    rows: np.ndarray[Any, Any],
) -> None:
    """Raise the effort of an index until it finds enough of the exact answer."""
    effort = _FIRST_EFFORT[index.parameters["kind"]]
    while True:
        index.parameters["effort"] = min(effort, index.most_effort)
        lowest = min(
            recall.recall for recall in measure_recall(index, exact, queries, sensor, tiles, rows, shares=[1.0])
        )
        if lowest >= WANTED_RECALL:
            return
        if effort >= index.most_effort:
            if lowest >= LEAST_RECALL:
                return
            raise ValueError(
                f"The faiss index ({index.parameters['kind']}) of {sensor} finds {lowest:.0%} of the exact results at most, "
                f"{LEAST_RECALL:.0%} are wanted: raise candidates (now {index.parameters['candidates']}), or search exactly."
            )
        effort *= 2


def _file_within(folder: Path, uri: str) -> str | None:
    """The database of embedded Milvus that a URI names, as an absolute path; None where it is not in the folder of the archive."""
    home = folder.resolve()
    for path in (Path(uri).resolve(), home / Path(uri).name):  # the folder may have been moved since
        if uri.endswith(".db") and path.exists() and home in path.resolve().parents:
            return str(path)
    return None


def open_index(
    described: Mapping[str, Any], folder: Path, vectors: Vectors, tiles: pa.Table, token: str = "", uri: str = ""
) -> ArchiveIndex:
    """Open a stored index. Where its package or its server is missing, search is exact, which is said in a warning.

    An archive may come from anybody: what it says of Milvus never makes this machine talk to another, or open a file elsewhere.

    Args:
        described: Backend, parameters and file, as the archive's JSON has them.
        folder: The archive.
        vectors: (N, D) unit vectors.
        tiles: Metadata, with the buckets of `with_buckets`.
        token: Of a Milvus server.
        uri: Of the Milvus to use; default the file of embedded Milvus in the archive's folder, then the environment's
            CSMAE_MILVUS_URI.

    Returns:
        The index.

    Raises:
        ValueError: If the backend is unknown.
    """
    backend, parameters = described["backend"], described["parameters"]
    if backend not in BACKENDS:
        raise ValueError(f"Unknown index {backend!r} in {folder}: expected one of {', '.join(BACKENDS)}.")
    try:
        if backend == "faiss":
            return FaissIndex(vectors, **parameters, index=FaissIndex.read(folder / described["file"]))
        if backend == "milvus":
            address = uri or _file_within(folder, parameters["uri"]) or os.environ.get(MILVUS_URI)
            if not address:
                raise ConnectionError(
                    f"it names {parameters['uri']}, which is not a database in the archive's folder, and nothing is connected to "
                    f"because an archive says so. If you know it: set {MILVUS_URI}={parameters['uri']}, or Archive.load(..., uri=...)."
                )
            return MilvusIndex(vectors, tiles, **{**parameters, "uri": address}, token=token)
    except (ImportError, ConnectionError) as error:
        logger.warning("The archive's %s index is not used, search is exact: %s", backend, error)
        return ExactIndex(vectors)
    return ExactIndex(vectors, **parameters)
