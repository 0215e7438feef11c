"""Queries as people have them: an image in memory, an image file, a folder of them, a numpy file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csmae_hf.archive.held import Held, aligned_vectors
from csmae_hf.data.suspects import Suspect
from csmae_hf.data.units import shown_image
from csmae_hf.embedding.embed import embed_images
from csmae_hf.images.image import BandImage, Facts, Said
from csmae_hf.images.readers import read_path
from csmae_hf.search.feedback import refine
from csmae_hf.search.vectors import IntArray, numpy_array


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries, ready to be searched by.

    Attributes:
        names: Of each.
        vectors: (Q, D) unit vectors.
        rows: (Q,) row of the tile that each is, -1 for none.
        images: Of those that were images, bands by name, in dB and digital numbers, by the query's name.
    """

    names: list[str]
    vectors: torch.Tensor
    rows: IntArray
    images: dict[str, Mapping[str, Any]]


def read_image_file(
    path: str | os.PathLike[str], bands: Sequence[str], *, sensor: str = "", said: Said | None = None
) -> Any:
    """Read one or several images of a sensor from a file or folder.

    Args:
        path: An image file whose layers are named, a folder with a file for each band, or a `.npz` of bands: see [`read_path`]. Or a
            `.npy` of an image (C, H, W), a batch (N, C, H, W), or embeds (Q, D) or (D,).
        bands: The sensor's bands, in the model's order.
        sensor: Whose image it is.
        said: What the caller says of the image: unit, level, or the names of its bands where the file has none.

    Returns:
        Bands by name with what is said of them, or the array as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of these, lacks a band, or contradicts what is said of it.
        ImportError: If rasterio is missing.
    """
    path = Path(path)
    if path.suffix.lower() != ".npy" or path.is_dir():
        return read_path(path, bands, sensor=sensor, said=said)
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}: expected an image file, a folder of them, a .npy or a .npz.")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a numpy file: {error}") from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def choose_sensors(held: Held, sensor: str | None, archive_sensor: str | None) -> tuple[str, str]:
    """Choose the sensor of a query, and the sensor whose embeds are searched, where they were not said."""
    own = held.sensors
    if sensor is None and archive_sensor is None and len(own) > 1:
        raise ValueError(f"Say which sensor the query is of: one of {', '.join(own)}, or another of the model's.")
    asked = sensor or archive_sensor or own[0]
    target = archive_sensor or (asked if asked in own or len(own) > 1 else own[0])
    if target not in own:
        raise ValueError(f"The archive has no embeds of {target!r} to search; it has {', '.join(own)}.")
    return asked, target


def make_queries(held: Held, query: Any, sensor: str, said: Said | None = None, suspect: Suspect = "refuse") -> Queries:
    """Make queries of anything that `Archive.search` takes, of one sensor; `said`: of images. A file is read once, here."""
    said = said or Said()
    if isinstance(query, Sequence) and not isinstance(query, (str, bytes)):
        query = list(query)  # also a column of a dataset
    if isinstance(query, list) and query and all(isinstance(value, Real) for value in query):
        query = np.array(query, dtype=np.float64)  # one embed, as another language or a JSON file has it
    items = [] if query is None else query if isinstance(query, list) else [query]
    named = list(dict.fromkeys(item for item in items if isinstance(item, str)))
    rows = {name: row for name, row in zip(named, held.find(named).tolist(), strict=True) if row >= 0}
    made = [
        _of_tile(held, item, rows[item], sensor)
        if isinstance(item, str) and item in rows
        else _of_file(held, os.fspath(item), sensor, said, suspect)
        if isinstance(item, (str, os.PathLike))
        else _of_values(held, item, sensor, f"query {place}", said.unit, suspect)
        for place, item in enumerate(items)
    ]
    return Queries(
        names=[name for part in made for name in part.names],
        vectors=torch.cat([part.vectors for part in made]) if made else torch.empty(0, held.width),
        rows=np.concatenate([part.rows for part in made]) if made else np.empty(0, np.int64),
        images={name: image for part in made for name, image in part.images.items()},
    )


