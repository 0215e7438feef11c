"""The comparison of models made again from their `results.json` alone: nothing of this package is imported, only NumPy.

    python tests/table_again.py results/A/results.json results/B/results.json

Several trainings of one model are joined by commas: `A1,A2 B`. What it gives is compared with `tables/` by the tests.
"""

import json
import sys

import numpy as np

HEADLINES = ("precision", "recall", "f1_of_means", "mean_pair_f1")


def reported(means):
    """The four headline numbers of means over queries; numbers or arrays."""
    precision, recall = means["precision"], means["recall"]
    total = precision + recall
    f1 = np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)
    return {"precision": precision, "recall": recall, "f1_of_means": f1, "mean_pair_f1": means["mean_pair_f1"]}


def measured(training, direction, chosen):
    """The numbers of some queries of a training, and of each resample of these: of queries, or of the whole scenes of folds."""
    entry = training["directions"][direction]
    values = {name: np.array(entry["by_query"][name])[chosen] for name in HEADLINES if name in entry["by_query"]}
    scenes = scenes_of(training, direction, chosen) or list(range(len(chosen)))
    places = [[place for place, scene in enumerate(scenes) if scene == name] for name in dict.fromkeys(scenes)]
    sizes = np.array([len(each) for each in places])
    rng = np.random.default_rng(training["metadata"]["seed"])
    drawn = rng.integers(0, len(places), (training["metadata"]["resamples"], len(places)))
    once = reported({name: one.mean() for name, one in values.items()})
    sums = {name: np.array([one[each].sum() for each in places]) for name, one in values.items()}
    return once, reported({name: one[drawn].sum(axis=1) / sizes[drawn].sum(axis=1) for name, one in sums.items()})


def scenes_of(training, direction, chosen):
    """The scenes of some queries, where tiles were dealt into folds by them; else None."""
    queries = training["queries"][training["directions"][direction]["query_sensor"]]
    return [queries["scene"][place] for place in chosen] if "scene" in queries else None


def groups_of(training, direction):
    """The queries of each group, by its kind and value: all, and those of a class, country or season."""
    queries = training["queries"][training["directions"][direction]["query_sensor"]]
    count = len(queries["ids"])
    found = {("all", ""): list(range(count))}
    for kind, column in queries.items():
        if kind in ("ids", "scene"):
            continue
        for number, held in enumerate(column):
            for value in held if kind == "classes" else [held] if held else []:
                found.setdefault(("class" if kind == "classes" else kind, value), []).append(number)
    scenes = {name: scenes_of(training, direction, chosen) for name, chosen in found.items()}
    return {name: chosen for name, chosen in found.items() if scenes[name] is None or len(set(scenes[name])) > 1}


def table_again(*models):
    """What each model but the first scores more than the first: difference, its ends and the queries, by direction, group and metric.

    Each model is a list of trainings, what is in their `results.json`. Also the scores of the model itself, by direction and metric.
    """
    differences, scores = {}, {}
    first = models[0]
    for place, model in enumerate(models):
        for direction, entry in enumerate(first[0]["directions"]):
            name = f"{entry['query_sensor']} -> {entry['archive_sensor']}"
            queries = [training["queries"][entry["query_sensor"]]["ids"] for training in (*first, *model)]
            assert all(ids == queries[0] for ids in queries), "differences are paired: the same queries in one order"
            for (kind, value), chosen in groups_of(first[0], direction).items():
                one, other = ([measured(each, direction, chosen) for each in side] for side in (model, first))
                for metric in HEADLINES:
                    mine, theirs = (
                        [sum(part[which][metric] for part in side) / len(side) for which in (0, 1)]
                        for side in (one, other)
                    )
                    if kind == "all":
                        ends = np.quantile(mine[1], [0.025, 0.975])
                        scores[place, name, metric] = (float(mine[0]), *map(float, ends))
                    if place:
                        ends = np.quantile(mine[1] - theirs[1], [0.025, 0.975])
                        found = (float(mine[0] - theirs[0]), *map(float, ends), len(chosen))
                        differences[place, name, kind, value, metric] = found
    return differences, scores


def read(path):
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


if __name__ == "__main__":
    found, _ = table_again(*([read(path) for path in argument.split(",")] for argument in sys.argv[1:]))
    for (place, *names), (difference, lower, upper, queries) in found.items():
        line = [sys.argv[place + 1], *names, f"{difference:+.4f} [{lower:+.4f}, {upper:+.4f}] of {queries}"]
        sys.stdout.write("\t".join(line) + "\n")
