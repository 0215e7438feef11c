"""Where numbers come from: recorded once, compared by what differs."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from archives import make_model, make_processor

from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.provenance import Provenance, changed_sets, tile_sets


def fit(seed: int = 0) -> Alignment:
    rng = np.random.default_rng(seed)
    return Alignment.fit({"s1": rng.normal(size=(9, 4)), "s2": rng.normal(size=(9, 4))}, "center")


@pytest.fixture(scope="module")
def record() -> Provenance:
    made = Provenance.of(
        make_model(),
        make_processor(),
        name="/home/me/runs/tiny",
        alignment=fit(),
        data="/home/me/tiles",
        generated=True,
        ids=["b", "a", "c"],
        splits=["test", "test", "validation"],
    )
    assert isinstance(made, Provenance)
    return made


def test_a_record_says_all_and_no_place(record: Provenance) -> None:
    assert (record.made_with.model, record.data) == ("tiny", "tiles")
    assert record.made_with.precision == "float32"
    assert record.alignment_hash == hashlib.sha256(fit().to_bytes()).hexdigest()
    total = sum(int(hashlib.sha256(name).hexdigest(), 16) for name in (b"a", b"b")) % 2**256
    assert record.tiles["test"] == {
        "count": 2,
        "sha256": hashlib.sha256(b"a\0b\0").hexdigest(),
        "sum": f"{total:064x}",
    }
    assert "/home" not in str(record.as_dict())
    assert Provenance.from_dict(record.as_dict()).differences(record) == []
    said = record.sentence()
    for word in (
        "tiles",
        "generated scenes",
        "2 tiles of test",
        "alignment center",
        "tiny",
        record.made_with.weights[:12],
    ):
        assert word in said


def test_ids_may_be_in_any_order_and_do_not_run_together() -> None:
    assert tile_sets(["a", "b"]) == tile_sets(["b", "a"])
    assert tile_sets(["ab", "c"]) != tile_sets(["a", "bc"])


def test_a_record_follows_what_is_added_and_removed_without_the_rest() -> None:
    before, after = tile_sets("abcd", ["x", "x", "y", None]), tile_sets("bde", ["x", None, "y"])
    changed = changed_sets(before, tile_sets("e", ["y"]), tile_sets("ac", ["x", "y"]))
    assert changed == {
        split: {name: value for name, value in one.items() if name != "sha256"} for split, one in after.items()
    }
    assert changed_sets(before, {}, before) == {}


def test_tiles_are_compared_by_what_is_known_of_both(record: Provenance) -> None:
    known = record.tiles["test"]
    for change, differs in (
        ({"count": 3}, True),
        ({"count": 2, "sha256": "0" * 64}, True),  # as results of earlier releases have it
        ({"count": 2, "sha256": known["sha256"]}, False),
        ({"count": 2, "sum": known["sum"]}, False),
        ({"count": 2, "sum": "0" * 64}, True),
    ):
        told = {"sum": known["sum"], **change}
        assert bool(record.differences(replace(record, tiles={"test": told}))) == differs


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", {"made_with": {"weights": "0" * 64}}),
        ("processor", {"made_with": {"processor": "0" * 64}}),
        ("num_attention_heads", {"made_with": {"config": {"num_attention_heads": 77}}}),
        ("alignment", {"alignment": "none", "alignment_hash": None}),
        ("alignment", {"alignment_hash": "0" * 64}),
        ("data", {"data": "others"}),
        ("generated scenes", {"generated": False}),
        ("tiles of test", {"tiles": {"test": {"count": 2, "sha256": "0" * 64}}}),
    ],
)
def test_each_thing_that_differs_is_named(record: Provenance, name: str, change: dict) -> None:
    inner = change.get("made_with")
    other = replace(record, **(change if inner is None else {"made_with": replace(record.made_with, **inner)}))
    assert name in [one.name for one in record.differences(other)]


def test_what_is_not_known_and_the_version_of_the_software_are_no_difference(record: Provenance) -> None:
    made_with = replace(record.made_with, code="99", config=None)
    assert record.differences(replace(record, made_with=made_with, data=None, generated=None, tiles={})) == []


def test_something_else_is_no_record() -> None:
    with pytest.raises(ValueError, match="no record"):
        Provenance.from_dict({"made_with": {"model": "x"}})
