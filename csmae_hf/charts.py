"""Curves and bars, as matplotlib figures for files and as SVG for web pages: training, evaluation and its report draw by these.

Series are told apart by colour and by dashes, and each is named where it ends or in the legend above. matplotlib is imported when
a chart is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from csmae_hf.visualize import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#e69f00", "#882255", "#44aa99", "#999933")
"""Colours that people with any colour vision can tell apart (after Okabe and Ito, and Tol)."""

_INK, _FAINT = "#1f2328", "#6e7781"
_DASHES = ("-", "--", "-.", ":")

Curve = tuple[Sequence[float], Sequence[float]]
"""Places and values; a value that is not finite leaves a gap."""

Bar = tuple[float, tuple[float, float] | None]
"""A value and its interval."""


def curves(
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    x_label: str,
    y_label: str = "",
    log: bool = False,
    zero: bool = False,
    width: float = 6.2,
) -> Figure:
    """Draw curves, each named at its end with its last value.

    Args:
        panels: Curves by name, by the title of their panel; the panels lie side by side.
        x_label: Name of the places.
        y_label: Name of the values.
        log: Whether the values have a logarithmic axis.
        zero: Whether the axis of the values begins at 0.
        width: Of a panel without the names of its curves, in inches.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no curve, or one whose places and values differ in number.
        ImportError: If matplotlib is missing.
    """
    for series in panels.values():
        if not series:
            raise ValueError("A chart of curves needs at least one curve.")
        for name, (places, values) in series.items():
            if len(places) != len(values) or len(places) == 0:
                raise ValueError(
                    f"Curve {name!r} must have as many steps as values, and at least one: got {len(places)} and {len(values)}."
                )
    height, left, bottom, top = 3.6, 0.85, 0.55, 0.4  # inches
    longest = max(len(name) for series in panels.values() for name in series)
    names = 0.55 + 0.075 * (longest + 2)  # what the words beside the curves need, in inches
    figure = new_figure((width + names) * len(panels), height)
    for number, (title, series) in enumerate(panels.items()):
        start = number * (width + names) + left
        axes = figure.add_axes(
            (
                start / figure.get_figwidth(),
                bottom / height,
                (width - left) / figure.get_figwidth(),
                1 - (bottom + top) / height,
            )
        )
        for place, (name, (x, y)) in enumerate(series.items()):
            axes.plot(
                np.asarray(x, float),
                np.asarray(y, float),
                _DASHES[place % len(_DASHES)],
                color=PALETTE[place % len(PALETTE)],
                label=name,
                linewidth=1.6,
                marker="o" if len(x) == 1 else "",
            )
        _dress(axes, title, x_label, y_label)
        axes.grid(axis="y", color="#eaeef2", linewidth=0.8)
        axes.locator_params(axis="x", integer=True)
        if zero:
            axes.set_ylim(bottom=0)
        if log:  # plain numbers at 1, 2 and 5: powers of ten are too few, and too wide for the margin
            axes.set_yscale("log", subs=(2, 5))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        _name_curves(axes, series)
    return figure


def _dress(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Title, names of the axes, and no box."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=_INK, pad=10)
    axes.set_xlabel(x_label, fontsize=9, color=_INK)
    axes.set_ylabel(y_label, fontsize=9, color=_INK)
    axes.tick_params(which="both", labelsize=8, colors=_FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#d0d7de")


def _name_curves(axes: Axes, series: Mapping[str, Curve]) -> None:
    """Write the name and last value of each curve beside its end, pushed apart where they would overlap."""
    axes.get_ylim()  # brings the limits up to date, which the transformation below needs
    ends = []
    for line, (places, values) in zip(axes.get_lines(), series.values(), strict=True):
        finite = [index for index, value in enumerate(values) if np.isfinite(value)]
        last = finite[-1] if finite else 0
        point = axes.transData.transform((places[last], values[last])) if finite else (0.0, 0.0)
        height = float(axes.transAxes.inverted().transform(point)[1])
        ends.append((height, f"{line.get_label()}  {values[last]:#.3g}", line.get_color()))
    ends.sort(key=lambda end: end[0])
    heights = spread_apart([height for height, _, _ in ends], 0.062)
    for height, (_, words, color) in zip(heights, ends, strict=True):
        axes.text(1.02, height, words, color=color, transform=axes.transAxes, fontsize=8.5, va="center", clip_on=False)


def spread_apart(heights: Sequence[float], step: float) -> list[float]:
    """Move places in 0..1 apart, as little as needed, so that no two are closer than `step`.

    Args:
        heights: The places, ascending.
        step: Smallest distance; it is reduced where there is no room for it.

    Returns:
        The new places, ascending.
    """
    step = min(step, 1.0 / max(len(heights) - 1, 1))
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + step) if places else max(height, 0.0))
    ceiling = 1.0
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - step
    return places


def bars(groups: Mapping[str, Sequence[Bar | None]], names: Sequence[str], *, title: str, x_label: str) -> Figure:
    """Draw groups of lying bars from 0 to 1, with their values beside them and their intervals as whiskers.

    Args:
        groups: For each series a bar, or None for none, by the name of the group; it may have two lines.
        names: Of the series.
        title: Headline.
        x_label: Name of the values.

    Returns:
        The figure.

    Raises:
        ImportError: If matplotlib is missing.
    """
    row, gap, left, right, top, bottom = 0.17, 0.16, 2.1, 0.6, 0.75, 0.5  # inches
    width, step = 8.0, max(len(names) * row, 2 * row) + gap
    height = top + bottom + step * len(groups)
    figure = new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height))
    for number, name in enumerate(names):
        color, offset = PALETTE[number % len(PALETTE)], (number - (len(names) - 1) / 2) * row
        there = [(place, members[number]) for place, members in enumerate(groups.values())]
        drawn = [(place * step + offset, bar) for place, bar in there if bar is not None]
        axes.barh([y for y, _ in drawn], [value for _, (value, _) in drawn], 0.8 * row, color=color, label=name)
        for y, (value, interval) in drawn:
            if interval is not None:
                axes.plot(interval, (y, y), color=_INK, linewidth=1.1)
            axes.text(
                1.01, y, f"{value:.3f}", transform=axes.get_yaxis_transform(), fontsize=7.5, color=_INK, va="center"
            )
    _dress(axes, "", x_label, "")
    axes.set_yticks([place * step for place in range(len(groups))], list(groups), fontsize=8.5, color=_INK)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.set_ylim((len(groups) - 0.5) * step, -0.5 * step)
    axes.grid(axis="x", color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)
    figure.text(0.1 / width, 1 - 0.12 / height, title, fontsize=11, fontweight="bold", color=_INK, va="top")
    figure.legend(
        loc="upper left",
        bbox_to_anchor=(left / width, 1 - 0.35 / height),
        ncols=min(len(names), 4),
        frameon=False,
        fontsize=9,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.5,
    )
    return figure


def as_svg(figure: Figure, description: str) -> str:
    """Write a figure as an element of a web page: words stay words, nothing points out of the page, same figure, same text.

    Args:
        figure: The figure.
        description: What it shows, for those who cannot see it.

    Returns:
        The `<svg>` element.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "csmae"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = re.sub(
        r' xmlns(:\w+)?="[^"]*"|<style[^>]*>.*?</style>|<!--.*?-->', "", text[text.index("<svg") :], flags=re.S
    )
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
