"""What a retrieval evaluation can be asked for."""

from dataclasses import dataclass
from pathlib import Path

from csmae_hf.data.load import Missing
from csmae_hf.evaluation.alignment_choice import AUTO


@dataclass(frozen=True)
class RetrievalOptions:
    """How to evaluate.

    Attributes:
        data: Archive, as of `load_data`.
        subset: Subset of BigEarthNet, as of `load_bigearthnet`; None for all tiles.
        metadata: Its metadata, where not beside it.
        splits: Its split lists, where not beside it.
        missing: `"error"` or `"drop"`: what to do if more than 1 % of the named tiles are not in the LMDB.
        unusable: `"error"` or `"skip"`: what to do, after all others are embedded, about tiles that could not be.
        query_split: Split of the queries, or `all`.
        archive_split: Split that is searched, or `all`.
        sensors: Names with commas between; None for all that both model and archive have.
        k: Results per query.
        alignment: `auto`, or one or more alignments with commas between: the best on validation tiles is used.
        alignment_pairs: The most training tiles that alignments are fitted on.
        probe: Also classify with a linear probe and k-NN.
        output_dir: Where results go.
        cache_dir: Where embeds are kept; None for `embeds` in the output folder.
        max_tiles: The most tiles of each split; None for all.
        batch_size: Tiles of a forward pass.
        num_workers: Processes that read tiles.
        device: Where to embed; None for a GPU if there is one.
        untrained: Also evaluate the same model with random weights.
        pictures: Queries in each picture and of each direction in the report; 0 draws none.
        resamples: Resamples of the queries for confidence intervals; 0 makes none.
        seed: Seed of random orders, resamples and random weights.
    """

    data: str | None = None
    subset: str | None = None
    metadata: str | None = None
    splits: str | None = None
    missing: Missing = "error"
    unusable: str = "error"
    query_split: str = "validation"
    archive_split: str = "test"
    sensors: str | None = None
    k: int = 10
    alignment: str = AUTO
    alignment_pairs: int = 4096
    probe: bool = False
    output_dir: str = "runs/retrieval"
    cache_dir: str | None = None
    max_tiles: int | None = None
    batch_size: int = 64
    num_workers: int = 0
    device: str | None = None
    untrained: bool = False
    pictures: int = 6
    resamples: int = 1000
    seed: int = 0

    @property
    def cache(self) -> Path:
        """Where embeds are kept."""
        return Path(self.cache_dir) if self.cache_dir else Path(self.output_dir) / "embeds"
