"""Archives of segments: what a change writes, what survives an end at any moment, and one answer however tiles are dealt out."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from datetime import time as clock
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from archive.old_layout import write_as_version

import csmae_hf.archive.segments as segments_module
from csmae_hf.archive import folder as folder_module
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.folder import MANIFEST, ArchiveCorruptError, publish, read_manifest
from csmae_hf.archive.segments import Segment, settled
from csmae_hf.embedding.identity import ArchiveMismatchError, Identity
from csmae_hf.embedding.provenance import tile_sets
from csmae_hf.files import LOCK_NAME
from csmae_hf.search.vectors import Vectors

IDENTITY = Identity("someone/model", None, "w" * 64, "p" * 64)
WIDTH = 8
PACKAGE = str(Path(folder_module.__file__).parents[1])


def parts_of(names, salt=0):
    """Embeds and metadata of tiles; another salt gives others of the same ids."""
    rng = np.random.default_rng([salt, *map(ord, "".join(names))])
    embeds = {sensor: rng.normal(size=(len(names), WIDTH)).astype(np.float32) for sensor in ("s1", "s2")}
    return embeds, pa.table({"id": names, "number": rng.integers(0, 9, len(names)), "text": [f"{n}!" for n in names]})


def make(names, salt=0):
    return Archive.from_embeds(*parts_of(names, salt), IDENTITY)


def named(first, last):
    return [f"tile {number}" for number in range(first, last)]


def sum_of(tiles):
    """What is recorded of the tiles of an archive, or of ids, and follows every change."""
    sets = tiles.provenance.tiles if isinstance(tiles, Archive) else tile_sets(tiles)
    return {split: (held["count"], held["sum"]) for split, held in sets.items()}


def files_of(folder):
    return {path.name: path.stat() for path in folder.iterdir() if path.name != LOCK_NAME}


def written(before, after):
    """Bytes of files that are new, but for the manifest."""
    return sum(stat.st_size for name, stat in after.items() if name not in before and name != MANIFEST)


def content(archive):
    """All that an archive holds, to be compared."""
    tiles = archive.tiles.to_pylist()
    return (
        {tile["id"]: (tile, *(part[row].tolist() for part in rows)) for row, tile in enumerate(tiles)}
        if (rows := [part[:] for part in archive.vectors.values()])
        else {}
    )


@pytest.fixture
def small(monkeypatch):
    """Classes of sizes as they are among millions of tiles, among tens; and no waiting for the disk, which a kill does not need."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(segments_module, "LARGE", 64)
    monkeypatch.setattr(folder_module, "KEPT_ORDER", 4)


def test_a_change_writes_what_it_changes(tmp_path):
    folder = make(named(0, 20_000)).save(tmp_path / "archive")
    whole = written({}, files_of(folder))
    archive = Archive.load(folder, verify=False)
    before = files_of(folder)
    archive.add_embeds(*parts_of(named(20_000, 20_200)))
    archive.save(folder)
    added = files_of(folder)
    assert written(before, added) < 0.015 * whole
    assert before.keys() - {MANIFEST} <= added.keys(), "the segment before stays"
    archive.remove(named(5, 105))
    archive.save(folder)
    removed = files_of(folder)
    assert written(added, removed) < 100 * 8 + 200
    assert Archive.load(folder).ids == named(0, 5) + named(105, 20_200)
    archive.compact()
    archive.save(folder)
    assert len(read_manifest(folder)["segments"]) == 1
    assert Archive.load(folder).ids == named(0, 5) + named(105, 20_200)
    assert set(files_of(folder)) == {MANIFEST, *read_manifest(folder)["files"]}


