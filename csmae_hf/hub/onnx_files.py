"""A model's encoders as ONNX files, in float32 and in 8 bits, and how far their embeds are from the model's own."""

import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from configuration_csmae import CSMAEConfig
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.load import ALL_TILES, load_data
from csmae_hf.embedding.diagnostics import kept_neighbours
from csmae_hf.embedding.identity import Identity
from csmae_hf.sample.generate import generate_sample
from image_processing_csmae import CSMAEImageProcessor

if TYPE_CHECKING:
    from datasets import Dataset

ONNX_FOLDER = "onnx"
"""Folder of a repository where its ONNX files are looked for."""

ORIGIN = "csmae_hf.made_with"
"""Key of the metadata of an ONNX file that says as JSON what it was made of."""

NEIGHBOURS = 10
"""Nearest tiles of a tile that are compared."""

_SAMPLE_TILES = 64
_MOST_TILES = 256
_LARGEST = 2**31 - 2**20  # bytes of weights that an ONNX file holds, the graph beside them

Images = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file and what it was measured to do.

    Attributes:
        name: Its path in the repository's folder of the model, such as `onnx/model_s1.onnx`.
        sensors: The sensors it takes, each an input of this name.
        outputs: Names of what it gives.
        size: In bytes.
        lowest_cosine: Of its embeds with the model's own in float32, over tiles and sensors.
        mean_cosine: The mean of the same.
        kept: Share of the 10 nearest tiles, by the model's own embeds, that are among the 10 nearest by the file's.
    """

    name: str
    sensors: tuple[str, ...]
    outputs: tuple[str, ...]
    size: int
    lowest_cosine: float
    mean_cosine: float
    kept: float


def require_onnx(*packages: str) -> None:
    """Raise an ImportError that says how to install what ONNX files are made and run with, where it is missing."""
    for package in packages or ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise ImportError(f"ONNX files need {package}: pip install {package}") from error


def write_onnx_files(
    model: PreTrainedModel,
    processor: CSMAEImageProcessor,
    folder: Path,
    *,
    int8: bool = False,
    data: str | os.PathLike[str] | None = None,
) -> tuple[list[OnnxFile], str]:
    """Write `onnx/model.onnx`, which takes all sensors together, and one file for each sensor alone; measure all of them.

    Args:
        model: Of any class. A classifier's files give `logits` too; decoders are left out.
        processor: Its processor.
        folder: The model's folder; the files go into its folder `onnx`.
        int8: Also write each file with its matrix products in 8 bits, as `*_int8.onnx`.
        data: Tiles to measure on, at most 256 of them; default 64 generated ones.

    Returns:
        The files, and a word on the tiles they were measured on.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ValueError: If no tiles can be generated for the model's sensors and none were given, the tiles are too few, or the model is
            too large for a file of ONNX.
    """
    require_onnx()
    config = cast(CSMAEConfig, model.config)
    encoder = copy.deepcopy(model if hasattr(model, "classifier") else cast(PreTrainedModel, model.base_model))
    encoder = encoder.float().eval()
    if sum(value.nbytes for value in encoder.state_dict().values()) > _LARGEST:
        raise ValueError(
            f"{encoder.num_parameters():,} parameters are more than an ONNX file holds: push without --onnx."
        )
    place = folder / ONNX_FOLDER
    place.mkdir(parents=True, exist_ok=True)
    groups = {"model": tuple(config.sensors)}
    if len(config.sensors) > 1:
        groups |= {f"model_{sensor}": (sensor,) for sensor in config.sensors}
    paths: dict[Path, tuple[str, ...]] = {}
    for name, sensors in groups.items():
        paths[export_onnx(encoder, sensors, place / f"{name}.onnx")] = sensors
        if int8:
            paths[_quantise(place / f"{name}.onnx", place / f"{name}_int8.onnx")] = sensors
    with tempfile.TemporaryDirectory(prefix="csmae-onnx-") as temporary, _quiet():
        tiles, said = _tiles(config, data, Path(temporary))
        collate = TileCollator(processor)
        batches = [
            collate([tiles[i] for i in rows]) for rows in np.array_split(range(len(tiles)), len(tiles) // 32 or 1)
        ]
    with torch.no_grad():
        own = [
            {sensor: encoder(**{sensor: batch[sensor]}).embeds[sensor] for sensor in config.sensors}
            for batch in batches
        ]
    for path in paths:
        _say_origin(path, Identity.of(model, processor))
    return [_measure(path, sensors, batches, own) for path, sensors in paths.items()], said


def export_onnx(model: PreTrainedModel, sensors: Sequence[str], path: str | os.PathLike[str]) -> Path:
    """Write the encoders of some sensors as one ONNX file, for batches of any size.

    Inputs are `SENSOR`, (batch, bands, H, W) float32, standardised as the processor does it; outputs `embeds.SENSOR`, (batch, D), and,
    of a classifier, `logits`.

    Args:
        model: A `CSMAEModel` or `CSMAEForImageClassification` in float32 and evaluation mode.
        sensors: The sensors that the file takes, all of them together.
        path: The file.

    Returns:
        The file.

    Raises:
        ImportError: If onnx or onnxscript is not installed.
    """
    require_onnx("onnx", "onnxscript")
    import onnx

    config, path = cast(CSMAEConfig, model.config), Path(path)
    size = config.image_size
    images = tuple(torch.zeros(2, len(config.sensors[sensor]), size, size) for sensor in sensors)
    outputs = [f"embeds.{sensor}" for sensor in sensors] + (["logits"] if hasattr(model, "classifier") else [])
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # of the exporter, about packages it could also use
        torch.onnx.export(
            _ByOrder(model, sensors),
            images,
            path,
            input_names=list(sensors),
            output_names=outputs,
            dynamic_shapes=(tuple({0: batch} for _ in sensors),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    written = onnx.load(path)
    _forget_sources(written)
    onnx.save(written, path)
    return path


class _ByOrder(nn.Module):
    """A model that takes its images in an order and gives tensors in an order, as ONNX does."""

    def __init__(self, model: nn.Module, sensors: Sequence[str]):
        super().__init__()
        self.model, self.sensors = model, sensors

    def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output = self.model(**dict(zip(self.sensors, images, strict=True)))
        logits = getattr(output, "logits", None)
        return *(output.embeds[sensor] for sensor in self.sensors), *([] if logits is None else [logits])


def _forget_sources(proto: Any) -> None:
    """Take out of an ONNX model where each node was on this machine: the exporter notes paths and stack traces."""
    graph = proto.graph
    parts = [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for function in proto.functions:
        parts += [function, *function.node, *function.value_info]
    for part in parts:
        for field in ("metadata_props", "doc_string"):
            part.ClearField(field)


def _say_origin(path: Path, model: Identity) -> None:
    """Write into an ONNX file which weights, configuration and processor it is of, and whether it was trained on generated scenes."""
    import onnx

    proto = onnx.load(path)
    told = {
        "weights": model.weights,
        "processor": model.processor,
        "config": model.config,
        "trained_on_generated": model.trained_on_generated,
        "csmae_hf": model.code,
    }
    onnx.helper.set_model_props(proto, {ORIGIN: json.dumps(told, sort_keys=True)})
    onnx.save(proto, path)


def _quantise(source: Path, target: Path) -> Path:
    """Write an ONNX file with the weights of its matrix products in 8 bits; its activations are made so batch by batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with (
        _quiet()
    ):  # it logs to the root that a model could be prepared, which is done for shapes that are not known here
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QUInt8,  # signed ones overflow on CPUs without VNNI
        )
    return target


