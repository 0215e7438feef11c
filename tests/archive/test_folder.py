"""An archive's folder under damage, crashes and other hands."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pyarrow as pa
import pytest
import torch

from csmae_hf.archive import folder as archive_files
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.folder import MANIFEST, ArchiveCorruptError, publish, read_manifest
from csmae_hf.embedding.identity import ArchiveMismatchError, Identity
from csmae_hf.files import LOCK_NAME

IDENTITY = Identity("someone/model", None, "w" * 64, "p" * 64)


def make_archive(seed=0, tiles=40, width=16):
    embeds = np.random.default_rng(seed).normal(size=(tiles, width)).astype(np.float32)
    table = pa.table({"id": [f"tile_{seed}_{row}" for row in range(tiles)], "number": list(range(tiles))})
    return Archive.from_embeds({"s2": embeds}, table, IDENTITY)


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def held(folder):
    """Its files, without the one that writers lock."""
    return [path for path in folder.iterdir() if path.name != LOCK_NAME]


@pytest.fixture
def folder(tmp_path):
    return make_archive().save(tmp_path / "archive")


@pytest.mark.parametrize("pattern", ["embeds-s2-*.safetensors", "tiles-*.parquet", MANIFEST])
def test_a_flipped_bit_anywhere_is_noticed(folder, pattern):
    path = only(folder, pattern)
    content = path.read_bytes()
    for place in {0, 7, len(content) // 2, len(content) - 1, *range(13, len(content), max(len(content) // 20, 1))}:
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        if pattern == MANIFEST and content[place : place + 1].isspace():
            continue  # it means nothing
        with pytest.raises(ArchiveCorruptError, match=path.name):
            Archive.load(folder)
    path.write_bytes(content)
    Archive.load(folder)


@pytest.mark.parametrize("pattern", ["embeds-s2-*.safetensors", "tiles-*.parquet"])
def test_a_file_that_is_cut_short_or_missing_is_named(folder, pattern):
    path = only(folder, pattern)
    content = path.read_bytes()
    for length in (0, 10, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ArchiveCorruptError, match=f"{path.name} has {length} bytes, not {len(content)}"):
            Archive.load(folder, verify=False)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks its file {path.name}"):
        Archive.load(folder)


def test_a_cut_manifest_another_version_and_no_archive_are_told_apart(folder, tmp_path):
    path = folder / MANIFEST
    content = path.read_text()
    path.write_text(content[: len(content) // 2])
    with pytest.raises(ArchiveCorruptError, match=r"archive\.json is broken"):
        Archive.load(folder)
    path.write_text(content.replace('"version": 3', '"version": 4'))
    with pytest.raises(
        ArchiveCorruptError, match="csmae-archive version 4; this release reads csmae-archive version 3 and older"
    ):
        Archive.load(folder)
    with pytest.raises(FileNotFoundError, match=r"No archive at .*csmae archive build"):
        Archive.load(tmp_path)


def test_another_metric_is_refused_by_name(tmp_path):
    archive = make_archive()
    archive.identity = Identity("someone/model", None, "w" * 64, "p" * 64, metric="euclidean")
    with pytest.raises(ArchiveMismatchError, match="by the metric 'euclidean'; this release by 'cosine'"):
        Archive.load(archive.save(tmp_path / "archive"))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds thesis\.tex"):
        make_archive().save(tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        make_archive().save(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_archive_is_replaced_only_on_request(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = make_archive(seed=1, tiles=3)
    with pytest.raises(FileExistsError, match=r"holds an archive of 40 tiles.*csmae archive add.*--overwrite"):
        other.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    other.save(folder, overwrite=True)
    other.remove(["tile_1_0"])
    other.save(folder)
    assert len(Archive.load(folder)) == 2
    assert {path.name for path in held(folder)} == {MANIFEST, *read_manifest(folder)["files"]}


def test_an_archive_that_another_changed_since_it_was_opened_is_not_replaced(folder, tmp_path):
    first, second = Archive.load(folder), Archive.load(folder)
    first.remove(["tile_0_3"])
    first.save(folder)
    first.save(tmp_path / "copy")
    second.remove(["tile_0_4"])
    with pytest.raises(FileExistsError, match="holds an archive of 39 tiles"):
        second.save(folder)
    with pytest.raises(FileExistsError, match="holds an archive of 39 tiles"):
        Archive.load(folder).save(tmp_path / "copy")


def test_overwrite_never_takes_what_is_of_no_archive(tmp_path):
    for name in ("thesis.tex", MANIFEST):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text('{"years": "of work"}')
        with pytest.raises(FileExistsError, match=f"{name}.*of no archive"):
            make_archive().save(folder, overwrite=True)
        assert [path.name for path in folder.iterdir()] == [name]


def test_an_archive_that_names_files_outside_its_folder_is_refused(folder, tmp_path):
    manifest = read_manifest(folder)
    table = manifest["segments"][0]["tiles"]
    (tmp_path / "elsewhere.parquet").write_bytes((folder / table).read_bytes())
    manifest["segments"][0]["tiles"] = "../elsewhere.parquet"
    manifest["files"]["../elsewhere.parquet"] = manifest["files"][table]
    publish(folder, manifest)
    with pytest.raises(ArchiveCorruptError, match=r"names the file '\.\./elsewhere\.parquet'"):
        Archive.load(folder)


def test_a_change_writes_what_changed_and_leaves_nothing_behind(folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    Archive.load(folder).save(folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != MANIFEST} == {
        name: time for name, time in before.items() if name != MANIFEST
    }
    archive = Archive.load(folder)
    archive.remove(["tile_0_3"])
    archive.save(folder)
    assert sorted(path.name for path in held(folder)) == sorted([MANIFEST, *read_manifest(folder)["files"]])
    assert len(Archive.load(folder)) == 39


def test_an_open_archive_outlives_its_replacement(folder):
    old = Archive.load(folder)
    expected = make_archive().vectors["s2"][:]
    make_archive(seed=1).save(folder, overwrite=True)
    torch.testing.assert_close(old.vectors["s2"][:], expected, rtol=0, atol=0)
    assert Archive.load(folder).ids[0] == "tile_1_0"


def save_for_ever(folder, saved):
    torch.set_num_threads(1)  # a fork has none of its parent's threads, and would wait for them
    archives = [make_archive(seed, tiles=400, width=256) for seed in (1, 0)]
    while True:
        for archive in archives:
            archive.stored.parts.clear()
            archive.save(folder, overwrite=True)
            saved.value += 1


def wait_for(saved, count):
    end = time.monotonic() + 60
    while saved.value < count:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_kill_at_any_moment_leaves_one_archive_or_the_other(tmp_path):
    folder = make_archive(0, tiles=400, width=256).save(tmp_path / "archive")
    whole = {seed: make_archive(seed, tiles=400, width=256) for seed in (0, 1)}
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(0)
    seen, strays = set(), 0
    for number in range(25):
        saved = context.Value("i", 0)
        process = context.Process(target=save_for_ever, args=(folder, saved))
        process.start()
        wait_for(saved, number % 3)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        strays += len(held(folder)) > 3
        archive = Archive.load(folder)
        seed = int(archive.ids[0].split("_")[1])
        seen.add(seed)
        assert archive.ids == whole[seed].ids
        torch.testing.assert_close(archive.vectors["s2"][:], whole[seed].vectors["s2"][:], rtol=0, atol=0)
    assert seen == {0, 1}
    assert strays, "no kill came in the midst of a write; the test shows nothing"
    whole[0].save(folder, overwrite=True)
    assert len(held(folder)) == 3, "the next save clears up"


def test_a_first_save_that_was_killed_can_be_repeated(folder):
    (folder / MANIFEST).unlink()
    (folder / ".writing-abc123").write_bytes(b"half")
    make_archive(1).save(folder)
    assert Archive.load(folder).ids[0] == "tile_1_0"
    assert len(held(folder)) == 3


def test_readers_never_see_a_half_while_another_process_saves(tmp_path):
    folder = make_archive(0, tiles=400, width=256).save(tmp_path / "archive")
    context = multiprocessing.get_context("fork")
    saved = context.Value("i", 0)
    process = context.Process(target=save_for_ever, args=(folder, saved))
    process.start()
    try:
        wait_for(saved, 1)
        end = time.monotonic() + 1.5
        read = 0
        while time.monotonic() < end or read < 6:
            assert len({name.split("_")[1] for name in Archive.load(folder).ids}) == 1
            read += 1
    finally:
        process.kill()
        process.join()


def test_a_file_that_was_gone_for_a_moment_is_missing_not_damaged(tmp_path, monkeypatch):
    """Another process that saves one archive and then the other takes a file away and puts it back."""
    folder = make_archive(0).save(tmp_path / "archive")
    (embeds,) = folder.glob("embeds-*.safetensors")

    def gone(path, **options):
        raise RuntimeError(f"unable to open file <{path}> in read-only mode: No such file or directory (2)")

    monkeypatch.setattr(archive_files, "safe_open", gone)
    with pytest.raises(FileNotFoundError):
        archive_files.read_vectors(embeds)
