"""The picture of reconstructions shows what the model made, in the archive's units, stretched like the truth."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import build

from configuration_csmae import CSMAEConfig
from csmae_hf.training import reconstructions
from csmae_hf.training.reconstructions import draw_reconstructions, patch_pixels, restore_bands, restore_prediction
from csmae_hf.visualize import false_color, to_rgb
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining, patchify, standardize_patches

SENSORS = {"s1": ["VH", "VV"], "s2": ["B02", "B03", "B04", "B08"]}
SIZE, PATCH = 16, 4


def tiles(count: int = 2, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"tile{number}",
            "s1": {band: rng.normal(-15, 4, (SIZE, SIZE)).astype(np.float32) for band in SENSORS["s1"]},
            "s2": {band: rng.integers(100, 4000, (SIZE, SIZE)).astype(np.uint16) for band in SENSORS["s2"]},
            "labels": [0, 1],
        }
        for number in range(count)
    ]


def config(**overrides) -> CSMAEConfig:
    small = {"hidden_size": 32, "num_attention_heads": 2, "decoder_hidden_size": 16, "decoder_num_attention_heads": 2}
    depths = {"multi_sensor_encoder_depth": 1, "cross_sensor_encoder_depth": 1, "decoder_num_hidden_layers": 1}
    return CSMAEConfig(sensors=SENSORS, image_size=SIZE, patch_size=PATCH, **small, **depths, **overrides)


class Clairvoyant(CSMAEForPreTraining):
    """Predicts every patch as it is."""

    def forward(self, **inputs):
        outputs = super().forward(**inputs)
        truth = {sensor: patchify(inputs[sensor], PATCH) for sensor in SENSORS}
        if self.config.norm_pixel_loss:
            truth = {sensor: standardize_patches(patches) for sensor, patches in truth.items()}
        predictions = {
            source: {target: truth[target] for target in made} for source, made in outputs.predictions.items()
        }
        return SimpleNamespace(masks=outputs.masks, predictions=predictions)


def drawn(monkeypatch, model, processor, rows) -> tuple[list, list]:
    """The cells and column titles that would be drawn."""
    seen = {}

    def catch(cells, titles, path, **kwargs):
        seen.update(cells=cells, titles=titles)
        return path

    monkeypatch.setattr(reconstructions, "draw_image_grid", catch)
    draw_reconstructions(model, processor, rows, "unused.png", label_names=["a", "b"])
    return seen["cells"], [title.replace("\n", " ") for title in seen["titles"]]


@pytest.mark.parametrize("transpose", [False, True])
def test_bands_come_back_in_the_archives_units(transpose):
    processor = CSMAEImageProcessor(sensors=SENSORS, size=SIZE, transpose=transpose)
    (tile,) = tiles(1)
    for sensor in SENSORS:
        image = processor(**{sensor: tile[sensor]})[sensor][0]
        restored = restore_bands(image, processor, sensor)
        for band, layer in tile[sensor].items():
            np.testing.assert_allclose(restored[band], layer, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("norm_pixel_loss", [False, True])
def test_predictions_come_back_in_the_inputs_scale(norm_pixel_loss):
    images = torch.randn(2, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 3 + 1
    patches = patchify(images, PATCH)
    if norm_pixel_loss:
        patches = standardize_patches(patches)
    torch.testing.assert_close(
        restore_prediction(patches, images, PATCH, norm_pixel_loss), images, rtol=1e-4, atol=1e-4
    )


def test_a_patchs_flag_covers_its_pixels():
    flags = torch.zeros(1, 16)
    flags[0, 6] = 1  # second row, third column of 4 x 4
    pixels = patch_pixels(flags, PATCH, SIZE)[0]
    assert pixels[4:8, 8:12].all()
    assert pixels.sum() == 16


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("cmr_target", "norm"), [("source", False), ("target", True)])
def test_a_perfect_model_gives_the_truth_where_it_counts_and_grey_elsewhere(monkeypatch, cmr_target, norm, transpose):
    processor = CSMAEImageProcessor(sensors=SENSORS, size=SIZE, transpose=transpose)
    model = build(Clairvoyant, config(cmr_target=cmr_target, norm_pixel_loss=norm))
    rows = tiles()
    cells, titles = drawn(monkeypatch, model, processor, rows)
    assert titles == [
        "S1",
        "S2 true colour",
        "S2 false colour",
        "S1 masked",
        "S2 masked",
        "S1 → S1",
        "S2 → S2",
        "S1 → S2",
        "S2 → S1",
    ]
    masks = model(**processor(**{sensor: [row[sensor] for row in rows] for sensor in SENSORS})).masks
    for place, row in enumerate(rows):
        cell = dict(zip(titles, cells[place], strict=True))
        truth = {"S1": to_rgb(row["s1"]), "S2": to_rgb(row["s2"])}
        np.testing.assert_allclose(cell["S1"], truth["S1"], atol=2e-3)
        np.testing.assert_allclose(cell["S2 true colour"], truth["S2"], atol=2e-3)
        np.testing.assert_allclose(cell["S2 false colour"], false_color(row["s2"]), atol=2e-3)
        hidden = {}
        for sensor in SENSORS:
            grid = masks[sensor][place].bool().reshape(4, 4).numpy()
            hidden[sensor.upper()] = np.kron(grid.T if transpose else grid, np.ones((4, 4), bool))
        for name in truth:
            np.testing.assert_allclose(cell[f"{name} → {name}"], truth[name], atol=2e-3)
            masked = cell[f"{name} masked"]
            assert (masked[hidden[name]] == masked[hidden[name]][0, 0]).all(), "hidden patches are grey"
            np.testing.assert_allclose(masked[~hidden[name]], truth[name][~hidden[name]], atol=2e-3)
        for source, target in (("S1", "S2"), ("S2", "S1")):
            counted = hidden[source if cmr_target == "source" else target]
            crossed = cell[f"{source} → {target}"]
            np.testing.assert_allclose(crossed[counted], truth[target][counted], atol=2e-3)
            assert (crossed[~counted] == crossed[~counted][0, 0]).all()


def test_an_unknown_sensors_prediction_is_stretched_by_the_truths_limits(monkeypatch):
    """A prediction of constant value must look constant; by limits of its own its noise would fill the range."""
    sensors = {"thermal": ["T1", "T2", "T3"]}
    processor = CSMAEImageProcessor(
        sensors=sensors,
        size=SIZE,
        band_mean=dict.fromkeys(sensors["thermal"], 5.0),
        band_std=dict.fromkeys(sensors["thermal"], 2.0),
    )
    shape = config().to_dict() | {"sensors": sensors}
    model = build(
        CSMAEForPreTraining, CSMAEConfig(**{name: shape[name] for name in shape if name in CSMAEConfig().to_dict()})
    )
    rng = np.random.default_rng(0)
    rows = [{"thermal": {band: rng.normal(5, 2, (SIZE, SIZE)).astype(np.float32) for band in sensors["thermal"]}}]
    with torch.no_grad():
        for head in model.decoders["thermal"].heads.values():
            head.weight.mul_(1e-4)
            head.bias.zero_()
    cells, titles = drawn(monkeypatch, model, processor, rows)
    assert titles == ["THERMAL", "THERMAL masked", "THERMAL → THERMAL"]
    hidden = (cells[0][1] == cells[0][1][..., :1]).all(axis=-1)
    assert cells[0][2][hidden].std() < 0.05


def test_the_picture_is_written(tmp_path):
    path = draw_reconstructions(
        build(CSMAEForPreTraining, config(cmr_weight=0)),
        CSMAEImageProcessor(sensors=SENSORS, size=SIZE),
        tiles(),
        tmp_path / "x.png",
    )
    assert path.read_bytes().startswith(b"\x89PNG")
