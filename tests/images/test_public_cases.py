"""Files as people have them: each kind of case that was read wrongly or not at all, through every way in.

Sources: real files of other people (`public_files`), and the same kinds made of generated pixels.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from tiff_files import V1_EXAMPLES

from csmae_hf.app.uploads import read_upload
from csmae_hf.archive.queries import read_image_file
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.encode import encode
from csmae_hf.data.load import load_data
from csmae_hf.data.tiles import load_tiles
from csmae_hf.images.discovery import find_images
from csmae_hf.images.geotiff import TiffFolder
from csmae_hf.images.image import BandImage, Said, image_of_arrays
from csmae_hf.images.raster import RasterError
from csmae_hf.images.readers import read_path
from image_processing_csmae import CSMAEImageProcessor

S1 = ("VH", "VV")
S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
ALL_S2 = ("B01", *S2[:8], "B09", *S2[8:])
SIZES = dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 60) | dict.fromkeys(("B01", "B09"), 20)
LEFT, TOP = 404400.0, 5342400.0


def pixels(band: str, seed: int = 0, size: int = 120) -> np.ndarray:
    rng = np.random.default_rng([seed, *band.encode()])
    if band in S1:
        return rng.normal(-12 if band == "VV" else -19, 3, (size, size)).astype(np.float32)
    return rng.integers(100, 4000, (size, size), dtype=np.uint16)


def write(path: Path, layers: Sequence[np.ndarray], names: Sequence[str | None] = (), **profile: Any) -> Path:
    """Write layers that show 1,200 m in UTM zone 33N, or as the profile says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = {name: profile.pop(name) for name in ("scales", "offsets") if name in profile}
    height, width = layers[0].shape
    place = rasterio.Affine(1200 / width, 0, LEFT, 0, -1200 / height, TOP)
    options = {"driver": "GTiff", "crs": "EPSG:32633", "transform": place, "dtype": layers[0].dtype} | profile
    with rasterio.open(path, "w", height=height, width=width, count=len(layers), **options) as target:
        target.write(np.stack(layers))
        for number, name in enumerate(names, start=1):
            if name:
                target.set_band_description(number, name)
        for name, values in tags.items():
            setattr(target, name, values)
    return path


def write_bands(
    folder: Path, pattern: str, bands: Sequence[str], seed: int = 0, native: bool = False, **profile: Any
) -> list[Path]:
    size = {band: SIZES.get(band, 120) if native else 120 for band in bands}
    return [write(folder / pattern.format(band), [pixels(band, seed, size[band])], **profile) for band in bands]


def same(image: Mapping[str, np.ndarray], bands: Sequence[str], seed: int = 0, native: bool = False) -> bool:
    sizes = {band: SIZES.get(band, 120) if native else 120 for band in bands}
    return set(image.keys()) == set(bands) and all(
        np.array_equal(image[band], pixels(band, seed, sizes[band])) for band in bands
    )


READERS: dict[str, Callable[[Path, Sequence[str], str], Mapping[str, np.ndarray]]] = {
    "query": lambda path, bands, sensor: read_image_file(path, bands, sensor=sensor),
    "path": lambda path, bands, sensor: read_path(path, bands, sensor=sensor),
    "upload": lambda path, bands, sensor: read_upload(
        [str(path)] if path.is_file() else sorted(map(str, path.iterdir())), bands, sensor
    ),
    "tiles": lambda path, bands, sensor: load_tiles(path if path.is_dir() else path.parent, sensors={sensor: bands})[0][
        sensor
    ],
}
readers = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


# Names


@readers
@pytest.mark.parametrize("spelled", [[f"B{band.lstrip('B0')}" for band in S2], ["blue", "green", "red", *S2[3:]]])
def test_layers_go_by_their_names_not_their_places(
    tmp_path: Path, read: Callable, spelled: list[str]
) -> None:  # A1, A2
    order = sorted(S2, key=lambda band: band == "B8A")  # Earth Engine's order is not that of many models
    path = write(tmp_path / "x_s2.tif", [pixels(b) for b in order], [spelled[S2.index(b)] for b in order])
    assert same(read(path, S2, "s2"), S2)


@readers
def test_red_and_blue_are_not_exchanged(tmp_path: Path, read: Callable) -> None:  # A3
    order = ["B04", "B03", "B02", "B08"]
    path = write(tmp_path / "x_s2.tif", [pixels(b) for b in order], ["B4", "B3", "B2", "B8"])
    assert same(read(path, ("B02", "B03", "B04", "B08"), "s2"), order)


@readers
@pytest.mark.parametrize("names", [["Sigma0_VV_db", "Sigma0_VH_db"], ["VV", "VH"], ["iw-vv", "iw-vh"]])
def test_polarisations_go_by_their_names(tmp_path: Path, read: Callable, names: list[str]) -> None:  # A4, A5
    path = write(tmp_path / "x_s1.tif", [pixels("VV"), pixels("VH")], names)
    image = read(path, S1, "s1")
    assert same(image, S1)
    assert image.unit == ("db" if names[0].endswith("db") else None)


@pytest.mark.parametrize("complete", [True, False])
def test_two_dates_in_a_query_folder_are_named(tmp_path: Path, complete: bool) -> None:  # A6
    write_bands(tmp_path, "d1_{}.tif", S2, 1)
    write_bands(tmp_path, "d2_{}.tif", S2 if complete else S2[:4], 2)
    for read in (READERS["query"], READERS["path"]):
        with pytest.raises(RasterError, match=r"holds 2 images of s2: d1, d2; expected the files of one"):
            read(tmp_path, S2, "s2")
    with pytest.raises(ValueError, match=r"The set of .* files holds 2 images: 'd1', 'd2'"):
        READERS["upload"](tmp_path, S2, "s2")
    if complete:  # as tiles, each date is one
        data = load_tiles(tmp_path)
        assert list(data["id"]) == ["d1", "d2"]
        assert all(same(row["s2"], S2, seed) for seed, row in enumerate(data, 1))


