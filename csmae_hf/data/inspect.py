"""What image files are taken for, one by one: sensor, bands, unit, level, size, date, and all that is wrong with them at once."""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from csmae_hf.bigearthnet import REFERENCE_MAP_SUFFIX
from csmae_hf.data.find_tiles import TABLE_SUFFIXES, FoundTile, find_tiles
from csmae_hf.data.suspects import Suspect, check_suspect, unit_remedy
from csmae_hf.data.unit_rules import Units
from csmae_hf.images.band_names import unknown_word
from csmae_hf.images.discovery import REFERENCE_MAP, Discovery, Wrong, find_images
from csmae_hf.images.geotiff import TiffImage
from csmae_hf.images.image import BandImage, Facts, Said, kind_of, list_layers, product_of, read_image
from csmae_hf.images.metadata_files import read_beside
from csmae_hf.images.names import SensorNames, Sensors, in_order
from csmae_hf.images.pairing import image_path
from csmae_hf.images.raster import ARRAYS, SUFFIXES, Raster, RasterError, describe
from image_checks_csmae import (
    BAND_UNIT,
    Images,
    SuspectImageError,
    check_copies,
    check_finite,
    check_guesses,
    check_no_data,
    check_sizes,
    check_units,
    measure_bands,
)
from image_processing_csmae import stack_bands

SIZE = 120
"""Pixels of 10 m along the edge of a tile, as the published models take it."""

MOST_IMAGES = 1000
"""So many images are read, evenly spread over a larger folder: reading all of a large archive takes hours."""

VERDICTS = ("refused", "suspect", "ok", "left out")
"""What may come of a file: it cannot be used as it is, it looks wrong by a guess, it can be used, or it is no image."""

OTHER_KINDS = (".nc", ".h5", ".hdf", ".img", ".vrt", ".png", ".jpg", ".jpeg", ".npy", ".npz", ".zip")
"""Endings of files that may hold images and are not looked at in folders."""


@dataclass
class FileReport:
    """What a file was taken for; None where that is not known.

    Attributes:
        file: Its path, relative to the folder or table that was asked about.
        sensor: Whose image it is of.
        bands: Canonical names, in the order of the file.
        images: Number of images in it, such as dates.
        unit: Unit of the pixels, as of `UNIT_NAMES`.
        unit_by: Who says so.
        offset: What its numbers carry besides reflectance x 10000.
        level: Processing level, such as "L2A" or "GRD".
        metres: Ground size of a pixel, the larger side.
        size: Rows and columns.
        date: Of the acquisition, ISO 8601.
        platform: Such as "S2A".
        no_data: Share of pixels without a measurement, as far as the file declares them.
        verdict: One of `VERDICTS`.
        reasons: What is wrong, or why it is left out.
        notes: What was done on reading that a person should know.
    """

    file: str
    sensor: str | None = None
    bands: list[str] = field(default_factory=list)
    images: int = 1
    unit: str | None = None
    unit_by: str | None = None
    offset: int | None = None
    level: str | None = None
    metres: float | None = None
    size: tuple[int, int] | None = None
    date: str | None = None
    platform: str | None = None
    no_data: float | None = None
    verdict: str = "ok"
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Inspection:
    """What a folder, a table or a file of images was taken for.

    Attributes:
        source: What was asked about.
        files: Its files.
        tiles: By tile's name, the files of its image by sensor.
        problems: What is wrong besides single files, such as pairs of different ground.
        images: Number of images found.
        looked_at: Number of them that were read.
        others: Number of files of other kinds, by ending.
    """

    source: str
    files: list[FileReport]
    tiles: dict[str, dict[str, str]]
    problems: list[str]
    images: int
    looked_at: int
    others: dict[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """Number of files by verdict, those that occur."""
        worst: dict[str, str] = {}  # a file of two sensors has two reports
        for report in self.files:
            worst[report.file] = min(worst.get(report.file, report.verdict), report.verdict, key=VERDICTS.index)
        found = Counter(worst.values())
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}

    @property
    def is_good(self) -> bool:
        """Whether there are images, and nothing is wrong with any."""
        return bool(self.counts.get("ok")) and not self.problems and not {"refused", "suspect"} & self.counts.keys()

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {"counts": self.counts, **asdict(self)}


