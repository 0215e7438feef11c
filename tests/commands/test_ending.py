"""How commands and scripts end when something goes wrong: one message with the remedy, an exit status of its kind, no traceback."""

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import build, tiny_config
from tiny_runs import TINY
from warm import Warm

import run_pretraining
from configuration_csmae import DEFAULT_SENSORS
from csmae_hf import CSMAEImageProcessor, CSMAEModel
from csmae_hf.commands.ending import FAULT, MACHINE, MISTAKE, run_to_end
from csmae_hf.commands.main import main
from csmae_hf.sample.generate import generate_sample


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def run(_: list[str]) -> int:
        raise error

    return run


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def worker_error(kind: type[Exception], message: str) -> Exception:
    """An error as torch raises it again in the process that asked a worker."""
    trace = (
        f'Traceback (most recent call last):\n  File "x.py", line 3, in f\n    raise it\n{kind.__name__}: {message}\n'
    )
    return kind(f"Caught {kind.__name__} in DataLoader worker process 0.\nOriginal {trace}")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("k = 0: give --k 10."), MISTAKE, "x: k = 0: give --k 10."),
        (ImportError("This needs gradio: pip install gradio"), MISTAKE, "x: This needs gradio: pip install gradio"),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"),
            MISTAKE,
            "there is a file where a folder must be",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            MACHINE,
            "x: a/b: No space left on device: make room",
        ),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), MACHINE, "Read-only file system: choose another folder"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), MACHINE, "change its rights"),
        (Exception("I/O error: No space left on device (os error 28)"), MACHINE, "make room"),  # as safetensors says it
        (caused(ValueError("Writing failed: free some."), OSError(errno.ENOSPC, "full")), MACHINE, "x: Writing failed"),
        (MemoryError(), MACHINE, "Memory ran out: take a smaller batch or fewer processes"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), MACHINE, "ended from outside"),
        (worker_error(ValueError, "a.tif is cut short"), MISTAKE, "x: a.tif is cut short"),
        (KeyError("surprise"), FAULT, "x: KeyError: 'surprise' (a fault of this software"),
        (KeyboardInterrupt(), 130, "Interrupted"),
    ],
)
def test_every_kind_of_error_is_one_message_and_one_status(
    error: BaseException, status: int, said: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_to_end("x", raising(error), []) == status
    assert said in caplog.text
    assert len(caplog.messages) == 1
    assert "Traceback" not in caplog.text + capsys.readouterr().err


@pytest.mark.parametrize("words", [["--debug"], ["a", "--debug", "--k", "3"]])
def test_debug_shows_the_traceback_and_is_taken_off(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given: list[str] = []
    assert run_to_end("x", lambda kept: given.extend(kept) or raising(KeyError("it"))(kept), words) == FAULT
    assert "Traceback" in capsys.readouterr().err
    assert given == [word for word in words if word != "--debug"]


def test_the_option_that_the_trainer_has_by_that_name_stays() -> None:
    given: list[str] = []
    assert run_to_end("x", given.extend, ["--debug", "underflow_overflow"]) == 0
    assert given == ["--debug", "underflow_overflow"]


def script(code: str) -> list[str]:
    return ["-c", f"import sys; from csmae_hf.commands.ending import run_to_end\n{code}"]


def test_a_reader_that_goes_away_ends_it_in_silence(warm: Warm, tmp_path: Path) -> None:
    code = "sys.exit(run_to_end('x', lambda _: [print(number) for number in range(100_000)] and 0))"
    os.mkfifo(tmp_path / "pipe")
    process = warm.start(script(code), stdout=tmp_path / "pipe")
    with (tmp_path / "pipe").open() as reader:
        assert reader.readline() == "0\n"
    done = process.wait()
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_output_to_a_full_disk_is_said(warm: Warm) -> None:
    done = warm.run(script("sys.exit(run_to_end('x', lambda _: print('result')))"), stdout="/dev/full")
    assert done.returncode == MACHINE
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_falls_into_a_destructor_is_not_lost(number: signal.Signals, warm: Warm) -> None:
    code = (
        f"number = {int(number)}"
        + """
import os, signal, time
class Held:
    def __del__(self):
        os.kill(os.getpid(), number)
        time.sleep(0.01)
def work(_):
    Held()  # whose interrupt Python can raise to nobody
    time.sleep(100)
sys.exit(run_to_end('x', work))
"""
    )
    done = warm.run(script(code), timeout=60)
    assert (done.returncode, done.stderr.strip().count("\n")) == (128 + number, 0), done.stderr
    assert "Traceback" not in done.stderr


# Files that a person writes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"data: [1, 2\nmax_steps: 3\n", "line 2"),
        (b"data: x\n\tmax_steps: 3\n", "line 2"),
        (b"- data\n- max_steps\n", "holds a list: expected a mapping"),
        (b"data: \xff\xfe\n", "not text in UTF-8"),
        (b"data: !!python/object:os.system x\n", "line 1"),
        (b"data: " + b"[" * 5000, "nested too deeply"),
        (b"run_name: 2020-13-45\n", "month must be in 1..12"),
        (b"# " + b"x" * (2 << 20), "larger than 1 MiB"),
        (b"{a: 1}: 2\n", "is no YAML file of plain values"),
    ],
)
def test_a_broken_yaml_is_said_with_its_place(
    content: bytes, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    assert run_pretraining.main([str(path), "--output_dir", str(tmp_path / "run")]) == MISTAKE
    assert said in caplog.text
    assert str(path) in caplog.text
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    caplog.clear()
    assert main(["convert", str(tmp_path / "model.ckpt"), str(tmp_path / "out"), "--config", str(path)]) == MISTAKE
    assert said in caplog.text


# A disk that takes nothing, wherever it is full or read-only first

DISK = """
import builtins, errno, io, os, pathlib, sys
import csmae_hf.files, lmdb
number, begin = int(sys.argv[1]), sys.argv[2]
def refused(function, writes):
    def instead(path, *given, **options):
        if str(path).startswith(begin) and writes(given, options):
            raise OSError(number, os.strerror(number), str(path))
        return function(path, *given, **options)
    return instead
modes = lambda given, options: set("wax+") & set(str([*given[:1], options.get("mode", "r")]))
io.open = builtins.open = refused(open, modes)
for name in ("mkdir", "replace", "rename"):
    setattr(os, name, refused(getattr(os, name), lambda *_: True))
lmdb.open = refused(lmdb.open, lambda *_: True)
sys.argv[:] = sys.argv[3:]
import csmae_doctor, run_pretraining, run_retrieval
name, *words = sys.argv
sys.exit({"csmae": csmae_doctor.main, "pretrain": run_pretraining.main, "retrieve": run_retrieval.main}[name]())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and generated tiles, as a store and as GeoTIFFs."""
    root = tmp_path_factory.mktemp("ending")
    build(CSMAEModel, tiny_config(sensors=DEFAULT_SENSORS, image_size=120, patch_size=30)).save_pretrained(
        root / "model"
    )
    CSMAEImageProcessor().save_pretrained(root / "model")
    generate_sample(root / "sample", tiles=12, seed=0)
    return root


MODEL = json.dumps(TINY)
COMMANDS = {
    "build": ["csmae", "archive", "build", "MODEL", "DATA", "OUT/archive"],
    "sample": ["csmae", "sample", "OUT/sample", "--tiles", "5"],
    "stats": ["csmae", "stats", "DATA", "OUT/stats"],
    "retrieve": ["retrieve", "MODEL", "--data", "DATA", "--output_dir", "OUT/r", "--resamples", "0", "--pictures", "0"],
    "pretrain": [
        "pretrain",
        "--data",
        "DATA",
        "--output_dir",
        "OUT/run",
        "--max_steps",
        "2",
        "--model_overrides",
        MODEL,
    ],
}


def words_of(name: str, folder: Path, out: Path) -> list[str]:
    named = {"MODEL": str(folder / "model"), "DATA": str(folder / "sample")}
    return [named.get(word, word.replace("OUT", str(out))) for word in COMMANDS[name]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_takes_nothing_is_said_in_one_line(
    name: str, number: int, folder: Path, tmp_path: Path, warm: Warm
) -> None:
    command = ["-c", DISK, str(number), str(tmp_path / "out"), *words_of(name, folder, tmp_path / "out")]
    done = warm.run(command, cwd=tmp_path)
    assert done.returncode == MACHINE, done.stderr
    assert "Traceback" not in done.stderr
    assert os.strerror(number) in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_where_a_folder_must_be_is_a_mistake(
    name: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import run_retrieval

    (tmp_path / "out").write_text("mine")
    scripts = {"csmae": main, "pretrain": run_pretraining.main, "retrieve": run_retrieval.main}
    first, *words = words_of(name, folder, tmp_path / "out")
    assert scripts[first](words) == MISTAKE
    assert str(tmp_path / "out") in caplog.text
    assert (tmp_path / "out").read_text() == "mine"


# Ctrl-C, at moments that nobody chooses

INTERRUPTED = """
import json, os, random, signal, sys, time
import csmae_doctor, run_pretraining, run_retrieval, csmae_hf.archive.archive, csmae_hf.training.pretrain
import csmae_hf.evaluation.run, csmae_hf.data.encode
import csmae_hf.commands.main
mains = {"csmae": csmae_hf.commands.main.main, "pretrain": run_pretraining.main, "retrieve": run_retrieval.main}
def child(words):
    pid = os.fork()
    if not pid:
        status = 99
        try:
            status = mains[words[0]](words[1:])
        finally:
            os._exit(status)
    return pid
name, trials, longest, *words = sys.argv[1:]
random.seed(name)
for trial in range(int(trials)):
    given = [word.replace("TRIAL", str(trial)) for word in words]
    pid = child(given)
    time.sleep(0.02 + random.random() * float(longest))
    os.kill(pid, signal.SIGINT)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    again = given if name != "build" else [*given, "--overwrite"]
    print("again", os.waitstatus_to_exitcode(os.waitpid(child(again), 0)[1]), flush=True)
"""
INTERRUPTIBLE = {
    "build": ["csmae", "archive", "build", "MODEL", "DATA", "OUT/archive-TRIAL"],
    "sample": ["csmae", "sample", "OUT/sample-TRIAL", "--tiles", "30"],
    "retrieve": [*COMMANDS["retrieve"][:5], "OUT/r-TRIAL", *COMMANDS["retrieve"][6:], "--no-untrained", "--k", "2"],
    "pretrain": [
        *("pretrain", "--data", "DATA", "--output_dir", "OUT/run-TRIAL", "--max_steps", "6", "--save_steps", "2"),
        *("--per_device_train_batch_size", "4", "--auto_resume", "true", "--model_overrides", MODEL),
        *("--eval_strategy", "no", "--dataloader_num_workers", "0"),
    ],
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that torch is imported once")
@pytest.mark.parametrize("name", INTERRUPTIBLE)
def test_ctrl_c_at_any_moment_ends_it_and_the_same_command_goes_on(
    name: str, folder: Path, tmp_path: Path, warm: Warm
) -> None:
    named = {"MODEL": str(folder / "model"), "DATA": str(folder / "sample")}
    words = [named.get(word, word.replace("OUT", str(tmp_path))) for word in INTERRUPTIBLE[name]]
    done = warm.run(["-c", INTERRUPTED, name, "5", "1.5", *words], cwd=tmp_path)
    ends = [line.split() for line in done.stdout.splitlines() if line.startswith(("ended", "again"))]
    assert len(ends) == 10, done.stderr
    assert {status for when, status in ends if when == "again"} == {"0"}, done.stderr
    assert {status for when, status in ends if when == "ended"} <= {"0", str(128 + signal.SIGINT)}, done.stderr
    assert "Traceback" not in done.stderr
