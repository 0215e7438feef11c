"""How the two sensors see a generated scene: Sentinel-2 digital numbers and Sentinel-1 backscatter from materials. Pure functions."""

from dataclasses import dataclass

import numpy as np

from csmae_hf.bigearthnet import BAND_SIZE, S1_BANDS, S2_BANDS
from csmae_hf.sample.landcover import EDGE, Field, fractal_field, smooth_field
from csmae_hf.sample.tables import (
    BACKSCATTER,
    CLOUD,
    HAZE,
    HEIGHT,
    IS_OPEN_GROUND,
    IS_WATER,
    MATERIALS,
    SIGNATURE_BANDS,
    SPECTRA,
)

_ROOFS = [MATERIALS.index("roof"), MATERIALS.index("bright_roof")]
_SNOW = MATERIALS.index("snow")
_TILT = np.linspace(-1.0, 1.0, len(SIGNATURE_BANDS), dtype=np.float32)

LOOKS: float = 4.4
"""Equivalent number of looks of the speckle, as of Sentinel-1 GRD in high resolution."""

_SPECKLE_KERNEL = (1.0, 0.6, 0.6, 0.36)
_SPECKLE_SHAPE = LOOKS * sum(w * w for w in _SPECKLE_KERNEL) / sum(_SPECKLE_KERNEL) ** 2


@dataclass(frozen=True)
class Surface:
    """What both sensors look at.

    Attributes:
        abundances: (materials, EDGE, EDGE), every pixel sums to 1.
        relief: (EDGE, EDGE) terrain height, arbitrary units (its slope counts).
        brightness: (EDGE, EDGE) relative brightness, about N(0, 1): parcels differ, and both sensors see it.
        texture_s2: (EDGE, EDGE) optical texture, relative.
        texture_s1: (EDGE, EDGE) backscatter texture, dB.
    """

    abundances: Field
    relief: Field
    brightness: Field
    texture_s2: Field
    texture_s1: Field


@dataclass(frozen=True)
class Sky:
    """What stands between the land and Sentinel-2.

    Attributes:
        snow: Share of open ground under snow, 0 to 1.
        cloud: Share of the tile under cloud, 0 to 1.
        sun: Relative length of shadows, about 0.6 in summer to 1.6 in winter.
        haze: Strength of the haze, about 0 to 1.
    """

    snow: float
    cloud: float
    sun: float
    haze: float


def _mix(table: Field, abundances: Field) -> Field:
    """Mix the rows of a table (materials, K) by abundance (materials, EDGE, EDGE): (K, EDGE, EDGE).

    In 16 strips of a tile, because products of so small matrices stay on one thread: the same bytes with any number of threads.
    """
    strips = abundances.reshape(len(MATERIALS), 16, -1).transpose(1, 0, 2)
    return np.ascontiguousarray((table.T @ strips).transpose(1, 0, 2)).reshape(-1, EDGE, EDGE)


def _step(field: Field, rows: int, columns: int) -> Field:
    """Difference to the neighbour `rows` down and `columns` right; 0 beyond the border."""
    padded = np.pad(field, ((0, rows), (0, columns)), mode="edge")
    return padded[rows:, columns:] - field


def _snowed_on(surface: Surface, snow: float, rng: np.random.Generator) -> Field:
    """Abundances after snowfall: open ground is white, canopies half so, water not at all."""
    if snow <= 0:
        return surface.abundances
    taken = np.where(HEIGHT > 0.5, 0.35, 1.0).astype(np.float32) * (~IS_WATER)
    patchy = np.clip(snow + 0.15 * fractal_field(rng, 4), 0.0, 1.0)
    left = surface.abundances * (1.0 - taken[:, None, None] * patchy)
    left[_SNOW] += 1.0 - left.sum(axis=0)
    return left


def spectra_of_the_day(rng: np.random.Generator) -> Field:
    """Draw the table of spectra (materials, bands) of one day: every material somewhat brighter or darker, and of another hue."""
    brightness = rng.normal(0, 0.10, (len(MATERIALS), 1))
    hue = rng.normal(0, 0.07, (len(MATERIALS), 1)) * _TILT
    return (SPECTRA * np.exp(brightness + hue)).astype(np.float32)


