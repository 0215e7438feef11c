"""A benchmark as a dataset repository, and the entries of models: as the Hub and MTEB have them, by the commands that make them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from hub_models import save_tiny
from huggingface_hub import DatasetCard, parse_eval_result_entries
from small_benchmarks import aligned, small_benchmark, small_results, small_tiles

from csmae_hf.commands.main import main
from csmae_hf.data.load import load_data
from csmae_hf.embedding.file_encoder import FileEncoder
from csmae_hf.evaluation.benchmark import OFFICIAL
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run import retrieve
from csmae_hf.evaluation.submission import check_submission
from csmae_hf.hub.benchmarks import FRAMEWORK, benchmark_entries, eval_yaml, expected_value, read_benchmark
from csmae_hf.hub.check_card import check_card
from csmae_hf.hub.publish_model import PublishOptions, stage_model

FRAMEWORKS_OF_THE_HUB = ("mteb", "inspect-ai", "math-arena", "olmocr-bench", "harbor")
"""Some of huggingface.js, packages/tasks/src/eval.ts."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub-benchmark")
    small_tiles(folder)
    return folder / "sample"


@pytest.fixture(scope="module")
def results(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation of this package writes, with an alignment."""
    out = tmp_path_factory.mktemp("hub-benchmark-results")
    ids = load_data(sample, "all")["id"]
    np.savez(out / "e.npz", ids=np.array(ids), s1=np.eye(60, 8) + 1, s2=np.eye(60, 8)[::-1] + 2)
    options = RetrievalOptions(
        data=str(sample), output_dir=str(out), alignment="center", pictures=0, resamples=0, untrained=False
    )
    retrieve([], options, {"mine": FileEncoder(dict.fromkeys(("s1", "s2"), out / "e.npz"))})
    return out / "results.json"


def test_eval_yaml_has_what_the_hub_asks_for() -> None:
    for benchmark in OFFICIAL.values():
        held = eval_yaml(benchmark)
        assert list(held) == ["name", "description", "evaluation_framework", "tasks"]
        assert held["evaluation_framework"] == FRAMEWORK
        assert FRAMEWORK in FRAMEWORKS_OF_THE_HUB
        ids = [task["id"] for task in held["tasks"]]
        assert len(set(ids)) == len(ids) == 5
        for task in held["tasks"][1:]:
            assert task["config"] in task["id"]
            assert task["split"] == "test"


def test_a_repository_is_written_and_read_by_datasets(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    command = ["benchmark", "write", str(sample), str(out), "--repository", "tester/tiny", "--name", "tiny"]
    assert main(command) == 0
    assert {path.name for path in out.iterdir()} == {"eval.yaml", "README.md", "benchmark.json", "data"}
    tiles = load_data(sample, "all")
    benchmark = read_benchmark(str(out))
    assert benchmark == small_benchmark(tiles)
    assert yaml.safe_load((out / "eval.yaml").read_text()) == eval_yaml(benchmark)
    read = load_dataset(str(out), "s1_to_s2", split="test", cache_dir=str(tmp_path / "cache"))
    wanted = [row for row, split in enumerate(tiles["split"]) if split == "test"]
    assert read["id"] == [tiles["id"][row] for row in wanted]
    names = tiles.features["labels"].feature.names
    assert read["labels"] == [[names[number] for number in tiles["labels"][row]] for row in wanted]
    card = DatasetCard.load(out / "README.md")
    assert [one["config_name"] for one in card.data.configs] == ["s1_to_s1", "s1_to_s2", "s2_to_s1", "s2_to_s2"]
    assert "generated scenes, not satellite images" in card.text
    assert "&id" not in (out / "README.md").read_text()
    assert benchmark.task_id("s2", "s1") in card.text
    texts = [path.read_text() for path in out.iterdir() if path.is_file()]
    assert not any(str(sample.parent) in text for text in texts)
    assert main(command) != 0  # nothing is replaced without being asked
    assert main([*command, "--overwrite"]) == 0


def test_results_of_an_evaluation_are_an_entry_and_become_one(
    sample: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["benchmark", "write", str(sample), str(tmp_path / "b"), "--repository", "tester/tiny", "--name", "tiny"])
    check = ["benchmark", "check", str(results), str(tmp_path / "b")]
    entries = tmp_path / "retrieval.yaml"
    assert main([*check, "--entries", str(entries), "--repository", "tester/tiny"]) == 0
    assert "an entry of tiny" in capsys.readouterr().out
    document = json.loads(results.read_text())
    parsed = parse_eval_result_entries(yaml.safe_load(entries.read_text()))
    directions = {f"{one['query_sensor']}_to_{one['archive_sensor']}": one for one in document["directions"]}
    values = {one.task_id: one.value for one in parsed}
    assert values == {
        **{f"tinyCrossSensorRetrieval_{name}_test": round(100 * one["ndcg"], 5) for name, one in directions.items()},
        "tinyCrossSensorRetrieval": pytest.approx(sum(25 * one["ndcg"] for one in directions.values()), abs=1e-5),
    }
    assert {one.dataset_id for one in parsed} == {"tester/tiny"}
    for words in (
        "NDCG@10 x 100",
        "a random order",
        "F1@10",
        "alignment center",
        "generated scenes",
        "12 queries, 12 tiles",
    ):
        assert words in parsed[0].notes
    for one in parsed[:4]:
        assert expected_value(one.task_id, document) == one.value
    assert expected_value("other_task", document) is None


def test_results_that_are_no_entry_end_with_status_1(
    sample: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = json.loads(results.read_text())
    changed["directions"][0]["ndcg"] = 0.99
    (tmp_path / "results.json").write_text(json.dumps(changed))
    main(["benchmark", "write", str(sample), str(tmp_path / "b"), "--repository", "tester/tiny"])
    entries = tmp_path / "entries.yaml"
    command = [
        "benchmark",
        "check",
        str(tmp_path),
        str(tmp_path / "b"),
        "--repository",
        "a/b",
        "--entries",
        str(entries),
    ]
    capsys.readouterr()
    assert main(command) == 1
    said = capsys.readouterr().out
    assert said.startswith("recomputed: ndcg of s1 to s1 is 0.990000")
    assert "no entry of CrossSensorRetrieval" in said
    assert not entries.exists()
    official = main(["benchmark", "check", str(tmp_path), "BEN-14K"])
    assert official == 1
    assert "generated: The numbers are of generated scenes" in capsys.readouterr().out


def test_what_cannot_be_asked_for_is_said(
    sample: Path, results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for words, said in (
        (["check", str(results)], "none of the official lists"),
        (["check", str(results), "BEN-15K"], "There is no benchmark BEN-15K: expected one of BEN-14K"),
        (["check", str(tmp_path / "none.json"), "BEN-14K"], "No results at"),
        (["check", str(results), str(results)], "is no benchmark of version"),
        (["check", str(results), "BEN-14K", "--entries", "x"], "needs --repository"),
        (["check", str(results), "BEN-14K", "--entries", "x", "--repository", "x"], "no name on the Hub"),
        (["write", str(sample), str(tmp_path / "x"), "--repository", "x"], "no name on the Hub"),
        (["write", str(sample), str(tmp_path / "x"), "--repository", "a/x", "--name", "BEN-270K"], "not the tiles of"),
    ):
        caplog.clear()
        assert main(["benchmark", *words]) not in (0, 1), words
        assert said in caplog.text, words


def test_entries_name_the_alignment(sample: Path) -> None:
    tiles = load_data(sample, "all")
    benchmark, plain = small_benchmark(tiles), small_results(tiles)
    assert check_submission(plain, benchmark) == []
    for document, words in ((plain, "alignment none"), (aligned(plain, tiles), "alignment center")):
        for one in benchmark_entries(document, benchmark, "tester/tiny"):
            assert words in one["notes"]


def test_a_push_writes_the_entry_of_what_it_publishes(sample: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    save_tiny(run)
    (run / "example.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    options = RetrievalOptions(
        data=str(sample),
        output_dir=str(tmp_path / "results"),
        alignment="none",
        pictures=0,
        resamples=0,
        untrained=False,
    )
    retrieve([str(run)], options)
    publish = PublishOptions(results=str(tmp_path / "results"), benchmark="tester/tiny", license="mit")
    out = stage_model(run, tmp_path / "out", "me/tiny", publish)
    entries = yaml.safe_load((out / ".eval_results" / "retrieval.yaml").read_text())
    assert [one["dataset"]["task_id"] for one in entries][1] == "CrossSensorRetrieval_s1_to_s2_test"
    assert check_card(out) == []
    few = tmp_path / "few"
    retrieve([str(run)], replace(options, output_dir=str(few), k=5))
    refused = replace(publish, results=str(few))
    with pytest.raises(ValueError, match=r"no entry of a benchmark .*k is 5: expected 10.*leave out --benchmark"):
        stage_model(run, tmp_path / "out5", "me/tiny", refused)
    out = stage_model(run, tmp_path / "out6", "me/tiny", replace(refused, benchmark=None))
    assert not (out / ".eval_results").exists()