def test_products_are_not_mixed_where_a_file_is_missing(tmp_path: Path, shared_data: Path) -> None:  # A7
    for product in ("one", "two", "three"):
        for path in sorted((shared_data / "public_files/openeo/icor").glob("*_B0[2348].tif")):
            if (product, path.stem[-3:]) != ("two", "B03"):
                shutil.copy(path, tmp_path / f"{product}_{path.stem[-3:]}.tif")
    with pytest.raises(RasterError, match="holds 3 images of s2: one, three, two"):
        read_path(tmp_path, ["B02", "B03", "B04", "B08"], sensor="s2")


@readers
def test_a_file_of_two_layers_is_not_one_band(tmp_path: Path, read: Callable) -> None:  # A8
    write_bands(tmp_path, "x_{}.tif", S2[1:])
    write(tmp_path / "x_B02.tif", [pixels("B02"), pixels("B03")])
    with pytest.raises(ValueError, match=r"x_B02\.tif has 2 layers and is named after one band, B02"):
        read(tmp_path, S2, "s2")["B02"]


@readers
@pytest.mark.parametrize(
    "pattern",
    [
        "{}.tif",
        "T29RKH_20200219T112111_{}_10m.tif",
        "2023-01-10-00_00_2023-01-10-23_59_Sentinel-2_L2A_{}.tiff",
        "S2B_MSIL2A_20210101T101031_N0214_R022_T33UUP_20210101T120000_{}.TIF",
        "x_{}.jp2",
    ],
)
def test_a_file_a_band_in_the_spelling_of_products(
    tmp_path: Path, read: Callable, pattern: str
) -> None:  # A9, A10, A17
    folder = tmp_path / "place"
    for band in S2:
        name = pattern.format(band.replace("B0", "B") if pattern == "{}.tif" else band)
        jp2 = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"} if name.endswith("jp2") else {}
        write(folder / name, [pixels(band)], **jp2)
    assert same(read(folder, S2, "s2"), S2)


def test_side_files_of_a_product_are_left_out_with_one_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # A10
    write_bands(tmp_path, "T29RKH_20200219T112111_{}_10m.tif", S2)
    for side in ("SCL", "WVP", "AOT", "TCI", "viewZenithMean"):
        write(tmp_path / f"T29RKH_20200219T112111_{side}_10m.tif", [pixels("B02")])
    write(tmp_path / "MSK_CLDPRB_20m.tif", [pixels("B02")])
    (row,) = load_tiles(tmp_path)
    assert row["id"] == "T29RKH_20200219T112111"
    assert same(row["s2"], S2)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "6 files are no bands (aot, msk, scl, tci, viewzenithmean, wvp)" in caplog.text
    assert same(read_path(tmp_path, S2, sensor="s2"), S2)


def test_raw_exports_of_the_copernicus_browser_are_reflectance(tmp_path: Path) -> None:  # A10
    for band in S2:
        exported = np.rint(pixels(band) / 10_000 * 65535).astype(np.uint16)
        write(tmp_path / f"2023-01-10-00_00_2023-01-10-23_59_Sentinel-2_L2A_{band}_(Raw).tiff", [exported])
    (row,) = load_tiles(tmp_path)
    assert row["s2"].unit == "reflectance"
    for band in S2:
        np.testing.assert_allclose(row["s2"][band] * 10_000, pixels(band), atol=0.1)


@readers
def test_layers_that_are_no_bands_are_left(tmp_path: Path, read: Callable) -> None:  # A11
    path = write(
        tmp_path / "x_s1.tif", [*map(pixels, ("VV", "VH")), np.full((120, 120), 38, "f4")], ["VV", "VH", "angle"]
    )
    assert same(read(path, S1, "s1"), S1)
    path = write(tmp_path / "o" / "x_s2.tif", [*map(pixels, S2), *[pixels("B02")] * 2], [*S2, "QA60", "SCL"])
    assert same(read(path, S2, "s2"), S2)


def test_one_file_holds_both_sensors_and_several_dates(tmp_path: Path, shared_data: Path) -> None:  # A12
    layers = [pixels(band, date).astype(np.float64) for date in (0, 1) for band in (*S1, *S2)]
    names = [f"{band.replace('B0', 'B')}{date}" for date in ("", "_1") for band in (*S1, *S2)]
    write(tmp_path / "togo.tif", layers, names)
    data = load_tiles(tmp_path)
    assert list(data["id"]) == ["togo", "togo_1"]
    for date, row in enumerate(data):
        for sensor, bands in (("s1", S1), ("s2", S2)):
            assert same(row[sensor], bands, date)
    real = shared_data / "public_files/gee_time_series"
    data = load_tiles(real, level="L1C")
    assert len(data) == 12 + 24
    with rasterio.open(real / "98-togo_2019-02-06_2020-02-01.tif") as source:
        places = {name: place for place, name in enumerate(source.descriptions, 1)}
        row = next(row for row in data if row["id"] == "98-togo_2019-02-06_2020-02-01_7")
        np.testing.assert_array_equal(row["s1"]["VV"], source.read(places["VV_7"]))
        np.testing.assert_array_equal(row["s2"]["B8A"], source.read(places["B8A_7"]))


@pytest.mark.parametrize(
    "pattern",
    ["l8_{}.tif", "LC08_L1TP_021039_20200101_20200101_01_T1_{}.TIF", "HLS.L30.T29RKH.2020050T112111.v2.0.{}.tif"],
)
def test_landsat_is_refused(tmp_path: Path, pattern: str, caplog: pytest.LogCaptureFixture) -> None:  # A13
    write_bands(tmp_path / "a", pattern, ["B02", "B03", "B04"])
    with pytest.raises(ValueError, match=r"by their names, .*B02.* of (Landsat|HLS-L30) for one"):
        load_tiles(tmp_path / "a")
    with pytest.raises(ValueError, match=r"Landsat|HLS-L30"):
        read_path(tmp_path / "a", ["B02", "B03", "B04"], sensor="s2")
    write_bands(tmp_path / "b", "mine_{}.tif", ["B02", "B03", "B04"])
    assert list(load_tiles(tmp_path)["id"]) == ["mine"]
    assert "of another platform by their names" in caplog.text


