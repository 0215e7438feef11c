"""A third sensor by configuration alone: trained, and found across every pair."""

import itertools

import numpy as np
import pytest
import torch
from tiny_models import THREE_SENSORS, build, draw_images, tiny_config

from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from modeling_csmae import CSMAEForPreTraining, CSMAEModel

CLASSES = 4
DIRECTIONS = [*itertools.product(THREE_SENSORS, repeat=2)]


def draw_places(count: int, seed: int) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Places of one of four land covers, each with its own look in every sensor, under noise; and their labels."""
    looks_of = torch.Generator().manual_seed(0)  # the covers look alike in every draw
    generator = torch.Generator().manual_seed(seed)
    covers = torch.randint(CLASSES, (count,), generator=generator)
    images = {}
    for sensor, bands in THREE_SENSORS.items():
        looks = torch.randn(CLASSES, len(bands), 4, 4, generator=looks_of).repeat(1, 1, 4, 4)
        images[sensor] = looks[covers] + 0.7 * torch.randn(count, len(bands), 16, 16, generator=generator)
    return images, np.eye(CLASSES, dtype=bool)[covers.numpy()]


@pytest.fixture(scope="module", params=["sesd", "cecd"])
def trained(request: pytest.FixtureRequest) -> tuple[CSMAEForPreTraining, list[dict[str, float]]]:
    """A model after a few steps, and the loss terms of each."""
    torch.manual_seed(0)
    model = CSMAEForPreTraining(tiny_config(request.param, sensors=THREE_SENSORS)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images, _ = draw_places(256, seed=1)
    history = []
    for step in range(60):
        rows = slice(step % 8 * 32, step % 8 * 32 + 32)
        outputs = model(**{sensor: image[rows] for sensor, image in images.items()})
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in outputs.losses.items()})
    return model.eval(), history


def test_losses_run_over_all_ordered_pairs_and_fall(trained: tuple) -> None:
    model, history = trained
    pairs = {f"umr_{a}" if a == b else f"cmr_{a}_{b}" for a, b in DIRECTIONS}
    assert set(history[0]) == pairs | {"mim"}
    start, end = (
        {name: np.mean([step[name] for step in part]) for name in pairs} for part in (history[:5], history[-5:])
    )
    assert all(end[name] < 0.8 * start[name] for name in pairs), (start, end)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_every_sensor_finds_every_sensor(trained: tuple) -> None:
    model, _ = trained
    images, labels = draw_places(120, seed=2)
    with torch.no_grad():
        embeds = model.csmae(**images).embeds
    ids = [str(i) for i in range(120)]
    splits = ["validation"] * 40 + ["test"] * 80
    embedded = {sensor: Embedded(values.numpy(), ids, labels, splits) for sensor, values in embeds.items()}
    results = evaluate_retrieval(embedded, k=5, progress=False)
    assert [(result.query_sensor, result.archive_sensor) for result in results] == DIRECTIONS
    for result in results:
        assert result.scores["precision"] > 0.8, (result.name, result.scores)


def test_sensors_may_come_in_any_order_and_number(trained: tuple) -> None:
    model, _ = trained
    images, _ = draw_places(3, seed=3)
    joint = model.csmae(**images).embeds
    for sensor, image in images.items():
        torch.testing.assert_close(model.csmae(**{sensor: image}).embeds[sensor], joint[sensor], atol=1e-5, rtol=1e-5)
    backwards = model.csmae(**dict(reversed(images.items()))).embeds
    assert all(torch.equal(backwards[sensor], joint[sensor]) for sensor in images)


@pytest.mark.parametrize("size", [(16, 32), (8, 20), (4, 4)])
def test_sizes_that_are_not_square_work_for_every_sensor(size: tuple[int, int]) -> None:
    config = tiny_config(sensors=THREE_SENSORS)
    images = {sensor: torch.randn(2, len(bands), *size) for sensor, bands in THREE_SENSORS.items()}
    patches = size[0] * size[1] // 16
    encoder = build(CSMAEModel, config)
    tokens = encoder(**images, interpolate_pos_encoding=True).last_hidden_state
    assert {value.shape for value in tokens.values()} == {(2, 1 + patches, 32)}
    with pytest.raises(ValueError, match="interpolate_pos_encoding=True"):
        encoder(**(images if size != (16, 16) else {}))
    if patches > 1:
        model = build(CSMAEForPreTraining, config)
        outputs = model(**images, interpolate_pos_encoding=True)
        assert outputs.predictions["s1"]["thermal"].shape == (2, patches, 4 * 4 * 4)
        assert torch.isfinite(outputs.loss)


def test_rows_and_columns_are_not_confused() -> None:
    config = tiny_config()
    model = build(CSMAEModel, config)
    tall = torch.randn(1, 3, 8, 24)
    plain = model(s2=tall, interpolate_pos_encoding=True).embeds["s2"]
    turned = model(s2=tall.transpose(2, 3), interpolate_pos_encoding=True).embeds["s2"]
    assert (plain - turned).abs().max() > 1e-2
    columns_then_rows = model.positions((2, 6), torch.float32)[0, 1:].reshape(2, 6, 32)
    assert torch.equal(columns_then_rows[0, :, 16:], columns_then_rows[0, :1, 16:].expand(6, -1))  # one row, one half
    assert torch.equal(columns_then_rows[:, 3, :16], columns_then_rows[:1, 3, :16].expand(2, -1))


def test_images_of_the_trained_size_need_no_interpolation() -> None:
    config = tiny_config()
    model, images = build(CSMAEModel, config), draw_images(config)
    plain, asked = model(**images), model(**images, interpolate_pos_encoding=True)
    assert torch.equal(plain.embeds["s1"], asked.embeds["s1"])
