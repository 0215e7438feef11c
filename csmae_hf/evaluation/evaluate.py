"""Retrieval of every sensor by every sensor, measured: the protocol.

Protocol (`method.md`, "Evaluation"): queries are one split, the archive another (validation and test unless told otherwise);
pooled features, cosine similarity, exact search, the first k results. A tile without labels is neither query nor archive, and is
counted. Where a query's own tile lies in the archive (small archives: both are all tiles) it is left out of that query's ranking,
across sensors too, because the same place seen by the other sensor has the query's labels by construction. How well the place itself
would have been found is a number of its own, `colocated_recall`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.data.evenly import evenly
from csmae_hf.data.labels import class_names, labels_of
from csmae_hf.evaluation.results import DirectionResult, Group
from csmae_hf.metrics.bootstrap import bootstrap_scores, intervals
from csmae_hf.metrics.labels import BoolArray, FloatArray, IntArray, PackedLabels, multi_hot
from csmae_hf.metrics.random_baseline import RandomBaseline, random_baseline
from csmae_hf.metrics.ranking import Scores, mean_scores, scores_by_query, scores_over_k
from csmae_hf.metrics.whole_archive import colocated_ranks, hubness, r_precision, relevance_counts
from csmae_hf.search.nearest import top_k, unit_vectors

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

QUERY_SPLIT = "validation"
ARCHIVE_SPLIT = "test"

GROUPS = ("country", "season")
"""Columns of a dataset by whose values scores are reported apart, as of the queries."""

WHOLE_RANKING_PAIRS = 20_000_000
"""The most pairs of query and tile of which the whole ranking is made, for R-precision: beyond it, of some of the queries only."""

_WHOLE_RANKING_CHUNK = 1 << 22


@dataclass(frozen=True)
class Embedded:
    """The embeds of one sensor, with what the evaluation needs to know of each tile."""

    embeds: NDArray[np.float32]  # (N, D) pooled features
    ids: Sequence[str]  # N names, each once; the same tile has the same name under every sensor
    labels: BoolArray  # (N, C) multi-hot; an empty row is a tile whose labels are not known
    splits: Sequence[str | None] | None = None  # N names, None where unknown; or None if there are no splits
    # N values of each, None where unknown, such as `country`: scores are reported apart by them.
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    class_names: Sequence[str] | None = None  # C names; None numbers the classes

    def __post_init__(self) -> None:
        counts = {"embeds": len(self.embeds), "ids": len(self.ids), "labels": len(self.labels)}
        if self.splits is not None:
            counts["splits"] = len(self.splits)
        counts |= {name: len(values) for name, values in self.groups.items()}
        if len(set(counts.values())) != 1:
            described = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"Embedded got {described}; expected one of each for every tile, in the same order.")
        repeated = [name for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{len(repeated)} tile ids occur more than once (first: {repeated[0]}); a duplicate would be retrieved as a hit of "
                "itself. Keep one row of each."
            )

    @property
    def classes(self) -> Sequence[str]:
        """Names of the C classes, or their numbers where they have none."""
        return self.class_names or [str(number) for number in range(self.labels.shape[1])]

    def take(self, rows: Sequence[int] | IntArray) -> "Embedded":
        """Some of the tiles."""
        splits = None if self.splits is None else [self.splits[row] for row in rows]
        groups = {name: [values[row] for row in rows] for name, values in self.groups.items()}
        ids = [self.ids[row] for row in rows]
        chosen = np.asarray(rows, dtype=np.int64)
        return Embedded(self.embeds[chosen], ids, self.labels[chosen], splits, groups, self.class_names)

    @classmethod
    def from_dataset(cls, embeds: NDArray[np.float32], dataset: "Dataset") -> "Embedded":
        """Join (N, D) embeds, as `embed_dataset` returns them, with the metadata of the dataset they were made of. No pixels are read.

        The dataset has the columns `id`, `labels` (a sequence of ClassLabel, or one) and, if any, `split` and `GROUPS`.
        ValueError where one is missing, or the numbers of rows differ.
        """
        missing = {"id", "labels"} - set(dataset.column_names)
        if missing:
            raise ValueError(
                f"The dataset has no column {' and no column '.join(sorted(missing))}; retrieval is measured by tile ids and labels. "
                f"Its columns are {', '.join(dataset.column_names)}."
            )
        names = class_names(dataset.features["labels"])
        if names is None:
            raise ValueError(
                f"Column labels is {dataset.features['labels']}; expected a sequence of ClassLabel, or one, which names the classes."
            )
        columns = [name for name in ("id", "split", *GROUPS) if name in dataset.column_names]
        table = dataset.with_format(None).select_columns(columns)[:]
        groups = {name: table[name] for name in GROUPS if any(value is not None for value in table.get(name, ()))}
        labels = multi_hot(labels_of(dataset), len(names))
        return cls(np.asarray(embeds), table["id"], labels, table.get("split"), groups, names)


def evaluate_retrieval(
    embeds: Mapping[str, Embedded],
    *,
    directions: Sequence[tuple[str, str]] | None = None,
    k: int = 10,
    query_split: str | None = QUERY_SPLIT,
    archive_split: str | None = ARCHIVE_SPLIT,
    draws: int = 5,
    resamples: int = 0,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> list[DirectionResult]:
    """Measure retrieval in every direction: all ordered pairs of sensors.

    Args:
        embeds: The embedded tiles by sensor. Sensors may have different tiles; ids join them.
        directions: Pairs of sensors to measure, of queries and archive; default all.
        k: Results per query.
        query_split: Split of the queries; None takes every tile.
        archive_split: Split of the archive; None takes every tile. With the same tiles on both sides own tiles are left out.
        draws: Random rankings for the baseline.
        resamples: Resamples of the queries for confidence intervals; 0 makes none.
        seed: Seed of the baseline and of the resamples; the same for every direction.
        device: Where the search runs; default the CPU.
        progress: Show a bar when a search takes more than 2 seconds.

    Returns:
        One result a direction, in the order of the sensors: (first, first), (first, second), (second, first), ...

    Raises:
        ValueError: No sensor, a split with no labelled tile, k larger than the archive, or embeds that are zero or not finite.
    """
    if not embeds:
        raise ValueError("embeds is empty; expected the embedded tiles of at least one sensor.")
    baselines: dict[tuple[bytes, ...], RandomBaseline] = {}  # sensors that see the same tiles share one
    results = []
    for query_sensor, archive_sensor in directions or product(embeds, repeat=2):
        query, archive = embeds[query_sensor], embeds[archive_sensor]
        query_rows, unlabelled_queries = _labelled_rows(query, query_split, query_sensor)
        archive_rows, unlabelled_archive = _labelled_rows(archive, archive_split, archive_sensor)
        places = {archive.ids[row]: place for place, row in enumerate(archive_rows)}
        exclude = np.array([places.get(query.ids[row], -1) for row in query_rows], dtype=np.int64)
        query_embeds, archive_embeds = query.embeds[query_rows], archive.embeds[archive_rows]
        similarities, ranking = top_k(
            query_embeds, archive_embeds, k, exclude=exclude, device=device, progress=progress
        )
        query_labels, archive_labels = query.labels[query_rows], archive.labels[archive_rows]
        counts = relevance_counts(query_labels, archive_labels, exclude=exclude)
        scores = scores_by_query(PackedLabels.of(query_labels), PackedLabels.of(archive_labels), ranking, counts)
        bootstrap = partial(bootstrap_scores, resamples=resamples, seed=seed) if resamples else None
        key = (query_labels.tobytes(), archive_labels.tobytes(), exclude.tobytes())
        if key not in baselines:
            baselines[key] = random_baseline(query_labels, archive_labels, k, draws=draws, seed=seed, exclude=exclude)
        self_excluded = int((exclude >= 0).sum())
        hubs = hubness(ranking, len(archive_rows))
        whole_ranking = _r_precision(query_embeds, archive_embeds, query_labels, archive_labels, exclude)
        ranks = _own_ranks(query_embeds, archive_embeds, exclude, similarities, ranking)
        own_place = query_sensor != archive_sensor and len(ranks) > 0
        cuts = scores_over_k(query_labels, archive_labels, ranking)
        class_precisions = _class_precisions(query, query_rows, archive_labels[ranking])
        results.append(
            DirectionResult(
                query_sensor=query_sensor,
                archive_sensor=archive_sensor,
                k=k,
                query_split=query_split,
                archive_split=archive_split,
                n_queries=len(query_rows),
                n_archive=len(archive_rows),
                unlabelled_queries=unlabelled_queries,
                unlabelled_archive=unlabelled_archive,
                exclude_self=self_excluded > 0,
                self_excluded=self_excluded,
                scores=mean_scores(scores),
                random=baselines[key],
                query_rows=query_rows,
                ranking=archive_rows[ranking],
                similarities=similarities,
                by_query=scores,
                irrelevant_queries=int((counts[:, 1:].sum(axis=1) == 0).sum()),
                r_precision=float(whole_ranking.mean()),
                r_precision_queries=len(whole_ranking),
                colocated_recall=float((ranks <= k).mean()) if own_place else None,
                colocated_recall_at_1=float((ranks == 1).mean()) if own_place else None,
                hubness_skewness=hubs.skewness,
                hubness_largest=hubs.largest,
                hubness_never=hubs.never,
                intervals=intervals(bootstrap(scores)) if bootstrap else {},
                over_k={name: values.tolist() for name, values in cuts.items()},
                groups=group_scores(query, query_rows, scores, baselines[key].by_query, bootstrap, class_precisions),
            )
        )
    return results


def _r_precision(
    query_embeds: NDArray[Any],
    archive_embeds: NDArray[Any],
    query_labels: BoolArray,
    archive_labels: BoolArray,
    exclude: IntArray,
) -> FloatArray:
    """R-precision of as many queries, evenly spread, as `WHOLE_RANKING_PAIRS` allows."""
    rows = evenly(len(query_embeds), max(1, WHOLE_RANKING_PAIRS // len(archive_embeds)))
    query, archive = unit_vectors(query_embeds, "query"), unit_vectors(archive_embeds, "archive")
    step = max(1, _WHOLE_RANKING_CHUNK // len(archive))
    values = []
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        similarities = (query[some] @ archive.T).numpy()
        values.append(r_precision(similarities, query_labels[some], archive_labels, exclude=exclude[some]))
    return np.concatenate(values)


def _own_ranks(
    query_embeds: NDArray[Any],
    archive_embeds: NDArray[Any],
    exclude: IntArray,
    similarities: NDArray[np.float32],
    ranking: IntArray,
) -> IntArray:
    """Rank at which each query's own place would have been found, of the queries whose place lies in the archive."""
    rows = np.flatnonzero(exclude >= 0)
    if not rows.size:
        return np.empty(0, dtype=np.int64)
    query = unit_vectors(query_embeds[rows], "query").double()
    own = unit_vectors(archive_embeds[exclude[rows]], "archive").double()
    mine = (query * own).sum(dim=1).clamp(-1, 1).float().numpy()  # as the search rounds it
    return colocated_ranks(mine, exclude[rows], similarities[rows], ranking[rows])


