"""Three ways to find an archive's nearest rows, behind one interface: exact, faiss, Milvus.

The truth is the archive's vectors and table. An index holds nothing that is not in them, and can be thrown away and built again.
Whatever finds the candidates, the final ranking is by the same float64 product of the same vectors, so scores agree to the bit.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from csmae_hf.search.filter_language import Where
from csmae_hf.search.vectors import IntArray, Vectors

BACKENDS = ("exact", "faiss", "milvus")


@dataclass(frozen=True, eq=False)
class Selection:
    """A filter, in both forms in which an index may want it.

    Attributes:
        where: The filter.
        rows: The archive's rows that it keeps, ascending.
    """

    where: Where
    rows: IntArray


class Found(NamedTuple):
    """What an index found.

    Attributes:
        scores: (Q, k) float32, highest first; -inf where there is nothing.
        rows: (Q, k) int64 rows of the archive; -1 where there is nothing.
        exact: Whether nothing nearer can have been missed.
    """

    scores: NDArray[np.float32]
    rows: IntArray
    exact: bool


class ArchiveIndex(Protocol):
    """Finds the nearest rows of one sensor of an archive."""

    backend: ClassVar[str]
    parameters: dict[str, Any]

    def add(self, vectors: Vectors, tiles: pa.Table) -> None:
        """Put rows after those that are there.

        Args:
            vectors: (M, D) float32 unit vectors.
            tiles: Their metadata, in the columns of the archive.
        """

    def remove(self, rows: IntArray) -> None:
        """Take rows out; those after them move up.

        Args:
            rows: Row numbers, ascending.
        """

    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """Find the nearest rows.

        Args:
            queries: (Q, D) float32 unit vectors.
            k: Results per query; any number of at least 1.
            selection: Rows among which to look; None for all.

        Returns:
            Scores and rows, (Q, k).
        """


def padded(scores: NDArray[np.float32], rows: IntArray, k: int, exact: bool) -> Found:
    """Fill up results of fewer than k columns with nothing."""
    short = k - scores.shape[1]
    if short <= 0:
        return Found(scores, rows, exact)
    edges = ((0, 0), (0, short))
    return Found(np.pad(scores, edges, constant_values=-np.inf), np.pad(rows, edges, constant_values=-1), exact)
