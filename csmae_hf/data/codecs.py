"""From the bytes of one stored tile to its bands, and back.

BigEarthNet v2 (rico-hdl) stores safetensors; BigEarthNet-MM v1 (bigearthnet_encoder) stores pickles of its own classes. A pickle is
a program, and stores come from strangers, so the v1 reader here is no unpickler: it interprets the few opcodes those stores use,
builds inert records, never imports or calls anything (v1_pickles.py), and then checks every array it takes out.

Whatever the bytes of a value, reading it takes less than 32 MiB beside the value and less than half a second of processor time:
tests/fuzz_codecs.py measures it on 24,000 mutants of real values.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors.numpy

from csmae_hf.bigearthnet import BAND_SIZE, LABELS, REFERENCE_MAP_NAME, REFERENCE_MAP_SUFFIX, SENSOR_OF_BAND, SENSORS
from csmae_hf.data.v1_pickles import (
    BAND_CLASSES,
    MERGED,
    PATCH_CLASSES,
    SENSOR_OF_PATCH,
    Bytes,
    Record,
    RefusedPickleError,
    read_pickle,
)

MAX_VALUE_BYTES = 1 << 20
"""Values above this are refused unread; a real tile has 115,344 to 277,677 bytes."""

_REFERENCE_MAP_SIZE = 120
_SENSOR_ENTRY = "sensor"  # of the metadata of a safetensors value whose sensor is not BigEarthNet's

TileFormat = Literal["v1", "v2"]
Place = tuple[np.dtype[Any], tuple[int, ...], int, int]  # type, shape, begin and end of an array in a value


class CorruptTileError(ValueError):
    """A stored value is not the tile it should be; the message names the tile's key and what is wrong."""


def detect_format(value: bytes | bytearray | memoryview, key: str) -> TileFormat:
    """Tell a v1 value, a pickle of protocol 2 or newer (0x80), from a v2 value, safetensors (an 8-byte header length, then `{`)."""
    if len(value) > MAX_VALUE_BYTES:
        raise CorruptTileError(
            f"Tile {key!r}: {len(value)} bytes, more than the {MAX_VALUE_BYTES} a tile may have. It is not a BigEarthNet tile."
        )
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
    """Read the bands of one stored value of either format, (H, W) each at native resolution, in memory of their own.

    `bands` are returned in their order; None for all that are stored, in alphabetical order. A key that ends in `_reference_map` holds
    a land-cover map (`Data`) instead. A `CorruptTileError` says whatever is wrong with the value.
    """
    if detect_format(value, key) == "v2":
        return view_value(bytearray(value), key, bands)  # one copy of all is cheaper than one of each
    return _copy_places(value, _select(_v1_places(value, key), key, bands))  # v1 arrays are unaligned


