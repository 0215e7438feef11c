"""Datasets of tiles as any other: joined, cut, mapped, formatted, written, pushed and loaded by who has no store."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from hub_double import HubDouble
from small_archives import S2_NAMES, has_own_pixels, pixels, write_archive
from tiff_files import random_band, write_tiff
from tiny_models import tiny_config
from transformers import Trainer, TrainingArguments

from csmae_hf.bigearthnet import S1_BANDS, S2_BANDS
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.load import load_data
from csmae_hf.data.pixel_column import StoreGoneError, Tile, point_to
from csmae_hf.data.tiles import load_tiles, tile_footprint
from csmae_hf.data.time_column import Time
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.search.places import footprint_columns
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

SENSOR_BANDS = {"s1": S1_BANDS, "s2": S2_BANDS}
ODD = "an odd folder ü, of häns"


def tile_of(name: str, seed: int) -> dict[str, Any]:
    return {
        "id": name,
        **{sensor: {band: random_band(band, seed) for band in bands} for sensor, bands in SENSOR_BANDS.items()},
    }


def expected_pixels(row: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The bands of a row, by sensor, as they were written."""
    if row["id"] in S2_NAMES:
        number = S2_NAMES.index(row["id"])
        return {sensor: pixels(number, bands) for sensor, bands in SENSOR_BANDS.items()}
    return tile_of(row["id"], int(row["id"][-1]))


def is_right(row: dict[str, Any]) -> bool:
    expected = expected_pixels(row)
    return all(
        list(row[sensor]) == list(bands)
        and all(
            row[sensor][band].dtype == expected[sensor][band].dtype
            and np.array_equal(row[sensor][band], expected[sensor][band])
            for band in bands
        )
        for sensor, bands in SENSOR_BANDS.items()
    )


