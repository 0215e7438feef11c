"""What CSMAE's image processor refuses and converts: bands of an image against what they are said to be.

Every verdict is a function of the image alone, not of what is given with it. Certain signs are always refused; guesses are for images
of which nobody says the unit, or that nobody takes as they are. Shapes in comments: B images of a sensor, H and W pixels of a band at
its own resolution.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

BAND_METRES: dict[str, int] = {
    **dict.fromkeys(("B02", "B03", "B04", "B08", "VV", "VH"), 10),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20),
    **dict.fromkeys(("B01", "B09"), 60),
}
"""Ground size of a band's own pixel, metres."""

BAND_UNIT: dict[str, str] = {band: "db" if band in ("VV", "VH") else "dn" for band in BAND_METRES}
"""Unit in which a band is standardised: decibels, or digital numbers (surface reflectance x 10000)."""

_STATISTICS: dict[str, tuple[float, float]] = {
    "B01": (340.76769064, 554.81258967),
    "B02": (429.9430203, 572.41639287),
    "B03": (614.21682446, 582.87945694),
    "B04": (590.23569706, 675.88746967),
    "B05": (950.68368468, 729.89827633),
    "B06": (1792.46290469, 1096.01480586),
    "B07": (2075.46795189, 1273.45393088),
    "B08": (2218.94553375, 1365.45589904),
    "B8A": (2266.46036911, 1356.13789355),
    "B09": (2246.0605464, 1302.3292881),
    "B11": (1594.42694882, 1079.19066363),
    "B12": (1009.32729131, 818.86747235),
    "VV": (-12.619993741972035, 5.115911777546365),
    "VH": (-19.29044597721542, 5.464428464912864),
}
"""Mean and standard deviation of each band over BigEarthNet-MM v1 (bigearthnet-common 2.8.0)."""

BAND_MEAN: dict[str, float] = {band: mean for band, (mean, _) in _STATISTICS.items()}
"""Mean of each band: Sentinel-2 in digital numbers, Sentinel-1 in dB."""

BAND_STD: dict[str, float] = {band: std for band, (_, std) in _STATISTICS.items()}
"""Standard deviation of each band, in the units of `BAND_MEAN`."""

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

DARKEST_NUMBERS, BRIGHTEST_PERCENT = 50, 200
"""A Sentinel-2 image with nothing above the first is in percent: the darkest water of real tiles reaches 82. Clouds in percent
reach 162, so up to the second, fractions and bright infrared tell percent from water."""

INFRARED_OF_WATER = 0.4
"""Brightest infrared band over brightest visible band, as means: at most 0.22 in real water that has nothing above
`BRIGHTEST_PERCENT`."""

DARKEST_LAND, DARKEST_VISIBLE, BRIGHTER_INFRARED = 800, 180, 1.5
"""Numbers are ten times too small where hardly a pixel is above the first, the brightest visible band below the second as a mean, and
the infrared brighter by the third, as over plants and soil: there, 1 % of the pixels of any real tile are above 1,500."""

BRIGHTEST_INFRARED, BRIGHTEST_SHORT_WAVE, BRIGHTEST_MEAN = 8000, 9000, 14_000
"""Means that nature does not reach: of the infrared where the visible is much darker (real tiles: 3,044), of B11 (3,858; clouds
5,000), of any band (7,831)."""

BRIGHTEST_GROUND, BRIGHTEST_SPECKLE, SMOOTHEST_GROUND, LEAST_SPECKLE, ROUGHEST_GROUND = -11.0, -7.0, 0.3, 1.6, 3.0
"""Mean of VH, dB, above which backscatter is none: -14.6 in real tiles. Dense cities may be as bright, but the deviation within
6 x 6 pixels, by its median, is greater there than the last (real tiles: 1.5 to 2.7). Below the third nothing is to be judged. With
less than the fourth it is no speckle of power, but of amplitude, whose decibels are half; with more, the second mean counts."""

EMPTY_PART, AS_BRIGHT_THERE, BRIGHT_THERE, GAP = 0.03, 0.6, 200, 30
"""So large a share of a band at its least value is a hole where the neighbouring band is as bright there as elsewhere, by the second,
and above the third: dark pixels that Sen2Cor clips at 1 are dark in the neighbouring band too (0.42 and 218 at most). Nor do they lie
apart from all others of the band by the fourth."""

NEIGHBOURS: dict[str, str] = {
    "B02": "B03", "B03": "B04", "B04": "B03", "B05": "B06", "B06": "B07", "B07": "B8A", "B08": "B07", "B8A": "B07", "B11": "B12",
    "B12": "B11",
}  # fmt: skip
"""Of each band one that sees the ground nearly alike."""

LEAST_CONSTANT = 20
"""A band of one value above this is none (digital numbers): over calm water all pixels may be 1, the least that Sen2Cor gives."""

BRIGHTEST_NUMBER = 60_000
"""Digital numbers above this are none: integers that wrapped below 0 end at 65,535, real tiles at 16,224."""

FAINTEST_DB, STRONGEST_DB = -100.0, 70.0
"""Backscatter below the first is no-data, above the second no dB: real values of BigEarthNet lie from -53 to 20 dB, the noise floor of
the instrument far above -100."""

STANDARDISED_DB = {"VH": -5.0, "VV": -4.0}
"""A mean backscatter above this is none: real tiles have -13.9 and -6.6 dB at most. Standardised, -2.4 and -3.4 at least."""

STANDARDISED_LEAST, STANDARDISED_MOST = -12.0, 15.0
"""Pixels of standardised Sentinel-1 lie between these. The lowest of any real tile in dB lies below -24."""

OFFSET = 1000
"""What processing baseline 04.00 and later (since January 2022) adds to the digital numbers of Sentinel-2."""

