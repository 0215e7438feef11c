"""Choosing an alignment: the one that retrieves best on training tiles that it was not fitted on, and by how much."""

import numpy as np
import pytest

from csmae_hf.embedding.alignment import METHODS, Alignment
from csmae_hf.evaluation import alignment_choice
from csmae_hf.evaluation.alignment_choice import (
    CHOICE_FOLDS,
    alignment_as_dict,
    alignments_table,
    apply_alignment,
    choose_alignment,
    parse_methods,
    relative_gap,
)
from csmae_hf.evaluation.comparison import paired
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval


def embed(tiles, seed, turn, shift):
    """Two sensors of the same tiles, one turned and shifted away from the other."""
    rng = np.random.default_rng(seed)
    labels = rng.random((tiles, 6)) < 0.3
    labels[np.arange(tiles), rng.integers(0, 6, tiles)] = True
    content = labels @ np.random.default_rng(42).normal(size=(6, 10)) + 0.2 * rng.normal(size=(tiles, 10))
    splits = ["validation" if n % 2 else "test" for n in range(tiles)]
    ids = [f"tile_{seed}_{n}" for n in range(tiles)]
    return {
        "s1": Embedded(content.astype(np.float32), ids, labels, splits),
        "s2": Embedded((content @ turn + shift).astype(np.float32), ids, labels, splits),
    }


TURN, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(10, 10)))


def choose(turn, shift, methods=METHODS):
    [choice] = choose_alignment([embed(200, 0, turn, shift)], methods, k=5)
    return choice, embed(120, 1, turn, shift)


def evaluate_all(choice, tiles):
    return {m: evaluate_retrieval(apply_alignment(a, tiles), k=5, progress=False) for m, a in choice.alignments.items()}


def test_a_turned_sensor_is_turned_back():
    choice, tiles = choose(TURN, 0.0)
    assert choice.method == "procrustes"
    assert choice.cross_fitted["procrustes"] > choice.cross_fitted["none"] + 0.05
    by_method = evaluate_all(choice, tiles)
    before, after = by_method["none"][1], by_method["procrustes"][1]
    gain = paired([before.by_query], [after.by_query], resamples=200, seed=0)["f1_of_means"]
    assert 0 < gain.lower < after.scores["f1_of_means"] - before.scores["f1_of_means"] < gain.upper
    recorded = alignment_as_dict(choice, by_method, resamples=200, seed=0)
    assert recorded["gain_over_none"]["s1 -> s2"]["interval"] == gain
    table = alignments_table(choice, by_method).text()
    assert "untrained" not in table
    assert table.count("random order") == 1
    assert "procrustes *" in table
    assert f"{choice.cross_fitted['procrustes'] - choice.cross_fitted['none']:+.4f} over none" in table


def test_of_equals_the_simplest_wins(monkeypatch):
    same = dict.fromkeys(METHODS, 0.5)
    monkeypatch.setattr(alignment_choice, "cross_fitted_scores", lambda *given, **how: same)
    assert choose_alignment([embed(80, 3, TURN, 0.0)], METHODS, k=5)[0].method == "none"


def test_trainings_share_the_method_that_is_best_in_the_mean_and_keep_their_own_fit():
    trainings = [embed(200, 0, TURN, 0.0), embed(200, 1, np.eye(10), 0.0), embed(200, 2, np.eye(10), 0.0)]
    single = [choose_alignment([one], METHODS, k=5)[0] for one in trainings]
    together = choose_alignment(trainings, METHODS, k=5)
    assert len({choice.method for choice in together}) == 1
    for method in METHODS:
        assert together[0].cross_fitted[method] == pytest.approx(np.mean([one.cross_fitted[method] for one in single]))
    assert together[0].method == max(METHODS, key=together[0].cross_fitted.get)
    for alone, one in zip(single, together, strict=True):
        assert one.alignments["whiten"].to_bytes() == alone.alignments["whiten"].to_bytes()


def test_each_fold_is_searched_with_what_was_fitted_on_the_others():
    """An independent loop over the folds gives the same numbers."""
    train = embed(53, 4, TURN, 1.0)
    [choice] = choose_alignment([train], ("none", "whiten"), k=5)
    dealt = np.random.default_rng(0).permutation(53) % CHOICE_FOLDS
    expected = {"none": [], "whiten": []}
    for fold in range(CHOICE_FOLDS):
        held, others = (np.flatnonzero(which) for which in (dealt == fold, dealt != fold))
        for method in expected:
            alignment = Alignment.fit({s: one.embeds[others] for s, one in train.items()}, method)
            sides = {s: alignment.apply(one.embeds[held], s).astype(np.float64) for s, one in train.items()}
            across = []
            for query, archive in (("s1", "s2"), ("s2", "s1")):
                a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (sides[query], sides[archive]))
                similarity = a @ b.T
                np.fill_diagonal(similarity, -9)  # its own place
                nearest = np.argsort(-similarity, axis=1)[:, :5]
                labels = train["s1"].labels[held]
                shared = (labels[:, None] & labels[nearest]).sum(axis=2)
                precision = (shared / labels[nearest].sum(axis=2)).mean()
                recall = (shared / labels.sum(axis=1)[:, None]).mean()
                across.append(2 * precision * recall / (precision + recall))
            expected[method].append(np.mean(across))
    assert choice.cross_fitted == pytest.approx(
        {method: np.mean(values) for method, values in expected.items()}, rel=1e-6
    )


