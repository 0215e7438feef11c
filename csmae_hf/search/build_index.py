"""Making an archive's indexes, measuring them, and opening those that were stored."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.search.codes_index import CodesIndex
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.faiss_index import FaissIndex
from csmae_hf.search.index import ArchiveIndex
from csmae_hf.search.milvus_index import MilvusIndex
from csmae_hf.search.recall import SAMPLE, SHARES, Recall, measure_recall
from csmae_hf.search.vectors import Vectors

logger = logging.getLogger(__name__)

INDEXES: dict[str, type[ArchiveIndex]] = {
    kind.backend: kind for kind in (ExactIndex, CodesIndex, FaissIndex, MilvusIndex)
}
"""Every index that there is, by the name that users give."""


def build_index(
    backend: str, sensor: str, vectors: Mapping[str, Vectors], tiles: pa.Table, **options: Any
) -> tuple[ArchiveIndex, list[Recall]]:
    """Build an index of one sensor of an archive, and measure its recall in every direction to this sensor; none for exact search.

    Vectors are (N, D) of unit length by sensor, of which a sample are the queries; the metadata have the buckets of `with_buckets`.

    Raises:
        ValueError: If the backend or an option is unknown, or no effort of a faiss index reaches a recall of 0.95.
        ImportError: If the backend's package is missing.
    """
    if backend not in INDEXES:
        raise ValueError(f"Unknown index {backend!r}: expected one of {', '.join(INDEXES)}.")
    try:
        index = INDEXES[backend].build(vectors[sensor], tiles, **options)
    except TypeError as error:
        raise ValueError(f"The {backend} index does not take these options: {error}.") from error
    if isinstance(index, ExactIndex):
        return index, []
    if "effort" not in options:
        index.tune(lambda: min(found.recall for found in measure_index(index, sensor, vectors, tiles, [1.0])), sensor)
    return index, measure_index(index, sensor, vectors, tiles)


def measure_index(
    index: ArchiveIndex, sensor: str, vectors: Mapping[str, Vectors], tiles: pa.Table, shares: Iterable[float] = SHARES
) -> list[Recall]:
    """Measure the recall of an index of one sensor in every direction to it, as of [`build_index`]; none of exact search."""
    if isinstance(index, ExactIndex):
        return []
    rows = np.sort(np.random.default_rng(0).permutation(tiles.num_rows)[:SAMPLE]).astype(np.int64)
    queries = {name: part[torch.from_numpy(rows)] for name, part in vectors.items()}
    return measure_recall(index, ExactIndex(vectors[sensor]), queries, sensor, tiles, rows, shares)


def open_index(
    described: Mapping[str, Any], folder: Path, vectors: Vectors, tiles: pa.Table, token: str = "", uri: str = ""
) -> ArchiveIndex:
    """Open a stored index. Where its package or its server is missing, search is exact, which is said in a warning.

    An archive may come from anybody: what it says of Milvus never makes this machine talk to another, or open a file elsewhere.

    Args:
        described: Backend, parameters and file, as the archive's JSON has them; an unknown backend is a ValueError.
        folder: The archive.
        vectors: (N, D) unit vectors.
        tiles: Metadata, with the buckets of `with_buckets`.
        token: Of a Milvus server.
        uri: Of the Milvus to use; default the file of embedded Milvus in the folder, then the environment's CSMAE_MILVUS_URI.
    """
    backend = described["backend"]
    if backend not in INDEXES:
        raise ValueError(f"Unknown index {backend!r} in {folder}: expected one of {', '.join(INDEXES)}.")
    try:
        return INDEXES[backend].open(described, folder, vectors, tiles, token, uri)
    except (ImportError, ConnectionError) as error:
        logger.warning("The archive's %s index is not used, search is exact: %s", backend, error)
        return ExactIndex(vectors)
