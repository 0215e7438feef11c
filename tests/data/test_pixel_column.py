"""The pixel columns: read when looked at and not before, the same in every process and however they are looked at."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_archives import S1_BANDS, S1_NAMES, S2_NAMES, has_own_pixels, metadata_rows, number_of, pixels, tile_items

from csmae_hf.data.codecs import CorruptTileError
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.pixel_column import Tile, TileBands
from csmae_hf.data.store import TileNotFoundError, write_store
from image_processing_csmae import CSMAEImageProcessor


@pytest.mark.parametrize(
    "work",
    [
        lambda data: data.select([4, 1]),
        lambda data: data.filter(lambda row: row["country"] == "Finland"),
        lambda data: data.filter(lambda country: country == "Finland", input_columns="country"),
        lambda data: data.shuffle(seed=1),
        lambda data: data.sort("country"),
        lambda data: data.train_test_split(2, seed=0),
        lambda data: data.map(lambda row: {"labels_count": len(row["labels"])}),
        lambda data: data.map(lambda batch: {"n": [1] * len(batch["id"])}, batched=True),
        lambda data: data.remove_columns(["s1", "s2"])[:],
        lambda data: data[:]["labels"],
        lambda data: [row["id"] for row in data],
        lambda data: "VV" in data[0]["s1"] and list(data[0]["s1"]) and len(data[0]["s1"]) and repr(data[0]["s1"]),
        lambda data: data.select_columns(["id", "labels"])[0],
        lambda data: list(data["labels"]),
        lambda data: datasets.concatenate_datasets([data, data]),
        lambda data: pickle.loads(pickle.dumps(data)),
        lambda data: data.to_pandas(),
        lambda data: repr(data),
    ],
)
def test_work_on_metadata_reads_no_pixel(data: datasets.Dataset, reads: list[str], work: Callable[..., Any]) -> None:
    work(data)
    assert reads == []


def test_loading_v2_reads_one_tile_of_each_sensor(archive: Path, reads: list[str]) -> None:
    load_bigearthnet(archive)
    assert len(reads) == 2


def test_only_the_tiles_and_columns_looked_at_are_read(data: datasets.Dataset, reads: list[str]) -> None:
    names = sorted(S2_NAMES)
    tile = data["s2"][2]
    assert tile["B02"].dtype == tile["B12"].dtype
    assert reads == [names[2]]
    reads.clear()
    assert [tile["B02"].shape for tile in data[:3]["s2"]] == [(120, 120)] * 3
    assert reads == names[:3]
    reads.clear()
    data.filter(lambda row: row["s1"]["VV"].mean() > -99)
    assert sorted(reads) == sorted(S1_NAMES)


def test_every_way_of_looking_gives_the_same_pixels(data: datasets.Dataset) -> None:
    rows = [data[n] for n in range(6)]
    assert all(map(has_own_pixels, rows))
    assert all(map(has_own_pixels, data))
    assert all(map(has_own_pixels, data.__getitems__([5, 0, 3])))
    batch = data[:4]
    assert all(has_own_pixels({name: column[n] for name, column in batch.items()}) for n in range(4))
    for n, s1 in enumerate(data["s1"]):
        assert np.array_equal(s1["VV"], rows[n]["s1"]["VV"])
    assert all(map(has_own_pixels, data.select([3, 1]).shuffle(seed=3)))
    assert all(map(has_own_pixels, data.sort("country", reverse=True)))
    assert all(map(has_own_pixels, data.filter(lambda row: row["country"] == "Finland")))
    assert all(map(has_own_pixels, data.to_iterable_dataset()))
    assert all(map(has_own_pixels, pickle.loads(pickle.dumps(data))))
    assert all(map(has_own_pixels, datasets.concatenate_datasets([data, data.shuffle(seed=0)])))


def mean_vv(row: dict[str, Any]) -> dict[str, float]:
    return {"mean_vv": float(row["s1"]["VV"].mean())}


@pytest.mark.parametrize("processes", [None, 2])
def test_map_adds_a_column_computed_from_pixels_and_keeps_the_pixels(
    data: datasets.Dataset, processes: int | None
) -> None:
    mapped = data.map(mean_vv, num_proc=processes)
    for row in mapped:
        assert row["mean_vv"] == pytest.approx(pixels(number_of(row), S1_BANDS)["VV"].mean(), rel=1e-6)
        assert has_own_pixels(row)
    assert mapped.features["s1"] == data.features["s1"]


def look_and_hand_on(row: Any) -> Any:
    row["mean_vv"] = row["s1"]["VV"].mean()
    return row


@pytest.mark.parametrize(
    "hand_on", [look_and_hand_on, lambda row: {**row, "n": 1}, lambda row: {"same": row["s1"]["VV"] * 1}]
)
def test_rows_looked_at_and_handed_on_keep_their_keys_not_their_pixels(
    data: datasets.Dataset, hand_on: Callable[..., Any]
) -> None:
    mapped = data.map(hand_on)
    assert mapped.features["s1"] == data.features["s1"]
    assert mapped.data.column("s2").to_pylist() == data.data.column("s2").to_pylist()
    assert all(map(has_own_pixels, mapped))


def change_pixels(row: Any) -> dict[str, Any]:
    return {"s1": {band: array + 1 for band, array in row["s1"].items()}}


def test_changed_pixels_are_held_by_the_rows_as_they_are(data: datasets.Dataset) -> None:
    changed = data.map(change_pixels)
    assert changed.features == data.features
    for row, before in zip(changed, data, strict=True):
        assert row["s1"].store is None
        assert row["s2"].store == before["s2"].store
        for band, array in before["s1"].items():
            assert row["s1"][band].dtype == array.dtype
            assert np.array_equal(row["s1"][band], array + 1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((2, 120, 120)), "given a ndarray; expected bands by name"),
        ({"VV": np.zeros((120, 120))}, "lacks VH; it has VV"),
        ({"VH": np.zeros((2, 3, 4)), "VV": np.zeros((3, 4))}, r"Band VH is float64 of shape \(2, 3, 4\)"),
        ({"VH": np.zeros((3, 4), complex), "VV": np.zeros((3, 4))}, "Band VH is complex128"),
        ({"VH": [["a"]], "VV": np.zeros((3, 4))}, "Band VH is <U1"),
        ({}, "lacks VH, VV; it has no band"),
        (3, "given a int"),
        ("some key", "given a text 'some key'"),
    ],
)
def test_what_is_no_image_is_refused_by_name(data: datasets.Dataset, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        data.features["s1"].encode_example(value)


def test_reading_is_idempotent(data: datasets.Dataset) -> None:
    tile = data[0]["s1"]
    assert data.features["s1"].decode_example(tile) is tile


def test_the_keys_themselves_can_be_had(data: datasets.Dataset, reads: list[str]) -> None:
    feature = data.features["s1"]
    keys = data.cast_column("s1", Tile(feature.sensor, feature.bands, decode=False))
    assert {stored["source"][0] for stored in keys["s1"]} == set(S1_NAMES)
    assert reads == []
    assert all(map(has_own_pixels, keys.cast_column("s1", feature)))


def test_bands_behave_as_a_mapping(data: datasets.Dataset) -> None:
    tile = data[0]["s1"]
    arrays = dict(tile)
    assert list(arrays) == list(tile) == list(tile.keys()) == ["VH", "VV"]
    assert len(tile) == 2
    assert "VV" in tile
    assert "B02" not in tile
    assert tile.get("B02", 3) == 3
    assert tile.get("VV") is tile["VV"] is arrays["VV"] is tile.values()[1] is tile.items()[1][1]
    with pytest.raises(KeyError, match="B02"):
        tile["B02"]


def test_bands_sent_elsewhere_are_plain_arrays(data: datasets.Dataset, reads: list[str]) -> None:
    tile = pickle.loads(pickle.dumps(data[0]["s1"]))
    assert type(tile) is dict
    assert len(reads) == 1
    assert np.array_equal(tile["VV"], data[0]["s1"]["VV"])


def test_the_processor_takes_rows_as_they_are(data: datasets.Dataset) -> None:
    batch = data[:3]
    inputs = CSMAEImageProcessor()(s1=batch["s1"], s2=batch["s2"], return_tensors="pt")
    assert inputs["s1"].shape == (3, 2, 120, 120)
    assert inputs["s2"].shape == (3, 10, 120, 120)
    plain = CSMAEImageProcessor()(s1=[dict(tile) for tile in batch["s1"]], return_tensors="pt")
    assert torch.equal(inputs["s1"], plain["s1"])


def test_a_dataset_saved_and_loaded_gives_the_same_pixels(data: datasets.Dataset, tmp_path: Path) -> None:
    data.save_to_disk(tmp_path / "saved")
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    assert loaded.features == data.features
    assert all(map(has_own_pixels, loaded))


@pytest.mark.parametrize(("method", "workers"), [("fork", 1), ("fork", 3), ("spawn", 2)])
def test_dataloader_workers_read_every_tile(data: datasets.Dataset, method: str, workers: int) -> None:
    _ = data[0]  # the store is open in the parent
    loader = torch.utils.data.DataLoader(
        data, batch_size=2, num_workers=workers, multiprocessing_context=method, collate_fn=list
    )
    rows = [row for batch in loader for row in batch]
    assert [row["id"] for row in rows] == sorted(S2_NAMES)
    assert all(map(has_own_pixels, rows))


def test_a_broken_tile_is_named_when_it_is_looked_at(tmp_path: Path) -> None:
    broken = [(key, value[:-100] if key == S2_NAMES[5] else value) for key, value in tile_items()]
    write_store(tmp_path / "lmdb", broken)
    pq.write_table(pa.Table.from_pylist(metadata_rows()), tmp_path / "metadata.parquet")
    data = load_bigearthnet(tmp_path, "train")
    assert all(map(has_own_pixels, data))
    tiles = load_bigearthnet(tmp_path, "test")["s2"]
    with pytest.raises(CorruptTileError, match=S2_NAMES[5]):
        [tile["B02"] for tile in tiles]


@pytest.mark.slow
def test_importing_reads_no_drawing_or_index_library() -> None:
    program = "import sys, csmae_hf.data.dataset; print({'matplotlib', 'faiss', 'rasterio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_tile_gone_from_the_store_is_named(data: datasets.Dataset) -> None:
    tile = TileBands({**data[0]["s1"].stored, "source": ["nothing", data[0]["s1"].store]}, ["VV"])
    with pytest.raises(TileNotFoundError, match="'nothing'"):
        tile["VV"]
