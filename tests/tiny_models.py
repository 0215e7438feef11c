"""Configurations, models and images that run in milliseconds, for the tests of the models."""

from typing import Any

import torch

from configuration_csmae import CSMAEConfig

TWO_SENSORS = {"s1": ["VH", "VV"], "s2": ["B02", "B03", "B04"]}
THREE_SENSORS = {**TWO_SENSORS, "thermal": ["T1", "T2", "T3", "T4"]}


def tiny_config(variant: str = "sesd", **overrides: Any) -> CSMAEConfig:
    """A configuration of a variant with 4 x 4 patches."""
    specific = variant[0] == "s"
    fields = {
        "sensors": TWO_SENSORS,
        "image_size": 16,
        "patch_size": 4,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "multi_sensor_encoder_depth": 1 if specific else 0,
        "cross_sensor_encoder_depth": 1 if specific else 2,
        "decoder_type": "specific" if variant[2] == "s" else "common",
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
    }
    return CSMAEConfig(**{**fields, **overrides})


def build(model_class: Any, config: CSMAEConfig, seed: int = 0) -> Any:
    """A model in evaluation mode, every weight off its initial value so that none can be forgotten."""
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def draw_images(config: CSMAEConfig, batch: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Standardised images of every sensor."""
    generator = torch.Generator().manual_seed(seed)
    size = config.image_size
    return {
        sensor: torch.randn(batch, len(bands), size, size, generator=generator)
        for sensor, bands in config.sensors.items()
    }


def draw_noise(config: CSMAEConfig, batch: int = 4, seed: int = 2) -> dict[str, torch.Tensor]:
    """Noise to mask every sensor by."""
    generator = torch.Generator().manual_seed(seed)
    return {sensor: torch.rand(batch, config.num_patches, generator=generator) for sensor in config.sensors}
