"""Embeds from files as an encoder: read by id, and refused where they are not what they should be."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import make_dataset

from csmae_hf.archive.archive import Archive
from csmae_hf.embedding.embed import embed_dataset, embed_tiles
from csmae_hf.embedding.file_encoder import FileEncoder
from csmae_hf.embedding.foreign import encoder_pair
from csmae_hf.embedding.identity import ArchiveMismatchError

DATASET = make_dataset(8)
VECTORS = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)


def npz(path, ids=None, **arrays):
    np.savez(path, ids=np.array(DATASET["id"] if ids is None else ids), **(arrays or {"embeds": VECTORS}))
    return path


def parquet(path, name="embedding", ids="id", vectors=VECTORS):
    pq.write_table(pa.table({ids: DATASET["id"][: len(vectors)], name: [list(row) for row in vectors]}), path)
    return path


def test_tiles_get_the_vectors_of_their_ids_in_whatever_order_the_file_is(tmp_path) -> None:
    order = np.random.default_rng(1).permutation(8)
    shuffled = npz(tmp_path / "a.npz", [DATASET["id"][row] for row in order], embeds=VECTORS[order])
    named = parquet(tmp_path / "b.parquet", "clay", "tile")
    for encoder in (
        FileEncoder({"s2": shuffled}),
        FileEncoder({"s2": named}, id_column="tile", vector_column="clay"),
        FileEncoder({"s2": npz(tmp_path / "both.npz", s1=VECTORS[:, :2], s2=VECTORS), "s1": tmp_path / "both.npz"}),
    ):
        np.testing.assert_array_equal(embed_dataset(*encoder_pair(encoder), DATASET, "s2"), VECTORS)
    narrow = embed_dataset(*encoder_pair(encoder), DATASET, "s1")
    np.testing.assert_array_equal(narrow, np.pad(VECTORS[:, :2], ((0, 0), (0, 3))))


def test_no_pixel_is_read(tmp_path) -> None:
    broken = make_dataset(8, broken=[1, 2])
    embeds = embed_dataset(*encoder_pair(FileEncoder({"s2": npz(tmp_path / "a.npz")})), broken, "s2")
    np.testing.assert_array_equal(embeds, VECTORS)


def test_an_archive_of_a_file_is_searched_by_ids_and_vectors_and_refuses_images(tmp_path) -> None:
    encoder = FileEncoder({"s2": npz(tmp_path / "a.npz")})
    Archive.build(dataset=DATASET, encoder=encoder).save(tmp_path / "archive")
    archive = Archive.load(tmp_path / "archive", encoder=FileEncoder({"s2": tmp_path / "a.npz"}))
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    nearest = int(np.argsort(-(unit @ unit[2]))[1])
    assert archive.search(DATASET["id"][2], k=1).ids == [[DATASET["id"][nearest]]]
    assert archive.search(VECTORS[2], sensor="s2", k=1).ids == [[DATASET["id"][2]]]
    stack = np.stack([np.asarray(DATASET[0]["s2"][band]) for band in DATASET.features["s2"]])
    for image in (DATASET[0]["s2"], stack):
        with pytest.raises(ValueError, match="come from a file, by the ids of tiles: an image cannot be embedded"):
            archive.search(image, sensor="s2")
    other = FileEncoder({"s2": npz(tmp_path / "b.npz", embeds=VECTORS + 1)})
    with pytest.raises(ArchiveMismatchError, match="embeds_from_file"):
        Archive.load(tmp_path / "archive", encoder=other)


def test_tiles_that_the_file_lacks_are_named(tmp_path) -> None:
    pair = encoder_pair(FileEncoder({"s2": parquet(tmp_path / "a.parquet", vectors=VECTORS[:7])}))
    with pytest.raises(ValueError, match="tile tile_0007: the file has no s2 embed of it"):
        embed_dataset(*pair, DATASET, "s2")
    embeds, unreadable = embed_tiles(*pair, DATASET, ["s2"], most_unreadable=0.5)
    np.testing.assert_array_equal(embeds["s2"], VECTORS[:7])
    assert list(unreadable) == [7]


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda p: npz(p, ["a", "a"], embeds=VECTORS[:2]), {}, "1 ids more than once"),
        (lambda p: npz(p, ["a", "b"], embeds=VECTORS[:3]), {}, r"shape \(3, 5\) for 2 ids"),
        (
            lambda p: npz(p, ["a", "b"], embeds=np.array([[1, np.nan], [1, 2]])),
            {},
            "1 vectors are not finite, that of a",
        ),
        (lambda p: npz(p, ["a"], other=VECTORS[:1]), {}, "no vectors of s2 under s2, embedding.*it has ids, other"),
        (lambda p: npz(p), {"id_column": "name"}, "no ids under name: it has ids, embeds"),
        (
            lambda p: np.savez(p, ids=np.array(["a", None], object), embeds=VECTORS[:2]),
            {},
            "without running what is in it",
        ),
        (lambda p: p.with_suffix(".parquet").write_bytes(b"no"), {}, "no Parquet file"),
        (lambda p: None, {}, "No embeds of s2 at"),
    ],
)
def test_a_file_that_is_not_such_is_refused(make, options, said, tmp_path) -> None:
    make(tmp_path / "a.npz")
    path = tmp_path / "a.parquet"
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        FileEncoder({"s2": path if path.exists() else tmp_path / "a.npz"}, **options)
