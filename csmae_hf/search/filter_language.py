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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Value = str | int | float | bool | datetime
Kind = Literal["text", "number", "truth", "time"]

MAX_LENGTH = 100_000
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")*")
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))|(?P<word>[^\W\d]\w*)|(?P<sign><=|>=|==|!=|<>|[=<>(),\[\]]))""",
    re.VERBOSE,
)
_NEGATED = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "in": "not in", "not in": "in"}
_MILVUS_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
_SYNONYMS = {"==": "=", "<>": "!="}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


class FilterError(ValueError):
    """A filter that cannot be understood, or that does not fit the columns; the message shows where."""


class Column(NamedTuple):
    """What a filter may ask of a column."""

    kind: Kind
    many: bool


@dataclass(frozen=True)
class Condition:
    """A column compared with constants.

    Attributes:
        column: Its name.
        operator: One of =, !=, <, <=, >, >=, in, not in.
        values: The constants, typed as the column; one but for `in`.
    """

    column: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Joined:
    """Conditions joined by one word.

    Attributes:
        word: "and" or "or".
        parts: Two or more.
    """

    word: Literal["and", "or"]
    parts: tuple["Where", ...]


Where = Condition | Joined


def columns_of(schema: pa.Schema) -> dict[str, Column]:
    """Find the columns that filters may use.

    Args:
        schema: Of a table.

    Returns:
        Kind by name, for columns of text, numbers, truth values, dates and times, and for lists of them.
    """
    found: dict[str, Column] = {}
    for field in schema:
        many = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        kind = _kind_of(field.type.value_type if many else field.type)
        if kind is not None:
            found[field.name] = Column(kind, many)
    return found


def _kind_of(kind: pa.DataType) -> Kind | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "truth"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return "time" if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else None


def parse_filter(text: str, schema: pa.Schema) -> Where:
    """Read a filter.

    Args:
        text: In the language of this module.
        schema: Of the table that it will be asked of.

    Returns:
        The conditions, negations resolved.

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
        self.text = text
        self.columns = columns
        self.tokens = list(self._tokens())
        self.place = 0
        self.depth = 0

    def parse(self) -> Where:
        if self._peek().kind == "end":
            self._refuse("expected a condition, such as country = 'Austria'; the filter is empty")
        tree = self._any_of(False)
        if self._peek().kind != "end":
            self._refuse("expected `and`, `or` or the end")
        return tree

    def _tokens(self) -> Iterable[_Token]:
        place, end = 0, len(self.text.rstrip())
        while place < end:
            match = _TOKEN.match(self.text, place)
            if match is None or match.lastgroup is None:
                start = place + len(self.text[place:]) - len(self.text[place:].lstrip())
                unclosed = self.text[start] in "'\""
                raise FilterError(
                    self._show(
                        start, "a quote that is not closed" if unclosed else f"{self.text[start]!r} means nothing here"
                    )
                )
            yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
            place = match.end()
        yield _Token("end", "", len(self.text))

    def _show(self, place: int, message: str) -> str:
        before, after = self.text[max(place - 60, 0) : place], self.text[place : place + 30]
        return f"Filter: {message}, at the mark: {before}\N{BLACK RIGHT-POINTING TRIANGLE}{after}"

    def _refuse(self, message: str, token: _Token | None = None) -> NoReturn:
        raise FilterError(self._show((token or self._peek()).start, message))

    def _peek(self) -> _Token:
        return self.tokens[self.place]

    def _next(self) -> _Token:
        token = self.tokens[self.place]
        self.place += token.kind != "end"
        return token

    def _take(self, *texts: str) -> bool:
        token = self._peek()
        found = token.kind in ("word", "sign") and token.text.lower() in texts
        self.place += found
        return found

    def _any_of(self, negated: bool) -> Where:
        return self._joined("or", self._all_of, negated)

    def _all_of(self, negated: bool) -> Where:
        return self._joined("and", self._one, negated)

    def _joined(self, word: Literal["and", "or"], part: Callable[[bool], Where], negated: bool) -> Where:
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
            tree = self._any_of(negated)
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
        if operator in ("in", "not in"):
            values = self._values(name, column)
        else:
            if operator in ("<", "<=", ">", ">=") and (column.many or column.kind == "truth"):
                self._refuse(f"{name} has no order; compare it with =, != or in", token)
            values = (self._value(name, column),)
        return Condition(name, _NEGATED[operator] if negated else operator, values)

    def _column(self) -> str:
        token = self._next()
        if token.kind == "quoted":
            name = token.text[1:-1].replace('""', '"')
        elif token.kind == "word" and token.text.lower() not in ("and", "or", "in", "not"):
            name = token.text
        else:
            self._refuse("expected the name of a column", token)
        if name not in self.columns:
            near = difflib.get_close_matches(name.lower(), [known.lower() for known in self.columns], 1, 0.5)
            known = ", ".join(self.columns) or "none"
            hint = next((f"; did you mean {real}?" for real in self.columns if near and real.lower() == near[0]), "")
            raise FilterError(f"Filter: no column {name!r}{hint} (columns: {known})")
        return name

    def _values(self, name: str, column: Column) -> tuple[Value, ...]:
        if not self._take("(", "["):
            self._refuse("expected ( and a list of values after `in`")
        values = [self._value(name, column)]
        while self._take(","):
            values.append(self._value(name, column))
        if not self._take(")", "]"):
            self._refuse("expected , or )")
        return tuple(values)

    def _value(self, name: str, column: Column) -> Value:
        token = self._next()
        wanted = {
            "text": "'text'",
            "number": "a number",
            "truth": "true or false",
            "time": "'a date', such as '2017-06-13'",
        }
        if token.kind in ("text", "quoted") and column.kind in ("text", "time"):
            quote = token.text[0]
            text = token.text[1:-1].replace(quote * 2, quote)
            return text if column.kind == "text" else self._time(text, token)
        if token.kind == "number" and column.kind == "number":
            number = int(token.text) if re.fullmatch(r"[+-]?\d{1,18}", token.text) else float(token.text)
            return number if abs(number) < float("inf") else self._refuse("a number that is too large", token)
        if token.kind == "word" and column.kind == "truth" and token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        self._refuse(f"{name} is compared with {wanted[column.kind]}, not with {token.text or 'nothing'}", token)

    def _time(self, text: str, token: _Token) -> datetime:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            self._refuse("expected a date as of ISO 8601, such as '2017-06-13' or '2017-06-13T10:10:31'", token)
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def columns_in(where: Where) -> list[str]:
    """Name the columns that a filter looks at.

    Args:
        where: The filter.

    Returns:
        Each once, in order.
    """
    if isinstance(where, Condition):
        return [where.column]
    return list(dict.fromkeys(name for part in where.parts for name in columns_in(part)))


