"""Lay the 124 real, labelled BigEarthNet pairs beside the checkout out as one archive, and divide its scenes in halves.

    python -m benchmarks.real_archive runs/real_tiles

They lie in four folders and three formats (`../shared/data/README.md`); 124 are distinct. The archive has the layout of
BigEarthNet v2, with the 12 bands that CSMAE uses. Its column `scene` is the pass of the satellites: tiles of which either sensor's
images were taken in one pass are of one scene. (BigEarthNet's names would make 44 scenes of them, some a second apart.)

No tile has a split of its own. Scenes are dealt into two halves, as often as asked for, and each half is reported once: the tables
`halves/0a.parquet`, `halves/0b.parquet`, `halves/1a.parquet`, ... (`--metadata` of both scripts) call the half that is reported
"test", the other one "train".
"""

import argparse
import csv
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.nn import functional

from csmae_hf.bigearthnet import BAND_SIZE, METADATA_NAME, SENSOR_OF_BAND, STORE_NAME
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.dataset import open_store
from csmae_hf.data.metadata import metadata_schema
from csmae_hf.data.store import write_store
from csmae_hf.evaluation.folds import deal_scenes, scenes_of_passes

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TILES = 124
HALVES = ("a", "b")
GOLDEN_BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A", "VH", "VV")
"""Channels of the files that hold what the original's reader returns."""

Pixels = dict[str, np.ndarray[Any, Any]]


def build_real_archive(folder: Path, shared: Path = SHARED_DATA) -> Path:
    """Write the archive, or keep the one that is there.

    Args:
        folder: Where to.
        shared: The folder of real data.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: If the real data are not there.
        ValueError: If they are not the 124 pairs they should be.
    """
    if (folder / METADATA_NAME).is_file():
        return folder
    rows = read_index(shared)
    keys = [key for row in rows for key in (row["s1_name"], row["s2_v1_name"])]
    values = (encode_safetensors(bands) for row in rows for bands in split_bands(read_pair(shared, row)))
    folder.mkdir(parents=True, exist_ok=True)
    write_store(folder / STORE_NAME, zip(keys, values, strict=True), total=len(keys))
    table = [
        {
            "patch_id": row["s2_v1_name"],
            "labels": row["labels_19"].split("; "),
            "split": None,
            "country": row["country"],
            "s1_name": row["s1_name"],
            "contains_seasonal_snow": row["flag"] == "snow",
            "contains_cloud_or_shadow": row["flag"] == "cloud_or_shadow",
            "scene": scene,
        }
        for row, scene in zip(
            rows, scenes_of_passes([(row["s2_v1_name"], row["s1_name"]) for row in rows]), strict=True
        )
    ]
    schema = metadata_schema().append(pa.field("scene", pa.string()))
    pq.write_table(
        pa.Table.from_pylist(table, schema), folder / METADATA_NAME
    )  # last: it says that the archive is whole
    return folder


def read_index(shared: Path) -> list[dict[str, str]]:
    """Read the rows of the distinct pairs, by name."""
    path = shared / "labelled_pairs.csv"
    if not path.is_file():
        raise FileNotFoundError(f"No {path}: the real tiles lie in a folder shared/ beside the checkout.")
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if not row["duplicate_of_folder"]]
    names = {row["s2_v1_name"] for row in rows}
    if len(names) != len(rows) or len(rows) != TILES:
        raise ValueError(f"{path} lists {len(rows)} pairs of {len(names)} names: expected {TILES}.")
    return sorted(rows, key=lambda row: row["s2_v1_name"])


def write_half(archive: Path, dealing: int, half: str) -> Path:
    """Write the table of metadata by which one half of the scenes is "test", and the other one "train".

    Args:
        archive: The folder of the archive.
        dealing: Seed by which scenes are dealt.
        half: Which is "test", one of `HALVES`.

    Returns:
        The table.
    """
    table = pq.read_table(archive / METADATA_NAME)
    dealt = deal_scenes(table["scene"].to_pylist(), len(HALVES), dealing)
    split = ["test" if HALVES[fold] == half else "train" for fold in dealt]
    path = archive / "halves" / f"{dealing}{half}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table.set_column(table.column_names.index("split"), "split", pa.array(split)), path)
    return path


