"""`--push_to_hub`: the whole path from `accelerate launch` to a repository that loads, and no token in anything it leaves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hub_double import HubDouble
from hub_models import tiny_fields
from transformers import TrainingArguments
from warm import Warm

from csmae_hf.sample.generate import generate_sample
from csmae_hf.training.push_at_end import HubRequest, take_hub_request

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = [
    str(Path(sys.executable).parent / "accelerate"),
    "launch",
    "--cpu",
    "--num_processes",
    "1",
    "--num_machines",
    "1",
]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no"]
SMALL = [
    "--per_device_train_batch_size",
    "4",
    "--max_train_tiles",
    "8",
    "--save_strategy",
    "no",
    "--eval_strategy",
    "no",
]


@pytest.mark.slow
def test_a_run_publishes_itself_and_another_goes_on_from_there(
    open_hub: HubDouble, warm_at_hub: Warm, tmp_path: Path
) -> None:
    generate_sample(tmp_path / "sample", tiles=20, seed=0)
    first = ["--data", "sample", "--output_dir", "first", "--max_steps", "2"]
    first += ["--push_to_hub", "--hub_token", open_hub.token]
    first += ["--model_overrides", json.dumps(tiny_fields("sesd"))]
    second = ["--data", "sample", "--output_dir", "second", "--max_steps", "1", "--model_name_or_path", "tester/first"]
    environment = open_hub.env(tmp_path / "hf", OMP_NUM_THREADS="1")
    del environment["HF_TOKEN"]  # only --hub_token has it
    script = [str(ROOT / "run_pretraining.py"), *SMALL]
    runs = [
        subprocess.run(
            [*LAUNCH, *script, *first], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
        ),
        warm_at_hub.run([*script, *second], cwd=tmp_path),
    ]
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    said = "".join(run.stdout + run.stderr for run in runs)
    assert "to pin as revision" in said
    files = open_hub.files("tester/first")
    assert open_hub.repos[("model", "tester/first")].private
    assert set(files) >= {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "modeling_csmae.py",
    }
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    card = files["README.md"].decode()
    for line in ("| tiles | 8 |", "| steps made | 2 |", "| processes | 1 |", "| duration |"):
        assert line in card
    left = [
        path for path in tmp_path.rglob("*") if path.is_file() and "hf/" not in path.relative_to(tmp_path).as_posix()
    ]
    assert any(path.name == "training_args.bin" for path in left), "where the Trainer would keep the token"
    for path in left:
        assert open_hub.token.encode() not in path.read_bytes(), path
    assert open_hub.token not in said


@pytest.mark.slow
def test_a_wrong_token_ends_a_run_before_its_first_step(warm_at_hub: Warm, tmp_path: Path) -> None:
    generate_sample(tmp_path / "sample", tiles=20, seed=0)
    arguments = ["--data", "sample", "--output_dir", "run", "--max_steps", "2", "--push_to_hub"]
    command = [str(ROOT / "run_pretraining.py"), *SMALL, *arguments]
    run = warm_at_hub.run(command, cwd=tmp_path, HF_TOKEN="hf_NobodyKnowsThisOne")
    assert run.returncode == 2
    assert "hf auth login" in run.stderr
    assert "hf_Nobody" not in run.stderr
    assert not (tmp_path / "run").exists()


def test_the_trainer_never_sees_the_wish_to_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def ensure(name: str, **how: object) -> str:
        asked[name] = how
        return f"me/{name}"

    monkeypatch.setattr("csmae_hf.training.push_at_end.ensure_repository", ensure)
    wanted = {"push_to_hub": True, "hub_token": "hf_secret", "hub_private_repo": False, "use_cpu": True}
    args = TrainingArguments(output_dir=str(tmp_path / "run"), hub_strategy="end", **wanted)
    assert take_hub_request(args) == HubRequest("me/run", False, None, "hf_secret")
    assert "hf_secret" not in repr(HubRequest("me/run", False, None, "hf_secret"))
    assert asked == {"run": {"private": False, "token": "hf_secret"}}
    assert not args.push_to_hub
    assert args.hub_token is None
    assert take_hub_request(args) is None
    during = TrainingArguments(output_dir=str(tmp_path / "run"), hub_strategy="checkpoint", **wanted)
    with pytest.raises(ValueError, match="csmae push"):
        take_hub_request(during)
