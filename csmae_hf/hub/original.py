"""Checkpoints of the original CSMAE code: reading and writing them, their names, and the configuration they amount to.

The original (MIT-licensed release of arXiv 2401.07782) saves a PyTorch-Lightning dict whose `state_dict` has the names
`backbone.*` and `decoder.*` or `decoder_s1_to_s2.*` / `decoder_s2_to_s1.*`, and beside it its run configuration, `args.yaml`.
"""

import math
import os
import pickle
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from configuration_csmae import DEFAULT_SENSORS, SIZES, CSMAEConfig
from csmae_hf.files import read_yaml
from modeling_csmae import sincos_positions

STANDARD_HEADS: dict[int, int] = {size["hidden_size"]: size["num_attention_heads"] for size in SIZES.values()}
"""Attention heads of the ViT sizes, by width."""

STANDARD_DECODER_HEADS: dict[int, int] = {512: 16}
"""Attention heads of the released decoders, by width."""

_DECODERS: dict[str, str] = {"common": "decoder", "s1": "decoder_s2_to_s1", "s2": "decoder_s1_to_s2"}
_NAMES: tuple[tuple[str, str], ...] = (
    (r"embeddings\.s1\.cls_token", r"backbone.cls_token"),
    (r"embeddings\.s2\.cls_token", r"backbone.cls_token_s2"),
    (r"embeddings\.s1\.projection\.(\w+)", r"backbone.patch_embed.proj.\1"),
    (r"embeddings\.s2\.projection\.(\w+)", r"backbone.patch_embed_s2.proj.\1"),
    (r"multi_sensor_encoders\.(s1|s2)\.layers\.(.+)", r"backbone.blocks_\1.\2"),
    (r"multi_sensor_encoders\.(s1|s2)\.layernorm\.(\w+)", r"backbone.norm_\1.\2"),
    (r"cross_sensor_encoder\.layers\.(.+)", r"backbone.blocks.\1"),
    (r"cross_sensor_encoder\.layernorm\.(\w+)", r"backbone.norm.\1"),
    (r"fc_norm\.(\w+)", r"backbone.fc_norm.\1"),
    (r"(decoder\w*)\.mask_token", r"\1.mask_token"),
    (r"(decoder\w*)\.embed\.(\w+)", r"\1.decoder_embed.\2"),
    (r"(decoder\w*)\.layers\.(.+)", r"\1.decoder_blocks.\2"),
    (r"(decoder\w*)\.layernorm\.(\w+)", r"\1.decoder_norm.\2"),
    (r"decoder\.heads\.s1\.(\w+)", r"decoder.decoder_pred_s2_to_s1.\1"),
    (r"decoder\.heads\.s2\.(\w+)", r"decoder.decoder_pred_s1_to_s2.\1"),
    (r"(decoder_\w+)\.heads\.(?:s1|s2)\.(\w+)", r"\1.decoder_pred.\2"),
)
"""Our names, a decoder's already under the original's name for it, and the original's."""

_POOLING: dict[Hashable, Any] = {"avg": "mean", "token": "token"}
_WEIGHT: dict[Hashable, Any] = {True: 1.0, False: 0.0}
_SHAPED_SETTINGS: dict[str, tuple[str, Mapping[Hashable, Any]]] = {
    "backbone.name": ("hidden_size", {f"vit_{name}": size["hidden_size"] for name, size in SIZES.items()}),
    "backbone.kwargs.embed_dim": ("hidden_size", {}),
    "backbone.kwargs.patch_size": ("patch_size", {}),
    "backbone.kwargs.img_size": ("image_size", {}),
    "backbone.kwargs.multi_sensor_encoder_depth": ("multi_sensor_encoder_depth", {}),
    "backbone.kwargs.cross_sensor_encoder_depth": ("cross_sensor_encoder_depth", {}),
    "backbone.kwargs.global_pool": ("pooling", _POOLING),
    "method_kwargs.decoder_embed_dim": ("decoder_hidden_size", {}),
    "method_kwargs.decoder_depth": ("decoder_num_hidden_layers", {}),
    "method_kwargs.decoding_strategy": ("decoder_type", {}),
}
"""Settings that the weights' shapes tell too: the config's field, and what the YAML's values are called there."""

