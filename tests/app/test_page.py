"""The page in a real browser, served by a real process."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from explorers import make_archive
from served import Served, browser, outside

from csmae_hf.data.load import load_data
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run import retrieve

pytest.importorskip("gradio", reason="pip install gradio")
rasterio = pytest.importorskip("rasterio")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]

WAIT = 100_000
SHOTS = os.environ.get("CSMAE_SCREENSHOTS")
"""Where to keep the screenshots, for whoever wants to look at them."""

SHOWN = os.environ.get("CSMAE_ARCHIVE")
"""Another archive to show on them: `-k readable` makes the picture of the documentation."""


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


def evaluated(archive):
    """The archive, with an evaluation of its model beside it."""
    folder = archive.parent
    options = {"output_dir": str(folder / "results"), "k": 3, "pictures": 0, "resamples": 0, "alignment": "none"}
    retrieve([str(folder / "model")], RetrievalOptions(data=str(folder / "tiles"), **options))
    return archive


@pytest.fixture(scope="module")
def served(chromium, folder):
    started = Served(Path(SHOWN) if SHOWN else evaluated(make_archive(folder)))
    yield started
    started.kill()


@pytest.fixture(scope="module")
def tiles(served, folder):
    return load_data(str(folder / "tiles"), "all")


SETTLED = """() => new Promise(done => {
    let last = performance.now();
    const watcher = new MutationObserver(() => { last = performance.now(); });
    watcher.observe(document.body, {subtree: true, childList: true, characterData: true});
    const look = () => performance.now() - last > 300 ? (watcher.disconnect(), done()) : setTimeout(look, 50);
    look();
})"""
"""The parts of a page are drawn one after another: resolves when nothing has changed for a while."""


class Visitor:
    """A person at the page, who looks at it when it has come to rest."""

    def __init__(self, chromium, served, *, width=1600, link=""):
        self.context = chromium.new_context(viewport={"width": width, "height": 1000}, accept_downloads=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.requests, self.errors = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(served.address + link)
        self.page.wait_for_selector("#examples button")

    def see(self, selector, text=None):
        self.page.locator(selector, has_text=text).first.wait_for()
        self.page.evaluate(SETTLED)

    def ids(self):
        # at once: cards that are asked one by one may be replaced meanwhile
        return self.page.locator("#gallery .card").evaluate_all("cards => cards.map(card => card.dataset.tile)")

    def query(self, tile):
        self.page.get_by_label("Id of the query's tile").fill(tile)
        self.page.get_by_role("button", name="Search", exact=True).click()
        self.see("#query .id", tile)
        self.see("#gallery .card")

    def open(self, section):
        self.page.get_by_role("button", name=section).click()

    def card(self, rank):
        return self.page.locator(f"#card-{rank}")

    def shot(self, name):
        path = Path(SHOTS or "/nonexistent") / f"{name}.png"
        image = self.page.screenshot(full_page=True, **({"path": path} if SHOTS else {}))
        assert len(image) > 20_000  # an empty page has less


@pytest.fixture
def visitor(chromium, served):
    person = Visitor(chromium, served)
    yield person
    assert person.errors == []
    assert outside(person.requests, served.address) == []
    person.context.close()


def test_each_direction_is_asked_and_answered(visitor, tiles):
    tile = tiles[3]["id"]
    visitor.query(tile)
    answers = {}
    for sensor in ("S1", "S2"):
        for target in ("S1", "S2"):
            visitor.page.locator("#sensor").get_by_label(sensor, exact=True).check()
            visitor.page.locator("#archive-sensor").get_by_label(target, exact=True).check()
            visitor.see("#query .sensors", f"{sensor} → {target}")
            answers[sensor, target] = visitor.ids()
            shown = visitor.card(1).locator("figcaption:visible").all_inner_texts()
            assert all(words.startswith(target) for words in shown)
    assert all(len(ids) == 12 and tile not in ids for ids in answers.values())
    assert len({tuple(ids) for ids in answers.values()}) == 4
    visitor.card(1).get_by_role("button", name="Both sensors").click()
    assert visitor.card(1).locator("figcaption:visible").count() == 3
    assert "sensor=s2" in visitor.page.url


def test_filters_are_picked_and_typed(visitor, tiles):
    visitor.query(tiles[3]["id"])
    visitor.open("Filter")
    visitor.page.get_by_label("Season").click()
    visitor.page.get_by_role("option", name="Summer").click()
    visitor.page.get_by_label("And, typed").fill("country != 'Austria'")
    visitor.page.get_by_role("button", name="Search", exact=True).click()
    visitor.see("#query .quiet", "season in ('Summer') and (country != 'Austria')")
    facts = visitor.page.locator("#gallery .facts").all_inner_texts()
    assert facts
    assert all("Summer" in words and "Austria" not in words for words in facts)
    before = visitor.ids()
    visitor.page.get_by_label("And, typed").fill("contry = 'Austria'")
    visitor.page.get_by_role("button", name="Search", exact=True).click()
    visitor.see("#status [role=alert]", "did you mean country?")
    assert visitor.ids() == before  # a mistake costs nothing


def test_like_search_again_undo_and_take_away(visitor, tiles, tmp_path):
    visitor.query(tiles[3]["id"])
    first = visitor.ids()
    visitor.page.get_by_role("button", name="Like result 3", exact=True).click()
    visitor.see('#card-3 .like[aria-pressed="true"]')
    assert visitor.page.evaluate("document.activeElement.dataset.tile") == first[2]  # the focus stays where it was
    visitor.page.get_by_role("button", name="Unlike result 1", exact=True).click()
    visitor.see("#marks", "1 liked, 1 not liked")
    visitor.page.get_by_role("button", name="Search again").click()
    visitor.see("#query .quiet", "moved by 1 liked and 1 not liked")
    assert not set(visitor.ids()) & {first[0], first[2]}
    link = visitor.page.url
    assert f"like={first[2]}" in link
    visitor.open("Share, repeat, export")
    visitor.page.get_by_role("button", name="Make files to take away").click()
    saved = {}
    for name in ("collected.csv", "results.geojson", "search.json", "collected_dataset.zip"):
        with visitor.page.expect_download() as download:
            visitor.page.locator("#exported").locator(f'a[download="{name}"]').first.click()
        saved[name] = tmp_path / name
        download.value.save_as(saved[name])
    assert first[2] in saved["collected.csv"].read_text()
    assert len(json.loads(saved["results.geojson"].read_text())["features"]) == 12
    for marks in ("1 liked, 1 not liked", "1 liked, 0 not liked", "Like or unlike results"):
        visitor.page.get_by_role("button", name="Undo").click()
        visitor.page.locator("#query .quiet", has_text="moved by").wait_for(state="detached")
        visitor.see("#marks", marks)
    assert visitor.ids() == first


def test_a_link_and_a_file_repeat_a_search_after_a_restart(chromium, served, folder, tiles, tmp_path):
    one = Visitor(chromium, served)
    one.query(tiles[5]["id"])
    one.page.get_by_role("button", name="Like result 2", exact=True).click()
    one.see("#marks", "1 liked")
    one.page.get_by_role("button", name="Search again").click()
    one.see("#query .quiet", "moved by 1 liked")
    expected, link = one.ids(), one.page.url.partition("?")[2]
    one.open("Share, repeat, export")
    one.page.get_by_role("button", name="Make files to take away").click()
    with one.page.expect_download() as download:
        one.page.locator('#exported a[download="search.json"]').first.click()
    download.value.save_as(tmp_path / "search.json")
    served.kill()
    again = Served(folder / "archive", port=served.port)
    served.process, served.proxy, served.said = again.process, again.proxy, again.said
    by_link = Visitor(chromium, served, link=f"?{link}")
    by_link.see("#gallery .card")
    assert by_link.ids() == expected
    by_file = Visitor(chromium, served)
    by_file.open("Share, repeat, export")
    by_file.page.locator("#saved input[type=file]").set_input_files(tmp_path / "search.json")
    by_file.see("#gallery .card")
    assert by_file.ids() == expected
    for person in (one, by_link, by_file):
        person.context.close()


def write_tiff(path, bands, *, named=True):
    pixels = np.stack(list(bands.values()))
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], dtype=pixels.dtype
    ) as file:
        file.write(pixels)
        for number, name in enumerate(bands if named else (), start=1):
            file.set_band_description(number, name)
    return path


def in_one_size(bands):
    """All bands of 120 x 120 pixels, so that one file holds them."""
    return {name: np.kron(pixels, np.ones((120 // len(pixels),) * 2, pixels.dtype)) for name, pixels in bands.items()}


class Uploads:
    """A person who brings files, and looks at what is found by them."""

    def __init__(self, visitor):
        self.visitor, self.page = visitor, visitor.page
        visitor.open("Bring an image")

    def bring(self, sensor, *files):
        box = self.page.locator(f"#upload-{sensor}")
        if box.get_by_label(re.compile("Clear|Remove")).count():
            box.get_by_label(re.compile("Clear|Remove")).first.click()
        box.locator("input[type=file]").set_input_files(files)

    def choose_unit(self, sensor, name):
        self.page.locator(f"#unit-{sensor} input").click()
        self.page.get_by_role("option", name=name, exact=True).click()

    def answer(self, name):
        """Ids and scores of the results by a file."""
        self.visitor.see("#query .id", name)
        self.visitor.see("#gallery .card")
        return self.visitor.ids(), self.page.locator("#gallery .score").all_inner_texts()

    def button(self, name):
        self.page.locator("#status").get_by_role("button", name=name).click()


DN_1000 = "digital numbers with the offset of processing baseline 04.00, reflectance x 10000 + 1000"


def test_the_unit_of_an_image_is_chosen(visitor, tiles, tmp_path):
    radar, optical = dict(tiles[8]["s1"].items()), in_one_size(tiles[9]["s2"])
    person = Uploads(visitor)
    person.bring("s1", write_tiff(tmp_path / "db.tif", radar))
    expected = person.answer("db.tif")
    person.choose_unit("s1", "backscatter in linear power")  # read again, and wrong
    visitor.see("#status [role=alert]", "linear power was expected")
    person.bring("s1", write_tiff(tmp_path / "power.tif", {name: 10 ** (p / 10) for name, p in radar.items()}))
    assert person.answer("power.tif") == expected
    person.choose_unit("s1", "as the file says")
    visitor.see("#status [role=alert]", "choose “backscatter in linear power”")
    person.bring("s2", write_tiff(tmp_path / "dn.tif", optical))
    expected = person.answer("dn.tif")
    person.choose_unit("s2", DN_1000)
    visitor.see("#status [role=alert]", "contradict the offset")
    person.bring("s2", write_tiff(tmp_path / "offset.tif", {name: p + 1000 for name, p in optical.items()}))
    assert person.answer("offset.tif") == expected


def test_what_the_page_offers_converts_and_cuts(visitor, tiles, tmp_path):
    radar, optical = dict(tiles[8]["s1"].items()), in_one_size(tiles[9]["s2"])
    person = Uploads(visitor)
    person.bring("s1", write_tiff(tmp_path / "db.tif", radar))
    expected = person.answer("db.tif")
    framed = {name: np.pad(10 ** (p / 10), 40, mode="edge") for name, p in radar.items()}
    person.bring("s1", write_tiff(tmp_path / "large.tif", framed))
    visitor.see("#status [role=alert]", "200 x 200 pixels")
    person.button("Take the tile in its middle")
    visitor.see("#status [role=alert]", "linear power")
    visitor.shot("offered")
    person.button("Convert it from backscatter in linear power")
    assert person.answer("large.tif") == expected  # cut and converted: the first choice was kept
    visitor.see("#status", "middle, 120 x 120 pixels of 10 m, of 200 x 200")
    assert visitor.page.locator("#unit-s1 input").input_value() == "backscatter in linear power"
    person.bring("s2", write_tiff(tmp_path / "dn.tif", optical))
    expected = person.answer("dn.tif")
    person.bring("s2", write_tiff(tmp_path / "offset.tif", {name: p + 1000 for name, p in optical.items()}))
    person.button(f"Convert it from {DN_1000}")
    assert person.answer("offset.tif") == expected
    visitor.page.get_by_role("button", name="Why result 1?").click()
    visitor.see("#why svg.patches")


def test_the_order_of_unnamed_bands_is_typed(visitor, tiles, tmp_path):
    radar, optical = dict(tiles[8]["s1"].items()), in_one_size(tiles[9]["s2"])
    person = Uploads(visitor)
    for sensor, bands in (("s1", radar), ("s2", optical)):
        person.bring(sensor, write_tiff(tmp_path / f"named_{sensor}.tif", bands))
        expected = person.answer(f"named_{sensor}.tif")
        turned = dict(reversed(bands.items()))
        person.bring(sensor, write_tiff(tmp_path / f"turned_{sensor}.tif", turned, named=False))
        visitor.see("#status [role=alert]", "into the field for its bands")
        visitor.page.locator(f"#bands-{sensor} :is(input, textarea)").fill(", ".join(turned))
        visitor.page.keyboard.press("Enter")
        assert person.answer(f"turned_{sensor}.tif") == expected
        assert visitor.page.locator("#status [role=alert]").count() == 0


def test_an_image_of_each_sensor_is_brought_and_found(visitor, tiles, tmp_path):
    tile = tiles[8]
    radar = write_tiff(tmp_path / "radar.tif", dict(tile["s1"].items()))
    optical = [write_tiff(tmp_path / f"optical_{band}.tif", {band: layer}) for band, layer in tile["s2"].items()]
    visitor.open("Bring an image")
    visitor.page.locator("#upload-s1 input[type=file]").set_input_files(radar)
    visitor.see("#query .id", "radar.tif")
    visitor.see("#gallery .card")
    visitor.page.locator("#archive-sensor").get_by_label("S1", exact=True).check()
    visitor.see("#query .sensors", "S1 → S1")
    assert visitor.ids()[0] == tile["id"]
    visitor.page.locator("#upload-s2 input[type=file]").set_input_files(optical)
    visitor.see("#query .sensors", "S2 → S1")
    visitor.page.locator("#archive-sensor").get_by_label("S2", exact=True).check()
    visitor.see("#query .sensors", "S2 → S2")
    assert visitor.ids()[0] == tile["id"]
    # As a pair, each is the truth beside what the model makes of the other.
    visitor.page.get_by_role("button", name="Why result 1?").click()
    visitor.see("#why figcaption", "predicted from S2")
    visitor.see("#why figcaption", "VV / VH / ratio, true")


def bad_uploads(folder, tile):
    """Files that are no query, and what the page must say of each."""
    good = dict(tile["s1"].items())
    jpeg = folder / "photo.jpg"
    jpeg.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(2000))
    broken = write_tiff(folder / "broken.tif", good)
    broken.write_bytes(broken.read_bytes()[:90])
    return [
        (jpeg, "is no GeoTIFF"),
        (broken, "broken.tif"),
        (
            write_tiff(folder / "bands.tif", {"B02": good["VV"], "B03": good["VV"], "B04": good["VH"]}),
            "lacks VH, VV of S1",
        ),
        (write_tiff(folder / "units.tif", {name: 10 ** (layer / 10) for name, layer in good.items()}), "linear"),
        (write_tiff(folder / "size.tif", {name: layer[:50, :50] for name, layer in good.items()}), "50"),
        (
            write_tiff(folder / "bytes.tif", {name: (layer + 60).astype(np.uint8) for name, layer in good.items()}),
            "bytes.tif",
        ),
    ]


def test_wrong_images_are_answered_on_the_page_and_cost_nothing(visitor, tiles, tmp_path):
    visitor.query(tiles[3]["id"])
    before = visitor.ids()
    visitor.open("Bring an image")
    for number, (file, message) in enumerate(bad_uploads(tmp_path, tiles[8])):
        if number:
            visitor.page.locator("#upload-s1").get_by_label(re.compile("Clear|Remove")).first.click()
        visitor.page.locator("#upload-s1 input[type=file]").set_input_files(file)
        visitor.see("#status [role=alert]", message)
        said = visitor.page.locator("#status").inner_text()
        assert not re.search(r"/tmp|--|=\{|Python", said), said
    assert visitor.ids() == before
    visitor.shot("wrong")
    visitor.page.locator("#upload-s1").get_by_label(re.compile("Clear|Remove")).first.click()
    huge = tmp_path / "huge.tif"
    with huge.open("wb") as sparse:
        sparse.truncate(2 * 2**30)
    visitor.page.locator("#upload-s1 input[type=file]").set_input_files(huge)
    visitor.page.get_by_text(re.compile("exceeds|too large|maximum", re.I)).first.wait_for()
    visitor.query(tiles[4]["id"])  # it goes on


def test_two_visitors_do_not_disturb_each_other(chromium, served, tiles):
    one, two = Visitor(chromium, served), Visitor(chromium, served)
    one.query(tiles[3]["id"])
    two.query(tiles[30]["id"])
    one.page.get_by_role("button", name="Like result 1", exact=True).click()
    one.see("#marks", "1 liked")
    two.page.get_by_role("button", name="Unlike result 2", exact=True).click()
    two.see("#marks", "0 liked, 1 not liked")
    expected = {"one": one.ids(), "two": two.ids()}
    assert expected["one"] != expected["two"]
    one.page.get_by_role("button", name="Search again").click()
    one.see("#query .quiet", "1 liked and 0 not liked")
    assert two.ids() == expected["two"]
    one.context.close()
    two.context.close()


def test_map_and_gallery_are_linked_both_ways(visitor, tiles):
    visitor.query(tiles[3]["id"])
    visitor.see("#map .marker.query")
    tile = visitor.ids()[4]
    visitor.card(5).get_by_role("button", name="Show result 5 on the map").click()
    visitor.see("#map .marker.linked", "5")
    visitor.page.locator(f'#map .marker[data-tile="{visitor.ids()[6]}"]').focus()
    visitor.page.keyboard.press("Enter")
    assert visitor.page.evaluate("document.activeElement.id") == "card-7"
    visitor.see("#card-7.linked")
    assert tile == visitor.ids()[4]


def test_a_mouse_links_what_it_moves_over_and_not_what_scrolls_under_it(visitor, tiles):
    visitor.query(tiles[3]["id"])
    visitor.card(2).scroll_into_view_if_needed()
    visitor.card(2).hover()
    visitor.see("#card-2.linked")
    visitor.page.locator(f'#map .marker[data-tile="{visitor.ids()[2]}"]').focus()
    visitor.see("#card-3.linked")
    visitor.page.evaluate("window.scrollBy(0, 200)")
    visitor.page.wait_for_timeout(500)
    assert visitor.page.locator("#gallery .card.linked").evaluate_all("cards => cards.map(card => card.id)") == [
        "card-3"
    ]


def test_the_page_is_worked_by_keyboard_alone(visitor):
    reached = set()
    for _ in range(60):
        visitor.page.keyboard.press("Tab")
        label = visitor.page.evaluate(
            "() => { const e = document.activeElement; return e.getAttribute('aria-label') || e.innerText || e.id || e.type }"
        )
        reached.add(label)
        if label.startswith("Search by the S1 image"):
            break
    assert "Search" in reached
    visitor.page.keyboard.press("Enter")
    visitor.see("#gallery .card")
    visitor.page.locator("#card-1 [data-action=why]").focus()
    visitor.page.keyboard.press("Enter")
    visitor.see("#why svg.patches")
    visitor.page.locator("#why svg.patches").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        visitor.page.keyboard.press(key)
    visitor.see("#why .chosen[role=status]", "Patch at row 2, column 2 of the query")


def test_every_control_has_a_name(visitor, tiles):
    visitor.query(tiles[3]["id"])
    visitor.open("Filter")
    nameless = visitor.page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, [role=button], [tabindex="0"]')]
            .filter((e) => e.offsetParent && e.type !== 'file' && e.type !== 'hidden')
            .filter((e) => !(e.innerText?.trim() || e.textContent.trim() || e.getAttribute('aria-label') || e.title || e.labels?.length
                || e.getAttribute('aria-labelledby')))
            .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    assert all(image.get_attribute("alt") for image in visitor.page.locator("#gallery img").all())


@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_is_readable_narrow_and_wide(chromium, served, width):
    visitor = Visitor(chromium, served, width=width)
    visitor.page.locator("#examples button").nth(1).click()
    visitor.see("#gallery .card")
    visitor.shot(f"results_{width}")
    visitor.page.get_by_role("button", name="Why result 1?").click()
    visitor.see("#why svg.patches")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = visitor.page.evaluate(
        """() => [...document.querySelectorAll('.explorer p, .explorer li, .explorer button, .explorer figcaption')]
            .filter((e) => e.offsetParent).map((e) => parseFloat(getComputedStyle(e).fontSize))"""
    )
    assert min(sizes) >= 11
    columns = len(
        set(
            visitor.page.evaluate(
                "[...document.querySelectorAll('.card')].map((e) => Math.round(e.getBoundingClientRect().left))"
            )
        )
    )
    assert columns == (1 if width == 400 else 4)
    visitor.shot(f"search_{width}")
    visitor.page.get_by_role("tab", name="At a glance").click()
    visitor.see("#projection svg")
    visitor.see("#projection p", "Gap between the sensors")
    visitor.see("#evaluation tbody th", "S1 → S2")
    visitor.shot(f"glance_{width}")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    visitor.context.close()


def in_view(visitor, selector):
    """Wait until the top of something, and some of what is below it, can be seen without scrolling."""
    return visitor.page.wait_for_function(
        """(selector) => { const { top, left } = document.querySelector(selector).getBoundingClientRect();
            return top >= 0 && top < innerHeight - 30 && left >= 0 && left < innerWidth; }""",
        arg=selector,
    )


@pytest.mark.parametrize("width", [400, 1600])
def test_examples_and_results_are_in_view_at_once(chromium, served, width):
    visitor = Visitor(chromium, served, width=width)
    assert in_view(visitor, "#examples img")
    visitor.page.locator("#examples button").nth(1).click()
    visitor.see("#gallery .card")
    assert in_view(visitor, "#card-1 img")
    if width == 1600:
        assert in_view(visitor, "#examples img")
    visitor.open("Filter")
    visitor.page.get_by_role("button", name="Search", exact=True).scroll_into_view_if_needed()
    visitor.page.get_by_role("button", name="Search", exact=True).click()
    visitor.page.evaluate(SETTLED)
    assert in_view(visitor, "#card-1 img")
    visitor.page.get_by_label("And, typed").fill("contry = 'Austria'")
    visitor.page.get_by_role("button", name="Search", exact=True).click()
    visitor.see("#status [role=alert]", "did you mean country?")
    assert in_view(visitor, "#status [role=alert]")
    visitor.context.close()


@pytest.mark.parametrize("width", [400, 1600])
def test_an_answer_to_why_comes_into_view_and_is_closed(chromium, served, tiles, width):
    visitor = Visitor(chromium, served, width=width, link=f"?tile={tiles[3]['id']}")
    visitor.see("#gallery .card")
    for again in (False, True):
        visitor.page.get_by_role("button", name="Why result 9?").click()
        visitor.see("#why svg.patches")
        assert in_view(visitor, "#why h2")
        if again:
            visitor.page.keyboard.press("Escape")
        else:
            visitor.page.locator("#why").get_by_role("button", name="Close").click()
        visitor.page.locator("#why").wait_for(state="detached")
        assert in_view(visitor, "#card-9 [data-action=why]")
    visitor.context.close()


def test_the_browser_goes_back_and_forward_through_searches(visitor, tiles, tmp_path):
    visitor.query(tiles[3]["id"])
    first = visitor.ids()
    visitor.query(tiles[30]["id"])
    second = visitor.ids()
    visitor.page.locator("#archive-sensor").get_by_label("S1", exact=True).check()
    visitor.see("#query .sensors", "S1 → S1")
    visitor.page.go_back()
    visitor.see("#query .sensors", "S1 → S2")
    assert visitor.ids() == second
    visitor.page.go_back()
    visitor.see("#query .id", tiles[3]["id"])
    assert visitor.ids() == first
    visitor.page.go_forward()
    visitor.see("#query .id", tiles[30]["id"])
    assert visitor.ids() == second
    person = Uploads(visitor)
    person.bring("s1", write_tiff(tmp_path / "mine.tif", dict(tiles[8]["s1"].items())))
    mine = person.answer("mine.tif")
    visitor.query(tiles[3]["id"])
    visitor.page.go_back()
    assert person.answer("mine.tif") == mine
    for _ in range(3):
        visitor.page.go_back()
    visitor.see("#query h2", "Ask the archive")  # as it began
    assert visitor.ids() == []


def test_a_filter_of_a_link_is_the_one_that_is_asked_next(chromium, served, tiles):
    visitor = Visitor(chromium, served, link=f"?tile={tiles[3]['id']}&where=season+in+('Summer')")
    visitor.see("#gallery .card")
    before = visitor.ids()
    visitor.open("Filter")
    assert visitor.page.get_by_label("And, typed").input_value() == "season in ('Summer')"
    visitor.page.get_by_role("button", name="Search", exact=True).click()
    visitor.page.evaluate(SETTLED)
    assert visitor.ids() == before
    visitor.page.get_by_label("And, typed").fill("")
    visitor.page.get_by_role("button", name="Search", exact=True).click()
    visitor.page.wait_for_function("!location.search.includes('Summer')")
    visitor.context.close()


def test_a_picture_is_enlarged(visitor, tiles):
    visitor.query(tiles[3]["id"])
    visitor.page.locator("#card-2 .enlarge").first.click()
    picture = visitor.page.locator("dialog.enlarged img")
    assert picture.bounding_box()["width"] >= 500
    assert picture.get_attribute("src") == visitor.page.locator("#card-2 img").first.get_attribute("src")
    visitor.page.keyboard.press("Escape")
    picture.wait_for(state="detached")


def test_links_that_lie_are_answered_on_the_page(chromium, served):
    for link, message in (
        ("?tile=nobody", "nobody"),
        ("?tile=x&k=900", "link cannot be read"),
        ("?tile=x&sensor=s9", "no sensor 's9'"),
    ):
        visitor = Visitor(chromium, served, link=link)
        visitor.see("#status [role=alert]", message)
        visitor.context.close()


def test_only_this_machine_is_served_and_nobody_else_is_asked(served):
    assert served.listens_at() == ["0100007F"]
    assert served.proxy.heard == []
