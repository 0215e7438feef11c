"""PyTorch CSMAE: cross-sensor masked autoencoders for remote sensing (Hackstein et al., arXiv 2401.07782).

Shapes in comments: B images, L patches of an image, K of them visible, N = B x sensors run as one batch, D width of the
encoder, E width of a decoder, C bands of a sensor, P edge of a patch.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

try:
    from .configuration_csmae import CSMAEConfig
except ImportError:  # imported as a plain top-level module
    if __package__:
        raise
    from configuration_csmae import CSMAEConfig


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
    """

    embeds: dict[str, torch.Tensor] | None = None
    last_hidden_state: dict[str, torch.Tensor] | None = None
    hidden_states: dict[str, tuple[torch.Tensor, ...]] | None = None
    attentions: dict[str, tuple[torch.Tensor, ...]] | None = None


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
    """

    loss: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    embeds: dict[str, torch.Tensor] | None = None
    masks: dict[str, torch.Tensor] | None = None
    predictions: dict[str, dict[str, torch.Tensor]] | None = None
    hidden_states: dict[str, tuple[torch.Tensor, ...]] | None = None
    attentions: dict[str, tuple[torch.Tensor, ...]] | None = None


# Patches, positions and masks: pure functions


def patchify(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut images into flattened patches, row by row.

    Args:
        images: (B, C, H, W), H and W multiples of `patch_size`.
        patch_size: Edge of a patch, pixels.

    Returns:
        (B, L, P * P * C), a patch flattened as (row, column, band).
    """
    batch, bands, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(batch, bands, rows, patch_size, columns, patch_size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size * patch_size * bands)


def unpatchify(patches: torch.Tensor, patch_size: int, height: int, width: int) -> torch.Tensor:
    """Put patches together again; the inverse of [`patchify`].

    Args:
        patches: (B, L, P * P * C).
        patch_size: Edge of a patch, pixels.
        height: Height of the images, pixels.
        width: Width of the images, pixels.

    Returns:
        (B, C, H, W).
    """
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


