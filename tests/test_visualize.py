"""Pictures: the composites against arithmetic written out, the figures by what is in them and where."""

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csmae_hf import visualize
from csmae_hf.bigearthnet import LABELS
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.visualize import (
    QueryPicture,
    ResultPicture,
    abbreviate,
    common_limits,
    draw_image_grid,
    draw_retrieval,
    false_color,
    sar_composite,
    stretch,
    to_rgb,
    true_color,
)


def s2_tile(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"B02": 120, "B03": 120, "B04": 120, "B08": 120, "B05": 60}
    return {band: rng.integers(1, 4000, (size, size)).astype(np.uint16) for band, size in sizes.items()}


def s1_tile(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {band: rng.normal(mean, 4, (120, 120)).astype(np.float32) for band, mean in (("VH", -19), ("VV", -12))}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The matplotlib figures that are drawn, kept for inspection."""
    kept: list[Any] = []
    original = visualize.new_figure
    monkeypatch.setattr(visualize, "new_figure", lambda *size: kept.append(original(*size)) or kept[-1])
    return kept


def words_of(figure: Any) -> list[str]:
    return [text.get_text() for text in (*figure.texts, *(text for axes in figure.axes for text in axes.texts))]


# -- composites ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture", "names", "limits"),
    [
        (true_color, ("B04", "B03", "B02"), visualize.TRUE_COLOR_LIMITS),
        (false_color, ("B08", "B04", "B03"), visualize.FALSE_COLOR_LIMITS),
    ],
)
def test_optical_composites_take_their_bands_in_order(picture: Any, names: tuple[str, ...], limits: Any) -> None:
    tile = s2_tile()
    rgb = picture(tile)
    assert rgb.shape == (120, 120, 3)
    for channel, (name, (low, high)) in enumerate(zip(names, limits, strict=True)):
        value = float(tile[name][7, 11])
        assert rgb[7, 11, channel] == pytest.approx(
            min(max((value - low) / (high - low), 0.0), 1.0) ** visualize.GAMMA, abs=1e-5
        )


def test_the_radar_composite_is_vv_vh_and_their_ratio() -> None:
    tile = s1_tile()
    rgb = sar_composite(tile, limits=((-22, -2), (-28, -8), (1, 13)))
    vv, vh = float(tile["VV"][3, 5]), float(tile["VH"][3, 5])
    expected = np.clip([(vv + 22) / 20, (vh + 28) / 20, (vv - vh - 1) / 12], 0, 1)
    np.testing.assert_allclose(rgb[3, 5], expected, atol=1e-5)


def test_the_same_limits_stretch_two_tiles_the_same_way() -> None:
    dark, bright = s2_tile(1), {name: band * 2 for name, band in s2_tile(1).items()}
    limits = common_limits([dark, bright])
    assert to_rgb(dark, limits=limits).mean() < to_rgb(bright, limits=limits).mean()
    pixels = np.concatenate([dark["B04"].ravel(), bright["B04"].ravel()])
    assert limits[0] == pytest.approx(tuple(np.percentile(pixels, [2, 98])), rel=1e-5)


def test_a_tile_is_shown_by_the_bands_it_has() -> None:
    np.testing.assert_array_equal(to_rgb(s2_tile()), true_color(s2_tile()))
    np.testing.assert_array_equal(to_rgb(s1_tile()), sar_composite(s1_tile()))
    both = s1_tile() | s2_tile()
    np.testing.assert_array_equal(to_rgb(both, sensor="s1"), sar_composite(s1_tile()))
    np.testing.assert_array_equal(to_rgb(both, sensor="s2"), true_color(s2_tile()))


def test_an_unknown_sensor_shows_its_first_three_bands_or_one_in_grey() -> None:
    rng = np.random.default_rng(0)
    thermal = {
        "T1": rng.random((30, 30)),
        "T2": rng.random((15, 15)),
        "T3": rng.random((30, 30)),
        "T4": rng.random((30, 30)),
    }
    rgb = to_rgb(thermal, sensor="landsat_thermal", limits=((0, 1),) * 3)
    np.testing.assert_allclose(rgb[..., 0], thermal["T1"], atol=1e-6)
    np.testing.assert_allclose(rgb[::2, ::2, 1], thermal["T2"], atol=1e-6)
    grey = to_rgb({"elevation": rng.normal(500, 80, (20, 20))})
    assert grey.shape == (20, 20, 3)
    assert (grey[..., 0] == grey[..., 2]).all()
    assert grey.min() == 0
    assert grey.max() == 1


def test_values_that_are_not_finite_become_black_and_a_constant_band_does_not_divide_by_zero() -> None:
    image = np.full((2, 2, 1), np.nan)
    assert (stretch(image, [(0, 1)]) == 0).all()
    assert np.isfinite(to_rgb({"flat": np.full((4, 4), 7.0)})).all()
    assert np.isfinite(common_limits([{"gone": np.full((4, 4), np.nan)}])).all()


def test_pictures_of_missing_or_odd_bands_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"B03, B02 missing, given: B04"):
        true_color({"B04": np.zeros((4, 4))})
    with pytest.raises(ValueError, match="VH missing"):
        to_rgb({"VV": np.zeros((4, 4))}, sensor="s1")
    with pytest.raises(ValueError, match="Band VV must be an array"):
        sar_composite({"VV": np.zeros((1, 4, 4)), "VH": np.zeros((4, 4))})
    with pytest.raises(ValueError, match="at least one band"):
        to_rgb({})
    with pytest.raises(ValueError, match="at least one tile"):
        common_limits([])
    with pytest.raises(ValueError, match="low < high"):
        stretch(np.zeros((2, 2, 1)), [(1, 1)])
    with pytest.raises(ValueError, match="one \\(low, high\\) for each channel"):
        stretch(np.zeros((2, 2, 3)), [(0, 1)])


def test_real_tiles_make_pictures_that_are_neither_black_nor_white(shared_data: Path) -> None:
    rows = load_bigearthnet(shared_data / "bigearthnet_v2_reben_lmdb")
    tiles = [dict(row[sensor].items()) for row in rows for sensor in ("s1", "s2")]
    levels = {"s1": [], "s2": []}
    for tile in tiles:
        levels["s1" if "VV" in tile else "s2"].append(to_rgb(tile).mean())
    assert len(levels["s1"]) == len(levels["s2"]) == 32
    assert 0.2 < np.median(levels["s1"]) < 0.8
    assert 0.2 < np.median(levels["s2"]) < 0.8


# -- figures -------------------------------------------------------------------------------------------------------------------------


def test_a_retrieval_figure_marks_hits_and_misses_by_sign_and_colour(tmp_path: Path, figures: list[Any]) -> None:
    rgb = np.zeros((8, 8, 3))
    query = QueryPicture(rgb, "S1 query", ["Pastures", "Urban fabric"])
    hit, miss = ResultPicture(rgb, 0.912, ["Pastures", "Arable land"]), ResultPicture(rgb, 0.5, ["Marine waters"])
    path = draw_retrieval([query], [[hit, miss]], tmp_path / "deep" / "retrieval.png", title="Title", note="Note")
    assert path.stat().st_size > 1000
    (figure,) = figures
    words = words_of(figure)
    assert {"Title", "Note", "S1 query", "✓", "✗", "1 of 2 shared", "0 of 2 shared", "0.912", "0.500"} <= set(words)
    colors = {text.get_text(): text.get_color() for text in figure.texts}
    frames = [axes.spines["left"].get_edgecolor() for axes in figure.axes]
    assert colors["✓"] != colors["✗"]
    assert len(figure.axes) == 3
    assert len(set(frames)) == 3


def test_text_and_pictures_of_a_retrieval_figure_do_not_overlap_nor_leave_the_page(
    tmp_path: Path, figures: list[Any]
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rgb = np.zeros((8, 8, 3))
    longest = sorted(LABELS, key=lambda name: -len(abbreviate(name)))[:5]
    queries = [QueryPicture(rgb, "S2 query → S1", longest), QueryPicture(rgb, "S1 query → S2", longest[:1])]
    results = [[ResultPicture(rgb, -0.123, longest)] * 5, [ResultPicture(rgb, 0.9, longest[2:])] * 4]
    draw_retrieval(
        queries, results, tmp_path / "r.png", title="Retrieval across sensors", note="Ten queries, the first by name."
    )
    (figure,) = figures
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts] + [
        axes.get_window_extent(renderer) for axes in figure.axes
    ]
    page = figure.bbox
    for number, box in enumerate(boxes):
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
        for other in boxes[number + 1 :]:
            shared = min(box.x1, other.x1) - max(box.x0, other.x0), min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(shared) < 2.0, (box, other)


def test_rows_of_different_length_and_queries_without_labels_are_drawn(tmp_path: Path, figures: list[Any]) -> None:
    rgb = np.zeros((8, 8, 3))
    queries = [QueryPicture(rgb, "a", []), QueryPicture(rgb, "b", ["Pastures"])]
    draw_retrieval(queries, [[ResultPicture(rgb, 1.0, ["Pastures"])], []], tmp_path / "r.png")
    assert "query, no labels" in words_of(figures[0])
    assert not {"✓", "✗"} & set(words_of(figures[0])), "what is wanted is not known, so nothing is hit or missed"
    with pytest.raises(ValueError, match="one list of results for each query"):
        draw_retrieval(queries, [[]], tmp_path / "r.png")
    with pytest.raises(ValueError, match="one list of results for each query"):
        draw_retrieval([], [], tmp_path / "r.png")


def test_a_grid_names_its_columns_and_leaves_gaps_empty(tmp_path: Path, figures: list[Any]) -> None:
    rgb = np.full((8, 8, 3), 0.5)
    path = draw_image_grid(
        [[rgb, None], [rgb, rgb]], ["S1", "S1→S2\n(hidden)"], tmp_path / "g.png", row_titles=["a", "b"], title="T"
    )
    assert path.is_file()
    assert len(figures[0].axes) == 3
    assert {"S1", "S1→S2\n(hidden)", "a", "b", "T"} <= set(words_of(figures[0]))


def test_a_grid_that_does_not_fit_its_titles_is_refused(tmp_path: Path) -> None:
    rgb = np.zeros((8, 8, 3))
    for rows in ([], [[rgb]], [[rgb, rgb], [rgb]]):
        with pytest.raises(ValueError, match="one picture for each of the 2 column titles"):
            draw_image_grid(rows, ["a", "b"], tmp_path / "g.png")
    with pytest.raises(ValueError, match="one row title for each"):
        draw_image_grid([[rgb]], ["a"], tmp_path / "g.png", row_titles=["a", "b"])


def test_every_class_has_a_short_name_of_its_own() -> None:
    short = [abbreviate(name) for name in LABELS]
    assert max(map(len, short)) <= 16
    assert len(set(short)) == len(LABELS)
    assert abbreviate("A name of many words indeed") == "A name of many…"
    assert abbreviate("Donaudampfschifffahrt") == "Donaudampfschif…"


def test_drawing_without_matplotlib_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match="pip install 'matplotlib>="):
        draw_image_grid([[np.zeros((8, 8, 3))]], ["a"], tmp_path / "c.png")


def test_making_rgb_imports_no_matplotlib_and_drawing_touches_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys, numpy as np\n"
        f"spec = importlib.util.spec_from_file_location('visualize', {str(visualize.__file__)!r})\n"
        "module = importlib.util.module_from_spec(spec); sys.modules['visualize'] = module; spec.loader.exec_module(module)\n"
        "module.to_rgb({'x': np.eye(4)})\n"
        "heavy = {'matplotlib', 'pandas', 'torch', 'datasets'} & set(sys.modules)\n"
        f"module.draw_image_grid([[np.zeros((8, 8, 3))]], ['a'], {str(tmp_path / 'c.png')!r})\n"
        "sys.exit(f'{heavy} {\"matplotlib.pyplot\" in sys.modules}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set() False"
