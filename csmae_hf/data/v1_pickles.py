"""The pickles of BigEarthNet-MM v1, without an unpickler.

A pickle is a program, and stores come from strangers. This interprets the few opcodes those stores use and builds inert records;
it never imports or calls anything, and never looks into the bytes of an array.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from csmae_hf.bigearthnet import SENSORS

MAX_PICKLE_OPERATIONS = 10_000
"""Opcodes a v1 value may hold; a real tile has about 1,040. Each makes at most one object of constant size, so this bounds memory."""

MERGED = "BigEarthNet_S1_S2_Patch"
"""The class of a patch of both sensors."""

SENSOR_OF_PATCH = {f"BigEarthNet_{sensor.upper()}_Patch": sensor for sensor in SENSORS}
"""The classes of a patch of one sensor; in one of both they are the attributes `s1_patch` and `s2_patch`."""

PATCH_CLASSES = frozenset((MERGED, *SENSOR_OF_PATCH))
BAND_CLASSES = frozenset(("BenS1_Band", "BenS2_10mBand", "BenS2_20mBand", "BenS2_60mBand"))
_FUNCTIONS = frozenset(("dtype", "_reconstruct"))
_GLOBALS = frozenset(
    {
        ("bigearthnet_patch_interface.merged_interface", MERGED),
        *((f"bigearthnet_patch_interface.{sensor}_interface", name) for name, sensor in SENSOR_OF_PATCH.items()),
        *(("bigearthnet_patch_interface.band_interface", name) for name in BAND_CLASSES),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
    }
)
"""All that v1 values name (data_formats.md 1.4); each becomes a name, none is ever imported."""


class _Global(NamedTuple):
    """A class or function that a pickle names: inert."""

    name: str


class Record:
    """What a pickle wanted made of a class or function: the name, the arguments and the state, and nothing done with them."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...]):
        self.name = name
        self.arguments = arguments
        self.state: Any = None


class Bytes:
    """A byte string of a pickle: where it lies, never what it holds."""

    __slots__ = ("begin", "end")

    def __init__(self, begin: int, end: int):
        self.begin = begin
        self.end = end


class RefusedPickleError(ValueError):
    """A pickle does something that no v1 store does."""


def read_pickle(value: bytes | bytearray | memoryview) -> Record:
    """Read a pickle into records: the one object it holds.

    A `RefusedPickleError` says what is in it that no v1 store has; broken bytes may cause others (IndexError, UnicodeDecodeError...).
    """
    reader = _PickleReader(memoryview(value))
    for _ in range(MAX_PICKLE_OPERATIONS):
        code = reader.byte()
        if code == _STOP:
            return reader.result()
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise RefusedPickleError(f"opcode 0x{code:02x} at byte {reader.position - 1} is in no v1 store")
        operation(reader)
    raise RefusedPickleError(f"more than {MAX_PICKLE_OPERATIONS} operations, which no v1 store has")


