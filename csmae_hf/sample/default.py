"""The data set of a run: the one that a person names, or the synthetic sample where none is named."""

import logging
from pathlib import Path
from typing import Any

from datasets import Dataset

from csmae_hf.data.load import load_data
from csmae_hf.sample.generate import generate_sample

logger = logging.getLogger(__name__)

DEFAULT_SAMPLE = Path("sample_archive")
"""Where the sample is generated when no data set is named, in the working folder."""

DEFAULT_SAMPLE_TILES = 1000


def load_data_or_sample(data: str | Path | None, split: str, **options: Any) -> Dataset:
    """Load a split of a data set as [`load_data`], or of the synthetic sample, generated once, where none is named (None)."""
    return load_data(default_sample() if data is None else data, split, **options)


def default_sample() -> Path:
    """Generate the sample in the working folder where it is not there yet, and return its folder."""
    if not DEFAULT_SAMPLE.exists():
        logger.warning(
            "No data set was named: generating %d synthetic tiles at %s.", DEFAULT_SAMPLE_TILES, DEFAULT_SAMPLE
        )
    return Path(generate_sample(DEFAULT_SAMPLE, tiles=DEFAULT_SAMPLE_TILES, seed=0))
