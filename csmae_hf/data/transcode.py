"""From BigEarthNet-MM v1 (an LMDB of pickles) to the layout of v2 (an LMDB of safetensors), so that nobody needs the pickles again."""

import functools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from csmae_hf.bigearthnet import SENSOR_OF_BAND
from csmae_hf.data.codecs import decode_labels, decode_value, encode_safetensors
from csmae_hf.data.dataset import find_store, open_store
from csmae_hf.data.encode import metadata_row, stand_in_s1_key
from csmae_hf.data.metadata import TileRow, label_indices, read_v1_store_rows
from csmae_hf.data.parallel import default_workers, ordered_map
from csmae_hf.data.store import TileStore
from csmae_hf.data.store_writer import ArchiveWriter, Failure, Made, WriteReport, make_record, metadata_table


class Job(NamedTuple):
    """A v1 value to transcode.

    Args:
        key: Of the value, the S2 name.
        s1_key: Under which to store its S1 image.
    """

    key: str
    s1_key: str


def transcode(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    metadata: Sequence[str | os.PathLike[str]] = (),
    splits: str | os.PathLike[str] | None = None,
    workers: int | None = None,
) -> WriteReport:
    """Write the tiles of a v1 LMDB as an archive in the layout of v2. Pixels are the same to the bit; nothing is unpickled.

    An S2 image keeps its v1 name as key. Its S1 image is stored under the S1 name where a table or a split list gives it, else under
    `S1-of-` and the S2 name with `-` for `_`. Labels are the 19-class ones in the values. Ended in whatever way, the same call goes
    on where it stopped.

    Args:
        source: The v1 LMDB folder, or a folder that holds exactly one.
        out: Folder of the archive; new, empty, or begun by the same call.
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
    rows = _stored_rows(store, [Path(path) for path in metadata], None if splits is None else Path(splits))
    jobs = {row.id: Job(row.id, row.s1_id or stand_in_s1_key(row.id)) for row in rows}
    twice = [name for name, count in Counter(job.s1_key for job in jobs.values()).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} S1 names are of more than one tile, {twice[0]} for one. Correct the table of names."
        )
    workers = default_workers() if workers is None else workers
    with ArchiveWriter(Path(out)) as writer:
        foreign = writer.records.keys() - {key for job in jobs.values() for key in job}
        if foreign:
            raise ValueError(
                f"{out} holds {len(foreign)} images that {source} does not give, such as {min(foreign)}: it is the archive of "
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
        labels |= _labels_of(store, done, workers)
        writer.finish(metadata_table(_rows(rows, jobs, labels, writer.records)), failures)
        written = len(writer.records) - before
    return WriteReport(Path(out), written, before, failures)


def _stored_rows(store: TileStore, tables: list[Path], splits: Path | None) -> list[TileRow]:
    """The tiles that are in the store; lists may name others."""
    stored = set(store.keys())
    return [row for row in read_v1_store_rows(store, tables, splits) if row.id in stored]


def _transcode_tile(store: TileStore, job: Job) -> Made | Failure:
    """Both images of a v1 value; whatever is wrong with it is returned."""
    try:
        stored = store.read_bytes(job.key)
        arrays = decode_value(stored, job.key)
        values = []
        for sensor, key in (("s1", job.s1_key), ("s2", job.key)):
            own = {band: array for band, array in arrays.items() if SENSOR_OF_BAND[band] == sensor}
            if own:
                value = encode_safetensors(own)
                values.append((make_record(key, value), value))
        return Made(values, decode_labels(stored, job.key))
    except (ValueError, KeyError, OSError, MemoryError) as error:
        return Failure(job.key, str(store.path), str(error))


def _labels_of(store: TileStore, keys: Sequence[str], workers: int) -> dict[str, list[str] | None]:
    """The labels of tiles whose images are stored already."""
    labels = ordered_map(store.read_labels, keys, workers)
    return dict(zip(keys, tqdm(labels, total=len(keys), desc="Reading labels", unit="tile", delay=2), strict=True))


def _rows(
    rows: Sequence[TileRow],
    jobs: Mapping[str, Job],
    labels: Mapping[str, list[str] | None],
    stored: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The metadata of the tiles that were transcoded."""
    return [
        metadata_row(
            row._replace(labels=label_indices(labels[row.id], row.id)),
            jobs[row.id].s1_key if jobs[row.id].s1_key in stored else None,
        )
        for row in rows
        if row.id in labels
    ]
