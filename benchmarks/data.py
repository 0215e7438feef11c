"""How fast tiles become batches: reading, decoding, resampling, standardising, beside the plain way and a plain copy.

    python -m benchmarks.data ARCHIVE              e.g. demo/sample, or BigEarthNet v1 or v2
    python -m benchmarks.data ARCHIVE --large 8    also reads an archive of 8 GiB, made of copies, from a cold page cache

All figures are of one core, in seconds of the processor, of interleaved repeats, so that other work on the machine matters little.
Compare ratios, not numbers of different machines. With `--large`, time is that of the clock, and the archive should be larger than
the memory that is free for it.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset

from benchmarks.machine import Limits
from benchmarks.timing import Row, compare, table, time_in_turn
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.store import TileStore, write_store
from image_checks_csmae import check_images
from image_processing_csmae import BAND_MEAN, BAND_STD, CSMAEImageProcessor

BANDS = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A", "VH", "VV"]
logger = logging.getLogger("benchmark")


def plain_image(bands: dict[str, np.ndarray]) -> torch.Tensor:
    """One image the plain way of the original: a bicubic call for each band, a transposed array, a tensor of it, standardised."""
    resized = []
    for band in BANDS:
        pixels = torch.Tensor(np.float32(bands[band])).unsqueeze(0).unsqueeze(0)
        resized.append(F.interpolate(pixels, size=(120, 120), mode="bicubic", align_corners=True).squeeze())
    image = np.transpose(torch.stack(resized).numpy(), (2, 1, 0))  # W, H, C
    tensor = torch.from_numpy(image.transpose((2, 0, 1))).contiguous()
    mean, std = (torch.tensor([table[band] for band in BANDS])[:, None, None] for table in (BAND_MEAN, BAND_STD))
    return tensor.clone().sub_(mean).div_(std)


def tile_values(store: TileStore, tiles: Dataset) -> list[tuple[str, ...]]:
    """The keys under which each tile lies: one in v1, two in v2."""
    return [tuple(dict.fromkeys(row[sensor].key for sensor in ("s1", "s2"))) for row in tiles]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


PLAIN_WAY, PLAIN_WAY_IN_MEMORY, COPY = "plain way", "plain way, from bands in memory", "plain copy out of LMDB"


def works_on(tiles: Dataset, store: TileStore) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; each handles all tiles once."""
    keys = tile_values(store, tiles)
    environment = store._open()  # LMDB opens a folder once in a process
    processor = CSMAEImageProcessor()
    collator, native = TileCollator(processor), TileCollator(processor, native=True)
    rows = [tiles[n] for n in range(len(tiles))]
    bands = [{**dict(row["s1"].items()), **dict(row["s2"].items())} for row in rows]
    looked_at = tiles.select_columns(["id", "s1", "s2"])
    unread = lambda: looked_at.__getitems__(list(range(len(tiles))))  # noqa: E731
    batch = native(rows)

    def copy() -> None:
        for tile in keys:
            with environment.begin() as transaction:
                for key in tile:
                    transaction.get(key.encode())

    def read() -> None:
        for tile in keys:
            for key in tile:
                store.read(key)

    def plain() -> torch.Tensor:
        return torch.stack(
            [plain_image({band: a for key in tile for band, a in store.read(key).items()}) for tile in keys]
        )

    def check() -> None:
        for sensor, groups in batch.items():
            check_images(sensor, groups, None, processor.size)

    return {
        COPY: copy,
        "read and decode": read,
        PLAIN_WAY: plain,
        "rows, read, check, resample, standardise": lambda: collator(unread()),
        "rows, read, check, stack, for a device": lambda: native(unread()),
        PLAIN_WAY_IN_MEMORY: lambda: [plain_image(tile) for tile in bands],
        "check, resample, standardise, from bands in memory": lambda: processor(s1=bands, s2=bands),
        "rows of the dataset alone": unread,
        "checks alone": check,
        "resample and standardise alone": lambda: processor.process_native(batch),
    }


def bytes_moved(tiles: Dataset, store: TileStore) -> dict[str, int]:
    """Bytes that each must read and write at the least, of all tiles together."""
    stored = sum(len(store.read_bytes(key)) for tile in tile_values(store, tiles) for key in tile)
    native, floats = stored, len(tiles) * len(BANDS) * 120 * 120 * 4
    return {
        "read and decode": stored + native,
        "rows, read, check, resample, standardise": stored + floats,
        "rows, read, check, stack, for a device": stored + native,
        "check, resample, standardise, from bands in memory": native + floats,
        "resample and standardise alone": native + floats,
    }


