"""A data set by its place: an LMDB store, or a folder or table of image files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from csmae_hf.bigearthnet import SPLITS
from csmae_hf.data.dataset import load_bigearthnet, stores_in
from csmae_hf.data.evenly import evenly
from csmae_hf.data.store import DATA_FILE, is_lmdb_file
from csmae_hf.data.tiles import load_tiles
from csmae_hf.data.unit_rules import Units
from csmae_hf.data.units import with_units
from csmae_hf.images.names import Sensors

ALL_TILES = "all"
Missing = Literal["error", "drop"]


def load_data(
    data: str | Path,
    split: str,
    *,
    subset: str | None = None,
    metadata: str | None = None,
    splits: str | None = None,
    missing: Missing = "error",
    limit: int | None = None,
    bands: Mapping[str, Sequence[str]] | None = None,
    sensors: Sensors | None = None,
    pair: str | None = None,
    units: Units | None = None,
    level: str | None = None,
) -> Dataset:
    """Load a split of a data set.

    Args:
        data: Folder of the store, as of [`load_bigearthnet`], or folder or table of GeoTIFFs, as of [`load_tiles`].
        split: Name of the split, or `all`.
        subset: As of [`load_bigearthnet`].
        metadata: As of [`load_bigearthnet`].
        splits: As of [`load_bigearthnet`].
        missing: As of [`load_bigearthnet`].
        limit: The most tiles to keep, evenly spread over the split in the order of their ids, the same every time; None for all.
        bands: As of [`load_tiles`], for files alone, like `pair` and `level`.
        sensors: As of [`load_bigearthnet`] and [`load_tiles`].
        pair: As of [`load_tiles`].
        units: As of [`load_tiles`]; of a store too, where its pixels are in other units than BigEarthNet's.
        level: As of [`load_tiles`].

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If the split is unknown, the limit less than 1, or as [`load_bigearthnet`] and [`load_tiles`].
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: expected the number of tiles to keep, at least 1, or None for all.")
    split = split_name(split)
    path = Path(data)
    name = None if split == ALL_TILES else split
    if path.exists() and not holds_store(path):
        said = {"bands": bands, "sensors": sensors, "pair": pair, "units": units, "level": level}
        dataset = _load_geotiffs(path, name, subset, metadata=metadata, splits=splits, **said)
    else:
        for argument, value in {"bands": bands, "pair": pair, "level": level}.items():
            if value is not None:
                raise ValueError(
                    f"{path} is a store, and {argument}={value!r} is for image files: leave it out (--{argument})."
                )
        dataset = load_bigearthnet(
            path, name, subset=subset, metadata=metadata, splits=splits, sensors=sensors, missing=missing
        )
        dataset = with_units(dataset, units or {})
    return dataset if limit is None or limit >= len(dataset) else dataset.select(evenly(len(dataset), limit))


def holds_store(path: Path) -> bool:
    """Say whether a path is an LMDB, or a folder that holds one."""
    return is_lmdb_file(path) or (path.is_dir() and bool(stores_in(path)))


def _load_geotiffs(source: Path, split: str | None, subset: str | None, **said: Any) -> Dataset:
    """A split of a folder of GeoTIFFs, or of a table of them."""
    if subset is not None:
        raise ValueError(
            f"{source} has GeoTIFFs, and subset={subset!r} is of BigEarthNet: encode it (`csmae encode`), or leave subset out."
        )
    try:
        tiles = load_tiles(source, **said)
    except ValueError as error:
        raise ValueError(f"{source} holds no LMDB ({DATA_FILE}); read as GeoTIFFs: {error}") from error
    if split is None:
        return tiles
    rows = [row for row, name in enumerate(tiles["split"]) if name == split]
    if not rows:
        raise ValueError(
            f"None of the {len(tiles)} tiles of {source} is of split {split!r}: give lists of splits (--splits), a table "
            f"(--metadata), or take {ALL_TILES!r} for every tile."
        )
    return tiles.select(rows)


def split_name(split: str) -> str:
    """Give a split its one name: `val` is `validation`, as in BigEarthNet v2; `all` stays. A ValueError for any other."""
    name = "validation" if split == "val" else split
    if name not in (*SPLITS, ALL_TILES):
        raise ValueError(
            f"Unknown split {split!r}: expected one of {', '.join(SPLITS)}, or {ALL_TILES!r} for every tile."
        )
    return name
