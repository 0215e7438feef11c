"""A store of generated scenes, laid out like BigEarthNet v2 (reBEN) as `rico-hdl` encodes it. The scenes are synthetic.

It exists so that everything of this package can be tried, tested and demonstrated without a download. A result measured on it says
that the software works, and nothing about real imagery.
"""

import functools
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from csmae_hf.bigearthnet import METADATA_NAME, STORE_NAME
from csmae_hf.data.codecs import encode_safetensors
from csmae_hf.data.metadata import METADATA_SCHEMA
from csmae_hf.data.store import write_store
from csmae_hf.files import staged_folder
from csmae_hf.sample.scenes import MAX_TILES, make_scene

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

GENERATOR_VERSION: int = 1
"""Version of the scenes: raised whenever the same seed gives other bytes."""

MANIFEST_NAME: str = "sample.json"
"""File that says that the sample is synthetic and how it was made."""

_NOTE = b"csmae_hf.sample"
"""Key of the note in the schema of a sample's metadata."""

_SPLITS_OF_FIVE = ("train", "train", "train", "validation", "test")

_README = """# Synthetic sample

**These images are not satellite images.** They are generated scenes: land-cover maps drawn at random and rendered as Sentinel-1
backscatter and Sentinel-2 digital numbers by `csmae_hf.sample.generate`, version {version} of the generator, with {parameters}.
Names, countries and dates are made up; any likeness of a name to a real product is chance.

The layout is that of BigEarthNet v2 (reBEN) encoded by rico-hdl, so it takes the same road as real data:

* `{store}/`: LMDB store; one value (safetensors) for each Sentinel-1 and each Sentinel-2 image
* `{metadata}`: names, labels (19 classes), split (train / validation / test), country, snow and cloud flags
* `{manifest}`: how the sample was made

Results measured on it show that the software works. They say nothing about real imagery, and must not be compared with published
numbers.
"""


