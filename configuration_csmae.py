"""CSMAE model configuration: sensors as data, the four variants by name or by explicit fields."""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.utils import PushToHubMixin

if TYPE_CHECKING:
    # Transformers reads these lines as text: a folder's configuration class then changes with any of its code. It keeps one model
    # class a configuration class, so a second folder of the same name would otherwise run the first one's code.
    from .image_processing_csmae import CSMAEImageProcessor as CSMAEImageProcessor
    from .modeling_csmae import CSMAEModel as CSMAEModel
    from .pipeline_csmae import CSMAEImageFeatureExtractionPipeline as CSMAEImageFeatureExtractionPipeline

DEFAULT_SENSORS: dict[str, list[str]] = {
    "s1": ["VH", "VV"],
    "s2": ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A"],
}
"""The sensors of the paper, their bands in the order of its released checkpoints."""

VARIANTS: dict[str, dict[str, bool | str]] = {
    "cecd": {"specific_encoder": False, "decoder_type": "common"},
    "cesd": {"specific_encoder": False, "decoder_type": "specific"},
    "secd": {"specific_encoder": True, "decoder_type": "common"},
    "sesd": {"specific_encoder": True, "decoder_type": "specific"},
}
"""Common or Specific Encoder, Common or Specific Decoder."""

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 192, "num_attention_heads": 3, "depth": 12, "shared_depth": 2},
    "small": {"hidden_size": 384, "num_attention_heads": 6, "depth": 12, "shared_depth": 2},
    "base": {"hidden_size": 768, "num_attention_heads": 12, "depth": 12, "shared_depth": 2},
    "large": {"hidden_size": 1024, "num_attention_heads": 16, "depth": 24, "shared_depth": 4},
}
"""ViT sizes. `shared_depth` is the number of blocks that the specific-encoder variants share. The paper gives it for 12
blocks; for the 24 of `large` its proportion is kept, which is our choice."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "decoder_type": ("common", "specific"),
    "pooling": ("mean", "token"),
    "masking": ("random", "identical", "disjoint"),
    "cmr_target": ("source", "target"),
}

AUTO_MAP: dict[str, str] = {
    "AutoConfig": "configuration_csmae.CSMAEConfig",
    "AutoModel": "modeling_csmae.CSMAEModel",
    "AutoModelForPreTraining": "modeling_csmae.CSMAEForPreTraining",
    "AutoModelForImageClassification": "modeling_csmae.CSMAEForImageClassification",
    "AutoBackbone": "modeling_csmae.CSMAEBackbone",
}
"""The class each Auto class finds in a published repository. Every config carries the whole map: Transformers alone
would write the saved class's own entry and hide the others."""

_PIPELINES: dict[str, dict[str, Any]] = {
    "image-classification": {
        "impl": "pipeline_csmae.CSMAEImageClassificationPipeline",
        "pt": ["AutoModelForImageClassification"],
        "type": "image",
    },
    "image-feature-extraction": {
        "impl": "pipeline_csmae.CSMAEImageFeatureExtractionPipeline",
        "pt": ["AutoModel"],
        "type": "image",
    },
}

