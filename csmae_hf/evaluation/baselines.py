"""What keeps everybody honest: numbers that an encoder has to beat, or cannot, measured on the same tiles and in the same table.

* untrained: the same model with random weights, through the same alignment.
* band statistics: mean and standard deviation of each band, all that a spectrum without texture knows. Within a sensor by cosine,
  standardised by the training tiles; across sensors the other sensor's statistics as least squares predicts them from the query's,
  fitted on training pairs.
* labels known: a ranking by the cosine of the label sets themselves, which no encoder sees.

A random order of the archive is part of every result (`csmae_hf.metrics.random_baseline`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csmae_hf.evaluation.evaluate import Embedded
from csmae_hf.evaluation.results import DirectionResult
from csmae_hf.metrics.labels import FloatArray

UNTRAINED = "untrained"
BAND_STATISTICS = "band statistics"
LABELS_KNOWN = "labels known"

MEANINGS = {
    UNTRAINED: "the same model with random weights, aligned as its own training pairs ask for",
    BAND_STATISTICS: "mean and standard deviation of each band that a model here sees; across sensors as least squares on training "
    "pairs predicts them",
    LABELS_KNOWN: "a ranking by the cosine of the label sets themselves",
}

Measure = Callable[..., list[DirectionResult]]
"""Evaluates embedded tiles by sensor; options are `directions` and `resamples`, as of `evaluate_retrieval`."""

_RIDGE = 1e-3
"""Penalty of the least squares, as a share of the mean variance: bands of one sensor say nearly the same."""


@dataclass(frozen=True)
class _Sensors:
    sensors: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Output:
    embeds: dict[str, torch.Tensor]


class BandStatistics(torch.nn.Module):
    """An encoder without weights: (B, 2C) mean and standard deviation of each band of (B, C, H, W) pixels, as they come in."""

    def __init__(self, sensors: Mapping[str, Sequence[str]]):
        super().__init__()
        self.config = _Sensors(sensors)
        self.place = torch.nn.Parameter(torch.zeros(()), requires_grad=False)  # says the device and the type

    def forward(self, **images: torch.Tensor) -> _Output:
        """Statistics by sensor; a ValueError for what are no images."""
        other = next((sensor for sensor, pixels in images.items() if pixels.ndim != 4), None)
        if other is not None:
            raise ValueError(f"Images of {other} have shape {tuple(images[other].shape)}; expected (B, C, H, W).")
        flat = {sensor: pixels.float().flatten(2) for sensor, pixels in images.items()}
        return _Output(
            {sensor: torch.cat([values.mean(2), values.std(2, correction=0)], 1) for sensor, values in flat.items()}
        )


def measure_band_statistics(
    statistics: Mapping[str, Embedded], train: Mapping[str, Embedded], measure: Measure
) -> list[DirectionResult]:
    """Measure retrieval by band statistics.

    Args:
        statistics: The tiles by sensor, with `BandStatistics` as embeds.
        train: The training tiles likewise; empty leaves out the directions across sensors.
        measure: The evaluation.

    Returns:
        A result for each direction that can be measured, in the order of `measure`.
    """
    fitted = train or statistics
    scales = {sensor: _scale(one.embeds) for sensor, one in fitted.items()}

    def standardised(tiles: Mapping[str, Embedded], sensor: str) -> FloatArray:
        mean, deviation = scales[sensor]
        values: FloatArray = (np.asarray(tiles[sensor].embeds, np.float64) - mean) / deviation
        return values

    results = []
    for query_sensor in statistics:
        for archive_sensor in statistics:
            archive, query = (standardised(statistics, sensor) for sensor in (archive_sensor, query_sensor))
            if query_sensor != archive_sensor:
                if len(train) < 2:
                    continue
                known, wanted = (standardised(train, sensor) for sensor in (query_sensor, archive_sensor))
                query = query @ ridge(known, wanted)
            sides = {
                query_sensor: replace(statistics[query_sensor], embeds=_nonzero(query)),
                archive_sensor: replace(statistics[archive_sensor], embeds=_nonzero(archive)),
            }
            results += measure(sides, directions=[(query_sensor, archive_sensor)])
    return results


def measure_labels_known(embeds: Mapping[str, Embedded], measure: Measure) -> list[DirectionResult]:
    """Measure a ranking by the labels themselves: what retrieval could be at best by that order."""
    return measure({sensor: replace(one, embeds=one.labels.astype(np.float32)) for sensor, one in embeds.items()})


def ridge(source: FloatArray, target: FloatArray) -> FloatArray:
    """(S, T) coefficients W that make `source @ W` closest to `target`, (N, S) and (N, T) of mean 0, with a small penalty."""
    gram = source.T @ source
    penalty = _RIDGE * max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.asarray(np.linalg.solve(gram + penalty * np.eye(len(gram)), source.T @ target), np.float64)


def _scale(values: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    values = np.asarray(values, np.float64)
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.where(deviation > 0, deviation, 1.0)


def _nonzero(values: FloatArray) -> NDArray[np.float32]:
    """Values as the search takes them, in which a vector of zeros has no direction: such get a direction of their own."""
    found = values.astype(np.float32)
    found[~found.any(axis=1), 0] = 1.0
    return found
