"""Time the metrics of 65,000 queries x 10 results, beside the direct double loop over pairs that the original evaluates with.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --labels metadata.parquet        label sets of real BigEarthNet (reBEN's table)

Nothing is searched: rankings are random. One core: set OMP_NUM_THREADS=1. The loop is timed on some queries and scaled up.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from csmae_hf.bigearthnet import LABELS
from csmae_hf.retrieval.confidence import bootstrap_means
from csmae_hf.retrieval.labels import multi_hot
from csmae_hf.retrieval.metrics import retrieval_scores
from csmae_hf.retrieval.ranking import hubness, mean_scores, query_scores, scores_over_k


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


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it gave."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main() -> int:
    """Measure and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", help="reBEN's metadata.parquet; default: drawn labels")
    parser.add_argument("--queries", type=int, default=65_000)
    parser.add_argument("--archive", type=int, default=65_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--loop_queries", type=int, default=2_000, help="queries that the double loop is timed on")
    parser.add_argument("--resamples", type=int, default=1_000)
    arguments = parser.parse_args()
    query = load_labels(arguments.labels, arguments.queries, "validation", 0)
    archive = load_labels(arguments.labels, arguments.archive, "test", 1)
    rng = np.random.default_rng(2)
    first = rng.integers(0, len(archive) - arguments.k, (len(query), 1))
    ranking = rng.permutation(len(archive))[first + np.arange(arguments.k)]
    some = slice(arguments.loop_queries)

    loop, by_loop = timed(lambda: double_loop(query[some], archive, ranking[some]))
    four, _ = timed(lambda: retrieval_scores(query, archive, ranking))
    scores_time, scores = timed(lambda: query_scores(query, archive, ranking))
    rest, _ = timed(
        lambda: (mean_scores(scores), scores_over_k(query, archive, ranking), hubness(ranking, len(archive)))
    )
    bootstrap, _ = timed(lambda: bootstrap_means(np.stack(scores, axis=1), resamples=arguments.resamples, seed=0))
    vectorised = list(vars(retrieval_scores(query[some], archive, ranking[some])).values())
    report = {
        "queries": len(query),
        "archive": len(archive),
        "k": arguments.k,
        "labels": arguments.labels or "drawn",
        "double_loop_s": loop * len(query) / len(query[some]),
        "same_four_s": four,
        "all_metrics_s": scores_time + rest,
        "bootstrap_s": bootstrap,
        "resamples": arguments.resamples,
        "loop_over_same_four": loop * len(query) / len(query[some]) / four,
        "largest_difference": float(np.abs(np.subtract(vectorised, by_loop)).max()),
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
