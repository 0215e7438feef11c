"""The baseline is what it claims to be, and a warm start loads what fits and says what it did."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import build, draw_images, draw_noise, tiny_config
from tiny_runs import TINY

from configuration_csmae import CSMAEConfig
from csmae_hf.training.arguments import ModelArguments
from csmae_hf.training.models import build_model, build_processor
from csmae_hf.training.warm_start import REPORT_NAME, source_name, warm_start
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel


def mae(sensors=None) -> CSMAEForPreTraining:
    overrides = {
        **TINY,
        "image_size": 16,
        "patch_size": 4,
        "sensors": sensors or {"s1": ["VH", "VV"], "s2": ["B02", "B03"]},
    }
    torch.manual_seed(0)
    return build_model(ModelArguments(model_name="mae", model_overrides=overrides))


# The baseline


def test_mae_is_as_deep_and_shares_no_block_and_no_decoder():
    config = build_model(ModelArguments(model_name="mae", size="tiny")).config
    assert (config.multi_sensor_encoder_depth, config.cross_sensor_encoder_depth) == (12, 0)
    assert config.decoder_type == "specific"
    assert mae().config.multi_sensor_encoder_depth == 2, "overrides that share blocks give as many of the sensor's own"


def test_maes_loss_has_the_uni_modal_terms_only():
    model = mae()
    outputs = model(**draw_images(model.config))
    assert set(outputs.losses) == {"umr_s1", "umr_s2"}
    assert outputs.loss == outputs.losses["umr_s1"] + outputs.losses["umr_s2"]


def test_one_sensors_loss_has_no_gradient_for_the_others_parameters():
    model = mae()
    reached = {}
    for sensor in model.config.sensors:
        model.zero_grad(set_to_none=True)
        model(**draw_images(model.config)).losses[f"umr_{sensor}"].backward()
        reached[sensor] = {name for name, each in model.named_parameters() if each.grad is not None and each.grad.any()}
    assert not reached["s1"] & reached["s2"]
    assert reached["s1"] | reached["s2"] == {name for name, each in model.named_parameters() if each.requires_grad}


def test_the_pair_trains_like_two_maes_of_one_sensor():
    pair = mae()
    alone = {sensor: mae({sensor: bands}) for sensor, bands in pair.config.sensors.items()}
    for model in alone.values():
        model.load_state_dict({name: pair.state_dict()[name] for name in model.state_dict()})
    images, noise = draw_images(pair.config), draw_noise(pair.config)

    def train(model, sensors):
        optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
        model.train()
        for _ in range(5):
            optimizer.zero_grad()
            model(**{sensor: images[sensor] for sensor in sensors}, noise=noise).loss.backward()
            optimizer.step()

    train(pair, list(alone))
    for sensor, model in alone.items():
        train(model, [sensor])
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, pair.state_dict()[name], rtol=1e-5, atol=1e-6)


# Warm start


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Pre-training checkpoints of every variant with 3 blocks, and an encoder alone."""
    root = tmp_path_factory.mktemp("checkpoints")
    for seed, variant in enumerate(["cecd", "cesd", "secd", "sesd"]):
        build(CSMAEForPreTraining, three_blocks(variant), seed).save_pretrained(root / variant)
    build(CSMAEModel, three_blocks("sesd"), 9).save_pretrained(root / "encoder")
    return root


def three_blocks(variant: str, **overrides) -> CSMAEConfig:
    depths = {"multi_sensor_encoder_depth": 2, "cross_sensor_encoder_depth": 1} if variant[0] == "s" else {}
    return tiny_config(variant, **{"cross_sensor_encoder_depth": 3, **depths, **overrides})


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("variant", ["cecd", "sesd"])
def test_the_same_architecture_is_loaded_whole(checkpoints, variant):
    model, report = warm_start(str(checkpoints / variant), three_blocks(variant, mask_ratio=0.75))
    assert report.not_loaded == {}
    assert report.unused == []
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in weights(checkpoints / variant).items())
    assert model.config.mask_ratio == 0.75


def test_a_common_encoder_goes_into_every_sensors_own_blocks_at_the_same_depth(checkpoints):
    model, report = warm_start(str(checkpoints / "cecd"), three_blocks("sesd"))
    source, target = weights(checkpoints / "cecd"), model.state_dict()
    for sensor in ("s1", "s2"):
        for block in (0, 1):
            assert torch.equal(
                target[f"csmae.multi_sensor_encoders.{sensor}.layers.{block}.mlp.fc1.weight"],
                source[f"csmae.cross_sensor_encoder.layers.{block}.mlp.fc1.weight"],
            )
        for rest in ("embed.weight", "mask_token", f"heads.{sensor}.weight"):
            assert torch.equal(target[f"decoders.{sensor}.{rest}"], source[f"decoders.common.{rest}"])
    name = "csmae.cross_sensor_encoder.layers.{}.mlp.fc1.weight"
    assert torch.equal(target[name.format(0)], source[name.format(2)]), "the last block is the last block"
    assert set(report.not_loaded) == {
        f"csmae.multi_sensor_encoders.{sensor}.layernorm.{kind}"
        for sensor in ("s1", "s2")
        for kind in ("weight", "bias")
    }


