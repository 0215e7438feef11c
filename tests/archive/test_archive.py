"""Building, searching and changing an archive, compared with plain numpy over the model's own embeds."""

import json
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from archive.old_layout import write_as_version
from archives import CLASSES, make_dataset, make_model, make_processor
from datasets import concatenate_datasets, load_from_disk
from tiny_models import TWO_SENSORS, build, draw_images, tiny_config
from transformers import PreTrainedConfig

from configuration_csmae import CSMAEConfig
from csmae_hf import CSMAEModel
from csmae_hf.archive.archive import Archive
from csmae_hf.archive.export import to_geojson, write_hits
from csmae_hf.embedding import embed, shards
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.identity import ArchiveMismatchError, Identity, encoder_settings

TILES = 60


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def processor():
    return make_processor()


@pytest.fixture(scope="module")
def dataset():
    return make_dataset(TILES)


@pytest.fixture(scope="module")
def built(model, processor, dataset):
    return Archive.build(model, processor, dataset, sensor=["s1", "s2"])


@pytest.fixture(scope="module")
def units(model, processor, dataset):
    embeds = {sensor: embed_dataset(model, processor, dataset, sensor).astype(np.float64) for sensor in ("s1", "s2")}
    return {sensor: values / np.linalg.norm(values, axis=1, keepdims=True) for sensor, values in embeds.items()}


@pytest.fixture
def archive(built):
    """A copy that a test may change."""
    return Archive(built.tiles, built.vectors, built.identity, model=built._model, processor=built._processor)


def ranked(scores, allowed, k):
    order = sorted(allowed, key=lambda row: (-scores[row].astype(np.float32), row))
    return [f"tile_{row:04d}" for row in order[:k]]


def test_a_query_of_one_sensor_finds_what_numpy_finds_in_another(built, units, dataset):
    image = dataset[5]["s1"]
    hits = built.search(image, sensor="s1", archive_sensor="s2", k=7)
    scores = units["s1"][5] @ units["s2"].T
    assert hits.ids == [ranked(scores, range(TILES), 7)]
    np.testing.assert_allclose(hits.scores[0], np.sort(scores)[::-1][:7], atol=1e-6)
    assert hits.exact
    assert not hits.notes
    assert (hits.query_sensor, hits.archive_sensor) == ("s1", "s2")


def test_a_column_of_a_dataset_is_a_list_of_queries(built, dataset):
    ids = dataset.select(range(3))["id"]
    assert not isinstance(ids, list)  # but a column, which reads what is looked at
    found = built.search(ids, sensor="s1", archive_sensor="s2", k=2)
    assert found.ids == built.search(list(ids), sensor="s1", archive_sensor="s2", k=2).ids


def test_a_filter_leaves_the_order_of_what_it_keeps(built, units):
    hits = built.search("tile_0002", sensor="s2", k=4, filter="country = 'Austria' and not labels = 'Pastures'")
    tiles = make_dataset(TILES).remove_columns(["s1", "s2"])
    allowed = [
        row
        for row, tile in enumerate(tiles)
        if tile["country"] == "Austria"
        and tile["labels"] is not None
        and CLASSES.index("Pastures") not in tile["labels"]
    ]
    assert hits.ids == [ranked(units["s2"][2] @ units["s2"].T, allowed, 4)]
    assert hits.kept == len(allowed)


