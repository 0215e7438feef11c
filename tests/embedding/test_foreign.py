"""An encoder that is no model of this package, through everything that embeds.

Its weights are random: this proves that pixels, bands, identity and numbers go where they should, and nothing about how well stock
vision models retrieve.
"""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from archives import make_dataset
from transformers import ViTConfig, ViTModel

from csmae_hf.app.opening import open_explorer
from csmae_hf.app.state import Search, Session
from csmae_hf.app.why import why_panel
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.export import write_hits
from csmae_hf.commands.main import main
from csmae_hf.data.load import load_data
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.file_encoder import FileEncoder
from csmae_hf.embedding.foreign import EncoderModule, encoder_pair, load_factory
from csmae_hf.embedding.identity import ArchiveMismatchError
from csmae_hf.embedding.joined_encoder import JoinedEncoder
from csmae_hf.embedding.module_encoder import ModuleEncoder, Normalisation
from csmae_hf.embedding.shards import plan_embeds
from csmae_hf.embedding.transformers_encoder import transformers_encoder
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run import retrieve
from csmae_hf.hub.archives import stage_archive
from csmae_hf.sample.generate import generate_sample

BANDS = {"s1": ["VV", "VH"], "s2": ["B04", "B03", "B02"]}

SOURCE = """
import torch
from transformers import ViTConfig, ViTModel

from csmae_hf.embedding.transformers_encoder import transformers_encoder


def vit(channels, seed=0):
    torch.manual_seed(seed)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
    return ViTModel(ViTConfig(num_channels=channels, image_size=32, patch_size=8, **sizes), add_pooling_layer=False)


def vits():
    open("ran", "a").close()
    return transformers_encoder({"s1": vit(2), "s2": vit(3)}, {"s1": ["VV", "VH"], "s2": ["B04", "B03", "B02"]})


def others():
    return transformers_encoder({"s1": vit(2, 1), "s2": vit(3, 1)}, {"s1": ["VV", "VH"], "s2": ["B04", "B03", "B02"]})
"""


def vit(channels: int, seed: int = 0, **changes) -> ViTModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, **changes}
    return ViTModel(ViTConfig(num_channels=channels, image_size=32, patch_size=8, **sizes), add_pooling_layer=False)


def vits(s1=None, bands=BANDS, **options) -> ModuleEncoder:
    return transformers_encoder({"s1": s1 or vit(2), "s2": vit(3)}, bands, **options)


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    return generate_sample(tmp_path_factory.mktemp("data") / "sample", tiles=40, seed=5)


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A working folder with a module of one's own in it."""
    (tmp_path / "my_encoders.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_encoders", raising=False)
    return tmp_path


def by_hand(dataset, sensor: str, model: ViTModel) -> np.ndarray:
    """Embeds as transformers' documentation would have one make them, without this package."""
    low, high = (-25.0, 0.0) if sensor == "s1" else (0.0, 3000.0)
    images = np.stack([np.stack([np.asarray(row[sensor][band]) for band in BANDS[sensor]]) for row in dataset])
    scaled = (torch.from_numpy(images.astype(np.float32)).clamp(low, high) - low) / (high - low)
    small = torch.nn.functional.interpolate((scaled - 0.5) / 0.5, (32, 32), mode="bilinear", antialias=True)
    with torch.inference_mode():
        return model.eval()(small).last_hidden_state.mean(dim=1).numpy()


