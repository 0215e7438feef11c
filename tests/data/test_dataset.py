"""BigEarthNet as a `datasets.Dataset`: what a row says, and that pixels are read when looked at and not before."""

import bz2
import csv
import itertools
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from csmae_hf.bigearthnet import BAND_SIZE, LABELS, S1_BANDS, S2_BANDS
from csmae_hf.data import dataset as dataset_module
from csmae_hf.data.codecs import CorruptTileError, encode_safetensors
from csmae_hf.data.dataset import Tile, acquisition_time, load_bigearthnet, season_of
from csmae_hf.data.store import TileNotFoundError, TileStore, write_store
from image_processing_csmae import CSMAEImageProcessor

SPLITS = ("train", "train", "validation", "test", "train", "test")
COUNTRIES = ("Finland", "Austria", "Serbia", "Finland", "Ireland", "Finland")
S2_NAMES = [f"S2A_MSIL2A_2017{month:02d}13T101031_N9999_R022_T33UUP_{month:02d}_57" for month in (12, 4, 6, 9, 1, 11)]
S1_NAMES = [f"S1B_IW_GRDH_1SDV_2017{month:02d}12T165809_33UUP_{month}_57" for month in (12, 3, 5, 8, 1, 11)]
V1_SHARED, V2_SHARED = "bigearthnet_mm_v1_lmdb", "bigearthnet_v2_reben_lmdb"


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


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def data(archive: Path) -> datasets.Dataset:
    return load_bigearthnet(archive)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the tiles read in this process, as they are read."""
    keys: list[str] = []
    original = TileStore.read

    def read(self: TileStore, key: str, bands: Any = None) -> dict[str, np.ndarray]:
        keys.append(key)
        return original(self, key, bands)

    monkeypatch.setattr(TileStore, "read", read)
    return keys


def number_of(row: dict[str, Any]) -> int:
    return S2_NAMES.index(row["id"])


def has_own_pixels(row: dict[str, Any]) -> bool:
    return all(
        list(row[sensor]) == list(names)
        and all(np.array_equal(row[sensor][band], array) for band, array in pixels(number_of(row), names).items())
        for sensor, names in (("s1", S1_BANDS), ("s2", S2_BANDS))
    )


# Rows


def test_a_row_says_all_that_is_known_of_a_tile(data: datasets.Dataset) -> None:
    row = data[sorted(S2_NAMES).index(S2_NAMES[1])]
    assert {name: value for name, value in row.items() if name not in ("s1", "s2")} == {
        "id": S2_NAMES[1],
        "s1_id": S1_NAMES[1],
        "labels": [1, 6],
        "country": "Austria",
        "split": "train",
        "date_s1": datetime(2017, 3, 12, 16, 58, 9),
        "date_s2": datetime(2017, 4, 13, 10, 10, 31),
        "season": "Spring",
        "snow": False,
        "cloud_or_shadow": False,
    }
    assert has_own_pixels(row)
    assert data.features["labels"].feature.names == list(LABELS)


def test_rows_come_sorted_by_id_whatever_the_order_of_the_metadata(tmp_path: Path, data: datasets.Dataset) -> None:
    backwards = load_bigearthnet(write_archive(tmp_path, metadata_rows()[::-1]))
    assert list(data["id"]) == list(backwards["id"]) == sorted(S2_NAMES)


@pytest.mark.parametrize(
    ("split", "name"), [("train", "train"), ("validation", "validation"), ("val", "validation"), ("test", "test")]
)
def test_a_split_holds_its_own_rows(archive: Path, split: str, name: str) -> None:
    rows = load_bigearthnet(archive, split)
    assert list(rows["id"]) == sorted(n for n, s in zip(S2_NAMES, SPLITS, strict=True) if s == name)
    assert set(rows["split"]) == {name}


def test_the_lmdb_may_be_named_itself_with_its_metadata_inside_or_elsewhere(archive: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    write_store(inside, tile_items())
    elsewhere = tmp_path / "elsewhere.parquet"
    elsewhere.write_bytes((archive / "metadata.parquet").read_bytes())
    expected = load_bigearthnet(archive)[:]["id"]
    assert load_bigearthnet(archive / "lmdb")["id"][:] == expected
    assert load_bigearthnet(inside, metadata=elsewhere)["id"][:] == expected
    assert load_bigearthnet(inside, metadata=[str(elsewhere)])["id"][:] == expected
    elsewhere.rename(inside / "metadata.parquet")
    assert load_bigearthnet(str(inside))["id"][:] == expected


# When pixels are read


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


def test_writing_changed_pixels_through_the_dataset_is_refused_with_the_remedy(data: datasets.Dataset) -> None:
    with pytest.raises(ValueError, match="column of another name"):
        data.map(change_pixels)
    feature = data.features["s1"]
    for value in (np.zeros((2, 120, 120)), {"VV": np.zeros((120, 120))}, 3):
        with pytest.raises(ValueError, match="column of another name"):
            feature.encode_example(value)
    assert feature.encode_example("some key") == "some key"
    assert feature.encode_example(data[0]["s1"]) == data[0]["s1"].key


def test_reading_is_idempotent(data: datasets.Dataset) -> None:
    tile = data[0]["s1"]
    assert data.features["s1"].decode_example(tile) is tile


def test_the_keys_themselves_can_be_had(data: datasets.Dataset, reads: list[str]) -> None:
    feature = data.features["s1"]
    keys = data.cast_column("s1", Tile(feature.store, feature.sensor, feature.bands, decode=False))
    assert set(keys["s1"]) == set(S1_NAMES)
    assert reads == []
    assert all(map(has_own_pixels, keys.cast_column("s1", feature)))


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_formats_that_cannot_hold_bands_of_several_sizes_give_keys(
    data: datasets.Dataset, reads: list[str], kind: str
) -> None:
    row = data.with_format(kind, columns=["s1", "s2"])[0]
    assert (row["s1"], row["s2"]) == (data[0]["s1"].key, data[0]["s2"].key)
    assert reads == []


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


def test_a_dataset_saved_and_loaded_still_reads_its_store(data: datasets.Dataset, tmp_path: Path) -> None:
    data.save_to_disk(tmp_path / "saved")
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    assert loaded.features == data.features
    assert all(map(has_own_pixels, loaded))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers_read_every_tile(data: datasets.Dataset, method: str) -> None:
    _ = data[0]  # the store is open in the parent
    loader = torch.utils.data.DataLoader(
        data, batch_size=2, num_workers=2, multiprocessing_context=method, collate_fn=list
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


# Sensors and bands


def test_bands_can_be_limited_and_ordered(archive: Path) -> None:
    row = load_bigearthnet(archive, sensors={"s1": ["VV"], "s2": ["B08", "B02"]})[0]
    assert list(row["s1"]) == ["VV"]
    assert list(row["s2"]) == ["B08", "B02"]


def test_sensors_not_asked_for_have_no_column_and_need_not_be_stored(tmp_path: Path) -> None:
    write_archive(tmp_path, sensors=("s2",))
    for sensors in (None, {"s2": None}):
        data = load_bigearthnet(tmp_path, sensors=sensors)
        assert "s1" not in data.column_names
        assert list(data[0]["s2"]) == list(S2_BANDS)
    with pytest.raises(ValueError, match="None of the 6"):
        load_bigearthnet(tmp_path, sensors={"s1": None, "s2": None})


@pytest.mark.parametrize(
    ("sensors", "message"),
    [
        ({"s3": ["B02"]}, "'s3'.*s1, s2"),
        ({"s2": ["B02", "B10"]}, "no B10"),
        ({"s1": ["B02"]}, "VH, VV"),
        ({"s1": []}, "VH, VV"),
        ({"s1": "VV"}, "expected a list"),
        ({}, "No sensors"),
    ],
)
def test_unknown_sensors_and_bands_are_refused_by_name(archive: Path, sensors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_bigearthnet(archive, sensors=sensors)


def test_a_band_the_store_lacks_is_refused_at_once(tmp_path: Path) -> None:
    few = [(S2_NAMES[n], encode_safetensors(pixels(n, ("B02", "B03")))) for n in range(6)]
    write_store(tmp_path / "lmdb", few)
    pq.write_table(pa.Table.from_pylist(metadata_rows()), tmp_path / "metadata.parquet")
    assert list(load_bigearthnet(tmp_path)[0]["s2"]) == ["B02", "B03"]
    with pytest.raises(ValueError, match=r"no B08.*B02, B03"):
        load_bigearthnet(tmp_path, sensors={"s2": ["B02", "B08"]})


# What is refused


def test_an_unknown_split_is_refused_with_the_known(archive: Path) -> None:
    with pytest.raises(ValueError, match=r"'trian'.*train, validation, test"):
        load_bigearthnet(archive, "trian")


def test_an_empty_split_is_refused_with_what_there_is(tmp_path: Path) -> None:
    rows = [row for row in metadata_rows() if row["split"] != "test"]
    with pytest.raises(ValueError, match="'test'; there are train: 3, validation: 1"):
        load_bigearthnet(write_archive(tmp_path, rows), "test")


def test_a_tile_listed_twice_is_refused(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(ValueError, match=f"more than once.*{S2_NAMES[2]}"):
        load_bigearthnet(write_archive(tmp_path, [*metadata_rows(), metadata_rows()[2]]))
    with pytest.raises(ValueError, match="6 tiles"):
        load_bigearthnet(archive, metadata=[archive / "metadata.parquet"] * 2)


def test_a_label_that_is_none_of_the_19_is_refused_with_its_tile(tmp_path: Path) -> None:
    rows = metadata_rows()
    rows[3]["labels"] = ["Lava"]
    with pytest.raises(ValueError, match=f"{S2_NAMES[3]}.*Lava"):
        load_bigearthnet(write_archive(tmp_path, rows))


def more_rows(count: int) -> list[dict[str, Any]]:
    """Rows of tiles that no store has."""
    return [metadata_rows()[0] | {"patch_id": f"S2A_absent_{n}", "s1_name": f"S1A_absent_{n}"} for n in range(count)]


def test_many_missing_tiles_are_refused_unless_told_to_drop_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_archive(tmp_path, metadata_rows() + more_rows(3))
    with pytest.raises(ValueError, match=r"3 of the 9 tiles.*S2A_absent_0.*missing='drop'"):
        load_bigearthnet(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(load_bigearthnet(tmp_path, missing="drop")) == 6
    assert [record.getMessage().split(" are not")[0] for record in caplog.records] == ["3 of the 9 tiles listed"]
    assert len(load_bigearthnet(tmp_path, "test")) == 2  # nothing of this split is missing
    with pytest.raises(ValueError, match="missing='ignore'"):
        load_bigearthnet(tmp_path, missing="ignore")  # type: ignore[arg-type]


def test_few_missing_tiles_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "MAX_MISSING_SHARE", 1 / 7)
    with caplog.at_level(logging.WARNING):
        assert len(load_bigearthnet(write_archive(tmp_path, metadata_rows() + more_rows(1)))) == 6
    assert len(caplog.records) == 1


def test_metadata_of_another_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another archive"):
        load_bigearthnet(write_archive(tmp_path, more_rows(4)), missing="drop")


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_bigearthnet(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"data\.mdb"):
        load_bigearthnet(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet"):
        load_bigearthnet(archive, metadata=archive / "absent.parquet")
    for name in ("a", "b"):
        write_store(tmp_path / name, tile_items())
    with pytest.raises(FileNotFoundError, match=r"metadata\.parquet.*metadata="):
        load_bigearthnet(tmp_path / "a")
    with pytest.raises(ValueError, match="2 LMDBs: a, b"):
        load_bigearthnet(tmp_path)


def test_tables_that_are_no_metadata_are_refused(tmp_path: Path, archive: Path) -> None:
    pq.write_table(pa.table({"patch_id": ["x"]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"other\.parquet.*s1_name"):
        load_bigearthnet(archive, metadata=tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"text\.parquet"):
        load_bigearthnet(archive, metadata=tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="is for v1"):
        load_bigearthnet(archive, splits=tmp_path)


# Dates


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("S2B_MSIL2A_20170924T93020_69_24", datetime(2017, 9, 24, 9, 30, 20)),
        ("S2A_MSIL2A_20170613T101031_0_45", datetime(2017, 6, 13, 10, 10, 31)),
        ("S2B_MSIL2A_20180204T94161_57_38", datetime(2018, 2, 4, 9, 42, 1)),  # seconds 61: a real name
        ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57", datetime(2017, 6, 13, 10, 10, 31)),
        ("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48", datetime(2017, 6, 13, 16, 50, 43)),
        ("S2A_MSIL2A_20171399T101031_0_45", None),
        ("tile", None),
        (None, None),
    ],
)
def test_times_are_read_out_of_names(name: str | None, time: datetime | None) -> None:
    assert acquisition_time(name) == time


def test_official_names_have_their_time_and_the_tables_season(shared_data: Path) -> None:
    table = shared_data / "bigearthnet_v1_official_splits" / "s1_s2_name_country_season.csv.bz2"
    with bz2.open(table, "rt", newline="") as lines:
        rows = list(itertools.islice(csv.DictReader(lines), 30_000))
    for row in rows:
        s1, s2 = acquisition_time(row["s1_name"]), acquisition_time(row["s2_name"])
        assert s1 is not None
        assert s2 is not None
        assert season_of(s1) == row["season"]  # the table's season is that of the S1 date
        assert abs((s1 - s2).days) < 10


# Real archives


def test_all_real_v1_pairs_say_what_the_index_says(shared_data: Path) -> None:
    data = load_bigearthnet(shared_data / V1_SHARED)
    with (shared_data / "labelled_pairs.csv").open(newline="") as lines:
        index = {row["key"]: row for row in csv.DictReader(lines) if row["folder"] == V1_SHARED}
    assert len(data) == len(index) == 78
    for row in data:
        entry = index[row["id"]]
        assert {LABELS[n] for n in row["labels"]} == set(entry["labels_19"].split("; "))
        assert row["labels"] == sorted(set(row["labels"]))
        assert (row["s1_id"], row["country"]) == (entry["s1_name"], entry["country"])
        assert row["split"] == {"val": "validation"}.get(entry["split"], entry["split"])
        assert season_of(row["date_s1"]) == entry["season"]
        assert row["snow"] is row["cloud_or_shadow"] is None
        assert [row["s1"][band].shape for band in S1_BANDS] == [(120, 120)] * 2
        assert [row["s2"][band].shape for band in S2_BANDS] == [(BAND_SIZE[band],) * 2 for band in S2_BANDS]
        assert -60 < row["s1"]["VV"].min() < row["s1"]["VV"].max() < 20
    assert [len(load_bigearthnet(shared_data / V1_SHARED, split)) for split in ("train", "val", "test")] == [39, 21, 18]


def test_all_real_v2_pairs_say_what_the_index_says(shared_data: Path) -> None:
    data = load_bigearthnet(shared_data / V2_SHARED)
    with (shared_data / "labelled_pairs.csv").open(newline="") as lines:
        index = {row["key"]: row for row in csv.DictReader(lines) if row["folder"] == V2_SHARED}
    assert len(data) == 32
    for row in data:
        entry = index[row["id"]]
        assert {LABELS[n] for n in row["labels"]} == set(entry["labels_19"].split("; "))
        assert (row["s1_id"], row["country"], row["split"]) == (entry["s1_name"], entry["country"], entry["split"])
        assert (row["snow"], row["cloud_or_shadow"]) == ("snow" in entry["flag"], "cloud" in entry["flag"])
        assert {band: array.shape[0] for band, array in {**row["s1"], **row["s2"]}.items()} == BAND_SIZE
    assert [len(load_bigearthnet(shared_data / V2_SHARED, split)) for split in ("train", "val", "test")] == [10, 11, 11]
    assert sum(data["snow"]) + sum(data["cloud_or_shadow"]) >= 6


def test_v1_and_v2_give_the_same_s1_pixels_of_a_common_tile(shared_data: Path) -> None:
    rows = [
        load_bigearthnet(shared_data / folder).filter(lambda row: row["id"].endswith("_26_57"))[0]
        for folder in (V1_SHARED, V2_SHARED)
    ]
    assert rows[0]["s1_id"] == rows[1]["s1_id"] == "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57"
    for band in S1_BANDS:
        assert rows[0]["s1"][band].tobytes() == rows[1]["s1"][band].tobytes()


def test_the_full_v2_table_serves_a_small_store(shared_data: Path) -> None:
    full = shared_data / "reben_metadata" / "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
    data = load_bigearthnet(shared_data / V2_SHARED, metadata=full, missing="drop")
    assert len(data) == 6
    with pytest.raises(ValueError, match=r"of the 69450 tiles.*more than 1%"):
        load_bigearthnet(shared_data / V2_SHARED, metadata=full)


@pytest.fixture(scope="module")
def v1_values(shared_data: Path) -> dict[str, bytes]:
    """Six real v1 values."""
    store = TileStore(shared_data / V1_SHARED / "BigEarthNetEncoded.lmdb")
    return {key: store.read_bytes(key) for key in store.keys()[:6]}


@pytest.fixture
def v1_store(v1_values: dict[str, bytes], tmp_path: Path) -> Path:
    write_store(tmp_path / "v1.lmdb", v1_values.items())
    return tmp_path / "v1.lmdb"


def write_splits(folder: Path, names: list[str], columns: int = 1, val: str = "val", compress: bool = False) -> None:
    """Three tiles train, two validation, one test, as the official files are written: no header, CRLF."""
    folder.mkdir(exist_ok=True)
    for stem, part in (("train", names[:3]), (val, names[3:5]), ("test", names[5:])):
        text = "".join(",".join([name, f"S1A_of_{name}"][:columns]) + "\r\n" for name in part).encode()
        path = folder / f"{stem}.csv{'.bz2' if compress else ''}"
        path.write_bytes(bz2.compress(text) if compress else text)


@pytest.mark.parametrize("where", ["beside", "official_splits", "splits", "given", "inside"])
@pytest.mark.parametrize(
    ("columns", "val", "compress"), [(1, "val", False), (2, "validation", False), (2, "val", True)]
)
def test_v1_splits_are_read_wherever_and_however_they_lie(
    v1_store: Path, where: str, columns: int, val: str, compress: bool
) -> None:
    names = TileStore(v1_store).keys()
    places = {"beside": v1_store.parent, "given": v1_store.parent / "mine", "inside": v1_store}
    folder = places.get(where, v1_store.parent / where)
    write_splits(folder, names, columns, val, compress)
    splits = folder if where == "given" else None
    data = load_bigearthnet(v1_store, splits=splits)
    assert list(data["id"]) == names
    assert list(data["split"]) == ["train"] * 3 + ["validation"] * 2 + ["test"]
    assert list(data["s1_id"]) == ([f"S1A_of_{name}" for name in names] if columns == 2 else [None] * 6)
    assert list(load_bigearthnet(v1_store, "val", splits=splits)["id"]) == names[3:5]


def test_a_bare_v1_store_says_once_what_is_not_known(v1_store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data = load_bigearthnet(v1_store)
    assert len(caplog.records) == 1
    assert "S1 names, countries, splits" in caplog.text
    for column in ("s1_id", "date_s1", "country", "split", "snow", "cloud_or_shadow"):
        assert list(data[column]) == [None] * 6
    assert all(data["labels"])
    assert list(data[0]["s1"]) == list(S1_BANDS)
    with pytest.raises(ValueError, match=r"in no split: 6.*splits="):
        load_bigearthnet(v1_store, "train")


def test_v1_names_and_countries_come_from_a_table(v1_store: Path, shared_data: Path) -> None:
    with (shared_data / V1_SHARED / "manifest.csv").open(newline="") as lines:
        index = {row["s2_name"]: row for row in csv.DictReader(lines)}
    columns = ("s1_name", "s2_name", "country", "season")
    wanted = {name: {column: row[column] for column in columns} for name, row in index.items()}
    table = v1_store.parent / "table.csv.bz2"
    text = "s1_name,s2_name,country,season\n" + "".join(",".join(row.values()) + "\n" for row in wanted.values())
    table.write_bytes(bz2.compress(text.encode()))
    data = load_bigearthnet(v1_store, metadata=table)
    for row in data.remove_columns(["s1", "s2"]):
        assert (row["s1_id"], row["country"]) == (wanted[row["id"]]["s1_name"], wanted[row["id"]]["country"])
    table.write_bytes(bz2.compress(text.encode() * 2))  # header and all rows again
    with pytest.raises(ValueError, match="more than once"):
        load_bigearthnet(v1_store, metadata=table)
    (v1_store.parent / "wrong.csv").write_text("name,land\n")
    with pytest.raises(ValueError, match=r"wrong\.csv lacks the columns s2_name, s1_name, country"):
        load_bigearthnet(v1_store, metadata=v1_store.parent / "wrong.csv")


def test_v1_lists_that_disagree_with_themselves_or_the_store_are_refused(v1_store: Path) -> None:
    names = TileStore(v1_store).keys()
    folder = v1_store.parent / "splits"
    write_splits(folder, [*names[:5], names[0]])
    with pytest.raises(ValueError, match=f"{names[0]} is listed more than once"):
        load_bigearthnet(v1_store)
    write_splits(folder, [*names, "S2A_MSIL2A_20170613T101031_99_99"])
    with pytest.raises(ValueError, match=r"1 of the 7 tiles.*_99_99"):
        load_bigearthnet(v1_store)
    assert len(load_bigearthnet(v1_store, missing="drop")) == 6
    with pytest.raises(FileNotFoundError, match=r"train\.csv"):
        load_bigearthnet(v1_store, splits=v1_store.parent)


def test_a_broken_v1_value_is_named_at_loading_only_where_its_split_is_asked_for(
    v1_values: dict[str, bytes], tmp_path: Path
) -> None:
    names = list(v1_values)
    write_store(
        tmp_path / "lmdb", [(name, value[: 100_000 if name == names[5] else None]) for name, value in v1_values.items()]
    )
    write_splits(tmp_path / "splits", names)
    assert len(load_bigearthnet(tmp_path, "train")) == 3
    with pytest.raises(CorruptTileError, match=names[5]):
        load_bigearthnet(tmp_path)


def test_a_v1_store_of_s1_alone_is_refused_with_what_is_expected(v1_values: dict[str, bytes], tmp_path: Path) -> None:
    write_store(tmp_path / "lmdb", [(S1_NAMES[0], next(iter(v1_values.values())))])
    with pytest.raises(ValueError, match="Sentinel-1 alone"):
        load_bigearthnet(tmp_path)


def test_a_tile_gone_from_the_store_is_named(data: datasets.Dataset) -> None:
    tile = data.features["s1"].decode_example("nothing")
    with pytest.raises(TileNotFoundError, match="'nothing'"):
        tile["VV"]
