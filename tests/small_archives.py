"""Archives of six generated tiles, and what they hold, for tests that need no real pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from csmae_hf.bigearthnet import BAND_SIZE, LABELS, S1_BANDS, S2_BANDS
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.store import write_store

SPLITS = ("train", "train", "validation", "test", "train", "test")
COUNTRIES = ("Finland", "Austria", "Serbia", "Finland", "Ireland", "Finland")
S2_NAMES = [f"S2A_MSIL2A_2017{month:02d}13T101031_N9999_R022_T33UUP_{month:02d}_57" for month in (12, 4, 6, 9, 1, 11)]
S1_NAMES = [f"S1B_IW_GRDH_1SDV_2017{month:02d}12T165809_33UUP_{month}_57" for month in (12, 3, 5, 8, 1, 11)]


def pixels(number: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The seeded bands of a tile."""
    rng = np.random.default_rng([number, len(names)])
    return {
        band: rng.normal(-12, 5, (BAND_SIZE[band],) * 2).astype(np.float32)
        if band in S1_BANDS
        else rng.integers(1, 9999, (BAND_SIZE[band],) * 2, dtype=np.uint16)
        for band in names
    }


def metadata_rows() -> list[dict[str, Any]]:
    return [
        {
            "patch_id": S2_NAMES[n],
            "labels": [LABELS[n], LABELS[n + 5]],
            "split": SPLITS[n],
            "country": COUNTRIES[n],
            "s1_name": S1_NAMES[n],
            "s2v1_name": "",
            "contains_seasonal_snow": n == 4,
            "contains_cloud_or_shadow": n == 5,
        }
        for n in range(6)
    ]


def tile_items(sensors: tuple[str, ...] = ("s1", "s2")) -> Iterator[tuple[str, bytes]]:
    for n in range(6):
        if "s1" in sensors:
            yield S1_NAMES[n], encode_safetensors(pixels(n, S1_BANDS))
        if "s2" in sensors:
            yield S2_NAMES[n], encode_safetensors(pixels(n, S2_BANDS))


def write_archive(
    folder: Path, rows: list[dict[str, Any]] | None = None, sensors: tuple[str, ...] = ("s1", "s2")
) -> Path:
    """A v2 archive of six tiles: an LMDB with its metadata beside it."""
    write_store(folder / "lmdb", tile_items(sensors))
    rows = metadata_rows() if rows is None else rows
    pq.write_table(
        pa.Table.from_pylist(rows, pa.Table.from_pylist(metadata_rows()).schema), folder / "metadata.parquet"
    )
    return folder


def number_of(row: dict[str, Any]) -> int:
    return S2_NAMES.index(row["id"])


def has_own_pixels(row: dict[str, Any]) -> bool:
    return all(
        list(row[sensor]) == list(names)
        and all(np.array_equal(row[sensor][band], array) for band, array in pixels(number_of(row), names).items())
        for sensor, names in (("s1", S1_BANDS), ("s2", S2_BANDS))
    )
