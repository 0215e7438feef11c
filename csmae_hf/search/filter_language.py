"""The filter language of an archive: `country = 'Austria' and season in ('Summer', 'Fall') and not date_s2 < '2018-01-01'`.

    filter     = condition, joined by `and` and `or`, negated by `not`, grouped by ( )
    condition  = column operator value  |  column [not] in (value, ...)
    operator   = or ==, != or <>, <, <=, >, >=
    column     = a declared column; "quoted" where its name is no plain word
    value      = 'text' (a quote inside is doubled) | number | true | false | 'ISO date or time'

`and` binds more than `or`, `not` more than `and`. A column of lists, such as `labels`, equals a value where the list holds it. A value
that is not known fulfils no condition and no negation of one, as in SQL: `country != 'Austria'` leaves out tiles without a country.

A filter is parsed into conditions with all negations pushed into them, typed by the columns, and only then turned into a mask of an
Arrow table or into an expression of Milvus; no text of a user reaches either but as a typed constant.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Value = str | int | float | bool | datetime
Kind = Literal["text", "number", "truth", "time"]

MAX_LENGTH = 100_000
MAX_DEPTH = 50
_MOST_COMPARED = 1000  # so many values of a column are compared with one that it has not, by how they are spelt

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")*")
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))|(?P<word>[^\W\d]\w*)|(?P<sign><=|>=|==|!=|<>|[=<>(),\[\]])
    |(?P<stranger>\S)""",
    re.VERBOSE,
)
_SYNONYMS = {"==": "=", "<>": "!="}
_NEGATED = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "in": "not in", "not in": "in"}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_TYPES: dict[Kind, tuple[Callable[[pa.DataType], bool], ...]] = {
    "text": (pa.types.is_string, pa.types.is_large_string),
    "truth": (pa.types.is_boolean,),
    "number": (pa.types.is_integer, pa.types.is_floating),
    "time": (pa.types.is_timestamp, pa.types.is_date),
}
_EXPECTED: dict[Kind, str] = {
    "text": "'text'",
    "number": "a number",
    "truth": "true or false",
    "time": "'a date', such as '2017-06-13'",
}
_MILVUS_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


class FilterError(ValueError):
    """A filter that cannot be understood, or that does not fit the columns; the message shows where."""


class Column(NamedTuple):
    """What a filter may ask of a column; `many` where it holds lists."""

    kind: Kind
    many: bool


@dataclass(frozen=True)
class Condition:
    """A column compared (=, !=, <, <=, >, >=, in, not in) with constants of its type; with one but for `in`."""

    column: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Joined:
    """Two or more conditions joined by one word."""

    word: Literal["and", "or"]
    parts: tuple["Where", ...]


Where = Condition | Joined


