"""The model that comes with the package: small, named for what it is, and better than chance and than none at what it is for."""

import json
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

import csmae_hf
from csmae_hf.commands.main import main
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.embedding.identity import Identity
from csmae_hf.hub.check_card import check_card
from csmae_hf.hub.publish_model import PublishOptions, stage_model
from csmae_hf.sample.generate import generate_sample
from csmae_hf.sample.shipped import TINY_GENERATED, TINY_NAME, model_place

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(TINY_GENERATED)


def test_it_is_small_and_all_of_it_is_in_the_wheel() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(sizes.values()) < 3_000_000
    assert [name for name, size in sizes.items() if size > 2**20] == ["model.safetensors"]
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    patterns = settings["options.package_data"]["csmae_hf.sample"].replace(",", " ").split()
    shipped = {path.name for pattern in patterns for path in FOLDER.parent.glob(pattern) if path.parent == FOLDER}
    assert shipped == set(sizes)


def test_its_card_is_true_and_says_generated_loudly() -> None:
    assert check_card(FOLDER) == []
    card = (FOLDER / "README.md").read_text()
    assert "generated" in TINY_NAME
    assert "**Trained on generated scenes, not on satellite images" in card
    assert card.index("Trained on generated scenes") < card.index("## ")
    assert json.loads((FOLDER / "config.json").read_text())["trained_on_generated"] is True


def test_it_is_what_its_recipe_makes() -> None:
    recipe = yaml.safe_load((ROOT / "configs" / "shipped.yaml").read_text())
    config = json.loads((FOLDER / "config.json").read_text())
    assert {name: config[name] for name in recipe["model_overrides"]} == recipe["model_overrides"]
    card = (FOLDER / "README.md").read_text()
    assert f"| epochs | {recipe['num_train_epochs']}" in card
    assert f"| seed | {recipe['seed']} |" in card


def test_it_loads_as_float32_by_name_and_by_folder() -> None:
    assert csmae_hf.TINY_GENERATED == TINY_GENERATED
    model, processor = load_encoder(TINY_NAME)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
    rng = np.random.default_rng(0)
    tile = {band: rng.normal(-12, 3, (120, 120)).astype(np.float32) for band in processor.sensors["s1"]}
    inputs = AutoImageProcessor.from_pretrained(TINY_GENERATED)(s1=tile)
    again = AutoModel.from_pretrained(TINY_GENERATED)
    assert torch.equal(model(**inputs).embeds["s1"], again(**inputs).embeds["s1"])
    assert AutoModelForPreTraining.from_pretrained(TINY_GENERATED).num_parameters() > model.num_parameters()


def test_an_archive_names_it_by_its_name_and_not_by_a_place_of_this_machine() -> None:
    assert Identity.of(*load_encoder(TINY_NAME)).model == TINY_NAME


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_place(TINY_NAME) == TINY_GENERATED
    assert model_place("someone/model") == "someone/model"
    (tmp_path / TINY_NAME).mkdir()
    assert model_place(TINY_NAME) == TINY_NAME


def test_it_finds_the_same_place_by_the_other_sensor_better_than_untrained(tmp_path: Path) -> None:
    """On scenes of a seed that neither its training nor its card took; by chance a twin is among 5 of 60 for 8 % of queries."""
    tiles = load_bigearthnet(generate_sample(tmp_path / "sample", tiles=60, seed=77))
    model, processor = load_encoder(TINY_NAME)
    torch.manual_seed(0)
    shares = []
    for one in (model.eval(), AutoModel.from_config(model.config).eval()):
        s1, s2 = (embed_dataset(one, processor, tiles, sensor, progress=False) for sensor in ("s1", "s2"))
        similar = (s1 / np.linalg.norm(s1, axis=1)[:, None]) @ (s2 / np.linalg.norm(s2, axis=1)[:, None]).T
        shares.append(float(((similar > np.diag(similar)[:, None]).sum(axis=1) < 5).mean()))
    trained, untrained = shares
    assert trained > 0.3
    assert trained > 2 * untrained


def test_pushed_from_anywhere_it_is_still_called_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = stage_model(TINY_NAME, tmp_path / "out", "someone/BigEarthNet-model", PublishOptions(encoder_only=True))
    card = (out / "README.md").read_text()
    assert "Trained on generated scenes" in card
    assert "CDLA" not in card
    assert [finding for finding in check_card(out) if finding.is_error] == []


def test_commands_that_read_a_model_folder_take_its_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    card = (FOLDER / "README.md").read_bytes()
    assert main(["card", TINY_NAME, "--check"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert main(["card", TINY_NAME]) == 0
    assert "generated scenes" in capsys.readouterr().out
    assert main(["card", TINY_NAME, "--write"]) == 2
    assert "comes with the package" in caplog.text
    assert (FOLDER / "README.md").read_bytes() == card
    assert main(["export-original", TINY_NAME, "original.ckpt"]) == 0
    state = torch.load("original.ckpt", weights_only=True)["state_dict"]
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        embedding = weights.get_tensor("csmae.cross_sensor_encoder.layers.0.mlp.fc1.weight")
    assert any(tensor.shape == embedding.shape and torch.equal(tensor, embedding) for tensor in state.values())
