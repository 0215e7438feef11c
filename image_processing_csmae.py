"""Image processor for CSMAE: named bands in, standardised tensors out, and nothing that would be a silent wrong number."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from os import PathLike
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

try:
    from .configuration_csmae import DEFAULT_SENSORS, CSMAEPushMixin
    from .image_checks_csmae import (
        BAND_MEAN,
        BAND_STD,
        BAND_UNIT,
        IMAGES_AT_ONCE,
        SUSPECT,
        check_images,
        check_unit_name,
        convert_unit,
    )
except ImportError:  # imported as a plain top-level module
    if __package__:
        raise
    from configuration_csmae import DEFAULT_SENSORS, CSMAEPushMixin
    from image_checks_csmae import (
        BAND_MEAN,
        BAND_STD,
        BAND_UNIT,
        IMAGES_AT_ONCE,
        SUSPECT,
        check_images,
        check_unit_name,
        convert_unit,
    )

_SETTINGS = ("sensors", "size", "band_mean", "band_std", "transpose", "units", "suspect")
_BOOKKEEPING = {"auto_map", "feature_extractor_type", "image_processor_type", "model_input_names", "processor_class"}
"""What Transformers writes into `preprocessor_config.json` beside the settings."""

Array = np.ndarray | torch.Tensor
Bands = Mapping[str, Any] | Sequence[Any] | np.ndarray | torch.Tensor | str | PathLike
Native = dict[str, dict[str, torch.Tensor]]
"""Images by sensor and group of bands of one size, such as {"s2": {"B02 B08": (B, 2, 120, 120), "B05": (B, 1, 60, 60)}}."""


class CSMAEImageProcessor(CSMAEPushMixin, BaseImageProcessor):
    """Turns images of named bands, at their native resolutions, into what [`CSMAEModel`] takes.

    Every band is resampled to `size` (bicubic, corners aligned, as the original's reader does) and standardised by its
    mean and standard deviation, without clipping. Order, units and statistics are saved with the processor.

    What would be a silent wrong number is an error that names the images, the band and the remedy. An image's verdict is its own: it
    does not depend on what is given with it. *Certain* signs are always refused: missing bands, wrong sizes (a 60 m band for a 10 m
    one), NaN and infinite values, 8-bit pixels (too small for these units), Sentinel-1 below -100 or above 70 dB or without any value
    below 0 (linear power), Sentinel-2 below 0, with nothing above 2 (reflectance 0-1) or 50 (percent), above 60,000 (integers that
    wrapped) or at 65535, numbers whose bytes were exchanged, pixels that are standardised already, a band of one value among others or
    the same pixels as two bands, and no-data: pixels at 0 in all Sentinel-2 bands, pixels at 0 in linear power, a border along which
    all Sentinel-1 bands stay at one value, a square of one value in all bands. *Guesses* have thresholds clear of all real tiles met
    here. A declared unit ends those of the unit: the +1000 offset of baseline 04.00 (hardly a pixel of any band below 900; needs a
    visible and a short-wave infrared band), percent beside clouds, numbers cut or stretched to 8 bits (0 to 255 with jumps, or many
    pixels at 255), reflectance x 1000 and x 65535 over land. `suspect="accept"` ends those of the bands too: VV and VH exchanged (VH
    3 dB above VV), amplitude or shifted dB (a mean of VH above -11 dB), bands stretched by their own extremes, a band that is empty
    in a part, near-infrared bands out of order (the means of B07, B08, B8A
    differ by half), and a 60 m band interpolated to 10 m (much smoother than most 10 m bands, or of repeated pixels).

    No sign tells the order of similar bands in a bare array (blue, green and red, say): pass a dict by band name wherever the
    order is not beyond doubt. Nor are these seen: the offset in bands that lack a short-wave one or over thick cloud, other scales,
    amplitude, and VV and VH exchanged over water, a 20 m band interpolated to 10 m.

    Args:
        sensors: Bands by sensor, in the model's order. Default: the paper's Sentinel-1 and Sentinel-2.
        size: Height and width of the output, pixels of 10 m; `{"height": 120, "width": 120}` is taken for 120.
        band_mean: Mean by band. Default: BigEarthNet-MM v1.
        band_std: Standard deviation by band. Default: BigEarthNet-MM v1.
        transpose: Swap rows and columns of every image, which is how the original's reader fed its published weights.
        units: Unit by sensor of the images this processor is given, where a call does not say another: for an archive that
            holds linear power, say. Default: dB and digital numbers. An image that says its own unit is believed.
        suspect: What is done with images that show a sign which is a guess, where a call does not say another: "refuse", or
            "accept" them as they are.

    Raises:
        ValueError: If a band lacks statistics, its standard deviation is not above 0, a unit or band name is unusable, the size is not
            that of a square, or there is no such setting.

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
        size: int | Mapping[str, int] = 120,
        band_mean: Mapping[str, float] | None = None,
        band_std: Mapping[str, float] | None = None,
        transpose: bool = False,
        units: Mapping[str, str] | None = None,
        suspect: str = "refuse",
        **kwargs: Any,
    ):
        unknown = sorted(kwargs.keys() - _BOOKKEEPING)
        if unknown:
            raise ValueError(
                f"CSMAEImageProcessor has no setting {', '.join(unknown)}; it has {', '.join(_SETTINGS)}. Every image is resampled to "
                "size x size pixels and standardised by band_mean and band_std."
            )
        super().__init__(**kwargs)
        self.sensors = {sensor: list(bands) for sensor, bands in (sensors or DEFAULT_SENSORS).items()}
        self.size = _square(size)
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
        self.suspect = _check_suspect(suspect)
        self.model_input_names = list(self.sensors)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from a saved configuration, whose fields `kwargs` may override: `from_pretrained(folder, sensors=...)`."""
        # image_size is the model's name for it, which the constructor refuses by name
        overrides = {name: kwargs.pop(name) for name in (*_SETTINGS, "image_size") if name in kwargs}
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
        suspect: str | None = None,
        **images: Bands | None,
    ) -> BatchFeature:
        """Process images of one or more sensors, each passed by the sensor's name.

        Args:
            *args: Not accepted: an image without its sensor's name could be of any.
            return_tensors: `"pt"` or `"np"`.
            device: Where to process; default where the tensors are, for arrays the CPU.
            units: Unit by sensor in which the images are given, where it is not the processor's own. `"linear"` (Sentinel-1 in linear
                power), `"dn+1000"` (Sentinel-2 of processing baseline 04.00 and later) and `"reflectance"` (Sentinel-2 in 0-1)
                are converted; `"db"` and `"dn"` are the bands' own, said for certain. An image with an attribute `unit` says its
                own, and each of a list may say another; a call that says another than the image is an error.
            suspect: `"refuse"` or `"accept"` images that show a sign which is a guess; default the processor's own.
            **images: For each sensor one image or a list of images. An image is a dict of bands, each (H, W) at its
                native resolution, or a stacked array (C, H, W) in the order of `sensors[sensor]`; a batch may also be
                a dict of (B, H, W) or an array (B, C, H, W). Bands are numpy arrays, torch tensors, or paths of image files; an
                image may be the path of a file that names its bands, or of a folder of one image's files (needs csmae-hf).

        Returns:
            A tensor (B, C, size, size) float32 by sensor.

        Raises:
            SuspectImageError: If a sign that is a guess speaks against images. A ValueError.
            ValueError: If a sensor is unknown, a band is missing or has a wrong size, or the pixels are not what they should
                be (see the class). The message names the images, the band and the remedy.
        """
        native: dict[str, dict[str, torch.Tensor]] = {}
        data: dict[str, torch.Tensor] = {}
        for sensor, parts in self._collect(args, units, images).items():
            sizes: dict[tuple[Any, ...], list[_Part]] = {}  # others than an image's own do not change it
            for part in parts:
                sizes.setdefault(tuple(array.shape[-2:] for array in part.bands.values()), []).append(part)
            if len(sizes) == 1:
                native[sensor] = self._stack(sensor, parts, suspect)
                continue
            done: dict[int, torch.Tensor] = {}
            for same in sizes.values():
                stacked = {sensor: self._stack(sensor, same, suspect)}
                processed = self.process_native(stacked, device=device, return_tensors=None)[sensor]
                lengths = [part.length for part in same]
                done |= dict(zip((part.first for part in same), processed.split(lengths), strict=True))
            data[sensor] = torch.cat([done[part.first] for part in parts])
        data |= self.process_native(native, device=device, return_tensors=None)
        return BatchFeature({sensor: data[sensor] for sensor in images if sensor in data}, return_tensors)

    def stack_native(
        self,
        *args: Any,
        units: Mapping[str, str] | None = None,
        suspect: str | None = None,
        **images: Bands | None,
    ) -> Native:
        """Check images and stack their bands at native resolution: a third of the bytes, to be processed on another device.

        Args:
            *args: Not accepted, as in `preprocess`.
            units: As of `preprocess`; other units are converted here.
            suspect: As of `preprocess`.
            **images: As of `preprocess`.

        Returns:
            By sensor, and by the names of the bands of one size, joined by spaces, a tensor (B, bands, H, W) in dB or digital
            numbers, of the type the bands came in where that is 16-bit integer, else float32. Made for `process_native`.

        Raises:
            ValueError: As `preprocess`, and if a band differs in size between images.
        """
        return {
            sensor: self._stack(sensor, parts, suspect) for sensor, parts in self._collect(args, units, images).items()
        }

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

    def _collect(
        self, args: Sequence[Any], units: Mapping[str, str] | None, images: Mapping[str, Bands | None]
    ) -> dict[str, list["_Part"]]:
        """The images of a call by sensor, in order, each with its unit."""
        if args:
            raise ValueError(
                f"Pass images by the name of their sensor, such as processor({next(iter(self.sensors))}=image)."
            )
        given = {sensor: value for sensor, value in images.items() if value is not None}
        if not given:
            raise ValueError(f"No images were given: pass one or more of {', '.join(self.sensors)} by name.")
        for sensor in (*given, *(units or {})):
            self._check_sensor(sensor)
        collected = {}
        for sensor, value in given.items():
            names, said = self.sensors[sensor], (units or {}).get(sensor)
            parts, place = [], 0
            for part in collect_images(value, sensor, names, said):
                if said is not None and part.unit not in (None, said):
                    raise ValueError(
                        f"{sensor} image {place} says that its unit is {part.unit!r}, and units={{{sensor!r}: {said!r}}} (--units "
                        f"{sensor}={said}) was given. Leave it out, or correct one of them."
                    )
                unit = part.unit or said or self.units.get(sensor)
                if unit is not None:
                    check_unit_name(sensor, names, unit)
                parts.append(part._replace(unit=unit, first=place))
                place += part.length
            collected[sensor] = parts
        return collected

    def _stack(self, sensor: str, parts: Sequence["_Part"], suspect: str | None) -> dict[str, torch.Tensor]:
        """Check the images of a sensor and stack their bands in the unit they are standardised in: (B, bands, H, W) by group."""
        suspect = self.suspect if suspect is None else _check_suspect(suspect)
        names = self.sensors[sensor]
        by_unit: dict[str | None, list[_Part]] = {}
        for part in parts:
            by_unit.setdefault(part.unit, []).append(part)
        stacked = []
        for unit, same in by_unit.items():
            groups = stack_bands([part.bands for part in same], sensor, names)
            places = [place for part in same for place in range(part.first, part.first + part.length)]
            check_images(
                sensor,
                groups,
                unit,
                self.size,
                suspect=suspect,
                places=places,
                sources={part.first: part.source for part in same if part.source is not None},
            )
            stacked.append(
                {
                    key: convert_unit(pixels, unit) if key.split()[0] in BAND_UNIT else pixels
                    for key, pixels in groups.items()
                }
            )
        if len(stacked) == 1:
            return stacked[0]
        if len({tuple((key, pixels.shape[1:]) for key, pixels in groups.items()) for groups in stacked}) > 1:
            stack_bands([part.bands for part in parts], sensor, names)  # names the band whose sizes differ
        order = torch.tensor(
            [
                place
                for same in by_unit.values()
                for part in same
                for place in range(part.first, part.first + part.length)
            ]
        ).argsort()
        return {key: torch.cat([groups[key].float() for groups in stacked])[order] for key in stacked[0]}

    def _process_sensor(self, sensor: str, groups: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Standardise and resample a sensor's bands by group: (B, C, size, size)."""
        order = self.sensors[sensor]
        first = next(iter(groups.values()))
        shape, device = (len(first), len(order), self.size, self.size), first.device
        on_cpu = device.type == "cpu"
        # numpy asks for large pages, torch does not, and to get small ones may take longer than to fill them
        images = torch.from_numpy(np.empty(shape, np.float32)) if on_cpu else torch.empty(shape, device=device)
        # a few images at a time where there is a cache to stay in; on other devices as many as there are
        step = IMAGES_AT_ONCE if on_cpu else max(len(first), 1)
        with _without_autocast(device.type):
            for key, pixels in groups.items():
                names = key.split()
                mean = _constant(tuple(self.band_mean[name] for name in names), torch.float32, device)[:, None, None]
                scale = _constant(tuple(1 / self.band_std[name] for name in names), torch.float32, device)[
                    :, None, None
                ]
                places = [order.index(name) for name in names]
                in_a_row = places == list(range(places[0], places[0] + len(places)))
                for start in range(0, len(pixels), step):
                    part, given = images[start : start + step], pixels[start : start + step]
                    # in place: fresh memory would cost more than the arithmetic
                    target = (
                        part[:, places[0] : places[-1] + 1]
                        if in_a_row
                        else part.new_empty(len(part), len(places), *part.shape[2:])
                    )
                    if given.shape[-2:] == target.shape[-2:]:
                        target.copy_(given).sub_(mean).mul_(scale)
                    else:  # standardised first: there is less of it
                        target.copy_(resample_bicubic(given.float().sub(mean).mul_(scale), self.size))
                    if not in_a_row:
                        part.index_copy_(1, _constant(tuple(places), torch.int64, device), target)
        return images.transpose(2, 3).contiguous() if self.transpose else images


