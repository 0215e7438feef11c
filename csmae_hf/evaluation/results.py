"""What an evaluation gave, and how it is shown on a terminal and written to files."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.files import write_atomically
from csmae_hf.metrics.bootstrap import Interval
from csmae_hf.metrics.labels import IntArray
from csmae_hf.metrics.random_baseline import RandomBaseline
from csmae_hf.metrics.ranking import SCORES
from csmae_hf.metrics.scores import METRICS

RESULTS_FORMAT = "csmae-retrieval-results"
RESULTS_VERSION = 2

DEFINITIONS: dict[str, str] = {
    "precision": "mean over the k results, then over queries, of |q & r| / |r|",
    "recall": "mean over the k results, then over queries, of |q & r| / |q|",
    "f1_of_means": "2PR / (P + R) of those two means (the original CSMAE's F1)",
    "mean_pair_f1": "mean over the k results, then over queries, of 2|q & r| / (|q| + |r|)",
    "map": "mean over queries of the average precision cut at k, divisor min(R, k); relevant: shares a label",
    "ndcg": "mean over queries of the discounted gain sum of (2^|q & r| - 1) / log2(1 + rank), over that of the best k tiles",
    "acg": "mean over the k results, then over queries, of |q & r| (not bounded by 1)",
    "r_precision": "mean over queries of the share of relevant tiles among the first R of the whole ranking",
    "colocated_recall": "share of the queries whose own place, seen by the archive's sensor, would be among the first k",
    "hubness": "skewness over the archive of the number of queries that a tile is a result of",
    "intervals": "95 % percentile bootstrap over queries",
}
"""Each metric in words; q are a query's labels, r a result's, R the relevant tiles of the archive. Written with the results."""

_ARRAYS = ("query_rows", "ranking", "similarities", "scores")


@dataclass(frozen=True)
class Group:
    """The scores of some of the queries.

    Attributes:
        n_queries: How many.
        scores: Each of `SCORES`, over these queries.
        f1_interval: Of `f1_of_means`; None where nothing was resampled.
        class_precision: Of a class only: the share of results that have the class, among queries that have it.
    """

    n_queries: int
    scores: dict[str, float]
    f1_interval: Interval | None = None
    class_precision: float | None = None


@dataclass(frozen=True, eq=False)
class DirectionResult:
    """One direction of retrieval, measured: queries of one sensor, archive of the same or another.

    Attributes:
        query_sensor: Sensor of the queries.
        archive_sensor: Sensor of the archive.
        k: Results per query.
        query_split: Split of the queries, None for all tiles.
        archive_split: Split of the archive, None for all tiles.
        n_queries: Queries that count, all with labels.
        n_archive: Archive tiles that count, all with labels.
        unlabelled_queries: Tiles of the query split left out because their labels are not known.
        unlabelled_archive: Tiles of the archive split left out because their labels are not known.
        exclude_self: Whether queries' own tiles lay in the archive, and each was left out of its query's ranking.
        self_excluded: For how many queries that was so.
        precision: Precision@k.
        recall: Recall@k.
        f1_of_means: F1@k as the original computes it, of the two means.
        mean_pair_f1: Mean F1 of the pairs.
        random: What a random order scores on the same labels: mean, standard deviation, closed form.
        query_rows: (Q,) row of each query in the `Embedded` of the query sensor.
        ranking: (Q, k) rows of the results in the `Embedded` of the archive sensor, best first.
        similarities: (Q, k) their cosine similarities.
        map: Mean average precision, cut at k.
        ndcg: Normalised discounted cumulated gain at k.
        acg: Average cumulated gain at k, in labels.
        irrelevant_queries: Queries with which no archive tile shares a label: they score 0.
        r_precision: R-precision.
        r_precision_queries: Queries that it was measured on, evenly spread: it needs the whole ranking.
        colocated_recall: Recall at k of the place itself, None where no query's place lies in the archive or the sensor is the same.
        colocated_recall_at_1: The same at rank 1.
        hubness_skewness: Skewness of how often archive tiles are found.
        hubness_largest: Queries that have the most frequent tile among their results.
        hubness_never: Share of the archive that is never found.
        intervals: Confidence interval of each of `SCORES`; empty where nothing was resampled.
        over_k: (k,) of each of the four metrics of `METRICS`, at 1 to k results.
        groups: By dimension (`class`, `country`, `season`), then by value: the scores of those queries.
        scores: (Q, M) scores of each query, in the order of `QueryScores`.
    """

    query_sensor: str
    archive_sensor: str
    k: int
    query_split: str | None
    archive_split: str | None
    n_queries: int
    n_archive: int
    unlabelled_queries: int
    unlabelled_archive: int
    exclude_self: bool
    self_excluded: int
    precision: float
    recall: float
    f1_of_means: float
    mean_pair_f1: float
    random: RandomBaseline
    query_rows: IntArray
    ranking: IntArray
    similarities: NDArray[np.float32]
    map: float
    ndcg: float
    acg: float
    irrelevant_queries: int
    r_precision: float
    r_precision_queries: int
    colocated_recall: float | None
    colocated_recall_at_1: float | None
    hubness_skewness: float
    hubness_largest: int
    hubness_never: float
    scores: NDArray[np.float64]
    intervals: dict[str, Interval] = field(default_factory=dict)
    over_k: dict[str, list[float]] = field(default_factory=dict)
    groups: dict[str, dict[str, Group]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The direction as tables call it, such as `s1 -> s2`."""
        return f"{self.query_sensor} -> {self.archive_sensor}"

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON types, without the rankings.

        Returns:
            Every number and name of this direction; `random`, `intervals`, `over_k` and `groups` nested.
        """
        plain = {name: value for name, value in vars(self).items() if name not in _ARRAYS}
        groups = {
            dimension: {value: asdict(group) for value, group in values.items()}
            for dimension, values in self.groups.items()
        }
        return plain | {"random": asdict(self.random), "groups": groups}


def format_table(results: Sequence[DirectionResult]) -> str:
    """Lay results out as a plain-text table for a terminal, with the random-order baseline below the rows it belongs to.

    Args:
        results: Directions of one evaluation.

    Returns:
        Several lines, columns aligned: the table, then what was measured and how.

    Raises:
        ValueError: No results.
    """
    _check_results(results)
    k = results[0].k
    header = ["query -> archive", "queries", "archive", *column_names(k)]
    rows = []
    for place, result in enumerate(results):
        numbers = [f"{getattr(result, metric):.4f}" for metric in SCORES]
        rows.append([result.name, str(result.n_queries), str(result.n_archive), *numbers])
        last = place + 1 == len(results) or results[place + 1].random != result.random
        if last:
            random = result.random
            spread = [f"{getattr(random.mean, metric):.4f} ±{getattr(random.std, metric):.4f}" for metric in METRICS]
            rows.append(["random order", "", "", *spread, *(f"{random.graded[name]:.4f}" for name in SCORES[4:])])
    return "\n".join([*align_table(header, rows), "", *notes(results)])


def column_names(k: int) -> list[str]:
    """Give the headings of `SCORES`.

    Args:
        k: Results per query.

    Returns:
        As many as `SCORES`.
    """
    return [
        f"P@{k}",
        f"R@{k}",
        f"F1@{k} of means",
        f"mean pair F1@{k}",
        f"mAP@{k}",
        f"NDCG@{k}",
        f"ACG@{k}",
    ]


def results_as_dict(results: Sequence[DirectionResult], metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Put an evaluation into JSON types, with what a reader needs to repeat it.

    Args:
        results: Directions of one evaluation.
        metadata: What the caller knows of the run (model, revision, dataset, command, seed): JSON types.

    Returns:
        A dict of format, version, protocol, metric definitions, metadata and directions.

    Raises:
        ValueError: No results.
    """
    _check_results(results)
    return {
        "format": RESULTS_FORMAT,
        "version": RESULTS_VERSION,
        "protocol": {
            "k": results[0].k,
            "query_split": results[0].query_split,
            "archive_split": results[0].archive_split,
            "similarity": "cosine of pooled features, exact search",
            "random_draws": results[0].random.draws,
        },
        "metrics": dict(DEFINITIONS),
        "metadata": dict(metadata or {}),
        "directions": [result.as_dict() for result in results],
    }


