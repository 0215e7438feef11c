"""A published folder runs where nothing of this project is installed: in a separate process that cannot import it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from configuration_csmae import CSMAEConfig
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

CODE = (
    "configuration_csmae.py",
    "image_checks_csmae.py",
    "image_processing_csmae.py",
    "modeling_csmae.py",
    "pipeline_csmae.py",
)

CHILD = '''
import sys

PROJECT = {"csmae_hf", "configuration_csmae", "modeling_csmae", "image_processing_csmae", "image_checks_csmae", "pipeline_csmae"}


class Blocker:
    """Makes the project unimportable, although it is installed in this environment."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in PROJECT:
            raise ImportError(f"{name} is blocked")
        return None


sys.meta_path.insert(0, Blocker())

import importlib
import json
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForPreTraining

folder, tiles, result, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
report = {"importable": [], "refusals": {}}
for name in sorted(PROJECT):
    try:
        importlib.import_module(name)
        report["importable"].append(name)
    except ImportError:
        pass
for auto in (AutoModel, AutoModelForPreTraining, AutoImageProcessor):
    try:
        auto.from_pretrained(folder)
    except Exception as error:
        report["refusals"][auto.__name__] = f"{type(error).__name__}: {error}"

trusted = {"trust_remote_code": True}
processor = AutoImageProcessor.from_pretrained(folder, **trusted)
model = AutoModel.from_pretrained(folder, **trusted).eval()
pretraining = AutoModelForPreTraining.from_pretrained(folder, **trusted).eval()
config = AutoConfig.from_pretrained(folder, **trusted)
with np.load(tiles) as bands:
    inputs = processor(
        s1={band: bands[band] for band in processor.sensors["s1"]},
        s2={band: bands[band] for band in processor.sensors["s2"]},
        return_tensors="pt",
    )
with torch.no_grad():
    embeds = model(**inputs).embeds
    trained = pretraining(**inputs)
tensors = {f"embeds_{sensor}": value for sensor, value in embeds.items()}
tensors.update({f"pixels_{sensor}": value.contiguous() for sensor, value in inputs.items()})
tensors["loss"] = trained.loss
save_file(tensors, result + ".safetensors")
report["classes"] = [type(thing).__name__ for thing in (config, processor, model, pretraining)]
report["modules"] = [type(thing).__module__.split(".")[0] for thing in (config, processor, model, pretraining)]
report["variant"] = config.variant
with open(result + ".json", "w") as file:
    json.dump(report, file)
