"""An archive that grows in place, in the layout of BigEarthNet v2: whatever ends the process, what is stored stays, and it goes on."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import METADATA_NAME, STORE_NAME
from csmae_hf.data.metadata import METADATA_SCHEMA
from csmae_hf.data.parallel import WorkerDiedError, default_workers, ordered_map
from csmae_hf.data.store import DATA_FILE, StoreError
from csmae_hf.files import LOCK_NAME, write_atomically

VALUES_NAME = "values.parquet"
"""Table of the stored values: key, length, SHA-256, and where the image lies."""

FAILURES_NAME = "failures.csv"
"""What could not be stored and why; there only where something could not."""

_JOURNAL_NAME = "values.journal"
_BATCH_VALUES = 32
_FIRST_MAP_SIZE = 1 << 26

Item = TypeVar("Item")


class ValueRecord(NamedTuple):
    """What the table of values says of one.

    Args:
        key: Under which it is stored.
        bytes: Its length.
        sha256: Its digest, hexadecimal.
        crs: Coordinate reference system of the bounds; None where it is not known.
        left: Least x of the image.
        bottom: Least y.
        right: Greatest x.
        top: Greatest y.
    """

    key: str
    bytes: int
    sha256: str
    crs: str | None = None
    left: float | None = None
    bottom: float | None = None
    right: float | None = None
    top: float | None = None


class Made(NamedTuple):
    """What became of an item.

    Args:
        values: Records and their values.
        labels: Class names that came with them.
    """

    values: list[tuple[ValueRecord, bytes]]
    labels: list[str] | None = None


class Failure(NamedTuple):
    """What could not be stored.

    Args:
        key: Of the image or the tile.
        path: Where it was read.
        reason: What is wrong.
    """

    key: str
    path: str
    reason: str


class WriteReport(NamedTuple):
    """What a command that writes an archive has done.

    Args:
        folder: The archive.
        written: Images stored now.
        present: Images that were stored before.
        failures: What could not be stored.
    """

    folder: Path
    written: int
    present: int
    failures: list[Failure]


VALUES_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("crs", pa.string()),
        *((name, pa.float64()) for name in ("left", "bottom", "right", "top")),
    ]
)


def make_record(key: str, value: bytes, footprint: Sequence[Any] = ()) -> ValueRecord:
    """Describe a value.

    Args:
        key: Its key.
        value: The bytes.
        footprint: Where it lies, as of [`Footprint`].

    Returns:
        Its record.
    """
    return ValueRecord(key, len(value), hashlib.sha256(value).hexdigest(), *footprint)


def read_records(folder: Path) -> dict[str, ValueRecord] | None:
    """Read the table of values of a finished archive.

    Args:
        folder: The archive.

    Returns:
        The record of each key; None where there is no table.

    Raises:
        ValueError: If the table cannot be read.
    """
    path = folder / VALUES_NAME
    if not path.is_file():
        return None
    try:
        columns = pq.read_table(path, schema=VALUES_SCHEMA).to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no table of values: {error}. Remove it and encode again.") from error
    return {record[0]: ValueRecord(*record) for record in zip(*columns.values(), strict=True)}


def read_journal(folder: Path) -> dict[str, ValueRecord]:
    """Read the records of an archive that is not finished. The last of them may be of values that are not stored.

    Args:
        folder: The archive.

    Returns:
        The record of each key.
    """
    path = folder / _JOURNAL_NAME
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return {record.key: record for line in lines if (record := _journal_record(line))}


class ArchiveWriter:
    """Adds values to an archive that is made by it, one process at a time.

    A batch of values is on disk before the next begins: first its records, in a journal, then the values, in one transaction. So
    after any end a value without a record, or half a value, cannot be. While there is something to add, the archive has no
    metadata table, and so cannot be taken for a whole one.

    Args:
        folder: The archive, a new or an empty folder or one that was begun so.

    Raises:
        FileExistsError: On entering, if the folder holds something else.
        StoreError: On entering, if another process writes there.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.records: dict[str, ValueRecord] = {}
        self._batch: list[tuple[ValueRecord, bytes]] = []
        self._lock = FileLock(folder / LOCK_NAME)
        self._environment: lmdb.Environment | None = None
        self._journal: BinaryIO | None = None

    def __enter__(self) -> "ArchiveWriter":
        journal = self.folder / _JOURNAL_NAME
        begun = journal.exists() or (self.folder / VALUES_NAME).exists()
        if self.folder.exists() and not begun and (not self.folder.is_dir() or any(self._others())):
            raise FileExistsError(
                f"{self.folder} holds something else; nothing was written. Give a folder that does not exist yet."
            )
        (self.folder / STORE_NAME).mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"Another process is writing to {self.folder}. Wait for it, or write elsewhere."
            ) from error
        try:
            self._journal = journal.open("ab")
            if journal.stat().st_size:  # it may end in a line that a kill has cut short
                self._journal.write(b"\n")
            self._environment = self._open()
            self.records = self._stored_records()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            if kind is None or not issubclass(kind, StoreError):
                self.flush()
        finally:
            self._close()

    def begin(self) -> None:
        """Take the metadata table away, before values are added to a finished archive."""
        (self.folder / METADATA_NAME).unlink(missing_ok=True)

    def add(self, record: ValueRecord, value: bytes) -> None:
        """Add a value; it is on disk after the next `flush`, which happens by itself now and then.

        Args:
            record: Its record.
            value: The bytes.

        Raises:
            StoreError: If the disk is full or fails. What was stored before stays.
        """
        self._batch.append((record, value))
        if len(self._batch) >= _BATCH_VALUES:
            self.flush()

    def fill(
        self,
        function: Callable[[Item], Made | Failure],
        items: Sequence[Item],
        workers: int | None,
        present: int,
        unit: str,
    ) -> Iterator[tuple[Item, Made | Failure]]:
        """Make values in worker processes and add them.

        Args:
            function: Makes the values of an item.
            items: In the order of their keys, so that the store packs densely.
            workers: Number of processes; None for one a processor.
            present: Items that are stored already, for the progress bar.
            unit: What an item is called.

        Returns:
            An iterator over the items and what became of them, which has to be run through.

        Raises:
            StoreError: If the disk is full or fails, or a process died. What was stored before stays.
        """
        results = ordered_map(function, items, default_workers() if workers is None else workers)
        bar = tqdm(results, desc=f"Writing {self.folder.name}", initial=present, total=present + len(items), unit=unit)
        try:
            for item, made in zip(items, bar, strict=True):
                for record, value in made.values if isinstance(made, Made) else ():
                    self.add(record, value)
                yield item, made
            self.flush()
        except WorkerDiedError as error:
            self.flush()
            raise StoreError(
                f"{error} What is stored stays; run the same command again, perhaps with fewer workers."
            ) from error

    def flush(self) -> None:
        """Bring what was added to disk.

        Raises:
            StoreError: If the disk is full or fails. What was stored before stays.
        """
        batch, self._batch = sorted(self._batch), []
        if not batch:
            return
        journal, environment = self._journal, self._environment
        if journal is None or environment is None:
            raise StoreError(f"{self.folder} is not open for writing.")
        try:
            journal.write(b"".join(json.dumps(record).encode() + b"\n" for record, _ in batch))
            journal.flush()
            os.fsync(journal.fileno())
            _put(environment, [(record.key.encode(), value) for record, value in batch])
        except (lmdb.Error, OSError) as error:
            raise StoreError(
                f"Writing to {self.folder} failed: {error}. {len(self.records)} images are stored and stay. Free some space, and run "
                "the same command again: it goes on where it stopped."
            ) from error
        self.records.update({record.key: record for record, _ in batch})

    def finish(self, metadata: pa.Table, failures: Sequence[Failure] = ()) -> None:
        """Write the tables beside the store; the metadata table last, which makes the archive a whole one.

        Args:
            metadata: Rows in the schema of BigEarthNet v2.
            failures: What could not be stored.

        Raises:
            StoreError: If the disk is full or fails. What is stored stays.
        """
        self.flush()
        records = [self.records[key] for key in sorted(self.records)]
        columns = [list(column) for column in zip(*records, strict=True)] or [[] for _ in VALUES_SCHEMA]
        try:
            values = pa.table(columns, schema=VALUES_SCHEMA)
            write_atomically(self.folder / VALUES_NAME, lambda stream: pq.write_table(values, stream))
            _write_failures(self.folder / FAILURES_NAME, failures)
            write_atomically(self.folder / METADATA_NAME, lambda stream: pq.write_table(metadata, stream))
            if self._journal is not None:
                self._journal.truncate(0)
        except OSError as error:
            raise StoreError(
                f"Writing the tables of {self.folder} failed: {error}. The images are stored; free some space, and run it again."
            ) from error

    def _others(self) -> Iterator[Path]:
        return (path for path in self.folder.iterdir() if path.name != LOCK_NAME)

    def _open(self) -> lmdb.Environment:
        data = self.folder / STORE_NAME / DATA_FILE
        size = max(_FIRST_MAP_SIZE, 2 * data.stat().st_size) if data.exists() else _FIRST_MAP_SIZE
        try:
            return lmdb.open(str(data.parent), map_size=size, lock=False)
        except lmdb.Error as error:
            raise StoreError(
                f"{data.parent} cannot be opened for writing: {error} Is it in use in this process?"
            ) from error

    def _stored_records(self) -> dict[str, ValueRecord]:
        """The records of what is stored; a value without one is written again."""
        known = (read_records(self.folder) or {}) | read_journal(self.folder)
        environment = self._environment
        if environment is None or not known:
            return {}
        with environment.begin() as transaction:
            stored = (str(key, "utf-8") for key in transaction.cursor().iternext(keys=True, values=False))
            return {key: known[key] for key in stored if key in known}

    def _close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        if self._journal is not None:
            self._journal.close()
            journal = self.folder / _JOURNAL_NAME
            if (self.folder / METADATA_NAME).exists() and journal.stat().st_size == 0:
                journal.unlink()
        self._environment = self._journal = None
        self._lock.release()


def metadata_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Lay rows out as the metadata of BigEarthNet v2.

    Args:
        rows: Values by column; a column that is not there is null.

    Returns:
        The table, sorted by `patch_id`.
    """
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["patch_id"]), schema=METADATA_SCHEMA)


def _journal_record(line: bytes) -> ValueRecord | None:
    """The record of a line of the journal; None for one that was cut short."""
    try:
        return ValueRecord(*json.loads(line))
    except (ValueError, TypeError):
        return None


def _put(environment: lmdb.Environment, batch: Sequence[tuple[bytes, bytes]]) -> None:
    """Write a batch in one transaction, which is on disk afterwards, enlarging the map until it fits."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows([Failure._fields, *failures])
    write_atomically(path, lines.getvalue())
