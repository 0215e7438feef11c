"""Weights right after they are made and right after they are loaded, whole, in shards or in part."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import THREE_SENSORS, build, draw_images, tiny_config
from torch import nn
from transformers import AutoModel, AutoModelForImageClassification, AutoModelForPreTraining

import csmae_hf  # noqa: F401 (registers the Auto classes)
from modeling_csmae import (
    CSMAEDecoder,
    CSMAEEmbeddings,
    CSMAEForImageClassification,
    CSMAEForPreTraining,
    CSMAEModel,
    CSMAEPositionEmbeddings,
    sincos_positions,
)

CLASSES = {
    AutoModel: CSMAEModel,
    AutoModelForPreTraining: CSMAEForPreTraining,
    AutoModelForImageClassification: CSMAEForImageClassification,
}


def assert_uniform(weight: torch.Tensor, bound: float) -> None:
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)


def assert_initialised(module: nn.Module) -> None:
    """Check one module's own weights against method.md."""
    if isinstance(module, nn.Linear):
        assert_uniform(module.weight, math.sqrt(6 / (module.in_features + module.out_features)))
        assert not module.bias.any()
    elif isinstance(module, nn.Conv2d):
        assert_uniform(module.weight, math.sqrt(6 / (module.weight.shape[0] + module.weight[0].numel())))
    elif isinstance(module, nn.LayerNorm):
        assert torch.equal(module.weight, torch.ones_like(module.weight))
        assert not module.bias.any()
    elif isinstance(module, CSMAEEmbeddings):
        assert 0 < module.cls_token.std() < 0.04
    elif isinstance(module, CSMAEDecoder):
        assert 0 < module.mask_token.std() < 0.04
    elif isinstance(module, CSMAEPositionEmbeddings):
        assert torch.equal(module.table, sincos_positions(module.grid, module.hidden_size))


@pytest.mark.parametrize("auto", CLASSES)
@pytest.mark.parametrize("variant", ["cecd", "sesd"])
def test_from_config_initialises_everything(auto: Any, variant: str) -> None:
    torch.manual_seed(0)
    model = auto.from_config(tiny_config(variant, num_labels=10))
    assert type(model) is CLASSES[auto]
    for module in model.modules():
        assert_initialised(module)


def test_missing_keys_are_initialised_and_the_others_are_kept(tmp_path: Path) -> None:
    source = build(CSMAEForPreTraining, tiny_config())
    source.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = [name for name in weights if "decoders.s2." in name or "embeddings.s1" in name or "fc_norm" in name]
    save_file({k: v for k, v in weights.items() if k not in lost}, tmp_path / "model.safetensors", {"format": "pt"})
    torch.manual_seed(0)
    model, info = CSMAEForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == set(lost)
    for name, value in model.state_dict().items():
        assert (name in lost) != torch.equal(value, weights[name]), name
    for module in (*model.decoders["s2"].modules(), *model.csmae.embeddings["s1"].modules(), model.csmae.fc_norm):
        assert_initialised(module)
    for module in model.modules():
        if isinstance(module, CSMAEPositionEmbeddings):
            assert_initialised(module)


@pytest.mark.parametrize("variant", ["cecd", "sesd"])
def test_sharded_checkpoint_loads_into_every_class(variant: str, tmp_path: Path) -> None:
    source = build(CSMAEForPreTraining, tiny_config(variant))
    source.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    images = draw_images(source.config)
    loaded = CSMAEForPreTraining.from_pretrained(tmp_path)
    assert torch.equal(loaded(**images).loss, source(**images).loss)
    for auto in (AutoModel, AutoModelForImageClassification):
        found = auto.from_pretrained(tmp_path)(**images).embeds
        assert all(torch.equal(found[sensor], value) for sensor, value in source.csmae(**images).embeds.items())
    fewer = CSMAEModel.from_pretrained(tmp_path, sensors={"s2": ["B04"]})
    assert fewer.config.sensors == {"s2": ["B04"]}


def test_mismatched_heads_start_anew_where_asked(tmp_path: Path) -> None:
    build(CSMAEForImageClassification, tiny_config(num_labels=3)).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        CSMAEForImageClassification.from_pretrained(tmp_path, num_labels=7)
    model, info = CSMAEForImageClassification.from_pretrained(
        tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {key[0] for key in info["mismatched_keys"]} == {"classifier.weight", "classifier.bias"}
    assert_initialised(model.classifier)


def test_sensor_added_to_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    source = build(CSMAEForPreTraining, tiny_config("cecd"))
    source.save_pretrained(tmp_path)
    wider = CSMAEForPreTraining.from_pretrained(
        tmp_path, config=tiny_config("cecd", sensors=THREE_SENSORS), ignore_mismatched_sizes=True
    )
    for name, value in source.state_dict().items():
        assert torch.equal(wider.state_dict()[name], value), name
    assert_initialised(wider.csmae.embeddings["thermal"].projection)
    assert_initialised(wider.decoders["common"].heads["thermal"])


def test_another_image_size_keeps_the_weights(tmp_path: Path) -> None:
    source = build(CSMAEModel, tiny_config())
    source.save_pretrained(tmp_path)
    model = CSMAEModel.from_pretrained(tmp_path, image_size=32)
    assert torch.equal(model.positions.table, sincos_positions((8, 8), 32))
    assert model(s1=torch.zeros(1, 2, 32, 32)).last_hidden_state["s1"].shape == (1, 65, 32)
