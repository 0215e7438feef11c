"""Search with Milvus: candidates and filters there, ranking by the archive's own vectors here.

Milvus is somebody else's server, named by a URI (`http://host:19530`), or its embedded form, named by a path ending in `.db`, which is
for trying things out. What it holds is a copy that can be dropped and made again. Embedded, the index is FLAT: its HNSW loses most
results under a filter. On a server it is HNSW, whose narrow filters the server answers exactly. IVF is in neither case used.
"""

import copy
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from csmae_hf.optional import needs_package
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.ids import ID, IdIndex
from csmae_hf.search.index import ArchiveIndex, Found, Selection
from csmae_hf.search.milvus_filter import is_whole, milvus_columns, milvus_of, milvus_values
from csmae_hf.search.nearest import rerank
from csmae_hf.search.vectors import IntArray, Vectors

logger = logging.getLogger(__name__)

MILVUS_URI = "CSMAE_MILVUS_URI"
"""The variable of the environment that names the Milvus of archives whose own is not in their folder."""

VECTOR = "embed"

_UNKNOWN: dict[str, Any] = {"text": "", "number": 0, "truth": False, "time": 0, "time of day": 0, "duration": 0}
"""By kind of a column: what stands for a value that is not known, and is marked so beside it."""

_INSERT_ROWS = 1000
_QUERY_ROWS = 64
_MARGIN = 22
_MOST_TEXT = 65_535
_MOST_ITEMS = 1024
_MOST_RESULTS = 16_384
_PROBES = 16


