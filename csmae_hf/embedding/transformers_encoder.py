"""Image models of Transformers (ViT, DINOv2, ...) as encoders, on chosen bands of each sensor."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from csmae_hf.embedding.foreign import TILE_SIZE
from csmae_hf.embedding.module_encoder import ModuleEncoder, Normalisation
from image_checks_csmae import BAND_UNIT

SCALES: dict[str, tuple[float, float]] = {"dn": (0.0, 3000.0), "db": (-25.0, 0.0)}
"""Pixels that become 0 and 1, by unit of the bands: photographs, on which such models were trained, are numbers from 0 to 1. A
reflectance of 0.3 as white is how Sentinel-2 is shown by custom; clouds, snow and sand are cut off there. For Sentinel-1, -25 dB is
about the noise of the instrument."""


def transformers_encoder(
    models: Mapping[str, str | PreTrainedModel],
    bands: Mapping[str, Sequence[str]],
    *,
    scale: Mapping[str, tuple[float, float]] | None = None,
    mean: Mapping[str, Sequence[float]] | None = None,
    std: Mapping[str, Sequence[float]] | None = None,
    size: int | None = None,
    pool: str | Callable[[Any], torch.Tensor] = "mean",
    tile_size: int = TILE_SIZE,
    **options: Any,
) -> ModuleEncoder:
    """Make an encoder of image models of Transformers.

    Pixels are brought to 0..1 by `scale` and cut off there, then normalised by the mean and standard deviation, and resampled to the
    size, that the model's image processor says. Its settings are read, and its class is not: no torchvision is needed.

    Args:
        models: By sensor a folder, a Hub name or a model. The same for several sensors is loaded once.
        bands: By sensor the band of each channel of the model. One may be named more than once: VV, VH, VV for three channels.
        scale: By sensor the pixel that becomes 0 and the one that becomes 1; default 0 and 3000 digital numbers, -25 and 0 dB.
        mean: By sensor the mean of each channel in 0..1, where it is not the image processor's.
        std: The standard deviation likewise.
        size: Pixels along the edge of the model's input, where it is not the image processor's or, without one, the configuration's.
        pool: How the last hidden state becomes an embed: "mean" over all tokens or places, "cls", the first token, "pooler", the
            model's own, or a function of the output.
        tile_size: Pixels of 10 m along the edge of a tile.
        **options: Of `from_pretrained`: `revision`, `trust_remote_code`, ...

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If a model lacks weights, sensors do not fit together, or a model does not take so many channels.

    Example:
        >>> encoder = transformers_encoder({"s2": "facebook/dinov2-small"}, {"s2": ["B04", "B03", "B02"]})
    """
    if set(models) != set(bands):
        raise ValueError(
            f"There are models for {', '.join(models) or 'no sensor'}, and bands for {', '.join(bands) or 'none'}: expected both for "
            "each sensor."
        )
    loaded: dict[str, tuple[PreTrainedModel, dict[str, Any]]] = {}
    modules, normalisation = {}, {}
    for sensor, model in models.items():
        if isinstance(model, str):
            loaded[model] = loaded.get(model) or _load(model, pool, options)
            modules[sensor], said = loaded[model]
        else:
            modules[sensor], said = model, {}
        channels = list(bands[sensor])
        unit = BAND_UNIT.get(channels[0]) if channels else None
        if sensor not in (scale or {}) and unit is None:
            raise ValueError(
                f"What pixels of {sensor} become 0 and 1? Its bands {', '.join(channels)} have no scale of their own: pass scale={{"
                f"{sensor!r}: (low, high)}}."
            )
        low, high = (scale or {}).get(sensor) or SCALES[str(unit)]
        normalisation[sensor] = Normalisation(
            channels,
            low=low,
            high=high,
            clip=True,
            mean=(mean or {}).get(sensor) or _statistic("mean", said.get("image_mean", 0.5), channels, sensor),
            std=(std or {}).get(sensor) or _statistic("std", said.get("image_std", 0.5), channels, sensor),
            size=size or _edge(said) or _number(getattr(modules[sensor].config, "image_size", None)),
        )
    return ModuleEncoder(modules, normalisation, pool=pool, tile_size=tile_size)


def _load(name: str, pool: Any, options: Mapping[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model, and the settings of its image processor; none where it has none."""
    try:
        model, report = AutoModel.from_pretrained(name, output_loading_info=True, **options)
    except OSError as error:
        raise FileNotFoundError(f"No model at {name}: expected a folder or a Hub name. ({error})") from error
    absent = [key for key in sorted(report["missing_keys"]) if pool == "pooler" or "pooler" not in key]
    if absent:  # Transformers draws them at random, and warns at most
        raise ValueError(
            f"{name} lacks {len(absent)} weights of {type(model).__name__}, {absent[0]} for one, which would be random: name a model "
            "that has them" + (", or choose pool='mean'." if pool == "pooler" else ".")
        )
    try:
        keys = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")
        said, _ = BaseImageProcessor.get_image_processor_dict(name, **{k: v for k, v in options.items() if k in keys})
    except OSError:
        said = {}
    return model, said


def _statistic(name: str, value: Any, channels: Sequence[str], sensor: str) -> float | list[float]:
    """An image processor's mean or std for so many channels: its own where there are as many, the common one where all are equal."""
    if isinstance(value, (int, float)):
        return float(value)
    if len(value) == len(channels):
        return [float(one) for one in value]
    if len(set(value)) == 1:
        return float(value[0])
    raise ValueError(
        f"The model's image processor has the {name} {list(value)}, and {sensor} {len(channels)} channels, "
        f"{', '.join(channels)}: pass {name}={{{sensor!r}: [...]}}, one number a channel, of pixels in 0..1."
    )


def _edge(said: Mapping[str, Any]) -> int | None:
    """The edge of the images that an image processor makes: of its crop where it crops, else of its size."""
    size = said.get("crop_size") if said.get("do_center_crop") else said.get("size")
    if isinstance(size, Mapping):
        size = size.get("height", size.get("shortest_edge"))
    return _number(size)


def _number(size: Any) -> int | None:
    if isinstance(size, (list, tuple)) and size:
        size = size[0]
    return size if isinstance(size, int) else None
