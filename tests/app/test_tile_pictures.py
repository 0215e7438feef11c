import base64
import io

import numpy as np
import pytest
from PIL import Image

from csmae_hf.app.tile_pictures import Composite, composites_of, measure_limits, paint, to_data_uri


def optical(level, seed=0):
    rng = np.random.default_rng(seed)
    return {band: rng.normal(level, level / 10, (20, 20)) for band in ("B02", "B03", "B04", "B08")}


@pytest.mark.parametrize("way", composites_of("s2", ["B02", "B03", "B04", "B08"]))
def test_a_few_clouds_leave_the_other_tiles_as_bright_as_they_were(way):
    land = [optical(600, seed) for seed in range(9)]
    alone = paint(land[0], way, measure_limits(land, way))
    cloudy = paint(land[0], way, measure_limits([*land, optical(9000)], way))
    assert cloudy.mean() == pytest.approx(alone.mean(), abs=0.1)
    assert 0.3 < cloudy.mean() < 0.8


def test_of_one_tile_the_limits_are_its_percentiles():
    tile, way = optical(600), Composite("s2", "false colour", ("B08", "B04", "B03"))
    expected = [np.percentile(tile[band].astype(np.float32), [2, 98]) for band in way.bands]
    np.testing.assert_allclose(measure_limits([tile], way), expected, rtol=1e-6)


def test_a_tile_of_one_value_can_be_drawn():
    tile, way = {"VV": np.full((4, 4), -10.0), "VH": np.full((4, 4), -10.0)}, Composite("s1", "")
    assert np.isfinite(paint(tile, way, measure_limits([tile], way))).all()


def test_a_picture_survives_its_way_into_the_page():
    rgb = np.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)
    kind, content = to_data_uri(rgb).split(",")
    assert kind == "data:image/jpeg;base64"
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) / 255
    assert np.abs(back - rgb).max() < 0.15
