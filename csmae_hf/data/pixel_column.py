"""The pixel column of a dataset: it stores keys of an LMDB or of GeoTIFFs, and gives bands by name, read when they are looked at."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets.features.features import register_feature

from csmae_hf.data.store import TileStore
from csmae_hf.images.geotiff import TiffFolder, TiffImage
from csmae_hf.images.image import BandImage, Facts

TIFF_PREFIX = "tiff:"
"""Begins the store of a column whose keys are not those of an LMDB but of GeoTIFFs below the folder that follows."""

UNIT_MARK = "#unit="
"""Stands between a key of an LMDB and the unit that is said of this tile alone."""


def key_in_unit(store: str, key: str, unit: str) -> str:
    """The key of a column's tile with the unit that its pixels are said to be in."""
    if store.startswith(TIFF_PREFIX):
        return TiffImage.of_key(key)._replace(unit=unit).key
    return f"{key.partition(UNIT_MARK)[0]}{UNIT_MARK}{unit}"


def unit_of_key(store: str, key: str) -> str | None:
    """The unit that a column's key says of its tile alone; None where it says none."""
    return TiffImage.of_key(key).unit if store.startswith(TIFF_PREFIX) else key.partition(UNIT_MARK)[2] or None


def files_of_key(store: str, key: str) -> list[str]:
    """The files of a column's tile, relative to their folder; a `*` stands for the band. None where it lies in an LMDB."""
    return [files.path for files in TiffImage.of_key(key).files] if store.startswith(TIFF_PREFIX) else []


class TileBands:
    """The bands of one tile by name, each (H, W) at native resolution; read from the store, all at once, when the first is looked at.

    That is what makes `filter`, which hands whole rows to its function, cost no pixels where the function looks at none. Pickled, say
    by the worker of a DataLoader, it becomes a dict of arrays, with what files say: the process that loads a tile reads it.

    It behaves as a read-only mapping but is no `collections.abc.Mapping`, for `datasets` would store what those hold when `map` writes
    a row that was looked at; this it asks for an array, and stores the key it gets.

    Args:
        store: Folder of the LMDB.
        key: The tile's key, as the column stores it: perhaps with a unit, as of [`key_in_unit`].
        bands: Names of the bands, in order.

    Raises:
        TileNotFoundError: On looking, if the store has no such key.
        CorruptTileError: On looking, if the value is broken or lacks a band.
    """

    def __init__(self, store: str, key: str, bands: Sequence[str]):
        self.store = store
        self.stored_key = key
        self.key, _, unit = (key, "", "") if store.startswith(TIFF_PREFIX) else key.partition(UNIT_MARK)
        self._bands = tuple(bands)
        self._unit = unit or None  # of an LMDB, which says nothing itself
        self._pixels: dict[str, np.ndarray[Any, Any]] | None = None
        self._facts: Facts | None = None

    @property
    def facts(self) -> Facts:
        """What the files of the tile say of it; read with the pixels. A store says nothing."""
        if self._facts is None:
            self._read()
        return self._facts or self._said

    @property
    def _said(self) -> Facts:
        return Facts(unit=self._unit, unit_by="the call" if self._unit else "")

    @property
    def unit(self) -> str | None:
        """Unit the pixels are in, where somebody says it; the processor believes it."""
        return self.facts.unit if self.store.startswith(TIFF_PREFIX) else self._unit

    def _read(self) -> dict[str, np.ndarray[Any, Any]]:
        if self._pixels is None:
            self._take(open_source(self.store).read(self.key, self._bands))
        return self._pixels or {}

    def _take(self, pixels: dict[str, np.ndarray[Any, Any]]) -> None:
        self._pixels = {band: pixels[band] for band in self._bands}
        self._facts = pixels.facts if isinstance(pixels, BandImage) else self._said

    def __getitem__(self, band: str) -> np.ndarray[Any, Any]:
        if band not in self._bands:
            raise KeyError(band)
        return self._read()[band]

    def __contains__(self, band: object) -> bool:
        return band in self._bands

    def __iter__(self) -> Iterator[str]:
        return iter(self._bands)

    def __len__(self) -> int:
        return len(self._bands)

    def __repr__(self) -> str:
        return f"TileBands({self.key!r}: {', '.join(self._bands)})"

    def __reduce__(self) -> tuple[Any, ...]:
        bands = dict(self.items())
        told = self._unit or self.store.startswith(TIFF_PREFIX)
        return (BandImage, (bands, self.facts)) if told else (dict, (bands,))

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        return np.array(self.stored_key)

    @property
    def said_unit(self) -> str | None:
        """Unit that the key says, which is the caller's word; what the files say is not read."""
        return unit_of_key(self.store, self.stored_key)

    def in_unit(self, unit: str) -> "TileBands":
        """The same bands, unread, with the unit that they are said to be in."""
        return TileBands(self.store, key_in_unit(self.store, self.stored_key, unit), self._bands)

    def keys(self) -> tuple[str, ...]:
        """Name the bands, in order."""
        return self._bands

    def values(self) -> list[np.ndarray[Any, Any]]:
        """Read the bands: (H, W) each, in order."""
        return [self[band] for band in self._bands]

    def items(self) -> list[tuple[str, np.ndarray[Any, Any]]]:
        """Read the bands: name and (H, W) of each, in order."""
        return [(band, self[band]) for band in self._bands]

    def get(self, band: str, default: Any = None) -> Any:
        """Read a band, (H, W); `default` where there is none of this name."""
        return self[band] if band in self._bands else default


