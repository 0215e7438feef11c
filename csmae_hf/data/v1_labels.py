"""The labels that lie inside the values of a v1 store, read once and remembered."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import LABELS
from csmae_hf.data.cache import cache_folder, store_identity
from csmae_hf.data.labels import numbers_of
from csmae_hf.data.store import TileStore
from csmae_hf.files import write_atomically

logger = logging.getLogger(__name__)

REMEMBERED_FROM = 1000
"""So many labels or more, read in one go, are remembered: reading fewer takes no time worth a file."""

Labels = list[int] | None


def read_v1_labels(store: TileStore, keys: Sequence[str]) -> list[Labels]:
    """Read the labels of tiles out of their values, or recall them: reading those of all BigEarthNet takes minutes.

    They are remembered in [`cache_folder`], by the store's place, size and time of change, so a changed store is read anew. The file
    is replaced in one step: several processes may read at once, at worst each for itself. Gives the classes of each tile, as numbers
    in ascending order; None where it has none.
    """
    path = cache_folder() / "labels" / f"{store_identity(store.path)}.parquet"
    known = _recall(path)
    unknown = [key for key in keys if key not in known]
    for key in tqdm(unknown, desc=f"Reading labels of {store.path.name}", unit="tile", delay=2):
        (known[key],) = numbers_of([store.read_labels(key)], LABELS)
    if len(unknown) >= REMEMBERED_FROM:
        table = pa.table({"key": list(known), "labels": pa.array(list(known.values()), pa.list_(pa.int8()))})
        try:
            write_atomically(path, lambda stream: pq.write_table(table, stream))
        except OSError as error:
            logger.warning("The labels could not be remembered in %s (%s); they will be read again.", path, error)
    return [known[key] for key in keys]


def _recall(path: Path) -> dict[str, Labels]:
    try:
        table = pq.read_table(path)
        return dict(zip(table["key"].to_pylist(), table["labels"].to_pylist(), strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, pa.ArrowException, KeyError) as error:
        logger.warning("%s cannot be read (%s); the labels are read from the store again.", path, error)
        return {}
