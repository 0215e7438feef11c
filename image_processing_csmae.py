"""Image processor for CSMAE: named bands in, standardised tensors out, and nothing that would be a silent wrong number."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from os import PathLike
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

try:
    from .configuration_csmae import DEFAULT_SENSORS, CSMAEPushMixin
except ImportError:  # imported as a plain top-level module
    if __package__:
        raise
    from configuration_csmae import DEFAULT_SENSORS, CSMAEPushMixin

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
    "reflectance": "reflectance 0-1",
}
"""Units an image may be given in, and what they mean."""

BRIGHTEST_REFLECTANCE = 2.0
"""A Sentinel-2 image with nothing above this is reflectance 0-1 (or empty), not digital numbers."""

FAINTEST_DB = -100.0
"""Backscatter below this is no-data: real values of BigEarthNet end at -53 dB, the noise floor of the instrument far above -100."""

Extremes = tuple[torch.Tensor, torch.Tensor]
Bands = Mapping[str, Any] | Sequence[Any] | np.ndarray | torch.Tensor | str | PathLike


class CSMAEImageProcessor(CSMAEPushMixin, BaseImageProcessor):
    """Turns images of named bands, at their native resolutions, into what [`CSMAEModel`] takes.

    Every band is resampled to `size` (bicubic, corners aligned, as the original's reader does) and standardised by its
    mean and standard deviation, without clipping. Order, units and statistics are saved with the processor.

    Args:
        sensors: Bands by sensor, in the model's order. Default: the paper's Sentinel-1 and Sentinel-2.
        size: Height and width of the output, pixels of 10 m.
        band_mean: Mean by band. Default: BigEarthNet-MM v1.
        band_std: Standard deviation by band. Default: BigEarthNet-MM v1.
        transpose: Swap rows and columns of every image, which is how the original's reader fed its published weights.

    Raises:
        ValueError: If a band lacks statistics or its standard deviation is not above 0.

    Example:
        >>> processor = CSMAEImageProcessor()
        >>> tile = {"VH": np.full((120, 120), -19.0), "VV": np.full((120, 120), -12.0)}
        >>> processor(s1=tile, return_tensors="pt")["s1"].shape
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
        self.band_mean = {band: float(means[band]) for band in used}
        self.band_std = {band: float(stds[band]) for band in used}
        flat = [band for band, std in self.band_std.items() if not std > 0]
        if flat:
            raise ValueError(f"The standard deviation of {flat} is not above 0, so they cannot be standardised.")
        self.transpose = transpose
        self.model_input_names = list(self.sensors)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from a saved configuration, whose fields `kwargs` may override: `from_pretrained(folder, sensors=...)`."""
        fields = ("sensors", "size", "band_mean", "band_std", "transpose")
        overrides = {name: kwargs.pop(name) for name in fields if name in kwargs}
        return super().from_dict({**image_processor_dict, **overrides}, **kwargs)

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
            units: Unit by sensor in which the images are given, where it is not the processor's own: `"linear"` for
                Sentinel-1 in linear power, `"reflectance"` for Sentinel-2 in 0-1. They are converted.
            **images: For each sensor one image or a list of images. An image is a dict of bands, each (H, W) at its
                native resolution, or a stacked array (C, H, W) in the order of `sensors[sensor]`; a batch may also be
                a dict of (B, H, W) or an array (B, C, H, W). Bands are numpy arrays, torch tensors, or GeoTIFF paths.

        Returns:
            A tensor (B, C, size, size) float32 by sensor.

        Raises:
            ValueError: If a sensor is unknown, a band is missing or has a wrong size, values are NaN, infinite, or in
                another unit than declared. The message names the image, the band and the remedy.
        """
        if args:
            raise ValueError(
                f"Pass images by the name of their sensor, such as processor({next(iter(self.sensors))}=image)."
            )
        given = {sensor: value for sensor, value in images.items() if value is not None}
        if not given:
            raise ValueError(f"No images were given: pass one or more of {', '.join(self.sensors)} by name.")
        for sensor in (*given, *(units or {})):
            if sensor not in self.sensors:
                raise ValueError(f"Unknown sensor {sensor!r}: this processor has {', '.join(self.sensors)}.")
        data = {
            sensor: self._process_sensor(sensor, value, (units or {}).get(sensor), device)
            for sensor, value in given.items()
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _process_sensor(
        self, sensor: str, value: Bands, unit: str | None, device: str | torch.device | None
    ) -> torch.Tensor:
        bands = self.sensors[sensor]
        tensors = {band: tensor.to(device).float() for band, tensor in collect_bands(value, sensor, bands).items()}
        self._check_sizes(sensor, tensors)
        extremes = {band: torch.aminmax(tensor.flatten(1), dim=1) for band, tensor in tensors.items()}
        check_finite(sensor, tensors, extremes)
        tensors = convert_units(sensor, tensors, extremes, unit)
        first = tensors[bands[0]]
        images = torch.empty(first.shape[0], len(bands), self.size, self.size, dtype=torch.float32, device=first.device)
        for i, band in enumerate(bands):  # band by band in place: what is worked on stays in the cache
            images[:, i] = resample_bicubic(tensors[band], self.size)
            images[:, i].sub_(self.band_mean[band]).div_(self.band_std[band])
        return images.transpose(2, 3).contiguous() if self.transpose else images

    def _check_sizes(self, sensor: str, tensors: Mapping[str, torch.Tensor]) -> None:
        for band, tensor in tensors.items():
            height, width = tensor.shape[1:]
            metres = BAND_METRES.get(band)
            native = self.size * 10 // metres if metres else None
            right = height == width and (height in (self.size, native) or (native is None and self.size % height == 0))
            if not right:
                sizes = sorted({self.size, native or self.size})
                raise ValueError(
                    f"{sensor} band {band} is {height} x {width} pixels: expected {' or '.join(f'{n} x {n}' for n in sizes)}, "
                    f"a tile of {self.size * 10} m at {metres or 10} m a pixel. Crop or resample the tile, or build the "
                    "processor with another size."
                )


def collect_bands(value: Bands, sensor: str, bands: Sequence[str]) -> dict[str, torch.Tensor]:
    """Bring one image or a batch of images, in any form [`CSMAEImageProcessor.preprocess`] takes, into one form.

    Args:
        value: The images.
        sensor: Name of their sensor, for messages.
        bands: Names of the wanted bands, in the order of stacked arrays.

    Returns:
        By band a tensor (B, H, W).

    Raises:
        ValueError: If bands are missing, or shapes fit no form.
    """
    if hasattr(value, "keys"):  # any mapping, also one that is not registered as such
        by_name = cast(Mapping[str, Any], value)
        missing = [band for band in bands if band not in by_name]
        if missing:
            raise ValueError(f"{sensor} lacks the bands {missing}: got {sorted(by_name)}, expected {list(bands)}.")
        tensors = {band: _as_tensor(by_name[band]) for band in bands}
        for band, tensor in tensors.items():
            if tensor.ndim not in (2, 3):
                raise ValueError(
                    f"{sensor} band {band} has shape {tuple(tensor.shape)}: expected (H, W) or (batch, H, W)."
                )
        tensors = {band: tensor.unsqueeze(0) if tensor.ndim == 2 else tensor for band, tensor in tensors.items()}
        lengths = {band: tensor.shape[0] for band, tensor in tensors.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{sensor} has bands of different batch lengths: {lengths}.")
        return tensors
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError(f"{sensor} is an empty list: pass at least one image.")
        images = [collect_bands(image, sensor, bands) for image in value]
        stacked = {}
        for band in bands:
            shapes = {tuple(image[band].shape[1:]) for image in images}
            if len(shapes) > 1:
                raise ValueError(
                    f"{sensor} band {band} differs in size between the images of the batch: {sorted(shapes)}."
                )
            stacked[band] = torch.cat([image[band] for image in images])
        return stacked
    tensor = _as_tensor(value)
    if tensor.ndim not in (3, 4) or tensor.shape[-3] != len(bands):
        raise ValueError(
            f"{sensor} has shape {tuple(tensor.shape)}: expected ({len(bands)}, H, W) or (batch, {len(bands)}, H, W) with the "
            f"bands {list(bands)} in this order, or a dict by band name."
        )
    tensor = tensor.unsqueeze(0) if tensor.ndim == 3 else tensor
    return dict(zip(bands, tensor.unbind(1), strict=True))


def check_finite(sensor: str, tensors: Mapping[str, torch.Tensor], extremes: Mapping[str, Extremes]) -> None:
    """Refuse NaN and infinite values.

    Args:
        sensor: Name of the sensor, for the message.
        tensors: (B, H, W) by band.
        extremes: Least and greatest value of each image, each (B,), by band; NaN if there is one.

    Raises:
        ValueError: With the image, the band and the count.
    """
    for band, (low, high) in extremes.items():
        broken = ~(low.isfinite() & high.isfinite())
        if broken.any():
            image = int(broken.int().argmax())
            finite = tensors[band][image].isfinite()
            raise ValueError(
                f"{sensor} band {band} of image {image} has {int((~finite).sum())} of {finite.numel()} values NaN or infinite: "
                "fill or leave out such tiles, the model would spread them over the whole image."
            )


def convert_units(
    sensor: str, tensors: Mapping[str, torch.Tensor], extremes: Mapping[str, Extremes], unit: str | None
) -> dict[str, torch.Tensor]:
    """Check that values look like the unit they are given in, and bring them to the processor's.

    Args:
        sensor: Name of the sensor, for the message.
        tensors: (B, H, W) by band; bands of unknown unit are left alone.
        extremes: As of [`check_finite`].
        unit: `"db"`, `"linear"`, `"dn"` or `"reflectance"`; None is the bands' own.

    Returns:
        The tensors in dB and digital numbers.

    Raises:
        ValueError: If the values contradict the unit.
    """
    if unit is not None and unit not in UNIT_NAMES:
        raise ValueError(f"Unknown unit {unit!r} for {sensor}: expected one of {', '.join(UNIT_NAMES)}.")
    known = {band: tensor for band, tensor in tensors.items() if band in BAND_UNIT}
    converted = dict(tensors)
    for own in ("db", "dn"):
        group = {band: tensor for band, tensor in known.items() if BAND_UNIT[band] == own}
        if not group:
            continue
        given = unit or own
        if given not in {"db": ("db", "linear"), "dn": ("dn", "reflectance")}[own]:
            raise ValueError(f"{sensor} cannot be {UNIT_NAMES[given]}: its bands {list(group)} are {UNIT_NAMES[own]}.")
        lows = torch.stack([extremes[band][0] for band in group])  # (bands, B)
        highs = torch.stack([extremes[band][1] for band in group])
        _check_unit(sensor, given, lows, highs)
        if given == "linear":
            converted.update({band: 10 * tensor.log10() for band, tensor in group.items()})
        elif given == "reflectance":
            converted.update({band: 10_000 * tensor for band, tensor in group.items()})
    return converted


def _check_unit(sensor: str, unit: str, lows: torch.Tensor, highs: torch.Tensor) -> None:
    """Refuse the first image whose least and greatest values, (bands, B) each, contradict the unit."""
    low, high = lows.amin(dim=0), highs.amax(dim=0)  # (B,)
    problems = {
        "db": [
            (
                low < FAINTEST_DB,
                f"values below {FAINTEST_DB:g} dB are no-data, often -9999 or -32768; fill or leave out such tiles",
            ),
            (
                lows.amax(dim=0) >= 0,
                f"a band without any value below 0 is linear power, or empty; pass units={{{sensor!r}: 'linear'}} to convert",
            ),
        ],
        "linear": [(low <= 0, "values of 0 or less are not linear power; leave units out if it is dB")],
        "dn": [
            (low < 0, "negative values are no-data or overflown"),
            (
                high <= BRIGHTEST_REFLECTANCE,
                f"with nothing above {BRIGHTEST_REFLECTANCE:g} it is reflectance 0-1, or empty; pass "
                f"units={{{sensor!r}: 'reflectance'}} to convert",
            ),
        ],
        "reflectance": [
            (low < 0, "negative values are no-data"),
            (
                high > BRIGHTEST_REFLECTANCE,
                f"values above {BRIGHTEST_REFLECTANCE:g} are not reflectance 0-1; leave units out if it is digital numbers",
            ),
        ],
    }[unit]
    for wrong, reason in problems:
        if wrong.any():
            image = int(wrong.int().argmax())
            raise ValueError(
                f"{sensor} image {image} runs from {low[image]:.6g} to {high[image]:.6g} where {UNIT_NAMES[unit]} was expected: "
                f"{reason}."
            )


def resample_bicubic(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resample square images to `size`: bicubic (a = -0.75), corners aligned, as two matrix products.

    Args:
        images: (..., H, W) float32.
        size: Edge of the result, pixels.

    Returns:
        (..., size, size); what `torch.nn.functional.interpolate` gives, to rounding.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    rows = _bicubic_matrix(height, size).to(images.device)
    columns = rows if width == height else _bicubic_matrix(width, size).to(images.device)
    return rows @ images @ columns.T


@lru_cache(maxsize=16)
def _bicubic_matrix(size: int, new_size: int) -> torch.Tensor:
    """Weights (new_size, size) of bicubic resampling along one axis: what interpolation makes of the unit vectors."""
    identity = torch.eye(size).reshape(1, 1, size, size)
    return F.interpolate(identity, size=(new_size, size), mode="bicubic", align_corners=True)[0, 0]


def _as_tensor(value: Any) -> torch.Tensor:
    """A tensor of a band or a stack of bands, from whatever holds it."""
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bool or value.is_complex():
            raise ValueError(f"Pixels of type {value.dtype} are no image: expected numbers.")
        return value
    if isinstance(value, (str, PathLike)):
        value = _read_geotiff(value)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"Pixels of type {array.dtype} are no image: expected numbers.")
    if array.dtype == np.uint16:
        array = array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(array))


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
