"""The panel that answers "why?": what the model expects the other sensor to see, and which patches resemble which."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from csmae_hf.app.explorer import Explorer
from csmae_hf.app.html import escape, figure
from csmae_hf.app.state import Search
from csmae_hf.training.reconstructions import PixelBands, restore_bands, restore_prediction
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

FloatArray = NDArray[np.float32]
Pixels = Mapping[str, Mapping[str, Any]]
"""Bands by name, by sensor."""


def why_panel(explorer: Explorer, search: Search, tile: str, uploads: Pixels) -> str:
    """Explain a result of a search, as HTML; `uploads` are the pixels of an uploaded query."""
    query = explorer.bands_of(search, uploads)
    result = explorer.pictures.bands(tile, search.archive_sensor)
    scores = [hit["score"] for hit in explorer.search(search).hits[0] if hit["id"] == tile]
    words = f"Why {tile}?" + (f" Similarity {scores[0]:.3f}." if scores else "")
    if search.sensor not in query or result is None:
        body = '<p class="quiet">There are no pixels of the query or of the result here, so there is nothing to compare.</p>'
    else:
        images = {"query": (query[search.sensor], search.sensor), "result": (result, search.archive_sensor)}
        parts = [partial(_similarity_part, explorer, images)]
        parts += [
            partial(_reconstruction_part, explorer, query, search.sensor, target)
            for target in explorer.bands
            if target != search.sensor
        ]
        body = ""
        for part in parts:
            try:
                body += part()
            except (ValueError, FileNotFoundError, ImportError) as error:  # in its place, why there is none
                body += f'<p class="quiet">{escape(error)}</p>'
    return (
        f'<section class="why" id="why" tabindex="-1" aria-label="Why"><button type="button" class="close" data-action="close" '
        f'data-tile="{escape(tile)}">Close</button><h2>{escape(words)}</h2>{body}</section>'
    )


def _similarity_part(explorer: Explorer, images: Mapping[str, tuple[Mapping[str, Any], str]]) -> str:
    """Which patches of the result resemble which of the query; each image is its bands and its sensor."""
    tokens = [patch_tokens(*explorer.archive.load_model(), bands, sensor) for bands, sensor in images.values()]
    similarity = patch_similarity(*tokens)
    best = (similarity.max(axis=1), similarity.max(axis=0))
    low, high = float(min(values.min() for values in best)), float(max(values.max() for values in best))
    data = json.dumps(np.round(similarity, 3).tolist(), separators=(",", ":"))
    grids = "".join(
        _grid(explorer.pictures.draw(bands, sensor)[0], (values - low) / max(high - low, 1e-6), role)
        for (role, (bands, sensor)), values in zip(images.items(), best, strict=True)
    )
    sensor, target = (sensor.upper() for _, sensor in images.values())
    words = (
        f"Cosine between the model's {len(similarity)} patch tokens of the query ({sensor}) and of the result "
        f"({target}). Shown first: how well each patch is matched anywhere in the other image; grey is least alike. "
        "Choose a patch (mouse, or arrow keys once it has the focus): the other image shows how alike each of its patches is."
    )
    return (
        f'<div class="similarity" data-matrix="{escape(data)}">'
        f'<h3>Patches that resemble each other</h3><div class="pair">{grids}</div>'
        f'<p class="bar"><span>{low:.2f}</span><i></i><span>{high:.2f}</span></p>'
        f'<p class="quiet">{escape(words)} <span class="chosen" role="status"></span></p></div>'
    )


def _grid(picture: tuple[str, str], values: FloatArray, role: str) -> str:
    """A picture, (title, URI), under its patches, each as bright as its value in 0..1."""
    title, uri = picture
    side = math.isqrt(len(values))
    step = 120 / side
    squares = "".join(
        f'<rect x="{place % side * step:g}" y="{place // side * step:g}" width="{step:g}" height="{step:g}" data-patch="{place}" '
        f'style="--v:{value:.3f}"/>'
        for place, value in enumerate(values)
    )
    return (
        f'<figure><svg class="patches" viewBox="0 0 120 120" data-role="{role}" data-side="{side}" tabindex="0" role="application" '
        f'aria-label="Patches of the {role}, {escape(title)}; arrow keys choose one"><image href="{uri}" width="120" height="120"/>'
        f"{squares}</svg><figcaption>{role.capitalize()}, {escape(title)}</figcaption></figure>"
    )


def _reconstruction_part(explorer: Explorer, images: Pixels, source: str, target: str) -> str:
    """What the model expects another sensor to see at the place of the query."""
    model = explorer.reconstructor()
    bands, difference = reconstruct(model, explorer.archive.load_model()[1], images, source, target)
    predicted = explorer.pictures.draw(bands, target)
    true = explorer.pictures.draw(images[target], target) if target in images else []
    figures = ""
    for place, (title, uri) in enumerate(predicted):
        figures += figure(uri, f"{title}, predicted from {source.upper()}")
        figures += figure(true[place][1], f"{title}, true") if true else ""
    error = "" if difference is None else f" Root mean square error {difference:.2f} standard deviations of a band."
    seen = "" if true else f" The true {target.upper()} image of the query is not known."
    return (
        f"<h3>What {escape(source.upper())} makes the model expect of {escape(target.upper())}</h3>"
        f'<div class="pair">{figures}</div><p class="quiet">Each patch is predicted while it is hidden, from the '
        f"{escape(source.upper())} patches that are not.{escape(error)}{escape(seen)}</p>"
    )


@torch.no_grad()
def reconstruct(
    model: CSMAEForPreTraining, processor: CSMAEImageProcessor, images: Pixels, source: str, target: str
) -> tuple[PixelBands, float | None]:
    """Predict what a place looks like to another sensor.

    The model predicts patches it cannot see from those it can, so it is asked several times, with other patches hidden each
    time, until each patch was hidden. What is shown of a patch is the mean of the predictions on which a loss counted in training.

    Args:
        model: With its decoders.
        processor: Its processor.
        images: Of the source, the sensor that is seen, and of the target, which is predicted, where it is known.
        source: Sensor that is seen.
        target: Sensor that is predicted.

    Returns:
        (H, W) by band, in the archive's units; and the root mean square difference to the true image over all bands, in the
        processor's standard deviations, None where the truth is not known.

    Raises:
        ValueError: If the processor refuses an image, or the truth is needed and not known (`norm_pixel_loss`).
    """
    config = model.config
    shown = {name: images[name] for name in (source, target) if name in images}
    inputs = dict(processor(**shown, suspect="accept"))  # they were taken when they came
    known = target in inputs
    if not known:
        if config.norm_pixel_loss:
            raise ValueError(
                "This model predicts patches without their brightness, so it needs the true image beside it."
            )
        inputs[target] = torch.zeros(1, len(config.sensors[target]), *inputs[source].shape[-2:])
    passes = min(8, math.ceil(1 / min(config.mask_ratio, 1 - 1e-6)))
    batch = {name: image.expand(passes, -1, -1, -1) for name, image in inputs.items()}
    noise = shifted_noise(config.num_patches, passes, list(batch))
    outputs = model(**batch, noise=noise, output_predictions=True, return_loss=False)
    patches = outputs.predictions[source].get(target)
    if patches is None:
        raise ValueError(f"This model was not trained to predict {target.upper()} from {source.upper()}.")
    counted = outputs.masks[source if config.cmr_target == "source" else target][..., None]  # (passes, L, 1)
    never = counted.sum(dim=0, keepdim=True) == 0
    weights = torch.where(never, torch.ones_like(counted), counted)
    mean = (patches * weights).sum(dim=0, keepdim=True) / weights.sum(dim=0, keepdim=True)
    image = restore_prediction(mean, inputs[target], config.patch_size, config.norm_pixel_loss)
    error = float((image - inputs[target]).square().mean().sqrt()) if known else None
    return restore_bands(image[0], processor, target), error


def shifted_noise(patches: int, passes: int, sensors: Sequence[str]) -> dict[str, torch.Tensor]:
    """(passes, L) noise by sensor that hides another share of the L patches in each pass, the same every time."""
    order = torch.randperm(patches, generator=torch.Generator().manual_seed(0)).float() / patches
    noise = torch.stack([(order + place / passes) % 1 for place in range(passes)])
    return dict.fromkeys(sensors, noise)


@torch.no_grad()
def patch_tokens(
    model: torch.nn.Module, processor: CSMAEImageProcessor, bands: Mapping[str, Any], sensor: str
) -> torch.Tensor:
    """One token a patch of an image by a `CSMAEModel`, (L, D), row by row of the picture; bands are (H, W) by name."""
    device = next(model.parameters()).device
    inputs = processor(**{sensor: bands}, suspect="accept").to(device)
    outputs = model(**inputs)
    if not hasattr(outputs, "last_hidden_state"):
        raise ValueError("This encoder gives one embed of an image and none of its patches, so none can be compared.")
    tokens = outputs.last_hidden_state[sensor][0, 1:].float().cpu()  # (L, D), without CLS
    side = math.isqrt(len(tokens))
    if processor.transpose:
        tokens = tokens.reshape(side, side, -1).transpose(0, 1).reshape(side * side, -1)
    return tokens


def patch_similarity(tokens: torch.Tensor, others: torch.Tensor) -> FloatArray:
    """Cosine of every patch of an image, (L, D), with every patch of another, (M, D): (L, M)."""
    similarity: FloatArray = (F.normalize(tokens, dim=1) @ F.normalize(others, dim=1).T).numpy().astype(np.float32)
    return similarity
