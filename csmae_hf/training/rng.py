"""Random numbers that looking at a run must not use up."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Put the state of every global random generator back at the end: Python's, NumPy's, torch's on the CPU and on its device.

    Evaluation draws too, if only the seed of a DataLoader's workers, and training masks by torch's generator. With this, a run that
    is evaluated is bit for bit the run that is not.

    Yields:
        Nothing.
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
