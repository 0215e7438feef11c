"""Results of a search as files: a picture, JSON, a map, a table, a dataset."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csmae_hf.archive.hits import ID, Hits
from csmae_hf.files import staged_folder, write_atomically
from csmae_hf.search.places import geometry_of
from csmae_hf.visualize import QueryPicture, ResultPicture, draw_retrieval, to_rgb

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

logger = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".pdf", ".svg")


def to_geojson(hits: Hits) -> dict[str, Any]:
    """Put hits on a map.

    Args:
        hits: Results of a search.

    Returns:
        A GeoJSON FeatureCollection: a feature a hit, in degrees, with `query`, `rank`, `score` and the tile's metadata. Where a tile's
        place is not known its geometry is null, which is said in a warning.

    Raises:
        ImportError: If rasterio, which knows coordinate systems, is missing.
    """
    places = {tile[ID]: geometry_of(tile) for tile in hits.tiles.to_pylist()}
    unknown = [name for name, place in places.items() if place is None]
    if unknown:
        logger.warning(
            "Of %d of %d tiles the place is not known, %s for one: no coordinates in its metadata or its name.",
            len(unknown),
            len(places),
            unknown[0],
        )
    features = [
        {"type": "Feature", "geometry": places[hit[ID]], "properties": {"query": name, **_plain(hit)}}
        for number, name in enumerate(hits.queries)
        for hit in hits[number]
    ]
    return {"type": "FeatureCollection", "features": features}


def _plain(hit: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in hit.items()}


def draw_hits(
    hits: Hits, dataset: "Dataset", path: str | os.PathLike[str], images: Mapping[str, Any] | None = None
) -> Path:
    """Draw each query with its results. A result that shares a label with its query is marked; a query without labels marks nothing.

    Args:
        hits: Results of a search.
        dataset: The archive's tiles, with their pixels.
        path: File to write.
        images: Queries that are no tiles of the dataset: bands by name, by the query's name.

    Returns:
        The path.

    Raises:
        ValueError: If the dataset lacks tiles that were found.
        ImportError: If matplotlib is missing.
    """
    images = images or {}
    wanted = {name for names in hits.ids for name in names} | (set(hits.queries) - set(images))
    rows = {name: row for row, name in enumerate(dataset.with_format(None)[ID]) if name in wanted}
    lacking = sorted({name for names in hits.ids for name in names} - set(rows))
    if lacking:
        raise ValueError(
            f"The data lack {len(lacking)} of the tiles that were found, {lacking[0]} for one: is it another split?"
        )
    labels = {tile[ID]: tile.get("labels") or [] for tile in hits.tiles.to_pylist()}
    queries, results = [], []
    for number, name in enumerate(hits.queries):
        bands = images[name] if name in images else dataset[rows[name]][hits.query_sensor] if name in rows else None
        known = _labels(dataset, rows[name]) if name in rows else []
        title = f"{hits.query_sensor.upper()} query" + (f" {number + 1}" if len(hits) > 1 else "")
        queries.append(QueryPicture(_rgb(bands, hits.query_sensor), title, known))
        results.append(
            [
                ResultPicture(
                    _rgb(dataset[rows[hit[ID]]][hits.archive_sensor], hits.archive_sensor),
                    hit["score"],
                    labels[hit[ID]],
                )
                for hit in hits[number]
            ]
        )
    note = f"{'exact' if hits.exact else 'approximate'} search of {hits.kept} tiles; number: cosine similarity"
    if len(hits) == 1:
        note = f"{Path(hits.queries[0]).name}; {note}"
    title = f"{hits.query_sensor.upper()} queries, {hits.archive_sensor.upper()} tiles retrieved"
    return draw_retrieval(queries, results, path, title=title, note=note)


def _rgb(bands: Any, sensor: str) -> Any:
    return np.ones((2, 2, 3)) if bands is None else to_rgb(bands, sensor)


def _labels(dataset: "Dataset", row: int) -> list[str]:
    if "labels" not in dataset.column_names:
        return []
    names = dataset.features["labels"].feature.names
    return [names[number] for number in dataset.select_columns(["labels"])[row]["labels"] or []]


def write_hits(hits: Hits, path: str | os.PathLike[str]) -> Path:
    """Write hits to a file of the kind that its name says.

    Args:
        hits: Results of a search.
        path: `.json` (everything), `.geojson` (a map), `.csv`, `.parquet`, or a folder for `datasets.load_from_disk`.

    Returns:
        The path.

    Raises:
        ValueError: If the ending is unknown.
        FileExistsError: If the folder exists.
        ImportError: If a map needs rasterio and it is missing.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = target.suffix.lower()
    if suffix == ".json":
        write_atomically(target, hits.to_json().encode())
    elif suffix == ".geojson":
        write_atomically(target, json.dumps(to_geojson(hits), ensure_ascii=False).encode())
    elif suffix == ".parquet":
        write_atomically(target, hits.to_dataset().to_parquet)
    elif suffix == ".csv":
        write_atomically(target, lambda stream: hits.to_dataset().to_csv(stream, index=False))
    elif suffix:
        raise ValueError(f"{target}: expected {', '.join(PICTURES)}, .json, .geojson, .csv, .parquet, or a folder.")
    else:
        with staged_folder(target) as folder:
            hits.to_dataset().save_to_disk(str(folder))
    return target
