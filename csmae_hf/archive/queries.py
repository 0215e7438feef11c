"""Queries as people have them: an image in memory, a GeoTIFF, a folder of GeoTIFFs, a numpy file."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from csmae_hf.archive.tiles import aligned_vectors
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.images.opening import open_image
from csmae_hf.search.vectors import IntArray

if TYPE_CHECKING:
    from csmae_hf.archive.archive import Archive

RASTERS = (".tif", ".tiff")
ARRAYS = (".npy", ".npz")


class _Images:
    """Images as `embed_dataset` reads a dataset."""

    def __init__(self, names: Sequence[str], images: Sequence[Any], sensor: str):
        self.names, self.images, self.sensor = names, images, sensor
        self.column_names = ["id", sensor]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"id": self.names[place], self.sensor: self.images[place]}

    def select_columns(self, columns: Iterable[str]) -> "_Images":
        return self


def embed_images(
    model: torch.nn.Module, processor: Any, images: Sequence[Any], sensor: str, names: Sequence[str] | None = None
) -> np.ndarray[Any, Any]:
    """Embed images that are in no dataset.

    Args:
        model: The model.
        processor: Its processor.
        images: Each in a form that the processor takes for one image.
        sensor: Their sensor.
        names: What to call each in errors.

    Returns:
        (Q, D) float32.

    Raises:
        ValueError: If the model lacks the sensor, or an image is unusable.
    """
    called = list(names or (f"query {place}" for place in range(len(images))))
    source: Any = _Images(called, images, sensor)
    return embed_dataset(model, processor, source, sensor, progress=False)


def read_image_file(path: str | os.PathLike[str], bands: Sequence[str]) -> Any:
    """Read one or several images of a sensor from a file or folder.

    Args:
        path: A GeoTIFF whose bands are named as the model's, or are as many and in its order; a folder with a GeoTIFF for each
            band, named `..._B02.tif`; a `.npz` of bands by name; a `.npy` of an image (C, H, W), a batch (N, C, H, W), or embeds
            (Q, D) or (D,).
        bands: The sensor's bands, in the model's order.

    Returns:
        Bands by name, or the array as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of these, or lacks a band.
        ImportError: If rasterio is missing.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, bands)
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}: expected a GeoTIFF, a folder of GeoTIFFs, a .npy or a .npz.")
    suffix = path.suffix.lower()
    if suffix in RASTERS:
        return _named_bands(path, *_read_raster(path), bands)
    if suffix not in ARRAYS:
        raise ValueError(f"{path} is no query: expected a GeoTIFF (.tif), a folder of GeoTIFFs, a .npy or a .npz.")
    try:
        held = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a numpy file: {error}") from error
    return held if isinstance(held, np.ndarray) else _picked({name: held[name] for name in held.files}, path, bands)


def _named_bands(
    path: Path, pixels: np.ndarray[Any, Any], names: Sequence[str | None], bands: Sequence[str]
) -> dict[str, np.ndarray[Any, Any]]:
    by_name = {str(name).strip().upper(): layer for name, layer in zip(names, pixels, strict=True)}
    if all(band.upper() in by_name for band in bands):
        return {band: by_name[band.upper()] for band in bands}
    if len(pixels) != len(bands):
        raise ValueError(
            f"{path} has {len(pixels)} bands, described as {list(names)}: expected the bands {list(bands)} by description, or exactly "
            "those in this order."
        )
    return dict(zip(bands, pixels, strict=True))


