"""Tiles by place: boxes, areas and distances against points on the sphere, geodesics by Vincenty, and shapes drawn by hand."""

import json
import logging
import math
import sys

import numpy as np
import pyarrow as pa
import pytest

from csmae_hf.search.areas import Near, area_of, box
from csmae_hf.search.filter_language import FilterError, mask_of, parse_filter, unknown_values
from csmae_hf.search.places import BBOX_TYPE, COLUMNS, PLACE_COLUMNS, geometry_of, with_places

pytest.importorskip("rasterio", reason="pip install rasterio")
pytest.importorskip("shapely", reason="pip install shapely")

NAME = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43"


def placed(rows):
    """Metadata of tiles, each (crs, left, bottom, right, top), as an archive keeps them."""
    columns = list(zip(*rows, strict=True))
    table = pa.table(
        {"id": [f"t{n}" for n in range(len(rows))], **{name: columns[n] for n, name in enumerate(COLUMNS)}}
    )
    return with_places(table)


def squares(crs, middles, size=1200.0):
    return [(crs, x - size / 2, y - size / 2, x + size / 2, y + size / 2) for x, y in middles]


def found(text, tiles, **options):
    return np.flatnonzero(mask_of(parse_filter(text, tiles.schema, **options), tiles)).tolist()


def vincenty(lon, lat, other_lon, other_lat):
    """The geodesic on WGS 84, metres (Vincenty 1975, inverse)."""
    a, f = 6378137.0, 1 / 298.257223563
    b = a * (1 - f)
    u, v = (math.atan((1 - f) * math.tan(math.radians(value))) for value in (lat, other_lat))
    around = lam = math.radians(other_lon - lon)
    for _ in range(200):
        x = math.cos(v) * math.sin(lam)
        y = math.cos(u) * math.sin(v) - math.sin(u) * math.cos(v) * math.cos(lam)
        sin, cos = math.hypot(x, y), math.sin(u) * math.sin(v) + math.cos(u) * math.cos(v) * math.cos(lam)
        if sin == 0:
            return 0.0
        sigma = math.atan2(sin, cos)
        alpha = math.cos(u) * math.cos(v) * math.sin(lam) / sin
        square = 1 - alpha**2
        middle = cos - 2 * math.sin(u) * math.sin(v) / square if square else 0.0
        c = f / 16 * square * (4 + f * (4 - 3 * square))
        last, lam = lam, around + (1 - c) * f * alpha * (sigma + c * sin * (middle + c * cos * (2 * middle**2 - 1)))
        if abs(lam - last) < 1e-13:
            break
    k = square * (a**2 - b**2) / b**2
    big = 1 + k / 16384 * (4096 + k * (k * (320 - 175 * k) - 768))
    small = k / 1024 * (256 + k * (k * (74 - 47 * k) - 128))
    fix = middle + small / 4 * (cos * (2 * middle**2 - 1) - small / 6 * middle * (4 * sin**2 - 3) * (4 * middle**2 - 3))
    return b * big * (sigma - small * sin * fix)


def test_an_archive_keeps_where_tiles_lie():
    tiles = with_places(pa.table({"id": [NAME, "mine", "S1B_IW_GRDH_1SDV_20170612T165809_33UUP_5_39"]}))
    assert {name: tiles.schema.field(name).type for name in PLACE_COLUMNS} == PLACE_COLUMNS
    named, unknown, of_v1 = tiles.to_pylist()
    assert named["grid_cell"] == "33UUP_75_43"
    assert of_v1["grid_cell"] == "33UUP_05_39"
    assert unknown == {"id": "mine", **dict.fromkeys(PLACE_COLUMNS)}
    from rasterio.warp import transform, transform_bounds

    bounds = (390_000, 5_347_200, 391_200, 5_348_400)
    assert list(named["bbox"].values()) == pytest.approx(transform_bounds("EPSG:32633", "EPSG:4326", *bounds), abs=1e-6)
    middle = transform("EPSG:32633", "EPSG:4326", [390_600], [5_347_800])
    assert [named["longitude"], named["latitude"]] == pytest.approx([middle[0][0], middle[1][0]])


