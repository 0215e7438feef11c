"""The small trained model that comes with the package, so that a first search needs no training and no download.

It was trained on generated scenes (`configs/shipped.yaml`; `make shipped` makes it again) and is of no use on satellite images. Its
card, `README.md` in its folder, has what was measured.
"""

from pathlib import Path

TINY_NAME: str = "csmae-tiny-generated"
"""Its name, which commands take in place of a folder or Hub name."""

TINY_GENERATED: str = str(Path(__file__).with_name(TINY_NAME))
"""Its folder, for `from_pretrained`."""


def model_place(name: str) -> str:
    """The folder of the model that comes with the package, where it is named; any other folder or Hub name as it is."""
    return TINY_GENERATED if name == TINY_NAME and not Path(name).exists() else name
