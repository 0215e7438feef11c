"""What every index of an archive does, whichever it is.

The truth is the archive's vectors and table. An index holds nothing that is not in them, and can be thrown away and built again.
Whatever finds the candidates, the final ranking is by the same float64 product of the same vectors, so scores agree to the bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from csmae_hf.files import Entry
from csmae_hf.search.filter_language import Where
from csmae_hf.search.vectors import IntArray, Vectors


@dataclass(frozen=True, eq=False)
class Selection:
    """A filter, in both forms in which an index may want it: the conditions, and the rows that they keep, ascending."""

    where: Where
    rows: IntArray


class Found(NamedTuple):
    """What an index found."""

    scores: NDArray[np.float32]  # (Q, k), highest first; -inf where there is nothing
    rows: IntArray  # (Q, k) of the archive; -1 where there is nothing
    exact: bool  # whether nothing nearer can have been missed


class ArchiveIndex(ABC):
    """Finds the nearest rows of one sensor of an archive.

    A further index is a subclass in a file of its own, named in `csmae_hf.search.build_index.INDEXES`. Its `parameters` are what is
    stored of it with an archive: JSON that `open` builds it from again.
    """

    backend: ClassVar[str]
    parameters: dict[str, Any]

    @classmethod
    def build(cls, vectors: Vectors, tiles: pa.Table, **options: Any) -> "ArchiveIndex":
        """Index (N, D) float32 unit vectors, whose metadata are the rows of `tiles`; options are those of the class."""
        return cls(vectors, **options)  # type: ignore[call-arg]

    @classmethod
    def open(
        cls, described: Mapping[str, Any], folder: Path, vectors: Vectors, tiles: pa.Table, token: str, uri: str
    ) -> "ArchiveIndex":
        """Open an index as `open_index` does; ImportError without its package, ConnectionError without a server that it needs."""
        return cls.build(vectors, tiles, **described["parameters"])

    def tune(self, recall: Callable[[], float], sensor: str) -> None:
        """Raise the effort until `recall()`, the lowest of any direction to the sensor, is enough; ValueError if it never is."""
        return

    @property
    def has_file(self) -> bool:
        """Whether `write` writes one."""
        return type(self).write is not ArchiveIndex.write

    def write(self, folder: Path, sensor: str) -> Entry | None:
        """Write what `open` reads to a file of an archive; None where the parameters say all."""
        return None

    @abstractmethod
    def add(self, vectors: Vectors, tiles: pa.Table) -> "ArchiveIndex":
        """Give an index of (N + M, D) float32 unit vectors, of which M, with their metadata in the columns of the archive, are new.

        This one stays as it is, but for what it keeps on a server: see `restore`. The same holds for `remove`.
        """

    @abstractmethod
    def remove(self, vectors: Vectors, rows: IntArray) -> "ArchiveIndex":
        """Give an index of (N - R, D) vectors: those of this one but for R rows, ascending numbers; those after them move up."""

    def restore(self) -> None:
        """After an `add` or `remove` of this index that is not to be: put back what is kept elsewhere than here."""
        return

    @abstractmethod
    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """Find the k rows, of all or of a selection, nearest to each query; these are (Q, D) float32 unit vectors, k at least 1."""
