"""What a person takes away: the search itself, its results on a map, and the tiles collected, as a table and as a Dataset."""

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv

from csmae_hf.app.state import Search
from csmae_hf.archive.export import to_geojson
from csmae_hf.archive.hits import Hits

if TYPE_CHECKING:
    from csmae_hf.archive.archive import Archive

logger = logging.getLogger(__name__)


def write_downloads(archive: "Archive", search: Search, hits: Hits | None, folder: Path) -> list[Path]:
    """Write everything that can be taken away to an empty folder; ValueError if a tile collected is not in the archive.

    Returns:
        `search.json`; of results, if any are shown, `results.csv` and `results.geojson`; of tiles collected `collected.csv` and
        `collected_dataset.zip`, a folder for `datasets.load_from_disk`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "search.json"]
    files[0].write_text(search.to_json(), encoding="utf-8")
    if hits is not None:
        files.append(_write_csv(hits.to_table(), folder / "results.csv"))
        try:
            text = json.dumps(to_geojson(hits), ensure_ascii=False)
            files.append(folder / "results.geojson")
            files[-1].write_text(text, encoding="utf-8")
        except ImportError as error:
            logger.warning("No map was written. %s", error)
    if search.collected:
        from datasets import Dataset

        tiles = archive.tiles.take(pa.array(archive.rows_of(search.collected)))
        files.append(_write_csv(tiles, folder / "collected.csv"))
        unpacked = folder / "collected_dataset"
        Dataset(tiles.combine_chunks()).save_to_disk(str(unpacked))
        files.append(Path(shutil.make_archive(str(unpacked), "zip", unpacked)))
        shutil.rmtree(unpacked)
    return files


def _write_csv(table: pa.Table, path: Path) -> Path:
    """A table as CSV, lists joined by "; ", and durations and decimals as text."""
    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            held = table.column(place).to_pylist()
            texts = [None if items is None else "; ".join(map(str, items)) for items in held]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
        elif pa.types.is_duration(field.type) or pa.types.is_decimal(field.type):
            texts = [None if value is None else str(value) for value in table.column(place).to_pylist()]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
    pa.csv.write_csv(table, path)
    return path
