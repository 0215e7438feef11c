"""What the machine is and what it can do: the limits that every measurement is held against."""

import os
import platform
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from csmae_hf.cpu import linear_by_onednn, suits_onednn


def describe() -> dict[str, Any]:
    """Name the machine: processor, threads, libraries, and the GPU where there is one."""
    description: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name()
    if hasattr(os, "getloadavg"):
        description["load"] = round(os.getloadavg()[0], 1)
    return description


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    return f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call: by the clock, or on one thread of a CPU the processor's, which other work hardly changes."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    synchronize(device)
    start = clock()
    function()
    synchronize(device)
    return clock() - start


def best_seconds(function: Callable[[], Any], device: torch.device, repeats: int = 7) -> float:
    """Least time of some calls, after one that does not count."""
    return min([seconds_of(function, device) for _ in range(repeats + 1)][1:])


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the best dense matrix product that torch offers, at the threads in use.

    On a CPU in float32 two libraries are tried, MKL by `torch.matmul` and oneDNN. The sizes are not powers of two, whose
    strides collide in the caches.
    """
    rows, width, columns = (8256, 8320, 8448) if device.type == "cuda" else (2112, 1584, 3120)
    with torch.no_grad():
        weight = torch.randn(columns, width, device=device, dtype=dtype)
        inputs = torch.randn(rows, width, device=device, dtype=dtype)
        seconds = best_seconds(lambda: inputs @ weight.T, device)
        if suits_onednn(inputs, weight):
            seconds = min(seconds, best_seconds(lambda: linear_by_onednn(inputs, weight), device))
    return 2 * rows * width * columns / seconds


def memory_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of tensors that no cache holds, at the threads in use.

    The better of a copy (one read, one written) and an addition in place (two read, one written): before a CPU writes a line
    that it has not read it may have to read it first, which a copy pays and nobody counts.
    """
    numbers = 2**30 if device.type == "cuda" else 2**26
    source = torch.zeros(numbers, device=device)
    target = torch.zeros_like(source)
    copied = 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device)
    return max(copied, 3 * source.nbytes / best_seconds(lambda: target.add_(source), device))


class Limits:
    """The machine's rates, each measured once a run and before it is used."""

    def __init__(self, device: torch.device):
        self.device = device
        self.matmul = cache(lambda dtype: matmul_rate(device, dtype))
        self.memory = cache(lambda: memory_bandwidth(device))


@cache
def limits(device: torch.device) -> Limits:
    """The limits of a device."""
    return Limits(device)
