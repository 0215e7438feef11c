"""Real tiles beside the checkout, read each by its own plain means."""

import csv
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageSequence

from csmae_hf.data.store import TileStore

Tile = dict[str, np.ndarray]

READER_BANDS = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A", "VH", "VV"]
"""Channels of what the original's reader returns."""

TERRAMESH_S2 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


def read_tiff(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        pixels = source.read()
    return pixels[0] if len(pixels) == 1 else pixels


def read_golden(path: Path) -> Tile:
    """What the original's reader returned, as it lies in the file: (W, H, C), a page a column of the image."""
    with Image.open(path) as image:
        pixels = np.stack([np.array(page) for page in ImageSequence.Iterator(image)])
    return dict(zip(READER_BANDS, np.moveaxis(pixels, 2, 0), strict=True))


def labelled_pairs(shared_data: Path) -> dict[str, Tile]:
    """All real BigEarthNet pairs, 126 of 124 places: both sensors' bands by name and folder."""
    with (shared_data / "labelled_pairs.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    v1 = TileStore(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")
    v2 = TileStore(shared_data / "bigearthnet_v2_reben_lmdb" / "BigEarthNet-V2-LMDB")
    tiles = {}
    for row in rows:
        key, s1_name, folder = row["key"], row["s1_name"], row["folder"]
        if folder == "bigearthnet_mm_v1_lmdb":
            tile = v1.read(key)
        elif folder == "bigearthnet_v2_reben_lmdb":
            tile = {**v2.read(key), **v2.read(s1_name)}
        elif folder == "csmae_reader_golden_tiffs":
            tile = read_golden(shared_data / folder / f"{row['s2_v1_name']}.tif")
        else:
            tile = {}
            for name in (row["s2_v1_name"], s1_name):
                files = (shared_data / folder).glob(f"*/{name}/*.tif")
                tile |= {path.stem.split("_")[-1]: read_tiff(path) for path in files}
        tiles[f"{folder}/{row['s2_v1_name']}"] = tile
    return tiles


def terramesh_chips(shared_data: Path) -> dict[str, Tile]:
    """The five TerraMesh chips, cropped to 120 x 120 pixels of 10 m."""
    chips = {}
    for path in sorted((shared_data / "terramind_examples" / "S2L2A").glob("*.tif")):
        s2 = dict(zip(TERRAMESH_S2, read_tiff(path), strict=True))
        s1 = dict(zip(("VV", "VH"), read_tiff(path.parents[1] / "S1RTC" / path.name), strict=True))
        chips[path.stem] = {band: pixels[52:172, 52:172] for band, pixels in {**s2, **s1}.items()}
    return chips


def ssl4eo_images(shared_data: Path) -> dict[str, Tile]:
    """The six SSL4EO-S12 images of one place, cropped to 1200 m, bands at their own resolution."""
    images = {}
    for folder in sorted((shared_data / "ssl4eo_s12_location_0000200").glob("*/*/*/")):
        bands = {}
        for path in folder.glob("*.tif"):
            pixels = read_tiff(path)
            size = 120 * len(pixels) // 264
            name = path.stem if path.stem.startswith("V") else f"B{path.stem[1:].zfill(2)}"
            bands[name] = pixels[:size, :size]
        images[f"{folder.parents[1].name}/{folder.name}"] = bands
    return images
