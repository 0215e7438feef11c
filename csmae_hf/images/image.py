"""The door for pixels: the files of one image in, its bands by name out, with what the files say of them.

What is said is believed in this order: by the caller, by the file, by a name. A contradiction among these is an error that names both
sides. What nobody says stays unsaid here; what may be guessed from the pixels is the processor's to guess.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csmae_hf.images.band_names import (
    POLARISATIONS,
    S2_BAND_NAMES,
    BandName,
    parse_band,
    parse_descriptions,
    unknown_word,
)
from csmae_hf.images.metadata_files import Beside, read_beside
from csmae_hf.images.overlap import LEAST_OVERLAP, overlap
from csmae_hf.images.products import Product, of_path, parse_product
from csmae_hf.images.raster import (
    ARRAYS,
    Pixels,
    Raster,
    RasterError,
    bands_of_arrays,
    describe_arrays,
    described,
    open_raster,
    read_arrays,
    read_layer,
)
from image_checks_csmae import BAND_METRES, DARKEST_WITH_OFFSET, MOST_DARK, UNIT_NAMES

NOTHING = Product()

METRES_TOLERANCE = 0.1
"""Share by which the ground size of a pixel may differ from the band's: grids in degrees near 10 m are in use."""

_FOLDERS_ABOVE = 3
"""So many folders above a file say something of its image; a SAFE does from further above."""

_VISIBLE, _SHORT_WAVE = ("B02", "B03", "B04"), ("B11", "B12")

OTHER_PLATFORMS = frozenset(["landsat", "hls", "l8", "l9"])
"""Words in a sensor's name that say that its bands are not Sentinel-2's."""


class Said(NamedTuple):
    """What somebody says of an image.

    Attributes:
        unit: As of `UNIT_NAMES`.
        level: "L1C" or "L2A".
        bands: Names in the order of a file's layers.
    """

    unit: str | None = None
    level: str | None = None
    bands: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Facts:
    """What the files of an image, their names and the caller say of it.

    Attributes:
        files: The files that were read.
        product: What names say.
        unit: Unit the pixels are in, as of `UNIT_NAMES`; None where nobody says.
        unit_by: Who says so, such as "the scale tag of B02.tif".
        crs: As of `Grid`.
        bounds: As of `Grid`, of the first band.
        metres: Ground size of a pixel by band, of the larger side; bands without a place are left out.
        no_data: Number of pixels without a measurement by band, where there are any.
        notes: What was done that a person should know, in sentences.
    """

    files: tuple[Path, ...] = ()
    product: Product = NOTHING
    unit: str | None = None
    unit_by: str = ""
    crs: str | None = None
    bounds: tuple[float, float, float, float] | None = None
    metres: Mapping[str, float] = field(default_factory=dict)
    no_data: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class BandImage(dict[str, Pixels]):
    """Bands of one image by canonical name, (H, W) each, north up, and what is said of them.

    Numbers are those of the file (scale and offset tags applied, if they are not the unit's own). Where a file declares pixels to be
    no measurement, the band is float32 and they are NaN.

    Attributes:
        facts: What is said.
    """

    def __init__(self, bands: Mapping[str, Pixels], facts: Facts):
        super().__init__(bands)
        self.facts = facts

    @property
    def unit(self) -> str | None:
        """Unit the pixels are in, where somebody says it; the processor believes it."""
        return self.facts.unit

    def __reduce__(self) -> tuple[Any, ...]:
        return BandImage, (dict(self), self.facts)


class Layer(NamedTuple):
    """A layer of a file, and what its description or the file's name says of it.

    Attributes:
        raster: Its file.
        place: Its place in the file, from 0.
        name: What its name says.
    """

    raster: Raster
    place: int
    name: BandName


