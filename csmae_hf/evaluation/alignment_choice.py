"""Which alignment of the sensors to use: fitted on training pairs, chosen on validation tiles, shown before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.data.evenly import evenly
from csmae_hf.embedding.alignment import METHODS, Alignment, check_method
from csmae_hf.embedding.diagnostics import sensor_gap, spread
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.evaluation.tables import align_table
from csmae_hf.metrics.bootstrap import Interval, bootstrap_scores, intervals

AUTO = "auto"
VALIDATION_TILES = 4096
"""The most tiles, evenly spread, by which alignments are compared."""


@dataclass(frozen=True)
class AlignmentChoice:
    """The alignments that were fitted, and the one that is used."""

    method: str  # the one that is used
    reason: str  # why, in a sentence
    alignments: Mapping[str, Alignment]  # by method
    # F1 of means on validation tiles, mean over directions across sensors, by method; empty where nothing was compared.
    validation: Mapping[str, float] = field(default_factory=dict)
    # `relative_gap` of the training pairs, mean over pairs of sensors, by method.
    gaps: Mapping[str, float] = field(default_factory=dict)

    @property
    def alignment(self) -> Alignment:
        """The one that is used."""
        return self.alignments[self.method]


def parse_methods(value: str) -> tuple[str, ...]:
    """Methods named with commas between, each once; `auto` is all of them. ValueError for an unknown one."""
    methods = METHODS if value == AUTO else tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for method in methods:
        check_method(method)
    return methods


def choose_alignment(
    pairs: Mapping[str, NDArray[Any]],
    validation: Mapping[str, Embedded],
    methods: Sequence[str],
    *,
    k: int = 10,
    device: str | None = None,
) -> AlignmentChoice:
    """Fit alignments on training pairs, (N, D) embeds by sensor, and take the one that retrieves best on validation tiles.

    Every validation tile is query and archive at once, its own place left out. The one that wins has the highest F1 of means, mean
    over the directions from one sensor to another; of equals the simplest. Archive tiles of the evaluation are not looked at.
    ValueError where the pairs cannot be fitted on, or no validation tile has labels.
    """
    alignments = {method: Alignment.fit(pairs, method) for method in methods}
    gaps = {}
    for method, alignment in alignments.items():
        aligned = [alignment.apply(values, sensor) for sensor, values in pairs.items()]
        gaps[method] = float(np.mean([relative_gap(first, second) for first, second in combinations(aligned, 2)]))
    if len(methods) == 1:
        return AlignmentChoice(methods[0], "it was asked for", alignments, gaps=gaps)
    some = {}
    for sensor, one in validation.items():
        labelled = np.flatnonzero(one.labels.any(axis=1))
        some[sensor] = one.take(labelled[evenly(len(labelled), VALIDATION_TILES)])
    cut = min(k, min(len(embedded.ids) for embedded in some.values()) - 1)
    scores = {}
    for method, alignment in alignments.items():
        results = evaluate_retrieval(
            apply_alignment(alignment, some),
            k=cut,
            query_split=None,
            archive_split=None,
            draws=2,
            device=device,
            progress=False,
        )
        across = [one.scores["f1_of_means"] for one in results if one.query_sensor != one.archive_sensor]
        scores[method] = float(np.mean(across))
    best = max(methods, key=lambda method: scores[method])
    count = max(len(one.ids) for one in some.values())
    reason = f"it has the highest F1@{cut} across sensors on {count} validation tiles: {scores[best]:.4f}"
    if best != "none" and "none" in scores:
        reason += f", {scores[best] - scores['none']:+.4f} over none"
    return AlignmentChoice(best, reason, alignments, scores, gaps)


def apply_alignment(alignment: Alignment, embeds: Mapping[str, Embedded]) -> dict[str, Embedded]:
    """Embedded tiles by sensor with the embeds of every sensor mapped; all else stays."""
    return {sensor: replace(one, embeds=alignment.apply(one.embeds, sensor)) for sensor, one in embeds.items()}


def relative_gap(embeds: NDArray[Any], other_embeds: NDArray[Any]) -> float:
    """Gap between two sensors' embeds (N, D) and (M, D), in units of the scatter within them.

    The distance of the means of the unit-length embeds, over the root mean square distance of embeds to their sensor's mean. The
    plain distance (`diagnostics.sensor_gap`) cannot be compared across alignments: centred embeds fill the sphere, which makes every
    distance larger.
    """
    scatter = np.sqrt((spread(embeds) + spread(other_embeds)) / 2)
    return float(sensor_gap(embeds, other_embeds) / scatter) if scatter > 0 else 0.0


def difference(before: DirectionResult, after: DirectionResult, *, resamples: int, seed: int) -> dict[str, Interval]:
    """Intervals of after - before for each of `METRICS`, by the paired bootstrap: two systems on the same queries."""
    first, second = (bootstrap_scores(one.by_query, resamples=resamples, seed=seed) for one in (before, after))
    return intervals({name: second[name] - first[name] for name in first})


def format_alignments(choice: AlignmentChoice, by_method: Mapping[str, Sequence[DirectionResult]]) -> str:
    """Lay out what each alignment gives: gap, F1 on validation, F1 of each direction; which one is used and why."""
    header, rows = alignment_rows(choice, by_method)
    return "\n".join([*align_table(header, rows), "", f"Alignment {choice.method} is used: {choice.reason}."])


def alignment_rows(
    choice: AlignmentChoice, by_method: Mapping[str, Sequence[DirectionResult]]
) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of alignments; the one that is used is marked `*`."""
    first = next(iter(by_method.values()))
    header = ["alignment", "gap", "validation F1", *(f"{result.name} F1@{result.k}" for result in first)]
    rows = []
    for method, results in by_method.items():
        cells = [f"{choice.gaps[method]:.4f}" if method in choice.gaps else "-"]
        cells.append(f"{choice.validation[method]:.4f}" if method in choice.validation else "-")
        cells += [f"{result.scores['f1_of_means']:.4f}" for result in results]
        rows.append([method + (" *" if method == choice.method else ""), *cells])
    return header, rows


def alignment_as_dict(
    choice: AlignmentChoice, by_method: Mapping[str, Sequence[DirectionResult]], *, resamples: int, seed: int
) -> dict[str, Any]:
    """The choice as JSON types: method, reason, pairs, gaps, validation, F1 by method and direction, and the gain of each direction
    over none with its interval, unless there are 0 `resamples`."""
    gains = {}
    if choice.method != "none" and "none" in by_method and resamples:
        for before, after in zip(by_method["none"], by_method[choice.method], strict=True):
            interval = difference(before, after, resamples=resamples, seed=seed)["f1_of_means"]
            gain = after.scores["f1_of_means"] - before.scores["f1_of_means"]
            gains[after.name] = {"gain": gain, "interval": interval}
    return {
        "method": choice.method,
        "reason": choice.reason,
        "n_pairs": max(alignment.n_pairs for alignment in choice.alignments.values()),
        "gap": dict(choice.gaps),
        "validation_f1_of_means": dict(choice.validation),
        "f1_of_means": {
            method: {result.name: result.scores["f1_of_means"] for result in results}
            for method, results in by_method.items()
        },
        "gain_over_none": gains,
    }
