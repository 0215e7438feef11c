"""From rows of a dataset to a batch of tensors, standardised here or ready to be standardised on a device."""

from collections.abc import Mapping, Sequence
from typing import Any

from image_processing_csmae import CSMAEImageProcessor


class TileCollator:
    """Batches rows of tiles through the processor, in whichever process loads them.

    The tiles of a batch are read together, each stored value once, whatever sensors are taken from it.

    Args:
        processor: Turns bands into tensors.
        sensors: Pixel columns to read; default those of the processor.
        native: Check and stack only, and leave resampling and standardising to `processor.process_native`, which does it on the
            device: a third of the bytes to move, and no such work in the processes that load.
        with_ids: Whether a batch also has the tiles' names, as a list under `ids`.

    Example:
        >>> collator = TileCollator(processor, native=True)
        >>> inputs = processor.process_native(collator(rows), device="cuda")
    """

    def __init__(
        self,
        processor: CSMAEImageProcessor,
        sensors: Sequence[str] | None = None,
        native: bool = False,
        with_ids: bool = False,
    ):
        self.processor = processor
        self.sensors = list(sensors or processor.sensors)
        self.native = native
        self.with_ids = with_ids

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: Each with an image by sensor and, for messages, an `id`.

        Returns:
            (B, C, H, W) by sensor; if `native`, by sensor a dict of (B, bands, H, W), as `processor.stack_native` makes it;
            last, where asked for, the names of the B tiles.

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
        from csmae_hf.data.pixel_column import read_together  # it imports datasets, and so pandas

        try:
            with read_together(row[sensor] for row in rows for sensor in self.sensors):
                batch = self._process(rows)
        except ValueError as error:
            if type(error) is not ValueError:  # a store's own errors name the tile already
                raise
            raise self._named(rows, error) from error
        if self.with_ids:
            batch["ids"] = [str(row.get("id", place)) for place, row in enumerate(rows)]
        return batch

    def _process(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        images: dict[str, Any] = {sensor: [row[sensor] for row in rows] for sensor in self.sensors}
        return dict(
            self.processor.stack_native(**images) if self.native else self.processor(**images, return_tensors="pt")
        )

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
