"""Retrieval as a picture: queries of one sensor and the tiles of another that a model finds for them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from csmae_hf.retrieval.results import DirectionResult
from csmae_hf.visualize import QueryPicture, ResultPicture, draw_retrieval, to_rgb


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
    places = np.linspace(0, len(result.query_rows) - 1, min(queries, len(result.query_rows))).round().astype(int)
    top_k = min(top_k, result.k)
    names = dataset.features["labels"].feature.names
    asked: list[QueryPicture] = []
    found: list[list[ResultPicture]] = []
    for place in dict.fromkeys(places.tolist()):
        query = dataset[int(result.query_rows[place])]
        rgb = to_rgb(query[result.query_sensor], result.query_sensor)
        asked.append(QueryPicture(rgb, f"{result.query_sensor.upper()} query", _labels(query, names)))
        found.append([])
        for rank in range(top_k):
            tile = dataset[int(result.ranking[place, rank])]
            rgb = to_rgb(tile[result.archive_sensor], result.archive_sensor)
            found[-1].append(ResultPicture(rgb, float(result.similarities[place, rank]), _labels(tile, names)))
    title = f"{result.query_sensor.upper()} queries, {result.archive_sensor.upper()} tiles retrieved"
    note = (
        f"{len(asked)} of {len(result.query_rows)} queries, evenly spread; ✓ shares a label; number: cosine similarity"
    )
    return draw_retrieval(asked, found, path, title=title, note=note)


def _labels(row: Mapping[str, Any], names: list[str]) -> list[str]:
    return [names[number] for number in row["labels"] or []]
