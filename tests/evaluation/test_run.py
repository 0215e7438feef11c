"""Whole evaluations: killed and resumed, by one process and by two, with tiles that cannot be read, and what they write."""

import builtins
import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from table_again import table_again
from transformers import AutoConfig

from csmae_hf import CSMAEConfig, CSMAEImageProcessor, CSMAEModel
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.embedding import shards
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.embed import embed_batches
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.embedding.file_encoder import FileEncoder
from csmae_hf.embedding.provenance import Provenance
from csmae_hf.evaluation import run_tiles
from csmae_hf.evaluation.pictures import chart_groups
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run import folder_names, retrieve
from csmae_hf.evaluation.run_tiles import load_run_tiles
from csmae_hf.evaluation.trainings import training_remarks
from csmae_hf.metrics.ranking import headlines
from csmae_hf.sample.generate import generate_sample
from csmae_hf.visualize import abbreviate

ROOT = Path(__file__).resolve().parents[2]
TILES, SHARD = 60, 8

# The script in a process of its own, with shards and forward passes that 60 tiles can show something of.
DRIVER = f"""
import runpy, sys, time
from csmae_hf.embedding import embed, shards
shards.SHARD_TILES = {SHARD}
forward = embed.forward_pixels
sys.argv = [{str(ROOT / "run_retrieval.py")!r}, *sys.argv[1:]]
if "--slow" in sys.argv:
    sys.argv.remove("--slow")
    embed.forward_pixels = lambda *arguments: (time.sleep(0.1), forward(*arguments))[1]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return generate_sample(tmp_path_factory.mktemp("data") / "sample", tiles=TILES, seed=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "decoder_hidden_size": 16, "decoder_num_attention_heads": 2}
    depths = {
        "multi_sensor_encoder_depth": 1,
        "cross_sensor_encoder_depth": 1,
        "decoder_num_hidden_layers": 1,
    }
    folder = tmp_path_factory.mktemp("model") / "tiny"
    CSMAEModel(CSMAEConfig(**sizes, **depths)).save_pretrained(folder)
    CSMAEImageProcessor().save_pretrained(folder)
    return folder


def options(sample, folder, **changes):
    plain = {"k": 3, "pictures": 0, "resamples": 50, "device": "cpu", "batch_size": 8, "untrained": False}
    return RetrievalOptions(data=str(sample), output_dir=str(folder), **{**plain, **changes})


# Several processes, and dead ones


def command(folder, sample, model, *arguments):
    driver = folder / "driver.py"
    driver.write_text(DRIVER)
    fixed = [
        "--k",
        "3",
        "--pictures",
        "0",
        "--resamples",
        "50",
        "--batch_size",
        "4",
        "--device",
        "cpu",
        "--no-untrained",
    ]
    return [str(driver), str(model), "--data", str(sample), "--output_dir", "out", *fixed, *arguments]


def finished(done):
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def alone(sample, model, tmp_path_factory, warm):
    """One process that nothing happens to."""
    folder = tmp_path_factory.mktemp("alone")
    finished(warm.run(command(folder, sample, model), cwd=folder))
    return folder / "out"


def embedded_now(errors):
    return sum(int(number) for number in re.findall(r"Embedded (\d+) s\d tiles in", errors))


@pytest.mark.slow
def test_a_killed_run_goes_on_from_what_is_embedded_already(sample, model, alone, tmp_path, warm):
    process = warm.start(command(tmp_path, sample, model, "--slow"), cwd=tmp_path)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("out/embeds/*/*/*.safetensors"))) < 3:
        assert process.poll() is None, process.wait()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait().returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "results.json").exists()
    there = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/embeds/*/*/*.safetensors")}
    output, errors = finished(warm.run(command(tmp_path, sample, model), cwd=tmp_path))
    # Two sensors by the model, and two by their band statistics; nothing twice but the shard that was being made.
    assert embedded_now(errors) == 4 * TILES - SHARD * len(there)
    assert all(path.stat().st_mtime_ns == written for path, written in there.items())
    assert "s1 -> s2" in output
    assert "images/s" in errors
    assert (tmp_path / "out" / "results.json").read_bytes() == (alone / "results.json").read_bytes()


@pytest.mark.slow
def test_two_processes_write_what_one_writes(sample, model, alone, tmp_path):
    # With --cpu instead of --multi_gpu, accelerate launch starts one process, whatever --num_processes says.
    accelerate = [str(Path(sys.executable).parent / "accelerate"), "launch", "--multi_gpu", "--num_machines", "1"]
    two = [*accelerate, "--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    launched = [*two, *command(tmp_path, sample, model)]
    done = subprocess.run(launched, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    output, errors = finished(done)
    assert output.count("s1 -> s2") == 2  # the table of directions and that of alignments' header, once each
    assert 0 < embedded_now(errors) < 4 * TILES  # the first process says what it did
    assert (tmp_path / "out" / "results.json").read_bytes() == (alone / "results.json").read_bytes()
    assert (tmp_path / "out" / "results.csv").read_bytes() == (alone / "results.csv").read_bytes()


# In this process


@pytest.fixture(scope="module")
def complete(sample, model, tmp_path_factory):
    """An evaluation with everything."""
    folder = tmp_path_factory.mktemp("complete")
    outcome = retrieve([str(model)], options(sample, folder, probe=True, pictures=2, untrained=True))
    return outcome, folder


def test_everything_that_is_promised_is_written(complete):
    outcome, folder = complete
    pictures = {f"retrieval_{a}_to_{b}.png" for a in ("s1", "s2") for b in ("s1", "s2")}
    written = {path.name for path in outcome.files}
    assert written >= {"results.json", "results.csv", "report.html", "scores_over_k.png", "classes.png", *pictures}
    names = ("scores", "alignments", "probes", "classes")
    tables = {f"{name}.{kind}" for name in names for kind in ("csv", "md", "tex")}
    assert {path.name for path in outcome.files if path.parent.name == "tables"} == tables
    assert all(path.stat().st_size > 0 for path in outcome.files)
    document = json.loads((folder / "results.json").read_text())
    assert len(document["directions"]) == 4
    assert len(document["metadata"]["probes"]) == 10
    assert document["metadata"]["generated"] is True
    with (folder / "results.csv").open(newline="") as stream:
        assert [row["query_sensor"] + row["archive_sensor"] for row in csv.DictReader(stream)] == [
            "s1s1",
            "s1s2",
            "s2s1",
            "s2s2",
        ]
    assert "untrained" in outcome.table


def test_tables_that_align_show_what_alignment_makes_of_random_weights_and_chance(complete):
    _, folder = complete
    document = json.loads((folder / "results.json").read_text())
    rows = list(csv.DictReader((folder / "tables" / "alignments.csv").open(newline="")))
    assert [row["model"] for row in rows] == ["trained"] * 4 + ["untrained"] * 4 + ["random order"]
    (used,) = (row for row in rows if row["model"] == "untrained" and row["used"] == "True")
    assert document["metadata"]["baseline_alignments"] == {"untrained": used["alignment"]}
    for result in document["baselines"]["untrained"]:
        name = f"{result['query_sensor']} -> {result['archive_sensor']}"
        assert float(used[name]) == result["f1_of_means"]
        assert float(rows[-1][name]) == result["random"]["mean"]["f1_of_means"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    section = page.partition("<h2>Alignment of the sensors</h2>")[2].partition("</section>")[0]
    assert section.count("<tr>") == 1 + len(rows)


def test_the_alignment_used_is_the_best_on_validation_and_is_kept(complete):
    outcome, folder = complete
    evaluation = next(iter(outcome.runs.values()))
    choice = evaluation.choice
    assert set(choice.cross_fitted) == {"none", "center", "whiten", "procrustes"}
    assert choice.cross_fitted[choice.method] == max(choice.cross_fitted.values())
    assert f"Alignment {choice.method} is used" in outcome.table
    recorded = json.loads((folder / "results.json").read_text())["metadata"]["alignment"]
    assert recorded["method"] == choice.method
    assert recorded["n_pairs"] == 36  # the training split
    assert evaluation.results is evaluation.by_alignment[choice.method]
    if choice.method != "none":
        kept = Alignment.load(folder / "alignment.safetensors")
        assert kept.to_bytes() == choice.alignment.to_bytes()
        assert set(recorded["gain_over_none"]) == {"s1 -> s1", "s1 -> s2", "s2 -> s1", "s2 -> s2"}


class References(HTMLParser):
    """Everything in a page that could point out of it."""

    def __init__(self):
        super().__init__()
        self.found, self.images, self.tags = [], 0, set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        values = dict(attrs)
        self.images += tag == "img" and values["src"].startswith("data:image/jpeg;base64,")
        self.found += [values[name] for name in ("src", "href", "srcset", "data", "action", "poster") if name in values]


def test_the_report_stands_alone_and_marks_hits_by_colour_and_sign(complete):
    _, folder = complete
    page = (folder / "report.html").read_text(encoding="utf-8")
    references = References()
    references.feed(page)
    assert all(value.startswith("data:") for value in references.found)
    assert not {"script", "link", "iframe", "object"} & references.tags
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert "http" not in re.sub(r'base64,[^"]*', "", page)
    assert references.images == 4 * 2 * (1 + 3)
    hits, misses = page.count('<figure class="hit"'), page.count('<figure class="miss"')
    assert hits + misses == 4 * 2 * 3
    assert (page.count("<b>✓ "), page.count("<b>✗ ")) == (hits, misses)
    for title in ("By class", "By country", "By season", "Alignment of the sensors", "Classification on frozen embeds"):
        assert f"<h2>{title}</h2>" in page


def test_the_reports_numbers_stand_under_their_names(complete):
    outcome, folder = complete
    page = (folder / "report.html").read_text(encoding="utf-8")
    table = page[page.index("<h2>Scores</h2>") : page.index("</table>")]
    header = re.findall(r"<th[^>]*>(.*?)</th>", table)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)[1:]]
    titles = {"P@3": "precision", "R@3": "recall", "F1@3 of means": "f1_of_means", "mean pair F1@3": "mean_pair_f1"}
    titles |= {"mAP@3": "map", "NDCG@3": "ndcg", "ACG@3": "acg"}
    results = next(iter(outcome.runs.values())).results
    for result, cells in zip(results, rows, strict=False):
        shown = dict(zip(header, (cell.split("<small>")[0] for cell in cells), strict=True))
        assert shown[header[0]] == f"{result.query_sensor.upper()} → {result.archive_sensor.upper()}"
        assert float(shown["R-precision"]) == pytest.approx(result.r_precision, abs=5e-5)
        for title, name in titles.items():
            assert float(shown[title]) == pytest.approx(result.scores[name], abs=5e-5)
    random = dict(zip(header, rows[4], strict=True))
    assert float(random["P@3"].split("<")[0]) == pytest.approx(results[0].random.mean["precision"], abs=5e-5)
    titles = [result.title for result in results]
    names = [f"{name} {title}" for name in ("untrained", "band statistics", "labels known") for title in titles]
    assert [cells[0] for cells in rows[5:]] == names


def test_the_reports_charts_have_the_numbers_of_the_results(complete):
    outcome, folder = complete
    page = (folder / "report.html").read_text(encoding="utf-8")
    results = next(iter(outcome.runs.values())).results
    charts = dict(re.findall(r"<h2>(.*?)</h2>\n(.*?)\n</section>", page, flags=re.DOTALL))
    over_k = charts["Precision, recall and F1 at 1 to 3 results"]
    assert over_k.count("<svg") == 3
    words = re.findall(r"<text[^>]*>(.*?)</text>", over_k)
    for name in ("precision", "recall", "f1_of_means"):
        for result in results:
            assert f"{result.title}  {result.over_k[name][-1]:#.3g}" in words
    for dimension in ("class", "country", "season"):
        words = re.findall(r"<text[^>]*>(.*?)</text>", charts[f"By {dimension}"])
        drawn = sorted(word for word in words if re.fullmatch(r"\d\.\d{3}", word))
        values = [group.scores["f1_of_means"] for result in results for group in result.groups[dimension].values()]
        assert drawn == sorted(f"{value:.3f}" for value in values)


def test_charts_of_groups_put_each_number_beside_its_class(complete):
    outcome, _ = complete
    results = next(iter(outcome.runs.values())).results
    axes = chart_groups(results, "class").axes[0]
    names = [label.get_text().split("\n") for label in axes.get_yticklabels()]
    classes = list(dict.fromkeys(name for result in results for name in result.groups["class"]))
    assert [name for name, _ in names] == [abbreviate(name, 28) for name in classes]
    assert [int(count.split()[0]) for _, count in names] == [
        results[0].groups["class"][name].n_queries for name in classes
    ]
    for bars, result in zip(axes.containers, results, strict=True):
        assert bars.get_label() == result.title
        expected = [result.groups["class"][name].scores["f1_of_means"] for name in classes]
        assert [bar.get_width() for bar in bars] == pytest.approx(expected)


def test_without_matplotlib_the_report_keeps_its_tables_and_says_what_to_install(sample, model, tmp_path, monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    outcome = retrieve([str(model)], options(sample, tmp_path, pictures=1))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "pip install &#x27;matplotlib&gt;=3.8&#x27;" in page
    assert "<svg" not in page
    assert page.count("<table>") == 2
    assert page.count('<figure class="query"') == 4
    assert {path.suffix for path in outcome.files} == {".json", ".csv", ".html", ".md", ".tex", ".safetensors"}


def test_a_probe_without_scikit_learn_is_refused_before_anything_is_embedded(sample, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match="pip install 'scikit-learn>="):
        retrieve([str(model)], options(sample, tmp_path, probe=True))
    assert not list(tmp_path.iterdir())


def test_what_users_call_is_exported_and_the_import_is_cheap():
    code = (
        "import sys, csmae_hf.evaluation as e; print(len([name for name in sys.modules if name.startswith('csmae_hf.eval')]));"
        "from csmae_hf.evaluation import *; print(retrieve.__module__, evaluate_retrieval.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["1", "csmae_hf.evaluation.run", "csmae_hf.evaluation.evaluate"]


def test_every_option_is_on_the_command_line_with_its_default_and_its_help():
    spec = importlib.util.spec_from_file_location("run_retrieval", ROOT / "run_retrieval.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    parser = script.build_parser()
    given = vars(parser.parse_args(["a", "b"]))
    assert given.pop("models") == ["a", "b"]
    assert RetrievalOptions(**given) == RetrievalOptions()
    changed = vars(
        parser.parse_args(["--probe", "a", "--k", "3", "--max_tiles", "9", "--missing", "drop", "--data", "x"])
    )
    assert changed.pop("models") == ["a"]
    assert RetrievalOptions(**changed) == RetrievalOptions(probe=True, k=3, max_tiles=9, missing="drop", data="x")
    with pytest.raises(SystemExit):
        parser.parse_args(["a", "--unusable", "drop"])
    assert "more than 1% of the tiles that the metadata names" in re.sub(r"\s+", " ", parser.format_help())


def test_without_training_tiles_nothing_is_aligned_and_it_says_why(sample, model, tmp_path):
    outcome = retrieve([str(model)], options(sample, tmp_path, query_split="all", archive_split="all"))
    choice = next(iter(outcome.runs.values())).choice
    assert choice.method == "none"
    assert "Training tiles are queries or archive" in choice.reason
    results = next(iter(outcome.runs.values())).results
    assert results[1].colocated_recall is not None
    with pytest.raises(ValueError, match="fitted on the training split"):
        retrieve([str(model)], options(sample, tmp_path, query_split="train", alignment="center"))


def test_one_alignment_by_name_is_used_without_comparing(sample, model, tmp_path):
    outcome = retrieve([str(model)], options(sample, tmp_path, alignment="whiten"))
    evaluation = next(iter(outcome.runs.values()))
    assert list(evaluation.by_alignment) == ["whiten"]
    with pytest.raises(ValueError, match="Unknown alignment 'rotate'"):
        retrieve([str(model)], options(sample, tmp_path, alignment="none,rotate"))


def test_a_sensor_that_the_model_lacks_is_refused_by_name(sample, model, tmp_path):
    with pytest.raises(ValueError, match="Unknown sensor 's3': BigEarthNet has s1, s2"):
        retrieve([str(model)], options(sample, tmp_path, sensors="s1,s3"))
    outcome = retrieve([str(model)], options(sample, tmp_path, sensors="s2"))
    evaluation = next(iter(outcome.runs.values()))
    assert [result.name for result in evaluation.results] == ["s2 -> s2"]
    assert "one sensor only" in evaluation.choice.reason


def break_value(folder, key):
    """Cut a tile's value in an LMDB short."""
    environment = lmdb.open(str(folder), map_size=1 << 30, lock=False)
    with environment.begin(write=True) as transaction:
        value = bytes(transaction.get(key.encode()))
        transaction.put(key.encode(), value[: len(value) // 2])
    environment.close()


def test_a_broken_tile_stops_the_evaluation_by_name_and_costs_no_other_tile(sample, model, tmp_path):
    import pyarrow.parquet as pq

    copy = Path(shutil.copytree(sample, tmp_path / "copy"))
    table = pq.read_table(copy / "metadata.parquet").to_pylist()
    broken = sorted((row for row in table if row["split"] == "test"), key=lambda row: row["patch_id"])[5]
    break_value(next(copy.glob("*/data.mdb")).parent, broken["s1_name"])
    with pytest.raises(ValueError, match=f"1 of {TILES} tiles could not be embedded") as caught:
        retrieve([str(model)], options(copy, tmp_path / "out"))
    assert broken["s1_name"] in str(caught.value)
    assert "--unusable skip" in str(caught.value)
    outcome = retrieve([str(model)], options(copy, tmp_path / "out", unusable="skip"))
    results = next(iter(outcome.runs.values())).results
    in_test = sum(row["split"] == "test" for row in table)
    assert {result.n_archive for result in results} == {in_test - 1}  # of both sensors: directions stay comparable
    skipped = json.loads((tmp_path / "out" / "skipped_tiles.json").read_text())["tiles"]
    assert list(skipped) == [broken["patch_id"]]
    names = json.loads((tmp_path / "out" / "results.json").read_text())["metadata"]
    assert names["skipped_tiles"] == 1


def test_suspect_tiles_are_left_out_refused_or_taken(sample, model, tmp_path, monkeypatch, caplog):
    def exchange(dataset):
        class Rows:
            """The dataset, VV and VH of which are exchanged in its third tile."""

            def __getitems__(self, rows):
                found = dataset.__getitems__(rows)
                for tile in found:
                    if tile["id"] == names[2] and "s1" in tile:
                        tile["s1"] = {"VH": tile["s1"]["VV"], "VV": tile["s1"]["VH"]}
                return found

        return Rows()

    plain = options(sample, tmp_path)
    names = load_run_tiles(plain, fits=False).dataset["id"]
    monkeypatch.setattr(
        shards, "embed_batches", lambda m, p, rows, *more, **how: embed_batches(m, p, exchange(rows), *more, **how)
    )
    few = {"alignment": "none", "sensors": "s1"}
    with pytest.raises(ValueError, match=r"1 of 60 tiles could not[\s\S]*are exchanged[\s\S]*--suspect accept"):
        retrieve([str(model)], options(sample, tmp_path, **few))
    monkeypatch.setattr(run_tiles, "MAX_UNREADABLE_SHARE", 0.1)
    with caplog.at_level("WARNING"):
        retrieve([str(model)], options(sample, tmp_path, **few))
    assert "1 of them by a guess" in caplog.text
    assert list(json.loads((tmp_path / "skipped_tiles.json").read_text())["tiles"]) == [names[2]]
    with pytest.raises(ValueError, match="are exchanged"):
        retrieve([str(model)], options(sample, tmp_path, suspect="refuse", **few))
    retrieve([str(model)], options(sample, tmp_path, suspect="accept", **few))
    assert not (tmp_path / "skipped_tiles.json").exists()
    with pytest.raises(ValueError, match="are exchanged"):
        retrieve([str(model)], options(sample, tmp_path, suspect="refuse", **few))


def test_another_k_than_the_archive_has_is_refused_after_embedding(sample, model, tmp_path):
    with pytest.raises(ValueError, match="k=500, but the archive has 12 tiles"):
        retrieve([str(model)], options(sample, tmp_path, k=500, alignment="none"))
    assert np.all([path.stat().st_size for path in tmp_path.glob("embeds/*/*/*.safetensors")])


def test_models_of_one_name_do_not_overwrite_each_other(sample, model, tmp_path):
    assert folder_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert folder_names(["runs/1/final", "./runs/2/final/"]) == ["runs-1-final", "runs-2-final"]
    with pytest.raises(ValueError, match="named twice"):
        retrieve([str(model), str(model)], options(sample, tmp_path))
    (tmp_path / "link").symlink_to(model)
    for other in (f"{model}/", os.path.relpath(model), str(tmp_path / "link")):
        with pytest.raises(ValueError, match="named twice"):
            retrieve([str(model), other], options(sample, tmp_path))


@pytest.fixture(scope="module")
def three(model, tmp_path_factory):
    """Two trainings of one model by their records, and another of another size."""
    root = tmp_path_factory.mktemp("three")
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(model)
        CSMAEModel(config).save_pretrained(root / f"seed{seed}")
        CSMAEImageProcessor().save_pretrained(root / f"seed{seed}")
        (root / f"seed{seed}" / "arguments.yaml").write_text(f"seed: {seed}\nvariant: sesd\noutput_dir: seed{seed}\n")
    return [str(root / "seed1"), str(root / "seed2"), str(model)]


def test_models_are_compared_and_trainings_share_one_protocol(three, sample, tmp_path):
    outcome = retrieve(three, options(sample, tmp_path, untrained=True))
    group = f"{three[0]} and 1 more"
    assert outcome.groups == {group: three[:2], three[2]: three[2:]}
    methods = {name: evaluation.choice.method for name, evaluation in outcome.runs.items()}
    assert methods[three[0]] == methods[three[1]]
    assert {one.model for one in outcome.differences} == {three[2]}
    assert set(outcome.baselines) == {
        f"{group}, untrained",
        f"{three[2]}, untrained",
        "band statistics",
        "labels known",
    }
    assert "standard deviation over its 2 trainings" in outcome.table
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["models"][group]["alignment"] == methods[three[0]]
    for name in three:
        document = json.loads((tmp_path / Path(name).name / "results.json").read_text())
        assert list(document["baselines"]) == ["untrained", "band statistics", "labels known"], "its own alone"
        own = outcome.baselines[f"{group if name in three[:2] else name}, untrained"]
        assert [one["f1_of_means"] for one in document["baselines"]["untrained"]] == [
            one.scores["f1_of_means"] for one in own
        ]
    files = [json.loads((tmp_path / Path(name).name / "results.json").read_text()) for name in three]
    records = [Provenance.from_dict(summary["provenance"][name]) for name in three]
    assert records == [Provenance.from_dict(one["metadata"]["provenance"]) for one in files]
    assert {name for name, *_ in records[0].differences(records[2])} >= {"weights"}
    assert records[0].tiles == records[2].tiles
    for name in ("differences", "classes", "scores"):
        rows = list(csv.DictReader((tmp_path / "tables" / f"{name}.csv").open(newline="")))
        assert {row["alignment"] for row in rows if row["model"] == three[2]} == {methods[three[2]]}
    values = [one["directions"][1]["f1_of_means"] for one in files]
    assert summary["models"][group]["directions"]["s1 -> s2"]["f1_of_means"]["mean"] == pytest.approx(
        np.mean(values[:2])
    )
    # the tables again, from the three files alone, by a script that imports nothing of this package
    differences, scores = table_again(files[:2], files[2:])
    rows = list(csv.DictReader((tmp_path / "tables" / "differences.csv").open(newline="")))
    assert {row["group"] for row in rows} == {"all", "class", "country", "season"}
    for row in rows:
        *found, queries = differences[1, row["direction"], row["group"], row["value"], row["metric"]]
        assert [float(row[name]) for name in ("difference", "lower", "upper")] == pytest.approx(found, abs=1e-6)
        assert int(row["n_queries"]) == queries
    for row in csv.DictReader((tmp_path / "tables" / "scores.csv").open(newline="")):
        if row["model"] in (group, three[2]):
            for metric in headlines():
                found = scores[int(row["model"] == three[2]), row["direction"], metric]
                assert float(row[metric]) == pytest.approx(found[0], abs=1e-6)
                if row["trainings"] == "1":
                    ends = [float(row[f"{metric}_{end}"]) for end in ("lower", "upper")]
                    assert ends == pytest.approx(found[1:], abs=1e-6)
    for row in csv.DictReader((tmp_path / "tables" / "classes.csv").open(newline="")):
        if row["model"] == three[2]:
            found = differences[1, row["direction"], "class", row["class"], "f1_of_means"]
            assert [float(row[name]) for name in ("difference", "lower", "upper")] == pytest.approx(found[:3], abs=1e-6)


class RedAlone:
    """An encoder of one band of Sentinel-2."""

    sensors = {"s2": ["B04"]}  # noqa: RUF012
    width = 2
    provenance_fields = {"version": 1}  # noqa: RUF012

    def embed(self, pixels, sensor):
        return torch.cat([pixels.mean(dim=(2, 3)), pixels.std(dim=(2, 3))], 1)


def test_baselines_are_those_of_all_models_whichever_is_named_first(model, sample, tmp_path):
    ids = load_bigearthnet(str(sample))["id"][:]
    table = {"id": ids, "s1": [[float(number), 1.0] for number in range(len(ids))]}
    pq.write_table(pa.table(table), tmp_path / "s1.parquet")
    others = {"red": RedAlone(), "of a file": FileEncoder({"s1": tmp_path / "s1.parquet"})}
    wanted = {"resamples": 0, "alignment": "none"}
    first = retrieve([], options(sample, tmp_path / "a", **wanted), {**others, "ours": as_encoder(model)})
    alone = retrieve([str(model)], options(sample, tmp_path / "b", **wanted))
    for name in ("band statistics", "labels known"):
        found, expected = (
            {one.name: one.scores["f1_of_means"] for one in outcome.baselines[name]} for outcome in (first, alone)
        )
        assert sorted(found) == ["s1 -> s1", "s1 -> s2", "s2 -> s1", "s2 -> s2"]
        assert found == pytest.approx(expected, abs=1e-6)


def as_encoder(folder):
    """A model of ours as an encoder of any kind."""
    model, processor = load_encoder(str(folder))

    class Ours(torch.nn.Module):
        sensors, width, provenance_fields = processor.sensors, model.config.hidden_size, {"ours": True}

        def __init__(self):
            super().__init__()
            self.model = model

        def embed(self, pixels, sensor):
            return self.model(**{sensor: pixels / 1000}).embeds[sensor]

    return Ours()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, []),
        ({"train_split": "all"}, ["was pre-trained on tiles that are measured here (split all)"]),
        ({"load_best_model_at_end": True, "metric_for_best_model": "f1"}, ["is the best of its run by f1"]),
        ({"load_best_model_at_end": True, "eval_split": "train"}, []),
        ({"load_best_model_at_end": True, "eval_split": "test"}, ["is the best of its run by loss on the split test"]),
        ({"train_split": "all", "data": "/elsewhere/another"}, []),
    ],
)
def test_a_model_that_saw_or_was_chosen_by_the_tiles_is_said_to(record, said, sample, tmp_path):
    (tmp_path / "run").mkdir()
    plain = {"seed": 1, "data": f"/moved/{sample.name}", "train_split": "train", "eval_split": "validation"}
    (tmp_path / "run" / "arguments.yaml").write_text(yaml.safe_dump(plain | record))
    found = training_remarks(str(tmp_path / "run"), ("validation", "test"), str(sample))
    assert len(found) == len(said)
    assert all(words in remark for words, remark in zip(said, found, strict=True))


