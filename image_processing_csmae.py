"""Image processor for CSMAE: named bands in, standardised tensors out, and nothing that would be a silent wrong number."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from os import PathLike
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.utils import logging

try:
    from .configuration_csmae import DEFAULT_SENSORS, CSMAEPushMixin
except ImportError:  # imported as a plain top-level module
    if __package__:
        raise
    from configuration_csmae import DEFAULT_SENSORS, CSMAEPushMixin

logger = logging.get_logger(__name__)

BAND_MEAN: dict[str, float] = {
    "B01": 340.76769064,
    "B02": 429.9430203,
    "B03": 614.21682446,
    "B04": 590.23569706,
    "B05": 950.68368468,
    "B06": 1792.46290469,
    "B07": 2075.46795189,
    "B08": 2218.94553375,
    "B8A": 2266.46036911,
    "B09": 2246.0605464,
    "B11": 1594.42694882,
    "B12": 1009.32729131,
    "VV": -12.619993741972035,
    "VH": -19.29044597721542,
}
"""Mean of each band over BigEarthNet-MM v1: Sentinel-2 in digital numbers, Sentinel-1 in dB (bigearthnet-common 2.8.0)."""

BAND_STD: dict[str, float] = {
    "B01": 554.81258967,
    "B02": 572.41639287,
    "B03": 582.87945694,
    "B04": 675.88746967,
    "B05": 729.89827633,
    "B06": 1096.01480586,
    "B07": 1273.45393088,
    "B08": 1365.45589904,
    "B8A": 1356.13789355,
    "B09": 1302.3292881,
    "B11": 1079.19066363,
    "B12": 818.86747235,
    "VV": 5.115911777546365,
    "VH": 5.464428464912864,
}
"""Standard deviation of each band over BigEarthNet-MM v1, in the units of `BAND_MEAN`."""

BAND_METRES: dict[str, int] = {
    **dict.fromkeys(("B02", "B03", "B04", "B08", "VV", "VH"), 10),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 20),
    **dict.fromkeys(("B01", "B09"), 60),
}
"""Ground size of a band's own pixel, metres."""

BAND_UNIT: dict[str, str] = {band: "db" if band in ("VV", "VH") else "dn" for band in BAND_MEAN}
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

Array = np.ndarray | torch.Tensor
Bands = Mapping[str, Any] | Sequence[Any] | np.ndarray | torch.Tensor | str | PathLike
Native = dict[str, dict[str, torch.Tensor]]
"""Images by sensor and group of bands of one size, such as {"s2": {"B02 B08": (B, 2, 120, 120), "B05": (B, 1, 60, 60)}}."""