def _read_folder(folder: Path, bands: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    found = {
        path.stem.rpartition("_")[2].upper(): path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in RASTERS
    }
    return {band: _read_raster(path)[0][0] for band, path in _picked(found, folder, bands).items()}


def _picked(found: Mapping[str, Any], path: Path, bands: Sequence[str]) -> dict[str, Any]:
    by_name = {name.upper(): value for name, value in found.items()}
    lacking = [band for band in bands if band.upper() not in by_name]
    if lacking:
        raise ValueError(f"{path} lacks the bands {', '.join(lacking)}; it has {', '.join(found) or 'none'}.")
    return {band: by_name[band.upper()] for band in bands}


def _read_raster(path: Path) -> tuple[np.ndarray[Any, Any], Sequence[str | None]]:
    """Pixels (C, H, W) of a GeoTIFF and the descriptions of its bands."""
    with open_image(path) as source:
        return source.read(), source.descriptions


def choose_sensors(archive: "Archive", sensor: str | None, archive_sensor: str | None) -> tuple[str, str]:
    """Choose the sensor of a query, and the sensor whose embeds are searched.

    Args:
        archive: The archive.
        sensor: Sensor of the query, where it was said.
        archive_sensor: Sensor to search, where it was said.

    Returns:
        Both.

    Raises:
        ValueError: If they cannot be chosen, or the archive lacks the one to search.
    """
    held = archive.sensors
    if sensor is None and archive_sensor is None and len(held) > 1:
        raise ValueError(f"Say which sensor the query is of: one of {', '.join(held)}, or another of the model's.")
    asked = sensor or archive_sensor or held[0]
    target = archive_sensor or (asked if asked in held or len(held) > 1 else held[0])
    if target not in held:
        raise ValueError(f"The archive has no embeds of {target!r} to search; it has {', '.join(held)}.")
    return asked, target


def query_vectors(archive: "Archive", query: Any, sensor: str) -> tuple[list[str], torch.Tensor, IntArray]:
    """Make unit vectors of queries of any form.

    Args:
        archive: The archive.
        query: As of `Archive.search`.
        sensor: Its sensor.

    Returns:
        The name of each query, (Q, D) unit vectors, and (Q,) the row of the tile that each is, -1 for none.

    Raises:
        ValueError: If an id is unknown, or something is no query.
        FileNotFoundError: If the model is needed and not there.
    """
    items = [] if query is None else list(query) if isinstance(query, (list, tuple)) else [query]
    rows: Mapping[str, int] = archive.rows_by_id if any(isinstance(item, str) for item in items) else {}
    names: list[str] = []
    parts: list[torch.Tensor] = []
    own: list[int] = []
    for place, item in enumerate(items):
        name, row = f"query {place}", -1
        if isinstance(item, str) and item in rows:
            name, row = item, rows[item]
            vectors = _stored(archive, row, sensor)
        elif isinstance(item, (str, os.PathLike)):
            name = os.fspath(item)
            vectors = _embed_file(archive, name, sensor)
        else:
            vectors = _embed_item(archive, item, sensor, name)
        names += [f"{name} [{number}]" for number in range(len(vectors))] if len(vectors) > 1 else [name]
        parts.append(vectors)
        own += [row] * len(vectors)
    return names, torch.cat(parts) if parts else torch.empty(0, archive.width), np.array(own, dtype=np.int64)


def _stored(archive: "Archive", row: int, sensor: str) -> torch.Tensor:
    if sensor not in archive.sensors:
        raise ValueError(
            f"The archive has no embeds of {sensor!r}, so its tiles cannot be queries of it; it has {', '.join(archive.sensors)}. "
            "Give the image itself."
        )
    return archive.vectors[sensor][row : row + 1]


def _embed_file(archive: "Archive", name: str, sensor: str) -> torch.Tensor:
    if not Path(name).exists():
        raise ValueError(
            f"{name!r} is neither the id of one of the archive's {len(archive)} tiles nor a file or folder."
        )
    _, processor = archive.load_model()
    if sensor not in processor.sensors:
        raise ValueError(f"The model has no sensor {sensor!r}; it has {', '.join(processor.sensors)}.")
    return _embed_item(archive, read_image_file(name, processor.sensors[sensor]), sensor, name)


def _embed_item(archive: "Archive", item: Any, sensor: str, name: str) -> torch.Tensor:
    """Embed an image or a batch of images, or take embeds."""
    if hasattr(item, "keys"):
        return archive.embed([item], sensor, [name])
    array = item.detach().cpu().numpy() if isinstance(item, torch.Tensor) else np.asarray(item)
    if array.ndim in (1, 2) and array.dtype.kind == "f":
        embeds = np.atleast_2d(array)
        if embeds.shape[1] != archive.width:
            raise ValueError(f"{name} has shape {array.shape}: embeds of this archive have the width {archive.width}.")
        return aligned_vectors({sensor: embeds}, archive.alignment)[sensor][:]
    if array.ndim not in (3, 4):
        raise ValueError(
            f"{name} has shape {array.shape}: expected an image (C, H, W), a batch of them, or embeds of floats."
        )
    images = list(array) if array.ndim == 4 else [array]
    return archive.embed(
        images, sensor, [f"{name} [{place}]" for place in range(len(images))] if array.ndim == 4 else [name]
    )


def bands_of_file(archive: "Archive", path: str, sensor: str) -> dict[str, Any]:
    """Read the images of a file to look at, under the names that a search by this file gives its queries.

    Args:
        archive: The archive.
        path: As of `read_image_file`.
        sensor: Its sensor.

    Returns:
        Bands by name, by the query's name; None for embeds, which have no picture.
    """
    _, processor = archive.load_model()
    bands = processor.sensors[sensor]
    held = read_image_file(path, bands)
    if hasattr(held, "keys"):
        return {path: held}
    images = list(held) if held.ndim in (2, 4) and len(held) != 1 else [held[0] if held.ndim in (2, 4) else held]
    names = [f"{path} [{place}]" for place in range(len(images))] if len(images) > 1 else [path]
    return {
        name: None if image.ndim == 1 else dict(zip(bands, image, strict=True))
        for name, image in zip(names, images, strict=True)
    }
