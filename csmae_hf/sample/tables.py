"""What the generated scenes are made of, as tables: materials, classes, seasons, biomes. Data, no code.

The numbers are plausible values written down by hand for a synthetic data set. They are not measurements; the spectra follow the
usual shape of Sentinel-2 Level-2A reflectance and the backscatter the usual levels of Sentinel-1 GRD, by kind of surface.
"""

from dataclasses import dataclass

from csmae_hf.bigearthnet import S2_BANDS

SIGNATURE_BANDS: tuple[str, ...] = S2_BANDS
"""Order of the twelve numbers of a spectrum in `SPECTRA`."""

SPECTRA: dict[str, tuple[int, ...]] = {
    # B01  B02   B03   B04   B05   B06   B07   B08   B8A   B09   B11   B12
    "sea": (330, 240, 170, 95, 85, 65, 60, 55, 48, 45, 28, 22),
    "lake": (260, 230, 240, 160, 140, 105, 100, 90, 80, 75, 50, 36),
    "turbid_water": (400, 430, 600, 470, 430, 250, 240, 215, 180, 160, 85, 60),
    "sand": (1150, 1450, 1900, 2250, 2450, 2600, 2700, 2850, 2900, 2800, 3500, 2900),
    "soil": (520, 660, 920, 1200, 1480, 1700, 1850, 2000, 2150, 2200, 2750, 2250),
    "crop": (240, 270, 600, 330, 920, 2950, 3750, 4000, 4150, 4100, 1900, 900),
    "stubble": (560, 700, 1050, 1300, 1650, 2150, 2350, 2550, 2750, 2750, 3200, 2100),
    "grass": (260, 310, 680, 410, 1100, 2800, 3400, 3600, 3800, 3750, 2100, 1050),
    "straw": (520, 620, 920, 1080, 1480, 2050, 2250, 2450, 2650, 2650, 3050, 1950),
    "broadleaf": (160, 185, 420, 215, 660, 2450, 3150, 3350, 3550, 3550, 1600, 700),
    "branches": (270, 300, 420, 450, 680, 1000, 1150, 1300, 1450, 1500, 1500, 900),
    "conifer": (135, 150, 275, 180, 430, 1250, 1550, 1700, 1800, 1850, 820, 380),
    "shrub": (250, 290, 480, 470, 830, 1550, 1800, 1950, 2100, 2100, 1900, 1100),
    "heath": (220, 250, 380, 390, 640, 1150, 1350, 1500, 1650, 1700, 1600, 900),
    "peat": (230, 270, 430, 430, 740, 1300, 1500, 1650, 1800, 1900, 1450, 720),
    "reed": (270, 330, 550, 480, 900, 1800, 2100, 2250, 2400, 2400, 1500, 780),
    "mud": (560, 660, 860, 900, 1000, 1060, 1100, 1120, 1150, 1100, 850, 600),
    "roof": (820, 1000, 1200, 1420, 1560, 1700, 1800, 1950, 2050, 2050, 2250, 1950),
    "bright_roof": (1900, 2400, 2600, 2700, 2800, 2900, 2950, 3100, 3100, 3000, 2900, 2600),
    "asphalt": (640, 740, 880, 930, 1030, 1130, 1180, 1280, 1330, 1350, 1550, 1350),
    "rock": (800, 950, 1150, 1300, 1420, 1520, 1580, 1680, 1780, 1800, 2150, 1800),
    "snow": (6200, 6600, 6500, 6400, 6300, 6100, 6000, 5900, 5600, 5300, 550, 480),
}
"""Level-2A digital numbers of each material at noon, clear sky."""

MATERIALS: tuple[str, ...] = tuple(SPECTRA)
"""Names of the materials; their order is the order of every array of abundances."""

BACKSCATTER: dict[str, tuple[float, float]] = {
    # VH     VV
    "sea": (-29.5, -20.0),
    "lake": (-28.5, -21.0),
    "turbid_water": (-28.5, -20.5),
    "sand": (-24.0, -16.0),
    "soil": (-21.5, -12.2),
    "crop": (-16.0, -11.2),
    "stubble": (-20.0, -12.6),
    "grass": (-18.8, -13.0),
    "straw": (-20.2, -13.4),
    "broadleaf": (-14.0, -9.2),
    "branches": (-15.6, -9.8),
    "conifer": (-14.8, -9.2),
    "shrub": (-16.8, -11.0),
    "heath": (-18.6, -12.4),
    "peat": (-18.8, -11.2),
    "reed": (-18.0, -10.6),
    "mud": (-23.5, -14.5),
    "roof": (-12.0, -5.5),
    "bright_roof": (-11.5, -4.5),
    "asphalt": (-20.5, -13.5),
    "rock": (-16.5, -10.0),
    "snow": (-20.5, -13.0),
}
"""Mean backscatter (VH, VV) of each material, dB. Snow lies on the ground unseen by radar: its row stands for wet, frozen ground."""

