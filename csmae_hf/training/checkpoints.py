"""Checkpoints that are whole or not there: sealed when complete, checked before they are used."""

import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from csmae_hf.files import TEMPORARY, sync, write_atomically
from csmae_hf.training.errors import CheckpointError

logger = logging.getLogger(__name__)

SEAL_NAME = "complete.json"
"""File that a checkpoint gets last: what belongs to it, with sizes and checksums. Without it, saving was interrupted."""

FINISHED_NAME = "finished.json"
"""File that a run's folder gets last: what its final save has left, as a checkpoint's seal says it."""

_PREFIX = "checkpoint-"
_LEAST_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")
_STATE = {
    "optimizer": "the optimiser's state",
    "scheduler": "the schedule's state",
    "rng_state": "the random generators' state",
}


def seal_checkpoint(folder: Path, step: int) -> None:
    """Mark the checkpoint of a step as complete, after all of it has reached the disk."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(SEAL_NAME))
    _seal(folder, SEAL_NAME, paths, {"step": step})


def checkpoint_problem(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, if anything; without a seal, such as another program's, it always is.

    Every byte of it is read.
    """
    if not (folder / SEAL_NAME).is_file():
        return f"it has no {SEAL_NAME}: saving it was interrupted"
    seal = _read_seal(folder / SEAL_NAME, {"step"})
    if seal is None or f"{_PREFIX}{seal['step']}" != folder.name:
        return f"its {SEAL_NAME} is damaged"
    return _problem(folder, seal["files"])


def seal_finished(output_dir: Path, names: Iterable[str], step: int) -> None:
    """Mark a run as finished after a step: all of these files are its final save's, and have reached the disk."""
    last = next(reversed(_sealed(output_dir)), None)
    paths = (output_dir / name for name in sorted(names))
    _seal(output_dir, FINISHED_NAME, paths, {"step": step, "checkpoint": last.name if last else None})


