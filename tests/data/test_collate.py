"""Rows to batches, and errors that name the tile."""

import numpy as np
import pytest

from csmae_hf.data.collate import TileCollator
from image_processing_csmae import CSMAEImageProcessor


def row(name: str, level: float = -15.0) -> dict:
    return {"id": name, "s1": {band: np.full((120, 120), level, np.float32) for band in ("VH", "VV")}}


def test_rows_become_a_batch_in_order():
    batch = TileCollator(CSMAEImageProcessor(), ["s1"])([row("a", -10.0), row("b", -20.0)])
    assert batch["s1"].shape == (2, 2, 120, 120)
    assert (batch["s1"][0] > batch["s1"][1]).all()


def test_a_bad_tile_is_named():
    bad = row("b")
    bad["s1"]["VV"][3, 4] = np.nan
    with pytest.raises(ValueError, match=r"tile b: s1 band VV .* 1 of 14400 values NaN"):
        TileCollator(CSMAEImageProcessor(), ["s1"])([row("a"), bad, row("c")])
