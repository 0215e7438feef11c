"""The benchmark as a task of MTEB, and encoders of any kind as a model of MTEB.

    task = cross_sensor_task(load_data(...))
    result = mteb.evaluate(CrossSensorSearch(model, processor), task, cache=None)

A subset is a direction, `s1_to_s2`; of all modalities of MTEB both sensors are `image`, and an image is a dict of arrays by band, as
`load_data` gives it. MTEB's evaluator (trec_eval) is given as judgement of a tile 2^shared labels - 1, so that its NDCG is that of
`csmae_hf.metrics.ranking`; `csmae_hf.metrics.trec` has what else it computes. Three things it would do otherwise:

* A query to which nothing is relevant would be left out: it gets a judgement of 0, and scores 0 as everywhere in this package.
* It ranks by similarities in float32, ties by names of tiles, descending. `CrossSensorSearch` ranks as `csmae_hf.search.nearest`, and
  sees to it that no two similarities are equal. Other models have MTEB's order of ties.
* It rounds to 5 decimals: here scores are the means as they are.

Needs the extra `mteb`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset

from csmae_hf.archive.held import Held
from csmae_hf.data.labels import class_names, labels_of
from csmae_hf.data.suspects import Suspect
from csmae_hf.data.unit_rules import units_column
from csmae_hf.embedding.alignment import Alignment
from csmae_hf.embedding.embed import embed_dataset
from csmae_hf.embedding.foreign import Encoder, one_model
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.provenance import alignment_hash, hash_ids
from csmae_hf.embedding.without_paths import public_name
from csmae_hf.evaluation.benchmark import RESULTS, Benchmark, official_of
from csmae_hf.metrics.labels import BoolArray, IntArray, PackedLabels, multi_hot
from csmae_hf.metrics.ranking import mean_scores, query_scores
from csmae_hf.metrics.trec import CUTS, gains
from csmae_hf.optional import needs_package
from csmae_hf.search.ids import ID
from csmae_hf.search.nearest import top_k
from csmae_hf.search.vectors import numpy_array

try:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta
except ImportError as error:
    raise needs_package("A task of MTEB", "mteb", error) from error

if TYPE_CHECKING:
    from mteb.types import RelevantDocumentsType, RetrievalOutputType

MOST_PAIRS = 50_000_000
"""The most pairs of query and tile that a task is made of: MTEB holds a judgement of every relevant one, about 100 bytes each."""

_LANGUAGE = ["zxx-Zxxx"]  # no linguistic content
_TREC_NAMES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}

_BIGEARTHNET: dict[str, Any] = {
    "reference": "https://bigearth.net",
    "date": ("2017-06-01", "2018-05-31"),
    "license": "https://cdla.dev/permissive-1-0/",
    "annotations_creators": "derived",
    "sample_creation": "found",
}
"""What is known of the data of official lists."""


class _CrossSensorTask(AbsTaskRetrieval):
    """See [`cross_sensor_task`], which makes a class of each benchmark: MTEB asks classes for their `metadata`."""

    k_values = CUTS

    def __init__(self, benchmark: Benchmark, tiles: Dataset):
        super().__init__()
        self.benchmark = benchmark
        self._tiles = tiles
        self._labels: dict[str, BoolArray] = {}  # by split

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Lay out queries, archive and judgements of each direction; no pixels are read."""
        if self.data_loaded:
            return
        benchmark = self.benchmark
        classes = len(class_names(self._tiles.features["labels"]) or ())
        labels, splits = multi_hot(labels_of(self._tiles), classes), self._tiles.with_format(None)["split"][:]
        parts = {}
        for split in (benchmark.query_split, benchmark.archive_split):
            rows = np.flatnonzero(labels.any(axis=1) & (np.array(splits, dtype=object) == split))
            parts[split], self._labels[split] = self._tiles.select(rows), labels[rows]
        query, archive = parts.values()
        relevant = judgements(query[ID][:], archive[ID][:], *self._labels.values())
        self.dataset = {
            f"{query_sensor}_to_{archive_sensor}": {
                benchmark.archive_split: {
                    "queries": _images(query, query_sensor),
                    "corpus": _images(archive, archive_sensor),
                    "relevant_docs": relevant,
                    "top_ranked": None,
                }
            }
            for query_sensor, archive_sensor in benchmark.directions
        }
        self.data_loaded = True

    def task_specific_scores(
        self,
        scores: dict[str, dict[str, float]],
        qrels: "RelevantDocumentsType",
        results: "RetrievalOutputType",
        hf_split: str,
        hf_subset: str,
    ) -> dict[str, float]:
        """MTEB's own scores without rounding, and those of this package, named `csmae_..._at_10`, of the same ranking."""
        part = self.dataset[hf_subset][hf_split]
        places = {name: place for place, name in enumerate(part["corpus"][ID][:])}
        queries = part["queries"][ID][:]
        exact = {
            f"{name}_at_{k}": float(np.mean([scores[query][f"{trec}_{k}"] for query in queries]))
            for name, trec in _TREC_NAMES.items()
            for k in self.k_values
        }
        ranking = np.array([_first(results[query], places, query) for query in queries], dtype=np.int64)
        query_labels, archive_labels = (
            self._labels[split] for split in (self.benchmark.query_split, self.benchmark.archive_split)
        )
        own = mean_scores(query_scores(query_labels, archive_labels, ranking))
        return exact | {f"csmae_{name}_at_{RESULTS}": value for name, value in own.items()}


