"""What a stranger's process does with a repository. It can import torch, transformers, what these two require, and Pillow.

Run as a program: stranger.py TASKS.json OUT. Each task is a dict of `name`, and either `code` to run, or the `auto` class to load
and the arguments `place`; embeds go to OUT/name.safetensors, all else to OUT/report.json. Nothing of the project can be imported.
"""

import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

ALLOWED = ("torch", "transformers", "pillow")
PROJECT = (
    "csmae_hf",
    "configuration_csmae",
    "modeling_csmae",
    "image_processing_csmae",
    "image_checks_csmae",
    "pipeline_csmae",
)


def required(names: tuple[str, ...]) -> set[str]:
    """The distributions, and all that these require, extras left out."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = normal(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [re.split(r"[\s<>=!~;\[(]", text, maxsplit=1)[0] for text in requirements if "extra ==" not in text]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def not_installed() -> set[str]:
    """Names of the modules that are installed here and would not be at a stranger's."""
    allowed = required(ALLOWED)
    owners = importlib.metadata.packages_distributions()
    return {name for name, dists in owners.items() if not any(normal(dist) in allowed for dist in dists)} | set(PROJECT)


class Blinkers:
    """A finder of modules that does not see the ones that are not installed."""

    def __init__(self, finder: Any, hidden: set[str]):
        self.finder, self.hidden = finder, hidden

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in self.hidden or not hasattr(self.finder, "find_spec"):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def main() -> None:
    hidden = not_installed()
    sys.meta_path[:] = [Blinkers(finder, hidden) for finder in sys.meta_path]
    import numpy as np
    import torch
    import transformers
    from safetensors.torch import save_file

    tasks, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    torch.set_num_threads(int(tasks["threads"]))
    with np.load(tasks["tile"]) as stored:
        tile = {band: stored[band] for band in stored.files}
    report: dict[str, object] = {"hidden": sorted(hidden), "imported": []}
    for task in tasks["tasks"]:
        try:
            if "code" in task:
                space: dict[str, object] = {}
                exec(task["code"], space)
                report[task["name"]] = {"places": space["places"].tolist()}
                continue
            loaded = getattr(transformers, task["auto"]).from_pretrained(**task["place"])
            report[task["name"]] = {"class": type(loaded).__name__, "module": type(loaded).__module__}
            if not isinstance(loaded, torch.nn.Module):
                continue
            processor = transformers.AutoImageProcessor.from_pretrained(**task["place"])
            inputs = processor(s1=tile, s2=tile)
            with torch.no_grad():
                outputs = loaded.base_model.eval()(**inputs)  # what embeds, without the masks of pre-training
            save_file(
                {f"embeds_{name}": value for name, value in outputs.embeds.items()}, out / f"{task['name']}.safetensors"
            )
        except Exception as error:
            report[task["name"]] = {"error": f"{type(error).__name__}: {error}"}
    report["imported"] = sorted({name.split(".")[0] for name in sys.modules})
    (out / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