def is_finished(output_dir: Path, checkpoint: Path, steps: int) -> bool:
    """Say whether a run has made so many steps and its final save, and this checkpoint is the last that it kept.

    Files that were changed or taken away since then are named in a warning: they are their owner's.
    """
    seal = _read_seal(output_dir / FINISHED_NAME, {"step", "checkpoint"})
    if seal is None or seal["step"] < steps or seal["checkpoint"] != checkpoint.name:
        return False
    if checkpoint.resolve().parent != output_dir.resolve():
        return False
    problem = _problem(output_dir, seal["files"])
    if problem:
        logger.warning(
            "%s is not as it was when the run finished: %s. It is left as it is; to make the final save again from %s, delete "
            "%s and repeat this command.",
            output_dir,
            problem,
            checkpoint.name,
            FINISHED_NAME,
        )
    return True


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was saved."""
    return int(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])


def refuse_without_state(folder: Path) -> None:
    """Refuse to go on from a checkpoint that has not all of the training's state; Transformers would begin it anew in silence.

    Raises:
        CheckpointError: If any of it is missing.
    """
    names = [path.name for path in folder.iterdir()]
    if any(name.startswith("global_step") for name in names):  # DeepSpeed keeps optimiser and schedule there
        return
    missing = [said for begin, said in _STATE.items() if not any(name.startswith(begin) for name in names)]
    if not missing:
        return
    what = (
        "the model alone, as --save_only_model saves it," if len(missing) == len(_STATE) else "not all of a training,"
    )
    raise CheckpointError(
        f"Cannot resume from {folder}: it holds {what} without {' and '.join(missing)}. Begin a new run from its weights: "
        f"--model_name_or_path {folder}, another --output_dir, and neither --resume_from_checkpoint nor --auto_resume. To be able to "
        "resume, leave out --save_only_model."
    )


def last_checkpoint(output_dir: Path) -> Path | None:
    """Find the last complete checkpoint of a run, if any; warn of later ones that are not."""
    for folder in reversed(_checkpoints(output_dir)):
        problem = checkpoint_problem(folder)
        if problem is None:
            return folder
        logger.warning("Passing over %s: %s.", folder, problem)
    return None


def resolve_resume(output_dir: Path, requested: str | None, auto: bool) -> Path | None:
    """Find the checkpoint to go on from; None for a new run.

    `requested` is `last`, the path of a checkpoint, or None; `auto` goes on from the last complete one where there is one.

    Raises:
        FileNotFoundError: If there is no such checkpoint, or no complete one.
        FileExistsError: If a new run would mix its checkpoints with those of an earlier one.
        CheckpointError: If the checkpoint is not whole, or holds the model alone.
    """
    folder = _find_resume(output_dir, requested, auto)
    if folder is not None:
        refuse_without_state(folder)
    return folder


def _find_resume(output_dir: Path, requested: str | None, auto: bool) -> Path | None:
    if requested is not None and requested.lower() in ("last", "true"):
        found = last_checkpoint(output_dir)
        if found is None:
            raise FileNotFoundError(
                f"{output_dir} has no complete checkpoint to resume from: leave out --resume_from_checkpoint to begin, or "
                "use --auto_resume, which begins where there is none."
            )
        return found
    if requested is not None and requested.lower() not in ("none", "false"):
        folder = Path(requested)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"No checkpoint {folder}: give a folder {_PREFIX}N, or 'last' for the last of the run."
            )
        if (folder / SEAL_NAME).is_file():
            problem = checkpoint_problem(folder)
        else:  # another program's has no seal, so its files are looked at
            refuse_without_state(folder)
            problem = next(filter(None, (_file_problem(folder / name) for name in _LEAST_FILES)), None)
        if problem:
            raise CheckpointError(f"Cannot resume from {folder}: {problem}. 'last' finds the last one that is whole.")
        return folder
    found = last_checkpoint(output_dir)
    if found is not None and not auto:
        raise FileExistsError(
            f"{output_dir} has checkpoints of an earlier run, {found.name} the last: go on with "
            "--resume_from_checkpoint last or --auto_resume, or choose another --output_dir."
        )
    return found


def prune_checkpoints(output_dir: Path, keep: int | None, best: str | None) -> None:
    """Delete the oldest complete checkpoints but for so many (None or less than 1: all) and the best one.

    What is not complete does not count, and is nobody's spare.
    """
    complete = _sealed(output_dir)
    if keep is None or keep < 1 or not complete:
        return
    for left in output_dir.glob(f"{TEMPORARY}{_PREFIX}*"):  # by a process that was killed here
        shutil.rmtree(left, ignore_errors=True)
    spare = len(complete) - keep
    protected = {complete[-1].name, Path(best).name if best else ""}
    for folder in complete:
        if spare > 0 and folder.name not in protected:
            aside = folder.rename(output_dir / f"{TEMPORARY}{folder.name}")  # a kill leaves no half of a checkpoint
            shutil.rmtree(aside, ignore_errors=True)
            spare -= 1


def find_best(checkpoint: Path, output_dir: Path) -> Path | None:
    """Find the best checkpoint so far, as the state of one that is gone on from names it; None where none was judged.

    Raises:
        CheckpointError: If it is not there any more, wherever the run was moved to, or not whole.
    """
    recorded = json.loads((checkpoint / "trainer_state.json").read_text()).get("best_model_checkpoint")
    if not recorded:
        return None
    name = Path(recorded).name
    places = (output_dir / name, checkpoint.parent / name, Path(recorded))
    best = next((place for place in places if place.is_dir()), None)
    problem = "it is not there" if best is None else checkpoint_problem(best)
    if best is None or problem:
        raise CheckpointError(
            f"Cannot load the best model at the end: it is that of {best or places[0]} by {checkpoint.name}, and {problem}. Put it "
            "back, or go on with --load_best_model_at_end false, which ends with the last model."
        )
    return best


def describe_failed_save(folder: Path, error: Exception) -> str:
    """Say that a checkpoint could not be saved, what is left, and what to do."""
    free = shutil.disk_usage(folder.parent).free
    last = last_checkpoint(folder.parent)
    left = f"The last complete checkpoint is {last}" if last else "No checkpoint is complete yet"
    return (
        f"Saving {folder} failed: {error} ({free / 2**20:,.0f} MiB are free there now that it is deleted). {left}. Make "
        "room, or save elsewhere, and go on with --auto_resume."
    )


def _file_problem(path: Path) -> str | None:
    """Say what is wrong with one file of a checkpoint, by what it is."""
    if not path.is_file():
        return f"{path.name} is missing"
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                return None
        if path.suffix == ".json":
            json.loads(path.read_text())
            return None
    except (SafetensorError, ValueError) as error:
        return f"{path.name} cannot be read ({error})"
    return None if zipfile.is_zipfile(path) else f"{path.name} is cut short"


def _checkpoints(output_dir: Path) -> list[Path]:
    """All checkpoint folders of a run, the earliest first."""
    folders = [path for path in output_dir.glob(f"{_PREFIX}*") if path.is_dir()]
    numbers = {path: number for path in folders if (number := path.name.removeprefix(_PREFIX)).isdecimal()}
    return sorted(numbers, key=lambda path: int(numbers[path]))


def _sealed(output_dir: Path) -> list[Path]:
    """Those that were complete when they were saved."""
    return [folder for folder in _checkpoints(output_dir) if (folder / SEAL_NAME).is_file()]


def _seal(folder: Path, name: str, paths: Iterable[Path], facts: Mapping[str, Any]) -> None:
    """Write a seal over files that have reached the disk, with a checksum of its own."""
    files = {}
    for path in paths:
        sync(path)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _hash_file(path)}
    sync(folder)
    write_atomically(folder / name, _seal_text({**facts, "files": files}))


def _read_seal(path: Path, facts: set[str]) -> dict[str, Any] | None:
    """A seal's content; None where there is none, or not as it was written."""
    try:
        text = path.read_text(encoding="utf-8")
        content: dict[str, Any] = json.loads(text)
        del content["sha256"]
        return content if _seal_text(content) == text and facts <= content.keys() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _problem(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Say which file of a seal is not as it was."""
    for name, file in files.items():  # before anything is read
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != file["size"]:
            return f"{name} has {path.stat().st_size} bytes where {file['size']} were saved"
    for name, file in files.items():
        if _hash_file(folder / name) != file["sha256"]:
            return f"{name} is damaged: its checksum is not the one that was saved"
    return None


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _seal_text(content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1)
