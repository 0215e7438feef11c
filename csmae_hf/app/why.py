"""Why two images are held to be alike: what the model makes of the sensor it does not see, and which patches resemble which."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from csmae_hf.cpu import speed_up
from csmae_hf.training.reconstructions import PixelBands, restore_bands, restore_prediction
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Reconstruction:
    """One sensor as the model predicts it from another.

    Attributes:
        source: Sensor that the model saw.
        target: Sensor that it predicts.
        predicted: (H, W) by band, in the archive's units.
        error: Root mean square difference to the true image over all bands, in the processor's standard
            deviations; None where the truth is not known.
    """

    source: str
    target: str
    predicted: PixelBands
    error: float | None


def load_reconstructor(name: str, revision: str | None = None) -> CSMAEForPreTraining:
    """Load a model with its decoders.

    Args:
        name: Folder or Hub name.
        revision: Of the Hub.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If it was published without decoders, or was not trained to predict one sensor from another.
        FileNotFoundError: If there is no such model.
    """
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        model, report = CSMAEForPreTraining.from_pretrained(name, output_loading_info=True, **options)
    except OSError as error:
        raise FileNotFoundError(f"The model {name} is neither a folder nor on the Hub ({error}).") from error
    missing = [key for key in report["missing_keys"] if key.startswith("decoder")]
    if missing:
        raise ValueError("This model was saved without its decoders, so it cannot show what it expects to see.")
    if not model.config.cmr_weight:
        raise ValueError("This model was not trained to predict one sensor from another.")
    return speed_up(model.eval())


@torch.no_grad()
def reconstruct(
    model: CSMAEForPreTraining,
    processor: CSMAEImageProcessor,
    images: Mapping[str, Mapping[str, Any]],
    source: str,
    target: str,
) -> Reconstruction:
    """Predict what a place looks like to another sensor.

    The model predicts patches it cannot see from those it can, so it is asked several times, with other patches hidden each
    time, until each patch was hidden. What is shown of a patch is the mean of the predictions on which a loss counted in training.

    Args:
        model: With its decoders.
        processor: Its processor.
        images: Bands by name, of the source, and of the target where it is known.
        source: Sensor that is seen.
        target: Sensor that is predicted.

    Returns:
        The prediction.

    Raises:
        ValueError: If the processor refuses an image, or the truth is needed and not known (`norm_pixel_loss`).
    """
    config = model.config
    inputs = dict(processor(**{name: dict(images[name].items()) for name in (source, target) if name in images}))
    known = target in inputs
    if not known:
        if config.norm_pixel_loss:
            raise ValueError(
                "This model predicts patches without their brightness, so it needs the true image beside it."
            )
        inputs[target] = torch.zeros(1, len(config.sensors[target]), *inputs[source].shape[-2:])
    passes = min(8, math.ceil(1 / min(config.mask_ratio, 1 - 1e-6)))
    batch = {name: image.expand(passes, -1, -1, -1) for name, image in inputs.items()}
    outputs = model(
        **batch, noise=_shifted_noise(model, passes, list(batch)), output_predictions=True, return_loss=False
    )
    patches = outputs.predictions[source].get(target)
    if patches is None:
        raise ValueError(f"This model was not trained to predict {target.upper()} from {source.upper()}.")
    counted = outputs.masks[source if config.cmr_target == "source" else target][..., None]  # (passes, L, 1)
    never = counted.sum(dim=0, keepdim=True) == 0
    weights = torch.where(never, torch.ones_like(counted), counted)
    mean = (patches * weights).sum(dim=0, keepdim=True) / weights.sum(dim=0, keepdim=True)
    image = restore_prediction(mean, inputs[target], config.patch_size, config.norm_pixel_loss)
    error = float((image - inputs[target]).square().mean().sqrt()) if known else None
    return Reconstruction(source, target, restore_bands(image[0], processor, target), error)


def _shifted_noise(model: CSMAEForPreTraining, passes: int, sensors: list[str]) -> dict[str, torch.Tensor]:
    """(passes, L) noise by sensor that hides another share of the patches in each pass, the same every time."""
    count = model.config.num_patches
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).float() / count
    noise = torch.stack([(order + place / passes) % 1 for place in range(passes)])
    return dict.fromkeys(sensors, noise)


@torch.no_grad()
def patch_tokens(
    model: torch.nn.Module, processor: CSMAEImageProcessor, bands: Mapping[str, Any], sensor: str
) -> torch.Tensor:
    """Encode an image to one token a patch.

    Args:
        model: A `CSMAEModel`.
        processor: Its processor.
        bands: (H, W) by name.
        sensor: Its sensor.

    Returns:
        (L, D), row by row of the picture.
    """
    device = next(model.parameters()).device
    inputs = processor(**{sensor: dict(bands.items())}).to(device)
    tokens = model(**inputs).last_hidden_state[sensor][0, 1:].float().cpu()  # (L, D), without CLS
    side = math.isqrt(len(tokens))
    if processor.transpose:
        tokens = tokens.reshape(side, side, -1).transpose(0, 1).reshape(side * side, -1)
    return tokens


def patch_similarity(tokens: torch.Tensor, others: torch.Tensor) -> FloatArray:
    """Compare every patch of an image with every patch of another.

    Args:
        tokens: (L, D).
        others: (M, D).

    Returns:
        (L, M) cosine similarities.
    """
    similarity: FloatArray = (F.normalize(tokens, dim=1) @ F.normalize(others, dim=1).T).numpy().astype(np.float32)
    return similarity
