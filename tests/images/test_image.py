"""The door for pixels: what files declare is believed, contradictions are errors, what nobody says stays unsaid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from csmae_hf.images.image import Said, read_image
from csmae_hf.images.raster import RasterError, describe, open_raster

S2 = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
NORTH_UP = rasterio.Affine(10, 0, 404400, 0, -10, 5342400)


def write(path: Path, layers: Sequence[np.ndarray], names: Sequence[str | None] = (), **profile: Any) -> Path:
    """Write layers as a GeoTIFF of 10 m in UTM zone 33N, or as the profile says; `scales` and `offsets` are tags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = {name: profile.pop(name) for name in ("scales", "offsets") if name in profile}
    height, width = layers[0].shape
    options = {"crs": "EPSG:32633", "transform": NORTH_UP, "driver": "GTiff"} | profile
    with rasterio.open(
        path, "w", height=height, width=width, count=len(layers), dtype=layers[0].dtype, **options
    ) as target:
        target.write(np.stack(layers))
        for number, name in enumerate(names, start=1):
            if name:
                target.set_band_description(number, name)
        for name, values in tags.items():
            setattr(target, name, values)
    return path


def optical(bands: Sequence[str], seed: int = 0, size: int = 120) -> dict[str, np.ndarray]:
    return {
        band: np.random.default_rng([seed, place]).integers(100, 4000, (size, size), dtype=np.uint16)
        for place, band in enumerate(bands)
    }


def radar(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "VH": rng.normal(-19, 3, (120, 120)).astype(np.float32),
        "VV": rng.normal(-12, 3, (120, 120)).astype(np.float32),
    }


@pytest.mark.parametrize(
    "spelled",
    [
        [band.replace("B0", "B") for band in S2],
        [f"S2_{band}" for band in S2],
        [f"{band}_median" for band in S2],
        ["blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22"],
    ],
)
def test_described_layers_are_read_by_name_in_any_order(tmp_path, spelled):
    pixels = optical(S2)
    order = [3, 1, 9, 0, 2, 5, 4, 8, 7, 6]
    path = write(tmp_path / "x.tif", [pixels[S2[place]] for place in order], [spelled[place] for place in order])
    image = read_image([path], S2, sensor="s2")
    assert list(image) == S2
    for band in S2:
        np.testing.assert_array_equal(image[band], pixels[band])
        assert image[band].dtype == np.uint16


def test_polarisations_are_read_by_name_and_their_unit_is_believed(tmp_path):
    pixels = radar()
    path = write(tmp_path / "x.tif", [pixels["VV"], pixels["VH"]], ["Sigma0_VV_db", "Sigma0_VH_db"])
    image = read_image([path], ["VH", "VV"], sensor="s1")
    np.testing.assert_array_equal(image["VV"], pixels["VV"])
    np.testing.assert_array_equal(image["VH"], pixels["VH"])
    assert image.unit == "db"


def test_layers_that_are_no_band_are_left_out_with_a_note(tmp_path):
    pixels = radar()
    path = write(
        tmp_path / "x.tif", [pixels["VV"], pixels["VH"], np.full((120, 120), 38, np.float32)], ["VV", "VH", "angle"]
    )
    image = read_image([path], ["VH", "VV"], sensor="s1")
    assert image.facts.notes == ("Left out: angle, which are no bands.",)


def test_one_file_may_hold_both_sensors(tmp_path):
    pixels = radar() | {band: layer.astype(np.float32) for band, layer in optical(["B02", "B03"]).items()}
    path = write(tmp_path / "x.tif", list(pixels.values()), ["VH", "VV", "B2", "B3"])
    for sensor, bands in {"s1": ["VH", "VV"], "s2": ["B02", "B03"]}.items():
        image = read_image([path], bands, sensor=sensor)
        np.testing.assert_array_equal(np.stack(list(image.values())), np.stack([pixels[band] for band in bands]))


