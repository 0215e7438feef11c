"""GeoTIFFs for tests: generated ones, and many tiles made of links to a few real ones."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csmae_hf.bigearthnet import BAND_SIZE, S1_BANDS

V1_EXAMPLES = "bigearthnet_v1_tiff_examples"
RICO_EXAMPLES = "rico_hdl_reben_tiffs"


def random_band(band: str, seed: int = 0) -> np.ndarray:
    """Seeded pixels of a band's native size and type."""
    rng = np.random.default_rng([seed, *band.encode()])
    shape = (BAND_SIZE[band],) * 2
    if band in S1_BANDS:
        return rng.normal(-12, 5, shape).astype(np.float32)
    return rng.integers(1, 9999, shape, dtype=np.uint16)


def write_tiff(
    path: Path, arrays: Sequence[np.ndarray], names: Sequence[str] | None = None, *, metres: float = 1200
) -> Path:
    """Write arrays of one size as the bands of a GeoTIFF in UTM zone 33N, so many metres wide."""
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = arrays[0].shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=len(arrays),
        dtype=arrays[0].dtype,
        crs="EPSG:32633",
        transform=rasterio.Affine(metres / width, 0, 404400, 0, -metres / height, 5342400),
    ) as target:
        target.write(np.stack(arrays))
        for number, name in enumerate(names or (), start=1):
            target.set_band_description(number, name)
    return path


def read_tiff(path: Path) -> np.ndarray:
    """Read the one band of a file, by rasterio alone."""
    import rasterio

    with rasterio.open(path) as source:
        return source.read(1)


def rico_pair(examples: Path, folder: Path) -> Path:
    """Copy the examples of rico-hdl, with its S1 image moved to the place of its S2 image, which is another tile's."""
    import rasterio

    shutil.copytree(examples, folder, ignore=shutil.ignore_patterns("*_LMDB"))
    with rasterio.open(next(folder.rglob("*_B02.tif"))) as optical:
        place = {"crs": optical.crs, "transform": optical.transform}
    for path in folder.rglob("S1A*_V?.tif"):
        with rasterio.open(path) as source:
            pixels, profile = source.read(), {**source.profile, **place}
        path.unlink()
        with rasterio.open(path, "w", **profile) as target:
            target.write(pixels)
    return folder


def link_v1_tiles(examples: Path, folder: Path, count: int) -> Path:
    """Make a folder in the layout of BigEarthNet v1 of `count` pairs, whose files are links to those of the real examples."""
    real = sorted((examples / "BigEarthNet-S2-Example").iterdir())
    partner = {}
    for s1 in (examples / "BigEarthNet-S1-Example").iterdir():
        said = json.loads((s1 / f"{s1.name}_labels_metadata.json").read_text())
        partner[said["corresponding_s2_patch"]] = s1
    for number in range(count):
        s2 = real[number % len(real)]
        s2_name = f"S2A_MSIL2A_20170613T101031_{number // 90}_{number % 90}"
        s1_name = f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{number // 90}_{number % 90}"
        for kind, source, name in (("S2", s2, s2_name), ("S1", partner[s2.name], s1_name)):
            target = folder / f"BigEarthNet-{kind}" / name
            target.mkdir(parents=True)
            for file in source.glob("*.tif"):
                os.symlink(file, target / file.name.replace(source.name, name))
            said = json.loads((source / f"{source.name}_labels_metadata.json").read_text())
            if kind == "S1":
                said["corresponding_s2_patch"] = s2_name
            (target / f"{name}_labels_metadata.json").write_text(json.dumps(said))
    return folder
