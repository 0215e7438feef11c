"""Retrieval of every sensor by every sensor, measured: the protocol, its results, and how they are shown and written.

Protocol (`method.md`, "Evaluation"): queries are one split, the archive another (validation and test unless told otherwise);
pooled features, cosine similarity, exact search, the first k results. A tile without labels is neither query nor archive, and is
counted. Where a query's own tile lies in the archive (small archives: both are all tiles) it is left out of that query's ranking,
across sensors too, because the same place seen by the other sensor has the query's labels by construction.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.retrieval.files import write_atomically
from csmae_hf.retrieval.metrics import METRICS, BoolArray, IntArray, RandomBaseline, random_baseline, retrieval_scores
from csmae_hf.retrieval.search import top_k

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

QUERY_SPLIT = "validation"
ARCHIVE_SPLIT = "test"
RESULTS_FORMAT = "csmae-retrieval-results"
RESULTS_VERSION = 1

DEFINITIONS: dict[str, str] = {
    "precision": "mean over the k results, then over queries, of |q & r| / |r|",
    "recall": "mean over the k results, then over queries, of |q & r| / |q|",
    "f1_of_means": "2PR / (P + R) of those two means (the original CSMAE's F1)",
    "mean_pair_f1": "mean over the k results, then over queries, of 2|q & r| / (|q| + |r|)",
}
"""Each metric in words; q are a query's labels, r a result's. Written with the results."""


@dataclass(frozen=True)
class Embedded:
    """The embeds of one sensor, with what the evaluation needs to know of each tile.

    Attributes:
        embeds: (N, D) pooled features.
        ids: N names, each once; the same tile has the same name under every sensor.
        labels: (N, C) multi-hot; an empty row is a tile whose labels are not known.
        splits: N split names (None where unknown), or None if the tiles have no splits.
    """

    embeds: NDArray[np.float32]
    ids: Sequence[str]
    labels: BoolArray
    splits: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        counts = {"embeds": len(self.embeds), "ids": len(self.ids), "labels": len(self.labels)}
        if self.splits is not None:
            counts["splits"] = len(self.splits)
        if len(set(counts.values())) != 1:
            described = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"Embedded got {described}; expected one of each for every tile, in the same order.")
        repeated = [name for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise ValueError(
                f"{len(repeated)} tile ids occur more than once (first: {repeated[0]}); a duplicate would be retrieved as a hit of "
                "itself. Keep one row of each."
            )

    @classmethod
    def from_dataset(cls, embeds: NDArray[np.float32], dataset: "Dataset") -> "Embedded":
        """Join embeds with the metadata of the dataset they were made of. No pixels are read.

        Args:
            embeds: (N, D), row i of tile i, as `embed_dataset` returns them.
            dataset: The N tiles: columns `id`, `labels` (a sequence of ClassLabel) and, if there is one, `split`.

        Returns:
            The embeds with ids, multi-hot labels and splits.

        Raises:
            ValueError: A column is missing, or the numbers of rows differ.
        """
        missing = {"id", "labels"} - set(dataset.column_names)
        if missing:
            raise ValueError(
                f"The dataset has no column {' and no column '.join(sorted(missing))}; retrieval is measured by tile ids and labels. "
                f"Its columns are {', '.join(dataset.column_names)}."
            )
        num_classes = getattr(getattr(dataset.features["labels"], "feature", None), "num_classes", None)
        if num_classes is None:
            raise ValueError(
                f"Column labels is {dataset.features['labels']}; expected a sequence of ClassLabel, which names the classes."
            )
        columns = [name for name in ("id", "labels", "split") if name in dataset.column_names]
        table = dataset.with_format(None).select_columns(columns)[:]
        return cls(np.asarray(embeds), table["id"], multi_hot(table["labels"], num_classes), table.get("split"))


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

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON types, without the rankings.

        Returns:
            Every number and name of this direction; `random` nested.
        """
        arrays = ("query_rows", "ranking", "similarities")
        plain = {name: value for name, value in vars(self).items() if name not in arrays}
        return plain | {"random": asdict(self.random)}


def multi_hot(labels: Sequence[Sequence[int] | None], num_classes: int) -> BoolArray:
    """Turn lists of class numbers into multi-hot rows.

    Args:
        labels: For each tile its class numbers, or None where they are not known.
        num_classes: Number of classes C.

    Returns:
        (N, C) bool; an empty row where labels are None or an empty list.

    Raises:
        ValueError: A class number outside 0 to C - 1, with its row.
    """
    sizes = [0 if row is None else len(row) for row in labels]
    rows = np.repeat(np.arange(len(labels)), sizes)
    classes = np.fromiter(
        (number for row in labels if row is not None for number in row), dtype=np.int64, count=sum(sizes)
    )
    wrong = np.flatnonzero((classes < 0) | (classes >= num_classes))
    if wrong.size:
        raise ValueError(
            f"Row {rows[wrong[0]]} has class number {classes[wrong[0]]}; expected 0 to {num_classes - 1} "
            f"({wrong.size} such numbers in all)."
        )
    result = np.zeros((len(labels), num_classes), dtype=np.bool_)
    result[rows, classes] = True
    return result


