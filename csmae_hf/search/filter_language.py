"""The filter language of an archive: `country = 'Austria' and season in ('Summer', 'Fall') and not date_s2 < '2018-01-01'`.

    filter     = condition, joined by `and` and `or`, negated by `not`, grouped by ( )
    condition  = column operator value  |  column [not] in (value, ...)  |  column [not] between value and value
               | column is [not] null  |  bbox(W, S, E, N)  |  within('areas')  |  near(LON, LAT, KM)
    operator   = or ==, != or <>, <, <=, >, >=
    column     = a declared column; "quoted" where its name is no plain word
    value      = 'text' (a quote inside is doubled) | number | true | false | 'ISO date or time'

`and` binds more than `or`, `not` more than `and`. A column of lists, such as `labels`, equals a value where the list holds it. A value
that is not known, which a NaN is too, fulfils no condition and no negation of one but `is null`, as in SQL: `country != 'Austria'`
leaves out tiles without a country. So do tiles whose place is not known with conditions of places.

A date alone is the whole day: equal to it is all that is of that day, and after it what is of a later one. Without an offset a day or
a time is of the column's own time zone. Numbers are compared as numbers, whatever their types; one with a fraction or an exponent is
read in the type of a column of floats, as the column's own were, so that 0.1 equals 0.1 also in 32 bits.

A filter is parsed into conditions with all negations pushed into them, typed by the columns, and only then turned into a mask of an
Arrow table or into an expression of Milvus; no text of a user reaches either but as a typed constant. It reads no file: areas that it
names are those that its caller gives.
"""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from csmae_hf.search.areas import Area, Areas, Near, area_of, box, known_places
from csmae_hf.search.values import (
    FilterError,
    Kind,
    Value,
    columns_of,
    held_type,
    in_one_chunk,
    is_list,
    kind_of,
    known_values,
    numbers_in_memory,
    plain_values,
    read_hour,
    read_moment,
    shifted,
    span_of,
)

MAX_LENGTH = 100_000
MAX_DEPTH = 50
MAX_CONDITIONS = 500
MAX_AREAS = 20
_MOST_COMPARED = 1000  # so many values of a column are compared with one that it has not, by how they are spelt

# No part of a token is tried in two ways, so that reading is linear in the text.
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']++|'')*+')|(?P<quoted>"(?:[^"]++|"")*+")
    |(?P<number>[+-]?(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d++)?+(?![\w.]))|(?P<word>[^\W\d]\w*+)
    |(?P<sign><=|>=|==|!=|<>|[=<>(),\[\]])|(?P<stranger>\S)""",
    re.VERBOSE,
)
_SYNONYMS = {"==": "=", "<>": "!="}
_NEGATED = {
    **{"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "in": "not in", "not in": "in"},
    **{"is null": "is not null", "is not null": "is null"},
}
_FUNCTIONS = {"bbox": "bbox(W, S, E, N)", "within": "within('areas')", "near": "near(LON, LAT, KM)"}
_EXPECTED: dict[Kind, str] = {
    "text": "'text'",
    "number": "a number",
    "truth": "true or false",
    "time": "'a date', such as '2017-06-13'",
    "time of day": "'a time of day', such as '10:10:31'",
    "duration": "a number of seconds",
}


@dataclass(frozen=True)
class Condition:
    """A column compared (=, !=, <, <=, >, >=, in, not in) with constants of its type, or asked whether it is known (is null).

    There is one constant but for `in`, and none of `is null`.
    """

    column: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Placed:
    """Whether a tile lies in an area, or, where not `inside`, does not."""

    area: Area
    inside: bool


@dataclass(frozen=True)
class Joined:
    """Two or more conditions joined by one word."""

    word: Literal["and", "or"]
    parts: tuple["Where", ...]


Where = Condition | Placed | Joined


def parse_filter(text: str, schema: pa.Schema, areas: Areas | None = None) -> Where:
    """Read a filter in the language of this module, of a table of this schema.

    Args:
        text: The filter.
        schema: Of the table.
        areas: What `within('NAME')` names; without it a filter may hold GeoJSON itself.

    Raises:
        FilterError: If the text is no filter, a column is unknown (the nearest name is given), or a value does not fit its column.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(f"The filter has {len(text)} characters; the most are {MAX_LENGTH}.")
    return _Parser(text, schema, areas).parse()


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


