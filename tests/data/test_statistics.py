"""Statistics in one pass: those of two passes over everything at once, however the tiles are batched, saved and loaded."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from real_tiles import labelled_pairs

from csmae_hf.commands.main import main
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.statistics import Moments, estimate_statistics
from image_processing_csmae import BAND_MEAN, BAND_STD, CSMAEImageProcessor


@pytest.fixture(scope="module")
def tiles(shared_data: Path) -> datasets.Dataset:
    return load_bigearthnet(shared_data / "bigearthnet_mm_v1_lmdb")


def cubic(size: int, new_size: int) -> np.ndarray:
    """Cubic convolution with a = -0.75 and aligned corners: (new_size, size)."""
    weights = np.zeros((new_size, size))
    for new in range(new_size):
        place = new * (size - 1) / (new_size - 1)
        for near in range(int(place) - 1, int(place) + 3):
            x = abs(place - near)
            inner, outer = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            weights[new, min(max(near, 0), size - 1)] += inner if x <= 1 else outer if x < 2 else 0
    return weights


@pytest.fixture(scope="module")
def two_passes(shared_data: Path) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each band over the 78 real v1 tiles, resampled, in float64, by numpy in two passes."""
    pairs = [tile for name, tile in labelled_pairs(shared_data).items() if name.startswith("bigearthnet_mm_v1_lmdb")]
    assert len(pairs) == 78
    statistics = {}
    for band in (*CSMAEImageProcessor().band_mean,):
        images = np.stack([tile[band] for tile in pairs]).astype(np.float64)
        if images.shape[1] != 120:
            weights = cubic(images.shape[1], 120)
            images = weights @ images @ weights.T
        mean = images.sum() / images.size
        statistics[band] = (mean, np.sqrt(((images - mean) ** 2).sum() / images.size))
    return statistics


@pytest.mark.parametrize(("batch_size", "num_workers"), [(64, 0), (7, 2), (1, 0)])
def test_one_pass_gives_what_two_passes_give(
    tiles: datasets.Dataset, two_passes: dict[str, tuple[float, float]], batch_size: int, num_workers: int
) -> None:
    ours = estimate_statistics(tiles, batch_size=batch_size, num_workers=num_workers, progress=False)
    for band, (mean, std) in two_passes.items():
        assert ours.band_mean[band] == pytest.approx(mean, rel=1e-6)
        assert ours.band_std[band] == pytest.approx(std, rel=1e-6)
        assert abs(mean - BAND_MEAN[band]) < BAND_STD[band], "78 real tiles are not far from all of BigEarthNet"


def test_a_dataset_standardised_by_its_own_statistics_has_mean_0_and_deviation_1(tiles: datasets.Dataset) -> None:
    few = tiles.select(range(10))
    processor = estimate_statistics(few, CSMAEImageProcessor(transpose=True), progress=False)
    assert processor.transpose
    images = processor(**{sensor: few[sensor][:] for sensor in ("s1", "s2")})
    for stack in images.values():
        torch.testing.assert_close(
            stack.double().mean(dim=(0, 2, 3)), torch.zeros(stack.shape[1]).double(), rtol=0, atol=1e-5
        )
        deviation = stack.double().std(dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(deviation, torch.ones_like(deviation), rtol=0, atol=1e-5)


def test_numbers_far_from_zero_lose_nothing() -> None:
    """Where the mean of squares minus the square of the mean gives nonsense, or below 0."""
    generator = torch.Generator().manual_seed(0)
    images = 1e9 + torch.randn(64, 1, 30, 30, generator=generator, dtype=torch.float64)
    total = Moments.of(images[:1])
    for start in range(1, 64, 9):
        total = total + Moments.of(images[start : start + 9])
    assert total.count == images.numel()
    assert total.std.item() == pytest.approx(images.std(correction=0).item(), rel=1e-6)


def test_parts_add_up_in_any_order() -> None:
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    a, b, c = (Moments.of(part) for part in images.split([1, 4, 7]))
    for total in ((a + b) + c, c + (b + a), Moments.of(images)):
        torch.testing.assert_close(total.mean, images.double().mean(dim=(0, 2, 3)))
        torch.testing.assert_close(total.std, images.double().std(dim=(0, 2, 3), correction=0))


def test_the_command_saves_a_processor_that_uses_them(
    shared_data: Path, tmp_path: Path, tiles: datasets.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = str(shared_data / "bigearthnet_mm_v1_lmdb")
    assert main(["stats", archive, str(tmp_path / "out"), "--split", "all", "--sensors", "s2"]) == 0
    saved = CSMAEImageProcessor.from_pretrained(tmp_path / "out")
    expected = estimate_statistics(tiles, sensors=["s2"], progress=False)
    assert saved.band_mean == pytest.approx(expected.band_mean)
    assert saved.band_std == pytest.approx(expected.band_std)
    assert saved.band_mean["VV"] == BAND_MEAN["VV"], "S1 was left alone"
    said = capsys.readouterr().out
    assert f"Saved to {tmp_path / 'out' / 'preprocessor_config.json'}." in said
    assert f"B8A   {expected.band_mean['B8A']:>12.4f}{expected.band_std['B8A']:>12.4f}" in said
    tiles.select(range(3)).save_to_disk(tmp_path / "dataset")
    assert main(["stats", str(tmp_path / "dataset"), str(tmp_path / "more"), "--processor", str(tmp_path / "out")]) == 0
    assert CSMAEImageProcessor.from_pretrained(tmp_path / "more").band_mean["VV"] != BAND_MEAN["VV"]


def test_the_folder_of_a_trained_model_is_left_alone(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert main(["stats", str(shared_data / "bigearthnet_mm_v1_lmdb"), str(tmp_path)]) == 2
    assert "holds a model" in caplog.text


def test_any_dataset_with_these_columns_will_do() -> None:
    rng = np.random.default_rng(0)
    values = [rng.normal(300, 10, (30, 30)).astype(np.float32) for _ in range(4)]
    own = datasets.Dataset.from_list([{"thermal": {"T1": pixels.tolist()}} for pixels in values])
    processor = CSMAEImageProcessor(sensors={"thermal": ["T1"]}, size=30, band_mean={"T1": 0}, band_std={"T1": 1})
    ours = estimate_statistics(own, processor, progress=False)
    assert ours.band_mean["T1"] == pytest.approx(np.mean(values), rel=1e-6)
    assert ours.band_std["T1"] == pytest.approx(np.std(np.stack(values).astype(float)), rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "sensors", "message"),
    [
        ([], None, "the dataset has 0 tiles"),
        ([{"s2": {"B02": 1}}], ["s1"], "columns s2"),
        (
            [{"s1": {band: np.full((120, 120), level).tolist() for band, level in (("VH", -17.0), ("VV", -9.0))}}],
            ["s1"],
            "do not vary",
        ),
    ],
)
def test_what_has_no_statistics_is_refused(rows: list[Any], sensors: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_statistics(datasets.Dataset.from_list(rows), sensors=sensors, progress=False)
