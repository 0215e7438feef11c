"""An LMDB of tiles: read lazily in any process, written in one piece."""

import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import REFERENCE_MAP_SUFFIX
from csmae_hf.data.codecs import (
    MAX_VALUE_BYTES,
    TileFormat,
    decode_labels,
    decode_value,
    detect_format,
    view_value,
)
from csmae_hf.files import staged_folder

DATA_FILE = "data.mdb"
"""The file that makes a folder an LMDB."""

_MAGIC = bytes.fromhex("dec0efbe")  # of LMDB's first page, after a header of 16 bytes, or of 24 in newer versions

FIRST_MAP_SIZE = 1 << 26
"""Bytes that an LMDB may grow to at first; `put_batch` enlarges it."""

_BATCH_BYTES = 1 << 25


class StoreError(ValueError):
    """A folder is no store of tiles that can be read, or tiles cannot be written; the message names it and the remedy."""


class TileNotFoundError(KeyError):
    """A store has no tile of this key; the message names both."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would show the message as a quoted repr


def data_file(path: Path) -> Path:
    """Give the file of an LMDB that is a folder, or was written as one file (`subdir=False`) and is it itself."""
    return path / DATA_FILE if path.is_dir() else path


def is_lmdb_file(path: Path) -> bool:
    """Say whether a path is an LMDB written as one file, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(28)
    return _MAGIC in (head[16:20], head[24:28])


