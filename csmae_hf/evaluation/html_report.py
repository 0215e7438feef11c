"""The report of an evaluation: one HTML file that needs nothing else, not even a network."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from csmae_hf.evaluation.alignment_choice import AlignmentChoice, alignment_rows
from csmae_hf.evaluation.charts import bars, legend, line_chart
from csmae_hf.evaluation.examples import Example, ExampleTile, take_examples
from csmae_hf.evaluation.probe import ProbeResult, probe_rows
from csmae_hf.evaluation.results import DEFINITIONS, DirectionResult, column_names, notes
from csmae_hf.files import write_atomically
from csmae_hf.metrics.ranking import SCORES
from csmae_hf.visualize import Image, abbreviate

EXAMPLE_RESULTS = 10
_JPEG_QUALITY = 85
_ABSENT = "-"

_ORDER = ("f1_of_means", *(name for name in SCORES if name != "f1_of_means"))
"""The number of most interest first: a narrow screen shows it without scrolling."""


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
    """Write the report.

    Args:
        content: What it shows.
        dataset: The tiles, for the examples.
        path: The file.
        queries: Example queries of each direction; 0 for none.

    Returns:
        The path.
    """
    k = content.results[0].k
    sections = [
        ("Scores", _scores(content)),
        (f"Precision, recall and F1 at 1 to {k} results", _over_k(content.results)),
        *_groups(content.results),
        ("Alignment of the sensors", _alignment(content)),
    ]
    if content.probes:
        sections.append(("Classification on frozen embeds", _table(*probe_rows(content.probes), left=2)))
    if queries:
        sections.append(("Examples", _examples(content.results, dataset, queries)))
    sections.append(("What the numbers mean", _definitions()))
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
    k = content.results[0].k
    titles = dict(zip(SCORES, column_names(k), strict=True))
    own_place = any(result.colocated_recall is not None for result in content.results)
    header = [
        "query → archive",
        *(titles[name] for name in _ORDER),
        "R-precision",
        "hubness",
        *([f"own place @{k}"] if own_place else []),
    ]
    rows = []
    for result in content.results:
        cells = [_number(getattr(result, name), result.intervals.get(name)) for name in _ORDER]
        cells += [f"{result.r_precision:.4f}", f"{result.hubness_skewness:.2f}"]
        if own_place:
            cells.append(_ABSENT if result.colocated_recall is None else f"{result.colocated_recall:.4f}")
        rows.append([_arrow(result.name), *cells])
    random = content.results[0].random
    means, spreads = {**vars(random.mean), **random.graded}, vars(random.std)
    rows.append(["random order", *(_with_spread(means[name], spreads.get(name)) for name in _ORDER)])
    if content.untrained:
        for result in content.untrained:
            cells = [f"{getattr(result, name):.4f}" for name in (*_ORDER, "r_precision")]
            rows.append([f"untrained {_arrow(result.name)}", *cells, f"{result.hubness_skewness:.2f}"])
    rows = [row + [_ABSENT] * (len(header) - len(row)) for row in rows]
    sentences = list(notes(content.results))
    if content.results[0].intervals:
        sentences.append("Below a number: its 95 % bootstrap interval over queries.")
    measured = min(result.r_precision_queries for result in content.results)
    if measured < content.results[0].n_queries:
        sentences.append(f"R-precision is of {measured} queries, evenly spread.")
    return _table(header, rows, raw=True) + _sentences(sentences)


def _over_k(results: Sequence[DirectionResult]) -> str:
    titles = {"precision": "Precision@k", "recall": "Recall@k", "f1_of_means": "F1@k of means"}
    charts = "".join(
        line_chart(title, [(_arrow(result.name), result.over_k[metric]) for result in results])
        for metric, title in titles.items()
    )
    return f'{legend([_arrow(result.name) for result in results])}<div class="charts">{charts}</div>'


def _groups(results: Sequence[DirectionResult]) -> list[tuple[str, str]]:
    """A section of bars for each dimension."""
    sections = []
    for dimension in results[0].groups:
        values = list(dict.fromkeys(value for result in results for value in result.groups.get(dimension, {})))
        series = []
        for value in values:
            groups = [result.groups.get(dimension, {}).get(value) for result in results]
            count = max(group.n_queries for group in groups if group is not None)
            scores = [None if group is None else (group.scores["f1_of_means"], group.f1_interval) for group in groups]
            series.append((value, f"{count:,} queries", scores))
        named = [_arrow(result.name) for result in results]
        text = f"<p>F1@{results[0].k} of means, of the queries that have the {dimension}.</p>" + legend(
            named, filled=True
        )
        sections.append((f"By {dimension}", text + bars(series, named)))
    return sections


def _alignment(content: ReportContent) -> str:
    header, rows = alignment_rows(content.choice, content.by_alignment)
    sentences = [f"* {content.choice.method} is used: {content.choice.reason}."]
    for name, gain in content.gains.items():
        lower, upper = gain["interval"]
        sentences.append(f"{_arrow(name)}: {gain['gain']:+.4f} over none (95 % interval {lower:+.4f} to {upper:+.4f}).")
    if len(content.by_alignment) > 1:
        sentences.append(
            "Fitted on training pairs and chosen on validation tiles; the columns of F1 are the evaluation itself."
        )
        sentences.append(
            "gap: distance between the means of the sensors' embeds of training pairs, over the scatter within a sensor."
        )
    return _table([_arrow(name) for name in header], rows) + _sentences(sentences)


def _examples(results: Sequence[DirectionResult], dataset: Dataset, queries: int) -> str:
    parts = [
        '<p>Evenly spread queries, not picked by how well they did. <b class="hit">✓</b> shares a label with the query, '
        '<b class="miss">✗</b> shares none.</p>'
    ]
    for result in results:
        examples = take_examples(result, dataset, queries=queries, top_k=min(EXAMPLE_RESULTS, result.k))
        inner = "".join(_example(example) for example in examples)
        opened = " open" if result is results[0] or result.query_sensor != result.archive_sensor else ""
        parts.append(f"<details{opened}><summary>{_arrow(result.name)}</summary>{inner}</details>")
    return "".join(parts)


def _example(example: Example) -> str:
    query = _figure(example.query, "query", "query", ", ".join(map(abbreviate, example.query.labels)))
    wanted = set(example.query.labels)
    figures = []
    for rank, tile in enumerate(example.results, start=1):
        shared = wanted & set(tile.labels)
        kind, sign = ("hit", "✓") if shared else ("miss", "✗")
        caption = f"{len(shared)} of {len(wanted)} shared: {', '.join(map(abbreviate, tile.labels))}"
        head = f"{sign} {rank} <small>{tile.similarity:.3f}</small>"
        figures.append(_figure(tile, kind, head, caption))
    return f'<div class="example">{query}<div class="found">{"".join(figures)}</div></div>'


def _figure(tile: ExampleTile, kind: str, head: str, caption: str) -> str:
    alt = escape(f"{kind}: {tile.id}, {', '.join(tile.labels) or 'no labels'}")
    return (
        f'<figure class="{kind}" title="{alt}"><b>{head}</b><img src="{_data_uri(tile.rgb)}" alt="{alt}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _data_uri(rgb: Image) -> str:
    """A picture inside the page."""
    from PIL import Image as PilImage

    buffer = io.BytesIO()
    pixels = (np.clip(rgb, 0, 1) * 255).round().astype(np.uint8)
    PilImage.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _definitions() -> str:
    items = "".join(
        f"<dt><code>{escape(name)}</code></dt><dd>{escape(text)}</dd>" for name, text in DEFINITIONS.items()
    )
    return f'<dl class="definitions">{items}</dl><p>q are the labels of a query, r those of a result.</p>'


def _number(value: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{value:.4f}"
    return f"{value:.4f}<small>{interval[0]:.4f} to {interval[1]:.4f}</small>"


def _with_spread(mean: float, spread: float | None) -> str:
    return f"{mean:.4f}" if spread is None else f"{mean:.4f}<small>±{spread:.4f}</small>"


def _arrow(name: str) -> str:
    return name.replace("->", "→")


def _sentences(sentences: Iterable[str]) -> str:
    return "".join(f"<p>{escape(_arrow(sentence))}</p>" for sentence in sentences)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, raw: bool = False) -> str:
    """A table that scrolls sideways where the screen is narrow; the first columns are names."""

    def cell(text: str, place: int, tag: str) -> str:
        shown = text if raw else escape(_arrow(text))
        kind = ' class="name"' if place < left else ""
        return f"<{tag}{kind}>{shown}</{tag}>"

    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(cell(text, place, tag) for place, text in enumerate(cells))}</tr>"

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
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0; font-size: .85rem; }
.legend svg { width: 26px; height: 10px; margin-right: .4rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 1rem; }
.charts svg { width: 100%; height: auto; }
.bars { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)); gap: .75rem 2rem; }
.bar-group h3 { font-size: .9rem; margin: 0; font-weight: 600; }
.bar-group h3 small { color: var(--faint); font-weight: 400; margin-left: .5rem; }
.bar-group svg { width: 100%; height: auto; display: block; }
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
