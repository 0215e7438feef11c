"""What embeds depend on: a model's weights and a processor's settings, as hashes that another model or processor does not have."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

import csmae_hf
from csmae_hf.embedding.without_paths import without_paths
from csmae_hf.sample.shipped import TINY_GENERATED, TINY_NAME

METRIC = "cosine"
"""Similarity of an archive: the inner product of unit vectors."""

_NOT_SETTINGS = ("auto_map", "processor_class", "image_processor_type", "feature_extractor_type", "suspect")

_NOT_IN_EMBEDS = frozenset(
    {
        "mask_ratio",
        "masking",
        "cmr_target",
        "norm_pixel_loss",
        "umr_weight",
        "cmr_weight",
        "mim_weight",
        "mde_weight",
        "mim_temperature",
        "mim_gather",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "initializer_range",
    }
)
"""Fields of a configuration that act in training alone; those of decoders, `decoder_...`, are none of an embed's either."""


class ArchiveMismatchError(ValueError):
    """A model, processor or metric that an archive was not made with."""


@dataclass(frozen=True)
class Identity:
    """What an archive's embeds were made with.

    Attributes:
        model: Folder or Hub name of the model; empty where it never had one.
        revision: Commit of the Hub repository, where the model came from there.
        weights: SHA-256 of the encoder's weights (`weights_hash`).
        processor: SHA-256 of the processor's settings (`processor_hash`).
        metric: Similarity by which tiles are compared.
        config: Fields of the model's configuration that change an embed (`encoder_settings`); None where they were not recorded.
        precision: Type of the weights as they computed, such as "float32"; it is in their hash too.
        code: Version of csmae-hf that embedded; never a reason to refuse.
        trained_on_generated: Whether the weights were trained on generated scenes; None where nobody knows.
    """

    model: str
    revision: str | None
    weights: str
    processor: str
    metric: str = METRIC
    config: Mapping[str, Any] | None = None
    precision: str | None = None
    code: str | None = None
    trained_on_generated: bool | None = None

    @classmethod
    def of(cls, model: torch.nn.Module, processor: Any, name: str | None = None) -> "Identity":
        """Identify a model and its processor; `name` is its folder or Hub name, where it is not the one it was loaded from."""
        config: Any = getattr(model, "config", None)
        loaded_from = str(getattr(config, "_name_or_path", "") or "")
        revision = getattr(config, "_commit_hash", None) if name in (None, loaded_from) else None
        hashes = weights_hash(model), processor_hash(processor)
        if name is None and loaded_from == TINY_GENERATED:
            name = TINY_NAME  # which every installation has, at a place of its own
        dtype = next((str(weights.dtype).removeprefix("torch.") for weights in model.parameters()), None)
        return cls(
            name or loaded_from,
            revision,
            *hashes,
            config=encoder_settings(model),
            precision=dtype,
            code=csmae_hf.__version__,
            trained_on_generated=getattr(config, "trained_on_generated", None),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that changes an embed: weights, configuration and processor."""
        told = json.dumps([self.weights, self.processor, self.config], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def differences(self, other: "Identity") -> list[tuple[str, str, str]]:
        """What gives other embeds: name, our value and theirs; of hashes the first 12 letters."""
        found = [
            (name, getattr(self, name)[:12], getattr(other, name)[:12])
            for name in ("weights", "processor")
            if getattr(self, name) != getattr(other, name)
        ]
        return [*found, *_other_settings(self.config, other.config)]

    def refuse_other(
        self,
        other: "Identity",
        where: str,
        remedy: str = "Load that model and its processor, or build the archive again.",
    ) -> None:
        """Refuse a model or processor that is not this one; `where` is the archive, and `remedy` what to do, for the message.

        Raises:
            ArchiveMismatchError: Naming what differs, both sides of it, and the remedy.
        """
        if other.weights != self.weights:
            raise ArchiveMismatchError(
                f"{where} was made with the model {self.described} (weights {self.weights[:12]}), not with {other.described} "
                f"(weights {other.weights[:12]}). Embeds of two models cannot be compared. {remedy}"
            )
        if settings := _other_settings(self.config, other.config):
            name, ours, theirs = settings[0]
            more = f" ({', '.join(name for name, *_ in settings[1:])} differ too)" if len(settings) > 1 else ""
            raise ArchiveMismatchError(
                f"{where} was made with {name} = {ours}; the model given has {theirs}{more}. The same weights give other embeds "
                f"then. {remedy}"
            )
        if other.processor != self.processor:
            raise ArchiveMismatchError(
                f"{where} was made with another processor (settings {self.processor[:12]}, given {other.processor[:12]}): bands, "
                f"statistics, size or orientation differ. {remedy}"
            )

    @property
    def described(self) -> str:
        """The model's name, and its revision where there is one."""
        return (self.model or "a model without a name") + (f" at {self.revision[:12]}" if self.revision else "")


def weights_hash(model: torch.nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of the weights of a model's encoder; heads and decoders do not count."""
    encoder = getattr(model, str(getattr(model, "base_model_prefix", "")) or "_", model)
    state = encoder.state_dict()
    total = hashlib.sha256()
    for name in sorted(state):
        for part, plain in _plain_parts(name, state[name].detach()):
            tensor = plain.cpu().contiguous()
            total.update(f"{part}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _plain_parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor with its name, or the plain ones that a quantised tensor is made of, named with how it computes by them."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield name, tensor
        return
    parts, settings = tensor.__tensor_flatten__()
    for part in parts:
        yield from _plain_parts(f"{name}.{part} {type(tensor).__name__} {settings}", getattr(tensor, part))


def encoder_settings(model: torch.nn.Module) -> dict[str, Any]:
    """Take from a model's configuration what changes an embed: two models of the same weights may differ in nothing else.

    Of an encoder of another kind they are its `provenance_fields`.
    These are the fields that its configuration's class adds to those of all classes, without what acts in training or decoders alone,
    as JSON gives them back; none where it has no configuration of Transformers.
    """
    from transformers import PreTrainedConfig

    own: Mapping[str, Any] | None = getattr(model, "provenance_fields", None)
    if own is not None:
        # as a record keeps it that is given away: what is compared with it later must be the same
        stored: dict[str, Any] = without_paths(json.loads(json.dumps(dict(own), default=str)))
        return stored
    config: Any = getattr(model, "config", None)
    if not (isinstance(config, PreTrainedConfig) and is_dataclass(config)):
        return {}
    # names, versions and labels are common to all classes
    names = {item.name for item in fields(config)} - {item.name for item in fields(PreTrainedConfig)} - _NOT_IN_EMBEDS
    values = config.to_dict()
    settings = {name: values[name] for name in sorted(names & values.keys()) if not name.startswith("decoder_")}
    held: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return held


def _other_settings(recorded: Mapping[str, Any] | None, given: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Fields of two configurations that differ, with both values; none where one was not recorded.

    A field that one has not is of a release that did not know it yet, and says nothing.
    """
    if recorded is None or given is None:
        return []
    names = sorted(name for name in recorded.keys() & given.keys() if recorded[name] != given[name])
    return [(name, repr(recorded[name]), repr(given[name])) for name in names]


def processor_hash(processor: Any) -> str:
    """SHA-256 of the settings of a processor; how it is stored and loaded does not count."""
    settings = {
        name: value
        for name, value in processor.to_dict().items()
        if not name.startswith("_") and name not in _NOT_SETTINGS
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