'''


@dataclass
class Published:
    """What was published, and what a stranger's process made of it."""

    folder: Path
    model: CSMAEForPreTraining
    pixels: dict[str, torch.Tensor]
    report: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def draw_tile() -> dict[str, np.ndarray]:
    """Bands of one tile at their native sizes, in the types of BigEarthNet v2."""
    generator = np.random.default_rng(0)
    tile: dict[str, np.ndarray] = {
        band: generator.normal(-15, 4, (120, 120)).astype(np.float32) for band in ("VH", "VV")
    }
    sizes = {**dict.fromkeys(("B02", "B03", "B04", "B08"), 120)}
    sizes.update(dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 60))
    tile.update({band: generator.integers(50, 5000, (size, size), dtype=np.uint16) for band, size in sizes.items()})
    return tile


def run_as_stranger(code: str, base: Path, *arguments: str) -> str:
    """Run code where nothing of the project is on the path; return what it printed."""
    finished = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments],
        cwd=base,
        env={
            **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_MODULES_CACHE")},
            "HF_HOME": str(base / "hf"),
            "HF_HUB_OFFLINE": "1",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    base = tmp_path_factory.mktemp("remote")
    folder = base / "csmae-sesd-v1.0"  # a dot in the name, as real repositories have
    torch.manual_seed(0)
    config = CSMAEConfig.for_variant(
        "sesd",
        size="tiny",
        hidden_size=32,
        num_attention_heads=2,
        multi_sensor_encoder_depth=1,
        cross_sensor_encoder_depth=1,
        decoder_hidden_size=16,
        decoder_num_attention_heads=2,
        decoder_num_hidden_layers=1,
    )
    model = CSMAEForPreTraining(config).eval()
    model.save_pretrained(folder)
    processor = CSMAEImageProcessor(transpose=True, band_mean={"VV": -11.5})
    processor.save_pretrained(folder)
    tile = draw_tile()
    np.savez(base / "tile.npz", **tile)  # type: ignore[arg-type]
    tile_path, result, threads = str(base / "tile.npz"), str(base / "result"), str(torch.get_num_threads())
    run_as_stranger(CHILD, base, str(folder), tile_path, result, threads)
    return Published(
        folder=folder,
        model=model,
        pixels=dict(processor(s1=tile, s2=tile, return_tensors="pt")),
        report=json.loads((base / "result.json").read_text()),
        tensors=load_file(base / "result.safetensors"),
    )


def test_folder_holds_code_beside_weights_and_no_pickle(published: Published) -> None:
    files = {path.name for path in published.folder.iterdir()}
    assert files >= {"config.json", "model.safetensors", "preprocessor_config.json", *CODE}
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    for name in CODE:
        source = Path(__file__).resolve().parents[1] / name
        assert (published.folder / name).read_text() == source.read_text()


def test_processor_names_its_class_in_the_folder(published: Published) -> None:
    saved = json.loads((published.folder / "preprocessor_config.json").read_text())
    assert saved["auto_map"] == {"AutoImageProcessor": "image_processing_csmae.CSMAEImageProcessor"}
    assert saved["image_processor_type"] == "CSMAEImageProcessor"


def test_nothing_of_the_project_is_importable_there(published: Published) -> None:
    assert published.report["importable"] == []
    assert published.report["modules"] == ["transformers_modules"] * 4


def test_auto_classes_find_the_right_classes(published: Published) -> None:
    classes = ["CSMAEConfig", "CSMAEImageProcessor", "CSMAEModel", "CSMAEForPreTraining"]
    assert published.report["classes"] == classes
    assert published.report["variant"] == "sesd"


def test_same_pixels_same_embeds_bit_by_bit(published: Published) -> None:
    with torch.no_grad():
        embeds = published.model.csmae(**published.pixels).embeds
    for sensor in ("s1", "s2"):
        assert torch.equal(published.tensors[f"pixels_{sensor}"], published.pixels[sensor])
        assert torch.equal(published.tensors[f"embeds_{sensor}"], embeds[sensor])
        assert embeds[sensor].std() > 0.1, "and they are not all alike"


def test_same_loss_bit_by_bit(published: Published) -> None:
    with torch.no_grad():
        loss = published.model(**published.pixels).loss
    assert torch.equal(published.tensors["loss"], loss)


@pytest.mark.parametrize("auto_class", ["AutoModel", "AutoModelForPreTraining", "AutoImageProcessor"])
def test_without_trust_nothing_is_loaded(published: Published, auto_class: str) -> None:
    refusal = published.report["refusals"][auto_class]
    assert refusal.startswith("ValueError")
    assert "trust_remote_code=True" in refusal


TWO_FOLDERS = (
    CHILD[: CHILD.index("import importlib")]
    + """
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining, pipeline

for folder in sys.argv[1:]:
    loaded = [auto.from_pretrained(folder, trust_remote_code=True) for auto in (AutoModel, AutoModelForPreTraining)]
    pipe = pipeline("image-feature-extraction", model=folder, trust_remote_code=True)
    for one in (*loaded, AutoImageProcessor.from_pretrained(folder, trust_remote_code=True), pipe, pipe.model):
        print(getattr(sys.modules[type(one).__module__], "EDITION", "first"))
"""
)


def test_folders_of_one_name_each_run_their_own_code(published: Published, tmp_path: Path) -> None:
    """Transformers keeps one model class a configuration class, whose own file is the same in all."""
    folders = [tmp_path / name / "checkpoint" for name in ("first", "second", "third")]
    for folder in folders:
        shutil.copytree(published.folder, folder)
        for name in ("modeling_csmae.py", "image_processing_csmae.py", "pipeline_csmae.py"):
            with (folder / name).open("a") as file:
                file.write(f"\nEDITION = {folder.parent.name!r}\n")
    places = [*folders, folders[0]]
    expected = [folder.parent.name for folder in places for _ in range(5)]
    assert run_as_stranger(TWO_FOLDERS, tmp_path, *map(str, places)).split() == expected


PIPELINES = (
    CHILD[: CHILD.index("import importlib")]
    + """
import json
import numpy as np
import torch
from PIL import Image
from transformers import pipeline

folder, tiles, out = sys.argv[1:]
with np.load(tiles) as stored:
    tile = {band: stored[band] for band in stored.files}
report = {}
pipe = pipeline("image-feature-extraction", model=folder, trust_remote_code=True, device="cpu")
report["class"] = [type(pipe).__name__, type(pipe).__module__.split(".")[0]]
report["embeds"] = pipe(tile, pool=True)
report["tokens"] = list(np.shape(pipe({"s2": tile})))
report["batched"] = [pipe([{"s2": tile}] * 3, batch_size=2, pool=True), pipe(iter_ for iter_ in [{"s2": tile}]).__class__.__name__]
half = pipeline(model=folder, trust_remote_code=True, dtype=torch.bfloat16)
report["untold"] = [type(half).__name__, str(half(tile, pool=True, return_tensors=True)["s1"].dtype)]
report["refused"] = {}
for name, image in {"path": "tile.tif", "jpg": "a/b.JPG", "url": "https://x.org/a.tif", "pil": Image.new("RGB", (8, 8))}.items():
    try:
        pipe(image)
    except (ValueError, ImportError) as error:
        report["refused"][name] = f"{type(error).__name__}: {error}"
pipe.model.save_pretrained(out)
report["saved"] = json.load(open(out + "/config.json"))["custom_pipelines"]
print(json.dumps(report))
"""
)


def test_pipelines_take_bands_at_a_strangers(published: Published, tmp_path: Path) -> None:
    np.savez(tmp_path / "tile.npz", **draw_tile())  # type: ignore[arg-type]
    paths = str(published.folder), str(tmp_path / "tile.npz"), str(tmp_path / "saved")
    report = json.loads(run_as_stranger(PIPELINES, tmp_path, *paths).splitlines()[-1])
    assert report["class"] == ["CSMAEImageFeatureExtractionPipeline", "transformers_modules"]
    with torch.no_grad():
        expected = published.model.csmae(**published.pixels).embeds
    assert list(report["embeds"]) == ["s1", "s2"]
    for sensor, embeds in report["embeds"].items():
        np.testing.assert_allclose(embeds, expected[sensor].numpy(), atol=1e-6)
    assert report["tokens"] == [1, 1 + published.model.config.num_patches, 32]
    np.testing.assert_allclose(report["batched"][0], expected["s2"].numpy()[None].repeat(3, 0), atol=1e-5)
    assert report["untold"] == ["CSMAEImageFeatureExtractionPipeline", "torch.bfloat16"]
    assert "pip install '.[geo]'" in report["refused"].pop("path")
    assert set(report["refused"]) == {"jpg", "url", "pil"}
    for message in report["refused"].values():
        assert message.startswith("ValueError")
        assert "s2: B02, B03" in message, "it says what to give"
    assert report["saved"]["image-feature-extraction"]["pt"] == ["AutoModel"], "Transformers writes classes into it"
