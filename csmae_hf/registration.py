"""Registers the classes with Transformers' Auto classes, and imports none of them before it is needed.

Transformers' model and processor code takes longer to import than everything else together. So the Auto classes of models
get stand-ins that import the real class when anything is asked of it. `AutoImageProcessor` takes real classes only and is
itself as costly: the processor is registered once somebody imports that.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, AutoModelForPreTraining

from configuration_csmae import CSMAEConfig

PROCESSORS = "transformers.models.auto.image_processing_auto"
"""The module that defines `AutoImageProcessor`."""


def register_all() -> None:
    """Register the configuration and the models now, the image processor as soon as its Auto class is imported."""
    AutoConfig.register("csmae", CSMAEConfig, exist_ok=True)
    AutoModel.register(CSMAEConfig, _stand_in("CSMAEModel"), exist_ok=True)
    AutoModelForPreTraining.register(CSMAEConfig, _stand_in("CSMAEForPreTraining"), exist_ok=True)
    AutoModelForImageClassification.register(CSMAEConfig, _stand_in("CSMAEForImageClassification"), exist_ok=True)
    if PROCESSORS in sys.modules:
        _register_processor()
    else:
        sys.meta_path.insert(0, _Finder())


class _StandIn(type):
    """Class of stand-ins: they have the real model class's name, and everything else of it by importing it."""

    def _real(cls) -> Any:
        return getattr(importlib.import_module("modeling_csmae"), cls.__name__)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls._real(), name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._real()(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls._real())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls._real())


def _stand_in(name: str) -> Any:
    return _StandIn(name, (), {"config_class": CSMAEConfig, "__module__": "modeling_csmae"})


def _register_processor() -> None:
    from transformers import AutoImageProcessor

    from image_processing_csmae import CSMAEImageProcessor

    AutoImageProcessor.register(CSMAEConfig, image_processor_classes={"pil": CSMAEImageProcessor}, exist_ok=True)


class _Finder(MetaPathFinder):
    """Finds the module of `AutoImageProcessor` as Python does, and registers the processor when it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PROCESSORS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    def __init__(self, loader: Any):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _register_processor()
