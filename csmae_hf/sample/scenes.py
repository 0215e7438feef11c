"""One generated scene: a place, two dates, a land-cover map, and what Sentinel-1 and Sentinel-2 see of it. Synthetic, pure functions.

`make_scene(seed, index)` depends on nothing but its arguments, so a sample can be generated in any order and by any number of
processes with the same bytes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csmae_hf.bigearthnet import LABELS
from csmae_hf.sample.acquisitions import ACQUISITIONS, Acquisition, draw_acquisition
from csmae_hf.sample.landcover import (
    EDGE,
    PARCEL_CODES,
    Field,
    Parcels,
    cover_shares,
    draw_cover,
    draw_parcels,
    fractal_field,
    smooth_field,
)
from csmae_hf.sample.materials import Ground, abundances
from csmae_hf.sample.sensors import Sky, Surface, see_s1, see_s2
from csmae_hf.sample.tables import BIOMES, CLASS_COUNT_WEIGHTS, COVER_STYLES

LABEL_COVER: float = 0.05
"""Smallest share of a tile that a class must cover to be one of its labels."""

MAX_TILES: int = 400_000
"""Largest number of scenes of one seed whose names are distinct."""

_SNAPPED = 0.35
"""Share of scenes whose natural classes follow field edges."""

_POSITIONS = 90
"""Rows and columns of tiles within an MGRS tile that names are drawn from."""


@dataclass(frozen=True)
class ScenePlan:
    """What is decided of a scene before any pixel is drawn.

    Attributes:
        index: Number of the scene within its sample.
        acquisition: The pass of the satellites that it belongs to.
        patch_id: Sentinel-2 name as reBEN spells it.
        s1_name: Sentinel-1 name as BigEarthNet-MM spells it.
        s2v1_name: Sentinel-2 name as BigEarthNet v1 spells it.
        classes: The classes to be laid out.
        snow: Share of open ground under snow.
        cloud: Share of the tile under cloud.
    """

    index: int
    acquisition: Acquisition
    patch_id: str
    s1_name: str
    s2v1_name: str
    classes: tuple[str, ...]
    snow: float
    cloud: float


@dataclass(frozen=True)
class Scene:
    """A generated pair of images.

    Attributes:
        plan: Names, date, place.
        labels: The classes that cover at least `LABEL_COVER`, alphabetical.
        cover: (120, 120) int8 map of classes, indices into `LABELS`.
        s1: VH, VV: float32 dB, (120, 120).
        s2: The 12 bands: uint16 digital numbers, at native sizes.
    """

    plan: ScenePlan
    labels: tuple[str, ...]
    cover: NDArray[np.int8]
    s1: dict[str, np.ndarray]
    s2: dict[str, np.ndarray]


def scene_generator(seed: int, index: int) -> np.random.Generator:
    """Make the source of randomness of one scene, which no other pair of seed and index (not negative) shares."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(index,)))


def _draw_classes(rng: np.random.Generator, acquisition: Acquisition) -> tuple[str, ...]:
    """Draw the one to five classes of a tile: those every tile of the biome has, and others by their weights."""
    biome, weights = BIOMES[acquisition.biome], acquisition.class_weights
    count = 1
    if rng.random() >= biome.alone:
        count = 2 + int(rng.choice(len(CLASS_COUNT_WEIGHTS), p=CLASS_COUNT_WEIGHTS))
    shares = np.array(list(weights.values()))
    further = rng.choice(
        list(weights), size=min(count - len(biome.always), len(weights)), replace=False, p=shares / shares.sum()
    )
    return (*biome.always, *map(str, further))


