"""One picture of what a model in training reconstructs: a row a tile; inputs, masked inputs, and every sensor from every sensor."""

import os
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csmae_hf.data.labels import known_numbers
from csmae_hf.visualize import Image, abbreviate, common_limits, draw_image_grid, false_color, to_rgb
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, patchify, unpatchify

_NOT_SHOWN = np.float32(0.82)
"""Grey of patches that are hidden, or that no loss term looks at."""

_FALSE_COLOR_BANDS = {"B08", "B04", "B03"}
_LABELS_SHOWN = 3

PixelBands = dict[str, NDArray[np.float32]]


def restore_bands(image: torch.Tensor, processor: CSMAEImageProcessor, sensor: str) -> PixelBands:
    """Undo what the processor did to one (C, H, W) image: standardisation and, where it is set, transposition.

    The result is (H, W) float32 by band, in the unit of the archive: dB or digital numbers.
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
    """Put predicted patches, (B, L, P * P * C), together to (B, C, H, W) images that are standardised like the model's input.

    With `norm_pixel_loss` the model predicts patches standardised by their own mean and variance: those of the true images are put
    back, as He et al. (arXiv 2111.06377) show theirs.
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
    config, device = model.config, next(model.parameters()).device
    given = {sensor: [tile[sensor] for tile in tiles] for sensor in config.sensors}
    inputs = {sensor: image.to(device) for sensor, image in processor(**given, return_tensors="pt").items()}
    outputs = model(**inputs, output_predictions=True, return_loss=False)
    hidden = {}
    for sensor, mask in outputs.masks.items():
        pixels = patch_pixels(mask, config.patch_size, config.image_size)
        hidden[sensor] = (pixels.transpose(-1, -2) if processor.transpose else pixels).cpu().numpy()
    restored = {
        (source, target): restore_prediction(
            outputs.predictions[source][target].float(), inputs[target], config.patch_size, config.norm_pixel_loss
        )
        for source, target in [*((sensor, sensor) for sensor in config.sensors), *permutations(config.sensors, 2)]
        if target in outputs.predictions[source]
    }
    rows, row_titles = [], []
    for place, tile in enumerate(tiles):
        truth = {sensor: restore_bands(image[place], processor, sensor) for sensor, image in inputs.items()}
        shown: dict[str, Image] = {}
        for sensor, bands in truth.items():
            if set(bands) >= _FALSE_COLOR_BANDS:
                shown[f"{sensor.upper()}\ntrue colour"] = _picture(bands, bands)
                shown[f"{sensor.upper()}\nfalse colour"] = false_color(bands)
            else:
                shown[sensor.upper()] = _picture(bands, bands)
        for sensor, bands in truth.items():
            shown[f"{sensor.upper()}\nmasked"] = _choose(~hidden[sensor][place], _picture(bands, bands), _NOT_SHOWN)
        for (source, target), images in restored.items():
            counted = hidden[source if config.cmr_target == "source" else target][place]
            predicted = _picture(restore_bands(images[place], processor, target), truth[target])
            elsewhere = _picture(truth[target], truth[target]) if source == target else _NOT_SHOWN
            shown[f"{source.upper()} → {target.upper()}"] = _choose(counted, predicted, elsewhere)
        rows.append(list(shown.values()))
        labels = [
            abbreviate(label_names[number]) for number in known_numbers(tile.get("labels")) if number < len(label_names)
        ]
        words = ", ".join(labels[:_LABELS_SHOWN] + ["…"] * (len(labels) > _LABELS_SHOWN))
        row_titles.append("   ".join(filter(None, [str(tile.get("id") or ""), words])))
    return draw_image_grid(rows, list(shown), path, row_titles=row_titles, title=title)


def _picture(bands: PixelBands, truth: PixelBands) -> Image:
    """The picture of some bands, stretched as that of the truth: by fixed limits where the sensor has them, else by the truth's."""
    has_fixed_limits = {"VV", "VH"} <= set(truth) or {"B02", "B03", "B04"} <= set(truth)
    return to_rgb(bands, limits=None if has_fixed_limits else common_limits([truth]))


def _choose(pixels: NDArray[np.bool_], rgb: Image, elsewhere: Image | np.float32) -> Image:
    """One picture on some pixels, (H, W), and another or a grey elsewhere."""
    return np.where(pixels[..., None], rgb, elsewhere)
