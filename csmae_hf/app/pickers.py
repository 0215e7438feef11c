"""Pickers of the page: one for each column of metadata that has few values or an order, and the filter that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from csmae_hf.search.filter_language import columns_of
from csmae_hf.search.places import COLUMNS, PLACE_COLUMNS

MOST_VALUES = 60
"""A column of text with more values has no picker; the filter can still be typed."""

_NOT_PICKED = {"id", "s1_id", *COLUMNS, *PLACE_COLUMNS}


@dataclass(frozen=True)
class Picker:
    """How a column is picked.

    Attributes:
        column: Its name.
        kind: "values" (any of some), "truth" (yes or no) or "time" (from and to).
        values: What can be picked, of "values".
        span: First and last day as ISO dates, of "time".
    """

    column: str
    kind: Literal["values", "truth", "time"]
    values: tuple[str, ...] = ()
    span: tuple[str, str] | None = None

    @property
    def label(self) -> str:
        """What it is called on the page."""
        return self.column.replace("_", " ").capitalize().replace("s1", "S1").replace("s2", "S2")


def pickers_of(tiles: pa.Table) -> list[Picker]:
    """A picker for each column of text with few values, of truth values, and of times; none where all is unknown."""
    found = []
    for name, (kind, many) in columns_of(tiles.schema).items():
        column = tiles.column(name)
        flat = pc.list_flatten(column) if many else column
        if name in _NOT_PICKED or flat.null_count == len(flat):
            continue
        if kind == "text":
            values = tuple(sorted(value for value in pc.unique(flat).to_pylist() if value is not None))
            if 1 < len(values) <= MOST_VALUES:
                found.append(Picker(name, "values", values))
        elif kind == "truth" and not many:
            found.append(Picker(name, "truth"))
        elif kind == "time" and not many:
            ends = pc.min_max(flat).as_py()
            found.append(Picker(name, "time", span=(ends["min"].isoformat()[:10], ends["max"].isoformat()[:10])))
    return found


def compose_filter(picked: Mapping[str, Any], pickers: Sequence[Picker], typed: str = "") -> str:
    """Write what was picked, and a filter that was typed, as one filter; it is checked by whoever searches by it.

    `picked` has by column a list of values, "yes" or "no", or (from, to) as ISO dates of which each may be empty.
    """
    parts = []
    for picker in pickers:
        value = picked.get(picker.column)
        name = '"' + picker.column.replace('"', '""') + '"' if not picker.column.isidentifier() else picker.column
        if picker.kind == "values" and value:
            parts.append(f"{name} in ({', '.join(map(_quoted, value))})")
        elif picker.kind == "truth" and value in ("yes", "no"):
            parts.append(f"{name} = {'true' if value == 'yes' else 'false'}")
        elif picker.kind == "time" and value:
            first, last = (str(end or "").strip() for end in value)
            parts += [f"{name} >= {_quoted(first)}"] if first else []
            parts += [f"{name} <= {_quoted(last)}"] if last else []
    if typed := typed.strip():
        parts.append(f"({typed})" if parts else typed)
    return " and ".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
