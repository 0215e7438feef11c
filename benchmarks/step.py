"""A pre-training step of each variant: forward, backward, AdamW.

    python -m benchmarks.step                                      ViT-B, batch 32, this machine
    python -m benchmarks.step --variants cecd --dtypes float32 --batch 8 --repeats 3
    python -m benchmarks.step --full                               on a GPU: compiled, at 1,024 and the largest in 40 GiB

Yardstick A is this project's own model in its plain form (`yardsticks.plain_losses`, AdamW a parameter at a time), yardstick
B two stock Transformers ViTMAE of the same width, one a sensor, with the optimiser that ours has.
"""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import limits
from benchmarks.memory import peak_bytes
from benchmarks.timing import Row, compare, time_in_turn
from benchmarks.yardsticks import TwoViTMAE, plain_losses
from configuration_csmae import VARIANTS, CSMAEConfig
from csmae_hf.cpu import keep_freed_memory, speed_up
from modeling_csmae import CSMAEForPreTraining

WANTED = {"cecd": 1.5, "secd": 1.5, "cesd": 1.2, "sesd": 1.2}
"""Times yardstick A on two CPU cores in float32."""

Loss = Callable[[], torch.Tensor]


def draw_batch(config: CSMAEConfig, batch: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Standardised images of every sensor."""
    size = config.image_size
    return {s: torch.randn(batch, len(b), size, size, device=device) for s, b in config.sensors.items()}


def make_step(loss: Loss, parameters: Any, dtype: torch.dtype, device: torch.device, fused: bool) -> Callable[[], None]:
    """A whole training step: mixed precision where `dtype` is no float32, gradients, optimiser."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=fused, foreach=False if not fused else None
    )

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype) if dtype != torch.float32 else nullcontext():
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def step_flops(config: CSMAEConfig, batch: int) -> int:
    """Operations of the matrix products of one of our steps, counted on tensors without storage."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model = CSMAEForPreTraining(config).train()
        model(**draw_batch(config, batch, torch.device("cpu"))).loss.backward()
    return counter.get_total_flops()


def steps_of(
    config: CSMAEConfig,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    compiled: bool = False,
    stock: bool = True,
) -> dict[str, Callable[[], None]]:
    """Our step and those of yardstick A and, where `stock`, B, all on the same images."""
    torch.manual_seed(0)
    model: Any = CSMAEForPreTraining(config)
    model = model.to(device).train()
    plain: Any = copy.deepcopy(model)
    if device.type == "cpu":
        speed_up(model, dtype)
    images = draw_batch(config, batch, device)
    noise = {sensor: torch.rand(batch, config.num_patches, device=device) for sensor in images}
    forward: nn.Module = torch.compile(model, dynamic=False) if compiled else model  # type: ignore[assignment]
    losses: dict[str, tuple[Loss, nn.Module, bool]] = {
        "ours": (lambda: forward(**images, noise=noise).loss, model, True),
        "A": (lambda: torch.stack(list(plain_losses(plain, images, noise).values())).sum(), plain, False),
    }
    if stock:
        pair = TwoViTMAE(config).to(device).train()
        losses["B"] = (lambda: pair(**images), pair, True)
    return {
        name: make_step(loss, owner.parameters(), dtype, device, fused) for name, (loss, owner, fused) in losses.items()
    }


def measure_variant(
    variant: str,
    size: str,
    batch: int,
    dtypes: list[torch.dtype],
    device: torch.device,
    repeats: int,
    compiled: bool = False,
    stock: bool = True,
) -> list[Row]:
    """Rows of one variant: time against A and B and in 16 bits against 32, and peak memory against A."""
    config = CSMAEConfig.for_variant(variant, size=size)
    flops = step_flops(config, batch)
    rows, own = [], {}
    for dtype in dtypes:
        steps = steps_of(config, batch, dtype, device, compiled, stock)
        seconds = time_in_turn(steps, device, repeats)
        own[dtype] = seconds["ours"]
        case = f"{variant.upper()}, ViT-{size}, batch {batch}, {str(dtype).removeprefix('torch.')}"
        wanted = (2.5 if device.type == "cuda" else WANTED[variant]) if dtype == dtypes[0] else None
        limit = limits(device).matmul(dtype)
        row = compare(case, seconds["ours"], seconds["A"], "A, plain", flops=flops, limit=limit, wanted=wanted)
        rows.append(row)
        if stock:
            rows.append(compare(case, seconds["ours"], seconds["B"], "B, two ViTMAE"))
        peaks = {name: peak_bytes(steps[name], device) / 2**20 for name in ("ours", "A")}
        memory = {"ours": peaks["ours"], "yardstick": peaks["A"], "yardstick_name": "A, plain", "unit": "MiB"}
        rows.append({"case": f"{case}: memory a step adds", **memory, "wanted": 1.0})
        del steps
    if len(own) == 2:
        full, half = own[torch.float32], own[torch.bfloat16]
        rows.append(compare(f"{variant.upper()}, bfloat16", half, full, "own float32", wanted=1.5))
    return rows


def measure_optimizer(size: str, device: torch.device, repeats: int) -> list[Row]:
    """AdamW alone, which the memory bounds: four tensors read and three written, a parameter."""
    model: Any = CSMAEForPreTraining(CSMAEConfig.for_variant("cecd", size=size))
    model = model.to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    steps = {
        "ours": torch.optim.AdamW(parameters, fused=True).step,
        "unfused": torch.optim.AdamW(parameters, fused=False, foreach=False).step,
    }
    seconds = time_in_turn(steps, device, repeats)
    row = compare(f"AdamW, CECD, ViT-{size}", seconds["ours"], seconds["unfused"], "unfused")
    moved = 7 * sum(parameter.nbytes for parameter in parameters)
    return [row | {"bound": "memory", "fraction": moved / row["ours"] / limits(device).memory()}]


def measure(full: bool = False) -> list[Row]:
    """Every variant: on a CPU at batch 32 in float32 and bfloat16, with `full` on a GPU at the sizes wanted there."""
    if not full:
        device = torch.device("cpu")
        return measure_all(list(VARIANTS), "base", [32], [torch.float32, torch.bfloat16], device, repeats=3)
    if not torch.cuda.is_available():
        raise ValueError("--full measures a GPU, and torch sees none here.")
    device = torch.device("cuda")
    batches = [largest_batch("base", device), 1024]
    return measure_all(list(VARIANTS), "base", batches, [torch.bfloat16], device, repeats=20, compiled=True)


def measure_all(
    variants: list[str],
    size: str,
    batches: list[int],
    dtypes: list[torch.dtype],
    device: torch.device,
    repeats: int,
    compiled: bool = False,
    stock: bool = True,
) -> list[Row]:
    """Rows of variants at batch sizes, and the optimiser's. What does not fit into a GPU is said in a row, and the rest goes on."""
    rows: list[Row] = []
    for variant in variants:
        for batch in batches:
            try:
                rows += measure_variant(variant, size, batch, dtypes, device, repeats, compiled, stock)
            except torch.OutOfMemoryError:
                gibibytes = torch.cuda.get_device_properties(device).total_memory / 2**30
                case = f"{variant.upper()}, ViT-{size}, batch {batch}: ours or a yardstick does not fit into the GPU's memory"
                rows.append({"case": case, "ours": gibibytes, "unit": "GiB"})
                torch.cuda.empty_cache()
    return rows + measure_optimizer(size, device, repeats)


