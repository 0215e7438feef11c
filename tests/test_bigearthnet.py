"""What is written down of BigEarthNet, against the tables of the packages it was taken from."""

import pytest

from csmae_hf.bigearthnet import LABELS, LABELS_43_TO_19, STATISTICS

# bigearthnet_common.constants 2.8.0 (BAND_STATS_S2, BAND_STATS_S1), as data_formats.md 1.6 quotes it: band, mean, std
V1 = """
B01 340.76769064 554.81258967
B02 429.9430203 572.41639287
B03 614.21682446 582.87945694
B04 590.23569706 675.88746967
B05 950.68368468 729.89827633
B06 1792.46290469 1096.01480586
B07 2075.46795189 1273.45393088
B08 2218.94553375 1365.45589904
B8A 2266.46036911 1356.13789355
B09 2246.0605464 1302.3292881
B11 1594.42694882 1079.19066363
B12 1009.32729131 818.86747235
VV -12.619993741972035 5.115911777546365
VH -19.29044597721542 5.464428464912864
"""

# configilm.extra.BENv2_utils at 120 x 120, as data_formats.md 3 quotes it: band, mean and std nearest, mean and std bicubic
V2 = """
B01 361.0768 575.0687 360.6375 572.3437
B02 438.3721 607.0269 438.3721 607.0269
B03 614.0557 603.2968 614.0557 603.2968
B04 588.4096 684.5688 588.4096 684.5688
B05 942.8433 738.4327 942.7473 738.3038
B06 1769.9316 1100.4561 1769.8485 1100.4614
B07 2049.5515 1275.8054 2049.4758 1275.8435
B08 2193.2920 1369.3717 2193.2920 1369.3717
B8A 2235.5566 1356.5441 2235.4868 1356.7542
B09 2241.4553 1316.3933 2241.0911 1313.6488
B11 1568.2268 1070.1613 1568.2118 1070.8011
B12 997.7325 813.5276 997.7151 814.0936
VH -19.3526 5.5905 -19.3526 5.5905
VV -12.6439 5.1335 -12.6439 5.1335
"""


@pytest.mark.parametrize(
    ("name", "text", "columns"), [("v1", V1, (1, 2)), ("v2_nearest", V2, (1, 2)), ("v2_bicubic", V2, (3, 4))]
)
def test_every_statistic_is_that_of_its_source(name: str, text: str, columns: tuple[int, int]) -> None:
    rows = [line.split() for line in text.strip().splitlines()]
    assert STATISTICS[name] == {row[0]: tuple(float(row[column]) for column in columns) for row in rows}


# NEW_LABELS of bigearthnet-common, as data_formats.md 1.5 numbers them
NINETEEN = """
Agro-forestry areas
Arable land
Beaches, dunes, sands
Broad-leaved forest
Coastal wetlands
Complex cultivation patterns
Coniferous forest
Industrial or commercial units
Inland waters
Inland wetlands
Land principally occupied by agriculture, with significant areas of natural vegetation
Marine waters
Mixed forest
Moors, heathland and sclerophyllous vegetation
Natural grassland and sparsely vegetated areas
Pastures
Permanent crops
Transitional woodland, shrub
Urban fabric
"""


def test_the_classes_have_the_numbers_of_the_original() -> None:
    assert list(LABELS) == NINETEEN.strip().splitlines()
    assert len(LABELS_43_TO_19) == 43


def test_the_tables_are_all_that_there_are() -> None:
    assert set(STATISTICS) == {"v1", "v2_nearest", "v2_bicubic"}