def test_label_maps_beside_images_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # A14
    root = tmp_path / "dfc2020_s1s2"
    write(root / "labels" / "p1.tif", [np.ones((120, 120), np.uint8)])
    write(root / "s1" / "p1.tif", list(map(pixels, S1)), S1)
    write(root / "s2" / "p1.tif", list(map(pixels, S2)), S2)
    (row,) = load_tiles(root)
    assert same(row["s1"], S1)
    assert same(row["s2"], S2)
    assert "1 TIFFs are of no sensor and are left alone, labels/p1.tif for one" in caplog.text


def test_an_earth_search_item_is_refused_for_its_size_alone(shared_data: Path, tmp_path: Path) -> None:  # A15
    folder = shared_data / "public_files/earth_search_item"
    data = load_tiles(folder)
    assert list(data["id"]) == ["S2A_29RKH_20200219_0_L2A"]
    with pytest.raises(RasterError, match=r"B0[12]\.tif: the pixels of B0[12] are (600 x 600|100 x 100) m"):
        data[0]["s2"]["B02"]
    item = tmp_path / "S2A_29RKH_20200219_0_L2A"
    write_bands(item, "{}.tif", ALL_S2, native=True)
    shutil.copy(folder / item.name / f"{item.name}.json", item)
    (row,) = load_tiles(tmp_path)
    assert same(row["s2"], ALL_S2, native=True)
    assert (row["s2"].unit, row["s2"].facts.unit_by) == ("dn", f"the STAC item {item.name}.json")


@pytest.mark.parametrize(
    ("s1", "s2", "pair"),
    [
        ("ROIs1970_fall/s1_139/ROIs1970_fall_s1_139_p{}", "ROIs1970_fall/s2_139/ROIs1970_fall_s2_139_p{}", None),
        ("ROIs1158_spring_s1/s1_1/ROIs1158_spring_s1_1_p{}", "ROIs1158_spring_s2/s2_1/ROIs1158_spring_s2_1_p{}", None),
        ("S1Hand/Ghana_{}_S1Hand", "S2Hand/Ghana_{}_S2Hand", None),
        ("s1_0/ROIs0000_validation_s1_0_p{}", "s2_0/ROIs0000_validation_s2_0_p{}", None),
        ("dfc_s1s2/s1/dfc_0_p{}", "dfc_s1s2/s2/dfc_0_p{}", None),
        ("radar_s1/tile-{}-asc", "optical_s2/tile-{}-l2a", r"(tile-[0-9]+)"),
        ("radar/S1_{}_z", "optical/S2_{}_z", "{sensor}_*_z"),
        ("a_s1_before_p{}", "a_s2_after_p{}", r"a_s[12]_(?:before|after)_(p\d+)"),
        ("s1/139/p{}", "s2/139/p{}", "{sensor}/*"),
    ],
)
def test_data_sets_are_paired_by_their_names_or_a_pattern(
    tmp_path: Path, s1: str, s2: str, pair: str | None
) -> None:  # A16
    for number in (1, 2):
        for name, bands in ((s1, S1), (s2, S2)):
            write(tmp_path / f"{name.format(29 + number)}.tif", [pixels(band, number) for band in bands], bands)
    data = load_data(tmp_path, "all", pair=pair)
    assert len(data) == 2
    for number, row in enumerate(data, 1):
        assert same(row["s1"], S1, number)
        assert same(row["s2"], S2, number)


