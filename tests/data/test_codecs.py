"""Reading one stored tile: v1 pickles without an unpickler, v2 safetensors, and whatever else the bytes may be."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from v1_values import V1Writer, make_classes, some_bands

from csmae_hf.bigearthnet import LABELS, S1_BANDS, S2_BANDS
from csmae_hf.data import codecs
from csmae_hf.data.codecs import (
    MAX_VALUE_BYTES,
    CorruptTileError,
    decode_labels,
    decode_value,
    detect_format,
    encode_safetensors,
)
from csmae_hf.data.store import TileStore
from csmae_hf.data.v1_pickles import MAX_PICKLE_OPERATIONS


@pytest.fixture
def v1(monkeypatch: pytest.MonkeyPatch) -> V1Writer:
    """A writer of v1 values."""
    modules, classes = make_classes()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return V1Writer(classes)


def stored_values(folder: Path) -> dict[str, bytes]:
    """All values of an LMDB."""
    store = TileStore(folder)
    return {key: store.read_bytes(key) for key in store}


@pytest.fixture(scope="module")
def real_v1(shared_data: Path) -> dict[str, bytes]:
    return stored_values(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")


@pytest.fixture(scope="module")
def real_v2(shared_data: Path) -> dict[str, bytes]:
    return stored_values(shared_data / "bigearthnet_v2_reben_lmdb" / "BigEarthNet-V2-LMDB")


def assert_same_bands(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# v2


def test_safetensors_give_back_what_went_in() -> None:
    bands = some_bands()
    assert_same_bands(decode_value(encode_safetensors(bands), "tile"), bands)


def test_safetensors_bytes_do_not_depend_on_the_order_of_bands() -> None:
    bands = some_bands()
    assert encode_safetensors(dict(reversed(bands.items()))) == encode_safetensors(bands)


def test_our_safetensors_are_byte_for_byte_rico_hdls(real_v2: dict[str, bytes]) -> None:
    for key, value in real_v2.items():
        assert encode_safetensors(decode_value(value, key)) == value


def test_real_v2_values_equal_their_raw_bytes(real_v2: dict[str, bytes]) -> None:
    # an independent reader: the header is JSON, the rest is raw little-endian data
    assert len(real_v2) == 64
    for key, value in real_v2.items():
        (length,) = struct.unpack("<Q", value[:8])
        header, data = json.loads(value[8 : 8 + length]), value[8 + length :]
        kinds = {"F32": "<f4", "U16": "<u2"}
        expected = {
            name: np.frombuffer(data[slice(*entry["data_offsets"])], kinds[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items()
        }
        assert_same_bands(decode_value(value, key), expected)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ({}, "no bands"),
        ({"B10": np.zeros((60, 60), "<u2")}, "B10"),
        ({"B02": np.zeros((60, 60), "<u2")}, r"B02 .*\(120, 120\)"),
        ({"B02": np.zeros((120, 120), "<f4")}, "B02 is float32"),
        ({"VV": np.zeros((120, 120), "<f8")}, "VV is float64"),
        ({"VV": np.zeros((120, 120), ">f4")}, "VV"),
        ({"Data": np.zeros((120, 120), "<u2"), "B02": np.zeros((120, 120), "<u2")}, "Data"),
    ],
)
def test_what_is_no_bigearthnet_band_is_neither_written_nor_read(bands: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_safetensors(bands)
    if "VV" not in bands or bands["VV"].dtype.byteorder != ">":  # safetensors files have no byte order
        with pytest.raises(CorruptTileError, match="tile_7"):
            decode_value(safetensors.numpy.save(bands), "tile_7")


def test_a_reference_map_is_read_under_its_own_key_only() -> None:
    value = encode_safetensors({"Data": np.full((120, 120), 311, "<u2")})
    assert decode_value(value, "tile_reference_map")["Data"].max() == 311
    with pytest.raises(CorruptTileError, match="Data"):
        decode_value(value, "tile")
    with pytest.raises(CorruptTileError, match="B02"):
        decode_value(encode_safetensors(some_bands(("B02",))), "tile_reference_map")


def test_only_the_bands_asked_for_come_in_their_order() -> None:
    value = encode_safetensors(some_bands())
    assert list(decode_value(value, "tile", ["VV", "B03"])) == ["VV", "B03"]


def test_a_band_that_is_not_stored_is_refused_by_name() -> None:
    with pytest.raises(CorruptTileError, match=r"tile_9.*no band B03.*B02"):
        decode_value(encode_safetensors(some_bands(("B02",))), "tile_9", ["B02", "B03"])


def test_arrays_do_not_refer_to_the_stored_bytes(v1: V1Writer) -> None:
    bands = some_bands()
    for value in (encode_safetensors(bands), v1.value(bands)):
        stored = bytearray(value)
        decoded = decode_value(memoryview(stored), "tile")
        stored[:] = bytes(len(stored))
        assert_same_bands(decoded, bands)
        assert all(array.flags.writeable and array.flags.aligned for array in decoded.values())


# v1


def test_v1_values_give_back_what_python_pickled(v1: V1Writer) -> None:
    bands = some_bands()
    assert_same_bands(decode_value(v1.value(bands, labels=["Pastures"], new_labels=["Pastures"]), "tile"), bands)


def test_v1_values_of_one_sensor_are_read(v1: V1Writer) -> None:
    bands = some_bands()
    for sensor, names in (("s1_patch", S1_BANDS), ("s2_patch", S2_BANDS)):
        value = pickle.dumps(v1.patch(bands).state[sensor], protocol=4)
        assert_same_bands(decode_value(value, "tile"), {name: bands[name] for name in names})


class ReferenceUnpickler(pickle.Unpickler):
    """Python's unpickler with real numpy arrays and empty classes; for trusted values only."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        assert module.startswith("bigearthnet_patch_interface.")
        return type(name, (), {"__setstate__": lambda self, state: setattr(self, "state", state)})


