"""How many pairs it takes to bring sensors together: scores against the number of pairs that an alignment is fitted on.

For encoders of one sensor each, which share no space before, it is the price of searching one by the other.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from csmae_hf.data.evenly import evenly
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.evaluation.alignment_choice import apply_alignment, relative_gap
from csmae_hf.evaluation.baselines import Measure
from csmae_hf.evaluation.evaluate import Embedded
from csmae_hf.evaluation.tables import RANDOM_ORDER, Table


def parse_counts(text: str) -> list[int]:
    """Numbers of pairs, ascending, of a text such as `16,64,256`; a ValueError if it is none, or names fewer than 2 pairs."""
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 2:
        raise ValueError(
            f"pairs_curve={text!r}: expected numbers of pairs, 2 or more, such as --pairs_curve 16,64,256."
        )
    return counts


def pairs_curve(
    models: Mapping[str, tuple[Mapping[str, Embedded], Mapping[str, Embedded]]],
    methods: Sequence[str],
    counts: Sequence[int],
    measure: Measure,
    no_train: str = "",
) -> Table:
    """Fit alignments on more and more training pairs, and measure retrieval across sensors and the gap between them under each.

    The gap (`relative_gap`) is that of the tiles which are searched, none of which an alignment was fitted on.

    Args:
        models: By name the embedded tiles by sensor, queries and archive, and training tiles.
        methods: Alignments to fit.
        counts: Numbers of pairs, evenly spread over the training tiles.
        measure: The evaluation.
        no_train: Why there are no training tiles.

    Returns:
        A row for each model, alignment and number of pairs; first of each model without alignment. Last that of a random order.

    Raises:
        ValueError: If there are fewer training pairs than asked for, or nothing can be aligned.
    """
    fitted = [method for method in methods if method != "none"]
    if not fitted:
        raise ValueError("pairs_curve fits alignments, and the alignment is 'none': name others (--alignment auto).")
    rows: list[list[str]] = []
    records: list[dict[str, object]] = []
    chance: dict[str, float] = {}
    k = 0
    for name, (embeds, train) in models.items():
        if len(embeds) < 2:
            raise ValueError(f"pairs_curve needs two sensors or more, and {name} was measured on {', '.join(embeds)}.")
        available = len(next(iter(train.values())).ids) if train else 0
        if counts[-1] > available:
            why = f" ({no_train.rstrip('.')})" if no_train else ""
            raise ValueError(
                f"pairs_curve asks for {counts[-1]} pairs, and there are {available} training pairs{why}: name fewer, or raise "
                "--alignment_pairs or --max_tiles."
            )
        before = _gap(embeds)
        for method, count in [("none", 0), *((method, count) for method in fitted for count in counts)]:
            some = evenly(available, count)
            pairs = {sensor: one.embeds[some] for sensor, one in train.items()}
            alignment = Alignment.fit(pairs, method, quiet=True) if count else Alignment.none()
            aligned = apply_alignment(alignment, embeds)
            across = _ordered_pairs(embeds)
            found = {one.name: one for one in measure(aligned, directions=across, resamples=0)}
            chance = {name: one.random.mean["f1_of_means"] for name, one in found.items()}
            k = next(iter(found.values())).k
            f1 = [one.scores["f1_of_means"] for one in found.values()]
            after = _gap(aligned)
            cells = [name, method, str(count), f"{before:.4f}", f"{after:.4f}", *(f"{value:.4f}" for value in f1)]
            rows.append(cells)
            record: dict[str, object] = {"model": name, "alignment": method, "pairs": count, "gap_before": before}
            records.append(record | {"gap_after": after} | dict(zip(found, f1, strict=True)))
    rows.append([RANDOM_ORDER, "", "", "", "", *(f"{value:.4f}" for value in chance.values())])
    records.append({"model": RANDOM_ORDER, **chance})
    header = ["model", "alignment", "pairs", "gap before", "gap after", *(f"{name} F1@{k}" for name in chance)]
    note = "Gap: distance of the sensors' means in units of the scatter within them, of the tiles that are searched."
    return Table(header, rows, records, names=2, notes=[note])


def _ordered_pairs(embeds: Mapping[str, Embedded]) -> list[tuple[str, str]]:
    return [(one, other) for one in embeds for other in embeds if one != other]


def _gap(embeds: Mapping[str, Embedded]) -> float:
    return float(np.mean([relative_gap(a.embeds, b.embeds) for a, b in combinations(embeds.values(), 2)]))
