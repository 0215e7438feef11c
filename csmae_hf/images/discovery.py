"""Which files of a folder make an image, of which sensor, and what it is called: by the names of files and folders.

An image is one file a band (`X_B02.tif`, or `B2.tif` in a folder of its own, or a SAFE), or one file of several bands whose
descriptions name them; such a file may hold several dates, or both sensors, and is then several images.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from csmae_hf.bigearthnet import REFERENCE_MAP_NAME, REFERENCE_MAP_SUFFIX
from csmae_hf.images.band_names import parse_descriptions
from csmae_hf.images.geotiff import BandFiles, TiffImage
from csmae_hf.images.image import Layer, list_layers, product_of, series_of
from csmae_hf.images.names import BandFile, SensorNames
from csmae_hf.images.raster import ARRAYS, SUFFIXES, RasterError, array_names, describe
from image_checks_csmae import BAND_METRES

REFERENCE_MAP = "reference_map"
"""What stands in the place of the sensor for a v2 land-cover map."""

_RESOLUTIONS = ("R10m", "R20m", "R60m")
_LOOKED_AT = 3
"""So many files of several bands are opened in a folder, to learn whether such files hold several images: they are alike as a rule."""


_LOOKED_AT_IN_ALL = 100


_Found = tuple[str, str, BandFile]  # folder, ending, what the name says


class Discovery(NamedTuple):
    """What a folder holds; paths are relative to it.

    Attributes:
        images: Sorted by sensor and name.
        ignored: Files that are of no sensor.
        sides: Files that are known to be no band, such as SCL, by what they are.
        unknown: Files named after a band with a word beside it that is not known, by this word.
        others: Files of platforms that are not Sentinel-1 or -2, and which.
    """

    images: list[TiffImage]
    ignored: list[str]
    sides: dict[str, str]
    others: dict[str, str]
    unknown: dict[str, str]


Wrong = dict[str, list[str]]
"""Takes mistakes that would else be raised one at a time: by what is wrong the files of it, relative to the folder."""


def find_images(
    folder: str | os.PathLike[str], names: SensorNames | None = None, wrong: Wrong | None = None
) -> Discovery:
    """Find the images in a folder and the folders in it, by the names of the files; no pixel is read.

    It may be BigEarthNet v1 or v2 as it is distributed; folders or prefixes for each image with a file a band, of several dates too;
    SAFE products; or one file a sensor, with the sensor (`s1`, `s2`) in its name or a folder's, or with descriptions that name the
    bands. A ValueError names an image with two files for one band, and a path with a `*`; with `wrong` they are put there instead.
    """
    root = Path(folder)
    if not root.is_dir():
        remedy = " This is a file: give the folder that it lies in, or a table of paths." if root.is_file() else ""
        raise FileNotFoundError(f"No folder {root}: expected a folder of GeoTIFFs.{remedy}")
    names = names or SensorNames()
    top = root.resolve().name
    safes: dict[tuple[str, str, str], dict[str, list[_Found]]] = {}  # whose files lie in several folders
    found, looked = Discovery([], [], {}, {}, {}), 0
    for directory, files in _walk(root):
        stacked: list[str] = []
        groups: dict[tuple[str, str, str], dict[str, list[_Found]]] = {}
        start = os.path.join(directory, "")
        of_image = os.path.dirname(directory) if os.path.basename(directory) in _RESOLUTIONS else directory
        for stem, suffix in files:
            if stem.endswith(REFERENCE_MAP_SUFFIX):
                whole = BandFiles(start + stem + suffix, (REFERENCE_MAP_NAME,))
                found.images.append(TiffImage(stem, REFERENCE_MAP, (whole,)))
                continue
            if suffix.lower() == ARRAYS:
                _add_arrays(found, root, start + stem + suffix, names)
                continue
            said = names.parse_stem(stem)
            if not isinstance(said, BandFile):
                if said.unknown:
                    found.unknown[start + stem + suffix] = said.unknown
                elif said.layer:
                    found.sides[start + stem + suffix] = said.layer
                else:
                    stacked.append(stem + suffix)
                continue
            sensor = names.sensor_of_band(said.band, start + stem, top)
            if sensor is None:
                stacked.append(stem + suffix)
                continue
            whose = safes if of_image != directory else groups
            whose.setdefault((of_image, said.image, sensor), {}).setdefault(said.band, []).append((start, suffix, said))
        _add_grouped(found, root, groups, names, wrong)
        looked += _add_stacked(found, root, directory, stacked, names, _LOOKED_AT if looked < _LOOKED_AT_IN_ALL else 0)
    _add_grouped(found, root, safes, names, wrong)
    found.images.sort(key=lambda image: (image.sensor, image.name, image.files, image.series or ""))
    return found


def _add_arrays(found: Discovery, root: Path, path: str, names: SensorNames) -> None:
    """The images of an archive of arrays: of the sensors whose bands they are named after. Of other arrays nothing is said."""
    bands = [name.band for name in parse_descriptions(array_names(root / path), names.others) if name.band]
    top, stem = root.resolve().name, os.path.splitext(os.path.basename(path))[0]
    for sensor in dict.fromkeys(names.sensor_of_band(band, path, top) for band in bands):
        if sensor is not None:
            name = names.without_sensor(stem) or os.path.basename(os.path.dirname(path)) or root.name
            found.images.append(TiffImage(name, sensor, (BandFiles(path),)))


def _add_grouped(
    found: Discovery,
    root: Path,
    groups: Mapping[tuple[str, str, str], Mapping[str, list[_Found]]],
    names: SensorNames,
    wrong: Wrong | None,
) -> None:
    """The images of files of one band, by folder, name and sensor."""
    for (directory, name, sensor), bands in groups.items():
        try:
            image = _grouped_image(root, names, directory, name, sensor, bands)
        except ValueError as error:
            if wrong is None:
                raise
            wrong[str(error)] = [
                start + said.before + said.spelled + said.after + suffix
                for several in bands.values()
                for start, suffix, said in several
            ]
            continue
        first = image.files[0].path.replace("*", image.files[0].bands[0])
        platform = _other_platform(root / first, sensor)
        if platform:
            found.others[first] = platform
        else:
            found.images.append(image)


def _other_platform(path: Path, sensor: str) -> str | None:
    """The platform of a file of BigEarthNet's sensors, where its name says that it is another's."""
    product = product_of(path)
    return product.platform if sensor in ("s1", "s2") and product.sensor not in (None, "s1", "s2") else None


def _walk(root: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Folders below a root that hold images: relative path, and (stem, suffix) of each. Links are followed, but not in circles."""

    def leads_up(path: str, real: str) -> bool:
        return os.path.islink(path) and real.startswith(os.path.realpath(path) + os.sep)

    for directory, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(directory) + os.sep
        if os.path.basename(directory) == "GRANULE" or os.path.isdir(os.path.join(directory, "IMG_DATA")):
            names[:] = [name for name in names if name != "QI_DATA"]  # masks and previews of a SAFE
        names[:] = sorted(
            name for name in names if not name.startswith(".") and not leads_up(os.path.join(directory, name), real)
        )
        found = [parts for file in sorted(files) if (parts := os.path.splitext(file))[1].lower() in (*SUFFIXES, ARRAYS)]
        if found:
            relative = os.path.relpath(directory, root)
            yield "" if relative == "." else relative, found


