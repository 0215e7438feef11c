"""What a retrieval evaluation can be asked for, in Python and, option by option, on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from csmae_hf.data.image_options import HELP, Words
from csmae_hf.data.load import Missing
from csmae_hf.data.suspects import Suspect
from csmae_hf.evaluation.alignment_choice import AUTO

Text = str | None
Number = int | None


@dataclass(frozen=True)
class RetrievalOptions:
    """How to evaluate. Each field is an option of `run_retrieval.py`, whose help is the text beside the field's type."""

    data: Annotated[
        Text,
        "BigEarthNet LMDB, or the folder that holds it, or a folder of GeoTIFF tiles (default: the synthetic ./sample_archive, "
        "generated if absent)",
    ] = None
    metadata: Annotated[Text, "metadata table of the archive, where it does not lie beside the LMDB"] = None
    subset: Annotated[Text, "BEN-14K or BEN-270K (default: all tiles of the splits)"] = None
    splits: Annotated[Text, "folder of train.csv, val.csv and test.csv (v1), where not beside the LMDB"] = None
    missing: Annotated[
        Missing, "what to do if more than 1%% of the tiles that the metadata names are not in the LMDB"
    ] = "error"
    unusable: Annotated[
        Literal["error", "skip"], "what to do about tiles that cannot be embedded, after all others were"
    ] = "error"
    suspect: Annotated[Suspect, HELP["suspect"]] = "leave-out"
    query_split: Annotated[str, "split of the queries, or 'all'"] = "validation"
    archive_split: Annotated[str, "split that is searched, or 'all'"] = "test"
    folds: Annotated[
        Text,
        "for small sets: deal the tiles of both splits by scenes into so many folds, and search each in all the others; "
        "5x3 deals three times, `scene` makes one fold a scene",
    ] = None
    k: Annotated[int, "results per query"] = 10
    sensors: Annotated[Words, HELP["sensors"]] = None
    bands: Annotated[Words, HELP["bands"]] = None
    units: Annotated[Words, HELP["units"]] = None
    level: Annotated[Text, HELP["level"]] = None
    pair: Annotated[Text, HELP["pair"]] = None
    alignment: Annotated[
        str,
        "none, center, whiten or procrustes, or several with commas between: the best by cross-fitting on training tiles is used; "
        "auto compares all",
    ] = AUTO
    alignment_pairs: Annotated[int, "the most training tiles that alignments are fitted on"] = 4096
    trust_remote_code: Annotated[bool, "run the code that a model of another kind brings along; read it first"] = False
    encoder: Annotated[
        Words,
        "an encoder of any kind, made by this function of yours, such as my_encoders:rgb_vit, compared with the models; repeatable "
        "(docs/encoders.md)",
    ] = None
    pairs_curve: Annotated[
        Text,
        "also fit each alignment on so many training pairs, such as 16,64,256: gap between the sensors before and after, F1 across",
    ] = None
    probe: Annotated[bool, "also classify with a linear probe and k-NN on frozen embeds (needs the extra `probe`)"] = (
        False
    )
    cache_dir: Annotated[Text, "where embeds are kept (default: embeds in the output folder)"] = None
    output_dir: Annotated[str, "where tables and pictures go"] = "runs/retrieval"
    overwrite: Annotated[bool, "replace what the output folder holds of other models or data"] = False
    max_tiles: Annotated[Number, "use so many tiles of each split only, evenly spread over it"] = None
    batch_size: Annotated[int, "tiles of a forward pass"] = 64
    num_workers: Annotated[int, "processes that read tiles"] = 0
    device: Annotated[Text, "where to embed: cpu, cuda, ... (default: a GPU if there is one)"] = None
    untrained: Annotated[bool, "also measure the same model with random weights, which embeds all tiles once more"] = (
        True
    )
    pictures: Annotated[int, "queries in each picture and of each direction in the report, 0 for none"] = 6
    resamples: Annotated[int, "resamples of the queries for confidence intervals, 0 for none"] = 1000
    seed: Annotated[int, "seed of random orders, resamples and random weights"] = 0

    @property
    def cache(self) -> Path:
        """Where embeds are kept."""
        return Path(self.cache_dir) if self.cache_dir else Path(self.output_dir) / "embeds"
