"""Pictures: from tiles to RGB, and from RGB to figures. Knows nothing of datasets, models or archives.

The first half are pure functions from `{band: array}` to an RGB array of floats in 0..1. Every one takes its limits as an argument, so
that all tiles of one figure can be stretched the same way. The second half draw figures into files; matplotlib is imported when they
are called, draws with Agg, and no global state of it is touched.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Bands = Mapping[str, ArrayLike]
Limits = Sequence[tuple[float, float]]
Image = NDArray[np.floating[Any]]

TRUE_COLOR_LIMITS: Limits = ((0.0, 1600.0), (100.0, 1550.0), (100.0, 1400.0))
"""Digital numbers of B04, B03, B02 shown as black and as full colour."""

FALSE_COLOR_LIMITS: Limits = ((0.0, 4800.0), (0.0, 2000.0), (0.0, 1800.0))
"""Digital numbers of B08, B04, B03 shown as black and as full colour."""

SAR_LIMITS: Limits = ((-22.0, -2.0), (-28.0, -8.0), (1.0, 13.0))
"""dB of VV, VH and VV - VH shown as black and as full colour."""

GAMMA: float = 0.8
"""Exponent of the optical composites: below 1 it lightens forests and water."""

ABBREVIATIONS: dict[str, str] = {
    "Agro-forestry areas": "Agro-forestry",
    "Beaches, dunes, sands": "Beaches, dunes",
    "Broad-leaved forest": "Broad-leaved",
    "Complex cultivation patterns": "Complex cultiv.",
    "Coniferous forest": "Coniferous",
    "Industrial or commercial units": "Industry",
    "Land principally occupied by agriculture, with significant areas of natural vegetation": "Agric. + nature",
    "Moors, heathland and sclerophyllous vegetation": "Moors, heath",
    "Natural grassland and sparsely vegetated areas": "Nat. grassland",
    "Transitional woodland, shrub": "Trans. woodland",
}
"""Short names of long class names, for figures; a name that is not here is cut where it is too long."""

_HIT, _MISS, _INK, _FAINT = "#1a7f37", "#c62828", "#1f2328", "#6e7781"
_FONT = "DejaVu Sans"  # has the check mark and the cross; any system's matplotlib brings it

_MARK = "Drawn by csmae-hf"  # in the metadata of PNG, SVG and PDF


def shown_band(bands: Bands, name: str) -> ArrayLike:
    """Give a band, (H, W), in dB or digital numbers, where the image says by its attribute `unit` that it is in another unit."""
    unit = getattr(bands, "unit", None)
    if unit in (None, "db", "dn"):
        return bands[name]
    import torch

    from image_checks_csmae import BAND_UNIT, convert_unit  # here, so that colours alone need no torch

    if name not in BAND_UNIT:
        return bands[name]
    pixels: ArrayLike = convert_unit(torch.from_numpy(np.array(bands[name], dtype=np.float32)), unit).numpy()
    return pixels


def _stack(bands: Bands, names: Sequence[str]) -> Image:
    """Put bands side by side at the size of the largest: (H, W, len(names)) float32. Smaller ones are repeated."""
    missing = [name for name in names if name not in bands]
    if missing:
        raise ValueError(
            f"This picture needs the bands {', '.join(names)}; {', '.join(missing)} missing, given: {', '.join(bands)}."
        )
    layers = [np.asarray(shown_band(bands, name), dtype=np.float32) for name in names]
    for name, layer in zip(names, layers, strict=True):
        if layer.ndim != 2:
            raise ValueError(f"Band {name} must be an array (H, W), got the shape {layer.shape}.")
    height, width = max(layer.shape for layer in layers)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    return np.stack(
        [layer[rows * layer.shape[0] // height, columns * layer.shape[1] // width] for layer in layers], axis=-1
    )


def stretch(channels: ArrayLike, limits: Limits, gamma: float = 1.0) -> Image:
    """Bring channels (H, W, C) to 0..1, float32, by the limits of each; what is not finite is 0.

    Args:
        limits: C increasing pairs (value shown as 0, value shown as 1); anything else is a ValueError.
        gamma: Exponent applied after it.
    """
    values = np.asarray(channels, dtype=np.float32)
    pairs = np.asarray(limits, dtype=np.float32)
    if values.ndim != 3 or pairs.shape != (values.shape[-1], 2):
        raise ValueError(
            f"limits must be one (low, high) for each channel of (H, W, C): got {pairs.shape} for {values.shape}."
        )
    if not (pairs[:, 1] > pairs[:, 0]).all():
        raise ValueError(f"Each of the limits must be (low, high) with low < high, got {list(limits)}.")
    scaled = (values - pairs[:, 0]) / (pairs[:, 1] - pairs[:, 0])
    return np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0) ** np.float32(gamma)


def true_color(bands: Bands, limits: Limits = TRUE_COLOR_LIMITS) -> Image:
    """Show Sentinel-2 as the eye would see it: B04, B03, B02.

    Args:
        bands: Digital numbers by band name, each (H, W); a band that is missing is a ValueError.
        limits: Digital numbers of each channel shown as 0 and 1.

    Returns:
        (H, W, 3) float32 in 0..1.
    """
    return stretch(_stack(bands, ("B04", "B03", "B02")), limits, GAMMA)


def false_color(bands: Bands, limits: Limits = FALSE_COLOR_LIMITS) -> Image:
    """Show Sentinel-2 with the near infrared as red, so vegetation is red: B08, B04, B03; otherwise as `true_color`."""
    return stretch(_stack(bands, ("B08", "B04", "B03")), limits, GAMMA)


def sar_composite(bands: Bands, limits: Limits = SAR_LIMITS) -> Image:
    """Show Sentinel-1, in dB, in colour: VV red, VH green, VV - VH (their ratio) blue; otherwise as `true_color`."""
    return stretch(_sar_channels(bands), limits)


def _sar_channels(bands: Bands) -> Image:
    pair = _stack(bands, ("VV", "VH"))
    return np.concatenate([pair, pair[..., :1] - pair[..., 1:]], axis=-1)


def _channels(bands: Bands, sensor: str | None) -> tuple[Image, Limits | None, float]:
    """The three channels of the picture that suits the bands, its usual limits and its gamma."""
    if not bands:
        raise ValueError("A picture needs at least one band; none was given.")
    if sensor == "s1" or (sensor != "s2" and not {"B02", "B03", "B04"} <= set(bands) and {"VV", "VH"} <= set(bands)):
        return _sar_channels(bands), SAR_LIMITS, 1.0
    if {"B02", "B03", "B04"} <= set(bands):
        return _stack(bands, ("B04", "B03", "B02")), TRUE_COLOR_LIMITS, GAMMA
    names = list(bands)[:3] if len(bands) >= 3 else [next(iter(bands))] * 3
    return _stack(bands, names), None, 1.0


def _percentiles(channels: Sequence[Image]) -> Limits:
    """The 2nd and 98th percentile of each channel over several stacks of them."""
    pixels = np.concatenate([image.reshape(-1, image.shape[-1]) for image in channels])
    limits = []
    for channel in pixels.T:
        finite = channel[np.isfinite(channel)]
        bottom, top = np.percentile(finite, [2, 98]) if finite.size else (0.0, 1.0)
        limits.append((float(bottom), float(top) if top > bottom else float(bottom) + 1.0))
    return limits


def common_limits(tiles: Iterable[Bands], sensor: str | None = None) -> Limits:
    """Measure limits that suit all tiles of a figure: the 2nd and 98th percentile over all of their pixels.

    Args:
        tiles: Tiles of one sensor, as for `to_rgb`; none is a ValueError.
        sensor: "s1", "s2" or another name, as for `to_rgb`.

    Returns:
        Three pairs (low, high), to be passed to `to_rgb`.
    """
    channels = [_channels(bands, sensor)[0] for bands in tiles]
    if not channels:
        raise ValueError("common_limits needs at least one tile.")
    return _percentiles(channels)


def to_rgb(bands: Bands, sensor: str | None = None, limits: Limits | None = None) -> Image:
    """Show a tile of any sensor by the bands that it has.

    B04, B03, B02 give the true-colour picture, VV and VH the radar composite. Of any other sensor the first three bands are shown, or
    the first one in grey.

    Args:
        bands: Values by band name, each (H, W).
        sensor: "s1" or "s2" where the bands of both are given; any other name changes nothing.
        limits: Values of each of the three channels shown as 0 and 1. By default those of the composite; of an unknown sensor, the 2nd
            and 98th percentile of this tile (use `common_limits` for a figure of several).

    Returns:
        (H, W, 3) float32 in 0..1.

    Raises:
        ValueError: If there is no band, or one that the sensor's picture needs is missing.
    """
    channels, usual, gamma = _channels(bands, sensor)
    return stretch(channels, limits or usual or _percentiles([channels]), gamma)


@dataclass(frozen=True)
class QueryPicture:
    """A query, ready to be drawn: (H, W, 3) in 0..1, what stands above it, such as the sensor, and its class names."""

    rgb: ArrayLike
    title: str
    labels: Sequence[str]


@dataclass(frozen=True)
class ResultPicture:
    """A retrieved tile, ready to be drawn: (H, W, 3) in 0..1, its similarity to the query, and its class names."""

    rgb: ArrayLike
    score: float
    labels: Sequence[str]


def abbreviate(label: str, width: int = 16) -> str:
    """Shorten a class name for a figure: that of `ABBREVIATIONS`, or the name, cut at a word where it is longer than `width`."""
    short = ABBREVIATIONS.get(label, label)
    if len(short) <= width:
        return short
    return textwrap.shorten(short, width, placeholder="…") if " " in short else short[: width - 1] + "…"


def new_figure(width: float, height: float) -> Figure:
    """Make a white figure of a size in inches, outside any global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        from csmae_hf.optional import needs_package  # here, so that colours alone cost no import of the package

        raise needs_package("Drawing figures", "matplotlib", error) from error
    return Figure(figsize=(width, height), facecolor="white")


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int = 150) -> Path:
    """Write a figure whole or not at all, making the folders it needs; the file's ending decides the format."""
    from csmae_hf.files import write_atomically  # here, as above

    target = Path(path)
    kind = target.suffix.removeprefix(".") or "png"
    field = {"png": "Software", "svg": "Creator", "pdf": "Creator"}.get(kind)
    metadata = None if field is None else {field: _MARK}
    write_atomically(target, lambda stream: figure.savefig(stream, format=kind, dpi=dpi, metadata=metadata))
    return target


