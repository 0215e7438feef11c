"""Where embeds, and the numbers measured on them, come from: model, processor, alignment, data and tiles, in one record.

It is made where embeds are made, and stored with what is made of them: archives (`archive.json`) and results (`results.json`,
`summary.json`). Whoever reads two of these together compares their records first.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from csmae_hf.embedding.identity import ArchiveMismatchError, Identity
from csmae_hf.embedding.without_paths import public_name, without_paths

if TYPE_CHECKING:
    import torch

    from csmae_hf.embedding.alignment import Alignment

ALL_TILES = "all"
"""Name of the split of tiles that are of none."""

TileSets = Mapping[str, Mapping[str, Any]]


class Difference(NamedTuple):
    """What differs between two records, and the values of both in words."""

    name: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.name}: {self.ours} and {self.theirs}"


@dataclass(frozen=True)
class Provenance:
    """What embeds are of. What is not known is None or empty, and is never a difference.

    Attributes:
        made_with: Model and processor.
        alignment: Method of the alignment that was applied to the embeds; "none" where none was.
        alignment_hash: SHA-256 of that alignment, as of `Alignment.to_bytes`; None where there is none.
        data: Name of the data set, without the place where it lies.
        generated: Whether its tiles are generated scenes.
        tiles: By split, or "all" where tiles are of none, their `count` and hash: see [`tile_sets`].
    """

    made_with: Identity
    alignment: str = "none"
    alignment_hash: str | None = None
    data: str | None = None
    generated: bool | None = None
    tiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: "torch.nn.Module", processor: Any, *, name: str | None = None, **more: Any) -> "Provenance":
        """Record a model and its processor, as of `Identity.of`, and what `more` says: of [`Provenance.about`]."""
        return cls.about(Identity.of(model, processor, name), **more)

    @classmethod
    def about(
        cls,
        made_with: Identity,
        *,
        alignment: "Alignment | None" = None,
        data: str | None = None,
        generated: bool | None = None,
        ids: Sequence[str] = (),
        splits: Sequence[str | None] | None = None,
    ) -> "Provenance":
        """Record embeds.

        Args:
            made_with: Model and processor. A folder is named by its own name alone.
            alignment: Applied to them; None for none.
            data: Name, folder or Hub name of the data set.
            generated: Whether its tiles are generated scenes; None where nobody knows.
            ids: Of the tiles, in any order.
            splits: The split of each; None where they are of none.

        Returns:
            The record, without a path of this machine.
        """
        method = "none" if alignment is None else alignment.method
        return cls(
            replace(made_with, model=public_name(made_with.model)),
            method,
            alignment_hash(alignment),
            None if data is None else public_name(data),
            generated,
            tile_sets(ids, splits),
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON types, without paths."""
        return {**asdict(self), "made_with": without_paths(asdict(self.made_with))}

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> "Provenance":
        """Read what `as_dict` gave; a ValueError where it is something else."""
        try:
            return cls(**{**held, "made_with": Identity(**held["made_with"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"This is no record of where numbers come from: {error}.") from error

    def differences(self, other: "Provenance") -> list[Difference]:
        """What is known of both and differs, the most important first; versions of the software are not compared."""
        found = list(map(Difference._make, self.made_with.differences(other.made_with)))
        ours, theirs = (f"{one.alignment} {(one.alignment_hash or '')[:12]}".strip() for one in (self, other))
        if ours != theirs:
            found.append(Difference("alignment", ours, theirs))
        for name in ("data", "generated"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if None not in (ours, theirs) and ours != theirs:
                found.append(Difference("generated scenes" if name == "generated" else name, str(ours), str(theirs)))
        for split in sorted(self.tiles.keys() & other.tiles.keys()):
            held = [one.tiles[split] for one in (self, other)]
            if not same_tiles(*held):
                words = [f"{one['count']} ({_short(one)})" for one in held]
                found.append(Difference(f"tiles of {split}", *words))
        return found

    def refuse_other_alignment(self, alignment: "Alignment | None", where: str, beside: str, remedy: str) -> None:
        """Refuse an alignment that is not the one of this record.

        Raises:
            ArchiveMismatchError: With both alignments and the remedy.
        """
        method, own = ("none", None) if alignment is None else (alignment.method, alignment_hash(alignment))
        if (method, own) != (self.alignment, self.alignment_hash):
            raise ArchiveMismatchError(
                f"{where} is of the alignment {self.alignment} ({(self.alignment_hash or 'no hash')[:12]}), and {beside} holds "
                f"{method} ({(own or 'no hash')[:12]}). {remedy}"
            )

    def sentence(self) -> str:
        """Say it in one line, for notes below tables, cards and pages."""
        counts = ", ".join(
            f"{one['count']} tiles" + (f" of {split}" if split != ALL_TILES else "")
            for split, one in self.tiles.items()
        )
        hashes = ", ".join(map(_short, self.tiles.values()))
        trained = ", trained on generated scenes" if self.made_with.trained_on_generated else ""
        aligned = f"alignment {self.alignment} of the sensors (sha256 {(self.alignment_hash or '')[:12]})"
        words = [
            self.data or "data without a name",
            "generated scenes, which say nothing of real land" if self.generated else "",
            f"{counts} (sha256 of their ids {hashes})" if counts else "",
            aligned if self.alignment_hash else "no alignment of the sensors",
            f"model {self.made_with.described} (weights {self.made_with.weights[:12]}{trained})",
        ]
        return "; ".join(filter(None, words))


def tile_sets(ids: Sequence[str], splits: Sequence[str | None] | None = None) -> TileSets:
    """Record which tiles: by split their `count`, the `sha256` of all ids as of [`hash_ids`], and the `sum` of hashes of each.

    The sum, of the SHA-256 of each id modulo 2^256, changes with what is added or removed without hashing the others again
    ([`changed_sets`]).

    Args:
        ids: Of the tiles, each once, in any order.
        splits: The split of each; None where they are of none.

    Returns:
        By split, in alphabetical order, or "all" where tiles are of none.
    """
    by_split: dict[str, list[str]] = {}
    for tile, split in zip(ids, splits or [None] * len(ids), strict=True):
        by_split.setdefault(split or ALL_TILES, []).append(tile)
    return {
        split: {
            "count": len(names),
            "sha256": hash_ids(names),
            "sum": _as_sum(sum(int.from_bytes(hashlib.sha256(name.encode()).digest()) for name in names)),
        }
        for split, names in sorted(by_split.items())
    }


def changed_sets(sets: TileSets, added: TileSets, removed: TileSets) -> TileSets:
    """Counts and sums that [`tile_sets`] gives when some of the tiles are removed and others are added."""
    signed = [(sets, 1), (added, 1), (removed, -1)]
    made = {
        split: {
            "count": sum(sign * one[split]["count"] for one, sign in signed if split in one),
            "sum": _as_sum(sum(sign * int(one[split]["sum"], 16) for one, sign in signed if split in one)),
        }
        for split in sorted(sets.keys() | added.keys())
    }
    return {split: held for split, held in made.items() if held["count"]}


def same_tiles(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two records of the tiles of a split agree in all that both have."""
    return all(ours[name] == theirs[name] for name in ("count", "sha256", "sum") if name in ours and name in theirs)


def _short(held: Mapping[str, Any]) -> str:
    """The beginning of a hash of tiles, of the one in one go where it is known."""
    return str(held.get("sha256") or held["sum"])[:12]


def _as_sum(total: int) -> str:
    return f"{total % 2**256:064x}"


def hash_ids(ids: Sequence[str]) -> str:
    """SHA-256 of all ids in one go, in alphabetical order: what lists that never change are known by."""
    total = hashlib.sha256()
    for name in sorted(map(str, ids)):
        total.update(name.encode() + b"\0")
    return total.hexdigest()


def alignment_hash(alignment: "Alignment | None") -> str | None:
    """SHA-256 of an alignment; None of none, which changes nothing."""
    return None if alignment is None or alignment.method == "none" else alignment.sha256
