"""What is published says where its numbers come from, refuses those of something else, and has no path of the machine."""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub_models import save_tiny
from PIL import Image, PngImagePlugin

from csmae_hf.app.glance import evaluation_table
from csmae_hf.app.opening import GENERATED_NOTICE, open_explorer
from csmae_hf.archive.archive import Archive
from csmae_hf.commands.main import main
from csmae_hf.data.load import load_data
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.embedding.foreign import encoder_pair
from csmae_hf.embedding.identity import ArchiveMismatchError
from csmae_hf.embedding.shards import plan_embeds
from csmae_hf.evaluation.results import remarks_beside
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run import retrieve
from csmae_hf.hub.archives import stage_archive
from csmae_hf.sample.generate import generate_sample

ODD = "Oddly named földer, of me"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two models of a BigEarthNet-x that is generated, each measured with an alignment, and an archive; all in one folder."""
    place = tmp_path_factory.mktemp("origin") / ODD
    place.mkdir()
    before = os.getcwd()
    os.chdir(place)
    generate_sample("BigEarthNet-x", tiles=60, seed=3)
    common = {"k": 3, "pictures": 0, "resamples": 0, "device": "cpu", "untrained": False, "alignment": "center"}
    for seed, name in enumerate(("a", "b")):
        save_tiny(Path(name), seed=seed)
        Path(name, "arguments.yaml").write_text(f"data: ../{ODD}/BigEarthNet-x\nmodel_name_or_path: ../{ODD}/b\n")
        retrieve([name], RetrievalOptions(data=f"../{ODD}/BigEarthNet-x", output_dir=f"results-{name}", **common))
    model, processor = load_encoder("a")
    alignment = Alignment.load("results-a/alignment.safetensors")
    tiles, source = load_data("BigEarthNet-x", "all", limit=12), {"data": "BigEarthNet-x", "note": f"../../{ODD}/x"}
    for name, fitted in (("plain", None), ("aligned", alignment)):
        archive = Archive.build(model, processor, tiles, alignment=fitted, source=source, model_name=str(place / "a"))
        archive.unreadable = {
            "tile": f"{place}/tile 7.tif: 3 of 4 values",
            "other": f"file://{place}/x.tif is no GeoTIFF",
        }
        archive.save(name)
    yield place
    os.chdir(before)


def push(model: str, results: Path | str, out: Path) -> int:
    return main(["push", model, "me/x", "--results", str(results), "--dry-run", str(out)])


def test_results_of_another_model_are_refused_by_name(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert push("a", "results-b/results.json", tmp_path / "out") == 2
    held = json.loads(Path("results-b/results.json").read_text())["metadata"]["provenance"]["made_with"]
    for word in ("model b", held["weights"][:12], "run_retrieval.py a"):
        assert word in caplog.text
    assert not (tmp_path / "out" / "results.json").exists()
    assert main(["card", "a", "--results", "results-b/results.json"]) == 2, "a card is written of them as little"


@pytest.mark.parametrize(
    ("file", "field", "value", "word"),
    [
        ("config.json", "num_attention_heads", 4, "num_attention_heads = 2"),
        ("preprocessor_config.json", "transpose", True, "another processor"),
    ],
)
def test_a_changed_configuration_or_processor_is_another_model(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, field: str, value: object, word: str
) -> None:
    changed = tmp_path / "a"
    shutil.copytree("a", changed)
    held = json.loads((changed / file).read_text())
    (changed / file).write_text(json.dumps(held | {field: value}))
    assert push(str(changed), "results-a/results.json", tmp_path / "out") == 2
    assert word in caplog.text


def test_the_alignment_beside_must_be_the_one_that_was_measured(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copyfile("results-a/results.json", tmp_path / "results.json")
    assert push("a", tmp_path / "results.json", tmp_path / "none") == 2
    assert "holds none" in caplog.text
    shutil.copyfile("results-b/alignment.safetensors", tmp_path / "alignment.safetensors")
    assert push("a", tmp_path / "results.json", tmp_path / "other") == 2
    assert "alignment center (" in caplog.text


def test_older_results_are_refused_by_name_and_said_to_be_unknown_in_the_models_folder(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree("a", tmp_path / "a")
    held = json.loads(Path("results-a/results.json").read_text())
    del held["metadata"]["provenance"]
    (tmp_path / "a" / "results.json").write_text(json.dumps(held))
    assert push(str(tmp_path / "a"), tmp_path / "a" / "results.json", tmp_path / "out") == 2
    assert "does not say which weights" in caplog.text
    assert main(["push", str(tmp_path / "a"), "me/x", "--dry-run", str(tmp_path / "staged")]) == 0
    assert "does not say which weights these numbers" in (tmp_path / "staged" / "README.md").read_text()


def every_text(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of every file, and what those that are compressed hold."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.name, path.read_bytes()
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                yield path.name, repr((table.to_pylist(), table.schema.metadata)).encode()


def test_nothing_published_has_a_path_of_the_machine(world: Path, tmp_path: Path) -> None:
    assert push("a", "results-a/results.json", tmp_path / "model") == 0
    stage_archive(Archive.load("aligned"), tmp_path / "archive", "me/archive")
    needles = [b"Oddly named", ODD.encode(), json.dumps(ODD)[1:-1].encode(), str(Path.home()).encode() + b"/"]
    needles += [str(Path(__file__).resolve().parents[2]).encode(), b"../", b"file://"]
    for folder in ("model", "archive"):
        for name, content in every_text(tmp_path / folder):
            if not name.endswith(".py"):  # code speaks of paths
                assert [needle for needle in needles if needle in content] == [], (folder, name)
    assert (tmp_path / "model" / "alignment.safetensors").read_bytes() == Path(
        "results-a/alignment.safetensors"
    ).read_bytes()
    manifest = json.loads((tmp_path / "archive" / "archive.json").read_text())
    assert manifest["unreadable"] == {"tile": "tile 7.tif: 3 of 4 values", "other": "x.tif is no GeoTIFF"}
    assert manifest["provenance"]["data"] == "BigEarthNet-x"


def test_no_path_is_in_names_of_classes_pictures_or_records_of_a_conversion(world: Path, tmp_path: Path) -> None:
    model, mine = tmp_path / "a", f"{world}/x"
    shutil.copytree("a", model)
    held = json.loads((model / "config.json").read_text())
    held |= {"id2label": {"0": f"{mine}/water", "1": "b"}, "label2id": {f"{mine}/water": 0, "b": 1}, "note": mine}
    (model / "config.json").write_text(json.dumps(held))
    (model / "conversion.json").write_text(json.dumps({"source": {"file": mine}, "warnings": [f"{mine} says 3"]}))
    (model / "train_results.json").write_text(json.dumps({"train_tiles": mine}))
    (model / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": mine, "epoch": 1}))
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Source", mine)
    texts.add_itxt("XML:com.adobe.xmp", mine, zip=True)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(model / "example.png", pnginfo=texts, exif=Image.Exif())
    assert main(["push", str(model), "me/x", "--dry-run", str(tmp_path / "out")]) == 0
    for name, content in every_text(tmp_path / "out"):
        assert name.endswith(".py") or (ODD.encode() not in content and b"Oddly" not in content), name
    with Image.open(tmp_path / "out" / "example.png") as published:
        assert published.info == {}
        np.testing.assert_array_equal(np.asarray(published), pixels)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "water", "1": "b"}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.large_string(), "{}/x"),
        (pa.string_view(), "{}/x"),
        (pa.dictionary(pa.int8(), pa.string()), "{}/x"),
        (pa.list_(pa.list_(pa.string())), [["{}/x"], []]),
        (pa.large_list(pa.string()), ["{}/x", None]),
        (pa.struct([("file", pa.string()), ("day", pa.date32())]), {"file": "{}/x", "day": date(2020, 1, 2)}),
        (pa.map_(pa.string(), pa.string()), [("{}/k", "{}/v")]),
    ],
    ids=str,
)
def test_no_path_is_in_metadata_of_any_type(world: Path, tmp_path: Path, kind: pa.DataType, value: object) -> None:
    def at(place: str, held: object) -> object:
        if isinstance(held, (list, tuple)):
            return type(held)(at(place, one) for one in held)
        if isinstance(held, dict):
            return {name: at(place, one) for name, one in held.items()}
        return held.replace("{}/", place) if isinstance(held, str) else held

    archive = Archive.load("plain")
    schema = {b"pandas": json.dumps({"columns": [{"name": f"{world}/x"}]}).encode(), b"note": f"{world}/x".encode()}
    values = [at(f"{world}/", value), *[None] * (len(archive) - 1)]
    archive.tiles = archive.tiles.append_column(f"{world}/own", pa.array(values, kind)).replace_schema_metadata(schema)
    stage_archive(archive, tmp_path / "out", "me/archive")
    for name, content in every_text(tmp_path / "out"):
        assert b"Oddly" not in content, name
    (file,) = (tmp_path / "out").glob("tiles-*.parquet")
    column = pq.read_table(file).column("own")
    assert column.type == (pa.string() if kind == pa.string_view() else kind), "of views pyarrow takes no rows"
    assert column.to_pylist() == [at("", value), *[None] * (len(archive) - 1)]


def test_an_encoder_that_names_a_file_knows_its_own_embeds_again_and_publishes_no_path(
    world: Path, tmp_path: Path
) -> None:
    class Means:
        sensors = {"s2": ["B02", "B03", "B04"]}  # noqa: RUF012
        width = 3

        def __init__(self, file: str):
            self.provenance_fields = {"checkpoint": {"file": file}}

        def embed(self, pixels: torch.Tensor, sensor: str) -> torch.Tensor:
            return pixels.mean(dim=(2, 3))

    tiles, mine = load_data("BigEarthNet-x", "all", limit=6), f"{world}/weights.pt"
    for _ in range(2):
        plan_embeds(tmp_path / "kept", *encoder_pair(Means(mine)), tiles, ["s2"])
    archive = Archive.build(dataset=tiles, encoder=Means(mine), model_name="means")
    archive.use_model(*encoder_pair(Means(mine)))
    with pytest.raises(
        ArchiveMismatchError, match=r"checkpoint\.file = 'weights\.pt'; the model given has 'other\.pt'"
    ):
        archive.use_model(*encoder_pair(Means(f"{world}/other.pt")))
    stage_archive(archive, tmp_path / "out", "me/archive")
    for name, content in every_text(tmp_path / "out"):
        assert b"Oddly" not in content, name


def test_generated_follows_the_tiles_into_archives_whose_source_nobody_named(world: Path, tmp_path: Path) -> None:
    tiles = load_data("BigEarthNet-x", "all", limit=4)
    archive = Archive.build(*load_encoder("a"), tiles)
    assert archive.provenance.generated is True
    archive.save(tmp_path / "archive")
    assert open_explorer(str(tmp_path / "archive")).notice == GENERATED_NOTICE


def test_cards_say_generated_and_aligned_wherever_they_are_written(world: Path, tmp_path: Path) -> None:
    assert push("a", "results-a/results.json", tmp_path / "model") == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "generated scenes" in card
    assert "aligned (center)" in card
    assert "CDLA" not in card
    for name, method in (
        ("plain", "| alignment of the sensors | none"),
        ("aligned", "| alignment of the sensors | center"),
    ):
        stage_archive(Archive.load(name), tmp_path / name, "me/archive")
        card = (tmp_path / name / "README.md").read_text()
        assert "The tiles are generated scenes" in card
        assert method in card


def test_every_table_of_an_evaluation_says_how_it_was_aligned(world: Path) -> None:
    tables = [*Path("results-a/tables").iterdir(), Path("results-a/results.csv"), Path("results-a/report.html")]
    assert len(tables) > 6
    for path in tables:
        text = path.read_text()
        assert "center" in text, path


def test_an_archive_without_alignment_beside_an_aligned_evaluation_says_so(world: Path) -> None:
    document = json.loads(Path("results-a/results.json").read_text())
    plain, aligned = (Archive.load(name).provenance for name in ("plain", "aligned"))
    assert any("alignment center" in remark and "none" in remark for remark in remarks_beside(document, plain))
    assert not any("alignment" in remark for remark in remarks_beside(document, aligned))
    assert 'class="notice"' in evaluation_table(document, plain)
    other = json.loads(Path("results-b/results.json").read_text())
    assert any("weights" in remark for remark in remarks_beside(other, aligned))
    del document["metadata"]["provenance"]
    assert any("does not say" in remark for remark in remarks_beside(document, aligned))


def test_an_archive_of_all_tiles_is_of_the_data_that_were_measured(world: Path) -> None:
    document = json.loads(Path("results-a/results.json").read_text())
    model, processor = load_encoder("a")
    alignment = Alignment.load("results-a/alignment.safetensors")
    whole = Archive.build(
        model, processor, load_data("BigEarthNet-x", "all"), alignment=alignment, source={"data": "BigEarthNet-x"}
    )
    assert remarks_beside(document, whole.provenance) == []
