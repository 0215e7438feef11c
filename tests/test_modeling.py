"""The models: their mathematics against plain computations, and what a caller may rely on.

`Reference` computes the method in float64 one image, one sensor and one prediction at a time, from the weights alone; what
the models batch, share and skip must give the same numbers.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors_torch
from tiny_models import build
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForPreTraining

from configuration_csmae import VARIANTS, CSMAEConfig
from csmae_hf.data.dataset import load_bigearthnet
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import (
    CSMAEDecoder,
    CSMAEForPreTraining,
    CSMAEModel,
    CSMAEPositionEmbeddings,
    discrepancy_loss,
    fixed_noise,
    make_masks,
    nt_xent_loss,
    patchify,
    reconstruction_loss,
    sincos_positions,
    standardize_patches,
    unpatchify,
)

TWO_SENSORS = {"s1": ["VH", "VV"], "s2": ["B02", "B03", "B04"]}
THREE_SENSORS = {**TWO_SENSORS, "thermal": ["T1", "T2", "T3", "T4"]}
MASKINGS = ("random", "identical", "disjoint")


def small_config(variant: str = "sesd", **overrides: Any) -> CSMAEConfig:
    """A configuration of a variant with 6 x 6 patches that runs in milliseconds; int(36 * 0.6) = 21.6 is not whole."""
    specific = variant[0] == "s"
    fields = {
        "sensors": TWO_SENSORS,
        "image_size": 30,
        "patch_size": 5,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "multi_sensor_encoder_depth": 1 if specific else 0,
        "cross_sensor_encoder_depth": 1 if specific else 2,
        "decoder_type": "specific" if variant[2] == "s" else "common",
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 4,
        "mask_ratio": 0.4,
    }
    return CSMAEConfig(**{**fields, **overrides})


def draw_images(config: CSMAEConfig, batch: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    return tiny_models.draw_images(config, batch, seed)


def draw_noise(config: CSMAEConfig, batch: int = 3, seed: int = 2) -> dict[str, torch.Tensor]:
    return tiny_models.draw_noise(config, batch, seed)


# The method in plain steps


def plain_position(row: float, column: float, width: int) -> list[float]:
    """Sin-cos position of one patch: sines and cosines of the column, then of the row."""
    quarter = width // 4
    frequencies = [1 / 10000 ** (i / quarter) for i in range(quarter)]
    return [
        wave(coordinate * frequency)
        for coordinate in (column, row)
        for wave in (math.sin, math.cos)
        for frequency in frequencies
    ]


def plain_positions(rows: int, columns: int, width: int) -> torch.Tensor:
    """(rows * columns, width)."""
    return torch.tensor(
        [plain_position(row, column, width) for row in range(rows) for column in range(columns)], dtype=torch.float64
    )


def plain_patches(image: torch.Tensor, size: int) -> torch.Tensor:
    """(C, H, W) to (L, P * P * C), pixel by pixel."""
    bands, height, width = image.shape
    patches = []
    for top in range(0, height, size):
        for left in range(0, width, size):
            pixels = [
                image[band, top + row, left + column]
                for row in range(size)
                for column in range(size)
                for band in range(bands)
            ]
            patches.append(torch.stack(pixels))
    return torch.stack(patches)


def plain_visible(noise: Mapping[str, torch.Tensor], config: CSMAEConfig, image: int) -> dict[str, list[int]]:
    """Visible patches of one image of the batch, by sensor."""
    kept = int(config.num_patches * (1 - config.mask_ratio))
    orders = {sensor: np.argsort(values[image].numpy(), kind="stable").tolist() for sensor, values in noise.items()}
    sensors = list(orders)
    if config.masking == "random":
        return {sensor: order[:kept] for sensor, order in orders.items()}
    first = orders[sensors[0]]
    if config.masking == "identical":
        return dict.fromkeys(sensors, first[:kept])
    return {sensors[0]: first[:kept], sensors[1]: first[kept:]}


def plain_nt_xent(embeds: torch.Tensor, other: torch.Tensor, temperature: float) -> float:
    """NT-Xent by its formula, a double loop over the 2B embeds."""
    everything = [row.tolist() for row in torch.cat([embeds, other]).double()]
    count = len(everything)

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for i in range(count):
        scores = [math.exp(cosine(everything[i], everything[j]) / temperature) for j in range(count)]
        total -= math.log(scores[(i + count // 2) % count] / sum(scores[:i] + scores[i + 1 :]))
    return total / count


def plain_discrepancy(embeds: torch.Tensor, other: torch.Tensor) -> float:
    terms = []
    for a, b in zip(embeds.double().tolist(), other.double().tolist(), strict=True):
        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
        terms.append(-math.log(1 + math.exp(cosine)))
    return sum(terms) / len(terms)


class Reference:
    """The method from a pre-training model's weights: float64, one image and one pass at a time, nothing shared."""

    def __init__(self, model: CSMAEForPreTraining):
        self.config: CSMAEConfig = model.config  # type: ignore[assignment]
        self.weights = {name: value.double() for name, value in model.state_dict().items()}
        self.side = self.config.image_size // self.config.patch_size

    def linear(self, name: str, tokens: torch.Tensor) -> torch.Tensor:
        return tokens @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def layernorm(self, name: str, tokens: torch.Tensor, eps: float) -> torch.Tensor:
        mean = tokens.mean(-1, keepdim=True)
        variance = ((tokens - mean) ** 2).mean(-1, keepdim=True)
        return (tokens - mean) / (variance + eps).sqrt() * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def block(self, name: str, tokens: torch.Tensor, heads: int, eps: float) -> torch.Tensor:
        width = tokens.shape[-1]
        size = width // heads
        query, key, value = self.linear(f"{name}.attention.qkv", self.layernorm(f"{name}.norm1", tokens, eps)).split(
            width, dim=-1
        )
        attended = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = torch.exp(query[:, part] @ key[:, part].T / math.sqrt(size))
            attended.append(scores / scores.sum(-1, keepdim=True) @ value[:, part])
        tokens = tokens + self.linear(f"{name}.attention.proj", torch.cat(attended, dim=-1))
        inner = self.linear(f"{name}.mlp.fc1", self.layernorm(f"{name}.norm2", tokens, eps))
        inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
        return tokens + self.linear(f"{name}.mlp.fc2", inner)

    def encode(self, sensor: str, image: torch.Tensor, visible: list[int]) -> torch.Tensor:
        """Tokens (1 + K, D) of one image."""
        config, weights = self.config, self.weights
        kernel = (
            weights[f"csmae.embeddings.{sensor}.projection.weight"].permute(0, 2, 3, 1).flatten(1)
        )  # row, column, band
        patches = plain_patches(image.double(), config.patch_size) @ kernel.T
        patches = patches + weights[f"csmae.embeddings.{sensor}.projection.bias"]
        patches = patches + plain_positions(self.side, self.side, config.hidden_size)
        tokens = torch.cat([weights[f"csmae.embeddings.{sensor}.cls_token"][0], patches[visible]])
        stages = [
            (f"csmae.multi_sensor_encoders.{sensor}", config.multi_sensor_encoder_depth),
            ("csmae.cross_sensor_encoder", config.cross_sensor_encoder_depth),
        ]
        for stage, depth in stages:
            if stage.endswith(f".{sensor}") and not depth:
                continue
            for layer in range(depth):
                tokens = self.block(
                    f"{stage}.layers.{layer}", tokens, config.num_attention_heads, config.layer_norm_eps
                )
            tokens = self.layernorm(f"{stage}.layernorm", tokens, config.layer_norm_eps)
        return tokens

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.config.pooling == "token":
            return tokens[0]
        return self.layernorm("csmae.fc_norm", tokens[1:].mean(0), self.config.layer_norm_eps)

    def predict(self, tokens: torch.Tensor, visible: list[int], target: str) -> torch.Tensor:
        """(L, P * P * C of the target): one whole decoder pass for this source and this target."""
        config = self.config
        name = f"decoders.{target if config.decoder_type == 'specific' else 'common'}"
        tokens = self.linear(f"{name}.embed", tokens)
        patches = self.weights[f"{name}.mask_token"][0].repeat(self.side**2, 1)
        for place, patch in enumerate(visible):
            patches[patch] = tokens[1 + place]
        patches = patches + plain_positions(self.side, self.side, config.decoder_hidden_size)
        tokens = torch.cat([tokens[:1], patches])
        for layer in range(config.decoder_num_hidden_layers):
            tokens = self.block(
                f"{name}.layers.{layer}", tokens, config.decoder_num_attention_heads, config.decoder_layer_norm_eps
            )
        tokens = self.layernorm(f"{name}.layernorm", tokens, config.decoder_layer_norm_eps)
        return self.linear(f"{name}.heads.{target}", tokens[1:])

    def target(self, image: torch.Tensor) -> torch.Tensor:
        patches = plain_patches(image.double(), self.config.patch_size)
        if not self.config.norm_pixel_loss:
            return patches
        mean = patches.mean(1, keepdim=True)
        variance = ((patches - mean) ** 2).sum(1, keepdim=True) / (patches.shape[1] - 1)
        return (patches - mean) / (variance + 1e-6).sqrt()

    def run(self, images: Mapping[str, torch.Tensor], noise: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Embeds, masks, predictions and losses of a batch."""
        sensors, config = list(images), self.config
        pairs = list(itertools.product(sensors, sensors))
        errors: dict[tuple[str, str], list[torch.Tensor]] = {pair: [] for pair in pairs}
        predictions: dict[tuple[str, str], list[torch.Tensor]] = {pair: [] for pair in pairs}
        embeds: dict[str, list[torch.Tensor]] = {sensor: [] for sensor in sensors}
        masks: dict[str, list[list[float]]] = {sensor: [] for sensor in sensors}
        for i in range(len(images[sensors[0]])):
            visible = plain_visible(noise, config, i)
            tokens = {sensor: self.encode(sensor, images[sensor][i], visible[sensor]) for sensor in sensors}
            for sensor in sensors:
                embeds[sensor].append(self.embed(tokens[sensor]))
                masks[sensor].append([float(patch not in visible[sensor]) for patch in range(self.side**2)])
            for source, target in pairs:
                prediction = self.predict(tokens[source], visible[source], target)
                predictions[source, target].append(prediction)
                wanted = self.target(images[target][i])
                seen = visible[source if config.cmr_target == "source" else target]
                for patch in range(self.side**2):
                    if patch not in seen:
                        errors[source, target].append(((prediction[patch] - wanted[patch]) ** 2).mean())
        losses = {
            f"umr_{source}" if source == target else f"cmr_{source}_{target}": torch.stack(values).mean().item()
            for (source, target), values in errors.items()
        }
        stacked = {sensor: torch.stack(values) for sensor, values in embeds.items()}
        first, second = (stacked[sensor] for sensor in sensors)
        losses["mim"] = plain_nt_xent(first, second, config.mim_temperature)
        losses["mde"] = plain_discrepancy(first, second)
        return {
            "embeds": stacked,
            "masks": {sensor: torch.tensor(values) for sensor, values in masks.items()},
            "predictions": {pair: torch.stack(values) for pair, values in predictions.items()},
            "losses": losses,
        }


# Pure functions


def test_patchify_flattens_row_column_band_patch_by_patch() -> None:
    images = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([plain_patches(image, 2) for image in images])
    assert torch.equal(patchify(images, 2), expected)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (4, 10)])
def test_unpatchify_is_the_inverse_of_patchify(height: int, width: int) -> None:
    images = torch.randn(2, 3, height, width)
    assert torch.equal(unpatchify(patchify(images, 2), 2, height, width), images)


def test_standardised_patches_use_the_unbiased_variance_and_leave_flat_patches_finite() -> None:
    patches = np.random.default_rng(0).normal(3, 2, (2, 5, 12))
    patches[0, 0] = 7.0
    ours = standardize_patches(torch.from_numpy(patches)).numpy()
    expected = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    assert np.array_equal(ours[0, 0], np.zeros(12))


@pytest.mark.parametrize(("rows", "columns", "width"), [(8, 8, 192), (3, 5, 16)])
def test_positions_are_sines_and_cosines_of_column_then_row(rows: int, columns: int, width: int) -> None:
    ours = sincos_positions((rows, columns), width)
    assert ours.shape == (1, 1 + rows * columns, width)
    assert ours.dtype == torch.float32
    assert torch.equal(ours[0, 0], torch.zeros(width)), "the CLS token has no position"
    torch.testing.assert_close(ours[0, 1:].double(), plain_positions(rows, columns, width), rtol=0, atol=1e-6)


def test_positions_of_another_grid_are_stretched_onto_the_trained_one() -> None:
    ours = sincos_positions((4, 2), 8, trained_grid=(2, 2))[0, 1:]
    rows = [-0.25, 0.25, 0.75, 1.25]  # centres of four halves, in units of the two trained rows
    expected = torch.tensor([plain_position(row, column, 8) for row in rows for column in (0, 1)])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_fixed_noise_is_a_function_of_its_indices_and_looks_uniform() -> None:
    cpu = torch.device("cpu")
    noise = torch.stack([fixed_noise(64, stream, cpu) for stream in range(256)])
    assert torch.equal(noise[7], fixed_noise(64, 7, cpu))
    assert noise.min() >= 0
    assert noise.max() < 1
    histogram = torch.histc(noise, bins=16, min=0, max=1) / noise.numel() * 16
    assert (histogram - 1).abs().max() < 0.15
    hidden_share = make_masks({"s1": noise}, "random", 0.5)["s1"].as_map().mean(dim=0)
    assert (hidden_share - 0.5).abs().max() < 0.2, "no place of the grid is favoured"
    correlation = torch.corrcoef(noise[:2])[0, 1]
    assert abs(correlation) < 0.3, "sensors are masked apart"
    assert len({tuple(order) for order in noise.argsort(dim=1).tolist()}) == 256


@pytest.mark.parametrize("masking", MASKINGS)
def test_reconstruction_in_evaluation_is_the_same_in_batches_of_any_size_and_order(masking: str) -> None:
    model = build(CSMAEForPreTraining, small_config(masking=masking, mim_weight=0.0, mde_weight=1.0))
    images = draw_images(model.config, batch=6)
    with torch.no_grad():
        whole = model(**images)
        for sizes in ([1] * 6, [2, 4], [5, 1]):
            torch.manual_seed(sizes[0])  # it must not matter either
            parts = zip(*(image.flip(0).split(sizes) for image in images.values()), strict=True)
            losses = [model(**dict(zip(images, part, strict=True))).losses for part in parts]
            for name, value in whole.losses.items():
                mean = sum(size * loss[name] for size, loss in zip(sizes, losses, strict=True)) / 6
                torch.testing.assert_close(mean, value, rtol=1e-6, atol=1e-6)
    assert all((mask == mask[0]).all() for mask in whole.masks.values())


@st.composite
def mask_cases(draw: st.DrawFn) -> tuple[dict[str, torch.Tensor], str, float]:
    """Noise of one to four sensors over any grid, with a strategy and a ratio that leave every sensor a patch."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    patches, sensors = rows * columns, draw(st.integers(1, 4))
    masking = draw(st.sampled_from(MASKINGS))
    ratio = draw(st.floats(0, 1, exclude_max=True))
    kept = int(patches * (1 - ratio))
    if kept < 1 or (masking == "disjoint" and patches - kept < sensors - 1):
        patches, ratio = 64, draw(st.floats(0.05, 0.95))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    noise = {f"s{i + 1}": torch.rand(draw(st.just(2)), patches, generator=generator) for i in range(sensors)}
    return noise, masking, ratio


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(mask_cases())
def test_masks_of_any_ratio_size_and_strategy_are_complementary_and_restorable(
    case: tuple[dict[str, torch.Tensor], str, float],
) -> None:
    noise, masking, ratio = case
    masks = make_masks(noise, masking, ratio)
    assert list(masks) == list(noise)
    first = next(iter(noise))
    batch, patches = noise[first].shape
    kept = int(patches * (1 - ratio))
    assert masks[first].visible.shape[1] == kept
    for sensor, mask in masks.items():
        used = noise[sensor if masking == "random" else first]
        for i in range(batch):
            visible, hidden = mask.visible[i].tolist(), mask.hidden[i].tolist()
            assert sorted(visible + hidden) == list(range(patches)), "visible and hidden are complementary"
            tokens = [*visible, *hidden]
            assert [tokens[place] for place in mask.restore[i].tolist()] == list(range(patches)), "tokens come home"
            assert mask.as_map()[i].tolist() == [float(patch in hidden) for patch in range(patches)]
            if masking != "disjoint" and hidden:
                assert used[i, visible].max() <= used[i, hidden].min(), "those with the least noise are visible"
    if masking == "identical":
        assert all(torch.equal(mask.visible, masks[first].visible) for mask in masks.values())
    if masking == "disjoint" and len(masks) > 1:
        seen_by = torch.stack([1 - mask.as_map() for mask in masks.values()]).sum(dim=0)
        assert torch.equal(seen_by, torch.ones(batch, patches)), "every patch is seen by exactly one sensor"
        shares = [mask.visible.shape[1] for sensor, mask in masks.items() if sensor != first]
        assert max(shares) - min(shares) <= 1, "the others divide what is left"
        assert min(shares) >= 1


def test_reconstruction_loss_is_the_mean_over_pixels_then_patches() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    by_patch = [
        sum((prediction[b, p, i].item() - target[b, p, i].item()) ** 2 for i in range(4)) / 4
        for b in range(2)
        for p in range(3)
    ]
    assert reconstruction_loss(prediction, target).item() == pytest.approx(sum(by_patch) / 6, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_nt_xent_equals_its_formula(batch: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(batch)
    embeds, other = torch.randn(batch, 5, generator=generator), 3 * torch.randn(batch, 5, generator=generator)
    ours = nt_xent_loss(embeds, other, temperature).item()
    assert ours == pytest.approx(plain_nt_xent(embeds, other, temperature), abs=1e-5)


def test_nt_xent_is_stable_where_plain_exponentials_overflow() -> None:
    embeds = torch.eye(4, dtype=torch.float16)
    loss = nt_xent_loss(embeds, embeds.roll(1, 0), temperature=0.001)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1000, rel=1e-3)


def test_discrepancy_equals_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    embeds, other = torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)
    assert discrepancy_loss(embeds, other).item() == pytest.approx(plain_discrepancy(embeds, other), abs=1e-6)


@pytest.mark.parametrize("loss", [lambda a, b: nt_xent_loss(a, b, 0.5), discrepancy_loss], ids=["mim", "mde"])
def test_zero_features_give_a_finite_loss_and_gradient(loss: Callable[..., torch.Tensor]) -> None:
    embeds = torch.zeros(3, 4, requires_grad=True)
    value = loss(embeds, torch.zeros(3, 4))
    (gradient,) = torch.autograd.grad(value, embeds)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


# Against the plain form


@pytest.mark.parametrize("cmr_target", ["source", "target"])
@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_pretraining_forward_equals_the_plain_four_passes(variant: str, masking: str, cmr_target: str) -> None:
    config = small_config(variant, masking=masking, cmr_target=cmr_target, mde_weight=0.5, mim_weight=2, umr_weight=3)
    model = build(CSMAEForPreTraining, config)
    images, noise = draw_images(config, batch=2), draw_noise(config, batch=2)
    with torch.no_grad():
        ours = model(**images, noise=noise)
        expected = Reference(model).run(images, noise)
    assert set(ours.losses) == set(expected["losses"])
    for name, value in expected["losses"].items():
        assert ours.losses[name].item() == pytest.approx(value, abs=1e-5), name
    weights = {"umr": 3, "cmr": 1, "mim": 2, "mde": 0.5}
    total = sum(weights[name[:3]] * value for name, value in expected["losses"].items())
    assert ours.loss.item() == pytest.approx(total, abs=1e-4)
    for sensor in images:
        assert torch.equal(ours.masks[sensor], expected["masks"][sensor])
        torch.testing.assert_close(ours.embeds[sensor].double(), expected["embeds"][sensor], rtol=0, atol=1e-5)
    for (source, target), prediction in expected["predictions"].items():
        torch.testing.assert_close(ours.predictions[source][target].double(), prediction, rtol=0, atol=1e-5)


@pytest.mark.parametrize("overrides", [{"norm_pixel_loss": True}, {"pooling": "token"}, {"mask_ratio": 0.9}], ids=str)
def test_options_equal_the_plain_four_passes(overrides: dict[str, Any]) -> None:
    config = small_config(**overrides, mde_weight=1)
    model = build(CSMAEForPreTraining, config)
    images, noise = draw_images(config, batch=2), draw_noise(config, batch=2)
    with torch.no_grad():
        ours = model(**images, noise=noise)
        expected = Reference(model).run(images, noise)
    for name, value in expected["losses"].items():
        assert ours.losses[name].item() == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_encoder_alone_equals_the_plain_form_with_nothing_masked(variant: str) -> None:
    config = small_config(variant)
    model = build(CSMAEForPreTraining, config)
    images, reference = draw_images(config, batch=2), Reference(model)
    everything = list(range(config.num_patches))
    with torch.no_grad():
        ours = model.csmae(**images)
    for sensor, image in images.items():
        expected = torch.stack([reference.encode(sensor, one, everything) for one in image])
        torch.testing.assert_close(ours.last_hidden_state[sensor].double(), expected, rtol=0, atol=1e-5)
        pooled = torch.stack([reference.embed(tokens) for tokens in expected])
        torch.testing.assert_close(ours.embeds[sensor].double(), pooled, rtol=0, atol=1e-5)


# Size and initialisation


@pytest.mark.parametrize(
    ("variant", "everything", "trainable"),
    [("cecd", 114.22, 114.13), ("cesd", 139.86, 139.75), ("secd", 185.10, 185.02), ("sesd", 210.75, 210.63)],
)
def test_parameter_counts_of_vit_base_are_the_original_ones(variant: str, everything: float, trainable: float) -> None:
    with torch.device("meta"):
        model = CSMAEForPreTraining(CSMAEConfig.for_variant(variant))
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    positions = sum(buffer.numel() for buffer in model.buffers())  # the original counts its frozen positions
    assert round(parameters / 1e6, 2) == trainable
    assert round((parameters + positions) / 1e6, 2) == everything


def test_weights_start_as_the_original_ones() -> None:
    torch.manual_seed(0)
    model = CSMAEForPreTraining(small_config(hidden_size=64))
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            kernel = module.weight.flatten(1)
            bound = math.sqrt(6 / sum(kernel.shape))
            assert 0.9 * bound < kernel.abs().max() <= bound, name
            assert kernel.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name
            assert module.bias is not None
            assert not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all(), name
            assert not module.bias.any(), name
    tokens = [value for name, value in model.named_parameters() if name.endswith("_token")]
    assert len(tokens) == 4, "a CLS token a sensor, a mask token a decoder"
    assert torch.cat([token.flatten() for token in tokens]).std().item() == pytest.approx(0.02, rel=0.25)


# What it costs


def count_calls(model: nn.Module, call: Callable[[], Any]) -> dict[str, int]:
    """How often each submodule runs during a call."""
    calls = {name: 0 for name, _ in model.named_modules()}

    def counter(name: str) -> Callable[..., None]:
        def count(*_: Any) -> None:
            calls[name] += 1

        return count

    handles = [module.register_forward_hook(counter(name)) for name, module in model.named_modules()]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def flops(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("variant", ["cecd", "sesd"])
def test_s1_alone_costs_no_s2_compute(variant: str) -> None:
    config = small_config(variant)
    model, images = build(CSMAEModel, config), draw_images(config)
    with torch.no_grad():
        calls = count_calls(model, lambda: model(s1=images["s1"]))
        alone = {sensor: flops(partial(model, **{sensor: image})) for sensor, image in images.items()}
        joint = flops(lambda: model(**images))
    assert not any(count for name, count in calls.items() if ".s2" in name)
    assert calls["embeddings.s1"] == 1
    assert 0 < alone["s1"] < alone["s2"], "s2 has more bands"
    assert joint == alone["s1"] + alone["s2"]


def test_shared_encoder_runs_all_sensors_as_one_batch() -> None:
    config = small_config("cesd", sensors=THREE_SENSORS)
    model = build(CSMAEModel, config)
    calls = count_calls(model, lambda: model(**draw_images(config)))
    assert calls["cross_sensor_encoder"] == 1
    assert calls["cross_sensor_encoder.layers.0"] == 1


@pytest.mark.parametrize(
    ("variant", "masking", "expected"),
    [
        ("secd", "random", {"decoders.common": 1}),
        ("sesd", "random", {"decoders.s1": 1, "decoders.s2": 1}),
        ("secd", "disjoint", {"decoders.common": 2}),  # two lengths of tokens are two batches
    ],
)
def test_decoder_runs_once_for_each_distinct_input(variant: str, masking: str, expected: dict[str, int]) -> None:
    config = small_config(variant, masking=masking)
    model = build(CSMAEForPreTraining, config)
    calls = count_calls(model, lambda: model(**draw_images(config)))
    assert {name: calls[name] for name, module in model.named_modules() if isinstance(module, CSMAEDecoder)} == expected


def test_terms_of_weight_zero_are_neither_computed_nor_reported() -> None:
    config = small_config(cmr_weight=0, mim_weight=0)
    model = build(CSMAEForPreTraining, config)
    output = model(**draw_images(config))
    assert set(output.losses) == {"umr_s1", "umr_s2"}
    assert {source: list(by_target) for source, by_target in output.predictions.items()} == {"s1": ["s1"], "s2": ["s2"]}
    only_mim = build(CSMAEForPreTraining, small_config(umr_weight=0, cmr_weight=0))
    calls = count_calls(only_mim, lambda: only_mim(**draw_images(config)))
    assert calls["decoders.s1"] == calls["decoders.s2"] == 0


def test_training_predicts_only_the_counted_patches_and_loses_the_same() -> None:
    config = small_config(masking="disjoint", cmr_target="target")
    model = build(CSMAEForPreTraining, config)
    images, noise = draw_images(config), draw_noise(config)
    evaluated = model(**images, noise=noise)
    trained = model.train()(**images, noise=noise)
    assert trained.predictions is None
    assert trained.losses.keys() == evaluated.losses.keys()
    for name, value in evaluated.losses.items():
        torch.testing.assert_close(trained.losses[name], value, rtol=0, atol=1e-6)
    asked = model(**images, noise=noise, output_predictions=True)
    for source, target in itertools.product(images, images):
        torch.testing.assert_close(asked.predictions[source][target], evaluated.predictions[source][target])


# Embeds


def test_embeds_are_deterministic_and_draw_nothing_from_the_generator() -> None:
    config = small_config()
    model, images = build(CSMAEModel, config), draw_images(config)
    before = torch.get_rng_state()
    first, second = model(**images), model(**images)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(first.embeds) == ["s1", "s2"]
    for sensor in images:
        assert first.embeds[sensor].shape == (3, 32)
        assert first.last_hidden_state[sensor].shape == (3, 1 + 36, 32)
        assert torch.equal(first.embeds[sensor], second.embeds[sensor])


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_embeds_do_not_depend_on_the_settings_of_masking(variant: str) -> None:
    model = build(CSMAEModel, small_config(variant))
    images = draw_images(model.config)
    for masking, ratio, target in [("disjoint", 0.75, "target"), ("identical", 0.1, "source")]:
        other = CSMAEModel(small_config(variant, masking=masking, mask_ratio=ratio, cmr_target=target)).eval()
        other.load_state_dict(model.state_dict())
        for sensor, embeds in model(**images).embeds.items():
            assert torch.equal(other(**images).embeds[sensor], embeds)
    for sensor, embeds in model(**images).embeds.items():
        assert torch.equal(model.train()(**images).embeds[sensor], embeds), "training mode masks nothing either"


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_embeds_of_a_sensor_are_the_same_alone_and_together(variant: str) -> None:
    model = build(CSMAEModel, small_config(variant))
    images = draw_images(model.config)
    joint = model(**images).embeds
    for sensor, image in images.items():
        alone = model(**{sensor: image}).embeds
        assert list(alone) == [sensor]
        torch.testing.assert_close(alone[sensor], joint[sensor], rtol=0, atol=1e-6)


def test_sensors_need_not_have_equally_many_images_to_be_embedded() -> None:
    model = build(CSMAEModel, small_config())
    images = draw_images(model.config)
    embeds = model(s1=images["s1"], s2=images["s2"][:1]).embeds
    torch.testing.assert_close(embeds["s1"], model(s1=images["s1"]).embeds["s1"], rtol=0, atol=1e-6)
    torch.testing.assert_close(embeds["s2"], model(s2=images["s2"][:1]).embeds["s2"], rtol=0, atol=1e-6)


def test_visible_patches_may_name_some_sensors_only() -> None:
    model = build(CSMAEModel, small_config())
    images = draw_images(model.config)
    visible = torch.arange(10).repeat(3, 1)
    output = model(**images, visible_patches={"s1": visible})
    assert output.last_hidden_state["s1"].shape[1] == 1 + 10
    torch.testing.assert_close(output.embeds["s2"], model(s2=images["s2"]).embeds["s2"], rtol=0, atol=1e-6)


def test_outputs_come_as_a_tuple_on_request() -> None:
    model = build(CSMAEModel, small_config())
    images = draw_images(model.config)
    embeds, tokens = model(**images, return_dict=False)
    assert torch.equal(embeds["s1"], model(**images).embeds["s1"])
    assert tokens["s2"].shape == (3, 37, 32)


# Masks of pre-training


def test_evaluation_loss_is_deterministic_and_draws_nothing_from_the_generator() -> None:
    model = build(CSMAEForPreTraining, small_config())
    images, before = draw_images(model.config), torch.get_rng_state()
    first, second = model(**images), model(**images)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.loss.item() == second.loss.item()
    assert not torch.equal(first.masks["s1"], first.masks["s2"]), "random: sensors are masked apart"
    assert torch.equal(first.masks["s1"][0], first.masks["s1"][1]), "images are masked alike"


def test_training_masks_vary_and_follow_the_seed() -> None:
    model = build(CSMAEForPreTraining, small_config()).train()
    images = draw_images(model.config)
    torch.manual_seed(5)
    first, second = model(**images), model(**images)
    torch.manual_seed(5)
    again = model(**images)
    assert not torch.equal(first.masks["s1"], second.masks["s1"])
    assert torch.equal(first.masks["s1"], again.masks["s1"])
    assert first.loss.item() == again.loss.item()


@pytest.mark.parametrize("masking", MASKINGS)
def test_one_sensor_alone_pretrains(masking: str) -> None:
    model = build(CSMAEForPreTraining, small_config(masking=masking))
    images, noise = draw_images(model.config), draw_noise(model.config)
    joint = model(**images, noise=noise)
    alone = model(s1=images["s1"], noise=noise)
    assert set(alone.losses) == {"umr_s1"}
    torch.testing.assert_close(alone.loss, joint.losses["umr_s1"], rtol=0, atol=1e-6)


def test_a_single_place_has_a_finite_loss_and_gradient() -> None:
    model = build(CSMAEForPreTraining, small_config(mde_weight=1)).train()
    output = model(**draw_images(model.config, batch=1))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


# Refusals

MODEL_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({}, r"No images were given: pass at least one sensor by its name, this model has s1 \(VH, VV\), s2"),
    ({"s3": torch.zeros(2, 2, 30, 30)}, "Unknown sensor 's3': this model has s1"),
    (
        {"s1": torch.zeros(2, 3, 30, 30)},
        r"s1 has shape \(2, 3, 30, 30\): expected \(batch, 2, 30, 30\) with the bands VH, VV",
    ),
    ({"s1": torch.zeros(2, 30, 30)}, r"s1 has shape \(2, 30, 30\): expected"),
    (
        {"s1": torch.zeros(2, 2, 60, 30)},
        "s1 is 60 x 30 pixels: this model expects 30 x 30. Resize it, or pass interpolate",
    ),
    (
        {"s1": torch.zeros(2, 2, 33, 30), "interpolate_pos_encoding": True},
        "s1 is 33 x 30 pixels: both must be multiples of the patch size 5",
    ),
    (
        {
            "s1": torch.zeros(2, 2, 60, 30),
            "s2": torch.zeros(2, 3, 30, 30),
            "interpolate_pos_encoding": True,
        },
        r"The sensors differ in size, \{'s1': \(60, 30\), 's2': \(30, 30\)\}",
    ),
    (
        {"s1": torch.zeros(2, 2, 30, 30, dtype=torch.int16)},
        "s1 is torch.int16: expected a float tensor of standardised",
    ),
    ({"s1": np.zeros((2, 2, 30, 30), np.float32)}, "s1 is ndarray: expected a float tensor"),
]


@pytest.mark.parametrize(("inputs", "message"), MODEL_REFUSALS, ids=[message[:40] for _, message in MODEL_REFUSALS])
@pytest.mark.parametrize("model_class", [CSMAEModel, CSMAEForPreTraining])
def test_wrong_images_are_refused_with_what_the_model_expects(
    model_class: type[nn.Module], inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(model_class, small_config())(**inputs)


def test_pretraining_refuses_batches_of_different_places() -> None:
    model = build(CSMAEForPreTraining, small_config())
    images = draw_images(model.config)
    with pytest.raises(ValueError, match=r"batches have the lengths \{'s1': 3, 's2': 2\}"):
        model(s1=images["s1"], s2=images["s2"][:2])


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"s1": torch.rand(3, 36)}, r"noise has the shapes .*'s2': None.*: expected \(3, 36\) \(batch, patches\)"),
        ({"s1": torch.rand(3, 36), "s2": torch.rand(3, 64)}, r"\(3, 64\)"),
        ({"s1": torch.rand(2, 36), "s2": torch.rand(2, 36)}, r"\(2, 36\)"),
    ],
    ids=["missing sensor", "another grid", "another batch"],
)
def test_noise_of_another_shape_is_refused(noise: dict[str, torch.Tensor], message: str) -> None:
    model = build(CSMAEForPreTraining, small_config())
    with pytest.raises(ValueError, match=message):
        model(**draw_images(model.config), noise=noise)


