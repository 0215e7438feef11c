"""An evaluation as pictures: queries of a direction with what was found for them, and the charts of scores over k and by group."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from csmae_hf.charts import bars, curves
from csmae_hf.data.evenly import evenly
from csmae_hf.data.labels import class_names, known_numbers
from csmae_hf.data.units import tile_image
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.visualize import Image, QueryPicture, ResultPicture, abbreviate, draw_retrieval, save_figure, to_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

OVER_K = {"precision": "Precision@k", "recall": "Recall@k", "f1_of_means": "F1@k of means"}
"""Metrics that are drawn over the number of results, with the titles of their charts."""


@dataclass(frozen=True)
class ExampleTile:
    """A tile, as a picture."""

    id: str
    rgb: Image  # (H, W, 3) floats in 0..1
    labels: list[str]  # class names
    similarity: float = 1.0  # to the query; 1 of the query itself


def take_examples(
    result: DirectionResult, dataset: Dataset, *, queries: int, top_k: int
) -> list[tuple[ExampleTile, list[ExampleTile]]]:
    """Read some queries of a direction, each with its best results. They are spread evenly, not picked by how well they did."""
    names = class_names(dataset.features["labels"]) or []

    def tile(row: Mapping[str, Any], sensor: str, similarity: float = 1.0) -> ExampleTile:
        labels = [names[number] for number in known_numbers(row["labels"])]
        return ExampleTile(str(row["id"]), to_rgb(tile_image(row, sensor), sensor), labels, similarity)

    examples = []
    for place in evenly(len(result.query_rows), queries).tolist():
        query = tile(dataset[int(result.query_rows[place])], result.query_sensor)
        found = zip(result.ranking[place][:top_k], result.similarities[place][:top_k], strict=True)
        examples.append((query, [tile(dataset[int(row)], result.archive_sensor, float(score)) for row, score in found]))
    return examples


def draw_all(results: Sequence[DirectionResult], dataset: Dataset, folder: Path, queries: int) -> list[Path]:
    """Draw every direction, the scores over k and by class; where matplotlib is missing, say how to get it and go on."""
    try:
        files = [picture_direction(result, dataset, folder, queries=queries) for result in results]
        return [
            *files,
            save_figure(chart_over_k(results, [*OVER_K]), folder / "scores_over_k.png"),
            save_figure(chart_groups(results, "class"), folder / "classes.png"),
        ]
    except ImportError as error:
        logger.warning("No pictures were drawn. %s", error)
        return []


def picture_direction(
    result: DirectionResult, dataset: Dataset, folder: Path, *, queries: int = 6, top_k: int = 6
) -> Path:
    """Draw some queries of a direction with their best results into `retrieval_QUERY_to_ARCHIVE.png` of a folder."""
    examples = take_examples(result, dataset, queries=queries, top_k=top_k)
    name = f"{result.query_sensor.upper()} query"
    return draw_retrieval(
        [QueryPicture(query.rgb, name, query.labels) for query, _ in examples],
        [[ResultPicture(tile.rgb, tile.similarity, tile.labels) for tile in found] for _, found in examples],
        folder / f"retrieval_{result.query_sensor}_to_{result.archive_sensor}.png",
        title=f"{result.query_sensor.upper()} queries, {result.archive_sensor.upper()} tiles retrieved",
        note=f"{len(examples)} of {len(result.query_rows)} queries, evenly spread; ✓ shares a label; "
        "number: cosine similarity",
    )


def chart_over_k(results: Sequence[DirectionResult], metrics: Sequence[str]) -> "Figure":
    """A panel for each of some metrics of `OVER_K`: every direction over the number of results."""
    ranks = list(range(1, results[0].k + 1))
    panels = {
        OVER_K[metric]: {result.title: (ranks, result.over_k[metric]) for result in results} for metric in metrics
    }
    return curves(panels, x_label="k, results per query", zero=True, width=4.2)


def chart_groups(results: Sequence[DirectionResult], dimension: str) -> "Figure":
    """F1 of means of the queries of each class, country or season: a bar a direction, with its interval."""
    groups = [result.groups.get(dimension, {}) for result in results]
    drawn = {}
    for value in dict.fromkeys(value for members in groups for value in members):
        some = [members.get(value) for members in groups]
        count = max(group.n_queries for group in some if group is not None)
        drawn[f"{abbreviate(value, 28)}\n{count:,} {'query' if count == 1 else 'queries'}"] = [
            None if group is None else (group.scores["f1_of_means"], group.f1_interval) for group in some
        ]
    return bars(
        drawn,
        [result.title for result in results],
        title=f"Queries by {dimension}",
        x_label=f"F1@{results[0].k} of means" + (", line: 95 % interval" if results[0].intervals else ""),
    )
