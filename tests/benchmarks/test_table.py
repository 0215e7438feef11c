"""The entry of the benchmarks: what it finds, how it compares, and that its shares and exponents are right."""

import json
import math

import pytest
import torch

from benchmarks.__main__ import main, names
from benchmarks.gpu import idle_share
from benchmarks.machine import best_seconds
from benchmarks.scaling import exponent
from benchmarks.step import step_flops
from benchmarks.timing import add_ratio, compare, table, time_in_turn
from configuration_csmae import CSMAEConfig


def test_every_benchmark_is_found() -> None:
    assert {"data", "embedding", "gpu", "retrieval", "scaling", "search", "startup", "step"} == set(names())
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


def test_functions_are_called_in_turn_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    seconds = time_in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, torch.device("cpu"), 2)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert best_seconds(lambda: calls.append("c"), torch.device("cpu"), repeats=3) < 0.1
    assert calls.count("c") == 4


def test_an_unknown_name_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["steps"])
    assert "no benchmark steps: there are" in capsys.readouterr().err


def test_the_document_is_written(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(
        "benchmarks.__main__.limit_rows", lambda device: [{"case": "limit", "ours": 1.0, "unit": "GB/s"}]
    )
    assert main(["gpu", "--json", str(tmp_path / "all.json")]) == 0  # no rows without a GPU
    document = json.loads((tmp_path / "all.json").read_text())
    assert document["benchmarks"] == {"gpu": []}
    assert document["machine"]["torch"] == torch.__version__
    assert "## gpu" in capsys.readouterr().out


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
