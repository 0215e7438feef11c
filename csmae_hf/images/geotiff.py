"""GeoTIFF images: which files of a folder make an image of which sensor, and their bands, read when asked for.

An image is one file a band (`X_B02.tif`, or `B2.tif` in a folder of its own), or one file of several bands whose descriptions name
them.
rasterio is imported when the first file is opened.
"""

import json
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csmae_hf.bigearthnet import REFERENCE_MAP_NAME, REFERENCE_MAP_SUFFIX, S1_BANDS, S2_BANDS, SENSOR_OF_BAND

BAND_ORDER: dict[str, tuple[str, ...]] = {"s1": S1_BANDS, "s2": (*S2_BANDS, "B10")}
"""All bands a file may hold, by sensor; B10 is in Level-1C products alone."""

REFERENCE_MAP = "reference_map"
"""What stands in the place of the sensor for a v2 land-cover map."""

_SENSOR_OF_BAND = SENSOR_OF_BAND | {"B10": "s2"}
_SUFFIXES = (".tif", ".tiff")
_BAND_FILE = re.compile(r"(?P<prefix>(?:.*[_.\-])?)(?P<band>B\d{1,2}A?|VV|VH)", re.IGNORECASE)
_SENSOR_IN_NAME = re.compile(r"(?:^|[^a-z0-9])s([12])(?![0-9])", re.IGNORECASE)
_SENSOR_ENDING = re.compile(r"(?:^|[_.\-])s[12](?:rtc|grd|l1c|l2a)?$", re.IGNORECASE)
_SENSOR_BEGINNING = re.compile(r"^s[12][_.\-](?!.*_\d{8}T)", re.IGNORECASE)  # not the S1_... of a product's own name


class TiffError(ValueError):
    """A file is not the image it should be; the message names it and what is wrong."""


class BandFiles(NamedTuple):
    """Files, and the bands in them.

    Args:
        path: Of one file, relative to its folder or absolute; a `*` stands for the band, one file for each.
        bands: As their names are spelled in the files' names, or in the order of the bands of the one file. None for one file whose
            descriptions name them.
    """

    path: str
    bands: tuple[str, ...] = ()


