"""What a step costs in counts that no machine changes: calls, operations, bytes. A guard against getting slower unnoticed."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import build, draw_images, draw_noise, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.memory import peak_bytes
from benchmarks.yardsticks import plain_losses
from configuration_csmae import VARIANTS
from csmae_hf.bigearthnet import BAND_SIZE, S1_BANDS, S2_BANDS
from csmae_hf.data import store as store_module
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.store import TileStore, write_store
from modeling_csmae import CSMAEDecoder, CSMAEForPreTraining

SYNCS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique", "is_nonzero")
"""Operations that make the host wait for a GPU."""

VIEWS = ("view", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "slice", "select", "detach", "alias")
"""Operations that launch nothing."""


class Operations(TorchDispatchMode):
    """Counts the operations that reach the kernels, in the forward and the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    def launches(self) -> int:
        """Operations that do something."""
        return sum(
            count for name, count in self.counts.items() if name not in (*VIEWS, "_unsafe_view", "split", "unbind")
        )


def operations(call: Callable[[], Any]) -> Operations:
    with Operations() as counted:
        call()
    return counted


def trained(variant: str, **overrides: Any) -> tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    config = tiny_config(variant, **overrides)
    return build(CSMAEForPreTraining, config).train(), draw_images(config), draw_noise(config)


@pytest.mark.parametrize(("variant", "trunks"), [("cecd", 1), ("secd", 1), ("cesd", 2), ("sesd", 2)])
def test_a_step_calls_each_trunk_once_with_every_source(variant: str, trunks: int) -> None:
    model, images, noise = trained(variant)
    rows: list[int] = []
    for decoder in model.modules():
        if isinstance(decoder, CSMAEDecoder):
            decoder.layers[0].register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    model(**images, noise=noise).loss.backward()
    assert rows == [2 * len(images["s1"])] * trunks


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_heads_and_targets_see_the_counted_patches_only(variant: str) -> None:
    model, images, noise = trained(variant, mask_ratio=0.75)
    patches: list[int] = []
    for decoder in model.modules():
        if isinstance(decoder, CSMAEDecoder):
            for head in decoder.heads.values():
                head.register_forward_pre_hook(lambda _, inputs: patches.append(inputs[0].shape[1]))
    model(**images, noise=noise)
    assert patches == [12] * 4, "12 of 16 patches are hidden, and there are four predictions"


# launches of a step of two layers an encoder and one a decoder, forward and backward; a change that raises them must say why
LAUNCHES = {"cecd": 281, "cesd": 332, "secd": 321, "sesd": 372}


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_step_launches_no_more_operations_than_it_did(variant: str) -> None:
    model, images, noise = trained(variant)
    counted = operations(lambda: model(**images, noise=noise).loss.backward())
    assert counted.launches() <= LAUNCHES[variant], counted.counts


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_step_launches_fewer_operations_than_its_plain_form(variant: str) -> None:
    model, images, noise = trained(variant)
    ours = operations(lambda: model(**images, noise=noise).loss.backward())
    plain = operations(lambda: torch.stack(list(plain_losses(model, images, noise).values())).sum().backward())
    assert ours.launches() < plain.launches() * (0.75 if variant[0] == "c" else 0.85)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_step_never_makes_the_host_wait(variant: str) -> None:
    """Masks drawn on the way, gradients and the optimiser included. The loss is not read: that is the caller's to decide."""
    model, images, _ = trained(variant, mde_weight=1.0, norm_pixel_loss=True)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        model(**images).loss.backward()
        optimizer.step()

    counted = operations(step)
    assert counted.counts["sort"] + counted.counts["argsort"] >= 2, "the masks were drawn in here"
    assert counted.counts["_fused_adamw_"] == 1
    assert not {name: counted.counts[name] for name in SYNCS if counted.counts[name]}


def test_an_operation_that_waits_is_seen() -> None:
    assert operations(lambda: torch.ones(2).sum().item()).counts["_local_scalar_dense"] == 1


def test_a_step_compiles_as_one_graph_and_once() -> None:
    model, images, noise = trained("sesd")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, backend="eager", dynamic=False)
    for _ in range(2):
        compiled(**images, noise=noise).loss.backward()
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_step_holds_less_memory_at_its_peak_than_its_plain_form(variant: str) -> None:
    model, images, noise = trained(variant, image_size=60, patch_size=15, decoder_num_hidden_layers=4)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # else the peaks hold gradients, which are the same in both
    cpu = torch.device("cpu")
    ours = peak_bytes(lambda: model(**images, noise=noise).loss.backward(), cpu)
    plain = peak_bytes(lambda: torch.stack(list(plain_losses(model, images, noise).values())).sum().backward(), cpu)
    assert ours < plain


def test_peak_memory_is_what_was_held_at_once() -> None:
    def call() -> None:
        for _ in range(3):
            torch.zeros(2**20)  # 4 MiB, freed before the next
        _ = (torch.zeros(2**19), torch.zeros(2**19))

    assert 4 * 2**20 <= peak_bytes(call, torch.device("cpu")) < 5 * 2**20


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_a_tile_of_one_sensor_reads_its_own_bytes_only(sensor: str, tmp_path: Path, monkeypatch) -> None:
    names = {"s1": S1_BANDS, "s2": S2_BANDS}
    pixels = {
        s: {band: np.ones((BAND_SIZE[band],) * 2, np.float32 if s == "s1" else np.uint16) for band in bands}
        for s, bands in names.items()
    }
    values = {s: encode_safetensors(bands) for s, bands in pixels.items()}
    write_store(tmp_path / "store", list(values.items()))
    read: list[int] = []
    decode = store_module.decode_value
    monkeypatch.setattr(
        store_module, "decode_value", lambda value, *rest: (read.append(len(value)), decode(value, *rest))[1]
    )
    tile = TileStore(tmp_path / "store").read(sensor)
    assert read == [len(values[sensor])], "one value, once"
    held = sum(band.nbytes for band in tile.values())
    assert held <= read[0] <= 1.02 * held, "and hardly anything but pixels in it"