def _tiles(config: CSMAEConfig, data: str | os.PathLike[str] | None, temporary: Path) -> "tuple[Dataset, str]":
    """The tiles to measure on, and a word on them."""
    generated = data is None
    source = generate_sample(temporary / "sample", tiles=_SAMPLE_TILES, seed=0) if generated else data
    tiles = load_data(str(source), ALL_TILES, limit=_MOST_TILES)
    for sensor, bands in config.sensors.items() if generated else ():
        stored = tiles.features.get(sensor)
        if stored is None or not set(bands) <= set(tiles[0][sensor]):
            raise ValueError(
                f"No tiles of {sensor} ({', '.join(bands)}) can be generated to measure the ONNX files on: give your own, "
                "--data FOLDER (PublishOptions(data=...))."
            )
    if len(tiles) <= NEIGHBOURS:
        raise ValueError(f"{data} has {len(tiles)} tiles: more than {NEIGHBOURS} are needed to measure the ONNX files.")
    return tiles, f"{len(tiles)} {'generated ' if generated else ''}tiles"


def _measure(path: Path, sensors: tuple[str, ...], batches: Sequence[Images], own: Sequence[Images]) -> OnnxFile:
    """Run a file on batches of images, and compare with the model's own embeds of each batch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    names = [f"embeds.{sensor}" for sensor in sensors]
    parts = [session.run(names, {sensor: batch[sensor].numpy() for sensor in sensors}) for batch in batches]
    cosines, kept = [], []
    for place, sensor in enumerate(sensors):
        found = torch.from_numpy(np.concatenate([part[place] for part in parts]))
        expected = torch.cat([embeds[sensor] for embeds in own])
        cosines.append(F.cosine_similarity(found.double(), expected.double()).numpy())
        kept.append(kept_neighbours(found, expected, NEIGHBOURS))
    return OnnxFile(
        f"{ONNX_FOLDER}/{path.name}",
        sensors,
        tuple(output.name for output in session.get_outputs()),
        path.stat().st_size,
        round(float(np.min(cosines)), 6),
        round(float(np.mean(cosines)), 6),
        round(float(np.mean(kept)), 4),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No log below an error: exporter and quantiser tell of every rewritten node, the latter to the root."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
