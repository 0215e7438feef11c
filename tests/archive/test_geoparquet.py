"""An archive in the field's formats: what GeoPandas, DuckDB, datasets, TorchGeo's loaders and the schemas of STAC make of it."""

import json
import os
import signal
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from datasets import load_dataset
from exported_archives import IDENTITY, TILES, WIDTH, make_archive, tile_name
from jsonschema import Draft7Validator
from referencing import Registry, Resource

from csmae_hf.archive import geoparquet
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.geoparquet import export_geoparquet, written_names
from csmae_hf.archive.imported import import_archive
from csmae_hf.hub.archives import stage_archive
from csmae_hf.search.places import grid_footprint

SCHEMAS = Path(__file__).parents[1] / "stac_schemas"


@pytest.fixture(scope="module")
def archive():
    return make_archive()


@pytest.fixture(scope="module")
def folder(archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "out"
    return export_geoparquet(archive, path, stac=True, license="CC-BY-4.0")


def test_a_round_trip_gives_the_same_rows_vectors_provenance_and_results(archive, folder, tmp_path):
    found = import_archive([folder])
    found.save(tmp_path / "again")
    found = Archive.load(tmp_path / "again")
    assert found.tiles.equals(archive.tiles)
    assert found.tiles.schema.equals(archive.tiles.schema)
    assert found.provenance == archive.provenance
    assert found.alignment.to_bytes() == archive.alignment.to_bytes()
    vector = np.random.default_rng(5).normal(size=WIDTH)
    for query in (archive.ids[:7], vector):
        for sensors in ({"sensor": "s1", "archive_sensor": "s2"}, {"sensor": "s2", "archive_sensor": "s1"}):
            ours, theirs = (one.search(query, k=20, filter="number > 4", **sensors) for one in (archive, found))
            assert ours.ids == theirs.ids
            assert np.array_equal(ours.scores, theirs.scores)
    with pytest.raises(FileNotFoundError, match=r"imported from s1\.parquet.*--model"):
        found.search({band: np.ones((120, 120), np.float32) for band in ("VH", "VV")}, sensor="s1")


def test_geopandas_reads_places_in_the_order_of_the_curve_and_filters_by_the_bounds(archive, folder):
    frame = geopandas.read_parquet(folder / "s2.parquet")
    assert len(frame) == TILES
    assert frame.crs == "OGC:CRS84"
    middles = geopandas.GeoSeries(geopandas.points_from_xy(frame.centre_lon, frame.centre_lat))
    assert middles.hilbert_distance().is_monotonic_increasing
    one = shapely.geometry.shape(grid_footprint(tile_name(17)).to_polygon())
    assert frame.set_index("id").geometry[tile_name(17)].equals_exact(one, 1e-9)
    inside = geopandas.read_parquet(folder / "s2.parquet", bbox=one.centroid.buffer(1e-4).bounds)
    assert set(inside["id"]) == set(frame["id"][frame.intersects(one.centroid.buffer(1e-4).envelope)])
    vectors = np.stack(frame["embedding"])
    query = archive.vectors["s1"][0:1].numpy()
    best = frame["id"].to_numpy()[np.argsort(-(vectors @ query[0]))[:10]]
    assert best.tolist() == archive.search(archive.ids[0], sensor="s1", archive_sensor="s2", include_self=True).ids[0]


def test_duckdb_joins_the_sensors_and_finds_what_search_finds(archive, folder):
    hits = archive.search(
        archive.ids[3], sensor="s1", archive_sensor="s2", k=5, filter="number < 90", include_self=True
    )
    rows = duckdb.sql(
        f"SELECT tile.id, array_cosine_similarity(tile.embedding::FLOAT[{WIDTH}], query.embedding::FLOAT[{WIDTH}]) AS score "
        f"FROM '{folder}/s2.parquet' AS tile, '{folder}/s1.parquet' AS query "
        f"WHERE query.id = '{archive.ids[3]}' AND tile.number < 90 ORDER BY score DESC LIMIT 5"
    ).fetchall()
    assert [name for name, _ in rows] == hits.ids[0]
    assert [score for _, score in rows] == pytest.approx(hits.scores[0].tolist(), abs=1e-6)
    both = duckdb.sql(
        f"SELECT count(*) FROM '{folder}/s1.parquet' a JOIN '{folder}/s2.parquet' b "
        "ON a.id = b.id AND a.row = b.row AND a.geometry = b.geometry"
    )
    assert both.fetchall() == [(TILES,)]
    west, south, east, north = shapely.geometry.shape(grid_footprint(tile_name(17)).to_polygon()).bounds
    near = duckdb.sql(
        f"SELECT id FROM '{folder}/*.parquet' WHERE bbox.xmin > {west - 1e-9} AND bbox.xmax < {east + 1e-9} "
        f"AND bbox.ymin > {south - 1e-9} AND bbox.ymax < {north + 1e-9}"
    ).fetchall()
    assert near == [(tile_name(17),)] * 2


@pytest.mark.parametrize("geometry", ["polygon", "point"])
def test_the_columns_that_the_loaders_of_torchgeo_take_are_there(archive, tmp_path, geometry):
    # TorchGeo 0.10.1: ClayEmbeddings, MajorTOMEmbeddings, EarthEmbeddings and EarthIndexEmbeddings, as they look at a row
    path = export_geoparquet(archive, tmp_path / "out", sensors=["s2"], geometry=geometry) / "s2.parquet"
    row, plain = geopandas.read_parquet(path).iloc[0], pd.read_parquet(path).iloc[0]
    number = archive.ids.index(row["id"])
    middle = shapely.centroid(row["geometry"])
    for held in (row, plain):
        assert held["embedding"].dtype == np.float32
        assert np.array_equal(held["embedding"], archive.vectors["s2"][number : number + 1].numpy()[0])
        assert (held["centre_lon"], held["centre_lat"]) == pytest.approx((middle.x, middle.y), abs=1e-5)
        assert pd.Timestamp(held["timestamp"]) == archive.tiles.column("date_s2")[number].as_py()
    assert (row["geometry"].geom_type == "Point") == (geometry == "point")
    meta = json.loads(pq.read_schema(path).metadata[b"geo"])["columns"]["geometry"]
    assert meta["geometry_types"] == [row["geometry"].geom_type]
    bounds = geopandas.read_parquet(path).total_bounds
    assert meta["bbox"] == pytest.approx(bounds.tolist())
    assert import_archive([path.parent]).tiles.equals(archive.tiles)


def test_row_groups_pages_and_codecs_are_those_of_the_conventions(archive, folder, tmp_path, monkeypatch):
    metadata = pq.ParquetFile(folder / "s1.parquet").metadata
    chunks = {
        metadata.row_group(0).column(n).path_in_schema: metadata.row_group(0).column(n)
        for n in range(metadata.num_columns)
    }
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}
    embedding = next(chunk for path, chunk in chunks.items() if path.startswith("embedding."))
    assert embedding.has_offset_index
    assert "RLE_DICTIONARY" not in embedding.encodings
    assert chunks["bbox.xmin"].statistics.has_min_max
    assert pq.read_schema(folder / "s1.parquet").field("embedding").type == pa.list_(pa.float32(), WIDTH)
    monkeypatch.setattr(geoparquet, "GROUP_BYTES", 4 * WIDTH * 50)
    small = export_geoparquet(archive, tmp_path / "small")
    assert pq.ParquetFile(small / "s1.parquet").num_row_groups == 3
    assert pq.read_table(small / "s1.parquet").equals(pq.read_table(folder / "s1.parquet"))


