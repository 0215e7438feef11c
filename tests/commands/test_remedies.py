"""What messages tell to type works when it is typed, in every command that reads image files."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiff_files import write_tiff
from tiny_models import build, tiny_config

from configuration_csmae import DEFAULT_SENSORS
from csmae_hf import CSMAEImageProcessor, CSMAEModel
from csmae_hf.archive.archive import Archive
from csmae_hf.commands.main import main
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.load import load_data
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run_tiles import load_run_tiles
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.pretrain import load_split

pytest.importorskip("rasterio")

Bands = Mapping[str, np.ndarray]
Tiles = dict[str, dict[str, Bands]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("remedies")
    model = build(CSMAEModel, tiny_config(sensors=DEFAULT_SENSORS, image_size=120, patch_size=30))
    model.save_pretrained(root / "model")
    CSMAEImageProcessor().save_pretrained(root / "model")
    generate_sample(root / "sample", tiles=5, seed=0)
    return root


@pytest.fixture(scope="module")
def tiles(root: Path) -> Tiles:
    rows = load_bigearthnet(root / "sample")
    return {f"t{n}": {sensor: dict(row[sensor].items()) for sensor in ("s1", "s2")} for n, row in enumerate(rows)}


def write(folder: Path, tiles: Tiles, **change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Write tiles with a file a band, the pixels of a sensor changed."""
    for name, images in tiles.items():
        for sensor, bands in images.items():
            for band, pixels in bands.items():
                write_tiff(folder / name / f"{name}_{band}.tif", [change.get(sensor, lambda same: same)(pixels)])
    return folder


def to_linear(pixels: np.ndarray) -> np.ndarray:
    return (10 ** (pixels / 10)).astype(np.float32)


def with_offset(pixels: np.ndarray) -> np.ndarray:
    return (pixels + 1000).astype(np.uint16)


def command_build(root: Path, data: Path, out: Path, *more: str) -> int:
    return main(["archive", "build", str(root / "model"), str(data), str(out), *more])


def typed(message: str, option: str) -> list[str]:
    """What a message tells to type."""
    found = re.search(rf"--{option} ([^\s),.;]+)", message)
    assert found, message
    return [f"--{option}", found[1]]


@pytest.mark.parametrize(("sensor", "change"), [("s1", to_linear), ("s2", with_offset)], ids=["linear", "offset"])
def test_units_that_a_message_names_give_the_embeds_of_the_original(
    root: Path,
    tiles: Tiles,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    sensor: str,
    change: Callable[[np.ndarray], np.ndarray],
) -> None:
    right = write(tmp_path / "right", tiles)
    other = write(tmp_path / "other", tiles, **{sensor: change})
    assert command_build(root, right, tmp_path / "a", "--sensors", sensor, "--suspect", "accept") == 0
    assert command_build(root, other, tmp_path / "b", "--sensors", sensor) == 2
    remedy = typed(caplog.text, "units")
    assert command_build(root, other, tmp_path / "b", "--sensors", sensor, *remedy, "--suspect", "accept") == 0
    first, second = (Archive.load(tmp_path / name) for name in "ab")
    assert first.ids == second.ids
    assert np.allclose(first.vectors[sensor][:], second.vectors[sensor][:], atol=1e-4)
    assert second.source["units"] == {sensor: remedy[1].partition("=")[2]}
    # and as a query, from which the tile is found
    query = ["search", str(tmp_path / "a"), "--query", str(other / "t1"), "--sensor", sensor]
    caplog.clear()
    assert main(query) == 2
    assert typed(caplog.text, "units") == remedy
    assert main([*query, *remedy, "--suspect", "accept"]) == 0
    # and encoded, in the units of a store
    assert main(["encode", str(other), str(tmp_path / "store"), "--workers", "0", *remedy]) == 0
    band = {"s1": "VV", "s2": "B04"}[sensor]
    stored = {row["id"]: row[sensor][band] for row in load_bigearthnet(tmp_path / "store")}
    assert all(np.allclose(stored[name], images[sensor][band], atol=1e-4) for name, images in tiles.items())


def test_units_are_said_of_a_store_too(
    root: Path, tiles: Tiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "tiffs", tiles, s2=with_offset)
    encode = ["encode", str(tmp_path / "tiffs"), str(tmp_path / "store"), "--workers", "0"]
    assert main(encode) == 2  # nobody says it
    assert main([*encode, "--suspect", "accept"]) == 0
    assert command_build(root, tmp_path / "store", tmp_path / "a", "--sensors", "s2") == 2
    remedy = typed(caplog.text, "units")
    assert command_build(root, tmp_path / "store", tmp_path / "a", *remedy, "--suspect", "accept") == 0
    assert command_build(root, write(tmp_path / "right", tiles), tmp_path / "b", "--suspect", "accept") == 0
    first, second = (Archive.load(tmp_path / name) for name in "ab")
    assert np.allclose(first.vectors["s2"][:], second.vectors["s2"][:], atol=1e-4)
    with pytest.raises(ValueError, match="units of 's3'"):
        load_data(tmp_path / "store", "all", units={"s3": "dn"})