def _without_autocast(device_type: str) -> Any:
    """Full precision inside a Trainer's mixed-precision step too."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


# Images in any form, to tensors by band size


class _Part(NamedTuple):
    """Images of a sensor that were given as one: each band (H, W), or (B, H, W).

    Attributes:
        bands: By name.
        length: Number of images.
        unit: Unit they are in, where the image or somebody else says it.
        first: Place of the first in the call.
        source: What was given, which may know more of itself.
    """

    bands: Mapping[str, Array]
    length: int
    unit: str | None = None
    first: int = 0
    source: Any = None


def collect_images(value: Bands, sensor: str, bands: Sequence[str], said: str | None = None) -> list[_Part]:
    """Bring a sensor's images, in any form the processor takes, into parts of the batch, in order.

    Args:
        value: The images.
        sensor: Their sensor.
        bands: Its bands, in order.
        said: Unit that the call says.

    Raises:
        ValueError: If bands are missing, or shapes fit no form.
    """
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError(f"{sensor} is an empty list: pass at least one image.")
        return [part for image in value for part in collect_images(image, sensor, bands, said)]
    if isinstance(value, (str, PathLike)):
        value = read_bands(value, bands, sensor, said)
    if not hasattr(value, "keys"):
        array = _as_array(value)
        if array.ndim not in (3, 4) or array.shape[-3] != len(bands):
            raise ValueError(
                f"{sensor} has shape {tuple(array.shape)}: expected ({len(bands)}, H, W) or (batch, {len(bands)}, H, W) with the "
                f"bands {list(bands)} in this order, or a dict by band name."
            )
        length = 1 if array.ndim == 3 else array.shape[0]
        return [_Part({band: array[..., place, :, :] for place, band in enumerate(bands)}, length)]
    image = cast(Mapping[str, Any], value)  # any mapping, also one that is not registered as such
    missing = [band for band in bands if band not in image]
    if missing:
        raise ValueError(f"{sensor} lacks the bands {missing}: got {sorted(image)}, expected {list(bands)}.")
    claims: dict[str, str] = {} if getattr(image, "unit", None) is None else {"the image": image.unit}  # type: ignore[attr-defined]
    arrays: dict[str, Array] = {}
    lengths: dict[str, int] = {}
    for band in bands:
        pixels = image[band]
        if type(pixels) is not np.ndarray and isinstance(pixels, (str, PathLike)):
            read = read_bands(pixels, [band], sensor, said, (band,))
            if read.unit is not None:
                claims[str(pixels)] = read.unit
            pixels = read[band]
        array = arrays[band] = _as_array(pixels)
        if array.ndim not in (2, 3):
            raise ValueError(f"{sensor} band {band} has shape {tuple(array.shape)}: expected (H, W) or (batch, H, W).")
        lengths[band] = array.shape[0] if array.ndim == 3 else 1
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{sensor} has bands of different batch lengths: {lengths}.")
    if len(set(claims.values())) > 1:
        listed = ", ".join(f"{by} says {unit}" for by, unit in claims.items())
        raise ValueError(f"The bands of one {sensor} image are in several units: {listed}. Bring them into one.")
    return [_Part(arrays, lengths[bands[0]], next(iter(claims.values()), None), source=image)]


def read_bands(
    path: Any, wanted: Sequence[str], sensor: str, unit: str | None = None, bands: tuple[str, ...] | None = None
) -> Any:
    """Read bands of an image file, or of a folder of one image's files, by name, with the `unit` that they say.

    Args:
        path: The file or folder.
        wanted: The bands to return, in order.
        sensor: Whose image it is.
        unit: What the caller says that it is in.
        bands: What the caller says that its layers are.

    Raises:
        ImportError: If csmae-hf, whose door for image files this goes through, or its extra for them is not installed.
        ValueError: If it is no image, or lacks a band.
    """
    try:
        from csmae_hf.images.image import Said
        from csmae_hf.images.readers import read_path
    except ImportError as error:
        raise ImportError(
            f"Reading {path} needs csmae-hf, which is on no package index: `pip install '.[geo]'` in a clone of its repository. Or "
            "read it yourself, and pass a dict of bands."
        ) from error
    return read_path(path, list(wanted), sensor=sensor, said=Said(unit=unit, bands=bands))


def _square(size: Any) -> int:
    """The edge of an output of this size, as a number or as Transformers' dict of height and width."""
    edge = size
    if isinstance(size, Mapping):
        edge = size["height"] if set(size) == {"height", "width"} and size["height"] == size["width"] else None
    if isinstance(edge, bool) or not isinstance(edge, (int, np.integer)) or edge < 1:
        raise ValueError(
            f"size={size!r}: expected a number of pixels such as 120, or a square, {{'height': 120, 'width': 120}}."
        )
    return int(edge)