def test_how_pixels_were_read_and_what_a_model_saw_stand_below_every_table(model, sample, tmp_path):
    shutil.copytree(model, tmp_path / "run")
    record = {"seed": 1, "data": str(sample), "train_split": "all"}
    (tmp_path / "run" / "arguments.yaml").write_text(yaml.safe_dump(record))
    wanted = options(sample, tmp_path / "out", suspect="accept", unusable="skip", resamples=0, alignment="none")
    outcome = retrieve([str(tmp_path / "run")], wanted)
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["metadata"]["read"] == {"suspect": "accept", "unusable": "skip"}
    (remark,) = document["metadata"]["remarks"]
    tables = [(tmp_path / "out" / "tables" / f"{name}.md").read_text() for name in ("scores", "classes")]
    for text in (outcome.table, *tables):
        assert "Pixels were read with --suspect accept, --unusable skip." in text
        assert remark in text


def test_nothing_is_chosen_on_tiles_that_are_reported(three, sample, tmp_path):
    """With queries and archive of the test split, the choice is what it is with any other: training tiles alone made it."""
    here = retrieve(three[:1], options(sample, tmp_path / "a", query_split="test", archive_split="test"))
    there = retrieve(three[:1], options(sample, tmp_path / "b"))
    one, other = (next(iter(outcome.runs.values())).choice for outcome in (here, there))
    assert one.cross_fitted == other.cross_fitted
    assert one.method == other.method