DARKEST_WITH_OFFSET, MOST_DARK = (900, 1500), 0.02
"""An image carries `OFFSET` if its darkest pixels lie here, but for this share of each band (a few dark pixels must not hide it).
Without it, at least 0.067 of some band of a real tile lie below: the least in bright snow."""

NO_DATA_PIXELS = 16
"""So many pixels of the same no-data value are no-data; fewer cannot be told from chance."""

HOLE = 4
"""Edge, in pixels, of a square that holds one value in all bands: no-data. Sensor noise makes even calm water differ."""

SHADOW = 300
"""Sen2Cor clips dark pixels at 1, so shadows are of one value too: but their surroundings are darker than this, by the median."""

WEAKEST_VV = -3.0
"""VV is above VH by this at the least, dB, as means of an image: real tiles go down to -1.2 (calm water, where both are noise)."""

NEAR_INFRARED = ("B07", "B08", "B8A")
"""Neighbouring bands that see nearly the same: their means differ by 25 % at most on land, however the ground looks."""

NEAR_INFRARED_RATIO, NEAR_INFRARED_LEAST = 1.5, 500
"""Greatest ratio between their means, and the brightness (digital numbers) from which it is looked at."""

SMOOTHEST, SMOOTHER_THAN_OTHERS = 0.12, 2.0
"""Least roughness (see `_look_coarse`) of a 10 m band: 0.19 or more of real tiles, against 0.06 or less of a 60 m band interpolated.
And how many times rougher the 10 m bands of the image must be, by their median, for clouds are smooth in most of them."""

MOST_JUMPS = 0.001
"""Share of neighbouring pixels that differ by more than 128 in an image of 0 to 255: none in real dark water, more where larger
numbers were cut to 8 bits."""

IMAGES_AT_ONCE = 4
"""So many images of a band stay in the cache of a core."""

SUSPECT = ("refuse", "accept")
"""What may be done with images that show a sign which is a guess."""


class SuspectImageError(ValueError):
    """Images look wrong in a way that is a guess; `suspect="accept"` would take them as they are."""


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


class Images(NamedTuple):
    """Images of one sensor and unit that are being checked.

    Attributes:
        sensor: Name of the sensor, for messages.
        bands: Their bands.
        unit: Unit they were said to be in; None where nobody said one.
        places: Number by which messages call each, (B,).
        sources: What images were given as, by this number.
    """

    sensor: str
    bands: Bands
    unit: str | None
    places: Sequence[int]
    sources: Mapping[int, Any] = {}

    def of_unit(self, own: str) -> dict[str, BandPixels]:
        """Those bands that are standardised in a unit, "db" or "dn"."""
        return {name: band for name, band in self.bands.items() if BAND_UNIT.get(name) == own}

    def refuse(self, wrong: Any, say: Callable[[int, str], str], error: type[ValueError] = ValueError) -> None:
        """Refuse images where `wrong`, (B,) bool: `say` describes the first, by its row and what to call it; all are named."""
        rows = np.flatnonzero(wrong)
        if not len(rows):
            return
        first, *others = (self.places[int(row)] for row in rows)
        named = [str(place) for place in others[:50]] + ([f"{len(others) - 50} more"] if len(others) > 50 else [])
        listed = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else "".join(named)
        also = f" The same shows in image{'s' if len(named) > 1 else ''} {listed}." if named else ""
        raise error(f"{say(int(rows[0]), f'image {first}')}.{also}")


Signs = Iterator[tuple[Any, str]]
"""Which images, (B,) bool, show a sign that something is wrong, and what it means."""


def check_images(
    sensor: str,
    groups: Mapping[str, torch.Tensor],
    unit: str | None,
    size: int,
    *,
    suspect: str = "refuse",
    places: Sequence[int] | None = None,
    sources: Mapping[int, Any] | None = None,
) -> None:
    """Refuse images that are not what they should be; see [`CSMAEImageProcessor`] for what is looked for, and its limits.

    Args:
        sensor: Name of the sensor, for messages.
        groups: (B, bands, H, W) by the names of the bands of one size, joined by spaces.
        unit: Unit they were said to be in, one of `UNIT_NAMES`; None is the bands' own, and then it is guessed whether it is another.
        size: Pixels of 10 m along the edge of a tile.
        suspect: "refuse", or "accept" images that show a sign which is a guess.
        places: Numbers by which messages call the images; default from 0.
        sources: By these numbers, what images were given as: its `facts.no_data`, if it has any, says what its file declares.

    Raises:
        SuspectImageError: Where the sign is a guess; with the images, the sign and the remedy.
        ValueError: Where the sign is certain; with the image, the band, the sign and the remedy.
    """
    bands = measure_bands(groups)
    check_sizes(sensor, bands, size)
    count = len(next(iter(groups.values())))
    images = Images(sensor, bands, unit, range(count) if places is None else places, sources or {})
    check_finite(images)
    check_units(images, size)
    check_no_data(images)
    check_copies(images)
    if suspect == "refuse":
        check_guesses(images)


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
            larger = min(height, width) >= sizes[0]
            wanted = size if min(height, width) >= size else sizes[0]
            remedy = (
                f"Cut tiles out of it (gdal_translate -srcwin COLUMN ROW {wanted} {wanted} IN.tif OUT.tif, or a window of rasterio)"
                if larger
                else "It covers less ground than a tile: cut a larger piece out of its scene, or resample what is coarser"
            )
            raise ValueError(
                f"{sensor} band {name} is {height} x {width} pixels: expected {' or '.join(f'{n} x {n}' for n in sizes)}, "
                f"a tile of {size * 10} m at {metres or 10} m a pixel. {remedy}; or build model and processor with another size."
            )


