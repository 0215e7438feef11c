"""From rows of a dataset to a batch of tensors, standardised here or ready to be standardised on a device."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from csmae_hf.data.labels import known_numbers
from csmae_hf.data.suspects import unit_remedy
from csmae_hf.data.units import tile_image
from image_checks_csmae import SuspectImageError
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
        suspect: What the processor is told to do with images that show a sign which is a guess, "refuse" or "accept"; default nothing.
        fill_missing: Whether a tile may lack the image of a sensor: the batch then has zeros there, and under `present`, by sensor,
            which tiles have one, as the model takes it. Else such a tile is refused.
        num_labels: Classes that a column `labels` numbers; where given, a batch also has `labels`, as a classifier takes them.
        problem_type: Form of the labels: "multi_label_classification", (B, num_labels) of 0.0 and 1.0, or
            "single_label_classification", (B,) numbers.

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
        suspect: str | None = None,
        fill_missing: bool = False,
        num_labels: int | None = None,
        problem_type: str = "multi_label_classification",
    ):
        if problem_type not in ("multi_label_classification", "single_label_classification"):
            raise ValueError(
                f"problem_type = {problem_type!r}: expected 'multi_label_classification' or 'single_label_classification'."
            )
        self.processor = processor
        self.sensors = list(sensors or processor.sensors)
        self.native = native
        self.with_ids = with_ids
        self.options: dict[str, Any] = {} if suspect is None else {"suspect": suspect}
        self.fill_missing = fill_missing
        self.num_labels = num_labels
        self.problem_type = problem_type

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: Each with an image by sensor, for messages an `id`, and perhaps the image's unit as `units_SENSOR`.

        Returns:
            (B, C, H, W) by sensor; if `native`, by sensor a dict of (B, bands, H, W), as `processor.stack_native` makes it;
            where asked for, `present`, by sensor (B,) bool, the names of the B tiles, and their labels.

        Raises:
            SuspectImageError: If signs that are guesses speak against tiles, unless they are accepted; the message names the tiles.
            ValueError: If a tile lacks an image or a label, or is not what the processor takes; the message names the tile.
        """
        known = getattr(self.processor, "sensors", {})  # another model's processor may not say
        bands = {sensor: known.get(sensor, ()) for sensor in self.sensors}
        rows = [{**row, **{sensor: tile_image(row, sensor, names) for sensor, names in bands.items()}} for row in rows]
        present = {sensor: [row[sensor] is not None for row in rows] for sensor in self.sensors}
        for sensor, flags in present.items():
            missing = [_name(row, place) for place, row in enumerate(rows) if not flags[place]]
            if missing and not self.fill_missing:
                raise ValueError(
                    f"{len(missing)} of the {len(rows)} tiles of a batch have no {sensor} image, {missing[0]} for one: leave them "
                    "out with dataset.filter, or read a store that has them."
                )
        without = [
            _name(row, place) for place, row in enumerate(rows) if not any(flags[place] for flags in present.values())
        ]
        if without:
            raise ValueError(
                f"{without[0]} has no image of {', '.join(self.sensors)}: leave it out with dataset.filter."
            )
        from csmae_hf.data.pixel_column import read_together  # it imports datasets, and so pandas

        try:
            with read_together(row[sensor] for row in rows for sensor in self.sensors):
                batch = self._process(rows, present)
        except ValueError as error:
            if type(error) is not ValueError and not is_suspect(error):  # a store's own errors name the tile already
                raise
            raise self._named(rows, error) from error
        if self.fill_missing:
            batch["present"] = {sensor: torch.tensor(flags) for sensor, flags in present.items()}
        if self.num_labels is not None:
            batch["labels"] = self._labels(rows, self.num_labels)
        if self.with_ids:
            batch["ids"] = [str(row.get("id", place)) for place, row in enumerate(rows)]
        return batch

    def _labels(self, rows: Sequence[Mapping[str, Any]], num_labels: int) -> torch.Tensor:
        single = self.problem_type == "single_label_classification"
        labels = torch.zeros(len(rows), num_labels)
        for place, row in enumerate(rows):
            value = row.get("labels")
            given = [] if value is None else np.atleast_1d(value).astype(int).tolist()
            numbers = known_numbers(given)
            unknown = value is None or len(numbers) < len(given)
            if unknown or (single and len(numbers) != 1) or not all(0 <= n < num_labels for n in numbers):
                wanted = f"one class number below {num_labels}" if single else f"class numbers below {num_labels}"
                raise ValueError(
                    f"{_name(row, place)} has the labels {value}: expected {wanted}. Leave it out with dataset.filter, or give "
                    "num_labels and problem_type that suit the data set."
                )
            labels[place, numbers] = 1
        return labels.argmax(dim=1) if single else labels

    def _process(self, rows: Sequence[Mapping[str, Any]], present: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
        images: dict[str, Any] = {}
        for sensor in self.sensors:
            there = [row[sensor] for row, flag in zip(rows, present[sensor], strict=True) if flag]
            images |= {sensor: there} if there else {}
        made = (
            self.processor.stack_native(**images, **self.options)
            if self.native
            else self.processor(**images, return_tensors="pt", **self.options)
        )
        return {sensor: self._spread(sensor, made.get(sensor), present[sensor]) for sensor in self.sensors}

    def _spread(self, sensor: str, made: Any, flags: Sequence[bool]) -> Any:
        """Put the images that are there in their places, with zeros in the others."""
        if all(flags):
            return made
        if made is None:
            size, bands = self.processor.size, self.processor.sensors[sensor]
            blank = torch.zeros(len(flags), len(bands), size, size)
            return {" ".join(bands): blank} if self.native else blank
        if isinstance(made, Mapping):
            return {key: self._spread(sensor, pixels, flags) for key, pixels in made.items()}
        there = made.cpu().numpy()  # torch cannot place 16-bit integers
        spread = np.zeros((len(flags), *there.shape[1:]), there.dtype)
        spread[np.array(flags)] = there
        return torch.from_numpy(spread).to(made.device)

    def _named(self, rows: Sequence[Mapping[str, Any]], error: ValueError) -> ValueError:
        """The error with the name of the first tile that is refused by itself, and of others that are."""
        found: list[tuple[str, ValueError]] = []
        for place, row in enumerate(rows):
            try:
                self._process([row], {sensor: [row[sensor] is not None] for sensor in self.sensors})
            except ValueError as own_error:
                found.append((_name(row, place), own_error))
        if not found:
            return error
        (first, reason), *others = found
        also = f" Refused by themselves are also {', '.join(name for name, _ in others)}." if others else ""
        return type(reason)(f"{first}: {reason}{also}")


def is_suspect(error: BaseException) -> bool:
    """Say whether an error is of a sign that is a guess, also where the processor's code came with a published model."""
    return any(kind.__name__ == SuspectImageError.__name__ for kind in type(error).__mro__)


def find_suspects(
    processor: CSMAEImageProcessor, dataset: Any, sensors: Sequence[str], rows: Sequence[int]
) -> dict[int, str]:
    """Look at rows of a dataset for signs that are guesses: why each suspect tile is one, by row.

    Raises:
        ValueError: If a certain sign speaks against a tile; the message names it.
    """
    collate = TileCollator(processor, sensors, native=True, suspect="refuse", fill_missing=True)
    suspects: dict[int, str] = {}
    for start in range(0, len(rows), 64):
        part = list(rows[start : start + 64])
        tiles = dataset.__getitems__(part)
        try:
            collate(tiles)
        except ValueError:
            for row, tile in zip(part, tiles, strict=True):
                try:
                    collate([tile])
                except ValueError as error:
                    if not is_suspect(error):
                        raise
                    suspects[row] = str(error)
    return suspects


def group_reasons(reasons: Sequence[str], most: int = 10) -> str:
    """Sum up why tiles are refused: for each kind of reason how many tiles show it, which, and what is said of the first; at the end
    what to do where some tiles are in another unit than others."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        said = reason.partition(": ")[2] or reason
        kinds.setdefault(re.sub(r"[-+]?\d[\d.,e+-]*", "#", said), []).append(reason)
    lines = []
    for found in sorted(kinds.values(), key=len, reverse=True):
        names = [reason.partition(": ")[0].removeprefix("tile ") for reason in found]
        more = f" and {len(found) - most} more" if len(found) > most else ""
        lines.append(f"  {len(found)} ({', '.join(names[:most])}{more}): {found[0].partition(': ')[2] or found[0]}")
    remedy = unit_remedy(reasons)
    return "\n".join([*lines, *([remedy] if remedy else [])])


def _name(row: Mapping[str, Any], place: int) -> str:
    return f"tile {row['id']}" if row.get("id") is not None else f"tile {place} of the batch"
