"""The pickles of BigEarthNet-MM v1, without an unpickler.

A pickle is a program, and archives come from strangers. This interprets the few opcodes those archives use and builds inert records;
it never imports or calls anything, and never looks into the bytes of an array.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

MAX_PICKLE_OPERATIONS = 10_000
"""Opcodes a v1 value may hold; a real tile has about 1,040. Each makes at most one object of constant size, so this bounds memory."""

MERGED, S1_PATCH, S2_PATCH = "BigEarthNet_S1_S2_Patch", "BigEarthNet_S1_Patch", "BigEarthNet_S2_Patch"
PATCHES = frozenset((MERGED, S1_PATCH, S2_PATCH))
BANDS = frozenset(("BenS1_Band", "BenS2_10mBand", "BenS2_20mBand", "BenS2_60mBand"))
_FUNCTIONS = frozenset(("dtype", "_reconstruct"))
_GLOBALS = frozenset(
    {
        ("bigearthnet_patch_interface.merged_interface", MERGED),
        ("bigearthnet_patch_interface.s1_interface", S1_PATCH),
        ("bigearthnet_patch_interface.s2_interface", S2_PATCH),
        *(("bigearthnet_patch_interface.band_interface", name) for name in BANDS),
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
    """A pickle does something that no v1 archive does."""


def read_pickle(value: bytes | bytearray | memoryview) -> Record:
    """Read a pickle into records.

    Args:
        value: The pickle.

    Returns:
        The one object it holds.

    Raises:
        RefusedPickleError: If it holds an opcode, a global, a length or an object that no v1 archive has.
        Exception: Any of those that broken bytes cause (IndexError, UnicodeDecodeError...).
    """
    return _PickleReader(memoryview(value)).read()


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

    def read(self) -> Record:
        """Run to the end.

        Returns:
            The one object the pickle holds.

        Raises:
            RefusedPickleError: If it holds an opcode, a global, a length or an object that no v1 archive has.
            Exception: Any of those that broken bytes cause (IndexError, UnicodeDecodeError...).
        """
        for _ in range(MAX_PICKLE_OPERATIONS):
            code = self._byte()
            if code == _STOP:
                return self._result()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise RefusedPickleError(f"opcode 0x{code:02x} at byte {self.position - 1} is in no v1 archive")
            operation(self)
        raise RefusedPickleError(f"more than {MAX_PICKLE_OPERATIONS} operations, which no v1 archive has")

    def _result(self) -> Record:
        if (
            len(self.stack) != 1
            or self.marks
            or not isinstance(self.stack[0], Record)
            or self.position != len(self.view)
        ):
            raise RefusedPickleError("it does not end in one whole patch")
        return self.stack[0]

    def _take(self, count: int) -> memoryview:
        taken = self._skip(count)
        return self.view[taken.begin : taken.end]

    def _skip(self, count: int) -> Bytes:
        begin, self.position = self.position, self.position + count
        if self.position > len(self.view):
            raise RefusedPickleError(f"cut short: {count} bytes wanted at {begin} of {len(self.view)}")
        return Bytes(begin, self.position)

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
            raise RefusedPickleError(f"a {type(top).__name__} stands where a {kind.__name__} belongs")
        return top

    def _pop(self, kind: type) -> Any:
        self._top(kind)
        return self.stack.pop()

    def proto(self) -> None:
        if self._byte() != 4:
            raise RefusedPickleError("not of pickle protocol 4, in which v1 archives are written")

    def frame(self) -> None:
        if self._number(8) > len(self.view) - self.position:
            raise RefusedPickleError("cut short: a frame reaches past the end")

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
        self.stack.append(self._skip(self._number(4)))

    def short_binbytes(self) -> None:
        self.stack.append(self._skip(self._byte()))

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
            raise RefusedPickleError(
                f"it names {f'{module}.{name}'[:100]!r}, which no v1 archive does: do not trust this archive"
            )
        self.stack.append(_Global(name))

    def newobj(self) -> None:
        arguments, maker = self._pop(tuple), self._pop(_Global)
        if arguments or maker.name not in PATCHES | BANDS:
            raise RefusedPickleError(f"it makes a {maker.name} in a way no v1 archive does")
        self.stack.append(Record(maker.name, ()))

    def reduce(self) -> None:
        arguments, maker = self._pop(tuple), self._pop(_Global)
        if maker.name not in _FUNCTIONS:
            raise RefusedPickleError(f"it calls {maker.name}, which no v1 archive does")
        self.stack.append(Record(maker.name, arguments))

    def build(self) -> None:
        state = self.stack.pop()
        self._top(Record).state = state


def _strings(items: list[Any]) -> list[str]:
    """The items, which must be strings: hashing anything else could take forever or overflow the C stack."""
    if not all(isinstance(item, str) for item in items):
        raise RefusedPickleError("a key or set member is no string")
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
