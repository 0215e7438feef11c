"""Tiles to embeds: one sensor of a dataset through a model, in order, with a progress bar."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from csmae_hf.cpu import speed_up
from csmae_hf.data.collate import TileCollator

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

ID_COLUMN = "id"
"""Column that names the tile, where a dataset has one: errors then name the tile."""


def embed_dataset(
    model: torch.nn.Module,
    processor: Any,
    dataset: "Dataset",
    sensor: str,
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Embed every tile of a dataset as one sensor sees it.

    Only this sensor's pixels are read. The model is left as it was found: mode and device.

    Args:
        model: A `CSMAEModel`, or any module with `config.sensors` whose output has `embeds[sensor]`.
        processor: The model's image processor.
        dataset: Rows with a pixel column named like the sensor, `{band: array}`.
        sensor: Sensor to embed.
        batch_size: Tiles per forward pass.
        device: Where to embed; default where the model is.
        num_workers: Processes that read and preprocess; 0 does it in this one.
        progress: Show a bar with images per second on the terminal when it takes more than 2 seconds.

    Returns:
        (N, D) float32, row i of tile i.

    Raises:
        ValueError: The model or the dataset lacks the sensor, the dataset is empty, or a tile is unusable (named).
    """
    check_sensor(model, dataset, sensor)
    columns = [name for name in (ID_COLUMN, sensor) if name in dataset.column_names]
    own = next(model.parameters())
    target = own.device if device is None else torch.device(device)
    loader: DataLoader[Any] = DataLoader(
        dataset.select_columns(columns),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=TileCollator(processor, [sensor]),
        pin_memory=target.type == "cuda",
    )
    embeds: NDArray[np.float32] | None = None
    done = 0
    with (
        evaluating(model, target),
        torch.inference_mode(),
        tqdm(total=len(dataset), desc=f"embedding {sensor}", unit="image", delay=2, disable=not progress) as bar,
    ):
        for images in loader:
            batch = forward_pixels(model, images[sensor], sensor, target)
            if embeds is None:
                embeds = np.empty((len(dataset), batch.shape[1]), dtype=np.float32)
            embeds[done : done + len(batch)] = batch
            done += len(batch)
            bar.update(len(batch))
    if embeds is None or done != len(dataset):
        raise ValueError(
            f"The dataset announced {len(dataset)} tiles but gave {done}; it must keep its length while it is read."
        )
    return embeds


def forward_pixels(
    model: torch.nn.Module, pixels: torch.Tensor, sensor: str, device: torch.device
) -> NDArray[np.float32]:
    """Embed one batch of one sensor.

    Args:
        model: On the device, in evaluation mode.
        pixels: (B, C, H, W), standardised.
        sensor: Whose they are.
        device: Where the model is.

    Returns:
        (B, D) float32.
    """
    own = next(model.parameters())
    outputs = model(**{sensor: pixels.to(device=device, dtype=own.dtype, non_blocking=True)})
    embeds: NDArray[np.float32] = outputs.embeds[sensor].float().cpu().numpy()
    return embeds


def check_sensor(model: torch.nn.Module, dataset: "Dataset", sensor: str) -> None:
    """Refuse a sensor that the model or the dataset lacks, and an empty dataset.

    Args:
        model: With `config.sensors`.
        dataset: The tiles.
        sensor: To embed.

    Raises:
        ValueError: Naming what there is instead.
    """
    sensors = list(model.config.sensors)  # type: ignore[union-attr, arg-type]
    if sensor not in sensors:
        raise ValueError(f"The model has no sensor {sensor!r}; it has {', '.join(map(repr, sensors))}.")
    if sensor not in dataset.column_names:
        raise ValueError(
            f"The dataset has no pixel column {sensor!r}; its columns are {', '.join(dataset.column_names)}. "
            f"Load it with this sensor, or rename its column to {sensor!r}."
        )
    if not len(dataset):
        raise ValueError("The dataset has no tiles; check the split and the filters that made it.")


@contextmanager
def evaluating(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """The model in evaluation mode on the device; after it every module's mode, and the model's device, as before."""
    modes = [(module, module.training) for module in model.modules()]
    home = next(model.parameters()).device
    model.eval()
    if device != home:
        model.to(device)
    if device.type == "cpu":
        speed_up(model)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        if device != home:
            model.to(home)
