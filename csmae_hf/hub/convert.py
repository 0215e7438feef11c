"""Make an ordinary model folder of an original CSMAE checkpoint, and the way back."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from configuration_csmae import DEFAULT_SENSORS, CSMAEConfig
from csmae_hf.files import refuse_existing, staged_folder, write_atomically
from csmae_hf.hub.original import (
    GENERATED,
    ConversionError,
    Inference,
    OriginalCheckpoint,
    RunConfiguration,
    infer_config,
    original_name,
    position_tables,
    read_original,
    read_run_configuration,
)
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

REPORT_FILE = "conversion.json"
_OWN_FILES = (REPORT_FILE, "config.json", "preprocessor_config.json", "model*.safetensors*", "*_csmae.py")
"""What a converted folder says about where it is from."""

POSITION_TOLERANCE = 1e-5
"""How far a checkpoint's frozen positions may lie from the computed ones: the rounding of float32, with room."""

_FIXED_IN_ORIGINAL: dict[str, Any] = {
    "hidden_act": "gelu",
    "qkv_bias": True,
    "layer_norm_eps": 1e-6,
    "decoder_layer_norm_eps": 1e-5,
}

logger = logging.getLogger(__name__)


def convert_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    sensors: Mapping[str, Sequence[str]] | None = None,
    overwrite: bool = False,
) -> Path:
    """Make a `from_pretrained` folder of a checkpoint of the original code.

    The folder holds a [`CSMAEForPreTraining`], or a [`CSMAEModel`] if the checkpoint has no decoder, the processor that
    feeds it what the original's reader fed it, and `conversion.json`: the source's sha256, every tensor's old and new name,
    where the YAML was not followed, what was assumed, and how many tensors of the written folder equal the source's. The number of
    attention heads is in no weight, so that nothing can find out that a wrong one was given. It appears when complete, or not at all.

    Args:
        checkpoint: A checkpoint as [`read_original`] takes it.
        out: The folder to make.
        config: The `args.yaml` of the run: masking, losses and attention heads. What the weights' shapes say too is
            taken from the weights.
        num_attention_heads: Heads of the encoder; default the YAML's, then those of the standard ViT of that width.
        decoder_num_attention_heads: Heads of the decoder; default the YAML's, then 16 where its width is 512.
        sensors: Bands by sensor, in the order of the input channels; needed where they are not 2 of S1 and 10 of S2.
        overwrite: Whether a folder that was converted before is replaced, when the new one is whole.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: If the checkpoint or the YAML is not there.
        FileExistsError: If `out` exists, and may not be replaced.
        ConversionError: With all that is missing, unexpected, misshapen or unknown; nothing is written then.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite, own=_OWN_FILES)
    run = read_run_configuration(config) if config is not None else None
    original = read_original(checkpoint)
    heads = {"num_attention_heads": num_attention_heads, "decoder_num_attention_heads": decoder_num_attention_heads}
    chosen, inference = infer_config(original, run, heads, sensors or {})
    if original.trained_on_generated is not None:
        chosen.trained_on_generated = original.trained_on_generated
    problems = inference.problems + _problems(original, chosen)
    if problems:
        raise ConversionError(
            f"{original.path} cannot be converted, nothing was written. Read as {_describe(chosen)}, it has "
            f"{len(problems)} problem(s):\n" + "\n".join(f"  {problem}" for problem in problems)
        )
    for warning in inference.warnings:
        logger.warning("%s.", warning)
    model_class = _model_class(original.decoder_type is not None)
    names = _names_of(chosen, original.decoder_type is not None)
    state = _unshare({ours: original.tensors[name] for name, ours in names.items()})
    model = model_class.from_pretrained(None, config=chosen, state_dict=state, dtype=original.dtype).eval()
    with staged_folder(out, overwrite=overwrite, own=_OWN_FILES) as folder:
        model.save_pretrained(folder)
        # the original's reader swaps rows and columns
        CSMAEImageProcessor(sensors=chosen.sensors, size=chosen.image_size, transpose=True).save_pretrained(folder)
        report = _report(original, run, chosen, inference, names)
        report["self_check"] = _compare_with_source(folder, model_class, state)
        (folder / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return out


def _problems(checkpoint: OriginalCheckpoint, config: CSMAEConfig) -> list[str]:
    """List every tensor that is missing, unexpected, misshapen, of another type, not finite, or no table of frozen positions."""
    with_decoders, dtype = checkpoint.decoder_type is not None, checkpoint.dtype
    shapes = {name: tuple(tensor.shape) for name, tensor in _skeleton(config, with_decoders).state_dict().items()}
    tables = position_tables(config, with_decoders)
    expected = {original: shapes[name] for original, name in _names_of(config, with_decoders).items()}
    expected |= {name: tuple(table.shape) for name, table in tables.items()}
    problems = [f"missing: {name} {expected[name]}" for name in sorted(expected.keys() - checkpoint.tensors.keys())]
    for name, tensor in checkpoint.tensors.items():
        shown, shape = checkpoint.file_names[name], tuple(tensor.shape)
        if name not in expected:
            problems.append(f"unexpected: {shown} {shape}")
        elif shape != expected[name]:
            problems.append(f"misshapen: {shown} {shape}, expected {expected[name]}")
        elif tensor.dtype != dtype:
            problems.append(f"of another type: {shown} is {tensor.dtype}, most are {dtype}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"not finite: {shown} has NaN or infinite values")
        elif name in tables and (distance := _distance(tensor, tables[name])) > max(
            POSITION_TOLERANCE, torch.finfo(tensor.dtype).eps
        ):
            problems.append(
                f"not the frozen positions: {shown} lies up to {distance:.3g} from the 2-D sin-cos table, which is computed "
                "here and not loaded"
            )
    return problems


def export_original(folder: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a checkpoint that the original code loads: a torch file `{"state_dict": ...}` with its names.

    Args:
        folder: A `from_pretrained` folder of a [`CSMAEForPreTraining`] or [`CSMAEModel`] with the sensors s1 and s2.
        out: The file to write.
        overwrite: Whether a file that is there is replaced.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there is no model folder.
        FileExistsError: If `out` exists, and may not be replaced.
        ConversionError: If the original has no such model, with all that it lacks.
    """
    folder, out = Path(folder), Path(out)
    refuse_existing(out, overwrite=overwrite)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"No model at {folder}: expected a folder with config.json and weights.")
    config = CSMAEConfig.from_pretrained(folder)
    _refuse_unexportable(config, folder)
    with_decoders = "CSMAEForPreTraining" in (config.architectures or [])
    loaded: Any = _model_class(with_decoders).from_pretrained(folder, dtype="auto", output_loading_info=True)
    model, loading = loaded
    absent = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if absent:
        raise ConversionError(f"{folder} lacks weights, nothing was written: {', '.join(absent)}.")
    _warn_of_another_reader(config, folder)
    state = model.state_dict()
    tensors = {original_name(name): tensor for name, tensor in state.items()}
    tables = position_tables(config, with_decoders)
    tensors |= {name: table.to(model.dtype) for name, table in tables.items()}
    content: dict[str, Any] = {"state_dict": {name: tensor.detach().cpu() for name, tensor in tensors.items()}}
    if (generated := getattr(config, GENERATED, None)) is not None:
        content[GENERATED] = bool(generated)  # the original does not look at it, and the way back takes it
    write_atomically(out, lambda stream: torch.save(content, stream))
    return out


