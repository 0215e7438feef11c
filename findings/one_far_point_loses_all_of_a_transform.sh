#!/usr/bin/env bash
# Finding: one point that a UTM zone cannot hold loses all others of `rasterio.warp.transform`, by an error that rasterio.errors does not know.
#
# Versions: rasterio 1.4.4 (GDAL 3.10.3 in its wheel).
# Guess: points out of a projection's reach come back as infinity beside the others; else a `RasterioError` says what is wrong.
# Seen:  a list of two points, one in the zone and one 90 degrees east of its meridian on the equator, raises CPLE_AppDefinedError and gives
#        neither. Its class stands in the private module `rasterio._err`, and is no subclass of `rasterio.errors.RasterioError`. A point on the
#        other side of the Earth (165 degrees west of the meridian) raises nothing: it gets coordinates 18,852 km north, as if it lay there.
# Why it matters here: tiles of many satellite scenes are compared with one area, or brought to the zone of one tile, all at once. One tile
#        far away makes the whole archive fail, what is caught by the library's own error class does not catch it, and a tile still farther
#        away passes as if the zone held it. Points have to be chosen by their longitude first.
# This script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet rasterio==1.4.4
"$folder/venv/bin/python" - <<'PYTHON'
import math

from rasterio.errors import RasterioError
from rasterio.warp import transform

ZONE, DEGREES = "EPSG:32633", "EPSG:4326"  # the meridian of zone 33 is 15 degrees east
near, quarter, far = (13.4, 52.5), (105.0, 0.0), (-150.0, 10.0)


def to_zone(*points: tuple[float, float]) -> list[tuple[float, float]]:
    x, y = transform(DEGREES, ZONE, *map(list, zip(*points)))
    return list(zip(x, y))


print("near alone:", to_zone(near))
try:
    found = to_zone(near, quarter)
except Exception as error:
    kind = type(error)
    print("near and a quarter of the Earth away:", f"{kind.__module__}.{kind.__qualname__}: {error}")
    assert kind.__module__ == "rasterio._err", kind
    assert not isinstance(error, RasterioError)
else:
    raise SystemExit(f"Changed: both have an answer, {found}.")
both = to_zone(near, far)
print("near and the other side:", both)
assert all(math.isfinite(value) for point in both for value in point)
assert both[1][1] > 10_002_000, "farther north of the equator than the pole is"
PYTHON
