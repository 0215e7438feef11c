"""The tiles of an evaluation, and their embeds: loaded, embedded by every process, collected by the first."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel, set_seed

import csmae_hf  # noqa: F401 (registers the Auto classes)
from csmae_hf.data.load import ALL_TILES, split_name
from csmae_hf.embedding.shards import EmbedPlan, collect_embeds, embed_missing, plan_embeds, refuse_failed
from csmae_hf.evaluation.alignment_choice import AUTO
from csmae_hf.evaluation.evaluate import Embedded, evenly
from csmae_hf.evaluation.options import RetrievalOptions
from csmae_hf.files import write_atomically
from csmae_hf.sample.default import load_data_or_sample

logger = logging.getLogger(__name__)

TRAIN_SPLIT = "train"
UNTRAINED = "(untrained)"
"""Name of the model with random weights."""


@dataclass(frozen=True)
class Tiles:
    """The tiles of an evaluation.

    Attributes:
        dataset: Queries and archive.
        splits: Names of their splits, None where that is all tiles.
        train: Training tiles, where alignment or probe needs them.
        no_train: Why there are none.
        skipped: Tiles left out because they could not be embedded.
    """

    dataset: Dataset
    splits: tuple[str | None, str | None]
    train: Dataset | None
    no_train: str = ""
    skipped: int = 0


@dataclass(frozen=True)
class Job:
    """A model whose tiles are embedded: where the embeds lie."""

    name: str
    plans: list[EmbedPlan]
    train_plans: list[EmbedPlan]


def load_run_tiles(options: RetrievalOptions, needs_train: bool) -> Tiles:
    """Load the tiles of queries, archive and, where they are needed and there are any, training.

    Args:
        options: How.
        needs_train: Whether training tiles are wanted.

    Returns:
        The tiles.

    Raises:
        ValueError: The splits do not go together, or training tiles are asked for by name and there are none.
    """
    splits = split_name(options.query_split), split_name(options.archive_split)
    names = list(dict.fromkeys(splits))
    if ALL_TILES in names and len(names) > 1:
        raise ValueError(f"query_split and archive_split are {names}: use {ALL_TILES!r} for both, or for neither.")
    load = partial(
        load_data_or_sample,
        options.data,
        subset=options.subset,
        metadata=options.metadata,
        splits=options.splits,
        missing=options.missing,
        limit=options.max_tiles,
    )
    parts = [load(name) for name in names]
    dataset = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    named = (None, None) if ALL_TILES in names else splits
    if not needs_train:
        return Tiles(dataset, named, None)
    try:
        if {ALL_TILES, TRAIN_SPLIT} & set(names):
            raise ValueError(
                "Training tiles are queries or archive here; what is fitted on them would know the answers."
            )
        train = load(TRAIN_SPLIT)
    except ValueError as error:
        if options.probe or options.alignment not in (AUTO, "none"):
            raise ValueError(f"An alignment or a probe is fitted on the training split: {error}") from error
        return Tiles(dataset, named, None, str(error))
    if not options.probe:
        train = train.select(evenly(len(train), options.alignment_pairs))
    return Tiles(dataset, named, train)


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


def embed_all(models: Sequence[str], tiles: Tiles, options: RetrievalOptions, state: PartialState) -> list[Job]:
    """Embed what is not embedded yet, of every model: this process's share of it.

    Args:
        models: Folders or Hub names.
        tiles: The tiles.
        options: How.
        state: The processes.

    Returns:
        Where the embeds of each model lie; with random weights last, where they are asked for.
    """
    jobs = []
    for name in models:
        model, processor = load_model(name)
        jobs.append(_embed_model(name, model, processor, tiles, options, state))
    if options.untrained:
        set_seed(options.seed)
        random_model = AutoModel.from_config(model.config)
        jobs.append(_embed_model(UNTRAINED, random_model, processor, tiles, options, state))
    return jobs


def _embed_model(
    name: str, model: PreTrainedModel, processor: Any, tiles: Tiles, options: RetrievalOptions, state: PartialState
) -> Job:
    sensors = _sensors(model, tiles.dataset, options)
    parts = [tiles.dataset, *([tiles.train] if tiles.train is not None else [])]
    plans = [plan_embeds(options.cache, model, processor, part, sensors) for part in parts]
    for part, part_plans in zip(parts, plans, strict=True):
        for plan in part_plans:
            embed_missing(
                plan,
                model,
                processor,
                part,
                batch_size=options.batch_size,
                device=device_of(options, state),
                num_workers=options.num_workers,
                process=state.process_index,
                processes=state.num_processes,
                progress=state.is_main_process,
            )
    return Job(name, plans[0], plans[1] if len(plans) > 1 else [])


def device_of(options: RetrievalOptions, state: PartialState) -> torch.device:
    """The device asked for; of several processes each has its own of that kind."""
    wanted = torch.device(options.device) if options.device else state.device
    return state.device if wanted.type == state.device.type and wanted.index is None else wanted


def _sensors(model: PreTrainedModel, dataset: Dataset, options: RetrievalOptions) -> list[str]:
    """The sensors asked for, or all that model and archive have."""
    if options.sensors:
        return list(dict.fromkeys(name.strip() for name in options.sensors.split(",")))
    sensors = [sensor for sensor in model.config.sensors if sensor in dataset.column_names]
    absent = [sensor for sensor in model.config.sensors if sensor not in sensors]
    if not sensors:
        raise ValueError(
            f"The model has the sensors {', '.join(model.config.sensors)}, of which the archive has none: it has the columns "
            f"{', '.join(dataset.column_names)}."
        )
    if absent:
        logger.warning("The archive has no %s: measured are %s.", ", ".join(absent), ", ".join(sensors))
    return sensors


Collected = tuple[dict[str, Embedded], dict[str, Embedded]]
"""Embedded tiles by sensor: queries and archive, and training tiles."""


def collect_all(jobs: Sequence[Job], tiles: Tiles, options: RetrievalOptions) -> tuple[Tiles, list[Collected]]:
    """Join embeds with metadata. Tiles that could not be embedded for any model and sensor are left out of all, or refused.

    Args:
        jobs: Models whose tiles are all embedded.
        tiles: The tiles.
        options: What to do about those that could not be.

    Returns:
        The tiles that are left, and of each model the embedded tiles.

    Raises:
        UnusableTilesError: Tiles could not be embedded, and the options do not say to skip them.
        FileNotFoundError: Another process did not write its share.
    """
    parts = [tiles.dataset, *([tiles.train] if tiles.train is not None else [])]
    found = [
        [{plan.sensor: collect_embeds(plan) for plan in plans} for plans in (job.plans, job.train_plans)]
        for job in jobs
    ]
    failed = [
        {row: why for one in found for cached in one[place].values() for row, why in cached.failed.items()}
        for place in range(len(parts))
    ]
    reasons = {
        name: rows[row]
        for part, rows in zip(parts, failed, strict=True)
        if rows
        for row, name in enumerate(part["id"])
        if row in rows
    }
    _report_failed(reasons, sum(map(len, parts)), options)
    good = [
        np.array([row for row in range(len(part)) if row not in rows]) for part, rows in zip(parts, failed, strict=True)
    ]
    kept = [part.select(rows) if bad else part for part, rows, bad in zip(parts, good, failed, strict=True)]
    embeds = [
        [
            {
                sensor: Embedded.from_dataset(cached.embeds[good[place]] if failed[place] else cached.embeds, part)
                for sensor, cached in one[place].items()
            }
            for place, part in enumerate(kept)
        ]
        for one in found
    ]
    left = Tiles(kept[0], tiles.splits, kept[1] if len(kept) > 1 else None, tiles.no_train, len(reasons))
    return left, [(one[0], one[1] if len(one) > 1 else {}) for one in embeds]


def _report_failed(reasons: dict[str, str], n_tiles: int, options: RetrievalOptions) -> None:
    """Refuse tiles that could not be embedded, or write down that they are left out."""
    path = Path(options.output_dir) / "skipped_tiles.json"
    path.unlink(missing_ok=True)
    if options.unusable == "error":
        refuse_failed(reasons, n_tiles, options.cache)
    if reasons:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"tiles": reasons}, indent=2, ensure_ascii=False) + "\n")
        logger.warning("%d tiles could not be embedded and are left out; %s lists them.", len(reasons), path)
