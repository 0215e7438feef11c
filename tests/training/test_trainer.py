"""What a run logs, saves and refuses: whole runs of a few steps in this process."""

import json
import logging
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import furthest, log_of, options, run_here
from transformers import PreTrainedModel, Trainer, TrainerState

from csmae_hf.data.collate import TileCollator
from csmae_hf.training import pretrain as pretrain_module
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.callbacks import EvaluationCallback
from csmae_hf.training.checkpoints import SEAL_NAME, last_checkpoint
from csmae_hf.training.errors import CheckpointError, NonFiniteLossError
from csmae_hf.training.loss_terms import count_rows
from csmae_hf.training.pretrain import pretrain
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

pytestmark = pytest.mark.slow
TERMS = ("umr_s1", "umr_s2", "cmr_s1_s2", "cmr_s2_s1", "mim")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary run, with what it said."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("csmae_hf.training")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    run_here(data, folder, "--eval_strategy", "steps", "--eval_steps", "5")
    logger.removeHandler(handler)
    (folder / "said.txt").write_text("\n".join(records))
    return folder


def training(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in log if "loss" in entry]


def test_the_size_of_the_run_is_said_before_its_first_step(plain: Path) -> None:
    said = (plain / "said.txt").read_text()
    model = CSMAEForPreTraining.from_pretrained(plain)
    for fact in (
        "fp32 on",
        "4 = 4 tiles x 1 accumulation x 1 processes",
        "steps an epoch       6 (24 tiles)",
        "10 (1.667 epochs), of which warm-up 1",
        f"{model.num_parameters() / 1e6:.2f} M, of which trained {model.num_parameters() / 1e6:.2f} M",
        f"in the decoders, which are not used afterwards, {sum(map(torch.numel, model.decoders.parameters())) / 1e6:.2f} M",
        "for 10 steps, at ",
    ):
        assert fact in said, said
    state = json.loads((plain / "trainer_state.json").read_text())
    assert float(f"{state['total_flos'] / 10:.4g}") == float(said.split("FLOPs a step")[1].split()[0])


def test_terms_make_up_the_loss_and_speed_is_logged(plain: Path) -> None:
    for entry in training(log_of(plain)):
        assert entry["loss"] == pytest.approx(sum(entry[name] for name in TERMS), rel=1e-5)
    history = json.loads((plain / "trainer_state.json").read_text())["log_history"]
    assert all(entry["samples_per_second"] > 0 and 0 < entry["mfu"] < 2 for entry in history if "loss" in entry)
    evaluations = [entry for entry in history if "eval_loss" in entry]
    assert len(evaluations) == 2
    for entry in evaluations:
        assert entry["eval_loss"] == pytest.approx(sum(entry[f"eval_{name}"] for name in TERMS), rel=1e-5)


def test_evaluation_does_not_touch_what_is_trained(plain: Path, data: Path, tmp_path: Path) -> None:
    without = run_here(data, tmp_path / "run")
    assert without == training(log_of(plain))


def test_accumulation_equals_the_large_batch_for_reconstruction(data: Path, tmp_path: Path) -> None:
    halves = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2")
    whole = run_here(data, tmp_path / "whole", mim_weight=0.0)
    accumulated = run_here(data, tmp_path / "halves", *halves, mim_weight=0.0)
    assert furthest(whole, accumulated) < 1e-5


def test_accumulation_leaves_mim_fewer_negatives(plain: Path, data: Path, tmp_path: Path) -> None:
    halves = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--max_steps", "1")
    (first,) = run_here(data, tmp_path / "halves", *halves)
    whole = log_of(plain)[0]
    for name in TERMS[:4]:
        assert first[name] == pytest.approx(whole[name], abs=1e-5)
    assert first["mim"] < whole["mim"] - 0.3, "of 2 tiles each has 2 negatives, of 4 tiles 6"


@pytest.mark.parametrize(
    "option",
    [
        ("--torch_compile", "--torch_compile_backend", "eager"),
        ("--activation_checkpointing",),
        ("--on_device_preprocessing", "true"),
    ],
    ids=["compiled", "checkpointed activations", "preprocessed on the device"],
)
def test_losses_and_weights_stay_the_same(plain: Path, data: Path, tmp_path: Path, option: tuple[str, ...]) -> None:
    log = run_here(data, tmp_path / "run", *option)
    assert furthest(log, training(log_of(plain))) < 1e-5
    expected, weights = load_file(plain / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=1e-4)