def columns_of(schema: pa.Schema) -> dict[str, Column]:
    """The columns of a table that filters may use: text, numbers, truth values, dates and times, and lists of them."""
    found = {}
    for field in schema:
        many = _is_list(field.type)
        held = field.type.value_type if many else field.type
        kind = next((kind for kind, tests in _TYPES.items() if any(test(held) for test in tests)), None)
        if kind is not None:
            found[field.name] = Column(kind, many)
    return found


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def parse_filter(text: str, schema: pa.Schema) -> Where:
    """Read a filter in the language of this module, of a table of this schema.

    Raises:
        FilterError: If the text is no filter, a column is unknown (the nearest name is given), or a value does not fit its column.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(f"The filter has {len(text)} characters; the most are {MAX_LENGTH}.")
    return _Parser(text, columns_of(schema)).parse()


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


class _Parser:
    """Recursive descent; `negated` travels down, so that the tree holds no negation."""

    def __init__(self, text: str, columns: Mapping[str, Column]):
        self.text, self.columns, self.place, self.depth = text, columns, 0, 0
        self.tokens = [_Token(str(match.lastgroup), match[0], match.start()) for match in _TOKEN.finditer(text)]
        self.tokens.append(_Token("end", "", len(text)))
        for token in self.tokens:
            if token.kind == "stranger":
                unclosed = token.text in "'\""
                self._refuse("a quote that is not closed" if unclosed else f"{token.text!r} means nothing here", token)

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
        if self._take("not"):
            tree = self._one(not negated)
        elif self._take("("):
            tree = self._joined("or", negated)
            if not self._take(")"):
                self._refuse("expected )")
        else:
            tree = self._condition(negated)
        self.depth -= 1
        return tree

    def _condition(self, negated: bool) -> Condition:
        name = self._column()
        column = self.columns[name]
        token = self._next()
        operator = _SYNONYMS.get(token.text, token.text).lower()
        if operator == "not" and self._take("in"):
            operator = "not in"
        if token.kind not in ("sign", "word") or operator not in _NEGATED:
            self._refuse(f"expected a comparison (=, !=, <, <=, >, >=, in) after {name}", token)
        if operator[0] in "<>" and (column.many or column.kind == "truth"):
            self._refuse(f"{name} has no order; compare it with =, != or in", token)
        listed = operator in ("in", "not in")
        if listed and not self._take("(", "["):
            self._refuse("expected ( and a list of values after `in`")
        values = [self._value(name, column.kind)]
        while listed and self._take(","):
            values.append(self._value(name, column.kind))
        if listed and not self._take(")", "]"):
            self._refuse("expected , or )")
        return Condition(name, _NEGATED[operator] if negated else operator, tuple(values))

    def _column(self) -> str:
        token = self._next()
        name = token.text
        if token.kind == "quoted":
            name = name[1:-1].replace('""', '"')
        elif token.kind != "word" or name.lower() in ("and", "or", "in", "not"):
            self._refuse("expected the name of a column", token)
        if name not in self.columns:
            near = difflib.get_close_matches(name.lower(), [known.lower() for known in self.columns], 1, 0.5)
            hint = next((f"; did you mean {real}?" for real in self.columns if real.lower() in near), "")
            raise FilterError(f"Filter: no column {name!r}{hint} (columns: {', '.join(self.columns) or 'none'})")
        return name

    def _value(self, name: str, kind: Kind) -> Value:
        token = self._next()
        if token.kind in ("text", "quoted") and kind in ("text", "time"):
            quote = token.text[0]
            text = token.text[1:-1].replace(quote * 2, quote)
            if kind == "text":
                return text
            try:
                time = datetime.fromisoformat(text)
            except ValueError:
                self._refuse("expected a date as of ISO 8601, such as '2017-06-13' or '2017-06-13T10:10:31'", token)
            return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
        if token.kind == "number" and kind == "number":
            number = int(token.text) if re.fullmatch(r"[+-]?\d{1,300}", token.text) else float(token.text)
            return number if math.isfinite(number) else self._refuse("a number that is too large", token)
        if token.kind == "word" and kind == "truth" and token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        self._refuse(f"{name} is compared with {_EXPECTED[kind]}, not with {token.text or 'nothing'}", token)


def mask_of(where: Where, table: pa.Table) -> NDArray[np.bool_]:
    """Which rows of a table a filter keeps: (N,) true where it is fulfilled."""
    if isinstance(where, Joined):
        joint = np.logical_and if where.word == "and" else np.logical_or
        return joint.reduce([mask_of(part, table) for part in where.parts])
    column = table.column(where.column).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # older pyarrow, or no rows
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not _is_list(column.type):
        return _matches(column, where.operator, where.values)
    held = _matches(pc.list_flatten(column), "in", where.values)
    holds = np.zeros(len(column), dtype=bool)
    holds[np.asarray(pc.list_parent_indices(column))[held]] = True
    return holds if where.operator in ("=", "in") else ~holds & np.asarray(column.is_valid())


def _matches(column: pa.Array, operator: str, values: Sequence[Value]) -> NDArray[np.bool_]:
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())  # of which pyarrow compares, and which holds the same numbers
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        operator, values, decided = _in_type(operator, values, column.type)
        if decided is not None:
            return np.asarray(column.is_valid(), dtype=bool) & decided
    constants = _constants(values, column.type)
    if operator in _COMPARE:
        return np.asarray(pc.fill_null(_COMPARE[operator](column, constants[0]), False), dtype=bool)
    found = np.asarray(pc.is_in(column.cast(constants.type), value_set=constants), dtype=bool)
    return found if operator == "in" else ~found & np.asarray(column.is_valid())


def _in_type(
    operator: str, values: Sequence[Any], kind: pa.DataType
) -> tuple[str, tuple[int | float, ...], bool | None]:
    """The same condition with constants that a column of numbers can hold; and its value, where it is the same for all of these."""
    if pa.types.is_integer(kind):
        operator, values = _with_whole_numbers(operator, values)
        signed = pa.types.is_signed_integer(kind)
        least = -(1 << (kind.bit_width - 1)) if signed else 0
        most = (1 << (kind.bit_width - signed)) - 1
        if operator[0] in "<>" and not least <= values[0] <= most:
            return operator, (), (values[0] > most) == (operator[0] == "<")
        kept: tuple[int | float, ...] = tuple(value for value in values if least <= value <= most)
    elif operator[0] in "<>":
        bound = float(values[0])
        if bound != values[0]:  # a whole number between two of the column's, of which this is one
            operator = operator[0] if (bound > values[0]) == (operator[0] == "<") else f"{operator[0]}="
        kept = (bound,)
    else:
        kept = tuple(float(value) for value in values if float(value) == value)
        operator = {"=": "in", "!=": "not in"}.get(operator, operator)
    return operator, kept, None if kept else operator == "not in"


def unknown_values(where: Where, table: pa.Table) -> list[str]:
    """Say of each text that a filter asks for, and that its column has nowhere but for its spelling, which one may have been meant."""
    if isinstance(where, Joined):
        return list(dict.fromkeys(said for part in where.parts for said in unknown_values(part, table)))
    column = table.column(where.column)
    texts = [value for value in where.values if isinstance(value, str)]
    if where.operator[0] in "<>" or not texts or not table.num_rows:
        return []
    held = pc.list_flatten(column) if _is_list(column.type) else column
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


def _constants(values: Sequence[Value], kind: pa.DataType) -> pa.Array:
    """Constants in a type in which comparing them with a column of a kind changes neither."""
    if isinstance(values[0], datetime):
        return pa.array(values, pa.timestamp("us", tz=getattr(kind, "tz", None)))
    if pa.types.is_floating(kind):
        return pa.array(values, pa.float64())
    return pa.array(values, kind)


def milvus_of(where: Where, names: Mapping[str, str], schema: pa.Schema) -> str:
    """Write a filter of a table of this schema as an expression of Milvus, whose constants are typed and escaped.

    `names` are Milvus' fields by column; beside each a truth field of the same name and `_known` says whether the value is known.
    """
    if isinstance(where, Joined):
        return f" {where.word} ".join(f"({milvus_of(part, names, schema)})" for part in where.parts)
    field, kind = names[where.column], schema.field(where.column).type
    known = f"{field}_known == true"
    operator, values = (
        _with_whole_numbers(where.operator, where.values)
        if pa.types.is_integer(kind)
        else (where.operator, where.values)
    )
    constants = [_milvus_constant(value) for value in values]
    if _is_list(kind):
        held = " or ".join(f"array_contains({field}, {constant})" for constant in constants)
        return f"{known} and not ({held})" if operator in ("!=", "not in") else f"{known} and ({held})"
    if operator in ("in", "not in"):
        if not constants:
            return known if operator == "not in" else f"{known} and {field}_known == false"
        if any(isinstance(value, float) for value in values):  # a list of Milvus has one type
            constants = [repr(float(value)) for value in values]  # type: ignore[arg-type]
        return f"{known} and {field} {operator} [{', '.join(constants)}]"
    return f"{known} and {field} {'==' if operator == '=' else operator} {constants[0]}"


def _with_whole_numbers(operator: str, numbers: Sequence[Any]) -> tuple[str, tuple[int, ...]]:
    """Operator and constants of the same condition on a column of whole numbers."""
    if operator[0] not in "<>":  # a fraction equals none of them
        whole = tuple(int(number) for number in numbers if number == int(number))
        return {"=": "in", "!=": "not in"}.get(operator, operator), whole
    if numbers[0] == int(numbers[0]):
        return operator, (int(numbers[0]),)
    return ("<=", (math.floor(numbers[0]),)) if operator[0] == "<" else (">=", (math.ceil(numbers[0]),))


def milvus_time(value: date) -> int:
    """Give a date or time as Milvus stores it: microseconds since 1970 (UTC)."""
    time = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    span = (time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time) - datetime(1970, 1, 1)
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def _milvus_constant(value: Value) -> str:
    if isinstance(value, datetime):
        return str(milvus_time(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return '"' + value.translate(_MILVUS_ESCAPES) + '"' if isinstance(value, str) else repr(value)
