"""The filter language against a reader of its own: plain Python over rows, with SQL's third truth value."""

import contextlib
import operator
import time
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csmae_hf.search.filter_language import FilterError, mask_of, parse_filter, unknown_values
from csmae_hf.search.milvus_filter import milvus_of

SCHEMA = pa.schema(
    [
        ("country", pa.string()),
        ("season", pa.string()),
        ("elevation", pa.float64()),
        ("orbit", pa.int16()),
        ("snow", pa.bool_()),
        ("date_s2", pa.timestamp("s")),
        ("labels", pa.list_(pa.string())),
        ("cloud cover", pa.int64()),
        ("bounds", pa.struct([("left", pa.float64())])),
    ]
)
ROWS = [
    ("Austria", "Summer", 512.5, 22, False, datetime(2017, 6, 13, 10, 10, 31), ["Pastures", "Arable land"], 3),
    ("Austria", "Winter", 80.0, 122, True, datetime(2018, 1, 2), ["Pastures"], 0),
    ("Finland", "Summer", -1.0, 22, None, datetime(2018, 5, 31, 23, 59, 59), [], 10),
    (None, None, None, None, None, None, None, None),
    ('O\'Brien "x" \\', "Summer", 0.5, -3, True, datetime(2017, 12, 31), ["Marine waters"], 7),
]
TABLE = pa.table(
    {
        field.name: pa.array([None] * 5 if place >= 8 else [row[place] for row in ROWS], field.type)
        for place, field in enumerate(SCHEMA)
    },
    schema=SCHEMA,
)


def kept(text):
    return np.flatnonzero(mask_of(parse_filter(text, SCHEMA), TABLE)).tolist()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("country = 'Austria' and season = 'Summer'", [0]),
        ("COUNTRY = 'x' or country == \"Austria\"", None),
        ('"country" == "Austria"', [0, 1]),
        ("country != 'Austria'", [2, 4]),
        ("country <> 'Austria'", [2, 4]),
        ("not country = 'Austria'", [2, 4]),
        ("NOT (country = 'Austria' OR snow = true)", []),
        ("not (country = 'Austria' and season = 'Summer')", [1, 2, 4]),
        ("country in ('Austria', 'Finland')", [0, 1, 2]),
        ("country not in ['Austria', 'Finland']", [4]),
        ("country = 'O''Brien \"x\" \\'", [4]),
        ("elevation >= 0.5", [0, 1, 4]),
        ("elevation < -.5e0", [2]),
        ("orbit in (22, -3.0)", [0, 2, 4]),
        ("orbit = 22.5", []),
        ("orbit < 1000000", [0, 1, 2, 4]),
        ("snow = TRUE", [1, 4]),
        ("snow != true", [0]),
        ("date_s2 >= '2018-01-01'", [1, 2]),
        ("date_s2 < '2017-06-13T10:10:31.5' and date_s2 > '2017-06-13T12:10:30+02:00'", [0]),
        ("date_s2 in ('2018-01-02')", [1]),
        ("labels = 'Pastures'", [0, 1]),
        ("labels in ('Pastures', 'Marine waters')", [0, 1, 4]),
        ("labels != 'Pastures'", [2, 4]),
        ("labels not in ('Pastures', 'Marine waters')", [2]),
        ("country = 'Finland' or country = 'Austria' and season = 'Winter'", [1, 2]),
        ("(country = 'Finland' or country = 'Austria') and season = 'Winter'", [1]),
        ('"cloud cover" > 5', [2, 4]),
        ("country > 'B'", [2, 4]),
    ],
)
def test_keeps_the_rows_that_fulfil_it(text, rows):
    if rows is None:
        with pytest.raises(FilterError, match="no column 'COUNTRY'; did you mean country"):
            kept(text)
    else:
        assert kept(text) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the filter is empty"),
        ("contry = 'Austria'", r"no column 'contry'; did you mean country\? \(columns: country, season"),
        ("bounds = 1", "bounds holds struct<left: double>, which is compared with nothing but `is null`"),
        ("country = Austria", r"country is compared with 'text', not with Austria, at the mark: country = ▶Austria"),
        ("country = 5", "compared with 'text'"),
        ("orbit = '5'", "compared with a number"),
        ("orbit = 1e999", "too large"),
        ("orbit = 5x", "means nothing"),
        ("snow = 1", "true or false"),
        ("snow < true", "has no order"),
        ("labels >= 'A'", "has no order"),
        ("date_s2 > 'June'", "ISO 8601"),
        ("country = 'Austria", "a quote that is not closed, at the mark: country = ▶'Austria"),
        ("country = 'a' country = 'b'", "expected `and`, `or` or the end"),
        ("country in 'a'", "list of values"),
        ("country in ('a'", r"expected , or \)"),
        ("(country = 'a'", r"expected \)"),
        ("country like 'a'", "expected a comparison"),
        ("country", "expected a comparison"),
        ("and", "name of a column"),
        ("country = 'a'; drop table", "';' means nothing here"),
        ("__import__('os')", "no column '__import__'"),
        ("not " * 200 + "snow = true", "more than 50 levels"),
        ("country = '" + "a" * 200_000 + "'", "200012 characters"),
    ],
)
def test_says_what_is_wrong_and_where(text, message):
    with pytest.raises(FilterError, match=message):
        kept(text)


