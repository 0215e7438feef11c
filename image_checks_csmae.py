"""What CSMAE's image processor refuses and converts: bands of an image against what they are said to be.

Shapes in comments: B images of a sensor, H and W pixels of a band at its own resolution.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

BAND_METRES: dict[str, int] = {
    **dict.fromkeys(("B02", "B03", "B04", "B08", "VV", "VH"), 10),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20),
    **dict.fromkeys(("B01", "B09"), 60),
}
"""Ground size of a band's own pixel, metres."""

BAND_UNIT: dict[str, str] = {band: "db" if band in ("VV", "VH") else "dn" for band in BAND_METRES}
"""Unit in which a band is standardised: decibels, or digital numbers (surface reflectance x 10000)."""

UNIT_NAMES: dict[str, str] = {
    "db": "backscatter in dB",
    "linear": "backscatter in linear power",
    "dn": "digital numbers, reflectance x 10000",
    "dn+1000": "digital numbers with the offset of processing baseline 04.00, reflectance x 10000 + 1000",
    "reflectance": "reflectance 0-1",
}
"""Units an image may be given in, and what they mean."""

UNITS_OF: dict[str, tuple[str, ...]] = {"db": ("db", "linear"), "dn": ("dn", "dn+1000", "reflectance")}
"""Units that can be brought to a band's own."""

BRIGHTEST_REFLECTANCE = 2.0
"""A Sentinel-2 image with nothing above this is reflectance 0-1 (or empty), not digital numbers."""

FAINTEST_DB = -100.0
"""Backscatter below this is no-data: real values of BigEarthNet end at -53 dB, the noise floor of the instrument far above -100."""

OFFSET = 1000
"""What processing baseline 04.00 and later (since January 2022) adds to the digital numbers of Sentinel-2."""

DARKEST_WITH_OFFSET = (900, 1500)
"""An image whose darkest pixel of all bands lies here carries `OFFSET`: without it, real tiles of BigEarthNet end at 1 to 303."""

NO_DATA_PIXELS = 16
"""So many pixels of the same no-data value are no-data; fewer cannot be told from chance."""

WEAKEST_VV = -3.0
"""VV is above VH by this at the least, dB, as means of an image: real tiles go down to -1.2 (calm water, where both are noise)."""

NEAR_INFRARED = ("B07", "B08", "B8A")
"""Neighbouring bands that see nearly the same: their means differ by 25 % at most on land, however the ground looks."""

NEAR_INFRARED_RATIO, NEAR_INFRARED_LEAST = 1.5, 500
"""Greatest ratio between their means, and the brightness (digital numbers) from which it is looked at."""

SMOOTHEST, SMOOTHER_THAN_OTHERS = 0.12, 2.0
"""Least roughness (see `_look_coarse`) of a 10 m band: 0.19 or more of real tiles, against 0.06 or less of a 60 m band interpolated.
And how many times rougher another 10 m band of the image must be, for clouds are smooth in all of them."""

MOST_JUMPS = 0.001
"""Share of neighbouring pixels that differ by more than 128 in an image of 0 to 255: none in real dark water, more where larger
numbers were cut to 8 bits."""

IMAGES_AT_ONCE = 4
"""So many images of a band stay in the cache of a core."""

Signs = Iterator[tuple[Any, str]]
"""Which images, (B,) bool, show a sign that something is wrong, and what it means."""


class BandPixels(NamedTuple):
    """One band of a batch.

    Attributes:
        pixels: (B, H, W).
        low: Least value of each image, (B,); NaN if there is one.
        high: Greatest value of each image, (B,); NaN if there is one.
    """

    pixels: torch.Tensor
    low: np.ndarray
    high: np.ndarray


Bands = Mapping[str, BandPixels]