def split_of(seed: int, index: int) -> str:
    """Say which split scene `index` belongs to: of every five in a row, three "train", one "validation", one "test"."""
    rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(0, index // 5)))
    return _SPLITS_OF_FIVE[int(rng.permutation(5)[index % 5])]


def _make_entry(index: int, *, seed: int, snow: float, cloud: float) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Generate one scene: its row of metadata, and the store's two items."""
    scene = make_scene(seed, index, snow=snow, cloud=cloud)
    row = {
        "patch_id": scene.plan.patch_id,
        "labels": list(scene.labels),
        "split": split_of(seed, index),
        "country": scene.plan.acquisition.country,
        "s1_name": scene.plan.s1_name,
        "s2v1_name": scene.plan.s2v1_name,
        "contains_seasonal_snow": scene.plan.snow > 0,
        "contains_cloud_or_shadow": scene.plan.cloud > 0,
    }
    return row, [
        (scene.plan.s1_name, encode_safetensors(scene.s1)),
        (scene.plan.patch_id, encode_safetensors(scene.s2)),
    ]


def _entries(parameters: dict[str, Any], processes: int) -> Iterator[tuple[dict[str, Any], list[tuple[str, bytes]]]]:
    """Generate all scenes in order, in this process or in several."""
    make = functools.partial(_make_entry, **{name: parameters[name] for name in ("seed", "snow", "cloud")})
    indices = range(parameters["tiles"])
    if processes == 1:
        yield from map(make, indices)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(make, indices, chunksize=8)


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a sample says of itself (`sample.json`): synthetic, about, generator, generator_version, parameters."""
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: {folder} holds no generated scenes. Make some with `csmae sample {folder}`."
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): give another folder, or remove this one if it is a sample."
        ) from error
    return content


def is_generated(data: str | os.PathLike[str] | None) -> bool | None:
    """Say whether data, as named on a command line, are generated scenes; None where they are not there to be looked at.

    A sample is known by what lies in its folder and not by its name: the manifest, which is in the store too, or a note in the
    metadata, so that neither a copy of the store nor one of both without the rest passes for satellite images. Where no data are named
    (None), [`default_sample`] is what is taken.
    """
    if data is None:
        return True
    place = Path(data)
    if not place.exists():
        return None
    folders = (place, place.resolve().parent)
    if any((folder / MANIFEST_NAME).is_file() for folder in (*folders, place / STORE_NAME)):
        return True
    return any(_says_generated(folder / METADATA_NAME) for folder in folders)


def are_generated(dataset: "Dataset") -> bool | None:
    """Say whether tiles of a dataset lie in a store of generated scenes; None where none is there to look at. No pixels are read."""
    from csmae_hf.data.pixel_column import pixel_columns, sources_of  # it imports datasets, and so pandas

    stores: set[str] = set()
    for name in pixel_columns(dataset):
        stored = dataset.select_columns([name]).with_format("arrow")[:].column(name)
        stores.update(source[1] for source in sources_of(stored) if source is not None and len(source) > 1)
    found = {is_generated(store) for store in stores}
    return True if True in found else False if False in found else None


def _says_generated(path: Path) -> bool:
    """Whether a table of metadata is that of a sample."""
    try:
        return path.is_file() and _NOTE in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _holds_the_same(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether the folder already holds this very sample; False where there is nothing, an error where there is something else."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give the name of a folder that does not exist yet.")
    if not any(folder.iterdir()):
        return False
    if not (folder / MANIFEST_NAME).is_file():
        raise FileExistsError(
            f"{folder} exists and holds something else than generated scenes; nothing was written. Give another folder."
        )
    found = read_manifest(folder)
    if found != manifest:
        held, asked = (
            f"generator version {each.get('generator_version')} "
            f"({', '.join(f'{name}={value}' for name, value in each.get('parameters', {}).items())})"
            for each in (found, manifest)
        )
        raise FileExistsError(
            f"{folder} holds generated scenes of {held}, asked for are {asked}; nothing was written. "
            "Give another folder, or remove this one first."
        )
    missing = [name for name in (STORE_NAME, METADATA_NAME) if not (folder / name).exists()]
    if missing:
        raise FileExistsError(
            f"{folder} is incomplete: {', '.join(missing)} missing. Remove the folder and generate it again."
        )
    return True


def generate_sample(
    folder: str | os.PathLike[str],
    *,
    tiles: int = 1000,
    seed: int = 42,
    snow: float = 1.0,
    cloud: float = 0.02,
    processes: int = 1,
) -> Path:
    """Generate a store of synthetic Sentinel-1 / Sentinel-2 pairs, with its metadata.

    It appears at `folder` when it is complete, and not before. The bytes of every tile depend on `seed`, `snow`, `cloud` and the
    tile's number alone (and, in the last bits, on the processor's own arithmetic), so a larger sample begins with the tiles of a
    smaller one.

    Args:
        folder: Where to put it; it must not exist, be empty, or hold the same sample already.
        tiles: Number of pairs, at least 5.
        seed: Seed of everything drawn.
        snow: Factor on the share of winter scenes under snow, 0 to 1; 0 for none. Such rows are flagged in the metadata.
        cloud: Share of scenes with clouds, 0 to 1. Such rows are flagged in the metadata.
        processes: Worker processes; more than one needs the caller's module to be importable (`if __name__ == "__main__"`).

    Returns:
        The folder.

    Raises:
        ValueError: If an argument is out of range.
        FileExistsError: If the folder holds something else; nothing is ever overwritten.
    """
    if not 5 <= tiles <= MAX_TILES:
        raise ValueError(f"tiles must be between 5 (so that every split has one) and {MAX_TILES}, got {tiles}.")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}.")
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}.")
    for name, share in (("snow", snow), ("cloud", cloud)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} must be between 0 and 1, got {share}.")
    folder = Path(folder)
    manifest = {
        "synthetic": True,
        "about": "Generated scenes, not satellite images: made by csmae_hf.sample.generate to try and test the software.",
        "generator": "csmae_hf.sample.generate",
        "generator_version": GENERATOR_VERSION,
        "parameters": {"tiles": int(tiles), "seed": int(seed), "snow": float(snow), "cloud": float(cloud)},
    }
    if _holds_the_same(folder, manifest):
        logger.info("%s already holds these generated scenes", folder)
        return folder
    if folder.exists():
        folder.rmdir()  # it is empty
    with staged_folder(folder) as partial:
        _write(partial, manifest, processes)
    logger.info("%d generated scenes (synthetic) written to %s", tiles, folder)
    return folder


def _write(folder: Path, manifest: dict[str, Any], processes: int) -> None:
    """Write the store, the metadata, the manifest and the note into an existing folder."""
    parameters = manifest["parameters"]
    rows: list[dict[str, Any]] = []

    def items() -> Iterator[tuple[str, bytes]]:
        for row, values in _entries(parameters, processes):
            rows.append(row)
            yield from values

    write_store(folder / STORE_NAME, items(), total=2 * parameters["tiles"])
    rows.sort(key=lambda row: row["patch_id"])
    schema = METADATA_SCHEMA.with_metadata({_NOTE: b"generated scenes, not satellite images"})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / METADATA_NAME)
    note = _README.format(
        version=GENERATOR_VERSION,
        parameters=", ".join(f"{name} = {value}" for name, value in parameters.items()),
        store=STORE_NAME,
        metadata=METADATA_NAME,
        manifest=MANIFEST_NAME,
    )
    (folder / "README.md").write_text(note, encoding="utf-8")
    for place in (folder, folder / STORE_NAME):
        (place / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