def test_the_cloudy_images_of_sen12ms_cr_are_tiles_of_their_own(tmp_path: Path) -> None:
    for name, bands in (("s1", S1), ("s2", S2), ("s2_cloudy", S2)):
        write(tmp_path / f"{name}_1" / f"ROIs1158_spring_{name}_1_p30.tif", list(map(pixels, bands)), bands)
    data = load_tiles(tmp_path)
    assert list(data["id"]) == ["ROIs1158_spring_1_p30", "ROIs1158_spring_cloudy_1_p30"]
    assert [row["s1"] is None for row in data] == [False, True]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("(p30", "is no pattern"),
        ("p30", "has 0 groups"),
        ("(a)(b)", "has 2 groups"),
        ("(nowhere)", "fits none of the 4 images"),
        ("(ROIs1970)", "takes the same from two s1 images"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(tmp_path: Path, pair: str, message: str) -> None:
    for place in ("p30", "p31"):
        write(tmp_path / f"ROIs1970_s1_{place}.tif", list(map(pixels, S1)), S1)
        write(tmp_path / f"ROIs1970_s2_{place}.tif", list(map(pixels, S2)), S2)
    with pytest.raises(ValueError, match=message):
        load_tiles(tmp_path, pair=pair)


def test_real_jpeg_2000_is_read_and_a_scene_is_refused_before_its_pixels(shared_data: Path) -> None:  # A17
    folder = shared_data / "public_files/jp2"
    with pytest.raises(RasterError, match=r"10,980 x 10,980 pixels.*a scene, not a tile"):
        read_path(folder / "T55XEE_20200911T034541_B08.jp2", ["B08"], sensor="s2")
    found = {image.name: set(image.bands) for image in find_images(folder).images}
    assert found == {"T55XEE_20200911T034541": {"B08"}, "jp2": {"B01", "B05", "B06", "B07"}}


def write_safe(root: Path, offset: int | None, offsets: Mapping[int, int] | None = None) -> Path:
    safe = root / "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T013104.SAFE"
    images = safe / "GRANULE" / "L2A_T01WCP_A041826_20230625T234624" / "IMG_DATA"
    jp2 = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
    for metres, bands in {10: (*S2[:3], "B08"), 20: S2, 60: ("B01", "B09", "B05")}.items():
        for band in bands:
            own = {"B01": 60, "B09": 60}.get(band, 20 if SIZES.get(band) == 60 else 10)
            seed = 0 if own == metres else 9
            path = images / f"R{metres}m" / f"T01WCP_20230625T234621_{band}_{metres}m.jp2"
            write(path, [pixels(band, seed, 1200 // metres)], **jp2)
    write(images / "R20m" / "T01WCP_20230625T234621_SCL_20m.jp2", [np.full((60, 60), 4, np.uint8)], **jp2)
    listed = offsets or ({} if offset is None else dict.fromkeys(range(13), offset))
    values = "".join(f'<BOA_ADD_OFFSET band_id="{band}">{value}</BOA_ADD_OFFSET>' for band, value in listed.items())
    (safe / "MTD_MSIL2A.xml").write_text(
        '<?xml version="1.0"?><n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/"><n1:General_Info>'
        f"<Product_Image_Characteristics><BOA_ADD_OFFSET_VALUES_LIST>{values}</BOA_ADD_OFFSET_VALUES_LIST>"
        "<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>"
        "</Special_Values></Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>"
    )
    return safe


@pytest.mark.parametrize(("offset", "unit"), [(-1000, "dn+1000"), (0, "dn"), (None, "dn")])
def test_a_safe_is_one_image_whose_metadata_say_the_offset(tmp_path: Path, offset: int | None, unit: str) -> None:
    safe = write_safe(tmp_path, offset)
    (row,) = load_tiles(tmp_path)
    assert row["id"] == "T01WCP_20230625T234621"
    assert set(row["s2"]) == set(ALL_S2)
    assert same({band: row["s2"][band] for band in ALL_S2}, ALL_S2, native=True)
    # the metadata's own list, also where the name's baseline would say otherwise
    assert (row["s2"].unit, row["s2"].facts.unit_by) == (unit, "the metadata MTD_MSIL2A.xml")
    assert same(read_path(safe, S2, sensor="s2"), S2, native=True)


def test_offsets_of_single_bands_and_broken_metadata(tmp_path: Path) -> None:
    safe = write_safe(tmp_path, None, {1: -1000, 2: -500})
    image = read_path(safe, S2, sensor="s2")
    assert image.unit == "dn"
    np.testing.assert_array_equal(image["B02"], pixels("B02").astype(np.float32) - 1000)
    np.testing.assert_array_equal(image["B03"], pixels("B03").astype(np.float32) - 500)
    np.testing.assert_array_equal(image["B04"], pixels("B04"))
    (safe / "MTD_MSIL2A.xml").write_text("<half")
    with pytest.raises(RasterError, match=r"MTD_MSIL2A\.xml, the metadata of the image, cannot be read"):
        read_path(safe, S2, sensor="s2")


APPLIED, LEFT_IN = {"earthsearch:boa_offset_applied": True}, {"earthsearch:boa_offset_applied": False}


@pytest.mark.parametrize(
    ("item", "properties", "asset", "unit", "note"),
    [
        ("S2B_33UXP_20250302_0_L2A", APPLIED | {"s2:processing_baseline": "05.11"}, -0.1, "dn", ""),
        ("S2B_33UXP_20250302_0_L2A", LEFT_IN | {"s2:processing_baseline": "05.11"}, -0.1, None, "the pixels decide"),
        ("S2B_33UXP_20190302_0_L2A", LEFT_IN | {"s2:processing_baseline": "02.11"}, 0, "dn", ""),
        ("S2B_33UXP_20250302_0_L2A", {"s2:processing_baseline": "05.11"}, -0.1, None, "the pixels decide"),
        ("S2B_T43QDB_20200110T053549_L2A", {"s2:processing_baseline": "05.00"}, -0.1, "dn+1000", ""),
        ("S2B_MSIL2A_20230110T053549_R062_T43QDB_20230110T100000", {"s2:processing_baseline": "05.09"}, None, "dn+1000", ""),
        ("S2B_MSIL2A_20200110T053549_R062_T43QDB_20200110T100000", {"s2:processing_baseline": "02.13"}, None, "dn", ""),
        ("S2B_MSIL2A_20200110T053549_R062_T43QDB_20200110T100000", {"s2:processing_baseline": "99.99"}, None, None, ""),
    ],
)  # fmt: skip
def test_stac_items_say_the_offset_where_they_can_be_trusted(
    tmp_path: Path, item: str, properties: dict[str, Any], asset: float | None, unit: str | None, note: str
) -> None:
    write_bands(tmp_path / item, "{}.tif", S2)
    assets = {} if asset is None else {"blue": {"raster:bands": [{"scale": 0.0001, "offset": asset}]}}
    assets |= {} if asset is None else dict.fromkeys(S2, assets["blue"])
    collection = "sentinel-2-c1-l2a" if "T43QDB_2020" in item and asset else "sentinel-2-l2a"
    content = {
        "stac_version": "1.0.0",
        "id": item,
        "collection": collection,
        "properties": properties,
        "assets": assets,
    }
    (tmp_path / item / "item.json").write_text(json.dumps(content))
    (row,) = load_tiles(tmp_path)
    assert row["s2"].unit == unit
    assert note in " ".join(row["s2"].facts.notes)
    assert same(row["s2"], S2)


# Words beside a band


@readers
def test_a_word_beside_a_band_that_nobody_knows_is_refused_by_name(tmp_path: Path, read: Callable) -> None:
    path = write(tmp_path / "x_s2.tif", [pixels(band) for band in S2], [f"{band}_whitened" for band in S2])
    with pytest.raises(ValueError, match=r"'whitened' beside a band is not known.*--bands"):
        read(path, S2, "s2")
    said = Said(bands=S2)
    assert same(read_path(path, S2, sensor="s2", said=said), S2)
    write_bands(tmp_path / "files", "x_{}_whitened.tif", S2)
    with pytest.raises(ValueError, match=r"'whitened' beside a band"):
        read(tmp_path / "files", S2, "s2")


@readers
def test_layers_made_of_bands_beside_the_bands_are_left_out(tmp_path: Path, read: Callable) -> None:
    names = [name for band in S2 for name in (f"{band}_stdDev", f"{band}_mean", f"{band}_whitened")]
    layers = [layer for band in S2 for layer in (pixels(band, 1), pixels(band), pixels(band, 2))]
    assert same(read(write(tmp_path / "x_s2.tif", layers, names), S2, "s2"), S2)


@readers
def test_bands_that_are_merely_counted_are_refused(tmp_path: Path, read: Callable) -> None:
    for number in range(1, 5):
        write(tmp_path / "count" / f"Band_{number}.tif", [pixels(f"B0{number}")])
        if number > 1:
            write(tmp_path / "named" / f"x_Band_{number}.tif", [pixels(f"B0{number}")])
    with pytest.raises(ValueError, match="Band 1 to Band 4, which may be a count of layers"):
        dict(read(tmp_path / "count", ("B02", "B03"), "s2").items())
    assert same(read(tmp_path / "named", ("B02", "B03", "B04"), "s2"), ("B02", "B03", "B04"))


@readers
def test_top_of_atmosphere_by_the_descriptions_is_level_1c(tmp_path: Path, read: Callable) -> None:
    path = write(tmp_path / "x_s2.tif", [pixels(band) for band in S2], [f"{band}_TOA" for band in S2])
    with pytest.raises(ValueError, match=r"Level-1C \(top of atmosphere\) by its descriptions"):
        dict(read(path, S2, "s2").items())


def test_raw_radar_exports_of_the_copernicus_browser_are_linear(tmp_path: Path) -> None:
    name = "2023-01-10-00_00_2023-01-10-23_59_Sentinel-1_AWS-IW-VVVH_{}_(Raw).tiff"
    for band in S1:
        write(tmp_path / name.format(band), [np.float32(10) ** (pixels(band) / 10)])
    assert read_path(tmp_path, S1, sensor="s1").unit == "linear"
    assert load_tiles(tmp_path)[0]["s1"].unit == "linear"


# Layouts


def test_labels_beside_the_images_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "s2/p1.tif", [pixels(band) for band in S2], S2)
    for folder in ("labels_s2", "s2_mask", "s2/labels"):
        write(tmp_path / folder / "p1.tif", [pixels("B02", 3)])
    (row,) = load_tiles(tmp_path)
    assert same(row["s2"], S2)
    assert "3 TIFFs are of no sensor and are left alone" in caplog.text


@pytest.mark.parametrize(
    ("s1", "s2", "name"),
    [("7_sen1", "7_sen2", "7"), ("sentinel1/a", "sentinel2/a", "a"), ("a_Sentinel-1", "a_Sentinel-2", "a")],
)
def test_sensors_may_be_spelled_out(tmp_path: Path, s1: str, s2: str, name: str) -> None:
    write(tmp_path / f"{s1}.tif", [pixels(band) for band in S1], S1)
    write(tmp_path / f"{s2}.tif", [pixels(band) for band in S2], S2)
    (row,) = load_tiles(tmp_path)
    assert row["id"] == name
    assert same(row["s1"], S1)
    assert same(row["s2"], S2)


def test_images_of_aws_are_named_by_their_folders(tmp_path: Path) -> None:
    bands = ("B02", "B03", "B04", "B08")
    for day, seed in (("1/26", 0), ("2/5", 1)):
        write_bands(tmp_path / f"tiles/52/S/FA/2022/{day}/0/R10m", "{}.tif", bands, seed)
    first, second = load_tiles(tmp_path)
    assert (first["id"], second["id"]) == ("T52SFA_20220126_0", "T52SFA_20220205_0")
    assert same(first["s2"], bands)
    assert same(second["s2"], bands, 1)


def test_archives_of_arrays_are_tiles(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        np.savez(tmp_path / f"{name}_s1.npz", **{band: pixels(band, seed) for band in S1})
        np.savez(tmp_path / f"{name}_s2.npz", **{band.lower(): pixels(band, seed) for band in S2}, scl=pixels("B02"))
    np.savez(tmp_path / "embeds.npz", x=np.zeros((3, 3)))
    rows = load_tiles(tmp_path)
    assert rows["id"] == ["a", "b"]
    for seed, row in enumerate(rows):
        assert same(row["s1"], S1, seed)
        assert same(row["s2"], S2, seed)
        assert same(read_path(tmp_path / f"{row['id']}_s2.npz", S2, sensor="s2"), S2, seed)


@pytest.mark.parametrize(
    ("crs", "top", "season"), [("EPSG:32759", 5_000_000, "Spring"), ("EPSG:32633", TOP, "Fall"), (None, 0, "Fall")]
)
def test_the_season_is_that_of_the_place(tmp_path: Path, crs: str | None, top: float, season: str) -> None:
    place = {"crs": crs, "transform": rasterio.Affine(10, 0, LEFT, 0, -10, top)} if crs else {"crs": None}
    write_bands(tmp_path, "x_20191015_{}.tif", S2, **place)
    assert load_tiles(tmp_path)["season"] == [season]


# What files declare


@pytest.mark.parametrize("value", [-99.0, -50.0, 0.0, np.nan])
def test_no_data_inside_a_tile_is_no_data_and_is_not_stored(tmp_path: Path, value: float) -> None:  # B1
    bands = {band: pixels(band) for band in S1}
    bands["VV"][40:80, 40:80] = value
    for band, layer in bands.items():
        write(tmp_path / "in" / f"x_{band}.tif", [layer], nodata=value)
    (row,) = load_tiles(tmp_path / "in")
    assert np.isnan(row["s1"]["VV"]).sum() == 1600
    assert row["s1"].facts.no_data == {"VV": 1600}
    report = encode(tmp_path / "in", tmp_path / "out", workers=0)
    (failure,) = report.failures
    assert "1600 pixels of VV are no data" in failure.reason
    assert report.written == 0


def test_the_processor_says_how_many_pixels_the_file_declares_as_no_data(tmp_path: Path) -> None:
    for band in S2:
        layer = pixels(band)
        layer[:3] = 7
        write(tmp_path / f"x_{band}.tif", [layer], nodata=7 if band == "B03" else None)
    for image in (tmp_path, load_tiles(tmp_path)[0]["s2"]):
        with pytest.raises(
            ValueError, match=r"B03 of image 0 has 360 of 14400 .* \(360 of them are no-data, as its file"
        ):
            CSMAEImageProcessor()(s2=image)


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 1), ("int16", 32767), ("uint16", 0)])
def test_no_data_of_optical_tiles_is_not_stored(tmp_path: Path, dtype: str, value: int) -> None:  # B2
    for band in ALL_S2:
        layer = pixels(band, size=SIZES.get(band, 120)).astype(dtype)
        third = len(layer) // 3
        layer[third : 2 * third, third : 2 * third] = value
        write(tmp_path / "in" / f"x_{band}.tif", [layer], nodata=value)
    (failure,) = encode(tmp_path / "in", tmp_path / "out", workers=0).failures
    assert "are no data" in failure.reason


def stored(source: Path, out: Path, **said: Any) -> dict[str, np.ndarray]:
    report = encode(source, out, workers=0, **said)
    assert not report.failures
    (row,) = load_bigearthnet(out)
    return dict(row["s2" if "s2" in row else "s1"].items())


@pytest.mark.parametrize("kind", ["scale 2", "offset tag", "reflectance", "raw", "south-up", "declared", "int16"])
def test_what_is_stored_is_digital_numbers_without_offset_north_up(tmp_path: Path, kind: str) -> None:  # B3, B5
    expected = {}
    for band in ALL_S2:
        size = SIZES.get(band, 120)
        layer = expected[band] = pixels(band, size=size) // 2 * 2
        name, profile = f"x_{band}.tif", {}
        if kind == "scale 2":
            layer, profile = layer // 2, {"scales": (2.0,)}
        elif kind == "offset tag":
            layer, profile = layer + 1000, {"scales": (1e-4,), "offsets": (-0.1,)}
        elif kind == "reflectance":
            layer = (layer / 10_000).astype(np.float32)
        elif kind == "raw":
            layer = np.rint(layer / 10_000 * 65535).astype(np.uint16)
            name = f"2023-01-10_Sentinel-2_L2A_{band}_(Raw).tiff"
        elif kind == "south-up":
            layer = layer[::-1]
            profile = {"transform": rasterio.Affine(1200 / size, 0, LEFT, 0, 1200 / size, TOP - 1200)}
        elif kind == "declared":
            layer = layer + 1000
        elif kind == "int16":
            layer = layer.astype(np.int16)
        write(tmp_path / "in" / name, [layer], **profile)
    unit = {"declared": "dn+1000", "reflectance": "reflectance"}.get(kind)
    found = stored(tmp_path / "in", tmp_path / "out", units={"s2": unit} if unit else None)
    for band in ALL_S2:
        assert found[band].dtype == np.uint16
        np.testing.assert_array_equal(found[band], expected[band])


def test_offsets_that_wrapped_are_not_stored(tmp_path: Path) -> None:  # B4
    for band in ALL_S2:
        layer = pixels(band, size=SIZES.get(band, 120)) - np.uint16(1000)
        write(tmp_path / "in" / f"x_{band}.tif", [layer])
    (failure,) = encode(tmp_path / "in", tmp_path / "out", workers=0).failures
    assert "wrapped" in failure.reason


def test_a_float_file_of_a_late_product_is_no_digital_numbers_by_its_name(tmp_path: Path) -> None:
    name = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T013104"
    for band in S2:
        write(tmp_path / f"{name}_{band}.tif", [(pixels(band) / 10_000).astype("f4")])
    assert load_tiles(tmp_path)[0]["s2"].unit is None
    assert load_tiles(tmp_path, units={"s2": "reflectance"})[0]["s2"].unit == "reflectance"


def test_linear_backscatter_is_stored_in_db_and_its_zeros_are_no_data(tmp_path: Path) -> None:  # B11
    for band in S1:
        write(tmp_path / "in" / f"x_{band}.tif", [(10 ** (pixels(band) / 10)).astype(np.float32)])
    found = stored(tmp_path / "in", tmp_path / "out", units={"s1": "linear"})
    for band in S1:
        assert found[band].dtype == np.float32
        np.testing.assert_allclose(found[band], pixels(band), atol=1e-4)
    power = (10 ** (pixels("VV") / 10)).astype(np.float32)
    power[0, :5] = 0
    write(tmp_path / "in" / "x_VV.tif", [power])
    (row,) = load_tiles(tmp_path / "in", units={"s1": "linear"})
    assert np.isnan(row["s1"]["VV"]).sum() == 5
    np.testing.assert_array_equal(row["s1"]["VV"][1:], power[1:])
    assert encode(tmp_path / "in", tmp_path / "other", units={"s1": "linear"}, workers=0).failures


def test_units_come_by_tile_from_a_table_and_contradictions_are_named(tmp_path: Path) -> None:
    rows = []
    for name, unit in (("old", ""), ("new", "dn+1000")):
        write_bands(tmp_path, f"{name}_{{}}.tif", S2)
        rows.append(",".join([name, unit, *(f"{name}_{band}.tif" for band in S2)]))
    table = tmp_path / "tiles.csv"
    table.write_text("\n".join([",".join(["id", "units_s2", *S2]), *rows]))
    assert {row["id"]: row["s2"].unit for row in load_tiles(table)} == {"old": None, "new": "dn+1000"}
    with pytest.raises(ValueError, match=r"Tile new: the column units_s2 says 'dn\+1000', and units=.* 'dn'"):
        load_tiles(table, units={"s2": "dn"})
    write(tmp_path / "alone" / "a_B02.tif", [pixels("B02")], scales=(1e-4,), offsets=(-0.1,))
    (row,) = load_tiles(tmp_path / "alone", units={"s2": "dn"})
    with pytest.raises(
        RasterError, match=r"the call says dn .*, the scale and offset tags of a_B02\.tif says dn\+1000"
    ):
        row["s2"]["B02"]
    for units, message in (({"s2": "db"}, "expected one of 'dn'"), ({"s9": "dn"}, "unknown sensor")):
        with pytest.raises(ValueError, match=message):
            load_tiles(table, units=units)
    with pytest.raises(ValueError, match="level='L3'"):
        load_tiles(table, level="L3")


# Places


def test_a_south_up_image_and_a_north_up_one_are_a_pair(tmp_path: Path) -> None:  # B5
    write_bands(tmp_path, "x_{}.tif", S1)
    south_up = rasterio.Affine(10, 0, LEFT, 0, 10, TOP - 1200)
    for band in S2:
        write(tmp_path / f"x_{band}.tif", [pixels(band)[::-1]], transform=south_up)
    (row,) = load_tiles(tmp_path)
    assert same(row["s1"], S1)
    assert same(row["s2"], S2)
    (image,) = (image for image in find_images(tmp_path).images if image.sensor == "s2")
    footprint = TiffFolder(tmp_path).footprint(image.key)
    assert (footprint.bottom, footprint.top) == (TOP - 1200, TOP)


@pytest.mark.parametrize(
    "moved",
    [
        {"crs": "EPSG:32634", "transform": rasterio.Affine(10, 0, LEFT, 0, -10, TOP)},
        {"transform": rasterio.Affine(10, 0, LEFT + 50_000, 0, -10, TOP)},
        {"transform": rasterio.Affine(10, 0, LEFT + 130, 0, -10, TOP)},
        {"crs": "EPSG:32730", "transform": rasterio.Affine(10, 0, 600_000, 0, -10, 700_000)},
    ],
)
def test_images_of_two_places_are_no_pair_though_their_names_are_one(
    tmp_path: Path, moved: dict[str, Any]
) -> None:  # B6
    write_bands(tmp_path, "a_{}.tif", S1)
    write_bands(tmp_path, "a_{}.tif", S2, **moved)
    with pytest.raises(
        ValueError, match=r"1 pairs of .* show different ground: a \(s1\) and a \(s2\)|a \(s2\) and a \(s1\)"
    ):
        load_tiles(tmp_path)
    (tmp_path / "t.csv").write_text("id,VV,VH,B02\na,a_VV.tif,a_VH.tif,a_B02.tif\n")
    with pytest.raises(ValueError, match="show different ground"):
        load_tiles(tmp_path / "t.csv")


def test_images_that_overlap_by_nine_tenths_are_a_pair(tmp_path: Path) -> None:
    write_bands(tmp_path, "a_{}.tif", S1)
    write_bands(tmp_path, "a_{}.tif", S2, transform=rasterio.Affine(10, 0, LEFT + 60, 0, -10, TOP))
    assert len(load_tiles(tmp_path)) == 1


@readers
@pytest.mark.parametrize("metres", [20, 30, 100])
def test_pixels_of_another_size_are_refused_with_it(tmp_path: Path, read: Callable, metres: int) -> None:  # B7
    write_bands(tmp_path, "x_{}.tif", S2, transform=rasterio.Affine(metres, 0, LEFT, 0, -metres, TOP))
    with pytest.raises(ValueError, match=rf"the pixels of B02 are {metres} x {metres} m"):
        read(tmp_path, S2, "s2")["B02"]


@readers
@pytest.mark.parametrize(
    ("transform", "turn"),
    [
        (rasterio.Affine(0, 10, LEFT, -10, 0, TOP), np.transpose),
        (rasterio.Affine(0, -10, LEFT + 1200, -10, 0, TOP), np.rot90),
        (rasterio.Affine(0, 10, LEFT, 10, 0, TOP - 1200), lambda layer: np.rot90(layer, -1)),
    ],
)
def test_an_image_turned_by_90_degrees_is_turned_back(
    tmp_path: Path, read: Callable, transform: rasterio.Affine, turn: Callable
) -> None:
    for band in S2:
        write(tmp_path / f"x_{band}.tif", [np.ascontiguousarray(turn(pixels(band)))], transform=transform)
    image = read(tmp_path, S2, "s2")
    assert same(image, S2)
    assert image.facts.bounds == (LEFT, TOP - 1200, LEFT + 1200, TOP)


# Products


def test_level_1c_is_refused_unless_asked_for(shared_data: Path) -> None:  # B9
    order = [*ALL_S2[:8], "B8A", "B09", "B10", "B11", "B12"]
    folder = shared_data / "public_files/terramesh_S2L1C"
    with pytest.raises(RasterError, match=r"is Level-1C .*level='L1C' \(--level L1C\)"):
        load_tiles(folder, bands={"s2": order})[0]["s2"]["B02"]
    row = load_tiles(folder, bands={"s2": order}, level="L1C")[0]
    with rasterio.open(folder / f"{row['id']}.tif") as source:
        np.testing.assert_array_equal(row["s2"]["B8A"], source.read(9))
    image = read_path(folder / f"{row['id']}.tif", S2, sensor="s2", said=Said(level="L1C", bands=tuple(order)))
    assert all(np.array_equal(image[band], row["s2"][band]) for band in S2)


def test_eurosat_is_read_by_the_order_given(shared_data: Path) -> None:
    order = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12", "B8A"]
    data = load_tiles(shared_data / "public_files/eurosat_ms_small", bands={"s2": order}, level="L1C")
    assert len(data) == 6
    with rasterio.open(shared_data / "public_files/eurosat_ms_small/Forest/Forest_1.tif") as source:
        row = next(row for row in data if row["id"] == "Forest_1")
        np.testing.assert_array_equal(row["s2"]["B8A"], source.read(13))


def test_an_uncalibrated_grd_is_called_that(shared_data: Path) -> None:  # B10
    with pytest.raises(RasterError, match=r"holds amplitude, .*calibrated first"):
        read_path(shared_data / "public_files/s1_grd_dn", S1, sensor="s1")


# Archives of arrays


@pytest.mark.parametrize("order", [">", "<"])
def test_arrays_are_read_by_name_in_the_order_of_the_machine(tmp_path: Path, order: str) -> None:  # B12
    path = tmp_path / "x.npz"
    np.savez(path, **{band.replace("B0", "b"): pixels(band).astype(f"{order}u2") for band in S2}, SCL=pixels("B02"))
    for image in (read_path(path, S2, sensor="s2"), read_image_file(path, S2, sensor="s2")):
        assert same(image, S2)
        assert all(band.dtype.isnative for band in image.values())
    assert "scl" in image.facts.notes[0]


def test_archives_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "twice.npz", B2=pixels("B02"), B02=pixels("B02"))
    with pytest.raises(RasterError, match="more than one layer B02"):
        read_path(tmp_path / "twice.npz", ["B02"], sensor="s2")
    np.savez(tmp_path / "plain.npz", np.zeros((2, 120, 120)))
    with pytest.raises(RasterError, match=r"holds arr_0 2x120x120; expected an array \(H, W\) for each band"):
        read_path(tmp_path / "plain.npz", S1, sensor="s1")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(RasterError, match=r"broken\.npz cannot be read"):
        read_path(tmp_path / "broken.npz", S1, sensor="s1")
    with pytest.raises(RasterError, match="lacks VV of s1; it has VH"):
        image_of_arrays({"VH": pixels("VH")}, S1, sensor="s1")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_path(tmp_path / "nowhere.tif", S1, sensor="s1")


