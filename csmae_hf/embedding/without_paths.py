"""Text without the paths of a machine: where things lie there is nobody's business, and of no use to anybody else."""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""A name on the Hub, `owner/name`."""

_URL = r"\b(?!file:)[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"]*"
_STARTS = (
    r"\bfile:[/\\]+",
    r"(?<![A-Za-z0-9])[A-Za-z]:[/\\]",  # C:\
    r"\\\\(?=\w)",  # \\server
    r"(?<![\w.])~[\w.-]*[/\\]",
    r"(?<![\w.])\.{1,2}[/\\]",
    r"(?<![\w/.)\]%-])/(?=[^\s/])",  # else a slash between words, as in `S1/S2`
)
_PATH = re.compile(rf"(?P<url>{_URL})|(?:{'|'.join(_STARTS)})(?:[^\n]*[/\\](?=[^\s/\\]))?")
"""A URL, which stays, or where a path begins up to its last folder.

Names of folders may hold anything but a slash: all up to the last slash of the line goes, and with it what stood between two paths.
"""


def without_paths(value: Any) -> Any:
    """Leave of every path in JSON types its last part, also within sentences; names of mappings are values as well.

    Args:
        value: A text, or mappings and lists of them; anything else is given back.

    Returns:
        The same without folders: `/home/me/a.tif: no data` is `a.tif: no data`.
    """
    if isinstance(value, Mapping):
        return {without_paths(name): without_paths(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        plain = [without_paths(entry) for entry in value]
        return plain if isinstance(value, list) else tuple(plain)
    if isinstance(value, os.PathLike):
        return without_paths(os.fspath(value))
    if not isinstance(value, str):
        return value
    found = _PATH.match(value)
    if found and not found["url"] and value.endswith(("/", "\\")):
        value = value.rstrip("/\\") or "/"  # a folder by itself, whose last part is its name
    return _PATH.sub(lambda found: found["url"] or "", value)


def last_part(path: str) -> str:
    """The last part of a path of any system."""
    return PureWindowsPath(path).name or path  # it takes both kinds of slashes


def public_name(name: str | os.PathLike[str]) -> str:
    """Name a model or data set without its place: a name on the Hub as it is, of a folder or file its own name alone."""
    text = os.fspath(name)
    if text and Path(text).expanduser().exists():
        return Path(os.path.abspath(os.path.expanduser(text))).name
    return text if HUB_NAME.fullmatch(text) else last_part(text.rstrip("/\\"))
