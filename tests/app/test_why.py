import numpy as np
import pytest
import torch
from tiny_models import TWO_SENSORS, build, tiny_config

from csmae_hf import CSMAEForPreTraining, CSMAEImageProcessor, CSMAEModel
from csmae_hf.app.explorer import load_reconstructor
from csmae_hf.app.why import patch_similarity, patch_tokens, reconstruct, shifted_noise
from csmae_hf.training.reconstructions import restore_bands, restore_prediction

SIZE = 16


def tile(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "s1": {band: rng.normal(-14, 4, (SIZE, SIZE)).astype(np.float32) for band in TWO_SENSORS["s1"]},
        "s2": {band: rng.uniform(100, 4000, (SIZE, SIZE)).astype(np.float32) for band in TWO_SENSORS["s2"]},
    }


def processor(**options):
    return CSMAEImageProcessor(sensors=TWO_SENSORS, size=SIZE, **options)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_every_patch_is_hidden_at_least_once(ratio):
    passes = int(np.ceil(1 / ratio))
    noise = shifted_noise(16, passes, ["s1", "s2"])["s1"]
    hidden = noise.argsort(dim=1).argsort(dim=1) >= int(16 * (1 - ratio))
    assert hidden.any(dim=0).all()


def test_a_prediction_is_the_mean_over_the_passes_on_which_a_loss_counts():
    model, made_by, images = build(CSMAEForPreTraining, tiny_config()), processor(), tile()
    predicted, error = reconstruct(model, made_by, images, "s2", "s1")
    inputs = made_by(**images)
    total, count = torch.zeros(1, 16, 4 * 4 * 2), torch.zeros(1, 16, 1)
    for row in range(2):  # of one pass at a time
        noise = {name: values[row : row + 1] for name, values in shifted_noise(16, 2, ["s1", "s2"]).items()}
        with torch.no_grad():
            out = model(**inputs, noise=noise, output_predictions=True)
        counted = out.masks["s2" if model.config.cmr_target == "source" else "s1"][..., None]
        total, count = total + out.predictions["s2"]["s1"] * counted, count + counted
    image = restore_prediction(total / count, inputs["s1"], 4)
    expected = restore_bands(image[0], made_by, "s1")
    for band, pixels in predicted.items():
        np.testing.assert_allclose(pixels, expected[band], rtol=1e-4, atol=1e-4)
    assert error == pytest.approx(float((image - inputs["s1"]).square().mean().sqrt()), rel=1e-4)


def test_the_truth_has_no_part_in_the_prediction():
    model, made_by, images = build(CSMAEForPreTraining, tiny_config()), processor(), tile()
    alone, error = reconstruct(model, made_by, {"s2": images["s2"]}, "s2", "s1")
    beside, _ = reconstruct(model, made_by, images, "s2", "s1")
    assert error is None
    for band in TWO_SENSORS["s1"]:
        np.testing.assert_allclose(alone[band], beside[band], atol=1e-4)


def test_a_prediction_of_standardised_patches_needs_the_truth():
    model = build(CSMAEForPreTraining, tiny_config(norm_pixel_loss=True))
    with pytest.raises(ValueError, match="needs the true image"):
        reconstruct(model, processor(), {"s2": tile()["s2"]}, "s2", "s1")


def test_similarities_are_cosines_of_patch_tokens_and_each_patch_is_most_like_itself():
    model, made_by, images = build(CSMAEModel, tiny_config()), processor(), tile()
    tokens = {sensor: patch_tokens(model, made_by, images[sensor], sensor) for sensor in images}
    found = patch_similarity(tokens["s1"], tokens["s2"])
    first, second = (tokens[sensor].double().numpy() for sensor in ("s1", "s2"))
    expected = first @ second.T / np.linalg.norm(first, axis=1)[:, None] / np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    own = patch_similarity(tokens["s2"], tokens["s2"])
    assert (own.argmax(axis=1) == np.arange(16)).all()


def test_patches_lie_as_the_picture_does_where_the_model_was_fed_transposed_images():
    model, images = build(CSMAEModel, tiny_config()), tile()
    tokens = patch_tokens(model, processor(transpose=True), images["s2"], "s2").reshape(4, 4, -1)
    turned = {band: pixels.T for band, pixels in images["s2"].items()}
    plain = patch_tokens(model, processor(), turned, "s2").reshape(4, 4, -1)
    torch.testing.assert_close(tokens, plain.transpose(0, 1))


def test_a_model_without_decoders_says_so(tmp_path):
    build(CSMAEModel, tiny_config()).save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="without its decoders"):
        load_reconstructor(str(tmp_path / "encoder"))
    build(CSMAEForPreTraining, tiny_config(cmr_weight=0.0)).save_pretrained(tmp_path / "alone")
    with pytest.raises(ValueError, match="not trained to predict"):
        load_reconstructor(str(tmp_path / "alone"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_reconstructor(str(tmp_path / "nowhere"))
