"""What the project measures itself against: its own model in its plain form, and stock Transformers models of one size."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from configuration_csmae import CSMAEConfig
from modeling_csmae import CSMAEForPreTraining, discrepancy_loss, make_masks, nt_xent_loss, patchify


def plain_losses(
    model: CSMAEForPreTraining, images: Mapping[str, torch.Tensor], noise: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The loss terms by the direct reading of the paper: sensor after sensor, and a whole decoder pass a prediction.

    Runs the model's own modules, so that it has the same weights and must give the same numbers. Every patch goes through
    the head, targets are made once a prediction, and the mask is multiplied into the error of all patches.

    Args:
        model: The model.
        images: (B, C, H, W) by sensor, every sample with every sensor.
        noise: (B, L) by sensor.

    Returns:
        The terms by name, as `CSMAEForPreTraining` names them.

    Raises:
        ValueError: If there are not two sensors.
    """
    if len(images) != 2:
        raise ValueError(f"The plain form is written for two sensors, and was given {', '.join(images)}.")
    config, encoder = model.config, cast(Any, model.csmae)
    masks = make_masks(noise, config.masking, config.mask_ratio)
    grid = (config.image_size // config.patch_size,) * 2
    tokens, embeds = {}, {}
    for sensor, image in images.items():
        hidden = encoder.embeddings[sensor](image, encoder.positions(grid, image.dtype), masks[sensor].visible)
        if sensor in encoder.multi_sensor_encoders:
            hidden, _, _ = encoder.multi_sensor_encoders[sensor](hidden)
        tokens[sensor], _, _ = encoder.cross_sensor_encoder(hidden)
        embeds[sensor] = encoder.fc_norm(tokens[sensor][:, 1:].mean(dim=1))
    losses = {}
    for source in images:
        for target in images:
            decoder: Any = model.decoders["common" if config.decoder_type == "common" else target]
            prediction = decoder.heads[target](
                decoder(tokens[source], masks[source].restore, grid)
            )  # (B, L, P * P * C)
            truth = patchify(images[target].float(), config.patch_size)
            counted = masks[source if config.cmr_target == "source" else target].as_map()  # (B, L)
            error = ((prediction.float() - truth) ** 2).mean(dim=-1)
            name = f"umr_{source}" if source == target else f"cmr_{source}_{target}"
            losses[name] = (error * counted).sum() / counted.sum()
    first, second = embeds.values()
    if config.mde_weight:
        losses["mde"] = discrepancy_loss(first, second)
    losses["mim"] = nt_xent_loss(first, second, config.mim_temperature)
    return losses


class TwoViTMAE(nn.Module):
    """One stock Transformers ViTMAE a sensor, of a configuration's width, depth and patch: what one had to train before.

    It learns nothing across sensors: two predictions instead of four and no contrast, so less work than any CSMAE.
    """

    def __init__(self, config: CSMAEConfig):
        super().__init__()
        self.models = nn.ModuleDict(
            {
                sensor: ViTMAEForPreTraining(
                    ViTMAEConfig(
                        image_size=config.image_size,
                        patch_size=config.patch_size,
                        num_channels=len(bands),
                        hidden_size=config.hidden_size,
                        num_hidden_layers=config.num_hidden_layers,
                        num_attention_heads=config.num_attention_heads,
                        intermediate_size=cast(int, config.intermediate_size),
                        decoder_hidden_size=config.decoder_hidden_size,
                        decoder_num_hidden_layers=config.decoder_num_hidden_layers,
                        decoder_num_attention_heads=config.decoder_num_attention_heads,
                        decoder_intermediate_size=cast(int, config.decoder_intermediate_size),
                        mask_ratio=config.mask_ratio,
                    )
                )
                for sensor, bands in config.sensors.items()
            }
        )

    def forward(self, **images: torch.Tensor) -> torch.Tensor:
        """Sum of the models' losses, (B, C, H, W) by sensor."""
        return torch.stack([self.models[sensor](pixel_values=image).loss for sensor, image in images.items()]).sum()


def stock_vit(config: CSMAEConfig, sensor: str) -> ViTModel:
    """Transformers' ViT of a configuration's shape, for one sensor's images."""
    return ViTModel(
        ViTConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_channels=len(config.sensors[sensor]),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=cast(int, config.intermediate_size),
        ),
        add_pooling_layer=False,
    )