def plan_scene(rng: np.random.Generator, seed: int, index: int, snow: float = 1.0, cloud: float = 0.02) -> ScenePlan:
    """Decide acquisition, names, classes and weather of a scene as of [`make_scene`]: the first numbers of its generator."""
    if not 0 <= index < MAX_TILES:
        raise ValueError(
            f"index must be between 0 and {MAX_TILES - 1}, got {index}: beyond it two scenes would have one name."
        )
    acquisition = draw_acquisition(seed, int(rng.integers(ACQUISITIONS)))
    lap, position = divmod(index, _POSITIONS**2)  # position and seconds tell scenes apart, so that no name occurs twice
    row, column = divmod(position, _POSITIONS)
    s2_head, s1_head = f"{acquisition.s2_head}{lap:02d}", f"{acquisition.s1_head}{lap:02d}"
    winter = acquisition.date.month in (12, 1, 2, 3)
    return ScenePlan(
        index=index,
        acquisition=acquisition,
        patch_id=f"{s2_head}_N9999_R{acquisition.orbit:03d}_T{acquisition.mgrs}_{row:02d}_{column:02d}",
        s1_name=f"{s1_head}_{acquisition.mgrs}_{row}_{column}",
        s2v1_name=f"{s2_head}_{row}_{column}",
        classes=_draw_classes(rng, acquisition),
        snow=float(rng.uniform(0.5, 1.0)) if rng.random() < BIOMES[acquisition.biome].snow * snow * winter else 0.0,
        cloud=float(rng.uniform(0.1, 0.7)) if rng.random() < cloud else 0.0,
    )


def _draw_surface(rng: np.random.Generator, plan: ScenePlan, cover: NDArray[np.int8], parcels: Parcels) -> Surface:
    """Cover the land with materials, relief and texture."""
    biome = BIOMES[plan.acquisition.biome]
    ground = Ground(
        rng=rng,
        parcels=parcels,
        season=plan.acquisition.season,
        medium=smooth_field(rng, 12),
        fine=smooth_field(rng, 40),
        wetness=plan.acquisition.wetness,
    )
    filled = abundances(cover, ground, biome.hedges)
    canopy = 0.6 * ground.fine + 0.8 * rng.standard_normal((EDGE, EDGE), dtype=np.float32)

    def texture(field: Field, attribute: str) -> Field:  # scaled by the amplitude of the class of each pixel
        amplitude = np.array([getattr(COVER_STYLES[name], attribute) for name in LABELS], dtype=np.float32)
        return amplitude[cover] * field

    return Surface(
        abundances=filled,
        relief=(biome.relief * rng.uniform(0.5, 1.5) * 1.2 * fractal_field(rng, 3, octaves=3, persistence=0.4)).astype(
            np.float32
        ),
        brightness=(
            0.8 * rng.standard_normal(PARCEL_CODES, dtype=np.float32)[parcels.code] + 0.6 * smooth_field(rng, 6)
        ),
        texture_s2=texture(canopy, "texture_s2"),
        texture_s1=texture(0.8 * smooth_field(rng, 24) + 0.6 * ground.fine, "texture_s1"),
    )


def make_scene(seed: int, index: int, snow: float = 1.0, cloud: float = 0.02) -> Scene:
    """Generate scene `index` of the sample of a seed; `snow` and `cloud` as of [`generate_sample`]."""
    rng = scene_generator(seed, index)
    plan = plan_scene(rng, seed, index, snow, cloud)
    acquisition = plan.acquisition
    parcels = draw_parcels(rng, BIOMES[acquisition.biome].field_pixels)
    cover = draw_cover(rng, plan.classes, parcels, snap=bool(rng.random() < _SNAPPED))
    surface = _draw_surface(rng, plan, cover, parcels)
    # shadows: relative length of 0.6 at midsummer, 1.6 at midwinter
    sun = 1.1 + 0.5 * float(np.cos(2 * np.pi * (acquisition.date.timetuple().tm_yday + 10) / 365))
    sky = Sky(snow=plan.snow, cloud=plan.cloud, sun=sun, haze=acquisition.haze)
    return Scene(
        plan=plan,
        labels=tuple(sorted(name for name, share in cover_shares(cover).items() if share >= LABEL_COVER)),
        cover=cover,
        s1=see_s1(rng, surface, acquisition.backscatter, acquisition.look),
        s2=see_s2(rng, surface, acquisition.spectra, sky),
    )