def test_real_v1_values_equal_what_the_unpickler_reads(real_v1: dict[str, bytes]) -> None:
    assert len(real_v1) == 78
    for key, value in real_v1.items():
        patch = ReferenceUnpickler(io.BytesIO(value)).load()
        attributes = {**patch.state["s1_patch"].state, **patch.state["s2_patch"].state}
        fields = [
            band.state["__dict__"] for name, band in attributes.items() if name.startswith("band") and name != "bands"
        ]
        assert_same_bands(decode_value(value, key), {field["name"]: field["data"] for field in fields})
        assert decode_labels(value, key) == list(dict.fromkeys(patch.state["new_labels"]))


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ({"new_labels": ["Marine waters", "Pastures", "Marine waters"]}, ["Marine waters", "Pastures"]),
        ({"new_labels": None, "labels": ["Airports"]}, None),
        ({"new_labels": []}, None),
        ({}, None),
    ],
)
def test_v1_labels_come_once_each_or_not_at_all(v1: V1Writer, stored: dict[str, Any], read: list[str] | None) -> None:
    assert decode_labels(v1.value(some_bands(), **stored), "tile") == read


def outcome(value: bytes) -> Any:
    """What a value gives: labels and bands, or the error of each."""
    found = []
    for read in (decode_labels, decode_value):
        try:
            found.append(read(value, "tile"))
        except CorruptTileError as error:
            found.append(str(error))
    labels, bands = found
    return labels, {name: array.tobytes() for name, array in bands.items()} if isinstance(bands, dict) else bands


