"""The archive at a glance: where the embeds lie, how far the sensors are apart, and what the last evaluation gave."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csmae_hf.app.html import escape
from csmae_hf.embedding.diagnostics import alignment, sensor_gap
from csmae_hf.embedding.provenance import Provenance
from csmae_hf.evaluation.results import RESULTS_FORMAT, remarks_beside

MOST_TILES = 5000
"""Tiles that are projected; of larger archives so many, evenly spread."""

COLORS = ("#0b6bcb", "#c2410c", "#15803d", "#7c3aed", "#b45309", "#0e7490", "#be185d", "#4d7c0f")
_REST = "#b6bec8"
_EDGE = 460.0
_INSET = 14.0


@dataclass(frozen=True, eq=False)
class Projection:
    """Embeds of some tiles on the two directions along which they vary most.

    Attributes:
        rows: (n,) rows of the archive.
        points: (n, 2) by sensor.
        explained: Share of the variance along each direction.
        gap: Distance between the sensors' means (0 to 2); None of one sensor.
        spread: Mean squared distance between the two embeds of a tile (0 to 4); None of one sensor.
    """

    rows: NDArray[np.int64]
    points: dict[str, NDArray[np.float64]]
    explained: tuple[float, float]
    gap: float | None
    spread: float | None


def sample_rows(total: int, most: int = MOST_TILES) -> NDArray[np.int64]:
    """Rows evenly spread: all, or `most` of them."""
    return np.arange(total) if total <= most else np.linspace(0, total - 1, most).astype(np.int64)


def project(vectors: Mapping[str, Any], most: int = MOST_TILES) -> Projection:
    """Project unit vectors, (N, D) by sensor, of all sensors together on their first two principal components.

    Each component points to where its largest loading is positive. Fewer than two tiles are a ValueError.
    """
    total = len(next(iter(vectors.values())))
    if total < 2:
        raise ValueError(f"A projection needs at least two tiles; the archive has {total}.")
    rows = sample_rows(total, most)
    parts = {sensor: part[torch.from_numpy(rows)].double() for sensor, part in vectors.items()}
    stacked = torch.cat(list(parts.values()))
    middle = stacked.mean(dim=0)
    centred = stacked - middle
    values, directions = torch.linalg.eigh(centred.T @ centred)
    axes = directions[:, [-1, -2]] if directions.shape[1] > 1 else directions.repeat(1, 2)
    largest = axes.abs().argmax(dim=0)
    axes = axes * axes.gather(0, largest[None]).sign()
    whole = max(float(values.sum()), 1e-12)
    explained = (float(values[-1]) / whole, float(values[-2]) / whole if len(values) > 1 else 0.0)
    pair = list(parts.values())[:2]
    return Projection(
        rows,
        {sensor: ((part - middle) @ axes).numpy() for sensor, part in parts.items()},
        explained,
        sensor_gap(*pair) if len(pair) == 2 else None,
        alignment(*pair) if len(pair) == 2 else None,
    )


def groups_by(values: Sequence[Any], most: int = len(COLORS)) -> tuple[list[str], NDArray[np.int64]]:
    """Sort values into the most frequent ones, and the rest: names of the groups, and the group of each value, -1 for the rest."""
    names, counts = np.unique([str(value) for value in values if value is not None], return_counts=True)
    chosen = [str(names[place]) for place in sorted(np.argsort(-counts, kind="stable")[:most])]
    places = {name: number for number, name in enumerate(chosen)}
    group_of = [places.get(str(value), -1) if value is not None else -1 for value in values]
    return chosen, np.array(group_of, dtype=np.int64)


def draw_projection(
    projection: Projection, groups: Sequence[str] = (), group_of: NDArray[np.int64] | None = None, by: str = "sensor"
) -> str:
    """Draw a projection as SVG, coloured by something: a shape for each sensor, a colour for each group.

    `group_of` (n,) has the group of each tile, -1 for none; without groups each sensor has a colour.
    """
    every = np.concatenate(list(projection.points.values()))
    low, high = every.min(axis=0), every.max(axis=0)
    scale = (_EDGE - 2 * _INSET) / max(float((high - low).max()), 1e-9)
    offset = (_EDGE - (high - low) * scale) / 2
    size = 7.0 if len(every) < 1000 else 5.0 if len(every) < 4000 else 3.5
    paths, legend = [], []
    for number, (sensor, points) in enumerate(projection.points.items()):
        placed = (points - low) * scale + offset
        placed[:, 1] = _EDGE - placed[:, 1]
        cap = ("round", "square", "butt")[min(number, 2)]
        shape = ("●", "■", "▬")[min(number, 2)]
        own = np.full(len(points), number) if group_of is None else group_of
        for group in np.unique(own):
            color = _REST if group < 0 else COLORS[group % len(COLORS)]
            paths.append((group >= 0, color, cap, placed[own == group]))
        color = COLORS[number] if group_of is None else "currentColor"
        legend.append(
            f'<li><span style="color:{color}" aria-hidden="true">{shape}</span> {escape(sensor.upper())}</li>'
        )
    if group_of is not None:
        named = [(COLORS[number % len(COLORS)], name) for number, name in enumerate(groups)]
        named += [(_REST, "others")] if (group_of < 0).any() else []
        legend += [
            f'<li><span class="swatch" style="background:{color}"></span> {escape(name)}</li>' for color, name in named
        ]
    drawn = "".join(
        f'<path d="{"".join(f"M{x:.0f} {y:.0f}h.1" for x, y in points)}" stroke="{color}" stroke-width="{size:g}" '
        f'stroke-linecap="{cap}"/>'
        for _, color, cap, points in sorted(paths, key=lambda path: path[0])
    )
    title = f"{len(projection.rows)} tiles, coloured by {by}"
    first, second = projection.explained
    words = (
        f"<p>{len(projection.rows):,} tiles on the two directions along which the embeds of all sensors vary most (PCA); they hold "
        f"{first:.0%} and {second:.0%} of the variance.</p>"
    )
    if projection.gap is not None and projection.spread is not None:
        words += (
            f"<p><strong>Gap between the sensors: {projection.gap:.2f}</strong> (0: none, 2: opposite). It is the distance between "
            "the means of the two sensors' embeds. Where it is large, the two colours form two islands.</p>"
            f"<p>Mean squared distance between a tile's two embeds: {projection.spread:.2f} (0: the same, 2: unrelated).</p>"
        )
    return (
        f'<div class="projection"><svg viewBox="0 0 {_EDGE:g} {_EDGE:g}" role="img" aria-label="Projection of {escape(title)}">'
        f'<g fill="none" opacity="0.7">{drawn}</g></svg><div><ul class="legend">{"".join(legend)}</ul>'
        f"{words}</div></div>"
    )


def read_evaluation(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the `results.json` of a folder, or that file; None where there is none, ValueError where it is something else."""
    path = Path(folder, "results.json") if Path(folder).is_dir() else Path(folder)
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != RESULTS_FORMAT:
        raise ValueError(f"{path} is no evaluation: expected what run_retrieval.py writes.")
    return document


