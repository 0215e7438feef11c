"""Rows of tiles by their ids: by a kept order, so that a look-up costs a few comparisons, however many ids there are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from csmae_hf.search.vectors import IntArray

ID = "id"
"""Column that names a tile."""

_MOST_TEXT = 2**31 - 1  # bytes that one array of strings holds


class IdIndex:
    """Finds ids in a column of them that never changes.

    Args:
        ids: The ids, each once.
        order: (N,) their rows, sorted by id; default it is found when it is first needed.
    """

    def __init__(self, ids: pa.ChunkedArray | pa.Array, order: IntArray | None = None):
        if ids.nbytes > _MOST_TEXT:
            ids = ids.cast(pa.large_string())
        if isinstance(ids, pa.ChunkedArray):
            ids = pa.concat_arrays(ids.chunks) if ids.num_chunks else pa.array([], ids.type)
        self.ids: pa.Array = ids
        if order is not None:
            self.order = order

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def order(self) -> IntArray:
        """(N,) rows sorted by id."""
        return np.asarray(pc.sort_indices(self.ids)).astype(np.int64)

    def find(self, names: Sequence[object]) -> IntArray:
        """Rows of ids, (n,); -1 of what is none."""
        count = len(self)
        asked = pa.array([_text(name) for name in names], self.ids.type)
        low, high = np.zeros(len(names), np.int64), np.full(len(names), count)
        while (open_ := low < high).any():  # a bisection of all of them at once
            middle = (low + high) // 2
            less = open_ & _true(pc.less(self._at(middle), asked))
            low, high = np.where(less, middle + 1, low), np.where(open_ & ~less, middle, high)
        found = low < count
        if not found.any():
            return np.full(len(names), -1)
        found &= _true(pc.equal(self._at(low), asked))
        return np.where(found, self.order[np.minimum(low, count - 1)], -1)

    def _at(self, places: IntArray) -> pa.Array:
        """Ids at places of the order; beyond its end the last."""
        return self.ids.take(pa.array(self.order[np.minimum(places, len(self) - 1)]))

    @property
    def repeated(self) -> list[str]:
        """Ids that occur more than once."""
        sorted_ids = self.ids.take(pa.array(self.order))
        same = pc.equal(sorted_ids.slice(1), sorted_ids.slice(0, max(len(self) - 1, 0)))
        return pc.unique(sorted_ids.slice(1).filter(same)).to_pylist() if len(same) else []


class TileRows(Mapping[str, int]):
    """Row of each tile by its id, as a mapping; nothing is made of all ids but by who goes through them.

    Args:
        ids: Gives all ids, in the order of the rows.
        find: Gives rows of ids, -1 of what is none.
    """

    def __init__(self, ids: Callable[[], Sequence[str]], find: Callable[[Sequence[object]], IntArray]):
        self._ids, self._find = ids, find

    def __getitem__(self, name: str) -> int:
        row = int(self._find([name])[0])
        if row < 0:
            raise KeyError(name)
        return row

    def __contains__(self, name: object) -> bool:
        return bool(self._find([name])[0] >= 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids())

    def __len__(self) -> int:
        return len(self._ids())


def _text(name: object) -> str | None:
    """An id as Arrow takes it; None of what can be none."""
    if not isinstance(name, str):
        return None
    try:
        name.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return str(name)


def _true(answers: pa.Array) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    return np.asarray(pc.fill_null(answers, False), dtype=bool)
