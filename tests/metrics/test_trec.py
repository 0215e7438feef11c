"""The scores of trec_eval against plain loops, and beside those of the package."""

import math

import numpy as np
import pytest

from csmae_hf.metrics.ranking import query_scores
from csmae_hf.metrics.trec import MOST_SHARED, gains, trec_scores


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    query, archive = rng.random((30, 7)) < 0.3, rng.random((40, 7)) < 0.3
    query[3], archive[:, 6], query[4] = (
        False,
        False,
        [0, 0, 0, 0, 0, 0, 1],
    )  # one without labels, one with nothing relevant
    return query, archive, np.stack([rng.permutation(40)[:10] for _ in range(30)])


def test_each_score_is_that_of_a_plain_loop(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    query, archive, ranking = case
    found = trec_scores(*case)
    for row, (labels, order) in enumerate(zip(query, ranking, strict=True)):
        shared = (labels & archive).sum(axis=1)
        relevant = int((shared > 0).sum())
        for k in (1, 3, 5, 10):
            grades = [int(shared[place]) for place in order[:k]]
            ranks = [rank for rank, grade in enumerate(grades, 1) if grade]
            best = sorted((2**grade - 1 for grade in shared.tolist()), reverse=True)[:k]
            ideal = sum(gain / math.log2(1 + rank) for rank, gain in enumerate(best, 1))
            gained = sum((2**grade - 1) / math.log2(1 + rank) for rank, grade in enumerate(grades, 1))
            precisions = sum(number / rank for number, rank in enumerate(ranks, 1))
            expected = {
                "ndcg": gained / ideal if ideal else 0.0,
                "map": precisions / relevant if relevant else 0.0,
                "recall": len(ranks) / relevant if relevant else 0.0,
                "precision": len(ranks) / k,
                "mrr": 1 / ranks[0] if ranks else 0.0,
                "hit_rate": float(bool(ranks)),
            }
            assert {name: found[f"{name}_at_{k}"][row] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_ndcg_is_that_of_the_package_and_map_is_not(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    own, found = query_scores(*case), trec_scores(*case)
    np.testing.assert_array_equal(found["ndcg_at_10"], own["ndcg"])
    assert (found["map_at_10"] <= own["map"] + 1e-12).all()
    assert (found["map_at_10"] < own["map"] - 0.01).any()


def test_what_cannot_be_answered_is_refused(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="from 1 to 10"):
        trec_scores(*case, cuts=(11,))
    with pytest.raises(ValueError, match="share 21 labels"):
        gains(np.array([MOST_SHARED + 1]))
