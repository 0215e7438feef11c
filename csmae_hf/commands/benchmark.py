"""Lay out a benchmark for the Hub, or check whether results are an entry.

Retrieval across sensors as a benchmark that others enter: on BigEarthNet by its official lists, or on any data with splits and labels.
"""

import argparse
from pathlib import Path

from .options import IntermixedParser, add_overwrite, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=IntermixedParser)
    description = (
        "Write the files of a dataset repository: eval.yaml, by which the Hub knows a benchmark, a card, and the names and classes of "
        "the tiles. No pixels are read or written."
    )
    write = verbs.add_parser("write", help="write eval.yaml, card and lists of tiles", description=description)
    write.add_argument("data", help="BigEarthNet v1 or v2 as an LMDB, or a folder of GeoTIFFs, with splits and labels")
    write.add_argument("out", type=Path, metavar="OUT", help="folder of the files")
    write.add_argument("--repository", metavar="OWNER/NAME", required=True, help="name that it is to have on the Hub")
    write.add_argument("--name", help="what it is called (default: the official list that the tiles are)")
    write.add_argument("--subset", help="BEN-14K or BEN-270K (default: all tiles)")
    write.add_argument("--metadata", help="metadata of the tiles, where it is not beside them")
    write.add_argument("--splits", help="split lists, where they are not beside the tiles (BigEarthNet v1)")
    write.add_argument(
        "--missing", choices=("error", "drop"), default="error", help="if over 1%% of listed tiles are missing"
    )
    write.add_argument("--license", metavar="ID", help="licence of the repository (default: none is claimed)")
    add_overwrite(write, "a benchmark that lies at OUT")
    write.set_defaults(act=run_write)
    description = (
        "Say whether results of run_retrieval.py are an entry of a benchmark: its tiles and protocol, where the numbers come from, "
        "and the means made again of the scores of the queries. Ends with status 1 if they are not."
    )
    check = verbs.add_parser("check", help="say whether results are an entry", description=description)
    check.add_argument("results", type=Path, help="results.json of run_retrieval.py, or its folder")
    check.add_argument(
        "benchmark",
        nargs="?",
        help="BEN-14K, BEN-270K, BigEarthNet-v1, BigEarthNet-v2, or a folder of `write` (default: the official list of the results)",
    )
    check.add_argument(
        "--entries", type=Path, metavar="FILE", help="write the entry there, for .eval_results of a model"
    )
    check.add_argument("--repository", metavar="OWNER/NAME", help="name of the benchmark on the Hub, for --entries")
    add_overwrite(check, "the file of --entries")
    check.set_defaults(act=run_check)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked."""
    status: int = arguments.act(arguments)
    return status


def run_write(arguments: argparse.Namespace) -> int:
    """Write the files of a benchmark."""
    from csmae_hf.data.load import load_data
    from csmae_hf.evaluation.benchmark import Benchmark
    from csmae_hf.hub.benchmarks import write_benchmark
    from csmae_hf.sample.generate import is_generated

    read = {name: getattr(arguments, name) for name in ("subset", "metadata", "splits", "missing")}
    tiles = load_data(arguments.data, "all", **read)
    name = arguments.name or arguments.subset
    benchmark = Benchmark.of(tiles, name=name, generated=is_generated(arguments.data))
    options = {name: getattr(arguments, name) for name in ("repository", "license", "overwrite")}
    folder = write_benchmark(tiles, benchmark, arguments.out, **options)
    say(
        f"{folder}: {benchmark.name}, {benchmark.queries.labelled} queries, archive of {benchmark.archive.labelled}. To publish it: "
        f"hf upload {arguments.repository} {folder} --repo-type dataset"
    )
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Check results, and write the entry."""
    import json

    from csmae_hf.evaluation.benchmark import OFFICIAL, OWN_NAME, measured_benchmark
    from csmae_hf.evaluation.submission import check_submission
    from csmae_hf.files import refuse_existing, write_atomically
    from csmae_hf.hub.benchmarks import benchmark_entries, check_repository, entries_text, read_benchmark

    if arguments.entries:
        if not arguments.repository:
            raise ValueError("--entries needs --repository OWNER/NAME: an entry names the benchmark on the Hub.")
        check_repository(arguments.repository)
        refuse_existing(arguments.entries, overwrite=arguments.overwrite)
    path = arguments.results / "results.json" if arguments.results.is_dir() else arguments.results
    if not path.is_file():
        raise FileNotFoundError(f"No results at {path}: expected the results.json of run_retrieval.py.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    if arguments.benchmark:
        benchmark = read_benchmark(arguments.benchmark)
    else:
        benchmark = measured_benchmark(document)
        if benchmark.name == OWN_NAME:
            raise ValueError(
                f"{path} was measured on none of the official lists ({', '.join(OFFICIAL)}): name what it is to be an entry of."
            )
    refusals = check_submission(document, benchmark)
    for refusal in refusals:
        say(f"{refusal.kind}: {refusal.text}")
    say(f"{path}: {'no' if refusals else 'an'} entry of {benchmark.name}.")
    if arguments.entries and not refusals:
        entries = benchmark_entries(document, benchmark, arguments.repository)
        write_atomically(arguments.entries, entries_text(entries))
        say(f"{arguments.entries}: to be put into .eval_results/ of the model's repository.")
    return int(bool(refusals))
