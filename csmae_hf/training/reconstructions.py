"""One picture of what a model in training reconstructs: a row a tile; inputs, masked inputs, and every sensor from every sensor."""

import os
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csmae_hf.visualize import Image, abbreviate, common_limits, draw_image_grid, false_color, to_rgb
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, patchify, unpatchify

_NOT_SHOWN = 0.82
"""Grey of patches that are hidden, or that no loss term looks at."""

_FALSE_COLOR_BANDS = {"B08", "B04", "B03"}
_LABELS_SHOWN = 3

PixelBands = dict[str, NDArray[np.float32]]


def restore_bands(image: torch.Tensor, processor: CSMAEImageProcessor, sensor: str) -> PixelBands:
    """Undo what the processor did to one image: standardisation and, where it is set, transposition.

    Args:
        image: (C, H, W) standardised.
        processor: That standardised it.
        sensor: Whose image it is.

    Returns:
        (H, W) float32 by band, in the unit of the archive: dB or digital numbers.
    """
    pixels = image.detach().float().cpu().numpy()
    if processor.transpose:
        pixels = pixels.swapaxes(-1, -2)
    return {
        band: layer * np.float32(processor.band_std[band]) + np.float32(processor.band_mean[band])
        for band, layer in zip(processor.sensors[sensor], pixels, strict=True)
    }


def restore_prediction(
    prediction: torch.Tensor, images: torch.Tensor, patch_size: int, norm_pixel_loss: bool = False
) -> torch.Tensor:
    """Put predicted patches together to images that are standardised like the model's input.

    Args:
        prediction: (B, L, P * P * C) as the model returns it.
        images: (B, C, H, W) true images of the target sensor.
        patch_size: Edge of a patch, pixels.
        norm_pixel_loss: Whether the model predicts patches standardised by their own mean and variance; those of the truth are put
            back, as He et al. (arXiv 2111.06377) show theirs.

    Returns:
        (B, C, H, W).
    """
    if norm_pixel_loss:
        truth = patchify(images, patch_size)
        mean, variance = truth.mean(dim=-1, keepdim=True), truth.var(dim=-1, keepdim=True)
        prediction = prediction * (variance + 1e-6) ** 0.5 + mean
    return unpatchify(prediction, patch_size, *images.shape[-2:])


def patch_pixels(patches: torch.Tensor, patch_size: int, size: int) -> torch.Tensor:
    """Spread a flag a patch, (B, L), over the pixels: (B, size, size) bool."""
    side = size // patch_size
    grid = patches.bool().reshape(-1, side, side)
    return grid.repeat_interleave(patch_size, dim=1).repeat_interleave(patch_size, dim=2)


@torch.no_grad()
def draw_reconstructions(
    model: CSMAEForPreTraining,
    processor: CSMAEImageProcessor,
    tiles: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    label_names: Sequence[str] = (),
) -> Path:
    """Draw tiles, their masked inputs, and what the model makes of them.

    Columns: each sensor's image (of an optical one in true and in false colour), each masked input, each sensor from itself, each from
    another. `S1 → S2` is Sentinel-2 as predicted from Sentinel-1. A prediction is shown on the patches on which its loss counts:
    nothing trains the others. Where a sensor is reconstructed from itself they show the input, elsewhere they are grey. The masks are
    those of the model's evaluation, the same every time. Along a row a sensor's pictures are stretched alike.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        tiles: Rows with an image by sensor and, where known, `id` and `labels`.
        path: File to write, a PNG.
        title: Headline.
        label_names: Names of the classes that `labels` numbers.

    Returns:
        The path.

    Raises:
        ValueError: If there is no tile, or the processor refuses one.
        ImportError: If matplotlib is missing.
    """
    config = model.config
    device = next(model.parameters()).device
    given = {sensor: [tile[sensor] for tile in tiles] for sensor in config.sensors}
    inputs = {sensor: image.to(device) for sensor, image in processor(**given, return_tensors="pt").items()}
    outputs = model(**inputs, output_predictions=True, return_loss=False)
    hidden = {
        sensor: patch_pixels(mask, config.patch_size, config.image_size) for sensor, mask in outputs.masks.items()
    }
    restored = {
        (source, target): restore_prediction(
            outputs.predictions[source][target].float(), inputs[target], config.patch_size, config.norm_pixel_loss
        )
        for source, target in _pairs(config.sensors)
        if target in outputs.predictions[source]
    }
    rows = []
    for place in range(len(tiles)):
        truth = {sensor: restore_bands(image[place], processor, sensor) for sensor, image in inputs.items()}
        shown = {sensor: _as_shown(mask[place], processor) for sensor, mask in hidden.items()}
        row = [picture for sensor in truth for picture in _pictures(truth[sensor])]
        row += [_grey(_picture(truth[sensor], truth[sensor]), ~shown[sensor]) for sensor in truth]
        for (source, target), images in restored.items():
            counted = shown[source if config.cmr_target == "source" else target]
            predicted = _picture(restore_bands(images[place], processor, target), truth[target])
            if source == target:
                row.append(np.where(counted[..., None], predicted, _picture(truth[target], truth[target])))
            else:
                row.append(_grey(predicted, counted))
        rows.append(row)
    first = {sensor: restore_bands(image[0], processor, sensor) for sensor, image in inputs.items()}
    titles = [name for sensor in first for name in _titles(sensor, first[sensor])]
    titles += [f"{sensor.upper()}\nmasked" for sensor in first]
    titles += [f"{source.upper()} → {target.upper()}" for source, target in restored]
    words = [_row_title(tile, label_names) for tile in tiles]
    return draw_image_grid(rows, titles, path, row_titles=words, title=title)


def _pairs(sensors: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Ordered pairs of sensors, each with itself first."""
    return [(sensor, sensor) for sensor in sensors] + list(permutations(sensors, 2))


def _as_shown(mask: torch.Tensor, processor: CSMAEImageProcessor) -> NDArray[np.bool_]:
    pixels: NDArray[np.bool_] = mask.cpu().numpy()
    return pixels.T if processor.transpose else pixels


def _has_false_color(bands: PixelBands) -> bool:
    return set(bands) >= _FALSE_COLOR_BANDS


def _titles(sensor: str, bands: PixelBands) -> list[str]:
    name = sensor.upper()
    return [f"{name}\ntrue colour", f"{name}\nfalse colour"] if _has_false_color(bands) else [name]


def _pictures(bands: PixelBands) -> list[Image]:
    return [_picture(bands, bands), *([false_color(bands)] if _has_false_color(bands) else [])]


def _picture(bands: PixelBands, truth: PixelBands) -> Image:
    """The picture of some bands, stretched as that of the truth: by fixed limits where the sensor has them, else by the truth's."""
    return to_rgb(bands, limits=None if _has_fixed_limits(truth) else common_limits([truth]))


def _has_fixed_limits(bands: PixelBands) -> bool:
    return {"VV", "VH"} <= set(bands) or {"B02", "B03", "B04"} <= set(bands)


def _grey(rgb: Image, shown: NDArray[np.bool_]) -> Image:
    return np.where(shown[..., None], rgb, np.float32(_NOT_SHOWN))


def _row_title(tile: Mapping[str, Any], label_names: Sequence[str]) -> str:
    labels = [abbreviate(label_names[number]) for number in tile.get("labels") or [] if number < len(label_names)]
    more = ["…"] if len(labels) > _LABELS_SHOWN else []
    return "   ".join(filter(None, [str(tile.get("id") or ""), ", ".join(labels[:_LABELS_SHOWN] + more)]))
