"""Time the metrics of 65,000 queries x 10 results, beside the direct double loop over pairs that the original evaluates with.

    python -m benchmarks.retrieval
    python -m benchmarks.retrieval --labels metadata.parquet        label sets of real BigEarthNet (reBEN's table)

Nothing is searched: rankings are random. One core: set OMP_NUM_THREADS=1. The loop is timed on some queries and scaled up.
"""

import argparse
import json
import sys
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.machine import limits
from benchmarks.timing import Row, add_ratio, compare, table, time_in_turn
from csmae_hf.bigearthnet import LABELS
from csmae_hf.metrics.bootstrap import bootstrap_means
from csmae_hf.metrics.labels import multi_hot
from csmae_hf.metrics.ranking import headlines, mean_scores, query_scores, scores_over_k
from csmae_hf.metrics.whole_archive import hubness


def double_loop(query_labels: NDArray[Any], archive_labels: NDArray[Any], ranking: NDArray[Any]) -> tuple[float, ...]:
    """The four numbers by the definitions, one pair at a time, on NumPy rows: what the original's evaluation does."""
    precision, recall, f1 = [], [], []
    for query, row in zip(query_labels, ranking, strict=True):
        for index in row:
            result = archive_labels[index]
            shared = np.sum(np.logical_and(query, result))
            p, r = shared / np.sum(result), shared / np.sum(query)
            precision.append(p)
            recall.append(r)
            f1.append(2 * p * r / (p + r) if p + r else 0.0)
    p, r = float(np.mean(precision)), float(np.mean(recall))
    return p, r, 2 * p * r / (p + r), float(np.mean(f1))


def load_labels(path: str | None, rows: int, split: str, seed: int) -> NDArray[np.bool_]:
    """Multi-hot labels of real tiles, or drawn ones: one to six of 19 classes, some of them rare."""
    rng = np.random.default_rng(seed)
    if path is None:
        weights = 1 / np.arange(1, len(LABELS) + 1)
        drawn = rng.choice(len(LABELS), size=(rows, 6), p=weights / weights.sum())
        return multi_hot(
            [row[:n].tolist() for row, n in zip(drawn, rng.integers(1, 7, rows), strict=True)], len(LABELS)
        )
    table = pq.read_table(path, columns=["labels"], filters=[("split", "==", split)])
    numbers = [[LABELS.index(name) for name in row] for row in table["labels"].to_pylist()[:rows]]
    return multi_hot(numbers, len(LABELS))


def measure_labels(
    labels: str | None = None,
    queries: int = 65_000,
    archive: int = 65_000,
    k: int = 10,
    loop_queries: int = 2_000,
    resamples: int = 1_000,
    repeats: int = 3,
) -> list[Row]:
    """Rows of the metrics of random rankings.

    Raises:
        ValueError: If the double loop gives other numbers.
    """
    query, tiles = load_labels(labels, queries, "validation", 0), load_labels(labels, archive, "test", 1)
    rng = np.random.default_rng(2)
    ranking = rng.permutation(len(tiles))[rng.integers(0, len(tiles) - k, (len(query), 1)) + np.arange(k)]
    some, share = slice(loop_queries), len(query) / len(query[:loop_queries])
    by_loop = double_loop(query[some], tiles, ranking[some])
    cuts = scores_over_k(query[some], tiles, ranking[some])
    ours = tuple(cuts[name][-1] for name in headlines())
    if not np.allclose(ours, by_loop, rtol=0, atol=1e-12):
        raise ValueError(f"The metrics are {ours}, but {by_loop} by the double loop.")
    scores = query_scores(query, tiles, ranking)
    stacked = np.stack(list(scores.values()), axis=1)

    def every_metric() -> None:
        mean_scores(query_scores(query, tiles, ranking))
        scores_over_k(query, tiles, ranking)
        hubness(ranking, len(tiles))

    works = {
        "loop": lambda: double_loop(query[some], tiles, ranking[some]),
        "four": lambda: scores_over_k(query, tiles, ranking),
        "all": every_metric,
        "bootstrap": lambda: bootstrap_means(stacked, resamples=resamples, seed=0),
    }
    cpu = torch.device("cpu")
    seconds = time_in_turn(works, cpu, repeats)
    loop = [share * value for value in seconds["loop"]]
    case = f"{len(query):,} queries x {k}, {'real' if labels else 'drawn'} labels"
    # the labels of the queries and of each result, and the ranking, read once
    least = query.nbytes + ranking.size * tiles.shape[1] + ranking.nbytes
    four = compare(f"{case}: precision, recall, both F1", seconds["four"], loop, "double loop over pairs", wanted=50)
    four |= {"bound": "memory", "fraction": least / four["ours"] / limits(cpu).memory()}
    rows = [
        four,
        compare(f"{case}: every metric", seconds["all"], loop, "double loop, the four alone"),
        compare(f"{case}: {resamples:,} bootstrap samples", seconds["bootstrap"]),
    ]
    return [add_ratio(row) for row in rows]


def measure(full: bool = False) -> list[Row]:
    """Of drawn labels."""
    return measure_labels(loop_queries=500)


def main() -> int:
    """Print the table, or the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", help="reBEN's metadata.parquet; default: drawn labels")
    parser.add_argument("--queries", type=int, default=65_000)
    parser.add_argument("--archive", type=int, default=65_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--loop_queries", type=int, default=2_000, help="queries that the double loop is timed on")
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, not as a table")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    rows = measure_labels(**given)
    sys.stdout.write((json.dumps(rows, indent=2) if as_json else table(rows)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