HEIGHT: dict[str, float] = {
    "broadleaf": 1.0,
    "branches": 0.8,
    "conifer": 1.0,
    "roof": 0.6,
    "bright_roof": 0.7,
    "shrub": 0.2,
}
"""Height of a material relative to a forest's; it casts shadow in S2, and foreshortening in S1. Absent means 0."""

OPEN_GROUND: tuple[str, ...] = ("soil", "stubble", "straw", "grass", "crop", "peat", "mud", "heath")
"""Materials whose backscatter follows the moisture of the ground."""

WATERS: tuple[str, ...] = ("sea", "lake", "turbid_water")
"""Materials whose backscatter follows the wind."""


@dataclass(frozen=True)
class Phenology:
    """The course of a year, one number for each month, January first.

    Args:
        leaf: Share of leaves on deciduous trees.
        grass: Share of green in grass.
        crop: Share of arable parcels that are green.
        stubble: Share of arable parcels that are ripe or harvested. What is neither is bare soil.
    """

    leaf: tuple[float, ...]
    grass: tuple[float, ...]
    crop: tuple[float, ...]
    stubble: tuple[float, ...]


PHENOLOGIES: dict[str, Phenology] = {
    "north": Phenology(
        leaf=(0.0, 0.0, 0.0, 0.05, 0.5, 1.0, 1.0, 1.0, 0.75, 0.25, 0.05, 0.0),
        grass=(0.2, 0.15, 0.2, 0.3, 0.75, 1.0, 0.95, 0.9, 0.8, 0.55, 0.35, 0.25),
        crop=(0.15, 0.1, 0.1, 0.15, 0.35, 0.8, 0.85, 0.45, 0.25, 0.3, 0.25, 0.2),
        stubble=(0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.1, 0.45, 0.4, 0.2, 0.15, 0.1),
    ),
    "temperate": Phenology(
        leaf=(0.0, 0.0, 0.05, 0.35, 0.9, 1.0, 1.0, 1.0, 0.9, 0.55, 0.15, 0.0),
        grass=(0.5, 0.5, 0.6, 0.85, 1.0, 1.0, 0.9, 0.85, 0.85, 0.8, 0.65, 0.55),
        crop=(0.3, 0.3, 0.4, 0.55, 0.7, 0.75, 0.5, 0.4, 0.3, 0.25, 0.3, 0.3),
        stubble=(0.1, 0.1, 0.05, 0.02, 0.02, 0.1, 0.4, 0.4, 0.3, 0.25, 0.15, 0.1),
    ),
    "mediterranean": Phenology(
        leaf=(0.55, 0.55, 0.6, 0.8, 1.0, 1.0, 0.95, 0.9, 0.9, 0.85, 0.7, 0.6),
        grass=(0.85, 0.9, 1.0, 0.95, 0.7, 0.3, 0.12, 0.08, 0.12, 0.3, 0.6, 0.8),
        crop=(0.45, 0.5, 0.6, 0.6, 0.5, 0.35, 0.3, 0.3, 0.25, 0.2, 0.25, 0.35),
        stubble=(0.1, 0.1, 0.05, 0.1, 0.3, 0.5, 0.6, 0.6, 0.55, 0.4, 0.25, 0.15),
    ),
}
"""The year by climate."""

MONTH_WEIGHTS: tuple[float, ...] = (1, 8, 3, 10, 22, 6, 9, 12, 18, 9, 8, 8)
"""How often a month is drawn for the Sentinel-2 date, January first: spring and late summer most, as in BigEarthNet."""


@dataclass(frozen=True)
class CoverStyle:
    """How a class lies in the land and how rough it looks.

    Args:
        layout: "parcel" (edges are field edges), "area" (edges are natural), "settlement", "lake", "sea" or "shore".
        texture_s2: Amplitude of the fine optical texture, relative.
        texture_s1: Amplitude of the fine backscatter texture, dB.
    """

    layout: str
    texture_s2: float
    texture_s1: float