def test_bf16_stays_near_full_precision(plain: Path, data: Path, tmp_path: Path) -> None:
    log = run_here(data, tmp_path / "run", "--precision", "bf16")
    assert 0 < furthest(log, training(log_of(plain))) < 0.1


class Counting(EvaluationCallback):
    """Measures how far the run is, the first time best."""

    def evaluation_metrics(self, model: PreTrainedModel, state: TrainerState) -> dict[str, float]:
        assert isinstance(model, CSMAEForPreTraining)
        assert not model.training
        return {"steps_so_far": float(state.global_step)}


def test_the_best_model_can_be_chosen_by_what_a_callback_measures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain_module, "build_callbacks", lambda run: [Counting()])
    best = ("--metric_for_best_model", "steps_so_far", "--greater_is_better", "false", "--load_best_model_at_end")
    log = run_here(data, tmp_path, *best, "--eval_strategy", "steps", "--eval_steps", "3", "--save_total_limit", "1")
    assert [entry["eval_steps_so_far"] for entry in log if "eval_loss" in entry] == [3, 6, 9, 10]
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert Path(state["best_model_checkpoint"]).name == "checkpoint-3"
    assert (tmp_path / "checkpoint-3" / SEAL_NAME).is_file(), "the best one is kept beside the last"
    best_weights, final = (
        load_file(tmp_path / "checkpoint-3" / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    assert all(torch.equal(best_weights[name], value) for name, value in final.items())


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collate = TileCollator.__call__
    batches: list[list[str]] = []

    def spoil_the_fifth(self: TileCollator, rows: Any) -> dict[str, Any]:
        batch = collate(self, rows)
        if "ids" not in batch:  # of the look at the tiles before the first step
            return batch
        batches.append(batch["ids"])
        if len(batches) == 5:
            batch["s2"][1, 3, 5, 5] = float("nan")
        return batch

    monkeypatch.setattr(TileCollator, "__call__", spoil_the_fifth)
    steps: list[int] = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *args, **kwargs: (steps.append(1), step(*args, **kwargs))[1])
    with pytest.raises(NonFiniteLossError, match="loss of step 5 is nan") as raised:
        run_here(data, tmp_path)
    assert "Another learning rate needs a new run" in str(raised.value), "for with another none can be resumed"
    assert len(steps) == 4, "nothing was learned from it"
    assert all(name in str(raised.value) for name in batches[4])
    saved = tmp_path / "non_finite" / "step-5-process-0.safetensors"
    assert str(saved) in str(raised.value)
    assert json.loads(saved.with_suffix(".json").read_text())["ids"] == batches[4]
    tensors = load_file(saved)
    assert tensors["s2"].isnan().sum() == 1
    assert tensors["s2"].isnan().any(dim=(1, 2, 3)).tolist() == [False, True, False, False]
    assert tensors["noise.s1"].shape == (4, 64)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def test_a_full_disk_ends_the_run_clearly_and_keeps_the_last_checkpoint(
    plain: Path, data: Path, tmp_path: Path
) -> None:
    run_here(data, tmp_path, "--max_steps", "3", "--lr_scheduler_type", "constant")
    kept = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint-3").iterdir()}
    more = ("--auto_resume", "--lr_scheduler_type", "constant")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1_000_000, hard)
    )  # the weights still fit, the optimiser's state does not
    try:
        with pytest.raises(
            CheckpointError, match=r"checkpoint-6 failed.*last complete checkpoint is .*checkpoint-3.*--auto_resume"
        ):
            run_here(data, tmp_path, *more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "checkpoint-6").exists(), "what was written of it would keep the disk full"
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoint-3").iterdir()} == kept
    assert [entry["step"] for entry in run_here(data, tmp_path, *more)] == list(range(1, 11))


def test_a_finished_run_is_not_run_again(plain: Path, data: Path) -> None:
    before, weights = log_of(plain), (plain / "model.safetensors").read_bytes()
    pretrain(*parse_arguments(options(data, plain, "--auto_resume", "--eval_strategy", "steps", "--eval_steps", "5")))
    assert training(log_of(plain)) == training(before)
    assert (plain / "model.safetensors").read_bytes() == weights


