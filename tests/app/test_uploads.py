import numpy as np
import pytest

from csmae_hf.app.uploads import MOST_BYTES, cut_middle, read_upload
from csmae_hf.images.image import BandImage, Facts

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


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.tif", b"", "is empty, 0 bytes"),
        ("tiles.zip", b"PK\x03\x04", "unpack it"),
        ("LC08_L1TP_193024_20200101_20200113_01_T1_B2.tif", b"II*\0", "is of Landsat"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path, pixels, name, content, words):
    if name.startswith("LC08"):
        write(tmp_path / name, pixels[:1])
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_upload([str(tmp_path / name)], ["B02"], "s2")


def numbered(rows, columns):
    """Pixels that say where they are."""
    return (np.arange(rows)[:, None] * 1000 + np.arange(columns)).astype(np.float32)


def test_the_middle_of_a_larger_image_is_cut_at_its_own_pixels():
    image = BandImage(
        {"B02": numbered(200, 240), "B05": numbered(100, 120), "B01": numbered(33, 40)},
        Facts(metres={"B02": 10, "B05": 20, "B01": 60}, crs="EPSG:32633", bounds=(0, 0, 2400, 2000)),
    )
    cut = cut_middle(image, 120)
    # of 198 x 240 pixels that all bands have, from row 36 and column 60: whole pixels of 60 m
    np.testing.assert_array_equal(cut["B02"], numbered(200, 240)[36:156, 60:180])
    np.testing.assert_array_equal(cut["B05"], numbered(100, 120)[18:78, 30:90])
    np.testing.assert_array_equal(cut["B01"], numbered(33, 40)[6:26, 10:30])
    assert cut.facts.bounds == (600, 440, 1800, 1640)
    assert "middle, 120 x 120 pixels of 10 m, of 198 x 240" in cut.facts.notes[0]


def test_what_is_no_larger_than_a_tile_has_no_middle():
    assert cut_middle(BandImage({"VV": numbered(120, 120)}, Facts()), 120) is None
    assert cut_middle(BandImage({"VV": numbered(119, 400)}, Facts()), 120) is None
    assert cut_middle(BandImage({"B02": numbered(120, 120), "B01": numbered(20, 20)}, Facts()), 120) is None


def test_no_data_outside_the_middle_is_forgotten():
    pixels = numbered(300, 300)
    pixels[:5] = np.nan
    cut = cut_middle(BandImage({"VV": pixels}, Facts(no_data={"VV": 1500})), 120)
    assert cut.facts.no_data == {}
    np.testing.assert_array_equal(cut["VV"], numbered(300, 300)[90:210, 90:210])
