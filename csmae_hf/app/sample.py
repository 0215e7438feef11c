"""The explorer where nothing is named: generated tiles, and a small model trained on them. Also what a Space shows."""

import logging
from pathlib import Path
from typing import Any

from csmae_hf.app.explorer import Explorer
from csmae_hf.app.opening import open_explorer

logger = logging.getLogger(__name__)

FOLDER = Path("sample_explorer")
"""Where the sample, its model, its evaluation and its archive are kept, in the working folder; made once."""

TILES = 300
NOTICE = (
    "These tiles are generated, and the model is small and was trained on them for a short time: this shows how the page "
    "works, not how well CSMAE retrieves."
)

TRAINING: dict[str, Any] = {
    "variant": "sesd",
    "model_overrides": '{"hidden_size": 96, "num_attention_heads": 4, "multi_sensor_encoder_depth": 2, '
    '"cross_sensor_encoder_depth": 1, "decoder_hidden_size": 48, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4}',
    "num_train_epochs": 20,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
    "warmup_steps": 0.05,
    "max_grad_norm": 1,
    "precision": "fp32",
    "eval_strategy": "no",
    "save_strategy": "no",
    "seed": 42,
}
"""As `configs/demo.yaml`, for fewer tiles."""


def sample_explorer(folder: Path = FOLDER, tiles: int = TILES, **training: Any) -> Explorer:
    """Make the sample with everything that the page shows, or open it where it was made before.

    Args:
        folder: Where it is kept.
        tiles: Tiles to generate.
        **training: Arguments of `run_pretraining.py` in place of those of `TRAINING`.

    Returns:
        The explorer.
    """
    archive, results = folder / "archive", folder / "results"
    if not (archive / "archive.json").is_file():
        _make(folder, tiles, {**TRAINING, **training})
    return open_explorer(
        str(archive), model=str(folder / "model"), data=str(folder / "tiles"), results=str(results), notice=NOTICE
    )


def _make(folder: Path, tiles: int, training: dict[str, Any]) -> None:
    from csmae_hf.archive.archive import Archive
    from csmae_hf.data.load import ALL_TILES, load_data
    from csmae_hf.embedding.encoder import load_encoder
    from csmae_hf.evaluation.retrieval_options import RetrievalOptions
    from csmae_hf.evaluation.run import retrieve
    from csmae_hf.sample.generate import generate_sample
    from csmae_hf.training.arguments import parse_arguments
    from csmae_hf.training.pretrain import pretrain

    logger.warning(
        "No archive was named: generating %d tiles and training a small model in %s; this is done once, and takes minutes.",
        tiles,
        folder,
    )
    data, model_folder = folder / "tiles", folder / "model"
    generate_sample(data, tiles=tiles, seed=0)
    if not (model_folder / "model.safetensors").is_file():
        options = {"data": data, "output_dir": model_folder, **training}
        pretrain(*parse_arguments([word for name, value in options.items() for word in (f"--{name}", str(value))]))
    model, processor = load_encoder(str(model_folder))
    dataset = load_data(str(data), ALL_TILES)
    archive = Archive.build(model, processor, dataset, model_name=str(model_folder), source={"data": str(data)})
    retrieve(
        [str(model_folder)],
        RetrievalOptions(data=str(data), output_dir=str(folder / "results"), pictures=0, resamples=0),
    )
    archive.save(folder / "archive")  # last: where it is, all is
