"""PyTorch CSMAE: cross-sensor masked autoencoders for remote sensing (Hackstein et al., arXiv 2401.07782).

Shapes in comments: B images, L patches of an image, K of them visible, N = B x sensors run as one batch, D width of the
encoder, E width of a decoder, C bands of a sensor, P edge of a patch.
"""

import copy
import functools
import inspect
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

try:
    from .configuration_csmae import DEFAULT_SENSORS, TOOL_ARGUMENTS, CSMAEConfig, CSMAEPushMixin
except ImportError:  # imported as a plain top-level module
    if __package__:
        raise
    from configuration_csmae import DEFAULT_SENSORS, TOOL_ARGUMENTS, CSMAEConfig, CSMAEPushMixin

logger = logging.getLogger(__name__)

Forward = TypeVar("Forward", bound=Callable[..., Any])

Layers = dict[str, tuple[torch.Tensor, ...]]
"""A tensor of each block, by sensor."""


class PatchMask(NamedTuple):
    """Which patches of a batch of images are visible.

    Attributes:
        visible: (B, K) indices of the visible patches, in the order in which the encoder sees them.
        hidden: (B, L - K) indices of the hidden patches.
        restore: (B, L) position of each patch among the visible and then the hidden ones: what puts tokens back in place.
    """

    visible: torch.Tensor
    hidden: torch.Tensor
    restore: torch.Tensor

    def as_map(self) -> torch.Tensor:
        """Return (B, L), 1.0 where a patch is hidden, 0.0 where it is visible."""
        return (self.restore >= self.visible.shape[1]).float()


@dataclass
class CSMAEModelOutput(ModelOutput):
    """What the encoder makes of each sensor's images.

    Args:
        embeds: Pooled features by sensor, each (B, D).
        last_hidden_state: Tokens by sensor after the last LayerNorm, each (B, 1 + L, D), CLS first; with
            `visible_patches`, (B, 1 + K, D).
        hidden_states: By sensor, the tokens before the first block and after each block.
        attentions: By sensor, the attention weights of each block, (B, heads, 1 + L, 1 + L).
        present: By sensor, (B,), the flags that `forward` was given. Where one is False, everything above is zeros.
    """

    embeds: dict[str, torch.Tensor] | None = None
    last_hidden_state: dict[str, torch.Tensor] | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None
    present: dict[str, torch.Tensor] | None = None


@dataclass
class CSMAEForPreTrainingOutput(ModelOutput):
    """Loss of a batch and everything it was made of.

    Args:
        loss: Weighted sum of the terms, a scalar.
        losses: Each unweighted term by name: `umr_s1`, `cmr_s1_s2` (s2 predicted from s1), `mim`, `mde`.
        embeds: Pooled features of the visible patches by sensor, each (B, D).
        masks: By sensor, (B, L), 1.0 where a patch was hidden.
        predictions: `predictions[source][target]`, (B, L, P * P * C of the target), a patch flattened as (row, column,
            band); standardised per patch where `norm_pixel_loss` is set. In training only on request.
        hidden_states: As in [`CSMAEModelOutput`].
        attentions: As in [`CSMAEModelOutput`].
        present: As in [`CSMAEModelOutput`]; masks say nothing of an absent image, predictions are zeros where the source
            is absent.
    """

    loss: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    embeds: dict[str, torch.Tensor] | None = None
    masks: dict[str, torch.Tensor] | None = None
    predictions: dict[str, dict[str, torch.Tensor]] | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None
    present: dict[str, torch.Tensor] | None = None


@dataclass
class CSMAEForImageClassificationOutput(ModelOutput):
    """What the classifier makes of each place.

    Args:
        loss: Classification loss, a scalar, where labels were given.
        logits: (B, number of labels).
        embeds: Pooled features by sensor, each (B, D).
        hidden_states: As in [`CSMAEModelOutput`].
        attentions: As in [`CSMAEModelOutput`].
        present: As in [`CSMAEModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    embeds: dict[str, torch.Tensor] | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None
    present: dict[str, torch.Tensor] | None = None


@dataclass
class CSMAEBackboneOutput(BackboneOutput):
    """Feature maps of each place.

    Args:
        feature_maps: One for each of `out_features`, (B, D, H / P, W / P): of the one sensor given, or the mean over the sensors
            that a sample has, so that a head takes any of them.
        sensor_feature_maps: The same of each sensor, by its name; zeros where it is absent.
        hidden_states: As in [`CSMAEModelOutput`].
        attentions: As in [`CSMAEModelOutput`].
        present: As in [`CSMAEModelOutput`].
    """

    feature_maps: tuple[torch.Tensor, ...] | None = None  # type: ignore[assignment]
    sensor_feature_maps: Layers | None = None
    hidden_states: Layers | None = None  # type: ignore[assignment]
    attentions: Layers | None = None  # type: ignore[assignment]
    present: dict[str, torch.Tensor] | None = None


# Patches, positions and masks: pure functions


def patchify(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut images (B, C, H, W) into patches (B, L, P * P * C), row by row, each flattened as (row, column, band)."""
    batch, bands, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(batch, bands, rows, patch_size, columns, patch_size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size * patch_size * bands)


