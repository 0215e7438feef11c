"""What names say: which band a spelling means, and which sensor a band, a file or a folder is of."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from csmae_hf.bigearthnet import SENSORS

_KNOWN = {name: (*sensor.bands, *sensor.other_bands) for name, sensor in SENSORS.items()}
_ORDER = {band: place for place, band in enumerate(band for bands in _KNOWN.values() for band in bands)}
_BAND = r"B\d{1,2}A?|VV|VH"


def canonical_band(name: str | None) -> str | None:
    """Give a band of Sentinel-1 or Sentinel-2 its one name, as BigEarthNet spells it: B2 and b02 are B02; None for any other."""
    match = re.fullmatch(r"\s*(?:B0*(\d{1,2})(A?)|(VV|VH))\s*", name or "", re.IGNORECASE)
    if match is None:
        return None
    band = match[3].upper() if match[3] else f"B{match[1]}A" if match[2] else f"B{int(match[1]):02d}"
    return band if band in _ORDER else None


def in_order(bands: Collection[str]) -> tuple[str, ...]:
    """Sort bands as BigEarthNet lists them; those it has not come last, as given."""
    return tuple(sorted(bands, key=lambda band: _ORDER.get(band, len(_ORDER))))


class SensorNames:
    """The sensors that images may be of, and how names tell them.

    Those of BigEarthNet are known; others are declared. A band that a declared sensor has is that sensor's, and no more the one's
    of BigEarthNet; where several declared sensors have it, the name of the file or of a folder says which it is.

    Args:
        declared: By sensor, names of its bands, spelled as in the names of files; None or none where its files name them.

    Attributes:
        bands: By sensor, all bands an image of it may have.
    """

    def __init__(self, declared: Mapping[str, Sequence[str] | None] | None = None):
        own: dict[str, tuple[str, ...]] = {sensor: tuple(bands or ()) for sensor, bands in (declared or {}).items()}
        self.bands = _KNOWN | {sensor: bands for sensor, bands in own.items() if sensor not in _KNOWN}
        claimed = {band for bands in own.values() for band in bands}
        self._sensors_of: dict[str, list[str]] = {}
        for sensor, bands in self.bands.items():
            for band in bands:
                if sensor in own or band not in claimed:
                    self._sensors_of.setdefault(band, []).append(sensor)
        others = sorted(claimed - _ORDER.keys(), key=len, reverse=True)
        self._band_file = re.compile(
            rf"(?P<prefix>(?:.*[_.\-])?)(?P<band>(?i:{_BAND}){''.join(f'|{re.escape(band)}' for band in others)})"
        )
        # a satellite's letter may follow a sensor of BigEarthNet (S1A), nothing the name of another
        names = [
            f"{re.escape(name)}(?![a-z0-9])" for name in sorted(self.bands, key=len, reverse=True) if name not in _KNOWN
        ]
        sensor = "|".join([*names, *(f"{name}(?![0-9])" for name in _KNOWN)])
        self._in_name = re.compile(rf"(?:^|[^a-z0-9])({sensor})", re.IGNORECASE)
        plain = "|".join(re.escape(name) for name in sorted(self.bands, key=len, reverse=True))
        self._ending = re.compile(rf"(?:^|[_.\-])(?:{plain})(?:rtc|grd|l1c|l2a)?$", re.IGNORECASE)
        # not the S1_... of a product's own name
        self._beginning = re.compile(rf"^(?:{plain})[_.\-](?!.*_\d{{8}}T)", re.IGNORECASE)

    def band(self, name: str | None) -> str | None:
        """Give a band its one name; None for one that no sensor has."""
        band = canonical_band(name) or name
        return band if band in self._sensors_of else None

    def split_stem(self, stem: str) -> tuple[str, str] | None:
        """Part the stem of a file that is named after a band: what comes before, and the band as spelled; None for any other."""
        match = self._band_file.fullmatch(stem)
        return (match["prefix"], match["band"]) if match and self.band(match["band"]) else None

    def sensor_of_band(self, band: str, path: str = "") -> str | None:
        """Say whose a band is; where several sensors have it, the path of the file must say which."""
        sensors = self._sensors_of.get(band, [])
        said = self.sensor_in_path(path) if len(sensors) > 1 else None
        return sensors[0] if len(sensors) == 1 else said if said in sensors else None

    def sensor_in_path(self, path: str) -> str | None:
        """Say which sensor the last part of a path names that names one."""
        found = (match for part in reversed(Path(path).parts) if (match := self._in_name.search(part)))
        match = next(found, None)
        return next((name for name in self.bands if match and name.lower() == match[1].lower()), None)

    def without_sensor(self, stem: str) -> str:
        """Take from an image's name what only says its sensor, so that the images of a tile are named alike."""
        return self._beginning.sub("", self._ending.sub("", stem))