class _PickleReader:
    """The stack machine of the opcodes that v1 stores consist of (pickle protocol 4).

    Nothing is imported, called, compared or hashed but strings, lengths are checked before they are used, and the work is bounded by
    `MAX_PICKLE_OPERATIONS`. So neither code, nor deep or exponentially shared structures, nor claimed sizes do harm.
    """

    def __init__(self, view: memoryview):
        self.view = view
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []

    def result(self) -> Record:
        if (
            len(self.stack) != 1
            or self.marks
            or not isinstance(self.stack[0], Record)
            or self.position != len(self.view)
        ):
            raise RefusedPickleError("it does not end in one whole patch")
        return self.stack[0]

    def take(self, count: int) -> memoryview:
        taken = self.skip(count)
        return self.view[taken.begin : taken.end]

    def skip(self, count: int) -> Bytes:
        begin, self.position = self.position, self.position + count
        if self.position > len(self.view):
            raise RefusedPickleError(f"cut short: {count} bytes wanted at {begin} of {len(self.view)}")
        return Bytes(begin, self.position)

    def byte(self) -> int:
        byte = self.view[self.position]
        self.position += 1
        return byte

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type) -> Any:
        top = self.stack[-1]
        if not isinstance(top, kind):
            raise RefusedPickleError(f"a {type(top).__name__} stands where a {kind.__name__} belongs")
        return top

    def pop(self, kind: type) -> Any:
        self.top(kind)
        return self.stack.pop()

    def proto(self) -> None:
        if self.byte() != 4:
            raise RefusedPickleError("not of pickle protocol 4, in which v1 stores are written")

    def frame(self) -> None:
        if self.number(8) > len(self.view) - self.position:
            raise RefusedPickleError("cut short: a frame reaches past the end")

    def tuple_of_last(self, count: int) -> None:
        if len(self.stack) < count:
            raise RefusedPickleError(f"a tuple of {count} is made of {len(self.stack)} objects")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self) -> None:
        item = self.stack.pop()
        self.top(list).append(item)

    def appends(self) -> None:
        items = self.since_mark()
        self.top(list).extend(items)

    def additems(self) -> None:
        items = self.since_mark()
        self.top(set).update(_strings(items))

    def setitem(self) -> None:
        value = self.stack.pop()
        name = self.pop(str)
        self.top(dict)[name] = value

    def setitems(self) -> None:
        items = self.since_mark()
        self.top(dict).update(zip(_strings(items[::2]), items[1::2], strict=True))

    def stack_global(self) -> None:
        name, module = self.pop(str), self.pop(str)
        if (module, name) not in _GLOBALS:
            raise RefusedPickleError(
                f"it names {f'{module}.{name}'[:100]!r}, which no v1 store does: do not trust this store"
            )
        self.stack.append(_Global(name))

    def newobj(self) -> None:
        arguments, maker = self.pop(tuple), self.pop(_Global)
        if arguments or maker.name not in PATCH_CLASSES | BAND_CLASSES:
            raise RefusedPickleError(f"it makes a {maker.name} in a way no v1 store does")
        self.stack.append(Record(maker.name, ()))

    def reduce(self) -> None:
        arguments, maker = self.pop(tuple), self.pop(_Global)
        if maker.name not in _FUNCTIONS:
            raise RefusedPickleError(f"it calls {maker.name}, which no v1 store does")
        self.stack.append(Record(maker.name, arguments))

    def build(self) -> None:
        state = self.stack.pop()
        self.top(Record).state = state


def _strings(items: list[Any]) -> list[str]:
    """The items, which must be strings: hashing anything else could take forever or overflow the C stack."""
    if not all(isinstance(item, str) for item in items):
        raise RefusedPickleError("a key or set member is no string")
    return items


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[_PickleReader], None]] = {
    0x80: _PickleReader.proto,
    0x95: _PickleReader.frame,
    0x94: lambda reader: reader.memo.append(reader.stack[-1]),  # MEMOIZE
    ord("h"): lambda reader: reader.stack.append(reader.memo[reader.byte()]),  # BINGET
    ord("j"): lambda reader: reader.stack.append(reader.memo[reader.number(4)]),  # LONG_BINGET
    0x8C: lambda reader: reader.stack.append(str(reader.take(reader.byte()), "utf-8")),  # SHORT_BINUNICODE
    ord("J"): lambda reader: reader.stack.append(int.from_bytes(reader.take(4), "little", signed=True)),  # BININT
    ord("K"): lambda reader: reader.stack.append(reader.byte()),  # BININT1
    ord("B"): lambda reader: reader.stack.append(reader.skip(reader.number(4))),  # BINBYTES
    ord("C"): lambda reader: reader.stack.append(reader.skip(reader.byte())),  # SHORT_BINBYTES
    0x88: lambda reader: reader.stack.append(True),
    0x89: lambda reader: reader.stack.append(False),
    ord("N"): lambda reader: reader.stack.append(None),
    ord(")"): lambda reader: reader.stack.append(()),
    ord("]"): lambda reader: reader.stack.append([]),
    ord("}"): lambda reader: reader.stack.append({}),
    0x8F: lambda reader: reader.stack.append(set()),
    ord("("): lambda reader: reader.marks.append(len(reader.stack)),
    ord("t"): lambda reader: reader.stack.append(tuple(reader.since_mark())),
    0x85: lambda reader: reader.tuple_of_last(1),
    0x86: lambda reader: reader.tuple_of_last(2),
    0x87: lambda reader: reader.tuple_of_last(3),
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
"""The opcodes of real v1 values (data_formats.md 1.4), by code."""
