"""Codes of unit vectors: a half, a quarter or a thirty-second of their size, and how far a score of codes may be off.

A vector is coded by what it differs by from the mean of the archive's vectors, of which a cross-sensor encoder leaves little: scores
of another sensor's queries are near each other too, and the mean changes none of their order. Codes have a scale for each row, so that
a row's code follows from the row and the mean alone, and adding rows changes no other's. A query is never coded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from csmae_hf.search.vectors import IntArray, Piece, Vectors

KINDS = ("float16", "int8", "bits")
"""`float16`: of the row's largest number. `int8`: of 127 steps to it. `bits`: signs, times the mean of the row's sizes, the nearest of
such codes (Rastegari et al. 2016, XNOR-Net)."""

TYPES = {"float16": torch.float16, "int8": torch.int8, "bits": torch.uint8}

_BLOCK_NUMBERS = 2**20  # decoded at a time: they should stay in the cache

_SIGNS = (np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).view(np.int8) * 2 - 1).view(np.int64).ravel()
"""(256,): the eight signs that a byte holds, int8 beside each other; one number of 8 bytes is taken faster than eight of one."""


def check_kind(kind: object) -> None:
    """Refuse, with a ValueError, what is none of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of codes {kind!r}: expected one of {', '.join(KINDS)}.")


@dataclass(frozen=True, eq=False)
class Codes:
    """Coded rows of a matrix (N, D).

    Attributes:
        kind: One of `KINDS`.
        center: (D,) float32: what is subtracted from every row.
        codes: (N, D) float16 or int8, or (N, ceil(D / 8)) uint8 of eight signs each.
        scales: (N,) float32: a row is `center + scale * code`.
        error: The most by which the product of a unit query with a decoded row, in float32, differs from that with the row.
        rows: (M,) rows that are meant, ascending; None for all.
    """

    kind: str
    center: torch.Tensor
    codes: torch.Tensor
    scales: torch.Tensor
    error: float
    rows: IntArray | None = None

    @classmethod
    def of(cls, vectors: Vectors, kind: str) -> "Codes":
        """Code (N, D) unit vectors; an unknown kind is a ValueError."""
        check_kind(kind)
        total = torch.zeros(vectors.width, dtype=torch.float64)
        for chunk in vectors.chunks():
            total += chunk.sum(dim=0, dtype=torch.float64)
        width = -(-vectors.width // 8) if kind == "bits" else vectors.width
        none = torch.empty(0, width, dtype=TYPES[kind])
        return cls(kind, (total / max(len(vectors), 1)).float(), none, torch.empty(0), 0.0).extend(vectors)

    def extend(self, vectors: Vectors) -> "Codes":
        """Put the codes of those rows of (N + M, D) after these that these do not have; the mean stays."""
        size = max(1, _BLOCK_NUMBERS // vectors.width)
        parts = [
            encode(vectors[start : start + size], self.kind, self.center)
            for start in range(len(self), len(vectors), size)
        ]
        return replace(
            self,
            codes=torch.cat([self.codes, *(codes for codes, _, _ in parts)]),
            scales=torch.cat([self.scales, *(scales for _, scales, _ in parts)]),
            error=max([self.error, *(float(errors.max()) for _, _, errors in parts)]),
        )

    def without(self, rows: IntArray) -> "Codes":
        """Leave out rows."""
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[torch.from_numpy(rows)] = False
        return replace(self, codes=self.codes[kept], scales=self.scales[kept])

    def select(self, rows: IntArray) -> "Codes":
        """Look at some rows, (M,) numbers, ascending; nothing is copied."""
        return replace(self, rows=rows)

    def __len__(self) -> int:
        return len(self.codes) if self.rows is None else len(self.rows)

    def __getitem__(self, rows: slice) -> torch.Tensor:
        """Decode rows, without the center: (n, D) float32."""
        codes, scales = self.codes, self.scales
        if self.rows is None:
            return decode(codes[rows], scales[rows], self.kind, len(self.center))
        chosen = torch.from_numpy(self.rows[rows])
        return decode(codes.index_select(0, chosen), scales[chosen], self.kind, len(self.center))

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Go through rows, decoded without the center, in pieces that fit into a cache."""
        size = max(1, _BLOCK_NUMBERS // len(self.center))
        for first in range(start, stop, size):
            yield Piece(self[first : min(first + size, stop)], None)


def encode(vectors: torch.Tensor, kind: str, center: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Code (N, D) float32 vectors.

    Returns:
        (N, W) codes, (N,) scales, and (N,) float64 the error of each row, as of `Codes`: by the inequality of Cauchy and Schwarz the
        length of what was lost, and what D roundings of a float32 product of this length add, twice over.
    """
    rest = vectors.double() - center.double()
    if kind == "bits":
        scales = rest.abs().mean(dim=1)
        codes = torch.from_numpy(np.packbits((rest >= 0).numpy(), axis=1))
    else:
        steps = 127 if kind == "int8" else 1
        scales = rest.abs().amax(dim=1) / steps
        scaled = rest / scales.float().clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        codes = (scaled.round().clamp(-steps, steps) if kind == "int8" else scaled).to(TYPES[kind])
    scales = scales.float()
    decoded = decode(codes, scales, kind, vectors.shape[1]).double()
    lengths = [torch.linalg.vector_norm(part, dim=1) for part in (rest - decoded, decoded)]
    # a unit query in float32 is a little longer or shorter than 1
    return codes, scales, lengths[0] * (1 + 2.0**-20) + lengths[1] * vectors.shape[1] * 2.0**-23


def decode(codes: torch.Tensor, scales: torch.Tensor, kind: str, width: int) -> torch.Tensor:
    """Bring (N, W) codes and (N,) scales back to (N, width) float32, without the center."""
    if kind == "bits":
        codes = torch.from_numpy(_SIGNS.take(codes.numpy()).view(np.int8))[:, :width]
    return codes.float().mul_(scales[:, None])