COVER_STYLES: dict[str, CoverStyle] = {
    "Agro-forestry areas": CoverStyle("area", 0.06, 1.0),
    "Arable land": CoverStyle("parcel", 0.03, 0.3),
    "Beaches, dunes, sands": CoverStyle("shore", 0.06, 0.8),
    "Broad-leaved forest": CoverStyle("area", 0.10, 0.7),
    "Coastal wetlands": CoverStyle("shore", 0.08, 1.2),
    "Complex cultivation patterns": CoverStyle("parcel", 0.05, 0.8),
    "Coniferous forest": CoverStyle("area", 0.13, 0.4),
    "Industrial or commercial units": CoverStyle("settlement", 0.06, 1.8),
    "Inland waters": CoverStyle("lake", 0.02, 0.3),
    "Inland wetlands": CoverStyle("area", 0.09, 0.9),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": CoverStyle(
        "parcel", 0.07, 0.6
    ),
    "Marine waters": CoverStyle("sea", 0.04, 0.6),
    "Mixed forest": CoverStyle("area", 0.12, 0.8),
    "Moors, heathland and sclerophyllous vegetation": CoverStyle("area", 0.08, 1.2),
    "Natural grassland and sparsely vegetated areas": CoverStyle("area", 0.08, 1.5),
    "Pastures": CoverStyle("parcel", 0.04, 0.3),
    "Permanent crops": CoverStyle("parcel", 0.05, 0.6),
    "Transitional woodland, shrub": CoverStyle("area", 0.10, 1.5),
    "Urban fabric": CoverStyle("settlement", 0.06, 1.5),
}
"""Layout and texture of each of the 19 classes."""


@dataclass(frozen=True)
class Biome:
    """A kind of landscape: which classes occur together, where, in what fields and on what ground.

    Args:
        weight: How often it is drawn, relative.
        climate: Key of `PHENOLOGIES`.
        places: (country, MGRS tile, relative Sentinel-2 orbit) where it is said to be.
        always: Classes that every tile of it has.
        classes: Weight of each further class.
        alone: Share of tiles that show one class only.
        field_pixels: Smallest and largest width of a field, pixels of 10 m.
        relief: Strength of the relief, 0 flat to 1 mountains.
        hedges: Share of field edges that are hedges.
        snow: Share of its winter tiles (December to March) under snow.
    """

    weight: float
    climate: str
    places: tuple[tuple[str, str, int], ...]
    always: tuple[str, ...]
    classes: dict[str, float]
    alone: float
    field_pixels: tuple[float, float]
    relief: float
    hedges: float
    snow: float


_AGRI_NATURAL = "Land principally occupied by agriculture, with significant areas of natural vegetation"
_MOORS = "Moors, heathland and sclerophyllous vegetation"
_GRASSLAND = "Natural grassland and sparsely vegetated areas"

