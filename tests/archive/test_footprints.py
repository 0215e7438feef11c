"""Footprints of tiles against shapely, GeoPandas and rasterio."""

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from exported_archives import tile_name

from csmae_hf.archive.footprints import (
    LEVEL,
    bounds_of,
    centres_of,
    corners_of,
    hilbert_distance,
    hilbert_order,
    joined_bounds,
    to_wkb,
)
from csmae_hf.search.places import grid_footprint


def shapes_of(tiles):
    return shapely.from_wkb(to_wkb(corners_of(tiles))[0].to_numpy(zero_copy_only=False))


def boxes(*rows):
    names = ("xmin", "ymin", "xmax", "ymax")
    return pa.array([None if row is None else dict(zip(names, map(float, row), strict=True)) for row in rows])


def test_names_and_footprints_of_files_give_the_outline_that_rasterio_gives():
    place = grid_footprint(tile_name(5))
    names = pa.table({"id": [tile_name(5), "who knows", None]})
    columns = {
        name: [value, None] for name, value in zip(("crs", "left", "bottom", "right", "top"), place, strict=True)
    }
    wanted = shapely.geometry.shape(place.to_polygon())
    for tiles in (names, pa.table({"id": ["x", "y"], **columns})):
        shape, *others = shapes_of(tiles)
        assert shape.equals_exact(wanted, 1e-9)
        assert shape.exterior.is_ccw
        assert all(other is None for other in others)


def test_what_says_more_comes_first_and_a_point_is_better_than_nothing():
    tiles = pa.table(
        {
            "id": [tile_name(5), "b", "c", "d"],
            "bbox": boxes((1, 2, 3, 4), (1, 2, 3, 4), None, None),
            "longitude": [9.0, 9.0, 9.0, None],
            "latitude": [8.0, 8.0, 8.0, None],
        }
    )
    corners = corners_of(tiles)
    shapes = shapes_of(tiles)
    assert [shape and shape.geom_type for shape in shapes] == ["Polygon", "Polygon", "Point", None]
    assert shapes[0].bounds == pytest.approx(shapely.geometry.shape(grid_footprint(tile_name(5)).to_polygon()).bounds)
    assert shapes[1].bounds == (1, 2, 3, 4)
    assert np.array_equal(centres_of(tiles, corners)[:3], [[9, 8]] * 3), "what the columns say of the middle stays"
    assert to_wkb(corners)[1] == {"Polygon", "Point"}


def test_a_tile_across_the_antimeridian_is_two_boxes_and_one_round_a_pole_all_longitudes():
    table = pa.table({"id": ["a"], "bbox": boxes((179.5, -1, -179.9, 1))})
    utm = pa.table(
        {
            "id": ["a"],
            "crs": ["EPSG:32601"],
            "left": [130_000.0],
            "bottom": [5.0e6],
            "right": [300_000.0],
            "top": [5.1e6],
        }
    )
    for tiles in (table, utm):
        (shape,) = shapes_of(tiles)
        assert shape.geom_type == "MultiPolygon"
        assert shape.is_valid
        assert shape.bounds == tuple(bounds_of(corners_of(tiles))[0])
        west, east = (part.bounds for part in shape.geoms)
        assert west[2] == 180
        assert east[0] == -180
        assert abs(centres_of(tiles, corners_of(tiles))[0, 0]) > 179
    polar = pa.table(
        {"id": ["a"], "crs": ["EPSG:3413"], "left": [-1e5], "bottom": [-1e5], "right": [1e5], "top": [1e5]}
    )
    (shape,) = shapes_of(polar)
    assert shape.bounds[0::2] == (-180, 180)
    assert shape.bounds[3] == 90
    assert 88 < shape.bounds[1] < 89


def test_a_coordinate_system_that_nobody_knows_is_an_error():
    tiles = pa.table({"id": ["a"], "crs": ["EPSG:1"], "left": [0.0], "bottom": [0.0], "right": [1.0], "top": [1.0]})
    with pytest.raises(ValueError, match="1 tiles lie in a coordinate reference system that is not known, 'EPSG:1'"):
        corners_of(tiles)


def test_the_hilbert_curve_goes_from_cell_to_cell_and_orders_as_geopandas_does():
    side = np.arange(32)
    x, y = (axis.ravel() for axis in np.meshgrid(side, side))
    order = np.argsort(hilbert_distance(x, y))
    steps = np.abs(np.diff(x[order])) + np.abs(np.diff(y[order]))
    assert (steps == 1).all()
    points = np.random.default_rng(0).uniform((-170, -80), (170, 80), (500, 2))
    theirs = geopandas.GeoSeries(geopandas.points_from_xy(*points.T)).hilbert_distance(level=LEVEL)
    assert np.array_equal(hilbert_order(points), np.argsort(theirs.to_numpy(), kind="stable"))
    points[7] = np.nan
    assert hilbert_order(points)[-1] == 7
    assert hilbert_order(np.full((3, 2), 5.0)).tolist() == [0, 1, 2]
    assert hilbert_order(np.full((3, 2), np.nan)).tolist() == [0, 1, 2]


def test_the_bounds_of_nothing_are_none():
    assert joined_bounds([np.full((2, 4), np.nan)]) is None
    assert joined_bounds([np.array([[1.0, 2, 3, 4]]), np.array([[0.0, 5, 1, 6]])]) == {
        "xmin": 0,
        "ymin": 2,
        "xmax": 3,
        "ymax": 6,
    }
