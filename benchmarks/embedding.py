"""Embedding images of one sensor, and Transformers' ViT of the same shape beside it.

python -m benchmarks.embedding
python -m benchmarks.embedding --size tiny --batch 8
"""

import argparse
import json
import sys
from contextlib import nullcontext
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import limits
from benchmarks.timing import Row, compare, time_in_turn
from benchmarks.yardsticks import stock_vit
from configuration_csmae import CSMAEConfig
from csmae_hf.cpu import keep_freed_memory, speed_up
from modeling_csmae import CSMAEModel

SENSOR = "s2"


def forward_flops(config: CSMAEConfig, batch: int) -> int:
    """Operations of the matrix products of embedding a batch, counted on tensors without storage."""
    size = config.image_size
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        CSMAEModel(config).eval()(s2=torch.randn(batch, len(config.sensors[SENSOR]), size, size))
    return counter.get_total_flops()


def measure_size(size: str, batch: int, dtypes: list[torch.dtype], device: torch.device, repeats: int) -> list[Row]:
    """Rows of one size: images a second against the stock ViT, and in 16 bits against 32."""
    config = CSMAEConfig.for_variant("cecd", size=size)
    torch.manual_seed(0)
    ours: Any = CSMAEModel(config)
    stock: Any = stock_vit(config, SENSOR)
    ours, stock = speed_up(ours.to(device).eval()), stock.to(device).eval()
    images = torch.randn(batch, len(config.sensors[SENSOR]), config.image_size, config.image_size, device=device)
    flops = forward_flops(config, batch)
    rows, own = [], {}
    for dtype in dtypes:

        def context(dtype: torch.dtype = dtype) -> Any:
            return torch.autocast(device.type, dtype=dtype) if dtype != torch.float32 else nullcontext()

        def embed() -> None:
            with torch.inference_mode(), context():
                ours(s2=images)

        def embed_stock() -> None:
            with torch.inference_mode(), context():
                stock(pixel_values=images).last_hidden_state[:, 1:].mean(dim=1)

        seconds = time_in_turn({"ours": embed, "stock": embed_stock}, device, repeats, warmups=2)
        own[dtype] = seconds["ours"]
        case = f"ViT-{size}, batch {batch}, {str(dtype).removeprefix('torch.')}"
        rows.append(
            compare(
                case,
                seconds["ours"],
                seconds["stock"],
                "Transformers' ViT",
                items=batch,
                unit="images/s",
                flops=flops,
                limit=limits(device).matmul(dtype),
            )
        )
    if len(own) == 2:
        full, half = own[torch.float32], own[torch.bfloat16]
        rows.append(compare(f"ViT-{size}, bfloat16", half, full, "own float32", items=batch, unit="images/s"))
    return rows


def measure(full: bool = False) -> list[Row]:
    """ViT-B, one sensor: on a CPU at batch 64, with `full` on a GPU at batch 1,024."""
    device = torch.device("cuda" if full else "cpu")
    batch, repeats = (1024, 20) if full else (64, 5)
    return measure_size("base", batch, [torch.float32, torch.bfloat16], device, repeats)


def main() -> int:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="on a GPU")
    parser.add_argument(
        "--return_memory", action="store_true", help="give freed memory back, as a process does by itself"
    )
    arguments = parser.parse_args()
    if not arguments.return_memory:
        keep_freed_memory()
    device = torch.device("cuda" if arguments.full else "cpu")
    dtypes = [torch.float32, torch.bfloat16]
    rows = measure_size(arguments.size, arguments.batch, dtypes, device, arguments.repeats)
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
