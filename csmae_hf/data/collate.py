"""From rows of a dataset to a batch of standardised tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from image_processing_csmae import CSMAEImageProcessor


class TileCollator:
    """Batches rows of tiles through the processor, in whichever process loads them.

    Args:
        processor: Turns bands into tensors.
        sensors: Pixel columns to read; default those of the processor.
    """

    def __init__(self, processor: CSMAEImageProcessor, sensors: Sequence[str] | None = None):
        self.processor = processor
        self.sensors = list(sensors or processor.sensors)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            rows: Each with an image by sensor and, for messages, an `id`.

        Returns:
            (B, C, H, W) by sensor.

        Raises:
            ValueError: If a tile is not what the processor takes; the message names the tile.
        """
        try:
            return self._process(rows)
        except ValueError:
            for number, row in enumerate(rows):  # the batch failed: find the tile
                try:
                    self._process([row])
                except ValueError as error:
                    raise ValueError(f"Tile {row.get('id', number)!r}: {error}") from error
            raise

    def _process(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        images = {sensor: [row[sensor] for row in rows] for sensor in self.sensors}
        return dict(self.processor(**images, return_tensors="pt"))