def test_many_small_additions_make_few_segments_and_write_each_tile_few_times(small):
    segments, total = [], 0
    for number in range(500):
        before = segments
        names = [f"{number} {place}" for place in range(number % 3 + 1)]
        segments = settled(
            [*segments, Segment.of(pa.table({"id": names}), {"s2": Vectors([torch.zeros(len(names), 2)])})]
        )
        total += sum(len(one) for one in segments if one not in before)
        assert sum(len(one) < 64 for one in segments) <= 9
    count = sum(map(len, segments))
    assert count == sum(number % 3 + 1 for number in range(500))
    assert total < 4 * count
    assert [name for one in segments for name in one.tiles.column("id").to_pylist()] == [
        f"{number} {place}" for number in range(500) for place in range(number % 3 + 1)
    ]


def test_a_segment_that_is_mostly_removed_is_written_anew(small, tmp_path):
    archive = make(named(0, 100))
    archive.add_embeds(*parts_of(named(100, 101)))
    archive.remove(named(0, 40))
    assert [len(one.removed) for one in archive.segments] == [40, 0]
    archive.remove(named(40, 60))
    assert [(one.tiles.num_rows, len(one.removed)) for one in archive.segments] == [(40, 0), (1, 0)]
    archive.remove(named(60, 101))
    assert (len(archive), len(archive.segments)) == (0, 1)
    again = Archive.load(archive.save(tmp_path / "archive"))
    assert again.tiles.schema.names == ["id", "number", "text"]
    again.add_embeds(*parts_of(named(3, 5)))
    assert again.search("tile 3", sensor="s1", k=1).ids == [["tile 4"]]


