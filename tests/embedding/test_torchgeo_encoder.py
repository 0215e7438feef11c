"""Weights of TorchGeo as encoders, by a stand-in with the interface of TorchGeo 0.8: it is not installed here, nor is torchvision."""

import enum
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from csmae_hf.bigearthnet import S2_BANDS
from csmae_hf.embedding.torchgeo_encoder import CROMA_BANDS, torchgeo_encoder
from image_checks_csmae import BAND_MEAN, BAND_STD


class Croma(torch.nn.Module):
    """As TorchGeo's: of both modalities only pairs; of one its pooled features."""

    def __init__(self, weights=None, modalities=("sar", "optical"), image_size=120):
        super().__init__()
        self.modalities, self.image_size = modalities, image_size
        self.scale = torch.nn.Parameter(torch.full((), 2.0))

    def forward(self, x_sar=None, x_optical=None):
        if len(self.modalities) == 2:
            raise UnboundLocalError("cannot access local variable 'sar_encodings'")
        images, channels = (x_sar, 2) if self.modalities[0] == "sar" else (x_optical, 12)
        assert images.shape[1:] == (channels, self.image_size, self.image_size)
        return {f"{self.modalities[0]}_GAP": images.mean(dim=(2, 3)) * self.scale}


class Dofa(torch.nn.Module):
    def __init__(self, weights=None):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward_features(self, x, wavelengths):
        assert x.shape[1:] == (len(wavelengths), 224, 224)
        return (x.mean(dim=(2, 3)) * torch.tensor(wavelengths)).sum(1, keepdim=True).expand(-1, 4) * self.scale


class Resnet(torch.nn.Module):
    def __init__(self, weights=None):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward_features(self, x):
        return x[:, :, ::2, ::2] * self.scale


class Divide(torch.nn.Module):
    def forward(self, x):
        return x.div_(10000)  # in place, as torchvision's Normalize with inplace=True


class CROMABase_Weights(enum.Enum):  # noqa: N801
    CROMA_VIT = "croma"


class DOFABase16_Weights(enum.Enum):  # noqa: N801
    DOFA_MAE = "dofa"


class ResNet50_Weights(enum.Enum):  # noqa: N801
    SENTINEL2_ALL_MOCO = SimpleNamespace(
        meta={"bands": ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8a", "B9", "B10", "B11", "B12"]}
    )
    SENTINEL2_RGB_MOCO = SimpleNamespace(meta={"bands": ["B4", "B3", "B2"]})

    @property
    def meta(self):
        return self.value.meta

    @property
    def transforms(self):
        return Divide()


KINDS = {
    "croma_base": (Croma, CROMABase_Weights),
    "dofa": (Dofa, DOFABase16_Weights),
    "resnet50": (Resnet, ResNet50_Weights),
}


def get_weight(name):
    for _, kind in KINDS.values():
        for one in kind:
            if str(one) == name:
                return one
    raise ValueError(f"{name} is not a valid WeightsEnum")


@pytest.fixture
def torchgeo(monkeypatch) -> None:
    package, models = ModuleType("torchgeo"), ModuleType("torchgeo.models")
    models.get_weight, models.list_models = get_weight, lambda: list(KINDS)
    models.get_model_weights = lambda name: KINDS[name][1]
    models.get_model = lambda name, **options: KINDS[name][0](**options)
    package.models = models
    monkeypatch.setitem(sys.modules, "torchgeo", package)
    monkeypatch.setitem(sys.modules, "torchgeo.models", models)


def tiles(bands, value):
    return torch.stack([torch.full((2, 120, 120), float(value(band))) for band in bands], 1)


def test_croma_gets_its_channels_between_two_deviations(torchgeo) -> None:
    name = "CROMABase_Weights.CROMA_VIT"
    encoder = torchgeo_encoder({"s1": name, "s2": name})
    assert encoder.sensors == CROMA_BANDS
    assert set(encoder.sensors["s2"]) == set(S2_BANDS)
    assert encoder.width == 12
    for sensor, count in (("s1", 2), ("s2", 12)):
        means = encoder.embed(tiles(encoder.sensors[sensor], BAND_MEAN.__getitem__), sensor)
        torch.testing.assert_close(means[:, :count], torch.full((2, count), 2 * 0.5), atol=1e-5, rtol=0)
        high = encoder.embed(tiles(encoder.sensors[sensor], lambda b: BAND_MEAN[b] + 1 * BAND_STD[b]), sensor)
        torch.testing.assert_close(high[:, :count], torch.full((2, count), 2 * 0.75), atol=1e-5, rtol=0)
    assert encoder.provenance_fields["torchgeo"] == {"s1": name, "s2": name}
    with pytest.raises(ValueError, match="CROMA embeds s1 and s2, not thermal"):
        torchgeo_encoder({"thermal": name}, {"thermal": ["VV", "VH"]})


def test_dofa_gets_the_wavelengths_of_the_bands_that_are_chosen(torchgeo) -> None:
    encoder = torchgeo_encoder({"s2": "DOFABase16_Weights.DOFA_MAE"}, {"s2": ["B04", "B12"]})
    found = encoder.embed(tiles(["B04", "B12"], lambda b: BAND_MEAN[b] + BAND_STD[b]), "s2")
    torch.testing.assert_close(found, torch.full((2, 4), 0.665 + 2.190), atol=1e-4, rtol=0)


def test_other_weights_say_bands_and_transforms_themselves(torchgeo) -> None:
    encoder = torchgeo_encoder({"s2": "ResNet50_Weights.SENTINEL2_RGB_MOCO"})
    assert encoder.sensors["s2"] == ["B04", "B03", "B02"]
    pixels = tiles(["B04", "B03", "B02"], {"B04": 1000, "B03": 2000, "B02": 3000}.__getitem__)
    torch.testing.assert_close(encoder.embed(pixels, "s2"), torch.tensor([[0.1, 0.2, 0.3]] * 2))
    torch.testing.assert_close(encoder.embed(pixels, "s2"), torch.tensor([[0.1, 0.2, 0.3]] * 2))  # changed nothing
    with pytest.raises(ValueError, match="have no B10: choose other weights"):
        torchgeo_encoder({"s2": "ResNet50_Weights.SENTINEL2_ALL_MOCO"})
    with pytest.raises(ValueError, match="no weights 'ResNet9'"):
        torchgeo_encoder({"s2": "ResNet9"})


def test_without_torchgeo_it_is_said_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo", None)
    with pytest.raises(ImportError, match="pip install torchgeo"):
        torchgeo_encoder({"s2": "DOFABase16_Weights.DOFA_MAE"})
