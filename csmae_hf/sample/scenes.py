"""One generated scene: a place, two dates, a land-cover map, and what Sentinel-1 and Sentinel-2 see of it. Synthetic, pure functions.

`make_scene(seed, index)` depends on nothing but its arguments, so an archive can be generated in any order and by any number of
processes with the same bytes.
"""

import datetime
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

    Args:
        index: Number of the scene within its archive.
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

    Args:
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
    """Make the source of randomness of one scene.

    Args:
        seed: Seed of the archive, not negative.
        index: Number of the scene, not negative.

    Returns:
        A generator that no other pair of seed and index shares.
    """
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(index,)))


def _choose(rng: np.random.Generator, weights: dict[str, float], count: int) -> list[str]:
    """Draw `count` distinct names with the given weights."""
    shares = np.array(list(weights.values()))
    count = min(count, len(weights))
    return [str(name) for name in rng.choice(list(weights), size=count, replace=False, p=shares / shares.sum())]


def _draw_classes(rng: np.random.Generator, acquisition: Acquisition) -> tuple[str, ...]:
    """Draw the one to five classes of a tile."""
    biome = BIOMES[acquisition.biome]
    count = 1
    if rng.random() >= biome.alone:
        count = 2 + int(rng.choice(len(CLASS_COUNT_WEIGHTS), p=CLASS_COUNT_WEIGHTS))
    return (*biome.always, *_choose(rng, acquisition.class_weights, count - len(biome.always)))


def _names(acquisition: Acquisition, index: int) -> tuple[str, str, str]:
    """Names (patch_id, s1_name, s2v1_name): position and seconds tell scenes apart, so none occurs twice."""
    lap, position = divmod(index, _POSITIONS**2)
    row, column = divmod(position, _POSITIONS)
    s2_head, s1_head = f"{acquisition.s2_head}{lap:02d}", f"{acquisition.s1_head}{lap:02d}"
    return (
        f"{s2_head}_N9999_R{acquisition.orbit:03d}_T{acquisition.mgrs}_{row:02d}_{column:02d}",
        f"{s1_head}_{acquisition.mgrs}_{row}_{column}",
        f"{s2_head}_{row}_{column}",
    )


def plan_scene(
    rng: np.random.Generator, acquisition: Acquisition, index: int, snow: float = 1.0, cloud: float = 0.02
) -> ScenePlan:
    """Decide names, classes and weather of a scene.

    Args:
        rng: Source of randomness.
        acquisition: The pass that it belongs to.
        index: Number of the scene, below `MAX_TILES`: it makes the names distinct.
        snow: Factor on the share of winter scenes under snow; 0 for none.
        cloud: Share of scenes with clouds or their shadows.

    Returns:
        The plan.

    Raises:
        ValueError: If `index` is out of range.
    """
    if not 0 <= index < MAX_TILES:
        raise ValueError(
            f"index must be between 0 and {MAX_TILES - 1}, got {index}: beyond it two scenes would have one name."
        )
    patch_id, s1_name, s2v1_name = _names(acquisition, index)
    winter = acquisition.date.month in (12, 1, 2, 3)
    return ScenePlan(
        index=index,
        acquisition=acquisition,
        patch_id=patch_id,
        s1_name=s1_name,
        s2v1_name=s2v1_name,
        classes=_draw_classes(rng, acquisition),
        snow=float(rng.uniform(0.5, 1.0)) if rng.random() < BIOMES[acquisition.biome].snow * snow * winter else 0.0,
        cloud=float(rng.uniform(0.1, 0.7)) if rng.random() < cloud else 0.0,
    )


def _shadow_length(date: datetime.date) -> float:
    """Relative length of shadows: 0.6 at midsummer, 1.6 at midwinter."""
    return 1.1 + 0.5 * float(np.cos(2 * np.pi * (date.timetuple().tm_yday + 10) / 365))


def _texture(cover: NDArray[np.int8], field: Field, attribute: str) -> Field:
    """A field scaled by the texture amplitude of the class of each pixel."""
    amplitude = np.array([getattr(COVER_STYLES[name], attribute) for name in LABELS], dtype=np.float32)
    return amplitude[cover] * field


def _surface(rng: np.random.Generator, plan: ScenePlan, cover: NDArray[np.int8], parcels: Parcels) -> Surface:
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
    return Surface(
        abundances=filled,
        relief=(biome.relief * rng.uniform(0.5, 1.5) * 1.2 * fractal_field(rng, 3, octaves=3, persistence=0.4)).astype(
            np.float32
        ),
        brightness=(
            0.8 * rng.standard_normal(PARCEL_CODES, dtype=np.float32)[parcels.code] + 0.6 * smooth_field(rng, 6)
        ),
        texture_s2=_texture(cover, canopy, "texture_s2"),
        texture_s1=_texture(cover, 0.8 * smooth_field(rng, 24) + 0.6 * ground.fine, "texture_s1"),
    )


def labels_of(cover: NDArray[np.int8]) -> tuple[str, ...]:
    """Name the classes that cover at least `LABEL_COVER` of a tile.

    Args:
        cover: (120, 120) map of indices into `LABELS`.

    Returns:
        Class names, alphabetical.
    """
    return tuple(sorted(name for name, share in cover_shares(cover).items() if share >= LABEL_COVER))


def plan_of(seed: int, index: int, snow: float = 1.0, cloud: float = 0.02) -> ScenePlan:
    """Tell names, classes and weather of one scene without drawing it.

    Args:
        seed: Seed of the archive.
        index: Number of the scene within it.
        snow: Factor on the share of winter scenes under snow; 0 for none.
        cloud: Share of scenes with clouds or their shadows.

    Returns:
        The plan that `make_scene` follows for the same arguments.
    """
    return _begin(scene_generator(seed, index), seed, index, snow, cloud)


def _begin(rng: np.random.Generator, seed: int, index: int, snow: float, cloud: float) -> ScenePlan:
    """Draw the acquisition, then the plan: the first numbers of a scene's generator."""
    acquisition = draw_acquisition(seed, int(rng.integers(ACQUISITIONS)))
    return plan_scene(rng, acquisition, index, snow=snow, cloud=cloud)


def make_scene(seed: int, index: int, snow: float = 1.0, cloud: float = 0.02) -> Scene:
    """Generate one scene.

    Args:
        seed: Seed of the archive.
        index: Number of the scene within it.
        snow: Factor on the share of winter scenes under snow; 0 for none.
        cloud: Share of scenes with clouds or their shadows.

    Returns:
        The pair of images with its plan, labels and land-cover map.
    """
    rng = scene_generator(seed, index)
    plan = _begin(rng, seed, index, snow, cloud)
    acquisition = plan.acquisition
    parcels = draw_parcels(rng, BIOMES[acquisition.biome].field_pixels)
    cover = draw_cover(rng, plan.classes, parcels, snap=bool(rng.random() < _SNAPPED))
    surface = _surface(rng, plan, cover, parcels)
    sky = Sky(snow=plan.snow, cloud=plan.cloud, sun=_shadow_length(acquisition.date), haze=acquisition.haze)
    return Scene(
        plan=plan,
        labels=labels_of(cover),
        cover=cover,
        s1=see_s1(rng, surface, acquisition.backscatter, acquisition.look),
        s2=see_s2(rng, surface, acquisition.spectra, sky),
    )
