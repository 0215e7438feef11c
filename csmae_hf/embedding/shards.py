"""Embeds that survive a crash: written shard by shard, found again by what they were made of, shared by several processes.

A shard holds the embeds of a few hundred tiles. Its name is a hash of those tiles (ids, keys, bands, and size and time of the
LMDB they are read from; of other files the pixels), and the folder it lies in is named by the model's weights and the processor's
settings; `made_with.json` in it is the record of both, and a model whose configuration has other fields is refused.
So a run that is killed loses at most the shard it was working on; another model, processor or store never finds a shard that is not
its own; and whatever lies there may be deleted at any time. Processes divide the shards between them. A shard is always
embedded in the same batches, whichever process does it: one process and several give the same bits.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from csmae_hf.data.collate import group_reasons
from csmae_hf.data.store import data_file
from csmae_hf.data.suspects import SUSPECT_REMEDY, Suspect, unit_remedy
from csmae_hf.embedding.embed import (
    UNREADABLE,
    Embeds,
    SuspectReason,
    check_sensors,
    columns_to_read,
    embed_batches,
    refuse_many,
    without_unreadable,
)
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.without_paths import without_paths
from csmae_hf.files import write_atomically

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

logger = logging.getLogger(__name__)

SHARD_TILES = 512
"""Tiles of a shard: what a killed process may have to embed again."""

FORMAT = "csmae-embeds-shard"
SETTINGS = "made_with.json"


class UnusableTilesError(ValueError):
    """Tiles could not be embedded; the message names them and the remedy. All others were."""


@dataclass(frozen=True)
class CachedEmbeds:
    """The embeds of a dataset, (N, D), NaN where a tile could not be embedded; and why it could not, by its row.

    Where the reason is a guess it is a [`SuspectReason`].
    """

    embeds: Embeds
    failed: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EmbedPlan:
    """Where the embeds of a sensor of a dataset of `n_tiles` lie: first row, row after the last, and file of each shard, in order.

    What `suspect` says is done with tiles that show a sign which is a guess: refused ones are put aside as those that are left out.
    """

    sensor: str
    shards: Sequence[tuple[int, int, Path]]
    n_tiles: int
    made_with: Identity  # model and processor
    suspect: Suspect = "leave-out"


def plan_embeds(
    folder: Path,
    model: torch.nn.Module,
    processor: Any,
    dataset: "Dataset",
    sensors: Sequence[str],
    suspect: Suspect = "leave-out",
) -> list[EmbedPlan]:
    """Name the shards of a dataset, in a folder where shards of all models lie: a plan for each sensor.

    Weights are hashed once; of an LMDB no tile is read.

    Raises:
        ValueError: The model or the dataset lacks a sensor, or the dataset is empty.
        ArchiveMismatchError: What lies there was made with the same weights and another configuration.
    """
    check_sensors(model, dataset.column_names, sensors, len(dataset))
    made_with = Identity.of(model, processor)
    place = folder / f"{made_with.weights[:16]}-{made_with.processor[:16]}"
    record = place / SETTINGS
    if record.is_file():
        held: dict[str, Any] = json.loads(record.read_bytes())
        # earlier releases recorded the configuration alone
        recorded = Identity(**held) if "weights" in held else replace(made_with, config=held)
        remedy = f"Load the model as it was, delete {place}, or keep these embeds elsewhere."
        recorded.refuse_other(made_with, str(place), remedy)
    elif not any(place.glob("*/*.safetensors")):  # else of a release that did not record this: taken as it is
        write_atomically(record, json.dumps(without_paths(asdict(made_with)), indent=2))
    accepted = "accept" in (suspect, getattr(processor, "suspect", None))
    return [
        EmbedPlan(sensor, list(_shards(dataset, sensor, place / sensor, accepted)), len(dataset), made_with, suspect)
        for sensor in sensors
    ]


def _shards(dataset: "Dataset", sensor: str, folder: Path, accepted: bool) -> Iterator[tuple[int, int, Path]]:
    """Rows and file of each shard, whose name is a hash of what the tiles are, and of whether suspect ones are accepted."""
    from csmae_hf.data.pixel_column import sources_of  # it imports datasets, and so pandas

    feature = dataset.features[sensor]
    raw = columns_to_read(dataset, [sensor]).with_format("arrow")  # of a store: where it lies, no pixels
    states: dict[str, str | None] = {}
    for start in range(0, len(dataset), SHARD_TILES):
        stop = min(start + SHARD_TILES, len(dataset))
        table = raw[start:stop].combine_chunks()
        total = hashlib.sha256(f"{FORMAT}:{_describe(feature)}:{stop - start}:{'accepted:' * accepted}".encode())
        column = table.column(sensor)
        if hasattr(feature, "bands"):
            table = table.drop_columns([sensor])
        for batch in table.to_batches():
            total.update(batch.serialize())
        if hasattr(feature, "bands"):
            tiles = dataset.select_columns([sensor]).select(range(start, stop))
            for row, source in enumerate(sources_of(column)):
                told = _identity(source, states)
                total.update(_pixels(tiles[row][sensor]) if told is None else told.encode())
        yield start, stop, folder / f"{total.hexdigest()[:32]}.safetensors"


def _describe(feature: Any) -> str:
    """What a pixel column's values mean."""
    return f"{list(feature.bands)}" if hasattr(feature, "bands") else repr(feature)