def _check_suspect(suspect: str) -> str:
    if suspect not in SUSPECT:
        raise ValueError(f"suspect={suspect!r}: expected one of {', '.join(map(repr, SUSPECT))}.")
    return suspect


def stack_bands(images: Sequence[Mapping[str, Array]], sensor: str, bands: Sequence[str]) -> dict[str, torch.Tensor]:
    """Stack the bands of one size, over all parts of a batch: (B, bands, H, W) by their names, joined by spaces.

    They keep their own type where it is an 8 or 16-bit integer, else they become float32.

    Raises:
        ValueError: If a band differs in size between images.
    """
    groups: dict[tuple[str | None, tuple[int, ...]], list[str]] = {}
    for band in bands:
        shapes = {tuple(image[band].shape[-2:]) for image in images}
        if len(shapes) > 1:
            raise ValueError(f"{sensor} band {band} differs in size between the images of the batch: {sorted(shapes)}.")
        groups.setdefault((BAND_UNIT.get(band), shapes.pop()), []).append(band)
    lengths = [1 if image[bands[0]].ndim == 2 else image[bands[0]].shape[0] for image in images]
    stacks: dict[str, torch.Tensor] = {}
    for (_, shape), names in groups.items():
        parts = [[image[name] for name in names] for image in images]
        kinds = {array.dtype for part in parts for array in part}
        whole = (sum(lengths), len(names), *shape)
        kept = len(kinds) == 1 and str(next(iter(kinds))).removeprefix("torch.") in _SMALL_INTEGERS
        stack: Any
        if all(isinstance(array, np.ndarray) for part in parts for array in part):  # many times faster than by tensors
            stack = np.empty(whole, cast(Any, kinds.pop()) if kept else np.float32)
            if all(array.ndim == 2 for part in parts for array in part):
                np.concatenate([array for part in parts for array in part], out=stack.reshape(-1, shape[1]))
                stacks[" ".join(names)] = torch.from_numpy(stack)
                continue
        else:
            parts = [[torch.as_tensor(array) for array in part] for part in parts]
            device = next(
                array.device for part in parts for array in part if cast(torch.Tensor, array).device.type != "cpu"
            )
            stack = torch.empty(whole, dtype=cast(Any, parts[0][0].dtype) if kept else torch.float32, device=device)
        start = 0
        for part, length in zip(parts, lengths, strict=True):
            for place, pixels in enumerate(part):
                stack[start : start + length, place] = pixels
            start += length
        stacks[" ".join(names)] = torch.as_tensor(stack)
    return stacks


