"""Labels of any nomenclature: own class names in, own class names out, and -1 for no label."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiff_files import random_band, write_tiff

from csmae_hf.archive.tiles import metadata_of
from csmae_hf.bigearthnet import LABELS
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.encode import encode
from csmae_hf.data.labels import labels_of, parse_labels
from csmae_hf.data.load import load_data
from csmae_hf.data.tiles import load_tiles
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.search.filter_language import mask_of, parse_filter

pytest.importorskip("rasterio")

EUROSAT = ["AnnualCrop", "Forest", "Pasture", "River", "SeaLake"]
DFC2020 = ["Urban/Built-up", "Savanna", "Snow/Ice", "Water", "Croplands"]


def named(data: datasets.Dataset) -> list[list[str] | None]:
    """The class names of each tile."""
    names = data.features["labels"].feature.names
    return [None if row is None else [names[number] for number in row] for row in data["labels"]]


def write_table(folder: Path, labels: list[Any], column: str = "labels", ending: str = "parquet") -> Path:
    """A table of paths of as many tiles as there are labels."""
    rows = []
    for number, label in enumerate(labels):
        write_tiff(folder / f"{number}_B02.tif", [random_band("B02", number)])
        rows.append({"id": f"tile_{number}", "B02": f"{number}_B02.tif", column: label})
    path = folder / f"tiles.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = [f"id,B02,{column}", *(",".join(f'"{value}"' for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("classes", [EUROSAT, DFC2020, ["0", "2", "10"], ["forêt", "eau"]])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_own_class_names_come_out_as_they_went_in(tmp_path: Path, classes: list[str], ending: str) -> None:
    data = load_tiles(write_table(tmp_path, classes, ending=ending))
    assert named(data) == [[name] for name in classes]
    expected = sorted(classes, key=int) if classes[0].isdecimal() else sorted(classes)
    assert data.features["labels"].feature.names == expected


def test_classes_of_bigearthnet_are_as_ever(tmp_path: Path) -> None:
    data = load_tiles(
        write_table(tmp_path, ["Pastures; Sea and ocean", "Airports", "Vineyards;Olive groves", ""], ending="csv")
    )
    assert data.features["labels"].feature.names == list(LABELS)
    assert named(data) == [["Marine waters", "Pastures"], None, ["Permanent crops"], None]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("Forest", ["Forest"]),
        ("Forest; River", ["Forest", "River"]),
        ("Forest|River", ["Forest", "River"]),
        ("Transitional woodland, shrub", ["Transitional woodland, shrub"]),
        ("['Forest', 'River']", ["Forest", "River"]),
        ('["Forest", "Transitional woodland, shrub"]', ["Forest", "Transitional woodland, shrub"]),
        ("['Forest' 'River']", ["Forest", "River"]),
        ("[1, 4]", ["1", "4"]),
        ("[]", None),
        ("", None),
        ("-1", None),
        (-1, None),
        (-1.0, None),
        (3, ["3"]),
        (3.0, ["3"]),
        (float("nan"), None),
        ([2, -1], ["2"]),
        ([], None),
    ],
)
def test_what_a_table_says_of_labels_is_read(value: Any, names: list[str] | None) -> None:
    assert parse_labels(value, "tile") == names


@pytest.mark.parametrize("value", [2.5, True, [["Forest"]], {"a": 1}.values()])
def test_what_is_no_label_is_refused_with_its_tile(value: Any) -> None:
    if isinstance(value, type({}.values())):
        assert parse_labels(value, "tile") == ["1"]
        return
    with pytest.raises(ValueError, match=r"Tile 'tile' has the label .*expected the name of a class"):
        parse_labels(value, "tile")


@pytest.mark.parametrize("feature", ["one", "several"])
@pytest.mark.parametrize("column", ["label", "labels"])
def test_a_parquet_table_that_datasets_wrote_names_its_classes(tmp_path: Path, feature: str, column: str) -> None:
    write_table(tmp_path, [None] * 3)
    label = datasets.ClassLabel(names=EUROSAT)
    numbers = [1, 3, -1] if feature == "one" else [[1], [3, 0], [-1]]
    features = {"id": datasets.Value("string"), "B02": datasets.Value("string")}
    features[column] = label if feature == "one" else datasets.List(label)
    rows = {"id": ["a", "b", "c"], "B02": [f"{number}_B02.tif" for number in range(3)], column: numbers}
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(tmp_path / "own.parquet")
    second = ["River"] if feature == "one" else ["AnnualCrop", "River"]
    assert named(load_tiles(tmp_path / "own.parquet")) == [["Forest"], second, None]


def test_folders_of_eurosat_name_the_classes(shared_data: Path, tmp_path: Path) -> None:
    order = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]
    shutil.copytree(shared_data / "public_files" / "eurosat_ms_small", tmp_path / "copy" / "s2")
    data = load_tiles(tmp_path / "copy", bands={"s2": order}, sensors={"s2": ["B02", "B03"]})
    assert dict(zip(data["id"], named(data), strict=True)) == {
        f"{name}_{number}": [name] for name in ("AnnualCrop", "Forest") for number in (1, 2, 3)
    }


def test_a_folder_that_names_a_tile_names_no_class(tmp_path: Path) -> None:
    for name in ("Forest/Forest_B02", "x/y_1_B02", "River_B02"):
        write_tiff(tmp_path / f"{name}.tif", [random_band("B02")])
    assert load_tiles(tmp_path)["labels"][:] == [None] * 3


def test_own_classes_go_through_a_store_and_are_one_list_in_every_split(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["Forest", "River; Forest", "SeaLake", "-1"])
    rows = pq.read_table(table).to_pylist()
    splits = ("train", "validation", "test", "test")
    pq.write_table(
        pa.Table.from_pylist([row | {"split": split} for row, split in zip(rows, splits, strict=True)]), table
    )
    encode(table, tmp_path / "store", workers=0)
    for source in (table, tmp_path / "store"):
        parts = [load_data(source, split) for split in ("train", "validation", "test")]
        assert all(part.features["labels"].feature.names == ["Forest", "River", "SeaLake"] for part in parts)
        assert [named(part) for part in parts] == [[["Forest"]], [["Forest", "River"]], [["SeaLake"], None]]
    assert len(load_bigearthnet(tmp_path / "store")) == 4


@pytest.mark.parametrize("feature", ["one", "several"])
def test_metrics_take_any_classes_and_minus_one_is_no_label(feature: str) -> None:
    label = datasets.ClassLabel(names=DFC2020)
    numbers = [0, 1, 4, 4, -1, 0]
    labels = numbers if feature == "one" else [[number] for number in numbers]
    features = datasets.Features(
        {"id": datasets.Value("string"), "labels": label if feature == "one" else datasets.List(label)}
    )
    data = datasets.Dataset.from_dict({"id": list("abcdef"), "labels": labels}, features)
    assert labels_of(data) == [[0], [1], [4], [4], [], [0]]
    embeds = np.eye(6, dtype=np.float32) + 0.01
    embedded = Embedded.from_dataset(embeds, data)
    assert embedded.labels.sum(axis=1).tolist() == [1, 1, 1, 1, 0, 1]
    assert not embedded.labels[4].any()
    (result,) = evaluate_retrieval({"s2": embedded}, k=1, query_split=None, archive_split=None)
    assert (result.n_queries, result.unlabelled_queries) == (5, 1)
    assert set(result.groups["class"]) == {"Urban/Built-up", "Savanna", "Croplands"}


def test_an_archive_has_the_names_of_any_classes_and_none_for_minus_one() -> None:
    label = datasets.ClassLabel(names=EUROSAT)
    features = datasets.Features(
        {"id": datasets.Value("string"), "labels": label, "label": label, "all": datasets.List(label)}
    )
    rows = {"id": ["a", "b"], "labels": [1, -1], "label": [1, -1], "all": [[1, -1], [-1]]}
    tiles = metadata_of(datasets.Dataset.from_dict(rows, features), ["s2"])
    assert tiles.column("labels").to_pylist() == [["Forest"], None]
    assert tiles.column("label").to_pylist() == ["Forest", None]
    assert tiles.column("all").to_pylist() == [["Forest"], []]
    kept = mask_of(parse_filter("labels = 'Forest'", tiles.schema), tiles)
    assert kept.tolist() == [True, False]
