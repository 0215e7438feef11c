"""The entry of the benchmarks: what it finds, how it compares, and that its shares and exponents are right."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from benchmarks.__main__ import main, names
from benchmarks.curves import draw_curves
from benchmarks.data import measure_archive
from benchmarks.gpu import idle_share
from benchmarks.machine import best_seconds
from benchmarks.retrieval import measure_labels
from benchmarks.scaling import curve, exponent
from benchmarks.search import measure_vectors
from benchmarks.step import step_flops
from benchmarks.timing import add_ratio, compare, table, time_in_turn
from configuration_csmae import CSMAEConfig
from csmae_hf.sample.generate import generate_sample


def test_every_benchmark_is_found() -> None:
    assert {"archive", "data", "embedding", "gpu", "retrieval", "scaling", "search", "startup", "step"} == set(names())
    assert not {"machine", "memory", "timing", "yardsticks"} & set(names())


@pytest.mark.parametrize(("unit", "ratio"), [("s", 2.0), ("MiB", 2.0), ("images/s", 0.5)])
def test_the_ratio_says_how_much_better_ours_is(unit: str, ratio: float) -> None:
    assert add_ratio({"case": "", "ours": 1.0, "yardstick": 2.0, "unit": unit})["ratio"] == ratio


def test_a_comparison_is_made_round_by_round() -> None:
    row = compare("case", [1.0, 2.0, 4.0], [2.0, 4.0, 4.0], "plain", flops=6e9, limit=6e9, wanted=1.5)
    assert row["ratio"] == 2.0, "the median of 2, 2 and 1"
    assert (row["ours"], row["low"], row["high"]) == (2.0, 1.0, 4.0)
    assert row["fraction"] == 0.5
    rates = compare("case", [1.0, 2.0, 4.0], [2.0, 4.0, 4.0], "plain", items=8, unit="images/s")
    assert (rates["ours"], rates["yardstick"], rates["ratio"]) == (4.0, 2.0, 2.0)


def test_the_table_shows_what_a_row_has_and_nothing_where_it_has_nothing() -> None:
    row = {"case": "a", "ours": 1.0, "yardstick": 2.0, "yardstick_name": "b", "ratio": 2.0, "unit": "s"}
    lines = table([row, {"case": "c", "ours": 0.5, "unit": ""}]).splitlines()
    assert lines[2] == "| a | 1 s |  | 2 s (b) | 2.00 |  |  |"
    assert lines[3].startswith("| c | 0.5  |  |")


def test_functions_are_called_in_turn_and_the_warm_up_does_not_count(monkeypatch) -> None:
    calls: list[str] = []
    now = [100.0]
    lasts = {"a": [0.5, 3.0, 2.0], "b": [90.0, 5.0, 7.0], "c": [0.25, 6.0, 4.0, 8.0]}

    def called(name: str) -> None:
        now[0] += lasts[name][calls.count(name)]
        calls.append(name)

    clock = SimpleNamespace(process_time=lambda: now[0], perf_counter=lambda: now[0])
    monkeypatch.setattr("benchmarks.machine.time", clock)
    seconds = time_in_turn({"a": lambda: called("a"), "b": lambda: called("b")}, torch.device("cpu"), 2)
    assert calls == ["a", "b"] * 3
    assert seconds == {"a": [3.0, 2.0], "b": [5.0, 7.0]}
    assert best_seconds(lambda: called("c"), torch.device("cpu"), repeats=3) == 4.0
    assert calls.count("c") == 4


def test_an_unknown_name_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["steps"])
    assert "no benchmark steps: there are" in capsys.readouterr().err


def test_the_document_is_written(tmp_path, capsys, monkeypatch) -> None:
    limit = {"case": "limit", "ours": 1.0, "unit": "GB/s"}
    row = {
        "case": "step",
        "ours": 4.0,
        "low": 3.0,
        "high": 5.0,
        "yardstick": 6.0,
        "yardstick_name": "plain",
        "unit": "s",
    }
    sizes = []
    monkeypatch.setattr("benchmarks.__main__.limit_rows", lambda device: [limit])
    monkeypatch.setattr("benchmarks.gpu.measure", lambda full: sizes.append(full) or [dict(row)])
    assert main(["gpu", "--json", str(tmp_path / "all.json")]) == 0
    document = json.loads((tmp_path / "all.json").read_text())
    assert document["benchmarks"] == {"gpu": [{**row, "ratio": 1.5}]}
    assert document["limits"] == [limit]
    assert document["machine"]["torch"] == torch.__version__
    assert sizes == [False]
    said = capsys.readouterr().out
    assert "| limit | 1 GB/s |" in said
    assert "## gpu" in said
    assert "| step | 4 s | 3 to 5 | 6 s (plain) | 1.50 |  |  |" in said


def test_idle_is_the_time_that_no_kernel_covers() -> None:
    assert idle_share([(0, 4), (3, 5), (8, 10)]) == pytest.approx(0.3)
    assert idle_share([(8, 10), (0, 9), (1, 2)]) == 0
    with pytest.raises(ValueError, match="no kernel"):
        idle_share([])


def test_the_exponent_is_that_of_the_curve() -> None:
    assert exponent([1, 10, 100], [3, 3 * 10**1.5, 3 * 10**3]) == pytest.approx(1.5)
    assert math.isclose(exponent([1, 2, 3], [5, 5, 5]), 0, abs_tol=1e-12)


def test_the_operations_of_a_step_are_those_of_its_matrices() -> None:
    """Blocks of 12 width^2 weights, twice forward and four times back, of every token that passes; the rest is small."""
    encoder = 6 * 12 * 12 * 192**2 * (2 * 2 * 33)
    trunk = 6 * 8 * 12 * 512**2 * (2 * 2 * 65)
    for variant, trunks in {"cecd": 1, "sesd": 2}.items():
        expected = encoder + trunks * trunk
        assert expected < step_flops(CSMAEConfig.for_variant(variant, size="tiny"), batch=2) < 1.2 * expected


def test_curves_are_drawn_where_there_are_any(tmp_path) -> None:
    rows = [*curve("search, width 8, tiles", {10: 0.1, 1000: 9.0}), *curve("embedding, tiles", {1: 1.0, 2: 2.0})]
    assert draw_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1.8 * picture.height
    assert not draw_curves([{"case": "a", "ours": 1.0, "unit": "s"}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_reading_is_measured_beside_a_copy_and_the_plain_way(tmp_path) -> None:
    threads = torch.get_num_threads()
    rows = measure_archive(generate_sample(tmp_path / "sample", tiles=5, seed=0), batch_size=4, repeats=1)
    assert torch.get_num_threads() == threads
    cases = {row["case"].split(": ")[1]: row for row in rows}
    assert cases["read and decode"]["yardstick_name"] == "plain copy out of LMDB"
    whole = cases["rows, read, check, resample, standardise"]
    assert (whole["yardstick_name"], whole["wanted"], whole["unit"]) == ("plain way", 10, "tiles/s")
    assert 0 < whole["fraction"] < 1


def test_metrics_are_measured_only_if_they_are_right(monkeypatch) -> None:
    rows = measure_labels(queries=60, archive=80, k=5, loop_queries=30, resamples=20, repeats=1)
    assert rows[0]["case"].split(": ")[1] == "precision, recall, both F1"
    assert rows[0]["ratio"] > 1
    monkeypatch.setattr("benchmarks.retrieval.double_loop", lambda *args: (0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="by the double loop"):
        measure_labels(queries=60, archive=80, k=5, loop_queries=30, resamples=20, repeats=1)


def test_search_is_measured_under_every_filter_that_leaves_enough() -> None:
    rows = measure_vectors(rows=600, width=16, queries=3, kinds=[], repeats=1)
    assert [row["case"] for row in rows] == [
        f"600 x 16: exact{kept}, {count} at once, recall 1.000"
        for kept in ("", ", a filter keeps 20 %", ", a filter keeps 2 %")
        for count in (3, 1)
    ]
    assert {row["bound"] for row in rows} == {"matmul", "memory"}
