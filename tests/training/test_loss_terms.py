"""Loss terms averaged over the tiles that had them."""

import pytest
import torch
from tiny_models import THREE_SENSORS, draw_images, tiny_config

from csmae_hf.training.loss_terms import LossTerms, count_rows, term_names
from modeling_csmae import CSMAEForPreTraining

CPU = torch.device("cpu")


def alone(values: torch.Tensor) -> torch.Tensor:
    return values


@pytest.mark.parametrize("overrides", [{}, {"mde_weight": 1.0}, {"cmr_weight": 0.0}, {"sensors": THREE_SENSORS}])
def test_every_term_of_the_model_has_its_name(overrides: dict) -> None:
    config = tiny_config(**overrides)
    losses = CSMAEForPreTraining(config)(**draw_images(config)).losses
    assert set(term_names(config)) == set(losses)


def test_each_tile_counts_once_whatever_the_batches_are() -> None:
    terms = LossTerms(tiny_config(), CPU)
    for value, rows in ((1.0, 4), (2.0, 1)):
        counts = {frozenset({"s1"}): rows, frozenset({"s2"}): rows, frozenset({"s1", "s2"}): rows}
        terms.add({name: torch.tensor(value) for name in terms.names}, counts)
    means = terms.means(alone)
    assert means == pytest.approx(dict.fromkeys(terms.names, 6 / 5))
    assert terms.means(alone) == {}, "a new line begins with nothing"


def test_a_term_that_one_process_lacks_is_the_others_mean() -> None:
    config = tiny_config()
    both, lacking = LossTerms(config, CPU), LossTerms(config, CPU)
    images = draw_images(config, 4)
    both.add({name: torch.tensor(3.0) for name in both.names}, count_rows(images, config))
    lacking.add({"umr_s1": torch.tensor(1.0), "mim": torch.tensor(3.0)}, count_rows({"s1": images["s1"]}, config))
    other = lacking.sums
    means = both.means(lambda sums: sums + other)
    assert means == pytest.approx({**dict.fromkeys(both.names, 3.0), "umr_s1": 2.0})


def test_absent_tiles_are_not_counted() -> None:
    config = tiny_config(sensors=THREE_SENSORS)
    present = {"s1": torch.tensor([True, True, False, False]), "s2": torch.tensor([True, False, True, True])}
    counts = count_rows({**draw_images(config, 4), "present": present}, config)
    assert {tuple(sorted(sensors)): int(count) for sensors, count in counts.items()} == {
        ("s1",): 2,
        ("s2",): 3,
        ("thermal",): 4,
        ("s1", "s2"): 1,
        ("s1", "thermal"): 2,
        ("s2", "thermal"): 3,
    }


def test_bands_in_groups_are_counted_too() -> None:
    groups = {"s1": {"VH VV": torch.zeros(3, 2, 16, 16)}, "s2": {"B02": torch.zeros(3, 1, 16, 16)}}
    assert set(count_rows(groups, tiny_config()).values()) == {3}
