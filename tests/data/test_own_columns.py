"""Tables of paths as spreadsheets write them, and their own columns: kept with their types, from the table to an archive."""

import datetime
import decimal
import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import make_model, make_processor
from tiff_files import random_band, write_tiff

from csmae_hf.archive.archive import Archive
from csmae_hf.archive.tiles import metadata_of
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.encode import encode
from csmae_hf.data.tiles import load_tiles

pytest.importorskip("rasterio")

OWN = {
    "longitude": pa.array([174.8, 9.5], pa.float64()),
    "latitude": pa.array([-41.3, 47.1], pa.float32()),
    "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(10, 2)),
    "small": pa.array([decimal.Decimal("2.5"), None], pa.decimal32(5, 1)),
    "note": pa.array(["wet", None], pa.string_view()),
    "long": pa.array(["x", "y"], pa.large_string()),
    "surveyed": pa.array([datetime.date(2020, 1, 13), None], pa.date32()),
    "at": pa.array([datetime.time(10, 30), None], pa.time64("us")),
    "lasting": pa.array([datetime.timedelta(hours=2), None], pa.duration("s")),
    "seen": pa.array([datetime.datetime(2020, 1, 13, 10), None], pa.timestamp("us", "UTC")),
    "count": pa.array([7, None], pa.uint16()),
    "checked": pa.array([True, None], pa.bool_()),
    "kinds": pa.array([["a", "b"], None], pa.list_(pa.string())),
    "soil": pa.array(["clay", "sand"]).dictionary_encode(),
    "site_name": pa.array(["north", "south"], pa.string()),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_tiff(tmp_path / f"{name}_B02.tif", [random_band("B02")])
    paths = {"id": ["tile_b", "tile_a"], "B02": ["b_B02.tif", "a_B02.tif"]}
    pq.write_table(pa.table(paths | OWN), tmp_path / "tiles.parquet")
    return tmp_path / "tiles.parquet"


def kept_type(name: str) -> pa.DataType:
    """The type in which a column is kept: its own, but for those that `datasets` has no name for."""
    return {"small": pa.decimal128(5, 1), "soil": pa.string(), "note": pa.string()}.get(name, OWN[name].type)


@pytest.mark.parametrize("where", ["table", "store"])
def test_own_columns_are_kept_with_their_types(table: Path, tmp_path: Path, where: str) -> None:
    if where == "store":
        encode(table, tmp_path / "store", workers=0)
    data = load_tiles(table) if where == "table" else load_bigearthnet(tmp_path / "store")
    assert data["id"][:] == ["tile_a", "tile_b"]
    assert data.column_names[-len(OWN) :] == list(OWN)
    for name, given in OWN.items():
        column = data.data.column(name)
        assert column.type == kept_type(name), name
        assert column.to_pylist() == given.to_pylist()[::-1], name


def test_a_column_that_cannot_be_kept_is_named(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int8()))
    pq.write_table(pq.read_table(table).append_column("odd", odd), table)
    assert "odd" not in load_tiles(table).column_names
    assert "Column odd of" in caplog.text
    assert "map<string, int8" in caplog.text


