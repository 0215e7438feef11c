"""MTEB's evaluator and the package's give the same numbers of the same embeds; every encoder enters."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from small_benchmarks import random_embeds, small_benchmark, small_results, small_tiles

from csmae_hf.archive.archive import Archive
from csmae_hf.data.load import load_data
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.file_encoder import FileEncoder
from csmae_hf.embedding.foreign import encoder_pair
from csmae_hf.evaluation.benchmark import Benchmark
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.hub.benchmarks import benchmark_entries, eval_yaml
from csmae_hf.metrics.trec import CUTS, trec_scores

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'mteb>=2.26'")
from mteb.models.model_meta import ModelMeta  # noqa: E402

from csmae_hf.evaluation import mteb_task  # noqa: E402
from csmae_hf.evaluation.mteb_task import CrossSensorSearch, cross_sensor_task, nearest_tiles  # noqa: E402

SAME = 1e-6


class BandMeans:
    """An encoder of four attributes."""

    def __init__(self, version: int = 1):
        self.sensors = {"s1": ["VV", "VH"], "s2": ["B02", "B08"]}
        self.width = 2
        self.provenance_fields = {"version": version}

    def embed(self, pixels: torch.Tensor, sensor: str) -> torch.Tensor:
        return pixels.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """With a query whose only class no tile of the archive has, another that has no label, and as many tiles of the archive."""
    found = small_tiles(tmp_path_factory.mktemp("mteb"))
    labels, splits = [list(one) for one in found["labels"]], found["split"][:]
    queries = [row for row, split in enumerate(splits) if split == "validation"]
    archive = [row for row, split in enumerate(splits) if split == "test"]
    rare = max(range(19), key=lambda number: sum(number not in labels[row] for row in archive))
    for row in archive:
        labels[row] = [number for number in labels[row] if number != rare]
    labels[queries[0]], labels[queries[1]], labels[archive[0]] = [rare], [], []
    feature = found.features["labels"]
    return found.remove_columns("labels").add_column("labels", labels, feature=feature)


def measured(result: Any) -> dict[str, dict[str, float]]:
    return {one["hf_subset"]: one for one in result.task_results[0].scores["test"]}


def expected(embeds: dict[str, Embedded], one: DirectionResult) -> dict[str, float]:
    """All that MTEB reports of a direction, of the package's own ranking."""
    query, archive = embeds[one.query_sensor], embeds[one.archive_sensor]
    rows = np.unique(
        [row for row, split in enumerate(archive.splits or ()) if split == "test" and archive.labels[row].any()]
    )
    ranking = np.searchsorted(rows, one.ranking)
    scores = trec_scores(query.labels[one.query_rows], archive.labels[rows], ranking)
    own = {f"csmae_{name}_at_10": value for name, value in one.scores.items()}
    return {name: float(values.mean()) for name, values in scores.items()} | own | {"main_score": one.scores["ndcg"]}


def agree(found: dict[str, dict[str, float]], embeds: dict[str, Embedded]) -> None:
    results = evaluate_retrieval(embeds)
    assert [f"{one.query_sensor}_to_{one.archive_sensor}" for one in results] == list(found)
    for one in results:
        wanted, given = expected(embeds, one), found[f"{one.query_sensor}_to_{one.archive_sensor}"]
        assert {name: given[name] for name in wanted} == pytest.approx(wanted, abs=SAME)
        assert {f"{name}_at_{k}" for name in ("ndcg", "map", "recall", "precision") for k in CUTS} <= wanted.keys()


def test_both_evaluators_agree_with_ties_and_with_queries_that_nothing_answers(tiles: Dataset, tmp_path: Path) -> None:
    embeds = random_embeds(tiles)
    np.savez(tmp_path / "e.npz", ids=np.array(tiles["id"]), **{name: one.embeds for name, one in embeds.items()})
    encoder = FileEncoder(dict.fromkeys(("s1", "s2"), tmp_path / "e.npz"))
    task = cross_sensor_task(tiles, small_benchmark(tiles))
    found = measured(mteb.evaluate(CrossSensorSearch(encoder=encoder), task, cache=None, show_progress_bar=False))
    agree(found, embeds)
    one = evaluate_retrieval(embeds)[1]
    assert one.irrelevant_queries == 1
    assert one.unlabelled_queries == one.unlabelled_archive == 1
    assert (one.similarities[:, 1:] == one.similarities[:, :-1]).any()


def test_what_mteb_writes_for_the_hub_is_what_the_package_writes(
    tiles: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeds = random_embeds(tiles)
    np.savez(tmp_path / "e.npz", ids=np.array(tiles["id"]), **{name: one.embeds for name, one in embeds.items()})
    model = CrossSensorSearch(encoder=FileEncoder(dict.fromkeys(("s1", "s2"), tmp_path / "e.npz")))
    benchmark = small_benchmark(tiles)
    task = cross_sensor_task(tiles, benchmark, repository="tester/tiny", revision="0" * 40)
    assert task._create_task_hf_config().model_dump(exclude_none=True)["tasks"] == eval_yaml(benchmark)["tasks"]
    type(task._create_task_hf_config()).model_validate(eval_yaml(benchmark))
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False).task_results[0]
    monkeypatch.setattr(sys.modules["mteb.get_tasks"], "get_task", lambda name: task)
    theirs = {one.dataset.task_id: one.value for one in result._to_hf_benchmark_result().root}
    ours = benchmark_entries(small_results(tiles, embeds), benchmark, "tester/tiny")
    assert {one["dataset"]["task_id"]: one["value"] for one in ours} == pytest.approx(theirs, abs=1e-4)