def test_positions_count_only_where_nothing_is_named_and_the_caller_gives_the_order(tmp_path):
    pixels = optical(["B02", "B03", "B04"])
    plain = write(tmp_path / "plain.tif", list(pixels.values()))
    with pytest.raises(RasterError, match=r"does not name its 3 bands.*--bands s2="):
        read_image([plain], ["B02", "B03", "B04"], sensor="s2")
    image = read_image([plain], ["B04", "B02"], sensor="s2", said=Said(bands=("B2", "B3", "B4")))
    np.testing.assert_array_equal(image["B04"], pixels["B04"])
    with pytest.raises(RasterError, match="has 3 bands; names were given for 2"):
        read_image([plain], ["B02"], sensor="s2", said=Said(bands=("B02", "B03")))
    named = write(tmp_path / "named.tif", list(pixels.values()), ["B4", "B3", "B2"])
    with pytest.raises(RasterError, match=r"says that its bands are B04, B03, B02; given"):
        read_image([named], ["B02"], sensor="s2", said=Said(bands=("B02", "B03", "B04")))


def test_a_name_and_a_description_that_contradict_each_other_are_an_error(tmp_path):
    path = write(tmp_path / "x_B02.tif", [optical(["B02"])["B02"]], ["B03"])
    with pytest.raises(RasterError, match="named after B02, and its layer is described as B03"):
        read_image([path], ["B02"], sensor="s2")


def test_a_file_named_after_one_band_has_one_layer(tmp_path):
    path = write(tmp_path / "x_B02.tif", list(optical(["B02", "B03"]).values()))
    with pytest.raises(RasterError, match=r"x_B02\.tif has 2 layers and is named after one band, B02"):
        read_image([path], ["B02"], sensor="s2")


@pytest.mark.parametrize("names", [("d1_{}", "d2_{}"), ("T33UUP_20200101T101031_{}", "T33UUP_20200111T101031_{}")])
def test_files_of_two_images_are_not_mixed(tmp_path, names):
    files = [
        write(tmp_path / f"{names[place].format(band)}.tif", [layer])
        for place in (0, 1)
        for band, layer in optical(["B02", "B03"], place).items()
    ]
    with pytest.raises(RasterError, match="2 images"):
        read_image(files, ["B02", "B03"], sensor="s2")
    with pytest.raises(RasterError, match="2 images"):
        read_image([files[0], files[3]], ["B02", "B03"], sensor="s2")
    assert set(read_image(files[:2], ["B02", "B03"], sensor="s2")) == {"B02", "B03"}


def test_the_dates_of_one_file_are_images_of_their_own(tmp_path):
    first, second = optical(["B02", "B03"], 0), optical(["B02", "B03"], 1)
    path = write(tmp_path / "x.tif", [*first.values(), *second.values()], ["B2", "B3", "B2_1", "B3_1"])
    with pytest.raises(RasterError, match="2 images: 'without a further name', '1'"):
        read_image([path], ["B02", "B03"], sensor="s2")
    image = read_image([path], ["B02", "B03"], sensor="s2", series="1")
    np.testing.assert_array_equal(image["B03"], second["B03"])


def test_of_several_sizes_the_own_one_of_the_band_is_taken(tmp_path):
    fine, coarse = optical(["B02", "B05"], 0), optical(["B02", "B05"], 1, size=60)
    files = [
        write(tmp_path / f"x_{band}_{size}m.tif", [layer], transform=rasterio.Affine(size, 0, 0, 0, -size, 0))
        for size, bands in ((10, fine), (20, coarse))
        for band, layer in bands.items()
    ]
    image = read_image(files, ["B02", "B05"], sensor="s2")
    np.testing.assert_array_equal(image["B02"], fine["B02"])
    np.testing.assert_array_equal(image["B05"], coarse["B05"])


@pytest.mark.parametrize("value", [-99.0, -50.0, 0.0, -9999.0, float("nan")])
def test_declared_no_data_is_no_data_everywhere_and_at_any_value(tmp_path, value):
    pixels = radar()
    pixels["VV"][40:80, 40:80] = value
    path = write(tmp_path / "x.tif", list(pixels.values()), ["VH", "VV"], nodata=value)
    image = read_image([path], ["VH", "VV"], sensor="s1")
    assert image.facts.no_data == {"VV": 1600}
    assert np.isnan(image["VV"]).sum() == np.isnan(image["VV"][40:80, 40:80]).sum() == 1600
    np.testing.assert_array_equal(image["VH"], pixels["VH"])


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 1), ("int16", 32767), ("int16", -1), ("uint16", 65535)])
def test_declared_no_data_of_whole_numbers(tmp_path, dtype, value):
    pixels = {band: layer.astype(dtype) for band, layer in optical(["B02", "B03"]).items()}
    for layer in pixels.values():
        layer[40:80, 40:80] = value
    path = write(tmp_path / "x.tif", list(pixels.values()), ["B2", "B3"], nodata=value)
    image = read_image([path], ["B02", "B03"], sensor="s2")
    assert image.facts.no_data == {"B02": 1600, "B03": 1600}
    assert np.isnan(image["B03"][60, 60])
    assert image["B03"][0, 0] == pixels["B03"][0, 0]


