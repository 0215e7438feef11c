"""Bands at native resolution to images, wherever that is done: the same numbers in whatever precision the rest runs."""

from pathlib import Path

import numpy as np
import pytest
import torch

import image_processing_csmae
from csmae_hf.data.dataset import load_bigearthnet
from image_processing_csmae import CSMAEImageProcessor, _weigh, resample_bicubic


@pytest.fixture(scope="module")
def tiles(shared_data: Path) -> dict[str, list[dict[str, np.ndarray]]]:
    rows = load_bigearthnet(shared_data / "bigearthnet_v2_reben_lmdb").select(range(5))
    return {sensor: [dict(row[sensor].items()) for row in rows] for sensor in ("s1", "s2")}


@pytest.mark.parametrize(("size", "new_size"), [(60, 120), (20, 120), (120, 60), (7, 5), (3, 9), (120, 224)])
def test_the_way_of_other_devices_equals_the_way_of_the_cpu(size: int, new_size: int) -> None:
    images = torch.randn(2, 3, size, size + 1, generator=torch.Generator().manual_seed(0))
    elsewhere = _weigh(_weigh(images, new_size, -1), new_size, -2)
    torch.testing.assert_close(elsewhere, resample_bicubic(images, new_size), rtol=0, atol=1e-5)


def test_all_of_process_native_runs_on_other_devices(tiles: dict[str, list[dict[str, np.ndarray]]]) -> None:
    processor = CSMAEImageProcessor(transpose=True)
    native = processor.stack_native(**tiles)
    elsewhere = processor.process_native(
        native, device="meta"
    )  # computes nothing, but refuses what would wait for a device
    assert {sensor: (t.shape, t.device.type) for sensor, t in elsewhere.items()} == {
        "s1": ((5, 2, 120, 120), "meta"),
        "s2": ((5, 10, 120, 120), "meta"),
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_gives_the_same_in_spite_of_tf32(tiles: dict[str, list[dict[str, np.ndarray]]]) -> None:
    processor = CSMAEImageProcessor()
    torch.backends.cuda.matmul.allow_tf32 = True
    ours = processor.process_native(processor.stack_native(**tiles), device="cuda")
    for sensor, expected in processor(**tiles).items():
        torch.testing.assert_close(ours[sensor].cpu(), expected, rtol=0, atol=1e-5)


def test_autocast_does_not_cost_precision(tiles: dict[str, list[dict[str, np.ndarray]]]) -> None:
    processor = CSMAEImageProcessor()
    native = processor.stack_native(**tiles)
    expected = processor.process_native(native)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = processor.process_native(native)
    assert all(torch.equal(ours[sensor], expected[sensor]) for sensor in expected)


def test_other_units_are_converted_when_stacked(tiles: dict[str, list[dict[str, np.ndarray]]]) -> None:
    processor = CSMAEImageProcessor()
    offset = [{band: pixels + np.uint16(1000) for band, pixels in tile.items()} for tile in tiles["s2"]]
    native = processor.stack_native(s2=offset, units={"s2": "dn+1000"})
    expected = processor.stack_native(s2=tiles["s2"])
    for key, pixels in native["s2"].items():
        assert torch.equal(pixels, expected["s2"][key].float())


def test_groups_that_are_not_those_of_the_processor_are_refused(tiles: dict[str, list[dict[str, np.ndarray]]]) -> None:
    native = CSMAEImageProcessor(sensors={"s2": ["B02", "B05"]}).stack_native(s2=tiles["s2"])
    with pytest.raises(ValueError, match=r"s2 comes with the bands \['B02', 'B05'\]: expected \['B02', 'B03'"):
        CSMAEImageProcessor().process_native(native)
    with pytest.raises(ValueError, match="Unknown sensor 's3'"):
        CSMAEImageProcessor().process_native({"s3": native["s2"]})


def test_bands_of_one_size_in_any_order_land_where_the_model_has_them(
    tiles: dict[str, list[dict[str, np.ndarray]]],
) -> None:
    mixed = ["B05", "B02", "B8A", "B08", "B11"]
    ours = CSMAEImageProcessor(sensors={"s2": mixed})(s2=tiles["s2"])["s2"]
    for place, band in enumerate(mixed):
        alone = CSMAEImageProcessor(sensors={"s2": [band]})(s2=tiles["s2"])["s2"]
        torch.testing.assert_close(ours[:, place : place + 1], alone, rtol=0, atol=1e-5)


def test_what_was_prepared_in_inference_mode_serves_gradients_too() -> None:
    """Weights that are computed once were inference tensors for ever if inference came first."""
    for cached in ("_bicubic_taps_on", "_bicubic_matrix"):
        getattr(image_processing_csmae, cached).cache_clear()
    with torch.inference_mode():
        image_processing_csmae.resample_bicubic(torch.rand(1, 1, 60, 60), 120)
    images = torch.rand(1, 1, 60, 60, requires_grad=True)
    image_processing_csmae.resample_bicubic(images, 120).sum().backward()
    assert images.grad is not None
    assert images.grad.sum().item() == pytest.approx(120 * 120, rel=1e-4), "weights add up to 1"
