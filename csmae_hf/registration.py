"""Registers the classes with Transformers' Auto classes as Transformers does its own: by name, imported when first used.

Importing the models and the processor takes longer than everything else together, and `AutoModel.register` wants the class itself.
"""

import importlib
import sys

from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, AutoModelForPreTraining
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from configuration_csmae import CSMAEConfig

_AUTO = "transformers.models.auto"


def register_all() -> None:
    """Let the Auto classes find the configuration, the models and the image processor, in whatever order all are imported."""
    AutoConfig.register("csmae", CSMAEConfig, exist_ok=True)
    CONFIG_MAPPING_NAMES["csmae"] = "CSMAEConfig"
    # where Transformers looks for the classes of a model type; this package imports each when it is asked for
    sys.modules["transformers.models.csmae"] = sys.modules["csmae_hf"]
    for auto_class, name in (
        (AutoModel, "CSMAEModel"),
        (AutoModelForPreTraining, "CSMAEForPreTraining"),
        (AutoModelForImageClassification, "CSMAEForImageClassification"),
    ):
        auto_class._model_mapping._model_mapping["csmae"] = name
        auto_class._model_mapping._reverse_config_mapping["CSMAEConfig"] = "csmae"
    try:  # only names, which `AutoImageProcessor` reads when somebody imports it: that takes long, too
        names = importlib.import_module(f"{_AUTO}.auto_mappings").IMAGE_PROCESSOR_MAPPING_NAMES
    except (ImportError, AttributeError):  # an earlier Transformers
        names = importlib.import_module(f"{_AUTO}.image_processing_auto").IMAGE_PROCESSOR_MAPPING_NAMES
    names["csmae"] = {"pil": "CSMAEImageProcessor"}
    if processors := sys.modules.get(f"{_AUTO}.image_processing_auto"):  # it has been imported already
        processors.IMAGE_PROCESSOR_MAPPING._reverse_config_mapping["CSMAEConfig"] = "csmae"