def test_all_forms_of_a_query_are_one_query(built, dataset, units, tmp_path):
    row = dataset[8]["s2"]
    stacked = np.stack([np.asarray(row[band]) for band in TWO_SENSORS["s2"]])
    np.save(tmp_path / "image.npy", stacked)
    np.savez(tmp_path / "image.npz", **{band: np.asarray(row[band]) for band in row})
    np.save(tmp_path / "embed.npy", units["s2"][8] * 3)
    forms = [row, stacked, torch.tensor(stacked), units["s2"][8], *(str(path) for path in sorted(tmp_path.iterdir()))]
    hits = built.search(forms, sensor="s2", k=5)
    assert len(hits) == 7
    assert [ids[0] for ids in hits.ids] == ["tile_0008"] * 7
    assert all(ids == hits.ids[0] for ids in hits.ids)
    batch = built.search(np.stack([stacked, stacked]), sensor="s2", k=5)
    assert batch.ids == hits.ids[:2]
    assert batch.queries == ["query 0 [0]", "query 0 [1]"]
    by_id = built.search(["tile_0008", "tile_0003"], sensor="s2", k=5)
    assert by_id.queries == ["tile_0008", "tile_0003"]
    assert by_id.ids[0][:4] == hits.ids[0][1:], "a tile of the archive does not find itself"
    assert built.search("tile_0008", sensor="s2", k=5, include_self=True).ids[0] == hits.ids[0]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        (lambda row: torch.tensor(row).bfloat16(), 2e-2),
        (lambda row: torch.tensor(row).half(), 2e-3),
        (lambda row: torch.tensor(row).to(torch.float8_e4m3fn), 0.2),
        (lambda row: torch.tensor(row).double().requires_grad_(), 1e-6),
        (lambda row: torch.tensor(row).bfloat16()[None], 2e-2),
        (lambda row: row.astype(np.float16), 2e-3),
        (lambda row: row.astype(row.dtype.newbyteorder()), 1e-6),
        (lambda row: row.astype(pytest.importorskip("ml_dtypes").bfloat16), 2e-2),
        (lambda row: row.tolist(), 1e-6),
        (lambda row: tuple(row), 1e-6),
        (lambda row: [row.tolist()], 1e-6),
        (lambda row: [torch.tensor(row).bfloat16()], 2e-2),
    ],
)
def test_an_embed_is_a_query_in_whatever_type_it_comes(built, units, form, error):
    hits = built.search(form(units["s1"][5] * 3), sensor="s1", archive_sensor="s2", k=TILES)
    assert len(hits) == 1
    found = dict(zip(hits.ids[0], hits.scores[0], strict=True))
    scores = [found[f"tile_{row:04d}"] for row in range(TILES)]
    np.testing.assert_allclose(scores, units["s1"][5] @ units["s2"].T, atol=error)


def test_an_archive_is_made_of_embeds_of_any_type(built, units):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    table = built.tiles
    for values in (torch.tensor(units["s1"]).bfloat16(), units["s1"].astype(ml_dtypes.bfloat16)):
        made = Archive.from_embeds({"s1": values}, table, built.identity)
        np.testing.assert_allclose(made.vectors["s1"][:].numpy(), units["s1"], atol=1e-2)


def test_the_metadata_of_a_hit_comes_with_it(built):
    (hit,) = built.search("tile_0009", sensor="s1", k=1, include_self=True)[0]
    assert hit["id"] == "tile_0009"
    assert hit["labels"] is None, "a tile without labels is in the archive, without labels"
    assert hit["country"] == "Finland"
    assert hit["season"] == "Summer"
    assert (hit["rank"], round(hit["score"], 5)) == (1, 1.0)


def test_a_tile_without_labels_fulfils_no_condition_on_labels(built):
    held = built.search("tile_0009", sensor="s1", k=60, filter="labels = 'Pastures'", include_self=True)
    lacking = built.search("tile_0009", sensor="s1", k=60, filter="labels != 'Pastures'", include_self=True)
    assert held.kept + lacking.kept == TILES - TILES // 10
    assert "tile_0009" not in held.ids[0] + lacking.ids[0]


