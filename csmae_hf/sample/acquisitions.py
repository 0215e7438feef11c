"""The acquisitions that generated scenes belong to: a place, two dates, the weather, the state of the land. Pure functions.

As in BigEarthNet, many tiles come from one pass of each satellite, and share everything that belongs to the day: season, haze,
moisture, wind, the calibration of the sensors, and which land-cover classes the region has.
"""

import datetime
import functools
from dataclasses import dataclass

import numpy as np

from csmae_hf.sample.landcover import Field
from csmae_hf.sample.materials import Season, season_at
from csmae_hf.sample.sensors import backscatter_of_the_day, spectra_of_the_day
from csmae_hf.sample.tables import BIOMES, MONTH_WEIGHTS

ACQUISITIONS: int = 64
"""Number of acquisitions of a sample."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What all scenes of one pass share.

    Attributes:
        biome: Key of `BIOMES`.
        country: Name of the country.
        mgrs: Name of the MGRS tile.
        s2_head: Sentinel-2 name up to the seconds of its time.
        s1_head: Sentinel-1 name up to the seconds of its time.
        orbit: Relative orbit of Sentinel-2.
        date: Day of the Sentinel-2 image; that of the Sentinel-1 image is at most two days from it.
        class_weights: Weight of each class of the biome in this region.
        season: State of the vegetation.
        wetness: Wetness of the ground, about -1 to 1.
        haze: Strength of the haze, about 0 to 1.
        spectra: (materials, bands) digital numbers of the day.
        backscatter: (materials, VH VV) dB of the day.
        look: 1.0 or -1.0: the side that the radar looks from.
    """

    biome: str
    country: str
    mgrs: str
    s2_head: str
    s1_head: str
    orbit: int
    date: datetime.date
    class_weights: dict[str, float]
    season: Season
    wetness: float
    haze: float
    spectra: Field
    backscatter: Field
    look: float


def _draw_heads(rng: np.random.Generator, date: datetime.date) -> tuple[str, str]:
    """Draw the heads of the S2 and the S1 name: satellite to minute."""
    s1_date = date + datetime.timedelta(days=int(rng.integers(-2, 3)))
    s2_time = f"{rng.integers(9, 12):02d}{rng.integers(0, 60):02d}"
    s1_time = f"{rng.choice([4, 5, 6, 16, 17, 18]):02d}{rng.integers(0, 60):02d}"
    return (
        f"S2{rng.choice(['A', 'B'])}_MSIL2A_{date:%Y%m%d}T{s2_time}",
        f"S1{rng.choice(['A', 'B'])}_IW_GRDH_1SDV_{s1_date:%Y%m%d}T{s1_time}",
    )


@functools.lru_cache(maxsize=4 * ACQUISITIONS)
def draw_acquisition(seed: int, number: int) -> Acquisition:
    """Draw acquisition `number` (below `ACQUISITIONS`) of the sample of a seed (not negative): the same for the same arguments."""
    if not 0 <= number < ACQUISITIONS:
        raise ValueError(f"number must be between 0 and {ACQUISITIONS - 1}, got {number}.")
    rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(1, number)))
    weights = np.array([biome.weight for biome in BIOMES.values()])
    bounds = np.cumsum(weights / weights.sum())  # the acquisitions are shared out among the biomes by their weights
    name = list(BIOMES)[int(np.searchsorted(bounds, (number + 0.5) / ACQUISITIONS))]
    biome = BIOMES[name]
    country, mgrs, orbit = biome.places[int(rng.integers(len(biome.places)))]
    months = np.array(MONTH_WEIGHTS, dtype=float)
    month = 1 + int(rng.choice(12, p=months / months.sum()))
    # BigEarthNet is of June 2017 to May 2018
    date = datetime.date(2017 if month >= 6 else 2018, month, int(rng.integers(1, 29)))
    s2_head, s1_head = _draw_heads(rng, date)
    wetness = float(np.clip(rng.normal(0, 0.6), -1.5, 1.5))
    return Acquisition(
        biome=name,
        country=country,
        mgrs=mgrs,
        s2_head=s2_head,
        s1_head=s1_head,
        orbit=orbit,
        date=date,
        # some classes of the biome are common in this region, some rare
        class_weights={name: weight * float(np.exp(rng.normal(0, 0.6))) for name, weight in biome.classes.items()},
        season=season_at(biome.climate, date.timetuple().tm_yday / 30.4 + rng.normal(0, 0.4)),
        wetness=wetness,
        haze=float(min(rng.lognormal(-2.8, 0.9), 1.0)),
        spectra=spectra_of_the_day(rng),
        backscatter=backscatter_of_the_day(rng, wetness),
        look=float(rng.choice([-1.0, 1.0])),
    )
