"""What is known of a model: read from its folder, nothing assumed. What the folder does not say stays unknown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from transformers import PreTrainedConfig, PreTrainedModel

from csmae_hf.embedding.without_paths import HUB_NAME, public_name, without_paths
from csmae_hf.evaluation.results import SAMPLE_DATA, provenance_of
from csmae_hf.evaluation.trainings import ARGUMENTS_NAME, learning_changes
from csmae_hf.hub.convert import REPORT_FILE
from csmae_hf.sample.generate import is_generated
from image_processing_csmae import CSMAEImageProcessor

RESULTS_FILE = "results.json"
"""Results of `run_retrieval.py`."""

HARDWARE_FILE = "hardware.json"
"""What a pre-training run ran on."""


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
        `conversion`, without paths of this machine, empty where there is none; the `changes` of settings on the way, in words; whether
        training (`synthetic`, None if unknown) and evaluation (`synthetic_results`) took generated tiles; the `provenance` of the
        results, None where they do not say it; the
        `base_model` on the Hub that it was made from, where that is known, and the `base_model_relation`, as the Hub calls it;
        `license`, `provider` and `datasets`, which only the publisher can fill in; and `onnx`, the ONNX files beside the weights, with
        `onnx_tiles`, a word on the tiles they were measured on.

    Raises:
        ValueError: If a file is broken.
    """
    settings, evaluation = _read(folder / ARGUMENTS_NAME), _read(results) if results else {}
    published, told = without_paths(evaluation), without_paths(settings)
    for held, name in ((published.get("metadata") or {}, "model"), (told, "model_name_or_path")):
        if held.get(name):
            held[name] = public_name(held[name])
    return {
        "config": model.config,
        "processor": processor,
        "has_decoders": any(name.startswith("decoders.") for name, _ in model.named_parameters()),
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "settings": told,
        "changes": [
            f"until step {step} {name} = {value}"
            for step, values in learning_changes(folder / ARGUMENTS_NAME)
            for name, value in without_paths(dict(values)).items()
        ],
        "state": without_paths(_read(folder / "trainer_state.json")),
        "metrics": without_paths(_read(folder / "train_results.json")),
        "hardware": without_paths(_read(folder / HARDWARE_FILE)),
        "results": published,
        "provenance": provenance_of(published),
        "conversion": without_paths(_read(folder / REPORT_FILE)),
        "synthetic": _trained_on_generated(model.config, settings),
        "synthetic_results": bool(evaluation) and _measured_on_generated(evaluation.get("metadata") or {}),
        "base_model": _base_model(folder, settings),
        "base_model_relation": "quantized" if getattr(model.config, "quantization_config", None) else "finetune",
        "license": None,
        "provider": None,
        "datasets": (),
        "onnx": (),
        "onnx_tiles": None,
    }


def _base_model(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The Hub's name of the model that this one was trained or quantised from: of its run, or of the card that lies in its folder."""
    card = folder / "README.md"
    try:
        held = ModelCard.load(card).data.base_model if card.is_file() else None
    except (ValueError, yaml.YAMLError):  # somebody else's file; `csmae card --check` says what is wrong with it
        held = None
    for name in (settings.get("model_name_or_path"), held):
        if isinstance(name, str) and HUB_NAME.fullmatch(name) and not Path(name).exists():
            return name
    return None


def _trained_on_generated(config: PreTrainedConfig, settings: Mapping[str, Any]) -> bool | None:
    """Whether weights were trained on generated scenes; None where neither the model nor the data of its run say it.

    What the configuration says comes first, for it follows the weights; the data may have been moved, renamed, or replaced.
    """
    said = getattr(config, "trained_on_generated", None)
    return said if said is not None or not settings else is_generated(settings.get("data"))


def _measured_on_generated(metadata: Mapping[str, Any]) -> bool:
    """Whether results were measured on generated scenes, as they say; older ones do not, and their data are looked at."""
    data = metadata.get("data")
    return bool(metadata.get("generated", data == SAMPLE_DATA or (data and is_generated(data))))


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
