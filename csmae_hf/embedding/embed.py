"""Tiles to embeds: the one loop that embeds tiles, in batches, and puts those aside that cannot be read.

A tile of which a sensor cannot be read is put aside with the reason, and costs no other tile. A batch that can be read is read once,
as a whole; of one that cannot, each tile is tried alone, and what is refused alone is tried beside the good ones: no tile is judged
otherwise because another is broken. How many may be unreadable is for the caller to say, `MAX_UNREADABLE_SHARE` by default.
Tiles that look wrong in a way that is a guess are left out likewise, refused, or accepted as they are.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from csmae_hf.cpu import speed_up
from csmae_hf.data.collate import TileCollator, group_reasons, is_suspect
from csmae_hf.data.store import TileNotFoundError
from csmae_hf.data.suspects import MAX_UNREADABLE_SHARE, SUSPECT_REMEDY, Suspect, check_suspect
from csmae_hf.data.units import image_columns
from csmae_hf.search.ids import ID

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

UNREADABLE = (ValueError, TileNotFoundError)
"""What reading or processing a tile raises where the tile is at fault."""

Embeds = NDArray[np.float32]


class SuspectReason(str):
    """Why a tile cannot be used, where it is a guess."""

    __slots__ = ()


Batch = tuple[dict[str, torch.Tensor] | None, list[int], dict[int, str]]
"""Images by sensor of the readable tiles, their rows, and why each of the others cannot be read, by row."""
Put = Callable[[Sequence[int], Mapping[str, Embeds], Mapping[int, str]], None]
"""Takes of a batch the rows of the readable tiles, their (B, D) by sensor, and why the others are unreadable, by row."""


def embed_dataset(
    model: torch.nn.Module,
    processor: Any,
    dataset: "Dataset",
    sensor: str,
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    progress: bool = True,
    suspect: Suspect = "refuse",
) -> Embeds:
    """Embed every tile of a dataset as one sensor sees it.

    Only this sensor's pixels are read. The model is left as it was found: mode and device.

    Args:
        model: A `CSMAEModel`, or any module with `config.sensors` whose output has `embeds[sensor]`: of an encoder of any kind
            `encoder_pair` makes model and processor.
        processor: The model's image processor.
        dataset: Rows with a pixel column named like the sensor, `{band: array}`.
        sensor: Sensor to embed.
        batch_size: Tiles per forward pass.
        device: Where to embed; default where the model is.
        num_workers: Processes that read and preprocess; 0 does it in this one.
        progress: Show a bar with images per second on the terminal when it takes more than 2 seconds.
        suspect: Whether tiles that show a sign which is a guess are refused or accepted as they are.

    Returns:
        (N, D) float32, row i of tile i.

    Raises:
        ValueError: The model or the dataset lacks the sensor, the dataset is empty, or a tile is unusable (named).
    """
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "device": device,
        "num_workers": num_workers,
        "suspect": suspect,
    }
    embeds, _ = embed_tiles(model, processor, dataset, [sensor], most_unreadable=0, progress=progress, **options)
    return embeds[sensor]


def embed_tiles(
    model: torch.nn.Module,
    processor: Any,
    dataset: "Dataset",
    sensors: Sequence[str],
    *,
    most_unreadable: float = MAX_UNREADABLE_SHARE,
    batch_size: int = 64,
    suspect: Suspect = "leave-out",
    **options: Any,
) -> tuple[dict[str, Embeds], dict[int, str]]:
    """Embed the tiles of a dataset as of [`embed_dataset`], but for those of which one of the sensors cannot be read.

    Tiles that show a sign which is a guess are left out likewise, refused, or accepted, as `suspect` says.

    Returns:
        (M, D) embeds of the M readable tiles by sensor, in order; and why each of the others cannot be read, by row.

    Raises:
        ValueError: The model or the dataset lacks a sensor, there is no tile, or more than the share `most_unreadable` are unreadable;
            where that is 0, the error of the first.
    """
    check_sensors(model, dataset.column_names, sensors, len(dataset))
    total = len(dataset)
    embeds: dict[str, Embeds] = {}
    unreadable: dict[int, str] = {}

    def put(good: Sequence[int], found: Mapping[str, Embeds], failed: Mapping[int, str]) -> None:
        unreadable.update(failed)
        refuse_many(unreadable, total, most_unreadable)
        for sensor, values in found.items():
            if sensor not in embeds:
                embeds[sensor] = np.empty((total, values.shape[1]), np.float32)
            embeds[sensor][good] = values

    rows, batches = columns_to_read(dataset, sensors), _in_order(total, batch_size)
    embed_batches(
        model, processor, rows, sensors, batches, put, isolate=most_unreadable > 0, suspect=suspect, **options
    )
    return without_unreadable(embeds, unreadable), unreadable


def refuse_many(unreadable: Mapping[int, str], total: int, most: float = MAX_UNREADABLE_SHARE) -> None:
    """Refuse, with a ValueError, more unreadable tiles than a share of all; why each is one is by its row."""
    if len(unreadable) > most * total:
        raise ValueError(
            f"{len(unreadable)} or more of {total} tiles cannot be used, more than {most:.0%}. "
            f"{SUSPECT_REMEDY}. The first: {next(iter(unreadable.values()))}\nAll that were found:\n"
            f"{group_reasons(list(unreadable.values()))}"
        )


def without_unreadable(embeds: Mapping[str, Embeds], unreadable: Mapping[int, str]) -> dict[str, Embeds]:
    """Leave rows of unreadable tiles out of embeds, (N, D) by sensor, which is said in a warning."""
    total = len(next(iter(embeds.values()), ()))
    if not unreadable:
        return dict(embeds)
    logger.warning("%d of %d tiles are left out:\n%s", len(unreadable), total, group_reasons(list(unreadable.values())))
    readable = np.setdiff1d(np.arange(total), list(unreadable))
    return {sensor: values[readable] for sensor, values in embeds.items()}


def embed_images(
    model: torch.nn.Module,
    processor: Any,
    images: Sequence[Any],
    sensor: str,
    names: Sequence[str],
    suspect: Suspect = "refuse",
) -> Embeds:
    """Embed images of one sensor that are in no dataset: (Q, D). `names` is what errors call each; none is left out."""
    check_sensors(model, [sensor], [sensor], len(images))
    if hasattr(processor, "collator"):
        processor(**{sensor: images})  # which knows tiles by their ids alone, and says so
    rows = [{ID: name, sensor: image} for name, image in zip(names, images, strict=True)]
    parts: list[Embeds] = []

    def put(good: Sequence[int], found: Mapping[str, Embeds], failed: Mapping[int, str]) -> None:
        parts.append(found[sensor])

    batches = _in_order(len(rows), 64)
    embed_batches(model, processor, rows, [sensor], batches, put, isolate=False, suspect=suspect, progress=False)
    return np.concatenate(parts)


def _in_order(total: int, batch_size: int) -> list[range]:
    return [range(start, min(start + batch_size, total)) for start in range(0, total, batch_size)]


def embed_batches(
    model: torch.nn.Module,
    processor: Any,
    rows: Any,
    sensors: Sequence[str],
    batches: Sequence[Sequence[int]],
    put: Put,
    *,
    isolate: bool = True,
    suspect: Suspect = "leave-out",
    device: str | torch.device | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> None:
    """Embed batches of tiles, in order: the loop under all else that embeds. See [`embed_dataset`] for what is not told here.

    Args:
        model: With `config.sensors`, whose output has `embeds[sensor]`.
        processor: Its image processor.
        rows: Dataset or list; a row has an image by sensor and, for messages, an `id`.
        sensors: To embed; a tile is read once for all of them.
        batches: Row numbers, ascending, of each forward pass.
        put: Called with what came of each batch.
        isolate: Whether unreadable tiles are put aside; else the first error is raised.
        suspect: Whether tiles that show a sign which is a guess are refused, put aside as unreadable ones, or accepted.

    Raises:
        ValueError: Also if `suspect` is none of these.
    """
    check_suspect(suspect)
    target = next(model.parameters()).device if device is None else torch.device(device)
    if hasattr(processor, "collator"):  # of embeds that are there already
        collate = processor.collator(sensors)
    else:
        collate = TileCollator(processor, sensors, suspect="accept" if suspect == "accept" else None)
    source = _Batches(rows, batches, collate, isolate, refuse=suspect == "refuse")
    pinned = target.type == "cuda"
    loader: DataLoader[Batch] = DataLoader(source, batch_size=None, num_workers=num_workers, pin_memory=pinned)
    total, title = sum(map(len, batches)) * len(sensors), f"embedding {', '.join(sensors)}"
    bar = tqdm(total=total, desc=title, unit="image", delay=2, disable=not progress)
    with _evaluating(model, target), torch.inference_mode(), bar:
        for images, good, failed in loader:
            found = (
                {} if images is None else {name: forward_pixels(model, images[name], name, target) for name in sensors}
            )
            put(good, found, failed)
            bar.update((len(good) + len(failed)) * len(sensors))


class _Batches(torch.utils.data.Dataset[Batch]):
    """Batches of tiles, each read and processed by whichever process loads it."""

    def __init__(self, rows: Any, batches: Sequence[Sequence[int]], collate: TileCollator, isolate: bool, refuse: bool):
        self.rows, self.batches, self.collate, self.isolate, self.refuse = rows, batches, collate, isolate, refuse

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        places = list(self.batches[number])
        try:
            return self._read(places), places, {}
        except UNREADABLE as error:
            if not self.isolate or (self.refuse and is_suspect(error)):
                raise
            return self._readable(places)

    def _read(self, places: list[int]) -> dict[str, torch.Tensor]:
        fetch = getattr(self.rows, "__getitems__", None)  # of `datasets`, many times faster than row by row
        return self.collate(fetch(places) if fetch is not None else [self.rows[place] for place in places])

    def _readable(self, places: list[int]) -> Batch:
        """A batch without the tiles that cannot be read."""
        alone: dict[int, dict[str, torch.Tensor]] = {}
        failed: dict[int, str] = {}
        for place in places:
            try:
                alone[place] = self._read([place])
            except UNREADABLE as error:
                if self.refuse and is_suspect(error):
                    raise
                failed[place] = SuspectReason(error) if is_suspect(error) else str(error)
        good = list(alone)
        if not good:
            return None, [], failed
        try:
            images = self._read(good)
        except UNREADABLE:  # none is at fault by itself, as where images differ in size
            images = {sensor: torch.cat([alone[place][sensor] for place in good]) for sensor in self.collate.sensors}
        for place in list(failed):  # beside others it may pass, as it would had none of them been broken
            together = sorted([*good, place])
            try:
                images, good = self._read(together), together
                del failed[place]
            except UNREADABLE:
                continue
        return images, good, failed


def forward_pixels(model: torch.nn.Module, pixels: torch.Tensor, sensor: str, device: torch.device) -> Embeds:
    """(B, D) float32 embeds of one batch of one sensor, (B, C, H, W), by a model on the device in evaluation mode."""
    own = next(model.parameters())
    outputs = model(**{sensor: pixels.to(device=device, dtype=own.dtype, non_blocking=True)})
    embeds: Embeds = outputs.embeds[sensor].float().cpu().numpy()
    return embeds


def check_sensors(model: torch.nn.Module, columns: Sequence[str], sensors: Sequence[str], n_tiles: int) -> None:
    """Refuse, with a ValueError, sensors that the model or the dataset's columns lack, no sensor at all, and no tiles."""
    known = list(model.config.sensors)  # type: ignore[union-attr, arg-type]
    if not sensors:
        raise ValueError(
            f"There is no sensor to embed; the model has {', '.join(known)}, the dataset {', '.join(columns)}."
        )
    for sensor in sensors:
        if sensor not in known:
            raise ValueError(f"The model has no sensor {sensor!r}; it has {', '.join(map(repr, known))}.")
        if sensor not in columns:
            raise ValueError(
                f"The dataset has no pixel column {sensor!r}; its columns are {', '.join(columns)}. "
                f"Load it with this sensor, or rename its column to {sensor!r}."
            )
    if not n_tiles:
        raise ValueError("The dataset has no tiles; check the split and the filters that made it.")


def columns_to_read(dataset: "Dataset", sensors: Sequence[str]) -> "Dataset":
    """A dataset without the columns that the loop needs not, so that no other sensor's pixels are read."""
    return dataset.select_columns(image_columns(dataset, sensors))


@contextmanager
def _evaluating(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """The model in evaluation mode on the device; after it every module's mode, and the model's device, as before."""
    modes = [(module, module.training) for module in model.modules()]
    home = next(model.parameters()).device
    model.eval()
    if device != home:
        model.to(device)
    if device.type == "cpu":
        speed_up(model)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        if device != home:
            model.to(home)