_FREE_SETTINGS: dict[str, tuple[str, Mapping[Hashable, Any]]] = {
    "backbone.kwargs.masking_strategy": ("masking", {}),
    "method_kwargs.mask_ratio": ("mask_ratio", {}),
    "method_kwargs.norm_pix_loss": ("norm_pixel_loss", {}),
    "method_kwargs.apply_umr_loss": ("umr_weight", _WEIGHT),
    "method_kwargs.apply_cmr_loss": ("cmr_weight", _WEIGHT),
    "method_kwargs.apply_mim_loss": ("mim_weight", _WEIGHT),
    "method_kwargs.apply_mde_loss": ("mde_weight", _WEIGHT),
    "method_kwargs.mim_temp": ("mim_temperature", {}),
    "method_kwargs.reconstruction_strategy": ("cmr_target", {"disjoint": "source", "identical": "target"}),
}
"""Settings that only the YAML tells."""


GENERATED = "trained_on_generated"
"""Field of a configuration, and entry of a checkpoint beside its tensors: whether the weights were trained on generated scenes."""


class ConversionError(ValueError):
    """A checkpoint cannot be converted, or a model cannot be exported; the message lists everything at fault."""


# Files


@dataclass(frozen=True)
class OriginalCheckpoint:
    """The tensors of a checkpoint by the original's names, `backbone.` included, and the name in the file of each."""

    path: Path
    tensors: Mapping[str, torch.Tensor]
    file_names: Mapping[str, str]
    trained_on_generated: bool | None = None  # as a checkpoint that this package exported says

    @property
    def decoder_type(self) -> str | None:
        """`"common"`, `"specific"`, or None where the checkpoint holds the encoders alone."""
        common = sum(name.startswith("decoder.") for name in self.tensors)
        specific = sum(name.startswith("decoder_s") for name in self.tensors)
        if not common and not specific:
            return None
        return "common" if common >= specific else "specific"

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of most tensors."""
        counts = Counter(tensor.dtype for tensor in self.tensors.values() if tensor.is_floating_point())
        return counts.most_common(1)[0][0] if counts else torch.float32


def read_original(path: str | os.PathLike[str]) -> OriginalCheckpoint:
    """Read a checkpoint of the original code without running anything it holds.

    Args:
        path: A PyTorch-Lightning checkpoint (a dict with `state_dict`) or a bare state dict, of the whole model or of the
            backbone alone, whose names may lack the prefix `backbone.`.

    Returns:
        Its tensors, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ConversionError: If it holds anything but tensors and plain values, or no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}: expected a file that torch.save wrote.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConversionError(
            f"{path} was refused: it holds objects other than tensors and plain values, which might run code when loaded, or it "
            "is no PyTorch checkpoint. Nothing in it was run. If you trust it, save its state_dict alone, with "
            f"torch.save({{'state_dict': ...}}), in the environment that wrote it. torch says: {said}"
        ) from error
    state = _state_dict_of(content, path)
    canonical = {name: name if name.startswith(("backbone.", "decoder")) else f"backbone.{name}" for name in state}
    if len(set(canonical.values())) < len(canonical):
        twice = sorted(name for name, count in Counter(canonical.values()).items() if count > 1)
        raise ConversionError(f"{path} has tensors both with and without the prefix 'backbone.': {', '.join(twice)}.")
    if not any(re.match(r"backbone\.(patch_embed|cls_token|pos_embed|blocks)", name) for name in canonical.values()):
        raise ConversionError(
            f"{path} is no checkpoint of CSMAE: none of its {len(state)} tensors has a name of CSMAE's encoders. They begin with "
            f"{', '.join(list(state)[:3])}."
        )
    return OriginalCheckpoint(
        path=path,
        tensors={canonical[name]: tensor.detach() for name, tensor in state.items()},
        file_names={original: name for name, original in canonical.items()},
        trained_on_generated=said if isinstance(said := content.get(GENERATED), bool) else None,
    )


