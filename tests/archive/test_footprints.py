"""Footprints of tiles against shapely, GeoPandas and rasterio."""

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from exported_archives import tile_name

from csmae_hf.archive.footprints import LEVEL, footprints_of, hilbert_distance, hilbert_order, joined_bounds
from csmae_hf.search.places import BBOX_TYPE, grid_footprint


def shapes_of(tiles, geometry="polygon"):
    return shapely.from_wkb(footprints_of(tiles, geometry).wkb.to_numpy(zero_copy_only=False))


def boxes(*rows):
    named = [None if row is None else dict(zip(BBOX_TYPE.names, row, strict=True)) for row in rows]
    return pa.array(named, BBOX_TYPE)


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
        (middle, *_) = shapes_of(tiles, "point")
        assert middle.equals_exact(wanted.centroid, 1e-5)


def test_a_point_is_better_than_nothing_and_what_the_columns_say_of_the_middle_stays():
    tiles = pa.table(
        {
            "id": ["a", "b", "c"],
            "bbox": boxes((1, 2, 3, 4), None, None),
            "longitude": [9.0, 9.0, None],
            "latitude": [8.0, 8.0, None],
        }
    )
    found = footprints_of(tiles, "polygon")
    assert [shape and shape.geom_type for shape in shapes_of(tiles)] == ["Polygon", "Point", None]
    assert found.kinds == {"Polygon", "Point"}
    assert found.bounds[:2].tolist() == [[1, 2, 3, 4], [9, 8, 9, 8]]
    assert found.middles[:2].tolist() == [[9, 8], [9, 8]]
    assert np.isnan(found.bounds[2]).all()
    assert np.isnan(found.middles[2]).all()


def test_a_tile_across_the_antimeridian_is_two_boxes_and_one_round_a_pole_all_longitudes():
    table = pa.table({"id": ["a"], "bbox": boxes((179.5, -1, -179.9, 1))})
    sides = {"left": [130_000.0], "bottom": [5.0e6], "right": [300_000.0], "top": [5.1e6]}
    for tiles in (table, pa.table({"id": ["a"], "crs": ["EPSG:32601"], **sides})):
        (shape,), found = shapes_of(tiles), footprints_of(tiles, "polygon")
        assert shape.geom_type == "MultiPolygon"
        assert shape.is_valid
        assert shape.bounds == tuple(found.bounds[0])
        west, east = (part.bounds for part in shape.geoms)
        assert west[2] == 180
        assert east[0] == -180
        assert abs(found.middles[0, 0]) > 179
    sides = {"left": [-1e5], "bottom": [-1e5], "right": [1e5], "top": [1e5]}
    (shape,) = shapes_of(pa.table({"id": ["a"], "crs": ["EPSG:3413"], **sides}))
    assert shape.bounds[0::2] == pytest.approx((-180, 180))
    assert shape.bounds[3] == 90
    assert 88 < shape.bounds[1] < 89.2


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
    both = joined_bounds([np.array([[1.0, 2, 3, 4]]), np.array([[0.0, 5, 1, 6]])])
    assert both == {"xmin": 0, "ymin": 2, "xmax": 3, "ymax": 6}
