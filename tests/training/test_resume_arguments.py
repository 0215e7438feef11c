"""A resumed run goes on with the optimisation it began with: another one is refused by name, never recorded and not used."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_runs import furthest, log_of, run_here

from csmae_hf.evaluation.trainings import group_trainings, learning_changes
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training import resume
from csmae_hf.training.arguments import CSMAETrainingArguments, known_names
from csmae_hf.training.checkpoints import last_checkpoint
from csmae_hf.training.errors import CheckpointError
from csmae_hf.training.trainer import CSMAETrainer
from modeling_csmae import CSMAEForPreTraining

KEEP = ("--save_total_limit", "9")
CONSTANT = ("--lr_scheduler_type", "constant")
EPOCHS = ("--max_steps", "-1", "--num_train_epochs", "1")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_here(data, folder, *KEEP)
    return folder


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> Path:
    """A run that was stopped after step 9 of 10."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint-10")
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--learning_rate", "5e-4"), "learning_rate: 0.001 -> 0.0005"),
        (("--adam_beta2", "0.99"), r"adam_beta2: 0.95 -> 0.99"),
        (("--adam_epsilon", "1e-6"), r"adam_epsilon: 1e-08 -> 1e-06"),
        (("--weight_decay", "0.1"), r"weight_decay: 0.05 -> 0.1"),
        (("--lr_scheduler_type", "linear"), "lr_scheduler_type: cosine -> linear"),
        (("--warmup_steps", "3"), r"warmup_steps: 0.0666\d* -> 3"),
        (("--optim", "sgd"), "optim: adamw_torch.* -> sgd"),
        (("--seed", "7"), "seed: 42 -> 7"),
        (("--dataloader_drop_last", "true"), "dataloader_drop_last: False -> True"),
        (("--max_steps", "12"), r"schedule cosine runs: 10 -> 12 \(max_steps: 10 -> 12\)"),
        (
            ("--max_steps", "-1", "--num_train_epochs", "2"),
            r"10 -> 12 \(max_steps: 10 -> -1, num_train_epochs: 150 -> 2",
        ),
        (
            ("--per_device_train_batch_size", "2"),
            r"per_device_train_batch_size: 4 -> 2 \(effective batch size: 4 -> 2\)",
        ),
        (("--gradient_accumulation_steps", "2"), r"gradient_accumulation_steps: 1 -> 2 \(effective batch size: 4 -> 8"),
        (
            ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2"),
            "gradient_accumulation_steps: 1 -> 2 .another number of negatives for MIM",
        ),
        (("--variant", "secd"), "variant: None -> secd"),
        (("--flips", "false"), "flips: True -> False"),
        (("--ignore_data_skip", "true"), "ignore_data_skip: False -> True"),
        (
            ("--train_split", "test", "--max_train_tiles", "12"),
            r"train_split: train -> test, max_train_tiles: 24 -> 12 \(other training tiles: 24 -> 12 tiles, other names",
        ),
        (("--metric_for_best_model", "loss"), r"metric_for_best_model: None -> loss \(no checkpoint before was judged"),
    ],
)
def test_another_optimisation_is_refused_by_name(data: Path, begun: Path, change: tuple[str, ...], named: str) -> None:
    recorded = (begun / "arguments.yaml").read_bytes()
    with pytest.raises(ValueError, match=rf"checkpoint-9 .*{named}.*--model_name_or_path .*checkpoint-9"):
        run_here(data, begun, "--auto_resume", *change)
    assert (begun / "arguments.yaml").read_bytes() == recorded


def test_every_argument_has_a_rule() -> None:
    """So that a new one, of ours or of a release of Transformers, is thought of: until then it is refused where it differs."""
    rules = [
        *resume.SETTLED,
        *resume.BATCH,
        *resume.LENGTH,
        *resume.TILES,
        *resume.JUDGED,
        *resume.BEST,
        *resume.EFFECTIVE,
    ]
    assert sorted(rules) == sorted(set(rules)), "one rule each"
    known = {*rules}
    assert set(known_names()) <= known
    unknown = known - set(known_names())
    assert not unknown, f"arguments that do not exist: {unknown}"


