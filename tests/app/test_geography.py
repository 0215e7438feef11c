import re

import numpy as np
import pytest

from csmae_hf.app.geography import Marker, Place, distance, draw_map, place_of

VIENNA, PARIS = Place(((16.3738, 48.2082),)), Place(((2.3522, 48.8566),))


def test_distances_agree_with_the_chord_between_the_points():
    def vector(place):
        lon, lat = np.radians(place.centre)
        return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])

    chord = np.linalg.norm(vector(VIENNA) - vector(PARIS))
    assert distance(VIENNA, PARIS) == pytest.approx(6371.0 * 2 * np.arcsin(chord / 2))
    assert distance(VIENNA, VIENNA) == 0
    assert distance(Place(((179.9, 0.0),)), Place(((-179.9, 0.0),))) == pytest.approx(22.24, abs=0.01)


def test_a_name_of_bigearthnet_has_a_place_and_another_has_none():
    pytest.importorskip("rasterio")
    place = place_of({"id": "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43"})
    assert place is not None
    assert len(place.ring) == 4
    assert place.centre == pytest.approx((13.5, 48.2), abs=0.7)
    assert place_of({"id": "tile 7"}) is None
    assert place_of({"id": "tile 7", "lon": 2.0, "lat": 48.0}).ring == ((2.0, 48.0),)


def circles(svg):
    return {
        tile: (float(x), float(y))
        for tile, x, y in re.findall(r'data-tile="(\w+)".*?<(?:circle|rect) c?x="([\d.-]+)" c?y="([\d.-]+)"', svg)
    }


def test_a_map_is_true_to_scale_and_has_north_up():
    places = {"west": (10.0, 50.0), "east": (12.0, 50.0), "north": (11.0, 51.0), "south": (11.0, 49.0)}
    svg = draw_map([Marker(name, Place((point,)), "1", "hit") for name, point in places.items()])
    at = circles(svg)
    assert at["west"][0] < at["east"][0]
    assert at["north"][1] < at["south"][1]
    wide, high = at["east"][0] - at["west"][0], at["south"][1] - at["north"][1]
    east, north = (Place((places[name],)) for name in ("east", "north"))
    west, south = (Place((places[name],)) for name in ("west", "south"))
    assert wide / high == pytest.approx(distance(west, east) / distance(south, north), rel=0.01)


def test_all_of_one_place_is_a_map_too_and_none_is_a_sentence():
    assert "marker hit" in draw_map([Marker("a", VIENNA, "1", "hit")] * 3, [VIENNA, PARIS])
    assert "known place" in draw_map([])


def land_at(svg, x, y):
    """Whether a point of the page is inside the land that is drawn, by the crossings of a line to its left."""
    inside = False
    for ring in re.search(r'class="land" d="([^"]*)"', svg)[1].split("z")[:-1]:
        points = [tuple(map(float, point.split())) for point in ring[1:].split("L")]
        for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
            if (y1 > y) != (y2 > y) and x1 + (y - y1) / (y2 - y1) * (x2 - x1) < x:
                inside = not inside
    return inside


def test_land_and_sea_are_told_apart():
    where = {"madrid": (-3.7, 40.4), "warsaw": (21.0, 52.2), "atlantic": (-9.9, 46.0), "tyrrhenian": (11.9, 40.0)}
    svg = draw_map([Marker(name, Place((point,)), "1", "hit") for name, point in where.items()])
    at = circles(svg)
    assert {name: land_at(svg, *at[name]) for name in where} == {
        "madrid": True,
        "warsaw": True,
        "atlantic": False,
        "tyrrhenian": False,
    }


def test_coarse_coastlines_are_not_drawn_around_a_town():
    near = Place(((VIENNA.ring[0][0] + 0.5, VIENNA.ring[0][1]),))
    assert 'class="land"' not in draw_map([Marker("a", VIENNA, "1", "hit"), Marker("b", near, "2", "hit")])


def test_ids_cannot_break_out_of_the_map():
    svg = draw_map([Marker('"><script>alert(1)</script>', VIENNA, "1", "hit")])
    assert "<script" not in svg
