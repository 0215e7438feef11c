"""What is known of a model: read from its folder, nothing assumed. What the folder does not say stays unknown."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from transformers import PreTrainedModel

from csmae_hf.hub.convert import REPORT_FILE
from image_processing_csmae import CSMAEImageProcessor

RESULTS_FILE = "results.json"
"""Results of `run_retrieval.py`."""

SETTINGS_FILE = "arguments.yaml"
"""Every argument of a pre-training run, defaults included."""

HARDWARE_FILE = "hardware.json"
"""What a pre-training run ran on."""

SAMPLE_MARKER = "sample.json"
"""File by which a generated sample archive is known."""

SAMPLE_DATA = "synthetic sample archive"
"""What `run_retrieval.py` calls the sample archive in its results."""


def read_facts(
    folder: Path, model: PreTrainedModel, processor: CSMAEImageProcessor, *, results: Path | None = None
) -> dict[str, Any]:
    """Read what a folder says of its model.

    Args:
        folder: Of `run_pretraining.py`, `csmae convert` or `save_pretrained`; every file but the model's is optional.
        model: The model that is published.
        processor: Its processor.
        results: Results of an evaluation.

    Returns:
        What the card of the model can say: its `config` and `processor`; `has_decoders`, so that pre-training can go on; `parameters`,
        how many, and their `dtype`; the contents of the files of `settings`, `state`, `metrics`, `hardware`, `results` and
        `conversion`, without paths of this machine, empty where there is none; whether training (`synthetic`, None if unknown) and
        evaluation (`synthetic_results`) took generated tiles; `license` and `datasets`, which only the publisher can fill
        in; and `onnx`, the ONNX files beside the weights, with `onnx_tiles`, a word on the tiles they were measured on.

    Raises:
        ValueError: If a file is broken.
    """
    settings, evaluation = _read(folder / SETTINGS_FILE), _read(results) if results else {}
    evaluated = (evaluation.get("metadata") or {}).get("data", "")
    return {
        "config": model.config,
        "processor": processor,
        "has_decoders": any(name.startswith("decoders.") for name, _ in model.named_parameters()),
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "settings": without_paths(settings),
        "state": _read(folder / "trainer_state.json"),
        "metrics": _read(folder / "train_results.json"),
        "hardware": without_paths(_read(folder / HARDWARE_FILE)),
        "results": without_paths(evaluation),
        "conversion": _read(folder / REPORT_FILE),
        "synthetic": _is_generated(settings.get("data")) if settings else None,
        "synthetic_results": bool(evaluation) and _is_generated(evaluated),
        "license": None,
        "datasets": (),
        "onnx": (),
        "onnx_tiles": None,
    }


def without_paths(value: Any) -> Any:
    """Replace every absolute path in JSON types by its last part: where things lie on a machine is nobody's business."""
    if isinstance(value, Mapping):
        return {name: without_paths(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    if isinstance(value, str) and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return last_part(value)
    return value


def last_part(path: str) -> str:
    """The last part of a path of any system."""
    return PureWindowsPath(path).name or path  # it takes both kinds of slashes


def _is_generated(data: Any) -> bool:
    """Whether data, as named on a command line, are a sample archive: the default where nothing was named."""
    return data in (None, SAMPLE_DATA) or (data != "" and (Path(str(data)) / SAMPLE_MARKER).is_file())


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a file of JSON or YAML; empty where there is none."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text) or {} if path.suffix == ".yaml" else json.loads(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is no {path.suffix[1:].upper()}: {error}. Repair it or take it away.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}: expected a mapping. Repair it or take it away.")
    return content