def test_data_that_were_moved_are_the_same_and_other_pixels_are_not(data: Path, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "moved")
    other = Path(generate_sample(tmp_path / "other", tiles=60, seed=4))
    with pytest.raises(ValueError, match=r"data: \S+sample -> \S+other \(other training tiles: 24 -> 24 tiles, "):
        run_here(other, begun, "--auto_resume")
    log = run_here(tmp_path / "moved", begun, "--auto_resume", *KEEP)
    assert len(log) == 10
    record = (begun / "arguments.yaml").read_text()
    assert "Until step" not in record, "where data lie is not what they are"
    assert yaml.safe_load(record)["data"] == str(tmp_path / "moved")


def test_the_tiles_themselves_may_have_changed_in_their_place(data: Path, begun: Path) -> None:
    path = begun / "checkpoint-9" / "tiles.json"
    held = json.loads(path.read_text())
    (begun / "checkpoint-9" / "complete.json").unlink()
    named = ("--resume_from_checkpoint", str(begun / "checkpoint-9"))
    for key, said in (("pixels", "the same names, other pixels"), ("ids", "other names, or another order")):
        path.write_text(json.dumps({"train": {**held["train"], key: "0" * 64}}))
        with pytest.raises(ValueError, match=rf"data: the same place .* 24 -> 24 tiles, {said}"):
            run_here(data, begun, *named)


def test_another_objective_is_refused(data: Path, begun: Path) -> None:
    with pytest.raises(ValueError, match=r"model_overrides: .* -> .*mim_weight"):
        run_here(data, begun, "--auto_resume", mim_weight=0.5)


def test_a_named_checkpoint_is_asked_for_its_own_arguments(data: Path, begun: Path, tmp_path: Path) -> None:
    shutil.move(begun / "checkpoint-9", tmp_path / "moved" / "checkpoint-9")
    named = ("--resume_from_checkpoint", str(tmp_path / "moved" / "checkpoint-9"))
    with pytest.raises(ValueError, match=r"learning_rate: 0.001 -> 0.5"):
        run_here(data, tmp_path / "new", *named, "--learning_rate", "0.5")
    assert not (tmp_path / "new" / "arguments.yaml").exists()


def test_what_a_refusal_advises_works(data: Path, begun: Path, tmp_path: Path) -> None:
    weights = ("--model_name_or_path", str(last_checkpoint(begun)), "--learning_rate", "5e-4", *CONSTANT)
    (first, *_) = run_here(data, tmp_path / "new", *weights, "--max_steps", "1")
    assert first["learning_rate"] == 5e-4
    assert yaml.safe_load((tmp_path / "new" / "arguments.yaml").read_text())["learning_rate"] == 5e-4


def test_what_acts_on_later_steps_only_may_change(data: Path, whole: Path, begun: Path, caplog: Any) -> None:
    log = run_here(data, begun, "--auto_resume", *KEEP, "--save_steps", "5", "--max_grad_norm", "1e9")
    assert [entry["loss"] for entry in log] == [entry["loss"] for entry in log_of(whole)]
    assert "save_steps: 3" in caplog.text
    record = (begun / "arguments.yaml").read_text()
    assert yaml.safe_load(record)["max_grad_norm"] == 1e9
    assert '# Until step 9: {"max_grad_norm": 0.0, "save_steps": 3.0}' in record
    assert learning_changes(begun / "arguments.yaml") == [(9, {"max_grad_norm": 0.0})]
    assert group_trainings([str(whole), str(begun)]) == {str(whole): [str(whole)], str(begun): [str(begun)]}


def test_when_to_log_evaluate_and_save_is_heeded_from_the_next_step_on(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for step in (6, 9, 10):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}", ignore_errors=True)
    later = (
        "--save_steps",
        "4",
        "--logging_steps",
        "2",
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "5",
        "--eyes_tiles",
        "0",
    )
    log = run_here(data, tmp_path / "run", "--resume_from_checkpoint", "last", *KEEP, *later)
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 6, 8, 10]
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [5, 10]
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {f"checkpoint-{n}" for n in (3, 4, 8, 10)}