def test_an_encoder_of_four_attributes_enters_by_its_pixels(tiles: Dataset) -> None:
    pair = encoder_pair(BandMeans())
    embeds = {name: embed_dataset(*pair, tiles, name, progress=False) for name in ("s1", "s2")}
    train = [row for row, split in enumerate(tiles["split"]) if split == "train"]
    alignment = Alignment.fit({name: values[train] for name, values in embeds.items()}, "center")
    model = CrossSensorSearch(encoder=BandMeans(), name="tester/means", alignment=alignment)
    found = measured(mteb.evaluate(model, cross_sensor_task(tiles), cache=None, show_progress_bar=False))
    agree(found, {name: Embedded.from_dataset(alignment.apply(one, name), tiles) for name, one in embeds.items()})
    assert model.mteb_model_meta.name == "tester/means"
    revisions = {
        CrossSensorSearch(encoder=BandMeans(version), alignment=one).mteb_model_meta.revision
        for version, one in ((1, None), (1, alignment), (2, None))
    }
    assert len(revisions) == 3


class RawMeans:
    """A rival, by MTEB's own protocol for encoders: it knows nothing of this package."""

    mteb_model_meta = ModelMeta.create_empty({"name": "tester/raw", "revision": "1", "modalities": ["image"]})

    def __init__(
        self, model_name: str = "raw", revision: str | None = None, *, device: str | None = None, **kwargs: Any
    ):
        self.bands = BandMeans().sensors

    def encode(self, inputs: Any, *, hf_subset: str, prompt_type: Any, **kwargs: Any) -> np.ndarray:
        bands = self.bands[hf_subset.split("_to_")[prompt_type == "document"]]
        return np.array([[image[band].mean() for band in bands] for batch in inputs for image in batch["image"]])

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        first, second = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (first, second))
        return first @ second.T

    def similarity_pairwise(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.diag(self.similarity(first, second))


def test_a_model_by_mtebs_own_protocol_gets_arrays_by_band(tiles: Dataset) -> None:
    pair = encoder_pair(BandMeans())
    embeds = {name: Embedded.from_dataset(embed_dataset(*pair, tiles, name), tiles) for name in ("s1", "s2")}
    result = mteb.evaluate(RawMeans(), cross_sensor_task(tiles), cache=None, show_progress_bar=False)
    agree(measured(result), embeds)


def test_an_archive_enters_as_it_is(tiles: Dataset) -> None:
    pair = encoder_pair(BandMeans())
    embeds = {name: embed_dataset(*pair, tiles, name, progress=False) for name in ("s1", "s2")}
    alignment = Alignment.fit({name: values[:30] for name, values in embeds.items()}, "center")
    archive = Archive.build(
        dataset=tiles.shuffle(seed=0), encoder=BandMeans(), alignment=alignment, model_name="tester/means"
    )
    model = CrossSensorSearch(archive=archive)
    found = measured(mteb.evaluate(model, cross_sensor_task(tiles), cache=None, show_progress_bar=False))
    agree(found, {name: Embedded.from_dataset(alignment.apply(one, name), tiles) for name, one in embeds.items()})
    with pytest.raises(ValueError, match="Give one of these"):
        CrossSensorSearch(archive=archive, alignment=alignment)


def test_real_tiles(shared_data: Path) -> None:
    """21 queries and 18 tiles of BigEarthNet v1, by the official lists."""
    folder = shared_data / "bigearthnet_mm_v1_lmdb"
    real = load_data(folder, "all", splits=str(folder / "official_splits"), metadata=str(folder / "manifest.csv"))
    benchmark = Benchmark.of(real)
    assert (benchmark.queries.labelled, benchmark.archive.labelled) == (21, 18)
    pair = encoder_pair(BandMeans())
    embeds = {name: Embedded.from_dataset(embed_dataset(*pair, real, name), real) for name in ("s1", "s2")}
    model = CrossSensorSearch(encoder=BandMeans())
    agree(measured(mteb.evaluate(model, cross_sensor_task(real), cache=None, show_progress_bar=False)), embeds)


def test_no_two_similarities_are_equal_and_none_is_moved_that_was_not() -> None:
    embeds = np.array([[1, 0], [1, 0], [1, 0], [0.6, 0.8], [0, 1]], np.float32)
    similarities, ranking = nearest_tiles(embeds[:1], embeds, 5)
    assert ranking.tolist() == [[0, 1, 2, 3, 4]]
    assert (np.diff(similarities) < 0).all()
    assert similarities[0, [0, 3, 4]] == pytest.approx([1, 0.6, 0], abs=1e-7)
    assert similarities[0, :3] == pytest.approx(1, abs=3e-7)


def test_what_is_no_task_is_refused(tiles: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"not the tiles of tiny: its split \w+ has 12, given are 11"):
        cross_sensor_task(tiles.select(range(len(tiles) - 1)), small_benchmark(tiles))
    relabelled = [[(number + 1) % 19 for number in one] for one in tiles["labels"]]
    feature = tiles.features["labels"]
    others = tiles.remove_columns("labels").add_column("labels", relabelled, feature=feature)
    with pytest.raises(ValueError, match="other labels than those of tiny"):
        cross_sensor_task(others, small_benchmark(tiles))
    monkeypatch.setattr(mteb_task, "MOST_PAIRS", 100)
    with pytest.raises(ValueError, match=r"has 121 pairs.*at most 100.*run_retrieval\.py"):
        cross_sensor_task(tiles)
    with pytest.raises(ValueError, match="Give one of these"):
        CrossSensorSearch()
