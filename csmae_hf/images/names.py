"""The sensors that images may be of, those of BigEarthNet and declared ones, and how names of files and folders tell them."""

import functools
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from csmae_hf.bigearthnet import SENSORS
from csmae_hf.images.band_names import BandName, canonical_band, parse_band
from csmae_hf.images.products import parse_product

_KNOWN = {name: (*sensor.bands, *sensor.other_bands) for name, sensor in SENSORS.items()}
_ORDER = {band: place for place, band in enumerate(band for bands in _KNOWN.values() for band in bands)}
_PLAIN = re.compile(r"(?P<prefix>(?:.*[_.\-])?)(?P<band>(?i:B\d{1,2}A?|VV|VH))")
_LEVELS = "rtc|grd|l1c|l2a|hand|weak"  # what follows a sensor's name in data sets' names (S1Hand: Sen1Floods11)
_NO_IMAGE = re.compile(r"label|mask|lulc|landcover")
_LABEL_WORDS = frozenset(
    ["label", "labels", "mask", "masks", "lulc", "landcover", "annotation", "annotations", "gt", "groundtruth"]
)
_SPELLED_OUT = re.compile(r"(?<![a-z0-9])sen(?:tinel)?[-_ ]?([12])(?=[a-d]?(?![a-z0-9]))", re.IGNORECASE)


def in_order(bands: Collection[str]) -> tuple[str, ...]:
    """Sort bands as BigEarthNet lists them; those it has not come last, as given."""
    return tuple(sorted(bands, key=lambda band: _ORDER.get(band, len(_ORDER))))


Sensors = Mapping[str, Sequence[str] | None] | Sequence[str]
"""Sensors that are asked for, with the bands of each, None for all; or their names alone."""


def bands_by_sensor(sensors: Sensors) -> dict[str, Sequence[str] | None]:
    """Give the bands that are asked for by sensor, None for all of its."""
    if isinstance(sensors, Mapping):
        return dict(sensors)
    return dict.fromkeys([sensors] if isinstance(sensors, str) else sensors)


class BandFile(NamedTuple):
    """What the name of a file of one band says.

    Attributes:
        before: What stands before the band.
        spelled: The band as spelled.
        after: What stands after it.
        band: Its canonical name.
        metres: Ground size of a pixel, where the name says it.
    """

    before: str
    spelled: str
    after: str
    band: str
    metres: int | None = None

    @property
    def image(self) -> str:
        """What the name has besides the band and its size: alike for the bands of one image."""
        if not self.after:
            return self.before.rstrip("_.- ")
        after = re.sub(r"(?i)[_.\- ]*(?:\d{2,3}m|\(raw\))(?![A-Za-z0-9])", "", self.after)
        return self.before.rstrip("_.- ") + after if self.before else after.lstrip("_.- ")