def test_every_batch_has_all_its_rows(data: Path) -> None:
    dataset = pretrain_module.load_split(parse_arguments(["--data", str(data)])[1], "train", 4)
    processor = CSMAEImageProcessor()
    for native in (False, True):
        batch = TileCollator(processor, native=native, with_ids=True)([dataset[i] for i in range(4)])
        assert batch["ids"] == dataset["id"][:4]
        assert set(count_rows(batch, CSMAEForPreTraining.config_class()).values()) == {4}


def test_no_full_batch_is_said_before_training(data: Path, tmp_path: Path) -> None:
    dropped = ("--per_device_train_batch_size", "64", "--dataloader_drop_last", "true")
    with pytest.raises(ValueError, match=r"24 training tiles make no full batch .* = 64 .*batch_size 24 at most"):
        run_here(data, tmp_path / "run", *dropped)
    run_here(data, tmp_path / "run", *dropped, "--per_device_train_batch_size", "24", "--max_steps", "1")


def test_more_accumulation_than_batches_is_one_step_an_epoch(data: Path, tmp_path: Path) -> None:
    epochs = ("--max_steps", "-1", "--num_train_epochs", "2", "--max_train_tiles", "8", "--save_strategy", "no")
    log = training(run_here(data, tmp_path / "run", *epochs, "--gradient_accumulation_steps", "50"))
    whole = training(run_here(data, tmp_path / "two", *epochs, "--gradient_accumulation_steps", "2"))
    assert [entry["loss"] for entry in log] == [entry["loss"] for entry in whole]
    assert len(log) == 2


def test_a_split_without_a_tile_is_said(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = pretrain_module.load_split
    monkeypatch.setattr(pretrain_module, "load_split", lambda *args: load(*args).select([]))
    with pytest.raises(ValueError, match=r"Nothing to train on: train_split = 'train' .*--train_split all"):
        run_here(data, tmp_path / "run")


def test_the_mean_loss_of_a_resumed_run_is_of_all_its_steps(plain: Path, data: Path, tmp_path: Path) -> None:
    """Its checkpoint is in the middle of a line of the log, which has a step that was trained before."""
    lines = ("--logging_steps", "2", "--peak_tflops", "1")
    run_here(data, tmp_path, *lines)
    shutil.rmtree(tmp_path / "checkpoint-10")
    run_here(data, tmp_path, *lines, "--auto_resume")
    results = json.loads((tmp_path / "train_results.json").read_text())
    ninth, tenth = (entry["loss"] for entry in training(log_of(plain))[-2:])
    assert training(log_of(tmp_path))[-1]["loss"] == pytest.approx((ninth + tenth) / 2, abs=1e-4)
    losses = [entry["loss"] for entry in training(log_of(plain))]
    assert results["train_loss"] == pytest.approx(sum(losses) / 10, abs=1e-4), "though step 10 alone is trained here"


def test_the_size_of_an_accumulated_step_is_of_all_its_batches(
    plain: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    halves = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--max_steps", "1")
    with caplog.at_level(logging.INFO, logger="csmae_hf.training"):
        run_here(data, tmp_path, *halves, mim_weight=0.0)
    assert "4 = 2 tiles x 2 accumulation x 1 processes" in caplog.text
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert float(f"{state['total_flos']:.4g}") == float(caplog.text.split("FLOPs a step")[1].split()[0])


@pytest.mark.parametrize("slow", ["evaluation_loop", "_save_checkpoint"])
def test_evaluations_and_checkpoints_do_not_count_as_training_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    original = getattr(Trainer, slow)

    def delayed(*args: Any, **kwargs: Any) -> Any:
        time.sleep(2)
        return original(*args, **kwargs)

    monkeypatch.setattr(Trainer, slow, delayed)
    each = ("--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1", "--eyes_tiles", "0")
    run_here(data, tmp_path, "--max_steps", "2", *each)
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    last = [entry["samples_per_second"] for entry in history if "loss" in entry][-1]
    assert last > 4 / 2, "the 2 seconds before it were no training"
