"""What a person says of image files on a command line: `--bands`, `--units`, `--level`, `--sensors`, `--pair`, read in one place."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from csmae_hf.data.unit_rules import parse_rule
from image_checks_csmae import UNIT_NAMES

Words = str | Sequence[str] | Mapping[str, Any] | None
"""What is said by sensor: words such as `s2=B02,B03`, one or several, or a mapping, as Python has it."""

HELP: dict[str, str] = {
    "bands": "bands of files that do not name them, in the order of the file, such as s1=VV,VH; repeatable",
    "units": "what pixels are in where the files do not say it, such as s2=dn+1000 or s1=linear; of some tiles, such as "
    "'s2=dn+1000 from 2022-01-25' (from DATE, before DATE, of PATTERN; docs/units.md); repeatable",
    "level": "L1C to take Sentinel-2 Level-1C, which is refused otherwise",
    "sensors": "sensors to use, such as s1,s2 (default: all); others with their bands, such as thermal=T10,T11; repeatable",
    "pair": "what is a pair of images, where names differ in more than the sensor, such as 'ROIs*_{sensor}_*'; see docs/tiles.md",
    "suspect": "what to do about images that look wrong by a guess: refuse them, leave them out, up to 1%% of all, or accept them as "
    "they are",
}
"""What each option is for, as `--help` says it."""

LEVELS = ("L1C", "L2A")


def read_image_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the options among what a command was given, as arguments of [`load_tiles`] and [`load_data`].

    Args:
        given: Values by the option's name; others are left alone.

    Returns:
        `bands`, `units`, `level`, `sensors` and `pair`, those that were given.

    Raises:
        ValueError: If one is malformed; it says what was expected.
    """
    level = given.get("level")
    if level is not None and level.upper() not in LEVELS:
        raise ValueError(f"--level {level}: expected one of {', '.join(LEVELS)}.")
    read = {
        "bands": read_bands(given.get("bands")),
        "units": read_units(given.get("units")),
        "level": level and level.upper(),
        "sensors": read_sensors(given.get("sensors")),
        "pair": given.get("pair"),
    }
    return {name: value for name, value in read.items() if value is not None}


def read_bands(words: Words) -> dict[str, list[str]] | None:
    """Read `--bands s1=VV,VH`: by sensor names of bands in the order of a file; None where nothing is said."""
    example = "such as s1=VV,VH or s2=B02,B03,B04"
    said = _by_sensor("bands", words, example)
    for sensor, names in (said or {}).items():
        if not names:
            raise ValueError(f"--bands {sensor}: no bands are named; expected {example}.")
    return said


def read_units(words: Words) -> dict[str, str | list[str]] | None:
    """Read `--units s2=dn+1000` and `--units "s2=dn+1000 from 2022-01-25"`: by sensor a unit of `UNIT_NAMES`, a rule as of
    [`parse_rule`], or several; None where nothing is said."""
    example = f"such as s2=dn+1000, s1=linear or 's2=dn+1000 from 2022-01-25'; units are {', '.join(UNIT_NAMES)}; rules: docs/units.md"
    units: dict[str, str | list[str]] = {}
    for sensor, texts in (_by_sensor("units", words, example, repeated=True) or {}).items():
        said = []
        for text in texts or [""]:
            try:
                rule = parse_rule(text)
            except ValueError as error:
                raise ValueError(f"--units {sensor}{text and '='}{text}: expected {example}. {error}") from error
            if rule.unit not in UNIT_NAMES:
                raise ValueError(f"--units {sensor}{text and '='}{text}: expected {example}.")
            said.append(rule.unit + rule.text[len(rule.unit) :])
        if sum(parse_rule(text).is_for_all for text in said) > 1:
            raise ValueError(f"--units {sensor}={','.join(said)}: two units for all tiles; expected {example}.")
        units[sensor] = said[0] if len(said) == 1 else said
    return units or None


def read_sensors(words: Words) -> dict[str, list[str] | None] | None:
    """Read `--sensors s1,s2` and `--sensors thermal=T10,T11`: names, with the bands that are named; None where nothing is said."""
    said = _by_sensor("sensors", words, "such as s1,s2 or thermal=T10,T11", alone=True)
    return None if said is None else {sensor: names or None for sensor, names in said.items()}


def _by_sensor(
    option: str, words: Words, example: str, alone: bool = False, repeated: bool = False
) -> dict[str, list[str]] | None:
    """Names by sensor, of words `SENSOR=NAME,NAME`; a new sensor may follow in the same word.

    `alone`: sensors may have no `=`; `repeated`: they may come again, with more names.
    """
    if words is None:
        return None
    if isinstance(words, str):
        words = [words]
    if isinstance(words, Mapping):
        return {sensor: [names] if isinstance(names, str) else list(names or ()) for sensor, names in words.items()}
    found: dict[str, list[str]] = {}
    for word in words:
        problem = ValueError(f"--{option} {word}: expected {example}.")
        if word.startswith("{"):  # a mapping in a YAML of arguments
            try:
                found |= _by_sensor(option, json.loads(word), example, alone, repeated) or {}
            except (json.JSONDecodeError, TypeError, AttributeError) as error:
                raise problem from error
            continue
        names: list[str] | None = None
        for part in word.replace(";", ",").split(","):
            sensor, separator, name = (piece.strip() for piece in part.partition("="))
            if not separator:
                sensor, name = ("", sensor) if names is not None else (sensor, "")
            if not (sensor or name) or (separator and not (sensor and name)):
                raise problem
            if not sensor and names is not None:
                names.append(name)
                continue
            if not separator and not alone:
                raise problem
            if sensor in found and not repeated:
                raise ValueError(f"--{option} {word}: {sensor} is there twice; expected each sensor once, {example}.")
            found[sensor] = [*found.get(sensor, []), *([name] if name else [])]
            names = found[sensor] if separator else None
    if not found:
        raise ValueError(f"--{option} says nothing; expected {example}.")
    return found
