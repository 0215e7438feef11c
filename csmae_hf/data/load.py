"""What both scripts read: the archive a person names, or the sample archive where none is named."""

import logging
from pathlib import Path
from typing import Literal

from datasets import Dataset

from csmae_hf.bigearthnet import SPLITS
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.sample import generate_sample

logger = logging.getLogger(__name__)

DEFAULT_SAMPLE = Path("sample_archive")
"""Where the sample archive is generated when no archive is named, in the working folder."""

DEFAULT_SAMPLE_TILES = 1000
ALL_TILES = "all"
Missing = Literal["error", "drop"]


def load_archive(
    data: str | None,
    split: str,
    *,
    subset: str | None = None,
    metadata: str | None = None,
    splits: str | None = None,
    missing: Missing = "error",
    limit: int | None = None,
) -> Dataset:
    """Load a split of an archive.

    Args:
        data: Folder of the archive, as of [`load_bigearthnet`]; None generates the synthetic sample archive, once.
        split: Name of the split, or `all`.
        subset: As of [`load_bigearthnet`].
        metadata: As of [`load_bigearthnet`].
        splits: As of [`load_bigearthnet`].
        missing: As of [`load_bigearthnet`].
        limit: The most tiles to keep; None for all.

    Returns:
        The dataset.

    Raises:
        ValueError: If the split is unknown, or as [`load_bigearthnet`].
    """
    split = split_name(split)
    path = Path(data) if data is not None else default_sample()
    name = None if split == ALL_TILES else split
    dataset = load_bigearthnet(path, name, subset=subset, metadata=metadata, splits=splits, missing=missing)
    return dataset.select(range(min(limit, len(dataset)))) if limit is not None else dataset


def split_name(split: str) -> str:
    """Give a split its one name: `val` is `validation`, as in BigEarthNet v2; `all` stays.

    Raises:
        ValueError: If the split is unknown.
    """
    name = "validation" if split == "val" else split
    if name not in (*SPLITS, ALL_TILES):
        raise ValueError(
            f"Unknown split {split!r}: expected one of {', '.join(SPLITS)}, or {ALL_TILES!r} for every tile."
        )
    return name


def default_sample() -> Path:
    """Generate the sample archive in the working folder where it is not there yet, and return its folder."""
    if not DEFAULT_SAMPLE.exists():
        logger.warning(
            "No archive was named: generating %d synthetic tiles at %s.", DEFAULT_SAMPLE_TILES, DEFAULT_SAMPLE
        )
    return Path(generate_sample(DEFAULT_SAMPLE, tiles=DEFAULT_SAMPLE_TILES, seed=0))
