"""`transformers.pipeline` on a model of CSMAE where this package is imported: inputs in every form, features and labels out."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import make_dataset, make_processor, make_tile
from tiff_files import write_tiff
from tiny_models import TWO_SENSORS, build, tiny_config
from transformers import ImageFeatureExtractionPipeline, ViTConfig, ViTModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from csmae_hf import CSMAEForImageClassification, CSMAEForPreTraining
from pipeline_csmae import CSMAEImageClassificationPipeline, CSMAEImageFeatureExtractionPipeline

TASK = "image-feature-extraction"
LABELS = {0: "forest", 1: "water", 2: "fields"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build(CSMAEForPreTraining, tiny_config()).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    config = tiny_config(
        num_labels=3,
        problem_type="multi_label_classification",
        id2label=LABELS,
        label2id={label: number for number, label in LABELS.items()},
    )
    build(CSMAEForImageClassification, config).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return pipeline(TASK, model=folder, device="cpu")


@pytest.fixture(scope="module")
def tiles() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [make_tile(rng) for _ in range(5)]


@pytest.fixture(scope="module")
def embeds(pipe: Any, tiles: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """By sensor (5, D), from the model itself."""
    inputs = make_processor()(**{sensor: [tile[sensor] for tile in tiles] for sensor in TWO_SENSORS})
    with torch.no_grad():
        return {sensor: values.numpy() for sensor, values in pipe.model(**inputs).embeds.items()}


def stack(tile: dict[str, Any], sensor: str) -> np.ndarray:
    return np.stack([tile[sensor][band] for band in TWO_SENSORS[sensor]])


@pytest.mark.parametrize("trust", [None, False, True])
def test_the_package_needs_no_trust_and_asks_nobody(folder: Path, trust: bool | None, monkeypatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail(f"asked {text}"))
    made = pipeline(TASK, model=str(folder), trust_remote_code=trust)
    assert type(made) is CSMAEImageFeatureExtractionPipeline


def test_other_models_keep_the_stock_pipeline() -> None:
    config = ViTConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=16, image_size=32)
    made = pipeline(TASK, model=ViTModel(config), image_processor=make_processor())
    assert type(made) is ImageFeatureExtractionPipeline


@pytest.mark.parametrize("first", ["csmae_hf", "transformers.pipelines"])
def test_the_order_of_imports_does_not_matter(first: str, folder: Path) -> None:
    second = "csmae_hf" if first != "csmae_hf" else "transformers.pipelines"
    code = f"import {first}, {second}; from transformers import pipeline; print(type(pipeline({TASK!r}, {str(folder)!r})).__name__)"
    shown = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert shown.strip() == "CSMAEImageFeatureExtractionPipeline"


def test_all_forms_of_an_input_give_the_same_features(
    pipe: Any, tiles: list[dict[str, Any]], embeds: dict[str, np.ndarray], tmp_path: Path
) -> None:
    tile, stacked = tiles[0], stack(tiles[0], "s2")
    path = write_tiff(tmp_path / "tile.tif", list(stacked), TWO_SENSORS["s2"], metres=160)
    np.savez(tmp_path / "tile.npz", **tile["s2"])
    forms: list[tuple[Any, dict[str, Any]]] = [
        ({"s2": tile["s2"]}, {}),
        (tile["s2"], {}),
        (tile["s2"], {"sensor": "s2"}),
        (tile, {"sensor": "s2"}),
        ({"s2": stacked}, {}),
        (
            {
                "s2": {band: pixels.tolist() for band, pixels in tile["s2"].items()},
                "s1": None,
                "id": "a",
                "labels": [1],
                "at": {"lat": 1.0, "names": []},
            },
            {},
        ),
        (stacked, {"sensor": "s2"}),
        (torch.tensor(stacked), {"sensor": "s2"}),
        (stacked[None], {"sensor": "s2"}),
        (path, {}),
        (str(path), {"sensor": "s2"}),
        ({"s2": path}, {}),
        (tmp_path / "tile.npz", {}),
        ({"s2": {band: np.asarray(pixels) for band, pixels in tile["s2"].items()}}, {"units": {"s2": "dn"}}),
    ]
    for image, options in forms:
        np.testing.assert_allclose(pipe(image, pool=True, **options), embeds["s2"][:1], atol=1e-5)


def test_without_pool_come_the_tokens_and_tensors_where_asked_for(pipe: Any, tiles: list[dict[str, Any]]) -> None:
    with torch.no_grad():
        expected = pipe.model(**make_processor()(**tiles[1])).last_hidden_state
    tokens = pipe(tiles[1], return_tensors=True)
    assert {sensor: value.shape for sensor, value in tokens.items()} == dict.fromkeys(TWO_SENSORS, (1, 17, 32))
    for sensor, value in tokens.items():
        torch.testing.assert_close(value, expected[sensor])
    (one,) = pipe([tiles[1]], sensor="s1")
    np.testing.assert_allclose(one, expected["s1"].numpy(), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_many_inputs_in_any_container(
    pipe: Any, tiles: list[dict[str, Any]], embeds: dict[str, np.ndarray], batch_size: int
) -> None:
    containers = [
        tiles,
        tuple(tiles),
        (tile for tile in tiles),
        KeyDataset([{"image": tile} for tile in tiles], "image"),  # type: ignore[arg-type]
    ]
    assert pipe([], batch_size=batch_size) == pipe((), batch_size=batch_size) == []
    for container in containers:
        found = list(pipe(container, pool=True, batch_size=batch_size))
        for sensor in TWO_SENSORS:
            np.testing.assert_allclose(np.concatenate([one[sensor] for one in found]), embeds[sensor], atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_a_dataset(pipe: Any, streaming: bool) -> None:
    dataset = make_dataset(5)
    inputs = make_processor()(s2=[row["s2"] for row in dataset])
    with torch.no_grad():
        expected = pipe.model(**inputs).embeds["s2"].numpy()
    rows = dataset.to_iterable_dataset() if streaming else dataset
    found = list(pipe(rows, sensor="s2", pool=True, batch_size=2))
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)
    column = list(pipe(KeyDataset(dataset, "s2"), pool=True))  # type: ignore[arg-type]
    np.testing.assert_allclose(np.concatenate(column), expected, atol=1e-5)


def test_a_batch_in_one_input_is_not_cut_to_its_first_image(pipe: Any, tiles: list[dict[str, Any]]) -> None:
    batch = np.stack([stack(tile, "s2") for tile in tiles])
    assert np.shape(pipe(batch, sensor="s2", pool=True)) == (5, 32)
    with pytest.raises(ValueError, match=r"One input holds {'s2': 5} images: pass a list"):
        pipe([batch, batch], sensor="s2", batch_size=2)


def test_pictures_are_refused_with_what_to_give(pipe: Any, tiles: list[dict[str, Any]]) -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (16, 16))
    pictures = [image, "https://x.org/a.tif", "data:image/png;base64,xx", "a/b.JPEG", Path("b.png"), None, 3]
    for picture in [*pictures, {"s2": image}, {"s2": "a.webp"}, [image]]:
        with pytest.raises(ValueError, match=r"no bands that this model could use. .*s2: B02, B03, B04.*'B02': array"):
            pipe(picture)
    for picture in pictures:
        with pytest.raises(ValueError, match="no bands that this model could use"):
            pipe(picture, sensor="s2")


def test_what_is_not_known_is_asked_for(pipe: Any, tiles: list[dict[str, Any]], tmp_path: Path) -> None:
    tile = tiles[0]
    with pytest.raises(ValueError, match=r"Whose image is an array of shape \(3, 16, 16\)"):
        pipe(stack(tile, "s2"))
    with pytest.raises(ValueError, match=r"\['B02', 'VH'\] are the bands of no sensor"):
        pipe({"B02": tile["s2"]["B02"], "VH": tile["s1"]["VH"]})
    with pytest.raises(ValueError, match=r"s2 lacks the bands \['B03', 'B04'\]"):
        pipe({"B02": tile["s2"]["B02"]}, sensor="s2")
    with pytest.raises(ValueError, match="Unknown sensor 's3': this model has s1, s2"):
        pipe(tile, sensor="s3")
    with pytest.raises(ValueError, match="Unknown sensor 'S1'"):
        pipe({"s2": tile["s2"], "S1": tile["s1"]})
    with pytest.raises(ValueError, match="There is no image of s1, only of s2"):
        pipe({"s2": tile["s2"]}, sensor="s1")
    half = write_tiff(tmp_path / "half.tif", [tile["s2"]["B02"]], ["B02"], metres=160)
    with pytest.raises(ValueError, match=r"half.tif is no image of any sensor of this model. As s1: .*As s2: .*B03"):
        pipe(half)
    with pytest.raises(TypeError, match="pooled"):
        pipe(tile, pooled=True)


def test_dtype_device_and_sensors_reach_the_model(folder: Path, tiles: list[dict[str, Any]]) -> None:
    half = pipeline(TASK, model=folder, device=-1, dtype="bfloat16")
    assert half(tiles[0], pool=True, return_tensors=True)["s1"].dtype is torch.bfloat16
    assert np.shape(half(tiles[0], pool=True)["s1"]) == (1, 32)
    mapped = pipeline(TASK, model=folder, device_map="cpu", torch_dtype=torch.float16)
    assert mapped(tiles[0], sensor="s1", return_tensors=True).dtype is torch.float16
    one = pipeline(TASK, model=folder, model_kwargs={"sensors": {"s1": ["VV", "VH"]}})
    assert np.shape(one(np.stack([tiles[0]["s1"][band] for band in ("VV", "VH")]), pool=True)) == (1, 32), (
        "one sensor: its own"
    )


def test_a_classifier_names_its_labels(classifier_folder: Path, tiles: list[dict[str, Any]], monkeypatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail(f"asked {text}"))
    made = pipeline("image-classification", model=classifier_folder)
    assert type(made) is CSMAEImageClassificationPipeline
    inputs = make_processor()(**{sensor: [tile[sensor] for tile in tiles] for sensor in TWO_SENSORS})
    with torch.no_grad():
        scores = made.model(**inputs).logits.sigmoid().numpy()
    for batch_size in (1, 2):
        found = made(tiles, batch_size=batch_size)
        for row, labels in zip(scores, found, strict=True):
            assert [one["label"] for one in labels] == [LABELS[place] for place in np.argsort(-row)]
            np.testing.assert_allclose([one["score"] for one in labels], np.sort(row)[::-1], atol=1e-5)
    assert len(made(tiles[0], sensor="s1", top_k=2)) == 2
    raw = made(tiles[0]["s2"], function_to_apply="none")
    with torch.no_grad():
        logits = made.model(**make_processor()(s2=tiles[0]["s2"])).logits[0]
    np.testing.assert_allclose(max(one["score"] for one in raw), logits.max(), atol=1e-5)
    with pytest.raises(ValueError, match="no bands that this model could use"):
        made("picture.png")
    with pytest.raises(ValueError, match="One input holds"):
        made(np.stack([stack(tile, "s2") for tile in tiles]), sensor="s2")


def test_a_saved_pipeline_is_a_model_again(
    classifier_folder: Path, tiles: list[dict[str, Any]], tmp_path: Path
) -> None:
    made = pipeline("image-classification", model=classifier_folder)
    made.save_pretrained(tmp_path)
    again = pipeline("image-classification", model=tmp_path)
    assert again(tiles[0]) == made(tiles[0])
    features = pipeline(TASK, model=tmp_path)
    assert np.shape(features(tiles[0]["s1"], pool=True)) == (1, 32)
