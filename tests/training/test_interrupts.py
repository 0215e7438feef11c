"""Trainings that are interrupted at moments that nobody chooses: a handful here, 200 by `make interrupts`."""

from pathlib import Path

import pytest
from interrupted_runs import interrupt_runs


@pytest.mark.slow
def test_interrupted_trainings_stop_gracefully_and_go_on(tmp_path: Path) -> None:
    ended = interrupt_runs(tmp_path, 6, seed=11, resume_every=3)
    assert [one for one in ended if one.faults] == []
    assert len(ended) == 6
