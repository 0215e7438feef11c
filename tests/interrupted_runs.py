"""Trainings that are interrupted at random moments, by Ctrl-C and SIGTERM in turn: `make interrupts` makes 200, a test a handful.

Each draws pictures, evaluates and saves while it trains. What must hold of each is said by `faults_of`.
"""

import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tiny_runs import Run, log_of, options

from csmae_hf.sample.generate import generate_sample
from csmae_hf.training.checkpoints import FINISHED_NAME, last_checkpoint

WATCHED = (
    *("--max_steps", "6", "--eval_strategy", "steps", "--eval_steps", "3", "--logging_steps", "2"),
    *("--eyes_pictures", "1", "--eyes_k", "2", "--metric_for_best_model", "loss"),
)


@dataclass(frozen=True)
class Interrupted:
    """One training that was interrupted: how far it was, how it ended, and what is wrong with that."""

    when: str
    code: int | None
    faults: tuple[str, ...]


def interrupt_runs(folder: Path, count: int, *, seed: int = 0, resume_every: int = 1) -> list[Interrupted]:
    """Interrupt trainings at random moments.

    Args:
        folder: An empty one, for what they write.
        count: How many.
        seed: Of the moments.
        resume_every: Of every so many of them it is tried that they go on, and end as one that was not interrupted.

    Returns:
        How each ended.
    """
    data = Path(generate_sample(folder / "sample", tiles=60, seed=3))
    whole = folder / "whole"
    run = Run(options(data, whole, *WATCHED), folder / "whole.log")
    run.wait_for("begun")
    began = time.monotonic()  # the first waits for the imports
    if run.wait() != [0]:
        raise RuntimeError(run.output)
    took = time.monotonic() - began
    draw = random.Random(seed)
    return [
        _interrupt(data, folder / f"run{number}", whole, draw.uniform(0, took), number, number % resume_every == 0)
        for number in range(count)
    ]


def _interrupt(data: Path, folder: Path, whole: Path, after: float, number: int, resume: bool) -> Interrupted:
    sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
    run = Run(options(data, folder, *WATCHED), folder.with_suffix(".log"))
    run.wait_for("begun")
    time.sleep(after)
    said = run.output
    (code,) = run.stop(sent)
    faults = faults_of(folder, said, run.output, code, sent)
    if resume and not faults:
        again = Run(options(data, folder, *WATCHED, "--auto_resume"), folder.with_suffix(".again.log"))
        if again.wait() != [0]:
            faults.append(f"it does not go on: {again.output[-500:]}")
        elif log_of(folder) != log_of(whole) or files_of(folder) < files_of(whole):
            faults.append("it goes on to another end")
    when = "after its end" if "Trained model" in said else "in training" if "FLOPs a step" in said else "before"
    return Interrupted(when, code, tuple(faults))


def faults_of(folder: Path, said: str, output: str, code: int | None, sent: signal.Signals) -> list[str]:
    """What is wrong with the end of an interrupted training: it must say in one line that it stopped, and leave what it says."""
    faults = []
    if code != 128 + sent and not ("Trained model" in said and code in (0, -sent)):
        faults.append(f"exit status {code} after {sent.name}")
    if "Traceback" in output:
        faults.append(f"a traceback: {output[output.index('Traceback') :][:2000]}")
    saved = [path for path in folder.glob("checkpoint-*") if path.is_dir()]
    if "which is saved: go on" in output or saved:
        last = last_checkpoint(folder)
        newest = max((int(path.name.split("-")[1]) for path in saved), default=None)
        if last is None or ("which is saved" in output and last.name != f"checkpoint-{newest}"):
            faults.append(f"the last checkpoint is not whole: {sorted(path.name for path in saved)}")
    if "is whole, and only what comes after" in output and not (folder / FINISHED_NAME).is_file():
        faults.append("the trained model is not whole")
    return faults


def files_of(folder: Path) -> set[str]:
    """The files of a run, without those of its checkpoints, of which it may have kept others."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if not path.parts[0].startswith(("checkpoint-", "."))}


def main() -> int:
    """Interrupt as many as the command line says, and count how they ended."""
    count, seed = (int(sys.argv[place]) if len(sys.argv) > place else least for place, least in ((1, 200), (2, 0)))
    with tempfile.TemporaryDirectory() as folder:
        ended = interrupt_runs(Path(folder), count, seed=seed, resume_every=10)
    counts = Counter((one.when, one.code) for one in ended)
    for (when, code), number in sorted(counts.items(), key=str):
        sys.stdout.write(f"{number:4d} interrupted {when}: exit status {code}\n")
    faulty = [one for one in ended if one.faults]
    for one in faulty:
        sys.stdout.write(f"{one}\n")
    sys.stdout.write(f"{len(ended)} interrupts, {len(faulty)} with a fault\n")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
