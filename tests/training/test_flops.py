"""The count of operations against PyTorch's own, which watches what runs."""

from typing import Any

import pytest
import torch
from tiny_models import THREE_SENSORS, draw_images, tiny_config
from torch.utils.flop_counter import FlopCounterMode

from configuration_csmae import CSMAEConfig
from csmae_hf.training.flops import training_flops
from csmae_hf.training.loss_terms import count_rows
from modeling_csmae import CSMAEForPreTraining

CASES: dict[str, dict[str, Any]] = {
    "sesd": {"variant": "sesd"},
    "cecd": {"variant": "cecd"},
    "cesd": {"variant": "cesd"},
    "secd": {"variant": "secd"},
    "three sensors": {"sensors": THREE_SENSORS},
    "disjoint masks": {"masking": "disjoint", "mask_ratio": 0.7, "cmr_target": "target"},
    "few visible": {"mask_ratio": 0.75},
    "no cross terms": {"cmr_weight": 0.0, "mim_weight": 0.0},
    "no reconstruction": {"cmr_weight": 0.0, "umr_weight": 0.0},
    "cross terms alone": {"umr_weight": 0.0, "variant": "secd"},
}


def counted(config: CSMAEConfig, batch: dict[str, Any]) -> float:
    torch.manual_seed(0)
    model = CSMAEForPreTraining(config).train()
    model.set_attn_implementation("eager")  # whose products are all counted
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_pytorch_counts(case: str) -> None:
    config = tiny_config(**CASES[case])
    batch = draw_images(config, 3)
    assert training_flops(config, count_rows(batch, config)) == counted(config, batch)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ["cesd", "secd"])
def test_a_sample_costs_what_it_needs_with_the_sensors_it_has(variant: str) -> None:
    config = tiny_config(variant)
    images = draw_images(config, 3)
    present = {"s1": torch.tensor([True, False, True]), "s2": torch.tensor([False, True, True])}
    rows = {sensors: float(count) for sensors, count in count_rows({**images, "present": present}, config).items()}
    of_each = [
        {sensor: image[:1] for sensor, image in images.items() if flags[sensor]}
        for flags in ({"s1": 1, "s2": 0}, {"s1": 0, "s2": 1}, {"s1": 1, "s2": 1})
    ]
    assert training_flops(config, rows) == sum(counted(config, sample) for sample in of_each)
    alone = {"s2": images["s2"]}
    assert training_flops(config, count_rows(alone, config)) == counted(config, alone)  # type: ignore[arg-type]


def test_gathered_negatives_are_counted() -> None:
    config = tiny_config()
    counts = {frozenset(sensors): 3.0 for sensors in (["s1"], ["s2"], ["s1", "s2"])}
    one, two = training_flops(config, counts), training_flops(config, counts, gathered=2)
    assert two - one == 3 * 2 * (12**2 - 6**2) * config.hidden_size


def test_the_papers_model_at_its_size() -> None:
    """By hand: SESD base, one pair; 33 tokens through 12 blocks a sensor, 65 through 8 decoder blocks for 4 predictions."""
    block = 24 * 33 * 768**2 + 4 * 33**2 * 768
    decoder_block = 24 * 65 * 512**2 + 4 * 65**2 * 512
    embedding = 2 * 64 * 225 * 12 * 768
    heads = 2 * 2 * 32 * 512 * 225 * 12
    decoders = 4 * (2 * 33 * 768 * 512 + 8 * decoder_block) + heads
    nt_xent = 2 * 2**2 * 768
    expected = 3 * (2 * 12 * block + decoders + nt_xent) + 2 * embedding
    counts = {frozenset(sensors): 1.0 for sensors in (["s1"], ["s2"], ["s1", "s2"])}
    assert training_flops(CSMAEConfig.for_variant("sesd"), counts) == expected
