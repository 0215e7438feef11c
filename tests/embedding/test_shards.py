"""Embeds that are kept: found again by what they were made of, never taken for others, complete but for what is unusable."""

import shutil
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_models import tiny_config

from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.pixel_column import Tile, refer
from csmae_hf.embedding import shards as embed_cache
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.identity import ArchiveMismatchError
from csmae_hf.embedding.shards import (
    UnusableTilesError,
    collect_embeds,
    embed_missing,
    plan_embeds,
    refuse_failed,
)
from csmae_hf.sample.generate import generate_sample

BANDS = {"s1": ["VH", "VV"], "s2": ["B02", "B03"]}


class CountingModel(torch.nn.Module):
    """Embeds are band means times a weight; counts tiles."""

    def __init__(self, weight=1.0, **fields):
        super().__init__()
        self.config = tiny_config(sensors=BANDS, **fields)
        self.weight = torch.nn.Parameter(torch.full((1,), weight))
        self.seen = 0

    def forward(self, **inputs):
        ((sensor, pixels),) = inputs.items()
        self.seen += len(pixels)
        return SimpleNamespace(embeds={sensor: pixels.mean(dim=(2, 3)) * self.weight})


class StackingProcessor:
    """Stacks the bands; refuses negative values."""

    def __init__(self, size=4):
        self.size = size

    def to_dict(self):
        return {"size": self.size}

    def __call__(self, return_tensors=None, **sensors):
        ((sensor, tiles),) = sensors.items()
        stacked = np.stack([[np.asarray(tile[band]) for band in BANDS[sensor]] for tile in tiles])
        if (stacked < 0).any():
            raise ValueError("negative values")
        return {sensor: torch.from_numpy(stacked).float()}


def make_dataset(tiles, broken=(), seed=0):
    rng = np.random.default_rng(seed)
    values = rng.random((tiles, 2, 4, 4), dtype=np.float32)
    values[list(broken)] = -1
    band = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
    features = datasets.Features({"id": datasets.Value("string"), "s1": dict.fromkeys(BANDS["s1"], band)})
    rows = [dict(zip(BANDS["s1"], tile, strict=True)) for tile in values]
    return datasets.Dataset.from_dict({"id": [f"tile_{n}" for n in range(tiles)], "s1": rows}, features=features)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(embed_cache, "SHARD_TILES", 10)


def embed(folder, model, dataset, processor=None, **options):
    processor = processor or StackingProcessor()
    (plan,) = plan_embeds(folder, model, processor, dataset, ["s1"])
    count = embed_missing(plan, model, processor, dataset, batch_size=4, progress=False, **options)
    return plan, count


def test_kept_embeds_are_those_of_the_dataset_and_are_not_made_twice(tmp_path):
    dataset, model = make_dataset(35), CountingModel()
    plan, count = embed(tmp_path, model, dataset)
    assert count == model.seen == 35
    expected = embed_dataset(CountingModel(), StackingProcessor(), dataset, "s1", batch_size=4, progress=False)
    np.testing.assert_array_equal(collect_embeds(plan).embeds, expected)
    plan, count = embed(tmp_path, model, dataset)
    assert (count, model.seen) == (0, 35)


def test_processes_divide_the_work_and_give_the_same_bits(tmp_path):
    dataset = make_dataset(35)
    alone, _ = embed(tmp_path / "one", CountingModel(), dataset)
    counts = [embed(tmp_path / "two", CountingModel(), dataset, process=n, processes=2) for n in (0, 1)]
    assert [count for _, count in counts] == [20, 15]
    np.testing.assert_array_equal(collect_embeds(counts[0][0]).embeds, collect_embeds(alone).embeds)


def test_workers_give_the_same(tmp_path):
    dataset = make_dataset(25, broken=[7])
    alone, _ = embed(tmp_path / "one", CountingModel(), dataset)
    helped, _ = embed(tmp_path / "two", CountingModel(), dataset, num_workers=2)
    np.testing.assert_array_equal(collect_embeds(alone).embeds, collect_embeds(helped).embeds)


@pytest.mark.parametrize("change", ["weights", "processor", "pixels", "tiles"])
def test_other_weights_processors_or_tiles_never_find_them(tmp_path, change):
    embed(tmp_path, CountingModel(), make_dataset(10))
    model = CountingModel(2.0 if change == "weights" else 1.0)
    processor = StackingProcessor(5 if change == "processor" else 4)
    dataset = make_dataset(10, seed=1 if change == "pixels" else 0)
    if change == "tiles":
        dataset = dataset.select(range(9))
    _, count = embed(tmp_path, model, dataset, processor)
    assert count == len(dataset)


def test_embeds_of_another_configuration_are_refused_by_field(tmp_path):
    dataset = make_dataset(10)
    embed(tmp_path, CountingModel(), dataset)
    assert embed(tmp_path, CountingModel(mask_ratio=0.75), dataset)[1] == 0, "pre-training alone"
    with pytest.raises(ArchiveMismatchError, match=r"num_attention_heads = 2.*given has 4.*delete"):
        embed(tmp_path, CountingModel(num_attention_heads=4), dataset)
    (record,) = tmp_path.glob("*/made_with.json")
    record.unlink()
    assert embed(tmp_path, CountingModel(num_attention_heads=4), dataset)[1] == 0, "of a release that did not record it"
    assert not record.exists(), "nobody knows what these were made with"