def test_no_term_left_for_the_given_sensors_is_refused() -> None:
    model = build(CSMAEForPreTraining, small_config(umr_weight=0))
    with pytest.raises(ValueError, match="Nothing to train on: with s1 alone and umr_weight = 0"):
        model(s1=draw_images(model.config)["s1"])


@pytest.mark.parametrize(("size", "mask_ratio"), [((10, 5), 0.75), ((5, 5), 0.1)], ids=["none visible", "none hidden"])
def test_a_grid_too_small_for_the_ratio_is_refused_and_gives_no_number(
    size: tuple[int, int], mask_ratio: float
) -> None:
    model = build(CSMAEForPreTraining, small_config(mask_ratio=mask_ratio))
    images = {"s1": torch.zeros(1, 2, *size), "s2": torch.zeros(1, 3, *size)}
    with pytest.raises(ValueError, match="mask_ratio"):
        model(**images, interpolate_pos_encoding=True)


# Any set of sensors


@pytest.mark.parametrize("decoder", ["c", "s"])
@pytest.mark.parametrize("masking", MASKINGS)
def test_three_sensors_train_through_the_same_code(masking: str, decoder: str) -> None:
    config = small_config(f"se{decoder}d", sensors=THREE_SENSORS, masking=masking, mask_ratio=0.5)
    torch.manual_seed(0)
    model = CSMAEForPreTraining(config).train()
    images = draw_images(config, batch=4)
    pairs = itertools.permutations(THREE_SENSORS, 2)
    first = model(**images)
    assert set(first.losses) == {
        *(f"umr_{sensor}" for sensor in THREE_SENSORS),
        *(f"cmr_{source}_{target}" for source, target in pairs),
        "mim",
    }
    terms = [nt_xent_loss(first.embeds[a], first.embeds[b], 0.5) for a, b in itertools.combinations(THREE_SENSORS, 2)]
    torch.testing.assert_close(first.losses["mim"], sum(terms) / 3)
    losses = overfit(model, images, steps=15)
    assert losses[-1] < losses[0]
    some = model(s1=images["s1"], thermal=images["thermal"])
    assert set(some.losses) == {"umr_s1", "umr_thermal", "cmr_s1_thermal", "cmr_thermal_s1", "mim"}


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_gradients_reach_all_parameters(variant: str, masking: str) -> None:
    model = build(CSMAEForPreTraining, small_config(variant, masking=masking)).train()
    model(**draw_images(model.config)).loss.backward()
    unreached = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert unreached == []