def evaluate_retrieval(
    embeds: Mapping[str, Embedded],
    *,
    k: int = 10,
    query_split: str | None = QUERY_SPLIT,
    archive_split: str | None = ARCHIVE_SPLIT,
    draws: int = 5,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> list[DirectionResult]:
    """Measure retrieval in every direction: all ordered pairs of sensors.

    Args:
        embeds: The embedded tiles by sensor. Sensors may have different tiles; ids join them.
        k: Results per query.
        query_split: Split of the queries; None takes every tile.
        archive_split: Split of the archive; None takes every tile. With the same tiles on both sides own tiles are left out.
        draws: Random rankings for the baseline.
        seed: Seed of the baseline; the same for every direction.
        device: Where the search runs; default the CPU.
        progress: Show a bar when a search takes more than 2 seconds.

    Returns:
        One result a direction, in the order of the sensors: (first, first), (first, second), (second, first), ...

    Raises:
        ValueError: No sensor, a split with no labelled tile, k larger than the archive, or embeds that are zero or not finite.
    """
    if not embeds:
        raise ValueError("embeds is empty; expected the embedded tiles of at least one sensor.")
    baseline = partial(_cached, {}, partial(random_baseline, k=k, draws=draws, seed=seed))
    results = []
    for query_sensor, archive_sensor in product(embeds, repeat=2):
        query, archive = embeds[query_sensor], embeds[archive_sensor]
        query_rows, unlabelled_queries = _labelled_rows(query, query_split, query_sensor)
        archive_rows, unlabelled_archive = _labelled_rows(archive, archive_split, archive_sensor)
        exclude = _own_tiles(query, query_rows, archive, archive_rows)
        similarities, ranking = top_k(
            query.embeds[query_rows], archive.embeds[archive_rows], k, exclude=exclude, device=device, progress=progress
        )
        query_labels, archive_labels = query.labels[query_rows], archive.labels[archive_rows]
        self_excluded = int((exclude >= 0).sum())
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
                **asdict(retrieval_scores(query_labels, archive_labels, ranking)),
                random=baseline(query_labels, archive_labels, exclude),
                query_rows=query_rows,
                ranking=archive_rows[ranking],
                similarities=similarities,
            )
        )
    return results


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
    header = ["query -> archive", "queries", "archive", f"P@{k}", f"R@{k}", f"F1@{k} of means", f"mean pair F1@{k}"]
    rows = []
    for place, result in enumerate(results):
        name = f"{result.query_sensor} -> {result.archive_sensor}"
        numbers = [f"{getattr(result, metric):.4f}" for metric in METRICS]
        rows.append([name, str(result.n_queries), str(result.n_archive), *numbers])
        last = place + 1 == len(results) or results[place + 1].random != result.random
        if last:
            random = result.random
            spread = [f"{getattr(random.mean, metric):.4f} ±{getattr(random.std, metric):.4f}" for metric in METRICS]
            rows.append(["random order", "", "", *spread])
    return "\n".join([*align_table(header, rows), "", *_notes(results)])


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


def _own_tiles(query: Embedded, query_rows: IntArray, archive: Embedded, archive_rows: IntArray) -> IntArray:
    """(Q,) place of each query's own tile among the archive rows, -1 where it is not among them."""
    places = {archive.ids[row]: place for place, row in enumerate(archive_rows)}
    return np.array([places.get(query.ids[row], -1) for row in query_rows], dtype=np.int64)


def _cached(
    known: dict[tuple[bytes, ...], RandomBaseline],
    compute: Callable[..., RandomBaseline],
    query_labels: BoolArray,
    archive_labels: BoolArray,
    exclude: IntArray,
) -> RandomBaseline:
    """The baseline of these labels: sensors that see the same tiles share it."""
    key = (query_labels.tobytes(), archive_labels.tobytes(), exclude.tobytes())
    if key not in known:
        known[key] = compute(query_labels, archive_labels, exclude=exclude)
    return known[key]


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


def _notes(results: Sequence[DirectionResult]) -> list[str]:
    first = results[0]
    lines = [
        f"Queries: {_split_name(first.query_split)}; archive: {_split_name(first.archive_split)}; k = {first.k}; "
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
    return lines


def _split_name(split: str | None) -> str:
    return "all tiles" if split is None else f"split {split}"


def _as_csv(results: Sequence[DirectionResult]) -> str:
    rows = []
    for result in results:
        row = result.as_dict()
        random = row.pop("random")
        row["random_draws"] = random.pop("draws")
        row |= {f"random_{kind}_{metric}": value for kind, scores in random.items() for metric, value in scores.items()}
        rows.append(row)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