def list_layers(raster: Raster, known: Iterable[str] = (), order: Sequence[str] | None = None) -> list[Layer]:
    """Name the layers of a file.

    A file of one layer is named by its description and its own name, which must not contradict each other; a file of several by their
    descriptions. Positions count only where nothing is named and the caller gives the order.

    Args:
        raster: The file.
        known: Names of bands of other sensors than Sentinel-1 and -2.
        order: Names of the bands in the order of the file, given by the caller.

    Returns:
        Its layers; alpha channels and known layers that are no band are among them.

    Raises:
        RasterError: If description and file name, or descriptions and `order`, contradict each other.
    """
    known = tuple(known)
    own = parse_band(raster.path.stem, known, file=True)
    if order is not None and len(order) == 1 and own.band == parse_band(order[0], known).band:
        order = None  # its name says the same
    described = parse_descriptions((layer.description for layer in raster.layers), known)
    open_places = [place for place, layer in enumerate(raster.layers) if not layer.alpha]
    if len(open_places) == 1 and (own.band or own.layer):
        said = described[open_places[0]]
        if said.band and own.band and said.band != own.band:
            raise RasterError(
                f"{raster.path} is named after {own.band}, and its layer is described as {said.band}. Correct one of them."
            )
        described[open_places[0]] = said._replace(rest=own.rest) if said.band and not own.band else own
    elif own.band and not any(name.band or name.layer for name in described):
        raise RasterError(
            f"{raster.path} has {len(open_places)} layers and is named after one band, {own.band}: which layer it is, "
            f"is not known. "
            "Keep one layer, or name them by descriptions."
        )
    if order is not None:
        described = _in_given_order(raster, described, open_places, order, known)
    return [Layer(raster, place, name) for place, name in enumerate(described)]


def _in_given_order(
    raster: Raster, described: list[BandName], places: Sequence[int], order: Sequence[str], known: Iterable[str]
) -> list[BandName]:
    names = [described[place].band for place in places]
    given = [parse_band(name, known).band or name for name in order]
    if len(places) == 1 and len(given) == 1 and names[0] not in (None, given[0]):
        raise RasterError(
            f"{raster.path} is of {names[0]} by its name, and was given as {given[0]}. Correct one of them."
        )
    if any(names):
        if len(places) > 1 and [name for name in names if name] != given and set(filter(None, names)) - set(given):
            raise RasterError(
                f"{raster.path} says that its bands are {', '.join(str(name) for name in names)}; given were "
                f"{', '.join(order)}. Leave "
                "the names out, or correct them."
            )
        if len(places) > 1 and len(names) == len(given) and names != given and None not in names:
            raise RasterError(
                f"{raster.path} says that its bands are {', '.join(map(str, names))}; given was another order, "
                f"{', '.join(order)}. "
                "Leave the names out, or correct them."
            )
        return described
    if len(places) != len(order):
        raise RasterError(
            f"{raster.path} has {len(places)} bands; names were given for {len(order)}: {', '.join(order)}."
        )
    named = list(described)
    for place, name in zip(places, order, strict=True):
        said = parse_band(name, known)
        named[place] = said if said.band or said.layer else BandName(name)
    return named


def kind_of(sensor: str, bands: Iterable[str] = ()) -> str | None:
    """Say by what rules the pixels of a sensor go: "s1", "s2", or None for another; a sensor of any name may have their bands."""
    if sensor in ("s1", "s2"):
        return sensor
    names = set(bands)
    if not names or any(word in sensor.lower() for word in OTHER_PLATFORMS):
        return None
    return "s1" if names <= set(POLARISATIONS) else "s2" if names <= set(S2_BAND_NAMES) else None


