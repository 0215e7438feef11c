"""The fields by which https://geoembeddings.org describes a model in the metadata of its card."""

from collections.abc import Mapping
from typing import Any

REQUIRED: tuple[str, ...] = (
    "license",
    "provider",
    "embedding_spatial_types",
    "embedding_temporal_type",
    "embedding_spatial_context",
    "embedding_temporal_context",
    "embedding_dimension",
    "description",
)
"""Fields that a model's card must have by that specification."""

ALLOWED: dict[str, tuple[str, ...]] = {
    "embedding_spatial_types": ("pixel", "patch", "scene"),
    "embedding_temporal_type": ("single-date", "multi-date"),
    "embedding_spatial_context": (
        "spatial context determined by embedding spatial type",
        "spatial context beyond embedding spatial type",
    ),
    "embedding_temporal_context": (
        "temporal context determined by embedding spatial type",  # spelt so in the specification
        "spatial context beyond embedding temporal type",
    ),
}
"""The values that it allows."""

_PRODUCTS = {"s1": ("SAR", "sentinel-1-grd"), "s2": ("multispectral", "sentinel-2-l2a")}


def geo_fields(facts: Mapping[str, Any], repo_id: str) -> dict[str, Any]:
    """Describe a model in these fields: one embedding a tile of one date, what it was pre-trained on, what it is no good for.

    Its optional `inference` is left out: the Hub has a field of this name, of another type.

    Args:
        facts: As of [`read_facts`].
        repo_id: The repository; its owner is the provider where none was named.
    """
    config, generated = facts["config"], facts["synthetic"]
    known = [_PRODUCTS[sensor] for sensor in config.sensors if sensor in _PRODUCTS]
    owner = repo_id.rpartition("/")[0]
    pretraining = {
        "data_types": [kind for kind, _ in known],
        # generated scenes are no product of anybody
        "product_names": [product for _, product in known] if generated is False else None,
        "training_strategy": "MIM (cross-sensor masked autoencoder)",
        "patch_size": config.image_size,
        "temporal_context": "single-date",
        "batch_size": facts["settings"].get("per_device_train_batch_size"),
    }
    fields = {
        "provider": facts["provider"] or owner or None,
        "embedding_spatial_types": ["patch"],
        "embedding_temporal_type": ["single-date"],
        "embedding_spatial_context": ALLOWED["embedding_spatial_context"][0],
        "embedding_temporal_context": ALLOWED["embedding_temporal_context"][0],
        "embedding_dimension": config.hidden_size,
        "description": (
            f"Cross-sensor masked autoencoder: one embedding of a tile of {config.image_size} x {config.image_size} pixels, in one "
            f"space for the sensors {', '.join(config.sensors)}, for image retrieval within and across them."
        ),
        "cautions": "trained on generated scenes, of no use on satellite images" if generated else None,
        "precomputed_embeddings": "no",
        "publication_link": "https://arxiv.org/abs/2401.07782",
        "model_architecture": (
            f"ViT, width {config.hidden_size}, {config.multi_sensor_encoder_depth} blocks of each sensor's own and "
            f"{config.cross_sensor_encoder_depth} shared, patches of {config.patch_size} x {config.patch_size} pixels"
        ),
        "pretraining": {name: value for name, value in pretraining.items() if value},
    }
    return {name: value for name, value in fields.items() if value is not None}
