"""A data set whose tiles are in several units is mended without a copy: by a column, or by a rule, in everything that reads pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, load_from_disk
from PIL import Image
from tiff_files import write_tiff
from tiny_models import build, tiny_config

from configuration_csmae import DEFAULT_SENSORS
from csmae_hf import CSMAEImageProcessor, CSMAEModel
from csmae_hf.app.opening import open_explorer
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.export import draw_hits, load_shown
from csmae_hf.commands.main import main
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.collate import TileCollator
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.data.load import load_data
from csmae_hf.data.statistics import estimate_statistics
from csmae_hf.data.store import write_store
from csmae_hf.data.tiles import load_tiles
from csmae_hf.data.units import with_units
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.sample.generate import generate_sample
from csmae_hf.training.arguments import parse_arguments
from csmae_hf.training.pretrain import load_split

SPLIT_DAY = "2020-01-01"
RULE = f"dn+1000 from {SPLIT_DAY}"


def name(number: int, sensor: str) -> str:
    """Names of the year 2019 and, of every other tile, 2022."""
    time = f"{2022 if number % 2 else 2019}0613T101031"
    product = f"S2A_MSIL2A_{time}_N9999_R022_T33UUP" if sensor == "s2" else f"S1A_IW_GRDH_1SDV_{time}_33UUP"
    return f"t{number}_{product}_0{number}_00"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model; a store as it should be, and one whose tiles of 2022 have S2 with the offset and S1 in linear power."""
    root = tmp_path_factory.mktemp("units")
    model = build(CSMAEModel, tiny_config(sensors=DEFAULT_SENSORS, image_size=120, patch_size=30))
    model.save_pretrained(root / "model")
    CSMAEImageProcessor().save_pretrained(root / "model")
    generate_sample(root / "sample", tiles=6, seed=0)
    tiles = [
        {sensor: dict(row[sensor].items()) for sensor in ("s1", "s2")} for row in load_bigearthnet(root / "sample")
    ]
    mixed = [other(tile) if number % 2 else tile for number, tile in enumerate(tiles)]
    for folder, held in {"right": tiles, "mixed": mixed}.items():
        values = {
            name(number, sensor): encode_safetensors(bands)
            for number, tile in enumerate(held)
            for sensor, bands in tile.items()
        }
        write_store(root / folder / "lmdb", sorted(values.items()))
        write_metadata(root / folder / "metadata.parquet", len(tiles))
    return root


