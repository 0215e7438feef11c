"""A benchmark knows its tiles, and each kind of results that are no entry is refused by its name."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from small_benchmarks import aligned, random_embeds, small_benchmark, small_results, small_tiles

from csmae_hf.bigearthnet import LABELS
from csmae_hf.evaluation.benchmark import OFFICIAL, OWN_NAME, Benchmark, TileList, measured_benchmark, official_of
from csmae_hf.evaluation.submission import check_submission

Results = dict[str, Any]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_tiles(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def whole(tiles: Dataset) -> Results:
    return json.loads(json.dumps(small_results(tiles)))


@pytest.fixture
def results(whole: Results) -> Results:
    return copy.deepcopy(whole)


def test_a_benchmark_is_the_same_after_a_file(tiles: Dataset) -> None:
    benchmark = small_benchmark(tiles)
    assert benchmark.directions == [("s1", "s1"), ("s1", "s2"), ("s2", "s1"), ("s2", "s2")]
    assert benchmark.task_id("s1", "s2") == "tinyCrossSensorRetrieval_s1_to_s2_test"
    assert benchmark.generated
    assert benchmark.classes == LABELS
    assert Benchmark.from_dict(json.loads(json.dumps(benchmark.as_dict()))) == benchmark
    assert Benchmark.of(tiles).task == Benchmark.of(tiles).name == OWN_NAME
    for held in ({}, {"format": "csmae-benchmark", "version": 1}, []):
        with pytest.raises(ValueError, match="benchmark"):
            Benchmark.from_dict(held)


def test_labels_are_part_of_a_list_and_their_order_is_not() -> None:
    one = TileList.of(["a", "b"], [["x", "y"], []])
    assert one.labelled == 1
    assert TileList.of(["b", "a"], [[], ["y", "x"]]) == one
    assert TileList.of(["a", "b"], [["x"], []]).labels != one.labels
    assert TileList.of(["a"], [[]]).labels is None


def test_what_makes_no_benchmark_is_refused(tiles: Dataset) -> None:
    without_test = tiles.filter(lambda split: split != "test", input_columns="split")
    for given, words in (
        (tiles.remove_columns("labels"), "no column labels"),
        (tiles.remove_columns("s2"), "the sensors s1"),
        (without_test, "no labelled tile of the split test"),
        (tiles.select([row for row, split in enumerate(tiles["split"]) if split != "test"][:9]), "no labelled tile"),
        (tiles.rename_column("labels", "l").add_column("labels", ["a"] * len(tiles)), "expected ClassLabel"),
    ):
        with pytest.raises(ValueError, match=words):
            Benchmark.of(given)
    with pytest.raises(ValueError, match=r"not the tiles of BEN-14K.*validation 3508"):
        Benchmark.of(tiles, name="BEN-14K")


def test_results_that_are_an_entry(tiles: Dataset, results: Results) -> None:
    benchmark = small_benchmark(tiles)
    assert check_submission(results, benchmark) == []
    assert check_submission(aligned(results, tiles), benchmark) == []
    measured = measured_benchmark(results)
    assert measured.name == OWN_NAME
    assert (measured.queries, measured.generated) == (benchmark.queries, True)
    assert check_submission(results, measured) == []


def change(path: str, value: Any) -> Callable[[Results], None]:
    def edit(results: Results) -> None:
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
        held: Any = results
        for part in parents:
            held = held[part]
        if value is ...:
            del held[last]
        else:
            held[last] = value(held[last]) if callable(value) else value

    return edit


MADE_WITH = "metadata.provenance.made_with"


@pytest.mark.parametrize(
    ("kind", "edit", "words"),
    [
        ("format", change("format", "other"), "no results.json"),
        ("format", change("version", 3), "it says 3"),
        ("format", change("queries", ...), "not whole"),
        ("protocol", change("protocol.k", 20), "k is 20: expected 10"),
        ("protocol", change("protocol.query_split", "train"), "query_split is train"),
        ("protocol", change("protocol.folds", "5 folds over 7 scenes"), "folds is 5 folds"),
        ("directions", change("directions", lambda held: held[:3]), "s2 to s2 is there 0 times"),
        ("directions", change("directions", lambda held: [*held, held[0]]), "s1 to s1 is there 2 times"),
        ("provenance", change("metadata.provenance", ...), "There is none"),
        ("provenance", change("metadata.provenance", {"data": "x"}), "no record"),
        ("provenance", change(f"{MADE_WITH}.weights", ""), "does not say made_with.weights"),
        ("provenance", change(f"{MADE_WITH}.config", None), "does not say made_with.config"),
        ("provenance", change("metadata.provenance.data", None), "does not say data"),
        ("provenance", change("metadata.provenance.generated", None), "does not say generated"),
        ("generated", change("metadata.provenance.generated", False), "of real tiles"),
        ("queries", change("metadata.provenance.tiles.validation.count", 5), "a limit"),
        ("queries", change("metadata.provenance.tiles.validation.sha256", "f" * 64), "other tiles"),
        ("queries", change("queries.s1.ids.0", "someone"), "the queries|The 12 queries of s1"),
        ("queries", change("queries.s2.classes.0", lambda held: ["Beaches, dunes, sands", *held][:1]), "of s2"),
        ("queries", change("queries.s2.classes.0", ["Roads"]), "'Roads'"),
        ("queries", change("directions.1.n_queries", 5), "s1 to s2 has 5 queries, and 12 are named"),
        ("archive", change("metadata.provenance.tiles.test.count", 11), "Measured on 11 tiles of test"),
        ("archive", change("metadata.provenance.tiles.test", ...), "Measured on 0 tiles of test"),
        ("archive", change("directions.2.n_archive", 11), "s2 to s1 searched 11 tiles"),
        ("alignment", change("metadata.alignment", {"method": "center"}), "metadata.provenance says none"),
        ("range", change("directions.0.ndcg", 1.5), "ndcg of s1 to s1 has 1.5"),
        ("range", change("directions.0.by_query.precision.0", -0.5), "precision of s1 to s1 has -0.5"),
        ("range", change("directions.3.map", math.nan), "map of s2 to s2 has nan"),
        ("recomputed", change("directions.1.ndcg", lambda held: held + 2e-6), "ndcg of s1 to s2 is"),
        ("recomputed", change("directions.1.f1_of_means", lambda held: held - 2e-6), "f1_of_means of s1 to s2"),
        ("recomputed", change("directions.1.by_query.map", lambda held: held[1:]), "no map of each"),
    ],
)
def test_each_kind_of_results_that_are_no_entry(
    tiles: Dataset, results: Results, kind: str, edit: Callable[[Results], None], words: str
) -> None:
    edit(results)
    refusals = check_submission(results, small_benchmark(tiles))
    assert kind in {refusal.kind for refusal in refusals}
    assert any(part in refusal.text for refusal in refusals if refusal.kind == kind for part in words.split("|"))


@pytest.mark.parametrize(
    ("fitted_on", "words"),
    [
        (None, "it says None"),
        ({"split": "test", "count": 3, "sha256": "d" * 64}, "it says test"),
        ({"split": "train", "count": 10**6, "sha256": "d" * 64}, "1000000 tiles that are not the training tiles"),
        ("test", "the tiles of test"),
        ("train", "36 tiles that are not the training tiles"),
    ],
)
def test_an_alignment_that_was_not_fitted_on_training_tiles_is_refused(
    tiles: Dataset, results: Results, fitted_on: Any, words: str
) -> None:
    benchmark = small_benchmark(tiles)
    changed = aligned(results, tiles)
    if fitted_on == "test":
        fitted_on = {"split": "train", "count": 12, "sha256": benchmark.tiles["test"].sha256}
    elif fitted_on == "train":
        fitted_on = {"split": "train", "count": benchmark.tiles["train"].count, "sha256": "d" * 64}
    changed["metadata"]["alignment"]["fitted_on"] = fitted_on
    refusals = check_submission(changed, benchmark)
    assert [refusal.kind for refusal in refusals] == ["alignment"]
    assert words in refusals[0].text


def test_a_limit_is_no_entry(tiles: Dataset) -> None:
    few = tiles.select([row for row in range(len(tiles)) if tiles[row]["split"] != "validation" or row % 2])
    kinds = {refusal.kind for refusal in check_submission(small_results(few), small_benchmark(tiles))}
    assert kinds == {"queries"}
    other = small_results(tiles, random_embeds(tiles), k=5)
    assert {"protocol"} <= {refusal.kind for refusal in check_submission(other, small_benchmark(tiles))}


def test_the_benchmark_of_what_is_no_evaluation_of_splits_is_not_known(results: Results) -> None:
    folds = {**results, "protocol": {**results["protocol"], "query_split": None}}
    for document, words in (
        (None, "no results"),
        ([], "no results"),
        ({}, "no results"),
        ({**results, "queries": {}}, "not whole"),
        ({**results, "metadata": {}}, "do not say on which tiles"),
        (folds, "of all tiles, or of folds"),
    ):
        with pytest.raises(ValueError, match=words):
            measured_benchmark(document)


def test_what_is_no_mapping_is_no_entry(tiles: Dataset) -> None:
    for document in (None, [], "text", {}):
        assert [one.kind for one in check_submission(document, small_benchmark(tiles))] == ["format"]


def test_official_lists_are_known_by_their_tiles() -> None:
    for name, benchmark in OFFICIAL.items():
        assert official_of(benchmark.tiles) == name
        assert official_of({split: {"sha256": one.sha256} for split, one in benchmark.tiles.items()}) == name
        assert {one.labelled == one.count for one in benchmark.tiles.values()} == {True}
    mixed = {**OFFICIAL["BEN-14K"].tiles, "test": OFFICIAL["BEN-270K"].tiles["test"]}
    assert official_of(mixed) is None
    assert official_of({}) is None
    assert OFFICIAL["BEN-14K"].task_id("s1", "s2") == "BEN14KCrossSensorRetrieval_s1_to_s2_test"


@pytest.mark.slow
def test_the_official_list_of_v2_is_that_of_its_first_table(shared_data: Path) -> None:
    table = pq.read_table(shared_data / "reben_metadata" / "metadata.parquet", columns=["patch_id", "labels", "split"])
    for split in ("validation", "test"):
        rows = table.filter(pc.equal(table["split"], split))
        found = TileList.of(rows["patch_id"].to_pylist(), rows["labels"].to_pylist())
        assert found == OFFICIAL["BigEarthNet-v2"].tiles[split]