def check_finite(images: Images) -> None:
    """Refuse NaN and infinite values."""
    for name, band in images.bands.items():
        if band.low.dtype.kind != "f":
            continue

        def say(row: int, image: str, name: str = name, band: BandPixels = band) -> str:
            finite = band.pixels[row].isfinite()
            facts = getattr(images.sources.get(images.places[row]), "facts", None)
            declared = (getattr(facts, "no_data", None) or {}).get(name)
            by = f" ({declared} of them are no-data, as its file says)" if declared else ""
            return (
                f"{images.sensor} band {name} of {image} has {int((~finite).sum())} of {finite.numel()} values NaN or infinite{by}: "
                "fill or leave out such tiles, the model would spread them over the whole image"
            )

        images.refuse(~(np.isfinite(band.low) & np.isfinite(band.high)), say)


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


def check_units(images: Images, size: int) -> None:
    """Refuse values that contradict the unit (None: the bands' own) they are given in; bands of unknown unit are left alone."""
    sensor = images.sensor
    for own in UNITS_OF:
        group = images.of_unit(own)
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
        unit = images.unit or own
        signs = _radar_signs if own == "db" else _optical_signs
        for wrong, reason in signs(unit, sensor, group, lows, highs, overshoot):

            def say(row: int, image: str, reason: str = reason, lows: Any = lows, highs: Any = highs) -> str:
                return (
                    f"{sensor} {image} runs from {lows[:, row].min():.6g} to {highs[:, row].max():.6g} where "
                    f"{UNIT_NAMES[images.unit or own]} was expected: {reason}"  # noqa: B023 (called at once)
                )

            images.refuse(wrong, say)


def _radar_signs(
    unit: str, sensor: str, group: Bands, lows: np.ndarray, highs: np.ndarray, overshoot: np.ndarray
) -> Signs:
    """What least and greatest values, (bands, B), say against a unit of Sentinel-1."""
    low, high = lows.min(axis=0), highs.max(axis=0)
    holes = lows == 0  # bands with pixels at 0, which in linear power is no measurement
    if unit == "linear":
        yield low < 0, "values of 0 or less are not linear power; leave units out if it is dB"
        yield (
            lows.max(axis=0) >= 1,
            "a band without any value below 1 is no linear power but the amplitude of an uncalibrated GRD, say: calibrate it "
            "(to sigma nought)",
        )
        for row in np.flatnonzero(holes.any(axis=0))[:1]:
            yield (
                np.arange(len(low)) == row,
                f"its {_count_zeros(group, row)} at 0 are no-data, as HyP3 and others mark it; fill, crop or leave out such tiles",
            )
        return
    yield (
        low < FAINTEST_DB,
        f"values below {FAINTEST_DB:g} dB are no-data, often -9999 or -32768; fill or leave out such tiles",
    )
    yield (
        (low >= 0) & ((high > 1000) | (lows.max(axis=0) >= 1)),  # power is below 1 somewhere
        "so large and positive it looks like digital numbers of Sentinel-2, or like the amplitude of an uncalibrated GRD: check that "
        "the sensors are not swapped, and calibrate amplitude (to sigma nought)",
    )
    powerful = lows.max(axis=0) >= 0
    for row in np.flatnonzero(powerful & (holes & (highs > 0)).any(axis=0))[:1]:
        yield (
            np.arange(len(low)) == row,
            f"a band without any value below 0 is linear power, which units={{{sensor!r}: 'linear'}} (--units {sensor}=linear) would "
            f"convert; but its {_count_zeros(group, row)} at 0 are no-data there: fill, crop or leave out such tiles",
        )
    yield (
        powerful,
        f"a band without any value below 0 is linear power, or empty; pass units={{{sensor!r}: 'linear'}} to convert "
        f"(--units {sensor}=linear). Amplitude has to be squared before",
    )
    yield (
        high > STRONGEST_DB,
        f"values above {STRONGEST_DB:g} dB are no backscatter; read the file again in its own type",
    )
    standardised = (low > STANDARDISED_LEAST) & (high < STANDARDISED_MOST)
    if standardised.any():  # rare: the means are for these only
        name = "VH" if "VH" in group else next(iter(group))
        standardised &= _means(group[name].pixels) > STANDARDISED_DB[name]
        yield standardised, _standardised("mean backscatter is far lower")


def _count_zeros(group: Bands, row: int) -> str:
    """Number of pixels at 0 in any band of an image."""
    zeros = np.logical_or.reduce([_array(band.pixels[row]) == 0 for band in group.values()])
    return f"{int(zeros.sum())} pixel{'s' if zeros.sum() > 1 else ''}"


def _standardised(reason: str) -> str:
    return (
        f"{reason}, so it looks standardised already, as the processor's own output is; give the image as it was before, or "
        "standardised pixels to the model itself"
    )