def check_images(sensor: str, groups: Mapping[str, torch.Tensor], unit: str | None, size: int) -> None:
    """Refuse images that are not what they should be; see [`CSMAEImageProcessor`] for what is looked for, and its limits.

    Args:
        sensor: Name of the sensor, for messages.
        groups: (B, bands, H, W) by the names of the bands of one size, joined by spaces.
        unit: Unit they were said to be in, one of `UNIT_NAMES`; None is the bands' own, and then guesses are made too.
        size: Pixels of 10 m along the edge of a tile.

    Raises:
        ValueError: With the image, the band, the sign and the remedy.
    """
    bands = measure_bands(groups)
    check_sizes(sensor, bands, size)
    check_finite(sensor, bands)
    check_units(sensor, bands, unit, size)
    check_no_data(sensor, bands)
    if unit is None:
        check_guesses(sensor, bands)


def measure_bands(groups: Mapping[str, torch.Tensor]) -> dict[str, BandPixels]:
    """Find each band's extremes, in one pass over the pixels (B, bands, H, W) as they came."""
    bands = {}
    for key, pixels in groups.items():
        if pixels.device.type == "cpu":  # numpy has these for every type, and many times faster than torch.aminmax
            flat = pixels.numpy().reshape(*pixels.shape[:2], -1)
            parts = [flat[start : start + IMAGES_AT_ONCE] for start in range(0, len(flat), IMAGES_AT_ONCE)]
            lows, highs = (
                np.concatenate(ends) for ends in zip(*((p.min(axis=2), p.max(axis=2)) for p in parts), strict=True)
            )
        else:
            numbers = pixels.float()
            lows, highs = torch.stack([numbers.amin(dim=(2, 3)), numbers.amax(dim=(2, 3))]).cpu().numpy()
        for name, *band in zip(key.split(), pixels.unbind(1), lows.T, highs.T, strict=True):
            bands[name] = BandPixels(*band)
    return bands


def check_sizes(sensor: str, bands: Bands, size: int) -> None:
    """Refuse a band that has neither the size of the tile nor that of its own pixels."""
    for name, band in bands.items():
        height, width = band.pixels.shape[1:]
        metres = BAND_METRES.get(name)
        native = size * 10 // metres if metres else None
        if height != width or not (height in (size, native) or (native is None and size % height == 0)):
            sizes = sorted({size, native or size})
            raise ValueError(
                f"{sensor} band {name} is {height} x {width} pixels: expected {' or '.join(f'{n} x {n}' for n in sizes)}, "
                f"a tile of {size * 10} m at {metres or 10} m a pixel. Crop or resample the tile, or build the "
                "processor with another size."
            )


def check_finite(sensor: str, bands: Bands) -> None:
    """Refuse NaN and infinite values."""
    for name, band in bands.items():
        if band.low.dtype.kind != "f":
            continue
        image = _first(~(np.isfinite(band.low) & np.isfinite(band.high)))
        if image is not None:
            finite = band.pixels[image].isfinite()
            raise ValueError(
                f"{sensor} band {name} of image {image} has {int((~finite).sum())} of {finite.numel()} values NaN or infinite: "
                "fill or leave out such tiles, the model would spread them over the whole image."
            )


def check_unit_name(sensor: str, bands: Sequence[str], unit: str) -> None:
    """Refuse a unit that does not exist or that the bands cannot be in; bands of unknown unit do not matter."""
    if unit not in UNIT_NAMES:
        raise ValueError(f"Unknown unit {unit!r} for {sensor}: expected one of {', '.join(UNIT_NAMES)}.")
    for own, allowed in UNITS_OF.items():
        group = [band for band in bands if BAND_UNIT.get(band) == own]
        if group and unit not in allowed:
            raise ValueError(f"{sensor} cannot be {UNIT_NAMES[unit]}: its bands {group} are {UNIT_NAMES[own]}.")


def convert_unit(pixels: torch.Tensor, unit: str | None) -> torch.Tensor:
    """Bring pixels to dB and digital numbers; the same tensor where there is nothing to do."""
    if unit == "linear":
        return 10 * pixels.float().log10()
    if unit == "reflectance":
        return 10_000 * pixels.float()
    if unit == "dn+1000":
        # reflectance a little below 0 was stored as a little below the offset: clipped, as older baselines were
        return (pixels.float() - OFFSET).clamp_(min=0)
    return pixels


