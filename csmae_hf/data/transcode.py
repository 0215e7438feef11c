"""From BigEarthNet-MM v1 (an LMDB of pickles) to the layout of v2 (an LMDB of safetensors), so that nobody needs the pickles again."""

import functools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from csmae_hf.bigearthnet import SENSORS, TILE_SENSOR
from csmae_hf.data.codecs import decode_labels, decode_value, encode_safetensors
from csmae_hf.data.dataset import find_store
from csmae_hf.data.encode import metadata_row
from csmae_hf.data.metadata import read_v1_store_rows, stand_in_key
from csmae_hf.data.parallel import default_workers, ordered_map
from csmae_hf.data.pixel_column import open_store
from csmae_hf.data.store import TileStore
from csmae_hf.data.store_writer import Failure, Made, StoreWriter, WriteReport, make_record, metadata_table


class Job(NamedTuple):
    """A v1 value to transcode: its key, the S2 name, and under which to store its image of each sensor."""

    key: str
    keys: dict[str, str]


def transcode(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    metadata: Sequence[str | os.PathLike[str]] = (),
    splits: str | os.PathLike[str] | None = None,
    workers: int | None = None,
) -> WriteReport:
    """Write the tiles of a v1 LMDB as a store in the layout of v2. Pixels are the same to the bit; nothing is unpickled.

    An S2 image keeps its v1 name as key. Its S1 image is stored under the S1 name where a table or a split list gives it, else under
    `S1-of-` and the S2 name with `-` for `_`. Labels are the 19-class ones in the values. Ended in whatever way, the same call goes
    on where it stopped.

    Args:
        source: The v1 LMDB folder, or a folder that holds exactly one.
        out: Folder to write to; new, empty, or begun by the same call.
        metadata: CSV tables of S1 names and countries, as of [`load_bigearthnet`].
        splits: Folder of split lists, as of [`load_bigearthnet`].
        workers: Processes; None for one a processor, 0 for this one.

    Returns:
        What was done, with every value that could not be read and why.

    Raises:
        FileNotFoundError: If something named is not there.
        FileExistsError: If `out` holds something else.
        ValueError: If `source` is no v1 LMDB, or a table gives one S1 name to two tiles.
        StoreError: If the disk is full or fails, or a process dies. What is stored stays.
    """
    store = open_store(str(find_store(Path(source)).resolve()))
    if store.format != "v1":
        raise ValueError(f"{store.path} is in the layout of v2 already: there is nothing to transcode.")
    for path in metadata:
        if not Path(path).is_file():
            raise FileNotFoundError(f"No metadata table {path}: check the path.")
    stored = set(store.keys())  # lists may name other tiles
    known = read_v1_store_rows(store, [Path(path) for path in metadata], None if splits is None else Path(splits))
    rows = [row for row in known if row.id in stored and row.image_name(TILE_SENSOR)]
    if not rows:
        raise ValueError(
            f"{store.path} holds Sentinel-1 alone, by S1 name: load_bigearthnet reads it; transcoding needs a store by S2 name."
        )
    jobs = {
        row.id: Job(row.id, {sensor: row.image_name(sensor) or stand_in_key(sensor, row.id) for sensor in SENSORS})
        for row in rows
    }
    keys = Counter(key for job in jobs.values() for key in job.keys.values())
    twice = [name for name, count in keys.items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} S1 names are of more than one tile, {twice[0]} for one. Correct the table of names."
        )
    workers = default_workers() if workers is None else workers
    with StoreWriter(Path(out)) as writer:
        foreign = writer.records.keys() - keys.keys()
        if foreign:
            raise ValueError(
                f"{out} holds {len(foreign)} images that {source} does not give, such as {min(foreign)}: it is the store of "
                "something else, or was begun with other tables. Give another folder."
            )
        before = len(writer.records)
        todo = [jobs[key] for key in sorted(jobs.keys() - writer.records.keys())]  # a tile's S2 image is stored last
        done = [key for key in sorted(jobs) if key in writer.records]
        if todo:
            writer.begin()
        labels, failures = {}, []
        for job, made in writer.fill(functools.partial(_transcode_tile, store), todo, workers, len(done), "tile"):
            if isinstance(made, Failure):
                failures.append(made)
            else:
                labels[job.key] = made.labels
        reread = ordered_map(store.read_labels, done, workers)
        bar = tqdm(reread, total=len(done), desc="Reading labels", unit="tile", delay=2)
        labels |= dict(zip(done, bar, strict=True))
        table = [
            metadata_row(
                row._replace(labels=sorted(labels[row.id] or ()) or None),
                {sensor: key for sensor, key in jobs[row.id].keys.items() if key in writer.records},
            )
            for row in rows
            if row.id in labels
        ]
        writer.finish(metadata_table(table), failures)
        written = len(writer.records) - before
    return WriteReport(Path(out), written, before, failures)


def _transcode_tile(store: TileStore, job: Job) -> Made | Failure:
    """The images of a v1 value; whatever is wrong with it is returned."""
    try:
        stored = store.read_bytes(job.key)
        arrays = decode_value(stored, job.key)
        values = []
        for sensor, key in job.keys.items():
            own = {band: arrays[band] for band in SENSORS[sensor].bands if band in arrays}
            if own:
                value = encode_safetensors(own)
                values.append((make_record(key, value), value))
        return Made(values, decode_labels(stored, job.key))
    except (ValueError, KeyError, OSError, MemoryError) as error:
        return Failure(job.key, str(store.path), str(error))