def write_pairs(folder: Path, numbers: range) -> Path:
    for number in numbers:
        for band in (*S1_BANDS, *S2_BANDS):
            write_tiff(folder / f"pair{number}_{band}.tif", [random_band(band, number)])
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An odd folder with two archives and one of GeoTIFFs."""
    folder = tmp_path_factory.mktemp("place") / ODD
    write_archive(folder / "one")
    write_archive(folder / "two")
    write_pairs(folder / "tiffs", range(2))
    return folder


@pytest.fixture
def stored(place: Path) -> datasets.Dataset:
    return load_bigearthnet(place / "one")


@pytest.fixture(scope="module")
def mixed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    """A store, GeoTIFFs and a parquet file whose store is gone."""
    tmp_path = tmp_path_factory.mktemp("held")
    write_archive(tmp_path / "gone")
    load_bigearthnet(tmp_path / "gone").select(range(3)).to_parquet(tmp_path / "held.parquet")
    shutil.rmtree(tmp_path / "gone")
    held = datasets.Dataset.from_parquet(str(tmp_path / "held.parquet"), cache_dir=str(tmp_path / "cache"))
    return datasets.concatenate_datasets([load_bigearthnet(place / "one"), load_tiles(place / "tiffs"), held])


def double_vv(row: dict[str, Any]) -> dict[str, float]:
    return {"vv": float(row["s1"]["VV"].mean())}


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda data: data,
    "shuffle": lambda data: data.shuffle(seed=1),
    "sort": lambda data: data.sort("id", reverse=True),
    "filter": lambda data: data.filter(lambda row: row["s1"]["VV"].mean() < 1e9),
    "map": lambda data: data.map(double_vv),
    "map, batched": lambda data: data.map(
        lambda rows: {"n": [len(tile) for tile in rows["s2"]]}, batched=True, batch_size=4
    ),
    "map, 2 processes": lambda data: data.map(double_vv, num_proc=2),
    "train_test_split": lambda data: data.train_test_split(0.25, seed=0)["train"],
    "rename": lambda data: data.rename_column("s1", "radar").rename_column("radar", "s1"),
    "add_column": lambda data: data.add_column("n", list(range(len(data)))),
    "remove": lambda data: data.remove_columns(["country", "snow"]),
    "shard": lambda data: data.shard(2, 1),
    "skip and take": lambda data: data.skip(2).take(8),
    "flatten_indices": lambda data: data.select([7, 0, 9]).flatten_indices(),
    "pickle": lambda data: pickle.loads(pickle.dumps(data)),
    "iterable": lambda data: data.to_iterable_dataset(num_shards=2),
    "iterable, shuffled": lambda data: data.to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=4),
    "iterable, mapped": lambda data: data.to_iterable_dataset().map(double_vv),
    "cast": lambda data: data.cast_column("s1", Tile("s1", list(S1_BANDS), decode=False)).cast(data.features),
    "interleave": lambda data: datasets.interleave_datasets([data, data.shuffle(seed=2)]),
    "interleave, streamed": lambda data: datasets.interleave_datasets([data.to_iterable_dataset()] * 2),
    "repeat": lambda data: data.repeat(2),
    "batches": lambda data: [
        {name: column[n] for name, column in batch.items()}
        for batch in data.iter(batch_size=4)
        for n in range(len(batch["id"]))
    ],
    "slice": lambda data: [{name: column[n] for name, column in data[:5].items()} for n in range(5)],
    "columns": lambda data: [
        {"id": a, "s1": b, "s2": c} for a, b, c in zip(data["id"], data["s1"], data["s2"], strict=True)
    ],
    "set_format": lambda data: data.with_format(None, columns=["id", "s1", "s2"]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_whatever_is_done_to_a_dataset_of_many_places_its_rows_keep_their_pixels(
    mixed: datasets.Dataset, name: str
) -> None:
    rows = list(OPERATIONS[name](mixed))
    assert len(rows) >= 3
    assert all(map(is_right, rows))


def test_the_features_are_equal_wherever_the_pixels_lie(place: Path, mixed: datasets.Dataset) -> None:
    one, two = load_bigearthnet(place / "one"), load_bigearthnet(place / "two")
    assert one.features == two.features == mixed.features
    assert one.features["date_s2"] == datasets.Value("timestamp[ms]")
    linear = load_data(place / "two", "all", units={"s1": "linear"})
    both = datasets.concatenate_datasets([one, linear])
    assert [row["s1"].unit for row in both] == [None] * 6 + ["linear"] * 6
    assert datasets.DatasetDict({"train": one, "test": mixed})["test"][0]["s1"].key == one[0]["s1"].key


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_many_places(mixed: datasets.Dataset, method: str) -> None:
    loader = torch.utils.data.DataLoader(
        mixed, batch_size=4, num_workers=1, multiprocessing_context=method, collate_fn=list
    )
    assert all(is_right(row) for batch in loader for row in batch)


def test_workers_share_a_streamed_set(mixed: datasets.Dataset) -> None:
    streamed = mixed.to_iterable_dataset(num_shards=2)
    loader = torch.utils.data.DataLoader(streamed, batch_size=4, num_workers=2, collate_fn=list)
    rows = [row for batch in loader for row in batch]
    assert len(rows) == len(mixed)
    assert all(map(is_right, rows))


# Formats


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas"])
def test_formats_of_arrays_give_bands_by_name(mixed: datasets.Dataset, kind: str) -> None:
    formatted = mixed.with_format(kind)
    for place in (0, 6, len(mixed) - 1):
        row = formatted[place]
        row = row.iloc[0].to_dict() if kind == "pandas" else row
        wanted = expected_pixels({"id": str(row["id"])})
        assert isinstance(row["s1"]["VV"], torch.Tensor if kind == "torch" else np.ndarray)
        for sensor, bands in SENSOR_BANDS.items():
            assert all(np.array_equal(np.asarray(row[sensor][band]), wanted[sensor][band]) for band in bands)
    assert list(formatted["s1"][0]) == list(S1_BANDS)


def test_a_whole_row_in_torch_has_times_as_text_and_unknowns_as_none(mixed: datasets.Dataset) -> None:
    row = mixed.with_format("torch")[0]
    assert row["date_s2"] == "2017-01-13T10:10:31"
    assert row["labels"].dtype == torch.int64
    other = mixed.with_format("torch")[6]
    assert (other["date_s2"], other["country"]) == (None, None)
    assert mixed[0]["date_s2"].isoformat() == "2017-01-13T10:10:31"
    streamed = next(iter(mixed.to_iterable_dataset().with_format("torch")))
    assert torch.equal(streamed["s1"]["VV"], row["s1"]["VV"])


def test_rows_in_torch_make_the_same_batch(stored: datasets.Dataset) -> None:
    chosen = stored.select_columns(["id", "s1"])
    collate = TileCollator(CSMAEImageProcessor(), ["s1"])
    plain = collate([chosen[n] for n in range(4)])
    formatted = chosen.with_format("torch")
    assert torch.equal(collate([formatted[n] for n in range(4)])["s1"], plain["s1"])
    both = TileCollator(CSMAEImageProcessor())
    formatted = stored.with_format("torch")
    assert torch.equal(both([formatted[1]])["s2"], both([stored[1]])["s2"])


def test_a_column_of_bands_is_flattened_where_it_gives_what_it_stores(stored: datasets.Dataset) -> None:
    with pytest.raises(ValueError, match="decode=False"):
        stored.flatten()
    raw = stored.cast_column("s1", Tile("s1", ["VV"], decode=False)).remove_columns("s2")
    assert {"s1.bytes", "s1.source"} <= set(raw.flatten().column_names)


def test_time_of_any_precision_is_text_to_arrays() -> None:
    times = [None, np.datetime64("2020-02-03T04:05:06.007", "ms")]
    data = datasets.Dataset.from_dict({"t": times}, features=datasets.Features({"t": Time()})).with_format("numpy")
    assert [data[0]["t"], data[1]["t"]] == [None, "2020-02-03T04:05:06.007"]


# Rows from elsewhere


def test_rows_of_arrays_of_other_sets_and_of_paths_are_taken(mixed: datasets.Dataset, tmp_path: Path) -> None:
    features = mixed.select_columns(["id", "s1"]).features
    path = write_tiff(tmp_path / "x.tif", [random_band(band, 7) for band in S1_BANDS], S1_BANDS)
    arrays = tile_of("pair7", 7)["s1"]
    rows = [
        {"id": "pair7", "s1": given}
        for given in (arrays, {b: torch.from_numpy(a) for b, a in arrays.items()}, str(path), path)
    ]
    rows += [{"id": row["id"], "s1": row["s1"]} for row in (mixed[0], mixed[7], mixed[-1])]
    made = datasets.Dataset.from_list(rows, features=features)
    for row in [*rows[:2], *rows[4:]]:
        made = made.add_item(row)
    assert len(made) == 12
    for row in made:
        assert all(np.array_equal(row["s1"][band], array) for band, array in expected_pixels(row)["s1"].items())
    cast = datasets.Dataset.from_list([{"s1": arrays}, {"s1": None}]).cast_column("s1", features["s1"])
    assert np.array_equal(cast[0]["s1"]["VV"], arrays["VV"])
    assert cast[1]["s1"] is None
    with pytest.raises(FileNotFoundError, match=r"No file nowhere\.tif"):
        made.add_item({"id": "a", "s1": "nowhere.tif"})


def test_rows_without_named_features_keep_the_feature_of_their_images(mixed: datasets.Dataset, tmp_path: Path) -> None:
    rows = [{**mixed[0], "s1": None}, mixed[0], mixed[7]]

    def generate() -> Iterator[dict[str, Any]]:
        yield from rows

    made = {
        "from_list": datasets.Dataset.from_list(rows),
        "from_dict": datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]}),
        "from_generator": datasets.Dataset.from_generator(generate, cache_dir=str(tmp_path), keep_in_memory=True),
        "new column": mixed.select([0, 0, 7]).map(lambda row: {"radar": row["s1"]}).remove_columns("s1"),
    }
    made["new column"] = made["new column"].rename_column("radar", "s1")
    for way, rebuilt in made.items():
        assert rebuilt.features["s1"] == mixed.features["s1"], way
        assert all(
            np.array_equal(rebuilt[2]["s1"][band], array) for band, array in expected_pixels(rows[2])["s1"].items()
        )
        rebuilt.select_columns(["s1", "s2"]).to_parquet(tmp_path / "x.parquet")
        assert str(tmp_path.parent).encode() not in (tmp_path / "x.parquet").read_bytes(), "names a place"


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("return_tensors", ["np", "pt"])
def test_what_the_processor_makes_of_a_column_may_replace_it(
    mixed: datasets.Dataset, batched: bool, return_tensors: str
) -> None:
    processor = CSMAEImageProcessor()
    tiles = mixed.select(range(2))

    def process(rows: dict[str, Any]) -> dict[str, Any]:
        made = processor(s1=rows["s1"], return_tensors=return_tensors, suspect="accept")
        return dict(made) if batched else {"s1": made["s1"][0]}

    done = tiles.map(process, batched=batched).with_format("torch")
    for place in range(2):
        expected = processor(s1=tiles[place]["s1"], suspect="accept")["s1"][0]
        assert torch.equal(done[place]["s1"], torch.as_tensor(expected))
    with pytest.raises(ValueError, match="pixel column of s1 was given a list"):
        datasets.Dataset.from_dict({"s1": [[1.0]]}, features=datasets.Features({"s1": tiles.features["s1"]}))


DTYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    ">u2",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    ">f4",
    "float64",
)


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_of_any_real_type_are_kept_exactly(dtype: str, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(dtype)
    drawn[0, 0] = {"b": True, "f": np.nan}.get(np.dtype(dtype).kind) or np.iinfo(dtype).max
    features = datasets.Features({"x": Tile("x", ["T1"])})
    made = datasets.Dataset.from_list([{"x": {"T1": drawn}}], features=features)
    made.to_parquet(tmp_path / "x.parquet")
    back = datasets.Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path))
    for tile in (made[0]["x"], back[0]["x"], made.add_item({"x": {"T1": drawn}})[1]["x"]):
        assert tile["T1"].dtype == np.dtype(dtype).newbyteorder("<")
        assert np.array_equal(tile["T1"], drawn, equal_nan=True)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2), "complex64"), np.full((2, 2), "a"), np.zeros((1, 2, 2)), np.zeros(3), [[1], [1, 2]]]
)
def test_other_pixels_are_refused_by_the_name_of_their_band(wrong: Any) -> None:
    features = datasets.Features({"x": Tile("x", ["T1"])})
    with pytest.raises(ValueError, match="Band T1"):
        features["x"].encode_example({"T1": wrong})


# Written and loaded


def run(code: str, *arguments: Any, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, which knows the tests' modules."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**(environment or os.environ), "PYTHONPATH": paths},
    )


def files_naming(folder: Path, *words: str) -> list[tuple[str, str]]:
    """Files below a folder that hold one of the words, in any of the ways that text is written."""
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        spelled = {word: [word.encode(), json.dumps(word)[1:-1].encode(), word.encode("utf-16-le")] for word in words}
        found += [(path.name, word) for word, ways in spelled.items() if any(way in content for way in ways)]
    return found


FRESH = """
import sys
import csmae_hf
from datasets import Dataset, load_dataset, load_from_disk
from test_idioms import is_right
place = sys.argv[1]
sets = {
    "disk": load_from_disk(place + "/disk"),
    "dict": load_from_disk(place + "/dict")["train"],
    "parquet": Dataset.from_parquet(place + "/x.parquet"),
    "load": load_dataset("parquet", data_files=place + "/x.parquet", split="train"),
    "streamed": load_dataset("parquet", data_files=place + "/x.parquet", split="train", streaming=True),
}
print({name: (sum(map(is_right, data)), data.features == sets["disk"].features) for name, data in sets.items()})
print(sets["load"].with_format("torch")[0]["s1"]["VV"].shape, sets["load"].with_format("torch")[0]["date_s2"])
"""


def test_a_fresh_process_loads_what_was_written_without_the_store_and_no_file_names_its_place(tmp_path: Path) -> None:
    home = tmp_path / ODD
    write_archive(home / "archive")
    write_pairs(home / "tiffs", range(2))
    data = datasets.concatenate_datasets([load_bigearthnet(home / "archive"), load_tiles(home / "tiffs")])
    out = tmp_path / "out"
    out.mkdir()
    data.save_to_disk(out / "disk", num_shards=2)
    datasets.DatasetDict({"train": data}).save_to_disk(out / "dict")
    assert data.to_parquet(out / "x.parquet") > 0
    assert files_naming(out, str(home), ODD, "häns", str(tmp_path)) == []
    size = sum(array.nbytes for row in data for sensor in SENSOR_BANDS for array in row[sensor].values())
    assert (out / "x.parquet").stat().st_size < 1.03 * size
    shutil.rmtree(home)
    done = run(FRESH, out, environment={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        str(dict.fromkeys(("disk", "dict", "parquet", "load", "streamed"), (8, True))),
        "torch.Size([120, 120]) 2017-01-13T10:10:31",
    ]


def test_files_say_the_same_of_an_image_that_was_taken_in(tmp_path: Path) -> None:
    """Unit, place and all else that is no place on this machine."""
    pytest.importorskip("rasterio")
    write_pairs(tmp_path / "tiffs", range(1))
    data = load_tiles(tmp_path / "tiffs", units={"s1": "linear"})
    held = datasets.Dataset.from_list([data[0]], features=data.features)
    held.save_to_disk(tmp_path / "disk")
    loaded = datasets.load_from_disk(tmp_path / "disk")
    for sensor in SENSOR_BANDS:
        was, now = data[0][sensor], loaded[0][sensor]
        assert was.facts.files
        assert now.facts.files == ()
        assert {**vars(now.facts), "files": was.facts.files} == vars(was.facts)
        assert now.unit == was.unit
    assert loaded[0]["s1"].unit == "linear"
    assert pickle.loads(pickle.dumps(loaded[0]["s1"])).unit == "linear"
    assert tile_footprint(loaded[0]["s2"]) == tile_footprint(data[0]["s2"])
    assert {name: column.to_pylist() for name, column in footprint_columns(loaded).items()} == {
        name: column.to_pylist() for name, column in footprint_columns(data).items()
    }


@pytest.mark.parametrize("write", ["to_csv", "to_json", "to_sql"])
def test_text_is_refused_for_pixels_with_what_to_call(stored: datasets.Dataset, tmp_path: Path, write: str) -> None:
    with pytest.raises(ValueError, match=rf"remove_columns\(\['s1', 's2'\]\)\.{write}") as refused:
        getattr(stored, write)(tmp_path / "x", *(["sqlite://"] if write == "to_sql" else []))
    assert "to_parquet" in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    if write != "to_sql":
        assert getattr(stored.remove_columns(["s1", "s2"]), write)(tmp_path / "x") > 0


def test_the_pixels_count_when_a_set_is_divided_into_files(stored: datasets.Dataset, tmp_path: Path) -> None:
    tile = sum(array.nbytes for sensor in SENSOR_BANDS for array in stored[0][sensor].values())
    assert stored._estimate_nbytes() == pytest.approx(6 * tile, rel=0.05)
    stored.save_to_disk(tmp_path / "disk", max_shard_size=2 * tile)
    assert len(list((tmp_path / "disk").glob("*.arrow"))) in (3, 4)
    plain = datasets.Dataset.from_dict({"a": [1, 2]})
    assert plain._estimate_nbytes() == 16
    assert plain.to_parquet(tmp_path / "plain.parquet") > 0


def test_a_store_that_moved_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_archive(tmp_path / "was")
    data = load_bigearthnet(tmp_path / "was")
    assert has_own_pixels(data[0])
    kept = pickle.dumps(data)
    shutil.move(tmp_path / "was", tmp_path / "now")
    collate = TileCollator(CSMAEImageProcessor())
    for read in (lambda: data[0]["s1"]["VV"], lambda: pickle.loads(kept)[1]["s2"].read(), lambda: collate([data[0]])):
        with pytest.raises(StoreGoneError) as gone:
            read()
        for words in (str(tmp_path / "was"), "load_bigearthnet", "point_to", "save_to_disk"):
            assert words in str(gone.value)
    moved = point_to(pickle.loads(kept), tmp_path / "now" / "lmdb")
    assert all(map(has_own_pixels, moved))
    assert moved.features == data.features
    with pytest.raises(StoreGoneError, match="is not there"):
        point_to(moved, tmp_path / "nowhere")
    both = datasets.concatenate_datasets([moved, load_bigearthnet(write_archive(tmp_path / "other"))])
    with pytest.raises(ValueError, match="Name the old one"):
        point_to(both, tmp_path / "other" / "lmdb")
    pointed = point_to(both, tmp_path / "other" / "lmdb", of=tmp_path / "now" / "lmdb")
    assert {row["s1"].store for row in pointed} == {str(tmp_path / "other" / "lmdb")}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubDouble]:
    with HubDouble() as double:
        yield double


PUSH = """
import sys
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.tiles import load_tiles
from datasets import DatasetDict, concatenate_datasets
home = sys.argv[1]
data = concatenate_datasets([load_bigearthnet(home + "/archive"), load_tiles(home + "/tiffs")])
data.push_to_hub("tester/tiles", num_shards=2)
DatasetDict({"train": data, "test": data.select(range(2))}).push_to_hub("tester/splits", max_shard_size="1MB")
"""

PULL = """
import csmae_hf
from datasets import load_dataset
from test_idioms import is_right
data = load_dataset("tester/tiles", split="train")
streamed = load_dataset("tester/tiles", split="train", streaming=True)
splits = load_dataset("tester/splits")
print([sum(map(is_right, each)) for each in (data, streamed, splits["train"], splits["test"])])
print(data.features == splits["test"].features, data[0]["s1"].store, data[0]["date_s2"].isoformat())
print(next(iter(streamed.with_format("torch")))["s1"]["VV"].shape)
"""

STRANGER = """
from datasets import load_dataset
try:
    load_dataset("tester/tiles", split="train")