def test_no_path_of_this_machine_is_in_any_file(folder, tmp_path):
    for path in folder.iterdir():
        assert b"somebody" not in path.read_bytes(), path.name
    noted = make_archive(4, note=["/home/somebody/x.tif: dark"] * 4)
    (path,) = export_geoparquet(noted, tmp_path / "out", sensors=["s1"]).glob("*.parquet")
    assert pq.read_table(path).column("note").to_pylist() == ["x.tif: dark"] * 4


def test_tiles_without_a_place_come_last_and_are_counted(tmp_path, caplog):
    lost = make_archive(4, id=["a", tile_name(1), "b", tile_name(0)])
    path = export_geoparquet(lost, tmp_path / "out", stac=True)
    assert "Of 2 of 4 tiles the place is not known" in caplog.text
    frame = geopandas.read_parquet(path / "s1.parquet")
    assert frame["id"].tolist() == [tile_name(0), tile_name(1), "a", "b"]
    assert frame.geometry.isna().tolist() == [False, False, True, True]
    assert import_archive([path]).tiles.equals(lost.tiles)
    nowhere = export_geoparquet(make_archive(3, id=["a", "b", "c"]), tmp_path / "nowhere", stac=True)
    assert geopandas.read_parquet(nowhere / "s2.parquet").geometry.isna().all()
    check_catalogue(nowhere)


