"""One test for every index, against exact search; and exact search against numpy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from search.conformance import check_all, check_filters, check_recall, make_parts

from csmae_hf.search import build_index as build
from csmae_hf.search.build_index import INDEXES, build_index, open_index
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.faiss_index import FaissIndex, number_of_lists
from csmae_hf.search.index import ArchiveIndex
from csmae_hf.search.milvus_index import MilvusIndex, connect
from csmae_hf.search.recall import bucket_filter
from csmae_hf.search.vectors import Vectors

ROWS = 6000
MILVUS_ROWS = 800
SERVER = Path(__file__).with_name("milvus_server.py")
CHECKS = Path(__file__).with_name("conformance.py")


@pytest.fixture(scope="module")
def parts():
    return make_parts(ROWS)


def test_exact_search_is_numpy_in_every_precision(parts):
    vectors, tiles = parts
    queries = vectors["s1"][:30]
    for share in (1, 0.2, 0.001):
        selection = bucket_filter(share, tiles)
        rows = np.arange(ROWS) if selection is None else selection.rows
        scores = queries.numpy().astype(np.float64) @ vectors["s2"].numpy()[rows].T.astype(np.float64)
        order = np.argsort(-scores.astype(np.float32), axis=1, kind="stable")[:, :10]
        for precision in ("float32", "float16", "bfloat16"):
            index = ExactIndex(Vectors([vectors["s2"][:100], vectors["s2"][100:]]), precision=precision)
            found = index.search(queries, 10, selection)
            count = min(10, len(rows))
            np.testing.assert_array_equal(found.rows[:, :count], rows[order], err_msg=f"{share} {precision}")
            np.testing.assert_allclose(found.scores[:, :count], np.take_along_axis(scores, order, 1), atol=1e-6)
            assert found.exact


def test_exact_search_conforms():
    check_all(ExactIndex(Vectors([make_parts(400)[0]["s2"]])), 400)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_faiss_conforms_through_its_planner_and_without_it(kind, parts, tmp_path):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    vectors, tiles = parts
    sides = {sensor: Vectors([rows]) for sensor, rows in vectors.items()}
    index, recall = build_index("faiss", "s2", sides, tiles, kind=kind)
    assert {(item.query_sensor, item.archive_sensor) for item in recall} == {("s1", "s2"), ("s2", "s2")}
    assert {item.share for item in recall} == {1.0, 0.2, 0.02, 0.001}
    assert all(item.recall >= 0.95 for item in recall)
    index.parameters["exact_below"] = 0
    exact = ExactIndex(sides["s2"])
    check_recall(index, exact, vectors, tiles)
    wide = bucket_filter(0.2, tiles)
    assert not index.search(vectors["s1"][:1], 10, wide).exact
    index.parameters["exact_below"] = len(wide.rows)
    assert index.search(vectors["s1"][:1], 10, wide).exact, "a filter that keeps little is answered exactly"
    entry = index.write(tmp_path, "s2")
    described = {"backend": "faiss", "parameters": index.parameters, "file": entry.name}
    opened = open_index(described, tmp_path, sides["s2"], tiles)
    np.testing.assert_array_equal(opened.search(vectors["s1"][:9], 10).rows, index.search(vectors["s1"][:9], 10).rows)
    check_all(index, ROWS)


def test_faiss_keeps_a_small_part_of_the_vectors(parts):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    import faiss

    codes = len(faiss.serialize_index(FaissIndex(Vectors([parts[0]["s2"]])).index))
    assert codes < 0.25 * parts[0]["s2"].numel() * 4, "1 bit a value, and what a list costs at this small width"
    assert [number_of_lists(rows) for rows in (1, 100, 6000, 100_000, 1_000_000)] == [1, 2, 153, 1024, 4096]


def test_an_index_that_cannot_reach_its_recall_says_so(parts):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    vectors, tiles = parts
    noise = torch.nn.functional.normalize(torch.randn(ROWS, 64, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(
        ValueError, match=r"finds \d+% of the exact results at most, 95% are wanted: raise candidates \(now 1\)"
    ):
        build_index("faiss", "s2", {"s2": Vectors([noise])}, tiles, candidates=1)
    with pytest.raises(ValueError, match=r"The faiss index does not take these options: .*'lists'"):
        build_index("faiss", "s2", {"s2": Vectors([vectors["s2"]])}, tiles, lists=3)
    with pytest.raises(ValueError, match="Unknown kind of faiss index 'pq'"):
        build_index("faiss", "s2", {"s2": Vectors([vectors["s2"]])}, tiles, kind="pq")
    with pytest.raises(ValueError, match=f"Unknown index 'sql': expected one of {', '.join(INDEXES)}"):
        build_index("sql", "s2", {"s2": Vectors([vectors["s2"]])}, tiles)


class OwnIndex(ArchiveIndex):
    """Of somebody who knows nothing but the interface."""

    backend = "own"

    def __init__(self, vectors, effort=1):
        self.exact, self.parameters = ExactIndex(vectors), {"effort": effort}

    def tune(self, recall, sensor):
        assert (recall(), sensor) == (1.0, "s2")
        self.parameters["effort"] = 3

    def add(self, vectors, tiles):
        return OwnIndex(vectors)

    def remove(self, vectors, rows):
        return OwnIndex(vectors)

    def search(self, queries, k, selection=None):
        return self.exact.search(queries, k, selection)


def test_a_further_index_is_a_class_and_its_entry(parts, tmp_path, monkeypatch):
    monkeypatch.setitem(INDEXES, "own", OwnIndex)
    vectors, tiles = parts
    sides = {sensor: Vectors([rows]) for sensor, rows in vectors.items()}
    index, recall = build_index("own", "s2", sides, tiles)
    assert len(recall) == 8
    assert {item.recall for item in recall} == {1.0}
    assert index.write(tmp_path, "s2") is None
    opened = open_index({"backend": "own", "parameters": index.parameters}, tmp_path, sides["s2"], tiles)
    assert (type(opened), opened.parameters) == (OwnIndex, {"effort": 3})
    assert build_index("own", "s2", sides, tiles, effort=2)[0].parameters == {"effort": 2}


def needs_milvus():
    pytest.importorskip("pymilvus", reason="pip install pymilvus")
    pytest.importorskip("milvus_lite", reason="pip install milvus-lite")


def test_embedded_milvus_conforms(tmp_path, monkeypatch):
    needs_milvus()
    monkeypatch.setattr(build, "SAMPLE", 30)
    vectors, tiles = make_parts(MILVUS_ROWS)
    sides = {sensor: Vectors([rows]) for sensor, rows in vectors.items()}
    uri = str(tmp_path / "milvus.db")
    index, recall = build_index("milvus", "s2", sides, tiles, uri=uri)
    assert len(recall) == 8
    assert all(item.recall >= 0.95 for item in recall)
    described = {"backend": "milvus", "parameters": index.parameters}
    opened = open_index(described, tmp_path, sides["s2"], tiles)
    assert opened.collection == index.collection
    exact = ExactIndex(sides["s2"])
    check_filters(opened, exact, vectors["s1"][:4], tiles)
    check_all(index, MILVUS_ROWS)
    other = MilvusIndex(Vectors([vectors["s1"]]), tiles, uri, collection=index.collection)
    found = other.search(vectors["s1"][:5], 1)
    assert found.rows[:, 0].tolist() == [0, 1, 2, 3, 4], "a collection of other vectors is made again"
    other.client.close()


def test_milvus_that_is_not_there_is_named_and_replaced_by_exact_search(parts, tmp_path, caplog):
    needs_milvus()
    vectors, tiles = parts
    with pytest.raises(ValueError, match=r"user and password.*pass them as a token"):
        connect("http://root:secret@localhost:19530")
    with pytest.raises(ValueError, match="neither a URI"):
        connect("somewhere")
    described = {"backend": "milvus", "parameters": {"uri": "http://127.0.0.1:9", "collection": "x", "effort": 128}}
    index = open_index(described, tmp_path, Vectors([vectors["s2"]]), tiles, uri="http://127.0.0.1:9")
    assert index.backend == "exact"
    assert "No Milvus answers at http://127.0.0.1:9" in caplog.text


def server_python():
    """Python of the environment that holds the server's wheel; `make milvus` makes it."""
    wanted = os.environ.get("CSMAE_MILVUS_PYTHON", str(Path(__file__).parents[2] / ".venv-milvus/bin/python"))
    if not Path(wanted).exists():
        pytest.skip("no Milvus server here: `make milvus` installs its wheel into .venv-milvus")
    namespace = ["unshare", "--net", "--map-root-user", "true"]
    if shutil.which("unshare") is None or subprocess.run(namespace, capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here, and the Milvus server would listen to the whole network")
    return wanted


@pytest.mark.slow
def test_a_milvus_server_conforms(tmp_path):
    needs_milvus()
    command = [sys.executable, str(CHECKS), "milvus", "--rows", str(MILVUS_ROWS)]
    result = subprocess.run(
        ["unshare", "--net", "--map-root-user", server_python(), str(SERVER), str(tmp_path), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    assert "server v2.3.5" in result.stdout
