"""One retrieval evaluation, from trained models to tables, pictures and a report."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel, set_seed

import csmae_hf  # registers the Auto classes
from csmae_hf.data.load import ALL_TILES, Missing, load_archive, split_name
from csmae_hf.retrieval.alignment import Alignment
from csmae_hf.retrieval.alignment_choice import (
    AUTO,
    AlignmentChoice,
    alignment_as_dict,
    apply_alignment,
    choose_alignment,
    format_alignments,
    parse_methods,
)
from csmae_hf.retrieval.embed_cache import EmbedPlan, collect_embeds, embed_missing, plan_embeds, refuse_failed
from csmae_hf.retrieval.evaluate import Embedded, evaluate_retrieval, evenly
from csmae_hf.retrieval.files import write_atomically
from csmae_hf.retrieval.html_report import ReportContent, write_report
from csmae_hf.retrieval.pictures import draw_all
from csmae_hf.retrieval.probe import ProbeResult, format_probes, probe_all
from csmae_hf.retrieval.report import format_summary, write_summary
from csmae_hf.retrieval.results import DirectionResult, format_table, write_results

logger = logging.getLogger(__name__)

TRAIN_SPLIT = "train"


@dataclass(frozen=True)
class RetrievalOptions:
    """How to evaluate.

    Attributes:
        data: Archive, as of `load_archive`.
        metadata: Its metadata, where not beside it.
        splits: Its split lists, where not beside it.
        missing: `"error"` or `"drop"`: what to do if more than 1 % of the named tiles are not in the LMDB.
        unusable: `"error"` or `"skip"`: what to do, after all others are embedded, about tiles that could not be.
        query_split: Split of the queries, or `all`.
        archive_split: Split that is searched, or `all`.
        sensors: Names with commas between; None for all that both model and archive have.
        k: Results per query.
        alignment: `auto`, or one or more alignments with commas between: the best on validation tiles is used.
        alignment_pairs: The most training tiles that alignments are fitted on.
        probe: Also classify with a linear probe and k-NN.
        output_dir: Where results go.
        cache_dir: Where embeds are kept; None for `embeds` in the output folder.
        max_tiles: The most tiles of each split; None for all.
        batch_size: Tiles of a forward pass.
        num_workers: Processes that read tiles.
        device: Where to embed; None for a GPU if there is one.
        untrained: Also evaluate the same model with random weights.
        pictures: Queries in each picture and of each direction in the report; 0 draws none.
        resamples: Resamples of the queries for confidence intervals; 0 makes none.
        seed: Seed of random orders, resamples and random weights.
    """

    data: str | None = None
    metadata: str | None = None
    splits: str | None = None
    missing: Missing = "error"
    unusable: str = "error"
    query_split: str = "validation"
    archive_split: str = "test"
    sensors: str | None = None
    k: int = 10
    alignment: str = AUTO
    alignment_pairs: int = 4096
    probe: bool = False
    output_dir: str = "runs/retrieval"
    cache_dir: str | None = None
    max_tiles: int | None = None
    batch_size: int = 64
    num_workers: int = 0
    device: str | None = None
    untrained: bool = False
    pictures: int = 6
    resamples: int = 1000
    seed: int = 0

    @property
    def cache(self) -> Path:
        """Where embeds are kept."""
        return Path(self.cache_dir) if self.cache_dir else Path(self.output_dir) / "embeds"


@dataclass(frozen=True)
class Evaluation:
    """One model, measured.

    Attributes:
        results: The directions, under the alignment that is used.
        choice: The alignments.
        by_alignment: The directions under each alignment that was compared.
        probes: Classification; empty where it was not asked for.
    """

    results: list[DirectionResult]
    choice: AlignmentChoice
    by_alignment: dict[str, list[DirectionResult]]
    probes: list[ProbeResult] = field(default_factory=list)


@dataclass(frozen=True)
class RetrievalOutcome:
    """What an evaluation gave.

    Attributes:
        runs: Each model, by its name.
        untrained: The model with random weights, if asked for.
        table: What to print.
        files: What was written.
    """

    runs: dict[str, Evaluation]
    untrained: Evaluation | None
    table: str
    files: list[Path]


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
class _Job:
    """A model whose tiles are embedded: where the embeds lie."""

    name: str
    plans: list[EmbedPlan]
    train_plans: list[EmbedPlan]


def retrieve(models: Sequence[str], options: RetrievalOptions) -> RetrievalOutcome | None:
    """Evaluate one model, or several trainings of one, in all ordered pairs of their sensors.

    Under `accelerate launch` all processes embed, and the first one evaluates and writes.

    Args:
        models: Folders or Hub names.
        options: How.

    Returns:
        Results, table and files; None in all processes but the first.

    Raises:
        ValueError: If models, data or options do not fit together.
    """
    methods = parse_methods(options.alignment)
    if options.unusable not in ("error", "skip"):
        raise ValueError(f"unusable={options.unusable!r}: expected 'error' or 'skip'.")
    state = PartialState(cpu=options.device == "cpu" or not torch.accelerator.is_available())
    with state.main_process_first():
        tiles = load_tiles(options, needs_train=options.probe or methods != ("none",))
    jobs = _embed_all(models, tiles, options, state)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    kept, collected = _collect_all(jobs, tiles, options)
    device = str(_device(options, state))
    evaluations = {
        job.name: evaluate_embeds(embeds, train, kept, methods, options, device)
        for job, (embeds, train) in zip(jobs, collected, strict=True)
    }
    untrained = evaluations.pop(_UNTRAINED, None)
    return _write_all(evaluations, untrained, kept, options)


_UNTRAINED = "(untrained)"


def load_tiles(options: RetrievalOptions, needs_train: bool) -> Tiles:
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
        load_archive,
        options.data,
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


def _embed_all(models: Sequence[str], tiles: Tiles, options: RetrievalOptions, state: PartialState) -> list[_Job]:
    """Embed what is not embedded yet, of every model; this process's share of it."""
    jobs = []
    for name in models:
        model, processor = load_model(name)
        jobs.append(_embed_model(name, model, processor, tiles, options, state))
    if options.untrained:
        set_seed(options.seed)
        random_model = AutoModel.from_config(model.config)
        jobs.append(_embed_model(_UNTRAINED, random_model, processor, tiles, options, state))
    return jobs


