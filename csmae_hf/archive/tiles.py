"""The metadata that an archive keeps of a dataset of tiles."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from csmae_hf.archive.held import check_ids
from csmae_hf.data.pixel_column import Tile
from csmae_hf.data.unit_rules import units_column
from csmae_hf.data.units import said_units
from csmae_hf.embedding.without_paths import without_paths
from csmae_hf.search.ids import ID
from csmae_hf.search.places import PLACE_COLUMNS, footprint_columns, is_bbox, with_places

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

logger = logging.getLogger(__name__)

_KEPT = (
    pa.types.is_string,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_duration,
)


def metadata_of(dataset: "Dataset", sensors: Sequence[str], units: Mapping[str, str] | None = None) -> pa.Table:
    """Take a dataset's metadata: whatever has one value a tile, or a list of them, classes by name; of GeoTIFFs where they lie.

    No pixels are read. `sensors` names the pixel columns. A column `units_SENSOR` has the units that are said of tiles, or else those
    of `units`, the processor's own; pictures are drawn by them. `labels` is a list even where the dataset has one class a tile. Where
    a tile lies is in the columns of [`with_places`]. A warning names columns that are left out, such as pictures and nested ones.

    Returns:
        A table with `id` first; where the dataset has no such column, the row numbers.

    Raises:
        ValueError: If an id is missing or occurs twice.
    """
    columns: dict[str, pa.Array] = {}
    plain = dataset.with_format(None)
    left_out = []
    for name, feature in dataset.features.items():
        if name in sensors or isinstance(feature, Tile):
            continue
        kind = _plain_type(feature)
        if name == "bbox" and isinstance(feature, dict):
            column = plain.select_columns([name]).with_format("arrow")[:].column(name)
            if is_bbox(column.type):
                columns[name] = column
                continue
        if kind is None:
            left_out.append(name)
            continue
        column = _by_name(plain.select_columns([name]).with_format("arrow")[:].column(name), feature, kind)
        if name == "labels" and pa.types.is_string(kind):
            column = pa.array([None if value is None else [value] for value in column.to_pylist()], pa.list_(kind))
        columns[name] = column
    for sensor in sensors:
        if sensor in dataset.column_names:
            said = [unit or (units or {}).get(sensor) for unit in said_units(dataset, sensor)]
            if any(said):
                columns[units_column(sensor)] = pa.array(said, pa.string())
    if left_out:
        logger.warning(
            "The archive keeps no column %s: a value of it is no text, number, truth value, date or time, nor a list of them.",
            " and no column ".join(left_out),
        )
    ids = columns.pop(ID).cast(pa.string()) if ID in columns else pa.array(map(str, range(len(dataset))), pa.string())
    check_ids(ids.to_pylist())
    return with_places(pa.table({ID: ids, **columns, **footprint_columns(dataset)}))


def _plain_type(feature: Any) -> pa.DataType | None:
    """The type in which a feature is kept; None for what is no metadata."""
    from datasets import ClassLabel, List, Value
    from datasets.features import LargeList

    if isinstance(feature, (List, LargeList)):
        inner = _plain_type(feature.feature) if isinstance(feature.feature, (Value, ClassLabel)) else None
        return None if inner is None else pa.list_(inner)
    if isinstance(feature, ClassLabel):
        return pa.string()
    if not isinstance(feature, Value):
        return None
    return _kept_value(feature.pa_type)


def kept_type(kind: pa.DataType) -> pa.DataType | None:
    """The type in which an archive keeps a column of a type, lists of plain values too; None for what is no metadata."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _kept_value(kind.value_type)
        return None if inner is None else pa.list_(inner)
    return _kept_value(kind)


