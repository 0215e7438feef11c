"""Measure content-based retrieval within and across sensors: S1 to S1, S1 to S2, S2 to S1, S2 to S2.

    python run_retrieval.py runs/demo
    python run_retrieval.py runs/sesd --data BigEarthNet --query_split validation --archive_split test --k 10
    python run_retrieval.py runs/seed42 runs/seed43 runs/seed44        mean and spread over trainings
    accelerate launch run_retrieval.py runs/sesd --data BigEarthNet    all GPUs embed
    python run_retrieval.py runs/sesd --data BigEarthNet --probe --alignment none

Queries are one split, the archive is another; relevance is by shared land-cover labels. Prints precision, recall, both definitions
of F1, mAP, NDCG and ACG at k beside a random order of the same archive, and what alignments of the sensors, fitted on training
pairs, give. Writes tables, pictures and report.html. Embeds are kept in the output folder: a run that was stopped goes on there.
"""

import argparse
import logging
import os
import sys
from dataclasses import fields

from accelerate import PartialState

from csmae_hf.evaluation.options import RetrievalOptions
from csmae_hf.evaluation.run import retrieve


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; every option but the models is a field of `RetrievalOptions`."""
    default = RetrievalOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="folder of a trained model, or Hub id; several are compared")
    add(
        "--data",
        help="BigEarthNet LMDB, or the folder that holds it, or a folder of GeoTIFF tiles (default: the synthetic ./sample_archive, "
        "generated if absent)",
    )
    add("--metadata", help="metadata table of the archive, where it does not lie beside the LMDB")
    add("--subset", help="BEN-14K or BEN-270K (default: all tiles of the splits)")
    add("--splits", help="folder of train.csv, val.csv and test.csv (v1), where not beside the LMDB")
    missing = (
        "what to do if more than 1%% of the tiles that the metadata names are not in the LMDB (default: %(default)s)"
    )
    add("--missing", choices=["error", "drop"], default=default.missing, help=missing)
    unusable = "what to do about tiles that cannot be embedded, after all others were (default: %(default)s)"
    add("--unusable", choices=["error", "skip"], default=default.unusable, help=unusable)
    add("--query_split", default=default.query_split, help="split of the queries, or 'all' (default: %(default)s)")
    add(
        "--archive_split", default=default.archive_split, help="split that is searched, or 'all' (default: %(default)s)"
    )
    add("--k", type=int, default=default.k, help="results per query (default: %(default)s)")
    add("--sensors", help="sensors to measure, with commas between (default: all that model and archive have)")
    alignment = (
        "none, center, whiten or procrustes, or several with commas between: the best on validation tiles is used "
        "(default: auto, which compares all)"
    )
    add("--alignment", default=default.alignment, help=alignment)
    pairs = "the most training tiles that alignments are fitted on (default: %(default)s)"
    add("--alignment_pairs", type=int, default=default.alignment_pairs, help=pairs)
    add("--probe", action="store_true", help="also classify with a linear probe and k-NN on frozen embeds")
    add("--cache_dir", help="where embeds are kept (default: embeds in the output folder)")
    add("--output_dir", default=default.output_dir, help="where tables and pictures go (default: %(default)s)")
    add("--max_tiles", type=int, help="use the first so many tiles of each split only")
    add("--batch_size", type=int, default=default.batch_size, help="tiles of a forward pass (default: %(default)s)")
    add("--num_workers", type=int, default=default.num_workers, help="processes that read tiles (default: %(default)s)")
    add("--device", help="where to embed: cpu, cuda, ... (default: a GPU if there is one)")
    add("--untrained", action="store_true", help="also measure the same model with random weights")
    add(
        "--pictures",
        type=int,
        default=default.pictures,
        help="queries in each picture, 0 for none (default: %(default)s)",
    )
    resamples = "resamples of the queries for confidence intervals, 0 for none (default: %(default)s)"
    add("--resamples", type=int, default=default.resamples, help=resamples)
    add("--seed", type=int, default=default.seed, help="seed of random orders and weights (default: %(default)s)")
    return parser


def main() -> int:
    """Run from the command line."""
    arguments = build_parser().parse_args()
    first = int(os.environ.get("RANK", "0")) == 0  # of the processes that accelerate launches, one speaks
    logging.basicConfig(level=logging.INFO if first else logging.CRITICAL, format="%(message)s")
    options = RetrievalOptions(**{entry.name: getattr(arguments, entry.name) for entry in fields(RetrievalOptions)})
    try:
        outcome = retrieve(arguments.models, options)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        logging.error("run_retrieval.py: %s", error)
        return 2
    if outcome is not None:
        sys.stdout.write(f"\n{outcome.table}\n\n")
        for path in outcome.files:
            sys.stdout.write(f"{path}\n")
    PartialState().destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