def test_own_columns_are_taken_for_a_place_or_kept_under_another_name(caplog):
    own = pa.table({"id": ["a", "b"], "longitude": [13.5, None], "latitude": [48, None]})
    first, second = with_places(own).to_pylist()
    assert (first["longitude"], first["bbox"]) == (13.5, {"xmin": 13.5, "ymin": 48.0, "xmax": 13.5, "ymax": 48.0})
    assert second["bbox"] is None
    assert not caplog.text
    others = {
        "longitude": (["far"], "its type is string"),
        "latitude": ([48.0], "no longitude beside it"),
        "bbox": ([[1.0, 2.0, 3.0, 4.0]], "its type is list<"),
        "grid_cell": ([7], "its type is int64"),
    }
    for name, (values, why) in others.items():
        caplog.clear()
        tiles = with_places(pa.table({"id": ["a"], name: values}))
        assert tiles.column(f"tile_{name}").to_pylist() == values
        assert tiles.schema.field(name).type == PLACE_COLUMNS[name]
        assert f"Column {name} is kept as tile_{name}: " in caplog.text
        assert why in caplog.text
    metres = pa.table({"id": ["a"], "longitude": [390_600.0], "latitude": [5_347_800.0]})
    assert "tile_longitude" in with_places(metres).column_names
    elsewhere = pa.table({"id": [NAME], "longitude": [2.35], "latitude": [48.85]})
    assert with_places(elsewhere).to_pylist()[0] | {"tile_longitude": 2.35} == with_places(elsewhere).to_pylist()[0]
    assert f"the file or the name of tile {NAME} says that it lies elsewhere" in caplog.text


def test_a_file_that_lies_elsewhere_than_its_name_says_has_no_cell():
    tiles = pa.table(
        {"id": [NAME, NAME], "crs": ["EPSG:32633"] * 2, "left": [390_030.0, 5e5], "bottom": [5_347_200.0] * 2}
    )
    tiles = tiles.append_column("right", [[391_230.0, 5e5 + 1200]]).append_column("top", [[5_348_400.0] * 2])
    assert with_places(tiles).column("grid_cell").to_pylist() == ["33UUP_75_43", None]


def test_a_tile_is_found_by_its_footprint_and_not_by_its_bounds():
    tiles = placed(squares("EPSG:32633", [(300_600, 7_000_600)]))
    (west, south, east, north) = tiles.column("bbox")[0].as_py().values()
    assert found(f"bbox({west}, {south}, {east}, {north})", tiles) == [0]
    corner = (
        east - 1e-5,
        south,
        east,
        south + 1e-5,
    )  # within the bounds; the square is turned by the grid's convergence
    assert found("bbox({}, {}, {}, {})".format(*corner), tiles) == []
    longitude, latitude = (tiles.column(name)[0].as_py() for name in ("longitude", "latitude"))
    assert found(f"bbox({longitude}, {latitude}, {longitude + 1}, {latitude + 1})", tiles) == [0]


