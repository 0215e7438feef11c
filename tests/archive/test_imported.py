"""Files of embeds as archives: those of strangers, in the columns of the field, and damaged or hostile ones."""

import json
import shutil

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from exported_archives import WIDTH, make_archive

from csmae_hf.archive import embed_files
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.embed_files import ArchiveImportError
from csmae_hf.archive.geoparquet import KEY, export_geoparquet, sign
from csmae_hf.archive.imported import import_archive
from csmae_hf.embedding.identity import ArchiveMismatchError

ROWS = 40


def vectors(rows=ROWS, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


def lists(values, kind=None):
    return pa.array(list(values), kind or pa.list_(pa.float32()))


def write(path, columns, **geo):
    """A Parquet file; with `geo`, GeoParquet of these fields of the column `geometry`."""
    table = pa.table(columns)
    if geo:
        meta = {
            "version": "1.1.0",
            "primary_column": "geometry",
            "columns": {"geometry": {"geometry_types": [], **geo}},
        }
        table = table.replace_schema_metadata({"geo": json.dumps(meta)})
    pq.write_table(table, path)
    return path


def middles(rows=ROWS):
    return np.stack([np.linspace(-179, 179, rows), np.linspace(-80, 80, rows)], axis=1)


def clay(path):
    # Clay v0: no ids, `embeddings`, a date and footprints
    frame = geopandas.GeoDataFrame(
        {"source_url": ["s3://a"] * ROWS, "date": ["2021-01-01"] * ROWS, "embeddings": list(vectors())},
        geometry=list(shapely.box(*(middles() - 0.1).T, *(middles() + 0.1).T)),
        crs="EPSG:4326",
    )
    frame.to_parquet(path)
    return [f"{path.stem}#{row}" for row in range(ROWS)]


def major_tom(path):
    # the embedder of Major TOM: `unique_id`, a cell, float32 middles beside the footprint
    points = middles().astype(np.float32)
    columns = {
        "unique_id": [f"{row:x}" for row in range(ROWS)],
        "embedding": lists(vectors(), pa.list_(pa.float32(), WIDTH)),
        "timestamp": ["2021-01-01 00:00:00"] * ROWS,
        "grid_cell": ["922D_249L"] * ROWS,
        "grid_row_u": pa.array([-922] * ROWS, pa.int16()),
        "centre_lat": points[:, 1],
        "centre_lon": points[:, 0],
        "pixel_bbox": pa.array([[0, 0, 1, 1]] * ROWS, pa.list_(pa.int16())),
        "geometry": pa.array([point.wkb for point in shapely.points(middles())], pa.binary()),
    }
    write(path, columns, encoding="WKB")
    return columns["unique_id"]


def earth_index(path):
    # Earth Index: points, and ids that are numbers
    frame = geopandas.GeoDataFrame(
        {"id": np.arange(ROWS), "embedding": list(vectors())},
        geometry=geopandas.points_from_xy(*middles().T, crs="OGC:CRS84"),
    )
    frame.to_parquet(path)
    return [str(row) for row in range(ROWS)]


def earth_embeddings(path):
    # EarthEmbeddings of TorchGeo: plain Parquet, no geometry at all
    columns = {
        "product_id": ["p"] * ROWS,
        "embedding": lists(vectors()),
        "centre_lon": middles()[:, 0],
        "centre_lat": middles()[:, 1],
    }
    write(path, columns)
    return [f"{path.stem}#{row}" for row in range(ROWS)]


@pytest.mark.parametrize("make", [clay, major_tom, earth_index, earth_embeddings])
def test_files_of_the_field_are_searched_by_id_and_vector_and_refused_for_images(tmp_path, make):
    path = tmp_path / f"{make.__name__}.gpq"
    ids = make(path)
    import_archive([path], sensor="s2").save(tmp_path / "archive")
    archive = Archive.load(tmp_path / "archive")
    assert archive.ids == ids
    places = [archive.tiles.column(name).to_numpy() for name in ("longitude", "latitude")]
    assert np.allclose(np.stack(places, axis=1), middles(), atol=1e-4)
    unit = vectors() / np.linalg.norm(vectors(), axis=1, keepdims=True)
    wanted = [ids[row] for row in np.argsort(-(unit @ unit[5]))]
    assert archive.search(ids[5], k=8).ids[0] == wanted[1:9]
    assert archive.search(3 * vectors()[5], k=8).ids[0] == wanted[:8]
    assert archive.identity.model == f"encoder:{make.__name__}"
    with pytest.raises(FileNotFoundError, match=r"imported from .*\.gpq"):
        archive.search({"B02": np.ones((120, 120), np.float32)}, sensor="s2")
    again = import_archive([export_geoparquet(archive, tmp_path / "out", stac=True)])
    assert again.tiles.equals(archive.tiles)
    assert again.provenance == archive.provenance


def test_several_files_of_a_sensor_are_joined_and_metadata_is_kept(tmp_path):
    for number in range(3):
        write(
            tmp_path / f"{number}.parquet",
            {"id": [f"{number}-{row}" for row in range(4)], "vector": lists(vectors(4, number)), "class": ["x"] * 4},
        )
    archive = import_archive([tmp_path], sensor="s1", name="someone/else")
    assert archive.ids == [f"{number}-{row}" for number in range(3) for row in range(4)]
    assert archive.tiles.column("class").to_pylist() == ["x"] * 12
    assert archive.search(vectors(4, 2)[1], k=1).ids == [["2-1"]]
    other = import_archive([tmp_path / "0.parquet"], sensor="s1", name="someone/else")
    with pytest.raises(ArchiveMismatchError, match=r"other weights|other encoder|made with"):
        archive.identity.refuse_other(other.identity, "This archive")


def test_footprints_across_the_antimeridian_lie_there(tmp_path):
    shapes = [
        shapely.MultiPolygon([shapely.box(179.8, 0, 180, 1), shapely.box(-180, 0, -179.9, 1)]),
        None,
        shapely.Polygon(),
        shapely.Point(5, 6),
    ]
    geometry = pa.array([None if shape is None else shape.wkb for shape in shapes], pa.binary())
    path = write(
        tmp_path / "a.parquet",
        {"id": list("abcd"), "embedding": lists(vectors(4)), "geometry": geometry},
        encoding="WKB",
    )
    tiles = import_archive([path], sensor="s2").tiles
    assert tiles.column("longitude").to_pylist() == [pytest.approx(179.95), None, None, 5]
    assert tiles.column("bbox").to_pylist()[:2] == [
        {"xmin": pytest.approx(179.8), "ymin": 0, "xmax": pytest.approx(-179.9), "ymax": 1},
        None,
    ]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float64()])
