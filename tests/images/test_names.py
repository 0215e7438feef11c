"""What the names of bands, files and folders say."""

import pytest

from csmae_hf.images.band_names import BandName, canonical_band
from csmae_hf.images.names import BandFile, SensorNames, in_order


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
    said = SensorNames({"thermal": ["T10", "lst_day"]}).parse_stem(stem)
    assert (said[:2] if isinstance(said, BandFile) else None) == parts


@pytest.mark.parametrize(
    ("stem", "band", "image"),
    [
        ("T29RKH_20200219T112111_B02_10m", "B02", "T29RKH_20200219T112111"),
        (
            "2023-01-10-00_00_2023-01-10-23_59_Sentinel-2_L2A_B8A_(Raw)",
            "B8A",
            "2023-01-10-00_00_2023-01-10-23_59_Sentinel-2_L2A",
        ),
        ("S2A_29RKH_20200219_0_L2A_red", "B04", "S2A_29RKH_20200219_0_L2A"),
        ("a_red-edge-2", "B06", None),
        ("S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db", "VV", "S1A__IW___A_20150309T173017_grd_mli_geo_norm_db"),
        ("iw-vh", "VH", "iw"),
        ("d1_B02", "B02", "d1"),
        ("nir", "B08", ""),
    ],
)
def test_names_of_products_say_band_and_image(stem: str, band: str, image: str | None) -> None:
    said = SensorNames().parse_stem(stem)
    assert isinstance(said, BandFile)
    assert said.band == band
    assert image is None or said.image == image


@pytest.mark.parametrize(
    ("stem", "layer"),
    [
        ("T29RKH_20200219T112111_SCL_20m", "scl"),
        ("L2A_PVI", "pvi"),
        ("MSK_CLDPRB_20m", "msk"),
        ("MSK_DETFOO_B02", "msk"),
        ("ref_input_S2_viewZenithMean", "viewzenithmean"),
        ("S1A_IW_20200101T000000_DVP_RTC30_G_gpuned_1234_inc_map", "inc"),
        ("study_area_s2", None),
        ("shadow_lake_7_s2", None),
        ("red_sea_s2", None),
    ],
)
def test_side_files_are_told_from_stacks(stem: str, layer: str | None) -> None:
    said = SensorNames().parse_stem(stem)
    assert isinstance(said, BandName)
    assert (said.band, said.layer) == (None, layer)


@pytest.mark.parametrize(
    ("path", "sensor"),
    [
        ("bench_s1s2/labels/a.tif", None),
        ("bench_s1s2/s1/a.tif", "s1"),
        ("pairs_s2_s1/a.tif", None),
        ("HandLabeled/S1Hand/Ghana_1_S1Hand.tif", "s1"),
        ("HandLabeled/S1OtsuLabelHand/Ghana_1_S1OtsuLabelHand.tif", None),
        ("S1/S1_3c12_S2_76da_0_0.tif", "s1"),
    ],
)
def test_a_name_of_two_sensors_or_of_labels_says_none(path: str, sensor: str | None) -> None:
    assert SensorNames().sensor_in_path(path) == sensor


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
        ("ROIs1970_fall_s1_139_p30", "ROIs1970_fall_139_p30"),
        ("ROIs1158_spring_s2_cloudy_1_p30", "ROIs1158_spring_cloudy_1_p30"),
        ("Ghana_103272_S2Hand", "Ghana_103272"),
        ("S2_MSIL2A_x_20170613T101031", "S2_MSIL2A_x_20170613T101031"),
    ],
)
def test_what_only_says_the_sensor_is_no_part_of_a_name(stem: str, name: str) -> None:
    assert SensorNames({"thermal": None}).without_sensor(stem) == name
