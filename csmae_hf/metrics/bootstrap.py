"""How sure a mean over queries is: the percentile bootstrap, and what it says of a difference."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csmae_hf.metrics.labels import FloatArray, row_chunks
from csmae_hf.metrics.ranking import reported

RESAMPLES = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A confidence interval; of one query it has no width."""

    lower: float
    upper: float


def bootstrap_means(
    values: NDArray[np.floating],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> FloatArray:
    """(resamples, M) means of resamples of the rows of (Q, M) values with replacement (Efron 1979).

    All columns share the resamples, and so do calls of one seed and number of rows: differences of two systems on the same queries
    are paired.

    Args:
        values: Scores of queries.
        resamples: How many.
        seed: Of the draws.
        clusters: (Q,) what each row belongs to, such as its scene: whole clusters are drawn then, since rows of one cluster are no
            independent draws (Davison & Hinkley 1997, 3.8). Default: every row by itself.

    Raises:
        ValueError: No rows, fewer than 2 resamples, or clusters of another number of rows.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values) or resamples < 2:
        raise ValueError(
            f"bootstrap_means got values of shape {values.shape} and resamples={resamples}; expected (queries, metrics) with a query "
            "at least, and 2 resamples or more."
        )
    sums, sizes = values, np.ones(len(values))
    if clusters is not None:
        if len(clusters) != len(values):
            raise ValueError(f"{len(values)} rows have {len(clusters)} clusters; expected the cluster of each row.")
        numbers: dict[Hashable, int] = {}
        member = np.array([numbers.setdefault(name, len(numbers)) for name in clusters])
        sizes = np.bincount(member).astype(np.float64)
        sums = np.zeros((len(sizes), values.shape[1]))
        np.add.at(sums, member, values)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for rows in row_chunks(resamples, len(sums)):
        drawn = rng.integers(0, len(sums), (rows.stop - rows.start, len(sums)))
        # How often each is drawn: a product with counts is cheaper than gathering the rows.
        cells = (drawn + np.arange(len(drawn))[:, None] * len(sums)).ravel()
        counts = np.bincount(cells, minlength=drawn.size).reshape(drawn.shape)
        means[rows] = (counts @ sums) / (counts @ sizes)[:, None]
    return means


def bootstrap_scores(
    scores: Mapping[str, FloatArray],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> dict[str, FloatArray]:
    """(resamples,) of each reported number, of (Q,) scores by name; `clusters` as of `bootstrap_means`."""
    stacked = np.stack(list(scores.values()), axis=1)
    means = bootstrap_means(stacked, resamples=resamples, seed=seed, clusters=clusters)
    return reported(dict(zip(scores, means.T, strict=True)))


def intervals(resampled: Mapping[str, FloatArray], level: float = LEVEL) -> dict[str, Interval]:
    """Percentile intervals that hold the share `level` of (resamples,) values, by name."""
    tails = ((1 - level) / 2, (1 + level) / 2)
    return {name: Interval(*map(float, np.quantile(values, tails))) for name, values in resampled.items()}
