"""How fast a run is, and how much of the hardware it uses."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

PEAK_TFLOPS_16_BIT: dict[str, float] = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "V100": 125.0,
    "T4": 65.0,
}
"""Dense 16-bit tensor-core peak by what the device's name contains, from NVIDIA's data sheets; the first that fits counts."""

_MEASURE_SECONDS = 0.1


def peak_flops(device: torch.device, precision: str, tflops: float | None = None) -> tuple[float, str]:
    """Say how many operations a second a device could do at best, in a precision, and where that number is from.

    It is `tflops` (10^12 operations a second) where given, else the data sheet's, else that of the best of several matrix products.
    """
    if tflops is not None:
        return tflops * 1e12, "given"
    if device.type == "cuda" and precision != "fp32":
        name = torch.cuda.get_device_name(device)
        for part, known in PEAK_TFLOPS_16_BIT.items():
            if part in name:
                return known * 1e12, f"data sheet of {part}"
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    size = 1024 if device.type == "cpu" else 8192
    generator = torch.Generator().manual_seed(0)  # its own: measuring must not move the run's random numbers
    matrix = torch.randn(size, size, generator=generator).to(device, dtype)
    matrix @ matrix  # the first sets things up
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _MEASURE_SECONDS:
        synchronize(device)
        start = time.perf_counter()
        matrix @ matrix
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best, "measured with one large matrix product"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Throughput:
    """Counts tiles and operations against the time spent training, without evaluations and checkpoints.

    `peak` is the operations a second that one process's device could do, `clock` gives seconds.
    """

    def __init__(self, peak: float, clock: Callable[[], float] = time.perf_counter):
        self.peak = peak
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin a new stretch of time."""
        self._began = self._clock()
        self._paused = self._samples = self._flops = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time spent inside."""
        began = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - began

    def add(self, samples: float, flops: float) -> None:
        """Count a batch of this process."""
        self._samples += samples
        self._flops += flops

    def rates(self, reduce: Callable[[torch.Tensor], torch.Tensor], processes: int) -> dict[str, float]:
        """Take the rates since the last call, and begin a new stretch; `reduce` adds a tensor up over the processes.

        They are `samples_per_second` of all processes, and `mfu`, the share of the devices' peak that the model's own operations
        make up.
        """
        seconds = self._clock() - self._began - self._paused
        samples, flops = reduce(torch.tensor([self._samples, self._flops / self.peak], dtype=torch.float32)).tolist()
        self.restart()
        if seconds <= 0 or not samples:
            return {}
        return {"samples_per_second": samples / seconds, "mfu": flops / seconds / processes}
