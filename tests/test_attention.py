"""Attention: every back end gives the same numbers, reaches every layer, and says what it did sensor by sensor."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.utils import is_torch_flex_attn_available

from configuration_csmae import CSMAEConfig
from modeling_csmae import CSMAEAttention, CSMAEForPreTraining, CSMAEModel

BATCH, LAYERS, HEADS, TOKENS = 3, 2, 4, 17
SIZES = {
    "image_size": 12,
    "patch_size": 3,
    "hidden_size": 64,
    "num_attention_heads": HEADS,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}


def tiny_config(own_depth: int = 1, **overrides: Any) -> CSMAEConfig:
    depths = {"multi_sensor_encoder_depth": own_depth, "cross_sensor_encoder_depth": LAYERS - own_depth}
    return CSMAEConfig(**SIZES, **depths, **overrides)


@pytest.fixture
def images() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "s1": torch.randn(BATCH, 2, 12, 12, generator=generator),
        "s2": torch.randn(BATCH, 10, 12, 12, generator=generator),
    }


@pytest.fixture
def model() -> CSMAEForPreTraining:
    """In evaluation, where the masks are the same at every call."""
    torch.manual_seed(0)
    return CSMAEForPreTraining(tiny_config()).eval()


def with_attention(model: CSMAEForPreTraining, implementation: str) -> CSMAEForPreTraining:
    other = copy.deepcopy(model)
    other.set_attn_implementation(implementation)
    return other


def outcome(model: CSMAEForPreTraining, images: dict[str, torch.Tensor]) -> dict[str, Any]:
    with torch.no_grad():
        output = model(**images)
    return {"loss": output.loss, "losses": output.losses, "embeds": output.embeds, "predictions": output.predictions}


def test_sdpa_is_the_default(model: CSMAEForPreTraining) -> None:
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("dtype", "atol", "rtol"),
    [(torch.float32, 1e-6, 1e-6), (torch.float16, 5e-3, 5e-3), (torch.bfloat16, 1e-2, 1e-2)],
    ids=["fp32", "fp16", "bf16"],
)
def test_eager_equals_sdpa(model, images, dtype: torch.dtype, atol: float, rtol: float) -> None:
    model = model.to(dtype)
    eager, sdpa = (outcome(with_attention(model, name), images) for name in ("eager", "sdpa"))
    largest = max(values.abs().max().item() for values in eager["embeds"].values())
    torch.testing.assert_close(eager, sdpa, atol=atol * largest, rtol=rtol)


def test_gradients_of_eager_equal_those_of_sdpa(model, images) -> None:
    gradients = []
    for name in ("eager", "sdpa"):
        other = with_attention(model, name)
        other(**images).loss.backward()
        gradients.append({key: parameter.grad for key, parameter in other.named_parameters()})
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@pytest.mark.slow  # compiles a kernel
@pytest.mark.skipif(not is_torch_flex_attn_available(), reason="this torch has no flex attention")
def test_eager_equals_flex_attention(model, images) -> None:
    eager, flex = (outcome(with_attention(model, name), images) for name in ("eager", "flex_attention"))
    torch.testing.assert_close(eager, flex, atol=1e-5, rtol=1e-5)


@pytest.fixture
def spied_modules() -> Iterator[list[nn.Module]]:
    """The modules that called the attention implementation `csmae_spy`, which is sdpa."""
    callers: list[nn.Module] = []

    def spy(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        callers.append(module)
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("csmae_spy", spy)
    yield callers
    del AttentionInterface._global_mapping["csmae_spy"]


@pytest.mark.parametrize("own_depth", [0, 1, 2])
def test_a_change_of_implementation_reaches_every_layer_of_encoder_and_decoder(
    images, spied_modules, own_depth
) -> None:
    model = CSMAEForPreTraining(tiny_config(own_depth)).eval()
    model.set_attn_implementation("csmae_spy")
    model(**images)
    layers = {name for name, module in model.named_modules() if isinstance(module, CSMAEAttention)}
    called = {name for name, module in model.named_modules() if any(module is caller for caller in spied_modules)}
    assert called == layers
    assert {name.split(".")[0] for name in called} == {"csmae", "decoders"}
    spied_modules.clear()
    model.set_attn_implementation("sdpa")
    model(**images)
    assert spied_modules == []


def test_the_implementation_asked_for_at_load_is_used(model, images, tmp_path, spied_modules) -> None:
    model.save_pretrained(tmp_path)
    loaded = CSMAEForPreTraining.from_pretrained(tmp_path, attn_implementation="csmae_spy").eval()
    torch.testing.assert_close(outcome(loaded, images), outcome(model, images), atol=1e-6, rtol=1e-6)
    assert spied_modules


def test_an_unknown_implementation_is_refused(model) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        model.set_attn_implementation("nonsense")


# What the layers did, by sensor


def attention_weights(layer: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """What a block's attention weights must be, from its weights and the tokens it was given."""
    weight, bias = layer.attention.qkv.weight, layer.attention.qkv.bias
    query, key, _ = (layer.norm1(hidden) @ weight.T + bias).chunk(3, dim=-1)
    weights = torch.empty(hidden.shape[0], HEADS, hidden.shape[1], hidden.shape[1])
    width = query.shape[-1] // HEADS
    for head in range(HEADS):
        columns = slice(head * width, (head + 1) * width)
        scores = query[..., columns] @ key[..., columns].transpose(1, 2) / width**0.5
        weights[:, head] = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
    return weights


