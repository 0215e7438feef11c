"""Small archives, and the models and tiles that they are made of, for the tests of retrieval."""

from datetime import datetime, timedelta

import datasets
import numpy as np
from tiny_models import TWO_SENSORS, build, tiny_config

from csmae_hf import CSMAEImageProcessor, CSMAEModel

CLASSES = ["Arable land", "Broad-leaved forest", "Pastures", "Marine waters"]
COUNTRIES = ["Austria", "Finland", "Portugal", None]
SEASONS = ["Winter", "Spring", "Summer", "Fall"]
SIZE = 16


def make_model(seed=0):
    return build(CSMAEModel, tiny_config(), seed)


def make_processor(**overrides):
    return CSMAEImageProcessor(**{"sensors": TWO_SENSORS, "size": SIZE, **overrides})


def make_tile(rng):
    return {
        "s1": {
            band: rng.normal(mean, 4, (SIZE, SIZE)).astype(np.float32)
            for band, mean in zip(TWO_SENSORS["s1"], (-20, -13), strict=True)  # VV is brighter than VH
        },
        "s2": {band: rng.uniform(100, 4000, (SIZE, SIZE)).astype(np.float32) for band in TWO_SENSORS["s2"]},
    }


def make_dataset(tiles, *, first=0, seed=0, broken=()):
    """Tiles of noise with metadata; those in `broken` hold a NaN in a band of s2."""
    rng = np.random.default_rng(seed)
    band = datasets.List(datasets.List(datasets.Value("float32")))
    features = {
        "id": datasets.Value("string"),
        "labels": datasets.List(datasets.ClassLabel(names=CLASSES)),
        "country": datasets.Value("string"),
        "season": datasets.ClassLabel(names=SEASONS),
        "date_s2": datasets.Value("timestamp[s]"),
        "elevation": datasets.Value("float64"),
        **{sensor: dict.fromkeys(names, band) for sensor, names in TWO_SENSORS.items()},
    }
    rows = []
    for number in range(first, first + tiles):
        pixels = make_tile(rng)
        if number in broken:
            pixels["s2"]["B03"][0, 0] = np.nan
        rows.append(
            {
                "id": f"tile_{number:04d}",
                "labels": None if number % 10 == 9 else sorted({number % 4, (number // 4) % 4}),
                "country": COUNTRIES[number % 4],
                "season": (number // 4) % 4,
                "date_s2": datetime(2017, 1, 1) + timedelta(days=number),
                "elevation": float("nan") if number % 7 == 3 else float(number),
                **pixels,
            }
        )
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))