@pytest.mark.parametrize("internal", [True, False])
def test_masks_inside_and_beside_a_file_are_no_data(tmp_path, internal):
    layer = optical(["B02"])["B02"]
    path = write(tmp_path / "x_B02.tif", [layer])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as target:
        mask = np.full((120, 120), 255, np.uint8)
        mask[:5] = 0
        target.write_mask(mask)
    assert (tmp_path / "x_B02.tif.msk").exists() is not internal
    image = read_image([path], ["B02"], sensor="s2")
    assert image.facts.no_data == {"B02": 600}
    assert np.isnan(image["B02"][:5]).all()


def test_an_alpha_channel_is_a_mask_and_no_band(tmp_path):
    layer = optical(["B02"])["B02"]
    alpha = np.full((120, 120), 65535, np.uint16)
    alpha[0, 0] = 0
    path = write(tmp_path / "x.tif", [layer, alpha], ["B2", None])
    with rasterio.open(path, "r+") as target:
        target.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    image = read_image([path], ["B02"], sensor="s2")
    assert image.facts.no_data == {"B02": 1}


def test_scale_and_offset_tags_are_applied_and_noted(tmp_path):
    layer = optical(["B02"])["B02"] & 0xFFFE
    path = write(tmp_path / "x_B02.tif", [layer // 2], scales=(2.0,))
    image = read_image([path], ["B02"], sensor="s2")
    np.testing.assert_array_equal(image["B02"], layer.astype(np.float32))
    assert "Scale 2 and offset 0 were applied" in image.facts.notes[0]
    path = write(tmp_path / "y_VV.tif", [np.int16(radar()["VV"] * 100)], scales=(0.01,))
    image = read_image([path], ["VV"], sensor="s1")
    assert -14 < image["VV"].mean() < -10


@pytest.mark.parametrize(
    ("scale", "offset", "unit"),
    [(1e-4, -0.1, "dn+1000"), (1.0, -1000.0, "dn+1000"), (1e-4, 0.0, "dn")],
)
def test_tags_that_mean_a_unit_are_that_unit(tmp_path, scale, offset, unit):
    layer = optical(["B02"])["B02"]
    path = write(tmp_path / "x_B02.tif", [layer], scales=(scale,), offsets=(offset,))
    image = read_image([path], ["B02"], sensor="s2")
    np.testing.assert_array_equal(image["B02"], layer)
    assert image.unit == unit
    assert image.facts.unit_by == "the scale and offset tags of x_B02.tif"
    with pytest.raises(RasterError, match=r"the call says reflectance .* the scale and offset tags of x_B02.tif says"):
        read_image([path], ["B02"], sensor="s2", said=Said(unit="reflectance"))


def test_an_image_that_is_south_up_is_turned_and_a_rotated_one_refused(tmp_path):
    layer = optical(["B02"])["B02"]
    north = read_image([write(tmp_path / "n_B02.tif", [layer])], ["B02"], sensor="s2")
    south_up = rasterio.Affine(10, 0, 404400, 0, 10, 5341200)
    south = read_image([write(tmp_path / "s_B02.tif", [layer[::-1]], transform=south_up)], ["B02"], sensor="s2")
    np.testing.assert_array_equal(south["B02"], north["B02"])
    assert south.facts.bounds == north.facts.bounds
    rotated = write(tmp_path / "r_B02.tif", [layer], transform=NORTH_UP @ rasterio.Affine.rotation(10))
    with pytest.raises(RasterError, match="rotated against north"):
        read_image([rotated], ["B02"], sensor="s2")


@pytest.mark.parametrize("metres", [20, 30, 100, 5])
def test_the_ground_size_must_be_that_of_the_band(tmp_path, metres):
    transform = rasterio.Affine(metres, 0, 0, 0, -metres, 0)
    path = write(tmp_path / "x_B02.tif", [optical(["B02"])["B02"]], transform=transform)
    with pytest.raises(RasterError, match=rf"pixels of B02 are {metres} x {metres} m .*expected 10 m"):
        read_image([path], ["B02"], sensor="s2")


def test_sizes_in_degrees_are_told_in_metres(tmp_path):
    degrees = 1195 / 120 / 110_574
    path = write(
        tmp_path / "x_B02.tif",
        [optical(["B02"])["B02"]],
        crs="EPSG:4326",
        transform=rasterio.Affine(degrees, 0, 13.0, 0, -degrees, 38.0),
    )
    with pytest.raises(RasterError, match=r"\(94\d x 1,195 m in all\)"):
        read_image([path], ["B02"], sensor="s2")


def test_other_platforms_are_refused_by_name(shared_data):
    folder = shared_data / "public_files" / "landsat8_not_sentinel"
    with pytest.raises(RasterError, match="is of Landsat by its name"):
        read_image(sorted(folder.glob("*.tif")), ["B02", "B03", "B04"], sensor="s2")


@pytest.mark.parametrize("name", ["HLS.L30.T29RKH.2020050T112111.v2.0.B02.tif", "LC08_L1TP_021039_20200101_B2.tif"])
def test_landsat_of_other_names_is_refused(tmp_path, name):
    with pytest.raises(RasterError, match="by its name: its bands are not those of Sentinel-2"):
        read_image([write(tmp_path / name, [optical(["B02"])["B02"]])], ["B02"], sensor="s2")


def test_level_1c_is_refused_unless_asked_for(tmp_path):
    names = [*S2[:8], "B09", "B10", *S2[8:]]
    path = write(tmp_path / "x.tif", list(optical(names).values()), names)
    with pytest.raises(RasterError, match=r"Level-1C .* by its band B10.*--level L1C"):
        read_image([path], S2, sensor="s2")
    assert list(read_image([path], S2, sensor="s2", said=Said(level="L1C"))) == S2
    product = tmp_path / "S2A_MSIL1C_20200717T221941_N0209_R029_T01LAC_20200718T000000.SAFE" / "T01LAC_B02.tif"
    with pytest.raises(RasterError, match="by its name"):
        read_image([write(product, [optical(["B02"])["B02"]])], ["B02"], sensor="s2")
    level_2a = write(tmp_path / "S2A_MSIL2A_20170613T101031_34_32_B02.tif", [optical(["B02"])["B02"]])
    with pytest.raises(RasterError, match="is Level-2A by its name, and level='L1C' was given"):
        read_image([level_2a], ["B02"], sensor="s2", said=Said(level="L1C"))


@pytest.mark.parametrize(
    ("baseline", "unit"), [("_N0214", "dn"), ("_N0400", "dn+1000"), ("_N0511", "dn+1000"), ("_N9999", None), ("", None)]
)
def test_the_offset_follows_the_baseline_in_the_name(tmp_path, baseline, unit):
    path = tmp_path / f"S2A_MSIL2A_20200322T103031{baseline}_R108_T32TQM_20230101T000000_B02.tif"
    assert read_image([write(path, [optical(["B02"])["B02"]])], ["B02"], sensor="s2").unit == unit


def test_amplitude_is_called_amplitude(shared_data, tmp_path):
    vv, vh = (shared_data / "public_files" / "s1_grd_dn" / f"iw-{name}.tiff" for name in ("vv", "vh"))
    with pytest.raises(RasterError, match=r"amplitude.*calibrated first"):
        read_image([vv, vh], ["VH", "VV"], sensor="s1")
    names = ("S1A_IW_20180128T161201_DVP_RTC10_G_gauned_FD6A_VV.tif", "x_VV_amplitude.tif")
    for name in names:
        with pytest.raises(RasterError, match="amplitude"):
            read_image([write(tmp_path / name, [radar()["VV"]])], ["VV"], sensor="s1")


def test_raw_exports_of_the_browser_are_reflectance_by_their_name(tmp_path):
    name = "2023-01-10-00_00_2023-01-10-23_59_Sentinel-2_L2A_B04_(Raw).tiff"
    image = read_image([write(tmp_path / name, [np.full((120, 120), 6553, np.uint16)])], ["B04"], sensor="s2")
    assert image.unit == "reflectance"
    np.testing.assert_allclose(image["B04"], 6553 / 65535, rtol=1e-6)


def test_what_is_no_image_is_not_opened(tmp_path):
    write(tmp_path / "secret.tif", [optical(["B02"])["B02"]])
    path = tmp_path / "x_B02.tif"
    path.write_text(
        '<VRTDataset rasterXSize="120" rasterYSize="120"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">secret.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    with pytest.raises(RasterError, match="cannot be read: by its first bytes it is neither a TIFF nor a JPEG 2000"):
        read_image([path], ["B02"], sensor="s2")
    with pytest.raises(RasterError, match="is not there"), open_raster(tmp_path / "none.tif"):
        pass


def test_jpeg_2000_is_read(tmp_path):
    layer = optical(["B02"])["B02"]
    path = tmp_path / "T33UUP_20200101T101031_B02_10m.jp2"
    options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    image = read_image([write(path, [layer], **options)], ["B02"], sensor="s2")
    np.testing.assert_array_equal(image["B02"], layer)
    assert image.facts.product.tile == "33UUP"


def test_a_scene_is_told_from_a_tile_without_reading_it(shared_data):
    path = shared_data / "public_files" / "jp2" / "T55XEE_20200911T034541_B08.jp2"
    assert describe(path).grid.shape == (10980, 10980)
    with pytest.raises(RasterError, match=r"10,980 x 10,980 pixels, 110 x 110 km: a scene"):
        read_image([path], ["B08"], sensor="s2")


def test_an_item_as_downloaded_is_read_without_its_side_files_and_refused_for_its_thinned_pixels(shared_data):
    folder = shared_data / "public_files" / "earth_search_item" / "S2A_29RKH_20200219_0_L2A"
    with pytest.raises(RasterError, match="pixels of B02 are 100 x 100 m"):
        read_image(sorted(folder.glob("*.tif")), S2, sensor="s2")


def test_bands_of_other_sensors_are_read_by_their_own_names(tmp_path):
    layer = radar()["VV"]
    image = read_image(
        [write(tmp_path / "x.tif", [layer, layer + 1], ["T11", "t10"])], ["T10", "T11"], sensor="thermal"
    )
    np.testing.assert_array_equal(image["T10"], layer + 1)


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"transform": rasterio.Affine(10, 0, 604400, 0, -10, 5342400)},
        {"crs": "EPSG:32634"},
        {"transform": rasterio.Affine(10, 0, 405000, 0, -10, 5342400)},
    ],
)
def test_bands_that_lie_elsewhere_are_of_no_one_image(tmp_path, elsewhere):
    image = optical(["B02", "B03"])
    files = [
        write(tmp_path / "x_B02.tif", [image["B02"]]),
        write(tmp_path / "x_B03.tif", [image["B03"]], **elsewhere),
    ]
    with pytest.raises(RasterError, match=r"x_B02.tif \(B02\) and x_B03.tif \(B03\) show different ground"):
        read_image(files, sensor="s2")


