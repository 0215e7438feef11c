"""The subsets of papers: exactly the counts that are known, from names and tables alone."""

import csv
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.load import load_data
from csmae_hf.data.metadata import TileRow, acquisition_time, find_v1_splits, read_v1_rows
from csmae_hf.data.subsets import SUBSETS, select_subset
from csmae_hf.embedding.provenance import hash_ids
from csmae_hf.evaluation.benchmark import OFFICIAL

COUNTS = {  # method.md
    "BEN-14K": {"train": 7_761, "validation": 3_508, "test": 3_563},
    "BEN-270K": {"train": 139_423, "validation": 65_230, "test": 65_817},
}


@pytest.fixture(scope="module")
def all_rows(shared_data: Path) -> list[TileRow]:
    """All 590,326 pairs of BigEarthNet-MM v1."""
    folder = shared_data / "bigearthnet_v1_official_splits"
    return read_v1_rows([folder / "s1_s2_name_country_season.csv.bz2"], find_v1_splits([folder]))


@pytest.mark.slow
def test_all_pairs_are_told_apart_by_the_official_lists(all_rows: list[TileRow]) -> None:
    assert len(all_rows) == 590_326
    assert Counter(row.split for row in all_rows) == {
        "train": 269_695,
        "validation": 123_723,
        "test": 125_866,
        None: 71_042,
    }
    for split, one in OFFICIAL["BigEarthNet-v1"].tiles.items():
        assert hash_ids([row.id for row in all_rows if row.split == split]) == one.sha256
    assert len({row.country for row in all_rows}) == 10
    assert all(row.names.get("s1") and row.country for row in all_rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SUBSETS))
def test_a_subset_has_the_published_counts(all_rows: list[TileRow], name: str) -> None:
    chosen = select_subset(all_rows, name)
    assert Counter(row.split for row in chosen) == COUNTS[name] == SUBSETS[name].counts
    assert len(chosen) == {"BEN-14K": 14_832, "BEN-270K": 270_470}[name]
    for split, one in OFFICIAL[name].tiles.items():
        assert hash_ids([row.id for row in chosen if row.split == split]) == one.sha256
    # of Serbia there is no tile of June
    months = {"BEN-14K": {7, 8}, "BEN-270K": {6, 7, 8, 9, 10, 11}}[name]
    times = [acquisition_time(row.id) for row in chosen]
    assert {time.month for time in times if time} == months
    if name == "BEN-14K":
        assert {row.country for row in chosen} == {"Serbia"}


@pytest.mark.slow
def test_the_season_of_the_table_gives_another_count(all_rows: list[TileRow]) -> None:
    """14,717: the number that the season of the S1 date gives, which is why the rule goes by the S2 name."""
    serbia = [row for row in all_rows if row.split and row.country == "Serbia"]
    s1_times = [acquisition_time(row.names.get("s1")) for row in serbia]
    assert sum(time.month in (6, 7, 8) for time in s1_times if time) == 14_717


def tile(day: str, country: str | None = "Serbia", split: str | None = "train", **flags: bool) -> TileRow:
    return TileRow(f"S2A_MSIL2A_2017{day}T101031_0_45", country=country, split=split, **flags)


def test_a_tile_is_in_by_date_country_split_and_flags() -> None:
    inside = [tile("0601"), tile("0831", split="test")]
    outside = [tile("0531"), tile("0901"), tile("0701", "Austria"), tile("0702", split=None), tile("0703", snow=True)]
    assert select_subset([*outside, *inside, tile("0704", cloud_or_shadow=True)], "BEN-14K") == inside
    assert acquisition_time(inside[0].id) == datetime(2017, 6, 1, 10, 10, 31)


def test_a_subset_that_cannot_be_told_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"'BEN-15K': expected one of BEN-14K, BEN-270K"):
        select_subset([tile("0601")], "BEN-15K")
    with pytest.raises(
        ValueError, match="the country of no tile is known: give a CSV of s2_name and country as metadata="
    ):
        select_subset([tile("0601", country=None)], "BEN-14K")
    assert select_subset([tile("0601", country=None)], "BEN-270K")
    with pytest.raises(ValueError, match=r"the split of no tile is known: give the folder of train\.csv"):
        select_subset([tile("0601", split=None)], "BEN-270K")


@pytest.mark.parametrize("folder", ["bigearthnet_mm_v1_lmdb", "bigearthnet_v2_reben_lmdb"])
def test_a_subset_of_a_real_archive_is_what_the_index_says(shared_data: Path, folder: str) -> None:
    with (shared_data / "labelled_pairs.csv").open(newline="") as lines:
        index = [row for row in csv.DictReader(lines) if row["folder"] == folder and not row["flag"]]
    months = {row["key"]: int(row["key"].split("_")[2][4:6]) for row in index}
    expected = sorted(key for key, month in months.items() if 6 <= month <= 11)
    assert load_bigearthnet(shared_data / folder, subset="BEN-270K")["id"][:] == expected
    assert load_data(str(shared_data / folder), "all", subset="BEN-270K")["id"][:] == expected
    if folder == "bigearthnet_v2_reben_lmdb":
        with pytest.raises(ValueError, match=r"None of the 32 tiles .* is in BEN-14K"):
            load_bigearthnet(shared_data / folder, subset="BEN-14K")
