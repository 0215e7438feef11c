"""Which checkpoint is whole, which is used, which are deleted."""

import json
import logging
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csmae_hf.training.checkpoints import (
    SEAL_NAME,
    checkpoint_problem,
    find_best,
    last_checkpoint,
    prune_checkpoints,
    refuse_without_state,
    resolve_resume,
    seal_checkpoint,
)
from csmae_hf.training.errors import CheckpointError


def write_checkpoint(run: Path, step: int, sealed: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"weight": torch.zeros(1000)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"value": torch.zeros(1000)}, folder / name)
    (folder / "trainer_state.json").write_text("{}")
    if sealed:
        seal_checkpoint(folder, step)
    return folder


def damage(folder: Path, how: str) -> None:
    if how == "unsealed":
        (folder / SEAL_NAME).unlink()
    elif how == "seal cut short":
        (folder / SEAL_NAME).write_text('{"step": 2, "fi')
    elif how == "gone":
        (folder / "rng_state.pth").unlink()
    else:
        content = (folder / how).read_bytes()
        (folder / how).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "how", ["unsealed", "seal cut short", "gone", "model.safetensors", "optimizer.pt", "trainer_state.json"]
)
def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    before = write_checkpoint(tmp_path, 9)  # 10 > 9 as numbers, not as strings
    broken = write_checkpoint(tmp_path, 10)
    assert last_checkpoint(tmp_path) == broken
    damage(broken, how)
    with caplog.at_level(logging.WARNING):
        assert resolve_resume(tmp_path, "last", auto=False) == before
    assert "checkpoint-10" in caplog.text
    with pytest.raises(CheckpointError, match="checkpoint-10"):
        resolve_resume(tmp_path, str(broken), auto=False) if how != "unsealed" else damaged_unsealed(broken)


@pytest.mark.parametrize(
    "name", ["complete.json", "model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_flipped_bit_anywhere_in_a_checkpoint_is_found(tmp_path: Path, name: str) -> None:
    before, broken = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    whole, draw = (broken / name).read_bytes(), random.Random(name)
    for _ in range(40):
        place, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        (broken / name).write_bytes(bytes([*whole[:place], whole[place] ^ bit, *whole[place + 1 :]]))
        assert last_checkpoint(tmp_path) == before, f"bit {bit} of byte {place}"
    (broken / name).write_bytes(whole)
    assert last_checkpoint(tmp_path) == broken


def test_a_checkpoint_is_not_that_of_another_step(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3).rename(tmp_path / "checkpoint-4")
    assert last_checkpoint(tmp_path) is None


def test_what_a_kill_left_of_a_deletion_is_no_checkpoint_and_goes(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path, 2) / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-2").rename(tmp_path / ".writing-checkpoint-2")
    for step in (4, 6, 8):
        write_checkpoint(tmp_path, step)
    prune_checkpoints(tmp_path, keep=2, best=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-6", "checkpoint-8"]


def test_the_best_goes_with_a_run_that_is_moved(tmp_path: Path) -> None:
    run, best = tmp_path / "run", write_checkpoint(tmp_path / "run", 2)
    last = write_checkpoint(run, 6, sealed=False)
    (last / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": str(best)}))
    seal_checkpoint(last, 6)
    assert find_best(last, run) == best
    moved = run.rename(tmp_path / "moved")
    assert find_best(moved / "checkpoint-6", moved) == moved / "checkpoint-2"
    (moved / "checkpoint-2" / "rng_state.pth").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"checkpoint-2 .*rng_state.*--load_best_model_at_end false"):
        find_best(moved / "checkpoint-6", moved)
    shutil.rmtree(moved / "checkpoint-2")
    with pytest.raises(CheckpointError, match=r"checkpoint-2 .*not there.*--load_best_model_at_end false"):
        find_best(moved / "checkpoint-6", moved)
    assert find_best(write_checkpoint(moved, 8), moved) is None, "nothing was judged"


def damaged_unsealed(folder: Path) -> None:
    damage(folder, "optimizer.pt")
    resolve_resume(folder.parent, str(folder), auto=False)


def test_another_programs_whole_checkpoint_is_taken_by_its_path(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 3, sealed=False)
    assert checkpoint_problem(folder) is not None
    assert resolve_resume(tmp_path, str(folder), auto=False) == folder


def test_last_needs_one_and_auto_begins_without(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        resolve_resume(tmp_path, "last", auto=False)
    with pytest.raises(FileNotFoundError, match="No checkpoint"):
        resolve_resume(tmp_path, str(tmp_path / "checkpoint-7"), auto=False)
    assert resolve_resume(tmp_path, None, auto=True) is None
    assert resolve_resume(tmp_path / "not_there_yet", None, auto=True) is None
    folder = write_checkpoint(tmp_path, 3)
    assert resolve_resume(tmp_path, None, auto=True) == folder


STATE = {"optimizer.pt": "optimiser", "scheduler.pt": "schedule", "rng_state.pth": "random generators"}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("gone", [list(STATE), *([name] for name in STATE), ["optimizer.pt", "scheduler.pt"]])
def test_a_checkpoint_without_the_state_of_its_training_is_refused(
    tmp_path: Path, gone: list[str], sealed: bool
) -> None:
    write_checkpoint(tmp_path, 3)
    folder = write_checkpoint(tmp_path, 6, sealed=False)
    for name in gone:
        (folder / name).unlink()
    if sealed:
        seal_checkpoint(folder, 6)
    asked = [(str(folder), False), *([("last", False), ("True", False), (None, True)] if sealed else [])]
    for requested, auto in asked:
        with pytest.raises(
            CheckpointError, match=rf"--model_name_or_path \S*{folder.name}, another --output_dir"
        ) as caught:
            resolve_resume(tmp_path, requested, auto)
        assert all((said in str(caught.value)) == (name in gone) for name, said in STATE.items())
        assert ("--save_only_model saves it" in str(caught.value)) == (len(gone) == len(STATE))


@pytest.mark.parametrize(
    "names", [["optimizer_0", "scheduler.pt", "rng_state_0.pth"], ["global_step6", "rng_state_1.pth"]]
)
def test_the_state_of_a_sharded_training_counts(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    refuse_without_state(tmp_path)


def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3)
    with pytest.raises(FileExistsError, match="--auto_resume"):
        resolve_resume(tmp_path, None, auto=False)


def test_only_complete_checkpoints_count_as_spare(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write_checkpoint(tmp_path, step)
    write_checkpoint(tmp_path, 8, sealed=False)
    prune_checkpoints(tmp_path, keep=2, best=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6", "checkpoint-8"]
    prune_checkpoints(tmp_path, keep=1, best=str(tmp_path / "checkpoint-4"))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"
    assert (tmp_path / "checkpoint-4").is_dir(), "the best one stays"
    prune_checkpoints(tmp_path, keep=None, best=None)
    assert len(list(tmp_path.iterdir())) == 3