def _optical_signs(
    unit: str, sensor: str, group: Bands, lows: np.ndarray, highs: np.ndarray, overshoot: np.ndarray
) -> Signs:
    """What least and greatest values, (bands, B), say against a unit of Sentinel-2."""
    low, high = lows.min(axis=0), highs.max(axis=0)
    negative = (lows < -overshoot).any(axis=0)
    if unit == "reflectance":
        yield negative, "negative values are no-data"
        yield (
            high > BRIGHTEST_REFLECTANCE,
            f"values above {BRIGHTEST_REFLECTANCE:g} are not reflectance 0-1; leave units out if it is digital numbers",
        )
        return
    too_bright = high > BRIGHTEST_NUMBER
    swapped = _look_swapped(group, low, high)
    yield (
        swapped,
        "its numbers make sense with their two bytes exchanged: the file was read in the other byte order; read it in its own",
    )
    for row in np.flatnonzero(too_bright):  # rare
        too_bright[row] = any(
            ((pixels > BRIGHTEST_NUMBER) & (pixels != 65535)).any()
            for pixels in (_array(band.pixels[row]) for band in group.values())
        )
    yield (
        too_bright,
        f"values above {BRIGHTEST_NUMBER} are no reflectance: integers that wrapped below 0, as an offset subtracted in an unsigned "
        "type leaves them; subtract in a signed type and clip at 0",
    )
    if unit == "dn+1000":
        yield low < OFFSET / 2, f"values below {OFFSET // 2} contradict the offset, or are no-data"
        return
    small = (low > -8) & (high < 130) & ((low < -0.15) | (high > BRIGHTEST_REFLECTANCE))
    floating = any(band.pixels.is_floating_point() for band in group.values())
    yield (low < 0) & small & floating, _standardised("digital numbers are far larger")
    yield (
        negative & (low > FAINTEST_DB) & (high < 50),
        "negative values in such a range look like Sentinel-1 in dB: check that the sensors are not swapped",
    )
    yield (
        negative,
        "negative values are no-data or overflown (read the band as uint16); clip them at 0 if an offset was subtracted",
    )
    yield (
        high <= BRIGHTEST_REFLECTANCE,
        f"with nothing above {BRIGHTEST_REFLECTANCE:g} it is reflectance 0-1, or empty; pass "
        f"units={{{sensor!r}: 'reflectance'}} to convert (--units {sensor}=reflectance)",
    )
    percent = high <= BRIGHTEST_PERCENT
    fine = [band.pixels for name, band in group.items() if BAND_METRES[name] == 10 and band.pixels.is_floating_point()]
    for row in np.flatnonzero(percent & (high > DARKEST_NUMBERS)):  # rare: dark water, or percent with clouds
        fractions = [(_array(pixels[row]) % 1 != 0).mean() for pixels in fine]
        percent[row] = bool(fractions) and np.mean(fractions) > 0.5
    yield percent, f"so small it looks like {_PERCENT}"


_PERCENT = "reflectance in percent, not digital numbers; multiply it by 100"


