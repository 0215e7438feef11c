"""A benchmark on the Hub: `eval.yaml` at the root of a dataset, and `.eval_results` of the models that enter.

Both are as MTEB writes them, whose evaluator gives the same numbers: tasks are called TASK_SUBSET_SPLIT, and scores are times 100. An
entry of a model that was measured here stands so beside one that MTEB measured. Sources: hub-docs, `docs/hub/eval-results.md`;
huggingface.js, `packages/tasks/src/eval.ts` (the frameworks that the Hub knows); mteb 2.26, `_hf_integration`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import yaml
from huggingface_hub import DatasetCardData, EvalResultEntry, eval_result_entries_to_yaml

from csmae_hf.data.labels import class_names, labels_of
from csmae_hf.embedding.without_paths import HUB_NAME, without_paths
from csmae_hf.evaluation.benchmark import MAIN_SCORE, OFFICIAL, RESULTS, Benchmark, official_of
from csmae_hf.files import staged_folder
from csmae_hf.hub.card import SCORES, render_card
from csmae_hf.metrics.ranking import METRICS

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

FRAMEWORK = "mteb"
EVAL_FILE = "eval.yaml"
FACTS_FILE = "benchmark.json"
CARD_FILE = "README.md"

_FILES = (EVAL_FILE, FACTS_FILE, CARD_FILE, "data")
_DIGITS = 5  # MTEB's


def write_benchmark(
    tiles: "Dataset",
    benchmark: Benchmark,
    folder: Path,
    *,
    repository: str,
    license: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Lay out the dataset repository of a benchmark: `eval.yaml`, card, facts, and the names and classes of its tiles.

    Args:
        tiles: What `benchmark` is of. No pixels are read, and none are written.
        benchmark: As of `Benchmark.of(tiles)`.
        folder: Where to put it.
        repository: Hub name that it is to have, `owner/name`.
        license: Hub identifier of the licence; default none is claimed.
        overwrite: Replace a benchmark that lies there.

    Returns:
        The folder.

    Raises:
        FileExistsError: If there is something else.
        ValueError: If the repository's name is none of the Hub's.
    """
    check_repository(repository)
    paths = [name for name in tiles.with_format(None)["id"][:] if without_paths(name) != name]
    if paths:
        raise ValueError(
            f"Ids of tiles are paths of this machine, {paths[0]!r} for one, and would be published: give them other ids."
        )
    classes = class_names(tiles.features["labels"]) or []
    named = [[classes[number] for number in numbers] for numbers in labels_of(tiles)]
    names = [
        column for sensor in ("", *benchmark.sensors) if (column := f"{sensor}_id".lstrip("_")) in tiles.column_names
    ]
    plain = tiles.with_format(None).select_columns([*names, "split"]).add_column("labels", named)
    split_of = plain["split"][:]
    with staged_folder(folder, overwrite=overwrite, own=_FILES) as place:
        (place / "data").mkdir()
        for split in benchmark.tiles:
            rows = [row for row, name in enumerate(split_of) if name == split]
            table = plain.select(rows).remove_columns("split").with_format("arrow")[:]
            pq.write_table(table.replace_schema_metadata(), place / "data" / f"{split}.parquet")
        content = json.dumps(benchmark.as_dict(), indent=2, ensure_ascii=False) + "\n"
        (place / FACTS_FILE).write_text(content, encoding="utf-8")
        (place / EVAL_FILE).write_text(_yaml(eval_yaml(benchmark)), encoding="utf-8")
        (place / CARD_FILE).write_text(_card(benchmark, repository, license), encoding="utf-8")
    return folder


def check_repository(name: str) -> None:
    """Refuse, with a ValueError, what is no name of a repository with its owner."""
    if not HUB_NAME.fullmatch(name):
        raise ValueError(f"repository={name!r} is no name on the Hub: expected owner/name (--repository).")


def eval_yaml(benchmark: Benchmark) -> dict[str, Any]:
    """What `eval.yaml` holds: the mean over directions, and a task a direction, as MTEB calls them."""
    tasks: list[dict[str, str]] = [{"id": benchmark.task}]
    tasks += [
        {"id": benchmark.task_id(query, archive), "config": f"{query}_to_{archive}", "split": benchmark.archive_split}
        for query, archive in benchmark.directions
    ]
    return {
        "name": benchmark.name if benchmark.name == benchmark.task else f"{benchmark.name} retrieval across sensors",
        "description": _description(benchmark),
        "evaluation_framework": FRAMEWORK,
        "tasks": tasks,
    }


