"""A store that grows in place, in the layout of BigEarthNet v2: whatever ends the process, what is stored stays, and it goes on."""

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
from csmae_hf.data.metadata import metadata_schema
from csmae_hf.data.parallel import WorkerDiedError, default_workers, ordered_map
from csmae_hf.data.store import DATA_FILE, FIRST_MAP_SIZE, StoreError, put_batch
from csmae_hf.files import LOCK_NAME, write_atomically

VALUES_NAME = "values.parquet"
"""Table of the stored values: key, length, SHA-256, and where the image lies."""

FAILURES_NAME = "failures.csv"
"""What could not be stored and why; there only where something could not."""

_JOURNAL_NAME = "values.journal"
_BATCH_VALUES = 32

Item = TypeVar("Item")


class ValueRecord(NamedTuple):
    """What the table of values says of one.

    Attributes:
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
    """What became of an item: records and their values, and the class names that came with them."""

    values: list[tuple[ValueRecord, bytes]]
    labels: list[str] | None = None


class Failure(NamedTuple):
    """What could not be stored: the key of the image or the tile, where it was read, and what is wrong."""

    key: str
    path: str
    reason: str


class WriteReport(NamedTuple):
    """What a command that writes a store has done.

    Attributes:
        folder: Of the store and its tables.
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
    """Describe a value; `footprint`: where it lies, as of [`Footprint`]."""
    return ValueRecord(key, len(value), hashlib.sha256(value).hexdigest(), *footprint)


def read_records(folder: Path) -> dict[str, ValueRecord] | None:
    """Read the table of values of a finished store: the record of each key; None where there is no table."""
    path = folder / VALUES_NAME
    if not path.is_file():
        return None
    try:
        columns = pq.read_table(path, schema=VALUES_SCHEMA).to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no table of values: {error}. Remove it and encode again.") from error
    return {record[0]: ValueRecord(*record) for record in zip(*columns.values(), strict=True)}


def read_journal(folder: Path) -> dict[str, ValueRecord]:
    """Read the record of each key of a store that is not finished. The last of them may be of values that are not stored."""
    path = folder / _JOURNAL_NAME
    records: dict[str, ValueRecord] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            record = ValueRecord(*json.loads(line))
        except (ValueError, TypeError):  # a line that was cut short
            continue
        records[record.key] = record
    return records


class StoreWriter:
    """Adds values to a store that is made by it, one process at a time.

    A batch of values is on disk before the next begins: first its records, in a journal, then the values, in one transaction. So
    after any end a value without a record, or half a value, cannot be. While there is something to add, the store has no metadata
    table, and so cannot be taken for a whole one.

    Args:
        folder: Of the store and its tables, a new or an empty folder or one that was begun so.

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

    def __enter__(self) -> "StoreWriter":
        journal = self.folder / _JOURNAL_NAME
        begun = journal.exists() or (self.folder / VALUES_NAME).exists()
        folder = self.folder
        if (
            not begun
            and folder.exists()
            and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {LOCK_NAME})
        ):
            raise FileExistsError(
                f"{folder} holds something else; nothing was written. Give another folder, one that does not exist yet."
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
            known = (read_records(self.folder) or {}) | read_journal(self.folder)
            with self._environment.begin() as transaction:
                stored = (str(key, "utf-8") for key in transaction.cursor().iternext(keys=True, values=False))
                # a value without a record is written again
                self.records = {key: known[key] for key in stored if key in known} if known else {}
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
        """Take the metadata table away, before values are added to a finished store."""
        (self.folder / METADATA_NAME).unlink(missing_ok=True)

    def add(self, record: ValueRecord, value: bytes) -> None:
        """Add a value; it is on disk after the next `flush`, which happens by itself now and then, with its errors."""
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
        """Make values of items in worker processes and add them; gives the items and what became of them, and has to be run through.

        Items come in the order of their keys, so that the store packs densely. `present` items are stored already, for the progress
        bar, which calls one a `unit`. A `StoreError` if the disk is full or fails, or a process died; what was stored stays.
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
        """Bring what was added to disk; a `StoreError` if that is full or fails. What was stored before stays."""
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
            put_batch(environment, [(record.key.encode(), value) for record, value in batch], overwrite=True)
        except (lmdb.Error, OSError) as error:
            raise StoreError(
                f"Writing to {self.folder} failed: {error}. {len(self.records)} images are stored and stay. Free some space, and run "
                "the same command again: it goes on where it stopped."
            ) from error
        self.records.update({record.key: record for record, _ in batch})

    def finish(self, metadata: pa.Table, failures: Sequence[Failure] = ()) -> None:
        """Write the tables beside the store; that of [`metadata_table`] last, which makes the store a whole one."""
        self.flush()
        records = [self.records[key] for key in sorted(self.records)]
        columns = [list(column) for column in zip(*records, strict=True)] or [[] for _ in VALUES_SCHEMA]
        values = pa.table(columns, schema=VALUES_SCHEMA)
        try:
            write_atomically(self.folder / VALUES_NAME, lambda stream: pq.write_table(values, stream))
            (self.folder / FAILURES_NAME).unlink(missing_ok=True)
            if failures:
                lines = io.StringIO(newline="")
                csv.writer(lines).writerows([Failure._fields, *failures])
                write_atomically(self.folder / FAILURES_NAME, lines.getvalue())
            write_atomically(self.folder / METADATA_NAME, lambda stream: pq.write_table(metadata, stream))
            if self._journal is not None:
                self._journal.truncate(0)
        except OSError as error:
            raise StoreError(
                f"Writing the tables of {self.folder} failed: {error}. The images are stored; free some space, and run it again."
            ) from error

    def _open(self) -> lmdb.Environment:
        data = self.folder / STORE_NAME / DATA_FILE
        size = max(FIRST_MAP_SIZE, 2 * data.stat().st_size) if data.exists() else FIRST_MAP_SIZE
        try:
            return lmdb.open(str(data.parent), map_size=size, lock=False)
        except lmdb.Error as error:
            raise StoreError(
                f"{data.parent} cannot be opened for writing: {error} Is it in use in this process?"
            ) from error

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


def metadata_table(rows: Sequence[Mapping[str, Any]], others: Sequence[str] = ()) -> pa.Table:
    """Lay rows, values by column, out as the metadata of a store with images of `others` besides, sorted by `patch_id`.

    A column that a row has not is null.
    """
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["patch_id"]), schema=metadata_schema(others))