# Saving and loading


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Any, Path]:
    """A pre-training model and the folder it was saved to."""
    model = build(CSMAEForPreTraining, small_config())
    model.save_pretrained(tmp_path)
    return model, tmp_path


def positions_of(model: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each position table and what it must be."""
    for module in model.modules():
        if isinstance(module, CSMAEPositionEmbeddings):
            yield module.table, sincos_positions(module.grid, module.hidden_size)


def test_encoder_loads_from_a_pretraining_checkpoint_with_nothing_to_report(
    saved: tuple[Any, Path], caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = saved
    loaded, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(loaded) is CSMAEModel
    assert not any(report.values()), report
    assert "decoders" not in caplog.text
    images = draw_images(model.config)
    for sensor, embeds in model.csmae(**images).embeds.items():
        assert torch.equal(loaded.eval()(**images).embeds[sensor], embeds)
    assert all(torch.equal(table, expected) for table, expected in positions_of(loaded))


def test_pretraining_model_comes_back_bit_by_bit(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    loaded, report = AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert type(loaded) is CSMAEForPreTraining
    assert not any(report.values()), report
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    tables = list(positions_of(loaded))
    assert len(tables) == 3, "encoder and two decoders"
    assert all(torch.equal(table, expected) for table, expected in tables)
    images = draw_images(model.config)
    assert loaded.eval()(**images).loss.item() == model(**images).loss.item()


def test_positions_are_computed_and_never_saved(saved: tuple[Any, Path]) -> None:
    _, folder = saved
    weights = safetensors_torch.load_file(folder / "model.safetensors")
    assert not [name for name in weights if "position" in name]


def test_missing_weights_are_reported_and_initialised(saved: tuple[Any, Path]) -> None:
    model, folder = saved
    weights = safetensors_torch.load_file(folder / "model.safetensors")
    dropped = {"csmae.embeddings.s1.cls_token", "csmae.embeddings.s2.projection.weight", "decoders.s1.mask_token"}
    kept = {name: value for name, value in weights.items() if name not in dropped}
    safetensors_torch.save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    loaded, report = AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert set(report["missing_keys"]) == dropped
    parameters = dict(loaded.named_parameters())
    assert parameters["csmae.embeddings.s1.cls_token"].std().item() == pytest.approx(0.02, rel=0.5)
    kernel = parameters["csmae.embeddings.s2.projection.weight"].flatten(1)
    bound = math.sqrt(6 / sum(kernel.shape))
    assert 0.9 * bound < kernel.abs().max() <= bound
    assert torch.equal(parameters["decoders.s2.mask_token"], model.decoders["s2"].mask_token)
    assert all(torch.equal(table, expected) for table, expected in positions_of(loaded))


# In Transformers


@pytest.mark.parametrize("variant", ["cecd", "sesd"])
def test_hidden_states_and_attentions_come_by_sensor(variant: str) -> None:
    model = build(CSMAEModel, small_config(variant))
    model.set_attn_implementation("eager")
    images = draw_images(model.config)
    output = model(**images, output_hidden_states=True, output_attentions=True)
    for sensor, image in images.items():
        alone = model(**{sensor: image}, output_hidden_states=True, output_attentions=True)
        states, attentions = output.hidden_states[sensor], output.attentions[sensor]
        assert [state.shape for state in states] == [(3, 37, 32)] * 3
        assert [weights.shape for weights in attentions] == [(3, 2, 37, 37)] * 2
        for joint_value, alone_value in zip(
            (*states, *attentions), (*alone.hidden_states[sensor], *alone.attentions[sensor]), strict=True
        ):
            torch.testing.assert_close(joint_value, alone_value, rtol=0, atol=1e-6)
        torch.testing.assert_close(attentions[0].sum(-1), torch.ones(3, 2, 37))
        last = model.cross_sensor_encoder.layernorm(states[-1])
        torch.testing.assert_close(last, output.last_hidden_state[sensor])
    plain = model(**images)
    assert plain.hidden_states is None
    assert plain.attentions is None


def test_pretraining_passes_hidden_states_of_the_visible_patches_on() -> None:
    model = build(CSMAEForPreTraining, small_config(masking="disjoint"))
    model.set_attn_implementation("eager")
    output = model(**draw_images(model.config), output_hidden_states=True, output_attentions=True)
    assert output.hidden_states["s1"][0].shape == (3, 1 + 21, 32)
    assert output.attentions["s2"][1].shape == (3, 2, 1 + 15, 1 + 15)


def test_eager_and_sdpa_attention_give_the_same() -> None:
    model = build(CSMAEForPreTraining, small_config())
    images = draw_images(model.config)
    results = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        assert model.csmae.cross_sensor_encoder.layers[0].attention.config._attn_implementation == implementation
        assert model.decoders["s1"].layers[0].attention.config._attn_implementation == implementation
        results[implementation] = model(**images)
    torch.testing.assert_close(results["eager"].loss, results["sdpa"].loss, rtol=0, atol=1e-5)
    for sensor in images:
        torch.testing.assert_close(results["eager"].embeds[sensor], results["sdpa"].embeds[sensor], rtol=0, atol=1e-5)


def train_step(model: CSMAEForPreTraining, images: Mapping[str, Any], noise: Mapping[str, torch.Tensor]) -> None:
    """Forward and backward."""
    model(**images, noise=noise).loss.backward()


def test_gradient_checkpointing_changes_no_number() -> None:
    images, gradients, losses = draw_images(small_config()), [], []
    noise = draw_noise(small_config())
    for checkpointing in (False, True):
        model = build(CSMAEForPreTraining, small_config()).train()
        if checkpointing:
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        step = partial(train_step, model, images, noise)
        calls = count_calls(model, step)
        assert calls["csmae.cross_sensor_encoder.layers.0.attention"] == (2 if checkpointing else 1), (
            "recomputed in backward"
        )
        losses.append(model(**images, noise=noise).loss.item())
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert losses[0] == losses[1]
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=0, atol=1e-7)


def test_other_sizes_are_embedded_with_interpolated_positions() -> None:
    sensors = {"s1": ["VH", "VV"]}
    model = build(CSMAEModel, small_config(sensors=sensors, image_size=120, patch_size=15))
    image = torch.randn(2, 2, 240, 120)
    output = model(s1=image, interpolate_pos_encoding=True, output_hidden_states=True)
    assert output.last_hidden_state["s1"].shape == (2, 1 + 16 * 8, 32)
    rows = [(row + 0.5) / 2 - 0.5 for row in range(16)]
    positions = torch.tensor([plain_position(row, column, 32) for row in rows for column in range(8)])
    patches = model.embeddings["s1"].projection(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(output.hidden_states["s1"][0][:, 1:], patches + positions, rtol=0, atol=1e-5)
    square = image[:, :, :120]
    assert torch.equal(model(s1=square, interpolate_pos_encoding=True).embeds["s1"], model(s1=square).embeds["s1"])


def test_pretraining_takes_other_sizes_too() -> None:
    model = build(CSMAEForPreTraining, small_config())
    images = {"s1": torch.randn(2, 2, 30, 60), "s2": torch.randn(2, 3, 30, 60)}
    output = model(**images, interpolate_pos_encoding=True)
    assert torch.isfinite(output.loss)
    assert output.predictions["s1"]["s2"].shape == (2, 72, 75)


def test_half_precision_embeds_are_close_and_losses_stay_float32() -> None:
    model = build(CSMAEForPreTraining, small_config())
    images = draw_images(model.config)
    expected = model(**images)
    output = model.to(torch.bfloat16)(**images)
    assert output.embeds["s1"].dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(expected.loss.item(), rel=0.05)
    similarity = torch.cosine_similarity(output.embeds["s1"].float(), expected.embeds["s1"])
    assert similarity.min() > 0.99


# Learning


def overfit(model: CSMAEForPreTraining, images: dict[str, torch.Tensor], steps: int, lr: float = 3e-3) -> list[float]:
    """Losses of training on the same images again and again, under ever new masks."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95))
    losses = []
    for _ in range(steps):
        loss = model(**images).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def real_images(shared_data: Path) -> dict[str, torch.Tensor]:
    """Eight pairs of the shared v2 store, processed."""
    tiles = load_bigearthnet(shared_data / "bigearthnet_v2_reben_lmdb")[:8]
    return dict(CSMAEImageProcessor()(s1=tiles["s1"], s2=tiles["s2"], return_tensors="pt"))


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_loss_of_every_variant_falls_when_overfitting_8_real_tiles(
    variant: str, real_images: dict[str, torch.Tensor]
) -> None:
    config = small_config(
        variant, sensors=CSMAEConfig().sensors, image_size=120, patch_size=15, mask_ratio=0.5, hidden_size=64
    )
    torch.manual_seed(0)
    model = CSMAEForPreTraining(config)
    assert real_images["s2"].shape == (8, 10, 120, 120)
    with torch.no_grad():
        before = model.eval()(**real_images)
    overfit(model.train(), real_images, steps=60)
    with torch.no_grad():
        after = model.eval()(**real_images)
    assert after.loss.item() < 0.65 * before.loss.item()
    for name, value in before.losses.items():
        assert after.losses[name].item() < value.item(), f"{name} does not fall"
