"""What the names of bands, files and folders say."""

import pytest

from csmae_hf.images.names import SensorNames, canonical_band, in_order


@pytest.mark.parametrize(
    ("spelled", "band"),
    [
        ("B2", "B02"),
        ("B02", "B02"),
        ("b12", "B12"),
        ("B8A", "B8A"),
        ("b08a", "B8A"),
        ("B10", "B10"),
        ("vv", "VV"),
        ("B13", None),
        ("B1A", None),
        ("SCL", None),
        ("", None),
        (None, None),
    ],
)
def test_a_band_has_one_name_however_it_is_spelled(spelled: str | None, band: str | None) -> None:
    assert canonical_band(spelled) == band


def test_bands_are_sorted_as_bigearthnet_has_them_and_others_come_last() -> None:
    assert in_order(["T10", "B8A", "B10", "B09", "VV", "B01", "VH"]) == ("VH", "VV", "B01", "B8A", "B09", "B10", "T10")


@pytest.mark.parametrize(
    ("path", "sensor"),
    [
        ("x/S1A_IW_GRDH_1SDV_1", "s1"),
        ("s2/s1/x", "s1"),
        ("s1/x_S2", "s2"),
        ("s10/x", None),
        ("glass1/x", None),
        ("thermal/x", "thermal"),
        ("x_Thermal", "thermal"),
        ("x_thermally", None),
        ("x_s1_night", "s1_night"),
    ],
)
def test_the_last_part_of_a_path_that_names_a_sensor_says_it(path: str, sensor: str | None) -> None:
    assert SensorNames({"thermal": None, "s1_night": ["VV"]}).sensor_in_path(path) == sensor


@pytest.mark.parametrize(
    ("stem", "parts"),
    [
        ("x_B2", ("x_", "B2")),
        ("vv", ("", "vv")),
        ("x_lst_day", ("x_", "lst_day")),
        ("x-T10", ("x-", "T10")),
        ("x_t10", None),
        ("xT10", None),
        ("x_B13", None),
    ],
)
def test_a_file_is_named_after_a_band_of_any_sensor(stem: str, parts: tuple[str, str] | None) -> None:
    assert SensorNames({"thermal": ["T10", "lst_day"]}).split_stem(stem) == parts


def test_a_declared_band_is_the_declared_sensors() -> None:
    assert SensorNames().sensor_of_band("VV") == "s1"
    assert SensorNames({"sar": ["VV"]}).sensor_of_band("VV") == "sar"
    assert SensorNames({"sar": ["VV"]}).sensor_of_band("VH") == "s1"
    assert SensorNames({"s1": ["VV"], "sar": ["VV"]}).sensor_of_band("VV", "sar/x_VV") == "sar"
    assert SensorNames({"s1": ["VV"], "sar": ["VV"]}).sensor_of_band("VV", "x_VV") is None


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("a_s1rtc", "a"),
        ("s2_a", "a"),
        ("a-thermal", "a"),
        ("S2_MSIL2A_x_20170613T101031", "S2_MSIL2A_x_20170613T101031"),
    ],
)
def test_what_only_says_the_sensor_is_no_part_of_a_name(stem: str, name: str) -> None:
    assert SensorNames({"thermal": None}).without_sensor(stem) == name
