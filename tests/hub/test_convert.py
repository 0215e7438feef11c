"""Checkpoints of the original code: converted at parity, refused with all that is wrong, and given back bit by bit."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

import csmae_hf  # noqa: F401 (registers the Auto classes)
from configuration_csmae import DEFAULT_SENSORS, VARIANTS, CSMAEConfig
from csmae_hf.commands.main import main
from csmae_hf.hub.convert import convert_checkpoint, export_original
from csmae_hf.hub.original import ConversionError, original_name, read_original
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

HEADS: dict[str, Any] = {"num_attention_heads": 2, "decoder_num_attention_heads": 2}
TINY: dict[str, Any] = {
    "image_size": 30,
    "hidden_size": 16,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    **HEADS,
}


def tiny_model(variant: str, model_class: type = CSMAEForPreTraining, **overrides: Any) -> Any:
    """A model of 4 patches, every parameter off its initial value."""
    traits = VARIANTS[variant]
    depths = {"multi_sensor_encoder_depth": 1 if traits["specific_encoder"] else 0, "cross_sensor_encoder_depth": 2}
    torch.manual_seed(0)
    model = model_class(CSMAEConfig(**{**TINY, **depths, "decoder_type": traits["decoder_type"], **overrides})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def tiny_checkpoint(
    folder: Path, variant: str = "sesd", model_class: type = CSMAEForPreTraining, **overrides: Any
) -> Path:
    """An original-style checkpoint of a tiny model, whose folder is kept beside it as `source`."""
    model = tiny_model(variant, model_class, **overrides)
    model.save_pretrained(folder / "source")
    CSMAEImageProcessor(model.config.sensors, size=30, transpose=True).save_pretrained(folder / "source")
    return export_original(folder / "source", folder / "original.ckpt")


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    state = state_of(path)
    change(state)
    torch.save({"state_dict": state}, path)
    return path


def write_yaml(path: Path, backbone: dict[str, Any], method: dict[str, Any] | None = None) -> Path:
    content = {"backbone": {"name": "vit_tiny", "kwargs": backbone}, "method_kwargs": method or {}}
    path.write_text(yaml.safe_dump(content))
    return path


def assert_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


# The parity cases: written by the original code


@pytest.mark.parametrize("with_yaml", [True, False], ids=["yaml", "no-yaml"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_converted_original_gives_the_embeds_and_losses_of_the_original(
    shared: Path, tmp_path: Path, variant: str, with_yaml: bool
) -> None:
    case = shared / "parity" / variant
    checkpoint = case / f"csmae-{variant}-ep=149.ckpt"
    given = {"config": case / "args.yaml"} if with_yaml else {"decoder_num_attention_heads": 4}
    folder = convert_checkpoint(checkpoint, tmp_path / "model", **given)
    model = AutoModelForPreTraining.from_pretrained(folder)
    expected, scalars = load_file(case / "expected.safetensors"), json.loads((case / "expected.json").read_text())
    images = {"s1": expected["images"][:, 10:], "s2": expected["images"][:, :10]}
    with torch.no_grad():
        embeds = AutoModel.from_pretrained(folder)(**images).embeds
        outputs = model(**images, noise={"s1": expected["noise_s1"], "s2": expected["noise_s2"]})
    assert model.config.variant == variant
    for sensor in images:
        torch.testing.assert_close(embeds[sensor], expected[f"embeds_{sensor}"], atol=1e-5, rtol=0)
    losses = {f"umr_{s}": scalars[f"train_reconstruction_loss_{s}_from_{s}"] for s in ("s1", "s2")}
    losses |= {"cmr_s1_s2": scalars["train_reconstruction_loss_s2_from_s1"]}
    losses |= {"cmr_s2_s1": scalars["train_reconstruction_loss_s1_from_s2"], "mim": scalars["train_mim_loss"]}
    assert {name: loss.item() for name, loss in outputs.losses.items()} == pytest.approx(losses, abs=1e-5)
    assert outputs.loss.item() == pytest.approx(scalars["loss"], abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_original_comes_back_bit_by_bit_with_its_frozen_positions(shared: Path, tmp_path: Path, variant: str) -> None:
    case = shared / "parity" / variant
    checkpoint = case / f"csmae-{variant}-ep=149.ckpt"
    folder = convert_checkpoint(checkpoint, tmp_path / "model", config=case / "args.yaml")
    back = export_original(folder, tmp_path / "back.ckpt")
    assert "backbone.pos_embed" in state_of(back)
    assert_same_tensors(state_of(back), state_of(checkpoint))


def test_original_without_yaml_and_with_a_decoder_of_no_standard_width_asks_for_its_heads(
    shared: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=r"decoder_hidden_size = 64.*--decoder-num-attention-heads"):
        convert_checkpoint(shared / "parity/cecd/csmae-cecd-ep=149.ckpt", tmp_path / "model")
    assert not (tmp_path / "model").exists()


# The names of the original, spelled out


def test_names_are_those_of_the_original() -> None:
    layer, block = (
        "csmae.multi_sensor_encoders.s2.layers.3.attention.qkv.weight",
        "backbone.blocks_s2.3.attn.qkv.weight",
    )
    spelled = {
        "csmae.embeddings.s1.cls_token": "backbone.cls_token",
        "csmae.embeddings.s2.cls_token": "backbone.cls_token_s2",
        "csmae.embeddings.s1.projection.weight": "backbone.patch_embed.proj.weight",
        "csmae.embeddings.s2.projection.bias": "backbone.patch_embed_s2.proj.bias",
        layer: block,
        layer.removeprefix("csmae."): block,
        "csmae.multi_sensor_encoders.s1.layernorm.weight": "backbone.norm_s1.weight",
        "csmae.cross_sensor_encoder.layers.11.mlp.fc1.bias": "backbone.blocks.11.mlp.fc1.bias",
        "csmae.cross_sensor_encoder.layernorm.bias": "backbone.norm.bias",
        "csmae.fc_norm.weight": "backbone.fc_norm.weight",
        "decoders.common.mask_token": "decoder.mask_token",
        "decoders.common.embed.weight": "decoder.decoder_embed.weight",
        "decoders.common.heads.s1.weight": "decoder.decoder_pred_s2_to_s1.weight",
        "decoders.common.heads.s2.bias": "decoder.decoder_pred_s1_to_s2.bias",
        "decoders.s1.layers.0.attention.proj.bias": "decoder_s2_to_s1.decoder_blocks.0.attn.proj.bias",
        "decoders.s1.layernorm.weight": "decoder_s2_to_s1.decoder_norm.weight",
        "decoders.s2.heads.s2.weight": "decoder_s1_to_s2.decoder_pred.weight",
    }
    assert {name: original_name(name) for name in spelled} == spelled


# Converting what this project itself exports: runs without the shared cases


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_is_read_from_the_shapes_and_the_folder_equals_the_source(tmp_path: Path, variant: str) -> None:
    checkpoint = tiny_checkpoint(tmp_path, variant)
    folder = convert_checkpoint(checkpoint, tmp_path / "model", **HEADS)
    model, source = (AutoModelForPreTraining.from_pretrained(path) for path in (folder, tmp_path / "source"))
    assert isinstance(model, CSMAEForPreTraining)
    assert model.config.variant == variant
    assert (folder / "config.json").read_text() == (tmp_path / "source" / "config.json").read_text()
    assert_same_tensors(model.state_dict(), source.state_dict())
    assert_same_tensors(state_of(export_original(folder, tmp_path / "back.ckpt")), state_of(checkpoint))


def test_processor_swaps_rows_and_columns_as_the_originals_reader_does(tmp_path: Path) -> None:
    folder = convert_checkpoint(tiny_checkpoint(tmp_path), tmp_path / "model", **HEADS)
    processor = AutoImageProcessor.from_pretrained(folder)
    plain = CSMAEImageProcessor(size=30)
    image = -10 - torch.rand(2, 30, 30)
    swapped = plain(s1=image.transpose(1, 2).contiguous())["s1"]
    assert torch.equal(processor(s1=image)["s1"], swapped)
    assert not torch.equal(processor(s1=image)["s1"], plain(s1=image)["s1"])


def test_lying_yaml_is_reported_and_the_weights_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = tiny_checkpoint(tmp_path, "cecd")
    config = write_yaml(
        tmp_path / "args.yaml",
        {"multi_sensor_encoder_depth": 2, "cross_sensor_encoder_depth": 0, "patch_size": 15, "in_chans": 12},
        {"decoding_strategy": "specific", "decoder_embed_dim": 8, "decoder_num_heads": 2},
    )
    with caplog.at_level(logging.WARNING):
        folder = convert_checkpoint(checkpoint, tmp_path / "model", config=config, num_attention_heads=2)
    loaded = CSMAEConfig.from_pretrained(folder)
    assert (loaded.variant, loaded.multi_sensor_encoder_depth, loaded.cross_sensor_encoder_depth) == ("cecd", 0, 2)
    report = json.loads((folder / "conversion.json").read_text())["warnings"]
    disputed = ["multi_sensor_encoder_depth", "cross_sensor_encoder_depth", "decoding_strategy", "backbone.name"]
    assert len(report) == len(disputed)
    for setting in disputed:
        assert [line for line in report if setting in line]
        assert setting in caplog.text


def test_yaml_gives_masking_losses_and_heads(tmp_path: Path) -> None:
    config = write_yaml(
        tmp_path / "args.yaml",
        {"masking_strategy": "disjoint", "num_heads": 4},
        {
            "mask_ratio": 0.75,
            "norm_pix_loss": True,
            "apply_umr_loss": False,
            "apply_cmr_loss": True,
            "apply_mim_loss": False,
            "apply_mde_loss": True,
            "mim_temp": 0.1,
            "decoder_num_heads": 1,
            "reconstruction_strategy": "identical",
        },
    )
    folder = convert_checkpoint(tiny_checkpoint(tmp_path), tmp_path / "model", config=config)
    loaded = CSMAEConfig.from_pretrained(folder)
    assert (loaded.masking, loaded.mask_ratio, loaded.norm_pixel_loss) == ("disjoint", 0.75, True)
    assert (loaded.umr_weight, loaded.cmr_weight, loaded.mim_weight, loaded.mde_weight) == (0, 1, 0, 1)
    assert (loaded.mim_temperature, loaded.cmr_target) == (0.1, "target")
    assert (loaded.num_attention_heads, loaded.decoder_num_attention_heads) == (4, 1)


def test_yaml_of_the_backbone_alone_is_read_too(tmp_path: Path) -> None:
    config = tmp_path / "cfg.yaml"
    config.write_text(yaml.safe_dump({"name": "vit_tiny", "kwargs": {"masking_strategy": "identical", "num_heads": 4}}))
    folder = convert_checkpoint(
        tiny_checkpoint(tmp_path), tmp_path / "model", config=config, decoder_num_attention_heads=2
    )
    loaded = CSMAEConfig.from_pretrained(folder)
    assert (loaded.masking, loaded.num_attention_heads) == ("identical", 4)


def test_identical_masking_with_identical_reconstruction_is_said_not_to_be_offered(tmp_path: Path) -> None:
    settings = {"reconstruction_strategy": "identical"}
    config = write_yaml(tmp_path / "args.yaml", {"masking_strategy": "identical", "embed_dim": 16}, settings)
    folder = convert_checkpoint(tiny_checkpoint(tmp_path), tmp_path / "model", config=config, **HEADS)
    warnings = json.loads((folder / "conversion.json").read_text())["warnings"]
    assert [line for line in warnings if "visible patches, which is not offered" in line]
    assert CSMAEConfig.from_pretrained(folder).cmr_target == "source"


def test_argument_outvotes_the_yamls_heads_and_says_so(tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "args.yaml", {"num_heads": 4}, {"decoder_num_heads": 1})
    folder = convert_checkpoint(tiny_checkpoint(tmp_path), tmp_path / "model", config=config, **HEADS)
    report = json.loads((folder / "conversion.json").read_text())
    assert CSMAEConfig.from_pretrained(folder).num_attention_heads == 2
    assert report["attention_heads"]["num_attention_heads"] == {"value": 2, "from": "argument"}
    assert any("num_heads = 4" in warning for warning in report["warnings"])


@pytest.mark.parametrize(("setting", "value"), [("mask_ratio", "half"), ("norm_pix_loss", "no"), ("mask_ratio", [1])])
def test_yaml_with_a_value_of_another_kind_is_refused(tmp_path: Path, setting: str, value: Any) -> None:
    config = write_yaml(tmp_path / "args.yaml", {}, {setting: value})
    with pytest.raises(ConversionError, match=r"args\.yaml amount to no valid configuration"):
        convert_checkpoint(tiny_checkpoint(tmp_path), tmp_path / "model", config=config, **HEADS)


def test_yaml_that_would_run_code_or_is_no_run_configuration_is_refused(tmp_path: Path) -> None:
    checkpoint, marker = tiny_checkpoint(tmp_path), tmp_path / "ran"
    tagged, other = tmp_path / "tagged.yaml", tmp_path / "other.yaml"
    tagged.write_text(f"backbone: !!python/object/apply:os.mkdir ['{marker}']\n")
    other.write_text("a: 1\n")
    with pytest.raises(ConversionError, match="no YAML file of plain values"):
        convert_checkpoint(checkpoint, tmp_path / "model", config=tagged, **HEADS)
    with pytest.raises(ConversionError, match="neither 'backbone' nor 'method_kwargs'"):
        convert_checkpoint(checkpoint, tmp_path / "model", config=other, **HEADS)
    assert not marker.exists()


def test_own_blocks_without_shared_ones_keep_the_final_norm(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path, "secd", multi_sensor_encoder_depth=2, cross_sensor_encoder_depth=0)
    assert "backbone.norm.weight" in state_of(checkpoint)
    model = AutoModelForPreTraining.from_pretrained(convert_checkpoint(checkpoint, tmp_path / "model", **HEADS))
    assert (model.config.multi_sensor_encoder_depth, model.config.cross_sensor_encoder_depth) == (2, 0)
    assert torch.equal(model.csmae.cross_sensor_encoder.layernorm.weight, state_of(checkpoint)["backbone.norm.weight"])


def test_pooling_by_token_is_told_by_the_absent_fc_norm(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path, pooling="token")
    assert not [name for name in state_of(checkpoint) if "fc_norm" in name]
    assert CSMAEConfig.from_pretrained(convert_checkpoint(checkpoint, tmp_path / "model", **HEADS)).pooling == "token"


@pytest.mark.parametrize("prefix", [True, False], ids=["prefix", "no-prefix"])
@pytest.mark.parametrize("wrapped", [True, False], ids=["lightning", "bare"])
def test_backbone_alone_becomes_an_encoder(tmp_path: Path, prefix: bool, wrapped: bool) -> None:
    state = {name: t for name, t in state_of(tiny_checkpoint(tmp_path)).items() if name.startswith("backbone.")}
    named = state if prefix else {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    torch.save({"state_dict": named, "epoch": 149} if wrapped else named, tmp_path / "backbone.pth")
    folder = convert_checkpoint(tmp_path / "backbone.pth", tmp_path / "model", num_attention_heads=2)
    model, source = AutoModel.from_pretrained(folder), AutoModel.from_pretrained(tmp_path / "source")
    assert type(model) is CSMAEModel
    assert model.config.architectures == ["CSMAEModel"]
    images = {"s1": torch.randn(1, 2, 30, 30), "s2": torch.randn(1, 10, 30, 30)}
    for sensor, image in images.items():
        assert torch.equal(model(**{sensor: image}).embeds[sensor], source(**{sensor: image}).embeds[sensor])
    assert_same_tensors(state_of(export_original(folder, tmp_path / "back.ckpt")), state)


def test_that_weights_are_of_generated_scenes_goes_with_them_there_and_back(tmp_path: Path) -> None:
    for said in (True, False, None):
        place = tmp_path / str(said)
        checkpoint = tiny_checkpoint(place, **({} if said is None else {"trained_on_generated": said}))
        config = CSMAEConfig.from_pretrained(convert_checkpoint(checkpoint, place / "back", **HEADS))
        assert getattr(config, "trained_on_generated", None) is said


def test_half_precision_stays_half_precision(tmp_path: Path) -> None:
    def halve(state: dict[str, torch.Tensor]) -> None:
        state.update({name: tensor.half() for name, tensor in state.items()})

    checkpoint = rewrite(tiny_checkpoint(tmp_path), halve)
    folder = convert_checkpoint(checkpoint, tmp_path / "model", **HEADS)
    assert_same_tensors(state_of(export_original(folder, tmp_path / "back.ckpt")), state_of(checkpoint))


def test_tensors_that_share_memory_in_the_file_are_all_written(tmp_path: Path) -> None:
    def share(state: dict[str, torch.Tensor]) -> None:
        state["backbone.norm_s2.weight"] = state["backbone.norm_s1.weight"]
        state["backbone.fc_norm.bias"], state["backbone.norm.bias"] = torch.arange(32.0).split(16)

    checkpoint = rewrite(tiny_checkpoint(tmp_path), share)
    folder = convert_checkpoint(checkpoint, tmp_path / "model", **HEADS)
    assert_same_tensors(state_of(export_original(folder, tmp_path / "back.ckpt")), state_of(checkpoint))


def test_other_bands_must_be_named(tmp_path: Path) -> None:
    sensors = {"s1": ["VH", "VV"], "s2": ["B04", "B03", "B02"]}
    checkpoint = tiny_checkpoint(tmp_path, sensors=sensors)
    with pytest.raises(ConversionError, match=r"s2 has 3 bands.*--bands s2="):
        convert_checkpoint(checkpoint, tmp_path / "model", **HEADS)
    folder = convert_checkpoint(checkpoint, tmp_path / "model", sensors={"s2": sensors["s2"]}, **HEADS)
    assert CSMAEConfig.from_pretrained(folder).sensors == sensors
    assert AutoImageProcessor.from_pretrained(folder).sensors == sensors


# Refusals


def test_everything_wrong_is_listed_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    def damage(state: dict[str, torch.Tensor]) -> None:
        del (
            state["backbone.norm.weight"],
            state["decoder_s1_to_s2.decoder_pred.bias"],
            state["backbone.blocks.0.norm1.bias"],
        )
        state["backbone.head.weight"] = torch.zeros(19, 16)
        state["backbone.cls_token"] = torch.zeros(1, 1, 15)
        state["decoder_s2_to_s1.decoder_embed.weight"] = torch.zeros(16, 8)
        state["backbone.fc_norm.bias"] = state["backbone.fc_norm.bias"].double()
        state["backbone.fc_norm.weight"][3] = float("nan")
        state["backbone.pos_embed"][0, 2, 1] += 2e-5

    checkpoint = rewrite(tiny_checkpoint(tmp_path), damage)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError) as error:
        convert_checkpoint(checkpoint, tmp_path / "model", num_attention_heads=2)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    expected = [
        r"decoder_num_attention_heads cannot be told .*pass --decoder-num-attention-heads",
        r"missing: backbone\.blocks\.0\.norm1\.bias \(16,\)",
        r"missing: backbone\.norm\.weight \(16,\)",
        r"missing: decoder_s1_to_s2\.decoder_pred\.bias \(2250,\)",
        r"not the frozen positions: backbone\.pos_embed lies up to 2e-05 .*",
        r"misshapen: backbone\.cls_token \(1, 1, 15\), expected \(1, 1, 16\)",
        r"not finite: backbone\.fc_norm\.weight .*",
        r"of another type: backbone\.fc_norm\.bias is torch\.float64, most are torch\.float32",
        r"misshapen: decoder_s2_to_s1\.decoder_embed\.weight \(16, 8\), expected \(8, 16\)",
        r"unexpected: backbone\.head\.weight \(19, 16\)",
    ]
    assert len(lines) == len(expected)
    for pattern in expected:
        assert [line for line in lines if re.fullmatch(pattern, line)], pattern
    assert sorted(tmp_path.iterdir()) == before


def test_failing_self_check_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_checkpoint(tmp_path)
    before = sorted(tmp_path.iterdir())
    save = CSMAEForPreTraining.save_pretrained

    def save_another(model: CSMAEForPreTraining, folder: Path) -> None:
        bias = model.get_parameter("csmae.fc_norm.bias")
        with torch.no_grad():
            bias[0] += 1
            save(model, folder)
            bias[0] -= 1

    monkeypatch.setattr(CSMAEForPreTraining, "save_pretrained", save_another)
    with pytest.raises(ConversionError, match=r"Changed tensors: csmae\.fc_norm\.bias\."):
        convert_checkpoint(checkpoint, tmp_path / "model", **HEADS)
    assert sorted(tmp_path.iterdir()) == before


class MakesAFolder:
    """Unpickling this makes a folder: what a hostile checkpoint would do."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save(
        {"state_dict": {"backbone.cls_token": torch.zeros(1)}, "hook": MakesAFolder(marker)}, tmp_path / "evil.ckpt"
    )
    with pytest.raises(ConversionError, match="Nothing in it was run"):
        convert_checkpoint(tmp_path / "evil.ckpt", tmp_path / "model")
    assert not marker.exists()
    assert not (tmp_path / "model").exists()
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert marker.exists()  # the file does what it is feared to do


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    (tmp_path / "empty.ckpt").touch()
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"state_dict": {"backbone.cls_token": 3}}, tmp_path / "number.ckpt")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.ckpt")
    messages = {
        "text": "was refused",
        "empty": "was refused",
        "list": "holds list",
        "number": "not tensors",
        "resnet": "CSMAE",
    }
    for name, message in messages.items():
        with pytest.raises(ConversionError, match=message):
            read_original(tmp_path / f"{name}.ckpt")
    with pytest.raises(FileNotFoundError, match=r"absent\.ckpt"):
        read_original(tmp_path / "absent.ckpt")


