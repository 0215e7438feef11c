"""The metrics as a module of the `evaluate` library, loaded from its folder and out of a built wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from csmae_hf.evaluation import EVALUATE_MODULE
from csmae_hf.metrics.ranking import METRICS, mean_scores, query_scores
from csmae_hf.metrics.whole_archive import hubness

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    import evaluate

    return evaluate.load(EVALUATE_MODULE, cache_dir=str(tmp_path_factory.mktemp("evaluate")))


def as_lists(labels):
    return [np.flatnonzero(row).tolist() for row in labels]


def test_it_gives_what_the_functions_give(metric):
    rng = np.random.default_rng(0)
    query, archive = rng.random((20, 6)) < 0.4, rng.random((15, 6)) < 0.4
    ranking = np.stack([rng.permutation(15)[:5] for _ in range(20)])
    given = {"predictions": ranking.tolist(), "references": as_lists(query), "archive_labels": as_lists(archive)}
    result = metric.compute(**given)
    expected = mean_scores(query_scores(query, archive, ranking))
    assert {name: result[name] for name in METRICS} == pytest.approx(expected)
    assert result["hubness"] == pytest.approx(hubness(ranking, 15).skewness)
    assert set(metric.compute(**given, resamples=20)["intervals"]) == set(METRICS)


def test_batches_add_up(metric):
    archive = [[0], [1], [0, 1]]
    metric.add_batch(predictions=[[0, 1]], references=[[0]])
    metric.add_batch(predictions=[[2, 1]], references=[[1]])
    together = metric.compute(predictions=[[0, 1], [2, 1]], references=[[0], [1]], archive_labels=archive)
    metric.add_batch(predictions=[[0, 1], [2, 1]], references=[[0], [1]])
    assert metric.compute(archive_labels=archive)["map"] == together["map"]


def test_mistakes_are_named(metric):
    with pytest.raises(ValueError, match="class number 7"):
        metric.compute(predictions=[[0]], references=[[7]], archive_labels=[[0]], num_classes=3)
    with pytest.raises(ValueError, match="an archive of 1 tiles"):
        metric.compute(predictions=[[4]], references=[[0]], archive_labels=[[0]])


@pytest.mark.slow
def test_the_wheel_carries_it(tmp_path):
    source = tmp_path / "source"  # a copy: a build leaves files beside what it builds
    shutil.copytree(ROOT / "csmae_hf", source / "csmae_hf", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (
        *ROOT.glob("*.py"),
        *(ROOT / name for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")),
    ):
        shutil.copy(path, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert built.returncode == 0, built.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert "csmae_hf/evaluation/cross_sensor_retrieval/cross_sensor_retrieval.py" in names
    assert "csmae_hf/evaluation/report.html" in names
