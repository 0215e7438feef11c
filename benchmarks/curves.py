"""Draws the curves of the rows that belong to one: seconds against size, on logarithmic axes, with the exponent."""

from itertools import groupby
from pathlib import Path

from benchmarks.timing import Row


def draw_curves(rows: list[Row], path: Path) -> bool:
    """Draw one panel a curve.

    Args:
        rows: Of a benchmark. Those with `curve` and `size` are points; the row after the points of a curve is its exponent.
        path: Picture to write; its name says the format.

    Returns:
        Whether there was anything to draw.
    """
    from matplotlib.figure import Figure  # an extra, and slow to import

    points = [row for row in rows if "curve" in row]
    exponents = {row["case"]: row["ours"] for row in rows}
    curves = [(name, list(own)) for name, own in groupby(points, key=lambda row: row["curve"])]
    if not curves:
        return False
    figure = Figure(figsize=(4.2 * len(curves), 3.6), layout="constrained")
    for axes, (name, own) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        sizes, seconds = [row["size"] for row in own], [row["ours"] for row in own]
        axes.loglog(sizes, seconds, marker="o", color="#1f4e79")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_yticks(seconds, [f"{value:.3g}" for value in seconds])
        axes.minorticks_off()
        *case, what = name.split(", ")
        axes.set_title("\n".join(case), fontsize=10)
        axes.set_xlabel(what)
        axes.set_ylabel("seconds")
        place, side = (0.05, "left") if seconds[-1] > seconds[0] else (0.95, "right")  # where the curve is not
        text = f"exponent {exponents[f'{name}: exponent']:.2f}"
        axes.text(place, 0.95, text, transform=axes.transAxes, va="top", ha=side)
        axes.grid(True, alpha=0.3)
    figure.savefig(path, dpi=110)
    return True