def read_pair(shared: Path, row: dict[str, str]) -> Pixels:
    """Read the 12 bands of one pair, in native resolution and type, from whichever folder has it."""
    folder = shared / row["folder"]
    if row["folder"] == "csmae_reader_golden_tiffs":
        return read_golden(folder / f"{row['key']}.tif")
    if row["folder"] == "bigearthnet_v1_tiff_examples":
        names = {"s1": ("S1", row["s1_name"]), "s2": ("S2", row["s2_v1_name"])}
        return {
            band: read_tiff(folder / f"BigEarthNet-{part}-Example" / name / f"{name}_{band}.tif")
            for band in GOLDEN_BANDS
            for part, name in [names[SENSOR_OF_BAND[band]]]
        }
    store = open_store(str(next(folder.rglob("data.mdb")).parent))
    if store.format == "v1":
        return store.read(row["key"], GOLDEN_BANDS)
    bands = {sensor: [band for band in GOLDEN_BANDS if SENSOR_OF_BAND[band] == sensor] for sensor in ("s1", "s2")}
    return store.read(row["s1_name"], bands["s1"]) | store.read(row["key"], bands["s2"])


def read_tiff(path: Path) -> np.ndarray[Any, Any]:
    """Read a file of one band."""
    import rasterio

    with rasterio.open(path) as file:
        band: np.ndarray[Any, Any] = file.read(1)
    return band


def read_golden(path: Path) -> Pixels:
    """Read what the original's reader returned, and undo what it did: rows and columns swapped, 20 m bands enlarged to 120 pixels."""
    with Image.open(path) as image:
        pages = []
        for page in range(120):
            image.seek(page)
            pages.append(np.asarray(image, dtype=np.float32))
    cube = np.stack(pages).transpose(2, 1, 0)  # (column, row, band) as stored
    return {band: to_native(layer, band) for band, layer in zip(GOLDEN_BANDS, cube, strict=True)}


def to_native(layer: np.ndarray[Any, Any], band: str) -> np.ndarray[Any, Any]:
    """Undo the enlargement of a band: a linear map of full rank, and digital numbers are whole, so it is exact.

    Raises:
        ValueError: If what comes out is not whole numbers, so that the band was enlarged otherwise.
    """
    size = BAND_SIZE[band]
    if SENSOR_OF_BAND[band] == "s1":
        return np.ascontiguousarray(layer)
    native = layer.astype(np.float64)
    if size != len(layer):
        unit = torch.eye(size, dtype=torch.float64).reshape(1, 1, size, size)
        enlarge = functional.interpolate(unit, size=(len(layer), size), mode="bicubic", align_corners=True)[0, 0]
        shrink = torch.linalg.pinv(enlarge).numpy()
        native = shrink @ native @ shrink.T
    if np.abs(native - native.round()).max() > 0.01:
        raise ValueError(f"Band {band} is not an enlargement of whole numbers at {size} x {size} pixels.")
    return native.round().astype(np.uint16)


def split_bands(bands: Pixels) -> tuple[Pixels, Pixels]:
    """The bands of either sensor, S1 first."""
    s1, s2 = ({band: bands[band] for band in bands if SENSOR_OF_BAND[band] == sensor} for sensor in ("s1", "s2"))
    return s1, s2


def main() -> int:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write the archive; kept when it is there")
    try:
        folder = build_real_archive(parser.parse_args().folder)
    except (ValueError, FileNotFoundError) as error:
        logging.error("real_archive.py: %s", error)
        return 2
    logging.info("Archive of %d real tiles: %s", TILES, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