# Certain signs


def check_units(sensor: str, bands: Bands, unit: str | None, size: int) -> None:
    """Refuse values that contradict the unit (None: the bands' own) they are given in; bands of unknown unit are left alone."""
    for own in UNITS_OF:
        group = {name: band for name, band in bands.items() if BAND_UNIT.get(name) == own}
        for name, band in group.items():
            if band.pixels.dtype in (torch.uint8, torch.int8):
                raise ValueError(
                    f"{sensor} band {name} has pixels of type {band.pixels.dtype}, too small for {UNIT_NAMES[own]}: larger values "
                    "have overflown, or it was stretched to be looked at. Read the band again in its own type."
                )
        if not group:
            continue
        lows = np.array([band.low for band in group.values()], np.float64)  # (bands, B)
        highs = np.array([band.high for band in group.values()], np.float64)
        # how far below 0 bicubic resampling may have taken bands that come larger than they were measured
        resampled = [band.pixels.shape[-1] * BAND_METRES[name] > size * 10 for name, band in group.items()]
        overshoot = np.where(np.array(resampled)[:, None], 0.25 * np.maximum(highs, 0), 0.0)
        for wrong, reason in _range_signs(unit or own, sensor, lows, highs, overshoot):
            image = _first(wrong)
            if image is not None:
                raise ValueError(
                    f"{sensor} image {image} runs from {lows[:, image].min():.6g} to {highs[:, image].max():.6g} where "
                    f"{UNIT_NAMES[unit or own]} was expected: {reason}."
                )


def _range_signs(unit: str, sensor: str, lows: np.ndarray, highs: np.ndarray, overshoot: np.ndarray) -> Signs:
    """What least and greatest values, (bands, B), say against a unit."""
    low, high = lows.min(axis=0), highs.max(axis=0)
    negative = (lows < -overshoot).any(axis=0)
    if unit == "db":
        yield (
            low < FAINTEST_DB,
            (f"values below {FAINTEST_DB:g} dB are no-data, often -9999 or -32768; fill or leave out such tiles"),
        )
        yield (
            (low >= 0) & (high > 1000),
            (
                "so large and positive it looks like digital numbers of Sentinel-2: check that the sensors are not swapped"
            ),
        )
        yield (
            lows.max(axis=0) >= 0,
            (
                f"a band without any value below 0 is linear power, or empty; pass units={{{sensor!r}: 'linear'}} to convert"
            ),
        )
    elif unit == "linear":
        yield low <= 0, "values of 0 or less are not linear power; leave units out if it is dB"
    elif unit == "dn":
        yield (
            negative & (low > FAINTEST_DB) & (high < 50),
            ("negative values in such a range look like Sentinel-1 in dB: check that the sensors are not swapped"),
        )
        yield (
            negative,
            (
                "negative values are no-data or overflown (read the band as uint16); clip them at 0 if an offset was subtracted"
            ),
        )
        yield (
            high <= BRIGHTEST_REFLECTANCE,
            (
                f"with nothing above {BRIGHTEST_REFLECTANCE:g} it is reflectance 0-1, or empty; pass "
                f"units={{{sensor!r}: 'reflectance'}} to convert"
            ),
        )
    elif unit == "dn+1000":
        yield low < OFFSET / 2, f"values below {OFFSET // 2} contradict the offset, or are no-data"
    else:
        yield negative, "negative values are no-data"
        yield (
            high > BRIGHTEST_REFLECTANCE,
            (
                f"values above {BRIGHTEST_REFLECTANCE:g} are not reflectance 0-1; leave units out if it is digital numbers"
            ),
        )


