"""Time the indexes of an archive beside a plain torch product and top-k, and measure how much of the exact answer they find.

    python benchmarks/search.py
    python benchmarks/search.py --rows 100000 --width 768 --queries 500

The vectors are generated (seeded): each tile mixes 1 to 5 of 43 classes in a latent space of 48, seen through a curved map; queries
are of another sensor, which bends and shifts that map. They are no embeds of real tiles: compare the indexes on an archive of your
own with `csmae archive index`. Trust ratios within one run, not seconds. One core: set OMP_NUM_THREADS=1.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.retrieval.index import ArchiveIndex
from csmae_hf.retrieval.index.build import build_index
from csmae_hf.retrieval.index.exact import ExactIndex
from csmae_hf.retrieval.index.recall import SHARES, bucket_filter, measure_recall, with_buckets
from csmae_hf.retrieval.vectors import Vectors

CLASSES, LATENT = 43, 48
_BLOCK = 20_000


def make_vectors(rows: int, width: int, sensor: str, seed: int) -> torch.Tensor:
    """(rows, width) unit vectors of tiles as one of two sensors sees them."""
    fixed = torch.Generator().manual_seed(7)
    centers = torch.randn(CLASSES, LATENT, generator=fixed)
    inner = torch.randn(LATENT, 256, generator=fixed) / LATENT**0.5
    outer = torch.randn(256, width, generator=fixed) / 16
    if sensor == "s1":
        inner = inner + 0.15 * torch.randn(LATENT, 256, generator=fixed) / LATENT**0.5
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.empty(rows, width)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        order = torch.rand(count, CLASSES, generator=generator).argsort(dim=1)
        numbers = torch.randint(1, 6, (count, 1), generator=generator)
        shares = torch.rand(count, CLASSES, generator=generator) * (order < numbers)
        latent = shares / shares.sum(dim=1, keepdim=True) @ centers
        latent = latent + 0.3 * torch.randn(count, LATENT, generator=generator)
        values = torch.nn.functional.gelu(2 * latent @ inner) @ outer + (0.1 if sensor == "s1" else 0.0)
        vectors[start : start + count] = torch.nn.functional.normalize(values)
    return vectors


def seconds_of(function: Callable[[], Any], least: float = 0.5) -> float:
    """Best time of one call, over at least two calls and half a second."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < least:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def plain_search(queries: torch.Tensor, vectors: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """What anybody would write."""
    return (queries @ (vectors if kept is None else vectors[kept]).T).topk(10, dim=1).indices


def measure(
    name: str, index: ArchiveIndex, built: float, queries: torch.Tensor, plain: torch.Tensor, tiles: pa.Table
) -> list[list[str]]:
    """Rows of the table: an index under each filter, beside torch over the same rows."""
    exact = ExactIndex(Vectors([plain]))
    recalls = {item.share: item.recall for item in measure_recall(index, exact, {"s1": queries}, "s2", tiles)}
    rows = []
    for share in SHARES:
        selection = bucket_filter(share, tiles)
        kept = None if selection is None else torch.from_numpy(selection.rows)
        if kept is not None and len(kept) < 10:
            continue
        batch = seconds_of(lambda: index.search(queries, 10, selection))  # noqa: B023 (called at once)
        torch_batch = seconds_of(lambda: plain_search(queries, plain, kept))  # noqa: B023
        single = seconds_of(lambda: index.search(queries[:1], 10, selection))  # noqa: B023
        torch_single = seconds_of(lambda: plain_search(queries[:1], plain, kept))  # noqa: B023
        rows.append(
            [
                name if share == 1 else "",
                f"{built:.1f}" if share == 1 else "",
                "none" if share == 1 else f"{100 * share:g} %",
                f"{recalls[share]:.3f}",
                f"{len(queries) / batch:.0f}",
                f"{torch_batch / batch:.2f}",
                f"{1000 * single:.2f}",
                f"{torch_single / single:.2f}",
            ]
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--kinds", nargs="*", default=["ivf", "hnsw"], choices=["ivf", "hnsw"], help="of faiss")
    arguments = parser.parse_args()
    plain = make_vectors(arguments.rows, arguments.width, "s2", seed=0)
    queries = make_vectors(arguments.queries, arguments.width, "s1", seed=1)
    sides = {"s2": Vectors([plain]), "s1": Vectors([make_vectors(arguments.rows, arguments.width, "s1", seed=0)])}
    ids = [str(row) for row in range(arguments.rows)]
    tiles = with_buckets(pa.table({"id": ids}), ids)
    table = [["index", "build s", "filter keeps", "recall@10", "queries/s", "x torch", "ms for one", "x torch"]]
    table += measure("exact", ExactIndex(sides["s2"]), 0.0, queries, plain, tiles)
    for kind in arguments.kinds:
        start = time.perf_counter()
        index, _ = build_index("faiss", "s2", sides, tiles, kind=kind)
        built = time.perf_counter() - start
        table += measure(f"faiss {kind}, effort {index.parameters['effort']}", index, built, queries, plain, tiles)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        sys.stdout.write("  ".join(map(str.ljust, row, widths)).rstrip() + "\n")
    sys.stdout.write(
        f"{arguments.rows} generated vectors of width {arguments.width}, {arguments.queries} queries at once or one, "
        f"{torch.get_num_threads()} thread(s).\n"
        "x torch: how many times as fast as (queries @ vectors[kept].T).topk(10) in this run.\n"
        "Build time includes choosing the effort and measuring the recall in both directions.\n"
    )


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