def test_values_that_differ_in_pixels_alone_are_interpreted_once(v1: V1Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_known", codecs._KnownValues())
    tiles = [some_bands(seed=seed) for seed in range(3)]
    values = [v1.value(tile, new_labels=["Pastures"]) for tile in tiles]
    decode_value(values[0], "tile")
    monkeypatch.setattr(codecs, "read_pickle", None)  # what calls it now is refused
    for tile, value in zip(tiles, values, strict=True):
        assert_same_bands(decode_value(value, "tile"), tile)
        assert decode_labels(value, "tile") == ["Pastures"]
    with pytest.raises(CorruptTileError, match="tile_6"):
        decode_value(v1.value(tiles[0], new_labels=["Marine waters"]), "tile_6")


def test_bands_that_share_their_bytes_are_read_again_and_again(v1: V1Writer) -> None:
    bands = some_bands()
    bands["VV"] = bands["VH"]
    value = pickle.dumps(v1.patch(bands).state["s1_patch"], protocol=4)
    for _ in range(2):
        assert_same_bands(decode_value(value, "tile"), {name: bands[name] for name in S1_BANDS})


def test_a_value_like_a_known_one_gives_what_interpreting_it_gives(
    real_v1: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = next(iter(real_v1.values()))
    original = np.frombuffer(value, np.uint8)
    pixels = {begin: end for _, _, begin, end in codecs._v1_places(value, "tile").values()}
    outside = np.ones(len(value), bool)
    for begin, end in pixels.items():
        outside[begin:end] = False
    rng = np.random.default_rng(0)
    places = [*pixels, *np.flatnonzero(outside)[::4]]
    cut_short = [value[:-1], value[: max(pixels) + 100], value + b".", value[:-1] + b"0."]
    mutants = []
    for place in places:
        mutant = original.copy()
        mutant[place] ^= 1 << rng.integers(8)
        mutants.append(mutant.tobytes())
    read = 0
    for mutant in mutants + cut_short:
        monkeypatch.setattr(codecs, "_known", codecs._KnownValues())
        expected = outcome(mutant)
        monkeypatch.setattr(codecs, "_known", codecs._KnownValues())
        outcome(value)
        assert outcome(mutant) == expected
        read += isinstance(expected[1], dict)
    assert 14 <= read < len(mutants)


@pytest.mark.parametrize("labels", [["Lava"], "Pastures", [["Pastures"]], [3]])
def test_labels_that_are_none_of_the_19_are_refused(v1: V1Writer, labels: Any) -> None:
    assert "Pastures" in LABELS
    with pytest.raises(CorruptTileError, match="tile_3"):
        decode_labels(v1.value(some_bands(), new_labels=labels), "tile_3")


def test_v2_values_carry_no_labels() -> None:
    assert decode_labels(encode_safetensors(some_bands()), "tile") is None


@pytest.mark.parametrize(
    "change",
    [
        {"B02": np.zeros((60, 60), "<u2")},
        {"B02": np.zeros((120, 120), ">u2")},
        {"B02": np.zeros((120, 120), "<i2")},
        {"B02": np.asfortranarray(np.arange(14400, dtype="<u2").reshape(120, 120))},
        {"VV": np.zeros((120, 120), "<f8")},
        {"VV": np.zeros((120, 120, 1), "<f4")},
        {"VV": [[0.0] * 120] * 2},
        {"VV": "no array"},
        {"VV": None},
    ],
)
def test_v1_arrays_of_another_shape_type_or_order_are_refused(v1: V1Writer, change: dict[str, Any]) -> None:
    (band,) = change
    with pytest.raises(CorruptTileError, match=rf"'tile_5'.*({band}|opcode)"):
        decode_value(v1.value(some_bands() | change), "tile_5")


def test_a_v1_value_that_lacks_a_band_or_swaps_two_is_refused(v1: V1Writer) -> None:
    bands = some_bands()
    with pytest.raises(CorruptTileError, match="tile"):
        decode_value(v1.value({name: array for name, array in bands.items() if name != "B05"}), "tile")
    patch = v1.patch(bands)
    s2 = patch.state["s2_patch"].state
    s2["band02"], s2["band03"] = s2["band03"], s2["band02"]
    with pytest.raises(CorruptTileError, match="B02"):
        decode_value(pickle.dumps(patch, protocol=4), "tile")


# Formats


def test_formats_are_told_by_content(v1: V1Writer) -> None:
    assert detect_format(v1.value(some_bands()), "tile") == "v1"
    assert detect_format(encode_safetensors(some_bands()), "tile") == "v2"


def test_a_safetensors_header_whose_length_begins_like_a_pickle_is_no_pickle() -> None:
    header = b'{"VV":{"dtype":"F32","shape":[120,120],"data_offsets":[0,57600]}}'.ljust(0x80)
    value = struct.pack("<Q", len(header)) + header + bytes(57600)
    assert value[0] == 0x80
    assert detect_format(value, "tile") == "v2"
    assert decode_value(value, "tile")["VV"].shape == (120, 120)


@pytest.mark.parametrize(
    "value", [b"", b"\x80", b"{", b"not a tile at all", b"\x89PNG\r\n\x1a\n", b"\xff" * 100, bytes(64)]
)
def test_anything_else_is_refused_by_its_key(value: bytes) -> None:
    for read in (decode_value, decode_labels):
        with pytest.raises(CorruptTileError, match="tile_2"):
            read(value, "tile_2")


def test_values_over_the_limit_are_refused_unread(v1: V1Writer) -> None:
    for value in (v1.value(some_bands()), encode_safetensors(some_bands())):
        with pytest.raises(CorruptTileError, match=f"{MAX_VALUE_BYTES}"):
            decode_value(value.ljust(MAX_VALUE_BYTES + 1), "tile")


# Hostile values


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("protocol", range(6))
def test_payloads_do_not_run_at_any_protocol(v1: V1Writer, tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"
    payload = Payload(marker)
    bands: dict[str, Any] = dict(some_bands())
    values = [
        pickle.dumps(payload, protocol=protocol),
        pickle.dumps([payload], protocol=protocol),
        v1.value(bands, protocol=protocol, new_labels=payload),
        v1.value(bands | {"VV": payload}, protocol=protocol),
    ]
    for value in values:
        for read in (decode_value, decode_labels):
            with pytest.raises(CorruptTileError, match="tile_1"):
                read(value, "tile_1")
    assert not marker.exists()
    pickle.loads(values[0])  # the payload is live: Python's own unpickler runs it
    assert marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # GLOBAL
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x82\x01.",  # EXT1
        b"Pname\n.",  # PERSID
        b"\x8c\x08builtins\x8c\x04eval\x93.",
        b"\x8c\x05numpy\x8c\x04load\x93.",
        b"\x8c\x05numpy\x8c\x07ndarray\x93)\x81.",  # a permitted name made in a way no archive does
        b"\x8c\x05numpy\x8c\x07ndarray\x93)R.",
        b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f4\x85R.",  # permitted, but no patch
        b"}b.",
        b"N}b.",
        b"\x8e" + struct.pack("<Q", 1 << 60) + b".",  # BINBYTES8
        b"\x96" + struct.pack("<Q", 1 << 60) + b".",  # BYTEARRAY8
        b"B" + struct.pack("<I", 0xFFFFFFFF) + b".",  # more bytes than there are
        b"Nr" + struct.pack("<I", 0x7FFFFFFF) + b".",  # LONG_BINPUT: makes Python's unpickler allocate the whole memo
        b"j" + struct.pack("<I", 0xFFFFFFFF) + b".",
        b"h\x00.",
        b"0.",
        b".",
        b"",
        b"t.",
        b"\x86.",
        b"\x8c\xff\xff.",
        b"\x8c\x01\xff.",
        b"(K\x01K\x02\x8f\x90.",
        b"}(K\x01K\x02u.",
    ],
)
def test_every_other_program_is_refused(program: bytes) -> None:
    with pytest.raises(CorruptTileError, match="tile_4"):
        decode_value(b"\x80\x04" + program, "tile_4")


def laughs(levels: int, opcode: bytes) -> bytes:
    """A tuple (or list) of two of a tuple of two of ...: small to write, 2 ** levels to walk."""
    return b")\x94" + b"".join(
        b"h" + bytes([level]) + b"h" + bytes([level]) + opcode + b"\x94" for level in range(levels)
    )


@pytest.mark.parametrize(
    "program",
    [
        laughs(200, b"\x86") + b".",
        b"}" + laughs(200, b"\x86") + b"Ns.",  # as a dict key it would be hashed: 2 ** 200 steps
        b"\x8f(" + laughs(200, b"\x86") + b"\x90.",  # as a set member
        b")" + b"\x85" * (MAX_PICKLE_OPERATIONS - 100) + b".",  # deep
        b")" + b"\x85" * 900_000 + b".",
        b"}" * 900_000 + b".",
        b"]\x94" + b"h\x00h\x00a" * 3000 + b".",  # in itself
    ],
)
def test_bombs_cost_neither_time_nor_memory(program: bytes) -> None:
    value = b"\x80\x04" + program
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(CorruptTileError, match="bomb") as caught:
        decode_value(value, "bomb")
    elapsed = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert elapsed < 2
    assert peak < 8 << 20
    assert len(str(caught.value)) < 500


def test_bombs_inside_a_patch_are_refused_quickly(v1: V1Writer) -> None:
    laugh: Any = ()
    for _ in range(100):
        laugh = (laugh, laugh)
    bands: dict[str, Any] = dict(some_bands())
    started = time.process_time()
    with pytest.raises(CorruptTileError, match="bomb"):
        decode_value(v1.value(bands | {"VV": laugh}), "bomb")
    for labels in (laugh, [laugh]):
        with pytest.raises(CorruptTileError, match="bomb"):
            decode_labels(v1.value(bands, new_labels=labels), "bomb")
    assert time.process_time() - started < 2


def test_nested_json_headers_are_refused() -> None:
    header = b"{" + b'"a":{' * 100_000
    with pytest.raises(CorruptTileError, match="tile"):
        decode_value(struct.pack("<Q", len(header)) + header, "tile")


@pytest.fixture(scope="module")
def fuzzed(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What 24,000 mutants of real values did in a process of their own, which watches what Python does meanwhile."""
    canary = tmp_path_factory.mktemp("fuzz") / "canary"
    script = Path(__file__).parent.parent / "fuzz_codecs.py"
    command = [sys.executable, str(script), str(shared_data), str(canary)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not canary.exists()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_mutants_of_real_values_are_a_tile_or_one_clear_error_that_names_the_key(fuzzed: dict[str, Any]) -> None:
    assert fuzzed["wrong"] == []
    kinds = fuzzed["kinds"]
    assert sum(sum(outcomes.values()) for outcomes in kinds.values()) >= 24_000
    assert sum(sum(kinds[kind].values()) for kind in kinds if not kind.startswith("v2")) >= 20_000
    wanted = {"bits", "bytes", "cuts", "deletions", "repetitions", "opcodes", "swaps", "payloads", "nests", "laughs"}
    assert {*wanted, *(f"protocol {number}" for number in range(6)), "v2 bits", "v2 header"} == set(kinds)
    for kind, outcomes in kinds.items():
        assert outcomes["refused"] > 20, kind
    for kind in ("bits", "bytes", "opcodes", "protocol 4", "v2 bits"):
        assert kinds[kind]["read"] > 10, kind
    for kind in ("payloads", "nests", "laughs", "protocol 0", "protocol 1", "protocol 2", "protocol 3", "protocol 5"):
        assert kinds[kind].get("read", 0) == 0, kind


def test_no_mutant_runs_code(fuzzed: dict[str, Any]) -> None:
    assert fuzzed["live"], "the payloads must be live, or this would prove nothing"
    assert fuzzed["events"] == []


def test_no_mutant_takes_long_or_much_memory(fuzzed: dict[str, Any]) -> None:
    assert fuzzed["slowest_seconds"] < 0.5
    assert fuzzed["memory_growth_bytes"] < 32 << 20
