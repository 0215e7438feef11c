"""Quantised models in the place of whole ones: embedded by the one loop, and told apart in an archive's identity."""

import copy

import numpy as np
import pytest
import torch
from hub_models import tiny_fields

from configuration_csmae import CSMAEConfig
from csmae_hf.embedding.diagnostics import kept_neighbours
from csmae_hf.embedding.embed import embed_images
from csmae_hf.embedding.identity import weights_hash
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEModel

quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed: make test does it")


def settings() -> dict[str, object]:
    granularity = pytest.importorskip("torchao.quantization.granularity")
    return {
        "int8": quantization.Int8WeightOnlyConfig(),
        "int8 activations": quantization.Int8DynamicActivationInt8WeightConfig(),
        "int4": quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=granularity.PerGroup(32)),
    }


def test_quantised_models_embed_nearly_alike_and_each_has_its_own_identity() -> None:
    torch.manual_seed(0)
    model = CSMAEModel(CSMAEConfig.for_variant("sesd", "tiny", **tiny_fields("sesd"))).eval()
    processor, generator = CSMAEImageProcessor(), np.random.default_rng(0)
    tiles = [
        {band: generator.normal(-15, 4, (120, 120)).astype(np.float32) for band in processor.sensors["s1"]}
        for _ in range(12)
    ]
    names = [str(number) for number in range(12)]
    whole = embed_images(model, processor, tiles, "s1", names)
    hashes = {weights_hash(model)}
    for name, config in settings().items():
        hashes_of_two = set()
        for _ in range(2):
            quantised = copy.deepcopy(model)
            quantization.quantize_(quantised, config)
            hashes_of_two.add(weights_hash(quantised))
        assert len(hashes_of_two) == 1, name
        hashes |= hashes_of_two
        embeds = embed_images(quantised, processor, tiles, "s1", names)
        cosines = (embeds * whole).sum(1) / np.linalg.norm(embeds, axis=1) / np.linalg.norm(whole, axis=1)
        assert 0.98 < cosines.min() < 1 - 1e-9, name
    assert len(hashes) == 4


def test_kept_neighbours_are_those_of_a_loop() -> None:
    generator = np.random.default_rng(0)
    whole = generator.normal(size=(30, 8)).astype(np.float32)
    rough = whole + generator.normal(scale=0.4, size=whole.shape).astype(np.float32)
    shares = []
    for row in range(30):
        nearest = []
        for values in (whole, rough):
            unit = values / np.linalg.norm(values, axis=1, keepdims=True)
            cosines = unit @ unit[row]
            cosines[row] = -2
            nearest.append(set(np.argsort(-cosines)[:5]))
        shares.append(len(nearest[0] & nearest[1]) / 5)
    assert kept_neighbours(rough, whole, 5) == pytest.approx(np.mean(shares))
    assert kept_neighbours(3 * whole, whole, 5) == 1
    with pytest.raises(ValueError, match="29 and 30"):
        kept_neighbours(whole[:29], whole)