def _state_dict_of(content: Any, path: Path) -> dict[str, torch.Tensor]:
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state:
        raise ConversionError(
            f"{path} holds {type(state).__name__}: expected a dict of tensors, or a dict with one as 'state_dict'."
        )
    others = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ConversionError(f"{path} is no state dict: {', '.join(others)} are not tensors.")
    return {str(name): tensor for name, tensor in state.items()}


# Names


def original_name(name: str) -> str:
    """Return the original's name of a parameter of [`CSMAEForPreTraining`] or [`CSMAEModel`].

    Args:
        name: The name in our `state_dict`, such as `csmae.cross_sensor_encoder.layers.0.norm1.weight`.

    Returns:
        The original's, such as `backbone.blocks.0.norm1.weight`.

    Raises:
        ConversionError: If the original has no such parameter.
    """
    decoder = re.match(r"decoders\.(common|s1|s2)(?=\.)", name)
    known = f"{_DECODERS[decoder[1]]}{name[decoder.end() :]}" if decoder else name.removeprefix("csmae.")
    for pattern, replacement in _NAMES:
        if match := re.fullmatch(pattern, known):
            return match.expand(replacement).replace(".attention.", ".attn.")
    raise ConversionError(f"The original has no parameter for {name}: it knows the sensors s1 and s2 only.")


