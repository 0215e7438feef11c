"""Loading a checkpoint for some of its sensors and bands, by name."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import build, draw_images, draw_noise, tiny_config
from transformers import AutoModel, AutoModelForPreTraining

import csmae_hf  # noqa: F401 (registers the Auto classes)
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

FEWER = {"s2": ["B04", "B02"]}
REORDERED = {"s2": ["B03", "B04", "B02"], "s1": ["VV", "VH"]}


@pytest.fixture(params=["sesd", "cecd"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    model = build(CSMAEForPreTraining, tiny_config(request.param))
    model.save_pretrained(tmp_path)
    return model, tmp_path


def pick(images: torch.Tensor, available: list[str], wanted: list[str]) -> torch.Tensor:
    return torch.stack([images[:, available.index(band)] for band in wanted], dim=1)


@pytest.mark.parametrize("loader", [CSMAEModel, AutoModel])
def test_left_out_bands_count_as_their_mean(checkpoint: tuple[Any, Path], loader: Any) -> None:
    whole, folder = checkpoint
    model = loader.from_pretrained(folder, sensors=FEWER)
    images = draw_images(whole.config)["s2"]
    blanked = images.clone()
    blanked[:, 1] = 0  # B03 of B02, B03, B04
    embeds = model(s2=images[:, [2, 0]]).embeds["s2"]
    torch.testing.assert_close(embeds, whole.csmae(s2=blanked).embeds["s2"], atol=1e-5, rtol=1e-5)


def test_only_the_wanted_sensors_are_left(checkpoint: tuple[Any, Path]) -> None:
    _, folder = checkpoint
    model = CSMAEModel.from_pretrained(folder, sensors=FEWER)
    assert model.config.sensors == FEWER
    assert not [name for name, _ in model.named_parameters() if "s1" in name]
    assert model.embeddings["s2"].projection.weight.shape == (32, 2, 4, 4)
    with pytest.raises(ValueError, match="Unknown sensor 's1'"):
        model(s1=torch.zeros(1, 2, 16, 16))
    with pytest.raises(ValueError, match="B04, B02"):
        model(s2=torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("loader", [CSMAEForPreTraining, AutoModelForPreTraining])
def test_reordered_bands_give_the_same_loss_and_reordered_predictions(
    checkpoint: tuple[Any, Path], loader: Any
) -> None:
    whole, folder = checkpoint
    model = loader.from_pretrained(folder, sensors=REORDERED)
    images, noise = draw_images(whole.config), draw_noise(whole.config)
    wanted = {s: pick(images[s], whole.config.sensors[s], REORDERED[s]) for s in images}
    expected, found = whole(**images, noise=noise), model(**wanted, noise=noise)
    torch.testing.assert_close(found.loss, expected.loss)
    for source in images:
        pixels = expected.predictions[source]["s2"].reshape(4, 16, 4, 4, 3)  # (row, column, band)
        torch.testing.assert_close(
            found.predictions[source]["s2"].reshape(4, 16, 4, 4, 3), pixels[..., [1, 2, 0]], atol=1e-5, rtol=1e-5
        )


def test_fewer_bands_are_predicted_as_by_the_whole_model(checkpoint: tuple[Any, Path]) -> None:
    whole, folder = checkpoint
    model = CSMAEForPreTraining.from_pretrained(folder, sensors={"s1": ["VH", "VV"], **FEWER})
    images, noise = draw_images(whole.config), draw_noise(whole.config)
    expected = whole(**images, noise=noise).predictions["s1"]["s2"].reshape(4, 16, 16, 3)[..., [2, 0]]
    found = model(s1=images["s1"], s2=images["s2"][:, [2, 0]], noise=noise).predictions["s1"]["s2"]
    torch.testing.assert_close(found.reshape(4, 16, 16, 2), expected, atol=1e-5, rtol=1e-5)


def test_one_sensor_of_a_pretraining_checkpoint_trains_on(checkpoint: tuple[Any, Path]) -> None:
    _, folder = checkpoint
    model = CSMAEForPreTraining.from_pretrained(folder, sensors=FEWER).train()
    outputs = model(s2=torch.randn(3, 2, 16, 16))
    outputs.loss.backward()
    assert set(outputs.losses) == {"umr_s2"}
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"csmae.fc_norm.weight", "csmae.fc_norm.bias"}  # nothing compares embeds of one sensor


def test_classifier_takes_fewer_bands(checkpoint: tuple[Any, Path]) -> None:
    _, folder = checkpoint
    model = CSMAEForImageClassification.from_pretrained(folder, sensors=FEWER, num_labels=5)
    assert model(s2=torch.zeros(2, 2, 16, 16)).logits.shape == (2, 5)


def test_saved_selection_loads_as_any_checkpoint(checkpoint: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = checkpoint
    model = CSMAEForPreTraining.from_pretrained(folder, sensors=REORDERED | FEWER)
    model.save_pretrained(tmp_path / "kept")
    again, info = CSMAEForPreTraining.from_pretrained(tmp_path / "kept", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert again.config.sensors == {"s1": ["VV", "VH"], "s2": ["B04", "B02"]}
    images = draw_images(again.config)
    assert torch.equal(again(**images).loss, model(**images).loss)


@pytest.mark.parametrize(
    ("sensors", "message"),
    [
        ({"s2": ["B04", "B8A", "B99"]}, r"Unknown band 'B8A', 'B99' of s2: the checkpoint has .*B02, B03, B04"),
        ({"s3": ["B04"]}, r"Unknown sensor 's3': the checkpoint has s1 \(VH, VV\)"),
        ({"s2": ["B04", "B04"]}, "each band once"),
        ({"s2": []}, "at least one band"),
        ({"s2": "B04"}, "must list"),
        ({}, "Unknown sensor"),
    ],
)
def test_what_the_checkpoint_lacks_is_refused_by_name(tmp_path: Path, sensors: dict, message: str) -> None:
    build(CSMAEModel, tiny_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        CSMAEModel.from_pretrained(tmp_path, sensors=sensors)


@pytest.mark.parametrize("loader", [CSMAEModel, AutoModel])
def test_band_of_another_name_never_takes_a_kernel_by_place(tmp_path: Path, loader: Any) -> None:
    model = build(CSMAEModel, tiny_config())
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Unknown band 'B08'"):
        loader.from_pretrained(tmp_path, config=tiny_config(sensors={"s2": ["B02", "B03", "B08"]}))
    swapped = loader.from_pretrained(tmp_path, config=tiny_config(sensors=REORDERED))
    kernel = model.embeddings["s2"].projection.weight
    assert torch.equal(swapped.embeddings["s2"].projection.weight, kernel[:, [1, 2, 0]])


def test_other_bands_start_anew_where_asked(tmp_path: Path) -> None:
    model = build(CSMAEModel, tiny_config())
    model.save_pretrained(tmp_path)
    config = tiny_config(sensors={"s1": ["VH", "VV"], "s2": ["B02", "B03", "B04", "B08"]})
    wider = CSMAEModel.from_pretrained(tmp_path, config=config, ignore_mismatched_sizes=True)
    assert torch.equal(wider.embeddings["s1"].projection.weight, model.embeddings["s1"].projection.weight)
    kernel = wider.embeddings["s2"].projection.weight
    bound = (6 / (32 + 4 * 16)) ** 0.5
    assert kernel.shape[1] == 4
    assert 0.9 * bound < kernel.abs().max() <= bound


def test_selection_keeps_dtype_frozen_weights_and_attention(tmp_path: Path) -> None:
    build(CSMAEModel, tiny_config()).save_pretrained(tmp_path)
    model = CSMAEModel.from_pretrained(
        tmp_path, sensors=FEWER, dtype=torch.bfloat16, attn_implementation="eager", device_map="cpu"
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"
    assert not model.training
    model.requires_grad_(False)
    model.keep_bands({"s2": ["B02"]})
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_other_overrides_still_apply(tmp_path: Path) -> None:
    build(CSMAEForPreTraining, tiny_config()).save_pretrained(tmp_path)
    for loader in (CSMAEForPreTraining, AutoModelForPreTraining):
        model = loader.from_pretrained(tmp_path, sensors=REORDERED, mask_ratio=0.75, image_size=32)
        assert (model.config.mask_ratio, model.config.image_size) == (0.75, 32)
        assert model.csmae.positions.table.shape[1] == 65


CHILD = """
import json, sys
import torch
from transformers import AutoModel

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("csmae_hf", "configuration_csmae", "modeling_csmae", "image_processing_csmae"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
torch.set_num_threads(1)
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, sensors={"s2": ["B04", "B02"]})
print(json.dumps(model(s2=torch.ones(1, 2, 16, 16)).embeds["s2"].tolist()))
"""


def test_bands_by_name_work_with_remote_code(tmp_path: Path) -> None:
    model = build(CSMAEModel, tiny_config())
    model.save_pretrained(tmp_path / "model")
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "model")],
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **home},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert child.returncode == 0, child.stderr
    model.keep_bands(FEWER)
    embeds = torch.tensor(json.loads(child.stdout.splitlines()[-1]))
    torch.testing.assert_close(embeds, model(s2=torch.ones(1, 2, 16, 16)).embeds["s2"])