def read_image(
    files: Sequence[str | os.PathLike[str]] | Mapping[Path, Sequence[str]],
    wanted: Sequence[str] | None = None,
    *,
    sensor: str,
    said: Said | None = None,
    series: str | None = None,
) -> BandImage:
    """Read one image of a sensor from its files.

    Args:
        files: One file of several layers, one file a band, or a mixture; other files of the product may be among them. As a mapping:
            the bands that each holds, in the order of its layers, none where the file names them.
        wanted: Bands to return, by canonical name, in this order; None for all of the sensor that the files name.
        sensor: Whose image it is, for messages and for what belongs to Sentinel-1 or Sentinel-2 alone.
        said: What the caller says.
        series: Which image of a file that holds several dates: the `rest` of its bands' names; None where there is one.

    Returns:
        The bands, with what is said of them.

    Raises:
        RasterError: If bands are missing or come twice, files are of several images or another platform, ground sizes do not
            fit, or what is said contradicts itself. The message names file and band, what was found and expected, and what to type.
    """
    said = said or Said()
    given = {Path(path): tuple(bands) for path, bands in files.items()} if isinstance(files, Mapping) else {}
    paths = [Path(path) for path in files]
    named = [band for bands in given.values() for band in bands]
    if wanted is not None:  # who lists the files knows what is in them: others need not be opened
        paths = [path for path in paths if not given.get(path) or set(given[path]) & set(wanted)]
        lacking = [band for band in wanted if band not in named]
        if all(given.get(path) for path in given) and given and lacking:
            raise RasterError(_lacks(given, lacking, sensor, list(dict.fromkeys(named))))
    if any(path.suffix.lower() == ARRAYS for path in paths):
        if len(paths) > 1:
            raise RasterError(
                f"{_where(paths)}: {paths[0].name} and others are given as one image; give one {ARRAYS} alone."
            )
        return image_of_arrays(read_arrays(paths[0]), wanted, sensor=sensor, said=said, path=paths[0])
    with ExitStack() as stack:
        sources = {path: stack.enter_context(open_raster(path)) for path in paths}
        rasters = [described(path, source) for path, source in sources.items()]
        if said.bands and len(rasters) == 1:
            order = tuple(parse_band(band, wanted or ()).band or band for band in said.bands)
            given = {rasters[0].path: given.get(rasters[0].path) or order}

        def read(layer: Layer) -> tuple[Pixels, Any]:
            return read_layer(sources[layer.raster.path], layer.raster, layer.place)

        return make_image(rasters, read, wanted, sensor=sensor, said=said, series=series, given=given, besides=named)


def image_of_arrays(
    arrays: Mapping[str, Any],
    wanted: Sequence[str] | None,
    *,
    sensor: str,
    said: Said | None = None,
    path: str | os.PathLike[str] = "",
) -> BandImage:
    """Make one image of arrays by name, in whichever spelling and byte order.

    Args:
        arrays: The arrays.
        wanted: As of [`read_image`].
        sensor: As of [`read_image`].
        said: As of [`read_image`].
        path: Where they are from, for messages.

    Returns:
        As [`read_image`].

    Raises:
        RasterError: As [`read_image`], or if they are no bands.
    """
    where = Path(path or "the arrays")
    held = {name: np.asarray(array) for name, array in arrays.items()}
    pixels = list(bands_of_arrays(where, held).values())

    def read(layer: Layer) -> tuple[Pixels, Any]:
        array = pixels[layer.place]
        mask = np.isnan(array) if array.dtype.kind == "f" else None
        return array, mask if mask is not None and mask.any() else None

    return make_image([describe_arrays(where, held)], read, wanted, sensor=sensor, said=said or Said())


def _lacks(paths: Iterable[Path], lacking: Sequence[str], sensor: str, has: Sequence[str]) -> str:
    return f"{_where(list(paths))} lacks {', '.join(lacking)}{sensor and f' of {sensor}'}; it has {', '.join(has) or 'no band'}."


