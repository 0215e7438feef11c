"""Registers the classes with Transformers' Auto classes as Transformers does its own: by name, imported when first used; and features.

Importing the models and the processor takes longer than everything else together, and `AutoModel.register` wants the class itself.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from configuration_csmae import CSMAEConfig

_AUTO = "transformers.models.auto"
_FEATURES = ("csmae_hf.data.time_column", "csmae_hf.data.pixel_column")


def register_all() -> None:
    """Let the Auto classes and `pipeline` find all classes, in whatever order all are imported."""
    AutoConfig.register("csmae", CSMAEConfig, exist_ok=True)
    CONFIG_MAPPING_NAMES["csmae"] = "CSMAEConfig"
    # where Transformers looks for the classes of a model type; this package imports each when it is asked for
    sys.modules["transformers.models.csmae"] = sys.modules["csmae_hf"]
    for auto_class, name in (
        (AutoModel, "CSMAEModel"),
        (AutoModelForPreTraining, "CSMAEForPreTraining"),
        (AutoModelForImageClassification, "CSMAEForImageClassification"),
        (AutoBackbone, "CSMAEBackbone"),
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
    # where `pipeline`, which is imported by then, asks a repository for pipelines of its own
    CSMAEConfig.custom_pipelines = property(_custom_pipelines)  # type: ignore[attr-defined]


def register_pipelines() -> None:
    """Let `pipeline` make this package's pipelines for its models. `register_pipeline` would take the tasks away from all others."""
    tasks = importlib.import_module("transformers.pipelines").PIPELINE_REGISTRY.supported_tasks
    for task, name in (
        ("image-feature-extraction", "CSMAEImageFeatureExtractionPipeline"),
        ("image-classification", "CSMAEImageClassificationPipeline"),
    ):
        if not isinstance(tasks[task]["impl"], _PipelineByModel):
            tasks[task] = {**tasks[task], "impl": _PipelineByModel(name, tasks[task]["impl"])}


def _custom_pipelines(config: CSMAEConfig) -> dict[str, Any]:
    """No pipelines of the folder's own code, which would have to be trusted: those of this package do the same."""
    register_pipelines()
    return {}


class _PipelineByModel:
    """Stands in the place of a class of pipeline: makes this package's for its models, and what was there for all others."""

    _load_video_processor = False  # of a video no task here is, and to look for one asks whether to trust the folder

    def __init__(self, name: str, stock: Any):
        self.name, self.stock = name, stock

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stock_class(), attribute)

    def __call__(self, *, model: Any, **arguments: Any) -> Any:
        is_ours = getattr(getattr(model, "config", None), "model_type", None) == CSMAEConfig.model_type
        kind = getattr(importlib.import_module("pipeline_csmae"), self.name) if is_ours else self._stock_class()
        return kind(model=model, **arguments)

    def _stock_class(self) -> Any:
        if not isinstance(self.stock, str):
            return self.stock
        module, _, name = self.stock.rpartition(".")
        return getattr(importlib.import_module(module), name)


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
