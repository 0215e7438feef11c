"""Checkpoints of the original CSMAE code: reading and writing them, their names, and the configuration they amount to.

The original (MIT-licensed release of arXiv 2401.07782) saves a PyTorch-Lightning dict whose `state_dict` has the names
`backbone.*` and `decoder.*` or `decoder_s1_to_s2.*` / `decoder_s2_to_s1.*`, and beside it its run configuration, `args.yaml`.
"""

import math
import os
import pickle
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub.errors import StrictDataclassError

from configuration_csmae import DEFAULT_SENSORS, SIZES, CSMAEConfig
from csmae_hf.files import refuse_existing, write_atomically
from modeling_csmae import sincos_positions

STANDARD_HEADS: dict[int, int] = {size["hidden_size"]: size["num_attention_heads"] for size in SIZES.values()}
"""Attention heads of the ViT sizes, by width."""

STANDARD_DECODER_HEADS: dict[int, int] = {512: 16}
"""Attention heads of the released decoders, by width."""

_ENCODER_NAMES: tuple[tuple[str, str], ...] = (
    (r"embeddings\.s1\.cls_token", r"cls_token"),
    (r"embeddings\.s2\.cls_token", r"cls_token_s2"),
    (r"embeddings\.s1\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"embeddings\.s2\.projection\.(\w+)", r"patch_embed_s2.proj.\1"),
    (r"multi_sensor_encoders\.(s1|s2)\.layers\.(.+)", r"blocks_\1.\2"),
    (r"multi_sensor_encoders\.(s1|s2)\.layernorm\.(\w+)", r"norm_\1.\2"),
    (r"cross_sensor_encoder\.layers\.(.+)", r"blocks.\1"),
    (r"cross_sensor_encoder\.layernorm\.(\w+)", r"norm.\1"),
    (r"fc_norm\.(\w+)", r"fc_norm.\1"),
)
_DECODER_NAMES: tuple[tuple[str, str], ...] = (
    (r"mask_token", r"mask_token"),
    (r"embed\.(\w+)", r"decoder_embed.\1"),
    (r"layers\.(.+)", r"decoder_blocks.\1"),
    (r"layernorm\.(\w+)", r"decoder_norm.\1"),
)
_DECODERS: dict[str, str] = {"common": "decoder", "s1": "decoder_s2_to_s1", "s2": "decoder_s1_to_s2"}
_HEADS: dict[str, str] = {"s1": "decoder_pred_s2_to_s1", "s2": "decoder_pred_s1_to_s2"}

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


class ConversionError(ValueError):
    """A checkpoint cannot be converted, or a model cannot be exported; the message lists everything at fault."""


# Files


@dataclass(frozen=True)
class OriginalCheckpoint:
    """The tensors of a checkpoint of the original code.

    Args:
        path: The file.
        tensors: By the original's names, `backbone.` included where the file itself leaves it out.
        file_names: The name in the file of each of `tensors`.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    file_names: Mapping[str, str]

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
        raise ConversionError(
            f"{path} was refused: it holds objects other than tensors and plain values, which might run code when loaded, or it "
            "is no PyTorch checkpoint. Nothing in it was run. If you trust it, save its state_dict alone, with "
            f"torch.save({{'state_dict': ...}}), in the environment that wrote it. torch says: {_first_line(error)}"
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
    )


def write_original(tensors: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint that the original code loads; it appears when complete.

    Args:
        tensors: By the original's names.
        path: The file to write.

    Raises:
        FileExistsError: If something is there already.
    """
    path = Path(path)
    refuse_existing(path)
    state = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    write_atomically(path, lambda stream: torch.save({"state_dict": state}, stream))


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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
    decoder = re.fullmatch(r"decoders\.(common|s1|s2)\.(.+)", name)
    renamed = _rename_in_decoder(decoder[1], decoder[2]) if decoder else _rename_in_encoder(name.removeprefix("csmae."))
    if renamed is None:
        raise ConversionError(f"The original has no parameter for {name}: it knows the sensors s1 and s2 only.")
    return renamed.replace(".attention.", ".attn.")


def original_names(names: Iterable[str]) -> dict[str, str]:
    """Return our name by the original's, for parameters given by our names."""
    return {original_name(name): name for name in names}


def position_tables(config: CSMAEConfig, with_decoders: bool) -> dict[str, torch.Tensor]:
    """Compute the frozen positions that the original saves and we compute.

    Args:
        config: The configuration of the model.
        with_decoders: Give the decoders' too.

    Returns:
        (1, 1 + L, width) float32 by the original's names.
    """
    grid = (config.image_size // config.patch_size,) * 2
    tables = {"backbone.pos_embed": sincos_positions(grid, config.hidden_size)}
    if with_decoders:
        keys = ["common"] if config.decoder_type == "common" else ["s2", "s1"]
        table = sincos_positions(grid, config.decoder_hidden_size)
        tables.update({f"{_DECODERS[key]}.decoder_pos_embed": table.clone() for key in keys})
    return tables


def _rename_in_encoder(name: str) -> str | None:
    renamed = _rename(name, _ENCODER_NAMES)
    return renamed and f"backbone.{renamed}"


def _rename_in_decoder(decoder: str, name: str) -> str | None:
    head = re.fullmatch(r"heads\.(s1|s2)\.(\w+)", name)
    if head:
        return f"{_DECODERS[decoder]}.{_HEADS[head[1]] if decoder == 'common' else 'decoder_pred'}.{head[2]}"
    renamed = _rename(name, _DECODER_NAMES)
    return renamed and f"{_DECODERS[decoder]}.{renamed}"


def _rename(name: str, rules: Sequence[tuple[str, str]]) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None


# The run configuration


@dataclass(frozen=True)
class RunConfiguration:
    """The original's own configuration of a run.

    Args:
        path: The YAML file.
        settings: Its content.
    """

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

    Args:
        path: The file.

    Returns:
        Its settings.

    Raises:
        FileNotFoundError: If there is no such file.
        ConversionError: If it is no YAML of plain values, or not of the original.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No run configuration at {path}: expected the args.yaml of the checkpoint.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path} is no YAML file of plain values: {error}") from error
    if isinstance(settings, Mapping) and "kwargs" in settings:
        settings = {"backbone": settings}
    if not isinstance(settings, Mapping) or not {"backbone", "method_kwargs"} & set(settings):
        raise ConversionError(
            f"{path} is no run configuration of the original: it has neither 'backbone' nor 'method_kwargs'. Pass the "
            "args.yaml that lies beside the checkpoint, or none."
        )
    return RunConfiguration(path, settings)


# The configuration that weights and YAML amount to


@dataclass(frozen=True)
class Inference:
    """The configuration of a checkpoint.

    Args:
        config: The configuration; not to be used where there are problems.
        problems: What cannot be known from the files and must be given.
        warnings: Where the YAML was not followed, and why.
        heads: The attention heads of encoder and decoder, which no shape tells, with where they are from.
    """

    config: CSMAEConfig
    problems: list[str]
    warnings: list[str]
    heads: dict[str, dict[str, int | str]]


def infer_config(
    checkpoint: OriginalCheckpoint,
    run: RunConfiguration | None = None,
    *,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    sensors: Mapping[str, Sequence[str]] | None = None,
) -> Inference:
    """Find the configuration of a checkpoint: sizes from its tensors, masking and losses from the YAML.

    Args:
        checkpoint: The checkpoint.
        run: Its run configuration; without one, masking and losses are the release's.
        num_attention_heads: Heads of the encoder; default the YAML's, then those of the standard ViT of that width.
        decoder_num_attention_heads: Heads of the decoder; default the YAML's, then 16 where its width is 512.
        sensors: Bands by sensor, in the order of the input channels; needed where they are not 2 of S1 and 10 of S2.

    Returns:
        The configuration, and what is doubtful about it.

    Raises:
        ConversionError: If no valid configuration results.
    """
    fields = fields_from_tensors(checkpoint)
    problems, warnings = [], _disagreements(fields, run) if run else []
    fields["sensors"], unnamed = _name_bands(checkpoint, sensors)
    problems += unnamed
    if run:
        warnings += _channel_disagreement(fields["sensors"], run)
        free, doubts = _free_settings(run)
        warnings += doubts
        fields = {**_shaped_settings(run), **fields, **free} if checkpoint.decoder_type is None else {**fields, **free}
    heads: dict[str, dict[str, int | str]] = {}
    for field, given in (
        ("num_attention_heads", num_attention_heads),
        ("decoder_num_attention_heads", decoder_num_attention_heads),
    ):
        count, source, doubts = _choose_heads(field, fields, given, run)
        warnings += doubts
        if count is None:
            problems.append(source)
        else:
            heads[field] = {"value": count, "from": source}
        fields[field] = 1 if count is None else count
    try:
        config = CSMAEConfig(**fields)
    except (ValueError, StrictDataclassError) as error:
        files = f"{checkpoint.path} and {run.path}" if run else f"{checkpoint.path}"
        raise ConversionError(f"{files} amount to no valid configuration: {error}") from error
    return Inference(config, problems, warnings, heads)


def fields_from_tensors(checkpoint: OriginalCheckpoint) -> dict[str, Any]:
    """Read off the tensors' shapes what they tell of the configuration.

    Where tensors contradict each other the majority decides, so that a damaged one is found and not believed.

    Args:
        checkpoint: The checkpoint.

    Returns:
        Fields of [`CSMAEConfig`]; those of the decoder only if there is one.
    """
    tensors = checkpoint.tensors
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
    if checkpoint.decoder_type:
        fields |= {
            "decoder_type": checkpoint.decoder_type,
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
    checkpoint: OriginalCheckpoint, sensors: Mapping[str, Sequence[str]] | None
) -> tuple[dict[str, list[str]], list[str]]:
    """Name the channels of each sensor; also what cannot be named."""
    given = sensors or {}
    unknown = sorted(set(given) - set(DEFAULT_SENSORS))
    problems = [f"sensors has {sensor!r}: the original knows s1 and s2 only" for sensor in unknown]
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
    return named, problems


def _disagreements(fields: Mapping[str, Any], run: RunConfiguration) -> list[str]:
    """Where the YAML contradicts the weights."""
    found = []
    for setting, (field, translation) in _SHAPED_SETTINGS.items():
        value = run.get(setting)
        if value is not None and field in fields and _translate(value, translation) != fields[field]:
            found.append(_followed_weights(run, setting, value, f"{field} = {fields[field]}"))
    return found


def _channel_disagreement(sensors: Mapping[str, Sequence[str]], run: RunConfiguration) -> list[str]:
    setting, total = "backbone.kwargs.in_chans", sum(len(bands) for bands in sensors.values())
    value = run.get(setting)
    return [] if value in (None, total) else [_followed_weights(run, setting, value, f"{total} bands in all")]


def _followed_weights(run: RunConfiguration, setting: str, value: Any, truth: str) -> str:
    return f"{run.path.name} says {setting} = {value}, the weights say {truth}: followed the weights"


def _shaped_settings(run: RunConfiguration) -> dict[str, Any]:
    """The YAML's word on what the shapes tell, for where there are no tensors to ask."""
    values = {
        field: _translate(run.get(setting), translation) for setting, (field, translation) in _SHAPED_SETTINGS.items()
    }
    return {field: value for field, value in values.items() if value is not None}


def _free_settings(run: RunConfiguration) -> tuple[dict[str, Any], list[str]]:
    values = {
        field: _translate(run.get(setting), translation) for setting, (field, translation) in _FREE_SETTINGS.items()
    }
    fields = {field: value for field, value in values.items() if value is not None}
    doubts = []
    if fields.get("cmr_target") == "target":
        doubts.append(
            f"{run.path.name} says method_kwargs.reconstruction_strategy = identical: the original then put one sensor's tokens "
            "at the other's positions; cmr_target = 'target' counts the same patches with every token at its own, so that "
            "cross-modal losses differ from the original's"
        )
        if fields.get("masking") == "identical":
            fields["cmr_target"] = "source"
            doubts[-1] = (
                f"{run.path.name} says identical masking and method_kwargs.reconstruction_strategy = identical: the original "
                "then counted cross-modal reconstruction on the visible patches, which is not offered here; cmr_target = "
                "'source' counts the hidden ones"
            )
    return fields, doubts


def _choose_heads(
    field: str, fields: Mapping[str, Any], given: int | None, run: RunConfiguration | None
) -> tuple[int | None, str, list[str]]:
    """The number of heads, where it is from, and warnings; None with what to do where it cannot be known."""
    is_decoder = field.startswith("decoder_")
    width_field = "decoder_hidden_size" if is_decoder else "hidden_size"
    width = fields.get(width_field, getattr(CSMAEConfig, width_field))
    setting = "method_kwargs.decoder_num_heads" if is_decoder else "backbone.kwargs.num_heads"
    file, stated = (run.path.name, run.get(setting)) if run else ("", None)
    if given is not None:
        told = f"{file} says {setting} = {stated}: followed the argument, {given}"
        return given, "argument", [] if stated in (None, given) else [told]
    if stated is not None:
        return stated, f"{file}: {setting}", []
    standard = STANDARD_DECODER_HEADS if is_decoder else STANDARD_HEADS
    if width in standard:
        return standard[width], f"the standard of width {width}", []
    option = f"--{field.replace('_', '-')}"
    widths = ", ".join(f"{size} has {heads}" for size, heads in standard.items())
    return None, f"{field} cannot be told from {width_field} = {width} (only {widths}): pass {option}", []


def _translate(value: Any, translation: Mapping[Hashable, Any]) -> Any:
    return translation.get(value, value) if isinstance(value, Hashable) else value
