"""Archives with an index: it follows the archive's changes, is stored with it, and says what it may miss."""

import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest
from archives import make_dataset, make_model, make_processor
from search.clouds import make_tiles, make_vectors

from csmae_hf.archive.archive import Archive
from csmae_hf.archive.folder import ArchiveCorruptError, publish, read_manifest
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.identity import Identity
from csmae_hf.hub.archives import for_publication
from csmae_hf.search import build_index as build
from csmae_hf.search import milvus_index

IDENTITY = Identity("someone/model", None, "w" * 64, "p" * 64)
ROWS = 2000


@pytest.fixture(autouse=True)
def few_queries(monkeypatch):
    monkeypatch.setattr(build, "SAMPLE", 40)


def make_archive(rows=ROWS):
    embeds = {sensor: make_vectors(rows, sensor).numpy() for sensor in ("s1", "s2")}
    return Archive.from_embeds(embeds, make_tiles(rows), IDENTITY)


@pytest.fixture
def archive():
    return make_archive()


@pytest.fixture
def uri(tmp_path):
    pytest.importorskip("pymilvus", reason="pip install pymilvus")
    pytest.importorskip("milvus_lite", reason="pip install milvus-lite")
    return str(tmp_path / "milvus.db")


def agreement(archive, exact, **options):
    asked = [f"tile {row}" for row in range(0, len(archive), 47)]
    ours, truth = (side.search(asked, sensor="s1", archive_sensor="s2", **options) for side in (archive, exact))
    return np.mean([len(set(mine) & set(best)) / len(best) for mine, best in zip(ours.ids, truth.ids, strict=True)])


def test_an_approximate_answer_says_so_and_its_recall_is_stored(archive, tmp_path):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    archive.use_index("faiss")
    hits = archive.search("tile 5", sensor="s1", archive_sensor="s2")
    assert not hits.exact
    assert hits.notes == ["Approximate: the faiss index may have missed nearer tiles."]
    narrow = archive.search("tile 5", sensor="s1", archive_sensor="s2", filter="country = 'Austria' and snow = true")
    assert narrow.exact, "a filter that keeps little is answered exactly"
    assert not narrow.notes
    loaded = Archive.load(archive.save(tmp_path / "archive"))
    assert loaded.recall == archive.recall
    directions = {(item.query_sensor, item.archive_sensor) for item in loaded.recall}
    assert directions == {("s1", "s1"), ("s1", "s2"), ("s2", "s1"), ("s2", "s2")}
    assert loaded.indexes["s2"].parameters == archive.indexes["s2"].parameters
    again = loaded.search("tile 5", sensor="s1", archive_sensor="s2")
    assert again.ids == hits.ids
    assert Archive.load(tmp_path / "archive", index=False).search("tile 5", sensor="s1", archive_sensor="s2").exact


def test_codes_are_kept_with_the_archive_follow_its_changes_and_damage_is_named(archive, tmp_path):
    exact = Archive(archive.tiles, archive.vectors, IDENTITY)
    archive.use_index("codes", kind="bits")
    assert agreement(archive, exact) >= 0.95
    assert not archive.search("tile 5", sensor="s1", archive_sensor="s2").exact
    folder = archive.save(tmp_path / "archive")
    archive.remove(["tile 7"])
    new = {sensor: make_vectors(1, sensor, seed=9).numpy() for sensor in ("s1", "s2")}
    archive.add_embeds(new, make_tiles(1).set_column(0, "id", pa.array(["new"])))
    archive.save(folder)
    loaded = Archive.load(folder)
    assert {index.backend for index in loaded.indexes.values()} == {"codes"}
    for side in (archive, loaded):
        hits = side.search(new["s2"], sensor="s2", k=3)
        assert (hits.ids[0][0], round(float(hits.scores[0, 0]), 5)) == ("new", 1)
        assert "tile 7" not in side.search("tile 5", sensor="s2", k=ROWS).ids[0]
    manifest = read_manifest(folder)
    indexes = [described["index"] for described in manifest["sensors"].values()]
    indexes[0]["file"], indexes[1]["file"] = indexes[1]["file"], indexes[0]["file"]
    publish(folder, manifest)
    with pytest.raises(ArchiveCorruptError, match=r"codes index of s1 cannot be opened: .* codes of other vectors"):
        Archive.load(folder)
    assert Archive.load(folder, index=False).search("tile 5", sensor="s2").exact
    path = folder / indexes[0]["file"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArchiveCorruptError, match="was cut short or changed"):
        Archive.load(folder)


