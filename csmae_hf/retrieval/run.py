"""One retrieval evaluation, from trained models to tables and pictures."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel, set_seed

import csmae_hf  # noqa: F401 (registers the Auto classes)
from csmae_hf.data.load import ALL_TILES, Missing, load_archive, split_name
from csmae_hf.retrieval.embed import embed_dataset
from csmae_hf.retrieval.evaluate import DirectionResult, Embedded, evaluate_retrieval, format_table, write_results
from csmae_hf.retrieval.pictures import picture_direction
from csmae_hf.retrieval.report import format_summary, write_summary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrievalOptions:
    """How to evaluate.

    Attributes:
        data: Archive, as of `load_archive`.
        subset: Subset of BigEarthNet, as of `load_bigearthnet`; None for all tiles.
        metadata: Its metadata, where not beside it.
        splits: Its split lists, where not beside it.
        missing: `"error"` or `"drop"`: what to do if more than 1 % of the named tiles are not in the LMDB.
        query_split: Split of the queries, or `all`.
        archive_split: Split that is searched, or `all`.
        k: Results per query.
        output_dir: Where results go.
        max_tiles: The most tiles of each split; None for all.
        batch_size: Tiles of a forward pass.
        num_workers: Processes that read tiles.
        device: Where to embed; None for a GPU if there is one.
        untrained: Also evaluate the same model with random weights.
        pictures: Queries in each picture; 0 draws none.
        seed: Seed of random orders and random weights.
    """

    data: str | None = None
    subset: str | None = None
    metadata: str | None = None
    splits: str | None = None
    missing: Missing = "error"
    query_split: str = "validation"
    archive_split: str = "test"
    k: int = 10
    output_dir: str = "runs/retrieval"
    max_tiles: int | None = None
    batch_size: int = 64
    num_workers: int = 0
    device: str | None = None
    untrained: bool = False
    pictures: int = 6
    seed: int = 0


@dataclass(frozen=True)
class RetrievalOutcome:
    """What an evaluation gave.

    Attributes:
        runs: The directions of each model, by its name.
        untrained: The directions of the model with random weights, if asked for.
        table: What to print.
        files: What was written.
    """

    runs: dict[str, list[DirectionResult]]
    untrained: list[DirectionResult] | None
    table: str
    files: list[Path]


def retrieve(models: Sequence[str], options: RetrievalOptions) -> RetrievalOutcome:
    """Evaluate one model, or several trainings of one, in all ordered pairs of their sensors.

    Args:
        models: Folders or Hub names.
        options: How.

    Returns:
        Results, table and files.

    Raises:
        ValueError: If models, data or options do not fit together.
    """
    dataset, splits = load_queries_and_archive(options)
    folder = Path(options.output_dir)
    runs: dict[str, list[DirectionResult]] = {}
    files: list[Path] = []
    for name in models:
        model, processor = load_model(name)
        runs[name] = evaluate_model(model, processor, dataset, splits, options)
        place = folder / Path(name).name if len(models) > 1 else folder
        metadata = {"model": name, "data": options.data or "synthetic sample archive", "seed": options.seed}
        files += write_results(runs[name], place, metadata)
    untrained = None
    if options.untrained:
        set_seed(options.seed)
        untrained = evaluate_model(AutoModel.from_config(model.config), processor, dataset, splits, options)
    if options.pictures:
        files += draw_pictures(runs[models[0]], dataset, folder, options.pictures)
    if len(models) > 1 or untrained is not None:
        files.append(write_summary(runs, folder, untrained))
        table = format_summary(runs, untrained)
    else:
        table = format_table(runs[models[0]])
    return RetrievalOutcome(runs, untrained, table, files)


def load_queries_and_archive(options: RetrievalOptions) -> tuple[Dataset, tuple[str | None, str | None]]:
    """Load the tiles of both splits as one dataset; also return the splits' names, None where that is all tiles."""
    splits = split_name(options.query_split), split_name(options.archive_split)
    names = list(dict.fromkeys(splits))
    if ALL_TILES in names and len(names) > 1:
        raise ValueError(f"query_split and archive_split are {names}: use {ALL_TILES!r} for both, or for neither.")
    parts = [
        load_archive(
            options.data,
            name,
            subset=options.subset,
            metadata=options.metadata,
            splits=options.splits,
            missing=options.missing,
            limit=options.max_tiles,
        )
        for name in names
    ]
    if ALL_TILES in names:
        return parts[0], (None, None)
    return concatenate_datasets(parts), splits


def load_model(name: str) -> tuple[PreTrainedModel, Any]:
    """Load an encoder and its processor.

    Raises:
        FileNotFoundError: If there is no such folder and no such name in the cache or on the Hub.
    """
    try:
        return AutoModel.from_pretrained(name), AutoImageProcessor.from_pretrained(name)
    except OSError as error:
        raise FileNotFoundError(
            f"No model at {name}: train one with run_pretraining.py, or name a folder or Hub id. ({error})"
        ) from error


def evaluate_model(
    model: PreTrainedModel,
    processor: Any,
    dataset: Dataset,
    splits: tuple[str | None, str | None],
    options: RetrievalOptions,
) -> list[DirectionResult]:
    """Embed the tiles by each of the model's sensors, and measure every direction."""
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    embedded = {
        sensor: Embedded.from_dataset(
            embed_dataset(
                model,
                processor,
                dataset,
                sensor,
                batch_size=options.batch_size,
                device=device,
                num_workers=options.num_workers,
            ),
            dataset,
        )
        for sensor in model.config.sensors
    }
    return evaluate_retrieval(
        embedded, k=options.k, query_split=splits[0], archive_split=splits[1], seed=options.seed, device=device
    )


def draw_pictures(results: Sequence[DirectionResult], dataset: Dataset, folder: Path, queries: int) -> list[Path]:
    """Draw the directions between different sensors; where matplotlib is missing, say how to get it and go on."""
    try:
        return [
            picture_direction(
                result,
                dataset,
                folder / f"retrieval_{result.query_sensor}_to_{result.archive_sensor}.png",
                queries=queries,
            )
            for result in results
            if result.query_sensor != result.archive_sensor
        ]
    except ImportError as error:
        logger.warning("No pictures were drawn. %s", error)
        return []
