"""What is broken in a store, told by key."""

import multiprocessing
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest

from csmae_hf.bigearthnet import BAND_SIZE, S1_BANDS, S2_BANDS, STORE_NAME
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.store import DATA_FILE, TileStore, write_store
from csmae_hf.data.store_writer import StoreWriter, make_record, metadata_table
from csmae_hf.data.verify import verify


def value(seed: int, bands: tuple[str, ...] = S1_BANDS) -> bytes:
    rng = np.random.default_rng(seed)
    return encode_safetensors(
        {
            band: rng.normal(-12, 5, (BAND_SIZE[band],) * 2).astype("<f4")
            if band in S1_BANDS
            else rng.integers(1, 9999, (BAND_SIZE[band],) * 2, dtype="<u2")
            for band in bands
        }
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of 20 values with their digests."""
    with StoreWriter(tmp_path / "archive") as writer:
        for number in range(20):
            made = value(number, S2_BANDS if number % 2 else S1_BANDS)
            writer.add(make_record(f"tile_{number:02d}", made), made)
        writer.finish(metadata_table([]))
    return tmp_path / "archive"


def change(archive: Path, key: str, new: bytes | None) -> None:
    environment = lmdb.open(str(archive / STORE_NAME), map_size=1 << 28, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.delete(key.encode()) if new is None else transaction.put(key.encode(), new)
    environment.close()


def test_a_whole_archive_is_whole(archive: Path) -> None:
    assert verify(archive, workers=2)[1:] == (20, 20, {})
    assert verify(archive / STORE_NAME, workers=0)[1:] == (20, 20, {})


def test_every_kind_of_damage_is_told_by_its_key(archive: Path) -> None:
    changed = bytearray(value(3, S2_BANDS))
    changed[50_000] ^= 1  # a pixel: still a whole tile
    change(archive, "tile_03", bytes(changed))
    change(archive, "tile_05", b"no tile")
    change(archive, "tile_07", None)
    change(archive, "tile_21", value(21))
    report = verify(archive, workers=2)
    assert list(report.broken) == ["tile_03", "tile_05", "tile_21", "tile_07"]
    assert "SHA-256 differs" in report.broken["tile_03"]
    assert "SHA-256 differs" in report.broken["tile_05"]
    assert "is gone" in report.broken["tile_07"]
    assert "not listed" in report.broken["tile_21"]


def test_without_digests_what_is_no_tile_is_still_found(tmp_path: Path) -> None:
    items = [(f"tile_{n}", value(n) if n != 4 else value(n)[:-100]) for n in range(8)]
    write_store(tmp_path / "store", items)
    report = verify(tmp_path / "store", workers=0)
    assert (report.values, report.digests) == (8, 0)
    assert list(report.broken) == ["tile_4"]
    assert "'tile_4'" in report.broken["tile_4"]


@pytest.mark.parametrize("store", ["bigearthnet_mm_v1_lmdb", "bigearthnet_v2_reben_lmdb"])
def test_the_real_stores_are_whole(shared_data: Path, store: str) -> None:
    report = verify(shared_data / store, workers=2)
    assert report.values == {"bigearthnet_mm_v1_lmdb": 78, "bigearthnet_v2_reben_lmdb": 64}[store]
    assert report.broken == {}


def test_labels_that_are_no_labels_are_found_in_v1(shared_data: Path, tmp_path: Path) -> None:
    real = TileStore(shared_data / "bigearthnet_mm_v1_lmdb" / "BigEarthNetEncoded.lmdb")
    first, second = real.keys()[:2]
    spoilt = real.read_bytes(first).replace(b"Marine waters", b"Marine wateRs")
    assert spoilt != real.read_bytes(first)
    write_store(tmp_path / "store", [(first, spoilt), (second, real.read_bytes(second))])
    assert list(verify(tmp_path / "store", workers=0).broken) == [first]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_damaged_pages_never_end_the_process_that_verifies(archive: Path, tmp_path: Path) -> None:
    """Random bytes anywhere in the file, in one process that verifies many copies: a report or one clear error, each time."""
    data = (archive / STORE_NAME / DATA_FILE).read_bytes()
    rng = np.random.default_rng(0)
    pages = np.arange(len(data) // 4096)
    for number in range(5):
        copy = shutil.copytree(archive, tmp_path / f"copy{number}")
        damaged = bytearray(data)
        # the last pages hold the tree, which is what ends processes; the first two hold the meta data
        for page in (*rng.choice(pages[2:], 2), *rng.choice(pages[-3:], 1)):
            start = int(page) * 4096 + int(rng.integers(4000))
            damaged[start : start + 64] = rng.bytes(64)
        (copy / STORE_NAME / DATA_FILE).write_bytes(bytes(damaged))
    outcomes = tmp_path / "outcomes"

    def work() -> None:
        for number in range(5):
            with outcomes.open("a") as lines:
                try:
                    report = verify(tmp_path / f"copy{number}", workers=1)
                    lines.write("broken\n" if report.broken else "whole\n")
                except ValueError as error:
                    lines.write(f"error: {str(error)[:100]!r}\n")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(250)
    assert process.exitcode == 0
    told = outcomes.read_text().splitlines()
    assert len(told) == 5
    assert "whole" not in told
