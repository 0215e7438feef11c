"""Several evaluations as one table: what is common to trainings that differ in their seed only, and how far they spread."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csmae_hf.evaluation.results import DirectionResult, align_table
from csmae_hf.files import write_atomically
from csmae_hf.metrics.scores import METRICS

Runs = Mapping[str, Sequence[DirectionResult]]


def summarize(runs: Runs) -> dict[str, dict[str, dict[str, float]]]:
    """Take mean and spread of each metric over runs.

    Args:
        runs: Directions of each run, by its name; all of the same evaluation.

    Returns:
        By direction (`"s1 -> s2"`) and metric: `mean`, `spread` (sample standard deviation over the runs, 0 for one run) and
        `random` (mean of random orders on the same labels).
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for direction in zip(*runs.values(), strict=True):
        name = f"{direction[0].query_sensor} -> {direction[0].archive_sensor}"
        summary[name] = {}
        for metric in METRICS:
            values = np.array([getattr(result, metric) for result in direction])
            spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            random = float(getattr(direction[0].random.mean, metric))
            summary[name][metric] = {"mean": float(values.mean()), "spread": spread, "random": random}
    return summary


def format_summary(runs: Runs, untrained: Sequence[DirectionResult] | None = None) -> str:
    """Lay out mean and spread over runs as a plain-text table, beside a random order and an untrained model.

    Args:
        runs: As of [`summarize`].
        untrained: The same evaluation of a model with random weights.

    Returns:
        The lines of the table.
    """
    summary = summarize(runs)
    k = next(iter(runs.values()))[0].k
    header = [
        "query -> archive",
        f"P@{k}",
        f"R@{k}",
        f"F1@{k} of means",
        f"mean pair F1@{k}",
        f"F1@{k} untrained",
        f"F1@{k} random",
    ]
    rows = []
    for place, (name, metrics) in enumerate(summary.items()):
        cells = [_with_spread(metrics[metric], len(runs)) for metric in METRICS]
        blank = f"{untrained[place].f1_of_means:.4f}" if untrained is not None else "-"
        rows.append([name, *cells, blank, f"{metrics['f1_of_means']['random']:.4f}"])
    note = ["", f"±: standard deviation over {len(runs)} trainings."] if len(runs) > 1 else []
    return "\n".join([*align_table(header, rows), *note])


def write_summary(
    runs: Runs, folder: str | os.PathLike[str], untrained: Sequence[DirectionResult] | None = None
) -> Path:
    """Write the summary of several runs as `summary.json`, whole or not at all.

    Args:
        runs: As of [`summarize`].
        folder: Where to write.
        untrained: As of [`format_summary`].

    Returns:
        The path of the file.
    """
    content: dict[str, Any] = {"runs": list(runs), "directions": summarize(runs)}
    if untrained is not None:
        content["untrained"] = [result.as_dict() for result in untrained]
    path = Path(folder) / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=2) + "\n")
    return path


def _with_spread(value: Mapping[str, float], count: int) -> str:
    return f"{value['mean']:.4f} ±{value['spread']:.4f}" if count > 1 else f"{value['mean']:.4f}"