YARDSTICKS: dict[str, tuple[str, float | None]] = {
    "read and decode": (COPY, 0.5),
    "rows, read, check, resample, standardise": (PLAIN_WAY, 10),
    "rows, read, check, stack, for a device": (PLAIN_WAY, None),
    "check, resample, standardise, from bands in memory": (PLAIN_WAY_IN_MEMORY, None),
}
"""What each is held against, and the ratio that is wanted."""


def measure_archive(archive: Path, batch_size: int = 32, repeats: int = 15) -> list[Row]:
    """Rows of one batch, handled again and again by one core."""
    tiles = load_bigearthnet(archive, missing="drop")
    tiles = tiles.select(range(min(batch_size, len(tiles))))
    store = TileStore(tiles[0]["s1"].store)
    cpu, moved, rows = torch.device("cpu"), bytes_moved(tiles, store), []
    with one_thread():
        works = works_on(tiles, store)
        seconds = time_in_turn(works, cpu, repeats, warmups=2)
        memory = Limits(cpu).memory()
    for name in works:
        if name in (COPY, PLAIN_WAY, PLAIN_WAY_IN_MEMORY):
            continue
        yardstick, wanted = YARDSTICKS.get(name, ("", None))
        row = compare(
            f"{len(tiles)} {store.format} tiles: {name}",
            seconds[name],
            seconds.get(yardstick),
            yardstick,
            items=len(tiles),
            unit="tiles/s",
            wanted=wanted,
        )
        if name in moved:
            row |= {"bound": "memory", "fraction": moved[name] * row["ours"] / len(tiles) / memory}
        rows.append(row)
    return rows


def measure(full: bool = False) -> list[Row]:
    """Of generated tiles."""
    from csmae_hf.sample.generate import generate_sample

    with tempfile.TemporaryDirectory() as scratch:
        return measure_archive(generate_sample(Path(scratch) / "sample", tiles=64, seed=0))


def make_large(archive: Path, folder: Path, gibibytes: float) -> list[str]:
    """Write an archive of so many bytes: the values of another under new keys, so that each lies on its own pages."""
    tiles = load_bigearthnet(archive, missing="drop")
    store = TileStore(tiles[0]["s1"].store)
    values = [store.read_bytes(key) for tile in tile_values(store, tiles) for key in tile]
    count = int(gibibytes * 2**30 / np.mean([len(value) for value in values]))
    keys = [f"{number:08d}" for number in range(count)]
    write_store(folder, ((key, values[number % len(values)]) for number, key in enumerate(keys)), total=count)
    return keys


def forget(data: Path) -> None:
    """Drop a file's pages from the page cache, as an archive larger than memory drops them by itself."""
    descriptor = os.open(data, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def bytes_from_disk() -> int:
    """How much this process has had the disk read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def read_cold(folder: Path, keys: list[str], readahead: bool) -> tuple[float, float, float]:
    """Read values from a cold page cache: seconds, bytes wanted, bytes the disk read."""
    forget(folder / "data.mdb")
    environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=readahead)
    before, wanted, start = bytes_from_disk(), 0, time.perf_counter()
    for key in keys:
        with environment.begin() as transaction:
            wanted += len(transaction.get(key.encode()))
    seconds = time.perf_counter() - start
    environment.close()
    return seconds, wanted, bytes_from_disk() - before


def measure_large(archive: Path, gibibytes: float, folder: Path | None) -> None:
    """Read an archive in order and shuffled, with and without readahead, each value once and from a cold cache."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="csmae-benchmark-") as place:
        large = Path(place) / "lmdb"
        keys = make_large(archive, large, gibibytes)
        shuffled = np.random.default_rng(0).permutation(keys).tolist()
        few = max(len(keys) // 8, 1)
        logger.info("\n%d values, %.1f GiB, cold page cache", len(keys), (large / "data.mdb").stat().st_size / 2**30)
        logger.info("%-34s%12s%12s%24s", "", "values/s", "MB/s", "read from disk / wanted")
        for name, order in (("in order", keys[:few]), ("shuffled", shuffled[:few])):
            for readahead in (True, False):
                seconds, wanted, disk = read_cold(large, order, readahead)
                text = f"{name}, readahead={readahead}"
                logger.info(
                    "%-34s%12.0f%12.0f%24.2f", text, len(order) / seconds, wanted / seconds / 1e6, disk / wanted
                )


def main() -> int:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, not as a table")
    parser.add_argument("--large", type=float, help="GiB of an archive to make and to read from a cold page cache")
    parser.add_argument(
        "--folder", type=Path, help="where to make it (default: the system's folder for temporary files)"
    )
    arguments = parser.parse_args()
    rows = measure_archive(arguments.archive, arguments.batch_size, arguments.repeats)
    logger.info(json.dumps(rows, indent=2) if arguments.json else table(rows))
    if arguments.large:
        measure_large(arguments.archive, arguments.large, arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
