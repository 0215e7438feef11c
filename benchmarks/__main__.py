"""Run the benchmarks and print what was measured as a table, and as JSON on request.

    python -m benchmarks                       everything, at sizes for a laptop
    python -m benchmarks step embedding        some of it
    python -m benchmarks --full --json gpu.json

A module of this folder that has `measure(full: bool) -> list[dict]` is a benchmark. A row has `case`, `ours` and `unit`
("s" or "MiB": less is better; "images/s" and whatever else ends in "/s": more is), and where they apply `yardstick` with
`yardstick_name`, `low` and `high` of ours over the repeats, `wanted` (the ratio that the project wants), `bound` and
`fraction` (what limits it, and the share of the machine's limit that it reaches). The ratio is above 1 where ours is better.
Memory that tensors gave back is kept, as the project's scripts keep it; the yardsticks profit too.
Threads are those that torch takes: set OMP_NUM_THREADS. With one thread on a CPU, seconds are the processor's and other work on
the machine hardly changes them; with more they are the clock's, and the machine should be idle.
"""

import argparse
import importlib
import json
import logging
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.curves import draw_curves
from benchmarks.machine import describe, limits
from benchmarks.timing import add_ratio, table
from csmae_hf.cpu import keep_freed_memory

logger = logging.getLogger("benchmarks")
FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the benchmarks, found by what they define."""
    return [module.name for module in pkgutil.iter_modules([str(FOLDER)]) if _gives_rows(module.name)]


def _gives_rows(name: str) -> bool:
    return "\ndef measure(full: bool" in (FOLDER / f"{name}.py").read_text()


def limit_rows(device: torch.device) -> list[dict[str, Any]]:
    """What the machine can do, in the table's form."""
    rates = limits(device)
    return [
        *(
            {"case": f"limit: matmul, {dtype}", "ours": rates.matmul(dtype) / 1e9, "unit": "Gflop/s"}
            for dtype in (torch.float32, torch.bfloat16)
        ),
        {"case": "limit: memory", "ours": rates.memory() / 1e9, "unit": "GB/s"},
    ]


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names())}; default all")
    parser.add_argument("--full", action="store_true", help="sizes for a GPU machine")
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--plots", type=Path, help="folder for a picture of each benchmark that has curves")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in names()]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}: there are {', '.join(names())}")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report: dict[str, Any] = {"machine": describe(), "limits": limit_rows(device), "benchmarks": {}}
    machine = ", ".join(f"{key} {value}" for key, value in report["machine"].items())
    sys.stdout.write(f"{machine}\n\n{table(report['limits'])}\n\n")
    for name in arguments.names or names():
        logger.info("%s ...", name)
        start = time.perf_counter()
        measured = importlib.import_module(f"benchmarks.{name}").measure(full=arguments.full)
        report["benchmarks"][name] = rows = [add_ratio(row) for row in measured]
        sys.stdout.write(f"## {name} ({time.perf_counter() - start:.0f} s)\n\n{table(rows)}\n\n")
        sys.stdout.flush()
        if arguments.plots:
            arguments.plots.mkdir(parents=True, exist_ok=True)
            draw_curves(rows, arguments.plots / f"{name}.png")
        if arguments.json:  # after each: an hour of measuring is not lost to the one that fails
            arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
