"""Transformers' own Trainer on other sensors than s1 and s2, on rows that lack a sensor, and on data sets of every kind."""

import copy
import inspect
import logging
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from plain_trainers import plain_trainer, rows
from tiny_models import THREE_SENSORS, TWO_SENSORS, build, draw_images, tiny_config

from csmae_hf.data.collate import TileCollator
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training.trainer import CSMAETrainer
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

ALL_SENSORS = {
    "two": TWO_SENSORS,
    "three": THREE_SENSORS,
    "other names": {"optical": ["B02", "B03"], "sar": ["VV"]},
    "one": {"aerial": ["R", "G", "B"]},
    "five": {"aerial": ["R"], "s1": ["VH"], "s2": ["B02"], "sar_l": ["HH", "HV"], "thermal": ["T10"]},
}


def dataset_of(images: Mapping[str, torch.Tensor], **columns: Any) -> Dataset:
    """Processed rows as a `datasets.Dataset`, with columns that no model takes."""
    pixels = {sensor: list(batch.numpy()) for sensor, batch in images.items()}
    count = len(next(iter(images.values())))
    return Dataset.from_dict({**pixels, **columns, "id": [f"tile {i}" for i in range(count)]}).with_format("torch")


@pytest.mark.parametrize("sensors", ALL_SENSORS.values(), ids=ALL_SENSORS)
@pytest.mark.parametrize("kind", ["rows", "dataset", "stream"])
def test_every_sensor_of_the_configuration_is_trained(sensors: Any, kind: str, tmp_path: Path) -> None:
    model = build(CSMAEForPreTraining, tiny_config(sensors=sensors))
    data: Any = rows(model.config)
    if kind == "dataset":
        data = dataset_of(draw_images(model.config))
    if kind == "stream":
        data = dataset_of(draw_images(model.config)).to_iterable_dataset()
    before = copy.deepcopy(model.csmae.embeddings.state_dict())
    trainer = plain_trainer(model, data, tmp_path)
    trainer.train()
    after = model.csmae.embeddings.state_dict()
    for sensor in sensors:
        name = f"{sensor}.projection.weight"
        assert not torch.equal(after[name], before[name]), sensor
    assert np.isfinite(trainer.evaluate()["eval_loss"])


@pytest.mark.parametrize("precision", [{}, {"bf16": True}])
def test_a_second_trainer_of_one_model_sees_its_sensors_too(precision: dict, tmp_path: Path) -> None:
    model = build(CSMAEForPreTraining, tiny_config(sensors=THREE_SENSORS))
    for _ in range(2):
        trainer = plain_trainer(model, rows(model.config), tmp_path, max_steps=1, **precision)
        trainer.train()
        assert THREE_SENSORS.keys() <= set(trainer._signature_columns)


@pytest.mark.parametrize("model_class", [CSMAEModel, CSMAEForPreTraining, CSMAEForImageClassification])
def test_the_signature_of_a_model_names_its_own_sensors(model_class: Any) -> None:
    model = build(model_class, tiny_config(sensors=ALL_SENSORS["other names"], num_labels=2))
    again = pickle.loads(pickle.dumps(copy.deepcopy(copy.copy(model))))
    for each in (model, again, torch.nn.ModuleList([model])[0]):
        names = set(inspect.signature(each.forward).parameters)
        assert {"sar", "optical", "present"} <= names
        assert not {"s1", "s2", "self"} & names
    assert list(inspect.signature(model_class.forward).parameters)[:3] == ["self", "s1", "s2"]
    whole = build(model_class, tiny_config(sensors=THREE_SENSORS, num_labels=2))
    whole.keep_bands({"thermal": ["T2"]})
    assert "thermal" in inspect.signature(whole.forward).parameters
    assert "s1" not in inspect.signature(whole.forward).parameters
    assert whole.main_input_name == "thermal"


def test_copies_of_a_model_run_on_their_own_weights() -> None:
    model = build(CSMAEModel, tiny_config(sensors=THREE_SENSORS))
    images = draw_images(model.config)
    replica = model._replicate_for_data_parallel()  # how DataParallel copies
    replica.fc_norm = torch.nn.Identity()
    expected = model(**images).last_hidden_state["thermal"][:, 1:].mean(dim=1)
    torch.testing.assert_close(replica(**images).embeds["thermal"], expected)


