"""Labels of any nomenclature: from what tables, folders and datasets write to the names of classes and their numbers."""

import difflib
import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from csmae_hf.bigearthnet import LABELS, LABELS_43_TO_19

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

_OF_BIGEARTHNET: dict[str, str | None] = {**LABELS_43_TO_19, **{name: name for name in LABELS}}
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def parse_labels(value: Any, tile: str) -> list[str] | None:
    """Read what a table says of a tile's classes, as names.

    Args:
        value: A name, or several: a list, the text of a list, or names with `;` or `|` between them. Numbers are names of classes too,
            but -1, which is no label.
        tile: The tile, for the message.

    Returns:
        The names; None for no label.

    Raises:
        ValueError: If it holds anything but names and whole numbers.
    """
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("[]", "()", "{}"):
            inside = text[1:-1]
            value = ["".join(found) for found in _QUOTED.findall(inside)] or re.split(r"[,\s]+", inside.strip())
        else:
            value = re.split(r"[;|]", text)
    elif not hasattr(value, "__iter__"):
        value = [value]
    names = []
    for one in value:
        if one is None or one != one:  # NaN
            continue
        if isinstance(one, float) and one.is_integer():  # a column of whole numbers with gaps, as pandas writes it
            one = int(one)
        if isinstance(one, bool) or not isinstance(one, str | Integral):
            raise ValueError(f"Tile {tile!r} has the label {str(one)[:100]!r}; expected the name of a class.")
        name = str(one).strip()
        if name and name != "-1":
            names.append(name)
    return names or None


def check_bigearthnet(names: Iterable[Any], tile: str) -> list[str]:
    """Refuse what is no name of the 19 or of the 43 classes of BigEarthNet, naming the tile."""
    checked = list(names)
    unknown = [name for name in checked if not isinstance(name, str) or name not in _OF_BIGEARTHNET]
    if unknown:
        raise ValueError(
            f"Tile {tile!r} has the label {str(unknown[0])[:100]!r}, which is none of the 19 or the 43 classes of BigEarthNet."
        )
    return checked


def classes_of(labels: Iterable[tuple[str, Sequence[str] | None]]) -> tuple[str, ...]:
    """Name the classes of a data set by all its tiles' labels, in the order of their numbers.

    Args:
        labels: Of each tile its name, and its labels or None.

    Returns:
        The 19 classes of BigEarthNet where all labels are of its 19 or its 43 (or there is none); else the labels' own names, in
        alphabetical order, or by number where they are numbers.

    Raises:
        ValueError: If most names are of BigEarthNet's and another is not.
    """
    first: dict[str, str] = {}
    for tile, names in labels:
        for name in names or ():
            if name not in first:
                first[name] = tile
    own = [name for name in first if name not in _OF_BIGEARTHNET]
    if not own:
        return LABELS
    if 2 * len(own) < len(first):
        near = difflib.get_close_matches(own[0], _OF_BIGEARTHNET, n=1, cutoff=0.8)
        raise ValueError(
            f"Tile {first[own[0]]!r} has the label {own[0]!r}, which is none of the 19 or the 43 classes of BigEarthNet, as "
            f"{len(first) - len(own)} of the {len(first)} names are{f': did you mean {near[0]!r}?' if near else '.'} Correct it or "
            "leave it out. (Classes of your own are read where most names are not BigEarthNet's.)"
        )
    if all(name.isdecimal() for name in first):
        return tuple(sorted(first, key=int))
    return tuple(sorted(first))


def numbers_of(labels: Iterable[Sequence[str] | None], classes: Sequence[str]) -> list[list[int] | None]:
    """Give names their numbers in a list of classes, ascending, each once; names of BigEarthNet's 43 those of its 19.

    None for None, and for labels that the 19 classes have dropped.
    """
    place = {name: number for number, name in enumerate(classes)}
    if tuple(classes) == LABELS:
        place |= {old: place[new] for old, new in LABELS_43_TO_19.items() if new is not None}
    return [
        names if not names else sorted({place[name] for name in names if name in place}) or None  # type: ignore[misc]
        for names in labels
    ]


def class_names(feature: Any) -> list[str] | None:
    """Name the classes of a dataset's column of `ClassLabel`, or of lists of it, by its feature; None for any other column."""
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else list(names)


def labels_of(dataset: "Dataset") -> list[list[int]]:
    """List the class numbers of each tile of a dataset's column `labels`, of `ClassLabel` or of lists of it.

    A tile without labels has an empty list; -1, by which `datasets` says that there is no label, is none.
    """
    column = dataset.with_format(None).select_columns(["labels"])[:]["labels"]
    return [known_numbers(value) for value in column]


def known_numbers(value: int | Sequence[int] | None) -> list[int]:
    """List the class numbers that a row has: one, several or None; -1 is no label."""
    several = [value] if isinstance(value, int) else value or ()
    return [number for number in several if number is not None and number != -1]
