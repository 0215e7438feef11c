"""Timing several things in turn, and the rows that become the table."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.machine import seconds_of

Row = dict[str, Any]
"""One case: `case`, `ours`, `unit`, and where they apply `yardstick`, `yardstick_name`, `low`, `high`, `wanted`, `bound`,
`fraction` (see `benchmarks/__main__.py`)."""


def time_in_turn(
    functions: Mapping[str, Callable[[], Any]], device: torch.device, repeats: int = 3, warmups: int = 1
) -> dict[str, list[float]]:
    """Call functions A, B, C, A, B, C, ...: what slows the machine down meets all of them.

    Args:
        functions: What to call, by name.
        device: Where it runs.
        repeats: Rounds that count.
        warmups: Rounds before them that do not.

    Returns:
        Seconds by name, one of each round, as `seconds_of` counts them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmups + repeats):
        for name, function in functions.items():
            spent = seconds_of(function, device)
            if turn >= warmups:
                seconds[name].append(spent)
    return seconds


def compare(
    case: str,
    ours: Sequence[float],
    yardstick: Sequence[float] | None = None,
    yardstick_name: str = "",
    *,
    items: int | None = None,
    unit: str = "s",
    flops: float | None = None,
    limit: float | None = None,
    wanted: float | None = None,
) -> Row:
    """Make the row of a case.

    Args:
        case: What was measured.
        ours: Seconds of each round.
        yardstick: Those of what it is measured against.
        yardstick_name: What that is.
        items: Items of one round, to give rates instead of seconds; then `unit` says of what, as "images/s".
        unit: Unit of the values.
        flops: Operations of matrix products in one of our rounds.
        limit: The machine's rate for them.
        wanted: Ratio that the project wants.

    Returns:
        The row.
    """
    convert = (lambda seconds: seconds) if items is None else (lambda seconds: items / seconds)
    values = sorted(map(convert, ours))
    row: Row = {"case": case, "ours": statistics.median(values), "low": values[0], "high": values[-1], "unit": unit}
    if yardstick:
        row |= {"yardstick": convert(statistics.median(yardstick)), "yardstick_name": yardstick_name}
        # pair by pair, so that a machine that slows down between rounds does not show
        row["ratio"] = statistics.median(b / a for a, b in zip(ours, yardstick, strict=True))
    if flops and limit:
        row |= {"bound": "matmul", "fraction": flops / statistics.median(ours) / limit}
    if wanted:
        row["wanted"] = wanted
    return row


def add_ratio(row: Row) -> Row:
    """Add how many times better ours is, where the row does not say it by itself."""
    if row.get("yardstick") and "ratio" not in row:
        ours, yardstick = row["ours"], row["yardstick"]
        row["ratio"] = ours / yardstick if row["unit"].endswith("/s") else yardstick / ours
    return row


def table(rows: list[Row]) -> str:
    """Lay rows out in columns, in Markdown."""
    header = ["case", "ours", "low to high", "yardstick", "ratio", "wanted", "share of limit"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        unit = row["unit"]
        spread = f"{row['low']:.4g} to {row['high']:.4g}" if "low" in row else ""
        yardstick = f"{row['yardstick']:.4g} {unit} ({row['yardstick_name']})" if row.get("yardstick") else ""
        share = f"{row['fraction']:.2f} ({row['bound']})" if row.get("fraction") else ""
        ratio, wanted = (f"{row[key]:.2f}" if row.get(key) else "" for key in ("ratio", "wanted"))
        lines.append([row["case"], f"{row['ours']:.4g} {unit}", spread, yardstick, ratio, wanted, share])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
