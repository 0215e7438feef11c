"""Files and folders appear whole or not at all, whatever ends the process that writes them."""

import hashlib
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from warm import Warm

from csmae_hf.files import TEMPORARY, staged_folder, write_atomically, write_file

OLD, NEW = b"old" * 400_000, b"new" * 400_000

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from csmae_hf.files import write_atomically
path, contents = Path(sys.argv[1]), [b"old" * 400_000, b"new" * 400_000]
while True:
    for content in contents:
        write_atomically(path, lambda stream: [stream.write(content[at : at + 4096]) for at in range(0, len(content), 4096)])
        print(flush=True)
"""


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY))


def age(path: Path) -> None:
    """Make a file or folder two days old."""
    for item in (*path.rglob("*"), path):
        os.utime(item, (time.time() - 48 * 3600,) * 2)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_killed_writer_leaves_the_old_or_the_new_and_nothing_for_ever(tmp_path: Path, warm: Warm) -> None:
    path, pipe = tmp_path / "folder" / "file", tmp_path / "pipe"
    os.mkfifo(pipe)
    strays: set[str] = set()
    for number in range(12):
        process = warm.start(["-c", WRITE_FOR_EVER, str(path)], stdout=pipe)
        with pipe.open() as written:
            written.readline()  # it has written once
            time.sleep(0.0017 * number)
            process.send_signal(signal.SIGKILL)
            assert process.wait().returncode == -signal.SIGKILL
        assert path.read_bytes() in (OLD, NEW)
        strays.update(left_in(path.parent))
    assert strays, "no kill came in the midst of a write; the test shows nothing"
    write_atomically(path, b"last")
    assert left_in(path.parent) == sorted(strays), "what may be another process's work is left alone"
    for name in strays:
        age(path.parent / name)
    write_atomically(path, b"last")
    assert [item.name for item in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    with pytest.raises(type(error)):
        write_file(tmp_path, "file", ".bin", fail)
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"]


def test_a_name_holds_the_hash_of_what_was_written_in_parts(tmp_path: Path) -> None:
    entry = write_file(tmp_path, "part", ".bin", lambda stream: [stream.write(b"ab"), stream.write(memoryview(b"c"))])
    digest = hashlib.sha256(b"abc").hexdigest()
    assert entry == (f"part-{digest[:12]}.bin", digest, 3)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(entry.name, b"abc")]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
@pytest.mark.usefixtures("umask")
def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "text")
    entry = write_file(tmp_path, "part", ".bin", "text")
    with staged_folder(tmp_path / "folder"):
        pass
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", entry.name, "folder")}
    assert modes == {"file": 0o640, entry.name: 0o640, "folder": 0o750}


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot flush a folder")
def test_content_is_on_disk_before_its_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen(descriptor: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("rename"), replace(*names)))
    write_atomically(tmp_path / "file", "text")
    assert calls == ["file", "rename", "folder"]


def test_a_folder_appears_when_it_is_filled_and_takes_no_other_place(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "new" / "folder") as folder:
        (folder / "file").write_text("whole")
        assert not (tmp_path / "new" / "folder").exists()
    assert (tmp_path / "new" / "folder" / "file").read_text() == "whole"
    with pytest.raises(FileExistsError, match="exists already"), staged_folder(tmp_path / "new"):
        pass
    with pytest.raises(FileExistsError, match="exists already"), staged_folder(tmp_path / "late") as folder:
        (tmp_path / "late").write_text("somebody else's")
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "failed"):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late", "new"]


def test_an_abandoned_folder_is_removed_by_its_newest_file(tmp_path: Path) -> None:
    for name in ("alive", "dead"):
        (tmp_path / f"{TEMPORARY}{name}" / "inner").mkdir(parents=True)
        (tmp_path / f"{TEMPORARY}{name}" / "inner" / "data").write_text("half")
        age(tmp_path / f"{TEMPORARY}{name}")
    os.utime(tmp_path / f"{TEMPORARY}alive" / "inner" / "data")
    write_atomically(tmp_path / "file", "text")
    assert left_in(tmp_path) == [f"{TEMPORARY}alive"]
