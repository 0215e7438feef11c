"""The model of a run and its processor, from the arguments: CSMAE or a baseline, new or from a checkpoint."""

import logging
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from configuration_csmae import CSMAEConfig
from csmae_hf.training.arguments import ModelArguments, parse_overrides
from csmae_hf.training.warm_start import warm_start
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

logger = logging.getLogger(__name__)

DEFAULT_VARIANT, DEFAULT_SIZE = "sesd", "base"

MAE_FIELDS: dict[str, Any] = {
    "cross_sensor_encoder_depth": 0,
    "decoder_type": "specific",
    "cmr_weight": 0.0,
    "mim_weight": 0.0,
    "mde_weight": 0.0,
}
"""What makes CSMAE one uni-modal MAE a sensor: no shared block, no shared decoder, no term between sensors."""


def build_model(model_args: ModelArguments, report_folder: Path | None = None) -> CSMAEForPreTraining:
    """Build a model, or load one to go on from.

    With `model_name_or_path` and neither a variant nor a size nor a baseline named, the architecture is the checkpoint's. Otherwise it
    is the one named, and of the weights those are loaded that fit; see [`warm_start`].

    What was loaded is listed in `report_folder`, if one is given.

    Raises:
        ValueError: If the overrides name no field of `CSMAEConfig` or contradict each other, or nothing of the checkpoint fits.
    """
    overrides = parse_overrides(model_args.model_overrides)
    try:
        config = model_config(model_args, overrides)
    except StrictDataclassError as error:  # a field of another type, which is no ValueError to huggingface_hub
        raise ValueError(f"model_overrides = {overrides}: {error}") from error
    if not model_args.model_name_or_path:
        return CSMAEForPreTraining(config)
    model, report = warm_start(model_args.model_name_or_path, config, **model_args.hub_options)
    if report_folder is not None:
        logger.info("%s\n  all of it: %s", report.summary(), report.write(report_folder))
    return model


def model_config(model_args: ModelArguments, overrides: dict[str, Any]) -> CSMAEConfig:
    """Say which architecture the arguments ask for; overrides win over variant and size, the baseline's own fields over them.

    Raises:
        FileNotFoundError: If there is no checkpoint where one is named.
        ValueError: If the fields contradict each other.
    """
    is_mae = model_args.model_name == "mae"
    if model_args.model_name_or_path and not (is_mae or model_args.variant or model_args.size):
        try:
            return CSMAEConfig.from_pretrained(model_args.model_name_or_path, **model_args.hub_options, **overrides)
        except OSError as error:
            raise FileNotFoundError(
                f"No checkpoint at {model_args.model_name_or_path}: name a folder or Hub id with a config.json. ({error})"
            ) from error
    variant, size = model_args.variant or DEFAULT_VARIANT, model_args.size or DEFAULT_SIZE
    config = CSMAEConfig.for_variant(variant, size, **overrides)
    if not is_mae:
        return config
    depth = {"multi_sensor_encoder_depth": config.num_hidden_layers}
    return CSMAEConfig.for_variant(variant, size, **{**overrides, **depth, **MAE_FIELDS})


def build_processor(model_args: ModelArguments, config: CSMAEConfig) -> CSMAEImageProcessor:
    """Build the processor of a model: with the checkpoint's statistics and orientation, where it goes on from one that has them."""
    if model_args.model_name_or_path:
        try:
            return CSMAEImageProcessor.from_pretrained(
                model_args.model_name_or_path,
                sensors=config.sensors,
                size=config.image_size,
                **model_args.hub_options,
            )
        except OSError:
            logger.warning("%s has no processor: BigEarthNet's statistics are used.", model_args.model_name_or_path)
    return CSMAEImageProcessor(sensors=config.sensors, size=config.image_size)
