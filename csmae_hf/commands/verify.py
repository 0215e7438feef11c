"""Read every value of an LMDB and report what is broken.

Read every value of an LMDB of tiles, v1 or v2, and check that it is a whole tile. Where `encode` or `transcode` wrote the
archive, each value is compared with its SHA-256 of then. The exit status is 1 if anything is broken.
"""

import argparse
from pathlib import Path

from .options import STORE_HELP, add_workers, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument("path", type=Path, metavar="LMDB", help=STORE_HELP)
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verify an LMDB."""
    from csmae_hf.data.verify import verify

    report = verify(arguments.path, workers=arguments.workers)
    for key, reason in report.broken.items():
        say(f"{key}: {reason}")
    how = f"{report.digests} of them compared with their SHA-256" if report.digests else "no digests to compare with"
    say(f"{report.store}: {report.values} values read, {how}; {len(report.broken)} broken.")
    return 1 if report.broken else 0
