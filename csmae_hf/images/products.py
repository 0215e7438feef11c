"""What the name of a file or folder says of the product it is from: platform, level, baseline, tile, date, unit.

Pure functions of text. A name is believed where it says something for certain: no platform is guessed from a
band number, no baseline from a date.
"""

import datetime
import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OFFSET_BASELINE = 400
"""First processing baseline of Sentinel-2, times 100, whose digital numbers carry the offset of 1000."""

NO_BASELINE = 9999
"""Baseline of products made outside ESA's chain (BigEarthNet v2, 99.99 of CDSE): larger than 0400, and says nothing of the offset."""

_SEP = r"(?:^|(?<=[^A-Za-z0-9]))"
_S2_PRODUCT = re.compile(
    _SEP + r"(S2[A-D])_MSI(L1C|L2A)_(\d{8}T\d{5,6})(?:_N(\d{4}))?(?:_R\d{3})?(?:_T(\d{2}[A-Z]{3}))?", re.IGNORECASE
)
_S2_GRANULE = re.compile(_SEP + r"(?:(L1C|L2A)_)?T(\d{2}[A-Z]{3})_(\d{8}T\d{6})(?=_|$)", re.IGNORECASE)
_EARTH_SEARCH = re.compile(_SEP + r"(S2[A-D])_T?(\d{2}[A-Z]{3})_(\d{8}(?:T\d{6})?)_(?:\d+_)?(L1C|L2A)", re.IGNORECASE)
_EARTH_ENGINE = re.compile(_SEP + r"(\d{8}T\d{6})_(?:\d{8}T\d{6})_T(\d{2}[A-Z]{3})", re.IGNORECASE)
_S1_PRODUCT = re.compile(
    _SEP + r"(S1[A-D])[_-](?:IW|EW|S\d|WV)[_-](SLC|GRD|OCN|RAW)[A-Z_-]?.*?(\d{8}T\d{6})", re.IGNORECASE
)
_S1_OTHER = re.compile(_SEP + r"(S1[A-D])(?=[_-]).*?(\d{8}(?:T\d{6})?)", re.IGNORECASE)
_HLS = re.compile(_SEP + r"HLS\.([SL])30\.T(\d{2}[A-Z]{3})\.(\d{4})(\d{3})(?:T(\d{6}))?", re.IGNORECASE)
_LANDSAT = re.compile(
    _SEP
    + r"(?:L[COTEM]0?[1-9]_L\d[A-Z]{2}|L[COTEM][1-9]\d{13}|landsat|oli(?=[_\-.]|$)|l[4-9](?=[_\-.]|$)|lc0?[89](?=[_\-.]|$))",
    re.IGNORECASE,
)
_HYP3 = re.compile(
    _SEP + r"S1[A-D]_\w{2}_\d{8}T\d{6}_\w+_RTC(\d{2})_[A-Z]_([gs])([pda])[uw][nf][ec][dm]_", re.IGNORECASE
)
_OPERA = re.compile(_SEP + r"OPERA_L2_RTC-S1_.*?(\d{8}T\d{6})Z?", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(20\d{2})[-_]?(\d{2})[-_]?(\d{2})(?:T(\d{2}):?(\d{2}):?(\d{2}))?(?!\d)")
_TOP_OF_ATMOSPHERE = re.compile(r"(?:^|[^A-Za-z])toa(?![A-Za-z0-9])", re.IGNORECASE)
_LEVEL = re.compile(r"(?:^|[^A-Za-z])(?:S2)?(L1C|L2A)(?![A-Za-z0-9])", re.IGNORECASE)
_RAW_EXPORT = re.compile(r"Sentinel-2_L(?:1C|2A)_.*\(Raw\)", re.IGNORECASE)


class Product(NamedTuple):
    """What a name says of a product.

    Attributes:
        platform: "S1A", "S2B", ..., "S1" or "S2" where the unit is not told, "Landsat", "HLS-L30", "HLS-S30"; None if it says none.
        level: "L1C" or "L2A" of Sentinel-2; "GRD", "SLC" or "RTC" of Sentinel-1.
        baseline: Processing baseline times 100, such as 510; None if it says none.
        tile: MGRS tile, such as "33UUP".
        date: Of the acquisition, its beginning.
        unit: As of `UNIT_NAMES`, or "amplitude"; where the product's naming fixes it.
        quantity: "sigma0" or "gamma0".
        metres: Ground size of its pixels.
        raw_export: Whether it is a raw export of the Copernicus Browser, whose integers are reflectance x 65535.
    """

    platform: str | None = None
    level: str | None = None
    baseline: int | None = None
    tile: str | None = None
    date: datetime.datetime | None = None
    unit: str | None = None
    quantity: str | None = None
    metres: int | None = None
    raw_export: bool = False

    @property
    def sensor(self) -> str | None:
        """The platform's family: "s1", "s2", or the name of another platform in lower case; None if unknown."""
        if self.platform is None:
            return None
        name = self.platform.lower()
        return name[:2] if name[:2] in ("s1", "s2") else "s2" if name == "hls-s30" else name

    @property
    def has_offset(self) -> bool | None:
        """Whether the name alone says that the digital numbers carry the offset of 1000; None if it does not say.

        A product of baseline 04.00 and later as ESA writes it does, one before does not; 99.99 says nothing (the decision table
        of the offset: never the date, for old scenes were processed again).
        """
        if self.baseline is None or self.baseline == NO_BASELINE:
            return None
        return self.baseline >= OFFSET_BASELINE


@functools.lru_cache(maxsize=4096)
def parse_product(name: str) -> Product:
    """Read what a file's or a folder's name says of its product.

    Args:
        name: The name, with or without its ending.

    Returns:
        What it says; all None where it says nothing.
    """
    # a million names are read of a large data set: what a substring rules out is not searched for
    low = name.lower()
    of_s1 = low.startswith("s1")
    if "hls" in low and (match := _HLS.search(name)):
        day = datetime.datetime.strptime(f"{match[3]}{match[4]}", "%Y%j")
        time = datetime.datetime.strptime(match[5], "%H%M%S").time() if match[5] else datetime.time()
        return Product(
            f"HLS-{match[1].upper()}30", "L2A", None, match[2].upper(), datetime.datetime.combine(day, time), metres=30
        )
    if "msil" in low and (match := _S2_PRODUCT.search(name)):
        return Product(
            match[1].upper(),
            match[2].upper(),
            int(match[4]) if match[4] else None,
            match[5].upper() if match[5] else None,
            parse_time(match[3]),
        )
    if "s2" in low and (match := _EARTH_SEARCH.search(name)):
        return Product(match[1].upper(), match[4].upper(), None, match[2].upper(), parse_time(match[3]))
    if not of_s1 and (match := _EARTH_ENGINE.search(name)):
        return Product("S2", _level(name), None, match[2].upper(), parse_time(match[1]))
    if not of_s1 and (match := _S2_GRANULE.search(name)):
        return Product("S2", _level(name), None, match[2].upper(), parse_time(match[3]))
    if "opera" in low and (match := _OPERA.search(name)):
        craft = re.search(r"_(S1[A-D])_", name, re.IGNORECASE)
        platform = craft[1].upper() if craft else "S1"
        return Product(platform, "RTC", None, None, parse_time(match[1]), "linear", "gamma0", 30)
    if "_rtc" in low and (match := _HYP3.search(name)):
        unit = {"p": "linear", "d": "db", "a": "amplitude"}[match[3].lower()]
        quantity = {"g": "gamma0", "s": "sigma0"}[match[2].lower()]
        other = _S1_OTHER.search(name)
        return Product(
            other[1].upper() if other else "S1",
            "RTC",
            None,
            None,
            parse_time(other[2]) if other else None,
            unit,
            quantity,
            int(match[1]),
        )
    if "s1" in low and (match := _S1_PRODUCT.search(name)):
        return Product(match[1].upper(), match[2].upper(), None, None, parse_time(match[3]))
    if "s1" in low and (match := _S1_OTHER.search(name)):
        return Product(match[1].upper(), None, None, None, parse_time(match[2]))
    level, date = _level(name), _first_date(name)
    if _RAW_EXPORT.search(name):
        return Product("S2", level, None, None, date, raw_export=True)
    if _LANDSAT.search(name):
        return Product("Landsat", date=date)
    return Product(level=level, date=date)


def of_path(parts: Sequence[str]) -> Product:
    """Read what a path says: its file's name first, then the folders', the innermost first; each adds what is not said yet.

    Args:
        parts: Names from the outermost folder to the file.

    Returns:
        What they say together. Where a folder names another platform family than the file, the file has the word.
    """
    found = Product()
    for part in reversed(parts):
        said = parse_product(part)
        if found.sensor and said.sensor and found.sensor != said.sensor:
            continue
        if found.platform in ("S1", "S2") and said.platform:
            found = found._replace(platform=said.platform)
        found = found._replace(
            **{name: value for name, value in said._asdict().items() if getattr(found, name) in (None, False)}
        )
    return found


def parse_time(text: str) -> datetime.datetime | None:
    """Read a time as products spell it: `20170613T101031`, `20200219`; seconds above 59 (BigEarthNet v1) run on.

    Returns:
        The time, UTC without a zone; None if there is no such day.
    """
    digits = "".join(filter(str.isdecimal, text))
    try:  # not strptime, which takes ten times as long
        day = datetime.datetime(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None
    clock = digits[8:]
    if len(clock) < 5:
        return day
    # BigEarthNet v1 lost the leading zero of hours before ten: `T94161` is 9:41:61
    clock = clock.zfill(6)
    return day + datetime.timedelta(hours=int(clock[:2]), minutes=int(clock[2:4]), seconds=int(clock[4:6]))


def _level(name: str) -> str | None:
    match = _LEVEL.search(name)
    if match:
        return match[1].upper()
    return "L1C" if _TOP_OF_ATMOSPHERE.search(name) else None


def _first_date(name: str) -> datetime.datetime | None:
    for match in _DATE.finditer(name):
        time = parse_time("".join(match.groups(default="")))
        if time is not None and 2014 <= time.year <= 2100:  # Sentinel-1A was launched in 2014
            return time
    return None


def season(date: datetime.date, latitude: float | None) -> str:
    """Name the meteorological season of a date on its hemisphere, as BigEarthNet names them.

    Args:
        date: The date.
        latitude: Degrees north; None is taken for the north.

    Returns:
        "Winter", "Spring", "Summer" or "Fall".
    """
    names = ("Winter", "Spring", "Summer", "Fall")
    place = date.month % 12 // 3
    return names[(place + 2) % 4 if latitude is not None and latitude < 0 else place]


def latitude_sign(tile: str) -> int:
    """Say on which hemisphere an MGRS tile lies: bands N to X are north.

    Returns:
        1 or -1.
    """
    return 1 if tile[2].upper() >= "N" else -1


def families(products: Iterable[Product]) -> list[str]:
    """List the sensor families that products name, each once."""
    return list(dict.fromkeys(product.sensor for product in products if product.sensor))
