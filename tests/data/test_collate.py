"""Rows to batches, standardised here or ready for a device, and errors that name the tile."""

import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from csmae_hf.data.collate import TileCollator, find_suspects, group_reasons
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.store import TileStore
from image_checks_csmae import SuspectImageError
from image_processing_csmae import CSMAEImageProcessor


def row(name: str, level: float = -15.0) -> dict[str, Any]:
    return {"id": name, "s1": {band: np.full((120, 120), level, np.float32) for band in ("VH", "VV")}}


@pytest.fixture(scope="module")
def tiles(shared_data: Path) -> datasets.Dataset:
    return load_bigearthnet(shared_data / "bigearthnet_v2_reben_lmdb")


@pytest.fixture(scope="module")
def v1_tiles(shared_data: Path) -> datasets.Dataset:
    return load_bigearthnet(shared_data / "bigearthnet_mm_v1_lmdb").select(range(3))


def test_rows_become_a_batch_in_order() -> None:
    batch = TileCollator(CSMAEImageProcessor(), ["s1"])([row("a", -10.0), row("b", -20.0)])
    assert batch["s1"].shape == (2, 2, 120, 120)
    assert (batch["s1"][0] > batch["s1"][1]).all()


@pytest.mark.parametrize("native", [False, True])
def test_a_bad_tile_is_named(native: bool) -> None:
    bad = row("b")
    bad["s1"]["VV"][3, 4] = np.nan
    with pytest.raises(ValueError, match=r"tile b: s1 band VV .* 1 of 14400 values NaN"):
        TileCollator(CSMAEImageProcessor(), ["s1"], native=native)([row("a"), bad, row("c")])


def test_a_tile_without_an_image_is_named() -> None:
    with pytest.raises(ValueError, match=r"1 of the 2 tiles of a batch have no s1 image, tile b for one"):
        TileCollator(CSMAEImageProcessor(), ["s1"])([row("a"), {"id": "b", "s1": None}])


def test_native_batches_give_the_same_images_to_the_bit(tiles: datasets.Dataset) -> None:
    processor = CSMAEImageProcessor()
    rows = [tiles[n] for n in range(5)]
    native = TileCollator(processor, native=True)(rows)
    assert {sensor: {key: (t.shape, t.dtype) for key, t in groups.items()} for sensor, groups in native.items()} == {
        "s1": {"VH VV": ((5, 2, 120, 120), torch.float32)},
        "s2": {
            "B02 B03 B04 B08": ((5, 4, 120, 120), torch.uint16),
            "B05 B06 B07 B11 B12 B8A": ((5, 6, 60, 60), torch.uint16),
        },
    }
    inputs, expected = processor.process_native(native), TileCollator(processor)(rows)
    assert inputs.keys() == expected.keys() == {"s1", "s2"}
    assert all(torch.equal(inputs[sensor], expected[sensor]) for sensor in expected)
    assert sum(t.nbytes for groups in native.values() for t in groups.values()) * 2.5 < sum(
        t.nbytes for t in expected.values()
    )


