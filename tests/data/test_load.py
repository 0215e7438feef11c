"""What the scripts read: splits by either of their names, and none by a wrong one."""

import shutil

import pytest

from csmae_hf.data.evenly import evenly
from csmae_hf.data.load import load_data, split_name


def test_v1_and_v2_names_of_a_split_are_one():
    assert split_name("val") == split_name("validation") == "validation"
    assert split_name("all") == "all"


def test_an_unknown_split_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="'dev': expected one of train, validation, test, or 'all'"):
        load_data("nowhere", "dev")


def test_all_and_limit(shared_data):
    archive = str(shared_data / "bigearthnet_v2_reben_lmdb")
    everything = load_data(archive, "all")
    assert len(everything) == 32
    spread = load_data(archive, "all", limit=5)["id"]
    assert spread == [everything["id"][row] for row in (0, 6, 12, 19, 25)]
    assert load_data(archive, "all", limit=5)["id"] == spread
    assert len(load_data(archive, "all", limit=99)) == 32
    for limit in (0, -3):
        with pytest.raises(ValueError, match=f"limit={limit}: expected"):
            load_data(archive, "all", limit=limit)
    assert set(load_data(archive, "val")["split"]) == {"validation"}


def test_a_folder_of_geotiffs_is_taken_in_an_lmdbs_place(shared_data):
    folder = str(shared_data / "bigearthnet_v1_tiff_examples")
    tiles = load_data(folder, "all")
    assert len(tiles) == 6
    assert tiles[0]["s1"]["VV"].shape == (120, 120)
    with pytest.raises(ValueError, match=r"None of the 6 tiles of .* is of split 'train': give lists of splits"):
        load_data(folder, "train")
    with pytest.raises(ValueError, match="leave subset out"):
        load_data(folder, "all", subset="BEN-14K")


def test_a_folder_with_nothing_in_it_is_refused_as_both(tmp_path):
    with pytest.raises(ValueError, match=r"holds no LMDB \(data.mdb\); read as GeoTIFFs: "):
        load_data(str(tmp_path), "all")


@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_store_of_one_file_is_taken_with_its_metadata_beside_it(shared_data, tmp_path, given):
    source = shared_data / "bigearthnet_v2_reben_lmdb"
    shutil.copyfile(source / "BigEarthNet-V2-LMDB" / "data.mdb", tmp_path / "tiles.lmdb")
    for table in source.glob("*.parquet"):
        shutil.copyfile(table, tmp_path / table.name)
    path = tmp_path / "tiles.lmdb" if given == "file" else tmp_path
    tiles, expected = load_data(path, "all", limit=4), load_data(source, "all")
    assert tiles["id"] == [expected["id"][row] for row in evenly(len(expected), 4)]
    assert (tiles[3]["s2"]["B02"] == expected[24]["s2"]["B02"]).all()
