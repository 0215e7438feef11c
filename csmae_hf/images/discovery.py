"""Which GeoTIFFs of a folder make an image, of which sensor, and what it is called: by the names of files and folders.

An image is one file a band (`X_B02.tif`, or `B2.tif` in a folder of its own), or one file of several bands whose descriptions name
them.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from csmae_hf.bigearthnet import REFERENCE_MAP_NAME, REFERENCE_MAP_SUFFIX
from csmae_hf.images.geotiff import BandFiles, TiffImage
from csmae_hf.images.names import SensorNames
from csmae_hf.images.opening import ImageFileError, open_image

REFERENCE_MAP = "reference_map"
"""What stands in the place of the sensor for a v2 land-cover map."""

_SUFFIXES = (".tif", ".tiff")


class Discovery(NamedTuple):
    """What a folder holds: its images, sorted by sensor and name, and the files that are of no sensor, relative to the folder."""

    images: list[TiffImage]
    ignored: list[str]


def find_images(folder: str | os.PathLike[str], names: SensorNames | None = None) -> Discovery:
    """Find the images in a folder and the folders in it, by the names of the files; of a file of several bands no pixel is read.

    It may be BigEarthNet v1 or v2 as it is distributed; folders or prefixes for each image with a file a band; or one file a sensor,
    with the sensor (`s1`, `s2`) in its name or a folder's, or with descriptions that name the bands. A ValueError names an image with
    two files for one band, and a path with a `*`.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}: expected a folder of GeoTIFFs.")
    names = names or SensorNames()
    top = root.resolve().name
    groups: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    images: list[TiffImage] = []
    ignored: list[str] = []
    for directory, files in _walk(root):
        stacked: list[str] = []
        for stem, suffix in files:
            parts = names.split_stem(stem)
            sensor = (
                names.sensor_of_band(names.band(parts[1]) or "", os.path.join(top, directory, stem)) if parts else None
            )
            if parts and sensor:
                group = groups.setdefault((directory, parts[0], sensor), {})
                group.setdefault(suffix, []).append(sys.intern(parts[1]))  # one string for a million files
            elif stem.endswith(REFERENCE_MAP_SUFFIX):
                whole = BandFiles(os.path.join(directory, stem + suffix), (REFERENCE_MAP_NAME,))
                images.append(TiffImage(stem, REFERENCE_MAP, (whole,)))
            else:
                stacked.append(stem + suffix)
        described: str | None = None
        for number, file in enumerate(stacked):
            path = os.path.join(directory, file)
            _check_path(root / path)
            sensor = names.sensor_in_path(os.path.join(top, path))
            if sensor is None:  # one look a folder: opening every file of a large folder would take long
                sensor = described = _described_sensor(root / path, names) if number == 0 or described else None
            name = names.without_sensor(os.path.splitext(file)[0]) or os.path.basename(directory) or root.name
            if sensor:
                images.append(TiffImage(name, sensor, (BandFiles(path),)))
            else:
                ignored.append(path)
    images += [_grouped_image(root, names, *group, by_suffix) for group, by_suffix in groups.items()]
    return Discovery(sorted(images, key=lambda image: (image.sensor, image.name, image.files)), ignored)


def _walk(root: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Folders below a root that hold TIFFs: relative path, and (stem, suffix) of each. Links are followed, but not in circles."""

    def leads_up(path: str, real: str) -> bool:
        return os.path.islink(path) and real.startswith(os.path.realpath(path) + os.sep)

    for directory, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(directory) + os.sep
        names[:] = sorted(
            name for name in names if not name.startswith(".") and not leads_up(os.path.join(directory, name), real)
        )
        found = [parts for file in sorted(files) if (parts := os.path.splitext(file))[1].lower() in _SUFFIXES]
        if found:
            relative = os.path.relpath(directory, root)
            yield "" if relative == "." else relative, found


def _grouped_image(
    root: Path, names: SensorNames, directory: str, prefix: str, sensor: str, by_suffix: Mapping[str, Sequence[str]]
) -> TiffImage:
    """The image of files that differ in the band's name alone."""
    start = os.path.join(directory, prefix)
    bands = [names.band(band) for spelled in by_suffix.values() for band in spelled]
    twice = sorted({str(band) for band in bands if bands.count(band) > 1})
    if twice:
        raise ValueError(f"{root / start}: more than one file for the band {', '.join(twice)}. Keep one of them.")
    _check_path(root / start)
    stem = prefix.rstrip("_.-") or os.path.basename(directory) or root.name
    holder = directory if prefix else os.path.dirname(directory)
    files = tuple(BandFiles(f"{start}*{suffix}", tuple(spelled)) for suffix, spelled in sorted(by_suffix.items()))
    return TiffImage(names.without_sensor(stem) or os.path.basename(holder) or root.name, sensor, files)


def _check_path(path: Path) -> None:
    if "*" in str(path):
        raise ValueError(f"{path}: a path with * in it cannot be told from a pattern here. Rename it.")


def _described_sensor(path: Path, names: SensorNames) -> str | None:
    """The sensor that the descriptions of a file's bands name."""
    try:
        with open_image(path) as source:
            sensors = {names.sensor_of_band(names.band(description) or "") for description in source.descriptions}
    except ImageFileError:
        return None
    return sensors.pop() if len(sensors) == 1 else None
