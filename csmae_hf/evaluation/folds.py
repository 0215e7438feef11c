"""Every tile a query once, and never beside tiles of its own scene: evaluation of small sets by folds over scenes.

Tiles of one scene share its light, season and noise: with tiles of a scene among queries and archive every encoder looks better than
it is elsewhere. Here whole scenes are dealt into folds; the tiles of a fold are queries, those of all other folds the archive that
they search. With as many folds as scenes that is leave-one-scene-out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from csmae_hf.data.metadata import acquisition_time
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval, group_scores
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.metrics.bootstrap import bootstrap_scores, intervals
from csmae_hf.metrics.labels import IntArray
from csmae_hf.metrics.random_baseline import RandomBaseline
from csmae_hf.metrics.ranking import METRICS, mean_scores, reported

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

SCENE = "scene"
"""Column of a dataset that names the scene of each tile; also the word for one fold a scene."""

SAME_PASS = timedelta(minutes=30)
"""Images of one satellite with less between them are of one pass; its next comes after 100 minutes."""

_IMAGE_IDS = ("id", "s1_id")
_CELL = re.compile(r"_\d{1,3}_\d{1,3}$")  # of a tile in its product, in BigEarthNet's names


@dataclass(frozen=True)
class Folds:
    """How tiles are dealt.

    Attributes:
        count: Folds; None for one a scene.
        repeats: How often they are dealt anew; a query's scores are the mean over them.
    """

    count: int | None
    repeats: int = 1

    @classmethod
    def parse(cls, text: str) -> "Folds":
        """Read `5`, `5x3` (five folds, dealt three times) or `scene`. ValueError for anything else."""
        if text == SCENE:
            return cls(None)
        found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
        folds = cls(int(found[1]), int(found[2] or 1)) if found else cls(0)
        if (folds.count or 0) < 2 or folds.repeats < 1:
            raise ValueError(
                f"folds={text!r}: expected a number from 2 on (--folds 5), such a number and how often to deal (--folds 5x3), or "
                f"{SCENE!r} for one fold a scene (--folds {SCENE})."
            )
        return folds


def scenes_of(dataset: "Dataset") -> list[str]:
    """The scene of each tile: column `scene` where there is one, else the satellites' pass by the names of its images.

    ValueError where neither says.
    """
    if SCENE in dataset.column_names:
        named = dataset.with_format(None)[SCENE][:]
        if any(value is None for value in named):
            raise ValueError(
                f"{sum(value is None for value in named)} of {len(named)} tiles have no {SCENE}: name it of all."
            )
        return [str(value) for value in named]
    plain = dataset.with_format(None)
    return scenes_of_passes(
        list(zip(*(plain[name][:] for name in _IMAGE_IDS if name in plain.column_names), strict=True))
    )


def scenes_of_passes(names: Sequence[Sequence[str | None]]) -> list[str]:
    """The scene of tiles, (N,): tiles of which images, of either sensor, were taken in one pass of a satellite are of one scene.

    Products of one pass begin seconds apart and lie side by side, so that a product is no scene of its own.

    Args:
        names: Of the images of each tile; the first must say when it was taken, the others are left out where they do not.

    Returns:
        The name of a product of the scene, the first in alphabetical order.

    Raises:
        ValueError: If the name of an image does not say when it was taken.
    """
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while name in joined:
            name = joined[name]
        return name

    def join(first: str, second: str) -> None:
        first, second = sorted((root(first), root(second)))
        if first != second:
            joined[second] = first

    products = [[_CELL.sub("", str(name)) for name in tile if name is not None] for tile in names]
    firsts = {tile[0] for tile in products if tile}
    by_satellite: dict[str, list[tuple[datetime, str]]] = {}
    for name in sorted({name for tile in products for name in tile}):
        time = acquisition_time(name)
        if time is not None:
            by_satellite.setdefault(name[:3], []).append((time, name))
        elif name in firsts:
            raise ValueError(
                f"The scene of tile {name!r} is not known: its name does not say when it was taken, and the data have no column "
                f"{SCENE}. Add one (dataset.add_column({SCENE!r}, ...), or a column of the table of tiles)."
            )
    for images in by_satellite.values():
        for (time, name), (next_time, next_name) in pairwise(sorted(images)):
            if next_time - time < SAME_PASS:
                join(name, next_name)
    timed = {name for images in by_satellite.values() for _, name in images}
    for tile in set(map(tuple, products)):
        for name in tile[1:]:
            if name in timed:
                join(tile[0], name)
    return [root(tile[0]) for tile in products]


def deal_scenes(scenes: Sequence[str], count: int | None, seed: int) -> IntArray:
    """(N,) fold of each tile: whole scenes, dealt by chance, the largest first, each to the fold with the fewest tiles.

    Args:
        scenes: Of each tile.
        count: Folds; None for one a scene.
        seed: Of the order of scenes of one size.

    Raises:
        ValueError: There are fewer scenes than folds, or one scene only.
    """
    names, numbers, sizes = np.unique(
        np.asarray(scenes, dtype=object).astype(str), return_inverse=True, return_counts=True
    )
    folds = len(names) if count is None else count
    if len(names) < max(folds, 2):
        raise ValueError(
            f"{len(scenes)} tiles of {len(names)} scenes cannot be dealt into {max(folds, 2)} folds, for no scene is "
            "divided: take fewer folds."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    held = np.zeros(folds, dtype=np.int64)
    fold_of = np.empty(len(names), dtype=np.int64)
    for scene in order:
        fold_of[scene] = held.argmin()
        held[fold_of[scene]] += sizes[scene]
    dealt: IntArray = fold_of[numbers]
    return dealt


def evaluate_folds(
    embeds: Mapping[str, Embedded],
    scenes: Sequence[str],
    folds: Folds,
    *,
    directions: Sequence[tuple[str, str]] | None = None,
    k: int = 10,
    resamples: int = 0,
    seed: int = 0,
    device: str | None = None,
) -> list[DirectionResult]:
    """Measure retrieval in every direction by folds over scenes: every labelled tile is a query once, its scene is not searched.

    Args:
        embeds: The same tiles by sensor, in the same order.
        scenes: Of each tile.
        folds: How many, and how often they are dealt.
        directions: Pairs of sensors to measure, of queries and archive; default all.
        k: Results per query.
        resamples: Resamples of the queries for confidence intervals; 0 makes none. Whole scenes are drawn: queries of one scene are no
            independent draws, and intervals over queries would be too narrow.
        seed: Of the dealing, the baseline and the resamples.
        device: Where the search runs; default the CPU.

    Returns:
        One result a direction. Its scores are means over all queries; what is measured over an archive (hubness, R-precision, random
        order) is the mean over folds; `n_archive` is that of the smallest; rankings are of the first dealing.

    Raises:
        ValueError: As of `deal_scenes` and `evaluate_retrieval`.
    """
    dealings = []
    for repeat in range(folds.repeats):
        dealt = deal_scenes(scenes, folds.count, seed + repeat)
        parts = []
        for fold in range(int(dealt.max()) + 1):
            if not any(one.labels[dealt == fold].any() for one in embeds.values()):
                continue  # it has no query
            sides = np.where(dealt == fold, "query", "archive").tolist()
            split = {sensor: replace(one, splits=sides) for sensor, one in embeds.items()}
            measure = partial(
                evaluate_retrieval, split, directions=directions, k=k, seed=seed, device=device, progress=False
            )
            parts.append(measure(query_split="query", archive_split="archive"))
        dealings.append(parts)
    said = f"{len(dealings[0])} folds over {len(set(scenes))} scenes"
    said += f", dealt {folds.repeats} times" if folds.repeats > 1 else ""
    bootstrap = partial(bootstrap_scores, resamples=resamples, seed=seed) if resamples else None
    results = []
    for place, first in enumerate(dealings[0][0]):
        dealt_parts = [[part[place] for part in parts] for parts in dealings]
        every = [part for parts in dealt_parts for part in parts]
        rows, ranking, similarities = (
            _in_order(dealt_parts[0], name) for name in ("query_rows", "ranking", "similarities")
        )
        by_query = {
            name: np.mean([_in_order(parts, "by_query", name) for parts in dealt_parts], axis=0)
            for name in first.by_query
        }
        chance = {
            name: np.mean(
                [_by_row(parts, [part.random.by_query[name] for part in parts]) for parts in dealt_parts], axis=0
            )
            for name in first.random.by_query
        }
        query = embeds[first.query_sensor]
        own_scenes = tuple(scenes[row] for row in rows)
        results.append(
            replace(
                first,
                folds=said,
                query_split=None,
                archive_split=None,
                n_queries=len(rows),
                n_archive=min(part.n_archive for part in every),
                unlabelled_queries=sum(part.unlabelled_queries for part in dealt_parts[0]),
                unlabelled_archive=max(part.unlabelled_archive for part in every),
                irrelevant_queries=sum(part.irrelevant_queries for part in dealt_parts[0]),
                scores=mean_scores(by_query),
                random=_joined_baseline(every, folds.repeats),
                query_rows=rows,
                ranking=ranking,
                similarities=similarities,
                by_query=by_query,
                r_precision=float(_mean(every, [part.r_precision for part in every])),
                r_precision_queries=sum(part.r_precision_queries for part in dealt_parts[0]),
                hubness_skewness=float(_mean(every, [part.hubness_skewness for part in every])),
                hubness_largest=max(part.hubness_largest for part in every),
                hubness_never=float(_mean(every, [part.hubness_never for part in every])),
                intervals=intervals(bootstrap(by_query, clusters=own_scenes)) if bootstrap else {},
                over_k=_joined_cuts(every),
                groups=group_scores(query, rows, by_query, chance, bootstrap, _class_precisions(every), own_scenes),
                scenes=own_scenes,
            )
        )
    return results


def _in_order(parts: Sequence[DirectionResult], name: str, metric: str | None = None) -> Any:
    """An array of the queries of all folds of one dealing, in the order of their rows."""
    return _by_row(parts, [getattr(part, name) if metric is None else getattr(part, name)[metric] for part in parts])


def _by_row(parts: Sequence[DirectionResult], arrays: Sequence[Any]) -> Any:
    """Arrays of the queries of each fold, joined in the order of their rows."""
    return np.concatenate(arrays)[np.argsort(np.concatenate([part.query_rows for part in parts]))]


def _mean(parts: Sequence[DirectionResult], values: Sequence[Any]) -> Any:
    """The mean of values of folds, each weighted by its queries."""
    weights = [part.n_queries for part in parts]
    return np.average(np.array(values, dtype=np.float64), axis=0, weights=weights)


def _joined_cuts(parts: Sequence[DirectionResult]) -> dict[str, list[float]]:
    """(k,) of each metric that is known at every cut, over all queries."""
    pairs = [name for name in parts[0].over_k if METRICS[name].of == "pairs"]
    means = reported({name: _mean(parts, [part.over_k[name] for part in parts]) for name in pairs})
    return {name: np.asarray(values).tolist() for name, values in means.items()}


def _joined_baseline(parts: Sequence[DirectionResult], repeats: int) -> RandomBaseline:
    """The random order of all folds: means over queries, and how far the mean of all scatters by chance."""
    randoms = [part.random for part in parts]
    shares = np.array([part.n_queries for part in parts]) / sum(part.n_queries for part in parts)

    def means(dicts: Sequence[Mapping[str, float]]) -> dict[str, float]:
        averaged = {
            name: _mean(parts, [one[name] for one in dicts]) for name in dicts[0] if METRICS[name].of != "means"
        }
        return {name: float(value) for name, value in reported(averaged).items()}

    # of one dealing: the queries of its folds are different, their orders independent
    spread = {
        name: float(np.sqrt(repeats * np.sum((shares * [one.std[name] for one in randoms]) ** 2)))
        for name in randoms[0].std
    }
    return RandomBaseline(
        means([one.mean for one in randoms]), spread, means([one.expected for one in randoms]), randoms[0].draws
    )


def _class_precisions(parts: Sequence[DirectionResult]) -> dict[str, float]:
    """By class, the share of results that have it among queries that have it, in all folds."""
    found: dict[str, list[tuple[float, int]]] = {}
    for part in parts:
        for name, group in part.groups["class"].items():
            found.setdefault(name, []).append((group.class_precision or 0.0, group.n_queries))
    return {
        name: sum(share * count for share, count in some) / sum(count for _, count in some)
        for name, some in found.items()
    }
