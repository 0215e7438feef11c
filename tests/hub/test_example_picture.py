"""The picture of a model's page is drawn at the push where there is none, of the sensors that the model has."""

from pathlib import Path

import pytest
from hub_models import tiny_fields
from PIL import Image

from configuration_csmae import CSMAEConfig
from csmae_hf.hub.example_picture import draw_example
from csmae_hf.sample.generate import generate_sample
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEModel

pytest.importorskip("matplotlib", reason="pip install matplotlib")


def draw(path: Path, data: str | None = None, **fields: object) -> str | None:
    """Draw by a model of these fields with random weights."""
    model = CSMAEModel(CSMAEConfig.for_variant("sesd", "tiny", **tiny_fields("sesd"), **fields)).eval()
    processor = CSMAEImageProcessor(sensors=model.config.sensors, size=model.config.image_size)
    return draw_example(model, processor, path, data)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(generate_sample(tmp_path_factory.mktemp("picture") / "BigEarthNet-x", tiles=12, seed=3))


def test_a_row_for_each_sensor_and_small(tmp_path: Path, sample: str) -> None:
    words = draw(tmp_path / "both.png", sample)
    assert words is not None
    assert "generated scenes, not satellite images" in words, "whatever the folder is called"
    draw(tmp_path / "one.png", sample, sensors={"s2": ["B04", "B03", "B02"]})
    with Image.open(tmp_path / "both.png") as both, Image.open(tmp_path / "one.png") as one:
        assert both.height > 1.5 * one.height
        assert both.width == one.width
    assert (tmp_path / "both.png").stat().st_size < 2**18


def test_what_no_generated_scene_has_is_not_drawn_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert draw(tmp_path / "none.png", sensors={"thermal": ["B11", "B12"]}) is None
    assert "--picture" in caplog.text
    assert not (tmp_path / "none.png").exists()


def test_data_that_do_not_suit_the_model_are_refused(tmp_path: Path, sample: str) -> None:
    with pytest.raises(ValueError, match="thermal"):
        draw(tmp_path / "none.png", sample, sensors={"thermal": ["B11", "B12"]})
    with pytest.raises(FileNotFoundError):
        draw(tmp_path / "none.png", str(tmp_path / "nothing"))