def test_vectors_of_any_float_type_and_tensors_are_taken(tmp_path, kind):
    tensor = pa.fixed_shape_tensor(kind, [4, WIDTH // 4])
    flat = pa.array(vectors().astype(kind.to_pandas_dtype()).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(flat, WIDTH)
    path = write(
        tmp_path / "a.parquet",
        {"id": list(map(str, range(ROWS))), "embeddings": pa.ExtensionArray.from_storage(tensor, storage)},
    )
    assert np.allclose(import_archive([path], sensor="s2").vectors["s2"][:].norm(dim=1), 1)


BAD_VECTORS = {
    "is not finite": lambda rows: rows[0].__setitem__(3, np.nan),
    "is zero": lambda rows: rows.__setitem__(0, np.zeros(WIDTH, np.float32)),
    r"row 0 has 16 numbers and that of row 2 3": lambda rows: rows.__setitem__(2, [1.0, 2.0, 3.0]),
    "row 1 has no vector": lambda rows: rows.__setitem__(1, None),
    "a number of the vector of row 1 is null": lambda rows: rows.__setitem__(1, [None, *[1.0] * (WIDTH - 1)]),
    r"vectors of 0 numbers": lambda rows: rows.__setitem__(slice(None), [[]] * len(rows)),
}


@pytest.mark.parametrize("message", BAD_VECTORS)
def test_vectors_without_a_direction_or_of_another_width_are_named(tmp_path, message):
    rows = list(vectors(4))
    BAD_VECTORS[message](rows)
    path = write(tmp_path / "a.parquet", {"id": list("abcd"), "embedding": lists(rows)})
    with pytest.raises(ArchiveImportError, match=rf"a\.parquet.*{message}"):
        import_archive([path], sensor="s2")


def good(**changes):
    return {
        "id": list("abcd"),
        "embedding": lists(vectors(4)),
        "geometry": pa.array([shapely.Point(1, 2).wkb] * 4, pa.binary()),
    } | changes


LONG = shapely.LineString([(0, 0), (1, 1)] * 1000).wkb
UTM = {"name": "WGS 84 / UTM zone 33N", "id": {"authority": "EPSG", "code": 32633}}


@pytest.mark.parametrize(
    ("columns", "geo", "message"),
    [
        (good(id=["a", "b", "c", "a"]), {}, "1 tile ids occur more than once .first: a"),
        (good(id=["a", None, "c", "d"]), {}, "1 of 4 rows have no 'id'"),
        (good(embedding=[1, 2, 3, 4]), {}, "the type int64; expected lists of floats"),
        (good(embedding=pa.array([[1, 2]] * 4, pa.list_(pa.uint8()))), {}, "codes of a quantisation"),
        ({"id": ["a"], "x": [1]}, {}, "no vectors under embedding, embeddings.*it has id, x.*--vector-column"),
        (good(), {"encoding": "WKB", "crs": UTM}, "coordinate reference system EPSG:32633.*to_crs"),
        (good(), {"encoding": "WKB", "crs": None}, "coordinate reference system none that is known"),
        (good(), {"encoding": "point"}, "encoded as 'point'; expected WKB"),
        (
            {name: value for name, value in good().items() if name != "geometry"},
            {"encoding": "WKB"},
            "lacks its column of geometries, 'geometry'",
        ),
        (
            good(geometry=pa.array([shapely.Point(500_000, 5_000_000).wkb] * 4, pa.binary())),
            {"encoding": "WKB"},
            "no longitude and latitude",
        ),
        (
            good(geometry=pa.array([b"\x01\x03\x00\x00\x00\xff\xff"] * 4, pa.binary())),
            {"encoding": "WKB"},
            "a geometry is damaged",
        ),
        (good(geometry=pa.array([LONG] * 4, pa.binary())), {"encoding": "WKB"}, "a geometry has 32009 bytes"),
        (good(geometry=["POINT (1 2)"] * 4), {"encoding": "WKB"}, "geometries have the type string"),
        (good(centre_lon=[1.0] * 4, centre_lat=[91.0] * 4), {}, "row 0 lies at 1, 91"),
    ],
)
def test_what_is_no_archive_is_named_by_what_is_wrong(tmp_path, columns, geo, message):
    path = write(tmp_path / "a.parquet", columns, **geo)
    with pytest.raises(ArchiveImportError, match=message):
        import_archive([path], sensor="s2")


def test_what_the_caller_must_say_is_asked_for(tmp_path):
    path = write(tmp_path / "a.parquet", good())
    with pytest.raises(ValueError, match="--sensor s2"):
        import_archive([path])
    with pytest.raises(FileNotFoundError, match="No file or folder"):
        import_archive([tmp_path / "b.parquet"], sensor="s2")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no file"):
        import_archive([tmp_path / "empty"], sensor="s2")
    with pytest.raises(ArchiveImportError, match="no column 'name' of ids"):
        import_archive([path], sensor="s2", id_column="name")
    own = export_geoparquet(make_archive(4, aligned=False), tmp_path / "out")
    with pytest.raises(ValueError, match="says itself what it holds"):
        import_archive([own], sensor="s2")
    with pytest.raises(ArchiveMismatchError, match="nothing says that one model made both"):
        import_archive([own, path])


def repeated(value, count, kind):
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value], kind))


