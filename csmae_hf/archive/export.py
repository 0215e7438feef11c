"""Results of a search as files: a picture, JSON, a map, a table, a dataset."""

import json
import logging
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from csmae_hf.archive.held import Held
from csmae_hf.archive.hits import Hits
from csmae_hf.data.labels import class_names, known_numbers
from csmae_hf.data.pixel_column import Tile, open_store, refer
from csmae_hf.data.unit_rules import units_column
from csmae_hf.data.units import said_units, set_units, tile_image, with_units
from csmae_hf.files import staged_folder, write_atomically
from csmae_hf.plain import to_json
from csmae_hf.search.ids import ID
from csmae_hf.search.places import geometry_of
from csmae_hf.visualize import QueryPicture, ResultPicture, draw_retrieval, to_rgb
from image_checks_csmae import UNIT_NAMES

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

logger = logging.getLogger(__name__)

DATASET_FILES = ("data-*.arrow", "dataset_info.json", "state.json")
"""Patterns of the files of a saved dataset."""

PICTURES = (".png", ".jpg", ".pdf", ".svg")


def to_geojson(hits: Hits) -> dict[str, Any]:
    """Put hits on a map.

    Args:
        hits: Results of a search.

    Returns:
        A GeoJSON FeatureCollection: a feature a hit, in degrees, with `query`, `rank`, `score` and the tile's metadata. Where a tile's
        place is not known its geometry is null, which is said in a warning.

    Raises:
        ImportError: If rasterio, which knows coordinate systems, is missing.
    """
    places = {tile[ID]: geometry_of(tile) for tile in hits.tiles.to_pylist()}
    unknown = [name for name, place in places.items() if place is None]
    if unknown:
        logger.warning(
            f"Of {len(unknown)} of {len(places)} tiles the place is not known, {unknown[0]} for one: no coordinates in its metadata "
            "or its name."
        )
    features = []
    for number, name in enumerate(hits.queries):
        for hit in hits[number]:
            plain = json.loads(to_json(hit))
            features.append({"type": "Feature", "geometry": places[hit[ID]], "properties": {"query": name, **plain}})
    told = {} if hits.provenance is None else {"provenance": hits.provenance.as_dict()}
    return {"type": "FeatureCollection", **told, "features": features}


def load_source(source: Mapping[str, Any]) -> "Dataset":
    """Load the tiles of one of the sources that an archive keeps: `data`, and options of `load_data`."""
    from csmae_hf.data.load import ALL_TILES, load_data

    options = dict(source)
    return load_data(options.pop("data"), options.pop("split", ALL_TILES), **options)


def load_shown(held: Held, hits: Hits, sources: Sequence[Mapping[str, Any]] | None = None) -> list["Dataset"]:
    """Load, for [`draw_hits`], the tiles that a picture of hits shows, in the units that the archive knows they are in.

    Of BigEarthNet in an LMDB no others are looked up: the archive's metadata says under which keys they lie.

    Args:
        held: The archive.
        hits: Results of a search of it.
        sources: Where the tiles are, as of [`load_source`]; default where the archive says. A tile that several list is taken from
            the last.

    Returns:
        A dataset of each source that has such tiles.

    Raises:
        FileNotFoundError: If a source is not there.
        ValueError: As of `load_data`.
    """
    names = dict.fromkeys(name for found in (hits.queries, *hits.ids) for name in found if name in held.rows_by_id)
    sensors = {hits.query_sensor, hits.archive_sensor}
    places = held.sources if sources is None else list(sources)
    shown = []
    for source in reversed([source for source in places if Path(source["data"]).exists()]):
        tiles = held.tiles.take(pa.array(held.rows_of(list(names)), pa.int64()))
        dataset = _from_store(source, tiles, sensors) if len(places) == 1 else None
        if dataset is None:
            dataset = load_source(source)
            rows = {name: row for row, name in enumerate(dataset.with_format(None)[ID]) if name in names}
            dataset = dataset.select(list(rows.values()))
            tiles = held.tiles.take(pa.array(held.rows_of(list(rows)), pa.int64()))
            names = {name: None for name in names if name not in rows}
        else:
            names = {}
        for sensor in sensors & set(dataset.column_names):
            if (column := units_column(sensor)) in tiles.column_names:
                both = zip(said_units(dataset, sensor), tiles.column(column).to_pylist(), strict=True)
                dataset = set_units(dataset, sensor, [own or known for own, known in both])
        shown.append(dataset)
    gone = [source["data"] for source in places if not Path(source["data"]).exists()]
    if names and (gone or not places):
        raise FileNotFoundError(
            f"Pictures need the tiles themselves, and they are not at {', '.join(gone) or 'any place the archive knows'}: pass "
            "--data."
        )
    return shown


