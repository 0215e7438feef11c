"""Means of the loss terms over accumulation steps and processes, each over the tiles that had it."""

from collections.abc import Callable, Mapping
from itertools import combinations, permutations
from typing import Any

import torch

from configuration_csmae import CSMAEConfig

Counts = Mapping[frozenset[str], torch.Tensor | int]
"""Tiles of a batch that have a sensor, or both of two, by the set of them."""


def term_names(config: CSMAEConfig) -> list[str]:
    """Name every loss term that a model may give, in a fixed order: `umr_s1`, `cmr_s1_s2`, `mim`, `mde`."""
    sensors = list(config.sensors)
    names = [f"umr_{sensor}" for sensor in sensors] if config.umr_weight else []
    names += [f"cmr_{source}_{target}" for source, target in permutations(sensors, 2)] if config.cmr_weight else []
    return names + [name for name in ("mim", "mde") if getattr(config, f"{name}_weight") and len(sensors) > 1]


def count_rows(inputs: Mapping[str, Any], config: CSMAEConfig) -> dict[frozenset[str], torch.Tensor | int]:
    """Count the tiles of a batch that have a sensor, and those that have both of two; sensors that it lacks are left out.

    The batch is images by sensor, also in groups of bands as the collator stacks them, and perhaps `present`.
    """
    present: Mapping[str, torch.Tensor] = inputs.get("present") or {}
    given = {}
    for sensor in config.sensors:
        images = inputs.get(sensor)
        if images is not None:
            given[sensor] = len(next(iter(images.values())) if isinstance(images, Mapping) else images)
    counts: dict[frozenset[str], torch.Tensor | int] = {}
    for sensor, rows in given.items():
        counts[frozenset({sensor})] = present[sensor].sum() if sensor in present else rows
    for pair in combinations(given, 2):
        flags = [present[sensor] for sensor in pair if sensor in present]
        counts[frozenset(pair)] = torch.stack(flags).all(dim=0).sum() if flags else given[pair[0]]
    return counts


class LossTerms:
    """Collects loss terms of a model on a device between two lines of the log."""

    def __init__(self, config: CSMAEConfig, device: torch.device):
        self.names = term_names(config)
        self._pairs = {f"cmr_{a}_{b}": frozenset({a, b}) for a, b in permutations(config.sensors, 2)}
        dtype = torch.float32 if device.type == "mps" else torch.float64  # mps has no 64 bits
        self.sums = torch.zeros(2, len(self.names), dtype=dtype, device=device)

    def add(self, losses: Mapping[str, torch.Tensor], counts: Counts) -> None:
        """Add the terms of a batch, each a mean over the tiles that have it."""
        for place, name in enumerate(self.names):
            if name not in losses:
                continue
            if name in ("mim", "mde"):
                count = sum(count for pair, count in counts.items() if len(pair) == 2)
            else:
                count = counts[self._pairs.get(name) or frozenset({name.removeprefix("umr_")})]
            self.sums[0, place] += losses[name].detach().to(self.sums.dtype) * count
            self.sums[1, place] += count

    def means(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """Take the mean of each term over all tiles that had it, if any, and begin anew.

        `reduce` adds a tensor up over the processes, and is called once by each, whatever terms its batches had.
        """
        totals, counts = reduce(self.sums).cpu()
        self.sums = torch.zeros_like(self.sums)
        means = zip(self.names, totals, counts, strict=True)
        return {name: (total / count).item() for name, total, count in means if count > 0}
