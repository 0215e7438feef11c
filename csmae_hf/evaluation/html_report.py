"""The report of an evaluation: one HTML file that needs nothing else, not even a network."""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset
from PIL import Image as PilImage

from csmae_hf.charts import as_svg
from csmae_hf.evaluation.alignment_choice import AlignmentChoice, alignment_rows
from csmae_hf.evaluation.pictures import OVER_K, ExampleTile, chart_groups, chart_over_k, take_examples
from csmae_hf.evaluation.probe import THRESHOLD_NOTE, ProbeResult, probe_rows
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
class ReportContent:
    """What a report shows.

    Attributes:
        model: Name of the model.
        data: Name of the archive.
        results: The directions.
        choice: The alignments.
        by_alignment: The directions under each alignment.
        gains: Gain over none of each direction, with its interval.
        probes: Classification, if it was measured.
        untrained: The directions of a model with random weights, if they were measured.
    """

    model: str
    data: str
    results: Sequence[DirectionResult]
    choice: AlignmentChoice
    by_alignment: Mapping[str, Sequence[DirectionResult]]
    gains: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    probes: Sequence[ProbeResult] = ()
    untrained: Sequence[DirectionResult] | None = None


def write_report(content: ReportContent, dataset: Dataset, path: Path, *, queries: int = 6) -> Path:
    """Write the report. Without matplotlib it has no charts, and says how to get them.

    Args:
        content: What it shows.
        dataset: The tiles, for the examples.
        path: The file.
        queries: Example queries of each direction; 0 for none.

    Returns:
        The path.
    """
    results = content.results
    over_k = [(title, lambda metric=metric: chart_over_k(results, [metric])) for metric, title in OVER_K.items()]
    sections = [
        ("Scores", _scores(content)),
        (f"Precision, recall and F1 at 1 to {results[0].k} results", _charts(results, over_k)),
    ]
    for dimension in results[0].groups:
        draw = [(f"By {dimension}", lambda dimension=dimension: chart_groups(results, dimension))]
        said = f"<p>F1@{results[0].k} of means, of the queries that have the {dimension}.</p>"
        sections.append((f"By {dimension}", said + _charts(results, draw)))
    sections.append(("Alignment of the sensors", _alignment(content)))
    if content.probes:
        shown = _table(*probe_rows(content.probes), left=2) + _sentences([THRESHOLD_NOTE])
        sections.append(("Classification on frozen embeds", shown))
    if queries:
        sections.append(("Examples", _examples(results, dataset, queries)))
    meant = "".join(
        f"<dt><code>{escape(name)}</code></dt><dd>{escape(text)}</dd>" for name, text in definitions().items()
    )
    what = f'<dl class="definitions">{meant}</dl><p>q are the labels of a query, r those of a result.</p>'
    sections.append(("What the numbers mean", what))
    body = "\n".join(f"<section>\n<h2>{escape(title)}</h2>\n{text}\n</section>" for title, text in sections)
    page = _PAGE.format(title=f"Retrieval: {escape(content.model)}", style=_STYLE, head=_head(content), body=body)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    return path


def _head(content: ReportContent) -> str:
    first = content.results[0]
    facts = {
        "Model": content.model,
        "Archive": content.data,
        "Queries": f"{first.n_queries:,}",
        "Archive tiles": f"{first.n_archive:,}",
        "Results per query": str(first.k),
        "Alignment": content.choice.method,
    }
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f"<h1>Retrieval across sensors</h1>\n<dl>{items}</dl>"


def _scores(content: ReportContent) -> str:
    results = content.results
    k = results[0].k
    order = sorted(
        METRICS, key=lambda name: name != "f1_of_means"
    )  # first what a narrow screen shows without scrolling
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
    rows += [row(f"untrained {result.title}", result, {}) for result in content.untrained or ()]
    rows = [cells + [_ABSENT] * (len(header) - len(cells)) for cells in rows]
    sentences = list(notes(results))
    if results[0].intervals:
        sentences.append("Below a number: its 95 % bootstrap interval over queries.")
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


def _alignment(content: ReportContent) -> str:
    header, rows = alignment_rows(content.choice, content.by_alignment)
    sentences = [f"* {content.choice.method} is used: {content.choice.reason}."]
    for name, gain in content.gains.items():
        lower, upper = gain["interval"]
        sentences.append(f"{name}: {gain['gain']:+.4f} over none (95 % interval {lower:+.4f} to {upper:+.4f}).")
    if len(content.by_alignment) > 1:
        sentences += [
            "Fitted on training pairs and chosen on validation tiles; the columns of F1 are the evaluation itself.",
            "gap: distance between the means of the sensors' embeds of training pairs, over the scatter within a sensor.",
        ]
    return _table(header, rows) + _sentences(sentences)


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


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
{head}
</header>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --ink: #1f2328; --faint: #59636e; --line: #d0d7de; --paper: #fff; --shade: #f6f8fa; --hit: #1a7f37; --miss: #c62828; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
header, main { max-width: 1400px; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
p { margin: .35rem 0; color: var(--faint); max-width: 75ch; }
header dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0; }
header dt { font-size: .8rem; color: var(--faint); }
header dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: top; }
th { font-weight: 600; font-size: .85rem; background: var(--shade); }
.name { text-align: left; }
th.name:first-child, td.name:first-child { position: sticky; left: 0; background: var(--paper); }
th.name:first-child { background: var(--shade); }
td small { display: block; color: var(--faint); font-size: .75rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 1rem; overflow-x: auto; }
.charts svg { width: 100%; min-width: 420px; max-width: 900px; height: auto; font-family: "DejaVu Sans", system-ui, sans-serif; }
details { margin: .75rem 0; border: 1px solid var(--line); border-radius: 6px; padding: .5rem .75rem; }
summary { cursor: pointer; font-weight: 600; }
.example { display: flex; gap: 1rem; padding: .75rem 0; border-bottom: 1px solid var(--line); align-items: flex-start; }
.example:last-child { border: 0; }
.found { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: .75rem; flex: 1; }
figure { margin: 0; width: 104px; font-size: .75rem; }
figure b { display: block; font-size: .9rem; }
figure b small { float: right; font-weight: 400; color: var(--faint); line-height: 1.9; }
figure img { width: 104px; height: 104px; border: 4px solid var(--ink); border-radius: 4px; display: block; }
.hit img { border-color: var(--hit); } figure.hit b, b.hit { color: var(--hit); }
.miss img { border-color: var(--miss); border-style: dashed; } figure.miss b, b.miss { color: var(--miss); }
figcaption { color: var(--faint); line-height: 1.3; margin-top: .2rem; overflow-wrap: anywhere; }
.definitions dt { margin-top: .5rem; } .definitions dd { margin: 0 0 0 1rem; color: var(--faint); }
@media (max-width: 600px) { .example { flex-direction: column; } .found { width: 100%; } th, td { padding: .3rem .5rem; } }
@media print { details { border: 0; } }
"""