def check_no_data(sensor: str, bands: Bands) -> None:
    """Refuse pixels without a measurement: S2 at 0 in all bands or 65535 in one, a border at one value in all bands of S1."""

    def refuse(counts: np.ndarray, what: str) -> None:
        image = _first(counts >= NO_DATA_PIXELS)
        if image is not None:
            raise ValueError(
                f"{sensor} image {image} has {counts[image]} {what}: no-data. Crop or leave out such tiles."
            )

    optical, radar = (_largest(bands, unit) for unit in ("dn", "db"))
    if optical:
        full = np.logical_or.reduce([band.high == 65535 for name, band in bands.items() if BAND_UNIT.get(name) == "dn"])
        counts = np.where(full, NO_DATA_PIXELS, 0)
        refuse(counts, "or more pixels at 65535, the end of the type")
        for image in np.flatnonzero(np.logical_and.reduce([band.low == 0 for band in optical])):  # rare: most end here
            counts[image] = np.logical_and.reduce([_array(band.pixels[image]) == 0 for band in optical]).sum()
        refuse(counts, "pixels that are 0 in all bands")
    if radar:
        varied = np.logical_or.reduce([band.low < band.high for band in radar])
        borders = np.stack([_border(band.pixels) for band in radar])  # (bands, B, 4 edges)
        lowest = (borders == np.stack([band.low for band in radar])[..., None]).all(axis=0)
        refuse(lowest.sum(axis=1) * varied, "border pixels at one lowest value in all bands")
        refuse((borders == 0).all(axis=0).sum(axis=1), "border pixels at 0 in all bands")


def _largest(bands: Bands, unit: str) -> list[BandPixels]:
    """Those bands of a unit that have the largest size."""
    group = [band for name, band in bands.items() if BAND_UNIT.get(name) == unit]
    size = max((band.pixels.shape[-1] for band in group), default=0)
    return [band for band in group if band.pixels.shape[-1] == size]


def _border(pixels: torch.Tensor) -> np.ndarray:
    """First and last row and column of each image: (B, 4 edges)."""
    edges = (pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1])
    return np.concatenate([_array(edge) for edge in edges], axis=1)


# Guesses


def check_guesses(sensor: str, bands: Bands) -> None:
    """Refuse what looks wrong beyond the range of its values; bands in their own units, those of unknown unit are left alone.

    What is read wrongly is wrong in every image, and nature looks odd now and then. So a sign must show in more than half of the
    images given together; of fewer there is one warning, and they are taken as they are.
    """
    optical = {name: band for name, band in bands.items() if BAND_UNIT.get(name) == "dn"}
    signs = [_exchange_signs(bands)]
    if optical:
        signs += [
            _offset_guess(sensor, optical),
            _order_guess(optical),
            _overflow_guess(optical),
            _coarse_guess(optical),
        ]
    for wrong, reason in (sign for part in signs for sign in part):
        image = _first(wrong)
        if image is None:
            continue
        own = "dn" if optical else "db"
        if 2 * np.sum(wrong) > len(wrong):
            raise ValueError(
                f"{sensor} image {image} {reason}. If its values are right as they are, say so by units={{{sensor!r}: {own!r}}}."
            )
        logger.warning_once(
            f"An image of {sensor} {reason}. As most images beside it do not, it is taken as it is. (Said once.)"
        )


def _exchange_signs(bands: Bands) -> Signs:
    if "VV" in bands and "VH" in bands:
        difference = _means(bands["VV"].pixels) - _means(bands["VH"].pixels)
        yield (
            difference < WEAKEST_VV,
            f"has VH brighter than VV by more than {-WEAKEST_VV:g} dB, which nature does not: they are exchanged. Pass a dict by "
            "band name, or bring them into order",
        )


def _offset_guess(sensor: str, optical: Bands) -> Signs:
    """Nothing is dark in any band. Snow is bright in the visible, so a short-wave infrared band is needed to tell."""
    if {"B02", "B03", "B04"} & set(optical) and {"B11", "B12"} & set(optical):
        low = np.min([band.low for band in optical.values()], axis=0)
        least, most = DARKEST_WITH_OFFSET
        yield (
            (low >= least) & (low <= most),
            f"has no pixel below {least} in any band: it carries the offset of {OFFSET} of processing baseline 04.00 and later. Pass "
            f"units={{{sensor!r}: 'dn+1000'}} to subtract it",
        )