def mask_of(where: Where, table: pa.Table) -> NDArray[np.bool_]:
    """Say which rows of a table a filter keeps.

    Args:
        where: The filter.
        table: With the columns that it looks at.

    Returns:
        (N,) true where the filter is fulfilled.
    """
    if isinstance(where, Joined):
        joint = np.logical_and if where.word == "and" else np.logical_or
        return joint.reduce([mask_of(part, table) for part in where.parts])
    column = table.column(where.column).combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # older pyarrow, or no rows
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return _known(_matches(column, where.operator, where.values))
    operator = {"=": "in", "!=": "not in"}.get(where.operator, where.operator)
    held = _known(_matches(pc.list_flatten(column), "in", where.values))
    holds = np.zeros(len(column), dtype=bool)
    holds[np.asarray(pc.list_parent_indices(column))[held]] = True
    return holds if operator == "in" else ~holds & np.asarray(column.is_valid())


def _matches(column: pa.Array, operator: str, values: Sequence[Value]) -> pa.Array:
    if operator in _COMPARE:
        return _COMPARE[operator](column, _scalar(values[0], column.type))
    kinds = {scalar.type for scalar in (_scalar(value, column.type) for value in values)}
    kind = column.type if kinds == {column.type} else next(iter(kinds - {column.type}))
    found = pc.is_in(column.cast(kind), value_set=pa.array([_plain(value, kind) for value in values], kind))
    return pc.if_else(column.is_valid(), found if operator == "in" else pc.invert(found), None)


def _scalar(value: Value, kind: pa.DataType) -> pa.Scalar:
    """A constant in a type in which comparing with the column changes neither."""
    if isinstance(value, datetime):
        return pa.scalar(value, pa.timestamp("us", tz=getattr(kind, "tz", None)))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (
            pa.scalar(float(value))
            if isinstance(value, float) or pa.types.is_floating(kind)
            else pa.scalar(value, pa.int64())
        )
    return pa.scalar(value, kind)


def _plain(value: Value, kind: pa.DataType) -> Value:
    return float(value) if pa.types.is_floating(kind) and not isinstance(value, (str, datetime)) else value


def _known(found: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)


def milvus_of(where: Where, names: Mapping[str, str], schema: pa.Schema) -> str:
    """Write a filter as an expression of Milvus.

    Args:
        where: The filter.
        names: Milvus field by column. Beside it a truth field of the same name and `_known` says whether the value is known.
        schema: Of the table.

    Returns:
        The expression. Its field names are those of `names`, its constants are typed and escaped.
    """
    if isinstance(where, Joined):
        return f" {where.word} ".join(f"({milvus_of(part, names, schema)})" for part in where.parts)
    field, kind = names[where.column], schema.field(where.column).type
    known = f"{field}_known == true"
    if pa.types.is_integer(kind):
        where = _with_whole_numbers(where)
    constants = [_milvus_constant(value) for value in where.values]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        held = " or ".join(f"array_contains({field}, {constant})" for constant in constants)
        return f"{known} and not ({held})" if where.operator in ("!=", "not in") else f"{known} and ({held})"
    if where.operator in ("in", "not in"):
        if not constants:
            return known if where.operator == "not in" else f"{known} and {field}_known == false"
        if any(isinstance(value, float) for value in where.values):  # a list of Milvus has one type
            constants = [repr(float(value)) for value in where.values]  # type: ignore[arg-type]
        return f"{known} and {field} {where.operator} [{', '.join(constants)}]"
    return f"{known} and {field} {'==' if where.operator == '=' else where.operator} {constants[0]}"


def _with_whole_numbers(where: Condition) -> Condition:
    """The same condition on a column of whole numbers, whose constants Milvus wants whole."""
    value = where.values[0]
    if where.operator in ("=", "!=", "in", "not in"):
        whole = tuple(int(item) for item in where.values if not isinstance(item, float) or item.is_integer())  # type: ignore[arg-type]
        return Condition(where.column, {"=": "in", "!=": "not in"}.get(where.operator, where.operator), whole)
    if not isinstance(value, float) or value.is_integer():
        return Condition(where.column, where.operator, (int(value),))  # type: ignore[arg-type]
    if where.operator.startswith("<"):
        return Condition(where.column, "<=", (math.floor(value),))
    return Condition(where.column, ">=", (math.ceil(value),))


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