@pytest.mark.parametrize("seed", range(4))
def test_an_archive_is_a_dictionary_of_tiles_whatever_is_done_to_it(small, tmp_path, seed):
    """Beside a plain dict and numpy: random additions, removals, saves, and questions."""
    rng = np.random.default_rng(seed)
    names, folder = named(0, 5), tmp_path / "archive"
    archive, salts = make(names), dict.fromkeys(names, 0)
    archive.save(folder)

    def vector(name, sensor):
        row = parts_of([name], salts[name])[0][sensor][0].astype(np.float64)
        return (row / np.linalg.norm(row)).astype(np.float32)

    archive.remove(names)
    salts = {}
    for step in range(40):
        act = rng.choice(["add", "add", "remove", "save", "load", "compact", "search", "search"])
        if act == "add":  # also of ids that were there before, with other pixels
            free = [name for name in named(0, 60) if name not in salts]
            for name in rng.permutation(free)[: rng.integers(1, 9)].tolist():
                archive.add_embeds(*parts_of([name], step))
                salts[name] = step
        elif act == "remove" and salts:
            gone = rng.permutation(list(salts))[: rng.integers(1, 1 + len(salts) // 2 + 1)].tolist()
            archive.remove(gone)
            salts = {name: salt for name, salt in salts.items() if name not in gone}
        elif act == "compact":
            archive.compact()
        elif act == "save":
            archive.save(folder)
        elif act == "load":
            archive = Archive.load(archive.save(folder))
        order = list(salts)
        assert archive.ids == order
        assert sum_of(archive) == sum_of(order)
        assert archive.find([*order, "tile 99", "", 5, "\ud800"]).tolist() == [*range(len(order)), -1, -1, -1, -1]
        if act == "search" and order:
            units = np.stack([vector(name, "s2") for name in order])
            numbers = np.array([parts_of([name], salts[name])[1]["number"][0].as_py() for name in order])
            asked = rng.permutation(order)[:3].tolist()
            for where, allowed in ((None, numbers >= 0), ("number < 4", numbers < 4)):
                hits = archive.search(asked, sensor="s1", archive_sensor="s2", k=4, filter=where, include_self=True)
                for place, name in enumerate(asked):
                    scores = (units.astype(np.float64) @ vector(name, "s1").astype(np.float64)).astype(np.float32)
                    best = sorted(np.flatnonzero(allowed), key=lambda row: (-scores[row], row))[:4]
                    assert hits.ids[place] == [order[row] for row in best]
                    assert [hit["text"] for hit in hits[place]] == [f"{order[row]}!" for row in best]


def test_segments_answer_to_the_bit_as_one_table_does(small):
    """Ties, which are many here, go to the row that was there first."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, 2, size=(300, WIDTH)).astype(np.float32)
    rows[(rows == 0).all(axis=1)] = 1
    table = pa.table({"id": named(0, 300), "number": rng.integers(0, 5, 300)})
    one = Archive.from_embeds({"s2": rows}, table, IDENTITY)
    many = Archive.from_embeds({"s2": rows[:7]}, table.slice(0, 7), IDENTITY)
    for start, stop in [(7, 8), (8, 100), (100, 103), (103, 190), (190, 191), (191, 192), (192, 300)]:
        many.add_embeds({"s2": rows[start:stop]}, table.slice(start, stop - start))
    assert len(many.segments) > 3
    for turn in range(3):
        for where in (None, "number in (1, 3)", "number = 2 and id != 'tile 9'"):
            asked = [one.search(named(150, 190), k=25, filter=where) for one in (one, many)]
            assert asked[0].ids == asked[1].ids
            np.testing.assert_array_equal(asked[0].scores, asked[1].scores)
        for archive in (one, many):
            archive.remove([f"tile {number}" for number in range(turn, 140, 3)])


def numbered(archive):
    return sorted(int(name.split()[1]) for name in archive.ids)


def act_on(archive, number):
    """One of a row of changes, by its number; the ids afterwards tell which was the last."""
    kind = number % 4
    if kind == 3:
        archive.compact()
        archive.remove([f"tile {number - 1}"])
    elif kind == 1 and number > 8:
        archive.remove([f"tile {number - 9}", *[name for name in named(-5, 0) if name in archive.rows_by_id]])
    archive.add_embeds(*parts_of([f"tile {number}", *(named(-5, 0) if kind == 2 else [])]))


def states(count):
    """Ids after each change."""
    archive, found = make(named(0, 1)), [["tile 0"]]
    for number in range(1, count):
        act_on(archive, number)
        found.append(archive.ids)
    return found


def change_for_ever(folder, first, done):
    torch.set_num_threads(1)
    archive = Archive.load(folder) if (folder / MANIFEST).exists() else make(named(0, 1))
    archive.save(folder)
    for number in range(first, 10_000):
        act_on(archive, number)
        archive.save(folder)
        done.value = number


KILLS = int(os.environ.get("CSMAE_TEST_KILLS", "15"))
"""How many the test below does; 200 take a minute."""


def test_a_kill_at_any_moment_of_any_change_leaves_the_archive_before_or_after(small, tmp_path, caplog):
    caplog.set_level("ERROR")
    folder = tmp_path / "archive"
    wanted = states(60 + 12 * KILLS)
    context, rng, last, strays = multiprocessing.get_context("fork"), np.random.default_rng(0), 0, 0
    for number in range(KILLS):
        done = context.Value("i", last)
        process = context.Process(target=change_for_ever, args=(folder, last + 1, done))
        process.start()
        end = time.monotonic() + 60
        while number and done.value < last + 1 + number % 2 and time.monotonic() < end:  # the first dies as it builds
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if not (folder / MANIFEST).exists():
            assert done.value == 0
            continue
        strays += set(files_of(folder)) != {MANIFEST, *read_manifest(folder)["files"]}
        ids = Archive.load(folder).ids
        assert ids in wanted[done.value : done.value + 2]
        last = wanted.index(ids, done.value)
    assert last > KILLS // 2
    assert strays, "no kill came in the midst of a write; the test shows nothing"
    Archive.load(folder).save(folder)
    assert set(files_of(folder)) == {MANIFEST, *read_manifest(folder)["files"]}


class Interrupted(BaseException):
    """As Ctrl-C is, at a line of our choice."""


def interrupted_at(line, function):
    """Call a function until it has run so many lines of this package; whether it was ended so, and how many lines it has run."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            count += 1
            if count == line:
                raise Interrupted
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except Interrupted:
        return True, count
    finally:
        sys.settrace(previous)
    return False, count


ACTS = {
    "add": lambda archive, folder: archive.add_embeds(*parts_of(["new", "newer"])),
    "remove": lambda archive, folder: archive.remove(["tile 3", "tile 41"]),
    "compact": lambda archive, folder: archive.compact(),
    "save": lambda archive, folder: archive.save(folder),
}


@pytest.mark.parametrize("act", ACTS)
def test_an_interrupt_at_any_line_leaves_archive_and_folder_before_or_after(act, small, tmp_path):
    archive = make(named(0, 40))
    archive.save(tmp_path / "first")
    for start in range(40, 44):
        archive.add_embeds(*parts_of(named(start, start + 1)))
    archive.remove(["tile 7", "tile 42"])
    origin = archive.save(tmp_path / "origin")

    def begin(folder):
        shutil.copytree(origin, folder)
        opened = Archive.load(folder, verify=False)
        if act == "save":
            opened.add_embeds(*parts_of(["more"]))
            opened.remove(["tile 9"])
        return opened

    first = begin(tmp_path / "whole")
    on_disk = content(Archive.load(tmp_path / "whole"))
    before = content(first)
    _, lines = interrupted_at(0, lambda: ACTS[act](first, tmp_path / "whole"))
    after = content(first)
    for line in np.unique(np.linspace(1, lines, 25).astype(int)):
        folder = tmp_path / f"{act} {line}"
        opened = begin(folder)
        ended, _ = interrupted_at(int(line), lambda: ACTS[act](opened, folder))  # noqa: B023
        assert ended
        now = content(opened)
        assert now in (before, after), line
        assert content(Archive.load(folder)) in (on_disk, *([after] if act == "save" else [])), line
        assert sum_of(opened) == sum_of(opened.ids)
        opened.save(folder)  # which is not refused, as if another had written there
        assert content(Archive.load(folder)) == now, line
        assert set(files_of(folder)) == {MANIFEST, *read_manifest(folder)["files"]}
        shutil.rmtree(folder)


@pytest.mark.parametrize("full", ["write_file", "write_atomically"])
def test_a_full_disk_changes_nothing(full, tmp_path, monkeypatch):
    folder = make(named(0, 30)).save(tmp_path / "archive")
    archive = Archive.load(folder)
    archive.add_embeds(*parts_of(["more"]))
    before, names = content(archive), set(files_of(folder))
    real = getattr(folder_module, full)
    for call in range(1, 9):
        calls = []

        def fail(*given, call=call, calls=calls, **options):
            calls.append(given)
            if len(calls) == call:
                raise OSError(28, "No space left on device")
            return real(*given, **options)

        with monkeypatch.context() as patched:
            patched.setattr(folder_module, full, fail)
            try:
                archive.save(folder)
            except OSError:
                assert set(files_of(folder)) == names
                assert len(Archive.load(folder)) == 30
                assert content(archive) == before
                continue
        break
    assert call > 1
    assert content(Archive.load(folder)) == before


class Failing:
    """An index that cannot follow."""

    backend, parameters, has_file = "failing", {}, False

    def __init__(self):
        self.restored = 0

    def add(self, *given):
        raise RuntimeError("the server is gone")

    remove = add

    def restore(self):
        self.restored += 1


def test_an_index_that_cannot_follow_leaves_all_as_it_was(tmp_path):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    archive = make(named(0, 300))
    archive.use_index("faiss", kind="hnsw", effort=100)
    failing = Failing()
    archive.indexes["s2"] = failing
    before, asked = content(archive), archive.search("tile 5", sensor="s1", k=5).ids
    for change in (lambda: archive.add_embeds(*parts_of(["new"])), lambda: archive.remove(["tile 6"])):
        with pytest.raises(RuntimeError, match="server is gone"):
            change()
        assert content(archive) == before
        assert archive.search("tile 5", sensor="s1", k=5).ids == asked
        assert archive.indexes["s1"].index.ntotal == 300
    assert failing.restored == 2


@pytest.mark.parametrize("version", [1, 2])
def test_an_archive_of_an_earlier_release_becomes_the_first_segment_as_it_is(version, tmp_path):
    folder = make(named(0, 50)).save(tmp_path / "archive")
    write_as_version(folder, version)
    before = files_of(folder)
    archive = Archive.load(folder)
    assert archive.ids == named(0, 50)
    assert archive.search("tile 3", sensor="s1", k=1).exact
    archive.add_embeds(*parts_of(["new"]))
    archive.save(folder)
    after = files_of(folder)
    assert all(after[name].st_mtime_ns == stat.st_mtime_ns for name, stat in before.items() if name != MANIFEST)
    assert read_manifest(folder)["version"] == 3
    assert Archive.load(folder).ids == [*named(0, 50), "new"]
    assert sum_of(Archive.load(folder)) == sum_of([*named(0, 50), "new"])


def test_metadata_of_every_type_and_name_come_back(tmp_path):
    tiles = pa.table(
        {
            "id": pa.array(["a", "b", "c"], pa.string_view()),
            "decimal": pa.array([Decimal("1.10"), None, Decimal("-3.00")], pa.decimal128(9, 2)),
            "view": pa.array(["x", None, "a text that is too long to lie in the view itself"], pa.string_view()),
            "views": pa.array([["x"], None, ["y", None]], pa.list_(pa.string_view())),
            "time": pa.array([clock(1, 2, 3), None, clock(23, 59, 59, 999_999)], pa.time64("us")),
            "short time": pa.array([1, None, 3], pa.time32("s")),
            "duration": pa.array([timedelta(days=3), None, timedelta(milliseconds=-1)], pa.duration("ms")),
            "half": pa.array(np.array([1, 2, 3], np.float16)),
            "large": pa.array(["x", None, "z"], pa.large_string()),
            "bytes": pa.array([b"\0", None, b"x"], pa.binary()),
            "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
            **{
                name: pa.array([1, 2, 3])
                for name in ("rank", "score", "query", "", "sha256", "embeds", "__index_level_0__", "ünï\n")
            },
        }
    )
    values = tiles.to_pylist()
    embeds = {"s2": parts_of(["a", "b", "c"])[0]["s2"]}
    archive = Archive.from_embeds({"s2": embeds["s2"][:2]}, tiles.slice(0, 2), IDENTITY)
    archive.add_embeds({"s2": embeds["s2"][2:]}, tiles.slice(2))
    for _ in range(2):
        assert archive.tiles.to_pylist() == values
        hits = archive.search("a", k=3, include_self=True)
        found = {tile["id"]: tile for tile in hits.tiles.to_pylist()}
        assert found == {tile["id"]: tile for tile in values}
        assert {hit["id"]: hit["decimal"] for hit in hits[0]} == {tile["id"]: tile["decimal"] for tile in values}
        assert hits.to_table().num_rows == 3
        json.loads(hits.to_json().encode())
        archive = Archive.load(archive.save(tmp_path / "archive"))
    archive.remove(["b"])
    assert Archive.load(archive.save(tmp_path / "archive")).tiles.to_pylist() == [values[0], values[2]]


def test_a_column_that_comes_later_is_unknown_before(tmp_path):
    archive = make(named(0, 3))
    embeds, tiles = parts_of(["new"])
    with pytest.raises(ValueError, match="columns that the archive lacks: extra"):
        archive.add_embeds(embeds, tiles.append_column("extra", [["x"]]))
    segment = Segment.of(tiles.append_column("extra", [["x"]]), Archive.from_embeds(embeds, tiles, IDENTITY).vectors)
    archive = Archive.of_segments([*archive.segments, segment], None, IDENTITY)
    again = Archive.load(archive.save(tmp_path / "archive"))
    assert again.tiles.column("extra").to_pylist() == [None, None, None, "x"]
    assert again.search("tile 0", sensor="s1", filter="extra = 'x'").ids == [["new"]]


def leaves(value, path=()):
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))


