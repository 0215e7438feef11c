"""A small archive of two sensors with places, for the tests of exports and imports."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from csmae_hf.archive.archive import Archive
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.identity import Identity

TILES, WIDTH = 120, 16
CONFIG = {"sensors": {"s1": ["VH", "VV"], "s2": ["B02", "B03"]}, "image_size": 120, "cross_sensor_encoder_depth": 1}
IDENTITY = Identity("someone/model", "f" * 40, "a" * 64, "b" * 64, config=CONFIG, precision="float32", code="0.1.0")


def tile_name(number):
    return f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{number % 12:02d}_{number // 12:02d}"


def make_archive(tiles=TILES, *, seed=0, aligned=True, identity=IDENTITY, **columns):
    """Tiles named as BigEarthNet v2 does; row `i` has the number `i`."""
    rng = np.random.default_rng(seed)
    embeds = {sensor: rng.normal(size=(tiles, WIDTH)).astype(np.float32) for sensor in ("s1", "s2")}
    order = rng.permutation(tiles)
    table = pa.table(
        {
            "id": [tile_name(number) for number in order],
            "labels": [["Pastures"] if number % 2 else [] for number in range(tiles)],
            "date_s2": pa.array([datetime(2017, 1, 1) + timedelta(days=number) for number in range(tiles)]),
            "number": pa.array(range(tiles), pa.int16()),
            # names that an export has itself, and a type that GeoParquet would not give
            "bbox": [None if number == 3 else f"box {number}" for number in range(tiles)],
            "tile_bbox": ["theirs"] * tiles,
            "a.b": pa.array(range(tiles), pa.duration("s")),
            **columns,
        }
    )
    alignment = Alignment.fit(embeds, "center", quiet=True) if aligned else None
    return Archive.from_embeds(
        embeds, table, identity, alignment=alignment, generated=True, source={"data": "/home/somebody/BigEarthNet-v2"}
    )