def test_bands_that_a_message_asks_for_are_taken(
    root: Path, tiles: Tiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, images in tiles.items():
        write_tiff(tmp_path / f"in/s1/{name}.tif", [images["s1"]["VV"], images["s1"]["VH"]])  # unnamed
    assert command_build(root, tmp_path / "in", tmp_path / "a") == 2
    assert typed(caplog.text, "bands") == ["--bands", "s1=NAME"]
    assert command_build(root, tmp_path / "in", tmp_path / "a", "--bands", "s1=VV,VH", "--suspect", "accept") == 0
    right = write(tmp_path / "right", {name: {"s1": images["s1"]} for name, images in tiles.items()})
    assert command_build(root, right, tmp_path / "b", "--suspect", "accept") == 0
    first, second = (Archive.load(tmp_path / name) for name in "ab")
    assert np.allclose(first.vectors["s1"][:], second.vectors["s1"][:], atol=1e-6)
    query = ["search", str(tmp_path / "b"), "--query", str(tmp_path / "in/s1/t2.tif"), "--sensor", "s1"]
    caplog.clear()
    assert main(query) == 2
    assert typed(caplog.text, "bands") == ["--bands", "s1=NAME"]
    assert main([*query, "--bands", "s1=VV,VH", "--suspect", "accept"]) == 0


def test_a_level_that_a_message_names_is_taken(
    root: Path, tiles: Tiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "S2A_MSIL1C_20200101T101031_R022_T33UUP"
    folder = write(tmp_path / "in", {name: {"s2": tiles["t0"]["s2"]}})
    assert command_build(root, folder, tmp_path / "a") == 2
    remedy = typed(caplog.text, "level")
    assert command_build(root, folder, tmp_path / "a", *remedy, "--suspect", "accept") == 0
    query = ["search", str(tmp_path / "a"), "--query", str(folder / name), "--sensor", "s2", "--include-self"]
    assert main(query) == 2
    assert main([*query, *remedy, "--suspect", "accept"]) == 0
    assert main(["info", str(folder)]) == 1
    assert main(["encode", str(folder), str(tmp_path / "store"), "--workers", "0", *remedy]) == 0


def test_a_suspect_tile_is_accepted_as_a_message_says(
    root: Path, tiles: Tiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exchanged = {"VV": tiles["t0"]["s1"]["VH"] - 6, "VH": tiles["t0"]["s1"]["VV"]}
    folder = write(tmp_path / "in", {"t0": {"s1": exchanged}})
    assert command_build(root, folder, tmp_path / "a") == 2
    remedy = typed(caplog.text, "suspect")
    assert command_build(root, folder, tmp_path / "a", *remedy) == 0
    assert main(["search", str(tmp_path / "a"), "--query", str(folder / "t0"), "--sensor", "s1"]) == 2
    assert main(["search", str(tmp_path / "a"), "--query", str(folder / "t0"), "--sensor", "s1", *remedy]) == 0
    caplog.clear()
    assert main(["encode", str(folder), str(tmp_path / "b"), "--workers", "0", "--suspect", "leave-out"]) == 2
    assert "they are exchanged" in caplog.text
    assert main(["encode", str(folder), str(tmp_path / "b"), "--workers", "0", *remedy]) == 0


def test_pairs_are_made_by_a_pattern(root: Path, tiles: Tiles, tmp_path: Path) -> None:
    for name, images in tiles.items():
        for sensor, bands in images.items():
            kept = {band: pixels for band, pixels in bands.items() if pixels.shape == (120, 120)}
            write_tiff(tmp_path / f"ROIs1_fall_{sensor}_139_{name}.tif", list(kept.values()), list(kept))
    assert main(["info", str(tmp_path), "--pair", "ROIs*_{sensor}_*", "--units", "s2=dn", "--units", "s1=db"]) == 0


SAID: dict[str, Any] = {"bands": ["s1=VV,VH"], "units": ["s1=linear"], "sensors": ["s1"]}


def test_both_scripts_take_what_is_said(tiles: Tiles, tmp_path: Path) -> None:
    for name, images in tiles.items():
        write_tiff(tmp_path / f"in/s1/{name}.tif", [to_linear(images["s1"]["VV"]), to_linear(images["s1"]["VH"])])
    words = [word for name, values in SAID.items() for word in (f"--{name}", *values)]
    _, data, _ = parse_arguments(["--data", str(tmp_path / "in"), *words, "--output_dir", str(tmp_path)])
    read = load_split(data, "all", None)
    options = RetrievalOptions(data=str(tmp_path / "in"), query_split="all", archive_split="all", **SAID)
    for dataset in (read, load_run_tiles(options, fits=False).dataset):
        row = dataset[0]["s1"]
        assert row.unit == "linear"
        assert np.allclose(10 * np.log10(row["VV"]), tiles["t0"]["s1"]["VV"], atol=1e-3)