def test_a_stock_vit_is_built_aligned_evaluated_searched_exported_and_refused(sample, mine, caplog, capsys) -> None:
    dataset, encoder = load_data(str(sample), "all"), vits()

    # embeds are those that one makes by hand
    embeds = {sensor: embed_dataset(*encoder_pair(encoder), dataset, sensor) for sensor in BANDS}
    for sensor, model in (("s1", vit(2)), ("s2", vit(3))):
        np.testing.assert_allclose(embeds[sensor], by_hand(dataset, sensor, model), atol=2e-5)

    # aligned and built
    alignment = Alignment.fit(embeds, "procrustes", quiet=True)
    archive = Archive.build(
        dataset=dataset, encoder=encoder, alignment=alignment, model_name="vits", source={"data": str(sample)}
    )
    archive.save(mine / "archive")

    # searched across sensors by an image, as by plain numpy
    opened = Archive.load(mine / "archive", encoder=vits())
    hits = opened.search(dataset[3]["s1"], sensor="s1", archive_sensor="s2", k=5)
    moved = {sensor: alignment.apply(values, sensor) for sensor, values in embeds.items()}
    order = np.argsort(-(moved["s2"] @ moved["s1"][3]), kind="stable")[:5]
    assert hits.ids == [[dataset["id"][row] for row in order]]

    # exported, and read again as embeds of a file
    assert write_hits(hits, mine / "hits.parquet").is_file()
    table = {"id": dataset["id"], **{sensor: list(values) for sensor, values in embeds.items()}}
    pq.write_table(pa.table({name: list(values) for name, values in table.items()}), mine / "embeds.parquet")
    again = FileEncoder({"s1": mine / "embeds.parquet", "s2": mine / "embeds.parquet"})
    for sensor in BANDS:
        np.testing.assert_array_equal(embed_dataset(*encoder_pair(again), dataset, sensor), embeds[sensor])

    # searched from the command line, and exported with what it comes from
    image = {band: np.asarray(values) for band, values in dict(dataset[3]["s1"]).items()}
    np.savez("query.npz", **image)
    words = ["search", "archive", "--query", "query.npz", "--sensor", "s1", "--in", "s2", "--k", "5"]
    capsys.readouterr()
    named = ["--encoder", "my_encoders:vits"]
    assert main([*words, *named, "--out", "hits.json", "--out", "hits.csv"]) == 0, caplog.messages
    told = f"alignment procrustes of the sensors (sha256 {alignment.sha256[:12]}); model encoder:vits"
    assert told in capsys.readouterr().out
    written = json.loads(Path("hits.json").read_text())
    assert [hit["id"] for hit in written["queries"][0]["hits"]] == hits.ids[0]
    assert written["provenance"]["alignment"] == "procrustes"
    assert main([*words, "--encoder", "my_encoders:others"]) == 2

    # searched on the page, by a tile and by an image that is brought
    page = pytest.importorskip("csmae_hf.app.page").Page(open_explorer("archive", encoder="my_encoders:vits"))
    embed = page.explorer.embed_upload(image, "s1", "mine.tif")
    begun = Search(sensor="s1", archive_sensor="s2", k=5, include_self=True)
    for search in (begun.by_tile(dataset["id"][3]), begun.by_upload("mine.tif", embed, "s1")):
        shown = page._show(Session(search, search), {})
        assert re.findall(r'class="card \w+" data-tile="([^"]+)"', shown[page.gallery]) == hits.ids[0]
    with pytest.raises(ArchiveMismatchError, match="weights"):
        open_explorer("archive", encoder="my_encoders:others")

    # published without its code, and opened by who names the encoder
    staged = stage_archive(opened, mine / "staged", "me/vits")
    assert "| alignment of the sensors | procrustes" in (staged / "README.md").read_text()
    pulled = Archive.load(staged, encoder=vits())
    assert pulled.search(dataset[3]["s1"], sensor="s1", archive_sensor="s2", k=5).ids == hits.ids

    # evaluated in one table with the same embeds of the file: no difference
    outcome = retrieve(
        [],
        RetrievalOptions(
            data=str(sample), output_dir=str(mine / "out"), pictures=0, resamples=10, k=5, pairs_curve="4,12"
        ),
        {"vits": encoder, "file": again},
    )
    assert {result.name for result in outcome.runs["vits"].results} == {"s1 -> s1", "s1 -> s2", "s2 -> s1", "s2 -> s2"}
    assert {one.difference for one in outcome.differences} == {0.0}
    assert "vits, untrained" in outcome.baselines
    assert "file, untrained" not in outcome.baselines
    with (mine / "out" / "tables" / "pairs.csv").open() as stream:
        pairs = list(csv.DictReader(stream))
    assert [(row["alignment"], row["pairs"]) for row in pairs if row["model"] == "vits"][:3] == [
        ("none", "0"),
        ("center", "4"),
        ("center", "12"),
    ]
    fitted = [row for row in pairs if row["model"] == "vits" and row["pairs"] != "0"]
    assert len(fitted) == 6
    assert all(float(row["gap_after"]) < float(row["gap_before"]) for row in fitted)
    assert {row["model"] for row in pairs} == {"vits", "file", "vits, untrained", "random order"}

    # refused where it must be, by the name of what differs
    for other, what in (
        (vits(vit(2, seed=1)), "weights"),
        (vits(vit(2, num_attention_heads=2)), "modules.s1.num_attention_heads = 4"),
        (vits(bands={**BANDS, "s2": ["B08", "B03", "B02"]}), "normalisation.s2.bands"),
        (vits(bands={**BANDS, "s1": ["VH", "VV"]}), "normalisation.s1.bands"),
        (vits(scale={"s2": (0, 4000)}), "normalisation.s2.high = 3000.0"),
        (vits(std={"s1": [0.2, 0.2]}), "normalisation.s1.std"),
        (vits(pool="cls"), "pool = 'mean'"),
    ):
        with pytest.raises(ArchiveMismatchError, match=what.replace(".", r"\.")):
            Archive.load(mine / "archive", encoder=other)
    with pytest.raises(FileNotFoundError, match=r"No archive makes this package run code.*--encoder"):
        Archive.load(mine / "archive").search(dataset[3]["s1"], sensor="s1", archive_sensor="s2")

    # pixels come through the same door: in linear power they are converted where that is said, and refused where it is not
    linear = {band: 10 ** (np.asarray(values, np.float64) / 10) for band, values in dict(dataset[3]["s1"]).items()}
    with pytest.raises(ValueError, match="linear"):
        opened.search(linear, sensor="s1", archive_sensor="s2")
    converted = opened.search(linear, sensor="s1", archive_sensor="s2", k=5, units={"s1": "linear"})
    assert converted.ids == hits.ids


