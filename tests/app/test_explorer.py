import csv
import json
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from explorers import TILES, make_archive

from csmae_hf.app.cards import gallery, header, make_cards, marks, message, query_panel, results_map, status_of
from csmae_hf.app.downloads import write_downloads
from csmae_hf.app.explorer import Answer, Explorer
from csmae_hf.app.opening import open_explorer
from csmae_hf.app.state import Search, Session
from csmae_hf.app.tile_pictures import composites_of
from csmae_hf.app.why import why_panel
from csmae_hf.archive.queries import embed_images

pytest.importorskip("rasterio")


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    return open_explorer(str(make_archive(tmp_path_factory.mktemp("explorer"))))


@pytest.fixture(scope="module")
def search(explorer):
    return replace(explorer.begin(), tile=explorer.archive.ids[3], k=8)


def test_a_page_begins_across_sensors(explorer):
    begin = explorer.begin()
    assert (begin.sensor, begin.archive_sensor) == ("s1", "s2")
    assert not begin.has_query


@pytest.mark.parametrize(("sensor", "target"), [("s1", "s1"), ("s1", "s2"), ("s2", "s1"), ("s2", "s2")])
def test_answers_are_those_of_the_archive(explorer, search, sensor, target):
    answer = explorer.search(replace(search, sensor=sensor, archive_sensor=target))
    vectors = {name: part[:].double() for name, part in explorer.archive.vectors.items()}
    scores = vectors[target] @ vectors[sensor][3]
    scores[3] = -2
    best = scores.argsort(descending=True)[:8]
    cards = make_cards(answer)
    assert [card.tile for card in cards] == [explorer.archive.ids[row] for row in best]
    assert [card.score for card in cards] == pytest.approx(scores[best].tolist(), abs=1e-6)


def test_cards_say_what_is_shared_how_far_and_when(explorer, search):
    answer = explorer.search(search)
    query = explorer.metadata(search.tile)
    for card in make_cards(answer):
        tile = explorer.metadata(card.tile)
        assert {label for label, shared in card.labels if shared} == set(query["labels"]) & set(tile["labels"])
        assert card.hit is bool(set(query["labels"]) & set(tile["labels"]))
        assert card.facts[:2] == (tile["date_s2"].date().isoformat(), tile["country"])
        assert card.kilometres is not None


@pytest.mark.parametrize(
    ("found", "asked", "hit"),
    [(["Pastures"], None, None), (None, ["Pastures"], None), (["a"], ["b"], False), (["a", "b"], ["b"], True)],
)
def test_neither_hit_nor_miss_where_labels_are_not_known(explorer, search, found, asked, hit):
    answer = explorer.search(search)
    tiles = pa.table({"id": ["a"], "labels": pa.array([found], pa.list_(pa.string()))})
    hits = replace(answer.hits, scores=np.ones((1, 1), np.float32), rows=np.zeros((1, 1), np.int64), tiles=tiles)
    (card,) = make_cards(Answer(hits, {"id": "q", "labels": asked}, 0.0))
    assert card.hit is hit
    assert card.labels == tuple((label, label in (asked or ())) for label in sorted(found or (), reverse=True))


def test_who_marks_and_questions_a_result_searches_and_embeds_once(explorer, search, monkeypatch):
    page = pytest.importorskip("csmae_hf.app.page").Page(Explorer(explorer.archive, explorer.dataset))
    searched, embedded = [], []
    for calls, owner, name in ((searched, explorer.archive, "search"), (embedded, page.explorer, "embed_upload")):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, f=original, c=calls, **more: c.append(given) or f(*given, **more)
        )
    embed = embed_images(*explorer.archive.load_model(), [explorer.pictures.bands(search.tile, "s1")], "s1", ["query"])[
        0
    ]
    uploads = {"s1": explorer.pictures.bands(search.tile, "s1")}
    for asked, brought in ((search, {}), (search.by_upload("mine.tif", embed.tolist(), "s1"), uploads)):
        searched.clear()
        values = [asked.sensor, asked.archive_sensor, asked.tile, asked.k, False, ""]
        values += [None] * sum(map(len, page.picked.values()))
        changes = page._search(Session(asked, asked), brought, *values)
        session = changes[page.session]
        tile = make_cards(page.explorer.search(session.shown))[2].tile
        event = SimpleNamespace(action="like", tile=tile)
        liked = page._act(event, session, brought, *values)
        assert set(liked) == {page.session, page.marks, page.gallery}
        assert tile in liked[page.session].current.like
        event.action = "why"
        assert tile in page._act(event, liked[page.session], brought, *values)[page.why]
        assert len(searched) == 1
    assert len(embedded) == 1, "the upload, by the search that was asked for"
    again = liked[page.session]
    page._show(again.searched(again.current), uploads)
    assert len(searched) == 2, "moved by what is liked it is another search"