@contextmanager
def read_together(tiles: Iterable[Any]) -> Iterator[None]:
    """Read the pixels of several [`TileBands`] at once: each store in one transaction, each key once, though two sensors lie under it.

    Within, the pixels are views of the store, read-only; after it the tiles read for themselves again. Nothing is copied but by who
    looks, which makes a batch in half the time. What is no [`TileBands`] or is read already is left alone.
    """
    stores: dict[str, dict[str, list[TileBands]]] = {}
    for tile in tiles:
        if isinstance(tile, TileBands) and tile._pixels is None:
            stores.setdefault(tile.store, {}).setdefault(tile.key, []).append(tile)
    lent = [tile for by_key in stores.values() for same in by_key.values() for tile in same]
    with ExitStack() as stack:
        try:
            for store, by_key in stores.items():
                wanted = {key: tuple(band for tile in same for band in tile) for key, same in by_key.items()}
                read: Mapping[str, dict[str, Any]] = stack.enter_context(open_source(store).view_many(wanted))
                for key, pixels in read.items():
                    for tile in by_key[key]:
                        tile._take(pixels)
            yield
        finally:
            for tile in lent:
                tile._pixels = None


@lru_cache(maxsize=64)
def open_store(path: str) -> TileStore:
    """Make the store of a folder, one for all who ask; it opens on first use, once per process."""
    return TileStore(path)


def open_source(path: str) -> TileStore | TiffFolder:
    """Open what a pixel column reads from: the folder of an LMDB, or `TIFF_PREFIX` and a folder of GeoTIFFs."""
    return TiffFolder(path.removeprefix(TIFF_PREFIX)) if path.startswith(TIFF_PREFIX) else open_store(path)


@dataclass
class Tile:
    """A `datasets` feature: the column stores a tile's key, and gives its bands.

    Selecting, filtering, sorting and shuffling a dataset move keys and read no pixel. Cast the column to a `Tile` with `decode=False`
    for the keys themselves; formats ("torch", "numpy"), which cannot hold bands of several sizes, give them too.

    Args:
        store: Folder of the LMDB.
        sensor: Whose bands these are.
        bands: Bands to give, in this order.
        decode: Whether to give bands; else the column gives keys.
        id: Unused; every feature of `datasets` has it.
    """

    store: str
    sensor: str
    bands: list[str]
    decode: bool = True
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "dict"
    pa_type: ClassVar[Any] = pa.string()
    _type: str = field(default="CSMAETile", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        """Say how Arrow stores the column: as keys."""
        return self.pa_type

    def encode_example(self, value: Any) -> str:
        """Take what a row holds for this column, a key or the bands as this column gave them; a ValueError for pixels."""
        key = value.stored_key if isinstance(value, TileBands) else value
        if not isinstance(key, str):
            raise self._no_pixels(type(value).__name__)
        return str(key)

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Take the keys that a column holds, as `map` writes it. Without this, `datasets` would silently store changed pixels."""
        if not any(is_key(storage.type) for is_key in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)):
            raise self._no_pixels(str(storage.type)[:100])
        return storage.cast(self.pa_type)

    def _no_pixels(self, given: str) -> ValueError:
        return ValueError(
            f"The pixel column of {self.sensor} stores keys of {self.store}, not a {given}. Put changed pixels in a column of another "
            "name, or write them to a store of their own with csmae_hf.data.store.write_store."
        )

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Any:
        """Give the [`TileBands`] of a key; anything else is taken for bands already given, and given back."""
        return TileBands(self.store, value, self.bands) if isinstance(value, str) else value


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*register_feature.*experimental")  # nothing a user could do about it
    register_feature(Tile, Tile._type)
