"""What the original's reader returned, and what v1 and v2 hold of one place: the same from this package's readers."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from real_tiles import READER_BANDS, read_golden

from csmae_hf.data.collate import TileCollator
from csmae_hf.data.dataset import load_bigearthnet
from image_processing_csmae import BAND_MEAN, BAND_STD, CSMAEImageProcessor

V1, V2, GOLDEN = "bigearthnet_mm_v1_lmdb", "bigearthnet_v2_reben_lmdb", "csmae_reader_golden_tiffs"
IN_BOTH = "S2A_MSIL2A_20170613T101031_0_45"
BANDS = {"s1": READER_BANDS[10:], "s2": READER_BANDS[:10]}


def before_normalisation(images: torch.Tensor, sensor: str) -> np.ndarray:
    """Undo the standardisation, in float64."""
    mean, std = (np.array([table[band] for band in BANDS[sensor]])[:, None, None] for table in (BAND_MEAN, BAND_STD))
    return images.double().numpy() * std + mean


@pytest.fixture(scope="module")
def ours(shared_data: Path) -> dict[str, dict[str, np.ndarray]]:
    """The tile that is in both, through store, dataset, collator and processor, plain and transposed."""
    tiles = load_bigearthnet(shared_data / V1)
    row = tiles[tiles["id"][:].index(IN_BOTH)]
    images = {}
    for name, transpose in (("plain", False), ("transposed", True)):
        batch = TileCollator(CSMAEImageProcessor(transpose=transpose))([row])
        images[name] = {sensor: before_normalisation(batch[sensor][0], sensor) for sensor in BANDS}
    return images


def test_a_v1_tile_is_what_the_originals_reader_returned(
    ours: dict[str, dict[str, np.ndarray]], shared_data: Path
) -> None:
    golden = read_golden(shared_data / GOLDEN / f"{IN_BOTH}.tif")  # (W, H) by band: rows and columns swapped
    for sensor, bands in BANDS.items():
        expected = np.stack([golden[band] for band in bands])
        np.testing.assert_allclose(ours["transposed"][sensor], expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(ours["plain"][sensor], expected.transpose(0, 2, 1), rtol=0, atol=1e-3)


def test_transposition_and_order_matter_here(ours: dict[str, dict[str, np.ndarray]], shared_data: Path) -> None:
    """The comparison above can fail: neither the other orientation nor any exchange of two bands would pass it."""
    golden = read_golden(shared_data / GOLDEN / f"{IN_BOTH}.tif")
    for sensor, bands in BANDS.items():
        for place, image in enumerate(ours["transposed"][sensor]):
            for band in bands:
                differs = np.abs(image - golden[band]).max() > 1
                assert differs == (band != bands[place])
            assert np.abs(ours["plain"][sensor][place] - golden[bands[place]]).max() > 1


def test_all_golden_images_pass_the_contract_as_they_are(shared_data: Path) -> None:
    processor = CSMAEImageProcessor()
    with (shared_data / GOLDEN / "manifest.csv").open(newline="") as lines:
        names = [path.stem for path in sorted((shared_data / GOLDEN).glob("*.tif"))]
        assert len(names) == len(list(csv.DictReader(lines))) == 10
    for name in names:
        golden = read_golden(shared_data / GOLDEN / f"{name}.tif")
        for sensor, bands in BANDS.items():
            images = processor(**{sensor: golden})[sensor][0]
            expected = np.stack([golden[band] for band in bands])
            np.testing.assert_allclose(before_normalisation(images, sensor), expected, rtol=0, atol=1e-3)


def test_v1_and_v2_give_the_same_s1_pixels_of_a_common_tile(shared_data: Path) -> None:
    rows = [
        load_bigearthnet(shared_data / folder).filter(lambda row: row["id"].endswith("_26_57"))[0]
        for folder in (V1, V2)
    ]
    assert rows[0]["s1_id"] == rows[1]["s1_id"] == "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57"
    for band in BANDS["s1"]:
        assert rows[0]["s1"][band].tobytes() == rows[1]["s1"][band].tobytes()
    images = [CSMAEImageProcessor()(s1=row["s1"])["s1"] for row in rows]
    assert torch.equal(*images)
    s2 = [CSMAEImageProcessor()(s2=row["s2"])["s2"] for row in rows]
    assert not torch.equal(*s2), "the atmospheric correction of S2 was redone for v2"
    assert np.corrcoef(s2[0].flatten(), s2[1].flatten())[0, 1] > 0.999