def _embed_model(
    name: str, model: PreTrainedModel, processor: Any, tiles: Tiles, options: RetrievalOptions, state: PartialState
) -> _Job:
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
                device=_device(options, state),
                num_workers=options.num_workers,
                process=state.process_index,
                processes=state.num_processes,
                progress=state.is_main_process,
            )
    return _Job(name, plans[0], plans[1] if len(plans) > 1 else [])


def _device(options: RetrievalOptions, state: PartialState) -> torch.device:
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


def _collect_all(jobs: Sequence[_Job], tiles: Tiles, options: RetrievalOptions) -> tuple[Tiles, list[Collected]]:
    """Embeds with metadata, of queries and archive and of training tiles; tiles that failed for any model are left out of all."""
    parts = (tiles.dataset, tiles.train)
    kept: list[Dataset | None] = []
    embeds: list[list[dict[str, Embedded]]] = [[] for _ in jobs]
    reasons: dict[str, str] = {}
    for place, part in enumerate(parts):
        if part is None:
            kept.append(None)
            for row in embeds:
                row.append({})
            continue
        plans = [job.plans if place == 0 else job.train_plans for job in jobs]
        found = [{plan.sensor: collect_embeds(plan) for plan in job_plans} for job_plans in plans]
        failed = {row: why for one in found for cached in one.values() for row, why in cached.failed.items()}
        names = part["id"] if failed else []
        reasons |= {names[row]: why for row, why in failed.items()}
        rows = [row for row in range(len(part)) if row not in failed]
        kept.append(part.select(rows) if failed else part)
        for row, one in zip(embeds, found, strict=True):
            row.append(
                {s: Embedded.from_dataset(cached.embeds[rows], kept[-1]) for s, cached in one.items()} if rows else {}
            )
    _report_failed(reasons, sum(len(part) for part in parts if part is not None), options)
    if kept[0] is None:
        raise ValueError("There are no tiles to evaluate.")
    return Tiles(kept[0], tiles.splits, kept[1], tiles.no_train, len(reasons)), [(row[0], row[1]) for row in embeds]


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


def evaluate_embeds(
    embeds: dict[str, Embedded],
    train: dict[str, Embedded],
    tiles: Tiles,
    methods: Sequence[str],
    options: RetrievalOptions,
    device: str,
) -> Evaluation:
    """Measure every direction under every alignment, with intervals under the one that is used; and probes, where asked for.

    Args:
        embeds: Queries and archive by sensor.
        train: Training tiles by sensor; empty where there are none.
        tiles: What they are.
        methods: Alignments to compare.
        options: How.
        device: Where the search runs.

    Returns:
        The evaluation.
    """
    query_split, archive_split = tiles.splits
    choice = _choose(embeds, train, tiles, methods, options, device)
    evaluate = partial(
        evaluate_retrieval,
        k=options.k,
        query_split=query_split,
        archive_split=archive_split,
        seed=options.seed,
        device=device,
    )
    by_alignment = {
        method: evaluate(
            apply_alignment(alignment, embeds), resamples=options.resamples if method == choice.method else 0
        )
        for method, alignment in choice.alignments.items()
    }
    probes = []
    if options.probe:
        queries = {sensor: _of_split(one, query_split) for sensor, one in embeds.items()}
        archive = {sensor: _of_split(one, archive_split) for sensor, one in embeds.items()}
        probes = probe_all(train, queries, archive, k=options.k, device=device)
    return Evaluation(by_alignment[choice.method], choice, by_alignment, probes)