@pytest.mark.parametrize(("scales", "offsets"), [((1e-4, 1e-4), (0, -0.1)), ((1, 1e-4), (0, -0.1))])
def test_tags_that_mean_two_units_in_one_image_are_an_error(tmp_path, scales, offsets):
    image = optical(["B02", "B03"])
    path = write(tmp_path / "x.tif", list(image.values()), ["B02", "B03"], scales=scales, offsets=offsets)
    with pytest.raises(RasterError, match=r"B02 has scale .* B03 has scale 0.0001 and offset -0.1"):
        read_image([path], sensor="s2")


def test_described_layers_of_two_dates_are_no_one_image(tmp_path):
    path = write(tmp_path / "x.tif", list(radar().values()), ["VH_20200101", "VV_20200113"])
    with pytest.raises(RasterError, match="holds 2 images: '20200101', '20200113'"):
        read_image([path], sensor="s1")


def test_an_alpha_channel_beside_many_bands_is_a_mask(tmp_path):
    image = optical(S2)
    alpha = np.full((120, 120), 65535, np.uint16)
    alpha[40:80, 40:80] = 0
    path = write(tmp_path / "x.tif", [*image.values(), alpha], S2)
    with rasterio.open(path, "r+") as target:
        target.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * 9, ColorInterp.alpha]
    assert read_image([path], S2, sensor="s2").facts.no_data == dict.fromkeys(S2, 1600)


def test_the_metres_of_a_web_map_are_those_of_the_ground(tmp_path):
    web = {"crs": "EPSG:3857", "transform": rasterio.Affine(10, 0, 2226000, 0, -10, 8400000)}
    path = write(tmp_path / "x_B02.tif", list(optical(["B02"]).values()), **web)
    with pytest.raises(RasterError, match=r"pixels of B02 are 5 x 5 m"):
        read_image([path], sensor="s2")
