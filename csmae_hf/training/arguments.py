"""Arguments of a pre-training run: a YAML file, overridden on the command line."""

import argparse
import dataclasses
import difflib
import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks

from configuration_csmae import SIZES, VARIANTS, CSMAEConfig
from csmae_hf.data.image_options import HELP
from csmae_hf.data.parallel import default_workers
from csmae_hf.evaluation.trainings import Changes, change_line
from csmae_hf.files import read_yaml, write_atomically
from csmae_hf.training.optimizers import check_optimizer, choose_schedule, is_own
from csmae_hf.training.precision import PRECISIONS, choose_precision, default_device_type


def option(default: Any, text: str, choices: Iterable[str] = (), **metadata: Any) -> Any:
    """A field of an argument class: its default, its help, and the values it may have where they are few."""
    return field(
        default=default, metadata={"help": text, **({"choices": list(choices)} if choices else {}), **metadata}
    )


@dataclass
class ModelArguments:
    """What is trained."""

    model_name: str = option(
        "csmae",
        "csmae, or the baseline mae: one uni-modal MAE a sensor, no weights shared, no term between sensors.",
        ("csmae", "mae"),
    )
    variant: str | None = option(
        None,
        "Common or Specific Encoder, Common or Specific Decoder; none is sesd, or what model_name_or_path is.",
        VARIANTS,
    )
    size: str | None = option(
        None,
        "Size of the encoder, as of a ViT (the decoders come on top); none is base, or what model_name_or_path is.",
        SIZES,
    )
    model_overrides: dict | str | None = option(  # noqa: RUF009
        None, 'Any further field of CSMAEConfig, in JSON: \'{"hidden_size": 96, "mask_ratio": 0.6}\'.'
    )
    model_name_or_path: str | None = option(
        None,
        "Start from this checkpoint's weights (folder or Hub id). Where variant, size or overrides make another "
        "architecture, from those that fit; warm_start.json lists them.",
    )
    model_revision: str | None = option(
        None, "Branch, tag or commit of that checkpoint on the Hub; default its newest."
    )

    @property
    def hub_options(self) -> dict[str, Any]:
        """What `from_pretrained` is told of the checkpoint besides its name."""
        return {"revision": self.model_revision} if self.model_revision else {}


@dataclass
class DataArguments:
    """What it is trained on."""

    data: str | None = option(
        None,
        "BigEarthNet LMDB, or the folder that holds it and its metadata, or a folder of GeoTIFF tiles. Default: the "
        "synthetic sample archive, generated at ./sample_archive if it is not there.",
    )
    metadata: str | None = option(None, "Metadata table, where it does not lie beside the LMDB (v2: parquet, v1: CSV).")
    subset: str | None = option(None, "BEN-14K or BEN-270K. Default: all tiles of the split.")
    splits: str | None = option(None, "Folder of train.csv, val.csv and test.csv (v1), where not beside the LMDB.")
    missing: str = option(
        "error",
        "What to do if more than 1 %% of the tiles that the metadata names are not in the LMDB.",
        ("error", "drop"),
    )
    suspect: str = option(
        "leave-out",
        HELP["suspect"]
        + ". 1000 evenly spread tiles of each split are looked at, and all where one of them looks wrong.",
        ("refuse", "leave-out", "accept"),
    )
    bands: list[str] | None = option(None, HELP["bands"], action="extend")  # noqa: RUF009
    units: list[str] | None = option(None, HELP["units"], action="extend")  # noqa: RUF009
    level: str | None = option(None, HELP["level"])
    sensors: list[str] | None = option(None, HELP["sensors"], action="extend")  # noqa: RUF009
    pair: str | None = option(None, HELP["pair"])
    train_split: str = option("train", "Split to train on; 'all' for every tile.")
    eval_split: str = option("validation", "Split to report the loss on; 'all' for every tile.")
    max_train_tiles: int | None = option(None, "Train on so many tiles only, evenly spread over the split.")
    max_eval_tiles: int | None = option(None, "Evaluate on so many tiles only, evenly spread over the split.")
    flips: bool = option(True, "Flip tiles at random, both sensors of a place together (p 0.5, both axes).")