def test_asking_for_more_than_there_is_gives_all_and_says_so(built, caplog):
    hits = built.search("tile_0000", sensor="s1", k=100)
    assert len(hits.ids[0]) == TILES - 1
    assert "Fewer than k = 100 tiles can be found: the archive has 60." in hits.notes
    assert "Fewer than k" in caplog.text
    few = built.search("tile_0000", sensor="s1", k=10, filter="elevation < 4")
    assert len(few.ids[0]) == 2
    assert few.notes == ["Fewer than k = 10 tiles can be found: the filter keeps 3 of 60."]
    none = built.search("tile_0000", sensor="s1", filter="country = 'Nowhere'")
    assert none.ids == [[]]
    assert none.notes == ["The filter keeps none of the 60 tiles."]
    assert none.to_table().num_rows == 0


def test_an_empty_archive_answers_with_nothing(archive, tmp_path, dataset):
    archive.remove(archive.ids)
    hits = archive.search(dataset[0]["s1"], sensor="s1")
    assert hits.ids == [[]]
    assert hits.notes == ["The archive is empty."]
    again = Archive.load(archive.save(tmp_path / "empty"), model=archive._model, processor=archive._processor)
    assert len(again) == 0
    assert again.search(dataset[0]["s1"], sensor="s1", filter="country = 'Austria'").ids == [[]]
    again.add(dataset.select(range(3)), progress=False)
    assert again.search(dataset[0]["s1"], sensor="s1", k=1).ids == [["tile_0000"]]
    with pytest.raises(ValueError, match="The dataset has no tiles"):
        Archive.build(archive._model, archive._processor, dataset.select([]), sensor="s1")


def test_a_sensor_that_is_not_there_is_named(built, model, processor, dataset):
    with pytest.raises(ValueError, match="The model has no sensor 'thermal'"):
        built.search(dataset[0]["s1"], sensor="thermal", archive_sensor="s2")
    with pytest.raises(ValueError, match="no embeds of 'thermal' to search; it has s1, s2"):
        built.search(dataset[0]["s1"], sensor="thermal")
    with pytest.raises(ValueError, match="The model has no sensor 'thermal'"):
        Archive.build(model, processor, dataset, sensor="thermal")
    with pytest.raises(ValueError, match="no pixel column 's1'"):
        Archive.build(model, processor, dataset.remove_columns("s1"), sensor=["s1", "s2"])
    one = Archive.build(model, processor, dataset.select(range(5)), sensor="s2")
    assert one.search(dataset[3]["s1"], sensor="s1", k=1).archive_sensor == "s2"
    with pytest.raises(ValueError, match="has no embeds of 's1', so its tiles cannot be queries of it"):
        one.search("tile_0001", sensor="s1")
    with pytest.raises(ValueError, match="Say which sensor the query is of: one of s1, s2"):
        built.search("tile_0001")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tile_9999", "neither the id of one of the archive's 60 tiles nor a file"),
        (np.zeros(5), "embeds of this archive have the width 32"),
        (np.zeros((2, 2, 2, 2, 2)), "expected an image"),
        (np.zeros(32), "zero"),
    ],
)
def test_what_is_no_query_is_refused(built, query, message):
    with pytest.raises(ValueError, match=message):
        built.search(query, sensor="s2")


def test_what_is_masked_in_a_query_is_no_measurement(built, dataset):
    stacked = np.ma.stack([np.ma.array(np.asarray(dataset[8]["s2"][band])) for band in TWO_SENSORS["s2"]])
    stacked[:, 2:5, 2:5] = np.ma.masked
    with pytest.raises(ValueError, match="9"):
        built.search(stacked, sensor="s2")


def test_identical_tiles_are_all_found_in_order(model, processor, dataset):
    repeated = dataset.select([4, 7, 4, 4, 9]).remove_columns("id").add_column("id", list("abcde"))
    archive = Archive.build(model, processor, repeated, sensor="s2")
    hits = archive.search("c", sensor="s2", k=2)
    assert hits.ids == [["a", "d"]]
    assert hits.scores[0].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"1 tile ids occur more than once \(first: tile_0004\)"):
        Archive.build(model, processor, dataset.select([4, 7, 4]), sensor="s2")


