"""The pixel column of a dataset: a row says where its image lies, or holds it, and gives bands by name, read when they are looked at.

A column stores for each row a struct. `source` is the key under which the image lies, the store that it lies in, and the unit of its
pixels where the caller says it; `bytes` is the image itself where it was taken in, and `source` then its name. So rows of many stores
go together in one dataset, and a row that was taken in needs no store.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, List, Value
from datasets.features.features import register_feature

from csmae_hf.data.embedded import pack_image, unpack_facts, unpack_image
from csmae_hf.data.store import TileStore
from csmae_hf.data.writers import wrap_writers
from csmae_hf.images.geotiff import BandFiles, Footprint, TiffFolder, TiffImage
from csmae_hf.images.image import BandImage, Facts
from csmae_hf.images.raster import SUFFIXES

TIFF_PREFIX = "tiff:"
"""Begins the store of images that do not lie in an LMDB but in GeoTIFFs below the folder that follows."""

STORAGE = pa.struct({"bytes": pa.binary(), "source": pa.list_(pa.string())})
"""How Arrow holds an image of a row."""

_ROWS_AT_ONCE = 64  # of which the pixels are in memory together


class TileBands:
    """The bands of one tile by name, each (H, W) at native resolution; read from the store, all at once, when the first is looked at.

    That is what makes `filter`, which hands whole rows to its function, cost no pixels where the function looks at none. Pickled, say
    by the worker of a DataLoader, it becomes a dict of arrays, with what files say: the process that loads a tile reads it.

    It behaves as a read-only mapping but is no `collections.abc.Mapping`, for `datasets` would store what those hold when `map` writes
    a row that was looked at; this it asks for an array, and stores what the row stored.

    Args:
        stored: What the row stores, as of `STORAGE`.
        bands: Names of the bands, in order.

    Raises:
        TileNotFoundError: On looking, if the store has no such key.
        CorruptTileError: On looking, if the value is broken or lacks a band.
        StoreGoneError: On looking, if the store is not where it was.
    """

    def __init__(self, stored: Mapping[str, Any], bands: Sequence[str]):
        self._stored = stored
        self._bands = tuple(bands)
        source = stored["source"]
        self.key: str = source[0] if len(source) else ""
        self.store: str | None = source[1] if len(source) > 1 else None
        self._unit: str | None = source[2] if len(source) > 2 else None
        self._pixels: dict[str, np.ndarray[Any, Any]] | None = None
        self._facts: Facts | None = None

    @property
    def stored(self) -> dict[str, Any]:
        """What the row stores of the image, as of `STORAGE`."""
        return {"bytes": self._stored["bytes"], "source": list(self._stored["source"])}

    @property
    def facts(self) -> Facts:
        """What the files of the tile say of it; read with the pixels. A store says nothing."""
        if self._facts is None:
            if self.store is None:
                self._facts = unpack_facts(self._stored["bytes"])
            else:
                self._read()
        return self._facts or self._said

    @property
    def _said(self) -> Facts:
        return Facts(unit=self._unit, unit_by="the call" if self._unit else "")

    @property
    def _told(self) -> bool:
        """Whether somebody says something of the pixels: the caller, or where they lie."""
        return self.store is None or self._unit is not None or self.store.startswith(TIFF_PREFIX)

    @property
    def unit(self) -> str | None:
        """Unit the pixels are in, where somebody says it; the processor believes it."""
        return self.facts.unit if self._told else None

    @property
    def said_unit(self) -> str | None:
        """Unit that is said of the image, without looking into files of a store."""
        return self.facts.unit if self.store is None else unit_of_source(self._stored["source"])

    def in_unit(self, unit: str) -> "TileBands | BandImage":
        """The same bands with the unit that they are said to be in; unread, where they lie in a store."""
        if self.store is None:
            return BandImage(dict(self.items()), replace(self.facts, unit=unit, unit_by="the caller"))
        return TileBands({"bytes": None, "source": _source_in_unit(self._stored["source"], unit)}, self._bands)

    @property
    def footprint(self) -> Footprint | None:
        """Where the image lies, by its files or what was kept of them, without reading pixels; None where it lies in an LMDB."""
        if self.store is not None:
            with _store_there(self.store):
                source = open_source(self.store)
            return source.footprint(self.key) if isinstance(source, TiffFolder) else None
        bounds = self.facts.bounds
        return None if bounds is None else Footprint(self.facts.crs, *bounds)

    def _read(self) -> dict[str, np.ndarray[Any, Any]]:
        if self._pixels is None:
            if self.store is None:
                self._take(unpack_image(self._stored["bytes"], self.key, self._bands))
            else:
                with _store_there(self.store):
                    self._take(open_source(self.store).read(self.key, self._bands))
        return self._pixels or {}

    def _take(self, pixels: dict[str, np.ndarray[Any, Any]]) -> None:
        self._pixels = {band: pixels[band] for band in self._bands}
        self._facts = pixels.facts if isinstance(pixels, BandImage) else None

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
        image = self.read()
        return type(image), ((dict(image), image.facts) if isinstance(image, BandImage) else (image,))

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        return np.array(self.stored, dtype=object)

    def read(self) -> dict[str, np.ndarray[Any, Any]]:
        """Read the bands: (H, W) by name; a [`BandImage`] where something is said of them."""
        bands = dict(self.items())
        return BandImage(bands, self.facts) if self._told else bands

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
    looks, which makes a batch in half the time. What is no [`TileBands`], lies in no store or is read already is left alone.
    """
    stores: dict[str, dict[str, list[TileBands]]] = {}
    for tile in tiles:
        if isinstance(tile, TileBands) and tile.store is not None and tile._pixels is None:
            stores.setdefault(tile.store, {}).setdefault(tile.key, []).append(tile)
    lent = [tile for by_key in stores.values() for same in by_key.values() for tile in same]
    with ExitStack() as stack:
        try:
            for store, by_key in stores.items():
                wanted = {key: tuple(band for tile in same for band in tile) for key, same in by_key.items()}
                with _store_there(store):
                    read: Mapping[str, dict[str, Any]] = stack.enter_context(open_source(store).view_many(wanted))
                for key, pixels in read.items():
                    for tile in by_key[key]:
                        tile._take(pixels)
            yield
        finally:
            for tile in lent:
                tile._pixels = None


