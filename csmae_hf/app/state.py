"""What a person has asked and marked, as values: each step makes a new one, so that steps can be undone, shared and repeated."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode

MOST_RESULTS = 60
DEFAULT_RESULTS = 12
FORMAT = "csmae-search"

_MOST_STEPS = 50
_URL_NAMES = {"tile": "tile", "sensor": "sensor", "archive_sensor": "in", "where": "where"}
_URL_LISTS = {"like": "like", "unlike": "unlike", "collected": "keep"}

Verdict = Literal["like", "unlike"]


@dataclass(frozen=True)
class Search:
    """A search, complete: whoever has it gets the same answer from the same archive.

    Attributes:
        tile: Id of the tile of the archive that is the query.
        upload: Name of the uploaded image that is the query.
        embed: Its embed as the model gave it, before any alignment. It is what a saved search keeps of an upload.
        sensor: Sensor of the query.
        archive_sensor: Sensor whose embeds are searched.
        k: Results.
        where: Filter, in the language of `csmae_hf.search.filter_language`.
        like: Ids of tiles that the query is moved towards.
        unlike: Ids of tiles that the query is moved away from.
        collected: Ids of tiles that were liked, of this query and of those before it.
        include_self: Whether a tile may find itself.
    """

    tile: str | None = None
    upload: str | None = None
    embed: tuple[float, ...] | None = None
    sensor: str = ""
    archive_sensor: str = ""
    k: int = DEFAULT_RESULTS
    where: str = ""
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    collected: tuple[str, ...] = ()
    include_self: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_RESULTS:
            raise ValueError(f"k = {self.k}: expected 1 to {MOST_RESULTS} results.")

    @property
    def has_query(self) -> bool:
        """Whether there is anything to search by."""
        return self.tile is not None or self.embed is not None or bool(self.like)

    def by_tile(self, tile: str) -> "Search":
        """The same search by another tile; what was liked of the last query stays collected, but moves this one no more."""
        return replace(self, tile=tile, upload=None, embed=None, like=(), unlike=())

    def by_upload(self, name: str, embed: Sequence[float], sensor: str) -> "Search":
        """The same search by an uploaded image."""
        return replace(self, tile=None, upload=name, embed=tuple(embed), sensor=sensor, like=(), unlike=())

    def judged(self, tile: str, verdict: Verdict) -> "Search":
        """Mark a tile; the same mark again takes it off. What is liked is collected too, and what is not any more is not."""
        marks: dict[str, Any] = {
            name: tuple(other for other in getattr(self, name) if other != tile) for name in _URL_LISTS
        }
        if tile not in getattr(self, verdict):
            for name in ("like", "collected") if verdict == "like" else ("unlike",):
                marks[name] += (tile,)
        return replace(self, **marks)

    def to_url(self) -> str:
        """Write the search as the query of a URL. An uploaded image has no place in it: save it as a file instead."""
        fields = {name: value for own, name in _URL_NAMES.items() if (value := getattr(self, own))}
        fields |= {"k": self.k, **{name: getattr(self, own) for own, name in _URL_LISTS.items()}}
        return urlencode(fields | ({"self": "1"} if self.include_self else {}), doseq=True)

    @classmethod
    def from_url(cls, query: str) -> "Search":
        """Read a search from the query of a URL; what it does not know is left alone, a `k` that cannot be is a ValueError."""
        held = parse_qs(query, max_num_fields=10_000)
        fields: dict[str, Any] = {own: held[name][0] for own, name in _URL_NAMES.items() if name in held}
        fields |= {own: tuple(held.get(name, ())) for own, name in _URL_LISTS.items()}
        try:
            return cls(**fields, k=int(held.get("k", [DEFAULT_RESULTS])[0]), include_self="self" in held)
        except ValueError as error:
            raise ValueError(f"The link cannot be read: {error}") from error

    def to_json(self, made_with: str | None = None) -> str:
        """Write the search as a file, the embed of an upload with it, and the `Identity.fingerprint` of what that was `made_with`."""
        origin = {} if self.embed is None else {"made_with": made_with}
        return json.dumps({"format": FORMAT, "version": 1, **asdict(self), **origin}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, made_with: str | None = None) -> "Search":
        """Read what `to_json` wrote. Anything else is a ValueError, and an embed that was not `made_with` this model and processor."""
        try:
            held = json.loads(text)
            if not isinstance(held, dict) or held.pop("format", None) != FORMAT or held.pop("version", None) != 1:
                raise ValueError(f'expected JSON with "format": "{FORMAT}", "version": 1')
            other = held.pop("made_with", None)
            if held.get("embed") is not None and made_with not in (None, other):
                whose = "an unknown" if other is None else "another"
                raise ValueError(
                    f"its image {held.get('upload')} was embedded by {whose} model, not by this archive's: bring the image itself"
                )
            return cls(**_checked(held))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"This file is no saved search: {error}") from error


def _checked(held: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a file with the types that they must have."""
    fields = dict(held)
    for name in ("tile", "upload", "sensor", "archive_sensor", "where"):
        value = fields.get(name, "")
        if not isinstance(value, str) and not (value is None and name in ("tile", "upload")):
            raise ValueError(f"{name} must be text")
    for name in _URL_LISTS:
        values = fields.get(name, ())
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{name} must be a list of ids")
        fields[name] = tuple(values)
    if type(fields.get("k", 1)) is not int or type(fields.get("include_self", False)) is not bool:
        raise ValueError("k must be a whole number, and include_self true or false")
    if fields.get("embed") is not None:
        fields["embed"] = tuple(float(value) for value in fields["embed"])
        if not all(math.isfinite(value) for value in fields["embed"]):
            raise ValueError("the embed is not finite")
    return fields


@dataclass(frozen=True)
class Session:
    """What one person's page shows, and the steps that led there."""

    current: Search = field(default_factory=Search)  # with all marks, those set since the results were found too
    shown: Search = field(default_factory=Search)  # whose results are on the page
    past: tuple[tuple[Search, Search], ...] = ()  # earlier (current, shown), the last at the end

    def searched(self, search: Search) -> "Session":
        """Go on to a search whose results are shown."""
        return self if (search, search) == (self.current, self.shown) else self._step(search, search)

    def marked(self, tile: str, verdict: Verdict) -> "Session":
        """Mark a tile; the results stay."""
        return self._step(self.current.judged(tile, verdict), self.shown)

    def undone(self) -> "Session":
        """Go back a step; at the first there is none to go back to."""
        return Session(*self.past[-1], self.past[:-1]) if self.past else self

    def _step(self, current: Search, shown: Search) -> "Session":
        begun = self.shown.has_query or self.current.has_query
        past = (*self.past, (self.current, self.shown)) if begun else self.past
        return Session(current, shown, past[-_MOST_STEPS:])
