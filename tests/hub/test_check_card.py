"""A card is compared with its files: what is right passes, and each kind of mistake is found by its words."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_models import save_tiny

from csmae_hf.commands.main import main
from csmae_hf.evaluation.benchmark import OFFICIAL
from csmae_hf.hub.benchmarks import benchmark_entries, entries_text
from csmae_hf.hub.check_card import check_card
from csmae_hf.hub.publish_model import PublishOptions, stage_model

METRICS = ("precision", "recall", "f1_of_means", "mean_pair_f1")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text files of a pushed folder, by name."""
    base = tmp_path_factory.mktemp("check")
    run = base / "run"
    model = save_tiny(run)
    model.config.trained_on_generated = True
    model.config.save_pretrained(run)
    directions = [
        {"query_sensor": a, "archive_sensor": b, "k": 10, "n_queries": 9, "n_archive": 8}
        | {metric: 0.1 * (place + 1) + 0.0123456 for place, metric in enumerate(METRICS)}
        | {"ndcg": 0.3123456}
        | {"intervals": {"recall": [0.1987, 0.2345]}, "random": {"mean": {"f1_of_means": 0.0512}}}
        for a in ("s1", "s2")
        for b in ("s1", "s2")
    ]
    told = {"alignment": {"method": "center"}, "baseline_alignments": {"untrained": "whiten"}}
    blank = [one | {"f1_of_means": 0.1111 + 0.1 * place} for place, one in enumerate(directions)]
    results = {
        "protocol": {"k": 10},
        "metadata": {"data": "tiles", "generated": True, **told},
        "directions": directions,
        "baselines": {"untrained": blank, "labels known": directions[:1], "somebody's own": directions},
    }
    (run / "results.json").write_text(json.dumps(results))
    options = PublishOptions(license="mit", datasets=("tester/tiles",))
    out = stage_model(run, base / "out", "me/tiny", options)
    names = ("README.md", "config.json", "preprocessor_config.json", "results.json")
    entries = entries_text(benchmark_entries(results, OFFICIAL["BEN-14K"], "tester/tiles"))
    return {name: (out / name).read_text() for name in names} | {".eval_results/retrieval.yaml": entries}


@pytest.fixture
def folder(staged: dict[str, str], tmp_path: Path) -> Path:
    for name, text in staged.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "example.png").write_bytes(b"")
    return tmp_path


def change(path: Path, edit: Callable[[str], str]) -> None:
    before = path.read_text()
    path.write_text(edit(before))
    assert path.read_text() != before


