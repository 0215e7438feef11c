"""An encoder of plain torch modules, one for each sensor, with the normalisation that each was trained with."""

import copy
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

from csmae_hf.embedding.foreign import TILE_SIZE

POOLS = ("mean", "cls", "pooler")
"""How a module's output becomes one embed: the mean over tokens or places, the first token, or the model's own `pooler_output`."""


@dataclass(frozen=True)
class Normalisation:
    """From pixels in dB and digital numbers to what a module takes.

    Each channel becomes ((x - low) / (high - low), cut to 0..1 if `clip`; - mean) / std, then the image is resampled (bilinear, with
    antialiasing).

    Attributes:
        bands: Band of each channel. One may be named more than once: for a module of three channels, VV, VH, VV.
        low: Pixel that becomes 0, one for all channels or one each.
        high: Pixel that becomes 1.
        clip: Whether what lies beyond is cut off.
        mean: Of each channel after that.
        std: Of each channel after that.
        size: Pixels along the edge of what the module takes; None leaves the tile as it is.
    """

    bands: Sequence[str]
    low: float | Sequence[float] = 0.0
    high: float | Sequence[float] = 1.0
    clip: bool = False
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    size: int | None = None

    def __post_init__(self) -> None:
        channels = len(self.bands)
        if isinstance(self.bands, str) or not channels:
            raise ValueError(f"bands={self.bands!r}: expected a list of band names, one a channel.")
        object.__setattr__(self, "bands", list(self.bands))
        for name in ("low", "high", "mean", "std"):
            value = getattr(self, name)
            # 3000 and 3000.0 are one normalisation
            plain = float(value) if isinstance(value, (int, float)) else [float(one) for one in value]
            object.__setattr__(self, name, plain)
            if not isinstance(value, (int, float)) and len(value) != channels:
                raise ValueError(
                    f"{name} has {len(value)} numbers for the {channels} channels {', '.join(self.bands)}: expected one for all, or "
                    "one each."
                )
        if any(high <= low for low, high in zip(self._each(self.low), self._each(self.high), strict=True)):
            raise ValueError(f"low={self.low}, high={self.high}: expected low below high in every channel.")
        if any(std <= 0 for std in self._each(self.std)):
            raise ValueError(f"std={self.std}: expected numbers above 0.")

    def _each(self, value: float | Sequence[float]) -> list[float]:
        return [float(value)] * len(self.bands) if isinstance(value, (int, float)) else [float(one) for one in value]

    @property
    def own_bands(self) -> list[str]:
        """The bands, each once."""
        return list(dict.fromkeys(self.bands))

    def apply(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, channels, size, size) of pixels (B, C, H, W) of `own_bands`, float32."""
        own = self.own_bands
        images = pixels[:, [own.index(band) for band in self.bands]].float()
        low, high, mean, std = (
            torch.tensor(self._each(value), device=pixels.device)[:, None, None]
            for value in (self.low, self.high, self.mean, self.std)
        )
        images = (images - low) / (high - low)
        images = ((images.clamp(0, 1) if self.clip else images) - mean) / std
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            edge = (self.size, self.size)
            images = torch.nn.functional.interpolate(images, edge, mode="bilinear", antialias=True)
        return images


class ModuleEncoder(torch.nn.Module):
    """An encoder of a torch module for each sensor. See [`csmae_hf.embedding.foreign.Encoder`].

    Where modules give embeds of several widths, the narrower are filled up with zeros, which changes no cosine within a sensor.
    Modules that were not trained together share no space: fit an alignment on pairs.

    Args:
        modules: By sensor; one may serve several. It takes (B, channels, size, size) and gives (B, D), (B, tokens, D),
            (B, D, h, w), or an output of Transformers.
        normalisation: By sensor.
        pool: How an output becomes (B, D): one of `POOLS`, or a function of the output.
        tile_size: Pixels of 10 m along the edge of a tile.
        fields: What else changes the embeds, for `provenance_fields`.

    Raises:
        ValueError: If sensors lack a module or a normalisation, or a module does not take what it is given.

    Example:
        >>> s2 = Normalisation(["B04", "B03", "B02"], high=3000, clip=True, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        >>> encoder = ModuleEncoder({"s2": resnet}, {"s2": s2})
    """

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module],
        normalisation: Mapping[str, Normalisation],
        *,
        pool: str | Callable[[Any], torch.Tensor] = "mean",
        tile_size: int = TILE_SIZE,
        fields: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not modules or set(modules) != set(normalisation):
            raise ValueError(
                f"There are modules for {', '.join(modules) or 'no sensor'}, and a normalisation for "
                f"{', '.join(normalisation) or 'none'}: expected both for each sensor."
            )
        if isinstance(pool, str) and pool not in POOLS:
            raise ValueError(
                f"pool={pool!r}: expected one of {', '.join(POOLS)}, or a function of the module's output."
            )
        self.by_sensor = torch.nn.ModuleDict(dict(modules))
        self.normalisation = dict(normalisation)
        self.pool, self.tile_size = pool, tile_size
        self.sensors = {sensor: one.own_bands for sensor, one in normalisation.items()}
        self.provenance_fields: dict[str, Any] = {
            "normalisation": {sensor: asdict(one) for sensor, one in self.normalisation.items()},
            "pool": pool if isinstance(pool, str) else f"{pool.__module__}.{getattr(pool, '__qualname__', pool)}",
            "modules": {sensor: _describe(module) for sensor, module in modules.items()},
            **(fields or {}),
        }
        self.width = 0
        self.width = max(self._try(sensor) for sensor in self.sensors)

    def _try(self, sensor: str) -> int:
        """The width of the embeds of a sensor, by an image of zeros."""
        module = self.by_sensor[sensor]
        modes = [(part, part.training) for part in module.modules()]
        where = next(module.parameters(), torch.zeros(()))
        blank = torch.zeros(1, len(self.sensors[sensor]), self.tile_size, self.tile_size, device=where.device)
        try:
            with torch.inference_mode():
                output = self._forward(module.eval(), blank, sensor)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            one = self.normalisation[sensor]
            edge = one.size or self.tile_size
            raise ValueError(
                f"The module of {sensor}, a {type(module).__name__}, does not take images (B, {len(one.bands)}, {edge}, {edge}), the "
                f"channels {', '.join(one.bands)}: {error}"
            ) from error
        finally:
            for part, mode in modes:
                part.training = mode
        return pool_output(output, self.pool, sensor).shape[1]

    def _forward(self, module: torch.nn.Module, pixels: torch.Tensor, sensor: str) -> Any:
        images = self.normalisation[sensor].apply(pixels)
        own = next((weights.dtype for weights in module.parameters()), images.dtype)
        return module(images.to(own))

    def embed(self, pixels: torch.Tensor, sensor: str) -> torch.Tensor:
        """(B, width) of pixels (B, C, H, W) in dB and digital numbers."""
        embeds = pool_output(self._forward(self.by_sensor[sensor], pixels, sensor), self.pool, sensor).float()
        return torch.nn.functional.pad(embeds, (0, max(self.width - embeds.shape[1], 0)))

    def untrained(self) -> "ModuleEncoder | None":
        """The same with random weights; None where a module does not say how it is initialised."""
        modules = {id(module): random_weights(module) for module in self.by_sensor.values()}
        if None in modules.values():
            return None
        by_sensor = {sensor: modules[id(module)] for sensor, module in self.by_sensor.items()}
        fields = {name: value for name, value in self.provenance_fields.items() if name not in _OWN_FIELDS}
        return ModuleEncoder(
            by_sensor,  # type: ignore[arg-type]  # None is none of them
            self.normalisation,
            pool=self.pool,
            tile_size=self.tile_size,
            fields=fields,
        )


_OWN_FIELDS = ("normalisation", "pool", "modules")


def _describe(module: torch.nn.Module) -> dict[str, Any]:
    """What a module computes beside its weights, as far as it says so: its structure, and its configuration where it has one."""
    structure = re.sub(r"0x[0-9a-f]+", "", repr(module))  # without places in memory
    said = {"structure": hashlib.sha256(structure.encode()).hexdigest()[:16]}
    config = getattr(module, "config", None)
    if not isinstance(config, PreTrainedConfig):
        return said
    common = PreTrainedConfig().to_dict()  # names, versions, labels
    own = {name: value for name, value in config.to_dict().items() if name not in common and not name.startswith("_")}
    return said | own


def pool_output(output: Any, pool: str | Callable[[Any], torch.Tensor], sensor: str) -> torch.Tensor:
    """(B, D) of what a module gave: a tensor, or an output of Transformers. A ValueError if it is neither."""
    found: Any = None
    if callable(pool):
        found = pool(output)
    elif pool == "pooler":
        found = getattr(output, "pooler_output", None)
        if found is None:
            raise ValueError(f"The model of {sensor} gives no pooler_output: choose pool='mean' or 'cls'.")
        found = found.flatten(1)
    else:
        found = output if isinstance(output, torch.Tensor) else getattr(output, "last_hidden_state", None)
        if isinstance(found, torch.Tensor) and found.ndim == 4 and pool == "mean":  # a map of places
            found = found.mean(dim=(2, 3))
        elif isinstance(found, torch.Tensor) and found.ndim == 3:
            found = found.mean(dim=1) if pool == "mean" else found[:, 0]
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(output).__name__
        raise ValueError(
            f"The module of {sensor} gave {shape}, of which pool={pool!r} makes no embeds (B, D): pass pool= a function of its output."
        )
    return found


def random_weights(module: torch.nn.Module) -> torch.nn.Module | None:
    """The same module with random weights as its class draws them; None where parts of it do not say how."""
    config = getattr(module, "config", None)
    if config is not None and hasattr(type(module), "_from_config"):  # a model of Transformers
        kind: Any = type(module)
        made: torch.nn.Module = kind._from_config(copy.deepcopy(config))
        return made
    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
        elif next(part.parameters(recurse=False), None) is not None:
            return None
    return fresh
