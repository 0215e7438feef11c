"""Every optimiser of the Trainer trains and resumes, or ends in one line; Muon and the schedule-free ones do what they are said to."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import build, tiny_config
from tiny_runs import Run, furthest, log_of, options, run_here
from transformers.training_args import OptimizerNames

from csmae_hf.training.arguments import CSMAETrainingArguments, parse_arguments
from csmae_hf.training.trainer import CSMAETrainer
from modeling_csmae import CSMAEForPreTraining

OF_A_BLOCK = re.compile(r".*\.layers\.\d+\.(attention\.(qkv|proj)|mlp\.fc[12])\.weight")
RATE, DECAY = 1e-3, 0.1


def trainer_of(folder: Path, optim: str, variant: str = "sesd", **settings: Any) -> CSMAETrainer:
    arguments = CSMAETrainingArguments(
        output_dir=str(folder),
        optim=optim,
        learning_rate=RATE,
        weight_decay=DECAY,
        warmup_steps=2,
        save_strategy="no",
        eval_strategy="no",
        precision="fp32",
        use_cpu=True,
        **settings,
    )
    return CSMAETrainer(model=build(CSMAEForPreTraining, tiny_config(variant)), args=arguments)


def named_groups(trainer: CSMAETrainer) -> dict[str, dict[str, Any]]:
    """The group of each parameter by its name."""
    names = {id(each): name for name, each in trainer.model.named_parameters()}  # type: ignore[union-attr]
    groups = trainer.create_optimizer().param_groups
    return {names[id(each)]: group for group in groups for each in group["params"]}


@pytest.mark.parametrize("variant", ["sesd", "cecd"])
def test_muon_has_the_matrices_of_the_blocks_and_adamw_all_else(tmp_path: Path, variant: str) -> None:
    trainer = trainer_of(tmp_path, "muon", variant)
    groups = named_groups(trainer)
    names = [name for name, _ in trainer.model.named_parameters()]  # type: ignore[union-attr]
    assert sorted(groups) == sorted(names)
    assert {name for name, group in groups.items() if "momentum" in group} == {
        name for name in names if OF_A_BLOCK.fullmatch(name)
    }
    assert {group["weight_decay"] for group in groups.values()} == {DECAY}
    assert {group["lr"] for group in groups.values()} == {RATE}


def test_muon_is_torchs_muon_beside_torchs_adamw_under_one_schedule(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "muon", optim_args="momentum=0.9, lr=0.02", lr_scheduler_type="linear")
    optimizer = trainer.create_optimizer()
    schedule = trainer.create_scheduler(10)
    model, expected = trainer.model, build(CSMAEForPreTraining, tiny_config())
    matrices = [each for name, each in expected.named_parameters() if OF_A_BLOCK.fullmatch(name)]
    rest = [each for name, each in expected.named_parameters() if not OF_A_BLOCK.fullmatch(name)]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=DECAY, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=RATE, betas=(0.9, 0.95), weight_decay=DECAY)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        share = step / 2 if step < 2 else (10 - step) / 8
        muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"] = 0.02 * share, RATE * share
        for one, other in zip(model.parameters(), expected.parameters(), strict=True):  # type: ignore[union-attr]
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for each in (optimizer, schedule, muon, adamw):
            each.step()
        if step == 1:  # as a resumed run does
            saved = optimizer.state_dict()
            trainer.optimizer = None  # type: ignore[assignment]
            again = trainer.create_optimizer()
            again.load_state_dict(saved)
            optimizer.param_groups[:], optimizer.state = again.param_groups, again.state
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, atol=1e-7, rtol=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("optim", ["muon", "adafactor", "schedule_free_adamw"])
def test_a_resumed_run_goes_on_bit_for_bit(data: Path, tmp_path: Path, optim: str) -> None:
    if optim.startswith("schedule_free"):
        pytest.importorskip("schedulefree")
    more = ("--optim", optim, "--max_grad_norm", "1", "--max_steps", "5")
    whole = run_here(data, tmp_path / "run", *more)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    shutil.rmtree(tmp_path / "run" / "checkpoint-5")
    assert run_here(data, tmp_path / "run", *more, "--auto_resume") == whole
    again = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in weights.items())


@pytest.mark.slow
def test_two_processes_train_by_muon_as_one(data: Path, tmp_path: Path) -> None:
    more = ("--optim", "muon", "--max_steps", "3", "--save_strategy", "no", "--peak_tflops", "1")
    whole = run_here(data, tmp_path / "one", *more)
    run = Run(options(data, tmp_path / "two", *more, "--per_device_train_batch_size", "2"), tmp_path / "log", 2)
    assert run.wait() == [0, 0], run.output
    assert furthest(log_of(tmp_path / "two"), whole) < 1e-3


def test_what_a_schedule_free_run_saves_is_what_it_evaluates(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("schedulefree")
    more = ("--optim", "schedule_free_adamw", "--max_steps", "6", "--warmup_steps", "2")
    looked = ("--eval_strategy", "steps", "--eval_steps", "3", "--eyes_tiles", "0")
    log = run_here(data, tmp_path / "looked", *more, *looked)
    assert [entry["learning_rate"] for entry in log if "loss" in entry] == [0, 5e-4, 1e-3, 1e-3, 1e-3, 1e-3]
    evaluated = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    run_here(data, tmp_path / "not", *more)
    for step, saved in ((3, "checkpoint-3"), (6, "checkpoint-6"), (6, ".")):
        folder = tmp_path / "not" / saved  # nothing but saving has asked this run for its averaged weights
        weights = ("--model_name_or_path", str(folder), "--learning_rate", "0", "--max_steps", "1")
        (again,) = (
            entry["eval_loss"]
            for entry in run_here(data, tmp_path / f"{step}{saved}", *weights, *looked, "--eval_steps", "1")
            if "eval_loss" in entry
        )
        assert again == pytest.approx(evaluated[step], abs=1e-4), saved
    state = torch.load(tmp_path / "not" / "checkpoint-6" / "optimizer.pt", weights_only=True)
    assert {(group["train_mode"], group["warmup_steps"]) for group in state["param_groups"]} == {(False, 0)}


def test_without_a_lower_rate_schedule_free_is_as_its_authors_use_it(caplog: pytest.LogCaptureFixture) -> None:
    def schedule(*words: str) -> str:
        return str(parse_arguments(words)[2].lr_scheduler_type.value)  # type: ignore[attr-defined]

    assert schedule("--optim", "schedule_free_sgd") == "constant_with_warmup"
    assert schedule("--optim", "schedule_free_sgd", "--lr_scheduler_type", "constant") == "constant_with_warmup"
    assert schedule("--optim", "schedule_free_radam") == "constant"
    assert schedule() == schedule("--optim", "muon") == "cosine"
    assert "averages" not in caplog.text
    with caplog.at_level(logging.WARNING, logger="csmae_hf.training"):
        assert schedule("--optim", "schedule_free_sgd", "--lr_scheduler_type", "linear") == "linear"
    assert "lr_scheduler_type = linear lowers the rate although schedule_free_sgd averages" in caplog.text


def test_every_optimiser_of_the_trainer_can_be_had_or_ends_in_one_line(tmp_path: Path) -> None:
    made, refused = set(), {}
    for optim in [each.value for each in OptimizerNames]:
        try:
            groups = named_groups(trainer_of(tmp_path, optim, optim_target_modules="all-linear"))
        except ValueError as error:
            refused[optim] = str(error)
        else:
            made.add(optim)
            assert {group["weight_decay"] for group in groups.values()} == {DECAY}, optim
    for optim, message in refused.items():
        assert "\n" not in message, optim
        assert re.search(r"install|import|in its place|CUDA|GPU", message), f"{optim}: {message}"
    assert made >= {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--optim lion", "'lion' is no optimiser .* did you mean 'lion_8bit'"),
        ("--optim lomo", "could not be resumed: use --optim adafactor"),
        ("--optim apollo_adamw_layerwise", "could not be resumed: use --optim apollo_adamw "),
        ("--optim galore_adamw", "--save_only_model true or --save_strategy no"),
        ("--optim adamw_torch --optim_args momentum=0.9", "optim_args = 'momentum=0.9' would not be used"),
        ("--optim muon --optim_args beta=1", "'beta=1' is nothing that muon takes. Expected .*momentum"),
        ("--optim muon --optim_args momentum=high", "'momentum=high'"),
        ("--optim muon --optim_args adjust_lr_fn=none", "original or match_rms_adamw"),
    ],
)
def test_what_would_not_work_is_refused_before_anything_is_read(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_arguments(words.split())


def test_muon_needs_whole_matrices(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, "muon")
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match=r"FSDP and DeepSpeed divide them: .*--optim adamw_torch"):
        trainer.create_optimizer()


def test_a_malformed_argument_of_an_optimiser_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"optim = 'sgd', optim_args = 'momentum=much' cannot be used: could not convert"
    ):
        trainer_of(tmp_path, "sgd", optim_args="momentum=much").create_optimizer()
