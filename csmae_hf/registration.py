"""Registers the classes with Transformers' Auto classes as Transformers does its own: by name, imported when first used; and features.

Importing the models and the processor takes longer than everything else together, and `AutoModel.register` wants the class itself.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, AutoModelForPreTraining
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from configuration_csmae import CSMAEConfig

_AUTO = "transformers.models.auto"
_FEATURES = ("csmae_hf.data.time_column", "csmae_hf.data.pixel_column")


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
    register_features()


def register_features() -> None:
    """Let `datasets` know this package's features, now or when somebody imports it: it takes as long as all else here."""
    if "datasets" in sys.modules:
        _import_features()
    elif not any(isinstance(finder, _AfterDatasets) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterDatasets())


def _import_features() -> None:
    for name in _FEATURES:  # which register themselves
        importlib.import_module(name)


class _AfterDatasets(MetaPathFinder):
    """Finds `datasets` as Python does, and has the features imported after it."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Give the specification of `datasets`, and of nothing else; many ask for it who do not import it then."""
        if fullname != "datasets":
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithFeatures(spec.loader)
        return spec


class _WithFeatures(Loader):
    """Loads a module, and then the features."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module as its own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run it as its own loader does."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _AfterDatasets)]
        self.loader.exec_module(module)
        module.__spec__.loader = module.__loader__ = self.loader  # type: ignore[union-attr]
        _import_features()
