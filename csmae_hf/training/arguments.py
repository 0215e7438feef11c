"""Arguments of a pre-training run: a YAML file, overridden on the command line."""

import argparse
import dataclasses
import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments

from configuration_csmae import SIZES, VARIANTS, CSMAEConfig
from csmae_hf.data.parallel import default_workers
from csmae_hf.files import write_atomically
from csmae_hf.training.precision import PRECISIONS, choose_precision, default_device_type

ARGUMENTS_NAME = "arguments.yaml"
"""File of a run, and of each of its checkpoints, that says what it was made with."""


@dataclass
class ModelArguments:
    """What is trained."""

    model_name: str = field(
        default="csmae",
        metadata={
            "help": "csmae, or the baseline mae: one uni-modal MAE a sensor, no weights shared, no term between sensors.",
            "choices": ["csmae", "mae"],
        },
    )
    variant: str | None = field(
        default=None,
        metadata={
            "help": "Common or Specific Encoder, Common or Specific Decoder; none is sesd, or what model_name_or_path is.",
            "choices": list(VARIANTS),
        },
    )
    size: str | None = field(
        default=None,
        metadata={
            "help": "Size of the encoder, as of a ViT; none is base, or what model_name_or_path is.",
            "choices": list(SIZES),
        },
    )
    model_overrides: dict | str | None = field(
        default=None,
        metadata={"help": 'Any further field of CSMAEConfig, in JSON: \'{"hidden_size": 96, "mask_ratio": 0.6}\'.'},
    )
    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Start from this checkpoint's weights (folder or Hub id). Where variant, size or overrides make another "
            "architecture, from those that fit; warm_start.json lists them."
        },
    )


