"""The retrieval of every sensor by every other as a benchmark that others enter: what its entries are measured on.

A benchmark is the protocol of `evaluate` with nothing left open: which tiles are queries and which the archive, by the hash of their
names, ten results a query, and one number a direction, NDCG@10 with 2^shared labels - 1 as the gain. MTEB computes the same number of
the same embeds (`mteb_task`). F1 of means and all else that an evaluation gives stand beside it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from csmae_hf.bigearthnet import LABELS
from csmae_hf.data.labels import class_names, labels_of
from csmae_hf.embedding.provenance import hash_ids
from csmae_hf.evaluation.evaluate import ARCHIVE_SPLIT, QUERY_SPLIT
from csmae_hf.evaluation.results import provenance_of
from csmae_hf.metrics.ranking import METRICS

if TYPE_CHECKING:
    from datasets import Dataset  # at run time it would import pandas

FORMAT = "csmae-benchmark"
VERSION = 1

MAIN_SCORE = "ndcg"
"""The number of a direction that stands for it, as results call it; MTEB calls it `ndcg_at_10`."""

RESULTS = 10
"""Results of a query."""

OWN_NAME = "CrossSensorRetrieval"
"""What a benchmark on lists that are not official is called where nobody names it."""


@dataclass(frozen=True)
class TileList:
    """The tiles of a split.

    Attributes:
        count: How many.
        sha256: Of their sorted names (`hash_ids`).
        labelled: How many have labels: those that are queries or archive.
        labels: SHA-256 of the labelled tiles' names with their labels; None where it is not known.
    """

    count: int
    sha256: str
    labelled: int
    labels: str | None = None

    @classmethod
    def of(cls, ids: Sequence[str], classes: Sequence[Sequence[str]]) -> "TileList":
        """Describe N tiles by their names, and the names of the classes of each, none where they are not known."""
        labelled = [(name, names) for name, names in zip(ids, classes, strict=True) if names]
        return cls(
            len(ids), hash_ids(ids), len(labelled), hash_labels(*zip(*labelled, strict=True)) if labelled else None
        )


@dataclass(frozen=True)
class Benchmark:
    """What an entry is measured on.

    Attributes:
        name: Such as "BEN-14K".
        tiles: The tiles of each split that is known; those of queries and archive are.
        sensors: Every one is searched by every one.
        classes: Names of the classes by which tiles are relevant.
        generated: Whether the tiles are generated scenes; None where nobody knows.
        query_split: Split of the queries.
        archive_split: Split that is searched.
    """

    name: str
    tiles: Mapping[str, TileList]
    sensors: tuple[str, ...] = ("s1", "s2")
    classes: tuple[str, ...] = LABELS
    generated: bool | None = None
    query_split: str = QUERY_SPLIT
    archive_split: str = ARCHIVE_SPLIT

    @property
    def directions(self) -> list[tuple[str, str]]:
        """Sensors of queries and archive."""
        return [(query, archive) for query in self.sensors for archive in self.sensors]

    @property
    def queries(self) -> TileList:
        """The tiles that are queries."""
        return self.tiles[self.query_split]

    @property
    def archive(self) -> TileList:
        """The tiles that are searched."""
        return self.tiles[self.archive_split]

    @property
    def task(self) -> str:
        """Its name in MTEB and on the Hub, such as "BEN14KCrossSensorRetrieval": the mean over directions."""
        plain = re.sub(r"[\W_]", "", self.name, flags=re.ASCII)
        return plain if plain.endswith(OWN_NAME) else plain + OWN_NAME

    def task_id(self, query_sensor: str, archive_sensor: str) -> str:
        """A direction on the Hub, as MTEB writes it: task, subset, split."""
        return f"{self.task}_{query_sensor}_to_{archive_sensor}_{self.archive_split}"

    @classmethod
    def of(cls, dataset: "Dataset", *, name: str | None = None, generated: bool | None = None) -> "Benchmark":
        """Make a benchmark of a data set: its validation tiles search its test tiles.

        Args:
            dataset: With columns `id`, `split`, `labels` and one a sensor, as of `load_data(..., "all")`. No pixels are read.
            name: What it is called; default the official list that these tiles are, else `OWN_NAME`.
            generated: Whether its tiles are generated scenes; None where nobody knows. Those of official lists are none.

        Raises:
            ValueError: A column is missing, a split has no labelled tile, fewer than two sensors, or it is called like an official
                list and is another.
        """
        from csmae_hf.data.pixel_column import Tile

        missing = {"id", "split", "labels"} - set(dataset.column_names)
        if missing:
            raise ValueError(
                f"The data have no column {', '.join(sorted(missing))}: a benchmark needs id, split and labels; their columns are "
                f"{', '.join(dataset.column_names)}."
            )
        sensors = tuple(column for column, feature in dataset.features.items() if isinstance(feature, Tile))
        if len(sensors) < 2:
            raise ValueError(
                f"The data have the sensors {', '.join(sensors) or 'none'}: a benchmark takes two or more."
            )
        classes = class_names(dataset.features["labels"])
        if classes is None:
            raise ValueError(f"Column labels is {dataset.features['labels']}; expected ClassLabel, or a list of it.")
        table = dataset.with_format(None).select_columns(["id", "split"])[:]
        named = [[classes[number] for number in numbers] for numbers in labels_of(dataset)]
        rows: dict[str, list[int]] = {}
        for row, split in enumerate(table["split"]):
            if split is not None:
                rows.setdefault(split, []).append(row)
        tiles = {
            split: TileList.of([table["id"][row] for row in some], [named[row] for row in some])
            for split, some in sorted(rows.items())
        }
        for split in (QUERY_SPLIT, ARCHIVE_SPLIT):
            if split not in tiles or not tiles[split].labelled:
                raise ValueError(f"The data have no labelled tile of the split {split}: there is nothing to measure.")
        if tiles[ARCHIVE_SPLIT].labelled < RESULTS:
            raise ValueError(
                f"The split {ARCHIVE_SPLIT} has {tiles[ARCHIVE_SPLIT].labelled} labelled tiles; a query has {RESULTS} results."
            )
        own = cls(name or OWN_NAME, tiles, sensors, tuple(classes), generated)
        official = official_of(tiles)
        if official is None and name in OFFICIAL:
            lists = ", ".join(f"{split} {one.count}" for split, one in tiles.items())
            wanted = ", ".join(f"{split} {one.count}" for split, one in OFFICIAL[name].tiles.items())
            raise ValueError(
                f"These are not the tiles of {name}: they are {lists}; expected {wanted}, of its official lists."
            )
        return own if official is None else cls(name or official, tiles, sensors, tuple(classes), bool(generated))

    def as_dict(self) -> dict[str, Any]:
        """As JSON types."""
        score = f"{METRICS[MAIN_SCORE].column.format(k=RESULTS)}: {METRICS[MAIN_SCORE].definition}"
        return {"format": FORMAT, "version": VERSION, **asdict(self), "results": RESULTS, "main_score": score}

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> "Benchmark":
        """Read what `as_dict` gave; a ValueError where it is something else."""
        if not isinstance(held, Mapping) or (held.get("format"), held.get("version")) != (FORMAT, VERSION):
            raise ValueError(
                f"This is no benchmark of version {VERSION}: expected the benchmark.json of `csmae benchmark write`."
            )
        try:
            return cls(
                held["name"],
                {split: TileList(**one) for split, one in held["tiles"].items()},
                tuple(held["sensors"]),
                tuple(held["classes"]),
                held["generated"],
                held["query_split"],
                held["archive_split"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"This benchmark is not whole: {type(error).__name__} {error}.") from error


def hash_labels(ids: Sequence[str], classes: Sequence[Sequence[str]]) -> str:
    """SHA-256 of names of tiles with the names of their classes, whatever the order of either."""
    return hash_ids(["\t".join([name, *sorted(names)]) for name, names in zip(ids, classes, strict=True)])


def _official(name: str, **lists: tuple[int, str, str | None]) -> Benchmark:
    tiles = {split: TileList(count, ids, count, labels) for split, (count, ids, labels) in lists.items()}
    return Benchmark(name, tiles, generated=False)


OFFICIAL: dict[str, Benchmark] = {
    one.name: one
    for one in (
        _official(
            "BEN-14K",
            train=(7_761, "9c94f598c50148d4873790c2bfb655867965ce54f2fdae88d631e52a92de9fef", None),
            validation=(3_508, "b85f4f266bea0596e0fda5a267698af53d011b4acaf045ff14ba9b93e3856779", None),
            test=(3_563, "7510704a8e3a446fd00ad7fd0df575fd064623c93f9d6f1bf56bd0ec971c3fde", None),
        ),
        _official(
            "BEN-270K",
            train=(139_423, "3595349127ee572acbe2390d7eea385a8ba70ad1d453a845f0ce2a24035a3bf2", None),
            validation=(65_230, "7cf35b88f9d711fe67d11f31cb1e5e1ca1e8993f4183c98cf3c6b8ad58947ba4", None),
            test=(65_817, "68d918919ecd6566f97a03120301db1a9833cb3e880fce0ec445d33124d4e8a8", None),
        ),
        _official(
            "BigEarthNet-v1",
            train=(269_695, "6205d13983eb5a050d586d2ad8b0b346f77d40a579b295cb97c67ce8c85e5d14", None),
            validation=(123_723, "b2d177e8d04065add6fd56690e803937dc5909c8dd7ae5bfa54ad29be247bae9", None),
            test=(125_866, "18a5ab1693c8382d2701bfe87054b70ffdf03063c00e3f00c5cf377e09c892de", None),
        ),
        _official(
            "BigEarthNet-v2",
            train=(
                237_871,
                "d916666c87207ca596775be97a9bbcdf5a17f0eacb0ff94e94e6879f25633b52",
                "ee14b95f4d8bed633483fdff90cb36f481c2b84a4c0cdd4608c4f1c4684e3cf8",
            ),
            validation=(
                122_342,
                "1492d12761a0d7db5dc44fd5396b34b5769d3ef6ee9d21177f4c2b8a8d1e23ed",
                "f8049b5f34a20578204cbdb091a9436590cdd56f901f561921ebcf6b42f7143e",
            ),
            test=(
                119_825,
                "47025117b4fdb5cb8de99fcdcbe322966de252c8fbbeec8eda312955254a9e82",
                "fce7ddd9b1b05e28fc96a6adf3e71e5c62302f378821c7a772ffa27bed3daaee",
            ),
        ),
    )
}
"""The official lists: summer in Serbia, June to November, all of v1 (`csmae_hf.data.subsets`), and the first table of v2 (reBEN)."""


def official_of(tiles: Mapping[str, Any]) -> str | None:
    """The official benchmark whose queries and archive are these tiles: lists, or what a provenance says of them, by split."""

    def names(split: str) -> str | None:
        one = tiles.get(split)
        return one.get("sha256") if isinstance(one, Mapping) else getattr(one, "sha256", None)

    for name, official in OFFICIAL.items():
        splits = (official.query_split, official.archive_split)
        if all(names(split) == official.tiles[split].sha256 for split in splits):
            return name
    return None


def measured_benchmark(document: Any) -> Benchmark:
    """The benchmark that results are of by their tiles: an official one, or one on lists of their own, called `OWN_NAME`.

    Args:
        document: Content of a `results.json`.

    Raises:
        ValueError: They do not say on which tiles they were measured, or are of no splits.
    """
    try:
        record, protocol = provenance_of(document), document["protocol"]
        splits = [protocol["query_split"], protocol["archive_split"]]
        if None in splits:
            raise ValueError(
                "The results are of all tiles, or of folds: a benchmark has a split of queries and one that is searched."
            )
        if record is None or not all(split in record.tiles for split in splits):
            raise ValueError("The results do not say on which tiles of which splits they were measured: measure again.")
        official = official_of(record.tiles)
        if official is not None:
            return OFFICIAL[official]
        queries = document["queries"]
        first = next(iter(queries.values()))
        of_queries = TileList.of(first["ids"], first["classes"])
        labelled = {splits[1]: document["directions"][0]["n_archive"], splits[0]: of_queries.labelled}
        tiles = {
            split: TileList(
                one["count"],
                one["sha256"],
                labelled.get(split, one["count"]),
                of_queries.labels if split == splits[0] else None,
            )
            for split, one in record.tiles.items()
        }
        classes = sorted({name for one in queries.values() for names in one["classes"] for name in names})
        return Benchmark(OWN_NAME, tiles, tuple(queries), tuple(classes), record.generated, splits[0], splits[1])
    except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise ValueError(
            f"These are no results of run_retrieval.py, or not whole: {type(error).__name__} {error}."
        ) from error
