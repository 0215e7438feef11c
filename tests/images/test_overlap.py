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


@pytest.mark.parametrize(
    ("system", "share"), [("EPSG:32632", 0.96), ("EPSG:32634", 0.96), ("EPSG:3035", 0.96), ("EPSG:4326", 0.98)]
)
@pytest.mark.parametrize("north", [5_342_400, 6_900_000])
def test_a_tile_of_the_same_middle_on_a_grid_of_another_north_is_of_the_same_ground(system, share, north):
    """A square turned by an angle a about its middle shares 1 - tan(a) / 2, or a little more, with itself: 0.95 at 5.5 degrees."""
    import math

    from rasterio.warp import transform

    (x,), (y,) = transform("EPSG:32633", system, [300_600], [north - 600])
    half = (600, 600) if system != "EPSG:4326" else (600 / 111_320 / math.cos(math.radians(y)), 600 / 111_320)
    here = (300_000, north - 1200, 301_200, north)
    there = (x - half[0], y - half[1], x + half[0], y + half[1])
    for first, second in ((("EPSG:32633", here), (system, there)), ((system, there), ("EPSG:32633", here))):
        assert overlap(*first, *second) == pytest.approx(share, abs=0.02)


def test_antipodes_share_nothing():
    assert overlap("EPSG:32633", HERE, "EPSG:32760", (500_000, 5_300_000, 501_200, 5_301_200)) == 0


def test_a_small_image_within_a_large_one_is_no_pair():
    assert overlap("EPSG:32633", HERE, "EPSG:32633", (404400, 5341800, 405000, 5342400)) == pytest.approx(0.25)


def test_without_a_place_nothing_is_said():
    assert overlap(None, None, "EPSG:32633", HERE) is None
    assert overlap("EPSG:32633", HERE, "EPSG:32633", None) is None
