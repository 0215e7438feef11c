"""Floating-point operations of a training step, as PyTorch counts those of the model without storage (meta tensors).

Masked patches cost the encoder nothing, each decoder runs for each source it is wanted for, heads predict what is counted. What
activation checkpointing computes twice counts once, as is the convention for utilisation (Chowdhery et al., arXiv 2204.02311).
"""

import itertools
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from configuration_csmae import CSMAEConfig
from modeling_csmae import CSMAEForPreTraining

Counts = Mapping[frozenset[str], float]


def training_flops(config: CSMAEConfig, counts: Counts, gathered: int = 1) -> float:
    """Operations of one training step's forward and backward pass on one process.

    Args:
        config: The model's.
        counts: Images by sensor and by pair of sensors, as of `loss_terms.count_rows`.
        gathered: Processes from which negatives are gathered, each with as many images.

    Returns:
        The sum over the samples of what each needs with the sensors it has, and NT-Xent, which compares all with all.
    """
    sensors = tuple(sensor for sensor in config.sensors if frozenset({sensor}) in counts)
    key = config.to_json_string(use_diff=False)
    pairs = {pair: counts[frozenset(pair)] for pair in itertools.combinations(sensors, 2)}
    nt_xent = sum(_nt_xent_flops(config, gathered * count) for count in pairs.values())
    if len(set(counts.values())) == 1:  # every sample has every sensor
        return counts[frozenset(sensors[:1])] * _sample_flops(key, sensors) + nt_xent
    alone = {sensor: _sample_flops(key, (sensor,)) for sensor in sensors}
    together = sum(count * (_sample_flops(key, (a, b)) - alone[a] - alone[b]) for (a, b), count in pairs.items())
    return sum(counts[frozenset({sensor})] * alone[sensor] for sensor in sensors) + together + nt_xent


def _nt_xent_flops(config: CSMAEConfig, pairs: float) -> float:
    """Operations of the similarities of 2 embeds of each of so many pairs, and of the two products of their gradient."""
    return 3 * 2 * (2 * pairs) ** 2 * config.hidden_size if config.mim_weight else 0


@lru_cache(maxsize=64)
def _sample_flops(config_json: str, sensors: tuple[str, ...]) -> float:
    """Operations of the forward and backward pass of one sample that has these sensors, without NT-Xent."""
    config = CSMAEConfig.from_dict(
        json.loads(config_json) | {"mim_gather": False}
    )  # of one process, which waits for no other
    if len(sensors) == 1 and not config.umr_weight:
        return 0  # nothing to learn from
    with torch.device("meta"):
        model: Any = CSMAEForPreTraining(config)
        model.to("meta")  # what it makes of numbers as well
        model.set_attn_implementation("eager")  # whose products are all counted
        size = (config.image_size, config.image_size)
        images = {sensor: torch.empty(1, len(config.sensors[sensor]), *size) for sensor in sensors}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.train()(**images)
    pixels = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    # a product has two in the backward pass; but nobody needs the gradient of the pixels
    return 3 * counter.get_total_flops() - pixels - len(sensors) * (len(sensors) - 1) / 2 * _nt_xent_flops(config, 1)