def _order_guess(optical: Bands) -> Signs:
    names = [name for name in NEAR_INFRARED if name in optical]
    if len(names) > 1:
        means = [_means(optical[name].pixels) for name in names]
        low, high = np.min(means, axis=0), np.max(means, axis=0)
        yield (
            (high > NEAR_INFRARED_LEAST) & (high > NEAR_INFRARED_RATIO * low),
            f"has near-infrared bands ({', '.join(names)}) that differ more than they do in nature: the bands are in another order. "
            "Pass a dict by band name",
        )


def _overflow_guess(optical: Bands) -> Signs:
    small = np.max([band.high for band in optical.values()], axis=0) <= 255
    for image in np.flatnonzero(small):  # rare: the full look is for these only
        steps = [np.abs(np.diff(_array(band.pixels[image]).astype(np.float32), axis=1)) for band in optical.values()]
        small[image] = np.mean([(step > 128).mean() for step in steps]) > MOST_JUMPS
    yield small, "jumps between 0 and 255: larger numbers were cut to 8 bits. Read it again in its own type"


def _coarse_guess(optical: Bands) -> Signs:
    """A band much smoother than the other 10 m bands, along rows and columns: where all are smooth, as of clouds, it is the scene."""
    names = [name for name in optical if BAND_METRES[name] == 10]
    coarse = _look_coarse([optical[name].pixels for name in names]) if names else np.zeros((0, 1), bool)
    if coarse.any():  # rare
        coarse &= _look_coarse([optical[name].pixels.transpose(1, 2) for name in names])
    for name, wrong in zip(names, coarse, strict=True):
        yield (
            wrong,
            f"has a band {name} that looks resampled from 60 m pixels, where 10 m was expected. Check which band it is",
        )


def _look_coarse(bands: Sequence[torch.Tensor]) -> np.ndarray:
    """Whether the rows of bands, (B, H, W) each, look interpolated from much larger pixels, or repeat them: (bands, B).

    Roughness is the mean square of how far a pixel lies off the middle of its neighbours, over the mean square of the steps between
    neighbours: 0 on a straight line, 0.75 in noise. Bands of hardly any steps, such as of calm water, are not judged.
    """
    # every 24th row and the one after it, (bands, B, rows, W) each
    lines, next_lines = (np.stack([_array(pixels[:, start::24]) for pixels in bands]) for start in (0, 1))
    numbers = lines.astype(np.float32)
    steps = numbers[..., 1:] - numbers[..., :-1]
    bends = steps[..., 1:] - steps[..., :-1]
    power, bend = (np.einsum("...hw,...hw->...", each, each) / each[0, 0].size for each in (steps, bends))
    strong = power >= 4
    roughness = bend / 4 / np.maximum(power, 1e-9)
    repeated = strong & (lines[:, :, : next_lines.shape[2]] == next_lines).all(axis=(2, 3))
    if not (strong & (roughness < SMOOTHEST)).any():  # nearly always
        return np.asarray(repeated)
    judged = strong & ((steps != 0).mean(axis=(2, 3)) > 0.25)
    roughest = np.max(np.where(judged, roughness, 0), axis=0)
    smooth = judged & (roughness < SMOOTHEST) & (SMOOTHER_THAN_OTHERS * roughness < roughest)
    return np.asarray(smooth | repeated)


def _means(pixels: torch.Tensor) -> np.ndarray:
    """Mean of each image, (B,), from every 16th pixel."""
    return _array(pixels[:, ::4, ::4]).astype(np.float32).mean(axis=(1, 2))


def _array(pixels: torch.Tensor) -> np.ndarray:
    return np.asarray(pixels.cpu().numpy())


def _first(wrong: Any) -> int | None:
    """The first image that is wrong, of (B,)."""
    return int(wrong.argmax()) if wrong.any() else None
