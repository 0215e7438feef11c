"""What a store holds, in a few lines and a picture."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from csmae_hf.bigearthnet import REFERENCE_MAP_SUFFIX, SENSOR_OF_BAND
from csmae_hf.data.dataset import find_store, load_bigearthnet
from csmae_hf.data.labels import labels_of
from csmae_hf.data.pixel_column import pixel_columns
from csmae_hf.data.store import TileStore, data_file
from csmae_hf.data.unit_rules import Units
from csmae_hf.data.units import said_units, tile_image, with_units
from csmae_hf.images.names import in_order
from csmae_hf.visualize import draw_image_grid, to_rgb

logger = logging.getLogger(__name__)

PICTURE_TILES = 16
"""Tiles in the picture."""


def describe(
    path: str | os.PathLike[str], *, units: Units | None = None, sensors: Mapping[str, Any] | None = None
) -> list[str]:
    """Say in lines of text what an LMDB of tiles, or the only one in a folder, holds: format, counts, bands, units that are said,
    labels, splits. `units` and `sensors` are as of [`load_data`]."""
    store = TileStore(find_store(Path(path)))
    images = [key for key in store if not key.endswith(REFERENCE_MAP_SUFFIX)]
    maps = len(store) - len(images)
    size = data_file(store.path).stat().st_size
    what = "pickles, read without unpickling" if store.format == "v1" else "safetensors"
    lines = [
        f"store     {store.path}",
        f"format    BigEarthNet {store.format} ({what})",
        f"values    {len(store)} in {size / 1e6:.1f} MB" + (f", {maps} of them reference maps" if maps else ""),
    ]
    dataset = _rows(path, units, sensors)
    if dataset is None:
        for key in sorted(
            {key[:2]: key for key in reversed(images)}.values()
        ):  # those of a sensor have keys that begin alike
            tile = store.read(key)
            names = sorted({SENSOR_OF_BAND.get(band, key.split("-of-")[0].lower()) for band in tile})
            lines.append(_band_line("+".join(names), tile))
        return [*lines, "metadata  none that fits, so nothing is known of labels and splits"]
    here = pixel_columns(dataset)
    lines.append(f"tiles     {len(dataset)} with " + " and ".join(here))
    lines += [_band_line(sensor, dataset[0][sensor]) for sensor in here]
    for sensor in here:
        if any(said := said_units(dataset, sensor)):
            told = Counter(unit or "not said" for unit in said)
            lines.append(f"units     {sensor}: " + ", ".join(f"{unit} {count}" for unit, count in told.most_common()))
    lines += [_counts(name, dataset[name]) for name in ("split", "country", "season")]
    flags = {name: sum(bool(flag) for flag in dataset[name]) for name in ("snow", "cloud_or_shadow")}
    if any(flags.values()):
        lines.append("flags     " + ", ".join(f"{name} {count}" for name, count in flags.items()))
    names, labels = dataset.features["labels"].feature.names, labels_of(dataset)
    counts = Counter(names[number] for numbers in labels for number in numbers)
    unlabelled = sum(not numbers for numbers in labels)
    lines.append(
        f"labels    {len(counts)} of {len(names)} classes" + (f"; {unlabelled} tiles have none" if unlabelled else "")
    )
    return lines + [f"  {count:7d}  {name}" for name, count in counts.most_common()]


def draw_tiles(
    path: str | os.PathLike[str],
    picture: str | os.PathLike[str],
    *,
    units: Units | None = None,
    sensors: Mapping[str, Any] | None = None,
) -> Path:
    """Draw tiles spread evenly over a store into a PNG, every sensor of each; without metadata, images of whichever sensor."""
    dataset = _rows(path, units, sensors)
    store = TileStore(find_store(Path(path)))
    images = [] if dataset else [key for key in store if not key.endswith(REFERENCE_MAP_SUFFIX)]
    count = len(dataset) if dataset else len(images)
    places = np.linspace(0, count - 1, min(PICTURE_TILES, count)).round().astype(int).tolist()
    drawn = sorted(pixel_columns(dataset), reverse=True) if dataset else [""]
    cells: list[Any] = []
    for place in places:
        if dataset:
            row = dataset[place]
            cells += [to_rgb(tile_image(row, sensor), sensor) for sensor in drawn]
        else:  # which images are of one tile is not known
            cells.append(to_rgb(store.read(images[place])))
    width = min(4, len(places)) * len(drawn)  # four tiles a row
    cells += [None] * (-len(cells) % width)
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    titles = [sensor.upper() for sensor in drawn] * min(4, len(places))
    title = f"{len(places)} of {count} {'tiles' if dataset else 'images'}, evenly spread"
    return draw_image_grid(rows, titles, picture, title=title)


def _rows(path: str | os.PathLike[str], units: Units | None, sensors: Mapping[str, Any] | None) -> Dataset | None:
    """The tiles of a store; None where there is no metadata that fits."""
    try:
        rows = load_bigearthnet(path, missing="drop", sensors=sensors)
    except (FileNotFoundError, ValueError) as error:
        if units or sensors:
            raise
        logger.warning("%s", error)
        return None
    return with_units(rows, units or {})


def _band_line(sensor: str, bands: Any) -> str:
    """Bands by size, with their type, such as `B02 B03 (120 x 120 uint16)`."""
    groups: dict[str, list[str]] = {}
    for band in in_order(list(bands)):
        array = bands[band]
        groups.setdefault(f"{array.shape[0]} x {array.shape[1]} {array.dtype}", []).append(band)
    return f"{sensor:8s}  " + ", ".join(f"{' '.join(names)} ({kind})" for kind, names in groups.items())


def _counts(name: str, values: Iterable[Any]) -> str:
    counts = Counter(values)
    unknown = counts.pop(None, 0)
    listing = [f"{value} {count}" for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    if not listing:
        return f"{name:8s}  not known"
    return f"{name:8s}  " + ", ".join([*listing, *([f"not known {unknown}"] if unknown else [])])