class _Parser:
    """Recursive descent; `negated` travels down, so that the tree holds no negation."""

    def __init__(self, text: str, schema: pa.Schema, areas: Areas | None):
        self.text, self.schema, self.areas = text, schema, areas
        self.columns, self.place, self.depth, self.conditions, self.placed = columns_of(schema), 0, 0, 0, 0
        self.tokens: list[_Token] = []
        for match in _TOKEN.finditer(text):
            token = _Token(str(match.lastgroup), match[0], match.start())
            if token.kind == "stranger":
                unclosed = token.text in "'\""
                self._refuse("a quote that is not closed" if unclosed else f"{token.text!r} means nothing here", token)
            self.tokens.append(token)
        self.tokens.append(_Token("end", "", len(text)))

    def parse(self) -> Where:
        if self.tokens[0].kind == "end":
            self._refuse("expected a condition, such as country = 'Austria'; the filter is empty")
        tree = self._joined("or", False)
        if self.tokens[self.place].kind != "end":
            self._refuse("expected `and`, `or` or the end")
        return tree

    def _refuse(self, message: str, token: _Token | None = None) -> NoReturn:
        place = (token or self.tokens[self.place]).start
        before, after = self.text[max(place - 60, 0) : place], self.text[place : place + 30]
        raise FilterError(f"Filter: {message}, at the mark: {before}\N{BLACK RIGHT-POINTING TRIANGLE}{after}")

    def _next(self) -> _Token:
        token = self.tokens[self.place]
        self.place += token.kind != "end"
        return token

    def _take(self, *texts: str) -> bool:
        token = self.tokens[self.place]
        found = token.kind in ("word", "sign") and token.text.lower() in texts
        self.place += found
        return found

    def _joined(self, word: Literal["and", "or"], negated: bool) -> Where:
        part = partial(self._joined, "and") if word == "or" else self._one
        parts = [part(negated)]
        while self._take(word):
            parts.append(part(negated))
        other: Literal["and", "or"] = "or" if word == "and" else "and"
        return parts[0] if len(parts) == 1 else Joined(other if negated else word, tuple(parts))

    def _one(self, negated: bool) -> Where:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._refuse(f"more than {MAX_DEPTH} levels of `not` and parentheses")
        tree: Where
        if self._take("not"):
            tree = self._one(not negated)
        elif self._take("("):
            tree = self._joined("or", negated)
            if not self._take(")"):
                self._refuse("expected )")
        else:
            self.conditions += 1
            if self.conditions > MAX_CONDITIONS:
                self._refuse(f"more than {MAX_CONDITIONS} conditions; many values of one column go into `in (...)`")
            token, after = self.tokens[self.place], self.tokens[min(self.place + 1, len(self.tokens) - 1)]
            called = token.kind == "word" and token.text.lower() in _FUNCTIONS and after.text == "("
            tree = Placed(self._area(), not negated) if called else self._condition(negated)
        self.depth -= 1
        return tree

    def _condition(self, negated: bool) -> Where:
        start = self.tokens[self.place]
        name = self._column()
        if self._take("is"):
            operator = "is not null" if self._take("not") else "is null"
            if not self._take("null"):
                self._refuse("expected `null` or `not null` after `is`")
            return Condition(name, _NEGATED[operator] if negated else operator, ())
        if name not in self.columns:
            self._refuse(
                f"{name} holds {self.schema.field(name).type}, which is compared with nothing but `is null`", start
            )
        column = self.columns[name]
        token = self._next()
        operator = _SYNONYMS.get(token.text, token.text).lower()
        if operator == "not":
            negated = not negated
            token = self._next()
            operator = token.text.lower()
            if operator not in ("in", "between"):
                self._refuse(f"expected `in` or `between` after {name} not", token)
        if token.kind not in ("sign", "word") or operator not in (*_NEGATED, "between"):
            self._refuse(f"expected a comparison (=, !=, <, <=, >, >=, in, between, is null) after {name}", token)
        if (operator[0] in "<>" or operator == "between") and (column.many or column.kind == "truth"):
            self._refuse(f"{name} has no order; compare it with =, != or in", token)
        if operator == "between":
            low = self._value(name)
            if not self._take("and"):
                self._refuse("expected `and` and the greatest value")
            both = ((">=", low), ("<=", self._value(name)))
            parts = tuple(Condition(name, _NEGATED[sign] if negated else sign, (value,)) for sign, value in both)
            return Joined("or" if negated else "and", parts)
        listed = operator == "in"
        if listed and not self._take("(", "["):
            self._refuse("expected ( and a list of values after `in`")
        values = [self._value(name)]
        while listed and self._take(","):
            values.append(self._value(name))
        if listed and not self._take(")", "]"):
            self._refuse("expected , or )")
        return Condition(name, _NEGATED[operator] if negated else operator, tuple(values))

    def _area(self) -> Area:
        start = self._next()
        function = start.text.lower()
        self.placed += 1
        if self.placed > MAX_AREAS:
            self._refuse(f"more than {MAX_AREAS} places; give areas of several polygons to within()", start)
        self._take("(")
        arguments = [self._next()]
        while self._take(","):
            arguments.append(self._next())
        wanted = {"bbox": ["number"] * 4, "within": ["text"], "near": ["number"] * 3}[function]
        if [token.kind for token in arguments] != wanted or not self._take(")"):
            self._refuse(f"expected {_FUNCTIONS[function]}", start)
        try:
            if function == "within":
                return self._named_area(arguments[0])
            numbers = [float(token.text) for token in arguments]
            return box(*numbers) if function == "bbox" else Near(*numbers)
        except FilterError:
            raise
        except ValueError as error:
            self._refuse(str(error), start)

    def _named_area(self, token: _Token) -> Area:
        name = token.text[1:-1].replace("''", "'")
        if name.lstrip().startswith("{"):
            return area_of(name, mend=False)
        if callable(self.areas):
            return area_of(self.areas(name))
        if name not in (self.areas or {}):
            known = f" ({', '.join(self.areas)})" if self.areas else ""
            self._refuse(
                f"no area {name!r} is given here{known}; a filter opens no file. Give it: `csmae search --within FILE`, in Python "
                "areas={'NAME': 'FILE'}, or write GeoJSON: within('{\"type\": \"Polygon\", ...}')",
                token,
            )
        return area_of(self.areas[name])  # type: ignore[index]

    def _column(self) -> str:
        token = self._next()
        name = token.text
        if token.kind == "quoted":
            name = name[1:-1].replace('""', '"')
        elif token.kind != "word" or name.lower() in ("and", "or", "in", "not"):
            self._refuse("expected the name of a column", token)
        if name not in self.schema.names:
            near = difflib.get_close_matches(name.lower(), [known.lower() for known in self.columns], 1, 0.5)
            hint = next((f"; did you mean {real}?" for real in self.columns if real.lower() in near), "")
            raise FilterError(f"Filter: no column {name!r}{hint} (columns: {', '.join(self.columns) or 'none'})")
        return name

    def _value(self, name: str) -> Value:
        token, kind = self._next(), self.columns[name].kind
        if token.kind in ("text", "quoted") and kind in ("text", "time", "time of day"):
            quote = token.text[0]
            text = token.text[1:-1].replace(quote * 2, quote)
            if kind == "text":
                return text
            try:
                return read_hour(text) if kind == "time of day" else read_moment(text, self.schema.field(name).type)
            except (ValueError, OverflowError):
                example = "a time of day, such as '10:10:31'"
                if kind == "time":
                    example = "a date as of ISO 8601, such as '2017-06-13' or '2017-06-13T10:10:31'"
                self._refuse(f"expected {example}", token)
        if token.kind == "number" and kind in ("number", "duration"):
            if re.fullmatch(r"[+-]?\d{1,300}", token.text):
                return int(token.text)
            number = Decimal(token.text)
            if not math.isfinite(float(number)):
                self._refuse("a number that is too large", token)
            return number if number.adjusted() > -400 else Decimal(0)
        if token.kind == "word" and kind == "truth" and token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        self._refuse(f"{name} is compared with {_EXPECTED[kind]}, not with {token.text or 'nothing'}", token)


