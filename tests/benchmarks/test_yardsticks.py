"""The yardsticks do what ours does: the plain form gives the same numbers, the stock models have the same shape."""

import copy

import pytest
import torch
from tiny_models import THREE_SENSORS, build, draw_images, draw_noise, tiny_config

from benchmarks.yardsticks import TwoViTMAE, plain_losses, stock_vit
from configuration_csmae import VARIANTS
from modeling_csmae import CSMAEForPreTraining


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize(
    "overrides", [{}, {"cmr_target": "target", "mde_weight": 1.0, "masking": "identical"}], ids=str
)
def test_the_plain_form_gives_the_losses_and_gradients_of_the_model(variant: str, overrides: dict) -> None:
    config = tiny_config(variant, **overrides)
    model = build(CSMAEForPreTraining, config).train()
    plain = copy.deepcopy(model)
    images, noise = draw_images(config), draw_noise(config)
    ours, theirs = model(**images, noise=noise), plain_losses(plain, images, noise)
    assert ours.losses.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours.losses[name], value, rtol=1e-6, atol=1e-6)
    ours.loss.backward()
    torch.stack(list(theirs.values())).sum().backward()
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_the_plain_form_refuses_what_it_does_not_cover() -> None:
    config = tiny_config(sensors=THREE_SENSORS)
    with pytest.raises(ValueError, match="two sensors"):
        plain_losses(build(CSMAEForPreTraining, config), draw_images(config), draw_noise(config))


def test_the_stock_models_have_the_shape_of_ours() -> None:
    config = tiny_config("cecd")
    stock, vit = TwoViTMAE(config), stock_vit(config, "s2")
    images = draw_images(config)
    assert stock(**images).ndim == 0
    tokens = vit(pixel_values=images["s2"]).last_hidden_state
    assert tokens.shape == (len(images["s2"]), 1 + config.num_patches, config.hidden_size)
    blocks = sum(parameter.numel() for parameter in vit.encoder.parameters()) if hasattr(vit, "encoder") else None
    ours = build(CSMAEForPreTraining, config).csmae.cross_sensor_encoder.layers
    if blocks is not None:
        assert blocks == sum(parameter.numel() for parameter in ours.parameters())
