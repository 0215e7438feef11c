"""LoRA by peft under Transformers' own Trainer: what it trains, keeps and saves."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from plain_trainers import plain_trainer, rows
from tiny_models import THREE_SENSORS, build, draw_images, tiny_config

from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

LABELS = {
    "single_label_classification": torch.tensor([2, 0, 1, 1]),
    "multi_label_classification": torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]]),
}


def adapted(model: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(**{"r": 2, "target_modules": ["qkv", "proj"], **settings}))


def with_classifier(**settings: Any) -> tuple[Any, CSMAEForImageClassification]:
    first = build(CSMAEForImageClassification, tiny_config(sensors=THREE_SENSORS, num_labels=3))
    return adapted(copy.deepcopy(first), modules_to_save=["classifier"], **settings), first


@pytest.mark.parametrize("problem", LABELS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"task_type": "FEATURE_EXTRACTION"},
        {"task_type": "SEQ_CLS"},
        {"target_modules": "all-linear"},
        {"use_dora": True},
    ],
)
def test_lora_trains_evaluates_and_predicts(problem: str, settings: dict, tmp_path: Path) -> None:
    model, first = with_classifier(**settings)
    seen = []

    def compute_metrics(prediction: Any) -> dict[str, float]:
        seen.append(prediction.predictions)
        return {}

    data = rows(first.config, LABELS[problem])
    trainer = plain_trainer(model, data, tmp_path, compute_metrics, learning_rate=0.05)
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert trainer.label_names == ["labels"]
    merged = model.merge_and_unload().eval()
    assert type(merged) is CSMAEForImageClassification
    assert not torch.equal(merged.classifier.weight, first.classifier.weight)
    weights, before = merged.csmae.state_dict(), first.csmae.state_dict()
    changed = {name for name, weight in weights.items() if not torch.equal(weight, before[name])}
    assert {"cross_sensor_encoder.layers.0.attention.qkv.weight"} <= changed
    assert not any(name.endswith("bias") or name.startswith("embeddings") for name in changed)
    logits = merged(**draw_images(first.config)).logits.detach().numpy()
    np.testing.assert_allclose(seen[-1], logits, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = CSMAEForImageClassification.from_pretrained(tmp_path / "merged")
    np.testing.assert_array_equal(again(**draw_images(first.config)).logits.detach().numpy(), logits)


def test_best_adapter_is_kept_and_comes_back(tmp_path: Path) -> None:
    model, first = with_classifier()
    data = rows(first.config, LABELS["single_label_classification"])
    trainer = plain_trainer(
        model,
        data,
        tmp_path,
        learning_rate=0.05,
        max_steps=3,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    again = PeftModel.from_pretrained(copy.deepcopy(first), best).eval()
    images = draw_images(first.config)
    torch.testing.assert_close(again(**images).logits, model.eval()(**images).logits)


def test_lora_under_activation_checkpointing_has_the_same_gradients(tmp_path: Path) -> None:
    trained = []
    for checkpointing in (False, True):
        model, first = with_classifier()
        data = rows(first.config, LABELS["single_label_classification"])
        plain_trainer(model, data, tmp_path, max_steps=1, gradient_checkpointing=checkpointing).train()
        trained.append({name: p.detach() for name, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*trained)


def test_lora_of_pretraining_and_of_the_encoder(tmp_path: Path) -> None:
    config = tiny_config(sensors=THREE_SENSORS)
    model = adapted(build(CSMAEForPreTraining, config), target_modules=["projection", "qkv"])
    trainer = plain_trainer(model, rows(config), tmp_path, learning_rate=0.05)
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    merged = model.merge_and_unload()
    first = build(CSMAEForPreTraining, config)
    for sensor in THREE_SENSORS:
        pairs = (each.csmae.embeddings[sensor].projection.weight for each in (merged, first))
        assert not torch.equal(*pairs)
    encoder = adapted(build(CSMAEModel, config), task_type="FEATURE_EXTRACTION")
    images = draw_images(config)
    torch.testing.assert_close(encoder(**images).embeds, encoder.get_base_model()(**images).embeds)
