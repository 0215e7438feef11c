"""The one place where image files are opened: what is let in, and what is said of the others."""

import re
from pathlib import Path

import pytest
from tiff_files import random_band, write_tiff

from csmae_hf.images.raster import RasterError, describe, open_raster

pytest.importorskip("rasterio")
ROOT = Path(__file__).parents[2]


def test_a_file_that_names_another_file_is_not_opened_for_it(tmp_path: Path) -> None:
    write_tiff(tmp_path / "secret.tif", [random_band("B02")])
    virtual = tmp_path / "virtual.tif"
    virtual.write_text(
        '<VRTDataset rasterXSize="120" rasterYSize="120"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{tmp_path / "secret.tif"}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    import rasterio

    with rasterio.open(virtual) as source:  # as GDAL would
        assert source.read().shape == (1, 120, 120)
    with pytest.raises(RasterError, match=r"virtual\.tif cannot be read: by its first bytes"), open_raster(virtual):
        pass


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match=r"gone\.tif is not there"), open_raster(tmp_path / "gone.tif"):
        pass


def test_what_it_declares_is_read_without_its_pixels(tmp_path: Path) -> None:
    raster = describe(write_tiff(tmp_path / "a.tif", [random_band("VV"), random_band("VH")], ["VV", "VH"]))
    assert [layer.description for layer in raster.layers] == ["VV", "VH"]
    assert raster.grid[:4] == ("EPSG:32633", (404400, 5341200, 405600, 5342400), (120, 120), (10, 10))


def test_nothing_else_in_the_package_opens_image_files() -> None:
    opens = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "csmae_hf").rglob("*.py"))
        if re.search(r"rasterio\.open\(", path.read_text())
    ]
    assert opens == ["csmae_hf/images/raster.py"]
