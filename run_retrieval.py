"""Measure content-based retrieval within and across sensors: S1 to S1, S1 to S2, S2 to S1, S2 to S2.

    python run_retrieval.py runs/demo
    python run_retrieval.py runs/sesd --data BigEarthNet --query_split validation --archive_split test --k 10
    python run_retrieval.py runs/seed42 runs/seed43 runs/seed44        mean and spread over trainings of one model
    python run_retrieval.py runs/sesd runs/cecd                        two models: differences with their intervals
    python run_retrieval.py runs/sesd --encoder my_encoders:rgb_vit    a model and an encoder of your own
    accelerate launch run_retrieval.py runs/sesd --data BigEarthNet    all GPUs embed
    python run_retrieval.py runs/sesd --data BigEarthNet --probe --alignment none

Queries are one split, the archive is another; relevance is by shared land-cover labels. Prints precision, recall, both definitions
of F1, mAP, NDCG and ACG at k beside baselines (a random order, the untrained model, band statistics, the labels known), and what
alignments of the sensors, fitted and chosen on training pairs, give. Writes tables, pictures and report.html. Embeds are kept in the
output folder: a run that was stopped goes on there.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import csmae_doctor  # it imports nothing heavy: an interrupt of the imports is answered, too


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; every option but the models is a field of `RetrievalOptions`."""
    from dataclasses import fields
    from typing import get_args

    from csmae_hf.data.image_options import Words
    from csmae_hf.evaluation.retrieval_options import RetrievalOptions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="folder of a trained model, or Hub id; several are compared (none is needed with --encoder)",
    )
    for option in fields(RetrievalOptions):
        kind, text = option.type.__origin__, option.type.__metadata__[0]  # type: ignore[union-attr]
        if kind is bool:
            action = argparse.BooleanOptionalAction if option.default else "store_true"
            parser.add_argument(f"--{option.name}", action=action, default=option.default, help=text)
            continue
        if kind == Words:
            parser.add_argument(f"--{option.name}", action="append", default=option.default, help=text)
            continue
        is_number = kind in (int, int | None)
        choices = None if is_number or kind in (str, str | None) else get_args(kind)  # of a Literal
        text += "" if option.default is None else " (default: %(default)s)"
        parser.add_argument(
            f"--{option.name}", type=int if is_number else str, default=option.default, choices=choices, help=text
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    first = int(os.environ.get("RANK", "0")) == 0  # of the processes that accelerate launches, one speaks
    ending = csmae_doctor.load_commands("ending")
    ending.log_to_terminal(logging.INFO if first else logging.CRITICAL)
    return int(ending.run_to_end("run_retrieval.py", run, argv))


def run(words: list[str]) -> None:
    """Evaluate as the command line says."""
    given = vars(build_parser().parse_args(words))
    from accelerate import PartialState

    from csmae_hf.evaluation.retrieval_options import RetrievalOptions
    from csmae_hf.evaluation.run import retrieve

    models, options = given.pop("models"), RetrievalOptions(**given)
    outcome = retrieve(models, options)
    if outcome is not None:
        sys.stdout.write(f"\n{outcome.table}\n\n")
        for path in outcome.files:
            sys.stdout.write(f"{path}\n")
    PartialState().destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