def _kept_value(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        return _kept_value(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return pa.string()
    return kind if any(is_kept(kind) for is_kept in _KEPT) else None


def _by_name(column: pa.ChunkedArray, feature: Any, kind: pa.DataType) -> pa.Array:
    """A column in its plain type: class numbers by their names, NaN as not known."""
    from datasets import ClassLabel

    inner = getattr(feature, "feature", feature)
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if isinstance(inner, ClassLabel):
        names = pa.array(inner.names, pa.string())
        if inner is feature:
            return names.take(pc.if_else(pc.less(array, 0), None, array))  # -1 is datasets' way to say: no class
        rows = array.to_pylist()
        named = [None if row is None else [inner.names[number] for number in row if number >= 0] for row in rows]
        return pa.array(named, kind)
    array = array.cast(kind)
    return pc.if_else(pc.is_nan(array), None, array) if pa.types.is_floating(kind) else array


def without_rows(tiles: pa.Table, unreadable: Mapping[int, str]) -> tuple[pa.Table, dict[str, str]]:
    """Leave out the metadata of tiles that could not be read, with a warning; give why also by id, not by row."""
    if not unreadable:
        return tiles, {}
    ids = tiles.column(ID).to_pylist()
    reasons = {ids[row]: reason for row, reason in unreadable.items()}
    first, why = next(iter(reasons.items()))
    logger.warning(f"{len(reasons)} of {len(ids)} tiles cannot be read and are left out, {first} for one: {why}")
    return tiles.take(pa.array([row for row in range(len(ids)) if row not in unreadable])), reasons


def with_units_columns(tiles: pa.Table, others: pa.Table, sensors: Sequence[str]) -> pa.Table:
    """Give metadata the columns `units_SENSOR` that others have and they lack: of their own tiles nothing is said."""
    for name in map(units_column, sensors):
        if name in others.column_names and name not in tiles.column_names:
            tiles = tiles.append_column(name, pa.nulls(tiles.num_rows, pa.string()))
    return tiles


def in_columns(tiles: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring metadata into the columns of another table; those that it lacks are None.

    Places that the other does not keep, an archive from before they were kept, are left out: filters find them by other columns.

    Raises:
        ValueError: If it has columns that the other lacks, or of a type that does not fit.
    """
    extra = [name for name in tiles.column_names if name not in (*schema.names, *PLACE_COLUMNS)]
    if extra:
        raise ValueError(
            f"The tiles have columns that the archive lacks: {', '.join(extra)}. Leave them out with remove_columns."
        )
    columns = []
    for field in schema:
        if field.name not in tiles.column_names:
            columns.append(pa.nulls(tiles.num_rows, field.type))
            continue
        try:
            columns.append(tiles.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise ValueError(
                f"Column {field.name} is {tiles.schema.field(field.name).type}; the archive's is {field.type}: {error}"
            ) from error
    return pa.table(columns, schema=schema)


def table_without_paths(tiles: pa.Table) -> pa.Table:
    """Metadata of tiles in which no text, name or note of the schema holds a folder of this machine.

    Raises:
        ValueError: If ids are paths: they cannot be changed, for a search gives them back.
    """
    for place, name in enumerate(tiles.column_names):
        column = tiles.column(name)
        if not any(_has_slash(texts) for chunk in column.chunks for texts in _texts(chunk)):
            continue
        values = column.to_pylist()
        plain = [without_paths(value) for value in values]
        if plain == values:
            continue
        if name == ID:
            first = next(value for value, kept in zip(values, plain, strict=True) if value != kept)
            raise ValueError(
                f"Ids of tiles are paths of this machine, {first!r} for one, and would be published: build the archive with other ids."
            )
        tiles = tiles.set_column(place, tiles.schema.field(name), pa.array(plain, column.type))
    fields = [
        field.with_name(without_paths(field.name)).with_metadata(_notes_without_paths(field.metadata))
        for field in tiles.schema
    ]
    return pa.table(tiles.columns, pa.schema(fields, _notes_without_paths(tiles.schema.metadata)))


def _texts(column: pa.Array) -> Iterator[pa.Array]:
    """The texts in a column, in whatever it holds them: lists, structures, mappings, dictionaries."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        yield column.cast(pa.large_string())
    elif pa.types.is_dictionary(kind):
        yield from _texts(column.dictionary)
    elif pa.types.is_struct(kind):
        for part in column.flatten():
            yield from _texts(part)
    elif pa.types.is_map(kind):
        yield from _texts(column.keys)
        yield from _texts(column.items)
    elif pa.types.is_nested(kind):
        yield from _texts(column.flatten())


def _has_slash(texts: pa.Array) -> bool:
    found: bool | None = pc.any(pc.match_substring_regex(texts, r"[/\\]")).as_py()
    return bool(found)


def _notes_without_paths(notes: Mapping[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    """The notes of a schema, such as those of pandas and datasets, which are JSON."""
    if not notes:
        return None
    plain = {}
    for name, value in notes.items():
        text = value.decode("utf-8", "replace")
        try:
            plain[name] = json.dumps(without_paths(json.loads(text))).encode()
        except ValueError:
            plain[name] = without_paths(text).encode()
    return plain
