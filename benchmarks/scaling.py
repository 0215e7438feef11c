"""How the cost grows: with tiles, processes, sensors and image size; and the exponent of each curve.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --size tiny

An exponent of 1 is proportional. Tiles are generated embeds where they are searched, and generated images where embedded.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.machine import seconds_of
from benchmarks.step import draw_batch, make_step
from benchmarks.timing import Row, time_in_turn
from configuration_csmae import DEFAULT_SENSORS, CSMAEConfig
from csmae_hf.cpu import keep_freed_memory, speed_up
from csmae_hf.search.nearest import top_k
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

CPU = torch.device("cpu")
THIRD_SENSOR = {"thermal": ["T1", "T2", "T3", "T4"]}

CHILD = """
import sys, time, torch
from configuration_csmae import CSMAEConfig
from csmae_hf.cpu import keep_freed_memory, speed_up
from modeling_csmae import CSMAEModel
torch.set_num_threads(1)
torch.manual_seed(0)
keep_freed_memory()
model = speed_up(CSMAEModel(CSMAEConfig.for_variant("cecd", size=sys.argv[1])).eval())
images = torch.randn(32, 10, 120, 120)
with torch.inference_mode():
    model(s2=images)
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    sys.stdin.readline()
    start = time.perf_counter()
    for _ in range(int(sys.argv[2])):
        model(s2=images)
    sys.stdout.write(f"{time.perf_counter() - start}\\n")
"""


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of the curve on logarithmic axes, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    return statistics.linear_regression(x, y).slope


def curve(name: str, seconds: Mapping[float, float], unit: str = "s") -> list[Row]:
    """Rows of a curve, the last of them its exponent."""
    rows: list[Row] = [
        {"case": f"{name}: {size:,}", "ours": value, "unit": unit, "curve": name, "size": size}
        for size, value in seconds.items()
    ]
    slope = exponent(list(seconds), list(seconds.values()))
    return [*rows, {"case": f"{name}: exponent", "ours": slope, "unit": ""}]


def search_tiles(sizes: Sequence[int], width: int = 192, queries: int = 100) -> dict[float, float]:
    """Seconds of an exact search of 10 among so many generated embeds."""
    rng = np.random.default_rng(0)
    query = rng.standard_normal((queries, width), dtype=np.float32)
    seconds: dict[float, float] = {}
    for size in sizes:
        archive = rng.standard_normal((size, width), dtype=np.float32)
        timed = time_in_turn({"search": partial(top_k, query, archive, 10)}, CPU, repeats=3)
        seconds[size] = statistics.median(timed["search"])
    return seconds


def embed_tiles(sizes: Sequence[int], size: str, batch: int = 64) -> dict[float, float]:
    """Seconds of embedding so many generated images of one sensor, in batches."""
    torch.manual_seed(0)
    model: Any = speed_up(CSMAEModel(CSMAEConfig.for_variant("cecd", size=size)).eval())
    images = torch.randn(batch, 10, 120, 120)
    seconds: dict[float, float] = {}

    def embed(tiles: int) -> None:
        with torch.inference_mode():
            for first in range(0, tiles, batch):
                model(s2=images[: min(batch, tiles - first)])

    embed(batch)
    for tiles in sizes:
        seconds[tiles] = seconds_of(partial(embed, tiles), CPU)
    return seconds


def embed_processes(counts: Sequence[int], size: str, batches: int, repeats: int = 3) -> dict[float, float]:
    """Seconds until so many processes of one thread each have shared `batches` batches of 32 images."""
    rounds = [{count: _share_work(count, size, batches) for count in counts} for _ in range(repeats)]
    return {count: statistics.median(seconds[count] for seconds in rounds) for count in counts}


def _share_work(count: int, size: str, batches: int) -> float:
    command = [sys.executable, "-c", CHILD, size, str(batches // count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(count)
    ]
    try:
        for child in children:
            _stdout(child).readline()
        for child in children:
            _stdin(child).write("go\n")
            _stdin(child).flush()
        return max(float(_stdout(child).readline()) for child in children)
    finally:
        for child in children:
            child.terminate()
            child.wait()


def _stdin(child: subprocess.Popen[str]) -> Any:
    return child.stdin


def _stdout(child: subprocess.Popen[str]) -> Any:
    return child.stdout


def step_sensors(counts: Sequence[int], size: str, batch: int) -> dict[float, float]:
    """Seconds of a training step of CECD with so many sensors."""
    every = {**DEFAULT_SENSORS, **THIRD_SENSOR}
    seconds: dict[float, float] = {}
    for count in counts:
        config = CSMAEConfig.for_variant("cecd", size=size, sensors=dict(list(every.items())[:count]))
        torch.manual_seed(0)
        model: Any = speed_up(CSMAEForPreTraining(config).train())
        images = draw_batch(config, batch, CPU)

        def loss(model: Any = model, images: dict[str, torch.Tensor] = images) -> torch.Tensor:
            return model(**images).loss

        step = make_step(loss, model.parameters(), torch.float32, CPU, fused=True)
        seconds[count] = statistics.median(time_in_turn({"step": step}, CPU)["step"])
    return seconds


def embed_image_sizes(edges: Sequence[int], size: str, batch: int) -> dict[float, float]:
    """Seconds of embedding a batch of images of so many pixels a side."""
    torch.manual_seed(0)
    model: Any = speed_up(CSMAEModel(CSMAEConfig.for_variant("cecd", size=size)).eval())
    seconds: dict[float, float] = {}
    for edge in edges:
        images = torch.randn(batch, 10, edge, edge)

        def embed(images: torch.Tensor = images) -> None:
            with torch.inference_mode():
                model(s2=images, interpolate_pos_encoding=True)

        seconds[edge] = statistics.median(time_in_turn({"embed": embed}, CPU, repeats=5)["embed"])
    return seconds


def measure_size(size: str) -> list[Row]:
    """All curves, with an encoder of one size."""
    return [
        *curve("exact search, 100 queries, width 192, tiles", search_tiles([1_000, 10_000, 100_000, 1_000_000])),
        *curve(f"embedding, ViT-{size}, tiles", embed_tiles([250, 500, 1_000], size)),
        *curve(f"embedding 512 tiles, ViT-{size}, processes of one thread", embed_processes([1, 2], size, 16)),
        *curve(f"step of CECD, ViT-{size}, batch 16, sensors", step_sensors([1, 2, 3], size, 16)),
        *curve(f"embedding 16 tiles, ViT-{size}, pixels a side", embed_image_sizes([120, 240], size, 16)),
    ]


def measure(full: bool = False) -> list[Row]:
    """All curves on a CPU; `full` takes ViT-B instead of ViT-S."""
    return measure_size("base" if full else "small")


def main() -> int:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", help="of the encoder (default: %(default)s)")
    keep_freed_memory()
    sys.stdout.write(json.dumps(measure_size(parser.parse_args().size), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
