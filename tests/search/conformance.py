"""What every index must do, whichever it is; also run by itself where an index lives in a process of its own.

python conformance.py milvus --uri http://127.0.0.1:19530
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

sys.path.insert(0, str(Path(__file__).parent))
from clouds import make_tiles, make_vectors

from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.filter_language import mask_of, parse_filter
from csmae_hf.search.index import Selection
from csmae_hf.search.recall import BUCKET, LEAST_RECALL, measure_recall, with_buckets
from csmae_hf.search.vectors import Vectors

FILTERS = [
    "country = 'Austria'",
    "country != 'Austria'",
    "country = 'O''Brien \"x\" \\'",
    "country = 'ünï\nx'",
    "country = '' or country > 'B'",
    "not country in ('Austria', '')",
    "elevation < 9.5 and elevation != 3",
    "not (snow = true or number >= 60)",
    "date >= '2017-01-02' and date < '2017-01-03T12:00:00'",
    "labels = 'a' and labels != 'b'",
    "labels not in ('a', 'b')",
    "labels in ('a', 'c') and number < 300",
    "elevation in (1, 2.5)",
    "number in (5, 6.0, 6.5)",
    "number = 6.5",
    "number < 10.5 and number > 2.5 and number != 4.5 or number >= 1e4",
    "country = 'nowhere'",
    "elevation is null or country is null",
    "labels is not null and not date <= '2017-01-03'",
    "date in ('2017-01-02', '2017-01-05') and elevation not between 2 and 5",
]
"""Narrow and wide, over every kind of column, with values that would be dangerous if they were not escaped."""


def make_parts(rows):
    vectors = {sensor: make_vectors(rows, sensor) for sensor in ("s1", "s2")}
    tiles = make_tiles(rows)
    return vectors, with_buckets(tiles, tiles.column("id").to_pylist())


def check_recall(index, exact, vectors, tiles, queries=60):
    """Recall at 10 in both directions, without a filter and with three; returns it."""
    own = np.linspace(0, tiles.num_rows - 1, queries).astype(np.int64)
    asked = {sensor: rows[torch.from_numpy(own)] for sensor, rows in vectors.items()}
    recall = measure_recall(index, exact, asked, "s2", tiles, own)
    assert len(recall) == 8
    assert [round(item.kept / tiles.num_rows, 3) == item.share or item.share < 1 for item in recall] == [True] * 8
    assert all(item.recall >= LEAST_RECALL for item in recall), recall
    return recall


def check_filters(index, exact, queries, tiles):
    """Every result fulfils the filter, and for the filters here none is missed."""
    schema = pa.schema([field for field in tiles.schema if field.name != BUCKET])
    for text in FILTERS:
        where = parse_filter(text, schema)
        selection = Selection(where, np.flatnonzero(mask_of(where, tiles)))
        found, truth = index.search(queries, 10, selection), exact.search(queries, 10, selection)
        assert set(found.rows.ravel()) - {-1} <= set(selection.rows), text
        overlap = np.mean([np.isin(mine, best).mean() for mine, best in zip(found.rows, truth.rows, strict=True)])
        assert overlap >= LEAST_RECALL, (text, overlap)
        same = found.rows == truth.rows
        np.testing.assert_array_equal(found.scores[same], truth.scores[same], err_msg=text)


def check_changes(index, vectors, tiles):
    """Rows taken out are not found, rows put in are, and the others have moved up; gives the index of the last."""
    half = np.arange(0, tiles.num_rows, 2)
    rest = np.setdiff1d(np.arange(tiles.num_rows), half)
    left = Vectors([vectors[torch.from_numpy(rest)]])
    index = index.remove(left, half)
    found = index.search(vectors[torch.from_numpy(rest[:20])], 1)
    assert found.rows[:, 0].tolist() == list(range(20))
    missing = index.search(vectors[torch.from_numpy(half[:20])], 1)
    assert (missing.scores < 0.99999).all()
    back = torch.from_numpy(half)
    index = index.add(left.extend(Vectors([vectors[back]])), tiles.take(pa.array(half)))
    again = index.search(vectors[back[:20]], 1)
    assert again.rows[:, 0].tolist() == list(range(len(rest), len(rest) + 20))
    return index


def check_sizes(index, queries, tiles):
    """More than there is, and nothing at all."""
    found = index.search(queries[:2], tiles.num_rows + 5)
    assert found.rows.shape == (2, tiles.num_rows + 5)
    assert (found.rows[:, -5:] == -1).all()
    assert np.isneginf(found.scores[:, -5:]).all()
    counted = (found.rows >= 0).sum(axis=1)
    assert (counted == tiles.num_rows).all() or not found.exact
    assert index.search(queries[:0], 3).rows.shape == (0, 3)


def check_all(index, rows):
    vectors, tiles = make_parts(rows)
    exact = ExactIndex(Vectors([vectors["s2"]]))
    recall = check_recall(index, exact, vectors, tiles)
    check_filters(index, exact, vectors["s1"][:8], tiles)
    check_sizes(index, vectors["s1"], tiles)
    return recall, check_changes(index, vectors["s2"], tiles)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", choices=["milvus"])
    parser.add_argument("--uri", required=True)
    parser.add_argument("--rows", type=int, default=3000)
    arguments = parser.parse_args()
    from csmae_hf.search.milvus_index import MilvusIndex

    start = time.perf_counter()
    vectors, tiles = make_parts(arguments.rows)
    index = MilvusIndex(Vectors([vectors["s2"]]), tiles, arguments.uri)
    built = time.perf_counter()
    recall, index = check_all(index, arguments.rows)
    again = MilvusIndex(index.vectors, index.tiles, arguments.uri, collection=index.collection)
    assert again.search(vectors["s1"][:3], 5).rows.tolist() == index.search(vectors["s1"][:3], 5).rows.tolist()
    lowest = min(item.recall for item in recall)
    index.client.drop_collection(index.collection)
    seconds = f"built in {built - start:.1f} s, checked in {time.perf_counter() - built:.1f} s"
    sys.stdout.write(f"server {index.client.get_server_version()}: recall {lowest:.3f} or more; {seconds}\n")


if __name__ == "__main__":
    main()
