"""Start from the weights of any checkpoint: of the same architecture all of them, of another those that fit, with a list of both."""

import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from configuration_csmae import CSMAEConfig
from csmae_hf.files import write_atomically
from modeling_csmae import CSMAEForPreTraining

logger = logging.getLogger(__name__)

REPORT_NAME = "warm_start.json"
"""File beside the run that lists what was and what was not loaded."""

_OWN_BLOCK = re.compile(r"csmae\.multi_sensor_encoders\.(?P<sensor>\w+)\.layers\.(?P<block>\d+)\.(?P<rest>.+)")
_SHARED_BLOCK = re.compile(r"csmae\.cross_sensor_encoder\.layers\.(?P<block>\d+)\.(?P<rest>.+)")
_DECODER = re.compile(r"decoders\.(?P<decoder>\w+)\.(?P<rest>.+)")
_SENSORS_OWN = re.compile(r"csmae\.embeddings\.(?P<embedding>\w+)\.|.*\.heads\.(?P<head>\w+)\.")


@dataclass
class WarmStart:
    """What a warm start did."""

    checkpoint: str  # where the weights came from
    loaded: dict[str, str] = field(default_factory=dict)  # the checkpoint's tensor that each of the model's came from
    not_loaded: dict[str, str] = field(default_factory=dict)  # why a tensor kept its initial values
    unused: list[str] = field(default_factory=list)  # the checkpoint's tensors that the model has no place for

    def summary(self) -> str:
        """Say it in a few lines: the counts, and which modules were not loaded."""
        total = len(self.loaded) + len(self.not_loaded)
        lines = [f"Warm start from {self.checkpoint}: {len(self.loaded)} of {total} tensors loaded."]
        groups = Counter((_module_of(name), reason) for name, reason in self.not_loaded.items())
        lines += [f"  not loaded: {module} ({count} tensors): {reason}" for (module, reason), count in groups.items()]
        unused = Counter(_module_of(name) for name in self.unused)
        lines += [f"  not used: {module} ({count} tensors)" for module, count in unused.items()]
        return "\n".join(lines)

    def write(self, folder: Path) -> Path:
        """Write the whole list as `warm_start.json`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / REPORT_NAME, json.dumps(asdict(self), indent=2) + "\n")
        return folder / REPORT_NAME


def warm_start(checkpoint: str, config: CSMAEConfig, **options: Any) -> tuple[CSMAEForPreTraining, WarmStart]:
    """Build a model and load what fits of a checkpoint's weights.

    A tensor is loaded from the tensor of the same name if their shapes are equal, a layer's weight and bias together or neither. Three
    things go by meaning instead:

    * Encoder blocks are matched by their place in the chain of blocks that a sensor's tokens pass. So a common encoder's shared blocks
      go into every sensor's own blocks at the same places; never the other way round, where several would have to become one.
    * A common decoder goes into every specific one.
    * Bands are matched by name. A sensor whose bands the checkpoint does not all have starts with a new embedding and new heads.

    Args:
        checkpoint: Folder or Hub id, of any CSMAE class.
        config: Architecture to build.
        **options: As of `from_pretrained`, such as `revision`.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If the checkpoint lacks some of its own encoder's tensors, or nothing of it fits.
    """
    try:
        source, info = CSMAEForPreTraining.from_pretrained(checkpoint, output_loading_info=True, **options)
    except OSError as error:
        raise FileNotFoundError(
            f"No checkpoint at {checkpoint}: name a folder or Hub id with weights. ({error})"
        ) from error
    absent = set(info["missing_keys"])
    broken = sorted(name for name in absent if not name.startswith("decoders."))
    if broken:
        raise ValueError(
            f"{checkpoint} lacks {len(broken)} tensors of its own architecture ({broken[0]} for one): it is damaged, or no CSMAE "
            "checkpoint."
        )
    bands = source.config.sensors
    fitting = {sensor for sensor, names in config.sensors.items() if set(names) <= set(bands.get(sensor, ()))}
    kept = {name: own if name in fitting else bands[name] for name, own in config.sensors.items() if name in bands}
    if kept and kept != bands:
        source.keep_bands(kept)
    model = CSMAEForPreTraining(config)
    weights = source.state_dict()
    report = _plan(checkpoint, model, weights, absent, cast(CSMAEConfig, source.config), set(config.sensors) - fitting)
    if not report.loaded:
        raise ValueError(
            f"Nothing of {checkpoint} fits this model (width {source.config.hidden_size}, here {config.hidden_size}; patches of "
            f"{source.config.patch_size}, here {config.patch_size} pixels): train without model_name_or_path, or with its size."
        )
    model.load_state_dict({name: weights[origin] for name, origin in report.loaded.items()}, strict=False)
    return model, report


def source_name(name: str, source: CSMAEConfig, target: CSMAEConfig) -> str | None:
    """Name the tensor of a `source` checkpoint that means the same as one of a `target` model.

    The checkpoint may still not have it; None where nothing of the kind can exist.
    """
    if match := _OWN_BLOCK.fullmatch(name):
        place = int(match["block"])
        if place < source.multi_sensor_encoder_depth:
            return name
        return f"csmae.cross_sensor_encoder.layers.{place - source.multi_sensor_encoder_depth}.{match['rest']}"
    if match := _SHARED_BLOCK.fullmatch(name):
        place = target.multi_sensor_encoder_depth + int(match["block"]) - source.multi_sensor_encoder_depth
        return f"csmae.cross_sensor_encoder.layers.{place}.{match['rest']}" if place >= 0 else None
    if match := _DECODER.fullmatch(name):
        if source.decoder_type == "common":
            return f"decoders.common.{match['rest']}"
        return name if target.decoder_type == "specific" else None
    return name


def _plan(
    checkpoint: str,
    model: CSMAEForPreTraining,
    weights: Mapping[str, torch.Tensor],
    absent: Collection[str],
    source: CSMAEConfig,
    unfitting_bands: Collection[str],
) -> WarmStart:
    """Decide for every tensor of the model where it comes from, or why it does not."""
    report = WarmStart(checkpoint)
    for name, tensor in model.state_dict().items():
        origin = source_name(name, source, cast(CSMAEConfig, model.config))
        match = _SENSORS_OWN.match(name)
        sensor = match and (match["embedding"] or match["head"])
        if origin is None:
            report.not_loaded[name] = "the checkpoint has one a sensor where this model has one for all"
        elif sensor in unfitting_bands and not name.endswith("cls_token"):
            report.not_loaded[name] = f"the checkpoint does not have all bands of {sensor}"
        elif origin not in weights or origin in absent:
            report.not_loaded[name] = "the checkpoint has none"
        elif weights[origin].shape != tensor.shape:
            shapes = [" x ".join(map(str, each.shape)) or "scalar" for each in (tensor, weights[origin])]
            report.not_loaded[name] = f"shape {shapes[0]}, in the checkpoint {shapes[1]}"
        else:
            report.loaded[name] = origin
    for name in list(report.loaded):
        leaf = name.rpartition(".")[0]
        if any(f"{leaf}.{kind}" in report.not_loaded for kind in ("weight", "bias")):
            report.not_loaded[name] = "its weight or bias does not fit, and neither means anything alone"
            del report.loaded[name]
    report.unused = sorted(set(weights) - set(absent) - set(report.loaded.values()))
    return report


def _module_of(name: str) -> str:
    """The module that a tensor is listed under: a block, a head, an embedding."""
    block = re.match(r"(.+?\.(?:layers|heads)\.\w+)\.", name)
    return block[1] if block else name.rpartition(".")[0] or name