def _where(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"


def make_image(
    rasters: Sequence[Raster],
    read: Callable[[Layer], tuple[Pixels, Any]],
    wanted: Sequence[str] | None,
    *,
    sensor: str,
    said: Said,
    series: str | None = None,
    given: Mapping[Path, Sequence[str]] | None = None,
    besides: Iterable[str] = (),
) -> BandImage:
    """Make the image of what its files declare: see [`read_image`].

    Args:
        rasters: What the files declare.
        read: Gives a layer's pixels, and where they are no measurement.
        wanted: As of `read_image`.
        sensor: As of `read_image`.
        said: As of `read_image`.
        series: As of `read_image`.
        given: Bands that files hold, in the order of their layers.
        besides: Bands that files of the image hold which were not opened.
    """
    given = given or {}
    known = [*(wanted or ()), *(band for bands in given.values() for band in bands)]
    layers = [
        # who says what a file holds says that it is of this image: the rest of its name does not tell it apart
        layer._replace(name=layer.name._replace(rest="")) if given.get(raster.path) else layer
        for raster in rasters
        for layer in list_layers(raster, known, given.get(raster.path) or None)
        if not raster.layers[layer.place].alpha
    ]
    paths = [raster.path for raster in rasters]
    chosen = _choose(layers, wanted, sensor, series, paths, besides)
    kind = kind_of(sensor, chosen)
    product = _one_product([layer.raster.path for layer in chosen.values()], sensor, kind)
    beside = read_beside(next(iter(chosen.values())).raster.path) if kind == "s2" else None
    names = {*besides, *(layer.name.band for layer in layers)}
    _check_level(chosen, "B10" in names, product, beside, said, kind)
    notes: list[str] = []
    left = sorted({layer.name.layer for layer in layers if layer.name.layer})
    if left:
        notes.append(f"Left out: {', '.join(left)}, which are no bands.")
    metres = {band: max(layer.raster.grid.metres) for band, layer in chosen.items() if layer.raster.grid.metres}
    _check_metres(chosen)
    _check_places(chosen)
    unit, unit_by, convert = _unit(chosen, product, said, kind, beside, notes)
    bands: dict[str, Pixels] = {}
    no_data: dict[str, int] = {}
    for band, layer in chosen.items():
        stored, mask = read(layer)
        pixels = stored
        empty = None
        if beside and beside.no_data is not None and stored.dtype.kind in "ui":
            empty = stored == beside.no_data
        elif stored.dtype.kind == "f":  # power is never 0: where it is, nothing was measured (HyP3)
            empty = (stored == 0) | np.isnan(stored) if unit == "linear" else np.isnan(stored)
        if empty is not None and empty.any():
            mask = empty if mask is None else mask | empty
        if band in convert:
            scale, offset = convert[band]
            pixels = (pixels * np.float64(scale) + offset).astype(np.float32)
        if mask is not None:
            no_data[band] = int(mask.sum())
            pixels = np.where(mask, np.float32("nan"), pixels.astype(np.float32))
        bands[band] = pixels
    if beside is not None and beside.note and unit is None:
        decided = _offset_in_pixels(bands)
        if decided:
            unit, unit_by = "dn+1000", "the pixels, where the catalogue cannot be trusted"
        if decided is not None:
            notes.append(f"By the pixels, the offset of 1000 is {'' if decided else 'not '}in them.")
    first = next(iter(chosen.values())).raster.grid
    facts = Facts(
        tuple(dict.fromkeys(layer.raster.path for layer in chosen.values())),
        product,
        unit,
        unit_by,
        first.crs,
        first.bounds,
        metres,
        no_data,
        tuple(notes),
    )
    return BandImage(bands, facts)


def _choose(
    layers: Sequence[Layer],
    wanted: Sequence[str] | None,
    sensor: str,
    series: str | None,
    paths: Sequence[Path],
    besides: Iterable[str] = (),
) -> dict[str, Layer]:
    """The layer of each wanted band: of one image, and of several ground sizes that of the band's own."""
    where = _where(paths)
    named = [layer for layer in layers if layer.name.band]
    if not named:
        raise RasterError(unnamed(where, layers, sensor))
    if wanted is None:
        wanted = sorted_bands(dict.fromkeys(str(layer.name.band) for layer in named), sensor)
    fitting = [layer for layer in named if layer.name.band in wanted]
    if series is not None:
        fitting = [layer for layer in fitting if layer.name.rest == series]
    elif len(groups := _images_of(fitting)) > 1:
        listed = [repr(name or "without a further name") for name in groups]
        raise RasterError(
            f"{where} holds {len(groups)} images: {', '.join(listed[:4])}{', ...' if len(groups) > 4 else ''}. "
            f"Give the files of one, or load it as tiles (load_tiles), each of which is one of them."
        )
    chosen: dict[str, Layer] = {}
    for band in wanted:
        found = [layer for layer in fitting if layer.name.band == band]
        if len(found) > 1:
            own = BAND_METRES.get(band, 10)
            sized = {size: layer for layer in found if (size := _size(layer)) is not None}
            if len(sized) < len(found):
                raise RasterError(
                    f"{where} has more than one layer {band}: "
                    f"{', '.join(f'{layer.raster.path.name} layer {layer.place + 1}' for layer in found)}. "
                    "Keep one."
                )
            found = [sized[min(sized, key=lambda size: abs(size - own))]]
        if found:
            chosen[band] = found[0]
    lacking = [band for band in wanted if band not in chosen]
    if lacking or not chosen:
        has = list(dict.fromkeys(str(layer.name.band) for layer in named))
        raise RasterError(_lacks(paths, lacking, sensor, has) + _unknown(layers, " And "))
    _check_counted(
        [layer.name for layer in chosen.values()], {*besides, *(str(layer.name.band) for layer in named)}, where
    )
    return chosen


def _check_counted(names: Sequence[BandName], bands: Iterable[str], where: str) -> None:
    """Refuse `Band 1`, `Band 2`, ... without a gap and without 8A: layers are counted so, whatever bands they are."""
    bands = set(bands)
    if any(name.counted for name in names) and bands == {f"B{number:02d}" for number in range(1, len(bands) + 1)}:
        raise RasterError(
            f"{where} is named Band 1 to Band {len(bands)}, which may be a count of layers in any order. Name them by what they are "
            "(B02.tif), or give the bands in the order of a file: bands={'s2': [...]} in Python, --bands s2=NAME,NAME,..."
        )


def _unknown(layers: Iterable[Layer], start: str) -> str:
    """What is to be said of the first name with an unknown word beside a band; nothing where there is none."""
    names = (layer.name for layer in layers if layer.name.unknown)
    return next((f"{start}of {name.layer}, {unknown_word(name.unknown)}." for name in names), "")


def unnamed(where: object, layers: Sequence[Layer], sensor: str) -> str:
    """Say that no layer of an image is a band, and what to do."""
    others = [layer.name.layer for layer in layers if layer.name.layer]
    if unknown := _unknown(layers, ""):
        return f"{where} holds no band that is known: {unknown}"
    if len(others) == len(layers):
        return f"{where} holds no band: {', '.join(map(str, others))}."
    return (
        f"{where} does not name its {len(layers)} bands, so which is which is not known. Give their names in the "
        f"order of the file: bands={{{sensor!r}: [...]}} in Python, --bands {sensor}=NAME,NAME,... on the command line."
    )


def sorted_bands(bands: Iterable[str], sensor: str) -> list[str]:
    """Of several sensors' bands those of one, in the usual order."""
    kind = {"s1": sorted(POLARISATIONS), "s2": S2_BAND_NAMES}.get(sensor)
    return list(bands) if kind is None else [band for band in kind if band in set(bands)]


def series_of(layers: Iterable[Layer]) -> list[str]:
    """The images of one file, such as dates, by what their bands' names have besides; none where it holds one image.

    Names that have something of their own each (`B1 443nm`, `B2 490nm`) are those of one image: no band comes twice.
    """
    named = [layer for layer in layers if layer.name.band]
    return list(dict.fromkeys(layer.name.rest for layer in named)) if _comes_twice(named) else []


def _comes_twice(layers: Sequence[Layer]) -> bool:
    names = {(layer.name.band, layer.name.rest) for layer in layers}
    return len({band for band, _ in names}) < len(names)


def _images_of(layers: Sequence[Layer]) -> list[str]:
    """What tells the images of layers apart; the names of files are of one image where all are alike, described layers also where
    no band comes twice."""
    rests = list(dict.fromkeys(layer.name.rest for layer in layers))
    dates = {date for rest in rests if (date := parse_product(rest).date)}  # VV_20200101 beside VH_20200113
    one_file = len({layer.raster.path for layer in layers}) == 1 and len(dates) < 2
    return [] if one_file and not _comes_twice(layers) else rests


def _size(layer: Layer) -> float | None:
    """Ground size of a layer's pixels, as the file or its name says."""
    return max(layer.raster.grid.metres) if layer.raster.grid.metres else layer.name.metres


def product_of(path: Path, kind: str | None = None) -> Product:
    """What the names of a file and its folders say; of a folder named after the image of another sensor, nothing.

    Args:
        path: The file.
        kind: "s1" or "s2", where it is known what is in the file.
    """
    parts = Path(os.path.abspath(path)).parts
    above = [part for part in parts[:-1][-7:-_FOLDERS_ABOVE] if part.upper().endswith(".SAFE")]
    folders = []
    for part in (*above, *parts[:-1][-_FOLDERS_ABOVE:]):
        family = parse_product(part).sensor
        of_other_sensor = kind is not None and family in ("s1", "s2") and family != kind
        # a project called landsat_and_s2 says nothing of an image folders below
        if not of_other_sensor and (family != "landsat" or part == parts[-2]):
            folders.append(part)
    return of_path([*folders, parts[-1]])


def _one_product(paths: Sequence[Path], sensor: str, kind: str | None) -> Product:
    """What the names of an image's files say together.

    Raises:
        RasterError: If they are of another platform, or of several products.
    """
    said = {path: product_of(path, kind) for path in paths}
    for path, product in said.items():
        family = product.sensor
        if family and kind and family not in ("s1", "s2"):
            raise RasterError(f"{path} is of {product.platform} by its name: its bands are not those of Sentinel-2.")
        if family and kind and family != kind:
            raise RasterError(
                f"{path} is of {product.platform} by its name, and was given as {sensor}. Give it as {family}."
            )
    for name in ("tile", "date", "baseline", "level"):
        values = {getattr(product, name): path for path, product in said.items() if getattr(product, name) is not None}
        if len(values) > 1:
            (first, one), (second, other) = list(values.items())[:2]
            raise RasterError(
                f"The files of one image name two products: {one} ({name} {first}) and {other.name} ({name} {second}). "
                "Give the files of one."
            )
    return next(iter(said.values()))


def _check_level(
    chosen: Mapping[str, Layer], has_b10: bool, product: Product, beside: Beside | None, said: Said, kind: str | None
) -> None:
    if kind != "s2":
        return
    described = next((layer.name.level for layer in chosen.values() if layer.name.level), None)
    signs = {
        "its name": product.level,
        "its metadata": beside and beside.level,
        "its band B10": has_b10 and "L1C",
        "its descriptions": described,
    }
    by, shown = next(((by, level) for by, level in signs.items() if level), ("", None))
    path = next(iter(chosen.values())).raster.path
    if said.level and shown and said.level != shown:
        raise RasterError(
            f"{path} is Level-{shown[1:]} by {by}, and level={said.level!r} was given. Leave it out, or correct it."
        )
    if shown == "L1C" and said.level != "L1C":
        raise RasterError(
            f"{path} is Level-1C (top of atmosphere) by {by}; the model expects Level-2A (surface reflectance), and embeds "
            "differ. Give Level-2A, or say level='L1C' (--level L1C) to take it all the same."
        )


def _check_metres(chosen: Mapping[str, Layer]) -> None:
    for band, layer in chosen.items():
        sizes = layer.raster.grid.metres
        if sizes is None or band not in BAND_METRES:
            continue
        expected = sorted({10, BAND_METRES[band]})  # a coarse band may have been brought to 10 m
        if not any(all(abs(size - one) <= METRES_TOLERANCE * one for size in sizes) for one in expected):
            rows, columns = layer.raster.grid.shape
            raise RasterError(
                f"{layer.raster.path}: the pixels of {band} are {sizes[0]:.4g} x {sizes[1]:.4g} m ({columns * sizes[0]:,.0f} x "
                f"{rows * sizes[1]:,.0f} m in all); expected {' or '.join(map(str, expected))} m. Resample from the "
                f"original bands, or cut "
                "tiles anew on a grid in metres."
            )


def _check_places(chosen: Mapping[str, Layer]) -> None:
    (band, first), *others = chosen.items()
    grid = first.raster.grid
    for other, layer in others:
        its = layer.raster.grid
        if (its.crs, its.bounds) == (grid.crs, grid.bounds):
            continue
        shared = overlap(grid.crs, grid.bounds, its.crs, its.bounds)
        if shared is not None and shared < LEAST_OVERLAP:
            raise RasterError(
                f"{first.raster.path} ({band}) and {layer.raster.path.name} ({other}) show different ground: they overlap by "
                f"{shared:.0%}. The bands of one image lie in one place; give the files of one, or cut them alike."
            )


def _unit(
    chosen: Mapping[str, Layer],
    product: Product,
    said: Said,
    kind: str | None,
    beside: Beside | None,
    notes: list[str],
) -> tuple[str | None, str, dict[str, tuple[float, float]]]:
    """Unit of the pixels, who says it, and scale and offset to apply by band.

    Raises:
        RasterError: If what is said contradicts itself, or no unit of this sensor is meant.
    """
    claims: dict[str, str] = {}  # unit by who says it, the strongest first
    if said.unit:
        claims["the call"] = said.unit
    convert: dict[str, tuple[float, float]] = {}
    _check_tags(chosen, kind)
    for band, layer in chosen.items():
        declared = layer.raster.layers[layer.place]
        unit, pair = _of_tags(declared.scale, declared.offset, kind)
        if unit:
            claims[f"the scale and offset tags of {layer.raster.path.name}"] = unit
        if pair:
            convert[band] = pair
        if layer.name.unit:
            claims[f"the name of {band} in {layer.raster.path.name}"] = layer.name.unit
        unsaid = not (pair or layer.name.unit or said.unit or product.unit)
        if kind == "s1" and declared.dtype.startswith(("uint", "int")) and unsaid:
            claims.setdefault(f"the whole numbers of {layer.raster.path.name}", "amplitude")
        raw = layer.name.raw or product.raw_export
        if raw and kind == "s1" and declared.dtype.startswith("float"):
            claims[f"the name of {layer.raster.path.name}, a raw export of the Copernicus Browser"] = "linear"
        elif raw and kind != "s1":
            if declared.dtype.startswith("float"):
                claims[f"the name of {layer.raster.path.name}"] = "reflectance"
            else:  # 16 bits of reflectance 0 to 1, 8 bits likewise
                convert[band] = (1 / np.iinfo(declared.dtype).max, 0.0)
                claims[f"the name of {layer.raster.path.name}, a raw export of the Copernicus Browser"] = "reflectance"
    if kind == "s1" and product.unit:
        claims["the product's name"] = product.unit
    # what names and metadata say is of the product's whole numbers, not of what somebody computed from them
    whole = all(layer.raster.layers[layer.place].dtype.startswith(("uint", "int")) for layer in chosen.values())
    if kind == "s2" and whole:
        _claim_offset(chosen, product, beside, claims, convert, notes)
    if convert:
        band, (scale, offset) = next(iter(convert.items()))
        notes.append(f"Scale {scale:g} and offset {offset:g} were applied ({', '.join(convert)}).")
    if not claims:
        return None, "", convert
    (by, unit), *others = claims.items()
    contrary = next(((other, value) for other, value in others if value != unit), None)
    path = next(iter(chosen.values())).raster.path
    if contrary:
        raise RasterError(
            f"{path}: {by} says {unit} ({UNIT_NAMES.get(unit, unit)}), {contrary[0]} says {contrary[1]}. Correct one of them."
        )
    if unit == "amplitude":
        raise RasterError(
            f"{path} holds amplitude, as {by} says, not backscatter: an uncalibrated GRD has to be calibrated first (to "
            f"sigma nought, in SNAP "
            "or sarsen, say), a calibrated amplitude squared."
        )
    return unit, by, convert


def _claim_offset(
    chosen: Mapping[str, Layer],
    product: Product,
    beside: Beside | None,
    claims: dict[str, str],
    convert: dict[str, tuple[float, float]],
    notes: list[str],
) -> None:
    """What metadata, and where there are none the baseline in the name, say of the offset of 1000: never the date."""
    tags = claims.keys() - {"the call"}
    if beside is not None and beside.note:
        notes.append(beside.note)
    elif beside is not None and beside.offsets is not None:
        offsets = {band: beside.offsets.get(band, 0.0) for band in chosen}
        if set(offsets.values()) == {-1000.0}:
            claims[beside.by] = "dn+1000"
        elif not tags or not any(offsets.values()):
            convert |= {band: (1.0, offset) for band, offset in offsets.items() if offset}
            claims[beside.by] = "dn"
    elif product.baseline and product.has_offset is not None:
        claims[f"processing baseline {product.baseline / 100:05.2f} in its name"] = (
            "dn+1000" if product.has_offset else "dn"
        )


def _offset_in_pixels(bands: Mapping[str, Pixels]) -> bool | None:
    """Whether the pixels show the offset of 1000; None where they do not tell, as over deserts, snow and clouds."""
    visible, short_wave = ([bands[name] for name in names if name in bands] for names in (_VISIBLE, _SHORT_WAVE))
    if not visible or not short_wave or any(pixels.dtype.kind == "f" for pixels in bands.values()):
        return None
    least, most = DARKEST_WITH_OFFSET
    if any(np.quantile(pixels, MOST_DARK) < least for pixels in bands.values()):
        return False
    # without the offset, ground as bright as this in the visible is far brighter in the short-wave infrared, or snow
    darkest = [min(float(np.quantile(pixels, MOST_DARK)) for pixels in group) for group in (visible, short_wave)]
    return True if darkest[0] <= most and darkest[1] <= most + 500 else None


def _check_tags(chosen: Mapping[str, Layer], kind: str | None) -> None:
    """Refuse bands of one image whose tags mean several units; without a tag a band is in digital numbers."""
    units: dict[str, tuple[str, str]] = {}
    for band, layer in chosen.items():
        declared = layer.raster.layers[layer.place]
        tags = f"scale {declared.scale:g} and offset {declared.offset:g}"
        units.setdefault(_of_tags(declared.scale, declared.offset, kind)[0] or "dn", (band, tags))
    if len(units) > 1:
        (unit, (band, tags)), (other, (its, others)) = list(units.items())[:2]
        raise RasterError(
            f"{_where(list(dict.fromkeys(layer.raster.path for layer in chosen.values())))}: {band} has {tags} ({UNIT_NAMES[unit]}), "
            f"{its} has {others} ({UNIT_NAMES[other]}). Correct the tags of one of them."
        )


def _of_tags(scale: float, offset: float, kind: str | None) -> tuple[str | None, tuple[float, float] | None]:
    """Unit that a layer's scale and offset tags mean, and what has to be applied; a tag of the baseline's offset is a unit."""
    if (scale, offset) == (1.0, 0.0):
        return None, None
    if kind == "s2":
        if np.isclose(scale, 1e-4, rtol=1e-3):
            if np.isclose(offset, -0.1, rtol=1e-3):
                return "dn+1000", None
            if offset == 0:
                return "dn", None
        if scale == 1 and offset == -1000:
            return "dn+1000", None
        if scale < 0.01:
            return "reflectance", (scale, offset)
    return None, (scale, offset)
