"""`csmae doctor`: what of this environment works, what would break it, and the command that mends it.

It lies beside the package and imports nothing of it, nor of Transformers, before it is asked: where those cannot be imported it is
needed most. The `csmae` command starts here for that reason.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

DISTRIBUTION = "csmae-hf"
HARMFUL_IF_BROKEN = {
    "torchvision": "Transformers imports it wherever it is installed, and then nothing of Transformers can be imported",
    "timm": "the `accelerate` command imports it wherever it is installed, and then cannot start",
}
"""Packages that csmae-hf does not use, and that break it when they are installed but cannot be imported."""

Level = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        topic: What was looked at.
        level: `"ok"`, `"note"` (something optional is missing) or `"bad"` (something will not work).
        text: What was found.
        remedy: The command that mends it, if there is one.
    """

    topic: str
    level: Level
    text: str
    remedy: str | None = None


def examine() -> list[Finding]:
    """Look at the environment; nothing is changed, and no network is used."""
    return [
        *examine_versions(),
        *examine_system(platform.system()),
        *examine_devices(),
        *examine_attention(),
        *examine_harmful(HARMFUL_IF_BROKEN),
        *examine_extras(),
        *examine_hub(),
    ]


def examine_versions() -> list[Finding]:
    """Versions of Python, of this package and of what it needs, against what it asks for."""
    findings = [
        Finding("python", "ok", f"{platform.python_version()} at {sys.prefix}, {platform.platform(terse=True)}"),
        Finding(DISTRIBUTION, "ok", _version(DISTRIBUTION) or "not installed, run from its source"),
    ]
    for name, specifier in _requirements(extra=None):
        version = _version(name)
        wanted = f"{name}{specifier}"
        if version is None:
            findings.append(Finding(name, "bad", "is not installed", f"pip install '{wanted}'"))
        elif specifier and not _satisfies(version, specifier):
            findings.append(
                Finding(name, "bad", f"{version}, needed is {specifier}", f"pip install --upgrade '{wanted}'")
            )
        else:
            findings.append(Finding(name, "ok", version))
    return findings


def examine_system(system: str) -> list[Finding]:
    """What differs on an operating system, by the name that `platform.system` gives."""
    if system == "Linux":
        return [Finding("system", "ok", "Linux, where all of this is tested")]
    text = (
        f"{system or 'unknown'}: nothing here needs Linux, but it is tested there alone. Worker processes are spawned, not forked: a "
        "script of your own that asks for some (num_workers) needs `if __name__ == '__main__':`"
    )
    return [Finding("system", "note", text)]


def examine_devices() -> list[Finding]:
    """Where models can run, and on how many threads."""
    if problem := _import_problem("torch"):
        return [Finding("torch", "bad", f"cannot be imported ({problem})", "pip install --force-reinstall torch")]
    import torch

    findings = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        text = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {precision}"
        findings.append(Finding(f"cuda:{index}", "ok", text))
    if torch.backends.mps.is_available():
        findings.append(Finding("mps", "ok", "available"))
    if not findings:
        built = (
            f"this torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "this torch is a CPU build"
        )
        findings.append(Finding("accelerator", "note", f"none; {built}"))
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    setting = os.environ.get("OMP_NUM_THREADS")
    findings.append(Finding("cpu", "ok", threads + (f" (OMP_NUM_THREADS={setting})" if setting else "")))
    return findings


def examine_attention() -> list[Finding]:
    """Which implementations of attention run here, tried on a small input."""
    if _import_problem("torch"):
        return []
    import torch

    query = torch.randn(1, 2, 16, 32)
    torch.nn.functional.scaled_dot_product_attention(query, query, query)
    findings = [Finding("attention", "ok", "eager, sdpa (the default)")]
    for name, module in (("flash_attention_2", "flash_attn"), ("flex_attention", "torch.nn.attention.flex_attention")):
        problem = _import_problem(module)
        usable = problem is None and torch.cuda.is_available()
        reason = "available" if usable else "needs a GPU" if problem is None else "not installed; not needed"
        findings.append(Finding(name, "ok" if usable else "note", reason))
    return findings


def examine_harmful(packages: dict[str, str]) -> list[Finding]:
    """Packages, with what each breaks when it is installed but cannot be imported."""
    findings = []
    for name, harm in packages.items():
        if importlib.util.find_spec(name) is None:
            findings.append(Finding(name, "ok", "not installed; not needed"))
        elif problem := _import_problem(name):
            findings.append(Finding(name, "bad", f"cannot be imported ({problem}): {harm}", f"pip uninstall {name}"))
        else:
            findings.append(Finding(name, "ok", f"{_version(name)}, can be imported; not needed"))
    return findings


