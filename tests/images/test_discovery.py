"""Which files of a folder belong together, and what the images are called."""

from pathlib import Path

import numpy as np
import pytest
from tiff_files import RICO_EXAMPLES, V1_EXAMPLES, random_band, write_tiff

from csmae_hf.bigearthnet import S1_BANDS, S2_BANDS
from csmae_hf.images.discovery import REFERENCE_MAP, find_images
from csmae_hf.images.geotiff import TiffFolder

pytest.importorskip("rasterio")


def names(folder: Path) -> list[tuple[str, str]]:
    return [(image.sensor, image.name) for image in find_images(folder).images]


def test_the_real_v1_layout_is_found_whole(shared_data: Path) -> None:
    root = shared_data / V1_EXAMPLES
    found = find_images(root)
    folders = {path.parent.name for path in root.glob("*/*/*.tif")}
    assert {image.name for image in found.images} == folders
    assert len(folders) == 12
    assert {image.bands for image in found.images} == {S1_BANDS, S2_BANDS}
    assert found.ignored == []


def test_the_real_v2_layout_is_found_with_its_reference_map(shared_data: Path) -> None:
    assert names(shared_data / RICO_EXAMPLES) == [
        (REFERENCE_MAP, "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57_reference_map"),
        ("s1", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_70_48"),
        ("s2", "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43"),
    ]


def test_real_ssl4eo_folders_are_found_though_their_bands_are_spelled_b2(shared_data: Path) -> None:
    found = find_images(shared_data / "ssl4eo_s12_location_0000200" / "s2c").images
    assert [image.name for image in found] == [
        "20200604T054639_20200604T054831_T43RCP",
        "20200823T054639_20200823T055618_T43RCP",
    ]
    assert set(found[0].bands) == {*S2_BANDS, "B10"}


def test_real_stacked_files_are_of_the_sensor_their_folder_says_and_others_are_named(shared_data: Path) -> None:
    found = find_images(shared_data / "terramind_examples")
    assert len(found.images) == 10
    assert {(image.sensor, image.files[0].path.split("/")[0]) for image in found.images} == {
        ("s1", "S1RTC"),
        ("s2", "S2L2A"),
    }
    assert len(found.ignored) == 5
    assert all(path.startswith("LULC/") for path in found.ignored)


@pytest.mark.parametrize(
    ("s1", "s2"),
    [
        ("a_VV.tif", "a_B02.tif"),
        ("a/VV.tif", "a/B2.tif"),
        ("a/s1/vv.TIFF", "a/s2/b02.tif"),
        ("a_s1_VV.tif", "a_s2_B02.tif"),
        ("s1/a.tif", "s2/a.tif"),
        ("a_s1.tif", "a_s2.tif"),
        ("a/S1.tif", "a/S2.tif"),
        ("S1GRD/a.tif", "S2L2A/a.tif"),
        ("a_s1rtc.tif", "a-s2l2a.tif"),
        ("radar/a.tif", "optical/a.tif"),
    ],
)
def test_images_of_one_tile_get_one_name_in_every_layout(tmp_path: Path, s1: str, s2: str) -> None:
    write_tiff(tmp_path / s1, [random_band("VV")], ["VV"])
    write_tiff(tmp_path / s2, [random_band("B02")], ["B02"])
    assert names(tmp_path) == [("s1", "a"), ("s2", "a")]
    folder = TiffFolder(tmp_path)
    for image, band in zip(find_images(tmp_path).images, ("VV", "B02"), strict=True):
        np.testing.assert_array_equal(folder.read(image.key)[band], random_band(band))


def test_two_files_for_one_band_are_refused(tmp_path: Path) -> None:
    for name in ("a_B2.tif", "a_B02.tif"):
        write_tiff(tmp_path / name, [random_band("B02")])
    with pytest.raises(ValueError, match="more than one file for the band B02"):
        find_images(tmp_path)


def test_links_that_lead_up_are_not_followed_in_circles(tmp_path: Path) -> None:
    write_tiff(tmp_path / "data" / "a_VV.tif", [random_band("VV")])
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "data" / "a_VV.tif")
    assert names(tmp_path) == [("s1", "a")]


def test_linked_folders_are_read(tmp_path: Path) -> None:
    write_tiff(tmp_path / "elsewhere" / "a_VV.tif", [random_band("VV")])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "BigEarthNet-S1").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "data") == [("s1", "a")]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    for opening in (find_images, TiffFolder):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            opening(tmp_path / "nowhere")


def test_a_file_given_for_a_folder_is_called_a_file(tmp_path: Path) -> None:
    (tmp_path / "one.tif").write_bytes(b"II*\0")
    with pytest.raises(FileNotFoundError, match=r"No folder .*one\.tif.* This is a file: give the folder"):
        find_images(tmp_path / "one.tif")
