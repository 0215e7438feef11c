"""YAML first, command line over it, and no name that does nothing."""

import os
from pathlib import Path
from unittest import mock

import pytest
import yaml
from accelerate.utils import TorchDynamoPlugin

from csmae_hf.evaluation.trainings import read_changes
from csmae_hf.training import arguments
from csmae_hf.training.arguments import (
    CSMAETrainingArguments,
    ModelArguments,
    loading_workers,
    parse_arguments,
    resolved_arguments,
    save_arguments,
)
from csmae_hf.training.pretrain import build_model

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


@pytest.fixture
def yaml_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("variant: cecd\nlearning_rate: 1.0e-3\nmodel_overrides: {mask_ratio: 0.75}\nflips: false\nseed:\n")
    return path


def test_yaml_sets_arguments(yaml_file):
    model, data, training = parse_arguments([str(yaml_file)])
    assert (model.variant, model.model_overrides, data.flips) == ("cecd", {"mask_ratio": 0.75}, False)
    assert training.learning_rate == 1e-3
    assert training.seed == 42, "an empty value leaves the default"


def test_command_line_overrides_yaml(yaml_file):
    model, data, training = parse_arguments(
        [str(yaml_file), "--variant", "secd", "--learning_rate=0.5", "--flips", "true"]
    )
    assert (model.variant, data.flips, training.learning_rate) == ("secd", True, 0.5)