def test_inputs_for_metrics_are_those_of_a_sensor_that_the_model_has(tmp_path: Path) -> None:
    model = build(CSMAEForImageClassification, tiny_config(sensors=ALL_SENSORS["other names"], num_labels=3))
    seen = {}

    def compute_metrics(prediction: Any) -> dict[str, float]:
        seen["shape"] = prediction.inputs.shape
        return {}

    data = rows(model.config, torch.tensor([2, 0, 1, 1]))
    plain_trainer(model, data, tmp_path, compute_metrics, include_for_metrics=["inputs"]).evaluate()
    assert seen["shape"] == (4, 2, 16, 16)


def test_predictions_of_pretraining_are_embeds_and_no_pixels(tmp_path: Path) -> None:
    model = build(CSMAEForPreTraining, tiny_config(sensors=THREE_SENSORS))
    output = plain_trainer(model, rows(model.config), tmp_path).predict(rows(model.config))
    expected = model.eval()(**draw_images(model.config)).embeds
    assert output.predictions.keys() == expected.keys()
    for sensor, embeds in expected.items():
        np.testing.assert_allclose(output.predictions[sensor], embeds.detach().numpy(), atol=1e-5)
    assert np.isfinite(output.metrics["test_loss"])


@pytest.mark.parametrize("model_class", [CSMAEForPreTraining, CSMAEForImageClassification])
def test_a_sensor_that_never_comes_is_said_once(
    model_class: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build(model_class, tiny_config(sensors=THREE_SENSORS, num_labels=3))
    data = rows(model.config, torch.tensor([2, 0, 1, 1]) if model_class is CSMAEForImageClassification else None)
    without = [{name: value for name, value in row.items() if name != "thermal"} for row in data]
    with caplog.at_level(logging.WARNING):
        trainer = plain_trainer(model, without, tmp_path, max_steps=3, gradient_accumulation_steps=2)
        trainer.evaluate()
        assert "no image of" not in caplog.text
        trainer.train()
        trainer.train()
        assert caplog.text.count("The first batch of training has no image of thermal.") == 1
        caplog.clear()
        model = build(model_class, model.config)
        plain_trainer(model, data, tmp_path).train()
        model(**draw_images(tiny_config()))
        assert "no image of" not in caplog.text


def test_a_sensor_of_which_every_row_says_absent_never_comes(caplog: pytest.LogCaptureFixture) -> None:
    model = build(CSMAEForPreTraining, tiny_config()).train()
    images = draw_images(model.config)
    with caplog.at_level(logging.WARNING):
        model(**images, present={"s1": torch.zeros(4, dtype=torch.bool)})
        model(**images, present={"s1": torch.zeros(4, dtype=torch.bool)})
    assert caplog.text.count("has no image of s1.") == 1


def test_a_compiled_model_says_it_once_without_a_graph_break(caplog: pytest.LogCaptureFixture) -> None:
    model = build(CSMAEModel, tiny_config(sensors=THREE_SENSORS)).train()
    images = draw_images(tiny_config())
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            compiled(**images)
    assert caplog.text.count("has no image of thermal.") == 1


def test_rows_that_lack_a_sensor_are_trained_without_it(tmp_path: Path) -> None:
    """Gradients of a batch with flags, whose absent pixels are NaN, are those of the rows by themselves."""
    first = build(CSMAEForImageClassification, tiny_config(num_labels=3))
    labels, images = torch.tensor([2, 0, 1, 1]), draw_images(first.config)
    present = {"s1": torch.tensor([True, False, True, False])}
    images["s1"][~present["s1"]] = torch.nan

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {name: torch.stack([row[name] for row in features]) for name in ("s1", "s2", "labels")}
        return {**batch, "present": {"s1": ~batch["s1"].isnan().any(dim=(1, 2, 3))}}

    data = [{"s1": images["s1"][i], "s2": images["s2"][i], "labels": labels[i]} for i in range(4)]
    model = copy.deepcopy(first)
    settings: dict[str, Any] = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0}
    trainer = plain_trainer(model, data, tmp_path, data_collator=collate, **settings)
    trainer.train()
    expected = copy.deepcopy(first).train()
    there = expected(**{sensor: batch[::2] for sensor, batch in images.items()}, labels=labels[::2]).loss
    absent = expected(s2=images["s2"][1::2], labels=labels[1::2]).loss
    ((there + absent) / 2).backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter -= 0.5 * parameter.grad
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), atol=1e-5, rtol=1e-4)
    assert np.isfinite(trainer.evaluate()["eval_loss"])