def test_folds_over_scenes_make_every_tile_a_query(three, sample, tmp_path):
    both = {"query_split": "validation", "archive_split": "test"}
    outcome = retrieve(three[:1], options(sample, tmp_path, folds="3", alignment="none,center", **both))
    results = next(iter(outcome.runs.values())).results
    assert {result.n_queries for result in results} == {24}
    document = json.loads((tmp_path / "results.json").read_text())
    assert "3 folds over" in document["protocol"]["folds"]
    assert "3 folds over" in outcome.table
    assert document["metrics"]["intervals"] == "95 % percentile bootstrap over whole scenes"
    assert len(document["queries"]["s1"]["scene"]) == 24
    assert "on scenes it was not fitted on" in document["metadata"]["alignment"]["reason"]
    with pytest.raises(ValueError, match="folds='one'"):
        retrieve(three[:1], options(sample, tmp_path, folds="one"))


def test_no_results_a_query_are_refused_before_anything_is_embedded(model, sample, tmp_path):
    with pytest.raises(ValueError, match="k=0: expected 1 result a query or more"):
        retrieve([str(model)], options(sample, tmp_path, k=0))
    assert not list(tmp_path.iterdir())


def test_results_of_something_else_are_not_replaced_from_python_either(three, sample, tmp_path):
    retrieve(three[:1], options(sample, tmp_path, alignment="none"))
    with pytest.raises(FileExistsError, match="--overwrite"):
        retrieve(three[1:2], options(sample, tmp_path, alignment="none"))
    retrieve(three[1:2], options(sample, tmp_path, alignment="none", overwrite=True))
    assert json.loads((tmp_path / "results.json").read_text())["metadata"]["model"] == three[1]


def test_band_statistics_are_of_pixels_also_beside_embeds_that_come_from_a_file(three, sample, tmp_path):
    ids = load_bigearthnet(sample)["id"][:]
    rng = np.random.default_rng(0)
    for sensor in ("s1", "s2"):
        vectors = rng.normal(size=(len(ids), 8)).astype(np.float32)
        np.savez(tmp_path / f"{sensor}.npz", ids=np.array(ids), embeds=vectors)
    encoder = FileEncoder({sensor: tmp_path / f"{sensor}.npz" for sensor in ("s1", "s2")})
    of_file = retrieve([], options(sample, tmp_path / "a"), {"mine": encoder})
    of_model = retrieve(three[:1], options(sample, tmp_path / "b"))
    scores = [
        {one.name: one.scores["f1_of_means"] for one in outcome.baselines["band statistics"]}
        for outcome in (of_file, of_model)
    ]
    assert scores[0]["s1 -> s1"] == pytest.approx(scores[1]["s1 -> s1"])  # of the same bands, whoever standardised them
    assert set(scores[0]) == set(scores[1])
