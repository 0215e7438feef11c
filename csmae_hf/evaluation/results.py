"""What an evaluation gave: the record of a direction, and `results.json` and `results.csv` made of several."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csmae_hf.embedding.provenance import Provenance
from csmae_hf.embedding.without_paths import public_name
from csmae_hf.files import write_atomically
from csmae_hf.metrics import whole_archive
from csmae_hf.metrics.bootstrap import Interval
from csmae_hf.metrics.labels import IntArray
from csmae_hf.metrics.random_baseline import RandomBaseline
from csmae_hf.metrics.ranking import METRICS
from csmae_hf.plain import to_csv

RESULTS_FORMAT = "csmae-retrieval-results"
RESULTS_VERSION = 4
SAMPLE_DATA = "synthetic sample archive"
"""What results call the data where none were named, and the sample was generated."""

_ARRAYS = ("query_rows", "ranking", "similarities", "scores", "by_query", "scenes")

INTERVALS = {
    "intervals": "95 % percentile bootstrap over queries",
    "resamples": "rows of NumPy's default_rng(seed).integers(0, Q, (resamples, Q)) for Q queries, the same for every model, so that "
    "differences are paired",
}
"""How intervals are made, so that they can be made again."""

QUERY_DIGITS = 7
"""Decimals of the scores of single queries in `results.json`."""


@dataclass(frozen=True)
class Group:
    """The scores of some of the queries."""

    n_queries: int
    scores: dict[str, float]  # each of `METRICS`, over these queries
    f1_interval: Interval | None = None  # of `f1_of_means`; None where nothing was resampled
    random_f1: float | None = None  # `f1_of_means` that a random order is expected to have, over these queries
    class_precision: float | None = None  # of a class: the share of results that have it, among queries that have it


@dataclass(frozen=True, eq=False)
class DirectionResult:
    """One direction of retrieval, measured: queries of one sensor, archive of the same or another."""

    query_sensor: str
    archive_sensor: str
    k: int  # results per query
    query_split: str | None  # None for all tiles
    archive_split: str | None
    n_queries: int  # that count, all with labels
    n_archive: int  # tiles that count, all with labels
    unlabelled_queries: int  # tiles of the query split left out because their labels are not known
    unlabelled_archive: int
    exclude_self: bool  # whether queries' own tiles lay in the archive, and each was left out of its query's ranking
    self_excluded: int  # for how many queries that was so
    scores: dict[str, float]  # each of `METRICS`, such as `scores["f1_of_means"]`
    random: RandomBaseline  # what a random order scores on the same labels
    query_rows: IntArray  # (Q,) row of each query in the `Embedded` of the query sensor
    ranking: IntArray  # (Q, k) rows of the results in the `Embedded` of the archive sensor, best first
    similarities: NDArray[np.float32]  # (Q, k) their cosine similarities
    by_query: dict[str, NDArray[np.float64]]  # (Q,) scores of the queries, by metric
    irrelevant_queries: int  # with which no archive tile shares a label: they score 0
    r_precision: float
    r_precision_queries: int  # that it was measured on, evenly spread: it needs the whole ranking
    # Recall at k of the place itself; None where no query's place lies there or the sensor is the same.
    colocated_recall: float | None
    colocated_recall_at_1: float | None
    hubness_skewness: float  # of how often archive tiles are found
    hubness_largest: int  # queries that have the most frequent tile among their results
    hubness_never: float  # share of the archive that is never found
    # Of each of `METRICS`; empty where nothing was resampled.
    intervals: dict[str, Interval] = field(default_factory=dict)
    over_k: dict[str, list[float]] = field(default_factory=dict)  # (k,) of each metric that is known at every cut
    groups: dict[str, dict[str, Group]] = field(default_factory=dict)  # by `class`, `country`, `season`, then by value
    folds: str | None = (
        None  # how tiles were dealt, in words, where queries and archive are folds over scenes and no splits
    )
    scenes: tuple[str, ...] | None = (
        None  # (Q,) of the queries, where tiles were dealt by scenes: intervals are over them
    )

    @property
    def name(self) -> str:
        """The direction as tables call it, such as `s1 -> s2`."""
        return f"{self.query_sensor} -> {self.archive_sensor}"

    @property
    def title(self) -> str:
        """The direction as pictures call it, such as `S1 → S2`."""
        return f"{self.query_sensor.upper()} → {self.archive_sensor.upper()}"

    def as_dict(self) -> dict[str, Any]:
        """Every number and name as JSON types, without the rankings; each metric by its name, `random`, `groups` and such nested."""
        plain = {name: value for name, value in vars(self).items() if name not in _ARRAYS}
        groups = {
            dimension: {value: asdict(group) for value, group in values.items()}
            for dimension, values in self.groups.items()
        }
        random = {name: value for name, value in vars(self.random).items() if name != "by_query"}
        return plain | self.scores | {"random": random, "groups": groups}


def definitions() -> dict[str, str]:
    """Every number in words; q are a query's labels, r a result's, R the relevant tiles of the archive."""
    of_rankings = {name: metric.definition for name, metric in METRICS.items()}
    return of_rankings | whole_archive.DEFINITIONS | INTERVALS


def results_as_dict(
    results: Sequence[DirectionResult],
    metadata: Mapping[str, Any] | None = None,
    *,
    queries: Mapping[str, Any] | None = None,
    baselines: Mapping[str, Sequence[DirectionResult]] | None = None,
) -> dict[str, Any]:
    """An evaluation as JSON types: format, version, protocol, definitions of the metrics, `metadata` of the caller, directions.

    Each direction has the scores of every query, so that means, differences from another evaluation and their intervals can be made
    again from the file alone; `queries` says what these are, as of `queries_as_dict`.
    """
    check_results(results)
    return {
        "format": RESULTS_FORMAT,
        "version": RESULTS_VERSION,
        "protocol": {
            "k": results[0].k,
            "query_split": results[0].query_split,
            "archive_split": results[0].archive_split,
            "folds": results[0].folds,
            "similarity": "cosine of pooled features, exact search",
            "random_draws": results[0].random.draws,
        },
        "metrics": definitions()
        | (
            {}
            if results[0].scenes is None
            else {
                "intervals": "95 % percentile bootstrap over whole scenes",
                "resamples": "of scenes, by the same seed",
            }
        ),
        "metadata": dict(metadata or {}),
        "directions": [
            result.as_dict()
            | {"by_query": {name: np.round(values, QUERY_DIGITS).tolist() for name, values in result.by_query.items()}}
            for result in results
        ],
        "queries": dict(queries or {}),
        "baselines": {name: [one.as_dict() for one in found] for name, found in (baselines or {}).items()},
    }


def queries_as_dict(results: Sequence[DirectionResult], embeds: Mapping[str, Any]) -> dict[str, Any]:
    """The queries of each sensor, in the order of `by_query`, as JSON types: `ids`, `classes` (names), of folds `scene`, groups.

    Args:
        results: Directions of one evaluation.
        embeds: The `Embedded` tiles by sensor that they were made of.
    """
    queries = {}
    for result in results:
        one = embeds[result.query_sensor]
        rows = result.query_rows.tolist()
        queries[result.query_sensor] = {
            "ids": [str(one.ids[row]) for row in rows],
            "classes": [[one.classes[number] for number in np.flatnonzero(one.labels[row])] for row in rows],
            **({"scene": list(result.scenes)} if result.scenes is not None else {}),
            **{group: [values[row] for row in rows] for group, values in one.groups.items()},
        }
    return queries


def write_results(
    results: Sequence[DirectionResult],
    folder: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None = None,
    **more: Any,
) -> tuple[Path, Path]:
    """Write `results.json` (everything) and `results.csv` (one row a direction), each whole or not at all.

    Args:
        results: Directions of one evaluation.
        folder: Where to write; made if it does not exist.
        metadata: What the caller knows of the run, as for `results_as_dict`.
        **more: `queries` and `baselines`, as for `results_as_dict`.

    Returns:
        The paths of the JSON and of the CSV file.

    Raises:
        ValueError: No results, or a number that is not finite.
    """
    content = results_as_dict(results, metadata, **more)
    document = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / "results.json", folder / "results.csv")
    for path, text in zip(paths, (document, _as_csv(results, metadata or {})), strict=True):
        write_atomically(path, text)
    return paths


def provenance_of(document: Mapping[str, Any]) -> Provenance | None:
    """Where the numbers of a `results.json` come from; None where it is of a release that did not record it.

    Raises:
        ValueError: If what it says is no such record.
    """
    held = (document.get("metadata") or {}).get("provenance")
    return None if held is None else Provenance.from_dict(held)


def remarks_beside(document: Mapping[str, Any], archive: Provenance) -> list[str]:
    """Say in sentences why the numbers of a `results.json` are not those of an archive that it is shown beside; none where they are.

    Args:
        document: Its content.
        archive: Where the archive's embeds come from.
    """
    measured = provenance_of(document)
    if measured is not None:
        return [
            f"This evaluation is not of this archive: {one.name} {one.ours} were measured, the archive has {one.theirs}."
            if one.name not in ("alignment", "generated scenes")
            else f"This evaluation was measured with the alignment {one.ours} of the sensors, this archive is searched with "
            f"{one.theirs}: it does not retrieve so."
            if one.name == "alignment"
            else f"This evaluation and this archive are not of the same tiles: generated scenes {one.ours} and {one.theirs}."
            for one in measured.differences(archive)
        ]
    remarks = ["This evaluation does not say which model, alignment and tiles it was measured with: measure again."]
    method = ((document.get("metadata") or {}).get("alignment") or {}).get("method", "none")
    if method != archive.alignment:
        remarks.append(
            f"It was measured with the alignment {method} of the sensors, this archive is searched with {archive.alignment}."
        )
    return remarks


def refuse_other_results(folder: str | os.PathLike[str], models: Sequence[str], data: str | None) -> None:
    """Refuse an output folder whose results are of other models or data, or where files of the same names are of something else.

    Args:
        folder: The output folder; it need not exist.
        models: What is to be evaluated.
        data: Its tiles; None for the generated sample.

    Raises:
        FileExistsError: If writing there would replace what an evaluation of these did not write.
    """
    folder = Path(folder)
    remedy = "choose another --output_dir, or replace it by --overwrite."
    each = {name for model in models for name in (Path(model).name, model.strip("/.").replace("/", "-"))}
    places = [folder, *(folder / name for name in sorted(each) if len(models) > 1)]
    found = {place / "results.json": _read_json(place / "results.json") for place in places}
    found = {path: content for path, content in found.items() if path.exists()}
    for path, content in found.items():
        held = (content.get("metadata") or {}) if content.get("format") == RESULTS_FORMAT else {}
        known = {data, public_name(data)} if data else {SAMPLE_DATA}  # results name data without their place
        if held.get("model") not in models or held.get("data") not in known:
            what = f"{held.get('model')} on {held.get('data')}" if held else "no evaluation of ours"
            raise FileExistsError(
                f"{path} is of {what}, asked for is {', '.join(models)} on {data or SAMPLE_DATA}: {remedy}"
            )
    summary = folder / "summary.json"
    groups = _read_json(summary).get("models") if summary.exists() else None
    members = {name for group in groups.values() for name in group.get("trainings", ())} if groups else None
    if summary.exists() and members != set(models):
        raise FileExistsError(f"{summary} compares {', '.join(sorted(members or ())) or 'something else'}: {remedy}")
    names = ("results.csv", "report.html", "alignment.safetensors", "tables")
    foreign = [name for name in names if (folder / name).exists()]
    if foreign and not summary.exists() and not found:
        raise FileExistsError(f"{folder / foreign[0]} is of no evaluation that is known here: {remedy}")


def _read_json(path: Path) -> dict[str, Any]:
    """A mapping in a file of JSON; empty where it holds none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def check_results(results: Sequence[DirectionResult]) -> None:
    """Refuse none, and results of several evaluations."""
    if not results:
        raise ValueError("There are no results; expected the directions that evaluate_retrieval returned.")
    protocols = {(result.k, result.query_split, result.archive_split, result.folds) for result in results}
    if len(protocols) > 1:
        raise ValueError(
            f"The results are of {len(protocols)} evaluations (different k, splits or folds); show and write each by itself."
        )


def _as_csv(results: Sequence[DirectionResult], metadata: Mapping[str, Any]) -> str:
    """One row a direction; what has one value a class or a rank is in the JSON only."""
    rows = []
    alignment = (metadata.get("alignment") or {}).get("method")
    for result in results:
        row = {} if alignment is None else {"alignment": alignment}
        row |= {name: value for name, value in result.as_dict().items() if name not in ("over_k", "groups")}
        random, intervals = row.pop("random"), row.pop("intervals")
        row["random_draws"] = random.pop("draws")
        row |= {f"random_{kind}_{metric}": value for kind, scores in random.items() for metric, value in scores.items()}
        row |= {f"{metric}_{end}": value for metric in intervals for end, value in intervals[metric]._asdict().items()}
        rows.append(row)
    return to_csv(list(rows[0]), ([row.get(name) for name in rows[0]] for row in rows))