def _look_swapped(group: Bands, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether integers have their two bytes exchanged: too large ones that are not when turned, or whole multiples of 256."""
    swapped = np.zeros(len(high), bool)
    coarse = np.ones(len(high), bool)
    for band in group.values():
        if coarse.any():
            coarse &= (_array(band.pixels[:, 0, :8]) % 256 == 0).all(axis=1)
    possible = (high > 255) & ((high > BRIGHTEST_NUMBER) | coarse) & (low < BRIGHTEST_NUMBER)
    for row in np.flatnonzero(possible):  # rare
        arrays = [_array(band.pixels[row]) for band in group.values()]
        if not all((array >= 0).all() and (array <= 65535).all() and (array % 1 == 0).all() for array in arrays):
            continue
        turned = [array.astype(np.uint16).byteswap() for array in arrays]
        varied = sum(int((array != array[0, 0]).any()) for array in arrays) > len(arrays) // 2
        swapped[row] = varied and max(int(array.max()) for array in turned) < BRIGHTEST_NUMBER / 2
    return swapped


def check_no_data(images: Images) -> None:
    """Refuse pixels without a measurement.

    For Sentinel-2 these are pixels at 0 in all bands or at 65535 in one, for Sentinel-1 a border at one value in all bands, for both a
    square of one value in all bands.
    """
    sensor, remedy = images.sensor, "no-data. Crop or leave out such tiles"

    def refuse(counts: np.ndarray, what: str) -> None:
        images.refuse(
            counts >= NO_DATA_PIXELS, lambda row, image: f"{sensor} {image} has {counts[row]} {what}: {remedy}"
        )

    optical, radar = (_largest(images.of_unit(unit)) for unit in ("dn", "db"))
    if optical:
        group = images.of_unit("dn")

        def say_saturated(row: int, image: str) -> str:
            at = {
                name: int((band.pixels[row] == 65535).sum()) for name, band in group.items() if band.high[row] == 65535
            }
            total = sum(at.values())
            where = ", ".join(f"{name} {count}" for name, count in at.items())
            return f"{sensor} {image} has {total} pixel{'s' if total > 1 else ''} at 65535, the end of the type: {remedy} ({where})"

        images.refuse(np.logical_or.reduce([band.high == 65535 for band in group.values()]), say_saturated)
        counts = np.zeros(len(images.places), int)
        for row in np.flatnonzero(np.logical_and.reduce([band.low == 0 for band in optical])):  # rare: most end here
            counts[row] = np.logical_and.reduce([_array(band.pixels[row]) == 0 for band in optical]).sum()
        refuse(counts, "pixels that are 0 in all bands")
    if radar:
        varied = np.logical_or.reduce([band.low < band.high for band in radar])
        borders = np.stack([_border(band.pixels) for band in radar])  # (bands, B, 4 edges)
        lowest = (borders == np.stack([band.low for band in radar])[..., None]).all(axis=0)
        refuse(lowest.sum(axis=1) * varied, "border pixels at one lowest value in all bands")
        refuse((borders == 0).all(axis=0).sum(axis=1), "border pixels at 0 in all bands")
    for own in ("dn", "db"):
        refuse(_hole_sizes(images, own), "pixels of one value in all bands, in one piece")


def _hole_sizes(images: Images, own: str) -> np.ndarray:
    """Number of pixels, (B,), in squares of one value in all bands of a unit."""
    group = images.of_unit(own)
    largest = _largest(group)
    counts = np.zeros(len(images.places), int)
    if not largest or largest[0].pixels.shape[-1] < 2 * HOLE:
        return counts
    varied = np.logical_and.reduce([band.low < band.high for band in largest])
    candidates = np.zeros(len(counts), bool)
    candidates[_where_square([_array(band.pixels) for band in largest])] = True
    candidates &= varied
    scale = 1e-4 if images.unit == "reflectance" else 1
    for row in np.flatnonzero(candidates):  # rare
        bands = [_array(band.pixels[row]) for band in largest]
        smaller = [_array(band.pixels[row]) for band in group.values() if band.pixels.shape[-1] < len(bands[0])]
        for mask in _holes(bands):
            clipped = (
                own == "dn" and max(float(band[mask].max()) for band in bands) <= scale
            )  # as Sen2Cor clips shadows
            for part in _pieces(mask) if clipped else [mask]:
                natural = clipped and _is_shadow(part, bands, scale)
                if not natural and all(_agrees(part, band) for band in smaller):
                    counts[row] += part.sum()
    return counts


def _where_square(bands: Sequence[np.ndarray]) -> np.ndarray:
    """Images of bands (B, H, W) that may have a square of one value: few others have pixels that are equal to neighbours both ways."""
    # any square holds a pixel in a row 4k + 2 and a column 3k, and its right neighbour: so few rows need not be read again
    rows, at_once = bands[-1][:, HOLE // 2 :: HOLE], 2 * IMAGES_AT_ONCE
    found = []
    for start in range(0, len(rows), at_once):  # in the cache, and in memory that need not be asked for
        part = rows[start : start + at_once]
        image, row, column = np.nonzero((part[:, :, :-1] == part[:, :, 1:])[:, :, :: HOLE - 1])
        found.append((image + start, row, column))
    image, row, column = (np.concatenate(places) for places in zip(*found, strict=True))
    row, column = HOLE * row + HOLE // 2, (HOLE - 1) * column
    for band in bands[:-1]:  # at few pixels
        kept = band[image, row, column] == band[image, row, column + 1]
        image, row, column = image[kept], row[kept], column[kept]
    below = np.minimum(row + 1, bands[-1].shape[1] - 1)
    sides = [
        np.logical_and.reduce([band[image, row, column] == band[image, other, column] for band in bands])
        for other in (row - 1, below)
    ]
    return np.asarray(image[sides[0] | sides[1]])


def _holes(bands: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """For each value that bands (H, W) have all over a square of `HOLE` pixels, its pixels (H, W) in such squares."""
    right = np.logical_and.reduce([band[:, 1:] == band[:, :-1] for band in bands])
    down = np.logical_and.reduce([band[1:] == band[:-1] for band in bands])
    squares = _runs(_runs(right, HOLE - 1, 1), HOLE, 0) & _runs(down, HOLE - 1, 0)[:, : 1 - HOLE]
    rows, columns = np.nonzero(squares)
    values = np.stack([band[rows, columns] for band in bands], axis=1)
    while len(rows):
        same = (values == values[0]).all(axis=1)
        squares[:] = False
        squares[rows[same], columns[same]] = True
        mask = np.zeros(bands[0].shape, bool)
        for down in range(HOLE):
            for right_by in range(HOLE):
                mask[down : down + len(squares), right_by : right_by + squares.shape[1]] |= squares
        yield mask
        rows, columns, values = rows[~same], columns[~same], values[~same]


def _runs(flags: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Where so many flags (H, W) in a row, along an axis, begin: fewer by `length` - 1 along it."""
    stop = flags.shape[axis] - length + 1
    parts = [flags[start : start + stop] if axis == 0 else flags[:, start : start + stop] for start in range(length)]
    return np.asarray(np.logical_and.reduce(parts))


def _pieces(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The parts (H, W) of a mask (H, W) that do not touch each other: a hole in bright ground is none of the shadows elsewhere."""
    left = mask.copy()
    while left.any():
        grown, piece = np.zeros_like(mask), np.zeros_like(mask)
        grown.flat[left.argmax()] = True
        while (grown != piece).any():
            piece, padded = grown, np.pad(grown, 1)
            around = padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
            grown = (piece | around) & mask
        left &= ~piece
        yield piece


def _is_shadow(mask: np.ndarray, bands: Sequence[np.ndarray], scale: float) -> bool:
    """Whether a piece (H, W) of pixels of one value lies amid dark ones."""
    padded = np.pad(mask, 1)
    around = (padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]) & ~mask
    brightest = np.max([band[around] for band in bands], axis=0) if around.any() else np.zeros(1)
    return bool(np.median(brightest) < SHADOW * scale)


def _agrees(mask: np.ndarray, band: np.ndarray) -> bool:
    """Whether a band of larger pixels has hardly more than one value within a hole (H, W), too."""
    factor = len(mask) // len(band)
    if factor * len(band) != len(mask):
        return True
    inside = band[mask.reshape(len(band), factor, len(band), factor).all(axis=(1, 3))]
    return len(inside) < 4 or len(np.unique(inside)) <= max(1, len(inside) // 16)


def check_copies(images: Images) -> None:
    """Refuse a band of one value (of Sentinel-2: above that of calm water) among bands that vary, and the same pixels as two bands."""
    sensor, bands = images.sensor, {name: band for name, band in images.bands.items() if name in BAND_UNIT}
    if len(bands) < 2:
        return
    lows, highs = (np.array([getattr(band, end) for band in bands.values()]) for end in ("low", "high"))
    flat = lows == highs  # (bands, B)
    if flat.any():
        for (name, band), same in zip(bands.items(), flat, strict=True):
            broken = same & ~flat.all(axis=0)
            if BAND_UNIT[name] == "dn":
                numbers = np.float64(band.low) * (1e4 if images.unit == "reflectance" else 1)
                with_offset = abs(numbers - OFFSET) <= LEAST_CONSTANT  # of calm water, whoever says so
                broken &= (numbers == 0) | ((numbers > LEAST_CONSTANT) & ~with_offset)
            images.refuse(
                broken,
                lambda row, image, name=name, band=band: (  # type: ignore[misc]
                    f"{sensor} band {name} of {image} is {band.low[row]:g} everywhere, where its other bands vary: it is empty. "
                    "Read the band again, or leave out such tiles"
                ),
            )
    names = list(bands)
    for place, name in enumerate(names):
        alike = (highs[place] == highs[place + 1 :]) & (lows[place] == lows[place + 1 :]) & ~flat[place]
        if not alike.any():
            continue
        for other, rows in zip(names[place + 1 :], alike, strict=True):
            if rows.any():
                for row in np.flatnonzero(rows):
                    rows[row] = _same_pixels(bands[name].pixels[row], bands[other].pixels[row])
                images.refuse(
                    rows,
                    lambda row, image, name=name, other=other: (  # type: ignore[misc]
                        f"{sensor} bands {name} and {other} of {image} have the same pixels: one was given twice. Check which is which"
                    ),
                )


def _same_pixels(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two bands (H, W) are equal, and it is no chance: over calm water nearly all pixels of several bands may be 1."""
    first, second = sorted((_array(one), _array(other)), key=len)
    factor = len(second) // len(first)
    if len(first) * factor != len(second):
        return False
    first = first.repeat(factor, axis=0).repeat(factor, axis=1)  # pixels repeated to the size of another band
    return bool((first == second).all() and (first != np.median(first)).mean() > 0.05)


def _largest(group: Bands) -> list[BandPixels]:
    """Those bands that have the largest size."""
    size = max((band.pixels.shape[-1] for band in group.values()), default=0)
    return [band for band in group.values() if band.pixels.shape[-1] == size]


def _border(pixels: torch.Tensor) -> np.ndarray:
    """First and last row and column of each image: (B, 4 edges)."""
    edges = (pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1])
    return np.concatenate([_array(edge) for edge in edges], axis=1)


# Guesses


def check_guesses(images: Images) -> None:
    """Refuse what looks wrong beyond the range of its values; bands of unknown unit are left alone.

    Guesses about the unit are for images of which nobody says it. Those about the bands are made in any unit.
    """
    sensor, optical, radar = images.sensor, images.of_unit("dn"), images.of_unit("db")
    own = "dn" if optical else "db"
    if images.unit is None and optical:
        remedy = (
            f"If its values are right as they are, say so by units={{{sensor!r}: {own!r}}} (--units {sensor}={own})"
        )
        _refuse_suspects(
            images,
            (
                *_overflow_guess(optical),
                *_scale_guess(sensor, optical),  # before the offset, which such bright numbers seem to carry
                *_offset_guess(sensor, optical),
                *_percent_guess(optical),
            ),
            remedy,
        )
    signs = [*_radar_guesses(radar, images.unit)]
    if optical:
        signs += [
            *_stretch_guess(optical),
            *_part_guess(optical, images.unit),
            *_order_guess(optical, images.unit),
            *_coarse_guess(optical, images.unit),
        ]
    _refuse_suspects(images, signs, "If it is right as it is, take it by suspect='accept' (--suspect accept)")


def _refuse_suspects(images: Images, signs: Sequence[tuple[Any, str]], remedy: str) -> None:
    for wrong, reason in signs:
        images.refuse(
            wrong,
            lambda row, image, reason=reason: f"{images.sensor} {image} {reason}. {remedy}",  # type: ignore[misc]
            SuspectImageError,
        )


def _offset_guess(sensor: str, optical: Bands) -> Signs:
    """Hardly anything is dark in any band. Snow is bright in the visible, and dark in the short-wave infrared. Where that is not there
    only plants tell: a near infrared far brighter than the visible."""
    visible, near = ([name for name in names if name in optical] for names in (("B02", "B03", "B04"), NEAR_INFRARED))
    tells_snow = not {"B11", "B12"}.isdisjoint(optical)
    if not visible or not (tells_snow or near):
        return
    least, most = DARKEST_WITH_OFFSET
    wrong = np.min([band.low for band in optical.values()], axis=0) <= most
    for band in optical.values():  # every 8th pixel of every 8th row says enough of nearly all images
        rows = np.flatnonzero(wrong)
        if len(rows):
            dark = _array(band.pixels[:, 4::8, 4::8])[rows] < least
            wrong[rows] = dark.mean(axis=(1, 2)) <= 5 * MOST_DARK
    for row in np.flatnonzero(wrong):  # rare
        arrays = [_array(band.pixels[row]) for band in optical.values()]
        bright = all((array < least).mean() <= MOST_DARK for array in arrays)
        wrong[row] = bright and any(((array >= least) & (array <= most)).any() for array in arrays)
        if wrong[row] and not tells_snow:
            first, second = (
                max(float(_array(optical[name].pixels[row]).mean()) for name in names) for names in (visible, near)
            )
            wrong[row] = second > BRIGHTER_INFRARED * first
    yield (
        wrong,
        f"has hardly a pixel below {least} in any band: it carries the offset of {OFFSET} of processing baseline 04.00 and later. "
        f"Pass units={{{sensor!r}: 'dn+1000'}} to subtract it (--units {sensor}=dn+1000)",
    )


def _percent_guess(optical: Bands) -> Signs:
    """Numbers as small as those of water, and an infrared as bright as that of land or clouds."""
    wrong = np.max([band.high for band in optical.values()], axis=0) <= BRIGHTEST_PERCENT
    visible, infrared = (
        [name for name in names if name in optical] for names in (("B02", "B03", "B04"), NEAR_INFRARED)
    )
    rows = np.flatnonzero(wrong)  # few
    if len(rows) and visible and infrared:
        first, second = (
            np.max([_array(optical[name].pixels)[rows, ::4, ::4].mean(axis=(1, 2)) for name in names], axis=0)
            for names in (visible, infrared)
        )
        wrong[rows] = second > INFRARED_OF_WATER * first
        yield wrong, f"is so dark, with a bright infrared, that it looks like {_PERCENT}"


def _scale_guess(sensor: str, optical: Bands) -> Signs:
    """Numbers as dark, or as bright, as no plants and no soil are: reflectance x 1000, stretched to 8 bits, or x 65535."""
    high = np.max([band.high for band in optical.values()], axis=0)
    visible = [optical[name].pixels for name in ("B02", "B03", "B04") if name in optical]
    infrared = [optical[name].pixels for name in NEAR_INFRARED if name in optical]
    stretched = high == 255  # the end of 8 bits, at many pixels
    for row in np.flatnonzero(stretched):  # rare
        stretched[row] = max((_array(band.pixels[row]) == 255).sum() for band in optical.values()) >= NO_DATA_PIXELS
    yield (
        stretched,
        "ends at 255 with many pixels there: it was stretched to 8 bits to be looked at. Read the original numbers",
    )
    dark, bright = np.zeros(len(high), bool), np.zeros(len(high), bool)
    if visible and infrared:
        rough = (
            _array(infrared[-1][:, ::24]).astype(np.float32).mean(axis=(1, 2))
        )  # few lines say which are worth a look
        for row in np.flatnonzero(
            ((rough > DARKEST_NUMBERS) & (rough < DARKEST_LAND)) | (rough > BRIGHTEST_INFRARED / 2)
        ):
            first, second = (
                max(float(_means(pixels[row : row + 1])[0]) for pixels in group) for group in (visible, infrared)
            )
            bright[row] = second > BRIGHTEST_INFRARED and first < 0.6 * second
            if second > BRIGHTER_INFRARED * first and first < DARKEST_VISIBLE:
                arrays = [_array(band.pixels[row])[::2, ::2] for band in optical.values()]
                dark[row] = all((array > DARKEST_LAND).mean() <= 0.01 for array in arrays)
        yield (
            dark,
            "is far darker than plants and soil are, by their bright infrared: its numbers look like reflectance x 1000, or smaller. "
            "Multiply them (reflectance x 10000 is expected)",
        )
    for name, band in optical.items():
        most = BRIGHTEST_SHORT_WAVE if name in ("B11", "B12") else BRIGHTEST_MEAN
        possible = np.flatnonzero(band.high > most)
        if len(possible):
            bright[possible] |= _means(band.pixels[possible.tolist()]) > most
    yield (
        bright,
        "is brighter than anything on the ground: its numbers look like reflectance x 65535, as 16-bit exports have it. Divide them "
        f"by 65535 and pass units={{{sensor!r}: 'reflectance'}} (--units {sensor}=reflectance)",
    )


_ENDS_OF_SCALES = (1, 100, 255, 1000, 1023, 4095, 10000, 65535)
"""Numbers up to which pictures are stretched."""


def _stretch_guess(optical: Bands) -> Signs:
    """Bands that all run from 0 or 1 to the same end of a scale: each was stretched by its own extremes, or they are copies."""
    if len(optical) > 3:
        lows, highs = (
            np.array([getattr(band, end) for band in optical.values()], np.float64) for end in ("low", "high")
        )
        same = (lows == lows[0]).all(axis=0) & (highs == highs[0]).all(axis=0)
        same &= np.isin(lows[0], (0, 1)) & np.isin(highs[0], _ENDS_OF_SCALES) & (lows[0] < highs[0])
        yield (
            same,
            "runs between the same two numbers in every band: each was stretched by its own extremes, to be looked at",
        )


def _part_guess(optical: Bands, unit: str | None) -> Signs:
    """A band that is at its least value in a part of the image where the neighbouring band is as bright as elsewhere."""
    scale, offset = (1e4, 0) if unit == "reflectance" else (1, OFFSET if unit == "dn+1000" else 0)
    for name, band in optical.items():
        other = optical.get(NEIGHBOURS.get(name, ""))
        if other is None or other.pixels.shape != band.pixels.shape:
            continue
        step = max(band.pixels.shape[1] // 5, 1)  # so few lines say enough of nearly all images
        lines, beside = _array(band.pixels[:, 2::step]), _array(other.pixels[:, 2::step])
        wrong = np.count_nonzero(lines == band.low[:, None, None], axis=(1, 2)) > EMPTY_PART / 4 * lines[0].size
        wrong &= band.low < band.high
        for row in np.flatnonzero(wrong):  # few
            low = float(band.low[row])
            wrong[row] = _is_empty_part(lines[row], beside[row], low, scale, offset, EMPTY_PART / 4) and _is_empty_part(
                _array(band.pixels[row]), _array(other.pixels[row]), low, scale, offset, EMPTY_PART
            )
        yield (
            wrong,
            f"has a band {name} that stays at its least value in a part of the image, where its neighbour does not: that part is "
            "empty. Read the band again, or leave out such tiles",
        )


def _is_empty_part(
    pixels: np.ndarray, beside: np.ndarray, low: float, scale: float, offset: float, least: float
) -> bool:
    """Whether more than a share `least` of pixels (H, W) is at the least value, and neither they nor the neighbouring band say why."""
    there = pixels == low
    share = np.count_nonzero(there) / there.size
    if not least < share < 1:
        return False
    if (float(pixels[~there].min()) - low) * scale > GAP:  # pixels that were clipped have others near them
        return True
    inside, outside = (float(beside[part].mean()) * scale - offset for part in (there, ~there))
    return inside > max(BRIGHT_THERE, AS_BRIGHT_THERE * outside)


def _radar_guesses(radar: Bands, unit: str | None) -> Signs:
    """VH far brighter than the ground is, without the contrasts of a city; and VH brighter than VV."""
    if "VH" not in radar:
        return
    mean = _means(radar["VH"].pixels, unit)
    wrong = mean > BRIGHTEST_GROUND
    for row in np.flatnonzero(wrong):  # rare
        pixels = _array(convert_unit(radar["VH"].pixels[row], unit)).astype(np.float32)
        edge = len(pixels) // 6 * 6
        windows = pixels[:edge, :edge].reshape(edge // 6, 6, edge // 6, 6)
        rough = float(np.median(windows.std(axis=(1, 3)))) if edge else 0.0
        wrong[row] = SMOOTHEST_GROUND < rough < (ROUGHEST_GROUND if mean[row] > BRIGHTEST_SPECKLE else LEAST_SPECKLE)
    if "VV" in radar:
        yield (
            _means(radar["VV"].pixels, unit) - mean < WEAKEST_VV,
            f"has VH brighter than VV by more than {-WEAKEST_VV:g} dB, which nature does not: they are exchanged. Pass a dict by "
            "band name, or bring them into order",
        )
    yield (
        wrong,
        f"is brighter than the ground is (mean of VH above {BRIGHTEST_GROUND:g} dB): it looks like amplitude, which has to be squared "
        "to be power, or like dB that were shifted or scaled. Bring it to linear power or dB",
    )


def _order_guess(optical: Bands, unit: str | None) -> Signs:
    names = [name for name in NEAR_INFRARED if name in optical]
    if len(names) > 1:
        means = [_means(optical[name].pixels, unit) for name in names]
        low, high = np.min(means, axis=0), np.max(means, axis=0)
        yield (
            (high > NEAR_INFRARED_LEAST) & (high > NEAR_INFRARED_RATIO * low),
            f"has near-infrared bands ({', '.join(names)}) that differ more than they do in nature: the bands are in another order. "
            "Pass a dict by band name",
        )


def _overflow_guess(optical: Bands) -> Signs:
    small = np.max([band.high for band in optical.values()], axis=0) <= 255
    for image in np.flatnonzero(small):  # rare: the full look is for these only
        wide = [band.pixels for band in optical.values() if band.high[image] > 128 + band.low[image]]
        rows = [_array(pixels[image]).astype(np.float32) for pixels in wide]
        jumps = [(np.abs(each[:, 1:] - each[:, :-1]) > 128).mean() for each in rows]
        small[image] = sum(jumps) / len(optical) > MOST_JUMPS
    yield small, "jumps between 0 and 255: larger numbers were cut to 8 bits. Read it again in its own type"


def _coarse_guess(optical: Bands, unit: str | None) -> Signs:
    """A band much smoother than the other 10 m bands, along rows and columns: where all are smooth, as of clouds, it is the scene."""
    names = [name for name in optical if BAND_METRES[name] == 10]
    coarse = _look_coarse([optical[name].pixels for name in names], unit) if names else np.zeros((0, 1), bool)
    if coarse.any():  # rare
        coarse &= _look_coarse([optical[name].pixels.transpose(1, 2) for name in names], unit)
    for name, wrong in zip(names, coarse, strict=True):
        yield (
            wrong,
            f"has a band {name} that looks resampled from 60 m pixels, where 10 m was expected. Check which band it is",
        )


def _look_coarse(bands: Sequence[torch.Tensor], unit: str | None) -> np.ndarray:
    """Whether the rows of bands, (B, H, W) each, look interpolated from much larger pixels, or repeat them: (bands, B).

    Roughness is the mean square of how far a pixel lies off the middle of its neighbours, over the mean square of the steps between
    neighbours: 0 on a straight line, 0.75 in noise. Bands of hardly any steps, such as of calm water, are not judged.
    """
    # every 24th row and the one after it, (bands, B, rows, W) each
    lines = np.stack([_array(pixels[:, ::24]) for pixels in bands])
    numbers = lines.astype(np.float32) * np.float32(10_000 if unit == "reflectance" else 1)
    steps = numbers[..., 1:] - numbers[..., :-1]
    bends = steps[..., 1:] - steps[..., :-1]
    power, bend = (np.einsum("...hw,...hw->...", each, each) / each[0, 0].size for each in (steps, bends))
    strong = power >= 4
    roughness = bend / 4 / np.maximum(power, 1e-9)
    repeated = np.zeros(strong.shape, bool)
    for place, pixels in enumerate(bands):
        below = _array(pixels[:, 1::24])
        same = (lines[place, :, : below.shape[1], :8] == below[..., :8]).all(axis=(1, 2)) & strong[place]
        if same.any():  # rare
            repeated[place] = same & (lines[place, :, : below.shape[1]] == below).all(axis=(1, 2))
    if not (strong & (roughness < SMOOTHEST)).any():  # nearly always
        return np.asarray(repeated)
    judged = strong & ((steps != 0).mean(axis=(2, 3)) > 0.25)
    middle = np.median(np.where(judged, roughness, 0), axis=0)
    smooth = judged & (roughness < SMOOTHEST) & (SMOOTHER_THAN_OTHERS * roughness < middle)
    return np.asarray(smooth | repeated)


def _means(pixels: torch.Tensor, unit: str | None = None) -> np.ndarray:
    """Mean of each image, (B,), from every 16th pixel, in the unit the band is standardised in."""
    sample = pixels[:, ::4, ::4]
    if unit is not None:
        sample = convert_unit(sample, unit)
    return _array(sample).astype(np.float32).mean(axis=(1, 2))


def _array(pixels: torch.Tensor) -> np.ndarray:
    return np.asarray(pixels.cpu().numpy())