def examine_extras() -> list[Finding]:
    """For each extra, what it lacks and the command that installs it."""
    findings = []
    for extra in (extra for extra in _metadata("extras") if extra not in ("dev", "docs")):  # those are the repository's
        wanted = _requirements(extra)
        missing = {name: specifier for name, specifier in wanted if _version(name) is None}
        if missing:
            remedy = "pip install " + " ".join(f"'{name}{specifier}'" for name, specifier in missing.items())
            findings.append(Finding(f"extra {extra}", "note", f"lacks {', '.join(missing)}", remedy))
        else:
            findings.append(Finding(f"extra {extra}", "ok", ", ".join(name for name, _ in wanted)))
    return findings


def examine_hub() -> list[Finding]:
    """Settings by which the Hub is reached; whether there is a token is said, the token is not."""
    if problem := _import_problem("huggingface_hub"):
        return [Finding("hub", "bad", f"huggingface_hub cannot be imported ({problem})", "pip install huggingface-hub")]
    from huggingface_hub import constants, get_token

    findings = [Finding("hub", "ok", constants.ENDPOINT + (" (offline)" if constants.HF_HUB_OFFLINE else ""))]
    if get_token():
        findings.append(Finding("hub token", "ok", "there is one"))
    else:
        findings.append(Finding("hub token", "note", "none: enough to load public models", "hf auth login"))
    return findings


def format_findings(findings: Iterable[Finding]) -> str:
    """Lay findings out for a terminal, bad ones repeated at the end with what to do."""
    findings = list(findings)
    width = max(len(finding.topic) for finding in findings)
    marks = {"ok": " ok ", "note": "note", "bad": "BAD "}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.level]}  {finding.topic.ljust(width)}  {finding.text}")
        if finding.remedy:
            lines.append(f"      {''.ljust(width)}  -> {finding.remedy}")
    bad = [finding.topic for finding in findings if finding.level == "bad"]
    lines.append("")
    lines.append(f"To be mended: {', '.join(bad)}." if bad else "Nothing is broken.")
    return "\n".join(lines)


def run_doctor() -> int:
    """Print the examination; 1 if something is broken."""
    findings = examine()
    sys.stdout.write(format_findings(findings) + "\n")
    return 1 if any(finding.level == "bad" for finding in findings) else 0


def main() -> int:
    """Run the `csmae` command; its `doctor` also where nothing else can be imported."""
    try:
        commands = load_commands()
    except ModuleNotFoundError as error:
        if sys.argv[1:] == ["doctor"]:
            return run_doctor()
        sys.stderr.write(f"csmae: {error}\n")
        return 2
    return int(commands.main())


def load_commands(module: str = "main") -> Any:
    """Load a file of `csmae_hf/commands` without `csmae_hf` around it, whose import takes seconds.

    So help and mistakes are answered at once.
    """
    package = importlib.util.find_spec("csmae_hf")  # which finds and does not import
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(
            "The package csmae_hf is not installed: run `pip install .` in a clone of its repository"
        )
    folder = os.path.join(package.submodule_search_locations[0], "commands")
    name, path = "csmae_commands", os.path.join(folder, "__init__.py")
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[folder])
    if spec is not None:
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}.{module}")


def _requirements(extra: str | None) -> list[tuple[str, str]]:
    """Names and specifiers of what this package, or an extra of it, requires."""
    found = []
    for text in _metadata("requires"):
        requirement, _, marker = text.partition(";")
        match = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if (match[1] if match else None) != extra:
            continue
        parts = re.match(r"\s*([\w.-]+)\s*(?:\[[^\]]*\])?\s*(.*?)\s*$", requirement)
        if parts:
            found.append((parts[1], parts[2].strip("()")))
    return found


def _metadata(kind: Literal["requires", "extras"]) -> list[str]:
    """What the installed package says of itself; nothing where it is not installed."""
    try:
        if kind == "requires":
            return importlib.metadata.requires(DISTRIBUTION) or []
        return importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _satisfies(version: str, specifier: str) -> bool:
    """Whether a version is at least what a `>=` asks for; other specifiers are left to pip."""

    def numbers(text: str) -> list[int]:
        found = [int(part) for part in re.findall(r"\d+", re.split(r"[+a-zA-Z]", text)[0])]
        return found + [0] * (4 - len(found))

    wanted = [part.strip()[2:] for part in specifier.split(",") if part.strip().startswith(">=")]
    return all(numbers(version) >= numbers(one) for one in wanted)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_problem(module: str) -> str | None:
    """Why a module cannot be imported, in one line; None if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return None


if __name__ == "__main__":
    sys.exit(main())
