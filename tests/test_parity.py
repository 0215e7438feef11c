"""The model against the numbers of the original code: the four cases of `shared/parity`.

Each case is a checkpoint of the original with its inputs and outputs, computed on a CPU in float32.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from configuration_csmae import VARIANTS, CSMAEConfig
from modeling_csmae import CSMAEForPreTraining

ABSOLUTE = 1e-5
HEADS_OF_WIDTH = {192: 3, 384: 6, 768: 12, 1024: 16}


@dataclass
class Case:
    """One variant: our model with the original's weights, and what the original made of the inputs."""

    model: Any
    images: dict[str, torch.Tensor]
    noise: dict[str, torch.Tensor]
    tensors: dict[str, torch.Tensor]
    scalars: dict[str, float]

    def run(self) -> Any:
        """The masked forward of a training step, predictions of all patches included."""
        return self.model(**self.images, noise=self.noise, output_predictions=True)


def rename(name: str) -> str | None:
    """Our name of one of the original's weights, None for its frozen positions.

    `csmae_hf.hub.convert` is to take this over; the parity it needs is then tested through it.
    """
    if name.endswith("pos_embed"):
        return None
    name = name.replace(".attn.", ".attention.")
    if name.startswith("backbone."):
        return "csmae." + _rename_encoder(name.removeprefix("backbone."))
    found = re.fullmatch(r"decoder(?:_s\d_to_(s\d))?\.(.+)", name)
    if found is None:
        raise ValueError(f"The checkpoint holds {name}, which this mapping does not know.")
    target, rest = found.groups()
    return f"decoders.{target or 'common'}." + _rename_decoder(rest, target)


def _rename_encoder(name: str) -> str:
    special = {"cls_token": "embeddings.s1.cls_token", "cls_token_s2": "embeddings.s2.cls_token"}
    if name in special:
        return special[name]
    rules = [
        (r"patch_embed\.proj\.", "embeddings.s1.projection."),
        (r"patch_embed_s2\.proj\.", "embeddings.s2.projection."),
        (r"blocks_(s\d)\.", r"multi_sensor_encoders.\1.layers."),
        (r"norm_(s\d)\.", r"multi_sensor_encoders.\1.layernorm."),
        (r"blocks\.", "cross_sensor_encoder.layers."),
        (r"norm\.", "cross_sensor_encoder.layernorm."),
    ]
    return _first_match(name, rules)


def _rename_decoder(name: str, target: str | None) -> str:
    rules = [
        (r"decoder_embed\.", "embed."),
        (r"decoder_blocks\.", "layers."),
        (r"decoder_norm\.", "layernorm."),
        (r"decoder_pred_s\d_to_(s\d)\.", r"heads.\1."),
        (r"decoder_pred\.", f"heads.{target}."),
    ]
    return _first_match(name, rules)


def _first_match(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, ours in rules:
        if re.match(pattern, name):
            return re.sub(f"^{pattern}", ours, name)
    return name


def read_config(folder: Path) -> CSMAEConfig:
    """The configuration of a case from the original's own run configuration."""
    args = yaml.safe_load((folder / "args.yaml").read_text())
    backbone, method = args["backbone"]["kwargs"], args["method_kwargs"]
    return CSMAEConfig(
        image_size=backbone["img_size"],
        patch_size=backbone["patch_size"],
        hidden_size=192,  # vit_tiny
        num_attention_heads=HEADS_OF_WIDTH[192],
        multi_sensor_encoder_depth=backbone["multi_sensor_encoder_depth"],
        cross_sensor_encoder_depth=backbone["cross_sensor_encoder_depth"],
        masking=backbone["masking_strategy"],
        decoder_type=method["decoding_strategy"],
        decoder_hidden_size=method["decoder_embed_dim"],
        decoder_num_hidden_layers=method["decoder_depth"],
        decoder_num_attention_heads=method["decoder_num_heads"],
        mask_ratio=method["mask_ratio"],
        mim_temperature=method["mim_temp"],
        cmr_target="source",
    )


@pytest.fixture(scope="module", params=list(VARIANTS))
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    variant = request.param
    folder = shared / "parity" / variant
    checkpoint = torch.load(folder / f"csmae-{variant}-ep=149.ckpt", map_location="cpu", weights_only=True)
    renamed = ((rename(name), value) for name, value in checkpoint["state_dict"].items())
    weights = {name: value for name, value in renamed if name is not None}
    config = read_config(folder)
    assert config.variant == variant
    model = CSMAEForPreTraining(config)
    model.load_state_dict(weights)  # strict: nothing missing, nothing left
    tensors = load_file(folder / "expected.safetensors")
    return Case(
        model=model.train(),
        images={"s1": tensors["images"][:, 10:], "s2": tensors["images"][:, :10]},
        noise={"s1": tensors["noise_s1"], "s2": tensors["noise_s2"]},
        tensors=tensors,
        scalars=json.loads((folder / "expected.json").read_text()),
    )


def test_embeds_of_unmasked_images_equal_the_original(case: Case) -> None:
    with torch.no_grad():
        embeds = case.model.csmae(**case.images).embeds
    for sensor in case.images:
        torch.testing.assert_close(embeds[sensor], case.tensors[f"embeds_{sensor}"], rtol=0, atol=ABSOLUTE)


def test_masks_and_features_of_the_masked_forward_equal_the_original(case: Case) -> None:
    with torch.no_grad():
        output = case.run()
    for sensor in case.images:
        assert torch.equal(output.masks[sensor], case.tensors[f"train_mask_{sensor}"])
        torch.testing.assert_close(output.embeds[sensor], case.tensors[f"train_feats_{sensor}"], rtol=0, atol=ABSOLUTE)


def test_predictions_equal_the_original(case: Case) -> None:
    with torch.no_grad():
        predictions = case.run().predictions
    names = [name for name in case.tensors if name.startswith("train_pred_")]
    assert "train_pred_s1_from_s2" in names
    for name in names:
        target, source = name.removeprefix("train_pred_").split("_from_")
        torch.testing.assert_close(predictions[source][target], case.tensors[name], rtol=0, atol=ABSOLUTE)


def test_every_loss_term_equals_the_original(case: Case) -> None:
    with torch.no_grad():
        output = case.run()
    expected = {"mim": case.scalars["train_mim_loss"]}
    for source in case.images:
        for target in case.images:
            name = f"umr_{source}" if source == target else f"cmr_{source}_{target}"
            expected[name] = case.scalars[f"train_reconstruction_loss_{target}_from_{source}"]
    assert set(output.losses) == set(expected)
    for name, value in expected.items():
        assert output.losses[name].item() == pytest.approx(value, rel=0, abs=ABSOLUTE), name
    assert output.loss.item() == pytest.approx(case.scalars["loss"], rel=0, abs=ABSOLUTE)


def test_gradient_norm_equals_the_original(case: Case) -> None:
    case.model.zero_grad()
    case.model(**case.images, noise=case.noise).loss.backward()
    squares = [parameter.grad.double().square().sum() for parameter in case.model.parameters()]
    assert sum(squares).sqrt().item() == pytest.approx(case.scalars["grad_norm_total"], rel=1e-4)


def test_case_tells_source_from_target_counting(case: Case) -> None:
    """Were the cross-modal loss the same either way, agreement with the original would prove nothing of it."""
    case.model.config.cmr_target = "target"
    try:
        with torch.no_grad():
            counted_on_target = case.run().losses["cmr_s1_s2"].item()
    finally:
        case.model.config.cmr_target = "source"
    assert abs(counted_on_target - case.scalars["train_reconstruction_loss_s2_from_s1"]) > 10 * ABSOLUTE
