"""Search with Milvus: candidates and filters there, ranking by the archive's own vectors here.

Milvus is somebody else's server, named by a URI (`http://host:19530`), or its embedded form, named by a path ending in `.db`, which is
for trying things out. What it holds is a copy that can be dropped and made again. Embedded, the index is FLAT: its HNSW loses most
results under a filter. On a server it is HNSW, whose narrow filters the server answers exactly. IVF is in neither case used.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.filter_language import Column, columns_of, milvus_of, milvus_time
from csmae_hf.search.ids import ID, TileRows
from csmae_hf.search.index import Found, Selection
from csmae_hf.search.nearest import rerank
from csmae_hf.search.vectors import IntArray, Vectors

logger = logging.getLogger(__name__)

VECTOR = "embed"

_INSERT_ROWS = 1000
_QUERY_ROWS = 64
_MARGIN = 22
_MOST_TEXT = 65_535
_MOST_ITEMS = 1024
_MOST_RESULTS = 16_384
_PROBES = 16


class MilvusIndex:
    """Candidates by Milvus, ranking by the vectors.

    Args:
        vectors: (N, D) float32 unit vectors.
        tiles: Their metadata, with the column `id`.
        uri: Of the server, or a path ending in `.db`.
        collection: Name of the collection. One that holds these vectors is used, one that is not there is made, and one that holds
            something else is left alone: then one is made whose name is a hash of these vectors and ids.
        effort: Width of the search in HNSW.
        token: Of the server, where it wants one. It is never written down.

    Raises:
        ImportError: If pymilvus is missing, or for a path milvus-lite.
        ValueError: If the URI holds a password, or metadata does not fit into Milvus.
        ConnectionError: If there is no server.
    """

    backend: ClassVar[str] = "milvus"

    def __init__(
        self,
        vectors: Vectors,
        tiles: pa.Table,
        uri: str,
        collection: str | None = None,
        effort: int = 128,
        token: str = "",
    ):
        self.vectors = vectors
        self.tiles = tiles
        self._rows = TileRows()
        self.client = connect(uri, token)
        self.embedded = is_embedded(uri)
        name = collection or collection_name(vectors, tiles)
        self.parameters: dict[str, Any] = {"uri": uri, "collection": name, "effort": effort}
        self.fields = {column: f"c{place}" for place, column in enumerate(columns_of(tiles.schema))}
        complete = self._is_complete()
        if not complete and self.client.has_collection(name) and name != (own := collection_name(vectors, tiles)):
            logger.warning("Collection %s holds something else and is left alone; %s is used.", name, own)
            self.parameters["collection"] = own
            complete = self._is_complete()
        if not complete:
            if self.client.has_collection(self.collection):
                self.drop()  # its name is a hash of these vectors: it holds a part of them, left by a crash
            self._create()

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return str(self.parameters["collection"])

    def add(self, vectors: Vectors, tiles: pa.Table) -> None:
        """See [`ArchiveIndex.add`]."""
        self._insert(vectors, tiles)
        self.vectors = self.vectors.extend(vectors)
        self.tiles = pa.concat_tables([self.tiles, tiles])

    def remove(self, rows: IntArray) -> None:
        """See [`ArchiveIndex.remove`]."""
        ids = self.tiles.column(ID).take(pa.array(rows)).to_pylist()
        for start in range(0, len(ids), _INSERT_ROWS):
            self.client.delete(self.collection, ids=ids[start : start + _INSERT_ROWS])
        kept = np.setdiff1d(np.arange(len(self.vectors)), rows)
        self.vectors, self.tiles = self.vectors.select(kept), self.tiles.take(pa.array(kept))

    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """See [`ArchiveIndex.search`]."""
        count = min(k + _MARGIN, len(self.vectors))
        if count > _MOST_RESULTS or (selection is not None and not len(selection.rows)) or not count:
            return ExactIndex(self.vectors).search(queries, k, selection)  # nothing, or more than Milvus gives
        expression = "" if selection is None else milvus_of(selection.where, self.fields, self.tiles.schema)
        rows_by_id = self._rows.of(self.tiles)
        found = torch.full((len(queries), max(count, k)), -1, dtype=torch.int64)
        for start in range(0, len(queries), _QUERY_ROWS):
            for place, ids in enumerate(self._search_ids(queries[start : start + _QUERY_ROWS], count, expression)):
                known = [rows_by_id[name] for name in ids if name in rows_by_id]
                found[start + place, : len(known)] = torch.tensor(known, dtype=torch.int64)
        scores, rows = rerank(queries, self.vectors, found, k)
        return Found(scores.numpy(), rows.numpy(), self.embedded)

    def drop(self) -> None:
        """Remove the collection."""
        self.client.drop_collection(self.collection)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _search_ids(self, queries: torch.Tensor, count: int, expression: str) -> Iterator[list[str]]:
        options = {} if self.embedded else {"ef": max(int(self.parameters["effort"]), 2 * count)}
        answers = self.client.search(
            self.collection,
            data=queries.numpy().tolist(),
            anns_field=VECTOR,
            limit=count,
            filter=expression,
            search_params={"metric_type": "IP", "params": options},
        )
        for hits in answers:
            yield [str(hit[ID]) for hit in hits]

    def _is_complete(self) -> bool:
        """Whether the collection is there with as many rows, and knows a sample of them by their vectors."""
        from pymilvus import MilvusException

        if not self.client.has_collection(self.collection):
            return False
        self.client.load_collection(self.collection)
        count = self.client.query(self.collection, filter="", output_fields=["count(*)"])[0]["count(*)"]
        if count == len(self.vectors):
            rows = np.unique(np.linspace(0, count - 1, _PROBES).astype(np.int64)) if count else np.empty(0, np.int64)
            vectors = self.vectors[torch.from_numpy(rows)] if count else torch.empty(0, self.vectors.width)
            try:
                best = self.search(vectors, 1).scores if count else np.ones(1)
            except (MilvusException, KeyError):
                return False  # of another width, or with other fields
            return bool((best > 1 - 1e-5).all())
        return False

    def _create(self) -> None:
        from pymilvus import DataType

        kinds = {"text": DataType.VARCHAR, "number": DataType.DOUBLE, "truth": DataType.BOOL, "time": DataType.INT64}
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=_MOST_TEXT)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=self.vectors.width)
        for column, (kind, many) in columns_of(self.tiles.schema).items():
            size = {"max_length": _MOST_TEXT} if kind == "text" else {}
            field = self.fields[column]
            if many:
                schema.add_field(field, DataType.ARRAY, element_type=kinds[kind], max_capacity=_MOST_ITEMS, **size)
            else:
                schema.add_field(field, DataType.INT64 if self._is_whole(column) else kinds[kind], **size)
            schema.add_field(f"{field}_known", DataType.BOOL)
        index = self.client.prepare_index_params()
        if self.embedded:
            index.add_index(VECTOR, index_type="FLAT", metric_type="IP")
        else:
            index.add_index(VECTOR, index_type="HNSW", metric_type="IP", params={"M": 32, "efConstruction": 200})
        self.client.create_collection(self.collection, schema=schema, index_params=index, consistency_level="Strong")
        logger.info("Sending %d vectors to Milvus.", len(self.vectors))
        self._insert(self.vectors, self.tiles)
        if not self.embedded:
            self.client.flush(
                self.collection
            )  # seals what is there, so that it is indexed; a server allows this seldom
        self.client.load_collection(self.collection)

    def _is_whole(self, column: str) -> bool:
        kind = self.tiles.schema.field(column).type
        return pa.types.is_integer(kind) or pa.types.is_temporal(kind)

    def _insert(self, vectors: Vectors, tiles: pa.Table) -> None:
        columns = columns_of(self.tiles.schema)
        for start in range(0, len(vectors), _INSERT_ROWS):
            rows = tiles.slice(start, _INSERT_ROWS).to_pylist()
            embeds = vectors[start : start + _INSERT_ROWS].numpy().tolist()
            data = [
                {ID: row[ID], VECTOR: embed, **self._fields_of(row, columns)}
                for row, embed in zip(rows, embeds, strict=True)
            ]
            self.client.insert(self.collection, data)

    def _fields_of(self, row: Mapping[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, (kind, many) in columns.items():
            value = row[name]
            fields[f"{self.fields[name]}_known"] = value is not None
            plain = [_plain(item, kind) for item in value or ()] if many else _plain(value, kind)
            if isinstance(plain, str) and len(plain.encode()) > _MOST_TEXT:
                raise ValueError(
                    f"Column {name} of tile {row[ID]} has more than {_MOST_TEXT} bytes, the most that Milvus takes."
                )
            fields[self.fields[name]] = plain
        return fields


def _plain(value: Any, kind: str) -> Any:
    if value is None:
        return {"text": "", "number": 0, "truth": False, "time": 0}[kind]
    return milvus_time(value) if kind == "time" else value


def is_embedded(uri: str) -> bool:
    """Whether a URI is a path, which means the embedded form."""
    return re.match(r"[a-z]+://", uri, re.IGNORECASE) is None


def connect(uri: str, token: str = "") -> Any:
    """Connect to Milvus.

    Args:
        uri: Of a server, or a path ending in `.db`.
        token: Of the server.

    Returns:
        A `pymilvus.MilvusClient`.

    Raises:
        ImportError: With how to install it.
        ValueError: If the URI holds a password, or a path does not end in `.db`.
        ConnectionError: If there is no server.
    """
    if re.match(r"[a-z]+://[^/]*@", uri, re.IGNORECASE):
        raise ValueError(
            "The URI of Milvus holds a user and password, and it is stored with the archive: pass them as a token instead."
        )
    if is_embedded(uri) and not uri.endswith(".db"):
        raise ValueError(f"{uri!r} is neither a URI (http://host:19530) nor a path ending in .db, of embedded Milvus.")
    try:
        from pymilvus import MilvusClient, MilvusException
    except ImportError as error:
        raise ImportError("The Milvus index needs pymilvus: pip install 'csmae-hf[milvus]'.") from error
    try:
        return MilvusClient(uri=uri, token=token, timeout=30)
    except MilvusException as error:
        if is_embedded(uri) and "lite" in str(error).lower():
            raise ImportError("Embedded Milvus needs milvus-lite: pip install 'csmae-hf[milvus]'.") from error
        raise ConnectionError(f"No Milvus answers at {uri}: {error.message}") from error


def collection_name(vectors: Vectors, tiles: pa.Table) -> str:
    """Name a collection by what it holds, so that no two archives share one.

    Args:
        vectors: (N, D).
        tiles: With the column `id`.

    Returns:
        `csmae_` and a hash.
    """
    total = hashlib.sha256()
    for chunk in vectors.chunks():
        total.update(chunk.contiguous().numpy().data)
    for name in tiles.column(ID).to_pylist():
        total.update(name.encode() + b"\0")
    return f"csmae_{total.hexdigest()[:24]}"