_SMALL_INTEGERS = ("uint8", "int8", "uint16", "int16")


def _as_array(value: Any) -> Array:
    """A band or a stack of bands, from whatever holds it: a numpy array, or a tensor if it lies on another device."""
    if type(value) is np.ndarray and value.dtype.kind in "fiu" and value.dtype.isnative:
        return value
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bool or value.is_complex():
            raise ValueError(f"Pixels of type {value.dtype} are no image: expected numbers.")
        value = value.detach()
        if value.device.type != "cpu":
            return value
        return cast(np.ndarray, (value.float() if value.dtype == torch.bfloat16 else value).numpy())
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "fiu" and value.mask.any():
        value = np.where(value.mask, np.float32("nan"), value.data)  # what is masked is no measurement
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"Pixels of type {array.dtype} are no image: expected numbers.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


# Bicubic resampling


def resample_bicubic(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resample images (..., H, W) float32 to (..., size, size): bicubic (a = -0.75), corners aligned.

    It is what `torch.nn.functional.interpolate` gives, to the rounding of its places.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    if images.device.type != "cpu" or images.requires_grad:
        return _weigh(_weigh(images, size, -1), size, -2)
    # Along columns a row is a weighted sum of four rows, which an embedding bag does in a fraction of a product's work.
    planes = images.numel() // (height * width)
    places, weights = _bicubic_bags(planes, height, size)
    rows = images.reshape(planes * height, width) @ _bicubic_matrix(width, size).T
    bags = torch.nn.functional.embedding_bag(places, rows, per_sample_weights=weights, mode="sum")
    return bags.reshape(*images.shape[:-2], size, size)


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
    """The pixels that each new one depends on, in order, and their weights: (new_size, 4) each, fewer where there are fewer."""
    matrix = _bicubic_matrix(size, new_size)
    places = matrix.abs().topk(min(4, size), dim=1).indices.sort(dim=1).values
    return places.to(device), matrix.gather(1, places).to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _bicubic_bags(planes: int, size: int, new_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For every new row of stacked planes the rows it depends on, and their weights: (planes x new_size, 4) each."""
    places, weights = _bicubic_taps_on(torch.device("cpu"), size, new_size)
    return (torch.arange(planes)[:, None, None] * size + places).flatten(0, 1), weights.repeat(planes, 1)


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


CSMAEImageProcessor.register_for_auto_class()

__all__ = ["BAND_MEAN", "BAND_STD", "CSMAEImageProcessor", "resample_bicubic"]
