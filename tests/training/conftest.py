"""What the trainings of these tests read."""

from pathlib import Path

import pytest

from csmae_hf.sample.generate import generate_sample


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample of 60 tiles, made once and never changed."""
    return Path(generate_sample(tmp_path_factory.mktemp("data") / "sample", tiles=60, seed=3))