def cross_sensor_task(
    tiles: Dataset,
    benchmark: Benchmark | None = None,
    *,
    repository: str = "",
    revision: str | None = None,
) -> AbsTaskRetrieval:
    """Make a task of MTEB of a data set: its validation tiles search its test tiles, every sensor every other.

    Args:
        tiles: As of `load_data(..., "all")`.
        benchmark: What the tiles are; default `Benchmark.of(tiles)`.
        repository: Hub name of the benchmark, where it has one.
        revision: Commit of it; default a hash of the tiles, by which MTEB knows kept results of other tiles apart.

    Returns:
        A task of type Any2AnyRetrieval, with a subset a direction, and `ndcg_at_10` as main score.

    Raises:
        ValueError: The tiles are not those of the benchmark, there are more than `MOST_PAIRS` pairs, or as of `Benchmark.of`.
    """
    found = Benchmark.of(tiles)
    benchmark = benchmark or found
    for split in (benchmark.query_split, benchmark.archive_split):
        own, wanted = found.tiles.get(split), benchmark.tiles[split]
        if own is None or own.sha256 != wanted.sha256:
            raise ValueError(
                f"These are not the tiles of {benchmark.name}: its split {split} has {wanted.count}, given are "
                f"{own.count if own else 0}. Load all of its splits, without a limit."
            )
        if wanted.labels not in (None, own.labels):
            raise ValueError(f"The tiles of {split} have other labels than those of {benchmark.name}.")
    pairs = benchmark.queries.labelled * benchmark.archive.labelled
    if pairs > MOST_PAIRS:
        raise ValueError(
            f"{benchmark.name} has {pairs:,} pairs of query and tile, MTEB holds a judgement of each relevant one in memory: at most "
            f"{MOST_PAIRS:,}. Measure with run_retrieval.py, whose {benchmark.task} scores are the same, and check with "
            "`csmae benchmark check`."
        )
    told = [str(found.tiles[split].labels) for split in (benchmark.query_split, benchmark.archive_split)]
    metadata = _metadata(benchmark, repository or benchmark.task, revision or hash_ids(told)[:40])
    return type(benchmark.task, (_CrossSensorTask,), {"metadata": metadata})(benchmark, tiles)