def test_a_kill_leaves_nothing_under_the_final_name(archive, tmp_path, monkeypatch):
    out = tmp_path / "out"
    child = os.fork()
    if not child:
        footers = geoparquet._footers
        monkeypatch.setattr(
            geoparquet,
            "_footers",
            lambda held, sensor, *rest: (
                os.kill(os.getpid(), signal.SIGKILL) if sensor == "s2" else footers(held, sensor, *rest)
            ),
        )
        export_geoparquet(archive, out)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".writing-")
    assert (export_geoparquet(archive, out) / "s2.parquet").is_file()


def test_what_cannot_be_exported_is_refused_before_anything_is_written(archive, folder, tmp_path):
    with pytest.raises(ValueError, match="no embeds of s3; it has s1, s2"):
        export_geoparquet(archive, tmp_path / "out", sensors=["s3"])
    with pytest.raises(ValueError, match="geometry='circle': expected one of polygon, point"):
        export_geoparquet(archive, tmp_path / "out", geometry="circle")
    with pytest.raises(FileExistsError, match="exists already"):
        export_geoparquet(archive, folder)
    with pytest.raises(ValueError, match="paths of this machine"):
        export_geoparquet(make_archive(2, id=["/home/me/a", "/home/me/b"]), tmp_path / "out")
    empty = make_archive(2)
    empty.remove(empty.ids)
    with pytest.raises(ValueError, match="no tiles"):
        export_geoparquet(empty, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_metadata_of_any_name_and_type_comes_back(tmp_path):
    columns = {
        "struct": pa.array([{"a": "x", "b": [1]}, None, {"a": None, "b": None}]),
        "list of structs": pa.array([[{"a": "x"}], None, []]),
        "map": pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.string())),
        "large": pa.array([["a"], None, [None]], pa.large_list(pa.large_string())),
        "dictionary": pa.array(["a", None, "a"]).dictionary_encode(),
        "bytes": pa.array([b"a", None, b""]),
        "null": pa.nulls(3),
        "time": pa.array([datetime(2020, 1, 1)] * 3, pa.timestamp("ns", "Europe/Berlin")),
        "": pa.array([1, 2, None], pa.uint64()),
        "x.list.element": ["a", "b", "c"],
        **dict.fromkeys(geoparquet.COLUMNS, ["theirs"] * 3),
    }
    archive = make_archive(3, aligned=False, **columns)
    found = import_archive([export_geoparquet(archive, tmp_path / "out")])
    assert found.tiles.equals(archive.tiles)
    assert found.tiles.schema.equals(archive.tiles.schema)


def test_columns_of_the_same_name_get_out_of_the_way():
    names = ["id", "bbox", "tile_bbox", "row", "tile_row", "x"]
    written = written_names(names)
    assert written == {
        "id": "id",
        "bbox": "tile_tile_bbox",
        "tile_bbox": "tile_bbox",
        "row": "tile_tile_row",
        "tile_row": "tile_row",
        "x": "x",
    }


@cache
def schema_registry():
    theirs = resources.files("pystac.validation") / "jsonschemas" / "geojson"
    files = [*SCHEMAS.glob("*.json"), theirs / "Feature.json", theirs / "Geometry.json"]
    registry = Registry()
    for schema in (json.loads(path.read_text(encoding="utf-8")) for path in files):
        name = schema["$id"].removesuffix("#")
        # the MLM extension refers to an earlier version, whose part in question is the same
        for known in {name, name.replace("processing/v1.2.0", "processing/v1.1.0")}:
            registry = registry.with_resource(known, Resource.from_contents(schema))
    return registry


def schema_errors(content):
    """What the schemas of STAC, and of the extensions that an object names, have against it."""
    cores = {"Catalog": "catalog-spec", "Collection": "collection-spec", "Feature": "item-spec"}
    name = {"Feature": "item"}.get(content["type"], content["type"].lower())
    core = f"https://schemas.stacspec.org/v1.0.0/{cores[content['type']]}/json-schema/{name}.json"
    return [
        (schema, error.message[-300:], [inner.message[-300:] for inner in error.context])
        for schema in (core, *content.get("stac_extensions", ()))
        for error in Draft7Validator({"$ref": schema}, registry=schema_registry()).iter_errors(content)
    ]


