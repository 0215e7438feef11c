"""GeoTIFF images of several files or bands: a key says where their bands lie, and they are read when asked for."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csmae_hf.images.names import canonical_band, in_order
from csmae_hf.images.opening import ImageFileError, import_rasterio, open_image


class BandFiles(NamedTuple):
    """Files, and the bands in them.

    Attributes:
        path: Of one file, relative to its folder or absolute; a `*` stands for the band, one file for each.
        bands: As their names are spelled in the files' names, or in the order of the bands of the one file. None for one file whose
            descriptions name them.
    """

    path: str
    bands: tuple[str, ...] = ()


class TiffImage(NamedTuple):
    """One image of one sensor, unread: its name, as its files or its folder say, its sensor, and where its bands lie."""

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
        return in_order([canonical_band(name) or name for files in self.files for name in files.bands])


class Footprint(NamedTuple):
    """Where an image lies.

    Attributes:
        crs: Coordinate system of the bounds, such as "EPSG:32633" (or WKT); None where the file says nothing.
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
        import_rasterio()
        from rasterio.warp import transform_geom

        corners = [(self.left, self.bottom), (self.right, self.bottom), (self.right, self.top), (self.left, self.top)]
        ring = [*corners, corners[0]]
        polygon: dict[str, Any] = transform_geom(self.crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
        return json.loads(json.dumps(polygon))


class _Place(NamedTuple):
    """Where a band lies: a file, its number in it, and how many bands the file must have."""

    path: str
    number: int
    bands: int


class TiffFolder:
    """Images by key ([`TiffImage`]), read from the GeoTIFFs below a folder, which must be there."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).resolve()
        if not self.path.is_dir():
            raise FileNotFoundError(f"No folder {self.path}: expected a folder of GeoTIFFs. Check the path.")

    def __repr__(self) -> str:
        return f"TiffFolder({str(self.path)!r})"

    def read(self, key: str, bands: Sequence[str] | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """Read bands of an image in this order, or all there are: (H, W) each, in the type of the file.

        An `ImageFileError` names a file that cannot be read, has no such band, or has bands without a name.
        """
        places = self._places(key, bands)
        absent = [band for band in bands or () if band not in places]
        if absent:
            known = ", ".join(places) or "none of them"
            raise ImageFileError(
                f"{self._files(key)[0].path} has no band {', '.join(absent)}; of those asked for it has {known}."
            )
        by_path: dict[str, list[str]] = {}
        for band, place in places.items():
            by_path.setdefault(place.path, []).append(band)
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for path, names in by_path.items():
            with open_image(self.path / path) as source:
                if source.count != places[names[0]].bands:
                    raise ImageFileError(
                        f"{self.path / path} has {source.count} bands; expected 1, as it is named after one."
                    )
                pixels = source.read([places[name].number for name in names])
            arrays.update(zip(names, pixels, strict=True))
        return {band: arrays[band] for band in bands or in_order(arrays)}

    @contextmanager
    def view_many(
        self, wanted: Mapping[str, Sequence[str] | None]
    ) -> Iterator[dict[str, dict[str, np.ndarray[Any, Any]]]]:
        """Read several images: by key the bands to return, as of `read`; yields the bands of each, by key."""
        yield {key: self.read(key, wanted[key]) for key in sorted(wanted)}

    def band_names(self, key: str, expected: Collection[str] = ()) -> tuple[str, ...]:
        """List the bands of an image, in the usual order; a file of several is opened, and may describe those `expected` besides."""
        return in_order(self._places(key, expected=expected))

    def footprint(self, key: str) -> Footprint:
        """Say where an image lies, as its first file has it; an `ImageFileError` if that cannot be read."""
        first = self._files(key)[0]
        path = first.path.replace("*", first.bands[0]) if "*" in first.path else first.path
        with open_image(self.path / path) as source:
            crs = source.crs
            name = None if not crs else f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else crs.to_wkt()
            return Footprint(name, *map(float, source.bounds))

    @staticmethod
    def _files(key: str) -> list[BandFiles]:
        return [BandFiles(path, tuple(bands.split())) for path, bands in json.loads(key)]

    def _places(
        self, key: str, wanted: Collection[str] | None = None, expected: Collection[str] = ()
    ) -> dict[str, _Place]:
        """Where each band lies; where only some are wanted, the names of files tell, no more are looked at."""
        places: dict[str, _Place] = {}
        for files in self._files(key):
            given = [canonical_band(name) or name for name in files.bands]
            if "*" in files.path:
                found = {
                    band: _Place(files.path.replace("*", name), 1, 1)
                    for band, name in zip(given, files.bands, strict=True)
                }
            elif len(given) == 1 and canonical_band(given[0]) is None:
                found = {given[0]: _Place(files.path, 1, 1)}  # a reference map, or the one band of another sensor
            else:
                names = self._stacked_names(files.path, given, (*(wanted or ()), *expected))
                found = {name: _Place(files.path, place, len(names)) for place, name in enumerate(names, start=1)}
            places.update({name: place for name, place in found.items() if wanted is None or name in wanted})
        return places

    def _stacked_names(self, file: str, given: Sequence[str], expected: Collection[str]) -> list[str]:
        """The bands of a file in its order: as it describes them, and as they were given, where both are there."""
        path = self.path / file
        with open_image(path) as source:
            described = [canonical_band(name) or (name if name in expected else None) for name in source.descriptions]
        named = [name for name in described if name is not None]
        if not given and len(set(named)) < len(described):
            raise ImageFileError(
                f"{path} does not name its {len(described)} bands, so which is which is not known. Give their names in the order "
                "of the file, such as bands={'s1': ['VV', 'VH']}."
            )
        if given and len(given) != len(described):
            raise ImageFileError(
                f"{path} has {len(described)} bands; names were given for {len(given)}: {', '.join(given)}."
            )
        if given and len(named) == len(described) and given != named:
            raise ImageFileError(
                f"{path} says that its bands are {', '.join(named)}; given were {', '.join(given)}. Leave the names out, or "
                "correct them."
            )
        return list(given or named)
