"""What an archive holds: tiles, their vectors, what those were made with, and the indexes over them; all that its folder stores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.embedding.foreign import PREFIX
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.provenance import Provenance, count_tiles
from csmae_hf.embedding.without_paths import public_name
from csmae_hf.files import Entry
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.ids import ID, TileRows
from csmae_hf.search.index import ArchiveIndex
from csmae_hf.search.nearest import unit_vectors
from csmae_hf.search.recall import Recall
from csmae_hf.search.vectors import IntArray, Vectors

if TYPE_CHECKING:
    from csmae_hf.embedding.alignment import Alignment


@dataclass
class Stored:
    """Where an archive lies, as far as it was opened from or saved to a folder.

    Attributes:
        folder: The folder.
        signature: Checksum of the manifest there.
        parts: By part, what was written, and to which file.
        indexes: By sensor, what the manifest says of an index that was not opened: its package or server is missing, or nobody asked.
    """

    folder: Path | None = None
    signature: str | None = None
    parts: dict[str, tuple[Any, Entry]] = field(default_factory=dict)
    indexes: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class Held:
    """The data of an archive, and the model that embeds its queries. See [`Archive`] for the arguments.

    Raises:
        ValueError: If ids do not name one tile each, or there are not as many embeds of every sensor as tiles.
    """

    def __init__(
        self,
        tiles: pa.Table,
        vectors: Mapping[str, Vectors],
        identity: Identity,
        *,
        model: torch.nn.Module | None = None,
        processor: Any = None,
        alignment: "Alignment | None" = None,
        unreadable: Mapping[str, str] | None = None,
        source: Mapping[str, Any] | None = None,
        generated: bool | None = None,
        data_name: str | None = None,
    ):
        check_ids(tiles.column(ID).to_pylist())
        lengths = {"tiles": tiles.num_rows} | {sensor: len(part) for sensor, part in vectors.items()}
        if not vectors or len(set(lengths.values())) != 1 or len({part.width for part in vectors.values()}) != 1:
            raise ValueError(
                f"An archive has an embed of each sensor for each tile, all of one width; given: {lengths}."
            )
        self.tiles = tiles
        self.vectors = dict(vectors)
        self.identity = identity
        self.alignment = alignment
        self.unreadable = dict(unreadable or {})
        self.source = dict(source or {})
        self.generated = generated
        self._data_name = data_name  # where the source says no more than that
        self.recall: list[Recall] = []
        self.indexes: dict[str, ArchiveIndex] = {sensor: ExactIndex(part) for sensor, part in self.vectors.items()}
        self.stored = Stored()
        self.trust_remote_code = False  # whether the model may bring code of its own, where it is loaded by its name
        self._model, self._processor = model, processor
        self._rows = TileRows()

    @property
    def sensors(self) -> list[str]:
        """Sensors whose embeds the archive holds."""
        return list(self.vectors)

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Where the tiles came from: of those it was built of, and of those added each time, as far as it is known."""
        first = {name: value for name, value in self.source.items() if name != "added"}
        return [source for source in (first, *self.source.get("added", ())) if source.get("data")]

    @property
    def provenance(self) -> Provenance:
        """What the embeds come from, without a path of this machine."""
        splits = self.tiles.column("split").to_pylist() if "split" in self.tiles.column_names else None
        return replace(self.origin, tiles=count_tiles(self.ids, splits))

    @property
    def origin(self) -> Provenance:
        """The same without the tiles, whose hash takes a while where they are many."""
        names = [public_name(source["data"]) for source in self.sources]
        data = ", ".join(dict.fromkeys(names)) or self._data_name
        return Provenance.about(self.identity, alignment=self.alignment, data=data, generated=self.generated)

    @property
    def width(self) -> int:
        """Width of the embeds."""
        return next(iter(self.vectors.values())).width

    @property
    def ids(self) -> list[str]:
        """Ids of the tiles."""
        return self.tiles.column(ID).to_pylist()

    def __len__(self) -> int:
        return int(self.tiles.num_rows)

    def __repr__(self) -> str:
        backends = ", ".join(f"{sensor}: {index.backend}" for sensor, index in self.indexes.items())
        return f"{type(self).__name__}({len(self)} tiles by {self.identity.described}; {backends})"

    @property
    def rows_by_id(self) -> Mapping[str, int]:
        """Row of each tile by its id, made when it is first asked for and again after a change."""
        return self._rows.of(self.tiles)

    def rows_of(self, ids: Sequence[str]) -> IntArray:
        """Find tiles by their ids: (n,) rows. An id that is not in the archive is a ValueError."""
        if not len(ids):
            return np.empty(0, dtype=np.int64)
        rows = self.rows_by_id
        missing = [name for name in ids if name not in rows]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(ids)} ids are not in this archive of {len(self)} tiles, {missing[0]!r} for one."
            )
        return np.array([rows[name] for name in ids], dtype=np.int64)

    def load_model(self) -> tuple[torch.nn.Module, Any]:
        """Give the model and its processor; where they were not given, load them by the name that the archive holds.

        Raises:
            FileNotFoundError: If there is no model of that name.
            ArchiveMismatchError: If it is not the one that the archive was made with.
        """
        if self._model is None or self._processor is None:
            from csmae_hf.embedding.encoder import (
                load_encoder,  # it takes a while to import, which a search by id need not wait for
            )

            identity = self.identity
            if imported := self.source.get("imported"):
                raise FileNotFoundError(
                    f"This archive was imported from {imported[0]}, and no name in a file makes this package load a model. Search by "
                    f"the id of a tile or by a vector; or name the model yourself, {identity.described} and no other: --model (in "
                    "Python model= and processor= of Archive.load)."
                )
            if identity.model.startswith(PREFIX):
                raise FileNotFoundError(
                    f"This archive was made with the encoder {identity.model.removeprefix(PREFIX)}. No archive makes this package run "
                    "code: name the encoder yourself, --encoder package.module:factory (in Python encoder= of Archive.load)."
                )
            if not identity.model:
                raise FileNotFoundError(
                    "This archive does not know the name of its model: pass model= and processor= to Archive.load."
                )
            try:
                model, processor = load_encoder(
                    identity.model, identity.revision, trust_remote_code=self.trust_remote_code
                )
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"The archive's model {identity.described} is neither a folder nor on the Hub: pass model= and processor= "
                    f"({error.__cause__})."
                ) from error
            self.use_model(model, processor)
        return self._model, self._processor  # type: ignore[return-value]

    def use_model(self, model: torch.nn.Module, processor: Any) -> None:
        """Take a model and processor for queries.

        Raises:
            ArchiveMismatchError: If they are not those that the archive was made with.
        """
        self.identity.refuse_other(Identity.of(model, processor), "This archive")
        self._model, self._processor = model, processor


def check_ids(ids: Sequence[str | None]) -> None:
    """Refuse, with a ValueError, ids that do not name one tile each."""
    if None in ids:
        raise ValueError(
            f"{ids.count(None)} of {len(ids)} tiles have no id, row {ids.index(None)} for one: give every tile one."
        )
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} tile ids occur more than once (first: {twice[0]}). Keep one row of each.")


def aligned_vectors(embeds: Mapping[str, np.ndarray[Any, Any]], alignment: "Alignment | None") -> dict[str, Vectors]:
    """Make an archive's vectors, (N, D) float32 of unit length, of embeds as a model gives them, (N, D) by sensor."""
    return {
        sensor: Vectors([unit_vectors(values if alignment is None else alignment.apply(values, sensor), sensor)])
        for sensor, values in embeds.items()
    }