class StoreGoneError(FileNotFoundError):
    """What the rows of a dataset refer to is not where it was; the message says what to do."""


@lru_cache(maxsize=64)
def open_store(path: str) -> TileStore:
    """Make the store of a folder, one for all who ask; it opens on first use, once per process."""
    return TileStore(path)


def open_source(path: str) -> TileStore | TiffFolder:
    """Open what a pixel column reads from: the folder of an LMDB, or `TIFF_PREFIX` and a folder of GeoTIFFs."""
    return TiffFolder(path.removeprefix(TIFF_PREFIX)) if path.startswith(TIFF_PREFIX) else open_store(path)


@contextmanager
def _store_there(path: str) -> Iterator[None]:
    """Say what to do where a store is not there that rows refer to."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreGoneError(
            f"The pixels of this dataset lie in {path.removeprefix(TIFF_PREFIX)}, which is not there (moved, or of another machine). "
            "Load the data again from where they lie now (load_bigearthnet, load_tiles), or point the rows there with "
            "csmae_hf.data.pixel_column.point_to(dataset, 'NEW FOLDER'). To be free of the store, embed the pixels while it is "
            "there: save_to_disk, to_parquet and push_to_hub do."
        ) from error


def refer(store: str, keys: Sequence[str | None], unit: str | None = None) -> pa.Array:
    """Make a pixel column of images that lie in one store: by row the key, None for no image; and the unit that the caller says."""
    place = [store] if unit is None else [store, unit]
    return _column(None, [None if key is None else [key, *place] for key in keys])


def _column(values: Sequence[bytes | None] | pa.Array | None, sources: Sequence[list[str] | None]) -> pa.Array:
    """A pixel column by its parts; a row without a source has no image."""
    held = pa.nulls(len(sources), pa.binary()) if values is None else pa.array(values, pa.binary())
    missing = pa.array([source is None for source in sources], pa.bool_())
    return pa.StructArray.from_arrays(
        [held, pa.array(sources, pa.list_(pa.string()))], fields=list(STORAGE), mask=missing
    )


def sources_of(column: pa.Array | pa.ChunkedArray) -> list[list[str] | None]:
    """By row of a pixel column what is under `source`; None where there is no image."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return [source for chunk in chunks for source in _child(chunk, "source").to_pylist()]


def unit_of_source(source: Sequence[str]) -> str | None:
    """The unit that is said of an image that lies in a store, without looking into it; None where nobody says one."""
    if len(source) > 2:
        return source[2]
    return TiffImage.of_key(source[0]).unit if len(source) > 1 and source[1].startswith(TIFF_PREFIX) else None


def files_of_source(source: Sequence[str]) -> list[str]:
    """The files of an image, relative to their folder; a `*` stands for the band. None where it lies in an LMDB or in its row."""
    tiff = len(source) > 1 and source[1].startswith(TIFF_PREFIX)
    return [files.path for files in TiffImage.of_key(source[0]).files] if tiff else []


