"""Bring the embeds of several sensors closer: centring, whitening and Procrustes, fitted on pairs.

A model trained across sensors still leaves each sensor its own region of the space: the means of the sensors' embeds differ (the
"modality gap", Liang et al. 2022), and with them the directions. What is fitted here is one affine map for each sensor, of unit
vectors to unit vectors. **Fit it on pairs of the training split**, never on queries or archive: those would leak into the result.

| method | map of a unit vector x of sensor s |
|---|---|
| `none` | x |
| `center` | x - mean of s |
| `whiten` | (x - mean of s) C^(-1/2), C the covariance of s (ZCA whitening, Kessy et al. 2018), shrunk as by OAS (Chen et al. 2010) |
| `procrustes` | (x - mean of s) R, R the rotation that brings the pairs of s closest to those of the first sensor (Schönemann 1966) |

and then scaled to unit length. Retrieval within a sensor is not changed by the rotation, only by the centring that goes before it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from csmae_hf.files import write_atomically
from csmae_hf.search.nearest import unit_vectors
from csmae_hf.search.vectors import numpy_array

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]

METHODS: tuple[str, ...] = ("none", "center", "whiten", "procrustes")
"""What can be fitted, from the least to the most."""

FORMAT = "csmae-alignment"
VERSION = 1

_LEAST_VARIANCE = 1e-6
"""Directions with less than this share of the largest variance are rounding, not signal: whitening leaves them out."""


def oas_covariance(centered: FloatArray) -> FloatArray:
    """(D, D) covariance (divisor N) of samples (N, D) of mean 0, shrunk towards a multiple of the identity, so that few suffice.

    Oracle Approximating Shrinkage (Chen et al. 2010).
    """
    samples, width = centered.shape
    empirical = centered.T @ centered / samples
    variance = float(np.trace(empirical)) / width
    mean_square = float(np.mean(empirical**2))
    divisor = (samples + 1) * (mean_square - variance**2 / width)
    shrinkage = 1.0 if divisor == 0 else min((mean_square + variance**2) / divisor, 1.0)
    return (1 - shrinkage) * empirical + shrinkage * variance * np.eye(width)


def whitening_matrix(centered: FloatArray) -> FloatArray:
    """(D, D) symmetric matrix C^(-1/2) that gives samples (N, D) of mean 0 unit covariance, C as of `oas_covariance`.

    Directions in which the samples do not vary are mapped to 0.
    """
    variances, directions = np.linalg.eigh(oas_covariance(centered))
    kept = variances > _LEAST_VARIANCE * variances[-1]
    scales = np.zeros_like(variances)
    scales[kept] = variances[kept] ** -0.5
    return (directions * scales) @ directions.T


def procrustes_rotation(source: FloatArray, target: FloatArray) -> FloatArray:
    """(D, D) orthogonal R, perhaps a reflection, that makes `source @ R` closest to `target`, (N, D) row by row (Schönemann 1966)."""
    left, _, right = np.linalg.svd(source.T @ target)
    return left @ right


@dataclass(frozen=True, eq=False)
class Alignment:
    """Affine maps of the embeds of each sensor, fitted on pairs.

    Attributes:
        method: One of `METHODS`.
        means: (D,) by sensor, subtracted first; empty for `none`.
        matrices: (D, D) by sensor, applied from the right; a sensor without one keeps its directions.
        n_pairs: Pairs it was fitted on.

    Example:
        >>> alignment = Alignment.fit({"s1": train_s1, "s2": train_s2}, "center")
        >>> queries = alignment.apply(embeds_s1, "s1")
    """

    method: str
    means: Mapping[str, FloatArray]
    matrices: Mapping[str, FloatArray]
    n_pairs: int = 0

    @classmethod
    def none(cls) -> "Alignment":
        """The alignment that changes nothing."""
        return cls("none", {}, {})

    @classmethod
    def fit(cls, pairs: Mapping[str, NDArray[Any]], method: str, *, quiet: bool = False) -> "Alignment":
        """Fit the maps.

        Args:
            pairs: (N, D) embeds by sensor, of any length, row i of every sensor of one tile: tiles of the training split.
            method: One of `METHODS`.
            quiet: Do not warn of few pairs.

        Raises:
            ValueError: Unknown method, fewer than two sensors or pairs, other shapes, or embeds that are zero or not finite.
        """
        check_method(method)
        if method == "none":
            return cls.none()
        units = _checked_pairs(pairs)
        n_pairs, width = next(iter(units.values())).shape
        means = {sensor: unit.mean(axis=0) for sensor, unit in units.items()}
        centered = {sensor: unit - means[sensor] for sensor, unit in units.items()}
        matrices: dict[str, FloatArray] = {}
        if method == "whiten":
            matrices = {sensor: whitening_matrix(values) for sensor, values in centered.items()}
        elif method == "procrustes":
            first, *others = centered
            matrices = {sensor: procrustes_rotation(centered[sensor], centered[first]) for sensor in others}
        if method != "center" and n_pairs <= width and not quiet:
            logger.warning("%s is fitted on %d pairs of width %d: too few to be sure of.", method, n_pairs, width)
        return cls(method, means, matrices, n_pairs)

    def apply(self, embeds: NDArray[Any], sensor: str) -> NDArray[np.float32]:
        """Map embeds of a sensor.

        Args:
            embeds: (N, D), of any length: they are scaled to unit length first.
            sensor: Whose they are.

        Returns:
            (N, D) float32 of unit length; for `none` the embeds as they are given, in float32.

        Raises:
            ValueError: The alignment does not know the sensor, the width is another, or embeds are zero or not finite.
        """
        if self.method == "none":
            return numpy_array(embeds).astype(np.float32, copy=False)
        if sensor not in self.means:
            raise ValueError(
                f"This alignment ({self.method}) was fitted for {', '.join(self.means)}, not for {sensor!r}: fit it on pairs with it."
            )
        unit = unit_vectors(embeds, sensor).double().numpy()
        if unit.shape[1] != len(self.means[sensor]):
            raise ValueError(
                f"The {sensor} embeds have width {unit.shape[1]}, the alignment {len(self.means[sensor])}; both must come from one "
                "model."
            )
        moved = unit - self.means[sensor]
        if sensor in self.matrices:
            moved = moved @ self.matrices[sensor]
        return unit_vectors(moved, f"aligned {sensor}").numpy()

    def to_bytes(self) -> bytes:
        """Serialise it: safetensors, with the method in the header. The same alignment gives the same bytes."""
        parts = {f"mean.{sensor}": value for sensor, value in self.means.items()}
        parts |= {f"matrix.{sensor}": value for sensor, value in self.matrices.items()}
        header = {"format": FORMAT, "version": VERSION, "method": self.method, "n_pairs": self.n_pairs}
        header["sensors"] = list(self.means)
        values = {name: np.ascontiguousarray(parts[name]) for name in sorted(parts)}
        return save(values, metadata={FORMAT: json.dumps(header, sort_keys=True)})

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of `to_bytes`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file, by custom `alignment.safetensors`, whole or not at all; give its path."""
        write_atomically(Path(path), self.to_bytes())
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Alignment":
        """Read what `save` wrote, equal to the bit.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not such a file, is cut short, or is of a later version.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"No alignment at {path}: make one with Alignment.fit(...).save(path).")
        try:
            with safe_open(str(path), framework="numpy") as stream:
                header = json.loads((stream.metadata() or {}).get(FORMAT, "{}"))
                values = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no alignment, or is damaged: {error}. Fit it again.") from error
        if header.get("format") != FORMAT or header.get("version") != VERSION or header.get("method") not in METHODS:
            raise ValueError(f"{path} is no alignment of version {VERSION}: its header is {header}. Fit it again.")
        sensors: Sequence[str] = header["sensors"]
        means = {sensor: values[f"mean.{sensor}"] for sensor in sensors}
        matrices = {sensor: values[f"matrix.{sensor}"] for sensor in sensors if f"matrix.{sensor}" in values}
        return cls(header["method"], means, matrices, header["n_pairs"])


def check_method(method: str) -> None:
    """Refuse the name of a method that does not exist, with a ValueError."""
    if method not in METHODS:
        raise ValueError(f"Unknown alignment {method!r}: expected one of {', '.join(METHODS)}.")


def _checked_pairs(pairs: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
    """Unit vectors by sensor, in float64."""
    shapes = {sensor: np.shape(values) for sensor, values in pairs.items()}
    described = ", ".join(f"{sensor}: {shape}" for sensor, shape in shapes.items()) or "none"
    if len(pairs) < 2 or len(set(shapes.values())) != 1 or next(iter(shapes.values()))[0] < 2:
        raise ValueError(
            "An alignment is fitted on pairs: embeds of two or more sensors, all of one shape (pairs, width), two pairs at least. "
            f"Given: {described}."
        )
    return {sensor: unit_vectors(values, sensor).double().numpy() for sensor, values in pairs.items()}
