"""Some of many rows, evenly spread: how every limit on tiles chooses."""

import numpy as np
from numpy.typing import NDArray


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """min(count, most) different rows of so many, spread evenly over all, ascending; the same every time."""
    chosen = min(count, most)
    return np.arange(chosen, dtype=np.int64) * count // max(chosen, 1)