def check_catalogue(folder):
    """Validate all objects of a catalogue and follow its links; give them by file."""
    found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    for name, content in found.items():
        assert not schema_errors(content), name
        links = [*content["links"], *content.get("assets", {}).values()]
        assert all((folder / link["href"]).is_file() for link in links if link["href"].startswith("."))
    return found


def test_the_catalogue_is_what_the_schemas_ask_for(archive, folder):
    found = check_catalogue(folder)
    assert set(found) == {
        "catalog.json",
        "collection.json",
        "model.json",
        "source.json",
        "item-s1.json",
        "item-s2.json",
    }
    collection, item, model = found["collection.json"], found["item-s1.json"], found["model.json"]
    assert (collection["emb:type"], collection["emb:dimensions"], collection["data_type"]) == ("chip", WIDTH, "float32")
    assert {"emb:model", "emb:source-data"} <= {link["rel"] for link in collection["links"]}
    assert collection["license"] == "CC-BY-4.0"
    assert item["properties"]["emb:runtime_parameters"]["bands"] == ["VH", "VV"]
    assert item["properties"]["emb:runtime_parameters"]["alignment_sha256"] == archive.provenance.alignment_hash
    assert item["properties"]["emb:postprocessing"]["expression"] == "center, l2_normalize"
    assert found["item-s2.json"]["properties"]["start_datetime"] == "2017-01-01T00:00:00Z"
    assert model["properties"]["mlm:name"] == "someone-model at ffffffffffff"
    assert model["properties"]["mlm:input"][1]["input"]["shape"] == [-1, 2, 120, 120]
    assert model["assets"]["model"]["href"] == f"https://huggingface.co/someone/model/tree/{'f' * 40}"
    emb = json.loads(pq.read_schema(folder / "s1.parquet").metadata[b"emb"])
    assert emb["emb:dimensions"] == WIDTH
    assert emb["properties"] == {key: value for key, value in item["properties"].items() if key.startswith("emb:")}


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("collection.json", None, "emb:dimensions"),
        ("collection.json", None, "license"),
        ("item-s1.json", "assets", "embeddings"),
        ("item-s1.json", "properties", "datetime"),
        ("model.json", "properties", "mlm:output"),
        ("model.json", "properties", "mlm:name"),
    ],
)
def test_the_schemas_notice_what_is_missing(folder, name, part, key):
    content = json.loads((folder / name).read_text())
    del (content if part is None else content[part])[key]
    assert schema_errors(content)


def test_pystac_walks_the_catalogue(folder):
    catalogue = pystac.Catalog.from_file(str(folder / "catalog.json"))
    items = {item.id: item for item in catalogue.get_items(recursive=True)}
    assert set(items) == {"model", "embeds-s1", "embeds-s2"}
    (collection,) = (child for child in catalogue.get_children() if child.id == "embeds")
    assert collection.get_single_link("emb:model").resolve_stac_object().target.id == "model"
    asset = items["embeds-s2"].assets["embeddings"]
    assert Path(asset.get_absolute_href()) == folder / "s2.parquet"


def test_a_foreign_encoder_is_described_as_far_as_it_is_known(tmp_path):
    config = {"sensors.s2": ["B04", "B03"], "width": WIDTH, "tile_size": 64}
    for identity in (
        IDENTITY.__class__("encoder:my.pack:vit", None, "a" * 64, "b" * 64, config=config),
        IDENTITY.__class__("", None, "a" * 64, "b" * 64),
    ):
        foreign = make_archive(3, aligned=False, identity=identity)
        found = check_catalogue(
            export_geoparquet(
                foreign, tmp_path / "out", stac=True, source_data="https://example.org/s2", overwrite=True
            )
        )
        assert "source.json" not in found
        (link,) = (link for link in found["collection.json"]["links"] if link["rel"] == "emb:source-data")
        assert link["href"] == "https://example.org/s2"
        assert found["model.json"]["assets"]["model"]["href"] == f"urn:sha256:{'a' * 64}"


def test_a_published_archive_shows_its_vectors_to_datasets(archive, tmp_path):
    folder = stage_archive(archive, tmp_path / "repo", "someone/archive")
    found = load_dataset(str(folder), "embeds-s1", split="train", cache_dir=str(tmp_path / "cache"))
    row = archive.ids.index(found[0]["id"])
    assert np.array_equal(np.array(found[0]["embedding"], np.float32), archive.vectors["s1"][row : row + 1].numpy()[0])
    assert (
        load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache")).column_names
        == archive.tiles.column_names
    )
    assert Archive.load(folder).ids == archive.ids
