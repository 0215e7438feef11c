"""Embeds that survive a crash: written shard by shard, found again by what they were made of, shared by several processes.

A shard holds the embeds of a few hundred tiles. Its name is a hash of those tiles (ids, keys, bands, and size and time of the
LMDB they are read from; of other files the pixels), and the folder it lies in is named by the model's weights and the processor's
settings; `made_with.json` in it holds the fields of the configuration that change an embed, and a model of other fields is refused.
So a run that is killed loses at most the shard it was working on; another model, processor or store never finds a shard that is not
its own; and whatever lies there may be deleted at any time. Processes divide the shards between them. A shard is always
embedded in the same batches, whichever process does it: one process and several give the same bits.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from csmae_hf.data.collate import TileCollator
from csmae_hf.data.store import DATA_FILE, TileNotFoundError
from csmae_hf.embedding.embed import ID_COLUMN, check_sensor, evaluating, forward_pixels
from csmae_hf.embedding.identity import encoder_settings, processor_hash, refuse_other_settings, weights_hash
from csmae_hf.files import write_atomically

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

logger = logging.getLogger(__name__)

SHARD_TILES = 512
"""Tiles of a shard: what a killed process may have to embed again."""

FORMAT = "csmae-embeds-shard"
SETTINGS = "made_with.json"
_ROWS_AT_A_TIME = 4096


class UnusableTilesError(ValueError):
    """Tiles could not be embedded; the message names them and the remedy. All others were."""


@dataclass(frozen=True)
class CachedEmbeds:
    """The embeds of a dataset.

    Attributes:
        embeds: (N, D) float32; NaN where a tile could not be embedded.
        failed: Why, by the row of the tile.
    """

    embeds: NDArray[np.float32]
    failed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EmbedPlan:
    """Where the embeds of one sensor of a dataset lie, shard by shard.

    Attributes:
        sensor: The sensor.
        shards: First row, row after the last, and file of each shard, in order.
        n_tiles: Rows of the dataset.
    """

    sensor: str
    shards: Sequence[tuple[int, int, Path]]
    n_tiles: int


def plan_embeds(
    folder: Path, model: torch.nn.Module, processor: Any, dataset: "Dataset", sensors: Sequence[str]
) -> list[EmbedPlan]:
    """Name the shards of a dataset. Weights are hashed once; of an LMDB no tile is read.

    Args:
        folder: Where shards of all models lie.
        model: The model.
        processor: Its image processor.
        dataset: The tiles.
        sensors: Sensors to embed.

    Returns:
        A plan for each sensor.

    Raises:
        ValueError: The model or the dataset lacks a sensor, or the dataset is empty.
        ArchiveMismatchError: What lies there was made with the same weights and another configuration.
    """
    for sensor in sensors:
        check_sensor(model, dataset, sensor)
    place = folder / f"{weights_hash(model)[:16]}-{processor_hash(processor)[:16]}"
    _check_settings(place, encoder_settings(model))
    return [
        EmbedPlan(
            sensor,
            [(start, stop, place / sensor / f"{name}.safetensors") for start, stop, name in _shards(dataset, sensor)],
            len(dataset),
        )
        for sensor in sensors
    ]


def _check_settings(place: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder of shards that another configuration made; say in a new one what makes it."""
    record = place / SETTINGS
    if record.is_file():
        remedy = f"Load the model as it was, delete {place}, or keep these embeds elsewhere."
        refuse_other_settings(json.loads(record.read_bytes()), settings, str(place), remedy)
    elif not any(
        place.glob("*/*.safetensors")
    ):  # else it is of a release that did not record this, and is taken as it is
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(record, json.dumps(settings, indent=2))


def _shards(dataset: "Dataset", sensor: str) -> Iterator[tuple[int, int, str]]:
    """Rows and hash of each shard."""
    columns = [name for name in (ID_COLUMN, sensor) if name in dataset.column_names]
    source, in_column = _describe(dataset.features[sensor])
    raw = dataset.select_columns(columns).with_format("arrow")  # of a store: its keys, no pixels
    for start in range(0, len(dataset), SHARD_TILES):
        stop = min(start + SHARD_TILES, len(dataset))
        total = hashlib.sha256(f"{FORMAT}:{source}:{stop - start}:".encode())
        for batch in raw[start:stop].combine_chunks().to_batches():
            total.update(batch.serialize())
        if not in_column:
            for row in dataset.select_columns([sensor]).select(range(start, stop)):
                total.update(_pixels(row[sensor]))
        yield start, stop, total.hexdigest()[:32]


