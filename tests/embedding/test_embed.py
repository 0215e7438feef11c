"""The loop that embeds tiles: each tile judged as it would be without a broken one, and read once where none is broken."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from archives import make_dataset, make_model, make_processor

from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.embedding.embed import embed_dataset, embed_images, embed_tiles
from csmae_hf.embedding.encoder import load_encoder
from image_checks_csmae import SuspectImageError
from image_processing_csmae import CSMAEImageProcessor


class Means(torch.nn.Module):
    """Embeds are means of the image and of its first row."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(sensors={"s2": ["B02"]})
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, s2):
        return SimpleNamespace(embeds={"s2": torch.stack([s2.mean(dim=(1, 2, 3)), s2[:, 0, 0].mean(dim=1)], dim=1)})


class Neighbourly:
    """Refuses NaN, and dark images, but not where most images beside them are bright; all images of one size only."""

    def __init__(self):
        self.calls = []

    def __call__(self, s2, return_tensors=None):
        self.calls.append(len(s2))
        images = [np.asarray(image["B02"], dtype=np.float32) for image in s2]
        if len({image.shape for image in images}) > 1:
            raise ValueError("images differ in size")
        if np.isnan(images).any():
            raise ValueError("NaN")
        if np.mean([image.max() < 1 for image in images]) > 0.5:
            raise ValueError("too dark")
        return {"s2": torch.tensor(np.stack(images))[:, None, :2, :2]}


class Rows(list):
    column_names = ("id", "s2")

    def select_columns(self, names):
        return self


def make_rows(count, dark=(), broken=(), large=()):
    rows = Rows()
    for number in range(count):
        size = 6 if number in large else 4
        values = np.full((size, size), 0.5 if number in dark else 2.0 + number, dtype=np.float32)
        if number in broken:
            values[0, 0] = np.nan
        rows.append({"id": f"tile_{number}", "s2": {"B02": values}})
    return rows


@pytest.mark.parametrize("batch_size", [64, 500, 7])
def test_of_401_tiles_the_one_with_a_nan_is_put_aside_and_no_other(batch_size):
    dark = (3, 200, 202, 399)
    whole, none = embed_tiles(Means(), Neighbourly(), make_rows(401, dark), ["s2"], batch_size=batch_size)
    assert none == {}
    embeds, unreadable = embed_tiles(Means(), Neighbourly(), make_rows(401, dark, [201]), ["s2"], batch_size=batch_size)
    assert unreadable == {201: "tile tile_201: NaN"}
    np.testing.assert_array_equal(embeds["s2"], np.delete(whole["s2"], 201, axis=0))


def test_no_tile_is_looked_at_by_itself_where_all_can_be_read():
    processor = Neighbourly()
    embed_tiles(Means(), processor, make_rows(100, dark=[3]), ["s2"], batch_size=32)
    assert processor.calls == [32, 32, 32, 4]


def test_tiles_that_cannot_lie_in_one_batch_are_all_embedded():
    embeds, unreadable = embed_tiles(Means(), Neighbourly(), make_rows(200, large=[7]), ["s2"])
    assert unreadable == {}
    np.testing.assert_array_equal(embeds["s2"][:, 0], 2 + np.arange(200, dtype=np.float32))


def test_how_many_may_be_unreadable_is_for_the_caller_to_say():
    rows = make_rows(200, broken=[3, 5, 180])
    with pytest.raises(ValueError, match=r"3 or more of 200 tiles cannot be used, more than 1%.*tile_3"):
        embed_tiles(Means(), Neighbourly(), rows, ["s2"])
    embeds, unreadable = embed_tiles(Means(), Neighbourly(), rows, ["s2"], most_unreadable=0.02)
    assert (len(embeds["s2"]), list(unreadable)) == (197, [3, 5, 180])
    with pytest.raises(ValueError, match="tile tile_3: NaN"):
        embed_dataset(Means(), Neighbourly(), rows, "s2")
    with pytest.raises(ValueError, match="tile the third: NaN"):
        embed_images(Means(), Neighbourly(), [row["s2"] for row in rows[1:4]], "s2", ["a", "b", "the third"])