@pytest.mark.parametrize("bomb", ["zeros", "one number", "ids", "labels"])
def test_a_file_that_would_fill_the_memory_is_refused_at_little_cost(tmp_path, monkeypatch, bomb):
    monkeypatch.setattr(embed_files, "_ALWAYS_BYTES", 1 << 20)
    number, text = repeated(1.0, 500_000, pa.float32()), repeated("x" * 100_000, 5_000, pa.string())
    columns = {"id": list(map(str, range(5_000))), "embedding": lists(vectors(1).repeat(5_000, axis=0))}
    if bomb == "zeros":
        columns = {
            "id": ["a"] * 5_000,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(500_000, np.float32)), 100),
        }
    if bomb == "one number":
        columns = {"id": ["a"] * 5_000, "embedding": pa.FixedSizeListArray.from_arrays(number.cast(pa.float32()), 100)}
    if bomb == "ids":
        columns["id"] = text
    if bomb == "labels":
        columns["labels"] = pa.ListArray.from_arrays(pa.array(range(5_001), pa.int32()), text)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, use_dictionary=bomb != "zeros", compression="zstd", store_schema=False)
    assert path.stat().st_size < 60_000
    most = pa.default_memory_pool().max_memory()
    with pytest.raises(ArchiveImportError, match=r"would become .*it is not read"):
        import_archive([path], sensor="s2")
    assert pa.default_memory_pool().max_memory() - most < 100 << 20


