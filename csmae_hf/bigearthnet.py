"""BigEarthNet as facts: sensors, bands, resolutions, labels, countries, statistics. Data, no code.

Sources: bigearthnet-common 2.8.0 (labels, v1 statistics), configilm 0.7 (v2 statistics), Sumbul et al. 2021, Clasen et al. 2025.
"""

from typing import NamedTuple

from image_checks_csmae import BAND_MEAN, BAND_STD


class Sensor(NamedTuple):
    """What is known of a sensor of BigEarthNet.

    Attributes:
        bands: Its bands in the order of every table and column here.
        dtype: In which its bands are stored, little endian.
        prefix: Begins the names of its images.
        other_bands: That files of other products hold besides.
    """

    bands: tuple[str, ...]
    dtype: str
    prefix: str
    other_bands: tuple[str, ...] = ()


SENSORS: dict[str, Sensor] = {
    "s1": Sensor(("VH", "VV"), "<f4", "S1"),
    "s2": Sensor(
        ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"), "<u2", "S2", ("B10",)
    ),
}
"""The two sensors: Sentinel-1 backscatter in dB, Sentinel-2 Level-2A digital numbers, reflectance x 10000 (B10: Level-1C alone)."""

TILE_SENSOR = "s2"
"""The sensor whose image has the tile's own name; the others' are named in metadata, in a column such as `s1_name`."""

PARTNER_SENSOR = "s1"
"""The sensor whose images the tables and split lists of v1 name beside the tiles."""

S1_BANDS: tuple[str, ...] = SENSORS["s1"].bands
S2_BANDS: tuple[str, ...] = SENSORS["s2"].bands

SENSOR_OF_BAND: dict[str, str] = {band: name for name, sensor in SENSORS.items() for band in sensor.bands}
"""Which sensor measures a band."""

BAND_SIZE: dict[str, int] = {
    **dict.fromkeys(S1_BANDS, 120),
    **dict.fromkeys(("B02", "B03", "B04", "B08"), 120),
    **dict.fromkeys(("B05", "B06", "B07", "B8A", "B11", "B12"), 60),
    **dict.fromkeys(("B01", "B09"), 20),
}
"""Pixels along the edge of a tile, by band: 10 m, 20 m and 60 m bands."""

LABELS_43_TO_19: dict[str, str | None] = {
    "Continuous urban fabric": "Urban fabric",
    "Discontinuous urban fabric": "Urban fabric",
    "Industrial or commercial units": "Industrial or commercial units",
    "Road and rail networks and associated land": None,
    "Port areas": None,
    "Airports": None,
    "Mineral extraction sites": None,
    "Dump sites": None,
    "Construction sites": None,
    "Green urban areas": None,
    "Sport and leisure facilities": None,
    "Non-irrigated arable land": "Arable land",
    "Permanently irrigated land": "Arable land",
    "Rice fields": "Arable land",
    "Vineyards": "Permanent crops",
    "Fruit trees and berry plantations": "Permanent crops",
    "Olive groves": "Permanent crops",
    "Pastures": "Pastures",
    "Annual crops associated with permanent crops": "Permanent crops",
    "Complex cultivation patterns": "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "Land principally occupied by agriculture, with significant areas of natural vegetation"
    ),
    "Agro-forestry areas": "Agro-forestry areas",
    "Broad-leaved forest": "Broad-leaved forest",
    "Coniferous forest": "Coniferous forest",
    "Mixed forest": "Mixed forest",
    "Natural grassland": "Natural grassland and sparsely vegetated areas",
    "Moors and heathland": "Moors, heathland and sclerophyllous vegetation",
    "Sclerophyllous vegetation": "Moors, heathland and sclerophyllous vegetation",
    "Transitional woodland/shrub": "Transitional woodland, shrub",
    "Beaches, dunes, sands": "Beaches, dunes, sands",
    "Bare rock": None,
    "Sparsely vegetated areas": "Natural grassland and sparsely vegetated areas",
    "Burnt areas": None,
    "Inland marshes": "Inland wetlands",
    "Peatbogs": "Inland wetlands",
    "Salt marshes": "Coastal wetlands",
    "Salines": "Coastal wetlands",
    "Intertidal flats": None,
    "Water courses": "Inland waters",
    "Water bodies": "Inland waters",
    "Coastal lagoons": "Marine waters",
    "Estuaries": "Marine waters",
    "Sea and ocean": "Marine waters",
}
"""The 43 original CORINE classes and the class of the 19 each became; None where it was dropped."""

LABELS: tuple[str, ...] = tuple(sorted({label for label in LABELS_43_TO_19.values() if label is not None}))
"""The 19-class nomenclature in alphabetical order, which is the order of every multi-hot vector here."""

SPLITS: tuple[str, ...] = ("train", "validation", "test")
"""Split names, as the v2 metadata spells them. The v1 files' `val` is `validation` here."""

_V2_STATISTICS: dict[str, tuple[float, float, float, float]] = {  # mean and std nearest, mean and std bicubic
    "B01": (361.0768, 575.0687, 360.6375, 572.3437),
    "B02": (438.3721, 607.0269, 438.3721, 607.0269),
    "B03": (614.0557, 603.2968, 614.0557, 603.2968),
    "B04": (588.4096, 684.5688, 588.4096, 684.5688),
    "B05": (942.8433, 738.4327, 942.7473, 738.3038),
    "B06": (1769.9316, 1100.4561, 1769.8485, 1100.4614),
    "B07": (2049.5515, 1275.8054, 2049.4758, 1275.8435),
    "B08": (2193.2920, 1369.3717, 2193.2920, 1369.3717),
    "B8A": (2235.5566, 1356.5441, 2235.4868, 1356.7542),
    "B09": (2241.4553, 1316.3933, 2241.0911, 1313.6488),
    "B11": (1568.2268, 1070.1613, 1568.2118, 1070.8011),
    "B12": (997.7325, 813.5276, 997.7151, 814.0936),
    "VH": (-19.3526, 5.5905, -19.3526, 5.5905),
    "VV": (-12.6439, 5.1335, -12.6439, 5.1335),
}

STATISTICS: dict[str, dict[str, tuple[float, float]]] = {
    "v1": {band: (BAND_MEAN[band], BAND_STD[band]) for band in (*S2_BANDS, *S1_BANDS)},
    "v2_nearest": {band: (mean, std) for band, (mean, std, _, _) in _V2_STATISTICS.items()},
    "v2_bicubic": {band: (mean, std) for band, (_, _, mean, std) in _V2_STATISTICS.items()},
}
"""(mean, standard deviation) by band over the training split: S2 in digital numbers, S1 in dB. The processor's default is `v1`."""

REFERENCE_MAP_SUFFIX = "_reference_map"
"""Ends the key and the file name of a v2 land-cover map."""

REFERENCE_MAP_NAME = "Data"
"""The only tensor of a stored v2 land-cover map."""

STORE_NAME: str = "BigEarthNet-V2-LMDB"
"""Folder of the LMDB store, as reBEN calls it."""

METADATA_NAME: str = "metadata.parquet"
"""File of labels, splits and names beside the store, as reBEN calls it."""