def test_native_batches_pass_through_pinned_memory_and_workers(tiles: datasets.Dataset) -> None:
    processor = CSMAEImageProcessor()
    loader = torch.utils.data.DataLoader(
        tiles.select(range(6)),  # type: ignore[arg-type]
        batch_size=4,
        num_workers=1,
        multiprocessing_context="spawn",
        collate_fn=TileCollator(processor, native=True),
        pin_memory=torch.cuda.is_available(),
    )
    batches = [processor.process_native(batch)["s2"] for batch in loader]
    assert [len(batch) for batch in batches] == [4, 2]
    expected = TileCollator(processor)([tiles[n] for n in range(6)])["s2"]
    torch.testing.assert_close(torch.cat(batches), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dataset", ["tiles", "v1_tiles"])
def test_a_batch_is_read_in_one_transaction_and_each_value_once(
    dataset: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [request.getfixturevalue(dataset)[n] for n in range(3)]
    transactions, decoded = [], []
    begin, value = TileStore._transaction, TileStore._value
    monkeypatch.setattr(TileStore, "_transaction", lambda self: transactions.append(1) or begin(self))
    monkeypatch.setattr(TileStore, "_value", lambda self, t, key: decoded.append(key) or value(self, t, key))
    batch = TileCollator(CSMAEImageProcessor())(rows)
    assert len(transactions) == 1
    assert decoded == sorted({row[sensor].key for row in rows for sensor in ("s1", "s2")})
    assert len(decoded) == (3 if dataset == "v1_tiles" else 6)
    for sensor in ("s1", "s2"):
        alone = CSMAEImageProcessor()(**{sensor: [pickle.loads(pickle.dumps(row[sensor])) for row in rows]})[sensor]
        assert torch.equal(batch[sensor], alone)


def test_a_row_outlives_its_batch(tiles: datasets.Dataset) -> None:
    """Within a batch its pixels are views of the store; after it, the row reads for itself again."""
    rows = [tiles[n] for n in range(2)]
    looked_at = rows[1]["s1"]["VV"]
    TileCollator(CSMAEImageProcessor())(rows)
    assert rows[0]["s1"]._pixels is None
    assert rows[1]["s1"]["VV"] is looked_at
    assert rows[0]["s2"]["B02"].flags.owndata or rows[0]["s2"]["B02"].flags.writeable
    assert np.array_equal(rows[0]["s2"]["B02"], tiles[0]["s2"]["B02"])


def test_a_broken_tile_of_a_batch_is_named_by_the_store(tiles: datasets.Dataset) -> None:
    elsewhere = {"bytes": None, "source": ["S1A_nothing", tiles[1]["s1"].store]}
    rows = [tiles[0], {**tiles[1], "s1": tiles.features["s1"].decode_example(elsewhere)}]
    with pytest.raises(KeyError, match="S1A_nothing"):
        TileCollator(CSMAEImageProcessor())(rows)
    assert rows[0]["s1"]._pixels is None


# Tiles that lack an image


@pytest.mark.parametrize("native", [False, True])
def test_a_missing_image_is_filled_and_said(tiles: datasets.Dataset, native: bool) -> None:
    processor = CSMAEImageProcessor()
    rows = [dict(tiles[n]) for n in range(4)]
    whole = TileCollator(processor, native=native)(rows)
    rows[1]["s1"] = rows[2]["s2"] = None
    batch = TileCollator(processor, native=native, fill_missing=True, with_ids=True)(rows)
    assert {sensor: flags.tolist() for sensor, flags in batch["present"].items()} == {
        "s1": [True, False, True, True],
        "s2": [True, True, False, True],
    }
    for sensor, absent in (("s1", 1), ("s2", 2)):
        given, expected = (one[sensor] if native else {"": one[sensor]} for one in (batch, whole))
        assert set(given) == set(expected)
        for key, pixels in given.items():
            assert pixels.dtype == expected[key].dtype
            for place in range(4):
                right = torch.zeros_like(expected[key][place]) if place == absent else expected[key][place]
                assert torch.equal(pixels[place], right)
    for one in rows:
        one["s2"] = None if one["s1"] is not None else tiles[0]["s2"]
    del rows[1]
    batch = TileCollator(processor, native=native, fill_missing=True)(rows)
    assert not batch["present"]["s2"].any()
    assert (
        processor.process_native({"s2": batch["s2"]})["s2"].shape == (3, 10, 120, 120) if native else batch["s2"].shape
    )


def test_a_tile_without_any_image_is_named(tiles: datasets.Dataset) -> None:
    rows = [{**tiles[0]}, {"id": "empty", "s1": None, "s2": None}]
    with pytest.raises(ValueError, match="tile empty has no image of s1, s2"):
        TileCollator(CSMAEImageProcessor(), fill_missing=True)(rows)


# Suspect tiles


def mixed(v1_tiles: datasets.Dataset, suspect: tuple[int, ...]) -> list[dict[str, Any]]:
    rows = []
    for place in range(len(v1_tiles)):
        tile = {band: pixels + np.uint16(1000 * (place in suspect)) for band, pixels in v1_tiles[place]["s2"].items()}
        rows.append({"id": f"tile_{place}", "s1": v1_tiles[place]["s1"], "s2": tile})
    return rows


class Rows(list[dict[str, Any]]):
    """Rows, read as a dataset's."""

    def __getitems__(self, places: list[int]) -> list[dict[str, Any]]:
        return [self[place] for place in places]


@pytest.mark.parametrize("native", [False, True])
def test_all_suspect_tiles_of_a_batch_are_named(shared_data: Path, native: bool) -> None:
    rows = mixed(load_bigearthnet(shared_data / "bigearthnet_mm_v1_lmdb").select(range(10)), (2, 3, 5, 9))
    with pytest.raises(
        SuspectImageError, match=r"tile tile_2: .*offset of 1000.* also tile tile_3, tile tile_5, tile tile_9"
    ):
        TileCollator(CSMAEImageProcessor(), native=native)(rows)
    taken = TileCollator(CSMAEImageProcessor(), native=native, suspect="accept")(rows)
    assert len(taken["s1"]["VH VV"] if native else taken["s1"]) == 10
    found = find_suspects(CSMAEImageProcessor(), Rows(rows), ["s1", "s2"], range(10))
    assert list(found) == [2, 3, 5, 9]
    assert group_reasons(list(found.values())).startswith("  4 (tile_2, tile_3, tile_5, tile_9): s2 image 0 has hardly")


# Labels


def test_labels_become_rows_of_zeros_and_ones_or_class_numbers() -> None:
    rows = [{**row("a"), "labels": [0, 2]}, {**row("b"), "labels": []}, {**row("c"), "labels": torch.tensor([1])}]
    batch = TileCollator(CSMAEImageProcessor(), ["s1"], num_labels=3)(rows)
    assert torch.equal(batch["labels"], torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    rows = [{**row("a"), "labels": [2]}, {**row("b"), "labels": 0}]
    single = TileCollator(CSMAEImageProcessor(), ["s1"], num_labels=3, problem_type="single_label_classification")
    assert torch.equal(single(rows)["labels"], torch.tensor([2, 0]))
    assert "labels" not in TileCollator(CSMAEImageProcessor(), ["s1"])(rows)


@pytest.mark.parametrize(
    ("labels", "problem_type"),
    [
        (None, "multi_label_classification"),
        ([3], "multi_label_classification"),
        (-1, "multi_label_classification"),
        ([0, 2], "single_label_classification"),
        (-1, "single_label_classification"),
        ([], "single_label_classification"),
    ],
)
def test_a_tile_whose_labels_do_not_fit_is_named(labels: Any, problem_type: str) -> None:
    collator = TileCollator(CSMAEImageProcessor(), ["s1"], num_labels=3, problem_type=problem_type)
    with pytest.raises(ValueError, match=r"tile b has the labels .*: expected .*class numbers? below 3"):
        collator([{**row("a"), "labels": [1]}, {**row("b"), "labels": labels}])


def test_an_unknown_problem_type_is_refused() -> None:
    with pytest.raises(ValueError, match="problem_type = 'regression': expected 'multi_label_classification' or"):
        TileCollator(CSMAEImageProcessor(), num_labels=3, problem_type="regression")
