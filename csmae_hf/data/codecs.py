"""From the bytes of one stored tile to its bands, and back.

BigEarthNet v2 (rico-hdl) stores safetensors; BigEarthNet-MM v1 (bigearthnet_encoder) stores pickles of its own classes. A pickle is
a program, and archives come from strangers, so the v1 reader here is no unpickler: it interprets the few opcodes those archives use,
builds inert records, never imports or calls anything, and then checks every array it takes out.

Whatever the bytes of a value, reading it takes less than 16 MiB beside the value and less than half a second of processor time:
tests/fuzz_codecs.py measures it on 24,000 mutants of real values.
"""

import json
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors.numpy

from csmae_hf.bigearthnet import BAND_SIZE, LABELS, S1_BANDS, S2_BANDS, SENSOR_OF_BAND

MAX_VALUE_BYTES = 1 << 20
"""Values above this are refused unread; a real tile has 115,344 to 277,677 bytes."""

MAX_PICKLE_OPERATIONS = 10_000
"""Opcodes a v1 value may hold; a real tile has about 1,040. Each makes at most one object of constant size, so this bounds memory."""

REFERENCE_MAP_SUFFIX = "_reference_map"
"""Ends the key of a v2 land-cover map; its only tensor is `Data`."""

REFERENCE_MAP_NAME = "Data"
_REFERENCE_MAP_SIZE = 120

TileFormat = Literal["v1", "v2"]


class CorruptTileError(ValueError):
    """A stored value is not the tile it should be; the message names the tile's key and what is wrong."""


def detect_format(value: bytes | bytearray | memoryview, key: str) -> TileFormat:
    """Tell a v1 value from a v2 value by its first bytes.

    Args:
        value: The stored bytes.
        key: The tile's key, for the message.

    Returns:
        "v2" for safetensors (an 8-byte little-endian header length, then `{`), "v1" for a pickle of protocol 2 or newer (0x80).

    Raises:
        CorruptTileError: If it is neither.
    """
    # safetensors first: its header length may well begin with 0x80, while the first 8 bytes of a pickle are never so small a number
    if len(value) > 8 and int.from_bytes(value[:8], "little") <= len(value) - 8 and value[8] == ord("{"):
        return "v2"
    if len(value) > 1 and value[0] == 0x80:
        return "v1"
    raise CorruptTileError(
        f"Tile {key!r}: its {len(value)} bytes are neither a safetensors file (BigEarthNet v2) nor a pickle (BigEarthNet v1). "
        "Write the tile again from its source."
    )