def move_queries(held: Held, queries: Queries, sensor: str, like: Sequence[str], unlike: Sequence[str]) -> Queries:
    """Move queries towards tiles and away from others, by their ids; where there is no query, search by what is liked alone."""
    vectors = queries.vectors
    if like or unlike:
        liked, unliked = (held.vectors[sensor][torch.from_numpy(held.rows_of(ids))] for ids in (like, unlike))
        vectors = refine(vectors if queries.names else None, liked, unliked)
    if not queries.names:
        return Queries(["like " + ", ".join(like)], vectors, np.full(1, -1), {})
    return replace(queries, vectors=vectors)


def _of_tile(held: Held, name: str, row: int, sensor: str) -> Queries:
    if sensor not in held.sensors:
        raise ValueError(
            f"The archive has no embeds of {sensor!r}, so its tiles cannot be queries of it; it has {', '.join(held.sensors)}. "
            "Give the image itself."
        )
    return Queries([name], held.vectors[sensor][row : row + 1], np.array([row]), {})


def _of_file(held: Held, name: str, sensor: str, said: Said, suspect: Suspect) -> Queries:
    if not Path(name).exists():
        raise ValueError(f"{name!r} is neither the id of one of the archive's {len(held)} tiles nor a file or folder.")
    _, processor = held.load_model()
    if sensor not in processor.sensors:
        raise ValueError(f"The model has no sensor {sensor!r}; it has {', '.join(processor.sensors)}.")
    image = read_image_file(name, processor.sensors[sensor], sensor=sensor, said=said)
    return _of_values(held, image, sensor, name, said.unit, suspect)


def _of_values(held: Held, item: Any, sensor: str, name: str, unit: str | None, suspect: Suspect) -> Queries:
    """Queries of an image, a batch of images, or embeds; `unit`: of images, where somebody says it."""
    names, images, embeds = [name], [item], None
    if not hasattr(item, "keys"):
        array = numpy_array(item)
        several = array if array.ndim in (2, 4) else array[None]
        names = [f"{name} [{number}]" for number in range(len(several))] if len(several) > 1 else [name]
        images = list(several)
        if array.ndim in (1, 2) and array.dtype.kind == "f":
            embeds = several
            if several.shape[1] != held.width:
                raise ValueError(f"{name} has shape {array.shape}: embeds of this archive have the width {held.width}.")
        elif array.ndim not in (3, 4):
            raise ValueError(
                f"{name} has shape {array.shape}: expected an image (C, H, W), a batch of them, or embeds of floats."
            )
    shown: dict[str, Mapping[str, Any]] = {}
    if embeds is None:
        model, processor = held.load_model()
        bands = processor.sensors.get(sensor, [])  # an unknown one is refused where it is embedded
        images = [_in_unit(image, bands, unit) for image in images]
        embeds = embed_images(model, processor, images, sensor, names, suspect)
        named = (image if hasattr(image, "keys") else dict(zip(bands, image, strict=True)) for image in images)
        own = (getattr(processor, "units", None) or {}).get(sensor)
        shown = {name: shown_image(image, own) for name, image in zip(names, named, strict=True)}
    vectors = aligned_vectors({sensor: embeds}, held.alignment)[sensor][:]
    return Queries(names, vectors, np.full(len(names), -1), shown)


def _in_unit(image: Any, bands: Sequence[str], unit: str | None) -> Any:
    """An image (C, H, W), or bands by name, with the unit that the caller says; one that says its own keeps it."""
    if unit is None or (not hasattr(image, "keys") and len(image) != len(bands)):  # the processor says what is wrong
        return image
    named = image if hasattr(image, "keys") else dict(zip(bands, image, strict=True))
    own = getattr(named, "unit", None)
    if own not in (None, unit):
        raise ValueError(
            f"The query says that it is in {own}, and {unit} was given. Leave it out, or correct one of them."
        )
    return BandImage({band: named[band] for band in named.keys()}, Facts(unit=unit, unit_by="the call"))  # noqa: SIM118