def mask_of(where: Where, table: pa.Table) -> NDArray[np.bool_]:
    """Which rows of a table a filter keeps: (N,) true where it is fulfilled.

    Raises:
        ImportError: If it asks for places, and shapely or rasterio is missing.
    """
    if isinstance(where, Joined):
        joint = np.logical_and if where.word == "and" else np.logical_or
        return joint.reduce([mask_of(part, table) for part in where.parts])
    if isinstance(where, Placed):
        found = where.area.mask(table)
        return found if where.inside else known_places(table) & ~found
    column = in_one_chunk(table.column(where.column))
    if is_list(column.type):
        known = np.asarray(column.is_valid(), dtype=bool)
        if where.values:
            held = _matches(pc.list_flatten(column), "in", where.values)
            holds = np.zeros(len(column), dtype=bool)
            holds[np.asarray(pc.list_parent_indices(column))[held]] = True
            return holds if where.operator in ("=", "in") else ~holds & known
    elif where.values:
        return _matches(column, where.operator, where.values)
    else:
        known = known_values(plain_values(column))
    return known if where.operator == "is not null" else ~known


def _matches(column: pa.Array, operator: str, values: Sequence[Value]) -> NDArray[np.bool_]:
    """Which values of a column, lists' members or its own, fulfil a comparison."""
    if operator in ("!=", "not in"):
        return known_values(plain_values(column)) & ~_matches(column, _NEGATED[operator], values)
    kind = held_type(column.type)
    column = plain_values(column)
    if kind_of(kind) in ("text", "truth"):
        if operator in ("=", "in"):
            return np.asarray(pc.is_in(column, value_set=pa.array(values, column.type)), dtype=bool)
        compare = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}[operator]
        return np.asarray(pc.fill_null(compare(column, pa.scalar(values[0], column.type)), False), dtype=bool)
    spans = [span_of(value, kind) for value in values]
    if pa.types.is_decimal(kind):
        return _decimals_match(column, operator, spans)
    numbers = numbers_in_memory(column)
    return known_values(column) & (
        _in_spans(numbers, spans) if operator in ("=", "in") else _ordered(numbers, operator, spans[0])
    )


