"""What is done with images that look wrong by a guess: the same three words, default and advice wherever pixels are used."""

from collections.abc import Iterable
from typing import Literal, get_args

from csmae_hf.data.unit_rules import UNITS_BY_TILE

Suspect = Literal["refuse", "leave-out", "accept"]
"""What is done where images show a sign which is a guess: all are refused, these are left out as unreadable ones are, or taken."""

MAX_UNREADABLE_SHARE = 0.01
"""Share of the tiles that may be left out before what uses them is given up, where the caller does not say otherwise."""

SUSPECT_REMEDY = (
    "Mend them. Where the guess is wrong, take them as they are by suspect='accept' (--suspect accept); suspect='leave-out' "
    "(--suspect leave-out) goes on without them, up to 1% of all"
)
"""What to do about images that are refused by a guess."""


def check_suspect(suspect: str) -> None:
    """Refuse, with a ValueError, what is none of the three words."""
    if suspect not in get_args(Suspect):
        raise ValueError(f"suspect={suspect!r}: expected one of {', '.join(get_args(Suspect))}.")


def unit_remedy(reasons: Iterable[str]) -> str:
    """What to do where units are wrong of some tiles only; nothing where no reason is about units."""
    return f"{UNITS_BY_TILE}." if any("--units " in reason for reason in reasons) else ""