def _from_store(source: Mapping[str, Any], tiles: pa.Table, sensors: Set[str]) -> "Dataset | None":
    """The tiles of an archive by the keys that its metadata says; None where it does not, or they are not in the store."""
    from datasets import Dataset, Features

    from csmae_hf.bigearthnet import PARTNER_SENSOR, SENSORS
    from csmae_hf.data.dataset import find_store
    from csmae_hf.data.load import holds_store

    path = Path(source["data"])
    units = {sensor: unit for sensor, unit in (source.get("units") or {}).items() if sensor in sensors}
    by_rules = any(not isinstance(unit, str) or unit not in UNIT_NAMES for unit in units.values())
    if by_rules or not (holds_store(path) and sensors <= SENSORS.keys() and "s1_id" in tiles.column_names):
        return None
    store = open_store(str(find_store(path).resolve()))
    kept = tiles.select([name for name in (ID, "labels") if name in tiles.column_names])
    features, columns = dict(Features.from_arrow_schema(kept.schema)), dict(zip(kept.column_names, kept, strict=True))
    for sensor in sensors:
        keys = tiles.column("s1_id" if sensor == PARTNER_SENSOR and store.format == "v2" else ID).to_pylist()
        stored = store.read(keys[0]) if keys and all(key in store for key in keys) else {}
        bands = [band for band in SENSORS[sensor].bands if band in stored]
        if keys and not bands:
            return None
        features[sensor] = Tile(sensor, bands)
        columns[sensor] = refer(str(store.path), keys)
    return with_units(Dataset(pa.table(columns, schema=Features(features).arrow_schema)), units)


def draw_hits(hits: Hits, tiles: "Dataset | Sequence[Dataset]", path: str | os.PathLike[str]) -> Path:
    """Draw each query with its results. A result that shares a label with its query is marked; a query without labels marks nothing.

    Args:
        hits: Results of a search.
        tiles: The archive's tiles, with their pixels: one dataset or several. A tile that several have is taken from the first.
        path: File to write, and given back.

    Raises:
        ValueError: If the dataset lacks tiles that were found.
        ImportError: If matplotlib is missing.
    """
    found = {name for names in hits.ids for name in names}
    wanted = found | (set(hits.queries) - set(hits.images))
    rows = {
        name: (dataset, row)
        for dataset in reversed(tiles if isinstance(tiles, (list, tuple)) else [tiles])
        for row, name in enumerate(dataset.with_format(None)[ID])
        if name in wanted
    }
    lacking = sorted(found - set(rows))
    if lacking:
        raise ValueError(
            f"The data lack {len(lacking)} of the tiles that were found, {lacking[0]} for one: is it another split?"
        )
    labels = {tile[ID]: tile.get("labels") or [] for tile in hits.tiles.to_pylist()}
    queries: list[QueryPicture] = []
    results: list[list[ResultPicture]] = []
    for number, name in enumerate(hits.queries):
        sensor, target = hits.query_sensor, hits.archive_sensor
        bands = hits.images[name] if name in hits.images else _bands(*rows[name], sensor) if name in rows else None
        image = np.ones((2, 2, 3)) if bands is None else to_rgb(bands, sensor)  # embeds have no picture
        title = f"{sensor.upper()} query" + (f" {number + 1}" if len(hits) > 1 else "")
        queries.append(QueryPicture(image, title, _labels(*rows[name]) if name in rows else []))
        results.append([])
        for hit in hits[number]:
            picture = to_rgb(_bands(*rows[hit[ID]], target), target)
            results[-1].append(ResultPicture(picture, hit["score"], labels[hit[ID]]))
    note = f"{'exact' if hits.exact else 'approximate'} search of {hits.kept} tiles; number: cosine similarity"
    if len(hits) == 1:
        note = f"{Path(hits.queries[0]).name}; {note}"
    title = f"{hits.query_sensor.upper()} queries, {hits.archive_sensor.upper()} tiles retrieved"
    return draw_retrieval(queries, results, path, title=title, note=note)


def _bands(dataset: "Dataset", row: int, sensor: str) -> Any:
    """The image of a tile, with what is said of its unit; other sensors are not read."""
    return tile_image(dataset[row], sensor)


def _labels(dataset: "Dataset", row: int) -> list[str]:
    """Names of a tile's classes."""
    if "labels" not in dataset.column_names:
        return []
    held = dataset.select_columns(["labels"])[row]["labels"]
    names = class_names(dataset.features["labels"])
    if names is not None:
        return [names[number] for number in known_numbers(held)]
    return [held] if isinstance(held, str) else list(held or ())  # they are names already


def write_hits(hits: Hits, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write hits to a file of the kind that its name says.

    Args:
        hits: Results of a search.
        path: `.json` (everything), `.geojson` (a map), `.csv`, `.parquet`, or a folder for `datasets.load_from_disk`; given back.
        overwrite: Whether a folder of an earlier dataset is replaced; a file is in any case.

    Raises:
        ValueError: If the ending is unknown.
        FileExistsError: If the folder exists, and may not be replaced.
        ImportError: If a map needs rasterio and it is missing.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ".json":
        write_atomically(target, hits.to_json().encode())
    elif suffix == ".geojson":
        write_atomically(target, to_json(to_geojson(hits)).encode())
    elif suffix == ".parquet":
        write_atomically(target, lambda stream: pq.write_table(hits.to_table(), stream))
    elif suffix == ".csv":
        write_atomically(target, hits.to_csv().encode())
    elif suffix:
        raise ValueError(f"{target}: expected {', '.join(PICTURES)}, .json, .geojson, .csv, .parquet, or a folder.")
    else:
        with staged_folder(target, overwrite=overwrite, own=DATASET_FILES) as folder:
            hits.to_dataset().save_to_disk(str(folder))
    return target