@dataclass
class _Look:
    """What came of reading an image."""

    facts: Facts | None = None
    sizes: dict[str, int] = field(default_factory=dict)  # pixels by band
    problems: list[str] = field(default_factory=list)
    suspicions: list[str] = field(default_factory=list)


def inspect_images(
    source: str | os.PathLike[str],
    *,
    bands: Mapping[str, Sequence[str]] | None = None,
    units: Units | None = None,
    level: str | None = None,
    sensors: Sensors | None = None,
    pair: str | None = None,
    suspect: Suspect = "leave-out",
    limit: int = MOST_IMAGES,
) -> Inspection:
    """Say what image files are taken for, and all that is wrong with them.

    Args:
        source: A folder or a table, as of [`load_tiles`]; or an image file, which is told with the others of its image.
        bands: As of [`load_tiles`].
        units: As of [`load_tiles`].
        level: As of [`load_tiles`].
        sensors: As of [`load_tiles`].
        pair: As of [`load_tiles`].
        suspect: "accept" images that look wrong by a guess; else they are called suspect, for what is left out is to be seen here.
        limit: The most images to read, evenly spread.

    Returns:
        A report of each file, the tiles, and what is wrong.

    Raises:
        FileNotFoundError: If there is nothing, or no file that could be an image.
        ValueError: If an argument cannot be meant.
        ImportError: If rasterio is missing.
    """
    check_suspect(suspect)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"No {path}: expected an LMDB, a folder or a table of image files, or an image file.")
    single = path.is_file() and path.suffix.lower() in (*SUFFIXES, ARRAYS)
    if path.is_file() and not single and path.suffix.lower() not in TABLE_SUFFIXES:
        raise ValueError(
            f"{path} is neither a table ({', '.join(TABLE_SUFFIXES)}) nor an image file ({', '.join(SUFFIXES)})."
        )
    wrong: Wrong = {}
    names = SensorNames(sensors)
    whole = path.parent if single else path
    found = find_tiles(whole, sensors=sensors, bands=bands, units=units, level=level, pair=pair, wrong=wrong)
    images = list(
        dict.fromkeys([*(image for tile in found.tiles for image in tile.images.values()), *found.reference_maps])
    )
    discovery = find_images(whole, names, {}) if whole.is_dir() else Discovery([], [], {}, {}, {})
    if single:
        images = [image for image in images if path.resolve() in image.paths(found.root)]
    looked = [images[place * len(images) // limit] for place in range(limit)] if len(images) > limit else images
    reports: dict[str, FileReport] = {}
    looks = {
        image: _look(found.root, image, suspect) for image in tqdm(looked, desc="Reading images", unit="image", delay=2)
    }
    _compare_bands(looks)
    for image, look in looks.items():
        for report in _of_image(found.root, image, look):
            _add(reports, report)
    taken = {str(file) for image in images for file in image.paths(found.root)}
    left = [] if single and images else [path] if single else list(_left(found.root, whole, taken))
    for number, file in enumerate(left):
        report = _of_other_file(found.root, file, discovery, names, is_opened=number < limit)
        reports[report.file] = report
    problems = [*(f"{at}: {reason}" for at, reason in found.broken.values())]
    for message, files in wrong.items():
        known = [reports[file] for file in files if file in reports]
        for report in known:
            report.verdict, report.reasons = "refused", [message]
            report.bands = report.bands or [
                said.band for said in [names.parse_stem(Path(report.file).stem)] if said.band
            ]
        if not known and not single:
            problems.append(message)
    others = (
        Counter(file.suffix.lower() for file in _other_kinds(whole, taken))
        if whole.is_dir() and not single
        else Counter()
    )
    if not reports and not problems and not others:
        raise FileNotFoundError(
            f"{path} holds no LMDB and no image files: expected files ending with {', '.join(SUFFIXES)}, or data.mdb of an LMDB."
        )
    tiles = {} if single else {tile.row.id: _images_of(tile) for tile in found.tiles}
    sorted_reports = sorted(reports.values(), key=lambda report: report.file)
    return Inspection(
        str(path), sorted_reports, tiles, problems, len(images), len(looked), dict(sorted(others.items()))
    )


def _images_of(tile: FoundTile) -> dict[str, str]:
    return {sensor: image_path(image) for sensor, image in sorted(tile.images.items())}


def _left(root: Path, folder: Path, taken: set[str]) -> Iterator[Path]:
    """Image files below a folder that are of no image."""
    if not folder.is_dir():
        return
    for directory, names, files in os.walk(root, followlinks=False):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for file in sorted(files):
            path = os.path.join(directory, file)
            if os.path.splitext(file)[1].lower() in SUFFIXES and path not in taken:
                yield Path(path)


def _other_kinds(folder: Path, taken: set[str]) -> Iterator[Path]:
    """Files of kinds that may hold images, but for archives of arrays that are images."""
    for path in folder.rglob("*"):
        if path.suffix.lower() in OTHER_KINDS and path.is_file() and str(path.resolve()) not in taken:
            yield path


def _add(reports: dict[str, FileReport], report: FileReport) -> None:
    """Put a report to the others; a file of several dates or of two sensors is told once for each sensor."""
    key = f"{report.file}\0{report.sensor}"
    other = reports.get(report.file)
    if other is not None and other.sensor != report.sensor:
        other = reports.get(key)
    else:
        key = report.file
    if other is None:
        reports[key] = report
        return
    other.images += 1
    if VERDICTS.index(report.verdict) < VERDICTS.index(other.verdict):
        other.verdict = report.verdict
    other.reasons = list(dict.fromkeys([*other.reasons, *report.reasons]))
    other.no_data = max(filter(None, (other.no_data, report.no_data)), default=other.no_data)


@functools.lru_cache(maxsize=256)
def _described(path: Path) -> Raster:
    """What a file declares; asked for once for each of its many dates."""
    return describe(path)


def _look(root: Path, image: TiffImage, suspect: str) -> _Look:
    """Read an image and check its pixels, as far as it goes."""
    look = _Look()
    files = image.paths(root)
    for path in files:
        try:
            _described(path)
        except RasterError as error:
            look.problems.append(str(error))
    if look.problems or image.sensor == REFERENCE_MAP:
        return look
    level = image.level
    for _ in range(2):
        try:
            bands = read_image(files, sensor=image.sensor, said=Said(image.unit, level), series=image.series)
            look.facts, look.sizes = bands.facts, {band: pixels.size for band, pixels in bands.items()}
            problems, suspicions = look_at_pixels(image.sensor, bands)
            look.problems += problems
            look.suspicions += [] if suspect == "accept" else suspicions
            return look
        except RasterError as error:
            look.problems.append(str(error))
            if "(--level L1C)" not in str(error):
                return look
            level = "L1C"  # to see what else is wrong
    return look


def _compare_bands(looks: Mapping[TiffImage, _Look]) -> None:
    """Say which images lack bands that more than half of the images of their sensor have: files that are missing, as a rule."""
    by_sensor: dict[str, dict[TiffImage, set[str]]] = {}
    for image, look in looks.items():
        if bands := set(look.sizes or image.bands):
            by_sensor.setdefault(image.sensor, {})[image] = bands
    for sensor, images in by_sensor.items():
        counts = Counter(band for bands in images.values() for band in bands)
        usual = [band for band in in_order(list(counts)) if counts[band] > len(images) / 2]
        for image, bands in images.items():
            if lacking := [band for band in usual if band not in bands]:
                looks[image].problems.append(
                    f"the {sensor} image {image.name} lacks {', '.join(lacking)}, which most others have: restore the file"
                )


def look_at_pixels(sensor: str, image: BandImage) -> tuple[list[str], list[str]]:
    """Look for what the processor refuses, of a tile of another size within a part of it: what is wrong, and what looks wrong."""
    problems: list[str] = []
    if image.facts.no_data:
        counts = {band: count / image[band].size for band, count in image.facts.no_data.items()}
        band = max(counts, key=lambda name: counts[name])
        problems.append(
            f"{sensor} has pixels without a measurement, {counts[band]:.1%} of {band}, as the file says: crop or leave out such tiles"
        )
        return problems, []
    try:
        check_sizes(sensor, measure_bands(stack_bands([image], sensor, list(image))), SIZE)
    except ValueError as error:
        problems.append(str(error))
    part, size = _tile_of(image)
    if not part:
        return problems, []
    images = Images(sensor, measure_bands(stack_bands([part], sensor, list(part))), image.unit, [0])
    for check in (check_finite, lambda images: check_units(images, size), check_no_data, check_copies, check_guesses):
        try:
            check(images)
        except SuspectImageError as error:
            return problems, [_of_one(str(error))]
        except ValueError as error:
            problems.append(_of_one(str(error)))
            if check is not check_no_data:
                break  # what else is wrong would be so for the same reason
    return problems, []


def _of_one(message: str) -> str:
    return re.sub(r"\bof image 0\b|\bimage 0\b", lambda match: "of the image" if "of" in match[0] else "image", message)


def _tile_of(image: BandImage) -> tuple[dict[str, np.ndarray[Any, Any]], int]:
    """A square part of an image, and its pixels of the finest band: of a tile's size where the image is larger."""
    rows, columns = max((pixels.shape for pixels in image.values()), key=lambda shape: shape[0])
    size = min(rows, columns, SIZE)
    part = {}
    for band, pixels in image.items():
        if pixels.shape[0] * columns != pixels.shape[1] * rows or (size * pixels.shape[0]) % rows:
            continue
        edge = size * pixels.shape[0] // rows
        part[band] = np.ascontiguousarray(pixels[:edge, :edge])
    return part, size


def _of_image(root: Path, image: TiffImage, look: _Look) -> Iterator[FileReport]:
    """A report of each file of an image."""
    facts = look.facts
    verdict = "refused" if look.problems else "suspect" if look.suspicions else "ok"
    reasons = [*look.problems, *look.suspicions]
    for path, order in image.paths(root).items():
        report = FileReport(_relative(path, root), image.sensor, [], verdict=verdict, reasons=list(reasons))
        if image.sensor == REFERENCE_MAP:
            report.sensor, report.verdict = None, "left out" if not reasons else "refused"
            report.reasons = reasons or ["a reference map of BigEarthNet v2"]
            yield report
            continue
        try:
            raster = _described(path)
            layers = list_layers(raster, order, order or None)
        except RasterError:
            yield report
            continue
        bands = [layer.name.band for layer in layers if layer.name.band and image.series in (None, layer.name.rest)]
        if facts is not None:
            bands = [band for band in bands if band in look.sizes]
        report.bands = [str(band) for band in bands]
        kind = kind_of(image.sensor, report.bands)
        _describe(report, raster, kind)
        if facts is not None:
            report.unit, report.unit_by = facts.unit, facts.unit_by or None
            report.notes = list(facts.notes)
            if report.unit is None and verdict == "ok" and bands:
                report.unit = BAND_UNIT.get(report.bands[0])
                report.unit_by = "the range of the pixels; nobody says it" if report.unit else None
            held = [facts.no_data.get(band, 0) / look.sizes[band] for band in report.bands]
            report.no_data = max(held, default=0.0)
        report.offset = {"dn": 0, "dn+1000": 1000}.get(report.unit or "")
        if kind == "s2" and report.level is None and "B10" in bands:
            report.level = "L1C"
        yield report


def _describe(report: FileReport, raster: Raster, kind: str | None) -> None:
    """What a file and its name say without its pixels."""
    product = product_of(raster.path, kind)
    report.size = raster.grid.shape
    report.metres = round(max(raster.grid.metres), 2) if raster.grid.metres else None
    report.date = product.date.isoformat() if product.date else None
    report.platform, report.level = product.platform, product.level
    if kind == "s2" and report.level is None:
        try:
            beside = read_beside(raster.path)
        except RasterError:
            return  # said on reading
        report.level = beside.level if beside else None


def _of_other_file(root: Path, path: Path, discovery: Discovery, names: SensorNames, *, is_opened: bool) -> FileReport:
    """A report of a file that is of no image; `is_opened`: whether to look into it."""
    file = _relative(path, root)
    report = FileReport(file, verdict="left out")
    product = product_of(path)
    said = names.parse_stem(path.stem)
    side = discovery.sides.get(file)
    if not is_opened:
        report.reasons = [f"known, and no band ({side})" if side else "names no sensor; not looked into (--limit)"]
        return report
    try:
        raster = describe(path)
    except RasterError as error:
        report.verdict, report.reasons = ("left out" if side else "refused"), [str(error)]
        return report
    _describe(report, raster, None)
    layers = [layer for layer in raster.layers if not layer.alpha]
    if side or path.stem.endswith(REFERENCE_MAP_SUFFIX):
        report.reasons = [f"known, and no band ({side or 'reference map'})"]
    elif file in discovery.unknown:
        report.verdict, report.reasons = "refused", [f"{file}: {unknown_word(discovery.unknown[file])}"]
    elif product.sensor not in (None, "s1", "s2"):
        report.verdict = "refused"
        report.bands = [said.band] if said.band else []
        report.reasons = [
            f"it is of {product.platform} by its name: its bands are not those of Sentinel-2, whatever their numbers"
        ]
    elif len(layers) > 1:
        report.verdict = "refused"
        report.reasons = [
            f"{file} names no sensor, nor its {len(layers)} layers. If it is an image, say which bands they are, in the order of the "
            f"file: bands={{'s2': [...]}} in Python, --bands s2=NAME,NAME,... on the command line, with {len(layers)} names (SCL and "
            "the like stand for layers that are none)"
        ]
    else:
        report.reasons = ["names no sensor and no band: a mask, or a map? Rename it if it is an image (NAME_B02.tif)"]
    return report


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)


# As text

_MOST_ROWS = 40
_MOST_TILES = 10
_WIDTH = 120


def format_inspection(found: Inspection) -> Iterator[str]:
    """Say in lines of at most 120 characters, but for reasons, what files were taken for; long lists are cut, worst first."""
    shown = list(found.files)
    if len(shown) > _MOST_ROWS:
        shown = sorted(shown, key=lambda report: VERDICTS.index(report.verdict))[:_MOST_ROWS]
    kinds: dict[str, list[tuple[FileReport, str]]] = {}
    for report in found.files:
        for reason in report.reasons:
            kinds.setdefault(_kind_of_reason(reason), []).append((report, reason))
    numbers = {kind: number for number, kind in enumerate(kinds, 1)}
    yield from _table(shown, numbers)
    if len(shown) < len(found.files):
        rest = Counter(report.verdict for report in found.files)
        rest.subtract(report.verdict for report in shown)
        yield f"... and {len(found.files) - len(shown)} more: {_counted(rest)} (--format json lists all)"
    if kinds:
        yield ""
    for kind, reports in kinds.items():
        files = list(dict.fromkeys(report.file for report, _ in reports))
        reason = _short(reports[0][1], found.source)
        alike = files[1:] if reason.startswith(files[0]) else files  # as most messages of files do
        where = ", ".join(alike[:3]) + (f" and {len(alike) - 3} more" if len(alike) > 3 else "")
        if alike == files:
            yield f"({numbers[kind]}) {where}: {reason}"
        else:
            yield f"({numbers[kind]}) {reason}" + (f" The same: {where}." if where else "")
    if remedy := unit_remedy(reason for reports in kinds.values() for _, reason in reports):
        yield remedy
    yield ""
    yield from _tiles(found)
    for problem in found.problems:
        yield f"wrong     {_short(problem, found.source)}"
    if found.others:
        listed = ", ".join(f"{count} {ending}" for ending, count in found.others.items())
        yield f"not read  {listed}: files of these kinds are not looked at in a folder; give GeoTIFF or JPEG 2000"
    if found.looked_at < found.images:
        yield f"images    {found.looked_at:,} of {found.images:,} were read, evenly spread (--limit)"
    yield f"files     {len({report.file for report in found.files})}: {_counted(found.counts) or 'none that could be an image'}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts.get(verdict))


def _short(text: str, source: str) -> str:
    """A message without the path of the folder that was asked about."""
    for start in dict.fromkeys((str(Path(source).resolve()), source, str(Path(source).resolve().parent))):
        text = text.replace(f"{start.rstrip('/')}/", "")
    return text


def _kind_of_reason(reason: str) -> str:
    """A reason without what is each file's own: paths, names and numbers."""
    reason = re.sub(r"no band \(.*", "no band", reason)
    reason = re.sub(r"[^\s:,()]*\.(?:tiff?|jp2)\b", "#", reason, flags=re.IGNORECASE)
    return re.sub(r"(?<![A-Za-z\d])[-+]?\d[\d.,e+-]*", "#", reason)  # numbers, not s1 or B02


def _table(reports: Sequence[FileReport], numbers: Mapping[str, int]) -> Iterator[str]:
    if not reports:
        return
    rows = [_row(report, numbers) for report in reports]
    heads = ("FILE", "SENSOR", "BANDS", "UNIT", "OFFSET", "LEVEL", "METRES", "PIXELS", "DATE", "PLATFORM", "NO-DATA")
    columns = [
        (head, [row[place] for row in rows])
        for place, head in enumerate((*heads, "VERDICT"))
        if any(row[place] for row in rows)
    ]
    widths = [max(len(head), *map(len, cells)) for head, cells in columns]
    widths[0] = min(widths[0], max(24, _WIDTH - sum(widths[1:]) - 2 * (len(columns) - 1)))
    for place in range(-1, len(rows)):
        cells = [
            head if place < 0 else _cut(values[place], width)
            for (head, values), width in zip(columns, widths, strict=True)
        ]
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cut(text: str, width: int) -> str:
    """The end of a long path: that is what tells files apart."""
    return text if len(text) <= width else "..." + text[3 - width :]


_SAID_BY = (("the call", "you"), ("name", "name"), ("range of the pixels", "guess"))


def _row(report: FileReport, numbers: Mapping[str, int]) -> tuple[str, ...]:
    notes = sorted({numbers[_kind_of_reason(reason)] for reason in report.reasons})
    bands = report.bands
    listed = " ".join(bands) if len(bands) <= 3 else f"{bands[0]} .. {bands[-1]} ({len(bands)})"
    by = next((short for words, short in _SAID_BY if words in (report.unit_by or "")), "file")
    return (
        report.file,
        report.sensor or "",
        f"{listed} x {report.images}" if report.images > 1 else listed,
        f"{report.unit} ({by})" if report.unit else "",
        str(report.offset) if report.offset else "",
        report.level or "",
        "" if report.metres is None else f"{report.metres:.4g}",
        "x".join(map(str, report.size or ())),
        (report.date or "")[:10],
        report.platform or "",
        f"{report.no_data:.1%}" if report.no_data else "",
        report.verdict + (f" ({','.join(map(str, notes))})" if notes else ""),
    )


def _tiles(found: Inspection) -> Iterator[str]:
    """The tiles by which sensors they have, and the pairs."""
    if not found.tiles:
        return
    kinds = Counter(tuple(images) for images in found.tiles.values())
    listed = ", ".join(f"{count} of {' and '.join(sensors)}" for sensors, count in kinds.most_common())
    yield f"tiles     {len(found.tiles)}: {listed}"
    pairs = {name: images for name, images in found.tiles.items() if len(images) > 1}
    for name, images in list(pairs.items())[:_MOST_TILES]:
        places = list(dict.fromkeys(images.values()))
        short = list(dict.fromkeys(place.rpartition("/")[2] for place in places))  # where that tells them apart
        shown = short if len(short) == len(places) else places
        yield f"  {name}: " + (" + ".join(shown) if len(places) > 1 else f"{shown[0]}, of {' and '.join(images)}")
    if len(pairs) > _MOST_TILES:
        yield f"  ... and {len(pairs) - _MOST_TILES} more pairs"
