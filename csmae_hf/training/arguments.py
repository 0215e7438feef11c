"""Arguments of a pre-training run: a YAML file, overridden on the command line."""

import argparse
import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments

from configuration_csmae import SIZES, VARIANTS


@dataclass
class ModelArguments:
    """What is trained."""

    variant: str = field(
        default="sesd",
        metadata={"help": "Common or Specific Encoder, Common or Specific Decoder.", "choices": list(VARIANTS)},
    )
    size: str = field(default="base", metadata={"help": "Size of the encoder, as of a ViT.", "choices": list(SIZES)})
    model_overrides: dict | str | None = field(
        default=None,
        metadata={"help": 'Any further field of CSMAEConfig, in JSON: \'{"hidden_size": 96, "mask_ratio": 0.6}\'.'},
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Go on from this checkpoint's weights and configuration (folder or Hub id)."}
    )


@dataclass
class DataArguments:
    """What it is trained on."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "BigEarthNet LMDB, or the folder that holds it and its metadata. Default: the synthetic sample archive, "
            "generated at ./sample_archive if it is not there."
        },
    )
    metadata: str | None = field(
        default=None, metadata={"help": "Metadata table, where it does not lie beside the LMDB (v2: parquet, v1: CSV)."}
    )
    subset: str | None = field(default=None, metadata={"help": "BEN-14K or BEN-270K. Default: all tiles of the split."})
    splits: str | None = field(
        default=None, metadata={"help": "Folder of train.csv, val.csv and test.csv (v1), where not beside the LMDB."}
    )
    missing: str = field(
        default="error",
        metadata={
            "help": "What to do if more than 1 %% of the tiles that the metadata names are not in the LMDB.",
            "choices": ["error", "drop"],
        },
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on; 'all' for every tile."})
    eval_split: str = field(
        default="validation", metadata={"help": "Split to report the loss on; 'all' for every tile."}
    )
    max_train_tiles: int | None = field(default=None, metadata={"help": "Train on the first so many tiles only."})
    max_eval_tiles: int | None = field(default=None, metadata={"help": "Evaluate on the first so many tiles only."})
    flips: bool = field(
        default=True, metadata={"help": "Flip tiles at random, both sensors of a place together (p 0.5, both axes)."}
    )


@dataclass
class CSMAETrainingArguments(TrainingArguments):
    """Transformers' training arguments with the paper's recipe as defaults."""

    output_dir: str = field(default="runs/csmae", metadata={"help": "Where checkpoints and the final model go."})
    num_train_epochs: float = field(default=150, metadata={"help": "Passes over the training split."})
    per_device_train_batch_size: int = field(default=128, metadata={"help": "Tiles a step and process."})
    per_device_eval_batch_size: int = field(default=128, metadata={"help": "Tiles an evaluation step and process."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of AdamW."})
    adam_beta1: float = field(default=0.9, metadata={"help": "First beta of AdamW."})
    adam_beta2: float = field(default=0.95, metadata={"help": "Second beta of AdamW."})
    weight_decay: float = field(default=0.05, metadata={"help": "Weight decay of AdamW, on all parameters."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule after the warm-up."})
    warmup_steps: float = field(
        default=10 / 150, metadata={"help": "Steps of linear warm-up; below 1 a share of all steps (10 of 150 epochs)."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps or epoch."})
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to save a checkpoint: no, steps, epoch or best."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two lines of the log."})
    prediction_loss_only: bool = field(
        default=True,
        metadata={"help": "In evaluation keep the loss only; the predictions of a whole split fill any memory."},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator takes what it needs by name."})
    seed: int = field(default=42, metadata={"help": "Seed of weights, order, flips and masks."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # there is nothing to pin memory for, and torch warns of it


HELP_ALL = "--help_all"


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's lines, and says every default."""


def _show_own_arguments_only(parser: argparse.ArgumentParser) -> None:
    """Hide from the help what a newcomer need not read: most of the 150 arguments of the Trainer."""
    own = {
        "help",
        *CSMAETrainingArguments.__annotations__,
        "max_steps",
        "resume_from_checkpoint",
        "dataloader_num_workers",
    }
    own |= {entry.name for group in (ModelArguments, DataArguments) for entry in dataclasses.fields(group)}
    for action in parser._actions:
        if action.dest not in own:
            action.help = argparse.SUPPRESS


Arguments = tuple[ModelArguments, DataArguments, CSMAETrainingArguments]


def parse_arguments(argv: Sequence[str], description: str | None = None) -> Arguments:
    """Parse a command line: an optional YAML file first, then `--name value` pairs that override it.

    Args:
        argv: The command line without the program's name.
        description: Shown by `--help`.

    Returns:
        Model, data and training arguments.

    Raises:
        FileNotFoundError: If the YAML file is not there.
        ValueError: If it names an unknown argument; the message has the nearest known one.
    """
    argv = list(argv)
    groups = [ModelArguments, DataArguments, CSMAETrainingArguments]
    parser = HfArgumentParser(groups, description=description, formatter_class=_HelpFormatter)  # type: ignore[arg-type]
    parser.usage = "%(prog)s [CONFIG.yaml] [--name value ...]"
    parser.epilog = f"{HELP_ALL} also lists everything of transformers.TrainingArguments, all of which is accepted."
    if HELP_ALL in argv:
        argv = ["--help"]
    else:
        _show_own_arguments_only(parser)
    if argv and not argv[0].startswith("-"):
        argv = [*yaml_to_argv(Path(argv[0]), known_names()), *argv[1:]]
    model_args, data_args, training_args, unknown = parser.parse_args_into_dataclasses(
        argv, return_remaining_strings=True
    )
    if unknown:
        raise ValueError(unknown_name_message(unknown[0].lstrip("-").split("=")[0].replace("-", "_"), known_names()))
    model_args.model_overrides = parse_overrides(model_args.model_overrides)
    return model_args, data_args, training_args


def known_names() -> list[str]:
    """Names of all arguments."""
    groups = (ModelArguments, DataArguments, CSMAETrainingArguments)
    return [entry.name for group in groups for entry in dataclasses.fields(group) if entry.init]


def yaml_to_argv(path: Path, known: Sequence[str]) -> list[str]:
    """Read a YAML file of arguments as a command line.

    Args:
        path: The file: a mapping of argument names to values.
        known: The names there are.

    Returns:
        The command line; empty values are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no mapping, or names an unknown argument.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"No configuration file {path}: the first argument is a YAML file or an option (see --help)."
        )
    settings = yaml.safe_load(path.read_text()) or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}: expected a mapping of argument names to values.")
    argv = []
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"{path}: {unknown_name_message(str(name), known)}")
        if value is None:
            continue
        argv += [f"--{name}", *_to_words(value)]
    return argv


def unknown_name_message(name: str, known: Sequence[str]) -> str:
    """Say that an argument is unknown, and which one may have been meant."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Unknown argument {name!r}" + (f": did you mean {near[0]!r}?" if near else "; --help lists them.")


def parse_overrides(value: dict | str | None) -> dict[str, Any]:
    """Read `model_overrides`, given as JSON on the command line.

    Raises:
        ValueError: If it is no JSON object.
    """
    if value is None or isinstance(value, dict):
        return value or {}
    try:
        overrides = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"model_overrides = {value!r} is no JSON: {error}.") from error
    if not isinstance(overrides, dict):
        raise ValueError(f"model_overrides = {value!r} must be a JSON object of CSMAEConfig fields.")
    return overrides


def _to_words(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [json.dumps(value)]
    if isinstance(value, list):
        return [str(entry) for entry in value]
    return [str(value)]
