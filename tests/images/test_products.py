"""What names of products say."""

import datetime

import pytest

from csmae_hf.images.products import of_path, parse_product, parse_time, season


@pytest.mark.parametrize(
    ("name", "platform", "level", "tile", "date"),
    [
        ("S2A_MSIL2A_20170613T101031_34_32", "S2A", "L2A", None, "2017-06-13 10:10:31"),
        ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57", "S2A", "L2A", "33UUP", "2017-06-13 10:10:31"),
        ("S2B_MSIL2A_20170924T93020_69_24", "S2B", "L2A", None, "2017-09-24 09:30:20"),
        (
            "s2a_msil2a_20200219t112111_n0214_r037_t29rkh_20200219t134000.safe",
            "S2A",
            "L2A",
            "29RKH",
            "2020-02-19 11:21:11",
        ),
        ("S2A_MSIL1C_20200717T221941_R029_T01LAC_20200718T000000", "S2A", "L1C", "01LAC", "2020-07-17 22:19:41"),
        ("T29RKH_20200219T112111_B02_10m", "S2", None, "29RKH", "2020-02-19 11:21:11"),
        ("S2A_29RKH_20200219_0_L2A", "S2A", "L2A", "29RKH", "2020-02-19 00:00:00"),
        ("S2B_T43QDB_20200110T053549_L2A", "S2B", "L2A", "43QDB", "2020-01-10 05:35:49"),
        ("20180710T125311_20180710T125627_T24KVE", "S2", None, "24KVE", "2018-07-10 12:53:11"),
        ("Boadella_2020-01-13", None, None, None, "2020-01-13 00:00:00"),
        ("98-togo_2019-02-06_2020-02-01", None, None, None, "2019-02-06 00:00:00"),
        ("HLS.S30.T29RKH.2020050T112111.v2.0.B02", "HLS-S30", "L2A", "29RKH", "2020-02-19 11:21:11"),
        ("HLS.L30.T29RKH.2020050.v2.0.B02", "HLS-L30", "L2A", "29RKH", "2020-02-19 00:00:00"),
        ("2023-01-10-00_00_2023-01-10-23_59_Sentinel-2_L2A_B04_(Raw)", "S2", "L2A", None, "2023-01-10 00:00:00"),
        ("LC08_L1TP_021039_20200101_20200113_01_T1_B1", "Landsat", None, None, "2020-01-01 00:00:00"),
        ("scene_OLI_B2", "Landsat", None, None, None),
        ("s2_toa", None, "L1C", None, None),
        ("l8_B2", "Landsat", None, None, None),
        ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48", "S1A", "GRD", None, "2017-06-13 16:50:43"),
        ("s1a-iw-grd-vv-20180716t004042-20180716t004107-022813-02792a-001", "S1A", "GRD", None, "2018-07-16 00:40:42"),
        ("S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db", "S1A", None, None, "2015-03-09 17:30:17"),
        ("S2L1C", None, "L1C", None, None),
        ("tile_12345678", None, None, None, None),
        ("ROIs1970_fall_s2_139_p30", None, None, None, None),
    ],
)
def test_names_of_products(name, platform, level, tile, date):
    said = parse_product(name)
    assert (said.platform, said.level, said.tile) == (platform, level, tile)
    assert said.date == (None if date is None else datetime.datetime.fromisoformat(date))


@pytest.mark.parametrize(
    ("baseline", "offset"), [("N0214", False), ("N0301", False), ("N0400", True), ("N0511", True), ("N9999", None)]
)
def test_the_baseline_says_the_offset_unless_it_is_no_baseline(baseline, offset):
    assert parse_product(f"S2A_MSIL2A_20200322T103031_{baseline}_R108_T32TQM_20230101T000000").has_offset is offset


def test_a_date_never_says_the_offset():
    assert parse_product("S2B_33UXP_20250302_0_L2A").has_offset is None


def test_products_of_radar_say_unit_and_quantity():
    said = parse_product("S1A_IW_20180128T161201_DVP_RTC30_G_gpuned_FD6A_VV")
    assert (said.unit, said.quantity, said.metres, said.platform) == ("linear", "gamma0", 30, "S1A")
    said = parse_product("OPERA_L2_RTC-S1_T115-245714-IW1_20230101T000000Z_20230102T000000Z_S1A_30_v1.0_VV")
    assert (said.unit, said.quantity, said.platform) == ("linear", "gamma0", "S1A")


def test_the_folders_of_a_file_say_what_its_name_does_not():
    safe = "S2A_MSIL2A_20200219T112111_N0500_R037_T29RKH_20200219T134000.SAFE"
    said = of_path([safe, "GRANULE", "IMG_DATA", "R10m", "T29RKH_20200219T112111_B02_10m.jp2"])
    assert (said.platform, said.level, said.baseline, said.tile) == ("S2A", "L2A", 500, "29RKH")
    assert of_path(["S2L1C", "433D_629L_3_1.tif"]).level == "L1C"


def test_seasons_follow_the_hemisphere():
    october = datetime.date(2020, 10, 5)
    assert [season(october, latitude) for latitude in (47.0, None, -41.0)] == ["Fall", "Fall", "Spring"]
    assert season(datetime.date(2020, 1, 1), -1) == "Summer"


def test_seconds_above_59_run_on():
    assert parse_time("20180204T94161") == datetime.datetime(2018, 2, 4, 9, 42, 1)
    assert parse_time("20180230T000000") is None


@pytest.mark.parametrize("name", ["T32TMT_20170818T103021_L1C", "20170818T103021_20170818T103421_T32TMT_L1C"])
def test_a_level_after_the_granule_is_seen(name):
    assert parse_product(name).level == "L1C"
    assert parse_product(name.removesuffix("_L1C")).level is None
