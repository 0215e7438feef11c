"""GeoTIFFs to an archive: what is stored, and that no kill, full disk or broken file loses or doubles anything."""

import bz2
import csv
import functools
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from tiff_files import RICO_EXAMPLES, V1_EXAMPLES, link_v1_tiles, random_band, read_tiff, rico_pair, write_tiff

from csmae_hf.bigearthnet import LABELS, LABELS_43_TO_19, METADATA_NAME, S1_BANDS, S2_BANDS, STORE_NAME
from csmae_hf.data import encode as encode_module
from csmae_hf.data import store_writer as archive_writer
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.encode import encode
from csmae_hf.data.metadata import acquisition_time, stand_in_key
from csmae_hf.data.store import StoreError, TileStore
from csmae_hf.data.tiles import load_tiles
from csmae_hf.data.verify import verify
from csmae_hf.search.places import footprint_columns

pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

PAIRS = 70
RICO_S1, RICO_S2 = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_70_48", "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43"


def stored(folder: Path) -> dict[str, bytes]:
    """All values of an archive, read from a copy, so that this process holds nothing open that another writes to."""
    copy = folder.with_name(f"{folder.name}.copy{time.monotonic_ns()}")
    shutil.copytree(folder / STORE_NAME, copy)
    store = TileStore(copy)
    return {key: store.read_bytes(key) for key in store}


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / name).to_pylist()