class CSMAEImageProcessor(CSMAEPushMixin, BaseImageProcessor):
    """Turns images of named bands, at their native resolutions, into what [`CSMAEModel`] takes.

    Every band is resampled to `size` (bicubic, corners aligned, as the original's reader does) and standardised by its
    mean and standard deviation, without clipping. Order, units and statistics are saved with the processor.

    What would be a silent wrong number is an error that names the image, the band and the remedy. *Certain* signs are always
    refused: missing bands, wrong sizes (a 60 m band for a 10 m one), NaN and infinite values, 8-bit pixels (too small for these
    units), Sentinel-1 below -100 dB or without any value below 0 (linear power), Sentinel-2 below 0, with nothing above 2
    (reflectance 0-1) or at 65535, and no-data: pixels at 0 in all Sentinel-2 bands, or a border along which all Sentinel-1 bands
    stay at one value. *Guesses* are made unless the unit is declared, for who declares it knows the pixels; their thresholds lie
    clear of all real tiles met here: the +1000 offset of baseline 04.00 (no pixel of any band below 900; needs a visible and
    a short-wave infrared band), VV and VH exchanged (VH 3 dB above VV), near-infrared bands out of order (the means of B07, B08, B8A
    differ by half), a 60 m band interpolated to 10 m (much smoother than the other 10 m bands, or of repeated pixels), and numbers cut
    to 8 bits (0 to 255 with jumps).

    No sign tells the order of similar bands in a bare array (blue, green and red, say): pass a dict by band name wherever the
    order is not beyond doubt. Nor are these seen: the offset in bands that lack a short-wave one or over thick cloud, VV and VH
    exchanged over water, a 20 m band interpolated to 10 m.

    Args:
        sensors: Bands by sensor, in the model's order. Default: the paper's Sentinel-1 and Sentinel-2.
        size: Height and width of the output, pixels of 10 m.
        band_mean: Mean by band. Default: BigEarthNet-MM v1.
        band_std: Standard deviation by band. Default: BigEarthNet-MM v1.
        transpose: Swap rows and columns of every image, which is how the original's reader fed its published weights.
        units: Unit by sensor of the images this processor is given, where a call does not say another: for an archive that
            holds linear power, say. Default: dB and digital numbers.

    Raises:
        ValueError: If a band lacks statistics, its standard deviation is not above 0, or a unit or band name is unusable.

    Example:
        >>> processor = CSMAEImageProcessor()
        >>> tile = {"VH": np.full((120, 120), -19.0), "VV": np.full((120, 120), -12.0)}
        >>> processor(s1=tile, units={"s1": "db"})["s1"].shape
        torch.Size([1, 2, 120, 120])
    """

    model_input_names = ["s1", "s2"]  # noqa: RUF012 (the form Transformers reads)

    def __init__(
        self,
        sensors: Mapping[str, Sequence[str]] | None = None,
        size: int = 120,
        band_mean: Mapping[str, float] | None = None,
        band_std: Mapping[str, float] | None = None,
        transpose: bool = False,
        units: Mapping[str, str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.sensors = {sensor: list(bands) for sensor, bands in (sensors or DEFAULT_SENSORS).items()}
        self.size = size
        used = list(dict.fromkeys(band for bands in self.sensors.values() for band in bands))
        means, stds = {**BAND_MEAN, **(band_mean or {})}, {**BAND_STD, **(band_std or {})}
        unknown = [band for band in used if band not in means or band not in stds]
        if unknown:
            raise ValueError(
                f"No mean and standard deviation for the bands {unknown}: pass band_mean and band_std for them."
            )
        spaced = [band for band in used if band.split() != [band]]
        if spaced:
            raise ValueError(
                f"The band names {spaced} hold spaces or nothing: groups of bands are named by joining them."
            )
        self.band_mean = {band: float(means[band]) for band in used}
        self.band_std = {band: float(stds[band]) for band in used}
        flat = [band for band, std in self.band_std.items() if not std > 0]
        if flat:
            raise ValueError(f"The standard deviation of {flat} is not above 0, so they cannot be standardised.")
        self.transpose = transpose
        self.units = dict(units or {})
        for sensor, unit in self.units.items():
            self._check_sensor(sensor)
            check_unit_name(sensor, self.sensors[sensor], unit)
        self.model_input_names = list(self.sensors)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from a saved configuration, whose fields `kwargs` may override: `from_pretrained(folder, sensors=...)`."""
        fields = ("sensors", "size", "band_mean", "band_std", "transpose", "units")
        overrides = {name: kwargs.pop(name) for name in fields if name in kwargs}
        settings = {**image_processor_dict, **overrides}
        if "units" not in overrides:  # of a sensor that was left out by `sensors`, the unit means nothing
            units, sensors = settings.get("units") or {}, settings.get("sensors") or DEFAULT_SENSORS
            settings["units"] = {sensor: unit for sensor, unit in units.items() if sensor in sensors}
        return super().from_dict(settings, **kwargs)

    def __call__(self, *args: Any, **images: Any) -> BatchFeature:
        """See [`CSMAEImageProcessor.preprocess`]."""
        return self.preprocess(*args, **images)

    def preprocess(
        self,
        *args: Any,
        return_tensors: str | None = "pt",
        device: str | torch.device | None = None,
        units: Mapping[str, str] | None = None,
        **images: Bands | None,
    ) -> BatchFeature:
        """Process images of one or more sensors, each passed by the sensor's name.

        Args:
            *args: Not accepted: an image without its sensor's name could be of any.
            return_tensors: `"pt"` or `"np"`.
            device: Where to process; default where the tensors are, for arrays the CPU.
            units: Unit by sensor in which the images are given, where it is not the processor's own. `"linear"` (Sentinel-1 in linear
                power), `"dn+1000"` (Sentinel-2 of processing baseline 04.00 and later) and `"reflectance"` (Sentinel-2 in 0-1)
                are converted; `"db"` and `"dn"` are the bands' own, said for certain.
            **images: For each sensor one image or a list of images. An image is a dict of bands, each (H, W) at its
                native resolution, or a stacked array (C, H, W) in the order of `sensors[sensor]`; a batch may also be
                a dict of (B, H, W) or an array (B, C, H, W). Bands are numpy arrays, torch tensors, or GeoTIFF paths.

        Returns:
            A tensor (B, C, size, size) float32 by sensor.

        Raises:
            ValueError: If a sensor is unknown, a band is missing or has a wrong size, or the pixels are not what they should
                be (see the class). The message names the image, the band and the remedy.
        """
        native = self.stack_native(*args, units=units, **images)
        return self.process_native(native, device=device, return_tensors=return_tensors)

    def stack_native(self, *args: Any, units: Mapping[str, str] | None = None, **images: Bands | None) -> Native:
        """Check images and stack their bands at native resolution: a third of the bytes, to be processed on another device.

        Args:
            *args: Not accepted, as in `preprocess`.
            units: As of `preprocess`; other units are converted here.
            **images: As of `preprocess`.

        Returns:
            By sensor, and by the names of the bands of one size, joined by spaces, a tensor (B, bands, H, W) in dB or digital
            numbers, of the type the bands came in where that is 16-bit integer, else float32. Made for `process_native`.

        Raises:
            ValueError: As `preprocess`.
        """
        if args:
            raise ValueError(
                f"Pass images by the name of their sensor, such as processor({next(iter(self.sensors))}=image)."
            )
        given = {sensor: value for sensor, value in images.items() if value is not None}
        if not given:
            raise ValueError(f"No images were given: pass one or more of {', '.join(self.sensors)} by name.")
        for sensor in (*given, *(units or {})):
            self._check_sensor(sensor)
        units = {**self.units, **(units or {})}
        return {sensor: self._stack_sensor(sensor, value, units.get(sensor)) for sensor, value in given.items()}

    def process_native(
        self,
        native: Mapping[str, Mapping[str, torch.Tensor]],
        *,
        device: str | torch.device | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Resample and standardise what `stack_native` made. Nothing is checked again, so nothing waits for the device.

        Args:
            native: The output of `stack_native`, on any device.
            device: Where to process; default where the tensors are.
            return_tensors: `"pt"` or `"np"`.

        Returns:
            A tensor (B, C, size, size) float32 by sensor: the same on any device to 1e-5, also under autocast and TF32.

        Raises:
            ValueError: If a sensor is unknown, or its groups do not hold its bands.
        """
        data = {}
        for sensor, groups in native.items():
            self._check_sensor(sensor)
            names = [band for key in groups for band in key.split()]
            if sorted(names) != sorted(self.sensors[sensor]):
                raise ValueError(
                    f"{sensor} comes with the bands {names}: expected {self.sensors[sensor]}, as stack_native gives."
                )
            moved = {key: pixels.to(device, non_blocking=True) for key, pixels in groups.items()}
            data[sensor] = self._process_sensor(sensor, moved)
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _check_sensor(self, sensor: str) -> None:
        if sensor not in self.sensors:
            raise ValueError(f"Unknown sensor {sensor!r}: this processor has {', '.join(self.sensors)}.")

    def _stack_sensor(self, sensor: str, value: Bands, unit: str | None) -> dict[str, torch.Tensor]:
        names = self.sensors[sensor]
        if unit is not None:
            check_unit_name(sensor, names, unit)
        groups = stack_bands(collect_images(value, sensor, names), sensor, names)
        bands = measure_bands(groups)
        self._check_sizes(sensor, bands)
        check_finite(sensor, bands)
        check_units(sensor, bands, unit, self.size)
        check_no_data(sensor, bands)
        if unit is None:
            check_guesses(sensor, bands)
        return {
            key: convert_unit(pixels, unit) if key.split()[0] in BAND_UNIT else pixels for key, pixels in groups.items()
        }

    def _check_sizes(self, sensor: str, bands: Mapping[str, "BandPixels"]) -> None:
        for name, band in bands.items():
            height, width = band.pixels.shape[1:]
            metres = BAND_METRES.get(name)
            native = self.size * 10 // metres if metres else None
            right = height == width and (height in (self.size, native) or (native is None and self.size % height == 0))
            if not right:
                sizes = sorted({self.size, native or self.size})
                raise ValueError(
                    f"{sensor} band {name} is {height} x {width} pixels: expected {' or '.join(f'{n} x {n}' for n in sizes)}, "
                    f"a tile of {self.size * 10} m at {metres or 10} m a pixel. Crop or resample the tile, or build the "
                    "processor with another size."
                )

    def _process_sensor(self, sensor: str, groups: Mapping[str, torch.Tensor]) -> torch.Tensor:
        order = self.sensors[sensor]
        first = next(iter(groups.values()))
        images = _new_images((len(first), len(order), self.size, self.size), first.device)
        # a few images at a time where there is a cache to stay in; on other devices as many as there are
        step = _IMAGES_AT_ONCE if first.device.type == "cpu" else max(len(first), 1)
        with _without_autocast(first.device.type):
            for key, pixels in groups.items():
                names = key.split()
                mean = _constant(tuple(self.band_mean[name] for name in names), torch.float32, pixels.device)[
                    :, None, None
                ]
                scale = _constant(tuple(1 / self.band_std[name] for name in names), torch.float32, pixels.device)[
                    :, None, None
                ]
                places = [order.index(name) for name in names]
                in_a_row = places == list(range(places[0], places[0] + len(places)))
                for start in range(0, len(pixels), step):
                    part = images[start : start + step]
                    target = (
                        part[:, places[0] : places[-1] + 1]
                        if in_a_row
                        else part.new_empty(len(part), len(places), *part.shape[2:])
                    )
                    _standardise_into(target, pixels[start : start + step], mean, scale)
                    if not in_a_row:
                        part.index_copy_(1, _constant(tuple(places), torch.int64, pixels.device), target)
        return images.transpose(2, 3).contiguous() if self.transpose else images


_IMAGES_AT_ONCE = 4


def _new_images(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Memory for a batch: numpy asks for large pages, torch does not, and to get small ones may take longer than to fill them."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, dtype=torch.float32, device=device)


def _without_autocast(device_type: str) -> Any:
    """Full precision inside a Trainer's mixed-precision step too."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _standardise_into(target: torch.Tensor, pixels: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> None:
    """Standardise and resample images, (B, bands, H, W), in place: fresh memory would cost more than the arithmetic."""
    if pixels.shape[-2:] == target.shape[-2:]:
        target.copy_(pixels).sub_(mean).mul_(scale)
    else:  # standardised first: there is less of it
        target.copy_(resample_bicubic(pixels.float().sub(mean).mul_(scale), target.shape[-1]))


def collect_images(value: Bands, sensor: str, bands: Sequence[str]) -> list[dict[str, Array]]:
    """Bring one image or a batch of images, in any form [`CSMAEImageProcessor.preprocess`] takes, into one form.

    Args:
        value: The images.
        sensor: Name of their sensor, for messages.
        bands: Names of the wanted bands, in the order of stacked arrays.

    Returns:
        Parts of the batch, in order: by band an array or tensor, (H, W) or (B, H, W).

    Raises:
        ValueError: If bands are missing, or shapes fit no form.
    """
    if hasattr(value, "keys"):  # any mapping, also one that is not registered as such
        return [_collect_mapping(cast(Mapping[str, Any], value), sensor, bands)]
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError(f"{sensor} is an empty list: pass at least one image.")
        return [part for image in value for part in collect_images(image, sensor, bands)]
    array = _as_array(value)
    if array.ndim not in (3, 4) or array.shape[-3] != len(bands):
        raise ValueError(
            f"{sensor} has shape {tuple(array.shape)}: expected ({len(bands)}, H, W) or (batch, {len(bands)}, H, W) with the "
            f"bands {list(bands)} in this order, or a dict by band name."
        )
    return [{band: array[..., place, :, :] for place, band in enumerate(bands)}]


def _collect_mapping(image: Mapping[str, Any], sensor: str, bands: Sequence[str]) -> dict[str, Array]:
    missing = [band for band in bands if band not in image]
    if missing:
        raise ValueError(f"{sensor} lacks the bands {missing}: got {sorted(image)}, expected {list(bands)}.")
    arrays = {band: _as_array(image[band]) for band in bands}
    if all(array.ndim == 2 for array in arrays.values()):
        return arrays
    for band, array in arrays.items():
        if array.ndim not in (2, 3):
            raise ValueError(f"{sensor} band {band} has shape {tuple(array.shape)}: expected (H, W) or (batch, H, W).")
    lengths = {band: array.shape[0] if array.ndim == 3 else 1 for band, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{sensor} has bands of different batch lengths: {lengths}.")
    return arrays


def stack_bands(images: Sequence[Mapping[str, Array]], sensor: str, bands: Sequence[str]) -> dict[str, torch.Tensor]:
    """Stack the bands of one size, over all images.

    Args:
        images: Parts of a batch, as of [`collect_images`].
        sensor: Name of their sensor, for messages.
        bands: Names of the bands, in order.

    Returns:
        By the names of the bands, joined by spaces, (B, bands, H, W): of their own type where they are 8 or 16-bit
        integers, else float32.

    Raises:
        ValueError: If a band differs in size between images.
    """
    groups: dict[tuple[str | None, tuple[int, ...]], list[str]] = {}
    for band in bands:
        shapes = {tuple(shape[-2:]) for shape in {image[band].shape for image in images}}
        if len(shapes) > 1:
            raise ValueError(f"{sensor} band {band} differs in size between the images of the batch: {sorted(shapes)}.")
        groups.setdefault((BAND_UNIT.get(band), shapes.pop()), []).append(band)
    lengths = [1 if image[bands[0]].ndim == 2 else image[bands[0]].shape[0] for image in images]
    return {" ".join(names): _stack_group(images, names, lengths, shape) for (_, shape), names in groups.items()}


def _stack_group(
    images: Sequence[Mapping[str, Array]], names: Sequence[str], lengths: Sequence[int], shape: tuple[int, ...]
) -> torch.Tensor:
    parts = [[image[name] for name in names] for image in images]
    kinds = {array.dtype for part in parts for array in part}
    whole = (sum(lengths), len(names), *shape)
    if all(isinstance(array, np.ndarray) for part in parts for array in part):  # many times faster than by tensors
        kind = np.dtype(np.float32) if len(kinds) > 1 else cast("np.dtype[Any]", kinds.pop())
        stacked = np.empty(whole, kind if kind.name in _SMALL_INTEGERS else np.float32)
        if all(array.ndim == 2 for part in parts for array in part):
            np.concatenate([array for part in parts for array in part], out=stacked.reshape(-1, shape[1]))
        else:
            _fill(stacked, parts, lengths)
        return torch.from_numpy(stacked)
    tensors = [[torch.as_tensor(array) for array in part] for part in parts]
    device = next(tensor.device for part in tensors for tensor in part if tensor.device.type != "cpu")
    kept = len(kinds) == 1 and str(tensors[0][0].dtype).removeprefix("torch.") in _SMALL_INTEGERS
    on_device = torch.empty(whole, dtype=tensors[0][0].dtype if kept else torch.float32, device=device)
    _fill(on_device, tensors, lengths)
    return on_device


def _fill(stacked: Any, parts: Sequence[Sequence[Any]], lengths: Sequence[int]) -> None:
    start = 0
    for part, length in zip(parts, lengths, strict=True):
        for place, pixels in enumerate(part):
            stacked[start : start + length, place] = pixels
        start += length


_SMALL_INTEGERS = ("uint8", "int8", "uint16", "int16")


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


def measure_bands(groups: Mapping[str, torch.Tensor]) -> dict[str, BandPixels]:
    """Find each band's extremes, in one pass over the pixels as they came.

    Args:
        groups: As of [`stack_bands`].

    Returns:
        Each band.
    """
    bands = {}
    for key, pixels in groups.items():
        lows, highs = _extremes(pixels)  # (B, bands)
        for name, *band in zip(key.split(), pixels.unbind(1), lows.T, highs.T, strict=True):
            bands[name] = BandPixels(*band)
    return bands


def _extremes(pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    if pixels.device.type == "cpu":  # numpy has these for every type, and many times faster than torch.aminmax
        flat = pixels.numpy().reshape(*pixels.shape[:2], -1)
        parts = [flat[start : start + _IMAGES_AT_ONCE] for start in range(0, len(flat), _IMAGES_AT_ONCE)]
        lows, highs = zip(*((part.min(axis=2), part.max(axis=2)) for part in parts), strict=True)
        return np.concatenate(lows), np.concatenate(highs)
    numbers = pixels.float()
    both = torch.stack([numbers.amin(dim=(2, 3)), numbers.amax(dim=(2, 3))]).cpu().numpy()
    return both[0], both[1]


def _first(wrong: Any) -> int | None:
    """The first image that is wrong, of (B,)."""
    return int(wrong.argmax()) if wrong.any() else None


def check_finite(sensor: str, bands: Mapping[str, BandPixels]) -> None:
    """Refuse NaN and infinite values.

    Args:
        sensor: Name of the sensor, for the message.
        bands: As of [`measure_bands`].

    Raises:
        ValueError: With the image, the band and the count.
    """
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
    """Refuse a unit that the bands of a sensor cannot be in.

    Args:
        sensor: Name of the sensor, for the message.
        bands: Names of its bands; those of unknown unit do not matter.
        unit: One of `UNIT_NAMES`.

    Raises:
        ValueError: If there is no such unit, or it is of another kind of band.
    """
    if unit not in UNIT_NAMES:
        raise ValueError(f"Unknown unit {unit!r} for {sensor}: expected one of {', '.join(UNIT_NAMES)}.")
    for own, allowed in UNITS_OF.items():
        group = [band for band in bands if BAND_UNIT.get(band) == own]
        if group and unit not in allowed:
            raise ValueError(f"{sensor} cannot be {UNIT_NAMES[unit]}: its bands {group} are {UNIT_NAMES[own]}.")


def check_units(sensor: str, bands: Mapping[str, BandPixels], unit: str | None, size: int) -> None:
    """Check that values look like the unit they are given in.

    Args:
        sensor: Name of the sensor, for the message.
        bands: As of [`measure_bands`]; bands of unknown unit are left alone.
        unit: One of `UNIT_NAMES`; None is the bands' own.
        size: Pixels of 10 m along the edge of the tile.

    Raises:
        ValueError: If the values contradict the unit.
    """
    for own in UNITS_OF:
        group = {name: band for name, band in bands.items() if BAND_UNIT.get(name) == own}
        for name, band in group.items():
            if band.pixels.dtype in (torch.uint8, torch.int8):
                raise ValueError(
                    f"{sensor} band {name} has pixels of type {band.pixels.dtype}, too small for {UNIT_NAMES[own]}: larger values "
                    "have overflown, or it was stretched to be looked at. Read the band again in its own type."
                )
        if group:
            _check_range(sensor, unit or own, group, size)


def _check_range(sensor: str, unit: str, bands: Mapping[str, BandPixels], size: int) -> None:
    """Refuse the first image whose least and greatest values contradict the unit."""
    lows = np.array([band.low for band in bands.values()], np.float64)  # (bands, B)
    highs = np.array([band.high for band in bands.values()], np.float64)
    for wrong, reason in _RANGE_SIGNS[unit](sensor, lows, highs, _overshoot(bands, highs, size)):
        image = _first(wrong)
        if image is not None:
            raise ValueError(
                f"{sensor} image {image} runs from {lows[:, image].min():.6g} to {highs[:, image].max():.6g} where "
                f"{UNIT_NAMES[unit]} was expected: {reason}."
            )


def _overshoot(bands: Mapping[str, BandPixels], highs: np.ndarray, size: int) -> np.ndarray:
    """How far below 0, (bands, B), bicubic resampling may have taken bands that come larger than they were measured."""
    resampled = [band.pixels.shape[-1] * BAND_METRES[name] > size * 10 for name, band in bands.items()]
    return np.where(np.array(resampled)[:, None], 0.25 * np.maximum(highs, 0), 0.0)


Signs = Iterator[tuple[Any, str]]


def _db_signs(sensor: str, lows: np.ndarray, highs: np.ndarray, overshoot: np.ndarray) -> Signs:
    faint = f"values below {FAINTEST_DB:g} dB are no-data, often -9999 or -32768; fill or leave out such tiles"
    yield lows.min(axis=0) < FAINTEST_DB, faint
    positive = lows.max(axis=0) >= 0
    swapped = (
        "so large and positive it looks like digital numbers of Sentinel-2: check that the sensors are not swapped"
    )
    yield positive & (lows.min(axis=0) >= 0) & (highs.max(axis=0) > 1000), swapped
    linear = (
        f"a band without any value below 0 is linear power, or empty; pass units={{{sensor!r}: 'linear'}} to convert"
    )
    yield positive, linear


def _linear_signs(sensor: str, lows: np.ndarray, highs: np.ndarray, overshoot: np.ndarray) -> Signs:
    yield lows.min(axis=0) <= 0, "values of 0 or less are not linear power; leave units out if it is dB"


def _dn_signs(sensor: str, lows: np.ndarray, highs: np.ndarray, overshoot: np.ndarray) -> Signs:
    negative = (lows < -overshoot).any(axis=0)
    like_db = (lows.min(axis=0) > FAINTEST_DB) & (highs.max(axis=0) < 50)
    yield (
        negative & like_db,
        "negative values in such a range look like Sentinel-1 in dB: check that the sensors are not swapped",
    )
    yield (
        negative,
        "negative values are no-data or overflown (read the band as uint16); clip them at 0 if an offset was subtracted",
    )
    reflectance = f"with nothing above {BRIGHTEST_REFLECTANCE:g} it is reflectance 0-1, or empty; pass "
    yield highs.max(axis=0) <= BRIGHTEST_REFLECTANCE, f"{reflectance}units={{{sensor!r}: 'reflectance'}} to convert"


def _offset_signs(sensor: str, lows: np.ndarray, highs: np.ndarray, overshoot: np.ndarray) -> Signs:
    yield (lows.min(axis=0) < OFFSET / 2), f"values below {OFFSET // 2} contradict the offset, or are no-data"


def _reflectance_signs(sensor: str, lows: np.ndarray, highs: np.ndarray, overshoot: np.ndarray) -> Signs:
    yield (lows < -overshoot).any(axis=0), "negative values are no-data"
    too_bright = (
        f"values above {BRIGHTEST_REFLECTANCE:g} are not reflectance 0-1; leave units out if it is digital numbers"
    )
    yield highs.max(axis=0) > BRIGHTEST_REFLECTANCE, too_bright


_RANGE_SIGNS: dict[str, Callable[[str, np.ndarray, np.ndarray, np.ndarray], Signs]] = {
    "db": _db_signs,
    "linear": _linear_signs,
    "dn": _dn_signs,
    "dn+1000": _offset_signs,
    "reflectance": _reflectance_signs,
}


def check_no_data(sensor: str, bands: Mapping[str, BandPixels]) -> None:
    """Refuse pixels without a measurement: S2 at 0 in all bands or 65535 in one, a border at one value in all bands of S1.

    Args:
        sensor: Name of the sensor, for the message.
        bands: As of [`measure_bands`]; bands of unknown unit are left alone.

    Raises:
        ValueError: With the image and the count.
    """
    optical, radar = (_largest(bands, unit) for unit in ("dn", "db"))
    if optical:
        full = np.logical_or.reduce([band.high == 65535 for name, band in bands.items() if BAND_UNIT.get(name) == "dn"])
        counts = np.where(full, NO_DATA_PIXELS, 0)
        _refuse_no_data(sensor, counts, "or more pixels at 65535, the end of the type")
        for image in np.flatnonzero(np.logical_and.reduce([band.low == 0 for band in optical])):  # rare: most end here
            counts[image] = np.logical_and.reduce([_array(band.pixels[image]) == 0 for band in optical]).sum()
        _refuse_no_data(sensor, counts, "pixels that are 0 in all bands")
    if radar:
        varied = np.logical_or.reduce([band.low < band.high for band in radar])
        borders = np.stack([_border(band.pixels) for band in radar])  # (bands, B, 4 edges)
        lowest = (borders == np.stack([band.low for band in radar])[..., None]).all(axis=0)
        _refuse_no_data(sensor, lowest.sum(axis=1) * varied, "border pixels at one lowest value in all bands")
        zero = (borders == 0).all(axis=0)
        _refuse_no_data(sensor, zero.sum(axis=1), "border pixels at 0 in all bands")


def _refuse_no_data(sensor: str, counts: np.ndarray, what: str) -> None:
    image = _first(counts >= NO_DATA_PIXELS)
    if image is not None:
        raise ValueError(f"{sensor} image {image} has {counts[image]} {what}: no-data. Crop or leave out such tiles.")


def _largest(bands: Mapping[str, BandPixels], unit: str) -> list[BandPixels]:
    """Those bands of a unit that have the largest size."""
    group = [band for name, band in bands.items() if BAND_UNIT.get(name) == unit]
    size = max((band.pixels.shape[-1] for band in group), default=0)
    return [band for band in group if band.pixels.shape[-1] == size]


def _border(pixels: torch.Tensor) -> np.ndarray:
    """First and last row and column of each image: (B, 4 edges)."""
    edges = (pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1])
    return np.concatenate([_array(edge) for edge in edges], axis=1)


def _array(pixels: torch.Tensor) -> np.ndarray:
    return np.asarray(pixels.cpu().numpy())


def check_guesses(sensor: str, bands: Mapping[str, BandPixels]) -> None:
    """Refuse what looks wrong beyond the range of its values; see [`CSMAEImageProcessor`] for what is looked for and its limits.

    What is read wrongly is wrong in every image, and nature looks odd now and then. So a sign must show in more than half of the
    images given together; of fewer there is one warning, and they are taken as they are.

    Args:
        sensor: Name of the sensor, for the message.
        bands: As of [`measure_bands`], in their own units; bands of unknown unit are left alone.

    Raises:
        ValueError: With the image, the sign, and what to do if it is a false alarm.
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


def _exchange_signs(bands: Mapping[str, BandPixels]) -> Signs:
    if "VV" in bands and "VH" in bands:
        difference = _means(bands["VV"].pixels) - _means(bands["VH"].pixels)
        yield (
            difference < WEAKEST_VV,
            f"has VH brighter than VV by more than {-WEAKEST_VV:g} dB, which nature does not: they are exchanged. Pass a dict by "
            "band name, or bring them into order",
        )


def _offset_guess(sensor: str, optical: Mapping[str, BandPixels]) -> Signs:
    """Nothing is dark in any band. Snow is bright in the visible, so a short-wave infrared band is needed to tell."""
    if {"B02", "B03", "B04"} & set(optical) and {"B11", "B12"} & set(optical):
        low = np.min([band.low for band in optical.values()], axis=0)
        least, most = DARKEST_WITH_OFFSET
        yield (
            (low >= least) & (low <= most),
            f"has no pixel below {least} in any band: it carries the offset of {OFFSET} of processing baseline 04.00 and later. Pass "
            f"units={{{sensor!r}: 'dn+1000'}} to subtract it",
        )


def _order_guess(optical: Mapping[str, BandPixels]) -> Signs:
    names = [name for name in NEAR_INFRARED if name in optical]
    if len(names) > 1:
        means = [_means(optical[name].pixels) for name in names]
        low, high = np.min(means, axis=0), np.max(means, axis=0)
        yield (
            (high > NEAR_INFRARED_LEAST) & (high > NEAR_INFRARED_RATIO * low),
            f"has near-infrared bands ({', '.join(names)}) that differ more than they do in nature: the bands are in another order. "
            "Pass a dict by band name",
        )


def _overflow_guess(optical: Mapping[str, BandPixels]) -> Signs:
    small = np.max([band.high for band in optical.values()], axis=0) <= 255
    for image in np.flatnonzero(small):  # rare: the full look is for these only
        small[image] = np.mean([_jumps(band.pixels[image]) for band in optical.values()]) > MOST_JUMPS
    yield small, "jumps between 0 and 255: larger numbers were cut to 8 bits. Read it again in its own type"


def _coarse_guess(optical: Mapping[str, BandPixels]) -> Signs:
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


def _means(pixels: torch.Tensor) -> np.ndarray:
    """Mean of each image, (B,), from every 16th pixel."""
    return _array(pixels[:, ::4, ::4]).astype(np.float32).mean(axis=(1, 2))


def _jumps(image: torch.Tensor) -> float:
    """Share of the pixels of an image that differ from their neighbour by more than 128."""
    return float((np.abs(np.diff(_array(image).astype(np.float32), axis=1)) > 128).mean())


def _look_coarse(bands: Sequence[torch.Tensor]) -> np.ndarray:
    """Whether the rows of bands, (B, H, W) each, look interpolated from much larger pixels, or repeat them: (bands, B).

    Roughness is the mean square of how far a pixel lies off the middle of its neighbours, over the mean square of the steps between
    neighbours: 0 on a straight line, 0.75 in noise. Bands of hardly any steps, such as of calm water, are not judged.
    """
    lines, next_lines = (
        np.stack([_array(pixels[:, start::24]) for pixels in bands]) for start in (0, 1)
    )  # (bands, B, rows, W)
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


def convert_unit(pixels: torch.Tensor, unit: str | None) -> torch.Tensor:
    """Bring pixels to dB and digital numbers.

    Args:
        pixels: (B, bands, H, W).
        unit: One of `UNIT_NAMES`; None is their own.

    Returns:
        The pixels; the same tensor where there is nothing to do.
    """
    if unit == "linear":
        return 10 * pixels.float().log10()
    if unit == "reflectance":
        return 10_000 * pixels.float()
    if (
        unit == "dn+1000"
    ):  # reflectance a little below 0 was stored as a little below the offset: clipped, as older baselines were
        return (pixels.float() - OFFSET).clamp_(min=0)
    return pixels


def resample_bicubic(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resample images to `size`: bicubic (a = -0.75), corners aligned, one axis after the other.

    Args:
        images: (..., H, W) float32.
        size: Edge of the result, pixels.

    Returns:
        (..., size, size); what `torch.nn.functional.interpolate` gives, to the rounding of its places.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    if images.device.type != "cpu" or images.requires_grad:
        return _weigh(_weigh(images, size, -1), size, -2)
    planes = images.reshape(-1, height, width)
    parts = [_resample_planes(part, size) for part in planes.split(_PLANES_AT_ONCE)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(*images.shape[:-2], size, size)


_PLANES_AT_ONCE = 24
"""So many planes of 120 x 120 pixels leave the intermediate results in the cache of a core."""


def _resample_planes(planes: torch.Tensor, size: int) -> torch.Tensor:
    """Resample planes (P, H, W) on the CPU: along rows by small matrix products, along columns by weighted sums of four rows each.

    An embedding bag is such a sum: the rows are its table. It does a fifth of the work of a matrix product, which multiplies zeros.
    """
    count, height, width = planes.shape
    rows = planes.reshape(count * height, width)
    wide = rows.new_empty(count * height, size)
    for block in _bicubic_blocks(width, size):
        torch.mm(rows[:, block.inputs], block.weights, out=wide[:, block.outputs])
    places, weights = _bicubic_bags(height, size)
    used = slice(count * size)
    return torch.nn.functional.embedding_bag(places[used], wide, per_sample_weights=weights[used], mode="sum")


def _weigh(images: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """Resample along an axis as a weighted sum of four neighbours. No matrix product: TF32 would round those to 10 bits."""
    places, weights = _bicubic_taps_on(images.device, images.shape[axis], size)
    shape = (-1, 1) if axis == -2 else (-1,)
    parts = zip(places.T, weights.T, strict=True)
    return torch.stack([images.index_select(axis, place) * weight.reshape(shape) for place, weight in parts]).sum(dim=0)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Numbers on a device, sent there once: the host waits for a device to which it sends anything."""
    return torch.tensor(values, dtype=dtype).to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _bicubic_taps_on(device: torch.device, size: int, new_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[`_bicubic_taps`] on a device, sent there once."""
    places, weights = _bicubic_taps(size, new_size)
    return places.to(device), weights.to(device)


class _Block(NamedTuple):
    """A part of a transposed bicubic matrix without most of its zeros: `weights` (inputs, outputs) of some outputs."""

    outputs: slice
    inputs: slice
    weights: torch.Tensor


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _bicubic_blocks(size: int, new_size: int) -> list[_Block]:
    """The bicubic matrix in blocks of about 24 outputs: a third of the work for 60 to 120, since a pixel depends on four."""
    blocks, start = [], 0
    for rows in _bicubic_matrix(size, new_size).chunk(max(new_size // 24, 1)):
        used = (rows != 0).any(dim=0).nonzero().flatten().tolist()
        inputs = slice(used[0], used[-1] + 1)
        blocks.append(_Block(slice(start, start + len(rows)), inputs, rows[:, inputs].T.contiguous()))
        start += len(rows)
    return blocks


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _bicubic_bags(size: int, new_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For every new row of `_PLANES_AT_ONCE` planes the rows of all planes it depends on, and their weights: (rows, 4) each."""
    places, weights = _bicubic_taps(size, new_size)
    first_rows = torch.arange(_PLANES_AT_ONCE)[:, None, None] * size
    return (first_rows + places).flatten(0, 1), weights.repeat(_PLANES_AT_ONCE, 1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _bicubic_taps(size: int, new_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels that each new one depends on, in order, and their weights: (new_size, 4) each, fewer where there are fewer."""
    matrix = _bicubic_matrix(size, new_size)
    places = matrix.abs().topk(min(4, size), dim=1).indices.sort(dim=1).values
    return places, matrix.gather(1, places)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _bicubic_matrix(size: int, new_size: int) -> torch.Tensor:
    """Weights (new_size, size) of bicubic resampling along one axis: cubic convolution (Keys 1981) with a = -0.75, borders repeated.

    In float64, so that places are exact: `torch.nn.functional.interpolate` rounds them, which costs it 2e-3 digital numbers against
    what the original's reader returned.
    """
    a = -0.75
    places = torch.arange(new_size, dtype=torch.float64)[:, None] * (size - 1) / max(new_size - 1, 1)  # (new_size, 1)
    near = places.floor() + torch.arange(-1, 3)  # (new_size, 4)
    x = (places - near).abs()
    inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
    outer = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    weights = torch.where(x <= 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))
    matrix = torch.zeros(new_size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, near.long().clamp(0, size - 1), weights).float()


def _as_array(value: Any) -> Array:
    """A band or a stack of bands, from whatever holds it: a numpy array, or a tensor if it lies on another device."""
    if type(value) is np.ndarray and value.dtype.kind in "fiu":
        return value
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bool or value.is_complex():
            raise ValueError(f"Pixels of type {value.dtype} are no image: expected numbers.")
        value = value.detach()
        if value.device.type != "cpu":
            return value
        return cast(np.ndarray, (value.float() if value.dtype == torch.bfloat16 else value).numpy())
    if isinstance(value, (str, PathLike)):
        value = _read_geotiff(value)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"Pixels of type {array.dtype} are no image: expected numbers.")
    return array


def _read_geotiff(path: str | PathLike) -> np.ndarray:
    """Read a GeoTIFF: (H, W) if it has one band, else (C, H, W)."""
    try:
        import rasterio
    except ImportError as error:
        raise ImportError("Reading a GeoTIFF needs rasterio: pip install 'csmae-hf[geo]' (or rasterio).") from error
    with rasterio.open(path) as source:
        pixels = source.read()
    return pixels[0] if pixels.shape[0] == 1 else pixels


CSMAEImageProcessor.register_for_auto_class()

__all__ = ["BAND_MEAN", "BAND_METRES", "BAND_STD", "BAND_UNIT", "CSMAEImageProcessor", "resample_bicubic"]
