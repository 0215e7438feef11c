"""Random numbers of a training step that depend on the seed, the step and the row of the global batch, and on nothing else.

A run that was interrupted, that evaluates in between, or that spreads its batch over other processes or accumulation steps
draws the same masks and flips: there is no state to keep.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

_WORDS_A_BLOCK = 4  # of 64 bits, what Philox gives for one value of its counter
_SENT_WITHOUT_WAITING = (
    "cuda",
)  # types of devices to which page-locked memory is safely copied while the host goes on


def draw_rows(seed: int, step: int, first_row: int, rows: int, width: int) -> NDArray[np.float32]:
    """Draw (rows, width) numbers in [0, 1) for consecutive rows of a step's global batch; a row's depend on the width.

    They are from the counter-based generator Philox (Salmon et al., doi 10.1145/2063384.2063405).
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
    """Draw what a training step chooses at random, for B rows of its global batch from `first_row` on.

    They are (B, 2) bool, whether to flip a place horizontally and vertically, p = 0.5 each; and (B, L patches) by sensor, for all of
    the model's in its order, the noise that decides which patches stay visible. They are drawn on the CPU, so that every device
    gets the same. The seed is not negative.
    """
    names, device = list(sensors), torch.device(device)
    numbers = torch.from_numpy(draw_rows(seed, step, first_row, rows, 2 + patches * len(names)))
    if device.type in _SENT_WITHOUT_WAITING:
        numbers = numbers.pin_memory()  # from other memory the driver copies while the host waits
    numbers = numbers.to(device, non_blocking=device.type in _SENT_WITHOUT_WAITING)
    flips, noise = numbers[:, :2] < 0.5, numbers[:, 2:].reshape(rows, len(names), patches)
    return flips, dict(zip(names, noise.unbind(1), strict=True))


def flip_together(images: dict[str, torch.Tensor], flips: torch.Tensor) -> dict[str, torch.Tensor]:
    """Flip each of B places, (B, C, H, W) by sensor, in all its sensors alike: by (B, 2) bool, horizontally and vertically."""
    flipped = {}
    for sensor, image in images.items():
        for choice, dim in zip(flips.T.reshape(2, -1, 1, 1, 1), (-1, -2), strict=True):
            image = torch.where(choice, image.flip(dim), image)
        flipped[sensor] = image
    return flipped


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Put the state of every global random generator back at the end: Python's, NumPy's, torch's on the CPU and on its device.

    Evaluation draws too, if only the seed of a DataLoader's workers. With this, a run that is evaluated is bit for bit the run
    that is not.
    """
    python, legacy = random.getstate(), np.random.get_state()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    indices = [torch.accelerator.current_device_index()] if device is not None else []
    with torch.random.fork_rng(indices, device_type=device.type if device is not None else "cuda"):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
