"""Folds over scenes: no query meets its own scene, every tile is a query once, and the numbers are those of a plain loop."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from table_again import table_again

from csmae_hf.evaluation.comparison import compare
from csmae_hf.evaluation.evaluate import Embedded
from csmae_hf.evaluation.folds import Folds, deal_scenes, evaluate_folds, scenes_of
from csmae_hf.evaluation.results import queries_as_dict, results_as_dict
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run import _choose
from csmae_hf.evaluation.run_tiles import Tiles

SCENES = [f"scene_{n}" for n in (0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4, 5, 5, 5, 6, 6, 7, 8, 9)] * 3


@pytest.fixture(scope="module")
def tiles():
    rng = np.random.default_rng(0)
    labels = rng.random((len(SCENES), 5)) < 0.4
    labels[np.arange(len(SCENES)), rng.integers(0, 5, len(SCENES))] = True
    labels[7] = False  # not known
    content = labels @ rng.normal(size=(5, 8))
    ids = [f"tile_{n}" for n in range(len(SCENES))]
    return {
        sensor: Embedded((content + rng.normal(size=content.shape)).astype(np.float32), ids, labels)
        for sensor in ("s1", "s2")
    }


def test_whole_scenes_are_dealt_evenly_and_anew_by_each_seed():
    dealt = deal_scenes(SCENES, 4, 0)
    assert set(dealt) == {0, 1, 2, 3}
    for scene in set(SCENES):
        assert len({fold for fold, name in zip(dealt, SCENES, strict=True) if name == scene}) == 1
    sizes = np.bincount(dealt)
    assert sizes.max() - sizes.min() <= 3
    assert (deal_scenes(SCENES, 4, 0) == dealt).all()
    assert any((deal_scenes(SCENES, 4, seed) != dealt).any() for seed in (1, 2, 3))
    assert len(set(deal_scenes(SCENES, None, 0))) == 10
    with pytest.raises(ValueError, match="60 tiles of 10 scenes cannot be dealt into 11 folds"):
        deal_scenes(SCENES, 11, 0)
    with pytest.raises(ValueError, match="of 1 scenes"):
        deal_scenes(["a"] * 5, None, 0)


@pytest.mark.parametrize("folds", ["scene", "4", "4x3"])
def test_the_numbers_are_those_of_a_plain_loop(tiles, folds):
    k, chosen = 3, Folds.parse(folds)
    results = {one.name: one for one in evaluate_folds(tiles, SCENES, chosen, k=k, resamples=50)}
    assert set(results) == {"s1 -> s1", "s1 -> s2", "s2 -> s1", "s2 -> s2"}
    result = results["s1 -> s2"]
    labels = tiles["s1"].labels
    labelled = np.flatnonzero(labels.any(axis=1))
    assert result.query_rows.tolist() == labelled.tolist()
    precision, recall = np.zeros((2, len(labels)))
    units = [one.embeds / np.linalg.norm(one.embeds, axis=1, keepdims=True) for one in tiles.values()]
    for repeat in range(chosen.repeats):
        dealt = deal_scenes(SCENES, chosen.count, repeat)
        for row in labelled:
            similarity = units[0][row] @ units[1].T
            similarity[(dealt == dealt[row]) | ~labels.any(axis=1)] = -9
            found = np.argsort(-similarity)[:k]
            assert SCENES[row] not in {SCENES[n] for n in found}
            shared = (labels[row] & labels[found]).sum(axis=1)
            precision[row] += (shared / labels[found].sum(axis=1)).mean() / chosen.repeats
            recall[row] += (shared / labels[row].sum()).mean() / chosen.repeats
            if repeat == 0:
                assert result.ranking[labelled.tolist().index(row)].tolist() == found.tolist()
    p, r = precision[labelled].mean(), recall[labelled].mean()
    assert result.scores["precision"] == pytest.approx(p)
    assert result.scores["f1_of_means"] == pytest.approx(2 * p * r / (p + r))
    assert result.over_k["f1_of_means"][-1] == pytest.approx(result.scores["f1_of_means"])
    ends = result.intervals["f1_of_means"]
    assert ends.lower < result.scores["f1_of_means"] < ends.upper
    first_class = labels[labelled, 0]
    assert result.groups["class"]["0"].n_queries == first_class.sum()
    assert result.groups["class"]["0"].scores["precision"] == pytest.approx(precision[labelled][first_class].mean())
    if chosen.repeats == 1:
        shares = labels[result.ranking][first_class][:, :, 0].mean()
        assert result.groups["class"]["0"].class_precision == pytest.approx(shares)
    assert "folds over 10 scenes" in result.folds
    assert 0 < result.random.mean["f1_of_means"] < 1


def test_intervals_are_of_resampled_scenes_and_none_of_one_scene(tiles):
    [result] = evaluate_folds(tiles, SCENES, Folds(None), k=3, resamples=60, directions=[("s1", "s2")])
    scenes = np.array(SCENES)[result.query_rows]
    assert list(result.scenes) == scenes.tolist()
    names = list(dict.fromkeys(scenes))
    drawn = np.random.default_rng(0).integers(0, len(names), (60, len(names)))
    means = [np.concatenate([result.by_query["recall"][scenes == names[n]] for n in row]).mean() for row in drawn]
    assert result.intervals["recall"] == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    countries = {name: ["here" if scene == SCENES[0] else "there" for scene in SCENES] for name in ("country",)}
    by_country = {sensor: replace(one, groups=countries) for sensor, one in tiles.items()}
    [result] = evaluate_folds(by_country, SCENES, Folds(None), k=3, resamples=60, directions=[("s1", "s2")])
    assert result.groups["country"]["here"].f1_interval is None
    assert result.groups["country"]["there"].f1_interval is not None
    other = replace(result, by_query={name: values / 2 for name, values in result.by_query.items()})
    trainings = {"a": [{result.name: result}], "b": [{result.name: other}]}
    found = compare(trainings, by_country, resamples=60, seed=0)
    assert {one.value for one in found if one.group == "country"} == {"there"}
    of_all = next(one for one in found if one.metric == "recall" and one.group == "all")
    assert of_all.interval == pytest.approx(tuple(-np.quantile(means, [0.975, 0.025]) / 2))
    # and the same from the files alone
    metadata = {"seed": 0, "resamples": 60}
    files = [
        json.loads(json.dumps(results_as_dict([one], metadata, queries=queries_as_dict([one], by_country))))
        for one in (result, other)
    ]
    again, _ = table_again(files[:1], files[1:])
    assert {(one.group, one.value) for one in found} == {(group, value) for _, _, group, value, _ in again}
    for one in found:
        made = again[1, one.direction.replace("→", "->"), one.group, one.value, one.metric]
        assert made == pytest.approx((one.difference, *one.interval, one.n_queries), abs=1e-6)


def test_the_scene_is_a_column_or_the_pass_by_the_names():
    ids = [
        "S2A_MSIL2A_20170613T101031_34_32",
        "S2A_MSIL2A_20170613T101032_1_2",  # a second later
        "S2B_MSIL2A_20180101T100019_N9999_R022_T33UUP_26_57",
        "S2B_MSIL2A_20180101T100019_N9999_R022_T34UUP_26_57",  # beside it
        "S2A_MSIL2A_20180101T100019_N9999_R022_T33UUP_26_57",  # another satellite
        "S2B_MSIL2A_20180101T113919_N9999_R022_T33UUP_26_57",  # the next pass
    ]
    first, last = "S2A_MSIL2A_20170613T101031", "S2B_MSIL2A_20180101T113919_N9999_R022_T33UUP"
    middle = [f"S2{letter}_MSIL2A_20180101T100019_N9999_R022_T33UUP" for letter in "BBA"]
    assert scenes_of(Dataset.from_dict({"id": ids})) == [first, first, *middle, last]
    radar = [  # one pass of the radar joins them
        "S1A_IW_GRDH_1SDV_20170613T165809_33UUP_26_57",
        None,
        "S1A_IW_GRDH_1SDV_20170613T165834_33UUP_1_1",
        *["S1-of-x"] * 3,
    ]
    assert scenes_of(Dataset.from_dict({"id": ids, "s1_id": radar})) == [
        *["S1A_IW_GRDH_1SDV_20170613T165809_33UUP"] * 4,
        middle[2],
        last,
    ]
    assert scenes_of(Dataset.from_dict({"id": ids[:2], "scene": ["a", "b"]})) == ["a", "b"]
    with pytest.raises(ValueError, match=r"scene of tile 'p1' is not known.*no column scene"):
        scenes_of(Dataset.from_dict({"id": [ids[0], "p1"]}))
    with pytest.raises(ValueError, match="1 of 2 tiles have no scene"):
        scenes_of(Dataset.from_dict({"id": ids[:2], "scene": ["a", None]}))


@pytest.mark.parametrize("text", ["1", "0", "5x0", "x3", "scenes", "-2", "2.5"])
def test_other_folds_are_refused_by_what_was_given(text):
    with pytest.raises(ValueError, match=f"folds='{text}'.*--folds 5x3.*--folds scene"):
        Folds.parse(text)


@pytest.mark.parametrize(
    ("scenes", "said"), [(["a"] * 5 + ["b"], "all but 1 of the 6"), (["a"] * 6, "all but 0"), (list("aabbcc"), None)]
)
def test_an_alignment_is_not_chosen_on_training_tiles_of_one_scene(tiles, scenes, said):
    few = {sensor: one.take(range(6)) for sensor, one in tiles.items()}
    given = Tiles(Dataset.from_dict({"id": []}), ("test", "test"), Dataset.from_dict({"scene": scenes}))
    [choice] = _choose([(few, few)], given, ("none", "center"), RetrievalOptions(folds="scene", k=1), "cpu")
    assert (said in choice.reason) if said else "on scenes it was not fitted on" in choice.reason
    with pytest.raises(ValueError, match="are of one scene") if said else nullcontext():
        _choose(
            [(few, few)], given, ("none", "center"), RetrievalOptions(folds="2", alignment="none,center", k=1), "cpu"
        )
