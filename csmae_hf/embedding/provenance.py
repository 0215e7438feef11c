"""Where embeds, and the numbers measured on them, come from: model, processor, alignment, data and tiles, in one record.

It is made where embeds are made, and stored with what is made of them: archives (`archive.json`) and results (`results.json`,
`summary.json`). Whoever reads two of these together compares their records first.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from csmae_hf.embedding.identity import ArchiveMismatchError, Identity
from csmae_hf.embedding.without_paths import public_name, without_paths

if TYPE_CHECKING:
    import torch

    from csmae_hf.embedding.alignment import Alignment

ALL_TILES = "all"
"""Name of the split of tiles that are of none."""

BY_TILE = "sum"
"""Says that the hash of a set of tiles is the sum of hashes of their ids."""

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
            # releases before 2026-12 hashed all sorted ids in one go, which cannot be compared
            known = ("count", "sha256") if held[0].get("by") == held[1].get("by") else ("count",)
            if any(held[0][name] != held[1][name] for name in known):
                words = [f"{one['count']} ({one['sha256'][:12]})" for one in held]
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
        hashes = ", ".join(one["sha256"][:12] for one in self.tiles.values())
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


def tile_sets(ids: Iterable[str], splits: Iterable[str | None] | None = None) -> TileSets:
    """Record which tiles: by split their `count` and `sha256`, the sum, modulo 2^256, of the SHA-256 of each id.

    So it is the same in whatever order they are, and what is added or removed changes it without hashing the others again
    ([`changed_sets`]).

    Args:
        ids: Of the tiles, each once.
        splits: The split of each; None where they are of none.

    Returns:
        By split, in alphabetical order, `count`, `sha256`, and `by`, which says how it was made.
    """
    counts: dict[str, list[int]] = {}
    for name, split in zip(ids, itertools.repeat(None) if splits is None else splits, strict=splits is not None):
        held = counts.setdefault(split or ALL_TILES, [0, 0])
        held[0] += 1
        held[1] += int.from_bytes(hashlib.sha256(name.encode()).digest())
    return {split: _tile_set(*held) for split, held in sorted(counts.items())}


def changed_sets(sets: TileSets, added: TileSets, removed: TileSets) -> TileSets:
    """What [`tile_sets`] gives when some of the tiles are removed and others are added."""
    splits = sorted(sets.keys() | added.keys())
    signed = [(sets, 1), (added, 1), (removed, -1)]
    made = {
        split: _tile_set(
            sum(sign * one[split]["count"] for one, sign in signed if split in one),
            sum(sign * int(one[split]["sha256"], 16) for one, sign in signed if split in one),
        )
        for split in splits
    }
    return {split: held for split, held in made.items() if held["count"]}


def _tile_set(count: int, total: int) -> dict[str, Any]:
    return {"count": count, "sha256": f"{total % 2**256:064x}", "by": BY_TILE}


def alignment_hash(alignment: "Alignment | None") -> str | None:
    """SHA-256 of an alignment; None of none, which changes nothing."""
    return None if alignment is None or alignment.method == "none" else alignment.sha256