def test_the_antimeridian_and_the_poles():
    tiles = placed(
        [
            *squares("EPSG:32601", [(277_400, 6_000_000)]),  # 0: 179.6 E
            *squares("EPSG:32660", [(828_000, 1_000_000)], 120_000),  # 1: across
            *squares("EPSG:32660", [(500_000, 1_000_000)]),  # 2: 177 E
            *squares("EPSG:3413", [(0, 0)]),  # 3: the north pole in its middle
            *squares("EPSG:3413", [(600, 600)]),  # 4: at its corner
            *squares("EPSG:3413", [(600, 0)]),  # 5: on its edge
            *squares("EPSG:3031", [(100, 200)]),  # 6: the south pole in it
            ("EPSG:4326", 179.9, 10.0, 180.1, 10.1),  # 7: across, in degrees
        ]
    )
    crossing = tiles.column("bbox")[1].as_py()
    assert crossing["xmin"] > 0 > crossing["xmax"]
    assert [tiles.column("bbox")[row].as_py()["xmin"] for row in (3, 6)] == [-180, -180]
    assert found("bbox(170, -90, -170, 90)", tiles) == list(range(8))
    assert found("bbox(170, -89, -170, 89)", tiles) == [0, 1, 2, 7]
    assert found("bbox(179.95, 0, 180, 20)", tiles) == [1, 7]
    assert found("bbox(-180, 0, -179.95, 20)", tiles) == [1, 7]
    assert found("not bbox(-180, 0, -179.95, 20)", tiles) == [0, 2, 3, 4, 5, 6]
    assert found("bbox(-40, 89, -20, 89.9985)", tiles) == [3, 5]
    assert found("bbox(80, 89, 100, 89.9999)", tiles) == [3, 4, 5]
    assert found("bbox(-100, 89, -80, 89.9999)", tiles) == [3]
    assert found("bbox(-100, 80, -80, 90)", tiles) == [3, 4, 5], "the pole is one point"
    assert found("near(0, 90, 0)", tiles) == [3, 4, 5]
    assert found("near(17, -90, 0.001)", tiles) == [6]
    assert found("near(180, 10.05, 1)", tiles) == found("near(-180, 10.05, 1)", tiles) == [7]
    fiji = {"type": "Polygon", "coordinates": [[[179, 5], [181, 5], [181, 15], [179, 15], [179, 5]]]}
    cut = {
        "type": "MultiPolygon",
        "coordinates": [
            [[[179, 5], [180, 5], [180, 15], [179, 15], [179, 5]]],
            [[[-180, 5], [-179, 5], [-179, 15], [-180, 15], [-180, 5]]],
        ],
    }
    assert found("within('a') and within('b')", tiles, areas={"a": fiji, "b": cut}) == [1, 7]
    assert geometry_of(tiles.to_pylist()[7] | dict.fromkeys(COLUMNS))["type"] == "MultiPolygon"


def in_system(crs, longitudes, latitudes):
    """Points in a system that reaches only a part of the Earth; far away where it does not."""
    from rasterio.warp import transform

    try:
        return np.array(transform("EPSG:4326", crs, longitudes, latitudes)[:2])
    except Exception:
        if len(longitudes) == 1:
            return np.full((2, 1), 1e9)
        half = len(longitudes) // 2
        halves = ((longitudes[:half], latitudes[:half]), (longitudes[half:], latitudes[half:]))
        return np.concatenate([in_system(crs, *part) for part in halves], axis=1)


def test_boxes_are_those_that_hold_a_point_of_the_tile():
    rng = np.random.default_rng(0)
    zones = rng.integers(1, 61, 25)
    rows = [
        *(
            square
            for zone in zones
            for square in squares(f"EPSG:{32600 + zone}", [(rng.uniform(2e5, 8e5), rng.uniform(0, 9e6))], 20_000)
        ),
        *squares("EPSG:3413", rng.uniform(-60_000, 60_000, (25, 2)), 20_000),
    ]
    tiles = placed(rows)
    from rasterio.warp import transform

    along = np.linspace(0, 1, 41)
    grids = []
    for crs, left, bottom, right, top in rows:
        x, y = np.meshgrid(left + along * (right - left), bottom + along * (top - bottom))
        grids.append(np.array(transform(crs, "EPSG:4326", x.ravel().tolist(), y.ravel().tolist())[:2]))
    met = slivers = 0
    for _ in range(25):
        number = rng.integers(len(rows))
        west, south = grids[number][:, rng.integers(41 * 41)] - rng.uniform(0, 0.4, 2)
        west = (west + 180) % 360 - 180
        width, north = rng.uniform(0.1, 60), min(south + rng.uniform(0.1, 1), 90.0)
        east = (west + width + 180) % 360 - 180
        over, up = (
            values.ravel().tolist() for values in np.meshgrid(west + along * width, south + along * (north - south))
        )
        answer = found(f"bbox({west}, {south}, {east}, {north})", tiles)
        for row, (crs, left, bottom, right, top) in enumerate(rows):
            x, y = grids[row]
            meets = (
                ((x - west) % 360 <= width) & (y >= south) & (y <= north)
            ).any()  # a point of the tile is in the box
            if not meets:  # or one of the box in the tile
                x, y = in_system(crs, over, up)
                meets = ((x >= left) & (x <= right) & (y >= bottom) & (y <= top)).any()
            assert not meets or row in answer
            met += meets
            slivers += row in answer and not meets
    assert met > 25
    assert slivers <= 3, "what meets between the points of both grids"


