"""Small models to publish, and processes to publish them from."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from configuration_csmae import CSMAEConfig
from image_processing_csmae import CSMAEImageProcessor
from modeling_csmae import CSMAEForPreTraining

PNG = b"\x89PNG\r\n\x1a\n"


def tiny_fields(variant: str) -> dict[str, int]:
    """Fields of a model of a variant that runs in milliseconds."""
    specific = variant[0] == "s"
    return {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "multi_sensor_encoder_depth": 1 if specific else 0,
        "cross_sensor_encoder_depth": 1 if specific else 2,
        "decoder_hidden_size": 16,
        "decoder_num_attention_heads": 2,
        "decoder_num_hidden_layers": 1,
    }


def save_tiny(folder: Path, variant: str = "sesd", seed: int = 0) -> CSMAEForPreTraining:
    """Save a small model with its processor and a picture, every weight off its initial value."""
    torch.manual_seed(seed)
    model = CSMAEForPreTraining(CSMAEConfig.for_variant(variant, "tiny", **tiny_fields(variant))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    CSMAEImageProcessor().save_pretrained(folder)
    (folder / "example.png").write_bytes(PNG)  # drawing one for a card takes seconds
    return model


def run_python(
    code: str, environment: Mapping[str, str], *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
        check=False,
    )
