"""`csmae archive` and `csmae search` on synthetic tiles, and on real ones where they are."""

import json
import shutil

import lmdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk
from PIL import Image
from tiny_models import build, tiny_config

from configuration_csmae import DEFAULT_SENSORS
from csmae_hf import CSMAEImageProcessor, CSMAEModel
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.export import draw_hits
from csmae_hf.bigearthnet import STORE_NAME
from csmae_hf.commands.main import main
from csmae_hf.data import dataset as dataset_module
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.evenly import evenly
from csmae_hf.data.store import TileStore
from csmae_hf.sample.generate import generate_sample
from csmae_hf.search.places import grid_footprint

TILES = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, tiles, and an archive of them that the command built."""
    root = tmp_path_factory.mktemp("commands")
    model = build(CSMAEModel, tiny_config(sensors=DEFAULT_SENSORS, image_size=120, patch_size=30))
    model.save_pretrained(root / "model")
    CSMAEImageProcessor().save_pretrained(root / "model")
    generate_sample(root / "sample", tiles=TILES, seed=0)
    status = main(["archive", "build", str(root / "model"), str(root / "sample"), str(root / "archive")])
    assert status == 0
    return root


@pytest.fixture(scope="module")
def tiles(folder):
    return load_bigearthnet(folder / "sample")


def search(folder, *arguments):
    return main(["search", str(folder / "archive"), *map(str, arguments)])


def test_build_says_what_it_made_and_info_says_it_again(folder, capsys):
    assert main(["archive", "info", str(folder / "archive")]) == 0
    said = capsys.readouterr().out
    assert f"tiles      {TILES}\n" in said
    assert "sensors    s1, s2; width 32, cosine, alignment none" in said
    assert "country (text)" in said
    assert "labels (list of text)" in said
    assert "date_s2 (time)" in said


def test_a_split_and_a_sensor_are_chosen(folder, tiles, tmp_path, capsys):
    command = ["archive", "build", str(folder / "model"), str(folder / "sample"), str(tmp_path / "a")]
    assert main([*command, "--split", "train", "--sensors", "s2", "--limit", "5"]) == 0
    archive = Archive.load(tmp_path / "a")
    assert archive.sensors == ["s2"]
    names = [row["id"] for row in tiles if row["split"] == "train"]
    assert archive.ids == [names[row] for row in evenly(len(names), 5)]
    assert main([*command, "--sensors", "s3"]) == 2
    assert main([*command, "--index", "milvus"]) == 2


def test_build_refuses_to_replace_before_it_embeds_and_add_adds(folder, tiles, tmp_path, monkeypatch, caplog, capsys):
    out = tmp_path / "a"
    command = ["archive", "build", str(folder / "model"), str(folder / "sample"), str(out)]
    assert main([*command, "--limit", "5"]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(Archive, "build", lambda *given, **options: pytest.fail("tiles were embedded"))
        assert main([*command, "--limit", "3"]) == 2
        assert "holds an archive of 5 tiles" in caplog.text
        assert "csmae archive add" in caplog.text
        assert "--overwrite" in caplog.text
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
        assert main([*command[:-1], str(tmp_path / "thesis"), "--overwrite"]) == 2
    assert len(Archive.load(out)) == 5
    assert main([*command, "--limit", "3", "--overwrite"]) == 0
    assert Archive.load(out).ids == [tiles["id"][row] for row in evenly(len(tiles), 3)]
    assert main(["archive", "add", str(out), str(folder / "sample"), "--limit", "3"]) == 2
    first = Archive.load(out)
    first.remove(first.ids)
    first.save(out)
    assert main(["archive", "add", str(out), str(folder / "sample"), "--limit", "4"]) == 0
    assert Archive.load(out).ids == [tiles["id"][row] for row in evenly(len(tiles), 4)]


def test_an_archive_leaves_in_the_formats_of_the_field_and_comes_back(folder, tmp_path, capsys, caplog):
    out, back = tmp_path / "out", tmp_path / "deep" / "back"
    export = ["archive", "export", str(folder / "archive"), str(out)]
    assert main([*export, "--geoparquet", "--stac", "--license", "CC0-1.0"]) == 0
    assert {"catalog.json", "s1.parquet", "s2.parquet"} < {path.name for path in out.iterdir()}
    assert main(export) == 2
    assert main(["archive", "import", str(out), str(back)]) == 0
    archive, again = Archive.load(folder / "archive"), Archive.load(back)
    assert again.tiles.equals(archive.tiles)
    assert again.provenance == archive.provenance
    tile = load_bigearthnet(folder / "sample")[0]
    assert main(["search", str(back), "--query", tile["id"], "--sensor", "s1", "--in", "s2", "--k", "2"]) == 0
    np.savez(tmp_path / "tile.npz", **{band: tile["s1"][band] for band in ("VH", "VV")})
    image = ["search", str(back), "--query", str(tmp_path / "tile.npz"), "--sensor", "s1", "--in", "s2"]
    assert main(image) == 2
    assert "--model" in caplog.text
    assert main([*image, "--model", str(folder / "model")]) == 0
    assert main([*export, "--sensor", "s2", "--geometry", "point", "--overwrite"]) == 0
    assert [path.name for path in out.iterdir()] == ["s2.parquet"]
    assert main(["archive", "import", str(out / "s2.parquet"), str(back)]) == 2
    assert main(["archive", "import", str(out / "s2.parquet"), str(back), "--overwrite"]) == 0
    assert Archive.load(back).sensors == ["s2"]


def test_several_queries_give_pictures_a_map_and_tables(folder, tiles, tmp_path, capsys):
    ids = tiles["id"][3], tiles["id"][7]
    outs = [tmp_path / name for name in ("grid.png", "map.geojson", "hits.json", "hits.parquet", "hits.csv", "dataset")]
    options = [part for out in outs for part in ("--out", out)]
    where = "season in ('Summer', 'Fall', 'Spring') and date_s2 >= '2017-01-01'"
    assert search(folder, "--query", *ids, "--sensor", "s1", "--in", "s2", "--k", "3", "--where", where, *options) == 0
    table = capsys.readouterr().out
    everything = json.loads((tmp_path / "hits.json").read_text())
    hits = [hit for query in everything["queries"] for hit in query["hits"]]
    assert [query["query"] for query in everything["queries"]] == list(ids)
    assert len(hits) == 6
    assert all(hit["season"] != "Winter" for hit in hits)
    assert all(hit["id"] in table for hit in hits)
    assert f"{ids[0]} (s1) in s2, exact" in table
    assert pq.read_table(tmp_path / "hits.parquet").column("id").to_pylist() == [hit["id"] for hit in hits]
    dataset = load_from_disk(str(tmp_path / "dataset"))
    assert dataset["query"] == [name for name in ids for _ in range(3)]
    assert dataset["labels"] == [hit["labels"] for hit in hits]
    assert (tmp_path / "hits.csv").read_text().startswith("query,rank,score,id,")
    features = json.loads((tmp_path / "map.geojson").read_text())["features"]
    assert [feature["properties"]["id"] for feature in features] == [hit["id"] for hit in hits]
    assert all(feature["geometry"]["type"] == "Polygon" for feature in features)
    picture = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    assert picture.std() > 20
    assert search(folder, "--query", ids[0], "--sensor", "s1", "--out", tmp_path / "dataset") == 2, "is not overwritten"


def test_json_goes_to_the_terminal_and_feedback_moves_the_query(folder, tiles, capsys):
    ids = tiles["id"]
    assert search(folder, "--sensor", "s2", "--like", f"{ids[1]},{ids[2]}", "--unlike", ids[5], "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    wanted = Archive.load(folder / "archive").search(None, sensor="s2", like=[ids[1], ids[2]], unlike=[ids[5]])
    assert [hit["id"] for hit in found["queries"][0]["hits"]] == wanted.ids[0]
    assert found["exact"] is True


def test_an_array_is_a_query_without_labels(folder, tiles, tmp_path, capsys):
    pixels = {band: np.asarray(values) for band, values in tiles[4]["s1"].items()}
    np.savez(tmp_path / "query.npz", **pixels)
    np.save(tmp_path / "two.npy", np.stack([np.stack([pixels[band] for band in ("VH", "VV")])] * 2))
    queries = tmp_path / "query.npz", tmp_path / "two.npy"
    assert search(folder, "--query", *queries, "--sensor", "s1", "--k", "2", "--out", tmp_path / "grid.png") == 0
    said = capsys.readouterr().out
    assert said.count(f"1     1.0000  {tiles['id'][4]}") == 3
    assert "two.npy [1] (s1)" in said
    assert (tmp_path / "grid.png").stat().st_size > 10_000


def test_a_query_is_read_once_and_of_the_tiles_only_those_in_the_picture(folder, tiles, tmp_path, monkeypatch, capsys):
    pixels = {band: np.asarray(values) for band, values in tiles[4]["s1"].items()}
    np.savez(tmp_path / "query.npz", **pixels)
    opened, read = [], set()
    load, view = np.load, TileStore._value
    monkeypatch.setattr(np, "load", lambda path, **options: opened.append(path) or load(path, **options))
    monkeypatch.setattr(TileStore, "_value", lambda *given: read.add(given[2]) or view(*given))
    for function in ("read_v1_store_rows", "read_v2_rows"):
        monkeypatch.setattr(dataset_module, function, lambda *given: pytest.fail("all metadata were read"))
    outs = [part for name in ("a.png", "b.png", "c.geojson") for part in ("--out", tmp_path / name)]
    asked = ["--query", tmp_path / "query.npz", tiles["id"][7], "--sensor", "s1", "--in", "s2", "--k", "3"]
    assert search(folder, *asked, *outs, "--format", "json") == 0
    assert opened == [tmp_path / "query.npz"]
    found = json.loads(capsys.readouterr().out)["queries"]
    shown = {hit["id"] for query in found for hit in query["hits"]} | {tiles["id"][7]}
    assert read <= shown | {row["s1_id"] for row in tiles if row["id"] in shown}
    with Image.open(tmp_path / "a.png") as first, Image.open(tmp_path / "b.png") as second:
        assert np.array_equal(np.asarray(first), np.asarray(second))
    archive = Archive.load(folder / "archive")
    hits = archive.search([str(tmp_path / "query.npz"), tiles["id"][7]], sensor="s1", archive_sensor="s2", k=3)
    draw_hits(hits, tiles, tmp_path / "whole.png")  # of the whole data set, with its labels as classes
    with Image.open(tmp_path / "a.png") as first, Image.open(tmp_path / "whole.png") as second:
        assert np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--query", "x", "--sensor", "s1", "--where", "contry = 'Austria'"],
            "no column 'contry'; did you mean country?",
        ),
        (["--query", "nowhere.tif", "--sensor", "s1"], "neither the id of one of the archive's 24 tiles nor a file"),
        (["--sensor", "s1"], "nothing to search by"),
        (["--query", "x"], "Say which sensor"),
        (["--like", "x", "--sensor", "s1"], "1 of 1 ids are not in this archive"),
        (["--like", "x", "--sensor", "s1", "--model", "/nowhere"], "No model at /nowhere"),
    ],
)
def test_mistakes_are_answered_in_one_line(folder, arguments, message, caplog):
    assert search(folder, *arguments) == 2
    assert message in caplog.text


def test_a_picture_without_the_tiles_says_where_to_name_them(folder, tiles, tmp_path, caplog):
    archive = Archive.load(folder / "archive")
    archive.source = {}
    archive.save(tmp_path / "archive")
    command = [
        "search",
        str(tmp_path / "archive"),
        "--query",
        tiles["id"][0],
        "--sensor",
        "s1",
        "--out",
        str(tmp_path / "g.png"),
    ]
    assert main(command) == 2
    assert "pass --data" in caplog.text
    assert main([*command, "--data", str(folder / "sample")]) == 0


def test_an_archive_is_searched_by_codes_after_it_was_measured(folder, tiles, tmp_path, capsys, caplog):
    archive = shutil.copytree(folder / "archive", tmp_path / "archive")
    assert main(["archive", "compress", str(archive), "--measure"]) == 0
    said = capsys.readouterr().out
    assert "index      s2: exact\n" in said
    assert said.count(" -> s2 ") == 8, "four kinds, two sensors of queries"
    assert "best kind" in said
    assert main(["archive", "index", str(archive), "--index", "codes", "--kind", "float16"]) == 0
    assert "index      s2: codes {'kind': 'float16'" in capsys.readouterr().out
    assert main(["archive", "index", str(archive), "--index", "codes", "--kind", "ivf"]) == 2
    assert "Unknown kind of codes 'ivf'" in caplog.text
    assert main(["search", str(archive), "--query", tiles[0]["id"], "--sensor", "s1", "--in", "s2", "--k", "2"]) == 0


def test_an_archive_gets_an_index_whose_recall_is_stored(folder, tiles, tmp_path, capsys):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    Archive.load(folder / "archive").save(tmp_path / "archive")
    assert main(["archive", "index", str(tmp_path / "archive"), "--index", "faiss", "--kind", "hnsw"]) == 0
    assert "recall@10  s1 -> s2, filter keeps 20.0%: " in capsys.readouterr().out
    archive = Archive.load(tmp_path / "archive")
    assert archive.indexes["s1"].backend == "faiss"
    assert min(item.recall for item in archive.recall) >= 0.95
    assert {(item.query_sensor, item.archive_sensor) for item in archive.recall} == {
        (query, target) for query in ("s1", "s2") for target in ("s1", "s2")
    }
    archive.remove(archive.ids[:4])
    assert len(archive.search(archive.ids[0], sensor="s1", k=5).ids[0]) == 5


def test_a_real_geotiff_folder_is_a_query_and_real_tiles_lie_where_they_lie(
    folder, shared_data, tmp_path, capsys, caplog
):
    rasterio = pytest.importorskip("rasterio", reason="pip install rasterio")
    tiffs = shared_data / "rico_hdl_reben_tiffs" / "BigEarthNet-S2"
    (band,) = tiffs.glob("*/*/*_B02.tif")
    assert search(folder, "--query", band.parent, "--sensor", "s2", "--in", "s1", "--out", tmp_path / "grid.png") == 0
    assert capsys.readouterr().out.count("\n") >= 11
    command = ["archive", "build", str(folder / "model"), str(tiffs), str(tmp_path / "real"), "--sensors", "s2"]
    assert main(command) == 0
    query = ["search", str(tmp_path / "real"), "--query", str(band.parent), "--out", str(tmp_path / "map.geojson")]
    assert main(query) == 0
    assert "Fewer than k = 10 tiles can be found: the archive has 1." in caplog.text
    (feature,) = json.loads((tmp_path / "map.geojson").read_text())["features"]
    assert feature["properties"]["score"] == 1
    with rasterio.open(band) as source:
        bounds, crs = source.bounds, source.crs
    west, south, east, north = rasterio.warp.transform_bounds(crs, "EPSG:4326", *bounds)
    corners = np.array(feature["geometry"]["coordinates"][0])
    np.testing.assert_allclose([*corners.min(axis=0), *corners.max(axis=0)], [west, south, east, north], atol=1e-6)
    assert grid_footprint(band.parent.name) == (f"EPSG:{crs.to_epsg()}", *bounds), "its name says it as well"


def test_tiles_are_found_by_place(folder, tiles, tmp_path, capsys, caplog):
    pytest.importorskip("rasterio", reason="pip install rasterio")
    shapely = pytest.importorskip("shapely", reason="pip install shapely")
    kept = (
        Archive.load(folder / "archive")
        .tiles.select(["id", "longitude", "latitude", "bbox", "grid_cell", "country"])
        .to_pylist()
    )
    tile = next(tile for tile in kept if tile["country"] == "Portugal")
    assert tile["grid_cell"] == "_".join(tile["id"].split("_")[5:])[1:]
    west, south, east, north = tile["bbox"].values()
    assert west < tile["longitude"] < east < 0
    assert south < tile["latitude"] < north

    def ids(*arguments):
        capsys.readouterr()
        assert (
            search(
                folder,
                "--query",
                tiles["id"][0],
                "--sensor",
                "s1",
                "--k",
                "24",
                "--include-self",
                "--format",
                "json",
                *arguments,
            )
            == 0
        )
        (answer,) = json.loads(capsys.readouterr().out)["queries"]
        return {hit["id"] for hit in answer["hits"]}

    (tmp_path / "it's.geojson").write_text(json.dumps(shapely.geometry.mapping(shapely.box(-9.6, 36, -6, 42.5))))
    portugal = {tile["id"] for tile in kept if tile["country"] == "Portugal"}
    assert ids("--bbox", "-9.6,36,-6,42.5") == ids("--within", str(tmp_path / "it's.geojson")) == portugal
    assert tile["id"] in ids("--near", f"{tile['longitude']},{tile['latitude']},0")
    named = str(tmp_path / "it's.geojson").replace("'", "''")
    where = f"within('{named}') or country = 'Austria'"
    assert ids("--where", where) == portugal | {tile["id"] for tile in kept if tile["country"] == "Austria"}
    assert ids("--where", where, "--bbox", "5,36,30,72", "--where", where) == {
        tile["id"] for tile in kept if tile["country"] == "Austria"
    }
    with pytest.raises(ValueError, match="is given here; a filter opens no file"):
        Archive.load(folder / "archive").search(tiles["id"][0], sensor="s1", filter=where)
    for arguments, message in [
        (("--bbox", "1,2,3"), "--bbox 1,2,3: expected 4 numbers, W,S,E,N, in degrees."),
        (("--near", "far"), "--near far: expected 3 numbers, LON,LAT,KM, in degrees."),
        (("--within", "no.geojson"), "No file no.geojson: expected GeoJSON"),
    ]:
        caplog.clear()
        assert search(folder, "--query", tiles["id"][0], "--sensor", "s1", *arguments) == 2
        assert message in caplog.text


def test_a_broken_value_in_the_store_is_named(folder, tiles, tmp_path, caplog):
    shutil.copytree(folder / "sample", tmp_path / "sample")
    store = tmp_path / "sample" / STORE_NAME
    broken = tiles["id"][5]
    with lmdb.open(str(store)) as environment, environment.begin(write=True) as transaction:
        value = transaction.get(broken.encode())
        assert transaction.put(broken.encode(), value[: len(value) // 2])
    command = ["archive", "build", str(folder / "model"), str(tmp_path / "sample"), str(tmp_path / "archive")]
    assert main(command) == 2
    assert "1 or more of 24 tiles cannot be used, more than 1%" in caplog.text
    assert broken in caplog.text
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(
    ("square", "code", "left", "bottom"),
    [  # as the package mgrs 1.6 converts them
        ("33UUP", 32633, 300_000, 5_300_000),
        ("32TQM", 32632, 700_000, 4_600_000),
        ("35VNL", 32635, 500_000, 7_000_000),
        ("29SNB", 32629, 500_000, 4_100_000),
        ("34WFU", 32634, 600_000, 7_300_000),
        ("23KKR", 32723, 200_000, 7_500_000),
        ("56HLH", 32756, 300_000, 6_200_000),
    ],
)
def test_names_say_where_tiles_lie(square, code, left, bottom):
    found = grid_footprint(f"S2A_MSIL2A_20170613T101031_N9999_R022_T{square}_02_10")
    assert found == (f"EPSG:{code}", left + 2400, bottom + 86_800, left + 3600, bottom + 88_000)


@pytest.mark.parametrize("name", ["S2A_MSIL2A_20170613T101031_0_45", "my tile", "", "_T99UUP_00_00", "_T33UAP_00_00"])
def test_other_names_say_nothing_of_places(name):
    assert grid_footprint(name) is None


def test_all_of_bigearthnet_lies_in_its_countries(shared_data):
    warp = pytest.importorskip("rasterio.warp", reason="pip install rasterio")
    boxes = {  # west, south, east, north, degrees
        "Austria": (9, 46, 18, 50),
        "Belgium": (2, 49, 7, 52),
        "Finland": (18, 59, 32, 70),
        "Ireland": (-11, 51, -5, 56),
        "Kosovo": (20, 41, 22, 44),
        "Lithuania": (20, 53, 27, 57),
        "Luxembourg": (5, 49, 7, 51),
        "Portugal": (-10, 36, -6, 43),
        "Serbia": (18, 42, 24, 47),
        "Switzerland": (5, 45, 11, 48),
    }
    table = pq.read_table(shared_data / "reben_metadata" / "metadata.parquet", columns=["patch_id", "country"])
    squares = {}
    for name, country in zip(*(column.to_pylist() for column in table.columns), strict=True):
        squares.setdefault((name.split("_")[5], country), name)
    assert len(squares) > 50
    for (_, country), name in squares.items():
        place = grid_footprint(name)
        (longitude,), (latitude,) = warp.transform(place.crs, "EPSG:4326", [place.left], [place.top])
        west, south, east, north = boxes[country]
        assert west <= longitude <= east, name
        assert south <= latitude <= north, name