def test_distances_are_geodesics_to_the_nearest_point():
    rng = np.random.default_rng(1)
    rows = squares("EPSG:32633", rng.uniform([2e5, 5e6], [8e5, 5.4e6], (150, 2)))
    tiles = placed(rows)
    from rasterio.warp import transform

    along = np.linspace(0, 1, 60, endpoint=False)
    edges = np.concatenate(
        [
            np.stack(pair)
            for pair in ((along, 0 * along), (0 * along + 1, along), (1 - along, 0 * along + 1), (0 * along, 1 - along))
        ],
        axis=1,
    )
    for longitude, latitude in [(13.4, 47.5), (15.0, 46.9), (-150.0, -40.0), (13.0, 90.0)]:
        nearest = []
        for crs, left, bottom, right, top in rows:
            x, y = transform(
                crs,
                "EPSG:4326",
                (left + edges[0] * (right - left)).tolist(),
                (bottom + edges[1] * (top - bottom)).tolist(),
            )[:2]
            nearest.append(min(vincenty(longitude, latitude, a, b) for a, b in zip(x[::6], y[::6], strict=True)))
        nearest = np.array(nearest) / 1000
        kilometres = float(np.quantile(nearest, 0.3)) + 0.2
        answer = np.isin(np.arange(len(rows)), found(f"near({longitude}, {latitude}, {kilometres})", tiles))
        sure = np.abs(nearest - kilometres) > 0.05
        np.testing.assert_array_equal(answer[sure], nearest[sure] <= kilometres)
        assert 5 < answer.sum() < len(rows)


def test_areas_of_every_kind(tmp_path):
    points = {"longitude": [13.5, 2.35, 100.0, None], "latitude": [48.2, 48.85, 0.0, None]}
    tiles = with_places(pa.table({"id": list("abcd"), **points}))
    austria = {"type": "Polygon", "coordinates": [[[9, 46], [18, 46], [18, 49], [9, 49], [9, 46]]]}
    hole = {
        "type": "Polygon",
        "coordinates": [*austria["coordinates"], [[13, 48], [14, 48], [14, 48.5], [13, 48.5], [13, 48]]],
    }
    line = {"type": "LineString", "coordinates": [[2.35, 48.85], [2.35, 50]]}
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "GeometryCollection", "geometries": [line, austria]},
    }
    nowhere = {"type": "Feature", "properties": {}, "geometry": None}
    file = tmp_path / "it's areas.geojson"
    file.write_text(
        "\ufeff" + json.dumps({"type": "FeatureCollection", "features": [feature, nowhere]}), encoding="utf-8"
    )
    areas = {"austria": austria, "hole": json.dumps(hole), "file": file, "path": str(file)}
    assert found("within('austria')", tiles, areas=areas) == [0]
    assert found("within('hole')", tiles, areas=areas) == []
    assert found("within('file') and within('path')", tiles, areas=areas) == [0, 1]
    assert found("not within('file')", tiles, areas=areas) == [2]
    assert found(f"within('{str(file).replace(chr(39), 2 * chr(39))}')", tiles, areas=type(file)) == [0, 1]
    assert found(f"within('{json.dumps(austria)}')", tiles) == [0]
    assert unknown_values(parse_filter("bbox(0, 0, 1, 1) or id = 'a'", tiles.schema), tiles) == [
        "Of 1 of 4 tiles the place is not known: no filter by place finds them, nor its negation."
    ]
    assert found("bbox is null", tiles) == [3]
    assert found("longitude is not null and near(100, 0, 0)", tiles) == [2]


def test_an_area_that_crosses_itself_is_mended_and_said(caplog):
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}
    with caplog.at_level(logging.WARNING):
        area = area_of(bow)
    assert "1 of 1 areas cross themselves and are mended" in caplog.text
    tiles = with_places(pa.table({"id": list("ab"), "longitude": [0.5, 1.0], "latitude": [1.0, 0.5]}))
    assert area.mask(tiles).tolist() == [True, False]


