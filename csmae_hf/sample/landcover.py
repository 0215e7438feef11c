"""Where the land cover of a generated scene lies: random fields, field parcels, and the map of classes. Pure functions of a generator.

Everything is drawn on the 10 m grid of a tile (`EDGE` x `EDGE` pixels) and vectorised: a smooth field is a small random grid spread by
two matrix products, a parcel map is arithmetic on rotated coordinates.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.bigearthnet import LABELS
from csmae_hf.sample.tables import COVER_STYLES

EDGE: int = 120
"""Pixels along the edge of a tile at 10 m."""

PARCEL_CODES: int = 8 * 32 * 32
"""Number of parcel codes: blocks x strips x fields. A value per parcel is one look-up in a table of this length."""

Field = NDArray[np.floating[Any]]
"""A map or a stack of maps; at run time always float32."""

_BLOCKS, _STRIPS = 8, 32
_ROWS, _COLUMNS = (axis.astype(np.float32) for axis in np.mgrid[0:EDGE, 0:EDGE])


@functools.cache
def _spread(cells: int) -> Field:
    """Weights (4, EDGE / 4, cells + 4) that spread `cells` random numbers over the edge of a tile with unit variance.

    In quarters, because the products of so small matrices stay on one thread: faster, and the same bytes with any number of threads.
    """
    grid = np.arange(-2, cells + 2) + 0.5
    place = (np.arange(EDGE) + 0.5) / EDGE * cells
    weights = np.exp(-0.5 * ((place[:, None] - grid[None, :]) / 0.6) ** 2)
    weights[weights < 1e-6] = 0.0  # subnormal numbers would make the products several times slower
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return weights.astype(np.float32).reshape(4, EDGE // 4, -1)


def smooth_field(rng: np.random.Generator, cells: int) -> Field:
    """Draw a smooth random field (EDGE, EDGE), float32, of zero mean and unit variance.

    `cells` random numbers lie along its edge: 3 give a slow slope, 40 a texture of 3 pixels.
    """
    spread = _spread(cells)
    grid = rng.standard_normal((cells + 4, cells + 4), dtype=np.float32)
    return (spread @ grid @ spread.reshape(EDGE, -1).T).reshape(EDGE, EDGE)


def fractal_field(rng: np.random.Generator, cells: int, octaves: int = 4, persistence: float = 0.5) -> Field:
    """Draw a random field (EDGE, EDGE), float32, of zero mean and unit variance with detail at several scales.

    The coarsest octave has `cells` along the edge, each further one twice as many and `persistence` times the amplitude.
    """
    amplitudes = persistence ** np.arange(octaves)
    total = sum(a * smooth_field(rng, min(cells * 2**k, 60)) for k, a in enumerate(amplitudes))
    return np.asarray(total / np.sqrt((amplitudes**2).sum()), dtype=np.float32)


@dataclass(frozen=True)
class Parcels:
    """The division of a tile into fields.

    Attributes:
        code: (EDGE, EDGE) int32 in [0, PARCEL_CODES): which parcel a pixel lies in.
        edge: (EDGE, EDGE) bool: the pixel borders another parcel.
        across: (EDGE, EDGE) float32: distance across the rows of the parcel, pixels.
        along: (EDGE, EDGE) float32: distance along them, pixels.
    """

    code: NDArray[np.int32]
    edge: NDArray[np.bool_]
    across: Field
    along: Field


def draw_parcels(rng: np.random.Generator, field_pixels: tuple[float, float]) -> Parcels:
    """Divide a tile into blocks, each block into strips of its own direction, each strip into fields of a width in pixels."""
    rows = _ROWS + 2.5 * smooth_field(rng, 4)
    columns = _COLUMNS + 2.5 * smooth_field(rng, 4)
    count = int(rng.integers(2, _BLOCKS + 1))
    seeds = rng.uniform(0, EDGE, (count, 2)).astype(np.float32)
    block = np.argmin([(rows - y) ** 2 + (columns - x) ** 2 for y, x in seeds], axis=0)
    main = rng.uniform(0, np.pi)
    angle = (main + rng.choice([0.0, np.pi / 2], count) + rng.normal(0, 0.2, count)).astype(np.float32)
    width = rng.uniform(*field_pixels, count).astype(np.float32)
    length = (width * rng.uniform(1.2, 3.5, count)).astype(np.float32)
    jitter = rng.uniform(0.7, 1.4, (count, _STRIPS)).astype(np.float32)
    shift = rng.uniform(0, 1, (count, _STRIPS)).astype(np.float32)
    cosine, sine = np.cos(angle)[block], np.sin(angle)[block]
    across = cosine * columns + sine * rows
    along = cosine * rows - sine * columns
    strip = np.floor(across / width[block]).astype(np.int32) % _STRIPS
    fields = np.floor(along / (length[block] * jitter[block, strip]) + shift[block, strip]).astype(np.int32) % _STRIPS
    code = ((block * _STRIPS + strip) * _STRIPS + fields).astype(np.int32)
    edge = np.zeros(code.shape, dtype=bool)
    edge[:, :-1] |= code[:, 1:] != code[:, :-1]
    edge[:-1] |= code[1:] != code[:-1]
    return Parcels(code=code, edge=edge, across=across, along=along)


def _parcel_mean(field: Field, parcels: Parcels) -> Field:
    """Replace each pixel of a field (EDGE, EDGE) by the mean of its parcel, float32."""
    code = parcels.code.ravel()
    total = np.bincount(code, weights=field.ravel(), minlength=PARCEL_CODES)
    count = np.bincount(code, minlength=PARCEL_CODES)
    return (total / np.maximum(count, 1)).astype(np.float32)[parcels.code]


def _score(rng: np.random.Generator, layout: str, parcels: Parcels, coast: Field, snap: bool) -> Field:
    """How much a class wants each pixel, by its layout."""
    if layout == "sea":
        return coast
    if layout == "shore":
        return 1.5 - 1.2 * np.abs(coast) + 0.8 * smooth_field(rng, 4)
    if layout == "lake":
        if rng.random() >= 0.5:
            return 5.0 * fractal_field(rng, 2, octaves=3, persistence=0.35)
        angle = rng.uniform(0, np.pi)  # a river: highest on a bent line through the tile
        offset = rng.uniform(-0.25, 0.25) * EDGE
        line = np.cos(angle) * (_COLUMNS - EDGE / 2) + np.sin(angle) * (_ROWS - EDGE / 2) - offset
        return 3.0 - np.abs(line + 9.0 * smooth_field(rng, 3)) / 2.5
    if layout == "settlement":
        y, x = rng.uniform(0, EDGE, 2)
        distance = np.hypot(_ROWS - y, _COLUMNS - x) / EDGE
        return _parcel_mean((2.0 - 4.0 * distance + 0.4 * smooth_field(rng, 5)).astype(np.float32), parcels)
    if layout == "parcel":
        mixed = smooth_field(rng, 3) + 0.6 * rng.standard_normal(PARCEL_CODES, dtype=np.float32)[parcels.code]
        return _parcel_mean(mixed, parcels)
    score = fractal_field(rng, int(rng.integers(2, 5)))
    return _parcel_mean(score, parcels) if snap else score


def draw_cover(
    rng: np.random.Generator, classes: Sequence[str], parcels: Parcels, snap: bool = False
) -> NDArray[np.int8]:
    """Draw the map of classes (EDGE, EDGE) int8, indices into `LABELS`: every pixel goes to the class that wants it most.

    Classes, at most 8, are biased to cover a tenth of the tile each, or more. Those of farmland and settlements follow field edges;
    with `snap` the natural ones do too, as woods in farmland.
    """
    unknown = sorted(set(classes) - set(LABELS))
    if unknown or not classes:
        raise ValueError(
            f"classes must be one or more of the 19 names of csmae_hf.bigearthnet.LABELS, got {list(classes)}."
        )
    indices = np.array([LABELS.index(name) for name in classes], dtype=np.int8)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(angle) * (_COLUMNS - EDGE / 2) + np.sin(angle) * (_ROWS - EDGE / 2)) / EDGE
    ragged = rng.uniform(0.25, 0.6)
    # signed distance to a ragged coast, positive at sea
    coast = (8.0 * ramp + 2.0 * ragged * fractal_field(rng, 3, octaves=4)).astype(np.float32)
    scores = np.stack([_score(rng, COVER_STYLES[name].layout, parcels, coast, snap) for name in classes])
    least = 0.1
    shares = least + (1 - least * len(classes)) * rng.dirichlet(np.full(len(classes), 1.6))
    return indices[_fit_shares(scores, shares)]


def _fit_shares(scores: Field, shares: NDArray[np.float64], rounds: int = 8) -> NDArray[np.intp]:
    """Bias the scores (K, EDGE, EDGE) until each class wins about its share; the index of the winner of each pixel."""
    bias = np.zeros(len(shares), dtype=np.float32)
    winner = np.argmax(scores, axis=0)
    for _ in range(rounds if len(shares) > 1 else 0):
        won = np.bincount(winner.ravel(), minlength=len(shares)) / winner.size
        bias += (0.7 * np.log(shares / np.maximum(won, 0.01))).astype(np.float32)
        winner = np.argmax(scores + bias[:, None, None], axis=0)
    return winner


def cover_shares(cover: NDArray[np.int8]) -> Mapping[str, float]:
    """Measure the share (0 to 1) of a tile that each class covers, by name: of the classes in a map of indices into `LABELS`."""
    count = np.bincount(cover.ravel(), minlength=len(LABELS))
    return {LABELS[index]: float(number / cover.size) for index, number in enumerate(count) if number}