def test_too_few_labelled_pairs_are_refused():
    train = {sensor: one.take(range(3)) for sensor, one in embed(10, 1, TURN, 0.0).items()}
    with pytest.raises(ValueError, match="3 training pairs have labels"):
        choose_alignment([train], METHODS, k=5)


def test_a_shifted_sensor_has_a_gap_that_centring_closes():
    choice, _ = choose(np.eye(10), 5.0)
    assert choice.gaps["center"] < 0.2 * choice.gaps["none"]


def test_the_relative_gap_is_in_units_of_the_scatter():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(500, 4)) + 3, rng.normal(size=(500, 4)) - 3
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (first, second)]
    scatter = np.sqrt(np.mean([((v - v.mean(axis=0)) ** 2).sum(axis=1).mean() for v in unit]))
    gap = np.linalg.norm(unit[0].mean(axis=0) - unit[1].mean(axis=0))
    assert relative_gap(first, second) == pytest.approx(gap / scatter, rel=1e-5)


def test_methods_are_read_from_a_list():
    assert parse_methods("auto") == METHODS
    assert parse_methods("center, none,center") == ("center", "none")
    with pytest.raises(ValueError, match="'pca'"):
        parse_methods("none,pca")


def test_none_leaves_every_embed():
    tiles = embed(10, 1, TURN, 1.0)
    np.testing.assert_array_equal(apply_alignment(Alignment.none(), tiles)["s2"].embeds, tiles["s2"].embeds)


def test_the_choice_is_by_directions_across_sensors_alone():
    """Whitening helps within the sensors more than it harms across them: by the mean of all directions it would win."""
    rng = np.random.default_rng(1)
    labels = rng.random((400, 6)) < 0.3
    labels[np.arange(400), rng.integers(0, 6, 400)] = True
    content = labels @ np.random.default_rng(42).normal(size=(6, 6))
    # Beside the content of each sensor lies loud noise of its own, which whitening turns down.
    embeds = {
        sensor: np.concatenate(
            [0.8 * content + 0.1 * rng.normal(size=content.shape), 6 * rng.normal(size=(400, 4))], axis=1
        )
        for sensor in ("s1", "s2")
    }
    embeds["s2"][:, :6] = embeds["s2"][:, :6] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    ids = [f"tile_{n}" for n in range(400)]
    tiles = {sensor: Embedded(values.astype(np.float32), ids, labels) for sensor, values in embeds.items()}
    [choice] = choose_alignment([tiles], METHODS, k=5)
    everywhere = {}
    for method, alignment in choice.alignments.items():
        results = evaluate_retrieval(
            apply_alignment(alignment, tiles), k=5, query_split=None, archive_split=None, progress=False
        )
        everywhere[method] = np.mean([result.scores["f1_of_means"] for result in results])
    assert max(everywhere, key=everywhere.get) != max(METHODS, key=choice.cross_fitted.get)  # else this shows nothing
    assert choice.method == max(METHODS, key=choice.cross_fitted.get)


@pytest.mark.parametrize("sizes", [(42, 5, 5, 5, 3, 1, 1), (13,) * 6, (3, 2), (1, 1, 1, 1)])
def test_no_alignment_is_compared_on_a_scene_it_was_fitted_on(sizes, monkeypatch):
    scenes = [f"scene_{number}" for number, size in enumerate(sizes) for _ in range(size)]
    train = embed(len(scenes), 0, TURN, 1.0)
    scene_of = dict(zip(train["s1"].ids, scenes, strict=True))
    fitted, compared = [], []
    fit, evaluate = alignment_choice._fit, alignment_choice.evaluate_retrieval
    monkeypatch.setattr(alignment_choice, "_fit", lambda some, *how: fitted.append(some["s1"].ids) or fit(some, *how))
    monkeypatch.setattr(
        alignment_choice,
        "evaluate_retrieval",
        lambda some, **how: compared.append(some["s1"].ids) or evaluate(some, **how),
    )
    alignment_choice.cross_fitted_scores(train, ["center"], k=5, scenes=scenes)
    assert sorted(name for fold in compared for name in fold) == sorted(scene_of)
    for mine, others in zip(compared, fitted, strict=True):
        assert not {scene_of[name] for name in mine} & {scene_of[name] for name in others}


def test_folds_of_scenes_are_larger_than_the_results_where_there_are_tiles_enough():
    scenes = [f"scene_{number // 3}" for number in range(60)]
    folds = {k: np.bincount(alignment_choice._deal_choice_scenes(scenes, k)).tolist() for k in (5, 7, 10, 30)}
    assert folds == {5: [12] * 5, 7: [15] * 4, 10: [30] * 2, 30: [30] * 2}
