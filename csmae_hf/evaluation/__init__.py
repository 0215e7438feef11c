"""Embedding, searching and measuring."""

from pathlib import Path

EVALUATE_MODULE = str(Path(__file__).parent / "cross_sensor_retrieval")
"""Folder of the metrics as a module of the `evaluate` library: `evaluate.load(EVALUATE_MODULE)`."""
