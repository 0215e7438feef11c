"""Some queries of a direction with what was found for them: chosen evenly, ready to be drawn or written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from csmae_hf.evaluation.evaluate import evenly
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.visualize import Image, to_rgb


@dataclass(frozen=True)
class ExampleTile:
    """A tile, as a picture.

    Attributes:
        id: Its name.
        rgb: (H, W, 3) floats in 0..1.
        labels: Its class names.
        similarity: To the query; None of a query.
    """

    id: str
    rgb: Image
    labels: list[str]
    similarity: float | None = None


@dataclass(frozen=True)
class Example:
    """A query and its first results, best first."""

    query: ExampleTile
    results: list[ExampleTile]


def take_examples(result: DirectionResult, dataset: Dataset, *, queries: int, top_k: int) -> list[Example]:
    """Read some queries of a direction and their best results. They are spread evenly, not picked by how well they did.

    Args:
        result: The direction.
        dataset: The tiles it was measured on, with their pixels.
        queries: The most queries.
        top_k: The most results of each.

    Returns:
        The examples.
    """
    names = dataset.features["labels"].feature.names
    examples = []
    for place in evenly(len(result.query_rows), queries).tolist():
        query = _tile(dataset[int(result.query_rows[place])], result.query_sensor, names)
        found = [
            _tile(dataset[int(row)], result.archive_sensor, names, float(similarity))
            for row, similarity in zip(result.ranking[place][:top_k], result.similarities[place][:top_k], strict=True)
        ]
        examples.append(Example(query, found))
    return examples


def _tile(row: Mapping[str, Any], sensor: str, names: list[str], similarity: float | None = None) -> ExampleTile:
    labels = [names[number] for number in row["labels"] or []]
    return ExampleTile(str(row["id"]), to_rgb(row[sensor], sensor), labels, similarity)
