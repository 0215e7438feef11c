"""ONNX files of a pushed model: what a stranger's ONNX Runtime makes of them, and that the card says what was measured."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hub_double import HubDouble
from hub_models import run_python, save_tiny, tiny_fields

from configuration_csmae import CSMAEConfig
from csmae_hf.commands.main import main
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.embedding.identity import Identity
from csmae_hf.hub.onnx_files import export_onnx, write_onnx_files
from csmae_hf.hub.publish_model import PublishOptions, stage_model
from csmae_hf.sample.generate import generate_sample
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[dev]'")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[dev]'")
NAMES = ("model", "model_int8", "model_s1", "model_s1_int8", "model_s2", "model_s2_int8")
BANDS = {"s1": 2, "s2": 10}

LOAD = """
import sys
import numpy as np, onnxruntime
from huggingface_hub import hf_hub_download
assert "torch" not in sys.modules
for name in sys.argv[2:]:
    session = onnxruntime.InferenceSession(hf_hub_download("tester/onnx", f"onnx/{name}.onnx"))
    images = np.load(sys.argv[1])
    found = session.run(None, {one.name: images[one.name] for one in session.get_inputs()})
    np.savez(f"{name}.npz", **dict(zip([one.name for one in session.get_outputs()], found)))
    open(f"{name}.json", "w").write(session.get_modelmeta().custom_metadata_map["csmae_hf.made_with"])
"""


def images_of(batch: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return {name: torch.randn(batch, bands, 120, 120, generator=generator) for name, bands in BANDS.items()}


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CSMAEForPreTraining, Path, str, set[str]]]:
    """A model pushed with its ONNX files, what a stranger got of them for 5 images, its card, and the files after a push without."""
    folder = tmp_path_factory.mktemp("onnx")
    model = save_tiny(folder / "model")
    np.savez(folder / "images.npz", **{name: value.numpy() for name, value in images_of(5).items()})
    with HubDouble() as hub:
        push = "import sys; from csmae_hf.commands.main import main; sys.exit(main(sys.argv[1:]))"
        command = ("push", "model", "tester/onnx", "--onnx", "--int8")
        run = run_python(push, hub.env(folder / "hf", OMP_NUM_THREADS="1"), *command, cwd=folder)
        assert run.returncode == 0, run.stderr
        assert "initializer" not in run.stderr, "the exporter's own log is nobody's business"
        card = hub.files("tester/onnx")["README.md"].decode()
        loaded = run_python(LOAD, hub.env(folder / "other"), str(folder / "images.npz"), *NAMES, cwd=folder)
        assert loaded.returncode == 0, loaded.stderr
        again = run_python(push, hub.env(folder / "hf"), "push", "model", "tester/onnx", cwd=folder)
        assert again.returncode == 0, again.stderr
        yield model, folder, card, set(hub.files("tester/onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stranger_gets_the_models_embeds_from_every_file(pushed, name: str) -> None:
    model, folder, _, _ = pushed
    told, own = json.loads((folder / f"{name}.json").read_text()), Identity.of(*load_encoder(str(folder / "model")))
    assert (told["weights"], told["processor"], told["config"]) == (own.weights, own.processor, own.config)
    found = np.load(folder / f"{name}.npz")
    sensors = [sensor for sensor in BANDS if sensor in name] or list(BANDS)
    assert set(found) == {f"embeds.{sensor}" for sensor in sensors}
    with torch.no_grad():
        expected = model.csmae(**images_of(5)).embeds
    for sensor in sensors:
        embeds = torch.from_numpy(found[f"embeds.{sensor}"])
        if "int8" in name:
            assert 0.99 < F.cosine_similarity(embeds, expected[sensor]).min() < 1
        else:
            torch.testing.assert_close(embeds, expected[sensor], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_card_says_what_each_file_was_measured_to_do_and_a_push_without_takes_them_away(pushed) -> None:
    _, _, card, left = pushed
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| onnx/")]
    assert [row[0] for row in rows] == [f"| onnx/{name}.onnx" for name in NAMES]
    for name, row in zip(NAMES, rows, strict=True):
        lowest, mean, kept = float(row[4]), float(row[5]), float(row[6].rstrip("% |"))
        assert 0.99 < lowest <= mean <= 1
        assert (lowest, kept) == (1, 100) or "int8" in name
        assert kept > 80
    assert "on 64 generated tiles" in card
    assert not [name for name in left if name.startswith("onnx/")]


@pytest.mark.slow
def test_a_classifiers_file_gives_logits_of_any_batch_and_says_nothing_of_this_machine(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CSMAEConfig.for_variant("sesd", "tiny", **tiny_fields("sesd"), num_labels=3)
    model = CSMAEForImageClassification(config).eval()
    path = export_onnx(model, ["s1", "s2"], tmp_path / "model.onnx")
    session = runtime.InferenceSession(path)
    for batch in (1, 4):
        images = images_of(batch)
        (logits,) = session.run(["logits"], {name: value.numpy() for name, value in images.items()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(**images).logits, atol=1e-4, rtol=1e-4)
    content = path.read_bytes()
    for trace in (b".py", str(tmp_path).encode(), os.fsencode(Path(torch.__file__).parent)):
        assert trace not in content


def test_what_is_missing_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    save_tiny(tmp_path / "model")
    out = str(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["push", str(tmp_path / "model"), "me/x", "--int8", "--dry-run", out]) == 2
    assert caplog.messages == ["csmae: ONNX files need onnxruntime: pip install onnxruntime"]


def test_a_sensor_that_no_sample_has_is_measured_on_given_tiles_only(tmp_path: Path, monkeypatch) -> None:
    sensors = {"s1": ["VV", "VH"], "thermal": ["T10"]}
    config = CSMAEConfig.for_variant("sesd", "tiny", **tiny_fields("sesd"), sensors=sensors)
    processor = CSMAEImageProcessor(sensors=sensors, band_mean={"T10": 290.0}, band_std={"T10": 10.0})
    monkeypatch.setattr("csmae_hf.hub.onnx_files.export_onnx", lambda model, sensors, path: path)
    with pytest.raises(ValueError, match=r"No tiles of thermal \(T10\) can be generated.*--data"):
        write_onnx_files(CSMAEModel(config), processor, tmp_path)
    few = generate_sample(tmp_path / "few", tiles=10, seed=0)
    with pytest.raises(ValueError, match="has 10 tiles: more than 10"):
        write_onnx_files(CSMAEModel(config), processor, tmp_path, data=few)


def test_the_same_folder_is_staged_without_onnx_unless_asked(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    root = stage_model(tmp_path / "model", tmp_path / "out", "me/x", PublishOptions())
    assert not (root / "onnx").exists()
    assert "ONNX" not in (root / "README.md").read_text()
