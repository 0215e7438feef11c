"""Bring your own tiles: GeoTIFFs as the dataset that [`load_bigearthnet`] gives, without encoding them first."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from csmae_hf.data.bands import TIFF_PREFIX, TileBands, open_source
from csmae_hf.data.dataset import to_dataset
from csmae_hf.data.sources import Sources, find_tiles
from csmae_hf.data.tile import Tile
from csmae_hf.images.geotiff import BAND_ORDER, Footprint, TiffFolder, TiffImage, in_order

logger = logging.getLogger(__name__)


def load_tiles(
    source: str | os.PathLike[str],
    *,
    bands: Mapping[str, Sequence[str]] | None = None,
    sensors: Mapping[str, Sequence[str] | None] | None = None,
    metadata: str | os.PathLike[str] | None = None,
    splits: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load GeoTIFF tiles as a dataset with the columns of [`load_bigearthnet`]; pixels are read when they are looked at.

    Args:
        source: A folder: BigEarthNet v1 or v2 as distributed; one file a band, with a prefix or in a folder for each tile
            (`X_B02.tif`, `X/B2.tif`); or one file a sensor (`X_s1.tif` and `X_s2.tif`, or `s1/X.tif` and `s2/X.tif`). Or a CSV or
            parquet table with the column `id`, the paths in `s1` and `s2` or in a column for each band, and perhaps `s1_id`, `labels`,
            `country`, `split`, `snow`, `cloud_or_shadow`; its paths are relative to it.
        bands: By sensor, the bands of files that hold several and do not name them, in the order of the file.
        sensors: Pixel columns to make, and the bands of each (None: all); default those of all sensors found, with the bands that
            every image has.
        metadata: Table to use instead of one found in the folder or beside it: parquet as of BigEarthNet v2, or CSV as of v1.
        splits: Folder of split lists as of BigEarthNet v1: train.csv, val.csv, test.csv, one id a line.

    Returns:
        A row a tile, sorted by `id`: columns as of [`load_bigearthnet`], None where nothing is known. An image has the type and the
        size of its file; `s1` or `s2` is None where a tile has no such image.

    Raises:
        FileNotFoundError: If something named is not there.
        ValueError: If there is no tile, one is there twice, a sensor or a band is not there, or a table or a JSON says what cannot be.
        TiffError: On looking at the pixels of a file that cannot be read.
    """
    found = find_tiles(source, bands=bands, metadata=metadata, splits=splits)
    if found.broken:
        path, reason = next(iter(found.broken.values()))
        raise ValueError(
            f"{len(found.broken)} JSONs of {source} are broken, {path} for one: {reason}. Copy them again."
        )
    wanted = _wanted_sensors(found, sensors)
    columns = {sensor: _column_bands(found, sensor, names) for sensor, names in wanted.items()}
    store = f"{TIFF_PREFIX}{found.root}"
    pixels = {
        sensor: (Tile(store, sensor, names), [_key(tile.images.get(sensor)) for tile in found.tiles])
        for sensor, names in columns.items()
    }
    return to_dataset([tile.row for tile in found.tiles], pixels)


def tile_footprint(pixels: Any) -> Footprint:
    """Say where an image of a dataset of [`load_tiles`] lies, for a map or a GeoJSON.

    Args:
        pixels: What the pixel column of a row gives, such as `dataset[0]["s2"]`. Its pixels are not read.

    Returns:
        Bounds and coordinate reference system; `to_polygon()` gives longitude and latitude.

    Raises:
        ValueError: If it is not of GeoTIFFs.
        TiffError: If the file cannot be read.
    """
    source = open_source(pixels.store) if isinstance(pixels, TileBands) else None
    if not isinstance(source, TiffFolder):
        raise ValueError(
            "Only images that lie in GeoTIFFs say where they lie: pass a pixel column's value of load_tiles, unread."
        )
    return source.footprint(pixels.key)


def _key(image: TiffImage | None) -> str | None:
    return None if image is None else image.key


def _wanted_sensors(
    found: Sources, sensors: Mapping[str, Sequence[str] | None] | None
) -> Mapping[str, Sequence[str] | None]:
    present = [sensor for sensor in BAND_ORDER if any(sensor in tile.images for tile in found.tiles)]
    for sensor in sensors or ():
        if sensor not in present:
            raise ValueError(
                f"No tile of {found.root} has an image of {sensor!r}; there are images of {', '.join(present)}."
            )
    if sensors is not None and not sensors:
        raise ValueError(f"No sensors were asked for; expected some of {', '.join(present)}, or None for all.")
    return dict.fromkeys(present) if sensors is None else sensors


def _column_bands(found: Sources, sensor: str, names: Sequence[str] | None) -> list[str]:
    """The bands of a pixel column: those asked for, or those that every image is known to have."""
    images = [tile.images[sensor] for tile in found.tiles if sensor in tile.images]
    told = {image.bands for image in images if image.bands}
    # of files of several bands one is opened: they are alike as a rule, and one that is not is refused when it is read
    first = next((image for image in images if not image.bands), images[0])
    told.add(TiffFolder(found.root).band_names(first.key))
    common = set.intersection(*map(set, told))
    if names is None and len(set(map(frozenset, told))) > 1:
        logger.warning(
            "The %s images of %s differ in bands; the column has those of all: %s.",
            sensor,
            found.root,
            ", ".join(in_order(common)),
        )
    absent = [band for band in names or () if band not in common]
    if absent or not common or (names is not None and not names) or isinstance(names, str):
        raise ValueError(
            f"Bands {names!r} of {sensor}: not every image of {found.root} has {', '.join(absent) or 'the same band'}; all have "
            f"{', '.join(in_order(common)) or 'none in common'}."
        )
    return list(in_order(common)) if names is None else list(names)