def unpatchify(patches: torch.Tensor, patch_size: int, height: int, width: int) -> torch.Tensor:
    """Put patches (B, L, P * P * C) together to images (B, C, height, width); the inverse of [`patchify`]."""
    rows, columns = height // patch_size, width // patch_size
    grid = patches.reshape(patches.shape[0], rows, columns, patch_size, patch_size, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(patches.shape[0], -1, height, width)


def standardize_patches(patches: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Standardise each patch by its own mean and unbiased variance (He et al., arXiv 2111.06377)."""
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + eps) ** 0.5


def sincos_positions(grid: tuple[int, int], dim: int, trained_grid: tuple[int, int] | None = None) -> torch.Tensor:
    """Frozen 2-D sin-cos position embeddings of a grid of patches (He et al., arXiv 2111.06377).

    Args:
        grid: Rows and columns of patches.
        dim: Width of an embedding, a multiple of 4.
        trained_grid: Rows and columns over which the coordinates run; another grid is stretched onto it, pixel centres
            kept, as bilinear resizing would.

    Returns:
        (1, 1 + rows * columns, dim) float32 on the CPU; the first is the CLS token's, zeros.
    """

    def axis(size: int, trained_size: int) -> torch.Tensor:
        centres = torch.arange(size, dtype=torch.float64, device="cpu") + 0.5
        return centres * (trained_size / size) - 0.5

    def encode(coordinates: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(dim // 4, dtype=torch.float64, device="cpu") / (dim // 4)
        angles = coordinates.reshape(-1, 1) * 10000.0**-steps
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    trained_grid = trained_grid or grid
    rows, columns = torch.meshgrid(axis(grid[0], trained_grid[0]), axis(grid[1], trained_grid[1]), indexing="ij")
    patches = torch.cat([encode(columns), encode(rows)], dim=1)
    return F.pad(patches, (0, 0, 1, 0)).float().unsqueeze(0)


def fixed_noise(num_patches: int, stream: int, device: torch.device) -> torch.Tensor:
    """Noise (L,) in [0, 1) for evaluation: a function of patch and stream (the sensor's number) alone, alike on every device."""
    state = torch.arange(num_patches, device=device) + 0x9E3779B9 * (stream + 1)
    for _ in range(2):  # the integer mixing of Wang / Mueller, in 32 of the 64 bits
        state = ((state ^ (state >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    state = state ^ (state >> 16)
    return (state >> 8).float() / 2**24


def select_patches(patches: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Select patches of each image: (B, L, width) and indices (B, M) give (B, M, width)."""
    return patches.gather(1, indices.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))


def make_masks(noise: Mapping[str, torch.Tensor], masking: str, mask_ratio: float) -> dict[str, PatchMask]:
    """Choose each sensor's visible patches from noise: those with the least, `int(L * (1 - mask_ratio))` of them.

    Args:
        noise: (B, L) by sensor. `identical` and `disjoint` use the first sensor's for all.
        masking: `"random"`, `"identical"`, or `"disjoint"`: no patch is visible to two sensors and every patch to one;
            the first sensor takes its share and the others divide what is left.
        mask_ratio: Share of hidden patches (of the first sensor, if disjoint).

    Returns:
        A mask by sensor.
    """

    def show(order: torch.Tensor, start: int, stop: int) -> PatchMask:
        """Leave visible the patches from `start` to `stop` of an order (B, L)."""
        shuffled = torch.cat([order[:, start:stop], order[:, :start], order[:, stop:]], dim=1)
        return PatchMask(shuffled[:, : stop - start], shuffled[:, stop - start :], torch.argsort(shuffled, dim=1))

    orders = {sensor: torch.argsort(values, dim=1, stable=True) for sensor, values in noise.items()}
    first = next(iter(orders.values()))
    visible = int(first.shape[1] * (1 - mask_ratio))
    if masking == "random":
        return {sensor: show(order, 0, visible) for sensor, order in orders.items()}
    if masking == "identical" or len(orders) == 1:
        return dict.fromkeys(orders, show(first, 0, visible))
    others, left = len(orders) - 1, first.shape[1] - visible
    bounds = [0, visible, *(visible + left * (i + 1) // others for i in range(others))]
    return {sensor: show(first, bounds[i], bounds[i + 1]) for i, sensor in enumerate(orders)}


# Losses: pure functions, in float32 whatever the model computes in


def reconstruction_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over pixels, then counted patches, of two (B, counted patches, pixels); 0 where nothing is counted."""
    if prediction.numel() == 0:
        return prediction.float().sum()  # the mean of nothing is NaN
    # patches have equally many pixels: one mean is both; mse_loss would keep prediction and target, this keeps one tensor
    return (prediction.float() - target.float()).square().mean()


def unit_vectors(embeds: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """Scale embeds (B, D) to length 1, in float32.

    A zero embed has no direction: it stays zero and gets no gradient, where dividing by a small number would give it a
    huge one.
    """
    embeds = embeds.float()
    length = embeds.norm(dim=-1, keepdim=True)
    return embeds / length.masked_fill(length < eps, torch.inf)


def nt_xent_loss(embeds: torch.Tensor, other_embeds: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross entropy between two sensors' embeds (Chen et al., arXiv 2002.05709).

    Each of the 2B embeds is an anchor; its positive is the same place seen by the other sensor, the 2B - 2 others are
    its negatives.

    Args:
        embeds: (B, D).
        other_embeds: (B, D), the same places seen by the other sensor.
        temperature: Divides the cosine similarities.

    Returns:
        A scalar, the mean over the anchors; 0 for one place, which has no negatives, and for none.
    """
    with _without_autocast(embeds.device):  # mixed precision would compute the similarities in 16 bits
        anchors = unit_vectors(torch.cat([embeds, other_embeds]))
        if anchors.shape[0] == 0:
            return anchors.sum()
        similarity = anchors @ anchors.T / temperature
        itself = torch.eye(anchors.shape[0], dtype=torch.bool, device=anchors.device)
        positive = torch.arange(anchors.shape[0], device=anchors.device).roll(embeds.shape[0])
        return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), positive)


def _without_autocast(device: torch.device) -> AbstractContextManager:
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def discrepancy_loss(embeds: torch.Tensor, other_embeds: torch.Tensor) -> torch.Tensor:
    """Discrepancy elimination: -mean log(1 + exp(cosine)) between two sensors' embeds of the same places, each (B, D)."""
    cosine = (unit_vectors(embeds) * unit_vectors(other_embeds)).sum(dim=-1)
    return -F.softplus(cosine).mean() if len(cosine) else cosine.sum()


def classification_loss(
    labels: torch.Tensor,
    logits: torch.Tensor,
    config: PreTrainedConfig,
    num_items_in_batch: torch.Tensor | int | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """The loss of `config.problem_type` as everywhere in Transformers, which however divides by `num_items_in_batch` one of the three.

    Args:
        labels: (B,) class indices, -100 for none; else (B, number of labels), of 0 and 1 with -100 where it is not known, or
            any numbers.
        logits: (B, number of labels).
        config: Of the model.
        num_items_in_batch: What to divide the sum by; default the number of labels that are known.
        **kwargs: Not used.

    Returns:
        Cross entropy, binary cross entropy or squared error, a scalar; 0 where no label is known.
    """
    known = labels != -100
    if config.problem_type == "single_label_classification":
        total = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    elif config.problem_type == "multi_label_classification":
        total = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0), known.float(), reduction="sum")
    else:
        known = torch.ones_like(known)
        total = F.mse_loss(logits, labels, reduction="sum")
    count = known.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch, device=logits.device)
    return total / count.clamp(min=1)


# Rows: which samples have which sensor, and what other processes hold


class PresentRows:
    """Which samples of a batch have which sensor: (B,) bool by sensor, False where the sample has no image of it.

    Rows of absent samples are taken out before anything is computed and put back as zeros at the end. A sensor without
    flags has every sample, and its tensors pass untouched.
    """

    def __init__(self, present: Mapping[str, torch.Tensor]):
        self.present = dict(present)
        self.rows = {sensor: flags.nonzero().squeeze(1) for sensor, flags in present.items()}

    def take(self, sensor: str, values: torch.Tensor) -> torch.Tensor:
        """Keep the rows of (B, ...) that have the sensor."""
        return values.index_select(0, self.rows[sensor]) if sensor in self.rows else values

    def take_shared(self, sensor: str, other: str, values: torch.Tensor) -> torch.Tensor:
        """Of rows taken for a sensor, keep those that have the other sensor too."""
        return values[self.take(sensor, self.present[other])] if other in self.present else values

    def put_back(self, sensor: str, values: torch.Tensor) -> torch.Tensor:
        """Return (B, ...) of rows taken for a sensor, zeros where it is absent."""
        if sensor not in self.rows:
            return values
        full = values.new_zeros(len(self.present[sensor]), *values.shape[1:])
        return full.index_copy(0, self.rows[sensor], values)

    def put_back_all(self, layers: Mapping[str, Sequence[torch.Tensor]] | None) -> Layers | None:
        """[`put_back`] of each block's tensor."""
        if layers is None:
            return None
        return {sensor: tuple(self.put_back(sensor, value) for value in values) for sensor, values in layers.items()}


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all processes.

    Every process computes the same loss of all rows, so its own rows' gradient is already complete. It is multiplied by
    the number of processes because data-parallel training then divides the parameters' gradients by it.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, count)
        lengths = torch.cat(counts).tolist()
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])  # collectives want equal shapes
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        ctx.start, ctx.length = sum(lengths[: dist.get_rank()]), len(rows)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0].narrow(0, ctx.start, ctx.length) * dist.get_world_size()


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Concatenate the rows (n, ...) of all processes, in their order, with a gradient; n may differ, and be 0.

    The gradient is that of one process that holds all rows, once data-parallel training has averaged it over the
    processes, if each of them computes the same loss of the result.
    """
    return _GatherRows.apply(rows)


# Bands by name


def band_indices(available: Mapping[str, Sequence[str]], wanted: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Find the channel of each wanted band among those that a model has, by sensor, sensors sorted by name.

    Raises:
        ValueError: If a sensor or a band is unknown, a band is named twice, or nothing is wanted; it names them.
    """
    offer = f"the checkpoint has {_describe(available)}. Name some of these."
    unknown = [sensor for sensor in wanted if sensor not in available]
    if unknown or not wanted:
        raise ValueError(f"Unknown sensor {', '.join(map(repr, unknown)) or '(none given)'}: {offer}")
    indices = {}
    for sensor, bands in sorted(wanted.items()):
        has = list(available[sensor])
        if not bands or isinstance(bands, str) or len(set(bands)) != len(bands):
            raise ValueError(f"sensors[{sensor!r}] = {bands!r} must list at least one band, and each band once.")
        missing = [band for band in bands if band not in has]
        if missing:
            raise ValueError(f"Unknown band {', '.join(map(repr, missing))} of {sensor}: {offer}")
        indices[sensor] = [has.index(band) for band in bands]
    return indices


def _keep_keys(modules: nn.ModuleDict, keys: Iterable[str]) -> None:
    for name in set(modules) - set(keys):
        del modules[name]


def _like(parameter: torch.Tensor, values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(), requires_grad=parameter.requires_grad)


# What tools read of a model, and what it says in training


def names_sensors(forward: Forward) -> Forward:
    """Let the signature of a `forward`, seen on a model, name the sensors of that model's configuration.

    Transformers' Trainer drops the columns of a data set that the signature does not name: here those of every sensor but s1
    and s2. On the class the function is as it was written.
    """
    return cast(Forward, _ForwardOfSensors(forward))


class _ForwardOfSensors:
    def __init__(self, forward: Callable[..., Any]):
        self.forward = forward

    def __get__(self, model: Any, owner: type) -> Callable[..., Any]:
        if model is None:
            return self.forward
        if torch.compiler.is_compiling():  # it would trace the making of a signature, and needs none
            return partial(self.forward, model)
        return MethodType(_with_sensors(self.forward, tuple(model.config.sensors)), model)


@functools.cache
def _with_sensors(forward: Callable[..., Any], sensors: tuple[str, ...]) -> Callable[..., Any]:
    """The same function, with an argument a sensor in its signature."""

    @functools.wraps(forward)
    def forward_of_sensors(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    signature = inspect.signature(forward)
    *written, images = (
        each for name, each in signature.parameters.items() if name in sensors or name not in DEFAULT_SENSORS
    )
    further = [
        inspect.Parameter(sensor, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=images.annotation)
        for sensor in sensors
        if sensor not in DEFAULT_SENSORS
    ]
    forward_of_sensors.__signature__ = signature.replace(parameters=[*written, *further, images])  # type: ignore[attr-defined]
    return forward_of_sensors


# what it returns is a constant to a compiler, which calls it while tracing: the compiled steps say nothing again
@torch.compiler.assume_constant_result
def _say_absent(sensors: str) -> None:
    logger.warning(
        f"The first batch of training has no image of {sensors}. What a model has for a sensor is not trained while no image of it "
        "comes: look at the columns of the data set and at its collator, or choose the sensors of the model, as in "
        "`from_pretrained(..., sensors={...})`."
    )


# Modules


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in plain matrix products, which also gives its weights; (B, heads, tokens, D / heads) throughout."""
    weights = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class CSMAEAttention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value."""

    def __init__(self, config: CSMAEConfig, hidden_size: int, num_attention_heads: int):
        super().__init__()
        self.config = config  # the model's own, so that a change of the attention implementation reaches every layer
        self.num_attention_heads = num_attention_heads
        self.head_dim = hidden_size // num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend among the tokens of each image, (N, tokens, D)."""
        batch, tokens, width = hidden_states.shape
        qkv = self.qkv(hidden_states).reshape(batch, tokens, 3, self.num_attention_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, tokens, D / heads)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        if output_attentions or batch == 0:  # the others give no weights, and fail where no sample has the sensor
            attend = eager_attention_forward
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        attended, weights = attend(self, query, key, value, None, dropout=dropout, scaling=self.scaling)
        return self.proj(attended.reshape(batch, tokens, width)), weights


class CSMAEMLP(nn.Module):
    """Feed-forward layer of a block."""

    def __init__(self, config: CSMAEConfig, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform each token, (N, tokens, D)."""
        return self.fc2(self.activation(self.fc1(hidden_states)))


class CSMAELayer(GradientCheckpointingLayer):
    """Pre-norm transformer block."""

    def __init__(
        self,
        config: CSMAEConfig,
        hidden_size: int,
        num_attention_heads: int,
        intermediate_size: int,
        layer_norm_eps: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.attention = CSMAEAttention(config, hidden_size, num_attention_heads)
        self.norm2 = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.mlp = CSMAEMLP(config, hidden_size, intermediate_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the tokens, (N, tokens, D), and the attention weights where asked for or at hand."""
        attended, weights = self.attention(self.norm1(hidden_states), output_attentions)
        hidden_states = hidden_states + self.dropout(attended)
        hidden_states = hidden_states + self.dropout(self.mlp(self.norm2(hidden_states)))
        return hidden_states, weights


class CSMAEPositionEmbeddings(nn.Module):
    """Frozen 2-D sin-cos positions; computed, never saved."""

    table: torch.Tensor

    def __init__(self, grid_size: int, hidden_size: int):
        super().__init__()
        self.grid = (grid_size, grid_size)
        self.hidden_size = hidden_size
        self.register_buffer("table", sincos_positions(self.grid, hidden_size), persistent=False)

    def forward(self, grid: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        """Return (1, 1 + rows * columns, D) for a grid of patches, CLS first."""
        if grid == self.grid:
            return self.table.to(dtype)
        return sincos_positions(grid, self.hidden_size, trained_grid=self.grid).to(self.table.device, dtype)


class CSMAEEmbeddings(nn.Module):
    """A sensor's own patch embedding and CLS token."""

    def __init__(self, config: CSMAEConfig, num_bands: int):
        super().__init__()
        patch = config.patch_size
        self.projection = nn.Conv2d(num_bands, config.hidden_size, kernel_size=patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    def forward(self, images: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
        """Embed images (B, C, H, W) at positions (1, 1 + L, D); only the visible (B, K) of the patches, where given."""
        tokens = self.projection(images).flatten(2).transpose(1, 2) + positions[:, 1:]  # (B, L, D)
        if visible is not None:
            tokens = select_patches(tokens, visible)  # (B, K, D)
        cls_token = (self.cls_token + positions[:, :1]).expand(tokens.shape[0], -1, -1)
        return torch.cat([cls_token, tokens], dim=1)

    def keep_channels(self, channels: list[int]) -> None:
        """Embed only these channels of the images, in this order."""
        kernel = self.projection.weight
        self.projection.weight = _like(kernel, kernel[:, channels])
        self.projection.in_channels = len(channels)


class CSMAESensorEmbeddings(nn.ModuleDict):
    """The embeddings of all sensors by name; callable, which sharded training (FSDP) asks of input embeddings."""

    def forward(
        self, sensor: str, images: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor | None
    ) -> torch.Tensor:
        """Embed images of one sensor; see [`CSMAEEmbeddings`]."""
        return self[sensor](images, positions, visible)


class CSMAEEncoder(nn.Module):
    """Transformer blocks and the LayerNorm after them."""

    def __init__(self, config: CSMAEConfig, depth: int):
        super().__init__()
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size, config.layer_norm_eps)
        self.layers = nn.ModuleList(CSMAELayer(config, *sizes) for _ in range(depth))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor | None]]:
        """Encode tokens (N, tokens, D); also return the tokens after each block and each block's attention weights."""
        states, attentions = [], []
        for layer in self.layers:
            hidden_states, weights = layer(hidden_states, output_attentions=output_attentions)
            states.append(hidden_states)
            attentions.append(weights)
        return self.layernorm(hidden_states), states, attentions


class CSMAEDecoder(nn.Module):
    """Predicts the pixels of every patch from an encoder's tokens: one trunk, a head for each target sensor."""

    def __init__(self, config: CSMAEConfig, target_bands: Mapping[str, int]):
        super().__init__()
        width, heads = config.decoder_hidden_size, config.decoder_num_attention_heads
        sizes = (width, heads, config.decoder_intermediate_size, config.decoder_layer_norm_eps)
        self.embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = CSMAEPositionEmbeddings(config.image_size // config.patch_size, width)
        self.layers = nn.ModuleList(CSMAELayer(config, *sizes) for _ in range(config.decoder_num_hidden_layers))
        self.layernorm = nn.LayerNorm(width, eps=config.decoder_layer_norm_eps)
        self.heads = nn.ModuleDict(
            {target: nn.Linear(width, config.patch_size**2 * bands) for target, bands in target_bands.items()}
        )

    def forward(self, tokens: torch.Tensor, restore: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Run the trunk: an encoder's tokens (N, 1 + K, D) and `restore` (N, L) give features (N, L, E) for the heads."""
        tokens = self.embed(tokens)
        cls_token, visible = tokens[:, :1], tokens[:, 1:]
        hidden = self.mask_token.to(tokens.dtype).expand(tokens.shape[0], restore.shape[1] - visible.shape[1], -1)
        patches = select_patches(torch.cat([visible, hidden], dim=1), restore)  # (N, L, E)
        hidden_states = torch.cat([cls_token, patches], dim=1) + self.positions(grid, tokens.dtype)
        for layer in self.layers:
            hidden_states, _ = layer(hidden_states)
        return self.layernorm(hidden_states)[:, 1:]

    def keep_channels(self, channels: Mapping[str, list[int]], pixels: int) -> None:
        """Predict only these channels of each target, in this order, in patches of P * P pixels; drop other targets' heads."""
        _keep_keys(self.heads, channels)
        for target, module in self.heads.items():
            head = cast(nn.Linear, module)
            outputs = torch.arange(head.out_features, device=head.weight.device).reshape(pixels, -1)  # (pixel, band)
            rows = outputs[:, channels[target]].flatten()
            head.weight, head.bias = _like(head.weight, head.weight[rows]), _like(head.bias, head.bias[rows])
            head.out_features = len(rows)


_HUB_KWARGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class CSMAEPreTrainedModel(CSMAEPushMixin, PreTrainedModel):
    """Weight initialisation and what Transformers must know of every CSMAE model."""

    config_class = CSMAEConfig
    base_model_prefix = "csmae"
    main_input_name = "s1"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CSMAEEmbeddings", "CSMAELayer"]  # noqa: RUF012 (the form Transformers reads)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # the Trainer then takes a loss for the mean of its batch: NT-Xent cannot be a share of accumulated batches
    accepts_loss_kwargs = False

    def __init__(self, config: CSMAEConfig):
        super().__init__(config)
        self.main_input_name = next(iter(config.sensors))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module as the original does: xavier-uniform weights, zero biases, N(0, 0.02) tokens."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv2d):  # on the kernel flattened to (D, C * P * P)
            fan_out, fan_in = module.weight.shape[0], module.weight[0].numel()
            bound = math.sqrt(6 / (fan_in + fan_out))
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, CSMAEPositionEmbeddings):
            init.copy_(module.table, sincos_positions(module.grid, module.hidden_size))
        elif isinstance(module, CSMAEEmbeddings):
            init.normal_(module.cls_token, std=std)
        elif isinstance(module, CSMAEDecoder):
            init.normal_(module.mask_token, std=std)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        sensors: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load a model as `PreTrainedModel.from_pretrained` does, optionally for some of its sensors and bands only.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            *model_args: As of `PreTrainedModel.from_pretrained`.
            sensors: The bands to keep by sensor, in the order the images will have; see [`keep_bands`]. Default all.
            **kwargs: As of `PreTrainedModel.from_pretrained`. Other `sensors` in a given `config` are taken by name like
                the argument, unless `ignore_mismatched_sizes` asks for new weights.

        Returns:
            The model, in evaluation mode; with `output_loading_info`, a tuple of it and the information.

        Raises:
            ValueError: If a sensor or a band is not in the checkpoint.

        Example:
            >>> CSMAEModel.from_pretrained("csmae-sesd", sensors={"s2": ["B04", "B03", "B02"]})  # doctest: +SKIP
        """
        config = kwargs.get("config")
        if isinstance(config, PreTrainedConfig) and not kwargs.get("ignore_mismatched_sizes"):
            # the checkpoint's own sensors: `AutoModel` has put the ones asked for into the config it passes
            hub_kwargs = {name: kwargs[name] for name in _HUB_KWARGS if name in kwargs}
            stored = None
            with suppress(OSError):  # weights without a config
                if pretrained_model_name_or_path is not None:
                    stored = cls.config_class.from_pretrained(pretrained_model_name_or_path, **hub_kwargs).sensors
            if stored is not None and stored != config.sensors:
                sensors = config.sensors if sensors is None else sensors
                kwargs["config"] = config = copy.deepcopy(config)
                config.sensors = stored
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        if sensors is not None:
            (loaded[0] if isinstance(loaded, tuple) else loaded).keep_bands(sensors)
        return loaded

    def keep_bands(self, sensors: Mapping[str, Sequence[str]]) -> None:
        """Keep only some sensors and bands, found by name, in place.

        Patch-embedding kernels, and the decoders' heads where the model has them, are sliced and reordered. A band left out
        counts as its mean: the embeds are those of the whole model on images whose other standardised bands are 0.

        Args:
            sensors: The bands to keep by sensor, in the order the images will have.

        Raises:
            ValueError: If a sensor or a band is unknown, or the weights are not in memory.
        """
        channels = band_indices(self.config.sensors, sensors)
        if any(parameter.is_meta for parameter in self.parameters()):
            raise ValueError(
                "Bands can be chosen only with all weights in memory: load without offloading to disk or CPU."
            )
        self._keep_channels(channels)
        self.config.sensors = {sensor: list(sensors[sensor]) for sensor in channels}
        for model in (self, cast(CSMAEModel, self.base_model)):
            model.main_input_name = next(iter(channels))
        self.config.validate_architecture()

    def _keep_channels(self, channels: Mapping[str, list[int]]) -> None:
        cast(CSMAEModel, self.base_model)._keep_channels(channels)

    def get_input_embeddings(self) -> nn.Module:
        """Return the sensors' embeddings."""
        return cast(CSMAEModel, self.base_model).embeddings

    def _present_rows(
        self, present: Mapping[str, torch.Tensor] | None, given: Mapping[str, torch.Tensor]
    ) -> PresentRows:
        """Check the flags of absent samples that `forward` was given."""
        for sensor, flags in (present or {}).items():
            if sensor not in given:
                raise ValueError(f"present names {sensor!r}: expected some of the sensors given, {', '.join(given)}.")
            if flags.dtype != torch.bool or flags.shape != given[sensor].shape[:1]:
                raise ValueError(
                    f"present[{sensor!r}] is {flags.dtype} of shape {tuple(flags.shape)}: expected torch.bool of shape "
                    f"({given[sensor].shape[0]},), False where the sample has no image of this sensor."
                )
        return PresentRows({sensor: flags.to(given[sensor].device) for sensor, flags in (present or {}).items()})

    def enable_input_require_grads(self) -> None:
        """Make the tokens that enter the first blocks require gradients.

        Adapters inside frozen blocks need it under reentrant activation checkpointing, which passes no gradient
        otherwise. Each sensor has its own embeddings, so each gets the hook that Transformers gives to one module.
        """

        def require_gradients(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            output.requires_grad_(True)

        self._require_grads_hooks = [
            module.register_forward_hook(require_gradients)
            for module in self.modules()
            if isinstance(module, CSMAEEmbeddings)
        ]

    def _collect_images(
        self, images: Mapping[str, Any], interpolate_pos_encoding: bool = False
    ) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
        """Check what `forward` was given by sensor name; return the images in the config's order, and their grid."""
        sensors = self.config.sensors
        known = TOOL_ARGUMENTS.union(sensors)
        others = {name: value for name, value in images.items() if name not in known and value is not None}
        settings = [name for name in others if name in type(self.config).__dataclass_fields__]
        if settings:
            raise ValueError(
                f"{settings[0]} is no argument of a call but a field of the configuration: set model.config.{settings[0]}."
            )
        # flags, counts and rows of numbers come from tools, which hand to every model what some models want
        unknown = [
            name for name, value in others.items() if not isinstance(value, int | float) and _dimensions(value) > 2
        ]
        if unknown:
            raise ValueError(f"Unknown sensor {', '.join(map(repr, unknown))}: this model has {_describe(sensors)}.")
        given = {sensor: images[sensor] for sensor in sensors if images.get(sensor) is not None}
        if not given:
            raise ValueError(
                f"No images were given: pass at least one sensor by its name, this model has {_describe(sensors)}."
            )
        patch, size = self.config.patch_size, self.config.image_size
        for sensor, image in given.items():
            if not isinstance(image, torch.Tensor) or not image.is_floating_point():
                kind = image.dtype if isinstance(image, torch.Tensor) else type(image).__name__
                raise ValueError(
                    f"{sensor} is {kind}: expected a float tensor of standardised pixels, as CSMAEImageProcessor returns it."
                )
            if image.ndim != 4 or image.shape[1] != len(sensors[sensor]):
                raise ValueError(
                    f"{sensor} has shape {tuple(image.shape)}: expected (batch, {len(sensors[sensor])}, {size}, {size}) "
                    f"with the bands {', '.join(sensors[sensor])}."
                )
            height, width = image.shape[2:]
            if interpolate_pos_encoding and (height % patch or width % patch):
                raise ValueError(
                    f"{sensor} is {height} x {width} pixels: both must be multiples of the patch size {patch}."
                )
            if not interpolate_pos_encoding and (height, width) != (size, size):
                raise ValueError(
                    f"{sensor} is {height} x {width} pixels: this model expects {size} x {size}. Resize it, or pass "
                    "interpolate_pos_encoding=True."
                )
        shapes = {sensor: tuple(image.shape[2:]) for sensor, image in given.items()}
        height, width = next(iter(shapes.values()))
        if any(shape != (height, width) for shape in shapes.values()):  # no set: in an export, sizes may be symbolic
            raise ValueError(f"The sensors differ in size, {shapes} pixels: pass images of one size.")
        return given, (height // patch, width // patch)


class CSMAEModel(CSMAEPreTrainedModel):
    """The encoders of CSMAE: images of any of its sensors in, one embed an image out. Masks nothing unless asked.

    Args:
        config: The configuration.

    Example:
        >>> model = CSMAEModel(CSMAEConfig.for_variant("sesd", size="tiny")).eval()
        >>> model(s2=torch.zeros(1, 10, 120, 120)).embeds["s2"].shape
        torch.Size([1, 192])
    """

    # other classes' checkpoints also hold decoders or a classifier
    _keys_to_ignore_on_load_unexpected = [r"^decoders\.", r"^classifier\."]  # noqa: RUF012

    def __init__(self, config: CSMAEConfig):
        super().__init__(config)
        self.embeddings = CSMAESensorEmbeddings(
            {name: CSMAEEmbeddings(config, len(bands)) for name, bands in config.sensors.items()}
        )
        self.positions = CSMAEPositionEmbeddings(config.image_size // config.patch_size, config.hidden_size)
        own_depth = config.multi_sensor_encoder_depth
        self.multi_sensor_encoders = nn.ModuleDict(
            {sensor: CSMAEEncoder(config, own_depth) for sensor in config.sensors} if own_depth else {}
        )
        self.cross_sensor_encoder = CSMAEEncoder(config, config.cross_sensor_encoder_depth)
        self._in_training = False  # whether a batch of training has come
        self.fc_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.pooling == "mean" else nn.Identity()
        )
        self.post_init()

    def _keep_channels(self, channels: Mapping[str, list[int]]) -> None:
        _keep_keys(self.embeddings, channels)
        _keep_keys(self.multi_sensor_encoders, channels)
        for sensor, embedding in self.embeddings.items():
            cast(CSMAEEmbeddings, embedding).keep_channels(channels[sensor])

    @names_sensors
    @can_return_tuple
    def forward(
        self,
        s1: torch.Tensor | None = None,
        s2: torch.Tensor | None = None,
        visible_patches: Mapping[str, torch.Tensor] | None = None,
        present: Mapping[str, torch.Tensor] | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **images: torch.Tensor,
    ) -> CSMAEModelOutput:
        """Encode images of any non-empty subset of the sensors; each costs its own compute only.

        Args:
            s1: (B, C, H, W) standardised images of the sensor s1.
            s2: (B, C, H, W) standardised images of the sensor s2.
            visible_patches: (B, K) indices by sensor of the patches to encode; default all.
            present: (B,) bool by sensor, False where a sample has no image of it: its pixels are not looked at, and its
                embed is zeros. Default all present.
            interpolate_pos_encoding: Accept any size that is a multiple of the patch.
            output_attentions: Return each block's attention weights; the call then runs on eager attention, which has them.
            output_hidden_states: Return the tokens before the first and after each block.
            **images: Images of any further sensor, by its name in `config.sensors`.

        Returns:
            The embeds and tokens by sensor.

        Raises:
            ValueError: If a sensor is unknown, or images have another number of bands, size or type than the model's.
        """
        given, grid = self._collect_images({"s1": s1, "s2": s2, **images}, interpolate_pos_encoding)
        rows = self._present_rows(present, given)
        want_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        want_attentions = self.config.output_attentions if output_attentions is None else output_attentions

        positions = self.positions(grid, self.dtype)
        tokens = {}
        for sensor, image in given.items():
            shown = (visible_patches or {}).get(sensor)
            shown = rows.take(sensor, shown) if shown is not None else None
            tokens[sensor] = self.embeddings(sensor, rows.take(sensor, image).to(self.dtype), positions, shown)
        if self.training and torch.is_grad_enabled():
            self._note_absent(tokens)
        states = {sensor: [hidden] for sensor, hidden in tokens.items()}
        attentions: dict[str, list[torch.Tensor]] = {sensor: [] for sensor in tokens}
        for sensors, encoder in self._encoders(tokens):
            batch = torch.cat([tokens[sensor] for sensor in sensors])
            hidden, *layers = encoder(batch, output_attentions=bool(want_attentions))
            sizes = [tokens[sensor].shape[0] for sensor in sensors]
            tokens.update(zip(sensors, hidden.split(sizes), strict=True))
            for collected, values, wanted in zip(
                (states, attentions), layers, (want_states, want_attentions), strict=True
            ):
                for value in values if wanted else ():
                    parts = value.split(sizes) if len(sizes) > 1 else (value,)  # a view is not on the way of gradients
                    for sensor, part in zip(sensors, parts, strict=True):
                        collected[sensor].append(part)
        return CSMAEModelOutput(
            embeds={sensor: rows.put_back(sensor, self._pool(hidden)) for sensor, hidden in tokens.items()},
            last_hidden_state={sensor: rows.put_back(sensor, hidden) for sensor, hidden in tokens.items()},
            hidden_states=rows.put_back_all(states if want_states else None),
            attentions=rows.put_back_all(attentions if want_attentions else None),
            present=rows.present or None,
        )

    def _note_absent(self, tokens: Mapping[str, torch.Tensor]) -> None:
        """Say, at the first batch of training, of which sensors it has no image."""
        if not self._in_training:
            absent = [sensor for sensor in self.config.sensors if sensor not in tokens or not len(tokens[sensor])]
            if absent:
                _say_absent(", ".join(absent))
            if not torch.compiler.is_compiling():  # the change would be compiled for anew
                self._in_training = True

    def _encoders(self, tokens: dict[str, torch.Tensor]) -> Iterable[tuple[list[str], nn.Module]]:
        """The encoders to run, in order, each with the sensors it takes as one batch."""
        for sensor, encoder in self.multi_sensor_encoders.items():
            if sensor in tokens:
                yield [sensor], encoder
        for sensors in _same_length(tokens):
            yield sensors, self.cross_sensor_encoder

    def _pool(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.fc_norm(tokens[:, 1:].mean(dim=1) if self.config.pooling == "mean" else tokens[:, 0])


class CSMAEForPreTraining(CSMAEPreTrainedModel):
    """CSMAE with its decoders and losses. Masks in training and in evaluation alike.

    In training the masks come from torch's generator. In evaluation every image of a sensor is masked alike, always, so that
    the reconstruction terms and `mde` are means over samples: the same for the same tiles in batches of any size. `mim`
    compares a place with the others of its batch, so it grows with the batch; the Trainer reports its mean over the batches,
    weighted by their samples. `noise` overrides either.

    Args:
        config: The configuration.
    """

    accepts_loss_kwargs = False  # every term is a mean: the Trainer must divide by the accumulation steps

    def __init__(self, config: CSMAEConfig):
        super().__init__(config)
        # of a prediction the Trainer keeps the embeds: the pixels of a whole split fill any memory
        config.keys_to_ignore_at_inference = [
            "losses",
            "masks",
            "predictions",
            *type(config).keys_to_ignore_at_inference,
        ]
        self.csmae = CSMAEModel(config)
        bands = {sensor: len(names) for sensor, names in config.sensors.items()}
        targets = (
            {"common": bands} if config.decoder_type == "common" else {name: {name: n} for name, n in bands.items()}
        )
        self.decoders = nn.ModuleDict(
            {name: CSMAEDecoder(config, target_bands) for name, target_bands in targets.items()}
        )
        self._freeze_untrained(len(config.sensors))
        self.post_init()

    def _keep_channels(self, channels: Mapping[str, list[int]]) -> None:
        super()._keep_channels(channels)
        if self.config.decoder_type == "specific":
            _keep_keys(self.decoders, channels)
        for decoder in self.decoders.values():
            cast(CSMAEDecoder, decoder).keep_channels(channels, self.config.patch_size**2)
        self._freeze_untrained(len(channels))

    def _freeze_untrained(self, num_sensors: int) -> None:
        """Freeze what no loss term reaches: data-parallel training waits for the gradient of every other parameter."""
        config = self.config
        if num_sensors < 2 or not (config.mim_weight or config.mde_weight):
            self.csmae.fc_norm.requires_grad_(False)
        if not (config.umr_weight or config.cmr_weight):
            self.decoders.requires_grad_(False)
        if not (config.cross_sensor_encoder_depth or config.cmr_weight or config.mim_weight or config.mde_weight):
            self.csmae.cross_sensor_encoder.requires_grad_(False)  # its LayerNorm alone would tie the sensors together

    @names_sensors
    @can_return_tuple
    def forward(
        self,
        s1: torch.Tensor | None = None,
        s2: torch.Tensor | None = None,
        noise: Mapping[str, torch.Tensor] | None = None,
        present: Mapping[str, torch.Tensor] | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_predictions: bool | None = None,
        return_loss: bool | None = True,
        **images: torch.Tensor,
    ) -> CSMAEForPreTrainingOutput:
        """Mask, encode, reconstruct every given sensor from every given sensor, and compare.

        Args:
            s1: (B, C, H, W) standardised images of the sensor s1.
            s2: (B, C, H, W) standardised images of the same B places by the sensor s2.
            noise: (B, L) by sensor; the patches with the least noise stay visible.
            present: (B,) bool by sensor, False where a sample has no image of it: it then counts in no loss term and is
                nobody's negative. A term that no sample of the batch can have is 0. Default all present.
            interpolate_pos_encoding: Accept any size that is a multiple of the patch.
            output_attentions: Return the encoder's attention weights.
            output_hidden_states: Return the encoder's tokens after each block.
            output_predictions: Return the predictions of all patches; default in evaluation only, since a training step
                needs just those that count.
            return_loss: Compute the loss; on by default, which is what makes the Trainer report it in evaluation.
            **images: Images of any further sensor, by its name in `config.sensors`.

        Returns:
            Loss, terms, embeds, masks and predictions.

        Raises:
            ValueError: If a sensor is unknown, the sensors' batches differ in length, or images or noise have a wrong shape.
        """
        given, grid = self._collect_images({"s1": s1, "s2": s2, **images}, interpolate_pos_encoding)
        rows = self._present_rows(present, given)
        all_masks = make_masks(self._noise(given, grid, noise), self.config.masking, self.config.mask_ratio)
        # from here to the output, the rows of a sensor are those of the samples that have it
        given = {sensor: rows.take(sensor, image) for sensor, image in given.items()}
        masks = {sensor: PatchMask(*(rows.take(sensor, part) for part in mask)) for sensor, mask in all_masks.items()}
        encoded = self.csmae(
            **given,
            visible_patches={sensor: mask.visible for sensor, mask in masks.items()},
            interpolate_pos_encoding=interpolate_pos_encoding,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        features = self._decode(encoded.last_hidden_state, masks, grid)
        predictions = None
        if output_predictions or (output_predictions is None and not self.training):
            predictions = {
                source: {target: self._head(target)(feature) for target, feature in by_target.items()}
                for source, by_target in features.items()
            }
        losses = self._losses(given, masks, features, predictions, encoded.embeds, rows) if return_loss else None
        if predictions is not None:
            predictions = {
                source: {target: rows.put_back(source, prediction) for target, prediction in by_target.items()}
                for source, by_target in predictions.items()
            }
        return CSMAEForPreTrainingOutput(
            loss=sum(getattr(self.config, f"{name.split('_')[0]}_weight") * term for name, term in losses.items())
            if losses is not None
            else None,
            losses=losses,
            embeds={sensor: rows.put_back(sensor, embeds) for sensor, embeds in encoded.embeds.items()},
            masks={sensor: mask.as_map() for sensor, mask in all_masks.items()},
            predictions=predictions,
            hidden_states=rows.put_back_all(encoded.hidden_states),
            attentions=rows.put_back_all(encoded.attentions),
            present=rows.present or None,
        )

    def _noise(
        self, given: Mapping[str, torch.Tensor], grid: tuple[int, int], noise: Mapping[str, torch.Tensor] | None
    ) -> dict[str, torch.Tensor]:
        image = next(iter(given.values()))
        shape = (image.shape[0], grid[0] * grid[1])
        _require_same_length(given)
        # the configured size was checked with the config; of another grid the ratio might hide nothing or all
        visible, config = int(shape[1] * (1 - self.config.mask_ratio)), self.config
        least = max(
            1 if config.umr_weight or config.cmr_weight else 0, len(given) - 1 if config.masking == "disjoint" else 0
        )
        if visible < 1 or shape[1] - visible < least:
            raise ValueError(
                f"mask_ratio = {config.mask_ratio} leaves {visible} of {shape[1]} patches visible: with {len(given)} sensors and "
                f"masking = {config.masking!r}, 1 to {shape[1] - least} must be. Pass larger images or change it."
            )
        if noise is not None:
            shapes = {sensor: tuple(noise[sensor].shape) if sensor in noise else None for sensor in given}
            if any(found != shape for found in shapes.values()):
                raise ValueError(
                    f"noise has the shapes {shapes}: expected {shape} (batch, patches) for each of {list(given)}."
                )
            return {sensor: noise[sensor].to(image.device) for sensor in given}
        if self.training:
            return {sensor: torch.rand(shape, device=image.device) for sensor in given}
        # a sensor's number is its own, whoever else is given
        streams = {sensor: stream for stream, sensor in enumerate(self.config.sensors)}
        return {sensor: fixed_noise(shape[1], streams[sensor], image.device).expand(shape) for sensor in given}

    def _decode(
        self, tokens: dict[str, torch.Tensor], masks: Mapping[str, PatchMask], grid: tuple[int, int]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Run each decoder's trunk once over all sources it is wanted for; features (B, L, E) by source and target."""
        features: dict[str, dict[str, torch.Tensor]] = {sensor: {} for sensor in tokens}
        for decoder in self.decoders.values():
            targets = [target for target in cast(CSMAEDecoder, decoder).heads if target in tokens]
            sources = [source for source in tokens if any(self._wanted(source, target) for target in targets)]
            for group in _same_length({source: tokens[source] for source in sources}):
                batch = torch.cat([tokens[source] for source in group])
                restore = torch.cat([masks[source].restore for source in group])
                decoded = decoder(batch, restore, grid).split([tokens[source].shape[0] for source in group])
                for source, feature in zip(group, decoded, strict=True):
                    features[source].update({target: feature for target in targets if self._wanted(source, target)})
        return features

    def _head(self, target: str) -> nn.Module:
        name = "common" if self.config.decoder_type == "common" else target
        return cast(CSMAEDecoder, self.decoders[name]).heads[target]

    def _wanted(self, source: str, target: str) -> bool:
        return bool(self.config.umr_weight if source == target else self.config.cmr_weight)

    def _losses(
        self,
        images: Mapping[str, torch.Tensor],
        masks: Mapping[str, PatchMask],
        features: Mapping[str, Mapping[str, torch.Tensor]],
        predictions: Mapping[str, Mapping[str, torch.Tensor]] | None,
        embeds: Mapping[str, torch.Tensor],
        rows: PresentRows,
    ) -> dict[str, torch.Tensor]:
        config = self.config
        targets = {sensor: patchify(image.float(), config.patch_size) for sensor, image in images.items()}
        if config.norm_pixel_loss:
            targets = {sensor: standardize_patches(patches) for sensor, patches in targets.items()}
        losses = {}
        for source, by_target in features.items():
            for target, feature in by_target.items():
                if config.cmr_target == "source":
                    counted = rows.take_shared(source, target, masks[source].hidden)
                else:
                    counted = rows.take_shared(target, source, masks[target].hidden)
                if predictions is None:
                    shared = rows.take_shared(source, target, feature)
                    prediction = self._head(target)(select_patches(shared, counted))
                else:
                    prediction = select_patches(rows.take_shared(source, target, predictions[source][target]), counted)
                name = f"umr_{source}" if source == target else f"cmr_{source}_{target}"
                truth = select_patches(rows.take_shared(target, source, targets[target]), counted)
                losses[name] = reconstruction_loss(prediction, truth)
        losses.update(self._pair_losses(embeds, rows))
        if not losses:
            raise ValueError(
                f"Nothing to train on: with {', '.join(images)} alone and umr_weight = {config.umr_weight} no loss term is left."
            )
        return losses

    def _pair_losses(self, embeds: Mapping[str, torch.Tensor], rows: PresentRows) -> dict[str, torch.Tensor]:
        """The terms that compare the embeds of two sensors: means over the pairs of sensors with a place in common."""
        config, losses = self.config, {}
        pairs = [
            torch.stack([rows.take_shared(a, b, embeds[a]), rows.take_shared(b, a, embeds[b])], dim=1)
            for a, b in itertools.combinations(embeds, 2)
        ]  # (n, 2, D) each

        def mean_of_filled(term: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
            """Mean over the pairs that have rows; of zeros where none has."""
            filled = [pair for pair in pairs if pair.shape[0]] or pairs
            return torch.stack([term(pair[:, 0], pair[:, 1]) for pair in filled]).mean()

        if config.mde_weight and pairs:
            losses["mde"] = mean_of_filled(discrepancy_loss)
        # never in evaluation, which one process may run alone
        in_company = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if config.mim_weight and config.mim_gather and self.training and in_company:
            # all of the model's pairs, so that processes whose batches lack a sensor do not wait for each other in vain
            none = next(iter(embeds.values()))[:0].unsqueeze(1).expand(-1, 2, -1)
            own = dict(zip(itertools.combinations(embeds, 2), pairs, strict=True))
            every = itertools.combinations(config.sensors, 2)
            pairs = [gather_rows(own.get(sensors, none).float()) for sensors in every]
        if config.mim_weight and pairs:
            losses["mim"] = mean_of_filled(partial(nt_xent_loss, temperature=config.mim_temperature))
        return losses


class CSMAEForImageClassification(CSMAEPreTrainedModel):
    """CSMAE's encoders with a linear classifier on the mean of the embeds of the sensors given. Masks nothing.

    The loss follows `config.problem_type` and `config.num_labels` as everywhere in Transformers; for multi-label scenes such
    as BigEarthNet's, `problem_type="multi_label_classification"`. A linear probe is this model after [`freeze_encoder`].

    Args:
        config: The configuration.

    Example:
        >>> config = CSMAEConfig.for_variant("sesd", size="tiny", num_labels=19, problem_type="multi_label_classification")
        >>> model = CSMAEForImageClassification(config).eval()
        >>> model(s1=torch.zeros(1, 2, 120, 120), s2=torch.zeros(1, 10, 120, 120)).logits.shape
        torch.Size([1, 19])
    """

    _keys_to_ignore_on_load_unexpected = [r"^decoders\."]  # noqa: RUF012 (a pre-training checkpoint also holds decoders)
    accepts_loss_kwargs = True

    def __init__(self, config: CSMAEConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        # on this config only, so that predictions of the Trainer are logits here and embeds of an encoder
        config.keys_to_ignore_at_inference = ["embeds", *type(config).keys_to_ignore_at_inference]
        self.csmae = CSMAEModel(config)
        self.loss_function = classification_loss
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()
        self.post_init()

    def freeze_encoder(self) -> None:
        """Train the classifier only: a linear probe. `model.csmae.requires_grad_()` undoes it."""
        self.csmae.requires_grad_(False)

    @names_sensors
    @can_return_tuple
    def forward(
        self,
        s1: torch.Tensor | None = None,
        s2: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        present: Mapping[str, torch.Tensor] | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **images: torch.Tensor,
    ) -> CSMAEForImageClassificationOutput:
        """Classify places from images of one sensor, or from the mean of several sensors' embeds.

        Args:
            s1: (B, C, H, W) standardised images of the sensor s1.
            s2: (B, C, H, W) standardised images of the same B places by the sensor s2.
            labels: (B,) class indices, (B, number of labels) of 0 and 1, or (B,) numbers, as `config.problem_type` says;
                where it is not set, the labels' type and shape decide once and for all. -100 is a label that is not known.
            present: (B,) bool by sensor, False where a sample has no image of it; the mean is over those it has.
            interpolate_pos_encoding: Accept any size that is a multiple of the patch.
            output_attentions: Return the encoder's attention weights.
            output_hidden_states: Return the encoder's tokens after each block.
            num_items_in_batch: Labels, entries that are -100 not counted, of all batches whose gradients are added up, as
                the Trainer counts them. The loss is then this batch's share of their mean, not its own mean.
            **images: Images of any further sensor, by its name in `config.sensors`.

        Returns:
            Loss, logits and embeds.

        Raises:
            ValueError: If labels do not fit, a sample has no sensor at all, or as [`CSMAEModel`].
        """
        encoded = self.csmae(
            s1=s1,
            s2=s2,
            **images,
            present=present,
            interpolate_pos_encoding=interpolate_pos_encoding,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(mean_over_sensors(encoded.embeds, encoded.present or {}))
        loss = None
        if labels is not None:
            labels = self._fit_labels(labels, logits)
            loss = self.loss_function(labels, logits.float(), self.config, num_items_in_batch=num_items_in_batch)
        return CSMAEForImageClassificationOutput(
            loss=loss,
            logits=logits,
            embeds=encoded.embeds,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            present=encoded.present,
        )

    def _fit_labels(self, labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Find the problem that labels pose, where the configuration names none, check their shape, and give them its type."""
        problem = self.config.problem_type
        if problem is None:
            if self.num_labels == 1:
                problem = "regression"
            elif labels.ndim == 1 and not labels.is_floating_point():
                problem = "single_label_classification"
            else:
                problem = "multi_label_classification"
        per_label = problem == "multi_label_classification" or (problem == "regression" and self.num_labels > 1)
        expected = tuple(logits.shape) if per_label else (len(logits),)
        if tuple(labels.shape) != expected and not (self.num_labels == 1 and labels.numel() == len(logits)):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}: expected {expected} for problem_type = {problem!r} with "
                f"{self.num_labels} labels."
            )
        if problem == "single_label_classification" and labels.is_floating_point():
            raise ValueError(
                f"labels are {labels.dtype}: expected class indices, integers, for problem_type = {problem!r}."
            )
        self.config.problem_type = problem
        if problem == "single_label_classification":
            return labels.to(logits.device, torch.long).reshape(len(logits))
        return labels.to(logits.device, torch.float).reshape(logits.shape)


class CSMAEBackbone(BackboneMixin, CSMAEPreTrainedModel):
    """CSMAE's encoders as the backbone of a dense head, such as segmentation: feature maps instead of embeds. Masks nothing.

    A map is the tokens of the patches as a block leaves them, before any LayerNorm after it, the CLS token left out. All stages have
    the width and the resolution of the encoder; `config.out_features` or `config.out_indices` choose some of `config.stage_names`.

    Args:
        config: The configuration.

    Example:
        >>> config = CSMAEConfig.for_variant("sesd", size="tiny", out_indices=[3, 6, 9, 12])
        >>> backbone = CSMAEBackbone(config).eval()
        >>> [tuple(feature_map.shape) for feature_map in backbone(s2=torch.zeros(1, 10, 120, 120)).feature_maps]
        [(1, 192, 8, 8), (1, 192, 8, 8), (1, 192, 8, 8), (1, 192, 8, 8)]
    """

    main_input_name = "pixel_values"
    _keys_to_ignore_on_load_unexpected = [r"^decoders\.", r"^classifier\."]  # noqa: RUF012

    def __init__(self, config: CSMAEConfig):
        if config.out_features is None:
            config.set_output_features_output_indices(None, None)  # the last stage
        super().__init__(config)
        self.csmae = CSMAEModel(config)
        # what comes after the blocks is in no map: data-parallel training waits for the gradient of every other parameter
        self.csmae.cross_sensor_encoder.layernorm.requires_grad_(False)
        self.csmae.fc_norm.requires_grad_(False)
        self.num_features = [config.hidden_size] * len(config.stage_names)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        s1: torch.Tensor | None = None,
        s2: torch.Tensor | None = None,
        present: Mapping[str, torch.Tensor] | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **images: torch.Tensor,
    ) -> CSMAEBackboneOutput:
        """Give the feature maps of images of any non-empty subset of the sensors.

        Args:
            pixel_values: (B, bands of all sensors, H, W), the images of all sensors stacked in the order of `config.sensors`: how a
                head that knows no sensors, such as UperNet's, calls its backbone. For one sensor of several, load the backbone with
                `sensors=`, or pass the images by name.
            s1: (B, C, H, W) standardised images of the sensor s1.
            s2: (B, C, H, W) standardised images of the same B places by the sensor s2.
            present: (B,) bool by sensor, False where a sample has no image of it; the mean is over those it has.
            interpolate_pos_encoding: Accept any size that is a multiple of the patch.
            output_attentions: Return the encoder's attention weights.
            output_hidden_states: Return the encoder's tokens before the first and after each block.
            **images: Images of any further sensor, by its name in `config.sensors`.

        Returns:
            The maps, for all sensors given together and for each.

        Raises:
            ValueError: If `pixel_values` has another number of bands or comes with images by name, a sample has no sensor at all, or
                as [`CSMAEModel`].
        """
        given = {name: image for name, image in {"s1": s1, "s2": s2, **images}.items() if image is not None}
        if pixel_values is not None:
            given |= self._split_sensors(pixel_values, given)
        encoded = self.csmae(
            **given,
            present=present,
            interpolate_pos_encoding=interpolate_pos_encoding,
            output_attentions=output_attentions,
            output_hidden_states=True,
            return_dict=True,
        )
        patch, maps = self.config.patch_size, {}
        for sensor, states in encoded.hidden_states.items():
            height, width = given[sensor].shape[2:]
            chosen = (states[index][:, 1:].transpose(1, 2) for index in self.out_indices)  # (B, D, L)
            maps[sensor] = tuple(state.unflatten(2, (height // patch, width // patch)) for state in chosen)
        places = range(len(self.out_indices))
        means = (
            mean_over_sensors({sensor: maps[sensor][place] for sensor in maps}, encoded.present or {})
            for place in places
        )
        want_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return CSMAEBackboneOutput(
            feature_maps=tuple(means),
            sensor_feature_maps=maps,
            hidden_states=encoded.hidden_states if want_states else None,
            attentions=encoded.attentions,
            present=encoded.present,
        )

    def _split_sensors(self, pixels: torch.Tensor, given: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The images of each sensor, of all stacked along their bands."""
        sensors = self.config.sensors
        counts = [len(bands) for bands in sensors.values()]
        named = [name for name in given if name in sensors]
        if named or pixels.ndim != 4 or pixels.shape[1] != sum(counts):
            also = f" beside {', '.join(named)}" if named else ""
            raise ValueError(
                f"pixel_values has shape {tuple(pixels.shape)}{also}: expected (batch, {sum(counts)}, height, width) alone, "
                f"with the bands of {_describe(sensors)}, in this order. Pass images of some sensors by name, such as "
                f"{next(iter(sensors))}=..."
            )
        return dict(zip(sensors, pixels.split(counts, dim=1), strict=True))


def mean_over_sensors(values: Mapping[str, torch.Tensor], present: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean (B, ...) of what each sample has: values (B, ...) by sensor, zeros where `present`, (B,) bool by sensor, is False.

    Raises:
        ValueError: If a sample has no sensor at all, or the sensors differ in samples.
    """
    _require_same_length(values)
    total = torch.stack(list(values.values())).sum(dim=0)
    if not present:
        return total / len(values)
    everywhere = torch.ones(total.shape[0], dtype=torch.bool, device=total.device)
    counts = torch.stack([present.get(sensor, everywhere) for sensor in values]).sum(dim=0)
    if not counts.all():
        empty = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"Samples {empty} of the batch have no image of any sensor: leave them out.")
    return total / counts.reshape(-1, *[1] * (total.ndim - 1))


def _require_same_length(batches: Mapping[str, torch.Tensor]) -> None:
    sizes = {sensor: batch.shape[0] for sensor, batch in batches.items()}
    first = next(iter(sizes.values()))
    if any(size != first for size in sizes.values()):  # no set: in an export, sizes may be symbolic
        raise ValueError(f"The sensors must show the same places, but their batches have the lengths {sizes}.")


def _dimensions(value: Any) -> int:
    """Dimensions of a tensor or an array; those of an image for what has none, such as a list, a dict or a path."""
    return getattr(value, "ndim", 3)


def _describe(sensors: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{sensor} ({', '.join(bands)})" for sensor, bands in sensors.items())


def _same_length(tokens: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Group the sensors whose token sequences are equally long, so that each group can run as one batch."""
    groups: dict[int, list[str]] = {}
    for sensor, hidden in tokens.items():
        groups.setdefault(hidden.shape[1], []).append(sensor)
    return list(groups.values())


CSMAEModel.register_for_auto_class("AutoModel")
CSMAEForPreTraining.register_for_auto_class("AutoModelForPreTraining")
CSMAEForImageClassification.register_for_auto_class("AutoModelForImageClassification")
CSMAEBackbone.register_for_auto_class("AutoBackbone")

__all__ = [
    "CSMAEBackbone",
    "CSMAEBackboneOutput",
    "CSMAEForImageClassification",
    "CSMAEForImageClassificationOutput",
    "CSMAEForPreTraining",
    "CSMAEForPreTrainingOutput",
    "CSMAEModel",
    "CSMAEModelOutput",
    "CSMAEPreTrainedModel",
    "PatchMask",
    "patchify",
    "unpatchify",
]