except ValueError as error:
    print(error)
"""


def test_a_pushed_set_loads_for_who_has_no_store_and_names_no_place(hub: HubDouble, tmp_path: Path) -> None:
    home = tmp_path / ODD
    write_archive(home / "archive")
    write_pairs(home / "tiffs", range(2))
    done = run(PUSH, home, environment=hub.env(tmp_path / "pusher"))
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("tester/tiles", "tester/splits"):
        for path, content in hub.files(name, repo_type="dataset").items():
            target = tmp_path / "pushed" / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    assert len(list((tmp_path / "pushed").glob("**/train-*-of-00002.parquet"))) == 2
    assert len(list((tmp_path / "pushed/tester/splits").glob("**/train-*.parquet"))) > 2
    assert files_naming(tmp_path / "pushed", str(home), ODD, "häns", str(tmp_path)) == []
    shutil.rmtree(home)
    done = run(PULL, environment=hub.env(tmp_path / "puller"))
    assert done.stdout.splitlines() == ["[8, 8, 8, 2]", "True None 2017-01-13T10:10:31", "torch.Size([120, 120])"], (
        done.stderr[-3000:]
    )
    done = run(STRANGER, environment=hub.env(tmp_path / "stranger"))
    assert "'CsmaeTile' not found" in done.stdout, done.stderr[-3000:]
    # without the package the bands are still there for any reader of parquet and safetensors
    (first, *_) = sorted((tmp_path / "pushed/tester/tiles").glob("**/train-00000*.parquet"))
    (row, *_) = pq.read_table(first).to_pylist()
    bands = safetensors.numpy.load(row["s2"]["bytes"])
    assert np.array_equal(bands["B8A"], expected_pixels(row)["s2"]["B8A"])


# Used


def test_two_stores_at_once_are_trained_on(place: Path, tmp_path: Path) -> None:
    both = datasets.concatenate_datasets([load_bigearthnet(place / "one"), load_bigearthnet(place / "two")])
    torch.manual_seed(0)
    model = CSMAEForPreTraining(tiny_config(image_size=120, patch_size=30))
    sensors = model.config.sensors
    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=4,
            max_steps=3,
            use_cpu=True,
            logging_steps=1,
            remove_unused_columns=False,
        ),
        train_dataset=both,
        data_collator=TileCollator(CSMAEImageProcessor(sensors=sensors, size=120)),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    assert all(np.isfinite(losses))


def test_a_joined_set_embeds_and_retrieves_as_its_parts(place: Path, mixed: datasets.Dataset) -> None:
    torch.manual_seed(0)
    model = CSMAEModel(tiny_config(image_size=120, patch_size=30)).eval()
    processor = CSMAEImageProcessor(sensors=model.config.sensors, size=120)
    parts = [load_bigearthnet(place / "one"), load_bigearthnet(place / "two"), mixed.select(range(6, len(mixed)))]
    alone = [embed_dataset(model, processor, part, "s2", batch_size=1, progress=False) for part in parts]
    joined = datasets.concatenate_datasets(parts)
    together = embed_dataset(model, processor, joined, "s2", batch_size=1, progress=False)
    np.testing.assert_array_equal(together, np.concatenate(alone))