def read_benchmark(name: str) -> Benchmark:
    """Give the benchmark that a person names: an official list, or the folder or `benchmark.json` of another.

    Raises:
        FileNotFoundError: It is neither.
        ValueError: The file is none of a benchmark.
    """
    if name in OFFICIAL:
        return OFFICIAL[name]
    path = Path(name)
    path = path / FACTS_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no benchmark {name}: expected one of {', '.join(OFFICIAL)}, or a folder with {FACTS_FILE} (csmae benchmark "
            "write)."
        )
    try:
        return Benchmark.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def benchmark_entries(results: Mapping[str, Any], benchmark: Benchmark, repository: str) -> list[dict[str, Any]]:
    """Give results as the Hub's `.eval_results/*.yaml` has them: NDCG@10 times 100 of each direction, and the mean of all.

    Args:
        results: Content of a `results.json`, an entry of the benchmark (`check_submission`).
        benchmark: What they are an entry of.
        repository: Hub name of the benchmark's dataset repository.
    """
    entries, values = [], []
    for one in results["directions"]:
        direction = one["query_sensor"], one["archive_sensor"]
        if direction in benchmark.directions:
            values.append(float(one[MAIN_SCORE]))
            chance = ((one.get("random") or {}).get("mean") or {}).get(MAIN_SCORE)
            notes = [] if chance is None else [f"a random order {_value(chance):.2f}"]
            notes += [f"{SCORES[name].format(k=RESULTS)} {one[name]:.4f}" for name in SCORES if name in one]
            entry = EvalResultEntry(
                repository, benchmark.task_id(*direction), _value(one[MAIN_SCORE]), notes=_notes(results, notes)
            )
            entries.append(entry)
    mean = EvalResultEntry(
        repository, benchmark.task, _value(sum(values) / len(values)), notes=_notes(results, ["mean of the directions"])
    )
    return eval_result_entries_to_yaml([*entries, mean])


def entries_text(entries: list[dict[str, Any]]) -> str:
    """The text of a file of `.eval_results`."""
    return _yaml(entries)


def expected_value(task_id: str, results: Mapping[str, Any]) -> float | None:
    """The value that an entry of these results has for a task; None where the task's name says no direction of theirs."""
    directions = {(one["query_sensor"], one["archive_sensor"]): one for one in results.get("directions") or []}
    for (query, archive), one in directions.items():
        if f"_{query}_to_{archive}_" in f"_{task_id}_" and MAIN_SCORE in one:
            return _value(one[MAIN_SCORE])
    return None


def _value(score: float) -> float:
    return round(100 * float(score), _DIGITS)


def _notes(results: Mapping[str, Any], scores: list[str]) -> str:
    metadata = results.get("metadata") or {}
    method = (metadata.get("alignment") or {}).get("method", "none")
    said = [f"{METRICS[MAIN_SCORE].column.format(k=RESULTS)} x 100", *scores]
    said += [f"{one['n_queries']} queries, {one['n_archive']} tiles" for one in results["directions"][:1]]
    said += [f"alignment {method}"]
    said += ["generated scenes, which say nothing of real land"] if metadata.get("generated") else []
    said += [f"csmae-hf {metadata['csmae_hf']}"] if metadata.get("csmae_hf") else []
    return "; ".join(said)


def _description(benchmark: Benchmark) -> str:
    generated = " The tiles are generated scenes." if benchmark.generated else ""
    return (
        f"Content-based retrieval of satellite images within and across sensors ({', '.join(benchmark.sensors)}): "
        f"{benchmark.queries.labelled} queries of the {benchmark.query_split} split search {benchmark.archive.labelled} tiles of the "
        f"{benchmark.archive_split} split. A tile is relevant by the number of classes that it shares with the query; the score is "
        f"{METRICS[MAIN_SCORE].column.format(k=RESULTS)}.{generated}"
    )


def _card(benchmark: Benchmark, repository: str, license: str | None) -> str:
    official = official_of(benchmark.tiles)
    subset = official if official in ("BEN-14K", "BEN-270K") else None
    metadata = DatasetCardData(
        license=license,
        pretty_name=f"{benchmark.name}: retrieval across sensors",
        task_categories=["image-feature-extraction"],
        tags=["csmae", "benchmark", "image-retrieval", "remote-sensing", "sentinel-1", "sentinel-2", "mteb"],
        configs=[
            {
                "config_name": f"{query}_to_{archive}",
                "data_files": [{"split": split, "path": f"data/{split}.parquet"} for split in benchmark.tiles],
            }
            for query, archive in benchmark.directions
        ],
    )
    return render_card(
        "benchmark.md",
        metadata,
        benchmark=benchmark,
        bigearthnet=official is not None,
        definition=METRICS[MAIN_SCORE].definition,
        description=_description(benchmark),
        license=license,
        official=official,
        repository=repository,
        facts_file=FACTS_FILE,
        results=RESULTS,
        subset=f" --subset {subset}" if subset else "",
        subset_argument=f', subset="{subset}"' if subset else "",
    )


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
