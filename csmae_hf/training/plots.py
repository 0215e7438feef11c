"""Curves of a run as pictures, from its `trainer_state.json` alone: while it trains, at its end, and any time after."""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from csmae_hf.charts import Curve, curves
from csmae_hf.files import refuse_existing
from csmae_hf.visualize import is_own_picture, save_figure

logger = logging.getLogger(__name__)

STATE_NAME = "trainer_state.json"
PLOTS_FOLDER = "plots"

FORMATS = ("png", "svg", "pdf")

_TERMS = {
    "umr_": "{0} from itself",
    "cmr_": "{1} from {0}",
    "mim": "MIM, between sensors",
    "mde": "MDE, between sensors",
}
"""Terms of the loss by the beginning of their name, in words; `cmr_s1_s2` is S2 reconstructed from S1."""


def find_state(run: str | os.PathLike[str]) -> Path:
    """The newest state of a run: of its output folder or one of its checkpoints the one most steps ahead, or the file that is named.

    FileNotFoundError where there is none.
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
    """Steps and values of everything that a run logged more than as a sum at its end, by name.

    Of a step that was logged twice, as after a resumption, the last counts. ValueError where the file is no state of the Trainer.
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


def plot_run(
    run: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    file_format: str = "png",
    overwrite: bool = False,
) -> list[Path]:
    """Draw the curves of a run.

    Args:
        run: As of [`find_state`].
        output: Folder of the pictures; default `plots` beside the state's run.
        file_format: One of `FORMATS`; those but `png` stay sharp at any size.
        overwrite: Whether files are replaced that were not drawn here; earlier curves are in any case.

    Returns:
        The pictures: losses in training and in evaluation, learning rate, retrieval, effective rank, and distances of embeds; of each
        only what the run logged.

    Raises:
        FileNotFoundError: If the run has no state.
        FileExistsError: If a file lies where a picture goes, and was not drawn here.
        ValueError: If it has logged nothing yet.
        ImportError: If matplotlib is missing.
    """
    state = find_state(run)
    folder = Path(output) if output is not None else (Path(run) if Path(run).is_dir() else state.parent) / PLOTS_FOLDER
    paths = []
    for name, title, y_label, drawn in _charts(read_curves(state)):
        if drawn:
            log = y_label == "loss" and all(value > 0 for _, values in drawn.values() for value in values)
            figure = curves({title: drawn}, x_label="step", y_label=y_label, log=log)
            path = folder / f"{name}.{file_format}"
            if not is_own_picture(path):
                refuse_existing(path, overwrite=overwrite)
            paths.append(save_figure(figure, path))
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


def _charts(logged: Mapping[str, Curve]) -> Iterable[tuple[str, str, str, dict[str, Curve]]]:
    """File, title, name of the values, and curves of every chart."""
    looks = {name.removeprefix("eval_"): curve for name, curve in logged.items() if name.startswith("eval_")}
    yield "losses", "Training losses", "loss", _losses(logged)
    yield "eval_losses", "Validation losses", "loss", _losses(looks)
    rate = {"learning rate": logged["learning_rate"]} if "learning_rate" in logged else {}
    yield "learning_rate", "Learning rate", "learning rate", rate
    retrieval = _begin_with(looks, "f1_of_means_", " → ")
    summary = {
        "f1_of_means": "mean of all",
        "encoder_f1_of_means": "mean of all, the encoder beside",
        "random_f1_of_means": "random order",
    }
    retrieval |= {label: looks[name] for name, label in summary.items() if name in looks}
    yield "retrieval", "Retrieval on a part of the validation split", "F1 of mean P and R", retrieval
    ranks = _begin_with(looks, "effective_rank_")
    yield "effective_rank", "Directions that embeds vary along", "effective rank", ranks
    distances: dict[str, Curve] = {}
    for kind in ("spread", "alignment", "gap"):
        found = _begin_with(looks, f"{kind}_", ", ")
        distances |= {f"{kind} {sensors}": curve for sensors, curve in found.items()}
    yield "distances", "How far apart embeds lie", "distance", distances


def _losses(logged: Mapping[str, Curve]) -> dict[str, Curve]:
    """The loss and its terms, in the same order in every chart."""
    drawn = {"total": logged["loss"]} if "loss" in logged else {}
    for kind, words in _TERMS.items():
        for name in sorted(name for name in logged if name.startswith(kind)):
            rest = name.removeprefix(kind).upper()
            sensors = [rest] if kind == "umr_" else rest.split("_")
            drawn[words.format(*sensors) if len(sensors) <= 2 else name] = logged[
                name
            ]  # sensors may have a _ in their names
    return drawn


def _begin_with(looks: Mapping[str, Curve], kind: str, between: str = "") -> dict[str, Curve]:
    """The curves of a kind, by their sensors."""
    return {
        between.join(name.removeprefix(kind).upper().split("_")): curve
        for name, curve in looks.items()
        if name.startswith(kind)
    }


def _read(path: Path) -> dict[str, Any]:
    """A state's content; a file that is being written counts as one without."""
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError:
        return {}
    return content if isinstance(content, dict) else {}
