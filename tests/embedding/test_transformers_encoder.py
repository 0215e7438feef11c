"""Image models of Transformers as encoders: what is taken of their image processors, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel, ViTConfig, ViTModel

from csmae_hf.embedding.transformers_encoder import transformers_encoder

RGB = ["B04", "B03", "B02"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32}


def saved(folder: Path, model, **settings) -> str:
    model.save_pretrained(folder)
    if settings:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


def vit(channels=3, **options) -> ViTModel:
    return ViTModel(ViTConfig(num_channels=channels, patch_size=8, **SIZES), **options)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"size": {"height": 48, "width": 48}}, 48),
        ({"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": {"height": 56, "width": 56}}, 56),
        ({"size": 40}, 40),
        ({}, 32),
    ],
)
def test_mean_deviation_and_size_are_those_of_the_image_processor(settings, size, tmp_path) -> None:
    statistics = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    model = Dinov2Model(
        Dinov2Config(patch_size=8, mlp_ratio=2, **{k: v for k, v in SIZES.items() if k != "intermediate_size"})
    )
    place = saved(tmp_path / "model", model, image_processor_type="BitImageProcessor", **statistics, **settings)
    encoder = transformers_encoder({"s2": place}, {"s2": RGB})
    one = encoder.normalisation["s2"]
    assert (one.mean, one.std, one.size) == (statistics["image_mean"], statistics["image_std"], size)
    assert (one.low, one.high, one.clip) == (0.0, 3000.0, True)
    assert encoder.width == 32


def test_without_an_image_processor_the_numbers_are_those_of_vit(tmp_path) -> None:
    encoder = transformers_encoder({"s1": vit(2), "s2": saved(tmp_path / "m", vit(3))}, {"s1": ["VV", "VH"], "s2": RGB})
    for one in encoder.normalisation.values():
        assert (one.mean, one.std, one.size) == (0.5, 0.5, 32)


def test_two_channels_need_statistics_of_their_own_where_three_differ(tmp_path) -> None:
    place = saved(tmp_path / "m", vit(2), image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.2, 0.2], size=32)
    with pytest.raises(ValueError, match=r"mean \[0.4, 0.5, 0.6\], and s1 2 channels.*pass mean=\{'s1': \[...\]\}"):
        transformers_encoder({"s1": place}, {"s1": ["VV", "VH"]})
    encoder = transformers_encoder({"s1": place}, {"s1": ["VV", "VH"]}, mean={"s1": [0.5, 0.3]})
    assert encoder.normalisation["s1"].std == 0.2
    three = transformers_encoder({"s1": saved(tmp_path / "n", vit(3))}, {"s1": ["VV", "VH", "VV"]})
    assert three.sensors == {"s1": ["VV", "VH"]}


def test_convolutions_are_pooled_over_places() -> None:
    model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
    encoder = transformers_encoder({"s2": model}, {"s2": RGB}, size=32)
    assert encoder.width == 16
    assert transformers_encoder({"s2": model}, {"s2": RGB}, size=32, pool="pooler").width == 16


def test_weights_that_would_be_random_are_refused(tmp_path) -> None:
    place = saved(tmp_path / "m", vit(3, add_pooling_layer=False))
    assert transformers_encoder({"s2": place}, {"s2": RGB}).width == 32
    with pytest.raises(ValueError, match=r"lacks 2 weights of ViTModel, pooler.*choose pool='mean'"):
        transformers_encoder({"s2": place}, {"s2": RGB}, pool="pooler")


@pytest.mark.parametrize(
    ("models", "bands", "said"),
    [
        ({"s2": "nowhere/at-all"}, {"s2": RGB}, "No model at nowhere/at-all"),
        ({"s2": vit(3)}, {"s1": RGB}, "models for s2, and bands for s1"),
        ({"s2": vit(3)}, {"s2": ["B04", "B03"]}, "does not take images"),
        ({"thermal": vit(2)}, {"thermal": ["T1", "T2"]}, "pass scale="),
    ],
)
def test_what_does_not_fit_is_named(models, bands, said) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        transformers_encoder(models, bands)


def test_a_model_of_both_sensors_is_loaded_once(tmp_path) -> None:
    place = saved(tmp_path / "m", vit(3))
    encoder = transformers_encoder({"s1": place, "s2": place}, {"s1": ["VV", "VH", "VH"], "s2": RGB})
    assert encoder.by_sensor["s1"] is encoder.by_sensor["s2"]
    blank = encoder.untrained()
    assert blank.by_sensor["s1"] is blank.by_sensor["s2"]
    assert "torchvision" not in __import__("sys").modules
    assert torch.is_tensor(encoder.embed(torch.zeros(1, 2, 120, 120), "s1"))
