"""Text of others where it leaves the house: JSON that every reader takes, CSV in which a spreadsheet computes nothing."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def as_json(value: Any) -> Any:
    """Give a value that JSON has no type for: dates and times as ISO 8601, durations in seconds, anything else as text."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Give JSON of plain values, and of those that `as_json` knows; NaN and infinities, which JSON has not, are null."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False, default=as_json)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def cell(value: Any) -> Any:
    """Give a value as a cell of CSV: a list joined by "; ", other nested values as JSON, None as nothing.

    Text that a spreadsheet would compute, beginning with `=`, `+`, `-` or `@`, gets an apostrophe before it, which spreadsheets take
    for "this is text"; numbers stay.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list) and not any(isinstance(item, list | Mapping) for item in value):
        value = "; ".join(map(str, value))
    elif isinstance(value, list | Mapping):
        value = to_json(value)
    text = str(value)
    return "'" + text if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def to_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Give CSV of rows of values, which `cell` takes, under names of columns."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([cell(name) for name in names])
    writer.writerows([[cell(value) for value in row] for row in rows])
    return buffer.getvalue()
