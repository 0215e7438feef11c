"""What tables and lists say of tiles: v1 names, countries and splits, and the times inside names."""

import bz2
import csv
import itertools
import logging
from datetime import datetime
from pathlib import Path

import pytest
from small_archives import S1_BANDS, S1_NAMES

from csmae_hf.data.codecs import CorruptTileError
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.metadata import acquisition_time, season_of
from csmae_hf.data.store import TileStore, write_store

V1_SHARED = "bigearthnet_mm_v1_lmdb"

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


# Tables and lists of v1


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
    with pytest.raises(ValueError, match=r"wrong\.csv has the columns name, land; expected a CSV with s2_name"):
        load_bigearthnet(v1_store, metadata=v1_store.parent / "wrong.csv")


def test_a_table_of_countries_alone_will_do_and_what_it_lacks_is_said(
    v1_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = TileStore(v1_store).keys()
    table = v1_store.parent / "countries.csv"
    table.write_bytes(b"s2_name,country\r\n" + "".join(f"{name},Serbia\r\n" for name in names[:4]).encode())
    write_splits(v1_store.parent / "splits", names, columns=2)
    with caplog.at_level(logging.WARNING):
        data = load_bigearthnet(v1_store, metadata=table)
    assert list(data["country"]) == ["Serbia"] * 4 + [None] * 2
    assert data["s1_id"][0] == f"S1A_of_{names[0]}"
    assert "of its 6 tiles, no countries of 2 are known" in caplog.text
    table.write_text(f"s2_name,country\n{names[0]}\n")
    with pytest.raises(ValueError, match=r"countries\.csv is no CSV with a header: .*Expected 2 columns, got 1"):
        load_bigearthnet(v1_store, metadata=table)


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