values = {
    "country": st.sampled_from(["Austria", "Finland", "it's", 'say "x"', "back\\slash", "ünï", ""]),
    "orbit": st.integers(-3, 3),
    "elevation": st.sampled_from([-1.5, 0.0, 2.0, 1e10]),
    "snow": st.booleans(),
    "date_s2": st.sampled_from([date(2017, 1, 1), date(2018, 6, 3), date(2020, 2, 29)]),
    "labels": st.sampled_from(["a", "b", "c d"]),
}
ORDERED = {"country", "orbit", "elevation", "date_s2"}
SIGNS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def literal(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date):
        return f"'{value.isoformat()}'"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


@st.composite
def conditions(draw):
    """A condition as text, and as a function of a row that gives True, False, or None for unknown."""
    name = draw(st.sampled_from(sorted(values)))
    sign = draw(st.sampled_from(["in", "not in", "=", "!=", *(["<", "<=", ">", ">="] if name in ORDERED else [])]))
    wanted = draw(st.lists(values[name], min_size=1, max_size=3 if "in" in sign else 1))
    text = f"({', '.join(map(literal, wanted))})" if "in" in sign else literal(wanted[0])

    def holds(row):
        held = row[name]
        if held is None:
            return None
        if "in" in sign or name == "labels":
            found = any((value in held) if name == "labels" else value == held for value in wanted)
            return found != (sign in ("not in", "!="))
        return SIGNS[sign](held, wanted[0])

    return f"{name} {sign} {text}", holds


def negate(part):
    def holds(row):
        value = part[1](row)
        return None if value is None else not value

    return f"not ({part[0]})", holds


def join(parts):
    word, first, second = parts

    def holds(row):
        found = {first[1](row), second[1](row)}
        decisive = word == "or"
        return decisive if decisive in found else None if None in found else not decisive

    return f"({first[0]}) {word} ({second[0]})", holds


filters = st.recursive(
    conditions(),
    lambda inner: st.one_of(inner.map(negate), st.tuples(st.sampled_from(["and", "or"]), inner, inner).map(join)),
    max_leaves=6,
)
rows = st.fixed_dictionaries(
    {name: st.none() | (st.lists(value, max_size=2) if name == "labels" else value) for name, value in values.items()}
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tree=filters, table=st.lists(rows, max_size=6))
def test_means_what_three_valued_logic_means(tree, table):
    schema = pa.schema([(field.name, field.type) for field in SCHEMA if field.name in values])
    asked = {
        row: {
            name: datetime.combine(value, datetime.min.time()) if isinstance(value, date) else value
            for name, value in row_values.items()
        }
        for row, row_values in enumerate(table)
    }
    found = mask_of(parse_filter(tree[0], schema), pa.Table.from_pylist(list(asked.values()), schema=schema))
    assert found.tolist() == [tree[1](row) is True for row in table]


def test_dates_of_any_kind_and_time_zone_are_compared():
    for kind in (pa.date32(), pa.timestamp("ms"), pa.timestamp("us", tz="UTC")):
        moment = date(2017, 6, 13) if kind == pa.date32() else datetime(2017, 6, 13, tzinfo=UTC if kind.tz else None)
        table = pa.table({"day": pa.array([moment, None], kind)})
        for text, wanted in [
            ("day = '2017-06-13'", True),
            ("day > '2017-06-13'", False),
            ("day in ('2017-06-13')", True),
        ]:
            assert mask_of(parse_filter(text, table.schema), table).tolist() == [wanted, False], (kind, text)


def test_an_expression_of_milvus_holds_nothing_of_the_user_but_constants():
    names = {name: f"c{place}" for place, name in enumerate(SCHEMA.names)}
    where = parse_filter(
        "country = 'x\" or c3 > 0 //' and not (date_s2 >= '1970-01-02' or labels in ('a', 'b\n'))", SCHEMA
    )
    assert milvus_of(where, names, SCHEMA) == (
        '(c0_known == true and (c0 == "x\\" or c3 > 0 //")) and ((c5_known == true and c5 < 86400) and '
        '(c6_known == true and not (array_contains(c6, "a") or array_contains(c6, "b\\n"))))'
    )


WHOLE = 2**53


