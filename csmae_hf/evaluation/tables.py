"""Evaluations as plain-text tables: the directions of one, and several trainings with their mean and spread (`summary.json`)."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csmae_hf.evaluation.results import DirectionResult, check_results
from csmae_hf.files import write_atomically
from csmae_hf.metrics.ranking import METRICS, headlines

Runs = Mapping[str, Sequence[DirectionResult]]


def align_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, numbers to the right, a rule under the header."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for first, *rest in [header, *rows]:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def column_names(k: int) -> dict[str, str]:
    """The heading of each of `METRICS` at k results."""
    return {name: metric.column.format(k=k) for name, metric in METRICS.items()}


def format_table(results: Sequence[DirectionResult]) -> str:
    """Lay results out as a plain-text table for a terminal, with the random-order baseline below the rows it belongs to.

    Args:
        results: Directions of one evaluation.

    Returns:
        Several lines, columns aligned: the table, then what was measured and how.

    Raises:
        ValueError: No results.
    """
    check_results(results)
    header = ["query -> archive", "queries", "archive", *column_names(results[0].k).values()]
    rows = []
    for place, result in enumerate(results):
        numbers = [f"{result.scores[metric]:.4f}" for metric in METRICS]
        rows.append([result.name, str(result.n_queries), str(result.n_archive), *numbers])
        if place + 1 == len(results) or results[place + 1].random != result.random:
            random = result.random
            spread = [f"{random.mean[metric]:.4f} ±{random.std[metric]:.4f}" for metric in METRICS]
            rows.append(["random order", "", "", *spread])
    return "\n".join([*align_table(header, rows), "", *notes(results)])


def notes(results: Sequence[DirectionResult]) -> list[str]:
    """Sentences that say what was measured, and what was left out."""
    first = results[0]
    lines = [
        f"Queries: {_in_words(first.query_split)}; archive: {_in_words(first.archive_split)}; k = {first.k}; "
        "cosine of pooled features, exact search.",
        f"random order: mean ±standard deviation of {first.random.draws} random rankings on the same labels.",
    ]
    if any(result.exclude_self for result in results):
        excluded = sorted({result.self_excluded for result in results})
        count = str(excluded[0]) if len(excluded) == 1 else f"{excluded[0]} to {excluded[-1]}"
        lines.append(
            f"A query's own tile is left out of its ranking, across sensors too ({count} queries have theirs in the archive)."
        )
    queries = max(result.unlabelled_queries for result in results)
    archive = max(result.unlabelled_archive for result in results)
    if queries or archive:
        lines.append(
            f"Left out because they have no labels: {queries} queries, {archive} archive tiles (the most in any direction)."
        )
    irrelevant = max(result.irrelevant_queries for result in results)
    if irrelevant:
        lines.append(
            f"{irrelevant} queries share no label with any archive tile and score 0 (the most in any direction)."
        )
    return lines


def _in_words(split: str | None) -> str:
    return "all tiles" if split is None else f"split {split}"


def summarize(runs: Runs) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and spread of each metric over trainings that differ in their seed only: by direction (`"s1 -> s2"`) and metric.

    `spread` is the sample standard deviation, 0 for one run; `random` the mean of random orders on the same labels.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for direction in zip(*runs.values(), strict=True):
        of_direction = summary[direction[0].name] = {}
        for metric in METRICS:
            values = np.array([result.scores[metric] for result in direction])
            spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            random = direction[0].random.mean[metric]
            of_direction[metric] = {"mean": float(values.mean()), "spread": spread, "random": random}
    return summary


def format_summary(runs: Runs, untrained: Sequence[DirectionResult] | None = None) -> str:
    """Lay out mean and spread over runs as a plain-text table, beside a random order and an untrained model."""
    k = next(iter(runs.values()))[0].k
    columns = column_names(k)
    header = ["query -> archive", *(columns[name] for name in headlines()), f"F1@{k} untrained", f"F1@{k} random"]
    rows = []
    for place, (name, metrics) in enumerate(summarize(runs).items()):
        cells = [f"{metrics[metric]['mean']:.4f}" for metric in headlines()]
        if len(runs) > 1:
            spreads = [metrics[metric]["spread"] for metric in headlines()]
            cells = [f"{cell} ±{spread:.4f}" for cell, spread in zip(cells, spreads, strict=True)]
        blank = f"{untrained[place].scores['f1_of_means']:.4f}" if untrained is not None else "-"
        rows.append([name, *cells, blank, f"{metrics['f1_of_means']['random']:.4f}"])
    note = ["", f"±: standard deviation over {len(runs)} trainings."] if len(runs) > 1 else []
    return "\n".join([*align_table(header, rows), *note])


def write_summary(
    runs: Runs, folder: str | os.PathLike[str], untrained: Sequence[DirectionResult] | None = None
) -> Path:
    """Write mean and spread over runs, and an untrained model, as `summary.json`, whole or not at all."""
    content: dict[str, Any] = {"runs": list(runs), "directions": summarize(runs)}
    if untrained is not None:
        content["untrained"] = [result.as_dict() for result in untrained]
    path = Path(folder) / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=2) + "\n")
    return path
