"""Mean and standard deviation of every band of a dataset, as the model sees it: in one pass, by any number of processes."""

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from csmae_hf.data.collate import TileCollator, group_reasons, is_suspect
from csmae_hf.data.suspects import MAX_UNREADABLE_SHARE, SUSPECT_REMEDY, Suspect, check_suspect
from csmae_hf.data.units import image_columns
from image_processing_csmae import CSMAEImageProcessor

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moments:
    """Count, mean and summed squared deviation of each of several bands; float64, so that they add up without loss.

    Attributes:
        count: Pixels of each band.
        mean: (bands,).
        squares: Sum of squared deviations from the mean, (bands,).
    """

    count: int
    mean: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def of(cls, images: torch.Tensor) -> "Moments":
        """Take those of images, (B, bands, H, W)."""
        pixels = images.transpose(0, 1).flatten(1).double()  # (bands, B * H * W)
        variance, mean = torch.var_mean(pixels, dim=1, correction=0)
        return cls(pixels.shape[1], mean, variance * pixels.shape[1])

    def __add__(self, other: "Moments") -> "Moments":
        """Those of both together (Chan, Golub, LeVeque 1979): neither order nor sizes of the parts matter."""
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step**2 * (self.count * other.count / count)
        return Moments(count, mean, squares)

    @property
    def std(self) -> torch.Tensor:
        """Standard deviation of each band (of the population), (bands,)."""
        return (self.squares / self.count).sqrt()


def _moments_of(
    collator: TileCollator, leave_out: bool, rows: Sequence[Mapping[str, Any]]
) -> tuple[int, dict[str, Moments], list[str]]:
    """Rows to the moments of their images, in the process that loads them: nothing but a few numbers leaves it.

    And why images that look wrong by a guess were left out, where they are to be.
    """
    suspects: list[str] = []
    try:
        images = collator(rows)
    except ValueError as error:
        if not leave_out or not is_suspect(error):
            raise
        good = []
        for row in rows:
            try:
                collator([row])
                good.append(row)
            except ValueError as own:
                if not is_suspect(own):
                    raise
                suspects.append(str(own))
        images = collator(good) if good else {}
    return len(rows), {sensor: Moments.of(pixels) for sensor, pixels in images.items()}, suspects


def estimate_statistics(
    dataset: "Dataset",
    processor: CSMAEImageProcessor | None = None,
    *,
    sensors: Sequence[str] | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
    progress: bool = True,
    suspect: Suspect = "leave-out",
) -> CSMAEImageProcessor:
    """Estimate mean and standard deviation of every band over a dataset, at the model's size, as the processor resamples.

    Args:
        dataset: Any with pixel columns named by sensor, as of [`load_bigearthnet`].
        processor: Says which bands, which size and which units; its checks are applied. Default: the paper's.
        sensors: Sensors to take; default those of the processor. Bands of the others keep their statistics.
        batch_size: Tiles worked on at once.
        num_workers: Processes that read and resample; 0 does it in this one.
        progress: Show a bar when it takes more than 2 seconds.
        suspect: Whether tiles that look wrong by a guess are refused, left out, up to 1 % of all, or taken as they are.

    Returns:
        A processor like the one given, with the estimated statistics. Its `save_pretrained` writes them.

    Raises:
        ValueError: If the dataset is empty or lacks a sensor, a tile is not what the processor takes, a band does not vary, or too
            many tiles look wrong by a guess.
    """
    check_suspect(suspect)
    processor = processor or CSMAEImageProcessor()
    sensors = list(sensors or processor.sensors)
    lacking = [sensor for sensor in sensors if sensor not in processor.sensors or sensor not in dataset.column_names]
    if lacking or not len(dataset):
        raise ValueError(
            f"Cannot estimate statistics of {', '.join(sensors)}: the dataset has {len(dataset)} tiles and the columns "
            f"{', '.join(dataset.column_names)}; the processor has the sensors {', '.join(processor.sensors)}."
        )
    zero, one = (dict.fromkeys(processor.band_mean, value) for value in (0.0, 1.0))
    resampling = CSMAEImageProcessor(  # and standardising nothing
        processor.sensors, processor.size, band_mean=zero, band_std=one, units=processor.units
    )
    collator = TileCollator(resampling, sensors, suspect="accept" if suspect == "accept" else "refuse")
    loader: DataLoader[Any] = DataLoader(
        dataset.select_columns(image_columns(dataset, sensors)),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=functools.partial(_moments_of, collator, suspect == "leave-out"),
    )
    sums: dict[str, Moments] = {}
    suspects: list[str] = []
    with tqdm(total=len(dataset), desc="Statistics", unit="tile", delay=2, disable=not progress) as bar:
        for count, moments, found in loader:
            suspects += found
            if len(suspects) > MAX_UNREADABLE_SHARE * len(dataset):
                raise ValueError(
                    f"{len(suspects)} or more of {len(dataset)} tiles look wrong by a guess:\n{group_reasons(suspects)}\n"
                    f"{SUSPECT_REMEDY}."
                )
            sums = {sensor: sums[sensor] + part if sums else part for sensor, part in moments.items()} or sums
            bar.update(count)
    if suspects:
        logger.warning("%d of %d tiles are left out:\n%s", len(suspects), len(dataset), group_reasons(suspects))
    means, stds = dict(processor.band_mean), dict(processor.band_std)
    for sensor, moments in sums.items():
        bands = processor.sensors[sensor]
        means.update(zip(bands, moments.mean.tolist(), strict=True))
        stds.update(zip(bands, moments.std.tolist(), strict=True))
    flat = [band for band, std in stds.items() if not (std > 0 and math.isfinite(std))]
    if flat:
        raise ValueError(f"The bands {flat} do not vary over the {len(dataset)} tiles, so they cannot be standardised.")
    settings = {name: getattr(processor, name) for name in ("sensors", "size", "transpose", "units")}
    return CSMAEImageProcessor(**settings, band_mean=means, band_std=stds)


def format_statistics(processor: CSMAEImageProcessor, before: CSMAEImageProcessor) -> str:
    """Lay out statistics beside those of before, of the same bands: a table, a line a band."""
    lines = [f"{'band':<6}{'mean':>12}{'std':>12}{'mean before':>14}{'std before':>12}"]
    for band, mean in processor.band_mean.items():
        old_mean, old_std = before.band_mean[band], before.band_std[band]
        lines.append(f"{band:<6}{mean:>12.4f}{processor.band_std[band]:>12.4f}{old_mean:>14.4f}{old_std:>12.4f}")
    return "\n".join(lines)
