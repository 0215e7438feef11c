"""Start-up: from a new process to the import, to a loaded model, to the first embed; Transformers' own ViT beside it.

python -m benchmarks.startup
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import ViTModel

from benchmarks.timing import Row, compare
from benchmarks.yardsticks import stock_vit
from configuration_csmae import CSMAEConfig
from modeling_csmae import CSMAEModel

IMPORT_SECONDS = 2.5
"""Wanted of `import csmae_hf` on two CPU cores."""

CHILD = """
import sys, time
start, folder, ours = float(sys.argv[1]), sys.argv[2], sys.argv[3] == "ours"

def stage():
    print(time.time() - start, time.process_time())

if ours:
    import csmae_hf
else:
    from transformers import ViTModel
stage()
from transformers import AutoModel
model = AutoModel.from_pretrained(folder)
stage()
import torch
from transformers import ViTModel
images = torch.zeros(1, 10, 120, 120)
with torch.inference_mode():
    model(s2=images) if ours else model(pixel_values=images)
stage()
"""
STAGES = ("import", "AutoModel.from_pretrained", "first embed")


def start(folder: Path, kind: str) -> list[float]:
    """Seconds from the start of a new process to the end of each stage: the clock's and the processor's, stage after stage."""
    command = [sys.executable, "-c", CHILD, str(time.time()), str(folder), kind]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return [float(line) for line in lines]


def measure(full: bool = False, repeats: int = 5) -> list[Row]:
    """ViT-B from local folders; the file cache is warm, as the first round does not count."""
    config = CSMAEConfig.for_variant("cecd")
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"ours": Path(scratch) / "ours", "stock": Path(scratch) / "stock"}
        torch.manual_seed(0)
        CSMAEModel(config).save_pretrained(folders["ours"])
        ViTModel(stock_vit(config, "s2").config).save_pretrained(folders["stock"])
        rounds: dict[str, list[list[float]]] = {kind: [] for kind in folders}
        for turn in range(repeats + 1):
            for kind, folder in folders.items():
                seconds = start(folder, kind)
                if turn:
                    rounds[kind].append(seconds)
    rows = []
    for stage, name in enumerate(STAGES):
        for offset, clock in enumerate(("clock", "processor")):
            ours, theirs = ([seconds[2 * stage + offset] for seconds in rounds[kind]] for kind in folders)
            rows.append(compare(f"new process to {name}, {clock}", ours, theirs, "Transformers' ViT by the same lines"))
    rows[0]["at_most"] = IMPORT_SECONDS
    return rows


def main() -> int:
    """Measure and print one JSON document."""
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