def group_scores(
    query: Embedded,
    rows: IntArray,
    scores: Scores,
    chance: Scores,
    bootstrap: Callable[..., dict[str, FloatArray]] | None,
    class_precisions: Mapping[str, float],
    scenes: Sequence[str] | None = None,
) -> dict[str, dict[str, Group]]:
    """Scores of the queries of each class, and of each value of the properties that are known; values without a query are left out.

    Args:
        query: The tiles of the query sensor.
        rows: (Q,) row in it of each query.
        scores: (Q,) of each metric.
        chance: (Q,) that a random order is expected to have.
        bootstrap: Resamples scores, for intervals; None makes none.
        class_precisions: By class, the share of results that have it among queries that have it.
        scenes: (Q,) of each query, where whole scenes are resampled; queries of one scene alone have no interval then.
    """

    def group(members: BoolArray, class_precision: float | None = None) -> Group:
        some = {name: values[members] for name, values in scores.items()}
        own = None if scenes is None else [scenes[row] for row in np.flatnonzero(members).tolist()]
        known = own is None or len(set(own)) > 1
        interval = intervals(bootstrap(some, clusters=own))["f1_of_means"] if bootstrap and known else None
        by_chance = mean_scores({name: values[members] for name, values in chance.items()})["f1_of_means"]
        return Group(int(members.sum()), mean_scores(some), interval, by_chance, class_precision)

    return {
        dimension: {value: group(members, class_precisions.get(value)) for value, members in by_value.items()}
        if dimension == "class"
        else {value: group(members) for value, members in by_value.items()}
        for dimension, by_value in group_members(query, rows).items()
    }


