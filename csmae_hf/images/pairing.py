"""Which images of several sensors go together by their names: by equal names, or by a pattern."""

import re
from collections.abc import Iterable
from os.path import splitext

from csmae_hf.images.geotiff import TiffImage

_HELP = (
    "Expected a pattern with {sensor} where the sensor's name stands and * for the rest, such as '*_{sensor}_*', or a regular "
    "expression with one group, which is alike in both names, such as '_(p[0-9]+)$'"
)


def image_path(image: TiffImage) -> str:
    """The path of an image, relative to its folder, without band and ending: what a pattern is matched with."""
    return splitext(image.files[0].path)[0].replace("*", "").rstrip("_.-/")


def pair_keys(pattern: str, images: Iterable[TiffImage], sensors: Iterable[str]) -> dict[TiffImage, str]:
    """What a pattern takes from each image's path; images of one tile have it in common.

    Args:
        pattern: With `{sensor}`: what the name, or from a `/` on the path, is but for the sensor's name; `*` stands for anything.
            Else a regular expression with one group, looked for in the path.
        images: To pair.
        sensors: Names of sensors that may stand for `{sensor}`, in upper or lower case; letters may follow (S1Hand).

    Returns:
        The key of each image that the pattern fits.

    Raises:
        ValueError: If the pattern is none, fits no image, or gives two images of a sensor one key.
    """
    images = list(images)
    placeholder = "{sensor}" in pattern
    if placeholder:
        words = "|".join(re.escape(name) for name in sorted(sensors, key=len, reverse=True))
        parts = {"{sensor}": f"(?i:{words})[A-Za-z]*?", "*": "(.*)"}
        text = "".join(parts.get(part, re.escape(part)) for part in re.split(r"(\{sensor\}|\*)", pattern))
    else:
        text = pattern
    try:
        expression = re.compile(text)
    except re.error as error:
        raise ValueError(f"pair={pattern!r} is no pattern: {error}. {_HELP}.") from error
    if not placeholder and expression.groups != 1:
        raise ValueError(f"pair={pattern!r} has {expression.groups} groups. {_HELP}.")
    keys: dict[TiffImage, str] = {}
    taken: dict[tuple[str, str], TiffImage] = {}
    for image in images:
        path = image_path(image)
        name = path if "/" in pattern or not placeholder else path.rpartition("/")[2]
        match = expression.fullmatch(name) if placeholder else expression.search(name)
        if match is None:
            continue
        key = "\0".join((*match.groups(default=""), image.series or ""))
        other = taken.setdefault((image.sensor, key), image)
        if other is not image:
            raise ValueError(
                f"pair={pattern!r} takes the same from two {image.sensor} images, {image_path(other)} and {path}: "
                f"{' '.join(match.groups(default=''))!r}. Let it take what tells tiles apart."
            )
        keys[image] = key
    if images and not keys:
        raise ValueError(
            f"pair={pattern!r} fits none of the {len(images)} images, {image_path(images[0])} for one. {_HELP}."
        )
    return keys