def test_an_upload_finds_what_its_tile_would_and_a_saved_search_repeats_it(explorer, search):
    bands = explorer.pictures.bands(search.tile, "s1")
    embed = explorer.embed_upload(bands, "s1", "mine.tif")
    uploaded = replace(search.by_upload("mine.tif", embed, "s1"), include_self=True)
    again = Search.from_json(uploaded.to_json())
    expected = explorer.search(replace(search, include_self=True))
    found = explorer.search(again)
    assert found.hits.ids == expected.hits.ids


def test_unknown_tiles_and_sensors_are_named(explorer, search):
    with pytest.raises(ValueError, match="nobody"):
        explorer.search(replace(search, tile="nobody"))
    with pytest.raises(ValueError, match="no sensor 's9'"):
        explorer.completed(replace(search, sensor="s9"))
    with pytest.raises(ValueError, match="no embeds of 's9'"):
        explorer.completed(replace(search, archive_sensor="s9"))


def test_every_tile_is_stretched_alike(explorer):
    tile = explorer.archive.ids[0]
    bands = explorer.pictures.bands(tile, "s2")
    brighter = {band: pixels * 2 for band, pixels in bands.items()}
    for plain, bright in zip(
        explorer.pictures.paint(bands, "s2"), explorer.pictures.paint(brighter, "s2"), strict=True
    ):
        assert bright.mean() > plain.mean() + 0.02  # its own percentiles would have made them equal
    red = explorer.pictures.paint(bands, "s2")[1][..., 0]
    infrared = np.asarray(bands["B08"], float)
    assert np.corrcoef(red.ravel(), infrared.ravel())[0, 1] > 0.9


def test_composites_follow_the_bands():
    assert [way.name for way in composites_of("s2", ["B02", "B03", "B04"])] == ["true colour"]
    assert [way.name for way in composites_of("radar", ["VH", "VV"])] == ["VV / VH / ratio"]
    assert [way.name for way in composites_of("thermal", ["T1"])] == ["first bands"]


def test_hits_and_misses_are_told_by_sign_as_well_as_colour(explorer, search):
    answer = explorer.search(search)
    cards = make_cards(answer)
    page = gallery(explorer, Session(search, search), cards)
    assert page.count('class="card hit"') == page.count("✓</span> shares ") == sum(card.hit for card in cards)
    assert page.count('class="card miss"') == page.count("✗</span> shares none")
    assert page.count("<img") == 3 * len(cards)  # both sensors of each
    assert f"{len(cards)} results out of {TILES} tiles, exact search" in status_of(answer, cards)
    assert f"{sum(card.hit for card in cards)} of {len(cards)} share a label" in status_of(answer, cards)


@pytest.mark.parametrize("where", ["", "season = 'Winter'", "id = 'nothing'"])
@pytest.mark.parametrize("include_self", [False, True])
def test_beside_the_share_of_hits_stands_that_of_a_random_order(explorer, search, where, include_self):
    search = replace(search, where=where, include_self=include_self)
    answer = explorer.search(search)
    query = explorer.metadata(search.tile)
    found = [
        bool({*tile["labels"]} & {*query["labels"]})
        for tile in explorer.archive.tiles.to_pylist()
        if tile["labels"]
        and (include_self or tile["id"] != query["id"])
        and (not where or (tile["season"] == "Winter" and "Winter" in where))
    ]
    assert answer.by_chance == (np.mean(found) if found else None)
    cards = make_cards(answer)
    said = f"; in a random order {np.mean(found or [0]) * len(cards):.1f} of {len(cards)} would."
    assert (said in status_of(answer, cards)) is bool(cards)


def test_a_saved_search_by_an_image_is_of_one_model(explorer, search, tmp_path):
    uploaded = search.by_upload("mine.tif", explorer.archive.vectors["s1"][:1][0].tolist(), "s1")
    write_downloads(explorer.archive, uploaded, None, tmp_path)
    text, own = (tmp_path / "search.json").read_text(), explorer.archive.identity.fingerprint
    assert Search.from_json(text, own) == uploaded
    with pytest.raises(ValueError, match=r"its image mine\.tif was embedded by another model"):
        Search.from_json(text, replace(explorer.archive.identity, processor="x").fingerprint)
    with pytest.raises(ValueError, match="embedded by an unknown model"):
        Search.from_json(uploaded.to_json(), own)
    assert Search.from_json(search.to_json(), own) == search, "without an image it is of any archive"


