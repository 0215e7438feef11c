"""The LMDB of tiles: reading from any process, and writing in one piece."""

import multiprocessing
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest

from csmae_hf.data.cache import store_identity
from csmae_hf.data.codecs import MAX_VALUE_BYTES, CorruptTileError, encode_safetensors
from csmae_hf.data.dataset import find_store
from csmae_hf.data.store import DATA_FILE, StoreError, TileNotFoundError, TileStore, put_batch, write_store
from csmae_hf.data.verify import verify


def tile(number: int) -> dict[str, np.ndarray]:
    """A seeded S1 tile."""
    rng = np.random.default_rng(number)
    return {band: rng.normal(-12, 5, (120, 120)).astype(np.float32) for band in ("VH", "VV")}


def items(count: int) -> Iterator[tuple[str, bytes]]:
    return ((f"tile_{number}", encode_safetensors(tile(number))) for number in range(count))


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    write_store(tmp_path / "store", items(12))
    return tmp_path / "store"


def same(found: dict[str, np.ndarray], number: int) -> bool:
    expected = tile(number)
    return found.keys() == expected.keys() and all(np.array_equal(found[band], expected[band]) for band in expected)


# Writing


def test_what_is_written_is_what_plain_lmdb_reads(store_path: Path) -> None:
    with lmdb.open(str(store_path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        found = [(key.decode(), value) for key, value in transaction.cursor()]
    assert found == sorted(items(12))


def test_the_store_is_one_folder_and_nothing_else_remains(store_path: Path) -> None:
    assert os.listdir(store_path.parent) == ["store"]
    assert os.listdir(store_path) == [DATA_FILE]


def test_writing_counts_and_makes_missing_parents(tmp_path: Path) -> None:
    assert write_store(tmp_path / "a" / "b" / "store", items(3), total=3) == 3
    assert len(TileStore(tmp_path / "a" / "b" / "store")) == 3


def test_a_store_grows_past_its_first_map(tmp_path: Path) -> None:
    value = bytes(MAX_VALUE_BYTES)
    assert write_store(tmp_path / "store", ((f"{n:03d}", value) for n in reversed(range(150)))) == 150
    store = TileStore(tmp_path / "store")
    assert store.keys() == [f"{n:03d}" for n in range(150)]
    assert store.read_bytes("149") == value


def test_nothing_is_overwritten(store_path: Path, tmp_path: Path) -> None:
    before = (store_path / DATA_FILE).read_bytes()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (store_path, tmp_path / "file", tmp_path / "link"):
        with pytest.raises(FileExistsError, match=path.name):
            write_store(path, items(1))
    assert (store_path / DATA_FILE).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "store"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([("tile_1", b"again")], "'tile_1' was given twice"),
        ([("", b"value")], "511"),
        ([("k" * 512, b"value")], "511"),
        ([("empty", b"")], "'empty' has 0 bytes"),
        ([("large", bytes(MAX_VALUE_BYTES + 1))], "'large'"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(
    tmp_path: Path, extra: list[tuple[str, bytes]], message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        write_store(tmp_path / "store", [*items(3), *extra])
    assert os.listdir(tmp_path) == []


def test_no_items_make_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing to write"):
        write_store(tmp_path / "store", [])
    assert os.listdir(tmp_path) == []


def test_a_failure_midway_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[str, bytes]]:
        yield from items(3)
        assert not (tmp_path / "store").exists()  # it appears only when complete
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_store(tmp_path / "store", failing())
    assert os.listdir(tmp_path) == []


# Reading


def test_tiles_are_read_by_key(store_path: Path) -> None:
    store = TileStore(store_path)
    assert len(store) == 12
    assert store.keys() == sorted(f"tile_{number}" for number in range(12))
    assert store.format == "v2"
    assert all(same(store.read(f"tile_{number}"), number) for number in range(12))
    assert list(store.read("tile_3", ["VV"])) == ["VV"]
    assert store.read_bytes("tile_3") == encode_safetensors(tile(3))
    assert store.read_labels("tile_3") is None


def test_membership(store_path: Path) -> None:
    store = TileStore(store_path)
    assert "tile_3" in store
    assert "tile_99" not in store
    assert "" not in store
    assert 3 not in store


@pytest.mark.parametrize("key", ["tile_99", "", "k" * 600])
def test_a_key_that_is_not_there_is_named_with_its_store(store_path: Path, key: str) -> None:
    store = TileStore(store_path)
    assert key not in store
    for read in (store.read, store.read_bytes, store.read_labels):
        with pytest.raises(TileNotFoundError) as caught:
            read(key)
        assert isinstance(caught.value, KeyError)
        assert str(caught.value).startswith(f"No tile {key!r} in {store_path}.")


def test_a_broken_value_is_named(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [*items(2), ("tile_x", b"garbage")])
    with pytest.raises(CorruptTileError, match="tile_x"):
        TileStore(tmp_path / "store").read("tile_x")


def test_reference_maps_do_not_decide_the_format(tmp_path: Path) -> None:
    land_cover = encode_safetensors({"Data": np.full((120, 120), 311, np.uint16)})
    write_store(tmp_path / "store", [("a_reference_map", land_cover), *items(1)])
    store = TileStore(tmp_path / "store")
    assert store.format == "v2"
    assert store.read("a_reference_map")["Data"].max() == 311
    write_store(tmp_path / "maps", [("a_reference_map", land_cover)])
    with pytest.raises(StoreError, match="reference maps only"):
        _ = TileStore(tmp_path / "maps").format


def test_a_missing_folder_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'nowhere'}.*{DATA_FILE}"):
        TileStore(tmp_path / "nowhere")


def test_a_folder_that_is_no_lmdb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"no LMDB.*{DATA_FILE}"):
        len(TileStore(tmp_path))
    (tmp_path / DATA_FILE).write_bytes(b"something else entirely" * 1000)
    with pytest.raises(StoreError, match="no LMDB"):
        len(TileStore(tmp_path))


def test_an_empty_lmdb_is_refused(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "empty")) as environment, environment.begin(write=True):
        pass
    for _ in range(2):  # the refusal leaves nothing open
        with pytest.raises(StoreError, match="empty"):
            TileStore(tmp_path / "empty").keys()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_store_cut_short_is_refused_and_does_not_kill_the_process(store_path: Path, share: float) -> None:
    data = store_path / DATA_FILE
    os.truncate(data, int(share * data.stat().st_size))
    with pytest.raises(StoreError, match=str(store_path)):
        len(TileStore(store_path))


