"""Models side by side on the same queries: differences with intervals, overall and by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csmae_hf.evaluation.evaluate import Embedded, group_members
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.metrics.bootstrap import Interval, bootstrap_scores, intervals
from csmae_hf.metrics.labels import BoolArray
from csmae_hf.metrics.ranking import Scores, headlines, mean_scores

Trainings = Sequence[Mapping[str, DirectionResult]]
"""The trainings of one model: of each the directions by name."""

ALL = "all"
"""What the group of all queries is called."""


@dataclass(frozen=True)
class Difference:
    """What a model scores more than another on the same queries; several trainings count by their mean."""

    model: str
    other: str  # what it is compared with
    direction: str
    group: str  # `all`, `class`, `country` or `season`
    value: str  # of the group; empty of all
    metric: str
    n_queries: int
    score: float  # of the model
    other_score: float
    difference: float  # the first less the second
    interval: Interval  # 95 %, paired bootstrap over queries, or over whole scenes of folds


def compare(
    trainings: Mapping[str, Trainings], embeds: Mapping[str, Embedded], *, resamples: int, seed: int
) -> list[Difference]:
    """Compare each model with the first, in every direction that both have: `headlines` of all queries, F1 of means by class.

    Args:
        trainings: The directions of each training, by the name of its model.
        embeds: The tiles by sensor, for the labels of the queries.
        resamples: Of the queries; the same for both models, so that their differences are paired.
        seed: Of the resamples.

    Raises:
        ValueError: Two models were measured on different queries.
    """
    (first_name, first), *others = trainings.items()
    differences = []
    for name, own in others:
        for direction in (direction for direction in first[0] if direction in own[0]):
            before, after = first[0][direction], own[0][direction]
            if not np.array_equal(before.query_rows, after.query_rows):
                raise ValueError(
                    f"{first_name} and {name} were measured on different queries ({direction}): no difference is paired."
                )
            members = group_members(embeds[before.query_sensor], before.query_rows)
            groups: list[tuple[str, str, BoolArray]] = [(ALL, "", np.ones(len(before.query_rows), np.bool_))]
            groups += [(group, value, which) for group, some in members.items() for value, which in some.items()]
            for group, value, which in groups:
                chosen = [
                    [{metric: values[which] for metric, values in one[direction].by_query.items()} for one in model]
                    for model in (first, own)
                ]
                scenes = (
                    None if before.scenes is None else [before.scenes[row] for row in np.flatnonzero(which).tolist()]
                )
                if scenes is not None and len(set(scenes)) < 2:
                    continue  # whole scenes are resampled: of one scene nothing is known of others
                found = paired(*chosen, resamples=resamples, seed=seed, clusters=scenes)
                other, mine = (_means([mean_scores(one) for one in model]) for model in chosen)
                differences += [
                    Difference(
                        model=name,
                        other=first_name,
                        direction=direction,
                        group=group,
                        value=value,
                        metric=metric,
                        n_queries=int(which.sum()),
                        score=mine[metric],
                        other_score=other[metric],
                        difference=mine[metric] - other[metric],
                        interval=found[metric],
                    )
                    for metric in (headlines() if group == ALL else ["f1_of_means"])
                ]
    return differences


def paired(
    before: Sequence[Scores],
    after: Sequence[Scores],
    *,
    resamples: int,
    seed: int,
    clusters: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Intervals of after - before for each reported number, by the paired bootstrap: two systems on the same queries.

    Args:
        before: Scores of the queries by each training of one system.
        after: Of the other. Several trainings count by the mean of their reported numbers on each resample.
        resamples: Of the queries.
        seed: Of the resamples.
        clusters: (Q,) scene of each query, where whole scenes are to be resampled.
    """
    first, second = (
        _means([bootstrap_scores(one, resamples=resamples, seed=seed, clusters=clusters) for one in system])
        for system in (before, after)
    )
    return intervals({name: second[name] - first[name] for name in first})


def _means(numbers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: sum(one[name] for one in numbers) / len(numbers) for name in numbers[0]}


def differences_as_dicts(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Differences as JSON types."""
    return [{**vars(one), "interval": list(one.interval)} for one in differences]
