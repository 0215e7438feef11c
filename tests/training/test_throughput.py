"""Speed and utilisation, by a clock that the test moves."""

import pytest
import torch

from csmae_hf.training.throughput import Throughput, peak_flops


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_are_left_out_and_processes_add_up() -> None:
    clock = Clock()
    throughput = Throughput(peak=1e12, clock=clock)
    throughput.add(64, 2e12)
    clock.now += 4
    with throughput.paused():
        clock.now += 50
    throughput.add(64, 2e12)
    rates = throughput.rates(lambda values: 2 * values, processes=2)  # another process did as much
    assert rates == pytest.approx({"samples_per_second": 2 * 128 / 4, "mfu": 1.0})
    clock.now += 1
    throughput.add(10, 1e11)
    assert throughput.rates(lambda values: values, processes=1) == pytest.approx({"samples_per_second": 10, "mfu": 0.1})


def test_nothing_done_has_no_rate() -> None:
    assert Throughput(peak=1e12).rates(lambda values: values, processes=1) == {}


def test_the_peak_is_given_known_or_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(torch.device("cpu"), "fp32", tflops=2.0) == (2e12, "given")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    assert peak_flops(torch.device("cuda"), "bf16") == (312e12, "data sheet of A100")
    state = torch.random.get_rng_state()
    measured, source = peak_flops(torch.device("cpu"), "fp32")
    assert 1e8 < measured < 1e14
    assert "measured" in source
    assert torch.equal(state, torch.random.get_rng_state()), "measuring draws nothing from the run's generator"