@dataclass
class DataArguments:
    """What it is trained on."""

    data: str | None = field(
        default=None,
        metadata={
            "help": "BigEarthNet LMDB, or the folder that holds it and its metadata, or a folder of GeoTIFF tiles. Default: the "
            "synthetic sample archive, generated at ./sample_archive if it is not there."
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
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Clip the gradient's norm to this; 0, as in the paper, for never."}
    )
    precision: str = field(
        default="auto",
        metadata={
            "help": "Precision of the matrix products. auto: bf16 where the hardware is fast at it, fp16 with loss scaling on "
            "other GPUs, fp32 elsewhere.",
            "choices": list(PRECISIONS),
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": "Go on from a checkpoint: its folder, or 'last' for the last complete one in output_dir."},
    )
    auto_resume: bool = field(
        default=False,
        metadata={"help": "Go on from the last complete checkpoint in output_dir, or begin where there is none."},
    )
    on_device_preprocessing: bool | None = field(
        default=None,
        metadata={
            "help": "Resample and standardise tiles on the device rather than in the processes that read them; a third of the "
            "bytes to move. Default: where the device is no CPU."
        },
    )
    peak_tflops: float | None = field(
        default=None,
        metadata={
            "help": "What one device can do at best, in 10^12 operations a second, for the utilisation in the log. Default: "
            "the data sheet's for known GPUs, else measured."
        },
    )
    dataloader_num_workers: int = field(  # type: ignore[assignment]  # None only until it is initialised
        default=None,
        metadata={
            "help": "Processes that read tiles, for each training process; 0 reads in the training process. Default: on a CPU 0, "
            "else a training process's share of the cores but one, 8 at most."
        },
    )
    dataloader_persistent_workers: bool = field(
        default=True, metadata={"help": "Keep these processes from epoch to epoch, rather than start them anew."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Has no effect: a loss that is NaN or infinite stops the run."}
    )
    given: dict[str, Any] = field(default_factory=dict, init=False, repr=False)  # as written, for `arguments.yaml`
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator takes what it needs by name."})
    seed: int = field(default=42, metadata={"help": "Seed of weights, order, flips and masks."})

    eyes_tiles: int = field(
        default=1000,
        metadata={"help": "Tiles of eval_split on which retrieval is measured at each evaluation; 0 looks at nothing."},
    )
    eyes_k: int = field(default=10, metadata={"help": "Results per query of that retrieval."})
    eyes_pictures: int = field(
        default=6, metadata={"help": "Tiles in the picture of reconstructions at each evaluation; 0 draws none."}
    )
    eyes_every: int = field(default=1, metadata={"help": "Look at every so many evaluations only."})

    def __post_init__(self) -> None:
        for name, least in (("eyes_tiles", 0), ("eyes_k", 1), ("eyes_pictures", 0), ("eyes_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {least}.")
        if self.metric_for_best_model and self.greater_is_better is None:
            self.greater_is_better = not is_lower_better(self.metric_for_best_model)
        if isinstance(self.fsdp, str) and self.fsdp.lower() in ("true", "false"):  # as YAML and `--fsdp true` give it
            self.fsdp = self.fsdp.lower() == "true" or None  # type: ignore[assignment]
        self._choose_precision()
        self._choose_loading(default_device_type(self.use_cpu))
        super().__post_init__()
        if self.torch_compile:  # else a short last batch makes Accelerate's step one for any size, and slower
            os.environ.setdefault("ACCELERATE_DYNAMO_USE_DYNAMIC", "false")
        self.mixed_precision = "no" if self.precision == "fp32" else self.precision  # whatever the launcher said
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # there is nothing to pin memory for, and torch warns of it

    def _choose_loading(self, device_type: str) -> None:
        """Decide how batches come to the device: from processes of their own, and without the host waiting for each copy."""
        if self.dataloader_num_workers is None:
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
            self.dataloader_num_workers = 0 if device_type == "cpu" else loading_workers(default_workers(), processes)
        if not self.dataloader_num_workers:
            self.dataloader_persistent_workers = False  # torch refuses it
        if self.accelerator_config is None and device_type != "cpu":
            self.accelerator_config = {"non_blocking": self.dataloader_pin_memory}

    def _choose_precision(self) -> None:
        """Decide on a precision, and tell it to Transformers in its own words."""
        if self.bf16 or self.fp16:  # Transformers' own options
            asked = "bf16" if self.bf16 else "fp16"
            if self.precision not in ("auto", asked):
                raise ValueError(f"precision = {self.precision!r} contradicts --{asked}: give one of them.")
            self.precision = asked
        device_type = default_device_type(self.use_cpu)
        self.precision = choose_precision(self.precision, device_type)
        self.bf16, self.fp16 = self.precision == "bf16", self.precision == "fp16"
        self.use_cpu = self.use_cpu or device_type == "cpu"  # else Transformers refuses bf16 there


def loading_workers(cores: int, processes: int) -> int:
    """How many processes read tiles for each training process that has a device of its own.

    Args:
        cores: Of this machine that may be used.
        processes: Training processes on this machine.

    Returns:
        From 1 to 8; each reads several thousand tiles a second.
    """
    return min(8, max(1, cores // processes - 1))


LOWER_IS_BETTER = ("loss", "umr_", "cmr_", "mim", "mde", "uniformity_", "alignment_", "gap_")
"""How metrics begin of which the least is the best; Transformers knows it of `loss` only."""


def is_lower_better(metric: str) -> bool:
    """Say whether the best value of an evaluation metric, with or without its `eval_`, is the least."""
    return metric.removeprefix("eval_").startswith(LOWER_IS_BETTER) or metric.endswith("loss")


HELP_ALL = "--help_all"


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's lines, and says every default."""


def _show_own_arguments_only(parser: argparse.ArgumentParser) -> None:
    """Hide from the help what a newcomer need not read: most of the 150 arguments of the Trainer."""
    own = {
        "help",
        *CSMAETrainingArguments.__annotations__,
        "max_steps",
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
    parser = HfArgumentParser(groups, description=description, formatter_class=_HelpFormatter, allow_abbrev=False)  # type: ignore[arg-type]
    parser.usage = "%(prog)s [CONFIG.yaml] [--name value ...]"
    parser.epilog = f"{HELP_ALL} also lists everything of transformers.TrainingArguments, all of which is accepted."
    if HELP_ALL in argv:
        argv = ["--help"]
    else:
        _show_own_arguments_only(parser)
    if argv and not argv[0].startswith("-"):
        argv = [*yaml_to_argv(Path(argv[0]), known_names()), *argv[1:]]
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ValueError(unknown_name_message(unknown[0].lstrip("-").split("=")[0].replace("-", "_"), known_names()))
    values = vars(namespace)
    model_args, data_args, training_args = (
        group(**{entry.name: values[entry.name] for entry in dataclasses.fields(group) if entry.init})
        for group in groups
    )
    model_args.model_overrides = parse_overrides(model_args.model_overrides)
    training_args.given = {name: value for name, value in values.items() if value != parser.get_default(name)}
    return model_args, data_args, training_args


def resolved_arguments(
    model_args: ModelArguments, data_args: DataArguments, training_args: CSMAETrainingArguments
) -> dict[str, Any]:
    """Collect what a run was made with: this package's arguments all, the Trainer's others where they were given.

    Returns:
        Values by name, which written as YAML can be passed again. Where a choice was left to the machine, such as the
        precision, it is the one that was made; that a run was resumed is left out.
    """
    own: list[tuple[Any, str]] = [
        (group, entry.name) for group in (model_args, data_args) for entry in dataclasses.fields(group)
    ]
    own += [(training_args, name) for name in CSMAETrainingArguments.__annotations__ if name != "given"]
    resolved = {**training_args.given, **{name: _plain(getattr(group, name)) for group, name in own}}
    left_out = ("resume_from_checkpoint", "auto_resume")
    return {name: value for name, value in resolved.items() if value is not None and name not in left_out}


def save_arguments(path: Path, resolved: dict[str, Any]) -> None:
    """Write arguments as a YAML file that can be passed again."""
    text = yaml.safe_dump(resolved, sort_keys=False)
    write_atomically(
        path, f"# What this run was made with, every choice resolved: pass this file to repeat it.\n{text}"
    )


def changed_arguments(path: Path, resolved: dict[str, Any]) -> list[str]:
    """Compare the arguments of a resumed run with those that it began with.

    Args:
        path: As [`save_arguments`] wrote it.
        resolved: Of the resumed run.

    Returns:
        `name: before -> now` for each that differs.
    """
    before = yaml.safe_load(path.read_text()) if path.is_file() else {}
    names = dict.fromkeys([*before, *resolved]) if before else {}
    return [
        f"{name}: {before.get(name)} -> {resolved.get(name)}"
        for name in names
        if before.get(name) != resolved.get(name)
    ]


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


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
        if value is False and name.endswith("_strategy"):
            value = "no"  # which YAML reads as false where it is not quoted
        argv += [f"--{name}", *_to_words(value)]
    return argv


def unknown_name_message(name: str, known: Sequence[str]) -> str:
    """Say that an argument is unknown, and which one may have been meant."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"Unknown argument {name!r}" + (f": did you mean {near[0]!r}?" if near else "; --help lists them.")


def parse_overrides(value: dict | str | None) -> dict[str, Any]:
    """Read `model_overrides`, given as JSON on the command line.

    Raises:
        ValueError: If it is no JSON object, or names what is no field of `CSMAEConfig`.
    """
    overrides = value or {}
    if isinstance(overrides, str):
        try:
            overrides = json.loads(overrides)
        except json.JSONDecodeError as error:
            raise ValueError(f"model_overrides = {value!r} is no JSON: {error}.") from error
    if not isinstance(overrides, dict):
        raise ValueError(f"model_overrides = {value!r} must be a JSON object of CSMAEConfig fields.")
    known = [entry.name for entry in dataclasses.fields(CSMAEConfig)]
    for name in overrides:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            meant = f": did you mean {near[0]!r}?" if near else ", see its documentation."
            raise ValueError(f"model_overrides names {name!r}, which CSMAEConfig does not have{meant}")
    return overrides


def _to_words(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [json.dumps(value)]
    if isinstance(value, list):
        return [str(entry) for entry in value]
    return [str(value)]
