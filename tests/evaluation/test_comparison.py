"""Models side by side: grouped by their records, compared on the same queries, written for papers and programs."""

import csv
import io

import numpy as np
import pytest
import yaml

from csmae_hf.evaluation.comparison import compare
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.tables import Table, class_table, differences_table, scores_table
from csmae_hf.evaluation.trainings import group_trainings
from csmae_hf.metrics.random_baseline import expected_baseline


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(0)
    labels = rng.random((80, 4)) < 0.4
    labels[np.arange(80), rng.integers(0, 4, 80)] = True
    return labels


def evaluate(labels, noise, seed):
    rng = np.random.default_rng(seed)
    content = labels @ np.random.default_rng(9).normal(size=(4, 6))
    ids = [f"tile_{n}" for n in range(80)]
    splits = ["validation"] * 40 + ["test"] * 40
    embeds = {
        sensor: Embedded((content + noise * rng.normal(size=content.shape)).astype(np.float32), ids, labels, splits)
        for sensor in ("s1", "s2")
    }
    results = evaluate_retrieval(embeds, k=5, resamples=20, progress=False)
    return embeds, {result.name: result for result in results}


def test_differences_are_those_of_a_plain_paired_bootstrap(labels):
    embeds, good = evaluate(labels, 0.1, 0)
    _, bad = evaluate(labels, 3.0, 1)
    _, worse = evaluate(labels, 3.0, 2)
    found = compare({"A": [good], "B": [bad, worse]}, embeds, resamples=300, seed=5)
    assert {one.model for one in found} == {"B"}
    assert {one.other for one in found} == {"A"}
    one = next(d for d in found if (d.direction, d.group, d.metric) == ("s1 -> s2", "all", "f1_of_means"))

    def f1(result, rows):
        p, r = (result["s1 -> s2"].by_query[name][rows].mean() for name in ("precision", "recall"))
        return 2 * p * r / (p + r)

    everything = np.arange(40)
    expected = (f1(bad, everything) + f1(worse, everything)) / 2 - f1(good, everything)
    assert one.difference == pytest.approx(expected)
    assert one.score - one.other_score == pytest.approx(one.difference)
    assert one.interval.lower < one.difference < one.interval.upper < 0
    rng = np.random.default_rng(11)
    drawn = []
    for _ in range(2000):
        rows = rng.integers(0, 40, 40)
        drawn.append((f1(bad, rows) + f1(worse, rows)) / 2 - f1(good, rows))
    assert one.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.04)
    by_class = next(d for d in found if (d.direction, d.group, d.value) == ("s2 -> s1", "class", "2"))
    assert by_class.n_queries == labels[:40, 2].sum()


def test_other_queries_are_not_compared(labels):
    embeds, one = evaluate(labels, 0.1, 0)
    unknown = labels.copy()
    unknown[3] = False
    _, other = evaluate(unknown, 0.1, 0)
    with pytest.raises(ValueError, match="A and B were measured on different queries"):
        compare({"A": [one], "B": [other]}, embeds, resamples=10, seed=0)


def test_tables_say_the_same_in_every_form(labels):
    embeds, good = evaluate(labels, 0.1, 0)
    _, bad = evaluate(labels, 3.0, 1)
    models = {"runs/a_b": [good], "50%": [bad]}
    found = compare(models, embeds, resamples=50, seed=0)
    scores = scores_table(models, {"runs/a_b": "whiten"}, {"untrained": bad})
    assert [row[1] for row in scores.rows[:4]] == ["runs/a_b", "50%", "untrained", "random order"]
    assert scores.rows[0][2] == "whiten"
    rows = list(csv.DictReader(io.StringIO(scores.csv())))
    assert float(rows[0]["f1_of_means"]) == good["s1 -> s1"].scores["f1_of_means"]
    assert f"{float(rows[0]['f1_of_means']):.4f}" in scores.rows[0]
    assert float(rows[0]["f1_of_means_lower"]) <= float(rows[0]["f1_of_means"])
    assert scores.markdown().splitlines()[2].split(" | ")[1] == "runs/a_b"
    latex = scores.latex()
    assert r"runs/a\_b" in latex
    assert r"50\%" in latex
    assert r"s1 $\rightarrow$ s1" in latex
    assert latex.count(r"\\") == 1 + len(scores.rows)
    table = differences_table(found, 5)
    gain = bad["s1 -> s1"].scores["precision"] - good["s1 -> s1"].scores["precision"]
    assert f"{gain:+.4f}" in table.rows[0][3]
    assert len(table.records) == len(found)
    classes = class_table(models, found, 5)
    assert len(classes.rows) == sum(len(result.groups["class"]) for result in good.values())
    assert f"{good['s1 -> s1'].groups['class']['0'].scores['f1_of_means']:.4f}" in classes.rows[0]
    chance = expected_baseline(labels[:40][labels[:40, 0]], labels[40:])["f1_of_means"]
    assert classes.records[0]["random_f1_of_means"] == pytest.approx(chance)
    assert classes.header[3] == "random order F1@5"
    assert classes.rows[0][3] == f"{chance:.4f}"


def test_a_table_without_rows_and_with_awkward_cells_is_still_a_table():
    assert Table(["a", "b"], [], []).text().splitlines()[0] == "a  b"
    assert r"x\|y" in Table(["a"], [["x|y"]], [{"a": 1}]).markdown()
    assert r"\textbackslash{}\{\}\#" in Table(["a"], [["\\{}#"]], [{"a": 1}]).latex()


def record(folder, **arguments):
    folder.mkdir()
    (folder / "arguments.yaml").write_text(yaml.safe_dump({"size": "tiny", "output_dir": str(folder), **arguments}))
    return str(folder)


def test_trainings_of_one_model_differ_in_the_seed_alone(tmp_path):
    a = [record(tmp_path / f"a{seed}", seed=seed, variant="sesd", logging_steps=seed) for seed in (1, 2, 3)]
    b = record(tmp_path / "b", seed=1, variant="cecd")
    again = record(tmp_path / "again", seed=2, variant="sesd")  # the seed of one that is there: another model
    (tmp_path / "foreign").mkdir()
    foreign = str(tmp_path / "foreign")
    broken = record(tmp_path / "broken")
    (tmp_path / "broken" / "arguments.yaml").write_text(": : [")
    groups = group_trainings([a[0], b, a[1], foreign, again, a[2], broken, "somebody/model"])
    assert list(groups.values()) == [a, [b], [foreign], [again], [broken], ["somebody/model"]]
    assert next(iter(groups)) == f"{a[0]} and 2 more"
    assert list(groups)[1] == b
