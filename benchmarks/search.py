"""Time the indexes of an archive beside a plain torch product and top-k, and measure how much of the exact answer they find.

    python -m benchmarks.search
    python -m benchmarks.search --rows 100000 --width 768 --queries 500
    python -m benchmarks.search --rows 60000 --width 768 --codes

The vectors are generated (seeded): each tile mixes 1 to 5 of 43 classes in a latent space of 48, seen through a curved map; queries
are of another sensor, which bends and shifts that map. They are no embeds of real tiles: compare the indexes on an archive of your
own with `csmae archive index`. Trust ratios within one run, not seconds. One core: set OMP_NUM_THREADS=1.
"""

import argparse
import json
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.machine import limits
from benchmarks.timing import Row, compare, table, time_in_turn
from csmae_hf.cpu import keep_freed_memory
from csmae_hf.search.build_index import build_index
from csmae_hf.search.compression import describe_codes, measure_codes
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.index import ArchiveIndex
from csmae_hf.search.recall import SHARES, bucket_filter, measure_recall, with_buckets
from csmae_hf.search.vectors import Vectors

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


def plain_search(queries: torch.Tensor, vectors: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """What anybody would write."""
    return (queries @ (vectors if kept is None else vectors[kept]).T).topk(10, dim=1).indices


def measure_index(
    name: str, index: ArchiveIndex, queries: torch.Tensor, plain: torch.Tensor, tiles: pa.Table, repeats: int
) -> list[Row]:
    """Rows of an index under each filter, for all queries at once and for one, beside torch over the same vectors."""
    exact, cpu = ExactIndex(Vectors([plain])), torch.device("cpu")
    recalls = {item.share: item.recall for item in measure_recall(index, exact, {"s1": queries}, "s2", tiles)}
    rows = []
    for share in SHARES:
        selection = bucket_filter(share, tiles)
        kept = None if selection is None else torch.from_numpy(selection.rows)
        vectors = len(plain) if kept is None else len(kept)
        if vectors < 10:
            continue
        for count in (len(queries), 1):
            few = queries[:count]
            works = {
                "ours": partial(index.search, few, 10, selection),
                "torch": partial(plain_search, few, plain, kept),
            }
            # a call of microseconds is repeated, so that each round takes a while
            calls = 1 if count > 1 else 20
            seconds = time_in_turn({key: partial(_repeat, work, calls) for key, work in works.items()}, cpu, repeats)
            case = f"{name}{'' if share == 1 else f', a filter keeps {100 * share:g} %'}, {count} at once, recall {recalls[share]:.3f}"
            row = compare(
                case,
                seconds["ours"],
                seconds["torch"],
                "torch: product, top-k",
                items=count * calls,
                unit="queries/s",
            )
            if isinstance(index, ExactIndex):  # an approximate index looks at some vectors only
                if count > 1:
                    rate, most = row["ours"] * 2 * vectors * plain.shape[1], limits(cpu).matmul(torch.float32)
                    row |= {"bound": "matmul", "fraction": rate / most}
                else:
                    rate, most = row["ours"] * vectors * plain.shape[1] * plain.element_size(), limits(cpu).memory()
                    row |= {"bound": "memory", "fraction": rate / most}
            rows.append(row)
    return rows


def _repeat(work: Any, calls: int) -> None:
    for _ in range(calls):
        work()


def measure_vectors(rows: int, width: int, queries: int, kinds: list[str], repeats: int = 5) -> list[Row]:
    """Rows of exact search and of faiss's indexes over generated vectors."""
    plain = make_vectors(rows, width, "s2", seed=0)
    asked = make_vectors(queries, width, "s1", seed=1)
    sides = {"s2": Vectors([plain]), "s1": Vectors([make_vectors(rows, width, "s1", seed=0)])}
    ids = [str(row) for row in range(rows)]
    tiles = with_buckets(pa.table({"id": ids}), ids)
    size = f"{rows:,} x {width}"
    found = measure_index(f"{size}: exact", ExactIndex(sides["s2"]), asked, plain, tiles, repeats)
    for kind in kinds:
        start = time.perf_counter()
        index, _ = build_index("faiss", "s2", sides, tiles, kind=kind)
        built = time.perf_counter() - start
        name = f"{size}: faiss {kind}, effort {index.parameters['effort']}"
        found += measure_index(name, index, asked, plain, tiles, repeats)
        found.append({"case": f"{name}: built, effort chosen, recall measured", "ours": built, "unit": "s"})
    return found


def measure(full: bool = False) -> list[Row]:
    """60,000 vectors as wide as ViT-B; with `full` 200,000."""
    return measure_vectors(200_000, 768, 100, ["ivf"]) if full else measure_vectors(60_000, 768, 100, ["ivf"])


def main() -> int:
    """Print the table, or the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--kinds", nargs="*", default=["ivf", "hnsw"], choices=["ivf", "hnsw"], help="of faiss")
    parser.add_argument(
        "--codes", action="store_true", help="measure compact codes in every direction, and nothing else"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, not as a table")
    given = vars(parser.parse_args())
    keep_freed_memory()
    as_json = given.pop("json")
    if given.pop("codes"):
        sides = {sensor: Vectors([make_vectors(given["rows"], given["width"], sensor, 0)]) for sensor in ("s1", "s2")}
        tiles = pa.table({"id": [str(row) for row in range(given["rows"])]})
        sys.stdout.write("\n".join(describe_codes(measure_codes(sides, tiles))) + "\n")
        return 0
    rows = measure_vectors(**given)
    sys.stdout.write((json.dumps(rows, indent=2) if as_json else table(rows)) + "\n")
    return 0


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
