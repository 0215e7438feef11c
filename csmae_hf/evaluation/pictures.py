"""Retrieval as pictures: queries of one sensor with what a model finds for them, scores over k, scores by class."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset

from csmae_hf.evaluation.charts import PALETTE
from csmae_hf.evaluation.examples import take_examples
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.visualize import QueryPicture, ResultPicture, abbreviate, draw_retrieval, new_figure

logger = logging.getLogger(__name__)


def draw_all(results: Sequence[DirectionResult], dataset: Dataset, folder: Path, queries: int) -> list[Path]:
    """Draw every direction, the scores over k and by class; where matplotlib is missing, say how to get it and go on.

    Args:
        results: The directions.
        dataset: The tiles they were measured on.
        folder: Where to write.
        queries: Queries of each direction's picture.

    Returns:
        The files.
    """
    try:
        files = [
            picture_direction(
                result,
                dataset,
                folder / f"retrieval_{result.query_sensor}_to_{result.archive_sensor}.png",
                queries=queries,
            )
            for result in results
        ]
        return [
            *files,
            draw_over_k(results, folder / "scores_over_k.png"),
            draw_classes(results, folder / "classes.png"),
        ]
    except ImportError as error:
        logger.warning("No pictures were drawn. %s", error)
        return []


def picture_direction(
    result: DirectionResult, dataset: Dataset, path: str | os.PathLike[str], *, queries: int = 6, top_k: int = 6
) -> Path:
    """Draw some queries of a direction with their best results.

    The queries are spread evenly over the evaluation, not picked by how well they did.

    Args:
        result: The direction.
        dataset: The tiles it was measured on, with their pixels.
        path: File to write, a PNG.
        queries: Rows of the picture.
        top_k: Results of each.

    Returns:
        The path.
    """
    examples = take_examples(result, dataset, queries=queries, top_k=top_k)
    name = f"{result.query_sensor.upper()} query"
    asked = [QueryPicture(example.query.rgb, name, example.query.labels) for example in examples]
    found = [
        [ResultPicture(tile.rgb, tile.similarity or 0.0, tile.labels) for tile in example.results]
        for example in examples
    ]
    title = f"{result.query_sensor.upper()} queries, {result.archive_sensor.upper()} tiles retrieved"
    note = (
        f"{len(asked)} of {len(result.query_rows)} queries, evenly spread; ✓ shares a label; number: cosine similarity"
    )
    return draw_retrieval(asked, found, path, title=title, note=note)


def draw_over_k(results: Sequence[DirectionResult], path: Path) -> Path:
    """Draw precision, recall and F1 of means of each direction over the number of results.

    Args:
        results: The directions.
        path: File to write, a PNG.

    Returns:
        The path.
    """
    figure = new_figure(10, 3.4)
    titles = {"precision": "Precision@k", "recall": "Recall@k", "f1_of_means": "F1@k of means"}
    for place, (metric, title) in enumerate(titles.items()):
        axes = figure.add_subplot(1, 3, place + 1)
        for number, result in enumerate(results):
            values = result.over_k[metric]
            style = "-" if result.query_sensor == result.archive_sensor else "--"
            axes.plot(range(1, len(values) + 1), values, style, marker=".", label=result.name, color=_color(number))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("k")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    return path


def draw_classes(results: Sequence[DirectionResult], path: Path) -> Path:
    """Draw F1 of means of the queries of each class, in each direction.

    Args:
        results: The directions.
        path: File to write, a PNG.

    Returns:
        The path.
    """
    classes = list(dict.fromkeys(name for result in results for name in result.groups["class"]))
    figure = new_figure(8, 0.9 + len(classes) * 0.42)
    axes = figure.add_subplot()
    height = 0.8 / len(results)
    for number, result in enumerate(results):
        groups = result.groups["class"]
        places = np.array([place for place, name in enumerate(classes) if name in groups])
        scores = [groups[classes[place]].scores["f1_of_means"] for place in places]
        axes.barh(
            places + (number - (len(results) - 1) / 2) * height,
            scores,
            height * 0.9,
            label=result.name,
            color=_color(number),
        )
    axes.set_yticks(range(len(classes)), [abbreviate(name, 28) for name in classes], fontsize=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel(f"F1@{results[0].k} of means, queries that have the class", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.6 / (0.9 + len(classes) * 0.42)), ncols=4)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    return path


def _color(number: int) -> str:
    """The colour that the report gives a direction."""
    return PALETTE[number % len(PALETTE)]
