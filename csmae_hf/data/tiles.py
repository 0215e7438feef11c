"""Bring your own tiles: GeoTIFFs as the dataset that [`load_bigearthnet`] gives, without encoding them first."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from csmae_hf.data.dataset import to_dataset
from csmae_hf.data.find_tiles import FoundTiles, find_tiles
from csmae_hf.data.pixel_column import TIFF_PREFIX, Tile, TileBands, refer
from csmae_hf.data.unit_rules import Units
from csmae_hf.images.geotiff import Footprint, TiffFolder
from csmae_hf.images.names import Sensors, bands_by_sensor, in_order

logger = logging.getLogger(__name__)


def load_tiles(
    source: str | os.PathLike[str],
    *,
    bands: Mapping[str, Sequence[str]] | None = None,
    sensors: Sensors | None = None,
    metadata: str | os.PathLike[str] | None = None,
    splits: str | os.PathLike[str] | None = None,
    pair: str | None = None,
    units: Units | None = None,
    level: str | None = None,
) -> Dataset:
    """Load image files (GeoTIFF, JPEG 2000) as a dataset with the columns of [`load_bigearthnet`]; pixels are read when they are
    looked at.

    Args:
        source: A folder: BigEarthNet v1 or v2 as distributed; one file a band, with a prefix or in a folder for each tile
            (`X_B02.tif`, `X/B2.tif`, `X_B02_10m.jp2`), SAFE folders too; or one file a sensor (`X_s1.tif` and `X_s2.tif`, or
            `s1/X.tif` and `s2/X.tif`), or of both whose descriptions name the bands. Several dates in a folder or a file are tiles of
            their own. Or a CSV or parquet table with the column `id`, the paths in `s1` and `s2` or in a column for each band, and
            perhaps `s1_id`, `labels`, `country`, `split`, `snow`, `cloud_or_shadow`, `units_s1`, `units_s2`; its paths are
            relative to it.
        bands: By sensor, the bands of files that hold several and do not name them, in the order of the file.
        sensors: Pixel columns to make, and the bands of each (None: all), or their names alone; default those of all sensors found,
            with the bands that every image has. Any name will do: a sensor that is not BigEarthNet's is found by the bands given for
            it, spelled as in the names of files (`X_T10.tif`), or by its own name in that of a file or a folder (`X_thermal.tif`,
            `thermal/X.tif`), and paired as S1 is. A band given for it is no more of the sensor that BigEarthNet has it of.
        metadata: Table to use instead of one found in the folder or beside it: parquet as of BigEarthNet v2, or CSV as of v1.
        splits: Folder of split lists as of BigEarthNet v1: train.csv, val.csv, test.csv, one id a line.
        pair: What of their names the images of a tile have in common, where names are not alike but for the sensor: a pattern such as
            `"ROIs*_{sensor}_*"`, with `{sensor}` for the sensor's name and `*` for the rest, of the file's name, or with a `/` of its
            path; or a regular expression with one group, looked for in the path.
        units: By sensor, what the pixels are in ("db", "linear"; "dn", "dn+1000", "reflectance"), where the files do not say it: of
            all tiles, or by rules such as "dn+1000 from 2022-01-25", one or a list; see [`parse_rule`].
        level: "L1C" to take Level-1C images, which are else refused.

    Returns:
        A row a tile, sorted by `id`: columns as of [`load_bigearthnet`], None where nothing is known. An image has the type and the
        size of its file; `s1` or `s2` is None where a tile has no such image.

    Raises:
        FileNotFoundError: If something named is not there.
        ValueError: If there is no tile, one is there twice, a sensor or a band is not there, a table or a JSON says what cannot be, or
            the two images of a pair lie in different places.
        RasterError: On looking at the pixels of a file that cannot be read, or says what contradicts the arguments.
    """
    sensors = None if sensors is None else bands_by_sensor(sensors)
    found = find_tiles(
        source, sensors=sensors, bands=bands, metadata=metadata, splits=splits, pair=pair, units=units, level=level
    )
    if found.broken:
        path, reason = next(iter(found.broken.values()))
        raise ValueError(
            f"{len(found.broken)} JSONs of {source} are broken, {path} for one: {reason}. Copy them again."
        )
    check_asked(found, sensors)
    columns = {sensor: _column_bands(found, sensor, (sensors or {}).get(sensor)) for sensor in sensors or found.sensors}
    store = f"{TIFF_PREFIX}{found.root}"
    pixels = {
        sensor: (
            Tile(sensor, names),
            refer(store, [tile.images[sensor].key if sensor in tile.images else None for tile in found.tiles]),
        )
        for sensor, names in columns.items()
    }
    folder = TiffFolder(found.root)

    def latitude_of(number: int) -> float | None:
        return folder.latitude(next(iter(found.tiles[number].images.values())).key)

    return to_dataset([tile.row for tile in found.tiles], pixels, latitude_of=latitude_of)


def check_asked(found: FoundTiles, sensors: Iterable[str] | None) -> None:
    """Refuse sensors of which there is no image, and none at all; None is all there are."""
    for sensor in sensors or ():
        if sensor not in found.sensors:
            raise ValueError(
                f"No tile of {found.root} has an image of {sensor!r}; there are images of {', '.join(found.sensors)}."
            )
    if sensors is not None and not sensors:
        raise ValueError(f"No sensors were asked for; expected some of {', '.join(found.sensors)}, or None for all.")


def tile_footprint(pixels: Any) -> Footprint:
    """Say where an image of a dataset of [`load_tiles`] lies, for a map or a GeoJSON.

    Args:
        pixels: What the pixel column of a row gives, such as `dataset[0]["s2"]`. Its pixels are not read.

    Returns:
        Bounds and coordinate reference system; `to_polygon()` gives longitude and latitude.

    Raises:
        ValueError: If it is not of GeoTIFFs.
        RasterError: If the file cannot be read.
    """
    footprint = pixels.footprint if isinstance(pixels, TileBands) else None
    if footprint is None:
        raise ValueError(
            "Only images that lie in GeoTIFFs say where they lie: pass a pixel column's value of load_tiles, unread."
        )
    return footprint


def _column_bands(found: FoundTiles, sensor: str, names: Sequence[str] | None) -> list[str]:
    """The bands of a pixel column: those asked for, or those that every image is known to have."""
    images = [tile.images[sensor] for tile in found.tiles if sensor in tile.images]
    told = {image.bands for image in images if image.bands}
    # of files of several bands one is opened: they are alike as a rule, and one that is not is refused when it is read
    first = next((image for image in images if not image.bands), images[0])
    told.add(TiffFolder(found.root).band_names(first.key, expected=found.names.bands[sensor]))
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
