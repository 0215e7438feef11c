"""Plain torch modules as encoders: what their pixels become, and what their outputs become."""

import pickle

import numpy as np
import pytest
import torch
from archives import make_dataset

from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.foreign import encoder_pair
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.module_encoder import ModuleEncoder, Normalisation, pool_output, random_weights


def test_pixels_are_scaled_cut_standardised_and_put_on_channels() -> None:
    one = Normalisation(["VV", "VH", "VV"], low=-20, high=[0, -10, 0], clip=True, mean=[0.5, 0, 0], std=[0.5, 1, 2])
    assert one.own_bands == ["VV", "VH"]
    pixels = torch.tensor([[-10.0, -5.0], [-15.0, -30.0]]).reshape(2, 2, 1, 1)  # (B, VV and VH)
    expected = [
        [(0.5 - 0.5) / 0.5, 1.0, 0.5 / 2],  # VH -5 is beyond -10, and cut off
        [(0.25 - 0.5) / 0.5, 0.0, 0.25 / 2],
    ]
    np.testing.assert_allclose(one.apply(pixels)[:, :, 0, 0], expected, atol=1e-6)


def test_images_are_brought_to_the_size_of_the_module() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    small = Normalisation(["B02"], size=4).apply(ramp)
    assert small.shape == (1, 1, 4, 4)
    assert float(small.mean()) == pytest.approx(3.5)
    torch.testing.assert_close(Normalisation(["B02"]).apply(ramp), ramp)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bands": "B02"}, "expected a list of band names"),
        ({"bands": []}, "expected a list of band names"),
        ({"bands": ["B02", "B03"], "mean": [1, 2, 3]}, "mean has 3 numbers for the 2 channels B02, B03"),
        ({"bands": ["B02"], "low": 5, "high": 5}, "expected low below high"),
        ({"bands": ["B02"], "std": 0}, "expected numbers above 0"),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(fields, said) -> None:
    with pytest.raises(ValueError, match=said):
        Normalisation(**fields)


class Output:
    def __init__(self, **fields):
        self.__dict__ |= fields


def test_outputs_of_every_form_become_one_embed_an_image() -> None:
    flat, tokens, places = torch.randn(2, 3), torch.randn(2, 5, 3), torch.randn(2, 3, 4, 4)
    for output, pool, expected in (
        (flat, "mean", flat),
        (tokens, "mean", tokens.mean(1)),
        (tokens, "cls", tokens[:, 0]),
        (places, "mean", places.flatten(2).mean(2)),
        (Output(last_hidden_state=tokens), "cls", tokens[:, 0]),
        (Output(last_hidden_state=tokens, pooler_output=flat[:, :, None, None]), "pooler", flat),
        ({"a": flat}, lambda output: output["a"], flat),
    ):
        torch.testing.assert_close(pool_output(output, pool, "s2"), expected)
    for output, pool, said in (
        (places, "cls", r"gave \(2, 3, 4, 4\)"),
        ((flat,), "mean", "gave tuple"),
        (Output(last_hidden_state=tokens), "pooler", "no pooler_output"),
    ):
        with pytest.raises(ValueError, match=said):
            pool_output(output, pool, "s2")


def convolutions(channels: int, width: int, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    layers = [torch.nn.Conv2d(channels, width, 3), torch.nn.BatchNorm2d(width), torch.nn.Dropout(0.5)]
    return torch.nn.Sequential(*layers)


def two(**options) -> ModuleEncoder:
    scales = {"s1": Normalisation(["VH", "VV"], low=-25, high=0), "s2": Normalisation(["B04", "B03", "B02"], std=1000)}
    modules = {"s1": convolutions(2, 4), "s2": convolutions(3, 6)}
    return ModuleEncoder(modules, scales, tile_size=16, **options)


def test_an_embed_depends_on_its_own_tile_alone_in_whatever_mode_the_modules_came() -> None:
    dataset, encoder = make_dataset(7), two()
    assert encoder.training
    pair = encoder_pair(encoder)
    one_by_one = embed_dataset(*pair, dataset, "s2", batch_size=1)
    np.testing.assert_allclose(embed_dataset(*pair, dataset, "s2", batch_size=7), one_by_one, atol=1e-6)
    np.testing.assert_allclose(embed_dataset(*pair, dataset, "s2", num_workers=1), one_by_one, atol=1e-6)
    assert encoder.training, "the modules are left as they were found"
    assert embed_dataset(*pair, dataset, "s1").shape == (7, 6), "the narrower is filled up"


def test_embedding_changes_nothing_by_which_an_encoder_is_known() -> None:
    """On a processor, layers are made faster in place; that must not count as another encoder."""
    encoder = ModuleEncoder(
        {"s2": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 8))},
        {"s2": Normalisation(["B02", "B03", "B04"], std=1000)},
        tile_size=16,
    )
    before = Identity.of(*encoder_pair(encoder))
    embed_dataset(*encoder_pair(encoder), make_dataset(3), "s2")
    assert Identity.of(*encoder_pair(encoder)) == before
    again = ModuleEncoder(encoder.by_sensor, encoder.normalisation, tile_size=16)
    assert Identity.of(*encoder_pair(again)) == before
    assert Identity.of(*encoder_pair(pickle.loads(pickle.dumps(encoder)))) == before
    whole = Normalisation(["B02", "B03", "B04"], std=1000.0)  # and not another than 1000
    assert Identity.of(*encoder_pair(ModuleEncoder(encoder.by_sensor, {"s2": whole}, tile_size=16))) == before


def test_untrained_is_the_same_with_other_weights() -> None:
    encoder = two(fields={"note": 1})
    blank = encoder.untrained()
    assert blank.provenance_fields == encoder.provenance_fields
    assert not torch.equal(blank.by_sensor["s1"][0].weight, encoder.by_sensor["s1"][0].weight)

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.Parameter(torch.ones(3))

    assert random_weights(Own()) is None


def test_a_module_that_does_not_take_its_channels_is_named_when_it_is_given() -> None:
    with pytest.raises(ValueError, match=r"module of s1, a Sequential, does not take images \(B, 2, 16, 16\).*VH, VV"):
        ModuleEncoder({"s1": convolutions(3, 4)}, {"s1": Normalisation(["VH", "VV"])}, tile_size=16)
    with pytest.raises(ValueError, match="modules for s1, and a normalisation for s2"):
        ModuleEncoder({"s1": convolutions(3, 4)}, {"s2": Normalisation(["VH", "VV"])})
    with pytest.raises(ValueError, match="pool='max'"):
        two(pool="max")


def test_tiles_that_cannot_be_read_are_left_out_or_refused_as_ever() -> None:
    with pytest.raises(ValueError, match=r"tile_0002.*B03.*NaN"):
        embed_dataset(*encoder_pair(two()), make_dataset(4, broken=[2]), "s2")
