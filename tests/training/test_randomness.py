"""Random numbers that depend on seed, step and row alone."""

import random

import numpy as np
import pytest
import torch
from tiny_models import build, draw_images, tiny_config
from transformers import Trainer, TrainingArguments

from csmae_hf.training.randomness import draw_flips_and_noise, draw_rows, flip_together, preserved_generators
from csmae_hf.training.trainer import CSMAETrainer
from modeling_csmae import CSMAEForPreTraining


@pytest.mark.parametrize("parts", [[8], [4, 4], [2, 2, 2, 2], [5, 3]])
@pytest.mark.parametrize("width", [130, 7])
def test_a_row_draws_the_same_whoever_draws_it(parts: list[int], width: int) -> None:
    whole = draw_rows(42, 5, 0, 8, width)
    starts = np.cumsum([0, *parts[:-1]])
    split = [draw_rows(42, 5, int(start), rows, width) for start, rows in zip(starts, parts, strict=True)]
    assert np.array_equal(np.concatenate(split), whole)


def test_seed_step_and_row_each_change_what_is_drawn() -> None:
    drawn = [draw_rows(42, 5, 0, 2, 64), draw_rows(43, 5, 0, 2, 64), draw_rows(42, 6, 0, 2, 64)]
    rows = np.concatenate(drawn)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_numbers_are_uniform_in_the_unit_interval() -> None:
    numbers = draw_rows(0, 0, 0, 2000, 130)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0] / numbers.size
    assert np.abs(counts - 0.05).max() < 0.002
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.01


def test_masks_of_two_sensors_are_drawn_apart() -> None:
    flips, noise = draw_flips_and_noise(42, 0, 0, 64, ["s1", "s2"], 16)
    assert flips.shape == (64, 2)
    assert {sensor: values.shape for sensor, values in noise.items()} == {"s1": (64, 16), "s2": (64, 16)}
    assert not torch.equal(noise["s1"], noise["s2"])


def test_flips_move_all_sensors_of_a_place_together() -> None:
    coordinates = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"))  # (2, 4, 4)
    places = coordinates + 100 * torch.arange(64.0).reshape(-1, 1, 1, 1)
    flips, _ = draw_flips_and_noise(42, 0, 0, 64, ["s1", "s2"], 16)
    flipped = flip_together({"s1": places, "s2": places.repeat(1, 3, 1, 1)}, flips)
    assert torch.equal(flipped["s1"], flipped["s2"][:, :2])
    for place, (horizontal, vertical) in enumerate(flips):
        dims = [dim for dim, flip in ((-1, horizontal), (-2, vertical)) if flip]
        assert torch.equal(flipped["s1"][place], places[place].flip(dims))
    assert len({tuple(flip.tolist()) for flip in flips}) == 4, "all four orientations occur"


def test_half_of_the_places_are_flipped_each_way_and_independently() -> None:
    flips, _ = draw_flips_and_noise(42, 0, 0, 4000, ["s1"], 4)
    assert (flips.float().mean(dim=0) - 0.5).abs().max() < 0.03
    assert abs((flips[:, 0] == flips[:, 1]).float().mean() - 0.5) < 0.03


def test_what_is_drawn_inside_is_drawn_again_after() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.random()), torch.rand(1).item()]

    torch.manual_seed(0)
    with preserved_generators():
        inside = draw()
    assert draw() == inside


@pytest.mark.parametrize("trainer_class", [CSMAETrainer, Trainer])
def test_evaluation_masks_alike_whatever_the_seed_the_batch_size_and_the_trainer(trainer_class, tmp_path) -> None:
    config = tiny_config(mim_weight=0.0)
    model = build(CSMAEForPreTraining, config)
    images = draw_images(config, 10)
    tiles = [{sensor: image[row] for sensor, image in images.items()} for row in range(10)]
    with torch.no_grad():
        expected = model(**images).loss.item()
    for seed, batch in ((1, 10), (2, 10), (1, 4), (3, 1)):
        torch.manual_seed(seed)
        arguments = TrainingArguments(
            str(tmp_path), seed=seed, data_seed=seed, per_device_eval_batch_size=batch, use_cpu=True, report_to="none"
        )
        evaluated = trainer_class(model, arguments, eval_dataset=tiles).evaluate()
        assert evaluated["eval_loss"] == pytest.approx(expected, rel=1e-6), (seed, batch)