class TileStore:
    """Tiles by key, read from an LMDB of BigEarthNet v1 (pickles) or v2 (safetensors).

    Nothing is opened before the first read, and each process opens for itself, so a store may be pickled, forked and spawned freely.
    All stores of one place in one process share one LMDB environment; one that was replaced meanwhile is opened anew. It must not be
    written to while it is read: it is read without a lock, which is what lets it lie on a read-only disk.

    Args:
        path: The LMDB: a folder that holds `data.mdb`, or one file (written with `subdir=False`).

    Raises:
        FileNotFoundError: If there is neither.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).resolve()
        if not self.path.is_dir() and not is_lmdb_file(self.path):
            raise FileNotFoundError(
                f"No LMDB {self.path}: expected a folder that holds {DATA_FILE}, or an LMDB written as one file. Check the path."
            )
        self._file = data_file(self.path)
        self._environment: lmdb.Environment | None = None
        self._state: tuple[int, ...] | None = None
        self._format: TileFormat | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return TileStore, (self.path,)

    def __repr__(self) -> str:
        return f"TileStore({str(self.path)!r})"

    @property
    def format(self) -> TileFormat:
        """ "v1" or "v2", told from the content of the first tile."""
        self._open()  # which forgets what was told of a store that was replaced
        if self._format is None:
            with self._transaction() as transaction:
                for key, value in transaction.cursor():
                    name = str(key, "utf-8", "replace")
                    if not name.endswith(REFERENCE_MAP_SUFFIX):
                        self._format = detect_format(value, name)
                        return self._format
            raise StoreError(f"{self.path} holds reference maps only, no tile.")
        return self._format

    def read(self, key: str, bands: Collection[str] | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """Read a tile.

        Args:
            key: Its key: v1 the S2 name (both sensors in one value), v2 the S2 patch_id or the S1 name.
            bands: Names of the bands to return; default all that are stored under the key.

        Returns:
            (H, W) by band at native resolution: S1 float32 in dB, S2 uint16 digital numbers.

        Raises:
            TileNotFoundError: If the store has no such key.
            CorruptTileError: If the value is broken or lacks one of the bands.
            StoreError: If the folder is no LMDB, or an empty one.
        """
        with self._transaction() as transaction:
            return decode_value(self._value(transaction, key), key, bands)

    @contextmanager
    def view_many(
        self, wanted: Mapping[str, Collection[str] | None]
    ) -> Iterator[dict[str, dict[str, np.ndarray[Any, Any]]]]:
        """Look at several tiles in one transaction, without copying them: by key the bands to look at, as of `read`.

        Yields the bands of each, by key, as `read` gives them but read-only, and valid until the end of the context alone.
        """
        with self._transaction() as transaction:
            # in the order of the keys, which is that of a store on its disk
            yield {key: view_value(self._value(transaction, key), key, wanted[key]) for key in sorted(wanted)}

    def read_labels(self, key: str) -> list[str] | None:
        """Read the names of the 19-class labels inside a v1 value, each once, touching little of its pixels.

        None where the value carries none (v2 values never do). Errors as of `read`.
        """
        with self._transaction() as transaction:
            return decode_labels(self._value(transaction, key), key)

    def read_bytes(self, key: str) -> bytes:
        """Copy a value as it is stored; a `TileNotFoundError` if there is no such key."""
        with self._transaction() as transaction:
            return bytes(self._value(transaction, key))

    def keys(self) -> list[str]:
        """List all keys, reference maps included, in byte order; a `StoreError` if the folder is no store of tiles."""
        with self._transaction() as transaction:
            try:
                return [str(key, "utf-8") for key in transaction.cursor().iternext(keys=True, values=False)]
            except UnicodeDecodeError as error:
                raise StoreError(
                    f"{self.path} has a key that is not text: {error}. It is no store of tiles."
                ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return int(self._open().stat()["entries"])

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or not key:
            return False
        with self._transaction() as transaction:
            return transaction.get(key.encode()) is not None

    def _open(self) -> lmdb.Environment:
        state = _state(self._file)
        if self._environment is None or self._state != state:
            self._environment, self._state, self._format = _environment(self.path, state), state, None
        return self._environment

    def _transaction(self) -> lmdb.Transaction:
        return self._open().begin(buffers=True)  # values are views of the map, valid until the transaction ends

    def _value(self, transaction: lmdb.Transaction, key: str) -> bytes | memoryview:
        value = transaction.get(key.encode()) if key else None
        if value is None:
            raise TileNotFoundError(
                f"No tile {key!r} in {self.path}. v1 keys are S2 names; v2 keys are patch_ids (S2) and S1 names."
            )
        return value


_environments: dict[tuple[int, ...], tuple[tuple[int, ...], lmdb.Environment]] = {}
"""By process, device and inode, the state of the data file when it was opened, and its environment: LMDB forbids to open a file twice
in a process."""

_opening = threading.Lock()
if hasattr(
    os, "register_at_fork"
):  # else a fork while another thread opens would leave the child's copy locked for ever
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release)


def _state(file: Path) -> tuple[int, ...]:
    """The process, and device, inode, size and time of change of a store's file: with them a store that was replaced is noticed."""
    try:
        found = os.stat(file)
    except OSError as error:
        if file.name != DATA_FILE or not file.parent.is_dir():
            raise FileNotFoundError(f"The store {file} is gone: {error}.") from error
        raise StoreError(f"{file.parent} is no LMDB: it holds no {DATA_FILE}. Give the folder that does.") from error
    return os.getpid(), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _environment(path: Path, state: tuple[int, ...]) -> lmdb.Environment:
    """The process's environment of a store in this state, opened on first use."""
    key = state[:3]
    with _opening:
        known = _environments.get(key)
        if known is None or known[0] != state:
            # what a fork left open here; the parent's own stay open. py-lmdb refuses to open a file anew until this is done, as it
            # does for a file that was written over in place. One that another took the place of stays open for those who read it
            for old in [old for old in _environments if old[0] != os.getpid() or old == key]:
                _environments.pop(old)[1].close()
            if _lock_file(path).exists():
                # py-lmdb takes a store for an open one where the lock file beside it is that of an open one, though the data are
                # another file by now
                for old in [old for old, (_, environment) in _environments.items() if environment.path() == str(path)]:
                    _environments.pop(old)[1].close()
            known = _environments[key] = state, _open_environment(path)
        return known[1]