BIOMES: dict[str, Biome] = {
    "boreal": Biome(
        weight=0.28,
        climate="north",
        places=(
            ("Finland", "35VPK", 36),
            ("Finland", "34VEQ", 79),
            ("Finland", "35WNP", 93),
            ("Lithuania", "35ULA", 93),
        ),
        always=(),
        classes={
            "Coniferous forest": 1.0,
            "Mixed forest": 0.9,
            "Transitional woodland, shrub": 0.55,
            "Inland waters": 0.45,
            "Inland wetlands": 0.12,
            _AGRI_NATURAL: 0.3,
            "Arable land": 0.3,
            "Broad-leaved forest": 0.1,
            "Urban fabric": 0.04,
        },
        alone=0.1,
        field_pixels=(6.0, 14.0),
        relief=0.1,
        hedges=0.05,
        snow=0.25,
    ),
    "coast": Biome(
        weight=0.11,
        climate="temperate",
        places=(
            ("Ireland", "29UPU", 37),
            ("Finland", "34VDM", 79),
            ("Portugal", "29SNB", 37),
            ("Lithuania", "34VDH", 93),
        ),
        always=("Marine waters",),
        classes={
            "Beaches, dunes, sands": 0.45,
            "Coastal wetlands": 0.5,
            "Pastures": 0.35,
            "Coniferous forest": 0.3,
            _MOORS: 0.25,
            _GRASSLAND: 0.15,
            "Arable land": 0.25,
            "Urban fabric": 0.25,
            "Mixed forest": 0.2,
            "Industrial or commercial units": 0.08,
        },
        alone=0.45,
        field_pixels=(7.0, 15.0),
        relief=0.15,
        hedges=0.2,
        snow=0.03,
    ),
    "atlantic": Biome(
        weight=0.1,
        climate="temperate",
        places=(("Ireland", "29UPV", 37), ("Ireland", "29UNT", 140), ("Belgium", "31UES", 51)),
        always=("Pastures",),
        classes={
            "Arable land": 0.6,
            "Coniferous forest": 0.2,
            "Inland wetlands": 0.3,
            _MOORS: 0.2,
            _AGRI_NATURAL: 0.25,
            "Urban fabric": 0.2,
            "Transitional woodland, shrub": 0.2,
            "Mixed forest": 0.12,
            "Broad-leaved forest": 0.12,
            "Inland waters": 0.12,
            "Complex cultivation patterns": 0.12,
        },
        alone=0.25,
        field_pixels=(8.0, 18.0),
        relief=0.2,
        hedges=0.7,
        snow=0.03,
    ),
    "central": Biome(
        weight=0.21,
        climate="temperate",
        places=(
            ("Austria", "33UVP", 22),
            ("Austria", "33UWP", 122),
            ("Lithuania", "34UFG", 136),
            ("Luxembourg", "31UGR", 8),
            ("Belgium", "31UFS", 8),
            ("Switzerland", "32TMT", 108),
        ),
        always=(),
        classes={
            "Arable land": 1.0,
            "Pastures": 0.5,
            "Broad-leaved forest": 0.5,
            "Mixed forest": 0.6,
            "Coniferous forest": 0.3,
            "Complex cultivation patterns": 0.45,
            _AGRI_NATURAL: 0.35,
            "Urban fabric": 0.3,
            "Industrial or commercial units": 0.06,
            "Inland waters": 0.1,
            "Permanent crops": 0.06,
        },
        alone=0.1,
        field_pixels=(6.0, 20.0),
        relief=0.25,
        hedges=0.1,
        snow=0.15,
    ),
    "suburban": Biome(
        weight=0.04,
        climate="temperate",
        places=(
            ("Belgium", "31UES", 51),
            ("Austria", "33UXP", 79),
            ("Switzerland", "32TLT", 108),
            ("Luxembourg", "32ULA", 8),
        ),
        always=("Urban fabric",),
        classes={
            "Industrial or commercial units": 0.6,
            "Arable land": 0.6,
            "Complex cultivation patterns": 0.5,
            "Pastures": 0.45,
            "Broad-leaved forest": 0.3,
            "Mixed forest": 0.25,
            "Inland waters": 0.2,
            _AGRI_NATURAL: 0.2,
        },
        alone=0.1,
        field_pixels=(5.0, 14.0),
        relief=0.1,
        hedges=0.15,
        snow=0.1,
    ),
    "balkan": Biome(
        weight=0.13,
        climate="temperate",
        places=(("Serbia", "34TDQ", 136), ("Serbia", "34TEP", 136), ("Kosovo", "34TDN", 93)),
        always=(),
        classes={
            "Broad-leaved forest": 1.0,
            "Arable land": 0.75,
            _AGRI_NATURAL: 0.7,
            "Complex cultivation patterns": 0.6,
            "Transitional woodland, shrub": 0.55,
            "Urban fabric": 0.2,
            _GRASSLAND: 0.3,
            "Pastures": 0.15,
            "Inland waters": 0.1,
        },
        alone=0.12,
        field_pixels=(4.0, 9.0),
        relief=0.45,
        hedges=0.2,
        snow=0.2,
    ),
    "mediterranean": Biome(
        weight=0.11,
        climate="mediterranean",
        places=(("Portugal", "29SND", 37), ("Portugal", "29SPC", 137), ("Portugal", "29TNE", 80)),
        always=(),
        classes={
            "Agro-forestry areas": 1.0,
            "Transitional woodland, shrub": 0.8,
            "Arable land": 0.8,
            "Broad-leaved forest": 0.7,
            "Permanent crops": 0.5,
            "Complex cultivation patterns": 0.35,
            _AGRI_NATURAL: 0.25,
            _MOORS: 0.3,
            "Inland waters": 0.1,
            "Mixed forest": 0.15,
            "Urban fabric": 0.08,
        },
        alone=0.15,
        field_pixels=(6.0, 18.0),
        relief=0.35,
        hedges=0.1,
        snow=0.0,
    ),
    "alpine": Biome(
        weight=0.02,
        climate="north",
        places=(("Austria", "32TPT", 65), ("Switzerland", "32TMS", 65)),
        always=(_GRASSLAND,),
        classes={
            "Coniferous forest": 1.0,
            "Mixed forest": 0.5,
            "Pastures": 0.4,
            _MOORS: 0.35,
            "Transitional woodland, shrub": 0.25,
            "Inland waters": 0.1,
        },
        alone=0.15,
        field_pixels=(6.0, 14.0),
        relief=1.0,
        hedges=0.05,
        snow=0.5,
    ),
}
"""The landscapes, after the co-occurrence of classes and countries in reBEN's metadata table (by eye)."""

CLASS_COUNT_WEIGHTS: tuple[float, ...] = (0.26, 0.36, 0.26, 0.12)
"""Weights of two, three, four and five classes in a tile that does not show one class alone."""
