"""The backbone: maps that are the tokens in their places, a head that trains on them, and what Transformers asks of a backbone."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import THREE_SENSORS, TWO_SENSORS, build, draw_images, tiny_config
from torch import nn
from transformers import AutoBackbone, UperNetConfig, UperNetForSemanticSegmentation

from csmae_hf import CSMAEBackbone, CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel
from modeling_csmae import patchify


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build(CSMAEForPreTraining, tiny_config()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("variant", ["sesd", "cecd"])
@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_maps_are_the_tokens_of_each_block_in_their_places(variant: str, pooling: str) -> None:
    config = tiny_config(variant, pooling=pooling, out_indices=[0, 1, 2])
    backbone = build(CSMAEBackbone, config)
    assert backbone.stage_names == ["stem", "stage1", "stage2"]
    assert backbone.channels == [32, 32, 32]
    images = draw_images(config, batch=2)
    with torch.no_grad():
        outputs = backbone(**images)
        states = backbone.csmae(**images, output_hidden_states=True).hidden_states
    for sensor in images:
        for feature_map, tokens in zip(outputs.sensor_feature_maps[sensor], states[sensor], strict=True):
            assert feature_map.shape == (2, 32, 4, 4)
            for row in range(4):
                for column in range(4):
                    assert torch.equal(feature_map[:, :, row, column], tokens[:, 1 + 4 * row + column])
    for stage, feature_map in enumerate(outputs.feature_maps):
        mean = (outputs.sensor_feature_maps["s1"][stage] + outputs.sensor_feature_maps["s2"][stage]) / 2
        torch.testing.assert_close(feature_map, mean)


def test_the_stem_sees_each_patch_where_it_lies() -> None:
    """Independent of the model's own states: the projection of the pixels of a patch, and its position."""
    config = tiny_config(out_features=["stem"])
    backbone = build(CSMAEBackbone, config)
    image = draw_images(config, batch=1)["s2"]
    embedding = backbone.csmae.embeddings["s2"].projection
    patches = patchify(image, 4).reshape(1, 16, 4, 4, 3)  # row, column, band
    with torch.no_grad():
        (stem,) = backbone(s2=image).feature_maps
        expected = torch.einsum("brcn,dnrc->bd", patches[:, 4 * 2 + 3], embedding.weight) + embedding.bias
    expected += backbone.csmae.positions.table[:, 1 + 4 * 2 + 3]
    torch.testing.assert_close(stem[:, :, 2, 3], expected)


def test_one_sensor_alone_costs_and_gives_its_own() -> None:
    config = tiny_config(sensors=THREE_SENSORS, out_indices=[1, 2])
    backbone = build(CSMAEBackbone, config)
    images = draw_images(config)
    ran: list[str] = []
    for sensor, encoder in backbone.csmae.multi_sensor_encoders.items():
        encoder.register_forward_hook(lambda *_, sensor=sensor: ran.append(sensor))
    alone = backbone(thermal=images["thermal"])
    assert ran == ["thermal"]
    assert list(alone.sensor_feature_maps) == ["thermal"]
    all_sensors = backbone(**images)
    for one, other in zip(alone.feature_maps, all_sensors.sensor_feature_maps["thermal"], strict=True):
        torch.testing.assert_close(one, other)
    assert alone.hidden_states is None
    assert len(backbone(thermal=images["thermal"], output_hidden_states=True).hidden_states["thermal"]) == 3


def test_stacked_sensors_are_the_sensors_by_name() -> None:
    config = tiny_config()
    backbone = build(CSMAEBackbone, config)
    images = draw_images(config)
    by_name = backbone(**images).feature_maps[0]
    stacked = torch.cat([images[sensor] for sensor in config.sensors], dim=1)
    assert torch.equal(backbone(stacked).feature_maps[0], by_name)
    assert torch.equal(backbone(pixel_values=stacked, return_dict=False)[0][0], by_name)
    for wrong, named in ((images["s2"], {}), (stacked, {"s1": images["s1"]}), (stacked[0], {})):
        with pytest.raises(ValueError, match=r"expected \(batch, 5, height, width\) alone.*s1 \(VH, VV\), s2 \(B02"):
            backbone(wrong, **named)


def test_absent_sensors_are_left_out_of_the_mean() -> None:
    config = tiny_config()
    backbone = build(CSMAEBackbone, config)
    images = draw_images(config, batch=2)
    present = {"s1": torch.tensor([True, False])}
    found = backbone(**images, present=present).feature_maps[0]
    torch.testing.assert_close(found[0], backbone(**images).feature_maps[0][0])
    torch.testing.assert_close(found[1], backbone(s2=images["s2"]).feature_maps[0][1])


def test_other_sizes_of_images_give_other_sizes_of_maps() -> None:
    backbone = build(CSMAEBackbone, tiny_config())
    assert backbone(s1=torch.randn(1, 2, 24, 8), interpolate_pos_encoding=True).feature_maps[0].shape == (1, 32, 6, 2)


@pytest.mark.parametrize("source", [CSMAEForPreTraining, CSMAEModel, CSMAEForImageClassification, CSMAEBackbone])
def test_every_checkpoint_loads_without_a_word(source: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build(source, tiny_config())
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        backbone, info = CSMAEBackbone.from_pretrained(tmp_path, out_indices=[1, 2], output_loading_info=True)
    assert not any(info.values()), info
    assert not caplog.records
    images = draw_images(model.config)
    encoder = getattr(model, "csmae", model)
    with torch.no_grad():
        expected = encoder(**images, output_hidden_states=True).hidden_states["s2"][1][:, 1:]
        found = backbone(**images).sensor_feature_maps["s2"][0]
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected)


