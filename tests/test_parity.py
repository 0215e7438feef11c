"""The model against the numbers of the original code: the four cases of `shared/parity`.

Each case is a checkpoint of the original with its inputs and outputs, computed on a CPU in float32. The checkpoint is
converted as a user would, and the folder that this makes is what is measured.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from configuration_csmae import VARIANTS
from csmae_hf.hub.convert import convert_checkpoint
from modeling_csmae import CSMAEForPreTraining

ABSOLUTE = 1e-5


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


@pytest.fixture(scope="module", params=list(VARIANTS))
def case(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    variant = request.param
    folder = shared / "parity" / variant
    converted = convert_checkpoint(
        folder / f"csmae-{variant}-ep=149.ckpt",
        tmp_path_factory.mktemp("converted") / variant,
        config=folder / "args.yaml",
    )
    model: Any = CSMAEForPreTraining.from_pretrained(converted)
    assert model.config.variant == variant
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
