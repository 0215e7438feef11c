"""The results of a search as a person reads them: how alike, what they share with the query, how far away, when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from csmae_hf.app.geography import Place, distance, place_of


@dataclass(frozen=True)
class Card:
    """A result.

    Attributes:
        rank: From 1.
        tile: Its id.
        score: Cosine similarity to the query.
        labels: Its classes, those shared with the query first, and whether each is shared.
        hit: Whether it shares a label with the query; None where labels of either are not known.
        place: Where it lies; None where that is not known.
        kilometres: How far from the query; None where either place is not known.
        day: When it was seen, as an ISO date; None where that is not known.
        facts: Further metadata, in words.
    """

    rank: int
    tile: str
    score: float
    labels: tuple[tuple[str, bool], ...]
    hit: bool | None
    place: Place | None
    kilometres: float | None
    day: str | None
    facts: tuple[str, ...]


def make_cards(
    hits: Sequence[Mapping[str, Any]], sensor: str, query_labels: Sequence[str], query_place: Place | None
) -> list[Card]:
    """Describe results.

    Args:
        hits: Those of one query, as `Hits[0]` gives them.
        sensor: Sensor that was searched; decides which date is shown.
        query_labels: Classes of the query, none where they are not known.
        query_place: Where the query lies, where that is known.

    Returns:
        A card each, in order.
    """
    wanted = set(query_labels)
    cards = []
    for hit in hits:
        labels = [str(label) for label in hit.get("labels") or ()]
        shared = [label for label in labels if label in wanted]
        place = place_of(hit)
        cards.append(
            Card(
                rank=int(hit["rank"]),
                tile=str(hit["id"]),
                score=float(hit["score"]),
                labels=tuple((label, label in wanted) for label in [*shared, *(set_aside(labels, shared))]),
                hit=bool(shared) if wanted and labels else None,
                place=place,
                kilometres=distance(query_place, place) if query_place is not None and place is not None else None,
                day=day_of(hit, sensor),
                facts=facts_of(hit),
            )
        )
    return cards


def set_aside(labels: Sequence[str], shared: Sequence[str]) -> list[str]:
    """The labels that are not shared, in order."""
    return [label for label in labels if label not in shared]


def day_of(tile: Mapping[str, Any], sensor: str) -> str | None:
    """Say when a tile was seen by a sensor, as an ISO date; by any, where that of this one is not known."""
    times = {name: value for name, value in tile.items() if isinstance(value, date)}
    value = times.get(f"date_{sensor}", next(iter(times.values()), None))
    return None if value is None else value.isoformat()[:10]


def facts_of(tile: Mapping[str, Any]) -> tuple[str, ...]:
    """Country, season and flags of a tile, as far as they are known, in words."""
    words = [str(tile[name]) for name in ("country", "season") if tile.get(name)]
    words += [name.replace("_", " ") for name, value in tile.items() if value is True]
    return tuple(words)
