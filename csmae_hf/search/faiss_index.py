"""Search with faiss: an approximate index picks candidates, the archive's own vectors rank them.

A filter that keeps few rows is answered exactly, without the index: approximate indexes lose most of the answer there, and looking at
few rows is faster anyway.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.files import Entry, write_file
from csmae_hf.optional import needs_package
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.index import ArchiveIndex, Found, Selection
from csmae_hf.search.nearest import rerank
from csmae_hf.search.recall import LEAST_RECALL, WANTED_RECALL
from csmae_hf.search.vectors import CHUNK_ROWS, IntArray, Vectors

logger = logging.getLogger(__name__)

EXACT_BELOW = 50_000
"""A filter that keeps at most so many rows is answered exactly."""

KINDS = ("ivf", "hnsw")
"""`ivf`: lists of 1-bit RaBitQ codes, 4 % of the vectors' size. `hnsw`: a graph over 8-bit codes, 27 %, slower to build."""

_FIRST_EFFORT = {"ivf": 8, "hnsw": 32}
_TRAINING_ROWS_PER_LIST = 64
_LEAST_TRAINING_ROWS_PER_LIST = 39


class FaissIndex(ArchiveIndex):
    """Candidates by faiss, ranking by the vectors.

    Args:
        vectors: (N, D) float32 unit vectors, at least one.
        kind: One of `KINDS`.
        effort: Lists probed (ivf) or width of the search (hnsw): more finds more and takes longer.
        candidates: Candidates per result that are ranked.
        exact_below: A filter that keeps at most so many rows is answered exactly.
        index: A faiss index of these vectors; None builds it.
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
        for name, value, least in (
            ("effort", effort, 1),
            ("candidates", candidates, 1),
            ("exact_below", exact_below, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} of a faiss index: expected a whole number, {least} or more.")
        self.parameters: dict[str, Any] = {"kind": kind, "effort": effort}
        self.parameters |= {"candidates": candidates, "exact_below": exact_below}
        self.exact = ExactIndex(vectors)
        self.index = _train(vectors, kind) if index is None else index

    @classmethod
    def open(
        cls, described: Mapping[str, Any], folder: Path, vectors: Vectors, tiles: pa.Table, token: str, uri: str
    ) -> "FaissIndex":
        """See [`ArchiveIndex.open`]; a file that is no faiss index is a ValueError."""
        path = folder / described["file"]
        try:
            index = import_faiss().read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} is no faiss index: {error}") from error
        if (index.ntotal, index.d) != vectors.shape:
            raise ValueError(
                f"{path} is of {index.ntotal} vectors of width {index.d}, not of {len(vectors)} of {vectors.width}."
            )
        return cls(vectors, **described["parameters"], index=index)

    def write(self, folder: Path, sensor: str) -> Entry:
        """See [`ArchiveIndex.write`]."""
        content = import_faiss().serialize_index(self.index)
        return write_file(folder, f"index-{sensor}", ".faiss", lambda stream: stream.write(content.data))

    def tune(self, recall: Callable[[], float], sensor: str) -> None:
        """See [`ArchiveIndex.tune`]."""
        most, kind = self._most_effort, self.parameters["kind"]
        self.parameters["effort"] = min(_FIRST_EFFORT[kind], most)
        while (lowest := recall()) < WANTED_RECALL and self.parameters["effort"] < most:
            self.parameters["effort"] = min(2 * self.parameters["effort"], most)
        if lowest < LEAST_RECALL:
            raise ValueError(
                f"The faiss index ({kind}) of {sensor} finds {lowest:.0%} of the exact results at most, {LEAST_RECALL:.0%} are "
                f"wanted: raise candidates (now {self.parameters['candidates']}), or search exactly."
            )

    @property
    def _most_effort(self) -> int:
        """The effort beyond which more finds no more."""
        if self.parameters["kind"] == "ivf":
            return int(import_faiss().extract_index_ivf(self.index).nlist)
        return max(len(self.exact.vectors), 1)

    def add(self, vectors: Vectors, tiles: pa.Table) -> "FaissIndex":
        """See [`ArchiveIndex.add`]. The index keeps the lists that it was trained with."""
        index = import_faiss().clone_index(self.index)
        for start in range(len(self.exact.vectors), len(vectors), CHUNK_ROWS):
            index.add(vectors[start : start + CHUNK_ROWS].numpy())
        return FaissIndex(vectors, **self.parameters, index=index)

    def remove(self, vectors: Vectors, rows: IntArray) -> "FaissIndex":
        """See [`ArchiveIndex.remove`]. The index is built again."""
        return FaissIndex(vectors, **self.parameters)

    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """See [`ArchiveIndex.search`]."""
        total = len(self.exact.vectors)
        kept = total if selection is None else len(selection.rows)
        count = max(k * int(self.parameters["candidates"]), 100)
        if kept <= count or (selection is not None and kept <= self.parameters["exact_below"]):
            return self.exact.search(queries, k, selection)
        faiss = import_faiss()
        selector = None if selection is None else faiss.IDSelectorBatch(selection.rows)
        # the fewer rows a filter keeps, the more has to be looked at to find as many of them
        effort = min(int(np.ceil(self.parameters["effort"] * total / kept)), self._most_effort)
        if self.parameters["kind"] == "hnsw":
            options = faiss.SearchParametersHNSW(efSearch=max(effort, count), sel=selector)
        else:
            inner = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
            options = faiss.SearchParametersPreTransform(index_params=inner)
        _, found = self.index.search(queries.numpy(), count, params=options)
        scores, rows = rerank(queries, self.exact.vectors, torch.from_numpy(found), k)
        return Found(scores.numpy(), rows.numpy(), False)


def import_faiss() -> Any:
    """Import faiss; an ImportError says how to install it."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # else it tells of every instruction set that it tries
    try:
        import faiss
    except ImportError as error:
        raise needs_package("The faiss index", "faiss", error) from error
    return faiss


def number_of_lists(rows: int) -> int:
    """Lists of an IVF: the power of two nearest to 3 times the root of the rows, with enough rows to train each; 1024 of 100,000."""
    wanted = 2 ** round(float(np.log2(3 * max(rows, 1) ** 0.5)))
    return max(min(wanted, rows // _LEAST_TRAINING_ROWS_PER_LIST), 1)


def _train(vectors: Vectors, kind: str) -> Any:
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
