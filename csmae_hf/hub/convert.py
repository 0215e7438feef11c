"""Make an ordinary model folder of an original CSMAE checkpoint, and the way back."""

import argparse
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from configuration_csmae import DEFAULT_SENSORS, CSMAEConfig
from csmae_hf.files import refuse_existing, staged_folder
from csmae_hf.hub.original import (
    ConversionError,
    Inference,
    OriginalCheckpoint,
    RunConfiguration,
    infer_config,
    original_names,
    position_tables,
    read_original,
    read_run_configuration,
    write_original,
)
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

REPORT_FILE = "conversion.json"
"""What a converted folder says about where it is from."""

POSITION_TOLERANCE = 1e-5
"""How far a checkpoint's frozen positions may lie from the computed ones: the rounding of float32, with room."""

_SELF_CHECK_SEED = 0
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
) -> Path:
    """Make a `from_pretrained` folder of a checkpoint of the original code.

    The folder holds a [`CSMAEForPreTraining`], or a [`CSMAEModel`] if the checkpoint has no decoder, the processor that
    feeds it what the original's reader fed it, and `conversion.json`: the source's sha256, every tensor's old and new name,
    where the YAML was not followed, and a self-check. It appears when complete, or not at all.

    Args:
        checkpoint: A checkpoint as [`read_original`] takes it.
        out: The folder to make.
        config: The `args.yaml` of the run: masking, losses and attention heads. What the weights' shapes say too is
            taken from the weights.
        num_attention_heads: Heads of the encoder; default the YAML's, then those of the standard ViT of that width.
        decoder_num_attention_heads: Heads of the decoder; default the YAML's, then 16 where its width is 512.
        sensors: Bands by sensor, in the order of the input channels; needed where they are not 2 of S1 and 10 of S2.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: If the checkpoint or the YAML is not there.
        FileExistsError: If `out` exists.
        ConversionError: With all that is missing, unexpected, misshapen or unknown; nothing is written then.
    """
    out = Path(out)
    refuse_existing(out)
    with tqdm(total=4, desc=f"Converting {Path(checkpoint).name}", unit="step", delay=2) as progress:
        run = read_run_configuration(config) if config is not None else None
        original = read_original(checkpoint)
        progress.update()
        inference = infer_config(
            original,
            run,
            num_attention_heads=num_attention_heads,
            decoder_num_attention_heads=decoder_num_attention_heads,
            sensors=sensors,
        )
        _refuse_problems(original, inference)
        for warning in inference.warnings:
            logger.warning("%s.", warning)
        progress.update()
        names = _names_of(inference.config, original.decoder_type is not None)
        model = _build(original, inference.config, names)
        with staged_folder(out) as folder:
            model.save_pretrained(folder)
            _processor_of(inference.config).save_pretrained(folder)
            progress.update()
            report = _report(original, run, inference, names)
            report["self_check"] = _self_check(folder, model, {names[name]: original.tensors[name] for name in names})
            (folder / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            progress.update()
    return out


def find_problems(checkpoint: OriginalCheckpoint, config: CSMAEConfig) -> list[str]:
    """List all that keeps a checkpoint from being a model of this configuration.

    Args:
        checkpoint: The checkpoint.
        config: The configuration.

    Returns:
        A line for each tensor that is missing, unexpected, misshapen, of another type, not finite, or, if it is a table of
        positions, not the sin-cos one.
    """
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
        elif name in tables and (distance := _distance(tensor, tables[name])) > _tolerance(tensor.dtype):
            problems.append(
                f"not the frozen positions: {shown} lies up to {distance:.3g} from the 2-D sin-cos table, which is computed "
                "here and not loaded"
            )
    return problems


def export_original(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write a checkpoint that the original code loads: a torch file `{"state_dict": ...}` with its names.

    Args:
        folder: A `from_pretrained` folder of a [`CSMAEForPreTraining`] or [`CSMAEModel`] with the sensors s1 and s2.
        out: The file to write.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there is no model folder.
        FileExistsError: If `out` exists.
        ConversionError: If the original has no such model, with all that it lacks.
    """
    folder, out = Path(folder), Path(out)
    refuse_existing(out)
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
    tensors = {original: state[name] for original, name in original_names(state).items()}
    tables = position_tables(config, with_decoders)
    write_original({**tensors, **{name: table.to(model.dtype) for name, table in tables.items()}}, out)
    return out


# Building and writing


def _model_class(with_decoders: bool) -> type[PreTrainedModel]:
    return CSMAEForPreTraining if with_decoders else CSMAEModel


def _skeleton(config: CSMAEConfig, with_decoders: bool) -> PreTrainedModel:
    """A model without memory for its weights, for their names and shapes."""
    with torch.device("meta"):
        return _model_class(with_decoders)(config)


def _names_of(config: CSMAEConfig, with_decoders: bool) -> dict[str, str]:
    return original_names(_skeleton(config, with_decoders).state_dict())


def _refuse_problems(original: OriginalCheckpoint, inference: Inference) -> None:
    problems = inference.problems + find_problems(original, inference.config)
    if problems:
        raise ConversionError(
            f"{original.path} cannot be converted, nothing was written. Read as {_describe(inference.config)}, it has "
            f"{len(problems)} problem(s):\n" + "\n".join(f"  {problem}" for problem in problems)
        )


def _processor_of(config: CSMAEConfig) -> CSMAEImageProcessor:
    """The processor that feeds a model what the original's reader would: rows and columns swapped."""
    return CSMAEImageProcessor(sensors=config.sensors, size=config.image_size, transpose=True)


def _build(original: OriginalCheckpoint, config: CSMAEConfig, names: Mapping[str, str]) -> PreTrainedModel:
    state = _unshare({ours: original.tensors[name] for name, ours in names.items()})
    model_class = _model_class(original.decoder_type is not None)
    return model_class.from_pretrained(None, config=config, state_dict=state, dtype=original.dtype).eval()


def _unshare(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give tensors that lie in one storage, which Transformers takes for tied weights, storages of their own."""
    storages = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    return {
        name: tensor.clone() if storages[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for name, tensor in tensors.items()
    }


def _report(
    original: OriginalCheckpoint, run: RunConfiguration | None, inference: Inference, names: Mapping[str, str]
) -> dict[str, Any]:
    tables = position_tables(inference.config, original.decoder_type is not None)
    return {
        "source": _describe_file(original.path),
        "config_file": _describe_file(run.path) if run else None,
        "variant": inference.config.variant,
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


def _self_check(folder: Path, model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Load the folder again and compare it with the source's tensors and with the model in memory."""
    loaded = type(model).from_pretrained(folder, dtype="auto").eval()
    state = loaded.state_dict()
    changed = sorted(name for name in tensors.keys() | state.keys() if not _is_same(state.get(name), tensors.get(name)))
    embeds, again = _embeds_of_noise(model), _embeds_of_noise(loaded)
    unequal = [sensor for sensor in embeds if not torch.equal(embeds[sensor], again[sensor])]
    transposed = CSMAEImageProcessor.from_pretrained(folder).transpose
    if changed or unequal or not transposed:
        raise ConversionError(
            f"The folder does not load as it was written, so it was removed. Changed tensors: {changed or 'none'}; sensors with "
            f"other embeds: {unequal or 'none'}; processor.transpose = {transposed}. Please report this as a bug."
        )
    return {
        "equal_tensors": len(tensors),
        "input": f"torch.randn with seed {_SELF_CHECK_SEED}, sensors in the config's order",
        "embeds": {
            sensor: {
                "shape": list(value.shape),
                "largest_difference": (value.float() - again[sensor].float()).abs().max().item(),
                "norm": value.float().norm().item(),
            }
            for sensor, value in embeds.items()
        },
    }


def _is_same(tensor: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if tensor is None or other is None:
        return False
    return tensor.dtype == other.dtype and torch.equal(tensor, other)


@torch.no_grad()
def _embeds_of_noise(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Embeds of a fixed input, (2, D) by sensor."""
    config, generator = model.config, torch.Generator().manual_seed(_SELF_CHECK_SEED)
    size = config.image_size
    images = {
        sensor: torch.randn(2, len(bands), size, size, generator=generator) for sensor, bands in config.sensors.items()
    }
    return model.base_model(**images).embeds


def _distance(tensor: torch.Tensor, table: torch.Tensor) -> float:
    """Largest difference to a table, after the rounding of the tensor's own type."""
    return (tensor.double() - table.to(tensor.dtype).double()).abs().max().item()


def _tolerance(dtype: torch.dtype) -> float:
    return max(POSITION_TOLERANCE, torch.finfo(dtype).eps)


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
            logger.warning(
                "%s has %d bands; the original's code is fixed to %d.",
                sensor,
                len(config.sensors[sensor]),
                len(default),
            )
    processor = folder / "preprocessor_config.json"
    if not processor.is_file() or not CSMAEImageProcessor.from_pretrained(folder).transpose:
        logger.warning(
            "The original's reader swaps rows and columns of every image, and the processor of %s does not: transpose the "
            "images before these weights see them there.",
            folder,
        )


# Command line


def add_convert_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `convert` to the sub-commands of a parser.

    Args:
        subparsers: What `add_subparsers` returned.

    Returns:
        The command's parser; it sets `run`.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "convert",
        help="make a model folder of a checkpoint of the original CSMAE code",
        description="Make a from_pretrained folder of a checkpoint of the original CSMAE code. Variant and sizes are read from "
        "the weights; where the YAML says otherwise, that is reported and the weights are followed. The checkpoint is loaded "
        "weights-only: nothing in it is run. If anything in it does not fit, all of it is listed and nothing is written.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="Lightning checkpoint or bare state dict, with or without decoders"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make; must not exist")
    parser.add_argument(
        "--config", type=Path, metavar="YAML", help="the run's args.yaml: masking, losses, heads (default: as released)"
    )
    parser.add_argument(
        "--num-attention-heads",
        type=int,
        metavar="N",
        help="heads of the encoder (default: the YAML's, else 3, 6, 12 or 16 for a width of 192, 384, 768 or 1024)",
    )
    parser.add_argument(
        "--decoder-num-attention-heads",
        type=int,
        metavar="N",
        help="heads of the decoder (default: the YAML's, else 16 for a width of 512)",
    )
    parser.add_argument(
        "--bands",
        type=_parse_bands,
        action="append",
        metavar="SENSOR=B1,B2",
        help="bands of a sensor in the order of the input channels, such as s2=B04,B03,B02; needed where the weights do not "
        "take the usual 2 of s1 and 10 of s2; repeat for the other sensor",
    )
    parser.set_defaults(run=_run_convert)
    return parser


def add_export_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add `export-original` to the sub-commands of a parser.

    Args:
        subparsers: What `add_subparsers` returned.

    Returns:
        The command's parser; it sets `run`.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export-original",
        help="write a model folder as a checkpoint of the original CSMAE code",
        description="Write the weights of a model folder under the names of the original CSMAE code, frozen positions included, "
        "as a torch file {'state_dict': ...}. The way back of `convert`, exact to the bit.",
    )
    parser.add_argument("folder", type=Path, help="from_pretrained folder of a model with the sensors s1 and s2")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, such as model.ckpt; must not exist")
    parser.set_defaults(run=_run_export)
    return parser


def _parse_bands(text: str) -> tuple[str, list[str]]:
    sensor, separator, bands = text.partition("=")
    names = [band.strip() for band in bands.split(",")]
    if not separator or not sensor or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form s2=B04,B03,B02")
    return sensor.strip(), names


def _run_convert(arguments: argparse.Namespace) -> None:
    folder = convert_checkpoint(
        arguments.checkpoint,
        arguments.out,
        config=arguments.config,
        num_attention_heads=arguments.num_attention_heads,
        decoder_num_attention_heads=arguments.decoder_num_attention_heads,
        sensors=dict(arguments.bands) if arguments.bands else None,
    )
    logger.info("Converted %s: %s (how: %s)", arguments.checkpoint, folder, folder / REPORT_FILE)


def _run_export(arguments: argparse.Namespace) -> None:
    logger.info("Exported %s: %s", arguments.folder, export_original(arguments.folder, arguments.out))
