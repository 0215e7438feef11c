"""Columns of metadata as filters compare them: their kinds, their values as numbers in memory, and what equals a constant."""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_ATTO = 10**18
_UNITS = {"s": _ATTO, "ms": _ATTO // 10**3, "us": _ATTO // 10**6, "ns": _ATTO // 10**9}
_DAY = 86_400 * _ATTO


class Moment(NamedTuple):
    """A time, or all of a day: first and last instant, in attoseconds since 1970 (UTC) or, of a time of day, since midnight."""

    first: int
    last: int


Value = str | int | float | Decimal | bool | Moment
Kind = Literal["text", "number", "truth", "time", "time of day", "duration"]
"""Of a column: text, numbers, truth values, dates and times, times of day, and durations, which compare with seconds."""


class Column(NamedTuple):
    """What a filter may ask of a column; `many` where it holds lists."""

    kind: Kind
    many: bool


class FilterError(ValueError):
    """A filter that cannot be understood, or that does not fit the columns; the message shows where."""


def columns_of(schema: pa.Schema) -> dict[str, Column]:
    """The columns of a table whose values filters may compare: text, numbers, truth values, dates and times, and lists of them."""
    found = {}
    for field in schema:
        kind = kind_of(held_type(field.type))
        if kind is not None:
            found[field.name] = Column(kind, is_list(field.type))
    return found


def kind_of(kind: pa.DataType) -> Kind | None:
    """What filters take a type of values for; None where they compare it with nothing."""
    tests: dict[Kind, tuple[Callable[[pa.DataType], bool], ...]] = {
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
        "truth": (pa.types.is_boolean,),
        "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        "time": (pa.types.is_timestamp, pa.types.is_date),
        "time of day": (pa.types.is_time,),
        "duration": (pa.types.is_duration,),
    }
    return next((name for name, any_of in tests.items() if any(test(kind) for test in any_of)), None)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def held_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, or of the members of its lists, without a dictionary."""
    kind = kind.value_type if is_list(kind) else kind
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def in_one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    held = column.combine_chunks()
    if isinstance(held, pa.ChunkedArray):  # older pyarrow, or no rows
        held = pa.concat_arrays(held.chunks) if held.num_chunks else pa.array([], held.type)
    return held


def plain_values(column: pa.Array) -> pa.Array:
    """A column without its dictionary, its text and floats in one type."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type) or pa.types.is_null(column.type):
        return column.cast(pa.large_string())
    if pa.types.is_floating(column.type) and not pa.types.is_float64(column.type):
        return column.cast(pa.float32()).cast(pa.float64())  # which hold the same numbers
    return column


def known_values(column: pa.Array) -> NDArray[np.bool_]:
    """(N,) which values of a plain column are known; a NaN is not."""
    valid = np.asarray(column.is_valid(), dtype=bool)
    return valid & ~np.isnan(numbers_in_memory(column)) if pa.types.is_floating(column.type) else valid


def numbers_in_memory(column: pa.Array) -> NDArray[Any]:
    """A plain column of numbers or times as its numbers in memory, 0 where they are not known."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        column = column.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    return np.asarray(pc.fill_null(column, pa.scalar(0, column.type)))


def span_of(value: Any, kind: pa.DataType) -> tuple[Any, Any]:
    """The least and the greatest number, as a type has them in memory, that equal a constant; where none does, the least is greater.

    Then what is less than the constant is less than the first, and what is greater is greater than the second.
    """
    if pa.types.is_floating(kind):
        narrow: Any = {16: np.float16, 32: np.float32}.get(kind.bit_width)
        number = float(value)
        if narrow is not None and not isinstance(value, int):
            with np.errstate(over="ignore"):
                number = float(narrow(number)) if np.isfinite(narrow(number)) else number
        if not isinstance(value, int) or number == value:
            return number, number
        return (number, np.nextafter(number, -np.inf)) if number > value else (np.nextafter(number, np.inf), number)
    if isinstance(value, Moment):
        unit = _DAY if pa.types.is_date32(kind) else _UNITS[getattr(kind, "unit", "ms")]
        return -(-value.first // unit), value.last // unit
    if pa.types.is_duration(kind):
        exact = Fraction(value) * _ATTO / _UNITS[kind.unit]
        return math.ceil(exact), math.floor(exact)
    scaled = Decimal(value) if not pa.types.is_decimal(kind) else shifted(Decimal(value), kind.scale)
    return int(scaled.to_integral_value(ROUND_CEILING)), int(scaled.to_integral_value(ROUND_FLOOR))


def shifted(number: Decimal, places: int) -> Decimal:
    """A number times a power of ten, without rounding."""
    sign, digits, exponent = number.as_tuple()
    return Decimal((sign, digits, int(exponent) + places))


def read_moment(text: str, kind: pa.DataType) -> Moment:
    """A date, which is a whole day, or a time, as of ISO 8601, in the time zone of a column of this type; else a ValueError."""
    zone = _zone(getattr(held_type(kind), "tz", None))
    try:
        day = date.fromisoformat(text)
    except ValueError:
        whole, fraction, offset = _split_fraction(text)
        moment = datetime.fromisoformat(whole + offset)
        instant = _since_1970(moment.date(), moment.time(), moment.tzinfo or zone) + fraction
        return Moment(instant, instant)
    begins = _since_1970(day, time(), zone)
    if day == date.max:
        return Moment(begins, begins + _DAY - 1)
    return Moment(begins, _since_1970(day + timedelta(days=1), time(), zone) - 1)


def read_hour(text: str) -> Moment:
    """A time of day as of ISO 8601, without an offset; anything else is a ValueError."""
    whole, fraction, offset = _split_fraction(text)
    moment = time.fromisoformat(whole + offset)
    if moment.tzinfo is not None:
        raise ValueError("a time of day has no offset")
    instant = _seconds(moment) * _ATTO + fraction
    return Moment(instant, instant)


def _split_fraction(text: str) -> tuple[str, int, str]:
    """A time without the fraction of its second, the fraction in attoseconds, and the offset that followed it."""
    match = re.fullmatch(r"(.*:\d\d)[.,](\d{1,18})((?:Z|[+-]\d\d.*)?)", text)
    return (text, 0, "") if match is None else (match[1], int(match[2].ljust(18, "0")), match[3])


def _seconds(moment: time) -> int:
    return (moment.hour * 60 + moment.minute) * 60 + moment.second


def _since_1970(day: date, moment: time, zone: tzinfo) -> int:
    """Attoseconds from 1970 (UTC) to a time in a time zone; of two such times, where clocks were turned back, the first."""
    offset = datetime.combine(day, moment, zone).utcoffset() or timedelta()
    seconds = (day.toordinal() - date(1970, 1, 1).toordinal()) * 86_400 + _seconds(moment)
    if moment.microsecond:
        raise ValueError("a fraction that is no decimal one of a second")
    return seconds * _ATTO - (offset // timedelta(microseconds=1)) * (_ATTO // 10**6)


def _zone(name: str | None) -> tzinfo:
    """A time zone as Arrow calls it: by its name in the IANA database, or an offset such as +02:00."""
    if name is None or name == "UTC":
        return UTC
    if match := re.fullmatch(r"([+-])(\d\d):?(\d\d)", name):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise FilterError(
            f"Filter: the time zone {name!r} of a column is not known here: pip install tzdata"
        ) from error
