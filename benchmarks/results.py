"""Compare the four variants, the MAE pair and the baselines: tiny models, short trainings, several seeds; what docs/results.md shows.

    python -m benchmarks.results                     train and measure what is not there yet in runs/results, print the page
    python -m benchmarks.results --write             also write benchmarks/results/results.json and docs/results.md
    python -m benchmarks.results --quick --root /tmp/try    one epoch, one seed: whether it works at all

On the 124 real tiles beside the checkout (`benchmarks/real_archive.py`) and on generated ones. Every training and every evaluation is
one command of this repository's scripts, run in this process; one that has finished is not repeated, so the whole may be interrupted
at any time and started again.

Real tiles: scenes are dealt into two halves. A model is trained on one half and measured on the other, and another one the other way
round; with seed 1 they are dealt anew. Nothing is trained or chosen on a scene that is reported. Of the reported half every tile is a
query once, and searches the tiles of the half's other scenes. Scores of both halves are pooled before they are averaged.
"""

import argparse
import importlib.metadata
import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.real_archive import HALVES, build_real_archive, write_half
from benchmarks.results_page import CHOSEN, GROUPS, MODELS, NONE, PAGE, RESULTS, ROOT, format_page
from csmae_hf.bigearthnet import METADATA_NAME
from csmae_hf.evaluation.baselines import BAND_STATISTICS, LABELS_KNOWN, UNTRAINED
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run import RetrievalOutcome, retrieve
from csmae_hf.evaluation.tables import RANDOM_ORDER
from csmae_hf.files import write_atomically
from csmae_hf.metrics.bootstrap import bootstrap_scores, intervals
from csmae_hf.metrics.labels import FloatArray
from csmae_hf.metrics.ranking import harmonic_mean
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.pretrain import pretrain

logger = logging.getLogger(__name__)

ALIGNMENTS = (CHOSEN, NONE)
DONE = "minutes.json"
MEASURED = "measured.json"
RESAMPLES = 2000


@dataclass(frozen=True)
class Archive:
    """An archive to train on and to search.

    Attributes:
        name: Its folder.
        epochs: Passes over its training tiles.
        batch: Tiles a step.
        k: Results per query.
        halves: Parts of it that are reported one by one, each by models trained on the other; none for the archive's own splits.
        splits: Of queries and archive.
        folds: As `--folds`.
        seeds: Of trainings and dealings.
    """

    name: str
    epochs: int
    batch: int
    k: int
    halves: Sequence[str] = ("",)
    splits: tuple[str, str] = ("validation", "test")
    folds: str | None = None
    seeds: Sequence[int] = (0,)

    def data(self, seed: int | str, half: str, root: str) -> dict[str, str]:
        """The options that name the tiles, of either script."""
        table = {"metadata": f"{root}/{self.name}/halves/{seed}{half}.parquet"} if half else {}
        return {"data": f"{root}/{self.name}", **table}

    def model(self, model: str, seed: int | str, half: str, root: str) -> str:
        """The folder of a trained model."""
        return f"{root}/{self.name}-{model}-{seed}{half}"


REAL = Archive("real", epochs=30, batch=16, k=5, halves=HALVES, splits=("test", "test"), folds="scene")
SAMPLE = Archive("sample", epochs=5, batch=32, k=10)
ARCHIVES = {archive.name: archive for archive in (REAL, SAMPLE)}


def training_words(archive: Archive, model: str, seed: int | str, half: str, root: str) -> list[str]:
    """The words of the command that trains a model."""
    options = archive.data(seed, half, root) | {
        "num_train_epochs": archive.epochs,
        "per_device_train_batch_size": archive.batch,
        "seed": seed,
        "output_dir": archive.model(model, seed, half, root),
    }
    return [f"benchmarks/results/{model}.yaml", *_words(options)]


def retrieval_options(archive: Archive, seed: int | str, half: str, alignment: str, root: str) -> dict[str, Any]:
    """The options of the command that measures all models of one seed and half."""
    return archive.data(seed, half, root) | {
        "query_split": archive.splits[0],
        "archive_split": archive.splits[1],
        **({"folds": archive.folds} if archive.folds else {}),
        "k": archive.k,
        "alignment": alignment,
        "seed": seed,
        "pictures": 0,
        "resamples": 0,
        "cache_dir": f"{root}/embeds",
        "output_dir": f"{root}/{archive.name}-{seed}{half}-{alignment}",
    }