TOOL_ARGUMENTS: frozenset[str] = frozenset().union(
    ["num_items_in_batch", "return_loss", "skip_logits"],  # the Trainer
    ["label", "label_ids", "labels"],  # under these names the Trainer keeps labels for any model
    ["output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "use_cache"],
)
"""What Transformers' Trainer and its kin hand to any `forward`. A model that has no use for one leaves it unread."""

RESERVED_SENSOR_NAMES: frozenset[str] = TOOL_ARGUMENTS.union(
    ["self", "noise", "loss", "losses", "embeds", "kwargs", "mask_ratio", "visible_patches", "present"],
    ["pixel_values"],
    ["interpolate_pos_encoding", "output_predictions", "return_tensors", "units", "device", "suspect"],
)
"""Names that `forward` and the processor use themselves, so that no sensor can have them."""


@strict
class CSMAEConfig(BackboneConfigMixin, PreTrainedConfig):
    """Configuration of a cross-sensor masked autoencoder (Hackstein et al., arXiv 2401.07782).

    The default is CSMAE-SESD with a ViT-Base encoder on Sentinel-1 and Sentinel-2. [`CSMAEConfig.for_variant`] builds any
    of the four variants at any size.

    Args:
        sensors: Bands of each sensor, in the order of the input channels. The keys are the names under which `forward`
            takes the images; two sensors are the paper's case, any number from one works.
        image_size: Height and width of the input, pixels.
        patch_size: Height and width of a patch, pixels.
        hidden_size: Width of the encoder.
        num_attention_heads: Attention heads of an encoder block.
        intermediate_size: Width of the feed-forward layer of an encoder block; `None` is 4 x `hidden_size`.
        multi_sensor_encoder_depth: Blocks of each sensor's own (0: common encoder).
        cross_sensor_encoder_depth: Blocks shared by all sensors.
        decoder_type: `"common"` (one decoder, a head for each target sensor) or `"specific"` (a whole decoder for each
            target sensor).
        decoder_hidden_size: Width of the decoder.
        decoder_num_hidden_layers: Blocks of the decoder.
        decoder_num_attention_heads: Attention heads of a decoder block.
        decoder_intermediate_size: Width of the feed-forward layer of a decoder block; `None` is 4 x its width.
        pooling: `"mean"` over the patch tokens followed by a LayerNorm, or `"token"`, the CLS token.
        mask_ratio: Share of the patches that pre-training hides, in [0, 1).
        masking: How the sensors' masks relate: `"random"` (drawn apart), `"identical"` or `"disjoint"` (what one sensor
            sees is hidden from the others).
        cmr_target: Patches on which cross-modal reconstruction counts: hidden from the `"source"` (the released code
            and weights) or from the `"target"` (the paper's figure).
        norm_pixel_loss: Reconstruct each patch standardised by its own mean and variance.
        umr_weight: Weight of uni-modal reconstruction; 0 leaves the term out.
        cmr_weight: Weight of cross-modal reconstruction.
        mim_weight: Weight of mutual information maximisation (NT-Xent between sensors).
        mde_weight: Weight of discrepancy elimination.
        mim_temperature: Temperature of NT-Xent.
        mim_gather: In training with several processes (torch.distributed), take NT-Xent's negatives from all of them.
        hidden_act: Activation of the feed-forward layers.
        qkv_bias: Bias in the query, key and value projection.
        hidden_dropout_prob: Dropout after attention and feed-forward layers.
        attention_probs_dropout_prob: Dropout of the attention weights.
        layer_norm_eps: Epsilon of the encoder's LayerNorms.
        decoder_layer_norm_eps: Epsilon of the decoder's LayerNorms.
        initializer_range: Standard deviation of CLS and mask tokens at initialisation.
        out_features: Of [`CSMAEBackbone`], the stages whose maps it gives, by name: `"stem"` (the embedded patches),
            `"stage1"` and so on (after each block that a sensor's tokens pass). Default the last.
        out_indices: The same by number, 0 for the stem.

    Raises:
        ValueError: If the fields contradict each other; the message names them.

    Example:
        >>> config = CSMAEConfig.for_variant("sesd", size="tiny")
        >>> config.variant, config.num_patches
        ('sesd', 64)
    """

    model_type = "csmae"
    keys_to_ignore_at_inference = ["hidden_states", "attentions", "present"]  # noqa: RUF012 (the form the Trainer reads)

    sensors: dict[str, list[str]] = field(
        default_factory=lambda: {name: list(b) for name, b in DEFAULT_SENSORS.items()}
    )
    image_size: int = 120
    patch_size: int = 15
    hidden_size: int = 768
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    multi_sensor_encoder_depth: int = 10
    cross_sensor_encoder_depth: int = 2
    decoder_type: str = "specific"
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int | None = None
    pooling: str = "mean"
    mask_ratio: float | int = 0.5
    masking: str = "random"
    cmr_target: str = "source"
    norm_pixel_loss: bool = False
    umr_weight: float | int = 1.0
    cmr_weight: float | int = 1.0
    mim_weight: float | int = 1.0
    mde_weight: float | int = 0.0
    mim_temperature: float | int = 0.5
    mim_gather: bool = True
    hidden_act: str = "gelu"
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float = 1e-6
    decoder_layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        # config.json is written with sorted keys: sorted is the one order that comes back after a load
        self.sensors = dict(sorted(self.sensors.items()))
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.decoder_intermediate_size is None:
            self.decoder_intermediate_size = 4 * self.decoder_hidden_size
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        kwargs.pop("custom_pipelines", None)
        if __package__:  # a repository's code: `pipeline` finds there what the package registers
            kwargs["custom_pipelines"] = copy.deepcopy(_PIPELINES)  # `pipeline` writes into it
        out_features, out_indices = kwargs.pop("out_features", None), kwargs.pop("out_indices", None)
        self._out_features, self._out_indices = None, None
        super().__post_init__(**kwargs)
        if out_features is not None or out_indices is not None:
            self.set_output_features_output_indices(out_features, out_indices)
        self.validate_architecture()  # here too: what `strict` itself runs arrives wrapped, and is no ValueError

    @classmethod
    def for_variant(cls, variant: str, size: str = "base", **overrides: Any) -> "CSMAEConfig":
        """Build the configuration of a variant at a size.

        Args:
            variant: One of `cecd`, `cesd`, `secd`, `sesd`, in any case.
            size: One of `tiny`, `small`, `base`, `large`.
            **overrides: Any other field, or one that variant and size would set.

        Returns:
            The configuration.

        Raises:
            ValueError: If variant or size is unknown, or the fields contradict each other.
        """
        name = variant.lower()
        if name not in VARIANTS:
            raise ValueError(f"Unknown variant {variant!r}: expected one of {', '.join(VARIANTS)}.")
        if size not in SIZES:
            raise ValueError(f"Unknown size {size!r}: expected one of {', '.join(SIZES)}.")
        vit, traits = SIZES[size], VARIANTS[name]
        own_depth = vit["depth"] - vit["shared_depth"] if traits["specific_encoder"] else 0
        fields = {
            "hidden_size": vit["hidden_size"],
            "num_attention_heads": vit["num_attention_heads"],
            "multi_sensor_encoder_depth": own_depth,
            "cross_sensor_encoder_depth": vit["depth"] - own_depth,
            "decoder_type": traits["decoder_type"],
        }
        return cls(**{**fields, **overrides})

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Any:
        """Load as `PreTrainedConfig.from_pretrained` does. `pipeline` without a task is offered one: the one of the saved class."""
        untold = kwargs.get("_from_pipeline", "") is None
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if untold and __package__:
            config.custom_pipelines = {task: config.custom_pipelines[task] for task in config.pipeline_tasks[:1]}
        return loaded

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; what a class of model tells the Trainer to leave out of predictions is none of them."""
        fields = super().to_dict()
        fields.pop("keys_to_ignore_at_inference", None)
        for name in ("out_features", "out_indices"):
            if fields[name] is None:
                del fields[name]
        fields["custom_pipelines"] = {task: copy.deepcopy(_PIPELINES[task]) for task in self.pipeline_tasks}
        return fields

    @property
    def pipeline_tasks(self) -> list[str]:
        """Tasks of `pipeline` that the class of the model can do, its own first."""
        is_classifier = "CSMAEForImageClassification" in (self.architectures or [])
        return ["image-classification", "image-feature-extraction"][0 if is_classifier else 1 :]

    @property
    def variant(self) -> str:
        """The variant these fields amount to, or `"custom"`."""
        if self.cross_sensor_encoder_depth == 0 or len(self.sensors) < 2:
            return "custom"
        encoder = "c" if self.multi_sensor_encoder_depth == 0 else "s"
        return f"{encoder}e{self.decoder_type[0]}d"

    @property
    def num_hidden_layers(self) -> int:
        """Blocks that each sensor's tokens pass in the encoder."""
        return self.multi_sensor_encoder_depth + self.cross_sensor_encoder_depth

    @num_hidden_layers.setter
    def num_hidden_layers(self, value: int) -> None:
        raise NotImplementedError(
            f"num_hidden_layers={value} does not say which blocks are shared: set multi_sensor_encoder_depth and "
            "cross_sensor_encoder_depth, whose sum it is."
        )

    @property
    def stage_names(self) -> list[str]:
        """Names of the maps that a backbone can give: of the embedded patches, and of each block that a sensor's tokens pass."""
        return ["stem", *(f"stage{number}" for number in range(1, self.num_hidden_layers + 1))]

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_visible_patches(self) -> int:
        """Patches that pre-training leaves visible, by the original's rounding (of the first sensor, if `disjoint`)."""
        return int(self.num_patches * (1 - self.mask_ratio))

    def validate_architecture(self) -> None:
        """Refuse what cannot be built; runs at construction and before saving.

        Raises:
            ValueError: With the fields at fault and what would be valid.
        """
        super().validate_architecture()
        if not self.sensors:
            raise ValueError("sensors is empty: name at least one sensor and its bands, such as {'s1': ['VH', 'VV']}.")
        for sensor, bands in self.sensors.items():
            if not sensor.isidentifier() or sensor in RESERVED_SENSOR_NAMES:
                raise ValueError(
                    f"Sensor name {sensor!r} cannot be an argument of forward: use an identifier such as 's1' "
                    f"that is none of {', '.join(sorted(RESERVED_SENSOR_NAMES))}."
                )
            if not bands or len(set(bands)) != len(bands):
                raise ValueError(f"sensors[{sensor!r}] = {bands} must name at least one band, and each band once.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                expected = ", ".join(map(repr, choices))
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected one of {expected}.")
        self._validate_shapes()
        self._validate_masking()
        self._validate_losses()

    def _validate_shapes(self) -> None:
        widths = [
            f"{prefix}{name}"
            for prefix in ("", "decoder_")
            for name in ("hidden_size", "num_attention_heads", "intermediate_size")
        ]
        for name in ("image_size", "patch_size", "decoder_num_hidden_layers", *widths):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1.")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size = {self.image_size} is not a multiple of patch_size = {self.patch_size}.")
        for prefix in ("", "decoder_"):
            width, heads = getattr(self, f"{prefix}hidden_size"), getattr(self, f"{prefix}num_attention_heads")
            if width % heads:
                raise ValueError(
                    f"{prefix}hidden_size = {width} is not a multiple of {prefix}num_attention_heads = {heads}."
                )
            if width % 4:
                raise ValueError(
                    f"{prefix}hidden_size = {width} is not a multiple of 4, which 2-D sin-cos positions need."
                )
        if min(self.multi_sensor_encoder_depth, self.cross_sensor_encoder_depth) < 0 or self.num_hidden_layers < 1:
            raise ValueError(
                f"multi_sensor_encoder_depth = {self.multi_sensor_encoder_depth} and cross_sensor_encoder_depth = "
                f"{self.cross_sensor_encoder_depth} must not be negative, and not both 0."
            )

    def _validate_masking(self) -> None:
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio = {self.mask_ratio} must lie in [0, 1).")
        visible, total = self.num_visible_patches, self.num_patches
        if visible < 1:
            raise ValueError(
                f"mask_ratio = {self.mask_ratio} hides all {total} patches: at most {1 - 1 / total:.4g} leaves one visible."
            )
        if visible == total and (self.umr_weight or self.cmr_weight):
            raise ValueError(
                f"mask_ratio = {self.mask_ratio} hides none of the {total} patches, so reconstruction has nothing to "
                "count: raise it, or set umr_weight and cmr_weight to 0."
            )
        others = len(self.sensors) - 1
        if self.masking == "disjoint" and total - visible < others:
            raise ValueError(
                f"masking = 'disjoint' with mask_ratio = {self.mask_ratio} leaves {total - visible} patches for {others} "
                "more sensors: raise mask_ratio."
            )

    def _validate_losses(self) -> None:
        weights = {name: getattr(self, name) for name in ("umr_weight", "cmr_weight", "mim_weight", "mde_weight")}
        if min(weights.values()) < 0:
            raise ValueError(f"Loss weights must not be negative, got {weights}.")
        usable = weights if len(self.sensors) > 1 else {"umr_weight": self.umr_weight}
        if not any(usable.values()):
            raise ValueError(
                f"No loss is left to train with {len(self.sensors)} sensor(s): set one of {list(usable)} above 0."
            )
        if not self.mim_temperature > 0:
            raise ValueError(f"mim_temperature = {self.mim_temperature} must be above 0.")


class CSMAEPushMixin(PushToHubMixin):
    """`push_to_hub` of models and processors: a new repository is private, and its card says only what is known."""

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, **kwargs: Any) -> Any:
        """Push to the Hub, with the code; see Transformers' `push_to_hub` for all arguments.

        Args:
            repo_id: `owner/name`, or the name alone for the token's owner.
            private: Whether a new repository is private; None is private. One that exists stays what it is.
            **kwargs: As of Transformers.

        Returns:
            What was committed.
        """
        return super().push_to_hub(repo_id, private=True if private is None else private, **kwargs)

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Put a short true card in the place of Transformers' form of empty fields; a card that exists is left alone."""
        path = os.path.join(working_dir, "README.md")
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                is_form = "[More Information Needed]" in file.read()
            if is_form:
                with open(path, "w", encoding="utf-8") as file:
                    owner: Any = getattr(self, "config", self)  # a model has its sensors in its configuration
                    generated = bool(getattr(owner, "trained_on_generated", None))
                    file.write(
                        short_card(owner.sensors, *getattr(owner, "pipeline_tasks", ())[:1], generated=generated)
                    )
        return super()._upload_modified_files(working_dir, *args, **kwargs)