@dataclass
class CSMAETrainingArguments(TrainingArguments):
    """Transformers' training arguments with the paper's recipe as defaults."""

    output_dir: str = option("runs/csmae", "Where checkpoints and the final model go.")
    num_train_epochs: float = option(150, "Passes over the training split.")
    per_device_train_batch_size: int = option(128, "Tiles a step and process.")
    per_device_eval_batch_size: int = option(128, "Tiles an evaluation step and process.")
    learning_rate: float = option(1e-4, "Peak learning rate of AdamW.")
    adam_beta1: float = option(0.9, "First beta of AdamW.")
    adam_beta2: float = option(0.95, "Second beta of AdamW.")
    weight_decay: float = option(0.05, "Weight decay of AdamW, on all parameters.")
    optim: str = option(
        "adamw_torch_fused",
        "Optimiser: any of Transformers' (an unknown name lists them), or muon: PyTorch's Muon for the matrices of the blocks, "
        "AdamW for the rest.",
    )
    lr_scheduler_type: str = option(  # None only until it is initialised
        None, "Schedule after the warm-up. Default: cosine; under schedule_free_..., which needs none, constant."
    )
    warmup_steps: float = option(10 / 150, "Steps of linear warm-up; below 1 a share of all steps (10 of 150 epochs).")
    eval_strategy: str = option("epoch", "When to evaluate: no, steps or epoch.")
    save_strategy: str = option("epoch", "When to save a checkpoint: no, steps, epoch or best.")
    save_total_limit: int | None = option(2, "Checkpoints to keep.")
    logging_steps: float = option(50, "Steps between two lines of the log.")
    prediction_loss_only: bool = option(
        True, "In evaluation keep the loss only; the predictions of a whole split fill any memory."
    )
    max_grad_norm: float = option(0.0, "Clip the gradient's norm to this; 0, as in the paper, for never.")
    precision: str = option(
        "auto",
        "Precision of the matrix products. auto: bf16 where the hardware is fast at it, fp16 with loss scaling on "
        "other GPUs, fp32 elsewhere.",
        PRECISIONS,
    )
    resume_from_checkpoint: str | None = option(
        None, "Go on from a checkpoint: its folder, or 'last' for the last complete one in output_dir."
    )
    auto_resume: bool = option(
        False, "Go on from the last complete checkpoint in output_dir, or begin where there is none."
    )
    overwrite: bool = option(
        False, "Replace the trained model that output_dir holds, once the new one is trained; it is refused otherwise."
    )
    on_device_preprocessing: bool | None = option(
        None,
        "Resample and standardise tiles on the device rather than in the processes that read them; a third of the "
        "bytes to move. Default: where the device is no CPU.",
    )
    peak_tflops: float | None = option(
        None,
        "What one device can do at best, in 10^12 operations a second, for the utilisation in the log. Default: the "
        "data sheet's for known GPUs, else measured.",
    )
    dataloader_num_workers: int = option(  # None only until it is initialised
        None,
        "Processes that read tiles, for each training process; 0 reads in the training process. Default: on a CPU 0, "
        "else a training process's share of the cores but one, 8 at most.",
    )
    dataloader_persistent_workers: bool = option(
        True, "Keep these processes from epoch to epoch, rather than start them anew."
    )
    logging_nan_inf_filter: bool = option(False, "Has no effect: a loss that is NaN or infinite stops the run.")
    given: dict[str, Any] = field(default_factory=dict, init=False, repr=False)  # as written, for `arguments.yaml`
    remove_unused_columns: bool = option(False, "The collator takes what it needs by name.")
    seed: int = option(42, "Seed of weights, order, flips and masks.")
    report_to: list[str] | None = option(  # noqa: RUF009  # type: ignore[assignment]
        None, "Trackers, one or several: tensorboard trackio wandb ...; none by default.", action="extend"
    )

    eyes_tiles: int = option(
        1000, "Tiles of eval_split on which retrieval is measured at each evaluation; 0 looks at nothing."
    )
    eyes_k: int = option(10, "Results per query of that retrieval.")
    eyes_pictures: int = option(6, "Tiles in the picture of reconstructions at each evaluation; 0 draws none.")
    eyes_every: int = option(1, "Look at every so many evaluations only.")
    eyes_encoder: str | None = option(
        None,
        "An encoder of yours, such as my_encoders:rgb_vit, whose retrieval on the same tiles stands beside the model's.",
    )

    def __post_init__(self) -> None:
        for name, least in (("eyes_tiles", 0), ("eyes_k", 1), ("eyes_pictures", 0), ("eyes_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {least}.")
        if self.max_steps == 0 or (self.max_steps < 0 and self.num_train_epochs <= 0):
            raise ValueError(
                f"Nothing to train: max_steps = {self.max_steps}, num_train_epochs = {self.num_train_epochs}. Give --max_steps or "
                "--num_train_epochs above 0."
            )
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        self.report_to = check_trackers(self.report_to)
        optim = _plain(self.optim)
        check_optimizer(optim, self.optim_args, _plain(self.save_strategy) != "no" and not self.save_only_model)
        self.optim = "adamw_torch" if is_own(optim) else optim  # Transformers refuses what it does not know
        self.lr_scheduler_type = choose_schedule(optim, self.lr_scheduler_type and _plain(self.lr_scheduler_type))
        if self.metric_for_best_model and self.greater_is_better is None:
            self.greater_is_better = not is_lower_better(self.metric_for_best_model)
        if isinstance(self.fsdp, str) and self.fsdp.lower() in ("true", "false"):  # as YAML and `--fsdp true` give it
            self.fsdp = self.fsdp.lower() == "true" or None  # type: ignore[assignment]
        if self.bf16 or self.fp16:  # Transformers' own options
            asked = "bf16" if self.bf16 else "fp16"
            if self.precision not in ("auto", asked):
                raise ValueError(f"precision = {self.precision!r} contradicts --{asked}: give one of them.")
            self.precision = asked
        device_type = default_device_type(self.use_cpu)
        self.precision = choose_precision(self.precision, device_type)
        self.bf16, self.fp16 = self.precision == "bf16", self.precision == "fp16"
        self.use_cpu = self.use_cpu or device_type == "cpu"  # else Transformers refuses bf16 there
        if self.dataloader_num_workers is None:
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
            self.dataloader_num_workers = 0 if device_type == "cpu" else loading_workers(default_workers(), processes)
        if not self.dataloader_num_workers:
            self.dataloader_persistent_workers = False  # torch refuses it
        if self.accelerator_config is None and device_type != "cpu":
            self.accelerator_config = {"non_blocking": self.dataloader_pin_memory}  # the host waits for no copy
        super().__post_init__()
        self.optim = optim if is_own(optim) else self.optim
        self.run_name = self.run_name or Path(str(self.output_dir)).resolve().name  # else trackers make one up
        if self.torch_compile:  # else a short last batch makes Accelerate's step one for any size, and slower
            os.environ.setdefault("ACCELERATE_DYNAMO_USE_DYNAMIC", "false")
        self.mixed_precision = "no" if self.precision == "fp32" else self.precision  # whatever the launcher said
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # there is nothing to pin memory for, and torch warns of it


def check_trackers(names: str | Sequence[str] | None) -> list[str]:
    """List the trackers asked for, each once.

    Raises:
        ValueError: If one is unknown or not installed, or `none` stands beside another.
    """
    words = [names] if isinstance(names, str) else names or ["none"]
    found = list(dict.fromkeys(name for word in words for name in word.replace(",", " ").split()))
    if set(found) & {"none", "all"}:
        if len(found) > 1:
            raise ValueError(f"report_to = {' '.join(found)}: none and all stand alone.")
        return found
    get_reporting_integration_callbacks(found)  # refuses what it does not know
    looked_for = (*get_available_reporting_integrations(), "flyte")  # the last is in no list of what is installed
    missing = [name for name in found if name not in looked_for]
    if missing:
        raise ValueError(
            f"report_to = {' '.join(found)}: {' and '.join(missing)} cannot be imported. `pip install {' '.join(missing)}`, or leave "
            "it out: trainer_state.json keeps all that a tracker would be told."
        )
    return found


def loading_workers(cores: int, processes: int) -> int:
    """How many processes (1 to 8) read tiles for each training process of a machine; each reads several thousand a second."""
    return min(8, max(1, cores // processes - 1))


LOWER_IS_BETTER = ("loss", "umr_", "cmr_", "mim", "mde", "uniformity_", "alignment_", "gap_")
"""How metrics begin of which the least is the best; Transformers knows it of `loss` only."""


def is_lower_better(metric: str) -> bool:
    """Say whether the best value of an evaluation metric, with or without its `eval_`, is the least."""
    return metric.removeprefix("eval_").startswith(LOWER_IS_BETTER) or metric.endswith("loss")


HELP_ALL = "--help_all"


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the description's lines, and says every default."""


Arguments = tuple[ModelArguments, DataArguments, CSMAETrainingArguments]


def parse_arguments(argv: Sequence[str], description: str | None = None) -> Arguments:
    """Parse a command line without the program's name: an optional YAML file, then `--name value` pairs that override it.

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
    else:  # hide what a newcomer need not read: most of the 150 arguments of the Trainer
        own = {"help", "max_steps", *CSMAETrainingArguments.__annotations__}
        own |= {entry.name for group in (ModelArguments, DataArguments) for entry in dataclasses.fields(group)}
        for action in parser._actions:
            if action.dest not in own:
                action.help = argparse.SUPPRESS
    if argv and not argv[0].startswith("-"):
        # a list on the command line takes the place of the file's, where argparse would join them
        overridden = {_option_name(word) for word in argv[1:] if word.startswith("--")}
        argv = [*yaml_to_argv(Path(argv[0]), known_names(), overridden), *argv[1:]]
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        word, following = unknown[0], " ".join(unknown[1:2])
        raise ValueError(unknown_name_message(_option_name(word), known_names(), word.partition("=")[2] or following))
    values = vars(namespace)
    model_args, data_args, training_args = (
        group(**{entry.name: values[entry.name] for entry in dataclasses.fields(group) if entry.init})
        for group in groups
    )
    model_args.model_overrides = parse_overrides(model_args.model_overrides)
    training_args.given = {name: value for name, value in values.items() if value != parser.get_default(name)}
    return model_args, data_args, training_args


def _option_name(word: str) -> str:
    return word.lstrip("-").partition("=")[0].replace("-", "_")


def resolved_arguments(
    model_args: ModelArguments, data_args: DataArguments, training_args: CSMAETrainingArguments
) -> dict[str, Any]:
    """Collect what a run was made with: this package's arguments all, the Trainer's others where they were given.

    Written as YAML they can be passed again. Where a choice was left to the machine, such as the precision, it is the one that
    was made; that a run was resumed is left out.
    """
    groups = (model_args, data_args)
    own: list[tuple[Any, str]] = [(group, entry.name) for group in groups for entry in dataclasses.fields(group)]
    own += [(training_args, name) for name in CSMAETrainingArguments.__annotations__ if name != "given"]
    resolved = dict(training_args.given)
    for group, name in own:
        resolved[name] = _plain(getattr(group, name))
    left_out = ("resume_from_checkpoint", "auto_resume", "overwrite")
    return {name: value for name, value in resolved.items() if value is not None and name not in left_out}


def _plain(value: Any) -> Any:
    """The value of an enumeration of Transformers; anything else as it is."""
    return value.value if isinstance(value, Enum) else value


def save_arguments(path: Path, resolved: dict[str, Any], changes: Changes = ()) -> None:
    """Write arguments as a YAML file that can be passed again, with the values that other steps were made with in its head."""
    text = yaml.safe_dump(resolved, sort_keys=False)
    head = "# What this run was made with, every choice resolved: pass this file to repeat it.\n"
    write_atomically(path, f"{head}{''.join(map(change_line, changes))}{text}")


def known_names() -> list[str]:
    """Names of all arguments."""
    groups = (ModelArguments, DataArguments, CSMAETrainingArguments)
    return [entry.name for group in groups for entry in dataclasses.fields(group) if entry.init]


def yaml_to_argv(path: Path, known: Sequence[str], overridden: Collection[str] = ()) -> list[str]:
    """Read a YAML file, a mapping of known argument names to values, as a command line, without empty values and those overridden.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no mapping, or names an unknown argument.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"No configuration file {path}: the first argument is a YAML file or an option (see --help)."
        )
    settings = read_yaml(path)
    argv = []
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"{path}: {unknown_name_message(str(name), known, value)}")
        if value in (None, []) or name in overridden:
            continue
        if value is False and name.endswith("_strategy"):
            value = "no"  # which YAML reads as false where it is not quoted
        words = (
            [json.dumps(value, default=str)]
            if isinstance(value, dict)
            else value
            if isinstance(value, list)
            else [value]
        )
        argv += [f"--{name}", *map(str, words)]
    return argv


def unknown_name_message(name: str, known: Sequence[str], value: Any = None) -> str:
    """Say that an argument is unknown, and which one may have been meant; of a field of the model, where it goes."""
    fields = [entry.name for entry in dataclasses.fields(CSMAEConfig)]
    near = difflib.get_close_matches(name, [*known, *fields], n=1)
    field_name = name if name in fields else near[0] if near and near[0] not in known else None
    if field_name is not None:
        typed = f", did you mean {field_name!r}? That" if field_name != name else ": it"
        try:
            shown = yaml.safe_load(value) if isinstance(value, str) and value else value
        except yaml.YAMLError:
            shown = value
        example = {field_name: "..." if shown in (None, "") else shown}
        return (
            f"Unknown argument {name!r}{typed} is a field of the model, and goes into model_overrides: in YAML `model_overrides: "
            f"{json.dumps(example, default=str)}`, on the command line `--model_overrides '{json.dumps(example, default=str)}'`."
        )
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
        except (json.JSONDecodeError, RecursionError) as error:
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