def test_marks_are_shown_and_wait(explorer, search):
    session = Session().searched(search)
    liked = session.marked(explorer.archive.ids[5], "like")
    assert "1 liked" in marks(explorer, liked)
    assert "Search again" in marks(explorer, liked)
    assert "Search again" not in marks(explorer, liked.searched(liked.current))


def test_the_why_panel_has_both_maps_and_the_reconstruction_beside_the_truth(explorer, search):
    result = explorer.search(search).hits.ids[0][0]
    page = why_panel(explorer, search, result, {})
    assert f"Similarity {explorer.search(search).hits.scores[0, 0]:.3f}." in page
    assert page.count("data-patch=") == 2 * 64
    assert page.count("predicted from S1") == 2 * 2  # picture and caption of true and false colour
    assert page.count(", true<") == 2
    matrix = json.loads(page.split('data-matrix="')[1].split('"')[0])
    assert np.shape(matrix) == (64, 64)


def test_a_model_without_decoders_still_compares_patches(explorer, search):
    plain = Explorer(explorer.archive, explorer.dataset)
    plain._reconstructor = ValueError("This model was saved without its decoders.")
    page = why_panel(plain, search, explorer.archive.ids[9], {})
    assert "without its decoders" in page
    assert page.count("data-patch=") == 2 * 64


def test_without_tiles_and_model_everything_else_works(explorer, search, monkeypatch):
    def missing():
        raise FileNotFoundError("no model here")

    monkeypatch.setattr(explorer.archive, "load_model", missing)
    bare = Explorer(explorer.archive)
    answer = bare.search(search)
    page = gallery(bare, Session(search, search), make_cards(answer))
    assert "<img" not in page
    assert "not at hand" in header(bare)
    assert "no pixels" in why_panel(bare, search, answer.hits.ids[0][0], {})


def test_what_a_stranger_types_stays_text(explorer, search):
    evil = "<script>alert(1)</script>${1}{{2}}"
    for page in (message(evil, "error"), query_panel(explorer, replace(search, where=evil), {})):
        assert "<script" not in page
        assert "${" not in page
        assert "{{" not in page


def test_the_map_has_the_query_and_every_result(explorer, search):
    answer = explorer.search(search)
    page = results_map(explorer, answer, make_cards(answer))
    assert page.count("data-tile=") == 1 + search.k


def test_files_hold_the_search_its_results_and_what_was_collected(explorer, search, tmp_path):
    ids = explorer.archive.ids
    collected = search.judged(ids[7], "like").judged(ids[5], "like")
    hits = explorer.search(search).hits
    files = {path.name: path for path in write_downloads(explorer.archive, collected, hits, tmp_path / "out")}
    assert Search.from_json(files["search.json"].read_text()) == collected
    geo = json.loads(files["results.geojson"].read_text())
    assert [feature["properties"]["id"] for feature in geo["features"]] == hits.ids[0]
    with files["collected.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [ids[7], ids[5]]
    assert rows[0]["labels"] == "; ".join(explorer.metadata(ids[7])["labels"])
    with zipfile.ZipFile(files["collected_dataset.zip"]) as packed:
        packed.extractall(tmp_path / "dataset")
    dataset = datasets.load_from_disk(str(tmp_path / "dataset"))
    assert dataset["id"][:] == [ids[7], ids[5]]
    assert [path.name for path in write_downloads(explorer.archive, Search(), None, tmp_path / "none")] == [
        "search.json"
    ]


def test_the_projection_is_coloured_by_whatever_there_is(explorer):
    choices = explorer.colorings()
    assert {"sensor", "country", "season"} <= set(choices)
    label = next(choice for choice in choices if choice.startswith("labels: "))
    for choice in ("sensor", "country", label):
        page = explorer.draw_projection(choice)
        assert page.count("h.1") == 2 * TILES
    assert "others" in explorer.draw_projection(label)


def test_examples_are_tiles_and_change(explorer):
    assert set(explorer.examples(5, 0)) <= set(explorer.archive.ids)
    assert explorer.examples(5, 0) != explorer.examples(5, 1)
    assert torch.is_tensor(explorer.archive.vectors["s1"][:2])