def test_baselines_stand_beside_the_numbers_and_aligned_ones_are_called_so(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    (head,) = re.findall(r"(?m)^\| query → archive \|.*$", card)
    assert head.endswith("| F1@10 of a random order | untrained (whiten) | labels known |")
    rows = re.findall(r"(?m)^\| (s\d → s\d) \|.*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", card)
    assert rows == [
        ("s1 → s1", "0.0512", "0.1111", "0.3123"),
        ("s1 → s2", "0.0512", "0.2111", "-"),
        ("s2 → s1", "0.0512", "0.3111", "-"),
        ("s2 → s2", "0.0512", "0.4111", "-"),
    ]
    assert "*untrained*, the same model with random weights" in card
    assert "name: F1@10 of the means, sensors aligned (center), s2 to s1" in card


def test_what_a_push_writes_is_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_card(folder) == []
    assert main(["card", str(folder), "--check"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "pattern", "becomes", "words"),
    [
        ("README.md", r"\A---\n", "", "no metadata"),
        ("README.md", r"license: mit", "license: [", "cannot be read"),
        ("README.md", r"library_name: \w+", "library_name: timm", "library_name"),
        ("README.md", r"pipeline_tag: .*", "", "pipeline_tag"),
        (
            "README.md",
            r"pipeline_tag: .*",
            "pipeline_tag: image-segmentation",
            "has pipelines for 'image-feature-extraction'",
        ),
        ("README.md", r"embedding_dimension: 32", "embedding_dimension: 768", "embeds have 32"),
        ("README.md", r"- single-date", "- daily", "embedding_temporal_type"),
        ("README.md", r"(?m)^tags:", "base_model: ../runs/a\ntags:", "base_model"),
        ("README.md", r"value: 0.312346", "value: 0.9", "s1 to s1 is 0.9 in model-index, and 0.312346"),
        ("README.md", r"(\| s2 → s1 \| [\d.]+ \|) [\d.]+", r"\1 0.7777", "row s2 → s1"),
        ("README.md", r"\| 0.2111 \|", "| 0.2112 |", "row s1 → s2 of the text has 0.2112"),
        ("README.md", r"0\.1987, 0\.2345", "0.1987, 0.2945", "0.2945] where results.json has 0.2123, 0.1987, 0.2345"),
        ("README.md", r"0\.0512", "0.0112", "has 0.0112 where"),
        ("README.md", r"\n\| s2 \|[^\n]* B12 [^\n]*", "", "lacks B12 of s2"),
        (
            "README.md",
            r"(\| VH \|.*\|) [-\d.]+ \| ([\d.]+ \|\n)",
            r"\1 -3.14159 | \2",
            "band_mean of VH of s1 is -3.14159",
        ),
        ("README.md", r"## Citation", "hf_" + "aB3" * 11 + "\n\n## Citation", "a token"),
        ("README.md", r"## Citation", "| onnx/model.onnx | s1 |\n\n## Citation", "in the card and not in the folder"),
        ("README.md", r"\(example.png\)", "(picture.png)", "picture.png"),
        ("README.md", r"generated", "made", "generated scenes"),
        ("README.md", r"(?i)trained on generated scenes", "made with generated tiles", "trained on generated scenes"),
        ("README.md", r"## Citation", "/home/me/runs\n\n## Citation", "/home/me/runs"),
        ("results.json", r'"f1_of_means": 0.31', '"f1_of_means": 0.51', "model-index"),
        (".eval_results/retrieval.yaml", r"value: 31.2", "value: 81.2", ".eval_results/retrieval.yaml has 81.2"),
        (".eval_results/retrieval.yaml", r"id: tester/tiles", "id: tiles", "data set 'tiles'"),
        (".eval_results/retrieval.yaml", r"task_id", "task", "cannot be read"),
    ],
)
def test_each_mistake_is_found(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, pattern: str, becomes: str, words: str
) -> None:
    change(folder / file, lambda text: re.sub(pattern, becomes, text))
    assert main(["card", str(folder), "--check"]) == 1
    assert words in capsys.readouterr().out


def test_what_a_push_with_onnx_says_of_hf_hub_download_is_no_token(folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    assert [finding.text for finding in check_card(folder)] == [
        "onnx/model.onnx is in the folder and not in the card: push again with --onnx, which measures each file."
    ]
    row = "hf_hub_download\n\n| onnx/model.onnx | s1, s2 |\n\n## Citation"
    change(folder / "README.md", lambda text: text.replace("## Citation", row))
    assert check_card(folder) == []


def test_a_card_in_another_encoding_is_named(folder: Path) -> None:
    (folder / "README.md").write_bytes("---\ntags: [é]\n---".encode("latin-1"))
    assert "UTF-8" in check_card(folder)[0].text


def test_what_is_only_missing_is_a_note(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder / "README.md", lambda text: text.replace("license: mit\n", "", 1))
    assert main(["card", str(folder), "--check"]) == 0
    assert "note: license is missing" in capsys.readouterr().out


def test_a_folder_without_a_card_is_told_how_to_write_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tiny(tmp_path)
    assert main(["card", str(tmp_path), "--check"]) == 2
    assert "--write" in caplog.text
    assert main(["card", str(tmp_path), "--write", "--license", "mit", "--repository", "me/x"]) == 0
    assert not [finding for finding in check_card(tmp_path) if finding.is_error]
