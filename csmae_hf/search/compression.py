"""What compact codes cost and keep in every direction between sensors, and the choice of the smallest that lose little enough.

Tiles of the archive are the queries, in two parts: on one the candidates and the kind are chosen, on the other all is reported.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from csmae_hf.metrics.labels import BoolArray, multi_hot
from csmae_hf.metrics.ranking import scores_over_k
from csmae_hf.search.codes import KINDS
from csmae_hf.search.codes_index import CodesIndex
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.index import ArchiveIndex
from csmae_hf.search.recall import LEAST_RECALL, RECALL_AT
from csmae_hf.search.vectors import IntArray, Vectors

MOST_LOST = 0.005
"""Share of the F1 of exact search that the chosen codes may lose in a direction."""

EXACT = "float32"
_QUERIES = 500  # of each part
_SINGLE = 50  # asked one by one, for time


@dataclass(frozen=True)
class Compression:
    """Search by a kind of codes in one direction, or by the vectors themselves, `float32`."""

    kind: str
    query_sensor: str
    archive_sensor: str
    tiles: int  # of the archive
    bytes: float  # of a tile of the archive's sensor
    candidates: int  # per result that are ranked; 0 of exact search
    queries: int
    k: int  # results of each query
    recall: float  # share of the exact results found; one equally near counts
    f1: float | None  # `f1_of_means` of labels at k; None where tiles have no labels
    proven: float  # share of the queries whose answer is known to be exact
    seconds: float  # of one query, median of 50
    chosen: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return asdict(self)


def measure_codes(vectors: Mapping[str, Vectors], tiles: pa.Table) -> list[Compression]:
    """Measure exact search and every kind of codes of an archive, and mark the kind that is to be used.

    That is the smallest that loses at most `MOST_LOST` of the F1 in every direction, or, where tiles have no labels, whose recall is
    0.95 in each. It is chosen on other queries than those of what is given, of which there are at most 500.

    Args:
        vectors: (N, D) unit vectors by sensor.
        tiles: Metadata, of which the column `labels`, lists of texts, is looked at.

    Raises:
        ValueError: If there are fewer than four tiles to ask by.
    """
    labels = _labels(tiles)
    asked = np.arange(tiles.num_rows) if labels is None else np.flatnonzero(labels.any(axis=1))
    asked = np.random.default_rng(0).permutation(asked)
    half = min(_QUERIES, len(asked) // 2)
    if half < 2:
        raise ValueError(f"Codes are measured by queries of 4 tiles or more, and {len(asked)} can be asked by.")
    parts = [np.sort(rows).astype(np.int64) for rows in (asked[:half], asked[half : 2 * half])]
    exact = {sensor: ExactIndex(side) for sensor, side in vectors.items()}
    trials, reports = (
        [
            _Direction(query, archive, vectors[query], rows, labels, exact[archive])
            for query in vectors
            for archive in vectors
        ]
        for rows in parts
    )
    measured = [direction.measure(exact[direction.archive_sensor]) for direction in reports]
    chosen: str | None = None
    for kind in KINDS:  # each is smaller than those before
        indexes = {sensor: CodesIndex(side, kind) for sensor, side in vectors.items()}
        for sensor, index in indexes.items():
            index.tune(partial(_lowest_recall, index, [one for one in trials if one.archive_sensor == sensor]), sensor)
        if all(direction.is_enough(indexes[direction.archive_sensor]) for direction in trials):
            chosen = kind
        measured += [direction.measure(indexes[direction.archive_sensor]) for direction in reports]
    return [replace(row, chosen=row.kind == chosen) for row in measured]


def chosen_options(measured: Sequence[Compression]) -> dict[str, Any] | None:
    """Options of the `CodesIndex` that was chosen; None where no kind keeps enough."""
    chosen = [row for row in measured if row.chosen]
    return {"kind": chosen[0].kind, "candidates": max(row.candidates for row in chosen)} if chosen else None


def describe_codes(measured: Sequence[Compression]) -> list[str]:
    """Lay the measurements out as lines of a table, with what was chosen."""
    if not measured:
        return []
    first = measured[0]
    exact = {(row.query_sensor, row.archive_sensor): row for row in measured if row.kind == EXACT}
    heads = ("kind", "bytes", "direction", f"recall@{first.k}", f"F1@{first.k}", "lost", "ms", "proven")
    table = [heads]
    lost: list[float] = []
    for row in measured:
        away = _lost(row, exact)
        f1 = ("none", "") if row.f1 is None else (f"{row.f1:.4f}", f"{away:z.2%}")
        direction, milliseconds = f"{row.query_sensor} -> {row.archive_sensor}", f"{1000 * row.seconds:.2f}"
        table.append(
            (row.kind, f"{row.bytes:.0f}", direction, f"{row.recall:.3f}", *f1, milliseconds, f"{row.proven:.0%}")
        )
        if row.chosen and row.f1 is not None:
            lost.append(away)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f"codes      measured by {first.queries} queries of {first.tiles} tiles"]
    lines += ["  " + "  ".join(map(str.rjust, line, widths)) for line in table]
    chosen = [row for row in measured if row.chosen]
    told = "none: search exactly"
    if chosen:
        told = f"{chosen[0].kind}, recall {min(row.recall for row in chosen):.3f} or more"
        told += f", at most {max(lost):z.2%} of F1 lost" if lost else ""
    unlabelled = "" if first.f1 is not None else "; the tiles have no labels, so by recall alone"
    return [*lines, f"  best kind  {told}{unlabelled}"]


def _lost(row: Compression, exact: Mapping[tuple[str, str], Compression]) -> float:
    """Share of the F1 of exact search that codes lose; negative where they happen to have more."""
    whole = exact[row.query_sensor, row.archive_sensor].f1
    return 1 - row.f1 / whole if row.f1 is not None and whole else 0.0


def _labels(tiles: pa.Table) -> BoolArray | None:
    """(N, C) labels of tiles; None where no tile has any."""
    if "labels" not in tiles.column_names:
        return None
    kind = tiles.schema.field("labels").type
    if not pa.types.is_list(kind) or not pa.types.is_string(kind.value_type):
        return None
    held = [[name for name in names or () if name is not None] for names in tiles.column("labels").to_pylist()]
    numbers = {name: number for number, name in enumerate(sorted({name for names in held for name in names}))}
    return multi_hot([[numbers[name] for name in names] for names in held], len(numbers)) if numbers else None


class _Direction:
    """Queries of a sensor, rows of its vectors, of which none finds itself, beside their exact results in the archive's sensor."""

    def __init__(
        self,
        query_sensor: str,
        archive_sensor: str,
        vectors: Vectors,
        rows: IntArray,
        labels: BoolArray | None,
        exact: ExactIndex,
    ):
        self.query_sensor, self.archive_sensor = query_sensor, archive_sensor
        self.rows, self.labels = rows, labels
        self.queries = vectors[torch.from_numpy(rows)]
        self.k = min(RECALL_AT, len(vectors) - 1)
        self.best = self._ask(exact)

    def _ask(self, index: ArchiveIndex) -> tuple[NDArray[np.float32], IntArray]:
        """(Q, k) scores and rows."""
        found = index.search(self.queries, self.k + 1)
        order = np.argsort(found.rows == self.rows[:, None], axis=1, kind="stable")[:, : self.k]
        return np.take_along_axis(found.scores, order, 1), np.take_along_axis(found.rows, order, 1)

    def recall(self, scores: NDArray[np.float32]) -> float:
        """Share of the exact results that (Q, k) scores are of; one equally near counts."""
        return float((scores >= self.best[0][:, -1:]).mean())

    def recall_of(self, index: ArchiveIndex) -> float:
        """The same of an index."""
        return self.recall(self._ask(index)[0])

    def f1(self, found: IntArray) -> float | None:
        """F1 of (Q, k) rows; None without labels."""
        if self.labels is None:
            return None
        return float(scores_over_k(self.labels[self.rows], self.labels, found)["f1_of_means"][-1])

    def is_enough(self, index: CodesIndex) -> bool:
        """Whether codes lose little enough to be chosen."""
        scores, found = self._ask(index)
        ours, exact = self.f1(found), self.f1(self.best[1])
        return self.recall(scores) >= LEAST_RECALL if ours is None or exact is None else ours >= (1 - MOST_LOST) * exact

    def measure(self, index: CodesIndex | ExactIndex) -> Compression:
        """Measure an index of the archive's sensor."""
        scores, found = self._ask(index)
        proven = np.ones(1) if isinstance(index, ExactIndex) else index.search_proven(self.queries, self.k + 1)[1]
        times = []
        for query in self.queries[:_SINGLE].split(1):
            start = time.perf_counter()
            index.search(query, self.k + 1)
            times.append(time.perf_counter() - start)
        codes = index.codes if isinstance(index, CodesIndex) else None
        vectors = index.exact.vectors if isinstance(index, CodesIndex) else index.vectors
        return Compression(
            kind=EXACT if codes is None else codes.kind,
            query_sensor=self.query_sensor,
            archive_sensor=self.archive_sensor,
            tiles=len(vectors),
            bytes=4.0 * vectors.width if codes is None else (codes.codes.nbytes + codes.scales.nbytes) / len(vectors),
            candidates=index.parameters.get("candidates", 0),
            queries=len(self.rows),
            k=self.k,
            recall=self.recall(scores),
            f1=self.f1(found),
            proven=float(np.mean(proven)),
            seconds=float(np.median(times)),
        )


def _lowest_recall(index: CodesIndex, directions: Sequence[_Direction]) -> float:
    return min(direction.recall_of(index) for direction in directions)