def see_s2(rng: np.random.Generator, surface: Surface, spectra: Field, sky: Sky) -> dict[str, np.ndarray]:
    """Render Sentinel-2 Level-2A: the day's spectra mixed by abundance, light and shade, haze, clouds, noise.

    Gives uint16 digital numbers of at least 1 by band, (size, size) with the native size of `BAND_SIZE`: the 20 m and 60 m bands are
    area means of the 10 m scene.
    """
    *_, height = mixed = _mix(np.column_stack([spectra, HEIGHT]), _snowed_on(surface, sky.snow, rng))
    scene = mixed[:-1]
    light = (
        0.09 * surface.brightness
        + surface.texture_s2
        + 0.22 * sky.sun * (_step(height, 1, 1) - 0.5 * np.maximum(_step(height, 1, 1), 0))
    )
    light = light + 0.5 * sky.sun * _step(surface.relief, 1, 1)
    scene *= np.exp(np.clip(light + rng.normal(0, 0.06), -1.2, 0.9))
    scene *= np.exp(rng.normal(0, 0.04) * _TILT)[:, None, None]
    haze = np.clip(sky.haze * np.exp(rng.normal(0, 0.3)) * (1 + 0.3 * smooth_field(rng, 3)), 0.0, 2.0)
    scene += HAZE[:, None, None] * haze
    if sky.cloud > 0:
        field = fractal_field(rng, 2, octaves=5, persistence=0.55)
        opacity = np.clip((field - np.quantile(field, 1.0 - sky.cloud)) * 1.6, 0.0, 0.95).astype(np.float32)
        scene *= 1.0 - 0.55 * np.roll(opacity, (9, 7), axis=(0, 1))  # the shadow of the cloud
        scene *= 1.0 - opacity
        scene += CLOUD[:, None, None] * opacity
    bands = {}
    for band in S2_BANDS:
        size = BAND_SIZE[band]
        image, step = scene[SIGNATURE_BANDS.index(band)], EDGE // size
        if step > 1:
            image = image.reshape(size, step, size, step).mean(axis=(1, 3))
        noise = rng.standard_normal(image.shape, dtype=np.float32) * (6.0 + 0.006 * image)  # of the detector
        bands[band] = np.clip(np.rint(image + noise), 1, 20000).astype(np.uint16)
    return bands


def backscatter_of_the_day(rng: np.random.Generator, wetness: float) -> Field:
    """Draw the table of backscatter (materials, VH VV) in dB of one day: moisture on open ground, wind on water, and chance."""
    table = BACKSCATTER + rng.normal(0, 0.35, (len(MATERIALS), 1)) + rng.normal(0, 0.25, BACKSCATTER.shape)
    moisture = 1.2 * wetness + rng.normal(0, 0.5)
    wind = rng.normal(0, 1.0)
    table[IS_OPEN_GROUND] += np.array([0.7, 1.0]) * moisture
    table[IS_WATER] += np.array([0.8, 3.2]) * wind
    return (table + rng.normal(0, 0.5) + rng.normal(0, 0.3, 2)).astype(np.float32)


def _speckle(rng: np.random.Generator, count: int) -> Field:
    """Multiplicative speckle (count, EDGE, EDGE) of mean 1 and `LOOKS` looks, correlated with the next pixel."""
    grains = rng.standard_gamma(_SPECKLE_SHAPE, (count, EDGE + 1, EDGE + 1), dtype=np.float32)
    here, right, below, across = _SPECKLE_KERNEL
    total = (
        here * grains[:, :-1, :-1]
        + right * grains[:, :-1, 1:]
        + below * grains[:, 1:, :-1]
        + across * grains[:, 1:, 1:]
    )
    return total / np.float32(_SPECKLE_SHAPE * sum(_SPECKLE_KERNEL))


def see_s1(rng: np.random.Generator, surface: Surface, backscatter: Field, look: float) -> dict[str, np.ndarray]:
    """Render Sentinel-1 GRD, float32 dB by band, (EDGE, EDGE): the day's power mixed by abundance, double bounce, foreshortening
    towards the side it looks from (1.0 or -1.0), speckle."""
    power = 10.0 ** ((backscatter + np.float32(rng.normal(0, 0.25))) / 10.0)
    *_, height = mixed = _mix(np.column_stack([power, HEIGHT]), surface.abundances)
    scene = mixed[:-1]
    # double bounce on buildings whose walls face the radar: few pixels, very bright
    strength = np.exp(1.1 * rng.standard_normal((EDGE, EDGE), dtype=np.float32) - 0.6)
    facing = rng.random((EDGE, EDGE), dtype=np.float32) < 0.3
    scene *= 1.0 + surface.abundances[_ROOFS].sum(axis=0) * strength * facing * 2.5
    slope = 2.2 * _step(height, 0, 1) + 5.0 * _step(surface.relief, 0, 1)
    decibels = 0.7 * surface.brightness + surface.texture_s1 + look * np.clip(slope, -4.0, 4.0)
    scene *= 10.0 ** (decibels / 10.0)
    seen = 10.0 * np.log10(np.maximum(scene * _speckle(rng, len(S1_BANDS)), 1e-6))
    return {band: np.ascontiguousarray(seen[index], dtype=np.float32) for index, band in enumerate(S1_BANDS)}