# All readers


def test_every_reader_gives_equal_bands_for_every_real_file(shared_data: Path) -> None:
    compared = 0
    roots = [
        shared_data / V1_EXAMPLES,
        shared_data / "rico_hdl_reben_tiffs",
        *(shared_data / "ssl4eo_s12_location_0000200" / part for part in ("s1", "s2a")),
    ]
    for root in roots:
        folder = TiffFolder(root)
        images = {image.key: image for image in find_images(root).images}
        for row in load_tiles(root):
            for sensor in {"s1", "s2"} & set(row):
                tile = row[sensor]
                if tile is None:
                    continue
                first = next(iter(images[tile.key].paths(folder.path)))
                for name in ("query", "path", "upload"):
                    if name == "upload":
                        files = [str(path) for path in images[tile.key].paths(folder.path)]
                        image = read_upload(files, list(tile), sensor)
                    else:
                        image = READERS[name](first.parent, list(tile), sensor)
                    assert isinstance(image, BandImage)
                    assert (image.unit, image.facts) == (tile.unit, tile.facts)
                    for band in tile:
                        assert image[band].dtype == tile[band].dtype
                        np.testing.assert_array_equal(image[band], tile[band])
                    compared += 1
    assert compared == 3 * (12 + 2 + 2 + 2)