def in_units(column: pa.Array | pa.ChunkedArray, units: Sequence[str | None]) -> pa.Array:
    """A pixel column whose images that lie in a store are said to be in these units; None changes nothing."""
    held = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    held = held.chunk(0) if isinstance(held, pa.ChunkedArray) else held
    sources = [
        source if source is None or unit is None or len(source) < 2 else _source_in_unit(source, unit)
        for source, unit in zip(sources_of(held), units, strict=True)
    ]
    return _column(_child(held, "bytes"), sources)


def _source_in_unit(source: Sequence[str], unit: str) -> list[str]:
    key, store, *_ = source
    if store.startswith(TIFF_PREFIX):
        return [TiffImage.of_key(key)._replace(unit=unit).key, store]
    return [key, store, unit]


def lies_in_lmdb(source: Sequence[str]) -> bool:
    """Say whether what a row refers to lies in an LMDB, which knows no place on earth."""
    return len(source) > 1 and not source[1].startswith(TIFF_PREFIX)


def _child(storage: pa.StructArray, name: str) -> pa.Array:
    """A part of a pixel column, None where a row has no image; all None where the column has no such part."""
    if storage.type.get_field_index(name) < 0:
        return pa.nulls(len(storage), STORAGE.field(name).type)
    return pc.struct_field(storage, name)


