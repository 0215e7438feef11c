"""What a person takes away: the search itself, its results on a map, and the tiles collected, as a table and as a Dataset."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from csmae_hf.app.state import Search
from csmae_hf.archive.export import to_geojson
from csmae_hf.archive.hits import Hits, table_to_csv
from csmae_hf.plain import to_json

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
    files[0].write_text(search.to_json(archive.identity.fingerprint), encoding="utf-8")
    if hits is not None:
        files.append(folder / "results.csv")
        files[-1].write_text(hits.to_csv(), encoding="utf-8")
        try:
            text = to_json(to_geojson(hits))
            files.append(folder / "results.geojson")
            files[-1].write_text(text, encoding="utf-8")
        except ImportError as error:
            logger.warning("No map was written. %s", error)
    if search.collected:
        from datasets import Dataset

        tiles = archive.tiles.take(pa.array(archive.rows_of(search.collected)))
        files.append(folder / "collected.csv")
        files[-1].write_text(table_to_csv(tiles), encoding="utf-8")
        unpacked = folder / "collected_dataset"
        Dataset(tiles.combine_chunks()).save_to_disk(str(unpacked))
        files.append(Path(shutil.make_archive(str(unpacked), "zip", unpacked)))
        shutil.rmtree(unpacked)
    return files
