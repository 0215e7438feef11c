"""Mutants of real stored values through the readers, watched: which Python events happen, how long each takes, how memory grows.

Run by test_codecs.py in a process of its own, for an audit hook stays for good. Prints what happened as JSON.
"""

import gc
import json
import os
import pickle
import pickletools
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from v1_values import V1Writer, make_classes

from csmae_hf.bigearthnet import BAND_SIZE, LABELS, S1_BANDS
from csmae_hf.data.codecs import CorruptTileError, decode_labels, decode_value
from csmae_hf.data.store import TileStore

ALLOWED_EVENTS = frozenset({"object.__getattr__", "object.__setattr__", "sys._getframe"})
MUTANTS_OF_A_KIND = 1600
OPCODES = np.frombuffer(b"".join(op.code.encode("latin-1") for op in pickletools.opcodes), np.uint8)

Mutation = Callable[[bytearray, np.ndarray, np.random.Generator], bytearray]


def flip_bits(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 4)):
        value[near(value, starts, rng)] ^= 1 << int(rng.integers(8))
    return value


def change_bytes(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 4)):
        value[near(value, starts, rng)] = int(rng.integers(256))
    return value


def cut(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> bytearray:
    del value[max(near(value, starts, rng), 1) :]
    if rng.random() < 0.5:
        value += b"."
    return value


def delete(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> bytearray:
    position = near(value, starts, rng)
    del value[position : position + int(rng.integers(1, 40))]
    return value or bytearray(1)


def repeat(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> bytearray:
    position = near(value, starts, rng)
    value[position:position] = value[position : position + int(rng.integers(1, 40))] * int(rng.integers(1, 30))
    return value


def change_opcodes(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> bytearray:
    for _ in range(rng.integers(1, 3)):
        value[int(rng.choice(starts))] = int(rng.choice(OPCODES))
    return value


def swap_operations(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> bytearray:
    first = int(rng.integers(len(starts) - 3))
    second = min(first + int(rng.integers(1, 20)), len(starts) - 2)
    a, b, c, d = (int(starts[place]) for place in (first, first + 1, second, second + 1))
    return value[:a] + value[c:d] + value[b:c] + value[a:b] + value[d:] if second > first else value


def insert(piece: bytes) -> Mutation:
    def mutation(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> bytearray:
        position = int(rng.choice(starts[1:]))
        value[position:position] = piece
        return value

    return mutation


def near(value: bytearray, starts: np.ndarray, rng: np.random.Generator) -> int:
    """A position, mostly where the structure is and not among the pixels."""
    position = int(rng.choice(starts)) + int(rng.integers(12)) if rng.random() < 0.9 else int(rng.integers(len(value)))
    return min(position, len(value) - 1)


def payloads(canary: Path) -> list[bytes]:
    """Programs that make the canary when Python's own unpickler reads them."""
    command = f"touch '{canary}'".encode()
    text = struct.pack("<B", len(command)) + command
    return [
        b'cos\nsystem\n(S"' + command + b'"\ntR0',
        b"\x8c\x02os\x8c\x06system\x93\x8c" + text + b"\x85R0",
        b'(S"' + command + b'"\nios\nsystem\n0',
        b"cposix\nsystem\n\x8c" + text + b"\x85R0",
        b'(cos\nsystem\nS"' + command + b'"\no0',
    ]


def nests() -> list[bytes]:
    return [
        b")" + b"\x85" * 20_000 + b"0",
        b"(" * 9_000,
        b"]\x94" + b"h\x00a" * 3_000,
        b"}" * 50_000,
        b"(" + b"N" * 200_000 + b"t0",
        b"\x8e" + struct.pack("<Q", 1 << 61),
        b"B" + struct.pack("<I", 0xFFFFFFFF),
        b"Nr" + struct.pack("<I", 0x7FFFFFFF) + b"0",
    ]


def laughs() -> list[bytes]:
    """Tuples, lists and dicts of two of two of two of ..., deep enough to fill any memory when walked."""
    pair = [b"2\x86", b"](2\x86e", b"2\x86\x85"]
    bombs = [b")" + step * 120 + b"0" for step in pair]
    return [*bombs, b"}\x8c\x01a" + b")" + b"2\x86" * 120 + b"s0", b"\x8f(" + b")" + b"2\x86" * 120 + b"\x900"]


def laughs_without_dup() -> list[bytes]:
    """The same with MEMOIZE and LONG_BINGET alone, which real values do use."""

    def bomb(level_opcode: bytes, first: int) -> bytes:
        levels = b"".join(
            b"j"
            + struct.pack("<I", first + level) * 1
            + b"j"
            + struct.pack("<I", first + level)
            + level_opcode
            + b"\x94"
            for level in range(120)
        )
        return b")\x94" + levels

    return [bomb(b"\x86", first) for first in (0, 1, 2)]


KINDS: dict[str, list[Mutation]] = {
    "bits": [flip_bits],
    "bytes": [change_bytes],
    "cuts": [cut],
    "deletions": [delete],
    "repetitions": [repeat],
    "opcodes": [change_opcodes],
    "swaps": [swap_operations],
}


def mutants(
    values: list[bytes], starts: list[np.ndarray], mutations: list[Mutation], count: int, rng: np.random.Generator
) -> Iterator[bytes]:
    for number in range(count):
        place = number % len(values)
        mutation = mutations[int(rng.integers(len(mutations)))]
        with suppress(CorruptTileError):  # so that the mutant is like a value read before
            decode_value(values[place], "original")
        yield bytes(mutation(bytearray(values[place]), starts[place], rng))


def operation_starts(value: bytes) -> np.ndarray:
    return np.array([position for _, _, position in pickletools.genops(value)])


def all_mutants(shared_data: Path, canary: Path) -> Iterator[tuple[str, bytes]]:
    """Every mutant with its kind."""
    rng = np.random.default_rng(0)
    store = TileStore(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")
    keys = store.keys()[::10]
    values = [store.read_bytes(key) for key in keys]
    starts = [operation_starts(value) for value in values]
    insertions = {"payloads": payloads(canary), "nests": nests(), "laughs": laughs() + laughs_without_dup()}
    kinds = KINDS | {kind: [insert(piece) for piece in pieces] for kind, pieces in insertions.items()}
    for kind, mutations in kinds.items():
        for mutant in mutants(values, starts, mutations, MUTANTS_OF_A_KIND, rng):
            yield kind, mutant
    modules, classes = make_classes()
    sys.modules.update(modules)
    writer = V1Writer(classes)
    for protocol in range(6):
        repickled = [
            writer.value(decode_value(value, key), protocol, new_labels=decode_labels(value, key))
            for key, value in zip(keys[:2], values[:2], strict=True)
        ]
        own_starts = [operation_starts(value) for value in repickled]
        everything = [mutation for mutations in KINDS.values() for mutation in mutations]
        for mutant in mutants(repickled, own_starts, everything, MUTANTS_OF_A_KIND // 2, rng):
            yield f"protocol {protocol}", mutant
    yield from v2_mutants(shared_data, rng)


def v2_mutants(shared_data: Path, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    store = TileStore(shared_data / "bigearthnet_v2_reben_lmdb" / "BigEarthNet-V2-LMDB")
    values = [store.read_bytes(key) for key in store.keys()[::16]]
    headers = [np.arange(struct.unpack("<Q", value[:8])[0] + 8) for value in values]
    for mutant in mutants(values, headers, [flip_bits], MUTANTS_OF_A_KIND, rng):
        yield "v2 bits", mutant
    for mutant in mutants(values, headers, [change_bytes, cut, delete, repeat], MUTANTS_OF_A_KIND, rng):
        yield "v2 header", mutant


def outcome(mutant: bytes) -> str:
    try:
        bands = decode_value(mutant, "mutant")
        labels = decode_labels(mutant, "mutant")
    except CorruptTileError as error:
        return "refused" if "'mutant'" in str(error) and len(str(error)) < 1000 else f"an unclear error: {error}"[:200]
    except BaseException as error:
        return f"another error: {error!r}"[:200]
    for name, array in bands.items():
        if array.shape != (BAND_SIZE.get(name),) * 2 or array.dtype != ("<f4" if name in S1_BANDS else "<u2"):
            return f"a wrong tile: {name} {array.dtype} {array.shape}"
    return "read" if labels is None or set(labels) <= set(LABELS) else f"wrong labels {labels}"


def memory_peak() -> int:
    """Most address space this process has ever had, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmPeak"))


def is_live(piece: bytes, canary: Path) -> bool:
    """Whether Python's own unpickler runs a payload."""
    pickle.loads(piece + b"N.")
    ran = canary.exists()
    canary.unlink(missing_ok=True)
    return ran


def main(shared_data: Path, canary: Path) -> dict[str, Any]:
    live = all(is_live(piece, canary) for piece in payloads(canary))
    events: list[str] = []
    watching = False

    def watch(event: str, _: tuple[Any, ...]) -> None:
        if watching and event not in ALLOWED_EVENTS:
            events.append(event)

    sys.addaudithook(watch)
    gc.freeze()  # else a collection of all that is imported would be timed as if a mutant had caused it
    kinds: dict[str, dict[str, int]] = {}
    wrong: list[str] = []
    slowest, slowest_kind, growth = 0.0, "", 0
    for kind, mutant in all_mutants(shared_data, canary):
        before = memory_peak() if kind not in kinds else 0
        started = time.thread_time()
        watching = True
        what = outcome(mutant)
        watching = False
        taken = time.thread_time() - started
        if taken > slowest:
            slowest, slowest_kind = taken, kind
        if kind not in kinds:
            start_of_kind = before
            kinds[kind] = {}
        growth = max(growth, memory_peak() - start_of_kind) if sum(kinds[kind].values()) % 50 == 0 else growth
        if what not in ("read", "refused"):
            wrong.append(f"{kind}: {what}")
        kinds[kind][what] = kinds[kind].get(what, 0) + 1
    return {
        "kinds": kinds,
        "wrong": wrong[:20],
        "live": live,
        "events": sorted(set(events)),
        "slowest_seconds": slowest,
        "slowest_kind": slowest_kind,
        "memory_growth_bytes": growth,
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
