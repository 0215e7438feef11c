"""The linear layer on a CPU in float32: another library, the same numbers and gradients, and only where it may be used."""

import pytest
import torch
import torch.nn.functional as F

from modeling_csmae import CSMAELinear, _onednn_agrees, _OneDNNLinear, _suits_onednn

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="oneDNN is used on AVX-512 CPUs only"
)


@pytest.fixture(scope="module")
def layer() -> CSMAELinear:
    torch.manual_seed(0)
    return CSMAELinear(384, 256)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randn(4, 65, 384, generator=torch.Generator().manual_seed(1))


def gradients(output: torch.Tensor, *wanted: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(output.sin().sum(), wanted)


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * other.abs().max().item())


def test_the_layer_and_its_gradients_equal_the_plain_one(layer, tokens) -> None:
    inputs = tokens.clone().requires_grad_()
    output, plain = layer(inputs), F.linear(inputs, layer.weight, layer.bias)
    assert type(output.grad_fn).__name__ == "_OneDNNLinearBackward"
    assert_same(output, plain)
    wanted = (inputs, layer.weight, layer.bias)
    for one, other in zip(gradients(output, *wanted), gradients(plain, *wanted), strict=True):
        assert (one.shape, one.stride(), one.layout) == (other.shape, other.stride(), torch.strided)
        assert_same(one, other)


def test_the_gradient_of_a_gradient_equals_the_plain_one(layer, tokens) -> None:
    inputs = tokens.clone().requires_grad_()
    norms = []
    for output in (layer(inputs), F.linear(inputs, layer.weight, layer.bias)):
        (slope,) = torch.autograd.grad(output.sin().sum(), inputs, create_graph=True)
        norms.append(torch.autograd.grad(slope.square().sum(), layer.weight)[0])
    assert_same(*norms)


def test_a_frozen_weight_gets_no_gradient_and_a_layer_without_bias_works(tokens) -> None:
    torch.manual_seed(0)
    layer = CSMAELinear(384, 256, bias=False).requires_grad_(False)
    inputs = tokens.clone().requires_grad_()
    layer(inputs).sum().backward()
    assert_same(inputs.grad, layer.weight.sum(dim=0).expand_as(inputs))
    assert layer.weight.grad is None


@pytest.mark.parametrize("enabled", [True, False])
def test_switching_onednn_off_in_torch_switches_it_off_here(layer, tokens, enabled: bool) -> None:
    with torch.backends.mkldnn.flags(enabled=enabled):
        assert _suits_onednn(tokens, layer.weight) == enabled


def test_what_it_cannot_do_goes_the_plain_way(layer, tokens) -> None:
    assert _suits_onednn(tokens, layer.weight)
    assert not _suits_onednn(tokens[:1, :1], layer.weight), "too small to gain anything"
    assert not _suits_onednn(tokens.bfloat16(), layer.weight)
    assert not _suits_onednn(tokens.to("meta"), layer.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not _suits_onednn(tokens, layer.weight)
        assert layer(tokens).dtype == torch.bfloat16
    per_image = torch.func.vmap(layer)(tokens)
    assert_same(per_image, F.linear(tokens, layer.weight, layer.bias))


def test_a_torch_without_the_operators_goes_the_plain_way(layer, tokens, monkeypatch) -> None:
    def missing(*args: object) -> None:
        raise AttributeError("no such operator")

    expected = F.linear(tokens, layer.weight, layer.bias)
    monkeypatch.setattr(_OneDNNLinear, "apply", missing)
    _onednn_agrees.cache_clear()
    try:
        assert torch.equal(layer(tokens), expected)
    finally:
        monkeypatch.undo()
        _onednn_agrees.cache_clear()


def test_the_operators_are_tried_out_in_inference_mode_too() -> None:
    _onednn_agrees.cache_clear()
    with torch.inference_mode():
        assert _onednn_agrees()
