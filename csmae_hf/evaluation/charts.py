"""Small charts as SVG text: lines over k, and bars with intervals."""

from collections.abc import Sequence
from html import escape
from itertools import pairwise

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#e69f00", "#882255", "#44aa99", "#999933")
"""Colours that people with any colour vision can tell apart (after Okabe and Ito, and Tol)."""

_DASHES = ("", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3", "8 3 2 3", "")

Bar = tuple[float, tuple[float, float] | None]


def _stroke(number: int) -> str:
    """Colour and dashes of a series: it is told by both."""
    place = number % len(PALETTE)
    dashes = f' stroke-dasharray="{_DASHES[place]}"' if _DASHES[place] else ""
    return f'stroke="{PALETTE[place]}" stroke-width="2" fill="none"{dashes}'


def legend(names: Sequence[str], *, filled: bool = False) -> str:
    """The names of the series, each with its line or its bar.

    Args:
        names: Of the series.
        filled: Show bars.

    Returns:
        HTML.
    """
    items = []
    for number, name in enumerate(names):
        color = PALETTE[number % len(PALETTE)]
        mark = f'<rect width="26" height="10" fill="{color}"/>' if filled else f'<path d="M0 5H26" {_stroke(number)}/>'
        items.append(f'<span><svg viewBox="0 0 26 10" aria-hidden="true">{mark}</svg>{escape(name)}</span>')
    return f'<div class="legend">{"".join(items)}</div>'


def line_chart(title: str, series: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Lines over 1, 2, ... from 0 to a round number above the highest.

    Args:
        title: Above the chart.
        series: Name and values of each line.

    Returns:
        An SVG.
    """
    width, height, left, top, right, bottom = 360, 240, 40, 30, 52, 30
    count = max(len(values) for _, values in series)
    ceiling = _ceiling(max(max(values) for _, values in series))

    def x(place: int) -> float:
        return left + (width - left - right) * (place / max(count - 1, 1))

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - value / ceiling)

    parts = [f'<text x="{left}" y="16" font-size="13" font-weight="600">{escape(title)}</text>']
    for step in range(5):
        value = ceiling * step / 4
        parts.append(f'<path d="M{left} {y(value):.1f}H{width - right}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for place in sorted({0, count - 1, *range(4, count - 1, max(5, count // 5))}):
        parts.append(f'<text x="{x(place):.1f}" y="{height - 10}" text-anchor="middle">{place + 1}</text>')
    for number, (name, values) in enumerate(series):
        points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(values))
        label = escape(f"{name}: {values[-1]:.4f} at {len(values)}")
        parts.append(f'<polyline points="{points}" {_stroke(number)}><title>{label}</title></polyline>')
    ends = _spread([y(values[-1]) for _, values in series], 12.0)
    for number, ((_, values), place) in enumerate(zip(series, ends, strict=True)):
        color = PALETTE[number % len(PALETTE)]
        parts.append(f'<text x="{width - right + 6}" y="{place + 4:.1f}" fill="{color}">{values[-1]:.3f}</text>')
    described = "; ".join(f"{name} {values[-1]:.4f}" for name, values in series)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"{title}: {described}")}" font-size="11" '
        f'fill="#1f2328">{"".join(parts)}</svg>'
    )


def bars(groups: Sequence[tuple[str, str, Sequence[Bar | None]]], names: Sequence[str]) -> str:
    """Groups of bars from 0 to 1, with intervals as whiskers.

    Args:
        groups: Of each its name, a note, and a bar for each series (None for none).
        names: Of the series.

    Returns:
        HTML.
    """
    return f'<div class="bars">{"".join(_bar_group(*group, names) for group in groups)}</div>'


def _bar_group(name: str, note: str, values: Sequence[Bar | None], names: Sequence[str]) -> str:
    width, row, label = 420, 15, 46
    span = width - label
    parts = []
    for number, bar in enumerate(values):
        if bar is None:
            continue
        value, interval = bar
        top, color = number * row + 2, PALETTE[number % len(PALETTE)]
        tip = escape(f"{names[number]}: {value:.4f}")
        parts.append(f'<rect x="0" y="{top}" width="{span}" height="{row - 4}" fill="#f0f2f4"/>')
        parts.append(
            f'<rect x="0" y="{top}" width="{value * span:.1f}" height="{row - 4}" fill="{color}"><title>{tip}</title></rect>'
        )
        if interval is not None:
            first, last = (end * span for end in interval)
            middle = top + (row - 4) / 2
            parts.append(f'<path d="M{first:.1f} {middle}H{last:.1f}" stroke="#1f2328" stroke-width="1.5"/>')
        parts.append(f'<text x="{width}" y="{top + 10}" text-anchor="end" font-size="11">{value:.3f}</text>')
    described = escape(f"{name}: " + "; ".join(f"{n} {b[0]:.4f}" for n, b in zip(names, values, strict=True) if b))
    return (
        f'<div class="bar-group"><h3>{escape(name)}<small>{escape(note)}</small></h3>'
        f'<svg viewBox="0 0 {width} {row * len(values) + 2}" role="img" aria-label="{described}" fill="#1f2328">'
        f"{''.join(parts)}</svg></div>"
    )


def _ceiling(highest: float) -> float:
    """A round number not below the highest value."""
    return next((step / 10 for step in range(2, 11, 2) if step / 10 >= highest), max(highest, 1.0))


def _spread(places: Sequence[float], least: float) -> list[float]:
    """Places moved apart so that no two are closer than `least`, in their order."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    moved = list(places)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + least)
    overflow = max(0.0, max(moved) - max(places) - least) if moved else 0.0
    return [place - overflow / 2 for place in moved]