def test_compressing_stores_what_it_measured_until_the_tiles_change(tmp_path):
    archive = make_archive(300)
    measured = archive.compress(measure=True)
    assert {index.backend for index in archive.indexes.values()} == {"exact"}
    loaded = Archive.load(archive.save(tmp_path / "archive"))
    assert loaded.compression == measured
    assert for_publication(loaded).compression == measured
    kinds = {row.kind for row in loaded.compress() if row.chosen}
    assert {index.parameters["kind"] for index in loaded.indexes.values()} == kinds
    assert len(loaded.recall) == 16
    again = Archive.load(loaded.save(tmp_path / "archive"))
    assert {index.backend for index in again.indexes.values()} == {"codes"}
    again.remove(["tile 7"])
    assert not again.compression
    assert not Archive.load(again.save(tmp_path / "archive")).compression


def test_the_index_follows_what_is_added_and_removed(tmp_path, uri):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    model, processor = make_model(), make_processor()
    dataset = make_dataset(130)
    for backend, options in [("faiss", {"effort": 100}), ("milvus", {"uri": uri})]:
        small = Archive.build(model, processor, dataset, sensor=["s1", "s2"])
        small.use_index(backend, **options)
        small.remove(["tile_0003", "tile_0004"])
        small.add(make_dataset(3, first=200, seed=5), progress=False)
        loaded = Archive.load(
            small.save(tmp_path / backend), model=model, processor=processor, uri=options.get("uri", "")
        )
        assert loaded.indexes["s2"].backend == backend
        for side in (small, loaded):
            hits = side.search(
                ["tile_0005", "tile_0202"], sensor="s2", k=131, filter="not country = 'nowhere'", include_self=True
            )
            assert {"tile_0003", "tile_0004"}.isdisjoint(hits.ids[0])
            assert [ids[0] for ids in hits.ids] == ["tile_0005", "tile_0202"]
    assert "token" not in (tmp_path / "milvus" / "archive.json").read_text()


def test_milvus_answers_as_exact_search_does_and_stays_home_when_the_archive_is_given_away(tmp_path, uri):
    archive = make_archive(500)
    exact = Archive(archive.tiles, archive.vectors, IDENTITY)
    archive.use_index("milvus", uri=uri)
    assert min(item.recall for item in archive.recall) >= 0.95
    for where in (None, "country = 'Austria' and labels = 'a'", "date < '2017-01-01T09:00:00'"):
        assert agreement(archive, exact, filter=where, k=5) >= 0.95
    given = for_publication(archive)
    assert [index.backend for index in given.indexes.values()] == ["exact", "exact"]
    assert not given.recall
    loaded = Archive.load(archive.save(tmp_path / "archive"), uri=uri)
    assert loaded.indexes["s2"].backend == "milvus"
    assert agreement(loaded, exact, k=5) >= 0.95


@pytest.mark.parametrize(
    "named", ["http://somebody.example:19530", "{outside}/theirs.db", "../theirs.db", "x+y://host/a.db"]
)
def test_opening_an_archive_connects_to_nothing_outside_its_folder(tmp_path, monkeypatch, caplog, named):
    folder = make_archive(100).save(tmp_path / "archive")
    manifest = read_manifest(folder)
    parameters = {"uri": named.format(outside=tmp_path), "collection": "theirs", "effort": 128}
    for described in manifest["sensors"].values():
        described["index"] = {"backend": "milvus", "parameters": parameters}
    publish(folder, manifest)
    asked = []

    def connect(uri, token=""):
        asked.append(uri)
        raise ConnectionError(f"No Milvus answers at {uri}")

    monkeypatch.setattr(milvus_index, "connect", connect)
    assert Archive.load(folder).indexes["s2"].backend == "exact"
    assert asked == []
    assert "CSMAE_MILVUS_URI" in caplog.text
    assert "uri=" in caplog.text
    Archive.load(folder, uri="http://mine:19530")
    monkeypatch.setenv("CSMAE_MILVUS_URI", "http://ours:19530")
    Archive.load(folder)
    assert asked == ["http://mine:19530"] * 2 + ["http://ours:19530"] * 2


def test_a_database_in_the_folder_is_opened_wherever_the_folder_is(tmp_path, uri):
    folder = make_archive(100).save(tmp_path / "archive")
    archive = Archive.load(folder)
    archive.use_index("milvus", uri=str(folder / "milvus.db"))
    archive.save(folder)
    loaded = Archive.load(shutil.copytree(folder, tmp_path / "copy"))
    assert loaded.indexes["s2"].backend == "milvus"
    assert loaded.search("tile 5", sensor="s2", include_self=True).ids[0][0] == "tile 5"


