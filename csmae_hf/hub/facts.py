"""What is known of a model: read from its folder, nothing assumed. What the folder does not say stays unknown."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

import yaml
from transformers import PreTrainedModel

from configuration_csmae import CSMAEConfig
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

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """What the card of a model can say.

    Attributes:
        config: Configuration.
        processor: Processor.
        has_decoders: Whether the weights hold decoders, so that pre-training can go on.
        parameters: Number of weights.
        dtype: Their type.
        settings: Arguments of the run, by name; empty if unknown.
        state: The Trainer's state at the end; empty if unknown.
        metrics: The Trainer's metrics of the training; empty if unknown.
        hardware: What it ran on; empty if unknown.
        results: An evaluation, the content of `results.json`; empty if there was none.
        conversion: The report of a conversion, the content of `conversion.json`; empty if there was none.
        synthetic: Whether it was trained on generated tiles; None if unknown.
        synthetic_results: Whether it was evaluated on generated tiles.
        license: The weights' licence as the publisher says, None if nothing was said.
        datasets: Hub names of the training data as the publisher says.
    """

    config: CSMAEConfig
    processor: CSMAEImageProcessor
    has_decoders: bool
    parameters: int
    dtype: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    conversion: Mapping[str, Any] = field(default_factory=dict)
    synthetic: bool | None = None
    synthetic_results: bool = False
    license: str | None = None
    datasets: Sequence[str] = ()

    @property
    def data(self) -> str | None:
        """Name of the training data: a folder's last part, never a path; None if unknown."""
        if not self.settings:
            return None
        return SAMPLE_DATA if self.synthetic else last_part(str(self.settings.get("data")))

    @property
    def is_bigearthnet(self) -> bool:
        """Whether the data's name, or a data set that the publisher named, is BigEarthNet."""
        names = [self.data or "", *self.datasets]
        return not self.synthetic and any("bigearthnet" in name.lower() or "reben" in name.lower() for name in names)


def read_facts(
    folder: Path, model: PreTrainedModel, processor: CSMAEImageProcessor, *, results: Path | None = None
) -> Facts:
    """Read what a folder says of its model.

    Args:
        folder: Of `run_pretraining.py`, `csmae convert` or `save_pretrained`; every file but the model's is optional.
        model: The model that is published.
        processor: Its processor.
        results: Results of an evaluation.

    Returns:
        The facts.

    Raises:
        ValueError: If a file is broken.
    """
    settings, evaluation = _read_yaml(folder / SETTINGS_FILE), _read_json(results) if results else {}
    return Facts(
        config=cast(CSMAEConfig, model.config),
        processor=processor,
        has_decoders=any(name.startswith("decoders.") for name, _ in model.named_parameters()),
        parameters=model.num_parameters(),
        dtype=str(model.dtype).removeprefix("torch."),
        settings=without_paths(settings),
        state=_read_json(folder / "trainer_state.json"),
        metrics=_read_json(folder / "train_results.json"),
        hardware=without_paths(_read_json(folder / HARDWARE_FILE)),
        results=without_paths(evaluation),
        conversion=_read_json(folder / REPORT_FILE),
        synthetic=_is_generated(settings.get("data")) if settings else None,
        synthetic_results=bool(evaluation) and _is_generated((evaluation.get("metadata") or {}).get("data", "")),
    )


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


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}. Repair it or take it away.") from error
    return _mapping(content, path)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}. Repair it or take it away.") from error
    return _mapping(content or {}, path)


def _mapping(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}: expected a mapping. Repair it or take it away.")
    return content
