"""No command replaces what it did not make: each is tried over what lies at its output."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tiff_files import random_band, write_tiff
from tiny_models import build, tiny_config
from tiny_runs import options

import run_pretraining
import run_retrieval
from configuration_csmae import DEFAULT_SENSORS
from csmae_hf import CSMAEForPreTraining, CSMAEImageProcessor
from csmae_hf.bigearthnet import SENSORS
from csmae_hf.commands.main import main
from csmae_hf.files import refuse_existing, staged_folder
from csmae_hf.sample.generate import generate_sample

SCRIPTS: dict[str, Callable[[list[str]], int]] = {
    "csmae": lambda words: main(words),
    "pretrain": lambda words: run_pretraining.main(words),
    "retrieve": lambda words: run_retrieval.main(words),
}


class Command(NamedTuple):
    """A command line, what it writes, and what it does when that is there already."""

    words: str
    out: str  # a file that it writes
    again: int = 2  # exit status of the same command once more
    overwrite: bool = True  # whether it has the option


COMMANDS = {
    "build": Command("csmae archive build MODEL DATA OUT --limit 6", "archive.json"),
    "sample": Command("csmae sample OUT --tiles 5", "sample.json", 0, False),
    "stats": Command("csmae stats DATA OUT", "preprocessor_config.json"),
    "search": Command("csmae search ARCHIVE --query ID --sensor s1 --out OUT/hits.json", "hits.json"),
    "search table": Command("csmae search ARCHIVE --query ID --sensor s1 --out OUT/hits.csv", "hits.csv"),
    "search folder": Command("csmae search ARCHIVE --query ID --sensor s1 --out OUT", "state.json"),
    "info": Command("csmae info DATA --picture OUT/tiles.png", "tiles.png", 0),
    "plot": Command("csmae plot RUN --output OUT --format svg", "losses.svg", 0),
    "export": Command("csmae export-original MODEL OUT/model.ckpt", "model.ckpt"),
    "convert": Command("csmae convert ORIGINAL OUT HEADS", "config.json"),
    "card": Command("csmae card OUT --write", "README.md", 0),
    "push": Command("csmae push MODEL a/b --dry-run OUT", "config.json", 2, False),
    "encode": Command("csmae encode TIFFS OUT --workers 0 --suspect accept", "metadata.parquet", 0, False),
    "retrieve": Command("retrieve MODEL --data DATA --output_dir OUT RETRIEVAL", "results.json", 0),
    "pretrain": Command("pretrain TRAINING OUT", "model.safetensors"),
}
HEADS = ["--num-attention-heads", "4", "--decoder-num-attention-heads", "4"]
RETRIEVAL = ["--k", "2", "--resamples", "0", "--pictures", "0", "--alignment", "none", "--no-untrained"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, generated tiles, an archive of them, the model as the original code has it, and the log of a run."""
    root = tmp_path_factory.mktemp("outputs")
    model = build(CSMAEForPreTraining, tiny_config(sensors=DEFAULT_SENSORS, image_size=120, patch_size=30))
    for name in ("model", "other"):
        model.save_pretrained(root / name)
        CSMAEImageProcessor().save_pretrained(root / name)
    generate_sample(root / "sample", tiles=12, seed=0)
    assert main(["archive", "build", str(root / "model"), str(root / "sample"), str(root / "archive")]) == 0
    assert main(["export-original", str(root / "model"), str(root / "original.ckpt")]) == 0
    for band in (band for sensor in SENSORS.values() for band in sensor.bands):
        write_tiff(root / "tiffs" / f"field_{band}.tif", [random_band(band)])
    (root / "run").mkdir()
    history = [{"step": step, "epoch": step, "loss": 1.0 / step} for step in (1, 2, 3)]
    (root / "run" / "trainer_state.json").write_text(json.dumps({"global_step": 3, "log_history": history}))
    return root


