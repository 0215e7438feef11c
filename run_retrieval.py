"""Measure content-based retrieval within and across sensors: S1 to S1, S1 to S2, S2 to S1, S2 to S2.

    python run_retrieval.py runs/demo
    python run_retrieval.py runs/sesd --data BigEarthNet --query_split validation --archive_split test --k 10
    python run_retrieval.py runs/seed42 runs/seed43 runs/seed44        mean and spread over trainings

Queries are one split, the archive is another; relevance is by shared land-cover labels. Prints precision, recall and both
definitions of F1 at k beside a random order of the same archive, and writes tables and pictures.
"""

import argparse
import logging
import sys
from dataclasses import fields

from csmae_hf.retrieval.run import RetrievalOptions, retrieve


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; every option but the models is a field of `RetrievalOptions`."""
    default = RetrievalOptions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="folder of a trained model, or Hub id; several are compared")
    add(
        "--data",
        help="BigEarthNet LMDB, or the folder that holds it (default: the synthetic ./sample_archive, generated if absent)",
    )
    add("--metadata", help="metadata table of the archive, where it does not lie beside the LMDB")
    add("--subset", help="BEN-14K or BEN-270K (default: all tiles of the splits)")
    add("--splits", help="folder of train.csv, val.csv and test.csv (v1), where not beside the LMDB")
    missing = (
        "what to do if more than 1%% of the tiles that the metadata names are not in the LMDB (default: %(default)s)"
    )
    add("--missing", choices=["error", "drop"], default=default.missing, help=missing)
    add("--query_split", default=default.query_split, help="split of the queries, or 'all' (default: %(default)s)")
    add(
        "--archive_split", default=default.archive_split, help="split that is searched, or 'all' (default: %(default)s)"
    )
    add("--k", type=int, default=default.k, help="results per query (default: %(default)s)")
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
    add("--seed", type=int, default=default.seed, help="seed of random orders and weights (default: %(default)s)")
    return parser


def main() -> int:
    """Run from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = build_parser().parse_args()
    options = RetrievalOptions(**{entry.name: getattr(arguments, entry.name) for entry in fields(RetrievalOptions)})
    try:
        outcome = retrieve(arguments.models, options)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        logging.error("run_retrieval.py: %s", error)
        return 2
    sys.stdout.write(f"\n{outcome.table}\n\n")
    for path in outcome.files:
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