class MilvusIndex(ArchiveIndex):
    """Candidates by Milvus, ranking by the vectors.

    Args:
        vectors: (N, D) float32 unit vectors.
        tiles: Their metadata, with the column `id`.
        uri: Of the server, or a path ending in `.db`.
        collection: Name of the collection. One that holds these vectors is used, one that is not there is made, and one that holds
            something else is left alone: then one is made whose name is a hash of these vectors and ids.
        effort: Width of the search in HNSW.
        token: Of the server, where it wants one. It is never written down.

    Metadata that does not fit into Milvus are a ValueError; for the rest see `connect`.
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
        self.vectors, self.tiles, self.ids = vectors, tiles, IdIndex(tiles.column(ID))
        self.client, self.embedded = connect(uri, token), is_embedded(uri)
        name = collection or collection_name(vectors, tiles)
        self.parameters: dict[str, Any] = {"uri": uri, "collection": name, "effort": effort}
        self.columns = milvus_columns(tiles.schema)
        self.fields = {column: f"d{place}" for place, column in enumerate(self.columns)}
        complete = self._is_complete()
        if not complete and self.client.has_collection(name) and name != (own := collection_name(vectors, tiles)):
            logger.warning("Collection %s holds something else and is left alone; %s is used.", name, own)
            self.parameters["collection"] = own
            complete = self._is_complete()
        if not complete:
            # One that is there has a hash of these vectors as its name: it holds a part of them, left by a crash.
            if self.client.has_collection(self.collection):
                self.client.drop_collection(self.collection)
            self._create()

    @classmethod
    def build(cls, vectors: Vectors, tiles: pa.Table, **options: Any) -> "MilvusIndex":
        """See [`ArchiveIndex.build`]."""
        return cls(vectors, tiles, **options)

    @classmethod
    def open(
        cls, described: Mapping[str, Any], folder: Path, vectors: Vectors, tiles: pa.Table, token: str, uri: str
    ) -> "MilvusIndex":
        """See [`ArchiveIndex.open`]. What an archive says, which may come from anybody, never makes this machine talk to another."""
        named = described["parameters"]["uri"]
        address = uri or _file_within(folder, named) or os.environ.get(MILVUS_URI)
        if not address:
            raise ConnectionError(
                f"it names {named}, which is not a database in the archive's folder, and nothing is connected to "
                f"because an archive says so. If you know it: set {MILVUS_URI}={named}, or Archive.load(..., uri=...)."
            )
        return cls(vectors, tiles, **{**described["parameters"], "uri": address}, token=token)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return str(self.parameters["collection"])

    def add(self, vectors: Vectors, tiles: pa.Table) -> "MilvusIndex":
        """See [`ArchiveIndex.add`]."""
        self._insert(vectors, tiles, len(self.vectors))
        return self._of(vectors, pa.concat_tables([self.tiles, tiles]))

    def remove(self, vectors: Vectors, rows: IntArray) -> "MilvusIndex":
        """See [`ArchiveIndex.remove`]."""
        ids = self.tiles.column(ID).take(pa.array(rows)).to_pylist()
        for start in range(0, len(ids), _INSERT_ROWS):
            self.client.delete(self.collection, ids=ids[start : start + _INSERT_ROWS])
        kept = np.setdiff1d(np.arange(len(self.vectors)), rows)
        return self._of(vectors, self.tiles.take(pa.array(kept)))

    def restore(self) -> None:
        """See [`ArchiveIndex.restore`]: the collection is made again where it does not hold just these rows."""
        if not self._is_complete():
            self.client.drop_collection(self.collection)
            self._create()

    def _of(self, vectors: Vectors, tiles: pa.Table) -> "MilvusIndex":
        """This collection, as what other vectors and metadata are in."""
        other = copy.copy(self)
        other.vectors, other.tiles, other.ids = vectors, tiles, IdIndex(tiles.column(ID))
        return other

    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """See [`ArchiveIndex.search`]."""
        count = min(k + _MARGIN, len(self.vectors))
        if count > _MOST_RESULTS or (selection is not None and not len(selection.rows)) or not count:
            return ExactIndex(self.vectors).search(queries, k, selection)  # nothing, or more than Milvus gives
        expression = "" if selection is None else milvus_of(selection.where, self.fields, self.tiles.schema)
        if expression is None:  # by places, or by columns that Milvus has not
            return ExactIndex(self.vectors).search(queries, k, selection)
        found = torch.full((len(queries), max(count, k)), -1, dtype=torch.int64)
        options = {} if self.embedded else {"ef": max(int(self.parameters["effort"]), 2 * count)}
        for start in range(0, len(queries), _QUERY_ROWS):
            answers = self.client.search(
                self.collection,
                data=queries[start : start + _QUERY_ROWS].numpy().tolist(),
                anns_field=VECTOR,
                limit=count,
                filter=expression,
                search_params={"metric_type": "IP", "params": options},
            )
            for place, hits in enumerate(answers):
                known = self.ids.find([str(hit[ID]) for hit in hits])
                known = known[known >= 0]  # another program may have put in what is none of ours
                found[start + place, : len(known)] = torch.from_numpy(known)
        scores, rows = rerank(queries, self.vectors, found, k)
        return Found(scores.numpy(), rows.numpy(), self.embedded)

    def _is_complete(self) -> bool:
        """Whether the collection is there with as many rows, and knows a sample of them by their vectors."""
        from pymilvus import MilvusException

        total = len(self.vectors)
        if not self.client.has_collection(self.collection):
            return False
        named = {field["name"] for field in self.client.describe_collection(self.collection)["fields"]}
        if not named >= set(self.fields.values()):
            return False  # of another archive, or made before times were kept as they are
        self.client.load_collection(self.collection)
        if self.client.query(self.collection, filter="", output_fields=["count(*)"])[0]["count(*)"] != total:
            return False
        rows = np.unique(np.linspace(0, total - 1, min(total, _PROBES)).astype(np.int64))
        try:
            return bool((self.search(self.vectors[torch.from_numpy(rows)], 1).scores > 1 - 1e-5).all())
        except (MilvusException, KeyError):
            return False  # of another width, or with other fields

    def _create(self) -> None:
        from pymilvus import DataType

        kinds = {"text": DataType.VARCHAR, "number": DataType.DOUBLE, "truth": DataType.BOOL}
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ID, DataType.VARCHAR, is_primary=True, max_length=_MOST_TEXT)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=self.vectors.width)
        for column, (kind, many) in self.columns.items():
            size: dict[str, Any] = {"max_length": _MOST_TEXT} if kind == "text" else {}
            form = DataType.INT64 if is_whole(self.tiles.schema.field(column).type) else kinds[kind]
            size |= {"element_type": form, "max_capacity": _MOST_ITEMS} if many else {}
            schema.add_field(self.fields[column], DataType.ARRAY if many else form, **size)
            schema.add_field(f"{self.fields[column]}_known", DataType.BOOL)
        index = self.client.prepare_index_params()
        hnsw: dict[str, Any] = {"index_type": "HNSW", "params": {"M": 32, "efConstruction": 200}}
        index.add_index(VECTOR, metric_type="IP", **({"index_type": "FLAT"} if self.embedded else hnsw))
        self.client.create_collection(self.collection, schema=schema, index_params=index, consistency_level="Strong")
        logger.info("Sending %d vectors to Milvus.", len(self.vectors))
        self._insert(self.vectors, self.tiles)
        if not self.embedded:
            # seals what is there, so that it is indexed; a server allows this seldom
            self.client.flush(self.collection)
        self.client.load_collection(self.collection)

    def _insert(self, vectors: Vectors, tiles: pa.Table, first: int = 0) -> None:
        """Send rows, from the first on, and their metadata."""
        for start in range(first, len(vectors), _INSERT_ROWS):
            part = tiles.slice(start - first, _INSERT_ROWS)
            data = [
                {ID: name, VECTOR: embed}
                for name, embed in zip(
                    part.column(ID).to_pylist(), vectors[start : start + _INSERT_ROWS].tolist(), strict=True
                )
            ]
            for column, (kind, many) in self.columns.items():
                field = self.fields[column]
                for row, value in zip(data, milvus_values(part.column(column)), strict=True):
                    if not many and kind == "text" and value is not None and len(value.encode()) > _MOST_TEXT:
                        raise ValueError(
                            f"Column {column} of tile {row[ID]} has more than {_MOST_TEXT} bytes, the most that Milvus takes."
                        )
                    row[field] = ([] if many else _UNKNOWN[kind]) if value is None else value
                    row[f"{field}_known"] = value is not None
            self.client.insert(self.collection, data)


def _file_within(folder: Path, uri: str) -> str | None:
    """The database of embedded Milvus that a URI names, as an absolute path; None where it is not in the folder of the archive."""
    home = folder.resolve()
    for path in (Path(uri).resolve(), home / Path(uri).name):  # the folder may have been moved since
        if uri.endswith(".db") and path.exists() and home in path.resolve().parents:
            return str(path)
    return None


def is_embedded(uri: str) -> bool:
    """Whether a URI is a path, which means the embedded form."""
    return re.match(r"[a-z]+://", uri, re.IGNORECASE) is None


def connect(uri: str, token: str = "") -> Any:
    """Connect a `pymilvus.MilvusClient` to a server, or to a path ending in `.db`.

    A URI with a password, or a path of another ending, is a ValueError; no server is a ConnectionError, no package an ImportError.
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
        raise needs_package("The Milvus index", "pymilvus", error) from error
    try:
        return MilvusClient(uri=uri, token=token, timeout=30)
    except MilvusException as error:
        if is_embedded(uri) and "lite" in str(error).lower():
            raise needs_package("Embedded Milvus", "milvus_lite", error) from error
        raise ConnectionError(f"No Milvus answers at {uri}: {error.message}") from error


def collection_name(vectors: Vectors, tiles: pa.Table) -> str:
    """`csmae_` and a hash of the vectors, (N, D), and ids of a collection, so that no two archives share one."""
    total = hashlib.sha256()
    for chunk in vectors.chunks():
        total.update(chunk.contiguous().numpy().data)
    for name in tiles.column(ID).to_pylist():
        total.update(name.encode() + b"\0")
    return f"csmae_{total.hexdigest()[:24]}"
