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
        with_ids: Whether a batch also has the tiles' names, as a list under `ids`.
    """

    def __init__(self, processor: CSMAEImageProcessor, sensors: Sequence[str] | None = None, with_ids: bool = False):
        self.processor = processor
        self.sensors = list(sensors or processor.sensors)
        self.with_ids = with_ids

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: Each with an image by sensor and, for messages, an `id`.

        Returns:
            (B, C, H, W) by sensor; last, where asked for, the names of the B tiles.

        Raises:
            ValueError: If a tile lacks an image, or is not what the processor takes; the message names the tile.
        """
        for sensor in self.sensors:
            missing = [_name(row, place) for place, row in enumerate(rows) if row[sensor] is None]
            if missing:
                raise ValueError(
                    f"{len(missing)} of the {len(rows)} tiles of a batch have no {sensor} image, {missing[0]} for one: leave them "
                    "out with dataset.filter, or read a store that has them."
                )
        try:
            batch: dict[str, Any] = self._process(rows)
            return (
                {**batch, "ids": [str(row.get("id", place)) for place, row in enumerate(rows)]}
                if self.with_ids
                else batch
            )
        except ValueError as error:
            if type(error) is not ValueError:  # a store's own errors name the tile already
                raise
            raise self._named(rows, error) from error

    def _process(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        images = {sensor: [row[sensor] for row in rows] for sensor in self.sensors}
        return dict(self.processor(**images, return_tensors="pt"))

    def _named(self, rows: Sequence[Mapping[str, Any]], error: ValueError) -> ValueError:
        """The error with the name of the first tile that is refused by itself."""
        for place, row in enumerate(rows):
            try:
                self._process([row])
            except ValueError as own_error:
                return ValueError(f"{_name(row, place)}: {own_error}")
        return error


def _name(row: Mapping[str, Any], place: int) -> str:
    return f"tile {row['id']}" if row.get("id") is not None else f"tile {place} of the batch"