def _words(options: Mapping[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def commands(archive: Archive, root: str) -> list[str]:
    """The commands behind the numbers, with $MODEL, $SEED, $HALF and $ALIGNMENT for what they are repeated with."""
    half = "$HALF" if archive.folds else ""
    models = " ".join(archive.model(model, "$SEED", half, root) for model in MODELS)
    training = " ".join(training_words(archive, "$MODEL", "$SEED", half, root))
    options = " ".join(_words(retrieval_options(archive, "$SEED", half, "$ALIGNMENT", root)))
    return [f"python run_pretraining.py {training}", f"python run_retrieval.py {models} {options}"]


def train(archive: Archive, model: str, seed: int, half: str, root: Path) -> float:
    """Train a model, unless it has been; how many minutes it took."""
    folder = Path(archive.model(model, seed, half, str(root)))
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        words = training_words(archive, model, seed, half, str(root))
        pretrain(*parse_arguments([str(ROOT / words[0]), *words[1:], "--disable_tqdm", "true"]))
        write_atomically(folder / DONE, json.dumps((time.perf_counter() - begun) / 60))
        logger.info("Trained %s.", folder)
    return float(json.loads((folder / DONE).read_text()))


def measure(archive: Archive, seed: int, half: str, alignment: str, root: Path) -> dict[str, Any]:
    """Measure the models of one seed and half with their baselines, unless they have been: scores of every query."""
    options = retrieval_options(archive, seed, half, alignment, str(root))
    path = Path(options["output_dir"]) / MEASURED
    if not path.is_file():
        shutil.rmtree(path.parent, ignore_errors=True)
        folders = {archive.model(model, seed, half, str(root)): model for model in MODELS}
        outcome = retrieve(list(folders), RetrievalOptions(**options))
        if outcome is None:
            raise ValueError("This is not the first of several processes: run it in one.")
        write_atomically(path, json.dumps(_scores_of_queries(outcome, folders, path.parent)))
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _scores_of_queries(outcome: RetrievalOutcome, folders: Mapping[str, str], output: Path) -> dict[str, Any]:
    """Precision and recall of every query by entry and direction, the queries, random order, and the alignment of each model."""
    entries = {model: outcome.runs[folder].results for folder, model in folders.items()}
    entries |= {
        f"{model}, {UNTRAINED}": outcome.baselines[f"{folder}, {UNTRAINED}"] for folder, model in folders.items()
    }
    entries |= {name: outcome.baselines[name] for name in (BAND_STATISTICS, LABELS_KNOWN)}
    first = entries[next(iter(MODELS))]
    said = json.loads((output / Path(next(iter(folders))).name / "results.json").read_text())["queries"]
    return {
        "queries": said[first[0].query_sensor]["ids"],
        "scores": {
            name: {
                one.name: {metric: one.by_query[metric].tolist() for metric in ("precision", "recall")}
                for one in results
            }
            for name, results in entries.items()
        },
        "random": {
            one.name: {metric: one.random.expected[metric] for metric in ("precision", "recall")} for one in first
        },
        "smallest_archive": min(one.n_archive for one in first),
        "alignments": {model: outcome.runs[folder].choice.method for folder, model in folders.items()},
    }


Scores = dict[str, FloatArray]


@dataclass(frozen=True)
class Pooled:
    """What was measured of an archive under one alignment, halves joined.

    Attributes:
        queries: Ids of the tiles, in their order.
        scores: By entry, then direction: of each seed precision and recall of every query.
        random: By direction: of each seed precision and recall expected of a random order.
        alignments: By model: how often each was chosen.
        smallest_archive: Tiles that a query searches at least.
    """

    queries: list[str]
    scores: dict[str, dict[str, list[Scores]]]
    random: dict[str, list[dict[str, float]]]
    alignments: dict[str, dict[str, int]]
    smallest_archive: int


def pool(parts: Sequence[Sequence[Mapping[str, Any]]]) -> Pooled:
    """Join what was measured of the halves, one sequence a seed, in the order of the queries' ids.

    Raises:
        ValueError: Seeds have different queries, or a query is in both halves.
    """
    queries = sorted(name for half in parts[0] for name in half["queries"])
    for halves in parts:
        found = sorted(name for half in halves for name in half["queries"])
        if found != queries or len(set(found)) != len(found):
            raise ValueError("Every seed is to have the same queries, each once: their scores would be of other tiles.")
    first = parts[0][0]
    places = [np.argsort([name for half in halves for name in half["queries"]]) for halves in parts]

    def joined(entry: str, direction: str) -> list[Scores]:
        return [
            {
                metric: np.concatenate([half["scores"][entry][direction][metric] for half in halves])[order]
                for metric in ("precision", "recall")
            }
            for halves, order in zip(parts, places, strict=True)
        ]

    alignments: dict[str, dict[str, int]] = {model: {} for model in MODELS}
    for half in (half for halves in parts for half in halves):
        for model, method in half["alignments"].items():
            alignments[model][method] = alignments[model].get(method, 0) + 1
    return Pooled(
        queries,
        {entry: {direction: joined(entry, direction) for direction in some} for entry, some in first["scores"].items()},
        {
            direction: [
                {
                    metric: float(
                        np.average(
                            [half["random"][direction][metric] for half in halves],
                            weights=[len(half["queries"]) for half in halves],
                        )
                    )
                    for metric in ("precision", "recall")
                }
                for halves in parts
            ]
            for direction in first["random"]
        },
        alignments,
        min(half["smallest_archive"] for halves in parts for half in halves),
    )


class Numbers:
    """F1 of an archive's entries with intervals, all on the same resamples, so that differences are paired.

    Args:
        pooled: By alignment.
        scenes: Of each query; resamples draw whole scenes.
    """

    def __init__(self, pooled: Mapping[str, Pooled], scenes: Sequence[str]):
        self.pooled = pooled
        self.scenes = scenes
        self.resampled = cache(self._resampled)
        self.by_seed = cache(self._by_seed)

    def _resampled(self, entry: str, alignment: str, direction: str) -> FloatArray:
        """(RESAMPLES,) mean over seeds."""
        if direction in GROUPS:
            values: FloatArray = np.mean([self.resampled(entry, alignment, one) for one in GROUPS[direction]], axis=0)
            return values
        some = self.pooled[alignment].scores[entry][direction]
        resampled = [bootstrap_scores(one, resamples=RESAMPLES, clusters=self.scenes)["f1_of_means"] for one in some]
        mean: FloatArray = np.mean(resampled, axis=0)
        return mean

    def _by_seed(self, entry: str, alignment: str, direction: str) -> FloatArray:
        """(seeds,) F1."""
        if direction in GROUPS:
            values: FloatArray = np.mean([self.by_seed(entry, alignment, one) for one in GROUPS[direction]], axis=0)
            return values
        pooled = self.pooled[alignment]
        means = (
            pooled.random[direction]
            if entry == RANDOM_ORDER
            else [{name: values.mean() for name, values in one.items()} for one in pooled.scores[entry][direction]]
        )
        return np.array([float(harmonic_mean(one["precision"], one["recall"])) for one in means])

    def score(self, entry: str, alignment: str, direction: str) -> dict[str, Any]:
        """Mean over seeds, its interval over scenes, and the value of each seed."""
        seeds = self.by_seed(entry, alignment, direction)
        said: dict[str, Any] = {"f1": _rounded(seeds.mean()), "by_seed": [_rounded(value) for value in seeds]}
        if entry != RANDOM_ORDER:
            said["interval"] = self._interval(self.resampled(entry, alignment, direction))
        return said

    def difference(
        self, entry: str, other: str, direction: str, alignment: str, other_alignment: str
    ) -> dict[str, Any]:
        """How much more an entry scores than another one, and the interval of that over scenes."""
        first, second = (entry, alignment, direction), (other, other_alignment, direction)
        return {
            "f1": _rounded(self.by_seed(*first).mean() - self.by_seed(*second).mean()),
            "interval": self._interval(self.resampled(*first) - self.resampled(*second)),
        }

    @staticmethod
    def _interval(values: FloatArray) -> list[float]:
        return [_rounded(end) for end in intervals({"f1": values})["f1"]]


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def summarise(
    archive: Archive, pooled: Mapping[str, Pooled], scenes: Mapping[str, str], minutes: float
) -> dict[str, Any]:
    """All that the page says of an archive, as JSON types.

    Args:
        archive: The archive.
        pooled: What was measured, by alignment.
        scenes: Of each tile, by its id.
        minutes: That its trainings took.
    """
    first = pooled[ALIGNMENTS[0]]
    numbers = Numbers(pooled, [scenes[name] for name in first.queries])
    directions = [*first.random, *GROUPS]
    entries = [*first.scores, RANDOM_ORDER]
    compared = [
        {"model": model, "other": other, "direction": group, **numbers.difference(model, other, group, CHOSEN, CHOSEN)}
        for group in GROUPS
        for model in MODELS
        for other in (f"{model}, {UNTRAINED}", BAND_STATISTICS, *(name for name in ("cecd", "mae") if name != model))
    ]
    aligned = [
        {"model": entry, "direction": "across", **numbers.difference(entry, entry, "across", CHOSEN, NONE)}
        for entry in first.scores
        if entry not in (BAND_STATISTICS, LABELS_KNOWN)
    ]
    counts = np.unique(np.array(numbers.scenes), return_counts=True)[1]
    return {
        "setting": asdict(archive),
        "queries": len(first.queries),
        "scenes": len(counts),
        "largest_scene": int(counts.max()),
        "smallest_archive": first.smallest_archive,
        "trainings": len(archive.seeds) * len(archive.halves) * len(MODELS),
        "minutes": round(minutes, 1),
        "resamples": RESAMPLES,
        "commands": commands(archive, "runs/results"),
        "scores": {
            alignment: {
                entry: {name: numbers.score(entry, alignment, name) for name in directions} for entry in entries
            }
            for alignment in ALIGNMENTS
        },
        "differences": compared,
        "gains_of_alignment": aligned,
        "alignments": first.alignments,
    }


def run(archive: Archive, root: Path) -> dict[str, Any]:
    """Make an archive and run everything on it that has not been; what the page says of it."""
    folder = root / archive.name
    if archive.folds:
        build_real_archive(folder)
    else:
        generate_sample(folder, tiles=500, seed=0)
    minutes = 0.0
    parts: dict[str, list[list[dict[str, Any]]]] = {alignment: [] for alignment in ALIGNMENTS}
    for seed in archive.seeds:
        for half in filter(None, archive.halves):
            write_half(folder, seed, half)
        for half, model in product(archive.halves, MODELS):
            minutes += train(archive, model, seed, half, root)
        for alignment, some in parts.items():
            some.append([measure(archive, seed, half, alignment, root) for half in archive.halves])
    table = pq.read_table(folder / METADATA_NAME)
    own = "scene" if archive.folds else "patch_id"  # every generated tile is a scene of its own
    scenes = dict(zip(table["patch_id"].to_pylist(), table[own].to_pylist(), strict=True))
    return summarise(archive, {alignment: pool(some) for alignment, some in parts.items()}, scenes, minutes)


def main() -> int:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/results"), help="where archives and runs go")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and docs/{PAGE.name}")
    parser.add_argument("--archives", nargs="+", choices=ARCHIVES, default=list(ARCHIVES), help="which (default: both)")
    parser.add_argument("--seeds", type=int, default=2, help="how many, each with trainings of its own (default: 2)")
    parser.add_argument("--quick", action="store_true", help="one epoch and one seed, to see whether it works")
    arguments = parser.parse_args()
    if arguments.quick and arguments.write:
        parser.error("--quick makes no results: leave --write out.")
    archives = [ARCHIVES[name] for name in arguments.archives]
    archives = [replace(archive, seeds=tuple(range(arguments.seeds))) for archive in archives]
    if arguments.quick:
        archives = [replace(archive, epochs=1, seeds=(0,)) for archive in archives]
    try:
        content = {
            "format": "csmae-results-page",
            "command": f"python -m benchmarks.results --archives {' '.join(arguments.archives)} --seeds {arguments.seeds} --write",
            "date": datetime.now(UTC).date().isoformat(),
            "versions": {name: importlib.metadata.version(name) for name in ("csmae-hf", "torch", "transformers")},
            "archives": {archive.name: run(archive, arguments.root) for archive in archives},
        }
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        logging.error("results.py: %s", error)
        return 2
    document = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(RESULTS if arguments.write else arguments.root / RESULTS.name, document)
    page = format_page(json.loads(document))
    if arguments.write:
        write_atomically(PAGE, page)
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
