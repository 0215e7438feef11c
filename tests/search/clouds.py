"""Vectors and metadata like those of an archive, for measuring recall: tiles mix a few classes, seen differently by two sensors."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import torch

WIDTH = 64
CLASSES = 43
LATENT = 24
COUNTRIES = ["Austria", 'O\'Brien "x" \\', "ünï\nx", None, ""]


def make_vectors(rows, sensor="s2", seed=0):
    """Unit vectors of tiles that mix 1 to 5 of 43 classes, through a curved map; a sensor bends and shifts it."""
    fixed = np.random.default_rng(7)
    centers, weights = fixed.normal(size=(CLASSES, LATENT)), fixed.normal(size=(LATENT, WIDTH)) / 3
    bend, shift = fixed.normal(size=(LATENT, WIDTH)) / 3, fixed.normal(size=WIDTH)
    rng = np.random.default_rng(seed)
    mixes = np.zeros((rows, CLASSES))
    for row in range(rows):
        chosen = rng.choice(CLASSES, rng.integers(1, 6), replace=False)
        mixes[row, chosen] = rng.dirichlet(np.ones(len(chosen)))
    latent = mixes @ centers + 0.4 * rng.normal(size=(rows, LATENT))
    if sensor == "s1":
        weights = weights + 0.15 * bend
    values = np.tanh(latent @ weights) + (0.1 * shift if sensor == "s1" else 0)
    return torch.from_numpy((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))


def make_tiles(rows):
    numbers = range(rows)
    start = datetime(2017, 1, 1)
    return pa.table(
        {
            "id": [f"tile {number}" for number in numbers],
            "country": pa.array([COUNTRIES[number % 5] for number in numbers], pa.string()),
            "elevation": pa.array([None if number % 7 == 0 else number / 4 for number in numbers], pa.float64()),
            "number": pa.array(numbers, pa.int64()),
            "snow": pa.array([number % 3 == 0 for number in numbers], pa.bool_()),
            "date": pa.array([start + timedelta(hours=number) for number in numbers], pa.timestamp("s")),
            "labels": pa.array(
                [
                    None if number % 11 == 0 else [name for bit, name in enumerate("abc") if number >> bit & 1]
                    for number in numbers
                ],
                pa.list_(pa.string()),
            ),
        }
    )
