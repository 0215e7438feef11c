"""What is read of GeoTIFFs, and where they lie."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiff_files import RICO_EXAMPLES, V1_EXAMPLES, random_band, read_tiff, write_tiff

from csmae_hf.images.band_names import canonical_band
from csmae_hf.images.discovery import find_images
from csmae_hf.images.geotiff import Footprint, TiffFolder
from csmae_hf.images.raster import RasterError

pytest.importorskip("rasterio")


def test_every_real_band_is_read_as_rasterio_reads_it(shared_data: Path) -> None:
    compared = 0
    for root in (shared_data / V1_EXAMPLES, shared_data / RICO_EXAMPLES, shared_data / "ssl4eo_s12_location_0000200"):
        folder = TiffFolder(root)
        for image in find_images(root).images:
            arrays = folder.read(image._replace(level="L1C" if "B10" in image.bands else None).key)
            for files in image.files:
                for spelled in files.bands:
                    expected = read_tiff(root / files.path.replace("*", spelled))
                    found = arrays[canonical_band(spelled) or spelled]
                    assert found.dtype == expected.dtype
                    np.testing.assert_array_equal(found, expected)
                    compared += 1
    assert compared == 6 * 14 + 2 + 12 + 1 + 2 * (2 + 12 + 13)


def test_only_the_bands_asked_for_are_opened(shared_data: Path, tmp_path: Path) -> None:
    write_tiff(tmp_path / "a_B02.tif", [random_band("B02")])
    (tmp_path / "a_B03.tif").write_bytes(b"no TIFF")
    image = find_images(tmp_path).images[0]
    folder = TiffFolder(tmp_path)
    assert list(folder.read(image.key, ["B02"])) == ["B02"]
    with pytest.raises(RasterError, match=r"a_B03\.tif cannot be read: by its first bytes"):
        folder.read(image.key)


def test_bands_of_a_stack_come_by_the_names_it_has_whatever_their_order(tmp_path: Path) -> None:
    arrays = [random_band("VV"), random_band("VH")]
    write_tiff(tmp_path / "a_s1.tif", arrays, ["VV", "VH"])
    write_tiff(tmp_path / "b_s1.tif", arrays[::-1], ["VH", "vv"])
    folder = TiffFolder(tmp_path)
    for image in find_images(tmp_path).images:
        read = folder.read(image.key)
        assert list(read) == ["VH", "VV"]
        assert list(folder.read(image.key, ["VV"])) == ["VV"]
        np.testing.assert_array_equal(read["VV"], arrays[0])
        np.testing.assert_array_equal(read["VH"], arrays[1])


def with_names(folder: Path, bands: tuple[str, ...]) -> str:
    image = find_images(folder).images[0]
    return image._replace(files=(image.files[0]._replace(bands=bands),)).key


def test_a_stack_without_names_needs_them_and_they_must_fit(tmp_path: Path) -> None:
    arrays = [random_band("VV"), random_band("VH")]
    write_tiff(tmp_path / "a_s1.tif", arrays)
    folder = TiffFolder(tmp_path)
    with pytest.raises(RasterError, match="does not name its 2 bands"):
        folder.read(with_names(tmp_path, ()))
    with pytest.raises(RasterError, match="has 2 bands; names were given for 3"):
        folder.read(with_names(tmp_path, ("VV", "VH", "B02")))
    np.testing.assert_array_equal(folder.read(with_names(tmp_path, ("VV", "VH")))["VH"], arrays[1])


def test_names_that_contradict_the_file_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a_s1.tif", [random_band("VV"), random_band("VH")], ["VV", "VH"])
    with pytest.raises(RasterError, match="says that its bands are VV, VH; given was another order, VH, VV"):
        TiffFolder(tmp_path).read(with_names(tmp_path, ("VH", "VV")))


def test_a_stack_named_like_a_single_band_is_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a_VV.tif", [random_band("VV"), random_band("VH")])
    with pytest.raises(RasterError, match=r"a_VV\.tif has 2 layers and is named after one band, VV"):
        TiffFolder(tmp_path).read(find_images(tmp_path).images[0].key)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "overwritten"])
def test_a_file_that_cannot_be_read_is_named(shared_data: Path, tmp_path: Path, damage: str) -> None:
    source = next((shared_data / V1_EXAMPLES).rglob("*_B02.tif"))
    target = tmp_path / source.name
    content = source.read_bytes()
    target.write_bytes(content)
    key = find_images(tmp_path).images[0].key
    if damage == "gone":
        target.unlink()
    else:
        target.write_bytes(
            {"cut": content[: len(content) // 2], "empty": b"", "overwritten": b"x" * len(content)}[damage]
        )
    with pytest.raises(RasterError, match=source.name):
        TiffFolder(tmp_path).read(key)


def test_a_band_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a_VV.tif", [random_band("VV")])
    with pytest.raises(RasterError, match="lacks VH of s1; it has VV"):
        TiffFolder(tmp_path).read(find_images(tmp_path).images[0].key, ["VH", "VV"])


# Where it lies


def test_footprints_are_those_the_real_jsons_give_though_s1_misspells_one_coordinate(shared_data: Path) -> None:
    root = shared_data / V1_EXAMPLES
    folder = TiffFolder(root)
    misspelled = 0
    for image in find_images(root).images:
        directory = (root / image.files[0].path).parent
        place = json.loads((directory / f"{image.name}_labels_metadata.json").read_text())["coordinates"]
        misspelled += "lly" in place
        lower = place["lry"] if "lry" in place else place["lly"]
        footprint = folder.footprint(image.key)
        assert footprint[1:] == (place["ulx"], lower, place["lrx"], place["uly"])
        assert footprint.crs is not None
        assert footprint.crs.startswith("EPSG:326")
    assert misspelled == 6


def test_a_footprint_becomes_a_geojson_polygon_on_the_globe(shared_data: Path) -> None:
    root = shared_data / V1_EXAMPLES
    image = find_images(root).images[0]
    polygon = TiffFolder(root).footprint(image.key).to_polygon()
    ring = np.array(polygon["coordinates"][0])
    assert polygon["type"] == "Polygon"
    assert ring.shape == (5, 2)
    np.testing.assert_array_equal(ring[0], ring[-1])
    assert json.loads(json.dumps(polygon)) == polygon
    # tile 33UUP of Austria: UTM zone 33 reaches from 12 to 18 degrees east, and 5,341 km from the equator is 48 degrees north
    assert 13.7 < ring[:, 0].min() < ring[:, 0].max() < 13.8
    assert 48.2 < ring[:, 1].min() < ring[:, 1].max() < 48.3
    area = np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1])
    assert area > 0  # counter-clockwise, as GeoJSON wants


def test_an_image_without_coordinates_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no coordinate reference system"):
        Footprint(None, 0, 0, 120, 120).to_polygon()
