"""Charts: what is drawn are the given numbers, each under its name, and no name lies on another."""

import builtins
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from csmae_hf.charts import PALETTE, as_svg, bars, curves, spread_apart
from csmae_hf.visualize import save_figure


def boxes_of(figure: Any) -> list[Any]:
    """Where the words of a figure lie, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for axes in figure.axes for text in (*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label)]
    for axes in figure.axes:
        low, high = sorted(axes.get_ylim())  # ticks beyond the limits are not drawn
        texts += [label for label in axes.get_yticklabels(which="both") if low <= label.get_position()[1] <= high]
    texts += [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    return [text.get_window_extent(renderer) for text in texts if text.get_text()]


def assert_words_are_apart_and_inside(figure: Any) -> None:
    figure.draw_without_rendering()
    boxes = boxes_of(figure)
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.padded(-0.5).overlaps(b.padded(-0.5))]
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_curves_are_the_given_numbers_and_named_at_their_ends_with_gaps_left_out() -> None:
    series = {
        "loss": ([0, 10, 20], [3.0, 2.0, 1.5]),
        "mim": ([0, 10, 20], [1.0, float("nan"), 0.25]),
        "none": ([0], [float("nan")]),
    }
    figure = curves({"Training losses": series}, x_label="step", y_label="loss")
    (axes,) = figure.axes
    for line, (name, (places, values)) in zip(axes.get_lines(), series.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xdata(), places)
        np.testing.assert_array_equal(line.get_ydata(), values)
    words = {text.get_text(): text.get_color() for text in axes.texts}
    assert list(words) == ["none  nan", "mim  0.250", "loss  1.50"]
    assert [words["loss  1.50"], words["mim  0.250"]] == [line.get_color() for line in axes.get_lines()[:2]]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("step", "loss", "Training losses")
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}) == 3


def test_panels_have_their_own_curves_and_may_begin_at_zero() -> None:
    panels = {"P": {"S1 → S2": ([1, 2], [0.5, 0.4])}, "R": {"S1 → S2": ([1, 2], [0.9, 0.8])}}
    figure = curves(panels, x_label="k", zero=True)
    assert [axes.get_lines()[0].get_ydata().tolist() for axes in figure.axes] == [[0.5, 0.4], [0.9, 0.8]]
    assert [axes.get_ylim()[0] for axes in figure.axes] == [0, 0]
    assert curves({"loss": {"loss": ([0, 1], [10.0, 0.1])}}, x_label="step", log=True).axes[0].get_yscale() == "log"


def test_names_of_curves_that_end_together_lie_apart() -> None:
    names = [f"S{a} → S{b}" for a in (1, 2, 3) for b in (1, 2, 3)]
    series = {name: ([1, 2, 3], [0.5, 0.4, 0.3 + 0.001 * number]) for number, name in enumerate(names)}
    for panels in ({"Precision@k": series}, {"Precision@k": series, "Recall@k": series}):
        assert_words_are_apart_and_inside(curves(panels, x_label="k", zero=True))


@pytest.mark.parametrize(
    ("values", "log"), [((8.0, 0.1), True), ((900.0, 300.0), True), ((1e-3, 1e-5), False), ((0.9, 0.8), True)]
)
def test_numbers_on_the_axis_lie_apart_from_each_other_and_from_its_name(
    values: tuple[float, float], log: bool
) -> None:
    figure = curves({"Losses": {"loss": ([1, 1000], values)}}, x_label="step", y_label="learning rate", log=log)
    assert_words_are_apart_and_inside(figure)


def test_curves_without_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one curve"):
        curves({"losses": {}}, x_label="step")
    with pytest.raises(ValueError, match="'loss' must have as many steps as values"):
        curves({"losses": {"loss": ([0, 1], [1.0])}}, x_label="step")


GROUPS = {
    "Arable land\n12 queries": [(0.5, (0.25, 0.75)), (0.125, None)],
    "Inland <waters>\n3 queries": [None, (1.0, (0.5, 1.0))],
}


def test_bars_are_as_long_as_their_values_and_a_missing_one_is_left_out() -> None:
    def middle(bar: Any) -> float:
        return bar.get_y() + bar.get_height() / 2

    figure = bars(GROUPS, ["S1 → S1", "S1 → S2"], title="By class", x_label="F1@10")
    (axes,) = figure.axes
    first, second = axes.containers
    assert [bar.get_width() for bar in first] == [0.5]
    assert [bar.get_width() for bar in second] == [0.125, 1.0]
    assert first[0].get_facecolor() != second[0].get_facecolor()
    assert [tuple(line.get_xdata()) for line in axes.get_lines()] == [(0.25, 0.75), (0.5, 1.0)]  # intervals
    middles = {round(middle(bar), 6): f"{bar.get_width():.3f}" for bar in (*first, *second)}
    assert {round(text.get_position()[1], 6): text.get_text() for text in axes.texts} == middles
    ticks = dict(zip((text.get_text() for text in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    assert list(ticks) == list(GROUPS)
    assert ticks["Arable land\n12 queries"] == pytest.approx((middle(first[0]) + middle(second[0])) / 2)
    assert axes.get_xlim() == (0, 1)
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["S1 → S1", "S1 → S2"]


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_words_of_bars_lie_apart_whatever_the_number_of_series(count: int) -> None:
    groups = {f"Class {number}\n10 queries": [(0.3, (0.2, 0.4))] * count for number in range(19)}
    assert_words_are_apart_and_inside(
        bars(groups, [f"S{n} → S{n}" for n in range(count)], title="By class", x_label="F1")
    )


def test_an_svg_stands_alone_keeps_its_words_and_is_the_same_every_time() -> None:
    first, second = (
        as_svg(bars(GROUPS, ["S1 → S1", "a & b"], title="T", x_label="F1"), 'Bars "of" F1') for _ in range(2)
    )
    assert first == second
    assert first.startswith('<svg role="img" aria-label="Bars &quot;of&quot; F1"')
    assert first.rstrip().endswith("</svg>")
    assert "http" not in first
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', first))
    words = re.findall(r"<text[^>]*>(.*?)</text>", first)
    assert {"S1 → S1", "a &amp; b", "0.125", "0.500", "1.000"} <= set(words)
    assert any("Inland &lt;waters&gt;" in word for word in words)


def test_the_ending_of_a_file_decides_its_format_and_folders_are_made(tmp_path: Path) -> None:
    figure = curves({"T": {"loss": ([0, 1], [1.0, 0.5])}}, x_label="step")
    with Image.open(save_figure(figure, tmp_path / "new" / "a.png")) as picture:
        assert picture.size == tuple(round(150 * inches) for inches in figure.get_size_inches())
    assert "<svg" in save_figure(figure, tmp_path / "a.svg").read_text()


def test_colours_are_different() -> None:
    assert len(set(PALETTE)) == len(PALETTE) == 9


def test_names_of_curves_are_moved_apart_and_stay_in_place_where_there_is_room() -> None:
    assert spread_apart([0.1, 0.5, 0.9], 0.05) == [0.1, 0.5, 0.9]
    crowded = spread_apart([0.0, 0.01, 0.99, 1.0], 0.1)
    assert np.diff(crowded).min() == pytest.approx(0.1)
    assert min(crowded) >= 0
    assert max(crowded) <= 1
    many = spread_apart([0.5] * 30, 0.1)
    assert min(many) >= -1e-9
    assert max(many) <= 1 + 1e-9


def test_drawing_without_matplotlib_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="pip install 'matplotlib>="):
        curves({"T": {"loss": ([0], [1.0])}}, x_label="step")


def test_the_import_brings_in_no_matplotlib_and_drawing_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from csmae_hf.charts import curves\n"
        "from csmae_hf.visualize import save_figure\n"
        "early = 'matplotlib' in sys.modules\n"
        f"save_figure(curves({{'T': {{'loss': ([0, 1], [1.0, 0.5])}}}}, x_label='step'), {str(tmp_path / 'c.png')!r})\n"
        "print(early, 'matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