def group_members(query: Embedded, rows: IntArray) -> dict[str, dict[str, BoolArray]]:
    """(Q,) whether each query has a class, or a value of a property, by `class`, `country`, `season`, then by value."""
    labels = query.labels[rows]
    groups = {"class": {name: labels[:, n] for n, name in enumerate(query.classes) if labels[:, n].any()}}
    for dimension, column in query.groups.items():
        values = np.array(["" if column[row] is None else str(column[row]) for row in rows])
        groups[dimension] = {str(value): values == value for value in np.unique(values) if value}
    return groups


def _class_precisions(query: Embedded, rows: IntArray, result_labels: BoolArray) -> dict[str, float]:
    """By class, the share of the results, with (Q, k, C) labels, that have it among queries that have it."""
    labels = query.labels[rows]
    return {
        name: float(result_labels[labels[:, number], :, number].mean())
        for number, name in enumerate(query.classes)
        if labels[:, number].any()
    }


def _labelled_rows(embedded: Embedded, split: str | None, sensor: str) -> tuple[IntArray, int]:
    """Rows of a split that have labels, and how many of the split have none."""
    if split is None:
        in_split = np.ones(len(embedded.ids), dtype=np.bool_)
    else:
        in_split = np.array([name == split for name in embedded.splits or ()], dtype=np.bool_)
    if not in_split.any():
        present = ", ".join(f"{name}: {count}" for name, count in Counter(embedded.splits or ()).items()) or "no splits"
        raise ValueError(
            f"No {sensor} tile is of split {split!r}; the {len(embedded.ids)} tiles have {present}. "
            "Name a split that has tiles, or None for all of them."
        )
    labelled = embedded.labels.any(axis=1)
    rows = np.flatnonzero(in_split & labelled)
    unlabelled = int((in_split & ~labelled).sum())
    if not rows.size:
        raise ValueError(
            f"None of the {unlabelled} {sensor} tiles of split {split!r} has labels; retrieval cannot be measured without."
        )
    return rows, unlabelled