def test_tiles_are_added_and_removed(archive, units, dataset, tmp_path):
    archive.remove(["tile_0003", "tile_0010"])
    more = make_dataset(5, first=TILES, seed=1)
    archive.add(more, progress=False)
    assert archive.ids == [f"tile_{row:04d}" for row in range(TILES + 5) if row not in (3, 10)]
    for image, name in [(more[2]["s2"], "tile_0062"), (dataset[11]["s2"], "tile_0011")]:
        hits = archive.search(image, sensor="s2", k=1)
        assert hits.ids == [[name]]
        assert hits.scores[0, 0] > 0.99999
    with pytest.raises(ValueError, match="1 of 1 tiles are in the archive already and stay as they are: tile_0062"):
        archive.add(more.select([2]), progress=False)
    with pytest.raises(ValueError, match="1 of 2 ids are not in this archive of 63 tiles, 'tile_0003' for one"):
        archive.remove(["tile_0001", "tile_0003"])
    with pytest.raises(ValueError, match="columns that the archive lacks: orbit"):
        archive.add(make_dataset(1, first=90).add_column("orbit", [1]), progress=False)
    archive.add(make_dataset(1, first=90).remove_columns("country"), progress=False)
    loaded = Archive.load(archive.save(tmp_path / "archive"))
    assert loaded.tiles.to_pylist() == archive.tiles.to_pylist()
    assert loaded.tiles.column("country").to_pylist()[-1] is None
    for sensor in ("s1", "s2"):
        torch.testing.assert_close(loaded.vectors[sensor][:], archive.vectors[sensor][:], rtol=0, atol=0)


def test_tiles_that_are_there_already_stay_and_are_named(archive, dataset, tmp_path, caplog):
    more = concatenate_datasets([dataset.select([7, 2]), make_dataset(3, first=TILES, seed=5), dataset.select([9])])
    before = archive.vectors["s2"][torch.tensor([2, 7, 9])]
    archive.add(more, progress=False)
    assert archive.ids == [f"tile_{row:04d}" for row in range(TILES + 3)]
    assert (
        "3 of 6 tiles are in the archive already and stay as they are: tile_0007, tile_0002, tile_0009." in caplog.text
    )
    assert torch.equal(archive.vectors["s2"][torch.tensor([2, 7, 9])], before)
    assert archive.search(more[3]["s2"], sensor="s2", k=1).ids == [[f"tile_{TILES + 1:04d}"]]


def test_the_recall_of_an_index_is_measured_again_after_tiles_were_added(archive):
    pytest.importorskip("faiss", reason="pip install faiss-cpu")
    archive.use_index("faiss", kind="hnsw")
    whole = [recall.kept for recall in archive.recall if recall.share == 1]
    archive.add(make_dataset(6, first=TILES, seed=5), progress=False)
    assert set(whole) == {TILES}
    assert {recall.kept for recall in archive.recall if recall.share == 1} == {TILES + 6}


def test_columns_that_a_hit_has_itself_are_kept_apart(archive, tmp_path):
    texts = [f"grade {row}" for row in range(TILES)]
    for name in ("score", "rank", "query", "tile_score"):
        archive.tiles = archive.tiles.append_column(name, pa.array([f"{name} of {text}" for text in texts]))
    hits = archive.search("tile_0004", sensor="s1", archive_sensor="s2", k=2, filter="score != 'x'")
    row = int(hits.ids[0][0][-4:])
    hit = hits[0][0]
    assert hit["rank"] == 1
    assert hit["score"] == pytest.approx(float(hits.scores[0, 0]))
    named = {"tile_tile_score": "score", "tile_rank": "rank", "tile_query": "query", "tile_score": "tile_score"}
    assert {name: hit[name] for name in named} == {name: f"{held} of grade {row}" for name, held in named.items()}
    assert f"score of grade {row}" in hits.to_text(columns=["score"])
    table = hits.to_table()
    assert table.column("score")[0].as_py() == pytest.approx(float(hits.scores[0, 0]))
    assert {name: table.column(name)[0].as_py() for name in named} == {name: hit[name] for name in named}
    written = json.loads(hits.to_json())["queries"][0]["hits"][0]
    assert {name: written[name] for name in (*named, "rank")} == {name: hit[name] for name in (*named, "rank")}