class TiffImage(NamedTuple):
    """One image of one sensor, unread.

    Args:
        name: Of the image, as its files or its folder say.
        sensor: "s1" or "s2"; `REFERENCE_MAP` for a land-cover map.
        files: Where its bands lie.
    """

    name: str
    sensor: str
    files: tuple[BandFiles, ...]

    @property
    def key(self) -> str:
        """What a pixel column stores of it."""
        return json.dumps([[files.path, " ".join(files.bands)] for files in self.files])

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands the names of its files tell, in the usual order; none for a file that has to be opened for it."""
        return in_order([band for files in self.files for name in files.bands if (band := canonical_band(name))])


class Footprint(NamedTuple):
    """Where an image lies.

    Args:
        crs: Of the bounds, such as "EPSG:32633" (or WKT); None where the file says nothing.
        left: Least x.
        bottom: Least y.
        right: Greatest x.
        top: Greatest y.
    """

    crs: str | None
    left: float
    bottom: float
    right: float
    top: float

    def to_polygon(self) -> dict[str, Any]:
        """Give the outline on the globe.

        Returns:
            A GeoJSON polygon: longitude and latitude, degrees.

        Raises:
            ValueError: If the coordinate system is not known.
        """
        if self.crs is None:
            raise ValueError(
                "This image has no coordinate reference system, so where it lies on the globe is not known."
            )
        _import_rasterio()
        from rasterio.warp import transform_geom

        corners = [(self.left, self.bottom), (self.right, self.bottom), (self.right, self.top), (self.left, self.top)]
        ring = [*corners, corners[0]]
        polygon: dict[str, Any] = transform_geom(self.crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
        return json.loads(json.dumps(polygon))


class Discovery(NamedTuple):
    """What a folder holds.

    Args:
        images: Sorted by sensor and name.
        ignored: Files that are of no sensor, relative to the folder.
    """

    images: list[TiffImage]
    ignored: list[str]


def canonical_band(name: str | None) -> str | None:
    """Give a band its one name: B2 and b02 are B02, vv is VV.

    Args:
        name: However it is spelled.

    Returns:
        The name as BigEarthNet spells it; None if it is no band of Sentinel-1 or Sentinel-2 that is known here.
    """
    match = re.fullmatch(r"\s*(?:B0*(\d{1,2})(A?)|(VV|VH))\s*", name or "", re.IGNORECASE)
    if match is None:
        return None
    band = match[3].upper() if match[3] else f"B{match[1]}A" if match[2] else f"B{int(match[1]):02d}"
    return band.upper() if band.upper() in _SENSOR_OF_BAND else None


def in_order(bands: Collection[str]) -> tuple[str, ...]:
    """Sort bands as BigEarthNet lists them.

    Args:
        bands: Their canonical names.

    Returns:
        The same, in order.
    """
    return tuple(band for names in BAND_ORDER.values() for band in names if band in bands)


def find_images(folder: str | os.PathLike[str]) -> Discovery:
    """Find the images in a folder and the folders in it, by the names of the files; of a file of several bands no pixel is read.

    Args:
        folder: BigEarthNet v1 or v2 as it is distributed; folders or prefixes for each image with a file a band; or one file a sensor,
            with `s1` or `s2` in its name or a folder's, or with descriptions that name the bands.

    Returns:
        The images, with paths relative to the folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If an image has two files for one band, or a path has a `*`.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}: expected a folder of GeoTIFFs.")
    groups: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    images: list[TiffImage] = []
    ignored: list[str] = []
    for directory, files in _walk(root):
        stacked: list[str] = []
        for stem, suffix in files:
            match = _BAND_FILE.fullmatch(stem)
            band = canonical_band(match["band"]) if match else None
            if match and band:
                group = groups.setdefault((directory, match["prefix"], _SENSOR_OF_BAND[band]), {})
                group.setdefault(suffix, []).append(sys.intern(match["band"]))  # one string for a million files
            elif stem.endswith(REFERENCE_MAP_SUFFIX):
                whole = BandFiles(os.path.join(directory, stem + suffix), (REFERENCE_MAP_NAME,))
                images.append(TiffImage(stem, REFERENCE_MAP, (whole,)))
            else:
                stacked.append(stem + suffix)
        for image, file in _stacked_images(root, directory, stacked):
            images.append(image) if image else ignored.append(file)
    images += [_grouped_image(root, *group, by_suffix) for group, by_suffix in groups.items()]
    return Discovery(sorted(images, key=lambda image: (image.sensor, image.name, image.files)), ignored)