def test_existing_target_is_refused_either_way(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        convert_checkpoint(checkpoint, tmp_path / "model", **HEADS)
    with pytest.raises(FileExistsError, match="exists already"):
        export_original(tmp_path / "source", checkpoint)


def test_model_the_original_does_not_know_is_not_exported(tmp_path: Path) -> None:
    reordered = {"s1": ["VV", "VH"], "s2": DEFAULT_SENSORS["s2"], "s3": ["B02"]}
    tiny_model("cecd", sensors=reordered, intermediate_size=32, hidden_act="relu").save_pretrained(tmp_path / "model")
    with pytest.raises(ConversionError) as error:
        export_original(tmp_path / "model", tmp_path / "out.ckpt")
    for problem in ("s1, s2, s3", "VV, VH", "intermediate_size = 32", "hidden_act = relu"):
        assert problem in str(error.value)
    assert not (tmp_path / "out.ckpt").exists()


def test_folder_that_lacks_weights_is_not_exported_with_random_ones(tmp_path: Path) -> None:
    model = tiny_model("cecd")
    kept = {name: tensor for name, tensor in model.state_dict().items() if "fc_norm" not in name}
    model.save_pretrained(tmp_path / "model", state_dict=kept)
    with pytest.raises(ConversionError, match=r"lacks weights.*csmae\.fc_norm\.bias"):
        export_original(tmp_path / "model", tmp_path / "out.ckpt")


def test_export_of_a_model_that_was_not_fed_transposed_images_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_checkpoint(tmp_path)
    assert "swaps rows and columns" not in caplog.text
    CSMAEImageProcessor(size=30).save_pretrained(tmp_path / "source")
    with caplog.at_level(logging.WARNING):
        export_original(tmp_path / "source", tmp_path / "again.ckpt")
    assert "swaps rows and columns" in caplog.text


# The report and the command line


def test_report_names_the_source_every_tensor_and_the_self_check(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path)
    folder = convert_checkpoint(checkpoint, tmp_path / "model", **HEADS)
    report = json.loads((folder / "conversion.json").read_text())
    assert report["source"]["file"] == "original.ckpt"
    assert report["source"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    state, stored = state_of(checkpoint), load_file(folder / "model.safetensors")
    assert report["tensors"].keys() | report["computed_positions"].keys() == state.keys()
    for name, entry in report["tensors"].items():
        assert torch.equal(stored[entry["name"]], state[name])
        assert entry["shape"] == list(state[name].shape)
    assert len(report["tensors"]) == len(stored) == report["self_check"]["equal_tensors"]
    assert report["self_check"].keys() == {"equal_tensors"}, "of heads, which no weight tells, nothing was checked"


def test_heads_that_nobody_gave_are_said_to_be_assumed(shared: Path, tmp_path: Path) -> None:
    case = shared / "parity" / "sesd"
    given = {"decoder_num_attention_heads": 4}
    folder = convert_checkpoint(case / "csmae-sesd-ep=149.ckpt", tmp_path / "assumed", **given)
    report = json.loads((folder / "conversion.json").read_text())
    assert report["attention_heads"] == {
        "num_attention_heads": {"value": 3, "from": "assumed: the standard of width 192"},
        "decoder_num_attention_heads": {"value": 4, "from": "argument"},
    }
    (warning,) = report["warnings"]
    assert "num_attention_heads = 3 is assumed" in warning
    assert "with --num-attention-heads" in warning
    folder = convert_checkpoint(case / "csmae-sesd-ep=149.ckpt", tmp_path / "told", config=case / "args.yaml")
    report = json.loads((folder / "conversion.json").read_text())
    assert report["attention_heads"]["num_attention_heads"] == {"value": 3, "from": "args.yaml: backbone.name"}
    assert report["warnings"] == []
    options = {"config": case / "args.yaml", "num_attention_heads": 6}
    folder = convert_checkpoint(case / "csmae-sesd-ep=149.ckpt", tmp_path / "other", **options)
    (warning,) = json.loads((folder / "conversion.json").read_text())["warnings"]
    assert warning == "args.yaml says backbone.name = vit_tiny, which has 3 heads: followed the argument, 6"


def test_commands_convert_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint(tmp_path, sensors={"s1": ["VH", "VV"], "s2": ["B04", "B03"]})
    heads = ["--num-attention-heads", "2", "--decoder-num-attention-heads", "2"]
    for command in (
        ["convert", str(checkpoint), str(tmp_path / "model"), "--bands", "s2=B04,B03", *heads],
        ["export-original", str(tmp_path / "model"), str(tmp_path / "back.ckpt")],
    ):
        assert main(command) == 0
        assert command[2] in capsys.readouterr().out
    assert_same_tensors(state_of(tmp_path / "back.ckpt"), state_of(checkpoint))
