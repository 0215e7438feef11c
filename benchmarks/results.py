"""Compare the four variants and the MAE pair: tiny models, short trainings, 3 seeds; what docs/results.md shows.

    python benchmarks/results.py                              trains and measures what is not there yet, then prints the tables
    python benchmarks/results.py --page docs/results.md       also writes them into the page

On generated data and on the 124 real tiles beside the checkout (`real_archive.py`). Every training and every measurement is one
command of this repository's scripts, run in this process and shown with its row; one that has finished is not repeated, so the whole
may be interrupted at any time and started again.
"""

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from real_archive import build_real_archive

from csmae_hf.evaluation.run import RetrievalOptions, retrieve
from csmae_hf.files import write_atomically
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.pretrain import pretrain

logger = logging.getLogger(__name__)

SEEDS = (0, 1, 2)
DONE = "minutes.json"
START, END = "<!-- tables: made by benchmarks/results.py -->", "<!-- end of tables -->"

MODELS = {"cecd": "CSMAE-CECD", "cesd": "CSMAE-CESD", "secd": "CSMAE-SECD", "sesd": "CSMAE-SESD", "mae": "MAE pair"}


@dataclass(frozen=True)
class Archive:
    """An archive to train on and to search.

    Attributes:
        name: Its folder.
        title: Of its table.
        epochs: Passes over its training split.
        batch: Tiles a step.
        k: Results per query.
    """

    name: str
    title: str
    epochs: int
    batch: int
    k: int


ARCHIVES = (
    Archive("sample", "Own runs on generated data", epochs=5, batch=32, k=10),
    Archive("real", "Own runs on 124 real tiles", epochs=30, batch=16, k=5),
)


def training_options(archive: Archive, model: str, seed: int | str, root: str) -> list[str]:
    """The words of the command that trains a model."""
    return [
        f"benchmarks/results/{model}.yaml",
        *("--data", f"{root}/{archive.name}"),
        *("--num_train_epochs", str(archive.epochs)),
        *("--per_device_train_batch_size", str(archive.batch)),
        *("--seed", str(seed)),
        *("--output_dir", f"{root}/{archive.name}-{model}-{seed}"),
    ]


def train(archive: Archive, model: str, seed: int, root: Path) -> Path:
    """Train a model, unless it has been."""
    folder = root / f"{archive.name}-{model}-{seed}"
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        words = [*training_options(archive, model, seed, str(root)), "--disable_tqdm", "true"]
        pretrain(*parse_arguments(words))
        write_atomically(folder / DONE, json.dumps((time.perf_counter() - begun) / 60))
        logger.info("Trained %s.", folder)
    return folder


def measure(archive: Archive, folder: Path, seed: int, root: Path) -> dict[str, Any]:
    """Measure a model and the same with random weights, unless it has been: F1 by direction, and that of a random order."""
    results = folder / "retrieval"
    if not (results / "results.json").is_file():
        options = RetrievalOptions(
            data=str(root / archive.name),
            k=archive.k,
            alignment="none",
            untrained=True,
            pictures=0,
            seed=seed,
            output_dir=str(results),
        )
        retrieve([str(folder)], options)
    content = json.loads((results / "results.json").read_text())
    directions = content["directions"]
    return {
        "trained": [one["f1_of_means"] for one in directions],
        "untrained": [one["f1_of_means"] for one in content["baselines"]["untrained"]],
        "random": [one["random"]["mean"]["f1_of_means"] for one in directions],
        "directions": [f"{one['query_sensor']} -> {one['archive_sensor']}" for one in directions],
    }


def run_all(root: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Make the archives and run everything that has not been; results by archive and model, one for each seed."""
    generate_sample(root / "sample", tiles=500, seed=0)
    build_real_archive(root / "real")
    results: dict[str, dict[str, list[dict[str, Any]]]] = {archive.name: {} for archive in ARCHIVES}
    for seed in SEEDS:  # all models once before any twice, so that an interruption leaves a fair table
        for archive in ARCHIVES:
            for model in MODELS:
                measured = measure(archive, train(archive, model, seed, root), seed, root)
                results[archive.name].setdefault(model, []).append(measured)
    return results


def format_page(results: dict[str, dict[str, list[dict[str, Any]]]], root: Path) -> str:
    """Lay the results out as Markdown: a table for each archive, and the command of each row."""
    parts = []
    for archive in ARCHIVES:
        by_model = results[archive.name]
        first = next(iter(by_model.values()))[0]
        header = ["", *(name.upper().replace("->", "→") for name in first["directions"]), "mean of all"]
        rows = [_row(MODELS[model], [run["trained"] for run in runs]) for model, runs in by_model.items()]
        rows += [
            _row(f"{MODELS[model]}, untrained", [run["untrained"] for run in runs]) for model, runs in by_model.items()
        ]
        rows.append(_row("random order", [run["random"] for runs in by_model.values() for run in runs]))
        table = [header, ["---"] * len(header), *rows]
        lines = [
            f"## {archive.title}",
            "",
            f"F1@{archive.k}, mean ± standard deviation over {len(SEEDS)} trainings.",
            "",
        ]
        lines += ["| " + " | ".join(row) + " |" for row in table]
        lines += ["", "The command of each row, for SEED = " + ", ".join(map(str, SEEDS)) + ":", ""]
        lines += ["<!-- not run: 15 trainings of half a minute to a minute -->", "```console"]
        for model in by_model:
            words = training_options(archive, model, "$SEED", root.as_posix())
            options = f"--data {root.as_posix()}/{archive.name} --k {archive.k} --alignment none --untrained --pictures 0 --seed $SEED"
            lines.append(f"python run_pretraining.py {' '.join(words)}")
            lines.append(f"python run_retrieval.py {words[-1]} {options} --output_dir {words[-1]}/retrieval")
        parts.append("\n".join([*lines, "```"]))
    return "\n\n".join(parts)


def _row(name: str, runs: Sequence[Sequence[float]]) -> list[str]:
    """Mean and standard deviation over runs of each direction's value, and of their mean."""
    values = np.array([[*run, np.mean(run)] for run in runs])
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return [
        name,
        *(f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in zip(values.mean(axis=0), spread, strict=True)),
    ]


def write_page(page: Path, tables: str) -> None:
    """Put the tables between their marks.

    Raises:
        ValueError: If the page lacks the marks.
    """
    text = page.read_text()
    if START not in text or END not in text:
        raise ValueError(f"{page} lacks the lines {START} and {END}, between which the tables go.")
    before, after = text.split(START)[0], text.split(END)[1]
    write_atomically(page, f"{before}{START}\n\n{tables}\n\n{END}{after}")


def main() -> int:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/results"), help="where archives and runs go")
    parser.add_argument("--page", type=Path, help="page to write the tables into")
    arguments = parser.parse_args()
    try:
        tables = format_page(run_all(arguments.root), arguments.root)
        if arguments.page:
            write_page(arguments.page, tables)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        logging.error("results.py: %s", error)
        return 2
    sys.stdout.write(f"{tables}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
