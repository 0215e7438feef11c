"""What several verbs share: options, their values, and how results are printed."""

import argparse
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

from .ending import visible

if TYPE_CHECKING:
    from csmae_hf.data.store_writer import WriteReport

logger = logging.getLogger(__name__)

STORE_HELP = "the LMDB folder, or a folder that holds one"
OUT_HELP = "folder of the archive: new, or begun by the same command"

_LISTED = 20


class IntermixedParser(argparse.ArgumentParser):
    """Takes positional arguments together, wherever options stand between them; so one may be left out."""

    _inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See `argparse`."""
        if self._inside:  # called by what is called below
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False


def take_negative_lists(parser: argparse.ArgumentParser) -> None:
    """Let `-9.5,38,-9,39` be a value, as `-9.5` is by itself, and no option."""
    parser._negative_number_matcher = re.compile(r"-[.\d]")  # argparse has no public way


def say(text: object) -> None:
    """Print a result."""
    sys.stdout.write(f"{visible(text)}\n")


def add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--overwrite`; without it no command replaces what lies at its output."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}; it is refused otherwise")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add `--workers`."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes; 0 for none besides this one (default: one a processor)"
    )


def add_archive(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add an archive that may lie on the Hub, and where its model and its tiles are."""
    where = "folder of the archive, or hub:NAME of a dataset repository"
    parser.add_argument("archive", metavar="ARCHIVE", **{**options, "help": where + options.get("help", "")})
    add_model(parser)
    parser.add_argument("--data", help="the tiles, for pictures, where they are not where the archive says")
    parser.add_argument("--exact", action="store_true", help="search exactly, whatever the archive's index")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add `--model`, for an archive."""
    parser.add_argument("--model", help="folder or Hub name of the model, where it is not where the archive says")
    add_encoder(parser)
    add_trust(parser)


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add `--encoder`."""
    parser.add_argument(
        "--encoder",
        metavar="MODULE:FACTORY",
        help="in the place of a model an encoder of any kind, made by this function of yours; see docs/encoders.md",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust-remote-code`, in Transformers' spelling, too."""
    text = "run the code that a model of another kind brings along; read it first"
    parser.add_argument("--trust-remote-code", "--trust_remote_code", action="store_true", help=text)


def model_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What an archive is opened with, of the options of `add_model`."""
    from csmae_hf.embedding.encoder import load_encoder

    trust = {"trust_remote_code": arguments.trust_remote_code}
    if arguments.encoder:
        if arguments.model:
            raise ValueError("--model and --encoder were given: expected one of them.")
        return trust | dict(zip(("model", "processor"), named_encoder(arguments.encoder), strict=True))
    if not arguments.model:
        return trust
    return trust | dict(zip(("model", "processor"), load_encoder(arguments.model, **trust), strict=True))


def named_encoder(place: str) -> tuple[Any, Any]:
    """The model and the processor of an encoder that `--encoder` names."""
    from csmae_hf.embedding.foreign import encoder_pair, load_factory

    return encoder_pair(load_factory(place), place)


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add what the publisher of a model says of it; [`card_options`] reads it."""
    parser.add_argument(
        "--results", metavar="FILE", help="results.json of run_retrieval.py (default: FOLDER/results.json)"
    )
    parser.add_argument("--license", metavar="ID", help="the weights' licence, such as mit (default: none is claimed)")
    parser.add_argument("--provider", metavar="NAME", help="who made the model (default: the repository's owner)")
    parser.add_argument(
        "--datasets", nargs="*", default=[], metavar="ID", help="data sets it was trained on, by Hub name"
    )
    parser.add_argument(
        "--base-model", metavar="ID", help="model that it was made from, by Hub name (default: what its run says)"
    )


def card_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_card_options` was given, as fields of `PublishOptions`."""
    names = ("results", "license", "provider", "base_model")
    return {"datasets": tuple(arguments.datasets), **{name: getattr(arguments, name) for name in names}}


def add_image_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add options by which a person says what image files do not say; [`image_options`] reads them.

    Their help is that of `csmae_hf.data.image_options`, which is not imported here: that takes seconds.
    """
    texts = {
        "bands": (
            "SENSOR=B1,B2",
            "bands of files that do not name them, in the order of the file, such as s1=VV,VH; repeatable",
        ),
        "units": (
            "SENSOR=UNIT",
            "what pixels are in where the files do not say it, such as s2=dn+1000 or s1=linear; of some tiles, such as "
            "'s2=dn+1000 from 2022-01-25' (from DATE, before DATE, of PATTERN; docs/units.md); repeatable",
        ),
        "level": ("LEVEL", "L1C to take Sentinel-2 Level-1C, which is refused otherwise"),
        "sensors": (
            "S1,S2",
            "sensors to use, such as s1,s2 (default: all); others with their bands, such as thermal=T10,T11; repeatable",
        ),
        "pair": (
            "PATTERN",
            "what is a pair of images, where names differ in more than the sensor, such as 'ROIs*_{sensor}_*'; see docs/tiles.md",
        ),
    }
    for name, (metavar, text) in texts.items():
        if name in names or not names:
            action = "store" if name in ("level", "pair") else "append"
            parser.add_argument(f"--{name}", action=action, metavar=metavar, help=text)


def add_suspect(parser: argparse.ArgumentParser) -> None:
    """Add `--suspect`, the same wherever pixels are used."""
    text = (
        "what to do about images that look wrong by a guess: refuse them, leave them out, up to 1%% of all, or accept "
        "them as they are"
    )
    choices = ("refuse", "leave-out", "accept")
    parser.add_argument("--suspect", choices=choices, default="leave-out", help=f"{text} (default: %(default)s)")


def image_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_image_options` was given, as arguments of `load_data`."""
    from csmae_hf.data.image_options import read_image_options

    return read_image_options(vars(arguments))


def split_names(text: str) -> list[str]:
    """Names with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; expected names with commas between them")
    return names


def sensor_bands(text: str) -> tuple[str, list[str]]:
    """A sensor and its bands, of a text such as `s2=B04,B03,B02`."""
    sensor, separator, bands = text.partition("=")
    names = [band.strip() for band in bands.split(",")]
    if not separator or not sensor.strip() or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form s2=B04,B03,B02")
    return sensor.strip(), names


def say_what_was_written(report: "WriteReport", done: str) -> int:
    """Say what a verb has done, and give its exit status: 1 if something could not be stored."""
    from csmae_hf.data.store_writer import FAILURES_NAME

    for failure in report.failures[:_LISTED]:
        logger.error("%s: %s", failure.key, failure.reason)
    if len(report.failures) > _LISTED:
        logger.error("... and %d more.", len(report.failures) - _LISTED)
    say(f"{report.folder}: {report.written} images {done}, {report.present} were there already.")
    if report.failures:
        path = report.folder / FAILURES_NAME
        message = "%d could not be %s: see %s. Put them right and run the same command again."
        logger.error(message, len(report.failures), done, path)
    return 1 if report.failures else 0
