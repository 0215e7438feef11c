"""An archive: tiles embedded once, kept with what they were embedded by, and searched by images of any of the model's sensors."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.archive.folder import open_archive, save_archive
from csmae_hf.archive.held import Held, Tiles, aligned_vectors, check_ids, sets_of
from csmae_hf.archive.hits import Hits, leave_out, notes_on
from csmae_hf.archive.queries import choose_sensors, make_queries, move_queries
from csmae_hf.archive.segments import Segment, in_plain_types, merged, settled
from csmae_hf.archive.tiles import in_columns, metadata_of, with_units_columns, without_rows
from csmae_hf.data.suspects import Suspect
from csmae_hf.embedding.embed import embed_tiles
from csmae_hf.embedding.foreign import Encoder, one_model
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.provenance import changed_sets
from csmae_hf.embedding.shards import embed_together
from csmae_hf.images.image import Said
from csmae_hf.sample.generate import are_generated, is_generated
from csmae_hf.search.areas import Areas
from csmae_hf.search.build_index import build_index, measure_index
from csmae_hf.search.compression import Compression, chosen_options, measure_codes
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.filter_language import mask_of, parse_filter, unknown_values
from csmae_hf.search.ids import ID
from csmae_hf.search.index import ArchiveIndex, Selection
from csmae_hf.search.recall import LEAST_RECALL, Recall, with_buckets
from csmae_hf.search.vectors import IntArray, Vectors, numpy_array
from image_checks_csmae import UNIT_NAMES

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

    from csmae_hf.embedding.alignment import Alignment

logger = logging.getLogger(__name__)

_NAMED = 10  # so many ids are named in a message


class Archive(Held):
    """Embeds of tiles by one or more sensors, their metadata, and an index for each sensor.

    Made by [`Archive.build`], [`Archive.from_embeds`], [`Archive.load`] or `csmae_hf.hub.archives.pull_archive`.

    Args:
        tiles: Metadata, a row a tile, with the column `id`.
        vectors: (N, D) float32 unit vectors by sensor, row i of tile i.
        identity: What they were made with.
        model: The model, for queries that are images; None loads it by name when one comes.
        processor: Its processor.
        alignment: Applied to the embeds of each sensor; None for none.
        unreadable: Why tiles of the source are not in the archive, by id.
        source: Where the tiles came from, for whoever wants to see them.
        generated: Whether tiles are generated scenes; None where nobody knows.

    Example:
        >>> archive = Archive.build(model, processor, dataset, sensor=["s1", "s2"])
        >>> hits = archive.search("tile.tif", sensor="s1", archive_sensor="s2", filter="season = 'Summer'")
        >>> archive.save("my_archive")
    """

    @classmethod
    def build(
        cls,
        model: torch.nn.Module | None = None,
        processor: Any = None,
        dataset: "Dataset | None" = None,
        *,
        encoder: Encoder | None = None,
        sensor: str | Sequence[str] | None = None,
        alignment: "Alignment | None" = None,
        model_name: str | None = None,
        source: Mapping[str, Any] | None = None,
        batch_size: int = 64,
        device: str | torch.device | None = None,
        num_workers: int = 0,
        progress: bool = True,
        suspect: Suspect = "leave-out",
        cache: str | os.PathLike[str] | None = None,
    ) -> "Archive":
        """Embed a dataset.

        A tile of which a sensor cannot be read is left out, named in a warning and in `unreadable`; more than 1 % of them is an error.

        Args:
            model: A `CSMAEModel`.
            processor: Its processor.
            encoder: In the place of both an encoder of any other kind.
            dataset: Tiles: a pixel column for each sensor, `id`, and any metadata. `labels` may be missing, or None for some tiles.
            sensor: Sensor or sensors to embed; default all of the model that the dataset has.
            alignment: Applied to the embeds of each sensor.
            model_name: Folder or Hub name of the model, where it is not the one it was loaded from; of an encoder what it is called.
            source: Where the tiles came from, for whoever wants to see them: `data`, and options of [`load_data`].
            batch_size: Tiles per forward pass.
            device: Where to embed; default where the model is.
            num_workers: Processes that read and preprocess.
            progress: Show a bar when it takes more than 2 seconds.
            suspect: Whether tiles that show a sign which is a guess are refused, left out, or accepted as they are.
            cache: Folder where embeds are kept as they are made: what was interrupted goes on, and the processes of `accelerate
                launch` share the work. It may be deleted when the archive is saved.

        Returns:
            The archive, with exact search. Of several processes, that of the first has all tiles; in the others it is empty.

        Raises:
            ValueError: If the model or dataset lacks a sensor, there is no tile, an id occurs twice, or too many tiles are unreadable.
        """
        model, processor = one_model(model, processor, encoder, model_name)
        if model is None or dataset is None:
            raise ValueError("Archive.build needs a dataset, and a model with its processor or an encoder.")
        known: Sequence[str] = list(model.config.sensors)  # type: ignore[union-attr, arg-type]
        if sensor is None:
            sensor = [name for name in known if name in dataset.column_names]
        sensors = [sensor] if isinstance(sensor, str) else list(sensor)
        tiles = metadata_of(dataset, known, getattr(processor, "units", None))
        options: dict[str, Any] = {"device": device, "num_workers": num_workers, "progress": progress}
        options |= {"suspect": suspect, "batch_size": batch_size}
        reasons: dict[str, str] = {}
        found = (
            embed_tiles(model, processor, dataset, sensors, **options)
            if cache is None
            else embed_together(Path(cache), model, processor, dataset, sensors, **options)
        )
        if found is None:  # another process than the first, which has the tiles of all
            tiles, vectors = tiles.slice(0, 0), {name: Vectors([], 1) for name in sensors}
        else:
            tiles, reasons = without_rows(tiles, found[1])
            vectors = aligned_vectors(found[0], alignment)
        return cls(
            tiles,
            vectors,
            Identity.of(model, processor, None if encoder is not None else model_name),
            model=model,
            processor=processor,
            alignment=alignment,
            unreadable=reasons,
            source=source,
            generated=_generated(source, dataset),
        )

    @classmethod
    def from_embeds(
        cls,
        embeds: Mapping[str, np.ndarray[Any, Any]],
        tiles: "pa.Table | Dataset",
        identity: Identity,
        *,
        alignment: "Alignment | None" = None,
        **options: Any,
    ) -> "Archive":
        """Make an archive of embeds that are there already.

        Args:
            embeds: (N, D) by sensor, as the model gave them; they are aligned and scaled here.
            tiles: Metadata, row i of embed i, with the column `id`; or the dataset that was embedded.
            identity: What they were made with, as of `Identity.of(model, processor)`.
            alignment: Applied to the embeds of each sensor.
            **options: As of [`Archive`].

        Returns:
            The archive, with exact search.

        Raises:
            ValueError: If embeds are zero or not finite, or numbers of rows differ.
        """
        table = tiles if isinstance(tiles, pa.Table) else metadata_of(tiles, list(embeds))
        return cls(table, aligned_vectors(embeds, alignment), identity, alignment=alignment, **options)

    def search(
        self,
        query: Any,
        *,
        sensor: str | None = None,
        k: int = 10,
        filter: str | None = None,
        areas: Areas | None = None,
        archive_sensor: str | None = None,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        include_self: bool = False,
        bands: Mapping[str, Sequence[str]] | None = None,
        units: Mapping[str, str] | None = None,
        level: str | None = None,
        suspect: Suspect = "refuse",
    ) -> Hits:
        """Find the nearest tiles.

        Args:
            query: A tile's id, a path (see `read_image_file`), an image (bands by name, or (C, H, W)), an embed (D,), or a list or
                batch of one of these. None searches by `like` alone.
            sensor: Sensor of the query; may be left out where the archive has one.
            k: Results per query.
            filter: Which tiles may be found, in the language of `csmae_hf.search.filter_language`.
            areas: What `within('NAME')` in the filter names: by name GeoJSON or the path of a file of it, or a function of the name.
            archive_sensor: Whose embeds to search; default the query's sensor, where the archive has it, else the archive's only one.
            like: Ids of tiles that the query is moved towards.
            unlike: Ids of tiles that the query is moved away from.
            include_self: Whether a query that is a tile of the archive may find itself; across sensors too.
            bands: By sensor, names of the bands of a query's file, in its order, where it does not name them.
            units: By sensor, what queries that are images are in ("db", "linear"; "dn", "dn+1000", "reflectance"), where they do
                not say it.
            level: "L1C" to take a Level-1C image as a query, which is else refused.
            suspect: Whether queries that show a sign which is a guess are refused, or accepted as they are; "leave-out" refuses them,
                too, for of one query none can be left out.

        Returns:
            The hits. Where they are fewer than k, or may not be the nearest, that is said in `notes`, and logged.

        Raises:
            ValueError: If the model lacks the sensor, the archive the tile or column, or the query is no query.
        """
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1.")
        asked, target = choose_sensors(self, sensor, archive_sensor)
        order, unit = (bands or {}).get(asked), (units or {}).get(asked)
        if unit not in (None, *UNIT_NAMES):
            raise ValueError(
                f"units of a query: {unit!r}; expected one of {', '.join(UNIT_NAMES)}: a query is one image, and rules are of "
                "data sets."
            )
        said = Said(unit, level, None if order is None else tuple(order))
        selection, unknown = None, []
        if filter is not None and filter.strip():
            where = parse_filter(filter, self.tiles.schema, areas)
            kept_rows = np.concatenate([mask_of(where, table) for table in self._tiles.tables])
            selection = Selection(where, np.flatnonzero(kept_rows))
            unknown = unknown_values(where, self.tiles)
        queries = move_queries(self, make_queries(self, query, asked, said, suspect), target, like, unlike)
        # What was judged already is not shown again.
        out = np.tile(self.rows_of([*like, *unlike]), (len(queries.names), 1))
        if not include_self:
            out = np.concatenate([out, queries.rows[:, None]], axis=1)
        index = self.indexes[target]
        found = leave_out(index.search(queries.vectors, k + out.shape[1], selection), out, k)
        kept = len(self) if selection is None else len(selection.rows)
        notes = unknown + notes_on(found, out, kept, len(self), k, selection, index.backend)
        for note in notes:
            logger.warning("%s", note)
        rows = np.unique(found.rows[found.rows >= 0])
        return Hits(
            queries=queries.names,
            scores=found.scores,
            rows=found.rows,
            tiles=self.take(rows),
            query_sensor=asked,
            archive_sensor=target,
            kept=kept,
            exact=found.exact,
            backend=index.backend,
            parameters=index.parameters,
            notes=notes,
            images=queries.images,
            provenance=self.origin,
        )

    def add(self, dataset: "Dataset", *, source: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Embed more tiles and put them after the others. The indexes follow, and their recall is measured again.

        Tiles that the archive has already stay as they are, and are named in a warning.

        Args:
            dataset: Tiles with the archive's sensors; columns of metadata that the archive has and they lack are None.
            source: Where they came from, as of [`Archive.build`].
            **options: As of [`Archive.build`]: batch_size, device, num_workers, progress, suspect.

        Raises:
            ValueError: If all tiles are in the archive already, a column has another type, or as of [`Archive.build`].
        """
        model, processor = self.load_model()
        known: Sequence[str] = list(model.config.sensors)  # type: ignore[union-attr, arg-type]
        tiles = metadata_of(dataset, known, getattr(processor, "units", None))
        rows = self._new_rows(tiles)
        dataset, tiles = dataset.select(rows.tolist()), tiles.take(pa.array(rows))
        tiles = in_columns(tiles, with_units_columns(self.tiles.slice(0, 0), tiles, known).schema)
        embeds, unreadable = embed_tiles(model, processor, dataset, self.sensors, **options)
        tiles, reasons = without_rows(tiles, unreadable)
        self._add(tiles, embeds, source, _generated(source, dataset), reasons)

    def add_embeds(
        self,
        embeds: Mapping[str, np.ndarray[Any, Any]],
        tiles: pa.Table,
        *,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """Put tiles that are embedded already after the others. The rest is as of [`Archive.add`].

        Args:
            embeds: (N, D) by sensor, of every sensor of the archive, as its model gave them.
            tiles: Metadata, row i of embed i, with the column `id`.
            source: Where they came from.

        Raises:
            ValueError: As of [`Archive.add`], or if embeds are zero or not finite, of other sensors or of another width.
        """
        check_ids(tiles.column(ID).to_pylist())
        shapes = {sensor: np.shape(values) for sensor, values in embeds.items()}
        if shapes != dict.fromkeys(self.sensors, (tiles.num_rows, self.width)):
            raise ValueError(
                f"The archive has embeds of {', '.join(self.sensors)}, of width {self.width}, of each tile; given: {shapes} of "
                f"{tiles.num_rows} tiles."
            )
        rows = self._new_rows(tiles)
        tiles = in_columns(in_plain_types(tiles).take(pa.array(rows)), self.tiles.schema)
        kept = {sensor: numpy_array(values)[rows] for sensor, values in embeds.items()}
        self._add(tiles, kept, source, _generated(source, None))

    def _new_rows(self, tiles: pa.Table) -> IntArray:
        """Rows of tiles that the archive lacks; a warning names the others, and it is a ValueError if there is nothing else."""
        names = tiles.column(ID).to_pylist()
        held = self.find(names) >= 0
        if held.any():
            present = [names[row] for row in np.flatnonzero(held)]
            shown = ", ".join(present[:_NAMED]) + (
                f" and {len(present) - _NAMED} more" if len(present) > _NAMED else ""
            )
            what = f"{len(present)} of {len(names)} tiles are in the archive already and stay as they are: {shown}."
            if len(present) == len(names):
                raise ValueError(f"{what} Nothing is left to add; to embed them again, remove them first.")
            logger.warning("%s The others are added.", what)
        return np.flatnonzero(~held)

    def _add(
        self,
        tiles: pa.Table,
        embeds: Mapping[str, np.ndarray[Any, Any]],
        source: Mapping[str, Any] | None,
        generated: bool | None,
        unreadable: Mapping[str, str] | None = None,
    ) -> None:
        """Put tiles, in the archive's columns, after the others."""
        segment = Segment.of(tiles, aligned_vectors(embeds, self.alignment))
        after = Tiles(
            settled([*self.segments, segment]), changed_sets(self._tiles.sets, sets_of(segment.tiles), removed={})
        )
        new = after.table.slice(len(self))

        def follow(sensor: str, index: ArchiveIndex) -> ArchiveIndex:
            vectors = after.vectors[sensor]
            return (
                index.add(vectors, with_buckets(new, new.column(ID).to_pylist())) if len(self) else ExactIndex(vectors)
            )

        def measure(indexes: Mapping[str, ArchiveIndex]) -> list[Recall]:
            if all(isinstance(index, ExactIndex) for index in indexes.values()):
                return []
            table = with_buckets(after.table, after.table.column(ID).to_pylist())
            return [
                found
                for sensor, index in indexes.items()
                for found in measure_index(index, sensor, after.vectors, table)
            ]

        both = {self.generated, generated}
        told = self.source
        if source is not None:
            told = {**told, "added": [*told.get("added", ()), dict(source)]}
        self._become(
            after,
            follow,
            measure,
            unreadable={**self.unreadable, **(unreadable or {})},
            generated=True if True in both else None if None in both else False,
            source=told,
        )
        self._warn_of_low_recall()

    def remove(self, ids: Sequence[str]) -> None:
        """Take tiles out, by their ids. The indexes follow. An id that is not in the archive is a ValueError."""
        rows = np.unique(self.rows_of(ids))
        edges = np.searchsorted(rows, self._tiles.starts)
        left = [
            segment.without(rows[first:last] - start)
            for segment, start, first, last in zip(self.segments, self._tiles.starts, edges, edges[1:], strict=False)
        ]
        after = Tiles(settled(left), changed_sets(self._tiles.sets, {}, sets_of(self.take(rows))))

        def follow(sensor: str, index: ArchiveIndex) -> ArchiveIndex:
            vectors = after.vectors[sensor]
            return index.remove(vectors, rows) if len(vectors) else ExactIndex(vectors)

        forgotten = self.stored.indexes
        self._become(after, follow, lambda _: [item for item in self.recall if item.archive_sensor not in forgotten])

    def compact(self) -> None:
        """Put all tiles into one segment, without what was removed. It is written by `save`; nothing else changes."""
        if len(self.segments) > 1 or len(self.segments[0].removed):
            self._tiles = Tiles([merged(self.segments)], self._tiles.sets)

    def _become(
        self,
        after: Tiles,
        follow: Callable[[str, ArchiveIndex], ArchiveIndex],
        recall: Callable[[Mapping[str, ArchiveIndex]], list[Recall]],
        **more: Any,
    ) -> None:
        """Take other tiles, in one step, when all that follows from them is there; a failure changes nothing."""
        for sensor, described in self.stored.indexes.items():
            logger.warning(
                f"The archive's {described['backend']} index of {sensor} is not in use, so it cannot follow the change and is "
                "forgotten: build it again with `csmae archive index`."
            )
        indexes: dict[str, ArchiveIndex] = {}
        begun = []
        try:
            for sensor, index in self.indexes.items():
                begun.append(sensor)
                indexes[sensor] = follow(sensor, index)
            state = {"_tiles": after, "indexes": indexes, "recall": recall(indexes)}
        except BaseException:
            self._restore(begun)
            raise
        vars(self).update(state, stored=replace(self.stored, indexes={}), compression=[], **more)

    def _restore(self, sensors: Sequence[str]) -> None:
        """Have the indexes of sensors as they were before a change that failed; where that fails too, search exactly."""
        for sensor in sensors:
            try:
                self.indexes[sensor].restore()
            except Exception as error:  # whatever a server's client raises
                logger.warning(
                    "The %s index of %s is lost, search is exact: %s", self.indexes[sensor].backend, sensor, error
                )
                self.indexes[sensor] = ExactIndex(self.vectors[sensor])

    def use_index(self, backend: str, **options: Any) -> list[Recall]:
        """Build an index of every sensor, and measure how much of the exact answer it finds.

        Args:
            backend: "exact", "codes", "faiss" or "milvus".
            **options: exact: `device`, `precision`. codes: `kind` ("float16", "int8" or "bits"), `candidates`, which is raised
                until the recall is 0.98. faiss: `kind` ("ivf" or "hnsw"), `effort`, `candidates`, `exact_below`; without
                `effort` it is raised until the recall is 0.95. milvus: `uri`, `token`, `effort`.

        Returns:
            The recall in each direction, without a filter and with filters; kept in `recall` and stored with the archive.

        Raises:
            ValueError: If the backend or an option is unknown, or no effort reaches a recall of 0.95.
            ImportError: If the backend's package is missing.
        """
        tiles = with_buckets(self.tiles, self.ids)
        built = {sensor: build_index(backend, sensor, self.vectors, tiles, **options) for sensor in self.sensors}
        indexes = {sensor: index for sensor, (index, _) in built.items()}
        recall = [recall for _, measured in built.values() for recall in measured]
        vars(self).update(indexes=indexes, recall=recall, stored=replace(self.stored, indexes={}))
        self._warn_of_low_recall()
        return self.recall

    def compress(self, *, measure: bool = False) -> list[Compression]:
        """Measure what compact codes cost and keep in every direction, and search by the smallest that keep enough.

        The measurements are kept in `compression` and stored with the archive, until tiles are added or removed. Where no kind keeps
        enough, the indexes stay as they are. The embeds stay in the archive: the last word is theirs.

        Args:
            measure: Whether to measure only, and leave the indexes as they are.

        Returns:
            The measurements, those of the chosen kind marked; see [`measure_codes`].

        Raises:
            ValueError: If there are fewer than four tiles to ask by.
        """
        measured = measure_codes(self.vectors, self.tiles)
        options = None if measure else chosen_options(measured)
        if options is not None:
            self.use_index("codes", **options)
        self.compression = measured
        return measured

    def _warn_of_low_recall(self) -> None:
        for recall in self.recall:
            if recall.recall < LEAST_RECALL:
                backend = self.indexes[recall.archive_sensor].backend
                logger.warning(
                    f"The {backend} index finds {100 * recall.recall:.0f} % of the exact results of {recall.query_sensor} queries in "
                    f"{recall.archive_sensor} where a filter keeps {100 * recall.share:.1f} %."
                )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the archive to a folder: at every moment it holds the archive before or after, whole.

        Args:
            path: The folder; the one that the archive was opened from or saved to is brought up to date.
            overwrite: Whether another archive in the folder is replaced. It stays there, whole, until this one is; then its files
                are removed. Files of no archive are never replaced.

        Returns:
            The folder.

        Raises:
            FileExistsError: If the folder holds something else, or was changed by another process since it was opened.
        """
        return save_archive(self, path, overwrite=overwrite)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        model: torch.nn.Module | None = None,
        processor: Any = None,
        encoder: Encoder | None = None,
        verify: bool = True,
        index: bool = True,
        trust_remote_code: bool = False,
        token: str = "",
        uri: str = "",
    ) -> "Archive":
        """Open an archive. Its embeds stay in their files and are read when they are looked at.

        Args:
            path: The folder.
            model: The model for queries that are images; default it is loaded by name when one comes.
            processor: Its processor.
            encoder: In the place of both the encoder that the archive was made with, where it was one of another kind. It is never
                loaded by name: an archive makes nobody run code.
            verify: Whether to read all files once to check their hashes; their sizes are checked anyway.
            index: Whether to open the archive's indexes; else search is exact.
            trust_remote_code: Whether the model that the archive names may bring code of its own, which then runs here.
            token: Of a Milvus server, where the archive's index is one.
            uri: Of the Milvus to use, where the archive's index is one; default the environment's CSMAE_MILVUS_URI. What the archive
                itself names is used where it is a file in its own folder; nothing else is connected to.

        Returns:
            The archive.

        Raises:
            FileNotFoundError: If there is no archive.
            ArchiveCorruptError: If a file is damaged or cut short; named.
            ArchiveMismatchError: If model, processor or metric are not those of the archive.
        """
        model, processor = one_model(model, processor, encoder)
        archive = open_archive(cls, path, verify=verify, index=index, token=token, uri=uri)
        archive.trust_remote_code = trust_remote_code
        if model is not None:
            archive.use_model(model, processor)
        return archive


def _generated(source: Mapping[str, Any] | None, dataset: "Dataset | None") -> bool | None:
    """Whether tiles are generated scenes, as their source says, or else where they lie; None where it is not known."""
    said = is_generated(source["data"]) if source and source.get("data") else None
    return are_generated(dataset) if said is None and dataset is not None else said
