"""Make a model folder of a checkpoint of the original CSMAE code.

Make a from_pretrained folder of a checkpoint of the original CSMAE code. Variant and sizes are read from the weights; where the
YAML says otherwise, that is reported and the weights are followed. The checkpoint is loaded weights-only: nothing in it is run.
If anything in it does not fit, all of it is listed and nothing is written.
"""

import argparse
from pathlib import Path

from .options import add_overwrite, say, sensor_bands


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument(
        "checkpoint", type=Path, help="Lightning checkpoint or bare state dict, with or without decoders"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    add_overwrite(parser, "a folder that was converted before")
    parser.add_argument(
        "--config", type=Path, metavar="YAML", help="the run's args.yaml: masking, losses, heads (default: as released)"
    )
    parser.add_argument(
        "--num-attention-heads",
        type=int,
        metavar="N",
        help="heads of the encoder (default: the YAML's, else 3, 6, 12 or 16 for a width of 192, 384, 768 or 1024)",
    )
    parser.add_argument(
        "--decoder-num-attention-heads",
        type=int,
        metavar="N",
        help="heads of the decoder (default: the YAML's, else 16 for a width of 512)",
    )
    parser.add_argument(
        "--bands",
        type=sensor_bands,
        action="append",
        metavar="SENSOR=B1,B2",
        help="bands of a sensor in the order of the input channels, such as s2=B04,B03,B02; needed where the weights do not "
        "take the usual 2 of s1 and 10 of s2; repeat for the other sensor",
    )


def run(arguments: argparse.Namespace) -> None:
    """Convert a checkpoint."""
    from csmae_hf.hub.convert import REPORT_FILE, convert_checkpoint

    options = {
        name: getattr(arguments, name)
        for name in ("config", "num_attention_heads", "decoder_num_attention_heads", "overwrite")
    }
    sensors = dict(arguments.bands) if arguments.bands else None
    folder = convert_checkpoint(arguments.checkpoint, arguments.out, sensors=sensors, **options)
    say(f"Converted {arguments.checkpoint}: {folder} (how: {folder / REPORT_FILE})")
