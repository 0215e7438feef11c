"""Unit vectors of an archive, which may lie in memory-mapped files: rows are copied when they are looked at, and only those."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

CHUNK_ROWS = 16_384
"""Rows that are copied at a time where all are gone through."""

_BLOCK_NUMBERS = 2**20  # of rows that are copied to be multiplied: they should stay in the cache
_DENSE = 0.7


def numpy_array(values: Any) -> NDArray[Any]:
    """Bring numbers, whatever holds them, into a numpy array; float types that numpy lacks, such as bfloat16, become float32."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        lacking = values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64)
        return (values.float() if lacking else values).numpy()
    array = np.asanyarray(values)
    # the types of ml_dtypes, jax's among them, are of no kind that numpy knows, but have a name, and can become float32
    lacking = array.dtype.kind == "V" and array.dtype.names is None and not array.dtype.name.startswith("void")
    return array.astype(np.float32 if lacking else array.dtype.newbyteorder("="), copy=False)


class Piece(NamedTuple):
    """Neighbouring rows of a matrix, (n, D), and which of them are meant, (m,) ascending; None for all."""

    tensor: torch.Tensor
    places: torch.Tensor | None


class _Part(NamedTuple):
    tensor: torch.Tensor
    rows: IntArray | None

    def __len__(self) -> int:
        return len(self.tensor) if self.rows is None else len(self.rows)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows if self.rows is None else torch.from_numpy(self.rows)[rows]
        # of rows many times faster than indexing
        return self.tensor.index_select(0, rows.reshape(-1)).reshape(*rows.shape, self.tensor.shape[1])

    def is_dense(self, start: int, stop: int) -> bool:
        """Whether products with all that lies between rows are cheaper than copying these."""
        return self.rows is None or stop - start >= _DENSE * (self.rows[stop - 1] + 1 - self.rows[start])

    def piece(self, start: int, stop: int) -> Piece:
        """Rows as they lie where they are dense, else copied."""
        if self.rows is None:
            return Piece(self.tensor[start:stop], None)
        if not self.is_dense(start, stop):
            return Piece(self.slice(start, stop), None)
        rows = self.rows[start:stop]
        first, last = int(rows[0]), int(rows[-1]) + 1
        return Piece(self.tensor[first:last], None if len(rows) == last - first else torch.from_numpy(rows - first))

    def slice(self, start: int, stop: int) -> torch.Tensor:
        if self.rows is None:
            return self.tensor[start:stop]
        return self.tensor.index_select(0, torch.from_numpy(self.rows[start:stop]))


class Vectors:
    """Rows of float32 matrices (N_i, D), one after another, as one matrix, which is never made as a whole.

    The width D is given where there is no part to tell it; widths that differ are a ValueError.
    """

    def __init__(self, parts: "Sequence[torch.Tensor | _Part]" = (), width: int | None = None):
        held = [part if isinstance(part, _Part) else _Part(part, None) for part in parts]
        widths = {part.tensor.shape[1] for part in held} | ({width} if width is not None else set())
        if len(widths) != 1:
            raise ValueError(f"Vectors have the widths {sorted(widths)}; expected one width for all.")
        self.width: int = widths.pop()
        self._parts = [part for part in held if len(part)]
        self._starts = np.cumsum([0, *map(len, self._parts)])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self), self.width

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """Copy rows: a slice without a step, or int64 indices of any shape, which give (..., D)."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            pieces = [
                part.slice(max(start - first, 0), min(stop - first, len(part)))
                for part, first in zip(self._parts, self._starts, strict=False)
                if first < stop and first + len(part) > start
            ]
            if len(pieces) == 1:
                return pieces[0]
            return torch.cat(pieces) if pieces else torch.empty(0, self.width)
        if len(self._parts) == 1:
            return self._parts[0].take(rows)
        flat = rows.reshape(-1)
        taken = torch.empty(len(flat), self.width)
        number = np.searchsorted(self._starts, flat.numpy(), side="right") - 1
        for place in np.unique(number):
            here = torch.from_numpy(number == place)
            taken[here] = self._parts[place].take(flat[here] - int(self._starts[place]))
        return taken.reshape(*rows.shape, self.width)

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Go through rows in order for products with them; what has to be copied for that comes in pieces that fit into a cache."""
        place = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            first, part = int(self._starts[place]), self._parts[place]
            last = min(stop, first + len(part))
            step = last - start if part.is_dense(start - first, last - first) else max(1, _BLOCK_NUMBERS // self.width)
            for begin in range(start, last, step):
                yield part.piece(begin - first, min(begin + step, last) - first)
            start, place = last, place + 1

    def select(self, rows: IntArray) -> "Vectors":
        """Look at some rows, (M,) numbers, ascending; nothing is copied."""
        edges = np.searchsorted(rows, self._starts)
        parts = []
        for place, part in enumerate(self._parts):
            own = rows[edges[place] : edges[place + 1]] - self._starts[place]
            parts.append(_Part(part.tensor, own if part.rows is None else part.rows[own]))
        return Vectors(parts, self.width)

    def extend(self, other: "Vectors") -> "Vectors":
        """Put other rows, (M, D), after these; nothing is copied."""
        return Vectors([*self._parts, *other._parts], self.width if self.width == other.width else -1)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[torch.Tensor]:
        """Go through all rows in order, (n, D) at a time, of which `rows` are the most."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]