def largest_batch(size: str, device: torch.device, gibibytes: float = 40, step: int = 64) -> int:
    """Largest multiple of `step` at which our heaviest variant trains in so much GPU memory."""
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, gibibytes * 2**30 / torch.cuda.get_device_properties(device).total_memory), device
    )
    fits, fails = 0, None
    while fails is None or fails - fits > step:
        batch = fits * 2 or step if fails is None else (fits + fails) // 2 // step * step
        if _trains(size, batch, device):
            fits = batch
        else:
            fails = batch
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    if not fits:
        raise ValueError(f"Not even a batch of {step} fits in {gibibytes} GiB.")
    return fits


def _trains(size: str, batch: int, device: torch.device) -> bool:
    try:
        _train_once(size, batch, device)
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def _train_once(size: str, batch: int, device: torch.device) -> None:
    config = CSMAEConfig.for_variant("sesd", size=size)
    model: Any = CSMAEForPreTraining(config)
    model = model.to(device).train()
    images = draw_batch(config, batch, device)
    make_step(lambda: model(**images).loss, model.parameters(), torch.bfloat16, device, fused=True)()


def main() -> int:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--yardstick_a_only", action="store_true", help="leave the stock ViTMAE out, and half of the memory"
    )
    parser.add_argument("--full", action="store_true", help="a GPU at the sizes wanted there; nothing else counts then")
    parser.add_argument(
        "--return_memory", action="store_true", help="give freed memory back, as a process does by itself"
    )
    arguments = parser.parse_args()
    if not arguments.return_memory:
        keep_freed_memory()
    if arguments.full:
        rows = measure(full=True)
    else:
        dtypes = [getattr(torch, name) for name in arguments.dtypes]
        device = torch.device("cpu")
        sizes = (arguments.variants, arguments.size, [arguments.batch], dtypes, device, arguments.repeats)
        rows = measure_all(*sizes, stock=not arguments.yardstick_a_only)
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
