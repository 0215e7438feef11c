"""Tables and JSON of what others wrote: every reader takes them, and none computes or obeys."""

import csv
import io
import json
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from csmae_hf.archive.hits import Hits, table_to_csv
from csmae_hf.commands.ending import visible
from csmae_hf.evaluation.tables import Table
from csmae_hf.plain import cell, to_json


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("http://x")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=", "-"]
)
def test_what_a_spreadsheet_would_compute_is_text(text):
    assert cell(text) == "'" + text


@pytest.mark.parametrize("value", ["-3.5", "+2", "-1e-3", -3.5, "T35VNK_12_45", "", "a=b", True, None, 7])
def test_numbers_and_plain_text_stay(value):
    assert cell(value) == value


def test_nested_values_are_one_cell():
    assert cell(["Pastures", "=A1"]) == "Pastures; =A1"
    assert cell(["=A1", "Pastures"]) == "'=A1; Pastures"
    assert json.loads(cell({"xmin": 1.0, "ymin": float("nan")})) == {"xmin": 1.0, "ymin": None}
    assert cell(Decimal("-1.50")) == "-1.50"
    assert cell(date(2017, 8, 31)) == "2017-08-31"


def test_json_has_no_number_that_json_lacks():
    value = {
        "a": [float("nan"), float("inf"), 1.5],
        "b": {"c": (-float("inf"),)},
        "d": date(2017, 8, 31),
        "e": timedelta(seconds=2),
    }
    text = to_json(value)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, None, 1.5],
        "b": {"c": [None]},
        "d": "2017-08-31",
        "e": 2.0,
    }


def make_hits():
    tiles = pa.table(
        {
            "id": ["=1+1", "b\x1b[2J"],
            "labels": pa.array([["Pastures", "-x"], None], pa.list_(pa.string())),
            "cloud": [float("nan"), 0.5],
            "=column": [1, -2],
            "box": [{"xmin": 1.0}, None],
            "price": pa.array([Decimal("1.10"), None]),
        }
    )
    options = {"query_sensor": "s1", "archive_sensor": "s2", "kept": 2, "exact": True, "backend": "exact"}
    return Hits(["@q"], np.float32([[0.9, 0.1]]), np.array([[0, 1]]), tiles, **options)


def test_hits_leave_as_csv_and_json_that_are_only_data():
    header, first, second = csv.reader(io.StringIO(make_hits().to_csv()))
    assert header == ["query", "rank", "score", "id", "labels", "cloud", "'=column", "box", "price"]
    assert first == ["'@q", "1", "0.9", "'=1+1", "Pastures; -x", "nan", "1", '{"xmin": 1.0}', "1.10"]
    assert second == ["'@q", "2", "0.1", "b\x1b[2J", "", "0.5", "-2", "", ""]
    hits = json.loads(make_hits().to_json(), parse_constant=pytest.fail)["queries"][0]["hits"]
    assert [hit["cloud"] for hit in hits] == [None, 0.5]
    assert table_to_csv(pa.table({"a": pa.array([], pa.float32())})) == "a\n"


def test_tables_of_an_evaluation_are_no_formulas():
    table = Table(["model", "F1"], [["=A1", "0.5"]], [{"model": "=A1", "F1": 0.5}])
    assert table.csv() == "model,F1\n'=A1,0.5\n"


def test_the_terminal_sees_escape_sequences_and_obeys_none():
    assert visible("b\x1b[2J\x9b31m\u202egnp.tif") == r"b\u001b[2J\u009b31m\u202egnp.tif"
    assert visible("a\tb\nc ü") == "a\tb\nc ü"
    assert json.loads(visible(json.dumps({"id": "\u202ex\x1b"}, ensure_ascii=False))) == {"id": "\u202ex\x1b"}
