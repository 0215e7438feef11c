"""What the page says of images that it refuses, and what it offers."""

import html
import re

import numpy as np
import pytest
import torch

from csmae_hf import CSMAEImageProcessor
from csmae_hf.app.remedies import Reading, in_words
from csmae_hf.app.uploads import read_upload
from csmae_hf.embedding.embed import embed_images
from csmae_hf.images.image import Said
from csmae_hf.sample.generate import generate_sample

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NOT_ON_A_PAGE = re.compile(
    r"--\w|=\{|='|\btorch\b|_tiles|gdal_|Python|command|\bargument|image 0|/tmp|processor|dict\b"
)
"""What a person at the page can neither see nor type."""


class Nothing(torch.nn.Module):
    """A model that is never reached by a wrong image."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = type("Config", (), {"sensors": CSMAEImageProcessor().sensors})()


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """A generated tile by sensor and band, all of 120 x 120 pixels."""
    from csmae_hf.data.load import load_data

    folder = tmp_path_factory.mktemp("tiles")
    generate_sample(folder, tiles=5, seed=0)
    row = load_data(str(folder), "all")[0]
    return {
        sensor: {
            band: np.kron(pixels, np.ones((120 // len(pixels),) * 2, pixels.dtype))
            for band, pixels in row[sensor].items()
        }
        for sensor in ("s1", "s2")
    }


def write(path, bands, *, named=True, **place):
    pixels = np.stack(list(bands.values()))
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(pixels),
        height=pixels.shape[1],
        width=pixels.shape[2],
        dtype=pixels.dtype,
        **place,
    ) as file:
        file.write(pixels)
        for number, name in enumerate(bands if named else (), start=1):
            file.set_band_description(number, name)
    return path


def of_all(bands, change):
    return {name: change(pixels) for name, pixels in bands.items()}


def on_grid(*terms):
    return {"crs": "EPSG:32633", "transform": rasterio.Affine(*terms)}


def holed(pixels, value):
    pixels = pixels.copy()
    pixels[:3] = value
    return pixels


L1C = "S2A_MSIL1C_20200101T101010_N0208_R022_T33UUP_20200101T120000.tif"
KINDS = {
    # name of the file: sensor, what is written, words that are said, what the buttons do
    "small.tif": ("s1", lambda b: of_all(b, lambda p: p[:50, :50]), "50 x 50 pixels: expected 120 x 120", {}),
    "nan.tif": ("s1", lambda b: of_all(b, lambda p: holed(p, np.nan)), "360 of 14400 values NaN", {}),
    "nodata.tif": ("s1", lambda b: of_all(b, lambda p: holed(p, -9999)), "no-data", {}),
    "linear.tif": (
        "s1",
        lambda b: of_all(b, lambda p: 10 ** (p / 10)),
        "choose “backscatter in linear power” to convert",
        {"Convert it from backscatter in linear power": {"unit": "linear"}},
    ),
    "amplitude.tif": (
        "s1",
        lambda b: of_all(b, lambda p: (1000 * 10 ** (p / 20)).astype(np.uint16)),
        "holds amplitude",
        {},
    ),
    "swapped.tif": (
        "s1",
        lambda b: {"VV": b["VH"], "VH": b["VV"]},
        "VH brighter than VV",
        {"Take it all the same": {"accept": True}},
    ),
    "standardised.tif": (
        "s1",
        lambda b: of_all(b, lambda p: ((p - p.mean()) / 5).astype(np.float32)),
        "standardised already",
        {},
    ),
    "missing.tif": ("s2", lambda b: {name: b[name] for name in b if name not in ("B11", "B12")}, "lacks B11, B12", {}),
    "offset.tif": (
        "s2",
        lambda b: of_all(b, lambda p: p + 1000),
        "Choose “digital numbers with the offset",
        {
            "Convert it from digital numbers with the offset of processing baseline 04.00, reflectance x 10000 + 1000": {
                "unit": "dn+1000"
            },
            "Take it as digital numbers, reflectance x 10000": {"unit": "dn"},
        },
    ),
    "reflectance.tif": (
        "s2",
        lambda b: of_all(b, lambda p: (p / 1e4).astype(np.float32)),
        "choose “reflectance 0-1” to convert",
        {"Convert it from reflectance 0-1": {"unit": "reflectance"}},
    ),
    "percent.tif": ("s2", lambda b: of_all(b, lambda p: (p / 100).astype(np.float32)), "in percent", {}),
    "bytes.tif": ("s2", lambda b: of_all(b, lambda p: np.clip(p / 20, 0, 255).astype(np.uint8)), "type uint8", {}),
    "copy.tif": ("s2", lambda b: {**b, "B03": b["B02"]}, "S2 bands B02 and B03 have the same pixels", {}),
    L1C: ("s2", dict, "or take it all the same", {"Take Level-1C all the same": {"level": "L1C"}}),
    "l8_LC08_B2.tif": ("s2", dict, "is of Landsat", {}),
    "counted.tif": (
        "s2",
        lambda b: {f"Band {n}": p for n, p in enumerate(b.values(), start=1)},
        "Type their names, in the order of the file, into the field",
        {},
    ),
    "made.tif": ("s1", lambda b: {"VV_smooth": b["VV"], "VH_smooth": b["VH"]}, "VV", {}),
}


def bring(path, sensor, said=None):
    processor = CSMAEImageProcessor()
    image = read_upload([str(path)], processor.sensors[sensor], sensor, said)
    return embed_images(Nothing(), processor, [image], sensor, [path.name])


def refusal(path, sensor, said=None):
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        bring(path, sensor, said)
    return str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_a_wrong_image_is_answered_in_words_of_the_field(name, tile, tmp_path):
    sensor, change, words, offers = KINDS[name]
    message = refusal(write(tmp_path / name, change(tile[sensor])), sensor)
    said = in_words(message)
    assert words in said
    assert name in said
    assert not NOT_ON_A_PAGE.search(said), said
    assert str(tmp_path) not in said
    reading = Reading(sensor)
    assert dict(reading.offers(message)) == {
        label: Reading(**{"sensor": sensor, **changed}) for label, changed in offers.items()
    }


@pytest.mark.parametrize(
    ("terms", "words"),
    [((7, 7, 4e5, 7, -7, 5e6), "rotated against north. Warp"), ((100, 0, 4e5, 0, -100, 5e6), "100 x 100 m")],
)
def test_a_wrong_place_is_answered_in_words_of_the_field(terms, words, tile, tmp_path):
    said = in_words(refusal(write(tmp_path / "place.tif", tile["s1"], **on_grid(*terms)), "s1"))
    assert words in said
    assert not NOT_ON_A_PAGE.search(said), said


def test_unnamed_bands_are_asked_for_by_the_field_of_the_page(tile, tmp_path):
    said = in_words(refusal(write(tmp_path / "unnamed.tif", tile["s1"], named=False), "s1"))
    assert "does not name its 2 bands" in said
    assert "into the field for its bands" in said
    assert not NOT_ON_A_PAGE.search(said), said


def test_a_unit_that_was_chosen_in_vain_can_be_taken_back(tile, tmp_path):
    path = write(tmp_path / "db.tif", tile["s1"])
    message = refusal(path, "s1", Said(unit="linear"))
    assert not NOT_ON_A_PAGE.search(in_words(message)), in_words(message)
    assert Reading("s1", "linear").offers(message) == [("Take it as the file says", Reading("s1"))]


def test_a_button_says_how_files_are_read():
    reading = Reading("s2", "dn+1000", accept=True, cut=True)
    held = re.search('data-reading="([^"]*)"', reading.button("Convert <it>"))[1]

    assert Reading.from_json(html.unescape(held)) == reading
    with pytest.raises(ValueError, match="Unknown choice"):
        Reading.from_json('{"sensor": "s1", "path": "/etc/passwd"}')