def words_of(command: Command, folder: Path, out: Path, *more: str) -> tuple[Callable[[list[str]], int], list[str]]:
    first, *words = command.words.split()
    heads = json.loads((folder / "model" / "config.json").read_text())
    named: dict[str, list[str]] = {
        "MODEL": [str(folder / "model")],
        "DATA": [str(folder / "sample")],
        "TIFFS": [str(folder / "tiffs")],
        "ARCHIVE": [str(folder / "archive")],
        "ORIGINAL": [str(folder / "original.ckpt")],
        "RUN": [str(folder / "run")],
        "ID": [json_ids(folder)],
        "HEADS": [HEADS[0], str(heads["num_attention_heads"]), HEADS[2], str(heads["decoder_num_attention_heads"])],
        "RETRIEVAL": RETRIEVAL,
        "TRAINING": [*options(folder / "sample", out, "--save_strategy", "no", "--max_steps", "1"), "--output_dir"],
    }
    return SCRIPTS[first], [part for word in words for part in named.get(word, [word.replace("OUT", str(out))])] + [
        *more
    ]


def json_ids(folder: Path) -> str:
    from csmae_hf.archive.archive import Archive

    return Archive.load(folder / "archive").ids[0]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_that_lies_at_the_output_is_lost(
    name: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command, mine = COMMANDS[name], tmp_path / "mine"
    mine.mkdir()
    (mine / command.out).write_text("the work of years")
    if name == "card":
        for path in (folder / "model").iterdir():
            (mine / path.name).write_bytes(path.read_bytes())
    before = content(mine)
    run, words = words_of(command, folder, mine)
    assert run(words) == 2
    assert content(mine) == before
    assert "another" in caplog.text
    if command.overwrite and name != "build":  # whose manifest this is not, and which it never replaces
        assert "--overwrite" in caplog.text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_twice_loses_nothing_and_overwrite_replaces(
    name: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command, out = COMMANDS[name], tmp_path / "out"
    if name == "card":
        out.mkdir()
        for path in (folder / "model").iterdir():
            (out / path.name).write_bytes(path.read_bytes())
    run, words = words_of(command, folder, out)
    assert run(words) == 0, caplog.text
    before = content(out)
    assert command.out in before
    assert run(words) == command.again, caplog.text
    after = content(out)
    assert after.keys() == before.keys()
    if command.again:
        assert after == before
        assert command.overwrite == ("--overwrite" in caplog.text)
    (out / "notes.txt").write_text("mine")
    if command.overwrite:
        assert run([*words, "--overwrite"]) in (0, 2), caplog.text  # 2 where all of the folder would be replaced
        assert content(out).keys() == {*before, "notes.txt"}
        (out / "notes.txt").unlink()
        assert run([*words, "--overwrite"]) == 0, caplog.text
        assert command.out in content(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_results_of_another_model_are_not_replaced(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = ["--data", str(folder / "sample"), "--output_dir", str(tmp_path / "out"), *RETRIEVAL]
    assert run_retrieval.main([str(folder / "other"), *other]) == 0
    before = content(tmp_path)
    assert run_retrieval.main([str(folder / "model"), *other]) == 2
    assert content(tmp_path) == before
    assert f"is of {folder / 'other'} on sample, asked for is {folder / 'model'}" in caplog.text


def test_a_folder_that_is_replaced_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.json").write_text("old")

    def fail_in(staged: Path) -> None:
        (staged / "b.json").write_text("half")
        assert (tmp_path / "x" / "a.json").read_text() == "old"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "x", overwrite=True, own=["*.json"]) as staged:
        fail_in(staged)
    assert content(tmp_path) == {"x/a.json": b"old"}
    with staged_folder(tmp_path / "x", overwrite=True, own=["*.json"]) as staged:
        (staged / "b.json").write_text("new")
    assert content(tmp_path) == {"x/b.json": b"new"}
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for path, own in ((tmp_path / "link", ["*"]), (tmp_path / "x", []), (tmp_path / "x" / "b.json", ["*"])):
        with pytest.raises(FileExistsError, match="choose another place"):
            refuse_existing(path, overwrite=True, own=own)
