"""Labels of v1 values: read once, remembered, and never taken from another store."""

import multiprocessing
import shutil
from pathlib import Path

import pytest

from csmae_hf.data import v1_labels as labels
from csmae_hf.data.cache import store_identity
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.store import TileStore, write_store


@pytest.fixture(autouse=True)
def remember_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "REMEMBERED_FROM", 1)


def test_labels_are_read_once(v1_store: Path, reads: list[str], cache: Path) -> None:
    first = load_bigearthnet(v1_store)["labels"][:]
    assert len(reads) == 6 + 2  # and one tile of each sensor, to see its bands
    reads.clear()
    assert load_bigearthnet(v1_store)["labels"][:] == first
    assert len(reads) == 2
    assert len(list((cache / "labels").iterdir())) == 1


def test_what_is_remembered_grows(v1_store: Path, reads: list[str]) -> None:
    store, keys = TileStore(v1_store), TileStore(v1_store).keys()
    part = labels.read_v1_labels(store, keys[:2])
    assert labels.read_v1_labels(store, keys)[:2] == part
    assert reads == keys


def test_a_changed_store_is_read_anew(v1_values: dict[str, bytes], tmp_path: Path) -> None:
    names = list(v1_values)
    swapped = {names[0]: v1_values[names[1]], names[1]: v1_values[names[0]]}
    write_store(tmp_path / "lmdb", [(name, v1_values[name]) for name in names[:2]])
    before = labels.read_v1_labels(TileStore(tmp_path / "lmdb"), names[:2])
    identity = store_identity(tmp_path / "lmdb")
    shutil.rmtree(tmp_path / "lmdb")
    write_store(tmp_path / "lmdb", swapped.items())
    assert store_identity(tmp_path / "lmdb") != identity
    assert labels.read_v1_labels(TileStore(tmp_path / "lmdb"), names[:2]) == before[::-1]


@pytest.mark.parametrize("damage", ["text", "folder", "nowhere to write"])
def test_a_cache_that_cannot_be_used_costs_time_only(
    v1_store: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    expected = load_bigearthnet(v1_store)["labels"][:]
    (file,) = (cache / "labels").iterdir()
    if damage == "text":
        file.write_text("no parquet")
    else:
        file.unlink()
        file.mkdir()
    if damage == "nowhere to write":
        (cache / "file").write_text("")
        monkeypatch.setenv("CSMAE_CACHE", str(cache / "file"))
    assert load_bigearthnet(v1_store)["labels"][:] == expected
    assert "again" in caplog.text


def remember_and_forget(path: Path) -> None:
    store = TileStore(path)
    keys = store.keys()
    expected = [labels.numbers_of([store.read_labels(key)], labels.LABELS)[0] for key in keys]
    for _ in range(50):
        assert labels.read_v1_labels(store, keys) == expected
        for file in (labels.cache_folder() / "labels").glob("*.parquet"):
            file.unlink(missing_ok=True)


def test_several_processes_may_remember_at_once(v1_store: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=remember_and_forget, args=(v1_store,)) for _ in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0, 0]
    assert not list((cache / "labels").glob(".*")), "no half-written file is left"