def short_card(
    sensors: Mapping[str, Sequence[str]], task: str = "image-feature-extraction", *, generated: bool = False
) -> str:
    """Write README.md of a model of which only little is known; `csmae push` writes a full one.

    Args:
        sensors: Bands by sensor.
        task: Of `pipeline`.
        generated: Whether it was trained on generated scenes.

    Returns:
        The text.
    """
    bands = "\n".join(f"* {sensor}: {', '.join(names)}" for sensor, names in sensors.items())
    warning = (
        "**Trained on generated scenes, not on satellite images: it is of no use on real images.**\n\n" * generated
    )
    return f"""---
library_name: transformers
pipeline_tag: {task}
tags:
- csmae
- remote-sensing
- masked-autoencoder
- image-retrieval
- custom_code
- arxiv:2401.07782
---

# Cross-sensor masked autoencoder (CSMAE, arXiv 2401.07782)

{warning}Bands, in the order of the input channels; `preprocessor_config.json` has their statistics:

{bands}

`AutoModel` and `AutoImageProcessor` load it with `trust_remote_code=True`: that runs the code of this repository, so read it, and
pin the `revision` to the commit that you have read.
"""


CSMAEConfig.register_for_auto_class()

__all__ = ["AUTO_MAP", "DEFAULT_SENSORS", "SIZES", "VARIANTS", "CSMAEConfig", "CSMAEPushMixin", "short_card"]
