"""Degenerate batches, extreme masks and half precision: a finite loss or a clear error, never NaN."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import build, draw_images, draw_noise, tiny_config

from modeling_csmae import CSMAEForPreTraining, CSMAEModel, discrepancy_loss, nt_xent_loss

VARIANTS = ["cecd", "cesd", "secd", "sesd"]


def assert_trains(model: Any, **inputs: Any) -> Any:
    """Run a step; everything that comes of it is finite."""
    outputs = model.train()(**inputs)
    outputs.loss.backward()
    assert all(torch.isfinite(value) for value in (outputs.loss, *outputs.losses.values()))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    return outputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zero_features_give_finite_losses_and_gradients(dtype: torch.dtype) -> None:
    model = build(CSMAEForPreTraining, tiny_config(mde_weight=1.0)).to(dtype)
    with torch.no_grad():
        model.csmae.fc_norm.weight.zero_()
        model.csmae.fc_norm.bias.zero_()
    outputs = assert_trains(model, **draw_images(model.config))
    assert not outputs.embeds["s1"].any()
    assert outputs.losses["mim"].item() == pytest.approx(math.log(2 * 4 - 1))  # every cosine is 0
    assert outputs.losses["mde"].item() == pytest.approx(-math.log(2))


@pytest.mark.parametrize("loss", [lambda a, b: nt_xent_loss(a, b, 0.5), discrepancy_loss])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9])
def test_one_vanishing_feature_moves_nothing_far(loss: Any, size: float) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(4, 8), torch.randn(4, 8)
    first[2] *= size
    first.requires_grad_()
    value = loss(first, second)
    value.backward()
    assert torch.isfinite(value)
    assert not first.grad[2].any()
    assert first.grad[[0, 1, 3]].abs().max() > 0


def test_images_of_one_value_give_finite_losses() -> None:
    model = build(CSMAEForPreTraining, tiny_config(norm_pixel_loss=True, mde_weight=1.0))
    assert_trains(model, s1=torch.zeros(3, 2, 16, 16), s2=torch.full((3, 3, 16, 16), 5.0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_single_sample_has_no_negatives_and_a_finite_loss(variant: str) -> None:
    model = build(CSMAEForPreTraining, tiny_config(variant))
    outputs = assert_trains(model, **draw_images(model.config, 1))
    assert outputs.losses["mim"].item() == 0


@pytest.mark.parametrize("variant", ["cecd", "sesd"])
@pytest.mark.parametrize("masking", ["random", "identical"])
def test_nothing_masked_trains_on_embeds_alone(variant: str, masking: str) -> None:
    config = tiny_config(variant, mask_ratio=0, umr_weight=0, cmr_weight=0, masking=masking)
    model = build(CSMAEForPreTraining, config)
    images, noise = draw_images(config), draw_noise(config)
    runs = []
    for decoder in model.decoders.values():
        decoder.register_forward_hook(lambda *_: runs.append(1))
    outputs = assert_trains(model, **images, noise=noise)
    assert set(outputs.losses) == {"mim"}
    assert not runs
    assert not any(mask.any() for mask in outputs.masks.values())
    for sensor, embeds in model.eval().csmae(**images).embeds.items():
        torch.testing.assert_close(outputs.embeds[sensor], embeds, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weights", [{}, {"umr_weight": 0}, {"cmr_weight": 0}])
def test_nothing_masked_cannot_be_reconstructed(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="nothing to count"):
        tiny_config(mask_ratio=0, **weights)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cmr_target", ["source", "target"])
def test_one_visible_patch_is_enough(variant: str, cmr_target: str) -> None:
    model = build(CSMAEForPreTraining, tiny_config(variant, mask_ratio=15 / 16, cmr_target=cmr_target))
    outputs = assert_trains(model, **draw_images(model.config))
    assert outputs.masks["s1"].sum(dim=1).tolist() == [15.0] * 4


def test_ratio_that_hides_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hides all 16 patches: at most 0\.9375"):
        tiny_config(mask_ratio=0.95)


def test_ratio_that_hides_nothing_of_a_small_image_is_refused() -> None:
    model = build(CSMAEForPreTraining, tiny_config(mask_ratio=0.2))
    with pytest.raises(ValueError, match=r"leaves 0 of 1 patches visible"):
        model(**{s: i[:, :, :4, :4] for s, i in draw_images(model.config).items()}, interpolate_pos_encoding=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_trains(variant: str, dtype: torch.dtype) -> None:
    config = tiny_config(variant, mde_weight=1.0, norm_pixel_loss=True)
    images, noise = draw_images(config), draw_noise(config)
    full = build(CSMAEForPreTraining, config)(**images, noise=noise)
    half = assert_trains(build(CSMAEForPreTraining, config).to(dtype), **images, noise=noise)
    assert half.embeds["s1"].dtype == dtype
    assert {value.dtype for value in half.losses.values()} == {torch.float32}
    for name, value in half.losses.items():
        torch.testing.assert_close(value, full.losses[name], atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_encoder_in_half_precision_is_close(dtype: torch.dtype) -> None:
    config = tiny_config()
    images = draw_images(config)
    full, half = build(CSMAEModel, config)(**images), build(CSMAEModel, config).to(dtype)(**images)
    for sensor, embeds in half.embeds.items():
        torch.testing.assert_close(embeds.float(), full.embeds[sensor], atol=0.1, rtol=0.1)


def plain_nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    vectors = [vector / vector.norm() for vector in torch.cat([first, second]).double()]
    terms = []
    for i, anchor in enumerate(vectors):
        exps = {j: math.exp(float(anchor @ other) / temperature) for j, other in enumerate(vectors) if j != i}
        terms.append(-math.log(exps[(i + len(first)) % len(vectors)] / sum(exps.values())))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_nt_xent_of_half_precision_embeds_is_computed_in_float32(dtype: torch.dtype, scale: float) -> None:
    torch.manual_seed(0)
    first, second = (torch.randn(2, 16, 32) * scale).to(dtype)  # squares of 300 overflow float16
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent_loss(first, second, 0.1)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(plain_nt_xent(first, second, 0.1), abs=1e-5)


def test_nt_xent_at_a_small_temperature_is_its_formula_where_exponentials_overflow() -> None:
    torch.manual_seed(0)
    embeds = torch.randn(8, 16, requires_grad=True)
    loss = nt_xent_loss(embeds, -embeds, 1e-3)  # exp(1000) overflows
    loss.backward()
    unit = embeds.detach().double().numpy()
    unit = np.concatenate([unit, -unit]) / np.linalg.norm(np.concatenate([unit, -unit]), axis=1, keepdims=True)
    cosines = unit @ unit.T / 1e-3
    np.fill_diagonal(cosines, -np.inf)
    positives = cosines[np.arange(16), (np.arange(16) + 8) % 16]  # -1000: each positive is the opposite
    assert loss.item() == pytest.approx((np.logaddexp.reduce(cosines, axis=1) - positives).mean(), rel=1e-5)
    assert torch.isfinite(embeds.grad).all()


def test_mixed_precision_training_is_full_precision_to_the_bits_it_has() -> None:
    config = tiny_config(mde_weight=1.0)
    model = build(CSMAEForPreTraining, config).train()
    batch = {**draw_images(config), "noise": draw_noise(config)}
    full = model(**batch)
    full.loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**batch)
    mixed.loss.backward()
    assert mixed.loss.dtype == torch.float32
    torch.testing.assert_close(mixed.losses, full.losses, rtol=0.01, atol=0.01)
    for name, parameter in model.named_parameters():
        cosine = torch.cosine_similarity(parameter.grad.flatten(), expected[name].flatten(), dim=0)
        assert cosine > 0.98, name
