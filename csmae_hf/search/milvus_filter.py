"""Filters as expressions of Milvus, and columns as it holds them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from csmae_hf.search.filter_language import Joined, Placed, Where
from csmae_hf.search.values import (
    Column,
    columns_of,
    held_type,
    in_one_chunk,
    is_list,
    kind_of,
    known_values,
    numbers_in_memory,
    plain_values,
    span_of,
)

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
_INT64 = (-(1 << 63), (1 << 63) - 1)


def milvus_columns(schema: pa.Schema) -> dict[str, Column]:
    """The columns that Milvus compares as this module does: it has no decimals, and no whole numbers of 64 bits without a sign."""
    found = columns_of(schema)
    held = {name: held_type(schema.field(name).type) for name in found}
    return {
        name: column
        for name, column in found.items()
        if not pa.types.is_decimal(held[name]) and not pa.types.is_uint64(held[name])
    }


def milvus_values(column: pa.ChunkedArray) -> list[Any]:
    """A column of `milvus_columns` as Milvus holds it: None, text, a truth value, a number or a list of these; times as in memory."""
    held = in_one_chunk(column)
    if is_list(held.type):
        rows: list[Any] = [[] if known else None for known in held.is_valid().to_pylist()]
        members = milvus_values(pa.chunked_array([pc.list_flatten(held)]))
        for row, value in zip(pc.list_parent_indices(held).to_pylist(), members, strict=True):
            if value is not None:  # a member that is not known is none
                rows[row].append(value)
        return rows
    plain = plain_values(held)
    values = plain.to_pylist() if kind_of(plain.type) in ("text", "truth") else numbers_in_memory(plain).tolist()
    return [value if known else None for value, known in zip(values, known_values(plain).tolist(), strict=True)]


def is_whole(kind: pa.DataType) -> bool:
    """Whether Milvus holds a column of this type, or its lists' members, as whole numbers."""
    held = held_type(kind)
    return bool(pa.types.is_integer(held)) or kind_of(held) in ("time", "time of day", "duration")


def milvus_of(where: Where, names: Mapping[str, str], schema: pa.Schema) -> str | None:
    """Write a filter of a table of this schema as an expression of Milvus, whose constants are typed and escaped.

    `names` are Milvus' fields by column; beside each a truth field of the same name and `_known` says whether the value is known. None
    where the filter asks for what Milvus cannot be asked: places, columns without a field, and a day of a list of times.
    """
    if isinstance(where, Joined):
        parts = [milvus_of(part, names, schema) for part in where.parts]
        return None if None in parts else f" {where.word} ".join(f"({part})" for part in parts)
    if isinstance(where, Placed) or where.column not in names:
        return None
    field, kind = names[where.column], schema.field(where.column).type
    known = f"{field}_known == true"
    if not where.values:
        return known if where.operator == "is not null" else f"{field}_known == false"
    negated, many = where.operator in ("!=", "not in"), is_list(kind)
    if where.operator[0] in "<>":
        return f"{known} and {_milvus_order(field, where.operator, where.values[0], held_type(kind))}"
    anyone = _milvus_any(field, where.values, held_type(kind), many)
    if anyone is None:
        return None
    if not anyone:
        return known if negated else f"{known} and {field}_known == false"
    return f"{known} and not ({anyone})" if negated else f"{known} and ({anyone})"


def _milvus_order(field: str, operator: str, value: Any, kind: pa.DataType) -> str:
    if isinstance(value, str):
        return f"{field} {operator} {_milvus_text(value)}"
    constant = span_of(value, kind)[operator in ("<=", ">")]
    if isinstance(constant, int) and not _INT64[0] <= constant <= _INT64[1]:
        return f"{field}_known == {'true' if (constant > 0) == (operator[0] == '<') else 'false'}"
    return (
        f"{field} {operator} {constant!r}" if isinstance(constant, int) else f"{field} {operator} {float(constant)!r}"
    )


def _milvus_any(field: str, values: Sequence[Any], kind: pa.DataType, many: bool) -> str | None:
    """That a field, or a member of it, is one of some values; empty where it never is, None where Milvus cannot be asked."""
    single: list[str] = []
    parts: list[str] = []
    for value in values:
        if isinstance(value, (str, bool)):
            single.append(_milvus_text(value) if isinstance(value, str) else str(value).lower())
            continue
        first, last = span_of(value, kind)
        if isinstance(first, int):
            first, last = max(first, _INT64[0]), min(last, _INT64[1])
        if first == last:
            single.append(repr(first) if isinstance(first, int) else repr(float(first)))
        elif first < last:
            parts.append(f"({field} >= {first} and {field} <= {last})")
    if many:
        # milvus-lite 3.2.2 reads no negative number in array_contains
        held = (
            f"array_contains_any({field}, [{one}])" if one.startswith("-") else f"array_contains({field}, {one})"
            for one in single
        )
        return None if parts else " or ".join(held)
    if single:
        parts.append(f"{field} == {single[0]}" if len(single) == 1 else f"{field} in [{', '.join(single)}]")
    return " or ".join(parts)


def _milvus_text(text: str) -> str:
    return '"' + text.translate(_ESCAPES) + '"'
