"""Curves of a run as pictures, from its `trainer_state.json` alone: while it trains, at its end, and any time after."""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from csmae_hf.visualize import draw_curves

logger = logging.getLogger(__name__)

STATE_NAME = "trainer_state.json"
PLOTS_FOLDER = "plots"

Curve = tuple[list[float], list[float]]

_TERMS = ("umr_", "cmr_", "mim", "mde")


def find_state(run: str | os.PathLike[str]) -> Path:
    """Find the newest state of a run.

    Args:
        run: The run's output folder, one of its checkpoints, or a `trainer_state.json` itself.

    Returns:
        Of the state in the folder and those in its checkpoints, the one that is most steps ahead.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(run)
    if path.is_file():
        return path
    states = [*path.glob(STATE_NAME), *path.glob(f"checkpoint-*/{STATE_NAME}")]
    steps = {state: step for state in states if (step := _read(state).get("global_step")) is not None}
    if not steps:
        raise FileNotFoundError(
            f"No {STATE_NAME} in {path} or its checkpoints: name the output_dir of a run that has saved one already."
        )
    return max(steps, key=lambda state: steps[state])


def read_curves(state: str | os.PathLike[str]) -> dict[str, Curve]:
    """Read everything that a run logged more than as a sum at its end.

    Args:
        state: A `trainer_state.json`.

    Returns:
        Steps and values by name; of a step that was logged twice, as after a resumption, the last.

    Raises:
        ValueError: If the file is no state of the Trainer.
    """
    content = _read(Path(state))
    if not isinstance(content.get("log_history"), list):
        raise ValueError(f"{state} has no log_history: expected the {STATE_NAME} that the Trainer writes.")
    values: dict[str, dict[float, float]] = {}
    for entry in content["log_history"]:
        for name, value in entry.items():
            if name not in ("step", "epoch") and not name.startswith("train_") and isinstance(value, int | float):
                values.setdefault(name, {})[entry["step"]] = float(value)
    return {name: (list(points), list(points.values())) for name, points in values.items()}


def plot_run(run: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> list[Path]:
    """Draw the curves of a run.

    Args:
        run: As of [`find_state`].
        output: Folder of the pictures; default `plots` beside the state's run.

    Returns:
        The pictures: losses in training and in evaluation, learning rate, retrieval, effective rank, and distances of embeds; of each
        only what the run logged.

    Raises:
        FileNotFoundError: If the run has no state.
        ValueError: If it has logged nothing yet.
        ImportError: If matplotlib is missing.
    """
    state = find_state(run)
    folder = Path(output) if output is not None else (Path(run) if Path(run).is_dir() else state.parent) / PLOTS_FOLDER
    curves = read_curves(state)
    paths = []
    for name, title, y_label, chosen in _charts(curves):
        if chosen:
            log = y_label == "loss" and all(value > 0 for _, values in chosen.values() for value in values)
            paths.append(draw_curves(chosen, folder / f"{name}.png", title=title, y_label=y_label, log=log))
    if not paths:
        raise ValueError(f"{state} has logged nothing to draw yet: wait for logging_steps, or make it smaller.")
    return paths


def plot_finished_run(run: str | os.PathLike[str]) -> None:
    """Draw the curves of a run that has just ended; what hinders it is said, and does no harm to the run."""
    try:
        paths = plot_run(run)
    except (ImportError, ValueError, OSError) as error:
        logger.warning("No curves were drawn. %s", error)
        return
    logger.info("Curves: %s", ", ".join(str(path) for path in paths))


def _charts(curves: Mapping[str, Curve]) -> Iterable[tuple[str, str, str, dict[str, Curve]]]:
    """File, title, name of the values, and curves of every chart."""
    yield "losses", "Training losses", "loss", _losses(curves, "")
    yield "eval_losses", "Validation losses", "loss", _losses(curves, "eval_")
    rate = {name: curves[name] for name in ("learning_rate",) if name in curves}
    yield "learning_rate", "Learning rate", "learning rate", rate
    named = {
        name.removeprefix("eval_"): curve for name, curve in curves.items() if name.startswith("eval_") and curve[0]
    }
    directions = {
        _direction(name.removeprefix("f1_of_means_")): curve
        for name, curve in named.items()
        if name.startswith("f1_of_means_")
    }
    summary = {"f1_of_means": "mean of all", "random_f1_of_means": "random order"}
    retrieval = {**directions, **{label: named[name] for name, label in summary.items() if name in named}}
    yield "retrieval", "Retrieval on a part of the validation split", "F1 of mean P and R", retrieval
    ranks = {name.rpartition("_")[2]: named[name] for name in named if name.startswith("effective_rank_")}
    yield "effective_rank", "Directions that embeds vary along", "effective rank", ranks
    distances = {name: named[name] for name in named if name.startswith(("spread_", "gap_", "alignment_"))}
    yield (
        "distances",
        "How far apart embeds lie",
        "distance",
        {name.replace("_", " ", 1): distances[name] for name in distances},
    )


def _losses(curves: Mapping[str, Curve], prefix: str) -> dict[str, Curve]:
    """The loss and its terms, in the same order in every chart."""
    names = [name.removeprefix(prefix) for name in curves if name.startswith(prefix)]
    terms = [name for kind in _TERMS for name in sorted(names) if name.startswith(kind)]
    total = {"total": curves[f"{prefix}loss"]} if "loss" in names else {}
    return total | {name: curves[f"{prefix}{name}"] for name in terms}


def _direction(pair: str) -> str:
    return " → ".join(pair.split("_"))


def _read(path: Path) -> dict[str, Any]:
    """A state's content; a file that is being written counts as one without."""
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}
