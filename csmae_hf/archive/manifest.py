"""The JSON of an archive: read in bounded time, and checked as a whole before anything that it says is used."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

MANIFEST = "archive.json"
FORMAT = "csmae-archive"
VERSION = 3
"""Written by this release. Versions 1 and 2 knew no segments, and are read as archives of one."""

_MOST_BYTES = 256 << 20
_SENSOR = re.compile(r"[\w-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COUNT = range(2**48)

OWN_FILE = re.compile(r"(?:embeds|tiles|index|alignment|order|removed)[\w-]*-[0-9a-f]{12}\.[a-z]+")
"""Names of files that an archive holds; they end in a hash of what is in them."""


class ArchiveCorruptError(ValueError):
    """A file of an archive that is not what was written."""


class _Named(NamedTuple):
    """An object of any number of entries, whose names match a pattern."""

    names: re.Pattern[str]
    shape: Any


_IDENTITY = {
    "model": str,
    "revision": (str, None),
    "weights": str,
    "processor": str,
    "metric?": str,
    "config?": (dict, None),
    "precision?": (str, None),
    "code?": (str, None),
    "trained_on_generated?": (bool, None),
}
_PROVENANCE = {
    "alignment": str,
    "alignment_hash": (_SHA256, None),
    "data": (str, None),
    "generated": (bool, None),
    "tiles": _Named(re.compile(r"(?s).*"), {"count": _COUNT, "sha256?": _SHA256, "sum?": _SHA256}),
}
_RECALL = {
    "query_sensor": str,
    "archive_sensor": str,
    "share": float,
    "kept": _COUNT,
    "queries": _COUNT,
    "k": _COUNT,
    "recall": float,
}
_COMPRESSION = {
    "kind": str,
    "query_sensor": str,
    "archive_sensor": str,
    "tiles": _COUNT,
    "bytes": float,
    "candidates": _COUNT,
    "queries": _COUNT,
    "k": _COUNT,
    "recall": float,
    "f1": (float, None),
    "proven": float,
    "seconds": float,
    "chosen": bool,
}
_INDEX = {"backend": str, "parameters": dict, "file?": OWN_FILE}
_ALWAYS = {
    "format": str,
    "version": range(1, VERSION + 1),
    "sha256": _SHA256,
    "made_with": _IDENTITY,
    "provenance?": _PROVENANCE,
    "width": range(1, 2**20),
    "alignment": (OWN_FILE, None),
    "recall": [_RECALL],
    "compression?": [_COMPRESSION],
    "unreadable": _Named(re.compile(r"(?s).*"), str),
    "source": dict,
    "files": _Named(OWN_FILE, {"sha256": _SHA256, "size": _COUNT}),
}
_SEGMENT = {
    "count": _COUNT,
    "tiles": OWN_FILE,
    "embeds": _Named(_SENSOR, OWN_FILE),
    "order": (OWN_FILE, None),
    "removed": (OWN_FILE, None),
}
_NEW = _ALWAYS | {
    "tiles": {"count": _COUNT},
    "sensors": _Named(_SENSOR, {"index": _INDEX}),
    "segments": [_SEGMENT],
}
_OLD = _ALWAYS | {
    "tiles": {"count": _COUNT, "file": OWN_FILE},
    "sensors": _Named(_SENSOR, {"file": OWN_FILE, "index": _INDEX}),
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the JSON of an archive, of whatever version, as one of this.

    Raises:
        FileNotFoundError: If there is none.
        ArchiveCorruptError: If it is broken, was changed, is of a later version, or says what no archive says.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"No archive at {folder}: expected a folder with {MANIFEST}. Build one with `csmae archive build`."
        )
    with path.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ArchiveCorruptError(f"{path} is larger than {_MOST_BYTES >> 20} MiB: no archive's JSON is.")
    try:
        manifest = json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
        described = manifest["format"], manifest["version"], manifest["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArchiveCorruptError(f"{path} is broken: {error!r}. Copy or build the archive again.") from error
    if described[0] != FORMAT or described[1] not in range(1, VERSION + 1) or isinstance(described[1], bool):
        raise ArchiveCorruptError(
            f"{path} is {described[0]} version {described[1]}; this release reads {FORMAT} version {VERSION} and older. "
            "Update csmae-hf."
        )
    if described[2] != sign(manifest):
        raise ArchiveCorruptError(
            f"{path} was changed after it was written: its checksum does not fit. Copy or build it again."
        )
    _check(manifest, _NEW if manifest["version"] == VERSION else _OLD, str(path))
    if manifest["version"] != VERSION:
        manifest = _of_one_segment(manifest)
    _check_names(manifest, path)
    return manifest


def sign(manifest: Mapping[str, Any]) -> str:
    """Checksum of a manifest, without the entry `sha256`, which holds it; a ValueError if it holds NaN or infinity."""
    held = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(held, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _of_one_segment(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of version 1 or 2 as one of this version."""
    sensors = manifest["sensors"]
    count, tiles = manifest["tiles"]["count"], manifest["tiles"]["file"]
    embeds = {sensor: item["file"] for sensor, item in sensors.items()}
    return {
        **manifest,
        "tiles": {"count": count},
        "sensors": {sensor: {"index": item["index"]} for sensor, item in sensors.items()},
        "segments": [{"count": count, "tiles": tiles, "embeds": embeds, "order": None, "removed": None}],
    }


