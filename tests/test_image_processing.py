"""The image processor: the right numbers from real tiles, in any form, and no number from a wrong one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor

import csmae_hf  # noqa: F401 (registers the Auto classes)
from csmae_hf.data.dataset import load_bigearthnet
from image_processing_csmae import CSMAEImageProcessor, resample_bicubic

S1_BANDS = ["VH", "VV"]
S2_BANDS = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A"]
STATISTICS = {  # BigEarthNet-MM v1, as the original's reader has them
    "B02": (429.9430203, 572.41639287),
    "B03": (614.21682446, 582.87945694),
    "B04": (590.23569706, 675.88746967),
    "B08": (2218.94553375, 1365.45589904),
    "B05": (950.68368468, 729.89827633),
    "B06": (1792.46290469, 1096.01480586),
    "B07": (2075.46795189, 1273.45393088),
    "B11": (1594.42694882, 1079.19066363),
    "B12": (1009.32729131, 818.86747235),
    "B8A": (2266.46036911, 1356.13789355),
    "VH": (-19.29044597721542, 5.464428464912864),
    "VV": (-12.619993741972035, 5.115911777546365),
}
NATIVE_SIZE = {
    **dict.fromkeys(("VH", "VV", "B02", "B03", "B04", "B08"), 120),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 60),
    **dict.fromkeys(("B01", "B09"), 20),
}

Tile = dict[str, np.ndarray]


class Lazy:
    """Bands by name without being a registered Mapping, as a lazily read tile may be."""

    def __init__(self, tile: Tile):
        self.tile = tile

    def keys(self) -> list[str]:
        return list(self.tile)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tile)

    def __contains__(self, band: str) -> bool:
        return band in self.tile

    def __getitem__(self, band: str) -> np.ndarray:
        return self.tile[band]


def draw_s1(seed: int = 0) -> Tile:
    """Backscatter in dB."""
    generator = np.random.default_rng(seed)
    return {band: generator.normal(-15, 4, (120, 120)).astype(np.float32) for band in S1_BANDS}


def draw_s2(seed: int = 0) -> Tile:
    """Digital numbers of all 12 bands, as an archive holds them."""
    generator = np.random.default_rng(seed)
    bands = [*S2_BANDS, "B01", "B09"]
    return {band: generator.integers(20, 6000, (NATIVE_SIZE[band],) * 2, dtype=np.uint16) for band in sorted(bands)}


def cubic_weights(size: int, new_size: int) -> np.ndarray:
    """Cubic convolution with a = -0.75 and aligned corners, borders repeated: (new_size, size)."""
    a, weights = -0.75, np.zeros((new_size, size))
    for new in range(new_size):
        place = new * (size - 1) / (new_size - 1)
        for near in range(int(place) - 1, int(place) + 3):
            x = abs(place - near)
            if x <= 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            elif x < 2:
                weight = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            else:
                weight = 0.0
            weights[new, min(max(near, 0), size - 1)] += weight
    return weights


def expected_bands(tile: Tile, bands: list[str]) -> np.ndarray:
    """Each band resampled to 120 x 120 and standardised, in float64."""
    images = []
    for band in bands:
        weights = cubic_weights(tile[band].shape[0], 120)
        mean, std = STATISTICS[band]
        images.append((weights @ tile[band].astype(np.float64) @ weights.T - mean) / std)
    return np.stack(images)


@pytest.fixture(scope="module")
def processor() -> CSMAEImageProcessor:
    return CSMAEImageProcessor()


@pytest.fixture(scope="module")
def real_tiles(shared_data: Path) -> dict[str, list[Tile]]:
    """Four real pairs of the shared v2 store, bands at native sizes and in their own types."""
    rows = load_bigearthnet(shared_data / "bigearthnet_v2_reben_lmdb").select(range(4))
    return {sensor: [dict(row[sensor].items()) for row in rows] for sensor in ("s1", "s2")}


# The right numbers


def test_real_tiles_are_resampled_and_standardised(
    processor: CSMAEImageProcessor, real_tiles: dict[str, list[Tile]]
) -> None:
    assert real_tiles["s2"][0]["B02"].dtype == np.uint16
    assert real_tiles["s2"][0]["B05"].shape == (60, 60)
    ours = processor(**real_tiles, return_tensors="pt")
    for sensor, bands in (("s1", S1_BANDS), ("s2", S2_BANDS)):
        assert ours[sensor].shape == (4, len(bands), 120, 120)
        assert ours[sensor].dtype == torch.float32
        for image, tile in zip(ours[sensor].numpy(), real_tiles[sensor], strict=True):
            np.testing.assert_allclose(image, expected_bands(tile, bands), atol=1e-4)


def test_real_tiles_land_near_zero_mean_and_unit_deviation(
    processor: CSMAEImageProcessor, real_tiles: dict[str, list[Tile]]
) -> None:
    ours = processor(**real_tiles, return_tensors="pt")
    for sensor in ("s1", "s2"):
        assert ours[sensor].mean().abs() < 1.5
        assert 0.2 < ours[sensor].std() < 3


def test_generated_tiles_equal_torch_interpolation_and_the_formula(processor: CSMAEImageProcessor) -> None:
    tile = draw_s2()
    ours = processor(s2=tile, return_tensors="pt")["s2"][0]
    for channel, band in enumerate(S2_BANDS):
        pixels = torch.from_numpy(tile[band].astype(np.float32))[None, None]
        resampled = F.interpolate(pixels, size=(120, 120), mode="bicubic", align_corners=True)[0, 0]
        mean, std = STATISTICS[band]
        torch.testing.assert_close(ours[channel], (resampled - mean) / std, rtol=0, atol=4e-5)


def test_sixty_metre_bands_are_resampled_where_a_processor_wants_them() -> None:
    processor = CSMAEImageProcessor(sensors={"s2": ["B09", "B01"]})
    tile = draw_s2()
    ours = processor(s2=tile, return_tensors="pt")["s2"][0].numpy()
    weights = cubic_weights(20, 120)
    expected = (weights @ tile["B01"].astype(float) @ weights.T - 340.76769064) / 554.81258967
    np.testing.assert_allclose(ours[1], expected, atol=1e-4)


def test_nothing_is_clipped(processor: CSMAEImageProcessor) -> None:
    tile = draw_s1()
    tile["VV"][3, 4], tile["VH"][5, 6] = 25.0, -70.0
    ours = processor(s1=tile, return_tensors="pt")["s1"][0]
    assert ours[1, 3, 4].item() == pytest.approx((25 + 12.619993741972035) / 5.115911777546365, abs=1e-5)
    assert ours[0, 5, 6].item() == pytest.approx((-70 + 19.29044597721542) / 5.464428464912864, abs=1e-5)


@pytest.mark.parametrize(("size", "new_size"), [(60, 120), (20, 120), (120, 60), (7, 5)])
def test_resampling_is_cubic_convolution_with_aligned_corners(size: int, new_size: int) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    weights = cubic_weights(size, new_size)
    ours = resample_bicubic(images, new_size)
    by_torch = F.interpolate(images, size=(new_size, new_size), mode="bicubic", align_corners=True)
    torch.testing.assert_close(ours, by_torch, rtol=0, atol=4e-5)  # torch rounds the places it samples to float32
    np.testing.assert_allclose(ours.numpy(), weights @ images.double().numpy() @ weights.T, atol=3e-6)
    if new_size > size:
        assert torch.allclose(ours[..., 0, 0], images[..., 0, 0], atol=1e-6), "corners stay"


def test_any_number_of_images_is_resampled_each_as_if_alone() -> None:
    images = torch.randn(53, 60, 60, generator=torch.Generator().manual_seed(0))
    together = resample_bicubic(images, 120)
    assert together.shape == (53, 120, 120)
    torch.testing.assert_close(together, torch.stack([resample_bicubic(image, 120) for image in images]))
    assert resample_bicubic(images[:0], 120).shape == (0, 120, 120)


def test_gradients_flow_through_resampling() -> None:
    images = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(0), requires_grad=True)
    resample_bicubic(images, 120).sum().backward()
    assert images.grad is not None
    weights = cubic_weights(20, 120).sum(axis=0)
    np.testing.assert_allclose(images.grad[0].numpy(), np.outer(weights, weights), rtol=1e-4, atol=1e-4)


def test_image_of_the_right_size_is_left_as_it_is() -> None:
    images = torch.randn(1, 2, 120, 120)
    assert resample_bicubic(images, 120) is images


def test_transpose_swaps_rows_and_columns_of_every_sensor(processor: CSMAEImageProcessor) -> None:
    plain = processor(s1=draw_s1(), s2=draw_s2(), return_tensors="pt")
    swapped = CSMAEImageProcessor(transpose=True)(s1=draw_s1(), s2=draw_s2(), return_tensors="pt")
    for sensor in ("s1", "s2"):
        assert torch.equal(swapped[sensor], plain[sensor].transpose(2, 3))
        assert not torch.equal(swapped[sensor], plain[sensor])
        assert swapped[sensor].is_contiguous()


# Any form


def s1_forms(tiles: list[Tile]) -> dict[str, Any]:
    """The same two Sentinel-1 images in every form the processor takes."""
    stacked = [np.stack([tile[band] for band in S1_BANDS]) for tile in tiles]
    return {
        "list of dicts": tiles,
        "tuple of dicts": tuple(tiles),
        "list of lazy tiles": [Lazy(tile) for tile in tiles],
        "list of dicts of tensors": [{band: torch.from_numpy(value) for band, value in tile.items()} for tile in tiles],
        "list of float64 dicts": [{band: value.astype(np.float64) for band, value in tile.items()} for tile in tiles],
        "dicts in another order": [{band: tile[band] for band in reversed(S1_BANDS)} for tile in tiles],
        "dicts with further bands": [{"HH": np.full((7, 9), np.nan), **tile} for tile in tiles],
        "dict of batches": {band: np.stack([tile[band] for tile in tiles]) for band in S1_BANDS},
        "dict of tensor batches": {
            band: torch.stack([torch.from_numpy(tile[band]) for tile in tiles]) for band in S1_BANDS
        },
        "list of stacks": stacked,
        "list of tensor stacks": [torch.from_numpy(image) for image in stacked],
        "batch": np.stack(stacked),
        "tensor batch": torch.from_numpy(np.stack(stacked)),
        "not contiguous": np.stack(stacked, axis=-1).transpose(3, 0, 1, 2),
    }


@pytest.mark.parametrize("form", list(s1_forms([draw_s1()])))
def test_every_form_of_input_gives_the_same(processor: CSMAEImageProcessor, form: str) -> None:
    tiles = [draw_s1(0), draw_s1(1)]
    expected = np.stack([expected_bands(tile, S1_BANDS) for tile in tiles])
    ours = processor(s1=s1_forms(tiles)[form], return_tensors="pt")["s1"]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)
    assert torch.equal(ours, processor(s1=tiles, return_tensors="pt")["s1"])


@pytest.mark.parametrize("form", ["dict", "stack", "tensor stack", "list of one"])
def test_one_image_is_a_batch_of_one(processor: CSMAEImageProcessor, form: str) -> None:
    tile = draw_s1()
    stack = np.stack([tile[band] for band in S1_BANDS])
    forms = {"dict": tile, "stack": stack, "tensor stack": torch.from_numpy(stack), "list of one": [tile]}
    ours = processor(s1=forms[form], return_tensors="pt")["s1"]
    assert ours.shape == (1, 2, 120, 120)
    np.testing.assert_allclose(ours[0].numpy(), expected_bands(tile, S1_BANDS), atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "int64", "float32", "float64"])
def test_any_type_of_number_gives_the_same(processor: CSMAEImageProcessor, dtype: str) -> None:
    expected = processor(s2=draw_s2(), return_tensors="pt")["s2"]
    tile = {band: value.astype(dtype) for band, value in draw_s2().items()}
    assert torch.equal(processor(s2=tile, return_tensors="pt")["s2"], expected)
    tensors = {band: torch.from_numpy(value) for band, value in tile.items()}
    assert torch.equal(processor(s2=tensors, return_tensors="pt")["s2"], expected)


def test_uint16_values_above_32767_stay_positive(processor: CSMAEImageProcessor) -> None:
    tile = draw_s2()
    tile["B02"][:] = 40_000
    tile["B02"][0, 0] = 1  # a band of one value is refused
    ours = processor(s2=tile, return_tensors="pt", suspect="accept")["s2"][0, 0]  # brighter than anything
    assert ours[1:].unique().item() == pytest.approx((40_000 - 429.9430203) / 572.41639287, rel=1e-6)


@pytest.mark.parametrize("units", [None, {"s2": "reflectance"}])
def test_input_is_not_written_to(processor: CSMAEImageProcessor, units: dict[str, str] | None) -> None:
    scale = 1e-4 if units else 1
    tile = {band: torch.from_numpy(value.astype(np.float32) * scale) for band, value in draw_s2().items()}
    before = {band: value.clone() for band, value in tile.items()}
    processor(s2=tile, units=units, return_tensors="pt")
    assert all(torch.equal(tile[band], value) for band, value in before.items())


def test_sensors_come_alone_or_together(processor: CSMAEImageProcessor) -> None:
    joint = processor(s1=draw_s1(), s2=draw_s2(), return_tensors="pt")
    assert list(joint) == ["s1", "s2"]
    alone = processor(s2=draw_s2(), s1=None, return_tensors="pt")
    assert list(alone) == ["s2"]
    assert torch.equal(alone["s2"], joint["s2"])


def test_result_may_be_numpy(processor: CSMAEImageProcessor) -> None:
    ours = processor(s1=draw_s1(), return_tensors="np")["s1"]
    assert isinstance(ours, np.ndarray)
    assert np.array_equal(ours, processor(s1=draw_s1(), return_tensors="pt")["s1"].numpy())


def test_images_of_a_call_may_differ_in_the_size_of_a_band(processor: CSMAEImageProcessor) -> None:
    coarse, fine = draw_s2(0), draw_s2(1)
    fine["B05"] = np.random.default_rng(3).integers(20, 6000, (120, 120), dtype=np.uint16)
    both = processor(s2=[fine, coarse, fine])["s2"]
    for image, tile in zip(both, (fine, coarse, fine), strict=True):
        assert torch.equal(image, processor(s2=tile)["s2"][0])
    with pytest.raises(ValueError, match=r"s2 band B05 differs in size between .* \[\(60, 60\), \(120, 120\)\]"):
        processor.stack_native(s2=[coarse, fine])


def test_images_of_a_batch_do_not_affect_each_other(processor: CSMAEImageProcessor) -> None:
    tiles = [draw_s2(seed) for seed in range(3)]
    batch = processor(s2=tiles, return_tensors="pt")["s2"]
    for image, tile in zip(batch, tiles, strict=True):
        torch.testing.assert_close(image, processor(s2=tile, return_tensors="pt")["s2"][0], rtol=0, atol=1e-5)


# Units


def test_linear_power_is_converted_on_request(processor: CSMAEImageProcessor) -> None:
    expected = processor(s1=draw_s1(), return_tensors="pt")["s1"]
    linear = {band: 10 ** (value.astype(np.float64) / 10) for band, value in draw_s1().items()}
    ours = processor(s1=linear, units={"s1": "linear"}, return_tensors="pt")["s1"]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("units", "scale"), [(None, 1), ({"s1": "linear"}, 1), ({"s1": "linear"}, 0.1)])
def test_amplitude_is_not_taken_for_power(processor: CSMAEImageProcessor, units: Any, scale: float) -> None:
    amplitude = np.random.default_rng(0).integers(39, 727, (120, 120)).astype(np.float32) * scale
    with pytest.raises(ValueError, match=r"amplitude.* calibrate"):
        processor(s1={"VH": amplitude, "VV": 2 * amplitude[::-1]}, units=units)


@pytest.mark.parametrize("stacked", [False, True])
def test_masked_pixels_are_no_measurement(processor: CSMAEImageProcessor, stacked: bool) -> None:
    tile = {band: np.ma.array(pixels) for band, pixels in draw_s1().items()}
    image = (lambda: np.ma.stack([tile["VH"], tile["VV"]])) if stacked else (lambda: tile)
    assert torch.equal(processor(s1=image())["s1"], processor(s1=draw_s1())["s1"]), "where nothing is masked"
    tile["VV"][40:80, 40:80] = np.ma.masked
    with pytest.raises(ValueError, match=r"VV.*1600"):
        processor(s1=image())


def test_reflectance_is_converted_on_request(processor: CSMAEImageProcessor) -> None:
    expected = processor(s2=draw_s2(), return_tensors="pt")["s2"]
    reflectance = {band: (value / 10_000).astype(np.float32) for band, value in draw_s2().items()}
    ours = processor(s2=reflectance, s1=draw_s1(), units={"s2": "reflectance"}, return_tensors="pt")
    torch.testing.assert_close(ours["s2"], expected, rtol=0, atol=1e-4)
    assert torch.equal(ours["s1"], processor(s1=draw_s1(), return_tensors="pt")["s1"]), "the other is left alone"


def test_declaring_the_own_unit_changes_nothing(processor: CSMAEImageProcessor) -> None:
    ours = processor(s1=draw_s1(), s2=draw_s2(), units={"s1": "db", "s2": "dn"}, return_tensors="pt")
    for sensor, tile in (("s1", draw_s1()), ("s2", draw_s2())):
        assert torch.equal(ours[sensor], processor(**{sensor: tile}, return_tensors="pt")[sensor])


# Refusals


def changed(tile: Tile, **bands: np.ndarray) -> Tile:
    return {**tile, **bands}


def with_holes(tile: Tile, band: str, count: int, value: float) -> Tile:
    """The tile with some pixels of a band lost."""
    pixels = tile[band].astype(np.float32)
    pixels.reshape(-1)[:count] = value
    return {**tile, band: pixels}


def scaled(tile: Tile, factor: float) -> Tile:
    return {band: (value * factor).astype(np.float32) for band, value in tile.items()}


S1, S2 = draw_s1(), draw_s2()
S1_LINEAR = {band: (10 ** (value / 10)).astype(np.float32) for band, value in S1.items()}
SMALL = np.zeros((60, 60), np.float32)

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": (
        {"s1": [S1, with_holes(S1, "VV", 17, np.nan)]},
        "s1 band VV of image 1 has 17 of 14400 values NaN or infinite",
    ),
    "infinite": (
        {"s2": with_holes(S2, "B05", 3, np.inf)},
        "s2 band B05 of image 0 has 3 of 3600 values NaN or infinite",
    ),
    "minus infinity": ({"s1": with_holes(S1, "VH", 1, -np.inf)}, "s1 band VH of image 0 has 1 of 14400 values"),
    "linear S1": (
        {"s1": [S1, S1_LINEAR]},
        r"s1 image 1 runs from .* where backscatter in dB was expected: .*linear power.*units=\{'s1': 'linear'\}",
    ),
    "empty S1": (
        {"s1": scaled(S1, 0)},
        "s1 image 0 runs from .*a band without any value below 0 is linear power, or empty",
    ),
    "S2 as reflectance": (
        {"s2": scaled(S2, 1e-4)},
        r"s2 image 0 runs from .* where digital numbers, reflectance x 10000 was expected.*units=\{'s2': 'reflectance'\}",
    ),
    "no-data in S1": ({"s1": changed(S1, VV=np.full((120, 120), -9999.0))}, "values below -100 dB are no-data"),
    "one empty S1 band": ({"s1": changed(S1, VV=np.zeros((120, 120)))}, "a band without any value below 0"),
    "a mask for a band": ({"s1": changed(S1, VV=torch.zeros(120, 120, dtype=torch.bool))}, "Pixels of type torch.bool"),
    "empty S2": ({"s2": scaled(S2, 0)}, "with nothing above 2 it is reflectance 0-1, or empty"),
    "overflown S2": (
        {"s2": changed(S2, B02=np.full((120, 120), -25536, np.int16))},
        "negative values are no-data or overflown",
    ),
    "dB declared linear": ({"s1": S1, "units": {"s1": "linear"}}, "values of 0 or less are not linear power"),
    "numbers declared reflectance": (
        {"s2": S2, "units": {"s2": "reflectance"}},
        "values above 2 are not reflectance 0-1",
    ),
    "unit of the other sensor": (
        {"s1": S1, "units": {"s1": "reflectance"}},
        r"s1 cannot be reflectance 0-1: its bands \['VH', 'VV'\] are backscatter in dB",
    ),
    "unknown unit": (
        {"s1": S1, "units": {"s1": "watt"}},
        "Unknown unit 'watt' for s1: expected one of db, linear, dn, dn\\+1000, reflectance",
    ),
    "unit of an unknown sensor": ({"s1": S1, "units": {"s3": "db"}}, "Unknown sensor 's3': this processor has s1, s2"),
    "60 m band for a 10 m one": (
        {"s2": changed(S2, B02=S2["B01"])},
        "s2 band B02 is 20 x 20 pixels: expected 120 x 120, a tile of 1200 m at 10 m a pixel",
    ),
    "20 m band for a 10 m one": ({"s1": changed(S1, VV=SMALL)}, "s1 band VV is 60 x 60 pixels: expected 120 x 120"),
    "60 m band for a 20 m one": (
        {"s2": changed(S2, B11=S2["B09"])},
        "s2 band B11 is 20 x 20 pixels: expected 60 x 60 or 120 x 120, a tile of 1200 m at 20 m a pixel",
    ),
    "not square": ({"s1": changed(S1, VH=np.full((120, 60), -9.0))}, "s1 band VH is 120 x 60 pixels"),
    "larger tile": (
        {"s1": np.full((2, 256, 256), -9.0)},
        "s1 band VH is 256 x 256 pixels: .*Cut tiles out of it \\(gdal_translate -srcwin COLUMN ROW 120 120 ",
    ),
    "missing band": (
        {"s2": {band: value for band, value in S2.items() if band not in ("B8A", "B11")}},
        r"s2 lacks the bands \['B11', 'B8A'\]: got \['B01', .*expected \['B02', 'B03'",
    ),
    "missing band in the batch": ({"s1": [S1, {"VH": S1["VH"]}]}, r"s1 lacks the bands \['VV'\]"),
    "swapped sensors": ({"s1": S2, "s2": S1}, r"s1 lacks the bands \['VH', 'VV'\]: got \['B01'"),
    "swapped stacks": (
        {"s1": np.zeros((10, 120, 120), np.float32)},
        r"s1 has shape \(10, 120, 120\): expected \(2, H, W\) or \(batch, 2, H, W\) with the bands \['VH', 'VV'\]",
    ),
    "dB under the name of S2 bands": (
        {"s2": {band: np.full((120, 120), -9.0) for band in S2_BANDS}},
        "look like Sentinel-1 in dB: check that the sensors are not swapped",
    ),
    "unknown sensor": ({"s3": S1}, "Unknown sensor 's3': this processor has s1, s2"),
    "no image": ({}, "No images were given: pass one or more of s1, s2 by name"),
    "only None": ({"s1": None, "s2": None}, "No images were given"),
    "empty list": ({"s1": []}, "s1 is an empty list: pass at least one image"),
    "band of one row": ({"s1": changed(S1, VV=np.zeros(120))}, r"s1 band VV has shape \(120,\): expected \(H, W\)"),
    "batches of different lengths": (
        {"s1": {"VH": np.full((2, 120, 120), -9.0), "VV": np.full((3, 120, 120), -9.0)}},
        r"s1 has bands of different batch lengths: \{'VH': 2, 'VV': 3\}",
    ),
    "text for pixels": ({"s1": changed(S1, VV=np.array([["a"]]))}, "Pixels of type <U1 are no image"),
    "truth values for pixels": ({"s1": changed(S1, VV=np.ones((120, 120), bool))}, "Pixels of type bool are no image"),
}


@pytest.mark.parametrize(("inputs", "message"), list(REFUSED.values()), ids=list(REFUSED))
def test_wrong_input_is_refused_and_gives_no_number(
    processor: CSMAEImageProcessor, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        processor(**inputs, return_tensors="pt")
    assert type(caught.value) is ValueError


def test_image_without_the_name_of_its_sensor_is_refused(processor: CSMAEImageProcessor) -> None:
    with pytest.raises(ValueError, match=r"Pass images by the name of their sensor, such as processor\(s1=image\)"):
        processor(S1)


def test_band_without_statistics_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"No mean and standard deviation for the bands \['HH'\]"):
        CSMAEImageProcessor(sensors={"s1": ["HH", "VV"]})
    with pytest.raises(ValueError, match=r"for the bands \['HH'\]"):
        CSMAEImageProcessor(sensors={"s1": ["HH"]}, band_mean={"HH": -10.0})


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_deviation_that_is_not_positive_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match=r"The standard deviation of \['VV'\] is not above 0"):
        CSMAEImageProcessor(band_std={"VV": std})


# Other sensors, and saving


def test_own_sensors_and_statistics_are_used() -> None:
    processor = CSMAEImageProcessor(
        sensors={"thermal": ["T1", "T2"]}, size=30, band_mean={"T1": 300, "T2": 290}, band_std={"T1": 10, "T2": 5}
    )
    bands = {"T1": np.full((30, 30), 310.0), "T2": np.full((15, 15), 280.0)}
    ours = processor(thermal=bands, return_tensors="pt")["thermal"]
    assert ours.shape == (1, 2, 30, 30)
    torch.testing.assert_close(ours[0, 0], torch.full((30, 30), 1.0))
    torch.testing.assert_close(ours[0, 1], torch.full((30, 30), -2.0), rtol=0, atol=1e-4)
    assert processor.model_input_names == ["thermal"]


def test_bands_may_be_fewer_and_in_another_order() -> None:
    tile = draw_s2()
    ours = CSMAEImageProcessor(sensors={"s2": ["B04", "B12", "B02"]})(s2=tile, return_tensors="pt")["s2"][0]
    np.testing.assert_allclose(ours.numpy(), expected_bands(tile, ["B04", "B12", "B02"]), atol=1e-4)


def test_saved_processor_comes_back_and_does_the_same(tmp_path: Path) -> None:
    processor = CSMAEImageProcessor(
        sensors={"s2": ["B08", "B04", "B05"], "s1": ["VV"]},
        size=60,
        band_mean={"B04": 500.0},
        band_std={"VV": 4.0},
        transpose=True,
    )
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is CSMAEImageProcessor
    for name in ("sensors", "size", "band_mean", "band_std", "transpose"):
        assert getattr(loaded, name) == getattr(processor, name), name
    assert loaded.sensors["s2"] == ["B08", "B04", "B05"]
    tile = {band: value[:60, :60] for band, value in {**draw_s1(), **draw_s2()}.items()}
    tile["B05"] = tile["B05"][:30, :30]
    before, after = (one(s1=tile, s2=tile, return_tensors="pt") for one in (processor, loaded))
    assert set(before) == set(after) == {"s1", "s2"}
    assert all(torch.equal(after[sensor], before[sensor]) for sensor in before)


def test_statistics_of_bands_it_does_not_use_are_not_saved() -> None:
    processor = CSMAEImageProcessor(sensors={"s1": ["VV"]})
    assert set(processor.to_dict()["band_mean"]) == set(processor.to_dict()["band_std"]) == {"VV"}


def test_bands_can_be_chosen_at_load(processor: CSMAEImageProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    chosen = AutoImageProcessor.from_pretrained(tmp_path, sensors={"s2": ["B04", "B02"]})
    assert chosen.sensors == {"s2": ["B04", "B02"]}
    assert list(chosen.band_mean) == ["B04", "B02"]
    assert chosen.model_input_names == ["s2"]
    tile = {band: np.full((120, 120), 500, np.uint16) for band in ("B02", "B03", "B04")}
    expected = [(500 - STATISTICS[band][0]) / STATISTICS[band][1] for band in ("B04", "B02")]
    assert chosen(s2=tile)["s2"].mean(dim=(0, 2, 3)).tolist() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="B99"):
        AutoImageProcessor.from_pretrained(tmp_path, sensors={"s2": ["B99"]})


def test_geotiffs_are_read_by_their_paths(processor: CSMAEImageProcessor, shared_data: Path) -> None:
    folder = next((shared_data / "bigearthnet_v1_tiff_examples" / "BigEarthNet-S1-Example").iterdir())
    paths = {band: folder / f"{folder.name}_{band}.tif" for band in S1_BANDS}
    pixels = {}
    for band, path in paths.items():
        with rasterio.open(path) as source:
            pixels[band] = source.read(1)
    assert torch.equal(processor(s1=paths)["s1"], processor(s1=pixels)["s1"])


@pytest.mark.parametrize("size", [24, np.int64(24), {"height": 24, "width": 24}])
def test_a_size_is_a_number_or_a_square(size: Any, tmp_path: Path) -> None:
    processor = CSMAEImageProcessor(size=size)
    assert processor.size == 24
    processor.save_pretrained(tmp_path)
    assert CSMAEImageProcessor.from_pretrained(tmp_path).size == 24
    assert CSMAEImageProcessor.from_pretrained(tmp_path, size={"height": 12, "width": 12}).size == 12


@pytest.mark.parametrize(
    "size", [{"height": 24, "width": 12}, {"shortest_edge": 24}, {}, (24, 24), 24.0, "24", True, 0, -1, None]
)
def test_a_size_that_is_no_square_is_refused_by_name(size: Any) -> None:
    with pytest.raises(ValueError, match=r"size=.*expected a number of pixels such as 120, or a square, \{'height'"):
        CSMAEImageProcessor(size=size)


@pytest.mark.parametrize("name", ["image_size", "do_resize", "do_normalize", "image_mean", "resample", "crop_size"])
def test_settings_of_other_processors_are_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no setting {name}; it has sensors, size"):
        CSMAEImageProcessor(**{name: 1})
    CSMAEImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"no setting {name}"):
        CSMAEImageProcessor.from_pretrained(tmp_path, **{name: 1})
    with pytest.raises(ValueError, match=f"Unknown sensor '{name}'"):
        CSMAEImageProcessor()(**{name: np.zeros((10, 120, 120))})