def counter_noise(batch_size: int, num_patches: int, stream: int, device: torch.device) -> torch.Tensor:
    """Noise in [0, 1) that is a function of its indices alone, so that evaluation masks alike everywhere, every time.

    Args:
        batch_size: B.
        num_patches: L.
        stream: Number of the sensor, so that sensors get different noise.
        device: Where to put it.

    Returns:
        (B, L) float32, the same on every device.
    """
    state = torch.arange(batch_size * num_patches, device=device) + 0x9E3779B9 * (stream + 1)
    for _ in range(2):  # the integer mixing of Wang / Mueller, in 32 of the 64 bits
        state = ((state ^ (state >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    state = state ^ (state >> 16)
    return ((state >> 8).float() / 2**24).reshape(batch_size, num_patches)


def mask_patches(order: torch.Tensor, start: int, stop: int) -> PatchMask:
    """Leave visible the patches from `start` to `stop` of an order.

    Args:
        order: (B, L) permutation of the patches of each image.
        start: First visible place in the order.
        stop: First place after `start` that is hidden.

    Returns:
        The mask.
    """
    shuffled = torch.cat([order[:, start:stop], order[:, :start], order[:, stop:]], dim=1)
    return PatchMask(shuffled[:, : stop - start], shuffled[:, stop - start :], torch.argsort(shuffled, dim=1))


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
    orders = {sensor: torch.argsort(values, dim=1, stable=True) for sensor, values in noise.items()}
    first = next(iter(orders.values()))
    num_patches = first.shape[1]
    visible = int(num_patches * (1 - mask_ratio))
    if masking == "random":
        return {sensor: mask_patches(order, 0, visible) for sensor, order in orders.items()}
    if masking == "identical" or len(orders) == 1:
        return dict.fromkeys(orders, mask_patches(first, 0, visible))
    others, left = len(orders) - 1, num_patches - visible
    bounds = [0, visible, *(visible + left * (i + 1) // others for i in range(others))]
    return {sensor: mask_patches(first, bounds[i], bounds[i + 1]) for i, sensor in enumerate(orders)}


# Losses: pure functions, in float32 whatever the model computes in


def reconstruction_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the pixels of a patch, then over the counted patches of the batch.

    Args:
        prediction: (B, counted patches, pixels).
        target: (B, counted patches, pixels).

    Returns:
        A scalar.
    """
    return F.mse_loss(prediction.float(), target.float())  # patches have equally many pixels: one mean is both


def nt_xent_loss(embeds: torch.Tensor, other_embeds: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross entropy between two sensors' embeds (Chen et al., arXiv 2002.05709).

    Each of the 2B embeds is an anchor; its positive is the same place seen by the other sensor, the 2B - 2 others are
    its negatives.

    Args:
        embeds: (B, D).
        other_embeds: (B, D), the same places seen by the other sensor.
        temperature: Divides the cosine similarities.

    Returns:
        A scalar, the mean over the anchors.
    """
    anchors = F.normalize(torch.cat([embeds, other_embeds]).float(), dim=-1)
    similarity = anchors @ anchors.T / temperature
    itself = torch.eye(anchors.shape[0], dtype=torch.bool, device=anchors.device)
    positive = torch.arange(anchors.shape[0], device=anchors.device).roll(embeds.shape[0])
    return F.cross_entropy(similarity.masked_fill(itself, -torch.inf), positive)


def discrepancy_loss(embeds: torch.Tensor, other_embeds: torch.Tensor) -> torch.Tensor:
    """Discrepancy elimination: -mean log(1 + exp(cosine)) between two sensors' embeds of the same places, each (B, D)."""
    return -F.softplus(F.cosine_similarity(embeds.float(), other_embeds.float(), dim=-1)).mean()


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

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend among the tokens of each image, (N, tokens, D)."""
        batch, tokens, width = hidden_states.shape
        qkv = self.qkv(hidden_states).reshape(batch, tokens, 3, self.num_attention_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, tokens, D / heads)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        attended, weights = attend(self, query, key, value, None, dropout=dropout, scaling=self.scaling, **kwargs)
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

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the tokens, (N, tokens, D), and the attention weights where the implementation gives them."""
        attended, weights = self.attention(self.norm1(hidden_states), **kwargs)
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


class CSMAEEncoder(nn.Module):
    """Transformer blocks and the LayerNorm after them."""

    def __init__(self, config: CSMAEConfig, depth: int):
        super().__init__()
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size, config.layer_norm_eps)
        self.layers = nn.ModuleList(CSMAELayer(config, *sizes) for _ in range(depth))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor | None]]:
        """Encode tokens (N, tokens, D); also return the tokens after each block and each block's attention weights."""
        states, attentions = [], []
        for layer in self.layers:
            hidden_states, weights = layer(hidden_states, **kwargs)
            states.append(hidden_states)
            attentions.append(weights)
        return self.layernorm(hidden_states), states, attentions


class CSMAEDecoder(nn.Module):
    """Predicts the pixels of every patch from an encoder's tokens: one trunk, a head for each target sensor."""

    def __init__(self, config: CSMAEConfig, target_bands: Mapping[str, int]):
        super().__init__()
        width = config.decoder_hidden_size
        sizes = (
            width,
            config.decoder_num_attention_heads,
            config.decoder_intermediate_size,
            config.decoder_layer_norm_eps,
        )
        self.embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = CSMAEPositionEmbeddings(config.image_size // config.patch_size, width)
        self.layers = nn.ModuleList(CSMAELayer(config, *sizes) for _ in range(config.decoder_num_hidden_layers))
        self.layernorm = nn.LayerNorm(width, eps=config.decoder_layer_norm_eps)
        self.heads = nn.ModuleDict(
            {target: nn.Linear(width, config.patch_size**2 * bands) for target, bands in target_bands.items()}
        )

    def forward(self, tokens: torch.Tensor, restore: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Run the trunk.

        Args:
            tokens: (N, 1 + K, D) of the encoder, CLS first.
            restore: (N, L) as in [`PatchMask`].
            grid: Rows and columns of patches.

        Returns:
            (N, L, E) features of every patch, for the heads.
        """
        tokens = self.embed(tokens)
        cls_token, visible = tokens[:, :1], tokens[:, 1:]
        hidden = self.mask_token.to(tokens.dtype).expand(tokens.shape[0], restore.shape[1] - visible.shape[1], -1)
        patches = select_patches(torch.cat([visible, hidden], dim=1), restore)  # (N, L, E)
        hidden_states = torch.cat([cls_token, patches], dim=1) + self.positions(grid, tokens.dtype)
        for layer in self.layers:
            hidden_states, _ = layer(hidden_states)
        return self.layernorm(hidden_states)[:, 1:]


class CSMAEPreTrainedModel(PreTrainedModel):
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

    def _collect_images(
        self, images: Mapping[str, Any], interpolate_pos_encoding: bool = False
    ) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
        """Check what `forward` was given by sensor name; return the images in the config's order, and their grid."""
        sensors = self.config.sensors
        unknown = [name for name, value in images.items() if name not in sensors and value is not None]
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
        shapes = {tuple(image.shape[2:]) for image in given.values()}
        if len(shapes) > 1:
            raise ValueError(f"The sensors differ in size, {sorted(shapes)} pixels: pass images of one size.")
        height, width = shapes.pop()
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

    _keys_to_ignore_on_load_unexpected = [r"^decoders\."]  # noqa: RUF012 (a pre-training checkpoint also holds decoders)

    def __init__(self, config: CSMAEConfig):
        super().__init__(config)
        self.embeddings = nn.ModuleDict(
            {name: CSMAEEmbeddings(config, len(bands)) for name, bands in config.sensors.items()}
        )
        self.positions = CSMAEPositionEmbeddings(config.image_size // config.patch_size, config.hidden_size)
        own_depth = config.multi_sensor_encoder_depth
        self.multi_sensor_encoders = nn.ModuleDict(
            {sensor: CSMAEEncoder(config, own_depth) for sensor in config.sensors} if own_depth else {}
        )
        self.cross_sensor_encoder = CSMAEEncoder(config, config.cross_sensor_encoder_depth)
        self.fc_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.pooling == "mean" else nn.Identity()
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the sensors' embeddings."""
        return self.embeddings

    @can_return_tuple
    def forward(
        self,
        s1: torch.Tensor | None = None,
        s2: torch.Tensor | None = None,
        visible_patches: Mapping[str, torch.Tensor] | None = None,
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
            interpolate_pos_encoding: Accept any size that is a multiple of the patch.
            output_attentions: Return each block's attention weights (needs `attn_implementation="eager"`).
            output_hidden_states: Return the tokens before the first and after each block.
            **images: Images of any further sensor, by its name in `config.sensors`.

        Returns:
            The embeds and tokens by sensor.

        Raises:
            ValueError: If a sensor is unknown, or images have another number of bands, size or type than the model's.
        """
        given, grid = self._collect_images({"s1": s1, "s2": s2, **images}, interpolate_pos_encoding)
        want_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        want_attentions = self.config.output_attentions if output_attentions is None else output_attentions

        tokens = {sensor: self._embed(sensor, image, grid, visible_patches) for sensor, image in given.items()}
        states = {sensor: [hidden] for sensor, hidden in tokens.items()}
        attentions: dict[str, list[torch.Tensor]] = {sensor: [] for sensor in tokens}
        for sensors, encoder in self._encoders(tokens):
            hidden, layer_states, layer_attentions = encoder(torch.cat([tokens[sensor] for sensor in sensors]))
            sizes = [tokens[sensor].shape[0] for sensor in sensors]
            tokens.update(zip(sensors, hidden.split(sizes), strict=True))
            if want_states:
                _append_split(states, sensors, layer_states, sizes)
            if want_attentions:
                _append_split(attentions, sensors, layer_attentions, sizes)
        return CSMAEModelOutput(
            embeds={sensor: self._pool(hidden) for sensor, hidden in tokens.items()},
            last_hidden_state=tokens,
            hidden_states={sensor: tuple(hidden) for sensor, hidden in states.items()} if want_states else None,
            attentions={sensor: tuple(weights) for sensor, weights in attentions.items()} if want_attentions else None,
        )

    def _embed(
        self, sensor: str, image: torch.Tensor, grid: tuple[int, int], visible: Mapping[str, torch.Tensor] | None
    ) -> torch.Tensor:
        image = image.to(self.dtype)
        shown = visible.get(sensor) if visible is not None else None
        return self.embeddings[sensor](image, self.positions(grid, image.dtype), shown)

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

    In training the masks come from torch's generator; in evaluation from fixed noise, so that a loss can be compared
    with the one before. `noise` overrides either.

    Args:
        config: The configuration.
    """

    accepts_loss_kwargs = False  # every term is a mean: the Trainer must divide by the accumulation steps

    def __init__(self, config: CSMAEConfig):
        super().__init__(config)
        self.csmae = CSMAEModel(config)
        bands = {sensor: len(names) for sensor, names in config.sensors.items()}
        targets = (
            {"common": bands} if config.decoder_type == "common" else {name: {name: n} for name, n in bands.items()}
        )
        self.decoders = nn.ModuleDict(
            {name: CSMAEDecoder(config, target_bands) for name, target_bands in targets.items()}
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the sensors' embeddings."""
        return self.csmae.embeddings

    @can_return_tuple
    def forward(
        self,
        s1: torch.Tensor | None = None,
        s2: torch.Tensor | None = None,
        noise: Mapping[str, torch.Tensor] | None = None,
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
        masks = make_masks(self._noise(given, grid, noise), self.config.masking, self.config.mask_ratio)
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
        losses = self._losses(given, masks, features, predictions, encoded.embeds) if return_loss else None
        return CSMAEForPreTrainingOutput(
            loss=self._total(losses) if losses is not None else None,
            losses=losses,
            embeds=encoded.embeds,
            masks={sensor: mask.as_map() for sensor, mask in masks.items()},
            predictions=predictions,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _noise(
        self, given: Mapping[str, torch.Tensor], grid: tuple[int, int], noise: Mapping[str, torch.Tensor] | None
    ) -> dict[str, torch.Tensor]:
        image = next(iter(given.values()))
        shape = (image.shape[0], grid[0] * grid[1])
        self._check_maskable(shape[1], len(given))
        if len({value.shape[0] for value in given.values()}) > 1:
            sizes = {sensor: value.shape[0] for sensor, value in given.items()}
            raise ValueError(f"The sensors must show the same places, but their batches have the lengths {sizes}.")
        if noise is not None:
            shapes = {sensor: tuple(noise[sensor].shape) if sensor in noise else None for sensor in given}
            if any(found != shape for found in shapes.values()):
                raise ValueError(
                    f"noise has the shapes {shapes}: expected {shape} (batch, patches) for each of {list(given)}."
                )
            return {sensor: noise[sensor].to(image.device) for sensor in given}
        if self.training:
            return {sensor: torch.rand(shape, device=image.device) for sensor in given}
        streams = {
            sensor: stream for stream, sensor in enumerate(self.config.sensors)
        }  # a sensor's own, whoever else is given
        return {sensor: counter_noise(*shape, streams[sensor], image.device) for sensor in given}

    def _check_maskable(self, num_patches: int, num_sensors: int) -> None:
        """Refuse a grid of which the mask ratio would hide nothing or all; the configured size was checked with the config."""
        visible = int(num_patches * (1 - self.config.mask_ratio))
        reconstructs = self.config.umr_weight or self.config.cmr_weight
        least = max(1 if reconstructs else 0, num_sensors - 1 if self.config.masking == "disjoint" else 0)
        if visible < 1 or num_patches - visible < least:
            raise ValueError(
                f"mask_ratio = {self.config.mask_ratio} leaves {visible} of {num_patches} patches visible: with {num_sensors} "
                f"sensors and masking = {self.config.masking!r}, 1 to {num_patches - least} must be. Pass larger images or change it."
            )

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
                decoded = decoder(batch, restore, grid).chunk(len(group))
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
    ) -> dict[str, torch.Tensor]:
        config = self.config
        targets = {sensor: patchify(image, config.patch_size) for sensor, image in images.items()}
        if config.norm_pixel_loss:
            targets = {sensor: standardize_patches(patches) for sensor, patches in targets.items()}
        losses = {}
        for source, by_target in features.items():
            for target, feature in by_target.items():
                counted = masks[source if config.cmr_target == "source" else target].hidden
                if predictions is None:
                    prediction = self._head(target)(select_patches(feature, counted))
                else:
                    prediction = select_patches(predictions[source][target], counted)
                name = f"umr_{source}" if source == target else f"cmr_{source}_{target}"
                losses[name] = reconstruction_loss(prediction, select_patches(targets[target], counted))
        pairs = [(a, b) for i, a in enumerate(embeds) for b in list(embeds)[i + 1 :]]
        if pairs and config.mim_weight:
            terms = [nt_xent_loss(embeds[a], embeds[b], config.mim_temperature) for a, b in pairs]
            losses["mim"] = torch.stack(terms).mean()
        if pairs and config.mde_weight:
            losses["mde"] = torch.stack([discrepancy_loss(embeds[a], embeds[b]) for a, b in pairs]).mean()
        if not losses:
            raise ValueError(
                f"Nothing to train on: with {', '.join(images)} alone and umr_weight = {config.umr_weight} no loss term is left."
            )
        return losses

    def _total(self, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        weights = [getattr(self.config, f"{name.split('_')[0]}_weight") for name in losses]
        return sum(weight * loss for weight, loss in zip(weights, losses.values(), strict=True))


def _describe(sensors: Mapping[str, list[str]]) -> str:
    return ", ".join(f"{sensor} ({', '.join(bands)})" for sensor, bands in sensors.items())


def _same_length(tokens: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Group the sensors whose token sequences are equally long, so that each group can run as one batch."""
    groups: dict[int, list[str]] = {}
    for sensor, hidden in tokens.items():
        groups.setdefault(hidden.shape[1], []).append(sensor)
    return list(groups.values())


def _append_split(
    collected: dict[str, list], sensors: list[str], layer_values: list[torch.Tensor | None], sizes: list[int]
) -> None:
    """Give each sensor its share of what the layers of a batched encoder returned."""
    for value in layer_values:
        if value is not None:
            for sensor, part in zip(sensors, value.split(sizes), strict=True):
                collected[sensor].append(part)


CSMAEModel.register_for_auto_class("AutoModel")
CSMAEForPreTraining.register_for_auto_class("AutoModelForPreTraining")

__all__ = [
    "CSMAEForPreTraining",
    "CSMAEForPreTrainingOutput",
    "CSMAEModel",
    "CSMAEModelOutput",
    "CSMAEPreTrainedModel",
    "PatchMask",
    "patchify",
    "unpatchify",
]