@pytest.fixture(scope="module")
def many(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 pairs in the layout of BigEarthNet v1, of the pixels of 6 real ones."""
    return link_v1_tiles(shared_data / V1_EXAMPLES, tmp_path_factory.mktemp("many"), PAIRS)


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes of them without interruption."""
    out = tmp_path_factory.mktemp("whole") / "archive"
    report = encode(many, out, workers=0)
    assert (report.written, report.present, report.failures) == (2 * PAIRS, 0, [])
    return out


# What is stored


def test_the_store_is_byte_for_byte_rico_hdls(shared_data: Path, tmp_path: Path) -> None:
    encode(shared_data / RICO_EXAMPLES, tmp_path / "out", workers=0)
    ours = stored(tmp_path / "out")
    theirs = TileStore(shared_data / RICO_EXAMPLES / "BigEarthNet_LMDB")
    assert {key: ours[key] for key in theirs} == {key: theirs.read_bytes(key) for key in theirs}
    (map_key,) = ours.keys() - set(theirs)  # rico-hdl encodes reference maps too; its test did not
    with (
        lmdb.open(str(tmp_path / "out" / STORE_NAME), readonly=True) as environment,
        environment.begin() as transaction,
    ):
        plain = safetensors.numpy.load(transaction.get(RICO_S1.encode()))  # as rico-hdl's users read it
    assert {name: (array.dtype, array.shape) for name, array in plain.items()} == dict.fromkeys(
        S1_BANDS, ("f4", (120, 120))
    )
    store = TileStore(tmp_path / "out" / STORE_NAME)
    (map_file,) = (shared_data / RICO_EXAMPLES).rglob("*_reference_map.tif")
    assert map_key == map_file.stem
    np.testing.assert_array_equal(store.read(map_key)["Data"], read_tiff(map_file))


def test_tiff_to_archive_to_reader_is_the_tiff_read_directly(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / V1_EXAMPLES
    encode(root, tmp_path / "out", workers=2)
    archive, direct = load_bigearthnet(tmp_path / "out"), load_tiles(root)
    assert archive.column_names == direct.column_names
    plain = [name for name in archive.column_names if name not in ("s1", "s2")]
    assert archive.select_columns(plain)[:] == direct.select_columns(plain)[:]
    for tile, straight in zip(archive, direct, strict=True):
        for sensor, bands in (("s1", S1_BANDS), ("s2", S2_BANDS)):
            name = tile["s1_id" if sensor == "s1" else "id"]
            folder = root / f"BigEarthNet-{sensor.upper()}-Example" / name
            assert list(tile[sensor]) == list(straight[sensor]) == list(bands)
            for band in bands:
                expected = read_tiff(folder / f"{name}_{band}.tif")
                for array in (tile[sensor][band], straight[sensor][band]):
                    assert array.dtype == expected.dtype
                    np.testing.assert_array_equal(array, expected)


def test_the_archive_says_all_that_is_known_and_a_digest_and_a_place_of_each_value(whole: Path) -> None:
    data = load_bigearthnet(whole)
    assert len(data) == PAIRS
    row = data[0]
    assert row["labels"]
    assert row["s1_id"] == row["id"].replace("S2A_MSIL2A_20170613T101031", "S1A_IW_GRDH_1SDV_20170613T165043_33UUP")
    values = table(whole, archive_writer.VALUES_NAME)
    assert [value["key"] for value in values] == sorted(stored(whole))
    assert all(value["crs"].startswith("EPSG:326") and value["right"] - value["left"] == 1200 for value in values)
    places = footprint_columns(data)
    assert [place.as_py() for place in next(zip(*places.values(), strict=True))] == [
        next(value for value in values if value["key"] == row["id"])[name]
        for name in ("crs", "left", "bottom", "right", "top")
    ]
    assert verify(whole, workers=0)[1:] == (2 * PAIRS, 2 * PAIRS, {})
    assert sorted(path.name for path in whole.iterdir()) == [
        ".lock",
        STORE_NAME,
        METADATA_NAME,
        archive_writer.VALUES_NAME,
    ]


def test_v2_metadata_is_kept_as_it_is(shared_data: Path, tmp_path: Path) -> None:
    rows = pq.read_table(shared_data / "reben_metadata" / "metadata.parquet", filters=[("s1_name", "==", RICO_S1)])
    rows = rows.set_column(0, "patch_id", pa.array([RICO_S2]))  # so that the two images of the example make a pair
    pq.write_table(rows, tmp_path / "metadata.parquet")
    pair = rico_pair(shared_data / RICO_EXAMPLES, tmp_path / "pair")
    encode(pair, tmp_path / "out", metadata=tmp_path / "metadata.parquet", workers=0)
    assert table(tmp_path / "out", METADATA_NAME) == rows.to_pylist()
    (row,) = load_bigearthnet(tmp_path / "out")
    assert (row["id"], row["s1_id"]) == (RICO_S2, RICO_S1)


def test_splits_and_countries_of_v1_come_from_its_lists(shared_data: Path, tmp_path: Path) -> None:
    names = {path.name for path in (shared_data / V1_EXAMPLES / "BigEarthNet-S2-Example").iterdir()}
    lists = tmp_path / "lists"
    lists.mkdir()
    for split in (
        "train",
        "val",
        "test",
    ):  # the official lists without the half million other tiles, which take seconds
        with bz2.open(shared_data / "bigearthnet_v1_official_splits" / f"{split}.csv.bz2", "rt", newline="") as lines:
            (lists / f"{split}.csv").write_text("".join(line for line in lines if line.strip().split(",")[0] in names))
    encode(shared_data / V1_EXAMPLES, tmp_path / "out", splits=lists, workers=0)
    with (shared_data / V1_EXAMPLES / "manifest.csv").open(newline="") as lines:
        known = {row["s2_name"]: (row["country"], row["official_split"] or None) for row in csv.DictReader(lines)}
    data = load_bigearthnet(tmp_path / "out")
    assert {row["id"]: (row["country"], row["split"]) for row in data} == known
    assert len(load_bigearthnet(tmp_path / "out", "train")) == sum(split == "train" for _, split in known.values())


def test_a_table_of_paths_is_encoded_and_images_without_a_name_of_their_own_get_a_stated_key(tmp_path: Path) -> None:
    rows = [{"id": f"tile_{n}", **{band: f"{band}_{n}.tif" for band in (*S1_BANDS, *S2_BANDS)}} for n in range(2)]
    for number, row in enumerate(rows):
        for band in (*S1_BANDS, *S2_BANDS):
            write_tiff(tmp_path / row[band], [random_band(band, number)])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tiles.parquet")
    encode(tmp_path / "tiles.parquet", tmp_path / "out", workers=0)
    assert sorted(stored(tmp_path / "out")) == ["S1-of-tile-0", "S1-of-tile-1", "tile_0", "tile_1"]
    for number, row in enumerate(load_bigearthnet(tmp_path / "out")):
        assert row["s1_id"] == f"S1-of-tile-{number}"
        for sensor in ("s1", "s2"):
            for band, array in row[sensor].items():
                np.testing.assert_array_equal(array, random_band(band, number))


def test_no_date_is_read_out_of_a_made_up_s1_key() -> None:
    name = "S2A_MSIL2A_20170613T101031_0_45"
    assert acquisition_time(name) is not None
    assert acquisition_time(stand_in_key("s1", name)) is None


def test_sentinel_1_alone_makes_an_archive(shared_data: Path, tmp_path: Path) -> None:
    encode(shared_data / V1_EXAMPLES / "BigEarthNet-S1-Example", tmp_path / "out", workers=0)
    data = load_bigearthnet(tmp_path / "out")
    folders = {path.name: path for path in (shared_data / V1_EXAMPLES / "BigEarthNet-S1-Example").iterdir()}
    assert list(data["id"]) == list(data["s1_id"]) == sorted(folders)
    assert "s2" not in data.column_names
    for row in data:
        moment = datetime.strptime(row["id"].split("_")[4], "%Y%m%dT%H%M%S")
        assert (row["date_s1"], row["date_s2"], row["season"]) == (moment, None, None)
        said = json.loads((folders[row["id"]] / f"{row['id']}_labels_metadata.json").read_text())["labels"]
        known = {LABELS_43_TO_19.get(name, name) for name in said} - {None}
        assert {LABELS[number] for number in row["labels"] or ()} == known
        assert list(row["s1"]) == list(S1_BANDS)
        for band, array in row["s1"].items():
            np.testing.assert_array_equal(array, read_tiff(folders[row["id"]] / f"{row['id']}_{band}.tif"))


# Interruptions


def in_a_process(work: Callable[[], Any]) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def encode_and_count(many: Path, out: Path, log: Path) -> None:
    """Encode in this process, noting every image that is encoded."""
    original = encode_module._encode_image

    def noting(root: str, job: Any) -> Any:
        with log.open("a") as lines:
            lines.write(f"{job.key}\n")
        return original(root, job)

    encode_module._encode_image = noting
    encode(many, out, workers=0)


def test_kills_at_any_moment_lose_a_batch_at_most_and_double_nothing(many: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encoded: list[str] = []
    kept: set[str] = set()
    killed = 0
    for attempt, quota in enumerate(
        (61, 35, 50, 12, 20, 1000)
    ):  # images until the kill: before, between and after batches of 32
        log = tmp_path / f"log{attempt}"
        process = in_a_process(functools.partial(encode_and_count, many, out, log))
        while process.is_alive() and not (log.exists() and log.read_bytes().count(b"\n") >= quota):
            time.sleep(0.01)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        now = log.read_text().split() if log.exists() else []
        assert not kept & set(now), "an image that was stored was encoded again"
        encoded += now
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        assert not (out / METADATA_NAME).exists(), "half an archive must not pass for a whole one"
        kept = set(stored(out)) if (out / STORE_NAME / "data.mdb").exists() else set()
        expected = stored(whole)
        assert all(value == expected[key] for key, value in (stored(out) if kept else {}).items())
    assert killed >= 3
    assert process.exitcode == 0
    assert 2 * PAIRS <= len(encoded) <= 2 * PAIRS + killed * archive_writer._BATCH_VALUES
    assert stored(out) == stored(whole)
    for name in (METADATA_NAME, archive_writer.VALUES_NAME):
        assert table(out, name) == table(whole, name)
    assert verify(out, workers=0).broken == {}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists the workers by /proc")
def test_the_command_is_killed_with_its_workers_goes_on_and_reports_a_broken_file(
    many: Path, whole: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(many, source, symlinks=True)
    broken = next(source.rglob("*_B05.tif"))
    real = os.readlink(broken)
    broken.unlink()
    broken.write_bytes(Path(real).read_bytes()[:500])
    command = [sys.executable, "-m", "csmae_hf.commands.main", "encode", str(source), str(out), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    data = out / STORE_NAME / "data.mdb"
    while process.poll() is None and not (data.exists() and data.stat().st_size > 5_000_000):
        time.sleep(0.01)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert len(workers) == 2
    before = len(stored(out))
    assert 0 < before < 2 * PAIRS - 1

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert f"{2 * PAIRS - 1 - before} images encoded, {before} were there already" in again.stdout
    assert f"{broken} cannot be read" in again.stderr
    assert "1 could not be encoded: see" in again.stderr
    assert "image/s" in again.stderr  # the progress bar
    with (out / archive_writer.FAILURES_NAME).open(newline="") as lines:
        (failure,) = csv.DictReader(lines)
    assert failure["key"] == broken.parent.name
    assert "B05" in failure["reason"]
    copy = shutil.copytree(out, tmp_path / "copy")  # so that this process holds nothing open that others write to
    assert len(load_bigearthnet(copy)) == PAIRS - 1  # its S1 image is stored, and waits
    deadline = time.monotonic() + 100
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers), "workers outlive the killed command"

    broken.unlink()
    broken.symlink_to(real)
    assert encode(source, out, workers=0).written == 1
    assert stored(out) == stored(whole)
    assert table(out, METADATA_NAME) == table(whole, METADATA_NAME)
    assert not (out / archive_writer.FAILURES_NAME).exists()


def test_a_worker_that_dies_is_said_and_what_was_stored_stays(many: Path, tmp_path: Path, monkeypatch: Any) -> None:
    original = encode_module._encode_image
    victim = sorted(path.name for path in many.glob("BigEarthNet-S1/*"))[60]

    def dying(root: str, job: Any) -> Any:
        if job.key == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(root, job)

    monkeypatch.setattr(encode_module, "_encode_image", dying)
    with pytest.raises(StoreError, match="run the same command again"):
        encode(many, tmp_path / "out", workers=2)
    monkeypatch.setattr(encode_module, "_encode_image", original)
    report = encode(many, tmp_path / "out", workers=0)
    assert report.present >= 32
    assert report.written + report.present == 2 * PAIRS
    assert verify(tmp_path / "out", workers=0).broken == {}


@pytest.fixture(params=["tmpfs", "file size limit"])
def cramped(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A place that holds 10 MB; what makes it so in the process that writes; what gives it room."""
    folder = tmp_path / "cramped"
    folder.mkdir()
    if request.param == "file size limit":
        yield (
            folder,
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, resource.RLIM_INFINITY)),
            lambda: None,
        )
        return
    mount = shutil.which("mount")
    options = "size=10m"
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    yield folder, lambda: None, lambda: subprocess.run([mount, "-o", "remount,size=100m", folder], check=True) and None
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_loses_nothing_and_the_same_command_goes_on(
    many: Path, whole: Path, tmp_path: Path, cramped: tuple[Path, Callable[[], None], Callable[[], None]]
) -> None:
    folder, constrict, widen = cramped
    out, message = folder / "out", tmp_path / "message"

    def work() -> None:
        constrict()
        try:
            encode(many, out, workers=0)
        except StoreError as error:
            message.write_text(str(error))

    in_a_process(work).join()
    assert "Free some space, and run the same command again" in message.read_text()
    assert not (out / METADATA_NAME).exists()
    widen()
    before = tmp_path / "before"
    shutil.copytree(out, before)
    kept = stored(before)
    expected = stored(whole)
    assert 0 < len(kept) < len(expected)
    assert f"{len(kept)} images are stored and stay" in message.read_text()
    assert all(value == expected[key] for key, value in kept.items())
    report = encode(many, out, workers=0)
    assert (report.written, report.present) == (len(expected) - len(kept), len(kept))
    assert verify(out, workers=0)[1:] == (len(expected), len(expected), {})


def test_running_it_again_does_nothing_and_new_tiles_are_added(shared_data: Path, tmp_path: Path) -> None:
    source, out = link_v1_tiles(shared_data / V1_EXAMPLES, tmp_path / "source", 3), tmp_path / "out"
    assert encode(source, out, workers=0).written == 6
    first = (out / METADATA_NAME).read_bytes()
    again = encode(source, out, workers=0)
    assert (again.written, again.present) == (0, 6)
    assert (out / METADATA_NAME).read_bytes() == first
    link_v1_tiles(shared_data / V1_EXAMPLES, tmp_path / "more", 5)
    more = encode(tmp_path / "more", out, workers=0)
    assert (more.written, more.present) == (4, 6)
    assert len(load_bigearthnet(out)) == 5


def test_a_value_without_a_record_is_written_again(shared_data: Path, tmp_path: Path) -> None:
    source, out = link_v1_tiles(shared_data / V1_EXAMPLES, tmp_path / "source", 3), tmp_path / "out"
    encode(source, out, workers=0)
    (out / archive_writer.VALUES_NAME).unlink()
    (out / "values.journal").write_text('["S1A_IW_GRDH_1SDV_20170613T165043_33UUP_0_0", 115344, "not fini')
    assert encode(source, out, workers=0).written == 6
    assert verify(out, workers=0)[1:] == (6, 6, {})


# Refusals


def test_nothing_is_written_into_a_folder_of_something_else(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds something else"):
        encode(shared_data / V1_EXAMPLES, tmp_path / "out", workers=0)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_the_archive_of_another_source_is_refused(shared_data: Path, tmp_path: Path) -> None:
    encode(shared_data / RICO_EXAMPLES, tmp_path / "out", workers=0)
    with pytest.raises(ValueError, match=r"holds 3 images that .* lacks"):
        encode(shared_data / V1_EXAMPLES, tmp_path / "out", workers=0)
    assert verify(tmp_path / "out", workers=0)[1:] == (3, 3, {})


def test_two_processes_do_not_write_one_archive(shared_data: Path, tmp_path: Path) -> None:
    with (
        archive_writer.StoreWriter(tmp_path / "out"),
        pytest.raises(StoreError, match="Another process is writing"),
    ):
        encode(shared_data / V1_EXAMPLES, tmp_path / "out", workers=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: next(folder.rglob("*_B09.tif")).unlink(), "it has the bands .* most images here have .*B09"),
        (
            lambda folder: replace(next(folder.rglob("*_B02.tif")), random_band("B05")),
            r"the pixels of B02 are 20 x 20 m",
        ),
        (
            lambda folder: replace(next(folder.rglob("*_B02.tif")), random_band("B02")),
            "show different ground",
        ),
        (
            lambda folder: [
                replace(path, random_band(path.stem[-3:]) + np.float32(0.5)) for path in folder.rglob("*_0_2_B*.tif")
            ],
            r"B\d. is float32",
        ),
        (lambda folder: replace(next(folder.rglob("*_VV.tif")), random_band("VV").astype("i2")), "holds amplitude"),
        (lambda folder: replace(next(folder.rglob("*_VV.tif")), None), "cannot be read"),
    ],
)
def test_an_image_that_is_not_bigearthnets_is_reported_and_the_others_are_stored(
    shared_data: Path, tmp_path: Path, change: Callable[[Path], Any], reason: str
) -> None:
    source = link_v1_tiles(shared_data / V1_EXAMPLES, tmp_path / "source", 4)
    change(source)
    report = encode(source, tmp_path / "out", workers=0)
    (failure,) = report.failures
    assert report.written == 7
    assert failure.key in failure.path
    assert re.search(reason, failure.reason)
    assert len(load_bigearthnet(tmp_path / "out")) == 3


def test_a_broken_json_is_reported_and_its_tile_waits_for_a_whole_one(shared_data: Path, tmp_path: Path) -> None:
    source, out = link_v1_tiles(shared_data / V1_EXAMPLES, tmp_path / "source", 3), tmp_path / "out"
    broken = sorted(source.glob("BigEarthNet-S2/*/*.json"))[1]
    content = broken.read_text()
    broken.write_text(content[:40])
    report = encode(source, out, workers=0)
    assert [(failure.key, failure.path) for failure in report.failures] == [(broken.parent.name, str(broken))]
    assert report.written == 5
    assert len(pq.read_table(out / METADATA_NAME)) == 2
    broken.write_text(content)
    assert encode(source, out, workers=0)[1:] == (1, 5, [])
    assert len(load_bigearthnet(out)) == 3


def test_an_unfinished_addition_is_verified_with_the_digests_it_has(shared_data: Path, tmp_path: Path) -> None:
    link_v1_tiles(shared_data / V1_EXAMPLES, tmp_path / "few", 2)
    link_v1_tiles(shared_data / V1_EXAMPLES, tmp_path / "more", 4)
    out = tmp_path / "out"
    encode(tmp_path / "few", out, workers=0)
    journalled = table(out, archive_writer.VALUES_NAME)
    full = tmp_path / "full"
    encode(tmp_path / "more", full, workers=0)
    values = stored(full)
    (added,) = [record for record in table(full, archive_writer.VALUES_NAME) if record["key"].endswith("0_3")][:1]
    with archive_writer.StoreWriter(out) as writer:  # ended without finish, as by a kill
        writer.begin()
        writer.add(archive_writer.ValueRecord(**added), values[added["key"]])
    assert verify(out, workers=0)[1:] == (len(journalled) + 1, len(journalled) + 1, {})


def replace(path: Path, array: np.ndarray | None) -> None:
    path.unlink()
    if array is None:
        path.write_bytes(b"not a TIFF at all")
    else:
        write_tiff(path, [array])


def test_two_images_that_would_share_a_key_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "tiles.csv"
    table.write_text("id,s1_id,VV,B02\na,b,a_VV.tif,a_B02.tif\nb,,,b_B02.tif\n")
    with pytest.raises(ValueError, match="key in common, 'b'"):
        encode(table, tmp_path / "out", workers=0)


def test_all_images_of_a_mixed_folder_that_carry_the_offset_are_named(shared_data: Path, tmp_path: Path) -> None:
    names = []
    for number, image in enumerate(sorted((shared_data / V1_EXAMPLES / "BigEarthNet-S2-Example").iterdir())):
        for path in image.glob("*_B*.tif"):
            pixels = read_tiff(path) + np.uint16(1000 if number % 2 else 0)
            band = path.stem.rpartition("_")[2]
            write_tiff(tmp_path / "mixed" / f"site{number}_{band}.tif", [pixels])
        names.append(f"site{number}")
    carrying = names[1::2]
    with pytest.raises(ValueError, match=rf"^{len(carrying)} of {len(names)} images look wrong") as caught:
        encode(tmp_path / "mixed", tmp_path / "out", workers=0)
    assert f"({', '.join(carrying)})" in str(caught.value)
    rules = [f"dn+1000 of {name}" for name in carrying]
    assert encode(tmp_path / "mixed", tmp_path / "out", workers=0, units={"s2": rules}).failures == []
