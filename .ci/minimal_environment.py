"""Run in an environment that has the wheel and no extras: a model is made, saved, loaded by the Auto classes, and embeds; the one that
comes with the package loads, and finds the same place by the other sensor.

python minimal_environment.py        ends with status 1 if anything fails, and says the versions it ran with
"""

import importlib.metadata
import importlib.util
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

import csmae_hf
from csmae_hf import TINY_GENERATED, CSMAEConfig, CSMAEForPreTraining, CSMAEImageProcessor
from csmae_hf.archive.archive import Archive
from csmae_hf.data.dataset import load_bigearthnet
from csmae_hf.sample.generate import generate_sample

OPTIONAL = ("matplotlib", "rasterio", "shapely", "sklearn", "faiss", "gradio", "pytest")
SHOWN = (
    "torch",
    "transformers",
    "huggingface-hub",
    "datasets",
    "accelerate",
    "safetensors",
    "numpy",
    "lmdb",
    "pyarrow",
)

logging.basicConfig(level=logging.INFO, format="%(message)s")


def check(condition: bool, message: str) -> None:
    """End with a message where something is not so."""
    if not condition:
        sys.exit(f"minimal environment: {message}")


def make_tile(processor: CSMAEImageProcessor) -> dict[str, np.ndarray]:
    """Bands of one tile, full size, seeded."""
    generator = np.random.default_rng(0)
    tile = {band: generator.normal(-15, 3, (120, 120)).astype(np.float32) for band in processor.sensors["s1"]}
    return tile | {band: generator.integers(50, 4000, (120, 120), dtype=np.uint16) for band in processor.sensors["s2"]}


def check_shipped_model() -> None:
    """Search generated scenes across sensors by the model that comes with the package, without any network."""
    model = AutoModel.from_pretrained(TINY_GENERATED).eval()
    processor = AutoImageProcessor.from_pretrained(TINY_GENERATED)
    with tempfile.TemporaryDirectory() as folder:
        tiles = load_bigearthnet(generate_sample(Path(folder, "tiles"), tiles=30, seed=5))
        archive = Archive.build(model, processor, tiles, progress=False)
        hits = archive.search(tiles["id"], sensor="s1", archive_sensor="s2", k=5, include_self=True)
    twins = sum(name in found for name, found in zip(hits.queries, hits.ids, strict=True)) / len(tiles)
    check(twins > 0.3, f"the shipped model finds {twins:.0%} of the places by the other sensor; by chance it were 17 %")


def main() -> None:
    """Make, save, load, embed, train a step, and start the command."""
    installed = [name for name in OPTIONAL if importlib.util.find_spec(name)]
    check(not installed, f"{', '.join(installed)} should not be installed here")
    here = Path(csmae_hf.__file__).resolve()
    check("site-packages" in here.parts, f"csmae_hf is imported from {here.parent}, not from the installed wheel")
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "multi_sensor_encoder_depth": 1,
        "cross_sensor_encoder_depth": 1,
    }
    small |= {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    model = CSMAEForPreTraining(CSMAEConfig.for_variant("sesd", **small)).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        CSMAEImageProcessor().save_pretrained(folder)
        encoder, processor = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
        again = AutoModelForPreTraining.from_pretrained(folder)
    tile = make_tile(processor)
    inputs = processor(s1=[tile, tile], s2=[tile, tile])
    with torch.no_grad():
        found, expected = encoder(**inputs).embeds, model.csmae(**inputs).embeds
    for sensor, embeds in expected.items():
        check(
            torch.equal(found[sensor], embeds) and bool(embeds.std() > 0.01), f"other embeds of {sensor} after loading"
        )
    loss = again.train()(**inputs).loss
    loss.backward()
    check(bool(torch.isfinite(loss)), "the loss is not finite")
    check_shipped_model()
    csmae = Path(sys.executable).parent / "csmae"
    for arguments in (["--help"], ["doctor"]):
        run = subprocess.run([str(csmae), *arguments], capture_output=True, text=True, check=False)
        check(run.returncode == 0, f"csmae {' '.join(arguments)} ended with {run.returncode}: {run.stdout}{run.stderr}")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN)
    logging.info("A model loads, embeds and learns without extras: %s", versions)


if __name__ == "__main__":
    main()