def test_an_archive_keeps_own_columns_and_names_those_it_cannot(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = load_tiles(table)
    nested = data.add_column("nested", [{"x": 1}] * 2)
    with caplog.at_level(logging.WARNING):
        tiles = metadata_of(nested, ["s2"])
    assert "The archive keeps no column nested" in caplog.text
    assert "Column longitude is kept as tile_longitude" in caplog.text
    for name, given in OWN.items():
        # the files lie elsewhere than these two say, which are kept under another name
        column = tiles.column(f"tile_{name}" if name in ("longitude", "latitude") else name)
        plain = pa.string() if name == "long" else kept_type(name)
        assert column.type == plain, name
        assert column.to_pylist() == given.to_pylist()[::-1], name


def test_an_archive_of_such_columns_is_built_saved_and_searched(tmp_path: Path) -> None:
    from archives import make_dataset

    data = make_dataset(4)
    for name, given in OWN.items():
        if name != "small":
            column = given.cast(pa.string()) if name == "soil" else given
            data = data.add_column(name, pa.concat_arrays([column, column]))
    Archive.build(make_model(), make_processor(), data, progress=False).save(tmp_path / "archive")
    hits = Archive.load(tmp_path / "archive").search("tile_0000", k=3, sensor="s2", filter="long = 'x'")
    (found,) = [hit for hit in json.loads(hits.to_json())["queries"][0]["hits"] if hit["id"] == "tile_0002"]
    assert (found["price"], found["at"], found["lasting"]) == ("1.50", "10:30:00", 7200.0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(("separator", "point"), [(",", "."), (";", ","), (";", "."), ("\t", ".")])
def test_a_csv_is_read_however_a_spreadsheet_wrote_it(table: Path, encoding: str, separator: str, point: str) -> None:
    lines = [
        ["id", "B02", "labels", "height", "code", "day", "place", "empty"],
        ["a", "a_B02.tif", "Pastures", f"12{point}5", "007", "2020-01-13", "Île", ""],
        ["b", "b_B02.tif", "Inland wetlands", "", "010", "2020-01-14", "Ödland", ""],
    ]
    path = table.parent / "tiles.csv"
    path.write_bytes(("\r\n".join(separator.join(cells) for cells in lines) + "\r\n").encode(encoding))
    data = load_tiles(path)
    assert [(row["id"], row["place"], row["code"], row["height"]) for row in data] == [
        ("a", "Île", "007", 12.5),
        ("b", "Ödland", "010", None),
    ]
    assert data[0]["day"] == datetime.date(2020, 1, 13)
    assert data["empty"][:] == [None, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,B02,B02\na,a.tif,b.tif\n", "two columns of the name 'B02'"),
        ("id,B02\na,a.tif,b\n", r"line 2: Expected 2 columns, got 3, separated by ','"),
        ("id,B02,id_of\na,a.tif\n", r"line 2: Expected 3 columns, got 2"),
        ("\n", "no line of column names"),
        ("id,B02,date_s2\na,a_B02.tif,soon\n", "Tile a has the date 'soon'; expected one such as 2017-06-13"),
        ("id,B02,s2_id,snow,contains_seasonal_snow,s2\na,a_B02.tif,x,true,,\n", None),
    ],
)
def test_a_csv_that_cannot_be_meant_is_refused(table: Path, content: str, message: str | None) -> None:
    path = table.parent / "tiles.csv"
    path.write_text(content)
    if message is None:
        assert load_tiles(path).column_names[-2:] == ["s2_id", "contains_seasonal_snow"]
        return
    with pytest.raises(ValueError, match=message):
        load_tiles(path)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2020-01-13", datetime.datetime(2020, 1, 13)),
        ("2020-01-13T10:11:12Z", datetime.datetime(2020, 1, 13, 10, 11, 12)),
        ("2020-01-13 10:11:12", datetime.datetime(2020, 1, 13, 10, 11, 12)),
        ("2020-01-13T12:11:12+02:00", datetime.datetime(2020, 1, 13, 10, 11, 12)),
        ("20200113T101112", datetime.datetime(2020, 1, 13, 10, 11, 12)),
        ("20200113", datetime.datetime(2020, 1, 13)),
        ("", datetime.datetime(2019, 7, 4)),
    ],
)
@pytest.mark.parametrize("latitude", ["", "-41.3", "47"])
def test_the_date_and_the_latitude_of_a_table_are_believed(
    table: Path, written: str, moment: datetime.datetime, latitude: str
) -> None:
    path = table.parent / "tiles.csv"
    path.write_text(f"id,B02,date_s2,latitude\nplace_2019-07-04,a_B02.tif,{written},{latitude}\n")
    (row,) = load_tiles(path)
    assert row["date_s2"] == moment
    southern = latitude.startswith("-")
    assert row["season"] == ("Summer" if (moment.month == 1) == southern else "Winter")
