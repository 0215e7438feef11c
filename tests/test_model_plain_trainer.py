"""Transformers' own Trainer with every class, and what its tools hand to a `forward` beside the images."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_trainers import plain_trainer, rows
from tiny_models import build, draw_images, tiny_config

from configuration_csmae import CSMAEConfig
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

LABELS: dict[str, torch.Tensor] = {
    "single_label_classification": torch.tensor([2, 0, 1, 1]),
    "multi_label_classification": torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]]),
    "regression": torch.tensor([[1.0, 0.0, 2.0], [0.5, 0.0, 1.0], [1.0, 1.0, 1.0], [0.0, 3.0, 0.0]]),
}
HANDED_BY_TOOLS: dict[str, Any] = {
    "num_items_in_batch": torch.tensor(4),
    "return_loss": True,
    "return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_router_logits": False,
    "skip_logits": False,
    "use_cache": False,
    "labels": None,
    "label_ids": torch.tensor([0, 1, 2, 0]),
}
HANDED_BY_OTHERS: dict[str, Any] = {
    "attention_mask": torch.ones(4, 7),
    "cu_seq_lens_q": torch.arange(4),
    "logits_to_keep": 0,
    "some_flag": True,
    "some_scale": 0.5,
    "inputs_embeds": None,
}
MISSPELT: dict[str, Any] = {
    "tensor": torch.zeros(4, 2, 16, 16),
    "image": torch.zeros(2, 16, 16),
    "array": np.zeros((4, 2, 16, 16)),
    "list": [np.zeros((2, 16, 16))],
    "bands": {"VH": torch.zeros(4, 16, 16)},
    "path": "tile.tif",
}


@pytest.mark.parametrize(
    ("problem", "told"),
    [*((problem, True) for problem in LABELS), *((problem, False) for problem in list(LABELS)[:2])],
)
def test_the_plain_trainer_trains_evaluates_and_predicts_classes(problem: str, told: bool, tmp_path: Path) -> None:
    model = build(CSMAEForImageClassification, tiny_config(num_labels=3, problem_type=problem if told else None))
    seen = []

    def compute_metrics(prediction: Any) -> dict[str, float]:
        seen.append(prediction.predictions)
        return {"mean": float(prediction.predictions.mean())}

    trainer = plain_trainer(model, rows(model.config, LABELS[problem]), tmp_path, compute_metrics)
    assert np.isfinite(trainer.train().training_loss)
    metrics = trainer.evaluate()
    assert {"eval_loss", "eval_mean"} <= metrics.keys()
    predicted = trainer.predict(trainer.eval_dataset).predictions
    logits = model.eval()(**draw_images(model.config)).logits.detach().numpy()
    for predictions in (*seen, predicted):
        assert isinstance(predictions, np.ndarray)
        np.testing.assert_allclose(predictions, logits, atol=1e-5)


@pytest.mark.parametrize("problem", LABELS)
def test_accumulation_over_uneven_batches_gives_the_gradients_of_the_whole(problem: str, tmp_path: Path) -> None:
    """3 + 1 rows: a mean of two means would count the last row three times as much as the others."""
    first = build(CSMAEForImageClassification, tiny_config(num_labels=3, problem_type=problem))
    trained = []
    for batch, accumulation in ((4, 1), (3, 2)):
        model = copy.deepcopy(first)
        plain_trainer(
            model,
            rows(model.config, LABELS[problem]),
            tmp_path,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            learning_rate=0.1,
            max_grad_norm=0.0,
            optim="sgd",
        ).train()
        trained.append(model.state_dict())
    assert not torch.equal(trained[0]["classifier.weight"], first.classifier.weight)
    torch.testing.assert_close(trained[0], trained[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("problem", LABELS)
@pytest.mark.parametrize("model_class", [CSMAEForImageClassification, CSMAEForPreTraining])
def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(problem: str, model_class: Any, tmp_path: Path) -> None:
    """Masks of pre-training and dropout come from generators that the Trainer keeps."""
    config = tiny_config(num_labels=3, problem_type=problem, hidden_dropout_prob=0.1)
    labels = LABELS[problem] if model_class is CSMAEForImageClassification else None
    first = build(model_class, config)
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "per_device_train_batch_size": 2}
    whole = copy.deepcopy(first)
    plain_trainer(whole, rows(config, labels), tmp_path, **settings).train()
    resumed = build(model_class, config, seed=7)
    plain_trainer(resumed, rows(config, labels), tmp_path, **settings).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-2")
    )
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert not torch.equal(whole.csmae.fc_norm.bias, first.csmae.fc_norm.bias)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_best_classifier_is_loaded_at_the_end(frozen: bool, tmp_path: Path) -> None:
    model = build(CSMAEForImageClassification, tiny_config(num_labels=3))
    if frozen:
        model.freeze_encoder()
    before, seen = copy.deepcopy(model.csmae.state_dict()), []

    def compute_metrics(prediction: Any) -> dict[str, float]:
        seen.append(prediction.predictions)
        accuracy = (np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean()
        return {"accuracy": float(accuracy), "first": float(-len(seen))}  # the first evaluation is the best

    trainer = plain_trainer(
        model,
        rows(model.config, LABELS["single_label_classification"]),
        tmp_path,
        compute_metrics,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        max_steps=3,
        learning_rate=0.05,
        load_best_model_at_end=True,
        metric_for_best_model="first",
    )
    trainer.train()
    logits = model.eval()(**draw_images(model.config)).logits.detach().numpy()
    np.testing.assert_allclose(logits, seen[0], atol=1e-5)
    assert np.abs(logits - seen[2]).max() > 1e-3
    assert all(torch.equal(weight, before[name]) for name, weight in model.csmae.state_dict().items()) == frozen


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (3, 2)])
def test_label_smoothing_is_that_of_the_trainer(batch: int, accumulation: int, tmp_path: Path) -> None:
    model = build(CSMAEForImageClassification, tiny_config(num_labels=3))
    labels, images = LABELS["single_label_classification"], draw_images(model.config)
    logits = model(**images).logits
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.2)
    trainer = plain_trainer(
        model,
        rows(model.config, labels),
        tmp_path,
        label_smoothing_factor=0.2,
        max_steps=1,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    np.testing.assert_allclose(trainer.train().training_loss, expected.item(), rtol=1e-5)


@pytest.mark.parametrize("remove_unused_columns", [True, False])
def test_the_loss_of_a_step_is_that_of_the_model_on_its_rows(remove_unused_columns: bool, tmp_path: Path) -> None:
    for problem, labels in LABELS.items():
        model = build(CSMAEForImageClassification, tiny_config(num_labels=3, problem_type=problem))
        expected = model(**draw_images(model.config), labels=labels).loss.item()
        trainer = plain_trainer(
            model,
            rows(model.config, labels),
            tmp_path,
            max_steps=1,
            per_device_train_batch_size=3,
            gradient_accumulation_steps=2,
            remove_unused_columns=remove_unused_columns,
        )
        np.testing.assert_allclose(trainer.train().training_loss, expected, rtol=1e-5)
        np.testing.assert_allclose(
            plain_trainer(model, rows(model.config, labels), tmp_path).evaluate()["eval_loss"],
            model.eval()(**draw_images(model.config), labels=labels).loss.item(),
            rtol=1e-5,
        )


def test_the_plain_trainer_pretrains_and_its_accumulation_is_a_mean_of_the_batches(tmp_path: Path) -> None:
    model = build(CSMAEForPreTraining, tiny_config())
    trainer = plain_trainer(
        model, rows(model.config), tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    assert np.isfinite(trainer.train().training_loss)
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert not trainer.model_accepts_loss_kwargs


def test_the_plain_trainer_predicts_embeds_of_an_encoder(tmp_path: Path) -> None:
    classifier = build(CSMAEForImageClassification, tiny_config(num_labels=3))
    classifier.save_pretrained(tmp_path / "model")
    model = CSMAEModel.from_pretrained(tmp_path / "model")
    embeds, _ = plain_trainer(model, rows(model.config), tmp_path).predict(rows(model.config)).predictions
    expected = model.eval()(**draw_images(model.config)).embeds
    np.testing.assert_allclose(embeds["s2"], expected["s2"].detach().numpy(), atol=1e-5)


ALL_CLASSES = [CSMAEModel, CSMAEForPreTraining, CSMAEForImageClassification]


@pytest.mark.parametrize("model_class", ALL_CLASSES)
def test_what_transformers_tools_hand_to_a_forward_is_no_sensor(model_class: Any) -> None:
    model = build(model_class, tiny_config(num_labels=3))
    images = draw_images(model.config)
    expected = model(**images).embeds["s2"]
    for name, value in {**HANDED_BY_TOOLS, **HANDED_BY_OTHERS, "interpolate_pos_encoding": False}.items():
        assert torch.equal(model(**images, **{name: value}).embeds["s2"], expected)
    for name in HANDED_BY_TOOLS:
        with pytest.raises(ValueError, match=f"Sensor name '{name}'"):
            CSMAEConfig(sensors={name: ["VH"]})
    with pytest.raises(ValueError, match="No images were given"):
        model(**HANDED_BY_TOOLS, **HANDED_BY_OTHERS)


@pytest.mark.parametrize("model_class", ALL_CLASSES)
@pytest.mark.parametrize("kind", MISSPELT)
def test_a_misspelt_sensor_is_refused(model_class: Any, kind: str) -> None:
    model = build(model_class, tiny_config(num_labels=3))
    with pytest.raises(ValueError, match=r"Unknown sensor 's9': this model has s1 \(VH, VV\), s2"):
        model(**draw_images(model.config), **HANDED_BY_TOOLS, s9=MISSPELT[kind])


@pytest.mark.parametrize("model_class", ALL_CLASSES)
def test_a_field_of_the_configuration_is_no_argument_of_a_call(model_class: Any) -> None:
    """A mask_ratio that is left unread would be a wrong number in silence."""
    model = build(model_class, tiny_config(num_labels=3))
    with pytest.raises(ValueError, match=r"mask_ratio is no argument .* set model.config.mask_ratio"):
        model(**draw_images(model.config), mask_ratio=0.75)
    with pytest.raises(ValueError, match=r"masking is no argument .* set model.config.masking"):
        model(**draw_images(model.config), masking="disjoint")
