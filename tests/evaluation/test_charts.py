"""Charts of the report: every value is in them, nothing lies on anything else."""

import re
from itertools import pairwise

import pytest

from csmae_hf.evaluation.charts import PALETTE, bars, legend, line_chart


def test_a_line_chart_says_its_last_values_apart_from_each_other():
    values = [("s1 → s1", [0.5, 0.300]), ("s1 → s2", [0.1, 0.301]), ("s2 → s2", [0.2, 0.302])]
    chart = line_chart("Precision@k", values)
    ends = re.findall(r'y="([\d.]+)" fill="#[0-9a-f]+">(0\.30\d)', chart)
    heights = sorted(float(height) for height, _ in ends)
    assert {text for _, text in ends} == {"0.300", "0.301", "0.302"}
    assert min(b - a for a, b in pairwise(heights)) > 11.9
    assert chart.count("<polyline") == 3
    assert "s1 → s2: 0.3010 at 2" in chart


def test_one_result_and_zeros_are_drawn():
    assert "<polyline" in line_chart("Recall@k", [("s1 → s1", [0.0])])


def test_bars_are_as_long_as_their_values_and_a_missing_one_is_left_out():
    drawn = bars([("Inland <waters>", "3 queries", [(0.5, (0.25, 0.75)), None])], ["s1 → s1", "s1 → s2"])
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="11"', drawn)]
    assert widths == [374.0, 187.0]  # the whole scale, and half of it
    assert "M93.5 7.5H280.5" in drawn  # the interval
    assert "Inland &lt;waters&gt;" in drawn


@pytest.mark.parametrize("filled", [False, True])
def test_more_series_than_colours_are_told_apart_no_more_but_drawn(filled):
    names = [f"s{n} → s1" for n in range(12)]
    assert legend(names, filled=filled).count("<svg") == 12
    assert len(set(PALETTE)) == len(PALETTE) == 9