_COLUMNS = {"f1_of_means": "F1", "map": "mAP", "ndcg": "NDCG", "precision": "Precision", "recall": "Recall"}


def evaluation_table(document: Mapping[str, Any] | None, archive: Provenance | None = None) -> str:
    """An evaluation as HTML, a row a direction; how to get one where there is none.

    Where it is not of the archive that it stands beside, in model, alignment or tiles, that is said above it.
    """
    if document is None:
        return (
            '<p class="quiet">No evaluation was found beside the archive or its model. <code>run_retrieval.py MODEL --data DATA '
            "--output_dir RESULTS</code> measures all four directions; <code>csmae serve ARCHIVE --results "
            "RESULTS</code> shows them here.</p>"
        )
    directions = document["directions"]
    heads = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS.values())
    metadata = document.get("metadata") or {}
    blank_alignments = metadata.get("baseline_alignments") or {}
    rows = []
    for direction in directions:
        sensors = direction["query_sensor"], direction["archive_sensor"]
        beside = {f"{sensors[0].upper()} → {sensors[1].upper()}": direction}
        for name, found in (document.get("baselines") or {}).items():
            called = f"{name}, alignment {blank_alignments[name]}" if name in blank_alignments else name
            same = [one for one in found if (one["query_sensor"], one["archive_sensor"]) == sensors]
            beside |= {called: same[0]} if same else {}
        for name, one in beside.items():
            random = (one.get("random") or {}).get("mean") or {} if one is direction else {}
            cells = ""
            for column in _COLUMNS:
                value, chance = one.get(column), random.get(column)
                small = "" if chance is None else f" <small>{chance:.3f}</small>"
                cells += "<td>-</td>" if value is None else f"<td>{value:.3f}{small}</td>"
            kind = "" if one is direction else ' class="quiet"'
            rows.append(f'<tr{kind}><th scope="row">{escape(name)}</th>{cells}</tr>')
    first = directions[0]
    model = Path(str(metadata.get("model") or "")).name
    about = f"{first['n_queries']:,} queries, {first['n_archive']:,} tiles, k = {first['k']}"
    about += ", generated scenes" if metadata.get("generated") else ""
    if (method := (metadata.get("alignment") or {}).get("method")) is not None:
        about += f", alignment {method}"
    remarks = [] if archive is None else remarks_beside(document, archive)
    caption = (
        f"The last evaluation: {about}{f'; {model}' if model else ''}. In small: a random order of the same tiles."
    )
    return "".join(f'<p class="notice">{escape(remark)}</p>' for remark in remarks) + (
        f'<div class="wide" tabindex="0" role="region" aria-label="Evaluation"><table>'
        f'<caption>{escape(caption)}</caption><thead><tr><th scope="col">Direction</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
