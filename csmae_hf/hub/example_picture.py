"""One picture of what a model does, for its page: an image of each sensor and the nearest images of another."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image
from transformers import PreTrainedModel

from csmae_hf.archive.archive import Archive
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.labels import class_names, known_numbers
from csmae_hf.data.load import ALL_TILES, load_data
from csmae_hf.embedding.without_paths import public_name
from csmae_hf.sample.generate import generate_sample, is_generated
from csmae_hf.visualize import QueryPicture, ResultPicture, draw_retrieval, to_rgb
from image_processing_csmae import CSMAEImageProcessor

logger = logging.getLogger(__name__)

TILES, RESULTS = 60, 5
SEED = 2024
"""Of the generated scenes, which are those of no other sample of the documentation."""


def draw_example(
    model: PreTrainedModel, processor: CSMAEImageProcessor, path: Path, data: str | None = None
) -> str | None:
    """Draw an image of each sensor of one place, and the nearest tiles by the next sensor; the same picture every time.

    Args:
        model: The encoder.
        processor: Its processor.
        path: PNG to write.
        data: Tiles, as of [`load_data`]; default some generated scenes.

    Returns:
        What it shows, in words; None where nothing could be drawn, which is logged.

    Raises:
        FileNotFoundError: If there are no such data.
        ValueError: If these data do not suit the model.
    """
    if data is not None:
        words = "generated scenes, not satellite images" if is_generated(data) else f"tiles of {public_name(data)}"
        return _draw(model, processor, load_data(data, ALL_TILES, limit=TILES), path, words)
    with tempfile.TemporaryDirectory() as scratch:
        tiles = load_bigearthnet(generate_sample(Path(scratch, "sample"), tiles=TILES, seed=SEED))
        try:
            return _draw(model, processor, tiles, path, "generated scenes, not satellite images")
        except (ValueError, ImportError) as error:  # a picture more is no reason not to publish
            logger.warning("The card has no picture: %s (--picture gives one, --data tiles to draw.)", error)
            return None


def _draw(model: Any, processor: CSMAEImageProcessor, tiles: Dataset, path: Path, words: str) -> str:
    sensors = [sensor for sensor in model.config.sensors if sensor in tiles.column_names]
    if not sensors:
        raise ValueError(f"the tiles have none of the sensors {', '.join(model.config.sensors)}.")
    archive = Archive.build(model, processor, tiles, sensor=sensors, progress=False, suspect="accept")
    rows = {name: row for row, name in enumerate(tiles["id"])}
    names = class_names(tiles.features["labels"]) if "labels" in tiles.features else None
    query = archive.ids[len(archive) // 3]  # one place by every sensor, and none that was picked for its result

    def labels(row: int) -> list[str]:
        return [names[number] for number in known_numbers(tiles[row]["labels"])] if names else []

    queries, results = [], []
    for sensor, target in zip(sensors, [*sensors[1:], sensors[0]], strict=True):
        twin = sensor != target  # the place itself, by another sensor, is a result like any other
        hits = archive.search(query, sensor=sensor, archive_sensor=target, k=RESULTS, include_self=twin)
        title = f"{sensor.upper()} query, {target.upper()} found"
        queries.append(QueryPicture(to_rgb(tiles[rows[query]][sensor], sensor), title, labels(rows[query])))
        found = [(rows[hit["id"]], hit["score"]) for hit in hits[0]]
        results.append([ResultPicture(to_rgb(tiles[row][target], target), score, labels(row)) for row, score in found])
    draw_retrieval(queries, results, path, note=f"{len(archive)} {words}; number: cosine similarity", dpi=80)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(256).save(path, optimize=True)  # a third of the bytes
    return f"A place seen by each sensor, and the nearest of {len(archive)} tiles, itself among them, by the next; {words}."