# Building and writing


def _model_class(with_decoders: bool) -> type[PreTrainedModel]:
    return CSMAEForPreTraining if with_decoders else CSMAEModel


def _skeleton(config: CSMAEConfig, with_decoders: bool) -> PreTrainedModel:
    """A model without memory for its weights, for their names and shapes."""
    with torch.device("meta"):
        return _model_class(with_decoders)(config)


def _names_of(config: CSMAEConfig, with_decoders: bool) -> dict[str, str]:
    return {original_name(name): name for name in _skeleton(config, with_decoders).state_dict()}


def _unshare(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give tensors that lie in one storage, which Transformers takes for tied weights, storages of their own."""
    storages = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    return {
        name: tensor.clone() if storages[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for name, tensor in tensors.items()
    }


def _report(
    original: OriginalCheckpoint,
    run: RunConfiguration | None,
    config: CSMAEConfig,
    inference: Inference,
    names: Mapping[str, str],
) -> dict[str, Any]:
    tables = position_tables(config, original.decoder_type is not None)
    return {
        "source": _describe_file(original.path),
        "config_file": _describe_file(run.path) if run else None,
        "variant": config.variant,
        "attention_heads": inference.heads,
        "warnings": inference.warnings,
        "tensors": {
            original.file_names[name]: {"name": ours, "shape": list(original.tensors[name].shape)}
            for name, ours in names.items()
        },
        "computed_positions": {
            original.file_names[name]: {
                "shape": list(table.shape),
                "largest_difference": _distance(original.tensors[name], table),
            }
            for name, table in tables.items()
        },
    }


def _describe_file(path: Path) -> dict[str, str | int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}


def _compare_with_source(
    folder: Path, model_class: type[PreTrainedModel], source: Mapping[str, torch.Tensor]
) -> dict[str, int]:
    """Load the written folder and compare it, bit by bit, with the tensors that the checkpoint holds."""
    state = model_class.from_pretrained(folder, dtype="auto").state_dict()
    changed = [
        name
        for name in sorted(source.keys() | state.keys())
        if name not in source
        or name not in state
        or source[name].dtype != state[name].dtype
        or not torch.equal(source[name], state[name])
    ]
    if changed:
        raise ConversionError(
            "The folder does not hold what the checkpoint holds, so it was removed. Changed tensors: "
            f"{', '.join(changed)}. Please report this as a bug."
        )
    return {"equal_tensors": len(source)}


def _distance(tensor: torch.Tensor, table: torch.Tensor) -> float:
    """Largest difference to a table, after the rounding of the tensor's own type."""
    return (tensor.double() - table.to(tensor.dtype).double()).abs().max().item()


def _describe(config: CSMAEConfig) -> str:
    sensors = ", ".join(f"{len(bands)} bands of {sensor}" for sensor, bands in config.sensors.items())
    return (
        f"{config.variant} of width {config.hidden_size} with {config.multi_sensor_encoder_depth} own and "
        f"{config.cross_sensor_encoder_depth} shared blocks, {sensors}, {config.image_size} pixels in patches of "
        f"{config.patch_size}"
    )


# What the original can be given


def _refuse_unexportable(config: CSMAEConfig, folder: Path) -> None:
    problems = []
    if set(config.sensors) != set(DEFAULT_SENSORS):
        problems.append(f"sensors are {', '.join(config.sensors)}: the original knows exactly s1 and s2")
    for sensor, default in DEFAULT_SENSORS.items():
        bands = config.sensors.get(sensor, default)
        if len(bands) == len(default) and bands != default:
            problems.append(
                f"{sensor} takes {', '.join(bands)}: the original's reader would feed {', '.join(default)} without a word"
            )
    for field, value in _FIXED_IN_ORIGINAL.items():
        if getattr(config, field) != value:
            problems.append(f"{field} = {getattr(config, field)}: the original has {value}")
    for prefix in ("", "decoder_"):
        width, inner = getattr(config, f"{prefix}hidden_size"), getattr(config, f"{prefix}intermediate_size")
        if inner != 4 * width:
            problems.append(f"{prefix}intermediate_size = {inner}: the original has 4 x {width}")
    if problems:
        raise ConversionError(
            f"{folder} cannot be a checkpoint of the original, nothing was written:\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )


def _warn_of_another_reader(config: CSMAEConfig, folder: Path) -> None:
    """Say where the original's own reader would feed the weights something else than they know."""
    for sensor, default in DEFAULT_SENSORS.items():
        if len(config.sensors[sensor]) != len(default):
            message = "%s has %d bands; the original's code is fixed to %d."
            logger.warning(message, sensor, len(config.sensors[sensor]), len(default))
    processor = folder / "preprocessor_config.json"
    if not processor.is_file() or not CSMAEImageProcessor.from_pretrained(folder).transpose:
        logger.warning(
            "The original's reader swaps rows and columns of every image, and the processor of %s does not: transpose the "
            "images before these weights see them there.",
            folder,
        )
