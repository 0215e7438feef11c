"""Sensors missing from a batch, or from single samples of it."""

from typing import Any

import pytest
import torch
from tiny_models import THREE_SENSORS, build, draw_images, draw_noise, tiny_config

from modeling_csmae import (
    CSMAEForPreTraining,
    CSMAEModel,
    discrepancy_loss,
    nt_xent_loss,
    patchify,
)

PRESENT = {"s1": torch.tensor([True, False, True, True, False]), "s2": torch.tensor([True, True, False, True, False])}
"""Of five samples two have both sensors, one has none."""


def spoil(images: dict[str, torch.Tensor], present: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put NaN where an image is absent, so that any use of it shows."""
    spoilt = {sensor: image.clone() for sensor, image in images.items()}
    for sensor, flags in present.items():
        spoilt[sensor][~flags] = torch.nan
    return spoilt


def pretraining(
    variant: str = "sesd", **overrides: Any
) -> tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    config = tiny_config(variant, **overrides)
    return build(CSMAEForPreTraining, config), draw_images(config, 5), draw_noise(config, 5)


def test_absent_images_are_not_looked_at_and_embed_to_zeros() -> None:
    config = tiny_config(sensors=THREE_SENSORS)
    model, images = build(CSMAEModel, config), draw_images(config, 5)
    plain = model(**images)
    model.set_attn_implementation("eager")
    found = model(**spoil(images, PRESENT), present=PRESENT, output_hidden_states=True, output_attentions=True)
    for sensor in THREE_SENSORS:
        flags = PRESENT.get(sensor, torch.ones(5, dtype=torch.bool))
        for got, want in (
            (found.embeds, plain.embeds),
            (found.last_hidden_state, plain.last_hidden_state),
        ):
            torch.testing.assert_close(got[sensor][flags], want[sensor][flags], atol=1e-5, rtol=1e-5)
            assert not got[sensor][~flags].any()
        for layer in (*found.hidden_states[sensor], *found.attentions[sensor]):
            assert len(layer) == 5
            assert not layer[~flags].any()
            assert torch.isfinite(layer).all()
    assert all(torch.equal(found.present[sensor], flags) for sensor, flags in PRESENT.items())
    assert plain.present is None


def test_absent_images_cost_no_compute() -> None:
    config = tiny_config()
    model, images = build(CSMAEModel, config), draw_images(config, 5)
    rows = []
    model.cross_sensor_encoder.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    model(**images, present=PRESENT)
    assert rows == [3 + 3]


@pytest.mark.parametrize("variant", ["cecd", "sesd"])
@pytest.mark.parametrize("cmr_target", ["source", "target"])
@pytest.mark.parametrize("masking", ["random", "identical", "disjoint"])
@pytest.mark.parametrize("training", [True, False])
def test_losses_are_those_of_the_samples_that_have_the_sensors(
    variant: str, cmr_target: str, masking: str, training: bool
) -> None:
    model, images, noise = pretraining(variant, cmr_target=cmr_target, masking=masking, mde_weight=0.5)
    whole = model(**images, noise=noise, output_predictions=True)
    model.train(training)
    found = model(**spoil(images, PRESENT), noise=noise, present=PRESENT)

    both = PRESENT["s1"] & PRESENT["s2"]
    expected = {}
    for source in images:
        for target in images:
            rows = PRESENT[source] & PRESENT[target]
            errors = (whole.predictions[source][target] - patchify(images[target], 4)).square().mean(dim=-1)
            counted = whole.masks[source if cmr_target == "source" else target].bool() & rows.unsqueeze(1)
            expected[f"umr_{source}" if source == target else f"cmr_{source}_{target}"] = errors[counted].mean()
    expected["mim"] = nt_xent_loss(whole.embeds["s1"][both], whole.embeds["s2"][both], 0.5)
    expected["mde"] = discrepancy_loss(whole.embeds["s1"][both], whole.embeds["s2"][both])
    assert set(found.losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found.losses[name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_gradients_equal_those_of_the_subset() -> None:
    model, images, noise = pretraining()
    present = {sensor: torch.tensor([True, False, True, True, False]) for sensor in images}
    model(**spoil(images, present), noise=noise, present=present).loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    rows = present["s1"]
    model(**{s: i[rows] for s, i in images.items()}, noise={s: n[rows] for s, n in noise.items()}).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_missing_sensor_is_still_predicted_where_another_is_present() -> None:
    model, images, noise = pretraining()
    plain = model(**images, noise=noise).predictions["s1"]["s2"]
    found = model(**spoil(images, PRESENT), noise=noise, present=PRESENT).predictions["s1"]["s2"]
    torch.testing.assert_close(found[PRESENT["s1"]], plain[PRESENT["s1"]], atol=1e-5, rtol=1e-5)
    assert not found[~PRESENT["s1"]].any()


def test_all_present_is_the_same_as_no_flags() -> None:
    model, images, noise = pretraining()
    flags = dict.fromkeys(images, torch.ones(5, dtype=torch.bool))
    assert torch.equal(model(**images, noise=noise, present=flags).loss, model(**images, noise=noise).loss)


@pytest.mark.parametrize("training", [True, False])
def test_sensor_that_no_sample_has_gives_zero_terms_and_finite_gradients(training: bool) -> None:
    model, images, noise = pretraining()
    model.train(training)
    present = {"s2": torch.zeros(5, dtype=torch.bool)}
    found = model(**spoil(images, present), noise=noise, present=present)
    found.loss.backward()
    alone = model(s1=images["s1"], noise={"s1": noise["s1"]})
    torch.testing.assert_close(found.loss, alone.loss)
    assert all(found.losses[name] == 0 for name in ("umr_s2", "cmr_s1_s2", "cmr_s2_s1", "mim"))
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())  # and none is None, for DDP


def test_pairs_of_sensors_without_a_common_place_do_not_dilute_the_mean() -> None:
    model, images, noise = pretraining(sensors=THREE_SENSORS)
    whole = model(**images, noise=noise)
    present = {"s1": torch.tensor([True, True, True, False, False]), "thermal": torch.tensor([False] * 3 + [True] * 2)}
    found = model(**spoil(images, present), noise=noise, present=present)
    pairs = [("s1", "s2", slice(0, 3)), ("s2", "thermal", slice(3, 5))]
    terms = [nt_xent_loss(whole.embeds[a][rows], whole.embeds[b][rows], 0.5) for a, b, rows in pairs]
    torch.testing.assert_close(found.losses["mim"], sum(terms) / 2)


def test_sensor_missing_from_the_batch_leaves_its_terms_out() -> None:
    model, images, noise = pretraining(sensors=THREE_SENSORS)
    del images["s2"], noise["s2"]
    outputs = model(**images, noise=noise)
    assert set(outputs.losses) == {"umr_s1", "umr_thermal", "cmr_s1_thermal", "cmr_thermal_s1", "mim"}
    assert torch.isfinite(outputs.loss)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ({"s3": torch.ones(5, dtype=torch.bool)}, "present names 's3'"),
        ({"s1": torch.ones(4, dtype=torch.bool)}, r"shape \(4,\): expected torch.bool of shape \(5,\)"),
        ({"s1": torch.ones(5)}, "torch.float32"),
    ],
)
@pytest.mark.parametrize("model_class", [CSMAEModel, CSMAEForPreTraining])
def test_flags_that_do_not_fit_are_refused(model_class: Any, present: dict, message: str) -> None:
    config = tiny_config()
    with pytest.raises(ValueError, match=message):
        build(model_class, config)(**draw_images(config, 5), present=present)
