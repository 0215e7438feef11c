"""Weights of TorchGeo by name (CROMA, DOFA, ResNets and ViTs of SSL4EO-S12, ...) as an encoder.

TorchGeo is imported when it is asked for, and needs torchvision; this package does without. Written for the models of TorchGeo 0.8.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from csmae_hf.embedding.foreign import TILE_SIZE
from csmae_hf.embedding.module_encoder import ModuleEncoder, Normalisation
from csmae_hf.images.band_names import parse_band
from image_checks_csmae import BAND_MEAN, BAND_STD

CROMA_BANDS = {
    "s1": ["VV", "VH"],
    "s2": ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"],
}
"""Channels of CROMA, which takes Sentinel-1 with 2 and Sentinel-2 with 12 (without B10)."""

WAVELENGTHS = {
    **{"B01": 0.443, "B02": 0.490, "B03": 0.560, "B04": 0.665, "B05": 0.705, "B06": 0.740, "B07": 0.783, "B08": 0.842},
    **{"B8A": 0.865, "B09": 0.945, "B11": 1.610, "B12": 2.190, "VV": 3.75, "VH": 3.75},
}
"""Micrometres by which DOFA knows a band; 3.75 is what it was trained to take for Sentinel-1."""

DOFA_BANDS = {
    "s1": ["VV", "VH"],
    "s2": ["B04", "B03", "B02", "B05", "B06", "B07", "B08", "B11", "B12"],
}
"""Channels in the order in which DOFA was trained."""


def torchgeo_encoder(
    weights: Mapping[str, str],
    bands: Mapping[str, Sequence[str]] | None = None,
    *,
    normalisation: Mapping[str, Normalisation] | None = None,
    tile_size: int = TILE_SIZE,
) -> ModuleEncoder:
    """Make an encoder of weights of TorchGeo, downloaded by TorchGeo when they are not there yet.

    CROMA's channels are brought to 0..1 between their mean minus and plus two standard deviations, as by its authors, though of
    BigEarthNet's statistics and not of each batch's own: an embed must not depend on a tile's neighbours. DOFA's are standardised.
    Of all other weights the bands and the transforms are those that TorchGeo names, applied to digital numbers and dB as they are.

    Args:
        weights: By sensor the name of the weights, such as `CROMABase_Weights.CROMA_VIT`.
        bands: By sensor the band of each channel, where it is not what the weights say (DOFA takes any).
        normalisation: By sensor, in the place of what is said above.
        tile_size: Pixels of 10 m along the edge of a tile.

    Raises:
        ImportError: If TorchGeo is missing.
        ValueError: If there are no such weights, or they need bands that tiles have not, such as B10.

    Example:
        >>> croma = "CROMABase_Weights.CROMA_VIT"
        >>> encoder = torchgeo_encoder({"s1": croma, "s2": croma})
    """
    try:
        from torchgeo import models
    except ImportError as error:
        raise ImportError(
            f"Weights of TorchGeo need torchgeo, and that torchvision, which this package does without: pip install torchgeo ({error})"
        ) from error
    modules: dict[str, torch.nn.Module] = {}
    scales = dict(normalisation or {})
    for sensor, name in weights.items():
        try:
            found = models.get_weight(name)
        except ValueError as error:
            raise ValueError(
                f"TorchGeo has no weights {name!r}: expected a name such as CROMABase_Weights.CROMA_VIT; "
                "torchgeo.models.list_models() and get_model_weights() list them."
            ) from error
        architecture = next(one for one in models.list_models() if found in list(models.get_model_weights(one)))
        chosen = list((bands or {}).get(sensor) or _bands_of(name, sensor, found))
        if name.startswith("CROMA"):
            modality = {"s1": "sar", "s2": "optical"}.get(sensor)
            if modality is None:
                raise ValueError(f"CROMA embeds s1 and s2, not {sensor}.")
            # with one modality alone: with both it takes pairs only
            made = models.get_model(architecture, weights=found, modalities=[modality], image_size=tile_size)
            modules[sensor] = _Croma(made, modality)
            low, high = ([BAND_MEAN[b] + sign * 2 * BAND_STD[b] for b in chosen] for sign in (-1, 1))
            scales.setdefault(sensor, Normalisation(chosen, low=low, high=high, clip=True))
        elif name.startswith("DOFA"):
            modules[sensor] = _Dofa(models.get_model(architecture, weights=found), [WAVELENGTHS[b] for b in chosen])
            mean, std = [BAND_MEAN[b] for b in chosen], [BAND_STD[b] for b in chosen]
            scales.setdefault(sensor, Normalisation(chosen, mean=mean, std=std, size=224))
        else:
            transforms = None if sensor in scales else found.transforms
            modules[sensor] = _Features(models.get_model(architecture, weights=found), transforms)
            scales.setdefault(sensor, Normalisation(chosen))
    return ModuleEncoder(
        modules,
        {sensor: scales[sensor] for sensor in modules},
        tile_size=tile_size,
        fields={"torchgeo": dict(weights)},
    )


def _bands_of(name: str, sensor: str, weights: Any) -> list[str]:
    """The band of each channel that weights take, as our names."""
    for family, known in (("CROMA", CROMA_BANDS), ("DOFA", DOFA_BANDS)):
        if name.startswith(family) and sensor in known:
            return known[sensor]
    said = weights.meta.get("bands")
    if not said:
        raise ValueError(f"TorchGeo does not say the bands of {name}: pass bands={{{sensor!r}: [...]}}.")
    names = [parse_band(str(band)).band or str(band) for band in said]
    strange = [band for band in names if band not in BAND_MEAN]
    if strange:
        raise ValueError(
            f"{name} takes the bands {', '.join(map(str, said))}, of which tiles of Sentinel-1 and Sentinel-2 (Level-2A) have no "
            f"{', '.join(strange)}: choose other weights."
        )
    return names


class _Croma(torch.nn.Module):
    """The pooled features of one modality."""

    def __init__(self, model: torch.nn.Module, modality: str):
        super().__init__()
        self.model, self.modality = model, modality

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(**{f"x_{self.modality}": images})[f"{self.modality}_GAP"]
        return found

    def extra_repr(self) -> str:
        return self.modality


class _Dofa(torch.nn.Module):
    """The pooled features of channels of known wavelengths."""

    def __init__(self, model: torch.nn.Module, wavelengths: list[float]):
        super().__init__()
        self.model, self.wavelengths = model, wavelengths

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model.forward_features(images, self.wavelengths)  # type: ignore[operator]
        return found

    def extra_repr(self) -> str:
        return f"wavelengths={self.wavelengths}"


class _Features(torch.nn.Module):
    """The features before the head, of images as the weights' transforms make them."""

    def __init__(self, model: torch.nn.Module, transforms: torch.nn.Module | None):
        super().__init__()
        self.model, self.transforms = model, transforms

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # transforms may work in place
        ready = images if self.transforms is None else self.transforms(images.clone())
        found: torch.Tensor = self.model.forward_features(ready)  # type: ignore[operator]
        return found