def test_the_commands_take_an_encoder_and_no_archive_runs_one_by_itself(sample, mine, caplog, capsys) -> None:
    name = ["--encoder", "my_encoders:vits"]
    for words in ([str(sample), "out", *name], [str(sample), *name, "--limit", "12", "out", "--overwrite"]):
        assert main(["archive", "build", *words]) == 0, caplog.messages
    assert json.loads(Path("out/archive.json").read_text())["made_with"]["model"] == "encoder:my_encoders:vits"
    Path("ran").unlink()
    dataset = load_data(str(sample), "all", limit=12)
    np.savez("query.npz", **{band: np.asarray(values) for band, values in dict(dataset[0]["s2"]).items()})
    search = ["search", "out", "--query", "query.npz", "--sensor", "s2", "--k", "1", "--format", "json"]

    assert main(search) == 2
    assert "--encoder package.module:factory" in caplog.messages[-1]
    assert main(["archive", "info", "out"]) == 0
    assert not Path("ran").exists(), "code that an archive names was run unasked"

    capsys.readouterr()
    assert main([*search, *name]) == 0, caplog.messages
    assert dataset["id"][0] in capsys.readouterr().out
    assert main([*search, "--encoder", "my_encoders:others"]) == 2
    assert "was made with the model encoder:my_encoders:vits (weights" in caplog.messages[-1]
    assert main([*search, *name, "--model", "x"]) == 2
    assert main(["archive", "build", "model", str(sample), "out2", *name]) == 2
    assert "one of MODEL and --encoder" in caplog.messages[-1]
    assert main(["archive", "build", str(sample), "out2"]) == 2
    assert not Path("out2").exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("my_encoders", "expected package.module:factory"),
        ("nowhere.at_all:make", "no module nowhere"),
        ("my_encoders:missing", "has no missing"),
        ("my_encoders:vit", "called without arguments, which it does not take .*'channels'"),
        ("my_encoders:torch", "it has no sensors"),
        ("broken_one:make", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_factory_that_gives_no_encoder_is_named(place, said, mine) -> None:
    (mine / "broken_one.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=said):
        load_factory(place)


def test_the_page_takes_an_encoder_and_says_what_it_cannot_show(sample, mine) -> None:
    dataset = load_data(str(sample), "all", limit=8)
    source = {"data": str(sample), "limit": 8}
    Archive.build(dataset=dataset, encoder=vits(), model_name="vits", source=source).save("shown")
    explorer = open_explorer("shown", encoder="my_encoders:vits")
    image = {band: np.asarray(values) for band, values in dict(dataset[2]["s1"]).items()}
    embed = explorer.embed_upload(image, "s1", "upload.tif")
    np.testing.assert_allclose(embed, by_hand([dataset[2]], "s1", vit(2))[0], atol=2e-5)
    search = Search(tile=dataset["id"][0], sensor="s1", archive_sensor="s2")
    panel = why_panel(explorer, search, dataset["id"][1], {})
    assert "one embed of an image and none of its patches" in panel
    assert "predicts no sensor from another" in panel

    Path("ran").unlink()
    without = open_explorer("shown")
    assert without.search(search).hits[0]
    with pytest.raises(FileNotFoundError, match="--encoder"):
        without.embed_upload(image, "s1", "upload.tif")
    assert not Path("ran").exists()
    with pytest.raises(ArchiveMismatchError, match="weights"):
        open_explorer("shown", encoder="my_encoders:others")


def test_embeds_are_kept_apart_where_only_the_normalisation_differs(tmp_path) -> None:
    dataset = make_dataset(4)

    def place(std):
        scale = {"s2": Normalisation(["B02", "B03", "B04"], std=std)}
        encoder = ModuleEncoder({"s2": torch.nn.Flatten()}, scale, tile_size=16)
        (plan,) = plan_embeds(tmp_path, *encoder_pair(encoder), dataset, ["s2"])
        return plan.shards[0][2]

    assert place(1000) == place(1000.0)
    assert place(1000) != place(2000)


def test_no_folder_of_the_machine_is_in_a_name() -> None:
    assert EncoderModule(Means(version=1), "/home/somebody/encoders").config._name_or_path == "encoder:encoders"
    archive = Archive.build(dataset=make_dataset(2), encoder=Means(version=1), sensor="s2")
    assert archive.identity.model == "encoder:Means"


class Means:
    """Means of bands: an encoder without weights."""

    sensors = {"s1": ["VH", "VV"], "s2": ["B02", "B03", "B04"]}  # noqa: RUF012
    width = 3
    tile_size = 16

    def __init__(self, **fields):
        self.provenance_fields = fields

    def embed(self, pixels, sensor):
        return torch.nn.functional.pad(pixels.mean(dim=(2, 3)), (0, 3 - pixels.shape[1]))


def test_any_object_with_four_attributes_is_an_encoder() -> None:
    dataset = make_dataset(6)
    embeds = embed_dataset(*encoder_pair(Means(version=1)), dataset, "s2")
    expected = [[np.mean(row["s2"][band]) for band in ("B02", "B03", "B04")] for row in dataset]
    np.testing.assert_allclose(embeds, expected, rtol=1e-5)
    archive = Archive.build(dataset=dataset, encoder=Means(version=1), sensor="s2")
    with pytest.raises(ArchiveMismatchError, match="version = 1; the model given has 2"):
        archive.use_model(*encoder_pair(Means(version=2)))


def test_what_nothing_tells_from_another_is_refused() -> None:
    with pytest.raises(ValueError, match="Nothing tells this encoder, a Means, from another"):
        encoder_pair(Means())
    with pytest.raises(ValueError, match="not a Linear: it has no sensors, width, provenance_fields, embed"):
        encoder_pair(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="not the class Means"):
        encoder_pair(Means)


def test_weights_that_an_object_holds_identify_it_wherever_it_holds_them() -> None:
    def holding(seed):
        torch.manual_seed(seed)
        encoder = Means()
        encoder.layers = {"s1": [torch.nn.Linear(2, 2)]}
        return encoder

    archive = Archive.build(dataset=make_dataset(4), encoder=holding(0), sensor="s1")
    archive.use_model(*encoder_pair(holding(0)))
    with pytest.raises(ArchiveMismatchError, match="weights"):
        archive.use_model(*encoder_pair(holding(1)))


def test_an_embed_of_another_width_than_was_said_is_refused() -> None:
    encoder = Means(version=1)
    encoder.width = 5
    with pytest.raises(ValueError, match=r"gave s1 embeds of shape \(4, 3\); expected \(4, 5\)"):
        Archive.build(dataset=make_dataset(4), encoder=encoder, sensor="s1")


def test_a_model_and_an_encoder_are_not_taken_together() -> None:
    model = EncoderModule(Means(version=1))
    with pytest.raises(ValueError, match="expected one of them"):
        Archive.build(model, object(), make_dataset(2), encoder=Means(version=1))
    with pytest.raises(ValueError, match="needs a dataset, and a model"):
        Archive.build(dataset=make_dataset(2))


def test_encoders_of_one_sensor_each_are_joined() -> None:
    torch.manual_seed(0)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16 * 16 * 3, 5))
    s2 = ModuleEncoder({"s2": flat}, {"s2": Normalisation(["B02", "B03", "B04"], std=1000)}, tile_size=16)
    joined = JoinedEncoder({"s1": Means(version=1), "s2": s2})
    assert joined.width == 5
    dataset = make_dataset(12)
    pair = encoder_pair(joined)
    s1 = embed_dataset(*pair, dataset, "s1")
    np.testing.assert_array_equal(s1[:, :3], embed_dataset(*encoder_pair(Means(version=1)), dataset, "s1"))
    assert not s1[:, 3:].any()
    np.testing.assert_array_equal(embed_dataset(*pair, dataset, "s2"), embed_dataset(*encoder_pair(s2), dataset, "s2"))
    archive = Archive.build(dataset=dataset, encoder=joined)
    with pytest.raises(ArchiveMismatchError, match=r"encoder_of_s1\.version"):
        archive.use_model(*encoder_pair(JoinedEncoder({"s1": Means(version=2), "s2": s2})))
    with pytest.raises(ValueError, match="several sizes"):
        JoinedEncoder({"s1": vits(), "s2": s2})
    with pytest.raises(ValueError, match="has the sensors s2 only"):
        JoinedEncoder({"s1": s2})
