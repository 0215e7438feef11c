"""Filters at random over columns of every type, against pandas and plain Python that share no line with the language.

`CSMAE_RANDOM_FILTERS=10000 pytest tests/search/test_filters_at_random.py` tries so many.
"""

import os
import random
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from csmae_hf.search.filter_language import mask_of, parse_filter
from csmae_hf.search.milvus_filter import milvus_of
from csmae_hf.search.milvus_index import MilvusIndex
from csmae_hf.search.values import columns_of
from csmae_hf.search.vectors import Vectors

TRIALS = int(os.environ.get("CSMAE_RANDOM_FILTERS", "400"))
SIGNS = ("=", "!=", "<", "<=", ">", ">=", "==", "<>")
FAR = 2**53
BERLIN, KATMANDU = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu")
NUMBERS = {
    pa.int8(): [-128, -1, 0, 3, 127],
    pa.int16(): [-5, 0, 7],
    pa.int64(): [-(2**63), 2**63 - 1, FAR, FAR + 1, FAR - 1, 0],
    pa.uint8(): [0, 3, 255],
    pa.uint64(): [0, 2**63, 2**64 - 1, FAR + 1],
    pa.float16(): [0.5, 1.5, -0.0, 0.1, 65504.0],
    pa.float32(): [0.1, 0.3, -2.5, 16777216.0, 3e38, float("inf")],
    pa.float64(): [0.1, 0.3, float(FAR), -1e300, float("-inf")],
    pa.decimal128(9, 2): [Decimal("0.10"), Decimal("-3.25"), Decimal("9999999.99")],
    pa.decimal256(40, 5): [Decimal("0.1"), Decimal("12345678901234567890.12345"), Decimal(0)],
    pa.decimal32(5, 1): [Decimal("0.1"), Decimal("-7.5")],
}
LITERALS = [
    "0",
    "-1",
    "3",
    "127",
    "128",
    "0.1",
    "0.3",
    "1.5",
    "2.5",
    "-2.5",
    "-3.25",
    "1e300",
    "-1e300",
    "65504",
    "1e-3",
    "0.10000000000000001",
]
LITERALS += [
    str(FAR),
    str(FAR + 1),
    f"{FAR}.5",
    str(2**63),
    str(2**64 - 1),
    str(2**70),
    "16777217",
    "3e38",
    "12345678901234567890.12345",
]
MOMENTS = [
    datetime(2017, 8, 31),
    datetime(2017, 8, 31, 23, 59, 59),
    datetime(2017, 9, 1),
    datetime(2017, 10, 29, 1, 30),
    datetime(1965, 2, 3, 4),
]
TEXTS = ["Austria", "austria", "it's", 'say "x"', "back\\slash", "ünï", "", "Z\U0001f600", "~"]
TIME_TYPES = [pa.date32(), pa.date64(), *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns"))]
TIME_TYPES += [
    pa.timestamp("us", "UTC"),
    pa.timestamp("s", "Europe/Berlin"),
    pa.timestamp("ms", "Asia/Kathmandu"),
    pa.timestamp("us", "+02:00"),
]


def some(rng, values, rows):
    return [None if rng.random() < 0.25 else rng.choice(values) for _ in range(rows)]


def make_table(rng, rows):
    """A table of every type, its columns by name."""
    columns = {}
    for number, (kind, values) in enumerate(NUMBERS.items()):
        held = some(rng, [*values, float("nan")] if pa.types.is_floating(kind) else values, rows)
        if kind == pa.float16():
            held = [None if value is None else np.float16(value) for value in held]
        columns[f"n{number}"] = pa.array(held, kind, from_pandas=False)
    for number, kind in enumerate(TIME_TYPES):
        held = some(rng, MOMENTS, rows)
        if pa.types.is_date(kind):
            held = [value and value.date() for value in held]
        elif kind.tz:
            held = [value and value.replace(tzinfo=UTC) for value in held]
        columns[f"t{number}"] = pa.array(held, kind)
    for number, kind in enumerate((pa.string(), pa.large_string(), pa.string_view())):
        columns[f"s{number}"] = pa.array(some(rng, TEXTS, rows), kind)
    columns["s3"] = pa.array(some(rng, TEXTS, rows), pa.string()).dictionary_encode()
    columns["s4"] = pa.nulls(rows)
    columns["b"] = pa.array(some(rng, [True, False], rows), pa.bool_())
    hours = [time(0), time(10, 10, 31), time(23, 59, 59)]
    for number, kind in enumerate((pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))):
        columns[f"h{number}"] = pa.array(some(rng, hours, rows), kind)
    for number, unit in enumerate(("s", "ms", "us", "ns")):
        columns[f"d{number}"] = pa.array(
            some(rng, [timedelta(0), timedelta(days=2), timedelta(seconds=-3)], rows), pa.duration(unit)
        )
    lists = {
        "ls": (pa.string(), TEXTS),
        "li": (pa.int64(), [1, 3, FAR + 1]),
        "lf": (pa.float32(), [0.1, float("nan"), 3.0]),
    }
    for name, (kind, values) in lists.items():
        held = [None if rng.random() < 0.2 else some(rng, values, rng.randrange(0, 3)) for _ in range(rows)]
        columns[name] = pa.array(held, rng.choice([pa.list_(kind), pa.large_list(kind)]))
    columns["lt"] = pa.array(
        [None if rng.random() < 0.2 else some(rng, MOMENTS, 2) for _ in range(rows)], pa.list_(pa.timestamp("us"), 2)
    )
    columns["box"] = pa.array([rng.choice([None, {"x": 1.0}]) for _ in range(rows)], pa.struct([("x", pa.float64())]))
    table = pa.table(columns)
    return pa.concat_tables([table, table.slice(0, rows // 2)]) if rng.random() < 0.3 else table


def literal_of(rng, name, kind):
    """A constant as text, and as what plain Python compares: a number, a text, or the first and last instant."""
    if name[0] in "nd" or name in ("li", "lf"):
        text = rng.choice(LITERALS)
        return text, text
    if name[0] in "s" or name == "ls":
        value = rng.choice(TEXTS)
        return "'" + value.replace("'", "''") + "'", value
    if name == "b":
        value = rng.random() < 0.5
        return str(value).lower(), value
    if name[0] == "h":
        value = rng.choice([time(0), time(10, 10, 31), time(10, 10, 31, 500_000), time(23)])
        return f"'{value.isoformat()}'", value
    zone = {
        None: UTC,
        "UTC": UTC,
        "Europe/Berlin": BERLIN,
        "Asia/Kathmandu": KATMANDU,
        "+02:00": datetime.fromisoformat("2000-01-01T00:00+02:00").tzinfo,
    }[getattr(kind, "tz", None)]
    moment = rng.choice(MOMENTS)
    if rng.random() < 0.6:
        day = moment.date() + timedelta(days=rng.choice([-1, 0, 0, 0, 1]))
        first = datetime.combine(day, time(), zone)
        after = datetime.combine(day + timedelta(days=1), time(), zone)
        return f"'{day}'", (first.astimezone(UTC), after.astimezone(UTC))
    moment += timedelta(microseconds=rng.choice([0, 0, 0, -1, 500_000]))
    if rng.random() < 0.5:
        aware = moment.replace(tzinfo=UTC).astimezone(KATMANDU)
        return f"'{aware.isoformat()}'", (aware, None)
    return f"'{moment.isoformat()}'", (moment.replace(tzinfo=zone).astimezone(UTC), None)


def number_in(kind, text):
    """A literal as the number that it is in a column of a type."""
    if pa.types.is_floating(kind) and not text.lstrip("-").isdigit():
        wide = float(text)
        with np.errstate(over="ignore"):
            narrow = {16: np.float16, 32: np.float32, 64: np.float64}[kind.bit_width](wide)
        return Fraction(float(narrow) if np.isfinite(narrow) else wide)
    return Fraction(text)


def order(value, constant, kind):
    """-1, 0 or 1: whether a value is less than a constant, equal to it, or greater."""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moment = value if isinstance(value, datetime) else datetime.combine(value, time())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        first, after = constant
        if after is None:
            return (moment > first) - (moment < first)
        return -1 if moment < first else 1 if moment >= after else 0
    if pa.types.is_duration(kind):
        value, constant = Fraction(value // timedelta(microseconds=1), 10**6), Fraction(constant)
    elif isinstance(constant, str) and not isinstance(value, str):
        constant = number_in(kind, constant)
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            return 1 if value > 0 else -1
        value = Fraction(value)
    return (value > constant) - (value < constant)


HOLDS = {
    "=": (0,),
    "==": (0,),
    "in": (0,),
    "!=": (-1, 1),
    "<>": (-1, 1),
    "not in": (-1, 1),
    "<": (-1,),
    "<=": (-1, 0),
    ">": (1,),
    ">=": (0, 1),
}


def unknown(value):
    return value is None or (isinstance(value, float) and value != value)


def plain_rows(column):
    """Python's values of a column; times without what it cannot hold."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz))
    if pa.types.is_duration(column.type) and column.type.unit == "ns":
        column = column.cast(pa.duration("us"))
    if column.type == pa.time64("ns"):
        column = column.cast(pa.time64("us"))
    values = column.to_pylist()
    return [float(value) if isinstance(value, np.floating) else value for value in values]


def make_condition(rng, table, rows):
    """A condition as text, and True, False or None of each row."""
    names = list(columns_of(table.schema))
    name = rng.choice([*names, "box"])
    kind = table.schema.field(name).type
    if name == "box" or rng.random() < 0.1:
        asked = rng.random() < 0.5
        return f"{name} is {'' if asked else 'not '}null", [unknown(value) == asked for value in rows[name]]
    many = name[0] == "l"
    held = kind.value_type if many or pa.types.is_dictionary(kind) else kind
    ordered = not many and name != "b"
    if ordered and rng.random() < 0.1:
        (low, least), (high, most) = literal_of(rng, name, held), literal_of(rng, name, held)
        negated = rng.random() < 0.4
        said = [
            None if unknown(value) else (order(value, least, held) >= 0 and order(value, most, held) <= 0) != negated
            for value in rows[name]
        ]
        return f"{name} {'not ' if negated else ''}between {low} and {high}", said
    sign = rng.choice([*(SIGNS if ordered else ("=", "!=")), "in", "not in"])
    wanted = [literal_of(rng, name, held) for _ in range(rng.randrange(1, 4) if "in" in sign else 1)]
    text = f"({', '.join(text for text, _ in wanted)})" if "in" in sign else wanted[0][0]

    def said(value):
        if unknown(value):
            return None
        members = [member for member in value if not unknown(member)] if many else [value]
        if many or "in" in sign:
            equal = any(order(member, constant, held) == 0 for member in members for _, constant in wanted)
            return equal == (sign in ("in", "=", "=="))
        return order(value, wanted[0][1], held) in HOLDS[sign]

    return f"{name} {sign} {text}", [said(value) for value in rows[name]]


def combine(word, first, second):
    decisive = word == "or"
    return [
        decisive if decisive in (a, b) else None if None in (a, b) else not decisive
        for a, b in zip(first, second, strict=True)
    ]


def make_filter(rng, table, rows, depth=3):
    chance = rng.random()
    if depth == 0 or chance < 0.4:
        return make_condition(rng, table, rows)
    text, said = make_filter(rng, table, rows, depth - 1)
    if chance < 0.55:
        return f"not ({text})", [None if value is None else not value for value in said]
    other, others = make_filter(rng, table, rows, depth - 1)
    word = rng.choice(["and", "or"])
    return f"({text}) {word} ({other})", combine(word, said, others)


def test_filters_at_random_mean_what_plain_python_says():
    rng = random.Random(20171)
    kept = 0
    for trial in range(TRIALS):
        if trial % 10 == 0:
            table = make_table(rng, rng.randrange(0, 9))
            rows = {name: plain_rows(table.column(name)) for name in table.column_names}
        text, said = make_filter(rng, table, rows)
        found = mask_of(parse_filter(text, table.schema), table).tolist()
        assert found == [value is True for value in said], (trial, text)
        kept += sum(found)
    assert kept > TRIALS / 4, "filters that keep nothing test little"


@pytest.mark.parametrize("seed", range(3))
def test_and_what_pandas_says(seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "whole": rng.integers(-5, 5, 200),
            "small": rng.choice([0.1, 0.2, 0.3], 200).astype(np.float32),
            "wide": np.where(rng.random(200) < 0.2, np.nan, rng.normal(size=200).round(1)),
            "day": pd.Timestamp("2017-08-30") + pd.to_timedelta(rng.integers(0, 72, 200), "h"),
            "text": rng.choice(["a", "B", "ü"], 200),
        }
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    day = frame.day.dt.normalize()
    for text, wanted in [
        ("whole >= 2 and small = 0.1", (frame.whole >= 2) & (frame.small == 0.1)),
        ("wide > 0.1 or text in ('a', 'ü')", (frame.wide > 0.1) | frame.text.isin(["a", "ü"])),
        ("not wide = 0.1", frame.wide.notna() & (frame.wide != 0.1)),
        ("wide is null and day <= '2017-08-31'", frame.wide.isna() & (day <= "2017-08-31")),
        ("day = '2017-08-31' and text >= 'B'", (day == "2017-08-31") & (frame.text >= "B")),
        ("day in ('2017-08-30', '2017-09-01T03:00')", day.eq("2017-08-30") | frame.day.eq("2017-09-01T03:00")),
        ("day not between '2017-08-31' and '2017-08-31'", day.ne("2017-08-31")),
    ]:
        np.testing.assert_array_equal(mask_of(parse_filter(text, table.schema), table), wanted, err_msg=text)


def test_milvus_answers_as_the_language_does(tmp_path):
    pytest.importorskip("pymilvus", reason="pip install pymilvus")
    pytest.importorskip("milvus_lite", reason="pip install milvus-lite")
    rng = random.Random(7)
    table = make_table(rng, 40)
    ids = [f"tile {row}" for row in range(table.num_rows)]
    table = table.append_column("id", [ids])
    rows = {name: plain_rows(table.column(name)) for name in table.column_names if name != "id"}
    vectors = torch.nn.functional.normalize(torch.randn(len(ids), 8, generator=torch.Generator().manual_seed(0)))
    index = MilvusIndex(Vectors([vectors]), table, str(tmp_path / "milvus.db"))
    asked = 0
    for _ in range(max(TRIALS // 2, 50)):
        text, said = make_filter(rng, table.drop_columns(["id"]), rows, depth=1)
        expression = milvus_of(parse_filter(text, table.schema), index.fields, table.schema)
        if expression is None:  # answered without Milvus
            continue
        found = index.client.query(index.collection, filter=expression, output_fields=["id"], limit=1000)
        wanted = {name for name, value in zip(ids, said, strict=True) if value}
        assert {str(hit["id"]) for hit in found} == wanted, (text, expression)
        asked += 1
    assert asked > 30
    index.client.close()