def is_own_picture(path: Path) -> bool:
    """Say whether a file is a picture that was drawn here, which carries a mark: another may be drawn in its place."""
    return path.is_file() and _MARK.encode() in path.read_bytes()


class _Sheet:
    """A figure whose parts are placed in inches from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = new_figure(width, height)

    def picture(
        self, rgb: ArrayLike, left: float, top: float, edge: float, frame: str = _FAINT, line: float = 0.6
    ) -> None:
        """Place a square picture in a frame."""
        box = (left / self.width, 1 - (top + edge) / self.height, edge / self.width, edge / self.height)
        axes: Axes = self.figure.add_axes(box)
        axes.imshow(np.clip(np.asarray(rgb, dtype=np.float32), 0, 1), interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(edgecolor=frame, linewidth=line)

    def text(self, words: str, left: float, top: float, size: float, color: str = _INK, **style: Any) -> None:
        """Place text with its upper edge at `top`."""
        style = {"ha": "left", "va": "top", "family": _FONT, **style}
        self.figure.text(left / self.width, 1 - top / self.height, words, fontsize=size, color=color, **style)

    def rule(self, top: float, left: float, right: float) -> None:
        """Draw a thin line across."""
        from matplotlib.lines import Line2D

        ends = [left / self.width, right / self.width]
        self.figure.add_artist(Line2D(ends, [1 - top / self.height] * 2, color="#d0d7de", linewidth=0.8))


_EDGE, _GAP, _MARGIN, _LINE = 1.3, 0.14, 0.25, 0.125
_HEAD, _CAPTION = 0.24, 0.24


def draw_retrieval(
    queries: Sequence[QueryPicture],
    results: Sequence[Sequence[ResultPicture]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    note: str | None = None,
    dpi: int = 150,
) -> Path:
    """Draw queries, a row each, with what was retrieved for them, best first.

    A result that shares a label with its query is framed green and marked ✓, any other red and ✗: colour and sign say the same. Labels
    that the query has are printed bold.

    Args:
        queries: The queries.
        results: For each query its results, best first; rows may be of different length.
        path: File to write; its ending decides the format.
        title: Headline.
        note: Small print below it, such as how many queries were drawn and how they were chosen.
        dpi: Resolution.

    Raises:
        ValueError: If there is no query, or not one list of results for each.
        ImportError: If matplotlib is missing.
    """
    if not queries or len(queries) != len(results):
        raise ValueError(
            f"There must be one list of results for each query, and at least one: got {len(results)} for {len(queries)}."
        )
    most = max(len(row) for row in results)
    named = [query.labels for query in queries] + [result.labels for row in results for result in row]
    lines = max(len(set(labels)) for labels in named)
    row_height = _HEAD + _EDGE + _CAPTION + lines * _LINE + 0.18
    top = _MARGIN + (0.34 if title else 0.0) + (0.26 if note else 0.0)
    first = _MARGIN + _EDGE + 3 * _GAP
    width = max(first + most * (_EDGE + _GAP) - _GAP + _MARGIN, 4.5)
    sheet = _Sheet(width, top + row_height * len(queries))
    if title:
        sheet.text(title, _MARGIN, 0.16, 12, weight="bold")
    if note:
        sheet.text(note, _MARGIN, 0.46 if title else 0.16, 7.5, _FAINT)
    for number, (query, row) in enumerate(zip(queries, results, strict=True)):
        start = top + number * row_height
        if number:
            sheet.rule(start - 0.1, _MARGIN, width - _MARGIN)
        _draw_query(sheet, query, start)
        for rank, result in enumerate(row):
            _draw_result(sheet, query, result, rank, first + rank * (_EDGE + _GAP), start)
    return save_figure(sheet.figure, path, dpi)


def _draw_query(sheet: _Sheet, query: QueryPicture, top: float) -> None:
    """Draw the left column of a row."""
    sheet.text(query.title, _MARGIN, top + 0.04, 8.5, weight="bold")
    sheet.picture(query.rgb, _MARGIN, top + _HEAD, _EDGE, frame=_INK, line=1.4)
    sheet.text("query" if query.labels else "query, no labels", _MARGIN, top + _HEAD + _EDGE + 0.06, 7.5, _FAINT)
    for line, label in enumerate(dict.fromkeys(query.labels)):
        sheet.text(abbreviate(label), _MARGIN, top + _HEAD + _EDGE + _CAPTION + line * _LINE, 7, weight="bold")


def _draw_result(sheet: _Sheet, query: QueryPicture, result: ResultPicture, rank: int, left: float, top: float) -> None:
    """Draw one result: rank and score above, the picture, sign and labels below."""
    wanted = set(query.labels)
    shared = len(wanted & set(result.labels))
    color, sign = (_HIT, "✓") if shared else (_MISS, "✗") if wanted else (_FAINT, "")  # by nothing, nothing is missed
    sheet.text(f"{rank + 1}", left, top + 0.04, 8.5, weight="bold")
    sheet.text(f"{result.score:.3f}", left + _EDGE, top + 0.05, 7.5, _FAINT, ha="right")
    sheet.picture(result.rgb, left, top + _HEAD, _EDGE, frame=color, line=2.2)
    sheet.text(sign, left, top + _HEAD + _EDGE + 0.04, 9.5, color, weight="bold")
    words = f"{shared} of {len(wanted)} shared" if wanted else ""
    sheet.text(words, left + 0.17, top + _HEAD + _EDGE + 0.06, 7.5, color)
    ordered = sorted(dict.fromkeys(result.labels), key=lambda name: name not in wanted)
    for line, label in enumerate(ordered):
        ink, weight = (_INK, "bold") if label in wanted else (_FAINT, "normal")
        sheet.text(abbreviate(label), left, top + _HEAD + _EDGE + _CAPTION + line * _LINE, 7, ink, weight=weight)


def draw_image_grid(
    rows: Sequence[Sequence[ArrayLike | None]],
    column_titles: Sequence[str],
    path: str | os.PathLike[str],
    *,
    row_titles: Sequence[str] | None = None,
    title: str | None = None,
    dpi: int = 150,
) -> Path:
    """Draw a grid of pictures with a title above each column, such as tiles with their masked inputs and reconstructions.

    Args:
        rows: Pictures (H, W, 3) of floats in 0..1, a row for each tile; None leaves its place empty.
        column_titles: A title for each column; it may have two lines.
        path: File to write; its ending decides the format.
        row_titles: Words above each row, such as the labels of its tile.
        title: Headline.
        dpi: Resolution.

    Raises:
        ValueError: If the rows, the titles of the columns and those of the rows do not go together.
        ImportError: If matplotlib is missing.
    """
    if not rows or any(len(row) != len(column_titles) for row in rows):
        raise ValueError(
            f"Every row must have one picture for each of the {len(column_titles)} column titles, and there must be a row: "
            f"got rows of {[len(row) for row in rows]}."
        )
    if row_titles is not None and len(row_titles) != len(rows):
        raise ValueError(f"There must be one row title for each of the {len(rows)} rows, got {len(row_titles)}.")
    gap, words = 0.08, 0.2 if row_titles else 0.0
    heading = 0.12 + 0.15 * max(name.count("\n") + 1 for name in column_titles)
    top = _MARGIN + (0.3 if title else 0.0) + heading
    width = max(2 * _MARGIN + len(column_titles) * (_EDGE + gap) - gap, 3.0)
    sheet = _Sheet(width, top + len(rows) * (_EDGE + gap + words) - gap + _MARGIN)
    if title:
        sheet.text(title, _MARGIN, 0.16, 12, weight="bold")
    lefts = [_MARGIN + column * (_EDGE + gap) for column in range(len(column_titles))]
    for left, name in zip(lefts, column_titles, strict=True):
        sheet.text(name, left + _EDGE / 2, top - 0.06, 9, ha="center", va="bottom", weight="bold")
    for number, row in enumerate(rows):
        start = top + number * (_EDGE + gap + words)
        if row_titles:
            sheet.text(row_titles[number], _MARGIN, start + 0.03, 7, _FAINT)
        for left, rgb in zip(lefts, row, strict=True):
            if rgb is not None:
                sheet.picture(rgb, left, start + words, _EDGE)
    return save_figure(sheet.figure, path, dpi)