def test_damage_anywhere_is_one_kind_of_error(tmp_path):
    export = export_geoparquet(make_archive(30, aligned=False), tmp_path / "out", sensors=["s1"])
    content = (export / "s1.parquet").read_bytes()
    whole = import_archive([export])
    bad = tmp_path / "bad.parquet"
    rng = np.random.default_rng(0)
    noticed = 0
    for place in (*rng.integers(0, len(content), 150), *range(len(content) - 12, len(content))):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        bad.write_bytes(changed)
        try:
            found = import_archive([bad])
        except (ArchiveImportError, ArchiveMismatchError) as error:
            noticed += "bad.parquet" in str(error)
            continue
        # statistics, indexes and padding are not looked at
        assert found.tiles.equals(whole.tiles)
        assert (found.vectors["s1"][:] == whole.vectors["s1"][:]).all()
    assert noticed > 50
    for length in (0, 3, 100, len(content) // 2, len(content) - 1):
        bad.write_bytes(content[:length])
        with pytest.raises(ArchiveImportError, match=r"bad\.parquet"):
            import_archive([bad])


def with_record(path, target, **changes):
    """A copy of a file of an export whose record says something else, signed anew."""
    table = pq.read_table(path)
    record = json.loads(table.schema.metadata[KEY.encode()])
    del record["sha256"]
    record |= changes
    pq.write_table(
        table.replace_schema_metadata(
            table.schema.metadata | {KEY.encode(): json.dumps({**record, "sha256": sign(record)}).encode()}
        ),
        target,
    )
    return record


def test_files_that_are_not_of_one_archive_are_refused_by_what_differs(tmp_path):
    first = export_geoparquet(make_archive(20, aligned=False), tmp_path / "first")
    second = export_geoparquet(make_archive(20, seed=1, aligned=False), tmp_path / "second")
    aligned = export_geoparquet(make_archive(20), tmp_path / "aligned")
    longer = export_geoparquet(make_archive(21, aligned=False), tmp_path / "longer")
    renamed = make_archive(20, aligned=False, number=[7] * 20)
    other = export_geoparquet(renamed, tmp_path / "other")
    with pytest.raises(ArchiveMismatchError, match="alignment: none and center"):
        import_archive([first / "s1.parquet", aligned / "s2.parquet"])
    with pytest.raises(ArchiveMismatchError, match=r"tiles of all: 20 .* and 21"):
        import_archive([first / "s1.parquet", longer / "s2.parquet"])
    with pytest.raises(ArchiveMismatchError, match="they differ in column 'number'"):
        import_archive([first / "s1.parquet", other / "s2.parquet"])
    with pytest.raises(ArchiveMismatchError, match="they differ in column 'id'"):
        import_archive([first / "s1.parquet", second / "s2.parquet"])
    with pytest.raises(ArchiveImportError, match="occur more than once"):
        import_archive([first / "s1.parquet", first / "s1.parquet"])
    told = json.loads(pq.read_schema(first / "s1.parquet").metadata[KEY.encode()])["provenance"]
    weights = {**told, "made_with": {**told["made_with"], "weights": "c" * 64}}
    with_record(first / "s1.parquet", tmp_path / "s1.parquet", provenance=weights)
    with pytest.raises(ArchiveMismatchError, match="weights: aaaaaaaaaaaa and cccccccccccc"):
        import_archive([first / "s2.parquet", tmp_path / "s1.parquet"])
    fewer = {**told, "tiles": {"all": {"count": 5, "sha256": "d" * 64}}}
    with_record(first / "s1.parquet", tmp_path / "s1.parquet", provenance=fewer)
    with pytest.raises(
        ArchiveMismatchError, match=r"does not hold what it says it does, tiles of all: 20 .* where 5 .* is said"
    ):
        import_archive([tmp_path / "s1.parquet"])


def test_the_alignment_must_be_the_one_of_the_vectors(tmp_path):
    export = export_geoparquet(make_archive(20), tmp_path / "out")
    shutil.copy(export / "s1.parquet", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"alignment center .*put alignment\.safetensors of the export beside it"
    ):
        import_archive([tmp_path / "s1.parquet"])
    make_archive(20, seed=1).alignment.save(tmp_path / "alignment.safetensors")
    with pytest.raises(ArchiveMismatchError, match=r"alignment\.safetensors is another"):
        import_archive([tmp_path / "s1.parquet"])


PROVENANCE = make_archive(5, aligned=False).provenance.as_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "csmae-geoparquet version 2; this release reads"),
        ({"sensor": "../s1"}, "does not name its sensor and its ids"),
        ({"columns": [["number", "number", "int16"]]}, "does not name its sensor and its ids"),
        ({"columns": [["id", "id", "string"], ["nothing", "x", "int8"]]}, "lacks the column 'nothing'"),
        (
            {"columns": [["id", "id", "string"], ["number", "n", "int8"]]},
            "column 'n' has the type int16, and was written as int8",
        ),
        ({"provenance": {"made_with": 5}}, "does not say what the file holds"),
        ({"provenance": {}}, "does not say what the file holds"),
        ({"provenance": PROVENANCE | {"tiles": {"all": 5}}}, "does not say what the file holds"),
        ({"provenance": PROVENANCE | {"alignment_hash": 5}}, "does not say what the file holds"),
        ({"provenance": PROVENANCE | {"alignment": "bent"}}, "alignment 'bent'"),
        ({"provenance": PROVENANCE | {"made_with": PROVENANCE["made_with"] | {"metric": "l2"}}}, "metric 'l2'"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(tmp_path, changes, message):
    export = export_geoparquet(make_archive(5, aligned=False), tmp_path / "out", sensors=["s1"])
    with_record(export / "s1.parquet", tmp_path / "s1.parquet", **changes)
    with pytest.raises(ArchiveImportError, match=message):
        import_archive([tmp_path / "s1.parquet"])


def test_vectors_that_are_not_of_unit_length_are_no_archives(tmp_path):
    export = export_geoparquet(make_archive(5, aligned=False), tmp_path / "out", sensors=["s1"])
    table = pq.read_table(export / "s1.parquet")
    place = table.column_names.index("embedding")
    twice = pa.FixedSizeListArray.from_arrays(
        pa.array(2 * table.column(place).combine_chunks().flatten().to_numpy()), WIDTH
    )
    pq.write_table(table.set_column(place, table.schema.field(place), twice), tmp_path / "s1.parquet")
    with pytest.raises(ArchiveImportError, match="has the length 2; those of an archive have 1"):
        import_archive([tmp_path / "s1.parquet"])