def position_tables(config: CSMAEConfig, with_decoders: bool) -> dict[str, torch.Tensor]:
    """Compute the frozen positions that the original saves and we do not: (1, 1 + L, width) float32 by the original's names."""
    grid = (config.image_size // config.patch_size,) * 2
    tables = {"backbone.pos_embed": sincos_positions(grid, config.hidden_size)}
    if with_decoders:
        keys = ["common"] if config.decoder_type == "common" else ["s2", "s1"]
        table = sincos_positions(grid, config.decoder_hidden_size)
        tables.update({f"{_DECODERS[key]}.decoder_pos_embed": table.clone() for key in keys})
    return tables


# The run configuration


@dataclass(frozen=True)
class RunConfiguration:
    """The original's own configuration of a run, and the YAML file that it was read from."""

    path: Path
    settings: Mapping[str, Any]

    def get(self, setting: str) -> Any:
        """Return the value of a setting such as `backbone.kwargs.patch_size`, None where there is none."""
        value: Any = self.settings
        for key in setting.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_run_configuration(path: str | os.PathLike[str]) -> RunConfiguration:
    """Read the `args.yaml` that the original writes beside a checkpoint, or its `backbone` section alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ConversionError: If it is no YAML of plain values, or not of the original.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No run configuration at {path}: expected the args.yaml of the checkpoint.")
    try:
        settings = read_yaml(path)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    if isinstance(settings, Mapping) and "kwargs" in settings:
        settings = {"backbone": settings}
    if not isinstance(settings, Mapping) or not {"backbone", "method_kwargs"} & set(settings):
        raise ConversionError(
            f"{path} is no run configuration of the original: it has neither 'backbone' nor 'method_kwargs'. Pass the "
            "args.yaml that lies beside the checkpoint, or none."
        )
    return RunConfiguration(path, settings)


# The configuration that weights and YAML amount to


@dataclass
class Inference:
    """The configuration of a checkpoint, and what is doubtful about it.

    Attributes:
        fields: Of [`CSMAEConfig`].
        problems: What cannot be known from the files and must be given.
        warnings: Where the YAML was not followed, and what was assumed.
        heads: The attention heads of encoder and decoder, which no shape tells, with where they are from.
    """

    fields: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    heads: dict[str, dict[str, int | str]] = field(default_factory=dict)


def infer_config(
    checkpoint: OriginalCheckpoint,
    run: RunConfiguration | None,
    heads: Mapping[str, int | None],
    sensors: Mapping[str, Sequence[str]],
) -> tuple[CSMAEConfig, Inference]:
    """Find the configuration of a checkpoint: sizes from its tensors, masking and losses from the YAML, else the release's.

    Heads and sensors are what was given, where something was. The configuration is not to be used where there are problems.

    Raises:
        ConversionError: If no valid configuration results.
    """
    found = Inference(_fields_of(checkpoint.tensors, checkpoint.decoder_type))
    shaped = dict(found.fields)
    found.fields["sensors"] = _name_bands(checkpoint, sensors, found.problems)
    if run:
        _follow_run(run, shaped, found, with_decoders=checkpoint.decoder_type is not None)
    for name, given in heads.items():
        _choose_heads(name, given, run, found)
    try:
        return CSMAEConfig(**found.fields), found
    except (ValueError, StrictDataclassError) as error:
        files = f"{checkpoint.path} and {run.path}" if run else f"{checkpoint.path}"
        raise ConversionError(f"{files} amount to no valid configuration: {error}") from error


def _fields_of(tensors: Mapping[str, torch.Tensor], decoder_type: str | None) -> dict[str, Any]:
    """What the shapes tell of the configuration. Where they contradict each other the majority decides, so that a damaged tensor is
    found and not believed."""
    fields: dict[str, Any] = {
        "patch_size": _vote(tensors, r"backbone\.patch_embed(_s2)?\.proj\.weight", -1),
        "hidden_size": _vote(tensors, r"backbone\.(.*norm[^.]*\.weight|cls_token.*|pos_embed)", -1),
        "intermediate_size": _vote(tensors, r"backbone\..*\.mlp\.fc1\.weight", 0),
        "multi_sensor_encoder_depth": max(
            _count_blocks(tensors, rf"backbone\.blocks_{sensor}") for sensor in DEFAULT_SENSORS
        ),
        "cross_sensor_encoder_depth": _count_blocks(tensors, r"backbone\.blocks"),
        "pooling": "mean" if any(name.startswith("backbone.fc_norm.") for name in tensors) else "token",
    }
    tokens = _vote(tensors, r".*pos_embed", 1)
    if tokens:
        fields["image_size"] = max(math.isqrt(tokens - 1), 1) * (fields["patch_size"] or CSMAEConfig.patch_size)
    if decoder_type:
        fields |= {
            "decoder_type": decoder_type,
            "decoder_hidden_size": _vote(tensors, r"decoder.*(norm\d?\.weight|mask_token|pos_embed)", -1),
            "decoder_intermediate_size": _vote(tensors, r"decoder.*\.mlp\.fc1\.weight", 0),
            "decoder_num_hidden_layers": _count_blocks(tensors, r"decoder[^.]*\.decoder_blocks"),
        }
    return {field: value for field, value in fields.items() if value is not None}


def _vote(tensors: Mapping[str, torch.Tensor], pattern: str, axis: int) -> int | None:
    """The most common size along `axis` of the tensors whose name matches."""
    shapes = (tuple(tensor.shape) for name, tensor in tensors.items() if re.fullmatch(pattern, name))
    sizes = Counter(shape[axis] for shape in shapes if -len(shape) <= axis < len(shape))
    return sizes.most_common(1)[0][0] if sizes else None


def _count_blocks(tensors: Mapping[str, torch.Tensor], prefix: str) -> int:
    matches = (re.match(rf"{prefix}\.(\d+)\.", name) for name in tensors)
    return len({int(match[1]) for match in matches if match})


def _name_bands(
    checkpoint: OriginalCheckpoint, given: Mapping[str, Sequence[str]], problems: list[str]
) -> dict[str, list[str]]:
    """Name the channels of each sensor, and add to the problems what cannot be named."""
    unknown = sorted(set(given) - set(DEFAULT_SENSORS))
    problems += [f"sensors has {sensor!r}: the original knows s1 and s2 only" for sensor in unknown]
    named: dict[str, list[str]] = {}
    for sensor, module in (("s1", "patch_embed"), ("s2", "patch_embed_s2")):
        bands = list(given.get(sensor, DEFAULT_SENSORS[sensor]))
        count = _vote(checkpoint.tensors, rf"backbone\.{module}\.proj\.weight", 1) or len(bands)
        if count != len(bands):
            problems.append(
                f"{sensor} has {count} bands in the weights, but {len(bands)} names ({', '.join(bands)}): name them in their "
                f"order with sensors={{{sensor!r}: [...]}} (--bands {sensor}=...)"
            )
            bands = [f"band_{i}" for i in range(count)]
        named[sensor] = bands
    return named


def _follow_run(run: RunConfiguration, shaped: Mapping[str, Any], found: Inference, with_decoders: bool) -> None:
    """Take from the YAML what the weights do not tell, and say where it contradicts them."""

    def warn(setting: str, value: Any, truth: str) -> None:
        found.warnings.append(
            f"{run.path.name} says {setting} = {value}, the weights say {truth}: followed the weights"
        )

    for setting, (name, translation) in _SHAPED_SETTINGS.items():
        value = _translate(run.get(setting), translation)
        if value is not None and name in shaped and value != shaped[name]:
            warn(setting, run.get(setting), f"{name} = {shaped[name]}")
        elif value is not None and not with_decoders:  # the YAML alone tells of the decoders that are not there
            found.fields.setdefault(name, value)
    total, channels = sum(map(len, found.fields["sensors"].values())), run.get("backbone.kwargs.in_chans")
    if channels not in (None, total):
        warn("backbone.kwargs.in_chans", channels, f"{total} bands in all")
    for setting, (name, translation) in _FREE_SETTINGS.items():
        value = _translate(run.get(setting), translation)
        if value is not None:
            found.fields[name] = value
    if found.fields.get("cmr_target") != "target":
        return
    if found.fields.get("masking") == "identical":
        found.fields["cmr_target"] = "source"
        found.warnings.append(
            f"{run.path.name} says identical masking and method_kwargs.reconstruction_strategy = identical: the original "
            "then counted cross-modal reconstruction on the visible patches, which is not offered here; cmr_target = "
            "'source' counts the hidden ones"
        )
    else:
        found.warnings.append(
            f"{run.path.name} says method_kwargs.reconstruction_strategy = identical: the original then put one sensor's tokens "
            "at the other's positions; cmr_target = 'target' counts the same patches with every token at its own, so that "
            "cross-modal losses differ from the original's"
        )


def _choose_heads(name: str, given: int | None, run: RunConfiguration | None, found: Inference) -> None:
    """Choose the number of attention heads, on which no shape depends: a wrong one gives wrong embeds and no error."""
    is_decoder = name.startswith("decoder_")
    width_field = "decoder_hidden_size" if is_decoder else "hidden_size"
    width = found.fields.get(width_field, getattr(CSMAEConfig, width_field))
    setting = "method_kwargs.decoder_num_heads" if is_decoder else "backbone.kwargs.num_heads"
    file, stated = (run.path.name, run.get(setting)) if run else ("", None)
    said = f"{setting} = {stated}"
    if run and stated is None and not is_decoder:  # the original's backbones have their heads by name
        size = SIZES.get(str(run.get("backbone.name")).removeprefix("vit_"), {})
        if size.get("hidden_size") == width:
            setting, stated = "backbone.name", size["num_attention_heads"]
            said = f"{setting} = {run.get(setting)}, which has {stated} heads"
    standard, option = STANDARD_DECODER_HEADS if is_decoder else STANDARD_HEADS, f"--{name.replace('_', '-')}"
    if given is not None:
        count, source = given, "argument"
        if stated not in (None, given):
            found.warnings.append(f"{file} says {said}: followed the argument, {given}")
    elif stated is not None:
        count, source = stated, f"{file}: {setting}"
    elif width in standard:
        count, source = standard[width], f"assumed: the standard of width {width}"
        found.warnings.append(
            f"{name} = {count} is assumed, the standard of width {width}: the weights do not tell it; if the run had another number, "
            f"convert again with its YAML or with {option}"
        )
    else:
        count, source = 1, ""
        widths = ", ".join(f"{size} has {heads}" for size, heads in standard.items())
        found.problems.append(f"{name} cannot be told from {width_field} = {width} (only {widths}): pass {option}")
    found.heads[name] = {"value": count, "from": source}
    found.fields[name] = count


def _translate(value: Any, translation: Mapping[Hashable, Any]) -> Any:
    return translation.get(value, value) if isinstance(value, Hashable) else value