def other(tile: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """A tile in other units."""
    return {
        "s1": {band: (10 ** (pixels / 10)).astype(np.float32) for band, pixels in tile["s1"].items()},
        "s2": {band: (pixels + 1000).astype(np.uint16) for band, pixels in tile["s2"].items()},
    }


def write_metadata(path: Path, count: int, **more: list[Any]) -> Path:
    columns: dict[str, Any] = {
        "patch_id": [name(number, "s2") for number in range(count)],
        "labels": [["Mixed forest"]] * count,
        "split": ["train"] * count,
        "country": ["Austria"] * count,
        "s1_name": [name(number, "s1") for number in range(count)],
        "contains_seasonal_snow": [False] * count,
        "contains_cloud_or_shadow": [False] * count,
    }
    pq.write_table(pa.table(columns | more), path)
    return path


BY_TILE = {"units_s1": [None, "linear"] * 3, "units_s2": ["", "DN+1000"] * 3}


def halves(root: Path, sensor: str) -> torch.Tensor:
    """What the processor makes of the mixed store, each half given with its own unit by the call."""
    rows = load_bigearthnet(root / "mixed")
    unit = {"s1": "linear", "s2": "dn+1000"}[sensor]
    processor = CSMAEImageProcessor()
    return torch.cat(
        [
            processor(**{sensor: dict(row[sensor].items())}, units={sensor: unit} if number % 2 else None)[sensor]
            for number, row in enumerate(rows)
        ]
    )


def in_memory(root: Path) -> Dataset:
    rows = [
        {"id": row["id"], **{sensor: dict(row[sensor].items()) for sensor in ("s1", "s2")}}
        for row in load_bigearthnet(root / "mixed")
    ]
    return Dataset.from_list(rows)


WAYS = {
    "column of a store": lambda root, to: load_bigearthnet(
        root / "mixed", metadata=write_metadata(to / "metadata.parquet", 6, **BY_TILE)
    ),
    "rules for a store": lambda root, to: load_data(
        root / "mixed", "all", units={"s1": f"linear from {SPLIT_DAY}", "s2": [RULE, "dn"]}
    ),
    "rules by name": lambda root, to: load_data(
        root / "mixed", "all", units={"s1": "linear of *S1A_*_2022*", "s2": "dn+1000 of *S2A_MSIL2A_2022*"}
    ),
    "added columns": lambda root, to: (
        load_bigearthnet(root / "mixed")
        .add_column("units_s1", BY_TILE["units_s1"])
        .add_column("units_s2", BY_TILE["units_s2"])
    ),
    "columns of pixels in memory": lambda root, to: (
        in_memory(root).add_column("units_s1", BY_TILE["units_s1"]).add_column("units_s2", BY_TILE["units_s2"])
    ),
    "rules for pixels in memory": lambda root, to: with_units(
        in_memory(root), {"s1": "linear of *_2022*", "s2": "dn+1000 of *_2022*"}
    ),
    "selected and shuffled back": lambda root, to: (
        load_data(root / "mixed", "all", units={"s1": f"linear from {SPLIT_DAY}", "s2": RULE})
        .shuffle(seed=1)
        .sort("id")
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_bits_of_each_half_with_its_own_units(root: Path, tmp_path: Path, way: str) -> None:
    data = WAYS[way](root, tmp_path)
    batch = TileCollator(CSMAEImageProcessor())([data[number] for number in range(6)])
    for sensor in ("s1", "s2"):
        assert torch.equal(batch[sensor], halves(root, sensor)), sensor
    model = CSMAEModel.from_pretrained(root / "model")
    archive = Archive.build(model, CSMAEImageProcessor(), data)
    right = embed_dataset(model, CSMAEImageProcessor(), load_bigearthnet(root / "right"), "s2")
    assert np.allclose(archive.vectors["s2"][:], right / np.linalg.norm(right, axis=1, keepdims=True), atol=1e-5)
    assert archive.tiles.column("units_s2").to_pylist()[1::2] == ["dn+1000"] * 3
    means = [
        estimate_statistics(tiles, progress=False).band_mean["B04"]
        for tiles in (data, load_bigearthnet(root / "right"))
    ]
    assert means[0] == pytest.approx(means[1], abs=1e-6)


def test_a_unit_of_a_tile_reaches_whoever_reads_the_row(root: Path, tmp_path: Path) -> None:
    data = WAYS["column of a store"](root, tmp_path)
    row = data[1]
    assert (row["s1"].unit, row["s2"].unit, data[0]["s2"].unit) == ("linear", "dn+1000", None)
    assert torch.equal(CSMAEImageProcessor()(s2=row["s2"])["s2"], halves(root, "s2")[1:2])
    assert data.filter(lambda row: row["s2"].unit == "dn+1000").num_rows == 3
    mapped = data.map(lambda row: {"mean": float(row["s2"]["B02"].mean())})  # writes keys again
    assert [row["s2"].unit for row in mapped] == [None, "dn+1000"] * 3


def test_a_table_and_a_folder_of_files_take_rules(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    for number, row in enumerate(load_bigearthnet(root / "mixed")):
        for band, pixels in row["s2"].items():
            write_tiff(tmp_path / "in" / name(number, "s2") / f"{name(number, 's2')}_{band}.tif", [pixels])
    for said in (RULE, "dn+1000 of *_2022*", "dn+1000 of */t?_S2A_MSIL2A_2022*_*.tif"):
        data = load_tiles(tmp_path / "in", units={"s2": said})
        batch = TileCollator(CSMAEImageProcessor(), ["s2"])([data[number] for number in range(6)])
        assert torch.equal(batch["s2"], halves(root, "s2")), said
    assert (
        main(["encode", str(tmp_path / "in"), str(tmp_path / "store"), "--workers", "0", "--units", f"s2={RULE}"]) == 0
    )
    for stored, right in zip(load_bigearthnet(tmp_path / "store"), load_bigearthnet(root / "right"), strict=True):
        assert np.array_equal(stored["s2"]["B04"], right["s2"]["B04"])
    with pytest.raises(ValueError, match=r"'dn2' is no unit of s2"):
        load_tiles(tmp_path / "in", units={"s2": "dn2 from 2020-01-01"})


def test_a_store_that_was_encoded_by_a_table_of_units_says_them_no_more(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    for number, row in enumerate(load_bigearthnet(root / "mixed")):
        for band, pixels in row["s2"].items():
            write_tiff(tmp_path / "in" / name(number, "s2") / f"{name(number, 's2')}_{band}.tif", [pixels])
    table = write_metadata(tmp_path / "table.parquet", 6, units_s2=BY_TILE["units_s2"])
    assert (
        main(["encode", str(tmp_path / "in"), str(tmp_path / "store"), "--workers", "0", "--metadata", str(table)]) == 0
    )
    stored = load_bigearthnet(tmp_path / "store")
    assert "units_s2" not in stored.column_names
    assert np.array_equal(stored[1]["s2"]["B04"], load_bigearthnet(root / "right")[1]["s2"]["B04"])


def test_contradictions_name_both(root: Path, tmp_path: Path) -> None:
    table = write_metadata(tmp_path / "metadata.parquet", 6, **BY_TILE)
    with pytest.raises(
        ValueError,
        match=r"Tile t1_\S+_01_00: the column units_s2 says 'dn\+1000', and units=\{'s2': 'dn'\} \(--units\) says 'dn'",
    ):
        load_data(root / "mixed", "all", metadata=str(table), units={"s2": "dn"})
    with pytest.raises(ValueError, match=r"'dn\+1000', and units=.*'reflectance from 2020-01-01'.* says 'reflectance'"):
        load_data(root / "mixed", "all", metadata=str(table), units={"s2": "reflectance from 2020-01-01"})
    data = load_data(root / "mixed", "all", units={"s2": RULE}).add_column("units_s2", ["dn"] * 6)
    with pytest.raises(ValueError, match=r"'dn\+1000', and its column units_s2 says 'dn'"):
        TileCollator(CSMAEImageProcessor(), ["s2"])([data[1]])
    bad = write_metadata(tmp_path / "bad.parquet", 6, units_s2=["dn", "raw"] * 3)
    with pytest.raises(
        ValueError, match=r"Tile t1_\S+_01_00, column units_s2: 'raw' is no unit of s2: expected one of 'dn'"
    ):
        load_bigearthnet(root / "mixed", metadata=bad)


def test_the_refusal_of_a_mixed_data_set_tells_of_the_remedy_and_the_remedy_works(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["archive", "build", str(root / "model"), str(root / "mixed"), str(tmp_path / "a"), "--sensors", "s2"]
    assert main(command) == 2
    assert "--units 's2=dn+1000 from 2022-01-25'" in caplog.text
    assert "units_s2" in caplog.text
    assert main([*command, "--units", f"s2={RULE}", "--suspect", "refuse"]) == 0
    assert main([*command[:3], str(root / "right"), str(tmp_path / "b"), "--sensors", "s2"]) == 0
    first, second = (Archive.load(tmp_path / archive) for archive in "ab")
    assert np.allclose(first.vectors["s2"][:], second.vectors["s2"][:], atol=1e-6)
    assert first.source["units"] == {"s2": RULE}


def test_training_takes_rules_and_columns(root: Path, tmp_path: Path) -> None:
    words = ["--data", str(root / "mixed"), "--units", f"s2={RULE}", f"s1=linear from {SPLIT_DAY}", "s2=dn"]
    _, data, _ = parse_arguments([*words, "--output_dir", str(tmp_path)])
    batch = TileCollator(CSMAEImageProcessor())(list(load_split(data, "train", None)))
    assert torch.equal(batch["s1"], halves(root, "s1"))


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_added_tiles_are_drawn_in_their_own_units(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    stores = {}
    for half, keep in (("linear", 1), ("db", 0)):  # of the mixed store, one folder each
        rows = [row for number, row in enumerate(load_bigearthnet(root / "mixed")) if number % 2 == keep]
        values = {
            row[sensor].key: encode_safetensors(dict(row[sensor].items())) for row in rows for sensor in ("s1", "s2")
        }
        write_store(tmp_path / half / "lmdb", sorted(values.items()))
        write_metadata(tmp_path / half / "metadata.parquet", 6)
        stores[half] = str(tmp_path / half)
    build_it = ["archive", "build", str(root / "model"), stores["linear"], str(tmp_path / "a"), "--missing", "drop"]
    assert main([*build_it, "--units", "s1=linear", "--units", "s2=dn+1000"]) == 0
    assert main(["archive", "add", str(tmp_path / "a"), stores["db"], "--missing", "drop", "--units", "s1=db"]) == 0
    assert main(["archive", "build", str(root / "model"), str(root / "right"), str(tmp_path / "b")]) == 0
    archive, plain = Archive.load(tmp_path / "a"), Archive.load(tmp_path / "b")
    assert dict(zip(archive.ids, archive.tiles.column("units_s1").to_pylist(), strict=True)) == {
        name(number, "s2"): "linear" if number % 2 else "db" for number in range(6)
    }
    assert [source["data"] for source in archive.sources] == [stores["linear"], stores["db"]]
    for sensor in ("s1", "s2"):
        for where in "ab":
            query = ["search", str(tmp_path / where), "--query", name(1, "s2"), "--sensor", sensor, "--k", "5"]
            assert main([*query, "--out", str(tmp_path / f"{where}-{sensor}.png")]) == 0
        assert np.abs(picture(tmp_path / f"a-{sensor}.png") - picture(tmp_path / f"b-{sensor}.png")).mean() < 0.5
    pages = [open_explorer(str(tmp_path / where)) for where in "ab"]
    for tile in plain.ids:
        for sensor in ("s1", "s2"):
            shown, right = (page.pictures.bands(tile, sensor) for page in pages)
            assert shown is not None
            assert right is not None
            band = {"s1": "VV", "s2": "B04"}[sensor]
            assert np.allclose(shown[band], right[band], atol=1e-3)
    # a published copy names no folder of this machine
    from csmae_hf.hub.archives import for_publication

    assert for_publication(archive).source.get("added") == [{"split": "all", "missing": "drop", "units": {"s1": "db"}}]


def test_units_by_tile_outlive_a_save(root: Path, tmp_path: Path) -> None:
    rules = {"s1": f"linear from {SPLIT_DAY}", "s2": RULE}
    load_data(root / "mixed", "all", units=rules).save_to_disk(str(tmp_path / "saved"))
    batch = TileCollator(CSMAEImageProcessor())(list(load_from_disk(str(tmp_path / "saved"))))
    assert torch.equal(batch["s2"], halves(root, "s2"))


def test_statistics_take_what_every_command_takes(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = ["stats", str(root / "mixed"), str(tmp_path / "a"), "--sensors", "s2"]
    assert main(command) == 2
    assert "--suspect accept" in caplog.text
    assert "--units 's2=dn+1000 from 2022-01-25'" in caplog.text
    assert main([*command, "--units", f"s2={RULE}"]) == 0
    assert main(["stats", str(root / "right"), str(tmp_path / "b"), "--sensors", "s2"]) == 0
    mended, right = (CSMAEImageProcessor.from_pretrained(tmp_path / folder) for folder in "ab")
    assert mended.band_mean == pytest.approx(right.band_mean)
    assert mended.band_std == pytest.approx(right.band_std)
    in_memory(root).save_to_disk(str(tmp_path / "saved"))
    saved = ["stats", str(tmp_path / "saved"), str(tmp_path / "c"), "--sensors", "s2"]
    assert main([*saved, "--units", "s2=dn+1000 of *_2022*"]) == 0
    assert CSMAEImageProcessor.from_pretrained(tmp_path / "c").band_mean == pytest.approx(right.band_mean)
    assert main([*saved, "--level", "L1C"]) == 2


def test_info_counts_and_draws_units_of_a_store(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    mixed = ["info", str(root / "mixed"), "--picture", str(tmp_path / "a.png")]
    assert main([*mixed, "--units", f"s2={RULE}", "--units", f"s1=linear from {SPLIT_DAY}"]) == 0
    assert "units     s2: not said 3, dn+1000 3" in capsys.readouterr().out
    assert main(["info", str(root / "right"), "--picture", str(tmp_path / "b.png")]) == 0
    assert np.abs(picture(tmp_path / "a.png") - picture(tmp_path / "b.png")).mean() < 0.5
    assert main([*mixed, "--level", "L1C"]) == 2


def test_a_rule_is_no_unit_of_a_query(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right = str(root / "right")
    assert main(["archive", "build", str(root / "model"), right, str(tmp_path / "a"), "--sensors", "s2"]) == 0
    np.savez(tmp_path / "query.npz", **dict(load_bigearthnet(root / "mixed")[1]["s2"].items()))
    query = ["search", str(tmp_path / "a"), "--query", str(tmp_path / "query.npz"), "--sensor", "s2"]
    assert main([*query, "--units", f"s2={RULE}"]) == 2
    assert f"units of a query: {RULE!r}" in caplog.text
    assert main([*query, "--units", "s2=dn+1000"]) == 0


def test_arrays_beside_a_column_are_taken_in_the_order_of_the_bands(root: Path) -> None:
    bands = CSMAEImageProcessor().sensors["s1"]
    rows = [
        {"id": row["id"], "s1": np.stack([row["s1"][band] for band in bands]), "units_s1": unit}
        for row, unit in zip(load_bigearthnet(root / "mixed"), BY_TILE["units_s1"], strict=True)
    ]
    assert torch.equal(TileCollator(CSMAEImageProcessor(), ["s1"])(rows)["s1"], halves(root, "s1"))


def test_encode_refuses_suspect_images_as_all_else_does(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("rasterio")
    for number, row in enumerate(load_bigearthnet(root / "mixed")):
        for band, pixels in row["s2"].items():
            write_tiff(tmp_path / "in" / name(number, "s2") / f"{name(number, 's2')}_{band}.tif", [pixels])
    command = ["encode", str(tmp_path / "in"), str(tmp_path / "store"), "--workers", "0"]
    for words in ([], ["--suspect", "leave-out"], ["--suspect", "refuse"]):
        caplog.clear()
        assert main([*command, *words]) == 2
        assert "--suspect accept" in caplog.text
        assert "--units 's2=dn+1000 from 2022-01-25'" in caplog.text
    assert main([*command, "--suspect", "refuse", "--units", f"s2={RULE}"]) == 0  # goes on with what is stored
    stored, right = load_bigearthnet(tmp_path / "store"), load_bigearthnet(root / "right")
    assert all(np.array_equal(one["s2"]["B04"], two["s2"]["B04"]) for one, two in zip(stored, right, strict=True))


def test_a_processor_of_units_gives_pictures_in_them(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    model, row = CSMAEModel.from_pretrained(root / "model"), other(load_bigearthnet(root / "right")[0])
    processor = CSMAEImageProcessor(units={"s1": "linear", "s2": "dn+1000"})
    odd = load_bigearthnet(root / "mixed").select([1, 3, 5])
    archive = Archive.build(model, processor, odd, source={"data": str(root / "mixed")})
    assert archive.tiles.column("units_s1").to_pylist() == ["linear"] * 3
    hits = archive.search(row["s1"], sensor="s1", archive_sensor="s1", k=3)
    right = load_bigearthnet(root / "right")
    shown = hits.images[hits.queries[0]]
    assert np.allclose(shown["VV"], right[0]["s1"]["VV"], atol=1e-3)
    drawn = draw_hits(hits, load_shown(archive, hits), tmp_path / "a.png")
    assert np.abs(picture(drawn) - picture(draw_hits(hits, right, tmp_path / "b.png"))).mean() < 0.5
