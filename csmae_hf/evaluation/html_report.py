"""The report of an evaluation: one HTML file that needs nothing else, not even a network."""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from PIL import Image as PilImage

from csmae_hf.charts import as_svg
from csmae_hf.evaluation.alignment_choice import AlignmentChoice, alignments_table
from csmae_hf.evaluation.baselines import MEANINGS
from csmae_hf.evaluation.pictures import OVER_K, ExampleTile, chart_groups, chart_over_k, take_examples
from csmae_hf.evaluation.probe import ProbeResult, probes_table
from csmae_hf.evaluation.results import DirectionResult, definitions
from csmae_hf.evaluation.tables import column_names, notes
from csmae_hf.files import write_atomically
from csmae_hf.metrics.ranking import METRICS
from csmae_hf.visualize import abbreviate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLE_RESULTS = 10
_ABSENT = "-"


@dataclass(frozen=True)
class Evaluation:
    """One model, measured."""

    choice: AlignmentChoice
    by_alignment: Mapping[str, list[DirectionResult]]  # the directions under each alignment that was compared
    probes: Sequence[ProbeResult] = ()  # empty where they were not asked for

    @property
    def results(self) -> list[DirectionResult]:
        """The directions, under the alignment that is used."""
        return self.by_alignment[self.choice.method]


def write_report(
    evaluation: Evaluation,
    dataset: Dataset,
    path: Path,
    *,
    model: str,
    data: str,
    gains: Mapping[str, Mapping[str, Any]],
    baselines: Mapping[str, Sequence[DirectionResult]] | None = None,
    untrained: Evaluation | None = None,
    origin: str = "",
    queries: int = 6,
) -> Path:
    """Write the report of a model on named data, with so many example queries of each direction; 0 shows none.

    `gains` are the gain over no alignment of each direction, with its interval; `baselines` the directions of each, by name;
    `untrained` is the same model with random weights, where it was measured; `origin` says where the numbers come from. Without
    matplotlib it has no charts, and says how to get them. `dataset` are the tiles, for the examples. Returns the path.
    """
    results = evaluation.results
    over_k = [(title, lambda metric=metric: chart_over_k(results, [metric])) for metric, title in OVER_K.items()]
    sections = [
        ("Scores", _scores(results, baselines or {})),
        (f"Precision, recall and F1 at 1 to {results[0].k} results", _charts(results, over_k)),
    ]
    for dimension in results[0].groups:
        draw = [(f"By {dimension}", lambda dimension=dimension: chart_groups(results, dimension))]
        said = f"<p>F1@{results[0].k} of means, of the queries that have the {dimension}.</p>"
        sections.append((f"By {dimension}", said + _charts(results, draw)))
    sections.append(("Alignment of the sensors", _alignment(evaluation, gains, untrained)))
    if evaluation.probes:
        probes = probes_table(evaluation.probes)
        shown = _table(probes.header, probes.rows, left=probes.names) + _sentences(probes.notes)
        sections.append(("Classification on frozen embeds", shown))
    if queries:
        sections.append(("Examples", _examples(results, dataset, queries)))
    meant = "".join(
        f"<dt><code>{escape(name)}</code></dt><dd>{escape(text)}</dd>" for name, text in definitions().items()
    )
    what = f'<dl class="definitions">{meant}</dl><p>q are the labels of a query, r those of a result.</p>'
    sections.append(("What the numbers mean", what))
    body = "\n".join(f"<section>\n<h2>{escape(title)}</h2>\n{text}\n</section>" for title, text in sections)
    facts = {
        "Model": model,
        "Archive": data,
        "Queries": f"{results[0].n_queries:,}",
        "Archive tiles": f"{results[0].n_archive:,}",
        "Results per query": str(results[0].k),
        "Alignment": evaluation.choice.method,
    }
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    head = f"<h1>Retrieval across sensors</h1>\n<dl>{items}</dl>{_sentences([origin] if origin else [])}"
    page = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    text = page.substitute(title=f"Retrieval: {escape(model)}", head=head, body=body)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def _scores(results: Sequence[DirectionResult], baselines: Mapping[str, Sequence[DirectionResult]]) -> str:
    k = results[0].k
    # First what a narrow screen shows without scrolling.
    order = ["f1_of_means", *(name for name in METRICS if name != "f1_of_means")]
    titles = column_names(k)
    own_place = any(result.colocated_recall is not None for result in results)
    header = ["query → archive", *(titles[name] for name in order), "R-precision", "hubness"]
    header += [f"own place @{k}"] if own_place else []

    def row(title: str, result: DirectionResult, intervals: Mapping[str, tuple[float, float]]) -> list[str]:
        cells = [f"{result.scores[name]:.4f}" + _small("{:.4f} to {:.4f}", *intervals.get(name, ())) for name in order]
        cells += [f"{result.r_precision:.4f}", f"{result.hubness_skewness:.2f}"]
        if own_place:
            cells.append(_ABSENT if result.colocated_recall is None else f"{result.colocated_recall:.4f}")
        return [title, *cells]

    rows = [row(result.title, result, result.intervals) for result in results]
    random = results[0].random
    rows.append(["random order", *(f"{random.mean[name]:.4f}" + _small("±{:.4f}", random.std[name]) for name in order)])
    rows += [row(f"{name} {result.title}", result, {}) for name, found in baselines.items() for result in found]
    rows = [cells + [_ABSENT] * (len(header) - len(cells)) for cells in rows]
    sentences = list(notes(results)) + [f"{name}: {MEANINGS[name]}." for name in baselines if name in MEANINGS]
    if results[0].intervals:
        sentences.append(
            "Below a number: its 95 % bootstrap interval over "
            + ("queries." if results[0].scenes is None else "scenes.")
        )
    measured = min(result.r_precision_queries for result in results)
    if measured < results[0].n_queries:
        sentences.append(f"R-precision is of {measured} queries, evenly spread.")
    return _table(header, rows, raw=True) + _sentences(sentences)


