"""Reads every value of a store, and says what is broken."""

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from csmae_hf.data.codecs import decode_labels, decode_value
from csmae_hf.data.dataset import find_store
from csmae_hf.data.parallel import WorkerDiedError, default_workers, ordered_map
from csmae_hf.data.store import StoreError, TileStore
from csmae_hf.data.store_writer import VALUES_NAME, ValueRecord, read_journal, read_records


class VerifyReport(NamedTuple):
    """What was found.

    Attributes:
        store: The LMDB folder.
        values: Number of values read.
        digests: Number of values compared with a digest of when they were written.
        broken: What is wrong, by key.
    """

    store: Path
    values: int
    digests: int
    broken: dict[str, str]


def verify(path: str | os.PathLike[str], *, workers: int | None = None) -> VerifyReport:
    """Read every value of an LMDB of tiles, v1 or v2, and check that it is a whole tile; where there are digests, that it is the same.

    Args:
        path: The LMDB folder, or a folder that holds exactly one.
        workers: Processes that read; None for one a processor, 0 for this one.

    Returns:
        What is broken: values that are no tile, that are not those that were written, or that are gone.

    Raises:
        FileNotFoundError: If there is no LMDB.
        StoreError: If the LMDB cannot be opened, or is so damaged that reading it ends the process.
    """
    store = TileStore(find_store(Path(path)))
    count = default_workers() if workers is None else workers
    try:
        keys = next(ordered_map(_list_keys, [store], min(count, 1)))  # a damaged LMDB may end the process that lists it
    except WorkerDiedError as error:
        raise StoreError(f"{store.path} is damaged: listing its keys ended the process. Copy it again.") from error
    if isinstance(keys, StoreError):
        raise keys
    listed = read_records(store.path.parent) or {}
    records = listed | read_journal(store.path.parent)
    check = functools.partial(_check, store, records)
    bar = tqdm(
        ordered_map(check, keys, count), total=len(keys), desc=f"Verifying {store.path.name}", unit="image", delay=2
    )
    broken: dict[str, str] = {}
    read = 0
    try:
        for key, reason in zip(keys, bar, strict=True):
            read += 1
            if reason:
                broken[key] = reason
    except WorkerDiedError as error:
        raise StoreError(
            f"{store.path} is damaged: reading {keys[read]!r} or one of the next {32 * max(count, 1)} keys ended the process, "
            f"after {read} values of which {len(broken)} are broken. Copy it again."
        ) from error
    broken |= dict.fromkeys(sorted(listed.keys() - set(keys)), f"it is gone: {VALUES_NAME} lists it")
    return VerifyReport(store.path, len(keys), len(records.keys() & set(keys)), broken)


def _list_keys(store: TileStore) -> list[str] | StoreError:
    try:
        return store.keys()
    except StoreError as error:
        return error


def _check(store: TileStore, records: Mapping[str, ValueRecord], key: str) -> str | None:
    """What is wrong with a value; None if nothing is."""
    try:
        value = store.read_bytes(key)
        record = records.get(key)
        if record is not None and hashlib.sha256(value).hexdigest() != record.sha256:
            return f"its {len(value)} bytes are not the {record.bytes} that were written: their SHA-256 differs"
        if records and record is None:
            return f"it is not listed in {VALUES_NAME}"
        decode_value(value, key)
        decode_labels(value, key)
    except (ValueError, KeyError, OSError, MemoryError) as error:
        return str(error)
    return None
