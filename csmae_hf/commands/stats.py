"""Estimate mean and standard deviation of every band of an archive.

Estimate mean and standard deviation of every band over a split of an archive, in one pass and at the model's size, and save them
with an image processor (preprocessor_config.json).
"""

import argparse
from pathlib import Path
from typing import Any

from .options import add_image_options, add_overwrite, add_suspect, image_options, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command line is made of."""
    parser.add_argument("data", help="archive, folder or table of image files, or a dataset saved with save_to_disk")
    parser.add_argument("output", type=Path, help="folder for preprocessor_config.json; not that of a trained model")
    add_overwrite(parser, "the preprocessor_config.json that the folder holds")
    parser.add_argument("--split", default="train", help="split, or 'all' (default: %(default)s)")
    parser.add_argument("--subset", help="BEN-14K or BEN-270K (default: all tiles of the split)")
    parser.add_argument("--metadata", help="metadata table of the archive, where it does not lie beside the LMDB")
    parser.add_argument("--splits", help="folder of train.csv, val.csv and test.csv (v1), where not beside the LMDB")
    parser.add_argument("--missing", choices=["error", "drop"], default="error", help="as of run_pretraining.py")
    parser.add_argument(
        "--processor", help="folder or Hub id of a processor that says bands, size and units (default: the paper's)"
    )
    add_image_options(parser)
    add_suspect(parser)
    parser.add_argument("--batch_size", type=int, default=64, help="tiles worked on at once (default: %(default)s)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read tiles (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Estimate statistics and save them."""
    from datasets import load_from_disk

    from csmae_hf.data.load import load_data
    from csmae_hf.data.statistics import estimate_statistics, format_statistics
    from csmae_hf.data.units import with_units
    from csmae_hf.files import refuse_existing
    from csmae_hf.sample.shipped import model_place
    from image_processing_csmae import CSMAEImageProcessor

    weights = sorted(path.name for path in arguments.output.glob("*.safetensors"))
    if weights:
        raise ValueError(
            f"{arguments.output} holds a model ({weights[0]}), trained with the statistics it has; others would change its embeds. "
            "Give another folder."
        )
    refuse_existing(arguments.output / "preprocessor_config.json", overwrite=arguments.overwrite)
    before = CSMAEImageProcessor()
    if arguments.processor:
        before = CSMAEImageProcessor.from_pretrained(model_place(arguments.processor))
    said = image_options(arguments)
    if (Path(arguments.data) / "state.json").is_file():
        for name in ("bands", "level", "pair"):
            if name in said:
                raise ValueError(f"{arguments.data} is a saved dataset, and --{name} is for image files: leave it out.")
        dataset: Any = with_units(load_from_disk(arguments.data), said.get("units", {}))
    else:
        options = {name: getattr(arguments, name) for name in ("subset", "metadata", "splits", "missing")}
        dataset = load_data(arguments.data, arguments.split, **options, **said)
    options = {name: getattr(arguments, name) for name in ("batch_size", "num_workers", "suspect")}
    after = estimate_statistics(
        dataset, before, sensors=list(said["sensors"]) if "sensors" in said else None, **options
    )
    after.save_pretrained(arguments.output)
    say(f"{format_statistics(after, before)}\nSaved to {arguments.output / 'preprocessor_config.json'}.")
