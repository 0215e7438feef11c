"""A tile's verdict is its own: whatever is wrong with it is seen alone and in any company, and nothing else is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from real_tiles import Tile, labelled_pairs, ssl4eo_images, terramesh_chips

from image_checks_csmae import SuspectImageError
from image_processing_csmae import BAND_MEAN, BAND_STD, CSMAEImageProcessor

S1, S2 = ["VH", "VV"], ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A"]
BANDS = {"s1": S1, "s2": S2}
PROCESSOR = CSMAEImageProcessor()
WITH_OFFSET = "433D_629L_3_1"


@pytest.fixture(scope="module")
def tiles(shared_data: Path) -> dict[str, list[Tile]]:
    """Every real tile that is as it should be, by sensor."""
    chips = terramesh_chips(shared_data)
    every = [*labelled_pairs(shared_data).values(), *ssl4eo_images(shared_data).values()]
    every += [chip for name, chip in chips.items() if name != WITH_OFFSET]
    return {
        sensor: [{band: tile[band] for band in bands} for tile in every if set(bands) <= set(tile)]
        for sensor, bands in BANDS.items()
    }


@pytest.fixture(scope="module")
def offset_chip(shared_data: Path) -> Tile:
    chip = terramesh_chips(shared_data)[WITH_OFFSET]
    return {band: chip[band] for band in S2}


def verdict(sensor: str, image: Any, **options: Any) -> str:
    """Why an image is refused; nothing if it is not."""
    try:
        PROCESSOR(**{sensor: image}, **options)
    except ValueError as error:
        return str(error)
    return ""


def missed(sensor: str, images: list[Any], message: str, **options: Any) -> list[tuple[int, str]]:
    """Images, by number, that are not refused with this message."""
    said = [verdict(sensor, image, **options) for image in images]
    return [(number, words) for number, words in enumerate(said) if message not in words]


def each_band(tile: Tile, change: Callable[[np.ndarray], np.ndarray]) -> Tile:
    return {band: change(pixels) for band, pixels in tile.items()}


def filled(tile: Tile, value: float, rows: slice, columns: slice, bands: list[str] | None = None) -> Tile:
    """The tile with an area, in pixels of 10 m, at one value."""
    result = {}
    for band, pixels in tile.items():
        factor = 120 // len(pixels)
        area = tuple(slice(side.start // factor, side.stop // factor) for side in (rows, columns))
        result[band] = pixels.copy()
        if bands is None or band in bands:
            result[band][area] = value
    return result


INSIDE = slice(40, 80)


# Signs that are certain


@pytest.mark.parametrize("offset", [1000, 500, 2000])
def test_integers_that_wrapped_are_refused(tiles: dict[str, list[Tile]], offset: int) -> None:
    wrapped = [each_band(tile, lambda pixels: pixels.astype(np.uint16) - np.uint16(offset)) for tile in tiles["s2"]]
    wrapped = [tile for tile in wrapped if max(pixels.max() for pixels in tile.values()) > 60_000]
    assert len(wrapped) > 100
    assert missed("s2", wrapped, "wrapped below 0") == []
    assert missed("s2", [each_band(tile, np.float32) for tile in wrapped], "wrapped below 0") == []
    assert missed("s2", wrapped[::5], "wrapped below 0", units={"s2": "dn"}) == []


@pytest.mark.parametrize("share", [1e-4, 0.004, 0.015])
@pytest.mark.parametrize("value", [1, 880])
def test_dark_pixels_do_not_hide_the_offset(offset_chip: Tile, share: float, value: int) -> None:
    rng = np.random.default_rng(0)
    dark = each_band(offset_chip, lambda pixels: np.where(rng.random(pixels.shape) < share, value, pixels).astype("u2"))
    dark["B12"][17, 31] = value
    assert "carries the offset of 1000" in verdict("s2", dark)


def test_dark_pixels_do_not_hide_an_offset_anywhere(shared_data: Path) -> None:
    pairs = [{band: tile[band] for band in S2} for tile in labelled_pairs(shared_data).values()]
    offset = [with_offset(tile) for tile in pairs]
    for tile in offset:
        tile["B12"][3, 4], tile["B02"][50, :20] = 880, 700
    assert missed("s2", offset, "carries the offset of 1000") == []


def test_zeros_in_linear_power_are_no_data(tiles: dict[str, list[Tile]]) -> None:
    linear = [each_band(tile, lambda pixels: np.float32(10) ** (pixels / 10)) for tile in tiles["s1"]]
    for tile in linear:
        tile["VV"][5, 6] = tile["VH"][5, 6] = tile["VH"][7, 8] = 0
    assert missed("s1", linear, "its 2 pixels at 0 are no-data", units={"s1": "linear"}) == []
    assert missed("s1", linear, "units={'s1': 'linear'} (--units s1=linear) would convert; but its 2 pixels at 0") == []


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_standardised_pixels_given_again_are_refused(tiles: dict[str, list[Tile]], sensor: str) -> None:
    once = [PROCESSOR(**{sensor: tile})[sensor] for tile in tiles[sensor]]
    assert len(once) >= 110
    noise = torch.Generator().manual_seed(0)
    for given in (
        once,
        [pixels[0] for pixels in once],
        [pixels.numpy() for pixels in once],
        [dict(zip(BANDS[sensor], pixels[0], strict=True)) for pixels in once],
        [pixels.bfloat16() for pixels in once],
        [pixels + 0.05 * torch.randn(pixels.shape, generator=noise) for pixels in once],
    ):
        assert missed(sensor, given, "standardised already") == []
    own = {"s1": "db", "s2": "dn"}[sensor]
    assert missed(sensor, once[::10], "standardised already", units={sensor: own}) == []
    assert missed(sensor, once[::10], "standardised already", suspect="accept") == []


@pytest.mark.parametrize("sensor", ["s1", "s2"])
def test_pixels_standardised_otherwise_are_refused(tiles: dict[str, list[Tile]], sensor: str) -> None:
    by_its_own = [
        each_band(tile, lambda pixels: ((pixels - pixels.mean()) / max(pixels.std(), 1e-6)).astype(np.float32))
        for tile in tiles[sensor]
        if all(pixels.std() > 0 for pixels in tile.values())
    ]
    assert len(by_its_own) >= 100
    assert [words for words in map(lambda tile: verdict(sensor, tile), by_its_own) if not words] == []  # noqa: C417
    assert missed(sensor, by_its_own, "standardised already") == []
    others = [
        {
            band: ((pixels - 1.04 * BAND_MEAN[band]) / (1.15 * BAND_STD[band])).astype(np.float32)
            for band, pixels in tile.items()
        }
        for tile in tiles[sensor]
    ]
    assert missed(sensor, others, "standardised already") == []


def test_percent_is_refused(tiles: dict[str, list[Tile]]) -> None:
    percent = [each_band(tile, lambda pixels: (pixels / 100).astype(np.float32)) for tile in tiles["s2"]]
    assert [number for number, tile in enumerate(percent) if not verdict("s2", tile)] == []
    bright = [
        tile
        for tile in percent
        if max(pixels.max() for pixels in tile.values()) > 2 and min(p.min() for p in tile.values()) >= 0
    ]
    assert len(bright) > 100
    assert missed("s2", bright, "percent") == []
    whole = [each_band(tile, lambda pixels: np.round(pixels).astype(np.int16)) for tile in bright]
    assert [number for number, tile in enumerate(whole) if not verdict("s2", tile)] == []


def test_exchanged_bytes_are_refused(tiles: dict[str, list[Tile]]) -> None:
    whole = [tile for tile in tiles["s2"] if tile["B02"].dtype == np.uint16]
    swapped = [each_band(tile, lambda pixels: pixels.byteswap()) for tile in whole]
    assert len(swapped) > 100
    assert missed("s2", swapped, "two bytes exchanged") == []
    assert missed("s2", [each_band(tile, np.float32) for tile in swapped], "two bytes exchanged") == []
    signed = [each_band(tile, lambda pixels: pixels.view(np.int16)) for tile in swapped]
    assert [number for number, tile in enumerate(signed) if not verdict("s2", tile)] == []
    radar = [each_band(tile, lambda pixels: np.float32(pixels).byteswap()) for tile in tiles["s1"]]
    assert [number for number, tile in enumerate(radar) if not verdict("s1", tile)] == []


def test_big_endian_arrays_are_read(tiles: dict[str, list[Tile]]) -> None:
    for sensor in BANDS:
        for tile in tiles[sensor][::10]:
            turned = each_band(tile, lambda pixels: pixels.astype(pixels.dtype.newbyteorder(">")))
            assert torch.equal(PROCESSOR(**{sensor: turned})[sensor], PROCESSOR(**{sensor: tile})[sensor])


def test_a_band_of_zeros_among_good_ones_is_refused(tiles: dict[str, list[Tile]]) -> None:
    for place, tile in enumerate(tiles["s2"]):
        name = S2[place % len(S2)]
        if tile[name].min() < tile[name].max():
            assert f"s2 band {name} of image 0 is 0 everywhere" in verdict(
                "s2", {**tile, name: np.zeros_like(tile[name])}
            )
    flat = [{**tile, "VV": np.full_like(tile["VV"], -12)} for tile in tiles["s1"]]
    assert missed("s1", flat, "s1 band VV of image 0 is -12 everywhere") == []


@pytest.mark.parametrize(
    ("one", "other"), [("VV", "VH"), ("B02", "B03"), ("B04", "B08"), ("B05", "B06"), ("B11", "B12")]
)
def test_the_same_pixels_as_two_bands_are_refused(tiles: dict[str, list[Tile]], one: str, other: str) -> None:
    sensor = "s1" if one == "VV" else "s2"
    twice = [
        {**tile, other: tile[one].copy()} for tile in tiles[sensor] if (tile[one] != np.median(tile[one])).mean() > 0.05
    ]
    assert len(twice) > 100
    assert missed(sensor, twice, "have the same pixels: one was given twice") == []


@pytest.mark.parametrize(
    ("sensor", "value"), [("s1", -99), ("s1", -50), ("s1", -20), ("s1", 0), ("s2", 1), ("s2", 32767), ("s2", 4000)]
)
@pytest.mark.parametrize("area", [(INSIDE, INSIDE), (slice(10, 16), slice(30, 42)), (slice(0, 8), slice(0, 120))])
def test_a_hole_of_one_value_is_refused(
    tiles: dict[str, list[Tile]], sensor: str, value: float, area: tuple[slice, slice]
) -> None:
    # 1 is what Sen2Cor gives in deep shadow: a hole of it is seen in bright surroundings only
    given = [
        tile for tile in tiles[sensor] if value != 1 or (tile["B08"].min() > 100 and tile["B08"][area].mean() > 1000)
    ]
    holes = [filled(tile, value, *area) for tile in given]
    assert len(holes) > 20
    assert missed(sensor, holes, "no-data") == []
    assert missed(sensor, holes[::10], "no-data", units={sensor: {"s1": "db", "s2": "dn"}[sensor]}) == []


def test_shadows_that_sen2cor_clips_at_1_are_no_holes(tiles: dict[str, list[Tile]]) -> None:
    clipped = [tile for tile in tiles["s2"] if all((tile[band] == 1).mean() > 0.05 for band in S2[:4])]
    assert clipped
    assert [verdict("s2", tile) for tile in clipped] == [""] * len(clipped)


def test_shadows_elsewhere_do_not_hide_a_hole_in_bright_ground(tiles: dict[str, list[Tile]]) -> None:
    place = slice(30, 42)
    bright = [tile for tile in tiles["s2"] if tile["B08"].min() > 100 and tile["B08"][place, place].mean() > 1000]
    clipped = []
    for tile in bright:
        dark = each_band(tile, lambda pixels: np.copy(pixels))
        for pixels in dark.values():  # deep shadow amid shadow along the southern edge
            factor = 120 // len(pixels)
            pixels[84 // factor :] = pixels[84 // factor :] % 97 + 100
            pixels[90 // factor : 114 // factor, 12 // factor : 108 // factor] = 1
        clipped.append(dark)
    assert [tile for tile in clipped if "no-data" in verdict("s2", tile)] == []
    assert missed("s2", [filled(tile, 1, place, place) for tile in clipped], "no-data") == []


@pytest.mark.parametrize(("counts", "said"), [({"B02": 1}, "1 pixel at"), ({"B02": 3, "B8A": 2}, "5 pixels at")])
def test_saturated_pixels_are_counted(tiles: dict[str, list[Tile]], counts: dict[str, int], said: str) -> None:
    tile = each_band(tiles["s2"][0], np.copy)
    for band, count in counts.items():
        tile[band].reshape(-1)[7 : 7 + count] = 65535
    where = ", ".join(f"{band} {count}" for band, count in counts.items())
    assert (
        f"s2 image 0 has {said} 65535, the end of the type: no-data. Crop or leave out such tiles ({where})"
        in verdict("s2", tile)
    )


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_judged_as_the_numbers_are(tiles: dict[str, list[Tile]], kind: str) -> None:
    for sensor, bands in BANDS.items():
        for tile in tiles[sensor]:
            half = {
                band: torch.from_numpy(np.float32(pixels)).to(getattr(torch, kind)) for band, pixels in tile.items()
            }
            expected = PROCESSOR(**{sensor: {band: pixels.float() for band, pixels in half.items()}})[sensor]
            assert torch.equal(PROCESSOR(**{sensor: half})[sensor], expected)
            if kind == "float16":
                arrays = {band: pixels.numpy() for band, pixels in half.items()}
                assert torch.equal(PROCESSOR(**{sensor: arrays})[sensor], expected)
            if sensor == "s1":
                stacked = torch.stack([half[band] for band in bands])
                assert torch.equal(PROCESSOR(s1=stacked)["s1"], expected)


@pytest.mark.parametrize(("value", "band"), [(500, "B05"), (37, "B02"), (10_000, "B12")])
def test_a_band_of_one_value_among_good_ones_is_refused(tiles: dict[str, list[Tile]], value: int, band: str) -> None:
    flat = [{**tile, band: np.full_like(tile[band], value)} for tile in tiles["s2"]]
    assert missed("s2", flat, f"band {band} of image 0 is {value} everywhere") == []
    reflectance = [each_band(tile, lambda pixels: pixels / np.float32(1e4)) for tile in flat[::10]]
    assert missed("s2", reflectance, "everywhere, where its other bands vary", units={"s2": "reflectance"}) == []


def test_a_band_repeated_to_the_size_of_another_is_the_same(tiles: dict[str, list[Tile]]) -> None:
    land = [tile for tile in tiles["s2"] if tile["B08"].mean() > 1000 and len(tile["B8A"]) == 60]
    twice = [{**tile, "B08": tile["B8A"].repeat(2, 0).repeat(2, 1)} for tile in land]
    assert len(twice) > 50
    assert missed("s2", twice, "bands B08 and B8A of image 0 have the same pixels") == []


# Guesses, alone and in any company


def is_land(tile: Tile) -> bool:
    visible, infrared = (max(tile[band].mean() for band in bands) for bands in (("B02", "B03", "B04"), ("B07", "B8A")))
    return bool(infrared > 1.6 * visible and infrared > 1500)


SCALES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "reflectance x 1000": (lambda pixels: (pixels / 10).astype("u2"), "like reflectance x 1000"),
    "reflectance x 65535": (
        lambda pixels: np.clip(pixels * 6.5535, 0, 60_000).astype("u2"),
        "like reflectance x 65535",
    ),
    "stretched to 8 bits": (lambda pixels: np.clip(pixels / 3000 * 255, 0, 255).astype("u2"), "8 bits"),
}


@pytest.mark.parametrize("scale", SCALES)
def test_land_in_another_scale_is_refused(tiles: dict[str, list[Tile]], scale: str) -> None:
    change, message = SCALES[scale]
    land = [each_band(tile, change) for tile in tiles["s2"] if is_land(tile)]
    assert len(land) > 70
    said = [verdict("s2", tile) for tile in land]
    assert said.count("") <= 1  # clouds over half of it
    assert np.mean([message in words for words in said]) > 0.9
    assert [verdict("s2", tile, suspect="accept") for tile in land[::20] if message in verdict("s2", tile)] != []


def test_bands_stretched_by_their_own_extremes_are_refused(tiles: dict[str, list[Tile]]) -> None:
    stretched = [
        each_band(tile, lambda p: ((p - p.min()) / max(float(p.max()) - p.min(), 1)).astype("f4"))
        for tile in tiles["s2"]
        if is_land(tile)
    ]
    said = "runs between the same two numbers in every band"
    others = missed("s2", stretched, said, units={"s2": "reflectance"})
    assert len(others) <= 2
    assert all("no-data" in words for _, words in others)


@pytest.mark.parametrize("least", [0, 1])
@pytest.mark.parametrize("band", ["B02", "B04", "B05", "B11"])
def test_a_band_that_is_empty_in_a_part_is_refused(tiles: dict[str, list[Tile]], band: str, least: int) -> None:
    land = [tile for tile in tiles["s2"] if is_land(tile)]
    for area in ((slice(0, 60), slice(0, 120)), (slice(0, 120), slice(30, 54))):
        half = [filled(tile, least, *area, bands=[band]) for tile in land]
        # but for few, parts of which lie in shadow that Sen2Cor clips at 1
        assert len(missed("s2", half, f"has a band {band} that stays at its least value in a part")) <= 4


def test_amplitude_and_shifted_decibels_are_refused(tiles: dict[str, list[Tile]]) -> None:
    """Over land; the amplitude of calm water is as bright as the power of land."""
    land = [tile for tile in tiles["s1"] if tile["VH"].mean() > -21]
    assert len(land) > 90
    amplitude = [each_band(tile, lambda pixels: np.float32(10) ** (pixels / 20)) for tile in land]
    assert missed("s1", amplitude, "it looks like amplitude, which has to be squared", units={"s1": "linear"}) == []
    assert missed("s1", amplitude, "Amplitude has to be squared before") == []
    shifted = [each_band(tile, lambda pixels: pixels + 12) for tile in land if tile["VH"].mean() > -18]
    assert missed("s1", shifted, "dB that were shifted or scaled") == []
    assert missed("s1", shifted[::10], "dB that were shifted or scaled", units={"s1": "db"}) == []


def with_offset(tile: Tile) -> Tile:
    return each_band(tile, lambda pixels: pixels + np.asarray(1000, pixels.dtype))


def test_the_offset_is_seen_over_plants_without_a_short_wave_band(tiles: dict[str, list[Tile]]) -> None:
    bands = ("B02", "B03", "B04", "B08")
    processor = CSMAEImageProcessor(sensors={"s2": list(bands)})
    four = [{band: tile[band] for band in bands} for tile in tiles["s2"]]
    for tile in four:  # snow, cloud and water among them
        processor(s2=tile)
    plants = [tile for tile in four if tile["B08"].mean() > 3 * tile["B04"].mean()]
    assert len(plants) > 60
    seen = 0
    for tile in plants:
        try:
            processor(s2=with_offset(tile))
        except SuspectImageError as error:
            seen += "carries the offset of 1000" in str(error)
    assert seen > 0.9 * len(plants)


def test_offset_tiles_among_others_are_named(tiles: dict[str, list[Tile]]) -> None:
    mixed = [with_offset(tile) if place in (1, 3, 4, 8) else tile for place, tile in enumerate(tiles["s2"][:10])]
    with pytest.raises(SuspectImageError, match=r"s2 image 1 has .* The same shows in images 3, 4 and 8\.") as caught:
        PROCESSOR(s2=mixed)
    assert "units={'s2': 'dn'} (--units s2=dn)" in str(caught.value)
    taken = PROCESSOR(s2=mixed, suspect="accept")["s2"]
    assert torch.equal(taken, PROCESSOR(s2=mixed, units={"s2": "dn"})["s2"])
    assert torch.equal(CSMAEImageProcessor(suspect="accept")(s2=mixed)["s2"], taken)


def test_a_unit_ends_the_guesses_of_the_unit_and_no_others(tiles: dict[str, list[Tile]]) -> None:
    tile = next(tile for tile in tiles["s1"] if tile["VV"].mean() > tile["VH"].mean() + 5)
    exchanged = {"VV": tile["VH"], "VH": tile["VV"]}
    for units in (None, {"s1": "db"}):
        with pytest.raises(
            SuspectImageError, match=r"they are exchanged.* take it by suspect='accept' \(--suspect accept\)"
        ):
            PROCESSOR(s1=exchanged, units=units)
    linear = each_band(exchanged, lambda pixels: np.float32(10) ** (pixels / 10))
    with pytest.raises(SuspectImageError, match="they are exchanged"):
        PROCESSOR(s1=linear, units={"s1": "linear"})
    assert PROCESSOR(s1=exchanged, suspect="accept")["s1"].isfinite().all()
    land = next(
        tile for tile in tiles["s2"] if tile["B8A"].mean() > 2000 > 700 > tile["B05"].mean() and len(tile["B05"]) == 60
    )
    other_order = {**land, "B07": land["B05"], "B05": land["B07"]}
    for change, unit in (
        (with_offset, "dn+1000"),
        (lambda t: each_band(t, lambda p: p / np.float32(1e4)), "reflectance"),
    ):
        with pytest.raises(SuspectImageError, match="the bands are in another order"):
            PROCESSOR(s2=change(other_order), units={"s2": unit})


def test_acceptance_ends_no_certain_sign(tiles: dict[str, list[Tile]]) -> None:
    for value in (np.nan, -9999, 65535):
        tile = {**tiles["s2"][0], "B02": np.float32(tiles["s2"][0]["B02"])}
        tile["B02"][:5] = value
        assert verdict("s2", tile, suspect="accept")
    with pytest.raises(ValueError, match="suspect='leave': expected one of 'refuse', 'accept'"):
        PROCESSOR(s2=tiles["s2"][0], suspect="leave")
    with pytest.raises(ValueError, match="suspect='no'"):
        CSMAEImageProcessor(suspect="no")


def coarse(tile: Tile) -> Tile:
    """The tile with a 10 m band interpolated from 60 m."""
    small = torch.from_numpy(np.float32(tile["B04"]))[None, None]
    small = F.interpolate(F.avg_pool2d(small, 6), size=(120, 120), mode="bicubic", align_corners=True)
    return {**tile, "B04": small.round().clamp(min=1)[0, 0].numpy().astype(np.uint16)}


def test_verdicts_are_the_same_in_any_company(tiles: dict[str, list[Tile]]) -> None:
    """Batches of 1, 2 and 32, and any order: the same tiles are refused, and the pixels of the others are equal bit by bit."""
    rng = np.random.default_rng(0)
    for sensor, wrong in (("s1", [lambda tile: {"VV": tile["VH"], "VH": tile["VV"]}]), ("s2", [with_offset, coarse])):
        native = [tile for tile in tiles[sensor] if sensor == "s1" or len(tile["B05"]) == 60][:96]
        images = [wrong[place % len(wrong)](tile) if rng.random() < 0.3 else tile for place, tile in enumerate(native)]
        alone = [verdict(sensor, image) for image in images]
        assert 0.1 < np.mean([bool(words) for words in alone]) < 0.5
        pixels = [
            None if words else PROCESSOR(**{sensor: image})[sensor][0]
            for image, words in zip(images, alone, strict=True)
        ]
        for size in (2, 3, 32):
            order = rng.permutation(len(images))
            for start in range(0, len(order), size):
                chosen = order[start : start + size].tolist()
                refused = {place for place, image in enumerate(chosen) if alone[image]}
                said = verdict(sensor, [images[image] for image in chosen])
                assert bool(said) == bool(refused)
                good = [image for image in chosen if not alone[image]]
                if good:
                    processed = PROCESSOR(**{sensor: [images[image] for image in good]})[sensor]
                    assert all(torch.equal(ours, pixels[image]) for ours, image in zip(processed, good, strict=True))


# Images that say their unit


class Said(dict[str, np.ndarray]):
    """Bands, and the unit that their file says."""

    def __init__(self, bands: Tile, unit: str | None):
        super().__init__(bands)
        self.unit = unit


def test_an_image_that_says_its_unit_is_believed(tiles: dict[str, list[Tile]], offset_chip: Tile) -> None:
    tile = tiles["s2"][0]
    reflectance = Said(each_band(tile, lambda pixels: (pixels / 10_000).astype(np.float32)), "reflectance")
    images = [tile, reflectance, Said(offset_chip, None), Said(offset_chip, "dn+1000"), Said(with_offset(tile), "dn")]
    with pytest.raises(SuspectImageError, match=r"s2 image 2 has .* carries the offset"):
        PROCESSOR(s2=images)
    del images[2]
    ours = PROCESSOR(s2=images)["s2"]
    expected = (
        [
            PROCESSOR(s2=tile)["s2"],
            PROCESSOR(s2=dict(reflectance), units={"s2": "reflectance"})["s2"],
            PROCESSOR(s2=offset_chip, units={"s2": "dn+1000"})["s2"],
            PROCESSOR(s2=with_offset(tile), units={"s2": "dn"})["s2"],
        ]
        if len(tile["B05"]) == 120
        else None
    )
    for place, image in enumerate(images):
        alone = PROCESSOR(s2=dict(image), units={"s2": getattr(image, "unit", None) or "dn"})["s2"][0]
        assert torch.equal(ours[place], alone)
    assert expected is None or torch.equal(ours, torch.cat(expected))


def test_a_processors_units_are_only_for_images_that_say_nothing(
    offset_chip: Tile, tiles: dict[str, list[Tile]]
) -> None:
    processor = CSMAEImageProcessor(units={"s2": "dn+1000"})
    tile = next(tile for tile in tiles["s2"] if len(tile["B05"]) == 120)
    ours = processor(s2=[Said(tile, "dn"), offset_chip])["s2"]
    assert torch.equal(ours[0], PROCESSOR(s2=tile)["s2"][0])
    assert torch.equal(ours[1], PROCESSOR(s2=offset_chip, units={"s2": "dn+1000"})["s2"][0])


def test_a_call_that_contradicts_an_image_is_refused(tiles: dict[str, list[Tile]], offset_chip: Tile) -> None:
    with pytest.raises(
        ValueError, match=r"s2 image 1 says that its unit is 'dn\+1000', and units=\{'s2': 'dn'\} .* was given"
    ):
        PROCESSOR(s2=[tiles["s2"][0], Said(offset_chip, "dn+1000")], units={"s2": "dn"})
    with pytest.raises(ValueError, match="s1 cannot be reflectance"):
        PROCESSOR(s1=Said(tiles["s1"][0], "reflectance"))
    assert PROCESSOR(s2=Said(offset_chip, "dn+1000"), units={"s2": "dn+1000"})["s2"].isfinite().all()


def test_native_stacks_of_several_units_are_in_order(tiles: dict[str, list[Tile]], offset_chip: Tile) -> None:
    tile = next(tile for tile in tiles["s2"] if len(tile["B05"]) == 120)
    images = [Said(offset_chip, "dn+1000"), tile, Said(offset_chip, "dn+1000"), tile]
    native = PROCESSOR.stack_native(s2=images)["s2"]
    for key, pixels in native.items():
        alone = [PROCESSOR.stack_native(s2=image)["s2"][key].float() for image in images]
        assert torch.equal(pixels, torch.cat(alone))
