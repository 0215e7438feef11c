"""The tiles of an evaluation, and their embeds: loaded, embedded by every process, collected by the first."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import AutoModel, set_seed

from csmae_hf.data.collate import group_reasons
from csmae_hf.data.evenly import evenly
from csmae_hf.data.image_options import read_image_options, read_sensors
from csmae_hf.data.load import ALL_TILES, split_name
from csmae_hf.data.suspects import MAX_UNREADABLE_SHARE, SUSPECT_REMEDY
from csmae_hf.embedding.embed import SuspectReason
from csmae_hf.embedding.encoder import load_encoder
from csmae_hf.embedding.foreign import Encoder, EncoderModule, encoder_pair
from csmae_hf.embedding.shards import EmbedPlan, collect_embeds, embed_missing, plan_embeds, refuse_failed
from csmae_hf.evaluation.alignment_choice import AUTO
from csmae_hf.evaluation.baselines import BAND_STATISTICS, UNTRAINED, BandStatistics
from csmae_hf.evaluation.evaluate import Embedded
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.files import write_atomically
from csmae_hf.sample.default import load_data_or_sample
from image_processing_csmae import CSMAEImageProcessor

logger = logging.getLogger(__name__)

TRAIN_SPLIT = "train"


@dataclass(frozen=True)
class Tiles:
    """The tiles of an evaluation."""

    dataset: Dataset  # queries and archive
    splits: tuple[str | None, str | None]  # names of their splits, None where that is all tiles
    train: Dataset | None  # where alignment or probe needs training tiles
    no_train: str = ""  # why there are none
    skipped: int = 0  # left out because they could not be embedded


@dataclass(frozen=True)
class Job:
    """A model or baseline whose tiles are embedded: where the embeds lie."""

    name: str
    plans: list[EmbedPlan]
    train_plans: list[EmbedPlan]  # empty where its training tiles are not needed


def load_run_tiles(options: RetrievalOptions, fits: bool) -> Tiles:
    """Load the tiles of queries, archive and, where there are any, training. `fits` is whether a model needs these.

    ValueError where splits do not go together, or training tiles are asked for by name and there are none.
    """
    splits = split_name(options.query_split), split_name(options.archive_split)
    names = list(dict.fromkeys(splits))
    if ALL_TILES in names and len(names) > 1:
        raise ValueError(f"query_split and archive_split are {names}: use {ALL_TILES!r} for both, or for neither.")
    said = read_image_options(vars(options))

    def load(split: str) -> Dataset:
        return load_data_or_sample(
            options.data,
            split,
            subset=options.subset,
            metadata=options.metadata,
            splits=options.splits,
            missing=options.missing,
            limit=options.max_tiles,
            **said,
        )

    parts = [load(name) for name in names]
    dataset = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    named = (None, None) if ALL_TILES in names else splits
    try:
        if {ALL_TILES, TRAIN_SPLIT} & set(names):
            raise ValueError(
                "Training tiles are queries or archive here; what is fitted on them would know the answers."
            )
        train = load(TRAIN_SPLIT)
    except ValueError as error:
        if fits and (options.probe or options.alignment != AUTO):
            raise ValueError(f"An alignment or a probe is fitted on the training split: {error}") from error
        return Tiles(dataset, named, None, str(error))
    if not options.probe:
        train = train.select(evenly(len(train), options.alignment_pairs))
    return Tiles(dataset, named, train)


def embed_all(
    groups: Mapping[str, Sequence[str]],
    tiles: Tiles,
    options: RetrievalOptions,
    state: PartialState,
    *,
    with_train: bool,
    encoders: Mapping[str, Encoder] | None = None,
) -> list[Job]:
    """Embed what is not embedded yet, of every model and baseline: this process's share of it.

    Args:
        groups: The trainings of each model, folders or Hub names, by its name.
        tiles: The tiles.
        options: How.
        state: The processes.
        encoders: By name, members of groups that are encoders of another kind.
        with_train: Whether models are to embed the training tiles too; band statistics always take them.

    Returns:
        Where the embeds of each training lie, then those of each model with random weights, and the band statistics.
    """
    trained, blank = [], []
    processors: list[Any] = []
    measured: dict[str, None] = {}  # sensors of any model
    for group, members in groups.items():
        for name in members:
            model, processor = (
                encoder_pair(encoders[name], name)
                if encoders and name in encoders
                else load_encoder(name, trust_remote_code=options.trust_remote_code)
            )
            sensors = _sensors(model, tiles.dataset, options)
            processors.append(processor)
            measured |= dict.fromkeys(sensors)
            embed = partial(_embed, processor=processor, sensors=sensors, tiles=tiles, options=options, state=state)
            trained.append(embed(name, model, with_train=with_train))
        if options.untrained:
            set_seed(options.seed)
            random_model = _untrained(model, options)
            if random_model is None:
                logger.warning("%s does not say how its weights are drawn: it is not measured untrained.", group)
                continue
            blank.append(embed(baseline_name(UNTRAINED, group, groups), random_model, with_train=with_train))
    processor = _statistics_processor(processors, tiles.dataset, list(measured))
    embed = partial(_embed, sensors=list(measured), tiles=tiles, options=options, state=state, with_train=True)
    statistics = embed(BAND_STATISTICS, BandStatistics(processor.sensors), processor=processor)
    return [*trained, *blank, statistics]


def _statistics_processor(processors: Sequence[Any], dataset: Dataset, sensors: Sequence[str]) -> Any:
    """What reads pixels for the band statistics: all bands that any of the models sees, whichever is named first.

    That is the models' own processor where they share one, else CSMAE's; of models that read no pixels, with all bands of the data.
    """
    readers = [one for one in processors if not hasattr(one, "collator")]
    bands = {
        sensor: list(dict.fromkeys(band for one in readers for band in one.sensors.get(sensor, ())))
        for sensor in sensors
    }
    if readers and all(list(one.sensors.get(sensor, ())) == bands[sensor] for one in readers for sensor in sensors):
        return readers[0]
    for sensor in sensors:
        feature = dataset.features[sensor]
        bands[sensor] = bands[sensor] or list(getattr(feature, "bands", feature))
    names = [band for of_sensor in bands.values() for band in of_sensor]
    own = {name: getattr(one, name) for one in readers[:1] for name in ("size", "units")}
    return CSMAEImageProcessor(
        sensors=bands, band_mean=dict.fromkeys(names, 0.0), band_std=dict.fromkeys(names, 1.0), **own
    )


def _untrained(model: torch.nn.Module, options: RetrievalOptions) -> torch.nn.Module | None:
    """The same model with random weights; None for an encoder that does not say how these are drawn."""
    if isinstance(model, EncoderModule):
        made = model.encoder.untrained() if hasattr(model.encoder, "untrained") else None
        return None if made is None else encoder_pair(made)[0]
    untrained: torch.nn.Module = AutoModel.from_config(model.config, trust_remote_code=options.trust_remote_code)
    return untrained


def baseline_name(kind: str, group: str, groups: Collection[str]) -> str:
    """What a baseline of a model is called: its kind, and of which model where there are several."""
    return kind if len(groups) == 1 else f"{group}, {kind}"


def _embed(
    name: str,
    model: torch.nn.Module,
    *,
    processor: Any,
    sensors: Sequence[str],
    tiles: Tiles,
    options: RetrievalOptions,
    state: PartialState,
    with_train: bool,
) -> Job:
    parts = [tiles.dataset, *([tiles.train] if with_train and tiles.train is not None else [])]
    plans = [plan_embeds(options.cache, model, processor, part, sensors, options.suspect) for part in parts]
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


def _sensors(model: torch.nn.Module, dataset: Dataset, options: RetrievalOptions) -> list[str]:
    """The sensors asked for, or all that model and data have."""
    known = list(model.config.sensors)  # type: ignore[union-attr, arg-type]
    if options.sensors:
        return list(read_sensors(options.sensors) or ())
    sensors = [sensor for sensor in known if sensor in dataset.column_names]
    absent = [sensor for sensor in known if sensor not in sensors]
    if not sensors:
        raise ValueError(
            f"The model has the sensors {', '.join(known)}, of which the data have none: they have the columns "
            f"{', '.join(dataset.column_names)}."
        )
    if absent:
        logger.warning("The data have no %s: measured are %s.", ", ".join(absent), ", ".join(sensors))
    return sensors


Collected = tuple[dict[str, Embedded], dict[str, Embedded]]
"""Embedded tiles by sensor: queries and archive, and training tiles."""


def collect_all(jobs: Sequence[Job], tiles: Tiles, options: RetrievalOptions) -> tuple[Tiles, list[Collected]]:
    """Join embeds with metadata: the tiles that are left, and of each model, all embedded, the embedded tiles.

    Tiles that could not be embedded for any model and sensor are left out of all, or refused (`UnusableTilesError`), as the options
    say. FileNotFoundError where another process did not write its share.
    """
    parts = [part for part in (tiles.dataset, tiles.train) if part is not None]
    found = [
        [{plan.sensor: collect_embeds(plan) for plan in plans} for plans in (job.plans, job.train_plans)]
        for job in jobs
    ]
    reasons: dict[str, str] = {}
    kept: list[tuple[Dataset, Any]] = []  # what is left of each part, and its rows
    for place, part in enumerate(parts):
        failed = {
            row: why
            for one in found
            for cached in (one[place].values() if one[place] else ())
            for row, why in cached.failed.items()
        }
        if not failed:
            kept.append((part, slice(None)))
            continue
        names, rows = part["id"], [row for row in range(len(part)) if row not in failed]
        reasons |= {names[row]: failed[row] for row in sorted(failed)}
        kept.append((part.select(rows), rows))
    path = Path(options.output_dir) / "skipped_tiles.json"
    path.unlink(missing_ok=True)
    total = sum(map(len, parts))
    suspects = {name: why for name, why in reasons.items() if isinstance(why, SuspectReason)}
    if options.unusable == "error":
        refuse_failed({name: why for name, why in reasons.items() if name not in suspects}, total, options.cache)
    if options.suspect == "refuse" or len(suspects) > MAX_UNREADABLE_SHARE * total:
        refuse_failed(suspects, total, options.cache, SUSPECT_REMEDY)
    if reasons:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"tiles": reasons}, indent=2, ensure_ascii=False) + "\n")
        logger.warning("%d tiles could not be embedded and are left out; %s lists them.", len(reasons), path)
        if suspects:
            logger.warning("%d of them by a guess:\n%s", len(suspects), group_reasons(list(suspects.values())))
    collected = []
    for one in found:
        joined = [
            {sensor: Embedded.from_dataset(cached.embeds[rows], part) for sensor, cached in by_sensor.items()}
            for (part, rows), by_sensor in zip(kept, one, strict=False)
        ]
        collected.append((joined[0], joined[1] if len(joined) > 1 else {}))
    train = kept[1][0] if len(kept) > 1 else None
    return Tiles(kept[0][0], tiles.splits, train, tiles.no_train, len(reasons)), collected
