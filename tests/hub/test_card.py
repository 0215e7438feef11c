"""Cards: valid to the Hub's own client, true to the files they are written from, silent on the rest."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_double import HubDouble
from hub_models import run_python, save_tiny
from huggingface_hub import ModelCard, ModelCardData
from tiny_models import TWO_SENSORS, tiny_config
from transformers.utils import PushToHubMixin

from csmae_hf.embedding.without_paths import without_paths
from csmae_hf.evaluation.trainings import change_line
from csmae_hf.hub.card import collection_card, model_card
from csmae_hf.hub.facts import read_facts
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

Facts = dict[str, Any]

VALIDATE = """
import sys
from pathlib import Path
from huggingface_hub import DatasetCard, ModelCard
for name in sys.argv[1:]:
    kind = DatasetCard if "archive" in name else ModelCard
    kind(Path(name).read_text()).validate()
print("valid")
try:
    ModelCard("---\\npipeline_tag: [1]\\n---\\n").validate()
except ValueError:
    print("and the validator can refuse")
"""


def direction(query: str, archive: str, value: float) -> dict[str, Any]:
    return {
        "query_sensor": query,
        "archive_sensor": archive,
        "k": 10,
        "n_queries": 40,
        "n_archive": 50,
        "precision": value,
        "recall": value + 0.01,
        "f1_of_means": value + 0.02,
        "mean_pair_f1": value + 0.03,
        "random": {"mean": {"f1_of_means": 0.2184}},
        "intervals": {"f1_of_means": {"lower": value, "upper": value + 0.04}},
    }


RESULTS = {
    "protocol": {"k": 10, "query_split": "validation", "archive_split": "test"},
    "metrics": {"intervals": "95 % percentile bootstrap over queries"},
    "metadata": {"model": "/home/someone/runs/model", "data": "BigEarthNet"},
    "directions": [
        direction(a, b, 0.3 + 0.1 * i) for i, (a, b) in enumerate([("s1", "s1"), ("s1", "s2"), ("s2", "s1")])
    ],
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "run"
    model = save_tiny(folder)
    model.config.trained_on_generated = False  # as pre-training writes it
    model.config.save_pretrained(folder)
    settings = {"data": "/home/someone/BigEarthNet", "train_split": "train", "learning_rate": 1e-4, "seed": 42}
    settings |= {"num_train_epochs": 150, "flips": True, "max_steps": -1, "hub_token": "hf_SecretSecretSecret"}
    changed = change_line((1500, {"max_grad_norm": 0.0, "save_steps": 500, "data": "/home/someone/before"}))
    (folder / "arguments.yaml").write_text(changed + yaml.safe_dump(settings))
    (folder / "trainer_state.json").write_text(
        json.dumps({"epoch": 150.0, "global_step": 3000, "log_history": [{"loss": 2.5}, {"loss": 1.23456}]})
    )
    (folder / "train_results.json").write_text(json.dumps({"train_runtime": 7384.2, "train_tiles": 269695}))
    (folder / "hardware.json").write_text(json.dumps({"device": "Some GPU", "processes": 4}))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    return folder


def facts_of(folder: Path) -> Facts:
    results = folder / "results.json"
    model = CSMAEForPreTraining.from_pretrained(folder)
    processor = CSMAEImageProcessor.from_pretrained(folder)
    return read_facts(folder, model, processor, results=results if results.is_file() else None)


@pytest.fixture(scope="module")
def facts(run_folder: Path) -> Facts:
    return {**facts_of(run_folder), "license": "cc-by-4.0", "datasets": ("tester/tiles",)}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    folder = tmp_path_factory.mktemp("bare")
    save_tiny(folder)
    return facts_of(folder)


def test_the_hubs_validator_takes_every_card(hub: HubDouble, facts: Facts, bare: Facts, tmp_path: Path) -> None:
    cards = {
        "full.md": model_card(facts, "me/full", picture="example.png"),
        "bare.md": model_card(bare, "me/bare"),
        "all.md": collection_card(facts, "me/all"),
    }
    for name, text in cards.items():
        (tmp_path / name).write_text(text)
    checked = run_python(VALIDATE, hub.env(tmp_path / "hf"), *cards, cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.splitlines() == ["valid", "and the validator can refuse"]


def test_metadata_survive_the_clients_own_reading(facts: Facts) -> None:
    data = ModelCard(model_card(facts, "me/full")).data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "image-feature-extraction",
        "cc-by-4.0",
    )
    assert data.datasets == ["tester/tiles"]
    assert {"sentinel-1", "sentinel-2", "arxiv:2401.07782", "custom_code"} <= set(data.tags)
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    assert len(values) == 12
    assert values["F1@10 of the means, s1 to s2"] == pytest.approx(0.42)
    again = ModelCardData(
        **{key: value for key, value in data.to_dict().items() if key != "model-index"}, model_name="full"
    )
    again.eval_results = data.eval_results
    assert again.to_dict()["model-index"] == data.to_dict()["model-index"]


def test_what_was_measured_is_there(facts: Facts) -> None:
    card = model_card(facts, "me/full", picture="example.png")
    for line in (
        "| s1 | 0 | VH | backscatter in dB | 10 m | -19.2904 | 5.46443 |",
        "| s2 | 4 | B05 | digital numbers, reflectance x 10000 | 20 m | 950.684 | 729.898 |",
        "| data | BigEarthNet, split train |",
        "| tiles | 269695 |",
        "| steps made | 3000 |",
        "| loss at the end | 1.2346 |",
        "| changed on the way | until step 1500 max_grad_norm = 0.0, until step 1500 data = ",
        "| duration | 2 h 3 min |",
        "| device | Some GPU |",
        "| s1 → s2 | 0.4000 | 0.4100 | 0.4200 [0.4000, 0.4400] | 0.4300 | 0.2184 |",
        "40 queries of the validation split against 50 tiles of the test split",
        "In brackets: 95 % percentile bootstrap over queries.",
        "* Weights: cc-by-4.0, as their publisher says.",
        "BigEarthNet, CDLA-Permissive-1.0",
        "![Retrieval examples](example.png)",
        "doi     = {10.1109/TGRS.2024.3517150}",
    ):
        assert line in card
    assert "hf_Secret" not in card
    assert "/home" not in card
    assert "steps at most" not in card


def test_what_nobody_measured_is_not(bare: Facts) -> None:
    card = model_card(bare, "me/bare")
    for heading in ("## How it was trained", "## Retrieval across sensors", "## Where the weights are from", "!["):
        assert heading not in card
    metadata = ModelCard(card).data.to_dict()
    assert not {"license", "datasets", "model-index", "model_name"} & set(metadata)
    assert "their publisher has not said any" in card
    for empty in ("None", "nan", "More Information", "{", "TODO"):
        assert empty not in card.split("## Load it")[0]


def test_generated_tiles_are_called_generated(run_folder: Path, facts: Facts) -> None:
    made = {**facts, "synthetic": True}
    card = model_card(made, "me/full")
    assert "Trained on generated scenes" in card
    assert "| data | synthetic sample archive, split train |" in card
    assert "CDLA" not in card


@pytest.mark.parametrize(
    ("data", "generated"), [("sample", True), ("synthetic sample archive", True), ("tiles", False)]
)
def test_results_on_a_sample_archive_say_so(tmp_path: Path, facts: Facts, data: str, generated: bool) -> None:
    for name in ("sample", "tiles"):
        (tmp_path / name).mkdir()
    (tmp_path / "sample" / "sample.json").write_text("{}")
    data = str(tmp_path / data) if " " not in data else data
    (tmp_path / "results.json").write_text(json.dumps({**RESULTS, "metadata": {"data": data}}))
    model = CSMAEForPreTraining(facts["config"])
    card = model_card(read_facts(tmp_path, model, facts["processor"], results=tmp_path / "results.json"), "me/x")
    assert ("these numbers say nothing of real land" in card) is generated
    assert str(tmp_path) not in card


@pytest.mark.parametrize("said", [True, None])
def test_what_the_data_were_called_proves_nothing(tmp_path: Path, said: bool | None) -> None:
    """A sample in a folder named BigEarthNet-x, pushed from where that folder is not: the weights say it, or nobody knows."""
    model = save_tiny(tmp_path)
    if said is not None:
        model.config.trained_on_generated = said
        model.save_pretrained(tmp_path)
    (tmp_path / "arguments.yaml").write_text("data: elsewhere/BigEarthNet-x\n")
    card = model_card(facts_of(tmp_path), "me/x")
    assert ("Trained on generated scenes" in card) is bool(said)
    assert "CDLA" not in card


def test_the_fields_of_geo_embeddings_are_there(facts: Facts) -> None:
    data = ModelCard(model_card(facts, "me/full")).data.to_dict()
    expected = {
        "provider": "me",
        "embedding_spatial_types": ["patch"],
        "embedding_temporal_type": ["single-date"],
        "embedding_dimension": 32,
        "precomputed_embeddings": "no",
    }
    assert {name: data.get(name) for name in expected} == expected
    assert data["pretraining"]["product_names"] == ["sentinel-1-grd", "sentinel-2-l2a"]
    assert "cautions" not in data
    assert "inference" not in data, "which is another field to the Hub"
    made = ModelCard(model_card({**facts, "synthetic": True, "provider": "A lab"}, "me/full")).data.to_dict()
    assert made["provider"] == "A lab"
    assert "generated" in made["cautions"]
    assert "product_names" not in made["pretraining"], "generated scenes are no product"


@pytest.mark.parametrize(
    ("start", "found"),
    [("someone/csmae-sesd", "someone/csmae-sesd"), ("/home/someone/runs/model", None), ("runs/a/model", None)],
)
def test_a_base_model_is_named_by_its_name_on_the_hub(tmp_path: Path, start: str, found: str | None) -> None:
    save_tiny(tmp_path)
    (tmp_path / "arguments.yaml").write_text(f"data: tiles\nmodel_name_or_path: {start}\n")
    data = ModelCard(model_card(facts_of(tmp_path), "me/x")).data.to_dict()
    assert data.get("base_model") == found
    assert data.get("base_model_relation") == ("finetune" if found else None)


def test_a_base_model_of_an_earlier_card_is_kept(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "README.md").write_text("---\nbase_model: someone/base\n---\n# x\n")
    assert "base_model: someone/base" in model_card(facts_of(tmp_path), "me/x")


def test_an_alignment_is_named_beside_its_numbers(facts: Facts) -> None:
    results = {**facts["results"], "metadata": {"alignment": {"method": "procrustes"}}}
    assert "aligned (procrustes); `alignment.safetensors`" in model_card({**facts, "results": results}, "me/x")
    assert "aligned" not in model_card(facts, "me/x")


def test_an_encoder_says_that_training_cannot_go_on(facts: Facts) -> None:
    assert "The decoders are included" in model_card(facts, "me/x")
    assert "the decoders are not included" in model_card({**facts, "has_decoders": False}, "me/x")


def test_a_conversion_is_reported(facts: Facts) -> None:
    report = {
        "source": {"file": "csmae.ckpt", "sha256": "abc"},
        "self_check": {"equal_tensors": 88},
        "warnings": ["the YAML says one thing, the weights another"],
    }
    card = model_card({**facts, "conversion": report}, "me/x")
    assert "`csmae.ckpt` (sha256 `abc`)" in card
    assert "88 tensors equal the source's bit for bit" in card
    assert "Note: the YAML says one thing, the weights another." in card


def test_paths_of_a_machine_become_their_last_part() -> None:
    value = {"data": "/home/me/BigEarthNet", "also": ["C:\\data\\tiles", "relative/path", 3], "root": "/"}
    assert without_paths(value) == {"data": "BigEarthNet", "also": ["tiles", "relative/path", 3], "root": "/"}


@pytest.mark.parametrize(
    "path",
    [
        "../tiles",
        "../../home/me/tiles",
        "./../tiles",
        "~/data/tiles",
        "~me/tiles",
        "..\\me\\tiles",
        "file:///home/me/tiles",
    ],
)
def test_paths_that_leave_the_working_folder_are_of_the_machine_too(path: str) -> None:
    assert without_paths({"data": path}) == {"data": "tiles"}


@pytest.mark.parametrize("name", ["runs/seed42", "owner/name", "..", "~", "3 ~ 4/5", "a..b/c", "S2 .. S1"])
def test_names_and_folders_below_stay(name: str) -> None:
    assert without_paths(name) == name


@pytest.mark.parametrize("generated", [True, False, None])
def test_the_card_of_a_plain_push_to_hub_says_generated(
    generated: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CSMAEModel(tiny_config())
    model.config.trained_on_generated = generated
    monkeypatch.setattr(PushToHubMixin, "_upload_modified_files", lambda *_, **__: None)
    (tmp_path / "README.md").write_text("[More Information Needed]")
    model._upload_modified_files(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert f"* s1: {', '.join(TWO_SENSORS['s1'])}" in card
    assert ("Trained on generated scenes" in card) is bool(generated)
