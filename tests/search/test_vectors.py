"""Vectors of several parts and selections of them, and search among more than memory would hold."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from csmae_hf.search import nearest as search
from csmae_hf.search import vectors
from csmae_hf.search.nearest import SCORE_ERROR, nearest
from csmae_hf.search.vectors import Vectors


def make_rows(rows, width=8, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return torch.from_numpy(values / np.linalg.norm(values, axis=1, keepdims=True))


def test_parts_and_selections_are_one_matrix():
    rng = np.random.default_rng(0)
    whole = make_rows(50)
    ours = Vectors([whole[:7], whole[7:7], whole[7:30]]).extend(Vectors([whole[30:]]))
    for _ in range(6):
        assert ours.shape == tuple(whole.shape)
        torch.testing.assert_close(ours[:], whole, rtol=0, atol=0)
        for start, stop in [(0, 3), (5, 31), (29, 30), (0, len(whole)), (4, 4), (10, 1000)]:
            torch.testing.assert_close(ours[start:stop], whole[start:stop], rtol=0, atol=0)
        index = torch.from_numpy(rng.integers(0, len(whole), (3, 4)))
        torch.testing.assert_close(ours[index], whole[index], rtol=0, atol=0)
        assert sum(len(chunk) for chunk in ours.chunks(6)) == len(whole)
        kept = np.flatnonzero(rng.random(len(whole)) < 0.8)
        ours, whole = ours.select(kept), whole[torch.from_numpy(kept)]
    empty = ours.select(np.empty(0, dtype=np.int64))
    assert empty.shape == (0, 8)
    assert empty[:].shape == (0, 8)
    torch.testing.assert_close(empty.extend(Vectors([whole]))[:], whole)
    with pytest.raises(ValueError, match="widths"):
        ours.extend(Vectors([make_rows(2, width=5)]))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_low_precision_that_would_mislead_is_noticed_and_changes_nothing(precision, monkeypatch):
    """Scores so close that rounding shuffles them all: what was found in low precision is asked again in float32."""
    monkeypatch.setattr(search, "_LOW_PRECISION_MARGIN", 5)
    center = make_rows(1, width=64)
    crowd = torch.nn.functional.normalize(center + 1e-4 * make_rows(3000, width=64, seed=1))
    asked = []
    candidates = search.best_rows
    monkeypatch.setattr(search, "best_rows", lambda *given: asked.append(given[4]) or candidates(*given))
    found = nearest(center, crowd, 10, precision=precision)
    assert asked == [precision, torch.float32]
    truth = nearest(center, crowd, 10)
    np.testing.assert_array_equal(found[1], truth[1])
    raw = (center.to(precision) @ crowd.to(precision).T).topk(10).indices
    assert set(raw[0].tolist()) != set(truth[1][0].tolist()), "else this shows nothing"
    asked.clear()
    apart = torch.eye(64)[:20]
    nearest(apart[:1], torch.cat([apart, make_rows(100, width=64)]), 1, precision=precision)
    assert asked == [precision], "where scores are far apart float32 is not asked"


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_the_error_of_low_precision_is_bounded(precision):
    for width in (16, 768):
        for sign in (1, -1):
            rows = torch.nn.functional.normalize(make_rows(300, width, seed=width) + sign)
            low = (rows.to(precision) @ rows.to(precision).T).double()
            assert (low - rows.double() @ rows.double().T).abs().max() < SCORE_ERROR[precision]


PROGRAM = """
import re, sys
from csmae_hf.archive.folder import read_vectors
from csmae_hf.search.index import Selection
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.vectors import Vectors
import numpy as np, torch

def heap():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

mapped = Vectors([read_vectors(sys.argv[1])])
index = ExactIndex(mapped)
queries = mapped[torch.tensor([5, 40_000])]
index.search(queries, 10)
before = heap()
peak = [before]
candidates = index.search(queries, 10)
peak.append(heap())
rows = np.arange(0, len(mapped), 2)
index.search(queries, 10, Selection(None, rows))
peak.append(heap())
print(max(peak) - before, candidates.rows[:, 0].tolist(), before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_searching_a_mapped_file_takes_a_chunk_of_memory(tmp_path):
    from csmae_hf.archive.folder import write_vectors

    rows, width = 60_000, 512
    part = make_rows(10_000, width)
    entry = write_vectors(tmp_path, "s2", Vectors([part] * 4 + [make_rows(rows - 40_000, width, seed=1)]))
    assert entry.size > 120e6
    program = ["-c", textwrap.dedent(PROGRAM), str(tmp_path / entry.name)]
    result = subprocess.run([sys.executable, *program], capture_output=True, text=True, check=True, timeout=120)
    grown = float(result.stdout.split()[0])
    assert grown < 70, f"{grown} MB for a file of 123 MB"
    assert "[5, 40000]" in result.stdout
    assert vectors.CHUNK_ROWS * width * 4 < 40e6