def blocks_of(model: CSMAEModel, sensor: str) -> list[tuple[nn.Module, nn.Module]]:
    """A sensor's blocks, each with what its input passes after the block before."""
    own = model.multi_sensor_encoders[sensor] if len(model.multi_sensor_encoders) else None
    blocks = [(nn.Identity(), layer) for layer in own.layers] if own is not None else []
    shared = list(model.cross_sensor_encoder.layers)
    between = own.layernorm if own is not None else nn.Identity()
    return [*blocks, *((nn.Identity() if i else between, layer) for i, layer in enumerate(shared))]


@pytest.mark.parametrize("own_depth", [0, 1, 2])
def test_hidden_states_and_attentions_are_each_sensors_own(images, own_depth: int) -> None:
    torch.manual_seed(0)
    model = CSMAEModel._from_config(tiny_config(own_depth), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():  # else a LayerNorm changes nothing on what another one normalised
            parameter.add_(0.1 * torch.randn_like(parameter))
        output = model(**images, output_hidden_states=True, output_attentions=True)
        for sensor in ("s1", "s2"):
            states, attentions = output.hidden_states[sensor], output.attentions[sensor]
            assert (len(states), len(attentions)) == (LAYERS + 1, LAYERS)
            for i, (before, block) in enumerate(blocks_of(model, sensor)):
                entering = before(states[i])
                torch.testing.assert_close(attentions[i], attention_weights(block, entering), atol=1e-6, rtol=1e-4)
                torch.testing.assert_close(states[i + 1], block(entering)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("own_depth", [0, 1])
def test_a_sensor_alone_gives_the_hidden_states_it_gives_in_company(images, own_depth: int) -> None:
    model = CSMAEModel._from_config(tiny_config(own_depth), attn_implementation="eager").eval()
    wanted = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        both, alone = model(**images, **wanted), model(s2=images["s2"], **wanted)
    assert list(alone.hidden_states) == list(alone.attentions) == ["s2"]
    torch.testing.assert_close(alone.hidden_states["s2"], both.hidden_states["s2"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.attentions["s2"], both.attentions["s2"], atol=1e-5, rtol=1e-5)


def test_pre_training_gives_them_for_the_visible_patches(images) -> None:
    model = CSMAEForPreTraining._from_config(tiny_config(mask_ratio=0.75), attn_implementation="eager")
    output = model(**images, output_hidden_states=True, output_attentions=True)
    assert {states[-1].shape for states in output.hidden_states.values()} == {(BATCH, 1 + 4, 64)}
    assert {weights[-1].shape for weights in output.attentions.values()} == {(BATCH, HEADS, 1 + 4, 1 + 4)}


def test_nothing_is_collected_unless_asked(model, images) -> None:
    output = model(**images)
    assert output.hidden_states is None
    assert output.attentions is None


@pytest.mark.parametrize("implementation", ["sdpa", "csmae_spy"])
def test_attentions_are_given_whatever_the_implementation(images, model, spied_modules, implementation: str) -> None:
    eager = with_attention(model, "eager").csmae(**images, output_hidden_states=True, output_attentions=True)
    model.set_attn_implementation(implementation)
    output = model.csmae(**images, output_hidden_states=True, output_attentions=True)
    assert {len(weights) for weights in output.attentions.values()} == {LAYERS}
    torch.testing.assert_close(output.attentions, eager.attentions, atol=0, rtol=0)
    torch.testing.assert_close(output.hidden_states, eager.hidden_states, atol=0, rtol=0)
    assert not spied_modules
