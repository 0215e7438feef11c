"""Which tiles a run trains on and is judged on, in a few bytes: by these a resumed run tells other data from data that were moved."""

import hashlib
from typing import Any

import numpy as np
from datasets import Dataset

from csmae_hf.data.evenly import evenly
from csmae_hf.data.units import tile_image
from image_processing_csmae import CSMAEImageProcessor

TILES_READ = 16
"""So many tiles, evenly spread, are read; of the others the names count, and their order."""


def fingerprint_tiles(tiles: Dataset, processor: CSMAEImageProcessor) -> dict[str, Any]:
    """Describe tiles by what they are, wherever they lie.

    Args:
        tiles: Rows with `id` and an image by sensor, in the order in which the run numbers them.
        processor: Says which sensors and bands count.

    Returns:
        `count` of the tiles, and SHA-256 of their `ids` in order, and of the `pixels` and units of [`TILES_READ`] of them.

    Raises:
        ValueError: If one of these cannot be read.
    """
    ids = hashlib.sha256()
    for name in tiles["id"]:
        ids.update(str(name).encode() + b"\0")
    pixels = hashlib.sha256()
    for row in map(tiles.__getitem__, evenly(len(tiles), TILES_READ).tolist()):
        for sensor, names in processor.sensors.items():
            image = tile_image(row, sensor, names) if sensor in row else None
            unit = getattr(image, "said_unit", None) or getattr(image, "unit", None)
            pixels.update(f"{sensor} {unit} ".encode())
            bands: Any = (
                image if hasattr(image, "keys") else dict(zip(names, image if image is not None else (), strict=False))
            )
            for band in names:
                if band in bands:
                    pixels.update(f"{band} ".encode() + np.ascontiguousarray(bands[band]).tobytes())
    return {"count": len(tiles), "ids": ids.hexdigest(), "pixels": pixels.hexdigest()}
