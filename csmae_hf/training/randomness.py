"""Random numbers of a training step that depend on the seed, the step and the row of the global batch, and on nothing else.

A run that was interrupted, that evaluates in between, or that spreads its batch over other processes or accumulation steps
draws the same masks and flips: there is no state to keep.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from csmae_hf.training.waiting import send

_WORDS_A_BLOCK = 4  # of 64 bits, what Philox gives for one value of its counter


def draw_rows(seed: int, step: int, first_row: int, rows: int, width: int) -> NDArray[np.float32]:
    """Draw numbers in [0, 1) for consecutive rows of the global batch of a step.

    Args:
        seed: Of the run, not negative.
        step: Number of the step.
        first_row: Place of the first row in the global batch.
        rows: How many rows.
        width: Numbers a row; a row's numbers depend on it.

    Returns:
        (rows, width), from the counter-based generator Philox (Salmon et al., doi 10.1145/2063384.2063405).
    """
    blocks = -(-width // _WORDS_A_BLOCK)
    counter = np.array([first_row * blocks, 0, step, 0], dtype=np.uint64)
    generator = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=counter)
    words = generator.random_raw(rows * blocks * _WORDS_A_BLOCK).reshape(rows, -1)[:, :width]
    return ((words >> np.uint64(40)).astype(np.float32)) * np.float32(2**-24)


def draw_flips_and_noise(
    seed: int,
    step: int,
    first_row: int,
    rows: int,
    sensors: Iterable[str],
    patches: int,
    device: str | torch.device = "cpu",
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Draw what a training step chooses at random.

    Args:
        seed: Of the run.
        step: Number of the step.
        first_row: Place of the first row in the global batch.
        rows: How many rows, B.
        sensors: All of the model's, in its order.
        patches: Patches of an image, L.
        device: Where they are wanted. They are drawn on the CPU, so that every device gets the same.

    Returns:
        (B, 2) bool, whether to flip a place horizontally and vertically, p = 0.5 each; and (B, L) by sensor, the noise that
        decides which patches stay visible.
    """
    names = list(sensors)
    numbers = send(torch.from_numpy(draw_rows(seed, step, first_row, rows, 2 + patches * len(names))), device)
    flips, noise = numbers[:, :2] < 0.5, numbers[:, 2:].reshape(rows, len(names), patches)
    return flips, dict(zip(names, noise.unbind(1), strict=True))


def flip_together(images: dict[str, torch.Tensor], flips: torch.Tensor) -> dict[str, torch.Tensor]:
    """Flip each place, in all its sensors alike.

    Args:
        images: (B, C, H, W) by sensor, the same B places.
        flips: (B, 2) bool, whether to flip a place horizontally and vertically, on the images' device.

    Returns:
        The flipped images.
    """
    flipped = {}
    for sensor, image in images.items():
        choices = flips.T.reshape(2, -1, 1, 1, 1)
        for choice, dim in zip(choices, (-1, -2), strict=True):
            image = torch.where(choice, image.flip(dim), image)
        flipped[sensor] = image
    return flipped