@dataclass
class Tile:
    """A `datasets` feature: the column stores where a tile's image lies, or the image, and gives its bands.

    Selecting, filtering, sorting and shuffling a dataset move references and read no pixel. `save_to_disk`, `push_to_hub` and
    `to_parquet` take the pixels in, with all that is said of them but places on this machine; whoever loads that needs no store.
    Cast the column to a `Tile` with `decode=False` for what the rows store. The formats of arrays ("torch", "numpy", "pandas"), which
    know no unread image, give a dict of arrays by band.

    A row takes bands by name, (H, W) each, which it then holds; an image of another row, whatever its store; or the path of a GeoTIFF
    that names its bands.

    Args:
        sensor: Whose bands these are.
        bands: Bands to give, in this order.
        decode: Whether to give bands; else the column gives what it stores.
        id: Unused; every feature of `datasets` has it.
    """

    sensor: str
    bands: list[str]
    decode: bool = True
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "dict"
    pa_type: ClassVar[Any] = STORAGE
    _type: str = field(default="CsmaeTile", init=False, repr=False)  # cards spell it csmae_tile and back

    def __call__(self) -> pa.DataType:
        """Say how Arrow stores the column."""
        return self.pa_type

    def encode_example(self, value: Any) -> dict[str, Any]:
        """Take what a row is given for this column.

        Args:
            value: Bands by name; what a row of a dataset gives or stores; or the path of a GeoTIFF.

        Returns:
            What the row stores, as of `STORAGE`.

        Raises:
            ValueError: If it is none of these, lacks a band, or a band is not of real numbers of shape (H, W).
            FileNotFoundError: If there is no such file.
        """
        if isinstance(value, TileBands):
            return value.stored
        if isinstance(value, (str, os.PathLike)):
            return {"bytes": None, "source": self._file_source(Path(value))}
        if not isinstance(value, Mapping):
            raise self._unknown(type(value).__name__)
        if value.keys() and value.keys() <= set(STORAGE.names) and any(part is not None for part in value.values()):
            return {"bytes": value.get("bytes"), "source": list(value.get("source") or [])}
        return {"bytes": self._pack(value), "source": []}

    def _pack(self, bands: Mapping[str, Any]) -> bytes:
        absent = [band for band in self.bands if band not in bands]
        if absent:
            raise ValueError(
                f"An image of {self.sensor} lacks {', '.join(absent)}; it has {', '.join(map(str, bands)) or 'no band'}, and the "
                f"column is of {', '.join(self.bands)}. Give all, or make the column of fewer: cast_column with a Tile of those."
            )
        try:
            return pack_image(bands, bands.facts if isinstance(bands, BandImage) else None)
        except ValueError as error:
            raise ValueError(f"An image of {self.sensor}: {error}") from error

    def _file_source(self, path: Path) -> list[str]:
        if path.suffix.lower() not in SUFFIXES:
            raise self._unknown(f"text {str(path)[:100]!r}")
        if not path.is_file():
            raise FileNotFoundError(f"No file {path}, which was given as an image of {self.sensor}. Check the path.")
        path = path.resolve()
        return [TiffImage("", self.sensor, (BandFiles(path.name),)).key, f"{TIFF_PREFIX}{path.parent}"]

    def _unknown(self, given: str) -> ValueError:
        return ValueError(
            f"The pixel column of {self.sensor} was given a {given}; expected bands by name ({{{self.bands[0]!r}: (H, W) array, "
            "...}), what a row of a dataset of tiles gives, or the path of a GeoTIFF."
        )

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Take what a column holds, as `map` and `cast_column` write it: what rows store, bands by name, or paths of GeoTIFFs.

        Raises:
            ValueError: As of `encode_example`.
        """
        if storage.type.equals(self.pa_type):
            return storage
        if pa.types.is_null(storage.type):
            return pa.nulls(len(storage), self.pa_type)
        if pa.types.is_string(storage.type) or pa.types.is_large_string(storage.type):
            paths = storage.to_pylist()
            return _column(None, [None if path is None else self._file_source(Path(path)) for path in paths])
        if not pa.types.is_struct(storage.type):
            raise self._unknown(f"column of {str(storage.type)[:100]}")
        sources: list[list[str] | None] = _child(storage, "source").to_pylist()
        named = [child.name for child in storage.type if child.name not in STORAGE.names]
        values = _child(storage, "bytes")
        if named:  # bands, in rows that have no source
            values = values.to_pylist()
            for row, there in enumerate(storage.is_valid().to_pylist()):
                if there and sources[row] is None and values[row] is None:
                    bands = {name: array for name in named if (array := _band(storage, name, row)) is not None}
                    values[row] = self._pack(bands)
        held = (
            values.is_valid().to_pylist() if isinstance(values, pa.Array) else [value is not None for value in values]
        )
        sources = [[] if source is None and there else source for source, there in zip(sources, held, strict=True)]
        return _column(values, sources)

    def embed_storage(
        self,
        storage: pa.StructArray,
        token_per_repo_id: dict[str, Any] | None = None,
        local_files: bool = True,
        remote_files: bool = True,
    ) -> pa.StructArray:
        """Take the pixels in: read the images that a column refers to; `datasets` asks for it where it writes for others.

        Of each source its name stays, and no place. Errors as of [`TileBands`].
        """
        if not local_files:
            return storage
        values: list[bytes | None] = []
        names: list[list[str] | None] = []
        for start in range(0, len(storage), _ROWS_AT_ONCE):
            rows = storage[start : start + _ROWS_AT_ONCE].to_pylist()
            tiles = [None if row is None else TileBands(row, self.bands) for row in rows]
            with read_together(tiles):
                for tile in tiles:
                    names.append(None if tile is None else [_name(tile)])
                    values.append(None if tile is None else _packed(tile))
        return _column(values, names)

    def flatten(self) -> dict[str, Any]:
        """Say into which columns `Dataset.flatten` takes this one apart; as of `datasets.Image`, a ValueError where it gives bands."""
        if self.decode:
            raise ValueError(
                f"A column of bands cannot be flattened: leave {self.sensor} out, or cast it first to a Tile with decode=False."
            )
        return {"bytes": Value("binary"), "source": List(Value("string"))}

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Any:
        """Give the [`TileBands`] of what a row stores, or its bands to a format of arrays; what is given already is given back."""
        if not isinstance(value, Mapping) or isinstance(value, BandImage) or "source" not in value:
            return value
        tile = TileBands(value, self.bands)
        # `datasets` does not say for which format it asks; for those of arrays it goes through numpy, where a list is an array
        return tile.read() if isinstance(value["source"], np.ndarray) else tile


def _band(storage: pa.StructArray, name: str, row: int) -> np.ndarray[Any, Any] | None:
    """A band that a row of a column of bands holds, of the type that Arrow holds it in; None where it has none."""
    cell = pc.struct_field(storage, name)[row : row + 1]
    if isinstance(cell, pa.ExtensionArray):  # Array2D
        cell = cell.storage
    if not cell[0].is_valid:
        return None
    rows = cell.flatten() if pa.types.is_nested(cell.type) else cell
    if not pa.types.is_nested(rows.type):
        return np.asarray(rows.to_pylist())
    numbers = rows.flatten()
    widths = set(rows.value_lengths().to_pylist())
    if len(widths) != 1 or numbers.null_count or pa.types.is_nested(numbers.type):
        return np.asarray(cell[0].as_py(), dtype=object)
    return numbers.to_numpy(zero_copy_only=False).reshape(len(rows), -1)


def _name(tile: TileBands) -> str:
    """What an image that is taken in is called: its key, or the name of its file, without the folders of this machine."""
    if tile.store is None or not tile.store.startswith(TIFF_PREFIX):
        return tile.key
    return Path(TiffImage.of_key(tile.key).files[0].path).name


def _packed(tile: TileBands) -> bytes:
    if tile.store is None:
        return bytes(tile.stored["bytes"])
    return pack_image(dict(tile.items()), tile.facts)


def with_pixels(dataset: Dataset, column: str, change: Callable[[pa.ChunkedArray], pa.Array]) -> Dataset:
    """A dataset of which what a pixel column stores is changed."""
    table = dataset.with_format("arrow")[:]
    place = table.column_names.index(column)
    table = table.set_column(place, table.schema.field(place), change(table.column(column)))
    changed = Dataset(table.replace_schema_metadata(dataset.features.arrow_schema.metadata), split=dataset.split)
    return changed.with_format(**dataset.format)


def lies_in_store(dataset: Dataset, column: str) -> list[bool]:
    """By row, whether the image of a pixel column lies in a store, and not in the row itself."""
    sources = sources_of(dataset.with_format("arrow").select_columns([column])[:].column(column))
    return [source is not None and len(source) > 1 for source in sources]


def with_sources(dataset: Dataset, column: str, change: Callable[[list[str]], list[str]]) -> Dataset:
    """A dataset of which the source of each image of a column that lies in a store is changed."""

    def changed(pixels: pa.ChunkedArray) -> pa.Array:
        held = pixels.combine_chunks()
        held = held.chunk(0) if isinstance(held, pa.ChunkedArray) else held
        sources = [change(source) if source and len(source) > 1 else source for source in sources_of(held)]
        return _column(_child(held, "bytes"), sources)

    return with_pixels(dataset, column, changed)


def point_to(dataset: Dataset, store: str | os.PathLike[str], *, of: str | os.PathLike[str] | None = None) -> Dataset:
    """Let the rows of a dataset refer to a store at another place, such as one that was moved or copied to a faster disk.

    Args:
        dataset: With pixel columns.
        store: The LMDB, or the folder of GeoTIFFs, where it lies now.
        of: Where it lay, for a dataset of several stores; only rows of that one are changed.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If no row refers to a store, or rows to several and none is named.
    """
    pixels = pixel_columns(dataset)
    columns = [dataset.with_format("arrow").select_columns([name])[:].column(name) for name in pixels]
    known = {source[1] for column in columns for source in sources_of(column) if source and len(source) > 1}
    old = known if of is None else {name for name in known if name.removeprefix(TIFF_PREFIX) == str(Path(of).resolve())}
    if len(old) != 1:
        listed = (
            ", ".join(sorted(name.removeprefix(TIFF_PREFIX) for name in known)) or "none: the rows hold their pixels"
        )
        raise ValueError(f"Which store is meant is not clear; the rows refer to {listed}. Name the old one as of=.")
    was = old.pop()
    now = f"{TIFF_PREFIX if was.startswith(TIFF_PREFIX) else ''}{Path(store).resolve()}"
    with _store_there(now):
        open_source(now)
    for name in pixels:
        dataset = with_sources(
            dataset, name, lambda source: [source[0], now, *source[2:]] if source[1] == was else source
        )
    return dataset


def pixel_columns(dataset: Dataset) -> list[str]:
    """Name the pixel columns of a dataset."""
    return [name for name, feature in dataset.features.items() if isinstance(feature, Tile)]


def _referring(dataset: Dataset) -> list[str]:
    """The pixel columns of a dataset with rows that do not hold their pixels."""
    names = pixel_columns(dataset)
    tables = dataset.with_format("arrow").select_columns(names).iter(_ROWS_AT_ONCE) if names else ()
    found = dict.fromkeys(
        name
        for table in tables
        for name in names
        if any(source is not None and len(source) > 1 for source in sources_of(table.column(name)))
    )
    return list(found)


def _pixel_bytes(dataset: Dataset) -> int:
    """About how many bytes the pixels have that the rows of a dataset only refer to: all as many as the first."""
    total = 0
    for name in _referring(dataset):
        column = (
            dataset.with_format(None)
            .cast_column(name, replace(dataset.features[name], decode=True))
            .select_columns([name])
        )
        tile = next(row[name] for row in column if row[name] is not None and row[name].store is not None)
        total += len(dataset) * sum(band.nbytes for band in tile.values())
    return total


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*register_feature.*experimental")  # nothing a user could do about it
    register_feature(Tile, Tile._type)
wrap_writers(pixel_columns, _referring, _pixel_bytes)