@pytest.mark.parametrize("method", ["none", "center"])
def test_what_is_found_says_where_it_comes_from_in_every_file(method, model, processor, dataset, units, tmp_path):
    alignment = Alignment.fit(units, method)
    source = {"data": str(tmp_path / "my tiles")}
    archive = Archive.build(model, processor, dataset, alignment=alignment, model_name="me/model", source=source)
    hits = archive.search(archive.ids[0], sensor="s1", archive_sensor="s2", k=3)
    told = f"alignment center of the sensors (sha256 {alignment.sha256[:12]})" if method == "center" else "no alignment"
    text = hits.to_text()
    assert f"Of: my tiles; {told}" in text
    assert f"model me/model (weights {archive.identity.weights[:12]})." in text
    expected = json.loads(json.dumps(archive.provenance.as_dict())) | {"tiles": {}}
    assert expected["alignment"] == method
    assert json.loads(hits.to_json())["provenance"] == expected
    write_hits(hits, tmp_path / "hits.parquet")
    table = pq.read_table(tmp_path / "hits.parquet")
    assert json.loads(table.schema.metadata[b"csmae_hf.provenance"]) == expected
    assert table.column("id").to_pylist() == hits.ids[0]
    write_hits(hits, tmp_path / "kept")
    kept = load_from_disk(str(tmp_path / "kept"))
    assert told in kept.info.description
    assert kept["id"][:] == hits.ids[0]
    assert to_geojson(hits)["provenance"] == expected


def test_what_was_liked_draws_a_query_and_what_was_not_repels_it(built, units):
    by_likes = built.search(None, sensor="s2", like=["tile_0001", "tile_0002"], unlike=["tile_0003"], k=5)
    moved = 0.75 * units["s2"][[1, 2]].mean(axis=0) - 0.15 * units["s2"][3]
    wanted = ranked(
        units["s2"] @ (moved / np.linalg.norm(moved)), [row for row in range(TILES) if row not in (1, 2, 3)], 5
    )
    assert by_likes.ids == [wanted], "judged tiles are not shown again"
    refined = built.search("tile_0000", sensor="s1", archive_sensor="s2", like=["tile_0001"], k=5)
    moved = units["s1"][0] + 0.75 * units["s2"][1]
    wanted = ranked(units["s2"] @ (moved / np.linalg.norm(moved)), [row for row in range(TILES) if row > 1], 5)
    assert refined.ids == [wanted]
    with pytest.raises(ValueError, match="nothing to search by"):
        built.search(None, sensor="s2", unlike=["tile_0003"])


@pytest.mark.parametrize("batch_size", [256, 50, 1])
def test_one_broken_tile_among_many_is_left_out_and_named(batch_size, model, processor, tmp_path, caplog):
    broken = make_dataset(200, broken=[150])
    archive = Archive.build(model, processor, broken, sensor=["s1", "s2"], batch_size=batch_size)
    assert len(archive) == 199
    assert "tile_0150" not in archive.ids
    assert "B03" in archive.unreadable["tile_0150"]
    assert "1 of 200 tiles cannot be read and are left out, tile_0150 for one" in caplog.text
    assert archive.search("tile_0151", sensor="s2", k=1, include_self=True).scores[0, 0] == 1
    assert Archive.load(archive.save(tmp_path / "a")).unreadable == archive.unreadable
    with pytest.raises(ValueError, match=r"3 or more of 200 tiles cannot be used, more than 1%.*tile_0003"):
        Archive.build(model, processor, make_dataset(200, broken=[3, 5, 180]), sensor="s2")


