"""Which of several models are trainings of one, and which are to be compared: as their own records of their training say."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from csmae_hf.embedding.without_paths import public_name

ARGUMENTS_NAME = "arguments.yaml"
"""File of a training's folder with every argument, defaults included."""

_PREFIXES = ("logging_", "save_", "hub_", "dataloader_", "push_to_hub")
_MAY_DIFFER = frozenset(
    {
        "output_dir",
        "run_name",
        "resume_from_checkpoint",
        "auto_resume",
        "overwrite",
        "disable_tqdm",
        "report_to",
        "data_seed",
        "eyes_encoder",
    }
)
"""Arguments in which trainings of one model may differ beside their seed: they do not change what is learnt."""

_CHANGED = "# Until step "

Changes = Sequence[tuple[int, Mapping[str, Any]]]
"""Arguments that were changed when a training was resumed: until which step, and the values until then."""


def change_line(change: tuple[int, Mapping[str, Any]]) -> str:
    """Write one of [`Changes`] as a line in the head of a record."""
    values = json.dumps(dict(change[1]), default=str)
    return f"{_CHANGED}{change[0]}: {values}\n"


def read_changes(path: Path | None) -> Changes:
    """Read the changes from the head of a record, the earliest first; none where there is no record."""
    if path is None or not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        step, _, values = line.removeprefix(_CHANGED).partition(": ")
        if line.startswith(_CHANGED) and step.isdecimal():
            found.append((int(step), json.loads(values)))
    return found


def learning_changes(path: Path) -> Changes:
    """Those changes of a record that change what is learnt."""
    kept = [
        (step, {name: value for name, value in values.items() if _matters(name)}) for step, values in read_changes(path)
    ]
    return [(step, values) for step, values in kept if values]


def group_trainings(models: Sequence[str]) -> dict[str, list[str]]:
    """Group models by what they are: those whose recorded arguments differ in the seed, and nothing else that matters, are one.

    Args:
        models: Folders or Hub names. What has no record, or a record without a seed, is a model of its own.

    Returns:
        The models of each group, by a name for it, that of its first.
    """
    groups: list[tuple[dict[str, Any] | None, list[str], list[Any]]] = []
    for name in models:
        record = _read(Path(name) / ARGUMENTS_NAME)
        seed = record.pop("seed", None)
        settings = record if seed is not None else None
        for known, members, seeds in groups:
            if settings is not None and known == settings and seed not in seeds:
                members.append(name)
                seeds.append(seed)
                break
        else:
            groups.append((settings, [name], [seed]))
    return {_name_of(members): members for _, members, _ in groups}


def training_remarks(model: str, splits: Sequence[str | None], data: str | None) -> list[str]:
    """Say where a model's own record says that it has seen the tiles it is measured on, or was chosen by them.

    Args:
        model: Folder or Hub name.
        splits: Of queries and archive; None for all tiles.
        data: Their data. A training on data of another name is no matter of these.

    Returns:
        Sentences; none where nothing speaks against it.
    """
    record = _read(Path(model) / ARGUMENTS_NAME)
    if not record or public_name(str(record.get("data"))) != public_name(str(data)):
        return []
    remarks = []

    def meet(split: Any) -> bool:
        return split is not None and (split == "all" or split in splits or None in splits)

    trained_on = record.get("train_split", "train")
    if meet(trained_on):
        remarks.append(f"{model} was pre-trained on tiles that are measured here (split {trained_on}).")
    if record.get("load_best_model_at_end") and meet(record.get("eval_split")):
        metric = record.get("metric_for_best_model") or "loss"
        remarks.append(
            f"{model} is the best of its run by {metric} on the split {record['eval_split']}, which is measured here: what it scores "
            "there flatters it."
        )
    return remarks


def _read(path: Path) -> dict[str, Any]:
    """The arguments that matter; none where there is no record, or none that can be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    if not isinstance(content, Mapping):
        return {}
    kept = {name: value for name, value in content.items() if _matters(str(name))}
    changes = learning_changes(path)
    return {**kept, _CHANGED: changes} if changes else kept


def _matters(name: str) -> bool:
    return name not in _MAY_DIFFER and not name.startswith(_PREFIXES)


def _name_of(members: Sequence[str]) -> str:
    """A name for trainings of one model."""
    return members[0] if len(members) == 1 else f"{members[0]} and {len(members) - 1} more"
