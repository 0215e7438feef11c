"""The contract on real tiles: every kind of wrong input is refused or, on request, converted, and no real tile is."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from real_tiles import Tile, labelled_pairs, ssl4eo_images, terramesh_chips

from image_processing_csmae import CSMAEImageProcessor

S1, S2 = ["VH", "VV"], ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A"]
PROCESSOR = CSMAEImageProcessor()
WITH_OFFSET = "433D_629L_3_1"


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> dict[str, Tile]:
    tiles = labelled_pairs(shared_data)
    assert len(tiles) == 126
    return tiles


@pytest.fixture(scope="module")
def chips(shared_data: Path) -> dict[str, Tile]:
    tiles = terramesh_chips(shared_data)
    assert len(tiles) == 5
    return tiles


@pytest.fixture(scope="module")
def everything(pairs: dict[str, Tile], chips: dict[str, Tile], shared_data: Path) -> dict[str, Tile]:
    """Every real tile that is as it should be."""
    images = ssl4eo_images(shared_data)
    assert len(images) == 6
    return {**pairs, **{name: chip for name, chip in chips.items() if name != WITH_OFFSET}, **images}


def of_sensor(tiles: dict[str, Tile], bands: list[str]) -> dict[str, Tile]:
    return {name: {band: tile[band] for band in bands} for name, tile in tiles.items() if set(bands) <= set(tile)}


def refused(tiles: Iterable[Tile], sensor: str, change: Callable[[Tile], Any], message: str, **options: Any) -> float:
    """Share of tiles that are refused with this message once changed."""
    caught = []
    for tile in tiles:
        try:
            PROCESSOR(**{sensor: change(tile)}, **options)
            caught.append(False)
        except ValueError as error:
            caught.append(message in str(error))
    return float(np.mean(caught))


def each_band(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tile], Tile]:
    return lambda tile: {band: change(pixels) for band, pixels in tile.items()}


def stacked(tile: Tile, bands: list[str]) -> np.ndarray:
    """A bare array of bands at 120 x 120."""
    size = (120, 120)
    images = [torch.from_numpy(tile[band].astype(np.float32))[None, None] for band in bands]
    return torch.cat([F.interpolate(x, size=size, mode="nearest") for x in images], dim=1)[0].numpy()


def test_no_real_tile_is_refused(everything: dict[str, Tile]) -> None:
    all_bands = CSMAEImageProcessor(sensors={"s2": sorted([*S2, "B01", "B09"])})
    for name, tile in everything.items():
        try:
            for sensor, bands in (("s1", S1), ("s2", S2)):
                if set(bands) <= set(tile):
                    inputs = PROCESSOR(**{sensor: tile})[sensor]
                    assert inputs.isfinite().all()
            if {"B01", "B02"} <= set(tile):
                all_bands(s2=tile)
        except ValueError as error:
            pytest.fail(f"{name}: {error}")


def test_real_tiles_of_a_batch_are_judged_each_by_itself(pairs: dict[str, Tile]) -> None:
    for sensor, bands in (("s1", S1), ("s2", S2)):
        tiles = [
            tile
            for tile in of_sensor(pairs, bands).values()
            if tile.get("B05", tile.get("VV")).shape[0] != 120 or sensor == "s1"
        ]
        assert len(PROCESSOR(**{sensor: tiles})[sensor]) == len(tiles) >= 110


# Units


def test_linear_power_is_refused_or_converted(everything: dict[str, Tile]) -> None:
    tiles = of_sensor(everything, S1)
    linear = each_band(lambda pixels: 10 ** (pixels.astype(np.float64) / 10))
    assert refused(tiles.values(), "s1", linear, "units={'s1': 'linear'} to convert") == 1
    for tile in tiles.values():
        ours = PROCESSOR(s1=linear(tile), units={"s1": "linear"})["s1"]
        torch.testing.assert_close(ours, PROCESSOR(s1=tile)["s1"], rtol=0, atol=1e-4)


def test_reflectance_is_refused_or_converted(everything: dict[str, Tile]) -> None:
    tiles = of_sensor(everything, S2)
    reflectance = each_band(lambda pixels: (pixels / 10_000).astype(np.float32))
    assert refused(tiles.values(), "s2", reflectance, "units={'s2': 'reflectance'} to convert") == 1
    for tile in tiles.values():
        ours = PROCESSOR(s2=reflectance(tile), units={"s2": "reflectance"})["s2"]
        torch.testing.assert_close(ours, PROCESSOR(s2=tile, units={"s2": "dn"})["s2"], rtol=0, atol=1e-4)


def test_the_chip_with_the_offset_is_refused_or_converted(chips: dict[str, Tile]) -> None:
    chip = chips[WITH_OFFSET]
    with pytest.raises(
        ValueError, match=r"carries the offset of 1000 .* Pass units=\{'s2': 'dn\+1000'\} to subtract it"
    ):
        PROCESSOR(s2=chip)
    ours = PROCESSOR(s2=chip, units={"s2": "dn+1000"})["s2"]
    by_hand = {band: np.maximum(chip[band] - 1000, 0) for band in S2}
    assert torch.equal(ours, PROCESSOR(s2=by_hand)["s2"])
    assert PROCESSOR(s1=chip)["s1"].isfinite().all()


def test_an_offset_is_seen_on_every_tile_of_bigearthnet(pairs: dict[str, Tile]) -> None:
    offset = each_band(lambda pixels: pixels + np.asarray(1000, pixels.dtype))
    tiles = of_sensor(pairs, S2)
    assert refused(tiles.values(), "s2", offset, "carries the offset of 1000") == 1
    for tile in tiles.values():
        ours = PROCESSOR(s2=offset(tile), units={"s2": "dn+1000"})["s2"]
        torch.testing.assert_close(
            ours, PROCESSOR(s2=each_band(lambda p: np.maximum(p, 0))(tile))["s2"], rtol=0, atol=1e-5
        )
    assert refused(tiles.values(), "s2", lambda tile: tile, "contradict the offset", units={"s2": "dn+1000"}) == 1


def test_a_declared_unit_ends_all_guessing(chips: dict[str, Tile]) -> None:
    assert PROCESSOR(s2=chips[WITH_OFFSET], units={"s2": "dn"})["s2"].isfinite().all()


def test_units_may_be_declared_once_for_a_processor(chips: dict[str, Tile], tmp_path: Path) -> None:
    CSMAEImageProcessor(units={"s2": "dn+1000"}).save_pretrained(tmp_path)
    loaded = CSMAEImageProcessor.from_pretrained(tmp_path)
    assert loaded.units == {"s2": "dn+1000"}
    expected = PROCESSOR(s2=chips[WITH_OFFSET], units={"s2": "dn+1000"})["s2"]
    assert torch.equal(loaded(s2=chips[WITH_OFFSET])["s2"], expected)
    assert torch.equal(
        loaded(s2=chips[WITH_OFFSET], units={"s2": "dn"})["s2"],
        PROCESSOR(s2=chips[WITH_OFFSET], units={"s2": "dn"})["s2"],
    )
    assert CSMAEImageProcessor.from_pretrained(tmp_path, sensors={"s1": S1}).units == {}
    with pytest.raises(ValueError, match="s1 cannot be digital numbers"):
        CSMAEImageProcessor(units={"s1": "dn+1000"})
    with pytest.raises(ValueError, match="Unknown sensor 's3'"):
        CSMAEImageProcessor(units={"s3": "dn"})


# No-data


def lose(tile: Tile, where: str, value: float, bands: list[str]) -> Tile:
    """The tile with a border of a tenth of its width, or a corner, lost in some bands."""
    lost = {}
    for band, pixels in tile.items():
        size = len(pixels)
        rows, columns = np.indices(pixels.shape)
        area = rows < size // 10 if where == "border" else rows + columns < size // 3
        lost[band] = (
            np.where(area, np.asarray(value, np.float32), pixels.astype(np.float32)) if band in bands else pixels
        )
    return lost


@pytest.mark.parametrize("where", ["border", "corner"])
@pytest.mark.parametrize(
    ("sensor", "value", "message"),
    [
        ("s1", np.nan, "values NaN or infinite"),
        ("s1", -np.inf, "values NaN or infinite"),
        ("s1", -9999, "no-data"),
        ("s1", -99, "no-data"),
        ("s1", 0, "border pixels at 0 in all bands: no-data"),
        ("s2", 0, "pixels that are 0 in all bands: no-data"),
        ("s2", -9999, "no-data"),
        ("s2", 65535, "at 65535, the end of the type: no-data"),
        ("s2", np.nan, "values NaN or infinite"),
    ],
)
def test_no_data_is_refused_on_every_tile(
    everything: dict[str, Tile], sensor: str, value: float, message: str, where: str
) -> None:
    bands = {"s1": S1, "s2": S2}[sensor]
    tiles = list(of_sensor(everything, bands).values())[::3]
    assert refused(tiles, sensor, lambda tile: lose(tile, where, value, bands), message) == 1


def test_no_data_is_counted(pairs: dict[str, Tile]) -> None:
    tile = next(iter(of_sensor(pairs, S2).values()))
    with pytest.raises(ValueError, match="s2 image 1 has 1440 pixels that are 0 in all bands"):
        PROCESSOR(s2=[tile, lose(tile, "border", 0, S2)])
    tile = next(iter(of_sensor(pairs, S1).values()))
    with pytest.raises(ValueError, match="s1 band VV of image 1 has 1440 of 14400 values NaN"):
        PROCESSOR(s1=[tile, lose(tile, "border", np.nan, ["VV"])])


def test_no_data_is_no_reflectance_either(pairs: dict[str, Tile]) -> None:
    tile = each_band(lambda pixels: pixels / np.float32(10_000))(next(iter(of_sensor(pairs, S2).values())))
    with pytest.raises(ValueError, match="1440 pixels that are 0 in all bands"):
        PROCESSOR(s2=lose(tile, "border", 0, S2), units={"s2": "reflectance"})


# Types


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_eight_bit_pixels_are_refused_by_their_type(everything: dict[str, Tile], kind: str) -> None:
    for sensor, bands in (("s1", S1), ("s2", S2)):
        tiles = of_sensor(everything, bands).values()
        eight_bit = each_band(lambda pixels: pixels.astype(np.int64).astype(kind))
        assert refused(tiles, sensor, eight_bit, f"torch.{kind}, too small") == 1


@pytest.mark.parametrize(("kind", "message"), [("int8", "negative values"), ("uint8", "cut to 8 bits")])
def test_overflown_numbers_are_refused_in_any_type(pairs: dict[str, Tile], kind: str, message: str) -> None:
    """All but calm water and shadow, whose numbers fit into 8 bits, or nearly."""
    tiles = of_sensor(pairs, S2).values()
    assert (
        refused(tiles, "s2", each_band(lambda pixels: pixels.astype(np.int64).astype(kind).astype(np.int16)), message)
        > 0.9
    )


def test_negative_16_bit_numbers_are_refused(pairs: dict[str, Tile]) -> None:
    """The brightest numbers, wrapped: 40,000 read as int16."""
    bright = each_band(lambda pixels: (pixels.astype(np.int64) + 40_000).astype(np.uint16).view(np.int16))
    assert refused(of_sensor(pairs, S2).values(), "s2", bright, "negative values are no-data or overflown") == 1


# Bands


def test_a_60_m_band_is_refused_by_its_size(everything: dict[str, Tile]) -> None:
    tiles = [tile for tile in everything.values() if "B01" in tile and len(tile["B01"]) == 20]
    assert len(tiles) >= 116
    wrong = lambda tile: {**tile, "B02": tile["B01"]}  # noqa: E731
    assert refused(tiles, "s2", wrong, "s2 band B02 is 20 x 20 pixels: expected 120 x 120") == 1


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_a_60_m_band_is_seen_when_it_was_resampled(pairs: dict[str, Tile], mode: str) -> None:
    """On land. Over calm water, no band has detail by which to tell."""
    tiles = [tile for tile in pairs.values() if "B01" in tile and tile["B08"].mean() > 1000]

    def wrong(tile: Tile) -> Tile:
        aligned = None if mode == "nearest" else True
        coarse = torch.from_numpy(tile["B01"].astype(np.float32))[None, None]
        pixels = F.interpolate(coarse, size=(120, 120), mode=mode, align_corners=aligned)[0, 0]
        return {**tile, "B02": pixels.round().clamp(min=1).numpy().astype(np.uint16)}

    assert refused(tiles, "s2", wrong, "has a band B02 that looks resampled from 60 m pixels") > 0.95


def test_swapped_sensors_are_refused(everything: dict[str, Tile]) -> None:
    both = [tile for tile in everything.values() if set(S1) | set(S2) <= set(tile)]
    assert len(both) == 130
    two = CSMAEImageProcessor(sensors={"s1": S1, "s2": ["B08", "B04"]})
    for tile in both:
        with pytest.raises(ValueError, match=r"s1 lacks the bands \['VH', 'VV'\]"):
            PROCESSOR(s1={band: tile[band] for band in S2}, s2={band: tile[band] for band in S1})
        with pytest.raises(ValueError, match=r"s1 has shape \(10, 120, 120\)"):
            PROCESSOR(s1=stacked(tile, S2))
        with pytest.raises(ValueError, match=r"look like Sentinel-1 in dB|negative values"):
            two(s2=stacked(tile, S1))
        with pytest.raises(ValueError, match=r"sensors are not swapped|linear power"):
            two(s1=stacked(tile, ["B08", "B04"]))


def test_named_bands_may_come_in_any_order(pairs: dict[str, Tile]) -> None:
    for tile in list(pairs.values())[::10]:
        backwards = dict(reversed(tile.items()))
        for sensor in ("s1", "s2"):
            assert torch.equal(PROCESSOR(**{sensor: backwards})[sensor], PROCESSOR(**{sensor: tile})[sensor])


def test_exchanged_radar_bands_are_refused(everything: dict[str, Tile]) -> None:
    """On land. Over water both are near the noise floor, and nothing tells them apart but their names."""
    tiles = of_sensor(everything, S1).values()
    assert (
        refused(tiles, "s1", lambda tile: stacked(tile, S1[::-1]), "they are exchanged. Pass a dict by band name") > 0.9
    )


def test_bands_in_the_order_of_wavelength_are_refused(pairs: dict[str, Tile]) -> None:
    """On land, for the order that most archives use; without vegetation near-infrared bands are too alike to tell."""
    order = sorted(S2, key=lambda band: {"B8A": 8.5}.get(band) or int(band[1:]))
    land = [tile for tile in of_sensor(pairs, S2).values() if tile["B08"].mean() > 1000]
    assert refused(land, "s2", lambda tile: stacked(tile, order), "the bands are in another order") > 0.9


def test_the_order_of_similar_bands_needs_names(pairs: dict[str, Tile]) -> None:
    """The limit that the documentation states: blue and red exchanged in a bare array are not seen, in a dict they cannot be."""
    tile = next(iter(of_sensor(pairs, S2).values()))
    order = ["B04", "B03", "B02", *S2[3:]]
    right = PROCESSOR(s2=stacked(tile, S2), units={"s2": "dn"})["s2"]
    assert not torch.equal(PROCESSOR(s2=stacked(tile, order), units={"s2": "dn"})["s2"], right)
    assert torch.equal(
        PROCESSOR(s2=dict(zip(order, stacked(tile, order), strict=True)), units={"s2": "dn"})["s2"], right
    )