def decode_value(
    value: bytes | memoryview, key: str, bands: Collection[str] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Read the bands of one stored value, of either format.

    Args:
        value: The stored bytes. The arrays do not refer to them.
        key: The tile's key, for messages; one that ends in `_reference_map` holds a land-cover map instead of bands.
        bands: Names of the bands to return, in this order; default all that are stored, in alphabetical order.

    Returns:
        (H, W) by band at native resolution: S1 float32 in dB, S2 uint16 digital numbers; `{"Data": uint16}` for a reference map.

    Raises:
        CorruptTileError: Whatever is wrong with the value, or if it lacks a band asked for.
    """
    _check_size(value, key)
    if detect_format(value, key) == "v2":
        return view_value(bytearray(value), key, bands)  # one copy of all is cheaper than one of each
    return {band: view.copy() for band, view in view_value(value, key, bands).items()}  # v1 arrays are unaligned


def view_value(
    value: bytes | bytearray | memoryview, key: str, bands: Collection[str] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Look at the bands of one stored value, of either format, as [`decode_value`] but without copying them.

    Args:
        value: As of [`decode_value`]. The arrays refer to it, and must not outlive it.
        key: As of [`decode_value`].
        bands: As of [`decode_value`].

    Returns:
        As [`decode_value`]; read-only, and perhaps unaligned.

    Raises:
        CorruptTileError: As [`decode_value`].
    """
    _check_size(value, key)
    arrays = _v1_views(value, key) if detect_format(value, key) == "v1" else _v2_views(value, key)
    names = sorted(arrays) if bands is None else list(bands)
    absent = [band for band in names if band not in arrays]
    if absent:
        raise CorruptTileError(f"Tile {key!r} has no band {', '.join(absent)}; it has {', '.join(sorted(arrays))}.")
    return {band: arrays[band] for band in names}


def decode_labels(value: bytes | memoryview, key: str) -> list[str] | None:
    """Read the 19-class labels a v1 value carries.

    Args:
        value: The stored bytes.
        key: The tile's key, for messages.

    Returns:
        Names in the stored order, each once (two old classes may have become the same new one). None where there are none: a v2
        value, a v1 value written without labels, or one whose every label was dropped by the 19-class nomenclature.

    Raises:
        CorruptTileError: If the value is broken or a label is not one of the 19.
    """
    _check_size(value, key)
    if detect_format(value, key) == "v2":
        return None
    labels = _attributes(_read_pickle(value, key), _PATCHES, key).get("new_labels")
    if labels is None:
        return None
    if not isinstance(labels, list) or not all(isinstance(label, str) and label in _LABEL_SET for label in labels):
        raise CorruptTileError(f"Tile {key!r}: its new_labels are not a list of names of the 19-class nomenclature.")
    return list(dict.fromkeys(labels)) or None


def encode_safetensors(bands: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Write bands as a BigEarthNet v2 value, the layout of rico-hdl.

    Args:
        bands: (H, W) by band name, each of its native size and type: S1 float32 in dB, S2 uint16 digital numbers.

    Returns:
        A safetensors file. Equal bands give equal bytes, whatever their order.

    Raises:
        ValueError: If there is no band, one is unknown, or one has another shape or type than BigEarthNet's.
    """
    _check_arrays(bands)
    return safetensors.numpy.save({name: np.ascontiguousarray(bands[name]) for name in sorted(bands)})


def _check_size(value: bytes | bytearray | memoryview, key: str) -> None:
    """Refuse a value too large to be a tile before anything reads it."""
    if len(value) > MAX_VALUE_BYTES:
        raise CorruptTileError(
            f"Tile {key!r}: {len(value)} bytes, more than the {MAX_VALUE_BYTES} a tile may have. It is not a BigEarthNet tile."
        )


def _dtype(band: str) -> np.dtype[Any]:
    """The stored type of a band: float32 for S1, uint16 for S2 and reference maps."""
    return np.dtype("<f4" if SENSOR_OF_BAND.get(band) == "s1" else "<u2")


def _check_arrays(arrays: Mapping[str, np.ndarray[Any, Any]], reference_map: bool | None = None) -> None:
    """Refuse anything but known bands of their native size and type.

    Args:
        arrays: By name.
        reference_map: Whether they must be a reference map, or must not; None where either will do.

    Raises:
        ValueError: Names the band and what was expected.
    """
    if not arrays:
        raise ValueError(f"no bands at all; expected some of {', '.join(BAND_SIZE)}")
    is_map = set(arrays) == {REFERENCE_MAP_NAME} and reference_map is not False
    sizes = {REFERENCE_MAP_NAME: _REFERENCE_MAP_SIZE} if is_map or reference_map else BAND_SIZE
    for name, array in arrays.items():
        if name not in sizes:
            raise ValueError(f"unknown band {name!r}; expected some of {', '.join(sizes)}")
        shape, dtype = (sizes[name], sizes[name]), _dtype(name)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"band {name} is {array.dtype} of shape {array.shape}; expected {dtype} of shape {shape}")


def _v2_views(value: bytes | bytearray | memoryview, key: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a safetensors value, checked, as views of its bytes."""
    start = 8 + int.from_bytes(value[:8], "little")
    try:
        read_layout = _v2_layout if start <= _LONGEST_HEADER else _v2_layout.__wrapped__  # what is kept stays small
        layout = read_layout(bytes(value[:start]), len(value), key.endswith(REFERENCE_MAP_SUFFIX))
    except Exception as error:  # SafetensorError, KeyError, MemoryError...: the bytes are anyone's
        raise CorruptTileError(f"Tile {key!r}: broken safetensors value: {error}") from error
    return {name: np.ndarray(shape, dtype, value, start + begin) for name, dtype, shape, begin in layout}


_LONGEST_HEADER = 4096  # a real tile's has about 900 bytes


@lru_cache(maxsize=64)
def _v2_layout(header: bytes, size: int, reference_map: bool) -> list[tuple[str, np.dtype[Any], tuple[int, ...], int]]:
    """Name, type, shape and begin of each array of a safetensors file of this header and size, checked.

    All tiles of an archive have the same header but for a few, so it is read once. safetensors itself judges it, on a file of zeros;
    whether a file is whole depends on nothing else.
    """
    arrays = safetensors.numpy.load(header + bytes(size - len(header)))
    _check_arrays(arrays, reference_map=reference_map)
    places = json.loads(header[8:])
    return [
        (name, _dtype(name), array.shape, places[name]["data_offsets"][0]) for name, array in sorted(arrays.items())
    ]


def _v1_views(value: bytes | bytearray | memoryview, key: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a v1 value, checked, as views of its bytes."""
    patch = _read_pickle(value, key)
    if patch.name != _MERGED:
        return _sensor_views(patch, (_S1_PATCH, _S2_PATCH), key)
    attributes = _attributes(patch, _PATCHES, key)
    return {
        **_sensor_views(attributes.get("s1_patch"), (_S1_PATCH,), key),
        **_sensor_views(attributes.get("s2_patch"), (_S2_PATCH,), key),
    }


def _sensor_views(patch: Any, classes: Collection[str], key: str) -> dict[str, np.ndarray[Any, Any]]:
    """The bands of one sensor's patch object."""
    attributes = _attributes(patch, classes, key)
    bands = S1_BANDS if patch.name == _S1_PATCH else S2_BANDS
    return {band: _band_view(attributes.get(f"band{band.removeprefix('B')}"), band, key) for band in bands}


def _band_view(record: Any, band: str, key: str) -> np.ndarray[Any, Any]:
    """The array of one band object; its type, byte order, memory order, shape and length must be BigEarthNet's."""
    fields = _attributes(record, _BANDS, key).get("__dict__")
    if not isinstance(fields, dict) or fields.get("name") != band:
        raise CorruptTileError(f"Tile {key!r}: what is stored as band {band} is not that band.")
    size, dtype = BAND_SIZE[band], _dtype(band)
    raw = _array_bytes(fields.get("data"), (size, size), dtype)
    if raw is None or len(raw) != size * size * dtype.itemsize:
        raise CorruptTileError(f"Tile {key!r}: band {band} is not a {dtype} array of shape ({size}, {size}).")
    return np.frombuffer(raw, dtype).reshape(size, size)


def _array_bytes(record: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> memoryview | None:
    """The raw bytes of a pickled ndarray of just this shape and type in C order; None if it is anything else."""
    if not isinstance(record, _Record) or record.name != "_reconstruct" or not isinstance(record.state, tuple):
        return None
    if len(record.state) != 5 or record.state[:2] != (1, shape) or record.state[3] is not False:
        return None
    stored, raw = record.state[2], record.state[4]
    if not isinstance(stored, _Record) or stored.name != "dtype" or stored.arguments[:1] != (dtype.str[1:],):
        return None
    if not isinstance(stored.state, tuple) or stored.state[:2] != (3, "<"):
        return None
    return raw if isinstance(raw, memoryview) else None


def _attributes(record: Any, classes: Collection[str], key: str) -> dict[Any, Any]:
    """The attributes of an object of one of these classes."""
    if not isinstance(record, _Record) or record.name not in classes or not isinstance(record.state, dict):
        raise CorruptTileError(
            f"Tile {key!r}: expected a stored {' or '.join(sorted(classes))} and found something else."
        )
    return record.state


_LABEL_SET = frozenset(LABELS)
_MERGED, _S1_PATCH, _S2_PATCH = "BigEarthNet_S1_S2_Patch", "BigEarthNet_S1_Patch", "BigEarthNet_S2_Patch"
_PATCHES = frozenset((_MERGED, _S1_PATCH, _S2_PATCH))
_BANDS = frozenset(("BenS1_Band", "BenS2_10mBand", "BenS2_20mBand", "BenS2_60mBand"))
_FUNCTIONS = frozenset(("dtype", "_reconstruct"))
_GLOBALS = frozenset(
    {
        ("bigearthnet_patch_interface.merged_interface", _MERGED),
        ("bigearthnet_patch_interface.s1_interface", _S1_PATCH),
        ("bigearthnet_patch_interface.s2_interface", _S2_PATCH),
        *(("bigearthnet_patch_interface.band_interface", name) for name in _BANDS),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }
)
"""All that v1 archives name (data_formats.md 1.4); each becomes a name, none is ever imported."""


class _Global(NamedTuple):
    """A class or function that a pickle names: inert."""

    name: str


class _Record:
    """What a pickle wanted made of a class or function: the name, the arguments and the state, and nothing done with them."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...]):
        self.name = name
        self.arguments = arguments
        self.state: Any = None


class _RefusedPickleError(ValueError):
    """A pickle does something that no v1 archive does."""


def _read_pickle(value: bytes | bytearray | memoryview, key: str) -> _Record:
    """Read a v1 value into records, turning whatever goes wrong into one error."""
    try:
        return _PickleReader(memoryview(value)).read()
    except Exception as error:  # IndexError, UnicodeDecodeError, MemoryError...: the bytes are anyone's
        reason = error if isinstance(error, _RefusedPickleError) else f"broken pickle ({type(error).__name__})"
        raise CorruptTileError(f"Tile {key!r}: {reason}. Nothing in it was run.") from error


class _PickleReader:
    """Interprets the opcodes that v1 archives consist of (pickle protocol 4) and refuses every other.

    Nothing is imported, called, compared or hashed but strings, lengths are checked before they are used, and the work is bounded by
    `MAX_PICKLE_OPERATIONS`. So neither code, nor deep or exponentially shared structures, nor claimed sizes do harm.

    Args:
        view: The pickle.
    """

    def __init__(self, view: memoryview):
        self.view = view
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []

    def read(self) -> _Record:
        """Run to the end.

        Returns:
            The one object the pickle holds.

        Raises:
            _RefusedPickleError: If it holds an opcode, a global, a length or an object that no v1 archive has.
            Exception: Any of those that broken bytes cause (IndexError, UnicodeDecodeError...).
        """
        for _ in range(MAX_PICKLE_OPERATIONS):
            code = self._byte()
            if code == _STOP:
                return self._result()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise _RefusedPickleError(f"opcode 0x{code:02x} at byte {self.position - 1} is in no v1 archive")
            operation(self)
        raise _RefusedPickleError(f"more than {MAX_PICKLE_OPERATIONS} operations, which no v1 archive has")

    def _result(self) -> _Record:
        if (
            len(self.stack) != 1
            or self.marks
            or not isinstance(self.stack[0], _Record)
            or self.position != len(self.view)
        ):
            raise _RefusedPickleError("it does not end in one whole patch")
        return self.stack[0]

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.view):
            raise _RefusedPickleError(f"cut short: {count} bytes wanted at {self.position} of {len(self.view)}")
        taken = self.view[self.position : end]
        self.position = end
        return taken

    def _byte(self) -> int:
        byte = self.view[self.position]
        self.position += 1
        return byte

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _top(self, kind: type) -> Any:
        top = self.stack[-1]
        if not isinstance(top, kind):
            raise _RefusedPickleError(f"a {type(top).__name__} stands where a {kind.__name__} belongs")
        return top

    def _pop(self, kind: type) -> Any:
        self._top(kind)
        return self.stack.pop()

    def proto(self) -> None:
        if self._byte() != 4:
            raise _RefusedPickleError("not of pickle protocol 4, in which v1 archives are written")

    def frame(self) -> None:
        if self._number(8) > len(self.view) - self.position:
            raise _RefusedPickleError("cut short: a frame reaches past the end")

    def memoize(self) -> None:
        self.memo.append(self.stack[-1])

    def binget(self) -> None:
        self.stack.append(self.memo[self._byte()])

    def long_binget(self) -> None:
        self.stack.append(self.memo[self._number(4)])

    def short_binunicode(self) -> None:
        self.stack.append(str(self._take(self._byte()), "utf-8"))

    def binint(self) -> None:
        self.stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def binint1(self) -> None:
        self.stack.append(self._byte())

    def binbytes(self) -> None:
        self.stack.append(self._take(self._number(4)))

    def short_binbytes(self) -> None:
        self.stack.append(self._take(self._byte()))

    def newtrue(self) -> None:
        self.stack.append(True)

    def newfalse(self) -> None:
        self.stack.append(False)

    def none(self) -> None:
        self.stack.append(None)

    def empty_tuple(self) -> None:
        self.stack.append(())

    def empty_list(self) -> None:
        self.stack.append([])

    def empty_dict(self) -> None:
        self.stack.append({})

    def empty_set(self) -> None:
        self.stack.append(set())

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def tuple_since_mark(self) -> None:
        self.stack.append(tuple(self._since_mark()))

    def tuple1(self) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def tuple2(self) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def tuple3(self) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def append(self) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def appends(self) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def additems(self) -> None:
        items = self._since_mark()
        self._top(set).update(_strings(items))

    def setitem(self) -> None:
        value = self.stack.pop()
        name = self._pop(str)
        self._top(dict)[name] = value

    def setitems(self) -> None:
        items = self._since_mark()
        self._top(dict).update(zip(_strings(items[::2]), items[1::2], strict=True))

    def stack_global(self) -> None:
        name, module = self._pop(str), self._pop(str)
        if (module, name) not in _GLOBALS:
            raise _RefusedPickleError(
                f"it names {f'{module}.{name}'[:100]!r}, which no v1 archive does: do not trust this archive"
            )
        self.stack.append(_Global(name))

    def newobj(self) -> None:
        arguments, maker = self._pop(tuple), self._pop(_Global)
        if arguments or maker.name not in _PATCHES | _BANDS:
            raise _RefusedPickleError(f"it makes a {maker.name} in a way no v1 archive does")
        self.stack.append(_Record(maker.name, ()))

    def reduce(self) -> None:
        arguments, maker = self._pop(tuple), self._pop(_Global)
        if maker.name not in _FUNCTIONS:
            raise _RefusedPickleError(f"it calls {maker.name}, which no v1 archive does")
        self.stack.append(_Record(maker.name, arguments))

    def build(self) -> None:
        state = self.stack.pop()
        self._top(_Record).state = state


def _strings(items: list[Any]) -> list[str]:
    """The items, which must be strings: hashing anything else could take forever or overflow the C stack."""
    if not all(isinstance(item, str) for item in items):
        raise _RefusedPickleError("a key or set member is no string")
    return items


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[_PickleReader], None]] = {
    0x80: _PickleReader.proto,
    0x95: _PickleReader.frame,
    0x94: _PickleReader.memoize,
    ord("h"): _PickleReader.binget,
    ord("j"): _PickleReader.long_binget,
    0x8C: _PickleReader.short_binunicode,
    ord("J"): _PickleReader.binint,
    ord("K"): _PickleReader.binint1,
    ord("B"): _PickleReader.binbytes,
    ord("C"): _PickleReader.short_binbytes,
    0x88: _PickleReader.newtrue,
    0x89: _PickleReader.newfalse,
    ord("N"): _PickleReader.none,
    ord(")"): _PickleReader.empty_tuple,
    ord("]"): _PickleReader.empty_list,
    ord("}"): _PickleReader.empty_dict,
    0x8F: _PickleReader.empty_set,
    ord("("): _PickleReader.mark,
    ord("t"): _PickleReader.tuple_since_mark,
    0x85: _PickleReader.tuple1,
    0x86: _PickleReader.tuple2,
    0x87: _PickleReader.tuple3,
    ord("a"): _PickleReader.append,
    ord("e"): _PickleReader.appends,
    0x90: _PickleReader.additems,
    ord("s"): _PickleReader.setitem,
    ord("u"): _PickleReader.setitems,
    0x93: _PickleReader.stack_global,
    0x81: _PickleReader.newobj,
    ord("R"): _PickleReader.reduce,
    ord("b"): _PickleReader.build,
}
"""The opcodes of real v1 archives (data_formats.md 1.4), by code."""
