"""In which precision to compute: bf16 where the hardware is fast at it, fp16 on other GPUs, fp32 elsewhere."""

import os
from typing import Any

import torch

PRECISIONS = ("auto", "bf16", "fp16", "fp32")


def choose_precision(requested: str, device_type: str) -> str:
    """Choose the precision of a run: `bf16`, `fp16` (with loss scaling) or `fp32`.

    `auto` heeds `accelerate launch --mixed_precision`, then the hardware.

    Raises:
        ValueError: If fp16 is asked for on a CPU, which has no loss scaling.
    """
    if requested not in PRECISIONS:
        raise ValueError(f"precision = {requested!r} must be one of {', '.join(PRECISIONS)}.")
    if requested == "auto":
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        requested = launched if launched in ("bf16", "fp16") else _by_hardware(device_type)
    if requested == "fp16" and device_type == "cpu":
        raise ValueError("precision = 'fp16' needs a GPU: its losses must be scaled. Use bf16, fp32 or auto on a CPU.")
    return requested


def _by_hardware(device_type: str) -> str:
    if device_type == "cpu":
        return "bf16" if cpu_is_fast_at_bf16() else "fp32"
    if device_type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device_type == "xpu":
        return "bf16"
    return "fp32"  # mps and others: no loss scaling to rely on


def cpu_is_fast_at_bf16() -> bool:
    """Say whether the CPU multiplies bf16 matrices in hardware (x86 with AVX512-BF16 or AMX, Arm with BF16)."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return any(value is True for name, value in capabilities.items() if "bf16" in name)
    older = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # before PyTorch could name its capabilities
    return any(getattr(torch.cpu, name, bool)() for name in older)


def default_device_type(use_cpu: bool) -> str:
    """Say what kind of device a run will use: the accelerator there is, else the CPU."""
    forced = use_cpu or os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes")
    if forced or not torch.accelerator.is_available():
        return "cpu"
    accelerator = torch.accelerator.current_accelerator()
    return accelerator.type if accelerator is not None else "cpu"
