"""Encoders of one sensor each, joined to one of all."""

from collections.abc import Mapping
from typing import Any

import torch

from csmae_hf.embedding.foreign import TILE_SIZE, Encoder, EncoderModule


class JoinedEncoder(torch.nn.Module):
    """One encoder of several, each for a sensor of its own. See [`csmae_hf.embedding.foreign.Encoder`].

    They share no space until an alignment is fitted on pairs. Embeds that are narrower are filled up with zeros, which changes no
    cosine within a sensor.

    Args:
        encoders: By the sensor that each is asked for.

    Raises:
        ValueError: If an encoder lacks its sensor, or they take tiles of several sizes.

    Example:
        >>> encoder = JoinedEncoder({"s1": croma, "s2": dinov2})
    """

    def __init__(self, encoders: Mapping[str, Encoder]):
        super().__init__()
        self.parts = torch.nn.ModuleDict({sensor: EncoderModule(encoder) for sensor, encoder in encoders.items()})
        for sensor, encoder in encoders.items():
            if sensor not in encoder.sensors:
                raise ValueError(f"The encoder for {sensor} has the sensors {', '.join(encoder.sensors)} only.")
            if hasattr(encoder, "processor"):
                raise ValueError(
                    f"The encoder for {sensor} reads embeds from a file: give the files of all sensors to one FileEncoder."
                )
        sizes = {sensor: int(getattr(encoder, "tile_size", TILE_SIZE)) for sensor, encoder in encoders.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"The encoders take tiles of several sizes, {sizes}: expected one tile_size.")
        self.tile_size = next(iter(sizes.values()))
        self.sensors = {sensor: list(encoder.sensors[sensor]) for sensor, encoder in encoders.items()}
        self.width = max(encoder.width for encoder in encoders.values())
        self.provenance_fields: dict[str, Any] = {
            f"encoder_of_{sensor}": dict(encoder.provenance_fields) for sensor, encoder in encoders.items()
        }

    def embed(self, pixels: torch.Tensor, sensor: str) -> torch.Tensor:
        """(B, width) of pixels (B, C, H, W)."""
        embeds = self.parts[sensor](**{sensor: pixels}).embeds[sensor]
        return torch.nn.functional.pad(embeds, (0, self.width - embeds.shape[1]))
