"""An archive of the sample's tiles with a model of random weights: everything that a page shows, made in seconds."""

from pathlib import Path

from csmae_hf import CSMAEConfig, CSMAEForPreTraining, CSMAEImageProcessor, CSMAEModel
from csmae_hf.archive.archive import Archive
from csmae_hf.data.load import load_data
from csmae_hf.sample.generate import generate_sample

TILES = 60


def make_archive(folder: Path) -> Path:
    """Tiles, model and archive in a folder; the archive's folder."""
    import torch

    torch.manual_seed(0)
    overrides = {"hidden_size": 32, "num_attention_heads": 2, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
    depths = {"multi_sensor_encoder_depth": 1, "cross_sensor_encoder_depth": 1, "decoder_num_attention_heads": 2}
    config = CSMAEConfig.for_variant("sesd", size="tiny", **overrides, **depths)
    model, processor = CSMAEForPreTraining(config).eval(), CSMAEImageProcessor()
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    generate_sample(folder / "tiles", tiles=TILES, seed=0)
    dataset = load_data(str(folder / "tiles"), "all")
    encoder = CSMAEModel.from_pretrained(folder / "model").eval()
    archive = Archive.build(
        encoder,
        processor,
        dataset,
        model_name=str(folder / "model"),
        source={"data": str(folder / "tiles")},
        progress=False,
    )
    return archive.save(folder / "archive")
