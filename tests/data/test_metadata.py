"""What tables and lists say of tiles: v1 names, countries and splits, and the times inside names."""

import bz2
import csv
import itertools
import logging
import pickle
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from v1_values import V1Writer, make_classes

from csmae_hf.bigearthnet import LABELS, S1_BANDS, SENSOR_OF_BAND
from csmae_hf.data.codecs import CorruptTileError, decode_value
from csmae_hf.data.dataset import load_bigearthnet, to_dataset
from csmae_hf.data.metadata import TileRow, acquisition_time, season_of
from csmae_hf.data.pixel_column import Tile, refer
from csmae_hf.data.store import TileStore, write_store
from csmae_hf.data.transcode import transcode

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
        ("S2A_29RKH_20200219_0_L2A", datetime(2020, 2, 19)),  # Earth Search
        ("S2B_T43QDB_20200110T053549_L2A", datetime(2020, 1, 10, 5, 35, 49)),
        ("Boadella_2020-01-13", datetime(2020, 1, 13)),  # Sentinel Hub
        ("place_20200113", datetime(2020, 1, 13)),
        ("HLS.S30.T10SEG.2020044T185029.v2.0", datetime(2020, 2, 13, 18, 50, 29)),  # the 44th day of the year
        ("HLS.S30.T60HWB.2020366", datetime(2020, 12, 31)),
        ("s2a_msil2a_20200219t112111_n0214_r037_t29rkh_20200219t131611.safe", datetime(2020, 2, 19, 11, 21, 11)),
        ("20180710T125311_20180710T125627_T24KVE", datetime(2018, 7, 10, 12, 53, 11)),  # Earth Engine: then processed
        ("T29RKH_20200219T112111", datetime(2020, 2, 19, 11, 21, 11)),
        ("s1a-iw-grd-vv-20210717t165043-20210717t165108-038811-049456-001", datetime(2021, 7, 17, 16, 50, 43)),
        ("S1A_IW_GRDH_1SDV_20210717T165043_20210717T165108_038811_049456_T33UUP", datetime(2021, 7, 17, 16, 50, 43)),
        ("S1-of-S2A-MSIL2A-20170613T101031-0-45", None),  # a stand-in for a name that is not known
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
        assert season_of(s1, ()) == row["season"]  # the table's season is that of the S1 date
        assert abs((s1 - s2).days) < 10


@pytest.mark.parametrize(
    ("name", "s1_name", "season"),
    [
        ("S2A_MSIL2A_20201013T222549_N0214_R029_T60HWB_3_4", None, "Spring"),  # New Zealand
        ("S2A_60HWB_20200113_0_L2A", None, "Summer"),
        ("20200713T222549_20200713T222549_T60HWB", None, "Winter"),
        ("HLS.S30.T21KXA.2020100T222549.v2.0", None, "Fall"),
        ("S2A_MSIL2A_20201013T222549_N0214_R029_T33UUP_3_4", None, "Fall"),
        ("S2A_MSIL2A_20201013T222549_N0214_R029_T33NUP_3_4", None, "Fall"),  # N is the first band of the north
        ("S2A_MSIL2A_20201013T222549_N0214_R029_T33MUP_3_4", None, "Spring"),
        ("S2A_MSIL2A_20171013T101031_0_45", "S1A_IW_GRDH_1SDV_20171013T165043_33UUP_87_48", "Fall"),
        ("Boadella_2020-10-13", None, "Fall"),  # nothing says where: the north, as of BigEarthNet
    ],
)
def test_the_season_is_that_of_the_hemisphere(name: str, s1_name: str | None, season: str) -> None:
    rows = [TileRow(name, {} if s1_name is None else {"s1": s1_name}), TileRow("a place of no date")]
    data = to_dataset(rows, {"s2": (Tile("s2", ["B02"]), refer("nowhere", ["a", "b"]))})
    assert data["season"][:] == [season, None]


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


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> V1Writer:
    modules, classes = make_classes()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return V1Writer(classes)


def of_one_sensor(
    v1_values: dict[str, bytes], folder: Path, sensor: str, writer: V1Writer, form: str
) -> tuple[Path, list[str]]:
    """A v1 store of one sensor alone, as bigearthnet_encoder keys it: by S2 names, or by S1 names."""
    values = {}
    for number, (name, value) in enumerate(v1_values.items()):
        pixels = {band: array for band, array in decode_value(value, name).items() if SENSOR_OF_BAND[band] == sensor}
        key = name if sensor == "s2" else f"S1A_IW_GRDH_1SDV_2017061{number}T165043_33UUP_0_{number}"
        part = writer.patch(pixels).state[f"{sensor}_patch"]
        if form == "its own class":
            part.state["new_labels"] = ["Marine waters"]
            values[key] = pickle.dumps(part, protocol=4)
        else:
            merged = writer.patch(pixels, new_labels=["Marine waters"])
            merged.state["s1_patch" if sensor == "s2" else "s2_patch"] = None
            values[key] = pickle.dumps(merged, protocol=4)
    write_store(folder / "v1.lmdb", values.items())
    return folder / "v1.lmdb", list(values)


