"""Parquet files of embeds, read with distrust: what they declare is checked before it is read, and no row group is read at once.

They come from strangers. A small file may stand for any number of bytes, and a damaged one for other numbers. Pages are checked
against their checksums where they have them, and whatever a library raises becomes an [`ArchiveImportError`].
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from csmae_hf.search.nearest import unit_vectors
from csmae_hf.search.vectors import IntArray

_MOST_RATIO = 100
"""Bytes that a byte of a file may become: embeds do not shrink to a hundredth, and what does fills the memory for nothing."""

_ALWAYS_BYTES = 64 << 20
_MOST_FOOTER = 16 << 20
_MOST_WIDTH = 65_536
_BATCH_BYTES = 16 << 20
_MOST_BATCH = 8_192
_DAMAGE = (
    *(pa.ArrowException, OSError, ValueError, KeyError, TypeError),
    *(OverflowError, RecursionError, MemoryError),
)
"""What pyarrow raises of a damaged file."""

_UNIT = 1e-4  # by which the length of a vector of an export may differ from 1


class ArchiveImportError(ValueError):
    """A file that is damaged, or not what an archive can be made of; the message names it and what is wrong."""


@dataclass(frozen=True)
class EmbedFile:
    """A file of embeds, of which only the footer was read.

    Attributes:
        path: Where it is.
        schema: Its columns and footers.
        rows: How many it declares.
        texts: Leaves of text and bytes, which are read as numbers into what occurs, so that one long text a million times stays one.
        vectors: Its column of vectors.
        width: Of the vectors; None where each row has its own length.
    """

    path: Path
    schema: pa.Schema
    rows: int
    texts: Sequence[str]
    vectors: str
    width: int | None

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read columns, some rows at a time; what a damaged file raises is an `ArchiveImportError`."""
        with reading(self.path), _parquet(self.path, self.texts) as parquet:
            yield from parquet.iter_batches(rows, columns=list(names), use_threads=False)


def read_footers(path: Path) -> dict[bytes, bytes]:
    """Read what a file says of itself, by key."""
    with reading(path), _parquet(path) as parquet:
        return dict(parquet.schema_arrow.metadata or {})


