import json

import numpy as np
import pytest
import torch

from csmae_hf.app.glance import draw_projection, evaluation_table, groups_by, project, read_evaluation, sample_rows


def cloud(count=300, width=8, shift=0.0, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, width)) * np.linspace(3, 0.1, width) + shift
    return torch.from_numpy(points / np.linalg.norm(points, axis=1, keepdims=True)).float()


def test_the_projection_is_that_of_a_principal_component_analysis():
    decomposition = pytest.importorskip("sklearn.decomposition")
    vectors = {"s1": cloud(seed=0), "s2": cloud(shift=0.5, seed=1)}
    made = project(vectors)
    stacked = torch.cat(list(vectors.values())).double().numpy()
    pca = decomposition.PCA(2).fit(stacked)
    expected = pca.transform(stacked)
    found = np.concatenate([made.points["s1"], made.points["s2"]])
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-6)
    assert made.explained == pytest.approx(pca.explained_variance_ratio_, abs=1e-6)


def test_the_gap_is_the_distance_between_the_means():
    vectors = {"s1": cloud(seed=0), "s2": cloud(shift=2.0, seed=1)}
    expected = np.linalg.norm(vectors["s1"].numpy().mean(0) - vectors["s2"].numpy().mean(0))
    assert project(vectors).gap == pytest.approx(expected, abs=1e-5)
    assert project({"s1": vectors["s1"]}).gap is None


def test_a_large_archive_is_sampled_evenly():
    rows = sample_rows(12_345, 5000)
    assert len(np.unique(rows)) == 5000
    assert (rows[0], rows[-1]) == (0, 12_344)
    assert len(project({"s1": cloud(700)}, most=100).rows) == 100
    assert (sample_rows(4) == np.arange(4)).all()


def test_one_tile_has_no_projection():
    with pytest.raises(ValueError, match="at least two"):
        project({"s1": cloud(1)})


def test_the_most_frequent_values_are_groups_and_the_rest_is_not():
    groups, group_of = groups_by(["b", "a", "a", None, "c", "b"], most=2)
    assert groups == ["a", "b"]
    assert group_of.tolist() == [1, 0, 0, -1, -1, 1]


def test_a_drawing_has_every_point_and_tells_sensors_by_shape():
    svg = draw_projection(project({"s1": cloud(50), "s2": cloud(50, seed=3)}))
    assert svg.count("h.1") == 100
    assert 'stroke-linecap="round"' in svg
    assert 'stroke-linecap="square"' in svg


def test_an_evaluation_is_shown_and_anything_else_is_refused(tmp_path):
    assert read_evaluation(tmp_path) is None
    assert "No evaluation" in evaluation_table(None)
    direction = {
        "query_sensor": "s1",
        "archive_sensor": "s2",
        "k": 10,
        "n_queries": 40,
        "n_archive": 50,
        "f1_of_means": 0.25,
    }
    document = {
        "format": "csmae-retrieval-results",
        "directions": [{**direction, "random": {"mean": {"f1_of_means": 0.125}}}],
        "metadata": {"alignment": {"method": "center"}, "baseline_alignments": {"untrained": "whiten"}},
        "baselines": {
            "untrained": [{**direction, "f1_of_means": 0.1875}],
            "labels known": [{**direction, "query_sensor": "s2"}],
        },
    }
    (tmp_path / "results.json").write_text(json.dumps(document))
    table = evaluation_table(read_evaluation(tmp_path))
    assert "notice" not in table
    assert "S1 → S2" in table
    assert "0.250 <small>0.125</small>" in table
    assert '<th scope="row">untrained, alignment whiten</th><td>0.188</td>' in table
    assert "labels known" not in table, "not measured in this direction"
    assert "alignment center" in table
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="no evaluation"):
        read_evaluation(tmp_path)