RING = [[0, 0], [1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bbox(1, 2, 3)", r"expected bbox\(W, S, E, N\)"),
        ("bbox(0, 2, 3, 1)", "south, 2, is greater than north, 1"),
        ("bbox(0, 50, 3, 95)", "95 is no latitude, from -90 to 90 degrees: longitude comes first"),
        ("bbox(170, 0, 190, 1)", "190 is no longitude"),
        ("bbox(1, 0, 1, 1)", "has a width and a height"),
        ("near(0, 0, -1)", "a distance is from 0 to 20004 km, not -1"),
        ("near(0, 0, 'far')", r"expected near\(LON, LAT, KM\)"),
        ("within(areas)", r"expected within\('areas'\)"),
        ("within('areas.geojson')", "no area 'areas.geojson' is given here; a filter opens no file.*--within FILE"),
        ("within('{\"type\": 3}')", "is no GeoJSON that can be read"),
        ("within('{}')", "expected a GeoJSON object, with a type"),
        (
            f"within('{json.dumps({'type': 'Polygon', 'coordinates': [[[0, 0], [500000, 5e6], [1, 1], [0, 0]]]})}')",
            "no longitude and latitude, in this order",
        ),
        (
            f"within('{json.dumps({'type': 'Polygon', 'coordinates': [[[170, 0], [-170, 0], [-170, 9], [170, 0]]]})}')",
            "from longitude 170 to -170, and which way round is not clear",
        ),
        (
            f"within('{json.dumps({'type': 'Polygon', 'crs': {'properties': {'name': 'EPSG:32633'}}, 'coordinates': [RING]})}')",
            "coordinates are in EPSG:32633",
        ),
        ("not bbox(0, 0, 1, 1) and " * 20 + "near(0, 0, 1)", "more than 20 places"),
        (
            f"within('{json.dumps({'type': 'Polygon', 'coordinates': [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]})}')",
            "1 of 1 areas cross themselves",
        ),
        (f"within('{json.dumps({'type': 'FeatureCollection', 'features': []})}')", "holds no area"),
        ("within('" + '{"type":"GeometryCollection","geometries":[' * 2000 + "')", "no GeoJSON"),
    ],
)
def test_what_is_no_area_is_said(text, message):
    tiles = with_places(pa.table({"id": ["a"]}))
    with pytest.raises(FilterError, match=message):
        parse_filter(text, tiles.schema)


def test_a_file_that_is_no_area_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No file .*areas.geojson"):
        area_of(tmp_path / "areas.geojson")
    (tmp_path / "areas.gpkg").write_bytes(b"SQLite format 3\0\xff")
    with pytest.raises(ValueError, match=r"areas.gpkg is no GeoJSON. Convert it: ogr2ogr"):
        area_of(tmp_path / "areas.gpkg")


def test_an_archive_from_before_is_asked_by_names_and_files():
    tiles = pa.table({"id": [NAME, "mine"]})
    assert found("near(13.52, 48.27, 5)", tiles) == [0]
    assert Near(13.52, 48.27, 0.001).mask(tiles).tolist() == [True, False]
    assert box(13, 48, 14, 49).mask(tiles).tolist() == [True, False]
    other = pa.table(
        {"id": ["a"], "bbox": pa.array([{"xmin": 170.0, "ymin": 0.0, "xmax": -170.0, "ymax": 1.0}], BBOX_TYPE)}
    )
    assert found("bbox(179, 0, 180, 1)", other) == [0]


def test_without_rasterio_an_archive_keeps_cells_and_says_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setitem(sys.modules, "rasterio.warp", None)
    tiles = with_places(pa.table({"id": [NAME], "longitude": [13.5], "latitude": [48.2]}))
    assert tiles.to_pylist() == [
        {"id": NAME, "longitude": 13.5, "latitude": 48.2, "bbox": None, "grid_cell": "33UUP_75_43"}
    ]
    assert "keeps no places of tiles but their cells of the grid" in caplog.text
    assert "pip install 'rasterio" in caplog.text
    monkeypatch.undo()
    assert found("bbox(13, 48, 14, 49)", tiles) == [0], "who has it finds them all the same"
