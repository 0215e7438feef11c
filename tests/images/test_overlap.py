"""How much ground two images share."""

import pytest

from csmae_hf.images.overlap import LEAST_OVERLAP, overlap

HERE = (404400.0, 5341200.0, 405600.0, 5342400.0)


def moved(east: float, north: float = 0.0) -> tuple[float, ...]:
    return HERE[0] + east, HERE[1] + north, HERE[2] + east, HERE[3] + north


@pytest.mark.parametrize(("east", "share"), [(0, 1), (60, 0.95), (120, 0.9), (600, 0.5), (1200, 0), (50_000, 0)])
def test_in_one_system(east, share):
    assert overlap("EPSG:32633", HERE, "EPSG:32633", moved(east)) == pytest.approx(share)


def test_the_same_numbers_in_another_zone_are_another_place():
    assert overlap("EPSG:32633", HERE, "EPSG:32634", HERE) == 0


def test_the_same_ground_in_degrees_overlaps():
    from rasterio.warp import transform_bounds

    degrees = transform_bounds("EPSG:32633", "EPSG:4326", *HERE)
    assert overlap("EPSG:32633", HERE, "EPSG:4326", degrees) > LEAST_OVERLAP


def test_antipodes_share_nothing():
    assert overlap("EPSG:32633", HERE, "EPSG:32760", (500_000, 5_300_000, 501_200, 5_301_200)) == 0


def test_a_small_image_within_a_large_one_is_no_pair():
    assert overlap("EPSG:32633", HERE, "EPSG:32633", (404400, 5341800, 405000, 5342400)) == pytest.approx(0.25)


def test_without_a_place_nothing_is_said():
    assert overlap(None, None, "EPSG:32633", HERE) is None
    assert overlap("EPSG:32633", HERE, "EPSG:32633", None) is None