def test_a_saved_backbone_keeps_its_stages_and_is_a_model_still(folder: Path, tmp_path: Path) -> None:
    backbone = CSMAEBackbone.from_pretrained(folder, out_features=["stem", "stage2"])
    assert (backbone.out_features, backbone.out_indices) == (["stem", "stage2"], [0, 2])
    backbone.save_pretrained(tmp_path)
    assert CSMAEBackbone.from_pretrained(tmp_path).out_indices == [0, 2]
    assert CSMAEBackbone.from_pretrained(tmp_path, out_indices=[1]).out_features == ["stage1"]
    model, info = CSMAEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    images = draw_images(model.config)
    assert torch.equal(model(**images).embeds["s1"], backbone.csmae(**images).embeds["s1"])


def test_some_bands_and_auto_backbone_from_a_config(folder: Path) -> None:
    backbone = CSMAEBackbone.from_pretrained(folder, sensors={"s2": ["B04", "B02"]})
    whole = CSMAEBackbone.from_pretrained(folder)
    image = torch.randn(2, 2, 16, 16)
    padded = torch.stack([image[:, 1], torch.zeros(2, 16, 16), image[:, 0]], dim=1)
    torch.testing.assert_close(backbone(image).feature_maps, whole(s2=padded).feature_maps)
    made = AutoBackbone.from_config(tiny_config(out_indices=[1]))
    assert isinstance(made, CSMAEBackbone)
    assert made.out_features == ["stage1"]


ON_DISK = {
    "csmae.embeddings": "cpu",
    "csmae.positions": "cpu",
    "csmae.fc_norm": "cpu",
    "csmae.multi_sensor_encoders": "disk",
    "csmae.cross_sensor_encoder": "disk",
}


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": torch.float64}, torch.float64),
        ({"dtype": "auto", "low_cpu_mem_usage": True}, torch.float32),
        ({"device_map": "auto"}, torch.float32),
        ({"device_map": {"": "cpu"}, "attn_implementation": "eager"}, torch.float32),
        ({"device_map": ON_DISK}, torch.float32),
    ],
)
def test_precision_and_placement_are_as_asked_for(
    folder: Path, tmp_path: Path, options: dict[str, Any], dtype: torch.dtype
) -> None:
    images = draw_images(tiny_config())
    with torch.no_grad():
        expected = CSMAEBackbone.from_pretrained(folder)(**images).feature_maps[0]
        backbone = CSMAEBackbone.from_pretrained(folder, **options, offload_folder=tmp_path)
        found = backbone(**images).feature_maps[0]
    assert found.dtype is dtype
    torch.testing.assert_close(found.float(), expected, atol=0.1 if dtype.itemsize == 2 else 1e-5, rtol=1e-2)
    with torch.device("meta"):
        assert all(one.is_meta for one in CSMAEBackbone(backbone.config).parameters())


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_attentions_are_given_where_asked_for(folder: Path, attention: str) -> None:
    backbone = CSMAEBackbone.from_pretrained(folder, attn_implementation=attention)
    outputs = backbone(**draw_images(backbone.config, batch=2), output_attentions=True)
    for weights in outputs.attentions.values():
        assert [tuple(one.shape) for one in weights] == [(2, 2, 17, 17)] * 2
        torch.testing.assert_close(weights[0].sum(-1), torch.ones(2, 2, 17))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"out_features": ["stage9"]}, "subset of stage_names.*stem.*stage2"),
        ({"out_indices": [5]}, "valid indices for stage_names"),
        ({"out_indices": [2, 1]}, "same order as stage_names"),
    ],
)
def test_stages_that_are_not_there_are_refused(stages: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        tiny_config(**stages)


def draw_scenes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 5, 16, 16) whose bright half, in steps of a patch, is to be found: labels (n, 16, 16)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(count, 16, 16, dtype=torch.long)
    for place in range(count):
        edge = 4 * int(torch.randint(1, 4, (), generator=generator))
        labels[place, edge:] = 1
    images = torch.randn(count, 5, 16, 16, generator=generator) + 3.0 * labels[:, None]
    return images, labels


def test_a_plain_segmentation_head_trains_on_it() -> None:
    torch.manual_seed(0)
    backbone = CSMAEBackbone(tiny_config(out_indices=[1, 2]))
    head = nn.Sequential(nn.Conv2d(sum(backbone.channels), 2, 1), nn.Upsample(scale_factor=4))
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=3e-3)
    images, labels = draw_scenes(16)
    losses = []
    for _ in range(30):
        logits = head(torch.cat(backbone(images).feature_maps, dim=1))
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    missing = [name for name, one in backbone.named_parameters() if one.requires_grad and one.grad is None]
    assert not missing, "data-parallel training would wait for them"


def test_upernet_takes_it_as_its_backbone_trains_and_comes_back(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = UperNetConfig(
        backbone_config=tiny_config(out_indices=[0, 1, 2]),
        hidden_size=16,
        num_labels=2,
        pool_scales=[1, 2],
        auxiliary_in_channels=32,
        auxiliary_channels=16,
    )
    model = UperNetForSemanticSegmentation(config)
    model.backbone.load_state_dict(CSMAEBackbone.from_pretrained(folder).state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images, labels = draw_scenes(8)
    losses = []
    for _ in range(15):
        loss = model(pixel_values=images, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    model.eval().save_pretrained(tmp_path)
    again = UperNetForSemanticSegmentation.from_pretrained(tmp_path)
    assert again.backbone.out_indices == [0, 1, 2]
    assert again.config.backbone_config.sensors == TWO_SENSORS
    with torch.no_grad():
        torch.testing.assert_close(again(pixel_values=images).logits, model(pixel_values=images).logits)
