"""What names of bands and layers say."""

import pytest

from csmae_hf.images.band_names import canonical_band, parse_band


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("B2", "B02"), ("B02", "B02"), ("b02", "B02"), ("B8A", "B8A"), ("b8a", "B8A"), ("B02_10m", "B02"), ("B02_(Raw)", "B02"),
        ("S2_B2", "B02"), ("S2-L2A-B04", "B04"), ("red", "B04"), ("Red Edge 2", "B06"), ("nir08", "B8A"), ("nir_narrow", "B8A"),
        ("swir16", "B11"), ("SWIR 2", "B12"), ("coastal", "B01"), ("iw-vv", "VV"), ("Sigma0_VV_db", "VV"), ("Gamma0_VH", "VH"),
        ("VV_median", "VV"), ("VV_db", "VV"), ("vh", "VH"), ("HH", "HH"), ("B2_3", "B02"), ("0_B2", "B02"), ("VV_1", "VV"),
        ("20180710T125311_20180710T125627_T24KVE_B12", "B12"),
    ],
)  # fmt: skip
def test_the_spellings_of_the_field_are_one_band(name, band):
    assert canonical_band(name) == band


@pytest.mark.parametrize(
    "name",
    [
        "SCL",
        "AOT",
        "WVP",
        "TCI",
        "PVI",
        "L2A_PVI",
        "QA60",
        "CLDPRB",
        "MSK_CLDPRB_20m",
        "MSK_DETFOO_B02",
        "angle",
        "DEM",
        "dataMask",
        "CLM",
        "NDVI",
        "VV/VH",
        "VVVH",
        "VV_std",
        "B2_iqr",
        "VV_anomaly",
        "B12_skew",
        "VH_weights",
        "B8_count",
        "B4-B3-B2",
        "localIncidenceAngle",
        "SR_B2",
        "ST_B10",
        "delta_VV",
        "CR_VV",
        "B2_log",
        "ref_input_S2_sunZenithAngles",
        "temperature_2m",
    ],
)
def test_layers_that_are_no_band_are_known_as_such(name):
    said = parse_band(name)
    assert said.band is None
    assert said.layer


@pytest.mark.parametrize("name", ["", None, "B00", "B13", "B99", "bands", "T10", "hello"])
def test_other_names_say_nothing(name):
    assert parse_band(name)[:2] == (None, None)


@pytest.mark.parametrize(
    ("name", "band", "rest"),
    [
        ("T29RKH_20200219T112111_B02_10m", "B02", "t29rkh_20200219t112111"),
        ("d1_B02", "B02", "d1"),
        ("d2_B02", "B02", "d2"),
        ("x_red", "B04", "x"),
        ("cloud_free_B02", "B02", "cloud_free"),
        ("S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db", "VV", "s1a_iw_a_20150309t173017_grd_mli_geo_norm_db"),
        ("red_sea_s2", None, ""),
        ("min_lat=14.9517_min_lon=-86.2507_all", None, ""),
        ("S1_3c120554_S2_76dac503_256x256", None, ""),
    ],
)
def test_names_of_files_say_the_band_and_which_image_it_is_of(name, band, rest):
    said = parse_band(name, file=True)
    assert (said.band, said.rest) == (band, rest)


def test_a_name_may_say_unit_quantity_and_size():
    assert parse_band("Sigma0_VV_db")[2:4] == ("db", "sigma0")
    assert parse_band("VH_gamma0_linear")[2:4] == ("linear", "gamma0")
    assert parse_band("B02_10m").metres == 10
    assert parse_band("2023-01-10_Sentinel-2_L2A_B04_(Raw)", file=True).raw


def test_bands_of_other_sensors_are_known_by_their_own_names():
    assert canonical_band("t10", known=["T10", "T11"]) == "T10"
    assert parse_band("scene_T11", known=["T10", "T11"], file=True)[::6] == ("T11", "scene")
    assert canonical_band("T10") is None
