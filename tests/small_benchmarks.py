"""A benchmark of generated tiles and results of random embeds, without a model, for the tests of entries."""

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from csmae_hf.data.load import load_data
from csmae_hf.embedding.identity import Identity
from csmae_hf.embedding.provenance import Provenance, hash_ids
from csmae_hf.evaluation.benchmark import Benchmark
from csmae_hf.evaluation.evaluate import Embedded, evaluate_retrieval
from csmae_hf.evaluation.results import queries_as_dict, results_as_dict
from csmae_hf.sample.generate import generate_sample

IDENTITY = Identity("tester/model", None, "a" * 64, "b" * 64, config={"hidden_size": 8}, precision="float32", code="1")


def small_tiles(folder: Path, tiles: int = 60) -> Dataset:
    return load_data(generate_sample(folder / "sample", tiles=tiles, seed=3), "all")


def random_embeds(tiles: Dataset, seed: int = 0) -> dict[str, Embedded]:
    """Of so few values that many similarities are equal."""
    rng = np.random.default_rng(seed)
    embeds = {sensor: rng.integers(0, 2, (len(tiles), 4)).astype(np.float32) for sensor in ("s1", "s2")}
    for values in embeds.values():
        values[~values.any(axis=1), 0] = 1
    return {sensor: Embedded.from_dataset(values, tiles) for sensor, values in embeds.items()}


def small_results(tiles: Dataset, embeds: dict[str, Embedded] | None = None, **options: Any) -> dict[str, Any]:
    """What run_retrieval.py writes of embeds, unaligned."""
    embeds = embeds or random_embeds(tiles)
    used = [row for row, split in enumerate(tiles["split"]) if split != "train"]
    some = {sensor: one.take(used) for sensor, one in embeds.items()}
    results = evaluate_retrieval(some, **options)
    first = some["s1"]
    record = Provenance.about(IDENTITY, data="sample", generated=True, ids=first.ids, splits=first.splits)
    metadata = {
        "model": "tester/model",
        "data": "sample",
        "generated": True,
        "provenance": record.as_dict(),
        "skipped_tiles": 0,
        "alignment": {"method": "none"},
    }
    return results_as_dict(results, metadata, queries=queries_as_dict(results, some))


def aligned(document: dict[str, Any], tiles: Dataset) -> dict[str, Any]:
    """The results as if they were of centred embeds, fitted on the training tiles."""
    train = [name for name, split in zip(tiles["id"], tiles["split"], strict=True) if split == "train"]
    fitted_on = {"split": "train", "count": len(train), "sha256": hash_ids(train)}
    record = document["metadata"]["provenance"] | {"alignment": "center", "alignment_hash": "c" * 64}
    metadata = document["metadata"] | {
        "provenance": record,
        "alignment": {"method": "center", "n_pairs": len(train), "fitted_on": fitted_on},
    }
    return {**document, "metadata": metadata}


def small_benchmark(tiles: Dataset) -> Benchmark:
    return Benchmark.of(tiles, name="tiny", generated=True)