def _add_stacked(found: Discovery, root: Path, directory: str, files: list[str], names: SensorNames, most: int) -> int:
    """The images of files of several bands: of the sensor that the path names, or the descriptions; of dates by the descriptions.

    The first `most` files of a folder are opened, and where one of them holds several images, all; where the path names no sensor,
    the first, and if it tells one, all. Returns how many were opened.
    """
    top, several, described, looked = root.resolve().name, False, False, 0
    for number, file in enumerate(files):
        path = os.path.join(directory, file)
        _check_path(root / path)
        sensor = names.sensor_in_path(os.path.join(top, path))
        layers: list[Layer] = []
        if number < most or several or (sensor is None and (number == 0 or described)):
            looked += 1
            layers = _named_layers(root / path, names)
        of_sensor: dict[str, list[Layer]] = {}
        for layer in layers:
            if whose := names.sensor_of_band(str(layer.name.band), path, top):
                of_sensor.setdefault(whose, []).append(layer)
        if sensor is not None:
            of_sensor = {sensor: of_sensor.get(sensor, [])}
        described |= sensor is None and bool(of_sensor)
        name = names.without_sensor(os.path.splitext(file)[0]) or os.path.basename(directory) or root.name
        if not of_sensor and (platform := _other_platform(root / path, "s2")):  # SR_B2, as Landsat names bands
            found.others[path] = platform
        elif not of_sensor:
            found.ignored.append(path)
        for whose, its in of_sensor.items():
            platform = _other_platform(root / path, whose)
            if platform:
                found.others[path] = platform
                continue
            dates: list[str | None] = [*series_of(its)]
            several |= len(dates) > 1 or len(of_sensor) > 1
            found.images.extend(
                TiffImage(f"{name}_{date}" if date else name, whose, (BandFiles(path),), date)
                for date in dates or [None]
            )
    return looked