def _choose(
    embeds: dict[str, Embedded],
    train: dict[str, Embedded],
    tiles: Tiles,
    methods: Sequence[str],
    options: RetrievalOptions,
    device: str,
) -> AlignmentChoice:
    """The alignment to use; none, with the reason, where `auto` has nothing to choose by."""
    if tuple(methods) == ("none",):
        return AlignmentChoice("none", "it was asked for", {"none": Alignment.none()})
    reason = tiles.no_train
    if len(embeds) < 2:
        reason = "there is one sensor only"
    elif not reason and min(len(one.ids) for one in train.values()) < 2:
        reason = "there are fewer than two training pairs"
    if reason:
        if options.alignment != AUTO:
            raise ValueError(f"No alignment can be fitted: {reason}.")
        return AlignmentChoice(
            "none", f"nothing else could be fitted: {reason.rstrip('.')}", {"none": Alignment.none()}
        )
    rows = evenly(min(len(one.ids) for one in train.values()), options.alignment_pairs)
    pairs = {sensor: one.embeds[rows] for sensor, one in train.items()}
    validation = {sensor: _of_split(one, tiles.splits[0]) for sensor, one in embeds.items()}
    return choose_alignment(pairs, validation, methods, k=options.k, device=device)


def _of_split(embedded: Embedded, split: str | None) -> Embedded:
    """The tiles of a split."""
    splits = embedded.splits or [None] * len(embedded.ids)
    return embedded.take([row for row, name in enumerate(splits) if split in (None, name)])


def _write_all(
    evaluations: dict[str, Evaluation], untrained: Evaluation | None, tiles: Tiles, options: RetrievalOptions
) -> RetrievalOutcome:
    """Write tables, pictures and reports."""
    folder = Path(options.output_dir)
    files: list[Path] = []
    for name, evaluation in evaluations.items():
        place = folder / Path(name).name if len(evaluations) > 1 else folder
        files += _write_one(name, evaluation, untrained, tiles, place, options)
    runs = {name: evaluation.results for name, evaluation in evaluations.items()}
    if len(evaluations) > 1 or untrained is not None:
        blank = untrained.results if untrained is not None else None
        files.append(write_summary(runs, folder, blank))
        table = format_summary(runs, blank)
    else:
        table = format_table(next(iter(runs.values())))
    first = next(iter(evaluations.values()))
    of_first = f"Of {next(iter(evaluations))}; of the others in their folders.\n" if len(evaluations) > 1 else ""
    tables = [table, of_first + format_alignments(first.choice, first.by_alignment)]
    if first.probes:
        tables.append(of_first + format_probes(first.probes))
    return RetrievalOutcome(evaluations, untrained, "\n\n".join(tables), files)


def _write_one(
    name: str,
    evaluation: Evaluation,
    untrained: Evaluation | None,
    tiles: Tiles,
    folder: Path,
    options: RetrievalOptions,
) -> list[Path]:
    """Write what one model gave."""
    aligned = alignment_as_dict(
        evaluation.choice, evaluation.by_alignment, resamples=options.resamples, seed=options.seed
    )
    metadata = {
        "model": name,
        "data": options.data or "synthetic sample archive",
        "seed": options.seed,
        "resamples": options.resamples,
        "skipped_tiles": tiles.skipped,
        "csmae_hf": csmae_hf.__version__,
        "alignment": aligned,
        "probes": [probe.as_dict() for probe in evaluation.probes],
    }
    files = list(write_results(evaluation.results, folder, metadata))
    alignment_file = folder / "alignment.safetensors"
    alignment_file.unlink(missing_ok=True)
    if evaluation.choice.method != "none":
        files.append(evaluation.choice.alignment.save(alignment_file))
    content = ReportContent(
        model=name,
        data=str(metadata["data"]),
        results=evaluation.results,
        choice=evaluation.choice,
        by_alignment=evaluation.by_alignment,
        gains=aligned["gain_over_none"],
        probes=evaluation.probes,
        untrained=untrained.results if untrained is not None else None,
    )
    files.append(write_report(content, tiles.dataset, folder / "report.html", queries=options.pictures))
    if options.pictures:
        files += draw_all(evaluation.results, tiles.dataset, folder, options.pictures)
    return files