def _check_names(manifest: Mapping[str, Any], path: Path) -> None:
    """Refuse a manifest whose segments are not of its sensors, or that names a file which it does not describe."""
    sensors, segments = manifest["sensors"], manifest["segments"]
    if not sensors or not segments:
        raise ArchiveCorruptError(f"{path} names no sensor or no segment. Copy or build the archive again.")
    if len({segment["tiles"] for segment in segments}) != len(segments):
        raise ArchiveCorruptError(f"{path} names the same tiles twice. Copy or build the archive again.")
    for segment in segments:
        if segment["embeds"].keys() != sensors.keys():
            raise ArchiveCorruptError(
                f"{path} is of the sensors {', '.join(sensors)}, and a segment of {', '.join(segment['embeds']) or 'none'}."
            )
    numbers = [*manifest["recall"], *manifest.get("compression", ())]
    measured = {item[name] for item in numbers for name in ("query_sensor", "archive_sensor")}
    if measured - sensors.keys():
        raise ArchiveCorruptError(
            f"{path} has the recall of a sensor that it lacks: {min(measured - sensors.keys())!r}."
        )
    named = {name for segment in segments for name in (segment["tiles"], *segment["embeds"].values())}
    named |= {segment[name] for segment in segments for name in ("order", "removed")} | {manifest["alignment"]}
    named |= {item["index"].get("file") for item in sensors.values()}
    if missing := {name for name in named if name is not None} - manifest["files"].keys():
        raise ArchiveCorruptError(f"{path} does not describe its file {min(missing)!r}.")


def _check(value: Any, shape: Any, where: str) -> None:
    """Refuse a value that is not of a shape.

    That is a type, None, a range of whole numbers, a pattern of texts, a list of one shape, an object with a shape for each name ("?"
    ends those that may be missing), `_Named`, or a tuple of shapes of which one fits.
    """
    if isinstance(shape, _Named):
        if isinstance(value, dict):
            for name, item in value.items():
                if not shape.names.fullmatch(name):
                    _refuse(where, f"names {name!r}, which none can be called")
                _check(item, shape.shape, f"{where}, {name}")
            return
    elif isinstance(shape, tuple):
        if value is None and None in shape:
            return
        return _check(value, shape[0], where)
    elif isinstance(shape, list):
        if isinstance(value, list):
            for place, item in enumerate(value):
                _check(item, shape[0], f"{where} [{place}]")
            return
    elif isinstance(shape, dict):
        if isinstance(value, dict):
            known = {name.removesuffix("?"): item for name, item in shape.items()}
            missing = [name for name in shape if not name.endswith("?") and name not in value]
            if missing or not value.keys() <= known.keys():
                _refuse(where, f"has no {missing[0]}" if missing else f"has {min(value.keys() - known.keys())!r}")
            for name, item in value.items():
                _check(item, known[name], f"{where}, {name}")
            return
    elif isinstance(shape, range):
        if type(value) is int and value in shape:
            return
    elif isinstance(shape, re.Pattern):
        if isinstance(value, str) and shape.fullmatch(value):
            return
        if isinstance(value, str) and shape is OWN_FILE:
            _refuse(where, f"names the file {value!r}: an archive has files of its own in its own folder only")
    elif type(value) is shape or (shape is float and type(value) is int):
        return
    _refuse(where, f"is {str(value)[:60]!r}")


def _refuse(where: str, what: str) -> NoReturn:
    raise ArchiveCorruptError(f"{where} {what}: no release writes that. Copy or build the archive again.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is too large")
    return value