def write_results(
    results: Sequence[DirectionResult],
    folder: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write `results.json` (everything) and `results.csv` (one row a direction).

    Each file appears whole or not at all: it is written beside its place and renamed.

    Args:
        results: Directions of one evaluation.
        folder: Where to write; made if it does not exist.
        metadata: What the caller knows of the run, as for `results_as_dict`.

    Returns:
        The paths of the JSON and of the CSV file.

    Raises:
        ValueError: No results, or a number that is not finite.
    """
    document = json.dumps(results_as_dict(results, metadata), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    table = _as_csv(results)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / "results.json", folder / "results.csv")
    for path, text in zip(paths, (document, table), strict=True):
        write_atomically(path, text)
    return paths


def _check_results(results: Sequence[DirectionResult]) -> None:
    if not results:
        raise ValueError("There are no results; expected the directions that evaluate_retrieval returned.")
    protocols = {(result.k, result.query_split, result.archive_split) for result in results}
    if len(protocols) > 1:
        raise ValueError(
            f"The results are of {len(protocols)} evaluations (different k or splits); show and write each by itself."
        )


def align_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, numbers to the right, a rule under the header."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in [header, *rows]
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def notes(results: Sequence[DirectionResult]) -> list[str]:
    """Say in sentences what was measured, and what was left out.

    Args:
        results: Directions of one evaluation.

    Returns:
        The sentences.
    """
    first = results[0]
    lines = [
        f"Queries: {split_in_words(first.query_split)}; archive: {split_in_words(first.archive_split)}; k = {first.k}; "
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


def split_in_words(split: str | None) -> str:
    """A split's name for a sentence."""
    return "all tiles" if split is None else f"split {split}"


def _as_csv(results: Sequence[DirectionResult]) -> str:
    """One row a direction; what has one value a class or a rank is in the JSON only."""
    rows = []
    for result in results:
        row = result.as_dict()
        for nested in ("over_k", "groups"):
            row.pop(nested)
        random, intervals = row.pop("random"), row.pop("intervals")
        row["random_draws"] = random.pop("draws")
        row |= {f"random_{kind}_{metric}": value for kind, scores in random.items() for metric, value in scores.items()}
        row |= {
            f"{metric}_{end}": value
            for metric, interval in intervals.items()
            for end, value in interval._asdict().items()
        }
        rows.append(row)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
