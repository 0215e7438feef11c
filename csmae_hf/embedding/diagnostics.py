"""What embeds look like without any label: how many directions they use, how far apart they lie, and how far apart sensors lie.

All functions scale embeds, (N, D), to unit length first, as the search does, so they describe what retrieval sees. They refuse fewer
than two, embeds that are zero or not finite, and shapes that do not fit each other, with a ValueError.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch

from csmae_hf.search.nearest import Embeds, top_k, unit_vectors

COLLAPSED_RANK = 2.0
"""An effective rank below this is called a collapse: the embeds lie on little more than a line."""

COLLAPSED_SPREAD = 1e-4
"""A spread below this is called a collapse: the embeds' mean cosine similarity is above 0.9999."""


def effective_rank(embeds: Embeds) -> float:
    """Count the directions along which embeds vary: exp of the entropy of their normalised singular values.

    Roy and Vetterli, "The effective rank", EUSIPCO 2007, of the unit vectors less their mean. (RankMe, Garrido et al., arXiv
    2210.02885, leaves the mean in, which in a masked autoencoder's embeds hides every other direction.) From 1 to min(N - 1, D); 0
    where all embeds are equal.
    """
    vectors = _unit(embeds)
    centred = vectors - vectors.mean(dim=0)
    values = torch.linalg.svdvals(centred)
    total = values.sum()
    if total <= 1e-9 * len(vectors):
        return 0.0
    shares = values / total
    entropy = -torch.special.xlogy(shares, shares).sum()
    return float(entropy.exp())


def spread(embeds: Embeds) -> float:
    """Measure how far unit-length embeds scatter: 1 - the squared length of their mean, from 0 (all point the same way) to 1.

    It is 1 - the mean cosine similarity over all pairs, an embed with itself included.
    """
    return max(0.0, 1.0 - float(_unit(embeds).mean(dim=0).square().sum()))


def alignment(embeds: Embeds, other_embeds: Embeds) -> float:
    """Measure how close two sensors' embeds of the same places, row by row, lie: mean squared distance of the unit vectors.

    Wang and Isola, arXiv 2005.10242, equation 3 with alpha = 2. From 0 (equal) to 4 (opposite).
    """
    vectors, others = _unit(embeds), _unit(other_embeds)
    _check_alike(vectors, others)
    return float((vectors - others).square().sum(dim=1).mean())


def uniformity(embeds: Embeds) -> float:
    """Measure how evenly embeds fill the sphere: log of the mean of exp(-2 d^2) over all pairs.

    Wang and Isola, arXiv 2005.10242, equation 4 with t = 2. From 0 (all equal) down to about -4 (even).
    """
    squared = torch.pdist(_unit(embeds)).square()
    return float(torch.logsumexp(-2 * squared, dim=0) - torch.log(torch.tensor(float(len(squared)))))


def sensor_gap(embeds: Embeds, other_embeds: Embeds) -> float:
    """Measure the gap between two sensors: the distance between the means of their unit-length embeds, from 0 (none) to 2.

    Liang et al., "Mind the gap", arXiv 2203.02053, section 4.2.
    """
    means = [_unit(each).mean(dim=0) for each in (embeds, other_embeds)]
    _check_alike(*means)
    return float((means[0] - means[1]).norm())


def kept_neighbours(embeds: Embeds, expected: Embeds, k: int = 10) -> float:
    """What a cheaper model keeps of a search: the share of the k nearest other tiles that stay among the k nearest.

    Args:
        embeds: (N, D) of tiles, by the cheaper model.
        expected: (N, E) of the same tiles, by the model it stands for.
        k: Neighbours of each tile, fewer than N.

    Returns:
        0 to 1, the mean over the tiles.
    """
    if len(embeds) != len(expected):
        raise ValueError(f"{len(embeds)} and {len(expected)} embeds: expected those of the same tiles.")
    itself = np.arange(len(expected))
    (_, found), (_, wanted) = (top_k(one, one, k, exclude=itself) for one in (embeds, expected))
    return float(np.mean([np.isin(row, other).mean() for row, other in zip(wanted, found, strict=True)]))


def diagnose(embeds: Mapping[str, Embeds]) -> dict[str, float]:
    """Take all diagnostics of the embeds of the same places by every sensor, row by row.

    Returns:
        `effective_rank_{sensor}`, `uniformity_{sensor}` and `spread_{sensor}`; `alignment_{a}_{b}` and `gap_{a}_{b}` for each pair.
    """
    values: dict[str, float] = {}
    for sensor, each in embeds.items():
        values[f"effective_rank_{sensor}"] = effective_rank(each)
        values[f"uniformity_{sensor}"] = uniformity(each)
        values[f"spread_{sensor}"] = spread(each)
    for first, second in combinations(embeds, 2):
        values[f"alignment_{first}_{second}"] = alignment(embeds[first], embeds[second])
        values[f"gap_{first}_{second}"] = sensor_gap(embeds[first], embeds[second])
    return values


def collapse_warnings(values: Mapping[str, float]) -> list[str]:
    """Say of what [`diagnose`] returned, in a sentence each, which sensors' embeds have collapsed.

    Complete collapse is that all embeds point the same way; dimensional collapse (Jing et al., arXiv 2110.09348) that they vary
    along too few directions. Either makes every ranking arbitrary, while the losses may still fall.
    """
    warnings = []
    for name, rank in values.items():
        if not name.startswith("effective_rank_"):
            continue
        sensor = name.removeprefix("effective_rank_")
        scatter = values[f"spread_{sensor}"]
        if scatter < COLLAPSED_SPREAD:
            warnings.append(
                f"The embeds of {sensor} have collapsed: their mean cosine similarity is {1 - scatter:.6f}."
            )
        elif rank < COLLAPSED_RANK:
            warnings.append(
                f"The embeds of {sensor} have collapsed: they vary along {rank:.2f} directions (effective rank)."
            )
    return warnings


def _unit(embeds: Any) -> torch.Tensor:
    """(N, D) float64 unit vectors, N at least 2."""
    vectors = unit_vectors(embeds, "diagnosed").double()
    if len(vectors) < 2:
        raise ValueError("Diagnostics compare embeds: expected at least 2, got 1.")
    return vectors


def _check_alike(first: torch.Tensor, second: torch.Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"The two sensors' embeds have the shapes {tuple(first.shape)} and {tuple(second.shape)}: expected equal ones, of "
            "the same places."
        )
