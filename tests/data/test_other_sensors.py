"""Sensors that are not BigEarthNet's, or have other names: from files to the model, through a store or without one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiff_files import random_band, write_tiff
from tiny_models import tiny_config

from csmae_hf.data.codecs import CorruptTileError, decode_value, encode_safetensors
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.encode import encode
from csmae_hf.data.find_tiles import find_tiles
from csmae_hf.data.info import describe
from csmae_hf.data.tiles import load_tiles
from csmae_hf.data.verify import verify
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEModel

pytest.importorskip("rasterio")

NAMES = ["a", "b"]
Sensors = Mapping[str, Sequence[str]]
RENAMED: Sensors = {"sar": ["VH", "VV"], "optical": ["B02", "B03", "B04", "B05"]}
THREE: Sensors = {"s1": ["VH", "VV"], "s2": ["B02", "B08"], "thermal": ["T10", "lst_day"]}


def pixels(band: str, seed: int) -> np.ndarray:
    """The pixels of a band of a tile; 60 x 60 kelvin in float32 of one that is not BigEarthNet's."""
    if band.startswith(("B", "V")):
        return random_band(band, seed)
    return np.random.default_rng([seed, *band.encode()]).normal(290, 5, (60, 60)).astype(np.float32)


def write_bands(folder: Path, sensors: Sensors) -> Path:
    for seed, name in enumerate(NAMES):
        for bands in sensors.values():
            for band in bands:
                write_tiff(folder / f"{name}_{band}.tif", [pixels(band, seed)])
    return folder


def check_pixels(data: datasets.Dataset, sensors: Sensors) -> None:
    assert list(data["id"]) == NAMES
    for seed, row in enumerate(data):
        for sensor, bands in sensors.items():
            assert list(row[sensor]) == list(bands)
            for band in bands:
                assert row[sensor][band].dtype == pixels(band, seed).dtype
                np.testing.assert_array_equal(row[sensor][band], pixels(band, seed))


def embed(data: datasets.Dataset, sensors: Sensors) -> dict[str, torch.Tensor]:
    others = {band: (290.0, 5.0) for bands in sensors.values() for band in bands if not band.startswith(("B", "V"))}
    processor = CSMAEImageProcessor(
        sensors,
        band_mean={band: mean for band, (mean, _) in others.items()},
        band_std={band: std for band, (_, std) in others.items()},
    )
    torch.manual_seed(0)
    model = CSMAEModel(tiny_config(image_size=120, patch_size=30, sensors=dict(sensors))).eval()
    batch = TileCollator(processor)([data[place] for place in range(len(data))])
    with torch.inference_mode():
        return model(**batch).embeds


@pytest.mark.parametrize("sensors", [RENAMED, THREE], ids=["renamed", "a third"])
def test_a_sensor_is_configuration_from_files_to_the_model_and_through_a_store(
    tmp_path: Path, sensors: Sensors
) -> None:
    source = write_bands(tmp_path / "source", sensors)
    data = load_tiles(source, sensors=sensors)
    check_pixels(data, sensors)
    assert {name for name in data.column_names if name in {"s1", "s2", "sar", "optical", "thermal"}} == set(sensors)
    report = encode(source, tmp_path / "out", sensors=sensors, workers=0)
    assert (report.written, report.failures) == (len(NAMES) * len(sensors), [])
    assert encode(source, tmp_path / "out", sensors=sensors, workers=0).present == report.written
    assert verify(tmp_path / "out", workers=0).broken == {}
    stored = load_bigearthnet(tmp_path / "out")
    check_pixels(stored, sensors)
    said = "\n".join(describe(tmp_path / "out"))
    assert f"tiles     2 with {' and '.join(sensors)}\n" in said
    assert all(band in said for bands in sensors.values() for band in bands)
    embeds = embed(data, sensors)
    assert {sensor: tuple(found.shape) for sensor, found in embeds.items()} == dict.fromkeys(sensors, (2, 32))
    for sensor, found in embed(stored, sensors).items():
        torch.testing.assert_close(found, embeds[sensor], rtol=0, atol=0)
        assert (found[0] - found[1]).abs().max() > 1e-4  # of two tiles


def test_the_name_of_a_third_sensors_image_is_in_the_metadata_and_in_a_column(tmp_path: Path) -> None:
    source = write_bands(tmp_path / "source", THREE)
    encode(source, tmp_path / "out", sensors=THREE, workers=0)
    rows = pq.read_table(tmp_path / "out" / "metadata.parquet").to_pylist()
    assert [row["thermal_name"] for row in rows] == ["THERMAL-of-a", "THERMAL-of-b"]
    assert list(load_bigearthnet(tmp_path / "out")["thermal_id"]) == ["THERMAL-of-a", "THERMAL-of-b"]
    only = load_bigearthnet(tmp_path / "out", sensors={"thermal": ["T10"]})
    assert list(only[1]["thermal"]) == ["T10"]
    with pytest.raises(ValueError, match="has no T11 of tile a; of thermal it has T10, lst_day"):
        load_bigearthnet(tmp_path / "out", sensors={"thermal": ["T11"]})
    with pytest.raises(ValueError, match=r"Unknown sensor 'lidar'.*thermal"):
        load_bigearthnet(tmp_path / "out", sensors={"lidar": None})