def _lock_file(path: Path) -> Path:
    """The lock file beside the data, which LMDB makes for those who open it with a lock."""
    return path / "lock.mdb" if path.is_dir() else path.with_name(f"{path.name}-lock")


def _open_environment(path: Path) -> lmdb.Environment:
    try:
        # readahead=True: a tile lies in 115 to 280 kB of neighbouring pages, read whole. Without it (MADV_RANDOM) every 4 kB page
        # would be a disk access of its own, in shuffled reading too; with it the kernel fetches a tile in a few, at little waste.
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, create=False, meminit=False, readahead=True
        )
    except lmdb.Error as error:
        if "already open in this process" in str(error):
            raise StoreError(
                f"{path} is open in this process already, by something other than csmae_hf (an lmdb.open of your own, or of another "
                "library), and LMDB allows one environment a process. The file is not damaged: close that environment "
                "(environment.close()) first, or read one of the two in another process."
            ) from error
        raise StoreError(
            f"{path} is no LMDB that can be opened here: {error} If the file is damaged, copy or write it again."
        ) from error
    expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = data_file(path).stat().st_size
    if found < expected:  # LMDB would read past the end, and kill the process (SIGBUS)
        environment.close()
        raise StoreError(f"{data_file(path)} is cut short: {found} bytes of {expected}. Copy it again.")
    if environment.stat()["entries"] == 0:
        environment.close()
        raise StoreError(f"{path} is an empty LMDB: no tiles.")
    return environment


def write_store(path: str | os.PathLike[str], items: Iterable[tuple[str, bytes]], total: int | None = None) -> int:
    """Write tiles to a new LMDB, which appears at `path` only when it is complete.

    Until then it grows in a hidden folder beside it, which a failure removes; what a killed process leaves, a later one removes. Keys
    are inserted sorted, batch by batch, so items that come sorted pack densely.

    Args:
        path: Folder to make; it must not exist. Missing parents are made.
        items: (key, value) pairs, each key once.
        total: Number of items, for the progress bar.

    Returns:
        Number of tiles written.

    Raises:
        FileExistsError: If `path` exists; nothing is ever overwritten.
        StoreError: If there is no item, a key comes twice or is no key LMDB can hold, or a value is empty or too large for a tile.
    """
    path, count = Path(path), 0
    with staged_folder(path) as partial:
        # no lock file and no sync on the way: the folder is this call's own until it is renamed
        with lmdb.open(str(partial), map_size=FIRST_MAP_SIZE, lock=False, sync=False, metasync=False) as environment:
            for batch in _batches(tqdm(items, total=total, desc=f"Writing {path.name}", unit="image", delay=2)):
                put_batch(environment, batch)
                count += len(batch)
            environment.sync(True)
        if count == 0:
            raise StoreError(f"There is nothing to write to {path}: no items were given.")
    return count


def _batches(items: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Items in batches of bounded size, each sorted by key."""
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in items:
        if not value or len(value) > MAX_VALUE_BYTES:
            raise StoreError(f"Tile {key!r} has {len(value)} bytes; expected 1 to {MAX_VALUE_BYTES}.")
        batch.append((key.encode(), value))
        size += len(value)
        if size >= _BATCH_BYTES:
            yield sorted(batch)
            batch, size = [], 0
    if batch:
        yield sorted(batch)


def put_batch(environment: lmdb.Environment, batch: Sequence[tuple[bytes, bytes]], overwrite: bool = False) -> None:
    """Write keys and values in one transaction, enlarging the map until it fits; a key that is there is an error, or overwritten."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    if not transaction.put(key, value, overwrite=overwrite):
                        raise StoreError(f"Tile {key.decode()!r} was given twice; each key may come once.")
            return
        except lmdb.BadValsizeError as error:
            raise StoreError(f"Key {key!r} cannot be stored: LMDB keys have 1 to 511 bytes.") from error
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
