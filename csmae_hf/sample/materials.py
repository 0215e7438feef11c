"""What each pixel of a generated scene is made of: from the map of classes to the abundance of every material. Pure functions.

A class is a recipe: shares of materials in a pattern. Both sensors are computed from the same abundances, so what they show of a place
is the same land, seen differently; and classes share materials, so neither sensor tells them apart without error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csmae_hf.bigearthnet import LABELS
from csmae_hf.sample.landcover import EDGE, PARCEL_CODES, Field, Parcels, smooth_field
from csmae_hf.sample.tables import CLIMATES, COVER_STYLES, MATERIALS

Recipe = Mapping[str, Field | float]


@dataclass(frozen=True)
class Season:
    """The state of the vegetation on a day: the four courses of a climate (see `tables.json`) at that day."""

    leaf: float
    grass: float
    crop: float
    stubble: float


def season_at(climate: str, month: float) -> Season:
    """Interpolate the season of a climate at a time of the year: months from 0.0, the first of January, to 12.0; wraps around."""
    middles = np.arange(12) + 0.5
    return Season(
        **{name: float(np.interp(month, middles, course, period=12)) for name, course in CLIMATES[climate].items()}
    )


@dataclass(frozen=True)
class Ground:
    """What the recipes are computed from.

    Attributes:
        rng: Source of randomness.
        parcels: Division of the tile into fields.
        season: State of the vegetation.
        medium: (EDGE, EDGE) random field of about 10 pixels.
        fine: (EDGE, EDGE) random field of about 3 pixels.
        wetness: Wetness of the season, about -1 to 1.
    """

    rng: np.random.Generator
    parcels: Parcels
    season: Season
    medium: Field
    fine: Field
    wetness: float

    def by_parcel(self) -> Field:
        """Draw a standard normal number for each parcel: (EDGE, EDGE)."""
        return self.rng.standard_normal(PARCEL_CODES, dtype=np.float32)[self.parcels.code]

    def uniform_by_parcel(self) -> Field:
        """Draw a number in [0, 1) for each parcel: (EDGE, EDGE)."""
        return self.rng.random(PARCEL_CODES, dtype=np.float32)[self.parcels.code]


def _gate(field: Field, sharpness: float = 4.0) -> Field:
    """Turn a field into shares: about 0 where it is negative, 1 where it is positive."""
    return (1.0 / (1.0 + np.exp(-np.clip(sharpness * field, -30, 30)))).astype(np.float32)


def _clip(field: Field) -> Field:
    return np.clip(field, 0.0, 1.0)


def _mix(share: Field | float, one: Recipe, other: Recipe) -> dict[str, Field | float]:
    """Mix two recipes, `share` of the first."""
    return {name: share * one.get(name, 0.0) + (1.0 - share) * other.get(name, 0.0) for name in {**one, **other}}


def _deciduous(season: Season) -> Recipe:
    return {"broadleaf": season.leaf, "branches": 1.0 - season.leaf}


def _meadow(green: Field | float) -> Recipe:
    return {"grass": green, "straw": 1.0 - green}


def _arable(ground: Ground) -> Recipe:
    state = ground.uniform_by_parcel()
    vigour = _clip(0.85 + 0.15 * ground.by_parcel() + 0.06 * ground.medium)
    green = (state < ground.season.crop).astype(np.float32)
    ripe = (state < ground.season.crop + ground.season.stubble).astype(np.float32) - green
    bare = 1.0 - green - ripe
    crop = green * vigour + 0.06 * bare
    stubble = ripe * _clip(0.75 + 0.2 * ground.by_parcel())
    return {"crop": crop, "stubble": stubble, "soil": _clip(1.0 - crop - stubble)}


def _pastures(ground: Ground) -> Recipe:
    green = _clip(ground.season.grass + 0.15 * ground.by_parcel() + 0.06 * ground.medium)
    mown = (ground.uniform_by_parcel() < 0.12).astype(np.float32)
    return _mix(0.97 - 0.3 * mown, _meadow(green), {"stubble": 0.7, "soil": 0.3})


def _permanent_crops(ground: Ground) -> Recipe:
    period = 2.3 + 1.5 * ground.uniform_by_parcel()
    rows = 0.5 + 0.5 * np.cos(2 * np.pi * ground.parcels.across / period)
    trees = _clip(0.18 + 0.4 * rows + 0.12 * ground.by_parcel())
    tree = _mix(0.45, {"shrub": 1.0}, _deciduous(ground.season))
    floor = _mix(_clip(0.55 + 0.35 * ground.by_parcel()), {"soil": 1.0}, _meadow(ground.season.grass))
    return _mix(trees, tree, floor)


def _complex_cultivation(ground: Ground) -> Recipe:
    columns, rows = ground.parcels.across, ground.parcels.along
    plot = (np.floor(columns / 3.5).astype(np.int32) * 31 + np.floor(rows / 6.0).astype(np.int32) * 17) % PARCEL_CODES
    kind = ground.rng.random(PARCEL_CODES, dtype=np.float32)[plot]
    plots = replace(ground, parcels=replace(ground.parcels, code=plot))
    fields = _mix((kind < 0.55).astype(np.float32), _arable(plots), _pastures(plots))
    trees = 0.85 * (kind > 0.86).astype(np.float32) + 0.08
    return _mix(trees, _mix(0.8, _deciduous(ground.season), {"shrub": 1.0}), fields)


def _agriculture_with_nature(ground: Ground) -> Recipe:
    nature = _gate(ground.medium + 0.5 * ground.fine + 0.5 * ground.by_parcel() - 0.35)
    wild = _mix(0.65, _mix(0.75, _deciduous(ground.season), {"conifer": 1.0}), {"shrub": 0.6, "straw": 0.4})
    farmed = _mix((ground.uniform_by_parcel() < 0.5).astype(np.float32), _arable(ground), _pastures(ground))
    return _mix(0.9 * nature, wild, farmed)


def _agro_forestry(ground: Ground) -> Recipe:
    crowns = _gate(smooth_field(ground.rng, 34) + 0.35 * ground.medium - 0.75, 5.0)
    floor = _mix(0.85, _meadow(_clip(ground.season.grass + 0.1 * ground.medium)), {"soil": 1.0})
    return _mix(0.85 * crowns + 0.04, _mix(0.55, {"broadleaf": 1.0}, {"shrub": 1.0}), floor)


def _broadleaf_forest(ground: Ground) -> Recipe:
    gaps = 0.16 * _gate(ground.fine + 0.5 * ground.medium - 1.2)
    canopy = _mix(0.94, _deciduous(ground.season), {"conifer": 1.0})
    return _mix(gaps, _mix(0.5, {"shrub": 1.0}, _meadow(ground.season.grass)), canopy)


def _coniferous_forest(ground: Ground) -> Recipe:
    thin = _clip(0.1 + 0.12 * _gate(ground.fine + ground.medium - 0.8) + 0.05 * ground.by_parcel())
    return _mix(thin, _mix(0.6, _deciduous(ground.season), {"heath": 1.0}), {"conifer": 1.0})


def _mixed_forest(ground: Ground) -> Recipe:
    stand = _gate(ground.medium + 0.7 * ground.fine, 2.0)
    canopy = _mix(0.15 + 0.65 * stand, {"conifer": 1.0}, _deciduous(ground.season))
    return _mix(0.06, {"shrub": 1.0}, canopy)


def _transitional(ground: Ground) -> Recipe:
    young = _gate(ground.by_parcel() + 0.8 * ground.medium, 2.0)
    trees = _mix(0.5, {"conifer": 1.0}, _deciduous(ground.season))
    scrub = _mix(0.5, {"shrub": 1.0}, _meadow(0.8 * ground.season.grass))
    clearing = {"soil": 0.25, "straw": 0.45, "heath": 0.3}
    return _mix(_clip(0.35 + 0.22 * ground.fine), trees, _mix(0.8 * young + 0.1, scrub, clearing))


def _grassland(ground: Ground) -> Recipe:
    rocky = 0.7 * _gate(ground.medium + 0.6 * ground.fine - 0.9)
    return _mix(
        rocky, {"rock": 1.0}, _mix(0.9, _meadow(_clip(0.7 * ground.season.grass + 0.12 * ground.fine)), {"heath": 1.0})
    )


def _moors(ground: Ground) -> Recipe:
    patch = _gate(ground.medium + 0.4 * ground.fine, 3.0)
    return _mix(0.12, _meadow(0.6 * ground.season.grass), _mix(patch, {"heath": 1.0}, {"shrub": 0.85, "rock": 0.15}))


def _inland_wetlands(ground: Ground) -> Recipe:
    pools = 0.9 * _gate(smooth_field(ground.rng, 22) + 0.6 * ground.medium - 1.5 + 0.3 * ground.wetness, 5.0)
    fen = _gate(ground.medium, 2.0)
    return _mix(
        pools, {"lake": 1.0}, _mix(0.3 * fen, {"reed": 1.0}, _mix(0.88, {"peat": 1.0}, {"conifer": 0.5, "heath": 0.5}))
    )


def _coastal_wetlands(ground: Ground) -> Recipe:
    creeks = _gate(0.35 - np.abs(ground.medium + 0.35 * ground.fine), 9.0)
    marsh = _mix(0.75, {"reed": 1.0}, _meadow(0.6 * ground.season.grass))
    return _mix(0.85 * creeks, {"mud": 0.6, "turbid_water": 0.4}, _mix(0.2, {"mud": 1.0}, marsh))


def _beaches(ground: Ground) -> Recipe:
    dunes = 0.55 * _gate(ground.medium + 0.4 * ground.fine - 0.4)
    return _mix(dunes, _mix(0.7, _meadow(0.3 * ground.season.grass), {"shrub": 1.0}), {"sand": 1.0})


def _inland_waters(ground: Ground) -> Recipe:
    silt = _clip(0.3 * float(ground.rng.random() < 0.4) + 0.08 * ground.medium)
    return {"lake": 1.0 - silt, "turbid_water": silt}


def _marine_waters(ground: Ground) -> Recipe:
    silt = _clip(float(ground.rng.uniform(0, 0.3)) + 0.06 * ground.medium)
    return {"sea": 1.0 - silt, "turbid_water": silt}


def _urban_fabric(ground: Ground) -> Recipe:
    rng, across, along = ground.rng, ground.parcels.across, ground.parcels.along
    period = rng.uniform(7, 12, 2)
    street = np.maximum(across % period[0] < 1.1, along % period[1] < 1.1).astype(np.float32)
    house = (np.floor(across / 2.2).astype(np.int32) * 57 + np.floor(along / 2.2).astype(np.int32) * 31) % PARCEL_CODES
    lot = rng.random(PARCEL_CODES, dtype=np.float32)[house]
    built = 0.75 * (lot < _clip(rng.uniform(0.35, 0.65) + 0.15 * ground.medium)).astype(np.float32)
    roofs = _mix(0.92, {"roof": 1.0}, {"bright_roof": 1.0})
    garden = _mix(0.35, _deciduous(ground.season), _meadow(0.9 * ground.season.grass))
    return _mix(0.75 * street, {"asphalt": 1.0}, _mix(built, roofs, _mix(0.2, {"asphalt": 1.0}, garden)))


def _industry(ground: Ground) -> Recipe:
    rng, across, along = ground.rng, ground.parcels.across, ground.parcels.along
    period = rng.uniform(8, 16, 2)
    hall = (
        np.floor(across / period[0]).astype(np.int32) * 57 + np.floor(along / period[1]).astype(np.int32) * 31
    ) % PARCEL_CODES
    lot = rng.random(PARCEL_CODES, dtype=np.float32)[hall]
    yard = np.maximum(across % period[0] < 2.2, along % period[1] < 2.2).astype(np.float32)
    bright = (lot < 0.3).astype(np.float32)
    dull = ((lot >= 0.3) & (lot < 0.65)).astype(np.float32)
    waste = 1.0 - bright - dull
    halls = {"bright_roof": bright, "roof": dull, "asphalt": 0.4 * waste, "soil": 0.25 * waste, "grass": 0.35 * waste}
    return _mix(0.9 * yard, {"asphalt": 0.85, "grass": 0.15}, halls)


RECIPES: dict[str, Callable[[Ground], Recipe]] = {
    "Agro-forestry areas": _agro_forestry,
    "Arable land": _arable,
    "Beaches, dunes, sands": _beaches,
    "Broad-leaved forest": _broadleaf_forest,
    "Coastal wetlands": _coastal_wetlands,
    "Complex cultivation patterns": _complex_cultivation,
    "Coniferous forest": _coniferous_forest,
    "Industrial or commercial units": _industry,
    "Inland waters": _inland_waters,
    "Inland wetlands": _inland_wetlands,
    "Land principally occupied by agriculture, with significant areas of natural vegetation": _agriculture_with_nature,
    "Marine waters": _marine_waters,
    "Mixed forest": _mixed_forest,
    "Moors, heathland and sclerophyllous vegetation": _moors,
    "Natural grassland and sparsely vegetated areas": _grassland,
    "Pastures": _pastures,
    "Permanent crops": _permanent_crops,
    "Transitional woodland, shrub": _transitional,
    "Urban fabric": _urban_fabric,
}
"""The recipe of each of the 19 classes."""


def abundances(cover: NDArray[np.int8], ground: Ground, hedges: float) -> Field:
    """Fill every pixel with materials: (materials, EDGE, EDGE) float32 in the order of `MATERIALS`; every pixel sums to 1."""
    filled = np.zeros((len(MATERIALS), EDGE, EDGE), dtype=np.float32)
    farmland = np.zeros((EDGE, EDGE), dtype=bool)
    for index in np.unique(cover):
        name, mask = LABELS[index], cover == index
        farmland |= mask & (COVER_STYLES[name].layout == "parcel")
        for material, share in RECIPES[name](ground).items():
            filled[MATERIALS.index(material)] += mask * np.asarray(share, dtype=np.float32)
    grown = ground.uniform_by_parcel() < hedges
    hedge = 0.65 * (ground.parcels.edge & farmland & grown).astype(np.float32)
    _overlay(filled, hedge, _mix(0.8, _deciduous(ground.season), {"shrub": 1.0}))
    farms = smooth_field(ground.rng, 44) + 0.5 * ground.medium  # single farms and their gardens
    _overlay(filled, 0.6 * farmland * _gate(farms - 2.3), _deciduous(ground.season))
    _overlay(filled, 0.85 * farmland * _gate(farms - 3.0, 8.0), {"roof": 0.8, "bright_roof": 0.2})
    if ground.rng.random() <= 0.5:
        _lay_road(filled, ground)
    return filled / filled.sum(axis=0)


def _overlay(filled: Field, share: Field, recipe: Recipe) -> None:
    """Replace `share` of every pixel by a recipe, in place."""
    filled *= 1.0 - share
    for material, part in recipe.items():
        filled[MATERIALS.index(material)] += share * part


def _lay_road(filled: Field, ground: Ground) -> None:
    """Lead a road through the dry land."""
    axis, offset = ground.rng.uniform(0, np.pi), ground.rng.uniform(-0.35, 0.35) * EDGE
    rows, columns = np.mgrid[0:EDGE, 0:EDGE].astype(np.float32) - EDGE / 2
    line = np.cos(axis) * columns + np.sin(axis) * rows - offset + 5.0 * smooth_field(ground.rng, 3)
    dry = (
        1.0 - filled[MATERIALS.index("sea")] - filled[MATERIALS.index("lake")] - filled[MATERIALS.index("turbid_water")]
    )
    _overlay(filled, 0.7 * dry * (np.abs(line) < 0.8), {"asphalt": 1.0})
