"""One run in a folder at a time."""

import signal
from pathlib import Path

import pytest
from tiny_runs import Run, options, run_here

from csmae_hf.files import LOCK_NAME

pytestmark = pytest.mark.slow

WORKERS = ("--dataloader_num_workers", "2", "--max_steps", "500", "--save_steps", "2")


def test_a_second_run_is_refused_until_the_first_is_gone_and_a_kill_lets_go(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = Run(options(data, folder, *WORKERS), tmp_path / "first.log")
    first.wait_for_losses(1)
    (tmp_path / "link").symlink_to(folder)
    before = sorted(path.name for path in folder.glob("checkpoint-*"))
    for place in (folder, tmp_path / "link"):
        with pytest.raises(FileExistsError, match=r"Another run trains in .*another --output_dir"):
            run_here(data, place, *WORKERS, "--auto_resume")
    second = Run(options(data, folder, *WORKERS, "--auto_resume"), tmp_path / "second.log", processes=2)
    assert second.wait() == [2, 2], second.output
    assert second.output.count("Another run trains in") == 2
    assert set(before) - {path.name for path in folder.glob("checkpoint-*")} <= {"checkpoint-2", "checkpoint-4"}
    assert first.stop(signal.SIGKILL) == [-signal.SIGKILL], first.output
    # its processes that read tiles may live on for seconds
    ended = Run(options(data, folder, *WORKERS, "--auto_resume"), tmp_path / "third.log")
    ended.wait_for("FLOPs a step")
    assert "FLOPs a step" in ended.output
    assert ended.stop(signal.SIGKILL) == [-signal.SIGKILL]


def test_a_run_that_ended_in_an_error_lets_go(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="limit=0"):
        run_here(data, tmp_path, "--max_train_tiles", "0")
    run_here(data, tmp_path, "--max_steps", "1", "--save_strategy", "no")
    assert (tmp_path / LOCK_NAME).is_file()
