"""Exact search: a product with every row that the filter keeps. No index to build, none to go stale."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.search.index import ArchiveIndex, Found, Selection
from csmae_hf.search.nearest import nearest
from csmae_hf.search.vectors import IntArray, Vectors

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ExactIndex(ArchiveIndex):
    """Looks at every row, a chunk at a time, so the vectors may be larger than memory.

    Products run on `device`, default the CPU, there in float32; on a GPU in any of `PRECISIONS`, with the same results.
    """

    backend: ClassVar[str] = "exact"

    def __init__(self, vectors: Vectors, device: str | torch.device | None = None, precision: str = "float32"):
        if precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}.")
        self.vectors, self.device, self._precision = vectors, device, PRECISIONS[precision]
        self.parameters: dict[str, Any] = {} if precision == "float32" else {"precision": precision}

    def add(self, vectors: Vectors, tiles: pa.Table) -> "ExactIndex":
        """See [`ArchiveIndex.add`]."""
        return self._of(vectors)

    def remove(self, vectors: Vectors, rows: IntArray) -> "ExactIndex":
        """See [`ArchiveIndex.remove`]."""
        return self._of(vectors)

    def _of(self, vectors: Vectors) -> "ExactIndex":
        return ExactIndex(vectors, self.device, self.parameters.get("precision", "float32"))

    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """See [`ArchiveIndex.search`]."""
        vectors = self.vectors if selection is None else self.vectors.select(selection.rows)
        found = Found(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1), exact=True)
        count = min(k, len(vectors))
        if count:
            options: dict[str, Any] = {"device": self.device, "precision": self._precision}
            scores, rows = nearest(queries, vectors, count, progress=True, **options)
            found.scores[:, :count] = scores
            found.rows[:, :count] = rows if selection is None else selection.rows[rows]
        return found