def test_a_manifest_that_says_what_none_says_is_refused_before_it_is_used(small, tmp_path):
    archive = make(named(0, 30))
    archive.add_embeds(*parts_of(["new"]))
    archive.remove(["tile 4"])
    folder = archive.save(tmp_path / "archive")
    good = read_manifest(folder)
    strange = [None, True, -1, 2**70, 0.5, "x", "../x", [], ["x"], {}, {"x": 1}]
    tried = 0
    for path in leaves(good):
        if not path or path == ("sha256",):
            continue
        for value in strange:
            changed = json.loads(json.dumps(good))
            item = changed
            for name in path[:-1]:
                item = item[name]
            if item[path[-1]] == value:
                continue
            item[path[-1]] = value
            (folder / MANIFEST).write_text(json.dumps({**changed, "sha256": folder_module.sign(changed)}))
            try:
                opened = Archive.load(folder)
            except (ArchiveCorruptError, ArchiveMismatchError):
                tried += 1
                continue
            assert (
                path[0] in ("made_with", "source", "unreadable", "provenance")
                or path[-1] == "order"
                or "parameters" in path
            )
            assert opened.ids == archive.ids
    assert tried > 200
    repeated = {**good, "segments": [*good["segments"], good["segments"][0]]}
    (folder / MANIFEST).write_text(json.dumps({**repeated, "sha256": folder_module.sign(repeated)}))
    with pytest.raises(ArchiveCorruptError, match="the same tiles twice"):
        Archive.load(folder, verify=False)
    publish(folder, good)
    Archive.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": NaN}', "broken"),
        ('{"format": "csmae-archive", "version": 3, "sha256": 1e999}', "broken"),
        ("[" * 100_000, "broken"),
        ("[]", "broken"),
        ('{"format": "csmae-archive", "version": true, "sha256": ""}', "version True"),
        (b"\xff\xfe", "broken"),
    ],
)
def test_what_is_no_manifest_is_named_so(tmp_path, text, message):
    (tmp_path / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArchiveCorruptError, match=message):
        Archive.load(tmp_path)


