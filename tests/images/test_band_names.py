"""What names of bands and layers say."""

import pytest

from csmae_hf.images.band_names import canonical_band, parse_band, parse_descriptions


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("B2", "B02"), ("B02", "B02"), ("b02", "B02"), ("B8A", "B8A"), ("b8a", "B8A"), ("B02_10m", "B02"), ("B02_(Raw)", "B02"),
        ("S2_B2", "B02"), ("S2-L2A-B04", "B04"), ("red", "B04"), ("Red Edge 2", "B06"), ("nir08", "B8A"), ("nir_narrow", "B8A"),
        ("swir16", "B11"), ("SWIR 2", "B12"), ("coastal", "B01"), ("iw-vv", "VV"), ("Sigma0_VV_db", "VV"), ("Gamma0_VH", "VH"),
        ("VV_median", "VV"), ("VV_db", "VV"), ("vh", "VH"), ("HH", "HH"), ("B2_3", "B02"), ("0_B2", "B02"), ("VV_1", "VV"),
        ("20180710T125311_20180710T125627_T24KVE_B12", "B12"),
        ("Sentinel-2 Band 12", "B12"), ("Band 8A", "B8A"), ("B02 - Blue", "B02"), ("B6 - Vegetation Red Edge", "B06"),
        ("B8A, central wavelength 865 nm", "B8A"), ("Band 3: B05", "B05"), ("rededge071", "B05"),
        ("VV_p50", "VV"), ("B2_medoid", "B02"), ("nbart_swir_2", "B11"), ("nbart_nir_1", "B08"), ("sentinel1_asc_VH", "VH"),
        ("T33UUP_20200101T101031_B04@1", "B04"), ("2020-01-01 B08", "B08"), ("Sigma0_VV_slv1_24Jul2020_db", "VV"),
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
        "B2_norm",
        "B02_zscore",
        "VV_stdDev",
        "B04_std",
        "B2_scaled",
        "B02_uint8",
        "VV_Norm_dB",
        "norm_B2",
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
    ("name", "word"),
    [("B02_whitened", "whitened"), ("B2_p10", "p10"), ("Intensity_VV", "intensity"), ("VV denoised", "denoised"), ("q25_B8", "q25")],
)  # fmt: skip
def test_a_word_beside_a_band_that_nobody_knows_is_named(name, word):
    said = parse_band(name)
    assert (said.band, said.unknown, said.layer) == (None, word, name)


@pytest.mark.parametrize("name", ["x_B02_whitened", "VV_munich", "x_B8_q25"])
def test_a_files_unknown_words_count_after_the_band(name):
    assert parse_band(name, file=True).unknown


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("munich_B02", "B02"),
        ("mountain_range_B8A", "B8A"),
        ("S1A__IW___A_20150309T173017_VV_gamma0-rtc_db", "VV"),
        ("S1A_IW_20180128T161201_DVP_RTC30_G_gpuned_FD6A_VV", "VV"),
        ("OPERA_L2_RTC-S1_T115-245714-IW1_20220101T000000Z_20230101T000000Z_S1A_30_v1.0_VH", "VH"),
        ("s1a-iw-grd-vv-20200101t051234-20200101t051259-030612-038237-001-cog", "VV"),
        ("SENTINEL2B_20200101-105432-123_L2A_T31TCJ_C_V2-2_SRE_B2", "B02"),
        ("s1a_31TCH_vh_DES_007_20200108t060044_NormLim", "VH"),
        ("2023-01-10-00_00_2023-01-10-23_59_Sentinel-1_AWS-IW-VVVH_VV_(Raw)", "VV"),
        ("2023-01-10_Sentinel-1_IW_VV+VH_VH_-_decibel_gamma0_-_orthorectified", "VH"),
        ("download.B2", "B02"),
        ("Band_2", "B02"),
        ("zscore_B02", None),
        ("site_b2_forest_s2", None),
    ],
)
def test_real_names_of_files_are_understood(name, band):
    assert parse_band(name, file=True).band == band


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        ("R G B N", "B04 B03 B02 B08"),
        ("R G X", None),
        ("BLUE RED BROADNIR NIR", "B02 B04 B08 B8A"),
        ("red nir_1 nir_2 swir_1 swir_2", "B04 B08 B8A B11 B12"),
        ("red nir_1 nir_2 swir_2 swir_3", "B04 B08 B8A B11 B12"),
        ("red_1 nir_1 red_2 nir_2", "B04 B08 B04 B08"),
        ("Band_2 Band_3 Band_8A", "B02 B03 B8A"),
        ("Band_1 Band_2 Band_3", None),
    ],
)
def test_descriptions_are_understood_together(names, bands):
    said = [name.band for name in parse_descriptions(name.replace("Band_", "Band ") for name in names.split())]
    assert said == (bands.split() if bands else [None] * len(said))


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
