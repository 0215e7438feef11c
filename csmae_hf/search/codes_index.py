"""Search by compact codes: they pick candidates, the archive's own vectors rank them.

Every code that a filter keeps is looked at, so a filter loses nothing. Where the last result is better than anything left out can be,
by the error that is kept with the codes, the answer is exact and says so.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open

from csmae_hf.files import Entry, write_file
from csmae_hf.metrics.labels import BoolArray
from csmae_hf.search.codes import TYPES, Codes, check_kind
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.index import ArchiveIndex, Found, Selection
from csmae_hf.search.nearest import best_rows, rerank
from csmae_hf.search.recall import WANTED_RECALL
from csmae_hf.search.vectors import IntArray, Vectors

_LEAST_CANDIDATES = 32
_QUERY_CHUNK = 512
_CHECKED_ROWS = 64
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.int8: "I8", torch.uint8: "U8"}


class CodesIndex(ArchiveIndex):
    """Candidates by codes, ranking by the vectors.

    Args:
        vectors: (N, D) float32 unit vectors.
        kind: One of `csmae_hf.search.codes.KINDS`.
        candidates: Candidates per result that are ranked; building raises it until the recall is enough.
        codes: Codes of these vectors; None makes them.
    """

    backend: ClassVar[str] = "codes"

    def __init__(self, vectors: Vectors, kind: str = "int8", candidates: int = 2, codes: Codes | None = None):
        check_kind(kind)
        if type(candidates) is not int or candidates < 1:
            raise ValueError(f"candidates={candidates!r} of codes: expected a whole number, 1 or more.")
        self.parameters: dict[str, Any] = {"kind": kind, "candidates": candidates}
        self.exact = ExactIndex(vectors)
        self.codes = Codes.of(vectors, kind) if codes is None else codes

    @classmethod
    def open(
        cls, described: Mapping[str, Any], folder: Path, vectors: Vectors, tiles: pa.Table, token: str, uri: str
    ) -> "CodesIndex":
        """See [`ArchiveIndex.open`]; a file that holds no codes, or those of other vectors, is a ValueError."""
        codes = _read(folder / described["file"], described["parameters"]["kind"], vectors)
        return cls(vectors, **described["parameters"], codes=codes)

    def write(self, folder: Path, sensor: str) -> Entry:
        """See [`ArchiveIndex.write`]."""
        codes = self.codes
        tensors = {"codes": codes.codes, "scales": codes.scales, "center": codes.center}
        # rounded up, so that the error is not said smaller than it is
        tensors["error"] = torch.tensor([np.nextafter(np.float32(codes.error), np.float32(np.inf))])
        header: dict[str, Any] = {}
        end = 0
        for name, tensor in tensors.items():
            start, end = end, end + tensor.nbytes
            header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # the format aligns data to 8 bytes

        def write(stream: Any) -> None:
            stream.write(len(text).to_bytes(8, "little") + text)
            for tensor in tensors.values():
                stream.write(tensor.contiguous().numpy().data)

        return write_file(folder, f"index-{sensor}", ".safetensors", write)

    def tune(self, recall: Callable[[], float], sensor: str) -> None:
        """See [`ArchiveIndex.tune`]: candidates are doubled; of all rows as candidates the recall is 1."""
        while self.parameters["candidates"] < len(self.exact.vectors) and recall() < WANTED_RECALL:
            self.parameters["candidates"] *= 2

    def add(self, vectors: Vectors, tiles: pa.Table) -> "CodesIndex":
        """See [`ArchiveIndex.add`]. The mean that is subtracted stays that of the vectors which were coded first."""
        return CodesIndex(vectors, **self.parameters, codes=self.codes.extend(vectors))

    def remove(self, vectors: Vectors, rows: IntArray) -> "CodesIndex":
        """See [`ArchiveIndex.remove`]."""
        return CodesIndex(vectors, **self.parameters, codes=self.codes.without(rows))

    def search(self, queries: torch.Tensor, k: int, selection: Selection | None = None) -> Found:
        """See [`ArchiveIndex.search`]."""
        found, proven = self.search_proven(queries, k, selection)
        return found._replace(exact=bool(proven.all()))

    def search_proven(
        self, queries: torch.Tensor, k: int, selection: Selection | None = None
    ) -> tuple[Found, BoolArray]:
        """As `search`, and (Q,) whether the answer to each query is known to be exact."""
        codes = self.codes if selection is None else self.codes.select(selection.rows)
        count = max(k * int(self.parameters["candidates"]), k + _LEAST_CANDIDATES)
        if len(codes) <= count:
            return self.exact.search(queries, k, selection), np.ones(len(queries), np.bool_)
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        proven = np.empty(len(queries), np.bool_)
        for start in range(0, len(queries), _QUERY_CHUNK):
            part = slice(start, start + _QUERY_CHUNK)
            asked = queries[part]
            chosen, worst = best_rows(asked, codes, count)
            if selection is not None:
                chosen = torch.from_numpy(selection.rows)[chosen]
            best, found = rerank(asked, self.exact.vectors, chosen, k)
            scores[part], rows[part] = best.numpy(), found.numpy()
            # scores of codes lack the center; those that are ranked are rounded to float32
            most = worst.double() + codes.error + asked.double() @ codes.center.double() + 2.0**-24
            proven[part] = (best[:, -1].double() > most).numpy()
        return Found(scores, rows, False), proven


def _read(path: Path, kind: str, vectors: Vectors) -> Codes:
    """Map the codes of some vectors, of a kind, into memory."""
    check_kind(kind)
    try:
        with safe_open(str(path), framework="pt") as stream:
            codes, scales, center, most = (stream.get_tensor(name) for name in ("codes", "scales", "center", "error"))
    except (SafetensorError, OSError, RuntimeError) as error:  # torch maps the file, and raises RuntimeError
        raise ValueError(f"{path} holds no codes: {error}") from error
    count, width = vectors.shape
    wanted = {
        "codes": (TYPES[kind], (count, -(-width // 8) if kind == "bits" else width)),
        "scales": (torch.float32, (count,)),
        "center": (torch.float32, (width,)),
        "error": (torch.float32, (1,)),
    }
    held = dict(zip(wanted, ((part.dtype, tuple(part.shape)) for part in (codes, scales, center, most)), strict=True))
    if held != wanted:
        raise ValueError(f"{path} holds {held}; expected {wanted}: {kind} codes of {count} vectors of width {width}.")
    made = Codes(kind, center, codes, scales, float(most))
    rows = np.unique(np.linspace(0, count - 1, _CHECKED_ROWS).astype(np.int64))
    truth = vectors[torch.from_numpy(rows)].double() - center.double()
    lost = torch.linalg.vector_norm(truth - made.select(rows)[:].double(), dim=1)
    if not bool((lost <= made.error).all()):
        raise ValueError(f"{path} holds codes of other vectors.")
    return made