def test_a_collection_of_somebody_else_is_never_dropped(tmp_path, uri):
    theirs = milvus_index.connect(uri)
    theirs.create_collection("theirs", dimension=4)
    theirs.insert("theirs", [{"id": 1, "vector": [1.0, 0, 0, 0]}])
    archive = make_archive(100)
    archive.use_index("milvus", uri=uri, collection="theirs")
    assert archive.search("tile 5", sensor="s2", include_self=True).ids[0][0] == "tile 5"
    assert "theirs" not in {index.collection for index in archive.indexes.values()}
    assert theirs.query("theirs", filter="id == 1", output_fields=["id"])[0]["id"] == 1


def test_a_lost_faiss_package_costs_speed_and_nothing_else(archive, tmp_path, monkeypatch, caplog):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    archive.use_index("faiss", effort=20)
    archive.save(tmp_path / "archive")
    monkeypatch.setitem(sys.modules, "faiss", None)
    loaded = Archive.load(tmp_path / "archive")
    assert (
        "faiss index is not used, search is exact: The faiss index needs faiss-cpu: pip install 'faiss-cpu>=1.11'"
        in caplog.text
    )
    assert loaded.search("tile 5", sensor="s1", archive_sensor="s2").exact


def test_an_index_that_was_not_opened_stays_with_the_archive_until_it_changes(archive, tmp_path, monkeypatch, caplog):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    archive.use_index("faiss", effort=20)
    expected = archive.search("tile 5", sensor="s1", archive_sensor="s2")
    archive.save(tmp_path / "archive")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "faiss", None)
        lost = Archive.load(tmp_path / "archive")
        assert not for_publication(lost).recall, "what is given away is searched exactly"
        lost.save(tmp_path / "archive")
        lost.save(tmp_path / "copy")
    for folder in ("archive", "copy"):
        loaded = Archive.load(tmp_path / folder)
        assert {index.backend for index in loaded.indexes.values()} == {"faiss"}
        assert loaded.search("tile 5", sensor="s1", archive_sensor="s2").ids == expected.ids
        assert loaded.recall == archive.recall
    changed = Archive.load(tmp_path / "copy", index=False)
    changed.remove(["tile 7"])
    assert "faiss index of s2 is not in use, so it cannot follow the change and is forgotten" in caplog.text
    loaded = Archive.load(changed.save(tmp_path / "copy"))
    assert ({index.backend for index in loaded.indexes.values()}, loaded.recall) == ({"exact"}, [])


def test_an_alignment_is_applied_to_tiles_and_queries_and_goes_with_the_archive(tmp_path):
    model, processor = make_model(), make_processor()
    dataset = make_dataset(80)
    embeds = {sensor: embed_dataset(model, processor, dataset, sensor) for sensor in ("s1", "s2")}
    alignment = Alignment.fit({sensor: values[40:] for sensor, values in embeds.items()}, "procrustes")
    archive = Archive.build(model, processor, dataset, sensor=["s1", "s2"], alignment=alignment)
    archive.save(tmp_path / "archive")
    loaded = Archive.load(tmp_path / "archive", model=model, processor=processor)
    assert loaded.alignment.method == "procrustes"
    aligned = {sensor: alignment.apply(values, sensor).astype(np.float64) for sensor, values in embeds.items()}
    wanted = np.argsort(-(aligned["s1"][7] @ aligned["s2"].T), kind="stable")[:5]
    for query in (dataset[7]["s1"], embeds["s1"][7]):
        hits = loaded.search(query, sensor="s1", archive_sensor="s2", k=5)
        assert hits.ids == [[f"tile_{row:04d}" for row in wanted]]
    raw = Archive.build(model, processor, dataset, sensor=["s1", "s2"])
    plain = raw.search(dataset[7]["s1"], sensor="s1", archive_sensor="s2", k=5)
    assert plain.scores[0].tolist() != hits.scores[0].tolist()


def test_a_short_answer_of_an_index_says_so(archive, monkeypatch):
    """An index that loses results under a filter, as approximate ones do, is caught by the count of what the filter keeps."""
    index = archive.indexes["s2"]
    search = index.search

    def lossy(queries, k, selection=None):
        found = search(queries, k, selection)
        found.rows[:, 2:] = -1
        found.scores[:, 2:] = -np.inf
        return found._replace(exact=False)

    monkeypatch.setattr(index, "search", lossy)
    hits = archive.search("tile 5", sensor="s1", archive_sensor="s2", filter="country = 'Austria'")
    assert hits.notes[0].startswith(
        "The exact index found 1 tiles for a query where 399 or more could be found: raise its effort"
    )
    assert hits.notes[1].startswith("Approximate")
    assert len(hits.ids[0]) == 1


def test_an_archive_of_one_table_and_other_rows_is_refused():
    embeds = {"s2": make_vectors(5).numpy()}
    with pytest.raises(ValueError, match="an embed of each sensor for each tile"):
        Archive.from_embeds(embeds, pa.table({"id": ["a", "b"]}), IDENTITY)