def test_unknown_key_names_the_nearest(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learning_rat: 1\n")
    with pytest.raises(ValueError, match="'learning_rat': did you mean 'learning_rate'"):
        parse_arguments([str(path)])


def test_unknown_option_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'train_split'"):
        parse_arguments(["--trian_split", "all"])


def test_a_mistyped_field_of_the_model_names_the_nearest(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model_overrides: {mask_ration: 0.75}\n")
    with pytest.raises(ValueError, match=r"'mask_ration', .* did you mean 'mask_ratio'"):
        parse_arguments([str(path)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask_ratio: 0.6", r"'mask_ratio': it is a field of the model.*`model_overrides: \{\"mask_ratio\": 0.6\}`"),
        ("sensors_: 1", "'sensors_': did you mean 'sensors'"),
        (
            "hidden_sise: 96",
            r"'hidden_sise', did you mean 'hidden_size'\? That is a field of .*\{\"hidden_size\": 96\}",
        ),
        ("mim_weight:", r"\{\"mim_weight\": \"...\"\}"),
    ],
)
def test_a_field_of_the_model_is_told_where_it_goes(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(ValueError, match=message):
        parse_arguments([str(path)])


@pytest.mark.parametrize(
    "words", [["--mask_ratio", "0.6"], ["--mask-ratio=0.6"], ["--variant", "sesd", "--mask_ratio", "0.6"]]
)
def test_what_is_advised_of_a_field_can_be_typed(words):
    with pytest.raises(ValueError, match=r"--model_overrides '(.*)'") as caught:
        parse_arguments(words)
    advised = str(caught.value).split("--model_overrides '")[1].split("'")[0]
    assert parse_arguments(["--model_overrides", advised])[0].model_overrides == {"mask_ratio": 0.6}


@pytest.fixture
def trackers(monkeypatch):
    monkeypatch.setattr(arguments, "get_available_reporting_integrations", lambda: ["tensorboard", "trackio"])


@pytest.mark.parametrize(
    "words",
    [
        ["--report_to", "tensorboard", "trackio"],
        ["--report_to", "tensorboard", "--report_to", "trackio"],
        ["--report_to", "tensorboard,trackio"],
        ["--report-to=tensorboard", "--report_to", "trackio", "tensorboard"],
    ],
)
def test_several_trackers_are_all_told(trackers, words, tmp_path):
    assert parse_arguments(words)[2].report_to == ["tensorboard", "trackio"]
    path = tmp_path / "run.yaml"
    path.write_text("report_to: [tensorboard, trackio]\n")
    assert parse_arguments([str(path)])[2].report_to == ["tensorboard", "trackio"]
    assert parse_arguments([str(path), "--report_to", "trackio"])[2].report_to == ["trackio"], (
        "options override the file"
    )
    assert parse_arguments([str(path), "--report_to", "none"])[2].report_to == []
    assert CSMAETrainingArguments(report_to="trackio").report_to == ["trackio"]
    assert CSMAETrainingArguments(report_to=["tensorboard", "trackio"]).report_to == ["tensorboard", "trackio"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wandb", "trackio"], "report_to = wandb trackio: wandb cannot be imported. `pip install wandb`"),
        (["tensorbord"], "tensorbord is not supported"),
        (["none", "trackio"], "none trackio: none and all stand alone"),
    ],
)
def test_a_tracker_that_cannot_be_had_is_said_at_once(trackers, words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(["--report_to", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_steps", "0"], "max_steps = 0, num_train_epochs = 150"),
        (["--num_train_epochs", "0"], "max_steps = -1, num_train_epochs = 0"),
        (["--num_train_epochs", "-1"], "num_train_epochs = -1"),
        (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps = 0 must be at least 1"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size = 0 must be at least 1"),
    ],
)
def test_a_run_of_no_step_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(words)


def test_no_option_is_taken_for_a_longer_one():
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        parse_arguments(["--learning_rat", "1"])


def test_an_unquoted_no_is_no_strategy(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("eval_strategy: no\n")
    assert parse_arguments([str(path)])[2].eval_strategy == "no"


def test_sharding_is_switched_on_by_a_plain_true(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("fsdp: true\nfsdp_config: {state_dict_type: SHARDED_STATE_DICT}\n")
    training = parse_arguments([str(path)])[2]
    assert training.fsdp is True
    assert training.fsdp_plugin_args["state_dict_type"] == "SHARDED_STATE_DICT"
    save_arguments(tmp_path / "again.yaml", resolved_arguments(*parse_arguments([str(path)])))
    assert parse_arguments([str(tmp_path / "again.yaml")])[2].fsdp_plugin_args == training.fsdp_plugin_args
    assert not parse_arguments(["--fsdp", "false"])[2].fsdp


def test_what_a_run_was_made_with_can_be_passed_again(yaml_file, tmp_path):
    given = parse_arguments(
        [str(yaml_file), "--max_steps", "7", "--optim", "sgd", "--precision", "fp32", "--auto_resume"]
    )
    saved = tmp_path / "out" / "arguments.yaml"
    resolved = resolved_arguments(*given)
    save_arguments(saved, resolved)
    model, data, training = again = parse_arguments([str(saved)])
    assert (model, data) == given[:2]
    assert (training.max_steps, training.optim, training.precision, training.seed) == (7, "sgd", "fp32", 42)
    assert not training.auto_resume, "that a run was resumed is no part of what it was made with"
    assert resolved_arguments(*again) == resolved
    changes = [(3, {"precision": "bf16", "report_to": None}), (5, {"max_grad_norm": 1.0})]
    save_arguments(saved, resolved, changes)
    assert read_changes(saved) == changes
    assert resolved_arguments(*parse_arguments([str(saved)])) == resolved, (
        "what was otherwise before is not passed again"
    )


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
        parse_arguments([str(tmp_path / "nothing.yaml")])


def test_overrides_must_be_a_json_object():
    with pytest.raises(ValueError, match="no JSON"):
        parse_arguments(["--model_overrides", "{mask_ratio}"])
    with pytest.raises(ValueError, match="JSON object"):
        parse_arguments(["--model_overrides", "[1]"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hiden_size": 96}, "'hiden_size', which CSMAEConfig does not have: did you mean 'hidden_size'"),
        ({"hidden_size": "96"}, "hidden_size"),
        ({"hidden_size": 90}, "hidden_size = 90 is not a multiple of num_attention_heads = 12"),
    ],
)
def test_impossible_overrides_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelArguments(model_overrides=overrides))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_parse(path):
    _, _, training = parse_arguments([str(path)])
    assert training.num_train_epochs > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_line_of_a_shipped_configuration_is_explained(path):
    for line in path.read_text().splitlines():
        assert "# " in line, line


@pytest.mark.parametrize("variant", ["cecd", "cesd", "secd", "sesd"])
def test_shipped_recipe_is_the_papers(variant):
    path = next(path for path in CONFIGS if path.stem == f"csmae_{variant}")
    model, data, training = parse_arguments([str(path)])
    assert (model.variant, model.size, data.flips) == (variant, "base", True)
    assert (training.num_train_epochs, training.per_device_train_batch_size, training.seed) == (150, 128, 42)
    assert (training.learning_rate, training.adam_beta1, training.adam_beta2) == (1e-4, 0.9, 0.95)
    assert (training.weight_decay, training.max_grad_norm) == (0.05, 0)
    assert training.lr_scheduler_type == "cosine"
    assert training.warmup_steps == 10 / 150
    assert yaml.safe_load(path.read_text())["precision"] == "auto"


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(16, 1, 8), (16, 4, 3), (2, 1, 1), (1, 1, 1), (8, 8, 1), (192, 8, 8)]
)
def test_training_processes_share_the_cores_for_reading(cores: int, processes: int, expected: int) -> None:
    assert loading_workers(cores, processes) == expected


def test_on_a_cpu_the_training_process_reads_by_itself() -> None:
    _, _, args = parse_arguments(["--use_cpu"])
    assert (args.dataloader_num_workers, args.dataloader_persistent_workers) == (0, False)
    assert not args.accelerator_config.non_blocking


def test_a_gpu_is_fed_by_processes_that_stay_and_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "default_device_type", lambda use_cpu: "cuda")
    monkeypatch.setattr(arguments, "default_workers", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    _, _, args = parse_arguments(["--precision", "fp32"])
    assert (args.dataloader_num_workers, args.dataloader_persistent_workers) == (3, True)
    assert args.accelerator_config.non_blocking
    _, _, args = parse_arguments(["--precision", "fp32", "--dataloader_num_workers", "0"])
    assert (args.dataloader_num_workers, args.dataloader_persistent_workers) == (0, False)


def test_what_is_compiled_is_compiled_for_one_size() -> None:
    with mock.patch.dict(os.environ):  # Transformers sets variables for the whole process
        os.environ.pop("ACCELERATE_DYNAMO_USE_DYNAMIC", None)
        parse_arguments(["--use_cpu", "--torch_compile", "--torch_compile_backend", "eager"])
        assert TorchDynamoPlugin().dynamic is False
