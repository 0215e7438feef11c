"""Retrieval across sensors, measured: `retrieve` models on tiles, or `evaluate_retrieval` of embeds that are there already."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csmae_hf.evaluation.evaluate import Embedded as Embedded
    from csmae_hf.evaluation.evaluate import evaluate_retrieval as evaluate_retrieval
    from csmae_hf.evaluation.results import write_results as write_results
    from csmae_hf.evaluation.retrieval_options import RetrievalOptions as RetrievalOptions
    from csmae_hf.evaluation.run import retrieve as retrieve
    from csmae_hf.evaluation.tables import format_table as format_table

EVALUATE_MODULE = str(Path(__file__).parent / "cross_sensor_retrieval")
"""Folder of the metrics as a module of the `evaluate` library: `evaluate.load(EVALUATE_MODULE)`."""

_FILES = {
    "Embedded": "evaluate",
    "RetrievalOptions": "retrieval_options",
    "evaluate_retrieval": "evaluate",
    "format_table": "tables",
    "retrieve": "run",
    "write_results": "results",
}

__all__ = ["EVALUATE_MODULE", *_FILES]


def __getattr__(name: str) -> Any:
    """Import what is asked for: `EVALUATE_MODULE` alone costs nothing."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
