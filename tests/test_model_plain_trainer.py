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


@pytest.mark.parametrize("model_class", [CSMAEModel, CSMAEForPreTraining, CSMAEForImageClassification])
def test_what_transformers_tools_hand_to_a_forward_is_no_sensor(model_class: Any) -> None:
    model = build(model_class, tiny_config(num_labels=3))
    images = draw_images(model.config)
    for name, value in HANDED_BY_TOOLS.items():
        assert torch.equal(model(**images, **{name: value}).embeds["s2"], model(**images).embeds["s2"])
        with pytest.raises(ValueError, match=f"Sensor name '{name}'"):
            CSMAEConfig(sensors={name: ["VH"]})
    with pytest.raises(ValueError, match="Unknown sensor 's9'"):
        model(**images, **HANDED_BY_TOOLS, s9=images["s2"])
