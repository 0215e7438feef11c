"""Search with faiss: an approximate index picks candidates, the archive's own vectors rank them.

A filter that keeps few rows is answered exactly, without the index: approximate indexes lose most of the answer there, and looking at
few rows is faster anyway.
"""

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.files import Entry, write_file
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.index import Found, Selection
from csmae_hf.search.nearest import rerank
from csmae_hf.search.vectors import CHUNK_ROWS, IntArray, Vectors

logger = logging.getLogger(__name__)

EXACT_BELOW = 50_000
"""A filter that keeps at most so many rows is answered exactly."""

KINDS = ("ivf", "hnsw")
"""`ivf`: lists of 1-bit RaBitQ codes, 4 % of the vectors' size. `hnsw`: a graph over 8-bit codes, 27 %, slower to build."""

_TRAINING_ROWS_PER_LIST = 64
_LEAST_TRAINING_ROWS_PER_LIST = 39


class FaissIndex:
    """Candidates by faiss, ranking by the vectors.

    Args:
        vectors: (N, D) float32 unit vectors, at least one.
        kind: One of `KINDS`.
        effort: Lists probed (ivf) or width of the search (hnsw): more finds more and takes longer.
        candidates: Candidates per result that are ranked.
        exact_below: A filter that keeps at most so many rows is answered exactly.
        index: A faiss index of these vectors; None builds it.

    Raises:
        ValueError: If the kind is unknown or there are no vectors.
        ImportError: If faiss is missing.
    """

    backend: ClassVar[str] = "faiss"

    def __init__(
        self,
        vectors: Vectors,
        kind: str = "ivf",
        effort: int = 16,
        candidates: int = 10,
        exact_below: int = EXACT_BELOW,
        index: Any = None,
    ):
        if kind not in KINDS:
            raise ValueError(f"Unknown kind of faiss index {kind!r}: expected one of {', '.join(KINDS)}.")
        self.parameters: dict[str, Any] = {
            "kind": kind,
            "effort": effort,
            "candidates": candidates,
            "exact_below": exact_below,
        }
        self.exact = ExactIndex(vectors)
        self.index = _build(vectors, kind) if index is None else index

    @property
    def most_effort(self) -> int:
        """The effort beyond which more finds no more."""
        faiss = import_faiss()
        if self.parameters["kind"] == "ivf":
            return int(faiss.extract_index_ivf(self.index).nlist)
        return max(len(self.exact.vectors), 1)

    def add(self, vectors: Vectors, tiles: pa.Table) -> None:
        """See [`ArchiveIndex.add`]. The index keeps the lists that it was trained with."""
        for chunk in vectors.chunks():
            self.index.add(chunk.numpy())
        self.exact.add(vectors, tiles)

    def remove(self, rows: IntArray) -> None:
        """See [`ArchiveIndex.remove`]. The index is built again."""
        self.exact.remove(rows)
        self.index = _build(self.exact.vectors, self.parameters["kind"])

    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """See [`ArchiveIndex.search`]."""
        total = len(self.exact.vectors)
        kept = total if selection is None else len(selection.rows)
        count = max(k * int(self.parameters["candidates"]), 100)
        if kept <= count or (selection is not None and kept <= self.parameters["exact_below"]):
            return self.exact.search(queries, k, selection)
        options = self._options(None if selection is None else selection.rows, total / kept, count)
        _, found = self.index.search(queries.numpy(), count, params=options)
        scores, rows = rerank(queries, self.exact.vectors, torch.from_numpy(found), k)
        return Found(scores.numpy(), rows.numpy(), False)

    def _options(self, rows: IntArray | None, sparsity: float, count: int) -> Any:
        """Search parameters; the fewer rows a filter keeps, the more has to be looked at to find as many of them."""
        faiss = import_faiss()
        effort = min(int(np.ceil(self.parameters["effort"] * sparsity)), self.most_effort)
        selector = None if rows is None else faiss.IDSelectorBatch(rows)
        if self.parameters["kind"] == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=max(effort, count), sel=selector)
        return faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=effort, sel=selector))

    def write(self, folder: Path, sensor: str) -> Entry:
        """Write the faiss index to a file of an archive.

        Args:
            folder: The archive.
            sensor: Whose index it is.

        Returns:
            What was written.
        """
        content = import_faiss().serialize_index(self.index)
        return write_file(folder, f"index-{sensor}", ".faiss", lambda stream: stream.write(content.data))

    @staticmethod
    def read(path: Path) -> Any:
        """Read a faiss index from a file.

        Raises:
            ValueError: If it is none.
        """
        try:
            return import_faiss().read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} is no faiss index: {error}") from error


def import_faiss() -> Any:
    """Import faiss.

    Raises:
        ImportError: With how to install it.
    """
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # else it tells of every instruction set that it tries
    try:
        import faiss
    except ImportError as error:
        raise ImportError("The faiss index needs faiss: pip install 'csmae-hf[faiss]' (or faiss-cpu).") from error
    return faiss


def number_of_lists(rows: int) -> int:
    """Choose the lists of an IVF: the power of two nearest to 3 times the root of the rows, with enough rows to train each.

    Args:
        rows: Vectors of the archive.

    Returns:
        1024 for 100,000.
    """
    wanted = 2 ** round(float(np.log2(3 * max(rows, 1) ** 0.5)))
    return max(min(wanted, rows // _LEAST_TRAINING_ROWS_PER_LIST), 1)


def _build(vectors: Vectors, kind: str) -> Any:
    faiss = import_faiss()
    if not len(vectors):
        raise ValueError("A faiss index of no vectors cannot be trained; use the exact index.")
    lists = number_of_lists(len(vectors))
    recipe = f"RR{vectors.width},IVF{lists},RaBitQ" if kind == "ivf" else "HNSW32_SQ8"
    index = faiss.index_factory(vectors.width, recipe, faiss.METRIC_INNER_PRODUCT)
    sample = min(len(vectors), max(lists * _TRAINING_ROWS_PER_LIST, CHUNK_ROWS))
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), sample, replace=False))
    logger.info("Building a faiss index (%s) of %d vectors.", recipe, len(vectors))
    index.train(vectors[torch.from_numpy(rows)].numpy())
    for chunk in vectors.chunks():
        index.add(chunk.numpy())
    return index