@pytest.mark.parametrize("layout", ["{name}_thermal.tif", "thermal/{name}.tif", "THERMAL/{name}.tiff"])
@pytest.mark.parametrize("described", [True, False])
def test_files_of_several_bands_are_told_by_the_sensors_name(tmp_path: Path, layout: str, described: bool) -> None:
    bands = THREE["thermal"]
    for seed, name in enumerate(NAMES):
        write_tiff(tmp_path / f"{name}_B02.tif", [pixels("B02", seed)])
        arrays = [pixels(band, seed) for band in bands]
        write_tiff(tmp_path / layout.format(name=name), arrays, bands if described else None)
    sensors = {"s2": ["B02"], "thermal": bands}
    data = load_tiles(tmp_path, sensors=sensors, bands=None if described else {"thermal": bands})
    check_pixels(data, sensors)
    if not described:
        with pytest.raises(ValueError, match="does not name its 2 bands"):
            load_tiles(tmp_path, sensors=sensors)


@pytest.mark.parametrize("columns", [{"thermal": "{name}_T10.tif"}, {"T10": "{name}_T10.tif"}])
def test_a_table_of_paths_has_a_column_for_any_sensor(tmp_path: Path, columns: dict[str, str]) -> None:
    write_bands(tmp_path, {"s2": ["B02"], "thermal": ["T10"]})
    rows: list[dict[str, Any]] = [
        {
            "id": name,
            "B02": f"{name}_B02.tif",
            "thermal_id": f"hot_{name}",
            **{key: path.format(name=name) for key, path in columns.items()},
        }
        for name in NAMES
    ]
    (tmp_path / "tiles.csv").write_text(
        "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"
    )
    sensors = {"s2": ["B02"], "thermal": ["T10"]}
    data = load_tiles(tmp_path / "tiles.csv", sensors=sensors, bands={"thermal": ["T10"]})
    check_pixels(data, sensors)
    assert list(data["thermal_id"]) == ["hot_a", "hot_b"]


def test_a_band_of_two_declared_sensors_is_the_ones_that_the_path_names(tmp_path: Path) -> None:
    for seed, orbit in enumerate(("asc", "desc")):
        for name in NAMES:
            write_tiff(tmp_path / orbit / f"{name}_VV.tif", [pixels("VV", seed)])
    write_tiff(tmp_path / "descent" / "a_VV.tif", [pixels("VV", 9)])  # names neither
    data = load_tiles(tmp_path, sensors={"asc": ["VV"], "desc": ["VV"]})
    assert list(data["id"]) == NAMES
    for row in data:
        np.testing.assert_array_equal(row["asc"]["VV"], pixels("VV", 0))
        np.testing.assert_array_equal(row["desc"]["VV"], pixels("VV", 1))


def test_without_a_declaration_nothing_changes(tmp_path: Path) -> None:
    write_bands(tmp_path, THREE)
    assert find_tiles(tmp_path).sensors == ["s1", "s2"]
    with pytest.raises(ValueError, match=r"unknown sensor; expected one of s1, s2"):
        load_tiles(tmp_path, bands={"thermal": ["T10"]})


def test_a_value_may_hold_other_bands_only_where_it_says_of_which_sensor_it_is() -> None:
    bands = {"T10": pixels("T10", 0)}
    with pytest.raises(ValueError, match="unknown band 'T10'"):
        encode_safetensors(bands)
    value = encode_safetensors(bands, "thermal")
    np.testing.assert_array_equal(decode_value(value, "a")["T10"], bands["T10"])
    with pytest.raises(ValueError, match=r"more than the 1048576 of a tile"):
        encode_safetensors({"T10": np.zeros((600, 600), "<f4")}, "thermal")
    for wrong, said in (
        ({"T10": np.zeros(60, "<f4")}, r"T10 is float32 of shape \(60,\)"),
        ({"T10": np.zeros((6, 6), bool)}, "T10 is bool"),
        ({"VV": np.zeros((60, 60), "<f4")}, r"VV is float32 of shape \(60, 60\)"),
    ):
        with pytest.raises(ValueError, match=said):
            encode_safetensors(wrong, "thermal")
    with pytest.raises(CorruptTileError, match="unknown band 'T10'"):
        decode_value(value.replace(b'"sensor"', b'"Sensor"'), "a")
