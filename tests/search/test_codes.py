"""Codes of vectors, against plain numpy; and search by them, against exact search."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from search.clouds import make_vectors
from search.conformance import check_all, make_parts

from csmae_hf.search import nearest
from csmae_hf.search.build_index import build_index, open_index
from csmae_hf.search.codes import KINDS, Codes, decode, encode
from csmae_hf.search.codes_index import CodesIndex
from csmae_hf.search.exact import ExactIndex
from csmae_hf.search.vectors import Vectors

ROWS = 2000


@pytest.fixture(scope="module")
def parts():
    return make_parts(ROWS)


def awkward_rows(width):
    """Unit rows: ordinary, of one number, of wildly different sizes, and one that is the mean itself."""
    rng = np.random.default_rng(width)
    rows = rng.normal(size=(40, width))
    rows[1], rows[1, 0] = 0, -1
    rows[2] *= 10.0 ** -np.arange(width)
    rows[3] = 1
    return torch.from_numpy((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))


@pytest.mark.parametrize("width", [1, 13, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_those_of_plain_numpy_and_no_score_is_off_by_more_than_their_error(kind, width):
    vectors = awkward_rows(width)
    center = vectors[3].clone()
    codes, scales, errors = encode(vectors, kind, center)
    rest = vectors.numpy().astype(np.float64) - center.numpy().astype(np.float64)
    expected = {
        "float16": lambda: rest,
        "int8": lambda: [
            row if not row.any() else np.round(row / abs(row).max() * 127) * abs(row).max() / 127 for row in rest
        ],
        "bits": lambda: [[(1 if value >= 0 else -1) * abs(row).mean() for value in row] for row in rest],
    }[kind]()
    decoded = decode(codes, scales, kind, width).numpy()
    np.testing.assert_allclose(decoded, expected, atol=1e-3 if kind == "float16" else 1e-6)
    assert codes.shape == (40, -(-width // 8) if kind == "bits" else width)
    queries = torch.nn.functional.normalize(torch.cat([vectors, torch.from_numpy(rest - decoded).float()]))
    off = (
        queries.double().numpy() @ vectors.double().numpy().T
        - queries.double().numpy() @ center.double().numpy()[:, None]
    )
    off -= (queries @ torch.from_numpy(decoded).T).numpy()
    assert (abs(off) <= errors.numpy() + 1e-12).all()
    assert errors.max() < {"float16": 1e-3, "int8": 0.05, "bits": 2}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_adding_and_removing_change_no_other_code(kind, parts):
    vectors = Vectors([parts[0]["s2"]])
    whole = Codes.of(vectors, kind)
    some = CodesIndex(Vectors([vectors[:1500]]), kind)
    before = some.codes.codes.clone()
    more = some.add(vectors, parts[1])
    assert torch.equal(some.codes.codes, before)
    assert torch.equal(more.codes.codes[:1500], before)
    assert torch.equal(more.codes.codes[1500:], encode(vectors[1500:], kind, some.codes.center)[0])
    rows = np.arange(0, ROWS, 3)
    rest = np.setdiff1d(np.arange(ROWS), rows)
    less = more.remove(vectors.select(rest), rows)
    assert torch.equal(less.codes.codes, more.codes.codes[torch.from_numpy(rest)])
    assert len(more.codes) == ROWS
    size = whole.codes.nbytes + whole.scales.nbytes
    assert size / (ROWS * 4) == {"float16": 33, "int8": 17, "bits": 3}[kind], "of 64 numbers of float32"


@pytest.mark.parametrize("kind", KINDS)
def test_codes_conform_and_are_stored(kind, parts, tmp_path):
    vectors, tiles = parts
    sides = {sensor: Vectors([rows[:700], rows[700:]]) for sensor, rows in vectors.items()}
    index, recall = build_index("codes", "s2", sides, tiles, kind=kind)
    assert len(recall) == 8
    assert all(item.recall >= 0.95 for item in recall)
    entry = index.write(tmp_path, "s2")
    described = {"backend": "codes", "parameters": index.parameters, "file": entry.name}
    opened = open_index(described, tmp_path, sides["s2"], tiles)
    assert torch.equal(opened.codes.codes, index.codes.codes)
    assert index.codes.error <= opened.codes.error <= 1.001 * index.codes.error
    for ours, theirs in zip(opened.search(vectors["s1"][:9], 10), index.search(vectors["s1"][:9], 10), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    check_all(opened, ROWS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_called_exact_is(kind, parts):
    """Also where hundreds of rows are nearer to each other than codes can tell."""
    rng = np.random.default_rng(0)
    near = parts[0]["s2"][:1] + 1e-4 * torch.from_numpy(rng.normal(size=(300, 64))).float()
    rows = torch.nn.functional.normalize(torch.cat([parts[0]["s2"], near, near[:80]]))
    index, exact = CodesIndex(Vectors([rows]), kind), ExactIndex(Vectors([rows]))
    proven = 0
    for query in torch.cat([make_vectors(60, "s1", seed=5), near[:5]]):
        found, truth = index.search(query[None], 5), exact.search(query[None], 5)
        if found.exact:
            proven += 1
            np.testing.assert_array_equal(found.rows, truth.rows)
            np.testing.assert_array_equal(found.scores, truth.scores)
    assert not index.search(near[:1], 5).exact, "more equals than candidates"
    assert proven >= {"float16": 55, "int8": 30, "bits": 0}[kind]


def test_many_candidates_are_ranked_a_few_queries_at_a_time(parts, monkeypatch):
    index, queries = CodesIndex(Vectors([parts[0]["s2"]]), "bits", candidates=8), parts[0]["s1"][:40]
    expected = index.search(queries, 50)
    most, taken = 2 * 400 * 64, []
    monkeypatch.setattr(nearest, "_RERANK_NUMBERS", most)
    take = Vectors.__getitem__
    monkeypatch.setattr(Vectors, "__getitem__", lambda self, rows: taken.append(take(self, rows)) or taken[-1])
    np.testing.assert_array_equal(index.search(queries, 50).rows, expected.rows)
    assert [part.shape for part in taken] == [(2, 400, 64)] * 20


def test_wrong_options_and_wrong_files_are_named(parts, tmp_path):
    vectors, tiles = parts
    side = Vectors([vectors["s2"]])
    with pytest.raises(ValueError, match="Unknown kind of codes 'int4': expected one of float16, int8, bits"):
        build_index("codes", "s2", {"s2": side}, tiles, kind="int4")
    with pytest.raises(ValueError, match="candidates=0 of codes"):
        build_index("codes", "s2", {"s2": side}, tiles, candidates=0)
    index = CodesIndex(side)
    name = index.write(tmp_path, "s2").name
    content = load_file(tmp_path / name)

    def opens(vectors=side, kind="int8", **changed):
        save_file({key: value for key, value in (content | changed).items() if value is not None}, tmp_path / name)
        described = {"backend": "codes", "parameters": {"kind": kind, "candidates": 2}, "file": name}
        return open_index(described, tmp_path, vectors, tiles)

    opens()
    with pytest.raises(ValueError, match="holds codes of other vectors"):
        opens(Vectors([vectors["s1"]]))
    with pytest.raises(ValueError, match="holds codes of other vectors"):
        opens(codes=content["codes"].flip(0))
    with pytest.raises(ValueError, match="holds codes of other vectors"):
        opens(scales=content["scales"] * float("nan"))
    with pytest.raises(ValueError, match=r"expected .* float16 codes of 2000 vectors of width 64"):
        opens(kind="float16")
    with pytest.raises(ValueError, match="int8 codes of 2000 vectors"):
        opens(scales=content["scales"][:5])
    with pytest.raises(ValueError, match="Unknown kind of codes"):
        opens(kind="int4")
    with pytest.raises(ValueError, match="holds no codes"):
        opens(center=None)
    (tmp_path / name).write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="holds no codes"):
        open_index({"backend": "codes", "parameters": {"kind": "int8"}, "file": name}, tmp_path, side, tiles)
