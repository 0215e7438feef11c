"""BigEarthNet-MM v1 to the layout of v2: the same pixels and labels, without the pickles."""

import csv
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from csmae_hf.bigearthnet import LABELS, METADATA_NAME, S1_BANDS, S2_BANDS, STORE_NAME
from csmae_hf.data import store_writer as archive_writer
from csmae_hf.data import transcode as transcode_module
from csmae_hf.data.codecs import decode_value, encode_safetensors
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.metadata import METADATA_SCHEMA, stand_in_key
from csmae_hf.data.store import TileStore
from csmae_hf.data.transcode import transcode
from csmae_hf.data.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
V1_LMDB = "BigEarthNetEncoded.lmdb"


@pytest.fixture(scope="module")
def v1(shared_data: Path) -> Path:
    return shared_data / "bigearthnet_mm_v1_lmdb"


@pytest.fixture(scope="module")
def transcoded(v1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("transcoded") / "archive"
    report = transcode(v1, out, workers=2)
    assert (report.written, report.present, report.failures) == (156, 0, [])
    return out


def test_every_pixel_and_all_that_was_known_stays(v1: Path, transcoded: Path) -> None:
    old, new = load_bigearthnet(v1), load_bigearthnet(transcoded)
    assert len(new) == 78
    assert TileStore(transcoded / STORE_NAME).format == "v2"
    plain = [name for name in old.column_names if name not in ("s1", "s2")]
    assert new.select_columns(plain)[:] == old.select_columns(plain)[:]
    for before, after in zip(old, new, strict=True):
        for sensor, bands in (("s1", S1_BANDS), ("s2", S2_BANDS)):
            for band in bands:
                assert after[sensor][band].dtype == before[sensor][band].dtype
                np.testing.assert_array_equal(after[sensor][band], before[sensor][band])


def test_labels_and_names_are_those_of_the_index(v1: Path, transcoded: Path) -> None:
    with (v1 / "manifest.csv").open(newline="") as lines:
        index = {row["s2_name"]: row for row in csv.DictReader(lines)}
    metadata = pq.read_table(transcoded / METADATA_NAME)
    assert metadata.schema.equals(METADATA_SCHEMA)
    rows = metadata.to_pylist()
    assert len(rows) == len(index) == 78
    for row in rows:
        expected = index[row["patch_id"]]
        assert row["s1_name"] == expected["s1_name"]
        assert row["labels"] == sorted(set(expected["labels_19"].split("; ")), key=LABELS.index)
        assert row["s2v1_name"] == row["patch_id"]
        assert row["country"] == expected["country"]
        assert (row["split"] or "").replace("validation", "val") == expected["official_split"]


def test_the_s1_value_of_a_tile_that_v2_holds_too_is_the_same_to_the_byte(shared_data: Path, transcoded: Path) -> None:
    key = "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57"
    rico = TileStore(shared_data / "bigearthnet_v2_reben_lmdb" / "BigEarthNet-V2-LMDB")
    assert TileStore(transcoded / STORE_NAME).read_bytes(key) == rico.read_bytes(key)


def test_without_a_table_the_s1_images_get_stated_keys_and_no_date(v1: Path, tmp_path: Path) -> None:
    shutil.copytree(v1 / V1_LMDB, tmp_path / "alone.lmdb")
    transcode(tmp_path / "alone.lmdb", tmp_path / "out", workers=0)
    data = load_bigearthnet(tmp_path / "out")
    assert len(data) == 78
    for row in data:
        assert row["s1_id"] == stand_in_key("s1", row["id"]) == "S1-of-" + row["id"].replace("_", "-")
        assert row["date_s1"] is None
        assert row["date_s2"] is not None
        assert row["labels"]
    assert data[0]["s1"]["VV"].shape == (120, 120)


def poisoned(v1: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """A copy of the v1 store with changed values."""
    shutil.copytree(v1 / V1_LMDB, folder)
    environment = lmdb.open(str(folder), map_size=1 << 28)
    with environment.begin(write=True) as transaction:
        for key, change in changes.items():
            transaction.put(key.encode(), change(bytes(transaction.get(key.encode()))))
    environment.close()
    return folder


def test_a_broken_value_is_reported_and_the_others_are_transcoded(v1: Path, tmp_path: Path) -> None:
    names = TileStore(v1 / V1_LMDB).keys()
    source = poisoned(
        v1, tmp_path / "v1.lmdb", {names[3]: lambda value: value[:1000], names[5]: lambda value: b"x" * 99}
    )
    report = transcode(source, tmp_path / "out", workers=0)
    assert [failure.key for failure in report.failures] == [names[3], names[5]]
    assert report.written == 152
    assert len(load_bigearthnet(tmp_path / "out")) == 76
    with (tmp_path / "out" / archive_writer.FAILURES_NAME).open(newline="") as lines:
        assert [row["key"] for row in csv.DictReader(lines)] == [names[3], names[5]]


def test_a_kill_doubles_nothing_and_the_resumed_archive_is_the_same(v1: Path, transcoded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    original = transcode_module._transcode_tile
    last = TileStore(v1 / V1_LMDB).keys()[60]

    def dying(store: TileStore, job: Any) -> Any:
        if job.key == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(store, job)

    def work() -> None:
        transcode_module._transcode_tile = dying
        transcode(v1, out, workers=0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / METADATA_NAME).exists()
    report = transcode(v1, out, workers=0)
    assert report.present >= 96  # three batches of 32
    assert report.written + report.present == 156
    ours, theirs = TileStore(out / STORE_NAME), TileStore(transcoded / STORE_NAME)
    assert {key: ours.read_bytes(key) for key in ours} == {key: theirs.read_bytes(key) for key in theirs}
    for name in (METADATA_NAME, archive_writer.VALUES_NAME):
        assert pq.read_table(out / name).equals(pq.read_table(transcoded / name))
    assert verify(out, workers=0).broken == {}


def test_values_are_safetensors_as_rico_hdl_writes_them(transcoded: Path) -> None:
    store = TileStore(transcoded / STORE_NAME)
    for key in store.keys()[::13]:
        value = store.read_bytes(key)
        assert encode_safetensors(decode_value(value, key)) == value
        assert len(value) in (115344, 160824, 160832)


def test_an_archive_of_v2_is_refused(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in the layout of v2 already"):
        transcode(shared_data / "bigearthnet_v2_reben_lmdb", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_s1_name_for_two_tiles_is_refused(v1: Path, tmp_path: Path) -> None:
    names = TileStore(v1 / V1_LMDB).keys()
    table = tmp_path / "names.csv"
    table.write_text("s2_name,s1_name,country\n" + "".join(f"{name},S1A_same,Austria\n" for name in names[:2]))
    with pytest.raises(ValueError, match="1 S1 names are of more than one tile, S1A_same"):
        transcode(v1, tmp_path / "out", metadata=[table])


def test_going_on_with_another_table_of_names_is_refused(v1: Path, transcoded: Path, tmp_path: Path) -> None:
    names = TileStore(v1 / V1_LMDB).keys()
    table = tmp_path / "names.csv"
    table.write_text("s2_name,s1_name,country\n" + "".join(f"{name},S1X_{name},Austria\n" for name in names))
    copy = shutil.copytree(transcoded, tmp_path / "copy")
    with pytest.raises(ValueError, match="begun with other tables"):
        transcode(v1, copy, metadata=[table], workers=0)
