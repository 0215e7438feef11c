"""What a store holds, in a few lines and a picture."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from csmae_hf.bigearthnet import REFERENCE_MAP_SUFFIX, SENSOR_OF_BAND
from csmae_hf.data.dataset import find_store, load_bigearthnet
from csmae_hf.data.pixel_column import Tile
from csmae_hf.data.store import DATA_FILE, TileStore
from csmae_hf.images.names import in_order
from csmae_hf.visualize import draw_image_grid, to_rgb

logger = logging.getLogger(__name__)

PICTURE_TILES = 16
"""Tiles in the picture."""


def describe(path: str | os.PathLike[str]) -> list[str]:
    """Say what an LMDB of tiles holds: format, counts, bands, labels, splits.

    Args:
        path: The LMDB folder, or a folder that holds exactly one.

    Returns:
        Lines of text.

    Raises:
        FileNotFoundError: If there is no LMDB.
        StoreError: If it cannot be opened.
        CorruptTileError: If the first tile is broken.
    """
    store = TileStore(find_store(Path(path)))
    keys = store.keys()
    maps = [key for key in keys if key.endswith(REFERENCE_MAP_SUFFIX)]
    size = (store.path / DATA_FILE).stat().st_size
    what = "pickles, read without unpickling" if store.format == "v1" else "safetensors"
    lines = [
        f"store     {store.path}",
        f"format    BigEarthNet {store.format} ({what})",
        f"values    {len(keys)} in {size / 1e6:.1f} MB" + (f", {len(maps)} of them reference maps" if maps else ""),
    ]
    dataset = _rows(path)
    if dataset is None:
        # images of a sensor have keys that begin alike
        first = {key[:2]: key for key in reversed(keys) if not key.endswith(REFERENCE_MAP_SUFFIX)}
        for key in sorted(first.values()):
            tile = store.read(key)
            sensors = sorted({SENSOR_OF_BAND.get(band, key.split("-of-")[0].lower()) for band in tile})
            lines.append(_band_line("+".join(sensors), tile))
        return [*lines, "metadata  none that fits, so nothing is known of labels and splits"]
    sensors = _sensors(dataset)
    lines.append(f"tiles     {len(dataset)} with " + " and ".join(sensors))
    lines += [_band_line(sensor, dataset[0][sensor]) for sensor in sensors]
    lines += [_counts(name, dataset[name]) for name in ("split", "country", "season")]
    flags = {name: sum(bool(flag) for flag in dataset[name]) for name in ("snow", "cloud_or_shadow")}
    if any(flags.values()):
        lines.append("flags     " + ", ".join(f"{name} {count}" for name, count in flags.items()))
    labels = dataset.features["labels"].feature
    counts = Counter(number for numbers in dataset["labels"] for number in numbers or ())
    unlabelled = sum(not numbers for numbers in dataset["labels"])
    lines.append(
        f"labels    {len(counts)} of {labels.num_classes} classes"
        + (f"; {unlabelled} tiles have none" if unlabelled else "")
    )
    return lines + [f"  {count:7d}  {labels.int2str(number)}" for number, count in counts.most_common()]


def draw_tiles(path: str | os.PathLike[str], picture: str | os.PathLike[str]) -> Path:
    """Draw tiles spread evenly over a store, every sensor of each; without metadata, images of whichever sensor.

    Args:
        path: The LMDB folder, or a folder that holds exactly one.
        picture: File to write, a PNG.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there is no LMDB.
        CorruptTileError: If one of these tiles is broken.
        ImportError: If matplotlib is missing.
    """
    dataset = _rows(path)
    if dataset is None:
        return _draw_images(TileStore(find_store(Path(path))), picture)
    sensors = sorted(_sensors(dataset), reverse=True)
    pictures = [[to_rgb(dataset[place][sensor], sensor) for sensor in sensors] for place in _spread(len(dataset))]
    title = f"{len(pictures)} of {len(dataset)} tiles, evenly spread"
    return _draw(pictures, [sensor.upper() for sensor in sensors], picture, title)


def _draw_images(store: TileStore, picture: str | os.PathLike[str]) -> Path:
    """Draw images of a store of which it is not known which are of one tile."""
    keys = [key for key in store if not key.endswith(REFERENCE_MAP_SUFFIX)]
    names = [keys[place] for place in _spread(len(keys))]
    title = f"{len(names)} of {len(keys)} images, evenly spread"
    return _draw([[to_rgb(store.read(name))] for name in names], [""], picture, title)


def _spread(count: int) -> list[int]:
    """Up to 16 places, evenly spread."""
    return np.linspace(0, count - 1, min(PICTURE_TILES, count)).round().astype(int).tolist()


def _draw(pictures: Sequence[Sequence[Any]], titles: list[str], path: str | os.PathLike[str], title: str) -> Path:
    """Draw groups of pictures, four groups a row."""
    across = min(4, len(pictures))
    width = across * len(titles)
    cells: list[Any] = [rgb for group in pictures for rgb in group]
    cells += [None] * (-len(cells) % width)
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    return draw_image_grid(rows, titles * across, path, title=title)


def _rows(path: str | os.PathLike[str]) -> Dataset | None:
    """The tiles of a store; None where there is no metadata that fits."""
    try:
        return load_bigearthnet(path, missing="drop")
    except (FileNotFoundError, ValueError) as error:
        logger.warning("%s", error)
        return None


def _sensors(dataset: Dataset) -> list[str]:
    return [name for name, feature in dataset.features.items() if isinstance(feature, Tile)]


def _band_line(sensor: str, bands: Any) -> str:
    """Bands by size, with their type, such as `B02 B03 (120 x 120 uint16)`."""
    groups: dict[str, list[str]] = {}
    for band in in_order(list(bands)):
        array = bands[band]
        groups.setdefault(f"{array.shape[0]} x {array.shape[1]} {array.dtype}", []).append(band)
    return f"{sensor:8s}  " + ", ".join(f"{' '.join(names)} ({kind})" for kind, names in groups.items())


def _counts(name: str, values: Iterable[Any]) -> str:
    counts = Counter(values)
    known = {value: count for value, count in counts.items() if value is not None}
    listing = ", ".join(
        f"{value} {count}" for value, count in sorted(known.items(), key=lambda item: (-item[1], item[0]))
    )
    if not known:
        return f"{name:8s}  not known"
    return f"{name:8s}  {listing}" + (f", not known {counts[None]}" if counts[None] else "")
