"""The bands of a tile by name, read from a store or from GeoTIFFs when the first is looked at, or with those of other tiles."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from csmae_hf.data.store import TileStore
from csmae_hf.images.geotiff import TiffFolder

TIFF_PREFIX = "tiff:"
"""Begins the store of a column whose keys are not those of an LMDB but of GeoTIFFs below the folder that follows."""


class TileBands:
    """The bands of one tile by name, each (H, W) at native resolution; read from the store, all at once, when the first is looked at.

    That is what makes `filter`, which hands whole rows to its function, cost no pixels where the function looks at none. Pickled, say
    by the worker of a DataLoader, it becomes a plain dict of arrays: the process that loads a tile is the one that reads it.

    It behaves as a read-only mapping but is no `collections.abc.Mapping`, for `datasets` would store what those hold when `map` writes
    a row that was looked at; this it asks for an array, and stores the key it gets.

    Args:
        store: Folder of the LMDB.
        key: The tile's key.
        bands: Names of the bands, in order.

    Raises:
        TileNotFoundError: On looking, if the store has no such key.
        CorruptTileError: On looking, if the value is broken or lacks a band.
    """

    def __init__(self, store: str, key: str, bands: Sequence[str]):
        self.store = store
        self.key = key
        self._bands = tuple(bands)
        self._pixels: dict[str, np.ndarray[Any, Any]] | None = None

    def __getitem__(self, band: str) -> np.ndarray[Any, Any]:
        if self._pixels is None:
            if band not in self._bands:
                raise KeyError(band)
            self._pixels = open_source(self.store).read(self.key, self._bands)
        return self._pixels[band]

    def __contains__(self, band: object) -> bool:
        return band in self._bands

    def __iter__(self) -> Iterator[str]:
        return iter(self._bands)

    def __len__(self) -> int:
        return len(self._bands)

    def __repr__(self) -> str:
        return f"TileBands({self.key!r}: {', '.join(self._bands)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.items(),)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        return np.array(self.key)

    def keys(self) -> tuple[str, ...]:
        """Name the bands.

        Returns:
            Their names, in order.
        """
        return self._bands

    def values(self) -> list[np.ndarray[Any, Any]]:
        """Read the bands.

        Returns:
            (H, W) for each, in order.
        """
        return [self[band] for band in self._bands]

    def items(self) -> list[tuple[str, np.ndarray[Any, Any]]]:
        """Read the bands.

        Returns:
            Name and (H, W) of each, in order.
        """
        return [(band, self[band]) for band in self._bands]

    def get(self, band: str, default: Any = None) -> Any:
        """Read a band that may not be there.

        Args:
            band: Its name.
            default: What to give in its place.

        Returns:
            (H, W), or the default.
        """
        return self[band] if band in self._bands else default


@contextmanager
def read_together(tiles: Iterable[Any]) -> Iterator[None]:
    """Read the pixels of several tiles at once: each store in one transaction, each key once, though two sensors lie under it.

    Within, the pixels are views of the store, read-only; after it the tiles read for themselves again. Nothing is copied but by who
    looks, which makes a batch in half the time.

    Args:
        tiles: Tiles; what is no [`TileBands`] or is read already is left alone.

    Raises:
        TileNotFoundError: If a store has no such key.
        CorruptTileError: If a value is broken or lacks a band.
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
                for key, pixels in stack.enter_context(open_source(store).view_many(wanted)).items():
                    for tile in by_key[key]:
                        tile._pixels = {band: pixels[band] for band in tile}
            yield
        finally:
            for tile in lent:
                tile._pixels = None


@lru_cache(maxsize=64)
def open_store(path: str) -> TileStore:
    """Make the store of a folder, one for all who ask; it opens on first use, once per process.

    Args:
        path: Folder of the LMDB.

    Returns:
        The store.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    return TileStore(path)


def open_source(path: str) -> TileStore | TiffFolder:
    """Open whatever a pixel column reads from.

    Args:
        path: Folder of an LMDB; or `TIFF_PREFIX` and a folder of GeoTIFFs.

    Returns:
        The store, or the folder, which reads tiles by key likewise.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    return TiffFolder(path.removeprefix(TIFF_PREFIX)) if path.startswith(TIFF_PREFIX) else open_store(path)
