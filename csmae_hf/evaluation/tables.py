"""Evaluations as tables, for a terminal, a paper or a program: models with their baselines, differences between models, classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csmae_hf.evaluation.baselines import MEANINGS
from csmae_hf.evaluation.comparison import ALL, Difference, Trainings
from csmae_hf.evaluation.results import DirectionResult, check_results
from csmae_hf.files import write_atomically
from csmae_hf.metrics.ranking import METRICS, headlines
from csmae_hf.plain import to_csv

_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"±": r"$\pm$", "→": r"$\rightarrow$"}


@dataclass(frozen=True)
class Table:
    """A table as it is shown, and as numbers.

    Attributes:
        header: Titles of the columns.
        rows: Cells as they are shown; the first columns are names.
        records: The same as numbers, one mapping a row, for CSV: every digit, and spreads and intervals in columns of their own.
        names: How many columns are names, set to the left.
        notes: Sentences below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    records: Sequence[Mapping[str, Any]]
    names: int = 1
    notes: Sequence[str] = ()

    def text(self) -> str:
        """For a terminal: columns aligned, notes below."""
        columns = list(zip(self.header, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = []
        for row in [self.header, ["-" * width for width in widths], *self.rows]:
            cells = [
                cell.ljust(width) if place < self.names else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])

    def markdown(self) -> str:
        """For a page."""
        rule = ["---" if place < self.names else "---:" for place in range(len(self.header))]
        lines = [self._line([cell.replace("|", "\\|") for cell in row]) for row in [self.header, rule, *self.rows]]
        return "\n".join([*lines, *(text for note in self.notes for text in ("", note))]) + "\n"

    @staticmethod
    def _line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def latex(self) -> str:
        """For a paper: a `tabular` that needs no package; notes as comments before it."""

        def line(cells: Sequence[str]) -> str:
            escaped = ["".join(_LATEX.get(letter, letter) for letter in cell) for cell in cells]
            return " & ".join(escaped).replace("->", r"$\rightarrow$") + r" \\"

        kinds = "".join("l" if place < self.names else "r" for place in range(len(self.header)))
        rows = [line(row) for row in self.rows]
        before = [f"% {note}" for note in self.notes]
        return "\n".join(
            [
                *before,
                rf"\begin{{tabular}}{{{kinds}}}",
                r"\hline",
                line(self.header),
                r"\hline",
                *rows,
                r"\hline",
                r"\end{tabular}",
                "",
            ]
        )

    def csv(self) -> str:
        """For a program."""
        fields = list(dict.fromkeys(name for record in self.records for name in record))
        return to_csv(fields, ([record.get(name) for name in fields] for record in self.records))

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write it as `name` with `.csv`, `.md` and `.tex`, each whole or not at all; give the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for kind, text in (("csv", self.csv()), ("md", self.markdown()), ("tex", self.latex())):
            write_atomically(folder / f"{name}.{kind}", text)
            files.append(folder / f"{name}.{kind}")
        return files


RANDOM_ORDER = "random order"


def column_names(k: int) -> dict[str, str]:
    """The heading of each of `METRICS` at k results."""
    return {name: metric.column.format(k=k) for name, metric in METRICS.items()}


def format_table(results: Sequence[DirectionResult]) -> str:
    """Lay results out as a plain-text table for a terminal, with the random-order baseline below the rows it belongs to.

    Args:
        results: Directions of one evaluation.

    Returns:
        Several lines, columns aligned: the table, then what was measured and how.

    Raises:
        ValueError: No results.
    """
    check_results(results)
    header = ["query -> archive", "queries", "archive", *column_names(results[0].k).values()]
    rows = []
    for place, result in enumerate(results):
        numbers = [f"{result.scores[metric]:.4f}" for metric in METRICS]
        rows.append([result.name, str(result.n_queries), str(result.n_archive), *numbers])
        if place + 1 == len(results) or results[place + 1].random != result.random:
            random = result.random
            spread = [f"{random.mean[metric]:.4f} ±{random.std[metric]:.4f}" for metric in METRICS]
            rows.append(["random order", "", "", *spread])
    return Table(header, rows, [], notes=notes(results)).text()


def notes(results: Sequence[DirectionResult]) -> list[str]:
    """Sentences that say what was measured, and what was left out."""
    first = results[0]
    lines = [
        f"Queries: {_in_words(first.query_split)}; archive: {_in_words(first.archive_split)}; k = {first.k}; "
        "cosine of pooled features, exact search."
        if first.folds is None
        else f"Queries: {first.folds}, each fold against all others ({first.n_archive} tiles or more); k = {first.k}; "
        "cosine of pooled features, exact search.",
        f"random order: mean ±standard deviation of {first.random.draws} random rankings on the same labels.",
    ]
    if any(result.exclude_self for result in results):
        excluded = sorted({result.self_excluded for result in results})
        count = str(excluded[0]) if len(excluded) == 1 else f"{excluded[0]} to {excluded[-1]}"
        lines.append(
            f"A query's own tile is left out of its ranking, across sensors too ({count} queries have theirs in the archive)."
        )
    queries = max(result.unlabelled_queries for result in results)
    archive = max(result.unlabelled_archive for result in results)
    if queries or archive:
        lines.append(
            f"Left out because they have no labels: {queries} queries, {archive} archive tiles (the most in any direction)."
        )
    irrelevant = max(result.irrelevant_queries for result in results)
    if irrelevant:
        lines.append(
            f"{irrelevant} queries share no label with any archive tile and score 0 (the most in any direction)."
        )
    return lines


def _in_words(split: str | None) -> str:
    return "all tiles" if split is None else f"split {split}"


def scores_table(
    models: Mapping[str, Trainings],
    alignments: Mapping[str, str],
    baselines: Mapping[str, Mapping[str, DirectionResult]],
) -> Table:
    """The headline scores of each model in each direction, with the baselines below them.

    Args:
        models: The directions of each training, by the name of its model; ± is the spread over several trainings.
        alignments: The alignment that each model is measured with, baselines that have one included.
        baselines: The directions of each baseline, by its name. Some have not all.
    """
    directions = list(dict.fromkeys(name for model in models.values() for name in model[0]))
    first = next(iter(next(iter(models.values()))[0].values()))
    titles = column_names(first.k)
    header = ["query -> archive", "model", "alignment", *(titles[name] for name in headlines())]
    rows, records = [], []
    entries = {**models, **{name: [results] for name, results in baselines.items()}}
    for direction in directions:
        title = direction
        for name, trainings in entries.items():
            if direction not in trainings[0]:
                continue
            scores = {metric: np.array([one[direction].scores[metric] for one in trainings]) for metric in METRICS}
            cells = [f"{scores[metric].mean():.4f}" + _spread(scores[metric]) for metric in headlines()]
            rows.append([title, name, alignments.get(name, ""), *cells])
            title = ""
            result = trainings[0][direction]
            records.append(
                _record(direction, name, alignments.get(name, ""), len(trainings), result.n_queries, result.n_archive)
                | {metric: float(values.mean()) for metric, values in scores.items()}
                | (
                    {f"{metric}_spread": float(v.std(ddof=1)) for metric, v in scores.items()}
                    if len(trainings) > 1
                    else {}
                )
                | (
                    {
                        f"{metric}_{end}": value
                        for metric, ends in result.intervals.items()
                        for end, value in ends._asdict().items()
                    }
                    if len(trainings) == 1
                    else {}
                )
            )
        of_any = next(one[0][direction] for one in models.values() if direction in one[0])
        random = of_any.random
        cells = [f"{random.mean[metric]:.4f} ±{random.std[metric]:.4f}" for metric in headlines()]
        rows.append([title, RANDOM_ORDER, "", *cells])
        records.append(
            _record(direction, RANDOM_ORDER, "", random.draws, of_any.n_queries, of_any.n_archive)
            | random.mean
            | {f"{metric}_spread": value for metric, value in random.std.items()}
        )
    said = notes([one for model in models.values() for one in model[0].values()])
    most = max(len(trainings) for trainings in models.values())
    if most > 1:
        said.append(f"± of a model: standard deviation over its {most} trainings.")
    said += [f"{kind}: {text}." for kind, text in MEANINGS.items() if any(name.endswith(kind) for name in baselines)]
    return Table(header, rows, records, names=3, notes=said)


def _record(direction: str, model: str, alignment: str, trainings: int, queries: int, archive: int) -> dict[str, Any]:
    return {
        "direction": direction,
        "model": model,
        "alignment": alignment,
        "trainings": trainings,
        "n_queries": queries,
        "n_archive": archive,
    }


def _spread(values: Any) -> str:
    return f" ±{values.std(ddof=1):.4f}" if len(values) > 1 else ""


def differences_table(differences: Sequence[Difference], k: int) -> Table:
    """What each model scores more than the first, of all queries, by every headline metric."""
    titles = column_names(k)
    shown = [one for one in differences if one.group == ALL]
    header = ["query -> archive", "model", "less", *(titles[name] for name in headlines())]
    rows: dict[tuple[str, str, str], list[str]] = {}
    for one in shown:
        rows.setdefault((one.direction, one.model, one.other), []).append(_difference(one))
    records = [
        {name: value for name, value in vars(one).items() if name != "interval"} | one.interval._asdict()
        for one in differences
    ]
    said = [
        "In brackets: 95 % interval of the difference, paired bootstrap over queries (of folds over scenes: over whole "
        "scenes). It says what other queries would change, and nothing about another training."
    ]
    return Table(header, [[*names, *cells] for names, cells in rows.items()], records, names=3, notes=said)


def class_table(models: Mapping[str, Trainings], differences: Sequence[Difference], k: int) -> Table:
    """F1 of means of the queries of each class: by chance, and of each model with its difference from the first."""
    first_name, first = next(iter(models.items()))
    gains = {(one.model, one.direction, one.value): one for one in differences if one.group == "class"}
    header = ["query -> archive", "class", "queries", f"{RANDOM_ORDER} F1@{k}"]
    for name in models:
        header += [f"{name} F1@{k}", *(["difference"] if name != first_name else [])]
    rows, records = [], []
    for direction, result in first[0].items():
        for value, group in result.groups.get("class", {}).items():
            chance = group.random_f1
            cells = [direction, value, str(group.n_queries), "-" if chance is None else f"{chance:.4f}"]
            for name, trainings in models.items():
                found = [
                    one[direction].groups["class"][value].scores["f1_of_means"]
                    for one in trainings
                    if direction in one and value in one[direction].groups["class"]
                ]
                cells.append(f"{np.mean(found):.4f}" if found else "-")
                gain = gains.get((name, direction, value))
                if name != first_name:
                    cells.append("-" if gain is None else _difference(gain))
                record = {"direction": direction, "class": value, "n_queries": group.n_queries, "model": name}
                record["f1_of_means"] = float(np.mean(found)) if found else None
                record["random_f1_of_means"] = chance
                if gain is not None:
                    record |= {"difference": gain.difference, **gain.interval._asdict()}
                records.append(record)
            rows.append(cells)
    return Table(header, rows, records, names=2)


def _difference(one: Difference) -> str:
    return f"{one.difference:+.4f} [{one.interval.lower:+.4f}, {one.interval.upper:+.4f}]"


def summarize(trainings: Trainings) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and spread of each metric over the trainings of a model: by direction (`"s1 -> s2"`) and metric.

    `spread` is the sample standard deviation, 0 for one training; `random` the mean of random orders on the same labels.
    """
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for direction, result in trainings[0].items():
        of_direction = summary[direction] = {}
        for metric in METRICS:
            values = np.array([one[direction].scores[metric] for one in trainings])
            spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            of_direction[metric] = {
                "mean": float(values.mean()),
                "spread": spread,
                "random": result.random.mean[metric],
            }
    return summary
