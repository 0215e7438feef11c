"""Time an archive beside what its answers cannot do without: a bare product and top-k of torch over the same vectors in memory.

    python -m benchmarks archive --full        480,000 tiles x 768, as BigEarthNet v2 has; else 100,000
    python -m benchmarks.archive --rows 480000

Vectors are generated as in `benchmarks.search`. The archive lies in a folder and is opened from there; its pages are in the page
cache, as those of any that was just written or read. Metadata of what is found, look-up of ids and filters are in our time.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.machine import seconds_of
from benchmarks.search import make_vectors
from benchmarks.timing import Row, compare, table, time_in_turn
from csmae_hf.archive.archive import Archive
from csmae_hf.cpu import keep_freed_memory
from csmae_hf.embedding.identity import Identity

IDENTITY = Identity("benchmark", None, "0" * 64, "0" * 64)
COUNTRIES = [f"country {number}" for number in range(10)]
ADDED = 1000
K = 10
CPU = torch.device("cpu")


def make_tiles(rows: int, first: int = 0) -> pa.Table:
    """Metadata as long as that of BigEarthNet v2."""
    rng = np.random.default_rng(first)
    labels = rng.integers(0, 19, size=(rows, 3)).astype(str)
    return pa.table(
        {
            "id": [
                f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{row % 90}_{row}" for row in range(first, first + rows)
            ],
            "country": rng.choice(COUNTRIES, rows),
            "labels": [[f"land cover {name}" for name in names] for names in labels.tolist()],
            "date_s2": (np.datetime64("2017-06-01") + rng.integers(0, 300, rows)).astype("datetime64[ms]"),
            "elevation": rng.normal(200, 90, rows),
        }
    )


def bare(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """What no answer can do without."""
    return (queries @ vectors.T).topk(K, dim=1).indices


def clock_seconds(work: Callable[..., Any], *given: Any) -> float:
    """Seconds of one call, by the clock: what a change costs is mostly waiting for the disk."""
    start = time.perf_counter()
    work(*given)
    return time.perf_counter() - start


def bytes_in(folder: Path) -> dict[str, int]:
    """Size of each file."""
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def measure_queries(name: str, archive: Archive, plain: torch.Tensor, repeats: int) -> list[Row]:
    """Rows of queries by id, by vector, filtered, and of 100 ids at once."""
    tiles = archive.tiles.column("id")
    rows = np.random.default_rng(0).choice(len(plain), 100, replace=False)
    ids = [tiles[int(row)].as_py() for row in rows]
    some = torch.from_numpy(rows)
    one, hundred = plain[some[:1]], plain[some]
    where = "country = 'country 3'"
    cases: list[tuple[str, Callable[[], Any], torch.Tensor, float]] = [
        ("one query by id", lambda: archive.search(ids[0], k=K), one, 1.3),
        ("one query by vector", lambda: archive.search(one.numpy(), k=K), one, 1.3),
        ("one query by id, filter keeps 10 %", lambda: archive.search(ids[0], k=K, filter=where), one, 1.3),
        ("100 queries by id", lambda: archive.search(ids, k=K), hundred, 1.2),
    ]
    found = []
    for case, ours, asked, most in cases:
        turns = time_in_turn({"ours": ours, "bare": lambda asked=asked: bare(asked, plain)}, CPU, repeats)
        row = compare(f"{name}: {case}", turns["ours"], turns["bare"], "torch: product, top-k", wanted=1 / most)
        found.append(row)
    return found


def measure_archive(rows: int, width: int = 768, repeats: int = 7) -> list[Row]:
    """Rows of writing, opening, asking and changing an archive of one sensor."""
    plain = make_vectors(rows, width, "s2", seed=0)
    more = make_vectors(ADDED, width, "s2", seed=1)
    size = f"{rows:,} x {width}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "archive")
        whole = clock_seconds(Archive.from_embeds({"s2": plain.numpy()}, make_tiles(rows), IDENTITY).save, folder)
        before = bytes_in(folder)
        opened = [seconds_of(lambda: Archive.load(folder, verify=False), CPU) for _ in range(3)]
        archive = Archive.load(folder, verify=False)
        found = [
            {"case": f"{size}: written", "ours": whole, "unit": "s"},
            compare(f"{size}: opened, load(verify=False)", opened, [1.0] * 3, "target", wanted=1),
            {
                "case": f"{size}: the first query by id, after opening",
                "ours": clock_seconds(lambda: archive.search(archive.tiles.column("id")[5].as_py(), k=K)),
                "unit": "s",
            },
            *measure_queries(size, archive, plain, repeats),
        ]
        tiles = make_tiles(ADDED, first=rows)
        added = clock_seconds(lambda: (archive.add_embeds({"s2": more.numpy()}, tiles), archive.save(folder)))
        after = bytes_in(folder)
        grown = sum(count for name, count in after.items() if name not in before) + after["archive.json"]
        gone = np.arange(0, rows, rows // ADDED)[:ADDED]
        ids = [archive.tiles.column("id")[int(row)].as_py() for row in gone]
        taken = clock_seconds(lambda: (archive.remove(ids), archive.save(folder)))
        changed = bytes_in(folder)
        shrunk = sum(count for name, count in changed.items() if name not in after) + changed["archive.json"]
        total = sum(before.values())
        for what, spent, share in ((f"{ADDED:,} added", added, grown), (f"{ADDED:,} removed", taken, shrunk)):
            row = {
                "case": f"{size}: {what} and saved, {100 * share / total:.3f} % of the bytes",
                "ours": spent,
                "unit": "s",
            }
            found.append(row | {"yardstick": whole, "yardstick_name": "all written", "wanted": 100})
        kept = np.setdiff1d(np.arange(rows + ADDED), gone)
        plain = torch.cat([plain, more])[torch.from_numpy(kept)]
        found += measure_queries(f"{size}, then changed", archive, plain, repeats)
        again = Archive.load(folder, verify=False)
        assert_same(again, plain)
    return found


def assert_same(archive: Archive, plain: torch.Tensor) -> None:
    """Refuse figures of an archive that finds something else than the bare product does."""
    asked = plain[:20]
    ours = archive.search(asked.numpy(), k=K).scores
    best = (asked @ plain.T).topk(K, dim=1).values.numpy()
    if not np.allclose(ours, best, atol=1e-5):
        raise ValueError("The archive finds other tiles than a bare product does.")


def measure(full: bool = False) -> list[Row]:
    """100,000 tiles; with `full` 480,000."""
    return measure_archive(480_000 if full else 100_000)


def main() -> int:
    """Print the table, or the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, not as a table")
    given = vars(parser.parse_args())
    keep_freed_memory()
    as_json = given.pop("json")
    rows = measure_archive(**given)
    sys.stdout.write((json.dumps(rows, indent=2) if as_json else table(rows)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