class SensorNames:
    """The sensors that images may be of, and how names tell them.

    Those of BigEarthNet are known; others are declared. A band that a declared sensor has is that sensor's, and no more the one's
    of BigEarthNet; where several declared sensors have it, the name of the file or of a folder says which it is.

    Args:
        declared: By sensor, names of its bands, spelled as in the names of files; None or none where its files name them.

    Attributes:
        bands: By sensor, all bands an image of it may have.
        others: Bands of declared sensors that are not BigEarthNet's.
    """

    def __init__(self, declared: Sensors | None = None):
        asked = bands_by_sensor(declared or {})
        own: dict[str, tuple[str, ...]] = {sensor: tuple(bands or ()) for sensor, bands in asked.items()}
        self.bands = _KNOWN | {sensor: bands for sensor, bands in own.items() if sensor not in _KNOWN}
        claimed = {band for bands in own.values() for band in bands}
        self._sensors_of: dict[str, list[str]] = {}
        for sensor, bands in self.bands.items():
            for band in bands:
                if sensor in own or band not in claimed:
                    self._sensors_of.setdefault(band, []).append(sensor)
        self.others = tuple(sorted(claimed - _ORDER.keys(), key=len, reverse=True))
        self._other_file = re.compile(
            rf"(?P<prefix>(?:.*[_.\-])?)(?P<band>{'|'.join(map(re.escape, self.others)) or '(?!)'})"
        )
        # a satellite's letter may follow a sensor of BigEarthNet (S1A), nothing the name of another
        names = [
            f"{re.escape(name)}(?![a-z0-9])" for name in sorted(self.bands, key=len, reverse=True) if name not in _KNOWN
        ]
        sensor = "|".join([*names, *(f"{name}(?![0-9])" for name in _KNOWN)])
        self._in_name = re.compile(rf"(?:^|(?<=[^a-z0-9]))({sensor})([a-z0-9]*)", re.IGNORECASE)
        plain = "|".join(re.escape(name) for name in sorted(self.bands, key=len, reverse=True))
        self._ending = re.compile(rf"(?:^|[_.\-])(?:{plain})(?:{_LEVELS})?$", re.IGNORECASE)
        self._middle = re.compile(rf"(?<=[_.\-])(?:{plain})(?:{_LEVELS})?[_.\-]", re.IGNORECASE)
        # not the S1_... of a product's own name
        self._beginning = re.compile(rf"^(?:{plain})[_.\-](?!.*_\d{{8}}T)", re.IGNORECASE)
        self._plain_name = functools.lru_cache(maxsize=1024)(self._says_band)

    def band(self, name: str | None) -> str | None:
        """Give a band its one name; None for one that no sensor has."""
        band = canonical_band(name) or name
        return band if band in self._sensors_of else None

    def parse_stem(self, stem: str) -> BandFile | BandName:
        """Read the stem of a file: of one band of a sensor, or what else it says ([`BandName`] without a band)."""
        if match := self._other_file.fullmatch(stem):
            return BandFile(match["prefix"], match["band"], "", match["band"])
        # most files end with the band; what stands before it is alike for all bands of an image, and looked at once
        if match := _PLAIN.fullmatch(stem):
            band = canonical_band(match["band"])
            if band in self._sensors_of and self._plain_name(match["prefix"]):
                return BandFile(match["prefix"], match["band"], "", str(band))
        said = parse_band(stem, file=True)
        if said.unknown:
            return said
        if said.band is None or said.band not in self._sensors_of:
            return said._replace(band=None, layer=said.layer if _is_side_file(stem, said) else None)
        words = list(re.finditer(r"[A-Za-z0-9]+", stem))
        for length in (1, 2, 3):  # names of several words, such as red_edge_1 and Band_2
            for place in reversed(range(len(words) - length + 1)):
                start, end = words[place].start(), words[place + length - 1].end()
                if canonical_band(stem[start:end]) == said.band:
                    return BandFile(stem[:start], stem[start:end], stem[end:], said.band, said.metres)
        return BandFile(stem, "", "", said.band, said.metres)

    @staticmethod
    def _says_band(prefix: str) -> bool:
        return parse_band(f"{prefix}B02", file=True).band == "B02"

    def sensor_of_band(self, band: str, path: str = "", top: str = "") -> str | None:
        """Say whose a band is; where several sensors have it, the path of the file below the folder `top` must say which."""
        sensors = self._sensors_of.get(band, [])
        if len(sensors) == 1:
            return sensors[0]
        said = self.sensor_in_path(os.path.join(top, path)) if sensors else None
        return said if said in sensors else None

    def sensor_in_path(self, path: str) -> str | None:
        """Say which sensor the last part of a path names that names one alone.

        A part that names two (`pairs_s1s2`) says nothing of an image; what is called a label map or a mask is of none.
        """
        for part in map(self._abbreviated, reversed(Path(path).parts)):
            found: set[str] = set()
            if not _LABEL_WORDS.isdisjoint(re.split(r"[^a-z0-9]+", part.lower())):
                return None
            for match in self._in_name.finditer(part):
                sensor, rest = match[1].lower(), match[2].lower()
                if _NO_IMAGE.search(rest):
                    return None
                found |= {sensor, *(name for name in _KNOWN if name in rest)}
            if len(found) == 1:
                return next(name for name in self.bands if name.lower() in found)
        return None

    def _abbreviated(self, text: str) -> str:
        """A name with `s1` for `sen1`, `sentinel-1` and the like, where no declared sensor is called so."""
        return text if any(map(_SPELLED_OUT.search, self.bands)) else _SPELLED_OUT.sub(r"s\1", text)

    def without_sensor(self, stem: str) -> str:
        """Take from an image's name what only says its sensor, so that the images of a tile are named alike."""
        short = stem if parse_product(stem).platform else self._abbreviated(stem)
        name = self._beginning.sub("", self._ending.sub("", short))
        name = name if parse_product(name).platform else self._middle.sub("", name)
        return stem if name == short else name


def _is_side_file(stem: str, said: BandName) -> bool:
    """Whether the word that says that a file is no band stands where products have it: at the end, or at the beginning."""
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", stem) if word]
    while len(words) > 1 and re.fullmatch(r"\d{2,3}m|\d{1,2}|map|raw", words[-1]):
        words.pop()
    return said.layer is not None and (said.layer == words[-1] or words[0] in ("msk", "mask"))