def _identity(source: Sequence[str] | None, states: dict[str, str | None]) -> str | None:
    """What image a row refers to, wherever it lies; None where only its pixels tell.

    An LMDB says by size and time of its file that it is the same; what it says is kept in `states`. Files without that are read, and
    images that rows hold: what they hold is what counts.
    """
    if source is None:
        return "none"
    if len(source) < 2:
        return None
    key, store, *unit = source
    if store not in states:
        data = data_file(Path(store))
        states[store] = f"{data.stat().st_size}:{data.stat().st_mtime_ns}" if data.is_file() else None
    state = states[store]
    return None if state is None else json.dumps([key, state, *unit])


def _pixels(bands: Any) -> bytes:
    """Hash of a tile's bands and of the unit that is said, or of why they cannot be read."""
    total = hashlib.sha256()
    try:
        total.update(f"{getattr(bands, 'unit', None)}:".encode())
        for name, values in sorted(dict(bands or {}).items()):
            total.update(f"{name}:{np.asarray(values).dtype}:{np.shape(values)}:".encode())
            total.update(np.ascontiguousarray(values).tobytes())
    except UNREADABLE as error:
        total.update(str(error).encode())
    return total.digest()


class _Shard:
    """A shard while it is being filled: rows from `start` to `stop` of the dataset. Tiles that failed before are tried again."""

    def __init__(self, start: int, stop: int, path: Path):
        self.start, self.stop, self.path = start, stop, path
        self.embeds: Embeds = np.empty((stop - start, 0), np.float32)
        self.failed: dict[int, str] = {}
        self.pending: Sequence[int] = range(start, stop)
        if (found := _read(path, stop - start)) is not None:
            self.embeds, failed = found
            self.pending = sorted(start + place for place in failed)

    def put(self, rows: Sequence[int], found: Mapping[str, Embeds], failed: Mapping[int, str]) -> None:
        for values in found.values():  # of the one sensor
            if not self.embeds.shape[1]:
                self.embeds = np.full((self.stop - self.start, values.shape[1]), np.nan, np.float32)
            self.embeds[np.array(rows) - self.start] = values
        self.failed |= {row - self.start: reason for row, reason in failed.items()}

    def write(self) -> None:
        header = {
            "format": FORMAT,
            "sha256": hashlib.sha256(self.embeds.tobytes()).hexdigest(),
            "failed": {str(place): message for place, message in sorted(self.failed.items())},
            "suspect": sorted(place for place, message in self.failed.items() if isinstance(message, SuspectReason)),
        }
        write_atomically(self.path, save({"embeds": self.embeds}, metadata={FORMAT: json.dumps(header)}))


def _read(path: Path, rows: int) -> tuple[Embeds, dict[int, str]] | None:
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
    suspect = set(header.get("suspect", ()))
    failed = {int(place): message for place, message in header["failed"].items()}
    return embeds, {place: SuspectReason(why) if place in suspect else why for place, why in failed.items()}


def embed_missing(
    plan: EmbedPlan,
    model: torch.nn.Module,
    processor: Any,
    dataset: "Dataset",
    *,
    batch_size: int = 64,
    process: int = 0,
    processes: int = 1,
    **options: Any,
) -> int:
    """Embed what the shards lack: every `processes`-th shard, from `process` on. A shard is written as soon as it is full.

    A tile that cannot be read or processed is put aside with the reason, and the rest goes on: `collect_embeds` tells of it. The plan
    is of this model, processor and dataset; options are device, num_workers and progress, as of `embed_dataset`. Gives how many tiles
    were embedded here and now.
    """
    shards = [_Shard(*shard) for shard in plan.shards[process::processes]]
    jobs = [
        (shard, shard.pending[place : place + batch_size], place + batch_size >= len(shard.pending))
        for shard in shards
        for place in range(0, len(shard.pending), batch_size)
    ]
    total, there = sum(len(rows) for _, rows, _ in jobs), sum(shard.stop - shard.start for shard in shards)
    if there - total:
        logger.info("%d of %d %s tiles are embedded already.", there - total, there, plan.sensor)
    if not jobs:
        return 0
    start, failures, waiting = time.monotonic(), 0, iter(jobs)

    def put(good: Sequence[int], found: Mapping[str, Embeds], failed: Mapping[int, str]) -> None:
        nonlocal failures
        shard, _, last = next(waiting)
        shard.put(good, found, failed)
        failures += len(failed)
        if last:
            shard.write()

    pixels = columns_to_read(dataset, [plan.sensor])
    suspect: Suspect = "accept" if plan.suspect == "accept" else "leave-out"
    batches = [rows for _, rows, _ in jobs]
    embed_batches(model, processor, pixels, [plan.sensor], batches, put, suspect=suspect, **options)
    seconds = time.monotonic() - start
    done = total - failures
    logger.info("Embedded %d %s tiles in %.1f s (%.0f images/s).", done, plan.sensor, seconds, total / seconds)
    return done


