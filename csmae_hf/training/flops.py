"""Floating-point operations that the mathematics of CSMAE needs: matrix products and convolutions, as PyTorch counts them.

Patches that are masked cost the encoder nothing, each decoder runs for each source it is wanted for, heads predict what is
counted. What activation checkpointing computes twice counts once, as is the convention for utilisation (Chowdhery et al.,
arXiv 2204.02311).
"""

from collections.abc import Mapping, Sequence

import torch

from configuration_csmae import CSMAEConfig
from modeling_csmae import make_masks

Counts = Mapping[frozenset[str], float]


def block_flops(tokens: int, width: int, intermediate: int) -> int:
    """Operations of one transformer block on one sequence: projections, attention, feed-forward layer."""
    projections = 2 * tokens * width * 4 * width
    attention = 2 * 2 * tokens * tokens * width
    return projections + attention + 2 * 2 * tokens * width * intermediate


def visible_patches(config: CSMAEConfig, sensors: Sequence[str]) -> dict[str, int]:
    """Count the patches that pre-training leaves visible of each sensor's image, as the model's own masks do."""
    noise = {sensor: torch.zeros(1, config.num_patches) for sensor in sensors}
    masks = make_masks(noise, config.masking, config.mask_ratio)
    return {sensor: mask.visible.shape[1] for sensor, mask in masks.items()}


def encoder_flops(config: CSMAEConfig, sensor: str, visible: int) -> tuple[int, int]:
    """Operations of encoding one image: of the patch embedding, and of the blocks."""
    embedding = 2 * config.num_patches * config.hidden_size * config.patch_size**2 * len(config.sensors[sensor])
    block = block_flops(1 + visible, config.hidden_size, config.intermediate_size or 0)
    return embedding, config.num_hidden_layers * block


def trunk_flops(config: CSMAEConfig, visible: int) -> int:
    """Operations of a decoder on one image's tokens, without its heads."""
    width, tokens = config.decoder_hidden_size, 1 + config.num_patches
    block = block_flops(tokens, width, config.decoder_intermediate_size or 0)
    return 2 * (1 + visible) * config.hidden_size * width + config.decoder_num_hidden_layers * block


def head_flops(config: CSMAEConfig, target: str, patches: int) -> int:
    """Operations of predicting some patches of one image."""
    return 2 * patches * config.decoder_hidden_size * config.patch_size**2 * len(config.sensors[target])


def training_flops(config: CSMAEConfig, counts: Counts, gathered: int = 1) -> float:
    """Operations of one training step's forward and backward pass on one process.

    Args:
        config: The model's.
        counts: Images by sensor and by pair of sensors, as of `loss_terms.count_rows`.
        gathered: Processes from which negatives are gathered, each with as many images.

    Returns:
        Three times the forward pass (each matrix product has two in the backward pass), less the patch embedding's gradient
        of the pixels, which nobody needs.
    """
    given = [sensor for sensor in config.sensors if frozenset({sensor}) in counts]
    visible = visible_patches(config, given)
    total = 0.0
    for source in given:
        images = counts[frozenset({source})]
        embedding, blocks = encoder_flops(config, source, visible[source])
        total += images * (2 * embedding + 3 * blocks)
        wanted = [target for target in given if (config.umr_weight if source == target else config.cmr_weight)]
        trunks = len(wanted) if config.decoder_type == "specific" else min(1, len(wanted))
        total += 3 * images * trunks * trunk_flops(config, visible[source])
        for target in wanted:
            counted = config.num_patches - visible[source if config.cmr_target == "source" else target]
            total += 3 * counts[frozenset({source, target})] * head_flops(config, target, counted)
    if config.mim_weight:
        pairs = [count for sensors, count in counts.items() if len(sensors) == 2]
        total += sum(3 * 2 * (2 * gathered * count) ** 2 * config.hidden_size for count in pairs)
    return total
