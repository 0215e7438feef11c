"""GeoTIFFs, and any dataset with the same columns, in the place of BigEarthNet."""

import csv
import json
import pickle
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiff_files import RICO_EXAMPLES, V1_EXAMPLES, random_band, read_tiff, rico_pair, write_tiff
from tiny_models import tiny_config

from csmae_hf.bigearthnet import LABELS, S1_BANDS, S2_BANDS
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.tiles import load_tiles, tile_footprint
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.images.geotiff import TiffFolder
from csmae_hf.images.raster import RasterError
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEModel

pytest.importorskip("rasterio")

NAMES = ["a", "b", "c"]


def write_pairs(folder: Path) -> Path:
    """Three pairs, a file a band: `a_B02.tif` and so on."""
    for seed, name in enumerate(NAMES):
        for band in (*S1_BANDS, *S2_BANDS):
            write_tiff(folder / f"{name}_{band}.tif", [random_band(band, seed)])
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture
def data(pairs: Path) -> datasets.Dataset:
    return load_tiles(pairs)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the images read in this process, as they are read."""
    keys: list[str] = []
    original = TiffFolder.read

    def read(self: TiffFolder, key: str, bands: Any = None) -> dict[str, np.ndarray]:
        keys.append(key)
        return original(self, key, bands)

    monkeypatch.setattr(TiffFolder, "read", read)
    return keys


def has_own_pixels(row: dict[str, Any]) -> bool:
    seed = NAMES.index(row["id"])
    return all(
        list(row[sensor]) == list(bands) and all(np.array_equal(row[sensor][b], random_band(b, seed)) for b in bands)
        for sensor, bands in (("s1", S1_BANDS), ("s2", S2_BANDS))
    )


# The dataset


def test_the_columns_are_those_of_bigearthnet(data: datasets.Dataset, shared_data: Path) -> None:
    real = load_bigearthnet(shared_data / "bigearthnet_v2_reben_lmdb")
    assert data.column_names == real.column_names
    plain = [name for name in real.column_names if name not in ("s1", "s2")]
    assert {name: data.features[name] for name in plain} == {name: real.features[name] for name in plain}
    assert data.features["s1"].bands == real.features["s1"].bands
    assert data.features["s2"].bands == real.features["s2"].bands


def test_what_is_not_known_is_none(data: datasets.Dataset) -> None:
    row = data[1]
    assert row["id"] == "b"
    assert {name for name, value in row.items() if value is not None} == {"id", "s1", "s2"}
    assert has_own_pixels(row)


@pytest.mark.parametrize(
    "work",
    [
        lambda data: data.select([2, 1]),
        lambda data: data.filter(lambda row: row["id"] != "a"),
        lambda data: data.shuffle(seed=1),
        lambda data: data.sort("id", reverse=True),
        lambda data: data.map(lambda row: {"length": len(row["id"])}),
        lambda data: data.remove_columns(["s1", "s2"])[:],
        lambda data: [row["id"] for row in data],
        lambda data: pickle.loads(pickle.dumps(data)),
        lambda data: [len(row["s1"]) for row in data],
    ],
)
def test_work_on_metadata_reads_no_pixel(data: datasets.Dataset, reads: list[str], work: Callable[..., Any]) -> None:
    work(data)
    assert reads == []


def test_every_way_of_looking_gives_the_same_pixels(data: datasets.Dataset, tmp_path: Path) -> None:
    data.save_to_disk(tmp_path / "saved")
    for seen in (
        data,
        data.select([2, 0]),
        data.filter(lambda row: row["id"] != "a"),
        pickle.loads(pickle.dumps(data)),
        data.map(lambda row: {"length": len(row["id"])}),
        data.map(lambda row: {"mean": float(row["s2"]["B02"].mean())}, num_proc=2),
        datasets.load_from_disk(tmp_path / "saved"),
    ):
        assert len(seen)
        assert all(has_own_pixels(row) for row in seen)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_dataloader_workers_read_every_tile(data: datasets.Dataset, method: str) -> None:
    loader = torch.utils.data.DataLoader(
        data, batch_size=2, num_workers=1 if method == "spawn" else 2, collate_fn=list, multiprocessing_context=method
    )
    rows = [row for batch in loader for row in batch]
    assert [row["id"] for row in rows] == NAMES
    assert all(isinstance(row["s1"], dict) and has_own_pixels(row) for row in rows)


def test_a_broken_file_is_named_when_it_is_looked_at(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "b_B05.tif").write_bytes(b"")
    data = load_tiles(tmp_path)
    assert has_own_pixels(data[0])
    with pytest.raises(RasterError, match=r"b_B05\.tif"):
        data[1]["s2"]["B02"]


def test_tiles_without_a_partner_are_kept_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tiff(tmp_path / "a_VV.tif", [random_band("VV")])
    write_tiff(tmp_path / "b_B02.tif", [random_band("B02")])
    data = load_tiles(tmp_path)
    assert [(row["id"], row["s1"] is None, row["s2"] is None) for row in data] == [
        ("a", False, True),
        ("b", True, False),
    ]
    assert "of its 2 tiles, 1 have no s1 image, 1 have no s2 image" in caplog.text
    with pytest.raises(ValueError, match=r"no s2 image, tile a"):
        TileCollator(CSMAEImageProcessor({"s2": ["B02"]}))([data[0]])


def test_bands_can_be_limited_and_ordered(pairs: Path) -> None:
    data = load_tiles(pairs, sensors={"s2": ["B04", "B02"]})
    assert "s1" not in data.column_names
    assert list(data[0]["s2"]) == ["B04", "B02"]


def test_the_column_has_the_bands_that_all_images_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a_B02", "a_B03", "b_B02"):
        write_tiff(tmp_path / f"{name}.tif", [random_band("B02")])
    assert list(load_tiles(tmp_path)[0]["s2"]) == ["B02"]
    assert "differ in bands" in caplog.text
    with pytest.raises(ValueError, match=r"not every image of .* has B03; all have B02"):
        load_tiles(tmp_path, sensors={"s2": ["B02", "B03"]})


# Real layouts


def test_the_real_v1_layout_tells_pairs_labels_countries_and_dates(shared_data: Path) -> None:
    root = shared_data / V1_EXAMPLES
    with (shared_data / "labelled_pairs.csv").open(newline="") as lines:
        index = {row["s2_v1_name"]: row for row in csv.DictReader(lines) if row["folder"] == V1_EXAMPLES}
    data = load_tiles(root)
    assert list(data["id"]) == sorted(index)
    for row in data:
        expected = index[row["id"]]
        assert row["s1_id"] == expected["s1_name"]
        assert row["country"] == expected["country"]
        with (root / "BigEarthNet-S2-Example" / row["id"] / f"{row['id']}_labels_metadata.json").open() as file:
            said = json.load(file)
        assert row["date_s2"].date() == datetime.fromisoformat(said["acquisition_date"]).date()
        assert set(row["s1"]) == set(S1_BANDS)
        folders = {
            "s1": root / "BigEarthNet-S1-Example" / row["s1_id"],
            "s2": root / "BigEarthNet-S2-Example" / row["id"],
        }
        for sensor, folder in folders.items():
            for band, array in row[sensor].items():
                np.testing.assert_array_equal(array, read_tiff(folder / f"{folder.name}_{band}.tif"))
    with (root / "manifest.csv").open(newline="") as lines:
        manifest = {row["s2_name"]: row["labels_43"].split("; ") for row in csv.DictReader(lines)}
    pastures = [row["id"] for row in data if LABELS.index("Pastures") in row["labels"]]
    assert sorted(pastures) == sorted(name for name, labels in manifest.items() if "Pastures" in labels)


def test_the_real_v2_layout_is_paired_by_its_metadata(shared_data: Path, tmp_path: Path) -> None:
    # the two images of rico-hdl's own example are of different tiles; a table that says otherwise is believed if they lie alike
    s1, s2 = "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_70_48", "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43"
    known = {
        "patch_id": s2,
        "labels": ["Pastures"],
        "split": "test",
        "country": "Austria",
        "s1_name": s1,
        "contains_seasonal_snow": False,
        "contains_cloud_or_shadow": True,
    }
    pq.write_table(pa.Table.from_pylist([known]), tmp_path / "metadata.parquet")
    with pytest.raises(ValueError, match=rf"1 pairs of .* show different ground: .*{s2}.*{s1}.*overlap by 0%"):
        load_tiles(shared_data / RICO_EXAMPLES, metadata=tmp_path / "metadata.parquet")
    moved = rico_pair(shared_data / RICO_EXAMPLES, tmp_path / "moved")
    (row,) = load_tiles(moved, metadata=tmp_path / "metadata.parquet")
    assert (row["id"], row["s1_id"], row["split"], row["cloud_or_shadow"]) == (s2, s1, "test", True)
    assert row["labels"] == [LABELS.index("Pastures")]
    assert row["s1"]["VV"].shape == row["s2"]["B02"].shape == (120, 120)


def test_the_real_v2_table_leaves_images_it_does_not_pair_on_their_own(shared_data: Path, tmp_path: Path) -> None:
    rows = pq.read_table(shared_data / "reben_metadata" / "metadata.parquet", filters=[("country", "==", "Austria")])
    pq.write_table(rows.slice(0, 5000), tmp_path / "metadata.parquet")
    data = load_tiles(shared_data / RICO_EXAMPLES, metadata=tmp_path / "metadata.parquet")
    assert [row["s1"] is None for row in data] == [False, True]
    (s2,) = data.filter(lambda row: row["s1"] is None)
    assert s2["country"] == "Austria"
    assert s2["s1_id"].endswith("_33UUP_75_43")  # named, though not here


def test_real_stacked_chips_are_read_by_the_names_given(shared_data: Path) -> None:
    import rasterio

    root = shared_data / "terramind_examples"
    order = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    with pytest.raises(ValueError, match="does not name its 2 bands"):
        load_tiles(root)
    data = load_tiles(root, bands={"s1": ["VV", "VH"], "s2": order})
    assert len(data) == 5
    for row in data:
        for sensor, folder, names in (("s1", "S1RTC", ["VV", "VH"]), ("s2", "S2L2A", order)):
            with rasterio.open(root / folder / f"{row['id']}.tif") as source:
                for number, band in enumerate(names, start=1):
                    np.testing.assert_array_equal(row[sensor][band], source.read(number))
    processor = CSMAEImageProcessor(size=224)
    with pytest.raises(ValueError, match="12 bands; names were given for 11"):
        load_tiles(root, bands={"s1": ["VV", "VH"], "s2": order[:-1]})
    assert processor(s1=data[0]["s1"])["s1"].shape == (1, 2, 224, 224)


def test_real_ssl4eo_dates_are_paired_by_a_table(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "ssl4eo_s12_location_0000200"
    with pytest.raises(ValueError, match=r"Two s2 images .* have the name 20200604"):
        load_tiles(root)
    s1 = sorted((root / "s1" / "0000200").iterdir())
    s2 = sorted((root / "s2a" / "0000200").iterdir())
    table = tmp_path / "pairs.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "s1", "s2", "labels", "split", "snow"])
        for number, pair in enumerate(zip(s1, s2, strict=True)):
            writer.writerow([f"0000200_{number}", *pair, "Pastures; Arable land", "val", ""])
    data = load_tiles(table)
    assert list(data["id"]) == ["0000200_0", "0000200_1"]
    for number, row in enumerate(data):
        assert (row["split"], row["snow"], row["labels"]) == ("validation", None, [1, 15])
        np.testing.assert_array_equal(row["s1"]["VV"], read_tiff(s1[number] / "VV.tif"))
        np.testing.assert_array_equal(row["s2"]["B02"], read_tiff(s2[number] / "B2.tif"))


def test_a_parquet_table_may_have_a_column_for_each_band(tmp_path: Path) -> None:
    rows = []
    for seed, name in enumerate(NAMES):
        paths = {band: f"{band}_{seed}.tif" for band in ("VV", "B02")}
        for band, path in paths.items():
            write_tiff(tmp_path / path, [random_band(band, seed)])
        rows.append(
            {"id": name, **paths, "s1_name": f"radar_{name}", "labels": ["Pastures"], "country": "Peru", "snow": True}
        )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tiles.parquet")
    for seed, row in enumerate(load_tiles(tmp_path / "tiles.parquet")):
        assert (row["id"], row["s1_id"], row["country"], row["snow"]) == (
            NAMES[seed],
            f"radar_{NAMES[seed]}",
            "Peru",
            True,
        )
        np.testing.assert_array_equal(row["s1"]["VV"], random_band("VV", seed))
        np.testing.assert_array_equal(row["s2"]["B02"], random_band("B02", seed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,s2\na,a.tif\n", "has the columns name, s2; expected id"),
        ("id,note\na,b\n", "expected id, and s1 and s2"),
        ("id,s2\n", "has the columns none"),
        ("id,s2\n,a.tif\n", "Row 1 of .* has no id"),
        ("id,s2\na,\n", "Tile a of .* has no paths"),
        ("id,s2\na,a.tif\na,b.tif\n", "1 tiles of .* more than once, a for one"),
        ("id,s2,B02\na,a.tif,b.tif\n", "in the column s2 and in those of its bands"),
        (
            "id,B02,labels\na,a.tif,Pastures;Mixed forrest;Arable land\n",
            "label 'Mixed forrest'.*did you mean 'Mixed forest'",
        ),
        ("id,B02,snow\na,a.tif,perhaps\n", "flag 'perhaps'"),
        ("id,s2\na,.\n", "holds 0 images of s2; expected one"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "tiles.csv"
    table.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_tiles(table)


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path, pairs: Path) -> None:
    for wrong in (tmp_path / "nowhere", tmp_path / "nowhere.csv"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_tiles(wrong)
    with pytest.raises(FileNotFoundError, match="no_table"):
        load_tiles(pairs, metadata=tmp_path / "no_table.csv")
    with pytest.raises(ValueError, match=r"No tiles in .*expected files such as NAME_B02\.tif"):
        load_tiles(tmp_path)


def test_splits_are_given_as_lists_of_ids(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\r\nc\r\n")
    (tmp_path / "val.csv").write_text("b\nnot_here\n")
    assert list(load_tiles(pairs, splits=tmp_path)["split"]) == ["train", "validation", "train"]


def test_what_is_given_besides_a_table_that_says_it_is_refused(pairs: Path, shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "tiles.csv").write_text("id,B02\na,a.tif\n")
    for besides in ({"splits": tmp_path}, {"metadata": tmp_path / "tiles.csv"}):
        with pytest.raises(ValueError, match="as columns of it"):
            load_tiles(tmp_path / "tiles.csv", **besides)
    v2 = shared_data / "bigearthnet_v2_reben_lmdb" / "metadata.parquet"
    with pytest.raises(ValueError, match="which holds the splits"):
        load_tiles(pairs, metadata=v2, splits=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sensors": {"s3": None}}, "No tile of .* has an image of 's3'"),
        ({"sensors": {}}, "No sensors"),
        ({"sensors": {"s2": []}}, "Bands"),
        ({"sensors": {"s2": "B02"}}, "Bands"),
        ({"bands": {"s1": ["VV", "VV"]}}, "Bands of s1"),
        ({"bands": {"s1": ["red"]}}, "Bands of s1"),
    ],
)
def test_impossible_arguments_are_refused_by_name(pairs: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_tiles(pairs, **arguments)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "no JSON object"),
        ('{"labels": ["Lava"]}', "label 'Lava'"),
        ('{"labels": [3]}', "label '3'"),
        ('{"labels": 3}', "labels are no list"),
        ('{"corresponding_s2_patch": 3}', "is no name"),
    ],
)
def test_a_json_that_cannot_be_is_named(tmp_path: Path, content: str, reason: str) -> None:
    write_tiff(tmp_path / "a_B02.tif", [random_band("B02")])
    (tmp_path / "a_labels_metadata.json").write_text(content)
    with pytest.raises(ValueError, match=rf"1 JSONs of .* are broken, .*a_labels_metadata\.json for one: .*{reason}"):
        load_tiles(tmp_path)


def test_where_a_tile_lies_is_known_without_its_pixels(data: datasets.Dataset, reads: list[str]) -> None:
    footprint = tile_footprint(data[0]["s2"])
    assert footprint == ("EPSG:32633", 404400, 5341200, 405600, 5342400)
    assert reads == []
    with pytest.raises(ValueError, match="load_tiles"):
        tile_footprint(dict(data[0]["s2"].items()))


# Any other dataset


def plain_dataset() -> datasets.Dataset:
    """A dataset that knows nothing of this package: columns of nested lists."""

    def rows() -> Any:
        for seed, name in enumerate(NAMES):
            yield {
                "id": name,
                **{
                    sensor: {band: random_band(band, seed) for band in bands}
                    for sensor, bands in (("s1", S1_BANDS), ("s2", S2_BANDS))
                },
            }

    return datasets.Dataset.from_list(list(rows()))


@pytest.mark.parametrize("form", ["lists", "numpy", "torch"])
def test_any_dataset_with_the_same_columns_is_embedded_alike(data: datasets.Dataset, form: str) -> None:
    plain = plain_dataset() if form == "lists" else plain_dataset().with_format(form)
    torch.manual_seed(0)
    model = CSMAEModel(tiny_config(image_size=120, patch_size=30)).eval()
    processor = CSMAEImageProcessor(model.config.sensors)
    for sensor in ("s1", "s2"):
        expected = embed_dataset(model, processor, data, sensor, progress=False)
        np.testing.assert_array_equal(embed_dataset(model, processor, plain, sensor, progress=False), expected)
    batches = [TileCollator(processor)([rows[n] for n in range(3)]) for rows in (plain, data)]
    for sensor in ("s1", "s2"):
        torch.testing.assert_close(batches[0][sensor], batches[1][sensor], rtol=0, atol=0)