def read_footer(path: Path, metadata: Mapping[bytes, bytes], key: str) -> dict[str, Any] | None:
    """A JSON object of the footer; None where there is none."""
    text = metadata.get(key.encode())
    if text is None:
        return None
    try:
        if len(text) > _MOST_FOOTER:
            raise ValueError(f"it has {len(text)} bytes")
        held = json.loads(text)
        if not isinstance(held, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise ArchiveImportError(f"{path}: its footer {key!r} cannot be read: {error}") from error
    return held


def open_embeds(path: Path, names: Sequence[str]) -> EmbedFile:
    """Read the footer of a file, and check what it declares.

    Args:
        path: The file.
        names: Columns of vectors, of which the first that there is counts.

    Raises:
        ArchiveImportError: If it is damaged, has no such column, no row, or declares more than it can hold.
    """
    with reading(path), _parquet(path) as parquet:
        _check_declared(path, parquet.metadata)
        schema = parquet.schema_arrow
        if len(set(schema.names)) < len(schema.names):
            twice = next(column for column in schema.names if schema.names.count(column) > 1)
            raise ArchiveImportError(f"{path} has two columns {twice!r}: rename one.")
        vectors = next((column for column in names if column in schema.names), None)
        if vectors is None:
            raise ArchiveImportError(
                f"{path} has no vectors under {', '.join(names)}: it has {', '.join(schema.names)[:500]}. Name the column, "
                "--vector-column (in Python vector_column=)."
            )
        width = _declared_width(path, vectors, schema.field(vectors).type)
        _refuse_bomb(path, 4 * parquet.metadata.num_rows * (width or 1))
        leaves = [parquet.schema.column(number) for number in range(len(parquet.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.max_repetition_level < 2]
        return EmbedFile(path, schema, parquet.metadata.num_rows, texts, vectors, width)


def _parquet(path: Path, texts: Sequence[str] = ()) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=list(texts))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into an `ArchiveImportError`."""
    try:
        yield
    except ArchiveImportError:
        raise
    except _DAMAGE as error:
        raise ArchiveImportError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:300]}") from error


def _check_declared(path: Path, metadata: pq.FileMetaData) -> None:
    """Refuse a file that would become far larger than it is."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    # the descriptions of single columns are not looked at here: a damaged file may hold anything in them
    size = sum(group.total_byte_size for group in groups)
    rows = sum(group.num_rows for group in groups)
    if rows != metadata.num_rows or any(group.num_rows < 0 for group in groups):
        raise ArchiveImportError(f"{path} declares {metadata.num_rows} rows, and its row groups {rows}: it is damaged.")
    if not rows:
        raise ArchiveImportError(f"{path} has no rows.")
    _refuse_bomb(path, size)


def _refuse_bomb(path: Path, size: int) -> None:
    most = _ALWAYS_BYTES + _MOST_RATIO * path.stat().st_size
    if size > most or size < 0:
        raise ArchiveImportError(
            f"{path} has {path.stat().st_size} bytes and would become {size}: no file of embeds shrinks like that, and it is not "
            "read."
        )


def _declared_width(path: Path, column: str, kind: pa.DataType) -> int | None:
    """The width that a type says; an error where a column holds no vectors of floats."""
    kind = _storage(kind)
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not pa.types.is_floating(kind.value_type):
        codes = ", codes of a quantisation perhaps: bring them back to floats first" if lists else ""
        raise ArchiveImportError(f"{path}: the column {column!r} has the type {kind}; expected lists of floats{codes}.")
    if not pa.types.is_fixed_size_list(kind):
        return None
    if not 0 < kind.list_size <= _MOST_WIDTH:
        raise ArchiveImportError(f"{path}: vectors of {kind.list_size} numbers; expected 1 to {_MOST_WIDTH}.")
    return int(kind.list_size)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def read_columns(file: EmbedFile, names: Sequence[str]) -> pa.Table:
    """Read columns of metadata, some rows at a time; an error where they grow beyond what the file may hold."""
    lacking = [name for name in names if name not in file.schema.names]
    if lacking:
        raise ArchiveImportError(f"{file.path} lacks the column {lacking[0]!r}, which it says it has.")
    held, size = [], 0
    schema = pa.schema([file.schema.field(name) for name in names])
    for batch in file.batches(names, _MOST_BATCH):
        size += sum(map(_plain_size, batch.columns))
        _refuse_bomb(file.path, size)
        with reading(file.path):
            held.append(batch.select(list(names)).cast(schema))
    table = pa.Table.from_batches(held, schema)
    if table.num_rows != file.rows:
        raise ArchiveImportError(f"{file.path} declares {file.rows} rows and holds {table.num_rows}: it is damaged.")
    return table.replace_schema_metadata(None)


def _plain_size(column: pa.Array) -> int:
    """Bytes of a column once its texts are written out."""
    values = column.flatten() if pa.types.is_list(column.type) else column
    if not pa.types.is_dictionary(values.type):
        return int(column.nbytes)
    lengths = pc.binary_length(values.dictionary)
    return int(pc.sum(pc.cast(lengths, pa.int64()).take(values.indices)).as_py() or 0)


def read_vectors(
    files: Sequence[EmbedFile], sensor: str, ranks: IntArray | None, scratch: Any, *, unit: bool, content: Any = None
) -> torch.Tensor:
    """Read the vectors of a sensor to a nameless file on disk.

    Args:
        files: They hold them.
        sensor: Whose they are.
        ranks: (N,) row that each gets; None for as they come.
        scratch: Folder of the nameless file.
        unit: Whether they have unit length already, and stay to the bit.
        content: A hash that is told all of them.

    Returns:
        (N, D) float32, of unit length.
    """
    room: np.ndarray[Any, Any] | None = None
    first, start = files[0], 0
    total = sum(file.rows for file in files)
    for file in files:
        step = max(1, min(_MOST_BATCH, _BATCH_BYTES // (4 * (file.width or 1024))))
        for batch in file.batches([file.vectors], step):
            values = _matrix(file, batch.column(batch.schema.get_field_index(file.vectors)), start)
            if room is None:
                _refuse_bomb(file.path, 4 * file.rows * values.shape[1])
                room = _room(total, values.shape[1], scratch)
            if values.shape[1] != room.shape[1] or start + len(values) > total:
                raise ArchiveImportError(
                    f"{file.path}: vectors have {values.shape[1]} numbers from row {start} on, and those of {first.path} "
                    f"{room.shape[1]}: expected one width for all."
                )
            if content is not None:
                content.update(np.ascontiguousarray(values).data)
            stop = start + len(values)
            room[slice(start, stop) if ranks is None else ranks[start:stop]] = _units(file, values, sensor, start, unit)
            start = stop
    if room is None or start != total:
        raise ArchiveImportError(f"{first.path} declares {total} rows and holds {start}: it is damaged.")
    return torch.from_numpy(room)


def _room(rows: int, width: int, scratch: Any) -> np.ndarray[Any, Any]:
    """(rows, width) float32 on disk, in a file without a name, which is gone when nobody looks at it any more, whatever happens."""
    with tempfile.TemporaryFile(dir=scratch) as stream:
        return np.memmap(stream, np.float32, "w+", shape=(rows, width))


def _matrix(file: EmbedFile, column: pa.Array, start: int) -> np.ndarray[Any, Any]:
    """(n, D) floats of a batch of lists."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if column.null_count:
        row = start + int(np.flatnonzero(np.asarray(column.is_null()))[0])
        raise ArchiveImportError(f"{file.path}: row {row} has no vector.")
    flat = column.flatten()
    if not pa.types.is_fixed_size_list(column.type):
        lengths = np.diff(np.asarray(column.offsets))
        other = np.flatnonzero(lengths != lengths[0])
        if len(other):
            raise ArchiveImportError(
                f"{file.path}: the vector of row {start} has {lengths[0]} numbers and that of row {start + other[0]} "
                f"{lengths[other[0]]}: expected one width for all."
            )
    width, rest = divmod(len(flat), len(column))
    if rest or not 0 < width <= _MOST_WIDTH:
        raise ArchiveImportError(
            f"{file.path}: vectors of {width} numbers from row {start} on; expected 1 to {_MOST_WIDTH}."
        )
    if flat.null_count:
        row = start + int(np.flatnonzero(np.asarray(flat.is_null()))[0]) // width
        raise ArchiveImportError(f"{file.path}: a number of the vector of row {row} is null.")
    return flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, width)


def _units(file: EmbedFile, values: np.ndarray[Any, Any], sensor: str, start: int, unit: bool) -> np.ndarray[Any, Any]:
    """Vectors of unit length; an error names the first row that has no direction, or is not of the length that it should be."""
    lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    wrong = ~np.isfinite(lengths) | (lengths == 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        what = "is zero" if lengths[row] == 0 else "is not finite"
        raise ArchiveImportError(
            f"{file.path}: the vector of row {start + row} {what}, and {int(wrong.sum())} of {len(values)} here are such; none has a "
            "direction to search in."
        )
    if not unit:
        return unit_vectors(values, sensor).numpy()
    if (np.abs(lengths - 1) > _UNIT).any():
        row = int(np.argmax(np.abs(lengths - 1)))
        raise ArchiveImportError(
            f"{file.path}: the vector of row {start + row} has the length {lengths[row]:.4g}; those of an archive have 1."
        )
    return values
