"""A folder for what is worked out once about a store, safe to lose and to share between processes."""

import hashlib
import os
from pathlib import Path

from huggingface_hub import constants

from csmae_hf.data.store import data_file

CACHE_VARIABLE = "CSMAE_CACHE"
"""Environment variable that names the folder; default is `csmae` in the home of Hugging Face."""


def cache_folder() -> Path:
    """Say where the cache lies; the folder may not exist."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path(constants.HF_HOME) / "csmae")


def store_identity(path: Path) -> str:
    """Name a store (its LMDB) by its place and its file's size and time of change, so that no other is taken for it."""
    state = data_file(path).stat()
    text = f"{path.resolve()}\n{state.st_size}\n{state.st_mtime_ns}"
    return f"{path.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
