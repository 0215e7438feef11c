"""CSMAE for Hugging Face Transformers: cross-sensor masked autoencoders for remote-sensing image retrieval.

Importing this package registers the classes, after which `AutoModel.from_pretrained` needs no `trust_remote_code`. The models
and the processor are imported when they are first used, so that the import alone is quick. `TINY_GENERATED` is the folder of a small
trained model that comes with the package.
"""

import importlib
from typing import TYPE_CHECKING, Any

from configuration_csmae import CSMAEConfig
from csmae_hf.registration import register_all, register_pipelines

if TYPE_CHECKING:
    from csmae_hf.sample.shipped import TINY_GENERATED
    from image_processing_csmae import CSMAEImageProcessor
    from modeling_csmae import CSMAEBackbone, CSMAEForImageClassification, CSMAEForPreTraining, CSMAEModel

__version__ = "0.1.0"

_MODULES = {
    "CSMAEBackbone": "modeling_csmae",
    "TINY_GENERATED": "csmae_hf.sample.shipped",
    "CSMAEForImageClassification": "modeling_csmae",
    "CSMAEForPreTraining": "modeling_csmae",
    "CSMAEImageProcessor": "image_processing_csmae",
    "CSMAEModel": "modeling_csmae",
}

register_all()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    register_pipelines()  # costs nothing after what the line before imports
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "TINY_GENERATED",
    "CSMAEBackbone",
    "CSMAEConfig",
    "CSMAEForImageClassification",
    "CSMAEForPreTraining",
    "CSMAEImageProcessor",
    "CSMAEModel",
    "__version__",
]