def test_a_schedule_that_does_not_depend_on_the_length_permits_more_epochs(data: Path, tmp_path: Path) -> None:
    run_here(data, tmp_path / "run", *EPOCHS, *CONSTANT)
    longer = (*EPOCHS[:3], "2")
    log = run_here(data, tmp_path / "run", *longer, *CONSTANT, "--auto_resume")
    assert furthest(log, run_here(data, tmp_path / "whole", *longer, *CONSTANT)) < 1e-5
    warm = ("--lr_scheduler_type", "constant_with_warmup")
    run_here(data, tmp_path / "share", *EPOCHS, *warm, "--warmup_steps", "0.3")
    with pytest.raises(ValueError, match=r"constant_with_warmup runs: 6 -> 12 \(num_train_epochs: 1.0 -> 2.0\)"):
        run_here(data, tmp_path / "share", *longer, *warm, "--warmup_steps", "0.3", "--auto_resume")


def test_more_tiles_of_an_epoch_are_more_steps_of_the_schedule(data: Path, tmp_path: Path) -> None:
    run_here(data, tmp_path, *EPOCHS)
    with pytest.raises(ValueError, match=r"cosine runs: 6 -> 7 \(max_train_tiles: 24 -> 28\)"):
        run_here(data, tmp_path, *EPOCHS, "--max_train_tiles", "28", "--auto_resume")


def test_without_mim_accumulation_may_change_where_the_effective_batch_stays(data: Path, tmp_path: Path) -> None:
    run_here(data, tmp_path / "run", mim_weight=0)
    shutil.rmtree(tmp_path / "run" / "checkpoint-10")
    whole = log_of(tmp_path / "run")
    halves = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2")
    assert furthest(run_here(data, tmp_path / "run", *halves, "--auto_resume", mim_weight=0), whole) < 1e-5


def test_a_checkpoint_that_two_processes_made_counts_as_theirs(data: Path, begun: Path) -> None:
    """Half of each batch in each of two processes is as many tiles a step as one process takes."""
    checkpoint = begun / "checkpoint-9"
    (checkpoint / "complete.json").unlink()
    shutil.copyfile(checkpoint / "log_window_0.pt", checkpoint / "log_window_1.pt")
    named = ("--resume_from_checkpoint", str(checkpoint))
    with pytest.raises(ValueError, match=r"processes: 2 -> 1 \(effective batch size: 8 -> 4\)"):
        run_here(data, begun, *named)
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps({**state, "train_batch_size": 2}))
    assert torch.isfinite(torch.tensor(run_here(data, begun, *named)[-1]["loss"]))


def test_a_run_that_saved_its_model_alone_is_not_resumed_as_if_it_were_whole(data: Path, tmp_path: Path) -> None:
    alone = ("--save_only_model", "true", "--max_steps", "2", "--save_steps", "1")
    run_here(data, tmp_path / "run", *alone)
    for asked in (("--resume_from_checkpoint", "last"), ("--resume_from_checkpoint", "True"), ("--auto_resume",)):
        with pytest.raises(CheckpointError, match=r"checkpoint-2: it holds the model alone, .*--model_name_or_path"):
            run_here(data, tmp_path / "run", *alone, *asked)
    last = tmp_path / "run" / "checkpoint-2"
    trainer = CSMAETrainer(
        model=CSMAEForPreTraining.from_pretrained(last),
        args=CSMAETrainingArguments(output_dir=str(last.parent), eval_strategy="no", use_cpu=True),
        train_dataset=[],  # type: ignore[arg-type]
    )
    for how in (True, str(last)):
        with pytest.raises(CheckpointError, match="holds the model alone"):
            trainer.train(resume_from_checkpoint=how)
    run_here(data, tmp_path / "new", "--model_name_or_path", str(last), *alone)