def view_value(
    value: bytes | bytearray | memoryview, key: str, bands: Collection[str] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Look at the bands of one stored value as [`decode_value`] reads them: the arrays refer to it, and may be unaligned."""
    places = (_v1_places if detect_format(value, key) == "v1" else _v2_places)(value, key)
    return {
        name: np.ndarray(shape, dtype, value, begin)
        for name, (dtype, shape, begin, _) in _select(places, key, bands).items()
    }


def decode_labels(value: bytes | memoryview, key: str) -> list[str] | None:
    """Read the names of the 19 classes a v1 value carries, in the stored order, each once.

    None where there are none: a v2 value, a v1 value written without labels, or one whose every label was dropped by the 19-class
    nomenclature. (Two old classes may have become the same new one.)
    """
    if detect_format(value, key) == "v2":
        return None
    tile = _known.find(value)
    if tile is None:
        patch = _read_patch(value, key)
        tile = _V1Tile({}, _patch_labels(patch, key))
        with suppress(CorruptTileError):  # arrays that cannot be read are no matter here
            _known.keep(value, tile._replace(places=_patch_places(patch, key)))
    return None if tile.labels is None else list(tile.labels)


def encode_safetensors(bands: Mapping[str, np.ndarray[Any, Any]], sensor: str | None = None) -> bytes:
    """Write bands as a BigEarthNet v2 value, the layout of rico-hdl.

    Args:
        bands: (H, W) by band name, each of its native size and type: S1 float32 in dB, S2 uint16 digital numbers.
        sensor: A sensor that is not BigEarthNet's; the value then says so, and may hold other bands, of any size and numeric type.

    Returns:
        A safetensors file. Equal bands give equal bytes, whatever their order.

    Raises:
        ValueError: If there is no band, one is unknown, or one has another shape or type than BigEarthNet's.
    """
    _check_arrays(bands, declared=sensor is not None)
    arrays = {name: np.ascontiguousarray(bands[name]) for name in sorted(bands)}
    value = safetensors.numpy.save(arrays, None if sensor is None else {_SENSOR_ENTRY: sensor})
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(
            f"the bands have {len(value)} bytes, more than the {MAX_VALUE_BYTES} of a tile; cut smaller ones"
        )
    return value


def _dtype(band: str) -> np.dtype[Any]:
    """The stored type of a band of BigEarthNet, or of a reference map."""
    return np.dtype(SENSORS[SENSOR_OF_BAND[band]].dtype if band in SENSOR_OF_BAND else "<u2")


def _check_arrays(
    arrays: Mapping[str, np.ndarray[Any, Any]], reference_map: bool | None = None, declared: bool = False
) -> None:
    """Refuse anything but bands of BigEarthNet in their native size and type, and others only if they are declared.

    `reference_map`: whether they must be one, or must not; None where either will do.
    """
    if not arrays:
        raise ValueError(f"no bands at all; expected some of {', '.join(BAND_SIZE)}")
    is_map = set(arrays) == {REFERENCE_MAP_NAME} and reference_map is not False
    sizes = {REFERENCE_MAP_NAME: _REFERENCE_MAP_SIZE} if is_map or reference_map else BAND_SIZE
    for name, array in arrays.items():
        if declared and name not in BAND_SIZE:
            if array.ndim != 2 or not array.size or array.dtype.kind not in "fiu" or array.dtype.byteorder == ">":
                raise ValueError(
                    f"band {name} is {array.dtype} of shape {array.shape}; expected numbers of shape (H, W)"
                )
            continue
        if name not in sizes:
            raise ValueError(f"unknown band {name!r}; expected some of {', '.join(sizes)}")
        shape, dtype = (sizes[name], sizes[name]), _dtype(name)
        if array.shape != shape or array.dtype != dtype:
            larger = array.ndim == 2 and min(array.shape) > max(shape)
            edge = sizes[name]
            cut = (
                f". Cut tiles out of it: gdal_translate -srcwin COLUMN ROW {edge} {edge} IN.tif OUT.tif"
                if larger
                else ""
            )
            raise ValueError(
                f"band {name} is {array.dtype} of shape {array.shape}; expected {dtype} of shape {shape}{cut}"
            )


def _select(stored: dict[str, Place], key: str, bands: Collection[str] | None) -> dict[str, Place]:
    """What is stored of the bands asked for, in their order; of all if none are named."""
    if bands is None:
        return stored
    try:
        return {band: stored[band] for band in bands}
    except KeyError:
        absent = [band for band in bands if band not in stored]
        raise CorruptTileError(f"Tile {key!r} has no band {', '.join(absent)}; it has {', '.join(stored)}.") from None


def _copy_places(value: bytes | memoryview, places: dict[str, Place]) -> dict[str, np.ndarray[Any, Any]]:
    """Copies of the arrays in memory of their own: in one piece, which is faster than one for each."""
    source = memoryview(value)
    copies = bytearray().join([source[begin:end] for _, _, begin, end in places.values()])
    start, arrays = 0, {}
    for name, (dtype, shape, begin, end) in places.items():
        arrays[name] = np.ndarray(shape, dtype, copies, start)
        start += end - begin
    return arrays


def _v2_places(value: bytes | bytearray | memoryview, key: str) -> dict[str, Place]:
    """Where the arrays of a safetensors value lie, checked."""
    start = 8 + int.from_bytes(value[:8], "little")
    try:
        read_layout = _v2_layout if start <= _LONGEST_HEADER else _v2_layout.__wrapped__  # what is kept stays small
        return read_layout(bytes(value[:start]), len(value), key.endswith(REFERENCE_MAP_SUFFIX))
    except Exception as error:  # SafetensorError, KeyError, MemoryError...: the bytes are anyone's
        raise CorruptTileError(f"Tile {key!r}: broken safetensors value: {error}") from error


_LONGEST_HEADER = 4096  # a real tile's has about 900 bytes


@lru_cache(maxsize=64)
def _v2_layout(header: bytes, size: int, reference_map: bool) -> dict[str, Place]:
    """Where the arrays of a safetensors file of this header and size lie, in alphabetical order, checked.

    All tiles of a store have the same header but for a few, so it is read once. safetensors itself judges it, on a file of zeros;
    whether a file is whole depends on nothing else.
    """
    arrays = safetensors.numpy.load(header + bytes(size - len(header)))
    entries, places = json.loads(header[8:]), {}
    _check_arrays(arrays, reference_map=reference_map, declared=_SENSOR_ENTRY in entries.get("__metadata__", ()))
    for name, array in sorted(arrays.items()):
        begin, end = entries[name]["data_offsets"]
        places[name] = (array.dtype, array.shape, len(header) + begin, len(header) + end)
    return places


class _V1Tile(NamedTuple):
    """What a v1 value holds: where the array of each band lies, and the names of its classes, None where there are none."""

    places: dict[str, Place]
    labels: tuple[str, ...] | None


class _KnownValues:
    """v1 values interpreted before, by all their bytes but those of the arrays.

    The interpreter reads forward and never looks into an array, so a value of the same other bytes is of the same opcodes and holds
    the same: only its pixels differ. All values of a store have their arrays at the same places, and few thousand other bytes.
    """

    def __init__(self) -> None:
        self._forget(())

    def _forget(self, gaps: tuple[slice, ...]) -> None:
        self._gaps = gaps  # between the arrays
        self._take_head = itemgetter(*gaps[:-1], slice(0), slice(0))  # of one slice alone it would return no tuple
        self._heads: dict[bytes, int] = {}  # a number for the bytes before the last array
        self._tiles: dict[tuple[int, bytes], _V1Tile] = {}  # by that number and the bytes after it: the labels, mostly
        self._size = 0

    def find(self, value: bytes | bytearray | memoryview) -> _V1Tile | None:
        """What a value holds, if one like it was kept."""
        if not self._gaps:
            return None
        view = memoryview(value)
        head, tail = self._split(view)
        number = self._heads.get(head)
        return None if number is None else self._tiles.get((number, tail))

    def keep(self, value: bytes | bytearray | memoryview, tile: _V1Tile) -> None:
        """Remember what a value was found to hold."""
        ends = {begin: end for _, _, begin, end in tile.places.values()}
        begins = sorted(ends)
        gaps = tuple(map(slice, (0, *(ends[begin] for begin in begins)), (*begins, None)))
        if gaps != self._gaps or self._size > _MOST_KEPT:
            self._forget(gaps)
        head, tail = self._split(memoryview(value))
        if len(head) + len(tail) <= _LONGEST_HEADER:
            self._size += len(tail) + _OVERHEAD + (0 if head in self._heads else len(head))
            self._tiles[self._heads.setdefault(head, len(self._heads)), tail] = tile

    def _split(self, view: memoryview) -> tuple[bytes, bytes]:
        return b"".join(self._take_head(view)), bytes(view[self._gaps[-1]])


_MOST_KEPT, _OVERHEAD = 1 << 22, 400  # bytes: 6,000 combinations of labels, and of the objects that hold one
_known = _KnownValues()


def _v1_places(value: bytes | bytearray | memoryview, key: str) -> dict[str, Place]:
    """Where the arrays of a v1 value lie, checked."""
    tile = _known.find(value)
    if tile is None:
        patch = _read_patch(value, key)
        tile = _V1Tile(_patch_places(patch, key), None)
        with suppress(CorruptTileError):  # labels that cannot be read are no matter here
            _known.keep(value, tile._replace(labels=_patch_labels(patch, key)))
    return tile.places


def _patch_labels(patch: Record, key: str) -> tuple[str, ...] | None:
    """The 19-class labels of a patch, each once, checked."""
    labels = _attributes(patch, PATCH_CLASSES, key).get("new_labels")
    if labels is None:
        return None
    if not isinstance(labels, list) or not all(isinstance(label, str) and label in _LABEL_SET for label in labels):
        raise CorruptTileError(f"Tile {key!r}: its new_labels are not a list of names of the 19-class nomenclature.")
    return tuple(dict.fromkeys(labels)) or None


def _patch_places(patch: Record, key: str) -> dict[str, Place]:
    """Where the array of each band of a patch lies, in alphabetical order; all are checked."""
    places: dict[str, Place] = {}
    for name, sensor in SENSOR_OF_PATCH.items():
        if patch.name == MERGED:
            part = _attributes(patch, PATCH_CLASSES, key).get(f"{sensor}_patch")
            if part is None:  # a store of one sensor alone
                continue
        elif patch.name == name:
            part = patch
        else:
            continue
        attributes = _attributes(part, (name,), key)
        for band in SENSORS[sensor].bands:
            places[band] = _band_place(attributes.get(f"band{band.removeprefix('B')}"), band, key)
    if not places:
        raise CorruptTileError(f"Tile {key!r}: expected a stored patch and found a {patch.name}.")
    return dict(sorted(places.items()))


def _band_place(record: Any, band: str, key: str) -> Place:
    """Where the array of one band object lies; its type, byte order, memory order, shape and length must be BigEarthNet's."""
    fields = _attributes(record, BAND_CLASSES, key).get("__dict__")
    if not isinstance(fields, dict) or fields.get("name") != band:
        raise CorruptTileError(f"Tile {key!r}: what is stored as band {band} is not that band.")
    shape, dtype = (BAND_SIZE[band], BAND_SIZE[band]), _dtype(band)
    raw = _array_bytes(fields.get("data"), shape, dtype)
    if raw is None or raw.end - raw.begin != shape[0] * shape[1] * dtype.itemsize:
        raise CorruptTileError(f"Tile {key!r}: band {band} is not a {dtype} array of shape {shape}.")
    return dtype, shape, raw.begin, raw.end


def _array_bytes(record: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> Bytes | None:
    """The raw bytes of a pickled ndarray of just this shape and type in C order; None if it is anything else."""
    if not isinstance(record, Record) or record.name != "_reconstruct" or not isinstance(record.state, tuple):
        return None
    if len(record.state) != 5 or record.state[:2] != (1, shape) or record.state[3] is not False:
        return None
    stored, raw = record.state[2], record.state[4]
    if not isinstance(stored, Record) or stored.name != "dtype" or stored.arguments[:1] != (dtype.str[1:],):
        return None
    if not isinstance(stored.state, tuple) or stored.state[:2] != (3, "<"):
        return None
    return raw if isinstance(raw, Bytes) else None


def _attributes(record: Any, classes: Collection[str], key: str) -> dict[Any, Any]:
    """The attributes of an object of one of these classes."""
    if not isinstance(record, Record) or record.name not in classes or not isinstance(record.state, dict):
        raise CorruptTileError(
            f"Tile {key!r}: expected a stored {' or '.join(sorted(classes))} and found something else."
        )
    return record.state


_LABEL_SET = frozenset(LABELS)


def _read_patch(value: bytes | bytearray | memoryview, key: str) -> Record:
    """Read a v1 value into records, turning whatever goes wrong into one error."""
    try:
        return read_pickle(value)
    except Exception as error:  # IndexError, UnicodeDecodeError, MemoryError...: the bytes are anyone's
        reason = error if isinstance(error, RefusedPickleError) else f"broken pickle ({type(error).__name__})"
        raise CorruptTileError(f"Tile {key!r}: {reason}. Nothing in it was run.") from error
