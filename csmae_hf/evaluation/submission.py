"""Whether an evaluation is an entry of a benchmark: its tiles and protocol, where the numbers come from, and the numbers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from csmae_hf.embedding.provenance import Provenance, hash_ids
from csmae_hf.evaluation.benchmark import RESULTS, Benchmark, hash_labels
from csmae_hf.evaluation.results import RESULTS_FORMAT, RESULTS_VERSION, provenance_of
from csmae_hf.metrics.ranking import METRICS, mean_scores

_TRAIN = "train"
_SAME = 1e-6
"""By how much a mean may differ from the one that is made again of the scores of the queries."""


class Refusal(NamedTuple):
    """Why results are no entry: the kind of reason, one word, and a sentence with what to do."""

    kind: str
    text: str


def check_submission(document: Any, benchmark: Benchmark) -> list[Refusal]:
    """Compare an evaluation with what a benchmark asks of its entries.

    Args:
        document: Content of a `results.json`.
        benchmark: What it is to be an entry of.

    Returns:
        What is wrong, one kind after another: `format`, `protocol`, `directions`, `provenance`, `generated`, `queries`, `archive`,
        `alignment`, `range`, `recomputed`; nothing where it is an entry.
    """
    if (
        not isinstance(document, Mapping)
        or document.get("format") != RESULTS_FORMAT
        or document.get("version") != RESULTS_VERSION
    ):
        said = document.get("version") if isinstance(document, Mapping) else None
        return [
            Refusal(
                "format",
                f"This is no results.json of version {RESULTS_VERSION} (it says {said}): measure with run_retrieval.py.",
            )
        ]
    try:
        return [
            *_check_protocol(document, benchmark),
            *_check_directions(document, benchmark),
            *_check_provenance(document, benchmark),
            *_check_queries(document, benchmark),
            *_check_alignment(document, benchmark),
            *_check_numbers(document, benchmark),
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return [Refusal("format", f"These results are not whole: {type(error).__name__} {error}. Measure again.")]


def _check_protocol(document: Mapping[str, Any], benchmark: Benchmark) -> Iterator[Refusal]:
    protocol = document["protocol"]
    wanted = {
        "k": RESULTS,
        "query_split": benchmark.query_split,
        "archive_split": benchmark.archive_split,
        "folds": None,
    }
    for name, value in wanted.items():
        if protocol.get(name) != value:
            yield Refusal(
                "protocol",
                f"{name} is {protocol.get(name)}: expected {value} (--{name}{f' {value}' if value else ' left out'}).",
            )


def _check_directions(document: Mapping[str, Any], benchmark: Benchmark) -> Iterator[Refusal]:
    held = [(one["query_sensor"], one["archive_sensor"]) for one in document["directions"]]
    for direction in benchmark.directions:
        if held.count(direction) != 1:
            yield Refusal(
                "directions",
                f"{direction[0]} to {direction[1]} is there {held.count(direction)} times: expected each of "
                f"{', '.join(' to '.join(one) for one in benchmark.directions)} once (--sensors {','.join(benchmark.sensors)}).",
            )


def _check_provenance(document: Mapping[str, Any], benchmark: Benchmark) -> Iterator[Refusal]:
    """The record is whole, and of these tiles."""
    try:
        record = provenance_of(document)
    except ValueError as error:
        record, why = None, str(error)
    else:
        why = "There is none."
    if record is None:
        yield Refusal(
            "provenance", f"metadata.provenance says nothing of where the numbers come from. {why} Measure again."
        )
        return
    made_with = record.made_with
    known = {
        "made_with.model": made_with.model,
        "made_with.weights": made_with.weights,
        "made_with.processor": made_with.processor,
        "made_with.config": made_with.config,
        "made_with.code": made_with.code,
        "data": record.data,
        "generated": record.generated if record.generated is None else "said",
        "alignment_hash": record.alignment_hash or record.alignment == "none",
    }
    for name in (name for name, value in known.items() if not value):
        yield Refusal("provenance", f"metadata.provenance does not say {name}: measure again with this release.")
    if None not in (record.generated, benchmark.generated) and record.generated != benchmark.generated:
        which = "generated scenes" if record.generated else "real tiles"
        yield Refusal("generated", f"The numbers are of {which}, {benchmark.name} is not.")
    for split, kind in ((benchmark.query_split, "queries"), (benchmark.archive_split, "archive")):
        yield from _check_tiles(record, benchmark, split, kind)


def _check_tiles(record: Provenance, benchmark: Benchmark, split: str, kind: str) -> Iterator[Refusal]:
    held, wanted = record.tiles.get(split) or {}, benchmark.tiles[split]
    if held.get("sha256") == wanted.sha256 and held.get("count") == wanted.count:
        return
    count = held.get("count", 0)
    why = "a limit, tiles left out, or a part of the data" if count < wanted.count else "other tiles"
    yield Refusal(
        kind,
        f"Measured on {count} tiles of {split} (sha256 {str(held.get('sha256'))[:12]}): {why}. {benchmark.name} has {wanted.count} "
        f"({wanted.sha256[:12]}); measure on its lists, without --max_tiles; tiles that were left out for a "
        "guess are in skipped_tiles.json (--suspect accept).",
    )


def _check_queries(document: Mapping[str, Any], benchmark: Benchmark) -> Iterator[Refusal]:
    """The queries by name and label, and how many there are of all."""
    wanted = benchmark.queries
    for sensor in benchmark.sensors:
        held = document["queries"].get(sensor) or {"ids": [], "classes": []}
        ids, classes = held["ids"], held["classes"]
        unknown = {name for names in classes for name in names} - set(benchmark.classes)
        found = hash_ids(ids) if wanted.labels is None else hash_labels(ids, classes)
        if unknown:
            yield Refusal(
                "queries", f"Queries of {sensor} have the class {min(unknown)!r}, which {benchmark.name} has not."
            )
        elif len(ids) != wanted.labelled or found != (wanted.labels or wanted.sha256):
            yield Refusal(
                "queries",
                f"The {len(ids)} queries of {sensor}{'' if wanted.labels is None else ', or their labels,'} are not the "
                f"{wanted.labelled} of {benchmark.name}.",
            )
    record = document["metadata"].get("provenance") or {}
    whole = ((record.get("tiles") or {}).get(benchmark.archive_split) or {}).get("count") == benchmark.archive.count
    for one in document["directions"]:
        name = f"{one['query_sensor']} to {one['archive_sensor']}"
        named = len((document["queries"].get(one["query_sensor"]) or {"ids": []})["ids"])
        if one["n_queries"] != named:
            yield Refusal("queries", f"{name} has {one['n_queries']} queries, and {named} are named: measure again.")
        if whole and one["n_archive"] != benchmark.archive.labelled:  # else it is said of the archive as a whole
            yield Refusal(
                "archive",
                f"{name} searched {one['n_archive']} tiles: {benchmark.name} has {benchmark.archive.labelled}.",
            )


def _check_alignment(document: Mapping[str, Any], benchmark: Benchmark) -> Iterator[Refusal]:
    """An alignment was fitted on training tiles, and the record names the same."""
    aligned = document["metadata"].get("alignment") or {}
    method = aligned.get("method", "none")
    record = document["metadata"].get("provenance") or {}
    if record and method != record.get("alignment"):
        yield Refusal(
            "alignment",
            f"The alignment is {method}, metadata.provenance says {record.get('alignment')}: measure again.",
        )
    if method == "none":
        return
    fitted = aligned.get("fitted_on") or {}
    if fitted.get("split") != _TRAIN or not fitted.get("sha256"):
        yield Refusal(
            "alignment",
            f"The alignment {method} does not say that it was fitted on training tiles (it says {fitted.get('split')}): measure "
            "again, or with --alignment none.",
        )
        return
    measured = {split: one.sha256 for split, one in benchmark.tiles.items() if split != _TRAIN}
    same = next((split for split, sha256 in measured.items() if sha256 == fitted["sha256"]), None)
    train = benchmark.tiles.get(_TRAIN)
    if same is not None or (
        train
        and (fitted["count"] > train.count or (fitted["count"] == train.count and fitted["sha256"] != train.sha256))
    ):
        what = f"the tiles of {same}" if same else f"{fitted['count']} tiles that are not the training tiles"
        yield Refusal(
            "alignment",
            f"The alignment {method} was fitted on {what} of {benchmark.name}: fit it on its training tiles.",
        )


def _check_numbers(document: Mapping[str, Any], benchmark: Benchmark) -> Iterator[Refusal]:
    """Every number is possible, and the means are those of the scores of the queries."""
    for one in document["directions"]:
        name, by_query = f"{one['query_sensor']} to {one['archive_sensor']}", one["by_query"]
        lengths = {metric: len(by_query.get(metric, ())) for metric in METRICS if METRICS[metric].of != "means"}
        wrong = [metric for metric, length in lengths.items() if length != one["n_queries"]]
        if wrong:
            yield Refusal(
                "recomputed", f"{name} has no {wrong[0]} of each of its {one['n_queries']} queries: measure again."
            )
            continue
        values = {metric: np.asarray(by_query[metric], np.float64) for metric in lengths}
        for metric in METRICS:
            most = len(benchmark.classes) if metric == "acg" else 1
            all_of = np.append(values.get(metric, ()), one[metric])
            bad = all_of[~((all_of >= 0) & (all_of <= most + _SAME))]
            if bad.size:
                yield Refusal("range", f"{metric} of {name} has {bad[0]}: expected 0 to {most}.")
        again = mean_scores(values)
        for metric, value in again.items():
            if not math.isclose(one[metric], value, rel_tol=0, abs_tol=_SAME):
                yield Refusal(
                    "recomputed",
                    f"{metric} of {name} is {one[metric]:.6f}, the mean of its queries {value:.6f}: measure again.",
                )
