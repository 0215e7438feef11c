"""What makes a CPU faster, applied from outside to any model of `nn.Linear` layers: the same numbers but for rounding."""

import ctypes
import functools
import sys
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers of glibc's `mallopt`, which no header needs to change."""

_LEAST_PRODUCTS = 2**24
"""Multiplications of a layer below which a call of oneDNN costs more than it saves."""

_PLAIN_ATTENTION_MOST_TOKENS = 128
"""Tokens of an image up to which attention weights are no burden to the memory."""


def keep_freed_memory() -> bool:
    """Keep memory that tensors gave back for the tensors to come, instead of handing it to the system each time.

    glibc gives large blocks back at once and asks for new ones, which the system clears page by page. A training step on a CPU frees
    and asks for gigabytes, so much of its time may go there (docs/performance.md). Afterwards a process keeps as much memory as it
    once needed, as torch does on a GPU. It counts for the whole process and for those that it forks, so a library must not do it
    unasked: the scripts and commands of this package do where they compute on a CPU.

    Returns:
        Whether it was done; only glibc, on Linux, can do it.

    Example:
        >>> kept = keep_freed_memory()  # before the first batch
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # no block of its own for what is large, and no trimming of what is free at the end
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))


def speed_up(model: Module, training_dtype: torch.dtype | None = None) -> Module:
    """Make a model faster on this CPU, in place; do nothing where nothing helps, as on a GPU.

    Large float32 `nn.Linear` layers are computed by oneDNN where `F.linear` would go to the slower MKL. They stay `nn.Linear` layers
    with the same weights; a copy (`copy.deepcopy`, pickle) is of plain layers. Training in bfloat16 takes plain matrix products
    for the attention of few tokens, since the backward pass of torch's `sdpa` is several times slower.

    Args:
        model: The model.
        training_dtype: Type in which it is about to be trained; None if it is not.

    Returns:
        The model.

    Example:
        >>> layer = speed_up(nn.Linear(8, 8))
    """
    if onednn_is_faster():
        for layer in model.modules():
            # a forward that is there already is another tool's, such as an offloading hook, or what a copy was left with
            if (
                type(layer) is nn.Linear
                and getattr(vars(layer).get("forward", _PLAIN), "func", None) is nn.Linear.forward
            ):
                layer.forward = _OneDNNForward(layer)  # type: ignore[method-assign]
    config: Any = getattr(model, "config", None)
    if (
        training_dtype == torch.bfloat16
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and config.num_patches < _PLAIN_ATTENTION_MOST_TOKENS
    ):
        model.set_attn_implementation("eager")  # type: ignore[operator]
    return model


_PLAIN = functools.partial(nn.Linear.forward)


class _OneDNNForward:
    """The forward pass of a linear layer: by oneDNN where it is large, in float32 and really computed here and now."""

    def __init__(self, layer: nn.Linear):
        self.layer = layer

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        weight, bias = self.layer.weight, self.layer.bias
        if (
            not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and input.numel() * weight.shape[0] >= _LEAST_PRODUCTS
            and suits_onednn(input, weight)
            and not torch.is_autocast_enabled("cpu")
            and not torch._C._are_functorch_transforms_active()
        ):
            return _OneDNNLinear.apply(input, weight, bias)
        return F.linear(input, weight, bias)

    def __reduce__(self) -> tuple[Any, ...]:  # whoever reads it elsewhere needs nothing of this package
        return functools.partial, (nn.Linear.forward, self.layer)


class _OneDNNLinear(torch.autograd.Function):
    """A linear layer by oneDNN, with its gradients."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.has_bias = bias is not None
        return linear_by_onednn(inputs, weight, bias)

    @staticmethod
    def backward(
        ctx: Any, *grads: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        inputs, weight = ctx.saved_tensors
        rows, grad_rows = inputs.flatten(0, -2), grads[0].flatten(0, -2)
        wants_inputs, wants_weight, wants_bias = ctx.needs_input_grad
        grad_inputs = grad_weight = grad_bias = None
        if torch.is_grad_enabled():  # somebody differentiates the gradient itself: oneDNN's has none
            grad_inputs = grads[0] @ weight if wants_inputs else None
            grad_weight = grad_rows.T @ rows if wants_weight else None
            return grad_inputs, grad_weight, grad_rows.sum(0) if wants_bias else None
        if wants_inputs:
            grad_inputs = linear_by_onednn(grads[0], weight.T)
        if wants_weight:
            grad_weight, grad_bias = torch.ops.aten.mkldnn_linear_backward_weights(
                grad_rows.to_mkldnn(), rows.to_mkldnn(), weight, wants_bias
            )
        elif wants_bias:
            grad_bias = grad_rows.sum(0)
        return grad_inputs, grad_weight, grad_bias


def linear_by_onednn(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`F.linear` by oneDNN, without gradients: (..., D) and (N, D) give (..., N). The operator is not one of torch's public ones."""
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


def suits_onednn(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether both are ordinary float32 tensors on an AVX-512 CPU, and nobody switched oneDNN off."""
    return (
        inputs.device.type == weight.device.type == "cpu"
        and inputs.dtype == weight.dtype == torch.float32
        and type(inputs) is torch.Tensor  # no fake or sharded one
        and type(weight) in (torch.Tensor, nn.Parameter)
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and onednn_agrees()
    )


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN beats MKL at large products: on AVX-512 CPUs that are not Intel's, of which MKL leaves half idle.

    Told by the vendor, never measured: a run that goes on elsewhere must not differ because a machine was busy.
    """
    try:
        vendor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "GenuineIntel" not in vendor and torch.backends.cpu.get_cpu_capability() == "AVX512"


@functools.cache
def onednn_agrees() -> bool:
    """Whether this torch has the operators, and they give what `F.linear` gives, with gradients."""
    try:
        answers = []
        with torch.inference_mode(False), torch.enable_grad():
            generator = torch.Generator().manual_seed(0)
            inputs, weight, bias = (
                torch.randn(size, generator=generator, device="cpu", dtype=torch.float32)
                for size in ((2, 3, 8), (4, 8), (4,))
            )
            for linear in (_OneDNNLinear.apply, F.linear):
                leaves = [tensor.clone().requires_grad_() for tensor in (inputs, weight, bias)]
                output = linear(*leaves)
                answers.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
        return all(torch.allclose(ours, plain, atol=1e-4) for ours, plain in zip(*answers, strict=True))
    except Exception:  # whatever another version of torch says to it, the public function is there
        return False