# What catalogues and tags say of the offset


@pytest.mark.parametrize("read", [READERS[name] for name in ("query", "path", "tiles")])
@pytest.mark.parametrize("more", [0, 1000])
def test_where_a_catalogue_cannot_be_trusted_the_pixels_decide(tmp_path: Path, read: Callable, more: int) -> None:
    item = tmp_path / "S2A_29SND_20230518_0_L2A"
    for band in S2:
        write(item / f"{band}.tif", [pixels(band) + np.uint16(more)])
    properties = LEFT_IN | {"s2:processing_baseline": "05.09"}
    content = {"stac_version": "1.0.0", "id": item.name, "collection": "sentinel-2-l2a", "properties": properties}
    (item / f"{item.name}.json").write_text(json.dumps(content))
    image = read(item, S2, "s2")
    if more:
        assert image.unit == "dn+1000"
    processor = CSMAEImageProcessor()
    plain = processor(s2={band: pixels(band) for band in S2})["s2"]
    assert (processor(s2=image)["s2"] == plain).all()
    assert f"is {'' if more else 'not '}in them" in " ".join(image.facts.notes)


def test_bright_ground_does_not_decide_the_offset(tmp_path: Path) -> None:
    """Desert: as bright in the visible as with the offset, and far brighter in the short-wave infrared."""
    item = tmp_path / "S2A_29SND_20230518_0_L2A"
    for band in S2:
        bright = pixels(band).astype(np.int64) % 500 + (1000 if band in ("B02", "B03", "B04") else 3500)
        write(item / f"{band}.tif", [bright.astype(np.uint16)])
    content = {"stac_version": "1.0.0", "id": item.name, "properties": LEFT_IN | {"s2:processing_baseline": "05.09"}}
    (item / f"{item.name}.json").write_text(json.dumps(content))
    assert read_path(item, S2, sensor="s2").unit is None