def _ordered(numbers: NDArray[Any], operator: str, span: tuple[Any, Any]) -> NDArray[np.bool_]:
    if operator in ("<", "<="):
        return _up_to(numbers, span[operator == "<="], operator == "<=")
    return ~_up_to(numbers, span[operator == ">"], operator == ">")


def _up_to(numbers: NDArray[Any], most: Any, itself: bool) -> NDArray[np.bool_]:
    """Which numbers are less than another of any size, or are it."""
    if numbers.dtype.kind in "iu":
        limits = np.iinfo(numbers.dtype)
        if not limits.min <= most <= limits.max:
            return np.full(len(numbers), most > limits.max)
        most = numbers.dtype.type(most)
    return numbers <= most if itself else numbers < most


def _in_spans(numbers: NDArray[Any], spans: Sequence[tuple[Any, Any]]) -> NDArray[np.bool_]:
    """Which numbers lie in any of several spans."""
    if numbers.dtype.kind in "iu":
        limits = np.iinfo(numbers.dtype)
        spans = [(max(first, limits.min), min(last, limits.max)) for first, last in spans]
    merged: list[list[Any]] = []
    for first, last in sorted(span for span in spans if span[0] <= span[1]):
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    if not merged:
        return np.zeros(len(numbers), dtype=bool)
    firsts, lasts = (np.array([span[side] for span in merged], dtype=numbers.dtype) for side in (0, 1))
    if len(merged) == 1:
        return (numbers >= firsts[0]) & (numbers <= lasts[0])
    place = np.searchsorted(firsts, numbers, side="right") - 1
    return (place >= 0) & (numbers <= lasts[place])


def _decimals_match(column: pa.Array, operator: str, spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which decimals fulfil a comparison with spans of their digits, taken as whole numbers."""
    kind, most = column.type, 10**column.type.precision - 1
    known = np.asarray(column.is_valid(), dtype=bool)

    def up_to(number: int, itself: bool) -> NDArray[np.bool_]:
        if not -most <= number <= most:
            return known & (number > most)
        compare = pc.less_equal if itself else pc.less
        constant = pa.scalar(shifted(Decimal(number), -kind.scale), kind)
        return np.asarray(pc.fill_null(compare(column, constant), False), dtype=bool)

    if operator in ("=", "in"):
        real = [span for span in spans if span[0] <= span[1]]
        return np.logical_or.reduce(
            [np.zeros(len(column), bool), *(up_to(b, True) & ~up_to(a, False) for a, b in real)]
        )
    if operator in ("<", "<="):
        return up_to(spans[0][operator == "<="], operator == "<=")
    return known & ~up_to(spans[0][operator == ">"], operator == ">")


def unknown_values(where: Where, table: pa.Table) -> list[str]:
    """Say what may surprise of a filter's answer.

    Of each text that it asks for, and that its column has nowhere but for its spelling, which one may have been meant; and of how many
    tiles the place is not known, where it asks for places.
    """
    found = _texts_nowhere(where, table)
    if _asks_for_places(where):
        lost = int((~known_places(table)).sum())
        if lost:
            found.append(
                f"Of {lost} of {table.num_rows} tiles the place is not known: no filter by place finds them, nor its negation."
            )
    return found


def _asks_for_places(where: Where) -> bool:
    return any(map(_asks_for_places, where.parts)) if isinstance(where, Joined) else isinstance(where, Placed)


def _texts_nowhere(where: Where, table: pa.Table) -> list[str]:
    if isinstance(where, Joined):
        return list(dict.fromkeys(said for part in where.parts for said in _texts_nowhere(part, table)))
    if isinstance(where, Placed):
        return []
    texts = [value for value in where.values if isinstance(value, str)]
    if where.operator[0] in "<>" or not texts or not table.num_rows:
        return []
    column = in_one_chunk(table.column(where.column))
    held = plain_values(pc.list_flatten(column) if is_list(column.type) else column)
    missing = [text for text in texts if not pc.any(pc.equal(held, pa.scalar(text, held.type))).as_py()]
    if not missing:
        return []
    known = [text for text in pc.unique(held).to_pylist() if text is not None]
    said = []
    for text in missing:
        near = [other for other in known if other.casefold() == text.casefold()]
        if not near and len(known) <= _MOST_COMPARED:
            folded = {other.casefold(): other for other in known}
            near = [folded[name] for name in difflib.get_close_matches(text.casefold(), folded, 1, 0.6)]
        if near:
            said.append(f"No tile has {text!r} as {where.column}; did you mean {near[0]!r}?")
    return said
