"""Tiles as pictures in a page: each sensor's composites, stretched alike for every tile of the archive."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image as PillowImage

from csmae_hf.data.evenly import evenly
from csmae_hf.data.unit_rules import units_column
from csmae_hf.data.units import shown_image, tile_image
from csmae_hf.visualize import GAMMA, Image, Limits, common_limits, stretch, to_rgb

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

MEASURED_TILES = 48
"""Tiles, evenly spread over the archive, by whose percentiles all pictures are stretched."""

_MOST_KEPT = 4000
_FALSE_COLOR = ("B08", "B04", "B03")


@dataclass(frozen=True)
class Composite:
    """A way to show a sensor, named in words, such as "true colour"."""

    sensor: str
    name: str
    bands: tuple[str, str, str] | None = None  # that become red, green and blue where it is no usual composite

    @property
    def title(self) -> str:
        """Sensor and way, such as "S2 true colour"."""
        return f"{self.sensor.upper()} {self.name}".strip()

    @property
    def known_sensor(self) -> str | None:
        """The sensor where `csmae_hf.visualize` knows it; else its bands alone say how it is shown."""
        return self.sensor if self.sensor in ("s1", "s2") else None


def composites_of(sensor: str, bands: Sequence[str]) -> list[Composite]:
    """True and false colour of an optical sensor that has the bands, VV / VH / ratio of a radar, the first bands of any other."""
    have = set(bands)
    if have >= {"B02", "B03", "B04"}:
        more = [Composite(sensor, "false colour", _FALSE_COLOR)] if have >= set(_FALSE_COLOR) else []
        return [Composite(sensor, "true colour"), *more]
    return [Composite(sensor, "VV / VH / ratio" if have >= {"VV", "VH"} else "first bands")]


def paint(bands: Mapping[str, Any], composite: Composite, limits: Limits) -> Image:
    """Draw a tile, (H, W) by band, as (H, W, 3) float32 in 0..1; the limits of each channel are shown as 0 and 1."""
    if composite.bands is None:
        return to_rgb(bands, composite.known_sensor, limits)
    channels = np.stack([np.asarray(bands[name], dtype=np.float32) for name in composite.bands], axis=-1)
    return stretch(channels, limits, GAMMA)


def measure_limits(tiles: Sequence[Mapping[str, Any]], composite: Composite) -> Limits:
    """Measure between which values to stretch each of the three channels: the 2nd and 98th percentile of a tile, bands by name.

    Of several tiles it is the median of their 2nd, and the upper quartile of their 98th: a few clouds would leave all others black.
    """
    sensor = composite.known_sensor
    if composite.bands is not None:
        # Named so that the three are taken in this order, as of a sensor of which nothing is known.
        tiles = [{f"channel {place}": tile[band] for place, band in enumerate(composite.bands)} for tile in tiles]
        sensor = None
    limits = np.asarray([common_limits([tile], sensor) for tile in tiles])  # (tiles, channels, 2)
    low, high = np.median(limits[..., 0], axis=0), np.percentile(limits[..., 1], 75, axis=0)
    return [(float(first), float(max(last, first + 1e-3))) for first, last in zip(low, high, strict=True)]


def to_data_uri(rgb: Image, quality: int = 82) -> str:
    """Write a picture, (H, W, 3) in 0..1, as a `data:` URI of a JPEG, which a page shows without asking anybody."""
    pixels = (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class TilePictures:
    """Pictures of the tiles of a dataset, made when they are asked for and kept.

    Args:
        datasets: The tiles, with their pixels; a tile that several have is shown of the last. None where they are not at hand, and
            nothing has a picture.
        sensors: Bands by sensor.
        units: By sensor, the unit of images that do not say their own.
        tiles: Metadata of an archive, which may know the units of its tiles.
    """

    def __init__(
        self,
        datasets: "Sequence[Dataset]",
        sensors: Mapping[str, Sequence[str]],
        units: Mapping[str, str] | None = None,
        tiles: pa.Table | None = None,
    ):
        self.datasets = datasets
        self.composites = {sensor: composites_of(sensor, bands) for sensor, bands in sensors.items()}
        self.units = dict(units or {})
        self._known: dict[str, dict[str, str | None]] = {}  # units of tiles by id, by sensor
        if tiles is not None:
            for sensor in sensors:
                if units_column(sensor) in tiles.column_names:
                    said = (tiles.column(name).to_pylist() for name in ("id", units_column(sensor)))
                    self._known[sensor] = dict(zip(*said, strict=True))
        self._limits: dict[Composite, Limits] = {}
        self.of = lru_cache(_MOST_KEPT)(self._draw_tile)
        """Title and `data:` URI of a tile, by its id, in every way of a sensor; none where there are no pixels."""
        self._places = {
            name: (dataset, row) for dataset in datasets for row, name in enumerate(dataset.with_format(None)["id"])
        }
        names = list(self._places)
        measured = [names[place] for place in evenly(len(names), MEASURED_TILES)]
        for sensor, composites in self.composites.items():
            tiles_of = [bands for name in measured if (bands := self.bands(name, sensor)) is not None]
            self._limits |= {way: measure_limits(tiles_of, way) for way in composites if tiles_of}

    def bands(self, tile: str, sensor: str) -> Mapping[str, Any] | None:
        """A tile by its id, (H, W) by band in dB or digital numbers; None where it is not there, has no such sensor or is broken."""
        dataset, row = self._places.get(tile, (None, 0))
        if dataset is None or sensor not in dataset.column_names:
            return None
        try:
            image = tile_image(dataset[row], sensor)
            return (
                None
                if image is None
                else shown_image(image, self._known.get(sensor, {}).get(tile) or self.units.get(sensor))
            )
        except (ValueError, KeyError, OSError):
            return None

    def paint(self, bands: Mapping[str, Any], sensor: str) -> list[Image]:
        """Pictures of an image, (H, W) by name, in every way of its sensor, stretched as all tiles of the archive are."""
        shown = shown_image(bands, self.units.get(sensor))
        return [
            paint(shown, way, self._limits.get(way) or measure_limits([shown], way)) for way in self.composites[sensor]
        ]

    def draw(self, bands: Mapping[str, Any], sensor: str) -> list[tuple[str, str]]:
        """Title and `data:` URI of an image in every way of its sensor."""
        titles = [way.title for way in self.composites[sensor]]
        return list(zip(titles, map(to_data_uri, self.paint(bands, sensor)), strict=True))

    def _draw_tile(self, tile: str, sensor: str) -> list[tuple[str, str]]:
        bands = self.bands(tile, sensor) if sensor in self.composites else None
        return [] if bands is None else self.draw(bands, sensor)
