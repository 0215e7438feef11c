"""Embeds that somebody has made already, read from a file by the ids of the tiles: an encoder that looks at no pixel."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from csmae_hf.search.ids import ID

ID_NAMES = ("id", "ids", "tile_id", "unique_id", "patch_id", "item_id")
VECTOR_NAMES = ("embedding", "embeddings", "embeds", "vector")
"""Columns of a file that hold ids and vectors, where nobody says which; a vector's may also be named like the sensor."""


Held = tuple[dict[str, int], torch.Tensor]
"""Rows by id, and the vectors (N, D)."""


class FileEncoder(torch.nn.Module):
    """Embeds from files: an archive and an evaluation of them, and no queries that are images.

    Args:
        files: By sensor a Parquet file (GeoParquet too), with a column of ids and one of lists, or an `.npz`, with an array of ids,
            (N,) text, and one of vectors, (N, D). Sensors may name the same file, with a column or array named like each.
        id_column: Its name; default one of `ID_NAMES`.
        vector_column: Its name; default that of the sensor, or one of `VECTOR_NAMES`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it holds no such columns, an id twice, vectors of several widths, or numbers that are not finite.

    Example:
        >>> encoder = FileEncoder({"s2": "clay.parquet"}, id_column="tile", vector_column="embedding")
    """

    def __init__(
        self,
        files: Mapping[str, str | os.PathLike[str]],
        *,
        id_column: str | None = None,
        vector_column: str | None = None,
    ):
        super().__init__()
        if not files:
            raise ValueError("files is empty: expected a file by sensor, such as {'s2': 'embeds.parquet'}.")
        held: dict[str, Held] = {}
        content = hashlib.sha256()
        for sensor, file in files.items():
            ids, vectors = read_embeds(Path(file), sensor, id_column, vector_column)
            held[sensor] = {name: row for row, name in enumerate(ids)}, torch.from_numpy(vectors)
            content.update("\n".join([sensor, *ids]).encode() + vectors.tobytes())
        self.width = max(vectors.shape[1] for _, vectors in held.values())
        self.sensors: dict[str, list[str]] = {sensor: [] for sensor in files}
        self.provenance_fields = {"embeds_from_file": content.hexdigest()}
        self.processor = IdProcessor(held)

    def embed(self, pixels: torch.Tensor, sensor: str) -> torch.Tensor:
        """(B, width) of the (B, D) vectors that the processor found, in the place of pixels."""
        return torch.nn.functional.pad(pixels, (0, self.width - pixels.shape[1]))


class IdProcessor:
    """Finds the vector of each tile by its id."""

    def __init__(self, held: Mapping[str, Held]):
        self.held = held
        self.sensors: dict[str, list[str]] = {sensor: [] for sensor in held}

    def __call__(self, **images: Any) -> Any:
        """Refuse an image, with a ValueError."""
        raise ValueError(
            "These embeds come from a file, by the ids of tiles: an image cannot be embedded. Search by the id of a tile, or by a "
            "vector of the model that made the file."
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings, of which there are none: what is in the file is the encoder's own."""
        return {"sensors": self.sensors}

    def collator(self, sensors: Sequence[str]) -> "IdCollator":
        """What makes a batch, in the place of a `TileCollator`."""
        return IdCollator(self.held, list(sensors))


class IdCollator:
    """Batches the vectors of tiles; no pixel is read."""

    def __init__(self, held: Mapping[str, Held], sensors: list[str]):
        self.held, self.sensors = held, sensors

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """(B, D) by sensor. A ValueError names a tile that is not in the file."""
        names = [str(row.get(ID)) for row in rows]
        for sensor in self.sensors:
            known = self.held[sensor][0]
            absent = next((name for name in names if name not in known), None)
            if absent is not None:
                raise ValueError(
                    f"tile {absent}: the file has no {sensor} embed of it. Its ids are such as {next(iter(known))!r}; they must be "
                    "those of the tiles."
                )
        found = ((sensor, *self.held[sensor]) for sensor in self.sensors)
        return {sensor: vectors[[known[name] for name in names]] for sensor, known, vectors in found}


def read_embeds(
    path: Path, sensor: str, id_column: str | None = None, vector_column: str | None = None
) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float32]]]:
    """Read N ids and (N, D) float32 vectors from a file. See [`FileEncoder`]."""
    if not path.is_file():
        raise FileNotFoundError(f"No embeds of {sensor} at {path}: expected a .parquet or .npz file.")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as held:
                values: dict[str, Any] = {name: held[name] for name in held.files}
        except ValueError as error:
            raise ValueError(
                f"{path} cannot be read without running what is in it: {error}. Save ids as text, np.array(ids, dtype=str)."
            ) from error
    else:
        try:
            table = pq.read_table(path, partitioning=None)
        except pa.ArrowException as error:
            raise ValueError(f"{path} is no Parquet file, nor .npz: {error}") from error
        values = {name: table.column(name) for name in table.column_names}
    options = f"it has {', '.join(values) or 'nothing'}"
    id_name = _choose(values, (id_column,) if id_column else ID_NAMES)
    vector_name = _choose(values, (vector_column,) if vector_column else (sensor, *VECTOR_NAMES))
    if id_name is None:
        raise ValueError(f"{path} has no ids under {id_column or ', '.join(ID_NAMES)}: {options}. Pass id_column=.")
    if vector_name is None:
        wanted = vector_column or ", ".join((sensor, *VECTOR_NAMES))
        raise ValueError(f"{path} has no vectors of {sensor} under {wanted}: {options}. Pass vector_column=.")
    ids = [str(name) for name in _plain(values[id_name])]
    twice = len(ids) - len(set(ids))
    if twice:
        raise ValueError(f"{path} has {twice} ids more than once: keep one row of each, for one sensor.")
    try:
        vectors = np.asarray(_plain(values[vector_name]), dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {vector_name} is no list of numbers, all of one length: {error}") from error
    if vectors.ndim != 2 or len(vectors) != len(ids) or not len(ids):
        raise ValueError(
            f"{path}: {vector_name} has the shape {vectors.shape} for {len(ids)} ids; expected one vector of one width for each."
        )
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise ValueError(f"{path}: {int(bad.sum())} vectors are not finite, that of {ids[int(bad.argmax())]} for one.")
    return ids, vectors


def _choose(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in values), None)


def _plain(values: Any) -> Any:
    """A column or an array as a list, or the array itself."""
    return values.to_pylist() if isinstance(values, pa.ChunkedArray) else values
