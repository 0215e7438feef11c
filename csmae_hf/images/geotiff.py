"""Images of several files or bands in a folder: a key says where their bands lie, and they are read when asked for."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from csmae_hf.images.band_names import canonical_band
from csmae_hf.images.image import BandImage, Said, kind_of, list_layers, read_image, sorted_bands, unnamed
from csmae_hf.images.names import in_order
from csmae_hf.images.raster import RasterError, describe, import_rasterio


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
    """One image of one sensor, unread.

    Attributes:
        name: As its files or its folder say.
        sensor: Whose it is.
        files: Where its bands lie.
        series: Which image of a file of several, as of [`read_image`].
        unit: That the caller says its pixels are in, as of `UNIT_NAMES`.
        level: That the caller says it is of, "L1C" or "L2A".
    """

    name: str
    sensor: str
    files: tuple[BandFiles, ...]
    series: str | None = None
    unit: str | None = None
    level: str | None = None

    @property
    def key(self) -> str:
        """What a pixel column stores of it."""
        said = {"series": self.series, "unit": self.unit, "level": self.level}
        files = [[files.path, " ".join(files.bands)] for files in self.files]
        return json.dumps(
            [self.sensor, files, said] if any(value is not None for value in said.values()) else [self.sensor, files]
        )

    @classmethod
    def of_key(cls, key: str) -> "TiffImage":
        """Read a key; the name is not in it."""
        sensor, files, *said = json.loads(key)
        places = tuple(BandFiles(path, tuple(bands.split())) for path, bands in files)
        return cls("", sensor, places, **(said[0] if said else {}))

    def paths(self, folder: Path) -> dict[Path, tuple[str, ...]]:
        """Give its files by path, with the bands that each is known to hold in the order of its layers."""
        found: dict[Path, tuple[str, ...]] = {}
        for files in self.files:
            bands = tuple(canonical_band(band) or band for band in files.bands)
            if "*" in files.path:
                spelled = zip(files.bands, bands, strict=True)
                found |= {folder / files.path.replace("*", name): (band,) for name, band in spelled}
            else:
                found[folder / files.path] = bands
        return found

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


class TiffFolder:
    """Images by key ([`TiffImage`]), read from the files below a folder, which must be there."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).resolve()
        if not self.path.is_dir():
            raise FileNotFoundError(f"No folder {self.path}: expected a folder of GeoTIFFs. Check the path.")

    def __repr__(self) -> str:
        return f"TiffFolder({str(self.path)!r})"

    def read(self, key: str, bands: Sequence[str] | None = None) -> BandImage:
        """Read bands of an image in this order, or all there are: (H, W) each, with what its files say of them.

        A `RasterError` names a file that cannot be read, has no such band, has bands without a name, or contradicts what is said.
        """
        image = TiffImage.of_key(key)
        files, said = image.paths(self.path), Said(image.unit, image.level)
        return read_image(files, bands, sensor=image.sensor, said=said, series=image.series)

    @contextmanager
    def view_many(self, wanted: Mapping[str, Sequence[str] | None]) -> Iterator[dict[str, BandImage]]:
        """Read several images: by key the bands to return, as of `read`; yields the bands of each, by key."""
        yield {key: self.read(key, wanted[key]) for key in sorted(wanted)}

    def band_names(self, key: str, expected: Collection[str] = ()) -> tuple[str, ...]:
        """List the bands of an image, in the usual order; a file of several is opened, and may describe those `expected` besides."""
        image = TiffImage.of_key(key)
        bands: list[str] = []
        for path, known in image.paths(self.path).items():
            if len(known) == 1:
                bands += known
                continue
            layers = list_layers(describe(path), (*known, *expected), known or None)
            names = [layer.name.band for layer in layers if layer.name.band and image.series in (None, layer.name.rest)]
            if not names:
                raise RasterError(unnamed(path, layers, image.sensor))
            bands += names if kind_of(image.sensor) is None else sorted_bands(names, image.sensor)
        return in_order(dict.fromkeys(bands))

    def latitude(self, key: str) -> float | None:
        """Say at which latitude the middle of an image lies, degrees north; None where its first file does not say it."""
        try:
            grid = describe(next(iter(TiffImage.of_key(key).paths(self.path)))).grid
        except RasterError:  # said when its pixels are looked at
            return None
        if grid.crs is None or grid.bounds is None:
            return None
        from rasterio.warp import transform

        left, bottom, right, top = grid.bounds
        return float(transform(grid.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])[1][0])

    def footprint(self, key: str) -> Footprint:
        """Say where an image lies, as its first file has it; a `RasterError` if that cannot be read."""
        grid = describe(next(iter(TiffImage.of_key(key).paths(self.path)))).grid
        rows, columns = grid.shape
        return Footprint(grid.crs, *(grid.bounds or (0.0, 0.0, float(columns), float(rows))))