def test_all_sensors_of_a_tile_are_read_together_and_embedded_as_each_alone():
    model, processor, dataset = make_model(), make_processor(), make_dataset(20)
    together, _ = embed_tiles(model, processor, dataset, ["s1", "s2"], batch_size=8, num_workers=1)
    for sensor, embeds in together.items():
        alone = embed_dataset(model, processor, dataset, sensor, batch_size=8)
        np.testing.assert_array_equal(embeds, alone)


def test_an_encoder_is_loaded_with_its_processor_or_missed_by_name(tmp_path):
    model, processor = make_model(), make_processor()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded, same = load_encoder(str(tmp_path / "model"))
    assert torch.equal(next(loaded.parameters()), next(model.parameters()))
    assert same.to_dict() == processor.to_dict()
    with pytest.raises(FileNotFoundError, match=r"No model at nowhere: train one with run_pretraining\.py"):
        load_encoder("nowhere")


@pytest.fixture(scope="module")
def mixed(shared_data):
    """Ten real tiles of v1, four of which carry the offset."""
    tiles = load_bigearthnet(shared_data / "bigearthnet_mm_v1_lmdb").select(range(10))
    rows = Rows()
    for place in range(10):
        offset = np.uint16(1000 * (place in (1, 4, 6, 7)))
        rows.append(
            {"id": f"tile_{place}", "s2": {band: pixels + offset for band, pixels in tiles[place]["s2"].items()}}
        )
    return rows


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
@pytest.mark.parametrize("order", [range(10), (4, 1, 7, 6, 0, 2, 3, 5, 8, 9)])
def test_suspect_tiles_are_named_refused_left_out_or_taken(mixed, batch_size, order):
    model, processor = Means(), CSMAEImageProcessor(sensors={"s2": CSMAEImageProcessor().sensors["s2"]})
    rows = Rows(mixed[place] for place in order)
    bad = {place for place, row in enumerate(rows) if row["id"] in ("tile_1", "tile_4", "tile_6", "tile_7")}
    options = {"batch_size": batch_size, "progress": False}
    embeds, left = embed_tiles(model, processor, rows, ["s2"], most_unreadable=0.5, **options)
    assert set(left) == bad
    assert all("carries the offset of 1000" in reason for reason in left.values())
    taken, none = embed_tiles(model, processor, rows, ["s2"], suspect="accept", **options)
    assert (len(taken["s2"]), none) == (10, {})
    good = [place for place in range(10) if place not in bad]
    np.testing.assert_allclose(embeds["s2"], taken["s2"][good], atol=1e-5)
    with pytest.raises(SuspectImageError, match=r"carries the offset.*--suspect accept|carries the offset"):
        embed_tiles(model, processor, rows, ["s2"], most_unreadable=0.5, suspect="refuse", **options)
    with pytest.raises(
        ValueError, match=r"of 10 tiles cannot be used, more than 1%[\s\S]*--suspect accept[\s\S]*tile_"
    ):
        embed_tiles(model, processor, rows, ["s2"], **options)
    with pytest.raises(ValueError, match="suspect='leave': expected one of refuse, leave-out, accept"):
        embed_tiles(model, processor, rows, ["s2"], suspect="leave", **options)


def test_a_suspect_query_is_refused_as_the_archive_refuses_it(mixed):
    model, processor = Means(), CSMAEImageProcessor(sensors={"s2": CSMAEImageProcessor().sensors["s2"]})
    images = [row["s2"] for row in mixed[:3]]
    with pytest.raises(SuspectImageError, match=r"tile b: .*carries the offset"):
        embed_images(model, processor, images, "s2", ["a", "b", "c"])
    assert len(embed_images(model, processor, images, "s2", ["a", "b", "c"], suspect="accept")) == 3
