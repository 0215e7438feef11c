"""BigEarthNet as a `datasets.Dataset`: what a row says, and what is refused."""

import csv
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_archives import S1_NAMES, S2_NAMES, SPLITS, has_own_pixels, metadata_rows, pixels, tile_items, write_archive

from csmae_hf.bigearthnet import BAND_SIZE, LABELS, S1_BANDS, S2_BANDS
from csmae_hf.data import dataset as dataset_module
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.store import write_store
from csmae_hf.images.products import season

V1_SHARED, V2_SHARED = "bigearthnet_mm_v1_lmdb", "bigearthnet_v2_reben_lmdb"

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


def test_missing_tiles_are_listed_in_a_file_that_is_named(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_archive(tmp_path, metadata_rows() + more_rows(2))
    with caplog.at_level(logging.WARNING):
        assert len(load_bigearthnet(tmp_path, max_missing=0.25)) == 6
    (listing,) = (cache / "missing").iterdir()
    assert listing.read_text() == "S2A_absent_0\nS2A_absent_1\n"
    assert f"all in {listing}" in caplog.text
    with pytest.raises(ValueError, match=f"all in {tmp_path / 'mine' / 'names.txt'}.*more than 20%"):
        load_bigearthnet(tmp_path, max_missing=0.2, missing_list=tmp_path / "mine" / "names.txt")
    assert (tmp_path / "mine" / "names.txt").read_text() == listing.read_text()
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert len(load_bigearthnet(tmp_path, missing="drop", missing_list=tmp_path / "file" / "names.txt")) == 6
    assert "they could not be listed in" in caplog.text


def test_metadata_of_another_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another store"):
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
        assert season(row["date_s1"], None) == entry["season"]
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


def test_the_full_v2_table_serves_a_small_store(shared_data: Path) -> None:
    full = shared_data / "reben_metadata" / "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
    data = load_bigearthnet(shared_data / V2_SHARED, metadata=full, missing="drop")
    assert len(data) == 6
    with pytest.raises(ValueError, match=r"of the 69450 tiles.*more than 1%"):
        load_bigearthnet(shared_data / V2_SHARED, metadata=full)


def test_a_broken_first_tile_stops_only_who_reads_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = min(S2_NAMES)
    items = [(key, value[:-100] if key == first else value) for key, value in tile_items()]
    write_archive(tmp_path)
    folder = tmp_path / "broken"
    write_store(folder / "lmdb", items)
    (tmp_path / "metadata.parquet").rename(folder / "metadata.parquet")
    dataset = load_bigearthnet(folder)
    assert first in caplog.text
    assert len(dataset) == 6
    assert dataset[1]["s2"]["B02"].shape == (120, 120)
    with pytest.raises(ValueError, match=first):
        dataset[0]["s2"]["B02"]
    write_store(tmp_path / "worse" / "lmdb", [(key, value[:-100]) for key, value in tile_items()])
    (folder / "metadata.parquet").rename(tmp_path / "worse" / "metadata.parquet")
    with pytest.raises(ValueError, match="broken safetensors value"):
        load_bigearthnet(tmp_path / "worse")