def _describe(feature: Any) -> tuple[str, bool]:
    """What a pixel column's values mean, and whether column and description say all of the pixels.

    An LMDB says by size and time of its file that it is the same. Files without that are read: what they hold is what counts.
    """
    store = getattr(feature, "store", None)
    if store is None:
        return repr(feature), True
    data = Path(store) / DATA_FILE
    if not data.is_file():
        return f"{list(feature.bands)}", False
    return f"{list(feature.bands)}:{data.stat().st_size}:{data.stat().st_mtime_ns}", True


def _pixels(bands: Any) -> bytes:
    """Hash of a tile's bands, or of why they cannot be read."""
    total = hashlib.sha256()
    try:
        for name, values in sorted(dict(bands or {}).items()):
            total.update(f"{name}:{np.asarray(values).dtype}:{np.shape(values)}:".encode())
            total.update(np.ascontiguousarray(values).tobytes())
    except (ValueError, TileNotFoundError) as error:
        total.update(str(error).encode())
    return total.digest()


class _SortingCollator:
    """Batches tiles, putting those aside that are unusable."""

    def __init__(self, processor: Any, sensor: str):
        self.collate = TileCollator(processor, [sensor])

    def __call__(
        self, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, torch.Tensor] | None, list[int], dict[int, str]]:
        """Make a batch of the usable tiles; give their places, and what is wrong with the others."""
        try:
            return self.collate(rows), list(range(len(rows))), {}
        except (ValueError, TileNotFoundError):
            failed = {}
            for place, row in enumerate(rows):
                try:
                    self.collate([row])
                except (ValueError, TileNotFoundError) as error:
                    failed[place] = str(error)
            good = [place for place in range(len(rows)) if place not in failed]
            return (self.collate([rows[place] for place in good]) if good else None), good, failed


@dataclass
class _Shard:
    """A shard while it is being filled."""

    start: int
    stop: int
    path: Path
    embeds: NDArray[np.float32] | None = None
    failed: dict[int, str] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)

    @classmethod
    def open(cls, start: int, stop: int, path: Path) -> "_Shard":
        """What lies on disk of it; tiles that failed before are tried again."""
        shard = cls(start, stop, path)
        found = _read(path, stop - start)
        shard.pending = list(range(stop - start))
        if found is not None:
            shard.embeds, failed = found
            shard.pending = sorted(failed)
        return shard

    def put(self, places: Sequence[int], embeds: NDArray[np.float32] | None, failed: Mapping[int, str]) -> None:
        if embeds is not None:
            if self.embeds is None or not self.embeds.shape[1]:
                self.embeds = np.full((self.stop - self.start, embeds.shape[1]), np.nan, dtype=np.float32)
            self.embeds[list(places)] = embeds
        self.failed |= failed

    def write(self) -> None:
        embeds = self.embeds if self.embeds is not None else np.empty((self.stop - self.start, 0), dtype=np.float32)
        header = {
            "format": FORMAT,
            "sha256": hashlib.sha256(embeds.tobytes()).hexdigest(),
            "failed": {str(place): message for place, message in sorted(self.failed.items())},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, save({"embeds": embeds}, metadata={FORMAT: json.dumps(header)}))