@pytest.mark.parametrize(
    ("values", "kind", "condition", "kept"),
    [
        ([0.5, 1.5, None], pa.float16(), "x < 1", [0]),
        ([0.5, 1.5, None], pa.float16(), "x in (1.5, 7)", [1]),
        ([0.5, 1.5, None], pa.float16(), "x != 0.5", [1]),
        ([WHOLE, WHOLE + 1, None], pa.int64(), f"x = {WHOLE + 1}", [1]),
        ([WHOLE, WHOLE + 1, None], pa.int64(), f"x > {WHOLE}.5", [1]),  # which is 2^53 as a float
        ([WHOLE, WHOLE + 1, None], pa.int64(), "x < 1e300", [0, 1]),
        ([WHOLE, WHOLE + 1, None], pa.int64(), "x >= -99999999999999999999", [0, 1]),
        ([3, 2**64 - 1, None], pa.uint64(), f"x = {2**64 - 1}", [1]),
        ([3, 2**64 - 1, None], pa.uint64(), "x > -1", [0, 1]),
        ([3, 2**64 - 1, None], pa.uint64(), "x != -1", [0, 1]),
        ([3, 2**64 - 1, None], pa.uint64(), f"x in (2.5, {2**65}, 3)", [0]),
        ([3, 200, None], pa.uint8(), "x <= 300", [0, 1]),
        ([-3, 100, None], pa.int8(), "not x < 128", []),
        ([float(WHOLE), WHOLE + 2.0], pa.float64(), f"x = {WHOLE + 1}", []),
        ([float(WHOLE), WHOLE + 2.0], pa.float64(), f"x < {WHOLE + 1}", [0]),
        ([float(WHOLE), WHOLE + 2.0], pa.float64(), f"x >= {WHOLE + 1}", [1]),
    ],
)
def test_numbers_of_every_width_compare_as_numbers_do(
    values: list[Any], kind: pa.DataType, condition: str, kept: list[int]
) -> None:
    if kind == pa.float16():
        values = [None if value is None else np.float16(value) for value in values]
    table = pa.table({"x": pa.array(values, kind)})
    assert np.flatnonzero(mask_of(parse_filter(condition, table.schema), table)).tolist() == kept


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("place = 'PORTO'", ["No tile has 'PORTO' as place; did you mean 'Porto'?"]),
        ("place in ('Porto', 'Lisbn')", ["No tile has 'Lisbn' as place; did you mean 'Lisbon'?"]),
        (
            "not place = 'lisbon' or kinds = 'sea'",
            [
                "No tile has 'lisbon' as place; did you mean 'Lisbon'?",
                "No tile has 'sea' as kinds; did you mean 'Sea'?",
            ],
        ),
        ("place = 'Reykjavik'", []),
        ("place = 'Porto' and kinds = 'Sea'", []),
    ],
)
def test_a_text_that_no_tile_has_is_said_with_the_nearest(condition: str, said: list[str]) -> None:
    table = pa.table({"place": ["Porto", "Lisbon", None], "kinds": [["Sea"], ["City", "Sea"], None]})
    assert unknown_values(parse_filter(condition, table.schema), table) == said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1" * 90_000 + "x", 1),
        ("'" * 99_999, 1),
        ("n = 1 or " * 10_000 + "n = 1", 1),
        ("n in (" + "1," * 40_000 + "1)", 5),
        ("(" * 99_999, 5),
        ("n = 1e-999999999", 1),
    ],
)
def test_reading_takes_time_that_grows_with_the_text_alone(text, seconds):
    started = time.process_time()
    with contextlib.suppress(FilterError):
        parse_filter(text, pa.schema([("n", pa.int64())]))
    assert time.process_time() - started < seconds


def test_conditions_are_bounded():
    with pytest.raises(FilterError, match=r"more than 500 conditions; many values of one column go into `in \(...\)`"):
        parse_filter("n = 1 or " * 500 + "n = 1", pa.schema([("n", pa.int64())]))


def test_a_day_is_whole_in_every_unit_and_zone_and_fractions_count_to_the_last_digit():
    begins = 1_504_137_600  # 2017-08-31, UTC
    table = pa.table(
        {
            "ns": pa.array([begins * 10**9 - 1, begins * 10**9, begins * 10**9 + 123_456_789], pa.timestamp("ns")),
            "berlin": pa.array([begins - 7201, begins - 7200, begins + 79_199], pa.timestamp("s", "Europe/Berlin")),
        }
    )
    for text, rows in [
        ("ns = '2017-08-31'", [1, 2]),
        ("ns < '2017-08-31'", [0]),
        ("ns > '2017-08-30' and ns <= '2017-08-31'", [1, 2]),
        ("ns = '2017-08-31T00:00:00.123456789'", [2]),
        ("ns > '2017-08-31T00:00:00.123456788999'", [2]),
        ("ns in ('2017-08-31', '2017-08-31T00:00')", [1, 2]),
        ("berlin = '2017-08-31'", [1, 2]),
        ("berlin < '2017-08-31'", [0]),
        ("berlin >= '2017-08-30T22:00Z'", [1, 2]),
        ("berlin between '2017-08-31' and '2017-08-31'", [1, 2]),
    ]:
        assert np.flatnonzero(mask_of(parse_filter(text, table.schema), table)).tolist() == rows, text