def collect_embeds(plan: EmbedPlan) -> CachedEmbeds:
    """Read the embeds of all shards, in the order of the dataset, and which tiles have none. All shards must be there."""
    failed: dict[int, str] = {}
    embeds = np.empty((plan.n_tiles, 0), np.float32)
    for start, stop, path in plan.shards:
        found = _read(path, stop - start)
        if found is None:
            raise FileNotFoundError(
                f"No embeds of {plan.sensor} tiles {start} to {stop - 1} at {path}. Where several machines work together, the output "
                "folder must be one that all of them share."
            )
        failed |= {start + place: reason for place, reason in found[1].items()}
        if width := found[0].shape[1]:  # 0 where no tile of the shard could be embedded
            embeds = embeds if embeds.shape[1] else np.full((plan.n_tiles, width), np.nan, np.float32)
            embeds[start:stop] = found[0]
    return CachedEmbeds(embeds, failed)


def embed_together(
    folder: Path,
    model: torch.nn.Module,
    processor: Any,
    dataset: "Dataset",
    sensors: Sequence[str],
    *,
    suspect: Suspect = "leave-out",
    device: str | torch.device | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[dict[str, Embeds], dict[int, str]] | None:
    """Embed tiles as `embed_tiles` does, by shards in a folder: what is there is not embedded again, and all processes share the work.

    These are the processes of `accelerate launch`, each on its own device of the kind that is given. The rest is as of `embed_tiles`.

    Returns:
        As of `embed_tiles`, in the first process; None in the others.

    Raises:
        ValueError: As of `embed_tiles`, after all that can be embedded is.
        FileNotFoundError: The processes do not share the folder.
    """
    from accelerate import PartialState

    wanted = None if device is None else torch.device(device)
    state = PartialState(cpu=not torch.accelerator.is_available() or (wanted is not None and wanted.type == "cpu"))
    if state.num_processes > 1 and (wanted is None or wanted.index is None):
        wanted = state.device
    plans = plan_embeds(folder, model, processor, dataset, sensors, suspect)
    shares = {"process": state.process_index, "processes": state.num_processes}
    shown = progress and state.is_main_process
    for plan in plans:
        embed_missing(plan, model, processor, dataset, device=wanted, progress=shown, **shares, **options)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    found = {plan.sensor: collect_embeds(plan) for plan in plans}
    failed = {row: why for one in found.values() for row, why in sorted(one.failed.items())}
    suspects = [why for why in failed.values() if isinstance(why, SuspectReason)]
    if suspect == "refuse" and suspects:
        raise ValueError(
            f"{len(suspects)} of {len(dataset)} tiles are suspect. {SUSPECT_REMEDY}. The first: {suspects[0]}"
        )
    refuse_many(failed, len(dataset))
    return without_unreadable({sensor: one.embeds for sensor, one in found.items()}, failed), failed


def refuse_failed(failed: Mapping[str, str], n_tiles: int, folder: Path, remedy: str = "--unusable skip") -> None:
    """Refuse to go on where tiles, some of `n_tiles`, could not be embedded: why, by the name of the tile, says `failed`."""
    if not failed:
        return
    listed = "\n".join(f"  {reason}" for reason in list(failed.values())[:10])
    more = f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
    by_tile = unit_remedy(failed.values())
    kinds = f"\nBy kind:\n{group_reasons(list(failed.values()))}" if len(failed) > 10 else by_tile and f"\n{by_tile}"
    raise UnusableTilesError(
        f"{len(failed)} of {n_tiles} tiles could not be embedded:\n{listed}{more}{kinds}\nThe other {n_tiles - len(failed)} were, and "
        f"are kept in {folder}. Repair or leave out these tiles and run again, or go on without them: {remedy}."
    )
