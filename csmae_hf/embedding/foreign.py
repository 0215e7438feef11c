"""Encoders of any kind: what is asked of one, and what the loop that embeds tiles makes of it.

CSMAE is a torch module whose output has `embeds[sensor]`, with a processor that reads, checks and standardises pixels. Whatever else
turns images into embeds is an [`Encoder`], and [`encoder_pair`] makes of it such a module and such a processor. So its pixels come in
through the same door: the same units, the same checks, the same words for what is refused.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from image_processing_csmae import CSMAEImageProcessor

PREFIX = "encoder:"
"""What the name of a model begins with where it is no folder or Hub name, but the name of an encoder."""

TILE_SIZE = 120
"""Pixels of 10 m along the edge of a tile, where an encoder does not say another number (`tile_size`)."""


@runtime_checkable
class Encoder(Protocol):
    """Whatever turns images of a sensor into embeds.

    It may be a `torch.nn.Module`, or have such as attributes: their weights identify it, and they are moved to the device and put
    into evaluation mode. It may also have `tile_size`, pixels of 10 m along the edge of a tile (120), and `untrained()`, which gives
    the same encoder with random weights, for the baseline of that name.
    """

    @property
    def sensors(self) -> Mapping[str, Sequence[str]]:
        """Bands by sensor, in the order in which `embed` gets them."""

    @property
    def width(self) -> int:
        """Width D of the embeds of every sensor."""

    @property
    def provenance_fields(self) -> Mapping[str, Any]:
        """What changes its embeds beside its weights, as JSON types: normalisation, input size, pooling.

        Archives and caches keep it, and refuse an encoder that differs in it, by the name of the field.
        """

    def embed(self, pixels: torch.Tensor, sensor: str) -> torch.Tensor:
        """Embed a batch.

        Args:
            pixels: (B, C, H, W) float32 in dB and digital numbers (reflectance x 10000), checked; every band on the grid of 10 m.
            sensor: Whose they are.

        Returns:
            (B, width), of each image by itself.
        """


@dataclass(frozen=True)
class EncoderConfig:
    """What is asked of the `config` of a model."""

    sensors: Mapping[str, list[str]]
    _name_or_path: str


@dataclass(frozen=True)
class EncoderOutput:
    """What a forward gives: (B, D) by sensor."""

    embeds: dict[str, torch.Tensor]


class EncoderModule(torch.nn.Module):
    """An encoder as the loop that embeds calls it.

    Args:
        encoder: The encoder.
        name: What it is called in archives and tables.

    Raises:
        ValueError: If it is no encoder, or says nothing by which it could be told from another.
    """

    def __init__(self, encoder: Encoder, name: str = ""):
        super().__init__()
        lacking = [part for part in ("sensors", "width", "provenance_fields", "embed") if not hasattr(encoder, part)]
        if lacking or inspect.isclass(encoder):
            what = f"the class {encoder.__name__}" if inspect.isclass(encoder) else f"a {type(encoder).__name__}"
            raise ValueError(
                f"An encoder was expected, not {what}{': it has no ' + ', '.join(lacking) if lacking else ''}. See docs/encoders.md; "
                "for a plain torch module there is csmae_hf.embedding.module_encoder.ModuleEncoder."
            )
        self.encoder = encoder
        if not isinstance(encoder, torch.nn.Module):  # so that its weights are hashed, and go to the device
            self.parts = torch.nn.ModuleList(_modules_of(getattr(encoder, "__dict__", {})))
        fields = dict(encoder.provenance_fields)
        if not fields and not self.state_dict():
            raise ValueError(
                f"Nothing tells this encoder, a {type(encoder).__name__}, from another: it holds no torch module and its "
                "provenance_fields are empty. Name there what its embeds depend on, such as a hash of its weights."
            )
        self.place = torch.nn.Parameter(torch.zeros(()), requires_grad=False)  # says the device and the type
        self.config = EncoderConfig(
            {sensor: list(bands) for sensor, bands in encoder.sensors.items()},
            # archives are given away: no folder of this machine in them
            PREFIX + (os.path.basename(name) if os.path.isabs(name) else name or type(encoder).__name__),
        )
        self.tile_size = int(getattr(encoder, "tile_size", TILE_SIZE))
        said = {"sensors": self.config.sensors, "width": int(encoder.width), "tile_size": self.tile_size, **fields}
        self.provenance_fields: dict[str, Any] = dict(_flat(said))

    def forward(self, **images: torch.Tensor) -> EncoderOutput:
        """Embeds by sensor, of images (B, C, H, W). A ValueError if the encoder gives another shape than it said."""
        embeds = {}
        for sensor, pixels in images.items():
            found = torch.as_tensor(self.encoder.embed(pixels, sensor))
            wanted = (len(pixels), self.provenance_fields["width"])
            if tuple(found.shape) != wanted:
                raise ValueError(
                    f"The encoder {self.config._name_or_path.removeprefix(PREFIX)} gave {sensor} embeds of shape "
                    f"{tuple(found.shape)}; expected {wanted}: an embed of its `width` for each image."
                )
            embeds[sensor] = found
        return EncoderOutput(embeds)


def _flat(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Fields of nested mappings by names such as `normalisation.s2.bands`, so that what differs has a name."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", list(value) if isinstance(value, tuple) else value


def _modules_of(value: Any) -> list[torch.nn.Module]:
    """The torch modules that an object holds, in dicts and lists too."""
    if isinstance(value, torch.nn.Module):
        return [value]
    if isinstance(value, Mapping):
        return [module for part in value.values() for module in _modules_of(part)]
    return [module for part in value for module in _modules_of(part)] if isinstance(value, (list, tuple)) else []


def encoder_pair(encoder: Encoder, name: str = "") -> tuple[EncoderModule, Any]:
    """Make of an encoder what the functions that embed take: a torch module, and the processor that reads and checks its pixels.

    Args:
        encoder: The encoder.
        name: What it is called in archives and tables; default its class.

    Returns:
        Both. The processor converts and checks as that of CSMAE, and brings every band to the grid of 10 m, in dB and digital numbers.

    Raises:
        ValueError: If it is no encoder, or nothing tells it from another.

    Example:
        >>> embeds = embed_dataset(*encoder_pair(encoder), dataset, "s2")
    """
    model = EncoderModule(encoder, name)
    own = getattr(encoder, "processor", None)
    if own is not None:  # embeds that are there already need no pixels
        return model, own
    bands = list(dict.fromkeys(band for names in model.config.sensors.values() for band in names))
    processor = CSMAEImageProcessor(
        sensors=model.config.sensors,
        size=model.tile_size,
        # the pixels as they were measured: how they are normalised is the encoder's own business
        band_mean=dict.fromkeys(bands, 0.0),
        band_std=dict.fromkeys(bands, 1.0),
    )
    processor.encoder = model.provenance_fields  # a setting as others: it counts in the hash by which caches are named
    return model, processor


def one_model(
    model: torch.nn.Module | None, processor: Any, encoder: Encoder | None, name: str | None = None
) -> tuple[torch.nn.Module | None, Any]:
    """A model with its processor, of what a call was given: these, or an encoder; None and None of nothing.

    ValueError where both are given, or a model without its processor.
    """
    if (model is None) != (processor is None):
        raise ValueError("A model needs its processor, and a processor its model: give both or neither.")
    if encoder is None:
        return model, processor
    if model is not None:
        raise ValueError("A model and an encoder were given: expected one of them.")
    return encoder_pair(encoder, name or "")


def load_factory(place: str, option: str = "--encoder") -> Encoder:
    """Make an encoder by code that a person has named; nothing else ever does, no archive for one.

    Args:
        place: `package.module:factory`, a function without arguments that gives an encoder, or an encoder. The module may lie in the
            working folder.
        option: By which it was named, for messages.

    Returns:
        The encoder.

    Raises:
        ValueError: If there is no such module, it cannot be imported, has no such name, or what that gives is no encoder.
    """
    form = re.fullmatch(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)", place)
    if form is None:
        raise ValueError(f"{option} {place}: expected package.module:factory, such as my_encoders:rgb_vit.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(form[1])
    except Exception as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and f"{form[1]}.".startswith(f"{absent}."):
            raise ValueError(
                f"{option} {place}: there is no module {absent}, neither installed nor in the working folder, {os.getcwd()}."
            ) from error
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{option} {place}: its module cannot be imported: {what}") from error
    for part in form[2].split("."):
        if not hasattr(found, part):
            raise ValueError(f"{option} {place}: {form[1]} has no {form[2]}.")
        found = getattr(found, part)
    if callable(found) and (inspect.isclass(found) or not hasattr(found, "embed")):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise ValueError(
                f"{option} {place}: it is called without arguments, which it does not take ({error}). Write a function around it."
            ) from error
        found = found()
    encoder: Encoder = found
    EncoderModule(encoder, place)  # refuses what is none
    return encoder
