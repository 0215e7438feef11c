import numpy as np
import pytest

from csmae_hf.app.uploads import MOST_BYTES, read_upload

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
BANDS = ["VH", "VV"]


def write(path, pixels, names=None, **options):
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, **options
    ) as file:
        file.write(pixels)
        for number, name in enumerate(names or (), start=1):
            file.set_band_description(number, name)
    return str(path)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).normal(-12, 3, (2, 8, 8)).astype(np.float32)


def test_bands_are_found_by_their_names(tmp_path, pixels):
    read = read_upload([write(tmp_path / "a.tif", pixels, ["VV", "VH"])], BANDS)
    np.testing.assert_array_equal(read["VH"], pixels[1])


def test_a_file_for_each_band_is_one_image(tmp_path, pixels):
    paths = [write(tmp_path / f"tile_{name}.tif", pixels[n : n + 1]) for n, name in enumerate(("VV", "VH"))]
    read = read_upload(paths, BANDS)
    np.testing.assert_array_equal(read["VV"], pixels[0])
    with pytest.raises(ValueError, match="The set of 2 files lacks VV; it has VH, B02"):
        read_upload([paths[1], write(tmp_path / "tile_B02.tif", pixels[:1])], BANDS)


def test_two_files_of_one_name_are_refused(tmp_path, pixels):
    (tmp_path / "other").mkdir()
    paths = [write(folder / "a_VV.tif", pixels[:1]) for folder in (tmp_path, tmp_path / "other")]
    with pytest.raises(ValueError, match="Two of the 2 files"):
        read_upload(paths, BANDS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("picture.jpg", b"\xff\xd8\xff\xe0 JFIF"),
        ("picture.tif", b"\xff\xd8\xff\xe0 JFIF"),
        ("pixels.npz", b"PK\x03\x04"),
        ("empty.tif", b""),
        # GDAL would open these, and with them files of this machine, or addresses.
        ("virtual.tif", b'<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>'),
        ("service.tif", b"<GDAL_WMS><Service/></GDAL_WMS>"),
    ],
)
def test_what_is_no_tiff_is_refused_by_its_first_bytes(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is no GeoTIFF"):
        read_upload([str(tmp_path / name)], BANDS)


def test_a_broken_tiff_is_refused_without_its_place_on_this_machine(tmp_path, pixels):
    path = tmp_path / "broken.tif"
    write(path, pixels)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"broken.tif") as caught:
        read_upload([str(path)], BANDS)
    assert str(tmp_path) not in str(caught.value)


def test_large_files_are_refused_unread(tmp_path):
    path = tmp_path / "large.tif"
    with path.open("wb") as file:
        file.write(b"II*\0")
        file.truncate(2 * 2**30)
    assert path.stat().st_size > MOST_BYTES
    with pytest.raises(ValueError, match="2,048 MB"):
        read_upload([str(path)], BANDS)


def test_few_bytes_that_hold_a_whole_scene_are_refused_unread(tmp_path):
    path = write(tmp_path / "scene.tif", np.zeros((2, 4000, 4000), np.uint8), compress="deflate")
    with pytest.raises(ValueError, match="a scene, not a tile"):
        read_upload([path], BANDS)


def test_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No file"):
        read_upload([], BANDS)
