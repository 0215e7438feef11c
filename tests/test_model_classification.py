"""Scene classification on CSMAE's encoders: losses, sensors, linear probe, loading."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_models import build, draw_images, tiny_config
from transformers import AutoModelForImageClassification

import csmae_hf  # noqa: F401 (registers the Auto classes)
from configuration_csmae import CSMAEConfig
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

MULTI_HOT = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]])


def classifier(**overrides: Any) -> tuple[CSMAEForImageClassification, dict[str, torch.Tensor]]:
    config = tiny_config(num_labels=3, **overrides)
    return build(CSMAEForImageClassification, config), draw_images(config)


def plain_logits(model: Any, embeds: torch.Tensor) -> torch.Tensor:
    return embeds @ model.classifier.weight.T + model.classifier.bias


@pytest.mark.parametrize("sensors", [["s1"], ["s2"], ["s1", "s2"]])
def test_logits_come_from_the_mean_of_the_given_sensors_embeds(sensors: list[str]) -> None:
    model, images = classifier()
    given = {sensor: images[sensor] for sensor in sensors}
    embeds = model.csmae(**given).embeds
    mean = sum(embeds[sensor] for sensor in sensors) / len(sensors)
    torch.testing.assert_close(model(**given).logits, plain_logits(model, mean))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_multi_hot_labels_of_any_type_give_binary_cross_entropy(dtype: torch.dtype, problem: str | None) -> None:
    model, images = classifier(problem_type=problem)
    outputs = model(**images, labels=MULTI_HOT.to(dtype))
    chance = torch.sigmoid(outputs.logits)
    expected = -torch.where(MULTI_HOT.bool(), chance.log(), (1 - chance).log()).mean()
    torch.testing.assert_close(outputs.loss, expected)


@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_class_indices_give_cross_entropy(problem: str | None) -> None:
    model, images = classifier(problem_type=problem)
    labels = torch.tensor([2, 0, 1, 1])
    outputs = model(**images, labels=labels)
    expected = -outputs.logits.softmax(dim=1)[range(4), labels].log().mean()
    torch.testing.assert_close(outputs.loss, expected)


def test_one_number_a_place_gives_squared_error() -> None:
    config = tiny_config(num_labels=1)
    model = build(CSMAEForImageClassification, config)
    outputs = model(**draw_images(config), labels=torch.tensor([0.5, 1.0, 2.0, 3.0]))
    expected = (outputs.logits[:, 0] - torch.tensor([0.5, 1.0, 2.0, 3.0])).square().mean()
    torch.testing.assert_close(outputs.loss, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_class_indices_of_any_integer_type_are_taken(dtype: torch.dtype) -> None:
    model, images = classifier()
    labels = torch.tensor([2, 0, 1, 1])
    loss = model(**images, labels=labels.to(dtype)).loss
    assert model.config.problem_type == "single_label_classification"
    torch.testing.assert_close(loss, F.cross_entropy(model(**images).logits, labels))


def test_labels_that_are_not_known_do_not_count() -> None:
    model, images = classifier()
    logits = model(**images).logits
    loss = model(**images, labels=torch.tensor([2, -100, 1, -100])).loss
    torch.testing.assert_close(loss, F.cross_entropy(logits[::2], torch.tensor([2, 1])))
    model, images = classifier()
    labels = MULTI_HOT.clone()
    labels[0, 1] = labels[3] = -100
    known = labels != -100
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known].float())
    torch.testing.assert_close(model(**images, labels=labels).loss, expected)
    torch.testing.assert_close(model(**images, labels=labels, num_items_in_batch=16).loss, expected * (8 / 16))
    assert model(**images, labels=torch.full((4, 3), -100)).loss == 0


@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        ("single_label_classification", torch.tensor([0.0, 1.0, 2.0, 0.0])),
        ("single_label_classification", MULTI_HOT),
        ("multi_label_classification", torch.tensor([0, 1, 2, 0])),
        (None, torch.zeros(4, 2)),
        (None, torch.zeros(3, dtype=torch.long)),
    ],
)
def test_labels_that_do_not_fit_are_refused(problem: str | None, labels: torch.Tensor) -> None:
    model, images = classifier(problem_type=problem)
    with pytest.raises(ValueError, match=r"labels (have shape|are) .* expected"):
        model(**images, labels=labels)


def test_linear_probe_trains_the_classifier_only() -> None:
    model, images = classifier()
    model.train()
    model.freeze_encoder()
    model(**images, labels=MULTI_HOT).loss.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"classifier.weight", "classifier.bias"}


def test_training_learns_multi_hot_labels() -> None:
    model, images = classifier(problem_type="multi_label_classification")
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(**images, labels=MULTI_HOT).loss.backward()
        optimizer.step()
    assert torch.equal(model.eval()(**images).logits > 0, MULTI_HOT.bool())


def test_mean_is_over_the_sensors_that_a_sample_has() -> None:
    model, images = classifier()
    present = {"s1": torch.tensor([True, False, True, False])}
    images["s1"][~present["s1"]] = torch.nan
    logits = model(**images, present=present).logits
    embeds = model.csmae(s1=images["s1"][::2], s2=images["s2"]).embeds | {
        "all": model.csmae(s2=images["s2"]).embeds["s2"]
    }
    torch.testing.assert_close(logits[1::2], plain_logits(model, embeds["all"][1::2]))
    torch.testing.assert_close(logits[::2], plain_logits(model, (embeds["s1"] + embeds["s2"][::2]) / 2))


def test_sample_without_any_sensor_is_refused_by_its_index() -> None:
    model, images = classifier()
    absent = torch.tensor([True, True, False, True])
    with pytest.raises(ValueError, match=r"Samples \[2\] .* no image of any sensor"):
        model(**images, present={"s1": absent, "s2": absent})


def test_sensors_of_different_places_are_refused() -> None:
    model, images = classifier()
    with pytest.raises(ValueError, match="same places"):
        model(s1=images["s1"][:2], s2=images["s2"])


def test_pretraining_checkpoint_lacks_the_classifier_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = build(CSMAEForPreTraining, tiny_config())
    source.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        model, info = AutoModelForImageClassification.from_pretrained(
            tmp_path, num_labels=3, problem_type="multi_label_classification", output_loading_info=True
        )
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert "decoders" not in caplog.text
    assert type(model) is CSMAEForImageClassification
    bound = (6 / (32 + 3)) ** 0.5  # xavier-uniform
    assert 0.5 * bound < model.classifier.weight.abs().max() <= bound
    assert not model.classifier.bias.any()
    images = draw_images(model.config)
    for sensor, embeds in source.csmae(**images).embeds.items():
        assert torch.equal(model(**images).embeds[sensor], embeds)


def test_classification_checkpoint_comes_back_whole_and_as_encoder(tmp_path: Path) -> None:
    model, images = classifier(id2label={0: "Arable land", 1: "Pastures", 2: "Urban fabric"})
    model.save_pretrained(tmp_path)
    again = CSMAEForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(again(**images).logits, model(**images).logits)
    assert again.config.id2label[1] == "Pastures"
    encoder, info = CSMAEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(encoder(**images).embeds["s1"], model(**images).embeds["s1"])


def test_nothing_is_masked_in_training() -> None:
    model, images = classifier()
    assert torch.equal(model.train()(**images).logits, model.eval()(**images).logits)


def test_half_precision_loss_is_finite_and_float32() -> None:
    model, images = classifier()
    model.half().train()
    outputs = model(**images, labels=MULTI_HOT)
    outputs.loss.backward()
    assert outputs.logits.dtype == torch.float16
    assert outputs.loss.dtype == torch.float32
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    expected = F.binary_cross_entropy_with_logits(outputs.logits.float(), MULTI_HOT.float())
    torch.testing.assert_close(outputs.loss, expected)


def test_number_of_labels_is_that_of_the_configuration() -> None:
    config = CSMAEConfig.for_variant("cecd", size="tiny", num_labels=19)
    with torch.device("meta"):
        assert CSMAEForImageClassification(config).classifier.out_features == 19