# Tiles of a store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock") / "sample"
    generate_sample(folder, tiles=24, seed=0)
    return folder


@pytest.fixture(scope="module")
def processor() -> CSMAEImageProcessor:
    return CSMAEImageProcessor(size=120)


def real_config(**overrides: Any) -> Any:
    return tiny_config(sensors=CSMAEImageProcessor().sensors, image_size=120, patch_size=30, **overrides)


@pytest.mark.parametrize("remove_unused_columns", [True, False])
def test_tiles_of_a_store_are_pretrained_on_through_the_collator(
    remove_unused_columns: bool, store: Path, processor: CSMAEImageProcessor, tmp_path: Path
) -> None:
    model = build(CSMAEForPreTraining, real_config())
    before = copy.deepcopy(model.csmae.embeddings.state_dict())
    trainer = plain_trainer(
        model,
        load_bigearthnet(store, split="train").select(range(4)),
        tmp_path,
        data_collator=TileCollator(processor),
        remove_unused_columns=remove_unused_columns,
    )
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    for sensor in ("s1", "s2"):
        name = f"{sensor}.projection.weight"
        assert not torch.equal(model.csmae.embeddings.state_dict()[name], before[name])


@pytest.mark.parametrize("remove_unused_columns", [True, False])
def test_tiles_of_a_store_are_classified_through_the_collator(
    remove_unused_columns: bool, store: Path, processor: CSMAEImageProcessor, tmp_path: Path
) -> None:
    tiles = load_bigearthnet(store, split="train").select(range(4))
    model = build(CSMAEForImageClassification, real_config(num_labels=19))
    trainer = plain_trainer(
        model,
        tiles,
        tmp_path,
        data_collator=TileCollator(processor, num_labels=19),
        remove_unused_columns=remove_unused_columns,
    )
    trainer.train()
    assert model.config.problem_type == "multi_label_classification"
    output = trainer.predict(tiles)
    assert output.predictions.shape == (4, 19)
    expected = np.zeros((4, 19), np.float32)
    for place, numbers in enumerate(tiles["labels"]):
        expected[place, numbers] = 1
    np.testing.assert_array_equal(output.label_ids, expected)


def test_a_transform_makes_the_rows_that_the_plain_collator_takes(
    store: Path, processor: CSMAEImageProcessor, tmp_path: Path
) -> None:
    tiles = load_bigearthnet(store, split="train").select(range(4))

    def process(rows: dict[str, list]) -> dict[str, Any]:
        numbers = [torch.tensor(row) for row in rows["labels"]]
        labels = torch.stack([torch.zeros(19).index_fill(0, row, 1.0) for row in numbers])
        return {**processor(s1=rows["s1"], s2=rows["s2"]), "labels": labels}

    tiles.set_transform(process)
    model = build(CSMAEForImageClassification, real_config(num_labels=19))
    trainer = plain_trainer(model, tiles, tmp_path)
    trainer.train()
    assert trainer.predict(tiles).predictions.shape == (4, 19)


def test_a_generator_of_rows_is_trained_on_for_max_steps(tmp_path: Path) -> None:
    model = build(CSMAEForImageClassification, tiny_config(sensors=THREE_SENSORS, num_labels=3))
    columns = {sensor: batch.numpy() for sensor, batch in draw_images(model.config).items()}

    def generate() -> Iterator[dict[str, Any]]:
        for i in range(4):
            yield {**{sensor: batch[i] for sensor, batch in columns.items()}, "labels": i % 3, "name": f"tile {i}"}

    trainer = plain_trainer(
        model, IterableDataset.from_generator(generate), tmp_path, max_steps=5, per_device_train_batch_size=2
    )
    assert trainer.train().global_step == 5
    assert model.config.problem_type == "single_label_classification"
    assert np.isfinite(trainer.evaluate()["eval_loss"])


def test_the_own_trainer_says_the_same_of_a_sensor_that_every_row_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config()
    images = draw_images(config)

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {name: torch.stack([row[name] for row in features]) for name in images}
        return {**batch, "present": {"s1": torch.zeros(len(features), dtype=torch.bool)}}

    args = plain_trainer(build(CSMAEForPreTraining, config), [], tmp_path).args
    trainer = CSMAETrainer(build(CSMAEForPreTraining, config), args, collate, rows(config))
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert caplog.text.count("The first batch of training has no image of s1.") == 1