def test_a_part_of_the_tiles_that_fills_shards_is_found_again(tmp_path):
    embed(tmp_path, CountingModel(), make_dataset(30))
    _, count = embed(tmp_path, CountingModel(), make_dataset(30).select(range(25)))
    assert count == 5  # the last, shorter shard


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_a_damaged_shard_is_embedded_again(tmp_path, damage, caplog):
    dataset = make_dataset(20)
    plan, _ = embed(tmp_path, CountingModel(), dataset)
    before = collect_embeds(plan).embeds
    path = plan.shards[1][2]
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-5], "flipped": content[:-1] + bytes([content[-1] ^ 1]), "other": b"x"}[damage])
    plan, count = embed(tmp_path, CountingModel(), dataset)
    assert count == 10
    assert str(path) in caplog.text
    np.testing.assert_array_equal(collect_embeds(plan).embeds, before)


def test_unusable_tiles_cost_no_other_tile_and_are_named(tmp_path):
    dataset, model = make_dataset(35, broken=[3, 30]), CountingModel()
    plan, count = embed(tmp_path, model, dataset)
    assert count == 33
    collected = collect_embeds(plan)
    assert list(collected.failed) == [3, 30]
    good = [row for row in range(35) if row not in (3, 30)]
    expected = embed_dataset(
        CountingModel(), StackingProcessor(), dataset.select(good), "s1", batch_size=4, progress=False
    )
    np.testing.assert_allclose(collected.embeds[good], expected, rtol=1e-6)
    assert np.isnan(collected.embeds[[3, 30]]).all()
    reasons = {f"tile_{row}": reason for row, reason in collected.failed.items()}
    with pytest.raises(
        UnusableTilesError, match=r"2 of 35 tiles[\s\S]*tile tile_3: negative values[\s\S]*--unusable skip"
    ):
        refuse_failed(reasons, 35, tmp_path)
    model.seen = 0
    embed(tmp_path, model, dataset)
    assert model.seen == 0  # the good ones are kept; the broken ones are tried and fail again


def test_one_broken_tile_in_ten_thousand_costs_one_tile(tmp_path, monkeypatch):
    monkeypatch.setattr(embed_cache, "SHARD_TILES", 512)
    numbers = datasets.Dataset.from_dict({"id": [f"tile_{n}" for n in range(10_000)], "s1": list(range(10_000))})

    class Processor(StackingProcessor):
        def __call__(self, s1, return_tensors=None):
            if 7_777 in s1:
                raise ValueError("broken value")
            return {"s1": torch.tensor(s1).float()[:, None, None, None].expand(-1, 2, 2, 2)}

    plan, count = embed(tmp_path, CountingModel(), numbers, Processor())
    collected = collect_embeds(plan)
    assert (count, dict(collected.failed)) == (9_999, {7_777: "tile tile_7777: broken value"})
    expected = np.delete(np.arange(10_000.0), 7_777)
    np.testing.assert_array_equal(np.delete(collected.embeds[:, 0], 7_777), expected)


def test_a_shard_of_unusable_tiles_alone_is_defined(tmp_path):
    plan, count = embed(tmp_path, CountingModel(), make_dataset(20, broken=range(10)))
    collected = collect_embeds(plan)
    assert (count, len(collected.failed)) == (10, 10)
    assert np.isnan(collected.embeds[:10]).all()
    assert np.isfinite(collected.embeds[10:]).all()


def test_a_shard_that_another_process_never_wrote_is_missed(tmp_path):
    plan, _ = embed(tmp_path, CountingModel(), make_dataset(20), process=0, processes=2)
    with pytest.raises(FileNotFoundError, match=r"tiles 10 to 19[\s\S]*all of them share"):
        collect_embeds(plan)


def test_a_sensor_that_the_model_or_the_dataset_lacks_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="no sensor 's3'"):
        plan_embeds(tmp_path, CountingModel(), StackingProcessor(), make_dataset(3), ["s3"])
    with pytest.raises(ValueError, match="no pixel column 's2'"):
        plan_embeds(tmp_path, CountingModel(), StackingProcessor(), make_dataset(3), ["s2"])


def test_a_store_that_changed_is_embedded_again(tmp_path):
    sample = generate_sample(tmp_path / "sample", tiles=5, seed=1)
    names = [plan_names(load_bigearthnet(sample), tmp_path)]
    copy = shutil.copytree(sample, tmp_path / "copy")  # with its times: the same archive elsewhere
    names.append(plan_names(load_bigearthnet(copy), tmp_path))
    assert names[0] == names[1]
    store = next(copy.glob("*/data.mdb"))
    store.touch()
    assert plan_names(load_bigearthnet(copy), tmp_path) != names[0]


def test_files_that_changed_under_the_same_names_are_embedded_again(tmp_path, monkeypatch):
    names = [f"tile_{n}" for n in range(15)]
    pixels = {name: {"VH": np.zeros((4, 4)), "VV": np.ones((4, 4))} for name in names}
    monkeypatch.setattr(Tile, "decode_example", lambda self, value, token_per_repo_id=None: pixels[value["source"][0]])
    features = datasets.Features({"id": datasets.Value("string"), "s1": Tile("s1", BANDS["s1"])})
    column = refer("files, no LMDB", names)
    dataset = datasets.Dataset(pa.table({"id": pa.array(names), "s1": column}, schema=features.arrow_schema))
    _, first = embed(tmp_path, CountingModel(), dataset)
    _, again = embed(tmp_path, CountingModel(), dataset)
    pixels["tile_12"]["VV"][0, 0] = 2.0
    _, changed = embed(tmp_path, CountingModel(), dataset)
    assert (first, again, changed) == (15, 0, 5)  # the shard of the tile that changed


def plan_names(dataset, folder):
    (plan,) = plan_embeds(folder, CountingModel(), StackingProcessor(), dataset, ["s1"])
    return [path.name for _, _, path in plan.shards]
