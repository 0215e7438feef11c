"""One retrieval evaluation, from trained models to tables, pictures and a report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import PartialState

import csmae_hf
from csmae_hf.cpu import keep_freed_memory
from csmae_hf.data.evenly import evenly
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.evaluation.alignment_choice import (
    AUTO,
    AlignmentChoice,
    alignment_as_dict,
    apply_alignment,
    choose_alignment,
    format_alignments,
    parse_methods,
)
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.html_report import Evaluation, write_report
from csmae_hf.evaluation.pictures import draw_all
from csmae_hf.evaluation.probe import format_probes, probe_all, require_scikit_learn
from csmae_hf.evaluation.results import write_results
from csmae_hf.evaluation.retrieval_options import RetrievalOptions
from csmae_hf.evaluation.run_tiles import UNTRAINED, Tiles, collect_all, device_of, embed_all, load_run_tiles
from csmae_hf.evaluation.tables import format_summary, format_table, write_summary
from csmae_hf.sample.generate import is_generated


@dataclass(frozen=True)
class RetrievalOutcome:
    """What an evaluation gave."""

    runs: dict[str, Evaluation]  # each model, by its name
    untrained: Evaluation | None  # the model with random weights, if asked for
    table: str  # what to print
    files: list[Path]  # what was written


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
        ImportError: If a probe is asked for, and scikit-learn is missing.
    """
    methods = parse_methods(options.alignment)
    if len(set(models)) < len(models):
        raise ValueError(f"The same model is named twice: {', '.join(models)}. Name each once.")
    if options.unusable not in ("error", "skip"):
        raise ValueError(f"unusable={options.unusable!r}: expected 'error' or 'skip'.")
    if options.probe:
        require_scikit_learn()  # before an hour of embedding, not after it
    state = PartialState(cpu=options.device == "cpu" or not torch.accelerator.is_available())
    if device_of(options, state).type == "cpu":
        keep_freed_memory()
    with state.main_process_first():
        tiles = load_run_tiles(options, needs_train=options.probe or methods != ("none",))
    jobs = embed_all(models, tiles, options, state)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    kept, collected = collect_all(jobs, tiles, options)
    device = str(device_of(options, state))
    evaluations = {
        job.name: evaluate_embeds(embeds, train, kept, methods, options, device)
        for job, (embeds, train) in zip(jobs, collected, strict=True)
    }
    untrained = evaluations.pop(UNTRAINED, None)
    return _write_all(evaluations, untrained, kept, options)


def evaluate_embeds(
    embeds: dict[str, Embedded],
    train: dict[str, Embedded],
    tiles: Tiles,
    methods: Sequence[str],
    options: RetrievalOptions,
    device: str,
) -> Evaluation:
    """Measure every direction under every alignment, with intervals under the one that is used; and probes, where asked for."""
    query_split, archive_split = tiles.splits
    choice = _choose(embeds, train, tiles, methods, options, device)
    by_alignment = {
        method: evaluate_retrieval(
            apply_alignment(alignment, embeds),
            k=options.k,
            query_split=query_split,
            archive_split=archive_split,
            resamples=options.resamples if method == choice.method else 0,
            seed=options.seed,
            device=device,
        )
        for method, alignment in choice.alignments.items()
    }
    probes = []
    if options.probe:
        queries, archive = ({name: _of_split(one, split) for name, one in embeds.items()} for split in tiles.splits)
        probes = probe_all(train, queries, archive, k=options.k, device=device)
    return Evaluation(choice, by_alignment, probes)


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
    for (name, evaluation), own_folder in zip(evaluations.items(), folder_names(list(evaluations)), strict=True):
        place = folder / own_folder if len(evaluations) > 1 else folder
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


def folder_names(models: Sequence[str]) -> list[str]:
    """A folder for the results of each model: the last part of its name, or all of it where two would be the same."""
    last = [Path(name).name for name in models]
    return last if len(set(last)) == len(models) else [name.strip("/.").replace("/", "-") for name in models]


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
        "generated": is_generated(options.data),
        "seed": options.seed,
        "resamples": options.resamples,
        "skipped_tiles": tiles.skipped,
        "csmae_hf": csmae_hf.__version__,
        "alignment": aligned,
        "probes": [asdict(probe) for probe in evaluation.probes],
    }
    files = list(write_results(evaluation.results, folder, metadata))
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
            data=str(metadata["data"]),
            gains=aligned["gain_over_none"],
            untrained=untrained.results if untrained is not None else (),
            queries=options.pictures,
        )
    )
    if options.pictures:
        files += draw_all(evaluation.results, tiles.dataset, folder, options.pictures)
    return files
