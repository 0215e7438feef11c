from datetime import datetime

import pyarrow as pa
import pytest

from csmae_hf.app.pickers import compose_filter, pickers_of
from csmae_hf.search.filter_language import mask_of, parse_filter

TILES = pa.table(
    {
        "id": ["a", "b", "c", "d"],
        "country": ["Austria", "Côte d'Ivoire", None, "Austria"],
        "labels": pa.array([["Pastures"], ["Pastures", "Beaches, dunes, sands"], None, []], pa.list_(pa.string())),
        "snow": [True, False, None, False],
        "date_s2": pa.array([datetime(2017, 6, day, 10) for day in (1, 2, 3, 4)], pa.timestamp("s")),
        "elevation": [1.0, 2.0, 3.0, 4.0],
        "one": ["same"] * 4,
        "nothing": pa.nulls(4, pa.string()),
        "many": [f"v{n}" for n in range(4)],
        "cloud cover": ["lots", "none", "none", "lots"],
    }
)


def kept(picked, typed=""):
    text = compose_filter(picked, pickers_of(TILES), typed)
    mask = mask_of(parse_filter(text, TILES.schema), TILES)
    return [name for name, held in zip(TILES["id"].to_pylist(), mask, strict=True) if held]


def test_pickers_suit_the_columns():
    found = {picker.column: picker for picker in pickers_of(TILES)}
    assert {name: picker.kind for name, picker in found.items()} == {
        "country": "values",
        "labels": "values",
        "snow": "truth",
        "date_s2": "time",
        "many": "values",
        "cloud cover": "values",
    }
    assert found["labels"].values == ("Beaches, dunes, sands", "Pastures")
    assert found["date_s2"].span == ("2017-06-01", "2017-06-04")


def test_nothing_picked_is_no_filter():
    picked = {"country": [], "snow": "any", "date_s2": ("", None)}
    assert compose_filter(picked, pickers_of(TILES), "  ") == ""


@pytest.mark.parametrize(
    ("picked", "expected"),
    [
        ({"country": ["Côte d'Ivoire"]}, ["b"]),
        ({"country": ["Austria", "Côte d'Ivoire"]}, ["a", "b", "d"]),
        ({"labels": ["Pastures"]}, ["a", "b"]),
        ({"labels": ["Beaches, dunes, sands"], "country": ["Austria"]}, []),
        ({"snow": "no"}, ["b", "d"]),
        ({"snow": "yes"}, ["a"]),
        ({"cloud cover": ["none"]}, ["b", "c"]),
        ({"date_s2": ("2017-06-02", "")}, ["b", "c", "d"]),
        ({"date_s2": ("", "2017-06-02")}, ["a", "b"]),  # the whole of the last day
        ({"date_s2": ("2017-06-02", "2017-06-03T09:00:00")}, ["b"]),
    ],
)
def test_what_is_picked_is_what_is_kept(picked, expected):
    assert kept(picked) == expected


def test_what_is_typed_must_hold_too_whatever_it_joins():
    assert kept({"country": ["Austria"]}, "elevation > 3 or elevation < 2") == ["a", "d"]
    assert kept({"snow": "no"}, "elevation > 3 or elevation < 2") == ["d"]


def test_an_empty_table_has_no_pickers():
    assert pickers_of(TILES.slice(0, 0)) == []