def _read(path: Path, rows: int) -> tuple[NDArray[np.float32], dict[int, str]] | None:
    """Embeds and failures of a shard; None where there is none, or none that is whole."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="numpy") as stream:
            header = json.loads((stream.metadata() or {})[FORMAT])
            embeds = np.asarray(stream.get_tensor("embeds"))
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        logger.warning("%s is no whole shard of embeds (%s): its tiles are embedded again.", path, error)
        return None
    if len(embeds) != rows or hashlib.sha256(embeds.tobytes()).hexdigest() != header["sha256"]:
        logger.warning("%s is damaged (its checksum is another): its tiles are embedded again.", path)
        return None
    return embeds, {int(place): message for place, message in header["failed"].items()}


def embed_missing(
    plan: EmbedPlan,
    model: torch.nn.Module,
    processor: Any,
    dataset: "Dataset",
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    process: int = 0,
    processes: int = 1,
    progress: bool = True,
) -> int:
    """Embed what the shards lack: every `processes`-th shard, from `process` on. A shard is written as soon as it is full.

    A tile that cannot be read or processed is put aside with the reason, and the rest goes on: `collect_embeds` tells of it.

    Args:
        plan: Of this model, processor, dataset and sensor.
        model: The model.
        processor: Its image processor.
        dataset: The tiles.
        batch_size: Tiles of a forward pass.
        device: Where to embed; default where the model is.
        num_workers: Processes that read and preprocess; 0 does it in this one.
        process: Number of this process.
        processes: Processes that divide the shards.
        progress: Show a bar with images per second on the terminal when it takes more than 2 seconds.

    Returns:
        Tiles that were embedded here and now.
    """
    shards = [_Shard.open(*shard) for shard in plan.shards[process::processes]]
    jobs = [
        (shard, shard.pending[place : place + batch_size], place + batch_size >= len(shard.pending))
        for shard in shards
        for place in range(0, len(shard.pending), batch_size)
    ]
    total, there = sum(len(places) for _, places, _ in jobs), sum(shard.stop - shard.start for shard in shards)
    if there - total:
        logger.info("%d of %d %s tiles are embedded already.", there - total, there, plan.sensor)
    if not jobs:
        return 0
    own = next(model.parameters())
    target = own.device if device is None else torch.device(device)
    columns = [name for name in (ID_COLUMN, plan.sensor) if name in dataset.column_names]
    loader: DataLoader[Any] = DataLoader(
        dataset.select_columns(columns),
        batch_sampler=[[shard.start + place for place in places] for shard, places, _ in jobs],
        num_workers=num_workers,
        collate_fn=_SortingCollator(processor, plan.sensor),
        pin_memory=target.type == "cuda",
    )
    start, failures = time.monotonic(), 0
    with (
        evaluating(model, target),
        torch.inference_mode(),
        tqdm(total=total, desc=f"embedding {plan.sensor}", unit="image", delay=2, disable=not progress) as bar,
    ):
        for (shard, places, last), (images, good, failed) in zip(jobs, loader, strict=True):
            embeds = None if images is None else forward_pixels(model, images[plan.sensor], plan.sensor, target)
            reasons = {places[place]: reason for place, reason in failed.items()}
            shard.put([places[place] for place in good], embeds, reasons)
            failures += len(failed)
            if last:
                shard.write()
            bar.update(len(places))
    seconds = time.monotonic() - start
    logger.info(
        "Embedded %d %s tiles in %.1f s (%.0f images/s).", total - failures, plan.sensor, seconds, total / seconds
    )
    return total - failures


def collect_embeds(plan: EmbedPlan) -> CachedEmbeds:
    """Read the embeds of all shards.

    Args:
        plan: Whose shards are all there.

    Returns:
        The embeds in the order of the dataset, and the tiles that have none.

    Raises:
        FileNotFoundError: A shard is not there: another process has not written it, or writes to another disk.
    """
    failed: dict[int, str] = {}
    parts = []
    for start, stop, path in plan.shards:
        found = _read(path, stop - start)
        if found is None:
            raise FileNotFoundError(
                f"No embeds of {plan.sensor} tiles {start} to {stop - 1} at {path}. Where several machines work together, the output "
                "folder must be one that all of them share."
            )
        parts.append((start, stop, found[0]))
        failed |= {start + place: reason for place, reason in found[1].items()}
    width = max(part.shape[1] for _, _, part in parts)
    embeds = np.full((plan.n_tiles, width), np.nan, dtype=np.float32)
    for start, stop, part in parts:
        if part.shape[1]:
            embeds[start:stop] = part
    return CachedEmbeds(embeds, failed)


def refuse_failed(failed: Mapping[str, str], n_tiles: int, folder: Path) -> None:
    """Refuse to go on where tiles could not be embedded.

    Args:
        failed: Why, by the name of the tile.
        n_tiles: Tiles in all.
        folder: Where the embeds of the others lie.

    Raises:
        UnusableTilesError: There are such tiles; the message names the first ten.
    """
    if not failed:
        return
    listed = "\n".join(f"  {reason}" for reason in list(failed.values())[:10])
    more = f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
    raise UnusableTilesError(
        f"{len(failed)} of {n_tiles} tiles could not be embedded:\n{listed}{more}\nThe other {n_tiles - len(failed)} were, and are "
        f"kept in {folder}. Repair or leave out these tiles and run again, or go on without them: --unusable skip."
    )
