"""Training is what the paper describes: a run of the Trainer equals a plain loop written out from the recipe."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import build, draw_images, tiny_config

from configuration_csmae import CSMAEConfig
from csmae_hf.training.arguments import CSMAETrainingArguments
from csmae_hf.training.randomness import draw_flips_and_noise
from csmae_hf.training.trainer import CSMAETrainer
from modeling_csmae import CSMAEForPreTraining

STEPS, TILES, BATCH, ACCUMULATION, SEED = 30, 8, 2, 2, 7
WARMUP = 2  # 10 of 150 epochs are 2 of 30 steps
RATE, BETAS, DECAY = 1e-4, (0.9, 0.95), 0.05
CONFIG = tiny_config()


def rows(count: int = TILES) -> list[dict[str, torch.Tensor]]:
    images = draw_images(CONFIG, count)
    return [{name: image[row] for name, image in images.items()} for row in range(count)]


def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in batch]) for name in batch[0]}


def trainer_of(folder: Path, config: CSMAEConfig = CONFIG, **options: Any) -> CSMAETrainer:
    """With every argument at its default but for the sizes."""
    sizes = {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": ACCUMULATION,
        "per_device_eval_batch_size": 4,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "no",
        "precision": "fp32",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "seed": SEED,
        **options,
    }
    arguments = CSMAETrainingArguments(output_dir=str(folder), **sizes)
    return CSMAETrainer(
        model=build(CSMAEForPreTraining, config),
        args=arguments,
        train_dataset=rows(),  # type: ignore[arg-type]
        eval_dataset=rows(6),  # type: ignore[arg-type]
        data_collator=collate,  # type: ignore[arg-type]
    )


def rate_at(step: int) -> float:
    """Linear from 0, then half a cosine to 0."""
    if step < WARMUP:
        return RATE * step / WARMUP
    return RATE * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2


def plain_loop() -> tuple[CSMAEForPreTraining, list[dict[str, float]]]:
    """The recipe by hand: AdamW on every parameter, each step's flips and masks by seed, step and row."""
    model: Any = build(CSMAEForPreTraining, CONFIG).train()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=BETAS, eps=1e-8, weight_decay=DECAY)
    tiles, log = rows(), []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rate_at(step)
        means: dict[str, float] = {}
        for part in range(ACCUMULATION):
            first = (step * ACCUMULATION + part) * BATCH % TILES
            flips, noise = draw_flips_and_noise(SEED, step, part * BATCH, BATCH, CONFIG.sensors, CONFIG.num_patches)
            images = collate(tiles[first : first + BATCH])
            for image in images.values():
                for row, (horizontal, vertical) in enumerate(flips.tolist()):
                    image[row] = image[row].flip([dim for dim, flip in ((-1, horizontal), (-2, vertical)) if flip])
            outputs = model(**images, noise=noise)
            (outputs.loss / ACCUMULATION).backward()
            for name, value in {**outputs.losses, "loss": outputs.loss}.items():
                means[name] = means.get(name, 0.0) + value.item() / ACCUMULATION
        optimizer.step()
        optimizer.zero_grad()
        log.append(means)
    return model, log


def test_a_run_is_the_papers_recipe_step_by_step(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.train()
    model, expected = plain_loop()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["learning_rate"] for entry in log] == pytest.approx([rate_at(step) for step in range(STEPS)])
    for entry, means in zip(log, expected, strict=True):
        assert {name: entry[name] for name in means} == pytest.approx(means, abs=1e-5)
    trained = trainer.model.state_dict()  # type: ignore[union-attr]
    start = build(CSMAEForPreTraining, CONFIG).state_dict()
    moved = {name for name, _ in model.named_parameters() if not torch.equal(trained[name], start[name])}
    assert moved == {name for name, each in model.named_parameters() if each.requires_grad}
    for name, value in model.state_dict().items():
        if name.endswith("qkv.bias"):  # the keys' have no gradient but rounding, which AdamW makes as large as any
            width = len(value) // 3
            value, trained[name] = (
                each[[*range(width), *range(2 * width, 3 * width)]] for each in (value, trained[name])
            )
        torch.testing.assert_close(
            trained[name], value, atol=2e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("variant", ["cecd", "sesd"])
def test_weights_biases_and_norms_all_decay(tmp_path: Path, variant: str) -> None:
    """The original hands all its parameters to AdamW, and Transformers alone would leave out biases and norms."""
    trainer = trainer_of(tmp_path, tiny_config(variant))
    trainer.create_optimizer()
    model: Any = trainer.model
    names = {id(each): name for name, each in model.named_parameters()}
    decayed, spared = set(), set()
    for group in trainer.optimizer.param_groups:  # type: ignore[union-attr]
        (decayed if group["weight_decay"] == DECAY else spared).update(names[id(each)] for each in group["params"])
    assert spared == set()
    assert decayed == {name for name, each in model.named_parameters() if each.requires_grad}
    assert any(name.endswith("bias") for name in decayed)
    assert any("norm" in name for name in decayed)


def test_evaluation_masks_do_not_depend_on_the_runs_seed(tmp_path: Path) -> None:
    one, other = trainer_of(tmp_path, seed=1), trainer_of(tmp_path, seed=2)
    metrics = one.evaluate()
    losses = {name: value for name, value in metrics.items() if not name.endswith(("time", "second"))}
    for again in (one.evaluate(), other.evaluate()):
        assert {name: again[name] for name in losses} == losses
    model: Any = build(CSMAEForPreTraining, CONFIG).eval()
    tiles, expected = rows(6), 0.0
    for first, count in ((0, 4), (4, 2)):
        expected += model(**collate(tiles[first : first + count])).loss.item() * count / 6
    assert losses["eval_loss"] == pytest.approx(expected, abs=1e-5)
    terms = [value for name, value in losses.items() if name.startswith(("eval_umr", "eval_cmr", "eval_mim"))]
    assert sum(terms) == pytest.approx(expected, abs=1e-5)
