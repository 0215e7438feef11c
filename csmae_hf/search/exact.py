"""Exact search: a product with every row that the filter keeps. No index to build, none to go stale."""

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.search.index import Found, Selection, padded
from csmae_hf.search.nearest import nearest
from csmae_hf.search.vectors import IntArray, Vectors

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ExactIndex:
    """Looks at every row, a chunk at a time, so the vectors may be larger than memory.

    Args:
        vectors: (N, D) float32 unit vectors.
        device: Where the products run; default the CPU.
        precision: "float32", or on a GPU "float16" or "bfloat16"; results are the same.

    Raises:
        ValueError: If the precision is unknown.
    """

    backend: ClassVar[str] = "exact"

    def __init__(self, vectors: Vectors, device: str | torch.device | None = None, precision: str = "float32"):
        if precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}.")
        self.vectors = vectors
        self.device = device
        self.parameters: dict[str, Any] = {} if precision == "float32" else {"precision": precision}
        self._precision = PRECISIONS[precision]

    def add(self, vectors: Vectors, tiles: pa.Table) -> None:
        """See [`ArchiveIndex.add`]."""
        self.vectors = self.vectors.extend(vectors)

    def remove(self, rows: IntArray) -> None:
        """See [`ArchiveIndex.remove`]."""
        self.vectors = self.vectors.select(np.setdiff1d(np.arange(len(self.vectors)), rows))

    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """See [`ArchiveIndex.search`]."""
        vectors = self.vectors if selection is None else self.vectors.select(selection.rows)
        count = min(k, len(vectors))
        if not count:
            return padded(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64), k, True)
        scores, rows = nearest(queries, vectors, count, device=self.device, precision=self._precision, progress=True)
        return padded(scores, rows if selection is None else selection.rows[rows], k, True)
