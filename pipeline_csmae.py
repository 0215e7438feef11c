"""Pipelines for CSMAE: named bands in, in whatever form people have them, features or labels out.

`transformers.pipeline` finds them by a repository's `config.json`, or, once `csmae_hf` is imported, by the type of the model.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import ImageClassificationPipeline, Pipeline

try:
    from .image_processing_csmae import read_bands
except ImportError:  # imported as a plain top-level module
    if __package__:
        raise
    from image_processing_csmae import read_bands

_Pipeline: Any = Pipeline  # whose annotations are narrower than what its own subclasses do
_ClassificationPipeline: Any = ImageClassificationPipeline
_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


class _Rows(Dataset):
    """Rows of a `datasets.Dataset`, which `Pipeline` would take for one image."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Any:
        return self.rows[place]


class _BandsPipeline(_Pipeline):
    """What the pipelines have in common: images by sensor, from what a call was given."""

    _load_processor = False
    _load_image_processor = True
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """See the class; `kwargs` are its own arguments, `batch_size` and `num_workers`."""
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        elif hasattr(inputs, "column_names"):  # of the datasets library; one that streams has no length
            inputs = _Rows(inputs) if hasattr(inputs, "__len__") else (row for row in inputs)
        if isinstance(inputs, list) and not inputs:  # `Pipeline` looks at the first
            return []
        return super().__call__(inputs, **kwargs)

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Any:
        """As of `Pipeline`. Of an input that holds several images it would keep the first of each batch: refuse it."""
        params = {**preprocess_params, "one_place": preprocess_params.get("one_place") or batch_size > 1}
        return super().get_iterator(inputs, num_workers, batch_size, params, forward_params, postprocess_params)

    def preprocess(self, image: Any, sensor: str | None = None, one_place: bool = False, **options: Any) -> Any:
        """Bring an input into what the model takes: a tensor (B, C, H, W) by sensor."""
        processor = cast(Any, self.image_processor)
        inputs = processor(**images_by_sensor(image, processor.sensors, sensor), return_tensors="pt", **options)
        lengths = {name: len(pixels) for name, pixels in inputs.items()}
        if one_place and set(lengths.values()) != {1}:
            raise ValueError(f"One input holds {lengths} images: pass a list with one place in each input.")
        return inputs.to(self.dtype)

    @staticmethod
    def _image_params(given: Mapping[str, Any], image_processor_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value is not None} | dict(image_processor_kwargs or {})


