"""The numbers that generated scenes are made of, from `tables.json`: materials, the year by climate, classes, landscapes."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_TABLES: dict[str, Any] = json.loads(Path(__file__).with_name("tables.json").read_text(encoding="utf-8"))
_MATERIALS: dict[str, dict[str, Any]] = _TABLES["materials"]

SIGNATURE_BANDS: tuple[str, ...] = tuple(_TABLES["bands"])
"""The Sentinel-2 bands of a spectrum, in order."""

MATERIALS: tuple[str, ...] = tuple(_MATERIALS)
"""Names of the materials; their order is the order of every array of abundances."""


def _column(name: str) -> NDArray[np.float32]:
    return np.array([material.get(name, 0.0) for material in _MATERIALS.values()], dtype=np.float32)


SPECTRA = _column("s2")
"""(materials, bands) Level-2A digital numbers at noon, clear sky."""

BACKSCATTER = _column("s1")
"""(materials, 2) mean backscatter VH, VV, dB."""

HEIGHT = _column("height")
"""(materials,) height relative to a forest's."""

IS_OPEN_GROUND, IS_WATER = (
    np.array([material.get("follows") == cause for material in _MATERIALS.values()]) for cause in ("moisture", "wind")
)
"""(materials,) bool: whose backscatter follows the moisture of the ground, and the wind."""

HAZE, CLOUD = (np.array(_TABLES[name], dtype=np.float32) for name in ("haze", "cloud"))
"""(bands,) digital numbers of a haze of strength 1, and of a thick cloud."""

CLIMATES: dict[str, dict[str, list[float]]] = _TABLES["climates"]
"""The course of a year by climate: `leaf`, `grass`, `crop`, `stubble`, a number a month."""

MONTH_WEIGHTS: tuple[float, ...] = tuple(_TABLES["month_weights"])
"""How often a month is drawn for the Sentinel-2 date, January first."""

CLASS_COUNT_WEIGHTS: tuple[float, ...] = tuple(_TABLES["class_count_weights"])
"""Weights of two, three, four and five classes in a tile that does not show one class alone."""


class CoverStyle(NamedTuple):
    """How a class lies in the land (`layout`: parcel, area, settlement, lake, sea or shore) and how rough it looks."""

    layout: str
    texture_s2: float
    texture_s1: float


COVER_STYLES: dict[str, CoverStyle] = {name: CoverStyle(**style) for name, style in _TABLES["covers"].items()}
"""Layout and texture of each of the 19 classes."""


class Biome(NamedTuple):
    """A kind of landscape: which classes occur together, where, in what fields and on what ground; fields as in `tables.json`."""

    weight: float
    climate: str
    places: list[tuple[str, str, int]]
    always: list[str]
    classes: dict[str, float]
    alone: float
    field_pixels: tuple[float, float]
    relief: float
    hedges: float
    snow: float


BIOMES: dict[str, Biome] = {name: Biome(**biome) for name, biome in _TABLES["biomes"].items()}
"""The landscapes by name."""
