"""One retrieval evaluation, from trained models to tables, pictures and a report."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

import csmae_hf
from csmae_hf.cpu import keep_freed_memory
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.foreign import Encoder, load_factory
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.provenance import Provenance, hash_ids
from csmae_hf.evaluation.alignment_choice import (
    AUTO,
    AlignmentChoice,
    alignment_as_dict,
    alignments_table,
    apply_alignment,
    choose_alignment,
    parse_methods,
)
from csmae_hf.evaluation.baselines import (
    BAND_STATISTICS,
    LABELS_KNOWN,
    UNTRAINED,
    Measure,
    measure_band_statistics,
    measure_labels_known,
)
from csmae_hf.evaluation.comparison import Difference, compare, differences_as_dicts
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.folds import Folds, evaluate_folds, scenes_of
from csmae_hf.evaluation.html_report import Evaluation, write_report
from csmae_hf.evaluation.pairs_curve import pairs_curve, parse_counts
from csmae_hf.evaluation.pictures import draw_all
from csmae_hf.evaluation.probe import probe_all, probes_table, require_scikit_learn
from csmae_hf.evaluation.results import (
    SAMPLE_DATA,
    DirectionResult,
    queries_as_dict,
    refuse_other_results,
    write_results,
)
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run_tiles import (
    TRAIN_SPLIT,
    Collected,
    Tiles,
    baseline_name,
    collect_all,
    device_of,
    embed_all,
    load_run_tiles,
)
from csmae_hf.evaluation.tables import Table, class_table, differences_table, scores_table, summarize
from csmae_hf.evaluation.trainings import group_trainings, training_remarks
from csmae_hf.files import write_atomically
from csmae_hf.sample.generate import is_generated


@dataclass(frozen=True)
class RetrievalOutcome:
    """What an evaluation gave."""

    runs: dict[str, Evaluation]  # each training, by its name
    groups: dict[str, list[str]]  # the trainings of each model, by its name
    baselines: dict[str, list[DirectionResult]]  # the directions of each, by its name; some have not all
    differences: list[Difference]  # of each model from the first
    table: str  # what to print
    files: list[Path]  # what was written


def retrieve(
    models: Sequence[str], options: RetrievalOptions, encoders: Mapping[str, Encoder] | None = None
) -> RetrievalOutcome | None:
    """Evaluate one model, several trainings of one, or several models, in all ordered pairs of their sensors.

    Models whose recorded arguments differ in the seed alone are trainings of one: their mean and spread are reported. Others are
    compared: each with the first, on the same queries. Under `accelerate launch` all processes embed, and the first one evaluates
    and writes.

    Args:
        models: Folders or Hub names.
        options: How; `encoder` names encoders of any kind, which are compared with the models.
        encoders: Encoders of any kind by what they are called, compared likewise.

    Returns:
        Results, tables and files; None in all processes but the first.

    Raises:
        FileExistsError: If the output folder holds results of other models or data, unless `overwrite` says to replace them.
        ValueError: If models, data or options do not fit together.
        ImportError: If a probe is asked for, and scikit-learn is missing.
    """
    methods = parse_methods(options.alignment)
    folds = Folds.parse(options.folds) if options.folds else None
    given = dict(encoders or {})
    models = [*models, *(options.encoder or ()), *given]
    if not models:
        raise ValueError("There is nothing to evaluate: name a model, or an encoder (--encoder MODULE:FACTORY).")
    places = [os.path.realpath(name) if os.path.exists(name) else name for name in models]
    if len(set(places)) < len(places):
        raise ValueError(f"The same model is named twice: {', '.join(models)}. Name each once.")
    if options.unusable not in ("error", "skip"):
        raise ValueError(f"unusable={options.unusable!r}: expected 'error' or 'skip'.")
    if options.k < 1:
        raise ValueError(f"k={options.k}: expected 1 result a query or more (--k 10).")
    if options.probe:
        require_scikit_learn()  # before an hour of embedding, not after it
    if not options.overwrite:
        refuse_other_results(options.output_dir, models, options.data)
    counts = parse_counts(options.pairs_curve) if options.pairs_curve else []
    given |= {place: load_factory(place) for place in options.encoder or ()}
    groups = group_trainings(models)
    state = PartialState(cpu=options.device == "cpu" or not torch.accelerator.is_available())
    if device_of(options, state).type == "cpu":
        keep_freed_memory()
    fits = options.probe or bool(counts) or methods != ("none",)
    with state.main_process_first():
        tiles = load_run_tiles(options, fits=fits)
        if folds is not None:
            scenes_of(tiles.dataset)  # before an hour of embedding
    jobs = embed_all(groups, tiles, options, state, with_train=fits, encoders=given)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    kept, collected = collect_all(jobs, tiles, options)
    found = {job.name: one for job, one in zip(jobs, collected, strict=True)}
    made_with = {job.name: job.plans[0].made_with for job in jobs}
    device = str(device_of(options, state))
    measure = _measure_with(kept, options, folds, device)
    evaluations, baselines = {}, {}
    for group, members in groups.items():
        some = [found[name] for name in members]
        for name, one in zip(members, evaluate_models(some, kept, methods, options, measure, device), strict=True):
            evaluations[name] = one
        if (blank := baseline_name(UNTRAINED, group, groups)) in found:
            baselines[blank] = evaluate_models([found[blank]], kept, methods, options, measure, device, probe=False)[0]
    alignments = {name: one.choice.method for name, one in baselines.items()}
    alignments |= {group: evaluations[members[0]].choice.method for group, members in groups.items()}
    measured = {name: one.results for name, one in baselines.items()}
    measured[BAND_STATISTICS] = measure_band_statistics(*found[BAND_STATISTICS], measure)
    every = {sensor: one for embeds, _ in reversed(found.values()) for sensor, one in embeds.items()}
    measured[LABELS_KNOWN] = measure_labels_known(every, measure)
    provenances = {
        name: _provenance(name, made_with[name], evaluation, found[name][0], options)
        for name, evaluation in evaluations.items()
    }
    curve = None
    if counts:
        curved = {name: found[members[0]] for name, members in groups.items()}
        curved |= {name: found[name] for name in baselines}
        curve = pairs_curve(curved, methods, counts, measure, kept.no_train)
    return _write_all(groups, evaluations, baselines, measured, alignments, found, kept, options, provenances, curve)


def _provenance(
    name: str,
    made_with: Identity,
    evaluation: Evaluation,
    embeds: Mapping[str, Embedded],
    options: RetrievalOptions,
) -> Provenance:
    """Where the numbers of a model come from: its tiles are queries and archive, all that were measured on."""
    tiles = next(iter(embeds.values()))
    return Provenance.about(
        replace(made_with, model=name),
        alignment=evaluation.choice.alignment,
        data=options.data or SAMPLE_DATA,
        generated=is_generated(options.data),
        ids=tiles.ids,
        splits=tiles.splits,
    )


def _measure_with(tiles: Tiles, options: RetrievalOptions, folds: Folds | None, device: str) -> Measure:
    """The evaluation that the options ask for."""
    if folds is not None:
        scenes = scenes_of(tiles.dataset)
        return partial(evaluate_folds, scenes=scenes, folds=folds, k=options.k, seed=options.seed, device=device)
    query_split, archive_split = tiles.splits
    return partial(
        evaluate_retrieval,
        k=options.k,
        query_split=query_split,
        archive_split=archive_split,
        seed=options.seed,
        device=device,
    )


def evaluate_models(
    trainings: Sequence[Collected],
    tiles: Tiles,
    methods: Sequence[str],
    options: RetrievalOptions,
    measure: Measure,
    device: str,
    *,
    probe: bool = True,
) -> list[Evaluation]:
    """Measure the trainings of one model in every direction under every alignment, with intervals under the one that is used.

    All trainings are measured under one alignment, so that their mean is of one protocol. Probes are added where they are asked for.
    """
    evaluations = []
    for (embeds, train), choice in zip(trainings, _choose(trainings, tiles, methods, options, device), strict=True):
        by_alignment = {
            method: measure(
                apply_alignment(alignment, embeds), resamples=options.resamples if method == choice.method else 0
            )
            for method, alignment in choice.alignments.items()
        }
        probes = []
        if options.probe and probe:
            archive = {name: _of_split(one, tiles.splits[1]) for name, one in embeds.items()}
            probes = probe_all(train, archive, k=options.k, device=device)
        evaluations.append(Evaluation(choice, by_alignment, probes))
    return evaluations


def _choose(
    trainings: Sequence[Collected], tiles: Tiles, methods: Sequence[str], options: RetrievalOptions, device: str
) -> list[AlignmentChoice]:
    """The alignment to use, the same method for all; none, with the reason, where `auto` has nothing to choose by."""
    if tuple(methods) == ("none",):
        return [AlignmentChoice("none", "it was asked for", {"none": Alignment.none()}) for _ in trainings]
    train = [one for _, one in trainings]
    scenes = scenes_of(tiles.train) if options.folds and tiles.train is not None else None
    reason = tiles.no_train
    if len(trainings[0][0]) < 2:
        reason = "there is one sensor only"
    elif not reason:
        labelled: list[bool] = np.asarray(next(iter(train[0].values())).labels.any(axis=1)).tolist()
        needed, count = (2, len(labelled)) if len(methods) == 1 else (4, sum(labelled))
        if count < needed:
            reason = f"there are fewer than {needed} {'labelled ' if needed == 4 else ''}training pairs"
        elif scenes is not None and len(methods) > 1:
            largest = Counter(scene for scene, known in zip(scenes, labelled, strict=True) if known).most_common(1)[0][
                1
            ]
            if count - largest < 2:
                reason = f"all but {count - largest} of the {count} labelled training pairs are of one scene"
    if reason:
        if options.alignment != AUTO:
            raise ValueError(f"No alignment can be fitted: {reason}.")
        said = f"nothing else could be fitted: {reason.rstrip('.')}"
        return [AlignmentChoice("none", said, {"none": Alignment.none()}) for _ in trainings]
    return choose_alignment(train, methods, pairs=options.alignment_pairs, k=options.k, device=device, scenes=scenes)


def _of_split(embedded: Embedded, split: str | None) -> Embedded:
    """The tiles of a split."""
    splits = embedded.splits or [None] * len(embedded.ids)
    return embedded.take([row for row, name in enumerate(splits) if split in (None, name)])


def _write_all(
    groups: dict[str, list[str]],
    evaluations: dict[str, Evaluation],
    blanks: Mapping[str, Evaluation],
    baselines: dict[str, list[DirectionResult]],
    alignments: Mapping[str, str],
    found: Mapping[str, Collected],
    tiles: Tiles,
    options: RetrievalOptions,
    provenances: Mapping[str, Provenance],
    curve: Table | None = None,
) -> RetrievalOutcome:
    """Write tables, pictures and reports. `blanks` are the models with random weights, by the names that these have in `baselines`."""
    folder = Path(options.output_dir)
    files: list[Path] = []
    group_of = {name: group for group, members in groups.items() for name in members}
    for (name, evaluation), own_folder in zip(evaluations.items(), folder_names(list(evaluations)), strict=True):
        place = folder / own_folder if len(evaluations) > 1 else folder
        blank = baseline_name(UNTRAINED, group_of[name], groups)
        own = {UNTRAINED: baselines[blank]} if blank in blanks else {}
        own |= {kind: found for kind, found in baselines.items() if kind not in blanks}
        embeds, provenance = found[name][0], provenances[name]
        files += _write_one(name, evaluation, blanks.get(blank), own, embeds, tiles, place, options, provenance)
    trainings = {
        group: [{result.name: result for result in evaluations[name].results} for name in members]
        for group, members in groups.items()
    }
    embeds = found[next(iter(evaluations))][0]
    differences = []
    if len(groups) > 1 and options.resamples:
        differences = compare(trainings, embeds, resamples=options.resamples, seed=options.seed)
    by_name = {name: {result.name: result for result in results} for name, results in baselines.items()}
    first_name, first = next(iter(evaluations.items()))
    tables = {"scores": scores_table(trainings, alignments, by_name)}
    if differences:
        tables["differences"] = differences_table(differences, options.k)
    of_first = blanks.get(baseline_name(UNTRAINED, group_of[first_name], groups))
    blank_of_first = None if of_first is None else (of_first.choice, of_first.by_alignment)
    tables["alignments"] = alignments_table(first.choice, first.by_alignment, blank_of_first)
    if curve is not None:
        tables["pairs"] = curve
    if first.probes:
        tables["probes"] = probes_table(first.probes)
    tables["classes"] = class_table(trainings, differences, options.k)
    said = [f"{_label(name, provenances)}{one.sentence()}." for name, one in provenances.items()]
    if read := read_otherwise(options):
        said.append(f"Pixels were read with {', '.join(f'--{name} {value}' for name, value in read.items())}.")
    said += [remark for name in provenances for remark in training_remarks(name, tiles.splits, options.data)]
    shown = [
        (
            f"Of {first_name}; of the others in their folders.\n"
            if name in ("alignments", "probes") and len(evaluations) > 1
            else ""
        )
        + table.text()
        for name, table in tables.items()
        if name != "classes"  # too long for a terminal
    ]
    shown.append("\n".join(said))
    for name, table in tables.items():
        records = [{**record, **_aligned(record, alignments)} for record in table.records]
        files += replace(table, records=records, notes=[*table.notes, *said]).write(folder / "tables", name)
    if len(evaluations) > 1:
        content = _summary(groups, trainings, baselines, alignments, differences)
        content["provenance"] = {name: one.as_dict() for name, one in provenances.items()}
        write_atomically(folder / "summary.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        files.append(folder / "summary.json")
    return RetrievalOutcome(evaluations, groups, baselines, differences, "\n\n".join(shown), files)


def _aligned(record: Mapping[str, Any], alignments: Mapping[str, str]) -> dict[str, str]:
    """The alignment of the model, or of both models, that a row of a table is about, for programs that read the table alone."""
    columns = {"model": "alignment", "other": "other_alignment"}
    return {
        column: alignments[record[name]]
        for name, column in columns.items()
        if record.get(name) in alignments and column not in record
    }


def _label(name: str, provenances: Mapping[str, Provenance]) -> str:
    """What stands before a sentence about one of several models."""
    return f"{name}: " if len(provenances) > 1 else "Measured on: "


def _summary(
    groups: Mapping[str, list[str]],
    trainings: Mapping[str, Any],
    baselines: Mapping[str, Sequence[DirectionResult]],
    alignments: Mapping[str, str],
    differences: Sequence[Difference],
) -> dict[str, Any]:
    """Several models side by side as JSON types."""
    return {
        "models": {
            group: {
                "trainings": members,
                "alignment": alignments[group],
                "directions": summarize(trainings[group]),
            }
            for group, members in groups.items()
        },
        "baselines": {name: [result.as_dict() for result in results] for name, results in baselines.items()},
        "differences": differences_as_dicts(differences),
    }


def read_otherwise(options: RetrievalOptions) -> dict[str, Any]:
    """Options by which pixels are read in another way than by default: numbers of the same tiles differ by them."""
    plain, names = RetrievalOptions(), ("bands", "units", "level", "pair", "suspect", "unusable")
    return {name: value for name in names if (value := getattr(options, name)) != getattr(plain, name)}


def folder_names(models: Sequence[str]) -> list[str]:
    """A folder for the results of each model: the last part of its name, or all of it where two would be the same."""
    last = [Path(name).name for name in models]
    return last if len(set(last)) == len(models) else [name.strip("/.").replace("/", "-") for name in models]


def _write_one(
    name: str,
    evaluation: Evaluation,
    untrained: Evaluation | None,
    baselines: Mapping[str, Sequence[DirectionResult]],
    embeds: Mapping[str, Embedded],
    tiles: Tiles,
    folder: Path,
    options: RetrievalOptions,
    provenance: Provenance,
) -> list[Path]:
    """Write what one model gave, beside its own baselines."""
    aligned = alignment_as_dict(
        evaluation.choice, evaluation.by_alignment, resamples=options.resamples, seed=options.seed
    )
    if tiles.train is not None and evaluation.choice.method != "none":
        ids = tiles.train["id"]
        aligned["fitted_on"] = {"split": TRAIN_SPLIT, "count": len(ids), "sha256": hash_ids(ids)}
    metadata = {
        "model": name,
        "data": provenance.data,
        "generated": provenance.generated,
        "provenance": provenance.as_dict(),
        "read": read_otherwise(options),
        "remarks": training_remarks(name, tiles.splits, options.data),
        "seed": options.seed,
        "resamples": options.resamples,
        "skipped_tiles": tiles.skipped,
        "csmae_hf": csmae_hf.__version__,
        "alignment": aligned,
        "baseline_alignments": {} if untrained is None else {UNTRAINED: untrained.choice.method},
        "probes": [asdict(probe) for probe in evaluation.probes],
    }
    queries = queries_as_dict(evaluation.results, embeds)
    files = list(write_results(evaluation.results, folder, metadata, queries=queries, baselines=baselines))
    alignment_file = folder / "alignment.safetensors"
    alignment_file.unlink(missing_ok=True)
    if evaluation.choice.method != "none":
        files.append(evaluation.choice.alignment.save(alignment_file))
    files.append(
        write_report(
            evaluation,
            tiles.dataset,
            folder / "report.html",
            model=name,
            data=f"{provenance.data}{', generated scenes' if provenance.generated else ''}",
            origin=f"Measured on: {provenance.sentence()}.",
            gains=aligned["gain_over_none"],
            baselines=baselines,
            untrained=untrained,
            queries=options.pictures,
        )
    )
    if options.pictures:
        files += draw_all(evaluation.results, tiles.dataset, folder, options.pictures)
    return files