def test_nothing_is_opened_before_the_first_read(store_path: Path) -> None:
    store = TileStore(store_path)
    (store_path / DATA_FILE).unlink()
    with pytest.raises(StoreError, match=DATA_FILE):
        store.keys()


def test_reading_writes_nothing_to_the_folder(store_path: Path) -> None:
    before = (store_path / DATA_FILE).read_bytes()
    TileStore(store_path).read("tile_1")
    assert os.listdir(store_path) == [DATA_FILE]
    assert (store_path / DATA_FILE).read_bytes() == before


def test_stores_of_one_folder_share_one_environment_however_it_is_named(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(store_path)
    stores = [
        TileStore(path) for path in (store_path, str(store_path), tmp_path / "alias", store_path / ".." / "store")
    ]
    assert all(same(store.read("tile_5"), 5) for store in stores)
    assert len({id(store._open()) for store in stores}) == 1


def test_a_store_replaced_by_another_is_read_anew(store_path: Path) -> None:
    assert len(TileStore(store_path)) == 12
    shutil.rmtree(store_path)
    write_store(store_path, items(5))
    assert len(TileStore(store_path)) == 5


def test_many_threads_may_open_at_once(store_path: Path) -> None:
    results: list[bool] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        barrier.wait()
        results.append(same(TileStore(store_path).read(f"tile_{number}"), number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


# Other processes


def test_a_pickled_store_carries_no_environment(store_path: Path) -> None:
    store = TileStore(store_path)
    store.read("tile_1")
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 1000
    assert copy._environment is None
    assert same(copy.read("tile_7"), 7)


def in_child(work: Callable[[], bool]) -> bool:
    """Run something in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_store_open_before_a_fork_is_opened_anew_in_the_child(store_path: Path) -> None:
    store, other = TileStore(store_path), TileStore(store_path)
    environment = store._open()

    def grandchild() -> bool:
        return same(store.read("tile_4"), 4)

    def child() -> bool:
        fresh = store._open() is not environment and other._open() is store._open()
        return fresh and same(store.read("tile_2"), 2) and in_child(grandchild) and same(other.read("tile_3"), 3)

    assert in_child(child)
    assert in_child(child)
    assert store._open() is environment
    assert same(store.read("tile_6"), 6)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_read_through_the_same_store(store_path: Path, method: str) -> None:
    store = TileStore(store_path)
    store.read("tile_0")
    keys = [f"tile_{number}" for number in range(12)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        tiles = pool.map(store.read, keys)
    assert all(same(bands, number) for number, bands in enumerate(tiles))


# Real archives


def test_every_real_tile_is_read(shared_data: Path) -> None:
    v1 = TileStore(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")
    v2 = TileStore(shared_data / "bigearthnet_v2_reben_lmdb" / "BigEarthNet-V2-LMDB")
    assert (v1.format, len(v1)) == ("v1", 78)
    assert (v2.format, len(v2)) == ("v2", 64)
    assert {len(v1.read(key)) for key in v1} == {14}
    assert sorted(len(v2.read(key)) for key in v2) == [2] * 32 + [12] * 32


def test_a_tile_in_both_archives_has_the_same_s1_pixels(shared_data: Path) -> None:
    v1 = TileStore(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")
    v2 = TileStore(shared_data / "bigearthnet_v2_reben_lmdb" / "BigEarthNet-V2-LMDB")
    old = v1.read("S2A_MSIL2A_20170613T101031_26_57")
    new = v2.read("S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57")
    for band in ("VH", "VV"):
        assert old[band].tobytes() == new[band].tobytes()
    redone = v2.read("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57")["B02"]
    assert np.corrcoef(old["B02"].ravel(), redone.ravel())[0, 1] > 0.999


def test_rico_hdls_own_store_and_reference_map_are_read(shared_data: Path) -> None:
    store = TileStore(shared_data / "rico_hdl_reben_tiffs" / "BigEarthNet_LMDB")
    assert store.format == "v2"
    maps = [key for key in store if key.endswith("_reference_map")]
    for key in store:
        assert ("Data" in store.read(key)) == (key in maps)


# One file, another environment, another store at the same place


@pytest.mark.parametrize("name", ["tiles.lmdb", "tiles.mdb", "tiles"])
def test_a_store_written_as_one_file_is_read(tmp_path: Path, name: str) -> None:
    with lmdb.open(str(tmp_path / name), subdir=False, map_size=1 << 26) as environment:
        put_batch(environment, [(key.encode(), value) for key, value in items(3)])
    store = TileStore(tmp_path / name)
    assert store.format == "v2"
    assert all(same(store.read(f"tile_{number}"), number) for number in range(3))
    assert find_store(tmp_path) == find_store(tmp_path / name) == tmp_path / name
    assert store_identity(tmp_path / name).startswith(name)
    assert verify(tmp_path / name).values == 3


def test_a_file_that_is_no_lmdb_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.lmdb").write_text("no store")
    with pytest.raises(FileNotFoundError, match=r"No LMDB .*notes\.lmdb: expected a folder that holds data\.mdb, or"):
        TileStore(tmp_path / "notes.lmdb")


@pytest.mark.parametrize("lock", [False, True])
def test_a_store_open_elsewhere_in_the_process_is_called_that(store_path: Path, lock: bool) -> None:
    other = lmdb.open(str(store_path), readonly=True, lock=lock)
    with pytest.raises(StoreError, match=r"open in this process already.*not damaged: close that environment"):
        TileStore(store_path).keys()
    other.close()
    assert len(TileStore(store_path).keys()) == 12


@pytest.mark.parametrize("how", ["folder", "file", "in place"])
def test_a_store_that_was_open_is_read_anew_when_another_takes_its_place(
    store_path: Path, tmp_path: Path, how: str
) -> None:
    store = TileStore(store_path)
    assert (store.format, len(store)) == ("v2", 12)
    write_store(tmp_path / "new", ((f"other_{number}", encode_safetensors(tile(number))) for number in range(40)))
    if how == "folder":
        shutil.rmtree(store_path)
        os.rename(tmp_path / "new", store_path)
    elif how == "file":
        os.replace(tmp_path / "new" / DATA_FILE, store_path / DATA_FILE)
    else:
        shutil.copyfile(tmp_path / "new" / DATA_FILE, store_path / DATA_FILE)
    assert len(store) == len(TileStore(store_path)) == 40
    assert same(store.read("other_33"), 33)
    assert "tile_1" not in store


@pytest.mark.parametrize("as_file", [False, True])
def test_a_file_of_data_that_is_replaced_beside_its_lock_file_is_read_anew(tmp_path: Path, as_file: bool) -> None:
    """Other writers leave a lock file beside the data, which stays when the data are copied anew."""
    path, new = tmp_path / "store", tmp_path / "new"
    for number, folder in ((3, path), (7, new)):
        with lmdb.open(str(folder), subdir=not as_file, map_size=1 << 26) as environment:
            put_batch(environment, [(f"tile_{number}".encode(), encode_safetensors(tile(number)))])
    data, new_data = (folder if as_file else folder / DATA_FILE for folder in (path, new))
    assert len(list(tmp_path.rglob("*lock*"))) == 2
    store = TileStore(path)
    assert store.keys() == ["tile_3"]
    os.replace(new_data, data)
    assert store.keys() == TileStore(path).keys() == ["tile_7"]
    assert same(store.read("tile_7"), 7)