def test_tags_without_the_offset_contradict_a_name_with_it(tmp_path: Path) -> None:
    path = tmp_path / "S2B_MSIL2A_20210415T105619_N0500_R094_T30TXN_20230101T000000.tif"
    write(path, [pixels(band) for band in S2], S2)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,) * len(S2), (0.0,) * len(S2)
    with pytest.raises(
        RasterError, match=r"scale and offset tags .* says dn .*baseline 05.00 in its name says dn\+1000"
    ):
        read_path(path, S2, sensor="s2")
    with rasterio.open(path, "r+") as file:
        file.offsets = (-0.1,) * len(S2)
    assert read_path(path, S2, sensor="s2").unit == "dn+1000"


@pytest.mark.parametrize("name", ["LC09_L2SP_190024_20230101_20230110_02_T1_SR_{}", "L8_SR_{}"])
def test_surface_reflectance_of_landsat_is_called_landsat(tmp_path: Path, name: str) -> None:
    for number in (2, 3, 4, 5, 6, 7):
        write(tmp_path / f"{name.format(f'B{number}')}.TIF", [pixels(f"B0{number}")])
    assert set(find_images(tmp_path).others.values()) == {"Landsat"}
    with pytest.raises(RasterError, match="of Landsat by its name"):
        read_path(tmp_path, S2, sensor="s2")
    with pytest.raises(ValueError, match="of Landsat for one"):
        load_tiles(tmp_path)


def test_names_of_sensors_alone_ask_for_all_their_bands(tmp_path: Path) -> None:
    write_bands(tmp_path, "x_{}.tif", S1)
    write_bands(tmp_path, "x_{}.tif", S2)
    assert [name for name in ("s1", "s2") if name in load_tiles(tmp_path, sensors=["s2"]).column_names] == ["s2"]
    assert same(load_tiles(tmp_path, sensors="s1")[0]["s1"], S1)


def test_one_path_for_two_bands_of_a_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "stack.tif", [pixels("VV"), pixels("VH")], ["VV", "VH"])
    (tmp_path / "tiles.csv").write_text("id,VV,VH\nx,stack.tif,stack.tif\n")
    with pytest.raises(ValueError, match=r"Tile x has one path for several bands of s1 .*goes into the column s1"):
        load_tiles(tmp_path / "tiles.csv")