def _named_layers(path: Path, names: SensorNames) -> list[Layer]:
    """The layers of a file that name a band; none of one that cannot be read, which is said when it is."""
    try:
        return [layer for layer in list_layers(describe(path), names.others) if layer.name.band]
    except RasterError:
        return []


def _grouped_image(
    root: Path,
    names: SensorNames,
    directory: str,
    name: str,
    sensor: str,
    bands: Mapping[str, list[_Found]],
) -> TiffImage:
    """The image of files that differ in the band's name alone; of several sizes of a band, that of its own pixels."""
    by_pattern: dict[str, list[str]] = {}
    for band, files in bands.items():
        if len(files) > 1:
            sized = {one[2].metres: one for one in files if one[2].metres}
            if len(sized) < len(files):
                listed = [
                    folder + said.before + said.spelled + said.after + suffix for folder, suffix, said in files[:2]
                ]
                raise ValueError(
                    f"{root / directory / name}: more than one file for the band {band}, {' and '.join(listed)}. Keep one of them."
                )
            files = [sized[min(sized, key=lambda size: abs(size - BAND_METRES.get(band, 10)))]]
        folder, suffix, said = files[0]
        spelled = said.spelled and sys.intern(said.spelled)  # one string for a million files
        if "*" in said.before or "*" in said.after or "*" in folder:
            _check_path(root / f"{folder}{said.before}{said.after}")
        pattern = f"{folder}{said.before}{'*' if spelled else ''}{said.after}{suffix}"
        by_pattern.setdefault(pattern, []).append(spelled or band)
    holder = directory if name else os.path.dirname(directory)
    stem = name or _aws_name(directory) or os.path.basename(directory) or root.name
    patterns = tuple(BandFiles(pattern, tuple(spelled)) for pattern, spelled in sorted(by_pattern.items()))
    return TiffImage(names.without_sensor(stem) or os.path.basename(holder) or root.name, sensor, patterns)


def _aws_name(directory: str) -> str:
    """The name of an image by the folders of Sentinel-2 on AWS, `tiles/52/S/FA/2022/1/26/0`, of which the last is a mere count."""
    match = re.search(r"(?:^|/)(\d{1,2})/([C-X])/([A-Z]{2})/(\d{4})/(\d{1,2})/(\d{1,2})/(\d{1,2})$", directory)
    if match is None:
        return ""
    zone, latitude, square, year, month, day, number = match.groups()
    return f"T{zone.zfill(2)}{latitude}{square}_{year}{month.zfill(2)}{day.zfill(2)}_{number}"


def _check_path(path: Path) -> None:
    if "*" in str(path):
        raise ValueError(f"{path}: a path with * in it cannot be told from a pattern here. Rename it.")