def test_blocks_of_each_sensors_own_do_not_become_shared_ones(checkpoints):
    model, report = warm_start(str(checkpoints / "secd"), three_blocks("cesd"))
    own = [
        name
        for name in model.state_dict()
        if name.startswith(("csmae.cross_sensor_encoder.layers.0", "csmae.cross_sensor_encoder.layers.1"))
    ]
    assert own
    assert set(own) <= set(report.not_loaded)
    last = "csmae.cross_sensor_encoder.layers.2.mlp.fc1.weight"
    assert report.loaded[last] == "csmae.cross_sensor_encoder.layers.0.mlp.fc1.weight"
    assert any(name.startswith("csmae.multi_sensor_encoders.s1.layers.0") for name in report.unused)


def test_of_another_size_what_fits_is_loaded(checkpoints):
    wider = three_blocks("sesd", decoder_hidden_size=32)
    model, report = warm_start(str(checkpoints / "sesd"), wider)
    assert {name for name in report.loaded if not name.startswith("csmae.")} == set()
    assert {name for name in model.state_dict() if name.startswith("csmae.")} == set(report.loaded)
    reason = report.not_loaded["decoders.s1.embed.weight"]
    assert reason == "shape 32 x 32, in the checkpoint 16 x 32"
    deeper = warm_start(str(checkpoints / "cesd"), three_blocks("cesd", cross_sensor_encoder_depth=4))[1]
    assert {name.split(".")[3] for name in deeper.not_loaded} == {"3"}


def test_nothing_that_fits_is_an_error(checkpoints, tmp_path):
    build(CSMAEForPreTraining, tiny_config(decoder_hidden_size=64, patch_size=8)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Nothing of .* fits this model"):
        warm_start(
            str(tmp_path), tiny_config(hidden_size=16, intermediate_size=40, decoder_hidden_size=20, patch_size=4)
        )


def test_an_encoder_alone_or_a_classifier_can_be_started_from(checkpoints, tmp_path):
    model, report = warm_start(str(checkpoints / "encoder"), three_blocks("sesd"))
    assert {name.split(".")[0] for name in report.not_loaded} == {"decoders"}
    assert all(
        torch.equal(tensor, model.state_dict()[f"csmae.{name}"])
        for name, tensor in weights(checkpoints / "encoder").items()
    )
    build(CSMAEForImageClassification, three_blocks("sesd", num_labels=3)).save_pretrained(tmp_path)
    assert set(warm_start(str(tmp_path), three_blocks("sesd"))[1].loaded) == set(report.loaded)


def test_bands_are_matched_by_name_not_by_place(checkpoints):
    """Two bands swapped have the same shapes: by place they would be loaded wrong and never noticed."""
    sensors = {"s1": ["VV", "VH"], "s2": ["B02", "B03", "B08"]}
    model, report = warm_start(str(checkpoints / "sesd"), three_blocks("sesd", sensors=sensors))
    kernel = "csmae.embeddings.{}.projection.weight"
    stored = weights(checkpoints / "sesd")
    assert torch.equal(model.state_dict()[kernel.format("s1")], stored[kernel.format("s1")][:, [1, 0]])
    assert report.not_loaded[kernel.format("s2")] == "the checkpoint does not have all bands of s2"
    assert "decoders.s2.heads.s2.weight" in report.not_loaded
    assert "csmae.embeddings.s2.cls_token" in report.loaded


def test_a_damaged_checkpoint_is_refused(checkpoints, tmp_path):
    tensors = weights(checkpoints / "sesd")
    del tensors["csmae.fc_norm.weight"]
    three_blocks("sesd").save_pretrained(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 tensors .*fc_norm"):
        warm_start(str(tmp_path), three_blocks("sesd"))


def test_every_source_name_of_the_same_architecture_is_itself():
    for variant in ("cecd", "sesd"):
        config = three_blocks(variant)
        for name in CSMAEForPreTraining(config).state_dict():
            assert source_name(name, config, config) == name


def test_arguments_decide_the_architecture_and_the_list_is_written(checkpoints, tmp_path, caplog):
    path = str(checkpoints / "cecd")
    same = build_model(ModelArguments(model_name_or_path=path, model_overrides={"mask_ratio": 0.75}))
    assert (same.config.variant, same.config.hidden_size, same.config.mask_ratio) == ("cecd", 32, 0.75)
    fields = {name: getattr(three_blocks("sesd"), name) for name in TINY} | {"image_size": 16, "patch_size": 4}
    fields["sensors"] = three_blocks("sesd").sensors
    with caplog.at_level(logging.INFO):
        other = build_model(ModelArguments(model_name_or_path=path, variant="sesd", model_overrides=fields), tmp_path)
    assert other.config.variant == "sesd"
    report = json.loads((tmp_path / REPORT_NAME).read_text())
    assert set(report["loaded"]) | set(report["not_loaded"]) == set(other.state_dict())
    assert "not loaded: csmae.multi_sensor_encoders.s1.layernorm (2 tensors): the checkpoint has none" in caplog.text


def test_a_missing_checkpoint_is_one_clear_error(tmp_path):
    for options in ({}, {"variant": "sesd"}):
        with pytest.raises(FileNotFoundError, match="No checkpoint at"):
            build_model(ModelArguments(model_name_or_path=str(tmp_path / "none"), **options))


def test_the_checkpoints_statistics_and_orientation_go_on(tmp_path):
    CSMAEImageProcessor(transpose=True, band_mean={"VV": -11.5}).save_pretrained(tmp_path)
    processor = build_processor(ModelArguments(model_name_or_path=str(tmp_path)), CSMAEConfig(image_size=60))
    assert (processor.transpose, processor.band_mean["VV"], processor.size) == (True, -11.5, 60)
