"""Rules say by date and name which tiles are in which unit; what cannot be meant is refused by its words."""

from datetime import datetime

import pytest

from csmae_hf.data.unit_rules import DatedTile, parse_rule, read_rules, units_by_rules

BANDS = ["B02", "B11"]
TILES = [
    DatedTile("S2A_2021", ["S2A_MSIL2A_20211231T101031_N0301/B02.tif"], datetime(2021, 12, 31, 10)),
    DatedTile("S2A_2022", ["S2A_MSIL2A_20220125T000000_N0400/B02.tif"], datetime(2022, 1, 25)),
    DatedTile("undated", [], None),
]


@pytest.mark.parametrize(
    ("said", "units"),
    [
        ("dn+1000", ["dn+1000"] * 3),
        ("dn+1000 from 2022-01-25", [None, "dn+1000", None]),
        ("DN+1000  from 2022-01-25T00:00:00Z", [None, "dn+1000", None]),
        ("dn+1000 from 2022-01-25T00:00:01", [None, None, None]),
        ("dn before 2022-01-25", ["dn", None, None]),
        ("dn+1000 before 2022-02-01 from 2021-01-01", ["dn+1000", "dn+1000", None]),
        ("dn+1000 of *_N0400/*", [None, "dn+1000", None]),
        ("dn+1000 of S2A_202?", ["dn+1000", "dn+1000", None]),
        ("dn+1000 of s2a_202?", [None, None, None]),
        ("dn+1000 from 2022-01-01 of *_N0301*", [None, None, None]),
        (["dn+1000 from 2022-01-25", "dn"], ["dn", "dn+1000", "dn"]),
        (["dn", "dn+1000 from 2022-01-25"], ["dn", "dn+1000", "dn"]),
        (
            ["dn+1000 from 2022-01-25", "dn before 2022-01-25", "reflectance of undated"],
            ["dn", "dn+1000", "reflectance"],
        ),
    ],
)
def test_a_tile_is_in_the_unit_of_the_rule_that_fits_it(said: str | list[str], units: list[str | None]) -> None:
    assert units_by_rules("s2", read_rules("s2", BANDS, said), TILES) == units


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("raw", "'raw' is no unit of s2: expected one of 'dn', 'dn.1000', 'reflectance'"),
        ("linear", "'linear' is no unit of s2: expected one of 'dn'"),
        ("", "'' is no unit of s2"),
        ("dn where x", "'dn where x' is no unit of tiles: expected a unit, or such as 'dn.1000 from 2022-01-25'"),
        ("dn from", "is no unit"),
        ("dn from 2022-01-25 from 2023-01-25", "is no unit"),
        ("dn from yesterday", "has the date 'yesterday': expected one such as 2022-01-25"),
        (["dn", "reflectance"], "'dn' and 'reflectance' for all tiles; expected one unit"),
        ([], "nothing for all tiles"),
    ],
)
def test_what_is_no_rule_is_named(said: str | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read_rules("s2", BANDS, said)
    assert "units" in str(raised.value)


def test_two_rules_for_a_tile_and_dates_that_nobody_knows_are_refused() -> None:
    both = read_rules("s2", BANDS, ["dn+1000 from 2022-01-01", "dn of S2A_*"])
    with pytest.raises(
        ValueError, match=r"Tile S2A_2022 is in two units .*'dn\+1000 from 2022-01-01' and 'dn of S2A_\*'"
    ):
        units_by_rules("s2", both, TILES)
    by_date = read_rules("s2", BANDS, "dn+1000 from 2022-01-01")
    with pytest.raises(
        ValueError, match=r"needs dates, and of none of the 1 tiles .* column date_s2, .*dn\+1000 of PATTERN"
    ):
        units_by_rules("s2", by_date, TILES[2:])


def test_a_rule_that_fits_no_tile_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    units_by_rules("s2", [parse_rule("dn+1000 of nothing")], TILES)
    assert "0 of 3 tiles have their s2 in dn+1000: dn+1000 of nothing" in caplog.text
