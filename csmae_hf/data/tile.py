"""The pixel column of a dataset: it stores keys of an LMDB or of GeoTIFFs, and gives bands by name."""

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
from datasets.features.features import register_feature

from csmae_hf.data.bands import TileBands


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
        """Say how Arrow stores the column.

        Returns:
            The type of a key.
        """
        return self.pa_type

    def encode_example(self, value: Any) -> str:
        """Take what a row holds for this column.

        Args:
            value: The tile's key, or its bands as this column gave them.

        Returns:
            The key.

        Raises:
            ValueError: If it is anything else: pixels are not written through the dataset.
        """
        key = value.key if isinstance(value, TileBands) else value
        if not isinstance(key, str):
            raise self._no_pixels(type(value).__name__)
        return str(key)

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Take what a column holds, as `map` writes it.

        Args:
            storage: Keys.

        Returns:
            The keys.

        Raises:
            ValueError: If they are anything else, such as changed pixels. Without this, `datasets` would silently store those.
        """
        if not any(is_key(storage.type) for is_key in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)):
            raise self._no_pixels(str(storage.type)[:100])
        return storage.cast(self.pa_type)

    def _no_pixels(self, given: str) -> ValueError:
        return ValueError(
            f"The pixel column of {self.sensor} stores keys of {self.store}, not a {given}. Put changed pixels in a column of another "
            "name, or write them to a store of their own with csmae_hf.data.store.write_store."
        )

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Any:
        """Give the bands of a tile.

        Args:
            value: Its key. Anything else is taken for bands already given, and given back.
            token_per_repo_id: Unused; the stores are local.

        Returns:
            A [`TileBands`]: (H, W) by band at native resolution, S1 float32 in dB, S2 uint16 digital numbers.
        """
        return TileBands(self.store, value, self.bands) if isinstance(value, str) else value


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*register_feature.*experimental")  # nothing a user could do about it
    register_feature(Tile, Tile._type)
