"""Of a dataset of tiles: the metadata that an archive keeps, and the embeds of those tiles that can be read."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from csmae_hf.data.collate import TileCollator
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.search.ids import ID
from csmae_hf.search.nearest import unit_vectors
from csmae_hf.search.places import footprint_columns
from csmae_hf.search.vectors import Vectors

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

    from csmae_hf.embedding.alignment import Alignment

logger = logging.getLogger(__name__)

MAX_UNREADABLE_SHARE = 0.01
"""Share of the tiles that may be unreadable before building an archive is refused; fewer are left out and named."""

_BLOCK = 2048


def metadata_of(dataset: "Dataset", sensors: Sequence[str]) -> pa.Table:
    """Take a dataset's metadata: text, numbers, truth values, dates, classes by name, and lists of them. No pixels are read.

    Of tiles in GeoTIFFs also where they lie.

    Args:
        dataset: The tiles.
        sensors: Names of the pixel columns.

    Returns:
        A table with `id` first; where the dataset has no such column, the row numbers.

    Raises:
        ValueError: If an id is missing or occurs twice.
    """
    columns: dict[str, pa.Array] = {}
    plain = dataset.with_format(None)
    for name, feature in dataset.features.items():
        if name not in sensors and (kind := _plain_type(feature)) is not None:
            columns[name] = _by_name(plain.select_columns([name]).with_format("arrow")[:].column(name), feature, kind)
    ids = columns.pop(ID).cast(pa.string()) if ID in columns else pa.array(map(str, range(len(dataset))), pa.string())
    check_ids(ids.to_pylist())
    return pa.table({ID: ids, **columns, **footprint_columns(dataset)})


def check_ids(ids: Sequence[str | None]) -> None:
    """Refuse ids that do not name one tile each.

    Raises:
        ValueError: Counted, the first named.
    """
    if None in ids:
        raise ValueError(
            f"{ids.count(None)} of {len(ids)} tiles have no id, row {ids.index(None)} for one: give every tile one."
        )
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} tile ids occur more than once (first: {twice[0]}). Keep one row of each.")


def _plain_type(feature: Any) -> pa.DataType | None:
    """The type in which a feature is kept; None for what is no metadata."""
    from datasets import ClassLabel, List, Value
    from datasets.features import LargeList

    if isinstance(feature, (List, LargeList)):
        inner = _plain_type(feature.feature) if isinstance(feature.feature, (Value, ClassLabel)) else None
        return None if inner is None else pa.list_(inner)
    if isinstance(feature, ClassLabel):
        return pa.string()
    if not isinstance(feature, Value):
        return None
    kind = feature.pa_type
    if pa.types.is_large_string(kind):
        return pa.string()
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind)
    return (
        kind if whole or pa.types.is_floating(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind) else None
    )


def _by_name(column: pa.ChunkedArray, feature: Any, kind: pa.DataType) -> pa.Array:
    """A column in its plain type: class numbers by their names, NaN as not known."""
    from datasets import ClassLabel

    inner = getattr(feature, "feature", feature)
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if isinstance(inner, ClassLabel):
        names = pa.array(inner.names, pa.string())
        if inner is feature:
            return names.take(array)
        lists = pa.array(
            [None if row is None else [inner.names[number] for number in row] for row in array.to_pylist()], kind
        )
        return lists
    array = array.cast(kind)
    return pc.if_else(pc.is_nan(array), None, array) if pa.types.is_floating(kind) else array


def embed_readable(
    model: torch.nn.Module,
    processor: Any,
    dataset: "Dataset",
    sensors: Sequence[str],
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> tuple[dict[str, NDArray[np.float32]], dict[int, str]]:
    """Embed the tiles of a dataset, leaving out those of which a sensor cannot be read.

    Args:
        model: As of `embed_dataset`.
        processor: As of `embed_dataset`.
        dataset: As of `embed_dataset`.
        sensors: Sensors to embed.
        batch_size: As of `embed_dataset`.
        device: As of `embed_dataset`.
        num_workers: As of `embed_dataset`.
        progress: As of `embed_dataset`.

    Returns:
        (M, D) embeds of the readable tiles by sensor, and why each of the others, by row, is not.

    Raises:
        ValueError: If more than 1 % of the tiles, or the only ones, are unreadable; or as `embed_dataset`.
    """
    unreadable: dict[int, str] = {}
    blocks: dict[str, list[NDArray[np.float32]]] = {sensor: [] for sensor in sensors}
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "device": device,
        "num_workers": num_workers,
        "progress": False,
    }
    check_sensors(model, dataset, sensors)
    with tqdm(total=len(dataset) * len(sensors), desc="embedding", unit="image", delay=2, disable=not progress) as bar:
        for start in range(0, len(dataset), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(dataset)))
            block = dataset.select(rows)
            try:
                embeds = {sensor: embed_dataset(model, processor, block, sensor, **options) for sensor in sensors}
            except (ValueError, KeyError):
                broken = _unreadable(processor, block, sensors)
                unreadable.update({start + place: reason for place, reason in broken.items()})
                _refuse_many(unreadable, len(dataset))
                good = block.select([place for place in range(len(block)) if place not in broken])
                if not broken:
                    raise
                embeds = {
                    sensor: embed_dataset(model, processor, good, sensor, **options) for sensor in sensors if len(good)
                }
            for sensor, values in embeds.items():
                blocks[sensor].append(values)
            bar.update(len(rows) * len(sensors))
    return {sensor: np.concatenate(parts) for sensor, parts in blocks.items()}, unreadable


def check_sensors(model: torch.nn.Module, dataset: "Dataset", sensors: Sequence[str]) -> None:
    """Refuse sensors that the model or the dataset lacks, and a dataset without tiles.

    Raises:
        ValueError: Naming the sensor, and those that there are.
    """
    known = list(model.config.sensors)  # type: ignore[union-attr, arg-type]
    if not sensors:
        raise ValueError(
            f"There is no sensor to embed; the model has {', '.join(known)}, the dataset {', '.join(dataset.column_names)}."
        )
    for sensor in sensors:
        if sensor not in known:
            raise ValueError(f"The model has no sensor {sensor!r}; it has {', '.join(known)}.")
        if sensor not in dataset.column_names:
            raise ValueError(
                f"The dataset has no pixel column {sensor!r}; its columns are {', '.join(dataset.column_names)}."
            )
    if not len(dataset):
        raise ValueError("The dataset has no tiles; check the split and the filters that made it.")


def _refuse_many(unreadable: Mapping[int, str], total: int) -> None:
    if len(unreadable) > MAX_UNREADABLE_SHARE * total:
        first = next(iter(unreadable.values()))
        raise ValueError(
            f"{len(unreadable)} or more of {total} tiles cannot be used, more than {MAX_UNREADABLE_SHARE:.0%}. Mend them, or "
            f"leave them out with dataset.select. The first: {first}"
        )


def _unreadable(processor: Any, dataset: "Dataset", sensors: Sequence[str]) -> dict[int, str]:
    """Why each of the tiles that cannot be read and processed cannot, by row."""
    collate = TileCollator(processor, list(sensors))
    columns = [name for name in (ID, *sensors) if name in dataset.column_names]
    plain = dataset.select_columns(columns)
    reasons: dict[int, str] = {}
    for place in range(len(plain)):
        try:
            collate([plain[place]])
        except (ValueError, KeyError) as error:
            reasons[place] = str(error)
    return reasons


def without_rows(tiles: pa.Table, unreadable: Mapping[int, str]) -> tuple[pa.Table, dict[str, str]]:
    """Leave out tiles that could not be read, with a warning.

    Args:
        tiles: Metadata.
        unreadable: Why a tile cannot be read, by row.

    Returns:
        The others' metadata, and why each of these is left out, by id.
    """
    if not unreadable:
        return tiles, {}
    ids = tiles.column(ID).to_pylist()
    reasons = {ids[row]: reason for row, reason in unreadable.items()}
    logger.warning(
        "%d of %d tiles cannot be read and are left out, %s for one: %s",
        len(reasons),
        len(ids),
        *next(iter(reasons.items())),
    )
    return tiles.take(pa.array([row for row in range(len(ids)) if row not in unreadable])), reasons


def in_columns(tiles: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring metadata into the columns of another table.

    Args:
        tiles: Metadata.
        schema: Of the other table.

    Returns:
        The metadata; columns that it lacks are None.

    Raises:
        ValueError: If it has columns that the other lacks, or of a type that does not fit.
    """
    extra = [name for name in tiles.column_names if name not in schema.names]
    if extra:
        raise ValueError(
            f"The tiles have columns that the archive lacks: {', '.join(extra)}. Leave them out with remove_columns."
        )
    columns = []
    for field in schema:
        if field.name not in tiles.column_names:
            columns.append(pa.nulls(tiles.num_rows, field.type))
            continue
        try:
            columns.append(tiles.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise ValueError(
                f"Column {field.name} is {tiles.schema.field(field.name).type}; the archive's is {field.type}: {error}"
            ) from error
    return pa.table(columns, schema=schema)


def aligned_vectors(embeds: Mapping[str, np.ndarray[Any, Any]], alignment: "Alignment | None") -> dict[str, Vectors]:
    """Make an archive's vectors of embeds.

    Args:
        embeds: (N, D) by sensor, as a model gives them.
        alignment: Applied to those of each sensor; None for none.

    Returns:
        (N, D) float32 unit vectors by sensor.

    Raises:
        ValueError: If embeds are zero or not finite, or the alignment does not know a sensor.
    """
    return {
        sensor: Vectors([unit_vectors(values if alignment is None else alignment.apply(values, sensor), sensor)])
        for sensor, values in embeds.items()
    }
