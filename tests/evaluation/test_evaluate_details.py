"""What an evaluation reports beyond the scores of all queries: groups, intervals, cuts, the place itself, the whole ranking."""

import json

import numpy as np
import pytest

from csmae_hf.data.evenly import evenly
from csmae_hf.evaluation import evaluate
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.results import write_results
from csmae_hf.metrics.ranking import METRICS, mean_scores, query_scores
from csmae_hf.metrics.whole_archive import hubness, r_precision

TILES, CLASSES = 60, 5
COUNTRIES = ["Austria", "Serbia", None]


def sensors(seed=0, noise=0.5):
    """Two sensors that see 60 tiles; embeds lean on the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random((TILES, CLASSES)) < 0.4
    labels[np.arange(TILES), rng.integers(0, CLASSES - 1, TILES)] = True
    labels[:, CLASSES - 1] = False  # a class that no tile has
    content = labels @ rng.normal(size=(CLASSES, 8))
    shared = {
        "ids": [f"tile_{n}" for n in range(TILES)],
        "labels": labels,
        "splits": ["validation" if n % 2 else "test" for n in range(TILES)],
        "groups": {"country": [COUNTRIES[n % 3] for n in range(TILES)]},
        "class_names": [f"class {n}" for n in range(CLASSES)],
    }
    return {
        s: Embedded((content + noise * rng.normal(size=content.shape)).astype(np.float32), **shared)
        for s in ("s1", "s2")
    }


@pytest.fixture(scope="module")
def results():
    return evaluate_retrieval(sensors(), k=5, resamples=200, progress=False)


def parts(result, embeds):
    """Labels and ranking of a direction, in places of its archive."""
    query, archive = embeds[result.query_sensor], embeds[result.archive_sensor]
    rows = np.array([n for n in range(TILES) if archive.splits[n] == "test"])
    return query.labels[result.query_rows], archive.labels[rows], np.searchsorted(rows, result.ranking)


def test_every_score_is_that_of_its_function(results):
    embeds = sensors()
    for result in results:
        query, archive, ranking = parts(result, embeds)
        expected = mean_scores(query_scores(query, archive, ranking))
        assert {name: result.scores[name] for name in METRICS} == pytest.approx(expected)
        assert result.hubness_skewness == pytest.approx(hubness(ranking, len(archive)).skewness)


def test_scores_of_a_group_are_those_of_its_queries_alone(results):
    embeds = sensors()
    result = results[1]
    query, archive, ranking = parts(result, embeds)
    members = np.array([embeds["s1"].groups["country"][row] == "Serbia" for row in result.query_rows])
    group = result.groups["country"]["Serbia"]
    alone = mean_scores(query_scores(query[members], archive, ranking[members]))
    assert group.n_queries == members.sum()
    assert group.scores == pytest.approx(alone)
    assert list(result.groups["country"]) == ["Austria", "Serbia"]  # tiles of unknown country are in no group
    assert group.f1_interval.lower < group.scores["f1_of_means"] < group.f1_interval.upper


def test_a_class_has_the_share_of_results_that_show_it(results):
    embeds = sensors()
    result = results[2]
    query, archive, ranking = parts(result, embeds)
    group = result.groups["class"]["class 0"]
    hits = [archive[index, 0] for labels, row in zip(query, ranking, strict=True) if labels[0] for index in row]
    assert group.class_precision == pytest.approx(np.mean(hits))
    assert "class 4" not in result.groups["class"]  # no query has it


def test_intervals_hold_the_score_and_the_same_seed_gives_them_again(results):
    for result, again in zip(results, evaluate_retrieval(sensors(), k=5, resamples=200, progress=False), strict=True):
        assert result.intervals == again.intervals
        for name in METRICS:
            assert result.intervals[name].lower <= result.scores[name] <= result.intervals[name].upper
    assert evaluate_retrieval(sensors(), k=5, progress=False)[0].intervals == {}


def test_cuts_end_in_the_score(results):
    for result in results:
        assert len(result.over_k["precision"]) == 5
        for name in ("precision", "recall", "f1_of_means", "mean_pair_f1"):
            assert result.over_k[name][-1] == pytest.approx(result.scores[name])


def test_r_precision_takes_the_whole_ranking_and_says_of_how_many_queries(results, monkeypatch):
    embeds = sensors()
    result = results[1]
    query, archive, _ = parts(result, embeds)
    unit = {s: e.embeds / np.linalg.norm(e.embeds, axis=1, keepdims=True) for s, e in embeds.items()}
    rows = [n for n in range(TILES) if embeds["s2"].splits[n] == "test"]
    whole = r_precision(unit["s1"][result.query_rows] @ unit["s2"][rows].T, query, archive)
    assert result.r_precision == pytest.approx(whole.mean())
    assert result.r_precision_queries == len(query)
    monkeypatch.setattr(evaluate, "WHOLE_RANKING_PAIRS", 10 * len(archive))
    fewer = evaluate_retrieval(embeds, k=5, progress=False)[1]
    assert fewer.r_precision_queries == 10
    assert fewer.r_precision == pytest.approx(whole[evenly(len(query), 10)].mean())


def test_the_place_itself_is_looked_for_only_where_it_is_in_the_archive(results):
    assert all(result.colocated_recall is None for result in results)
    together = evaluate_retrieval(sensors(noise=0.05), k=5, query_split=None, archive_split=None, progress=False)
    by_name = {result.name: result for result in together}
    assert by_name["s1 -> s1"].colocated_recall is None
    embeds = sensors(noise=0.05)
    unit = {s: e.embeds / np.linalg.norm(e.embeds, axis=1, keepdims=True) for s, e in embeds.items()}
    order = np.argsort(-(unit["s1"] @ unit["s2"].T), axis=1)
    place = (order == np.arange(TILES)[:, None]).argmax(axis=1)
    assert by_name["s1 -> s2"].colocated_recall == pytest.approx((place < 5).mean())
    assert by_name["s1 -> s2"].colocated_recall_at_1 == pytest.approx((place == 0).mean())
    assert 0 < by_name["s1 -> s2"].colocated_recall_at_1 < by_name["s1 -> s2"].colocated_recall


def test_queries_to_which_nothing_is_relevant_are_counted():
    embeds = sensors()
    for one in embeds.values():
        test = np.array([split == "test" for split in one.splits])
        one.labels[test, 0] = False
        one.labels[test, 1] = True
        one.labels[1] = [True, False, False, False, False]  # the first query; no archive tile has class 0
    result = evaluate_retrieval(embeds, k=3, progress=False)[0]
    assert result.irrelevant_queries >= 1
    assert [values[0] for values in result.by_query.values()] == [0] * 6


def test_duplicates_of_an_image_are_found_in_the_order_of_the_archive():
    embeds = sensors()
    for one in embeds.values():
        one.embeds[:] = one.embeds[0]
    ranking = evaluate_retrieval(embeds, k=4, progress=False)[3].ranking
    assert (ranking == [0, 2, 4, 6]).all()


def test_k_larger_than_the_archive_is_refused_with_its_size():
    with pytest.raises(ValueError, match="k=31, but the archive has 30 tiles"):
        evaluate_retrieval(sensors(), k=31, progress=False)


def test_written_results_hold_groups_and_intervals(results, tmp_path):
    json_path, csv_path = write_results(results, tmp_path)
    entry = json.loads(json_path.read_text())["directions"][0]
    assert entry["intervals"]["map"] == list(results[0].intervals["map"])
    assert entry["groups"]["country"]["Serbia"]["n_queries"] == 10
    assert "map_lower" in csv_path.read_text().splitlines()[0].split(",")
