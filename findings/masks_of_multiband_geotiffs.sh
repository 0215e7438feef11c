#!/usr/bin/env bash
# Finding: what a GeoTIFF declares to be no measurement is only partly seen by read_masks, and nothing says which part.
#
# Versions: rasterio 1.4.4 (its wheel brings GDAL 3.10.3), numpy 2.4.6.
# Guess: read_masks gives 0 wherever the file declares that there is no measurement, whatever the way it declares it.
# Seen:  (1) an alpha channel masks the other layers only of files of 2 or 4 layers. In a stack of ten bands and alpha, as satellite images
#            come, every layer is "all_valid" and pixels with alpha 0 are measurements.
#        (2) where a file has a no-data value and a mask as well (inside it), the mask alone counts: pixels at the no-data value that the
#            mask does not cover are measurements.
# Why it matters here: Sentinel stacks are exported with alpha or a mask, clouds and borders set to 0; read as reflectance they are the
# darkest water there is, and an embedding of such a tile is a number like any other.
# This script fails if either behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet rasterio==1.4.4 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import rasterio
from rasterio.enums import ColorInterp

warnings.simplefilter("ignore")
profile = {"driver": "GTiff", "height": 64, "width": 64, "dtype": "uint16", "photometric": "MINISBLACK"}
pixels = np.full((64, 64), 1200, np.uint16)


def flags_and_hidden(layers: int) -> tuple[list[str], int]:
    """What the first band of a file of so many layers, the last of them alpha, has for a mask; its upper half has alpha 0."""
    alpha = np.full((64, 64), 65535, np.uint16)
    alpha[:32] = 0
    name = f"stack{layers}.tif"
    with rasterio.open(name, "w", count=layers, **profile) as target:
        target.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (layers - 2) + [ColorInterp.alpha]
        for number in range(1, layers):
            target.write(pixels, number)
        target.write(alpha, layers)
    with rasterio.open(name) as source:
        assert source.colorinterp[-1] == ColorInterp.alpha
        return [flag.name for flag in source.mask_flag_enums[0]], int((source.read_masks(1) == 0).sum())


seen = {layers: flags_and_hidden(layers) for layers in (2, 4, 11)}
for layers, (flags, hidden) in seen.items():
    print(f"{layers} layers, the last alpha: {flags}, {hidden} of 4096 pixels masked")
assert seen[2][1] == seen[4][1] == 2048, "alpha of 2 and 4 layers no longer masks"
assert seen[11] == (["all_valid"], 0), "alpha of 11 layers masks now"

with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
    with rasterio.open("both.tif", "w", count=1, nodata=0, **profile) as target:
        holes = pixels.copy()
        holes[:16] = 0  # at the no-data value
        mask = np.full((64, 64), 255, np.uint8)
        mask[48:] = 0  # masked elsewhere
        target.write(holes, 1)
        target.write_mask(mask)
with rasterio.open("both.tif") as source:
    flags, masked = [flag.name for flag in source.mask_flag_enums[0]], source.read_masks(1) == 0
print(f"no-data value and mask: {flags}, masked {int(masked[:16].sum())} of 1024 at the value, {int(masked[48:].sum())} of 1024 by the mask")
assert source.nodata == 0
assert not masked[:16].any() and masked[48:].all(), "the no-data value counts beside a mask now"
print("as found")
PYTHON
