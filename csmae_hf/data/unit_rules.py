"""Units of the tiles of a data set, said for all of them or by rules: `dn+1000 from 2022-01-25`, `dn+1000 of *_N0510_*`.

    unit       = one of `UNIT_NAMES`, for the tiles that no rule fits
    rule       = unit [from DATE] [before DATE] [of PATTERN], at least one of them

`from` and `before` compare the date of the tile's image of the sensor (ISO 8601, UTC), `of` its names: the tile's id, the image's own
name, or the path of one of its files; `*` and `?` stand for any characters. A rule fits where all of it does; a tile that no rule fits
is taken for what its files say, or guessed.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import NamedTuple

from image_checks_csmae import UNIT_NAMES, check_unit_name

logger = logging.getLogger(__name__)

Units = Mapping[str, str | Sequence[str]]
"""By sensor a unit, a rule, or several rules."""

UNITS_BY_TILE = (
    "Where only some tiles are so, give the unit by tile: in a column units_SENSOR (units_s2), or by a rule, such as "
    "units={'s2': 'dn+1000 from 2022-01-25'} (--units 's2=dn+1000 from 2022-01-25'); see docs/units.md"
)
"""What to do about a data set whose tiles are in several units."""

_EXAMPLES = "a unit, or such as 'dn+1000 from 2022-01-25', 'dn before 2022-01-25', 'dn+1000 of *_N0510_*'"


class UnitRule(NamedTuple):
    """A unit, and which tiles are in it.

    Attributes:
        unit: As of `UNIT_NAMES`.
        text: The rule as it was given.
        since: Least date, UTC; None for any.
        before: Date that theirs is before, UTC; None for any.
        pattern: What one of their names is like; None for any.
    """

    unit: str
    text: str
    since: datetime | None = None
    before: datetime | None = None
    pattern: str | None = None

    @property
    def is_for_all(self) -> bool:
        """Whether it is a unit without a condition."""
        return self.since is None and self.before is None and self.pattern is None

    @property
    def by_date(self) -> bool:
        """Whether it asks for a date."""
        return self.since is not None or self.before is not None

    def fits(self, names: Iterable[str], date: datetime | None) -> bool:
        """Say whether a tile of these names, and of this date where it is known, is in the unit."""
        if self.by_date and date is None:
            return False
        if date is not None and ((self.since and date < self.since) or (self.before and date >= self.before)):
            return False
        return self.pattern is None or any(fnmatchcase(name, self.pattern) for name in names)


class DatedTile(NamedTuple):
    """What rules ask of a tile: its id, the names of its image of the sensor, and when that was taken (UTC), if it is known."""

    id: str
    names: Sequence[str]
    date: datetime | None


def parse_rule(text: str) -> UnitRule:
    """Read a unit or a rule; a ValueError says what was expected."""
    unit, *words = str(text).split() or [""]
    found: dict[str, str] = dict(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or 2 * len(found) < len(words) or not found.keys() <= {"from", "before", "of"}:
        raise ValueError(f"{text!r} is no unit of tiles: expected {_EXAMPLES}.")
    dates = {word: _parse_date(found[word], text) for word in ("from", "before") if word in found}
    return UnitRule(unit.lower(), " ".join(str(text).split()), dates.get("from"), dates.get("before"), found.get("of"))


def _parse_date(word: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(word)
    except ValueError as error:
        raise ValueError(f"{text!r} has the date {word!r}: expected one such as 2022-01-25 (ISO 8601).") from error
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def check_unit(sensor: str, bands: Sequence[str], unit: str) -> None:
    """Refuse, with a ValueError, a unit that does not exist or that these bands of a sensor cannot be in."""
    fitting = [name for name in UNIT_NAMES if _fits(sensor, bands, name)]
    if unit not in fitting:
        raise ValueError(f"{unit!r} is no unit of {sensor}: expected one of {', '.join(map(repr, fitting))}.")


def _fits(sensor: str, bands: Sequence[str], unit: str) -> bool:
    try:
        check_unit_name(sensor, bands, unit)
    except ValueError:
        return False
    return True


def read_rules(sensor: str, bands: Sequence[str], said: str | Sequence[str]) -> list[UnitRule]:
    """Read what is said of a sensor whose images have these bands: one rule or several, the unit of all others last.

    Raises:
        ValueError: If one is no rule, its unit is unknown or none of the bands can be in it, or there are two units for all tiles.
    """
    rules = []
    for text in [said] if isinstance(said, str) else said:
        try:
            rule = parse_rule(text)
            check_unit(sensor, bands, rule.unit)
        except ValueError as error:
            raise ValueError(f"{call_words(sensor, text)}: {error}") from error
        rules.append(rule)
    general = [rule.text for rule in rules if rule.is_for_all]
    if len(general) > 1 or not rules:
        raise ValueError(
            f"units of {sensor!r}: {' and '.join(map(repr, general)) or 'nothing'} for all tiles; expected one unit, others with the "
            "tiles that they are of (from DATE, before DATE, of PATTERN)."
        )
    return sorted(rules, key=lambda rule: rule.is_for_all)


def units_by_rules(sensor: str, rules: Sequence[UnitRule], tiles: Sequence[DatedTile]) -> list[str | None]:
    """Find the unit of each tile, None where no rule fits.

    Raises:
        ValueError: If rules of two units fit one tile, or a rule asks for a date and no tile has one; the message names them.
    """
    if len(rules) == 1 and rules[0].is_for_all:
        return [rules[0].unit] * len(tiles)
    if tiles and any(rule.by_date for rule in rules) and not any(tile.date for tile in tiles):
        rule = next(rule for rule in rules if rule.by_date)
        raise ValueError(
            f"The rule {rule.text!r} for {sensor} needs dates, and of none of the {len(tiles)} tiles the date is known, {tiles[0].id} "
            f"for one. Give them in a column date_{sensor}, or say which tiles are meant by their names ('{rule.unit} of PATTERN')."
        )
    units: list[str | None] = []
    counts = dict.fromkeys(rules, 0)
    for tile in tiles:
        fitting = [rule for rule in rules if not rule.is_for_all and rule.fits((tile.id, *tile.names), tile.date)]
        if len({rule.unit for rule in fitting}) > 1:
            raise ValueError(
                f"Tile {tile.id} is in two units by the rules for {sensor}: {' and '.join(repr(rule.text) for rule in fitting)}. "
                "Change one of them."
            )
        first = next(iter(fitting), rules[-1] if rules[-1].is_for_all else None)
        units.append(None if first is None else first.unit)
        for rule in fitting or ([first] if first else []):
            counts[rule] += 1
    for rule, count in counts.items():
        level = logging.INFO if count else logging.WARNING
        logger.log(level, "%d of %d tiles have their %s in %s: %s", count, len(tiles), sensor, rule.unit, rule.text)
    return units


def one_unit(tile: str, own: str | None, own_by: str, said: str | None, said_by: str) -> str | None:
    """The unit of a tile of which two say something; a ValueError names both where they contradict each other."""
    if None not in (own, said) and own != said:
        raise ValueError(
            f"Tile {tile}: {own_by} says {own!r}, and {said_by} says {said!r}. Leave one of them out, or correct it."
        )
    return own or said


def call_words(sensor: str, said: str | Sequence[str]) -> str:
    """What a caller said of a sensor's units, in words for messages."""
    text = said if isinstance(said, str) else said[0] if len(said) == 1 else list(said)
    return f"units={{{sensor!r}: {text!r}}} (--units)"


def units_column(sensor: str) -> str:
    """Name the column that says the unit of each tile's image of a sensor, such as `units_s2`."""
    return f"units_{sensor}"


def read_unit(value: object) -> str | None:
    """The unit that a cell of such a column says; None for an empty one."""
    if value is None or value != value or not str(value).strip():
        return None
    return str(value).strip().lower()