def test_a_build_that_was_ended_goes_on_where_it_was(model, processor, dataset, built, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_TILES", 8)
    more = concatenate_datasets([dataset, make_dataset(60, first=TILES, seed=3, broken=[70])])
    embedded, forward = [], embed.forward_pixels

    def count(model, pixels, sensor, device):
        embedded.append(len(pixels))
        if sum(embedded) > 100 and not (tmp_path / "second").exists():
            raise KeyboardInterrupt
        return forward(model, pixels, sensor, device)

    monkeypatch.setattr(embed, "forward_pixels", count)
    options = {"sensor": ["s1", "s2"], "batch_size": 8, "progress": False, "cache": tmp_path / "cache"}
    with pytest.raises(KeyboardInterrupt):
        Archive.build(model, processor, more, **options)
    first = sum(embedded)
    (tmp_path / "second").mkdir()
    archive = Archive.build(model, processor, more, **options)
    assert first > 100
    assert sum(embedded) - first < 2 * len(more) - 90, "what was there is not embedded again"
    assert archive.ids == [name for name in more["id"] if name != "tile_0070"]
    assert "B03" in archive.unreadable["tile_0070"]
    for sensor in ("s1", "s2"):
        torch.testing.assert_close(archive.vectors[sensor][:TILES], built.vectors[sensor][:], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="3 or more of 60 tiles cannot be used, more than 1%"):
        Archive.build(model, processor, make_dataset(60, broken=[1, 2, 3]), **options)


def test_another_model_or_processor_is_refused_by_name(built, model, processor, tmp_path):
    model.config._name_or_path = "someone/csmae"
    archive = Archive(built.tiles, built.vectors, Identity.of(model, processor))
    archive.save(tmp_path / "archive")
    other = make_model(seed=1)
    other.config._name_or_path = "someone/other"
    with pytest.raises(ArchiveMismatchError, match=r"made with the model someone/csmae .* not with someone/other"):
        Archive.load(tmp_path / "archive", model=other, processor=processor)
    with pytest.raises(ArchiveMismatchError, match="another processor"):
        Archive.load(tmp_path / "archive", model=model, processor=make_processor(band_mean={"B02": 1.0}))
    with pytest.raises(ValueError, match="give both or neither"):
        Archive.load(tmp_path / "archive", model=model)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again, same = type(model).from_pretrained(tmp_path / "model"), type(processor).from_pretrained(tmp_path / "model")
    Archive.load(tmp_path / "archive", model=again, processor=same)
    named = Archive(built.tiles, built.vectors, Identity.of(again, same))
    hits = Archive.load(named.save(tmp_path / "named")).search(make_dataset(1)[0]["s1"], sensor="s1", k=1)
    assert hits.ids == [["tile_0000"]], "the model is loaded by the name in the archive"


def with_heads(model, heads, folder):
    """The same weights, loaded beside a configuration that was changed by hand."""
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": heads}))
    return type(model).from_pretrained(folder)


def test_the_same_weights_with_another_configuration_are_refused_by_field(built, model, processor, tmp_path):
    folder = built.save(tmp_path / "archive")
    other = with_heads(model, 4, tmp_path / "model")
    with pytest.raises(ArchiveMismatchError, match=r"num_attention_heads = 2.*given has 4"):
        Archive.load(folder, model=other, processor=processor)
    write_as_version(folder, 1)
    Archive.load(folder, model=other, processor=processor)  # of a release that did not record it


CHANGED = {
    "sensors": {"s1": ["VV", "VH"], "s2": TWO_SENSORS["s2"]},
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "multi_sensor_encoder_depth": 2,
    "cross_sensor_encoder_depth": 2,
    "pooling": "token",
    "hidden_act": "relu",
    "qkv_bias": False,
    "layer_norm_eps": 1e-2,
    "decoder_type": "common",
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 24,
    "decoder_layer_norm_eps": 1e-2,
    "mask_ratio": 0.75,
    "masking": "disjoint",
    "cmr_target": "target",
    "norm_pixel_loss": True,
    "umr_weight": 2.0,
    "cmr_weight": 2.0,
    "mim_weight": 2.0,
    "mde_weight": 2.0,
    "mim_temperature": 0.1,
    "mim_gather": False,
    "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.5,
    "initializer_range": 0.5,
}


def test_the_identity_holds_every_field_that_changes_an_embed_and_no_other(model):
    own = {item.name for item in fields(CSMAEConfig)} - {item.name for item in fields(PreTrainedConfig)}
    assert own == set(CHANGED), "say of a new field whether it changes embeds"
    recorded = encoder_settings(model)
    images = draw_images(model.config)
    expected = model(**images).embeds
    for name in own - set(recorded):
        other = build(CSMAEModel, tiny_config(**{name: CHANGED[name]}))
        other.load_state_dict(model.state_dict())
        for sensor, embeds in other(**images).embeds.items():
            torch.testing.assert_close(embeds, expected[sensor], rtol=0, atol=0, msg=name)
    for name in recorded:
        other = build(CSMAEModel, tiny_config(**{name: CHANGED[name]}))
        assert encoder_settings(other)[name] != recorded[name]
    assert {"decoder_type", "mask_ratio", "mim_temperature"}.isdisjoint(recorded)


def test_no_search_makes_anything_of_all_ids(archive, units, monkeypatch):
    def refuse(held):
        raise AssertionError("a list of all ids")

    monkeypatch.setattr(Archive, "ids", property(refuse))
    for _ in range(2):
        archive.search(units["s1"][:5].astype(np.float32), sensor="s1", filter="country = 'Austria'")
        hits = archive.search(["tile_0003", "tile_0005"], sensor="s1", like=["tile_0001"], include_self=True)
        assert archive.rows_of(["tile_0005", "tile_0003"]).tolist() == [5, 3]
    assert hits.queries == ["tile_0003", "tile_0005"]
    archive.remove(["tile_0003"])
    assert archive.rows_of(["tile_0005"]).tolist() == [4]
    archive.add(make_dataset(1, first=900, seed=9), progress=False)
    assert archive.rows_of(["tile_0900", "tile_0000"]).tolist() == [TILES - 1, 0]
    assert "tile_0900" in archive.rows_by_id
    assert "tile_0003" not in archive.rows_by_id
    assert archive.rows_by_id["tile_0004"] == 3
    with pytest.raises(ValueError, match=r"1 of 2 ids are not in this archive of 60 tiles, 'tile_0003' for one"):
        archive.rows_of(["tile_0003", "tile_0004"])


def test_an_archive_from_before_places_takes_more_tiles(archive, dataset):
    before = archive.tiles.drop_columns(["longitude", "latitude", "bbox", "grid_cell"])
    old = Archive(before, archive.vectors, archive.identity, model=archive._model, processor=archive._processor)
    old.add(make_dataset(1, first=900, seed=9), progress=False)
    assert old.tiles.column_names == before.column_names
    assert len(old) == TILES + 1


def test_a_place_filter_counts_the_tiles_without_a_place(archive):
    pytest.importorskip("shapely", reason="pip install shapely")
    hits = archive.search("tile_0003", sensor="s1", filter="not near(13.5, 48.2, 10)")
    assert len(hits.ids[0]) == 0
    assert hits.notes[0] == (
        f"Of {TILES} of {TILES} tiles the place is not known: no filter by place finds them, nor its negation."
    )


def test_building_leaves_nan_metadata_unknown_and_pixels_out(built):
    own = ["id", "labels", "country", "season", "date_s2", "elevation"]
    assert built.tiles.column_names == [*own, "longitude", "latitude", "bbox", "grid_cell"]
    assert built.tiles.column("elevation").null_count == len([row for row in range(TILES) if row % 7 == 3])