def _small(template: str, *numbers: float) -> str:
    """What stands below a number in small print, if anything."""
    return f"<small>{template.format(*numbers)}</small>" if numbers else ""


def _charts(results: Sequence[DirectionResult], draw: Sequence[tuple[str, "Callable[[], Figure]"]]) -> str:
    """Charts side by side where the screen has room."""
    try:
        names = ", ".join(result.title for result in results)
        drawn = "".join(f"<div>{as_svg(make(), f'{title}: {names}')}</div>" for title, make in draw)
    except ImportError as error:
        return _sentences([str(error)])
    return f'<div class="charts">{drawn}</div>'


def _alignment(
    evaluation: Evaluation, gains: Mapping[str, Mapping[str, Any]], untrained: Evaluation | None = None
) -> str:
    blank = None if untrained is None else (untrained.choice, untrained.by_alignment)
    table = alignments_table(evaluation.choice, evaluation.by_alignment, blank)
    sentences = list(table.notes)
    for name, gain in gains.items():
        lower, upper = gain["interval"]
        sentences.append(f"{name}: {gain['gain']:+.4f} over none (95 % interval {lower:+.4f} to {upper:+.4f}).")
    if len(evaluation.by_alignment) > 1:
        sentences += [
            "Fitted and chosen on training pairs alone; the columns of F1 by direction are the evaluation itself.",
            "gap: distance between the means of the sensors' embeds of training pairs, over the scatter within a sensor.",
        ]
    return _table(table.header, table.rows, left=table.names) + _sentences(sentences)


def _examples(results: Sequence[DirectionResult], dataset: Dataset, queries: int) -> str:
    parts = [
        '<p>Evenly spread queries, not picked by how well they did. <b class="hit">✓</b> shares a label with the query, '
        '<b class="miss">✗</b> shares none.</p>'
    ]
    for result in results:
        inner = ""
        for query, found in take_examples(result, dataset, queries=queries, top_k=min(EXAMPLE_RESULTS, result.k)):
            asked = _figure(query, "query", "query", ", ".join(map(abbreviate, query.labels)))
            figures = "".join(_found(query, tile, rank) for rank, tile in enumerate(found, start=1))
            inner += f'<div class="example">{asked}<div class="found">{figures}</div></div>'
        opened = " open" if result is results[0] or result.query_sensor != result.archive_sensor else ""
        parts.append(f"<details{opened}><summary>{result.title}</summary>{inner}</details>")
    return "".join(parts)


def _found(query: ExampleTile, tile: ExampleTile, rank: int) -> str:
    wanted = set(query.labels)
    shared = len(wanted & set(tile.labels))
    kind, sign = ("hit", "✓") if shared else ("miss", "✗")
    caption = f"{shared} of {len(wanted)} shared: {', '.join(map(abbreviate, tile.labels))}"
    return _figure(tile, kind, f"{sign} {rank} <small>{tile.similarity:.3f}</small>", caption)


def _figure(tile: ExampleTile, kind: str, head: str, caption: str) -> str:
    alt = escape(f"{kind}: {tile.id}, {', '.join(tile.labels) or 'no labels'}")
    buffer = io.BytesIO()
    pixels = (np.clip(tile.rgb, 0, 1) * 255).round().astype(np.uint8)
    PilImage.fromarray(pixels).save(buffer, "JPEG", quality=85)
    picture = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure class="{kind}" title="{alt}"><b>{head}</b><img src="{picture}" alt="{alt}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _arrow(name: str) -> str:
    """Directions as pictures call them, wherever they stand in a text: `s1 -> s2` becomes `S1 → S2`."""
    return re.sub(r"(\w+) -> (\w+)", lambda found: f"{found[1].upper()} → {found[2].upper()}", name)


def _sentences(sentences: Iterable[str]) -> str:
    return "".join(f"<p>{escape(_arrow(sentence))}</p>" for sentence in sentences)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, raw: bool = False) -> str:
    """A table that scrolls sideways where the screen is narrow; the first columns are names."""

    def line(cells: Sequence[str], tag: str) -> str:
        shown = cells if raw else [escape(_arrow(text)) for text in cells]
        kinds = [' class="name"' if place < left else "" for place in range(len(cells))]
        return f"<tr>{''.join(f'<{tag}{kind}>{text}</{tag}>' for text, kind in zip(shown, kinds, strict=True))}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table><thead>{line(header, "th")}</thead><tbody>{body}</tbody></table></div>'