def _walk(root: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Folders below a root that hold TIFFs: relative path, and (stem, suffix) of each. Links are followed, but not in circles."""
    for directory, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(directory) + os.sep
        names[:] = sorted(name for name in names if not name.startswith(".") and not _leads_up(directory, name, real))
        found = [parts for file in sorted(files) if (parts := os.path.splitext(file))[1].lower() in _SUFFIXES]
        if found:
            relative = os.path.relpath(directory, root)
            yield "" if relative == "." else relative, found


def _leads_up(directory: str, name: str, real: str) -> bool:
    path = os.path.join(directory, name)
    return os.path.islink(path) and real.startswith(os.path.realpath(path) + os.sep)


def _grouped_image(
    root: Path, directory: str, prefix: str, sensor: str, by_suffix: Mapping[str, Sequence[str]]
) -> TiffImage:
    """The image of files that differ in the band's name alone."""
    start = os.path.join(directory, prefix)
    names = [canonical_band(band) for bands in by_suffix.values() for band in bands]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{root / start}: more than one file for the band {', '.join(twice)}. Keep one of them.")
    _check_path(root / start)
    stem = prefix.rstrip("_.-") or os.path.basename(directory) or root.name
    files = tuple(BandFiles(f"{start}*{suffix}", tuple(bands)) for suffix, bands in sorted(by_suffix.items()))
    return TiffImage(
        _without_sensor(stem, os.path.dirname(directory) if not prefix else directory, root), sensor, files
    )


def _stacked_images(root: Path, directory: str, files: Sequence[str]) -> Iterator[tuple[TiffImage | None, str]]:
    """The images of files that are not named after a band; None for one that is of no sensor."""
    described: str | None = None
    for number, file in enumerate(files):
        path = os.path.join(directory, file)
        _check_path(root / path)
        sensor = _sensor_in_path(root, path)
        if sensor is None:  # one look a folder: opening every file of a large folder would take long
            described = _described_sensor(root / path) if number == 0 or described else None
            sensor = described
        stem = os.path.splitext(file)[0]
        yield TiffImage(_without_sensor(stem, directory, root), sensor, (BandFiles(path),)) if sensor else None, path


def _check_path(path: Path) -> None:
    if "*" in str(path):
        raise ValueError(f"{path}: a path with * in it cannot be told from a pattern here. Rename it.")


def _sensor_in_path(root: Path, path: str) -> str | None:
    """The sensor that the file's name says, or else the innermost folder that says one."""
    parts = (root.resolve().name, *Path(path).parts)
    found = (match for part in reversed(parts) if (match := _SENSOR_IN_NAME.search(part)))
    match = next(found, None)
    return f"s{match[1]}" if match else None


def _described_sensor(path: Path) -> str | None:
    """The sensor that the descriptions of a file's bands name."""
    try:
        with _open(path) as source:
            sensors = {_SENSOR_OF_BAND.get(canonical_band(name) or "") for name in source.descriptions}
    except TiffError:
        return None
    return sensors.pop() if len(sensors) == 1 else None


def _without_sensor(stem: str, directory: str, root: Path) -> str:
    """An image's name without what only says its sensor, so that the images of a pair are named alike."""
    name = _SENSOR_ENDING.sub("", stem)
    name = _SENSOR_BEGINNING.sub("", name)
    return name or os.path.basename(directory) or root.name


class TiffFolder:
    """Images by key, read from the GeoTIFFs below a folder; what a [`TileStore`] is for an LMDB.

    Args:
        path: The folder.

    Raises:
        FileNotFoundError: If there is no such folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).resolve()
        if not self.path.is_dir():
            raise FileNotFoundError(f"No folder {self.path}: expected a folder of GeoTIFFs. Check the path.")

    def __repr__(self) -> str:
        return f"TiffFolder({str(self.path)!r})"

    def read(self, key: str, bands: Sequence[str] | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """Read an image.

        Args:
            key: Of a [`TiffImage`].
            bands: Names of the bands to return, in this order; default all there are.

        Returns:
            (H, W) by band, in the type of the file.

        Raises:
            TiffError: If a file cannot be read, or it has no such band, or has bands without a name.
        """
        places = self._places(key, None if bands is None else set(bands))
        absent = [band for band in bands or () if band not in places]
        if absent:
            known = ", ".join(places) or "none of them"
            raise TiffError(
                f"{self._files(key)[0].path} has no band {', '.join(absent)}; of those asked for it has {known}."
            )
        by_path: dict[str, list[str]] = {}
        for band, place in places.items():
            by_path.setdefault(place.path, []).append(band)
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for path, names in by_path.items():
            with _open(self.path / path) as source:
                if source.count != places[names[0]].bands:
                    raise TiffError(
                        f"{self.path / path} has {source.count} bands; expected 1, as it is named after one."
                    )
                pixels = source.read([places[name].number for name in names])
            arrays.update(zip(names, pixels, strict=True))
        return {band: arrays[band] for band in bands or in_order(arrays) or arrays}

    @contextmanager
    def view_many(
        self, wanted: Mapping[str, Sequence[str] | None]
    ) -> Iterator[dict[str, dict[str, np.ndarray[Any, Any]]]]:
        """Read several images, as a store of tiles lets several be looked at.

        Args:
            wanted: By key the bands to return, as of `read`.

        Yields:
            The bands of each, by key.

        Raises:
            TiffError: As `read`.
        """
        yield {key: self.read(key, wanted[key]) for key in sorted(wanted)}

    def band_names(self, key: str) -> tuple[str, ...]:
        """List the bands of an image; a file of several bands is opened for it.

        Args:
            key: Of a [`TiffImage`].

        Returns:
            Their names, in the usual order.

        Raises:
            TiffError: If a file of several bands cannot be read or does not name them.
        """
        return in_order(self._places(key))

    def footprint(self, key: str) -> Footprint:
        """Say where an image lies.

        Args:
            key: Of a [`TiffImage`].

        Returns:
            Bounds and coordinate reference system, as its first file has them.

        Raises:
            TiffError: If the file cannot be read.
        """
        first = next(iter(self._places(key).values()))
        with _open(self.path / first.path) as source:
            crs = source.crs
            name = None if not crs else f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else crs.to_wkt()
            return Footprint(name, *map(float, source.bounds))

    @staticmethod
    def _files(key: str) -> list[BandFiles]:
        return [BandFiles(path, tuple(bands.split())) for path, bands in json.loads(key)]

    def _places(self, key: str, wanted: Collection[str] | None = None) -> dict[str, "_Place"]:
        """Where each band lies; where only some are wanted, the names of files tell, no more are looked at."""
        places: dict[str, _Place] = {}
        for files in self._files(key):
            if "*" in files.path:
                found = {canonical_band(name): _Place(files.path.replace("*", name), 1, 1) for name in files.bands}
            elif len(files.bands) == 1 and canonical_band(files.bands[0]) is None:
                found = {files.bands[0]: _Place(files.path, 1, 1)}  # a reference map
            else:
                names = self._stacked_names(files)
                found = {name: _Place(files.path, place, len(names)) for place, name in enumerate(names, start=1)}
            places.update({name: place for name, place in found.items() if name and (wanted is None or name in wanted)})
        return places

    def _stacked_names(self, files: BandFiles) -> list[str]:
        """The bands of a file in its order: as it describes them, and as they were given, where both are there."""
        path = self.path / files.path
        with _open(path) as source:
            described = [canonical_band(name) for name in source.descriptions]
        given = [canonical_band(name) for name in files.bands]
        if not given and (None in described or len(set(described)) < len(described)):
            raise TiffError(
                f"{path} does not name its {len(described)} bands, so which is which is not known. Give their names in the order "
                "of the file, such as bands={'s1': ['VV', 'VH']}."
            )
        if given and len(given) != len(described):
            raise TiffError(
                f"{path} has {len(described)} bands; names were given for {len(given)}: {', '.join(files.bands)}."
            )
        if given and None not in described and given != described:
            raise TiffError(
                f"{path} says that its bands are {', '.join(map(str, described))}; given were {', '.join(files.bands)}. Leave the "
                "names out, or correct them."
            )
        return [str(name) for name in given or described]


class _Place(NamedTuple):
    """Where a band lies: a file, its number in it, and how many bands the file must have."""

    path: str
    number: int
    bands: int


def _import_rasterio() -> Any:
    try:
        import rasterio
    except ImportError as error:
        raise ImportError("Reading GeoTIFFs needs rasterio: pip install 'csmae-hf[geo]' (or rasterio).") from error
    return rasterio


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """A file, open; whatever goes wrong in it is said with its path."""
    rasterio = _import_rasterio()
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as source:
                yield source
        except (RasterioError, OSError) as error:
            if not path.is_file():
                raise TiffError(f"{path} is not there. Restore it, or list the folder anew.") from error
            cause = error.__cause__ or error  # rasterio's own message may be no more than "see previous exception"
            raise TiffError(f"{path} cannot be read: {cause}. Copy it again from its source.") from error
