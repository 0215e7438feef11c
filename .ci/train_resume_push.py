"""Run in an environment that has the wheel: a tiny model is trained, resumed, pushed to a Hub on this machine, and loaded from there.

python train_resume_push.py STEP FOLDER        STEP is train, resume or push, in this order; FOLDER is kept between them
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from csmae_hf.sample.generate import generate_sample
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.pretrain import pretrain

TINY = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "multi_sensor_encoder_depth": 1,
    "cross_sensor_encoder_depth": 1,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
}
LOAD = """
import sys
from transformers import AutoImageProcessor, AutoModel
AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
AutoImageProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
assert "csmae_hf" not in sys.modules
"""


def train(folder: Path, *more: str) -> list[float]:
    """Train for 3 steps on generated tiles, with a checkpoint after each; return the losses."""
    settings = {
        "data": folder / "sample",
        "output_dir": folder / "run",
        "model_overrides": json.dumps(TINY),
        "max_steps": 3,
        "save_steps": 1,
        "per_device_train_batch_size": 4,
        "max_train_tiles": 8,
        "max_eval_tiles": 4,
        "save_strategy": "steps",
        "eval_strategy": "steps",
        "eval_steps": 3,
        "eyes_pictures": 0,
        "logging_steps": 1,
        "precision": "fp32",
        "peak_tflops": 1,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    pretrain(*parse_arguments([*words, *more]))
    history = json.loads((folder / "run" / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def resume(folder: Path) -> None:
    """Train the last step again from the checkpoint before it, and expect the same weights."""
    weights = (folder / "run" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "run" / "checkpoint-3")
    train(folder, "--auto_resume")
    if (folder / "run" / "model.safetensors").read_bytes() != weights:
        sys.exit("the resumed run has other weights")


def push(folder: Path) -> None:
    """Push the trained model with `csmae push`, and load it as a stranger, from a cache of its own."""
    from hub_double import HubDouble  # of tests/, which is on the path

    csmae = str(Path(sys.executable).parent / "csmae")
    with HubDouble() as hub:
        environment = hub.env(folder / "home")
        subprocess.run([csmae, "push", str(folder / "run"), "tester/matrix"], env=environment, check=True)
        subprocess.run([sys.executable, "-c", LOAD, "tester/matrix"], env=hub.env(folder / "stranger"), check=True)


def main() -> None:
    """Run one step."""
    step, folder = sys.argv[1], Path(sys.argv[2])
    if step == "train":
        generate_sample(folder / "sample", tiles=20, seed=0)
        if len(train(folder)) != 3:
            sys.exit("not every step was logged")
    elif step == "resume":
        resume(folder)
    else:
        push(folder)


if __name__ == "__main__":
    main()