FORMS = ["its own class", "half a pair"]


@pytest.mark.parametrize("form", FORMS)
def test_a_v1_store_of_s2_alone_is_read(
    v1_values: dict[str, bytes], tmp_path: Path, writer: V1Writer, form: str
) -> None:
    path, names = of_one_sensor(v1_values, tmp_path, "s2", writer, form)
    data = load_bigearthnet(path)
    assert "s1" not in data.column_names
    assert data["id"][:] == sorted(names)
    assert data[0]["date_s2"] is not None
    np.testing.assert_array_equal(data[0]["s2"]["B02"], decode_value(v1_values[sorted(names)[0]], "x", ["B02"])["B02"])
    assert load_bigearthnet(path, sensors={"s2": None}).column_names == data.column_names
    with pytest.raises(ValueError, match=r"has no s1 of tile .*; of s1 it has nothing"):
        load_bigearthnet(path, sensors={"s1": None})


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_v1_store_of_s1_alone_is_read(
    v1_values: dict[str, bytes], tmp_path: Path, writer: V1Writer, form: str, known: bool
) -> None:
    path, names = of_one_sensor(v1_values, tmp_path, "s1", writer, form)
    partners = dict(zip(names, v1_values, strict=True))
    if known:
        lines = [f"{s2},{s1},Serbia\n" for s1, s2 in partners.items()]
        (tmp_path / "metadata.csv").write_text("s2_name,s1_name,country\n" + "".join(lines))
        write_splits(tmp_path / "splits", list(v1_values))
    data = load_bigearthnet(path)
    assert "s2" not in data.column_names
    assert sorted(data["s1_id"]) == sorted(names)
    for row in data:
        assert row["id"] == (partners[row["s1_id"]] if known else row["s1_id"])
        assert row["country"] == ("Serbia" if known else None)
        assert row["labels"] == [LABELS.index("Marine waters")]
        expected = decode_value(v1_values[partners[row["s1_id"]]], "x", ["VV"])["VV"]
        np.testing.assert_array_equal(row["s1"]["VV"], expected)
    if known:
        assert len(load_bigearthnet(path, "train")) == 3
    with pytest.raises(ValueError, match="Sentinel-1 alone, by S1 name: load_bigearthnet reads it"):
        transcode(path, tmp_path / "out")


# Text as spreadsheets and scripts write it

HEADERS = [None, "s2_name", "patch_id", "ID", "s2_name,s1_name", "s1_name,s2_name", ",s2_name"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", HEADERS)
def test_a_split_list_is_read_however_it_is_written(
    v1_store: Path, encoding: str, separator: str, header: str | None
) -> None:
    names = TileStore(v1_store).keys()
    columns = (header or "s2_name").split(",")
    folder = v1_store.parent / "splits"
    folder.mkdir()
    for stem, part in (("train", names[:3]), ("val", names[3:5]), ("test", names[5:])):
        rows = [[{"s1_name": f"S1A_of_{name}", "": "0"}.get(column, name) for column in columns] for name in part]
        lines = [*([columns] if header else []), *rows]
        text = "".join(separator.join(cells) + "\r\n" for cells in lines)
        (folder / f"{stem}.csv").write_bytes(text.encode(encoding))
    data = load_bigearthnet(v1_store)
    assert data["id"][:] == names
    assert data["split"][:] == ["train"] * 3 + ["validation"] * 2 + ["test"]
    assert (data["s1_id"][0] == f"S1A_of_{names[0]}") == ("s1_name" in columns)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_of_countries_is_read_however_it_is_written(
    v1_store: Path, encoding: str, separator: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = TileStore(v1_store).keys()
    lines = [["s2_name", "country", "height", "code"], *([name, "Österreich", "12", "007"] for name in names)]
    table = v1_store.parent / "countries.csv"
    table.write_bytes("\r\n".join(separator.join(cells) for cells in lines).encode(encoding))
    data = load_bigearthnet(v1_store, metadata=table)
    assert data[0]["country"] == "Österreich"
    assert (data[0]["height"], data[0]["code"]) == (12, "007")
    assert ("not UTF-8; it is read as Windows-1252" in caplog.text) == (encoding in ("cp1252", "latin-1"))


def test_text_that_is_none_is_refused_by_name(v1_store: Path) -> None:
    table = v1_store.parent / "countries.csv"
    table.write_bytes(b"PK\x03\x04\x00\x00")
    with pytest.raises(ValueError, match=r"countries\.csv is no text: it holds zero bytes"):
        load_bigearthnet(v1_store, metadata=table)