class CrossSensorSearch:
    """A model of MTEB (its `SearchProtocol`): CSMAE, an encoder of any kind, or an archive that holds the embeds already.

    Args:
        model: A model with its processor, as of `AutoModel`; or leave both out.
        processor: The processor.
        encoder: An encoder of any kind (docs/encoders.md) in their place.
        archive: An archive of the tiles, aligned as it is, in the place of all these: no pixel is read.
        name: What tables of MTEB call it; default what it was loaded from.
        alignment: Of the sensors, fitted on training tiles.
        device: Where to embed; default where the model is.
        num_workers: Processes that read tiles.
        suspect: Whether tiles that show a sign which is a guess are refused or accepted as they are.

    Raises:
        ValueError: Not exactly one of model, encoder and archive was given, or an alignment beside an archive.
    """

    def __init__(
        self,
        model: torch.nn.Module | None = None,
        processor: Any = None,
        *,
        encoder: Encoder | None = None,
        archive: Held | None = None,
        name: str | None = None,
        alignment: Alignment | None = None,
        device: str | None = None,
        num_workers: int = 0,
        suspect: Suspect = "refuse",
    ):
        found, found_processor = one_model(model, processor, encoder, name)
        if (found is None) == (archive is None) or (archive is not None and alignment is not None):
            raise ValueError(
                "Give one of these to search with: a model and its processor, an encoder, or an archive, which has its alignment."
            )
        self.model, self.processor, self.alignment = found, found_processor, alignment or Alignment.none()
        self.archive, self.device, self.num_workers, self.suspect = archive, device, num_workers, suspect
        if archive is not None:
            identity, alignment = archive.identity, archive.alignment
        elif found is not None:
            identity = Identity.of(found, found_processor, name)
        plain = public_name(name or identity.model) or type(found).__name__
        settings = [identity.weights[:12], identity.processor[:12], (alignment_hash(alignment) or "")[:12]]
        # MTEB keeps results by name and revision: another model must not be taken for this one
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": plain if "/" in plain else f"csmae/{plain}",
                "revision": "-".join(filter(None, settings)),
                "modalities": ["image"],
                "similarity_fn_name": "cosine",
                "framework": ["PyTorch"],
            }
        )
        self._corpus: Dataset | None = None

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Take the tiles to search."""
        self._corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Any = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Find the nearest tiles to each query: similarities by tile, by query.

        Raises:
            ValueError: The task is none of `cross_sensor_task`, or asks to rank a choice of tiles again.
        """
        sensors = hf_subset.split("_to_")
        if self._corpus is None or top_ranked is not None or len(sensors) != 2:
            raise ValueError(
                f"The subset {hf_subset!r} is no direction of a task of `cross_sensor_task`, such as s1_to_s2."
            )
        query, archive = (
            self._embed(tiles, sensor, encode_kwargs)
            for tiles, sensor in zip((queries, self._corpus), sensors, strict=True)
        )
        ids = self._corpus[ID][:]
        similarities, ranking = nearest_tiles(query, archive, min(top_k, len(ids)), self.device)
        return {
            name: {ids[place]: float(value) for place, value in zip(found, values, strict=True)}
            for name, found, values in zip(queries[ID][:], ranking, similarities, strict=True)
        }

    def _embed(self, tiles: Dataset, sensor: str, encode_kwargs: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        if self.archive is not None:
            if sensor not in self.archive.sensors:
                raise ValueError(f"The archive has the sensors {', '.join(self.archive.sensors)}, not {sensor}.")
            rows = torch.from_numpy(self.archive.rows_of(tiles[ID][:]))
            return numpy_array(self.archive.vectors[sensor][rows])
        embeds = embed_dataset(
            self.model,  # type: ignore[arg-type]
            self.processor,
            tiles.rename_column("image", sensor),
            sensor,
            batch_size=encode_kwargs.get("batch_size", 64),
            device=self.device,
            num_workers=self.num_workers,
            progress=encode_kwargs.get("show_progress_bar", True),
            suspect=self.suspect,
        )
        return self.alignment.apply(embeds, sensor)


def nearest_tiles(
    query: np.ndarray[Any, Any], archive: np.ndarray[Any, Any], k: int, device: str | None = None
) -> tuple[np.ndarray[Any, Any], IntArray]:
    """As `csmae_hf.search.nearest.top_k`, but each similarity is lower than the one before by a bit at least.

    So whoever sorts by them, in float32 too, gets this order. Of ties they differ from the true ones in the seventh decimal.
    """
    similarities, ranking = top_k(query, archive, k, device=device)
    for place in range(1, similarities.shape[1]):
        below = np.nextafter(similarities[:, place - 1], np.float32(-2))
        similarities[:, place] = np.minimum(similarities[:, place], below)
    return similarities, ranking


def judgements(
    query_ids: list[str], archive_ids: list[str], query_labels: BoolArray, archive_labels: BoolArray
) -> dict[str, dict[str, int]]:
    """By query, gains (`trec.gains`) of the tiles that are relevant; 0 of one tile where none is."""
    packed = PackedLabels.of(archive_labels)
    everything = PackedLabels(packed.words[None], packed.sizes[None])
    found = {}
    for row, query in enumerate(query_ids):
        one = PackedLabels.of(query_labels[row : row + 1])
        values = gains(one.shared(everything)[0])
        places = np.flatnonzero(values)
        judged = {archive_ids[place]: int(values[place]) for place in places}
        found[query] = judged or {archive_ids[0]: 0}  # MTEB leaves out queries without a judgement
    return found


def _images(tiles: Dataset, sensor: str) -> Dataset:
    """Tiles as MTEB takes them: id, and the sensor's pixels as `image`; with their units, where these are known."""
    columns = [name for name in (ID, sensor, units_column(sensor)) if name in tiles.column_names]
    return tiles.select_columns(columns).rename_column(sensor, "image")


def _first(found: Mapping[str, float], places: Mapping[str, int], query: str) -> list[int]:
    """The archive rows of the first results in trec_eval's order; a ValueError where there are fewer."""
    order = sorted(found, key=lambda name: (np.float32(found[name]), name), reverse=True)[:RESULTS]
    if len(order) < RESULTS:
        raise ValueError(f"The model found {len(order)} tiles for the query {query}: expected {RESULTS} or more.")
    return [places[name] for name in order]


def _metadata(benchmark: Benchmark, repository: str, revision: str) -> TaskMetadata:
    kind = "generated scenes, which say nothing of real land: " if benchmark.generated else ""
    known = _BIGEARTHNET if official_of(benchmark.tiles) else {}
    return TaskMetadata(
        name=benchmark.task,
        description=(
            f"Retrieval within and across sensors on {benchmark.name}, {kind}{benchmark.queries.labelled} queries of the "
            f"{benchmark.query_split} split search {benchmark.archive.labelled} tiles of the {benchmark.archive_split} split; a tile "
            "is relevant by the number of land-cover classes that it shares with the query."
        ),
        dataset={"path": repository, "revision": revision},
        type="Any2AnyRetrieval",
        category="i2i",
        modalities=["image"],
        eval_splits=[benchmark.archive_split],
        eval_langs={f"{query}_to_{archive}": _LANGUAGE for query, archive in benchmark.directions},
        main_score=f"ndcg_at_{RESULTS}",
        domains=["Scene"],
        task_subtypes=["Scene recognition"],
        dialect=[],
        bibtex_citation="",
        **known,
    )
