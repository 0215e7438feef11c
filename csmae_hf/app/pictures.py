"""Tiles as pictures in a page: each sensor's composites, stretched alike for every tile of the archive."""

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PillowImage

from csmae_hf.visualize import GAMMA, Image, Limits, common_limits, stretch, to_rgb

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

MEASURED_TILES = 48
"""Tiles, evenly spread over the archive, by whose percentiles all pictures are stretched."""

_MOST_KEPT = 4000
_FALSE_COLOR = ("B08", "B04", "B03")


@dataclass(frozen=True)
class Composite:
    """A way to show a sensor.

    Attributes:
        sensor: The sensor.
        name: In words, such as "true colour".
        bands: That become red, green and blue where it is no usual composite; None for the usual one.
    """

    sensor: str
    name: str
    bands: tuple[str, str, str] | None = None

    @property
    def title(self) -> str:
        """Sensor and way, such as "S2 true colour"."""
        return f"{self.sensor.upper()} {self.name}".strip()


def composites_of(sensor: str, bands: Sequence[str]) -> list[Composite]:
    """List the ways to show a sensor.

    Args:
        sensor: Its name.
        bands: Its bands.

    Returns:
        True and false colour of an optical sensor that has the bands, VV / VH / ratio of a radar, the first bands of any other.
    """
    have = set(bands)
    if have >= {"VV", "VH"} and not have >= {"B02", "B03", "B04"}:
        return [Composite(sensor, "VV / VH / ratio")]
    if have >= {"B02", "B03", "B04"}:
        more = [Composite(sensor, "false colour", _FALSE_COLOR)] if have >= set(_FALSE_COLOR) else []
        return [Composite(sensor, "true colour"), *more]
    return [Composite(sensor, "first bands")]


def paint(bands: Mapping[str, Any], composite: Composite, limits: Limits) -> Image:
    """Draw a tile.

    Args:
        bands: (H, W) by name.
        composite: How to show it.
        limits: Values shown as 0 and 1, a pair for each channel.

    Returns:
        (H, W, 3) float32 in 0..1.
    """
    if composite.bands is not None:
        return stretch(_picked(bands, composite.bands), limits, GAMMA)
    return to_rgb(bands, composite.sensor if composite.sensor in ("s1", "s2") else None, limits)


def measure_limits(tiles: Sequence[Mapping[str, Any]], composite: Composite) -> Limits:
    """Measure between which values to stretch each channel: the 2nd and 98th percentile of a tile.

    Of several tiles it is the median of their 2nd, and the upper quartile of their 98th: a few clouds would leave all others black.

    Args:
        tiles: Bands by name of each, at least one.
        composite: Whose channels.

    Returns:
        Three pairs.
    """
    if composite.bands is not None:
        # Named so that the three are taken in this order, as of a sensor of which nothing is known.
        renamed = [{f"channel {place}": tile[band] for place, band in enumerate(composite.bands)} for tile in tiles]
        return _typical([common_limits([tile]) for tile in renamed])
    sensor = composite.sensor if composite.sensor in ("s1", "s2") else None
    return _typical([common_limits([tile], sensor) for tile in tiles])


def _typical(limits: Sequence[Limits]) -> Limits:
    values = np.asarray(limits)  # (tiles, channels, 2)
    low, high = np.median(values[..., 0], axis=0), np.percentile(values[..., 1], 75, axis=0)
    return [(float(first), float(max(last, first + 1e-3))) for first, last in zip(low, high, strict=True)]


def _picked(bands: Mapping[str, Any], names: Sequence[str]) -> Image:
    return np.stack([np.asarray(bands[name], dtype=np.float32) for name in names], axis=-1)


def to_data_uri(rgb: Image, quality: int = 82) -> str:
    """Write a picture as a `data:` URI, which a page shows without asking anybody.

    Args:
        rgb: (H, W, 3) floats in 0..1.
        quality: Of the JPEG.

    Returns:
        The URI.
    """
    pixels = (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class TilePictures:
    """Pictures of the tiles of a dataset, made when they are asked for and kept.

    Args:
        dataset: The tiles, with their pixels; None where they are not at hand, and nothing has a picture.
        sensors: Bands by sensor.
    """

    def __init__(self, dataset: "Dataset | None", sensors: Mapping[str, Sequence[str]]):
        self.dataset = dataset
        self.composites = {sensor: composites_of(sensor, bands) for sensor, bands in sensors.items()}
        self._rows: dict[str, int] = {}
        if dataset is not None:
            self._rows = {name: row for row, name in enumerate(dataset.with_format(None)["id"])}
        self._kept: OrderedDict[tuple[str, str], list[str]] = OrderedDict()
        self._lock = threading.Lock()
        self._limits = self._measured()

    def _measured(self) -> dict[Composite, Limits]:
        if self.dataset is None or not len(self.dataset):
            return {}
        count = min(MEASURED_TILES, len(self.dataset))
        rows = np.unique(np.linspace(0, len(self.dataset) - 1, count).astype(int))
        limits: dict[Composite, Limits] = {}
        for sensor, composites in self.composites.items():
            tiles = [bands for row in rows if (bands := self._read(int(row), sensor)) is not None]
            limits |= {way: measure_limits(tiles, way) for way in composites if tiles}
        return limits

    def _read(self, row: int, sensor: str) -> Mapping[str, Any] | None:
        """Bands of a tile; None where it has no such sensor or is broken."""
        if self.dataset is None or sensor not in self.dataset.column_names:
            return None
        try:
            tile = self.dataset[row][sensor]
            return None if tile is None else dict(tile.items())
        except (ValueError, KeyError, OSError):
            return None

    def bands(self, tile: str, sensor: str) -> Mapping[str, Any] | None:
        """Read a tile.

        Args:
            tile: Its id.
            sensor: The sensor.

        Returns:
            (H, W) by band; None where it is not there.
        """
        row = self._rows.get(tile)
        return None if row is None else self._read(row, sensor)

    def paint(self, bands: Mapping[str, Any], sensor: str) -> list[Image]:
        """Draw an image in every way of its sensor, stretched as all tiles of the archive are.

        Args:
            bands: (H, W) by name.
            sensor: Its sensor.

        Returns:
            Pictures, in the order of `composites[sensor]`.
        """
        return [
            paint(bands, way, self._limits.get(way) or measure_limits([bands], way)) for way in self.composites[sensor]
        ]

    def uris(self, tile: str, sensor: str) -> list[str]:
        """Draw a tile of the archive.

        Args:
            tile: Its id.
            sensor: The sensor.

        Returns:
            A `data:` URI for each of `composites[sensor]`; none where there are no pixels.
        """
        key = (tile, sensor)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        bands = self.bands(tile, sensor)
        made = [] if bands is None else [to_data_uri(rgb) for rgb in self.paint(bands, sensor)]
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return made