class CSMAEImageFeatureExtractionPipeline(_BandsPipeline):
    """Features of images: the tokens of the encoder, or with `pool` its embeds, which retrieval compares.

    An input is one place. It is a dict of images by sensor (`{"s2": image}`, also a row of a dataset), an image of one sensor with
    `sensor="s2"` (or of a model that has one sensor), a dict of bands (`{"B02": array, ...}`; it is of each sensor whose bands are all
    there), or the path of an image file or folder that names its bands (needs csmae-hf). An image is what
    [`CSMAEImageProcessor`] takes: bands by name, an array (C, H, W), a path. Several inputs are a list, a generator, a
    `KeyDataset`, a `datasets.Dataset`; `batch_size` of them run at once.

    Args:
        sensor: Whose image an array, a path or a dict of bands is; of a dict by sensor, the one to take.
        units: As of [`CSMAEImageProcessor`].
        suspect: As of [`CSMAEImageProcessor`].
        pool: Give the embed (1, D), not the tokens (1, 1 + L, D), CLS first. Default the tokens, as everywhere in Transformers.
        return_tensors: Give tensors instead of nested lists.
        image_processor_kwargs: Further arguments of a call of the processor.

    Returns:
        Features of an input of one sensor; of several sensors, a dict by sensor. A list, or an iterator, of them where several inputs
        were given.

    Raises:
        ValueError: If an input is a picture, its sensor is not known, or as of the processor; it says what to give.

    Example:
        >>> pipe = pipeline("image-feature-extraction", "user/csmae", trust_remote_code=True)  # doctest: +SKIP
        >>> pipe({"s2": {"B02": blue, "B03": green, ...}}, pool=True)  # doctest: +SKIP
    """

    def _sanitize_parameters(
        self,
        sensor: str | None = None,
        units: Mapping[str, str] | None = None,
        suspect: str | None = None,
        pool: bool | None = None,
        return_tensors: bool | None = None,
        image_processor_kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # of a download, which none of the inputs is
        local_files_only: bool = False,  # `pipeline` has used it, and passes it on
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {"sensor": sensor, "units": units, "suspect": suspect}
        return (
            self._image_params(given, image_processor_kwargs),
            {} if pool is None else {"pool": pool},
            {} if return_tensors is None else {"return_tensors": return_tensors},
        )

    def _forward(self, inputs: Mapping[str, torch.Tensor], pool: bool = False) -> dict[str, torch.Tensor]:
        outputs = self.model.base_model(**inputs)
        return dict(outputs.embeds if pool else outputs.last_hidden_state)

    def postprocess(self, features: Mapping[str, torch.Tensor], return_tensors: bool = False) -> Any:
        """Return the features of the one sensor, or by sensor."""
        values = {name: value if return_tensors else value.tolist() for name, value in features.items()}
        return values if len(values) > 1 else next(iter(values.values()))


class CSMAEImageClassificationPipeline(_BandsPipeline, _ClassificationPipeline):
    """Labels of places, by [`CSMAEForImageClassification`]. Inputs are those of [`CSMAEImageFeatureExtractionPipeline`].

    Args:
        sensor: As of [`CSMAEImageFeatureExtractionPipeline`].
        units: As of [`CSMAEImageProcessor`].
        suspect: As of [`CSMAEImageProcessor`].
        top_k: How many labels, those of the highest scores; 5 by default.
        function_to_apply: `"sigmoid"`, `"softmax"` or `"none"`; default by the model's `problem_type`.
        image_processor_kwargs: Further arguments of a call of the processor.

    Returns:
        `{"label": ..., "score": ...}` of the labels, highest first. A list, or an iterator, of them where several inputs were given.

    Raises:
        ValueError: As of [`CSMAEImageFeatureExtractionPipeline`].
    """

    def _sanitize_parameters(
        self,
        sensor: str | None = None,
        units: Mapping[str, str] | None = None,
        suspect: str | None = None,
        top_k: int | None = None,
        function_to_apply: Any = None,
        image_processor_kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        local_files_only: bool = False,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {"sensor": sensor, "units": units, "suspect": suspect, "one_place": True}
        _, _, postprocess = _ClassificationPipeline._sanitize_parameters(self, top_k, function_to_apply)
        return self._image_params(given, image_processor_kwargs), {}, postprocess

    def check_model_type(self, supported_models: Any) -> None:
        """Accept the model: the list of supported ones is that of Transformers' own."""

    def _forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"logits": self.model(**inputs).logits}


def images_by_sensor(image: Any, sensors: Mapping[str, Sequence[str]], sensor: str | None = None) -> dict[str, Any]:
    """Find whose image an input is.

    Args:
        image: One input of a pipeline.
        sensors: Bands by sensor, of the model.
        sensor: Its sensor, where it is said.

    Returns:
        Images by sensor, as the processor takes them.

    Raises:
        ValueError: If it is a picture, or its sensor is not known.
    """
    if sensor is not None and sensor not in sensors:
        raise ValueError(f"Unknown sensor {sensor!r}: this model has {', '.join(sensors)}.")
    if hasattr(image, "keys"):
        found = _of_mapping(image, sensors, sensor)
    else:
        _refuse_pictures([image], sensors)
        known = sensor or (next(iter(sensors)) if len(sensors) == 1 else None)
        if known is None and isinstance(image, (str, os.PathLike)):
            found = _of_path(image, sensors)
        elif known is None:
            raise ValueError(f"Whose image is an array of shape {tuple(np.shape(image))}? {_what_to_give(sensors)}")
        else:
            found = {known: image}
    _refuse_pictures(found.values(), sensors)
    return found


def _of_mapping(image: Any, sensors: Mapping[str, Sequence[str]], sensor: str | None) -> dict[str, Any]:
    """Images by sensor, of a dict by sensor or by band."""
    names = list(image.keys())
    named = {name: image[name] for name in sensors if name in names and image[name] is not None}
    if not named and sensor is not None:
        return {sensor: image}  # the processor says which bands it lacks
    if not named:
        complete = {name: image for name, bands in sensors.items() if all(band in names for band in bands)}
        if complete:
            return complete
        raise ValueError(f"{names} are the bands of no sensor. {_what_to_give(sensors)}")
    if sensor is not None:
        if sensor not in named:
            raise ValueError(f"There is no image of {sensor}, only of {', '.join(named)}.")
        return {sensor: named[sensor]}
    # a row of a dataset has labels and places, too; only an image may not be passed over
    others = [name for name in names if name not in sensors and _is_image(image[name])]
    if others:
        raise ValueError(
            f"Unknown sensor {', '.join(map(repr, others))}: this model has {', '.join(sensors)}. Leave it out, or say sensor=..."
        )
    return named


def _is_image(value: Any) -> bool:
    """Whether something in a row is the image of a sensor: (C, H, W), or bands by name."""
    if not hasattr(value, "keys"):
        return getattr(value, "ndim", 0) > 2
    bands = [value[name] for name in value.keys()]  # noqa: SIM118 (any mapping, also one that is not registered as such)
    return any(
        getattr(band, "ndim", 0) > 1 or (isinstance(band, list) and isinstance(next(iter(band), None), list))
        for band in bands
    )


def _of_path(path: str | os.PathLike[str], sensors: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The images of a file or folder: of each sensor whose bands it holds."""
    found, reasons = {}, []
    for name, bands in sensors.items():
        try:
            found[name] = read_bands(path, bands, name)
        except ValueError as error:
            reasons.append(f"As {name}: {error}")
    if not found:
        raise ValueError(f"{os.fspath(path)} is no image of any sensor of this model. {' '.join(reasons)}")
    return found


def _refuse_pictures(images: Iterable[Any], sensors: Mapping[str, Sequence[str]]) -> None:
    """Refuse what stock pipelines take: they would turn it into three bands of 8 bits."""
    for image in images:
        text = os.fspath(image) if isinstance(image, (str, os.PathLike)) else ""
        if type(image).__module__.partition(".")[0] == "PIL":
            given = f"A picture ({type(image).__name__})"
        elif "://" in text or text.startswith("data:"):
            given = f"The address {text[:80]}"
        elif text.lower().endswith(_PICTURES):
            given = f"The picture {text}"
        elif image is None or isinstance(image, (bool, int, float, bytes)):
            given = f"An input of type {type(image).__name__}"
        else:
            continue
        raise ValueError(f"{given} has no bands that this model could use. {_what_to_give(sensors)}")


def _what_to_give(sensors: Mapping[str, Sequence[str]]) -> str:
    bands = "; ".join(f"{sensor}: {', '.join(names)}" for sensor, names in sensors.items())
    sensor, names = list(sensors.items())[-1]
    return (
        f"This model has {bands}. Give bands by name, {{{sensor!r}: {{{names[0]!r}: array (H, W), ...}}}}; or, with "
        f"sensor={sensor!r}, an array (C, H, W) in the order above or the path of a GeoTIFF that names its bands."
    )


__all__ = ["CSMAEImageClassificationPipeline", "CSMAEImageFeatureExtractionPipeline", "images_by_sensor"]
