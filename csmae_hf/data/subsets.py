"""Subsets of BigEarthNet that papers use, as rules on what is known of a tile; no pixel and no store is needed."""

from collections.abc import Iterable
from dataclasses import dataclass

from csmae_hf.bigearthnet import TILE_SENSOR
from csmae_hf.data.metadata import TileRow, acquisition_time


@dataclass(frozen=True)
class Subset:
    """A rule: recommended pairs (in the official split, without snow, cloud, shadow) by the month of the S2 image and the country.

    Attributes:
        months: Months of the acquisition of the Sentinel-2 image, as its name has it. (The common package's season follows the
            Sentinel-1 date, and gives other counts.)
        country: The only country; None for all ten.
        counts: Tiles of each split that the rule gives on all of BigEarthNet-MM v1.
    """

    months: range
    country: str | None
    counts: dict[str, int]


SUBSETS: dict[str, Subset] = {
    "BEN-14K": Subset(range(6, 9), "Serbia", {"train": 7_761, "validation": 3_508, "test": 3_563}),
    "BEN-270K": Subset(range(6, 12), None, {"train": 139_423, "validation": 65_230, "test": 65_817}),
}
"""Subsets by name: summer in Serbia, and June to November everywhere. That the latter is the set of the CSMAE paper is inferred."""


def select_subset(rows: Iterable[TileRow], name: str) -> list[TileRow]:
    """Keep the tiles of a subset, one of `SUBSETS`, in their order.

    They need their split and, if the subset is of one country, their country: a ValueError says what is known of no tile. Tiles of
    BigEarthNet v2 give another set than those of v1, for v2 has other tiles, and another split.
    """
    if name not in SUBSETS:
        raise ValueError(f"Unknown subset {name!r}: expected one of {', '.join(SUBSETS)}, or None for all tiles.")
    subset = SUBSETS[name]
    rows = list(rows)
    for what, known in (("split", any(row.split for row in rows)), ("country", any(row.country for row in rows))):
        if not known and (what == "split" or subset.country):
            remedy = "the folder of train.csv, val.csv and test.csv as splits=."
            if what == "country":
                remedy = "a CSV of s2_name and country as metadata=."
            raise ValueError(f"{name} is chosen by {what}, and the {what} of no tile is known: give {remedy}")
    return [row for row in rows if _is_in_subset(row, subset)]


def _is_in_subset(row: TileRow, subset: Subset) -> bool:
    if row.split is None or row.snow or row.cloud_or_shadow:
        return False
    if subset.country is not None and row.country != subset.country:
        return False
    time = acquisition_time(row.image_name(TILE_SENSOR))
    return time is not None and time.month in subset.months
