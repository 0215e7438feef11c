"""CSMAE for Hugging Face Transformers: cross-sensor masked autoencoders for remote-sensing image retrieval.

Importing this package registers the classes, after which `AutoModel.from_pretrained` needs no `trust_remote_code`.
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)

from configuration_csmae import CSMAEConfig
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

__version__ = "0.1.0"

AutoConfig.register("csmae", CSMAEConfig, exist_ok=True)
AutoModel.register(CSMAEConfig, CSMAEModel, exist_ok=True)
AutoModelForPreTraining.register(CSMAEConfig, CSMAEForPreTraining, exist_ok=True)
AutoModelForImageClassification.register(CSMAEConfig, CSMAEForImageClassification, exist_ok=True)
AutoImageProcessor.register(CSMAEConfig, image_processor_classes={"pil": CSMAEImageProcessor}, exist_ok=True)

__all__ = [
    "CSMAEConfig",
    "CSMAEForImageClassification",
    "CSMAEForPreTraining",
    "CSMAEImageProcessor",
    "CSMAEModel",
    "__version__",
]
