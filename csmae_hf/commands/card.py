"""Write the card of a model folder, or check the one it has.

Print the card that `csmae push` would publish with a model folder, or write it there. With --check compare the card of a folder with
what lies beside it: metadata as the Hub's client reads them, links, the fields of geoembeddings.org, the table of bands,
the ONNX files, and every number with results.json. Ends with status 1 if something is wrong.
"""

import argparse
import sys
from pathlib import Path

from .options import add_card_options, add_overwrite, card_options, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument("folder", type=Path, help="folder of the model: of run_pretraining.py, csmae convert or a push")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare the card that is there with the folder")
    action.add_argument("--write", action="store_true", help="write FOLDER/README.md")
    add_overwrite(parser, "the README.md that is there")
    parser.add_argument("--repository", metavar="OWNER/NAME", help="name on the Hub (default: the folder's name)")
    add_card_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print, write or check a card."""
    from csmae_hf.sample.shipped import model_place

    folder = Path(model_place(str(arguments.folder)))
    if arguments.check:
        from csmae_hf.hub.check_card import check_card

        findings = check_card(folder)
        for finding in findings:
            say(f"{'wrong' if finding.is_error else 'note'}: {finding.text}")
        errors = sum(finding.is_error for finding in findings)
        say(f"{folder / 'README.md'}: {f'{errors} to be mended' if errors else 'nothing is wrong'}.")
        return int(errors > 0)
    if arguments.write and folder != arguments.folder:
        raise ValueError(
            f"{arguments.folder} comes with the package, whose files are not written: print its card, or lay out a copy with "
            f"`csmae push {arguments.folder} OWNER/NAME --dry-run FOLDER`."
        )
    from csmae_hf.hub.publish_model import PublishOptions, card_of

    name = arguments.repository or folder.resolve().name
    card = card_of(folder, name, PublishOptions(**card_options(arguments)))
    if arguments.write:
        from csmae_hf.files import refuse_existing, write_atomically

        path = folder / "README.md"
        if not path.is_file() or path.read_bytes() != card.encode():
            refuse_existing(path, overwrite=arguments.overwrite)
        write_atomically(path, card)
        say(f"Written: {path}")
    else:
        sys.stdout.write(card)
    return 0