def test_a_number_that_json_has_not_is_never_written(tmp_path):
    folder = make(named(0, 3)).save(tmp_path / "archive")
    archive = Archive.load(folder)
    archive.source = {"data": "x", "limit": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        archive.save(folder)
    assert Archive.load(folder).source == {}


def test_ids_that_occur_twice_and_orders_that_are_none_are_found_when_files_are_checked(small, tmp_path):
    first, second = make(["a", "b", "c", "d", "e"]), make(["e", "f"])
    twice = Archive.of_segments([*first.segments, *second.segments], None, IDENTITY).save(tmp_path / "twice")
    with pytest.raises(ArchiveCorruptError, match="occurs more than once"):
        Archive.load(twice)
    first.segments[0].ids.order = np.array([1, 0, 2, 3, 4])
    with pytest.raises(ArchiveCorruptError, match="their order is none"):
        Archive.load(first.save(tmp_path / "order"))


def test_a_second_writer_waits_for_the_first_and_is_refused_when_it_has_written(tmp_path):
    from filelock import FileLock

    folder = make(named(0, 3)).save(tmp_path / "archive")
    first, second = Archive.load(folder), Archive.load(folder)
    second.remove(["tile 1"])
    context = multiprocessing.get_context("fork")
    answer = context.Queue()

    def save_second():
        try:
            answer.put(str(second.save(folder)))
        except FileExistsError as error:
            answer.put(str(error))

    with FileLock(folder / LOCK_NAME):
        process = context.Process(target=save_second)
        process.start()
        time.sleep(0.2)
        assert answer.empty(), "it waits"
        first.remove(["tile 2"])
        publish(folder, folder_module._write_parts(first, folder, {}))
    assert "It was changed since this archive was opened" in answer.get(timeout=30)
    process.join()
    assert Archive.load(folder).ids == ["tile 0", "tile 1"]
