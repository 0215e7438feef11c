"""Which alignment of the sensors to use: fitted and chosen on training pairs alone, shown before and after.

The choice between methods is cross-fitted: each fold of the training tiles is searched by itself, with the alignment fitted on the
others. So neither queries nor archive of what is reported had a part in it, whatever their splits are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.data.evenly import evenly
from csmae_hf.embedding.alignment import METHODS, Alignment, check_method
from csmae_hf.embedding.diagnostics import sensor_gap, spread
from csmae_hf.evaluation.comparison import paired
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.folds import deal_scenes
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.evaluation.tables import RANDOM_ORDER, Table
from csmae_hf.metrics.labels import IntArray

AUTO = "auto"

CHOICE_TILES = 4096
"""The most labelled training tiles, evenly spread, by which alignments are compared."""

CHOICE_FOLDS = 5
"""Folds of them: each is searched with what was fitted on the others."""


@dataclass(frozen=True)
class AlignmentChoice:
    """The alignments that were fitted, and the one that is used."""

    method: str  # the one that is used
    reason: str  # why, in a sentence
    alignments: Mapping[str, Alignment]  # by method
    # F1 of means on training tiles that had no part in the fit, mean over folds, directions across sensors and, where several
    # trainings share the choice, trainings; by method. Empty where nothing was compared.
    cross_fitted: Mapping[str, float] = field(default_factory=dict)
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
    trainings: Sequence[Mapping[str, Embedded]],
    methods: Sequence[str],
    *,
    pairs: int = CHOICE_TILES,
    k: int = 10,
    device: str | None = None,
    scenes: Sequence[str] | None = None,
) -> list[AlignmentChoice]:
    """Fit alignments on training pairs, and take the one that retrieves best on training tiles that it was not fitted on.

    Several trainings of one model get one method, so that a mean over them is of one protocol; each is fitted on its own embeds.

    Args:
        trainings: Of each training, the embeds of the same training tiles by sensor.
        methods: To fit; of one nothing is chosen.
        pairs: The most training pairs to fit on, evenly spread.
        k: Results per query in the comparison.
        device: Where the search of the comparison runs.
        scenes: Of each training tile. Given them, no alignment is compared on a scene that it was fitted on: one that fits the light
            and season of its own scenes looks better there than on others.

    Returns:
        A choice for each training, all of one method: that with the highest F1 of means, mean over the directions from one sensor
        to another; of equals the simplest.

    Raises:
        ValueError: The pairs cannot be fitted on, or fewer than 4 have labels to choose by.
    """
    fitted = [{method: _fit(train, method, pairs) for method in methods} for train in trainings]
    gaps = [
        {method: _mean_gap(train, alignment, pairs) for method, alignment in alignments.items()}
        for train, alignments in zip(trainings, fitted, strict=True)
    ]
    method, reason, scores = methods[0], "it was asked for", {}
    if len(methods) > 1:
        found = [cross_fitted_scores(train, methods, k=k, device=device, scenes=scenes) for train in trainings]
        scores = {method: float(np.mean([one[method] for one in found])) for method in methods}
        method = max(methods, key=lambda name: scores[name])
        count = _choice_rows(trainings[0]).size
        reason = f"it has the highest cross-fitted F1 across sensors on {count} training tiles: {scores[method]:.4f}"
        reason += "" if scenes is None else ", on scenes it was not fitted on"
        if method != "none" and "none" in scores:
            reason += f", {scores[method] - scores['none']:+.4f} over none"
        if len(trainings) > 1:
            reason += f" (mean of {len(trainings)} trainings)"
    return [AlignmentChoice(method, reason, one, scores, of_one) for one, of_one in zip(fitted, gaps, strict=True)]


def cross_fitted_scores(
    train: Mapping[str, Embedded],
    methods: Sequence[str],
    *,
    k: int = 10,
    device: str | None = None,
    scenes: Sequence[str] | None = None,
) -> dict[str, float]:
    """F1 of means of each method on tiles that it was not fitted on, mean over folds and over the directions across sensors.

    Every tile of a fold is query and archive at once, its own place left out. Arguments and errors are as of `choose_alignment`.
    """
    rows = _choice_rows(train)
    if rows.size < 4:
        raise ValueError(f"{rows.size} training pairs have labels: alignments cannot be compared on fewer than 4.")
    dealt = (
        np.random.default_rng(0).permutation(rows.size) % min(CHOICE_FOLDS, rows.size // 2)
        if scenes is None
        else _deal_choice_scenes([scenes[row] for row in rows], k)
    )
    smallest = int(np.bincount(dealt).min())
    scores: dict[str, list[float]] = {method: [] for method in methods}
    for fold in range(int(dealt.max()) + 1):
        held = {sensor: one.take(rows[dealt == fold]) for sensor, one in train.items()}
        others = {sensor: one.take(rows[dealt != fold]) for sensor, one in train.items()}
        for method in methods:
            results = evaluate_retrieval(
                apply_alignment(_fit(others, method), held),
                k=min(k, smallest - 1),
                query_split=None,
                archive_split=None,
                draws=2,
                device=device,
                progress=False,
            )
            across = [one.scores["f1_of_means"] for one in results if one.query_sensor != one.archive_sensor]
            scores[method].append(float(np.mean(across)))
    return {method: float(np.mean(values)) for method, values in scores.items()}


def _deal_choice_scenes(scenes: Sequence[str], k: int) -> IntArray:
    """(N,) fold of each tile, of whole scenes: so many folds that each has twice as many tiles as results, but two at least.

    In a fold hardly larger than k every ranking finds the same tiles, and no method is better than another.
    """
    for count in range(min(CHOICE_FOLDS, len(set(scenes))), 2, -1):
        dealt = deal_scenes(scenes, count, seed=0)
        if np.bincount(dealt).min() >= 2 * k:
            return dealt
    return deal_scenes(scenes, 2, seed=0)


def _choice_rows(train: Mapping[str, Embedded]) -> IntArray:
    """Rows of the labelled training tiles by which alignments are compared."""
    labelled = np.flatnonzero(next(iter(train.values())).labels.any(axis=1))
    chosen: IntArray = labelled[evenly(len(labelled), CHOICE_TILES)]
    return chosen


def _fit(train: Mapping[str, Embedded], method: str, pairs: int | None = None) -> Alignment:
    """Fit on so many pairs, evenly spread; on all of them, for a comparison only, without a word."""
    count = len(next(iter(train.values())).ids)
    rows = evenly(count, pairs or count)
    return Alignment.fit({sensor: one.embeds[rows] for sensor, one in train.items()}, method, quiet=pairs is None)


def _mean_gap(train: Mapping[str, Embedded], alignment: Alignment, pairs: int) -> float:
    rows = evenly(len(next(iter(train.values())).ids), pairs)
    aligned = [alignment.apply(one.embeds[rows], sensor) for sensor, one in train.items()]
    return float(np.mean([relative_gap(first, second) for first, second in combinations(aligned, 2)]))


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


ByMethod = Mapping[str, Sequence[DirectionResult]]
"""The directions under each alignment that was fitted."""


def alignments_table(
    choice: AlignmentChoice, by_method: ByMethod, untrained: tuple[AlignmentChoice, ByMethod] | None = None
) -> Table:
    """What each alignment gives: gap, cross-fitted F1, F1 of each direction; the one that is used is marked `*`, and why.

    An alignment alone raises the scores of random weights too: below stand those of the `untrained` model, and a random order's.
    """
    first = next(iter(by_method.values()))
    header = ["model", "alignment", "gap", "cross-fitted F1", *(f"{result.name} F1@{result.k}" for result in first)]
    rows, records = [], []
    models = {"trained": (choice, by_method), **({"untrained": untrained} if untrained is not None else {})}
    for model, (chosen, methods) in models.items():
        for method, results in methods.items():
            gap, fitted, used = chosen.gaps.get(method), chosen.cross_fitted.get(method), method == chosen.method
            cells = ["-" if value is None else f"{value:.4f}" for value in (gap, fitted)]
            cells += [f"{result.scores['f1_of_means']:.4f}" for result in results]
            rows.append([model if method == next(iter(methods)) else "", method + (" *" if used else ""), *cells])
            record = {"model": model, "alignment": method, "used": used, "gap": gap, "cross_fitted_f1_of_means": fitted}
            records.append(record | {result.name: result.scores["f1_of_means"] for result in results})
    chance = {result.name: result.random.mean["f1_of_means"] for result in first}
    rows.append([RANDOM_ORDER, "", "", "", *(f"{value:.4f}" for value in chance.values())])
    records.append({"model": RANDOM_ORDER, **chance})
    return Table(header, rows, records, names=2, notes=[f"Alignment {choice.method} is used: {choice.reason}."])


def alignment_as_dict(
    choice: AlignmentChoice, by_method: Mapping[str, Sequence[DirectionResult]], *, resamples: int, seed: int
) -> dict[str, Any]:
    """The choice as JSON types: method, reason, pairs, gaps, validation, F1 by method and direction, and the gain of each direction
    over none with its interval, unless there are 0 `resamples`."""
    gains = {}
    if choice.method != "none" and "none" in by_method and resamples:
        for before, after in zip(by_method["none"], by_method[choice.method], strict=True):
            both = [before.by_query], [after.by_query]
            interval = paired(*both, resamples=resamples, seed=seed, clusters=before.scenes)["f1_of_means"]
            gain = after.scores["f1_of_means"] - before.scores["f1_of_means"]
            gains[after.name] = {"gain": gain, "interval": interval}
    return {
        "method": choice.method,
        "reason": choice.reason,
        "n_pairs": max(alignment.n_pairs for alignment in choice.alignments.values()),
        "gap": dict(choice.gaps),
        "cross_fitted_f1_of_means": dict(choice.cross_fitted),
        "f1_of_means": {
            method: {result.name: result.scores["f1_of_means"] for result in results}
            for method, results in by_method.items()
        },
        "gain_over_none": gains,
    }
