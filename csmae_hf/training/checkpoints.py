"""Checkpoints that are whole or not there: sealed when complete, checked before they are used."""

import json
import logging
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from csmae_hf.files import sync, write_atomically
from csmae_hf.training.errors import CheckpointError

logger = logging.getLogger(__name__)

SEAL_NAME = "complete.json"
"""File that a checkpoint gets last: what belongs to it, with sizes. Without it, saving was interrupted."""

_PREFIX = "checkpoint-"
_LEAST_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")
_STATE = {
    "optimizer": "the optimiser's state",
    "scheduler": "the schedule's state",
    "rng_state": "the random generators' state",
}


def seal_checkpoint(folder: Path, step: int) -> None:
    """Mark the checkpoint of a step as complete, after all of it has reached the disk."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(SEAL_NAME):
            sync(path)
            files[str(path.relative_to(folder))] = path.stat().st_size
    sync(folder)
    write_atomically(folder / SEAL_NAME, json.dumps({"step": step, "files": files}, indent=1))


def checkpoint_problem(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, if anything; without a seal, such as another program's, it always is."""
    seal = folder / SEAL_NAME
    if not seal.is_file():
        return f"it has no {SEAL_NAME}: saving it was interrupted"
    try:
        files: dict[str, int] = json.loads(seal.read_text())["files"]
    except (ValueError, KeyError, TypeError):
        return f"its {SEAL_NAME} cannot be read"
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes where {size} were saved"
    return None


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
    complete = [folder for folder in _checkpoints(output_dir) if (folder / SEAL_NAME).is_file()]
    if keep is None or keep < 1 or not complete:
        return
    spare = len(complete) - keep
    protected = {complete[-1].name, Path(best).name if best else ""}
    for folder in complete:
        if spare > 0 and folder.name not in protected:
            (folder / SEAL_NAME).unlink()  # first, so that a kill leaves nothing that looks complete
            shutil.rmtree(folder, ignore_errors=True)
            spare -= 1


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
