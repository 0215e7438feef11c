"""The host must not wait for a GPU in a training step. Tensors without storage stand in for it where there is none."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

import image_processing_csmae
from csmae_hf.training import randomness
from csmae_hf.training.loss_terms import LossTerms, count_rows
from csmae_hf.training.nonfinite import UnreadLoss
from csmae_hf.training.randomness import draw_flips_and_noise, flip_together
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

GPU, STAND_IN = torch.device("cuda", 0), torch.device("meta")


class Waits(TorchDispatchMode):
    """Records what makes a host wait: copies between it and the GPU that block, and sizes or numbers that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        result = func(*args, **kwargs)
        if name in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "is_nonzero"):
            self.found[name] += 1
        elif name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            crosses = source.device.type != result.device.type
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,)))
            self.copies += crosses
            if crosses and blocking:
                self.found[f"{name} {source.device.type} to {result.device.type}"] += 1
        return result


def clear_caches() -> None:
    for cached in (image_processing_csmae._constant, image_processing_csmae._bicubic_taps_on):
        cached.cache_clear()


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(randomness, "_SENT_WITHOUT_WAITING", ("cuda", "meta"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: values)
    clear_caches()
    yield
    clear_caches()


def native_batch(
    processor: CSMAEImageProcessor, device: torch.device = STAND_IN, rows: int = 3
) -> dict[str, dict[str, torch.Tensor]]:
    """As the loader has put it on the GPU."""
    sizes = {"VV": 120, "VH": 120, "B02": 120, "B03": 120, "B04": 120, "B08": 120}
    batch: dict[str, dict[str, torch.Tensor]] = {}
    for sensor, bands in processor.sensors.items():
        for size in (120, 60):
            names = [name for name in bands if sizes.get(name, 60) == size]
            if names:
                dtype = torch.float32 if sensor == "s1" else torch.int16
                pixels = torch.zeros(rows, len(names), size, size, dtype=dtype, device=device)
                batch.setdefault(sensor, {})[" ".join(names)] = pixels
    return batch


@pytest.mark.parametrize("variant", ["cecd", "sesd"])
def test_the_host_waits_for_nothing_in_a_step(pretended_gpu: None, variant: str) -> None:
    """From bands at their own resolutions to the gradients, with what the Trainer's log needs. `test_counts` has the optimiser."""
    config = tiny_config(variant, image_size=120, patch_size=15)
    processor = CSMAEImageProcessor(sensors=config.sensors, size=120)
    model: Any = CSMAEForPreTraining(config)
    model = model.to(STAND_IN).train()
    terms = LossTerms(config, STAND_IN)
    batch = native_batch(processor)

    def step(number: int) -> None:
        images = dict(processor.process_native(batch))
        flips, noise = draw_flips_and_noise(42, number, 0, 3, config.sensors, config.num_patches, STAND_IN)
        outputs = model(**flip_together(images, flips), noise=noise)
        terms.add(outputs.losses, count_rows(images, config))
        outputs.loss.backward()

    step(0)  # what never changes is sent once
    with Waits() as waits:
        step(1)
    assert waits.copies == 1, "flips and masks, together"
    assert not waits.found


def test_a_wait_is_seen(pretended_gpu: None) -> None:
    with Waits() as waits:
        torch.zeros(3).to(STAND_IN)
        torch.zeros(3, device=STAND_IN).copy_(torch.zeros(3))
        torch.zeros(3).sum().item()
    assert sum(waits.found.values()) == 3


def test_bands_in_any_order_are_sent_in_place_without_waiting(pretended_gpu: None) -> None:
    processor = CSMAEImageProcessor(sensors={"s2": ["B02", "B05", "B03", "B06"]}, size=120)
    batch = native_batch(processor)
    processor.process_native(batch)
    with Waits() as waits:
        processor.process_native(batch)
    assert not waits.found
    assert not waits.copies


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_never_makes_the_host_wait(tmp_path: Path) -> None:
    """The same on a real one, where torch itself refuses to wait."""
    config = tiny_config("sesd", image_size=120, patch_size=15)
    processor = CSMAEImageProcessor(sensors=config.sensors, size=120)
    model: Any = CSMAEForPreTraining(config)
    model = model.to(GPU).train()
    batch = native_batch(processor, GPU)
    processor.process_native(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images = dict(processor.process_native(batch))
        flips, noise = draw_flips_and_noise(42, 0, 0, 3, config.sensors, config.num_patches, GPU)
        outputs = model(**flip_together(images, flips), noise=noise)
        unread = UnreadLoss(outputs.loss, outputs.losses, images, None, tmp_path, 1, 0)
        outputs.loss.backward()
        unread.refuse_non_finite()
    finally:
        torch.cuda.set_sync_debug_mode("default")
