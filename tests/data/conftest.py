"""Small archives, the reads counted, and a cache of its own for every test."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from small_archives import write_archive

from csmae_hf.data.cache import CACHE_VARIABLE
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.store import TileStore, write_store


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, in place of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v2 archive of six tiles."""
    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def data(archive: Path) -> datasets.Dataset:
    """The archive, loaded."""
    return load_bigearthnet(archive)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the values read in this process, as they are read."""
    keys: list[str] = []
    original = TileStore._value

    def value(self: TileStore, transaction: Any, key: str) -> Any:
        keys.append(key)
        return original(self, transaction, key)

    monkeypatch.setattr(TileStore, "_value", value)
    return keys


@pytest.fixture(scope="module")
def v1_values(shared_data: Path) -> dict[str, bytes]:
    """Six real v1 values."""
    store = TileStore(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")
    return {key: store.read_bytes(key) for key in store.keys()[:6]}


@pytest.fixture
def v1_store(v1_values: dict[str, bytes], tmp_path: Path) -> Path:
    """A v1 store of them, without tables or lists."""
    write_store(tmp_path / "v1.lmdb", v1_values.items())
    return tmp_path / "v1.lmdb"
