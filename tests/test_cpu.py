"""What makes a CPU faster: the same numbers and gradients, ordinary layers still, and nothing where nothing helps."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from tiny_models import build, draw_images, draw_noise, tiny_config
from torch import nn

from csmae_hf import cpu
from csmae_hf.cpu import keep_freed_memory, speed_up
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

avx512 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="oneDNN is used on AVX-512 CPUs only"
)


by_library = cpu.linear_by_onednn


@pytest.fixture
def helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU at which oneDNN is faster, and layers of any size that are worth it."""
    monkeypatch.setattr(cpu, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(cpu, "_LEAST_PRODUCTS", 1)


@pytest.fixture
def layer(helps: None) -> nn.Linear:
    torch.manual_seed(0)
    return speed_up(nn.Linear(384, 256))


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(4, 65, 384, generator=torch.Generator().manual_seed(1))


def by_onednn(output: torch.Tensor) -> bool:
    return type(output.grad_fn).__name__ == "_OneDNNLinearBackward"


def plain(layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    return F.linear(inputs, layer.weight, layer.bias)


def gradients(output: torch.Tensor, *wanted: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(output.sin().sum(), wanted)


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * other.abs().max().item())


@avx512
def test_a_layer_and_its_gradients_equal_the_plain_one(layer, tokens) -> None:
    inputs = tokens.clone().requires_grad_()
    output, expected = layer(inputs), plain(layer, inputs)
    assert by_onednn(output)
    assert_same(output, expected)
    wanted = (inputs, layer.weight, layer.bias)
    for one, other in zip(gradients(output, *wanted), gradients(expected, *wanted), strict=True):
        assert (one.shape, one.stride(), one.layout) == (other.shape, other.stride(), torch.strided)
        assert_same(one, other)


@avx512
def test_the_gradient_of_a_gradient_equals_the_plain_one(layer, tokens) -> None:
    inputs = tokens.clone().requires_grad_()
    norms = []
    for output in (layer(inputs), plain(layer, inputs)):
        (slope,) = torch.autograd.grad(output.sin().sum(), inputs, create_graph=True)
        norms.append(torch.autograd.grad(slope.square().sum(), layer.weight)[0])
    assert_same(*norms)


def test_a_frozen_weight_gets_no_gradient_and_a_layer_without_bias_works(helps, tokens) -> None:
    torch.manual_seed(0)
    layer = speed_up(nn.Linear(384, 256, bias=False).requires_grad_(False))
    inputs = tokens.clone().requires_grad_()
    layer(inputs).sum().backward()
    assert_same(inputs.grad, layer.weight.sum(dim=0).expand_as(inputs))
    assert layer.weight.grad is None


@avx512
def test_what_it_cannot_do_goes_the_plain_way(layer, tokens, monkeypatch) -> None:
    assert by_onednn(layer(tokens))
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(layer(tokens), plain(layer, tokens))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(tokens).dtype == torch.bfloat16
    assert layer.to("meta")(tokens.to("meta")).device.type == "meta"
    half = speed_up(nn.Linear(384, 256)).bfloat16()
    assert torch.equal(half(tokens.bfloat16()), plain(half, tokens.bfloat16()))
    other = speed_up(nn.Linear(384, 256))
    assert_same(torch.func.vmap(other)(tokens), plain(other, tokens))
    monkeypatch.setattr(cpu, "_LEAST_PRODUCTS", 2**24)
    assert not by_onednn(other(tokens[:1, :1])), "too small to gain anything"


def test_a_torch_without_the_operators_goes_the_plain_way(layer, tokens, monkeypatch) -> None:
    def missing(*args: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(cpu, "linear_by_onednn", missing)
    cpu.onednn_agrees.cache_clear()
    try:
        assert torch.equal(layer(tokens), plain(layer, tokens))
    finally:
        cpu.onednn_agrees.cache_clear()


@avx512
def test_the_operators_are_tried_out_in_inference_mode_too() -> None:
    cpu.onednn_agrees.cache_clear()
    with torch.inference_mode():
        assert cpu.onednn_agrees()


@avx512
def test_a_models_losses_and_gradients_are_those_of_the_plain_one(helps, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(cpu, "linear_by_onednn", lambda *args: calls.append(1) or by_library(*args))
    config = tiny_config(mde_weight=1.0)
    model = build(CSMAEForPreTraining, config).train()
    fast = speed_up(copy.deepcopy(model))
    batch = {**draw_images(config), "noise": draw_noise(config)}
    ours, theirs = fast(**batch), model(**batch)
    linear = sum(isinstance(module, nn.Linear) for module in fast.modules())
    assert linear == sum("forward" in vars(module) for module in fast.modules()) > 20
    assert len(calls) > linear, "layers of decoders are run for every source"
    torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.embeds, theirs.embeds, rtol=1e-5, atol=1e-5)
    for output in (ours, theirs):
        output.loss.backward()
    for one, other in zip(fast.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_fast_model_is_copied_pickled_saved_compiled_and_exported_as_the_plain_one(helps, tmp_path) -> None:
    config = tiny_config()
    model = build(CSMAEModel, config)
    images = draw_images(config)
    expected = model(**images).embeds
    keys = list(model.state_dict())
    speed_up(speed_up(model))
    assert list(model.state_dict()) == keys
    (tmp_path / "pickle").write_bytes(pickle.dumps(model))
    assert b"csmae_hf" not in (tmp_path / "pickle").read_bytes(), "it is read where the package is not installed"
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        others = {
            "copy": copy.deepcopy(model),
            "pickle": pickle.loads((tmp_path / "pickle").read_bytes()),
            "saved": CSMAEModel.from_pretrained(tmp_path),
            "compiled": torch.compile(model, backend="aot_eager", fullgraph=True),
            "exported": torch.export.export(model, (), images).module(),
        }
        for name, other in others.items():
            torch.testing.assert_close(other(**images).embeds, expected, rtol=1e-5, atol=1e-5, msg=name)
    replaced = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in replaced.parameters():
            parameter.zero_()
    assert not replaced(**images).embeds["s1"].any(), "a copy has its own weights"
    assert not any(isinstance(vars(module).get("forward"), cpu._OneDNNForward) for module in replaced.modules())
    speed_up(replaced)
    assert any(isinstance(vars(module).get("forward"), cpu._OneDNNForward) for module in replaced.modules())


@pytest.mark.parametrize("fast", [False, True])
def test_every_linear_layer_is_quantised_by_torchs_own_tool(helps, fast: bool) -> None:
    config = tiny_config()
    model = build(CSMAEForPreTraining, config)
    if fast:
        speed_up(model)
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    int8 = [
        name for name, module in quantised.named_modules() if isinstance(module, torch.ao.nn.quantized.dynamic.Linear)
    ]
    assert int8 == linear
    images = draw_images(config)
    with torch.no_grad():
        ours, full = quantised.csmae(**images).embeds, model.csmae(**images).embeds
    for sensor, embeds in full.items():
        assert 0.995 < F.cosine_similarity(ours[sensor], embeds).min() < 1


def test_another_tools_forward_is_left_alone(helps) -> None:
    layer = nn.Linear(4, 4)
    layer.forward = hooked = lambda inputs: inputs  # type: ignore[method-assign]
    assert speed_up(layer).forward is hooked


def test_nothing_is_touched_where_nothing_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "onednn_is_faster", lambda: False)
    model = build(CSMAEModel, tiny_config())
    assert speed_up(model, torch.float32) is model
    assert not any("forward" in vars(module) for module in model.modules())
    assert model.config._attn_implementation == "sdpa"


def test_training_few_tokens_in_bfloat16_takes_plain_attention(tmp_path) -> None:
    model = build(CSMAEModel, tiny_config())
    assert speed_up(model, torch.bfloat16).config._attn_implementation == "eager"
    model.save_pretrained(tmp_path)
    assert CSMAEModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
    many = build(CSMAEModel, tiny_config(image_size=64))
    assert speed_up(many, torch.bfloat16).config._attn_implementation == "sdpa"


# Memory that was given back is there for the next tensor

CODE = """
import resource, sys, torch
from csmae_hf.cpu import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("cannot")
    sys.exit()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24).sum()  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(min(faults() for _ in range(5)))
"""


def pages(mode: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", CODE, mode], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems has no such switch")
def test_freed_memory_is_not_cleared_again() -> None:
    kept = pages("keep")
    if kept == "cannot":
        pytest.skip("not glibc")
    assert int(kept) < 10 < int(pages("return")), "without it the system clears every page, huge ones included"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(cpu.ctypes, "CDLL", no_library)
    assert not keep_freed_memory()
    monkeypatch.setattr(cpu.sys, "platform", "darwin")
    assert not keep_freed_memory()
